//! System call filters: an OCI `LinuxSeccomp` compiled to the classic BPF that `seccomp(2)` takes.
//!
//! A pure function; [`load`] is the only effect. One filter answers for every ABI of the machine (a 64-bit kernel also takes 32-bit system
//! calls, under other numbers), and an ABI it does not know ends the process: a list that can be walked around by another door is no list.
//!
//! Only instructions that the kernel can evaluate ahead of time are used to find the answer for a number (loads of `nr` and `arch`, jumps,
//! returns): since Linux 5.11 system calls that are always allowed are found in a bitmap and cost no BPF at all.

mod abi;
mod code;
mod compile;
mod sys;

#[cfg(test)]
mod interpreter;
#[cfg(test)]
mod tests;

pub use abi::Machine;
pub(crate) use abi::{Width, names_call};
pub use code::Instruction;
pub use compile::{CompileError, Program};
pub use sys::{LoadError, load};
