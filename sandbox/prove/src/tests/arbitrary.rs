//! Filters, calls and device rules that are drawn at random, close to where answers change.

use std::collections::BTreeSet;

use hardened_sandbox::bundle::DeviceRule;
use hardened_sandbox::seccomp::{Action, Arch, Call, Condition, Filter, Rule, Test};
use proptest::prelude::*;

const VALUES: [u64; 10] = [0, 1, 2, 8, 0x7e02_0000, 0xffff_ffff, 0x1_0000_0000, 0x1_0000_0001, u64::MAX - 1, u64::MAX];

fn value() -> impl Strategy<Value = u64> {
    prop_oneof![8 => prop::sample::select(&VALUES[..]), 1 => any::<u64>()]
}

/// `seccomp` is answered in a way of its own where a supervisor is asked.
fn number(arch: Arch) -> impl Strategy<Value = u32> {
    let seccomp = arch.number("seccomp").unwrap();
    prop_oneof![8 => 0u32..20, 2 => Just(seccomp), 1 => 0u32..0x8000_0000]
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        Just(Action::KillProcess),
        Just(Action::KillThread),
        Just(Action::Trap),
        prop::sample::select(vec![1, 16, 38, 4095]).prop_map(Action::Errno),
        Just(Action::Log),
        Just(Action::Allow),
    ]
}

fn rule() -> impl Strategy<Value = Rule> {
    let test = prop_oneof![
        // Also those that never hold.
        (value(), value()).prop_map(|(mask, value)| Test::Equal { mask, value }),
        (value(), value()).prop_map(|(mask, value)| Test::Equal { mask, value: value & mask }),
        value().prop_map(Test::NotEqual),
        value().prop_map(Test::Less),
        value().prop_map(Test::LessOrEqual),
        value().prop_map(Test::Greater),
        value().prop_map(Test::GreaterOrEqual),
    ];
    let condition = (0u8..6, test).prop_map(|(argument, test)| Condition { argument, test });
    (prop::collection::vec(condition, 0..4), action()).prop_map(|(conditions, action)| Rule { conditions, action })
}

pub(super) fn filter(arch: Arch) -> impl Strategy<Value = Filter> {
    let rules = prop::collection::vec((number(arch), rule()), 0..40);
    (action(), action(), rules).prop_map(move |(default, foreign, rules)| {
        let mut filter = Filter::new(arch, default, foreign);
        for (number, rule) in rules {
            filter.push(number, rule);
        }
        filter
    })
}

pub(super) fn quiet(arch: Arch) -> impl Strategy<Value = BTreeSet<u32>> {
    prop::collection::btree_set(number(arch), 0..6)
}

pub(super) fn call(native: Arch) -> impl Strategy<Value = Call> {
    let arch = prop_oneof![9 => Just(native.audit()), 1 => any::<u32>()];
    let number = prop_oneof![9 => number(native), 1 => any::<u32>()];
    let arguments = prop::array::uniform6(value());
    (arch, number, arguments).prop_map(|(arch, number, arguments)| Call { arch, number, arguments })
}

pub(super) fn device_rules() -> impl Strategy<Value = Vec<DeviceRule>> {
    let number =
        || prop::option::of(prop_oneof![4 => -1i64..4, 1 => prop::sample::select(vec![4095, 1 << 20, i64::MAX])]);
    let rule = (any::<bool>(), prop::option::of(any::<bool>()), number(), number(), "r?w?m?");
    let rule = rule.prop_map(|(allow, block, major, minor, access)| DeviceRule { allow, block, major, minor, access });
    prop::collection::vec(rule, 0..10)
}
