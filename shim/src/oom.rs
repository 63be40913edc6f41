//! OOM kills in a container's cgroup, as they happen.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tokio::task::AbortHandle;

use crate::cgroup::Cgroup;
use crate::sys;

/// Calls back for each OOM kill until the handle is aborted or the cgroup is gone.
pub(crate) fn watch(cgroup: &Cgroup, on_kill: impl Fn() + Send + 'static) -> Result<AbortHandle> {
    let folder = cgroup.folder("memory")?;
    let unified = Cgroup::is_unified()?;
    let (events, counter, key) = if unified {
        let file = folder.join("memory.events");
        let path = CString::new(file.as_os_str().as_bytes()).context("path of the cgroup")?;
        (sys::watch(&path).with_context(|| format!("watch {}", file.display()))?, file, "oom_kill")
    } else {
        // Documentation/admin-guide/cgroup-v1/memory.rst, "OOM control".
        let file = folder.join("memory.oom_control");
        (register(&folder, &file)?, file, "oom_kill")
    };
    let mut seen = count(&counter, key);
    let mut events = sys::register(File::from(events)).map_err(|(_, e)| e).context("register the cgroup's events")?;
    let task = tokio::spawn(async move {
        while let Ok(mut ready) = events.readable_mut().await {
            let mut buffer = [0; 4096];
            if ready.try_io(|file| file.get_mut().read(&mut buffer)).is_err() {
                continue;
            }
            if !counter.exists() {
                return;
            }
            let now = count(&counter, key);
            // The v1 counter moves only when the kill is done, after the event: an event is a kill.
            let kills = if unified { now.saturating_sub(seen) } else { 1 };
            seen = now;
            for _ in 0..kills {
                on_kill();
            }
        }
    });
    Ok(task.abort_handle())
}

fn register(folder: &Path, file: &PathBuf) -> Result<OwnedFd> {
    let event = sys::eventfd().context("make an eventfd")?;
    let control = File::open(file).with_context(|| format!("open {}", file.display()))?;
    let line = format!("{} {}", event.as_raw_fd(), control.as_raw_fd());
    fs::write(folder.join("cgroup.event_control"), line).context("register for OOM events")?;
    Ok(event)
}

fn count(file: &Path, key: &str) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().find_map(|l| l.strip_prefix(key)?.trim().parse().ok()).unwrap_or(0)
}
