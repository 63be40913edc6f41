//! The process of a container, or of an exec: the same checks and the same hardening for both.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::labels::{self, Labels};
use crate::bundle;
use crate::capability::{Capabilities, CapabilitySet};
use crate::kernel::KernelSupport;
use crate::refusal::{Note, Violation};
use crate::request::ProcessRequest;
use crate::sandbox::{ExecRules, Sandbox, Users};

/// What containerd and runc give to a process without a `PATH`.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Limits up to which a process may raise its priority by itself: getrlimit(2).
const PRIORITIES: [&str; 2] = ["RLIMIT_NICE", "RLIMIT_RTPRIO"];

/// The least that a container gets: that of a pod's sandbox (Kubernetes `pkg/kubelet/qos/policy.go`). With -1000 the
/// OOM killer passes over a process.
const LEAST_OOM_SCORE: i32 = -998;

/// A process as it is allowed.
#[derive(Debug)]
pub(crate) struct Hardened {
    /// What libcontainer gets of it.
    pub(crate) process: bundle::Process,
    pub(crate) labels: Labels,
    pub(crate) cwd: PathBuf,
    /// The uid whose home is still to be looked up.
    pub(crate) home: Option<u32>,
    pub(crate) oom_score_adj: Option<i32>,
}

/// Refuses capabilities that the sandbox does not give.
pub(crate) fn check_capabilities(process: &ProcessRequest, sandbox: &Sandbox, violations: &mut Vec<Violation>) {
    let asked = &process.capabilities;
    let all = [asked.bounding, asked.effective, asked.permitted, asked.inheritable, asked.ambient]
        .into_iter()
        .fold(CapabilitySet::EMPTY, CapabilitySet::union);
    let beyond = all.without(CapabilitySet::CONTAINERD_DEFAULT.union(sandbox.capabilities));
    if beyond.is_empty() || sandbox.privileged {
        return;
    }
    let debugs = CapabilitySet::of(&["SYS_PTRACE"]).is_subset(beyond);
    let advice = "take them out of securityContext.capabilities.add";
    let advice = if debugs {
        format!("{advice}; kubectl debug asks for SYS_PTRACE unless it is given --profile=baseline or restricted")
    } else {
        advice.to_owned()
    };
    violations.push(
        Violation::policy("process.capabilities", format!("added: {beyond}, which the profile does not give"), advice)
            .of_container("securityContext.capabilities.add"),
    );
}

/// Refuses a process that asks for what the sandbox does not give, beside capabilities.
pub(crate) fn check(
    process: &ProcessRequest,
    sandbox: &Sandbox,
    kernel: &KernelSupport,
    violations: &mut Vec<Violation>,
) {
    for users in &sandbox.users {
        check_user(&process.user, users, violations);
    }
    labels::check(process, sandbox, kernel, violations);
}

fn check_user(user: &bundle::User, users: &Users, violations: &mut Vec<Violation>) {
    if users.non_root && user.uid == 0 {
        violations.push(
            Violation::policy(
                "process.user.uid",
                "0 (root); the profile demands another user",
                "set runAsUser to a number above 0, or USER in the image",
            )
            .of_container("securityContext.runAsUser"),
        );
    }
    let outside = |ranges: &Option<BTreeSet<(u32, u32)>>, id: u32| {
        ranges.as_ref().is_some_and(|ranges| !ranges.iter().any(|(first, last)| (first..=last).contains(&&id)))
    };
    if outside(&users.uids, user.uid) {
        violations.push(
            Violation::policy(
                "process.user.uid",
                format!("{}; the profile allows {}", user.uid, shown(&users.uids)),
                "choose another runAsUser",
            )
            .of_container("securityContext.runAsUser"),
        );
    }
    let groups = std::iter::once(user.gid).chain(user.additional_gids.iter().copied());
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

fn shown(ranges: &Option<BTreeSet<(u32, u32)>>) -> String {
    let ranges = ranges.iter().flatten().map(|(first, last)| format!("{first} to {last}"));
    ranges.collect::<Vec<_>>().join(", ")
}

/// Refuses an exec that the profile's exec rules do not allow.
pub(crate) fn check_exec(process: &ProcessRequest, rules: &ExecRules, violations: &mut Vec<Violation>) {
    if rules.refused {
        violations.push(Violation::policy(
            "exec",
            "the profile refuses every exec in this container",
            "use a profile without exec.refuse; probes and hooks can ask by HTTP or TCP instead",
        ));
    }
    let program = process.args.first().map(String::as_str).unwrap_or_default();
    for programs in rules.programs.iter().filter(|programs| !programs.matches(program)) {
        violations.push(Violation::policy(
            "exec.args[0]",
            format!("{program:?}; the profile allows exec of {programs}"),
            "run one of those",
        ));
    }
}

/// The process within the sandbox.
pub(crate) fn harden(
    process: &ProcessRequest,
    sandbox: &Sandbox,
    kernel: &KernelSupport,
    has_user_namespace: bool,
    notes: &mut Vec<Note>,
) -> Hardened {
    let asked = &process.capabilities;
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
    if !process.no_new_privileges {
        notes.push(Note::new("process.noNewPrivileges", "set for every container"));
    }
    let labels = labels::choose(process, sandbox, kernel);
    if process.apparmor.as_deref() == Some("unconfined") && !labels.apparmor.is_empty() {
        notes.push(Note::new("process.apparmorProfile", "unconfined is replaced by the node's own profile"));
    }
    let (env, home) = environment(process);
    Hardened {
        process: bundle::Process {
            terminal: process.terminal,
            console_size: process.console_size,
            args: process.args.clone(),
            env,
            user: process.user.clone(),
            capabilities,
            rlimits: limits(process, sandbox, kernel, has_user_namespace, notes),
        },
        labels,
        cwd: process.cwd.clone(),
        home,
        oom_score_adj: score(process, sandbox, kernel, notes),
    }
}

/// Limits: at most the profile's, and what the runtime may set at all.
fn limits(
    process: &ProcessRequest,
    sandbox: &Sandbox,
    kernel: &KernelSupport,
    has_user_namespace: bool,
    notes: &mut Vec<Note>,
) -> BTreeMap<String, (u64, u64)> {
    let mut limits = process.rlimits.clone();
    // What SYS_NICE is for. A caller that may raise limits on the host must not pass that on unasked.
    let may_go_first = sandbox.is_open() || CapabilitySet::of(&["SYS_NICE"]).is_subset(sandbox.capabilities);
    for name in PRIORITIES.into_iter().filter(|_| !may_go_first) {
        if limits.get(name).is_some_and(|(_, hard)| *hard > 0) {
            limits.insert(name.to_owned(), (0, 0));
            notes.push(Note::new(format!("process.rlimits[{name}]"), "set to 0: the profile does not give SYS_NICE"));
        }
    }
    for (name, most) in &sandbox.limits {
        let bounded = match limits.get(name) {
            Some((_, hard)) if hard <= most => continue,
            Some((soft, _)) => ((*soft).min(*most), *most),
            None => (*most, *most),
        };
        limits.insert(name.clone(), bounded);
        notes.push(Note::new(format!("process.rlimits[{name}]"), format!("bounded to {most} by the profile")));
    }
    // libcontainer sets limits inside of the user namespace, whose root may raise none.
    if kernel.may_raise_limits && !has_user_namespace {
        return limits;
    }
    for (name, (soft, hard)) in &mut limits {
        let Some(most) = kernel.hard_limits.get(name).copied().filter(|most| *hard > *most) else { continue };
        notes.push(Note::new(
            format!("process.rlimits[{name}]"),
            format!("{hard} clamped to {most}: more needs CAP_SYS_RESOURCE on the host"),
        ));
        (*soft, *hard) = ((*soft).min(most), most);
    }
    limits
}

/// The OOM score: at least what the runtime may set at all.
fn score(process: &ProcessRequest, sandbox: &Sandbox, kernel: &KernelSupport, notes: &mut Vec<Note>) -> Option<i32> {
    let asked = process.oom_score_adj?;
    let asked = if asked < LEAST_OOM_SCORE && !sandbox.is_open() {
        let told = format!("{asked} clamped to {LEAST_OOM_SCORE}: every container can be killed when memory runs out");
        notes.push(Note::new("process.oomScoreAdj", told));
        LEAST_OOM_SCORE
    } else {
        asked
    };
    if kernel.may_raise_limits || asked >= kernel.oom_score_adj {
        return Some(asked);
    }
    let least = kernel.oom_score_adj;
    notes
        .push(Note::new("process.oomScoreAdj", format!("{asked} clamped to {least}: the shim lacks CAP_SYS_RESOURCE")));
    Some(least)
}

/// The environment, in which `PATH` and `HOME` are always set, and the uid whose home is still to be
/// looked up.
///
/// libcontainer must never find `HOME` missing: it would ask `getpwuid_r` after `pivot_root`, and
/// with glibc that loads the modules that the *image's* `nsswitch.conf` names into the runtime.
fn environment(process: &ProcessRequest) -> (Vec<String>, Option<u32>) {
    let mut environment = process.env.clone();
    let has = |environment: &[String], key: &str| {
        environment.iter().any(|e| e.split_once('=').is_some_and(|(k, v)| k == key && !v.is_empty()))
    };
    if !has(&environment, "PATH") {
        environment.retain(|e| !e.starts_with("PATH="));
        environment.push(DEFAULT_PATH.to_owned());
    }
    let home = (!has(&environment, "HOME")).then_some(process.user.uid);
    if home.is_some() {
        environment.retain(|e| !e.starts_with("HOME="));
        environment.push("HOME=/".to_owned());
    }
    (environment, home)
}
