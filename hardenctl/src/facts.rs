//! Profiles and sandboxes in lines, with their system calls.

use std::collections::BTreeSet;

use hardened_sandbox::Sandbox;
use hardened_sandbox::policy::Profile;

/// A profile, a line for each thing that it decides.
pub(crate) fn facts(profile: &Profile) -> Vec<(String, String)> {
    with_calls(profile.describe(), profile.sandbox())
}

/// The lines of a sandbox, with the number of its system calls.
pub(crate) fn with_calls(mut lines: Vec<(String, String)>, sandbox: &Sandbox) -> Vec<(String, String)> {
    let arch = sandbox.filter().arch();
    let all = arch.calls().count();
    let allowed = calls(sandbox).len();
    lines.insert(1, ("system calls".to_owned(), format!("{allowed} of {all} named, some by argument")));
    lines
}

/// Calls that are allowed, with some arguments at least.
pub(crate) fn calls(sandbox: &Sandbox) -> BTreeSet<&'static str> {
    let filter = sandbox.filter();
    let allowed = |number| {
        let rules = filter.of(number);
        rules.iter().any(|r| r.action.allows()) || (rules.is_empty() && filter.default().allows())
    };
    filter.arch().calls().filter(|(_, number)| allowed(*number)).map(|(name, _)| name).collect()
}
