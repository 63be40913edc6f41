//! Namespaces: what a container shares with the host, and with its pod.

use crate::bundle::{FileId, JoinedNamespace, Namespace, NamespaceKind};
use crate::observations::Observations;
use crate::refusal::Violation;
use crate::request::Request;
use crate::sandbox::{HostNamespace, Sandbox};

/// Namespaces that keep a container apart from the host, what lets it share the host's, and the
/// pod's field. (User and cgroup namespaces are a gain where they are asked for.)
const REQUIRED: &[(NamespaceKind, &str, Option<HostNamespace>, &str)] = &[
    (NamespaceKind::Mount, "mount", None, ""),
    (NamespaceKind::Pid, "pid", Some(HostNamespace::Pid), "hostPID"),
    (NamespaceKind::Ipc, "ipc", Some(HostNamespace::Ipc), "hostIPC"),
    (NamespaceKind::Network, "network", Some(HostNamespace::Network), "hostNetwork"),
    (NamespaceKind::Uts, "uts", Some(HostNamespace::Network), "hostNetwork"),
];

/// Whether a container shares the host's namespace of a kind.
pub(crate) fn shares(request: &Request, observed: &Observations, kind: NamespaceKind) -> bool {
    !request.namespaces.contains_key(&kind) || observed.is_hosts(kind)
}

/// Refuses the host's namespaces that the sandbox does not give.
pub(crate) fn check(request: &Request, sandbox: &Sandbox, observed: &Observations, violations: &mut Vec<Violation>) {
    let mut told = Vec::new();
    for (kind, name, host, pod_field) in REQUIRED {
        if !shares(request, observed, *kind)
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
    let shares_uts = shares(request, observed, NamespaceKind::Uts);
    if shares_uts && (request.hostname.is_some() || request.domainname.is_some()) && !sandbox.privileged {
        violations.push(Violation::invalid(
            "hostname",
            "the host's name would be set: the container shares the host's UTS namespace",
            "leave hostname and domainname out",
        ));
    }
    for key in request.sysctls.keys() {
        let is_own = namespace_of(key).is_some_and(|kind| !shares(request, observed, kind));
        let is_granted = sandbox.sysctls.iter().all(|allowed| allowed.matches(key));
        if is_granted && !is_own && !sandbox.privileged {
            violations.push(
                Violation::policy(
                    format!("linux.sysctl[{key}]"),
                    "would be set on the host, whose namespace the container shares",
                    "take it out of securityContext.sysctls",
                )
                .of_pod(format!("securityContext.sysctls[{key}]")),
            );
        }
    }
}

/// The namespace that a sysctl belongs to; the host's otherwise (Documentation/admin-guide/sysctl,
/// ipc/ipc_sysctl.c).
fn namespace_of(key: &str) -> Option<NamespaceKind> {
    const IPC: [&str; 4] = ["kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue."];
    const UTS: [&str; 2] = ["kernel.hostname", "kernel.domainname"];
    match key {
        _ if key.starts_with("net.") => Some(NamespaceKind::Network),
        _ if IPC.iter().any(|prefix| key.starts_with(prefix)) => Some(NamespaceKind::Ipc),
        _ if UTS.contains(&key) => Some(NamespaceKind::Uts),
        _ => None,
    }
}

/// The namespaces, with the identities of those that are joined.
pub(crate) fn harden(request: &Request, observed: &Observations) -> Vec<Namespace> {
    let joins = |kind: NamespaceKind, path: &std::path::Path| JoinedNamespace {
        path: path.to_owned(),
        // A namespace that nobody has looked at is none that a launcher joins.
        file: observed.namespaces.get(&kind).map_or(FileId { device: 0, inode: 0 }, |joined| joined.file),
    };
    request
        .namespaces
        .iter()
        .map(|(kind, path)| Namespace { kind: *kind, joins: path.as_deref().map(|path| joins(*kind, path)) })
        .collect()
}
