//! From names and arguments to a program.

use std::collections::{BTreeMap, BTreeSet};

use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag, LinuxSeccompOperator, LinuxSyscall,
};
use serde::{Deserialize, Serialize};

use super::abi::{Abi, Machine};
use super::code::{AND, ARCH, Instruction, JEQ, JGE, JGT, LD_ABS, NR, RET, argument, branch};

/// Instructions the kernel takes in one program (`BPF_MAXINSNS`).
const MAX_INSTRUCTIONS: usize = 4096;
/// Largest error number a filter may return (`MAX_ERRNO`); larger ones the kernel would cut.
const MAX_ERRNO: u32 = 4095;
/// `__X32_SYSCALL_BIT`: x86_64 numbers from here are of the x32 ABI, whose tables no one fills in and few kernels have.
const X32: u32 = 0x4000_0000;
/// A debugger skips a system call by setting its number to -1; that is not an x32 number.
const SKIPPED: u32 = u32::MAX;
const ENOSYS: u32 = libc::ENOSYS.unsigned_abs();
/// `SECCOMP_RET_USER_NOTIF` and `SECCOMP_RET_ALLOW`.
const NOTIFY: u32 = 0x7fc0_0000;
const ALLOW: u32 = 0x7fff_0000;
/// `SECCOMP_FILTER_FLAG_NEW_LISTENER`: the system call that loads the filter gives the end where its questions arrive.
const NEW_LISTENER: u32 = 1 << 3;

/// A compiled filter, ready for [`super::load`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// The code.
    pub instructions: Vec<Instruction>,
    /// Flags of `seccomp(SECCOMP_SET_MODE_FILTER)`.
    pub flags: u32,
    /// Names that are a system call on no ABI of this machine; they had no effect. A newer name, another machine's, or a typing error: for
    /// the caller to log.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<String>,
}

/// Why a filter can't be compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// Somebody would have to answer every system call, those with which he answers among them.
    #[error("seccomp action {0} cannot be the default")]
    Default(LinuxSeccompAction),
    /// A flag that is not used here.
    #[error("seccomp flag {0} is not supported")]
    Flag(LinuxSeccompFilterFlag),
    /// Not an error number.
    #[error("seccomp error number {0} is above 4095")]
    Errno(u32),
    /// System calls have six arguments.
    #[error("seccomp rule on argument {0}, the last is 5")]
    Argument(usize),
    /// One for each argument is the most that makes sense.
    #[error("seccomp rule with {0} conditions, the most are 6")]
    Conditions(usize),
    /// More than the kernel takes.
    #[error("seccomp filter of {0} instructions, the kernel takes 4096")]
    TooLong(usize),
}

impl Program {
    /// Compiles `filter` for the ABIs of `machine`.
    ///
    /// `architectures` of the filter narrows them; system calls in an ABI left out kill the process. Of several entries for the same system
    /// call the first whose arguments all match decides.
    ///
    /// # Errors
    /// What this runtime or the kernel can't do; nothing is left out silently.
    pub fn compile(filter: &LinuxSeccomp, machine: Machine) -> Result<Self, CompileError> {
        if filter.default_action() == LinuxSeccompAction::ScmpActNotify {
            return Err(CompileError::Default(filter.default_action()));
        }
        let default = action(filter.default_action(), filter.default_errno_ret())?;
        let entries = filter.syscalls().as_deref().unwrap_or_default();
        let mut code = vec![Instruction::new(RET, LinuxSeccompAction::ScmpActKillProcess.as_u32(None))];
        let [native, compat] = machine.abis();
        for (abi, is_native) in [(compat, false), (native, true)] {
            if filter.architectures().as_ref().is_none_or(|list| abi.is_in(list, is_native)) {
                let section = section(abi, &rules(entries, abi)?, default);
                code = branch(JEQ, abi.audit_arch(), &section, &code);
            }
        }
        code.insert(0, Instruction::new(LD_ABS, ARCH));
        if code.len() > MAX_INSTRUCTIONS {
            return Err(CompileError::TooLong(code.len()));
        }
        let asks = entries.iter().any(|entry| entry.action() == LinuxSeccompAction::ScmpActNotify);
        let flags = flags(filter)? | if asks { NEW_LISTENER } else { 0 };
        Ok(Self { instructions: code, flags, unknown: unknown(entries, machine) })
    }

    /// Whether loading it gives a listener, to whom some system calls are left.
    #[must_use]
    pub fn asks(&self) -> bool {
        self.flags & NEW_LISTENER != 0
    }

    /// The same for processes whose questions nobody would answer: what would be asked is allowed.
    #[must_use]
    pub fn without_questions(&self) -> Self {
        let answered = |i: &Instruction| match i {
            Instruction { code: RET, k: NOTIFY, .. } => Instruction::new(RET, ALLOW),
            other => *other,
        };
        let instructions = self.instructions.iter().map(answered).collect();
        Self { instructions, flags: self.flags & !NEW_LISTENER, unknown: self.unknown.clone() }
    }
}

/// What to do with a system call number: rules in order, the first match wins, ended by one without conditions (the default, if need be).
type Rules = Vec<Rule>;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    conditions: Vec<LinuxSeccompArg>,
    ret: u32,
}

fn rules(entries: &[LinuxSyscall], abi: Abi) -> Result<BTreeMap<u32, Rules>, CompileError> {
    let mut rules: BTreeMap<u32, Rules> = BTreeMap::new();
    for entry in entries {
        let ret = action(entry.action(), entry.errno_ret())?;
        let conditions = entry.args().clone().unwrap_or_default();
        if let Some(arg) = conditions.iter().find(|arg| arg.index() > 5) {
            return Err(CompileError::Argument(arg.index()));
        }
        if conditions.len() > 6 {
            return Err(CompileError::Conditions(conditions.len()));
        }
        for number in entry.names().iter().filter_map(|name| abi.number(name)) {
            rules.entry(number).or_default().push(Rule { conditions: conditions.clone(), ret });
        }
    }
    Ok(rules)
}

/// The code for one ABI: load the number, find its range by binary search.
fn section(abi: Abi, rules: &BTreeMap<u32, Rules>, default: u32) -> Vec<Instruction> {
    let leaf = |ret| vec![Instruction::new(RET, ret)];
    let mut starts: BTreeMap<u32, Vec<Instruction>> = BTreeMap::from([(0, leaf(default))]);
    if abi == Abi::X86_64 {
        let no_such_call = LinuxSeccompAction::ScmpActErrno.as_u32(Some(ENOSYS));
        starts.extend([(X32, leaf(no_such_call)), (SKIPPED, leaf(default))]);
    }
    for (&number, rules) in rules {
        starts.insert(number, decide(rules, default));
        starts.entry(number + 1).or_insert_with(|| leaf(default));
    }
    let mut ranges: Vec<(u32, Vec<Instruction>)> = starts.into_iter().collect();
    ranges.dedup_by(|later, earlier| later.1 == earlier.1);
    let mut code = vec![Instruction::new(LD_ABS, NR)];
    code.extend(search(&ranges));
    code
}

/// Binary search for the last range that starts at or below the number in the accumulator.
fn search(ranges: &[(u32, Vec<Instruction>)]) -> Vec<Instruction> {
    match ranges {
        [(_, leaf)] => leaf.clone(),
        _ => {
            let (below, from) = ranges.split_at(ranges.len() / 2);
            branch(JGE, from[0].0, &search(from), &search(below))
        }
    }
}

/// The answer for one number: a block per rule; a condition that fails jumps to the end of its block, where the next one starts.
fn decide(rules: &Rules, default: u32) -> Vec<Instruction> {
    let mut code = Vec::new();
    let mut loaded: Vec<Instruction> = Vec::new();
    for rule in rules {
        let mut block = vec![Instruction::new(RET, rule.ret)];
        for condition in rule.conditions.iter().rev() {
            let failing = u8::try_from(block.len()).expect("checked: six conditions of six instructions at most");
            block = compare(condition, failing).into_iter().chain(block).collect();
        }
        let loads = block.iter().take_while(|i| matches!(i.code, LD_ABS | AND)).copied().collect::<Vec<_>>();
        // A list of values for one argument loads it once. The value is still in the accumulator only if nothing else was loaded since.
        let shared = if !loads.is_empty() && loads == loaded { loads.len() } else { 0 };
        code.extend_from_slice(&block[shared..]);
        loaded = if block.len() == loads.len() + 2 { loads } else { Vec::new() };
    }
    code.push(Instruction::new(RET, default));
    code
}

/// Falls through to its end if the condition holds, else lands `failing` instructions after it.
///
/// Arguments have 64 bits and the accumulator 32: the upper halves decide, unless they are equal.
fn compare(arg: &LinuxSeccompArg, failing: u8) -> Vec<Instruction> {
    let (lower, upper) = argument(u32::try_from(arg.index()).expect("checked: at most 5"));
    let value = halves(arg.value());
    let load = |offset| Instruction::new(LD_ABS, offset);
    let equal = |passing_upper, then, otherwise| {
        let high = Instruction::jump(JEQ, value.1, 0, passing_upper);
        vec![load(upper), high, load(lower), Instruction::jump(JEQ, value.0, then, otherwise)]
    };
    // `greater` and `smaller` are where to go when the upper half alone decides, `then` and `otherwise` when the lower half does.
    let order = |code, greater, smaller, then, otherwise| {
        let high = [Instruction::jump(JGT, value.1, greater, 0), Instruction::jump(JEQ, value.1, 0, smaller)];
        vec![load(upper), high[0], high[1], load(lower), Instruction::jump(code, value.0, then, otherwise)]
    };
    match arg.op() {
        LinuxSeccompOperator::ScmpCmpEq => equal(2 + failing, 0, failing),
        LinuxSeccompOperator::ScmpCmpNe => equal(2, failing, 0),
        LinuxSeccompOperator::ScmpCmpGe => order(JGE, 3, 2 + failing, 0, failing),
        LinuxSeccompOperator::ScmpCmpGt => order(JGT, 3, 2 + failing, 0, failing),
        LinuxSeccompOperator::ScmpCmpLt => order(JGE, 3 + failing, 2, failing, 0),
        LinuxSeccompOperator::ScmpCmpLe => order(JGT, 3 + failing, 2, failing, 0),
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            // The OCI spec has the mask in `value` and what to compare with in `valueTwo`.
            let (mask, wanted) = (value, halves(arg.value_two().unwrap_or_default()));
            let low = [load(lower), Instruction::new(AND, mask.0), Instruction::jump(JEQ, wanted.0, 0, failing)];
            let high = [load(upper), Instruction::new(AND, mask.1), Instruction::jump(JEQ, wanted.1, 0, 3 + failing)];
            // An `int`: the upper half is not looked at.
            if (mask.1, wanted.1) == (0, 0) { low.to_vec() } else { [high, low].concat() }
        }
    }
}

/// Lower and upper half.
fn halves(value: u64) -> (u32, u32) {
    ((value & 0xffff_ffff) as u32, (value >> 32) as u32)
}

/// The kernel's return value for an action.
fn action(action: LinuxSeccompAction, errno: Option<u32>) -> Result<u32, CompileError> {
    match action {
        LinuxSeccompAction::ScmpActErrno | LinuxSeccompAction::ScmpActTrace => match errno {
            Some(errno) if errno > MAX_ERRNO => Err(CompileError::Errno(errno)),
            _ => Ok(action.as_u32(errno)),
        },
        LinuxSeccompAction::ScmpActKill
        | LinuxSeccompAction::ScmpActKillThread
        | LinuxSeccompAction::ScmpActKillProcess
        | LinuxSeccompAction::ScmpActTrap
        | LinuxSeccompAction::ScmpActLog
        | LinuxSeccompAction::ScmpActNotify
        | LinuxSeccompAction::ScmpActAllow => Ok(action.as_u32(None)),
    }
}

/// `SECCOMP_FILTER_FLAG_*` of linux/seccomp.h.
fn flags(filter: &LinuxSeccomp) -> Result<u32, CompileError> {
    filter.flags().iter().flatten().try_fold(0, |flags, &flag| match flag {
        LinuxSeccompFilterFlag::SeccompFilterFlagTsync => Ok(flags | 1),
        LinuxSeccompFilterFlag::SeccompFilterFlagLog => Ok(flags | 1 << 1),
        LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => Ok(flags | 1 << 2),
        LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => Err(CompileError::Flag(flag)),
    })
}

fn unknown(entries: &[LinuxSyscall], machine: Machine) -> Vec<String> {
    let names: BTreeSet<&String> = entries.iter().flat_map(LinuxSyscall::names).collect();
    let unknown = |name: &&String| machine.abis().iter().all(|abi| abi.number(name).is_none());
    names.into_iter().filter(unknown).cloned().collect()
}
