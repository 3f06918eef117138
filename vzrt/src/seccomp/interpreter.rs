//! A machine for classic BPF, to ask a compiled filter what it says.

use super::code::{AND, Instruction, JA, JEQ, JGE, JGT, LD_ABS, RET};

/// One system call, as the kernel shows it to a filter.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Call {
    pub(super) arch: u32,
    pub(super) nr: u32,
    pub(super) args: [u64; 6],
}

impl Call {
    fn word(&self, offset: u32) -> u32 {
        match offset {
            0 => self.nr,
            4 => self.arch,
            16..=60 if offset.is_multiple_of(4) => {
                let half = (offset - 16) / 4;
                let arg = self.args[half as usize / 2];
                (if half.is_multiple_of(2) { arg } else { arg >> 32 }) as u32
            }
            _ => panic!("load outside struct seccomp_data: {offset}"),
        }
    }
}

/// The returned value, and how many instructions it took. Panics where the kernel's checker would refuse the program.
pub(super) fn run(program: &[Instruction], call: &Call) -> (u32, usize) {
    let (mut accumulator, mut at, mut steps) = (0_u32, 0_usize, 0_usize);
    loop {
        let Instruction { code, jt, jf, k } = program[at];
        at += 1;
        steps += 1;
        let mut jump = |holds: bool| at += usize::from(if holds { jt } else { jf });
        match code {
            LD_ABS => accumulator = call.word(k),
            AND => accumulator &= k,
            JA => at += k as usize,
            JEQ => jump(accumulator == k),
            JGT => jump(accumulator > k),
            JGE => jump(accumulator >= k),
            RET => return (k, steps),
            _ => panic!("unknown instruction {code:#x}"),
        }
    }
}
