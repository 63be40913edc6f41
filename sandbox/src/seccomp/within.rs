//! Whether one filter allows nothing that another does not.

use super::{Action, Condition, Filter, Rule, Test};

/// Steps after which a question counts as unanswered. Filters that are written by people take a few
/// dozen for each call.
const STEPS: u32 = 20_000;

impl Filter {
    /// Whether every call that this filter allows is allowed by the other, and logged where the
    /// other logs it. How a call is denied does not count.
    ///
    /// Never true where it does not hold. It may be false where it does, for rules that compare one
    /// argument both by its bits and by its size.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        let numbers = self.calls.keys().chain(other.calls.keys());
        self.arch == other.arch
            && rank(self.foreign) <= rank(other.foreign)
            && rank(self.default) <= rank(other.default)
            && numbers.into_iter().all(|number| {
                self.of(*number) == other.of(*number) || within(&self.complete(*number), &other.complete(*number))
            })
    }
}

/// How much an answer allows.
const fn rank(action: Action) -> u8 {
    match action {
        Action::KillProcess | Action::KillThread | Action::Trap | Action::Errno(_) => 0,
        Action::Log => 1,
        Action::Allow => 2,
    }
}

/// Whether no arguments get more from the first rules than from the second ones. Both end with a rule
/// that always holds.
fn within(rules: &[Rule], others: &[Rule]) -> bool {
    rules.iter().enumerate().all(|(at, rule)| {
        others.iter().enumerate().filter(|(_, other)| rank(rule.action) > rank(other.action)).all(|(to, other)| {
            // Both answer only where no earlier rule does.
            let earlier = rules[..at].iter().chain(&others[..to]).map(|rule| rule.conditions.clone());
            !both_answer(rule, other, earlier.collect())
        })
    })
}

/// Whether some arguments meet the conditions of both rules, and not all conditions of any earlier one.
fn both_answer(rule: &Rule, other: &Rule, mut earlier: Vec<Vec<Condition>>) -> bool {
    let mut known = Arguments::ANY;
    for condition in rule.conditions.iter().chain(&other.conditions) {
        if let Test::NotEqual(value) = condition.test {
            earlier.push(vec![equal(*condition, value)]);
            continue;
        }
        match known.where_holds(*condition) {
            Some(both) => known = both,
            None => return false,
        }
    }
    let mut steps = STEPS;
    can_be(known, &earlier, &mut steps)
}

/// Whether some arguments are as is known and meet all conditions of none of the lists.
fn can_be(known: Arguments, lists: &[Vec<Condition>], steps: &mut u32) -> bool {
    let Some(left) = steps.checked_sub(1) else { return true };
    *steps = left;
    let may_hold = |list: &&Vec<Condition>| list.iter().all(|condition| known.where_holds(*condition).is_some());
    let lists: Vec<&Vec<Condition>> = lists.iter().filter(may_hold).collect();
    let cases = lists.iter().map(|list| list.iter().flat_map(|c| known.where_fails(*c)).collect::<Vec<_>>());
    let Some((at, cases)) = cases.enumerate().min_by_key(|(_, cases)| cases.len()) else { return true };
    let others: Vec<Vec<Condition>> =
        lists.iter().enumerate().filter(|(n, _)| *n != at).map(|(_, list)| (*list).clone()).collect();
    cases.into_iter().any(|case| can_be(case, &others, steps))
}

/// What is known of the six arguments of a call: of each some bits, and between which values it is.
/// Bits and bounds are not held against each other.
#[derive(Clone, Copy)]
struct Arguments([Known; 6]);

#[derive(Clone, Copy)]
struct Known {
    mask: u64,
    value: u64,
    least: u64,
    most: u64,
}

impl Arguments {
    const ANY: Self = Self([Known { mask: 0, value: 0, least: 0, most: u64::MAX }; 6]);

    fn with(mut self, argument: u8, change: impl FnOnce(Known) -> Option<Known>) -> Option<Self> {
        // No call has a seventh argument, and nothing is known of it.
        let Some(known) = self.0.get_mut(usize::from(argument)) else { return Some(self) };
        *known = change(*known)?;
        Some(self)
    }

    /// What is known once the condition holds; `None` where it cannot.
    fn where_holds(self, condition: Condition) -> Option<Self> {
        self.with(condition.argument, |known| match condition.test {
            Test::Equal { mask, value } => known.with_bits(mask, value),
            // That it is another value leaves many cases, of which nothing is known.
            Test::NotEqual(_) => Some(known),
            Test::Less(value) => known.between(0, value.checked_sub(1)?),
            Test::LessOrEqual(value) => known.between(0, value),
            Test::Greater(value) => known.between(value.checked_add(1)?, u64::MAX),
            Test::GreaterOrEqual(value) => known.between(value, u64::MAX),
        })
    }

    /// The cases in which the condition does not hold, each apart from the others.
    fn where_fails(self, condition: Condition) -> Vec<Self> {
        let opposite = |test| self.where_holds(Condition { test, ..condition }).into_iter().collect();
        match condition.test {
            // The first bit that differs.
            Test::Equal { mask, value } if value & !mask == 0 => (0..u64::BITS)
                .map(|bit| 1 << bit)
                .filter(|bit| mask & bit != 0)
                .filter_map(|bit| {
                    let same = mask & (bit - 1);
                    self.with(condition.argument, |known| known.with_bits(same | bit, value & same | !value & bit))
                })
                .collect(),
            // It never holds.
            Test::Equal { .. } => vec![self],
            Test::NotEqual(value) => opposite(equal(condition, value).test),
            Test::Less(value) => opposite(Test::GreaterOrEqual(value)),
            Test::LessOrEqual(value) => opposite(Test::Greater(value)),
            Test::Greater(value) => opposite(Test::LessOrEqual(value)),
            Test::GreaterOrEqual(value) => opposite(Test::Less(value)),
        }
    }
}

impl Known {
    fn with_bits(self, mask: u64, value: u64) -> Option<Self> {
        let fits = (self.value ^ value) & self.mask & mask == 0 && value & !mask == 0;
        fits.then_some(Self { mask: self.mask | mask, value: self.value | value, ..self })
    }

    fn between(self, least: u64, most: u64) -> Option<Self> {
        let (least, most) = (self.least.max(least), self.most.min(most));
        (least <= most).then_some(Self { least, most, ..self })
    }
}

const fn equal(condition: Condition, value: u64) -> Condition {
    Condition { argument: condition.argument, test: Test::Equal { mask: u64::MAX, value } }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::interpret::arbitrary;
    use super::rank;

    proptest! {
        #[test]
        fn what_is_within_allows_no_more(
            a in arbitrary::filter(), b in arbitrary::filter(), call in arbitrary::call()
        ) {
            let allowed = |filter: &super::Filter| rank(filter.decide(call.number, &call.arguments));
            prop_assert!(!a.is_within(&b) || allowed(&a) <= allowed(&b));
        }

        #[test]
        fn a_meet_is_within_both(a in arbitrary::filter(), b in arbitrary::filter()) {
            prop_assert!(a.is_within(&a));
            let met = a.meet(&b);
            prop_assert!(met.is_within(&a) && met.is_within(&b));
        }

        #[test]
        fn within_is_transitive(a in arbitrary::filter(), b in arbitrary::filter(), c in arbitrary::filter()) {
            let (first, second) = (a.meet(&b).meet(&c), a.meet(&b));
            prop_assert!(first.is_within(&second) && second.is_within(&a) && first.is_within(&a));
            prop_assert!(!a.is_within(&b) || !b.is_within(&c) || a.is_within(&c));
        }
    }
}
