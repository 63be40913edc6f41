//! Filters at the edges of their rules: what `interpret.rs` and `within.rs` draw at random, tried whole.
#![allow(clippy::unwrap_used, reason = "helpers of tests, which clippy does not take for tests")]

use std::collections::BTreeSet;

use hardened_sandbox::profile::BuiltIn;
use hardened_sandbox::seccomp::{Action, Arch, Call, Condition, Filter, Program, Rule, Test};
use libseccomp::{ScmpArch, ScmpSyscall};
use serde_json::json;

const ARCH: Arch = Arch::X86_64;

/// A value with both halves, between neighbours that differ in one of them.
const VALUE: u64 = 0x1_0000_0005;
const AROUND: [u64; 10] =
    [0, 5, 13, VALUE - 1, VALUE, VALUE + 1, VALUE - (1 << 32), VALUE + (1 << 32), 0x1_0000_0000, u64::MAX];

const TESTS: [Test; 9] = [
    Test::Equal { mask: u64::MAX, value: VALUE },
    Test::Equal { mask: 7, value: 5 },
    Test::Equal { mask: 1 << 32, value: 1 << 32 },
    Test::Equal { mask: 2, value: 5 },
    Test::NotEqual(VALUE),
    Test::Less(VALUE),
    Test::LessOrEqual(VALUE),
    Test::Greater(VALUE),
    Test::GreaterOrEqual(VALUE),
];

/// Whether a test holds, by its meaning alone.
fn holds(test: Test, value: u64) -> bool {
    match test {
        Test::Equal { mask, value: wanted } => value & mask == wanted,
        Test::NotEqual(other) => value != other,
        Test::Less(bound) => value < bound,
        Test::LessOrEqual(bound) => value <= bound,
        Test::Greater(bound) => value > bound,
        Test::GreaterOrEqual(bound) => value >= bound,
    }
}

/// Denies all but call 1 with arguments that pass each of the tests.
fn filter(tests: &[(u8, Test)]) -> Filter {
    let mut filter = Filter::new(ARCH, Action::EPERM, Action::KillProcess);
    let conditions = tests.iter().map(|(argument, test)| Condition { argument: *argument, test: *test }).collect();
    filter.push(1, Rule { conditions, action: Action::Allow });
    filter
}

fn call(number: u32, arguments: [u64; 6]) -> Call {
    Call { number, arch: ARCH.audit(), arguments }
}

#[test]
fn each_test_means_the_same_in_the_rules_and_in_the_program() {
    for test in TESTS {
        for argument in [0, 3, 5] {
            let filter = filter(&[(argument, test)]);
            let program = filter.compile().unwrap();
            for value in AROUND {
                let mut arguments = [!value; 6];
                arguments[usize::from(argument)] = value;
                let expected = if holds(test, value) { Action::Allow } else { Action::EPERM };
                assert_eq!(filter.decide(1, &arguments), expected, "{test:?} of {value:#x}");
                assert_eq!(program.answer(&call(1, arguments)), Some(expected.word()), "{test:?} of {value:#x}");
            }
            assert_eq!(program.answer(&call(2, [VALUE; 6])), Some(Action::EPERM.word()));
            let foreign = Call { arch: 0x4000_0003, ..call(1, [VALUE; 6]) };
            assert_eq!(program.answer(&foreign), Some(Action::KillProcess.word()));
            assert_eq!(program.answer(&call(0x4000_0001, [VALUE; 6])), Some(Action::KillProcess.word()));
        }
    }
    // Rules in order, and conditions together.
    let two = filter(&[(0, Test::Less(5)), (1, Test::Greater(5))]);
    for (first, second) in [(4, 6), (4, 5), (5, 6), (5, 5)] {
        let arguments = [first, second, 0, 0, 0, 0];
        let expected = if (first, second) == (4, 6) { Action::Allow } else { Action::EPERM };
        assert_eq!(two.compile().unwrap().answer(&call(1, arguments)), Some(expected.word()), "{first} {second}");
    }
}

#[test]
fn a_program_without_a_supervisor_denies_the_same_by_itself() {
    let quiet: BTreeSet<u32> = [9].into();
    let mut filter = filter(&[(0, Test::Equal { mask: u64::MAX, value: 327_681 })]);
    filter.push(7, Rule::always(Action::Errno(5)));
    filter.push(8, Rule::always(Action::KillThread));
    let seccomp = ARCH.number("seccomp").unwrap();
    filter.push(seccomp, Rule::always(Action::Allow));
    let (plain, explained) = (filter.compile().unwrap(), filter.compile_explained(&quiet).unwrap());
    let unexplained = explained.unexplained();
    assert!(explained.explains() && !plain.explains() && !unexplained.explains());
    for number in [0, 1, 2, 7, 8, 9, 10, 0x4000_0000] {
        for argument in [0, 327_681, 0x7fc0_0001] {
            let call = call(number, [argument; 6]);
            let (asked, own) = (explained.answer(&call).unwrap(), plain.answer(&call).unwrap());
            assert_eq!(unexplained.answer(&call), Some(own), "{call:?}");
            match Program::explained_errno(asked) {
                Some(errno) => assert_eq!((Action::Errno(errno).word(), quiet.contains(&number)), (own, false)),
                None => assert_eq!(asked, own, "{call:?}"),
            }
        }
    }
    // A condition that looks like an answer is none.
    let tricky = self::filter(&[(0, Test::Equal { mask: u64::MAX, value: 0x7fc0_0001 })]);
    let tricky = tricky.compile_explained(&quiet).unwrap().unexplained();
    assert_eq!(tricky.answer(&call(1, [0x7fc0_0001; 6])), Some(Action::Allow.word()));
    // A listener is nobody's to have, and no supervisor is asked about that.
    let listen = [1, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER, 0, 0, 0, 0];
    let busy = Action::Errno(libc::EBUSY as u16);
    assert_eq!(explained.answer(&call(seccomp, listen)), Some(busy.word()));
    assert_eq!(explained.answer(&call(seccomp, [1, 0, 0, 0, 0, 0])), Some(Action::Allow.word()));
    filter.push(11, Rule::always(busy));
    let asked = filter.compile_explained(&quiet).unwrap().answer(&call(11, [0; 6])).unwrap();
    assert_eq!(Program::explained_errno(asked), Some(libc::EBUSY as u16), "another call's EBUSY is explained");
}

#[test]
fn a_program_has_a_text_form_within_bounds() {
    let program = BuiltIn::Baseline.sandbox(ARCH).filter().compile().unwrap();
    let text = String::from(program.clone());
    assert_eq!((program.len(), text.len()), (program.instructions().len(), 16 * program.len()));
    assert!(program.len() > 100);
    assert_eq!(Program::try_from(text.clone()), Ok(program));
    let one = "0006000000050001";
    for good in [one.to_owned(), one.repeat(4096)] {
        assert!(Program::try_from(good).is_ok());
    }
    for wrong in [String::new(), one.repeat(4097), format!("{one}0"), one[1..].to_owned(), one.replace('6', "g")] {
        assert!(Program::try_from(wrong).is_err());
    }
    // What is no program of a compiled filter has no answer.
    let answer = |text: &str| Program::try_from(text.to_owned()).unwrap().answer(&call(1, [2; 6]));
    assert_eq!(answer(one), Some(0x5_0001));
    assert_eq!(answer("0020000000000000"), None, "it ends in no return");
    assert_eq!(answer("00ff000000000000"), None, "no such instruction");
    assert_eq!(answer("0020000000000008"), None, "no such field");
    assert_eq!(answer("0020000000000040"), None, "no such argument");
    assert_eq!(answer(&format!("0005000000000001{one}000600007fff0000")), Some(0x7fff_0000), "a jump over one");
}

#[test]
fn a_program_is_as_long_as_it_must_be_and_as_the_kernel_takes() {
    let length = |allowed: &[u32]| {
        let mut filter = Filter::new(ARCH, Action::EPERM, Action::KillProcess);
        allowed.iter().for_each(|number| filter.push(*number, Rule::always(Action::Allow)));
        filter.compile().unwrap().len()
    };
    // Calls beside one another with the same answer are one range.
    assert_eq!([length(&[1, 2]), length(&[1, 2, 3])], [length(&[1]), length(&[1])]);
    assert!(length(&[1, 3]) > length(&[1]));
    // Each rule is of three instructions, with a mask of four.
    let of = |rules: usize, masked: usize| {
        let mut filter = Filter::new(ARCH, Action::EPERM, Action::KillProcess);
        for n in 0..rules {
            let value = u32::try_from(n).unwrap();
            let condition = if n < masked { Condition::bits(0, 0xffff, value) } else { Condition::int(0, value) };
            filter.push(1, Rule { conditions: vec![condition], action: Action::Allow });
        }
        filter.compile()
    };
    let fixed = of(1000, 0).unwrap().len() - 3000;
    let (rules, masked) = ((4096 - fixed) / 3, (4096 - fixed) % 3);
    assert_eq!(of(rules, masked).map(|program| program.len()), Ok(4096));
    for masked in [masked + 1, masked + 2] {
        assert!(of(rules, masked).is_err());
    }
}

#[test]
fn numbers_are_those_that_libseccomp_knows() {
    let mut compared = 0;
    for (arch, theirs) in [(Arch::X86_64, ScmpArch::X8664), (Arch::Aarch64, ScmpArch::Aarch64)] {
        for (name, _) in Arch::X86_64.calls().chain(Arch::Aarch64.calls()) {
            // It may be older than a call, and numbers what an architecture lacks below 0.
            let Ok(known) = ScmpSyscall::from_name_by_arch(name, theirs).map(i32::from) else { continue };
            let ours = arch.number(name);
            assert_eq!(ours, u32::try_from(known).ok().filter(|_| known >= 0), "{name} of {arch:?}");
            compared += 1;
        }
        let numbers: BTreeSet<u32> = arch.calls().map(|(_, number)| number).collect();
        assert_eq!(numbers.len(), arch.calls().count(), "two calls of {arch:?} have one number");
    }
    assert!(compared > 1000, "{compared}");
}

#[test]
fn words_and_architectures_are_the_kernels() {
    assert_eq!((Arch::X86_64.audit(), Arch::Aarch64.audit()), (0xc000_003e, 0xc000_00b7));
    for (action, word) in [
        (Action::KillProcess, 0x8000_0000),
        (Action::KillThread, 0),
        (Action::Trap, 0x0003_0000),
        (Action::Errno(0), 0x0005_0000),
        (Action::Errno(4095), 0x0005_0fff),
        (Action::Log, 0x7ffc_0000),
        (Action::Allow, 0x7fff_0000),
    ] {
        assert_eq!(action.word(), word, "{action:?}");
    }
}

#[test]
fn a_meet_has_the_pairs_that_can_hold_and_no_other() {
    let equal = |argument: u8, mask: u64, value: u64| filter(&[(argument, Test::Equal { mask, value })]);
    let first = |value: u64| [value, 2, 0, 0, 0, 0];
    for (left, right, both) in [
        (equal(0, 3, 1), equal(0, 3, 2), None),
        (equal(0, 1, 1), equal(0, 3, 2), None),
        (equal(0, 3, 1), equal(0, 7, 5), Some(5)),
        (equal(0, 1, 1), equal(0, 2, 2), Some(3)),
        (equal(0, 3, 1), equal(1, 3, 2), Some(1)),
    ] {
        let met = left.meet(&right);
        let allows = met.of(1).iter().any(|rule| rule.action.allows());
        assert_eq!(allows, both.is_some(), "{met:?}");
        assert!(both.is_none_or(|value| met.decide(1, &first(value)).allows()), "{met:?}");
    }
    // What comes behind a rule that holds as often is left out.
    for test in TESTS {
        let one = filter(&[(0, test), (1, Test::Less(5))]);
        assert_eq!(one.meet(&one).of(1), one.of(1), "{test:?}");
    }
}

#[test]
fn two_tests_of_one_argument_are_alternatives_in_ocis_profiles() {
    let of = |indices: [u32; 2]| {
        let tests = indices.map(|index| json!({"index": index, "value": 5 + index, "op": "SCMP_CMP_EQ"}));
        let profile = json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
            {"names": ["write"], "action": "SCMP_ACT_ALLOW", "args": tests}]});
        Filter::from_oci(&serde_json::from_value(profile).unwrap(), ARCH).unwrap()
    };
    let allows = |filter: &Filter, arguments: [u64; 6]| filter.decide(1, &arguments).allows();
    let together = of([0, 1]);
    assert!(allows(&together, [5, 6, 0, 0, 0, 0]));
    assert!(!allows(&together, [5, 0, 0, 0, 0, 0]) && !allows(&together, [0, 6, 0, 0, 0, 0]));
    let profile = json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        {"names": ["write"], "action": "SCMP_ACT_ALLOW", "args": [
            {"index": 0, "value": 5, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 6, "op": "SCMP_CMP_EQ"},
            {"index": 1, "value": 7, "op": "SCMP_CMP_EQ"}]}]});
    let apart = Filter::from_oci(&serde_json::from_value(profile).unwrap(), ARCH).unwrap();
    assert!(
        allows(&apart, [5, 0, 0, 0, 0, 0]) && allows(&apart, [6, 0, 0, 0, 0, 0]) && allows(&apart, [0, 7, 0, 0, 0, 0])
    );
    assert!(!allows(&apart, [7, 6, 0, 0, 0, 0]));
}

#[test]
fn a_narrower_test_is_within_a_wider_one() {
    let of = |test: Test| filter(&[(0, test)]);
    let equal = |mask: u64, value: u64| Test::Equal { mask, value };
    for (narrow, wide) in [
        (equal(u64::MAX, 5), Test::NotEqual(6)),
        (equal(7, 5), equal(5, 5)),
        (Test::Less(5), Test::Less(6)),
        (Test::Less(5), Test::LessOrEqual(4)),
        (Test::Greater(5), Test::GreaterOrEqual(6)),
        (Test::GreaterOrEqual(6), Test::Greater(5)),
        // It never holds.
        (equal(2, 5), equal(u64::MAX, 9)),
    ] {
        assert!(of(narrow).is_within(&of(wide)), "{narrow:?} {wide:?}");
    }
    for (one, other) in [
        (Test::Less(6), equal(u64::MAX, 5)),
        (Test::Less(6), Test::Less(5)),
        (Test::LessOrEqual(5), Test::Less(5)),
        (Test::GreaterOrEqual(5), Test::Greater(5)),
        (Test::NotEqual(5), Test::Greater(5)),
        (equal(5, 5), equal(7, 5)),
        (equal(1, 1), equal(1, 0)),
        (equal(u64::MAX, 9), equal(2, 5)),
        (Test::NotEqual(6), equal(u64::MAX, 5)),
    ] {
        assert!(!of(one).is_within(&of(other)), "{one:?} {other:?}");
    }
    let nothing = Filter::new(ARCH, Action::EPERM, Action::KillProcess);
    assert!(of(equal(2, 5)).is_within(&nothing), "what never holds allows nothing");
    for test in TESTS {
        assert!(of(test).is_within(&of(test)) && nothing.is_within(&of(test)), "{test:?}");
    }
    // Two rules of one, and the defaults.
    let mut halves = filter(&[(0, Test::Less(5))]);
    halves.push(
        1,
        Rule { conditions: vec![Condition { argument: 0, test: Test::GreaterOrEqual(5) }], action: Action::Allow },
    );
    let mut whole = nothing.clone();
    whole.push(1, Rule::always(Action::Allow));
    assert!(halves.is_within(&whole));
    let lax = Filter::new(ARCH, Action::Allow, Action::KillProcess);
    assert!(whole.is_within(&lax) && !lax.is_within(&whole));
    let foreign = Filter::new(ARCH, Action::EPERM, Action::Allow);
    assert!(nothing.is_within(&foreign) && !foreign.is_within(&nothing));
}
