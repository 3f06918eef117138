//! A real distribution: Debian with systemd as its init.

use std::process::Command;
use std::time::Duration;

use tests::containers::node_with;
use tests::node::{Node, Outcome};
use tests::program::capture;
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
    let Some(node) = running(test, "debian-13-x86_64", "10.84.0.5") else { return };
    boot_and_halt(&node);
}

fn boot_and_halt(node: &Node) {
    wait_until_running(node);
    assert_eq!(node.inside("hostname -f"), "deb.example.com");
    let said = node.done(["stop", "101", "--stop-timeout", "60"]);
    assert!(!said.contains("Killing"), "it halts when asked: {said}");
    let said = node.done(["start", "101", "--wait"]);
    assert!(said.ends_with("Container start in progress, waiting ...\nContainer started successfully\n"), "{said}");
    assert_eq!(node.inside("systemctl is-system-running"), "running");
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
