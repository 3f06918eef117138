//! Captured application templates in containers: what was captured in one works in another, and goes again without a trace, whatever
//! interrupts it.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::Duration;

use tests::containers::node_with_own_store;
use tests::node::{Node, Outcome};
use tests::wait::{rounds, wait_until};

const APPS: &str = "template/recipes/apps";

/// Captures the template `name` by a script.
fn capture(node: &Node, name: &str, from: &str, script: &str) {
    let path = node.path("script");
    fs_err::write(&path, script).expect("a script");
    let words = ["capture", name, "--from", from, "--yes", "--script", &path.display().to_string()].map(String::from);
    Outcome::of(node.command("vzpkg", words), Duration::from_secs(120)).ok();
}

fn vzpkg(node: &Node, words: &[&str]) -> Outcome {
    Outcome::of(node.command("vzpkg", words), Duration::from_secs(120))
}

/// The next command after one that was killed: what that had at work in the container may hold the lock for a moment.
fn next(node: &Node, words: &[&str]) -> Outcome {
    const LOCKED: i32 = 21;
    let mut outcome = vzpkg(node, words);
    let is_free = wait_until(Duration::from_secs(30), || {
        let locked = outcome.code == LOCKED;
        if locked {
            outcome = vzpkg(node, words);
        }
        !locked
    });
    assert!(is_free, "what the killed command had at work does not end");
    outcome
}

/// Adds lines to a template, as its owner may.
fn amend(node: &Node, name: &str, change: impl FnOnce(String) -> String) {
    let path = node.path(APPS).join(format!("{name}.toml"));
    let text = fs_err::read_to_string(&path).expect("a template");
    fs_err::write(path, change(text)).expect("a template");
}

fn exec(node: &Node, ctid: u32, line: &str) -> String {
    node.done(["exec2", &ctid.to_string(), line]).trim_end().to_owned()
}

/// All that a container's files are, but for their times: of two of them, the lines that are not in both.
fn files(node: &Node, ctid: u32) -> String {
    // dpkg is free to put its packages in another order, and the cache of libraries has no order either.
    let but = "! -path /var/lib/dpkg/status ! -path /etc/ld.so.cache ! -name '*-old' ! -path '/var/log/*' ! -path '/var/cache/*'";
    exec(
        node,
        ctid,
        &format!(
            "find /bin /etc /root /opt /usr /var /sbin -xdev {but} -exec stat -c '%n %F %a %u:%g' {{}} + 2>/dev/null | sort; \
             find /etc /opt /var/www /usr/local -xdev -type f {but} -exec md5sum {{}} + 2>/dev/null | sort"
        ),
    )
}

fn difference<'t>(before: &'t str, after: &'t str) -> Vec<&'t str> {
    let [before, after] = [before, after].map(|text| text.lines().collect::<BTreeSet<_>>());
    before.symmetric_difference(&after).copied().collect()
}

const SCRIPT: &str = "set -e
mkdir -p /opt/app/data /usr/bin
echo 'the program' > /opt/app/program
chmod 4755 /opt/app/program
ln /opt/app/program /opt/app/another
ln -s ../../opt/app/program /usr/bin/app
mkfifo /opt/app/fifo
echo 'app:x:150:150:an app:/opt/app:/bin/false' >> /etc/passwd
echo 'app:x:150:' >> /etc/group; sed -i 's/^root:.*/root:x:0:app/' /etc/group
echo hers > /opt/app/data/file
chown -R 150:150 /opt/app/data
chmod 700 /var/www
echo 'port=1' > /etc/app.conf
echo changed > /var/www/index.html
rm /etc/shells
dd if=/dev/zero of=/opt/app/sparse bs=1 count=1 seek=3000000 2>/dev/null
";

#[test]
fn what_was_captured_works_in_another_container_and_goes_without_a_trace() {
    let test = "what_was_captured_works_in_another_container_and_goes_without_a_trace";
    let Some(node) = node_with_own_store(test, &["busybox"]) else { return };
    capture(&node, "app", "busybox", SCRIPT);
    node.done(["create", "101", "--ostemplate", "busybox"]);
    node.done(["start", "101"]);
    let before = files(&node, 101);
    vzpkg(&node, &["install", "101", "app"]).ok();
    assert_eq!(node.configured(101, "TEMPLATES").as_deref(), Some("app"));
    assert_eq!(
        node.inside(
            "cat /usr/bin/app; stat -c '%a %h %u' /opt/app/another; stat -c '%u:%g' /opt/app/data /opt/app/data/file"
        ),
        "the program\n4755 2 0\n150:150\n150:150"
    );
    assert_eq!(
        node.inside("cat /etc/app.conf /var/www/index.html; ls /etc/shells 2>/dev/null; stat -c %a /var/www; stat -c %F /opt/app/fifo; stat -c %s /opt/app/sparse; head -c 3000000 /opt/app/sparse | md5sum"),
        "port=1\nchanged\n700\nfifo\n3000001\n8ac3eaac3c8c0e4f9c1a96df0b5e0a73  -".replace("8ac3eaac3c8c0e4f9c1a96df0b5e0a73", &zeros())
    );
    assert_eq!(
        node.inside("grep ^app: /etc/passwd /etc/group /etc/shadow | wc -l; id app"),
        "3\nuid=150(app) gid=150(app) groups=150(app),0(root)"
    );
    vzpkg(&node, &["install", "101", "app"]).fails_with(27);

    node.inside("echo port=2 > /etc/app.conf; echo new > /opt/app/data/own; echo /bin/mine > /etc/shells");
    let removed = vzpkg(&node, &["remove", "101", "app"]).ok();
    let said = removed.stdout + &removed.stderr;
    assert!(said.contains("/etc/app.conf was changed and is kept as /etc/app.conf.vz-saved"), "{said}");
    assert_eq!(
        node.inside("cat /etc/app.conf.vz-saved /etc/shells.vz-saved; find /opt -type f"),
        "port=2\n/bin/mine\n/opt/app/data/own"
    );
    node.inside("rm -r /etc/app.conf.vz-saved /etc/shells.vz-saved /opt/app");
    let left = difference(&before, &files(&node, 101))
        .into_iter()
        .filter(|l| !l.starts_with("/opt "))
        .map(String::from)
        .collect::<Vec<_>>();
    assert_eq!(left, [""; 0]);
    assert_eq!(node.configured(101, "TEMPLATES"), None);
    assert!(!node.path("etc/conf/101.apps").exists());

    // In a container that does not run, and in one that is being made.
    node.done(["stop", "101", "--fast"]);
    vzpkg(&node, &["install", "101", "app"]).ok();
    node.done(["create", "102", "--ostemplate", "busybox", "--apptemplate", "app"]);
    for ctid in [101, 102] {
        assert!(node.status(ctid).ends_with("exist unmounted down"));
        node.done(["start", &ctid.to_string()]);
        assert_eq!(exec(&node, ctid, "cat /usr/bin/app; grep -c ^app: /etc/passwd"), "the program\n1");
        node.done(["stop", &ctid.to_string(), "--fast"]);
        node.done(["destroy", &ctid.to_string()]);
    }
    assert_eq!(node.leftovers(), [""; 0]);
}

/// What md5sum says of the hole.
fn zeros() -> String {
    let mut md5sum = std::process::Command::new("sh");
    md5sum.args(["-c", "head -c 3000000 /dev/zero | md5sum | cut -d' ' -f1"]);
    Outcome::of(md5sum, Duration::from_secs(10)).ok().stdout.trim().to_owned()
}

#[test]
fn what_does_not_fit_is_refused_and_changes_nothing() {
    let test = "what_does_not_fit_is_refused_and_changes_nothing";
    let Some(node) = node_with_own_store(test, &["busybox"]) else { return };
    capture(&node, "app", "busybox", SCRIPT);
    capture(
        &node,
        "other",
        "busybox",
        "mkdir /opt; echo other > /etc/app.conf; echo 'other:x:150:150::/:/bin/false' >> /etc/passwd; echo o > /opt/o; chown 150 /opt/o",
    );
    node.done(["create", "101", "--ostemplate", "busybox"]);
    node.done(["start", "101"]);
    let before = files(&node, 101);
    let refused = |code: i32, words: &str| {
        let outcome = vzpkg(&node, &["install", "101", "app"]).fails_with(code);
        assert!(outcome.stderr.contains(words), "{words} in {}", outcome.stderr);
        assert!(!node.path("etc/conf/101.apps").exists());
    };
    // Another release: the container's word counts.
    node.inside("cp -a /etc/os-release /etc/os-kept; sed -i 's/ID=.*/ID=other/' /etc/os-release");
    refused(28, "Application template app is for busybox");
    refused(28, "CT 101 is other");
    node.inside("mv /etc/os-kept /etc/os-release");
    // Links that would lead elsewhere.
    node.inside("mkdir /elsewhere; ln -s /elsewhere /opt");
    refused(25, "would be written through something that is not a directory");
    node.inside("rm /opt; rmdir /elsewhere");
    node.inside("touch /etc/shells.vz-before");
    refused(28, "/etc/shells would be kept as /etc/shells.vz-before");
    node.inside("rm /etc/shells.vz-before");
    // Another archive.
    let archive = node.path(APPS).join("app.tar.zst");
    let kept = fs_err::read(&archive).expect("an archive");
    fs_err::copy(node.path(APPS).join("other.tar.zst"), &archive).expect("an archive");
    refused(25, "is not what app was captured as");
    fs_err::write(&archive, &kept[..kept.len() / 2]).expect("an archive");
    refused(25, "is not what app was captured as");
    fs_err::write(&archive, kept).expect("an archive");
    assert_eq!(difference(&before, &files(&node, 101)), [""; 0]);

    // A number that is another's: the files get the next one.
    node.inside("echo 'mine:x:150:150::/:/bin/false' >> /etc/passwd; echo 'mine:x:150:' >> /etc/group");
    vzpkg(&node, &["install", "101", "app"]).ok();
    assert_eq!(
        node.inside("stat -c %U:%G /opt/app/data/file; id -u mine; id -u app; id -g app"),
        "app:app\n150\n999\n999"
    );
    // A file of another application's.
    let outcome = vzpkg(&node, &["install", "101", "other"]).fails_with(28);
    assert!(outcome.stderr.contains("other and app both have /etc/app.conf, and it differs"), "{}", outcome.stderr);
    vzpkg(&node, &["remove", "101", "app"]).ok();
    assert_eq!(node.inside("grep -c ^app: /etc/passwd || :; cat /etc/passwd | grep -c ^mine:"), "0\n1");
}

#[test]
fn a_container_whose_disk_is_too_small_is_as_it_was() {
    let test = "a_container_whose_disk_is_too_small_is_as_it_was";
    let Some(node) = node_with_own_store(test, &["busybox"]) else { return };
    capture(
        &node,
        "app",
        "busybox",
        &format!("{SCRIPT}dd if=/dev/urandom of=/opt/app/large bs=1M count=60 2>/dev/null"),
    );
    fs_err::write(node.configuration(101), "DISKSPACE=\"40M:40M\"\n").expect("a file");
    node.done(["create", "101", "--ostemplate", "busybox"]);
    node.done(["start", "101"]);
    let before = files(&node, 101);
    let refused = vzpkg(&node, &["install", "101", "app"]).fails_with(8);
    assert!(refused.stderr.contains("pwrite(opt/app/large)"), "{}", refused.stderr);
    assert_eq!(difference(&before, &files(&node, 101)), [""; 0]);
    assert!(!node.path("etc/conf/101.apps").exists());
}

#[test]
fn what_two_have_stays_until_both_are_gone() {
    let test = "what_two_have_stays_until_both_are_gone";
    let Some(node) = node_with_own_store(test, &["busybox"]) else { return };
    let both = "mkdir /opt; echo both > /opt/both; echo 'both:x:150:150::/:/bin/false' >> /etc/passwd;";
    capture(&node, "one", "busybox", &format!("{both} echo one > /opt/one"));
    capture(&node, "two", "busybox", &format!("{both} echo two > /opt/two"));
    node.done(["create", "101", "--ostemplate", "busybox"]);
    node.done(["start", "101"]);
    let before = files(&node, 101);
    vzpkg(&node, &["install", "101", "one", "two"]).ok();
    vzpkg(&node, &["remove", "101", "one"]).ok();
    assert_eq!(
        node.inside("ls /opt; cat /opt/both; grep -c ^both: /etc/passwd /etc/shadow"),
        "both\ntwo\nboth\n/etc/passwd:1\n/etc/shadow:1"
    );
    vzpkg(&node, &["remove", "101", "two"]).ok();
    assert_eq!(difference(&before, &files(&node, 101)), [""; 0]);
}

#[test]
fn an_install_that_is_killed_anywhere_is_taken_back_by_the_next_command() {
    let test = "an_install_that_is_killed_anywhere_is_taken_back_by_the_next_command";
    let Some(node) = node_with_own_store(test, &["busybox"]) else { return };
    let large = "i=0; while [ $i -lt 12 ]; do dd if=/dev/urandom of=/opt/app/large$i bs=1M count=4 2>/dev/null; i=$((i+1)); done";
    capture(&node, "app", "busybox", &format!("{SCRIPT}{large}"));
    // Its files can be seen from here.
    fs_err::write(node.configuration(101), "DISK_QUOTA=\"no\"\n").expect("a file");
    node.done(["create", "101", "--ostemplate", "busybox"]);
    node.done(["start", "101"]);
    let before = files(&node, 101);
    let (mut halves, mut ended) = (0, 0);
    let count = rounds("VZ_KILLS", 12, 4);
    for round in 0..count {
        let mut install = node.command("vzpkg", ["install", "101", "app"]);
        let mut install = install.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("vzpkg");
        // From before its first record on, in steps of some files.
        let seen = node.path(format!("private/101/fs/opt/app/large{}", round.saturating_sub(1)));
        if round > 0 {
            let is_far = || seen.exists() || install.try_wait().is_ok_and(|end| end.is_some());
            assert!(wait_until(Duration::from_secs(30), is_far), "it neither comes so far nor ends");
        }
        install.kill().expect("it is our child");
        let whole = install.wait().expect("it is our child").success();
        let half = node.path("private/101/fs/opt/app").exists() && !whole;
        (halves, ended) = (halves + u32::from(half), ended + u32::from(whole));
        if half || whole {
            next(&node, &["remove", "101", "app"]).ok();
        } else {
            // Settles what there is, though busybox has no packages.
            next(&node, &["status", "101"]).fails_with(33);
        }
        assert_eq!(difference(&before, &files(&node, 101)), [""; 0], "killed in round {round}");
        assert!(!node.path("etc/conf/101.apps").exists());
    }
    for round in 0..count {
        vzpkg(&node, &["install", "101", "app"]).ok();
        let mut remove = node.command("vzpkg", ["remove", "101", "app"]);
        let mut remove = remove.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("vzpkg");
        let gone = node.path(format!("private/101/fs/opt/app/large{}", count - 1 - round));
        let is_far = || !gone.exists() || remove.try_wait().is_ok_and(|end| end.is_some());
        assert!(wait_until(Duration::from_secs(30), is_far), "it neither comes so far nor ends");
        remove.kill().expect("it is our child");
        remove.wait().expect("it is our child");
        next(&node, &["status", "101"]).fails_with(33);
        if node.path("etc/conf/101.apps").exists() {
            // Killed before it had begun.
            vzpkg(&node, &["remove", "101", "app"]).ok();
        }
        assert_eq!(difference(&before, &files(&node, 101)), [""; 0], "killed while it was removed, in round {round}");
    }
    println!("{count} kills: {halves} with files half there, {ended} after the end");
    assert!(halves > 0, "no kill came in between");
    vzpkg(&node, &["install", "101", "app"]).ok();
    node.done(["stop", "101", "--fast"]);
    node.done(["destroy", "101"]);
    assert_eq!(node.leftovers(), [""; 0]);
}

/// Made inside: it needs no mirror.
const PACKAGE: &str = "set -e
mkdir -p /tmp/p/DEBIAN /tmp/p/etc /tmp/p/usr/lib/systemd/system /tmp/p/usr/bin
printf 'Package: vzapp\\nVersion: 1.2-3\\nArchitecture: all\\nMaintainer: nobody\\nDepends: bash\\nDescription: x\\n' > /tmp/p/DEBIAN/control
echo /etc/vzapp.conf > /tmp/p/DEBIAN/conffiles; echo a=1 > /tmp/p/etc/vzapp.conf
printf '#!/bin/sh\\nwhoami > /run/vzapp; exec sleep 1000\\n' > /tmp/p/usr/bin/vzapp; chmod 755 /tmp/p/usr/bin/vzapp
printf '[Service]\\nUser=vzapp\\nRuntimeDirectory=vzapp\\nExecStart=/usr/bin/sleep 1000\\n[Install]\\nWantedBy=multi-user.target\\n' > /tmp/p/usr/lib/systemd/system/vzapp.service
dpkg-deb --build /tmp/p /tmp/p.deb >/dev/null; dpkg -i /tmp/p.deb >/dev/null
useradd --system vzapp; systemctl enable vzapp.service
install -d -o vzapp -g vzapp /var/lib/vzapp
printf '#!/bin/sh\n### BEGIN INIT INFO\n# Provides: vzapp\n# Required-Start:\n# Required-Stop:\n# Default-Start: 2 3 4 5\n# Default-Stop: 0 1 6\n### END INIT INFO\n' > /etc/init.d/vzapp; chmod 755 /etc/init.d/vzapp; update-rc.d vzapp defaults
dpkg --purge --force-remove-essential --force-depends logrotate >/dev/null 2>&1 || :
";

#[test]
fn dpkg_and_systemd_know_a_captured_application_of_debian_and_another_release_refuses_it() {
    let test = "dpkg_and_systemd_know_a_captured_application_of_debian_and_another_release_refuses_it";
    let (twelve, thirteen) = ("debian-12-x86_64", "debian-13-x86_64");
    let Some(node) = node_with_own_store(test, &[twelve, thirteen]) else { return };
    capture(&node, "app", twelve, PACKAGE);
    amend(&node, "app", |text| text + "\n[check]\nargv = [\"systemctl\", \"is-active\", \"vzapp.service\"]\n");
    node.done(["create", "101", "--ostemplate", twelve]);
    node.done(["create", "102", "--ostemplate", thirteen]);
    node.done(["start", "101", "--wait"]);
    let refused = vzpkg(&node, &["install", "102", "app"]).fails_with(28);
    assert!(refused.stderr.contains("app is for debian 12; CT 102 is debian 13"), "{}", refused.stderr);
    let packages = || node.inside("dpkg-query -W -f '${Package} ${Version} ${Status}\\n' | sort");
    let before = (packages(), files(&node, 101));
    vzpkg(&node, &["install", "101", "app"]).ok();
    assert_eq!(node.inside("dpkg-query -W -f '${Version} ${Status}' vzapp"), "1.2-3 install ok installed");
    assert_eq!(
        node.inside("dpkg --verify vzapp; dpkg --audit; dpkg -S /usr/bin/vzapp; dpkg -L vzapp | grep -c vzapp"),
        "vzapp: /usr/bin/vzapp\n3"
    );
    assert_eq!(
        node.inside("systemctl is-active vzapp; ps -o user= -C sleep | sort -u; stat -c %U /var/lib/vzapp"),
        "active\nvzapp\nvzapp"
    );
    assert_eq!(node.inside("getent shadow vzapp | cut -d: -f2"), "!", "nobody can log in as it");
    let listed = vzpkg(&node, &["list", "101"]).ok().stdout;
    assert!(listed.starts_with("app ") && listed.contains("  1 packages"), "{listed}");
    // What came is needed by what came after it.
    node.inside("mkdir -p /tmp/q/DEBIAN; printf 'Package: vzneeds\\nVersion: 1\\nArchitecture: all\\nMaintainer: nobody\\nDepends: vzapp\\nDescription: x\\n' > /tmp/q/DEBIAN/control; dpkg-deb --build /tmp/q /tmp/q.deb >/dev/null; dpkg -i /tmp/q.deb >/dev/null; rm -r /tmp/q /tmp/q.deb");
    let refused = vzpkg(&node, &["remove", "101", "app"]).fails_with(65);
    assert!(refused.stderr.contains("needed by others in the container: vzapp"), "{}", refused.stderr);
    node.inside("dpkg --purge vzneeds >/dev/null");
    vzpkg(&node, &["remove", "101", "app"]).ok();
    assert_eq!(packages(), before.0);
    let after = files(&node, 101);
    let left = difference(&before.1, &after)
        .into_iter()
        .filter(|l| !l.contains("/var/lib/systemd/") && !l.contains("/var/lib/dpkg/"))
        .collect::<Vec<_>>();
    assert_eq!(left, [""; 0]);
    assert_eq!(node.inside("dpkg --audit; systemctl is-active vzapp; getent passwd vzapp; ls /var/lib/dpkg/info | grep -c -e vzapp -e vz-before; true"), "inactive\n0");
    // A newer version of a package is dpkg's to take away; what the container had before comes back.
    vzpkg(&node, &["install", "101", "app"]).ok();
    node.inside(&format!(
        "cd /tmp; {}",
        PACKAGE
            .lines()
            .take_while(|l| !l.starts_with("useradd"))
            .collect::<Vec<_>>()
            .join("\n")
            .replace("1.2-3", "1.3-1")
            .replace("dpkg -i", "dpkg -i --force-confold")
            .replace(
                "set -e",
                "rm -rf /tmp/p*; set -e; mkdir -p /tmp/p/usr/share/vzapp; touch /tmp/p/usr/share/vzapp/new"
            )
    ));
    assert_eq!(node.inside("dpkg-query -W -f '${Version}' vzapp; rm -r /tmp/p /tmp/p.deb"), "1.3-1");
    vzpkg(&node, &["remove", "101", "app"]).ok();
    assert_eq!(packages(), before.0);
    assert_eq!(node.inside("ls -d /usr/share/vzapp /etc/vzapp.conf* /usr/bin/vzapp* 2>/dev/null; getent passwd vzapp; dpkg --audit; true"), "");
    // At creation, it runs from the first start.
    node.done(["create", "103", "--ostemplate", twelve, "--apptemplate", "app"]);
    node.done(["start", "103", "--wait"]);
    assert!(wait_until(Duration::from_secs(30), || node.vzctl(["exec2", "103", "systemctl is-active vzapp"]).code == 0));
    node.vzctl(["create", "104", "--ostemplate", thirteen, "--apptemplate", "app"]);
    assert_eq!(node.status(104), "CTID 104 deleted unmounted down");
}
