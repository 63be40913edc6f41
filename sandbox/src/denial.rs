//! A denied system call in words: what was asked for, who denies it and why, and which line of a policy allows it.

use std::fmt::Write as _;

use crate::profile::{self, gated};
use crate::seccomp::{Arch, Call, Filter, Program};

/// Those whose filters a container's is the meet of.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filters {
    pub(crate) arch: Arch,
    /// Profiles that the sandbox is the meet of.
    pub(crate) profiles: Vec<String>,
    /// None where denials are not explained.
    pub(crate) operands: Vec<Operand>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Operand {
    pub(crate) source: Source,
    pub(crate) program: Program,
}

/// Where a filter comes from.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) enum Source {
    /// The node's profile for the container.
    Profile(String),
    /// The profile that the pod asks for by annotation.
    Annotation(String),
    /// The pod's `seccompProfile`.
    Pod,
}

/// Why a call is denied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The call's name; its number where it has none.
    pub call: String,
    /// The argument that tells what it is for, where one does: `family=AF_VSOCK`.
    pub argument: Option<String>,
    /// Who denies it: `profile baseline`.
    pub denied_by: Vec<String>,
    /// Why, for a person.
    pub reason: String,
    /// What would allow it: a line of a policy file, as TOML, or a field of the pod; several with "and" between them.
    /// None where nothing does.
    pub setting: Option<String>,
    /// What compliance frameworks call it.
    pub tags: Vec<&'static str>,
}

/// The argument of a call that tells what it is for: its number, and what it is.
pub(crate) const TELLING: &[(&str, u8, &str)] = &[
    ("bpf", 0, "command"),
    ("clone", 0, "flags"),
    ("fcntl", 1, "command"),
    ("ioctl", 1, "request"),
    ("keyctl", 0, "operation"),
    ("personality", 0, "persona"),
    ("prctl", 0, "option"),
    ("ptrace", 0, "request"),
    ("setns", 1, "kind"),
    ("socket", 0, "family"),
    ("socketpair", 0, "family"),
    ("unshare", 0, "flags"),
];

/// Of these one use is denied and others are not, by that argument.
const BY_ARGUMENT: &[&str] = &["ioctl", "personality", "prctl", "socketpair"];

/// No profile can give these: a process in a Landlock domain cannot mount.
const OF_LANDLOCK: &[&str] =
    &["fsmount", "mount", "mount_setattr", "move_mount", "open_tree", "open_tree_attr", "pivot_root", "umount2"];

/// Tags of a system call that is denied, whichever it is: CIS Kubernetes Benchmark ("Ensure that the seccomp profile is
/// set"), NIST SP 800-190 ("App vulnerabilities": unexpected system calls).
const TAGS: &[&str] = &["CIS-Kubernetes-5.7.2", "NIST-SP-800-190-4.4.4"];

/// MITRE ATT&CK techniques that have need of a call.
const TECHNIQUES: &[(&str, &[&str])] = &[
    (
        "MITRE-T1611",
        &[
            "clone",
            "fsconfig",
            "fsmount",
            "fsopen",
            "fspick",
            "mount",
            "mount_setattr",
            "move_mount",
            "open_by_handle_at",
            "open_tree",
            "open_tree_attr",
            "chroot",
            "pivot_root",
            "setns",
            "umount2",
            "unshare",
        ],
    ),
    ("MITRE-T1055.008", &["kcmp", "pidfd_getfd", "process_madvise", "process_vm_readv", "process_vm_writev", "ptrace"]),
    ("MITRE-T1547.006", &["create_module", "delete_module", "finit_module", "init_module"]),
    ("MITRE-T1014", &["bpf", "kexec_file_load", "kexec_load", "perf_event_open"]),
    ("MITRE-T1068", &["io_uring_enter", "io_uring_register", "io_uring_setup", "modify_ldt", "userfaultfd"]),
    ("MITRE-T1529", &["reboot"]),
    ("MITRE-T1055", &["ioctl"]),
];

/// Names of `CLONE_NEW*`, linux/sched.h.
const NAMESPACES: &[(u64, &str)] = &[
    (0x0000_0080, "CLONE_NEWTIME"),
    (0x0002_0000, "CLONE_NEWNS"),
    (0x0200_0000, "CLONE_NEWCGROUP"),
    (0x0400_0000, "CLONE_NEWUTS"),
    (0x0800_0000, "CLONE_NEWIPC"),
    (0x1000_0000, "CLONE_NEWUSER"),
    (0x2000_0000, "CLONE_NEWPID"),
    (0x4000_0000, "CLONE_NEWNET"),
];

/// Names of socket families that programs ask for, linux/socket.h.
const FAMILIES: &[(u64, &str)] = &[
    (1, "AF_UNIX"),
    (2, "AF_INET"),
    (3, "AF_AX25"),
    (10, "AF_INET6"),
    (15, "AF_KEY"),
    (16, "AF_NETLINK"),
    (17, "AF_PACKET"),
    (21, "AF_RDS"),
    (29, "AF_CAN"),
    (30, "AF_TIPC"),
    (31, "AF_BLUETOOTH"),
    (38, "AF_ALG"),
    (39, "AF_NFC"),
    (40, "AF_VSOCK"),
    (41, "AF_KCM"),
    (42, "AF_QIPCRTR"),
    (43, "AF_SMC"),
    (44, "AF_XDP"),
];

/// The number of the family whose sockets come with CAP_NET_RAW.
const PACKET: u64 = 17;

/// The value of a call's telling argument, as the kernel reads it; none where the call has no such.
#[must_use]
pub fn telling_argument(arch: Arch, call: &Call) -> Option<u64> {
    let name = arch.name(call.number).filter(|_| call.arch == arch.audit())?;
    let (_, argument, _) = TELLING.iter().find(|(of, ..)| *of == name)?;
    // The kernel takes no notice of the upper half of any.
    call.arguments.get(usize::from(*argument)).map(|value| *value & u64::from(u32::MAX))
}

/// A denied call in a few words: `socket(family=AF_VSOCK)`.
fn argument_text(name: &str, value: u64) -> Option<String> {
    let (_, _, what) = TELLING.iter().find(|(of, ..)| *of == name)?;
    let known = |names: &[(u64, &'static str)]| names.iter().find(|(number, _)| *number == value).map(|(_, n)| *n);
    let text = match *what {
        "family" => known(FAMILIES).map_or_else(|| value.to_string(), str::to_owned),
        "flags" | "kind" => {
            let named: Vec<&str> = NAMESPACES
                .iter()
                // In clone's flags that bit is of the exit signal.
                .filter(|(bit, _)| value & bit != 0 && !(name == "clone" && *bit == 0x80))
                .map(|(_, n)| *n)
                .collect();
            if named.is_empty() { format!("{value:#x}") } else { named.join("|") }
        }
        "request" | "persona" => format!("{value:#x}"),
        _ => value.to_string(),
    };
    Some(format!("{what}={text}"))
}

impl Filters {
    /// The architecture whose calls they decide.
    #[must_use]
    pub const fn arch(&self) -> Arch {
        self.arch
    }

    /// Why a call of the container is denied, and what would allow it.
    #[must_use]
    pub fn explain(&self, call: &Call) -> Explanation {
        let arch = self.arch;
        let own = call.arch == arch.audit() && !(arch == Arch::X86_64 && call.number >= 0x4000_0000);
        let denies = |operand: &&Operand| operand.program.answer(call).is_none_or(|word| !allows(word));
        let denying: Vec<&Operand> = self.operands.iter().filter(denies).collect();
        let Some(name) = arch.name(call.number).filter(|_| own) else {
            return self.unknown(call, own, &denying);
        };
        let value = telling_argument(arch, call);
        let setting = match denying.as_slice() {
            // Met with their filters is what keeps rules for ports and for execs.
            [] => Some("network.connect-tcp, network.bind-tcp or exec.no-network of the profile".to_owned()),
            denying => settings(name, call, denying),
        };
        let mut tags: Vec<&str> = TAGS.to_vec();
        tags.extend(TECHNIQUES.iter().filter(|(_, calls)| calls.contains(&name)).map(|(technique, _)| *technique));
        if matches!(name, "socket") && value == Some(PACKET) {
            tags.push("MITRE-T1040");
        }
        Explanation {
            argument: value.and_then(|value| argument_text(name, value)),
            reason: reason(name, call, &denying),
            denied_by: self.names(&denying),
            setting,
            call: name.to_owned(),
            tags,
        }
    }

    /// A call of another ABI, or one that is newer than this program.
    fn unknown(&self, call: &Call, own: bool, denying: &[&Operand]) -> Explanation {
        let reason = if own {
            "a system call newer than this version of hardened, so it is in no profile: on ENOSYS programs behave as on an \
             older kernel"
        } else {
            "a call of another ABI (i386, x32): its calls have other numbers, and profiles do not name them"
        };
        Explanation {
            call: format!("{}{}", if own { "" } else { "foreign " }, call.number),
            argument: None,
            denied_by: self.names(denying),
            reason: reason.to_owned(),
            setting: None,
            tags: TAGS.to_vec(),
        }
    }

    fn names(&self, denying: &[&Operand]) -> Vec<String> {
        if denying.is_empty() {
            return vec![format!("profile {}", self.profiles.join(" and "))];
        }
        denying.iter().map(|operand| operand.source.to_string()).collect()
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Profile(name) => write!(f, "profile {name}"),
            Self::Annotation(name) => write!(f, "profile {name}, by the pod's annotation"),
            Self::Pod => f.write_str("the pod's seccompProfile"),
        }
    }
}

/// Whether the call runs: `SECCOMP_RET_LOG`, `SECCOMP_RET_ALLOW`.
pub(crate) const fn allows(word: u32) -> bool {
    word >= 0x7ffc_0000
}

fn reason(name: &str, call: &Call, denying: &[&Operand]) -> String {
    let known = if name == "socket" { Some(reason_for_socket(call)) } else { profile::reason_of_denial(name) };
    match known {
        _ if denying.is_empty() => "denied by the profile's rules for TCP ports or for execs".to_owned(),
        _ if denying.iter().all(|operand| operand.source == Source::Pod) => {
            "not in the pod's seccomp profile".to_owned()
        }
        Some(reason) => reason.to_owned(),
        None => "not allowed by the profile".to_owned(),
    }
}

const fn reason_for_socket(call: &Call) -> &'static str {
    match call.arguments[0] as u32 {
        2 | 10 => "an IP protocol other than TCP, UDP and ping: its kernel module is additional attack surface",
        16 => "a netlink protocol other than ROUTE",
        _ => "a socket family that few programs need: its kernel module is additional attack surface",
    }
}

/// What each of them would have to say, for the call to be allowed.
fn settings(name: &str, call: &Call, denying: &[&Operand]) -> Option<String> {
    if OF_LANDLOCK.contains(&name) {
        return None;
    }
    let mut all = String::new();
    for operand in denying {
        if !all.is_empty() {
            all.push_str(" and ");
        }
        // Writing to a String cannot fail.
        match &operand.source {
            Source::Profile(profile) => all.push_str(&setting(name, call, profile)),
            Source::Annotation(profile) => {
                write!(all, "the pod without its annotation for {profile}").unwrap_or_default();
            }
            Source::Pod => all.push_str("securityContext.seccompProfile of the pod"),
        }
    }
    Some(all)
}

/// The line of a profile that allows a call.
fn setting(name: &str, call: &Call, profile: &str) -> String {
    // A built-in one cannot be changed, but extended.
    let profile = if profile::is_built_in(profile) { "NAME" } else { profile };
    let argument = |at: usize| call.arguments.get(at).copied().unwrap_or_default() & u64::from(u32::MAX);
    let rule = |argument: u8, value: u64| {
        format!(
            "profile.{profile}.seccomp.rule = [{{ calls = [\"{name}\"], argument = {argument}, equals = {value}, answer = \
             \"allow\" }}]"
        )
    };
    match name {
        "socket" if argument(0) == PACKET => format!("profile.{profile}.capabilities.add = [\"NET_RAW\"]"),
        // Of these families some protocols are allowed.
        "socket" if matches!(argument(0), 2 | 10) => rule(2, argument(2)),
        "socket" => rule(0, argument(0)),
        _ if BY_ARGUMENT.contains(&name) => {
            let at = TELLING.iter().find(|(of, ..)| *of == name).map_or(0, |(_, at, _)| *at);
            rule(at, argument(usize::from(at)))
        }
        _ => match gated::capability_of(name) {
            Some(capability) => format!("profile.{profile}.capabilities.add = [\"{capability}\"]"),
            None => format!("profile.{profile}.seccomp.allow = [\"{name}\"]"),
        },
    }
}

/// Whether a process whose denials are explained can hand its listener on: no filter keeps it from that.
pub(crate) fn can_be_explained(filter: &Filter) -> bool {
    // The flags of `hardened-lockdown`'s call, its third argument; what the others are is not known before.
    let arguments = [0, 0, libc::MSG_NOSIGNAL as u64, 0, 0, 0];
    filter.arch().number("sendmsg").is_some_and(|number| {
        let by_flags = |rule: &crate::seccomp::Rule| rule.conditions.iter().all(|c| c.argument == 2);
        filter.of(number).iter().all(by_flags) && filter.decide(number, &arguments).allows()
    })
}
