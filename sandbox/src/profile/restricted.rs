//! `restricted`: placeholder until measured.
use super::{ALLOW, Group};

pub(super) const ALLOWED: &[Group] = &[Group {
    reason: "placeholder until measured with real programs",
    calls: &["read", "write", "execve", "exit", "exit_group"],
    rules: ALLOW,
}];
