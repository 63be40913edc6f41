//! What of the host `baseline` and `restricted` keep from a pod.

use crate::policy::Patterns;
use crate::sandbox::{Access, HostPaths};

/// Folders and sockets whose holder owns the node: its programs and configuration, its kernel's
/// interfaces, and whatever starts containers or keeps their secrets. With all below, and with
/// what lies above them (`/`, `/var`, `/run`).
const DENIED: &[&str] = &[
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/lib",
    "/lib64",
    "/proc",
    "/root",
    "/run/containerd",
    "/run/crio",
    "/run/dbus",
    "/run/docker",
    "/run/docker.sock",
    "/run/hardened",
    "/run/k3s",
    "/run/systemd",
    "/sbin",
    "/sys",
    "/usr",
    "/var/lib/containerd",
    "/var/lib/docker",
    "/var/lib/etcd",
    "/var/lib/kubelet",
    "/var/lib/rancher",
    "/var/run",
];

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
    HostPaths { rules: DENIED.iter().map(|path| (path.into(), None)).collect(), other: Some(Access::ReadWrite) }
}

pub(super) fn sysctls() -> Patterns {
    Patterns::Any(SAFE_SYSCTLS.iter().map(|name| (*name).to_owned()).collect())
}
