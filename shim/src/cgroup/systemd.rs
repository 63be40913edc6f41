//! Cgroups that are units of systemd's, made and limited over D-Bus by libcgroups.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use libcgroups::common::{AnyCgroupManager, CgroupConfig, CgroupManager, ControllerOpt, create_cgroup_manager};
use nix::unistd::Pid;
use oci_spec::runtime::{LinuxCpuBuilder, LinuxMemoryBuilder, LinuxResources, LinuxResourcesBuilder};

/// A scope, by what the kubelet's systemd driver calls it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unit<'a> {
    pub(super) slice: &'a str,
    pub(super) prefix: &'a str,
    pub(super) name: &'a str,
    /// The container's id, for systemd's description.
    pub(super) id: &'a str,
}

impl Unit<'_> {
    /// Its folder below the mount of cgroup v2: `a-b.slice` lies in `a.slice` (systemd.slice(5)).
    pub(super) fn location(&self) -> PathBuf {
        let name = self.slice.trim_end_matches(".slice");
        let ends = name.char_indices().filter(|(_, c)| *c == '-').map(|(at, _)| at).chain([name.len()]);
        let slices = ends.filter_map(|end| name.get(..end)).map(|part| format!("{part}.slice"));
        slices.chain([format!("{}-{}.scope", self.prefix, self.name)]).collect()
    }

    fn manager(&self) -> Result<AnyCgroupManager> {
        let cgroup_path = PathBuf::from(format!("{}:{}:{}", self.slice, self.prefix, self.name));
        create_cgroup_manager(CgroupConfig { cgroup_path, systemd_cgroup: true, container_name: self.id.to_owned() })
            .context("connect to systemd")
    }

    /// Makes it, with this process in it.
    pub(super) fn start(&self) -> Result<()> {
        self.manager()?.add_task(Pid::this()).context("have systemd make the scope")
    }

    /// Tells systemd the limits that it knows, so that it does not set others. `folder` is the scope's.
    pub(super) fn limit(&self, folder: &Path, resources: &LinuxResources) -> Result<()> {
        let cpu_max = std::fs::read_to_string(folder.join("cpu.max")).unwrap_or_default();
        let resources = known(resources, &cpu_max)?;
        let options = ControllerOpt {
            resources: &resources,
            disable_oom_killer: false,
            oom_score_adj: None,
            freezer_state: None,
        };
        self.manager()?.apply(&options).context("have systemd set the scope's limits")
    }

    /// Ends and removes it; that it is gone already is as well.
    pub(super) fn stop(&self) -> Result<()> {
        self.manager()?.remove().context("have systemd stop the scope")
    }
}

/// The limits that libcgroups makes properties of, rightly: it fails where a limit of memory is 0, sets
/// no quota where there is none, orders the CPUs of a cpuset in another way than systemd, and takes
/// the weights of `unified` for shares. All limits are written to the cgroup's files too, as runc does.
fn known(asked: &LinuxResources, cpu_max: &str) -> Result<LinuxResources> {
    let mut known = LinuxResourcesBuilder::default();
    if let Some(memory) = asked.memory() {
        let mut kept = LinuxMemoryBuilder::default();
        let set = |value: Option<i64>| value.filter(|v| *v != 0);
        if let Some(limit) = set(memory.limit()) {
            kept = kept.limit(limit);
        }
        if let Some(swap) = set(memory.swap()) {
            kept = kept.swap(swap);
        }
        if let Some(reservation) = set(memory.reservation()) {
            kept = kept.reservation(reservation);
        }
        known = known.memory(kept.build().context("limits of memory")?);
    }
    if let Some(cpu) = asked.cpu() {
        let mut kept = LinuxCpuBuilder::default();
        if let Some(shares) = cpu.shares() {
            kept = kept.shares(shares);
        }
        let mut now = cpu_max.split_whitespace();
        let (quota_now, period_now) =
            (now.next().and_then(|q| q.parse().ok()), now.next().and_then(|p| p.parse().ok()));
        if let Some(quota) = cpu.quota().filter(|q| *q != 0).or(quota_now) {
            kept = kept.quota(quota);
        }
        if let Some(period) = cpu.period().filter(|p| *p != 0).or(period_now) {
            kept = kept.period(period);
        }
        known = known.cpu(kept.build().context("limits of CPU time")?);
    }
    if let Some(pids) = asked.pids().filter(|pids| pids.limit() != 0) {
        known = known.pids(pids);
    }
    known.build().context("limits for systemd").map(|mut resources| {
        // oci-spec's default denies all devices, which are not systemd's to say.
        resources.set_devices(None);
        resources
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_unit_of_systemd_is_found_where_systemd_puts_it() {
        let location = |slice, prefix, name| Unit { slice, prefix, name, id: "" }.location();
        assert_eq!(
            location("kubepods-burstable-pod1_2.slice", "cri-containerd", "abc"),
            Path::new(
                "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice/cri-containerd-abc.scope"
            )
        );
        assert_eq!(location("system.slice", "a", "b"), Path::new("system.slice/a-b.scope"));
    }

    #[test]
    fn systemd_hears_of_what_it_would_else_reset() {
        let asked = serde_json::from_value(json!({
            "memory": {"limit": 100, "swap": 0, "reservation": 0},
            "cpu": {"shares": 2, "cpus": "31"},
            "pids": {"limit": 0},
            "unified": {"cpu.weight": "7"},
        }))
        .unwrap();
        let known = known(&asked, "20000 50000\n").unwrap();
        let cpu = known.cpu().as_ref().unwrap();
        assert_eq!((cpu.shares(), cpu.quota(), cpu.period(), cpu.cpus()), (Some(2), Some(20_000), Some(50_000), &None));
        assert_eq!(known.memory().unwrap().swap(), None);
        assert!(known.pids().is_none() && known.unified().is_none() && known.devices().is_none());
    }
}
