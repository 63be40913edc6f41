//! Profiles and sandboxes in lines, with their system calls, and which of the lines matter.

use std::collections::{BTreeMap, BTreeSet};

use hardened_sandbox::Sandbox;
use hardened_sandbox::policy::Profile;
use hardened_sandbox::profile::BuiltIn;

use crate::policy_source;
use crate::records::printable;
use crate::style::{DIM, PLAIN};
use crate::table::{folded, rows};

/// Rows that runc has no counterpart for: always shown, although `compatible` stands for runc here.
const UNLIKE_RUNC: &[&str] = &["Landlock", "calls of other ABIs"];

/// A profile, a line for each thing that it decides.
pub(crate) fn facts(profile: &Profile) -> Vec<(String, String)> {
    with_calls(profile.describe(), profile.sandbox())
}

/// The lines of a sandbox, with the number of its system calls, and those that it denies and runc does not.
pub(crate) fn with_calls(mut lines: Vec<(String, String)>, sandbox: &Sandbox) -> Vec<(String, String)> {
    let arch = sandbox.filter().arch();
    let all = arch.calls().count();
    let allowed = calls(sandbox);
    let fewer = &calls(&BuiltIn::Compatible.sandbox(arch)) - &allowed;
    let fewer: Vec<&str> = fewer.into_iter().collect();
    let fewer = if fewer.is_empty() { "none".to_owned() } else { fewer.join(", ") };
    let of_calls = [
        ("system calls".to_owned(), format!("{} of {all} named, some by argument", allowed.len())),
        ("calls that only runc allows".to_owned(), fewer),
    ];
    lines.splice(1..1, of_calls);
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

/// A line of a sandbox for people: what, how, and by whom where that is of interest.
pub(crate) struct Line {
    pub(crate) key: String,
    pub(crate) value: String,
    pub(crate) from: Option<String>,
}

impl From<(String, String)> for Line {
    fn from((key, value): (String, String)) -> Self {
        Self { key, value, from: None }
    }
}

/// The lines that differ from runc's defaults and are not empty, with long lists folded; or all of them.
pub(crate) fn table(lines: impl IntoIterator<Item = Line>, all: bool, width: usize) -> String {
    let compatible = BuiltIn::Compatible.sandbox(policy_source::arch());
    let runc: BTreeMap<String, String> = with_calls(compatible.describe(), &compatible).into_iter().collect();
    let matters = |Line { key, value, .. }: &Line| {
        value != "none" && (UNLIKE_RUNC.contains(&key.as_str()) || runc.get(key) != Some(value))
    };
    let lines: Vec<Line> = lines.into_iter().collect();
    let total = lines.len();
    let shown: Vec<(String, String)> = lines
        .into_iter()
        .filter(|line| all || matters(line))
        .map(|Line { key, value, from }| {
            let from = from.map(|from| format!("  {DIM}{}{PLAIN}", printable(&from))).unwrap_or_default();
            (key, format!("{}{from}", printable(&folded(&value, all))))
        })
        .collect();
    let left = total - shown.len();
    let mut table = rows(&shown, width);
    if left > 0 {
        table.push_str(&format!("  {DIM}{left} more rows are empty or as under runc: --all{PLAIN}\n"));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(built_in: BuiltIn, all: bool) -> String {
        let sandbox = built_in.sandbox(policy_source::arch());
        let lines = with_calls(sandbox.describe(), &sandbox).into_iter().map(Line::from);
        anstream::adapter::strip_str(&table(lines, all, 100)).to_string()
    }

    #[test]
    fn only_what_differs_from_runc_is_shown() {
        let short = shown(BuiltIn::Baseline, false);
        for line in
            ["  system folders", "  calls that only runc allows", "  Landlock", "more rows are empty or as under runc"]
        {
            assert!(short.contains(line), "{line}: {short}");
        }
        for line in ["none\n", "  privileged", "  exec ", "connect to TCP", "denied calls are told"] {
            assert!(!short.contains(line), "{line}: {short}");
        }
        let compatible = shown(BuiltIn::Compatible, false);
        assert_eq!(compatible.lines().count(), 3, "{compatible}");
    }

    #[test]
    fn all_of_it_is_shown_when_asked_for() {
        let (short, all) = (shown(BuiltIn::Restricted, false), shown(BuiltIn::Restricted, true));
        assert!(short.contains("; all with --all)") && !all.contains("--all"), "{short}{all}");
        let sandbox = BuiltIn::Restricted.sandbox(policy_source::arch());
        assert!(all.contains("mq_open") && !short.contains("mq_open"), "{short}{all}");
        for (key, _) in sandbox.describe() {
            assert!(all.contains(&key), "{key}: {all}");
        }
    }
}
