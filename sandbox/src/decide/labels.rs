//! Labels of a process: what it gets of those that it asks for, of its profile's and of this product's own.

use std::collections::BTreeSet;

use crate::capability::CapabilitySet;
use crate::identity::Identity;
use crate::kernel::{AppArmor, KernelSupport};
use crate::label::{
    OWN_APPARMOR, OWN_APPARMOR_RAW, RUNTIME_DEFAULT, SELINUX_FILE_TYPE, SELINUX_PROCESS, SELINUX_TYPE, SELINUX_TYPES,
    has_user_and_role, is_baseline_type, level, type_of,
};
use crate::observations::Observations;
use crate::refusal::Violation;
use crate::request::ProcessRequest;
use crate::sandbox::Sandbox;

/// The labels of a process.
#[derive(Debug, Default)]
pub(crate) struct Labels {
    /// AppArmor profiles, stacked.
    pub(crate) apparmor: BTreeSet<String>,
    pub(crate) selinux: Option<String>,
}

/// The AppArmor profile that the process asks for, beyond this product's own.
fn requested_apparmor(process: &ProcessRequest) -> Option<&str> {
    let name = process.apparmor.as_deref().filter(|name| *name != "unconfined")?;
    (!RUNTIME_DEFAULT.contains(&name)).then_some(name)
}

fn requested_selinux(process: &ProcessRequest) -> Option<&str> {
    process.selinux.as_deref()
}

/// The AppArmor profile that no process of the sandbox is without.
pub(crate) fn own_apparmor(sandbox: &Sandbox) -> Option<&'static str> {
    const NET_RAW: CapabilitySet = CapabilitySet::of(&["NET_RAW"]);
    match sandbox.is_open() {
        true => None,
        false if NET_RAW.is_subset(sandbox.capabilities) => Some(OWN_APPARMOR_RAW),
        false => Some(OWN_APPARMOR),
    }
}

/// What the process gets on this node, but for the label that the node's profile has for those that
/// ask for none.
pub(crate) fn choose(process: &ProcessRequest, sandbox: &Sandbox, kernel: &KernelSupport) -> Labels {
    let mut labels = Labels::default();
    if kernel.apparmor != AppArmor::Off {
        labels.apparmor = sandbox.apparmor.clone();
        labels.apparmor.extend(requested_apparmor(process).map(str::to_owned));
        labels.apparmor.extend(own_apparmor(sandbox).map(str::to_owned));
    }
    if kernel.selinux {
        // A privileged pod's sandbox asks for more than it gets.
        let requested = requested_selinux(process).filter(|label| sandbox.is_open() || may_have(label, sandbox));
        labels.selinux = requested.map(str::to_owned);
    }
    labels
}

/// Labels of process and files on an SELinux node, from what is said of either: both are at one
/// level. Neither is where containerd's CRI has no `enable_selinux`, and with `ctr`; it labels the
/// files alone for a privileged pod's sandbox.
pub(crate) fn complete(
    process: Option<&str>,
    files: Option<&str>,
    identity: &Identity,
    observed: &Observations,
) -> (String, String) {
    let said = process.or(files).and_then(|label| label.splitn(4, ':').nth(3)).map(str::to_owned);
    let level = said.unwrap_or_else(|| level(identity.sandbox_id.as_deref().unwrap_or(&observed.container)));
    (
        process.map_or_else(|| format!("{SELINUX_PROCESS}:{SELINUX_TYPE}:{level}"), str::to_owned),
        files.map_or_else(|| format!("{SELINUX_FILE_TYPE}:{level}"), str::to_owned),
    )
}

/// Refuses labels that cannot be had, or that the sandbox does not give.
pub(crate) fn check(
    process: &ProcessRequest,
    sandbox: &Sandbox,
    kernel: &KernelSupport,
    violations: &mut Vec<Violation>,
) {
    check_apparmor(process, sandbox, kernel, violations);
    check_selinux(process, sandbox, kernel, violations);
    if kernel.apparmor == AppArmor::Off
        && let Some(profile) = sandbox.apparmor.first()
    {
        violations.push(missing(profile, "AppArmor"));
    }
}

/// Refuses a default label of the node's profile that the node cannot give.
pub(crate) fn check_default(label: Option<&str>, kernel: &KernelSupport, violations: &mut Vec<Violation>) {
    if let Some(label) = label.filter(|_| !kernel.selinux) {
        violations.push(missing(label, "SELinux"));
    }
}

fn missing(label: &str, what: &str) -> Violation {
    Violation::unsupported(
        "node",
        format!("the profile demands {label}, and this node's kernel does not run {what}"),
        format!("take it out of the profile's labels, or boot a kernel with {what}"),
    )
}

fn check_apparmor(
    process: &ProcessRequest,
    sandbox: &Sandbox,
    kernel: &KernelSupport,
    violations: &mut Vec<Violation>,
) {
    let requested = requested_apparmor(process);
    match &kernel.apparmor {
        AppArmor::Assumed => {}
        AppArmor::Off => {
            if let Some(name) = requested {
                violations.push(
                    Violation::unsupported(
                        "process.apparmorProfile",
                        format!("{name} is requested, and this node's kernel does not run AppArmor"),
                        "take appArmorProfile out of the pod, or schedule it on a node with AppArmor",
                    )
                    .of_container("securityContext.appArmorProfile"),
                );
            }
        }
        AppArmor::On(loaded) => {
            if let Some(name) = requested
                && !loaded.contains(name)
            {
                violations.push(
                    Violation::unsupported(
                        "process.apparmorProfile",
                        format!("the AppArmor profile {name} is not loaded on this node"),
                        format!("load it on every node with: apparmor_parser -r /etc/apparmor.d/{name}"),
                    )
                    .of_container("securityContext.appArmorProfile"),
                );
            }
            let own = own_apparmor(sandbox).filter(|own| !loaded.contains(*own));
            if let Some(own) = own {
                violations.push(Violation::unsupported(
                    "node",
                    format!("the AppArmor profile {own} is not loaded"),
                    "load it with: apparmor_parser -r /etc/apparmor.d/hardened (hardenctl install puts it there)",
                ));
            }
            for name in sandbox.apparmor.iter().filter(|name| !loaded.contains(*name)) {
                violations.push(Violation::unsupported(
                    "node",
                    format!("the profile demands the AppArmor profile {name}, which is not loaded"),
                    format!("load it with: apparmor_parser -r /etc/apparmor.d/{name}"),
                ));
            }
        }
    }
}

fn check_selinux(process: &ProcessRequest, sandbox: &Sandbox, kernel: &KernelSupport, violations: &mut Vec<Violation>) {
    let Some(label) = requested_selinux(process) else { return };
    let mut refuse = |problem: String, advice: &str, by: fn(&'static str, String, String) -> Violation| {
        violations.push(
            by("process.selinuxLabel", problem, advice.to_owned()).of_container("securityContext.seLinuxOptions"),
        );
    };
    if !kernel.selinux {
        return refuse(
            format!("{label} is requested, and this node's kernel does not run SELinux"),
            "take seLinuxOptions out of the pod, or schedule it on a node with SELinux",
            Violation::unsupported,
        );
    }
    if sandbox.privileged {
        return;
    }
    let kind = type_of(label);
    if !has_user_and_role(label) {
        refuse(
            format!("{label}: a container's user and role are {SELINUX_PROCESS}"),
            "take seLinuxOptions.user and .role out of the pod",
            Violation::policy,
        );
    }
    if !has_type(label, sandbox) {
        refuse(
            format!("{label}: {kind:?} is not one of the allowed types: {}", SELINUX_TYPES.join(", ")),
            "take seLinuxOptions.type out of the pod; the node's policy can add types in labels.selinux-types",
            Violation::policy,
        );
    }
}

fn has_type(label: &str, sandbox: &Sandbox) -> bool {
    let kind = type_of(label);
    is_baseline_type(kind) || sandbox.selinux_types.contains(kind)
}

fn may_have(label: &str, sandbox: &Sandbox) -> bool {
    has_user_and_role(label) && has_type(label, sandbox)
}
