//! What of procfs and sysfs must be masked or read-only once the container's mounts are made.

use std::path::PathBuf;

use crate::bundle::{Mount, MountKind};

/// Masks that the lock-down looks for, before anything else runs.
///
/// The runtime masks by path, and passes over paths that do not exist: anyone who swaps `/proc` for
/// something else at that moment would get a procfs without masks (CVE-2025-31133,
/// CVE-2025-52881). So the container's own process checks what came of it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaskPlan {
    /// Whether procfs is mounted, at `/proc`.
    pub proc: bool,
    /// Whether sysfs is mounted, at `/sys`.
    pub sys: bool,
    /// Hidden, with all below.
    pub masked: Vec<PathBuf>,
    /// Not to be written to.
    pub read_only: Vec<PathBuf>,
}

impl MaskPlan {
    /// From the hardened mounts and masks.
    pub(crate) fn new(mounts: &[Mount], masked: &[String], read_only: &[String]) -> Self {
        let paths = |list: &[String]| list.iter().map(PathBuf::from).collect();
        Self {
            proc: mounts.iter().any(|mount| matches!(mount.kind, MountKind::Proc { .. })),
            sys: mounts.iter().any(|mount| matches!(mount.kind, MountKind::Sysfs)),
            masked: paths(masked),
            read_only: paths(read_only),
        }
    }
}
