//! A checked policy as text, which the next create reads instead of the policy's files.
//!
//! A head, two lines for each profile of the node (its name, then the profile), and a line for each rule, all JSON. So
//! a reader skips what does not concern its pod: of five hundred rules and twenty profiles it builds a few.

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

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleLine<'a> {
    #[serde(borrow)]
    namespace: Texts<'a>,
    #[serde(borrow)]
    pod: Texts<'a>,
    #[serde(borrow)]
    handler: Texts<'a>,
    #[serde(borrow)]
    image: Texts<'a>,
    #[serde(borrow)]
    digest: Texts<'a>,
    #[serde(borrow)]
    container: Texts<'a>,
    kind: Option<Kind>,
    #[serde(borrow)]
    profile: Text<'a>,
    privileged: bool,
    acknowledged: bool,
    number: usize,
    #[serde(borrow)]
    file: Text<'a>,
    line: usize,
    column: usize,
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
            lines.push(serde_json::to_string(&RuleLine::of(rule)?)?);
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
            let line: RuleLine<'_> = serde_json::from_str(next()?)?;
            if line.may_match_pod(identity) {
                policy.rules.push(line.into_rule());
            }
        }
        let named = policy.rules.iter().map(|rule| rule.profile.as_str()).chain([head.default.as_str()]);
        let named: BTreeSet<&str> = named.chain(asked_for).collect();
        // Whoever asks for a profile that there is not is told which there are.
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

impl<'a> RuleLine<'a> {
    fn of(rule: &'a Rule) -> Result<Self, serde_json::Error> {
        let texts = |patterns: &'a Option<Patterns>| -> Texts<'a> {
            let all = patterns.as_ref()?.all();
            Some(all.iter().map(|pattern| Text(pattern.into())).collect())
        };
        let Selector { namespace, image, digest, pod, container, handler, kind } = &rule.selector;
        let file = rule.place.file.to_str().ok_or_else(|| incomplete("a path is no UTF-8"))?;
        Ok(Self {
            namespace: texts(namespace),
            pod: texts(pod),
            handler: texts(handler),
            image: texts(image),
            digest: texts(digest),
            container: texts(container),
            kind: *kind,
            profile: Text(rule.profile.as_str().into()),
            privileged: rule.privileged,
            acknowledged: rule.acknowledged,
            number: rule.number,
            file: Text(file.into()),
            line: rule.place.line,
            column: rule.place.column,
        })
    }

    /// As [`Rule::may_match_pod`].
    fn may_match_pod(&self, identity: &Identity) -> bool {
        let holds = |patterns: &Texts<'_>, found: Option<&str>| {
            let matches = |found: &str, all: &[Text<'_>]| all.iter().any(|Text(one)| pattern::matches(one, found));
            patterns.as_ref().is_none_or(|all| found.is_some_and(|found| matches(found, all)))
        };
        holds(&self.namespace, identity.namespace.as_deref())
            && holds(&self.pod, identity.pod.as_deref())
            && holds(&self.handler, identity.handler.as_deref())
    }

    fn into_rule(self) -> Rule {
        let patterns = |texts: Texts<'_>| {
            let mut all: Vec<String> = texts?.into_iter().map(|Text(text)| text.into_owned()).collect();
            Some(if all.len() == 1 { Patterns::One(all.remove(0)) } else { Patterns::Any(all) })
        };
        let selector = Selector {
            namespace: patterns(self.namespace),
            image: patterns(self.image),
            digest: patterns(self.digest),
            pod: patterns(self.pod),
            container: patterns(self.container),
            handler: patterns(self.handler),
            kind: self.kind,
        };
        Rule {
            place: Place { file: self.file.0.into_owned().into(), line: self.line, column: self.column },
            number: self.number,
            profile: self.profile.0.into_owned(),
            privileged: self.privileged,
            acknowledged: self.acknowledged,
            selector,
        }
    }
}
