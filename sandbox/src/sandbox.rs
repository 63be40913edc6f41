//! The sandbox as a value, and its meet.

use crate::capability::CapabilitySet;
use crate::profile::Profile;
use crate::seccomp::{Arch, Filter};

/// What a container may do. Two sandboxes have a meet: what both allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    names: Vec<String>,
    capabilities: CapabilitySet,
    filter: Filter,
    execute_from_writable: bool,
}

impl Sandbox {
    /// What a profile allows on an architecture.
    #[must_use]
    pub fn of(profile: &Profile, arch: Arch) -> Self {
        Self {
            names: vec![profile.name().to_owned()],
            capabilities: profile.capabilities(),
            filter: profile.seccomp(arch),
            execute_from_writable: profile.execute_from_writable(),
        }
    }

    /// What both allow. Idempotent, commutative, associative; never wider than either.
    #[must_use]
    pub fn meet(&self, other: &Self) -> Self {
        let mut names: Vec<String> = self.names.iter().chain(&other.names).cloned().collect();
        names.sort_unstable();
        names.dedup();
        Self {
            names,
            capabilities: self.capabilities.meet(other.capabilities),
            filter: if self.filter == other.filter { self.filter.clone() } else { self.filter.meet(&other.filter) },
            execute_from_writable: self.execute_from_writable && other.execute_from_writable,
        }
    }

    /// The same sandbox, narrowed by one more filter.
    #[must_use]
    pub(crate) fn filtered(mut self, filter: &Filter) -> Self {
        self.filter = self.filter.meet(filter);
        self
    }

    /// Names of the profiles that it is the meet of.
    #[must_use]
    pub fn names(&self) -> &[String] {
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

    /// Whether programs may be executed from writable places.
    #[must_use]
    pub const fn execute_from_writable(&self) -> bool {
        self.execute_from_writable
    }
}
