//! What the shim and a launcher say to each other: one frame each way, length and JSON.

use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use hardened_sandbox::LockdownPlan;
use hardened_sandbox::bundle::CgroupPath;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, sendmsg};

use crate::sys;

/// Largest frame that is read, in bytes.
pub(crate) const MAX_FRAME_BYTES: u32 = 1 << 20;

/// Descriptors that come with a request: the status pipe, and stdin, stdout and stderr.
const MAX_DESCRIPTORS: usize = 4;

/// What a launcher is to do.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Request {
    pub(crate) task: Task,
    /// containerd's namespace.
    pub(crate) namespace: String,
    /// The container.
    pub(crate) id: String,
    /// Where libcontainer keeps its state.
    pub(crate) runtime_root: PathBuf,
    /// What the process applies to itself.
    pub(crate) plan: LockdownPlan,
    /// Socket that takes the terminal's master.
    pub(crate) console: Option<PathBuf>,
}

#[derive(Debug, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) enum Task {
    /// Build a container and park its init.
    Create {
        /// Folder with the hardened `config.json`.
        bundle: PathBuf,
        /// Where the root file system is mounted, in a mount namespace of the launcher's own.
        rootfs: PathBuf,
        mounts: Vec<RootfsMount>,
        /// What the container finds below the bundle.
        volumes: Vec<Volume>,
        /// Mappings of a user namespace that is to be made, and found below the bundle.
        #[serde(deserialize_with = "Option::deserialize")]
        users: Option<Owners>,
        /// User and group of the host that are the container's root.
        root: (u32, u32),
        /// Whether the network namespace is a new one, whose `lo` nobody else switches on.
        loopback: bool,
    },
    /// Run one more process in a container.
    Exec {
        /// The hardened OCI process.
        process: PathBuf,
        /// The container's cgroup.
        cgroup: CgroupPath,
        /// Init of a container that has a user namespace.
        #[serde(deserialize_with = "Option::deserialize")]
        user_namespace_of: Option<i32>,
    },
}

/// A mount that makes up the root file system, as containerd asks for it.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RootfsMount {
    pub(crate) kind: String,
    pub(crate) source: String,
    pub(crate) options: Vec<String>,
}

/// A file or folder of the host that the container finds below the bundle: the source of a bind
/// mount, or a namespace.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Volume {
    /// What it is called below the bundle.
    pub(crate) name: String,
    pub(crate) source: PathBuf,
    /// Whether the path may have symbolic links in it, as those of namespaces do.
    pub(crate) links: bool,
    /// Whether mounts below come along.
    pub(crate) recursive: bool,
    /// Whether what the host mounts below later does too.
    pub(crate) slave: bool,
    #[serde(deserialize_with = "Option::deserialize")]
    pub(crate) owners: Option<Owners>,
    /// Whether the owners in the mounts below are mapped too.
    pub(crate) map_all: bool,
}

/// Mappings of a user namespace, or of the owners of a mount's files, in lines of
/// user_namespaces(7): first id inside or on the file system, first id on the host, how many.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Owners {
    pub(crate) uids: String,
    pub(crate) gids: String,
}

/// What came of it.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(crate) enum Answer {
    Started { pid: i32 },
    Failed { message: String },
}

/// Sends a request with its descriptors.
pub(crate) fn send(socket: &UnixStream, request: &Request, descriptors: &[OwnedFd]) -> Result<()> {
    let frame = frame(request)?;
    let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let control = [ControlMessage::ScmRights(&raw)];
    let sent = sendmsg::<UnixAddr>(socket.as_raw_fd(), &[IoSlice::new(&frame)], &control, MsgFlags::MSG_NOSIGNAL, None)
        .context("sendmsg")?;
    let mut socket = socket;
    socket.write_all(frame.get(sent..).unwrap_or_default()).context("write")
}

/// Receives a request with its descriptors.
pub(crate) fn receive(socket: &UnixStream) -> Result<(Request, Vec<OwnedFd>)> {
    let mut length = [0; 4];
    let mut control = nix::cmsg_space!([RawFd; MAX_DESCRIPTORS]);
    let mut buffers = [IoSliceMut::new(&mut length)];
    let message = recvmsg::<UnixAddr>(socket.as_raw_fd(), &mut buffers, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC)
        .context("recvmsg")?;
    let mut descriptors = Vec::new();
    for control in message.cmsgs().context("control message")? {
        if let ControlMessageOwned::ScmRights(numbers) = control {
            descriptors.extend(numbers.into_iter().map(sys::adopt));
        }
    }
    let received = message.bytes;
    if received != size_of::<u32>() {
        bail!("a request of {received} bytes");
    }
    let length = u32::from_le_bytes(length);
    if length > MAX_FRAME_BYTES {
        bail!("a request of {length} bytes; at most {MAX_FRAME_BYTES} are read");
    }
    let mut frame = vec![0; length as usize];
    let mut socket = socket;
    socket.read_exact(&mut frame).context("read")?;
    Ok((serde_json::from_slice(&frame).context("decode")?, descriptors))
}

/// Sends an answer.
pub(crate) fn answer(socket: &UnixStream, answer: &Answer) -> Result<()> {
    let mut socket = socket;
    socket.write_all(&frame(answer)?).context("write")
}

fn frame(message: &impl serde::Serialize) -> Result<Vec<u8>> {
    let body = serde_json::to_vec(message).context("encode")?;
    let length = u32::try_from(body.len()).ok().filter(|l| *l <= MAX_FRAME_BYTES).context("too large a message")?;
    Ok([length.to_le_bytes().as_slice(), &body].concat())
}
