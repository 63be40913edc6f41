//! A pod as the OCI specs that the kubelet and containerd's CRI make of it, as far as a sandbox is
//! decided by them: so the same code judges it here and on the node.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use hardened_sandbox::capability::CapabilitySet;
use k8s_openapi::api::core::v1::{
    Capabilities, Container, EphemeralContainer, PodSpec, SeccompProfile, SecurityContext, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use oci_spec::runtime::Spec;
use serde_json::{Value, json};

/// UID of a pod that does not exist yet.
const UID: &str = "00000000-0000-0000-0000-000000000000";
const SANDBOX_ID: &str = "offline";

/// How many ids a pod with `hostUsers: false` gets, and the first that the kubelet gives out.
const USERS: u32 = 65536;

/// What the kubelet gives for `procMount: Default`.
const MASKED: &[&str] = &["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"];
const READ_ONLY: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// A container of a pod, as its spec.
#[derive(Debug)]
pub(crate) struct Judged {
    /// Where the pod lists it: `containers`, `initContainers`, `ephemeralContainers`, or nothing for
    /// the sandbox.
    pub(crate) list: &'static str,
    pub(crate) name: String,
    pub(crate) spec: Spec,
    /// As the pod lists it; the sandbox is not listed.
    pub(crate) container: Option<Container>,
    /// Its user, where the pod names one.
    pub(crate) uid: Option<u32>,
    /// Sysctls that the pod sets.
    pub(crate) sysctls: Vec<String>,
    /// It asks for no filter of system calls, in its own securityContext or the pod's.
    pub(crate) unconfined: bool,
}

impl Judged {
    /// Whether it is the pod's own sandbox: nothing of the workload runs in it.
    pub(crate) const fn is_sandbox(&self) -> bool {
        self.list.is_empty()
    }

    /// What a person calls it.
    pub(crate) fn title(&self) -> String {
        title(self.list, &self.name)
    }

    /// A field of it, as seen from the manifest.
    pub(crate) fn field(&self, name: &str) -> String {
        format!("spec.{}[{}].{name}", self.list, self.name)
    }
}

/// What a person calls a container, by the list that it stands in.
pub(crate) fn title(list: &str, name: &str) -> String {
    if list.is_empty() { "sandbox (pause)".to_owned() } else { format!("{list}[{name}]") }
}

/// All containers of a pod, its sandbox first.
pub(crate) fn containers(namespace: &str, name: &str, metadata: &ObjectMeta, pod: &PodSpec) -> Result<Vec<Judged>> {
    let identity = identity(namespace, name, metadata);
    let mut all = vec![sandbox(&identity, pod)?];
    for container in pod.init_containers.iter().flatten() {
        all.push(judged(&identity, pod, "initContainers", container)?);
    }
    for container in &pod.containers {
        all.push(judged(&identity, pod, "containers", container)?);
    }
    for container in pod.ephemeral_containers.iter().flatten() {
        all.push(judged(&identity, pod, "ephemeralContainers", &of_ephemeral(container))?);
    }
    Ok(all)
}

/// The annotations that the CRI sets, and those of the pod that it passes on.
fn identity(namespace: &str, name: &str, metadata: &ObjectMeta) -> BTreeMap<String, String> {
    let ours = metadata.annotations.iter().flatten().filter(|(k, _)| k.starts_with("io.containerd.hardened.v1/"));
    let mut all: BTreeMap<String, String> = ours.map(|(k, v)| (k.clone(), v.clone())).collect();
    for (key, value) in
        [("sandbox-namespace", namespace), ("sandbox-name", name), ("sandbox-uid", UID), ("sandbox-id", SANDBOX_ID)]
    {
        all.insert(format!("io.kubernetes.cri.{key}"), value.to_owned());
    }
    all
}

fn of_ephemeral(container: &EphemeralContainer) -> Container {
    Container {
        name: container.name.clone(),
        image: container.image.clone(),
        command: container.command.clone(),
        args: container.args.clone(),
        security_context: container.security_context.clone(),
        volume_mounts: container.volume_mounts.clone(),
        ..Container::default()
    }
}

fn namespaces(pod: &PodSpec) -> Value {
    let host = [
        ("network", pod.host_network),
        ("uts", pod.host_network),
        ("pid", pod.host_pid),
        ("ipc", pod.host_ipc),
        ("mount", None),
        ("cgroup", None),
    ];
    let mut own: Vec<Value> =
        host.iter().filter(|(_, host)| *host != Some(true)).map(|(kind, _)| json!({"type": kind})).collect();
    if pod.host_users == Some(false) {
        own.push(json!({"type": "user"}));
    }
    own.into()
}

/// Ids of a pod with a user namespace.
fn users(pod: &PodSpec) -> Value {
    if pod.host_users == Some(false) { json!([{"containerID": 0, "hostID": USERS, "size": USERS}]) } else { json!([]) }
}

fn sandbox(identity: &BTreeMap<String, String>, pod: &PodSpec) -> Result<Judged> {
    let mut annotations = identity.clone();
    annotations.insert("io.kubernetes.cri.container-type".to_owned(), "sandbox".to_owned());
    let context = pod.security_context.as_ref();
    let sysctls: BTreeMap<&str, &str> = context
        .iter()
        .flat_map(|c| c.sysctls.iter().flatten())
        .map(|sysctl| (sysctl.name.as_str(), sysctl.value.as_str()))
        .collect();
    let spec = json!({
        "ociVersion": "1.2.0",
        "annotations": annotations,
        "process": {"cwd": "/", "args": ["/pause"], "user": {"uid": 65535, "gid": 65535}, "noNewPrivileges": true},
        "root": {"path": "rootfs", "readonly": true},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
        ],
        "linux": {
            "namespaces": namespaces(pod),
            "uidMappings": users(pod),
            "gidMappings": users(pod),
            "sysctl": sysctls,
            "maskedPaths": MASKED,
            "readonlyPaths": READ_ONLY,
        },
    });
    let spec = serde_json::from_value(spec).context("the sandbox's spec")?;
    let (container, uid, sysctls, unconfined) = (None, None, Vec::new(), false);
    Ok(Judged { list: "", name: String::new(), spec, container, uid, sysctls, unconfined })
}

fn judged(
    identity: &BTreeMap<String, String>,
    pod: &PodSpec,
    list: &'static str,
    container: &Container,
) -> Result<Judged> {
    let mut annotations = identity.clone();
    annotations.insert("io.kubernetes.cri.container-type".to_owned(), "container".to_owned());
    annotations.insert("io.kubernetes.cri.container-name".to_owned(), container.name.clone());
    annotations.insert("io.kubernetes.cri.image-name".to_owned(), container.image.clone().unwrap_or_default());
    let context = container.security_context.clone().unwrap_or_default();
    let privileged = context.privileged == Some(true);
    let unmasked = privileged || context.proc_mount.as_deref() == Some("Unmasked");
    let capabilities = capabilities(context.capabilities.as_ref(), privileged);
    let set: Vec<String> = capabilities.names().map(|n| format!("CAP_{n}")).collect();
    let (uid, gid) = user(pod, &context);
    let groups: Vec<i64> = pod
        .security_context
        .iter()
        .flat_map(|c| c.supplemental_groups.iter().flatten().copied().chain(c.fs_group))
        .collect();
    let command: Vec<&String> = container.command.iter().flatten().chain(container.args.iter().flatten()).collect();
    let arguments = if command.is_empty() { json!(["the image's own"]) } else { json!(command) };
    let devices = if privileged { json!([{"allow": true, "access": "rwm"}]) } else { json!([]) };
    let spec = json!({
        "ociVersion": "1.2.0",
        "annotations": annotations,
        "process": {
            "cwd": container.working_dir.clone().unwrap_or_else(|| "/".to_owned()),
            "args": arguments,
            "user": {"uid": uid, "gid": gid, "additionalGids": groups},
            "capabilities": {"bounding": set, "effective": set, "permitted": set},
            "noNewPrivileges": context.allow_privilege_escalation == Some(false),
            "apparmorProfile": apparmor(pod, &context),
            "selinuxLabel": selinux(pod, &context),
        },
        "root": {"path": "rootfs", "readonly": context.read_only_root_filesystem.unwrap_or_default()},
        "mounts": mounts(pod, container, privileged),
        "linux": {
            "namespaces": namespaces(pod),
            "uidMappings": users(pod),
            "gidMappings": users(pod),
            "resources": {"devices": devices},
            "maskedPaths": if unmasked { &[] } else { MASKED },
            "readonlyPaths": if unmasked { &[] } else { READ_ONLY },
        },
    });
    let spec = serde_json::from_value(spec).with_context(|| format!("{list}[{}]", container.name))?;
    let of_pod = pod.security_context.as_ref();
    let named = context.run_as_user.or(of_pod.and_then(|c| c.run_as_user));
    let sysctls = of_pod.and_then(|c| c.sysctls.as_ref());
    Ok(Judged {
        list,
        name: container.name.clone(),
        spec,
        container: Some(container.clone()),
        uid: named.and_then(|uid| u32::try_from(uid).ok()),
        sysctls: sysctls.into_iter().flatten().map(|sysctl| sysctl.name.clone()).collect(),
        unconfined: seccomp(pod, &context).is_some_and(|profile| profile.type_ == "Unconfined"),
    })
}

fn capabilities(asked: Option<&Capabilities>, privileged: bool) -> CapabilitySet {
    if privileged {
        return CapabilitySet::ALL;
    }
    let of = |names: Option<&Vec<String>>| {
        names.into_iter().flatten().fold(CapabilitySet::EMPTY, |set, name| match name.as_str() {
            "ALL" => CapabilitySet::ALL,
            // containerd passes over names that it does not know.
            name => set.union(name.parse().unwrap_or_default()),
        })
    };
    let (add, drop) = (asked.and_then(|c| c.add.as_ref()), asked.and_then(|c| c.drop.as_ref()));
    // Dropped first, then added: `drop: [ALL]` with `add` leaves what is added.
    CapabilitySet::CONTAINERD_DEFAULT.without(of(drop)).union(of(add))
}

/// User and group; root where nobody says, since the image's own user is not known here.
fn user(pod: &PodSpec, context: &SecurityContext) -> (i64, i64) {
    let of_pod = pod.security_context.as_ref();
    let non_root = context.run_as_non_root.or(of_pod.and_then(|c| c.run_as_non_root)) == Some(true);
    let nobody = if non_root { 65534 } else { 0 };
    let uid = context.run_as_user.or(of_pod.and_then(|c| c.run_as_user)).unwrap_or(nobody);
    let gid = context.run_as_group.or(of_pod.and_then(|c| c.run_as_group)).unwrap_or(0);
    (uid, gid)
}

fn apparmor(pod: &PodSpec, context: &SecurityContext) -> Option<String> {
    let of_pod = pod.security_context.as_ref().and_then(|c| c.app_armor_profile.as_ref());
    let profile = context.app_armor_profile.as_ref().or(of_pod)?;
    match profile.type_.as_str() {
        "Unconfined" => Some("unconfined".to_owned()),
        "Localhost" => profile.localhost_profile.clone(),
        // containerd's own profile, on a node that runs AppArmor.
        _ => None,
    }
}

fn selinux(pod: &PodSpec, context: &SecurityContext) -> Option<String> {
    let of_pod = pod.security_context.as_ref().and_then(|c| c.se_linux_options.as_ref());
    let options = context.se_linux_options.as_ref().or(of_pod)?;
    let or = |value: &Option<String>, default: &str| value.clone().unwrap_or_else(|| default.to_owned());
    Some(format!(
        "{}:{}:{}:{}",
        or(&options.user, "system_u"),
        or(&options.role, "system_r"),
        or(&options.type_, "container_t"),
        or(&options.level, "s0")
    ))
}

fn seccomp<'a>(pod: &'a PodSpec, context: &'a SecurityContext) -> Option<&'a SeccompProfile> {
    context.seccomp_profile.as_ref().or_else(|| pod.security_context.as_ref()?.seccomp_profile.as_ref())
}

fn mounts(pod: &PodSpec, container: &Container, privileged: bool) -> Vec<Value> {
    let sys = if privileged { json!([]) } else { json!(["ro"]) };
    let mut all = vec![
        json!({"destination": "/proc", "type": "proc", "source": "proc"}),
        json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]}),
        json!({"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": sys}),
    ];
    for mount in container.volume_mounts.iter().flatten() {
        let volume = pod.volumes.iter().flatten().find(|volume| volume.name == mount.name);
        all.push(volume_mount(mount, volume));
    }
    all
}

fn volume_mount(mount: &VolumeMount, volume: Option<&Volume>) -> Value {
    let kept = || PathBuf::from(format!("/var/lib/kubelet/pods/{UID}/volumes/{}", folder_of(mount, volume)));
    let source = match volume.and_then(|v| v.host_path.as_ref()) {
        // A part of a hostPath is mounted from where the kubelet keeps it for the pod, but it is the
        // host's all the same.
        Some(host) => match &mount.sub_path {
            Some(part) => Path::new(&host.path).join(part).components().collect(),
            None => PathBuf::from(&host.path),
        },
        None => kept(),
    };
    let mut options = vec!["rbind", if mount.read_only == Some(true) { "ro" } else { "rw" }];
    options.push(match mount.mount_propagation.as_deref() {
        Some("Bidirectional") => "rshared",
        Some("HostToContainer") => "rslave",
        Some(_) | None => "rprivate",
    });
    json!({"destination": mount.mount_path, "type": "bind", "source": source, "options": options})
}

/// Where the kubelet keeps a volume, below the pod's folder.
fn folder_of(mount: &VolumeMount, volume: Option<&Volume>) -> String {
    let name = &mount.name;
    let is = |given: fn(&Volume) -> bool| volume.is_some_and(given);
    let plugin = match () {
        () if is(|v| v.empty_dir.is_some()) => "empty-dir",
        () if is(|v| v.config_map.is_some()) => "configmap",
        () if is(|v| v.secret.is_some()) => "secret",
        () if is(|v| v.projected.is_some()) => "projected",
        () if is(|v| v.downward_api.is_some()) => "downward-api",
        () => return format!("kubernetes.io~csi/{name}/mount"),
    };
    format!("kubernetes.io~{plugin}/{name}")
}
