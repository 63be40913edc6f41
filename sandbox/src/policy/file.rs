//! What a policy file may say. The JSON Schema that editors complete it by is made from these
//! types (`hardenctl policy schema`).

use std::collections::BTreeMap;
use std::path::PathBuf;

use toml::Spanned;

use crate::identity::Kind;
use crate::pattern::Patterns;
use crate::sandbox::{Access, HostNamespace};
use crate::seccomp::SocketFamily;

/// A policy file: `/etc/hardened/policy.toml`, or one of `/etc/hardened/policy.d/*.toml`.
#[derive(Debug, Default, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct PolicyFile {
    /// Profile of every container that no rule names. Default: `baseline`.
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    pub default: Option<Spanned<String>>,
    /// What happens to containers if the kernel's Landlock is missing or older than ABI 2 (Linux
    /// 5.19). Default: `required`.
    #[cfg_attr(feature = "schema", schemars(with = "Option<LandlockDemand>"))]
    pub landlock: Option<Spanned<LandlockDemand>>,
    /// Landlock's denials go to the kernel's audit log, which a container can fill: for nodes that run the agent
    /// (`hardenctl agent`), or auditd with a rate limit. Needs Linux 6.15. Default: `false`.
    #[cfg_attr(feature = "schema", schemars(with = "Option<bool>"))]
    pub log_landlock_denials: Option<Spanned<bool>>,
    /// Profiles of the node, by name.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(with = "BTreeMap<String, ProfileTable>"))]
    pub profile: BTreeMap<String, Spanned<ProfileTable>>,
    /// Which profile a container gets: the first rule that matches decides.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(with = "Vec<RuleTable>"))]
    pub rule: Vec<Spanned<RuleTable>>,
}

/// How much a node insists on Landlock.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum LandlockDemand {
    /// Containers are refused.
    #[default]
    Required,
    /// Containers start with what the kernel offers; what is missing is reported in their state, in
    /// an event and by `hardenctl doctor`.
    BestEffort,
}

/// Gives containers a profile. All selectors that are set must match.
#[derive(Debug, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RuleTable {
    /// Kubernetes namespace.
    pub namespace: Option<Patterns>,
    /// Image reference. The pod's author chooses it: by itself it can only narrow.
    pub image: Option<Patterns>,
    /// Image digest, `sha256:` and 64 digits: the content itself. The pod must name the image by it. The
    /// pod's author chooses what is run of the image, and what is mounted over it: by itself it can only narrow.
    pub digest: Option<Patterns>,
    /// Pod name. The pod's author chooses it: by itself it can only narrow.
    pub pod: Option<Patterns>,
    /// Container name. The pod's author chooses it: by itself it can only narrow.
    pub container: Option<Patterns>,
    /// Runtime handler: `strict` for the runtime type `io.containerd.strict.v1`, whose program
    /// `containerd-shim-strict-v1` is a link to the shim. Kubernetes: RuntimeClass `handler`. The
    /// pod's author chooses it: by itself it can only narrow.
    pub handler: Option<Patterns>,
    /// The pod's sandbox (pause) container, or one of its containers.
    pub kind: Option<Kind>,
    /// The profile. Default for `privileged = "allow"`: `privileged`.
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    pub profile: Option<Spanned<String>>,
    /// Lets `securityContext.privileged: true` through. Needs `namespace` and `digest`, or
    /// `acknowledge-risk = true`.
    pub privileged: Option<Allow>,
    /// Confirms the rule, although anyone who can create pods in the namespace can use it.
    #[serde(default)]
    pub acknowledge_risk: bool,
}

/// The only value: `allow`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Allow {
    /// Privileged containers are allowed.
    Allow,
}

/// A profile: another one, changed.
#[derive(Debug, Default, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ProfileTable {
    /// The profile that this one changes. Default: `baseline`.
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    pub extends: Option<Spanned<String>>,
    /// Whether denied system calls are reported: who made which, and what would allow it (`hardenctl why`). The answer
    /// is the same either way. `off` is for programs that want seccomp's notifications for themselves, and widens.
    /// Default: that of the extended profile, `on` in `baseline` and `restricted`.
    pub explain: Option<Explain>,
    /// Kubernetes: `securityContext.capabilities`.
    #[serde(default)]
    pub capabilities: CapabilitiesTable,
    /// Kubernetes: `securityContext.seccompProfile`. OCI: `linux.seccomp`.
    #[serde(default)]
    pub seccomp: SeccompTable,
    /// Files, by Landlock.
    #[serde(default)]
    pub files: FilesTable,
    /// TCP and abstract sockets, by Landlock.
    #[serde(default)]
    pub network: NetworkTable,
    /// What a container may use of the host.
    #[serde(default)]
    pub host: HostTable,
    /// Kubernetes: `securityContext.runAsUser`, `runAsGroup`, `supplementalGroups`, `runAsNonRoot`.
    #[serde(default)]
    pub user: UserTable,
    /// Most that a limit may be set to, by OCI name (`RLIMIT_NOFILE`). OCI: `process.rlimits`.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(with = "BTreeMap<String, u64>"))]
    pub limits: BTreeMap<Spanned<String>, u64>,
    /// Mandatory access control: AppArmor and SELinux.
    #[serde(default)]
    pub labels: LabelsTable,
    /// What `kubectl exec`, exec probes, hooks and debug sessions may do, beside the above.
    #[serde(default)]
    pub exec: ExecTable,
}

/// Whether denied system calls are reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Explain {
    /// The shim answers them as the kernel would, and keeps a record.
    On,
    /// The kernel answers them.
    Off,
}

/// Capabilities by name, with or without `CAP_`.
#[derive(Debug, Default, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct CapabilitiesTable {
    /// Granted if the pod asks for them, with the system calls that each gates: `ptrace` with
    /// SYS_PTRACE, `chroot` with SYS_CHROOT, packet sockets with NET_RAW, device nodes with MKNOD. Widens.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(with = "Vec<String>"))]
    pub add: Vec<Spanned<String>>,
    /// Never granted. `ALL` for all.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(with = "Vec<String>"))]
    pub drop: Vec<Spanned<String>>,
}

/// System calls.
#[derive(Debug, Default, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SeccompTable {
    /// Calls that are allowed whatever their arguments. Widens.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(with = "Vec<String>"))]
    pub allow: Vec<Spanned<String>>,
    /// Calls that are refused with `errno`.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(with = "Vec<String>"))]
    pub deny: Vec<Spanned<String>>,
    /// What `deny` answers, 1 to 4095. Default: 1 (EPERM).
    pub errno: Option<u16>,
    /// Calls whose denials are not reported: those that programs try all the time and do without. In addition to those
    /// of the extended profile. Widens.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(with = "Vec<String>"))]
    pub quiet: Vec<Spanned<String>>,
    /// Socket families that may be used: `unix`, `inet` and `inet6` (TCP, UDP, ping, raw), `netlink` (its
    /// ROUTE protocol), `packet`, `vsock`, `can`, `bluetooth`, `alg`. Default: those of the extended
    /// profile.
    pub socket_families: Option<Vec<SocketFamily>>,
    /// Calls through another ABI (i386 and x32 on x86_64): `kill` or `enosys`. Default: `kill`.
    pub foreign: Option<Foreign>,
    /// Answers by argument, before all others of the call.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(with = "Vec<ArgumentRule>"))]
    pub rule: Vec<Spanned<ArgumentRule>>,
    /// A seccomp profile in OCI JSON, by its path: one more filter, which can only narrow.
    #[cfg_attr(feature = "schema", schemars(with = "Option<PathBuf>"))]
    pub oci: Option<Spanned<PathBuf>>,
}

/// An answer to calls with one argument of some value.
#[derive(Debug, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ArgumentRule {
    /// The calls.
    pub calls: Vec<String>,
    /// Which argument, 0 to 5. Its low 32 bits are compared.
    pub argument: u8,
    /// Bits that are compared. Default: all 32.
    pub mask: Option<u32>,
    /// Their value.
    pub equals: u32,
    /// The answer. `allow` widens.
    pub answer: Answer,
}

/// An answer to a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// Allowed.
    Allow,
    /// Refused with EPERM.
    Deny,
}

/// What calls through another ABI get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Foreign {
    /// The process is killed.
    Kill,
    /// ENOSYS.
    Enosys,
}

/// Files.
#[derive(Debug, Default, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct FilesTable {
    /// The image's folders of programs and libraries (`/bin`, `/usr/lib`, `/usr/local/bin` and the like): `read-only`,
    /// or `writable` as their modes say, for jobs that install packages. Default: that of the extended profile,
    /// `read-only` in `baseline` and `restricted`. `writable` widens.
    pub system: Option<SystemFolders>,
    /// The root file system is read-only. Kubernetes: `securityContext.readOnlyRootFilesystem`.
    pub read_only_root: Option<bool>,
    /// Trees in which nothing can be written, whatever is mounted there.
    #[serde(default)]
    pub no_write: Vec<PathBuf>,
    /// Trees in which nothing can be executed.
    #[serde(default)]
    pub no_execute: Vec<PathBuf>,
    /// Trees that cannot be read, written or executed.
    #[serde(default)]
    pub hidden: Vec<PathBuf>,
    /// Programs may be executed from `/tmp`, `/var/tmp`, `/dev/shm` and writable volumes. `true`
    /// widens `restricted`.
    pub execute_from_writable: Option<bool>,
    /// Paths of `/proc` and `/sys` that are masked beside the built-in ones. OCI: `linux.maskedPaths`.
    #[serde(default)]
    pub masked: Vec<PathBuf>,
    /// Paths of `/proc` and `/sys` that are read-only beside the built-in ones. OCI:
    /// `linux.readonlyPaths`.
    #[serde(default)]
    pub read_only: Vec<PathBuf>,
}

/// How the image's system folders are mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum SystemFolders {
    /// Nothing in them can be changed, including metadata.
    ReadOnly,
    /// As their modes say.
    Writable,
}

/// TCP by port (needs Linux 6.7), and abstract UNIX sockets (Linux 6.12).
#[derive(Debug, Default, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct NetworkTable {
    /// TCP ports that may be listened on. Default: those of the extended profile, or all. A program that
    /// listens without naming a port still gets one of the kernel's choice, from
    /// `net.ipv4.ip_local_port_range`; not where `connect-tcp` is empty too: then it gets no TCP socket
    /// at all.
    pub bind_tcp: Option<Vec<u16>>,
    /// TCP ports that may be connected to. Default: those of the extended profile, or all.
    pub connect_tcp: Option<Vec<u16>>,
    /// Abstract UNIX sockets outside of the sandbox may be connected to: for `hostNetwork`. Widens.
    pub abstract_sockets: Option<bool>,
}

/// Parts of the host that may be granted.
#[derive(Debug, Default, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct HostTable {
    /// Kubernetes: `hostNetwork`, `hostPID`, `hostIPC`. Widens.
    pub namespaces: Option<Vec<HostNamespace>>,
    /// Paths of the host that may be mounted, each with all below. The longest that fits decides, so
    /// `deny` takes out a part of what another one grants, and with it all folders that show it.
    /// Kubernetes: `volumes[].hostPath`. `read-only` and `read-write` widen.
    #[serde(default)]
    pub paths: BTreeMap<PathBuf, PathAccess>,
    /// All other paths. Anything but `deny` protects nothing: anyone who can create a pod with the profile
    /// is root on the node, whatever `paths` denies. Default: that of the extended profile, `deny` in
    /// `baseline` and `restricted`. `read-only` and `read-write` widen.
    pub other_paths: Option<PathAccess>,
    /// Volumes that are granted read-only may show what the host mounts below them later, with the flags
    /// that it has on the host: Landlock keeps it from being written to, but its owner can change modes and
    /// attributes. Without, such a volume cannot have `HostToContainer`. Widens. Kubernetes:
    /// `volumeMounts[].mountPropagation`.
    pub later_mounts: Option<bool>,
    /// Programs of the host that may be OCI hooks (`prestart`, `createRuntime`, `createContainer`), by
    /// their full paths. They run outside of the sandbox, as root. Widens. NVIDIA's and others' device
    /// plugins have some.
    #[serde(default)]
    pub hooks: Vec<PathBuf>,
    /// Devices as in cgroup v1: `c 10:229`, `b 8:*`. Widens. Kubernetes: device plugins.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(with = "Vec<String>"))]
    pub devices: Vec<Spanned<String>>,
    /// Sysctls that may be set, beside those that Kubernetes calls safe. Widens. Kubernetes:
    /// `securityContext.sysctls`.
    #[serde(default)]
    pub sysctls: Vec<String>,
}

/// How a path of the host may be mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum PathAccess {
    /// Not at all.
    Deny,
    /// Read-only.
    ReadOnly,
    /// Read-only or writable.
    ReadWrite,
}

impl PathAccess {
    pub(super) const fn granted(self) -> Option<Access> {
        match self {
            Self::Deny => None,
            Self::ReadOnly => Some(Access::ReadOnly),
            Self::ReadWrite => Some(Access::ReadWrite),
        }
    }
}

/// Who may run.
#[derive(Debug, Default, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct UserTable {
    /// Uid 0 is refused.
    #[serde(default)]
    pub non_root: bool,
    /// Only in a user namespace, where nobody is root of the host. Kubernetes: `hostUsers: false`.
    #[serde(default)]
    pub own_namespace: bool,
    /// Ranges of uids, first and last: `[[1000, 65535]]`. Default: all.
    pub uids: Option<Vec<(u32, u32)>>,
    /// Ranges of gids, for the group and the supplementary groups. Default: all.
    pub gids: Option<Vec<(u32, u32)>>,
}

/// Labels.
#[derive(Debug, Default, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LabelsTable {
    /// AppArmor profile that every process is in, in addition to the product's own and the one that the
    /// pod asks for: only what all of them allow is allowed. Kubernetes: `securityContext.appArmorProfile`.
    pub apparmor: Option<String>,
    /// SELinux label of a process that asks for none, `user:role:type:level`. Only a rule or `default`
    /// gives it, never a pod that asks for the profile by annotation. A type that pods may not ask for
    /// widens. Default: `system_u:system_r:container_t` with categories unique to the pod. Kubernetes:
    /// `securityContext.seLinuxOptions`.
    pub selinux: Option<String>,
    /// SELinux types that a pod may ask for, beside `container_t`, `container_init_t`,
    /// `container_kvm_t` and `container_engine_t`. Widens.
    #[serde(default)]
    pub selinux_types: Vec<String>,
}

/// Exec.
#[derive(Debug, Default, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ExecTable {
    /// No exec at all; probes and hooks that execute fail too.
    #[serde(default)]
    pub refuse: bool,
    /// Programs that may be run, as the exec names them. Default: all. Not a boundary if one of them can run
    /// others, as a shell can.
    pub programs: Option<Vec<String>>,
    /// Trees that cannot be read: mounted secrets, say, so that a person with exec cannot read
    /// what the entrypoint can.
    #[serde(default)]
    pub hidden: Vec<PathBuf>,
    /// Nothing can be written but to pipes, terminals and standard devices.
    #[serde(default)]
    pub read_only: bool,
    /// No sockets.
    #[serde(default)]
    pub no_network: bool,
}
