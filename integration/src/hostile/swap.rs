//! Somebody who shares a volume, and changes what a name in it stands for, all the time.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context, Result, ensure};

/// Lets two names change places, at once.
///
/// # Errors
/// One of them is not there.
pub fn exchange(a: &Path, b: &Path) -> Result<()> {
    let (a, b) = (CString::new(a.as_os_str().as_bytes())?, CString::new(b.as_os_str().as_bytes())?);
    let here = libc::AT_FDCWD;
    // SAFETY: both are paths that end in NUL. (musl has no function for it.)
    let result =
        unsafe { libc::syscall(libc::SYS_renameat2, here, a.as_ptr(), here, b.as_ptr(), libc::RENAME_EXCHANGE) };
    ensure!(result == 0, "renameat2: {}", io::Error::last_os_error());
    Ok(())
}

/// A thread that does so until it is stopped.
#[derive(Debug)]
pub struct Swapper {
    done: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<u64>>>,
}

impl Swapper {
    /// Starts one.
    #[must_use]
    pub fn start(pairs: Vec<(PathBuf, PathBuf)>) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&done);
        let thread = std::thread::spawn(move || {
            let mut swaps = 0;
            while !stop.load(Ordering::Relaxed) {
                for (folder, link) in &pairs {
                    exchange(folder, link)?;
                    swaps += 1;
                }
                // Long enough for a runtime to take a step or two in between.
                std::thread::sleep(std::time::Duration::from_micros(20 + swaps % 180));
            }
            // The folder is a folder in the end.
            if swaps / u64::try_from(pairs.len().max(1))? % 2 == 1 {
                for (folder, link) in &pairs {
                    exchange(folder, link)?;
                }
            }
            Ok(swaps)
        });
        Self { done, thread: Some(thread) }
    }

    /// Stops it; how often names changed places.
    ///
    /// # Errors
    /// A name was taken away.
    pub fn stop(mut self) -> Result<u64> {
        self.done.store(true, Ordering::Relaxed);
        self.thread.take().context("stopped twice")?.join().ok().context("the swapper panicked")?
    }
}

impl Drop for Swapper {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
    }
}

/// Makes a folder and the link that it changes places with, beside each other.
pub(super) fn pair(volume: &Path, name: &str, target: &std::ffi::OsStr) -> Result<(PathBuf, PathBuf)> {
    let (folder, link) = (volume.join(name), volume.join(format!(".{name}")));
    if !fs::symlink_metadata(&folder).is_ok_and(|found| found.is_dir()) {
        if fs::symlink_metadata(&folder).is_ok() {
            fs::remove_file(&folder)?;
        }
        fs::create_dir(&folder)?;
    }
    std::os::unix::fs::symlink(target, &link)?;
    Ok((folder, link))
}
