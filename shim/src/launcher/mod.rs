//! The launcher: this binary run again, single-threaded, for one create or exec.
//!
//! libcontainer clones with raw `clone3` and then runs ordinary Rust in the child, which
//! deadlocks in a process with threads. So the shim never calls it; it hands what was decided (the
//! bundle and the lock-down plan) and the stdio descriptors to a fresh process and reads one answer.

mod cgroup;
pub(crate) mod child;
mod create;
mod destinations;
mod exec;
mod jail;
mod namespaces;
mod outcome;
mod program;
mod rootfs;
mod stage;
mod system;
mod volumes;
pub(crate) mod wire;
mod words;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use hardened_lockdown::Failure;
use hardened_sandbox::Namespaces;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::sync::oneshot;

pub(crate) use self::program::Program;
use self::wire::{Answer, Descriptor, Descriptors, First, MAX_FRAME_BYTES, Request, Task};
use self::words::Words;
use crate::cgroup::container_of;
use crate::judged::identity;
use crate::reaper::{Exit, Reaper};
use crate::sys::{self, ignore};

/// First argument of a launcher.
pub(crate) const ARGUMENT: &str = "launch";

/// How long a launcher may take, and the process after it until it executes. It waits for nothing of the image or of the container, but for CPU time, storage,
/// systemd and the node's hooks; and for ever in a cgroup that somebody freezes, or where a process of the container stops that of an exec. The kubelet waits two minutes for a
/// create (`--runtime-request-timeout`), and tells of this error only if it comes sooner.
const ANSWER: Duration = Duration::from_secs(60);

/// The status of what SIGKILL ended.
const KILLED: u32 = 128 + libc::SIGKILL as u32;

/// How long the news of something that has already happened may take.
const MOMENT: Duration = Duration::from_millis(50);

/// A process of the container that exists and is locked down, or will be before it executes.
#[derive(Debug)]
pub(crate) struct Launched {
    /// Pid in the shim's pid namespace.
    pub(crate) pid: i32,
    /// The process: its pid can belong to another when it has ended.
    pub(crate) process: OwnedFd,
    /// What it was made in.
    pub(crate) namespaces: Namespaces,
    /// The container's Landlock ruleset, where it has one and this is its init.
    pub(crate) ruleset: Option<OwnedFd>,
    /// What is hidden from execs of the container, with the image's links followed.
    pub(crate) hidden: Vec<PathBuf>,
    pub(crate) report: Report,
    /// Its end, which may have come already.
    pub(crate) exit: oneshot::Receiver<Exit>,
}

/// How a launched process reports its outcome.
#[derive(Debug)]
pub(crate) struct Report {
    /// Ends when the payload executes; carries the listener of a filter that is explained, and a [`Failure`] when it could
    /// not.
    status: OwnedFd,
    words: Words,
}

/// Runs a launcher to its answer.
///
/// `descriptors` are those of the request but the status socket. No stdio among them stands for a terminal, whose
/// console comes through the request's socket.
pub(crate) async fn launch(
    program: &Program,
    reaper: &Reaper,
    tag: &str,
    mut request: Request,
    mut descriptors: Descriptors,
) -> Result<Launched> {
    let (ours, theirs) = StdUnixStream::pair().context("make a socket pair")?;
    let (status, theirs_status) = StdUnixStream::pair().context("make a status socket")?;
    let (mut words, theirs_words) = Words::listen()?;
    descriptors.insert(Descriptor::Status, theirs_status.into());
    request.descriptors = descriptors.kinds();
    let is_create = matches!(request.task, Task::Create(_));
    // Exits are kept for a while: init may end before its pid is known here.
    let _launching = reaper.launching();
    let child = Command::new(program.path())
        .args([ARGUMENT, tag])
        .env_clear()
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::from(theirs_words))
        .spawn()
        .context("start a launcher")?;
    let pid = i32::try_from(child.id()).context("pid of the launcher")?;
    // Nothing has waited for it yet: the reaper is a task of this same thread.
    let process = sys::pidfd(pid).context("open the launcher's pidfd")?;
    let mut exit = reaper.watch(pid);
    let answered = async {
        ours.set_nonblocking(true).context("set the launcher's socket non-blocking")?;
        let mut socket = UnixStream::from_std(ours).context("register the launcher's socket")?;
        send(&mut socket, &request, descriptors).await.context("send the launcher its request")?;
        answer_or_exit(&mut socket, &mut exit).await
    };
    let answer = match tokio::time::timeout(ANSWER, words.heard_during(answered)).await {
        Ok(answer) => answer,
        Err(_) => Err(anyhow!("the launcher did not answer within {} seconds", ANSWER.as_secs())),
    };
    let (answer, received) = match answer {
        Ok(answer) => answer,
        Err(error) => {
            ignore(sys::pidfd_signal(&process, libc::SIGKILL), "it may have ended, which is the error then");
            let container = self::tag(&request.namespace, &request.id, None);
            end_all(&container, |found| found == tag).context(error.to_string())?;
            // What it has made becomes the shim's child with its end.
            see_out(&process, exit).await;
            return Err(words.added_to(error));
        }
    };
    match answer {
        Answer::Started { pid, namespaces, hidden, descriptors } => {
            let mut received = Descriptors::new(&descriptors, received)?;
            let process = received.take(Descriptor::Process).context("the launcher sent no pidfd")?;
            if is_create {
                if sys::has_ended(&process).context("look at init")? {
                    return Err(words.added_to(anyhow!("init has ended: it was not parked")));
                }
                // It succeeded in spite of what it has said. An exec has executed by now, or failed.
                drop(words.said());
            }
            Ok(Launched {
                pid,
                process,
                namespaces,
                ruleset: received.take(Descriptor::Ruleset),
                hidden,
                report: Report { status: status.into(), words },
                // Watched before `_launching` ends, and with it the memory of exits that nobody watches.
                exit: reaper.watch(pid),
            })
        }
        Answer::Failed { message } => {
            see_out(&process, exit).await;
            Err(words.added_to(anyhow!(message)))
        }
    }
}

/// Waits for the end of a launcher that has failed: what it has made is the shim's child then.
async fn see_out(launcher: &OwnedFd, exit: oneshot::Receiver<Exit>) {
    // One that has ended may have told so already, and would not again.
    if !sys::has_ended(launcher).unwrap_or(true) {
        ignore(tokio::time::timeout(MOMENT, exit).await, "it hangs in the kernel, then");
    }
}

async fn send(socket: &mut UnixStream, request: &Request, descriptors: Descriptors) -> Result<()> {
    let frame = wire::frame(request)?;
    let sent = socket.async_io(Interest::WRITABLE, || wire::send_first(&*socket, &frame, &descriptors)).await?;
    socket.write_all(frame.get(sent..).unwrap_or_default()).await?;
    Ok(())
}

async fn answer_or_exit(
    socket: &mut UnixStream,
    mut exit: &mut oneshot::Receiver<Exit>,
) -> Result<(Answer, Vec<OwnedFd>)> {
    // One message, not to the end of file: init holds the other end too, until it executes.
    let status = tokio::select! {
        biased;
        answer = receive(socket) => match answer {
            Ok(answer) => return Ok(answer),
            // How it ended says more, where it did.
            Err(error) => match tokio::time::timeout(MOMENT, &mut exit).await {
                Ok(Ok(exit)) => exit.status,
                Ok(Err(_)) | Err(_) => return Err(error),
            },
        },
        exit = &mut exit => {
            // It may have answered and ended at once.
            if let Ok(Ok(answer)) = tokio::time::timeout(MOMENT, receive(socket)).await {
                return Ok(answer);
            }
            exit.map_or(255, |exit| exit.status)
        }
    };
    // It is in the container's cgroup by then.
    let hint = if status == KILLED { ": is the container's memory limit too low?" } else { "" };
    bail!("the launcher ended without an answer (status {status}){hint}")
}

async fn receive(socket: &mut UnixStream) -> Result<(Answer, Vec<OwnedFd>)> {
    let first = socket.async_io(Interest::READABLE, || wire::receive_first(&*socket)).await;
    let (length, descriptors) = first.context("receive the launcher's answer")?;
    let mut body = vec![0; length];
    socket.read_exact(&mut body).await.context("read the launcher's answer")?;
    Ok((serde_json::from_slice(&body).context("decode the launcher's answer")?, descriptors))
}

/// Waits until the payload executes. Who denies calls by asking is supervised from the moment that it can ask.
///
/// # Errors
/// The lock-down's failure, or that of `execve`; or it takes too long: then the process is still there.
pub(crate) async fn executed(
    report: Report,
    has_ended: impl Fn() -> bool,
    supervise: impl FnOnce(OwnedFd),
) -> Result<()> {
    let Report { status, mut words } = report;
    executed_or_failed(status.into(), supervise).await.map_err(|error| words.added_to(error))?;
    // The socket ends with the process, too, and libcontainer's errors do not come by it. Not all of them are its end.
    let Some(said) = words.said() else { return Ok(()) };
    tokio::time::sleep(MOMENT).await;
    if has_ended() { Err(anyhow!("it ended before it executed: {said}")) } else { Ok(()) }
}

async fn executed_or_failed(status: StdUnixStream, supervise: impl FnOnce(OwnedFd)) -> Result<()> {
    status.set_nonblocking(true).context("set the status socket non-blocking")?;
    let mut status = UnixStream::from_std(status).context("register the status socket")?;
    let mut report = Vec::new();
    let reported = async {
        // A listener comes with a byte of its own, before all else.
        let first = status.async_io(Interest::READABLE, || wire::take_listener(&status)).await?;
        match first {
            First::Listener(listener) => supervise(listener),
            First::Byte(byte) => report.push(byte),
            First::End => return Ok(()),
        }
        (&mut status).take(u64::from(MAX_FRAME_BYTES)).read_to_end(&mut report).await.map(drop)
    };
    match tokio::time::timeout(ANSWER, reported).await {
        Ok(read) => read.context("read the status socket")?,
        Err(_) => bail!("it did not execute within {} seconds", ANSWER.as_secs()),
    };
    if report.is_empty() {
        return Ok(());
    }
    let failure: Failure = serde_json::from_slice(&report).context("decode the failure of the lock-down")?;
    Err(failure.into())
}

/// What `ps` shows of the launcher of a container or of an exec, and what strays are known by.
pub(crate) fn tag(namespace: &str, id: &str, exec_id: Option<&str>) -> String {
    let container = format!("{namespace}/{id}");
    exec_id.map_or_else(|| container.clone(), |exec| format!("{container}/{exec}"))
}

/// Kills what launchers of a container left half-way that were killed themselves: their children, before they became
/// processes of the container. They would make the container's cgroup again.
pub(crate) fn end_strays(namespace: &str, id: &str) -> Result<()> {
    let container = tag(namespace, id, None);
    // No id has a slash in it.
    end_all(&container, |found| {
        found.strip_prefix(&container).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

/// Kills all launchers, and children of launchers that still run this program, whose tag is wanted.
///
/// Others can call themselves the same, but run another program. Processes of other containers are not looked at: to
/// read a command line or to look at a program may take for ever, where a container has it so (a file server of its own).
fn end_all(container: &str, wanted: impl Fn(&str) -> bool) -> Result<()> {
    let own = std::fs::metadata("/proc/self/exe").context("look at this program")?;
    for entry in std::fs::read_dir("/proc").context("list /proc")? {
        let entry = entry.context("list /proc")?;
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else { continue };
        // Before the look at it, so that both are of one process. What fails from here on has just ended, or is a
        // kernel's thread: no launcher.
        let Ok(process) = sys::pidfd(pid) else { continue };
        if container_of(pid).is_some_and(|found| found != container) {
            continue;
        }
        let Ok(file) = File::open(entry.path().join("cmdline")) else { continue };
        let line = hardened_node::read_bounded(file, MAX_CMDLINE_BYTES).unwrap_or_default();
        let Some(tag) = tag_in(&line).filter(|tag| wanted(tag)) else { continue };
        let Ok(program) = std::fs::metadata(entry.path().join("exe")) else { continue };
        if identity(&program) == identity(&own) {
            log::warn!("{tag}: kill process {pid}, which its launcher left behind");
            ignore(sys::pidfd_signal(&process, libc::SIGKILL), "it may just have ended");
        }
    }
    Ok(())
}

/// The tag in a launcher's command line.
fn tag_in(line: &[u8]) -> Option<&str> {
    let mut arguments = line.strip_suffix(b"\0")?.split(|byte| *byte == 0).skip(1);
    let (first, tag) = (arguments.next()?, arguments.next()?);
    let launcher = first == ARGUMENT.as_bytes() && arguments.next().is_none();
    launcher.then(|| std::str::from_utf8(tag).ok()).flatten()
}

/// A launcher's command line is far shorter; others are not read to their ends.
const MAX_CMDLINE_BYTES: u64 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn launchers_are_known_by_their_command_line() {
        assert_eq!(tag_in(b"/proc/self/fd/9\0launch\0k8s.io/a\0"), Some("k8s.io/a"));
        assert_eq!(tag_in(format!("x\0launch\0{}\0", tag("n", "c", Some("e"))).as_bytes()), Some("n/c/e"));
        for other in [&b"sh\0launch\0"[..], b"sh\0-c\0launch\0n/c\0", b"sh\0launch\0n/c\0more\0", b"", b"\0"] {
            assert_eq!(tag_in(other), None);
        }
    }
}
