//! Many disturbed calls, one after another on several shims, and what is wrong with what comes of them.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::follow::{Call, Deed, Phase, Role};
use super::stand::{Outcome, Stand};
use crate::Containerd;

/// The errnos that each call fails with, and their names.
pub const ERRNOS: [(i32, &str); 4] =
    [(libc::EPERM, "EPERM"), (libc::ENOSYS, "ENOSYS"), (libc::EIO, "EIO"), (libc::ENOMEM, "ENOMEM")];

/// Who is killed after each call.
pub const VICTIMS: [Role; 4] = [Role::Launcher, Role::Intermediate, Role::Process, Role::Shim];

/// How often a call is waited for that is not made each time: which file comes first in a folder, say, is up to the kernel.
const TRIES: u32 = 5;

/// One thing to do.
#[derive(Debug, Clone)]
pub struct Job {
    /// To this call.
    pub call: Call,
    /// What.
    pub deed: Deed,
}

/// What has come of it.
#[derive(Debug)]
pub struct Verdict {
    /// What was done.
    pub job: Job,
    /// A word on the arguments of the call that was disturbed.
    pub about: String,
    /// What came of it.
    pub outcome: Outcome,
    /// How long it took.
    pub took: Duration,
}

impl Verdict {
    /// Why this must not be, if so.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        match &self.outcome {
            Outcome::Wrong(problem) => Some(problem.clone()),
            Outcome::Refused { request, message }
                if matches!(self.job.deed, Deed::Fail(_)) && !names_step(&self.job.call, message) =>
            {
                Some(format!("{request} says only {message:?}"))
            }
            Outcome::Refused { .. } | Outcome::Whole | Outcome::Ended(_) | Outcome::CleanedUp | Outcome::NotReached => {
                None
            }
        }
    }
}

/// Why the outcome of an attempt must not be, if so.
#[must_use]
pub fn problem(outcome: &Outcome) -> Option<String> {
    match outcome {
        Outcome::Wrong(problem) => Some(problem.clone()),
        Outcome::NotReached => Some("nothing was tried".to_owned()),
        Outcome::Refused { request, message } if !message.contains(": ") => Some(format!("{request}: {message}")),
        Outcome::Refused { .. } | Outcome::Whole | Outcome::Ended(_) | Outcome::CleanedUp => None,
    }
}

/// Whether a message says what failed. A launcher that crashes or aborts before its first own instruction, in its C
/// library or in Rust's own start, cannot say more than that.
fn names_step(call: &Call, message: &str) -> bool {
    let said = message.strip_prefix("hardened: ").unwrap_or_default();
    let is_start = call.role == Role::Launcher && call.number == 1 && STARTS.contains(&call.name);
    match said.strip_prefix("the launcher ended without an answer (status ") {
        Some(said) => said.contains(" (") || is_start,
        None => said.contains(": "),
    }
}

/// The first calls of a program: the C library's for its own data, and Rust's look at standard input.
const STARTS: [&str; 3] = ["arch_prctl", "mmap", "poll"];

/// Each call of a create and of an exec, with a word on its arguments.
///
/// # Errors
/// Undisturbed, they are refused, or not the same twice.
pub fn calls(c: &Containerd, config: &serde_json::Value) -> Result<Vec<(Call, String)>> {
    let mut stand = Stand::new(c, config.clone());
    let mut all = stand.rehearse(Phase::Create)?.calls;
    all.extend(stand.rehearse(Phase::Exec)?.calls);
    Ok(all)
}

/// Calls that are made in a loop over all capabilities or all signals.
const LOOPS: [&str; 2] = ["prctl", "rt_sigaction"];

/// Those of the calls that are disturbed: all, but of each loop the first pass and the last.
#[must_use]
pub fn disturbed(calls: &[(Call, String)]) -> Vec<Call> {
    let of = |call: &Call| (call.phase, call.role, call.name);
    let is_one_of_many = |at: usize| {
        let around = [at.checked_sub(1), Some(at), Some(at + 1)].map(|at| Some(of(&calls.get(at?)?.0)));
        around[0] == around[1] && around[1] == around[2] && calls.get(at).is_some_and(|(c, _)| LOOPS.contains(&c.name))
    };
    let kept = calls.iter().enumerate().filter(|(at, _)| !is_one_of_many(*at));
    kept.map(|(_, (call, _))| call.clone()).collect()
}

/// Does all of that, some at a time, and tells of each as it is done.
///
/// # Errors
/// Undisturbed containers are refused, or not the same twice.
pub fn run(
    c: &Containerd,
    config: &serde_json::Value,
    jobs: Vec<Job>,
    workers: usize,
    done: &(dyn Fn(&Verdict) + Sync),
) -> Result<()> {
    let jobs = Mutex::new(VecDeque::from(jobs));
    let next = || jobs.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let work = || -> Result<()> {
        let mut stand = Stand::new(c, config.clone());
        stand.rehearse(Phase::Create)?;
        stand.rehearse(Phase::Exec)?;
        while let Some(job) = next() {
            done(&disturb(&mut stand, job)?);
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().ok().context("a worker panicked")?)
    })
}

fn disturb(stand: &mut Stand<'_>, job: Job) -> Result<Verdict> {
    let begin = Instant::now();
    let mut tries = 0;
    loop {
        tries += 1;
        let (outcome, about) = stand.disturb(&job.call, job.deed)?;
        // Nobody is there to be killed, then.
        let is_reached = outcome != Outcome::NotReached || about.is_some();
        if is_reached || tries == TRIES {
            return Ok(Verdict { job, about: about.unwrap_or_default(), outcome, took: begin.elapsed() });
        }
    }
}
