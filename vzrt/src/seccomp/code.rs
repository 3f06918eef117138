//! Classic BPF, as much of it as a filter needs.

use serde::{Deserialize, Serialize};

/// One instruction, laid out as the kernel's `struct sock_filter`. Written down it is one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "u64", from = "u64")]
#[repr(C)]
pub struct Instruction {
    /// What to do: class, size or operation, source.
    pub code: u16,
    /// How many instructions to skip if a comparison holds.
    pub jt: u8,
    /// How many to skip if it does not.
    pub jf: u8,
    /// The constant: an offset, a value to compare with, a distance, a return value.
    pub k: u32,
}

impl From<Instruction> for u64 {
    fn from(Instruction { code, jt, jf, k }: Instruction) -> Self {
        Self::from(code) << 48 | Self::from(jt) << 40 | Self::from(jf) << 32 | Self::from(k)
    }
}

impl From<u64> for Instruction {
    fn from(number: u64) -> Self {
        Self { code: (number >> 48) as u16, jt: (number >> 40) as u8, jf: (number >> 32) as u8, k: number as u32 }
    }
}

pub(super) const LD_ABS: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
pub(super) const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
pub(super) const JA: u16 = 0x05; // BPF_JMP | BPF_JA
pub(super) const JEQ: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
pub(super) const JGT: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
pub(super) const JGE: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
pub(super) const RET: u16 = 0x06; // BPF_RET | BPF_K

/// Offsets in `struct seccomp_data`.
pub(super) const NR: u32 = 0;
pub(super) const ARCH: u32 = 4;

/// The offsets of the lower and upper half of an argument. Both machines are little-endian.
pub(super) const fn argument(index: u32) -> (u32, u32) {
    (16 + 8 * index, 20 + 8 * index)
}

impl Instruction {
    pub(super) const fn new(code: u16, k: u32) -> Self {
        Self { code, jt: 0, jf: 0, k }
    }

    pub(super) const fn jump(code: u16, k: u32, jt: u8, jf: u8) -> Self {
        Self { code, jt, jf, k }
    }
}

/// `then` if the comparison of the accumulator with `k` holds, else `otherwise`. Conditional jumps reach 255 instructions; past that, a
/// long jump stands in between.
pub(super) fn branch(code: u16, k: u32, then: &[Instruction], otherwise: &[Instruction]) -> Vec<Instruction> {
    let mut out = match u8::try_from(otherwise.len()) {
        Ok(distance) => vec![Instruction::jump(code, k, distance, 0)],
        Err(_) => {
            let distance = u32::try_from(otherwise.len()).expect("a program is shorter than 2^32 instructions");
            vec![Instruction::jump(code, k, 0, 1), Instruction::new(JA, distance)]
        }
    };
    out.extend_from_slice(otherwise);
    out.extend_from_slice(then);
    out
}
