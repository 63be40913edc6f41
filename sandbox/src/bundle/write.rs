//! The OCI spec that libcontainer gets. It is written here, once, and nowhere else.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Hook as OciHook, HookBuilder, Hooks as OciHooks, HooksBuilder, Linux, LinuxBuilder, LinuxCapabilities,
    LinuxCapabilitiesBuilder, LinuxDevice, LinuxDeviceBuilder, LinuxDeviceType, LinuxIdMapping, LinuxIdMappingBuilder,
    LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType, Mount as OciMount, MountBuilder, PosixRlimit,
    PosixRlimitBuilder, PosixRlimitType, Process as OciProcess, ProcessBuilder, RootBuilder, Spec, SpecBuilder,
    UserBuilder,
};

use super::{Bundle, DeviceNode, Hook, Hooks, IdMapping, MountKind, Namespace, NamespaceKind, Process, Propagation};
use crate::capability::Capabilities;

/// Where libcontainer finds what the launcher has prepared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// The root file system.
    pub root: PathBuf,
    /// Volumes, by the numbers of their mounts.
    pub volumes: HashMap<usize, PathBuf>,
    /// The container's cgroup, for each mount of it: where it lies, and what of it is mounted there
    /// (on v2 all, on v1 a folder of hierarchies, and in that each hierarchy by its name).
    pub cgroups: Vec<(PathBuf, PathBuf)>,
    /// Namespaces that are joined.
    pub namespaces: HashMap<NamespaceKind, PathBuf>,
}

/// The spec of a container, with paths as libcontainer finds them. The destinations of the bundle's mounts
/// have the image's links followed by now.
///
/// It carries no seccomp, no label and no working directory, which are the lock-down's; no limit and
/// no OOM score, which the launcher sets; and no annotation, so that none steers libcontainer.
///
/// # Errors
/// A place is missing, or oci-spec refuses a value.
pub fn write(bundle: &Bundle, places: &Places) -> Result<Spec, OciSpecError> {
    let spec = SpecBuilder::default()
        .version("1.2.0")
        .root(RootBuilder::default().path(&places.root).readonly(bundle.root_read_only).build()?)
        .process(bundle.process.to_oci()?)
        .mounts(mounts(bundle, places)?)
        .linux(linux(bundle, places)?);
    let mut spec = spec.build()?;
    // oci-spec fills in defaults for absent fields.
    spec.set_hostname(bundle.hostname.clone())
        .set_domainname(bundle.domainname.clone())
        .set_hooks(hooks(&bundle.hooks)?)
        .set_annotations(None);
    Ok(spec)
}

fn hooks(hooks: &Hooks) -> Result<Option<OciHooks>, OciSpecError> {
    if hooks.is_empty() {
        return Ok(None);
    }
    let list = |hooks: &[Hook]| hooks.iter().map(hook).collect::<Result<Vec<_>, _>>();
    let built = HooksBuilder::default()
        .prestart(list(&hooks.prestart)?)
        .create_runtime(list(&hooks.create_runtime)?)
        .create_container(list(&hooks.create_container)?);
    built.build().map(Some)
}

impl Process {
    /// As libcontainer takes it, for init and for an exec.
    ///
    /// # Errors
    /// oci-spec refuses a value.
    pub fn to_oci(&self) -> Result<OciProcess, OciSpecError> {
        let mut user = UserBuilder::default()
            .uid(self.user.uid)
            .gid(self.user.gid)
            .additional_gids(self.user.additional_gids.clone());
        if let Some(umask) = self.user.umask {
            user = user.umask(umask);
        }
        let rlimits = self.rlimits.iter().map(|(name, limits)| rlimit(name, *limits)).collect::<Result<Vec<_>, _>>()?;
        let mut process = ProcessBuilder::default()
            .terminal(self.terminal)
            .user(user.build()?)
            .args(self.args.clone())
            .env(self.env.clone())
            // The lock-down goes to the working directory.
            .cwd("/")
            .capabilities(capabilities(&self.capabilities)?)
            .rlimits(rlimits)
            .no_new_privileges(true)
            .build()?;
        // oci-spec's default is a profile and a label of somebody else's.
        process.set_apparmor_profile(None).set_selinux_label(None).set_oom_score_adj(None);
        Ok(process)
    }
}

fn rlimit(name: &str, (soft, hard): (u64, u64)) -> Result<PosixRlimit, OciSpecError> {
    let kind: PosixRlimitType = serde_json::from_value(name.into())?;
    PosixRlimitBuilder::default().typ(kind).soft(soft).hard(hard).build()
}

fn capabilities(sets: &Capabilities) -> Result<LinuxCapabilities, OciSpecError> {
    LinuxCapabilitiesBuilder::default()
        .bounding(sets.bounding.to_oci())
        .effective(sets.effective.to_oci())
        .permitted(sets.permitted.to_oci())
        .inheritable(sets.inheritable.to_oci())
        .ambient(sets.ambient.to_oci())
        .build()
}

fn hook(hook: &Hook) -> Result<OciHook, OciSpecError> {
    let mut built = HookBuilder::default().path(&hook.path).args(hook.args.clone()).env(hook.env.clone());
    if let Some(timeout) = hook.timeout {
        built = built.timeout(timeout);
    }
    built.build()
}

fn missing(what: &str) -> OciSpecError {
    OciSpecError::Other(format!("the launcher has prepared no place for {what}"))
}

fn mounts(bundle: &Bundle, places: &Places) -> Result<Vec<OciMount>, OciSpecError> {
    let mut mounts = Vec::new();
    for (number, mount) in bundle.mounts.iter().enumerate() {
        let destination = &mount.destination;
        let flags = || mount.flags.iter().map(|flag| flag.name().to_owned()).collect::<Vec<_>>();
        let file_system =
            |kind: &str, data: &[String]| one(destination, kind, Path::new(kind), [flags(), data.to_vec()].concat());
        mounts.push(match &mount.kind {
            MountKind::Proc { data } => file_system("proc", data)?,
            MountKind::Sysfs => file_system("sysfs", &[])?,
            MountKind::Tmpfs(data) => file_system("tmpfs", data)?,
            MountKind::Devpts(data) => file_system("devpts", data)?,
            MountKind::Mqueue => file_system("mqueue", &[])?,
            MountKind::Cgroup => {
                for (source, below) in &places.cgroups {
                    // No slash is left at the end where nothing is joined.
                    let place = destination.join(below).components().collect::<PathBuf>();
                    mounts.push(cgroup(&place, source)?);
                }
                continue;
            }
            MountKind::Bind(volume) => {
                let source = places.volumes.get(&number).ok_or_else(|| missing("a volume"))?;
                let bind = if volume.recursive { "rbind" } else { "bind" };
                let propagation = match volume.propagation {
                    Propagation::Private => "rprivate",
                    Propagation::Slave => "rslave",
                };
                // Its flags are on it already, and on what lies below.
                one(destination, "bind", source, vec![bind.to_owned(), propagation.to_owned()])?
            }
        });
    }
    Ok(mounts)
}

fn cgroup(destination: &Path, source: &Path) -> Result<OciMount, OciSpecError> {
    let options = ["bind", "rprivate", "ro", "nosuid", "nodev", "noexec"];
    one(destination, "bind", source, options.map(str::to_owned).to_vec())
}

fn one(destination: &Path, kind: &str, source: &Path, options: Vec<String>) -> Result<OciMount, OciSpecError> {
    MountBuilder::default().destination(destination).typ(kind).source(source).options(options).build()
}

fn linux(bundle: &Bundle, places: &Places) -> Result<Linux, OciSpecError> {
    let namespaces = bundle.namespaces.iter().map(|n| namespace(n, places)).collect::<Result<Vec<_>, _>>()?;
    let devices = bundle.devices.iter().map(device).collect::<Result<Vec<_>, _>>()?;
    let mut linux = LinuxBuilder::default()
        .namespaces(namespaces)
        .devices(devices)
        .sysctl(bundle.sysctls.clone().into_iter().collect::<HashMap<_, _>>())
        .masked_paths(bundle.masked_paths.clone())
        .readonly_paths(bundle.read_only_paths.clone());
    if let Some(mappings) = bundle.id_mappings.as_ref().filter(|_| bundle.has_user_namespace()) {
        linux = linux.uid_mappings(id_mappings(&mappings.uids)?).gid_mappings(id_mappings(&mappings.gids)?);
    }
    let mut linux = linux.build()?;
    // oci-spec's default denies all devices: the launcher has set the cgroup's rules.
    linux.set_resources(None);
    Ok(linux)
}

fn namespace(namespace: &Namespace, places: &Places) -> Result<LinuxNamespace, OciSpecError> {
    let kind = match namespace.kind {
        NamespaceKind::Mount => LinuxNamespaceType::Mount,
        NamespaceKind::Pid => LinuxNamespaceType::Pid,
        NamespaceKind::Ipc => LinuxNamespaceType::Ipc,
        NamespaceKind::Network => LinuxNamespaceType::Network,
        NamespaceKind::Uts => LinuxNamespaceType::Uts,
        NamespaceKind::User => LinuxNamespaceType::User,
        NamespaceKind::Cgroup => LinuxNamespaceType::Cgroup,
    };
    let built = LinuxNamespaceBuilder::default().typ(kind);
    match places.namespaces.get(&namespace.kind) {
        Some(path) => built.path(path).build(),
        None if namespace.joins.is_some() => Err(missing("a namespace")),
        None => built.build(),
    }
}

fn device(node: &DeviceNode) -> Result<LinuxDevice, OciSpecError> {
    let kind = if node.block { LinuxDeviceType::B } else { LinuxDeviceType::C };
    let mut device = LinuxDeviceBuilder::default().path(&node.path).typ(kind).major(node.major).minor(node.minor);
    if let Some(mode) = node.mode {
        device = device.file_mode(mode);
    }
    if let Some(uid) = node.uid {
        device = device.uid(uid);
    }
    if let Some(gid) = node.gid {
        device = device.gid(gid);
    }
    device.build()
}

fn id_mappings(ranges: &[IdMapping]) -> Result<Vec<LinuxIdMapping>, OciSpecError> {
    let one = |range: &IdMapping| {
        LinuxIdMappingBuilder::default().container_id(range.container).host_id(range.host).size(range.size).build()
    };
    ranges.iter().map(one).collect()
}
