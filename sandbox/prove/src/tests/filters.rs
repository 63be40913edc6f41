//! Compiled filters: equal to their rules, and what nothing that is compiled in lets through.

use std::cell::RefCell;

use hardened_sandbox::profile::BuiltIn;
use hardened_sandbox::seccomp::{Arch, Call, Filter, Program};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::{ARCHS, Named, arbitrary, filters, profiles};
use crate::script::{Script, all, any, long, word};
use crate::{Claim, Families, SocketCall, Solver, bpf, call, prove, prove_rules};

/// For each architecture.
const RANDOM_FILTERS: u32 = 100;

#[test]
fn every_profile_answers_every_call_as_its_rules_do() {
    let mut solver = Solver::start().unwrap();
    let mut proved = 0;
    for arch in ARCHS {
        for profile in profiles(arch) {
            for filter in filters(&profile.sandbox) {
                let found = prove_rules(&mut solver, &filter, profile.sandbox.quiet()).unwrap();
                assert_eq!(found.map(|call| call.to_string()), None, "{} {arch:?}", profile.name);
                proved += 1;
            }
        }
    }
    println!("{proved} filters of profiles, {} questions", solver.asked());
}

#[test]
fn every_meet_of_two_profiles_answers_as_its_rules_do_and_allows_what_both_allow_on_x86_64() {
    meets(Arch::X86_64);
}

#[test]
fn every_meet_of_two_profiles_answers_as_its_rules_do_and_allows_what_both_allow_on_aarch64() {
    meets(Arch::Aarch64);
}

fn meets(arch: Arch) {
    let mut solver = Solver::start().unwrap();
    // Profiles with the same filters have the same meets with others.
    let all = profiles(arch);
    let mut profiles: Vec<&Named> = Vec::new();
    for profile in &all {
        if profiles.iter().all(|other| filters(&other.sandbox) != filters(&profile.sandbox)) {
            profiles.push(profile);
        }
    }
    let mut proved = 0;
    for (at, a) in profiles.iter().enumerate() {
        for b in &profiles[at + 1..] {
            let met = a.sandbox.meet(&b.sandbox);
            let place = format!("{} and {}, {arch:?}", a.name, b.name);
            for filter in filters(&met) {
                let found = prove_rules(&mut solver, &filter, met.quiet()).unwrap();
                assert_eq!(found.map(|call| call.to_string()), None, "{place}");
                let operands = [a, b].map(|operand| operand.sandbox.effective_filter());
                let claim = Claim::Within(&place, &[&operands[0], &operands[1]]);
                holds(&mut solver, arch, &filter.compile().unwrap(), &claim, &place);
                proved += 1;
            }
        }
    }
    println!(
        "{arch:?}: {} profiles, {} distinct; {proved} meets, {} questions",
        all.len(),
        profiles.len(),
        solver.asked()
    );
}

#[test]
fn random_filters_answer_every_call_as_their_rules_do_on_x86_64() {
    random_filters(Arch::X86_64);
}

#[test]
fn random_filters_answer_every_call_as_their_rules_do_on_aarch64() {
    random_filters(Arch::Aarch64);
}

fn random_filters(arch: Arch) {
    let solver = RefCell::new(Solver::start().unwrap());
    let mut runner = TestRunner::new(Config { cases: RANDOM_FILTERS, failure_persistence: None, ..Config::default() });
    let calls = proptest::collection::vec(arbitrary::call(arch), 64);
    let cases = (arbitrary::filter(arch), arbitrary::quiet(arch), calls);
    runner
        .run(&cases, |(filter, quiet, calls)| {
            let mut solver = solver.borrow_mut();
            let found = prove_rules(&mut solver, &filter, &quiet).unwrap();
            prop_assert_eq!(found.map(|call| call.to_string()), None);
            let program = filter.compile_explained(&quiet).unwrap();
            prop_assert!(is_interpreted(&mut solver, &program, &calls));
            Ok(())
        })
        .unwrap();
    println!("{arch:?}: {RANDOM_FILTERS} random filters, {} questions", solver.borrow().asked());
}

/// Whether `Program::answer`, by which the shim answers denied calls, gives these calls what the program's term does.
fn is_interpreted(solver: &mut Solver, program: &Program, calls: &[Call]) -> bool {
    let mut script = Script::default();
    call::declare(&mut script);
    let answer = bpf::define(program.instructions(), &mut script).unwrap();
    let differs = calls.iter().map(|call| {
        let arguments = call.arguments.iter().enumerate().map(|(n, value)| format!("(= arg{n} {})", long(*value)));
        let of_call = [format!("(= arch {})", word(call.arch)), format!("(= number {})", word(call.number))];
        let interpreted = program.answer(call).unwrap();
        all(of_call.into_iter().chain(arguments).chain([format!("(not (= {answer} {}))", word(interpreted))]))
    });
    script.assert(any(differs));
    solver.values(&script, &[]).unwrap().is_none()
}

fn holds(solver: &mut Solver, arch: Arch, program: &Program, claim: &Claim<'_>, place: &str) {
    let found = prove(solver, arch, program, claim).unwrap();
    assert_eq!(found.map(|call| call.to_string()), None, "{place}: {claim}");
}

/// What each built-in profile says of sockets, as SECURITY.md has it.
fn sockets(profile: BuiltIn) -> (Families, Families) {
    let numbers = |families: &[i32]| families.iter().map(|family| *family as u32).collect();
    let unix = Families::Only(numbers(&[libc::AF_UNIX]));
    match profile {
        BuiltIn::Baseline | BuiltIn::Restricted | BuiltIn::Build => {
            let families = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
            (Families::Only(numbers(&families)), unix)
        }
        BuiltIn::Compatible => (Families::AllBut(numbers(&[libc::AF_ALG, libc::AF_VSOCK])), unix),
        // The latter allows all without naming any.
        BuiltIn::Pause | BuiltIn::Privileged => (Families::Only(numbers(&[])), Families::Only(numbers(&[]))),
    }
}

#[test]
fn no_built_in_profile_but_privileged_lets_through_what_none_is_to() {
    let mut solver = Solver::start().unwrap();
    for arch in ARCHS {
        for profile in BuiltIn::ALL {
            let sandbox = profile.sandbox(arch);
            let (filter, (single, pair)) = (sandbox.effective_filter(), sockets(profile));
            for (call, listed) in [(SocketCall::Single, &single), (SocketCall::Pair, &pair)] {
                assert_eq!(Families::named(&filter, call), *listed, "{} {arch:?}", profile.name());
            }
            let claims = [
                Claim::NoForeignAbi,
                Claim::NoNamespace,
                Claim::NoTyping,
                Claim::Sockets(SocketCall::Single, single),
                Claim::Sockets(SocketCall::Pair, pair),
            ];
            let explained = filter.compile_explained(sandbox.quiet()).unwrap();
            for program in [filter.compile().unwrap(), explained.unexplained(), explained] {
                for claim in &claims {
                    let place = format!("{} {arch:?}", profile.name());
                    if profile != BuiltIn::Privileged || matches!(claim, Claim::NoForeignAbi) {
                        holds(&mut solver, arch, &program, claim, &place);
                    }
                }
            }
        }
    }
    println!("claims about {} profiles, {} questions", BuiltIn::ALL.len(), solver.asked());
}

#[test]
fn each_profile_is_within_the_next() {
    let mut solver = Solver::start().unwrap();
    let order = [BuiltIn::Pause, BuiltIn::Restricted, BuiltIn::Baseline, BuiltIn::Compatible, BuiltIn::Privileged];
    for arch in ARCHS {
        for pair in order.windows(2) {
            let [narrow, wide] = [pair[0], pair[1]].map(|profile| profile.seccomp(arch));
            for (one, other, name, within) in [(&narrow, &wide, pair[1], true), (&wide, &narrow, pair[0], false)] {
                let program = one.compile().unwrap();
                let found = prove(&mut solver, arch, &program, &Claim::Within(name.name(), &[other])).unwrap();
                assert_eq!(
                    found.is_none(),
                    within,
                    "{pair:?} {arch:?}: {}",
                    found.map_or(String::new(), |f| f.to_string())
                );
            }
        }
    }
    println!("the order of {} profiles, {} questions", order.len(), solver.asked());
}

#[test]
fn what_a_filter_lets_through_is_shown_as_the_call_that_it_is() {
    let mut solver = Solver::start().unwrap();
    let arch = Arch::X86_64;
    let filter: Filter = BuiltIn::Privileged.seccomp(arch);
    let mut found = |claim| prove(&mut solver, arch, &filter.compile().unwrap(), &claim).unwrap().unwrap();
    let typing = found(Claim::NoTyping);
    assert_eq!(typing.call.number, arch.number("ioctl").unwrap());
    assert!([0x5412, 0x541c].contains(&(typing.call.arguments[1] as u32)), "{typing}");
    assert!(typing.to_string().starts_with("ioctl(0x") && typing.to_string().ends_with(" is allowed"), "{typing}");
    let socket = found(Claim::Sockets(SocketCall::Single, Families::Only([1].into())));
    assert!(socket.to_string().starts_with("socket(") && socket.call.arguments[0] as u32 != 1, "{socket}");
    let denied = BuiltIn::Baseline.seccomp(arch);
    let beyond = found(Claim::Within("baseline", &[&denied]));
    assert!(!denied.decide(beyond.call.number, &beyond.call.arguments).allows(), "{beyond}");
}
