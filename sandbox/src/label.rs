//! AppArmor profiles and SELinux labels: what a process gets, and what it may ask for.

use std::collections::BTreeSet;

use crate::capability::CapabilitySet;
use crate::kernel::{AppArmor, KernelSupport};
use crate::observations::Observations;
use crate::refusal::Violation;
use crate::request::{Identity, ProcessRequest};
use crate::sandbox::Sandbox;

/// This product's own AppArmor profile (`configs/apparmor/hardened`). Every process is in it,
/// and what a pod asks for is stacked on top: the kernel allows what both allow.
pub const OWN_APPARMOR: &str = "hardened";

/// The same, for sandboxes that give CAP_NET_RAW.
const OWN_APPARMOR_RAW: &str = "hardened-raw";

/// What containerd and Docker call `RuntimeDefault`: on this runtime, its own profile.
const RUNTIME_DEFAULT: [&str; 3] = ["runtime/default", "cri-containerd.apparmor.d", "docker-default"];

/// Label of a process that asks for none, in words.
pub(crate) const DEFAULT_SELINUX: &str = "container_t with the pod's own categories";

/// User and role of every container. (Kubernetes' Pod Security Standards let no pod choose them.)
const SELINUX_PROCESS: &str = "system_u:system_r";

/// Type of a process that asks for none, and of its files: container-selinux and refpolicy.
const SELINUX_TYPE: &str = "container_t";
const SELINUX_FILE_TYPE: &str = "system_u:object_r:container_file_t";

/// Types that a pod may ask for: those of Kubernetes' Pod Security Standards, level baseline.
const SELINUX_TYPES: [&str; 4] = ["container_t", "container_init_t", "container_kvm_t", "container_engine_t"];

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

/// Two of the 1024 categories by the pod's id: pods are kept apart, and containers of one pod,
/// started by different shims, are not. (FNV-1a, for an answer that no later version changes.)
fn level(id: &str) -> String {
    let hash =
        id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, b| (hash ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    let (low, high) = (hash % 1024, (hash >> 32) % 1023);
    let high = if high >= low { high + 1 } else { high };
    format!("s0:c{},c{}", low.min(high), low.max(high))
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

/// Whether any pod may ask for a label of this type, at whatever level.
pub(crate) fn is_baseline(label: &str) -> bool {
    has_user_and_role(label) && is_baseline_type(type_of(label))
}

/// Whether any pod may ask for this type.
pub(crate) fn is_baseline_type(kind: &str) -> bool {
    SELINUX_TYPES.contains(&kind)
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
            format!("{label}: {kind:?} is not one of the types that may be had: {}", SELINUX_TYPES.join(", ")),
            "take seLinuxOptions.type out of the pod; the node's policy can add types in labels.selinux-types",
            Violation::policy,
        );
    }
}

fn type_of(label: &str) -> &str {
    label.split(':').nth(2).unwrap_or_default()
}

fn has_user_and_role(label: &str) -> bool {
    label.strip_prefix(SELINUX_PROCESS).is_some_and(|rest| rest.starts_with(':'))
}

fn has_type(label: &str, sandbox: &Sandbox) -> bool {
    let kind = type_of(label);
    is_baseline_type(kind) || sandbox.selinux_types.contains(kind)
}

fn may_have(label: &str, sandbox: &Sandbox) -> bool {
    has_user_and_role(label) && has_type(label, sandbox)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_are_kept_apart_by_two_categories_that_differ() {
        let mut seen = BTreeSet::new();
        for n in 0..1000 {
            let level = level(&format!("pod-{n}"));
            let categories: Vec<u32> = level
                .strip_prefix("s0:c")
                .and_then(|c| c.split_once(",c"))
                .map(|(low, high)| [low, high].map(|c| c.parse().unwrap_or(9999)).to_vec())
                .unwrap_or_default();
            assert!(matches!(categories[..], [low, high] if low < high && high < 1024), "{level}");
            seen.insert(level);
        }
        assert!(seen.len() > 990, "{}", seen.len());
        assert_eq!(level("pod"), "s0:c615,c748", "the answer is the same for ever");
    }
}
