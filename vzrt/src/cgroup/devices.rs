//! Which devices a container may use: a list of rules, compiled into one BPF program on its cgroup2 directory.
//!
//! The last rule that speaks of a device and an access decides, for each of read, write and mknod on its own; what no rule speaks of is
//! refused. That is the meaning the OCI specification took from `devices.allow` and `devices.deny` of cgroup v1, which has no
//! counterpart among the files of cgroup v2 (kernel 4.15 has `BPF_PROG_TYPE_CGROUP_DEVICE` instead). On a hybrid host the program is
//! used as well, not the v1 controller: one meaning, replaced in one step, where `devices.allow` is changed line by line.

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType};

use super::Error;

const MKNOD: u32 = 1; // BPF_DEVCG_ACC_MKNOD
const READ: u32 = 2; // BPF_DEVCG_ACC_READ
const WRITE: u32 = 4; // BPF_DEVCG_ACC_WRITE
const ALL: u32 = MKNOD | READ | WRITE;
const BLOCK: u32 = 1; // BPF_DEVCG_DEV_BLOCK
const CHAR: u32 = 2; // BPF_DEVCG_DEV_CHAR

/// One BPF instruction, as bpf(2) takes it.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Insn {
    pub(super) code: u8,
    /// Destination register in the low four bits, source in the high ones.
    pub(super) regs: u8,
    pub(super) off: i16,
    pub(super) imm: i32,
}

/// A rule with its meaning made plain: `None` is any.
struct Rule {
    allow: bool,
    kind: Option<u32>,
    major: Option<u32>,
    minor: Option<u32>,
    access: u32,
}

/// What a container has without being given anything: the nodes every program expects, and its terminals.
///
/// Not 5:1, the machine's console: a container's `/dev/console` is one of its terminals (136:*). No mknod of anything else: its user
/// namespace refuses that anyway, and systemd takes the refusal well. Overlay whiteouts (0:0) are never asked about (kernel 5.8).
/// `tun` adds `/dev/net/tun`.
#[must_use]
pub fn default_rules(tun: bool) -> Vec<LinuxDeviceCgroup> {
    let nodes = [
        (1, Some(3)), // null
        (1, Some(5)), // zero
        (1, Some(7)), // full
        (1, Some(8)), // random
        (1, Some(9)), // urandom
        (5, Some(0)), // tty
        (5, Some(2)), // ptmx
        (136, None),  // pts/*
    ];
    let tun = tun.then_some((10, Some(200)));
    let allow = nodes
        .into_iter()
        .chain(tun)
        .map(|(major, minor)| rule(true, Some(LinuxDeviceType::C), Some(major), minor, "rwm"));
    std::iter::once(rule(false, Some(LinuxDeviceType::A), None, None, "rwm")).chain(allow).collect()
}

/// One rule; `None` is any.
#[must_use]
pub fn rule(
    allow: bool,
    kind: Option<LinuxDeviceType>,
    major: Option<i64>,
    minor: Option<i64>,
    access: &str,
) -> LinuxDeviceCgroup {
    let mut rule = LinuxDeviceCgroupBuilder::default().allow(allow).access(access);
    if let Some(kind) = kind {
        rule = rule.typ(kind);
    }
    if let Some(major) = major {
        rule = rule.major(major);
    }
    if let Some(minor) = minor {
        rule = rule.minor(minor);
    }
    rule.build().expect("every field of a device rule is optional")
}

/// The program that decides as `rules` say: 1 allows, 0 refuses with EPERM.
pub(super) fn compile(rules: &[LinuxDeviceCgroup]) -> Result<Vec<Insn>, Error> {
    let mut program = vec![
        insn::load(2, 0), // access << 16 | kind
        insn::copy(3, 2),
        insn::and(3, 0xffff),     // r3 = kind
        insn::shift_right(2, 16), // r2 = accesses not yet allowed
        insn::load(4, 4),         // r4 = major
        insn::load(5, 8),         // r5 = minor
    ];
    // From the last rule to the first: a later rule wins, so the first to speak has the last word.
    for rule in rules.iter().rev() {
        let rule = parse(rule)?;
        if rule.access == ALL && rule.kind.is_none() && rule.major.is_none() && rule.minor.is_none() {
            // It speaks of everything: no rule before it can matter.
            program.extend(insn::answer(rule.allow));
            return Ok(program);
        }
        if rule.access != 0 {
            emit(&mut program, &rule);
        }
    }
    program.extend(insn::answer(false));
    Ok(program)
}

/// One rule: skip it unless it speaks of this device; an allowing one strikes its accesses off and allows when none is left, a denying
/// one refuses when one of its accesses is still open.
fn emit(program: &mut Vec<Insn>, rule: &Rule) {
    let tests: Vec<(u8, u32)> = [(3, rule.kind), (4, rule.major), (5, rule.minor)]
        .into_iter()
        .filter_map(|(reg, want)| Some((reg, want?)))
        .collect();
    let verdict = if rule.allow {
        let [set, exit] = insn::answer(true);
        vec![insn::and(2, !rule.access), insn::jump_not_equal(2, 0, 2), set, exit]
    } else {
        let [set, exit] = insn::answer(false);
        vec![insn::jump_any_bit(2, rule.access, 1), insn::jump(2), set, exit]
    };
    for (i, (reg, want)) in tests.iter().enumerate() {
        let rest = tests.len() - i - 1 + verdict.len();
        program.push(insn::jump_not_equal(*reg, *want, i16::try_from(rest).expect("at most six instructions")));
    }
    program.extend(verdict);
}

fn parse(rule: &LinuxDeviceCgroup) -> Result<Rule, Error> {
    let kind = match rule.typ() {
        None | Some(LinuxDeviceType::A) => None,
        Some(LinuxDeviceType::B) => Some(BLOCK),
        Some(LinuxDeviceType::C | LinuxDeviceType::U) => Some(CHAR),
        Some(LinuxDeviceType::P) => return Err(Error::Value { what: "devices.type", value: "p".to_owned() }),
    };
    let number = |what, n: Option<i64>| match n {
        None | Some(-1) => Ok(None),
        Some(n) => u32::try_from(n).map(Some).map_err(|_| Error::Value { what, value: n.to_string() }),
    };
    let mut access = 0;
    for letter in rule.access().as_deref().unwrap_or("rwm").chars() {
        access |= match letter {
            'r' => READ,
            'w' => WRITE,
            'm' => MKNOD,
            other => return Err(Error::Value { what: "devices.access", value: other.to_string() }),
        };
    }
    let major = number("devices.major", rule.major())?;
    let minor = number("devices.minor", rule.minor())?;
    Ok(Rule { allow: rule.allow(), kind, major, minor, access })
}

/// The few instructions used; numbers from `linux/bpf.h` and `linux/bpf_common.h`. Arithmetic and jumps are the 32-bit classes: the
/// fields of the context are 32 bits wide, and `imm` of a 64-bit comparison would be sign-extended (jumps since kernel 5.1).
mod insn {
    use super::Insn;

    fn new(code: u8, dst: u8, src: u8, off: i16, imm: u32) -> Insn {
        Insn { code, regs: src << 4 | dst, off, imm: imm as i32 }
    }
    /// `dst = *(u32 *)(r1 + off)`, r1 being the context.
    pub(super) fn load(dst: u8, off: i16) -> Insn {
        new(0x61, dst, 1, off, 0)
    }
    pub(super) fn copy(dst: u8, src: u8) -> Insn {
        new(0xbc, dst, src, 0, 0)
    }
    pub(super) fn and(dst: u8, mask: u32) -> Insn {
        new(0x54, dst, 0, 0, mask)
    }
    pub(super) fn shift_right(dst: u8, bits: u32) -> Insn {
        new(0x74, dst, 0, 0, bits)
    }
    pub(super) fn jump(skip: i16) -> Insn {
        new(0x05, 0, 0, skip, 0)
    }
    pub(super) fn jump_not_equal(reg: u8, value: u32, skip: i16) -> Insn {
        new(0x56, reg, 0, skip, value)
    }
    pub(super) fn jump_any_bit(reg: u8, mask: u32, skip: i16) -> Insn {
        new(0x46, reg, 0, skip, mask)
    }
    /// `return value`.
    pub(super) fn answer(allow: bool) -> [Insn; 2] {
        [new(0xb4, 0, 0, 0, u32::from(allow)), new(0x95, 0, 0, 0, 0)]
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

    use proptest::prelude::*;

    use super::*;

    /// A machine for the instructions above, which refuses all others.
    fn run(program: &[Insn], kind: u32, major: u32, minor: u32, access: u32) -> bool {
        let context = [access << 16 | kind, major, minor];
        let mut r = [0u32; 11];
        let mut pc = 0usize;
        for _ in 0..program.len() {
            let i = program[pc];
            let (dst, src, imm) = (usize::from(i.regs & 15), usize::from(i.regs >> 4), i.imm as u32);
            let taken = match i.code {
                0x61 => {
                    assert_eq!(src, 1);
                    r[dst] = context[usize::try_from(i.off).unwrap() / 4];
                    false
                }
                0xbc => {
                    r[dst] = r[src];
                    false
                }
                0xb4 => {
                    r[dst] = imm;
                    false
                }
                0x54 => {
                    r[dst] &= imm;
                    false
                }
                0x74 => {
                    r[dst] >>= imm;
                    false
                }
                0x05 => true,
                0x56 => r[dst] != imm,
                0x46 => r[dst] & imm != 0,
                0x95 => return r[0] == 1,
                other => panic!("instruction {other:#x}"),
            };
            pc += 1 + if taken { usize::try_from(i.off).unwrap() } else { 0 };
        }
        panic!("the program does not end");
    }

    /// The meaning in its simplest words: for each access, the last rule that speaks of it.
    fn decide(rules: &[LinuxDeviceCgroup], kind: u32, major: u32, minor: u32, access: u32) -> bool {
        [MKNOD, READ, WRITE].into_iter().filter(|bit| access & bit != 0).all(|bit| {
            let speaks = |rule: &&LinuxDeviceCgroup| {
                let r = parse(rule).unwrap();
                r.access & bit != 0
                    && r.kind.is_none_or(|k| k == kind)
                    && r.major.is_none_or(|m| m == major)
                    && r.minor.is_none_or(|m| m == minor)
            };
            rules.iter().rev().find(speaks).is_some_and(LinuxDeviceCgroup::allow)
        })
    }

    fn any_rule() -> impl Strategy<Value = LinuxDeviceCgroup> {
        let kind = prop::sample::select(vec![
            None,
            Some(LinuxDeviceType::A),
            Some(LinuxDeviceType::B),
            Some(LinuxDeviceType::C),
        ]);
        let number =
            || prop::sample::select(vec![None, Some(-1), Some(0), Some(1), Some(2), Some(i64::from(u32::MAX))]);
        let access = prop::sample::select(vec!["", "r", "w", "m", "rw", "rm", "wm", "rwm"]);
        (any::<bool>(), kind, number(), number(), access).prop_map(|(a, k, ma, mi, ac)| rule(a, k, ma, mi, ac))
    }

    proptest! {
        #[test]
        fn the_program_decides_as_the_last_rule_that_speaks(
            rules in prop::collection::vec(any_rule(), 0..12),
            kind in 1u32..=2,
            major in prop::sample::select(vec![0, 1, 2, 3, u32::MAX]),
            minor in prop::sample::select(vec![0, 1, 2, 3, u32::MAX]),
            access in 1u32..=7,
        ) {
            let program = compile(&rules).unwrap();
            prop_assert_eq!(run(&program, kind, major, minor, access), decide(&rules, kind, major, minor, access));
        }
    }

    #[test]
    fn the_default_list_has_the_usual_nodes_and_nothing_of_the_host() {
        let program = compile(&default_rules(false)).unwrap();
        for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2), (136, 0), (136, 1023)] {
            assert!(run(&program, CHAR, major, minor, READ | WRITE), "{major}:{minor}");
        }
        // mem, kmsg, console, tun, kvm, loop-control, mapper, fuse
        for (major, minor) in [(1, 1), (1, 11), (5, 1), (10, 200), (10, 232), (10, 237), (10, 236), (10, 229)] {
            assert!(!run(&program, CHAR, major, minor, READ), "{major}:{minor}");
            assert!(!run(&program, CHAR, major, minor, MKNOD), "{major}:{minor}");
        }
        assert!(!run(&program, BLOCK, 254, 0, READ));
        assert!(!run(&program, BLOCK, 1, 3, READ), "a block device with the numbers of null is not null");
        assert!(run(&compile(&default_rules(true)).unwrap(), CHAR, 10, 200, READ | WRITE));
    }

    #[test]
    fn two_rules_together_allow_what_neither_allows_alone() {
        let rules = [
            rule(true, Some(LinuxDeviceType::B), Some(8), Some(0), "r"),
            rule(true, Some(LinuxDeviceType::B), Some(8), None, "w"),
        ];
        let program = compile(&rules).unwrap();
        assert!(run(&program, BLOCK, 8, 0, READ | WRITE));
        assert!(!run(&program, BLOCK, 8, 1, READ | WRITE));
        assert!(!run(&program, BLOCK, 8, 0, MKNOD));
    }

    #[test]
    fn no_rules_allow_nothing() {
        assert!(!run(&compile(&[]).unwrap(), CHAR, 1, 3, READ));
    }

    #[test]
    fn rules_that_make_no_sense_are_refused() {
        for bad in [
            rule(true, Some(LinuxDeviceType::P), None, None, "r"),
            rule(true, None, Some(-2), None, "r"),
            rule(true, None, None, Some(1 << 32), "r"),
            rule(true, None, None, None, "x"),
        ] {
            assert!(matches!(compile(std::slice::from_ref(&bad)), Err(Error::Value { .. })), "{bad:?}");
        }
    }
}
