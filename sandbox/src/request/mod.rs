//! The OCI spec of a container, parsed: what the pod asks for, in types.
//!
//! `config.json` is read here, once. From here on there is no JSON: what was not understood is refused
//! by name, or was dropped with a note, as the table in [`fields`] says.

mod fields;
mod mount;
mod process;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{
    Hook as OciHook, Linux, LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType, LinuxIdMapping, LinuxNamespaceType,
    LinuxSeccomp, Spec,
};

pub(crate) use self::mount::{Mapped, MountRequest, RequestedKind};
pub use self::process::ProcessRequest;
use crate::bundle::{CgroupPath, DeviceNode, DeviceRule, Hook, Hooks, IdMapping, IdMappings, NamespaceKind, Resources};
use crate::identity::Identity;
use crate::path;
use crate::refusal::{Note, Refusal, Violation};

/// Who refuses what cannot be parsed, in the words of a message.
const PARSER: &str = "the runtime";

/// Every annotation of ours starts with this; one that we do not know is refused.
pub(crate) const ANNOTATION_PREFIX: &str = "io.containerd.hardened.v1/";

/// What a container asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    pub(crate) identity: Identity,
    /// Annotations of this product.
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) root: PathBuf,
    pub(crate) root_read_only: bool,
    pub(crate) process: ProcessRequest,
    pub(crate) hostname: Option<String>,
    pub(crate) domainname: Option<String>,
    pub(crate) mounts: Vec<MountRequest>,
    /// Namespaces that are made, or joined by a path.
    pub(crate) namespaces: BTreeMap<NamespaceKind, Option<PathBuf>>,
    pub(crate) id_mappings: Option<IdMappings>,
    pub(crate) devices: Vec<DeviceNode>,
    pub(crate) device_rules: Vec<DeviceRule>,
    pub(crate) sysctls: BTreeMap<String, String>,
    pub(crate) masked_paths: Vec<String>,
    pub(crate) read_only_paths: Vec<String>,
    pub(crate) cgroup: Option<CgroupPath>,
    pub(crate) resources: Resources,
    pub(crate) seccomp: Option<LinuxSeccomp>,
    /// SELinux label of the container's files.
    pub(crate) mount_label: Option<String>,
    /// Whether mounts in the container's root would reach the host.
    pub(crate) shares_root_mounts: bool,
    pub(crate) hooks: Hooks,
    /// What was dropped.
    pub(crate) notes: Vec<Note>,
}

impl Request {
    /// Parses `config.json`.
    ///
    /// # Errors
    /// It is no OCI spec, or asks for something that nobody gets: every reason at once.
    pub fn from_json(text: &[u8]) -> Result<Self, Refusal> {
        let (spec, unknown) = read_json(text).map_err(|error| {
            let problem = format!("is not an OCI spec: {error}");
            refusal(&Identity::default(), vec![Violation::invalid("config.json", problem, "give it one")])
        })?;
        let mut request = Self::parse(&spec)?;
        request.notes.extend(unknown);
        Ok(request)
    }

    /// Parses a spec.
    ///
    /// # Errors
    /// It asks for something that nobody gets: every reason at once.
    pub fn parse(spec: &Spec) -> Result<Self, Refusal> {
        let identity = Identity::from_annotations(spec.annotations().as_ref());
        let mut errors = Vec::new();
        fields::refuse(spec, &mut errors);
        let labels = [
            ("process.selinuxLabel", spec.process().as_ref().and_then(|p| p.selinux_label().as_deref())),
            ("linux.mountLabel", spec.linux().as_ref().and_then(|l| l.mount_label().as_deref())),
        ];
        for (field, label) in labels {
            if label.is_some_and(|label| !is_label(label)) {
                errors.push(Violation::invalid(field, "is not a label", "give user:role:type:level"));
            }
        }
        let no_linux = Linux::default();
        let linux = spec.linux().as_ref().unwrap_or_else(|| {
            errors.push(Violation::invalid("linux", "missing", "give the container a linux section"));
            &no_linux
        });
        let process = match spec.process() {
            Some(process) => ProcessRequest::parse(process, &mut errors),
            None => {
                errors.push(Violation::invalid("process", "missing", "give the container a process"));
                ProcessRequest::default()
            }
        };
        let ours = spec.annotations().iter().flatten().filter(|(key, _)| key.starts_with(ANNOTATION_PREFIX));
        let request = Self {
            annotations: ours.map(|(key, value)| (key.clone(), value.clone())).collect(),
            identity: identity.clone(),
            root: root(spec, &mut errors),
            root_read_only: spec.root().as_ref().and_then(oci_spec::runtime::Root::readonly).unwrap_or(false),
            process,
            hostname: name("hostname", spec.hostname(), &mut errors),
            domainname: name("domainname", spec.domainname(), &mut errors),
            mounts: mount::parse_all(spec.mounts().as_deref().unwrap_or_default(), &mut errors),
            namespaces: namespaces(linux, &mut errors),
            id_mappings: id_mappings(linux, &mut errors),
            devices: devices(linux.devices().as_deref().unwrap_or_default(), &mut errors),
            device_rules: device_rules(linux, &mut errors),
            sysctls: sysctls(linux, &mut errors),
            masked_paths: masks("linux.maskedPaths", linux.masked_paths(), &mut errors),
            read_only_paths: masks("linux.readonlyPaths", linux.readonly_paths(), &mut errors),
            cgroup: cgroup(linux, &mut errors),
            resources: resources(linux, &mut errors),
            seccomp: linux.seccomp().clone(),
            mount_label: linux.mount_label().clone().filter(|label| !label.is_empty()),
            shares_root_mounts: propagation(linux, &mut errors),
            hooks: hooks(spec, &mut errors),
            notes: fields::dropped(spec),
        };
        if errors.is_empty() { Ok(request) } else { Err(refusal(&identity, errors)) }
    }

    /// Who the container is.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The entrypoint.
    #[must_use]
    pub const fn process(&self) -> &ProcessRequest {
        &self.process
    }

    /// The sources of its bind mounts, as the spec spells them, and whether mounts below come along.
    pub fn sources(&self) -> impl Iterator<Item = (&Path, bool)> {
        self.mounts.iter().filter_map(|mount| match &mount.kind {
            RequestedKind::Bind { source, recursive, .. } => Some((source.as_path(), *recursive)),
            RequestedKind::FileSystem { .. } => None,
        })
    }

    /// The namespaces that it joins.
    pub fn joined(&self) -> impl Iterator<Item = (NamespaceKind, &Path)> {
        self.namespaces.iter().filter_map(|(kind, path)| Some((*kind, path.as_deref()?)))
    }

    /// Its devices.
    #[must_use]
    pub fn devices(&self) -> &[DeviceNode] {
        &self.devices
    }

    /// The SELinux labels that it asks for.
    pub fn selinux_labels(&self) -> impl Iterator<Item = &str> {
        self.process.selinux.as_deref().into_iter().chain(self.mount_label.as_deref())
    }
}

/// Reads an object of the OCI spec, with a note on each field that nobody knows.
fn read_json<T: serde::de::DeserializeOwned>(text: &[u8]) -> serde_json::Result<(T, Vec<Note>)> {
    let mut notes = Vec::new();
    let mut json = serde_json::Deserializer::from_slice(text);
    let unknown = "dropped: not a field of the OCI spec that this runtime knows";
    let object = serde_ignored::deserialize(&mut json, |path| notes.push(Note::new(path.to_string(), unknown)))?;
    json.end()?;
    Ok((object, notes))
}

fn refusal(identity: &Identity, violations: Vec<Violation>) -> Refusal {
    Refusal { by: PARSER.to_owned(), identity: Box::new(identity.clone()), violations, implied: Vec::new() }
}

/// Whether a text may be an SELinux label: it becomes an option of mounts.
fn is_label(text: &str) -> bool {
    text.len() < 256 && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b':' | b',' | b'-'))
}

fn root(spec: &Spec, errors: &mut Vec<Violation>) -> PathBuf {
    let Some(root) = spec.root() else {
        errors.push(Violation::invalid("root", "missing", "give the path of the root file system"));
        return PathBuf::new();
    };
    let path = root.path();
    // Relative to the bundle: OCI runtime spec, "Root".
    let below = path::absolute(&Path::new("/").join(path));
    match below {
        Some(absolute) if path.is_absolute() => absolute,
        Some(below) if !path.as_os_str().is_empty() => below.strip_prefix("/").unwrap_or(path).to_owned(),
        Some(_) | None => {
            let problem = format!("{:?} is not a path without ..", path.display().to_string());
            errors.push(Violation::invalid("root.path", problem, "give the path of the root file system"));
            PathBuf::new()
        }
    }
}

/// A host or domain name: the kernel takes 64 bytes (sethostname(2)).
fn name(field: &str, name: &Option<String>, errors: &mut Vec<Violation>) -> Option<String> {
    let name = name.clone().filter(|name| !name.is_empty())?;
    if name.len() > 64 || name.contains(|c: char| c.is_control()) {
        errors.push(Violation::invalid(field, format!("{name:?} is not a name of at most 64 bytes"), "use another"));
        return None;
    }
    Some(name)
}

fn namespaces(linux: &Linux, errors: &mut Vec<Violation>) -> BTreeMap<NamespaceKind, Option<PathBuf>> {
    let mut namespaces = BTreeMap::new();
    for namespace in linux.namespaces().iter().flatten() {
        let kind = match namespace.typ() {
            LinuxNamespaceType::Mount => NamespaceKind::Mount,
            LinuxNamespaceType::Cgroup => NamespaceKind::Cgroup,
            LinuxNamespaceType::Uts => NamespaceKind::Uts,
            LinuxNamespaceType::Ipc => NamespaceKind::Ipc,
            LinuxNamespaceType::User => NamespaceKind::User,
            LinuxNamespaceType::Pid => NamespaceKind::Pid,
            LinuxNamespaceType::Network => NamespaceKind::Network,
            LinuxNamespaceType::Time => {
                errors.push(Violation::invalid(
                    "linux.namespaces",
                    "time namespaces are not supported",
                    "leave it out",
                ));
                continue;
            }
        };
        let field = format!("linux.namespaces[{}]", namespace.typ());
        let given = namespace.path().as_deref().filter(|path| !path.as_os_str().is_empty());
        let path = given.and_then(path::absolute);
        if given.is_some() && path.is_none() {
            errors.push(Violation::invalid(&field, "its path is not absolute, or has .. in it", "give another path"));
        }
        if namespaces.insert(kind, path).is_some() {
            errors.push(Violation::invalid(&field, "is given twice", "give it once"));
        }
    }
    if let Some(Some(_)) = namespaces.get(&NamespaceKind::Mount) {
        let advice = "leave its path out: each container has a private mount namespace";
        errors.push(Violation::policy("linux.namespaces[mount]", "another process's mounts would be joined", advice));
    }
    namespaces
}

/// Ids of a range list; what makes sense of them is judged with the user namespace.
pub(crate) fn ranges(mappings: Option<&Vec<LinuxIdMapping>>) -> Vec<IdMapping> {
    let one = |m: &LinuxIdMapping| IdMapping { container: m.container_id(), host: m.host_id(), size: m.size() };
    mappings.into_iter().flatten().map(one).collect()
}

fn id_mappings(linux: &Linux, errors: &mut Vec<Violation>) -> Option<IdMappings> {
    let mappings =
        IdMappings { uids: ranges(linux.uid_mappings().as_ref()), gids: ranges(linux.gid_mappings().as_ref()) };
    let has_namespace = linux.namespaces().iter().flatten().any(|n| n.typ() == LinuxNamespaceType::User);
    if mappings.uids.is_empty() && mappings.gids.is_empty() && !has_namespace {
        return None;
    }
    for (field, ranges) in [("linux.uidMappings", &mappings.uids), ("linux.gidMappings", &mappings.gids)] {
        mount::check_ranges(field, ranges, errors);
    }
    Some(mappings)
}

fn devices(devices: &[LinuxDevice], errors: &mut Vec<Violation>) -> Vec<DeviceNode> {
    let mut nodes = Vec::new();
    for device in devices {
        let field = format!("linux.devices[{}]", device.path().display());
        let block = match device.typ() {
            LinuxDeviceType::B => true,
            LinuxDeviceType::C | LinuxDeviceType::U => false,
            LinuxDeviceType::P | LinuxDeviceType::A => {
                errors.push(Violation::invalid(field, "is not a block or character device", "leave it out"));
                continue;
            }
        };
        // libcontainer makes the node by this path: in /dev, where a tmpfs is, and nowhere else.
        let path = path::absolute(device.path()).filter(|path| path.starts_with("/dev") && path != Path::new("/dev"));
        let Some(path) = path else {
            errors.push(Violation::invalid(field, "is not a path below /dev without ..", "give it one below /dev"));
            continue;
        };
        let numbers = 0..=i64::from(u32::MAX);
        if !numbers.contains(&device.major()) || !numbers.contains(&device.minor()) {
            errors.push(Violation::invalid(field, "has a number below 0 or above 32 bits", "give its real numbers"));
            continue;
        }
        nodes.push(DeviceNode {
            path,
            block,
            major: device.major(),
            minor: device.minor(),
            mode: device.file_mode().map(|mode| mode & 0o777),
            uid: device.uid(),
            gid: device.gid(),
        });
    }
    nodes
}

fn device_rules(linux: &Linux, errors: &mut Vec<Violation>) -> Vec<DeviceRule> {
    let rules = linux.resources().as_ref().and_then(|r| r.devices().as_ref()).into_iter().flatten();
    let mut parsed = Vec::new();
    for rule in rules {
        match device_rule(rule) {
            Some(rule) => parsed.push(rule),
            None => errors.push(Violation::invalid(
                "linux.resources.devices",
                format!("access {:?} of type {:?} makes no sense", rule.access(), rule.typ()),
                "give some of r, w and m, for a, b or c",
            )),
        }
    }
    parsed
}

fn device_rule(rule: &LinuxDeviceCgroup) -> Option<DeviceRule> {
    let block = match rule.typ() {
        None | Some(LinuxDeviceType::A) => None,
        Some(LinuxDeviceType::B) => Some(true),
        Some(LinuxDeviceType::C | LinuxDeviceType::U) => Some(false),
        Some(LinuxDeviceType::P) => return None,
    };
    // Absent or empty for all, as runc has it.
    let access = rule.access().clone().filter(|access| !access.is_empty()).unwrap_or_else(|| "rwm".to_owned());
    // -1 stands for all, like an absent number.
    let number = |number: Option<i64>| number.filter(|n| *n >= 0);
    access.chars().all(|c| "rwm".contains(c)).then(|| DeviceRule {
        allow: rule.allow(),
        block,
        major: number(rule.major()),
        minor: number(rule.minor()),
        access,
    })
}

/// Sysctls, by names that become paths below `/proc/sys`: `net.ipv4.ip_forward`.
fn sysctls(linux: &Linux, errors: &mut Vec<Violation>) -> BTreeMap<String, String> {
    let is_name = |key: &str| {
        key.split('.')
            .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-')))
    };
    let mut sysctls = BTreeMap::new();
    for (key, value) in linux.sysctl().iter().flatten() {
        if !is_name(key) || value.contains(['\0', '\n']) {
            let problem = "is not a sysctl: expected a name such as net.ipv4.ip_local_port_range, and one line";
            errors.push(Violation::invalid(format!("linux.sysctl[{key}]"), problem, "give its name with dots"));
        }
        sysctls.insert(key.clone(), value.clone());
    }
    sysctls
}

/// Paths of procfs and sysfs to mask: others are left to the sandbox's own profile.
fn masks(field: &str, paths: &Option<Vec<String>>, errors: &mut Vec<Violation>) -> Vec<String> {
    let mut masks: Vec<String> = Vec::new();
    let mut seen = BTreeSet::new();
    for text in paths.iter().flatten() {
        match path::absolute(Path::new(text)) {
            Some(path) if path != Path::new("/") => {
                if seen.insert(path.clone()) {
                    masks.push(path.display().to_string());
                }
            }
            Some(_) | None => errors.push(Violation::invalid(
                field,
                format!("{text:?} is not an absolute path without .."),
                "give paths of /proc and /sys",
            )),
        }
    }
    masks
}

fn cgroup(linux: &Linux, errors: &mut Vec<Violation>) -> Option<CgroupPath> {
    let path = linux.cgroups_path().as_ref().filter(|path| !path.as_os_str().is_empty())?;
    let parsed = path.to_str().ok_or_else(|| "is not UTF-8".to_owned()).and_then(CgroupPath::parse);
    parsed.map_err(|problem| errors.push(Violation::invalid("linux.cgroupsPath", problem, "give another path"))).ok()
}

fn resources(linux: &Linux, errors: &mut Vec<Violation>) -> Resources {
    let Some(asked) = linux.resources() else { return Resources::default() };
    Resources::parse(asked).unwrap_or_else(|problems| {
        for (field, problem) in problems {
            let advice = "take it out; limits of the container's own cgroup can be set";
            errors.push(Violation::policy(format!("linux.resources.{field}"), problem, advice));
        }
        Resources::default()
    })
}

/// Whether mounts in the container would reach the host; each other kind is what the launcher does
/// anyway.
fn propagation(linux: &Linux, errors: &mut Vec<Violation>) -> bool {
    match linux.rootfs_propagation().as_deref() {
        Some("shared" | "rshared") => true,
        None | Some("" | "private" | "rprivate" | "slave" | "rslave" | "unbindable" | "runbindable") => false,
        Some(other) => {
            let problem = format!("{other:?} is not a propagation");
            errors.push(Violation::invalid("linux.rootfsPropagation", problem, "use private or rslave"));
            false
        }
    }
}

fn hooks(spec: &Spec, errors: &mut Vec<Violation>) -> Hooks {
    let Some(hooks) = spec.hooks() else { return Hooks::default() };
    let mut list = |field: &str, hooks: &Option<Vec<OciHook>>| -> Vec<Hook> {
        let hooks = hooks.iter().flatten();
        let parsed = hooks.filter_map(|hook| {
            let path = path::absolute(hook.path());
            if path.is_none() {
                let problem = format!("{} is not an absolute path without ..", hook.path().display());
                errors.push(Violation::invalid(format!("hooks.{field}"), problem, "give the program's path"));
            }
            Some(Hook {
                path: path?,
                args: hook.args().clone().unwrap_or_default(),
                env: hook.env().clone().unwrap_or_default(),
                timeout: hook.timeout(),
            })
        });
        parsed.collect()
    };
    let prestart = list("prestart", hooks.prestart());
    Hooks {
        prestart,
        create_runtime: list("createRuntime", hooks.create_runtime()),
        create_container: list("createContainer", hooks.create_container()),
    }
}
