//! `console`: what a container prints and what is typed to it, before its start, while it runs, through its reboots and after its end; and
//! containers that do their worst with it.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcgetwinsize, tcsetwinsize};
use tests::containers::{node_with, running_busybox};
use tests::node::Node;
use tests::session::Session;
use tests::wait::wait_until;

/// `vzctl console 101` with pipes for a terminal.
fn attached(node: &Node) -> Session {
    let session = Session::new(node.command("vzctl", ["console", "101"]));
    let there = wait_until(Duration::from_secs(20), || session.told().contains("Attached to CT 101"));
    assert!(there, "{}", session.told());
    session
}

/// A shell on the console that answers.
fn at_a_shell(node: &Node) -> Session {
    let mut session = attached(node);
    session.types("\necho $((40+2))\n");
    session.shows("\n42\r\n");
    session
}

fn console_log(node: &Node) -> String {
    node.done(["console", "101", "--log"])
}

#[test]
fn what_is_typed_reaches_the_containers_console_and_the_escape_detaches() {
    let Some(node) = running_busybox("what_is_typed_reaches_the_containers_console_and_the_escape_detaches") else {
        return;
    };
    let mut session = attached(&node);
    assert_eq!(session.told(), "Attached to CT 101 (ESC . to detach)\n");
    session.types("\ntty; stty -a | head -n 1; echo $((40+2))\n");
    session.shows("\n42\r\n");
    // Within a line an escape is the container's.
    session.types("read -r line; echo ${#line} long\n");
    session.types("x\u{1b}.\n");
    session.shows("\n3 long\r\n");
    session.types("\u{1b}.");
    assert_eq!(session.ends(), 0);
    assert_eq!(node.status(101), "CTID 101 exist mounted running");
}

#[test]
fn a_window_and_raw_mode_are_the_terminals_own_and_put_back_however_it_ends() {
    let test = "a_window_and_raw_mode_are_the_terminals_own_and_put_back_however_it_ends";
    let Some(node) = running_busybox(test) else { return };
    for end in [Some(Signal::SIGTERM), Some(Signal::SIGINT), Some(Signal::SIGHUP), Some(Signal::SIGQUIT), None] {
        let (master, slave) = terminal();
        let size = Winsize { ws_row: 33, ws_col: 111, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&master, size).expect("a terminal");
        let before = tcgetattr(&slave).expect("a terminal");
        let mut child = on(&slave, node.command("vzctl", ["console", "101"]));
        let is_raw = || !tcgetattr(&slave).expect("a terminal").local_modes.contains(LocalModes::ICANON);
        assert!(wait_until(Duration::from_secs(20), is_raw), "{end:?}: not raw");
        // Its size is asked for by the shell inside.
        let sized = || node.inside("stty size </dev/console") == "33 111";
        assert!(wait_until(Duration::from_secs(20), sized), "{end:?}: {}", node.inside("stty size </dev/console"));
        tcsetwinsize(&master, Winsize { ws_row: 22, ..size }).expect("a terminal");
        kill(Pid::from_raw(child.id() as i32), Signal::SIGWINCH).expect("it runs");
        let resized = || node.inside("stty size </dev/console") == "22 111";
        assert!(wait_until(Duration::from_secs(20), resized), "{end:?}: not resized");
        match end {
            Some(signal) => kill(Pid::from_raw(child.id() as i32), signal).expect("it runs"),
            None => drop(rustix::io::write(&master, b"\r\x1b.").expect("a terminal")),
        }
        let ended = wait_until(Duration::from_secs(20), || child.try_wait().is_ok_and(|status| status.is_some()));
        assert!(ended, "{end:?}: it goes on");
        let status = child.wait().expect("ended");
        assert_eq!(status.code(), Some(if end.is_some() { 3 } else { 0 }), "{end:?}");
        let after = tcgetattr(&slave).expect("a terminal");
        assert_eq!(
            (after.local_modes, after.input_modes, after.output_modes),
            (before.local_modes, before.input_modes, before.output_modes),
            "{end:?}"
        );
        assert_eq!(tcgetwinsize(&master).expect("a terminal").ws_row, 22, "nobody else's business");
    }
}

/// A terminal of the test's own.
fn terminal() -> (OwnedFd, OwnedFd) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a terminal");
    grantpt(&master).and_then(|()| unlockpt(&master)).expect("a terminal");
    let name = ptsname(&master, Vec::new()).expect("a name");
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC;
    let slave = rustix::fs::open(name.as_c_str(), flags, rustix::fs::Mode::empty()).expect("a terminal");
    (master, slave)
}

fn on(slave: &OwnedFd, mut command: Command) -> Child {
    let copy = || Stdio::from(slave.as_fd().try_clone_to_owned().expect("a descriptor"));
    command.stdin(copy()).stdout(copy()).stderr(Stdio::null()).process_group(0);
    command.spawn().expect("vzctl")
}

#[test]
fn a_container_is_waited_for_and_stays_attached_through_its_reboot() {
    let Some(node) = node_with("a_container_is_waited_for_and_stays_attached_through_its_reboot", "busybox") else {
        return;
    };
    node.done(["create", "101", "--ostemplate", "busybox"]);
    let mut session = attached(&node);
    session.tells("waiting for its start\n");
    session.types("lost, for there is nobody to read it\n");
    node.done(["start", "101"]);
    session.shows("# ");
    session.types("echo $((40+2))\n");
    session.shows("\n42\r\n");
    session.types("reboot\n");
    session.shows("vz: Container reboots");
    session.shows("# ");
    session.types("echo $((50+5))\n");
    session.shows("\n55\r\n");
    node.done(["stop", "101"]);
    session.shows("vz: Container has stopped\r\n");
    session.tells("waiting for its next start\n");
    session.types("\u{1b}.");
    assert_eq!(session.ends(), 0);
    assert!(!session.shown().contains("lost"), "{}", session.shown());
}

#[test]
fn what_nobody_saw_is_shown_first_and_the_log_outlives_the_container() {
    let Some(node) = running_busybox("what_nobody_saw_is_shown_first_and_the_log_outlives_the_container") else {
        return;
    };
    node.inside("echo printed to nobody >/dev/console");
    let mut session = attached(&node);
    session.shows("printed to nobody\r\n");
    session.types("\u{1b}.");
    session.ends();
    // Seen once, it is not shown again.
    node.inside("echo second >/dev/console");
    let mut session = attached(&node);
    session.shows("second\r\n");
    assert!(!session.shown().contains("nobody"), "{}", session.shown());
    session.types("\u{1b}.");
    session.ends();
    kill(Pid::from_raw(node.process(101, "init")), Signal::SIGKILL).expect("it lives");
    node.wait_for_status(101, "unmounted down");
    let log = console_log(&node);
    for line in ["printed to nobody\n", "second\n", "vz: Container has stopped: its init was ended by SIGKILL\n"] {
        assert!(log.contains(line), "{line} in\n{log}");
    }
    let mut session = attached(&node);
    session.shows("was ended by SIGKILL\n");
    session.types("\u{1b}.");
    session.ends();
    node.done(["destroy", "101"]);
    assert_eq!(node.leftovers(), [""; 0]);
}

#[test]
fn the_attention_key_takes_the_console_from_whatever_has_it() {
    let Some(node) = running_busybox("the_attention_key_takes_the_console_from_whatever_has_it") else { return };
    let mut session = at_a_shell(&node);
    // A false login that no key and no hang-up ends.
    session.types("trap '' HUP INT QUIT TSTP; printf 'login''> '; while read -r line; do echo caught $line; done\n");
    session.shows("login> ");
    session.types("\u{3}\u{1c}secret\n");
    session.shows("caught secret\r\n");
    session.types("\u{1b}!");
    // Init gives the console to another shell.
    session.shows("# ");
    session.types("echo $((40+2))\n");
    session.shows("\n42\r\n");
    session.types("\u{1b}.");
    assert_eq!(session.ends(), 0);
}

#[test]
fn a_console_takes_no_lock_and_two_see_the_same() {
    let Some(node) = running_busybox("a_console_takes_no_lock_and_two_see_the_same") else { return };
    let (mut one, mut two) = (at_a_shell(&node), attached(&node));
    two.types("echo $((70+7))\n");
    one.shows("\n77\r\n");
    two.shows("\n77\r\n");
    node.done(["set", "101", "--numproc", "99"]);
    two.signal(Signal::SIGKILL);
    two.ends();
    one.types("echo $((80+8))\n");
    one.shows("\n88\r\n");
}

#[test]
fn a_console_that_cannot_be_is_refused() {
    let Some(node) = node_with("a_console_that_cannot_be_is_refused", "busybox") else { return };
    node.vzctl(["console", "101"]).fails_with(14);
    node.done(["create", "101", "--ostemplate", "busybox"]);
    let refused = node.vzctl(["console", "101", "2"]).fails_with(21);
    assert!(refused.stderr.starts_with("Container has no terminal 2\n"), "{}", refused.stderr);
    node.vzctl(["console", "101", "x"]).fails_with(20);
    assert_eq!(node.done(["console", "101", "--log"]), "", "nothing was printed");
}

#[test]
fn a_flood_fills_no_disk_and_holds_nobody_up() {
    let Some(node) = running_busybox("a_flood_fills_no_disk_and_holds_nobody_up") else { return };
    // One who looks at it and takes nothing, and one who reads.
    let mut stuck = node.command("vzctl", ["console", "101"]);
    let mut stuck = stuck.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("vzctl");
    let mut session = attached(&node);
    node.inside("(yes flood >/dev/console; yes flood >/dev/console) </dev/null >/dev/null 2>&1 &");
    session.shows("flood\r\nflood\r\n");
    // What the host gives to hear it is bounded: two megabytes take a second at the least, however fast the machine is.
    let (before, begun) = (session.shown().len(), Instant::now());
    let heard = wait_until(Duration::from_secs(60), || session.shown().len() > before + (2 << 20));
    assert!(
        heard && begun.elapsed() >= Duration::from_secs(1),
        "{before} bytes, and two megabytes in {:?}",
        begun.elapsed()
    );
    let log_bytes: u64 = ["run/101.console", "run/101.console.1"]
        .iter()
        .map(|path| fs_err::metadata(node.path(path)).expect("a log").len())
        .sum();
    assert!(log_bytes <= 128 * 1024, "{log_bytes} bytes of log");
    // Everything else works as ever, the way out too.
    node.done(["set", "101", "--numproc", "99"]);
    session.types("\n\u{1b}.");
    assert_eq!(session.ends(), 0);
    node.done(["stop", "101", "--fast"]);
    stuck.kill().expect("it runs");
    stuck.wait().expect("killed");
    node.done(["destroy", "101"]);
    assert_eq!(node.leftovers(), [""; 0]);
}

/// The attendant of container 101: the child of its monitor beside init.
fn attendant(node: &Node) -> i32 {
    let monitor = node.process(101, "monitor");
    let children = fs_err::read_to_string(format!("/proc/{monitor}/task/{monitor}/children")).expect("it lives");
    let is = |pid: &i32| fs_err::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|n| n.trim() == "vz-attendant");
    children.split_whitespace().filter_map(|pid| pid.parse().ok()).find(is).expect("an attendant")
}

#[test]
fn input_that_nobody_inside_takes_holds_nobody_up() {
    let Some(node) = running_busybox("input_that_nobody_inside_takes_holds_nobody_up") else { return };
    let mut session = at_a_shell(&node);
    session.types("stty raw -echo; sleep 1000\n");
    assert!(wait_until(Duration::from_secs(20), || node.inside("ps").contains("sleep 1000")), "it sleeps");
    session.types(&"x".repeat(60_000));
    session.types("\r\u{1b}.");
    assert_eq!(session.ends(), 0);
    let mut other = attached(&node);
    other.types("\u{1b}!");
    other.shows("# ");
    other.types("echo $((40+2))\n");
    other.shows("\n42\r\n");
}

#[test]
fn a_log_is_shown_without_what_moves_a_terminal() {
    let Some(node) = running_busybox("a_log_is_shown_without_what_moves_a_terminal") else { return };
    node.inside(r"printf '\033]0;title\007\033[2J\033[32mgreen\033[0m\033[6n\n' >/dev/console");
    let shown = || console_log(&node);
    let there = wait_until(Duration::from_secs(20), || shown().contains("green"));
    assert!(there, "{}", shown());
    assert!(shown().contains("\\x1b]0;title\\x07\\x1b[2J\u{1b}[32mgreen\u{1b}[0m\\x1b[6n\n"), "{:?}", shown());
}

#[test]
fn a_script_that_has_said_all_still_listens() {
    let Some(node) = running_busybox("a_script_that_has_said_all_still_listens") else { return };
    let mut session = at_a_shell(&node);
    session.types("while [ ! -e /go ]; do sleep 0.1; done; echo $((60+6))\n");
    session.says_no_more();
    node.inside("touch /go");
    session.shows("\n66\r\n");
    session.signal(Signal::SIGTERM);
    assert_eq!(session.ends(), 3);
    session.tells("Cancelling...\ninterrupted by SIGTERM\n");
}

#[test]
fn whoever_dies_beside_it_the_console_goes_on() {
    let Some(node) = running_busybox("whoever_dies_beside_it_the_console_goes_on") else { return };
    let mut session = at_a_shell(&node);
    for number in 0..2 {
        kill(Pid::from_raw(attendant(&node)), Signal::SIGKILL).expect("it lives");
        session.types(&format!("\necho $((30+{number}))\n"));
        // What was typed before it was seen that the one is gone may be lost with him.
        let answer = format!("\n{}\r\n", 30 + number);
        let again = wait_until(Duration::from_secs(20), || {
            session.types(&format!("echo $((30+{number}))\n"));
            std::thread::sleep(Duration::from_millis(100));
            session.shown().contains(&answer)
        });
        assert!(again, "{}", session.shown());
    }
}
