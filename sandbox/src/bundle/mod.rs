//! What an admitted container is made of. It is all that a launcher and libcontainer get to know of
//! the pod's spec: what is not in these types cannot reach them.

mod mount;
mod resources;
mod write;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use self::mount::{FileId, IdMapping, IdMappings, Mount, MountFlag, MountFlags, MountKind, Propagation, Volume};
pub use self::resources::Resources;
pub use self::write::{Places, write};
use crate::capability::Capabilities;

/// A container, as decided. Made by an admission, and by nothing else but the launcher that receives it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bundle {
    /// Where containerd keeps the root file system. Mounted in the launcher's mount namespace alone.
    pub root: PathBuf,
    /// Whether the root file system is read-only.
    pub root_read_only: bool,
    /// Whether device nodes of the image are opened: of a privileged container alone.
    pub root_devices: bool,
    /// The entrypoint.
    pub process: Process,
    /// Host name, in a UTS namespace of the container's own.
    #[serde(deserialize_with = "Option::deserialize")]
    pub hostname: Option<String>,
    /// NIS domain name.
    #[serde(deserialize_with = "Option::deserialize")]
    pub domainname: Option<String>,
    /// In the order in which they are made.
    pub mounts: Vec<Mount>,
    /// One of a kind at the most.
    pub namespaces: Vec<Namespace>,
    /// Of the container's user namespace, and of volumes that ask for mapped owners.
    #[serde(deserialize_with = "Option::deserialize")]
    pub id_mappings: Option<IdMappings>,
    /// Nodes that are made in `/dev`, beside the standard ones.
    pub devices: Vec<DeviceNode>,
    /// Namespaced sysctls.
    pub sysctls: BTreeMap<String, String>,
    /// Hidden paths of `/proc` and `/sys`.
    pub masked_paths: Vec<String>,
    /// Read-only paths of `/proc` and `/sys`.
    pub read_only_paths: Vec<String>,
    /// The cgroup, which the launcher makes.
    pub cgroup: CgroupPath,
    /// Its limits.
    pub resources: Resources,
    /// Which devices its processes may open or make, in order: the last rule that matches decides.
    pub device_rules: Vec<DeviceRule>,
    /// `oom_score_adj`, -1000 to 1000: proc_pid_oom_score_adj(5).
    #[serde(deserialize_with = "Option::deserialize")]
    pub oom_score_adj: Option<i32>,
    /// SELinux label of the files of the root file system, for the launcher that mounts it.
    #[serde(deserialize_with = "Option::deserialize")]
    pub files_label: Option<String>,
    /// Whether executable memfds are refused in the container's pid namespace: `vm.memfd_noexec = 2`.
    pub memfd_noexec: bool,
    /// The node's own programs that run outside of the container while it is made.
    pub hooks: Hooks,
    /// Folders of the image that are read-only, or from which nothing is executed.
    pub system: SystemFolders,
}

/// A process, as libcontainer gets it. What the lock-down does (labels, working directory, filter) is
/// in its plan instead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// Whether it gets a terminal.
    pub terminal: bool,
    /// Rows and columns of the terminal.
    #[serde(deserialize_with = "Option::deserialize")]
    pub console_size: Option<(u16, u16)>,
    /// The program and its arguments; never empty.
    pub args: Vec<String>,
    /// `KEY=value`, with a `PATH` and a `HOME`.
    pub env: Vec<String>,
    /// Who it runs as.
    pub user: User,
    /// The sets of the plan.
    pub capabilities: Capabilities,
    /// Limits by OCI name (`RLIMIT_NOFILE`): soft and hard.
    pub rlimits: BTreeMap<String, (u64, u64)>,
}

/// User and groups, in the container's user namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// uid.
    pub uid: u32,
    /// gid.
    pub gid: u32,
    /// Supplementary groups.
    pub additional_gids: Vec<u32>,
    /// umask, where it is not 022.
    #[serde(deserialize_with = "Option::deserialize")]
    pub umask: Option<u32>,
}

/// A namespace of the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Namespace {
    /// Which.
    pub kind: NamespaceKind,
    /// The namespace that is joined; absent where one is made.
    #[serde(deserialize_with = "Option::deserialize")]
    pub joins: Option<JoinedNamespace>,
}

/// A namespace that exists already.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinedNamespace {
    /// Its file, which may be reached by a magic link: `/proc/PID/ns/net`.
    pub path: PathBuf,
    /// Which namespace the path led to when it was judged. The path must still lead there.
    pub file: FileId,
}

/// Kinds of namespaces: namespaces(7). Time namespaces are not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NamespaceKind {
    /// Mount points.
    Mount,
    /// Process ids.
    Pid,
    /// System V IPC and POSIX message queues.
    Ipc,
    /// Network.
    Network,
    /// Host and domain name.
    Uts,
    /// User and group ids.
    User,
    /// The root of the cgroup hierarchies.
    Cgroup,
}

impl NamespaceKind {
    /// All.
    pub const ALL: [Self; 7] = [Self::Mount, Self::Pid, Self::Ipc, Self::Network, Self::Uts, Self::User, Self::Cgroup];

    /// Its file in `/proc/PID/ns`.
    #[must_use]
    pub const fn file_name(self) -> &'static str {
        match self {
            Self::Mount => "mnt",
            Self::Pid => "pid",
            Self::Ipc => "ipc",
            Self::Network => "net",
            Self::Uts => "uts",
            Self::User => "user",
            Self::Cgroup => "cgroup",
        }
    }
}

/// A device node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceNode {
    /// In the container.
    pub path: PathBuf,
    /// Block device, rather than character device.
    pub block: bool,
    /// Major number.
    pub major: i64,
    /// Minor number.
    pub minor: i64,
    /// Permissions; absent for libcontainer's default.
    #[serde(deserialize_with = "Option::deserialize")]
    pub mode: Option<u32>,
    /// Owner.
    #[serde(deserialize_with = "Option::deserialize")]
    pub uid: Option<u32>,
    /// Group.
    #[serde(deserialize_with = "Option::deserialize")]
    pub gid: Option<u32>,
}

/// A rule about devices: Documentation/admin-guide/cgroup-v1/devices.rst.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceRule {
    /// Allow, rather than deny.
    pub allow: bool,
    /// Block or character devices; absent for both.
    #[serde(deserialize_with = "Option::deserialize")]
    pub block: Option<bool>,
    /// Major number; absent for all.
    #[serde(deserialize_with = "Option::deserialize")]
    pub major: Option<i64>,
    /// Minor number; absent for all.
    #[serde(deserialize_with = "Option::deserialize")]
    pub minor: Option<i64>,
    /// Some of `r`, `w` and `m` (make a node).
    pub access: String,
}

/// Where the container's cgroup is: runtime-spec `config-linux.md`, "Cgroups Path".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum CgroupPath {
    /// Below the hierarchies' mounts: an absolute path without `..`, and not their roots.
    Path(PathBuf),
    /// A scope of systemd's.
    Unit {
        /// `kubepods-burstable-pod1.slice`.
        slice: String,
        /// `cri-containerd`.
        prefix: String,
        /// The container's id.
        name: String,
    },
}

impl CgroupPath {
    /// A path, or `SLICE:PREFIX:NAME`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        const EXPECTED: &str = "expected an absolute path below / without .., or SLICE:PREFIX:NAME";
        if text.contains('\0') {
            return Err(format!("{text:?}: {EXPECTED}"));
        }
        if text.contains(':') && !text.starts_with('/') {
            let plain = |part: &str| !part.is_empty() && !part.contains('/') && !part.starts_with('.');
            return match text.split(':').collect::<Vec<_>>()[..] {
                [slice, prefix, name] if slice.ends_with(".slice") && [slice, prefix, name].into_iter().all(plain) => {
                    Ok(Self::Unit { slice: slice.to_owned(), prefix: prefix.to_owned(), name: name.to_owned() })
                }
                _ => Err(format!("{text:?}: {EXPECTED}")),
            };
        }
        match crate::path::absolute(Path::new(text)) {
            Some(path) if path != Path::new("/") => Ok(Self::Path(path)),
            Some(_) | None => Err(format!("{text:?}: {EXPECTED}")),
        }
    }

    /// The same text as a path, as runc takes it where systemd makes no cgroups.
    #[must_use]
    pub fn literal(&self) -> Self {
        match self {
            Self::Path(_) => self.clone(),
            Self::Unit { .. } => Self::Path(Path::new("/").join(self.to_string())),
        }
    }
}

impl std::fmt::Display for CgroupPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Unit { slice, prefix, name } => write!(f, "{slice}:{prefix}:{name}"),
        }
    }
}

/// Folders of the image that are mounted over themselves with fewer rights, as far as they are there and no volume is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SystemFolders {
    /// With all below.
    pub whole: Vec<PathBuf>,
    /// Themselves, and not the folders in them that are not among `whole`.
    pub alone: Vec<PathBuf>,
    /// With all below: nothing in them is executed, nor mapped as a program.
    pub no_execute: Vec<PathBuf>,
}

/// Programs of the node, run by the launcher: runtime-spec `config.md`, "POSIX-platform Hooks".
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hooks {
    /// Deprecated twin of `create_runtime`, run before it.
    pub prestart: Vec<Hook>,
    /// Run in the launcher's namespaces.
    pub create_runtime: Vec<Hook>,
    /// Run in the container's mount namespace, with the host's files in reach.
    pub create_container: Vec<Hook>,
}

impl Hooks {
    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.prestart.is_empty() && self.create_runtime.is_empty() && self.create_container.is_empty()
    }
}

/// One program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hook {
    /// On the host.
    pub path: PathBuf,
    /// All arguments, the program's name first.
    pub args: Vec<String>,
    /// `KEY=value`.
    pub env: Vec<String>,
    /// Seconds.
    #[serde(deserialize_with = "Option::deserialize")]
    pub timeout: Option<i64>,
}

impl Bundle {
    /// Whether the container makes a namespace of that kind, rather than joins one.
    #[must_use]
    pub fn makes(&self, kind: NamespaceKind) -> bool {
        self.namespaces.iter().any(|namespace| namespace.kind == kind && namespace.joins.is_none())
    }

    /// Whether the container has a user namespace.
    #[must_use]
    pub fn has_user_namespace(&self) -> bool {
        self.namespaces.iter().any(|namespace| namespace.kind == NamespaceKind::User)
    }

    /// The volumes, each with the number by which it is known: that of its mount.
    pub fn volumes(&self) -> impl Iterator<Item = (usize, &Mount, &Volume)> {
        self.mounts.iter().enumerate().filter_map(|(number, mount)| match &mount.kind {
            MountKind::Bind(volume) => Some((number, mount, volume)),
            MountKind::Proc { .. }
            | MountKind::Sysfs
            | MountKind::Tmpfs(_)
            | MountKind::Devpts(_)
            | MountKind::Mqueue
            | MountKind::Cgroup => None,
        })
    }
}
