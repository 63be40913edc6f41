//! The kernel's audit records, as it multicasts them to readers: beside auditd and journald, and without asking for any.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result};
use hardened_sandbox::audit::{AVC, LANDLOCK_ACCESS, LANDLOCK_DOMAIN};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom, socket};
use socket2::{SockFilter, SockRef};
use tokio::sync::mpsc;

/// `1 << (AUDIT_NLGRP_READLOG - 1)`, include/uapi/linux/audit.h.
const READLOG: u32 = 1;

/// The kernel's address: netlink(7).
const KERNEL: u32 = 0;

/// `struct nlmsghdr`, in bytes: netlink(7).
const HEADER_BYTES: usize = 16;

/// Longer than any record: `MAX_AUDIT_MESSAGE_LENGTH` is 8970.
const BUFFER_BYTES: usize = 16 << 10;

/// Records that were read and not looked at yet; more stay with the kernel.
const MAX_WAITING: usize = 256;

/// What the kernel keeps for this reader at most, in bytes.
const QUEUE_BYTES: usize = 1 << 20;

/// What was read.
#[derive(Debug)]
pub(super) enum Read {
    /// A record, with its type.
    Record(u16, Vec<u8>),
    /// The kernel had more records than it keeps for a reader: it does not tell how many.
    Overrun,
}

/// Starts to listen, in a separate thread. Records of other types do not arrive: a filter in the kernel drops them, since a node
/// may have a million a second.
pub(super) fn listen() -> Result<mpsc::Receiver<io::Result<Read>>> {
    let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkAudit);
    let socket = socket.context("open a netlink socket")?;
    let options = SockRef::from(&socket);
    options.attach_filter(&filter()).context("filter audit records")?;
    options.set_recv_buffer_size(QUEUE_BYTES).context("size the queue of audit records")?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, READLOG))
        .context("listen to audit records: this takes CAP_AUDIT_READ; --no-audit serves without")?;
    let (to, from) = mpsc::channel(MAX_WAITING);
    std::thread::Builder::new().name("audit".to_owned()).spawn(move || {
        loop {
            let read = read(&socket);
            let failed = read.is_err();
            if to.blocking_send(read).is_err() || failed {
                break;
            }
        }
    })?;
    Ok(from)
}

/// Waits for the next record.
fn read(socket: &OwnedFd) -> io::Result<Read> {
    let mut buffer = [0; BUFFER_BYTES];
    loop {
        match recvfrom::<NetlinkAddr>(socket.as_raw_fd(), &mut buffer) {
            // A process that may configure the network can send messages too.
            Ok((_, sender)) if sender.is_none_or(|sender| sender.pid() != KERNEL) => {}
            Ok((length, _)) => {
                let message = buffer.get(..length).unwrap_or_default();
                // The header's length is not looked at: the kernel writes it without the header itself there.
                if let Some((&[_, _, _, _, low, high, ..], text)) = message.split_at_checked(HEADER_BYTES) {
                    return Ok(Read::Record(u16::from_ne_bytes([low, high]), text.to_vec()));
                }
            }
            Err(Errno::EINTR) => {}
            Err(Errno::ENOBUFS) => return Ok(Read::Overrun),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Lets through the types that are read: linux/filter.h. BPF loads in network order, and the header is in the machine's.
fn filter() -> [SockFilter; 6] {
    let load = SockFilter::new((libc::BPF_LD | libc::BPF_H | libc::BPF_ABS) as u16, 0, 0, 4);
    let equal = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    let is = |kind: u16, then| SockFilter::new(equal, then, 0, u16::from_be_bytes(kind.to_ne_bytes()).into());
    let answer = |bytes| SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, bytes);
    [load, is(LANDLOCK_ACCESS, 3), is(LANDLOCK_DOMAIN, 2), is(AVC, 1), answer(0), answer(u32::MAX)]
}
