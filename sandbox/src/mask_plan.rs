//! What of procfs and sysfs must be masked or read-only once the container's mounts are made.

use std::path::PathBuf;

use oci_spec::runtime::{Linux, Mount};

/// Masks that the lock-down looks for, before anything else runs.
///
/// The runtime masks by path, and passes over paths that do not exist: whoever swaps `/proc` for
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
    pub(crate) fn new(linux: &Linux, mounts: &[Mount]) -> Self {
        let mounted = |kind: &str| mounts.iter().any(|mount| mount.typ().as_deref() == Some(kind));
        let paths = |list: &Option<Vec<String>>| list.iter().flatten().map(PathBuf::from).collect();
        Self {
            proc: mounted("proc"),
            sys: mounted("sysfs"),
            masked: paths(linux.masked_paths()),
            read_only: paths(linux.readonly_paths()),
        }
    }
}
