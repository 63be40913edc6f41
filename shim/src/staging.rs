//! A bundle from a hardened spec, until the decision gives one.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use hardened_sandbox::bundle::{
    Bundle, CgroupPath, DeviceNode, DeviceRule, FileId, Hook, Hooks, IdMapping, IdMappings, JoinedNamespace, Mount,
    MountFlag, MountFlags, MountKind, Namespace, NamespaceKind, Process, Propagation, Resources, User, Volume,
};
use hardened_sandbox::{Admission, LockdownPlan, is_bind, is_id_mapped};
use oci_spec::runtime::{self as oci, LinuxDeviceType, LinuxIdMapping, LinuxNamespaceType, LinuxResources};

use crate::sys;

/// The bundle of an admitted container.
pub(crate) fn bundle(admission: &Admission) -> Result<Bundle> {
    let spec = admission.spec();
    let linux = spec.linux().clone().context("no linux section")?;
    let process_of_spec = spec.process().clone().context("no process")?;
    let root = spec.root().clone().context("no root")?;
    let mappings = |uids: &Option<Vec<LinuxIdMapping>>, gids: &Option<Vec<LinuxIdMapping>>| {
        let ranges = |list: &Option<Vec<LinuxIdMapping>>| {
            let one = |m: &LinuxIdMapping| IdMapping { container: m.container_id(), host: m.host_id(), size: m.size() };
            list.iter().flatten().map(one).collect::<Vec<_>>()
        };
        let (uids, gids) = (ranges(uids), ranges(gids));
        (!uids.is_empty() && !gids.is_empty()).then_some(IdMappings { uids, gids })
    };
    let id_mappings = mappings(linux.uid_mappings(), linux.gid_mappings());
    let mounts = spec.mounts().iter().flatten().map(|mount| {
        let own = mappings(mount.uid_mappings(), mount.gid_mappings());
        convert_mount(mount, own.or_else(|| id_mappings.clone()))
    });
    let mounts = mounts.collect::<Result<Vec<_>>>()?;
    let namespaces = linux.namespaces().iter().flatten().map(namespace).collect::<Result<Vec<_>>>()?;
    let devices = linux.devices().iter().flatten().map(|device| DeviceNode {
        path: device.path().clone(),
        block: device.typ() == LinuxDeviceType::B,
        major: device.major(),
        minor: device.minor(),
        mode: device.file_mode(),
        uid: device.uid(),
        gid: device.gid(),
    });
    let devices = devices.collect();
    let asked = linux.resources().clone();
    let asked = asked.unwrap_or_else(|| LinuxResources::default().set_devices(None).clone());
    let resources = Resources::parse(&asked).map_err(|problems| anyhow!("linux.resources: {problems:?}"))?;
    let rules = asked.devices().iter().flatten().filter(|rule| rule.typ() != Some(LinuxDeviceType::P));
    let number = |n: Option<i64>| n.filter(|n| *n >= 0);
    let device_rules = rules.map(|rule| DeviceRule {
        allow: rule.allow(),
        block: match rule.typ() {
            Some(LinuxDeviceType::B) => Some(true),
            Some(LinuxDeviceType::C | LinuxDeviceType::U) => Some(false),
            Some(LinuxDeviceType::A | LinuxDeviceType::P) | None => None,
        },
        major: number(rule.major()),
        minor: number(rule.minor()),
        access: rule.access().clone().unwrap_or_else(|| "rwm".to_owned()),
    });
    let device_rules = device_rules.collect();
    let path = linux.cgroups_path().clone().context("no cgroup")?;
    Ok(Bundle {
        root: root.path().clone(),
        root_read_only: root.readonly().unwrap_or_default(),
        process: process(&process_of_spec, admission.plan()),
        hostname: spec.hostname().clone(),
        domainname: spec.domainname().clone(),
        mounts,
        namespaces,
        id_mappings,
        devices,
        sysctls: linux.sysctl().clone().unwrap_or_default().into_iter().collect(),
        masked_paths: linux.masked_paths().clone().unwrap_or_default(),
        read_only_paths: linux.readonly_paths().clone().unwrap_or_default(),
        cgroup: CgroupPath::parse(&path.display().to_string()).map_err(|problem| anyhow!(problem))?,
        resources,
        device_rules,
        oom_score_adj: process_of_spec.oom_score_adj(),
        hooks: hooks(spec),
    })
}

/// A process of a hardened spec, or of an exec.
pub(crate) fn process(process: &oci::Process, plan: &LockdownPlan) -> Process {
    let user = process.user();
    let cell = |n: u64| u16::try_from(n).unwrap_or(u16::MAX);
    let limit = |limit: &oci::PosixRlimit| {
        let name = serde_json::to_value(limit.typ()).ok()?.as_str()?.to_owned();
        Some((name, (limit.soft(), limit.hard())))
    };
    Process {
        terminal: process.terminal().unwrap_or_default(),
        console_size: process.console_size().map(|size| (cell(size.height()), cell(size.width()))),
        args: process.args().clone().unwrap_or_default(),
        env: process.env().clone().unwrap_or_default(),
        user: User {
            uid: user.uid(),
            gid: user.gid(),
            additional_gids: user.additional_gids().clone().unwrap_or_default(),
            umask: user.umask(),
        },
        capabilities: plan.capabilities,
        rlimits: process.rlimits().iter().flatten().filter_map(limit).collect::<BTreeMap<_, _>>(),
    }
}

fn convert_mount(mount: &oci::Mount, mappings: Option<IdMappings>) -> Result<Mount> {
    let options = mount.options().clone().unwrap_or_default();
    let has = |names: &[&str]| options.iter().any(|o| names.contains(&o.as_str()));
    let known = |o: &str| MountFlag::ALL.iter().find(|(_, name)| *name == o).map(|(flag, _)| *flag);
    let mut flags = MountFlags::EMPTY;
    let mut recursive_flags = MountFlags::EMPTY;
    let mut data = Vec::new();
    for option in &options {
        match (known(option), option.strip_prefix('r').and_then(known)) {
            (Some(flag), _) => flags.insert(flag),
            (None, Some(flag)) => recursive_flags.insert(flag),
            (None, None) => data.push(option.clone()),
        }
    }
    flags.extend(&recursive_flags);
    let words = ["rw", "suid", "dev", "exec", "async", "bind", "rbind", "idmap", "ridmap"];
    let propagation = ["private", "rprivate", "slave", "rslave", "shared", "rshared"];
    data.retain(|o| !words.contains(&o.as_str()) && !propagation.contains(&o.as_str()));
    let kind = match mount.typ().as_deref() {
        _ if is_bind(mount) => {
            let source = mount.source().clone().context("a bind mount without a source")?;
            let file = sys::open_path_without_links(&source)
                .and_then(|file| File::from(file).metadata())
                .with_context(|| format!("mount {}: open it", source.display()))?;
            MountKind::Bind(Volume {
                source,
                file: FileId { device: file.dev(), inode: file.ino() },
                recursive: has(&["rbind"]),
                propagation: match () {
                    () if has(&["slave", "rslave", "shared", "rshared"]) => Propagation::Slave,
                    () => Propagation::Private,
                },
                id_mappings: mappings.filter(|_| is_id_mapped(mount)),
                map_recursively: has(&["ridmap"]),
            })
        }
        Some("proc") => MountKind::Proc { data },
        Some("sysfs") => MountKind::Sysfs,
        Some("tmpfs") => MountKind::Tmpfs(data),
        Some("devpts") => MountKind::Devpts(data),
        Some("mqueue") => MountKind::Mqueue,
        Some("cgroup" | "cgroup2") => MountKind::Cgroup,
        other => return Err(anyhow!("mount at {}: type {other:?}", mount.destination().display())),
    };
    Ok(Mount { destination: mount.destination().clone(), kind, flags, recursive_flags })
}

fn namespace(namespace: &oci::LinuxNamespace) -> Result<Namespace> {
    let kind = match namespace.typ() {
        LinuxNamespaceType::Mount => NamespaceKind::Mount,
        LinuxNamespaceType::Pid => NamespaceKind::Pid,
        LinuxNamespaceType::Ipc => NamespaceKind::Ipc,
        LinuxNamespaceType::Network => NamespaceKind::Network,
        LinuxNamespaceType::Uts => NamespaceKind::Uts,
        LinuxNamespaceType::User => NamespaceKind::User,
        LinuxNamespaceType::Cgroup => NamespaceKind::Cgroup,
        LinuxNamespaceType::Time => return Err(anyhow!("a time namespace")),
    };
    let join = |path: &Path| {
        let found = std::fs::metadata(path).with_context(|| format!("namespace {}", path.display()))?;
        let file = FileId { device: found.dev(), inode: found.ino() };
        anyhow::Ok(JoinedNamespace { path: path.to_owned(), file })
    };
    Ok(Namespace { kind, joins: namespace.path().as_deref().map(join).transpose()? })
}

fn hooks(spec: &oci::Spec) -> Hooks {
    let list = |hooks: &Option<Vec<oci::Hook>>| {
        let one = |hook: &oci::Hook| Hook {
            path: hook.path().clone(),
            args: hook.args().clone().unwrap_or_default(),
            env: hook.env().clone().unwrap_or_default(),
            timeout: hook.timeout(),
        };
        hooks.iter().flatten().map(one).collect::<Vec<_>>()
    };
    let Some(hooks) = spec.hooks() else { return Hooks::default() };
    let prestart = list(hooks.prestart());
    Hooks { prestart, create_runtime: list(hooks.create_runtime()), create_container: list(hooks.create_container()) }
}
