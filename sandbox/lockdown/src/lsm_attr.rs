//! AppArmor profile and SELinux label: written to `/proc/self/attr`, to take effect on `execve`,
//! and read back.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};

use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

use crate::Failure;

/// AppArmor's own folder exists since Linux 5.8; where it does not, the old files are its own.
const APPARMOR: [&str; 2] = ["/proc/self/attr/apparmor", "/proc/self/attr"];

pub(crate) fn apply(apparmor: &BTreeSet<String>, selinux: Option<&str>) -> Result<(), Failure> {
    if !apparmor.is_empty() {
        enter_profiles(apparmor)?;
    }
    if let Some(label) = selinux {
        take_label(label)?;
    }
    Ok(())
}

/// With no_new_privs set, a confined process can only narrow its profile, by stacking more on it
/// (apparmor.d(5)): a runtime that is confined itself does that.
fn enter_profiles(wanted: &BTreeSet<String>) -> Result<(), Failure> {
    let folder = if std::path::Path::new(APPARMOR[0]).exists() { APPARMOR[0] } else { APPARMOR[1] };
    let own = read(&format!("{folder}/current"))?;
    let command = if own == "unconfined" { "exec" } else { "stack" };
    let stack: Vec<&str> = wanted.iter().map(String::as_str).collect();
    let stack = stack.join("//&");
    let file = format!("{folder}/exec");
    write(&file, &format!("{command} {stack}")).map_err(|mut failure| {
        if failure.errno == libc::ENOENT {
            failure.step =
                format!("{}: is every one of {stack} loaded? apparmor_parser -r loads a profile", failure.step);
        } else if own != "unconfined" {
            failure.step = format!("{}: the runtime's own profile {own} must have change_profile rules", failure.step);
        }
        failure
    })?;
    // Such as "hardened//&web (enforce)".
    let now = read(&file)?;
    let label = now.rsplit_once(" (").map_or(now.as_str(), |(label, _)| label);
    let entered: BTreeSet<&str> = label.split("//&").collect();
    if wanted.iter().all(|profile| entered.contains(profile.as_str())) {
        return Ok(());
    }
    Err(Failure::unverified("label", format!("{file} reads {now:?} instead of {stack:?}")))
}

fn take_label(label: &str) -> Result<(), Failure> {
    let file = "/proc/self/attr/exec";
    write(file, label).map_err(|mut failure| {
        if failure.errno == libc::EINVAL {
            failure.step = format!("{}: the node's SELinux policy has no such label", failure.step);
        }
        failure
    })?;
    let now = read(file)?;
    if now == label {
        return Ok(());
    }
    Err(Failure::unverified("label", format!("{file} reads {now:?} instead of {label:?}")))
}

fn write(path: &str, text: &str) -> Result<(), Failure> {
    let mut file =
        OpenOptions::new().write(true).open(path).map_err(|e| Failure::new("label", format!("open {path}"), &e))?;
    verify_procfs(&file, path)?;
    file.write_all(text.as_bytes()).map_err(|e| Failure::new("label", format!("write {text:?} to {path}"), &e))
}

/// What the file says, without the NUL or newline at its end.
fn read(path: &str) -> Result<String, Failure> {
    let fail = |e| Failure::new("label", format!("read {path}"), &e);
    let file = File::open(path).map_err(fail)?;
    verify_procfs(&file, path)?;
    let mut text = Vec::new();
    match file.take(4096).read_to_end(&mut text) {
        Ok(_) => Ok(String::from_utf8_lossy(&text).trim_end_matches(['\0', '\n']).to_owned()),
        // AppArmor answers so where nothing is set.
        Err(e) if e.kind() == ErrorKind::InvalidInput => Ok(String::new()),
        Err(e) => Err(fail(e)),
    }
}

/// An image or a mount could put another file there (CVE-2019-16884, CVE-2025-52881).
fn verify_procfs(file: &File, path: &str) -> Result<(), Failure> {
    match fstatfs(file) {
        Ok(found) if found.filesystem_type() == PROC_SUPER_MAGIC => Ok(()),
        Ok(_) => Err(Failure::unverified("label", format!("{path} is not a file of procfs"))),
        Err(errno) => Err(Failure::new("label", format!("fstatfs {path}"), &errno.into())),
    }
}
