//! The process of a container, or of an exec: the same checks and the same hardening for both.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxCapabilities, LinuxCapabilitiesBuilder, PosixRlimitBuilder, PosixRlimitType, Process};

use crate::capability::CapabilitySet;
use crate::kernel::KernelSupport;
use crate::label::{self, Labels};
use crate::plan::Capabilities;
use crate::refusal::{Note, Violation};
use crate::sandbox::{ExecRules, Sandbox, Users};

/// What containerd and runc give to a process without a `PATH`.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Bytes of arguments and environment that are taken; the kernel stops at a quarter of the stack
/// limit, 2 MiB by default (execve(2)).
const MAX_ARGUMENT_BYTES: usize = 2 << 20;

/// What is hardened in a process beyond the OCI process itself.
#[derive(Debug)]
pub(crate) struct Hardened {
    pub(crate) capabilities: Capabilities,
    pub(crate) labels: Labels,
    pub(crate) cwd: PathBuf,
    pub(crate) home: Option<u32>,
}

/// Whether the process asks for the capability that is all others.
pub(crate) fn asks_for_sys_admin(process: &Process) -> bool {
    const SYS_ADMIN: CapabilitySet = CapabilitySet::of(&["SYS_ADMIN"]);
    SYS_ADMIN.is_subset(requested(process).bounding)
}

/// Refuses a process that asks for what the sandbox does not give.
pub(crate) fn check(process: &Process, sandbox: &Sandbox, host: &KernelSupport, violations: &mut Vec<Violation>) {
    check_strings(process, violations);
    let asked = requested(process);
    let all = [asked.bounding, asked.effective, asked.permitted, asked.inheritable, asked.ambient]
        .into_iter()
        .fold(CapabilitySet::EMPTY, CapabilitySet::union);
    let beyond = all.without(CapabilitySet::CONTAINERD_DEFAULT.union(sandbox.capabilities));
    if !beyond.is_empty() && !sandbox.privileged {
        violations.push(
            Violation::policy(
                "process.capabilities",
                format!("added: {beyond}, which the profile does not give"),
                "take them out of securityContext.capabilities.add, and run without privileged",
            )
            .of_container("securityContext.capabilities.add"),
        );
    }
    for users in &sandbox.users {
        check_user(process, users, violations);
    }
    label::check(process, sandbox, host, violations);
}

fn check_user(process: &Process, users: &Users, violations: &mut Vec<Violation>) {
    let user = process.user();
    if users.non_root && user.uid() == 0 {
        violations.push(
            Violation::policy(
                "process.user.uid",
                "0 (root); the profile demands another user",
                "set runAsUser to a number above 0, or USER in the image",
            )
            .of_container("securityContext.runAsUser"),
        );
    }
    let outside = |ranges: &Option<std::collections::BTreeSet<(u32, u32)>>, id: u32| {
        ranges.as_ref().is_some_and(|ranges| !ranges.iter().any(|(first, last)| (first..=last).contains(&&id)))
    };
    if outside(&users.uids, user.uid()) {
        violations.push(
            Violation::policy(
                "process.user.uid",
                format!("{}; the profile allows {}", user.uid(), shown(&users.uids)),
                "choose another runAsUser",
            )
            .of_container("securityContext.runAsUser"),
        );
    }
    let groups = std::iter::once(user.gid()).chain(user.additional_gids().iter().flatten().copied());
    let wrong: Vec<String> = groups.filter(|gid| outside(&users.gids, *gid)).map(|gid| gid.to_string()).collect();
    if !wrong.is_empty() {
        violations.push(
            Violation::policy(
                "process.user.gid",
                format!("{}; the profile allows {}", wrong.join(", "), shown(&users.gids)),
                "choose another runAsGroup, fsGroup or supplementalGroups",
            )
            .of_container("securityContext.runAsGroup"),
        );
    }
}

fn shown(ranges: &Option<std::collections::BTreeSet<(u32, u32)>>) -> String {
    let ranges = ranges.iter().flatten().map(|(first, last)| format!("{first} to {last}"));
    ranges.collect::<Vec<_>>().join(", ")
}

/// Refuses an exec that the profile's exec rules do not allow.
pub(crate) fn check_exec(process: &Process, rules: &ExecRules, violations: &mut Vec<Violation>) {
    if rules.refused {
        violations.push(Violation::policy(
            "exec",
            "the profile refuses every exec in this container",
            "use a profile without exec.refuse; probes and hooks can ask by HTTP or TCP instead",
        ));
    }
    let program = process.args().as_ref().and_then(|a| a.first()).map(String::as_str).unwrap_or_default();
    for programs in rules.programs.iter().filter(|programs| !programs.matches(program)) {
        violations.push(Violation::policy(
            "exec.args[0]",
            format!("{program:?}; the profile allows exec of {programs}"),
            "run one of those",
        ));
    }
}

fn check_strings(process: &Process, violations: &mut Vec<Violation>) {
    let arguments = process.args().as_deref().unwrap_or_default();
    let environment = process.env().as_deref().unwrap_or_default();
    if arguments.first().is_none_or(String::is_empty) {
        violations.push(Violation::invalid("process.args", "no program to run", "name one in command or in the image"));
    }
    for (field, strings) in [("process.args", arguments), ("process.env", environment)] {
        if let Some(at) = strings.iter().position(|s| s.contains('\0')) {
            violations.push(Violation::invalid(format!("{field}[{at}]"), "contains a NUL byte", "take it out"));
        }
    }
    let bytes: usize = arguments.iter().chain(environment).map(String::len).sum();
    if bytes > MAX_ARGUMENT_BYTES {
        violations.push(Violation::invalid(
            "process.args and process.env",
            format!("{bytes} bytes; at most {MAX_ARGUMENT_BYTES} can be given to a program"),
            "pass large data in a file",
        ));
    }
    let cwd = process.cwd();
    if !cwd.is_absolute() || cwd.as_os_str().as_encoded_bytes().contains(&0) {
        violations.push(
            Violation::invalid(
                "process.cwd",
                format!("{:?} is not an absolute path", cwd.display().to_string()),
                "start workingDir with /",
            )
            .of_container("workingDir"),
        );
    }
    // /proc/self/fd/N as working directory: a descriptor leaked from the runtime (CVE-2024-21626).
    if cwd.starts_with(Path::new("/proc")) {
        violations.push(
            Violation::policy(
                "process.cwd",
                format!("{} is inside /proc", cwd.display()),
                "use a directory of the image or of a volume",
            )
            .of_container("workingDir"),
        );
    }
}

/// Rewrites a process to the sandbox.
pub(crate) fn harden(
    process: &mut Process,
    sandbox: &Sandbox,
    host: &KernelSupport,
    user_namespace: bool,
    notes: &mut Vec<Note>,
) -> Hardened {
    let asked = requested(process);
    let cut = |set: CapabilitySet| set.meet(sandbox.capabilities());
    let capabilities = Capabilities {
        bounding: cut(asked.bounding),
        effective: cut(asked.effective),
        permitted: cut(asked.permitted),
        inheritable: cut(asked.inheritable),
        ambient: cut(asked.ambient),
    };
    let dropped = asked.bounding.union(asked.permitted).without(sandbox.capabilities());
    if !dropped.is_empty() {
        notes.push(Note::new("process.capabilities", format!("dropped: {dropped}")));
    }
    process.set_capabilities(to_oci(&capabilities));
    if process.no_new_privileges() != Some(true) {
        process.set_no_new_privileges(Some(true));
        notes.push(Note::new("process.noNewPrivileges", "set: it always is"));
    }
    // Both are applied by the lock-down, which reads back what the kernel did.
    let labels = label::choose(process, sandbox, host);
    if process.apparmor_profile().as_deref() == Some("unconfined") && !labels.apparmor.is_empty() {
        notes.push(Note::new("process.apparmorProfile", "unconfined is not: it gets the node's own profile"));
    }
    process.set_apparmor_profile(None);
    process.set_selinux_label(None);
    bound(process, sandbox, notes);
    if !host.may_raise_limits {
        clamp_score(process, host, notes);
    }
    // libcontainer sets limits inside of the user namespace, whose root may raise none.
    if !host.may_raise_limits || user_namespace {
        clamp_limits(process, host, notes);
    }
    let home = complete_environment(process);
    let cwd = process.cwd().clone();
    process.set_cwd(PathBuf::from("/"));
    Hardened { capabilities, labels, cwd, home }
}

fn requested(process: &Process) -> Capabilities {
    // An absent set is an empty one: libcontainer would leave it as it is.
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

fn to_oci(capabilities: &Capabilities) -> Option<LinuxCapabilities> {
    LinuxCapabilitiesBuilder::default()
        .bounding(capabilities.bounding.to_oci())
        .effective(capabilities.effective.to_oci())
        .permitted(capabilities.permitted.to_oci())
        .inheritable(capabilities.inheritable.to_oci())
        .ambient(capabilities.ambient.to_oci())
        .build()
        .ok()
}

/// Limits, to the profile's.
fn bound(process: &mut Process, sandbox: &Sandbox, notes: &mut Vec<Note>) {
    for (name, most) in &sandbox.limits {
        let mut limits = process.rlimits().clone().unwrap_or_default();
        let found = limits.iter_mut().find(|limit| name_of(limit.typ()) == *name);
        if found.as_ref().is_some_and(|limit| limit.hard() <= *most) {
            continue;
        }
        // The name was checked when the policy was read.
        let Ok(kind) = serde_json::from_value::<PosixRlimitType>(name.clone().into()) else { continue };
        let soft = found.as_ref().map_or(*most, |limit| limit.soft().min(*most));
        let Ok(bounded) = PosixRlimitBuilder::default().typ(kind).hard(*most).soft(soft).build() else { continue };
        match found {
            Some(limit) => *limit = bounded,
            None => limits.push(bounded),
        }
        process.set_rlimits(Some(limits));
        notes.push(Note::new(format!("process.rlimits[{name}]"), format!("bounded to {most} by the profile")));
    }
}

/// The OOM score, to what this process may set at all.
fn clamp_score(process: &mut Process, host: &KernelSupport, notes: &mut Vec<Note>) {
    if let Some(score) = process.oom_score_adj()
        && score < host.oom_score_adj
    {
        process.set_oom_score_adj(Some(host.oom_score_adj));
        notes.push(Note::new(
            "process.oomScoreAdj",
            format!("{score} clamped to {}: the shim lacks CAP_SYS_RESOURCE", host.oom_score_adj),
        ));
    }
}

/// Limits, to this process's own.
fn clamp_limits(process: &mut Process, host: &KernelSupport, notes: &mut Vec<Note>) {
    let Some(mut limits) = process.rlimits().clone() else { return };
    for limit in &mut limits {
        let name = name_of(limit.typ());
        let Some(most) = host.hard_limits.get(&name).copied() else { continue };
        if limit.hard() > most {
            notes.push(Note::new(
                format!("process.rlimits[{name}]"),
                format!("{} clamped to {most}: more takes CAP_SYS_RESOURCE on the host", limit.hard()),
            ));
            let clamped = PosixRlimitBuilder::default().typ(limit.typ()).hard(most).soft(limit.soft().min(most));
            // All three fields are given, and no other is required.
            *limit = clamped.build().unwrap_or(*limit);
        }
    }
    process.set_rlimits(Some(limits));
}

/// The OCI name of a limit: `RLIMIT_NOFILE`.
fn name_of(limit: PosixRlimitType) -> String {
    serde_json::to_value(limit).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

/// `PATH` and `HOME` are always set. Returns the uid whose home is still to be looked up.
///
/// libcontainer must never find `HOME` missing: it would ask `getpwuid_r` after `pivot_root`, and
/// with glibc that loads the modules that the *image's* `nsswitch.conf` names into the runtime.
fn complete_environment(process: &mut Process) -> Option<u32> {
    let mut environment = process.env().clone().unwrap_or_default();
    let has = |environment: &[String], key: &str| {
        environment.iter().any(|e| e.split_once('=').is_some_and(|(k, v)| k == key && !v.is_empty()))
    };
    if !has(&environment, "PATH") {
        environment.retain(|e| !e.starts_with("PATH="));
        environment.push(DEFAULT_PATH.to_owned());
    }
    let home = (!has(&environment, "HOME")).then(|| process.user().uid());
    if home.is_some() {
        environment.retain(|e| !e.starts_with("HOME="));
        environment.push("HOME=/".to_owned());
    }
    process.set_env(Some(environment));
    home
}
