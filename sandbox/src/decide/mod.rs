//! The decision: from a request to an admission, or to a refusal with every reason.
//!
//! Pure. Each area checks and hardens its own part, from the same [`Sandbox`].

mod annotation;
mod devices;
mod effective;
mod hooks;
mod host_paths;
mod labels;
mod mounts;
mod namespaces;
mod process;
mod user_namespace;

use oci_spec::runtime::Spec;

use crate::bundle::{Bundle, CgroupPath};
use crate::denial::{Filters, Operand, can_be_explained};
use crate::feature::Feature;
use crate::identity::Identity;
use crate::kernel::{KernelSupport, LEAST_LANDLOCK_ABI};
use crate::landlock_plan::{ExecRestriction, LandlockPlan};
use crate::mask_plan::MaskPlan;
use crate::observations::Observations;
use crate::plan::LockdownPlan;
use crate::policy::Policy;
use crate::refusal::{Note, PodField, Refusal, Violation};
use crate::request::{ProcessRequest, Request};
use crate::sandbox::Sandbox;
use crate::seccomp::{CompileError, Filter, Program};

pub use self::annotation::{ANNOTATIONS, PROFILE_ANNOTATION, profile as profile_asked_for};
pub use self::host_paths::{folder_of_volumes, sources_to_locate};
pub(crate) use self::labels::own_apparmor;
pub use self::user_namespace::UserNamespace;

/// A container that may start.
#[derive(Debug, Clone)]
pub struct Admission {
    bundle: Bundle,
    plan: LockdownPlan,
    sandbox: Sandbox,
    notes: Vec<Note>,
    kernel: KernelSupport,
    identity: Identity,
    user_namespace: Option<UserNamespace>,
    by: String,
    filters: Filters,
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
    pub const fn user_namespace(&self) -> Option<&UserNamespace> {
        self.user_namespace.as_ref()
    }

    /// Whether it is privileged, and a rule of the node lets it be.
    #[must_use]
    pub const fn is_privileged(&self) -> bool {
        self.sandbox.is_open()
    }

    /// All that the launcher and libcontainer get to know of the container.
    #[must_use]
    pub const fn bundle(&self) -> &Bundle {
        &self.bundle
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

    /// Whose filters its own is the meet of: they tell why a call is denied.
    #[must_use]
    pub const fn filters(&self) -> &Filters {
        &self.filters
    }

    /// What the kernel does not have, so that this container does without.
    pub fn lacks(&self) -> impl Iterator<Item = &'static Feature> {
        self.kernel.missing().filter(|feature| feature.costs())
    }

    /// Whether Landlock is older than the least that is demanded, and the policy takes that.
    #[must_use]
    pub const fn is_best_effort(&self) -> bool {
        self.sandbox.landlock && self.kernel.landlock_abi < LEAST_LANDLOCK_ABI
    }

    /// Decides on an exec in this container.
    ///
    /// # Errors
    /// Every violation, at once.
    pub fn decide_exec(&self, process: &ProcessRequest) -> Result<ExecAdmission, Refusal> {
        let mut violations = Vec::new();
        process::check_capabilities(process, &self.sandbox, &mut violations);
        process::check(process, &self.sandbox, &self.kernel, &mut violations);
        if let Some(namespace) = &self.user_namespace {
            namespace.check_user(&process.user, &mut violations);
        }
        process::check_exec(process, &self.sandbox.exec, &mut violations);
        let refusal = |violations| Refusal {
            by: self.by.clone(),
            identity: Box::new(self.identity.clone()),
            violations,
            implied: Vec::new(),
        };
        if !violations.is_empty() {
            return Err(refusal(violations));
        }
        let mut notes = process.notes.clone();
        let hardened = process::harden(process, &self.sandbox, &self.kernel, self.user_namespace.is_some(), &mut notes);
        let seccomp = if self.sandbox.exec.no_network {
            compile(&self.sandbox.exec_filter(), &self.sandbox).map_err(|violation| refusal(vec![violation]))?
        } else {
            self.plan.seccomp.clone()
        };
        let plan = LockdownPlan {
            masks: None,
            capabilities: hardened.process.capabilities,
            // An exec has its container's labels.
            apparmor: &hardened.labels.apparmor | &self.plan.apparmor,
            selinux: hardened.labels.selinux.or_else(|| self.plan.selinux.clone()),
            exec: self.plan.landlock.as_ref().and_then(|_| ExecRestriction::new(&self.sandbox.exec)),
            seccomp,
            cwd: hardened.cwd,
            home: hardened.home,
            ..self.plan.clone()
        };
        Ok(ExecAdmission { process: hardened.process, plan, notes, oom_score_adj: hardened.oom_score_adj })
    }
}

/// An exec that may start.
#[derive(Debug, Clone)]
pub struct ExecAdmission {
    process: crate::bundle::Process,
    plan: LockdownPlan,
    notes: Vec<Note>,
    oom_score_adj: Option<i32>,
}

impl ExecAdmission {
    /// `oom_score_adj` of the process.
    #[must_use]
    pub const fn oom_score_adj(&self) -> Option<i32> {
        self.oom_score_adj
    }

    /// The process for libcontainer.
    #[must_use]
    pub const fn process(&self) -> &crate::bundle::Process {
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
    request: &Request,
    policy: &Policy,
    kernel: &KernelSupport,
    observed: &Observations,
) -> Result<Admission, Refusal> {
    let identity = Identity { handler: observed.handler.clone(), ..request.identity.clone() };
    let choice = policy.choose(&identity, is_privileged(request));
    let by = choice.to_string();
    let mut violations = Vec::new();
    let (sandbox, filters) = effective::effective(request, &identity, choice.profile, policy, kernel, &mut violations);
    // A label for processes that ask for none is the node's to give: no wish of the pod's brings one.
    let default_label = choice.profile.selinux();
    labels::check_default(default_label, kernel, &mut violations);
    let mut implied = Vec::new();
    check(request, &sandbox, observed, kernel, &mut violations, &mut implied);
    let refusal =
        |violations, implied| Refusal { by: by.clone(), identity: Box::new(identity.clone()), violations, implied };
    if !violations.is_empty() {
        return Err(refusal(violations, implied));
    }
    let refusal = |violations| refusal(violations, Vec::new());
    let filter = sandbox.effective_filter();
    let program = compile(&filter, &sandbox).map_err(|violation| refusal(vec![violation]))?;
    let cgroup = match cgroup(request, observed) {
        Ok(path) => path,
        Err(violation) => return Err(refusal(vec![violation])),
    };
    let mut notes = request.notes.clone();
    let mut operands = Vec::new();
    if program.explains() {
        for (source, filter) in filters {
            let program = filter.compile().map_err(|e| refusal(vec![uncompiled(&e)]))?;
            operands.push(Operand { source, program });
        }
    } else if sandbox.explained && !can_be_explained(&filter) {
        notes.push(Note::new(
            "linux.seccomp",
            "denied calls are not reported: the filter denies sendmsg, which hands its listener to the shim",
        ));
    }
    let (bundle, mut plan) =
        harden(request, &sandbox, default_label, &identity, observed, kernel, program, cgroup, &mut notes);
    if let Some(landlock) = &mut plan.landlock {
        landlock.log = observed.mark.clone().filter(|_| policy.logs_landlock_denials());
    }
    let profiles = sandbox.names.iter().cloned().collect();
    let filters = Filters { arch: sandbox.filter.arch(), profiles, operands };
    let user_namespace = UserNamespace::of(request);
    Ok(Admission { bundle, plan, sandbox, notes, kernel: kernel.clone(), identity, user_namespace, by, filters })
}

/// Parses a spec and decides, for callers that have no node to observe.
///
/// # Errors
/// Every violation, at once.
pub fn judge(
    spec: &Spec,
    policy: &Policy,
    kernel: &KernelSupport,
    observed: &Observations,
) -> Result<Admission, Refusal> {
    decide(&Request::parse(spec)?, policy, kernel, observed)
}

/// Whether the container is what Kubernetes calls privileged: no mask, the capability that is all others, and
/// `/sys` to write to or every device. (There is no such flag in the OCI spec, and clients that know no masks
/// are many.)
fn is_privileged(request: &Request) -> bool {
    let unmasked = request.masked_paths.is_empty() && request.process.asks_for_sys_admin();
    unmasked && (mounts::has_writable_sysfs(request) || devices::asks_for_all(request))
}

fn compile(filter: &Filter, sandbox: &Sandbox) -> Result<Program, Violation> {
    let explained = sandbox.explained && can_be_explained(filter);
    let program = if explained { filter.compile_explained(&sandbox.quiet) } else { filter.compile() };
    program.map_err(|error| uncompiled(&error))
}

fn uncompiled(error: &CompileError) -> Violation {
    Violation::invalid("linux.seccomp", error.to_string(), "use a smaller seccomp profile")
}

/// The cgroup that the spec names, or one of the container's id.
fn cgroup(request: &Request, observed: &Observations) -> Result<CgroupPath, Violation> {
    match &request.cgroup {
        Some(path) => Ok(path.clone()),
        None => CgroupPath::parse(&format!("/{}/{}", observed.namespace, observed.container))
            .map_err(|problem| Violation::invalid("linux.cgroupsPath", problem, "give a path")),
    }
}

/// Everything that a privileged container is known by, and everything that cannot be honoured.
fn check(
    request: &Request,
    sandbox: &Sandbox,
    observed: &Observations,
    kernel: &KernelSupport,
    violations: &mut Vec<Violation>,
    implied: &mut Vec<Violation>,
) {
    let is_refused = is_privileged(request) && !sandbox.privileged;
    {
        // Of a privileged container these follow from that.
        let follows = if is_refused { &mut *implied } else { &mut *violations };
        process::check_capabilities(&request.process, sandbox, follows);
        devices::check(request, sandbox, follows);
        mounts::check_host_view(request, sandbox, follows);
    }
    process::check(&request.process, sandbox, kernel, violations);
    hooks::check(&request.hooks, sandbox, violations);
    mounts::check(request, sandbox, observed, violations);
    mounts::check_mapped(request, violations);
    namespaces::check(request, sandbox, observed, violations);
    user_namespace::check(request, sandbox, observed, kernel, violations);
    for key in request.sysctls.keys().filter(|key| !sandbox.sysctls.iter().all(|allowed| allowed.matches(key))) {
        violations.push(
            Violation::policy(
                format!("linux.sysctl[{key}]"),
                "is not one of the sysctls that may be set",
                "take it out of securityContext.sysctls; Kubernetes' safe ones may be set",
            )
            .of_pod(format!("securityContext.sysctls[{key}]")),
        );
    }
    if request.mount_label.is_some() && !kernel.selinux {
        violations.push(Violation::unsupported(
            "linux.mountLabel",
            "requested, and this node's kernel does not run SELinux",
            "take seLinuxOptions out of the pod, or schedule it on a node with SELinux",
        ));
    }
    for label in &observed.unknown_labels {
        violations.push(
            Violation::invalid(
                "process.selinuxLabel",
                format!("{label} is no label of this node's SELinux policy"),
                "fix seLinuxOptions, or load the module that defines the type: semodule -i FILE",
            )
            .of_container("securityContext.seLinuxOptions"),
        );
    }
    // The host's shared memory comes with its IPC namespace: of that the pod's author knows nothing.
    let host_ipc = |violation: &Violation| violation.pod_field == Some(PodField::Pod("hostIPC".to_owned()));
    if violations.iter().any(host_ipc) {
        let (follows, rest) = std::mem::take(violations).into_iter().partition(mounts::is_of_shared_memory);
        implied.extend::<Vec<_>>(follows);
        *violations = rest;
    }
    if is_refused {
        violations.insert(
            0,
            Violation::policy(
                "linux",
                "the container is privileged",
                "set privileged: false and request only what the program needs; a rule of the node's policy can \
                 allow it by namespace and image digest",
            )
            .of_container("securityContext.privileged"),
        );
    }
}

/// Builds what is launched from what was decided.
#[expect(clippy::too_many_arguments, reason = "each is what one step before has found")]
fn harden(
    request: &Request,
    sandbox: &Sandbox,
    default_label: Option<&str>,
    identity: &Identity,
    observed: &Observations,
    kernel: &KernelSupport,
    seccomp: Program,
    cgroup: CgroupPath,
    notes: &mut Vec<Note>,
) -> (Bundle, LockdownPlan) {
    let hardened = process::harden(&request.process, sandbox, kernel, UserNamespace::of(request).is_some(), notes);
    let mut labels = hardened.labels;
    if kernel.selinux {
        labels.selinux = labels.selinux.or_else(|| default_label.map(str::to_owned));
    }
    let mut files_label = request.mount_label.clone();
    if kernel.selinux && !sandbox.is_open() {
        let (process, files) = labels::complete(labels.selinux.as_deref(), files_label.as_deref(), identity, observed);
        (labels.selinux, files_label) = (Some(process), Some(files));
    }
    let mounts = mounts::harden(request, sandbox, observed, files_label.as_deref(), notes);
    let (masked_paths, read_only_paths) = mounts::masks(request, sandbox, kernel, notes);
    let root_read_only = request.root_read_only || sandbox.read_only_root;
    if root_read_only && !request.root_read_only {
        notes.push(Note::new("root.readonly", "set by the profile"));
    }
    let landlock = (sandbox.landlock && kernel.landlock_abi > 0)
        .then(|| LandlockPlan::new(sandbox, &mounts, devices::ioctl_paths(request, sandbox), kernel));
    let plan = LockdownPlan {
        masks: Some(MaskPlan::new(&mounts, &masked_paths, &read_only_paths)),
        capabilities: hardened.process.capabilities,
        apparmor: labels.apparmor,
        selinux: labels.selinux,
        landlock,
        exec: None,
        seccomp,
        cwd: hardened.cwd,
        home: hardened.home,
    };
    let bundle = Bundle {
        root: request.root.clone(),
        root_read_only,
        root_devices: sandbox.is_open(),
        process: hardened.process,
        hostname: request.hostname.clone(),
        domainname: request.domainname.clone(),
        mounts,
        namespaces: namespaces::harden(request, observed),
        id_mappings: request.id_mappings.clone(),
        devices: devices::nodes(request, sandbox),
        sysctls: request.sysctls.clone(),
        masked_paths,
        read_only_paths,
        cgroup,
        resources: request.resources.clone(),
        device_rules: devices::rules(request, sandbox),
        oom_score_adj: hardened.oom_score_adj,
        files_label,
        memfd_noexec: kernel.memfd_noexec && !sandbox.is_open(),
        hooks: request.hooks.clone(),
        // A root file system that is read-only as a whole has them read-only too.
        system: mounts::system_folders(sandbox, root_read_only),
    };
    (bundle, plan)
}
