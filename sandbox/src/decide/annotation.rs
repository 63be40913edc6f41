//! What a pod asks for by annotation: only ever less.

use std::collections::{BTreeMap, BTreeSet};

use crate::policy::{Policy, Profile};
use crate::refusal::Violation;
use crate::request::{ANNOTATION_PREFIX, Request};
use crate::sandbox::{Sandbox, both};

/// A pod asks for a profile with this annotation, and gets the meet with the node's.
pub const PROFILE_ANNOTATION: &str = "io.containerd.hardened.v1/profile";

/// All annotations, and what each takes.
pub const ANNOTATIONS: &[(&str, &str)] = &[
    (PROFILE_ANNOTATION, "the name of a profile"),
    ("io.containerd.hardened.v1/read-only-root", "true"),
    ("io.containerd.hardened.v1/exec", "refuse"),
    ("io.containerd.hardened.v1/bind-tcp", "TCP ports as in \"8080,9090\", or none"),
    ("io.containerd.hardened.v1/connect-tcp", "TCP ports as in \"443,5432\", or none"),
];

/// The profile that a pod asks for, whether there is one of that name or not.
#[must_use]
pub fn profile(request: &Request) -> Option<&str> {
    request.annotations.get(PROFILE_ANNOTATION).map(String::as_str)
}

/// The sandbox, tightened by the pod's annotations.
pub(crate) fn tighten(
    mut sandbox: Sandbox,
    annotations: &BTreeMap<String, String>,
    policy: &Policy,
    violations: &mut Vec<Violation>,
) -> Sandbox {
    for (key, value) in annotations {
        match (key.strip_prefix(ANNOTATION_PREFIX).unwrap_or_default(), value.as_str()) {
            ("profile", name) => match policy.profile(name) {
                Some(profile) => sandbox = sandbox.meet(profile.sandbox()),
                None => {
                    let sensible = |name: &&str| !["pause", "privileged"].contains(name);
                    let known: Vec<&str> = policy.profiles().map(Profile::name).filter(sensible).collect();
                    violations.push(invalid(
                        key,
                        format!("there is no profile {name:?}"),
                        format!("ask for one of: {}", known.join(", ")),
                    ));
                }
            },
            ("read-only-root", "true") => sandbox.read_only_root = true,
            ("exec", "refuse") => sandbox.exec.refused = true,
            ("bind-tcp", list) if ports(list).is_some() => sandbox.bind_tcp = both(&sandbox.bind_tcp, &ports(list)),
            ("connect-tcp", list) if ports(list).is_some() => {
                sandbox.connect_tcp = both(&sandbox.connect_tcp, &ports(list))
            }
            (_, value) => violations.push(match ANNOTATIONS.iter().find(|(known, _)| known == key) {
                Some((_, takes)) => invalid(key, format!("{value:?} is not what it takes"), format!("give it {takes}")),
                None => {
                    let known: Vec<&str> =
                        ANNOTATIONS.iter().filter_map(|(k, _)| k.strip_prefix(ANNOTATION_PREFIX)).collect();
                    let known = format!("use {ANNOTATION_PREFIX} with one of: {}", known.join(", "));
                    invalid(key, "is not an annotation of this runtime", known)
                }
            }),
        }
    }
    sandbox
}

fn invalid(key: &str, problem: impl Into<String>, advice: impl Into<String>) -> Violation {
    Violation::invalid(format!("annotations[{key}]"), problem, advice).of_metadata(format!("annotations[{key}]"))
}

fn ports(list: &str) -> Option<BTreeSet<u16>> {
    if list == "none" {
        return Some(BTreeSet::new());
    }
    list.split(',').map(|port| port.trim().parse().ok()).collect()
}
