//! What a program answers to a call, computed as the kernel does it: for the supervisor that is asked for the answer.

use super::Program;
use super::compile::{
    AND, ARCH, ARGUMENTS, JUMP, JUMP_EQUAL, JUMP_GREATER, JUMP_GREATER_OR_EQUAL, LOAD, NUMBER, RETURN,
};

/// A system call, as a filter sees it: `struct seccomp_data`, linux/seccomp.h.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The call's number.
    pub number: u32,
    /// `AUDIT_ARCH_*`, by which it was made.
    pub arch: u32,
    /// Its arguments.
    pub arguments: [u64; 6],
}

impl Program {
    /// The word that the program returns for a call. Nothing for a program that is not one of [`Filter::compile`]'s:
    /// one that ends in no return, say.
    ///
    /// [`Filter::compile`]: super::Filter::compile
    #[must_use]
    pub fn answer(&self, call: &Call) -> Option<u32> {
        let (mut at, mut accumulator) = (0usize, 0u32);
        // Every jump goes forward.
        loop {
            let i = self.instructions().get(at)?;
            at += 1;
            let branch = |taken: bool| usize::from(if taken { i.jt } else { i.jf });
            match i.code {
                LOAD => {
                    accumulator = match i.k {
                        NUMBER => call.number,
                        ARCH => call.arch,
                        offset => {
                            let argument = offset.checked_sub(ARGUMENTS)? / 8;
                            let argument = call.arguments.get(argument as usize)?;
                            if offset % 8 == 0 { *argument as u32 } else { (argument >> 32) as u32 }
                        }
                    };
                }
                AND => accumulator &= i.k,
                JUMP => at = at.checked_add(i.k as usize)?,
                JUMP_EQUAL => at += branch(accumulator == i.k),
                JUMP_GREATER => at += branch(accumulator > i.k),
                JUMP_GREATER_OR_EQUAL => at += branch(accumulator >= i.k),
                RETURN => return Some(i.k),
                _ => return None,
            }
        }
    }
}
