//! From a classic BPF program to a term: what it answers, for every call at once.
//!
//! Written from the kernel's Documentation/networking/filter.rst (the instructions) and
//! Documentation/userspace-api/seccomp_filter.rst (what is loaded and returned). Nothing is run: the term of an
//! instruction is what the program answers from there on.

use std::collections::{BTreeMap, BTreeSet};

use hardened_sandbox::seccomp::Instruction;
use libc::{BPF_ABS, BPF_ALU, BPF_AND, BPF_JA, BPF_JEQ, BPF_JGE, BPF_JGT, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W};

use crate::ProveError;
use crate::call::{ARCH, NUMBER, high, low};
use crate::script::{Script, Sort, word};

/// What an instruction does, given what the accumulator holds.
enum Step {
    Return(u32),
    /// Goes on at an instruction, with this in the accumulator.
    Go(usize, String),
    /// Goes on at the first instruction if the condition holds, else at the second.
    Branch(String, usize, usize),
}

/// Defines what the program answers, and names it.
pub(crate) fn define(program: &[Instruction], script: &mut Script) -> Result<String, ProveError> {
    // What the accumulator can hold at each instruction. All jumps go forward, so it is known once its turn comes. The
    // accumulator is zero at first.
    let mut held: Vec<BTreeSet<String>> = vec![BTreeSet::new(); program.len()];
    let outside = |at| move || bad(at, "leads out of it".to_owned());
    held.first_mut().ok_or_else(outside(0))?.insert(word(0));
    for (at, instruction) in program.iter().enumerate() {
        for accumulator in held[at].clone() {
            let (next, accumulator) = match step(at, instruction, accumulator.clone())? {
                Step::Return(_) => continue,
                Step::Go(to, changed) => (vec![to], changed),
                Step::Branch(_, yes, no) => (vec![yes, no], accumulator),
            };
            for to in next {
                held.get_mut(to).ok_or_else(outside(at))?.insert(accumulator.clone());
            }
        }
    }
    let mut answers: BTreeMap<(usize, String), String> = BTreeMap::new();
    for (at, instruction) in program.iter().enumerate().rev() {
        for accumulator in &held[at] {
            let answer_at = |to: usize, accumulator: &str| {
                answers.get(&(to, accumulator.to_owned())).cloned().ok_or_else(outside(at))
            };
            let answer = match step(at, instruction, accumulator.clone())? {
                Step::Return(value) => word(value),
                Step::Go(to, changed) => answer_at(to, &changed)?,
                Step::Branch(condition, yes, no) => {
                    let (yes, no) = (answer_at(yes, accumulator)?, answer_at(no, accumulator)?);
                    script.define(Sort::Bits(32), format!("(ite {condition} {yes} {no})"))
                }
            };
            answers.insert((at, accumulator.clone()), answer);
        }
    }
    answers.remove(&(0, word(0))).ok_or_else(outside(0))
}

fn step(at: usize, instruction: &Instruction, accumulator: String) -> Result<Step, ProveError> {
    const LOAD: u32 = BPF_LD | BPF_W | BPF_ABS;
    const AND: u32 = BPF_ALU | BPF_AND | BPF_K;
    const JUMP: u32 = BPF_JMP | BPF_JA;
    const IF_EQUAL: u32 = BPF_JMP | BPF_JEQ | BPF_K;
    const IF_GREATER: u32 = BPF_JMP | BPF_JGT | BPF_K;
    const IF_GREATER_OR_EQUAL: u32 = BPF_JMP | BPF_JGE | BPF_K;
    const RETURN: u32 = BPF_RET | BPF_K;
    let Instruction { code, jt, jf, k } = *instruction;
    let next = at + 1;
    let branch = |comparison: &str| {
        let condition = format!("({comparison} {accumulator} {})", word(k));
        Step::Branch(condition, next + usize::from(jt), next + usize::from(jf))
    };
    Ok(match u32::from(code) {
        LOAD => Step::Go(next, loaded(k).ok_or_else(|| bad(at, format!("loads from offset {k} of the call")))?),
        AND => Step::Go(next, format!("(bvand {accumulator} {})", word(k))),
        JUMP => Step::Go(next.saturating_add(k as usize), accumulator),
        IF_EQUAL => branch("="),
        IF_GREATER => branch("bvugt"),
        IF_GREATER_OR_EQUAL => branch("bvuge"),
        RETURN => Step::Return(k),
        _ => return Err(bad(at, format!("has the operation {code:#06x}, which no filter compiles to"))),
    })
}

fn bad(at: usize, problem: String) -> ProveError {
    ProveError::Program { at, problem }
}

/// The word at an offset into `struct seccomp_data` (linux/seccomp.h), of a little-endian machine. (The instruction
/// pointer, at 8, is looked at by no filter.)
fn loaded(offset: u32) -> Option<String> {
    match offset {
        0 => Some(NUMBER.to_owned()),
        4 => Some(ARCH.to_owned()),
        16..64 => {
            let argument = ((offset - 16) / 8) as u8;
            match offset % 8 {
                0 => Some(low(argument)),
                4 => Some(high(argument)),
                _ => None,
            }
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> Instruction {
        Instruction { code: code as u16, jt, jf, k }
    }

    const LOAD: u32 = BPF_LD | BPF_W | BPF_ABS;
    const RETURN: u32 = BPF_RET | BPF_K;

    #[test]
    fn a_branch_is_a_choice_between_what_follows() {
        let program = [
            instruction(LOAD, 0, 0, 20),
            instruction(BPF_ALU | BPF_AND | BPF_K, 0, 0, 0xf),
            instruction(BPF_JMP | BPF_JGT | BPF_K, 1, 0, 7),
            instruction(RETURN, 0, 0, 1),
            instruction(BPF_JMP | BPF_JA, 0, 0, 1),
            // No way leads here.
            instruction(RETURN, 0, 0, 2),
            instruction(RETURN, 0, 0, 3),
        ];
        let mut script = Script::default();
        assert_eq!(define(&program, &mut script).unwrap(), "t0");
        let term = "(ite (bvugt (bvand ((_ extract 63 32) arg0) #x0000000f) #x00000007) #x00000003 #x00000001)";
        assert_eq!(script.text(), format!("(declare-const t0 (_ BitVec 32))\n(assert (= t0 {term}))\n"));
    }

    #[test]
    fn each_way_to_an_instruction_has_its_own_accumulator() {
        let program = [
            instruction(LOAD, 0, 0, 0),
            instruction(BPF_JMP | BPF_JEQ | BPF_K, 1, 0, 1),
            instruction(LOAD, 0, 0, 4),
            instruction(BPF_JMP | BPF_JGE | BPF_K, 0, 1, 9),
            instruction(RETURN, 0, 0, 1),
            instruction(RETURN, 0, 0, 2),
        ];
        let mut script = Script::default();
        assert_eq!(define(&program, &mut script).unwrap(), "t2");
        for of in ["(bvuge arch #x00000009)", "(bvuge number #x00000009)", "(ite (= number #x00000001) t1 t0)"] {
            assert!(script.text().contains(of), "{of}: {}", script.text());
        }
    }

    #[test]
    fn what_is_no_program_has_no_term() {
        for (program, problem) in [
            (vec![], "instruction 0 of the program leads out of it"),
            (vec![instruction(LOAD, 0, 0, 0)], "instruction 0 of the program leads out of it"),
            (vec![instruction(BPF_JMP | BPF_JEQ | BPF_K, 0, 9, 0)], "instruction 0 of the program leads out of it"),
            (vec![instruction(LOAD, 0, 0, 8)], "instruction 0 of the program loads from offset 8 of the call"),
            (vec![instruction(LOAD, 0, 0, 18)], "instruction 0 of the program loads from offset 18 of the call"),
            (vec![instruction(LOAD, 0, 0, 64)], "instruction 0 of the program loads from offset 64 of the call"),
            (
                vec![instruction(0x87, 0, 0, 0)],
                "instruction 0 of the program has the operation 0x0087, which no filter compiles to",
            ),
        ] {
            assert_eq!(define(&program, &mut Script::default()).unwrap_err().to_string(), problem);
        }
    }
}
