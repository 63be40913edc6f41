//! From device rules to the eBPF program by which cgroup v2 keeps them.
//!
//! cgroup v1 has files for device rules; v2 asks a program of type `BPF_PROG_TYPE_CGROUP_DEVICE`
//! at each open and mknod (Documentation/admin-guide/cgroup-v2.rst, "Device controller"), and
//! libcontainer attaches none.

use crate::bundle::DeviceRule;

// Instruction codes: linux/bpf.h and linux/bpf_common.h; ALU and jumps are of 32 bits.
const LOAD_WORD: u8 = 0x61; // BPF_LDX | BPF_MEM | BPF_W
const MOVE: u8 = 0xb4; // BPF_ALU | BPF_MOV | BPF_K
const COPY: u8 = 0xbc; // BPF_ALU | BPF_MOV | BPF_X
const AND: u8 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const SHIFT_RIGHT: u8 = 0x74; // BPF_ALU | BPF_RSH | BPF_K
const JUMP_EQUAL: u8 = 0x16; // BPF_JMP32 | BPF_JEQ | BPF_K
const JUMP_NOT_EQUAL: u8 = 0x56; // BPF_JMP32 | BPF_JNE | BPF_K
const EXIT: u8 = 0x95; // BPF_JMP | BPF_EXIT

// struct bpf_cgroup_dev_ctx, linux/bpf.h: the type in the low half of the first word, and the
// access in its high half; major; minor.
const TYPE_AND_ACCESS: i16 = 0;
const MAJOR: i16 = 4;
const MINOR: i16 = 8;
const BLOCK: i32 = 1; // BPF_DEVCG_DEV_BLOCK
const CHARACTER: i32 = 2; // BPF_DEVCG_DEV_CHAR

/// The letters of an access, and their bits: `BPF_DEVCG_ACC_*`, linux/bpf.h.
const ACCESS: [(char, i32); 3] = [('m', 1), ('r', 2), ('w', 4)];

/// The registers of the program: eBPF calls it with the context in R1.
#[derive(Clone, Copy)]
enum Register {
    Result = 0,
    Context = 1,
    /// What is asked for, and no rule has answered yet.
    Asked = 2,
    Type = 3,
    Major = 4,
    Minor = 5,
}

/// Device rules as a program for `BPF_CGROUP_DEVICE`. Instructions are `struct bpf_insn`s.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceFilter(Vec<u64>);

impl DeviceFilter {
    /// Compiles rules with the meaning that they have on cgroup v1: each kind of access (read,
    /// write, mknod) is answered by the last rule that names the device and that access. What no
    /// rule names is denied.
    #[must_use]
    pub fn compile(rules: &[DeviceRule]) -> Self {
        use Register::{Asked, Context, Major, Minor, Result, Type};
        let mut program = vec![
            load(Asked, Context, TYPE_AND_ACCESS),
            operation(COPY, Type, Asked, 0, 0),
            constant(AND, Type, 0xffff),
            constant(SHIFT_RIGHT, Asked, 16),
            load(Major, Context, MAJOR),
            load(Minor, Context, MINOR),
        ];
        for rule in rules.iter().rev() {
            let access = access(rule);
            let answer = if rule.allow {
                vec![
                    constant(AND, Asked, !access),
                    branch(JUMP_NOT_EQUAL, Asked, 0, 2),
                    constant(MOVE, Result, 1),
                    operation(EXIT, Result, Result, 0, 0),
                ]
            } else {
                vec![
                    operation(COPY, Result, Asked, 0, 0),
                    constant(AND, Result, access),
                    branch(JUMP_EQUAL, Result, 0, 2),
                    constant(MOVE, Result, 0),
                    operation(EXIT, Result, Result, 0, 0),
                ]
            };
            let kind = rule.block.map(|block| if block { BLOCK } else { CHARACTER });
            // A kernel's device numbers have 12 and 20 bits: a larger one is no device's.
            let number = |n: Option<i64>| n.filter(|n| *n >= 0).map(|n| i32::try_from(n).unwrap_or(i32::MAX));
            let tests: Vec<_> = [(Type, kind), (Major, number(rule.major)), (Minor, number(rule.minor))]
                .into_iter()
                .filter_map(|(register, wanted)| Some((register, wanted?)))
                .collect();
            let all = tests.len();
            program.extend(
                tests.into_iter().enumerate().map(|(at, (register, wanted))| {
                    branch(JUMP_NOT_EQUAL, register, wanted, all - at - 1 + answer.len())
                }),
            );
            program.extend(answer);
        }
        program.extend([constant(MOVE, Result, 0), operation(EXIT, Result, Result, 0, 0)]);
        Self(program)
    }

    /// The program, for `BPF_PROG_LOAD`.
    #[must_use]
    pub fn instructions(&self) -> &[u64] {
        &self.0
    }
}

/// Which access a rule is about.
fn access(rule: &DeviceRule) -> i32 {
    ACCESS.iter().filter(|(letter, _)| rule.access.contains(*letter)).fold(0, |bits, (_, bit)| bits | bit)
}

fn load(to: Register, from: Register, offset: i16) -> u64 {
    operation(LOAD_WORD, to, from, offset, 0)
}

fn constant(code: u8, to: Register, value: i32) -> u64 {
    operation(code, to, Register::Result, 0, value)
}

/// Compares, and skips instructions; there are at most nine to skip.
fn branch(code: u8, register: Register, value: i32, skipped: usize) -> u64 {
    operation(code, register, Register::Result, skipped as i16, value)
}

/// `struct bpf_insn` of a little-endian machine, as all are that a filter is made for.
fn operation(code: u8, to: Register, from: Register, offset: i16, value: i32) -> u64 {
    let registers = to as u64 | (from as u64) << 4;
    u64::from(code) | registers << 8 | u64::from(offset as u16) << 16 | u64::from(value as u32) << 32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What is asked of a device: type, major, minor, access.
    type Question = (i32, u32, u32, i32);

    /// Runs a program as the kernel would.
    fn run(filter: &DeviceFilter, (kind, major, minor, asked): Question) -> bool {
        let context = |offset: i16| match offset {
            TYPE_AND_ACCESS => (kind | asked << 16) as u32,
            MAJOR => major,
            MINOR => minor,
            _ => panic!("no such field: {offset}"),
        };
        let mut registers = [0u32; 6];
        let mut at = 0;
        loop {
            let word = filter.instructions()[at];
            let (to, from) = ((word >> 8 & 15) as usize, (word >> 12 & 15) as usize);
            let (offset, value) = ((word >> 16) as i16, (word >> 32) as u32);
            at += 1;
            match word as u8 {
                LOAD_WORD => registers[to] = context(offset),
                MOVE => registers[to] = value,
                COPY => registers[to] = registers[from],
                AND => registers[to] &= value,
                SHIFT_RIGHT => registers[to] >>= value,
                JUMP_EQUAL if registers[to] == value => at += usize::try_from(offset).unwrap(),
                JUMP_NOT_EQUAL if registers[to] != value => at += usize::try_from(offset).unwrap(),
                JUMP_EQUAL | JUMP_NOT_EQUAL => {}
                EXIT => return registers[0] == 1,
                code => panic!("no such instruction: {code:#x}"),
            }
        }
    }

    /// What the rules mean.
    fn means(rules: &[DeviceRule], (kind, major, minor, asked): Question) -> bool {
        let names = |rule: &DeviceRule, bit: i32| {
            let same = rule.block.is_none_or(|block| block == (kind == BLOCK));
            let number = |wanted: Option<i64>, n: u32| wanted.is_none_or(|w| w < 0 || w == i64::from(n));
            same && number(rule.major, major) && number(rule.minor, minor) && access(rule) & bit != 0
        };
        let allowed = |bit| rules.iter().rev().find(|rule| names(rule, bit)).is_some_and(|rule| rule.allow);
        [1, 2, 4].into_iter().filter(|bit| asked & bit != 0).all(allowed)
    }

    prop_compose! {
        fn rules()(rules in proptest::collection::vec((
            any::<bool>(),
            proptest::option::of(any::<bool>()),
            proptest::option::of(-1i64..4),
            proptest::option::of(-1i64..4),
            "r?w?m?",
        ), 0..8)) -> Vec<DeviceRule> {
            rules.into_iter().map(|(allow, block, major, minor, access)| DeviceRule { allow, block, major, minor, access }).collect()
        }
    }

    proptest! {
        #[test]
        fn a_program_answers_as_its_rules_do(
            rules in rules(), kind in 1i32..3, major in 0u32..4, minor in 0u32..4, asked in 1i32..8,
        ) {
            let question = (kind, major, minor, asked);
            prop_assert_eq!(run(&DeviceFilter::compile(&rules), question), means(&rules, question));
        }
    }

    #[test]
    fn what_no_rule_names_is_denied() {
        assert!(!run(&DeviceFilter::compile(&[]), (CHARACTER, 1, 3, 2)));
        let (block, major, minor) = (Some(false), Some(1), Some(3));
        let null = [DeviceRule { allow: true, block, major, minor, access: "rw".to_owned() }];
        assert!(run(&DeviceFilter::compile(&null), (CHARACTER, 1, 3, 6)));
        assert!(!run(&DeviceFilter::compile(&null), (CHARACTER, 1, 3, 7)));
        assert!(!run(&DeviceFilter::compile(&null), (BLOCK, 1, 3, 2)));
    }
}
