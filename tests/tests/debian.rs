//! A real distribution: Debian with systemd as its init.

use std::process::Command;
use std::time::Duration;

use tests::containers::node_with;
use tests::node::{Node, Outcome};
use tests::program::capture;
use tests::session::Session;
use tests::wait::wait_until;

fn running_debian(test: &str, address: &str) -> Option<Node> {
    running(test, "debian-12-x86_64", address)
}

/// Each test has an address of its own: they may run at once.
fn running(test: &str, template: &str, address: &str) -> Option<Node> {
    let node = node_with(test, template)?;
    node.done(["create", "101", "--ostemplate", template, "--ipadd", address, "--hostname", "deb.example.com"]);
    node.done(["start", "101"]);
    Some(node)
}

/// The whole of a boot; the container answers within it, and no unit has failed.
fn wait_until_running(node: &Node) {
    let up = wait_until(Duration::from_secs(15), || {
        node.vzctl(["exec2", "101", "systemctl is-system-running"]).stdout == "running\n"
    });
    assert!(up, "{:?}", node.vzctl(["exec2", "101", "systemctl is-system-running; systemctl --failed --no-legend"]));
}

#[test]
fn systemd_gets_to_running_and_stops_by_itself() {
    let Some(node) = running_debian("systemd_gets_to_running_and_stops_by_itself", "10.84.0.1") else { return };
    boot_and_halt(&node);
}

#[test]
fn systemd_of_debian_13_gets_to_running_and_stops_by_itself() {
    let test = "systemd_of_debian_13_gets_to_running_and_stops_by_itself";
    let Some(node) = running(test, "debian-13-x86_64", "10.84.0.8") else { return };
    boot_and_halt(&node);
}

fn boot_and_halt(node: &Node) {
    wait_until_running(node);
    assert_eq!(node.inside("hostname -f"), "deb.example.com");
    assert_eq!(node.inside("findmnt -no FSTYPE /run; head -n 1 /run/vz/proc/user_beancounters"), "tmpfs\nVersion: 2.5");
    let said = node.done(["stop", "101", "--stop-timeout", "60"]);
    assert!(!said.contains("Killing"), "it halts when asked: {said}");
    let said = node.done(["start", "101", "--wait"]);
    assert!(said.ends_with("Container start in progress, waiting ...\nContainer started successfully\n"), "{said}");
    assert_eq!(node.inside("systemctl is-system-running"), "running");
}

#[test]
fn a_container_that_has_hardly_begun_to_boot_halts_when_it_is_asked() {
    let test = "a_container_that_has_hardly_begun_to_boot_halts_when_it_is_asked";
    let Some(node) = node_with(test, "debian-12-x86_64") else { return };
    for _ in 0..4 {
        // Each first boot anew: that is when init is deaf for longest.
        node.done(["create", "101", "--ostemplate", "debian-12-x86_64"]);
        node.done(["start", "101"]);
        let said = node.done(["stop", "101", "--stop-timeout", "110"]);
        assert!(!said.contains("Killing"), "it halts when asked: {said}");
        node.done(["destroy", "101"]);
    }
}

#[test]
fn a_reboot_and_a_halt_inside_are_told_apart() {
    let Some(node) = running_debian("a_reboot_and_a_halt_inside_are_told_apart", "10.84.0.2") else { return };
    wait_until_running(&node);
    let init = node.process(101, "init");
    node.inside("systemctl reboot");
    let again = wait_until(Duration::from_secs(40), || {
        node.status(101).ends_with(" running") && node.process(101, "init") != init
    });
    assert!(again, "{}", node.status(101));
    wait_until_running(&node);
    node.inside("systemctl poweroff");
    node.wait_for_status(101, "unmounted down");
    node.done(["destroy", "101"]);
    assert_eq!(node.leftovers(), [""; 0]);
}

#[test]
fn a_user_and_a_password_set_from_outside_let_in_by_su() {
    let Some(node) = running_debian("a_user_and_a_password_set_from_outside_let_in_by_su", "10.84.0.3") else { return };
    node.inside("useradd -m -s /bin/sh someone");
    node.done(["set", "101", "--userpasswd", "someone:pass word"]);
    node.inside("useradd -m -s /bin/sh other");
    let asked = "su other -c \"su someone -c 'id -un'\"";
    let script = format!("printf '%s\\n' 'pass word' | {asked} 2>/dev/null");
    assert_eq!(node.inside(&script), "someone");
    let wrong = format!("printf '%s\\n' 'word pass' | {asked} 2>/dev/null");
    node.vzctl(["exec2", "101", &wrong]).fails_with(1);
}

#[test]
fn ssh_from_the_host_gets_in_with_a_key() {
    let Some(node) = running_debian("ssh_from_the_host_gets_in_with_a_key", "10.84.0.4") else { return };
    wait_until_running(&node);
    let key = node.path("key");
    let mut make = Command::new("ssh-keygen");
    make.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key);
    capture(make).expect("ssh-keygen");
    let public = fs_err::read_to_string(node.path("key.pub")).expect("made");
    node.inside(&format!("mkdir -m 700 -p /root/.ssh; echo '{}' > /root/.ssh/authorized_keys", public.trim()));
    let mut ssh = Command::new("ssh");
    ssh.args(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes"]);
    ssh.args(["-o", "ConnectTimeout=10", "-i"]).arg(&key).args(["root@10.84.0.4", "hostname; exit 5"]);
    let outcome = Outcome::of(ssh, Duration::from_secs(30)).fails_with(5);
    assert_eq!(outcome.stdout.trim(), node.inside("hostname"));
}

#[test]
fn the_console_asks_for_a_login_and_lets_in() {
    let Some(node) = running_debian("the_console_asks_for_a_login_and_lets_in", "10.84.0.5") else { return };
    node.done(["set", "101", "--userpasswd", "root:pass word"]);
    let mut session = Session::new(node.command("vzctl", ["console", "101"]));
    session.shows("deb login: ");
    session.types("root\r");
    session.shows("Password: ");
    session.types("pass word\r");
    session.shows("root@deb:~# ");
    session.types("tty; echo $((40+2))\r");
    session.shows("\n42\r\n");
    // Whatever asks for a password now is what systemd has started.
    session.types("printf 'deb login''; '; trap '' HUP; cat\r");
    session.shows("deb login; ");
    session.types("\u{1b}!");
    session.shows("deb login: ");
    node.inside("systemctl reboot");
    session.shows("vz: Container reboots\r\n");
    session.shows("deb login: ");
    session.types("\u{1b}.");
    assert_eq!(session.ends(), 0);
}

#[test]
fn a_boot_that_does_not_end_is_waited_for_so_long_and_no_longer() {
    let Some(node) = running_debian("a_boot_that_does_not_end_is_waited_for_so_long_and_no_longer", "10.84.0.6") else {
        return;
    };
    wait_until_running(&node);
    let unit = "[Service]\\nType=oneshot\\nExecStart=/bin/sleep infinity\\n[Install]\\nWantedBy=multi-user.target\\n";
    node.inside(&format!("printf '{unit}' > /etc/systemd/system/endless.service; systemctl -q enable endless"));
    let waited = node.vzctl(["restart", "101", "--wait", "--wait-timeout", "5"]).fails_with(133);
    assert!(waited.stdout.ends_with("Container start in progress, waiting ...\n"), "{}", waited.stdout);
    assert!(waited.stderr.starts_with("Container wait failed - timeout expired\n"), "{}", waited.stderr);
    assert_eq!(node.status(101), "CTID 101 exist mounted running");
}

#[test]
fn its_systemd_bounds_its_own_services_and_not_itself() {
    let Some(node) = running_debian("its_systemd_bounds_its_own_services_and_not_itself", "10.84.0.7") else { return };
    wait_until_running(&node);
    let own = |node: &Node| ["memory.max", "pids.max", "cpu.max"].map(|file| limit(node, file));
    let before = own(&node);
    // A hybrid host's controllers are not in the tree that containers get: there the service runs, unbounded.
    let bounded = node.inside("cat /sys/fs/cgroup/cgroup.controllers").contains("memory");
    let look = "cd /sys/fs/cgroup$$(sed -n s/^0:://p /proc/self/cgroup) && cat memory.max pids.max cpu.max";
    let look = if bounded { look } else { "echo unbounded" };
    let unit = format!(
        "[Service]\\nType=oneshot\\nMemoryMax=48M\\nTasksMax=9\\nCPUQuota=30%%\\nExecStart=sh -c \"({look}) > /run/seen\"\\n"
    );
    node.inside(&format!("printf '{unit}' > /run/systemd/system/bounded.service; systemctl start bounded"));
    let expected = if bounded { "50331648\n9\n30000 100000" } else { "unbounded" };
    assert_eq!(node.inside("cat /run/seen"), expected);
    // Its root slice is its own to configure, and changes nothing of what the host has set.
    node.inside("systemctl set-property --runtime -- -.slice MemoryMax=infinity TasksMax=infinity CPUQuota=");
    assert_eq!(own(&node), before);
}

/// A limit that a host with cgroup v2 has set on container 101; nothing on another.
fn limit(node: &Node, file: &str) -> Option<String> {
    node.cgroups(101).into_iter().find_map(|cgroup| fs_err::read_to_string(cgroup.join(file)).ok())
}
