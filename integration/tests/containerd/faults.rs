//! Calls that fail, and processes that are killed, in the middle of a create or an exec. What is tried here is a part,
//! the same each time; `scripts/inject` tries the whole.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use hardened_integration::Containerd;
use hardened_integration::inject::{self, Call, Deed, ERRNOS, Job, Stand, VICTIMS};

crate::tests!(
    a_call_that_fails_refuses_the_container_or_changes_nothing,
    a_process_that_is_killed_leaves_nothing,
    too_little_of_a_resource_refuses_the_container_or_changes_nothing,
);

/// How many calls of each launch a process is killed after.
const KILLS: usize = 5;

/// How many values of each limit are tried.
const VALUES: usize = 3;

/// One of each name of each process, the middle one, with one of the errnos.
fn a_call_that_fails_refuses_the_container_or_changes_nothing(c: &Containerd) -> Result<()> {
    let config = c.spec(&["true"])?;
    let mut by_name: BTreeMap<_, Vec<Call>> = BTreeMap::new();
    for (call, _) in inject::calls(c, &config)? {
        by_name.entry((call.phase, call.role, call.name)).or_default().push(call);
    }
    let middle = |calls: Vec<Call>| calls.get(calls.len() / 2).cloned();
    let calls: Vec<Call> = by_name.into_values().filter_map(middle).collect();
    ensure!(calls.len() > 100, "only {} calls", calls.len());
    let errnos = ERRNOS.iter().cycle();
    let jobs = calls.into_iter().zip(errnos).map(|(call, (errno, _))| Job { call, deed: Deed::Fail(*errno) });
    nothing_wrong(c, &config, jobs.collect())
}

/// Each process, after calls at even distances.
fn a_process_that_is_killed_leaves_nothing(c: &Containerd) -> Result<()> {
    let config = c.spec(&["true"])?;
    let calls = inject::calls(c, &config)?;
    let mut jobs = Vec::new();
    for phase in [inject::Phase::Create, inject::Phase::Exec] {
        let calls: Vec<&Call> = calls.iter().map(|(call, _)| call).filter(|call| call.phase == phase).collect();
        for call in calls.iter().step_by(calls.len().div_ceil(KILLS)) {
            jobs.extend(VICTIMS.map(|role| Job { call: (*call).clone(), deed: Deed::Kill(role) }));
        }
    }
    nothing_wrong(c, &config, jobs)
}

fn nothing_wrong(c: &Containerd, config: &serde_json::Value, jobs: Vec<Job>) -> Result<()> {
    let (wanted, wrong) = (jobs.len(), Mutex::new((0, Vec::new())));
    let done = |verdict: &inject::Verdict| {
        let (count, wrong) = &mut *wrong.lock().unwrap_or_else(PoisonError::into_inner);
        *count += 1;
        wrong.extend(verdict.problem().map(|_| inject::line(verdict)));
    };
    let workers = std::thread::available_parallelism()?.get();
    inject::run(c, config, jobs, workers, &done)?;
    let (count, wrong) = wrong.into_inner().ok().context("a worker panicked")?;
    ensure!(count == wanted && wrong.is_empty(), "{count} of {wanted} done:\n{}", wrong.join("\n"));
    Ok(())
}

/// Some values of each limit: the smallest, and a few after it.
fn too_little_of_a_resource_refuses_the_container_or_changes_nothing(c: &Containerd) -> Result<()> {
    let config = c.spec(&["true"])?;
    let mut stand = Stand::new(c, config.clone());
    stand.rehearse(inject::Phase::Create)?;
    let mut wrong = Vec::new();
    for mut limit in inject::limits() {
        let step = limit.values.len().div_ceil(VALUES);
        limit.values = limit.values.into_iter().step_by(step).collect();
        for (value, outcome) in stand.attempt_all(&config, &limit)? {
            wrong.extend(inject::problem(&outcome).map(|problem| format!("{limit:?} {value}: {problem}")));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}
