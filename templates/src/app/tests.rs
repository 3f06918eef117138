use super::*;

fn name(s: &str) -> TemplateName {
    s.parse().unwrap()
}

const SMALL: &str = "name='x'\ndescription='d'\nversion='1'\n";
const FOR: &str = "[[for]]\nfamily='debian'\n";

fn parsed(more: &str) -> Result<AppTemplate, AppError> {
    AppTemplate::parse(&format!("{SMALL}{more}"), &name("x"), "x.toml")
}

#[test]
fn built_in_templates_are_valid_and_for_debian_12_and_13() {
    for builtin in AppTemplate::builtin() {
        let app = AppTemplate::load(&name(builtin), Path::new("/nonexistent")).unwrap();
        assert_eq!(app.name, builtin);
        for release in ["12", "13"] {
            let system = System::parse(&format!("ID=debian\nVERSION_ID=\"{release}\"\n"));
            assert!(app.for_system(&system).is_some(), "{builtin} is not for debian {release}");
        }
        assert!(app.for_system(&System::parse("ID=alpine")).is_none());
        assert!(app.check.is_some(), "{builtin} cannot be probed");
    }
}

#[test]
fn errors_name_file_line_and_what_was_expected() {
    let bad = format!("{FOR}[[files]]\npath='etc/x'\ncontent=''\n");
    let said = parsed(&bad).unwrap_err().to_string();
    assert_eq!(said, "application template x.toml, line 7: path \"etc/x\": expected an absolute path without '..'");
    let AppError::Parse { source, .. } = parsed(&format!("{FOR}colour='x'")).unwrap_err() else { panic!("not a key") };
    assert!(source.to_string().contains("line 6"), "{source}");
    assert!(source.to_string().contains("expected"), "{source}");
}

#[test]
fn values_that_would_be_options_or_lead_elsewhere_are_refused() {
    let cases = [
        "[[files]]\npath='/a/../b'\ncontent=''",
        "[[links]]\npath='/'\ntarget='x'",
        "[services]\nenable=['--root=/']",
        "[commands]\npost_install=[{argv=[]}]",
        "[commands]\npre_remove=[{argv=['-x']}]",
        "[check]\nseconds=3",
        "[check]\nport='0'",
        "[check]\nport='80'\nargv=['true']",
        "[check]\nport='80'\nseconds=0",
        "[check]\nport='{port}'",
        "[[files]]\npath='/a'\ncontent='listen {port};'",
        "[parameters.port]\ntype='port'\ndefault='65536'",
        "[parameters.Port]\ntype='port'",
        "[captured]\nfiles='../x.tar'\nsha256='0'",
    ];
    for more in cases {
        let told = parsed(&format!("{FOR}{more}"));
        assert!(matches!(told, Err(AppError::Invalid { .. })), "{more}: {told:?}");
    }
    for more in ["", "requires=['x']\n[[for]]\nfamily='debian'", "[[for]]\nfamily='debian'\npackages=['a','-o']"] {
        assert!(matches!(parsed(more), Err(AppError::Invalid { .. })), "{more}");
    }
}

#[test]
fn a_request_is_a_name_with_values_and_a_value_may_hold_a_colon() {
    let request: Request = "nginx:port=8080:root=/srv/a:b".parse().unwrap();
    assert_eq!(request.name.as_str(), "nginx");
    let expected = [("port", "8080"), ("root", "/srv/a:b")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    assert_eq!(request.given, expected.into());
    assert!("nginx:8080".parse::<Request>().is_err());
    assert!("nginx:port=1:port=2".parse::<Request>().is_err());
    assert!("../x".parse::<Request>().is_err());
}

#[test]
fn parameters_take_what_is_given_then_the_default_and_secrets_are_made_up() {
    let app = parsed(&format!(
        "{FOR}[parameters.port]\ntype='port'\ndefault='80'\n[parameters.password]\ntype='secret'\n[parameters.who]\ntype='string'\n"
    ))
    .unwrap();
    let given = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect::<Values>();
    let first = app.values(&given(&[("who", "me")])).unwrap();
    let second = app.values(&given(&[("who", "me"), ("port", "81")])).unwrap();
    assert_eq!((first["port"].as_str(), second["port"].as_str()), ("80", "81"));
    assert_eq!(first["password"].len(), 24);
    assert_ne!(first["password"], second["password"]);
    for bad in [&[][..], &[("who", "a;b")], &[("who", "a\nb")], &[("who", "x"), ("port", "http")], &[("what", "x")]] {
        assert!(app.values(&given(bad)).is_err(), "{bad:?}");
    }
}

#[test]
fn only_a_lower_case_name_between_braces_is_a_parameter() {
    let values: Values = [("port".to_owned(), "8080".to_owned())].into();
    let text = "server { listen {port}; } {\"a\": {port}} {$x} {Port} ü{ {port}";
    assert_eq!(fill(text, &values), "server { listen 8080; } {\"a\": 8080} {$x} {Port} ü{ 8080");
}

#[test]
fn required_templates_come_first_and_circles_and_conflicts_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let write = |n: &str, more: &str| {
        let text = format!("{}{more}\n{FOR}", SMALL.replace("'x'", &format!("'{n}'")));
        fs::write(dir.path().join(format!("{n}.toml")), text).unwrap();
    };
    write("a", "requires=['b','c']");
    write("b", "requires=['c']");
    write("c", "conflicts=['d']");
    write("d", "");
    write("e", "requires=['f']");
    write("f", "requires=['e']");
    let shelf = Shelf::new(dir.path());
    let names = |apps: Vec<AppTemplate>| apps.into_iter().map(|a| a.name).collect::<Vec<_>>();
    assert_eq!(names(shelf.order(&[name("a")], &[]).unwrap()), ["c", "b", "a"]);
    assert_eq!(names(shelf.order(&[name("a")], &["c".into()]).unwrap()), ["b", "a"]);
    let circle = shelf.order(&[name("e")], &[]).unwrap_err().to_string();
    assert_eq!(circle, "application templates require each other: e requires f requires e");
    let d = shelf.load(&name("d")).unwrap();
    let new = shelf.order(&[name("c")], &[]).unwrap();
    let said = refuse_conflicts(&new, [&d]).unwrap_err().to_string();
    assert_eq!(said, "c cannot be in one container with d");
    assert!(shelf.order(&[name("missing")], &[]).is_err());
}

#[test]
fn what_a_container_says_of_its_system_is_words_or_nothing() {
    let system = System::parse("ID=debian\nID_LIKE=\"a b;c -x\"\nVERSION_ID='12'\nVERSION_CODENAME=book/worm\n");
    assert_eq!((system.id.as_str(), system.release.as_str(), system.codename.as_str()), ("debian", "12", ""));
    assert_eq!(system.like, ["a"]);
}
