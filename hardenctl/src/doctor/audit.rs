//! What the kernel says about its audit: asked, and never changed.

use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket};
use nix::sys::time::{TimeVal, TimeValLike};

/// `AUDIT_GET`, include/uapi/linux/audit.h.
const GET: u16 = 1000;

/// `NLM_F_REQUEST`: netlink(7).
const REQUEST: u16 = 1;

/// `struct nlmsghdr`, in bytes: netlink(7).
const HEADER_BYTES: usize = 16;

/// Where `enabled` and `pid` are in `struct audit_status`, include/uapi/linux/audit.h.
const ENABLED_AT: usize = HEADER_BYTES + 4;
const PID_AT: usize = HEADER_BYTES + 12;

/// How long the kernel may take to answer, in seconds: one of its threads does it.
const PATIENCE_SECONDS: i64 = 2;

/// The kernel's audit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Audit {
    /// It is built in, and was not switched off at boot.
    There {
        /// What it is set to.
        set: Set,
        /// The process to which the kernel sends all records, auditd as a rule.
        daemon: Option<u32>,
    },
    /// The kernel was built without it, or booted with `audit=0`.
    Missing,
    /// The kernel does not say it here.
    Hidden(Errno),
}

/// What audit is set to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Set {
    Off,
    On,
    /// On, and nobody can change that until the next boot.
    Locked,
}

impl Audit {
    /// Asks the kernel. It tells processes with CAP_AUDIT_CONTROL in the first pid and user namespaces.
    pub(super) fn look() -> Self {
        let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkAudit);
        let socket = match socket {
            Ok(socket) => socket,
            // No audit has registered for the protocol: netlink_create() in net/netlink/af_netlink.c.
            Err(Errno::EPROTONOSUPPORT) => return Self::Missing,
            Err(error) => return Self::Hidden(error),
        };
        let mut answer = [0; 1024];
        let asked = setsockopt(&socket, ReceiveTimeout, &TimeVal::seconds(PATIENCE_SECONDS))
            .and_then(|()| send(socket.as_raw_fd(), &question(), MsgFlags::empty()))
            .and_then(|_| recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty()));
        match asked {
            Ok(length) => Self::parse(answer.get(..length).unwrap_or_default()),
            Err(error) => Self::Hidden(error),
        }
    }

    /// Reads the kernel's answer: the status, or an error.
    fn parse(answer: &[u8]) -> Self {
        let number = |at: usize| -> Option<[u8; 4]> { answer.get(at..at + 4)?.try_into().ok() };
        let kind = answer.get(4..6).and_then(|kind| kind.try_into().ok()).map(u16::from_ne_bytes);
        match (kind, number(ENABLED_AT), number(PID_AT)) {
            (Some(GET), Some(enabled), Some(pid)) => {
                let set = match u32::from_ne_bytes(enabled) {
                    0 => Set::Off,
                    1 => Set::On,
                    _ => Set::Locked,
                };
                let daemon = Some(u32::from_ne_bytes(pid)).filter(|pid| *pid != 0);
                Self::There { set, daemon }
            }
            (Some(_), ..) => {
                let error = number(HEADER_BYTES).map_or(0, i32::from_ne_bytes);
                Self::Hidden(Errno::from_raw(-error))
            }
            (None, ..) => Self::Hidden(Errno::EBADMSG),
        }
    }
}

/// A request for the status.
fn question() -> [u8; HEADER_BYTES] {
    let mut message = [0; HEADER_BYTES];
    message[..4].copy_from_slice(&(HEADER_BYTES as u32).to_ne_bytes());
    message[4..6].copy_from_slice(&GET.to_ne_bytes());
    message[6..8].copy_from_slice(&REQUEST.to_ne_bytes());
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(kind: u16, numbers: &[i32]) -> Vec<u8> {
        let mut message = vec![0; HEADER_BYTES];
        message[4..6].copy_from_slice(&kind.to_ne_bytes());
        message.extend(numbers.iter().flat_map(|number| number.to_ne_bytes()));
        message
    }

    #[test]
    fn the_kernels_answer_is_read() {
        let status = |enabled, pid| Audit::parse(&answer(GET, &[0, enabled, 1, pid, 0, 64]));
        assert_eq!(status(0, 0), Audit::There { set: Set::Off, daemon: None });
        assert_eq!(status(1, 812), Audit::There { set: Set::On, daemon: Some(812) });
        assert_eq!(status(2, 0), Audit::There { set: Set::Locked, daemon: None });
        // NLMSG_ERROR.
        assert_eq!(Audit::parse(&answer(2, &[-libc::EPERM])), Audit::Hidden(Errno::EPERM));
        assert_eq!(Audit::parse(&answer(2, &[-libc::ECONNREFUSED, 0, 0, 0])), Audit::Hidden(Errno::ECONNREFUSED));
        assert_eq!(Audit::parse(&[]), Audit::Hidden(Errno::EBADMSG));
        for short in 1..32 {
            assert!(matches!(Audit::parse(&answer(GET, &[0, 1, 1, 7])[..short]), Audit::Hidden(_)), "{short}");
        }
    }
}
