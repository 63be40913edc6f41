//! From an eBPF program for cgroup devices to a term: what it returns, for every access at once.
//!
//! Written from the kernel's Documentation/bpf/standardization/instruction-set.rst, for what device programs are made
//! of: operations and comparisons of 32 bits, loads from the context, jumps forward.

use libc::{BPF_ALU, BPF_AND, BPF_JEQ, BPF_JMP, BPF_K, BPF_LDX, BPF_MEM, BPF_RSH, BPF_W, BPF_X};

use crate::ProveError;
use crate::script::{Script, Sort, any, word};

// linux/bpf.h: what classic BPF lacks.
const BPF_JMP32: u32 = 0x06;
const BPF_MOV: u32 = 0xb0;
const BPF_JNE: u32 = 0x50;
const BPF_EXIT: u32 = 0x90;

const REGISTERS: usize = 11;

/// What a register holds.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    /// Nothing that can be read.
    Unknown,
    /// The address of what is asked.
    Context,
    /// A term of 32 bits: the upper half is zero.
    Word(String),
}

type Registers = [Value; REGISTERS];

/// Ways to come to an instruction: the condition of each, and the registers then.
type Arrivals = Vec<(String, Registers)>;

/// `struct bpf_insn`: linux/bpf.h.
struct Instruction {
    at: usize,
    code: u32,
    to: usize,
    from: usize,
    offset: i16,
    value: u32,
}

impl Instruction {
    const fn decode(at: usize, raw: u64) -> Self {
        Self {
            at,
            code: raw as u32 & 0xff,
            to: (raw >> 8 & 0xf) as usize,
            from: (raw >> 12 & 0xf) as usize,
            offset: (raw >> 16) as i16,
            value: (raw >> 32) as u32,
        }
    }

    fn bad(&self, problem: impl Into<String>) -> ProveError {
        ProveError::Program { at: self.at, problem: problem.into() }
    }

    fn word<'a>(&self, registers: &'a Registers, register: usize) -> Result<&'a str, ProveError> {
        match registers.get(register) {
            Some(Value::Word(term)) => Ok(term),
            _ => Err(self.bad(format!("reads r{register}, which holds no number"))),
        }
    }

    /// The instruction after so many others.
    fn target(&self, skipped: i16) -> Result<usize, ProveError> {
        let skipped = usize::try_from(skipped).map_err(|_| self.bad("jumps backward"))?;
        Ok(self.at + 1 + skipped)
    }
}

/// Defines what the program returns in R0, and names it. `context` has the word at an offset of what is asked.
pub(crate) fn define(
    program: &[u64],
    context: &dyn Fn(i16) -> Option<String>,
    script: &mut Script,
) -> Result<String, ProveError> {
    let mut arrivals: Vec<Arrivals> = vec![Vec::new(); program.len()];
    let mut registers = [const { Value::Unknown }; REGISTERS];
    registers[1] = Value::Context;
    // Where the program ends, and what it returns there.
    let mut results: Vec<(String, String)> = Vec::new();
    let outside = |at| move || ProveError::Program { at, problem: "leads out of it".to_owned() };
    arrivals.first_mut().ok_or_else(outside(0))?.push(("true".to_owned(), registers));
    for (at, raw) in program.iter().enumerate() {
        // All jumps go forward: whatever comes here has come.
        let Some((reached, registers)) = merge(&arrivals[at], script) else { continue };
        let instruction = Instruction::decode(at, *raw);
        let mut go = |to: usize, condition: String, registers: Registers| {
            arrivals.get_mut(to).ok_or_else(outside(at)).map(|there| there.push((condition, registers)))
        };
        match branch(&instruction, &registers)? {
            Some((condition, yes)) => {
                go(yes, format!("(and {reached} {condition})"), registers.clone())?;
                go(at + 1, format!("(and {reached} (not {condition}))"), registers)?;
            }
            None if instruction.code == BPF_JMP | BPF_EXIT => {
                results.push((reached, instruction.word(&registers, 0)?.to_owned()));
            }
            None => go(at + 1, reached, changed(&instruction, registers, context)?)?,
        }
    }
    let ((_, last), earlier) = results.split_last().ok_or_else(outside(0))?;
    let choose = |no: String, (reached, yes): &(String, String)| {
        script.define(Sort::Bits(32), format!("(ite {reached} {yes} {no})"))
    };
    Ok(earlier.iter().fold(last.clone(), choose))
}

/// The condition under which an instruction is reached, and the registers then. Exactly one arrival is the real one.
fn merge(arrivals: &Arrivals, script: &mut Script) -> Option<(String, Registers)> {
    let (last, earlier) = arrivals.split_last()?;
    let reached = any(arrivals.iter().map(|(condition, _)| condition.clone()));
    let reached = script.define(Sort::Bool, reached);
    let mut registers = last.1.clone();
    for (condition, other) in earlier {
        for (value, other) in registers.iter_mut().zip(other) {
            *value = match (&*value, other) {
                (same, other) if same == other => continue,
                (Value::Word(no), Value::Word(yes)) => {
                    Value::Word(script.define(Sort::Bits(32), format!("(ite {condition} {yes} {no})")))
                }
                _ => Value::Unknown,
            };
        }
    }
    Some((reached, registers))
}

/// The condition of a conditional jump, and where it leads.
fn branch(instruction: &Instruction, registers: &Registers) -> Result<Option<(String, usize)>, ProveError> {
    const IF_EQUAL: u32 = BPF_JMP32 | BPF_JEQ | BPF_K;
    const IF_NOT_EQUAL: u32 = BPF_JMP32 | BPF_JNE | BPF_K;
    let is_equal = matches!(instruction.code, IF_EQUAL);
    if !is_equal && instruction.code != IF_NOT_EQUAL {
        return Ok(None);
    }
    let equal = format!("(= {} {})", instruction.word(registers, instruction.to)?, word(instruction.value));
    let condition = if is_equal { equal } else { format!("(not {equal})") };
    Ok(Some((condition, instruction.target(instruction.offset)?)))
}

/// The registers after an instruction that computes or loads.
fn changed(
    instruction: &Instruction,
    mut registers: Registers,
    context: &dyn Fn(i16) -> Option<String>,
) -> Result<Registers, ProveError> {
    const LOAD: u32 = BPF_LDX | BPF_MEM | BPF_W;
    const MOVE: u32 = BPF_ALU | BPF_MOV | BPF_K;
    const COPY: u32 = BPF_ALU | BPF_MOV | BPF_X;
    const AND: u32 = BPF_ALU | BPF_AND | BPF_K;
    const SHIFT_RIGHT: u32 = BPF_ALU | BPF_RSH | BPF_K;
    let Instruction { code, to, from, offset, value, .. } = *instruction;
    let operand = |register| instruction.word(&registers, register);
    let result = match code {
        LOAD if registers.get(from) == Some(&Value::Context) => {
            context(offset).ok_or_else(|| instruction.bad(format!("loads from offset {offset} of the context")))?
        }
        MOVE => word(value),
        COPY => operand(from)?.to_owned(),
        AND => format!("(bvand {} {})", operand(to)?, word(value)),
        // Shifts are modulo the width.
        SHIFT_RIGHT => format!("(bvlshr {} {})", operand(to)?, word(value % u32::BITS)),
        _ => return Err(instruction.bad(format!("has the operation {code:#04x}, which no device program compiles to"))),
    };
    let register = registers.get_mut(to).ok_or_else(|| instruction.bad(format!("writes r{to}")))?;
    *register = Value::Word(result);
    Ok(registers)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXIT: u64 = 0x95;
    /// `r0 = 1`
    const ONE: u64 = 0xb4 | 1 << 32;
    /// `if r0 == 1 goto`, over so many.
    const fn jump(over: i16) -> u64 {
        0x16 | (over as u16 as u64) << 16 | 1 << 32
    }

    fn refused(program: &[u64]) -> String {
        define(program, &|_| None, &mut Script::default()).unwrap_err().to_string()
    }

    #[test]
    fn what_the_verifier_would_refuse_is_refused() {
        for (program, problem) in [
            (vec![], "instruction 0 of the program leads out of it"),
            (vec![ONE], "instruction 0 of the program leads out of it"),
            (vec![ONE, jump(5), EXIT], "instruction 1 of the program leads out of it"),
            (vec![ONE, jump(-2), EXIT], "instruction 1 of the program jumps backward"),
            (vec![jump(0), EXIT], "instruction 0 of the program reads r0, which holds no number"),
            (vec![EXIT], "instruction 0 of the program reads r0, which holds no number"),
            (vec![0x1061, EXIT], "instruction 0 of the program loads from offset 0 of the context"),
            (
                vec![0x2061, EXIT],
                "instruction 0 of the program has the operation 0x61, which no device program compiles to",
            ),
            (vec![0x0fb4, EXIT], "instruction 0 of the program writes r15"),
        ] {
            assert_eq!(refused(&program), problem);
        }
    }

    #[test]
    fn where_ways_meet_a_register_is_a_choice() {
        let zero = 0xb4_u64;
        let mut script = Script::default();
        let result = define(&[0x1061, jump(1), zero, EXIT], &|_| Some("asked".to_owned()), &mut script).unwrap();
        assert!(script.text().contains(&format!("(assert (= {result} (ite ")), "{}", script.text());
        assert!(script.text().contains(" asked #x00000000)"), "{}", script.text());
    }
}
