//! How much a container is exposed: what it may do that others do without, each with a weight.
//!
//! The weights are opinion, and the same for every container: of two sandboxes the one with the lower score gives an
//! attacker less. Like that of `systemd-analyze security`, a score of 0 is a container that may do next to nothing.

use std::path::Path;

use crate::bundle::NamespaceKind;
use crate::capability::CapabilitySet;
use crate::denial::allows;
use crate::seccomp::Call;
use crate::standing::Standing;

/// One thing that a container may do or not.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// What it is about.
    pub name: &'static str,
    /// What was found.
    pub found: String,
    /// How much it adds to the exposure: 0 to `weight`.
    pub exposure: u32,
    /// The most that it can add.
    pub weight: u32,
}

/// Capabilities that amount to root on the node, alone or with little else: capabilities(7).
const MIGHTY: CapabilitySet = CapabilitySet::of(&[
    "SYS_ADMIN",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_PTRACE",
    "SYS_BOOT",
    "BPF",
    "PERFMON",
    "DAC_READ_SEARCH",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "NET_ADMIN",
    "SYS_TIME",
    "SYSLOG",
    "LINUX_IMMUTABLE",
]);

/// The finding about paths of the node that are mounted.
pub const HOST_PATHS: &str = "host paths";

/// Folders in which the kubelet and containerd keep what they give to a pod.
const OF_THE_KUBELET: &[&str] = &["/var/lib/kubelet", "/var/lib/containerd", "/run/containerd"];

impl Standing {
    /// What adds to the container's exposure, and what does not.
    #[must_use]
    pub fn findings(&self) -> Vec<Finding> {
        let mut all = Vec::new();
        let mut add = |name, weight, found: (u32, String)| {
            let (exposure, found) = found;
            all.push(Finding { name, found, exposure: exposure.min(weight), weight });
        };
        let plan = &self.plan;
        let may = |call: &str, first: u64| {
            let number = self.filters.arch.number(call);
            number.is_some_and(|number| {
                let call = Call { number, arch: self.filters.arch.audit(), arguments: [first, 0, 0, 0, 0, 0] };
                plan.seccomp.answer(&call).is_some_and(allows)
            })
        };
        let any = |calls: &[&'static str], weight: u32| {
            let allowed: Vec<&str> = calls.iter().copied().filter(|call| may(call, 0)).collect();
            if allowed.is_empty() {
                (0, "denied".to_owned())
            } else {
                (weight, format!("may call {}", allowed.join(", ")))
            }
        };
        let landlock = plan.landlock.as_ref();

        add("mounts", 20, if landlock.is_none() { any(&["mount"], 20) } else { (0, "kept by Landlock".to_owned()) });
        add("Landlock", 6, if landlock.is_some() { (0, "on".to_owned()) } else { (6, "off".to_owned()) });
        let (total, allowed) = self
            .filters
            .arch
            .calls()
            .fold((0u32, 0u32), |(total, allowed), (name, _)| (total + 1, allowed + u32::from(may(name, 0))));
        add("system calls", 10, (10 * allowed / total.max(1), format!("{allowed} of {total}")));
        add("kernel code", 6, any(&["bpf", "finit_module", "init_module", "kexec_load", "perf_event_open"], 6));
        add("io_uring", 4, any(&["io_uring_setup"], 4));
        let namespaces = may("unshare", 0x1000_0000) || may("clone", 0x1000_0000) || may("clone3", 0);
        add("new namespaces", 6, if namespaces { (6, "may be made".to_owned()) } else { (0, "denied".to_owned()) });
        add("other processes", 2, any(&["ptrace", "process_vm_readv"], 2));
        let families = [(17, "packet"), (31, "bluetooth"), (38, "alg"), (40, "vsock"), (44, "xdp")];
        let families: Vec<&str> =
            families.iter().filter(|(number, _)| may("socket", *number)).map(|(_, n)| *n).collect();
        let count = u32::try_from(families.len()).unwrap_or(u32::MAX);
        add("rare sockets", 3, (count, if families.is_empty() { "denied".to_owned() } else { families.join(", ") }));

        let bounding = plan.capabilities.bounding;
        let mighty: Vec<&str> = bounding.names().filter(|name| CapabilitySet::of(&[name]).is_subset(MIGHTY)).collect();
        add(
            "capabilities",
            10,
            match (mighty.as_slice(), bounding.names().count()) {
                ([], 0) => (0, "none".to_owned()),
                ([], few) => (if few > 2 { 2 } else { 1 }, bounding.to_string()),
                (mighty, _) => (10, format!("{} among them", mighty.join(", "))),
            },
        );
        add(
            "user",
            5,
            match (self.uid, self.user_namespace) {
                (0, false) => (5, "root of the node, with the capabilities that are left".to_owned()),
                (0, true) => (1, "root of a user namespace".to_owned()),
                (uid, _) => (0, format!("uid {uid}")),
            },
        );
        add(
            "user namespace",
            3,
            if self.user_namespace { (0, "its own".to_owned()) } else { (3, "the node's".to_owned()) },
        );
        for (kind, name, weight) in [
            (NamespaceKind::Network, "host network", 5),
            (NamespaceKind::Pid, "host processes", 5),
            (NamespaceKind::Ipc, "host IPC", 3),
        ] {
            let shared = self.host_namespaces.contains(&kind);
            add(name, weight, if shared { (weight, "shared".to_owned()) } else { (0, "not shared".to_owned()) });
        }

        let of_host = self.mounts.iter().filter_map(|mount| Some((mount.source.as_deref()?, mount.read_only)));
        let of_host = of_host.filter(|(source, _)| !OF_THE_KUBELET.iter().any(|folder| source.starts_with(folder)));
        let paths: Vec<(&Path, bool)> = of_host.collect();
        let exposure = if paths.iter().any(|(_, read_only)| !read_only) { 8 } else { 3 };
        let names: Vec<String> = paths.iter().map(|(path, _)| path.display().to_string()).collect();
        add(HOST_PATHS, 8, if paths.is_empty() { (0, "none".to_owned()) } else { (exposure, names.join(", ")) });
        let read_only = |yes: bool, weight: u32| if yes { (0, "read-only") } else { (weight, "writable") };
        let own = |(exposure, found): (u32, &str)| (exposure, found.to_owned());
        add("root file system", 2, own(read_only(self.root_read_only, 2)));
        add("programs", 4, own(read_only(self.root_read_only || !self.system.whole.is_empty(), 4)));
        let kept = !self.system.no_execute.is_empty();
        add("execute what was written", 3, own(if kept { (0, "denied") } else { (3, "allowed") }));
        for (name, ports, weight) in [
            ("connect by TCP", landlock.and_then(|plan| plan.connect_tcp.as_ref()), 2),
            ("listen by TCP", landlock.and_then(|plan| plan.bind_tcp.as_ref()), 1),
        ] {
            add(
                name,
                weight,
                ports.map_or((weight, "to any port".to_owned()), |ports| (0, format!("{} ports", ports.len()))),
            );
        }
        let sockets = landlock.is_none_or(|plan| plan.abstract_sockets);
        add("abstract sockets", 1, own(if sockets { (1, "any") } else { (0, "of the sandbox") }));
        let labelled = !plan.apparmor.is_empty() || plan.selinux.is_some();
        add("AppArmor, SELinux", 3, own(if labelled { (0, "on") } else { (3, "none on this node") }));
        add("denials", 1, own(if plan.seccomp.explains() { (0, "reported") } else { (1, "not reported") }));
        all
    }
}

/// The score of findings, in tenths: 0 for the least exposure, 100 for the most.
#[must_use]
pub fn score(findings: &[Finding]) -> u32 {
    let sum = |of: fn(&Finding) -> u32| findings.iter().map(of).sum::<u32>();
    100 * sum(|finding| finding.exposure) / sum(|finding| finding.weight).max(1)
}
