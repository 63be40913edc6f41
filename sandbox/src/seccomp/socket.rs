//! Sockets, as filters tell them apart by the arguments of socket(2).

use super::{Action, Condition};

/// Answer to socket families that are switched off. Not EPERM: programs take this one for a
/// kernel without the family and carry on (libaudit inside PAM, say), and would give up on EPERM.
pub(crate) const NO_FAMILY: Action = Action::Errno(libc::EAFNOSUPPORT as u16);

/// Answer to protocols of a family that are switched off: that of a kernel without them. Programs that
/// ask for MPTCP first (Go's servers do) then ask for TCP.
pub(crate) const NO_PROTOCOL: Action = Action::Errno(libc::EPROTONOSUPPORT as u16);

/// Address families: socket(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the names are socket(2)'s own")]
pub enum SocketFamily {
    Unix,
    Inet,
    Inet6,
    Netlink,
    Packet,
    Vsock,
    Can,
    Bluetooth,
    Alg,
}

/// Numbers of linux/socket.h.
pub(crate) const fn number_of(family: SocketFamily) -> u32 {
    let number = match family {
        SocketFamily::Unix => libc::AF_UNIX,
        SocketFamily::Inet => libc::AF_INET,
        SocketFamily::Inet6 => libc::AF_INET6,
        SocketFamily::Netlink => libc::AF_NETLINK,
        SocketFamily::Packet => libc::AF_PACKET,
        SocketFamily::Vsock => libc::AF_VSOCK,
        SocketFamily::Can => libc::AF_CAN,
        SocketFamily::Bluetooth => libc::AF_BLUETOOTH,
        SocketFamily::Alg => libc::AF_ALG,
    };
    number as u32
}

/// The type of a socket, without the flags that are given beside it: linux/net.h.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    /// `SOCK_STREAM`.
    Stream,
    /// `SOCK_DGRAM`.
    Datagram,
    /// `SOCK_RAW`.
    Raw,
}

impl Kind {
    /// The condition on the call's second argument.
    pub(crate) const fn condition(self) -> Condition {
        let kind = match self {
            Self::Stream => libc::SOCK_STREAM,
            Self::Datagram => libc::SOCK_DGRAM,
            Self::Raw => libc::SOCK_RAW,
        };
        // SOCK_TYPE_MASK.
        Condition::bits(1, 0xf, kind as u32)
    }
}
