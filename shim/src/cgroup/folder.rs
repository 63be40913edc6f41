//! One folder of a cgroup file system, and those below it.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The folder and all below it, parents first; none where it is gone.
pub(super) fn tree(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut all = vec![folder.to_owned()];
    let mut at = 0;
    while let Some(folder) = all.get(at) {
        match children(folder) {
            Ok(children) => {
                at += 1;
                all.extend(children);
            }
            Err(error) if is_gone(&error) => {
                all.remove(at);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

fn children(folder: &Path) -> io::Result<Vec<PathBuf>> {
    // A folder of a cgroup file system has a link for each folder in it, and two more.
    if fs::metadata(folder)?.nlink() == 2 {
        return Ok(Vec::new());
    }
    let mut children = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            children.push(entry.path());
        }
    }
    Ok(children)
}

/// The processes in a folder and in those below it; none where it is gone.
pub(super) fn processes(folder: &Path) -> io::Result<Vec<i32>> {
    let mut all = Vec::new();
    for folder in tree(folder)? {
        match fs::read_to_string(folder.join("cgroup.procs")) {
            Ok(text) => {
                for line in text.lines() {
                    all.push(
                        line.parse().map_err(|_| io::Error::other(format!("{line:?} in cgroup.procs is no pid")))?,
                    );
                }
            }
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(error),
        }
    }
    // A process of another pid namespace is 0.
    all.retain(|pid| *pid > 0);
    Ok(all)
}

/// The sticky bit, which a cgroup of ours is born with, and which means nothing else there: what makes
/// the folder sets it in the same call.
const BORN_HERE: u32 = 0o1000;

/// Makes a folder that says from its first moment on that a launcher of ours makes it.
pub(super) fn make_marked(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(BORN_HERE | 0o755).create(folder)
}

/// Removes a folder that a launcher of ours has made, and that nobody has come into.
pub(super) fn remove_unfinished(folder: &Path) -> io::Result<()> {
    match fs::symlink_metadata(folder) {
        Ok(found) if found.mode() & BORN_HERE != 0 => {}
        Ok(_) => return Ok(()),
        Err(error) if is_gone(&error) => return Ok(()),
        Err(error) => return Err(error),
    }
    match fs::remove_dir(folder) {
        Err(error) if error.kind() == ErrorKind::ResourceBusy || is_gone(&error) => Ok(()),
        result => result,
    }
}

/// Removes a folder and those below it, once. That it is gone already is as well.
pub(super) fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir(folder) {
        Err(error) if error.kind() == ErrorKind::ResourceBusy => {}
        Err(error) if is_gone(&error) => return Ok(()),
        result => return result,
    }
    // It has processes, which may just end, or folders in it.
    for folder in tree(folder)?.iter().rev() {
        match fs::remove_dir(folder) {
            Err(error) if !is_gone(&error) => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// Whether a cgroup is gone: its path, or, for a file that was open at that moment, the device.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}
