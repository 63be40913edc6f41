//! Reads the node's policy from its folder.
//!
//! Whoever can write to these files decides what every pod may do. So each file and folder is
//! opened first, and owner and mode are checked on the open descriptor.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::error::PolicyError;
use super::file::PolicyFile;
use super::{Policy, PolicyErrors, Source, Sources};
use crate::seccomp::Arch;

/// Where the node's policy is, unless containerd's configuration of the runtime says otherwise.
pub const FOLDER: &str = "/etc/hardened";

/// Largest file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// Most files in `policy.d`.
const MAX_FILES: usize = 1000;

/// Who must own the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// Root, and nobody else may write: a node.
    Root,
    /// Anybody: somebody's working copy, which decides nothing.
    Anyone,
}

/// Reads and checks the policy in a folder. A folder that does not exist, or is empty, is the
/// built-in policy.
///
/// # Errors
/// Everything that is wrong; nothing wider is ever put in its place.
pub fn load(folder: &Path, trust: Trust, arch: Arch) -> Result<Policy, PolicyErrors> {
    let sources = read(folder, trust).map_err(|error| PolicyErrors(vec![error]))?;
    Policy::parse(&sources, arch)
}

/// Reads `policy.toml`, `policy.d/*.toml` and the seccomp profiles that they name.
///
/// # Errors
/// A file or folder cannot be read, or others than root may write to it.
pub fn read(folder: &Path, trust: Trust) -> Result<Sources, PolicyError> {
    let mut files = Vec::new();
    if open(folder, trust, libc::O_DIRECTORY)?.is_some() {
        files.extend(read_file(&folder.join("policy.toml"), trust)?);
        for path in list(&folder.join("policy.d"), trust)? {
            files.extend(read_file(&path, trust)?);
        }
    }
    Ok(with_seccomp(files, trust))
}

/// Reads these files alone, for a person who works on them.
///
/// # Errors
/// One cannot be read.
pub fn read_files(paths: &[PathBuf]) -> Result<Sources, PolicyError> {
    let mut files = Vec::new();
    for path in paths {
        files.push(read_file(path, Trust::Anyone)?.ok_or_else(|| PolicyError::file(path, "no such file"))?);
    }
    Ok(with_seccomp(files, Trust::Anyone))
}

/// Adds what `seccomp.oci` names; why it cannot be read is told where it is named.
fn with_seccomp(files: Vec<Source>, trust: Trust) -> Sources {
    let mut seccomp = BTreeMap::new();
    for source in &files {
        let Ok(file) = toml::from_str::<PolicyFile>(&source.text) else { continue };
        for path in file.profile.into_values().filter_map(|table| table.into_inner().seccomp.oci) {
            let path = path.into_inner();
            let text = match read_file(&path, trust) {
                Ok(Some(source)) => Ok(source.text),
                Ok(None) => Err(format!("{}: no such file", path.display())),
                Err(error) => Err(error.to_string()),
            };
            seccomp.insert(path, text);
        }
    }
    Sources { files, seccomp }
}

/// The `.toml` files of a folder, by name.
fn list(folder: &Path, trust: Trust) -> Result<Vec<PathBuf>, PolicyError> {
    if open(folder, trust, libc::O_DIRECTORY)?.is_none() {
        return Ok(Vec::new());
    }
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|e| PolicyError::file(folder, e))? {
        let path = entry.map_err(|e| PolicyError::file(folder, e))?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            paths.push(path);
        }
    }
    if paths.len() > MAX_FILES {
        return Err(PolicyError::file(folder, format!("{} files; at most {MAX_FILES} are read", paths.len())));
    }
    paths.sort();
    Ok(paths)
}

fn read_file(path: &Path, trust: Trust) -> Result<Option<Source>, PolicyError> {
    let Some(file) = open(path, trust, 0)? else { return Ok(None) };
    let mut text = String::new();
    file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(|e| PolicyError::file(path, e))?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(PolicyError::file(path, format!("larger than {MAX_FILE_BYTES} bytes")));
    }
    Ok(Some(Source { path: path.to_owned(), text }))
}

/// Opens a file or folder and checks what was opened; `None` where there is none.
fn open(path: &Path, trust: Trust, flags: i32) -> Result<Option<File>, PolicyError> {
    // Not to be held up by a fifo.
    let flags = flags | libc::O_CLOEXEC | libc::O_NONBLOCK;
    let file = match File::options().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(PolicyError::file(path, error)),
    };
    let found = file.metadata().map_err(|e| PolicyError::file(path, e))?;
    if !found.is_file() && !found.is_dir() {
        return Err(PolicyError::file(path, "is neither a file nor a folder"));
    }
    if trust == Trust::Root {
        if found.uid() != 0 {
            let problem = format!("belongs to uid {}; run: chown root {}", found.uid(), path.display());
            return Err(PolicyError::file(path, problem));
        }
        if found.mode() & 0o022 != 0 {
            let problem = format!(
                "others may write to it (mode {:o}); run: chmod go-w {}",
                found.mode() & 0o7777,
                path.display()
            );
            return Err(PolicyError::file(path, problem));
        }
    }
    Ok(Some(file))
}
