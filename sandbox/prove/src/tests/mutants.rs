//! Programs that are not what their rules mean are found out.

use hardened_sandbox::profile::BuiltIn;
use hardened_sandbox::seccomp::{Action, Arch, Call, Filter, Instruction, Program};
use libc::{BPF_ABS, BPF_ALU, BPF_AND, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W};

use super::program;
use crate::{Claim, Counterexample, Families, Mode, SocketCall, Solver, prove};

const ARCH: Arch = Arch::X86_64;

fn code(code: u32) -> u16 {
    code as u16
}

/// The program, wrong in one place: each kind of mistake that an instruction can have.
fn mutants(original: &Program) -> Vec<(usize, Program)> {
    let instructions = original.instructions();
    let mut mutants = Vec::new();
    for (at, i) in instructions.iter().enumerate() {
        let wrong = match u32::from(i.code) {
            class if class & 7 == BPF_RET => {
                vec![Instruction { k: if i.k == 0x7fff_0000 { 0x5_0001 } else { 0x7fff_0000 }, ..*i }]
            }
            class if class & 7 == BPF_LD => vec![Instruction { k: i.k ^ 4, ..*i }],
            class if class & 7 == BPF_ALU => vec![Instruction { k: i.k >> 1, ..*i }],
            class if class & 7 == BPF_JMP && class & 0xf0 != 0 => {
                let other = if class & 0xf0 == BPF_JEQ { BPF_JGE } else { BPF_JEQ };
                vec![
                    Instruction { jt: i.jf, jf: i.jt, ..*i },
                    Instruction { k: i.k.wrapping_add(1), ..*i },
                    Instruction { code: code(BPF_JMP | other | BPF_K), ..*i },
                ]
            }
            _ => vec![Instruction { k: i.k + 1, ..*i }],
        };
        for wrong in wrong {
            let mut changed = instructions.to_vec();
            changed[at] = wrong;
            mutants.push((at, program(&changed)));
        }
    }
    mutants
}

/// Calls of every number, with arguments at which answers of the built-in profiles change.
fn calls() -> impl Iterator<Item = Call> {
    let values =
        [0, 1, 2, 3, 6, 10, 16, 17, 38, 0x5412, 0x541c, 0x1_0000_5412, 0x1000, 0x7e02_0000, 0xffff_ffff, u64::MAX];
    let archs = [ARCH.audit(), Arch::Aarch64.audit(), 0x4000_0003];
    let numbers = (0..600).chain([0x3fff_ffff, 0x4000_0000, u32::MAX]);
    numbers.flat_map(move |number| {
        archs.into_iter().flat_map(move |arch| {
            values
                .into_iter()
                .flat_map(move |a| values.map(move |b| Call { arch, number, arguments: [a, b, a, 0, 0, 0] }))
        })
    })
}

#[test]
fn a_program_that_is_wrong_in_one_place_is_found_out() {
    let mut solver = Solver::start().unwrap();
    let filter = BuiltIn::Pause.seccomp(ARCH);
    let original = filter.compile().unwrap();
    let calls: Vec<Call> = calls().collect();
    let (mut refuted, mut same) = (0, 0);
    for (at, mutant) in mutants(&original) {
        match prove(&mut solver, ARCH, &mutant, &Claim::Rules(&filter, Mode::Plain)).unwrap() {
            Some(Counterexample { call, answer, expected, .. }) => {
                assert_eq!(mutant.answer(&call), Some(answer));
                assert_eq!(original.answer(&call), expected, "{at}");
                assert_ne!(Some(answer), expected, "{at}");
                refuted += 1;
            }
            None => {
                // As when a jump is turned around whose targets answer the same.
                assert!(calls.iter().all(|call| mutant.answer(call) == original.answer(call)), "{at}");
                same += 1;
            }
        }
    }
    println!("{refuted} wrong programs found out, {same} changed ones proved to mean the same");
    assert!(refuted > 10 * same, "{refuted} of {}", refuted + same);
}

/// What baseline's program lets through when the first instruction that is so is another.
fn lets_through(filter: &Filter, wrong: impl Fn(&Instruction) -> Option<Instruction>, claim: &Claim<'_>) -> String {
    let mut instructions = filter.compile().unwrap().instructions().to_vec();
    let (at, wrong) = instructions.iter().enumerate().find_map(|(at, i)| Some((at, wrong(i)?))).unwrap();
    instructions[at] = wrong;
    let mutant = program(&instructions);
    let mut solver = Solver::start().unwrap();
    let by_claim = prove(&mut solver, ARCH, &mutant, claim).unwrap().unwrap();
    let by_rules = prove(&mut solver, ARCH, &mutant, &Claim::Rules(filter, Mode::Plain)).unwrap();
    assert!(by_rules.is_some());
    by_claim.to_string()
}

#[test]
fn what_a_mistake_lets_through_is_shown() {
    let baseline = BuiltIn::Baseline.seccomp(ARCH);
    let compares = |i: &Instruction, k: u32| i.k == k && i.code == code(BPF_JMP | BPF_JEQ | BPF_K);
    let never = |i: &Instruction| Instruction { jf: i.jt, ..*i };
    // The architecture is not looked at.
    let shown = lets_through(&baseline, |i| compares(i, ARCH.audit()).then(|| never(i)), &Claim::NoForeignAbi);
    assert!(shown.ends_with(" is allowed") && !shown.contains("x32"), "{shown}");
    // One request is forgotten.
    let terminal = |i: &Instruction| compares(i, 0x5412).then_some(Instruction { k: 0x5413, ..*i });
    let shown = lets_through(&baseline, terminal, &Claim::NoTyping);
    assert!(shown.starts_with("ioctl(") && shown.contains("5412"), "{shown}");
    // One of the flags is forgotten.
    let flags = |i: &Instruction| {
        (i.code == code(BPF_ALU | BPF_AND | BPF_K) && i.k == 0x7e02_0000)
            .then_some(Instruction { k: 0x6e02_0000, ..*i })
    };
    let shown = lets_through(&baseline, flags, &Claim::NoNamespace);
    assert!(shown.starts_with("clone(0x"), "{shown}");
    // The other half of the family is looked at.
    let half = |i: &Instruction| {
        (i.code == code(BPF_LD | BPF_W | BPF_ABS) && i.k == 16).then_some(Instruction { k: 20, ..*i })
    };
    let socket = ARCH.number("socket").unwrap();
    let mut only_sockets = Filter::new(ARCH, Action::EPERM, Action::KillProcess);
    only_sockets.set(socket, baseline.of(socket).to_vec());
    let families = Families::named(&only_sockets, SocketCall::Single);
    let shown = lets_through(&only_sockets, half, &Claim::Sockets(SocketCall::Single, families));
    assert!(shown.starts_with("socket(0x1"), "{shown}");
}
