//! Why a container is not started, for the person who reads `kubectl describe pod`.

use std::fmt;

/// Which kind of refusal it is; decides the gRPC code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The policy forbids what was asked for (`PERMISSION_DENIED`).
    Policy,
    /// The request cannot be honoured by anyone (`INVALID_ARGUMENT`).
    Invalid,
    /// The node lacks a mechanism that is mandatory (`FAILED_PRECONDITION`).
    Unsupported,
}

/// One thing that keeps a container from starting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Kind of refusal.
    pub reason: Reason,
    /// Where in the OCI spec.
    pub field: String,
    /// What was found there, and what is allowed.
    pub problem: String,
    /// What to change.
    pub advice: String,
}

impl Violation {
    pub(crate) fn policy(field: impl Into<String>, problem: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { reason: Reason::Policy, field: field.into(), problem: problem.into(), advice: advice.into() }
    }

    pub(crate) fn invalid(field: impl Into<String>, problem: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { reason: Reason::Invalid, field: field.into(), problem: problem.into(), advice: advice.into() }
    }

    pub(crate) fn unsupported(field: impl Into<String>, problem: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { reason: Reason::Unsupported, field: field.into(), problem: problem.into(), advice: advice.into() }
    }
}

/// All that keeps a container, or an exec, from starting. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The profile that was asked, in the words of a message.
    pub(crate) profile: String,
    pub(crate) violations: Vec<Violation>,
}

impl Refusal {
    /// Every violation.
    #[must_use]
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// The kind of the whole: `Invalid` before `Unsupported` before `Policy`, since a request that
    /// makes no sense cannot be judged.
    #[must_use]
    pub fn reason(&self) -> Reason {
        let has = |reason| self.violations.iter().any(|v| v.reason == reason);
        [Reason::Invalid, Reason::Unsupported].into_iter().find(|r| has(*r)).unwrap_or(Reason::Policy)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hardened: refused by {}:", self.profile)?;
        for (i, v) in self.violations.iter().enumerate() {
            let separator = if self.violations.len() > 1 { format!(" ({})", i + 1) } else { String::new() };
            write!(f, "{separator} {}: {} -> {}.", v.field, v.problem, v.advice)?;
        }
        Ok(())
    }
}

impl std::error::Error for Refusal {}

/// Something that was tightened or clamped rather than refused.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Note {
    /// Where in the OCI spec.
    pub field: String,
    /// What was changed and why.
    pub change: String,
}

impl Note {
    pub(crate) fn new(field: impl Into<String>, change: impl Into<String>) -> Self {
        Self { field: field.into(), change: change.into() }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.change)
    }
}
