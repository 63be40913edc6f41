//! A sandbox in words, a line for each thing that it decides.

use std::fmt::Display;

use crate::decide::{self, Admission};
use crate::label;
use crate::policy::Profile;
use crate::refusal::Note;
use crate::sandbox::{Access, HostPaths, Sandbox, Users};

/// What was decided of a container, for a person who asks later.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Summary {
    /// The rule and profile that decided, with file and line.
    pub by: String,
    /// Profiles that the sandbox is the meet of.
    pub profiles: Vec<String>,
    /// The sandbox in words: what, and how.
    pub sandbox: Vec<(String, String)>,
    /// What was tightened.
    pub notes: Vec<Note>,
    /// What the kernel does not have, and what is not enforced therefore.
    #[serde(default)]
    pub lost: Vec<String>,
}

impl Admission {
    /// What was decided, in words.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let mut sandbox = self.sandbox().describe();
        let namespace = self.user_namespace().map_or("none".to_owned(), |namespace| namespace.to_string());
        sandbox.push(("user namespace".to_owned(), namespace));
        let label = self.plan().selinux.clone().unwrap_or_else(|| "none".to_owned());
        sandbox.push(("SELinux label".to_owned(), label));
        Summary {
            by: self.by().to_owned(),
            profiles: self.sandbox().names().iter().cloned().collect(),
            sandbox,
            notes: self.notes().to_vec(),
            lost: self.lacks().map(|feature| format!("without {}: {}", feature.name, feature.lost)).collect(),
        }
    }
}

impl Profile {
    /// What it decides and how, always in the same order. The system calls are not among them.
    #[must_use]
    pub fn describe(&self) -> Vec<(String, String)> {
        let mut rows = self.sandbox().describe();
        let label = self.selinux().unwrap_or(label::DEFAULT_SELINUX);
        rows.push(("SELinux default".to_owned(), label.to_owned()));
        rows
    }
}

impl Sandbox {
    /// What it decides and how, always in the same order. The system calls are not among them.
    #[must_use]
    pub fn describe(&self) -> Vec<(String, String)> {
        let yes_no = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
        let trees = |extra: &mut dyn Iterator<Item = String>| list(extra);
        let paths = |set: &std::collections::BTreeSet<std::path::PathBuf>| {
            trees(&mut set.iter().map(|p| p.display().to_string()))
        };
        let ports = |set: &Option<std::collections::BTreeSet<u16>>| {
            set.as_ref().map_or("any".to_owned(), |set| list(&mut set.iter().map(ToString::to_string)))
        };
        let namespaces = self.host_namespaces.iter().map(|n| format!("{n:?}").to_lowercase());
        let programs = self.exec.programs.iter().map(|p| format!("one of {p}")).collect::<Vec<_>>().join(" and ");
        let rows = [
            ("capabilities", self.capabilities.to_string()),
            ("calls of other ABIs", format!("{:?}", self.filter.foreign())),
            ("denied calls are told", yes_no(self.explained)),
            (
                "quiet calls",
                list(&mut self.quiet.iter().filter_map(|n| self.filter.arch().name(*n)).map(str::to_owned)),
            ),
            ("Landlock", yes_no(self.landlock)),
            ("privileged", yes_no(self.is_open())),
            ("read-only root", yes_no(self.read_only_root)),
            ("system folders", if self.system_writable { "writable" } else { "read-only" }.to_owned()),
            ("execute from writable", yes_no(self.execute_from_writable)),
            ("no write below", paths(&self.no_write)),
            ("no execute below", paths(&self.no_execute)),
            ("hidden", paths(&self.hidden)),
            ("masked too", list(&mut self.masked.iter().cloned())),
            ("read-only too", list(&mut self.read_only.iter().cloned())),
            ("listen at TCP", ports(&self.bind_tcp)),
            ("connect to TCP", ports(&self.connect_tcp)),
            ("abstract sockets", if self.abstract_sockets { "any" } else { "of the sandbox" }.to_owned()),
            ("host namespaces", list(&mut namespaces.into_iter())),
            ("host paths", every(self.host_paths.iter().map(paths_of))),
            ("later mounts below read-only", yes_no(self.later_mounts)),
            ("hooks", self.hooks.as_ref().map_or("any".to_owned(), paths)),
            (
                "devices",
                list(&mut self.devices.iter().map(|d| {
                    let minor = d.minor.map_or("*".to_owned(), |m| m.to_string());
                    format!("{} {}:{minor}", if d.block { "b" } else { "c" }, d.major)
                })),
            ),
            ("sysctls", every(self.sysctls.iter().map(ToString::to_string))),
            ("limits", list(&mut self.limits.iter().map(|(name, most)| format!("{name} {most}")))),
            ("users", every(self.users.iter().map(users_of))),
            (
                "AppArmor",
                list(
                    &mut decide::own_apparmor(self).map(str::to_owned).into_iter().chain(self.apparmor.iter().cloned()),
                ),
            ),
            ("SELinux types too", list(&mut self.selinux_types.iter().cloned())),
            ("exec", if self.exec.refused { "refused" } else { "allowed" }.to_owned()),
            ("exec programs", if programs.is_empty() { "any".to_owned() } else { programs }),
            ("exec hides", paths(&self.exec.hidden)),
            ("exec read-only", yes_no(self.exec.read_only)),
            ("exec network", yes_no(!self.exec.no_network)),
        ];
        rows.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }
}

fn list(items: &mut dyn Iterator<Item = String>) -> String {
    let items: Vec<String> = items.collect();
    if items.is_empty() { "none".to_owned() } else { items.join(", ") }
}

/// Several demands, which all must hold.
fn every(demands: impl Iterator<Item = impl Display>) -> String {
    let demands: Vec<String> = demands.map(|d| d.to_string()).collect();
    if demands.is_empty() { "any".to_owned() } else { demands.join("; and ") }
}

fn word(access: Option<Access>) -> &'static str {
    match access {
        None => "denied",
        Some(Access::ReadOnly) => "read-only",
        Some(Access::ReadWrite) => "read-write",
    }
}

fn paths_of(paths: &HostPaths) -> String {
    let mut parts = Vec::new();
    for access in [None, Some(Access::ReadOnly), Some(Access::ReadWrite)] {
        let of: Vec<String> = paths.words(access).collect();
        if !of.is_empty() {
            parts.push(format!("{} {}", word(access), of.join(" ")));
        }
    }
    parts.push(format!("others {}", word(paths.other())));
    parts.join(", ")
}

fn users_of(users: &Users) -> String {
    let mut parts = Vec::new();
    if users.non_root {
        parts.push("not root".to_owned());
    }
    if users.own_namespace {
        parts.push("in a user namespace".to_owned());
    }
    for (what, ranges) in [("uid", &users.uids), ("gid", &users.gids)] {
        if let Some(ranges) = ranges {
            let ranges: Vec<String> = ranges.iter().map(|(first, last)| format!("{first} to {last}")).collect();
            parts.push(format!("{what} {}", ranges.join(" or ")));
        }
    }
    parts.join(", ")
}
