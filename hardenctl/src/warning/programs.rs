//! Programs that are known to need what profiles deny.

use std::path::Path;

use super::command::name_of;
use super::{Subject, Warning};

/// What a program needs.
enum Need {
    /// A system call.
    Call(&'static str),
    /// A capability that containers have by default.
    Capability(&'static str),
    /// Sockets for echo requests: raw ones, or those that a sysctl gives to a range of groups.
    Echo,
    /// CAP_NET_ADMIN, and netlink's NETFILTER protocol.
    Netfilter,
    /// To become root by a setuid program.
    Setuid,
    /// To write to folders of programs and libraries, where one of these words follows.
    System(&'static [&'static str]),
}

struct Program {
    names: &'static [&'static str],
    need: Need,
    /// What is denied.
    problem: &'static str,
    advice: &'static str,
}

const NO_MOUNTS: &str = "have the pod mount it as a volume; no profile lets a container mount";
const NO_NAMESPACES: &str = "run it where a rule of the node's policy lets a privileged container through";
const NO_TRACING: &str = "measure a copy of the workload under runc";
const BUILD: &str = "install it when the image is built, or have the node's policy give the pod the profile build";

const PROGRAMS: &[Program] = &[
    Program {
        names: &["strace", "ltrace", "gdb", "gdbserver"],
        need: Need::Call("ptrace"),
        problem: "ptrace is denied",
        advice: "have the node's policy give SYS_PTRACE: profile.NAME.capabilities.add = [\"SYS_PTRACE\"]; and add it in \
                 securityContext.capabilities.add",
    },
    Program {
        names: &["perf"],
        need: Need::Call("perf_event_open"),
        problem: "perf_event_open is denied",
        advice: NO_TRACING,
    },
    Program { names: &["bpftool", "bpftrace"], need: Need::Call("bpf"), problem: "bpf is denied", advice: NO_TRACING },
    Program {
        names: &["mount", "umount", "fusermount", "fusermount3", "losetup"],
        need: Need::Call("mount"),
        problem: "mounting is denied",
        advice: NO_MOUNTS,
    },
    Program {
        names: &["unshare", "bwrap", "podman", "buildah", "buildkitd", "containerd", "dockerd", "rootlesskit", "runc"],
        need: Need::Call("unshare"),
        problem: "new namespaces are denied",
        advice: NO_NAMESPACES,
    },
    Program {
        names: &["nsenter"],
        need: Need::Call("setns"),
        problem: "entering other namespaces is denied",
        advice: NO_NAMESPACES,
    },
    Program {
        names: &["chroot", "sshd", "vsftpd", "dovecot", "postfix"],
        need: Need::Capability("SYS_CHROOT"),
        problem: "chroot is denied",
        advice: "have the node's policy give SYS_CHROOT: profile.NAME.capabilities.add = [\"SYS_CHROOT\"]",
    },
    Program {
        names: &["tcpdump", "tshark", "dumpcap", "arping", "fping"],
        need: Need::Capability("NET_RAW"),
        problem: "raw and packet sockets are denied",
        advice: "have the node's policy give NET_RAW: profile.NAME.capabilities.add = [\"NET_RAW\"]",
    },
    Program {
        names: &["ping", "ping6"],
        need: Need::Echo,
        problem: "raw sockets are denied, and ping sockets need the sysctl net.ipv4.ping_group_range",
        advice: "set it to \"0 2147483647\" in the pod's securityContext.sysctls; containerd 2 sets it by default",
    },
    Program {
        names: &[
            "iptables",
            "iptables-restore",
            "iptables-save",
            "ip6tables",
            "ip6tables-restore",
            "nft",
            "ipset",
            "conntrack",
        ],
        need: Need::Netfilter,
        problem: "it needs NET_ADMIN and netlink's NETFILTER protocol, and does not have both",
        advice: "have the node's policy give them: profile.NAME.capabilities.add = [\"NET_ADMIN\"] and \
                 profile.NAME.seccomp.rule = [{ calls = [\"socket\"], argument = 0, equals = 16, answer = \"allow\" }]; \
                 and add NET_ADMIN in securityContext.capabilities.add",
    },
    Program {
        names: &["sudo", "su", "doas", "pkexec"],
        need: Need::Setuid,
        problem: "setuid programs gain nothing (no_new_privs), so only root becomes another user",
        advice: "start the container as the user that is needed, by runAsUser",
    },
    Program {
        names: &["apt", "apt-get", "aptitude"],
        need: Need::System(&[
            "install",
            "reinstall",
            "upgrade",
            "dist-upgrade",
            "full-upgrade",
            "remove",
            "purge",
            "autoremove",
        ]),
        problem: "programs and libraries of the image are read-only",
        advice: BUILD,
    },
    Program {
        names: &["apk"],
        need: Need::System(&["add", "del", "upgrade", "fix"]),
        problem: "programs and libraries of the image are read-only",
        advice: BUILD,
    },
    Program {
        names: &["yum", "dnf", "microdnf", "tdnf", "zypper"],
        need: Need::System(&["install", "reinstall", "update", "upgrade", "in", "remove", "erase"]),
        problem: "programs and libraries of the image are read-only",
        advice: BUILD,
    },
    Program {
        names: &["dpkg", "rpm"],
        need: Need::System(&["-i", "--install", "-U", "-Uvh", "-ivh", "-r", "-e", "--purge"]),
        problem: "programs and libraries of the image are read-only",
        advice: BUILD,
    },
    Program {
        names: &["npm"],
        need: Need::System(&["-g", "--global"]),
        problem: "programs and libraries of the image are read-only",
        advice: "install it without -g into a folder of the application, or when the image is built",
    },
    Program {
        names: &["locale-gen", "update-alternatives"],
        need: Need::System(&[]),
        problem: "programs and libraries of the image are read-only",
        advice: "run it when the image is built, or have the node's policy give the pod the profile build",
    },
];

/// Options by which pip installs elsewhere.
const PIP_ELSEWHERE: &[&str] = &["--target", "-t", "--user", "--prefix", "--root"];

/// What a command's program needs and does not get.
pub(super) fn of_command(field: &str, words: &[&str], subject: &Subject<'_>) -> Option<Warning> {
    let (first, arguments) = words.split_first()?;
    let name = name_of(first);
    if matches!(name, "pip" | "pip3") {
        return pip(field, first, arguments, subject);
    }
    let program = PROGRAMS.iter().find(|program| program.names.contains(&name))?;
    lacks(&program.need, arguments, subject)
        .then(|| Warning::new(field, format!("runs {name}: {}", program.problem), program.advice))
}

fn lacks(need: &Need, arguments: &[&str], subject: &Subject<'_>) -> bool {
    let Subject { admission, standing, uid, sysctls, .. } = subject;
    match need {
        Need::Call(call) => standing.call(call).is_ok_and(|answer| !answer.allowed),
        Need::Capability(capability) => subject.loses(capability),
        Need::Echo => subject.loses("NET_RAW") && !sysctls.iter().any(|name| name == "net.ipv4.ping_group_range"),
        Need::Netfilter => {
            let netfilter = [libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_NETFILTER, 0, 0, 0];
            let arguments = netfilter.map(|argument| u64::from(argument.unsigned_abs()));
            let filter = admission.sandbox().filter();
            let number = filter.arch().number("socket");
            !subject.has("NET_ADMIN") || !number.is_some_and(|number| filter.decide(number, &arguments).allows())
        }
        // The image's user is not known here.
        Need::Setuid => *uid != Some(0),
        Need::System(verbs) => {
            let asked = verbs.is_empty() || arguments.iter().any(|word| verbs.contains(word));
            asked && keeps_system_folders(subject)
        }
    }
}

fn keeps_system_folders(subject: &Subject<'_>) -> bool {
    subject.standing.kept_by_profile(Path::new("/usr/bin/program")).is_some()
}

/// pip as root, and not of a virtual environment: as another user, it installs into the home directory by itself.
fn pip(field: &str, program: &str, arguments: &[&str], subject: &Subject<'_>) -> Option<Warning> {
    let elsewhere = |word: &&str| PIP_ELSEWHERE.iter().any(|option| word.starts_with(option));
    let installs = arguments.first() == Some(&"install") && !arguments.iter().any(elsewhere);
    let is_root = subject.uid.is_none_or(|uid| uid == 0) && matches!(program, "pip" | "pip3");
    (installs && is_root && keeps_system_folders(subject)).then(|| {
        let problem = format!("runs {program} install: programs and libraries of the image are read-only");
        Warning::new(field, problem, "install into a virtual environment or by --target, or when the image is built")
    })
}

/// An image of 32-bit programs, by its name.
pub(super) fn of_image(field: &str, image: &str, subject: &Subject<'_>) -> Option<Warning> {
    let is_i386 = image.starts_with("i386/") || image.contains("/i386/");
    (is_i386 && !subject.admission.sandbox().filter().foreign().allows()).then(|| {
        let problem = "32-bit programs are killed (SIGSYS) at their first system call";
        Warning::new(field, problem, "use an image for amd64; no profile names the calls of other ABIs")
    })
}
