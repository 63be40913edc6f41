//! `-info`: what containerd learns about this runtime before any container exists.

use std::io::Write;

use anyhow::{Context, Result};
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{Message, MessageField};
use containerd_shim_protos::types::introspection::{RuntimeInfo, RuntimeVersion};
use hardened_sandbox::capability::CapabilitySet;

/// Prints a protobuf `RuntimeInfo`, with the OCI features that really work.
pub(crate) fn print() -> Result<()> {
    let features = Any {
        type_url: "types.containerd.io/opencontainers/runtime-spec/1/features/Features".to_owned(),
        value: serde_json::to_vec(&features()).context("encode the features")?,
        ..Any::default()
    };
    let info = RuntimeInfo {
        name: crate::RUNTIME.to_owned(),
        version: MessageField::some(RuntimeVersion {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..Default::default()
        }),
        features: MessageField::some(features),
        ..RuntimeInfo::default()
    };
    let bytes = info.write_to_bytes().context("encode the runtime info")?;
    std::io::stdout().write_all(&bytes).context("write the runtime info")
}

/// Options of mounts that are known to work. containerd offers Kubernetes' recursive read-only
/// mounts where `rro` is among them.
const MOUNT_OPTIONS: &[&str] = &[
    "bind", "idmap", "nodev", "noexec", "nosuid", "private", "rbind", "relatime", "ridmap", "ro", "rprivate", "rro",
    "rslave", "rw", "slave",
];

/// runtime-spec `features.md`.
fn features() -> serde_json::Value {
    let capabilities: Vec<String> =
        CapabilitySet::CONTAINERD_DEFAULT.names().map(|name| format!("CAP_{name}")).collect();
    serde_json::json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.2.0",
        "mountOptions": MOUNT_OPTIONS,
        "hooks": ["prestart", "createRuntime", "createContainer"],
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "user", "uts"],
            "capabilities": capabilities,
            "cgroup": {"v1": true, "v2": true, "systemd": true, "systemdUser": false},
            "seccomp": {"enabled": true},
            "apparmor": {"enabled": true},
            "selinux": {"enabled": true},
            "intelRdt": {"enabled": false},
            "mountExtensions": {"idmap": {"enabled": true}},
        },
    })
}
