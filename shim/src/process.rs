//! One process that containerd knows of: a container's init, or an exec.

use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use containerd_shim_protos::types::task::Status;
use tokio::sync::watch;

use crate::fault::{Fault, Result};
use crate::reaper::Exit;
use crate::stdio::{Io, Streams};
use crate::sys::{self, ignore};

/// Where a process is in its life. Containerd's events follow these steps, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Made, and not started.
    Created,
    /// Start is under way: an exit that comes now is announced after the start.
    Starting,
    /// Executing.
    Running,
    /// Ended.
    Stopped(Exit),
}

/// A container's init, or an exec.
#[derive(Debug)]
pub(crate) struct Process {
    /// Empty for init.
    pub(crate) exec_id: String,
    pub(crate) streams: Streams,
    phase: watch::Sender<Phase>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Absent before there is one.
    launched: Option<Handle>,
    io: Option<Io>,
    /// CloseIO may come while the process is still being launched.
    stdin_closed: bool,
}

/// A process that was launched.
#[derive(Debug)]
struct Handle {
    /// A name for containerd, and for people: another process's, once this one is waited for.
    pid: i32,
    process: OwnedFd,
}

impl Process {
    pub(crate) fn new(exec_id: String, streams: Streams) -> Self {
        Self { exec_id, streams, phase: watch::Sender::new(Phase::Created), inner: Mutex::default() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its pid, once there is one.
    pub(crate) fn pid(&self) -> Option<i32> {
        self.inner().launched.as_ref().map(|launched| launched.pid)
    }

    /// Pid as containerd counts it: 0 before there is one.
    pub(crate) fn pid_u32(&self) -> u32 {
        self.pid().and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0)
    }

    /// Another handle on it, to be handed on.
    pub(crate) fn handle(&self) -> Result<OwnedFd> {
        match &self.inner().launched {
            Some(launched) => Ok(launched.process.try_clone().context("duplicate a pidfd")?),
            None => Err(not_started()),
        }
    }

    /// Whether it has ended, announced or not.
    pub(crate) fn has_ended(&self) -> Result<bool> {
        match &self.inner().launched {
            Some(launched) => Ok(sys::has_ended(&launched.process).context("look at a process")?),
            None => Err(not_started()),
        }
    }

    pub(crate) fn launched(&self, pid: i32, process: OwnedFd, io: Io) {
        let mut inner = self.inner();
        let closed = inner.stdin_closed;
        inner.launched = Some(Handle { pid, process });
        let io = inner.io.insert(io);
        if closed {
            io.close_stdin();
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    pub(crate) fn set_phase(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    /// From `Created` to `Starting`, for one caller only.
    pub(crate) fn begin_start(&self) -> Result<()> {
        let mut began = false;
        self.phase.send_if_modified(|phase| {
            began = *phase == Phase::Created;
            if began {
                *phase = Phase::Starting;
            }
            began
        });
        if began { Ok(()) } else { Err(Fault::state(format!("cannot start: the process is {}", self.describe()))) }
    }

    /// Waits while Start is under way.
    pub(crate) async fn settled(&self) {
        let settled = self.phase.subscribe().wait_for(|phase| *phase != Phase::Starting).await.map(drop);
        ignore(settled, "the sender is this value");
    }

    /// Waits for the end.
    pub(crate) async fn exited(&self) -> Exit {
        let mut phases = self.phase.subscribe();
        loop {
            if let Phase::Stopped(exit) = *phases.borrow_and_update() {
                return exit;
            }
            if phases.changed().await.is_err() {
                // Cannot be: the sender is `self`.
                std::future::pending::<()>().await;
            }
        }
    }

    pub(crate) fn status(&self, paused: bool) -> Status {
        match self.phase() {
            Phase::Created | Phase::Starting => Status::CREATED,
            Phase::Running if paused => Status::PAUSED,
            Phase::Running => Status::RUNNING,
            Phase::Stopped(_) => Status::STOPPED,
        }
    }

    pub(crate) fn describe(&self) -> &'static str {
        match self.phase() {
            Phase::Created => "created",
            Phase::Starting => "being started",
            Phase::Running => "running",
            Phase::Stopped(_) => "stopped",
        }
    }

    /// Ends stdin as soon as its other writers do.
    pub(crate) fn close_stdin(&self) {
        let mut inner = self.inner();
        inner.stdin_closed = true;
        if let Some(io) = inner.io.as_mut() {
            io.close_stdin();
        }
    }

    /// Does something with the streams, where there are any.
    pub(crate) fn with_io<T>(&self, f: impl FnOnce(&mut Io) -> T) -> Option<T> {
        self.inner().io.as_mut().map(f)
    }

    /// Waits until its output is read.
    pub(crate) async fn drain(&self) {
        let io = self.inner().io.take();
        if let Some(io) = io {
            io.drain().await;
        }
    }

    /// Signals it.
    pub(crate) fn signal(&self, signal: i32) -> Result<()> {
        let gone = || Fault::not_found("process already finished");
        if matches!(self.phase(), Phase::Stopped(_)) {
            return Err(gone());
        }
        let inner = self.inner();
        let Some(Handle { pid, process }) = &inner.launched else { return Err(not_started()) };
        match sys::pidfd_signal(process, signal) {
            Ok(()) => Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Err(gone()),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                Err(Fault::invalid(format!("signal {signal} does not exist")))
            }
            Err(error) => Err(anyhow::Error::from(error).context(format!("signal process {pid}")).into()),
        }
    }
}

fn not_started() -> Fault {
    Fault::state("the process is not started yet")
}
