//! Whether the kernel makes records of what Landlock denies: all of audit is switched on or off, for the whole machine.

use std::io;
use std::os::fd::AsRawFd;

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

/// `AUDIT_GET` and `AUDIT_SET`, include/uapi/linux/audit.h.
const GET: u16 = 1000;
const SET: u16 = 1001;

/// `AUDIT_STATUS_ENABLED`, the part of `struct audit_status` that is set.
const ENABLED: u32 = 1;

/// The length of `struct nlmsghdr`, and of an `audit_status` that ends after its second number.
const HEADER_BYTES: usize = 16;
const STATUS_BYTES: usize = 8;

/// Audit, switched on; as it was before when dropped.
#[derive(Debug)]
pub struct Audit(u32);

impl Audit {
    /// Switches it on.
    ///
    /// # Errors
    /// The kernel has no audit, or this process no CAP_AUDIT_CONTROL.
    pub fn enable() -> Result<Self> {
        let before = enabled()?;
        set(1)?;
        Ok(Self(before))
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        if let Err(error) = set(self.0) {
            eprintln!("audit stays on: {error:#}");
        }
    }
}

/// Whether audit can be switched on here, and Landlock tells it of denials.
#[must_use]
pub fn has_landlocks_records() -> bool {
    hardened_node::probe().landlock_abi >= 7 && enabled().is_ok_and(|now| set(now).is_ok())
}

fn enabled() -> Result<u32> {
    let answer = ask(GET, &[])?;
    let enabled = answer.get(HEADER_BYTES + 4..HEADER_BYTES + 8).context("a short answer")?;
    Ok(u32::from_ne_bytes(enabled.try_into()?))
}

fn set(enabled: u32) -> Result<()> {
    let mut status = [0; STATUS_BYTES];
    status[..4].copy_from_slice(&ENABLED.to_ne_bytes());
    status[4..].copy_from_slice(&enabled.to_ne_bytes());
    ask(SET, &status).map(drop)
}

/// Sends a request, and gives the kernel's answer to it: an error, or what it asks for.
fn ask(kind: u16, text: &[u8]) -> Result<Vec<u8>> {
    let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkAudit)?;
    let length = u32::try_from(HEADER_BYTES + text.len())?;
    // NLM_F_REQUEST; with NLM_F_ACK for what has no answer of its own.
    let flags: u16 = if kind == GET { 1 } else { 5 };
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(text);
    send(socket.as_raw_fd(), &message, MsgFlags::empty()).context("ask audit")?;
    let mut answer = vec![0; 4096];
    let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty()).context("hear audit")?;
    answer.truncate(length);
    ensure!(answer.len() >= HEADER_BYTES + 4, "a short answer");
    let of = u16::from_ne_bytes([answer[4], answer[5]]);
    if i32::from(of) == libc::NLMSG_ERROR {
        let error = i32::from_ne_bytes(answer[HEADER_BYTES..HEADER_BYTES + 4].try_into()?);
        ensure!(error == 0, "audit: {}", io::Error::from_raw_os_error(-error));
    }
    Ok(answer)
}
