//! A process, as a spec or an exec asks for it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxCapabilities, PosixRlimitType, Process};

use super::{fields, refusal};
use crate::bundle::User;
use crate::capability::{Capabilities, CapabilitySet};
use crate::identity::Identity;
use crate::path;
use crate::refusal::{Note, Refusal, Violation};

/// Bytes of arguments and environment that are taken; the kernel stops at a quarter of the stack
/// limit, 2 MiB by default (execve(2)).
const MAX_ARGUMENT_BYTES: usize = 2 << 20;

/// Supplementary groups that are taken: `NGROUPS_MAX`, getgroups(2).
const MAX_GROUPS: usize = 65536;

/// What a process asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProcessRequest {
    pub(crate) terminal: bool,
    /// Rows and columns.
    pub(crate) console_size: Option<(u16, u16)>,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<String>,
    pub(crate) cwd: PathBuf,
    pub(crate) user: User,
    /// An absent set is an empty one: libcontainer would leave it as it is.
    pub(crate) capabilities: Capabilities,
    /// Soft and hard limits, by OCI name.
    pub(crate) rlimits: BTreeMap<String, (u64, u64)>,
    pub(crate) no_new_privileges: bool,
    pub(crate) apparmor: Option<String>,
    pub(crate) selinux: Option<String>,
    pub(crate) oom_score_adj: Option<i32>,
    /// What was dropped of an exec's process; a container's has its notes with the rest of the spec.
    pub(crate) notes: Vec<Note>,
}

impl ProcessRequest {
    /// The process of an exec: containerd hands over its own stored one, as the pod wrote it.
    ///
    /// # Errors
    /// It is none, or asks for something that nobody gets: every reason at once.
    pub fn of_exec(text: &[u8], identity: &Identity) -> Result<Self, Refusal> {
        let mut errors = Vec::new();
        match super::read_json::<Process>(text) {
            Ok((process, notes)) => {
                fields::refuse_of_exec(&process, &mut errors);
                let parsed = Self { notes, ..Self::parse(&process, &mut errors) };
                if errors.is_empty() {
                    return Ok(parsed);
                }
            }
            Err(error) => {
                let problem = format!("is not an OCI process: {error}");
                errors.push(Violation::invalid("process", problem, "give it one"));
            }
        }
        Err(refusal(identity, errors))
    }

    /// The same, with a terminal or without.
    #[must_use]
    pub const fn with_terminal(mut self, terminal: bool) -> Self {
        self.terminal = terminal;
        self
    }

    pub(super) fn parse(process: &Process, errors: &mut Vec<Violation>) -> Self {
        check_strings(process, errors);
        let user = process.user();
        let additional_gids = user.additional_gids().clone().unwrap_or_default();
        if additional_gids.len() > MAX_GROUPS {
            let problem = format!("{} groups; the kernel takes at most {MAX_GROUPS}", additional_gids.len());
            errors.push(Violation::invalid("process.user.additionalGids", problem, "give fewer"));
        }
        let score = process.oom_score_adj().filter(|score| {
            let possible = (-1000..=1000).contains(score);
            if !possible {
                let problem = format!("{score}; expected -1000 to 1000");
                errors.push(Violation::invalid("process.oomScoreAdj", problem, "use another"));
            }
            possible
        });
        let cell = |n: u64| u16::try_from(n).unwrap_or(u16::MAX);
        Self {
            terminal: process.terminal().unwrap_or(false),
            console_size: process.console_size().map(|size| (cell(size.height()), cell(size.width()))),
            args: process.args().clone().unwrap_or_default(),
            env: process.env().clone().unwrap_or_default(),
            cwd: cwd(process.cwd(), errors),
            user: User {
                uid: user.uid(),
                gid: user.gid(),
                additional_gids,
                umask: user.umask().map(|umask| umask & 0o777),
            },
            capabilities: capabilities(process),
            rlimits: rlimits(process, errors),
            no_new_privileges: process.no_new_privileges().unwrap_or(false),
            apparmor: process.apparmor_profile().clone().filter(|name| !name.is_empty()),
            selinux: process.selinux_label().clone().filter(|label| !label.is_empty()),
            oom_score_adj: score,
            notes: Vec::new(),
        }
    }

    /// Whether it asks for the capability that is all others.
    pub(crate) fn asks_for_sys_admin(&self) -> bool {
        const SYS_ADMIN: CapabilitySet = CapabilitySet::of(&["SYS_ADMIN"]);
        SYS_ADMIN.is_subset(self.capabilities.bounding)
    }
}

fn capabilities(process: &Process) -> Capabilities {
    let sets = process.capabilities().as_ref();
    let of = |pick: fn(&LinuxCapabilities) -> Option<&oci_spec::runtime::Capabilities>| {
        CapabilitySet::from_oci(sets.and_then(pick))
    };
    Capabilities {
        bounding: of(|c| c.bounding().as_ref()),
        effective: of(|c| c.effective().as_ref()),
        permitted: of(|c| c.permitted().as_ref()),
        inheritable: of(|c| c.inheritable().as_ref()),
        ambient: of(|c| c.ambient().as_ref()),
    }
}

fn rlimits(process: &Process, errors: &mut Vec<Violation>) -> BTreeMap<String, (u64, u64)> {
    let mut limits = BTreeMap::new();
    for limit in process.rlimits().iter().flatten() {
        let name = name_of(limit.typ());
        if limit.soft() > limit.hard() {
            let problem = format!("the soft limit {} is above the hard one, {}", limit.soft(), limit.hard());
            errors.push(Violation::invalid(format!("process.rlimits[{name}]"), problem, "lower the soft limit"));
        }
        if limits.insert(name.clone(), (limit.soft(), limit.hard())).is_some() {
            errors.push(Violation::invalid(format!("process.rlimits[{name}]"), "is given twice", "give it once"));
        }
    }
    limits
}

/// The OCI name of a limit: `RLIMIT_NOFILE`.
fn name_of(limit: PosixRlimitType) -> String {
    serde_json::to_value(limit).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

fn check_strings(process: &Process, errors: &mut Vec<Violation>) {
    let arguments = process.args().as_deref().unwrap_or_default();
    let environment = process.env().as_deref().unwrap_or_default();
    if arguments.first().is_none_or(String::is_empty) {
        errors.push(Violation::invalid("process.args", "no program to run", "name one in command or in the image"));
    }
    for (field, strings) in [("process.args", arguments), ("process.env", environment)] {
        if let Some(at) = strings.iter().position(|s| s.contains('\0')) {
            errors.push(Violation::invalid(format!("{field}[{at}]"), "contains a NUL byte", "take it out"));
        }
    }
    let bytes: usize = arguments.iter().chain(environment).map(String::len).sum();
    if bytes > MAX_ARGUMENT_BYTES {
        errors.push(Violation::invalid(
            "process.args and process.env",
            format!("{bytes} bytes; at most {MAX_ARGUMENT_BYTES} can be given to a program"),
            "pass large data in a file",
        ));
    }
}

/// The working directory, as it is spelled: the container's user goes there, by the container's links.
fn cwd(cwd: &Path, errors: &mut Vec<Violation>) -> PathBuf {
    if !cwd.is_absolute() || cwd.as_os_str().as_encoded_bytes().contains(&0) {
        errors.push(
            Violation::invalid(
                "process.cwd",
                format!("{:?} is not an absolute path", cwd.display().to_string()),
                "start workingDir with /",
            )
            .of_container("workingDir"),
        );
    }
    // /proc/self/fd/N as working directory: a descriptor leaked from the runtime (CVE-2024-21626).
    let clean = path::without_dots(cwd);
    if clean.starts_with("/proc") || cwd.starts_with("/proc") {
        errors.push(
            Violation::policy(
                "process.cwd",
                format!("{} is inside /proc", cwd.display()),
                "use a directory of the image or of a volume",
            )
            .of_container("workingDir"),
        );
    }
    cwd.to_owned()
}
