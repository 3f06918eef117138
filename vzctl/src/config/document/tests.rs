use std::os::unix::fs::{MetadataExt, PermissionsExt};

use proptest::prelude::*;

use super::*;

fn parsed(text: &str) -> Document {
    Document::parse(text.as_bytes()).unwrap()
}

#[test]
fn the_shapes_of_a_pair() {
    for (line, value) in [
        ("KEY=\"value\"", "value"),
        ("KEY=value", "value"),
        ("KEY='value'", "value"),
        ("  KEY=\"value\"  ", "value"),
        ("KEY=\"value\"\r", "value"),
        ("KEY=\"a \"quoted\" word\"", "a \"quoted\" word"),
        ("KEY=\"value\" # said \"so\"", "value\" # said \"so"),
        ("KEY=value # a comment", "value"),
        ("KEY=a#b", "a#b"),
        ("KEY=", ""),
        ("KEY=\"\"", ""),
        ("KEY=two words", "two words"),
        ("KEY=\"a=b\"", "a=b"),
    ] {
        assert_eq!(parsed(line).get("KEY"), Some(value), "{line}");
    }
}

#[test]
fn strange_lines_are_kept_and_mean_nothing() {
    let text = "#KEY: value\n\n   # x\n. /etc/evil\n$(touch /root/P)\nKEY = 1\n=\n1A=2\nif true; then\n\\\n`id`\nA=$(touch /root/P)\n";
    let document = parsed(text);
    assert_eq!(document.to_bytes(), text.as_bytes());
    assert_eq!(document.pairs().collect::<Vec<_>>(), [("A", "$(touch /root/P)")]);
}

#[test]
fn dangerous_lines_are_refused_with_their_number() {
    assert_eq!(Document::parse(b"A=1\nB=\"x\0\"\n"), Err(BadLine { line: 2, fault: Fault::Nul }));
    assert_eq!(
        Document::parse(b"A=1\n\nDISKSPACE=\"1048"),
        Err(BadLine { line: 3, fault: Fault::Unclosed("DISKSPACE".into()) })
    );
    assert_eq!(Document::parse(b"A=\"one \\\ntwo\"\n").unwrap_err().line, 1);
}

#[test]
fn a_change_keeps_everything_else_in_place() {
    let mut document = parsed("# by hand\r\nA=\"1\"\r\nUNKNOWN=\"$(x)\"\r\n#A: note\r\nB=2\r\n");
    document.set("A", "one").unwrap();
    document.set("C", "3").unwrap();
    document.set("B", "2").unwrap();
    document.remove("D");
    let expected = "# by hand\r\nA=\"one\"\r\nUNKNOWN=\"$(x)\"\r\n#A: note\r\nB=2\r\nC=\"3\"\r\n";
    assert_eq!(String::from_utf8(document.to_bytes()).unwrap(), expected);
}

#[test]
fn the_last_of_duplicates_wins_and_is_the_one_changed() {
    let mut document = parsed("A=1\nB=2\nA=3");
    assert_eq!(document.get("A"), Some("3"));
    document.set("A", "4").unwrap();
    document.set("C", "5").unwrap();
    assert_eq!(document.to_bytes(), b"A=1\nB=2\nA=\"4\"\nC=\"5\"\n");
    document.remove("A");
    assert_eq!(document.to_bytes(), b"B=2\nC=\"5\"\n");
}

#[test]
fn text_that_is_not_utf8_survives() {
    let text = b"DESCRIPTION=\"M\xfcller\"\nA=1\n";
    let mut document = Document::parse(text).unwrap();
    document.set("A", "2").unwrap();
    assert_eq!(document.to_bytes(), b"DESCRIPTION=\"M\xfcller\"\nA=\"2\"\n");
    assert_eq!(document.get("DESCRIPTION"), Some("M\u{fffd}ller"));
}

#[test]
fn a_value_a_shell_would_change_is_refused_by_its_character() {
    for bad in ["a\nb", "a\rb", "a\0b", "a\"b", "a$b", "a`b", "a\\b", "a\x1bb", "a\u{9b}b"] {
        let mut document = Document::default();
        let character = bad.chars().nth(1).unwrap();
        assert_eq!(document.set("DESCRIPTION", bad), Err(BadCharacter(character)), "{bad:?}");
        assert!(document.to_bytes().is_empty());
    }
    let mut document = Document::default();
    document.set("VE_ROOT", "/vz/root/$VEID").unwrap();
    assert_eq!(document.set("VE_ROOT", "/vz/$(x)"), Err(BadCharacter('$')));
    assert_eq!(document.set("VE_PRIVATE", "/vz/$VEIDx`"), Err(BadCharacter('`')));
}

proptest! {
    #[test]
    fn any_bytes_are_taken_apart_and_put_together_again(text in proptest::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(document) = Document::parse(&text) {
            prop_assert_eq!(document.to_bytes(), text);
        }
    }

    #[test]
    fn a_written_value_reads_back_here_and_in_a_shell(value in "[^\\p{C}\"$`\\\\]{0,40}") {
        let mut document = parsed("# x\nA=1\n");
        document.set("A", &value).unwrap();
        let again = Document::parse(&document.to_bytes()).unwrap();
        prop_assert_eq!(again.get("A"), Some(value.as_str()));
    }
}

#[test]
fn a_shell_reads_what_was_written() {
    let value = "it's 100% * ? [a] ~ ; & | < > ( ) { } # ! é";
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("101.conf");
    let mut document = Document::default();
    document.set("DESCRIPTION", value).unwrap();
    document.save(&path).unwrap();
    let output = std::process::Command::new("sh")
        .args(["-c", ". \"$0\"; printf %s \"$DESCRIPTION\""])
        .arg(&path)
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), value);
}

#[test]
fn saving_replaces_the_file_and_leaves_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("101.conf");
    parsed("A=1\n").save(&path).unwrap();
    assert_eq!(fs_err::metadata(&path).unwrap().mode() & 0o777, 0o644);
    fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    fs_err::write(temporary_of(&path), "left by a killed command, and longer than what comes").unwrap();
    let before = fs_err::metadata(&path).unwrap().ino();
    parsed("A=2\n").save(&path).unwrap();
    assert_eq!(fs_err::read(&path).unwrap(), b"A=2\n");
    let after = fs_err::metadata(&path).unwrap();
    assert_ne!(after.ino(), before);
    assert_eq!(after.mode() & 0o777, 0o600, "a file that was closed to others stays so");
    assert_eq!(fs_err::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn many_savers_at_once_leave_one_whole_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("101.conf");
    std::thread::scope(|scope| {
        for n in 0..8 {
            let path = &path;
            scope.spawn(move || {
                for _ in 0..10 {
                    parsed(&format!("A={n}\n").repeat(500)).save(path).unwrap();
                }
            });
        }
    });
    let text = fs_err::read_to_string(&path).unwrap();
    assert_eq!(text.lines().count(), 500);
    assert!(text.lines().all(|l| l == text.lines().next().unwrap()));
    assert_eq!(fs_err::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_save_that_fails_leaves_the_old_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("101.conf");
    parsed("A=1\n").save(&path).unwrap();
    fs_err::create_dir(temporary_of(&path)).unwrap();
    let error = parsed("A=2\n").save(&path).unwrap_err();
    assert!(matches!(error, DocumentError::Save { call: "open", .. }), "{error:?}");
    assert_eq!(fs_err::read(&path).unwrap(), b"A=1\n");
}

#[test]
fn links_fifos_directories_and_giants_are_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs_err::write(at("real"), "A=1\n").unwrap();
    std::os::unix::fs::symlink(at("real"), at("link")).unwrap();
    assert!(matches!(Document::load(&at("link")), Err(DocumentError::Link(_))));
    assert_eq!(Document::load_linked(&at("link")).unwrap().get("A"), Some("1"));
    rustix::fs::mkfifoat(rustix::fs::CWD, at("fifo"), Mode::from_raw_mode(0o600)).unwrap();
    assert!(matches!(Document::load(&at("fifo")), Err(DocumentError::NotRegular(_))));
    assert!(matches!(Document::load(dir.path()), Err(DocumentError::NotRegular(_))));
    std::fs::File::create(at("giant")).unwrap().set_len(MAX_BYTES + 1).unwrap();
    assert!(matches!(Document::load(&at("giant")), Err(DocumentError::TooLarge(_))));
    assert!(Document::load(&at("none")).unwrap_err().is_missing());
    fs_err::write(at("bad"), "A=1\nB=\"\n").unwrap();
    assert!(Document::load(&at("bad")).unwrap_err().to_string().ends_with("/bad:2: the quote after B= is not closed"));
}
