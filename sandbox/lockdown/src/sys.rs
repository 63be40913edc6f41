//! All unsafe code of this crate: one system call a function.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use hardened_sandbox::bundle::NamespaceKind;
use hardened_sandbox::seccomp::Program;

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// `keyctl(KEYCTL_JOIN_SESSION_KEYRING, NULL)`: keyctl(2). A kernel without keys has none to leak.
pub(crate) fn join_new_session_keyring() -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: takes numbers and a null pointer, which stands for an anonymous keyring.
    match check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, 0 as libc::c_long) }) {
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
        result => result.map(drop),
    }
}

/// `prctl(PR_SET_NO_NEW_PRIVS)`.
pub(crate) fn set_no_new_privs() -> io::Result<()> {
    // SAFETY: takes numbers only.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }.into()).map(drop)
}

/// `prctl(PR_SET_NAME)`: the kernel takes the first 15 bytes.
pub(crate) fn set_name(name: &str) -> io::Result<()> {
    let name = CString::new(name)?;
    // SAFETY: the kernel reads a text that ends with NUL, and keeps nothing of it but a copy.
    check(unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr(), 0, 0, 0) }.into()).map(drop)
}

/// `prctl(PR_GET_NO_NEW_PRIVS)`.
pub(crate) fn no_new_privs() -> io::Result<bool> {
    // SAFETY: takes numbers only.
    check(unsafe { libc::prctl(libc::PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) }.into()).map(|value| value == 1)
}

/// Gives every signal its default action and unblocks all: the Rust runtime ignores SIGPIPE, and
/// what is ignored or blocked stays so over `execve`.
pub(crate) fn reset_signals() -> io::Result<()> {
    // The kernel's struct sigaction, at most 32 bytes: all zero is SIG_DFL without flags.
    let default = [0u64; 4];
    for signal in (1..=64).filter(|signal| ![libc::SIGKILL, libc::SIGSTOP].contains(signal)) {
        // SAFETY: the kernel reads `default`, and writes nothing. Not by libc, which keeps some
        // real-time signals to itself.
        check(unsafe {
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), 0 as libc::c_long, 8 as libc::c_long)
        })?;
    }
    // SAFETY: an all-zero sigset_t is a valid place for sigemptyset to write to, and sigprocmask
    // only reads it.
    let result = unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut())
    };
    check(result.into()).map(drop)
}

/// `seccomp(SECCOMP_SET_MODE_FILTER)`. The kernel logs what it kills, and nothing else.
pub(crate) fn load_filter(program: &Program) -> io::Result<()> {
    set_filter(program, 0).map(drop)
}

/// The same for a program that asks a supervisor: the listener by which it answers (Linux 5.0), and whom a call that
/// it has received waits for, whatever signals come, but for those that kill (Linux 5.19).
pub(crate) fn load_explained_filter(program: &Program) -> io::Result<OwnedFd> {
    let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    set_filter(program, flags).map(adopt)
}

fn set_filter(program: &Program, flags: libc::c_ulong) -> io::Result<libc::c_long> {
    let mut code: Vec<libc::sock_filter> =
        program.instructions().iter().map(|i| libc::sock_filter { code: i.code, jt: i.jt, jf: i.jf, k: i.k }).collect();
    let Ok(len) = u16::try_from(code.len()) else {
        return Err(io::Error::from_raw_os_error(libc::E2BIG));
    };
    let program = libc::sock_fprog { len, filter: code.as_mut_ptr() };
    let mode = libc::SECCOMP_SET_MODE_FILTER;
    // SAFETY: `program` points to `len` instructions that outlive the call; the kernel copies and
    // checks them.
    check(unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, &raw const program) })
}

/// Sends a descriptor, with a byte: unix(7), `SCM_RIGHTS`. One system call, and no memory that is not there.
pub(crate) fn send_descriptor(socket: BorrowedFd<'_>, descriptor: BorrowedFd<'_>) -> io::Result<()> {
    /// `struct cmsghdr` with one descriptor.
    #[repr(C)]
    struct Control {
        header: libc::cmsghdr,
        descriptor: libc::c_int,
    }
    // SAFETY: all zeros are a valid header, in which some C libraries have padding.
    let mut control: Control = unsafe { std::mem::zeroed() };
    control.header.cmsg_len = (std::mem::offset_of!(Control, descriptor) + size_of::<libc::c_int>()) as _;
    control.header.cmsg_level = libc::SOL_SOCKET;
    control.header.cmsg_type = libc::SCM_RIGHTS;
    control.descriptor = descriptor.as_raw_fd();
    let mut byte = [1u8];
    let mut buffer = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: byte.len() };
    // SAFETY: all zeros are a message without name, data and control.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut buffer;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = size_of::<Control>() as _;
    // SAFETY: the message, its buffer and its control are whole, and outlive the call.
    let sent = unsafe { libc::syscall(libc::SYS_sendmsg, socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) };
    check(sent).map(drop)
}

/// `execve(2)`; comes back only with an error.
pub(crate) fn execve(path: &CString, arguments: &[CString], environment: &[CString]) -> io::Error {
    let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
        strings.iter().map(|s| s.as_ptr()).chain(std::iter::once(std::ptr::null())).collect()
    };
    let (argv, envp) = (pointers(arguments), pointers(environment));
    // SAFETY: path is NUL terminated, and both arrays hold NUL terminated strings and end in null.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    io::Error::last_os_error()
}

/// A pidfd of the calling process: pidfd_open(2).
pub(crate) fn pidfd_of_self() -> io::Result<OwnedFd> {
    // SAFETY: takes numbers only.
    let pidfd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, std::process::id(), 0 as libc::c_long) })?;
    Ok(adopt(pidfd))
}

/// A namespace of a process: `PIDFD_GET_*_NAMESPACE`, include/uapi/linux/pidfd.h (Linux 6.11).
pub(crate) fn namespace_of(pidfd: BorrowedFd<'_>, kind: NamespaceKind) -> io::Result<OwnedFd> {
    const PIDFS_IOCTL_MAGIC: u32 = 0xff << 8;
    let number = match kind {
        NamespaceKind::Cgroup => 1,
        NamespaceKind::Ipc => 2,
        NamespaceKind::Mount => 3,
        NamespaceKind::Network => 4,
        NamespaceKind::Pid => 5,
        NamespaceKind::User => 9,
        NamespaceKind::Uts => 10,
    };
    // SAFETY: these requests take no argument, and return a new descriptor.
    let namespace = check(unsafe {
        libc::syscall(libc::SYS_ioctl, pidfd.as_raw_fd(), PIDFS_IOCTL_MAGIC | number, 0 as libc::c_long)
    })?;
    Ok(adopt(namespace))
}

/// Owns what a system call has just returned.
fn adopt(descriptor: libc::c_long) -> OwnedFd {
    // SAFETY: the callers pass what the kernel has just given to this process, and nobody else owns.
    unsafe { OwnedFd::from_raw_fd(descriptor as i32) }
}

/// `landlock_restrict_self(2)`.
pub(crate) fn landlock_restrict_self(ruleset: BorrowedFd<'_>, flags: u32) -> io::Result<()> {
    // SAFETY: takes numbers only.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), flags) }).map(drop)
}

/// Landlock's ABI: landlock_create_ruleset(2) with `LANDLOCK_CREATE_RULESET_VERSION`; 0 without.
#[must_use]
pub fn landlock_abi() -> u32 {
    const LANDLOCK_CREATE_RULESET_VERSION: libc::c_long = 1;
    // SAFETY: with this flag the call takes a null pointer and a size of 0, and returns a number.
    let abi = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            0 as libc::c_long,
            0 as libc::c_long,
            LANDLOCK_CREATE_RULESET_VERSION,
        )
    };
    u32::try_from(abi).unwrap_or(0)
}

/// Ends the process at once, without running destructors or exit handlers: the filter may forbid
/// whatever they do.
pub fn exit(status: i32) -> ! {
    // SAFETY: takes a number only, and does not return.
    unsafe { libc::_exit(status) }
}
