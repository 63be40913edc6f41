//! A named sandbox, and where it is written.

use std::fmt;
use std::sync::OnceLock;

use super::error::Place;
use crate::label;
use crate::profile::BuiltIn;
use crate::sandbox::Sandbox;
use crate::seccomp::Arch;

/// Where a profile comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Part of this program.
    BuiltIn,
    /// A file of the node.
    File(Place),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn => f.write_str("built in"),
            Self::File(place) => place.fmt(f),
        }
    }
}

/// A named sandbox.
#[derive(Debug, Clone)]
pub struct Profile {
    name: String,
    origin: Origin,
    definition: Definition,
    selinux: Option<String>,
}

/// Of the built-in profiles a container needs one or two, so each is built when it is first asked for.
#[derive(Debug, Clone)]
enum Definition {
    BuiltIn { profile: BuiltIn, arch: Arch, built: OnceLock<Box<Sandbox>> },
    Written(Box<Sandbox>),
}

impl Profile {
    pub(super) fn built_in(profile: BuiltIn, arch: Arch) -> Self {
        let definition = Definition::BuiltIn { profile, arch, built: OnceLock::new() };
        Self { name: profile.name().to_owned(), origin: Origin::BuiltIn, definition, selinux: None }
    }

    pub(super) fn written(name: &str, place: Place, sandbox: Sandbox, selinux: Option<String>) -> Self {
        let definition = Definition::Written(Box::new(sandbox));
        Self { name: name.to_owned(), origin: Origin::File(place), definition, selinux }
    }

    /// The name by which policies and annotations call it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it is written.
    #[must_use]
    pub const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// What it allows.
    #[must_use]
    pub fn sandbox(&self) -> &Sandbox {
        match &self.definition {
            Definition::BuiltIn { profile, arch, built } => built.get_or_init(|| Box::new(profile.sandbox(*arch))),
            Definition::Written(sandbox) => sandbox,
        }
    }

    /// The SELinux label of a process that asks for none; absent for this product's own default. Only
    /// the node's choice gives it: a pod that asks for the profile by annotation asks for less.
    #[must_use]
    pub fn selinux(&self) -> Option<&str> {
        self.selinux.as_deref()
    }

    /// Whether it gives nothing that the other does not.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        let label = self.selinux == other.selinux || self.selinux().is_none_or(label::is_baseline);
        label && self.sandbox().is_within(other.sandbox())
    }

    pub(super) fn is_privileged(&self) -> bool {
        self.sandbox().privileged
    }
}

impl PartialEq for Profile {
    fn eq(&self, other: &Self) -> bool {
        let named = |profile: &Self| (profile.name.clone(), profile.origin.clone(), profile.selinux.clone());
        named(self) == named(other) && self.sandbox() == other.sandbox()
    }
}

impl Eq for Profile {}
