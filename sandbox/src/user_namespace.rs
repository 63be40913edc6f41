//! User namespaces: which are taken, and what the ids of a container are on the host.
//!
//! One is a gain, whoever asks for it: root of the container is nobody on the host
//! (user_namespaces(7)). Nothing else of the sandbox depends on it.

use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespaceType, Mount, Process};

use crate::decision::{Observations, has_namespace};
use crate::kernel::KernelSupport;
use crate::mounts;
use crate::refusal::Violation;
use crate::sandbox::Sandbox;

/// Namespaces whose file systems (`/sys`, `/proc`, message queues) only root of their own user
/// namespace mounts.
const OWNED: &[(LinuxNamespaceType, &str)] = &[
    (LinuxNamespaceType::Network, "hostNetwork"),
    (LinuxNamespaceType::Pid, "hostPID"),
    (LinuxNamespaceType::Ipc, "hostIPC"),
];

/// Ids from 0 on in the container, and from `host` on outside of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    host: u32,
    size: u32,
}

impl Range {
    /// Of the one mapping that is taken: kubelet and containerd give no more.
    fn of(mappings: &[LinuxIdMapping]) -> Result<Self, String> {
        let [mapping] = mappings else {
            return Err(format!("{} ranges of ids are mapped; one is expected", mappings.len()));
        };
        let (host, size) = (mapping.host_id(), mapping.size());
        if mapping.container_id() != 0 {
            return Err(format!("id 0 of the container is not mapped, but those from {}", mapping.container_id()));
        }
        if size == 0 || host.checked_add(size).is_none() {
            return Err(format!("{size} ids from {host} on are no range"));
        }
        if host == 0 {
            return Err("root of the container would be root of the host".to_owned());
        }
        Ok(Self { host, size })
    }

    /// The host's id of one of the container; of one that is not mapped, that of its root.
    const fn host(self, id: u32) -> u32 {
        if id < self.size { self.host + id } else { self.host }
    }
}

/// The user namespace of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserNamespace {
    uids: Range,
    gids: Range,
}

impl UserNamespace {
    /// That of an admitted spec.
    pub(crate) fn of(linux: &Linux) -> Option<Self> {
        let range = |mappings: &Option<Vec<LinuxIdMapping>>| Range::of(mappings.as_deref().unwrap_or_default()).ok();
        let namespace = Self { uids: range(linux.uid_mappings())?, gids: range(linux.gid_mappings())? };
        has_namespace(linux, LinuxNamespaceType::User).then_some(namespace)
    }

    /// User and group of the host that are the container's root.
    #[must_use]
    pub const fn root(&self) -> (u32, u32) {
        (self.uids.host, self.gids.host)
    }

    /// User and group of the host that a process of the container runs as.
    #[must_use]
    pub const fn host_user(&self, uid: u32, gid: u32) -> (u32, u32) {
        (self.uids.host(uid), self.gids.host(gid))
    }

    /// Refuses a process whose user or groups do not exist in the namespace.
    pub(crate) fn check_process(&self, process: &Process, violations: &mut Vec<Violation>) {
        let user = process.user();
        let groups: Vec<u32> =
            std::iter::once(user.gid()).chain(user.additional_gids().iter().flatten().copied()).collect();
        for (field, pod_field, ids, range) in [
            ("process.user.uid", "securityContext.runAsUser", &[user.uid()][..], self.uids),
            ("process.user.gid", "securityContext.runAsGroup", &groups, self.gids),
        ] {
            for id in ids.iter().filter(|id| **id >= range.size) {
                violations.push(
                    Violation::invalid(
                        field,
                        format!("{id} is not mapped; the user namespace has the ids below {}", range.size),
                        "choose a lower one, or leave hostUsers: false out",
                    )
                    .of_container(pod_field),
                );
            }
        }
    }
}

impl std::fmt::Display for UserNamespace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "root is uid {} of the host, of {} ids from there on", self.uids.host, self.uids.size)
    }
}

/// Refuses a container without a user namespace where one is demanded, and namespaces and mappings
/// that cannot be, or that are none.
pub(crate) fn check(
    linux: &Linux,
    mounts: &[Mount],
    process: Option<&Process>,
    sandbox: &Sandbox,
    facts: &Observations,
    host: &KernelSupport,
    violations: &mut Vec<Violation>,
) {
    if !has_namespace(linux, LinuxNamespaceType::User) {
        if sandbox.users.iter().any(|users| users.own_namespace) {
            violations.push(
                Violation::policy(
                    "linux.namespaces",
                    "the container would run without a user namespace, which the profile demands",
                    "set hostUsers: false",
                )
                .of_pod("hostUsers"),
            );
        }
        return check_mounts(linux, mounts, violations);
    }
    if !host.user_namespaces {
        violations.push(
            Violation::unsupported(
                "linux.namespaces",
                "user namespaces cannot be made on this node",
                "set the sysctl user.max_user_namespaces, or leave hostUsers: false out",
            )
            .of_pod("hostUsers"),
        );
    }
    if facts.host_namespaces.contains(&LinuxNamespaceType::User) {
        violations.push(Violation::policy(
            "linux.namespaces",
            "the user namespace is the host's",
            "give the container one of its own",
        ));
    }
    for (field, mappings) in [("linux.uidMappings", linux.uid_mappings()), ("linux.gidMappings", linux.gid_mappings())]
    {
        if let Err(problem) = Range::of(mappings.as_deref().unwrap_or_default()) {
            violations.push(
                Violation::invalid(field, problem, "map ids from 0 on to a range of the host above 0")
                    .of_pod("hostUsers"),
            );
        }
    }
    for (_, pod_field) in OWNED.iter().filter(|(kind, _)| facts.shares(linux, *kind)) {
        violations.push(
            Violation::invalid(
                "linux.namespaces",
                "a user namespace goes with none of the host's namespaces",
                format!("set {pod_field}: false, or leave hostUsers: false out"),
            )
            .of_pod(*pod_field),
        );
    }
    for path in &facts.other_devices {
        violations.push(Violation::unsupported(
            format!("linux.devices[{}]", path.display()),
            "is another device on the host; in a user namespace a device has the host's path",
            "give it the same path, or leave hostUsers: false out",
        ));
    }
    if let (Some(namespace), Some(process)) = (UserNamespace::of(linux), process) {
        namespace.check_process(process, violations);
    }
    check_mounts(linux, mounts, violations);
}

/// Refuses mounts whose ids cannot be mapped as they ask.
fn check_mounts(linux: &Linux, mounts: &[Mount], violations: &mut Vec<Violation>) {
    for mount in mounts.iter().filter(|mount| mounts::is_id_mapped(mount)) {
        let has = |mappings: &Option<Vec<LinuxIdMapping>>| mappings.as_ref().is_some_and(|list| !list.is_empty());
        let own = (has(mount.uid_mappings()), has(mount.gid_mappings()));
        let problem = match own {
            _ if !mounts::is_bind(mount) => "only bind mounts can have their ids mapped",
            (true, true) => continue,
            (false, false) if has(linux.uid_mappings()) && has(linux.gid_mappings()) => continue,
            (false, false) => "ids are to be mapped, and no mapping is given",
            _ => "uidMappings and gidMappings go together",
        };
        let field = format!("mounts[{}]", mount.destination().display());
        violations.push(Violation::invalid(field, problem, "give both, or leave idmap out"));
    }
}
