//! What of the host `baseline` and `restricted` keep from a pod.

use crate::policy::Patterns;
use crate::sandbox::{Access, HostPaths};

/// Folders whose holder owns the node: its programs and configuration, its kernel's interfaces, the
/// state and the sockets of what runs there, its people's homes and sessions. With all below, and
/// with what lies above them (`/`, `/var`). Some stand below others: they are often links, or mounted
/// from another disk, and so are known by that path too.
const DENIED: &[&str] = &[
    "/bin",
    "/boot",
    "/dev",
    "/efi",
    "/etc",
    "/home",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/nix",
    "/opt",
    "/ostree",
    "/proc",
    "/root",
    "/run",
    "/sbin",
    "/snap",
    "/sys",
    "/sysroot",
    "/tmp",
    "/usr",
    "/usr/local",
    "/var/backups",
    "/var/lib",
    "/var/lib/containerd",
    "/var/lib/containers",
    "/var/lib/docker",
    "/var/lib/etcd",
    "/var/lib/kubelet",
    "/var/lib/rancher",
    "/var/opt",
    "/var/run",
    "/var/snap",
    "/var/spool",
    "/var/tmp",
];

/// The kubelet hands out what links in there lead to, as root: whoever may write there reads all
/// files of the node.
const READ_ONLY: &[&str] = &["/var/log"];

/// Where the local path provisioner, by itself and in k3s, and minikube's keep the PersistentVolumes
/// that they make.
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
    let rules = [(DENIED, None), (READ_ONLY, Some(Access::ReadOnly)), (VOLUMES, Some(Access::ReadWrite))];
    let rules = rules.iter().flat_map(|(paths, access)| paths.iter().map(|path| (path.into(), *access)));
    HostPaths { rules: rules.collect(), other: Some(Access::ReadWrite) }
}

pub(super) fn sysctls() -> Patterns {
    Patterns::Any(SAFE_SYSCTLS.iter().map(|name| (*name).to_owned()).collect())
}
