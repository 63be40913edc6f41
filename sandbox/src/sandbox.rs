//! The sandbox as a value, and its meet.

mod host_paths;
mod ports;
mod within;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

pub use self::host_paths::{Access, HostPaths, grant_advice};
use crate::capability::CapabilitySet;
use crate::pattern::Patterns;
use crate::seccomp::Filter;

/// What a container may do. Two sandboxes have a meet: what both allow.
///
/// Sets of *demands* (patterns, paths, users) are united by the meet, since each demand must hold;
/// sets of *grants* (devices, ports, namespaces) are intersected. What a container gets where it asks
/// for nothing (an SELinux label) is neither, and no part of a sandbox: see [`Profile`].
///
/// [`Profile`]: crate::policy::Profile
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sandbox {
    /// Profiles that it is the meet of.
    pub(crate) names: BTreeSet<String>,
    /// The most that any of the five capability sets may hold.
    pub(crate) capabilities: CapabilitySet,
    /// System calls.
    pub(crate) filter: Filter,
    /// Denied calls are reported. Not being reported is a grant: a container that can choose it is seen less.
    pub(crate) explained: bool,
    /// Calls whose denials are not reported.
    pub(crate) quiet: BTreeSet<u32>,
    /// File rights by Landlock; without, a process may mount.
    pub(crate) landlock: bool,
    /// The image's system folders may be changed, as their modes say.
    pub(crate) system_writable: bool,
    /// Programs may be executed from `/tmp`, `/var/tmp`, `/dev/shm` and writable volumes.
    pub(crate) execute_from_writable: bool,
    /// Abstract UNIX sockets of processes outside the sandbox may be connected to.
    pub(crate) abstract_sockets: bool,
    /// TCP ports that may be bound; absent for all.
    pub(crate) bind_tcp: Option<BTreeSet<u16>>,
    /// TCP ports that may be connected to; absent for all.
    pub(crate) connect_tcp: Option<BTreeSet<u16>>,
    /// Trees in which nothing can be written, beside the system's own.
    pub(crate) no_write: BTreeSet<PathBuf>,
    /// Trees in which nothing can be executed.
    pub(crate) no_execute: BTreeSet<PathBuf>,
    /// Trees that cannot be read, written or executed.
    pub(crate) hidden: BTreeSet<PathBuf>,
    /// Paths masked beside the built-in ones.
    pub(crate) masked: BTreeSet<String>,
    /// Paths mounted read-only beside the built-in ones.
    pub(crate) read_only: BTreeSet<String>,
    /// The root file system must be read-only.
    pub(crate) read_only_root: bool,
    /// Privileged containers are allowed.
    pub(crate) privileged: bool,
    /// Namespaces that may be the host's.
    pub(crate) host_namespaces: BTreeSet<HostNamespace>,
    /// Which paths of the host may be mounted: every one must allow it; none allows all.
    pub(crate) host_paths: BTreeSet<HostPaths>,
    /// What the host mounts later may show up below a path that is granted read-only.
    pub(crate) later_mounts: bool,
    /// Programs of the host that may be OCI hooks; absent for all.
    pub(crate) hooks: Option<BTreeSet<PathBuf>>,
    /// Devices beyond the standard ones.
    pub(crate) devices: BTreeSet<Device>,
    /// Sysctls that may be set: every one must have it.
    pub(crate) sysctls: BTreeSet<Patterns>,
    /// Most that a limit may be set to, by OCI name (`RLIMIT_NOFILE`).
    pub(crate) limits: BTreeMap<String, u64>,
    /// Who may run: every one must allow it.
    pub(crate) users: BTreeSet<Users>,
    /// AppArmor profiles that every process is in, beside this product's own.
    pub(crate) apparmor: BTreeSet<String>,
    /// SELinux types that a pod may ask for, beside those of Kubernetes' baseline.
    pub(crate) selinux_types: BTreeSet<String>,
    /// What an exec gets beyond its container: less.
    pub(crate) exec: ExecRules,
}

/// A namespace that a pod may share with the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum HostNamespace {
    /// `hostNetwork: true`; the host's UTS namespace comes with it.
    Network,
    /// `hostPID: true`.
    Pid,
    /// `hostIPC: true`.
    Ipc,
}

impl HostNamespace {
    /// As the OCI spec calls it.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Pid => "pid",
            Self::Ipc => "ipc",
        }
    }
}

/// A device by its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Block device, rather than character device.
    pub block: bool,
    /// Major number.
    pub major: i64,
    /// Minor number; absent for all.
    pub minor: Option<i64>,
}

impl Device {
    /// Whether all of the other is in this.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.block == other.block && self.major == other.major && (self.minor.is_none() || self.minor == other.minor)
    }
}

/// Which users may run in a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Users {
    /// Not uid 0, in the container's user namespace.
    pub non_root: bool,
    /// Only in a user namespace, where nobody is root of the host.
    pub own_namespace: bool,
    /// First and last uid of each range; absent for all.
    pub uids: Option<BTreeSet<(u32, u32)>>,
    /// First and last gid of each range, for the group and supplementary groups; absent for all.
    pub gids: Option<BTreeSet<(u32, u32)>>,
}

/// What `kubectl exec`, probes and debug sessions may do, narrower than the container itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecRules {
    /// No exec at all.
    pub refused: bool,
    /// Programs (`args[0]`) that may be run: every one must have it.
    pub programs: BTreeSet<Patterns>,
    /// Trees that cannot be read, written or executed.
    pub hidden: BTreeSet<PathBuf>,
    /// Nothing can be written anywhere but to devices and pipes.
    pub read_only: bool,
    /// No sockets.
    pub no_network: bool,
}

/// Places that anyone may write to, from which nothing is executed unless the profile lets it.
const SCRATCH: &[&str] = &["/tmp", "/var/tmp", "/dev/shm", "/run/shm"];

impl Sandbox {
    /// Trees in which nothing can be executed, beside volumes.
    pub(crate) fn no_execute_in_image(&self) -> Vec<PathBuf> {
        let scratch = SCRATCH.iter().filter(|_| !self.execute_from_writable).map(PathBuf::from);
        self.no_execute.iter().cloned().chain(scratch).collect()
    }

    /// Which paths of the host may be mounted: every one must allow it.
    pub fn host_paths(&self) -> impl Iterator<Item = &HostPaths> {
        self.host_paths.iter()
    }

    /// How a path of the host may be mounted: as every profile has it.
    #[must_use]
    pub fn access(&self, path: &Path) -> Option<Access> {
        self.host_paths.iter().map(|paths| paths.access(path)).min().unwrap_or(Some(Access::ReadWrite))
    }

    /// One that allows all that is not decided by the filter: what profiles take away from.
    pub(crate) fn widest(name: &str, capabilities: CapabilitySet, filter: Filter) -> Self {
        Self {
            names: [name.to_owned()].into(),
            capabilities,
            filter,
            explained: true,
            quiet: BTreeSet::new(),
            landlock: true,
            system_writable: true,
            execute_from_writable: true,
            abstract_sockets: true,
            bind_tcp: None,
            connect_tcp: None,
            no_write: BTreeSet::new(),
            no_execute: BTreeSet::new(),
            hidden: BTreeSet::new(),
            masked: BTreeSet::new(),
            read_only: BTreeSet::new(),
            read_only_root: false,
            privileged: true,
            host_namespaces: [HostNamespace::Network, HostNamespace::Pid, HostNamespace::Ipc].into(),
            host_paths: BTreeSet::new(),
            later_mounts: true,
            hooks: None,
            devices: BTreeSet::new(),
            sysctls: BTreeSet::new(),
            limits: BTreeMap::new(),
            users: BTreeSet::new(),
            apparmor: BTreeSet::new(),
            selinux_types: BTreeSet::new(),
            exec: ExecRules::default(),
        }
    }

    /// What both allow. Idempotent, commutative, associative; never wider than either.
    #[must_use]
    pub fn meet(&self, other: &Self) -> Self {
        Self {
            names: &self.names | &other.names,
            capabilities: self.capabilities.meet(other.capabilities),
            filter: if self.filter == other.filter { self.filter.clone() } else { self.filter.meet(&other.filter) },
            explained: self.explained || other.explained,
            quiet: &self.quiet & &other.quiet,
            landlock: self.landlock || other.landlock,
            system_writable: self.system_writable && other.system_writable,
            execute_from_writable: self.execute_from_writable && other.execute_from_writable,
            abstract_sockets: self.abstract_sockets && other.abstract_sockets,
            bind_tcp: both(&self.bind_tcp, &other.bind_tcp),
            connect_tcp: both(&self.connect_tcp, &other.connect_tcp),
            no_write: &self.no_write | &other.no_write,
            no_execute: &self.no_execute | &other.no_execute,
            hidden: &self.hidden | &other.hidden,
            masked: &self.masked | &other.masked,
            read_only: &self.read_only | &other.read_only,
            read_only_root: self.read_only_root || other.read_only_root,
            privileged: self.privileged && other.privileged,
            host_namespaces: &self.host_namespaces & &other.host_namespaces,
            host_paths: &self.host_paths | &other.host_paths,
            later_mounts: self.later_mounts && other.later_mounts,
            hooks: both(&self.hooks, &other.hooks),
            devices: common(&self.devices, &other.devices),
            sysctls: &self.sysctls | &other.sysctls,
            limits: least(&self.limits, &other.limits),
            users: &self.users | &other.users,
            apparmor: &self.apparmor | &other.apparmor,
            selinux_types: &self.selinux_types & &other.selinux_types,
            exec: self.exec.meet(&other.exec),
        }
    }

    /// The same sandbox, narrowed by one more filter.
    #[must_use]
    pub(crate) fn filtered(mut self, filter: &Filter) -> Self {
        self.filter = self.filter.meet(filter);
        self
    }

    /// Namespaces that may be the host's.
    pub fn host_namespaces(&self) -> impl Iterator<Item = HostNamespace> {
        self.host_namespaces.iter().copied()
    }

    /// Whether uid 0 is refused, by one of those whose demands must hold.
    #[must_use]
    pub fn needs_a_user(&self) -> bool {
        self.users.iter().any(|users| users.non_root)
    }

    /// Whether a privileged container gets what it asks for.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.privileged && !self.landlock
    }

    /// The policy keys about files and programs that only Landlock can enforce.
    pub(crate) fn demands_of_landlock(&self) -> Vec<&'static str> {
        let demands = [
            ("files.no-write", !self.no_write.is_empty()),
            ("files.no-execute", !self.no_execute.is_empty()),
            ("files.hidden", !self.hidden.is_empty()),
            ("files.execute-from-writable = false", !self.execute_from_writable),
            ("exec.hidden", !self.exec.hidden.is_empty()),
            ("exec.read-only", self.exec.read_only),
        ];
        demands.into_iter().filter(|(_, made)| *made && self.landlock).map(|(name, _)| name).collect()
    }

    /// All but the filter, whose rules can be written in more than one way.
    #[must_use]
    pub fn without_filter(&self) -> Self {
        let filter = Filter::new(self.filter.arch(), self.filter.default(), self.filter.foreign());
        Self { filter, ..self.clone() }
    }

    /// Names of the profiles that it is the meet of.
    #[must_use]
    pub const fn names(&self) -> &BTreeSet<String> {
        &self.names
    }

    /// The most that any of the five capability sets may hold.
    #[must_use]
    pub const fn capabilities(&self) -> CapabilitySet {
        self.capabilities
    }

    /// The system calls.
    #[must_use]
    pub const fn filter(&self) -> &Filter {
        &self.filter
    }

    /// Calls whose denial is not told of.
    #[must_use]
    pub const fn quiet(&self) -> &BTreeSet<u32> {
        &self.quiet
    }

    /// Whether programs may be executed from writable places.
    #[must_use]
    pub const fn execute_from_writable(&self) -> bool {
        self.execute_from_writable
    }
}

impl ExecRules {
    fn meet(&self, other: &Self) -> Self {
        Self {
            refused: self.refused || other.refused,
            programs: &self.programs | &other.programs,
            hidden: &self.hidden | &other.hidden,
            read_only: self.read_only || other.read_only,
            no_network: self.no_network || other.no_network,
        }
    }
}

/// What both lists have, where no list stands for everything.
pub(crate) fn both<T: Ord + Clone>(left: &Option<BTreeSet<T>>, right: &Option<BTreeSet<T>>) -> Option<BTreeSet<T>> {
    match (left, right) {
        (Some(left), Some(right)) => Some(left & right),
        (one, None) | (None, one) => one.clone(),
    }
}

/// Devices that are covered by one of each side.
fn common(left: &BTreeSet<Device>, right: &BTreeSet<Device>) -> BTreeSet<Device> {
    let within = |one: &BTreeSet<Device>, other: &BTreeSet<Device>| -> BTreeSet<Device> {
        one.iter().filter(|d| other.iter().any(|o| o.covers(d))).copied().collect()
    };
    without_covered(&(&within(left, right) | &within(right, left)))
}

/// The same devices, each named once.
pub(crate) fn without_covered(devices: &BTreeSet<Device>) -> BTreeSet<Device> {
    let is_covered = |device: &Device| devices.iter().any(|other| other != device && other.covers(device));
    devices.iter().filter(|device| !is_covered(device)).copied().collect()
}

fn least(left: &BTreeMap<String, u64>, right: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let mut least = left.clone();
    for (name, most) in right {
        least.entry(name.clone()).and_modify(|now| *now = (*now).min(*most)).or_insert(*most);
    }
    least
}
