//! `exec`, `exec2`, `exec3` and `enter`: what goes in, what comes out, and the codes they end with.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use tests::containers::running_busybox;
use tests::node::Node;

/// `vzctl` with this on its standard input.
fn fed(node: &Node, arguments: &[&str], input: &[u8]) -> Output {
    let mut command = Command::new("timeout");
    command.args(["--foreground", "60"]).arg(tests::node::binary()).args(arguments).env("VZ_CONFDIR", node.path("etc"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("vzctl");
    let mut stdin = child.stdin.take().expect("a pipe");
    let input = input.to_vec();
    // Beside us: what comes back would fill its pipe while we still write.
    let writer = std::thread::spawn(move || stdin.write_all(&input).map_err(|error| error.kind()));
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("no panic").expect("all was read");
    output
}

/// An interactive `vzctl` on a terminal of its own, fed by lines; what the terminal showed.
fn on_a_terminal(node: &Node, line: &str, input: &str) -> Output {
    let line = format!("timeout --foreground 60 {} {line}", tests::node::binary().display());
    let mut command = Command::new("script");
    command.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
    command.env("VZ_CONFDIR", node.path("etc")).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("script(1)");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(input.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    drop(stdin);
    output
}

#[test]
fn exec_joins_its_words_for_a_shell() {
    let Some(node) = running_busybox("exec_joins_its_words_for_a_shell") else { return };
    assert_eq!(node.done(["exec", "101", "echo", "a  b", "$((1+1))"]), "a b 2\n");
    assert_eq!(node.done(["exec", "101", "echo a; echo b | tr b c"]), "a\nc\n");
    assert_eq!(node.done(["exec", "101", "printf '<%s>'", "", "x"]), "<><x>");
    assert_eq!(node.done(["exec", "101", "ls", "-d", "/etc"]), "/etc\n", "options are the command's");
}

#[test]
fn exec3_has_no_shell() {
    let Some(node) = running_busybox("exec3_has_no_shell") else { return };
    assert_eq!(node.done(["exec3", "101", "echo", "a  b", "$HOME", ";"]), "a  b $HOME ;\n");
    node.vzctl(["exec3", "101", "sh", "-c", "exit 5"]).fails_with(5);
}

#[test]
fn a_failed_command_is_8_for_exec_and_its_own_status_for_exec2() {
    let Some(node) = running_busybox("a_failed_command_is_8_for_exec_and_its_own_status_for_exec2") else { return };
    for status in [1, 8, 42, 255] {
        let line = format!("exit {status}");
        node.vzctl(["exec", "101", &line]).fails_with(8);
        node.vzctl(["exec2", "101", &line]).fails_with(status);
    }
    node.vzctl(["exec", "101", "/nonexistent"]).fails_with(8);
    node.vzctl(["exec2", "101", "/nonexistent"]).fails_with(127);
    let killed = node.vzctl(["exec2", "101", "kill -KILL $$"]).fails_with(3);
    assert_eq!(killed.stdout, "Got signal 9\n");
}

#[test]
fn commands_into_a_stopped_container_are_refused() {
    let Some(node) = running_busybox("commands_into_a_stopped_container_are_refused") else { return };
    node.done(["stop", "101"]);
    for (command, code) in [("exec", 8), ("exec2", 31), ("exec3", 31)] {
        let refused = node.vzctl([command, "101", "true"]).fails_with(code);
        assert_eq!(refused.stderr, "Container is not running\n");
    }
    node.vzctl(["enter", "101"]).fails_with(31);
}

#[test]
fn standard_input_reaches_the_command_to_its_end() {
    let Some(node) = running_busybox("standard_input_reaches_the_command_to_its_end") else { return };
    let bytes: Vec<u8> = (0..=255u8).cycle().take(3 << 20).collect();
    let output = fed(&node, &["exec2", "101", "cat"], &bytes);
    assert!(output.status.success());
    assert!(output.stdout == bytes, "every byte came back, in order");
    assert_eq!(output.stderr, b"");
    let counted = fed(&node, &["exec2", "101", "wc -c"], &bytes).stdout;
    assert_eq!(String::from_utf8_lossy(&counted).trim(), (3 << 20).to_string());
}

#[test]
fn a_command_that_says_more_than_it_is_told_does_not_stand_still() {
    let Some(node) = running_busybox("a_command_that_says_more_than_it_is_told_does_not_stand_still") else { return };
    let output = fed(&node, &["exec2", "101", "od -v -An -tx1 | tr -d ' \\n'"], &vec![0xab; 1 << 20]);
    assert!(output.status.success(), "both sides waited for each other");
    assert_eq!(output.stdout.len(), 2 << 20);
}

#[test]
fn a_dash_takes_the_script_from_standard_input() {
    let Some(node) = running_busybox("a_dash_takes_the_script_from_standard_input") else { return };
    let output = fed(&node, &["exec2", "101", "-"], b"x=in\necho $x-side\nexit 9\n");
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(9), &b"in-side\n"[..]));
}

#[test]
fn large_and_split_output_comes_out_whole() {
    let Some(node) = running_busybox("large_and_split_output_comes_out_whole") else { return };
    let outcome = node.vzctl(["exec2", "101", "head -c 20000000 /dev/zero | tr '\\0' x; echo end >&2"]).ok();
    assert_eq!((outcome.stdout.len(), outcome.stderr.as_str()), (20_000_000, "end\n"));
    let lines = node.inside("i=0; while [ $i -lt 500 ]; do echo $i; i=$((i+1)); done");
    assert!(lines.lines().enumerate().all(|(number, line)| line == number.to_string()), "in order");
}

#[test]
fn output_that_nobody_reads_ends_the_command_not_the_caller() {
    let Some(node) = running_busybox("output_that_nobody_reads_ends_the_command_not_the_caller") else { return };
    let mut child = node.command("vzctl", ["exec2", "101", "yes"]).stdout(Stdio::piped()).spawn().expect("vzctl");
    drop(child.stdout.take());
    let ended = tests::wait::wait_until(std::time::Duration::from_secs(10), || {
        child.try_wait().is_ok_and(|status| status.is_some())
    });
    if !ended {
        child.kill().expect("it runs");
        child.wait().expect("killed");
    }
    assert!(ended, "a closed pipe ends it");
}

#[test]
fn the_environment_of_a_command_is_the_containers() {
    let Some(node) = running_busybox("the_environment_of_a_command_is_the_containers") else { return };
    let mut command = node.command("vzctl", ["exec2", "101", "env"]);
    command.env("SECRET_OF_THE_HOST", "1").env("LD_PRELOAD", "");
    let output = String::from_utf8(command.output().expect("vzctl").stdout).expect("text");
    for expected in ["HOME=/", "TERM=linux", "PATH="] {
        assert!(output.lines().any(|line| line.starts_with(expected)), "{expected} in\n{output}");
    }
    assert!(!output.contains("SECRET") && !output.contains("VZ_CONFDIR"), "{output}");
}

#[test]
fn a_command_lives_in_the_containers_world() {
    let Some(node) = running_busybox("a_command_lives_in_the_containers_world") else { return };
    assert_eq!(node.inside("id -u; id -g"), "0\n0");
    assert_eq!(node.inside("cat /proc/1/comm").lines().count(), 1);
    for namespace in ["user", "pid", "mnt", "net", "ipc", "uts", "cgroup", "time"] {
        let link = format!("/proc/self/ns/{namespace}");
        let host = fs_err::read_link(&link).expect("a namespace").display().to_string();
        assert_ne!(node.inside(&format!("readlink {link}")), host, "{namespace}");
        assert_eq!(
            node.inside(&format!("readlink {link}")),
            node.inside(&format!("readlink /proc/1/ns/{namespace}")),
            "{namespace} is that of its init"
        );
    }
    let files = node.inside("ls /proc/self/fd").split_whitespace().count();
    assert!(files <= 4, "no descriptor of the host's comes along: {files}");
}

#[test]
fn enter_gives_a_shell_on_a_terminal_of_the_container() {
    let Some(node) = running_busybox("enter_gives_a_shell_on_a_terminal_of_the_container") else { return };
    let output = on_a_terminal(&node, "enter 101", "tty; echo $((40+2)); exit 6\n");
    let shown = String::from_utf8_lossy(&output.stdout).replace('\r', "");
    assert!(shown.contains("entered into CT 101\n"), "{shown}");
    assert!(shown.contains("\n/dev/pts/") || shown.contains("\n/dev/console"), "{shown}");
    assert!(shown.contains("\n42\n"), "{shown}");
    assert!(shown.contains("exited from CT 101\n"), "{shown}");
    assert_eq!(output.status.code(), Some(6), "{shown}");
}

#[test]
fn enter_can_run_a_command_instead_of_a_shell() {
    let Some(node) = running_busybox("enter_can_run_a_command_instead_of_a_shell") else { return };
    let output = on_a_terminal(&node, "enter 101 --exec test -t 0 '&&' echo a terminal", "");
    let shown = String::from_utf8_lossy(&output.stdout).replace('\r', "");
    assert!(shown.contains("\na terminal\n"), "{shown}");
    assert_eq!(output.status.code(), Some(0), "{shown}");
}
