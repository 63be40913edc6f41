//! What the container's mounts show of cgroups: its own, and read-only. A cgroup v1 root has a
//! `release_agent`, which the kernel runs on the host.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use hardened_sandbox::CgroupMounts;

use crate::Failure;
use crate::failure::Mechanism;
use crate::procfs::ProcFs;

/// Largest mount table that is read, in bytes: some hundred thousand mounts.
const MAX_TABLE_BYTES: u64 = 32 << 20;

pub(crate) fn verify(plan: &CgroupMounts, proc: Option<&ProcFs>) -> Result<(), Failure> {
    const TABLE: &str = "self/mountinfo";
    let Some(proc) = proc else {
        return match plan.at.first() {
            None => Ok(()),
            Some(at) => {
                Err(unverified(format!("nothing shows what is mounted at {}: mount proc at /proc", at.display())))
            }
        };
    };
    let table = proc
        .read(TABLE, MAX_TABLE_BYTES)
        .map_err(|e| Failure::new(Mechanism::Cgroups, format!("read /proc/{TABLE}"), e))?;
    if table.len() as u64 > MAX_TABLE_BYTES {
        return Err(unverified(format!("/proc/{TABLE} has more than {MAX_TABLE_BYTES} bytes")));
    }
    judge(plan, &table)
}

fn judge(plan: &CgroupMounts, table: &[u8]) -> Result<(), Failure> {
    let is_below = |point: &Path, places: &[PathBuf]| places.iter().any(|place| point.starts_with(escaped(place)));
    for line in table.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let show = || String::from_utf8_lossy(line);
        let mount = Mount::parse(line).ok_or_else(|| unverified(format!("cannot read the mount {:?}", show())))?;
        if !matches!(mount.kind, b"cgroup" | b"cgroup2") {
            continue;
        }
        let at = mount.point.display();
        if !is_below(mount.point, &plan.at) {
            if is_below(mount.point, &plan.volumes) {
                continue;
            }
            return Err(unverified(format!("a cgroup is mounted at {at}, where none was asked for")));
        }
        if !mount.options.split(|byte| *byte == b',').any(|option| option == b"ro") {
            return Err(unverified(format!("the cgroup mount at {at} is writable")));
        }
        let is_own = match &plan.path {
            None => mount.root == Path::new("/"),
            Some(path) => is_tail(&escaped(path), mount.root),
        };
        if !is_own {
            let root = mount.root.display();
            return Err(unverified(format!("the cgroup mount at {at} shows {root}, which is not the container's own")));
        }
    }
    Ok(())
}

/// Whether a path ends with the parts of another, of which there must be some. The runtime itself may
/// be in a container, whose cgroup comes first then.
fn is_tail(tail: &Path, path: &Path) -> bool {
    let tail = tail.strip_prefix("/").unwrap_or(tail);
    !tail.as_os_str().is_empty() && path.ends_with(tail)
}

fn unverified(step: String) -> Failure {
    Failure::unverified(Mechanism::Cgroups, step)
}

/// A path as the kernel writes it to the table: space, tab, newline and backslash as `\` and three
/// octal digits (proc_pid_mountinfo(5)).
fn escaped(path: &Path) -> PathBuf {
    let mut name = Vec::new();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b' ' | b'\t' | b'\n' | b'\\' => name.extend(format!("\\{byte:03o}").bytes()),
            byte => name.push(*byte),
        }
    }
    OsString::from_vec(name).into()
}

/// A line of the table, its paths escaped.
struct Mount<'a> {
    root: &'a Path,
    point: &'a Path,
    options: &'a [u8],
    kind: &'a [u8],
}

impl<'a> Mount<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut fields = line.split(|byte| *byte == b' ');
        let (root, point) = (fields.nth(3)?, fields.next()?);
        let options = fields.next()?;
        fields.find(|field| *field == b"-")?;
        let path = |field| Path::new(OsStr::from_bytes(field));
        Some(Self { root: path(root), point: path(point), options, kind: fields.next()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(path: Option<&str>, lines: &[&str]) -> Result<(), String> {
        let plan = CgroupMounts {
            path: path.map(PathBuf::from),
            at: vec!["/sys/fs/cgroup".into()],
            volumes: vec!["/host sys".into()],
        };
        let lines: String = lines.iter().map(|line| format!("30 29 0:5 {line} - cgroup2 cgroup rw\n")).collect();
        let table = format!("29 1 8:1 / / rw master:1 - ext4 /dev/sda1 rw\n{lines}");
        judge(&plan, table.as_bytes()).map_err(|failure| failure.to_string())
    }

    #[test]
    fn a_cgroup_mount_shows_the_containers_own_read_only() {
        let own = Some("/pods/a b");
        for (path, line) in [
            (own, "/pods/a\\040b /sys/fs/cgroup ro,nosuid master:1"),
            (own, "/docker/x/pods/a\\040b /sys/fs/cgroup/cpu nosuid,ro"),
            (None, "/ /sys/fs/cgroup ro"),
            (own, "/ /host\\040sys/fs/cgroup rw"),
        ] {
            assert_eq!(judged(path, &[line]), Ok(()), "{line}");
        }
        for (path, line, problem) in [
            (own, "/pods/a\\040b /sys/fs/cgroup rw,relro", "at /sys/fs/cgroup is writable"),
            (own, "/ /sys/fs/cgroup ro", "shows /, which is not the container's own"),
            (own, "/pods/xa\\040b /sys/fs/cgroup ro", "not the container's own"),
            (own, "/pods /sys/fs/cgroup/systemd ro", "not the container's own"),
            (Some("/"), "/ /sys/fs/cgroup ro", "not the container's own"),
            (None, "/.. /sys/fs/cgroup ro", "shows /.., which"),
            (own, "/pods/a\\040b /sys/fs/cgroups ro", "mounted at /sys/fs/cgroups, where none"),
            (own, "/ /mnt rw", "mounted at /mnt, where none"),
        ] {
            let found = judged(path, &["/x /y ro", line][1..]).unwrap_err();
            assert!(found.contains(problem), "{line}: {found}");
        }
        let table = CgroupMounts { path: None, at: Vec::new(), volumes: Vec::new() };
        assert!(judge(&table, b"29 1 8:1 / / rw\n").is_err(), "a line without a type");
    }

    #[test]
    fn without_procfs_no_cgroup_may_be_mounted() {
        let mut plan = CgroupMounts { path: None, at: Vec::new(), volumes: Vec::new() };
        assert_eq!(verify(&plan, None), Ok(()));
        plan.at.push("/sys/fs/cgroup".into());
        assert!(verify(&plan, None).is_err());
        assert!(verify(&plan, ProcFs::open().unwrap().as_ref()).is_err() || !Path::new("/sys/fs/cgroup").exists());
    }
}
