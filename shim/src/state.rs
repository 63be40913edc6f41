//! What is kept on disk for a container: `/run/hardened/<namespace>/<id>/`.
//!
//! ```text
//! container.json    what `delete` needs when the shim is gone
//! admission.json    what was decided, for `hardenctl explain --container`
//! standing.json     the same, for the questions of `hardenctl why`
//! config.json       the spec that libcontainer gets, which the launcher writes
//! exec-<id>.json    the process of an exec, while it is launched
//! runtime/<id>/     libcontainer's own state
//! mounts/, rootfs/  where the launcher mounts the container's parts, in its own mount namespace
//! ```
//!
//! No container can write there. All the same each file is opened by its name in the folder, whose path is looked up
//! once.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use hardened_node::process::stat_field;
use nix::fcntl::OFlag;

use crate::sys::{self, ignore};

const ROOT: &str = "/run/hardened";

/// Where compiled policies are kept; no namespace of containerd's begins with a dot.
pub(crate) fn policies() -> PathBuf {
    Path::new(ROOT).join(".policy")
}

/// How often a folder is made whose parent another shim removes at the same time.
const MAKE_TRIES: u32 = 100;

/// Largest of the files, in bytes; libcontainer's state has the container's annotations, of which there are none.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// What `delete` needs to know about a container without its shim.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct Record {
    /// The cgroup, as the spec names it.
    pub(crate) cgroup: String,
    /// Absent until there is one.
    #[serde(flatten)]
    pub(crate) init: Option<InitRecord>,
}

/// Which process init is.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct InitRecord {
    /// In the shim's pid namespace.
    pub(crate) pid: i32,
    /// `starttime` (proc_pid_stat(5), field 22), in clock ticks since boot: tells a reused pid from init.
    pub(crate) start_time: u64,
}

/// The folder of one container; removed with all in it when dropped, unless kept.
#[derive(Debug)]
pub(crate) struct StateDir {
    path: PathBuf,
    /// The folder itself.
    folder: File,
    keep: bool,
}

impl StateDir {
    /// Makes the folder.
    pub(crate) fn create(namespace: &str, id: &str) -> Result<Self> {
        let parent = Path::new(ROOT).join(namespace);
        let path = parent.join(id);
        let mut builder = DirBuilder::new();
        builder.mode(0o700);
        for _ in 0..MAKE_TRIES {
            for folder in [Path::new(ROOT), &parent] {
                match builder.create(folder) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    result => result.with_context(|| format!("make {}", folder.display()))?,
                }
            }
            match builder.create(&path) {
                // The last container of the namespace went right now, and took its folder along.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    return Err(error).with_context(|| {
                        format!(
                            "make {}: another containerd of this node has a container {id} in {namespace}",
                            path.display()
                        )
                    });
                }
                Err(error) => return Err(error).with_context(|| format!("make {}", path.display())),
                Ok(()) => break,
            }
        }
        let opened = Self::open(&path);
        let mut state = opened.inspect_err(|_| ignore(fs::remove_dir(&path), "the first error says what is wrong"))?;
        state.keep = false;
        builder.create(state.runtime_root()).context("make a folder for the runtime's state")?;
        Ok(state)
    }

    /// The folder of a container of which something may be left, though its shim is gone.
    pub(crate) fn find(namespace: &str, id: &str) -> Result<Option<Self>> {
        let path = Path::new(ROOT).join(namespace).join(id);
        if !path.is_dir() {
            return Ok(None);
        }
        let mut state = Self::open(&path)?;
        state.keep = false;
        Ok(Some(state))
    }

    /// The folder at this path, which stays when the value is dropped.
    ///
    /// # Errors
    /// It is not a container's, or somebody but root can write on the way to it.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let show = path.display();
        if path.parent().and_then(Path::parent) != Some(Path::new(ROOT)) {
            bail!("{show} is not the folder of a container");
        }
        for folder in path.ancestors().take_while(|folder| folder.starts_with(ROOT)) {
            let found = sys::open_without_links(folder).and_then(|handle| File::from(handle).metadata());
            let found = found.with_context(|| format!("open {}", folder.display()))?;
            if !found.is_dir() || found.uid() != 0 || found.mode() & 0o022 != 0 {
                bail!("{} is not a folder that only root can write to", folder.display());
            }
        }
        let folder = sys::open_without_links(path).with_context(|| format!("open {show}"))?;
        Ok(Self { path: path.to_owned(), folder: folder.into(), keep: true })
    }

    /// Lets a container in a user namespace walk through to its volumes. The files are root's alone.
    pub(crate) fn let_through(&self) -> Result<()> {
        for folder in self.path.ancestors().take_while(|folder| folder.starts_with(ROOT)) {
            fs::set_permissions(folder, fs::Permissions::from_mode(0o711))
                .with_context(|| format!("let others walk through {}", folder.display()))?;
        }
        Ok(())
    }

    /// From here on the folder outlives this value.
    #[must_use]
    pub(crate) fn keep(mut self) -> Self {
        self.keep = true;
        self
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn runtime_root(&self) -> PathBuf {
        runtime_root(&self.path)
    }

    /// Writes a file whole.
    pub(crate) fn write(&self, name: &str, value: &impl serde::Serialize) -> Result<()> {
        let text = serde_json::to_vec(value).with_context(|| format!("encode {name}"))?;
        let file = sys::open_in(&self.folder, name, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC);
        let written = file.and_then(|mut file| file.write_all(&text));
        written.with_context(|| format!("write {}", self.path.join(name).display()))
    }

    fn read<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<T> {
        let show = || self.path.join(name).display().to_string();
        let mut text = Vec::new();
        let file = sys::open_in(&self.folder, name, OFlag::O_RDONLY).with_context(|| format!("read {}", show()))?;
        file.take(MAX_FILE_BYTES).read_to_end(&mut text).with_context(|| format!("read {}", show()))?;
        serde_json::from_slice(&text).with_context(|| format!("parse {}", show()))
    }

    /// Removes a file, if it is there.
    pub(crate) fn remove_file(&self, name: &str) -> Result<()> {
        let removed = nix::unistd::unlinkat(
            Some(std::os::fd::AsRawFd::as_raw_fd(&self.folder)),
            name,
            nix::unistd::UnlinkatFlags::NoRemoveDir,
        );
        match removed {
            Err(nix::errno::Errno::ENOENT) => Ok(()),
            removed => removed.with_context(|| format!("remove {}", self.path.join(name).display())),
        }
    }

    /// Absent where a create was cut short before anything was made.
    pub(crate) fn record(&self) -> Result<Option<Record>> {
        let missing = |e: &io::Error| e.kind() == io::ErrorKind::NotFound;
        match self.read("container.json") {
            Err(error) if error.downcast_ref::<io::Error>().is_some_and(missing) => Ok(None),
            record => record.map(Some),
        }
    }

    /// Tells libcontainer that a container runs: it was not libcontainer that started it, and an exec is refused in
    /// one that does not.
    ///
    /// Written whole and renamed, since execs that are launched at once read it at any time.
    pub(crate) fn mark_running(&self, id: &str) -> Result<()> {
        let (old, new) = (format!("runtime/{id}/state.json"), format!("runtime/{id}/state.json.new"));
        let mut state: serde_json::Value = self.read(&old)?;
        if let Some(status) = state.get_mut("status") {
            *status = "running".into();
        }
        self.write(&new, &state)?;
        let folder = Some(std::os::fd::AsRawFd::as_raw_fd(&self.folder));
        nix::fcntl::renameat(folder, new.as_str(), folder, old.as_str()).with_context(|| format!("rename {new}"))
    }

    /// Removes the folder, and its namespace's when it was the last in it.
    pub(crate) fn remove(&self) -> Result<()> {
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("remove {}", self.path.display()));
            }
            Ok(()) | Err(_) => {}
        }
        if let Some(namespace) = self.path.parent() {
            ignore(fs::remove_dir(namespace), "another container may be in it, or come into it right now");
        }
        Ok(())
    }
}

impl Drop for StateDir {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = self.remove()
        {
            log::error!("{error:#}");
        }
    }
}

/// The file of an exec's process, which its launcher writes, and the shim removes.
pub(crate) fn exec_file(exec_id: &str) -> String {
    format!("exec-{exec_id}.json")
}

/// libcontainer's folder in that of a container.
pub(crate) fn runtime_root(folder: &Path) -> PathBuf {
    folder.join("runtime")
}

/// `starttime` of a process that has not ended: proc_pid_stat(5), field 22.
pub(crate) fn start_time(pid: i32, process: &impl std::os::fd::AsFd) -> Result<u64> {
    let file = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&file).with_context(|| format!("read {file}"))?;
    // As long as it has not ended, nobody else has its pid.
    if sys::has_ended(process).context("look at the process")? {
        bail!("process {pid} has ended");
    }
    stat_field(&stat, 22).with_context(|| format!("parse {file}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_folder_of_a_container_is_opened() {
        for bad in ["/run", "/run/hardened", "/run/hardened/k8s.io", "/run/hardened/a/b/c", "/tmp/a/b", "relative"] {
            assert!(StateDir::open(Path::new(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_start_time_is_that_of_a_process_that_lives() {
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let process = sys::pidfd(pid).unwrap();
        assert!(start_time(pid, &process).unwrap() > 0);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(start_time(pid, &process).is_err());
    }
}
