//! OCI hooks: programs of the host, which run outside of the sandbox.

use crate::bundle::Hooks;
use crate::refusal::Violation;
use crate::sandbox::Sandbox;

/// Refuses hooks that the sandbox does not give. The node's own configuration brings them (CDI, NRI, a base spec of
/// containerd's), but so can any client of containerd.
pub(crate) fn check(hooks: &Hooks, sandbox: &Sandbox, violations: &mut Vec<Violation>) {
    let Some(granted) = &sandbox.hooks else { return };
    let lists = [
        ("prestart", &hooks.prestart),
        ("createRuntime", &hooks.create_runtime),
        ("createContainer", &hooks.create_container),
    ];
    for (kind, hook) in lists.into_iter().flat_map(|(kind, list)| list.iter().map(move |hook| (kind, hook))) {
        if granted.contains(&hook.path) {
            continue;
        }
        let show = hook.path.display();
        violations.push(Violation::policy(
            format!("hooks.{kind}"),
            format!("{show} of the host would run outside of the sandbox, which the profile does not grant"),
            format!(
                "take it out of containerd's configuration (CDI, NRI, base_runtime_spec); or have the node's policy \
                 grant it: [profile.NAME] host.hooks = [\"{show}\"], and a rule that gives NAME to the namespace"
            ),
        ));
    }
}
