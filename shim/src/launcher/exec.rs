//! An exec: one more process in a container, in order.

use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use libcontainer::container::builder::ContainerBuilder;

use super::outcome::{Made, chain};
use super::wire::{Exec, Request};
use super::{cgroup, jail, namespaces};
use crate::cgroup::Cgroup;
use crate::state::{self, StateDir};
use crate::sys;

/// Runs the process. libcontainer joins init's namespaces by a pid number, which may be another process's by now: the
/// lock-down compares where it is with what init was made in, before anything of the image runs.
///
/// Processes of the container see a process of libcontainer's before it has joined all of its namespaces, and may stop
/// it there: it has nothing of the host then, neither mounts nor network.
pub(super) fn exec(request: &Request, task: &Exec, init: &OwnedFd, builder: ContainerBuilder) -> Result<Made> {
    namespaces::leave_the_hosts_mounts()?;
    let state = StateDir::open(&request.state)?;
    let file = state::exec_file(&task.exec_id);
    let process = task.process.to_oci().context("convert the process")?;
    state.write(&file, &process)?;
    run(request, task, init, &request.state.join(&file), builder)
}

fn run(request: &Request, task: &Exec, init: &OwnedFd, process: &Path, builder: ContainerBuilder) -> Result<Made> {
    // From here on its limits hold for what this process does, too.
    Cgroup::new(&request.cgroup, &request.namespace, &request.id)?.enter()?;
    cgroup::set_oom_score(task.oom_score_adj)?;
    jail::enter(&request.state, &state::runtime_root(&request.state), None)?;
    let flags = libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWCGROUP;
    sys::join_namespace(init, flags).context("join the container's namespaces")?;
    if task.user_namespace {
        // libcontainer joins each namespace of init but this one, and would leave a root of the host in the
        // container. From here on this process is nobody there, but still owns what root of the host does; nobody
        // can look into it, since no launcher is dumpable.
        sys::join_namespace(init, libc::CLONE_NEWUSER).context("join the container's user namespace")?;
    }
    let pid = builder
        .validate_id()
        .context("container id")?
        .as_tenant()
        .with_detach(true)
        .with_process(Some(process))
        .build()
        .map_err(|e| anyhow!(chain(&e)).context("make the process"))?
        .as_raw();
    // A child that nobody has waited for.
    let process = sys::pidfd(pid).context("open the process's pidfd")?;
    Ok(Made { pid, process, namespaces: task.namespaces.clone(), ruleset: None, hidden: Vec::new() })
}
