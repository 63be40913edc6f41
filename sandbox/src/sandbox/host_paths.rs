//! Paths of the host that a container may mount: an allow-list.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Which paths of the host may be mounted into the container.
///
/// A mount shows all that lies below its source, so a path may be mounted as every rule below it
/// allows too: a folder with a denied one in it is denied, a folder with a read-only one in it is
/// read-only.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostPaths {
    rules: BTreeMap<PathBuf, Rule>,
    other: Option<Access>,
}

/// How a path of the host may be mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// Read-only.
    ReadOnly,
    /// Read-only or writable.
    ReadWrite,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    access: Option<Access>,
    /// Says nothing of the path itself, only of all below.
    below: bool,
}

impl HostPaths {
    /// No path at all.
    #[must_use]
    pub const fn none() -> Self {
        Self { rules: BTreeMap::new(), other: None }
    }

    /// Any path.
    pub(crate) const fn anything() -> Self {
        Self { rules: BTreeMap::new(), other: Some(Access::ReadWrite) }
    }

    /// A rule for a path and all below, instead of the one that the path has.
    pub fn set(&mut self, path: PathBuf, access: Option<Access>) {
        self.rules.insert(path, Rule { access, below: false });
    }

    /// A rule for all below a path, not for the path itself.
    pub(crate) fn set_below(&mut self, path: PathBuf, access: Option<Access>) {
        self.rules.insert(path, Rule { access, below: true });
    }

    /// The rule for all paths that no other rule names.
    pub const fn set_other(&mut self, access: Option<Access>) {
        self.other = access;
    }

    /// How all paths that no rule names may be mounted.
    #[must_use]
    pub const fn other(&self) -> Option<Access> {
        self.other
    }

    /// How a path may be mounted: the longest rule that it lies below decides, as far as all rules
    /// below the path allow the same.
    #[must_use]
    pub fn access(&self, path: &Path) -> Option<Access> {
        let decides = |above: &Path| self.rules.get(above).filter(|rule| !rule.below || above != path);
        let own = path.ancestors().find_map(decides).map_or(self.other, |rule| rule.access);
        let shown = self.rules.iter().filter(|(rule, _)| *rule != path && rule.starts_with(path));
        shown.map(|(_, rule)| rule.access).fold(own, Option::min)
    }

    /// Every path that has a rule, and how what lies below may be mounted; `None` is not at all.
    ///
    /// A place of the host that lies below where one of them leads is judged by [`access`], asked
    /// for the rule's path and the rest: a rule may say nothing of its path itself.
    ///
    /// [`access`]: Self::access
    pub fn grants(&self) -> impl Iterator<Item = (&Path, Option<Access>)> {
        self.rules.iter().map(|(path, rule)| (path.as_path(), rule.access))
    }

    /// In words: each rule, as a policy would write it.
    pub(crate) fn words(&self, access: Option<Access>) -> impl Iterator<Item = String> {
        let of = self.rules.iter().filter(move |(_, rule)| rule.access == access);
        of.map(|(path, rule)| format!("{}{}", path.display(), if rule.below { "/*" } else { "" }))
    }
}

/// Paths that tell apart all that some rules can tell apart: what a rule names, what lies above it,
/// and below each of those a name that no rule has.
pub(super) fn representatives<'a>(all: impl Iterator<Item = &'a HostPaths>) -> BTreeSet<PathBuf> {
    let named: BTreeSet<PathBuf> = all
        .flat_map(|paths| paths.rules.keys())
        .flat_map(|path| path.ancestors())
        .chain([Path::new("/")])
        .map(Path::to_owned)
        .collect();
    // Longer than each name there is.
    let fresh = "x".repeat(1 + named.iter().map(|path| path.as_os_str().len()).max().unwrap_or_default());
    let below: Vec<PathBuf> = named.iter().map(|path| path.join(&fresh)).collect();
    named.into_iter().chain(below).collect()
}

/// What somebody whose pod asks for a path of the host can do about it: the end of a refusal.
#[must_use]
pub fn grant_advice(path: &Path, writable: bool) -> String {
    let access = if writable { "read-write" } else { "read-only" };
    format!(
        "use a volume of another kind (emptyDir, configMap, PersistentVolumeClaim); or have the node's policy grant \
         it: [profile.NAME] host.paths = {{ {:?} = \"{access}\" }}, and a rule that gives NAME to the namespace",
        path.display().to_string()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_mounted_as_all_below_it_may_be() {
        let mut paths = HostPaths::none();
        paths.set("/srv".into(), Some(Access::ReadWrite));
        paths.set("/srv/conf".into(), Some(Access::ReadOnly));
        paths.set("/srv/www/keys".into(), None);
        paths.set("/srv/www/keys/public".into(), Some(Access::ReadOnly));
        paths.set_below("/volumes".into(), Some(Access::ReadWrite));
        for (path, expected) in [
            ("/", None),
            ("/etc", None),
            ("/srv", None),
            ("/srvx", None),
            ("/srv/x", Some(Access::ReadWrite)),
            ("/srv/conf", Some(Access::ReadOnly)),
            ("/srv/conf/x", Some(Access::ReadOnly)),
            ("/srv/www", None),
            ("/srv/www/x", Some(Access::ReadWrite)),
            ("/srv/www/keys", None),
            ("/srv/www/keys/x", None),
            ("/srv/www/keys/public", Some(Access::ReadOnly)),
            ("/volumes", None),
            ("/volumes/pvc", Some(Access::ReadWrite)),
            ("/volumes/pvc/x", Some(Access::ReadWrite)),
        ] {
            assert_eq!(paths.access(Path::new(path)), expected, "{path}");
        }
    }
}
