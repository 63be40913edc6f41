//! What only the node can tell about a container, as a value: the decision never looks itself.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::bundle::{FileId, NamespaceKind};
use crate::mark::Mark;

/// What was found on the node. Without any, as `hardenctl check` decides, paths are judged as the spec
/// spells them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observations {
    /// The container's id: containerd keeps some of its files by it.
    pub container: String,
    /// containerd's namespace: with the id, where the cgroup is that no spec names.
    pub namespace: String,
    /// The runtime handler, for the rules that select by it.
    pub handler: Option<String>,
    /// What is at the sources of bind mounts, by how the spec spells them.
    pub sources: BTreeMap<PathBuf, VolumeSource>,
    /// Where the paths are that the policy has rules for. What is not there has no entry.
    pub places: BTreeMap<PathBuf, Location>,
    /// Those of them that a container may have made lead there: nothing is granted at such a place.
    pub untrusted: BTreeSet<PathBuf>,
    /// The volumes that the kubelet keeps for this pod, with their paths: parts of them are mounted
    /// elsewhere for `subPath`.
    pub volumes: Vec<(PathBuf, Location)>,
    /// The namespaces that are joined.
    pub namespaces: BTreeMap<NamespaceKind, Joined>,
    /// SELinux labels of the spec that the node's SELinux policy does not know.
    pub unknown_labels: Vec<String>,
    /// Devices of the spec whose path on the host is another device, or none.
    pub other_devices: Vec<PathBuf>,
    /// By which audit records know the container; absent where the policy has none made.
    pub mark: Option<Mark>,
}

/// What is at the source of a bind mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeSource {
    /// Its path, without any symbolic link.
    pub path: PathBuf,
    /// Which file it is.
    pub file: FileId,
    /// Whether it is a folder.
    pub is_directory: bool,
    /// Where it lies; absent where nobody needs to know, since it is the pod's own.
    pub location: Option<Location>,
    /// Another path of the host that shows it, by which people know it: the kubelet mounts parts of
    /// volumes where their paths say nothing.
    pub known_as: Option<PathBuf>,
    /// The mounts below it, with where they lie.
    pub below: Vec<(PathBuf, Location)>,
}

/// A place in a file system, by whatever path the host sees it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Location {
    /// The file system: `major:minor` of proc_pid_mountinfo(5).
    pub file_system: String,
    /// The path in it.
    pub path: PathBuf,
}

impl Location {
    /// Whether it is at a place, or below.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        self.file_system == other.file_system && self.path.starts_with(&other.path)
    }
}

/// A namespace that a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Joined {
    /// Which.
    pub file: FileId,
    /// Whether it is the host's own.
    pub is_hosts: bool,
}

impl Observations {
    /// None: for who decides without the node.
    #[must_use]
    pub fn none(handler: Option<&str>) -> Self {
        let name = || "offline".to_owned();
        Self { container: name(), namespace: name(), handler: handler.map(str::to_owned), ..Self::default() }
    }

    /// What is at the source of a bind mount, as the spec spells it.
    pub(crate) fn source(&self, spelled: &Path) -> Option<&VolumeSource> {
        self.sources.get(spelled)
    }

    /// The path by which people know what is at the source of a bind mount.
    pub(crate) fn known_as<'a>(&'a self, spelled: &'a Path) -> &'a Path {
        self.source(spelled).and_then(|source| source.known_as.as_deref()).unwrap_or(spelled)
    }

    /// Whether a namespace that is joined is the host's.
    pub(crate) fn is_hosts(&self, kind: NamespaceKind) -> bool {
        self.namespaces.get(&kind).is_some_and(|joined| joined.is_hosts)
    }
}
