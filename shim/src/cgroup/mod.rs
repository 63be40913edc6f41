//! The container's cgroup: one folder of the container's own in each hierarchy of the node.

mod folder;
mod hierarchy;
mod legacy;
mod pauses;
mod settings;
mod systemd;
mod unified;

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use hardened_sandbox::bundle::{CgroupPath, DeviceRule, Resources};

pub(crate) use self::hierarchy::{CGROUP_ROOT, hierarchies};
use self::hierarchy::{Hierarchies, Hierarchy};
use self::pauses::Pauses;
use self::settings::{write, write_all};
use self::systemd::Unit;
pub(crate) use self::unified::DeviceProgram;
use crate::sys;

/// How long the processes of a cgroup are killed again and again: some fork meanwhile.
const KILL: Duration = Duration::from_secs(5);

/// How long the removal of a cgroup may take after its last process has ended.
const REMOVE: Duration = Duration::from_secs(1);

/// How long the kernel may take to freeze a cgroup.
const FREEZE: Duration = Duration::from_secs(10);

/// How often a folder is made whose parent another launcher removes at the same time.
const MAKE_TRIES: u32 = 100;

/// The extended attribute by which a cgroup's folder names the container that it was made for. Only root of
/// the host may set it or read it (xattr(7), "Trusted extended attributes").
const OWNER: &std::ffi::CStr = c"trusted.hardened.container";

/// The cgroup of one container.
#[derive(Debug, Clone)]
pub(crate) struct Cgroup {
    path: CgroupPath,
    /// containerd's namespace, and the container's id: no other container of the node has both.
    namespace: String,
    id: String,
}

impl std::fmt::Display for Cgroup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cgroup {}", self.path)
    }
}

impl Cgroup {
    /// The driver for systemd needs cgroup v2: on v1 a unit is a path like others, as it is for runc without
    /// `SystemdCgroup`.
    pub(crate) fn new(path: &CgroupPath, namespace: &str, id: &str) -> Result<Self> {
        let path = if Self::is_unified()? { path.clone() } else { path.literal() };
        Ok(Self { path, namespace: namespace.to_owned(), id: id.to_owned() })
    }

    pub(crate) fn path(&self) -> &CgroupPath {
        &self.path
    }

    /// Whether the node has cgroup v2 only.
    pub(crate) fn is_unified() -> Result<bool> {
        Ok(hierarchies()?.unified)
    }

    fn unit(&self) -> Option<Unit<'_>> {
        match &self.path {
            CgroupPath::Unit { slice, prefix, name } => Some(Unit { slice, prefix, name, id: &self.id }),
            CgroupPath::Path(_) => None,
        }
    }

    /// The path below a hierarchy's mount; never empty.
    pub(crate) fn location(&self) -> PathBuf {
        match &self.path {
            CgroupPath::Unit { slice, prefix, name } => Unit { slice, prefix, name, id: &self.id }.location(),
            CgroupPath::Path(path) => path.components().filter(is_name).collect(),
        }
    }

    fn in_hierarchy(&self, hierarchy: &Hierarchy) -> PathBuf {
        hierarchy.mount.join(self.location())
    }

    fn owner(&self) -> String {
        format!("{}/{}", self.namespace, self.id)
    }

    /// Makes the folder in each hierarchy, and sets limits and, on v1, device rules. Whoever has a cgroup
    /// of that path already keeps it, and nothing is changed.
    ///
    /// systemd makes its scopes around a process: then this one is in it.
    ///
    /// # Errors
    /// A folder exists, or the kernel or systemd refuses something. No new folder is left, but for a
    /// scope, whose end would be this process's: it is removed as any container's is.
    pub(crate) fn make(&self, resources: &Resources, rules: &[DeviceRule]) -> Result<()> {
        let found = hierarchies()?;
        let mut made = Vec::new();
        let result = self.make_folders(found, &mut made).and_then(|()| self.restrict(found, resources, rules));
        if result.is_err() {
            for folder in made.iter().rev() {
                match fs::remove_dir(folder) {
                    // Another container may have come into one of the parents.
                    Err(error) if !matches!(error.kind(), ErrorKind::ResourceBusy | ErrorKind::NotFound) => {
                        log::warn!("remove {}: {error}", folder.display());
                    }
                    Ok(()) | Err(_) => {}
                }
            }
        }
        result.with_context(|| self.to_string())
    }

    fn make_folders(&self, found: &Hierarchies, made: &mut Vec<PathBuf>) -> Result<()> {
        if let Some(unit) = self.unit() {
            return self.make_scope(found, unit);
        }
        for hierarchy in &found.all {
            let own = self.in_hierarchy(hierarchy);
            self.make_folder(hierarchy, &own, made)?;
            sys::set_attribute(&own, OWNER, self.owner().as_bytes())
                .with_context(|| format!("mark {} as the container's", own.display()))?;
            if hierarchy.name.split(',').any(|controller| controller == "cpuset") {
                legacy::inherit_cpuset(&hierarchy.mount, &own)?;
            }
        }
        Ok(())
    }

    /// Makes the folder of one hierarchy, and those above it that are not there.
    fn make_folder(&self, hierarchy: &Hierarchy, own: &Path, made: &mut Vec<PathBuf>) -> Result<()> {
        let unified = hierarchy.name.is_empty();
        let mut tries = 0;
        'again: loop {
            tries += 1;
            if unified {
                unified::pass_controllers_on(&hierarchy.mount)?;
            }
            let mut folder = hierarchy.mount.clone();
            for component in &self.location() {
                folder.push(component);
                let is_own = folder == own;
                let made_now = if is_own { folder::make_marked(&folder) } else { fs::create_dir(&folder) };
                match made_now {
                    Ok(()) => made.push(folder.clone()),
                    Err(error) if error.kind() == ErrorKind::AlreadyExists && is_own => return Err(self.taken(own)),
                    Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                    // Another create failed right now, and took a folder along that it had made.
                    Err(error) if error.kind() == ErrorKind::NotFound && tries < MAKE_TRIES => continue 'again,
                    Err(error) => return Err(error).with_context(|| format!("make {}", folder.display())),
                }
                if unified && !is_own {
                    unified::pass_controllers_on(&folder)?;
                }
            }
            return Ok(());
        }
    }

    fn taken(&self, folder: &Path) -> anyhow::Error {
        anyhow!(
            "linux.cgroupsPath {} exists already, at {}: each container needs a dedicated cgroup; name another, or remove \
             that one",
            self.path,
            folder.display()
        )
    }

    /// Has systemd make the scope.
    fn make_scope(&self, found: &Hierarchies, unit: Unit<'_>) -> Result<()> {
        let Some(hierarchy) = found.all.first().filter(|_| found.unified) else {
            bail!("the systemd cgroup driver needs cgroup v2; use the cgroupfs driver on this node");
        };
        let own = self.in_hierarchy(hierarchy);
        if own.exists() {
            return Err(self.taken(&own));
        }
        unit.start()?;
        // To a scope that came meanwhile, libcgroups adds this process: then it is not alone in it.
        let others = folder::processes(&own).with_context(|| format!("list {}", own.display()))?;
        if others.iter().any(|pid| u32::try_from(*pid) != Ok(std::process::id())) {
            return Err(self.taken(&own));
        }
        sys::set_attribute(&own, OWNER, self.owner().as_bytes())
            .with_context(|| format!("mark {} as the container's", own.display()))
    }

    /// Sets limits, and device rules on v1.
    fn restrict(&self, found: &Hierarchies, resources: &Resources, rules: &[DeviceRule]) -> Result<()> {
        self.limit(found, resources)?;
        for hierarchy in found.all.iter().filter(|hierarchy| !found.unified && hierarchy.has("devices")) {
            legacy::set_devices(&self.in_hierarchy(hierarchy), rules)?;
        }
        if !found.unified && !rules.is_empty() && !found.all.iter().any(|hierarchy| hierarchy.has("devices")) {
            bail!("this node's cgroup v1 has no controller devices, without which no device rule holds");
        }
        Ok(())
    }

    fn limit(&self, found: &Hierarchies, resources: &Resources) -> Result<()> {
        let folders: Vec<_> = found.all.iter().map(|hierarchy| (hierarchy, self.in_hierarchy(hierarchy))).collect();
        let folder_of = |controller: &str| {
            folders.iter().find(|(hierarchy, _)| hierarchy.has(controller)).map(|(_, folder)| folder.as_path())
        };
        let resources = resources.to_oci();
        if !found.unified {
            return write_all(&legacy::settings(resources)?, folder_of);
        }
        let own = folder_of("").context("no hierarchy")?;
        let cpu_max = fs::read_to_string(own.join("cpu.max")).unwrap_or_default();
        // Converted first: what makes no sense does not get to systemd either.
        let settings = unified::settings(resources, &cpu_max)?;
        if let Some(unit) = self.unit() {
            unit.limit(own, resources)?;
        }
        write_all(&settings, folder_of)
    }

    /// On cgroup v2, a program that keeps the device rules, to be attached while init is parked: nothing of
    /// the image has run then. On v1 they are among the limits.
    pub(crate) fn device_program(&self, rules: &[DeviceRule]) -> Result<Option<DeviceProgram>> {
        let found = hierarchies()?;
        match found.all.first().filter(|_| found.unified && !rules.is_empty()) {
            Some(hierarchy) => {
                DeviceProgram::load(&self.in_hierarchy(hierarchy), rules).with_context(|| self.to_string()).map(Some)
            }
            None => Ok(None),
        }
    }

    /// Moves the calling process, which must have one thread, into the cgroup, and reads back that it is
    /// there.
    ///
    /// A thread that moves only itself, by writing 0 to `tasks`, takes no lock for which the kernel
    /// stops all forks (kernel/cgroup/cgroup.c, `cgroup_procs_write_start`).
    pub(crate) fn enter(&self) -> Result<()> {
        let (found, own) = (hierarchies()?, self.own()?);
        if own.len() != found.all.len() {
            bail!("{self} is gone, or another container has it now");
        }
        let file = if found.unified { "cgroup.procs" } else { "tasks" };
        for (_, folder) in own {
            let file = folder.join(file);
            write(&file, "0").with_context(|| format!("enter {}", file.display()))?;
        }
        let now = fs::read_to_string("/proc/self/cgroup").context("read /proc/self/cgroup")?;
        for hierarchy in &found.all {
            for controller in hierarchy.name.split(',') {
                let place = place_in(&now, controller);
                if place != Path::new("/").join(self.location()).to_str() {
                    bail!("{self}: this process is in {} of {controller:?} instead", place.unwrap_or("none"));
                }
            }
        }
        Ok(())
    }

    /// The container's own folders, each with its hierarchy.
    fn own(&self) -> Result<Vec<(&'static Hierarchy, PathBuf)>> {
        let mut own = Vec::new();
        for hierarchy in &hierarchies()?.all {
            own.extend(self.own_folder(hierarchy)?.map(|folder| (hierarchy, folder)));
        }
        Ok(own)
    }

    /// The folder in one hierarchy, if there is one and it is the container's own.
    fn own_folder(&self, hierarchy: &Hierarchy) -> Result<Option<PathBuf>> {
        let folder = self.in_hierarchy(hierarchy);
        let owner = sys::attribute(&folder, OWNER).with_context(|| format!("look at {}", folder.display()))?;
        Ok(owner.is_some_and(|owner| owner == self.owner().as_bytes()).then_some(folder))
    }

    /// The container's own folder in each hierarchy, with the name of the hierarchy's mount: `cpu,cpuacct`;
    /// empty on v2.
    pub(crate) fn folders(&self) -> Result<Vec<(String, PathBuf)>> {
        Ok(self.own()?.into_iter().map(|(hierarchy, folder)| (hierarchy.name.clone(), folder)).collect())
    }

    /// The folder with the files of a v1 controller, or of v2.
    pub(crate) fn folder(&self, controller: &str) -> Result<PathBuf> {
        let hierarchy = hierarchies()?.all.iter().find(|hierarchy| hierarchy.has(controller));
        hierarchy
            .map(|hierarchy| self.in_hierarchy(hierarchy))
            .with_context(|| format!("this node has no cgroup controller {controller}"))
    }

    /// Every process, of execs and forks too. A cgroup that is gone, or was never made, has none; one that
    /// is not the container's own has none of the container's.
    pub(crate) fn processes(&self) -> Result<Vec<i32>> {
        // All are in all hierarchies: a launcher enters them all before it has a child.
        let Some(first) = hierarchies()?.all.first() else { return Ok(Vec::new()) };
        let Some(folder) = self.own_folder(first)? else { return Ok(Vec::new()) };
        folder::processes(&folder).with_context(|| format!("list the processes of {self}"))
    }

    /// Stops every process, or lets them go on.
    pub(crate) async fn freeze(&self, frozen: bool) -> Result<()> {
        let result = if frozen { self.stop().await } else { self.thaw() };
        if frozen && result.is_err() {
            // Half-way there is no state that anybody asked for.
            self.thaw()?;
        }
        result
    }

    fn thaw(&self) -> Result<()> {
        let (file, value) = if Self::is_unified()? { ("cgroup.freeze", "0") } else { ("freezer.state", "THAWED") };
        write(&self.folder("freezer")?.join(file), value).with_context(|| format!("thaw {self}"))
    }

    async fn stop(&self) -> Result<()> {
        let folder = self.folder("freezer")?;
        let unified = Self::is_unified()?;
        let (file, value) = if unified { ("cgroup.freeze", "1") } else { ("freezer.state", "FROZEN") };
        let (state, done) = if unified { ("cgroup.events", "frozen 1") } else { ("freezer.state", "FROZEN") };
        let mut pauses = Pauses::new(FREEZE);
        loop {
            // On v1 a process that was forked meanwhile is frozen by the next write
            // (Documentation/admin-guide/cgroup-v1/freezer-subsystem.rst).
            write(&folder.join(file), value).with_context(|| format!("freeze {self}"))?;
            if settings::read(&folder.join(state))?.lines().any(|line| line == done) {
                return Ok(());
            }
            if !pauses.next().await {
                bail!("{self}: the kernel cannot freeze some of its processes");
            }
        }
    }

    /// Sets limits of a running container. Device rules are not among them: they are the sandbox's.
    pub(crate) fn update(&self, resources: &Resources) -> Result<()> {
        self.limit(hierarchies()?, resources).with_context(|| self.to_string())
    }

    /// Kills every process, until none is left.
    pub(crate) async fn kill_all(&self) -> Result<()> {
        let own = self.own()?;
        if own.is_empty() {
            return Ok(());
        }
        for (hierarchy, folder) in &own {
            let result = match hierarchy.name.as_str() {
                // One write for all, forks in flight included (Linux 5.14).
                "" => write(&folder.join("cgroup.kill"), "1"),
                _ => Ok(()),
            };
            // Gone meanwhile, or an older kernel; the rounds below tell.
            if let Err(error) = result {
                log::debug!("{}: {error}", folder.display());
            }
        }
        // Most have ended by now: then there is nothing to stop.
        if self.processes()?.is_empty() {
            return Ok(());
        }
        // On v1 nobody forks on while the others are killed.
        let freezer = own.iter().find(|(hierarchy, _)| hierarchy.name.split(',').any(|c| c == "freezer"));
        let freezer = freezer.map(|(_, folder)| folder.join("freezer.state"));
        let set =
            |state: &str| freezer.iter().filter_map(|file| write(file, state).err()).for_each(|e| log::debug!("{e}"));
        let mut pauses = Pauses::new(KILL);
        loop {
            set("FROZEN");
            let left = self.signal_all(libc::SIGKILL);
            set("THAWED");
            if left? == 0 {
                return Ok(());
            }
            if !pauses.next().await {
                bail!("{self}: processes survive SIGKILL");
            }
        }
    }

    /// Signals every process; returns how many there were.
    pub(crate) fn signal_all(&self, signal: i32) -> Result<usize> {
        let processes = self.processes()?;
        for pid in &processes {
            let Ok(process) = sys::pidfd(*pid) else { continue };
            // The number may be another's by now. Where it is not, and the process has not ended, both are of one.
            let is_own = folder_of(*pid).is_some_and(|folder| folder.starts_with(self.location()));
            if !is_own || sys::has_ended(&process).unwrap_or(false) {
                continue;
            }
            match sys::pidfd_signal(&process, signal) {
                Err(error) if error.raw_os_error() != Some(libc::ESRCH) => {
                    return Err(error).with_context(|| format!("signal {pid} of {self}"));
                }
                Ok(()) | Err(_) => {}
            }
        }
        Ok(processes.len())
    }

    /// Removes the cgroup, with what is below it; that it is gone already is as well. One that is not the
    /// container's own stays.
    pub(crate) async fn remove(&self) -> Result<()> {
        for hierarchy in &hierarchies()?.all {
            let own = self.own_folder(hierarchy)?;
            if let Some(unit) = self.unit().filter(|_| own.is_some()) {
                return unit.stop().with_context(|| format!("remove {self}"));
            }
            let folder = self.in_hierarchy(hierarchy);
            let removed = match own {
                Some(folder) => remove(&folder).await,
                // A launcher that was killed had no time to say whose it is.
                None => folder::remove_unfinished(&folder),
            };
            removed.with_context(|| format!("remove {}", folder.display()))?;
        }
        Ok(())
    }
}

/// Where a process is in the hierarchy of a controller: cgroups(7), `/proc/PID/cgroup`. v2 is the hierarchy without one.
fn place_in<'a>(text: &'a str, controller: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        controllers.split(',').any(|own| own == controller).then_some(path)
    })
}

/// The cgroup of a process in the first hierarchy, without its root; absent where it has ended.
fn folder_of(pid: i32) -> Option<PathBuf> {
    let hierarchy = hierarchies().ok()?.all.first()?;
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path = place_in(&text, hierarchy.name.split(',').next()?)?;
    Some(Path::new(path).components().filter(is_name).collect())
}

/// The container, as `NAMESPACE/ID`, in whose cgroup a process is.
pub(crate) fn container_of(pid: i32) -> Option<String> {
    let folder = hierarchies().ok()?.all.first()?.mount.join(folder_of(pid)?);
    String::from_utf8(sys::attribute(&folder, OWNER).ok()??).ok()
}

/// Moves a process into a cgroup that somebody else has made: into those of its folders that are there.
///
/// # Errors
/// There is none, or it is not a path below the hierarchies' roots.
pub(crate) fn add_to_existing(path: &str, pid: u32) -> Result<()> {
    let path = CgroupPath::parse(path).map_err(|problem| anyhow!("{problem}"))?;
    let cgroup = Cgroup::new(&path, "", "")?;
    let folders = hierarchies()?.all.iter().map(|hierarchy| cgroup.in_hierarchy(hierarchy));
    let folders: Vec<PathBuf> = folders.filter(|folder| folder.is_dir()).collect();
    if folders.is_empty() {
        bail!("there is no such cgroup");
    }
    for folder in folders {
        write(&folder.join("cgroup.procs"), &pid.to_string()).with_context(|| format!("enter {}", folder.display()))?;
    }
    Ok(())
}

async fn remove(folder: &Path) -> io::Result<()> {
    let mut pauses = Pauses::new(REMOVE);
    loop {
        match folder::remove(folder) {
            Err(error) if error.kind() == ErrorKind::ResourceBusy && pauses.next().await => {}
            result => return result,
        }
    }
}

fn is_name(component: &std::path::Component<'_>) -> bool {
    matches!(component, std::path::Component::Normal(_))
}
