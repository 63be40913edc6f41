//! Rules: which workload gets which profile.

use std::fmt;

use super::error::{Place, PolicyError};
use super::file::RuleTable;
use crate::identity::{Identity, Kind};
use crate::pattern::Patterns;

/// A rule of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub(super) place: Place,
    /// From 1, over all files.
    pub(super) number: usize,
    pub(super) profile: String,
    pub(super) privileged: bool,
    pub(super) acknowledged: bool,
    pub(super) selector: Selector,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Selector {
    pub(super) namespace: Option<Patterns>,
    pub(super) image: Option<Patterns>,
    pub(super) digest: Option<Patterns>,
    pub(super) pod: Option<Patterns>,
    pub(super) container: Option<Patterns>,
    pub(super) handler: Option<Patterns>,
    pub(super) kind: Option<Kind>,
}

impl Rule {
    /// Reads a rule; what its profile is is checked later, when all are known.
    pub(super) fn read(table: RuleTable, place: Place, number: usize) -> Result<Self, PolicyError> {
        let privileged = table.privileged.is_some();
        let profile = match (table.profile, privileged) {
            (Some(name), _) => name.into_inner(),
            (None, true) => "privileged".to_owned(),
            (None, false) => return Err(PolicyError::at(&place, "a rule without `profile`")),
        };
        let selector = Selector {
            namespace: table.namespace,
            image: table.image,
            digest: table.digest,
            pod: table.pod,
            container: table.container,
            handler: table.handler,
            kind: table.kind,
        };
        if selector.is_empty() {
            return Err(PolicyError::at(
                &place,
                "a rule that selects nothing; name a namespace, image, digest, pod, container, handler or kind, or \
                 use `default` for all containers",
            ));
        }
        let pinned = selector.pins_namespace() && selector.digest.as_ref().is_some_and(|p| !p.match_anything());
        if privileged && !table.acknowledge_risk && !pinned {
            return Err(PolicyError::at(
                &place,
                "privileged = \"allow\" needs both `namespace` and `digest`, which a pod's author cannot forge; or \
                 `acknowledge-risk = true`",
            ));
        }
        if selector.lists().into_iter().filter_map(|(_, list)| list.as_ref()).any(|list| list.all().is_empty()) {
            return Err(PolicyError::at(&place, "an empty list matches nothing; expected at least one pattern"));
        }
        Ok(Self { place, number, profile, privileged, acknowledged: table.acknowledge_risk, selector })
    }

    /// Whether a pod's author could make any pod match. A digest pins the image's content, and the author
    /// chooses what is run of it, and what is mounted over it.
    pub(super) fn is_forgeable(&self) -> bool {
        !self.selector.pins_namespace()
    }

    /// Whether it lets privileged containers of images through that nobody has named by their content.
    pub(super) fn lets_any_image_be_privileged(&self) -> bool {
        let names = |digests: &Patterns| digests.all().iter().all(|digest| is_digest(digest));
        self.privileged && !self.acknowledged && !self.selector.digest.as_ref().is_some_and(names)
    }

    /// Whether there may be a container for which this decides where an earlier, forgeable rule does not.
    pub(super) fn may_decide_instead_of(&self, earlier: &Self) -> bool {
        // A pod's sandbox has neither.
        let of_container = |rule: &Self| rule.selector.container.is_some() || rule.selector.image.is_some();
        let kind = |rule: &Self| rule.selector.kind.or_else(|| of_container(rule).then_some(Kind::Container));
        !self.is_forgeable()
            && !self.privileged
            && kind(self).zip(kind(earlier)).is_none_or(|(one, other)| one == other)
    }

    /// Whether it decides for this container. A rule that lets privileged containers through is
    /// for those alone.
    pub(super) fn matches(&self, identity: &Identity, privileged: bool) -> bool {
        let s = &self.selector;
        self.may_match_pod(identity)
            && (privileged || !self.privileged)
            && holds(&s.image, identity.image.as_deref())
            && holds(&s.digest, identity.digest())
            && holds(&s.container, identity.container.as_deref())
            && s.kind.is_none_or(|kind| identity.kind == Some(kind))
    }

    /// Patterns of runtime handlers, where it selects by those.
    #[must_use]
    pub const fn handlers(&self) -> Option<&Patterns> {
        self.selector.handler.as_ref()
    }

    /// Whether it could decide for a container of this pod.
    pub(super) fn may_match_pod(&self, identity: &Identity) -> bool {
        holds(&self.selector.namespace, identity.namespace.as_deref())
            && holds(&self.selector.pod, identity.pod.as_deref())
            && holds(&self.selector.handler, identity.handler.as_deref())
    }
}

/// What it selects by, and its profile.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, patterns) in self.selector.lists() {
            if let Some(patterns) = patterns {
                write!(f, "{name} {patterns}, ")?;
            }
        }
        if let Some(kind) = self.selector.kind {
            write!(f, "{} only, ", format!("{kind:?}").to_lowercase())?;
        }
        write!(f, "profile {}", self.profile)
    }
}

/// `sha256:` and 64 hexadecimal digits: OCI image spec, "Digests".
fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn holds(patterns: &Option<Patterns>, found: Option<&str>) -> bool {
    patterns.as_ref().is_none_or(|p| found.is_some_and(|found| p.matches(found)))
}

impl Selector {
    /// Every list of patterns, by the name that policy files have for it.
    const fn lists(&self) -> [(&'static str, &Option<Patterns>); 6] {
        [
            ("namespace", &self.namespace),
            ("image", &self.image),
            ("digest", &self.digest),
            ("pod", &self.pod),
            ("container", &self.container),
            ("handler", &self.handler),
        ]
    }

    fn pins_namespace(&self) -> bool {
        self.namespace.as_ref().is_some_and(|patterns| !patterns.match_anything())
    }

    fn is_empty(&self) -> bool {
        self.kind.is_none() && self.lists().iter().all(|(_, list)| list.is_none())
    }
}
