//! Denied system calls, answered and reported.
//!
//! The filter of a container whose denials are explained asks for the answer to each call that it denies. This is who
//! is asked: it gives the errno that the filter has for the call, keeps a record of it, and can do nothing else. Where
//! it is gone the calls fail all the same, with ENOSYS.

mod bucket;
mod denials;

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use hardened_node::process::Process;
use hardened_sandbox::record::{ExecEvent, printable};
use hardened_sandbox::seccomp::{Call, Program};

use self::denials::First;
pub(crate) use self::denials::{Denials, Pod, refused};
use crate::sys::{self, Notification, ignore};

/// Calls that are answered before others of the pod have a turn.
const TURN: usize = 16;

/// How long the next call of a container is waited for, where it just made one: a caller that finds this process asleep at
/// the listener itself wakes it on its own processor, which takes a fifth of the time of a way by epoll(7).
const LINGER: Duration = Duration::from_micros(20);

/// An exec whose denials are reported.
#[derive(Debug)]
pub(crate) struct Exec {
    event: ExecEvent,
    /// Of its command line: the execs of a probe, which run the same again and again, are denied the same.
    command: u64,
}

impl Exec {
    pub(crate) fn new(exec_id: &str, arguments: &[String]) -> Self {
        let mut hasher = DefaultHasher::new();
        arguments.hash(&mut hasher);
        let executable_name = arguments.first().cloned().unwrap_or_default();
        let event = ExecEvent { exec_id: exec_id.to_owned(), executable_name: printable(&executable_name) };
        Self { event, command: hasher.finish() }
    }
}

/// Answers the calls of a process and of all that it starts, until the last of them has ended.
pub(crate) fn supervise(denials: &Arc<Denials>, exec: Option<Exec>, program: Program, listener: OwnedFd) {
    ignore(sys::wake_on_the_same_processor(&listener), "before Linux 6.6 it takes longer");
    let supervisor = Supervisor { denials: Arc::clone(denials), exec, program, listener: File::from(listener) };
    tokio::spawn(async move {
        if let Err(error) = supervisor.serve().await {
            log::error!("denied calls of {} fail with ENOSYS from here on: {error}", supervisor.denials.container());
        }
    });
}

/// Who is asked for the answers to the denied calls of one process of a container and its descendants.
struct Supervisor {
    denials: Arc<Denials>,
    exec: Option<Exec>,
    program: Program,
    listener: File,
}

impl Supervisor {
    async fn serve(&self) -> io::Result<()> {
        while let Some(wait) = self.serve_until_it_waits().await? {
            // Nobody is woken meanwhile: a call that a signal ends, and that is made again, is a new one each time.
            tokio::time::sleep(wait).await;
        }
        Ok(())
    }

    /// Until there is no token, and then says how long; or, without that, until the last process has ended.
    async fn serve_until_it_waits(&self) -> io::Result<Option<Duration>> {
        let listener = sys::register_to_read(self.listener.as_fd())?;
        loop {
            let mut readable = listener.readable().await?;
            let mut linger = Duration::ZERO;
            for _ in 0..TURN {
                // A look costs a token too: what is looked for may be gone.
                if let Err(wait) = self.denials.take_token() {
                    return Ok(Some(wait));
                }
                let events = sys::ready(&self.listener, linger)?;
                if events & libc::POLLIN != 0 {
                    match sys::receive_call(&self.listener) {
                        Ok(notification) => self.answer(&notification),
                        // The caller was killed, or a signal ended the call, meanwhile.
                        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINTR)) => {}
                        Err(error) => return Err(error),
                    }
                    linger = LINGER;
                } else if events & libc::POLLHUP != 0 {
                    return Ok(None);
                } else {
                    // POLLERR: the look itself was interrupted.
                    if events == 0 {
                        readable.clear_ready();
                    }
                    break;
                }
            }
            tokio::task::yield_now().await;
        }
    }

    /// Nothing is waited for in here: a call that was received and not answered keeps its container from being frozen.
    fn answer(&self, notification: &Notification) {
        let denials = &self.denials;
        let kind = denials.kind(&notification.call, self.exec.as_ref().map(|exec| exec.command));
        // Only the first of a kind is worth the time, and only then is the caller sure to be there.
        let look =
            || Some(Process::look_at(notification.pid)).filter(|_| sys::still_waits(&self.listener, notification));
        let caller = if denials.is_new(&kind) { look() } else { None };
        let errno = errno_for(&self.program, &notification.call);
        ignore(sys::fail_call(&self.listener, notification, errno), "the caller was killed meanwhile");
        denials.note(kind, || First {
            caller: caller.unwrap_or_default(),
            exec: self.exec.as_ref().map(|exec| exec.event.clone()),
            errno,
            explained: denials.explain(&notification.call),
        });
    }
}

/// The errno that the filter has for a call: it is the filter's own program that is run again, on the kernel's copy of
/// the call.
fn errno_for(program: &Program, call: &Call) -> u16 {
    // A call that it did not ask about is none that this is ever asked about.
    program.answer(call).and_then(Program::explained_errno).unwrap_or(libc::EPERM as u16)
}
