//! Last words: why a launcher ended without an answer, or what libcontainer leaves out of its errors.
//!
//! libcontainer's errors often name no step, or come from a process of its own that has ended meanwhile: it tells more to
//! `tracing`, which nobody listens to otherwise. A panic, and memory that cannot be had, end a process without any error.
//! A hook of the node tells on its standard error why it failed. All of these speak to a socket of the shim's, which
//! looks there when a launch has failed.

use std::fmt::Write;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream as StdUnixStream;

use anyhow::{Context, Result};
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::socket::{MsgFlags, send};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Most that is kept of them, in bytes.
const MAX_WORDS_BYTES: usize = 4096;

/// Most lines of them that are reported.
const MAX_LINES: usize = 2;

/// What Rust adds to each panic, for developers.
const HINT: &str = "note: run with `RUST_BACKTRACE";

/// The shim's end.
#[derive(Debug)]
pub(crate) struct Words {
    socket: UnixStream,
    heard: Vec<u8>,
}

impl Words {
    /// Makes the socket, and gives the launcher's standard error.
    pub(super) fn listen() -> Result<(Self, OwnedFd)> {
        let (ours, theirs) = StdUnixStream::pair().context("make a socket pair")?;
        // Nobody is waited for: a process of the container can hold the other end.
        ours.set_nonblocking(true).context("set a socket non-blocking")?;
        let socket = UnixStream::from_std(ours).context("register the socket for last words")?;
        Ok((Self { socket, heard: Vec::new() }, theirs.into()))
    }

    /// Does `work`, and hears meanwhile what is said: a hook that says much would wait until somebody does.
    pub(super) async fn heard_during<T>(&mut self, work: impl Future<Output = T>) -> T {
        let Self { socket, heard } = self;
        let hearing = async {
            while socket.async_io(Interest::READABLE, || hear(socket.as_fd(), heard)).await? != 0 {}
            io::Result::Ok(())
        };
        tokio::pin!(work);
        tokio::select! {
            biased;
            done = &mut work => return done,
            heard = hearing => heard.unwrap_or_else(|error| log::warn!("hear the last words of a launcher: {error}")),
        }
        work.await
    }

    /// An error with the words that came before it, if they say more.
    pub(super) fn added_to(&mut self, error: anyhow::Error) -> anyhow::Error {
        match self.said() {
            Some(words) => anyhow::anyhow!("{error:#} ({words})"),
            None => error,
        }
    }

    /// What has been said since.
    pub(super) fn said(&mut self) -> Option<String> {
        // What has come is there up to the first answer that more could come.
        while self.heard.len() < MAX_WORDS_BYTES {
            match hear(self.socket.as_fd(), &mut self.heard) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    log::warn!("hear the last words of a launcher: {error}");
                    break;
                }
            }
        }
        let words = std::mem::take(&mut self.heard);
        let words = String::from_utf8_lossy(&words);
        // Names of the image may be among them. The first say what has failed, the later ones what failed because of that.
        let plain = |line: &str| line.replace(char::is_control, " ").trim().to_owned();
        let said = words.lines().map(plain).filter(|line| !line.is_empty() && !line.starts_with(HINT));
        let words: Vec<String> = said.take(MAX_LINES).collect();
        (!words.is_empty()).then(|| words.join("; "))
    }
}

/// Reads once, and keeps what there is room for. 0 is the end.
fn hear(socket: BorrowedFd<'_>, heard: &mut Vec<u8>) -> io::Result<usize> {
    let mut words = [0; MAX_WORDS_BYTES];
    let read = nix::unistd::read(socket.as_raw_fd(), &mut words)?;
    let room = MAX_WORDS_BYTES.saturating_sub(heard.len());
    heard.extend_from_slice(&words[..read.min(room)]);
    Ok(read)
}

/// Has this process, and those that libcontainer makes, say their last words. Standard error becomes the container's
/// later, so they go to a descriptor beside it, which is returned.
pub(super) fn speak() -> Result<RawFd> {
    let words = fcntl(2, FcntlArg::F_DUPFD_CLOEXEC(3)).context("duplicate standard error")?;
    std::panic::set_hook(Box::new(move |panic| say(words, &panic.to_string())));
    tracing::subscriber::set_global_default(Told(words)).context("listen to libcontainer")?;
    Ok(words)
}

fn say(words: RawFd, what: &str) {
    let line = format!("{}\n", what.replace('\n', " "));
    // Neither waited for, nor an error: there is nobody else to tell.
    crate::sys::ignore(send(words, line.as_bytes(), MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL), "see above");
}

/// libcontainer's errors as it logs them.
struct Told(RawFd);

impl Subscriber for Told {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::ERROR
    }

    fn max_level_hint(&self) -> Option<tracing::level_filters::LevelFilter> {
        Some(tracing::level_filters::LevelFilter::ERROR)
    }

    fn event(&self, event: &Event<'_>) {
        let mut text = Text::default();
        event.record(&mut text);
        say(self.0, &format!("{}{}", text.message, text.fields));
    }

    // Spans tell where it was, which the message says well enough.
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let written = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
        crate::sys::ignore(written, "a String takes everything");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_error_comes_with_the_words_before_it() {
        let (mut words, theirs) = Words::listen().unwrap();
        let error = || anyhow::anyhow!("failed to prepare rootfs");
        assert_eq!(words.added_to(error()).to_string(), "failed to prepare rootfs");
        say(theirs.as_raw_fd(), "panicked at a.rs:1:\nno \u{1b}memory");
        tracing::subscriber::with_default(Told(theirs.as_raw_fd()), || {
            tracing::error!(path = "/x", "failed to mount");
            tracing::warn!("of no consequence");
        });
        assert_eq!(
            words.added_to(error()).to_string(),
            "failed to prepare rootfs (panicked at a.rs:1: no  memory; failed to mount path=\"/x\")"
        );
        drop(theirs);
        assert_eq!(words.added_to(error()).to_string(), "failed to prepare rootfs");
    }
    #[tokio::test]
    async fn who_says_much_is_heard_out_and_the_first_of_it_is_kept() {
        let (mut words, theirs) = Words::listen().unwrap();
        let speak = tokio::task::spawn_blocking(move || {
            let mut theirs = std::fs::File::from(theirs);
            (0..10_000).try_for_each(|n| io::Write::write_fmt(&mut theirs, format_args!("{n}: it is said at length\n")))
        });
        words.heard_during(speak).await.unwrap().unwrap();
        assert_eq!(words.said().unwrap(), "0: it is said at length; 1: it is said at length");
        // The other end is gone, and the work goes on.
        assert_eq!(words.heard_during(async { 7 }).await, 7);
    }
}
