//! The decision: from an OCI spec to a hardened one and a plan, or to a refusal.

use std::collections::BTreeMap;
use std::path::PathBuf;

use oci_spec::runtime::{Linux, LinuxNamespaceType, LinuxResources, Process, Spec};

use crate::annotation;
use crate::feature::Feature;
use crate::identity::{Identity, Kind};
use crate::kernel::{KernelSupport, LEAST_LANDLOCK_ABI, PORTS_LANDLOCK_ABI};
use crate::label;
use crate::landlock_plan::LandlockPlan;
use crate::mask_plan::MaskPlan;
use crate::plan::LockdownPlan;
use crate::policy::Policy;
use crate::profile::{self, BuiltIn};
use crate::refusal::{Note, Refusal, Violation};
use crate::sandbox::{HostNamespace, Sandbox};
use crate::seccomp::{Filter, Program};
use crate::user_namespace::{self, UserNamespace};
use crate::{devices, mounts, process};

/// Namespaces that keep a container apart from the host, what lets it share the host's, and the
/// pod's field. (User and cgroup namespaces are a gain where they are asked for.)
const REQUIRED_NAMESPACES: &[(LinuxNamespaceType, &str, Option<HostNamespace>, &str)] = &[
    (LinuxNamespaceType::Mount, "mount", None, ""),
    (LinuxNamespaceType::Pid, "pid", Some(HostNamespace::Pid), "hostPID"),
    (LinuxNamespaceType::Ipc, "ipc", Some(HostNamespace::Ipc), "hostIPC"),
    (LinuxNamespaceType::Network, "network", Some(HostNamespace::Network), "hostNetwork"),
    (LinuxNamespaceType::Uts, "uts", Some(HostNamespace::Network), "hostNetwork"),
];

/// What the shim finds out about a spec that only I/O can tell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observations {
    /// Namespaces that the spec joins by path and that are the host's own.
    pub host_namespaces: Vec<LinuxNamespaceType>,
    /// Where the sources of bind mounts really are, symbolic links followed.
    pub sources: BTreeMap<PathBuf, PathBuf>,
    /// All paths of the host that show the part of a volume which is at such a place
    /// ([`is_subpath`](crate::is_subpath)).
    pub shown_at: BTreeMap<PathBuf, Vec<PathBuf>>,
    /// Other paths of the host that show what is at a path of the policy's: it may be a link, or
    /// mounted elsewhere too. For containers with [`foreign_sources`](crate::foreign_sources).
    pub also_at: BTreeMap<PathBuf, Vec<PathBuf>>,
    /// The container's id: containerd keeps some of its files by it.
    pub container: String,
    /// The runtime handler, for the rules that select by it.
    pub handler: Option<String>,
    /// SELinux labels of the spec that the node's SELinux policy does not know.
    pub unknown_labels: Vec<String>,
    /// Devices of the spec whose path on the host is another device, or none.
    pub other_devices: Vec<PathBuf>,
}

impl Observations {
    /// Whether a container shares the host's namespace of a kind.
    pub(crate) fn shares(&self, linux: &Linux, kind: LinuxNamespaceType) -> bool {
        !has_namespace(linux, kind) || self.host_namespaces.contains(&kind)
    }
}

/// Whether a spec makes or joins a namespace of a kind.
pub(crate) fn has_namespace(linux: &Linux, kind: LinuxNamespaceType) -> bool {
    linux.namespaces().iter().flatten().any(|namespace| namespace.typ() == kind)
}

/// A container that may start.
#[derive(Debug, Clone)]
pub struct Admission {
    spec: Spec,
    plan: LockdownPlan,
    sandbox: Sandbox,
    notes: Vec<Note>,
    host: KernelSupport,
    identity: Identity,
    by: String,
}

impl Admission {
    /// The rule and profile that decided, with file and line.
    #[must_use]
    pub fn by(&self) -> &str {
        &self.by
    }

    /// Who the container is.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Its user namespace, where it has one.
    #[must_use]
    pub fn user_namespace(&self) -> Option<UserNamespace> {
        self.spec.linux().as_ref().and_then(UserNamespace::of)
    }

    /// Whether it is privileged, and a rule of the node lets it be.
    #[must_use]
    pub const fn is_privileged(&self) -> bool {
        self.sandbox.is_open()
    }

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

    /// What the kernel does not have, so that this container does without.
    pub fn lacks(&self) -> impl Iterator<Item = &'static Feature> {
        self.host.missing().filter(|feature| feature.costs())
    }

    /// Whether Landlock is older than the least that is demanded, and the policy takes that.
    #[must_use]
    pub const fn is_best_effort(&self) -> bool {
        self.sandbox.landlock && self.host.landlock_abi < LEAST_LANDLOCK_ABI
    }

    /// Decides on an exec in this container: containerd hands over its own stored process, as
    /// the pod wrote it.
    ///
    /// # Errors
    /// Every violation, at once.
    pub fn decide_exec(&self, mut process: Process) -> Result<ExecAdmission, Refusal> {
        let mut violations = Vec::new();
        process::check(&process, &self.sandbox, &self.host, &mut violations);
        if let Some(namespace) = self.user_namespace() {
            namespace.check_process(&process, &mut violations);
        }
        process::check_exec(&process, &self.sandbox.exec, &mut violations);
        let refusal =
            |violations| Refusal { by: self.by.clone(), identity: Box::new(self.identity.clone()), violations };
        if !violations.is_empty() {
            return Err(refusal(violations));
        }
        let mut notes = Vec::new();
        let hardened =
            process::harden(&mut process, &self.sandbox, &self.host, self.user_namespace().is_some(), &mut notes);
        let seccomp = if self.sandbox.exec.no_network {
            let filter = self.sandbox.effective_filter().meet(&profile::no_network(self.sandbox.filter.arch()));
            compile(&filter).map_err(|violation| refusal(vec![violation]))?
        } else {
            self.plan.seccomp.clone()
        };
        let plan = LockdownPlan {
            masks: None,
            files_label: None,
            capabilities: hardened.capabilities,
            // An exec has its container's labels.
            apparmor: &hardened.labels.apparmor | &self.plan.apparmor,
            selinux: hardened.labels.selinux.or_else(|| self.plan.selinux.clone()),
            landlock: self.plan.landlock.as_ref().map(|plan| plan.for_exec(&self.sandbox.exec)),
            seccomp,
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
pub fn decide(
    mut spec: Spec,
    policy: &Policy,
    host: &KernelSupport,
    facts: &Observations,
) -> Result<Admission, Refusal> {
    let identity =
        Identity { handler: facts.handler.clone(), ..Identity::from_annotations(spec.annotations().as_ref()) };
    let choice = policy.choose(&identity, asks_for_privileged(&spec));
    let by = choice.to_string();
    let mut violations = Vec::new();
    let sandbox = effective(&spec, choice.profile.sandbox(), &identity, policy, host, &mut violations);
    // A label for processes that ask for none is the node's to give: no wish of the pod's brings one.
    let default_label = choice.profile.selinux();
    label::check_default(default_label, host, &mut violations);
    check(&spec, &sandbox, &identity, facts, host, &mut violations);
    let refusal = |violations| Refusal { by: by.clone(), identity: Box::new(identity.clone()), violations };
    if !violations.is_empty() {
        return Err(refusal(violations));
    }
    let program = compile(&sandbox.effective_filter()).map_err(|violation| refusal(vec![violation]))?;
    let mut notes = Vec::new();
    let Some(plan) = harden(&mut spec, &sandbox, default_label, &identity, facts, host, program, &mut notes) else {
        let missing = Violation::invalid("process", "missing", "give the container a process and a linux section");
        return Err(refusal(vec![missing]));
    };
    Ok(Admission { spec, plan, sandbox, notes, host: host.clone(), identity, by })
}

/// Whether the container is what Kubernetes calls privileged: no mask, and the capability that is
/// all others. (There is no such flag in the OCI spec.)
fn asks_for_privileged(spec: &Spec) -> bool {
    let masks = spec.linux().as_ref().and_then(|l| l.masked_paths().as_ref());
    masks.is_none_or(Vec::is_empty) && spec.process().as_ref().is_some_and(process::asks_for_sys_admin)
}

fn compile(filter: &Filter) -> Result<Program, Violation> {
    let advice = "use a smaller seccomp profile";
    filter.compile().map_err(|error| Violation::invalid("linux.seccomp", error.to_string(), advice))
}

/// The node's profile, met with the pod's wishes and with the spec's own filter.
fn effective(
    spec: &Spec,
    profile: &Sandbox,
    identity: &Identity,
    policy: &Policy,
    host: &KernelSupport,
    violations: &mut Vec<Violation>,
) -> Sandbox {
    let mut sandbox = profile.clone();
    let arch = sandbox.filter.arch();
    if identity.kind == Some(Kind::Sandbox) {
        // What a privileged pod's sandbox asks for is taken away from it, not refused: nothing of
        // the workload runs in it, and each container is judged by itself.
        sandbox = sandbox.meet(&BuiltIn::Pause.sandbox(arch));
        sandbox.privileged = true;
        sandbox.host_namespaces.extend(policy.host_namespaces_of_pod(identity));
    }
    sandbox = annotation::tighten(sandbox, spec.annotations().as_ref(), policy, violations);
    if let Some(profile) = spec.linux().as_ref().and_then(|l| l.seccomp().as_ref()) {
        match Filter::from_oci(profile, arch) {
            Ok(filter) => sandbox = sandbox.filtered(&filter),
            Err(error) => violations.push(
                Violation::invalid(
                    "linux.seccomp",
                    error.to_string(),
                    "use seccompProfile RuntimeDefault, or mend the Localhost profile",
                )
                .of_container("securityContext.seccompProfile"),
            ),
        }
    }
    check_node(&sandbox, identity, policy, host, violations);
    sandbox
}

/// What the node's kernel must have for this sandbox.
fn check_node(
    sandbox: &Sandbox,
    identity: &Identity,
    policy: &Policy,
    host: &KernelSupport,
    violations: &mut Vec<Violation>,
) {
    if !host.seccomp {
        violations.push(Violation::unsupported(
            "node",
            "the kernel has no seccomp filters",
            "boot a kernel with CONFIG_SECCOMP_FILTER",
        ));
    }
    if sandbox.landlock && host.landlock_abi < LEAST_LANDLOCK_ABI && !policy.takes_old_landlock() {
        violations.push(Violation::unsupported(
            "node",
            format!("the kernel offers Landlock ABI {}; at least {LEAST_LANDLOCK_ABI} is needed", host.landlock_abi),
            "boot Linux 5.19 or newer with landlock in its lsm= list, or write landlock = \"best-effort\" into the \
             policy and lose what `hardenctl doctor` lists",
        ));
    }
    let demands = sandbox.demands_of_landlock();
    // Nothing of the workload runs in a pod's sandbox.
    if host.landlock_abi == 0 && !demands.is_empty() && identity.kind != Some(Kind::Sandbox) {
        violations.push(Violation::unsupported(
            "node",
            format!("the kernel offers no Landlock, which alone keeps {}", demands.join(", ")),
            "boot Linux 5.19 or newer with landlock in its lsm= list, or take that out of the profile and the annotations",
        ));
    }
    let ports = sandbox.bind_tcp.is_some() || sandbox.connect_tcp.is_some();
    if ports && host.landlock_abi < PORTS_LANDLOCK_ABI {
        violations.push(Violation::unsupported(
            "node",
            format!(
                "the kernel offers Landlock ABI {}; rules for TCP ports need {PORTS_LANDLOCK_ABI}",
                host.landlock_abi
            ),
            "boot Linux 6.7 or newer, or take the ports out of the profile and the annotations",
        ));
    }
}

/// Everything that a privileged container is known by, and everything that cannot be honoured.
fn check(
    spec: &Spec,
    sandbox: &Sandbox,
    identity: &Identity,
    facts: &Observations,
    host: &KernelSupport,
    violations: &mut Vec<Violation>,
) {
    match spec.process() {
        Some(process) => process::check(process, sandbox, host, violations),
        None => violations.push(Violation::invalid("process", "missing", "give the container a process")),
    }
    let Some(linux) = spec.linux() else {
        violations.push(Violation::invalid("linux", "missing", "give the container a linux section"));
        return;
    };
    let mounts = spec.mounts().as_deref().unwrap_or_default();
    devices::check(linux, sandbox, violations);
    mounts::check(linux, mounts, sandbox, identity, facts, violations);
    check_namespaces(linux, sandbox, facts, violations);
    user_namespace::check(linux, mounts, spec.process().as_ref(), sandbox, facts, host, violations);
    let mut sysctls: Vec<&String> = linux.sysctl().iter().flat_map(|s| s.keys()).collect();
    sysctls.sort();
    for key in sysctls.into_iter().filter(|key| !sandbox.sysctls.iter().all(|allowed| allowed.matches(key))) {
        violations.push(
            Violation::policy(
                format!("linux.sysctl[{key}]"),
                "is not one of the sysctls that may be set",
                "take it out of securityContext.sysctls; Kubernetes' safe ones may be set",
            )
            .of_pod(format!("securityContext.sysctls[{key}]")),
        );
    }
    if linux.mount_label().as_ref().is_some_and(|l| !l.is_empty()) && !host.selinux {
        violations.push(Violation::unsupported(
            "linux.mountLabel",
            "requested, and this node's kernel does not run SELinux",
            "take seLinuxOptions out of the pod, or schedule it on a node with SELinux",
        ));
    }
    for label in &facts.unknown_labels {
        violations.push(
            Violation::invalid(
                "process.selinuxLabel",
                format!("{label} is no label of this node's SELinux policy"),
                "mend seLinuxOptions, or load the module that has the type: semodule -i FILE",
            )
            .of_container("securityContext.seLinuxOptions"),
        );
    }
    if asks_for_privileged(spec) && !sandbox.privileged {
        violations.insert(
            0,
            Violation::policy(
                "linux",
                "the container is privileged",
                "set privileged: false, and ask for what the program really needs; a rule of the node's policy can let \
                 it through by namespace and image digest",
            )
            .of_container("securityContext.privileged"),
        );
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

fn check_namespaces(linux: &Linux, sandbox: &Sandbox, facts: &Observations, violations: &mut Vec<Violation>) {
    let mut told = Vec::new();
    for (kind, name, host, pod_field) in REQUIRED_NAMESPACES {
        if !facts.shares(linux, *kind)
            || host.is_some_and(|host| sandbox.host_namespaces.contains(&host))
            || told.contains(pod_field)
        {
            continue;
        }
        told.push(pod_field);
        let advice =
            if pod_field.is_empty() { "run without privileged".into() } else { format!("set {pod_field}: false") };
        let problem = format!("the container would share the host's {name} namespace");
        violations.push(Violation::policy("linux.namespaces", problem, advice).of_pod(*pod_field));
    }
}

/// Rewrites the spec to the sandbox; `None` only without a process or a linux section.
#[expect(clippy::too_many_arguments, reason = "all that was decided, and all that was found")]
fn harden(
    spec: &mut Spec,
    sandbox: &Sandbox,
    default_label: Option<&str>,
    identity: &Identity,
    facts: &Observations,
    host: &KernelSupport,
    program: Program,
    notes: &mut Vec<Note>,
) -> Option<LockdownPlan> {
    let mut process = spec.process().clone()?;
    let mut linux = spec.linux().clone()?;
    let mut mounts = spec.mounts().clone().unwrap_or_default();

    let hardened = process::harden(&mut process, sandbox, host, UserNamespace::of(&linux).is_some(), notes);
    let mut labels = hardened.labels;
    if host.selinux {
        labels.selinux = labels.selinux.or_else(|| default_label.map(str::to_owned));
    }
    let landlock =
        (sandbox.landlock && host.landlock_abi > 0).then(|| LandlockPlan::new(sandbox, &linux, &mounts, host));
    mounts::harden(&mut linux, &mut mounts, sandbox, facts, host, notes);
    if sandbox.read_only_root
        && let Some(mut root) = spec.root().clone()
        && root.readonly() != Some(true)
    {
        root.set_readonly(Some(true));
        spec.set_root(Some(root));
        notes.push(Note::new("root.readonly", "set by the profile"));
    }
    let mut files_label = linux.mount_label().clone().filter(|label| !label.is_empty());
    if host.selinux && !sandbox.is_open() {
        let (process, files) = label::complete(labels.selinux.as_deref(), files_label.as_deref(), identity, facts);
        (labels.selinux, files_label) = (Some(process), Some(files));
    }
    mounts::label(&mut linux, &mut mounts, files_label.as_deref());
    let masks = MaskPlan::new(&linux, &mounts);
    // libcontainer's filter compiler swaps the operands of SCMP_CMP_MASKED_EQ: it gets no filter.
    linux.set_seccomp(None);
    let mut resources: LinuxResources = linux.resources().clone().unwrap_or_default();
    resources.set_devices(Some(devices::rules(&resources, sandbox)));
    linux.set_resources(Some(resources));

    spec.set_process(Some(process));
    spec.set_linux(Some(linux));
    spec.set_mounts(Some(mounts));
    // Nothing that libcontainer does may be steered by an annotation of the image or the pod.
    spec.set_annotations(None);
    Some(LockdownPlan {
        masks: Some(masks),
        capabilities: hardened.capabilities,
        apparmor: labels.apparmor,
        selinux: labels.selinux,
        files_label,
        landlock,
        seccomp: program,
        cwd: hardened.cwd,
        memfd_noexec: host.memfd_noexec && !sandbox.is_open(),
        home: hardened.home,
    })
}
