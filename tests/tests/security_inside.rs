//! Root inside a container attacks: the commands that enter it, the kernel, and what all containers share.

mod security_support;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::time::Duration;

use security_support::{Canary, PATIENCE, arm, bounded, create, inside, running};
use sha2::{Digest, Sha256};
use tests::node::{Node, Outcome, binary};
use tests::wait::{rounds, wait_until};

#[test]
fn no_process_inside_ever_sees_a_descriptor_a_variable_or_a_mount_of_the_host_while_commands_run() {
    let test = "no_process_inside_ever_sees_a_descriptor_a_variable_or_a_mount_of_the_host_while_commands_run";
    let Some(node) = running(test).filter(|node| arm(test, node, 101)) else { return };
    let mark = node.path("").display().to_string();
    inside(&node, 101, &format!("/attack watch {} > /watch.out 2>&1 &", mark.trim_end_matches('/'))).ok();
    for _ in 0..rounds("VZ_TEST_EXECS", 200, 20) {
        inside(&node, 101, "true").ok();
    }
    // A directory: whoever makes a file has it open for a moment, and the tool would see that too.
    inside(&node, 101, "mkdir /stop").ok();
    let mut seen = String::new();
    assert!(wait_until(Duration::from_secs(10), || {
        seen = inside(&node, 101, "cat /watch.out").stdout;
        seen.contains("done")
    }));
    assert_eq!(seen, "watching\ndone: looked\n");
}

#[test]
fn what_the_caller_has_open_and_in_its_environment_cannot_be_seen_by_exec() {
    let Some(node) = running("what_the_caller_has_open_and_in_its_environment_cannot_be_seen_by_exec") else { return };
    let vzctl = format!("SECRET=host VZ_CONFDIR={} {}", node.path("etc").display(), binary().display());
    let script = format!(
        "cd /var/tmp; exec 7</ 8</etc/shadow 9>/dev/null; {vzctl} exec2 101 \
         'for fd in /proc/self/fd/*; do readlink $fd; done; env; readlink /proc/self/cwd' </"
    );
    let mut command = Command::new("bash");
    command.args(["-c", &script]);
    let said = Outcome::of(command, PATIENCE).ok().stdout;
    for line in said.lines().filter(|line| line.starts_with('/')) {
        assert!(line == "/" || line.starts_with("/proc/"), "{line} is the host's:\n{said}");
    }
    assert!(said.contains("pipe:") && !said.contains("SECRET") && !said.contains("VZ_CONFDIR"), "{said}");
}

#[test]
fn a_script_of_the_administrator_run_by_the_containers_shell_cannot_reach_what_the_command_has_open() {
    let test = "a_script_of_the_administrator_run_by_the_containers_shell_cannot_reach_what_the_command_has_open";
    let Some(node) = running(test) else { return };
    let look = "#!/bin/sh\nreadlink /proc/self/fd/0 >> /seen\nreadlink /proc/self/fd/9 9>&1 >> /seen\n\
        readlink /proc/self/fd/2 >> /seen\n";
    for name in ["101.start", "101.stop"] {
        let path = node.path("etc/conf").join(name);
        fs::write(&path, look).expect("written");
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("its mode");
    }
    let vzctl = format!("VZ_CONFDIR={} {}", node.path("etc").display(), binary().display());
    let mut command = Command::new("bash");
    // Standard input is the host's root directory: openat() from it would be the way out.
    command.args(["-c", &format!("{vzctl} restart 101 --stop-timeout 2 </ && {vzctl} exec2 101 cat /seen")]);
    let said = Outcome::of(command, Duration::from_secs(60)).ok().stdout;
    let seen: Vec<&str> = said.lines().filter(|l| l.starts_with('/') || l.contains(':')).collect();
    assert!(seen.iter().any(|line| line.contains("memfd")), "the scripts have run:\n{said}");
    for line in seen.iter().filter(|line| line.starts_with('/')) {
        assert!(line.starts_with("/memfd:"), "{line} is the host's:\n{said}");
    }
}

#[test]
fn the_monitor_does_not_keep_what_the_caller_of_start_had_open() {
    let Some(node) = running("the_monitor_does_not_keep_what_the_caller_of_start_had_open") else { return };
    bounded(&node, &["stop", "101", "--fast"]).ok();
    let lock = node.path("callers-lock");
    let vzctl = format!("VZ_CONFDIR={} {}", node.path("etc").display(), binary().display());
    let script =
        format!("exec 9>{0}; flock 9; {vzctl} start 101; exec 9>&-; flock --nonblock {0} true", lock.display());
    let mut command = Command::new("bash");
    command.args(["-c", &script]);
    Outcome::of(command, PATIENCE).ok();
}

#[test]
fn a_container_does_not_live_with_the_priority_and_limits_of_whoever_started_it() {
    let Some(node) = running("a_container_does_not_live_with_the_priority_and_limits_of_whoever_started_it") else {
        return;
    };
    bounded(&node, &["stop", "101", "--fast"]).ok();
    let vzctl = format!("VZ_CONFDIR={} {}", node.path("etc").display(), binary().display());
    let look =
        "cat /proc/1/oom_score_adj /proc/self/oom_score_adj; grep -h 'Max stack size' /proc/1/limits /proc/self/limits";
    let script = format!(
        "ulimit -Ss 1024; echo 300 > /proc/self/oom_score_adj; {vzctl} start 101 >&2 && {vzctl} exec2 101 \"{look}\""
    );
    let mut command = Command::new("bash");
    command.args(["-c", &script]);
    let said = Outcome::of(command, PATIENCE).ok().stdout;
    let lines: Vec<&str> = said.lines().collect();
    // Nothing of the caller's 300; below 0 is what the container was promised, where the host's root may give that.
    let adjusted: Vec<i32> = lines[..2].iter().map(|line| line.parse().expect("a number")).collect();
    assert!(adjusted[0] <= 0 && adjusted[0] == adjusted[1], "{said}");
    assert_eq!(said.matches("8388608").count(), 2, "{said}");
}

#[test]
fn a_program_that_is_a_link_to_the_runtime_itself_cannot_overwrite_it() {
    let Some(node) = running("a_program_that_is_a_link_to_the_runtime_itself_cannot_overwrite_it") else { return };
    let sum = || Sha256::digest(fs::read(binary()).expect("vzctl"));
    let before = sum();
    let plant = "ln -sf /proc/self/exe /bin/evil; printf '#!/proc/self/exe\\n' > /bin/script; chmod +x /bin/script; \
        while [ ! -e /stop ]; do for p in /proc/[0-9]*; do echo x 2>/dev/null > $p/exe; done; done > /dev/null 2>&1 &";
    inside(&node, 101, plant).ok();
    for program in ["/bin/evil", "/bin/script"].iter().cycle().take(60) {
        bounded(&node, &["exec2", "101", program]);
    }
    inside(&node, 101, "touch /stop").ok();
    assert_eq!(sum(), before, "the runtime's own program was changed from inside");
}

#[test]
fn what_is_typed_into_the_terminal_from_inside_cannot_reach_the_administrators_shell() {
    let test = "what_is_typed_into_the_terminal_from_inside_cannot_reach_the_administrators_shell";
    let Some(node) = running(test).filter(|node| arm(test, node, 101)) else { return };
    let vzctl = format!("VZ_CONFDIR={} {}", node.path("etc").display(), binary().display());
    for stdin in ["", "</dev/null", "< <(true)"] {
        // bash on a terminal of its own; what TIOCSTI typed is there to read when the command has ended.
        let line = format!("{vzctl} exec2 101 '/attack type' {stdin}; read -r -t 1 typed; echo \"GOT[$typed]\"");
        let mut command = Command::new("script");
        command.args(["-qec", &format!("bash -c {}", quoted(&line)), "/dev/null"]);
        let said = Outcome::of(command, PATIENCE).stdout;
        assert!(said.contains("GOT[]"), "{stdin}: {said}");
        assert!(said.contains("TIOCSTI"), "the attack ran: {said}");
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[test]
fn the_hosts_dev_null_keeps_its_owner_and_mode() {
    let Some(node) = running("the_hosts_dev_null_keeps_its_owner_and_mode") else { return };
    let null = || fs::metadata("/dev/null").map(|m| (m.uid(), m.gid(), m.mode())).expect("/dev/null");
    let before = null();
    inside(&node, 101, "chown 7:7 /dev/null; chmod 600 /dev/null; chown 7 /proc/self/fd/0");
    bounded(&node, &["stop", "101", "--fast"]).ok();
    bounded(&node, &["start", "101"]).ok();
    inside(&node, 101, "true").ok();
    assert_eq!(null(), before);
}

#[test]
fn no_process_inside_has_a_capability_of_the_host_or_one_to_inherit() {
    let Some(node) = running("no_process_inside_has_a_capability_of_the_host_or_one_to_inherit") else { return };
    let said = inside(&node, 101, "grep -h ^Cap /proc/1/status /proc/self/status").ok().stdout;
    let sets: Vec<(&str, u64)> = said
        .lines()
        .filter_map(|line| line.split_once(":\t"))
        .map(|(name, set)| (name, u64::from_str_radix(set, 16).expect("a set")))
        .collect();
    assert_eq!(sets.len(), 10, "{said}");
    // SYS_MODULE, SYS_RAWIO, SYS_TIME, SYSLOG, WAKE_ALARM, BLOCK_SUSPEND, AUDIT_READ, PERFMON, BPF, MAC_ADMIN, MAC_OVERRIDE
    let hosts = [16, 17, 25, 34, 35, 36, 37, 38, 39, 32, 33].iter().fold(0u64, |set, bit| set | 1 << bit);
    for (name, set) in sets {
        let bad = if ["CapInh", "CapAmb"].contains(&name) { set } else { set & hosts };
        assert_eq!(bad, 0, "{name} {set:x}\n{said}");
        assert!(name != "CapBnd" || set != 0, "{said}");
    }
}

/// Those that work, for each is the container's own.
const ITS_OWN: [&str; 2] = [
    // Of its pid namespace, since Linux 6.14; the host's is compared below.
    "pid_max",
    // Shows what cgroup2 shows, and its files are the host root's: see the test of cgroups.
    "mount cgroup v1",
];

#[test]
fn no_system_call_or_file_of_the_kernel_gives_root_inside_anything_of_the_host() {
    let test = "no_system_call_or_file_of_the_kernel_gives_root_inside_anything_of_the_host";
    let Some(node) = running(test).filter(|node| arm(test, node, 101)) else { return };
    let sysctls = ["pid_max", "core_pattern", "sysrq", "kptr_restrict"];
    let host = || sysctls.map(|name| fs::read_to_string(format!("/proc/sys/kernel/{name}")).ok());
    let before = host();
    let said = inside(&node, 101, "/attack calls").ok().stdout;
    let worked: Vec<&str> =
        said.lines().filter_map(|line| line.strip_suffix("=OK")).filter(|name| !ITS_OWN.contains(name)).collect();
    assert!(worked.is_empty(), "worked inside: {worked:?}\n{said}");
    assert!(said.lines().count() > 70, "the attack was cut short:\n{said}");
    assert_eq!(host(), before);
}

#[test]
fn no_user_inside_can_read_a_password_or_a_command_of_the_administrator() {
    let test = "no_user_inside_can_read_a_password_or_a_command_of_the_administrator";
    let Some(node) = running(test) else { return };
    let watch = "cat > /watch << 'END'\nwhile [ ! -e /tmp/stop ]; do grep -a -h -e pr[3]cious -e config-[d]ir /proc/[0-9]*/cmdline; done\nEND\n\
        (su -s /bin/sh nobody -c 'sh /watch' > /seen 2> /dev/null &)";
    inside(&node, 101, watch).ok();
    let confdir = node.path("etc").display().to_string();
    for _ in 0..25 {
        bounded(&node, &["--config-dir", &confdir, "set", "101", "--userpasswd", "root:pr3cious"]).ok();
        bounded(&node, &["--config-dir", &confdir, "exec2", "101", "true"]).ok();
    }
    inside(&node, 101, "touch /tmp/stop; pgrep -f /watch > /dev/null && sleep 1; true").ok();
    let seen = inside(&node, 101, "tr '\\000' ' ' < /seen").ok().stdout;
    assert!(!seen.contains("pr3cious") && !seen.contains(&confdir), "{seen}");
}

#[test]
fn the_keys_of_whoever_runs_a_command_stay_outside() {
    let test = "the_keys_of_whoever_runs_a_command_stay_outside";
    let Some(node) = running(test).filter(|node| arm(test, node, 101)) else { return };
    let vzctl = format!("VZ_CONFDIR={} {}", node.path("etc").display(), binary().display());
    // Its init looks, and every kind of command that goes in.
    inside(&node, 101, "mv /sbin/init /sbin/init.real; printf '#!/bin/sh\n/attack key > /by-init\nexec -a init /sbin/init.real\n' > /sbin/init; chmod 755 /sbin/init").ok();
    bounded(&node, &["stop", "101", "--fast"]).ok();
    bounded(&node, &["set", "101", "--features", "keyring:on", "--save"]).ok();
    let script = format!(
        "{vzctl} --quiet start 101; {vzctl} exec2 101 /attack key; {vzctl} exec3 101 /attack key; echo '/attack key' | {vzctl} exec2 101 -; \
         for i in 1 2 3 4 5; do {vzctl} exec2 101 'cat /by-init' && break; sleep 1; done"
    );
    let mut command = Command::new(tests::compiled::ATTACK.compiled().expect("it is in both containers"));
    command.args(["with-key", "sh", "-c", &script]);
    let said = Outcome::of(command, PATIENCE);
    if said.code == 77 {
        return tests::skips::skip(test, "this host has no keyrings");
    }
    assert_eq!(said.stdout, "no key: ENOKEY\n".repeat(4), "{said:?}");
    // Taking all its keys is the container's own loss: it is stopped like any other.
    bounded(&node, &["stop", "101", "--fast"]).ok();
}

/// B15: what `docs/security.md` says is open, and nothing else. A family that the host has no module for is not there.
#[test]
fn only_the_socket_families_of_a_server_can_be_opened() {
    let test = "only_the_socket_families_of_a_server_can_be_opened";
    let Some(node) = running(test).filter(|node| arm(test, node, 101)) else { return };
    let said = inside(&node, 101, "/attack families").ok().stdout;
    let found: Vec<&str> = said.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    // UNIX INET INET6 NETLINK PACKET are everywhere; KEY and PPPOX by the host.
    for family in ["1", "2", "10", "16", "17"] {
        assert!(found.contains(&family), "{family} is missing:\n{said}");
    }
    let more: Vec<_> = found.iter().filter(|f| !["1", "2", "10", "16", "17", "15", "24"].contains(f)).collect();
    assert!(more.is_empty(), "the families {more:?} are there:\n{said}");
    // Documented: namespaces of its own are the container's to make.
    inside(&node, 101, "unshare -Ur true").ok();
}

/// The covers over files of proc and sysfs are a second wall, and root inside takes them off: what it finds then belongs to the host's root.
#[test]
fn taking_the_covers_off_the_kernels_files_gives_nothing_of_the_host() {
    let test = "taking_the_covers_off_the_kernels_files_gives_nothing_of_the_host";
    let Some(node) = running(test).filter(|node| arm(test, node, 101)) else { return };
    let plan = fs::read_to_string(node.path("run/101/plan.json")).expect("the plan");
    let plan: serde_json::Value = serde_json::from_str(&plan).expect("JSON");
    let paths = |key: &str| -> Vec<String> {
        let list = plan["spec"]["linux"][key].as_array().expect("a list");
        list.iter().filter_map(|path| path.as_str().map(str::to_owned)).collect()
    };
    let (masked, read_only) = (paths("maskedPaths"), paths("readonlyPaths"));
    let writable = |proc: &str| {
        format!(
            "for f in $(find {proc}/sysrq-trigger {proc}/irq {proc}/bus {proc}/fs {proc}/kcore {proc}/timer_list {proc}/keys -type f \
             2>/dev/null); do (: >> $f) 2>/dev/null && echo wrote $f; done; for f in {proc}/kcore {proc}/timer_list {proc}/latency_stats; do \
             head -c 16 $f 2>/dev/null | grep -q . && echo read $f; done; true"
        )
    };
    // Covered, uncovered, written to by a second mount of the same, and in a proc of its own.
    let off: String =
        masked.iter().chain(&read_only).map(|p| format!("umount {p}; mount -o remount,rw,bind {p}; ")).collect();
    let fresh = "mkdir -p /p /s; mount -t proc proc /p; mount -t sysfs sysfs /s; mount -o remount,rw /sys; true";
    for (what, line) in [
        ("covered", writable("/proc")),
        ("uncovered", format!("({off}) 2>/dev/null; {}", writable("/proc"))),
        ("a fresh proc", format!("({fresh}) 2>/dev/null; {}", writable("/p"))),
        ("sysfs", "find /sys /s -type f -perm -200 2>/dev/null | while read f; do case $f in */cgroup/*|*/net/*) continue;; esac; \
            (: >> $f) 2>/dev/null && echo wrote $f; done; ls /sys/firmware/* /s/firmware/efi/efivars/* 2>/dev/null | head -3; true".into()),
    ] {
        let said = inside(&node, 101, &line).ok().stdout;
        assert!(!said.contains("wrote ") && !said.contains("read "), "{what}:\n{said}");
    }
    // Keys are seen by their users: those of the container's numbers, none of the host's.
    let keys = inside(&node, 101, "cat /p/keys; cat /proc/keys").stdout;
    let foreign: Vec<&str> =
        keys.lines().filter(|line| line.split_whitespace().nth(5).is_some_and(|uid| uid != "0")).collect();
    assert!(foreign.is_empty(), "{foreign:?}");
}

#[test]
fn a_container_cannot_climb_out_of_its_root() {
    let test = "a_container_cannot_climb_out_of_its_root";
    let Some(node) = running(test).filter(|node| arm(test, node, 101)) else { return };
    let canary = tempfile::Builder::new().prefix("canary-of-the-host").tempdir_in("/").expect("a directory");
    let said = inside(&node, 101, "/attack climb").ok().stdout;
    assert_eq!(said, "bind: in\nchroot: in\n");
    drop(canary);
}

#[test]
fn a_container_cannot_change_its_limits_or_leave_its_cgroups_by_any_hierarchy() {
    let test = "a_container_cannot_change_its_limits_or_leave_its_cgroups_by_any_hierarchy";
    let Some(node) = running(test) else { return };
    let attack = "mkdir -p /m; for c in memory devices freezer pids cpu cpuset blkio; do mount -t cgroup -o $c none /m 2>/dev/null || continue; \
        for f in memory.limit_in_bytes devices.allow freezer.state pids.max cpu.shares cpuset.cpus release_agent notify_on_release \
        tasks cgroup.procs; do [ -e /m/$f ] && echo 1 2>/dev/null > /m/$f && echo $c/$f; done; mkdir /m/x 2>/dev/null && echo $c/mkdir; \
        umount /m; done; for f in memory.max pids.max cpu.max cgroup.max.depth cgroup.freeze; do \
        [ -e /sys/fs/cgroup/$f ] && echo max 2>/dev/null > /sys/fs/cgroup/$f && echo $f; done; true";
    assert_eq!(inside(&node, 101, attack).ok().stdout, "", "written from inside");
}

#[test]
fn a_reboot_inside_does_not_reach_the_host_and_the_container_comes_back() {
    let Some(node) = running("a_reboot_inside_does_not_reach_the_host_and_the_container_comes_back") else { return };
    let state = || fs::read_to_string(node.path("run/101/state.json")).unwrap_or_default();
    let before = state();
    inside(&node, 101, "reboot -f");
    assert!(wait_until(Duration::from_secs(20), || !state().is_empty() && state() != before), "it has not come back");
}

/// While one container holds all it can get, the host and another container get 20 of the same.
fn the_rest_still_has(what: &str, test: &str) {
    let Some(node) = running(test).filter(|node| arm(test, node, 101)) else { return };
    create(&node, 102);
    node.vzctl(["start", "102"]).ok();
    arm(test, &node, 102);
    inside(&node, 101, &format!("/attack take {what} > /took 2>&1 &")).ok();
    let mut took = String::new();
    let done = wait_until(Duration::from_secs(60), || {
        if what == "pids" {
            // Nothing can be started inside to look. What started the attack has ended since.
            let [held, limit] = ["pids.current", "pids.max"].map(|file| node.cgroup_file(101, &[file]));
            took = format!("{held} of {limit}");
            return held.parse::<u32>().expect("a number") + 5 >= limit.parse().expect("a limit");
        }
        took = bounded(&node, &["exec2", "101", "cat /took"]).stdout;
        took.starts_with(what)
    });
    assert!(done, "{what}: {took}");
    let need = format!("PARENT=. /attack need {what}");
    let other = bounded(&node, &["exec2", "102", &need]).ok().stdout;
    assert!(other.ends_with("enough\n"), "another container has {other} while one has {took}");
    if what != "cgroups" {
        let mut command = Command::new(tests::compiled::ATTACK.compiled().expect("it is in both containers"));
        command.args(["need", what]);
        let host = Outcome::of(command, PATIENCE).ok().stdout;
        assert!(host.ends_with("enough\n"), "the host has {host} while a container has {took}");
    }
    Outcome::of(node.command("vzctl", ["stop", "101", "--fast"]), PATIENCE).ok();
}

#[test]
fn a_container_cannot_take_the_inotify_instances_of_others() {
    the_rest_still_has("inotify", "a_container_cannot_take_the_inotify_instances_of_others");
}

#[test]
fn a_container_cannot_take_the_timers_of_others() {
    the_rest_still_has("timers", "a_container_cannot_take_the_timers_of_others");
}

#[test]
fn a_container_cannot_take_the_message_queues_of_others() {
    the_rest_still_has("mqueues", "a_container_cannot_take_the_message_queues_of_others");
}

#[test]
fn a_container_cannot_take_the_pseudo_terminals_of_others() {
    the_rest_still_has("ptys", "a_container_cannot_take_the_pseudo_terminals_of_others");
}

#[test]
fn a_container_cannot_take_the_cgroups_of_others() {
    the_rest_still_has("cgroups", "a_container_cannot_take_the_cgroups_of_others");
}

#[test]
fn a_container_cannot_take_the_process_ids_of_others() {
    the_rest_still_has("pids", "a_container_cannot_take_the_process_ids_of_others");
}

#[test]
fn a_console_flood_cannot_fill_the_host() {
    let Some(node) = running("a_console_flood_cannot_fill_the_host") else { return };
    inside(&node, 101, "dd if=/dev/zero bs=64k count=200 2>/dev/null > /dev/console").ok();
    let size = |name: &str| fs::metadata(node.path("run").join(name)).map_or(0, |m| m.len());
    let all = size("101.console") + size("101.console.1");
    assert!(all > 0 && all <= 128 << 10, "{all} bytes of console are kept");
}

#[test]
fn a_container_cannot_write_past_its_disk_limits() {
    let Some(node) = running("a_container_cannot_write_past_its_disk_limits") else { return };
    node.vzctl(["create", "103", "--ostemplate", "busybox", "--diskspace", "64M:64M", "--diskinodes", "2000:2000"])
        .ok();
    node.vzctl(["start", "103"]).ok();
    if !is_bounded(&node) {
        return tests::skips::skip("a_container_cannot_write_past_its_disk_limits", "no disk quota on this host");
    }
    let bytes = inside(&node, 103, "dd if=/dev/zero of=/big bs=1M count=200 2>/dev/null; wc -c < /big; rm /big").stdout;
    let bytes: u64 = bytes.trim().parse().expect("a size");
    assert!(bytes <= 64 << 20, "{bytes} bytes written of 64 MiB");
    let files = inside(
        &node,
        103,
        "mkdir /t; i=0; while true 2>/dev/null > /t/$i; do i=$((i+1)); [ $i -gt 5000 ] && break; done; ls /t | wc -l",
    );
    let files: u64 = files.stdout.trim().parse().expect("a number");
    // An image has whole blocks of inodes.
    assert!(files > 1000 && files <= 2016, "{files} files made of 2000");
    // The host and a neighbour are none the worse.
    inside(&node, 101, "dd if=/dev/zero of=/mine bs=1M count=4 2>/dev/null").ok();
}

/// Whether the root of 103 has an end that is its own.
fn is_bounded(node: &Node) -> bool {
    let kib = inside(node, 103, "df -k / | tail -1 | awk '{print $2}'").stdout;
    kib.trim().parse::<u64>().is_ok_and(|kib| kib <= 80 << 10)
}

#[test]
fn a_container_cannot_have_itself_forged_into_the_log() {
    let Some(node) = running("a_container_cannot_have_itself_forged_into_the_log") else { return };
    let canary = Canary::new();
    inside(&node, 101, "rm /etc/hostname; mkdir -p \"/etc/hostname/$(printf 'x\\n2026 vzctl : CT 1 : forged')\"");
    bounded(&node, &["set", "101", "--hostname", "a\u{1b}]0;x\u{7}"]);
    bounded(&node, &["set", "101", "--hostname", "other"]);
    let log = fs::read_to_string(node.path("vzctl.log")).expect("the log");
    assert!(!log.lines().any(|line| line.starts_with("2026 vzctl")), "{log}");
    assert!(!log.contains('\u{1b}'), "{log}");
    canary.assert_untouched("a host name");
}
