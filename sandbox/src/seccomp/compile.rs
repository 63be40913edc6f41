//! From a [`Filter`] to the BPF program that the kernel runs.
//!
//! The program checks the architecture, then finds the call by binary search over ranges of
//! neighbouring numbers that have the same answer. Answers that depend on no argument are a
//! single `ret`, so the kernel's allow bitmap (Linux 5.11, commit 8e01b51a31a1) serves them
//! without running the program at all.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::{Action, Arch, Condition, Filter, Rule, Test};

/// Largest program that the kernel takes: `BPF_MAXINSNS`, linux/bpf_common.h.
const MAX_INSTRUCTIONS: usize = 4096;

// Instruction codes: linux/bpf_common.h.
pub(super) const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
pub(super) const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
pub(super) const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
pub(super) const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
pub(super) const JUMP_GREATER: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
pub(super) const JUMP_GREATER_OR_EQUAL: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
pub(super) const RETURN: u16 = 0x06; // BPF_RET | BPF_K

// Offsets into struct seccomp_data, linux/seccomp.h.
pub(super) const NUMBER: u32 = 0;
pub(super) const ARCH: u32 = 4;
pub(super) const ARGUMENTS: u32 = 16;

/// `__X32_SYSCALL_BIT`: x32 calls share x86_64's `AUDIT_ARCH` and are told apart by this bit.
const X32_BIT: u32 = 0x4000_0000;

/// Why a filter cannot be loaded.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum CompileError {
    /// The kernel takes no program of this size.
    #[error("the seccomp filter compiles to {0} instructions; the kernel takes at most {MAX_INSTRUCTIONS}")]
    TooLarge(usize),
}

/// One classic BPF instruction: `struct sock_filter`, linux/filter.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// How many instructions to skip where a comparison is true.
    pub jt: u8,
    /// And where it is false.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

impl Instruction {
    const fn new(code: u16, k: u32) -> Self {
        Self { code, jt: 0, jf: 0, k }
    }

    const fn branch(code: u16, k: u32, jt: u8, jf: u8) -> Self {
        Self { code, jt, jf, k }
    }
}

/// A compiled filter, ready for `seccomp(2)`.
///
/// Serialized as a hexadecimal string of `struct sock_filter`s in host byte order.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Program(Vec<Instruction>);

/// `SECCOMP_RET_USER_NOTIF`, linux/seccomp.h. The kernel takes no notice of its lower half, in which a program has
/// the errno that the supervisor answers.
const NOTIFY: u32 = 0x7fc0_0000;

/// The part of a program's answer that says what is done; the rest is an errno, say.
const ACTION_BITS: u32 = 0xffff_0000;

/// The answer to a call for a listener, as the kernel gives it where there is one: seccomp(2).
const NO_LISTENER: Action = Action::Errno(libc::EBUSY as u16);

/// Rules of `seccomp` that let no call through that makes a listener.
fn without_listeners(rules: &[Rule], default: Action) -> Vec<Rule> {
    let flag = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER as u32;
    let listener = [Condition::int(0, libc::SECCOMP_SET_MODE_FILTER), Condition::bits(1, flag, flag)];
    let refuse = |conditions: &[Condition]| Rule { conditions: [conditions, &listener].concat(), action: NO_LISTENER };
    let mut guarded = Vec::new();
    for rule in rules {
        guarded.extend(rule.action.allows().then(|| refuse(&rule.conditions)));
        guarded.push(rule.clone());
    }
    guarded.extend(default.allows().then(|| refuse(&[])));
    guarded
}

impl Program {
    /// The errno that a word stands for which the program has answered to a call that is to be explained.
    #[must_use]
    pub const fn explained_errno(word: u32) -> Option<u16> {
        if word & ACTION_BITS == NOTIFY { Some(word as u16) } else { None }
    }

    /// Whether it asks a supervisor for the answer to any call.
    #[must_use]
    pub fn explains(&self) -> bool {
        self.0.iter().any(|i| i.code == RETURN && Self::explained_errno(i.k).is_some())
    }

    /// The same decision where there is no supervisor: the kernel gives the errnos itself.
    #[must_use]
    pub fn unexplained(&self) -> Self {
        let plain = |i: &Instruction| match Self::explained_errno(i.k) {
            Some(errno) if i.code == RETURN => Instruction { k: Action::Errno(errno).word(), ..*i },
            Some(_) | None => *i,
        };
        Self(self.0.iter().map(plain).collect())
    }

    /// How many instructions the kernel will check and keep.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a compiled program is never empty")]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// The instructions, in order.
    #[must_use]
    pub fn instructions(&self) -> &[Instruction] {
        &self.0
    }
}

#[cfg(test)]
impl Program {
    /// Of another compiler's instructions.
    pub(super) const fn of(instructions: Vec<Instruction>) -> Self {
        Self(instructions)
    }
}

impl From<Program> for String {
    fn from(program: Program) -> Self {
        let bits =
            |i: &Instruction| u64::from(i.code) << 48 | u64::from(i.jt) << 40 | u64::from(i.jf) << 32 | u64::from(i.k);
        // Not by the formatter, which takes longer than the compiler.
        let digits = |bits: u64| -> [u8; 16] {
            std::array::from_fn(|at| match (bits >> (60 - 4 * at)) as u8 & 0xf {
                digit @ 0..10 => b'0' + digit,
                digit => b'a' - 10 + digit,
            })
        };
        let text: Vec<u8> = program.0.iter().flat_map(|i| digits(bits(i))).collect();
        Self::from_utf8(text).unwrap_or_default()
    }
}

impl TryFrom<String> for Program {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        const BAD: &str = "expected 1 to 4096 BPF instructions of 16 hexadecimal digits each";
        let (chunks, rest) = text.as_bytes().as_chunks::<16>();
        if !rest.is_empty() || chunks.is_empty() || chunks.len() > MAX_INSTRUCTIONS {
            return Err(BAD);
        }
        let instruction = |chunk: &[u8; 16]| {
            let mut bits = 0;
            for byte in chunk {
                bits = bits << 4 | u64::from(char::from(*byte).to_digit(16).ok_or(BAD)?);
            }
            Ok(Instruction {
                code: (bits >> 48) as u16,
                jt: (bits >> 40) as u8,
                jf: (bits >> 32) as u8,
                k: bits as u32,
            })
        };
        chunks.iter().map(instruction).collect::<Result<_, _>>().map(Self)
    }
}

impl Filter {
    /// Compiles to one program with the meaning of [`Filter::decide`].
    ///
    /// # Errors
    /// The program would be larger than the kernel takes.
    pub fn compile(&self) -> Result<Program, CompileError> {
        self.compile_with(self.rules(), &|_, action| action.word())
    }

    /// The same, but a supervisor is asked for the answer to each call that gets an errno, unless it is one of the quiet.
    /// The program says the errno too: [`Program::explained_errno`].
    ///
    /// And no process gets a listener of its own, as long as there is this one (EBUSY) and when it is gone: of two filters
    /// that ask a supervisor the kernel takes the newer, and the holder of its listener can let the call run.
    ///
    /// # Errors
    /// The program would be larger than the kernel takes.
    pub fn compile_explained(&self, quiet: &BTreeSet<u32>) -> Result<Program, CompileError> {
        let seccomp = self.arch().number("seccomp");
        let otherwise = [Rule::always(self.default)];
        let guarded = seccomp.map(|number| without_listeners(self.of(number), self.default));
        let mut rules: BTreeMap<u32, &[Rule]> = self.rules().collect();
        for number in quiet {
            // One that has no rule is among many that have none.
            rules.entry(*number).or_insert(&otherwise);
        }
        rules.extend(seccomp.zip(guarded.as_deref()));
        let is_quiet = |number| quiet.contains(&number);
        self.compile_with(rules.into_iter(), &|number, action| match action {
            NO_LISTENER if number.is_some() && number == seccomp => action.word(),
            Action::Errno(errno) if !number.is_some_and(is_quiet) => NOTIFY | u32::from(errno),
            Action::Errno(_)
            | Action::KillProcess
            | Action::KillThread
            | Action::Trap
            | Action::Log
            | Action::Allow => action.word(),
        })
    }

    /// Compiles these rules, in the order of the calls' numbers. `word` is what the program returns for an answer to a
    /// call, or to calls that have no rule or number here.
    fn compile_with<'a>(
        &self,
        rules: impl Iterator<Item = (u32, &'a [Rule])>,
        word: &dyn Fn(Option<u32>, Action) -> u32,
    ) -> Result<Program, CompileError> {
        let foreign = Instruction::new(RETURN, word(None, self.foreign()));
        let mut program = vec![
            Instruction::new(LOAD, ARCH),
            Instruction::branch(JUMP_EQUAL, self.arch().audit(), 1, 0),
            foreign,
            Instruction::new(LOAD, NUMBER),
        ];
        if self.arch() == Arch::X86_64 {
            program.push(Instruction::branch(JUMP_GREATER_OR_EQUAL, X32_BIT, 0, 1));
            program.push(foreign);
        }
        search(&leaves(rules, self.default(), word), &mut program);
        if program.len() > MAX_INSTRUCTIONS {
            return Err(CompileError::TooLarge(program.len()));
        }
        Ok(Program(program))
    }
}

/// All call numbers in order, cut into ranges; each range's code ends in returns.
fn leaves<'a>(
    rules: impl Iterator<Item = (u32, &'a [Rule])>,
    default: Action,
    word: &dyn Fn(Option<u32>, Action) -> u32,
) -> Vec<(Range<u32>, Vec<Instruction>)> {
    let mut leaves: Vec<(Range<u32>, Vec<Instruction>)> = Vec::new();
    let mut push = |range: Range<u32>, code: &[Instruction]| match leaves.last_mut() {
        _ if range.is_empty() => {}
        Some((last, same)) if same == code => last.end = range.end,
        _ => leaves.push((range, code.to_vec())),
    };
    let otherwise = [Instruction::new(RETURN, word(None, default))];
    let mut next = 0;
    for (number, rules) in rules {
        push(next..number, &otherwise);
        let word = |action| word(Some(number), action);
        match rules {
            // Most are like this.
            [Rule { conditions, action }, ..] if conditions.is_empty() => {
                push(number..number + 1, &[Instruction::new(RETURN, word(*action))]);
            }
            _ => push(number..number + 1, &answer(rules, default, &word)),
        }
        next = number + 1;
    }
    push(next..u32::MAX, &otherwise);
    leaves
}

/// Appends a binary search for the leaf of the loaded number.
fn search(leaves: &[(Range<u32>, Vec<Instruction>)], program: &mut Vec<Instruction>) {
    match leaves {
        [] => {}
        [(_, code)] => program.extend(code),
        _ => {
            let (lower, upper) = leaves.split_at(leaves.len() / 2);
            let pivot = upper[0].0.start;
            let mut below = Vec::new();
            search(lower, &mut below);
            match u8::try_from(below.len()) {
                Ok(distance) => program.push(Instruction::branch(JUMP_GREATER_OR_EQUAL, pivot, distance, 0)),
                // A conditional jump reaches 255 instructions; an unconditional one goes further.
                Err(_) => {
                    program.push(Instruction::branch(JUMP_GREATER_OR_EQUAL, pivot, 0, 1));
                    program.push(Instruction::new(JUMP, below.len() as u32));
                }
            }
            program.append(&mut below);
            search(upper, program);
        }
    }
}

/// The code for one call: each rule in turn, then the default.
fn answer(rules: &[Rule], default: Action, word: &dyn Fn(Action) -> u32) -> Vec<Instruction> {
    let mut code = Vec::new();
    for rule in rules {
        code.append(&mut attempt(rule, word(rule.action)));
        if rule.conditions.is_empty() {
            return code;
        }
    }
    code.push(Instruction::new(RETURN, word(default)));
    code
}

/// Where a comparison goes: on to the next one, or out of the rule.
#[derive(Clone, Copy)]
enum To {
    /// So many instructions further.
    Skip(u8),
    /// Behind the rule's `ret`.
    Fail,
}

/// One rule: falls out behind its end when a condition does not hold.
fn attempt(rule: &Rule, word: u32) -> Vec<Instruction> {
    let mut code: Vec<(Instruction, To, To)> = Vec::new();
    for condition in &rule.conditions {
        compare(*condition, &mut code);
    }
    code.push((Instruction::new(RETURN, word), To::Skip(0), To::Skip(0)));
    let length = code.len();
    let resolve = |at: usize, to: To| match to {
        To::Skip(distance) => distance,
        // Conditions are at most a few, so a rule is far shorter than 255 instructions; `oci`
        // refuses longer ones.
        To::Fail => (length - at - 1) as u8,
    };
    code.into_iter()
        .enumerate()
        .map(|(at, (i, jt, jf))| Instruction { jt: resolve(at, jt), jf: resolve(at, jf), ..i })
        .collect()
}

/// Compares one 64-bit argument as two halves: BPF's accumulator has 32 bits.
fn compare(condition: Condition, code: &mut Vec<(Instruction, To, To)>) {
    use To::{Fail, Skip};
    // Both architectures are little endian: the low half comes first.
    let low = ARGUMENTS + 8 * u32::from(condition.argument);
    let halves = |value: u64| ((value >> 32) as u32, value as u32);
    let load = |code: &mut Vec<_>, at| code.push((Instruction::new(LOAD, at), Skip(0), Skip(0)));
    let jump = |code: &mut Vec<_>, op, k, jt, jf| code.push((Instruction::new(op, k), jt, jf));
    match condition.test {
        Test::Equal { mask, value } => {
            let ((mask_high, mask_low), (high_value, low_value)) = (halves(mask), halves(value));
            for (at, mask, value) in [(low + 4, mask_high, high_value), (low, mask_low, low_value)] {
                if mask == 0 && value == 0 {
                    continue;
                }
                load(code, at);
                if mask != u32::MAX {
                    code.push((Instruction::new(AND, mask), Skip(0), Skip(0)));
                }
                jump(code, JUMP_EQUAL, value, Skip(0), Fail);
            }
        }
        Test::NotEqual(value) => {
            let (high_value, low_value) = halves(value);
            load(code, low + 4);
            jump(code, JUMP_EQUAL, high_value, Skip(0), Skip(2));
            load(code, low);
            jump(code, JUMP_EQUAL, low_value, Fail, Skip(0));
        }
        Test::Greater(value) | Test::GreaterOrEqual(value) => {
            let (high_value, low_value) = halves(value);
            let op = if matches!(condition.test, Test::Greater(_)) { JUMP_GREATER } else { JUMP_GREATER_OR_EQUAL };
            load(code, low + 4);
            jump(code, JUMP_GREATER, high_value, Skip(3), Skip(0));
            jump(code, JUMP_EQUAL, high_value, Skip(0), Fail);
            load(code, low);
            jump(code, op, low_value, Skip(0), Fail);
        }
        Test::Less(value) | Test::LessOrEqual(value) => {
            let (high_value, low_value) = halves(value);
            let op = if matches!(condition.test, Test::Less(_)) { JUMP_GREATER_OR_EQUAL } else { JUMP_GREATER };
            load(code, low + 4);
            jump(code, JUMP_GREATER, high_value, Fail, Skip(0));
            jump(code, JUMP_EQUAL, high_value, Skip(0), Skip(2));
            load(code, low);
            jump(code, op, low_value, Fail, Skip(0));
        }
    }
}
