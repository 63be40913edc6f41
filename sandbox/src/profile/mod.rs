//! Profiles: named descriptions of a sandbox. Two are built in.

mod baseline;
mod restricted;

use crate::capability::CapabilitySet;
use crate::seccomp::{Action, Arch, Condition, Filter, Rule};

/// System calls that get the same answer for the same reason.
#[derive(Debug)]
struct Group {
    /// Why these calls get this answer. Reviewed like code.
    #[cfg_attr(not(test), expect(dead_code, reason = "read by people, and by the test that demands it"))]
    reason: &'static str,
    /// Kernel names.
    calls: &'static [&'static str],
    /// The first whose conditions hold answers; none means the profile's default.
    rules: &'static [StaticRule],
}

/// [`Rule`], in a constant.
#[derive(Debug)]
struct StaticRule {
    conditions: &'static [Condition],
    action: Action,
}

const ALLOW: &[StaticRule] = &[StaticRule { conditions: &[], action: Action::Allow }];
const DENY: &[StaticRule] = &[StaticRule { conditions: &[], action: Action::EPERM }];

/// A named sandbox description.
#[derive(Debug, Clone, Copy)]
pub struct Profile {
    name: &'static str,
    capabilities: CapabilitySet,
    groups: &'static [&'static [Group]],
    execute_from_writable: bool,
}

impl Profile {
    /// The node's default: an unprivileged container without what a hardened one has no need for.
    pub const BASELINE: Self = Self {
        name: "baseline",
        capabilities: baseline::CAPABILITIES,
        groups: &[baseline::ALLOWED, baseline::SHARED, baseline::CONDITIONAL, baseline::DENIED],
        execute_from_writable: true,
    };

    /// For programs that run as a user, serve the network and write their own data.
    pub const RESTRICTED: Self = Self {
        name: "restricted",
        capabilities: CapabilitySet::of(&["NET_BIND_SERVICE"]),
        groups: &[restricted::ALLOWED, baseline::SHARED, baseline::CONDITIONAL, baseline::DENIED, restricted::DENIED],
        execute_from_writable: false,
    };

    /// All that are built in.
    #[must_use]
    pub const fn built_in() -> [Self; 2] {
        [Self::BASELINE, Self::RESTRICTED]
    }

    /// The built-in profile of that name.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        Self::built_in().into_iter().find(|profile| profile.name == name)
    }

    /// The name by which policies and annotations call it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The most that any of the five capability sets may hold.
    #[must_use]
    pub const fn capabilities(&self) -> CapabilitySet {
        self.capabilities
    }

    /// Whether programs may be executed from `/tmp`, `/var/tmp`, `/dev/shm` and writable volumes.
    #[must_use]
    pub const fn execute_from_writable(&self) -> bool {
        self.execute_from_writable
    }

    /// The profile's filter. Calls in no group get `ENOSYS`; foreign ABIs are killed.
    #[must_use]
    pub fn seccomp(&self, arch: Arch) -> Filter {
        let mut filter = Filter::new(arch, Action::ENOSYS, Action::KillProcess);
        for group in self.groups.iter().copied().flatten() {
            for number in group.calls.iter().filter_map(|name| arch.number(name)) {
                for rule in group.rules {
                    filter.push(number, Rule { conditions: rule.conditions.to_vec(), action: rule.action });
                }
            }
        }
        filter
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::seccomp::is_call;

    #[test]
    fn every_group_has_a_reason_and_every_name_is_a_call_in_one_group() {
        for profile in Profile::built_in() {
            let mut seen = BTreeMap::new();
            for group in profile.groups.iter().copied().flatten() {
                assert!(group.reason.len() > 20, "{:?} needs a reason", group.calls);
                for call in group.calls {
                    assert!(is_call(call), "{}: {call} is no system call", profile.name);
                    if let Some(other) = seen.insert(call, group.reason) {
                        panic!("{}: {call} is in two groups: {other}; {}", profile.name, group.reason);
                    }
                }
            }
        }
    }

    #[test]
    fn restricted_allows_nothing_that_baseline_denies() {
        for arch in [Arch::X86_64, Arch::Aarch64] {
            let (wide, narrow) = (Profile::BASELINE.seccomp(arch), Profile::RESTRICTED.seccomp(arch));
            for (name, number) in arch.calls() {
                assert!(narrow.decide(number, &[0; 6]) <= wide.decide(number, &[0; 6]), "{name}");
            }
        }
        assert!(Profile::RESTRICTED.capabilities.is_subset(Profile::BASELINE.capabilities));
    }

    /// The snapshot is the review: a call that moves between answers shows up in a diff.
    #[test]
    fn what_each_profile_answers() {
        for profile in Profile::built_in() {
            let filter = profile.seccomp(Arch::X86_64);
            let mut answers: BTreeMap<String, Vec<&str>> = BTreeMap::new();
            for (name, number) in Arch::X86_64.calls() {
                let conditional = filter.rules().any(|(n, rules)| n == number && !rules[0].conditions.is_empty());
                let action = filter.decide(number, &[0; 6]);
                let answer = if conditional { "by argument".to_owned() } else { format!("{action:?}") };
                answers.entry(answer).or_default().push(name);
            }
            let text: Vec<String> = answers
                .iter()
                .map(|(answer, names)| format!("{answer}: {}\n{}", names.len(), names.join(" ")))
                .collect();
            insta::assert_snapshot!(profile.name, text.join("\n\n"));
        }
    }
}
