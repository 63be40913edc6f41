//! The decision: from an OCI spec to a hardened one and a plan, or to a refusal.

use oci_spec::runtime::{Linux, LinuxNamespaceType, LinuxResources, Process, Spec};

use crate::host::{Host, LEAST_LANDLOCK_ABI};
use crate::landlock_plan::LandlockPlan;
use crate::mask_plan::MaskPlan;
use crate::plan::LockdownPlan;
use crate::profile::Profile;
use crate::refusal::{Note, Refusal, Violation};
use crate::sandbox::Sandbox;
use crate::seccomp::{Arch, Filter, Program};
use crate::{devices, mounts, process};

/// A pod asks for a profile with this annotation, and gets the meet with the node's.
pub const PROFILE_ANNOTATION: &str = "io.containerd.hardened.v1/profile";

/// Every annotation of ours starts with this; one that we do not know is refused.
const ANNOTATION_PREFIX: &str = "io.containerd.hardened.v1/";

/// Namespaces that keep a container apart from the host. (User and cgroup namespaces are a
/// gain where they are asked for; a UTS namespace of the host tells its name and no more, but
/// CAP_SYS_ADMIN is gone, so it cannot be changed.)
const REQUIRED_NAMESPACES: &[(LinuxNamespaceType, &str, &str)] = &[
    (LinuxNamespaceType::Mount, "mount", "run without privileged"),
    (LinuxNamespaceType::Pid, "pid", "set hostPID: false"),
    (LinuxNamespaceType::Ipc, "ipc", "set hostIPC: false"),
    (LinuxNamespaceType::Network, "network", "set hostNetwork: false"),
    (LinuxNamespaceType::Uts, "uts", "set hostNetwork: false"),
];

/// Sysctls that a pod may set: those that Kubernetes calls safe, all namespaced.
const SAFE_SYSCTLS: &[&str] = &[
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

/// What the shim finds out about a spec that only I/O can tell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Namespaces that the spec joins by path and that are the host's own.
    pub host_namespaces: Vec<LinuxNamespaceType>,
}

/// A container that may start.
#[derive(Debug, Clone)]
pub struct Admission {
    spec: Spec,
    plan: LockdownPlan,
    sandbox: Sandbox,
    notes: Vec<Note>,
    host: Host,
}

impl Admission {
    /// The spec for libcontainer. It carries no seccomp and no labels: those are in the plan.
    #[must_use]
    pub const fn spec(&self) -> &Spec {
        &self.spec
    }

    /// What the entrypoint's process applies to itself.
    #[must_use]
    pub const fn plan(&self) -> &LockdownPlan {
        &self.plan
    }

    /// The sandbox that the entrypoint and every exec get.
    #[must_use]
    pub const fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// What was tightened or clamped.
    #[must_use]
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// Decides on an exec in this container: containerd hands over its own stored process, as
    /// the pod wrote it.
    ///
    /// # Errors
    /// Every violation, at once.
    pub fn decide_exec(&self, mut process: Process) -> Result<ExecAdmission, Refusal> {
        let mut violations = Vec::new();
        process::check(&process, &self.host, &mut violations);
        refuse(violations, &self.sandbox)?;
        let mut notes = Vec::new();
        let hardened = process::harden(&mut process, &self.sandbox, &self.host, &mut notes);
        let plan = LockdownPlan {
            masks: None,
            capabilities: hardened.capabilities,
            // An exec that names no label gets the container's.
            apparmor: hardened.apparmor.or_else(|| self.plan.apparmor.clone()),
            selinux: hardened.selinux.or_else(|| self.plan.selinux.clone()),
            cwd: hardened.cwd,
            home: hardened.home,
            ..self.plan.clone()
        };
        Ok(ExecAdmission { process, plan, notes })
    }
}

/// An exec that may start.
#[derive(Debug, Clone)]
pub struct ExecAdmission {
    process: Process,
    plan: LockdownPlan,
    notes: Vec<Note>,
}

impl ExecAdmission {
    /// The process for libcontainer.
    #[must_use]
    pub const fn process(&self) -> &Process {
        &self.process
    }

    /// What the process applies to itself.
    #[must_use]
    pub const fn plan(&self) -> &LockdownPlan {
        &self.plan
    }

    /// What was tightened or clamped.
    #[must_use]
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }
}

/// Decides whether a container may start, and how.
///
/// effective = node's profile ∧ profile that the pod asks for ∧ what the spec itself asks for.
///
/// # Errors
/// Every violation, at once.
pub fn decide(mut spec: Spec, host: &Host, facts: &Facts) -> Result<Admission, Refusal> {
    let mut violations = Vec::new();
    let sandbox = effective(&spec, host, &mut violations);
    check(&spec, facts, host, &mut violations);
    // `effective` gives none only with a violation.
    let sandbox = match (sandbox, violations.is_empty()) {
        (Some(sandbox), true) => sandbox,
        _ => return Err(Refusal { profile: Profile::BASELINE.described(), violations }),
    };
    let program = sandbox.filter().compile().map_err(|error| Refusal {
        profile: described(&sandbox),
        violations: vec![Violation::invalid("linux.seccomp", error.to_string(), "use a smaller seccomp profile")],
    })?;
    let mut notes = Vec::new();
    let Some(plan) = harden(&mut spec, &sandbox, host, program, &mut notes) else {
        let missing = Violation::invalid("process", "missing", "give the container a process and a linux section");
        return Err(Refusal { profile: described(&sandbox), violations: vec![missing] });
    };
    Ok(Admission { spec, plan, sandbox, notes, host: host.clone() })
}

/// The node's profile, met with the pod's profile and with the spec's own filter.
fn effective(spec: &Spec, host: &Host, violations: &mut Vec<Violation>) -> Option<Sandbox> {
    let Some(arch) = Arch::native() else {
        violations.push(Violation::unsupported(
            "node",
            "no seccomp filter can be made for this architecture",
            "use x86_64 or aarch64",
        ));
        return None;
    };
    if !host.seccomp {
        violations.push(Violation::unsupported(
            "node",
            "the kernel has no seccomp filters",
            "boot a kernel with CONFIG_SECCOMP_FILTER",
        ));
    }
    if host.landlock_abi < LEAST_LANDLOCK_ABI {
        violations.push(Violation::unsupported(
            "node",
            format!("the kernel offers Landlock ABI {}; at least {LEAST_LANDLOCK_ABI} is needed", host.landlock_abi),
            "boot Linux 5.19 or newer with landlock in its lsm= list",
        ));
    }
    let mut sandbox = Sandbox::of(&Profile::BASELINE, arch);
    for (key, value) in spec.annotations().iter().flatten().filter(|(key, _)| key.starts_with(ANNOTATION_PREFIX)) {
        let known: Vec<&str> = Profile::built_in().iter().map(Profile::name).collect();
        match (key.as_str(), Profile::find(value)) {
            (PROFILE_ANNOTATION, Some(profile)) => sandbox = sandbox.meet(&Sandbox::of(&profile, arch)),
            (PROFILE_ANNOTATION, None) => violations.push(Violation::invalid(
                format!("annotations[{key}]"),
                format!("there is no profile {value:?}"),
                format!("ask for one of: {}", known.join(", ")),
            )),
            _ => violations.push(Violation::invalid(
                format!("annotations[{key}]"),
                "is not an annotation of this runtime",
                format!("use {PROFILE_ANNOTATION}"),
            )),
        }
    }
    if let Some(profile) = spec.linux().as_ref().and_then(|l| l.seccomp().as_ref()) {
        match Filter::from_oci(profile, arch) {
            Ok(filter) => sandbox = sandbox.filtered(&filter),
            Err(error) => violations.push(Violation::invalid(
                "linux.seccomp",
                error.to_string(),
                "use seccompProfile RuntimeDefault, or mend the Localhost profile",
            )),
        }
    }
    Some(sandbox)
}

/// Everything that a privileged container is known by, and everything that cannot be honoured.
fn check(spec: &Spec, facts: &Facts, host: &Host, violations: &mut Vec<Violation>) {
    match spec.process() {
        Some(process) => process::check(process, host, violations),
        None => violations.push(Violation::invalid("process", "missing", "give the container a process")),
    }
    let Some(linux) = spec.linux() else {
        violations.push(Violation::invalid("linux", "missing", "give the container a linux section"));
        return;
    };
    devices::check(linux, violations);
    mounts::check(linux, spec.mounts().as_deref().unwrap_or_default(), violations);
    check_namespaces(linux, facts, violations);
    for key in linux.sysctl().iter().flat_map(|s| s.keys()).filter(|key| !SAFE_SYSCTLS.contains(&key.as_str())) {
        violations.push(Violation::policy(
            format!("linux.sysctl[{key}]"),
            "is not one of Kubernetes' safe sysctls",
            "take it out of securityContext.sysctls",
        ));
    }
    if linux.mount_label().as_ref().is_some_and(|l| !l.is_empty()) && !host.selinux {
        violations.push(Violation::unsupported(
            "linux.mountLabel",
            "requested, and this node's kernel does not run SELinux",
            "take seLinuxOptions out of the pod, or schedule it on a node with SELinux",
        ));
    }
    if linux.personality().is_some() {
        violations.push(Violation::policy("linux.personality", "is set", "leave it out"));
    }
    let hooks = spec.hooks().as_ref();
    let unsupported = [
        ("hooks.startContainer", hooks.and_then(|h| h.start_container().as_ref())),
        ("hooks.poststart", hooks.and_then(|h| h.poststart().as_ref())),
        ("hooks.poststop", hooks.and_then(|h| h.poststop().as_ref())),
    ];
    for (field, _) in unsupported.iter().filter(|(_, list)| list.is_some_and(|l| !l.is_empty())) {
        violations.push(Violation::policy(
            *field,
            "would run outside of the sandbox",
            "use prestart, createRuntime or createContainer, which only the node can set",
        ));
    }
}

fn check_namespaces(linux: &Linux, facts: &Facts, violations: &mut Vec<Violation>) {
    let present: Vec<LinuxNamespaceType> = linux.namespaces().iter().flatten().map(|n| n.typ()).collect();
    for (kind, name, advice) in REQUIRED_NAMESPACES {
        if !present.contains(kind) || facts.host_namespaces.contains(kind) {
            violations.push(Violation::policy(
                "linux.namespaces",
                format!("the container would share the host's {name} namespace"),
                *advice,
            ));
        }
    }
}

/// Rewrites the spec to the sandbox; `None` only without a process or a linux section.
fn harden(
    spec: &mut Spec,
    sandbox: &Sandbox,
    host: &Host,
    program: Program,
    notes: &mut Vec<Note>,
) -> Option<LockdownPlan> {
    let mut process = spec.process().clone()?;
    let mut linux = spec.linux().clone()?;
    let mut mounts = spec.mounts().clone().unwrap_or_default();

    let hardened = process::harden(&mut process, sandbox, host, notes);
    let landlock = LandlockPlan::new(sandbox, &mounts, host);
    mounts::harden(&mut linux, &mut mounts, host, notes);
    let masks = MaskPlan::new(&linux, &mounts);
    // libcontainer's filter compiler swaps the operands of SCMP_CMP_MASKED_EQ: it gets no filter.
    linux.set_seccomp(None);
    let mut resources: LinuxResources = linux.resources().clone().unwrap_or_default();
    resources.set_devices(Some(devices::rules()));
    linux.set_resources(Some(resources));

    spec.set_process(Some(process));
    spec.set_linux(Some(linux));
    spec.set_mounts(Some(mounts));
    // Nothing that libcontainer does may be steered by an annotation of the image or the pod.
    spec.set_annotations(None);
    Some(LockdownPlan {
        masks: Some(masks),
        capabilities: hardened.capabilities,
        apparmor: hardened.apparmor,
        selinux: hardened.selinux,
        landlock,
        seccomp: program,
        cwd: hardened.cwd,
        memfd_noexec: host.memfd_noexec,
        home: hardened.home,
    })
}

fn refuse(violations: Vec<Violation>, sandbox: &Sandbox) -> Result<(), Refusal> {
    if violations.is_empty() { Ok(()) } else { Err(Refusal { profile: described(sandbox), violations }) }
}

fn described(sandbox: &Sandbox) -> String {
    format!("profile {} (built in)", sandbox.names().join(" and "))
}

impl Profile {
    fn described(&self) -> String {
        format!("profile {} (built in)", self.name())
    }
}
