//! A checked policy as text, which the next create reads instead of the policy's files.
//!
//! Lines of JSON: a head, then two lines for each profile of the node, its name and the profile, then two lines for each
//! rule, what it selects pods by and the rest. So a reader skips what does not concern its pod: of five hundred rules
//! and twenty profiles it builds a few.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::rule::{Rule, Selector};
use super::{LandlockDemand, Origin, Place, Policy, Profile};
use crate::identity::{Identity, Kind};
use crate::pattern::{self, Patterns};
use crate::profile;
use crate::sandbox::Sandbox;
use crate::seccomp::Arch;

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    arch: Arch,
    default: String,
    landlock: LandlockDemand,
    logs_landlock_denials: bool,
    /// How many follow.
    profiles: usize,
    rules: usize,
}

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct ProfileLine<'a> {
    place: Cow<'a, Place>,
    sandbox: Cow<'a, Sandbox>,
    selinux: Option<Cow<'a, str>>,
}

/// A text that is not copied unless it has an escape in it.
#[derive(serde::Serialize, serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

type Texts<'a> = Option<Vec<Text<'a>>>;

/// What a rule selects pods by: namespace, pod, handler.
#[derive(serde::Serialize, serde::Deserialize)]
struct PodLine<'a>(#[serde(borrow)] Texts<'a>, #[serde(borrow)] Texts<'a>, #[serde(borrow)] Texts<'a>);

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleLine {
    image: Option<Patterns>,
    digest: Option<Patterns>,
    container: Option<Patterns>,
    kind: Option<Kind>,
    profile: String,
    privileged: bool,
    acknowledged: bool,
    number: usize,
    place: Place,
}

impl Policy {
    /// The policy as text, for [`Policy::for_pod`].
    ///
    /// # Errors
    /// A path that is no UTF-8.
    pub fn compiled(&self) -> Result<String, serde_json::Error> {
        let own: Vec<_> = self.profiles.values().filter_map(|profile| Some((profile, profile.place()?))).collect();
        let head = Head {
            arch: self.arch,
            default: self.default.clone(),
            landlock: self.landlock,
            logs_landlock_denials: self.logs_landlock_denials,
            profiles: own.len(),
            rules: self.rules.len(),
        };
        let mut lines = vec![serde_json::to_string(&head)?];
        for (profile, place) in own {
            let (place, sandbox) = (Cow::Borrowed(place), Cow::Borrowed(profile.sandbox()));
            let line = ProfileLine { place, sandbox, selinux: profile.selinux().map(Cow::Borrowed) };
            lines.extend([serde_json::to_string(profile.name())?, serde_json::to_string(&line)?]);
        }
        for rule in &self.rules {
            let (pod, rest) = lines_of(rule);
            lines.extend([serde_json::to_string(&pod)?, serde_json::to_string(&rest)?]);
        }
        Ok(lines.join("\n"))
    }

    /// What a compiled policy says of the containers of one pod: rules that could match, and profiles that those, the
    /// default or the pod itself name. It decides on them as the whole policy does.
    ///
    /// # Errors
    /// The text is not what [`Policy::compiled`] writes.
    pub fn for_pod(text: &str, identity: &Identity, asked_for: Option<&str>) -> Result<Self, serde_json::Error> {
        let mut lines = text.split('\n');
        let mut next = || lines.next().ok_or_else(|| incomplete("a line is missing"));
        let head: Head = serde_json::from_str(next()?)?;
        let mut own = Vec::new();
        for _ in 0..head.profiles {
            own.push((serde_json::from_str::<Cow<'_, str>>(next()?)?, next()?));
        }
        let mut policy = Self::built_in(head.arch);
        policy.landlock = head.landlock;
        policy.logs_landlock_denials = head.logs_landlock_denials;
        for _ in 0..head.rules {
            let (pod, rest) = (serde_json::from_str::<PodLine<'_>>(next()?)?, next()?);
            if pod.may_match(identity) {
                policy.rules.push(pod.into_rule(serde_json::from_str(rest)?));
            }
        }
        let named = policy.rules.iter().map(|rule| rule.profile.as_str()).chain([head.default.as_str()]);
        let named: BTreeSet<&str> = named.chain(asked_for).collect();
        // The error for an unknown profile lists all that exist.
        let all = asked_for.is_some_and(|name| !profile::is_built_in(name) && own.iter().all(|(own, _)| own != name));
        let mut profiles = Vec::new();
        for (name, line) in own.iter().filter(|(name, _)| all || named.contains(name.as_ref())) {
            let line: ProfileLine<'_> = serde_json::from_str(line)?;
            let (place, selinux) = (line.place.into_owned(), line.selinux.map(Cow::into_owned));
            profiles.push(Profile::written(name, place, line.sandbox.into_owned(), selinux));
        }
        policy.profiles.extend(profiles.into_iter().map(|profile| (profile.name().to_owned(), profile)));
        policy.default = head.default;
        let names = policy.rules.iter().map(|rule| &rule.profile).chain([&policy.default]);
        if let Some(name) = names.into_iter().find(|name| policy.profile(name).is_none()) {
            return Err(incomplete(&format!("there is no profile {name}")));
        }
        Ok(policy)
    }
}

fn incomplete(problem: &str) -> serde_json::Error {
    serde::de::Error::custom(problem)
}

impl Profile {
    fn place(&self) -> Option<&Place> {
        match self.origin() {
            Origin::BuiltIn => None,
            Origin::File(place) => Some(place),
        }
    }
}

fn lines_of(rule: &Rule) -> (PodLine<'_>, RuleLine) {
    fn texts(patterns: &Option<Patterns>) -> Texts<'_> {
        Some(patterns.as_ref()?.all().iter().map(|pattern| Text(pattern.into())).collect())
    }
    let Selector { namespace, image, digest, pod, container, handler, kind } = &rule.selector;
    let rest = RuleLine {
        image: image.clone(),
        digest: digest.clone(),
        container: container.clone(),
        kind: *kind,
        profile: rule.profile.clone(),
        privileged: rule.privileged,
        acknowledged: rule.acknowledged,
        number: rule.number,
        place: rule.place.clone(),
    };
    (PodLine(texts(namespace), texts(pod), texts(handler)), rest)
}

impl PodLine<'_> {
    /// As [`Rule::may_match_pod`].
    fn may_match(&self, identity: &Identity) -> bool {
        let holds = |patterns: &Texts<'_>, found: Option<&str>| {
            let matches = |found: &str, all: &[Text<'_>]| all.iter().any(|Text(one)| pattern::matches(one, found));
            patterns.as_ref().is_none_or(|all| found.is_some_and(|found| matches(found, all)))
        };
        let Self(namespace, pod, handler) = self;
        holds(namespace, identity.namespace.as_deref())
            && holds(pod, identity.pod.as_deref())
            && holds(handler, identity.handler.as_deref())
    }

    fn into_rule(self, rest: RuleLine) -> Rule {
        let patterns = |texts: Texts<'_>| {
            let mut all: Vec<String> = texts?.into_iter().map(|Text(text)| text.into_owned()).collect();
            Some(if all.len() == 1 { Patterns::One(all.remove(0)) } else { Patterns::Any(all) })
        };
        let Self(namespace, pod, handler) = self;
        let selector = Selector {
            namespace: patterns(namespace),
            image: rest.image,
            digest: rest.digest,
            pod: patterns(pod),
            container: rest.container,
            handler: patterns(handler),
            kind: rest.kind,
        };
        Rule {
            place: rest.place,
            number: rest.number,
            profile: rest.profile,
            privileged: rest.privileged,
            acknowledged: rest.acknowledged,
            selector,
        }
    }
}
