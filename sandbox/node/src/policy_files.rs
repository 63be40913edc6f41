//! Reads the node's policy from its folder.
//!
//! Whoever can write to these files decides what every pod may do. So each file and folder is
//! opened first, and owner and mode are checked on the open descriptor.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use hardened_sandbox::policy::{Policy, PolicyError, PolicyErrors, Source};
use hardened_sandbox::seccomp::Arch;

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
    let files = read(folder, trust).map_err(|error| PolicyErrors(vec![error]))?;
    Policy::parse(&files, &|path| read_seccomp(path, trust), arch)
}

/// Checks a folder that somebody has named: it must be there, and nobody but root may have put it there.
///
/// # Errors
/// What is wrong with it.
pub fn check_named(folder: &Path) -> Result<(), String> {
    let real = folder.canonicalize().map_err(|error| error.to_string())?;
    if !real.is_dir() {
        return Err("it is not a folder".to_owned());
    }
    for above in real.ancestors().skip(1) {
        let found = above.metadata().map_err(|error| format!("{}: {error}", above.display()))?;
        if found.uid() != 0 || found.mode() & 0o022 != 0 {
            return Err(format!("users other than root may write to {}, which contains it", above.display()));
        }
    }
    Ok(())
}

/// Reads and checks one file alone, for a person who works on it.
///
/// # Errors
/// Everything that is wrong.
pub fn load_file(path: &Path, arch: Arch) -> Result<Policy, PolicyErrors> {
    let file =
        read_file(path, Trust::Anyone).and_then(|file| file.ok_or_else(|| PolicyError::file(path, "no such file")));
    let file = file.map_err(|error| PolicyErrors(vec![error]))?;
    Policy::parse(&[file], &|path| read_seccomp(path, Trust::Anyone), arch)
}

/// Reads `policy.toml` and `policy.d/*.toml`.
fn read(folder: &Path, trust: Trust) -> Result<Vec<Source>, PolicyError> {
    let mut files = Vec::new();
    if open(folder, trust, libc::O_DIRECTORY)?.is_some() {
        files.extend(read_file(&folder.join("policy.toml"), trust)?);
        for path in list(&folder.join("policy.d"), trust)? {
            files.extend(read_file(&path, trust)?);
        }
    }
    Ok(files)
}

fn read_seccomp(path: &Path, trust: Trust) -> Result<String, String> {
    match read_file(path, trust) {
        Ok(Some(source)) => Ok(source.text().to_owned()),
        Ok(None) => Err(format!("{}: no such file", path.display())),
        Err(error) => Err(error.to_string()),
    }
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
    Ok(Some(Source::new(path.to_owned(), text)))
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
