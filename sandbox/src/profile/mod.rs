//! The built-in profiles: data with reasons.

mod baseline;
mod compatible;
pub(crate) mod gated;
mod host_defaults;
pub(crate) mod masks;
mod pause;
mod restricted;

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::capability::CapabilitySet;
use crate::sandbox::{HostPaths, Sandbox};
use crate::seccomp::socket::{NO_FAMILY, number_of};
use crate::seccomp::{Action, Arch, Condition, Filter, Rule, Rules, SocketFamily};

/// System calls that get the same answer for the same reason.
#[derive(Debug)]
struct Group {
    /// Why these calls get this answer. Reviewed like code.
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

/// A profile that is part of this program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BuiltIn {
    /// The node's default: an unprivileged container without what a hardened one has no need for.
    Baseline,
    /// For programs that run as a user, serve the network and write their own data.
    Restricted,
    /// `baseline` for jobs that install packages: system folders are the image's to write.
    Build,
    /// What runc lets an unprivileged pod do, hostPath and host namespaces included: for moving a cluster over.
    Compatible,
    /// The pod's own sandbox container, which holds its namespaces and waits.
    Pause,
    /// What `privileged: true` gets where a rule of the node lets it through: no_new_privs, and
    /// whatever it asks for. Never anybody's default.
    Privileged,
}

impl BuiltIn {
    /// All.
    pub const ALL: [Self; 6] =
        [Self::Baseline, Self::Restricted, Self::Build, Self::Compatible, Self::Pause, Self::Privileged];

    /// The name by which policies and annotations call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Baseline => "baseline",
            Self::Restricted => "restricted",
            Self::Build => "build",
            Self::Compatible => "compatible",
            Self::Pause => "pause",
            Self::Privileged => "privileged",
        }
    }

    const fn capabilities(self) -> CapabilitySet {
        match self {
            Self::Baseline | Self::Build => baseline::CAPABILITIES,
            Self::Compatible => compatible::CAPABILITIES,
            Self::Restricted => CapabilitySet::of(&["NET_BIND_SERVICE"]),
            Self::Pause => CapabilitySet::EMPTY,
            Self::Privileged => CapabilitySet::ALL,
        }
    }

    const fn groups(self) -> &'static [&'static [Group]] {
        match self {
            Self::Baseline | Self::Build => &[
                baseline::ALLOWED,
                baseline::SHARED,
                baseline::CONDITIONAL,
                baseline::UNLIKE_COMPATIBLE,
                baseline::DENIED,
            ],
            Self::Compatible => &[
                baseline::ALLOWED,
                baseline::SHARED,
                baseline::CONDITIONAL,
                compatible::UNLIKE_BASELINE,
                baseline::DENIED,
            ],
            Self::Restricted => &[
                restricted::ALLOWED,
                baseline::SHARED,
                baseline::CONDITIONAL,
                baseline::UNLIKE_COMPATIBLE,
                baseline::DENIED,
                restricted::DENIED,
            ],
            Self::Pause => &[pause::ALLOWED],
            Self::Privileged => &[],
        }
    }

    /// The profile's filter. Calls in no group get `ENOSYS`; foreign ABIs are killed.
    #[must_use]
    pub fn seccomp(self, arch: Arch) -> Filter {
        let default = if self == Self::Privileged { Action::Allow } else { Action::ENOSYS };
        let mut filter = Filter::new(arch, default, Action::KillProcess);
        for group in self.groups().iter().copied().flatten() {
            let rules = group.rules.iter().map(|r| Rule { conditions: r.conditions.to_vec(), action: r.action });
            let rules: Rules = rules.collect();
            for number in group.calls.iter().filter_map(|name| arch.number(name)) {
                match filter.of(number) {
                    [] => filter.share(number, Arc::clone(&rules)),
                    earlier => filter.set(number, [earlier, &rules].concat()),
                }
            }
        }
        filter
    }

    /// What the profile allows.
    #[must_use]
    pub fn sandbox(self, arch: Arch) -> Sandbox {
        let mut sandbox = Sandbox::widest(self.name(), self.capabilities(), self.seccomp(arch));
        // Nothing of the workload runs in a pod's sandbox; a privileged container may use notifications itself.
        sandbox.explained = !matches!(self, Self::Pause | Self::Privileged);
        // Every program that makes threads tries it, and goes on without.
        sandbox.quiet = arch.number("clone3").into_iter().collect();
        match self {
            Self::Baseline | Self::Restricted | Self::Build => {
                sandbox.system_writable = self == Self::Build;
                sandbox.execute_from_writable = self != Self::Restricted;
                sandbox.abstract_sockets = false;
                sandbox.privileged = false;
                sandbox.host_namespaces.clear();
                sandbox.host_paths = [host_defaults::paths()].into();
                sandbox.later_mounts = false;
                sandbox.hooks = Some(BTreeSet::new());
                sandbox.sysctls = [host_defaults::sysctls()].into();
            }
            Self::Compatible => {
                sandbox.privileged = false;
                sandbox.host_paths = [HostPaths::anything()].into();
                sandbox.sysctls = [compatible::sysctls()].into();
            }
            // Whether the pod may share the host's namespaces or set sysctls is for the profile of
            // its containers, with which this one is met.
            Self::Pause => {
                sandbox.system_writable = false;
                sandbox.execute_from_writable = false;
                sandbox.abstract_sockets = false;
                sandbox.host_paths = [HostPaths::none()].into();
                sandbox.exec.refused = true;
            }
            Self::Privileged => sandbox.landlock = false,
        }
        sandbox
    }
}

/// Why a call is denied by a profile that is built in, where it is named for that.
pub(crate) fn reason_of_denial(call: &str) -> Option<&'static str> {
    let groups = [baseline::DENIED, baseline::CONDITIONAL, baseline::UNLIKE_COMPATIBLE, restricted::DENIED];
    let groups = groups.into_iter().flatten();
    groups.filter(|group| group.calls.contains(&call)).map(|group| group.reason).next()
}

/// Whether a profile is part of this program.
pub(crate) fn is_built_in(name: &str) -> bool {
    BuiltIn::ALL.iter().any(|built_in| built_in.name() == name)
}

/// The rules of socket(2) that let these families through: those that `baseline` has for a family, or
/// all of it.
pub(crate) fn socket_rules(families: &[SocketFamily]) -> Vec<Rule> {
    let mut rules = Vec::new();
    for family in families.iter().map(|family| Condition::int(0, number_of(*family))) {
        let before = rules.len();
        let of_family = baseline::SOCKET.iter().filter(|rule| rule.conditions.contains(&family));
        rules.extend(of_family.map(|rule| Rule { conditions: rule.conditions.to_vec(), action: rule.action }));
        if rules.len() == before {
            rules.push(Rule { conditions: vec![family], action: Action::Allow });
        }
    }
    rules.push(Rule::always(NO_FAMILY));
    rules
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::seccomp::interpret::{interpret, oracle};
    use crate::seccomp::{Call, is_call};

    #[test]
    fn every_group_has_a_reason_and_every_name_is_a_call_in_one_group() {
        for profile in BuiltIn::ALL {
            let mut seen = BTreeMap::new();
            for group in profile.groups().iter().copied().flatten() {
                assert!(group.reason.len() > 20, "{:?} needs a reason", group.calls);
                for call in group.calls {
                    assert!(is_call(call), "{}: {call} is no system call", profile.name());
                    if let Some(other) = seen.insert(call, group.reason) {
                        panic!("{}: {call} is in two groups: {other}; {}", profile.name(), group.reason);
                    }
                }
            }
        }
    }

    #[test]
    fn each_profile_is_within_the_next() {
        for arch in [Arch::X86_64, Arch::Aarch64] {
            let all = [BuiltIn::Restricted, BuiltIn::Baseline, BuiltIn::Build, BuiltIn::Compatible];
            let all = all.map(|profile| profile.sandbox(arch));
            for pair in all.windows(2) {
                assert!(pair[0].is_within(&pair[1]), "{:?} {:?}", pair[0].names(), pair[1].names());
                assert!(!pair[1].is_within(&pair[0]), "{:?} {:?}", pair[0].names(), pair[1].names());
            }
        }
    }

    #[test]
    fn restricted_allows_nothing_that_baseline_denies() {
        for arch in [Arch::X86_64, Arch::Aarch64] {
            let wide = BuiltIn::Baseline.seccomp(arch);
            for narrow in [BuiltIn::Restricted.seccomp(arch), BuiltIn::Pause.seccomp(arch)] {
                for (name, number) in arch.calls() {
                    assert!(
                        !narrow.decide(number, &[0; 6]).allows() || wide.decide(number, &[0; 6]).allows(),
                        "{name}"
                    );
                }
            }
        }
        assert!(BuiltIn::Restricted.capabilities().is_subset(BuiltIn::Baseline.capabilities()));
    }

    /// The snapshot is the review: a call that moves between answers shows up in a diff.
    #[test]
    fn what_each_profile_answers() {
        for profile in BuiltIn::ALL {
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
            insta::assert_snapshot!(profile.name(), text.join("\n\n"));
        }
    }

    /// Every built-in profile, every call of the architecture, against libseccomp.
    #[test]
    fn built_in_profiles_agree_with_libseccomp_on_every_call() {
        for arch in [Arch::X86_64, Arch::Aarch64] {
            for profile in BuiltIn::ALL {
                let filter = profile.seccomp(arch);
                let (comparable, theirs) = oracle(&filter).expect("libseccomp takes the built-in profiles");
                let ours = comparable.compile().unwrap();
                for number in 0..600 {
                    for first in [0, 1, 2, 10, 16, 38, 40, 0x1000_0000, 0x5412, 0x1_0000_5412, u64::MAX] {
                        // Family, type and protocol of a socket.
                        let seconds =
                            if arch.name(number) == Some("socket") { vec![1, 2, 3, 5, 10] } else { vec![first] };
                        let thirds = [0, 1, 6, 9, 15, 17, 58, 132, 262];
                        for (second, third) in seconds.iter().flat_map(|s| thirds.map(|t| (*s, t))) {
                            let call = Call { arch: arch.audit(), number, arguments: [first, second, third, 0, 0, 0] };
                            assert_eq!(
                                interpret(&ours, &call),
                                interpret(&theirs, &call),
                                "{} {arch:?} {:?} {call:?}",
                                profile.name(),
                                arch.name(number)
                            );
                        }
                    }
                }
                println!("{} {arch:?}: ours {} instructions, libseccomp {}", profile.name(), ours.len(), theirs.len());
            }
        }
    }
}
