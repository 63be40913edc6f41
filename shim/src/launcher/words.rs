//! Last words: why a launcher ended without an answer, or what libcontainer leaves out of its errors.
//!
//! libcontainer's errors often name no step, or come from a process of its own that has ended meanwhile: it tells more to
//! `tracing`, which nobody listens to otherwise. A panic, and memory that cannot be had, end a process without any error.
//! All of these speak to a socket of the shim's, which looks there when a launch has failed.

use std::fmt::Write;
use std::io::{self, Read};
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result};
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::socket::{MsgFlags, send};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Most that is read of them, in bytes.
const MAX_WORDS_BYTES: u64 = 4096;

/// Most lines of them that are reported.
const MAX_LINES: usize = 2;

/// What Rust adds to each panic, for developers.
const HINT: &str = "note: run with `RUST_BACKTRACE";

/// The shim's end.
#[derive(Debug)]
pub(crate) struct Words(UnixStream);

impl Words {
    /// Makes the socket, and gives the launcher's standard error.
    pub(super) fn listen() -> Result<(Self, OwnedFd)> {
        let (ours, theirs) = UnixStream::pair().context("make a socket pair")?;
        // Nobody is waited for: a process of the container can hold the other end.
        ours.set_nonblocking(true).context("set a socket non-blocking")?;
        Ok((Self(ours), theirs.into()))
    }

    /// An error with the words that came before it, if they say more.
    pub(super) fn added_to(&self, error: anyhow::Error) -> anyhow::Error {
        match self.said() {
            Some(words) => anyhow::anyhow!("{error:#} ({words})"),
            None => error,
        }
    }

    /// What has been said since.
    pub(super) fn said(&self) -> Option<String> {
        let mut words = Vec::new();
        // What has come is there up to the first answer that more could come.
        match (&self.0).take(MAX_WORDS_BYTES).read_to_end(&mut words) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => log::warn!("read the last words of a launcher: {error}"),
        }
        let words = String::from_utf8_lossy(&words);
        // Names of the image may be among them. The first say what has failed, the later ones what failed because of that.
        let plain = |line: &str| line.replace(char::is_control, " ").trim().to_owned();
        let said = words.lines().map(plain).filter(|line| !line.is_empty() && !line.starts_with(HINT));
        let words: Vec<String> = said.take(MAX_LINES).collect();
        (!words.is_empty()).then(|| words.join("; "))
    }
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
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn an_error_comes_with_the_words_before_it() {
        let (words, theirs) = Words::listen().unwrap();
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
}
