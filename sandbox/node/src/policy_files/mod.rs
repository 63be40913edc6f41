//! Reads the node's policy from its folder.
//!
//! Anyone who can write to these files decides what every pod may do. So each file and folder is
//! opened first, and owner and mode are checked on the open descriptor.

mod compiled;

use std::cell::RefCell;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use hardened_sandbox::policy::{Policy, PolicyError, PolicyErrors, Source};
use hardened_sandbox::seccomp::Arch;

pub use self::compiled::load_for_pod;
use self::compiled::{Seen, Stamp};

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
    let reader = Reader::new(trust);
    let files = reader.read(folder).map_err(|error| PolicyErrors(vec![error]))?;
    Policy::parse(&files, &|path| reader.read_seccomp(path), arch)
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
    let reader = Reader::new(Trust::Anyone);
    let file = reader.read_file(path).and_then(|file| file.ok_or_else(|| PolicyError::file(path, "no such file")));
    let file = file.map_err(|error| PolicyErrors(vec![error]))?;
    Policy::parse(&[file], &|path| reader.read_seccomp(path), arch)
}

/// Opens and checks files, and remembers which.
struct Reader {
    trust: Trust,
    /// Everything that was opened, or was not there to be opened, as it was then.
    seen: RefCell<Vec<Seen>>,
}

impl Reader {
    const fn new(trust: Trust) -> Self {
        Self { trust, seen: RefCell::new(Vec::new()) }
    }

    /// Reads `policy.toml` and `policy.d/*.toml`.
    fn read(&self, folder: &Path) -> Result<Vec<Source>, PolicyError> {
        let mut files = Vec::new();
        if self.open(folder, libc::O_DIRECTORY)?.is_some() {
            files.extend(self.read_file(&folder.join("policy.toml"))?);
            for path in self.list(&folder.join("policy.d"))? {
                files.extend(self.read_file(&path)?);
            }
        }
        Ok(files)
    }

    fn read_seccomp(&self, path: &Path) -> Result<String, String> {
        match self.read_file(path) {
            Ok(Some(source)) => Ok(source.text().to_owned()),
            Ok(None) => Err(format!("{}: no such file", path.display())),
            Err(error) => Err(error.to_string()),
        }
    }

    /// The `.toml` files of a folder, by name.
    fn list(&self, folder: &Path) -> Result<Vec<PathBuf>, PolicyError> {
        if self.open(folder, libc::O_DIRECTORY)?.is_none() {
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

    fn read_file(&self, path: &Path) -> Result<Option<Source>, PolicyError> {
        let Some(file) = self.open(path, 0)? else { return Ok(None) };
        let mut text = String::new();
        file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(|e| PolicyError::file(path, e))?;
        if text.len() as u64 > MAX_FILE_BYTES {
            return Err(PolicyError::file(path, format!("larger than {MAX_FILE_BYTES} bytes")));
        }
        Ok(Some(Source::new(path.to_owned(), text)))
    }

    /// Opens a file or folder and checks what was opened; `None` where there is none.
    fn open(&self, path: &Path, flags: i32) -> Result<Option<File>, PolicyError> {
        let opened = open(path, self.trust, flags)?;
        let stamp = opened.as_ref().map(|(_, stamp)| *stamp);
        self.seen.borrow_mut().push(Seen { path: path.to_owned(), stamp });
        Ok(opened.map(|(file, _)| file))
    }
}

/// Opens a file or folder and checks what was opened; `None` where there is none.
fn open(path: &Path, trust: Trust, flags: i32) -> Result<Option<(File, Stamp)>, PolicyError> {
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
    Ok(Some((file, Stamp::of(&found))))
}
