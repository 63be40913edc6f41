//! What the shim and a launcher say to each other: one frame each way, its length and JSON, and descriptors with it.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use hardened_sandbox::bundle::{Bundle, CgroupPath, Process};
use hardened_sandbox::{LockdownPlan, Namespaces};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, sendmsg};

use crate::sys;

/// Largest frame that is read, in bytes. Kubernetes' largest pods make a few hundred kilobytes of it.
pub(crate) const MAX_FRAME_BYTES: u32 = 16 << 20;

/// Most descriptors that come with a frame.
const MAX_DESCRIPTORS: usize = 8;

/// What a launcher is to do.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Request {
    pub(crate) task: Task,
    /// containerd's namespace.
    pub(crate) namespace: String,
    /// The container.
    pub(crate) id: String,
    /// Its folder in `/run/hardened`.
    pub(crate) state: PathBuf,
    /// Its cgroup.
    pub(crate) cgroup: CgroupPath,
    /// What the process applies to itself.
    pub(crate) plan: LockdownPlan,
    /// Socket that takes the terminal's master.
    #[serde(deserialize_with = "Option::deserialize")]
    pub(crate) console: Option<PathBuf>,
    /// What each of the descriptors is that come with the request.
    pub(crate) descriptors: Vec<Descriptor>,
}

#[derive(Debug, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) enum Task {
    /// Build a container and park its init.
    Create(Box<Create>),
    /// Run one more process in a container.
    Exec(Box<Exec>),
}

/// A container to be made.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Create {
    pub(crate) bundle: Bundle,
    /// containerd's bundle.
    pub(crate) folder: PathBuf,
    /// What makes up the root file system, as containerd asks for it.
    pub(crate) rootfs: Vec<RootfsMount>,
    /// User and group of the host that are the container's root.
    pub(crate) root: (u32, u32),
}

/// A process to be run in a container.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Exec {
    pub(crate) process: Process,
    /// What distinguishes it from the container's other execs.
    pub(crate) exec_id: String,
    /// Whether the container has a user namespace of its own.
    pub(crate) user_namespace: bool,
    /// `oom_score_adj`, that of init as a rule.
    #[serde(deserialize_with = "Option::deserialize")]
    pub(crate) oom_score_adj: Option<i32>,
    /// What init was made in, which the process must be in too.
    pub(crate) namespaces: Namespaces,
}

/// A mount that makes up the root file system, as containerd asks for it.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RootfsMount {
    pub(crate) kind: String,
    pub(crate) source: String,
    pub(crate) options: Vec<String>,
}

/// What a descriptor is that comes with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) enum Descriptor {
    /// Takes the filter's listener, and the failure of the lock-down.
    Status,
    Stdin,
    Stdout,
    Stderr,
    /// Pidfd of the container's init.
    Init,
    /// Pidfd of the process that was made.
    Process,
    /// The container's Landlock ruleset.
    Ruleset,
}

/// What came of it.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(crate) enum Answer {
    Started {
        /// In the shim's pid namespace.
        pid: i32,
        /// What it was made in.
        namespaces: Namespaces,
        /// What is hidden from execs of the container, with the image's links followed.
        hidden: Vec<PathBuf>,
        /// What each of the descriptors is that come with the answer.
        descriptors: Vec<Descriptor>,
    },
    Failed {
        message: String,
    },
}

/// Descriptors by what they are: one of a kind.
#[derive(Debug, Default)]
pub(crate) struct Descriptors(Vec<(Descriptor, OwnedFd)>);

impl Descriptors {
    /// Those that came with a frame, which says what they are.
    pub(crate) fn new(kinds: &[Descriptor], received: Vec<OwnedFd>) -> Result<Self> {
        if kinds.len() != received.len() {
            bail!("{} descriptors came; the message names {}", received.len(), kinds.len());
        }
        Ok(Self(kinds.iter().copied().zip(received).collect()))
    }

    pub(crate) fn insert(&mut self, kind: Descriptor, descriptor: OwnedFd) {
        self.0.push((kind, descriptor));
    }

    pub(crate) fn take(&mut self, kind: Descriptor) -> Option<OwnedFd> {
        let at = self.0.iter().position(|(found, _)| *found == kind)?;
        Some(self.0.swap_remove(at).1)
    }

    pub(crate) fn kinds(&self) -> Vec<Descriptor> {
        self.0.iter().map(|(kind, _)| *kind).collect()
    }

    fn numbers(&self) -> Vec<RawFd> {
        self.0.iter().map(|(_, descriptor)| descriptor.as_raw_fd()).collect()
    }
}

/// A frame that is being sent: what of it has not been sent with its descriptors.
pub(crate) fn frame(message: &impl serde::Serialize) -> Result<Vec<u8>> {
    let body = serde_json::to_vec(message).context("encode")?;
    let length = u32::try_from(body.len()).ok().filter(|l| *l <= MAX_FRAME_BYTES).context("too large a message")?;
    Ok([length.to_le_bytes().as_slice(), &body].concat())
}

/// Sends the beginning of a frame, with its descriptors; returns how many bytes.
pub(crate) fn send_first(socket: &impl AsFd, frame: &[u8], descriptors: &Descriptors) -> io::Result<usize> {
    let numbers = descriptors.numbers();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let control = if numbers.is_empty() { &rights[..0] } else { &rights[..] };
    let socket = socket.as_fd().as_raw_fd();
    Ok(sendmsg::<UnixAddr>(socket, &[IoSlice::new(frame)], control, MsgFlags::MSG_NOSIGNAL, None)?)
}

/// Receives the length of a frame, and its descriptors.
pub(crate) fn receive_first(socket: &impl AsFd) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut length = [0; 4];
    let (received, descriptors) = receive_descriptors(socket.as_fd(), &mut length, MsgFlags::empty())?;
    if received == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    // A stream socket gives four bytes at once that were sent at once.
    if received != length.len() {
        return Err(io::Error::other(format!("a message of {received} bytes")));
    }
    let length = u32::from_le_bytes(length);
    if length > MAX_FRAME_BYTES {
        return Err(io::Error::other(format!("a message of {length} bytes; at most {MAX_FRAME_BYTES} are read")));
    }
    Ok((length as usize, descriptors))
}

fn receive_descriptors(socket: BorrowedFd<'_>, bytes: &mut [u8], flags: MsgFlags) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut control = nix::cmsg_space!([RawFd; MAX_DESCRIPTORS]);
    let mut buffers = [IoSliceMut::new(bytes)];
    let flags = flags | MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<UnixAddr>(socket.as_raw_fd(), &mut buffers, Some(&mut control), flags)?;
    let mut descriptors = Vec::new();
    let lost = message.flags.contains(MsgFlags::MSG_CTRUNC);
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = control {
            descriptors.extend(numbers.into_iter().map(sys::adopt));
        }
    }
    if lost {
        return Err(io::Error::other("a descriptor was lost: this process may open no more files (RLIMIT_NOFILE)"));
    }
    Ok((message.bytes, descriptors))
}

/// Receives a request, on a launcher's side.
pub(crate) fn receive(socket: &UnixStream) -> Result<(Request, Descriptors)> {
    let (length, received) = receive_first(socket).context("receive")?;
    let mut body = vec![0; length];
    let mut socket = socket;
    socket.read_exact(&mut body).context("read")?;
    let request: Request = serde_json::from_slice(&body).context("decode")?;
    let descriptors = Descriptors::new(&request.descriptors, received)?;
    Ok((request, descriptors))
}

/// Sends an answer, on a launcher's side.
pub(crate) fn answer(socket: &UnixStream, answer: &Answer, descriptors: &Descriptors) -> Result<()> {
    let frame = frame(answer)?;
    let sent = send_first(socket, &frame, descriptors).context("send")?;
    let mut socket = socket;
    socket.write_all(frame.get(sent..).unwrap_or_default()).context("write")
}

/// Hands a descriptor, or the word that there is none, to who holds the other end.
pub(crate) fn hand_over(socket: &UnixStream, descriptor: Option<&OwnedFd>) -> io::Result<()> {
    let numbers: Vec<RawFd> = descriptor.iter().map(|d| d.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let control = if numbers.is_empty() { &rights[..0] } else { &rights[..] };
    let word = [u8::from(descriptor.is_some())];
    sendmsg::<UnixAddr>(socket.as_raw_fd(), &[IoSlice::new(&word)], control, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

/// Takes what was handed over already: nothing is waited for.
pub(crate) fn take_over(socket: &impl AsFd) -> io::Result<Option<OwnedFd>> {
    let mut word = [0];
    let (received, descriptors) = receive_descriptors(socket.as_fd(), &mut word, MsgFlags::MSG_DONTWAIT)?;
    match (received, word, descriptors.into_iter().next()) {
        (1, [0], None) => Ok(None),
        (1, [1], Some(descriptor)) => Ok(Some(descriptor)),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// What comes first on a status socket.
pub(crate) enum First {
    /// The listener of a filter whose denials are explained.
    Listener(OwnedFd),
    /// The first byte of a failure.
    Byte(u8),
    /// Nothing: the payload executes.
    End,
}

/// Takes what comes first on a status socket.
pub(crate) fn take_listener(socket: &impl AsFd) -> io::Result<First> {
    let mut byte = [0];
    let (received, descriptors) = receive_descriptors(socket.as_fd(), &mut byte, MsgFlags::empty())?;
    Ok(match (descriptors.into_iter().next(), received) {
        (Some(listener), _) => First::Listener(listener),
        (None, 0) => First::End,
        (None, _) => First::Byte(byte[0]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_is_handed_over_or_the_word_that_there_is_none() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        assert!(take_over(&theirs).is_err());
        hand_over(&ours, None).unwrap();
        assert!(take_over(&theirs).unwrap().is_none());
        let file = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        hand_over(&ours, Some(&file)).unwrap();
        assert!(take_over(&theirs).unwrap().is_some());
        drop(ours);
        assert!(take_over(&theirs).is_err());
    }

    #[test]
    fn an_answer_comes_with_its_descriptors() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut sent = Descriptors::default();
        sent.insert(Descriptor::Process, OwnedFd::from(std::fs::File::open("/dev/null").unwrap()));
        let started =
            Answer::Started { pid: 7, namespaces: Namespaces::new(), hidden: Vec::new(), descriptors: sent.kinds() };
        answer(&ours, &started, &sent).unwrap();
        let (length, received) = receive_first(&theirs).unwrap();
        let mut body = vec![0; length];
        (&theirs).read_exact(&mut body).unwrap();
        let Answer::Started { pid: 7, descriptors, .. } = serde_json::from_slice(&body).unwrap() else {
            unreachable!("what was sent is received")
        };
        let mut received = Descriptors::new(&descriptors, received).unwrap();
        assert!(received.take(Descriptor::Process).is_some());
        assert!(received.take(Descriptor::Process).is_none());
        assert!(Descriptors::new(&[Descriptor::Init], Vec::new()).is_err());
    }
}
