//! What may break in a container that is admitted: seen in its manifest, and judged by what was decided for it.

mod command;
mod execs;
mod places;
mod programs;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::fmt;

use hardened_sandbox::capability::CapabilitySet;
use hardened_sandbox::{Admission, Refusal, Standing};
use k8s_openapi::api::core::v1::Container;
use oci_spec::runtime::Spec;
use serde::{Serialize, Serializer};

use crate::pod::Judged;

/// Something that may break.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Warning {
    /// Where the manifest asks for it.
    pub(crate) field: String,
    /// What happens.
    pub(crate) problem: String,
    /// What to change.
    pub(crate) advice: String,
}

impl Warning {
    pub(crate) fn new(field: impl Into<String>, problem: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { field: field.into(), problem: problem.into(), advice: advice.into() }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} -> {}", self.field, self.problem, self.advice)
    }
}

impl Serialize for Warning {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// An admitted container, and what decides whether a program of it works.
struct Subject<'a> {
    admission: &'a Admission,
    standing: Standing,
    /// Capabilities that runc would give to it.
    asked: CapabilitySet,
    /// Its user, where the manifest names one.
    uid: Option<u32>,
    /// Sysctls that are set for it.
    sysctls: &'a [String],
}

impl Subject<'_> {
    /// Whether it asks for a capability, and does not get it.
    fn loses(&self, capability: &str) -> bool {
        has(self.asked, capability) && !self.has(capability)
    }

    /// Whether it gets a capability.
    fn has(&self, capability: &str) -> bool {
        has(self.admission.plan().capabilities.bounding, capability)
    }
}

fn has(set: CapabilitySet, capability: &str) -> bool {
    set.names().any(|name| name == capability)
}

/// Of a container of a pod: what may break where it is admitted, and what has no effect.
pub(crate) fn of_decided(judged: &Judged, decided: &Result<Admission, Refusal>) -> Vec<Warning> {
    let mut all: Vec<Warning> = decided.iter().flat_map(|admission| of_pod(judged, admission)).collect();
    all.extend(without_effect(judged));
    all
}

/// What has no effect, whatever the profile.
fn without_effect(judged: &Judged) -> Vec<Warning> {
    let mut all = Vec::new();
    let context = judged.container.as_ref().and_then(|container| container.security_context.as_ref());
    if context.is_some_and(|context| context.allow_privilege_escalation == Some(true)) {
        all.push(Warning::new(
            judged.field("securityContext.allowPrivilegeEscalation"),
            "true has no effect: setuid programs and file capabilities give nothing",
            "start the container as the user that is needed, by runAsUser",
        ));
    }
    if judged.unconfined {
        all.push(Warning::new(
            judged.field("securityContext.seccompProfile"),
            "Unconfined has no effect: the profile's own filter applies",
            "have the node's policy allow the calls that are needed: profile.NAME.seccomp.allow = [\"CALL\"]",
        ));
    }
    all
}

fn of_pod(judged: &Judged, admission: &Admission) -> Vec<Warning> {
    let Some(container) = &judged.container else { return Vec::new() };
    let subject = Subject {
        admission,
        standing: Standing::new(admission),
        asked: bounding(&judged.spec),
        uid: judged.uid,
        sysctls: &judged.sysctls,
    };
    let field = |name: &str| judged.field(name);
    let mut all = Vec::new();
    capabilities(container, &subject, &field, &mut all);
    if let Some(directory) = &container.working_dir {
        all.extend(places::working_directory(&field("workingDir"), directory.as_ref(), &subject));
    }
    let arguments: Vec<String> = container.command.iter().chain(&container.args).flatten().cloned().collect();
    let from = field(if container.command.is_some() { "command" } else { "args" });
    // Without a command the first of them is no program: the image's entrypoint gets them.
    if container.command.is_some() {
        all.extend(places::program(&from, &arguments, &subject));
    }
    command_line(&from, &arguments, &subject, &mut all);
    places::volumes(container, &subject, &field, &mut all);
    ports(container, &subject, &field, &mut all);
    execs::check(container, &subject, &field, &mut all);
    all.extend(programs::of_image(&field("image"), container.image.as_deref().unwrap_or_default(), &subject));
    unique(all)
}

/// Of an OCI spec.
pub(crate) fn of_spec(spec: &Spec, admission: &Admission) -> Vec<Warning> {
    let Some(process) = spec.process() else { return Vec::new() };
    let sysctls = spec.linux().as_ref().and_then(|linux| linux.sysctl().as_ref());
    let sysctls: Vec<String> = sysctls.into_iter().flatten().map(|(name, _)| name.clone()).collect();
    let uid = Some(process.user().uid());
    let standing = Standing::new(admission);
    let subject = Subject { admission, standing, asked: bounding(spec), uid, sysctls: &sysctls };
    let arguments = process.args().as_deref().unwrap_or_default();
    let mut all = Vec::new();
    all.extend(places::working_directory("process.cwd", process.cwd(), &subject));
    all.extend(places::program("process.args", arguments, &subject));
    command_line("process.args", arguments, &subject, &mut all);
    unique(all)
}

fn bounding(spec: &Spec) -> CapabilitySet {
    let sets = spec.process().as_ref().and_then(|process| process.capabilities().as_ref());
    CapabilitySet::from_oci(sets.and_then(|sets| sets.bounding().as_ref()))
}

/// What a command, a hook or a probe runs.
fn command_line(field: &str, arguments: &[String], subject: &Subject<'_>, all: &mut Vec<Warning>) {
    for words in command::simple(arguments) {
        all.extend(programs::of_command(field, &words, subject));
        for path in command::written(&words) {
            all.extend(places::written(field, &words, path, subject));
        }
    }
}

/// Capabilities that are asked for by name and not given. (What is asked for by default is told as tightened.)
fn capabilities(container: &Container, subject: &Subject<'_>, field: &dyn Fn(&str) -> String, all: &mut Vec<Warning>) {
    let added = container.security_context.iter().filter_map(|context| context.capabilities.as_ref()?.add.as_ref());
    let names = added.flatten().map(|name| name.strip_prefix("CAP_").unwrap_or(name));
    let lost: Vec<&str> = names.filter(|name| name.parse::<CapabilitySet>().is_ok() && subject.loses(name)).collect();
    if !lost.is_empty() {
        let list = lost.join("\", \"");
        all.push(Warning::new(
            field("securityContext.capabilities.add"),
            format!("{} asked for, and not given", lost.join(", ")),
            format!("have the node's policy give it: profile.NAME.capabilities.add = [\"{list}\"]"),
        ));
    }
}

/// Ports that it says it listens at, and may not.
fn ports(container: &Container, subject: &Subject<'_>, field: &dyn Fn(&str) -> String, all: &mut Vec<Warning>) {
    const LOW: u16 = 1024;
    let may_bind = has(subject.asked, "NET_BIND_SERVICE");
    let by_sysctl = subject.sysctls.iter().any(|name| name == "net.ipv4.ip_unprivileged_port_start");
    let uid = subject.admission.bundle().process.user.uid;
    for (at, port) in container.ports.iter().flatten().enumerate() {
        let is_tcp = port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP");
        let Ok(number) = u16::try_from(port.container_port) else { continue };
        let field = field(&format!("ports[{at}].containerPort"));
        let answer = subject.standing.port(number, false);
        if is_tcp && !answer.allowed {
            all.push(Warning::new(
                field,
                format!("nothing can listen at {number}: {}", answer.because),
                format!("use one of these, or change {}", answer.setting.unwrap_or_default()),
            ));
        } else if number < LOW && !by_sysctl && (uid != 0 || !may_bind) {
            all.push(Warning::new(
                field,
                format!(
                    "{number} is below {LOW}: uid {uid} can listen at it only where the sysctl \
                     net.ipv4.ip_unprivileged_port_start lets it, which containerd 2 sets by default"
                ),
                "listen at a port from 1024 on, or set the sysctl in the pod's securityContext.sysctls",
            ));
        }
    }
}

/// Each once, in the same order.
fn unique(mut all: Vec<Warning>) -> Vec<Warning> {
    let mut seen = HashSet::new();
    all.retain(|warning| seen.insert(warning.clone()));
    all
}
