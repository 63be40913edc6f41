//! Whether one sandbox allows nothing that another does not.

use std::collections::BTreeSet;

use super::host_paths::representatives;
use super::{ExecRules, Sandbox, Users};
use crate::pattern::Patterns;

impl Sandbox {
    /// Whether this allows nothing that the other does not. The meet of two sandboxes is within
    /// both.
    ///
    /// Never true where it does not hold. It may be false where it does, for demands that say the
    /// same in other words (two patterns, a path below another one).
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        // Every field is named: a new one does not compile until it is compared too.
        let Self {
            names: _,
            capabilities,
            filter,
            explained,
            quiet,
            landlock,
            system_writable,
            execute_from_writable,
            abstract_sockets,
            bind_tcp,
            connect_tcp,
            no_write,
            no_execute,
            hidden,
            masked,
            read_only,
            read_only_root,
            privileged,
            host_namespaces,
            host_paths: _,
            later_mounts,
            hooks,
            devices,
            sysctls,
            limits,
            users,
            apparmor,
            selinux_types,
            exec,
        } = self;
        let granted = capabilities.is_subset(other.capabilities)
            && filter.is_within(&other.filter)
            && *system_writable <= other.system_writable
            && *execute_from_writable <= other.execute_from_writable
            && *abstract_sockets <= other.abstract_sockets
            && *privileged <= other.privileged
            && members_within(bind_tcp, &other.bind_tcp)
            && members_within(connect_tcp, &other.connect_tcp)
            && host_namespaces.is_subset(&other.host_namespaces)
            && self.paths_within(other)
            && *later_mounts <= other.later_mounts
            && members_within(hooks, &other.hooks)
            && devices.iter().all(|device| other.devices.iter().any(|other| other.covers(device)))
            && selinux_types.is_subset(&other.selinux_types)
            && quiet.is_subset(&other.quiet);
        let demanded = *landlock >= other.landlock
            && *explained >= other.explained
            && *read_only_root >= other.read_only_root
            && no_write.is_superset(&other.no_write)
            && no_execute.is_superset(&other.no_execute)
            && hidden.is_superset(&other.hidden)
            && masked.is_superset(&other.masked)
            && read_only.is_superset(&other.read_only)
            && patterns_within(sysctls, &other.sysctls)
            && other.limits.iter().all(|(name, most)| limits.get(name).is_some_and(|limit| limit <= most))
            && other.users.iter().all(|demand| users.iter().any(|users| users.is_within(demand)))
            && apparmor.is_superset(&other.apparmor);
        granted && demanded && exec.is_within(&other.exec)
    }

    fn paths_within(&self, other: &Self) -> bool {
        let all = representatives(self.host_paths.iter().chain(&other.host_paths));
        all.iter().all(|path| self.access(path) <= other.access(path))
    }
}

impl ExecRules {
    fn is_within(&self, other: &Self) -> bool {
        let Self { refused, programs, hidden, read_only, no_network } = self;
        *refused >= other.refused
            && patterns_within(programs, &other.programs)
            && hidden.is_superset(&other.hidden)
            && *read_only >= other.read_only
            && *no_network >= other.no_network
    }
}

impl Users {
    fn is_within(&self, other: &Self) -> bool {
        let Self { non_root, own_namespace, uids, gids } = self;
        *non_root >= other.non_root
            && *own_namespace >= other.own_namespace
            && ranges_within(uids, &other.uids)
            && ranges_within(gids, &other.gids)
    }
}

/// Sets of grants, where none stands for everything.
fn members_within<T: Ord>(set: &Option<BTreeSet<T>>, other: &Option<BTreeSet<T>>) -> bool {
    other.as_ref().is_none_or(|other| set.as_ref().is_some_and(|set| set.is_subset(other)))
}

fn ranges_within(ranges: &Option<BTreeSet<(u32, u32)>>, other: &Option<BTreeSet<(u32, u32)>>) -> bool {
    let inside = |(first, last): &(u32, u32), other: &BTreeSet<(u32, u32)>| {
        other.iter().any(|(least, most)| least <= first && last <= most)
    };
    other
        .as_ref()
        .is_none_or(|other| ranges.as_ref().is_some_and(|ranges| ranges.iter().all(|range| inside(range, other))))
}

/// Lists of which every one must match: each of the other's is kept by one of these.
fn patterns_within(lists: &BTreeSet<Patterns>, other: &BTreeSet<Patterns>) -> bool {
    other.iter().all(|demand| lists.iter().any(|list| list.are_within(demand)))
}
