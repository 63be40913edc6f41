//! Whether denials are recorded: the kernel's audit, the agent, and the files of records.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use hardened_node::process::Process;
use hardened_sandbox::record::EVENTS;

use super::audit::{Audit, Set};
use super::{Finding, State, finding};
use crate::install::{AGENT_UNIT, UNIT_FOLDERS};

/// The first Landlock that logs what it denies: SECURITY.md, "Kernel features".
const LOGGING_ABI: u32 = 7;

/// `PROC_PID_INIT_INO`, include/linux/proc_ns.h.
const NODES_PIDS: &str = "pid:[4026531836]";

/// What is seen of it.
#[derive(Debug)]
pub(super) struct Seen {
    audit: Audit,
    /// What the audit daemon calls itself.
    daemon: String,
    /// Whether this runs among the node's processes.
    pids: bool,
    /// Whether this runs in the node's network; known only among its processes.
    network: bool,
    landlock_abi: u32,
    /// Whether the policy has Landlock's denials logged.
    logs: bool,
    /// The agent's pid.
    agent: Option<u32>,
    /// Whether systemd knows the agent's unit.
    unit: bool,
    records: Records,
}

/// The folder of records.
#[derive(Debug)]
enum Records {
    There { files: usize, owner: u32, mode: u32 },
    Unreadable(ErrorKind),
}

impl Seen {
    /// Looks at this node.
    pub(super) fn look(landlock_abi: u32, logs: bool) -> Self {
        let audit = Audit::look();
        let daemon = match audit {
            Audit::There { daemon: Some(pid), .. } => Process::look_at(pid).comm,
            Audit::There { daemon: None, .. } | Audit::Missing | Audit::Hidden(_) => String::new(),
        };
        let namespace = |pid: &str, kind: &str| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok();
        let folder = Path::new(EVENTS);
        Self {
            audit,
            daemon,
            pids: namespace("self", "pid").is_some_and(|own| own == Path::new(NODES_PIDS)),
            // kthreadd, of which no namespace ever is another.
            network: namespace("self", "net") == namespace("2", "net"),
            landlock_abi,
            logs,
            agent: agent(folder),
            unit: UNIT_FOLDERS.iter().any(|folder| Path::new(folder).join(AGENT_UNIT).exists()),
            records: Records::look(folder),
        }
    }

    pub(super) fn findings(&self) -> Vec<Finding> {
        let mut all = vec![self.audit()];
        all.extend(self.daemon());
        all.extend([self.landlock(), self.agent(), self.records.finding()]);
        all
    }

    /// What is optional is missed only if the policy asks for Landlock's denials.
    const fn idle(&self) -> State {
        if self.logs { State::Reduced } else { State::Off }
    }

    fn audit(&self) -> Finding {
        const WHAT: &str = "audit";
        match self.audit {
            Audit::Missing => {
                let cost = "no denial by Landlock, AppArmor or SELinux can be recorded; `hardenctl why` answers \
                            questions about them without it";
                finding(WHAT, "not in this kernel, or switched off at boot by audit=0", self.idle(), cost)
            }
            Audit::Hidden(error) => {
                let cost =
                    "the kernel answers only root (CAP_AUDIT_CONTROL), outside of containers: run this on the node";
                finding(WHAT, format!("not known: {}", error.desc()), State::Unknown, cost)
            }
            Audit::There { .. } if self.pids && !self.network => {
                let cost = "the kernel sends its records in the node's network alone: start the agent there";
                finding(WHAT, "records do not arrive in this network namespace", self.idle(), cost)
            }
            Audit::There { set: Set::Off, .. } => {
                let cost = "the kernel logs none of Landlock's denials; to enable it, run: auditctl -a never,task; \
                            auditctl -e 1";
                finding(WHAT, "disabled", self.idle(), cost)
            }
            Audit::There { set: Set::On, .. } => finding(WHAT, "enabled", State::Good, ""),
            Audit::There { set: Set::Locked, .. } => {
                finding(WHAT, "enabled, and locked until the next boot", State::Good, "")
            }
        }
    }

    /// Who gets the records besides the agent, which the kernel serves whoever that is.
    fn daemon(&self) -> Option<Finding> {
        let Audit::There { daemon, .. } = self.audit else { return None };
        let found = match daemon {
            Some(pid) => format!("{}, pid {pid}; the agent reads beside it", self.daemon),
            None => "none: the kernel also writes records to its own log; the agent needs none".to_owned(),
        };
        Some(finding("audit daemon", found, State::Good, ""))
    }

    fn landlock(&self) -> Finding {
        const WHAT: &str = "Landlock's denials";
        let abi = self.landlock_abi;
        if abi < LOGGING_ABI {
            let found = format!("not logged: that takes Landlock ABI {LOGGING_ABI}, and this kernel has {abi}");
            let cost = "run Linux 6.15 or newer; until then ask, for example: hardenctl why POD --write PATH";
            return finding(WHAT, found, self.idle(), cost);
        }
        let (found, state) = if self.logs { ("logged", State::Good) } else { ("not logged", State::Off) };
        let cost = "to have them logged, write at the top of the policy: log-landlock-denials = true";
        finding(WHAT, format!("{found} by this policy; Landlock ABI {abi} can"), state, cost)
    }

    fn agent(&self) -> Finding {
        const WHAT: &str = "agent";
        let next = if self.unit { "systemctl enable --now hardened-agent" } else { "hardenctl install --agent" };
        match self.agent {
            Some(pid) => finding(WHAT, format!("runs, pid {pid}"), State::Good, ""),
            None if self.pids => {
                let cost = format!(
                    "no metrics, and no records of what Landlock, AppArmor and SELinux deny; to have them, run: {next}"
                );
                finding(WHAT, "does not run", self.idle(), cost)
            }
            None => {
                let cost = "its process cannot be seen from another pid namespace: run this on the node";
                finding(WHAT, "not known", State::Unknown, cost)
            }
        }
    }
}

impl Records {
    fn look(folder: &Path) -> Self {
        let read = || -> std::io::Result<Self> {
            let found = std::fs::metadata(folder)?;
            let files = std::fs::read_dir(folder)?.count();
            Ok(Self::There { files, owner: found.uid(), mode: found.mode() & 0o7777 })
        };
        read().unwrap_or_else(|error| Self::Unreadable(error.kind()))
    }

    fn finding(&self) -> Finding {
        const WHAT: &str = "records";
        match self {
            Self::There { owner, mode, .. } if *owner != 0 || mode & 0o022 != 0 => {
                let found = format!("{EVENTS} has owner {owner} and mode {mode:04o}");
                let cost = format!("others may write there, so nothing is recorded; run: rm -r {EVENTS}");
                finding(WHAT, found, State::Reduced, cost)
            }
            Self::There { mode, .. } if mode & 0o077 != 0 => {
                let cost = format!("others can read which containers were denied something; run: chmod 700 {EVENTS}");
                finding(WHAT, format!("{EVENTS} has mode {mode:04o}"), State::Reduced, cost)
            }
            Self::There { files, .. } => finding(WHAT, format!("{files} files in {EVENTS}"), State::Good, ""),
            Self::Unreadable(ErrorKind::NotFound) => {
                finding(WHAT, "none: nothing was denied since the node booted", State::Good, "")
            }
            Self::Unreadable(ErrorKind::PermissionDenied) => {
                finding(WHAT, "not known", State::Unknown, format!("only root can read {EVENTS}: use sudo"))
            }
            Self::Unreadable(error) => {
                let cost = format!("a folder is expected: remove {EVENTS}, and it will be made again");
                finding(WHAT, error.to_string(), State::Reduced, cost)
            }
        }
    }
}

/// The process that holds the lock of a folder of records, as every agent does.
fn agent(folder: &Path) -> Option<u32> {
    let found = std::fs::metadata(folder).ok()?;
    let (major, minor) = (rustix::fs::major(found.dev()), rustix::fs::minor(found.dev()));
    holder(&std::fs::read_to_string("/proc/locks").ok()?, &format!("{major:02x}:{minor:02x}:{}", found.ino()))
}

/// Reads proc_locks(5). The kernel leaves out processes that this pid namespace does not have.
fn holder(locks: &str, file: &str) -> Option<u32> {
    locks.lines().find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let held = fields.next() == Some("FLOCK");
        let (pid, of) = (fields.nth(2)?, fields.next()?);
        pid.parse().ok().filter(|_| held && of == file)
    })
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use nix::errno::Errno;

    use super::*;

    /// A node on which all is as it should be.
    fn whole() -> Seen {
        Seen {
            audit: Audit::There { set: Set::On, daemon: Some(812) },
            daemon: "auditd".to_owned(),
            pids: true,
            network: true,
            landlock_abi: 7,
            logs: true,
            agent: Some(4711),
            unit: true,
            records: Records::There { files: 12, owner: 0, mode: 0o700 },
        }
    }

    /// One that has none of it, and whose policy asks for nothing.
    fn plain() -> Seen {
        Seen {
            audit: Audit::There { set: Set::Off, daemon: None },
            logs: false,
            agent: None,
            unit: false,
            records: Records::Unreadable(ErrorKind::NotFound),
            ..whole()
        }
    }

    #[test]
    fn every_finding_says_what_to_do_next() {
        let mut text = String::new();
        for (name, seen) in [
            ("whole", whole()),
            ("plain", plain()),
            ("asked for, and not there", Seen { logs: true, unit: true, ..plain() }),
            ("an older kernel", Seen { audit: Audit::Missing, landlock_abi: 6, ..plain() }),
            ("locked", Seen { audit: Audit::There { set: Set::Locked, daemon: None }, ..whole() }),
            (
                "in a container",
                Seen {
                    audit: Audit::Hidden(Errno::EPERM),
                    pids: false,
                    records: Records::Unreadable(ErrorKind::PermissionDenied),
                    ..plain()
                },
            ),
            ("another network", Seen { network: false, ..whole() }),
            (
                "a folder of the kubelet",
                Seen { records: Records::There { files: 0, owner: 0, mode: 0o755 }, ..whole() },
            ),
            ("a folder of anybody", Seen { records: Records::There { files: 0, owner: 7, mode: 0o700 }, ..whole() }),
            ("a file", Seen { records: Records::Unreadable(ErrorKind::NotADirectory), ..whole() }),
        ] {
            writeln!(text, "{name}").unwrap();
            for Finding { what, found, state, cost, .. } in seen.findings() {
                assert_eq!(cost.is_empty(), state == State::Good, "{what}: {found}");
                writeln!(text, "  {state:?}: {what}: {found}").unwrap();
                if !cost.is_empty() {
                    writeln!(text, "      {cost}").unwrap();
                }
            }
        }
        insta::assert_snapshot!(text);
    }

    #[test]
    fn the_agent_is_the_process_that_holds_the_folders_lock() {
        let locks = "1: POSIX  ADVISORY  WRITE 7 00:19:40 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 8 00:19:41 0 EOF\n\
                     3: FLOCK  ADVISORY  READ  9 00:19:40 0 EOF\n\
                     3: -> FLOCK  ADVISORY  WRITE 10 00:19:42 0 EOF\n";
        assert_eq!(holder(locks, "00:19:40"), Some(9));
        assert_eq!(holder(locks, "00:19:42"), None);
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(agent(folder.path()), None);
        let opened = std::fs::File::open(folder.path()).unwrap();
        opened.try_lock().unwrap();
        assert_eq!(agent(folder.path()), Some(std::process::id()));
    }
}
