#![expect(clippy::unwrap_used, reason = "a test that panics is a test that fails")]

use std::fs::{self, File};
use std::net::IpAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use tempfile::TempDir;

use super::accounts::{entry, free_uid, with_fields, with_line};
use super::dns::with_dns;
use super::hostname::{with_host, with_variable};
use super::secret::crypt;
use super::*;

const COMMENT: &str = "# Auto-generated hostname. Please do not remove this comment.";

/// A container's root in a directory, with a canary beside it that nothing may touch.
struct Guest {
    dir: TempDir,
    root: Root,
}

impl Guest {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("root/etc")).unwrap();
        fs::write(dir.path().join("canary"), "alive\n").unwrap();
        fs::create_dir(dir.path().join("canarydir")).unwrap();
        let root = Root::open(&dir.path().join("root")).unwrap();
        Self { dir, root }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join("root").join(path)
    }

    fn write(&self, path: &str, text: &str) {
        fs::create_dir_all(self.path(path).parent().unwrap()).unwrap();
        fs::write(self.path(path), text).unwrap();
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap()
    }

    /// Runs all three settings on it, each within a second, and looks after the canary.
    fn set_all(&self) -> [Result<(), Error>; 3] {
        let timed = |set: &dyn Fn() -> Result<(), Error>| {
            let start = Instant::now();
            let result = set();
            assert!(start.elapsed() < Duration::from_secs(1), "took {:?}", start.elapsed());
            result
        };
        let results = [
            timed(&|| set_hostname(&self.root, HostnameStyle::EtcHostname, &name("ct101.example.org"))),
            timed(&|| set_dns(&self.root, &[ip("192.0.2.53")], &[name("example.org")])),
            timed(&|| set_password(&self.root, &user("root"), &hash())),
        ];
        assert_eq!(fs::read_to_string(self.dir.path().join("canary")).unwrap(), "alive\n");
        assert_eq!(fs::read_dir(self.dir.path().join("canarydir")).unwrap().count(), 0);
        let temporary = |p: &PathBuf| p.to_string_lossy().contains(".vz-new");
        assert!(!fs::read_dir(self.path("etc")).into_iter().flatten().any(|e| temporary(&e.unwrap().path())));
        results
    }
}

fn name(text: &str) -> Hostname {
    text.parse().unwrap()
}

fn user(text: &str) -> UserName {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn hash() -> SecretHash {
    SecretHash::from_crypted("$6$salt$hash").unwrap()
}

/// Users are made with files of their own, and that takes root.
fn not_root(test: &str) -> bool {
    let not = !rustix::process::geteuid().is_root();
    if not {
        eprintln!("skipped: {test}: must run as root");
    }
    not
}

#[test]
fn a_hostname_is_written_where_each_distribution_keeps_it() {
    for (style, file, before, after) in [
        (HostnameStyle::EtcHostname, "etc/hostname", "old\n", "ct.example.org\n"),
        (HostnameStyle::EtcHostnameUpper, "etc/HOSTNAME", "old\n", "ct.example.org\n"),
        (
            HostnameStyle::SysconfigNetwork,
            "etc/sysconfig/network",
            "NETWORKING=yes\nHOSTNAME=\"old\"\nX=1",
            "NETWORKING=yes\nHOSTNAME=\"ct.example.org\"\nX=1",
        ),
        (HostnameStyle::ConfdHostname, "etc/conf.d/hostname", "# c\n", "# c\nhostname=\"ct.example.org\"\n"),
        (HostnameStyle::RcConf, "etc/rc.conf", "A=1", "A=1\nHOSTNAME=\"ct.example.org\"\n"),
    ] {
        let guest = Guest::new();
        guest.write(file, before);
        guest.write("etc/hosts", "127.0.0.1 localhost\n");
        set_hostname(&guest.root, style, &name("ct.example.org")).unwrap();
        assert_eq!(guest.read(file), after);
        assert_eq!(
            guest.read("etc/hosts"),
            format!("127.0.0.1 localhost\n{COMMENT}\n127.0.0.1 ct.example.org ct localhost\n")
        );
    }
}

#[test]
fn the_line_in_hosts_is_replaced_where_it_is_and_written_once() {
    let text =
        format!("::1 ip6\n{COMMENT}\n192.0.2.1 old.example old\n# mine\n\n{COMMENT}\nff02::1 twice\n10.0.0.1 nas");
    let expected = format!("::1 ip6\n{COMMENT}\n127.0.0.1 new localhost\n# mine\n\n10.0.0.1 nas");
    assert_eq!(with_host(text.as_bytes(), &name("new")), expected.as_bytes());
}

#[test]
fn an_unchanged_file_is_not_written_again() {
    let guest = Guest::new();
    guest.write("etc/passwd", "root:x:0:0::/root:/bin/sh\n");
    guest.set_all().into_iter().for_each(Result::unwrap);
    let inodes =
        || ["hostname", "hosts", "resolv.conf"].map(|f| fs::metadata(guest.path("etc").join(f)).unwrap().ino());
    let before = inodes();
    guest.set_all().into_iter().for_each(Result::unwrap);
    assert_eq!(inodes(), before);
}

#[test]
fn names_that_are_not_host_names_are_refused() {
    for bad in
        ["", ".", "a..b", "-a", "a-", "a b", "a\nb", "a;b", "$(touch x)", "ä", "a/b", "a\u{1b}]0;x", &"a".repeat(65)]
    {
        assert!(bad.parse::<Hostname>().is_err(), "{bad:?}");
    }
    for good in ["a", "ct101", "a.b-c.example.org", "under_score", "101"] {
        assert!(good.parse::<Hostname>().is_ok(), "{good:?}");
    }
}

#[test]
fn name_servers_replace_their_lines_and_an_empty_list_leaves_them() {
    let text = b"# mine\nnameserver 10.0.0.1\ndomain old\noptions rotate\n";
    assert_eq!(
        with_dns(text, &[ip("192.0.2.1"), ip("2001:db8::1")], &[name("a.example"), name("b.example")]),
        b"# mine\noptions rotate\nsearch a.example b.example\nnameserver 192.0.2.1\nnameserver 2001:db8::1\n"
    );
    assert_eq!(with_dns(text, &[], &[]), text);
    assert_eq!(with_dns(b"search a\n", &[ip("192.0.2.1")], &[]), b"search a\nnameserver 192.0.2.1\n");
}

#[test]
fn a_resolv_conf_that_is_a_link_becomes_a_file_and_its_target_is_not_touched() {
    let guest = Guest::new();
    guest.write("run/systemd/resolve/stub-resolv.conf", "nameserver 127.0.0.53\n");
    for target in
        ["../run/systemd/resolve/stub-resolv.conf", "/nowhere", "../../canary", "../../../../../../../etc/hostname"]
    {
        let link = guest.path("etc/resolv.conf");
        let _ = fs::remove_file(&link);
        symlink(target, &link).unwrap();
        set_dns(&guest.root, &[ip("192.0.2.53")], &[]).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_file());
        assert_eq!(guest.read("etc/resolv.conf"), "nameserver 192.0.2.53\n");
    }
    assert_eq!(guest.read("run/systemd/resolve/stub-resolv.conf"), "nameserver 127.0.0.53\n");
    assert_eq!(fs::read_to_string(guest.dir.path().join("canary")).unwrap(), "alive\n");
}

#[test]
fn the_resolver_configuration_is_read_as_the_c_library_reads_it() {
    let resolv = parse_resolv_conf(
        "#nameserver 1.1.1.1\nnameserver 192.0.2.1 x\n nameserver ::1\ndomain a\nsearch b c\nnameserver no\n",
    );
    assert_eq!(resolv.nameservers, [ip("192.0.2.1"), ip("::1")]);
    assert_eq!(resolv.search, [name("b"), name("c")]);
}

#[test]
fn a_password_changes_its_field_and_nothing_else() {
    let guest = Guest::new();
    guest.write("etc/passwd", "root::0:0:root:/root:/bin/sh\n+junk\nal:x:1000:1000::/home/al:/bin/sh");
    guest.write("etc/shadow", "al:!:1:2:3:4:5:6:\nroot:*:19000:0:99999:7:::\n");
    fs::set_permissions(guest.path("etc/shadow"), fs::Permissions::from_mode(0o640)).unwrap();
    set_password(&guest.root, &user("root"), &hash()).unwrap();
    assert_eq!(guest.read("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n+junk\nal:x:1000:1000::/home/al:/bin/sh");
    let shadow = guest.read("etc/shadow");
    let (al, root) = shadow.split_once('\n').unwrap();
    assert_eq!(al, "al:!:1:2:3:4:5:6:");
    let day: u64 =
        root.strip_prefix("root:$6$salt$hash:").unwrap().strip_suffix(":0:99999:7:::\n").unwrap().parse().unwrap();
    assert!(day > 20_000, "{day}");
    assert_eq!(fs::metadata(guest.path("etc/shadow")).unwrap().permissions().mode() & 0o7777, 0o640);
}

#[test]
fn a_missing_shadow_is_made_for_root_alone_to_read() {
    let guest = Guest::new();
    guest.write("etc/passwd", "root:abc:0:0::/root:/bin/sh\n");
    set_password(&guest.root, &user("root"), &hash()).unwrap();
    assert_eq!(fs::metadata(guest.path("etc/shadow")).unwrap().permissions().mode() & 0o7777, 0o600);
    assert!(guest.read("etc/passwd").starts_with("root:x:0:"));
}

#[test]
fn a_missing_user_is_made_with_a_home_from_the_skeleton() {
    if not_root("a_missing_user_is_made_with_a_home_from_the_skeleton") {
        return;
    }
    let guest = Guest::new();
    guest.write(
        "etc/passwd",
        "root:x:0:0::/root:/bin/sh\nbob:x:1004:1004::/home/bob:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
    );
    guest.write("etc/group", "root:x:0:\nstaff:x:1005:\n");
    guest.write("etc/gshadow", "root:*::\n");
    guest.write("etc/skel/.profile", "PS1=x\n");
    guest.write("etc/skel/.config/deep/file", "y\n");
    fs::set_permissions(guest.path("etc/skel/.profile"), fs::Permissions::from_mode(0o4755)).unwrap();
    symlink("../../../canary", guest.path("etc/skel/link")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, guest.path("etc/skel/fifo"), rustix::fs::FileType::Fifo, 0o644.into(), 0)
        .unwrap();
    guest.write("bin/bash", "");
    set_password(&guest.root, &user("alice"), &hash()).unwrap();
    assert!(guest.read("etc/passwd").ends_with("alice:x:1005:1006::/home/alice:/bin/bash\n"));
    assert!(guest.read("etc/group").ends_with("alice:x:1006:\n"));
    assert!(guest.read("etc/gshadow").ends_with("alice:!::\n"));
    assert!(guest.read("etc/shadow").starts_with("alice:$6$salt$hash:"));
    for (path, mode) in [("", 0o700), (".profile", 0o755), (".config/deep/file", 0o644), (".config/deep", 0o755)] {
        let meta = fs::metadata(guest.path("home/alice").join(path)).unwrap();
        assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (1005, 1006, mode), "{path}");
    }
    assert_eq!(fs::read_link(guest.path("home/alice/link")).unwrap(), PathBuf::from("../../../canary"));
    assert!(!guest.path("home/alice/fifo").exists());
    assert_eq!(fs::metadata(guest.dir.path().join("canary")).unwrap().uid(), 0);
    // Again: only the hash changes.
    let before = (guest.read("etc/passwd"), guest.read("etc/group"));
    set_password(&guest.root, &user("alice"), &SecretHash::from_crypted("$6$other$x").unwrap()).unwrap();
    assert_eq!((guest.read("etc/passwd"), guest.read("etc/group")), before);
    assert!(guest.read("etc/shadow").contains("$6$other$x"));
}

#[test]
fn a_home_that_is_a_link_to_elsewhere_is_left_alone() {
    if not_root("a_home_that_is_a_link_to_elsewhere_is_left_alone") {
        return;
    }
    let guest = Guest::new();
    guest.write("etc/skel/.profile", "PS1=x\n");
    fs::create_dir(guest.path("home")).unwrap();
    symlink("../../canarydir", guest.path("home/eve")).unwrap();
    symlink(guest.dir.path().join("canarydir"), guest.path("outside")).unwrap();
    set_password(&guest.root, &user("eve"), &hash()).unwrap();
    assert_eq!(fs::read_dir(guest.dir.path().join("canarydir")).unwrap().count(), 0);
    // And /home itself: resolved inside the root, where the target is not.
    fs::remove_dir_all(guest.path("home")).unwrap();
    symlink(guest.dir.path().join("canarydir"), guest.path("home")).unwrap();
    set_password(&guest.root, &user("mallory"), &hash()).unwrap_err();
    assert_eq!(fs::read_dir(guest.dir.path().join("canarydir")).unwrap().count(), 0);
}

#[test]
fn a_skeleton_without_end_is_refused() {
    if not_root("a_skeleton_without_end_is_refused") {
        return;
    }
    let guest = Guest::new();
    guest.write(&format!("etc/skel/{}", "d/".repeat(30) + "f"), "");
    let deep = set_password(&guest.root, &user("alice"), &hash()).unwrap_err();
    assert!(matches!(deep, Error::SkeletonTooLarge("8 levels")), "{deep}");
    fs::remove_dir_all(guest.path("etc/skel")).unwrap();
    (0..600).for_each(|n| guest.write(&format!("etc/skel/{n}"), ""));
    let wide = set_password(&guest.root, &user("bob"), &hash()).unwrap_err();
    assert!(matches!(wide, Error::SkeletonTooLarge("500 entries")), "{wide}");
    set_password(&guest.root, &user("bob"), &hash()).expect("the home is there now");
}

/// Puts something in place of each file and expects every setting to say what it found.
fn every_setting_refuses(plant: impl Fn(&Guest, &str), expected: &str) {
    let guest = Guest::new();
    for file in ["hostname", "hosts", "resolv.conf", "passwd", "shadow"] {
        plant(&guest, &format!("etc/{file}"));
    }
    for result in guest.set_all() {
        let error = result.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_fifo_in_place_of_a_file_is_refused_at_once() {
    every_setting_refuses(
        |guest, path| {
            let fifo = rustix::fs::FileType::Fifo;
            rustix::fs::mknodat(rustix::fs::CWD, guest.path(path), fifo, 0o644.into(), 0).unwrap();
            assert!(fs::metadata(guest.path(path)).unwrap().file_type().is_fifo());
        },
        "is a FIFO, not a file",
    );
}

#[test]
fn a_device_in_place_of_a_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let device = rustix::fs::FileType::CharacterDevice;
    let null = rustix::fs::makedev(1, 3);
    if let Err(error) = rustix::fs::mknodat(rustix::fs::CWD, dir.path().join("null"), device, 0o666.into(), null) {
        eprintln!("skipped: a_device_in_place_of_a_file_is_refused: mknod: {error}");
        return;
    }
    every_setting_refuses(
        |guest, path| rustix::fs::mknodat(rustix::fs::CWD, guest.path(path), device, 0o666.into(), null).unwrap(),
        "is a device, not a file",
    );
}

#[test]
fn a_directory_in_place_of_a_file_is_refused() {
    every_setting_refuses(|guest, path| fs::create_dir(guest.path(path)).unwrap(), "is a directory, not a file");
}

#[test]
fn a_huge_sparse_file_is_refused_unread() {
    every_setting_refuses(
        |guest, path| File::create(guest.path(path)).unwrap().set_len(64 << 30).unwrap(),
        "has 68719476736 bytes, more than 1 MiB",
    );
}

#[test]
fn links_out_of_the_container_are_not_followed() {
    for target in ["/nowhere", "../../canary", "../../../../../../../etc/shadow", "/proc/1/root/etc/shadow", "."] {
        let guest = Guest::new();
        for file in ["hostname", "hosts", "resolv.conf", "passwd", "shadow", ".pwd.lock"] {
            symlink(target, guest.path("etc").join(file)).unwrap();
        }
        let [hostname, dns, password] = guest.set_all();
        assert!(hostname.unwrap_err().to_string().contains("is a symbolic link"));
        dns.expect("replaced by a file");
        assert!(password.unwrap_err().to_string().starts_with("openat2(/etc/.pwd.lock)"));
        fs::remove_file(guest.path("etc/.pwd.lock")).unwrap();
        assert!(guest.set_all()[2].as_ref().unwrap_err().to_string().contains("is a symbolic link"));
    }
}

#[test]
fn a_directory_that_is_a_link_out_of_the_container_leads_nowhere() {
    for absolute in [true, false] {
        let guest = Guest::new();
        fs::remove_dir(guest.path("etc")).unwrap();
        let target = if absolute { guest.dir.path().join("canarydir") } else { "../canarydir".into() };
        symlink(target, guest.path("etc")).unwrap();
        for result in guest.set_all() {
            assert!(matches!(result, Err(Error::Call { call: Call::Openat2, .. })));
        }
    }
}

#[test]
fn a_link_inside_the_container_is_followed_inside() {
    let guest = Guest::new();
    guest.write("usr/etc/passwd", "root:x:0:0::/root:/bin/sh\n");
    fs::remove_dir(guest.path("etc")).unwrap();
    symlink("/usr/etc", guest.path("etc")).unwrap();
    guest.set_all().into_iter().for_each(Result::unwrap);
    assert_eq!(guest.read("usr/etc/hostname"), "ct101.example.org\n");
}

#[test]
fn a_hard_link_keeps_what_it_had() {
    let guest = Guest::new();
    for file in ["hostname", "hosts", "resolv.conf"] {
        fs::hard_link(guest.dir.path().join("canary"), guest.path("etc").join(file)).unwrap();
    }
    let [hostname, dns, _] = guest.set_all();
    hostname.unwrap();
    dns.unwrap();
    assert_eq!(guest.read("etc/hostname"), "ct101.example.org\n");
}

#[test]
fn what_a_killed_run_left_is_replaced_and_what_was_planted_there_is_refused() {
    let guest = Guest::new();
    symlink("../../canary", guest.path("etc/.hostname.vz-new")).unwrap();
    let set = || set_hostname(&guest.root, HostnameStyle::EtcHostname, &name("a"));
    set().unwrap();
    assert_eq!(guest.read("etc/hostname"), "a\n");
    assert_eq!(fs::read_to_string(guest.dir.path().join("canary")).unwrap(), "alive\n");
    fs::write(guest.path("etc/hostname"), "b\n").unwrap();
    fs::create_dir(guest.path("etc/.hostname.vz-new")).unwrap();
    assert!(matches!(set(), Err(Error::Call { call: Call::Unlinkat, .. })));
    assert_eq!(guest.read("etc/hostname"), "b\n");
}

#[test]
fn a_lock_held_for_ever_ends_in_an_error() {
    let guest = Guest::new();
    guest.write("etc/passwd", "root:x:0:0::/root:/bin/sh\n");
    guest.write("etc/.pwd.lock", "");
    // An open file description's lock: one of this same process would not stand in its own way.
    let holder = File::options().write(true).open(guest.path("etc/.pwd.lock")).unwrap();
    let set = |l_type| {
        let lock = libc::flock { l_type, l_whence: 0, l_start: 0, l_len: 0, l_pid: 0 };
        nix::fcntl::fcntl(&holder, nix::fcntl::FcntlArg::F_OFD_SETLK(&lock)).unwrap();
    };
    set(libc::F_WRLCK as i16);
    assert!(matches!(&guest.set_all()[2], Err(Error::Locked(path)) if path == "/etc/.pwd.lock"));
    // Closing would not do: a child that another test forked meanwhile still has the description, and with it the lock.
    set(libc::F_UNLCK as i16);
    guest.set_all().into_iter().for_each(Result::unwrap);
}

#[test]
fn user_names_that_programs_misread_are_refused() {
    for bad in ["", "0", "1000", "1a", "-r", ".a", "a:b", "a b", "a\n", "a/b", "..", "ä", &"a".repeat(33)] {
        assert!(bad.parse::<UserName>().is_err(), "{bad:?}");
    }
    assert!("www-data".parse::<UserName>().is_ok() && "_apt".parse::<UserName>().is_ok());
}

#[test]
fn the_argument_of_userpasswd_is_split_at_the_first_colon() {
    let (who, password) = split_user_password("root:a:b c").unwrap();
    assert_eq!(who.as_str(), "root");
    assert_eq!(crypt(&password, "salt").expose(), crypt(&Password::new("a:b c").unwrap(), "salt").expose());
    assert_eq!(split_user_password("root").unwrap_err(), BadSecret::NoColon);
    assert_eq!(split_user_password("root:").unwrap_err(), BadSecret::Empty);
    assert_eq!(split_user_password("root:a\nb").unwrap_err(), BadSecret::ControlCharacter);
    assert!(matches!(split_user_password("0:a").unwrap_err(), BadSecret::User(_)));
}

#[test]
fn a_hash_is_what_crypt_makes_and_differs_each_time() {
    // What crypt(3) of glibc 2.36 says.
    let known = crypt(&Password::new("Hello world!").unwrap(), "saltstring");
    assert_eq!(
        known.expose(),
        "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1"
    );
    let password = Password::new("secret").unwrap();
    let (one, other) = (hash_password(&password).unwrap(), hash_password(&password).unwrap());
    assert_ne!(one.expose(), other.expose());
    assert!(SecretHash::from_crypted(one.expose()).is_ok());
    assert_eq!(format!("{password:?} {one:?}"), "Password(hidden) SecretHash(hidden)");
}

#[test]
fn what_would_break_out_of_its_field_is_not_a_hash() {
    for bad in ["", "plain", "$6$a$b:0", "$6$a$b\nroot2::0", "!$6$a$b", "$6$", "$6$a$b c"] {
        assert_eq!(SecretHash::from_crypted(bad).unwrap_err(), BadSecret::NotAHash, "{bad:?}");
    }
}

#[test]
fn a_new_uid_is_above_all_others_and_takes_a_gap_at_the_end() {
    assert_eq!(free_uid(b""), Some(1000));
    assert_eq!(free_uid(b"a:x:1007:0\nnobody:x:65534:0\nbad:x:zz:0\n"), Some(1008));
    assert_eq!(free_uid(b"a:x:59999:0\nb:x:1000:0\n"), Some(1001));
    let full: String = (1000..60000).map(|id| format!("u:x:{id}:0\n")).collect();
    assert_eq!(free_uid(full.as_bytes()), None);
}

fn lines(text: &[u8]) -> Vec<&[u8]> {
    text.split(|&b| b == b'\n').filter(|line| !line.is_empty()).collect()
}

/// Bytes with the characters that matter often enough.
fn texts() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        prop::sample::select(vec![
            "root:",
            "rootx:",
            ":",
            "\n",
            "\n\n",
            "\r\n",
            "x",
            "HOSTNAME=",
            "nameserver ",
            "search ",
            "127.0.0.1 a\n",
            "# Auto-generated hostname. Please do not remove this comment.\n",
            "\0"
        ])
        .prop_map(|s| s.as_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 0..6),
    ];
    prop::collection::vec(piece, 0..20).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn changing_a_users_fields_keeps_every_other_line(text in texts()) {
        if let Some(changed) = with_fields(&text, &user("root"), &[(1, b"new")]) {
            let (before, after): (Vec<_>, Vec<_>) = (text.split(|&b| b == b'\n').collect(), changed.split(|&b| b == b'\n').collect());
            prop_assert_eq!(before.len(), after.len());
            let differing = before.iter().zip(&after).filter(|(a, b)| a != b).count();
            prop_assert!(differing <= 1);
            prop_assert_eq!(entry(&changed, &user("root")).unwrap()[1], b"new");
        } else {
            prop_assert!(entry(&text, &user("root")).is_none_or(|fields| fields.len() < 2));
        }
    }

    #[test]
    fn adding_a_line_keeps_all_others(text in texts()) {
        let more = with_line(&text, "alice:x:1:1:::");
        prop_assert!(more.starts_with(&text) && more.ends_with(b"\nalice:x:1:1:::\n") || text.is_empty());
        prop_assert!(entry(&more, &user("alice")).is_some());
        let _ = free_uid(&text);
    }

    #[test]
    fn a_variable_is_set_once_and_other_lines_are_kept(text in texts()) {
        let once = with_variable(&text, "HOSTNAME", "a");
        prop_assert_eq!(&with_variable(&once, "HOSTNAME", "a"), &once);
        let other = |t: &[u8]| lines(t).into_iter().filter(|l| !l.starts_with(b"HOSTNAME=")).map(<[u8]>::to_vec).collect::<Vec<_>>();
        prop_assert_eq!(other(&once), other(&text));
    }

    #[test]
    fn hosts_are_edited_once_and_lines_without_our_comment_are_kept(text in texts()) {
        let once = with_host(&text, &name("a.b"));
        prop_assert_eq!(&with_host(&once, &name("a.b")), &once);
        if !text.windows(6).any(|w| w == b"# Auto") {
            prop_assert!(once.starts_with(&text));
        }
    }

    #[test]
    fn name_servers_are_set_once_and_other_lines_are_kept(text in texts()) {
        let (servers, search) = ([ip("192.0.2.1")], [name("a")]);
        let once = with_dns(&text, &servers, &search);
        prop_assert_eq!(&with_dns(&once, &servers, &search), &once);
        let keyword = |l: &&[u8]| [&b"nameserver"[..], b"search", b"domain"].iter().any(|k| l.starts_with(k));
        let other = |t: &[u8]| lines(t).into_iter().filter(|l| !keyword(l)).map(<[u8]>::to_vec).collect::<Vec<_>>();
        prop_assert_eq!(other(&once), other(&text));
    }

    #[test]
    fn any_resolver_configuration_is_read_without_a_panic(text in ".*") {
        let _ = parse_resolv_conf(&text);
    }
}
