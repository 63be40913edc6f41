//! Tries what a sandboxed process must not be able to do, and prints a JSON line for each try.
//!
//! `hardened-probe` runs all tries; `hardened-probe NAME...` only these; `hardened-probe --list`
//! names them; `every-call` tries every number; `bench` times three calls. Each runs in a child of
//! its own, since some end in SIGSYS. A call counts as *denied* only where it fails the way a
//! sandbox makes it fail; `EINVAL` or `EFAULT` means that the kernel's own code was reached.
//!
//! `hardened-probe without NUMBER[,NUMBER...] PROGRAM ARGUMENTS...` runs a program on a kernel that
//! answers ENOSYS to these calls, as an older one would. `hardened-probe ports PORT` tries all ways to
//! a TCP port. `hardened-probe move FROM TO` moves a file by rename(2), and links it back by link(2).
//! `hardened-probe spam THREADS MILLISECONDS` makes denied calls as fast as it can; `hardened-probe listener
//! MILLISECONDS` asks for a seccomp listener of its own; `hardened-probe domain NAME` is denied something by a Landlock domain
//! that it makes itself, under a name.
//!
//! Static, and without anything but libc: it runs in an empty image.

use std::io::Write;

mod domain;
mod listener;
mod ports;
mod spam;
mod tries;
mod without;

/// What came of a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// It worked, or got as far as the kernel's own code.
    Allowed,
    /// It failed with this errno.
    Denied(i32),
    /// It was killed by this signal.
    Killed(i32),
    /// There is nothing here to try it on.
    Absent,
}

/// One forbidden operation.
struct Try {
    name: &'static str,
    run: fn() -> Outcome,
}

impl Outcome {
    /// From a system call that a sandbox refuses with one of a few errnos.
    fn of(result: libc::c_long) -> Self {
        if result >= 0 {
            return Self::Allowed;
        }
        match errno() {
            e @ (libc::EPERM | libc::EACCES | libc::ENOSYS | libc::EROFS | libc::EAFNOSUPPORT | libc::EXDEV) => {
                Self::Denied(e)
            }
            _ => Self::Allowed,
        }
    }

    /// From making a socket: a protocol that is switched off is answered as one that is not there.
    fn of_socket(result: libc::c_long) -> Self {
        match Self::of(result) {
            Self::Allowed if result < 0 && errno() == libc::EPROTONOSUPPORT => Self::Denied(libc::EPROTONOSUPPORT),
            outcome @ (Self::Allowed | Self::Denied(_) | Self::Killed(_) | Self::Absent) => outcome,
        }
    }

    /// From opening a file that a sandbox hides or protects.
    fn of_open(fd: libc::c_int) -> Self {
        match (fd >= 0, errno()) {
            (true, _) => Self::Allowed,
            (false, libc::ENOENT | libc::ENOTDIR) => Self::Absent,
            (false, e) => Self::Denied(e),
        }
    }
}

fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// Runs a try in a child and takes its outcome from the exit status.
fn apart(run: fn() -> Outcome) -> Outcome {
    // SAFETY: this program has one thread, so the child may run any code.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let status = match run() {
            Outcome::Allowed => 0,
            Outcome::Absent => 255,
            Outcome::Denied(errno) => errno.clamp(1, 254),
            Outcome::Killed(_) => 254,
        };
        // SAFETY: ends the child.
        unsafe { libc::_exit(status) };
    }
    let mut status = 0;
    // SAFETY: `status` is a place for an int.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    if libc::WIFSIGNALED(status) {
        return Outcome::Killed(libc::WTERMSIG(status));
    }
    match libc::WEXITSTATUS(status) {
        0 => Outcome::Allowed,
        255 => Outcome::Absent,
        errno => Outcome::Denied(errno),
    }
}

/// Moves a file, and links it back.
fn moves(arguments: &[String]) {
    if let [from, to] = arguments
        && let Err(error) = std::fs::rename(from, to).and_then(|()| std::fs::hard_link(to, from))
    {
        eprintln!("{from} to {to}: {error}");
        std::process::exit(1);
    }
}

/// Whether this process is in the initial pid namespace: `PROC_PID_INIT_INO`, include/linux/proc_ns.h.
fn is_on_the_host() -> bool {
    std::fs::read_link("/proc/self/ns/pid").is_ok_and(|own| own.as_os_str() == "pid:[4026531836]")
}

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    match wanted.first().map(String::as_str) {
        Some("every-call") => return tries::every_call(),
        Some("bench") => return tries::bench(),
        Some("move") => return moves(wanted.get(1..).unwrap_or_default()),
        Some("domain") => return domain::run(wanted.get(1..).unwrap_or_default()),
        Some("listener") => return listener::run(wanted.get(1..).unwrap_or_default()),
        Some("spam") => return spam::run(wanted.get(1..).unwrap_or_default()),
        Some("ports") => return ports::run(wanted.get(1..).unwrap_or_default()),
        Some("without") => return without::run(wanted.get(1..).unwrap_or_default()),
        _ => {}
    }
    if wanted.is_empty() && is_on_the_host() {
        eprintln!(
            "hardened-probe: all tries together would change this host's mounts and names: run it in a container"
        );
        std::process::exit(1);
    }
    tries::is_init();
    let mut out = std::io::stdout();
    for t in tries::all().iter().filter(|t| wanted.is_empty() || wanted.iter().any(|w| w == t.name || w == "--list")) {
        if wanted.first().map(String::as_str) == Some("--list") {
            println!("{}", t.name);
            continue;
        }
        let (verdict, number) = match apart(t.run) {
            Outcome::Allowed => ("allowed", 0),
            Outcome::Denied(errno) => ("denied", errno),
            Outcome::Killed(signal) => ("killed", signal),
            Outcome::Absent => ("absent", 0),
        };
        let line = format!("{{\"try\":\"{}\",\"verdict\":\"{verdict}\",\"number\":{number}}}\n", t.name);
        if out.write_all(line.as_bytes()).is_err() {
            return;
        }
    }
}
