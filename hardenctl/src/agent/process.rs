//! A process of the node, looked at so that nobody else's pid is taken for its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hardened_node::process::stat_field;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// Unit of times in `/proc/PID/stat`, in milliseconds: `USER_HZ` is 100 on all architectures that hardened runs on.
const TICK_MILLISECONDS: u64 = 10;

/// By how much a process may seem to be younger than a record of it: a tick, and the kernel's coarse clock (up to 10 ms),
/// with room for the time between two looks at clocks. No pid is given again so soon: 32,768 others come first.
const TOLERANCE: Duration = Duration::from_millis(50);

/// What is seen of a process, all of it of the same one.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) who: hardened_node::process::Process,
    pub(super) parent: u32,
    /// In ticks since boot: proc_pid_stat(5), field 22.
    pub(super) start_time: u64,
    pub(super) cgroups: Cgroups,
}

/// The paths of a process's cgroups, by their hierarchies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cgroups(Vec<(String, PathBuf)>);

impl Process {
    /// Looks at a process; none where there is none of that pid, or not until the end of the look.
    pub(super) fn look_at(pid: u32) -> Option<Self> {
        let handle = pidfd_open(Pid::from_raw(pid.try_into().ok()?)?, PidfdFlags::empty()).ok()?;
        let folder = Path::new("/proc").join(pid.to_string());
        let read = |name: &str| fs::read(folder.join(name)).ok().map(|t| String::from_utf8_lossy(&t).into_owned());
        let who = hardened_node::process::Process::look_at(pid);
        let (stat, cgroups) = (read("stat")?, read("cgroup")?);
        // A process that has ended makes its handle readable.
        let mut handle = [PollFd::new(&handle, PollFlags::IN)];
        if poll(&mut handle, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) != Ok(0) {
            return None;
        }
        let parent = stat_field(&stat, 4)?.try_into().ok()?;
        Some(Self { who, parent, start_time: stat_field(&stat, 22)?, cgroups: Cgroups::parse(&cgroups) })
    }

    /// Whether it ran at a time, in milliseconds since 1970. It runs now: so its pid was nobody else's since then.
    pub(super) fn ran_at(&self, time: u64) -> bool {
        let boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let Ok(up) = Duration::try_from(boot) else { return false };
        let start = Duration::from_millis(self.start_time.saturating_mul(TICK_MILLISECONDS));
        let started = SystemTime::now().checked_sub(up.saturating_sub(start));
        let started = started.and_then(|started| started.duration_since(UNIX_EPOCH).ok());
        started.is_some_and(|started| started <= Duration::from_millis(time) + TOLERANCE)
    }
}

impl Cgroups {
    /// Reads `/proc/PID/cgroup`: cgroups(7).
    fn parse(text: &str) -> Self {
        let line = |line: &str| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            Some((controllers.to_owned(), PathBuf::from(path)))
        };
        Self(text.lines().filter_map(line).collect())
    }

    /// Whether a process in the others is in these, or below: in every hierarchy in which these are not the root.
    pub(super) fn hold(&self, others: &Self) -> bool {
        let mut own = self.0.iter().filter(|(_, path)| path != Path::new("/")).peekable();
        own.peek().is_some()
            && own.all(|(hierarchy, path)| others.0.iter().any(|(of, at)| of == hierarchy && at.starts_with(path)))
    }
}

/// Memory of a process that is its own, and that it may share, in bytes: `RssAnon`, `RssFile` and `RssShmem` of
/// proc_pid_status(5). Nothing for one that is gone.
pub(super) fn memory(pid: u32) -> (u64, u64) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kilobytes = |name: &str| {
        let field = status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok());
        field.unwrap_or(0u64) * 1024
    };
    (kilobytes("RssAnon:"), kilobytes("RssFile:") + kilobytes("RssShmem:"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_itself_only_from_its_start_on() {
        let milliseconds =
            |time: SystemTime| u64::try_from(time.duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
        let me = Process::look_at(std::process::id()).unwrap();
        assert_eq!((me.who.pid, me.who.own_pid), (std::process::id(), std::process::id()));
        assert!(me.ran_at(milliseconds(SystemTime::now())));
        assert!(!me.ran_at(milliseconds(SystemTime::now() - Duration::from_secs(86_400 * 365))));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        assert!(Process::look_at(child.id()).is_none());
    }

    #[test]
    fn a_process_that_ended_and_has_not_been_waited_for_is_gone() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        std::thread::sleep(Duration::from_millis(200));
        assert!(Process::look_at(child.id()).is_none());
        child.wait().unwrap();
    }

    #[test]
    fn cgroups_hold_what_is_below_them_in_every_hierarchy() {
        let of = Cgroups::parse;
        let container = of("12:cpu:/k8s/pod/a\n3:pids:/k8s/pod/a\n1:misc:/\n0::/");
        assert!(container.hold(&of("12:cpu:/k8s/pod/a\n3:pids:/k8s/pod/a/below\n1:misc:/x\n0::/y")));
        for other in ["12:cpu:/k8s/pod/a\n3:pids:/k8s/pod/ab", "12:cpu:/k8s/pod/a", "0::/", ""] {
            assert!(!container.hold(&of(other)), "{other}");
        }
        // The root cgroup holds processes of no container.
        assert!(!of("0::/").hold(&of("0::/")));
        assert!(of("0::/a").hold(&of("0::/a/b")) && !of("0::/a").hold(&of("0::/")));
    }
}
