//! The second level of disk quota: root of a container bounds its users with the tools of its distribution.
//!
//! Where the host's kernel has no quota format the same containers run without, and their administrator is told so.
#![expect(clippy::expect_used, reason = "a test that fails here has failed")]

use std::process::Command;

use tests::containers::{DEBIAN_12_TOOLS, node_with};
use tests::node::{Node, Outcome};

/// Container 101, running, whose users bob (1000) and eve (1001) may have quotas. `Err` with the node where the kernel has none.
fn running(test: &str, address: &str, most: &str) -> Option<Result<Node, Node>> {
    running_with(test, address, most, "300M", &[])
}

fn running_with(test: &str, address: &str, most: &str, space: &str, options: &[&str]) -> Option<Result<Node, Node>> {
    let node = node_with(test, DEBIAN_12_TOOLS)?;
    let create = ["create", "101", "--ostemplate", DEBIAN_12_TOOLS, "--diskspace", space, "--ipadd", address];
    node.done(create.into_iter().chain(["--quotaugidlimit", most]).chain(options.iter().copied()));
    let said = node.done(["start", "101", "--wait"]);
    node.inside("useradd -m -u 1000 bob; useradd -m -u 1001 eve");
    let has_none = said.contains("no quotas of users and groups inside: the kernel was built without");
    Some(if has_none { Err(node) } else { Ok(node) })
}

fn try_inside(node: &Node, line: &str) -> Outcome {
    node.vzctl(["exec2", "101", line])
}

/// Writes a file of 64 MiB in the home of a user, as far as his limits let him.
fn fill(node: &Node, user: &str, file: &str) -> u64 {
    let path = format!("/home/{user}/{file}");
    let line = format!("su {user} -c 'dd if=/dev/zero of={path} bs=4k count=16384' 2> /dev/null; stat -c %b {path}");
    let sectors: u64 = node.inside(&line).parse().expect("stat prints a number");
    sectors / 2
}

/// What a user uses, in KiB, as the report of his administrator has it.
fn uses(node: &Node, user: &str) -> u64 {
    let line = format!("repquota -u / | awk '$1 == \"{user}\" {{ print $3 }}'");
    node.inside(&line).parse().expect("repquota prints a number")
}

/// quotactl(2) (179) or quotactl_fd(2) (443) from perl, by a user: `ok`, or the number of the error.
fn call(node: &Node, before: &str, arguments: &str) -> String {
    // perl hands over variables, not constants.
    let (arguments, path) = match arguments.split_once('"').and_then(|(a, b)| Some((a, b.split_once('"')?))) {
        Some((start, (path, end))) => (format!("{start}$p{end}"), path),
        None => (arguments.to_owned(), ""),
    };
    let program =
        format!("$p = \"{path}\"; $b = \"\\0\" x 256; $r = syscall({arguments}); print $r == 0 ? \"ok\" : $! + 0;");
    node.inside(&format!("{before} perl -e '{program}'"))
}

#[test]
fn root_inside_limits_its_users_with_debians_own_tools() {
    let test = "root_inside_limits_its_users_with_debians_own_tools";
    let node = match running(test, "10.85.1.1", "20") {
        None => return,
        Some(Ok(node)) => node,
        Some(Err(node)) => {
            // The first level is as ever, and for the tools the kernel has no quota.
            assert_ne!(try_inside(&node, "dd if=/dev/zero of=/fill bs=1M count=400").code, 0);
            assert_eq!(call(&node, "", "179, 0x800007 << 8, \"/dev/simfs\", 0, $b"), "38");
            assert_eq!(node.inside("repquota -a 2> /dev/null; true"), "");
            assert_eq!(node.run("vzquota", ["stat", "101", "-t"]).code, 9);
            assert_eq!(node.run("vzquota", ["setlimit2", "101", "-u", "1000", "-B", "9"]).code, 9);
            comes_from_a_host_with_quotas(&node);
            return;
        }
    };
    assert!(node.inside("grep ' / ' /proc/mounts").starts_with("/dev/simfs / ext4 rw,"));
    assert!(node.inside("quotaon -p /; true").contains("user quota on / (/dev/simfs) is on"));
    node.inside("setquota -u bob 4000 8000 0 0 /");
    let had = uses(&node, "bob");
    assert_eq!(had + fill(&node, "bob", "large"), 8000, "he had {had} KiB");
    assert_eq!(uses(&node, "bob"), 8000);
    assert_eq!(fill(&node, "eve", "large"), 65_536, "eve has no limit");
    let report = node.inside("repquota -u /");
    assert!(report.contains("Block grace time: 7days; Inode grace time: 7days"), "{report}");
    let line = report.lines().find(|line| line.starts_with("bob")).expect("a line of bob's");
    assert!(line.contains("+-") && line.contains("8000") && line.contains("days"), "{line}");
    // Inodes.
    node.inside("setquota -u eve 0 0 0 30 /");
    let many = try_inside(&node, "su eve -c 'cd; for i in $(seq 50); do touch f$i || exit 1; done'");
    assert!(many.code != 0 && many.stderr.contains("Disk quota exceeded"), "{}", many.stderr);
    // Groups, grace times, and a copy of somebody's limits.
    node.inside("setquota -g bob 0 9000 0 0 /; setquota -t 3600 7200 /");
    assert!(node.inside("repquota -u /").contains("Block grace time: 01:00; Inode grace time: 02:00"));
    node.inside("setquota -u bob 0 0 0 0 /");
    assert_eq!(fill(&node, "bob", "larger"), 1000, "his group has a limit still");
    node.inside("rm /home/bob/*; setquota -u bob 0 8000 0 0 /; useradd -m -u 1002 joe; edquota -p bob joe");
    node.inside("quotaoff /");
    assert_eq!(fill(&node, "bob", "large"), 65_536, "nothing is in force");
    node.inside("quotaon /; rm /home/bob/*");
    node.inside("warnquota");
    // An ordinary user sees his own and changes nothing.
    assert!(node.inside("su joe -c 'quota -w'").contains("8000"));
    assert_ne!(try_inside(&node, "su joe -c '/usr/sbin/setquota -u joe 0 0 0 0 /'").code, 0);
    assert_ne!(try_inside(&node, "su joe -c 'quota -u eve'").code, 0);
    // They are the container's as its files are, and in force again after a restart.
    node.done(["restart", "101", "--wait"]);
    let had = uses(&node, "joe");
    assert_eq!(had + fill(&node, "joe", "large"), 8000, "he had {had} KiB");
}

/// The container's image has quotas, which this kernel would not mount: it runs all the same, and the limits wait for a host that can.
fn comes_from_a_host_with_quotas(node: &Node) {
    node.done(["stop", "101"]);
    let image = node.path("private/101/root.img");
    let add = Command::new("tune2fs").args(["-O", "quota", "-Q", "usrquota,grpquota"]).arg(&image).output();
    assert!(add.expect("tune2fs").status.success());
    let said = node.done(["start", "101", "--wait"]);
    assert!(said.contains("no quotas of users and groups inside: the kernel was built without"), "{said}");
    assert_ne!(try_inside(node, "dd if=/dev/zero of=/fill2 bs=1M count=400").code, 0);
}

#[test]
fn quotactl_answers_as_a_kernel_does_and_reaches_nothing_but_the_containers_own_file_system() {
    let test = "quotactl_answers_as_a_kernel_does_and_reaches_nothing_but_the_containers_own_file_system";
    let Some(Ok(node)) = running(test, "10.85.1.2", "3") else { return };
    node.inside("echo > /file");
    let get = "0x800007 << 8";
    for (before, arguments, expected) in [
        ("", format!("179, {get}, \"/dev/simfs\", 0, $b"), "ok"),
        ("", format!("179, {get}, \"/dev/../dev//simfs\", 0, $b"), "ok"),
        ("", format!("179, {get} | 2, \"/dev/simfs\", 0, $b"), "22"),
        ("", format!("179, {get}, \"/dev/null\", 0, $b"), "15"),
        ("", format!("179, {get}, \"/dev/sda\", 0, $b"), "2"),
        ("", format!("179, {get}, 0, 0, $b"), "19"),
        ("", format!("179, {get}, 1, 0, $b"), "14"),
        ("", format!("179, {get}, \"/dev/simfs\", 0, 1"), "14"),
        ("", format!("179, {get}, \"/dev/simfs\", 65536, $b"), "22"),
        ("", "179, 0x800063 << 8, \"/dev/simfs\", 0, $b".to_owned(), "22"),
        ("", "179, 0x800001 << 8, 0, 0, 0".to_owned(), "ok"),
        ("setpriv --reuid 1000 --clear-groups", format!("179, {get}, \"/dev/simfs\", 1000, $b"), "ok"),
        ("setpriv --reuid 1000 --clear-groups", format!("179, {get}, \"/dev/simfs\", 1001, $b"), "1"),
        ("setpriv --reuid 1000 --clear-groups", "179, 0x800063 << 8, \"/dev/simfs\", 0, $b".to_owned(), "1"),
        ("setpriv --reuid 1000 --clear-groups", "179, 0x800008 << 8, \"/dev/simfs\", 1000, $b".to_owned(), "1"),
        // Who is root of a namespace of his own only.
        ("unshare -Ur", format!("179, {get}, \"/dev/simfs\", 0, $b"), "1"),
        ("exec 9< /file;", format!("443, 9, {get}, 0, $b"), "ok"),
        ("exec 9< /proc/version;", format!("443, 9, {get}, 0, $b"), "38"),
        ("", format!("443, 99, {get}, 0, $b"), "9"),
    ] {
        assert_eq!(call(&node, before, &arguments), expected, "{before} {arguments}");
    }
    // So many users and groups may have limits, and no more.
    node.inside("for id in 5000 5001 5002; do setquota -u $id 0 100 0 0 / || exit 1; done");
    let fourth = try_inside(&node, "setquota -g 5000 0 100 0 0 /");
    assert!(fourth.code != 0 && fourth.stderr.contains("Disk quota exceeded"), "{}", fourth.stderr);
    node.inside("setquota -u 5000 0 200 0 0 /; setquota -u 5001 0 0 0 0 /; setquota -g 5000 0 100 0 0 /");
    // From outside it is the same limits.
    let vzquota = |arguments: &[&str]| node.run("vzquota", arguments);
    vzquota(&["setlimit2", "101", "-u", "5002", "-b", "50", "-B", "77"]).ok();
    assert!(node.inside("repquota -vnu / | grep 5002").contains(" 77 "));
    let told = vzquota(&["stat", "101", "-t"]).ok().stdout;
    assert!(told.contains("User/group quota: on,active\nUgids: ") && told.contains(", limit 3\n"), "{told}");
    assert!(told.contains("Ugid limit was exceeded: yes\n"), "{told}");
    assert!(
        told.contains("5002         user 1k-blocks           0          50          77          loaded\n"),
        "{told}"
    );
    assert_eq!(vzquota(&["setlimit2", "101", "-u", "5002", "-b", "100"]).code, 2);
    // A second container's users are others, though their numbers are the same.
    let create = ["create", "102", "--ostemplate", DEBIAN_12_TOOLS, "--diskspace", "50M", "--quotaugidlimit", "5"];
    node.done(create);
    node.done(["start", "102"]);
    node.done(["exec2", "102", "mkdir -m 777 /d; chown 5000:5000 /d"]);
    node.inside("mkdir -m 777 /d; chown 5000:5000 /d");
    let write = "dd if=/dev/zero of=/d/f bs=4k count=1000 2> /dev/null; stat -c %b /d/f";
    let line = format!("setpriv --reuid 5000 --regid 5000 --clear-groups sh -c '{write}'; true");
    // 100 KiB for his group; his directory has 4 of them.
    assert_eq!(node.inside(&line), "192");
    assert_eq!(node.done(["exec2", "102", &line]).trim(), "8000");
}

#[test]
fn a_root_that_is_an_image_names_its_own_device_to_the_tools() {
    let test = "a_root_that_is_an_image_names_its_own_device_to_the_tools";
    let Some(Ok(node)) = running_with(test, "10.85.1.4", "5", "1000M", &["--layout", "ploop"]) else { return };
    assert!(node.inside("grep ' / ' /proc/mounts").starts_with("/dev/loop"));
    node.inside("test -L /proc/mounts; setquota -u bob 0 8000 0 0 /");
    let had = uses(&node, "bob");
    assert_eq!(had + fill(&node, "bob", "large"), 8000, "he had {had} KiB");
    // The device is there to be named and not to be read.
    assert_ne!(try_inside(&node, "head -c 1 /dev/loop[0-9]*").code, 0);
    node.done(["restart", "101", "--wait"]);
    assert_eq!(uses(&node, "bob"), 8000);
}

#[test]
fn garbage_given_to_quotactl_harms_nobody() {
    let Some(Ok(node)) = running("garbage_given_to_quotactl_harms_nobody", "10.85.1.3", "10") else { return };
    let program = r#"srand(7); @w = map { $_ << 8 } (0x800000 .. 0x80000b, 0x5800 .. 0x580b);
        open(F, "<", "/etc/passwd"); $z = "/dev/simfs";
        for (1 .. 4000) {
            $c = rand(4) < 1 ? int(rand(2 ** 32)) : $w[rand @w] | int(rand(4));
            $b = join "", map { chr rand(rand(2) < 1 ? 2 : 256) } 1 .. 200;
            @s = ($z, $z, $z, "/dev/null", "x" x 5000, 0, 1, int(rand(2 ** 47)));
            $a = rand(5) < 1 ? int(rand(2 ** 47)) : $b;
            $i = rand(3) < 1 ? int(rand(2 ** 32)) : int(rand(70000));
            rand(3) < 1 ? syscall(443, int(rand(12)), $c, $i, $a) : syscall(179, $c, $s[rand @s], $i, $a);
        } print "survived";"#;
    let line = format!("cat > /garbage.pl <<'END'\n{program}\nEND\nperl /garbage.pl");
    assert_eq!(node.inside(&line), "survived");
    // It may have switched its own quotas off; they work, and nothing else has changed.
    node.inside("quotaon / 2> /dev/null; setquota -u bob 0 8000 0 0 / && repquota -u / > /dev/null");
    assert_eq!(node.status(101).split_whitespace().last(), Some("running"));
    node.done(["stop", "101"]);
    let checked = Command::new("e2fsck").args(["-fn"]).arg(node.path("private/101/root.img")).output().expect("e2fsck");
    let said = String::from_utf8_lossy(&checked.stdout);
    // Its root may tell the kernel what somebody uses, as root of any machine, so that may be wrong, and nothing else.
    let found: Vec<&str> =
        said.lines().filter(|line| line.ends_with("? no") && !line.starts_with("Update quota info")).collect();
    assert!(found.is_empty() && said.contains("Pass 5"), "the image is not as it should be: {said}");
}
