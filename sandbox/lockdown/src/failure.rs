//! Why a process could not be locked down.

use std::fmt;

/// What failed, for the message of `Start`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// Part of the lock-down.
    pub mechanism: Mechanism,
    /// Operation and object.
    pub step: String,
    /// The kernel's answer; 0 where the kernel answered well and the read-back differs.
    pub errno: i32,
}

/// A part of the lock-down, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mechanism {
    /// The process is in the container's namespaces.
    Namespaces,
    /// The mounts show the container's own cgroup, and read-only.
    Cgroups,
    /// procfs and sysfs are masked.
    Masks,
    /// The working directory is in the container.
    Cwd,
    /// The session keyring is a new one.
    Keyring,
    /// no_new_privs.
    NoNewPrivs,
    /// The five capability sets.
    Capabilities,
    /// AppArmor profile and SELinux label.
    Label,
    /// Landlock.
    Landlock,
    /// seccomp.
    Seccomp,
    /// The program is executed.
    Execve,
}

impl Failure {
    pub(crate) fn new(mechanism: Mechanism, step: impl Into<String>, error: impl Into<std::io::Error>) -> Self {
        Self { mechanism, step: step.into(), errno: error.into().raw_os_error().unwrap_or(0) }
    }

    /// The kernel said yes, and the read-back says no.
    pub(crate) fn unverified(mechanism: Mechanism, step: impl Into<String>) -> Self {
        Self { mechanism, step: step.into(), errno: 0 }
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Namespaces => "namespaces",
            Self::Cgroups => "cgroups",
            Self::Masks => "masks",
            Self::Cwd => "cwd",
            Self::Keyring => "keyring",
            Self::NoNewPrivs => "no_new_privs",
            Self::Capabilities => "capabilities",
            Self::Label => "label",
            Self::Landlock => "landlock",
            Self::Seccomp => "seccomp",
            Self::Execve => "execve",
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.mechanism, self.step)?;
        if self.errno != 0 {
            write!(f, ": {}", std::io::Error::from_raw_os_error(self.errno))?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde::de::IntoDeserializer;
    use serde::de::value::{Error, StringDeserializer};

    use super::Mechanism::*;
    use super::*;

    #[test]
    fn a_mechanism_is_called_the_same_in_a_message_and_on_the_wire() {
        for mechanism in
            [Namespaces, Cgroups, Masks, Cwd, Keyring, NoNewPrivs, Capabilities, Label, Landlock, Seccomp, Execve]
        {
            let name: StringDeserializer<Error> = mechanism.to_string().into_deserializer();
            assert_eq!(Mechanism::deserialize(name), Ok(mechanism));
        }
    }
}
