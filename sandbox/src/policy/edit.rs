//! A profile of the node: another profile, changed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxSeccomp;

use super::error::{Place, PolicyError, nearest};
use super::file::{Answer, ArgumentRule, Explain, Foreign, ProfileTable, SeccompTable, SystemFolders};
use super::{ReadSeccomp, Source};
use crate::capability::CapabilitySet;
use crate::label;
use crate::pattern::Patterns;
use crate::profile::{self, gated};
use crate::sandbox::{Device, HostPaths, Sandbox, Users, without_covered};
use crate::seccomp::{Action, Arch, Condition, Filter, Rule, SocketFamily, is_call};

/// What is edited, and what came up.
pub(super) struct Edit<'a> {
    pub(super) sandbox: Sandbox,
    pub(super) errors: Vec<PolicyError>,
    source: &'a Source,
    read: ReadSeccomp<'a>,
    arch: Arch,
}

impl<'a> Edit<'a> {
    pub(super) const fn new(base: Sandbox, source: &'a Source, read: ReadSeccomp<'a>, arch: Arch) -> Self {
        Self { sandbox: base, errors: Vec::new(), source, read, arch }
    }

    pub(super) fn apply(&mut self, name: &str, table: &ProfileTable, place: &Place) {
        self.sandbox.names = [name.to_owned()].into();
        for capability in &table.capabilities.add {
            let one = self.capability(capability);
            self.sandbox.capabilities = self.sandbox.capabilities.union(one);
            self.allow_gated(one, capability);
        }
        for capability in &table.capabilities.drop {
            let gone = match capability.get_ref().as_str() {
                "ALL" => self.sandbox.capabilities,
                _ => self.capability(capability),
            };
            self.sandbox.capabilities = self.sandbox.capabilities.without(gone);
        }
        if let Some(explain) = table.explain {
            self.sandbox.explained = explain == Explain::On;
        }
        self.seccomp(&table.seccomp, place);
        self.files(table, place);
        self.network(table);
        self.host(table, place);
        self.users(table, place);
        for (limit, most) in &table.limits {
            if serde_json::from_value::<oci_spec::runtime::PosixRlimitType>(limit.get_ref().clone().into()).is_err() {
                self.wrong(limit.span(), format!("{} is no limit; expected RLIMIT_NOFILE, say", limit.get_ref()));
            }
            self.sandbox.limits.insert(limit.get_ref().clone(), *most);
        }
        self.sandbox.apparmor.extend(table.labels.apparmor.clone());
        let types = table.labels.selinux_types.iter().filter(|kind| !label::is_baseline_type(kind));
        self.sandbox.selinux_types.extend(types.cloned());
        let exec = &mut self.sandbox.exec;
        exec.refused |= table.exec.refuse;
        exec.read_only |= table.exec.read_only;
        exec.no_network |= table.exec.no_network;
        exec.programs.extend(table.exec.programs.clone().map(Patterns::Any));
        let hidden = self.paths(&table.exec.hidden, "exec.hidden", place);
        self.sandbox.exec.hidden.extend(hidden);
    }

    fn wrong(&mut self, span: std::ops::Range<usize>, problem: impl Into<String>) {
        self.errors.push(PolicyError::at(&Place::of(self.source, span), problem));
    }

    fn capability(&mut self, name: &toml::Spanned<String>) -> CapabilitySet {
        name.get_ref().parse().unwrap_or_else(|problem: String| {
            self.wrong(name.span(), problem);
            CapabilitySet::EMPTY
        })
    }

    /// Allows the calls that the capabilities are of no use without. What `seccomp` says comes later, and holds.
    fn allow_gated(&mut self, granted: CapabilitySet, capability: &toml::Spanned<String>) {
        let always = Rule::always(Action::Allow);
        let packets = Rule { conditions: vec![gated::PACKET_SOCKETS], action: Action::Allow };
        let calls = gated::calls(granted).map(|name| (name, &always, false));
        let sockets = gated::has_packet_sockets(granted).then_some(("socket", &packets, true));
        for (name, rule, before) in calls.chain(sockets) {
            if let Err(problem) = self.answer(name, rule, before) {
                self.wrong(capability.span(), problem);
            }
        }
    }

    /// Absolute paths; others are errors.
    fn paths(&mut self, paths: &[PathBuf], field: &str, place: &Place) -> BTreeSet<PathBuf> {
        for path in paths {
            let plain = path.is_absolute() && !path.components().any(|c| c == std::path::Component::ParentDir);
            if !plain {
                let problem = format!("{field}: {} is not an absolute path without ..", path.display());
                self.errors.push(PolicyError::at(place, problem));
            }
        }
        paths.iter().cloned().collect()
    }

    fn seccomp(&mut self, table: &SeccompTable, place: &Place) {
        let errno = table.errno.unwrap_or(libc::EPERM as u16);
        if !(1..=4095).contains(&errno) {
            self.errors.push(PolicyError::at(place, format!("seccomp.errno: {errno}; expected 1 to 4095")));
        }
        if let Some(families) = &table.socket_families {
            self.socket_families(families);
        }
        for name in &table.allow {
            self.call(name, &Rule::always(Action::Allow), false);
        }
        for name in &table.deny {
            self.call(name, &Rule::always(Action::Errno(errno)), false);
        }
        for rule in &table.rule {
            self.argument_rule(rule);
        }
        for name in &table.quiet {
            match self.number(name.get_ref()) {
                Ok(number) => self.sandbox.quiet.extend(number),
                Err(problem) => self.wrong(name.span(), problem),
            }
        }
        match table.foreign {
            Some(Foreign::Enosys) => self.sandbox.filter.set_foreign(Action::ENOSYS),
            Some(Foreign::Kill) => self.sandbox.filter.set_foreign(Action::KillProcess),
            None => {}
        }
        if let Some(path) = &table.oci {
            match self.oci(path.get_ref()) {
                Ok(filter) => self.sandbox.filter = self.sandbox.filter.meet(&filter),
                Err(problem) => self.wrong(path.span(), problem),
            }
        }
    }

    fn oci(&self, path: &Path) -> Result<Filter, String> {
        let show = path.display();
        let text = (self.read)(path)?;
        let profile: LinuxSeccomp =
            serde_json::from_str(&text).map_err(|e| format!("{show} is no OCI seccomp profile: {e}"))?;
        Filter::from_oci(&profile, self.arch).map_err(|e| format!("{show}: {e}"))
    }

    /// Answers to a call: before its other rules, or instead of them.
    fn call(&mut self, name: &toml::Spanned<String>, rule: &Rule, before: bool) {
        if let Err(problem) = self.answer(name.get_ref(), rule, before) {
            self.wrong(name.span(), problem);
        }
    }

    /// The number of a call, which this architecture may lack.
    fn number(&self, name: &str) -> Result<Option<u32>, String> {
        if !is_call(name) {
            let near = nearest(name, Arch::X86_64.calls().map(|(name, _)| name));
            let near = near.map(|n| format!("; did you mean {n}?")).unwrap_or_default();
            return Err(format!("{name} is no system call{near}"));
        }
        Ok(self.arch.number(name))
    }

    fn answer(&mut self, name: &str, rule: &Rule, before: bool) -> Result<(), String> {
        // A call that this architecture lacks is denied as it is.
        if let Some(number) = self.number(name)? {
            let mut rules = vec![rule.clone()];
            if before {
                rules.extend(self.sandbox.filter.of(number).iter().cloned());
            }
            self.sandbox.filter.set(number, rules);
        }
        Ok(())
    }

    fn argument_rule(&mut self, rule: &toml::Spanned<ArgumentRule>) {
        let table = rule.get_ref();
        if table.argument > 5 {
            self.wrong(rule.span(), format!("argument {}; expected 0 to 5", table.argument));
            return;
        }
        let condition = Condition::bits(table.argument, table.mask.unwrap_or(u32::MAX), table.equals);
        let action = match table.answer {
            Answer::Allow => Action::Allow,
            Answer::Deny => Action::EPERM,
        };
        for name in &table.calls {
            if let Err(problem) = self.answer(name, &Rule { conditions: vec![condition], action }, true) {
                self.wrong(rule.span(), problem);
            }
        }
    }

    fn socket_families(&mut self, families: &[SocketFamily]) {
        let Some(number) = self.arch.number("socket") else { return };
        self.sandbox.filter.set(number, profile::socket_rules(families));
    }

    fn files(&mut self, table: &ProfileTable, place: &Place) {
        let files = &table.files;
        if let Some(read_only) = files.read_only_root {
            self.sandbox.read_only_root = read_only;
        }
        if let Some(system) = files.system {
            self.sandbox.system_writable = system == SystemFolders::Writable;
        }
        if let Some(execute) = files.execute_from_writable {
            self.sandbox.execute_from_writable = execute;
        }
        let no_write = self.paths(&files.no_write, "files.no-write", place);
        let no_execute = self.paths(&files.no_execute, "files.no-execute", place);
        let hidden = self.paths(&files.hidden, "files.hidden", place);
        let masked = self.paths(&files.masked, "files.masked", place);
        let read_only = self.paths(&files.read_only, "files.read-only", place);
        for path in masked.iter().chain(&read_only) {
            if !path.starts_with("/proc") && !path.starts_with("/sys") {
                let problem = format!(
                    "files.masked, files.read-only: {}; expected paths of /proc and /sys, which no image can lead elsewhere: \
                     use files.hidden or files.no-write",
                    path.display()
                );
                self.errors.push(PolicyError::at(place, problem));
            }
        }
        let text = |paths: BTreeSet<PathBuf>| paths.into_iter().map(|p| p.display().to_string());
        self.sandbox.no_write.extend(no_write);
        self.sandbox.no_execute.extend(no_execute);
        self.sandbox.hidden.extend(hidden);
        self.sandbox.masked.extend(text(masked));
        self.sandbox.read_only.extend(text(read_only));
    }

    fn network(&mut self, table: &ProfileTable) {
        for (ports, given) in [
            (&mut self.sandbox.bind_tcp, &table.network.bind_tcp),
            (&mut self.sandbox.connect_tcp, &table.network.connect_tcp),
        ] {
            if let Some(given) = given {
                *ports = Some(given.iter().copied().collect());
            }
        }
        if let Some(abstract_sockets) = table.network.abstract_sockets {
            self.sandbox.abstract_sockets = abstract_sockets;
        }
    }

    fn host(&mut self, table: &ProfileTable, place: &Place) {
        let host = &table.host;
        if let Some(namespaces) = &host.namespaces {
            self.sandbox.host_namespaces = namespaces.iter().copied().collect();
        }
        if !host.paths.is_empty() || host.other_paths.is_some() {
            let keys: Vec<PathBuf> = host.paths.keys().cloned().collect();
            self.paths(&keys, "host.paths", place);
            // One of its own: a profile that extends another has that one's alone.
            let mut paths = self.sandbox.host_paths.pop_first().unwrap_or_else(HostPaths::anything);
            for (path, access) in &host.paths {
                paths.set(path.components().collect(), access.granted());
            }
            if let Some(other) = host.other_paths {
                paths.set_other(other.granted());
            }
            self.sandbox.host_paths = [paths].into();
        }
        if let Some(later_mounts) = host.later_mounts {
            self.sandbox.later_mounts = later_mounts;
        }
        let hooks = self.paths(&host.hooks, "host.hooks", place);
        if let Some(granted) = &mut self.sandbox.hooks {
            granted.extend(hooks);
        }
        for text in &host.devices {
            match device(text.get_ref()) {
                Some(device) => {
                    self.sandbox.devices.insert(device);
                }
                None => self.wrong(text.span(), format!("{:?}; expected \"c 10:229\" or \"b 8:*\"", text.get_ref())),
            }
        }
        self.sandbox.devices = without_covered(&self.sandbox.devices);
        if !host.sysctls.is_empty() {
            let mut patterns = self.sandbox.sysctls.pop_first().map(|p| p.all().to_vec()).unwrap_or_default();
            patterns.extend(host.sysctls.iter().cloned());
            self.sandbox.sysctls = [Patterns::Any(patterns)].into();
        }
    }

    fn users(&mut self, table: &ProfileTable, place: &Place) {
        let user = &table.user;
        if !user.non_root && !user.own_namespace && user.uids.is_none() && user.gids.is_none() {
            return;
        }
        for (first, last) in user.uids.iter().chain(&user.gids).flatten() {
            if first > last {
                let problem = format!("user: [{first}, {last}]; expected the first number to be the smaller");
                self.errors.push(PolicyError::at(place, problem));
            }
        }
        let ranges = |list: &Option<Vec<(u32, u32)>>| list.as_ref().map(|l| l.iter().copied().collect());
        self.sandbox.users.insert(Users {
            non_root: user.non_root,
            own_namespace: user.own_namespace,
            uids: ranges(&user.uids),
            gids: ranges(&user.gids),
        });
    }
}

/// `c 10:229`, `b 8:*`: Documentation/admin-guide/cgroup-v1/devices.rst.
fn device(text: &str) -> Option<Device> {
    let (kind, numbers) = text.split_once(' ')?;
    let (major, minor) = numbers.split_once(':')?;
    let block = match kind {
        "b" => true,
        "c" => false,
        _ => return None,
    };
    let minor = if minor == "*" { None } else { Some(minor.parse::<u32>().ok()?.into()) };
    Some(Device { block, major: major.parse::<u32>().ok()?.into(), minor })
}
