//! What comes to listening at a TCP port, or to connecting to one, without saying so: a line for each
//! way, with the errno of its last call.

use crate::errno;
use crate::tries::call;

/// `MSG_FASTOPEN`, linux/socket.h.
const FAST_OPEN: i64 = 0x2000_0000;
/// `TCP_FASTOPEN_CONNECT`, linux/tcp.h.
const FAST_OPEN_CONNECT: i64 = 30;
const MPTCP: i64 = 262;
const INET: i64 = libc::AF_INET as i64;
const STREAM: i64 = libc::SOCK_STREAM as i64;

/// `ports PORT`: none of it uses another port.
pub(crate) fn run(arguments: &[String]) {
    let port: u16 = arguments.first().and_then(|port| port.parse().ok()).unwrap_or(9090);
    let address = Address::local(port);
    let say = |name: &str, result: libc::c_long| {
        let code = if result >= 0 { 0 } else { errno() };
        println!("{name}: {code}");
    };
    let tcp = || call(libc::SYS_socket, [INET, STREAM, 0]);
    let bind = |socket| call(libc::SYS_bind, [socket, address.pointer(), Address::LENGTH]);
    let connect = |socket| call(libc::SYS_connect, [socket, address.pointer(), Address::LENGTH]);
    say("socket", tcp());
    say("bind", bind(tcp()));
    say("connect", connect(tcp()));
    let mptcp = call(libc::SYS_socket, [INET, STREAM, MPTCP]);
    say("MPTCP", if mptcp < 0 { mptcp } else { bind(mptcp) });
    let data = c"x".as_ptr() as i64;
    let sendto = [tcp(), data, 1, FAST_OPEN, address.pointer(), Address::LENGTH];
    say("sendto", call(libc::SYS_sendto, sendto));
    let part = libc::iovec { iov_base: data as *mut libc::c_void, iov_len: 1 };
    // SAFETY: all fields are numbers and pointers, for which zero is a value.
    let mut messages: [libc::mmsghdr; 1] = unsafe { std::mem::zeroed() };
    messages[0].msg_hdr.msg_name = address.pointer() as *mut libc::c_void;
    messages[0].msg_hdr.msg_namelen = Address::LENGTH as u32;
    messages[0].msg_hdr.msg_iov = (&raw const part).cast_mut();
    messages[0].msg_hdr.msg_iovlen = 1;
    let message = (&raw const messages) as i64;
    say("sendmsg", call(libc::SYS_sendmsg, [tcp(), message, FAST_OPEN]));
    say("sendmmsg", call(libc::SYS_sendmmsg, [tcp(), message, 1, FAST_OPEN]));
    let deferred = tcp();
    let on = 1i32;
    let option = [deferred, i64::from(libc::IPPROTO_TCP), FAST_OPEN_CONNECT, (&raw const on) as i64, 4];
    call(libc::SYS_setsockopt, option);
    say("deferred connect", connect(deferred));
    say("listen without bind", call(libc::SYS_listen, [tcp(), 1]));
    let unix = call(libc::SYS_socket, [i64::from(libc::AF_UNIX), STREAM, 0]);
    let family = i64::from(libc::AF_UNIX as u16);
    // A name is made up for a family and nothing else.
    call(libc::SYS_bind, [unix, (&raw const family) as i64, 2]);
    say("UNIX listen", call(libc::SYS_listen, [unix, 1]));
}

/// `struct sockaddr_in`.
#[repr(C)]
struct Address {
    family: u16,
    port: [u8; 2],
    ip: [u8; 4],
    rest: [u8; 8],
}

impl Address {
    const LENGTH: i64 = 16;

    const fn local(port: u16) -> Self {
        Self { family: libc::AF_INET as u16, port: port.to_be_bytes(), ip: [127, 0, 0, 1], rest: [0; 8] }
    }

    fn pointer(&self) -> i64 {
        (&raw const *self) as i64
    }
}
