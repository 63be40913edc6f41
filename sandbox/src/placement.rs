//! Where a process must be before it is locked down. Only the launcher knows: namespaces have no
//! names, and a pid can belong to another process a moment later.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::bundle::{Bundle, FileId, MountKind, NamespaceKind};

/// Namespaces by kind.
pub type Namespaces = BTreeMap<NamespaceKind, FileId>;

/// Where a process must be. Every kind of namespace is in `namespaces` or in `foreign`: the lock-down
/// fails for a kind about which nothing is said.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Placement {
    /// Namespaces that the process must be in.
    pub namespaces: Namespaces,
    /// Namespaces that it must have left: the launcher's.
    pub foreign: Namespaces,
    /// What the mount table may show of cgroups. Absent for an exec, which has init's mounts.
    #[serde(deserialize_with = "Option::deserialize")]
    pub cgroups: Option<CgroupMounts>,
}

/// The cgroup mounts of a container. Paths are in the container and have no symbolic links.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CgroupMounts {
    /// The container's cgroup, below the hierarchies' mounts. Absent in a cgroup namespace of the
    /// container's own, where every hierarchy's root is that cgroup.
    #[serde(deserialize_with = "Option::deserialize")]
    pub path: Option<PathBuf>,
    /// Where cgroups are mounted: at and below these, the container's cgroup, read-only.
    pub at: Vec<PathBuf>,
    /// Where volumes are mounted: cgroups may be a part of one that the policy allows.
    pub volumes: Vec<PathBuf>,
}

impl Placement {
    /// That of init. `launcher` holds the launcher's own namespaces, `cgroup` the container's cgroup
    /// below the hierarchies' mounts; the bundle's mounts have destinations without links.
    #[must_use]
    pub fn of_init(bundle: &Bundle, launcher: &Namespaces, cgroup: &Path) -> Self {
        let (mut namespaces, mut foreign) = (launcher.clone(), Namespaces::new());
        for namespace in &bundle.namespaces {
            if let Some(own) = namespaces.remove(&namespace.kind) {
                foreign.insert(namespace.kind, own);
            }
        }
        for namespace in &bundle.namespaces {
            if let Some(joined) = &namespace.joins {
                // It may be the launcher's: a pod on the host's network joins that.
                foreign.remove(&namespace.kind);
                namespaces.insert(namespace.kind, joined.file);
            }
        }
        let destinations = |wanted: fn(&MountKind) -> bool| {
            bundle.mounts.iter().filter(|mount| wanted(&mount.kind)).map(|mount| mount.destination.clone()).collect()
        };
        let cgroups = CgroupMounts {
            path: (!bundle.makes(NamespaceKind::Cgroup)).then(|| cgroup.to_owned()),
            at: destinations(|kind| matches!(kind, MountKind::Cgroup)),
            volumes: destinations(|kind| matches!(kind, MountKind::Bind(_))),
        };
        Self { namespaces, foreign, cgroups: Some(cgroups) }
    }

    /// That of an exec: exactly where init is.
    #[must_use]
    pub const fn of_exec(init: Namespaces) -> Self {
        Self { namespaces: init, foreign: Namespaces::new(), cgroups: None }
    }
}
