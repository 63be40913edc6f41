//! The effective sandbox: node's profile ∧ profile that the pod asks for ∧ what the spec itself asks for.

use super::annotation;
use crate::denial::Source;
use crate::identity::{Identity, Kind};
use crate::kernel::{KernelSupport, LEAST_LANDLOCK_ABI, PORTS_LANDLOCK_ABI};
use crate::policy::{Policy, Profile};
use crate::profile::BuiltIn;
use crate::refusal::Violation;
use crate::request::Request;
use crate::sandbox::Sandbox;
use crate::seccomp::Filter;

/// The node's profile, met with the pod's wishes and with the spec's own filter; and the filters of each.
pub(crate) fn effective(
    request: &Request,
    identity: &Identity,
    profile: &Profile,
    policy: &Policy,
    kernel: &KernelSupport,
    violations: &mut Vec<Violation>,
) -> (Sandbox, Vec<(Source, Filter)>) {
    let mut sandbox = profile.sandbox().clone();
    let mut filters = vec![(Source::Profile(profile.name().to_owned()), sandbox.filter.clone())];
    let arch = sandbox.filter.arch();
    if identity.kind == Some(Kind::Sandbox) {
        // What a privileged pod's sandbox asks for is taken away from it, not refused: nothing of
        // the workload runs in it, and each container is judged by itself.
        sandbox = sandbox.meet(&BuiltIn::Pause.sandbox(arch));
        sandbox.privileged = true;
        sandbox.explained = false;
        sandbox.host_namespaces.extend(policy.host_namespaces_of_pod(identity));
    }
    sandbox = annotation::tighten(sandbox, &request.annotations, policy, violations);
    let asked_for = annotation::profile(request).and_then(|name| policy.profile(name));
    if let Some(asked_for) = asked_for {
        filters.push((Source::Annotation(asked_for.name().to_owned()), asked_for.sandbox().filter.clone()));
    }
    if let Some(profile) = &request.seccomp {
        match Filter::from_oci(profile, arch) {
            Ok(filter) => {
                sandbox = sandbox.filtered(&filter);
                filters.push((Source::Pod, filter));
            }
            Err(error) => violations.push(
                Violation::invalid(
                    "linux.seccomp",
                    error.to_string(),
                    "use seccompProfile RuntimeDefault, or fix the Localhost profile",
                )
                .of_container("securityContext.seccompProfile"),
            ),
        }
    }
    check_kernel(&sandbox, identity, policy, kernel, violations);
    (sandbox, filters)
}

/// What the node's kernel must have for this sandbox.
fn check_kernel(
    sandbox: &Sandbox,
    identity: &Identity,
    policy: &Policy,
    kernel: &KernelSupport,
    violations: &mut Vec<Violation>,
) {
    if !kernel.seccomp {
        violations.push(Violation::unsupported(
            "node",
            "the kernel has no seccomp filters",
            "boot a kernel with CONFIG_SECCOMP_FILTER",
        ));
    }
    if sandbox.landlock && kernel.landlock_abi < LEAST_LANDLOCK_ABI && !policy.takes_old_landlock() {
        violations.push(Violation::unsupported(
            "node",
            format!("the kernel offers Landlock ABI {}; at least {LEAST_LANDLOCK_ABI} is needed", kernel.landlock_abi),
            "boot Linux 5.19 or newer with landlock in its lsm= list, or write landlock = \"best-effort\" into the \
             policy and lose what `hardenctl doctor` lists",
        ));
    }
    let demands = sandbox.demands_of_landlock();
    // Nothing of the workload runs in a pod's sandbox.
    if kernel.landlock_abi == 0 && !demands.is_empty() && identity.kind != Some(Kind::Sandbox) {
        violations.push(Violation::unsupported(
            "node",
            format!("the kernel offers no Landlock, which alone can enforce {}", demands.join(", ")),
            "boot Linux 5.19 or newer with landlock in its lsm= list, or take that out of the profile and the annotations",
        ));
    }
    let ports = sandbox.bind_tcp.is_some() || sandbox.connect_tcp.is_some();
    if ports && kernel.landlock_abi < PORTS_LANDLOCK_ABI {
        violations.push(Violation::unsupported(
            "node",
            format!(
                "the kernel offers Landlock ABI {}; rules for TCP ports need {PORTS_LANDLOCK_ABI}",
                kernel.landlock_abi
            ),
            "boot Linux 6.7 or newer, or take the ports out of the profile and the annotations",
        ));
    }
}
