//! The capture wizard: what a script does in a temporary container becomes an application template, and nothing else of it stays.

use std::process::Stdio;
use std::time::Duration;

use tests::containers::{disk_kib, node_with_own_store};
use tests::node::{Node, Outcome};
use tests::session::Session;
use tests::wait::wait_until;

fn node(test: &str, template: &str) -> Option<Node> {
    node_with_own_store(test, &[template])
}

fn script(node: &Node, text: &str) -> String {
    let path = node.path("script");
    fs_err::write(&path, text).expect("a script");
    path.display().to_string()
}

fn capture(node: &Node, template: &str, text: &str, more: &[&str]) -> Outcome {
    let script = script(node, text);
    let words = ["capture", "app", "--from", template, "--script", &script, "--yes"];
    Outcome::of(node.command("vzpkg", words.iter().chain(more)), Duration::from_secs(120))
}

/// Nothing of the temporary container is there any more.
fn nothing_is_left(node: &Node) {
    let apps = fs_err::read_dir(node.path("template/recipes/apps")).into_iter().flatten().flatten();
    let hidden: Vec<_> = apps.map(|e| e.file_name()).filter(|n| n.to_string_lossy().starts_with('.')).collect();
    assert!(hidden.is_empty(), "{hidden:?}");
    let conf = fs_err::read_dir(node.path("etc/conf")).expect("a directory").flatten();
    let conf: Vec<_> = conf.map(|e| e.file_name()).filter(|n| n.to_string_lossy().starts_with("2147")).collect();
    assert!(conf.is_empty(), "{conf:?}");
}

const INSTALL: &str = "set -e
mkdir -p /opt/app/data
echo 'the program' > /opt/app/program
chmod 4755 /opt/app/program
ln /opt/app/program /opt/app/another
ln -s ../../opt/app/program /usr/bin/app
echo 'app:x:150:150:an app:/opt/app:/bin/false' >> /etc/passwd
echo 'app:x:150:root' >> /etc/group
chown 150:150 /opt/app/data
echo 'port=1' > /etc/app.conf
mkdir -p /etc/cron.hourly; echo changed > /var/www/index.html
rm /etc/shells
mkdir -p /var/log/app; echo noise > /var/log/app/log; echo noise > /tmp/noise; echo noise > /root/.ash_history
echo unwanted > /etc/unwanted.bak
";

#[test]
fn a_script_becomes_a_template_of_what_it_changed_without_noise_and_the_container_goes() {
    let test = "a_script_becomes_a_template_of_what_it_changed_without_noise_and_the_container_goes";
    let Some(node) = node(test, "busybox") else { return };
    let outcome = capture(&node, "busybox", INSTALL, &["--json", "--exclude", "/etc/*.bak"]).ok();
    let told: serde_json::Value = serde_json::from_str(&outcome.stdout).expect("JSON");
    let entries = told["entries"].as_array().expect("entries");
    let change = |path: &str| {
        let entry = entries.iter().find(|e| e["path"] == path);
        entry.map(|e| (e["change"].as_str().expect("a word"), e["taken"].as_bool().expect("yes or no")))
    };
    for (path, expected) in [
        ("/opt/app/program", Some(("added", true))),
        ("/opt/app/data", Some(("added", true))),
        ("/usr/bin/app", Some(("added", true))),
        ("/etc/app.conf", Some(("added", true))),
        ("/var/www/index.html", Some(("changed", true))),
        ("/etc/shells", Some(("removed", true))),
        ("/var/log/app", Some(("added", true))),
        ("/var/log/app/log", Some(("added", false))),
        ("/root/.ash_history", Some(("added", false))),
        ("/etc/unwanted.bak", Some(("added", false))),
        ("/bin/busybox", None),
        ("/etc/profile", None),
    ] {
        assert_eq!(change(path), expected, "{path} in {told:#}");
    }
    let text = fs_err::read_to_string(node.path("template/recipes/apps/app.toml")).expect("a template");
    let template: toml::Table = text.parse().expect("TOML");
    assert_eq!(template["for"][0]["family"].as_str(), Some("busybox"));
    let captured = &template["captured"];
    let list = |key: &str| {
        captured[key].as_array().expect("a list").iter().map(|v| v.as_str().expect("text")).collect::<Vec<_>>()
    };
    assert_eq!(list("removed"), ["/etc/shells"]);
    assert_eq!(list("users"), ["app:x:150:150:an app:/opt/app:/bin/false"]);
    assert_eq!(list("groups"), ["app:x:150:"]);
    nothing_is_left(&node);
    the_files_work_elsewhere(&node);
    assert_eq!(node.leftovers(), [""; 0]);
}

/// Unpacked into a fresh container, the files are what they were.
fn the_files_work_elsewhere(node: &Node) {
    node.done(["create", "101", "--ostemplate", "busybox"]);
    node.done(["start", "101"]);
    let archive = fs_err::File::open(node.path("template/recipes/apps/app.tar.zst")).expect("an archive").into_file();
    let mut zstd = std::process::Command::new("zstd");
    zstd.arg("-dc").stdin(archive).stdout(Stdio::piped());
    let mut zstd = zstd.spawn().expect("zstd");
    let mut tar = node.command("vzctl", ["exec2", "101", "tar -x -C / -f -"]);
    let unpacked = tar.stdin(zstd.stdout.take().expect("a pipe")).status().expect("vzctl");
    assert!(zstd.wait().expect("zstd").success() && unpacked.success());
    assert_eq!(
        node.inside("cat /usr/bin/app; stat -c '%a %h %u' /opt/app/another; stat -c '%u:%g' /opt/app/data"),
        "the program\n4755 2 0\n150:150"
    );
    assert_eq!(
        node.inside("cat /etc/app.conf /var/www/index.html; ls /var/log/app /tmp | grep noise | wc -l"),
        "port=1\nchanged\n0"
    );
    assert_eq!(node.inside("grep -c app /etc/passwd || :"), "0", "accounts travel as lines, not as files");
    node.done(["stop", "101", "--fast"]);
    node.done(["destroy", "101"]);
}

#[test]
fn a_script_that_fails_leaves_neither_a_template_nor_a_container() {
    let Some(node) = node("a_script_that_fails_leaves_neither_a_template_nor_a_container", "busybox") else { return };
    let outcome = capture(&node, "busybox", "echo half > /opt-half; exit 7", &[]).fails_with(8);
    assert!(outcome.stderr.contains("The script ended with 7"), "{}", outcome.stderr);
    assert!(!node.path("template/recipes/apps/app.toml").exists());
    let outcome = capture(&node, "busybox", "true", &[]).fails_with(35);
    assert!(outcome.stderr.contains("nothing has changed that a template could hold"), "{}", outcome.stderr);
    nothing_is_left(&node);
    fs_err::write(node.path("template/recipes/apps/app.toml"), "").expect("a file");
    let outcome = capture(&node, "busybox", "true", &[]).fails_with(35);
    assert!(outcome.stderr.contains("is there already"), "{}", outcome.stderr);
    let outcome = node.run("vzpkg", ["capture", "other", "--from", "busybox"]).fails_with(35);
    assert!(outcome.stderr.contains("no terminal"), "{}", outcome.stderr);
    node.run("vzpkg", ["capture", "other", "--from", "missing", "--yes", "--script", "/dev/null"]).fails_with(23);
    assert_eq!(node.leftovers(), [""; 0]);
}

#[test]
fn a_capture_that_is_killed_is_cleared_away_by_the_next_one() {
    let Some(node) = node("a_capture_that_is_killed_is_cleared_away_by_the_next_one", "busybox") else { return };
    let path = script(&node, "touch /inside; sleep 1000");
    let mut command = node.command("vzpkg", ["capture", "app", "--from", "busybox", "--script", &path, "--yes"]);
    let mut killed = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("vzpkg");
    let inside = node.path("private/2147483000/fs/inside");
    assert!(wait_until(Duration::from_secs(60), || inside.exists()), "the script runs");
    killed.kill().expect("it is our child");
    killed.wait().expect("it is our child");
    assert!(node.status(2_147_483_000).ends_with(" running"), "nobody has cleared it away yet");
    capture(&node, "busybox", "touch /other", &[]).ok();
    assert!(!inside.exists());
    nothing_is_left(&node);
    // A signal ends it in order.
    fs_err::remove_file(node.path("template/recipes/apps/app.toml")).expect("the template");
    fs_err::remove_file(node.path("template/recipes/apps/app.tar.zst")).expect("the archive");
    let path = script(&node, "touch /inside; sleep 1000");
    let mut command = node.command("vzpkg", ["capture", "app", "--from", "busybox", "--script", &path, "--yes"]);
    let mut ended = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("vzpkg");
    assert!(wait_until(Duration::from_secs(60), || inside.exists()), "the script runs");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(ended.id() as i32), nix::sys::signal::Signal::SIGTERM)
        .expect("kill");
    assert_eq!(ended.wait().expect("it is our child").code(), Some(1));
    nothing_is_left(&node);
    assert_eq!(node.leftovers(), [""; 0]);
}

#[test]
fn by_hand_one_works_at_a_shell_and_chooses_what_to_take() {
    let Some(node) = node("by_hand_one_works_at_a_shell_and_chooses_what_to_take", "busybox") else { return };
    // script(1) has a terminal for it.
    let vzpkg = node.path("vzpkg");
    std::os::unix::fs::symlink(tests::node::binary(), &vzpkg).expect("a link");
    let mut command = std::process::Command::new("script");
    command.args(["-qec", &format!("{} capture app --from busybox", vzpkg.display()), "/dev/null"]);
    command.env("VZ_CONFDIR", node.path("etc"));
    let mut session = Session::new(command);
    session.shows("# ");
    session.types("mkdir /opt && echo x > /opt/wanted; echo x > /srv-unwanted; exit\r");
    session.shows("Numbers change take and leave");
    // Sorted by path: /opt, what is in it, then the other.
    session.types("3\r");
    session.shows("leave /srv-unwanted");
    session.types("\r");
    session.shows("are written");
    assert!(wait_until(Duration::from_secs(30), || !node.path("etc/conf/2147483000.conf").exists()));
    let archive = node.path("template/recipes/apps/app.tar.zst").display().to_string();
    let mut tar = std::process::Command::new("tar");
    tar.args(["--zstd", "-tf", &archive]);
    let listed = Outcome::of(tar, Duration::from_secs(30)).ok().stdout;
    assert!(listed.contains("opt/wanted") && !listed.contains("unwanted"), "{listed}");
    assert!(wait_until(Duration::from_secs(30), || node
        .path("template/recipes/apps")
        .read_dir()
        .expect("apps")
        .flatten()
        .count()
        == 2));
}

#[test]
fn what_debian_packages_change_is_named_by_package_user_service_and_configuration() {
    let test = "what_debian_packages_change_is_named_by_package_user_service_and_configuration";
    let Some(node) = node(test, "debian-12-x86_64") else { return };
    // A package made inside: it needs no mirror.
    let text = "set -e
mkdir -p /tmp/p/DEBIAN /tmp/p/etc /tmp/p/lib/systemd/system
printf 'Package: vzapp\\nVersion: 1.2-3\\nArchitecture: all\\nMaintainer: nobody\\nDescription: x\\n' > /tmp/p/DEBIAN/control
echo /etc/vzapp.conf > /tmp/p/DEBIAN/conffiles; echo a=1 > /tmp/p/etc/vzapp.conf
printf '[Service]\\nExecStart=/bin/sleep 1\\n[Install]\\nWantedBy=multi-user.target\\n' > /tmp/p/lib/systemd/system/vzapp.service
dpkg-deb --build /tmp/p /tmp/p.deb >/dev/null; dpkg -i /tmp/p.deb >/dev/null
useradd --system vzapp; systemctl enable vzapp.service
echo '# changed' >> /etc/profile
";
    let outcome = capture(&node, "debian-12-x86_64", text, &[]).ok();
    for line in ["packages added: vzapp=1.2-3", "users: vzapp(", "services enabled: vzapp.service", "/etc/profile"] {
        assert!(outcome.stdout.contains(line), "{line} in {}", outcome.stdout);
    }
    let text = fs_err::read_to_string(node.path("template/recipes/apps/app.toml")).expect("a template");
    let template: toml::Table = text.parse().expect("TOML");
    assert_eq!(template["for"][0]["releases"][0].as_str(), Some("12"));
    assert_eq!(template["captured"]["packages"][0].as_str(), Some("vzapp=1.2-3"));
    assert_eq!(template["services"]["enable"][0].as_str(), Some("vzapp.service"));
    nothing_is_left(&node);
}

#[test]
fn containers_on_an_application_layer_share_its_files_and_it_stays_while_one_is_on_it() {
    let test = "containers_on_an_application_layer_share_its_files_and_it_stays_while_one_is_on_it";
    let Some(node) = node(test, "busybox") else { return };
    let text = "set -e
mkdir /opt; dd if=/dev/urandom of=/opt/large bs=1M count=8 2>/dev/null
echo 'app:x:150:150::/opt:/bin/false' >> /etc/passwd
rm /etc/shells; rm -r /etc/cron.hourly; mkdir /etc/cron.hourly; touch /etc/cron.hourly/own
";
    capture(&node, "busybox", text, &["--layer"]).ok();
    let listed = node.run("vzpkg", ["list", "appcache", "--json"]).ok().stdout;
    let listed: serde_json::Value = serde_json::from_str(&listed).expect("JSON");
    let id = listed[0]["id"].as_str().expect("an id").to_owned();
    assert!(id.starts_with("app@") && listed[0]["containers"] == 0, "{listed:#}");
    let layer = node.path("template/cache/.layers").join(&id);
    assert!(disk_kib(&layer) >= 8192);
    let ctids: Vec<u32> = (101..=105).collect();
    for ctid in &ctids {
        fs_err::write(node.configuration(*ctid), format!("DISK_QUOTA=\"no\"\nVZ_LAYERS=\"{id}\"\n")).expect("a file");
        node.done(["create", &ctid.to_string(), "--ostemplate", "busybox"]);
        node.done(["start", &ctid.to_string()]);
    }
    let exec = |ctid: u32, line: &str| node.done(["exec2", &ctid.to_string(), line]).trim_end().to_owned();
    let look = "stat -c %i /opt/large; md5sum < /opt/large; grep -c ^app: /etc/passwd; ls /etc/shells 2>/dev/null; ls /etc/cron.hourly";
    let first = exec(101, look);
    assert!(first.ends_with("-\n1\nown"), "what was removed is gone, what was added is there: {first}");
    for ctid in &ctids[1..] {
        // One inode, so one copy in memory too.
        assert_eq!(exec(*ctid, look), first);
    }
    // One that writes has a copy of its own, and the others what they had.
    exec(105, "echo own > /opt/own; rm /opt/large");
    assert_eq!(exec(105, "ls /opt"), "own");
    assert_eq!(exec(101, look), first);
    let own: u64 = ctids.iter().map(|ctid| disk_kib(&node.path(format!("private/{ctid}")))).sum();
    assert!(own < 1024, "five containers have {own} KiB of their own over a layer of 8 MiB");
    println!("five containers: {own} KiB of their own, {} KiB of the layer", disk_kib(&layer));
    let refused = node.run("vzpkg", ["remove", "appcache", &id]).fails_with(35);
    assert!(refused.stderr.contains("in use"), "{}", refused.stderr);
    for ctid in &ctids {
        node.done(["stop", &ctid.to_string(), "--fast"]);
        node.done(["destroy", &ctid.to_string()]);
    }
    node.run("vzpkg", ["remove", "appcache", &id]).ok();
    assert!(!layer.exists());
    node.run("vzpkg", ["remove", "appcache", &id]).fails_with(23);
    assert_eq!(node.leftovers(), [""; 0]);
}
