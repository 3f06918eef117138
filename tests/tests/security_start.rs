//! A container prepares its files for the moment the host works on them: start, set, stop, destroy.

mod security_support;

use security_support::{Canary, PATIENCE, assert_nothing_left, bounded, create, inside, node, running};
use tests::node::{Node, Outcome};
use tests::snapshot::Snapshot;
use tests::wait::rounds;

/// Where the runtime mounts, binds or writes.
const TARGETS: [&str; 13] = [
    "/dev",
    "/dev/pts",
    "/dev/shm",
    "/dev/null",
    "/dev/console",
    "/dev/ptmx",
    "/proc",
    "/proc/sys",
    "/sys",
    "/sys/fs/cgroup",
    "/run",
    "/etc",
    "/tmp",
];

/// What a container can put in the place of `target`, in shell.
fn obstacles(target: &str, canary: &Canary) -> Vec<(&'static str, String)> {
    let canary = canary.path().display();
    vec![
        ("a link to the host", format!("ln -s {canary} {target}")),
        ("a link upwards", format!("ln -s ../../../../../..{canary} {target}")),
        ("a link through proc", format!("ln -s /proc/self/root{canary} {target}")),
        ("a dangling link", format!("ln -s /nonexistent/x {target}")),
        ("a FIFO", format!("mkfifo {target}")),
        ("a file", format!("echo x > {target}")),
        ("a socket", format!("nc -l -U {target} & sleep 0.1; [ -e {target} ] || mkfifo {target}")),
    ]
}

/// In the container's files, below what is mounted over them while it runs.
fn place(node: &Node, target: &str, obstacle: &str) {
    let parent = target.rsplit_once('/').map_or("/", |(parent, _)| if parent.is_empty() { "/" } else { parent });
    let line = format!(
        "cd /; umount -l /sys/fs/cgroup /dev/shm /dev/pts /dev /sys /proc 2>/dev/null; rm -rf {target} 2>/dev/null; \
         mkdir -p {parent}; {obstacle}"
    );
    inside(node, 101, &line);
}

fn obstruct(test: &str, targets: &[&str]) {
    let Some(node) = node(test) else { return };
    let canary = Canary::new();
    let machine = Snapshot::take([canary.path()]);
    for &target in targets {
        for (what, obstacle) in obstacles(target, &canary) {
            let case = format!("{what} in place of {target}");
            create(&node, 101);
            node.vzctl(["start", "101"]).ok();
            place(&node, target, &obstacle);
            node.vzctl(["stop", "101", "--fast"]).ok();
            let start = bounded(&node, &["start", "101"]);
            canary.assert_untouched(&case);
            if start.code == 0 {
                bounded(&node, &["stop", "101", "--fast"]).ok();
            } else {
                assert!(!start.stderr.is_empty(), "{case}: the start failed and said nothing");
                assert!(!node.path("run/101").exists(), "{case}: the failed start left its run directory");
            }
            bounded(&node, &["destroy", "101"]).ok();
            canary.assert_untouched(&case);
        }
    }
    assert_nothing_left(&node, &machine);
}

#[test]
fn an_obstacle_in_place_of_a_device_cannot_lead_a_start_out_of_the_container() {
    obstruct("an_obstacle_in_place_of_a_device_cannot_lead_a_start_out_of_the_container", &TARGETS[..6]);
}

#[test]
fn an_obstacle_in_place_of_a_mount_point_cannot_lead_a_start_out_of_the_container() {
    obstruct("an_obstacle_in_place_of_a_mount_point_cannot_lead_a_start_out_of_the_container", &TARGETS[6..]);
}

/// Files that the administrator's commands edit, and what a container can put in their place.
#[test]
fn an_obstacle_in_place_of_a_file_cannot_stop_or_mislead_the_administrator() {
    let test = "an_obstacle_in_place_of_a_file_cannot_stop_or_mislead_the_administrator";
    let Some(node) = node(test) else { return };
    let canary = Canary::new();
    let file = canary.path().join("file").display().to_string();
    let machine = Snapshot::take([canary.path()]);
    let obstacles = |path: &str| {
        [
            format!("mkfifo {path}"),
            format!("truncate -s 64G {path}"),
            format!("mkdir {path}"),
            format!("ln -s {file} {path}"),
            format!("ln -s ../../../../../..{file} {path}"),
            format!("ln -s /proc/1/root{file} {path}"),
        ]
    };
    for path in ["/etc/passwd", "/etc/shadow", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/etc/network"] {
        for obstacle in obstacles(path) {
            create(&node, 101);
            node.vzctl(["start", "101"]).ok();
            inside(&node, 101, &format!("rm -rf {path}; {obstacle}"));
            for edit in [["--userpasswd", "root:secret"], ["--hostname", "other"], ["--nameserver", "192.0.2.1"]] {
                bounded(&node, &["set", "101", edit[0], edit[1], "--save"]);
                canary.assert_untouched(&format!("set {} with {obstacle}", edit[0]));
            }
            bounded(&node, &["stop", "101", "--fast"]).ok();
            // The same on a stopped one; then a start, which writes host name and name servers by itself.
            bounded(&node, &["set", "101", "--userpasswd", "root:secret"]);
            bounded(&node, &["start", "101"]);
            canary.assert_untouched(&format!("start with {obstacle}"));
            bounded(&node, &["stop", "101", "--fast"]);
            bounded(&node, &["destroy", "101"]).ok();
        }
    }
    assert_nothing_left(&node, &machine);
}

#[test]
fn a_directory_of_the_container_replaced_by_a_link_does_not_lead_an_edit_out() {
    let Some(node) = running("a_directory_of_the_container_replaced_by_a_link_does_not_lead_an_edit_out") else {
        return;
    };
    let canary = Canary::new();
    inside(&node, 101, &format!("rm -rf /etc; ln -s {} /etc", canary.path().display()));
    for edit in [["--userpasswd", "root:secret"], ["--hostname", "other"], ["--nameserver", "192.0.2.1"]] {
        bounded(&node, &["set", "101", edit[0], edit[1]]);
    }
    canary.assert_untouched("an edit below a directory that is a link");
}

#[test]
fn a_container_that_swaps_a_file_for_a_link_all_the_time_cannot_have_the_hosts_file_edited() {
    let test = "a_container_that_swaps_a_file_for_a_link_all_the_time_cannot_have_the_hosts_file_edited";
    let Some(node) = running(test) else { return };
    let canary = Canary::new();
    let file = canary.path().join("file").display().to_string();
    let swap = format!(
        "while [ ! -e /stop ]; do ln -s {file} /etc/s 2>/dev/null; mv /etc/s /etc/shadow; \
         echo 'root:*:1::::::' > /etc/t; mv /etc/t /etc/shadow; done > /dev/null 2>&1 &"
    );
    inside(&node, 101, &swap).ok();
    for _ in 0..rounds("VZ_TEST_SWAPS", 50, 10) {
        bounded(&node, &["set", "101", "--userpasswd", "root:secret"]);
    }
    inside(&node, 101, "touch /stop").ok();
    canary.assert_untouched("a swap race");
}

#[test]
fn a_stopped_init_cannot_keep_a_container_from_being_stopped() {
    let Some(node) = running("a_stopped_init_cannot_keep_a_container_from_being_stopped") else { return };
    let state = fs_err::read_to_string(node.path("run/101/state.json")).expect("state.json");
    let state: serde_json::Value = serde_json::from_str(&state).expect("JSON");
    let init = state["init_pid"].as_i64().expect("a pid");
    let init = nix::unistd::Pid::from_raw(i32::try_from(init).expect("a pid"));
    nix::sys::signal::kill(init, nix::sys::signal::Signal::SIGSTOP).expect("it is there");
    let stop = node.command("vzctl", ["stop", "101", "--stop-timeout", "1"]);
    Outcome::of(stop, PATIENCE).ok();
}

#[test]
fn destroy_does_not_follow_what_is_mounted_or_linked_in_the_private_area() {
    let Some(node) = node("destroy_does_not_follow_what_is_mounted_or_linked_in_the_private_area") else { return };
    let canary = Canary::new();
    create(&node, 101);
    let below = node.path("private/101/left");
    fs_err::create_dir(&below).expect("a directory");
    let none: Option<&str> = None;
    nix::mount::mount(Some(canary.path()), &below, none, nix::mount::MsFlags::MS_BIND, none).expect("a bind mount");
    let destroyed = bounded(&node, &["destroy", "101"]);
    canary.assert_untouched("destroy over a mount");
    assert_ne!(destroyed.code, 0, "what is mounted below belongs to somebody else");
    let mounts = fs_err::read_to_string("/proc/self/mounts").expect("mounts");
    for line in mounts.lines().filter(|l| l.contains(&format!("{}/", node.path("private").display()))) {
        nix::mount::umount(line.split(' ').nth(1).expect("a mount point")).expect("unmounted");
    }
}

#[test]
fn mounts_made_inside_do_not_show_on_a_host_whose_mounts_are_shared() {
    let Some(node) = node("mounts_made_inside_do_not_show_on_a_host_whose_mounts_are_shared") else { return };
    create(&node, 101);
    let vzctl = format!("VZ_CONFDIR={} {}", node.path("etc").display(), tests::node::binary().display());
    // As systemd leaves a host: every mount shared.
    let script = format!(
        "{vzctl} start 101 && {vzctl} exec2 101 'mkdir /x && mount -t tmpfs inside /x' && grep {} /proc/self/mountinfo; \
         {vzctl} stop 101 --fast",
        node.path("root").display()
    );
    let mut command = std::process::Command::new("unshare");
    command.args(["--mount", "--propagation", "shared", "sh", "-c", &script]);
    let said = Outcome::of(command, PATIENCE).ok().stdout;
    let mounted: Vec<&str> = said.lines().filter(|line| line.contains("/root/101")).collect();
    assert_eq!(mounted.len(), 1, "on the host there is VE_ROOT and nothing more:\n{said}");
}
