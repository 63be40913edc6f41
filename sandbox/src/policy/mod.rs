//! The node's policy: profiles, and rules that give each container one of them.
//!
//! Reading the files is `hardened-node`'s; nothing here does I/O.

mod compiled;
mod edit;
mod error;
mod file;
mod profile;
mod rule;
mod warning;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use toml::Spanned;

use self::edit::Edit;
use self::error::nearest;
pub use self::error::{Place, PolicyError, PolicyErrors};
use self::file::{LandlockDemand, ProfileTable};
pub use self::file::{PathAccess, PolicyFile};
pub use self::profile::{Origin, Profile};
pub use self::rule::Rule;
pub use self::warning::PolicyWarning;
use crate::identity::Identity;
pub use crate::pattern::Patterns;
use crate::profile::BuiltIn;
use crate::sandbox::HostNamespace;
use crate::seccomp::Arch;
pub use crate::seccomp::SocketFamily;

/// The text of a policy file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    path: PathBuf,
    text: String,
    /// Where each line begins, in bytes: errors and refusals name the line of a rule.
    lines: Vec<usize>,
}

impl Source {
    /// TOML, and its path for messages.
    #[must_use]
    pub fn new(path: PathBuf, text: String) -> Self {
        let after = text.match_indices('\n').map(|(at, _)| at + 1);
        let lines = std::iter::once(0).chain(after).collect();
        Self { path, text, lines }
    }

    /// The text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// Reads what `seccomp.oci` names, or says why it cannot be read.
pub type ReadSeccomp<'a> = &'a dyn Fn(&Path) -> Result<String, String>;

/// The node's policy, checked as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    arch: Arch,
    profiles: BTreeMap<String, Profile>,
    rules: Vec<Rule>,
    default: String,
    landlock: LandlockDemand,
    logs_landlock_denials: bool,
}

/// What the policy says of one container.
#[derive(Debug, Clone, Copy)]
pub struct Choice<'a> {
    /// The node's profile.
    pub profile: &'a Profile,
    /// The rule that gave it; absent for the default.
    pub rule: Option<&'a Rule>,
}

impl fmt::Display for Choice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(rule) = self.rule {
            write!(f, "rule {} ({}), ", rule.number, rule.place)?;
        }
        write!(f, "profile {} ({})", self.profile.name(), self.profile.origin())
    }
}

impl Policy {
    /// A node without policy files: `baseline` for every container.
    #[must_use]
    pub fn built_in(arch: Arch) -> Self {
        let profiles = BuiltIn::ALL.map(|built_in| (built_in.name().to_owned(), Profile::built_in(built_in, arch)));
        Self {
            arch,
            profiles: profiles.into(),
            rules: Vec::new(),
            default: BuiltIn::Baseline.name().to_owned(),
            landlock: LandlockDemand::default(),
            logs_landlock_denials: false,
        }
    }

    /// Checks all files: `policy.toml`, then `policy.d/*.toml` by name.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn parse(files: &[Source], read: ReadSeccomp<'_>, arch: Arch) -> Result<Self, PolicyErrors> {
        let mut policy = Self::built_in(arch);
        let mut errors = Vec::new();
        let mut tables: BTreeMap<String, (Spanned<ProfileTable>, &Source)> = BTreeMap::new();
        let mut default: Option<(String, Place)> = None;
        let mut landlock: Option<(LandlockDemand, Place)> = None;
        let mut log: Option<(bool, Place)> = None;
        for source in files {
            let file: PolicyFile = match toml::from_str(&source.text) {
                Ok(file) => file,
                Err(error) => {
                    errors.push(PolicyError::toml(source, &error));
                    continue;
                }
            };
            once("default", &mut default, file.default, source, &mut errors);
            once("landlock", &mut landlock, file.landlock, source, &mut errors);
            once("log-landlock-denials", &mut log, file.log_landlock_denials, source, &mut errors);
            for (name, table) in file.profile {
                let place = Place::of(source, table.span());
                if policy.profiles.contains_key(&name) {
                    errors.push(PolicyError::at(&place, format!("profile {name} is built in; choose another name")));
                } else if let Some((earlier, at)) = tables.get(&name) {
                    let earlier = Place::of(at, earlier.span());
                    errors.push(PolicyError::at(&place, format!("profile {name} is defined at {earlier} already")));
                } else {
                    tables.insert(name, (table, source));
                }
            }
            for table in file.rule {
                let place = Place::of(source, table.span());
                match Rule::read(table.into_inner(), place, policy.rules.len() + 1) {
                    Ok(rule) => policy.rules.push(rule),
                    Err(error) => errors.push(error),
                }
            }
        }
        let names: Vec<String> = tables.keys().cloned().collect();
        for name in &names {
            policy.build(name, &names, &mut tables, read, arch, &mut errors);
        }
        policy.landlock = landlock.map(|(demand, _)| demand).unwrap_or_default();
        policy.logs_landlock_denials = log.is_some_and(|(log, _)| log);
        if let Some((name, place)) = default {
            match policy.find(&name, &place) {
                Ok(profile) if profile.is_privileged() => errors.push(PolicyError::at(
                    &place,
                    "privileged containers are for rules with `privileged = \"allow\"`, not for all containers",
                )),
                Ok(_) => policy.default = name,
                Err(error) => errors.push(error),
            }
        }
        policy.check_rules(&mut errors);
        if errors.is_empty() { Ok(policy) } else { Err(PolicyErrors(errors)) }
    }

    /// Builds a profile, after the one that it extends. Taken out of `tables` first, so that a
    /// circle finds nothing to extend.
    fn build(
        &mut self,
        name: &str,
        names: &[String],
        tables: &mut BTreeMap<String, (Spanned<ProfileTable>, &Source)>,
        read: ReadSeccomp<'_>,
        arch: Arch,
        errors: &mut Vec<PolicyError>,
    ) {
        let Some((table, source)) = tables.remove(name) else { return };
        let place = Place::of(source, table.span());
        let table = table.into_inner();
        let (base, at) = match &table.extends {
            Some(base) => (base.get_ref().clone(), Place::of(source, base.span())),
            None => (BuiltIn::Baseline.name().to_owned(), place.clone()),
        };
        self.build(&base, names, tables, read, arch, errors);
        let base = match self.find(&base, &at) {
            Ok(base) => base,
            Err(error) if !names.contains(&base) => return errors.push(error),
            Err(_) => {
                return errors.push(PolicyError::at(
                    &at,
                    format!("profile {name} extends {base}, which extends it again or cannot be built itself"),
                ));
            }
        };
        let selinux = table.labels.selinux.clone().or_else(|| base.selinux().map(str::to_owned));
        let mut edit = Edit::new(base.sandbox().clone(), source, read, arch);
        edit.apply(name, &table, &place);
        errors.append(&mut edit.errors);
        self.profiles.insert(name.to_owned(), Profile::written(name, place, edit.sandbox, selinux));
    }

    fn check_rules(&self, errors: &mut Vec<PolicyError>) {
        for rule in &self.rules {
            match self.find(&rule.profile, &rule.place) {
                Err(error) => errors.push(error),
                Ok(profile) if profile.is_privileged() != rule.privileged => {
                    let problem = if rule.privileged {
                        format!("profile {} does not extend `privileged`; leave `profile` out", profile.name())
                    } else {
                        format!("profile {} is privileged; the rule must say privileged = \"allow\"", profile.name())
                    };
                    errors.push(PolicyError::at(&rule.place, problem));
                }
                Ok(profile) if rule.is_forgeable() && !rule.acknowledged => {
                    errors.extend(self.widened_by(rule, profile).map(|(narrower, by)| {
                        let problem = format!(
                            "profile {} allows more than {narrower}, which the container would have by {by}, and a pod's \
                             author chooses all that this rule selects by; add `namespace`, or acknowledge-risk = true",
                            profile.name()
                        );
                        PolicyError::at(&rule.place, problem)
                    }));
                }
                Ok(_) => {}
            }
        }
    }

    /// Of what a container would have without a forgeable rule, a profile that does not allow all that the
    /// rule's allows; and what gives it.
    fn widened_by(&self, rule: &Rule, profile: &Profile) -> Option<(&str, String)> {
        let later = self.rules.iter().skip(rule.number).filter(|later| later.may_decide_instead_of(rule));
        let later = later.map(|later| (&later.profile, format!("rule {} ({})", later.number, later.place)));
        let all = later.chain([(&self.default, "default".to_owned())]);
        // A missing profile is reported separately.
        let is_narrower = |name: &str| self.profile(name).is_some_and(|other| !profile.is_within(other));
        all.map(|(name, by)| (name.as_str(), by)).find(|(name, _)| is_narrower(name))
    }

    fn find(&self, name: &str, place: &Place) -> Result<&Profile, PolicyError> {
        self.profile(name).ok_or_else(|| PolicyError::at(place, self.no_profile(name)))
    }

    fn no_profile(&self, name: &str) -> String {
        let near = nearest(name, self.profiles.keys().map(String::as_str));
        let near = near.map(|n| format!("; did you mean {n}?")).unwrap_or_default();
        format!("there is no profile {name:?}{near}")
    }

    /// The profile of that name.
    #[must_use]
    pub fn profile(&self, name: &str) -> Option<&Profile> {
        self.profiles.get(name)
    }

    /// Every profile, by name.
    pub fn profiles(&self) -> impl Iterator<Item = &Profile> {
        self.profiles.values()
    }

    /// The same profiles, with one of them for every container: to try a profile out.
    ///
    /// # Errors
    /// There is no such profile.
    pub fn with_profile_for_all(mut self, name: &str) -> Result<Self, String> {
        if self.profile(name).is_none() {
            return Err(self.no_profile(name));
        }
        self.rules.clear();
        self.default = name.to_owned();
        Ok(self)
    }

    /// Name of the profile of every container that no rule names.
    #[must_use]
    pub fn default_profile(&self) -> &str {
        &self.default
    }

    /// Whether containers start where the kernel's Landlock is too old or missing.
    #[must_use]
    pub fn takes_old_landlock(&self) -> bool {
        self.landlock == LandlockDemand::BestEffort
    }

    /// Whether the kernel logs what Landlock denies.
    #[must_use]
    pub const fn logs_landlock_denials(&self) -> bool {
        self.logs_landlock_denials
    }

    /// The rules, in order.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The node's profile for a container: that of the first rule that matches. `privileged` tells
    /// whether the container asks to be.
    #[must_use]
    pub fn choose(&self, identity: &Identity, privileged: bool) -> Choice<'_> {
        let rule = self.rules.iter().find(|rule| rule.matches(identity, privileged));
        let name = rule.map_or(&self.default, |rule| &rule.profile);
        // Every name was checked by `parse`, and built-in ones are there from the start.
        #[expect(clippy::expect_used, reason = "a policy without it is never made")]
        let profile = self.profile(name).expect("a checked profile");
        Choice { profile, rule }
    }

    /// Paths of the host that a profile has a rule for.
    pub fn host_paths(&self) -> BTreeSet<&Path> {
        let all = self.profiles.values().flat_map(|profile| profile.sandbox().host_paths());
        all.flat_map(|paths| paths.grants().map(|(path, _)| path)).collect()
    }

    /// Namespaces of the host that some container of the pod could be given: its sandbox, which
    /// comes before any image is known, may hold them for it.
    pub(crate) fn host_namespaces_of_pod(&self, identity: &Identity) -> impl Iterator<Item = HostNamespace> {
        let rules = self.rules.iter().filter(|rule| rule.may_match_pod(identity));
        rules.filter_map(|rule| self.profile(&rule.profile)).flat_map(|p| p.sandbox().host_namespaces())
    }
}

/// Takes a value that all files together may give once.
fn once<T>(
    name: &str,
    taken: &mut Option<(T, Place)>,
    value: Option<Spanned<T>>,
    source: &Source,
    errors: &mut Vec<PolicyError>,
) {
    let Some(value) = value else { return };
    let place = Place::of(source, value.span());
    if let Some((_, earlier)) = taken {
        errors.push(PolicyError::at(&place, format!("`{name}` is given at {earlier} already")));
    }
    *taken = Some((value.into_inner(), place));
}
