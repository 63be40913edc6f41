//! The Landlock ruleset of a container, as data.

use std::path::PathBuf;

use oci_spec::runtime::Mount;

use crate::host::Host;
use crate::mounts;
use crate::sandbox::Sandbox;

/// Entries of `/` that cannot be changed, by anyone in the container: where programs and
/// libraries live (Filesystem Hierarchy Standard). `/sys` has nothing to write.
pub(crate) const SYSTEM: &[&str] = &["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "libexec", "boot", "sys"];

/// Places that anyone may write to, from which nothing is executed unless the profile lets it.
const SCRATCH: &[&str] = &["/tmp", "/var/tmp", "/dev/shm", "/run/shm"];

/// Which parts of the file tree may be written, executed and asked for device ioctls.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LandlockPlan {
    /// The kernel's ABI that the decision was made for; every right that it knows is handled.
    pub abi: u32,
    /// Names in `/` below which nothing can be changed.
    pub system: Vec<String>,
    /// Mount points of writable volumes: writable also below a system folder.
    pub writable: Vec<PathBuf>,
    /// Trees in which nothing can be executed.
    pub no_execute: Vec<PathBuf>,
    /// Paths on which device ioctls are allowed.
    pub ioctl: Vec<PathBuf>,
}

impl LandlockPlan {
    pub(crate) fn new(sandbox: &Sandbox, mounts: &[Mount], host: &Host) -> Self {
        let writable: Vec<PathBuf> = mounts::writable(mounts).collect();
        let no_execute = if sandbox.execute_from_writable() {
            Vec::new()
        } else {
            SCRATCH.iter().map(PathBuf::from).chain(writable.iter().cloned()).collect()
        };
        Self {
            abi: host.landlock_abi,
            system: SYSTEM.iter().map(|name| (*name).to_owned()).collect(),
            writable,
            no_execute,
            ioctl: crate::devices::IOCTL_PATHS.iter().map(PathBuf::from).collect(),
        }
    }
}
