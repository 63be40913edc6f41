//! ptrace(2), as much of it as following and disturbing a launcher takes: one request a function.

use std::io;

/// linux/ptrace.h; not in every C library's list.
const PTRACE_GET_SYSCALL_INFO: i32 = 0x420e;

/// What a tracee stopped for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// It enters or leaves a system call.
    Call,
    /// It has made a child: `PTRACE_EVENT_FORK`, `_VFORK` or `_CLONE`.
    Child,
    /// It executes another program, of which nothing has run.
    Executed,
    /// It is new, or stopped with its group; the signal tells which.
    Group(i32),
    /// It is about to get a signal.
    Signal(i32),
    /// It is gone.
    Ended,
}

/// A system call that is entered, or the end of one.
#[derive(Debug, Clone, Copy)]
pub(super) enum Side {
    Entry { number: u64, arguments: [u64; 6] },
    Exit,
}

/// Follows a running process, and all that it and its children make from now on.
pub(super) fn seize(pid: i32) -> io::Result<()> {
    let options = libc::PTRACE_O_TRACESYSGOOD
        | libc::PTRACE_O_TRACEFORK
        | libc::PTRACE_O_TRACEVFORK
        | libc::PTRACE_O_TRACECLONE
        | libc::PTRACE_O_TRACEEXEC;
    request(libc::PTRACE_SEIZE, pid, 0, options as usize).map(drop)
}

/// Waits for any tracee of this thread. `None` where a signal has come instead.
pub(super) fn wait() -> io::Result<Option<(i32, Stop)>> {
    let mut status = 0;
    // SAFETY: `status` is a place for an int.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::__WNOTHREAD) };
    if pid < 0 {
        let error = io::Error::last_os_error();
        return if error.kind() == io::ErrorKind::Interrupted { Ok(None) } else { Err(error) };
    }
    if !libc::WIFSTOPPED(status) {
        return Ok(Some((pid, Stop::Ended)));
    }
    let signal = libc::WSTOPSIG(status);
    let stop = match status >> 16 {
        libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE => Stop::Child,
        libc::PTRACE_EVENT_EXEC => Stop::Executed,
        libc::PTRACE_EVENT_STOP => Stop::Group(signal),
        _ if signal == libc::SIGTRAP | 0x80 => Stop::Call,
        _ => Stop::Signal(signal),
    };
    Ok(Some((pid, stop)))
}

/// Lets a tracee go on: to its next system call, or to what else it is stopped for.
pub(super) fn go_on(pid: i32, calls: bool, signal: i32) -> io::Result<()> {
    let how = if calls { libc::PTRACE_SYSCALL } else { libc::PTRACE_CONT };
    gone_is_well(request(how, pid, 0, signal as usize))
}

/// Leaves a tracee stopped with its group, and hears of what comes next.
pub(super) fn listen(pid: i32) -> io::Result<()> {
    gone_is_well(request(libc::PTRACE_LISTEN, pid, 0, 0))
}

/// Lets go of a tracee, with a signal or none.
pub(super) fn detach(pid: i32, signal: i32) -> io::Result<()> {
    gone_is_well(request(libc::PTRACE_DETACH, pid, 0, signal as usize))
}

/// The child that a tracee has just made.
pub(super) fn child_of(pid: i32) -> io::Result<i32> {
    let mut child: libc::c_ulong = 0;
    request(libc::PTRACE_GETEVENTMSG, pid, 0, &raw mut child as usize)?;
    Ok(child as i32)
}

/// The call that a tracee stopped at.
pub(super) fn call(pid: i32) -> io::Result<Side> {
    /// `struct ptrace_syscall_info`, linux/ptrace.h.
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        kind: u8,
        padding: [u8; 3],
        arch: u32,
        pointers: [u64; 2],
        number: u64,
        arguments: [u64; 6],
        more: [u64; 2],
    }
    const ENTRY: u8 = 1;
    let mut info = Info::default();
    request(PTRACE_GET_SYSCALL_INFO, pid, size_of::<Info>(), &raw mut info as usize)?;
    let entry = Side::Entry { number: info.number, arguments: info.arguments };
    Ok(if info.kind == ENTRY { entry } else { Side::Exit })
}

/// The number of the call that a stopped process is in: proc_pid_syscall(5).
pub(super) fn call_of(pid: i32) -> Option<u32> {
    std::fs::read_to_string(format!("/proc/{pid}/syscall")).ok()?.split(' ').next()?.parse().ok()
}

/// Has a tracee that enters a call make a harmless one instead. Not none at all: its seccomp filter, if it has one by
/// then, sees the number.
pub(super) fn replace_call(pid: i32) -> io::Result<()> {
    let harmless = libc::SYS_getppid as usize;
    #[cfg(target_arch = "x86_64")]
    return request(libc::PTRACE_POKEUSER, pid, 8 * libc::ORIG_RAX as usize, harmless).map(drop);
    #[cfg(target_arch = "aarch64")]
    return {
        const NT_ARM_SYSTEM_CALL: usize = 0x404;
        let mut number = harmless as i32;
        let set = libc::iovec { iov_base: (&raw mut number).cast(), iov_len: size_of::<i32>() };
        request(libc::PTRACE_SETREGSET, pid, NT_ARM_SYSTEM_CALL, &raw const set as usize).map(drop)
    };
}

/// Has the call that a tracee leaves fail.
pub(super) fn fail_call(pid: i32, errno: i32) -> io::Result<()> {
    let result = (-i64::from(errno)) as usize;
    #[cfg(target_arch = "x86_64")]
    return request(libc::PTRACE_POKEUSER, pid, 8 * libc::RAX as usize, result).map(drop);
    #[cfg(target_arch = "aarch64")]
    return {
        const NT_PRSTATUS: usize = 1;
        // struct user_pt_regs: x0 to x30, sp, pc, pstate.
        let mut registers = [0_u64; 34];
        let mut all = libc::iovec { iov_base: registers.as_mut_ptr().cast(), iov_len: size_of_val(&registers) };
        request(libc::PTRACE_GETREGSET, pid, NT_PRSTATUS, &raw mut all as usize)?;
        registers[0] = result as u64;
        request(libc::PTRACE_SETREGSET, pid, NT_PRSTATUS, &raw mut all as usize).map(drop)
    };
}

/// The text at an address of a tracee, up to its NUL or as much of it as there is.
pub(super) fn text(pid: i32, address: u64) -> String {
    use std::os::unix::fs::FileExt;
    let mut bytes = [0; 256];
    let read = std::fs::File::open(format!("/proc/{pid}/mem")).and_then(|memory| memory.read_at(&mut bytes, address));
    let text = bytes.get(..read.unwrap_or(0)).unwrap_or_default();
    String::from_utf8_lossy(text.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}

/// Ends a process, tracee or not.
pub(super) fn kill(pid: i32) {
    // SAFETY: takes numbers only; the pid is of a process that this thread follows, or of one that it started.
    unsafe { libc::kill(pid, libc::SIGKILL) };
}

/// Has a signal interrupt [`wait`], and nothing else.
pub(super) fn let_waits_be_interrupted() -> io::Result<()> {
    extern "C" fn nothing(_: libc::c_int) {}
    let handler: extern "C" fn(libc::c_int) = nothing;
    // SAFETY: all zeros are no flags and an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as usize;
    // SAFETY: `action` is whole, and its handler does nothing.
    let set = unsafe { libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()) };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The calling thread, by its number.
pub(super) fn this_thread() -> i32 {
    // SAFETY: takes nothing.
    unsafe { libc::gettid() }
}

/// Interrupts the [`wait`] of a thread of this process.
pub(super) fn interrupt(thread: i32) {
    // SAFETY: takes numbers only. A thread that has ended is none of this process's.
    unsafe { libc::syscall(libc::SYS_tgkill, std::process::id(), thread, libc::SIGUSR1) };
}

fn gone_is_well(result: io::Result<libc::c_long>) -> io::Result<()> {
    match result {
        // Killed while it was stopped.
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        result => result.map(drop),
    }
}

/// `what` is of another type with each C library.
fn request(what: impl Into<i64>, pid: i32, address: usize, data: usize) -> io::Result<libc::c_long> {
    // By number: the wrapper of one C library takes other types than that of another, and both return words.
    // SAFETY: each caller passes what its request reads or writes, which outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_ptrace, what.into(), pid, address, data) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
