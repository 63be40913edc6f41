//! Test only: draws filters and calls, and asks libseccomp whether it agrees.

use proptest::prelude::*;

use super::compile::Instruction;
use super::{Action, Arch, Call, Condition, Filter, Program, Rule, Test};

/// The word that a program returns for a call.
pub(crate) fn interpret(program: &Program, call: &Call) -> u32 {
    program.answer(call).expect("a program that ends in returns")
}

/// Filters and calls that hit their edges often.
pub(super) mod arbitrary {
    use super::*;

    const VALUES: [u64; 9] = [0, 1, 2, 0x7E02_0000, 0xffff_ffff, 0x1_0000_0000, 0x1_0000_0001, u64::MAX - 1, u64::MAX];

    fn value() -> impl Strategy<Value = u64> {
        prop_oneof![8 => prop::sample::select(&VALUES[..]), 1 => any::<u64>()]
    }

    fn condition() -> impl Strategy<Value = Condition> {
        let test = prop_oneof![
            (value(), value()).prop_map(|(mask, value)| Test::Equal { mask, value: value & mask }),
            value().prop_map(Test::NotEqual),
            value().prop_map(Test::Less),
            value().prop_map(Test::LessOrEqual),
            value().prop_map(Test::Greater),
            value().prop_map(Test::GreaterOrEqual),
        ];
        (0u8..6, test).prop_map(|(argument, test)| Condition { argument, test })
    }

    pub(in super::super) fn action() -> impl Strategy<Value = Action> {
        prop::sample::select(vec![
            Action::KillProcess,
            Action::KillThread,
            Action::Trap,
            Action::EPERM,
            Action::ENOSYS,
            Action::Log,
            Action::Allow,
        ])
    }

    fn arch() -> impl Strategy<Value = Arch> {
        // A meet is of one architecture, so properties draw one for all operands.
        Just(Arch::X86_64)
    }

    pub(super) fn rule() -> impl Strategy<Value = Rule> {
        (prop::collection::vec(condition(), 0..3), action())
            .prop_map(|(conditions, action)| Rule { conditions, action })
    }

    pub(in super::super) fn filter() -> impl Strategy<Value = Filter> {
        (arch(), action(), action(), prop::collection::vec((0u32..60, rule()), 0..40)).prop_map(
            |(arch, default, foreign, rules)| {
                let mut filter = Filter::new(arch, default, foreign);
                for (number, rule) in rules {
                    filter.push(number, rule);
                }
                filter
            },
        )
    }

    pub(in super::super) fn call() -> impl Strategy<Value = Call> {
        let arch = prop_oneof![
            9 => Just(Arch::X86_64.audit()),
            1 => Just(0x4000_0003), // AUDIT_ARCH_I386
        ];
        let number = prop_oneof![9 => 0u32..64, 1 => any::<u32>()];
        (arch, number, prop::array::uniform6(value())).prop_map(|(arch, number, arguments)| Call {
            arch,
            number,
            arguments,
        })
    }
}

fn expected(filter: &Filter, call: &Call) -> u32 {
    let x32 = call.arch == Arch::X86_64.audit() && call.number >= 0x4000_0000;
    if call.arch != filter.arch().audit() || x32 {
        filter.foreign().word()
    } else {
        filter.decide(call.number, &call.arguments).word()
    }
}

/// The same filter through libseccomp. It knows one answer a call beside the default, so all
/// rules of a call get the action of its first.
pub(crate) fn oracle(filter: &Filter) -> Option<(Filter, Program)> {
    use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};

    let scmp = |action: Action| match action {
        Action::KillProcess => ScmpAction::KillProcess,
        Action::KillThread => ScmpAction::KillThread,
        Action::Trap => ScmpAction::Trap,
        Action::Errno(errno) => ScmpAction::Errno(errno.into()),
        Action::Log => ScmpAction::Log,
        Action::Allow => ScmpAction::Allow,
    };
    let mut context = ScmpFilterContext::new(scmp(filter.default())).ok()?;
    context.set_act_badarch(scmp(filter.foreign())).ok()?;
    let (arch, bits) = match filter.arch() {
        Arch::X86_64 => (ScmpArch::X8664, 0),
        Arch::Aarch64 => (ScmpArch::Aarch64, 1),
    };
    if bits == 1 {
        context.add_arch(arch).ok()?;
        context.remove_arch(ScmpArch::Native).ok()?;
    }
    let mut comparable = Filter::new(filter.arch(), filter.default(), filter.foreign());
    for (number, rules) in filter.rules() {
        let action = rules.first()?.action;
        if action == filter.default() {
            continue;
        }
        // It has no answer for "none of these" but the filter's default.
        let conditional = rules.iter().any(|rule| !rule.conditions.is_empty());
        for rule in rules.iter().filter(|rule| !conditional || !rule.conditions.is_empty()) {
            let mut once: Vec<Condition> = Vec::new();
            for condition in &rule.conditions {
                if once.iter().all(|c| c.argument != condition.argument) {
                    once.push(*condition);
                }
            }
            // libseccomp 2.5 loses rules where several order one argument (`x < 0 or x <= 2^32` comes
            // out as never), so a rule that tests an argument again in another way is left out.
            let kept = comparable.of(number);
            if kept.iter().flat_map(|r| &r.conditions).any(|k| once.iter().any(|c| !comparable_tests(k, c))) {
                continue;
            }
            let comparators: Vec<ScmpArgCompare> = once
                .iter()
                .map(|c| {
                    let (op, value) = match c.test {
                        Test::Equal { mask, value } => (ScmpCompareOp::MaskedEqual(mask), value),
                        Test::NotEqual(value) => (ScmpCompareOp::NotEqual, value),
                        Test::Less(value) => (ScmpCompareOp::Less, value),
                        Test::LessOrEqual(value) => (ScmpCompareOp::LessOrEqual, value),
                        Test::Greater(value) => (ScmpCompareOp::Greater, value),
                        Test::GreaterOrEqual(value) => (ScmpCompareOp::GreaterEqual, value),
                    };
                    ScmpArgCompare::new(c.argument.into(), op, value)
                })
                .collect();
            // A number is of the native architecture to libseccomp, which translates it.
            let call = match filter.arch() {
                Arch::X86_64 => ScmpSyscall::from(number as i32),
                Arch::Aarch64 => match filter.arch().name(number).map(ScmpSyscall::from_name) {
                    Some(Ok(call)) => call,
                    // Newer than this libseccomp.
                    _ => continue,
                },
            };
            context.add_rule_conditional_exact(scmp(action), call, &comparators).ok()?;
            comparable.push(number, Rule { conditions: once, action });
        }
    }
    let mut file = tempfile::tempfile().ok()?;
    context.export_bpf(&mut file).ok()?;
    let mut bytes = Vec::new();
    std::io::Seek::rewind(&mut file).ok()?;
    std::io::Read::read_to_end(&mut file, &mut bytes).ok()?;
    let program = bytes
        .as_chunks::<8>()
        .0
        .iter()
        .map(|&[c0, c1, jt, jf, k0, k1, k2, k3]| Instruction {
            code: u16::from_ne_bytes([c0, c1]),
            jt,
            jf,
            k: u32::from_ne_bytes([k0, k1, k2, k3]),
        })
        .collect();
    Some((comparable, Program::of(program)))
}

/// Whether libseccomp keeps two tests of different rules of one call apart.
fn comparable_tests(a: &Condition, b: &Condition) -> bool {
    match (a.test, b.test) {
        _ if a.argument != b.argument => true,
        (Test::Equal { mask: x, .. }, Test::Equal { mask: y, .. }) => x == y,
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_program_means_what_the_filter_decides(
        filter in arbitrary::filter(), calls in prop::collection::vec(arbitrary::call(), 64)
    ) {
        let program = filter.compile().unwrap();
        for call in &calls {
            prop_assert_eq!(interpret(&program, call), expected(&filter, call), "{:?}", call);
        }
    }

    #[test]
    fn a_supervisor_is_asked_for_each_errno_but_those_of_quiet_calls(
        filter in arbitrary::filter(),
        quiet in prop::collection::btree_set(0u32..64, 0..8),
        calls in prop::collection::vec(arbitrary::call(), 64),
    ) {
        let (plain, explained) = (filter.compile().unwrap(), filter.compile_explained(&quiet).unwrap());
        for call in &calls {
            let (before, now) = (interpret(&plain, call), interpret(&explained, call));
            let errno = (before & 0xffff_0000 == Action::Errno(0).word()).then_some(before as u16);
            let of_arch = call.arch == Arch::X86_64.audit();
            let is_seccomp = of_arch && Arch::X86_64.number("seccomp") == Some(call.number);
            let asks = call.arguments[0] as u32 == 1 && call.arguments[1] & 8 != 0;
            if is_seccomp && asks && filter.decide(call.number, &call.arguments).allows() {
                prop_assert_eq!(now, Action::Errno(libc::EBUSY as u16).word(), "{:?}", call);
                continue;
            }
            match errno.filter(|_| !(of_arch && quiet.contains(&call.number))) {
                Some(errno) => prop_assert_eq!(Program::explained_errno(now), Some(errno), "{:?}", call),
                None => prop_assert_eq!(now, before, "{:?}", call),
            }
            prop_assert_eq!(interpret(&explained.unexplained(), call), before, "{:?}", call);
        }
        prop_assert!(!plain.explains() && !explained.unexplained().explains());
    }

    #[test]
    fn no_process_gets_a_listener_beside_the_supervisors(
        mut filter in arbitrary::filter(),
        rules in prop::collection::vec(arbitrary::rule(), 0..4),
        arguments in prop::collection::vec(arbitrary::call().prop_map(|call| call.arguments), 64),
    ) {
        let number = Arch::X86_64.number("seccomp").unwrap();
        filter.set(number, rules);
        let (plain, explained) = (filter.compile().unwrap(), filter.compile_explained(&Default::default()).unwrap());
        for mut arguments in arguments {
            for flags in [arguments[1] & !8, arguments[1] | 8] {
                arguments[1] = flags;
                let call = Call { number, arch: Arch::X86_64.audit(), arguments };
                let now = Program::explained_errno(interpret(&explained, &call));
                let now = now.map_or_else(|| interpret(&explained, &call), |errno| Action::Errno(errno).word());
                let allowed = filter.decide(number, &arguments).allows();
                let asks = arguments[0] as u32 == 1 && flags & 8 != 0;
                let expected = if allowed && asks { Action::Errno(16).word() } else { interpret(&plain, &call) };
                prop_assert_eq!(now, expected, "{:?}", call);
            }
        }
    }

    #[test]
    fn libseccomp_gives_the_same_answer(
        filter in arbitrary::filter(), calls in prop::collection::vec(arbitrary::call(), 64)
    ) {
        // libseccomp refuses some sets of rules (one that another already covers, say); those it
        // takes must agree.
        if let Some((comparable, theirs)) = oracle(&filter) {
            let ours = comparable.compile().unwrap();
            for call in &calls {
                prop_assert_eq!(interpret(&ours, call), interpret(&theirs, call), "{:?}", call);
            }
        }
    }

    #[test]
    fn a_program_survives_its_text_form(filter in arbitrary::filter()) {
        let program = filter.compile().unwrap();
        let text = serde_json::to_string(&program).unwrap();
        prop_assert_eq!(serde_json::from_str::<super::Program>(&text).unwrap(), program);
    }
}
