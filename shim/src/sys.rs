//! All unsafe code of the shim: one system call a function.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use tokio::io::unix::AsyncFd;

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Becomes the parent of orphans below: `PR_SET_CHILD_SUBREAPER`.
pub(crate) fn set_subreaper() -> io::Result<()> {
    // SAFETY: takes numbers only.
    check(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }.into()).map(drop)
}

/// Marks every descriptor from `first` on close-on-exec: close_range(2), Linux 5.11.
pub(crate) fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: takes numbers only, and closes nothing now.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) }).map(drop)
}

/// A handle on this program through a read-only mount of its own: nobody who reaches the program
/// through a process that runs from it can write to it (CVE-2019-5736).
pub(crate) fn read_only_self() -> io::Result<OwnedFd> {
    let path = c"/proc/self/exe";
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    // SAFETY: the path is NUL terminated.
    let mount = check(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) })?;
    // SAFETY: the kernel just gave this descriptor to us, and nobody else knows its number.
    let mount = unsafe { OwnedFd::from_raw_fd(mount as i32) };
    let attributes = libc::mount_attr { attr_set: libc::MOUNT_ATTR_RDONLY, attr_clr: 0, propagation: 0, userns_fd: 0 };
    // SAFETY: the path is empty and NUL terminated, and the size is that of `attributes`.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    })?;
    Ok(mount)
}

/// Refuses executable memfds in the pid namespace of a process: `vm.memfd_noexec = 2`,
/// Documentation/admin-guide/sysctl/vm.rst. The setting is of the *writer's* pid namespace, so a
/// child writes it that was born there; it cannot be lowered again from within.
///
/// For a single-threaded process, whose later children would land in that namespace too.
pub(crate) fn refuse_executable_memfds(pid: i32) -> io::Result<()> {
    let mut sysctl = File::options().write(true).open("/proc/sys/vm/memfd_noexec")?;
    let process = pidfd(pid)?;
    // SAFETY: takes numbers only.
    check(unsafe { libc::setns(process.as_raw_fd(), libc::CLONE_NEWPID) }.into())?;
    // SAFETY: this process has one thread, so the child may run any code.
    let child = check(unsafe { libc::fork() }.into())?;
    if child == 0 {
        let written = io::Write::write_all(&mut sysctl, b"2");
        // SAFETY: ends the child without running the parent's destructors.
        unsafe { libc::_exit(i32::from(written.is_err())) };
    }
    let mut status = 0;
    // SAFETY: `status` is a place for an int.
    check(unsafe { libc::waitpid(child as i32, &raw mut status, 0) }.into())?;
    if status == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EPERM)) }
}

/// Switches `lo` on in the network namespace of a process: netdevice(7), `SIOCSIFFLAGS`. The
/// kernel gives it its addresses. This process moves into that namespace.
pub(crate) fn bring_loopback_up(pid: i32) -> io::Result<()> {
    let process = pidfd(pid)?;
    // SAFETY: takes numbers only.
    check(unsafe { libc::setns(process.as_raw_fd(), libc::CLONE_NEWNET) }.into())?;
    let socket = std::net::UdpSocket::bind(("0.0.0.0", 0))?;
    // SAFETY: ifreq is plain data, for which all zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING | libc::IFF_LOOPBACK) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads an ifreq with a NUL terminated name.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) }.into()).map(drop)
}

/// A handle on a process that cannot be reused: pidfd_open(2).
pub(crate) fn pidfd(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes numbers only.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: the kernel just gave this descriptor to us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Signals the process behind a pidfd: pidfd_send_signal(2).
pub(crate) fn pidfd_signal(pidfd: &impl AsFd, signal: i32) -> io::Result<()> {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo stands for what kill(2) would send.
    check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_fd().as_raw_fd(), signal, none, 0) }).map(drop)
}

/// Size of a terminal: `TIOCSWINSZ`, ioctl_tty(2).
pub(crate) fn set_window_size(terminal: &impl AsFd, rows: u16, columns: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads a winsize.
    check(unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSWINSZ, &raw const size) }.into()).map(drop)
}

/// A counter that wakes its reader: eventfd(2).
pub(crate) fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: takes numbers only.
    let fd = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) }.into())?;
    // SAFETY: the kernel just gave this descriptor to us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Changes of a file: inotify(7), for `IN_MODIFY`.
pub(crate) fn watch(path: &std::ffi::CStr) -> io::Result<OwnedFd> {
    // SAFETY: takes numbers only.
    let fd = check(unsafe { libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK) }.into())?;
    // SAFETY: the kernel just gave this descriptor to us.
    let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    // SAFETY: the path is NUL terminated.
    check(unsafe { libc::inotify_add_watch(fd.as_raw_fd(), path.as_ptr(), libc::IN_MODIFY) }.into())?;
    Ok(fd)
}

/// bpf(2) with what the command reads of `union bpf_attr`, linux/bpf.h.
fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<libc::c_long> {
    // SAFETY: reads the structure, whose size is given; its pointers are of its makers below.
    check(unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) })
}

/// Loads a device program: `BPF_PROG_LOAD` of `BPF_PROG_TYPE_CGROUP_DEVICE`.
pub(crate) fn load_device_program(instructions: &[u64]) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Load {
        kind: u32,
        count: u32,
        instructions: u64,
        license: u64,
    }
    const PROG_LOAD: libc::c_int = 5;
    const CGROUP_DEVICE: u32 = 15;
    let load = Load {
        kind: CGROUP_DEVICE,
        count: instructions.len() as u32,
        instructions: instructions.as_ptr() as u64,
        // No helper is called that asks for another.
        license: c"Apache-2.0".as_ptr() as u64,
    };
    let fd = bpf(PROG_LOAD, &load)?;
    // SAFETY: the kernel just gave this descriptor to us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Asks a device program about each device that processes of a cgroup, and of those below it, open
/// or make: `BPF_PROG_ATTACH`. Others that are attached there or above are asked too.
pub(crate) fn attach_device_program(cgroup: &impl AsFd, program: &impl AsFd) -> io::Result<()> {
    #[repr(C)]
    struct Attach {
        target: i32,
        program: i32,
        kind: u32,
        flags: u32,
    }
    const PROG_ATTACH: libc::c_int = 8;
    const CGROUP_DEVICE: u32 = 6;
    const ALLOW_MULTI: u32 = 2;
    let attach = Attach {
        target: cgroup.as_fd().as_raw_fd(),
        program: program.as_fd().as_raw_fd(),
        kind: CGROUP_DEVICE,
        flags: ALLOW_MULTI,
    };
    bpf(PROG_ATTACH, &attach).map(drop)
}

/// Takes over a descriptor that libcontainer or the kernel handed to this process by number.
pub(crate) fn adopt(fd: i32) -> OwnedFd {
    // SAFETY: callers pass numbers that came with SCM_RIGHTS, which nobody else owns.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Watches a file by epoll; gives it back where epoll does not take it.
pub(crate) fn register(file: File) -> Result<AsyncFd<File>, (File, io::Error)> {
    // SAFETY: a File keeps its descriptor open, and the same, as long as it lives.
    unsafe { AsyncFd::register(file) }.map_err(tokio::io::unix::AsyncFdRegisterError::into_parts)
}
