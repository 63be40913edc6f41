//! User namespaces: which are taken, and what the ids of a container are on the host.
//!
//! One is always a gain: root of the container is nobody on the host
//! (user_namespaces(7)). Nothing else of the sandbox depends on it.

use super::namespaces::shares;
use crate::bundle::{IdMapping, NamespaceKind, User};
use crate::kernel::KernelSupport;
use crate::observations::Observations;
use crate::refusal::Violation;
use crate::request::Request;
use crate::sandbox::Sandbox;

/// Namespaces whose file systems (`/sys`, `/proc`, message queues) only root of their own user
/// namespace mounts.
const OWNED: &[(NamespaceKind, &str)] =
    &[(NamespaceKind::Network, "hostNetwork"), (NamespaceKind::Pid, "hostPID"), (NamespaceKind::Ipc, "hostIPC")];

/// The kernel's extents of one map: user_namespaces(7), Linux 4.15.
const MAX_RANGES: usize = 340;

/// What the ids of a container are on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Ids {
    ranges: Vec<IdMapping>,
    /// The host's id of the container's root.
    root: u32,
}

impl Ids {
    /// Of a map that has the container's root, and nobody of the host's first.
    fn of(ranges: &[IdMapping]) -> Result<Self, String> {
        if ranges.is_empty() || ranges.len() > MAX_RANGES {
            return Err(format!("{} ranges of ids are mapped; 1 to {MAX_RANGES} are expected", ranges.len()));
        }
        if let Some(range) = ranges.iter().find(|range| range.host == 0) {
            let who = if range.container == 0 { "root".to_owned() } else { format!("id {}", range.container) };
            return Err(format!("{who} of the container would be root of the host"));
        }
        match find(ranges, 0) {
            Some(root) => Ok(Self { ranges: ranges.to_vec(), root }),
            None => Err("id 0 of the container is not mapped".to_owned()),
        }
    }

    /// The host's id of one of the container; of one that is not mapped, that of its root.
    fn host(&self, id: u32) -> u32 {
        find(&self.ranges, id).unwrap_or(self.root)
    }
}

fn find(ranges: &[IdMapping], id: u32) -> Option<u32> {
    ranges.iter().find_map(|range| {
        let offset = id.checked_sub(range.container).filter(|offset| *offset < range.size)?;
        range.host.checked_add(offset)
    })
}

/// The user namespace of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserNamespace {
    uids: Ids,
    gids: Ids,
}

impl UserNamespace {
    /// That of an admitted container.
    pub(crate) fn of(request: &Request) -> Option<Self> {
        let mappings = request.id_mappings.as_ref()?;
        let namespace = Self { uids: Ids::of(&mappings.uids).ok()?, gids: Ids::of(&mappings.gids).ok()? };
        request.namespaces.contains_key(&NamespaceKind::User).then_some(namespace)
    }

    /// User and group of the host that are the container's root.
    #[must_use]
    pub const fn root(&self) -> (u32, u32) {
        (self.uids.root, self.gids.root)
    }

    /// User and group of the host that a process of the container runs as.
    #[must_use]
    pub fn host_user(&self, uid: u32, gid: u32) -> (u32, u32) {
        (self.uids.host(uid), self.gids.host(gid))
    }

    /// Refuses a process whose user or groups do not exist in the namespace.
    pub(crate) fn check_user(&self, user: &User, violations: &mut Vec<Violation>) {
        let groups: Vec<u32> = std::iter::once(user.gid).chain(user.additional_gids.iter().copied()).collect();
        for (field, pod_field, asked, ids) in [
            ("process.user.uid", "securityContext.runAsUser", &[user.uid][..], &self.uids),
            ("process.user.gid", "securityContext.runAsGroup", &groups, &self.gids),
        ] {
            for id in asked.iter().filter(|id| find(&ids.ranges, **id).is_none()) {
                violations.push(
                    Violation::invalid(
                        field,
                        format!("{id} is not mapped; the user namespace has {ids}"),
                        "choose one of those, or leave hostUsers: false out",
                    )
                    .of_container(pod_field),
                );
            }
        }
    }
}

/// The ids that a container has.
impl std::fmt::Display for Ids {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let range = |range: &IdMapping| format!("{} to {}", range.container, range.container + (range.size - 1));
        write!(f, "the ids {}", self.ranges.iter().map(range).collect::<Vec<_>>().join(", "))
    }
}

impl std::fmt::Display for UserNamespace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "root is uid {} of the host; it has {}", self.uids.root, self.uids)
    }
}

/// Refuses a container without a user namespace where one is demanded, and namespaces and mappings
/// that cannot be, or that are none.
pub(crate) fn check(
    request: &Request,
    sandbox: &Sandbox,
    observed: &Observations,
    kernel: &KernelSupport,
    violations: &mut Vec<Violation>,
) {
    if !request.namespaces.contains_key(&NamespaceKind::User) {
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
        return;
    }
    if !kernel.user_namespaces {
        violations.push(
            Violation::unsupported(
                "linux.namespaces",
                "user namespaces cannot be made on this node",
                "set the sysctl user.max_user_namespaces, or leave hostUsers: false out",
            )
            .of_pod("hostUsers"),
        );
    }
    if observed.is_hosts(NamespaceKind::User) {
        violations.push(Violation::policy(
            "linux.namespaces",
            "the user namespace is the host's",
            "give the container a private one",
        ));
    }
    let mappings = request.id_mappings.clone();
    let (uids, gids) = mappings.map_or_else(Default::default, |mappings| (mappings.uids, mappings.gids));
    for (field, mappings) in [("linux.uidMappings", uids), ("linux.gidMappings", gids)] {
        if let Err(problem) = Ids::of(&mappings) {
            violations.push(
                Violation::invalid(field, problem, "map ids from 0 on to a range of the host above 0")
                    .of_pod("hostUsers"),
            );
        }
    }
    for (_, pod_field) in OWNED.iter().filter(|(kind, _)| shares(request, observed, *kind)) {
        violations.push(
            Violation::invalid(
                "linux.namespaces",
                "a user namespace cannot be combined with the host's namespaces",
                format!("set {pod_field}: false, or leave hostUsers: false out"),
            )
            .of_pod(*pod_field),
        );
    }
    for path in &observed.other_devices {
        violations.push(Violation::unsupported(
            format!("linux.devices[{}]", path.display()),
            "is another device on the host; in a user namespace a device has the host's path",
            "give it the same path, or leave hostUsers: false out",
        ));
    }
    if let Some(namespace) = UserNamespace::of(request) {
        namespace.check_user(&request.process.user, violations);
    }
}
