//! What procfs shows of a process, from files that no container can make slow: not its command line or environment, which
//! are in memory that it controls.

use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use hardened_sandbox::record::printable;

use crate::read_bounded;

/// Longest path of a program that is kept, in bytes.
const MAX_PATH_BYTES: usize = 256;

/// Largest `status` of a process, in bytes: its groups alone can be 65,536.
const MAX_STATUS_BYTES: u64 = 1 << 20;

/// Who a process is.
#[derive(Debug, Default)]
pub struct Process {
    /// In the pid namespace of the caller.
    pub pid: u32,
    /// In its own pid namespace.
    pub own_pid: u32,
    /// On the node.
    pub uid: u32,
    /// As it calls itself, made fit to be printed, as is the next.
    pub comm: String,
    /// Its program.
    pub program: String,
}

impl Process {
    /// What there is to be seen of it. What fails is left empty: it may be gone.
    #[must_use]
    pub fn look_at(pid: u32) -> Self {
        let folder = Path::new("/proc").join(pid.to_string());
        let program = std::fs::read_link(folder.join("exe")).unwrap_or_default();
        let program = program.as_os_str().as_bytes();
        let read = |name: &str| File::open(folder.join(name)).and_then(|file| read_bounded(file, MAX_STATUS_BYTES));
        let status = String::from_utf8_lossy(&read("status").unwrap_or_default()).into_owned();
        let last = |field: &str| status_field(&status, field).and_then(|numbers| numbers.last().copied());
        let first = |field: &str| status_field(&status, field).and_then(|numbers| numbers.first().copied());
        Self {
            pid,
            own_pid: last("NSpid:").unwrap_or(0),
            uid: first("Uid:").unwrap_or(0),
            comm: printable(&String::from_utf8_lossy(read("comm").unwrap_or_default().trim_ascii_end())),
            program: printable(&String::from_utf8_lossy(program.get(..MAX_PATH_BYTES).unwrap_or(program))),
        }
    }
}

/// The numbers of a line of `/proc/PID/status`: proc_pid_status(5). A process cannot forge one: in its name, which is a
/// line above, line ends are escaped.
fn status_field(status: &str, field: &str) -> Option<Vec<u32>> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_whitespace().map(|number| number.parse().ok()).collect()
}

/// A number of `/proc/PID/stat`, by its place in proc_pid_stat(5), from the third field on: the second is the name in
/// parentheses, and may hold anything, more of them too.
#[must_use]
pub fn stat_field(stat: &str, place: usize) -> Option<u64> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(place.checked_sub(3)?)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_described() {
        let me = Process::look_at(std::process::id());
        assert_eq!((me.pid, me.own_pid), (std::process::id(), std::process::id()));
        assert!(!me.comm.is_empty() && me.program.starts_with('/'), "{me:?}");
        let gone = Process::look_at(u32::MAX);
        assert_eq!((gone.own_pid, gone.comm.as_str(), gone.program.as_str()), (0, "", ""));
    }

    #[test]
    fn fields_of_a_status_are_found() {
        let status = "Name:\tx\\nUid:\t0\nUid:\t1000\t0\t0\t0\nNSpid:\t700\t7\n";
        assert_eq!(status_field(status, "Uid:"), Some(vec![1000, 0, 0, 0]));
        assert_eq!(status_field(status, "NSpid:"), Some(vec![700, 7]));
        assert_eq!(status_field(status, "Gid:"), None);
    }

    #[test]
    fn a_name_with_parentheses_moves_no_field() {
        assert_eq!(stat_field("7 (a) 4 (b) S 3 9", 4), Some(3));
        assert_eq!((stat_field("7 (a) S 3", 2), stat_field("7 (a) S", 4)), (None, None));
    }
}
