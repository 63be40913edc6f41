//! What is kept on disk for a container: `/run/hardened/<namespace>/<id>/`.
//!
//! ```text
//! config.json       the hardened spec: the bundle that libcontainer gets
//! exec-<id>.json    the hardened process of an exec, while it is launched
//! container.json    what `delete` needs when the shim is gone
//! admission.json    what was decided, for `hardenctl explain --container`
//! runtime/<id>/     libcontainer's own state
//! ```

use std::fs::{self, DirBuilder};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

const ROOT: &str = "/run/hardened";

/// How often a folder is made whose parent another shim removes at the same time.
const MAKE_TRIES: u32 = 100;

/// What `delete` needs to know about a container without its shim.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct Record {
    /// Pid of init, in the shim's pid namespace.
    pub(crate) pid: i32,
    /// `starttime` of init (proc_pid_stat(5), field 22), in clock ticks since boot: tells a
    /// reused pid from init.
    pub(crate) start_time: u64,
    /// The cgroup, as in the spec.
    pub(crate) cgroup: String,
}

/// The folder of one container; removed with all in it when dropped, unless kept.
#[derive(Debug)]
pub(crate) struct StateDir {
    path: PathBuf,
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
        let state = Self { path, keep: false };
        builder.create(state.runtime_root()).context("make a folder for the runtime's state")?;
        Ok(state)
    }

    /// The folder of a container whose shim is gone; `None` where there is nothing left of it.
    pub(crate) fn find(namespace: &str, id: &str) -> Option<Self> {
        let path = Path::new(ROOT).join(namespace).join(id);
        path.is_dir().then_some(Self { path, keep: false })
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
    pub(crate) fn keep(mut self) -> PathBuf {
        self.keep = true;
        self.path.clone()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn runtime_root(&self) -> PathBuf {
        runtime_root(&self.path)
    }

    pub(crate) fn record(&self) -> Result<Record> {
        let file = self.path.join("container.json");
        let text = fs::read(&file).with_context(|| format!("read {}", file.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("parse {}", file.display()))
    }
}

impl Drop for StateDir {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = remove(&self.path)
        {
            log::error!("{error:#}");
        }
    }
}

pub(crate) fn runtime_root(folder: &Path) -> PathBuf {
    folder.join("runtime")
}

pub(crate) fn write(folder: &Path, name: &str, value: &impl serde::Serialize) -> Result<PathBuf> {
    let path = folder.join(name);
    let text = serde_json::to_vec(value).with_context(|| format!("encode {name}"))?;
    let file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
    file.and_then(|mut file| file.write_all(&text)).with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

/// Tells libcontainer that a container runs: it was not libcontainer that started it, and an exec
/// is refused in one that does not.
///
/// Written whole and renamed, since execs that are launched at once read it at any time.
pub(crate) fn mark_running(folder: &Path, id: &str) -> Result<()> {
    let runtime = runtime_root(folder).join(id);
    let path = runtime.join("state.json");
    let text = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
    let mut state: serde_json::Value =
        serde_json::from_slice(&text).with_context(|| format!("parse {}", path.display()))?;
    if let Some(status) = state.get_mut("status") {
        *status = "running".into();
    }
    let new = write(&runtime, "state.json.new", &state)?;
    fs::rename(&new, &path).with_context(|| format!("rename {}", new.display()))
}

/// Removes a container's folder, and its namespace's when it was the last in it.
pub(crate) fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("remove {}", folder.display()));
        }
        Ok(()) | Err(_) => {}
    }
    if let Some(namespace) = folder.parent() {
        // Another container may be in it, or come into it right now.
        drop(fs::remove_dir(namespace));
    }
    Ok(())
}

/// `starttime` of a process: proc_pid_stat(5), field 22.
pub(crate) fn start_time(pid: i32) -> Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("read /proc/{pid}/stat"))?;
    // The second field is the command in parentheses, and may hold anything, more of them too.
    let rest = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
    rest.split_whitespace().nth(19).and_then(|f| f.parse().ok()).with_context(|| format!("parse /proc/{pid}/stat"))
}
