//! Capability sets.

use std::fmt;
use std::str::FromStr;

use oci_spec::runtime::{Capabilities as OciCapabilities, Capability};

/// Capability names in the order of their kernel numbers (linux/capability.h), without `CAP_`.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// A set of capabilities: one bit each, by kernel number.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct CapabilitySet(u64);

impl CapabilitySet {
    /// No capability.
    pub const EMPTY: Self = Self(0);

    /// Every capability that this program knows.
    pub const ALL: Self = Self((1 << NAMES.len()) - 1);

    /// What containerd, Docker and Kubernetes give to an unprivileged container: containerd's
    /// `oci.defaultUnixCaps`. Anything beyond was asked for by the pod.
    pub const CONTAINERD_DEFAULT: Self = Self::of(&[
        "CHOWN",
        "DAC_OVERRIDE",
        "FSETID",
        "FOWNER",
        "MKNOD",
        "NET_RAW",
        "SETGID",
        "SETUID",
        "SETFCAP",
        "SETPCAP",
        "NET_BIND_SERVICE",
        "SYS_CHROOT",
        "KILL",
        "AUDIT_WRITE",
    ]);

    /// The set of these names, without their `CAP_`; a name that does not exist does not compile.
    pub(crate) const fn of(names: &[&str]) -> Self {
        let (mut bits, mut i) = (0, 0);
        while i < names.len() {
            bits |= 1 << number(names[i]);
            i += 1;
        }
        Self(bits)
    }

    /// The set that a spec lists.
    #[must_use]
    pub fn from_oci(capabilities: Option<&OciCapabilities>) -> Self {
        capabilities.into_iter().flatten().fold(Self::EMPTY, |set, capability| {
            // oci-spec prints a capability as `CAP_NAME`.
            capability.to_string().parse::<Self>().map_or(set, |one| set.union(one))
        })
    }

    /// As an OCI list.
    #[must_use]
    pub fn to_oci(self) -> OciCapabilities {
        self.names().filter_map(|name| Capability::from_str(name).ok()).collect()
    }

    /// What both have.
    #[must_use]
    pub const fn meet(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What either has.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What this has and the other has not.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether all of this is in the other.
    #[must_use]
    pub const fn is_subset(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The kernel's bit mask, as in `/proc/PID/status`.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// From the kernel's bit mask.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Names, without their `CAP_`, in the kernel's order.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        NAMES.iter().enumerate().filter(move |(bit, _)| self.0 >> bit & 1 == 1).map(|(_, name)| *name)
    }
}

const fn number(name: &str) -> usize {
    let mut i = 0;
    while i < NAMES.len() {
        if same(NAMES[i].as_bytes(), name.as_bytes()) {
            return i;
        }
        i += 1;
    }
    // Reached at compile time only: every caller is a constant.
    NAMES.len() + 64
}

const fn same(a: &[u8], b: &[u8]) -> bool {
    let mut i = 0;
    while i < a.len() && i < b.len() && a[i] == b[i] {
        i += 1;
    }
    i == a.len() && i == b.len()
}

impl FromStr for CapabilitySet {
    type Err = String;

    /// One capability, with or without `CAP_`, in any case.
    fn from_str(name: &str) -> Result<Self, String> {
        let upper = name.to_ascii_uppercase();
        let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
        NAMES
            .iter()
            .position(|known| *known == bare)
            .map(|bit| Self(1 << bit))
            .ok_or_else(|| format!("{name} is not a Linux capability"))
    }
}

impl fmt::Display for CapabilitySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("none");
        }
        f.write_str(&self.names().collect::<Vec<_>>().join(", "))
    }
}

impl fmt::Debug for CapabilitySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CapabilitySet({self})")
    }
}

/// The five capability sets of a process: capabilities(7).
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capabilities {
    /// The most that any later `execve` can give.
    pub bounding: CapabilitySet,
    /// What the kernel checks.
    pub effective: CapabilitySet,
    /// What effective may be raised to.
    pub permitted: CapabilitySet,
    /// What survives `execve` of a file with inheritable capabilities.
    pub inheritable: CapabilitySet,
    /// What survives `execve` of any file.
    pub ambient: CapabilitySet,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_those_of_the_kernels_numbers() {
        let some = CapabilitySet::of(&["CHOWN", "SYS_ADMIN"]);
        assert_eq!(format!("{some:?}"), "CapabilitySet(CHOWN, SYS_ADMIN)");
        assert_eq!((some.bits(), CapabilitySet::from_bits(1 | 1 << 21)), (1 | 1 << 21, some));
    }

    #[test]
    fn names_are_the_kernels() {
        for (number, name) in NAMES.iter().enumerate() {
            let known: caps::Capability = format!("CAP_{name}").parse().unwrap();
            assert_eq!(usize::from(known.index()), number, "{name}");
        }
        assert_eq!(NAMES.len(), caps::all().len());
    }

    #[test]
    fn a_set_survives_the_oci_form() {
        let all = CapabilitySet::ALL;
        assert_eq!(CapabilitySet::from_oci(Some(&all.to_oci())), all);
        assert_eq!(CapabilitySet::CONTAINERD_DEFAULT.bits(), 0xa80425fb);
    }
}
