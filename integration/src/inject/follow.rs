//! Follows what a shim's launchers do, call by call, and disturbs one of the calls.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use hardened_sandbox::seccomp::Arch;

use super::look::look;
use super::ptrace::{self, Side, Stop};

/// What a launcher was started for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// A container, up to the first instruction of its program.
    Create,
    /// One more process in it.
    Exec,
}

/// Whose call it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// The shim itself: followed, never disturbed but killed.
    Shim,
    /// A child of the shim that has not executed the launcher yet.
    Spawn,
    /// The launcher.
    Launcher,
    /// A child of it that does one thing in another namespace.
    Helper,
    /// libcontainer's first process.
    Intermediate,
    /// libcontainer's second, which locks itself down and becomes the container's process.
    Process,
}

/// One call: the `number`th of that name of that process.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Call {
    /// In which launch.
    pub phase: Phase,
    /// Of which process.
    pub role: Role,
    /// Its name.
    pub name: &'static str,
    /// Counted from 1.
    pub number: u32,
}

/// What is done to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// It is not made, and fails with this errno.
    Fail(i32),
    /// A process is killed right after it.
    Kill(Role),
}

/// What was seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// Each call in order, with a word on its arguments. Where one is to be disturbed, that one alone.
    pub calls: Vec<(Call, String)>,
    /// What was disturbed, in the words of `calls`. `None` where the call was not made.
    pub struck: Option<String>,
    /// For a deed that kills: whether there was such a process.
    pub killed: bool,
    /// What the payloads looked like before their first instruction.
    pub payloads: Vec<(Phase, Vec<String>)>,
}

struct Tracee {
    phase: Phase,
    role: Role,
    /// How often it has made each call.
    counts: HashMap<&'static str, u32>,
    /// The call that it is in.
    inside: Option<(Call, String)>,
}

impl Tracee {
    fn new(phase: Phase, role: Role) -> Self {
        Self { phase, role, counts: HashMap::new(), inside: None }
    }
}

struct Follower<'a> {
    arch: Arch,
    target: Option<&'a (Call, Deed)>,
    phase: Phase,
    tracees: HashMap<i32, Tracee>,
    /// Children whose first stop came before their parent's.
    early: Vec<i32>,
    launches: u32,
    seen: Seen,
}

/// Follows the launchers of a shim until told to stop: the first is of that phase, and all later ones are execs. What is
/// followed is let go when the calling thread ends. `ready` is called before anything can be missed.
///
/// # Errors
/// It cannot be followed.
pub(super) fn follow(
    shim: i32,
    phase: Phase,
    target: Option<&(Call, Deed)>,
    ready: impl FnOnce(),
    stop: &AtomicBool,
) -> Result<Seen> {
    let arch = Arch::native().context("an architecture that we know")?;
    ptrace::seize(shim).context("seize the shim")?;
    ready();
    let tracees = HashMap::from([(shim, Tracee::new(phase, Role::Shim))]);
    let mut follower = Follower { arch, target, phase, tracees, early: Vec::new(), launches: 0, seen: Seen::default() };
    while !stop.load(Ordering::Acquire) {
        match ptrace::wait() {
            Ok(Some((pid, stop))) => follower.handle(pid, stop)?,
            Ok(None) => {}
            // The shim was killed, and all others have ended.
            Err(error) if error.raw_os_error() == Some(libc::ECHILD) => break,
            Err(error) => return Err(error).context("wait for a tracee"),
        }
    }
    Ok(follower.seen)
}

impl Follower<'_> {
    fn handle(&mut self, pid: i32, stop: Stop) -> Result<()> {
        let Some(role) = self.tracees.get(&pid).map(|tracee| tracee.role) else {
            // Its parent's stop says who it is.
            if stop != Stop::Ended {
                self.early.push(pid);
            }
            return Ok(());
        };
        match stop {
            Stop::Ended => drop(self.tracees.remove(&pid)),
            Stop::Child => {
                match ptrace::child_of(pid) {
                    Ok(child) => self.adopt(pid, role, child)?,
                    // Killed meanwhile.
                    Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                    Err(error) => return Err(error).context("look at a child"),
                }
                self.go_on(pid, 0)?;
            }
            Stop::Executed => self.executed(pid, role)?,
            Stop::Group(signal) if signal == libc::SIGTRAP => self.go_on(pid, 0)?,
            Stop::Group(_) => ptrace::listen(pid)?,
            // The kernel lets the first process of a pid namespace survive its own crash, as long as it is traced.
            Stop::Signal(signal @ (libc::SIGSEGV | libc::SIGBUS | libc::SIGILL | libc::SIGFPE)) => {
                self.tracees.remove(&pid);
                ptrace::detach(pid, signal)?;
            }
            Stop::Signal(signal) => self.go_on(pid, signal)?,
            Stop::Call => self.at_call(pid)?,
        }
        Ok(())
    }

    fn adopt(&mut self, parent: i32, role: Role, child: i32) -> Result<()> {
        let mut phase = self.tracees.get(&parent).map_or(self.phase, |tracee| tracee.phase);
        let role = match role {
            Role::Shim => {
                self.launches += 1;
                phase = if self.launches == 1 { self.phase } else { Phase::Exec };
                Role::Spawn
            }
            // libcontainer's own way to make processes; all else is the C library's.
            Role::Launcher if self.arch.number("clone3") != ptrace::call_of(parent) => Role::Helper,
            Role::Launcher => Role::Intermediate,
            Role::Intermediate => Role::Process,
            Role::Spawn | Role::Helper | Role::Process => Role::Helper,
        };
        self.tracees.insert(child, Tracee::new(phase, role));
        if let Some(at) = self.early.iter().position(|pid| *pid == child) {
            self.early.swap_remove(at);
            self.go_on(child, 0)?;
        }
        Ok(())
    }

    fn executed(&mut self, pid: i32, role: Role) -> Result<()> {
        let Some(tracee) = self.tracees.get_mut(&pid) else { return Ok(()) };
        match role {
            Role::Process => {
                let phase = tracee.phase;
                let lines = look(pid);
                // Killed meanwhile, it does not look like itself.
                if std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty()) {
                    self.seen.payloads.push((phase, lines));
                }
                self.tracees.remove(&pid);
                ptrace::detach(pid, 0)?;
            }
            Role::Spawn => {
                // Its `execve` is the last of the old program's.
                tracee.role = Role::Launcher;
                tracee.counts.clear();
                self.go_on(pid, 0)?;
            }
            Role::Shim | Role::Launcher | Role::Helper | Role::Intermediate => self.go_on(pid, 0)?,
        }
        Ok(())
    }

    fn at_call(&mut self, pid: i32) -> Result<()> {
        let side = match ptrace::call(pid) {
            Ok(side) => side,
            // Killed meanwhile.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(()),
            Err(error) => return Err(error).context("look at a call"),
        };
        match side {
            Side::Entry { number, arguments } => self.enter(pid, number, arguments)?,
            Side::Exit => self.leave(pid)?,
        }
        self.go_on(pid, 0)
    }

    fn enter(&mut self, pid: i32, number: u64, arguments: [u64; 6]) -> Result<()> {
        let name = u32::try_from(number).ok().and_then(|number| self.arch.name(number)).unwrap_or("unknown");
        let Some(tracee) = self.tracees.get_mut(&pid) else { return Ok(()) };
        let count = tracee.counts.entry(name).or_default();
        *count += 1;
        let call = Call { phase: tracee.phase, role: tracee.role, name, number: *count };
        if self.target.is_some_and(|(wanted, _)| *wanted != call) {
            return Ok(());
        }
        let about = super::about::about(pid, name, &arguments);
        tracee.inside = Some((call.clone(), about.clone()));
        self.seen.calls.push((call.clone(), about.clone()));
        match self.target {
            // Of this one Linux frees the descriptor whatever it answers (close(2), "Dealing with error returns").
            Some((wanted, Deed::Fail(_))) if *wanted == call && name != "close" => {
                ptrace::replace_call(pid).context("replace a call")?;
            }
            // These do not come back.
            Some((wanted, Deed::Kill(victim))) if *wanted == call && matches!(name, "exit" | "exit_group") => {
                self.strike(*victim, about);
            }
            _ => {}
        }
        Ok(())
    }

    fn leave(&mut self, pid: i32) -> Result<()> {
        let Some((call, about)) = self.tracees.get_mut(&pid).and_then(|tracee| tracee.inside.take()) else {
            return Ok(());
        };
        match self.target {
            Some((wanted, deed)) if *wanted == call && self.seen.struck.is_none() => match deed {
                Deed::Fail(errno) => {
                    ptrace::fail_call(pid, *errno).context("fail a call")?;
                    self.seen.struck = Some(about);
                }
                Deed::Kill(victim) => self.strike(*victim, about),
            },
            _ => {}
        }
        Ok(())
    }

    fn strike(&mut self, victim: Role, about: String) {
        self.seen.struck = Some(about);
        for (pid, _) in self.tracees.iter().filter(|(_, tracee)| tracee.role == victim) {
            ptrace::kill(*pid);
            self.seen.killed = true;
        }
    }

    fn go_on(&self, pid: i32, signal: i32) -> Result<()> {
        ptrace::go_on(pid, self.looks_at_calls_of(pid), signal).context("let a tracee go on")
    }

    /// Whether each call of a tracee stops it. Few do: it takes longer than the calls themselves.
    fn looks_at_calls_of(&self, pid: i32) -> bool {
        let Some(tracee) = self.tracees.get(&pid) else { return false };
        let of_target = self.target.is_none_or(|(call, _)| {
            call.role == tracee.role || (call.role, tracee.role) == (Role::Launcher, Role::Spawn)
        });
        self.seen.struck.is_none() && tracee.phase == self.phase && tracee.role != Role::Shim && of_target
    }
}
