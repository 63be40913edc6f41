//! AppArmor profile and SELinux label: written to `/proc/self/attr`, to take effect on `execve`,
//! and read back.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{ErrorKind, Write};

use rustix::fs::OFlags;

use crate::Failure;
use crate::beneath::HANDLE;
use crate::failure::Mechanism;
use crate::procfs::ProcFs;

/// AppArmor's own folder exists since Linux 5.8; where it does not, the old files are its own.
const APPARMOR: [&str; 2] = ["self/attr/apparmor", "self/attr"];

/// Longest label that is read, in bytes: the kernel writes no more than a page.
const MAX_LABEL_BYTES: u64 = 4096;

pub(crate) fn apply(apparmor: &BTreeSet<String>, selinux: Option<&str>, proc: Option<&ProcFs>) -> Result<(), Failure> {
    if apparmor.is_empty() && selinux.is_none() {
        return Ok(());
    }
    let problem = "no procfs is at /proc, by which a label is taken: mount proc at /proc in the container";
    let proc = proc.ok_or_else(|| Failure::unverified(Mechanism::Label, problem))?;
    if !apparmor.is_empty() {
        enter_profiles(proc, apparmor)?;
    }
    if let Some(label) = selinux {
        take_label(proc, label)?;
    }
    Ok(())
}

/// With no_new_privs set, a confined process can only narrow its profile, by stacking more on it
/// (apparmor.d(5)): a runtime that is confined itself does that.
fn enter_profiles(proc: &ProcFs, wanted: &BTreeSet<String>) -> Result<(), Failure> {
    let folder = if proc.open_file(APPARMOR[0], HANDLE).is_ok() { APPARMOR[0] } else { APPARMOR[1] };
    let own = read(proc, &format!("{folder}/current"))?;
    let command = if own == "unconfined" { "exec" } else { "stack" };
    let stack: Vec<&str> = wanted.iter().map(String::as_str).collect();
    let stack = stack.join("//&");
    let file = format!("{folder}/exec");
    write(proc, &file, &format!("{command} {stack}")).map_err(|mut failure| {
        if failure.errno == libc::ENOENT {
            failure.step =
                format!("{}: is every one of {stack} loaded? apparmor_parser -r loads a profile", failure.step);
        } else if own != "unconfined" {
            failure.step = format!("{}: the runtime's own profile {own} must have change_profile rules", failure.step);
        }
        failure
    })?;
    // Such as "hardened//&web (enforce)".
    let now = read(proc, &file)?;
    let label = now.rsplit_once(" (").map_or(now.as_str(), |(label, _)| label);
    let entered: BTreeSet<&str> = label.split("//&").collect();
    if wanted.iter().all(|profile| entered.contains(profile.as_str())) {
        return Ok(());
    }
    Err(Failure::unverified(Mechanism::Label, format!("/proc/{file} reads {now:?} instead of {stack:?}")))
}

fn take_label(proc: &ProcFs, label: &str) -> Result<(), Failure> {
    let file = "self/attr/exec";
    write(proc, file, label).map_err(|mut failure| {
        if failure.errno == libc::EINVAL {
            failure.step = format!("{}: the node's SELinux policy has no such label", failure.step);
        }
        failure
    })?;
    let now = read(proc, file)?;
    if now == label {
        return Ok(());
    }
    Err(Failure::unverified(Mechanism::Label, format!("/proc/{file} reads {now:?} instead of {label:?}")))
}

fn write(proc: &ProcFs, path: &str, text: &str) -> Result<(), Failure> {
    let file = proc
        .open_file(path, OFlags::WRONLY)
        .map_err(|e| Failure::new(Mechanism::Label, format!("open /proc/{path}"), e))?;
    File::from(file)
        .write_all(text.as_bytes())
        .map_err(|e| Failure::new(Mechanism::Label, format!("write {text:?} to /proc/{path}"), e))
}

/// What the file says, without the NUL or newline at its end.
fn read(proc: &ProcFs, path: &str) -> Result<String, Failure> {
    match proc.read(path, MAX_LABEL_BYTES) {
        Ok(text) if text.len() as u64 > MAX_LABEL_BYTES => {
            Err(Failure::unverified(Mechanism::Label, format!("/proc/{path} has more than {MAX_LABEL_BYTES} bytes")))
        }
        Ok(text) => Ok(String::from_utf8_lossy(&text).trim_end_matches(['\0', '\n']).to_owned()),
        // AppArmor answers so where nothing is set.
        Err(e) if e.kind() == ErrorKind::InvalidInput => Ok(String::new()),
        Err(e) => Err(Failure::new(Mechanism::Label, format!("read /proc/{path}"), e)),
    }
}
