//! The Landlock ruleset of a container, as data.

use std::path::PathBuf;

use crate::bundle::{Mount, MountFlag, MountKind, Propagation};
use crate::capability::CapabilitySet;
use crate::kernel::KernelSupport;
use crate::mark::Mark;
use crate::sandbox::{ExecRules, Sandbox};

/// Which parts of the file tree may be written, executed and asked for device ioctls.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LandlockPlan {
    /// The kernel's ABI that the decision was made for; every right that it knows is handled.
    pub abi: u32,
    /// The kernel logs what is denied (`LANDLOCK_RESTRICT_SELF_LOG_NEW_EXEC_ON`, where the ABI has it), of
    /// processes that are known by this [mark](crate::mark::Mark). Absent where it is not.
    #[serde(deserialize_with = "Option::deserialize")]
    pub log: Option<Mark>,
    /// Trees in which nothing can be written, whatever is mounted there. The launcher puts here, and in
    /// `no_execute`, where it has mounted volumes.
    pub no_write: Vec<PathBuf>,
    /// Trees in which nothing can be executed.
    pub no_execute: Vec<PathBuf>,
    /// Device nodes may be made: with CAP_MKNOD, and where the device rules have them.
    pub device_nodes: bool,
    /// Trees that cannot be read, written or executed.
    pub hidden: Vec<PathBuf>,
    /// Paths on which device ioctls are allowed.
    pub ioctl: Vec<PathBuf>,
    /// TCP ports that may be bound; absent for all.
    pub bind_tcp: Option<Vec<u16>>,
    /// TCP ports that may be connected to; absent for all.
    pub connect_tcp: Option<Vec<u16>>,
    /// Abstract sockets outside of the sandbox may be connected to.
    pub abstract_sockets: bool,
    /// Trees that are hidden from execs alone. Where they really lie is found when the container's
    /// mounts are made, for [`ExecRestriction::hidden`].
    pub exec_hidden: Vec<PathBuf>,
}

/// What an exec has less than its container: a second ruleset, on top of the container's.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecRestriction {
    /// Trees that cannot be read, written or executed. The launcher puts here where
    /// [`LandlockPlan::exec_hidden`] really lay when the container's mounts were made.
    pub hidden: Vec<PathBuf>,
    /// Nothing can be written outside of `/dev`.
    pub read_only: bool,
}

impl LandlockPlan {
    pub(crate) fn new(sandbox: &Sandbox, mounts: &[Mount], ioctl: Vec<PathBuf>, kernel: &KernelSupport) -> Self {
        let mut no_execute = sandbox.no_execute_in_image();
        if !sandbox.execute_from_writable {
            no_execute.extend(writable(mounts));
        }
        let ports = |list: &Option<_>| {
            list.as_ref().map(|ports: &std::collections::BTreeSet<_>| ports.iter().copied().collect())
        };
        Self {
            abi: kernel.landlock_abi,
            // For the policy to say.
            log: None,
            no_write: sandbox.no_write.iter().cloned().chain(read_only_slaves(mounts)).collect(),
            no_execute,
            device_nodes: CapabilitySet::of(&["MKNOD"]).is_subset(sandbox.capabilities),
            hidden: sandbox.hidden.iter().cloned().collect(),
            ioctl,
            bind_tcp: ports(&sandbox.bind_tcp),
            connect_tcp: ports(&sandbox.connect_tcp),
            abstract_sockets: sandbox.abstract_sockets,
            exec_hidden: sandbox.exec.hidden.iter().cloned().collect(),
        }
    }
}

impl ExecRestriction {
    /// From the profile's exec rules; `None` where they take nothing away.
    pub(crate) fn new(rules: &ExecRules) -> Option<Self> {
        (rules.read_only || !rules.hidden.is_empty())
            .then(|| Self { hidden: rules.hidden.iter().cloned().collect(), read_only: rules.read_only })
    }
}

/// Where writable volumes are mounted, in the container.
fn writable(mounts: &[Mount]) -> impl Iterator<Item = PathBuf> {
    let is_writable =
        |mount: &&Mount| matches!(mount.kind, MountKind::Bind(_)) && !mount.flags.contains(MountFlag::ReadOnly);
    mounts.iter().filter(is_writable).map(|mount| mount.destination.clone())
}

/// Where volumes are mounted that are read-only, and in which the host's later mounts appear: those
/// have the flags that they have on the host, so Landlock keeps them from being written to.
fn read_only_slaves(mounts: &[Mount]) -> impl Iterator<Item = PathBuf> {
    let is_one = |mount: &&Mount| match &mount.kind {
        MountKind::Bind(volume) => {
            volume.propagation == Propagation::Slave && mount.flags.contains(MountFlag::ReadOnly)
        }
        MountKind::Proc { .. }
        | MountKind::Sysfs
        | MountKind::Tmpfs(_)
        | MountKind::Devpts(_)
        | MountKind::Mqueue
        | MountKind::Cgroup => false,
    };
    mounts.iter().filter(is_one).map(|mount| mount.destination.clone())
}
