//! Verdicts, as `hardenctl check` reports them.

use std::path::PathBuf;

use hardened_sandbox::{Note, Reason};
use serde::Serialize;

use crate::warning::Warning;

/// The verdict on one object.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) file: PathBuf,
    pub(crate) line: usize,
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) containers: Vec<Verdict>,
}

/// The verdict on one container.
#[derive(Debug, Serialize)]
pub(crate) struct Verdict {
    /// Empty for the pod's own sandbox, and for an OCI spec.
    pub(crate) name: String,
    /// `containers`, `initContainers`, `ephemeralContainers`, or empty.
    pub(crate) list: String,
    pub(crate) admitted: bool,
    /// Rule and profile that decided, with file and line.
    pub(crate) by: String,
    pub(crate) violations: Vec<Finding>,
    /// What merely follows from `privileged: true`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) implied: Vec<Finding>,
    /// What is changed without asking.
    pub(crate) tightened: Vec<Change>,
    /// What may break because of it.
    pub(crate) warnings: Vec<Warning>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Finding {
    pub(crate) reason: Reason,
    pub(crate) field: String,
    pub(crate) problem: String,
    pub(crate) advice: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct Change {
    pub(crate) field: String,
    pub(crate) change: String,
}

/// Whether a note is of what a program may notice. (Masks and the like are added to what clients other than the kubelet ask
/// for.)
pub(crate) fn is_news(note: &Note) -> bool {
    !note.field.starts_with("linux.")
}
