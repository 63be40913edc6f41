//! Pods as the kubelet hands them to the CRI: what it makes of a manifest, as far as it matters
//! for a sandbox.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use k8s_cri::v1 as cri;
use serde_json::Value;

use crate::cri::{Cri, container_config, new_users, runtime_default, security};
use crate::mount;

/// The sandbox's and the containers' configurations of a pod; init containers come first.
///
/// # Errors
/// A folder cannot be made, or the manifest is none.
pub fn configurations(
    c: &Cri,
    pod: &Value,
) -> Result<(cri::PodSandboxConfig, Vec<cri::ContainerConfig>, Vec<Subpath>)> {
    let mut subpaths = Vec::new();
    let name = pod["metadata"]["name"].as_str().context("a pod without a name")?;
    let spec = &pod["spec"];
    let mut sandbox = c.pod_config(name);
    let metadata = sandbox.metadata.get_or_insert_default();
    metadata.namespace = pod["metadata"]["namespace"].as_str().unwrap_or("default").to_owned();
    let uid = metadata.uid.clone();
    for (key, value) in pod["metadata"]["annotations"].as_object().into_iter().flatten() {
        sandbox.annotations.insert(key.clone(), value.as_str().unwrap_or_default().to_owned());
    }
    let namespaces = namespaces(spec);
    if is(&spec["hostNetwork"]) {
        sandbox.hostname.clear();
    }
    let linux = sandbox.linux.get_or_insert_default();
    for sysctl in spec["securityContext"]["sysctls"].as_array().into_iter().flatten() {
        let text = |key: &str| sysctl[key].as_str().unwrap_or_default().to_owned();
        linux.sysctls.insert(text("name"), text("value"));
    }
    let containers =
        || ["initContainers", "containers"].into_iter().flat_map(|l| spec[l].as_array().into_iter().flatten());
    let context = linux.security_context.get_or_insert_default();
    context.namespace_options = Some(namespaces.clone());
    context.privileged = containers().any(|container| is(&container["securityContext"]["privileged"]));
    let made: Result<Vec<_>> =
        containers().map(|container| of_container(c, &uid, spec, container, &namespaces, &mut subpaths)).collect();
    Ok((sandbox, made?, subpaths))
}

/// What the kubelet mounts for a `subPath`, until it is dropped. Files of the host read-only: whatever
/// goes wrong with a test, nobody removes them through it.
#[derive(Debug)]
pub struct Subpath(PathBuf);

impl Subpath {
    /// Mounts a part of a volume.
    ///
    /// # Errors
    /// It cannot be mounted.
    pub fn mount(part: &Path, at: PathBuf) -> Result<Self> {
        if part.is_dir() {
            fs::create_dir_all(&at)?;
        } else {
            fs::create_dir_all(at.parent().context("a place")?)?;
            fs::write(&at, "")?;
        }
        let show = at.display().to_string();
        mount(&["--bind", &part.display().to_string(), &show])?;
        let mounted = Self(at);
        if !mounted.0.ancestors().any(|above| above.ends_with("kubelet") && part.starts_with(above)) {
            mount(&["-o", "remount,bind,ro", &show])?;
        }
        Ok(mounted)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Subpath {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

fn is(value: &Value) -> bool {
    value.as_bool() == Some(true)
}

fn namespaces(spec: &Value) -> cri::NamespaceOption {
    let node = i32::from(cri::NamespaceMode::Node);
    let pod = i32::from(cri::NamespaceMode::Pod);
    let pid = if is(&spec["shareProcessNamespace"]) { pod } else { cri::NamespaceMode::Container.into() };
    let users = (spec["hostUsers"].as_bool() == Some(false)).then(new_users);
    cri::NamespaceOption {
        userns_options: users,
        network: if is(&spec["hostNetwork"]) { node } else { pod },
        pid: if is(&spec["hostPID"]) { node } else { pid },
        ipc: if is(&spec["hostIPC"]) { node } else { pod },
        ..cri::NamespaceOption::default()
    }
}

fn of_container(
    c: &Cri,
    uid: &str,
    spec: &Value,
    container: &Value,
    namespaces: &cri::NamespaceOption,
    subpaths: &mut Vec<Subpath>,
) -> Result<cri::ContainerConfig> {
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
    };
    let mut config = container_config(container["name"].as_str().unwrap_or_default(), &[]);
    config.command = texts(&container["command"]);
    config.args = texts(&container["args"]);
    config.working_dir = container["workingDir"].as_str().unwrap_or_default().to_owned();
    for mount in container["volumeMounts"].as_array().into_iter().flatten() {
        config.mounts.push(of_mount(c, uid, spec, container["name"].as_str().unwrap_or_default(), mount, subpaths)?);
    }
    let (own, pod) = (&container["securityContext"], &spec["securityContext"]);
    let either = |key: &str| if own[key].is_null() { &pod[key] } else { &own[key] };
    let context = security(&mut config);
    context.namespace_options = Some(namespaces.clone());
    context.privileged = is(&own["privileged"]);
    if context.privileged || own["procMount"] == "Unmasked" {
        context.masked_paths.clear();
        context.readonly_paths.clear();
    }
    context.seccomp = match either("seccompProfile")["type"].as_str() {
        Some("RuntimeDefault") => Some(runtime_default()),
        _ => Some(cri::SecurityProfile {
            profile_type: cri::security_profile::ProfileType::Unconfined.into(),
            localhost_ref: String::new(),
        }),
    };
    context.no_new_privs = own["allowPrivilegeEscalation"] == false;
    context.readonly_rootfs = is(&own["readOnlyRootFilesystem"]);
    context.capabilities = Some(cri::Capability {
        add_capabilities: texts(&own["capabilities"]["add"]),
        drop_capabilities: texts(&own["capabilities"]["drop"]),
        ..cri::Capability::default()
    });
    let number = |key: &str| either(key).as_i64().map(|value| cri::Int64Value { value });
    context.run_as_user = number("runAsUser");
    context.run_as_group = number("runAsGroup");
    let groups = pod["supplementalGroups"].as_array().into_iter().flatten().filter_map(Value::as_i64);
    context.supplemental_groups = groups.chain(pod["fsGroup"].as_i64()).collect();
    Ok(config)
}

fn of_mount(
    c: &Cri,
    uid: &str,
    spec: &Value,
    container: &str,
    mount: &Value,
    subpaths: &mut Vec<Subpath>,
) -> Result<cri::Mount> {
    let name = &mount["name"];
    let volume = spec["volumes"].as_array().into_iter().flatten().find(|v| v["name"] == *name).context("no volume")?;
    let pod = c.containerd().home().join("kubelet/pods").join(uid);
    let mut host_path = match volume["hostPath"]["path"].as_str() {
        Some(path) => path.to_owned(),
        None => {
            let folder = pod.join("volumes/kubernetes.io~empty-dir").join(name.as_str().unwrap_or_default());
            fs::create_dir_all(&folder)?;
            folder.display().to_string()
        }
    };
    fs::create_dir_all(Path::new(&host_path))?;
    if let Some(part) = mount["subPath"].as_str() {
        let at = pod
            .join("volume-subpaths")
            .join(name.as_str().unwrap_or_default())
            .join(container)
            .join(subpaths.len().to_string());
        let subpath = Subpath::mount(&Path::new(&host_path).join(part), at)?;
        host_path = subpath.path().display().to_string();
        subpaths.push(subpath);
    }
    Ok(cri::Mount {
        container_path: mount["mountPath"].as_str().unwrap_or_default().to_owned(),
        host_path,
        readonly: is(&mount["readOnly"]),
        propagation: match mount["mountPropagation"].as_str() {
            Some("Bidirectional") => cri::MountPropagation::PropagationBidirectional.into(),
            Some("HostToContainer") => cri::MountPropagation::PropagationHostToContainer.into(),
            _ => cri::MountPropagation::PropagationPrivate.into(),
        },
        ..cri::Mount::default()
    })
}
