//! The meet of two filters: one filter that answers to every call the stricter of both answers.
//!
//! The kernel would come to the same by running both programs one after the other; one program
//! is faster, and the meet can be tested without a kernel.

use std::collections::BTreeMap;

use super::{Condition, Filter, Rule, shared};

impl Filter {
    /// The filter that allows what both allow. Idempotent, commutative and associative in what
    /// it answers.
    ///
    /// Both must be of one architecture: profiles are made per architecture, and the one of the
    /// node is the only one that ever runs.
    #[must_use]
    pub fn meet(&self, other: &Self) -> Self {
        debug_assert_eq!(self.arch, other.arch, "filters of two architectures have no meet");
        let default = self.default.min(other.default);
        let mut calls = BTreeMap::new();
        for number in self.calls.keys().chain(other.calls.keys()) {
            if calls.contains_key(number) {
                continue;
            }
            let product = product(&self.complete(*number), &other.complete(*number));
            calls.insert(*number, product);
        }
        calls.retain(|_, rules| {
            while rules.last().is_some_and(|rule| rule.action == default) {
                rules.pop();
            }
            !rules.is_empty()
        });
        Self { arch: self.arch, foreign: self.foreign.min(other.foreign), default, calls: shared(calls) }
    }

    /// The rules of a call, closed by one that always holds.
    pub(super) fn complete(&self, number: u32) -> Vec<Rule> {
        let mut rules = self.of(number).to_vec();
        if !rules.iter().any(|rule| rule.conditions.is_empty()) {
            rules.push(Rule::always(self.default));
        }
        rules
    }
}

/// Every pair of rules, in an order such that the first pair that holds is made of the first
/// rule that holds on either side. Pairs that can never be reached are left out.
fn product(left: &[Rule], right: &[Rule]) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    for a in left {
        for b in right {
            let mut conditions: Vec<Condition> = a.conditions.iter().chain(&b.conditions).copied().collect();
            conditions.sort_unstable();
            conditions.dedup();
            let impossible =
                conditions.iter().enumerate().any(|(i, x)| conditions[i + 1..].iter().any(|y| x.excludes(y)));
            let shadowed = rules.iter().any(|earlier| earlier.conditions.iter().all(|c| conditions.contains(c)));
            if !impossible && !shadowed {
                rules.push(Rule { conditions, action: a.action.min(b.action) });
            }
        }
    }
    rules
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::interpret::arbitrary;

    proptest! {
        #[test]
        fn meet_answers_the_stricter_of_both(
            a in arbitrary::filter(), b in arbitrary::filter(), call in arbitrary::call()
        ) {
            let met = a.meet(&b);
            prop_assert_eq!(
                met.decide(call.number, &call.arguments),
                a.decide(call.number, &call.arguments).min(b.decide(call.number, &call.arguments))
            );
            prop_assert_eq!(met.foreign(), a.foreign().min(b.foreign()));
        }

        #[test]
        fn meet_is_idempotent_commutative_and_associative(
            a in arbitrary::filter(), b in arbitrary::filter(), c in arbitrary::filter(), call in arbitrary::call()
        ) {
            let decide = |f: &super::Filter| f.decide(call.number, &call.arguments);
            prop_assert_eq!(decide(&a.meet(&a)), decide(&a));
            prop_assert_eq!(decide(&a.meet(&b)), decide(&b.meet(&a)));
            prop_assert_eq!(decide(&a.meet(&b).meet(&c)), decide(&a.meet(&b.meet(&c))));
        }
    }
}
