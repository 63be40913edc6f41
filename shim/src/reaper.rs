//! Exit statuses: the shim is the subreaper, and waits for every child itself.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use anyhow::{Context, Result};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exit {
    /// Exit code, or 128 and the signal.
    pub(crate) status: u32,
    pub(crate) at: SystemTime,
}

/// Passes each exit to the watcher of the pid.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reaper(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    watched: HashMap<i32, oneshot::Sender<Exit>>,
    /// Exits of processes that nobody watches yet. Kept only while a launcher runs: a container's
    /// process may end before its pid is known.
    unclaimed: HashMap<i32, Exit>,
    launching: usize,
}

/// While it lives, exits are kept for later watchers.
#[derive(Debug)]
pub(crate) struct Launching(Reaper);

impl Drop for Launching {
    fn drop(&mut self) {
        let mut table = self.0.table();
        table.launching -= 1;
        if table.launching == 0 {
            table.unclaimed.clear();
        }
    }
}

impl Reaper {
    /// Reaps from now on.
    pub(crate) fn start() -> Result<Self> {
        let reaper = Self::default();
        let mut children = signal(SignalKind::child()).context("subscribe to SIGCHLD")?;
        let reaping = reaper.clone();
        tokio::spawn(async move {
            while children.recv().await.is_some() {
                reaping.reap();
            }
        });
        Ok(reaper)
    }

    pub(crate) fn launching(&self) -> Launching {
        self.table().launching += 1;
        Launching(self.clone())
    }

    /// The exit of a child, past or to come.
    pub(crate) fn watch(&self, pid: i32) -> oneshot::Receiver<Exit> {
        let (sender, receiver) = oneshot::channel();
        let mut table = self.table();
        match table.unclaimed.remove(&pid) {
            // The receiver is right here.
            Some(exit) => drop(sender.send(exit)),
            None => drop(table.watched.insert(pid, sender)),
        }
        receiver
    }

    fn reap(&self) {
        // Signals coalesce: one may stand for many children.
        loop {
            let (pid, status) = match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid.as_raw(), code),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid.as_raw(), 128 + signal as i32),
                Ok(_) | Err(_) => return,
            };
            let exit = Exit { status: u32::try_from(status).unwrap_or(255), at: SystemTime::now() };
            let mut table = self.table();
            match table.watched.remove(&pid) {
                // The watcher may have given up.
                Some(sender) => drop(sender.send(exit)),
                None if table.launching > 0 => drop(table.unclaimed.insert(pid, exit)),
                None => {}
            }
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
