//! The launcher: this binary run again, single-threaded, for one create or exec.
//!
//! libcontainer clones with raw `clone3` and then runs ordinary Rust in the child, which
//! deadlocks in a process with threads. So the shim never calls it; it hands the hardened spec,
//! the lock-down plan and the stdio descriptors to a fresh process and reads one answer.

pub(crate) mod child;
pub(crate) mod mounts;
mod program;
pub(crate) mod wire;

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow};
use hardened_lockdown::Failure;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::sync::oneshot;

pub(crate) use self::program::Program;
use self::wire::{Answer, MAX_FRAME_BYTES, Request};
use crate::reaper::{Exit, Reaper};
use crate::sys;

/// First argument of a launcher.
pub(crate) const ARGUMENT: &str = "launch";

/// A process of the container that exists and is locked down, or will be before it executes.
#[derive(Debug)]
pub(crate) struct Launched {
    /// Pid in the shim's pid namespace.
    pub(crate) pid: i32,
    /// Ends when the payload executes; carries a [`Failure`] when it could not.
    pub(crate) status: OwnedFd,
    /// Its end, which may have come already.
    pub(crate) exit: oneshot::Receiver<Exit>,
}

/// Runs a launcher to its answer.
///
/// `stdio` is absent for a terminal, whose console comes through the request's socket.
pub(crate) async fn launch(
    program: &Program,
    reaper: &Reaper,
    tag: &str,
    request: &Request,
    stdio: Option<[OwnedFd; 3]>,
) -> Result<Launched> {
    let (ours, theirs) = StdUnixStream::pair().context("make a socket pair")?;
    let (status, status_writer) = std::io::pipe().context("make a status pipe")?;
    // Exits are kept for whoever asks later: init may end before its pid is known here.
    let _launching = reaper.launching();
    let child = Command::new(program.path())
        .args([ARGUMENT, tag])
        .env_clear()
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("start a launcher")?;
    let launcher = reaper.watch(i32::try_from(child.id()).context("pid of the launcher")?);

    let mut descriptors = vec![OwnedFd::from(status_writer)];
    descriptors.extend(stdio.into_iter().flatten());
    wire::send(&ours, request, &descriptors).context("send the launcher its request")?;
    drop(descriptors);

    ours.set_nonblocking(true).context("set the launcher's socket non-blocking")?;
    let mut socket = UnixStream::from_std(ours).context("register the launcher's socket")?;
    // One message, not to the end of file: init holds the other end too, until it executes.
    let answer = tokio::select! {
        biased;
        answer = receive(&mut socket) => answer?,
        exit = launcher => {
            // It may have answered and ended at once.
            match tokio::time::timeout(std::time::Duration::from_millis(50), receive(&mut socket)).await {
                Ok(answer) => answer?,
                Err(_) => return Err(anyhow!("the launcher ended without an answer (status {})", exit.map_or(255, |e| e.status))),
            }
        }
    };
    match answer {
        // Watched before `_launching` ends, and with it the memory of exits that nobody watches.
        Answer::Started { pid } => Ok(Launched { pid, status: status.into(), exit: reaper.watch(pid) }),
        Answer::Failed { message } => Err(anyhow!(message)),
    }
}

async fn receive(socket: &mut UnixStream) -> Result<Answer> {
    let length = socket.read_u32_le().await.context("the launcher ended without an answer")?;
    if length > MAX_FRAME_BYTES {
        return Err(anyhow!("the launcher answered {length} bytes; at most {MAX_FRAME_BYTES} are read"));
    }
    let mut frame = vec![0; length as usize];
    socket.read_exact(&mut frame).await.context("read the launcher's answer")?;
    serde_json::from_slice(&frame).context("decode the launcher's answer")
}

/// Waits until the payload executes.
///
/// # Errors
/// The lock-down's failure, or that of `execve`.
pub(crate) async fn executed(status: OwnedFd) -> Result<()> {
    let mut status = tokio::net::unix::pipe::Receiver::from_owned_fd(status).context("register the status pipe")?;
    let mut report = Vec::new();
    (&mut status).take(u64::from(MAX_FRAME_BYTES)).read_to_end(&mut report).await.context("read the status pipe")?;
    if report.is_empty() {
        return Ok(());
    }
    let failure: Failure = serde_json::from_slice(&report).context("decode the failure of the lock-down")?;
    Err(failure.into())
}

/// What `ps` shows of the launchers of a container, and what [`end_strays`] knows them by.
pub(crate) fn tag(namespace: &str, id: &str) -> String {
    format!("{namespace}/{id}")
}

/// Kills what a launcher that was killed itself left half-way: its children, before they became
/// the container's init. They would make the container's cgroup anew.
///
/// A container's process can call itself the same, and is killed with its container.
pub(crate) fn end_strays(namespace: &str, id: &str) -> Result<()> {
    let wanted = format!("{ARGUMENT}\0{}\0", tag(namespace, id));
    for entry in std::fs::read_dir("/proc").context("list /proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else { continue };
        // Before the look at it, so that both are of one process.
        let Ok(process) = sys::pidfd(pid) else { continue };
        let Ok(file) = File::open(entry.path().join("cmdline")) else { continue };
        let line = read_bounded(file, MAX_CMDLINE_BYTES).unwrap_or_default();
        if line.ends_with(wanted.as_bytes()) {
            // It may just have ended.
            drop(sys::pidfd_signal(&process, libc::SIGKILL));
        }
    }
    Ok(())
}

/// A launcher's command line is far shorter; others are not read to their ends.
const MAX_CMDLINE_BYTES: u64 = 4096;

/// Reads a file whole, with a bound.
pub(crate) fn read_bounded(file: File, most: u64) -> std::io::Result<Vec<u8>> {
    let mut content = Vec::new();
    file.take(most + 1).read_to_end(&mut content)?;
    if content.len() as u64 > most {
        return Err(std::io::Error::other(format!("is larger than {most} bytes")));
    }
    Ok(content)
}
