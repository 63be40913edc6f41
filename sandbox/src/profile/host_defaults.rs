//! What of the host `baseline` and `restricted` give to a pod: next to nothing.

use crate::pattern::Patterns;
use crate::sandbox::{Access, HostPaths};

/// Where the local path provisioner, by itself and in k3s, and minikube's keep the PersistentVolumes
/// that they make: each in a folder of its own, named by an id that nobody can guess. The folders that
/// hold them all are nobody's.
///
/// All other paths are refused, as in Kubernetes' Pod Security Standards, level baseline.
const VOLUMES: &[&str] = &["/opt/local-path-provisioner", "/tmp/hostpath-provisioner", "/var/lib/rancher/k3s/storage"];

/// Sysctls that a pod may set: those that Kubernetes calls safe, all namespaced.
const SAFE_SYSCTLS: &[&str] = &[
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

pub(super) fn paths() -> HostPaths {
    let mut paths = HostPaths::none();
    for folder in VOLUMES {
        paths.set_below(folder.into(), Some(Access::ReadWrite));
    }
    paths
}

pub(super) fn sysctls() -> Patterns {
    Patterns::Any(SAFE_SYSCTLS.iter().map(|name| (*name).to_owned()).collect())
}
