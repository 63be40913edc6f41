//! AppArmor profile and SELinux label: written to `/proc/self/attr`, to take effect on `execve`,
//! and read back.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};

use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

use super::Failure;

pub(super) fn apply(apparmor: Option<&str>, selinux: Option<&str>) -> Result<(), Failure> {
    if let Some(profile) = apparmor {
        // AppArmor's own folder exists since Linux 5.8; where it does not, the old file is its own.
        let file = ["/proc/self/attr/apparmor/exec", "/proc/self/attr/exec"];
        write_verified(&file, &format!("exec {profile}"), profile)?;
    }
    if let Some(label) = selinux {
        write_verified(&["/proc/self/attr/exec"], label, label)?;
    }
    Ok(())
}

/// Writes to the first file that exists, then checks that the kernel names `wanted` for the next
/// `execve`.
fn write_verified(files: &[&str], text: &str, wanted: &str) -> Result<(), Failure> {
    let mut missing = std::io::Error::from_raw_os_error(libc::ENOENT);
    for path in files {
        let fail = |operation: &str, e: &std::io::Error| Failure::new("label", format!("{operation} {path}"), e);
        let file = match OpenOptions::new().write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                missing = error;
                continue;
            }
            Err(error) => return Err(fail("open", &error)),
        };
        // An image or a mount could put another file there (CVE-2019-16884, CVE-2025-52881).
        verify_procfs(&file, path)?;
        let mut file = file;
        file.write_all(text.as_bytes()).map_err(|e| fail(&format!("write {text:?} to"), &e))?;
        let mut now = Vec::new();
        File::open(path).and_then(|f| f.take(4096).read_to_end(&mut now)).map_err(|e| fail("read back", &e))?;
        let now = String::from_utf8_lossy(&now);
        // AppArmor adds its mode, "name (enforce)"; SELinux ends in NUL.
        let now = now.trim_end_matches(['\0', '\n']);
        let name = now.rsplit_once(" (").map_or(now, |(name, _)| name);
        if name == wanted || now == wanted {
            return Ok(());
        }
        return Err(Failure::unverified("label", format!("{path} reads {now:?} instead of {wanted:?}")));
    }
    Err(Failure::new("label", format!("open {}", files.join(" or ")), &missing))
}

fn verify_procfs(file: &File, path: &str) -> Result<(), Failure> {
    match fstatfs(file) {
        Ok(found) if found.filesystem_type() == PROC_SUPER_MAGIC => Ok(()),
        Ok(_) => Err(Failure::unverified("label", format!("{path} is not a file of procfs"))),
        Err(errno) => Err(Failure::new("label", format!("fstatfs {path}"), &errno.into())),
    }
}
