//! Limits of a cgroup.

use oci_spec::runtime::{LinuxResources, LinuxResourcesBuilder};
use serde::{Deserialize, Serialize};

/// Keys of cgroup v2 that `unified` may set (Documentation/admin-guide/cgroup-v2.rst): limits and
/// weights of the container's own cgroup. The key is a file's name, so none but these is taken.
pub(crate) const UNIFIED: &[&str] = &[
    "cpu.idle",
    "cpu.max",
    "cpu.max.burst",
    "cpu.uclamp.max",
    "cpu.uclamp.min",
    "cpu.weight",
    "cpu.weight.nice",
    "cpuset.cpus",
    "cpuset.mems",
    "io.bfq.weight",
    "io.latency",
    "io.max",
    "io.weight",
    "memory.high",
    "memory.low",
    "memory.max",
    "memory.min",
    "memory.oom.group",
    "memory.swap.high",
    "memory.swap.max",
    "memory.zswap.max",
    "misc.max",
    "pids.max",
    "rdma.max",
];

/// Limits, checked: no device rule, which is the sandbox's to say, and no key of `unified` that is not
/// one of the known limits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Resources(LinuxResources);

impl Resources {
    /// The limits of a spec or of an update.
    ///
    /// # Errors
    /// The field, and what is wrong with it.
    pub fn parse(asked: &LinuxResources) -> Result<Self, Vec<(String, String)>> {
        let mut errors = Vec::new();
        for (key, value) in asked.unified().iter().flatten() {
            if !is_known(key) {
                errors.push((format!("unified[{key}]"), "is not one of the limits that may be set".to_owned()));
            } else if value.contains('\0') || value.len() > 4096 {
                errors.push((format!("unified[{key}]"), "is not a value of a cgroup's file".to_owned()));
            }
        }
        for limit in asked.hugepage_limits().iter().flatten() {
            if !is_page_size(limit.page_size()) {
                let problem = format!("{:?} is not a page size such as 2MB", limit.page_size());
                errors.push(("hugepageLimits".to_owned(), problem));
            }
        }
        for name in asked.rdma().iter().flat_map(|devices| devices.keys()) {
            if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/') {
                errors.push((format!("rdma[{name}]"), "is not the name of a device".to_owned()));
            }
        }
        if let Some(cpu) = asked.cpu() {
            for (field, list) in [("cpu.cpus", cpu.cpus()), ("cpu.mems", cpu.mems())] {
                let plain =
                    |list: &String| list.chars().all(|c| c.is_ascii_digit() || matches!(c, ',' | '-' | ' ' | '\n'));
                if list.as_ref().is_some_and(|list| !plain(list)) {
                    errors.push((field.to_owned(), "is not a list of numbers such as 0-3,7".to_owned()));
                }
            }
        }
        if !errors.is_empty() {
            errors.sort();
            return Err(errors);
        }
        let mut kept = LinuxResourcesBuilder::default();
        if let Some(memory) = asked.memory() {
            kept = kept.memory(*memory);
        }
        if let Some(cpu) = asked.cpu() {
            kept = kept.cpu(cpu.clone());
        }
        if let Some(pids) = asked.pids() {
            kept = kept.pids(*pids);
        }
        if let Some(block_io) = asked.block_io() {
            kept = kept.block_io(block_io.clone());
        }
        if let Some(limits) = asked.hugepage_limits() {
            kept = kept.hugepage_limits(limits.clone());
        }
        if let Some(network) = asked.network() {
            kept = kept.network(network.clone());
        }
        if let Some(rdma) = asked.rdma() {
            kept = kept.rdma(rdma.clone());
        }
        if let Some(unified) = asked.unified() {
            kept = kept.unified(unified.clone());
        }
        // No field is required, so building cannot fail.
        Ok(Self(kept.build().unwrap_or_default()))
    }

    /// As libcgroups takes them. No rule about devices is among them.
    #[must_use]
    pub const fn to_oci(&self) -> &LinuxResources {
        &self.0
    }
}

fn is_known(key: &str) -> bool {
    let hugetlb = || {
        let size = key.strip_prefix("hugetlb.")?;
        size.strip_suffix(".rsvd.max").or_else(|| size.strip_suffix(".max"))
    };
    UNIFIED.contains(&key) || hugetlb().is_some_and(is_page_size)
}

/// `2MB`, `1GB`: the part of a file's name.
fn is_page_size(size: &str) -> bool {
    let digits = size.trim_end_matches(|c: char| c.is_ascii_uppercase());
    let unit = size.get(digits.len()..).unwrap_or_default();
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) && matches!(unit, "KB" | "MB" | "GB")
}
