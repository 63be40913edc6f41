//! Why a container is not started, for the person who reads `kubectl describe pod`.

use std::fmt;

use crate::identity::{Identity, Kind};
use crate::record::{Enforcer, Record, printable};

/// Most that a record says of what was refused, and of what to change: a container's files of records are small.
const MAX_TOLD_CHARACTERS: usize = 1024;

/// Which kind of refusal it is; decides the gRPC code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The policy forbids what was asked for (`PERMISSION_DENIED`).
    Policy,
    /// The request cannot be honoured by anyone (`INVALID_ARGUMENT`).
    Invalid,
    /// The node lacks a mechanism that is mandatory (`FAILED_PRECONDITION`).
    Unsupported,
}

/// A field of a Kubernetes pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PodField {
    /// Below `metadata`.
    Metadata(String),
    /// Below `spec`.
    Pod(String),
    /// Below the container in `spec.containers`.
    Container(String),
}

/// One thing that keeps a container from starting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Kind of refusal.
    pub reason: Reason,
    /// Where in the OCI spec.
    pub field: String,
    /// Where a pod says the same.
    pub pod_field: Option<PodField>,
    /// What was found there, and what is allowed.
    pub problem: String,
    /// What to change.
    pub advice: String,
}

impl Violation {
    fn new(reason: Reason, field: impl Into<String>, problem: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { reason, field: field.into(), pod_field: None, problem: problem.into(), advice: advice.into() }
    }

    pub(crate) fn policy(field: impl Into<String>, problem: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::new(Reason::Policy, field, problem, advice)
    }

    pub(crate) fn invalid(field: impl Into<String>, problem: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::new(Reason::Invalid, field, problem, advice)
    }

    pub(crate) fn unsupported(field: impl Into<String>, problem: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::new(Reason::Unsupported, field, problem, advice)
    }

    /// Names the pod's field below `metadata`.
    pub(crate) fn of_metadata(mut self, field: impl Into<String>) -> Self {
        self.pod_field = Some(PodField::Metadata(field.into()));
        self
    }

    /// Names the pod's field below `spec`.
    pub(crate) fn of_pod(mut self, field: impl Into<String>) -> Self {
        self.pod_field = Some(PodField::Pod(field.into()));
        self
    }

    /// Names the container's field.
    pub(crate) fn of_container(mut self, field: impl Into<String>) -> Self {
        self.pod_field = Some(PodField::Container(field.into()));
        self
    }

    /// The field, in the words of the request: Kubernetes' for a pod, otherwise the OCI spec's.
    fn field_for(&self, identity: &Identity) -> String {
        let is_pod = identity.pod.is_some();
        match (&self.pod_field, &identity.container) {
            (Some(PodField::Metadata(field)), _) if is_pod => format!("metadata.{field}"),
            (Some(PodField::Pod(field)), _) if is_pod => format!("spec.{field}"),
            (Some(PodField::Container(field)), Some(name)) if is_pod => format!("spec.containers[{name}].{field}"),
            // The sandbox's security context is the pod's.
            (Some(PodField::Container(field)), None) if identity.kind == Some(Kind::Sandbox) => format!("spec.{field}"),
            _ => self.field.clone(),
        }
    }
}

/// All that keeps a container, or an exec, from starting. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The rule and profile that were asked, in the words of a message.
    pub(crate) by: String,
    pub(crate) identity: Box<Identity>,
    pub(crate) violations: Vec<Violation>,
    /// What a privileged container brings along, and is refused with it.
    pub(crate) implied: Vec<Violation>,
}

impl Refusal {
    /// Every violation.
    #[must_use]
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// What merely follows from `privileged: true`, where that is a violation: capabilities, devices, `/sys`.
    #[must_use]
    pub fn implied(&self) -> &[Violation] {
        &self.implied
    }

    /// The rule and profile that decided, with file and line.
    #[must_use]
    pub fn by(&self) -> &str {
        &self.by
    }

    /// The field of a violation, in the words of the request.
    #[must_use]
    pub fn field_of(&self, violation: &Violation) -> String {
        violation.field_for(&self.identity)
    }

    /// The record of it, of a container that may not start, given what every record of it has.
    #[must_use]
    pub fn record(&self, about: &Record) -> Record {
        let all = |tell: &dyn Fn(&Violation) -> String| {
            let text = self.violations.iter().map(tell).collect::<Vec<_>>().join("; ");
            printable(&text.chars().take(MAX_TOLD_CHARACTERS).collect::<String>())
        };
        Record {
            kind: "MatchedPolicy".to_owned(),
            enforcer: Enforcer::Policy,
            operation: "Create".to_owned(),
            resource: printable(&about.container_image),
            result: "refused".to_owned(),
            policy_name: printable(&self.by),
            message: all(&|violation| format!("{}: {}", self.field_of(violation), violation.problem)),
            setting: Some(all(&|violation| violation.advice.clone())),
            ..about.clone()
        }
    }

    /// Who was refused.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
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
        let what = if self.implied.is_empty() { "" } else { "privileged: true is " };
        write!(f, "hardened: {what}refused by {}:", self.by)?;
        for (i, v) in self.violations.iter().enumerate() {
            let separator = if self.violations.len() > 1 { format!(" ({})", i + 1) } else { String::new() };
            write!(f, "{separator} {}: {} -> {}.", self.field_of(v), v.problem, v.advice)?;
        }
        Ok(())
    }
}

impl std::error::Error for Refusal {}

/// Something that was tightened or clamped rather than refused.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
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
