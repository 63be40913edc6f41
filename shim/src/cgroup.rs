//! The container's cgroup, by libcgroups.

use std::collections::HashMap;
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use hardened_sandbox::DeviceFilter;
use libcgroups::common::{
    AnyCgroupManager, CgroupConfig, CgroupManager, CgroupSetup, ControllerOpt, FreezerState, create_cgroup_manager,
    get_cgroup_setup,
};
use libcgroups::stats::Stats;
use libcgroups::v1::ControllerType;
use oci_spec::runtime::{LinuxResources, Spec};

use crate::sys;

/// Where cgroups are mounted: by systemd's convention, which libcgroups demands.
pub(crate) const CGROUP_ROOT: &str = "/sys/fs/cgroup";

/// How often the processes of a cgroup are killed again, 10 ms apart: some fork meanwhile.
const KILL_ROUNDS: u32 = 500;

/// The cgroup of one container.
#[derive(Debug, Clone)]
pub(crate) struct Cgroup {
    /// As in the spec: a path below the hierarchies' mounts, or `slice:prefix:name` for systemd.
    path: PathBuf,
    id: String,
}

/// The slice and the scope of a `slice:prefix:name`, by which the kubelet's systemd driver names a
/// cgroup (runtime-spec `config-linux.md`, "Cgroups Path").
pub(crate) fn systemd_unit(path: &Path) -> Option<(&str, String)> {
    let mut parts = path.to_str()?.split(':');
    let (slice, prefix, name) = (parts.next()?, parts.next()?, parts.next()?);
    let plain = |part: &str| !part.is_empty() && !part.contains('/') && !part.starts_with('.');
    let known = parts.next().is_none() && slice.ends_with(".slice") && [slice, prefix, name].into_iter().all(plain);
    known.then(|| (slice, format!("{prefix}-{name}.scope")))
}

/// Where systemd puts a slice: `a-b.slice` lies in `a.slice` (systemd.slice(5)).
fn expand(slice: &str) -> PathBuf {
    let name = slice.trim_end_matches(".slice");
    let ends = name.char_indices().filter(|(_, c)| *c == '-').map(|(at, _)| at).chain([name.len()]);
    ends.filter_map(|end| name.get(..end)).map(|part| format!("{part}.slice")).collect()
}

impl Cgroup {
    pub(crate) fn new(path: &Path, id: &str) -> Self {
        Self { path: path.to_owned(), id: id.to_owned() }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the node has cgroup v2 only.
    pub(crate) fn is_unified() -> bool {
        matches!(get_cgroup_setup(), Ok(CgroupSetup::Unified))
    }

    /// Reads and signals by the file system.
    fn manager(&self) -> Result<AnyCgroupManager> {
        self.manager_of(self.location(), false)
    }

    /// Makes, limits and removes: through systemd, where the cgroup is a unit of its.
    fn owner(&self) -> Result<AnyCgroupManager> {
        match systemd_unit(&self.path) {
            Some(_) => self.manager_of(self.path.clone(), true),
            None => self.manager(),
        }
    }

    fn manager_of(&self, cgroup_path: PathBuf, systemd_cgroup: bool) -> Result<AnyCgroupManager> {
        let config = CgroupConfig { cgroup_path, systemd_cgroup, container_name: self.id.clone() };
        create_cgroup_manager(config).with_context(|| self.name())
    }

    /// The path below the hierarchies' mounts, with a `/` before it.
    fn location(&self) -> PathBuf {
        match systemd_unit(&self.path) {
            Some((slice, scope)) => Path::new("/").join(expand(slice)).join(scope),
            None => self.path.clone(),
        }
    }

    /// The path below a hierarchy's mount.
    fn relative(&self) -> PathBuf {
        let location = self.location();
        location.strip_prefix("/").map_or_else(|_| location.clone(), Path::to_owned)
    }

    fn name(&self) -> String {
        format!("cgroup {}", self.path.display())
    }

    /// Every process, of execs and forks too.
    pub(crate) fn processes(&self) -> Result<Vec<i32>> {
        let pids = self.manager()?.get_all_pids().with_context(|| format!("list {}", self.name()))?;
        Ok(pids.into_iter().map(nix::unistd::Pid::as_raw).collect())
    }

    pub(crate) fn freeze(&self, frozen: bool) -> Result<()> {
        let state = if frozen { FreezerState::Frozen } else { FreezerState::Thawed };
        self.manager()?.freeze(state).with_context(|| format!("freeze {}", self.name()))
    }

    pub(crate) fn stats(&self) -> Result<Stats> {
        self.manager()?.stats().with_context(|| format!("read {}", self.name()))
    }

    /// Sets limits of a running container. Device rules are not among them: they are the sandbox's.
    pub(crate) fn update(&self, mut resources: LinuxResources) -> Result<()> {
        resources.set_devices(None);
        self.apply(&resources)
    }

    /// The cgroup's folder with a file of a v1 controller, or of v2.
    pub(crate) fn folder(&self, controller: &str) -> Result<PathBuf> {
        if Self::is_unified() {
            return Ok(Path::new(CGROUP_ROOT).join(self.relative()));
        }
        let mount = libcgroups::v1::util::list_subsystem_mount_points().context("find the cgroup mounts")?;
        mount
            .into_iter()
            .find(|m| m.file_name().is_some_and(|n| n.to_string_lossy().split(',').any(|c| c == controller)))
            .map(|m| m.join(self.relative()))
            .ok_or_else(|| anyhow!("no cgroup controller {controller} is mounted"))
    }

    /// Makes the cgroup in every v1 hierarchy, and sets the spec's limits and device rules.
    pub(crate) fn make_legacy(&self, spec: &Spec) -> Result<()> {
        for (controller, mount) in legacy_mounts()? {
            let mut folder = mount;
            for component in &self.relative() {
                let parent = folder.clone();
                folder.push(component);
                match std::fs::create_dir(&folder) {
                    Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                    result => result.with_context(|| format!("make {}", folder.display()))?,
                }
                // A new cpuset is empty, and takes no process before it has CPUs and memory
                // (Documentation/admin-guide/cgroup-v1/cpusets.rst).
                if controller == ControllerType::CpuSet {
                    for file in ["cpuset.cpus", "cpuset.mems"] {
                        inherit(&parent.join(file), &folder.join(file))?;
                    }
                }
            }
        }
        if let Some(resources) = spec.linux().as_ref().and_then(|l| l.resources().as_ref()) {
            self.apply(resources)?;
        }
        Ok(())
    }

    /// Has the kernel ask the spec's device rules, on cgroup v2. On v1 they are among the limits.
    ///
    /// For a container whose init is parked in the cgroup: nothing of the image has run yet.
    pub(crate) fn confine_devices(&self, spec: &Spec) -> Result<()> {
        let resources = spec.linux().as_ref().and_then(|l| l.resources().as_ref());
        let Some(rules) =
            resources.and_then(|r| r.devices().as_ref()).filter(|rules| !rules.is_empty() && Self::is_unified())
        else {
            return Ok(());
        };
        let folder = File::open(self.folder("")?).with_context(|| format!("open {}", self.name()))?;
        let program = sys::load_device_program(DeviceFilter::compile(rules).instructions())
            .context("load the device program (a kernel with CONFIG_CGROUP_BPF takes it)")?;
        sys::attach_device_program(&folder, &program)
            .with_context(|| format!("attach the device program to {}", self.name()))
    }

    fn apply(&self, resources: &LinuxResources) -> Result<()> {
        let options = ControllerOpt { resources, disable_oom_killer: false, oom_score_adj: None, freezer_state: None };
        self.owner()?.apply(&options).with_context(|| format!("set the limits of {}", self.name()))
    }

    /// Moves the calling process, which must have one thread, into the cgroup, in every v1 hierarchy
    /// or on v2, and reads back that it is there.
    pub(crate) fn enter(&self) -> Result<()> {
        let (files, controllers): (Vec<PathBuf>, Vec<String>) = if Self::is_unified() {
            // In /proc/self/cgroup, v2 is the hierarchy without a controller.
            (vec![self.folder("")?.join("cgroup.procs")], vec![String::new()])
        } else {
            let mounts = legacy_mounts()?;
            let tasks = mounts.values().map(|mount| mount.join(self.relative()).join("tasks"));
            (tasks.collect(), mounts.keys().map(ToString::to_string).collect())
        };
        for file in files {
            std::fs::write(&file, "0").with_context(|| format!("enter {}", file.display()))?;
        }
        let now = std::fs::read_to_string("/proc/self/cgroup").context("read /proc/self/cgroup")?;
        for line in now.lines() {
            let mut fields = line.splitn(3, ':').skip(1);
            let (of, path) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
            let entered = controllers.iter().any(|known| of.split(',').any(|c| c == known));
            if entered && Path::new(path) != self.location() {
                return Err(anyhow!("{}: this process is in {path} of {of:?} instead", self.name()));
            }
        }
        Ok(())
    }

    /// Kills every process, until none is left.
    pub(crate) async fn kill_all(&self) -> Result<()> {
        if Self::is_unified() {
            // One write for all, forks in flight included (Linux 5.14).
            drop(std::fs::write(self.folder("")?.join("cgroup.kill"), "1"));
        }
        for _ in 0..KILL_ROUNDS {
            let left = self.signal_all(libc::SIGKILL)?;
            if left == 0 {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Err(anyhow!("{}: processes survive SIGKILL", self.name()))
    }

    /// Signals every process; returns how many there were.
    pub(crate) fn signal_all(&self, signal: i32) -> Result<usize> {
        // A cgroup that is gone, or was never made, has no process.
        let processes = self.processes().unwrap_or_default();
        for pid in &processes {
            match sys::pidfd(*pid).and_then(|fd| sys::pidfd_signal(&fd, signal)) {
                Err(error) if error.raw_os_error() != Some(libc::ESRCH) => {
                    return Err(error).with_context(|| format!("signal {pid} of {}", self.name()));
                }
                Ok(()) | Err(_) => {}
            }
        }
        Ok(processes.len())
    }

    /// Removes the cgroup; that it is gone already is as well.
    pub(crate) fn remove(&self) -> Result<()> {
        self.owner()?.remove().with_context(|| format!("remove {}", self.name()))
    }
}

/// v1 hierarchies that libcgroups makes cgroups in; not systemd's own, say.
fn legacy_mounts() -> Result<HashMap<ControllerType, PathBuf>> {
    libcgroups::v1::util::list_supported_mount_points().context("find the cgroup mounts")
}

/// Copies a setting from the parent, where it is empty and exists.
fn inherit(from: &Path, to: &Path) -> Result<()> {
    let Ok(now) = std::fs::read_to_string(to) else { return Ok(()) };
    if now.trim().is_empty() {
        let value = std::fs::read_to_string(from).with_context(|| format!("read {}", from.display()))?;
        std::fs::write(to, value.trim()).with_context(|| format!("write {}", to.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_of_systemd_is_found_where_systemd_puts_it() {
        let location = |path: &str| Cgroup::new(Path::new(path), "x").location();
        assert_eq!(location("/kubepods/burstable/x"), Path::new("/kubepods/burstable/x"));
        assert_eq!(
            location("kubepods-burstable-pod1_2.slice:cri-containerd:abc"),
            Path::new(
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice/cri-containerd-abc.scope"
            )
        );
        assert_eq!(location("system.slice:a:b"), Path::new("/system.slice/a-b.scope"));
        for bad in ["a:b:c", "x.slice:../y:z", "x.slice:a:b:c", "/x.slice:a:b", "x.slice::b", "x.slice:a:.."] {
            assert_eq!(systemd_unit(Path::new(bad)), None, "{bad}");
        }
    }
}
