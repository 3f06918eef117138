#![expect(clippy::unwrap_used, reason = "a test that panics is a test that fails")]

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompArgBuilder, LinuxSeccompFilterFlag,
    LinuxSeccompOperator as Op, LinuxSyscall, LinuxSyscallBuilder,
};
use proptest::prelude::*;

use super::abi::Abi;
use super::interpreter::{Call, run};
use super::{CompileError, Machine, Program};
use crate::policy::{self, Asks, Feature};

const ALLOW: u32 = 0x7fff_0000;
const KILL: u32 = 0x8000_0000;

fn errno(errno: i32) -> u32 {
    0x0005_0000 | errno.unsigned_abs()
}

fn arg(index: usize, op: Op, value: u64, two: u64) -> LinuxSeccompArg {
    LinuxSeccompArgBuilder::default().index(index).op(op).value(value).value_two(two).build().unwrap()
}

fn entry(name: &str, errno: u32, args: Vec<LinuxSeccompArg>) -> LinuxSyscall {
    let names = vec![name.to_owned()];
    LinuxSyscallBuilder::default()
        .names(names)
        .action(Action::ScmpActErrno)
        .errno_ret(errno)
        .args(args)
        .build()
        .unwrap()
}

fn filter(entries: Vec<LinuxSyscall>) -> LinuxSeccomp {
    let mut filter = LinuxSeccomp::default();
    filter.set_default_action(Action::ScmpActAllow).set_syscalls(Some(entries));
    filter
}

fn ask(program: &Program, abi: Abi, nr: u32, args: &[u64]) -> u32 {
    let mut call = Call { arch: abi.audit_arch(), nr, ..Call::default() };
    call.args[..args.len()].copy_from_slice(args);
    run(&program.instructions, &call).0
}

fn ask_by_name(program: &Program, abi: Abi, name: &str, args: &[u64]) -> u32 {
    ask(program, abi, abi.number(name).expect(name), args)
}

fn policy(features: &[Feature]) -> Program {
    Program::compile(&policy::seccomp(features, Asks::default()), Machine::X86_64).unwrap()
}

#[test]
fn the_policy_refuses_by_name_in_both_abis_and_leaves_a_server_what_it_needs() {
    let program = policy(&[]);
    for abi in [Abi::X86_64, Abi::X86] {
        for (name, expected) in [
            ("keyctl", errno(libc::ENOSYS)),
            ("io_uring_enter", errno(libc::ENOSYS)),
            ("kexec_load", errno(libc::EPERM)),
            ("open_by_handle_at", errno(libc::EPERM)),
            ("clock_settime", errno(libc::EPERM)),
            ("bpf", errno(libc::EPERM)),
            ("name_to_handle_at", ALLOW),
            ("mount", ALLOW),
            ("fsopen", ALLOW),
            ("unshare", ALLOW),
            ("reboot", ALLOW),
            ("mlock", ALLOW),
            ("personality", ALLOW),
            ("seccomp", ALLOW),
            ("execve", ALLOW),
        ] {
            assert_eq!(ask_by_name(&program, abi, name, &[]), expected, "{abi:?} {name}");
        }
    }
    assert_eq!(ask_by_name(&program, Abi::X86, "vm86", &[]), errno(libc::ENOSYS));
    assert_eq!(ask_by_name(&program, Abi::X86, "clock_settime64", &[]), errno(libc::EPERM));
}

#[test]
fn every_name_of_the_policy_is_a_system_call_somewhere_here() {
    assert_eq!(policy(&[]).unknown, Vec::<String>::new());
}

#[test]
fn sockets_are_filtered_by_the_int_that_the_kernel_sees() {
    let program = policy(&[]);
    let socket = |abi, family| ask_by_name(&program, abi, "socket", &[family]);
    for abi in [Abi::X86_64, Abi::X86] {
        for allowed in [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK, libc::AF_PACKET] {
            assert_eq!(socket(abi, allowed as u64), ALLOW, "{allowed}");
        }
        for refused in [40, 1 << 32 | 40, u64::MAX << 32 | 40, libc::AF_ALG as u64, libc::AF_BLUETOOTH as u64, 44] {
            assert_eq!(socket(abi, refused), errno(libc::EAFNOSUPPORT), "{refused:#x}");
        }
    }
    assert_eq!(ask_by_name(&program, Abi::X86, "socketcall", &[1]), errno(libc::ENOSYS));
    assert_eq!(ask_by_name(&policy(&[Feature::Sock32]), Abi::X86, "socketcall", &[1]), ALLOW);
}

#[test]
fn a_feature_opens_its_own_calls_and_nesting_opens_what_it_says() {
    let vsock = policy(&[Feature::Vsock]);
    assert_eq!(ask_by_name(&vsock, Abi::X86_64, "socket", &[40]), ALLOW);
    assert_eq!(ask_by_name(&vsock, Abi::X86_64, "socket", &[38]), errno(libc::EAFNOSUPPORT));
    let nesting = policy(&[Feature::Nesting]);
    for (name, expected) in [("keyctl", ALLOW), ("bpf", ALLOW), ("io_uring_setup", errno(libc::ENOSYS))] {
        assert_eq!(ask_by_name(&nesting, Abi::X86_64, name, &[]), expected, "{name}");
    }
    let closed = policy(&[]);
    for feature in Feature::ALL {
        assert_ne!(policy(&[feature]).instructions, closed.instructions, "{feature} opens something");
    }
}

#[test]
fn locking_memory_is_asked_about_where_bounds_are_enforced() {
    let bounded =
        Program::compile(&policy::seccomp(&[], Asks { before_locking: true, ..Asks::default() }), Machine::X86_64)
            .unwrap();
    for name in ["mlock", "mlock2", "mlockall"] {
        let notified = ask_by_name(&bounded, Abi::X86_64, "sysinfo", &[]);
        assert_eq!(ask_by_name(&bounded, Abi::X86_64, name, &[]), notified, "{name}");
        assert_eq!(ask_by_name(&policy(&[]), Abi::X86_64, name, &[]), ALLOW, "{name}");
    }
    assert_eq!(ask_by_name(&bounded, Abi::X86_64, "munlock", &[]), ALLOW);
}

#[test]
fn quotas_of_users_are_asked_about_where_there_are_some() {
    let with = |features: &[Feature]| {
        let asks = Asks { for_user_quota: true, ..Asks::default() };
        Program::compile(&policy::seccomp(features, asks), Machine::X86_64).unwrap()
    };
    let asked = ask_by_name(&with(&[]), Abi::X86_64, "sysinfo", &[]);
    for name in ["quotactl", "quotactl_fd"] {
        assert_eq!(ask_by_name(&with(&[]), Abi::X86_64, name, &[]), asked, "{name}");
        assert_eq!(ask_by_name(&with(&[]), Abi::X86, name, &[]), asked, "{name}");
        assert_eq!(ask_by_name(&policy(&[]), Abi::X86_64, name, &[]), errno(libc::ENOSYS), "{name}");
        assert_eq!(ask_by_name(&with(&[Feature::Quota]), Abi::X86_64, name, &[]), ALLOW, "{name}");
        assert_eq!(ask_by_name(&with(&[Feature::Nesting]), Abi::X86_64, name, &[]), errno(libc::ENOSYS), "{name}");
    }
}

#[test]
fn an_unknown_abi_kills_and_x32_is_not_there() {
    let program = policy(&[]);
    let arm = Call { arch: Abi::Arm.audit_arch(), nr: 1, ..Call::default() };
    assert_eq!(run(&program.instructions, &arm).0, KILL);
    for x32 in [0x4000_0000, 0x4000_0000 | 41, 0x4000_0000 | 512, 0x8000_0000, 0xffff_fffe] {
        assert_eq!(ask(&program, Abi::X86_64, x32, &[]), errno(libc::ENOSYS), "{x32:#x}");
    }
    assert_eq!(ask(&program, Abi::X86_64, u32::MAX, &[]), ALLOW, "a call that a debugger skips");
    assert_eq!(
        ask(&program, Abi::X86, 0x4000_0000 | 102, &[]),
        ALLOW,
        "no such call on i386: the kernel says so itself"
    );
}

#[test]
fn architectures_left_out_of_the_filter_are_closed() {
    let mut only_native = policy::seccomp(&[], Asks::default());
    only_native.set_architectures(Some(vec![Arch::ScmpArchX86_64, Arch::ScmpArchMips]));
    let program = Program::compile(&only_native, Machine::X86_64).unwrap();
    assert_eq!(ask_by_name(&program, Abi::X86_64, "read", &[]), ALLOW);
    assert_eq!(ask_by_name(&program, Abi::X86, "read", &[]), KILL);
}

#[test]
fn on_arm_the_same_names_have_the_numbers_of_arm() {
    let program = Program::compile(&policy::seccomp(&[], Asks::default()), Machine::Aarch64).unwrap();
    for abi in [Abi::Aarch64, Abi::Arm] {
        assert_eq!(ask_by_name(&program, abi, "keyctl", &[]), errno(libc::ENOSYS));
        assert_eq!(ask_by_name(&program, abi, "socket", &[40]), errno(libc::EAFNOSUPPORT));
        assert_eq!(ask_by_name(&program, abi, "read", &[]), ALLOW);
    }
}

#[test]
fn an_allowed_call_takes_a_dozen_instructions_and_never_looks_at_arguments() {
    let program = policy(&[]);
    for name in ["read", "write", "futex", "epoll_wait", "openat", "clock_gettime"] {
        let call = Call { arch: Abi::X86_64.audit_arch(), nr: Abi::X86_64.number(name).unwrap(), ..Call::default() };
        let (answer, steps) = run(&program.instructions, &call);
        assert_eq!(answer, ALLOW);
        assert!(steps <= 12, "{name}: {steps} instructions");
    }
    let inet = Call { arch: Abi::X86_64.audit_arch(), nr: 41, args: [2, 1, 0, 0, 0, 0] };
    assert!(run(&program.instructions, &inet).1 <= 60, "{} instructions", run(&program.instructions, &inet).1);
    assert!(program.instructions.len() < 600, "{}", program.instructions.len());
}

#[test]
fn what_would_ask_about_everything_or_the_kernel_would_cut_is_an_error() {
    let compile = |filter| Program::compile(&filter, Machine::X86_64).unwrap_err();
    let mut notify = filter(vec![]);
    notify.set_default_action(Action::ScmpActNotify);
    assert_eq!(compile(notify), CompileError::Default(Action::ScmpActNotify));
    assert_eq!(compile(filter(vec![entry("read", 4096, vec![])])), CompileError::Errno(4096));
    assert_eq!(compile(filter(vec![entry("read", 1, vec![arg(6, Op::ScmpCmpEq, 0, 0)])])), CompileError::Argument(6));
    let seven = vec![arg(0, Op::ScmpCmpNe, 0, 0); 7];
    assert_eq!(compile(filter(vec![entry("read", 1, seven)])), CompileError::Conditions(7));
    let many = (0..2000).map(|n| entry("read", 1, vec![arg(0, Op::ScmpCmpEq, n, 0)])).collect();
    assert!(matches!(compile(filter(many)), CompileError::TooLong(_)));
}

#[test]
fn a_program_that_asks_can_be_had_without_its_questions() {
    let mut asked = entry("sysinfo", 1, vec![]);
    asked.set_action(Action::ScmpActNotify);
    let program = Program::compile(&filter(vec![asked, entry("read", 1, vec![])]), Machine::X86_64).unwrap();
    let call = |nr| Call { arch: Abi::X86_64.audit_arch(), nr, ..Call::default() };
    let (sysinfo, read) = (call(Abi::X86_64.number("sysinfo").unwrap()), call(0));
    assert_eq!((program.asks(), run(&program.instructions, &sysinfo).0), (true, 0x7fc0_0000));
    let quiet = program.without_questions();
    assert_eq!((quiet.asks(), run(&quiet.instructions, &sysinfo).0), (false, ALLOW));
    assert_eq!(run(&quiet.instructions, &read), run(&program.instructions, &read));
}

#[test]
fn flags_and_unknown_names_come_out() {
    let mut with_flags = filter(vec![entry("no_such_call", 1, vec![]), entry("read", 1, vec![])]);
    with_flags.set_flags(Some(vec![
        LinuxSeccompFilterFlag::SeccompFilterFlagLog,
        LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow,
    ]));
    let program = Program::compile(&with_flags, Machine::X86_64).unwrap();
    assert_eq!((program.flags, program.unknown), (6, vec!["no_such_call".to_owned()]));
}

fn ops() -> impl Strategy<Value = Op> {
    prop::sample::select(vec![
        Op::ScmpCmpNe,
        Op::ScmpCmpLt,
        Op::ScmpCmpLe,
        Op::ScmpCmpEq,
        Op::ScmpCmpGe,
        Op::ScmpCmpGt,
        Op::ScmpCmpMaskedEq,
    ])
}

/// Values that are equal in one half, or next to each other, often enough to matter.
fn values() -> impl Strategy<Value = u64> {
    let half = prop::sample::select(vec![0_u64, 1, 2, 0x7fff_ffff, 0x8000_0000, 0xffff_fffe, 0xffff_ffff]);
    (half.clone(), half).prop_map(|(high, low)| high << 32 | low)
}

fn holds(arg: &LinuxSeccompArg, args: &[u64; 6]) -> bool {
    let (given, value) = (args[arg.index()], arg.value());
    match arg.op() {
        Op::ScmpCmpNe => given != value,
        Op::ScmpCmpLt => given < value,
        Op::ScmpCmpLe => given <= value,
        Op::ScmpCmpEq => given == value,
        Op::ScmpCmpGe => given >= value,
        Op::ScmpCmpGt => given > value,
        Op::ScmpCmpMaskedEq => given & value == arg.value_two().unwrap(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    /// Random filters on neighbouring and distant numbers say what reading them aloud says.
    #[test]
    fn the_first_matching_rule_decides(
        rules in prop::collection::vec(
            (prop::sample::select(vec!["read", "write", "open", "socket", "io_uring_setup"]), 1_u32..200,
             prop::collection::vec((0_usize..6, ops(), values(), values()), 0..4)), 0..60),
        calls in prop::collection::vec((0_u32..450, prop::array::uniform6(values())), 1..40),
    ) {
        let entries: Vec<_> = rules.iter().map(|(name, errno, args)| {
            entry(name, *errno, args.iter().map(|&(i, op, a, b)| arg(i, op, a, b)).collect())
        }).collect();
        let program = Program::compile(&filter(entries.clone()), Machine::X86_64).unwrap();
        for (nr, args) in calls {
            // Half of the time a number with rules.
            let nr = [nr, 0, 1, 2, 41, 425][nr as usize % 6];
            let expected = entries
                .iter()
                .find(|e| Abi::X86_64.number(&e.names()[0]) == Some(nr) && e.args().iter().flatten().all(|a| holds(a, &args)))
                .map_or(ALLOW, |e| 0x0005_0000 | e.errno_ret().unwrap());
            prop_assert_eq!(ask(&program, Abi::X86_64, nr, &args), expected);
        }
    }
}
