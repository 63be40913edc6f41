//! All unsafe code of the shim: one system call a function.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) use hardened_node::paths::open_without_links;
use hardened_sandbox::seccomp::Call;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::Mode;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Makes a system call again where a signal to this process has ended it: signal(7).
fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// What of a listener is ready, or becomes so within a time: `POLLIN` for a call that waits, `POLLHUP` once the last
/// process of its filter has ended.
pub(crate) fn ready(listener: &impl AsFd, wait: Duration) -> io::Result<libc::c_short> {
    let mut poll = libc::pollfd { fd: listener.as_fd().as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let wait = libc::timespec { tv_sec: wait.as_secs() as _, tv_nsec: wait.subsec_nanos().into() };
    uninterrupted(|| {
        // SAFETY: `poll` is one pollfd, and no signal is blocked.
        check(unsafe { libc::ppoll(&raw mut poll, 1, &raw const wait, std::ptr::null()) }.into())
    })?;
    Ok(poll.revents)
}

/// A denied call that waits for its answer: seccomp_unotify(2).
#[derive(Debug)]
pub(crate) struct Notification {
    id: u64,
    /// The caller, in this process's pid namespace; 0 where it is not in it.
    pub(crate) pid: u32,
    pub(crate) call: Call,
}

/// Receives a call that waits: `SECCOMP_IOCTL_NOTIF_RECV`. It blocks where there is none ([`ready`]).
pub(crate) fn receive_call(listener: &impl AsFd) -> io::Result<Notification> {
    // SAFETY: all zeros are what the kernel asks for.
    let mut received: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    let listener = listener.as_fd().as_raw_fd();
    // SAFETY: the request's number has the size of the struct that is written to.
    check(unsafe { libc::ioctl(listener, libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut received) }.into())?;
    let libc::seccomp_data { nr, arch, args, .. } = received.data;
    Ok(Notification { id: received.id, pid: received.pid, call: Call { number: nr as u32, arch, arguments: args } })
}

/// Fails a call with an errno: `SECCOMP_IOCTL_NOTIF_SEND`. There is no way to let it run.
pub(crate) fn fail_call(listener: &impl AsFd, notification: &Notification, errno: u16) -> io::Result<()> {
    let mut answer =
        libc::seccomp_notif_resp { id: notification.id, val: 0, error: -libc::c_int::from(errno), flags: 0 };
    let listener = listener.as_fd().as_raw_fd();
    uninterrupted(|| {
        // SAFETY: the request's number has the size of the struct, which is whole.
        check(unsafe { libc::ioctl(listener, libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut answer) }.into()).map(drop)
    })
}

/// Whether a call still waits, so that its caller's pid is no other's by now: `SECCOMP_IOCTL_NOTIF_ID_VALID`.
pub(crate) fn still_waits(listener: &impl AsFd, notification: &Notification) -> bool {
    let listener = listener.as_fd().as_raw_fd();
    uninterrupted(|| {
        // SAFETY: the request takes a number by its address.
        check(unsafe { libc::ioctl(listener, libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &raw const notification.id) }.into())
    })
    .is_ok()
}

/// Has callers and this process wake each other on one processor: `SECCOMP_IOCTL_NOTIF_SET_FLAGS`, Linux 6.6. Elsewhere
/// it takes longer.
pub(crate) fn wake_on_the_same_processor(listener: &impl AsFd) -> io::Result<()> {
    /// `SECCOMP_IOW(4, __u64)` and `SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP`, linux/seccomp.h.
    const SET_FLAGS: libc::c_ulong = 0x4008_2104;
    const SYNC_WAKE_UP: u64 = 1;
    // SAFETY: takes numbers only.
    check(unsafe { libc::syscall(libc::SYS_ioctl, listener.as_fd().as_raw_fd(), SET_FLAGS, SYNC_WAKE_UP) }).map(drop)
}

/// Closes descriptors, from the first to the last: close_range(2).
pub(crate) fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: the caller has no use for any of them, and ends or executes next.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) }).map(drop)
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

/// A handle on this program through a separate read-only mount: nobody who reaches the program
/// through a process that runs from it can write to it (CVE-2019-5736).
pub(crate) fn read_only_self() -> io::Result<OwnedFd> {
    let mount = clone_mount(&open_path(Path::new("/proc/self/exe"))?, false)?;
    change_mount(&mount, MountChange { set: libc::MOUNT_ATTR_RDONLY, ..MountChange::default() }, false)?;
    Ok(mount)
}

/// A handle on the file at a path, by which it is neither read nor written: `O_PATH` of open(2). Links are followed,
/// magic ones too.
///
/// By openat2(2): std masks `O_PATH` from its custom flags with musl, and would really open the file.
pub(crate) fn open_path(path: &Path) -> io::Result<OwnedFd> {
    open_at(None, path, OFlag::O_PATH, ResolveFlag::empty())
}

/// A handle on a path inside of a root, where no part of the path but the last is a symbolic link, and that one is
/// not followed.
pub(crate) fn open_path_in_root(root: &impl AsFd, path: &Path) -> io::Result<OwnedFd> {
    // O_NOFOLLOW first: with RESOLVE_NO_SYMLINKS alone a link at the end is an error (openat2(2)).
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW;
    open_at(Some(root.as_fd()), path, flags, ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_SYMLINKS)
}

/// The folder above a folder, or the same where there is none.
pub(crate) fn parent(folder: &impl AsFd) -> io::Result<OwnedFd> {
    open_at(Some(folder.as_fd()), Path::new(".."), OFlag::O_PATH | OFlag::O_DIRECTORY, ResolveFlag::empty())
}

/// Opens a file of a folder by its name, where that is no link: openat(2), `O_NOFOLLOW`.
pub(crate) fn open_in(folder: &impl AsFd, name: &str, flags: OFlag) -> io::Result<File> {
    let how = OpenHow::new()
        .flags(flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)
        .mode(if flags.contains(OFlag::O_CREAT) { Mode::S_IRUSR | Mode::S_IWUSR } else { Mode::empty() })
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    let file = openat2(folder.as_fd().as_raw_fd(), name, how)?;
    // SAFETY: the kernel just gave this descriptor to us, and nobody else knows its number.
    Ok(unsafe { File::from_raw_fd(file) })
}

fn open_at(folder: Option<BorrowedFd<'_>>, path: &Path, flags: OFlag, resolve: ResolveFlag) -> io::Result<OwnedFd> {
    let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(resolve);
    let file = openat2(folder.map_or(libc::AT_FDCWD, |f| f.as_raw_fd()), path, how)?;
    // SAFETY: the kernel just gave this descriptor to us, and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(file) })
}

/// A copy of the mount that a file is in, from that file on, with the mounts below it or without,
/// that is mounted nowhere: open_tree(2).
pub(crate) fn clone_mount(file: &impl AsFd, recursive: bool) -> io::Result<OwnedFd> {
    let below = if recursive { libc::AT_RECURSIVE } else { 0 };
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | (libc::AT_EMPTY_PATH | below) as libc::c_uint;
    let file = file.as_fd().as_raw_fd();
    // SAFETY: the path is empty and NUL terminated.
    let mount = check(unsafe { libc::syscall(libc::SYS_open_tree, file, c"".as_ptr(), flags) })?;
    // SAFETY: the kernel just gave this descriptor to us, and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(mount as i32) })
}

/// What mount_setattr(2) changes of a mount, Linux 5.12.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct MountChange {
    /// `MOUNT_ATTR_...` flags to set.
    pub(crate) set: u64,
    /// Flags to clear.
    pub(crate) clear: u64,
    /// `MS_PRIVATE` and the like; 0 for no change.
    pub(crate) propagation: u64,
}

/// Changes a mount, and the mounts below it or not.
pub(crate) fn change_mount(mount: &impl AsFd, change: MountChange, recursive: bool) -> io::Result<()> {
    let MountChange { set, clear, propagation } = change;
    let attributes = libc::mount_attr { attr_set: set, attr_clr: clear, propagation, userns_fd: 0 };
    set_attributes(mount, &attributes, recursive)
}

/// Maps the owners of files in a mount that is mounted nowhere yet by a user namespace:
/// `MOUNT_ATTR_IDMAP` of mount_setattr(2), Linux 5.12; in the mounts below too, or not.
pub(crate) fn map_owners(mount: &OwnedFd, namespace: &OwnedFd, all: bool) -> io::Result<()> {
    let userns_fd = namespace.as_raw_fd() as u64;
    let attributes = libc::mount_attr { attr_set: libc::MOUNT_ATTR_IDMAP, attr_clr: 0, propagation: 0, userns_fd };
    set_attributes(mount, &attributes, all)
}

fn set_attributes(mount: &impl AsFd, attributes: &libc::mount_attr, all: bool) -> io::Result<()> {
    let below = if all { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is empty and NUL terminated, and the size is that of the attributes.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | below,
            std::ptr::from_ref(attributes),
            size_of::<libc::mount_attr>(),
        )
    })
    .map(drop)
}

/// Mounts what [`clone_mount`] gave at a path: move_mount(2).
pub(crate) fn attach_mount(mount: &OwnedFd, at: &Path) -> io::Result<()> {
    let at = CString::new(at.as_os_str().as_bytes())?;
    // SAFETY: both paths are NUL terminated, the first is empty.
    check(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            at.as_ptr(),
            libc::MOVE_MOUNT_F_EMPTY_PATH,
        )
    })
    .map(drop)
}

/// Mounts what [`clone_mount`] gave over what a handle is on, wherever a path may lead by now.
pub(crate) fn cover(place: &impl AsFd, mount: &OwnedFd) -> io::Result<()> {
    let flags = libc::MOVE_MOUNT_F_EMPTY_PATH | libc::MOVE_MOUNT_T_EMPTY_PATH;
    let (mount, place, name) = (mount.as_raw_fd(), place.as_fd().as_raw_fd(), c"".as_ptr());
    // SAFETY: both paths are NUL terminated and empty.
    check(unsafe { libc::syscall(libc::SYS_move_mount, mount, name, place, name, flags) }).map(drop)
}

/// Which mount a handle is in: statx(2), `STATX_MNT_ID`, Linux 5.8.
pub(crate) fn mount_id(file: &impl AsFd) -> io::Result<u64> {
    // SAFETY: statx is plain data, for which all zero is a value.
    let mut found: libc::statx = unsafe { std::mem::zeroed() };
    let (fd, flags, mask) = (file.as_fd().as_raw_fd(), libc::AT_EMPTY_PATH, libc::STATX_MNT_ID);
    // Not by the C library: where the call fails, musl takes fstatat(2) instead, which knows no mounts.
    // SAFETY: the path is NUL terminated, and `found` is large enough by its type.
    check(unsafe { libc::syscall(libc::SYS_statx, fd, c"".as_ptr(), flags, mask, &raw mut found) })?;
    if found.stx_mask & mask == 0 {
        return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
    }
    Ok(found.stx_mnt_id)
}

/// A user namespace with these mappings, in lines of user_namespaces(7), and nobody in it.
///
/// For a single-threaded process.
pub(crate) fn user_namespace(uids: &str, gids: &str) -> io::Result<OwnedFd> {
    let parent = std::process::id();
    let flags = libc::CLONE_NEWUSER | libc::SIGCHLD;
    // SAFETY: as fork(2): no stack is given. This process has one thread, so the child may run any code.
    let child = check(unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) })?;
    if child == 0 {
        // SAFETY: takes numbers only.
        let asked = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) };
        while asked == 0 && std::os::unix::process::parent_id() == parent {
            // SAFETY: takes nothing.
            unsafe { libc::pause() };
        }
        // SAFETY: ends the child without running the parent's destructors.
        unsafe { libc::_exit(0) };
    }
    let of_child = |name: &str| format!("/proc/{child}/{name}");
    let made = std::fs::write(of_child("uid_map"), uids)
        .and_then(|()| std::fs::write(of_child("gid_map"), gids))
        .and_then(|()| File::open(of_child("ns/user")));
    let mut status = 0;
    // SAFETY: takes numbers only: the child is this process's own, and not waited for yet.
    check(unsafe { libc::kill(child as i32, libc::SIGKILL) }.into())?;
    // SAFETY: `status` is a place for an int.
    check(unsafe { libc::waitpid(child as i32, &raw mut status, 0) }.into())?;
    made.map(OwnedFd::from)
}

/// Refuses executable memfds in the pid namespace of a process: `vm.memfd_noexec = 2`,
/// Documentation/admin-guide/sysctl/vm.rst. The setting is of the *writer's* pid namespace, so a
/// child writes it that was born there; it cannot be lowered again from within.
///
/// For a single-threaded process, whose later children would land in that namespace too.
pub(crate) fn refuse_executable_memfds(mut sysctl: &File, process: &OwnedFd) -> io::Result<()> {
    join_namespace(process, libc::CLONE_NEWPID)?;
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

/// Moves this process into a namespace of another, which its pidfd names: setns(2), Linux 5.8. In a user namespace
/// it stays the same user, and may do anything there and nothing outside.
///
/// For a single-threaded process.
pub(crate) fn join_namespace(process: &impl AsFd, kind: libc::c_int) -> io::Result<()> {
    // SAFETY: takes numbers only.
    check(unsafe { libc::setns(process.as_fd().as_raw_fd(), kind) }.into()).map(drop)
}

/// Switches `lo` on in the network namespace of a process: netdevice(7), `SIOCSIFFLAGS`. The
/// kernel gives it its addresses. This process moves into that namespace.
pub(crate) fn bring_loopback_up(process: &OwnedFd) -> io::Result<()> {
    join_namespace(process, libc::CLONE_NEWNET)?;
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

/// Sets the user and group by which this process is judged when it opens files, and reads them back: setfsuid(2) and
/// setfsgid(2) report no failure.
pub(crate) fn become_for_files(uid: u32, gid: u32) -> io::Result<()> {
    const NOBODY: u32 = u32::MAX;
    // SAFETY: take numbers only. The invalid id of the second calls changes nothing, and has them tell the present one.
    let now = unsafe {
        libc::setfsgid(gid);
        libc::setfsuid(uid);
        (libc::setfsuid(NOBODY), libc::setfsgid(NOBODY))
    };
    if now == (uid as i32, gid as i32) { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EPERM)) }
}

/// Whether the kernel follows no links in the mount that a file is in: statvfs(3), `ST_NOSYMFOLLOW`, Linux 5.10.
pub(crate) fn follows_no_links(file: &impl AsFd) -> io::Result<bool> {
    const ST_NOSYMFOLLOW: libc::c_ulong = 0x2000;
    // SAFETY: statvfs is plain data, for which all zero is a value.
    let mut found: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: `found` is large enough by its type.
    check(unsafe { libc::fstatvfs(file.as_fd().as_raw_fd(), &raw mut found) }.into())?;
    Ok(found.f_flag & ST_NOSYMFOLLOW != 0)
}

/// Opens a folder once more, by its file system's own handle on it, in the mount that `of` is in:
/// open_by_handle_at(2). It need not be reachable there.
pub(crate) fn reopen_in_mount(of: &impl AsFd, folder: &impl AsFd) -> io::Result<OwnedFd> {
    /// `struct file_handle`, with room for the largest: `MAX_HANDLE_SZ`.
    #[repr(C)]
    struct Handle {
        bytes: u32,
        kind: i32,
        data: [u8; 128],
    }
    let mut handle = Handle { bytes: 128, kind: 0, data: [0; 128] };
    let mut mount = 0_i32;
    let (folder, of) = (folder.as_fd().as_raw_fd(), of.as_fd().as_raw_fd());
    let (name, flags) = (c"".as_ptr(), libc::AT_EMPTY_PATH);
    // SAFETY: the name is NUL terminated, the handle says how much room it has, and both outlive the call.
    check(unsafe { libc::syscall(libc::SYS_name_to_handle_at, folder, name, &raw mut handle, &raw mut mount, flags) })?;
    let flags = libc::O_PATH | libc::O_CLOEXEC | libc::O_DIRECTORY;
    // SAFETY: the kernel has filled the handle.
    let fd = check(unsafe { libc::syscall(libc::SYS_open_by_handle_at, of, &raw const handle, flags) })?;
    // SAFETY: the kernel just gave this descriptor to us, and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// What a symbolic link says, by a handle on it: readlinkat(2).
pub(crate) fn read_link(link: &impl AsFd) -> io::Result<PathBuf> {
    Ok(nix::fcntl::readlinkat(Some(link.as_fd().as_raw_fd()), "")?.into())
}

/// Whether the process of a pidfd has ended: it is readable then (pidfd_open(2)).
pub(crate) fn has_ended(process: &impl AsFd) -> io::Result<bool> {
    let mut poll = libc::pollfd { fd: process.as_fd().as_raw_fd(), events: libc::POLLIN, revents: 0 };
    loop {
        // SAFETY: `poll` is one pollfd, and is waited for no time.
        match check(unsafe { libc::poll(&raw mut poll, 1, 0) }.into()) {
            // Children end at any time, and tell by a signal.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result.map(|ready| ready != 0),
        }
    }
}

/// Ends this process when the other end of its pipe is closed, until it executes: `O_ASYNC` of fcntl(2).
///
/// By a handler: the first process of a pid namespace dies of no signal that it has none for.
pub(crate) fn end_with(other_end: i32) -> io::Result<()> {
    extern "C" fn end(_: libc::c_int) {
        // SAFETY: allowed in a signal handler: signal-safety(7).
        unsafe { libc::_exit(255) }
    }
    let handler: extern "C" fn(libc::c_int) = end;
    // SAFETY: all zeros are no flags and an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as usize;
    // SAFETY: `action` is whole, and its handler may be called at any time.
    check(unsafe { libc::sigaction(libc::SIGIO, &raw const action, std::ptr::null_mut()) }.into())?;
    // SAFETY: these take numbers only.
    check(unsafe { libc::fcntl(other_end, libc::F_SETOWN, libc::getpid()) }.into())?;
    // SAFETY: as above.
    let flags = check(unsafe { libc::fcntl(other_end, libc::F_GETFL) }.into())? as libc::c_int;
    // SAFETY: as above.
    check(unsafe { libc::fcntl(other_end, libc::F_SETFL, flags | libc::O_ASYNC) }.into())?;
    // It may have been closed before.
    let mut poll = libc::pollfd { fd: other_end, events: 0, revents: 0 };
    // SAFETY: `poll` is one pollfd, and is waited for no time.
    check(unsafe { libc::poll(&raw mut poll, 1, 0) }.into())?;
    if poll.revents == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EPIPE)) }
}

/// Ignores SIGXFSZ: setrlimit(2), `RLIMIT_FSIZE`. The lock-down gives the payload its default action again.
pub(crate) fn survive_too_large_files() -> io::Result<()> {
    // SAFETY: no handler is installed.
    if unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) } == libc::SIG_ERR {
        return Err(io::Error::last_os_error());
    }
    Ok(())
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

/// Gives the other end of a terminal to a user: `TIOCGPTPEER`, ioctl_tty(2).
pub(crate) fn give_terminal(master: &impl AsFd, uid: u32) -> io::Result<()> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: takes numbers only.
    let fd = check(unsafe { libc::ioctl(master.as_fd().as_raw_fd(), libc::TIOCGPTPEER, flags) }.into())?;
    // SAFETY: the kernel just gave this descriptor to us.
    let terminal = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    std::os::unix::fs::fchown(terminal, Some(uid), None)
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

/// Sets an extended attribute: setxattr(2).
pub(crate) fn set_attribute(path: &Path, name: &std::ffi::CStr, value: &[u8]) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: both names are NUL terminated, and the value is read up to its length.
    let set = unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    check(set.into()).map(drop)
}

/// An extended attribute: getxattr(2). None where there is no such attribute, or no such file.
pub(crate) fn attribute(path: &Path, name: &std::ffi::CStr) -> io::Result<Option<Vec<u8>>> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut value = vec![0; 512];
    // SAFETY: both names are NUL terminated, and at most the buffer's length is written to it.
    let length = unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    match check(length as libc::c_long) {
        Ok(length) => {
            value.truncate(length as usize);
            Ok(Some(value))
        }
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENODATA | libc::ENOENT)) => Ok(None),
        Err(error) => Err(error),
    }
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

/// The same for somebody else's descriptor, to be read from.
pub(crate) fn register_to_read(descriptor: BorrowedFd<'_>) -> io::Result<AsyncFd<BorrowedFd<'_>>> {
    // SAFETY: a borrowed descriptor stays open, and the same, as long as it is borrowed.
    let registered = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) };
    registered.map_err(|error| error.into_parts().1)
}

/// Says why the failure of something is of no consequence.
pub(crate) fn ignore<T, E>(result: Result<T, E>, _why: &str) {
    drop(result);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With musl, std's `custom_flags` would drop it, and a FIFO would be waited for.
    #[test]
    fn a_handle_on_a_path_does_not_open_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        nix::unistd::mkfifo(&fifo, Mode::S_IRWXU).unwrap();
        for handle in [
            open_path(&fifo).unwrap(),
            open_without_links(&fifo).unwrap(),
            open_path_in_root(&open_path(folder.path()).unwrap(), Path::new("/fifo")).unwrap(),
        ] {
            let flags = nix::fcntl::fcntl(handle.as_raw_fd(), nix::fcntl::FcntlArg::F_GETFL).unwrap();
            assert!(OFlag::from_bits_retain(flags).contains(OFlag::O_PATH));
        }
    }

    #[test]
    fn a_link_is_followed_by_no_handle_inside_of_a_root() {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/", folder.path().join("up")).unwrap();
        let root = open_path(folder.path()).unwrap();
        let link = File::from(open_path_in_root(&root, Path::new("up")).unwrap());
        assert!(link.metadata().unwrap().is_symlink());
        let through = open_path_in_root(&root, Path::new("up/etc"));
        assert_eq!(through.unwrap_err().raw_os_error(), Some(libc::ELOOP));
    }

    #[test]
    fn a_process_that_has_ended_is_told_from_one_that_runs() {
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let process = pidfd(child.id() as i32).unwrap();
        assert!(!has_ended(&process).unwrap());
        pidfd_signal(&process, libc::SIGKILL).unwrap();
        child.wait().unwrap();
        assert!(has_ended(&process).unwrap());
    }
}
