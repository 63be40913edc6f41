//! A seccomp listener: anyone who holds one can let calls through that a filter wanted to be asked about.

use std::time::{Duration, Instant};

/// `listener MILLISECONDS`: asks for one again and again; prints each errno that it gets for another than before, and
/// `a listener` if it gets one.
pub(crate) fn run(arguments: &[String]) {
    let milliseconds = arguments.first().and_then(|n| n.parse().ok()).unwrap_or(1000);
    let end = Instant::now() + Duration::from_millis(milliseconds);
    let mut before = 0;
    while Instant::now() < end {
        let errno = match ask() {
            Ok(()) => return println!("a listener"),
            Err(error) => error.raw_os_error().unwrap_or_default(),
        };
        if errno != before {
            println!("{}", std::io::Error::from_raw_os_error(errno));
            before = errno;
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// Loads a filter that asks about `unshare`, and lets all else through.
fn ask() -> std::io::Result<()> {
    let unshare = libc::SYS_unshare as u32;
    let load = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    let equal = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    let ret = (libc::BPF_RET | libc::BPF_K) as u16;
    let mut code = [
        libc::sock_filter { code: load, jt: 0, jf: 0, k: 0 },
        libc::sock_filter { code: equal, jt: 0, jf: 1, k: unshare },
        libc::sock_filter { code: ret, jt: 0, jf: 0, k: libc::SECCOMP_RET_USER_NOTIF },
        libc::sock_filter { code: ret, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW },
    ];
    let program = libc::sock_fprog { len: 4, filter: code.as_mut_ptr() };
    let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    // SAFETY: the program and its instructions are whole, and outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}
