//! Where a process must be before it is locked down. Only the launcher knows: namespaces have no
//! names, and a pid can belong to another process a moment later.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::bundle::{Bundle, FileId, MountKind, Namespace, NamespaceKind};

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
        let (namespaces, foreign) = init_namespaces(&bundle.namespaces, launcher);
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

/// Namespaces that init must be in, and those that it must have left. What the container neither makes nor
/// joins, it shares with the launcher.
fn init_namespaces(container: &[Namespace], launcher: &Namespaces) -> (Namespaces, Namespaces) {
    let (mut namespaces, mut foreign) = (launcher.clone(), Namespaces::new());
    for Namespace { kind, joins } in container {
        let launchers = namespaces.remove(kind);
        match joins {
            // It may be the launcher's: a pod on the host's network joins that.
            Some(joined) => drop(namespaces.insert(*kind, joined.file)),
            None => foreign.extend(launchers.map(|namespace| (*kind, namespace))),
        }
    }
    (namespaces, foreign)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::JoinedNamespace;

    #[test]
    fn every_kind_of_namespace_is_made_or_joined_or_the_launchers() {
        let id = |inode| FileId { device: 4, inode };
        let launcher: Namespaces = NamespaceKind::ALL.into_iter().zip((1..).map(id)).collect();
        let joins = |inode| Some(JoinedNamespace { path: "/run/netns/x".into(), file: id(inode) });
        let container = [
            Namespace { kind: NamespaceKind::Mount, joins: None },
            Namespace { kind: NamespaceKind::Network, joins: joins(70) },
            Namespace { kind: NamespaceKind::Uts, joins: joins(launcher[&NamespaceKind::Uts].inode) },
        ];
        let (namespaces, foreign) = init_namespaces(&container, &launcher);
        assert_eq!(foreign, [(NamespaceKind::Mount, launcher[&NamespaceKind::Mount])].into());
        assert_eq!(namespaces[&NamespaceKind::Network], id(70));
        for kind in [NamespaceKind::Pid, NamespaceKind::Ipc, NamespaceKind::Uts, NamespaceKind::User] {
            assert_eq!(namespaces[&kind], launcher[&kind], "{kind:?}");
        }
        for kind in NamespaceKind::ALL {
            assert!(namespaces.contains_key(&kind) != foreign.contains_key(&kind), "{kind:?}");
        }
    }
}
