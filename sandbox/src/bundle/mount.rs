//! Mounts, with flags that were resolved once.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A mount of the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// In the container: absolute, without `..`. The image's symbolic links on the way are followed
    /// inside of the root file system.
    pub destination: PathBuf,
    /// What is mounted.
    pub kind: MountKind,
    /// Flags of the mount itself.
    pub flags: MountFlags,
    /// Flags of every mount below it too. Part of `flags`.
    pub recursive_flags: MountFlags,
}

/// What is mounted. There is no other file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MountKind {
    /// Files of the host.
    Bind(Volume),
    /// procfs, with options such as `hidepid=2`.
    Proc {
        /// Options of the file system.
        data: Vec<String>,
    },
    /// sysfs.
    Sysfs,
    /// Memory, with options such as `size=64m`.
    Tmpfs(Vec<String>),
    /// Terminals, with options such as `gid=5`.
    Devpts(Vec<String>),
    /// POSIX message queues.
    Mqueue,
    /// The container's own cgroup, read-only.
    Cgroup,
}

/// Files of the host, or of the pod, that the container shares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Volume {
    /// Where it was found when it was judged: absolute, and no part of it a symbolic link.
    pub source: PathBuf,
    /// Which file that was. What is mounted must be the same.
    pub file: FileId,
    /// Whether the mounts below come along.
    pub recursive: bool,
    /// Whether mounts that the host makes below later appear in the container.
    pub propagation: Propagation,
    /// Other owners than on the file system.
    #[serde(deserialize_with = "Option::deserialize")]
    pub id_mappings: Option<IdMappings>,
    /// Whether the owners in mounts below are mapped too.
    pub map_recursively: bool,
}

/// A file by its identity: statx(2), `stx_dev_major`, `stx_dev_minor` and `stx_ino`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileId {
    /// `st_dev` of stat(2).
    pub device: u64,
    /// `st_ino`.
    pub inode: u64,
}

/// Propagation of mounts into the container: mount_namespaces(7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Propagation {
    /// None.
    Private,
    /// What the host mounts later is mounted in the container too. Kubernetes: `HostToContainer`.
    Slave,
}

/// A flag of a mount: mount(2), mount_setattr(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountFlag {
    /// `ro`
    ReadOnly,
    /// `nosuid`
    NoSuid,
    /// `nodev`
    NoDev,
    /// `noexec`
    NoExec,
    /// `nosymfollow`
    NoSymFollow,
    /// `noatime`
    NoAtime,
    /// `nodiratime`
    NoDirAtime,
    /// `relatime`
    RelAtime,
    /// `strictatime`
    StrictAtime,
}

impl MountFlag {
    /// All, with the name that mount(8) and the OCI spec have for it.
    pub const ALL: [(Self, &'static str); 9] = [
        (Self::ReadOnly, "ro"),
        (Self::NoSuid, "nosuid"),
        (Self::NoDev, "nodev"),
        (Self::NoExec, "noexec"),
        (Self::NoSymFollow, "nosymfollow"),
        (Self::NoAtime, "noatime"),
        (Self::NoDirAtime, "nodiratime"),
        (Self::RelAtime, "relatime"),
        (Self::StrictAtime, "strictatime"),
    ];

    /// Its name as a mount option.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(flag, _)| *flag == self).map_or("", |(_, name)| name)
    }
}

/// A set of flags. There is no flag in it that gives a right.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MountFlags(BTreeSet<MountFlag>);

impl MountFlags {
    /// None.
    pub const EMPTY: Self = Self(BTreeSet::new());

    /// Those.
    #[must_use]
    pub fn of(flags: &[MountFlag]) -> Self {
        Self(flags.iter().copied().collect())
    }

    /// Whether the flag is set.
    #[must_use]
    pub fn contains(&self, flag: MountFlag) -> bool {
        self.0.contains(&flag)
    }

    /// Sets a flag.
    pub fn insert(&mut self, flag: MountFlag) {
        self.0.insert(flag);
    }

    /// Clears a flag.
    pub fn remove(&mut self, flag: MountFlag) {
        self.0.remove(&flag);
    }

    /// Sets all flags of the other.
    pub fn extend(&mut self, other: &Self) {
        self.0.extend(other.0.iter().copied());
    }

    /// Whether none is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each flag.
    pub fn iter(&self) -> impl Iterator<Item = MountFlag> {
        self.0.iter().copied()
    }
}

/// One range of ids: user_namespaces(7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdMapping {
    /// First id in the container, or on the file system.
    pub container: u32,
    /// First id on the host.
    pub host: u32,
    /// How many.
    pub size: u32,
}

/// Ranges of user and group ids.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdMappings {
    /// User ids; never empty.
    pub uids: Vec<IdMapping>,
    /// Group ids; never empty.
    pub gids: Vec<IdMapping>,
}

impl fmt::Display for IdMapping {
    /// A line of `/proc/PID/uid_map`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {} {}", self.container, self.host, self.size)
    }
}
