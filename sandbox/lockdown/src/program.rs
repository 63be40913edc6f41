//! The payload: which program, with which arguments and environment.

use std::ffi::CString;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::fs::{Mode, ResolveFlags, openat2};

use crate::beneath::{self, HANDLE};
use crate::failure::Mechanism;
use crate::{Failure, sys};

/// Links are followed, inside of the container's root.
const LOOK: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

/// A program to run, as the hardened spec names it.
#[derive(Debug, Clone)]
pub struct Payload {
    arguments: Vec<String>,
    environment: Vec<String>,
}

impl Payload {
    /// Arguments (the first names the program) and environment (`KEY=value`), in the spec's order.
    #[must_use]
    pub const fn new(arguments: Vec<String>, environment: Vec<String>) -> Self {
        Self { arguments, environment }
    }

    pub(crate) fn set_home(&mut self, home: &str) {
        self.environment.retain(|e| !e.starts_with("HOME="));
        self.environment.push(format!("HOME={home}"));
    }

    /// Checks that the program exists, before the process executes it. To be called in
    /// the container's root; names are relative to `directory`.
    ///
    /// The caller can look into processes that the container cannot, so no magic link of procfs is followed: the names
    /// are the pod's, and `/proc/1/fd/N/..` must not tell it what the host has.
    ///
    /// # Errors
    /// It does not exist. All else is for the process itself to find out, as its user.
    pub fn look_for(&self, directory: &Path) -> Result<(), Failure> {
        let root = beneath::root().map_err(|e| Failure::new(Mechanism::Execve, "open /", e))?;
        let look = |path: &Path| {
            let file = openat2(&root, directory.join(path), HANDLE, Mode::empty(), LOOK)?;
            File::from(file).metadata()
        };
        match self.find(look) {
            Err(failure) if failure.errno == libc::ENOENT => Err(failure),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    pub(crate) fn resolve(self) -> Result<Resolved, Failure> {
        let name = self.find(|path| std::fs::metadata(path))?;
        Ok(Resolved {
            path: c_string(name.clone())?,
            name,
            arguments: self.arguments.into_iter().map(c_string).collect::<Result<_, _>>()?,
            environment: self.environment.into_iter().map(c_string).collect::<Result<_, _>>()?,
        })
    }

    /// Finds the program: as it is where it has a slash, else along `PATH`.
    fn find(&self, look: impl Fn(&Path) -> io::Result<Metadata>) -> Result<String, Failure> {
        let program = self.arguments.first().cloned().unwrap_or_default();
        let path = self.environment.iter().find_map(|e| e.strip_prefix("PATH=")).unwrap_or_default();
        let candidates: Vec<String> = if program.contains('/') {
            vec![program.clone()]
        } else {
            path.split(':').map(|d| format!("{}/{program}", if d.is_empty() { "." } else { d })).collect()
        };
        let mut denied = None;
        for candidate in candidates {
            match look(Path::new(&candidate)) {
                Ok(found) if found.is_file() && found.permissions().mode() & 0o111 != 0 => return Ok(candidate),
                Ok(found) => {
                    let what = if found.is_file() { "is not executable" } else { "is not a file" };
                    denied = denied.or(Some((candidate, what.to_owned(), libc::EACCES)));
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOTDIR) => {}
                Err(error) => {
                    let errno = error.raw_os_error().unwrap_or(libc::EACCES);
                    denied = denied.or(Some((candidate, "cannot be looked at".to_owned(), errno)));
                }
            }
        }
        let (step, errno) = match denied {
            Some((candidate, what, errno)) => (format!("{candidate:?} {what}"), errno),
            None if program.contains('/') => (format!("{program:?} does not exist in the container"), libc::ENOENT),
            None => (format!("{program:?}: executable file not found in $PATH ({path})"), libc::ENOENT),
        };
        Err(Failure { mechanism: Mechanism::Execve, step, errno })
    }
}

fn c_string(text: String) -> Result<CString, Failure> {
    // The decision refuses NUL bytes; this is its second line.
    CString::new(text).map_err(|e| Failure::unverified(Mechanism::Execve, format!("an argument with a NUL byte: {e}")))
}

/// A program that exists, ready for `execve`.
#[derive(Debug)]
pub(crate) struct Resolved {
    name: String,
    path: CString,
    arguments: Vec<CString>,
    environment: Vec<CString>,
}

impl Resolved {
    pub(crate) fn execute(self) -> Failure {
        let error = sys::execve(&self.path, &self.arguments, &self.environment);
        // The program was there a moment ago, so these two have one likely cause each.
        let hint = match error.raw_os_error() {
            Some(libc::ENOENT) => ": its interpreter or dynamic loader is missing in the container",
            Some(libc::ENOEXEC) => ": it is for another architecture, or a script without #!",
            _ => "",
        };
        Failure::new(Mechanism::Execve, format!("{:?}{hint}", self.name), error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(program: &str, path: &str) -> Result<String, Failure> {
        Payload::new(vec![program.into()], vec![format!("PATH={path}")]).resolve().map(|r| r.name)
    }

    #[test]
    fn a_program_is_found_along_path_and_errors_name_what_was_looked_for() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().display();
        std::fs::write(dir.path().join("plain"), "").unwrap();
        assert_eq!(resolve("sh", "/nowhere:/bin").unwrap(), "/bin/sh");
        assert_eq!(resolve("plain", &root.to_string()).unwrap_err().errno, libc::EACCES);
        assert_eq!(resolve(&root.to_string(), "").unwrap_err().errno, libc::EACCES);
        let look_for = |program: &str, at: &Path| Payload::new(vec![program.into()], Vec::new()).look_for(at);
        look_for("./plain", dir.path()).unwrap();
        assert_eq!(look_for("./plain", Path::new("/")).unwrap_err().errno, libc::ENOENT);
        // Not a word on what lies behind another process's root or descriptors.
        look_for("/proc/self/root/no-such", Path::new("/")).unwrap();
        let missing = resolve("no-such", "/bin").unwrap_err();
        insta::assert_snapshot!(missing, @r#"execve: "no-such": executable file not found in $PATH (/bin): No such file or directory (os error 2)"#);
    }
}
