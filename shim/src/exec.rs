//! Exec: one more process in a container, through the same decision, launch and lock-down.

use std::sync::Arc;

use anyhow::Context;
use containerd_shim_protos::api::ExecProcessRequest;
use containerd_shim_protos::events::task::{TaskExecAdded, TaskExecStarted};
use hardened_sandbox::{ExecAdmission, ProcessRequest};

use crate::container::Container;
use crate::create::launch_with_streams;
use crate::explain;
use crate::fault::{Fault, Result};
use crate::id;
use crate::launcher;
use crate::launcher::wire::{Descriptor, Descriptors, Request, Task};
use crate::process::{Phase, Process};
use crate::reaper::Exit;
use crate::registry::Shim;
use crate::state;
use crate::stdio::Streams;
use crate::sys::ignore;

/// Largest process that is taken, in bytes; containerd's own messages end at 4 MiB.
const MAX_PROCESS_BYTES: usize = 4 << 20;

/// Notes an exec, if it may run. Nothing runs before Start.
pub(crate) fn add(shim: &Shim, container: &Arc<Container>, request: ExecProcessRequest) -> Result<()> {
    id::check(&request.exec_id).map_err(|e| Fault::invalid(format!("exec id: {e}")))?;
    if matches!(container.init.phase(), Phase::Stopped(_)) {
        return Err(Fault::state(format!("container {} is stopped", container.id)));
    }
    let text = &request.spec.value;
    if text.len() > MAX_PROCESS_BYTES {
        return Err(Fault::invalid(format!("exec spec of {} bytes; at most {MAX_PROCESS_BYTES} are read", text.len())));
    }
    // Whether there is a terminal is for the request to say, as runc's shim has it.
    let asked = ProcessRequest::of_exec(text, container.admission.identity())?.with_terminal(request.terminal);
    let admission = container.admission.decide_exec(&asked)?;
    for note in admission.notes() {
        log::info!("container {}, exec {}: {note}", container.id, request.exec_id);
    }
    let streams =
        Streams { stdin: request.stdin, stdout: request.stdout, stderr: request.stderr, terminal: request.terminal };
    let process = Arc::new(Process::new(request.exec_id.clone(), streams));
    container.add_exec(Arc::clone(&process))?;
    shim.admit(&container.id, &request.exec_id, admission);
    shim.publisher.publish(&TaskExecAdded {
        container_id: container.id.clone(),
        exec_id: request.exec_id,
        ..TaskExecAdded::default()
    });
    Ok(())
}

/// Runs an exec that was added.
pub(crate) async fn start(shim: &Shim, container: &Arc<Container>, process: &Arc<Process>) -> Result<()> {
    process.begin_start()?;
    let started = match shim.admitted(&container.id, &process.exec_id) {
        Some(admission) => run(shim, container, process, &admission).await,
        None => Err(Fault::state("the exec was started before")),
    };
    match started {
        Ok(()) => {
            shim.publisher.publish(&TaskExecStarted {
                container_id: container.id.clone(),
                exec_id: process.exec_id.clone(),
                pid: process.pid_u32(),
                ..TaskExecStarted::default()
            });
            process.set_phase(Phase::Running);
            Ok(())
        }
        Err(fault) => {
            // 255, as runc answers for a process that never ran.
            process.set_phase(Phase::Stopped(Exit { status: 255, at: std::time::SystemTime::now() }));
            Err(fault)
        }
    }
}

async fn run(shim: &Shim, container: &Arc<Container>, process: &Arc<Process>, admission: &ExecAdmission) -> Result<()> {
    match container.init.phase() {
        Phase::Running if container.is_paused() => return Err(Fault::state("cannot exec in a paused container")),
        Phase::Running => {}
        Phase::Created | Phase::Starting | Phase::Stopped(_) => {
            return Err(Fault::state(format!(
                "cannot exec: container {} is {}",
                container.id,
                container.init.describe()
            )));
        }
    }
    let mut plan = admission.plan().clone();
    if let Some(restriction) = &mut plan.exec {
        restriction.hidden.clone_from(&container.made.hidden);
    }
    let task = launcher::wire::Exec {
        process: admission.process().clone(),
        exec_id: process.exec_id.clone(),
        oom_score_adj: admission.oom_score_adj(),
        user_namespace: container.admission.user_namespace().is_some(),
        namespaces: container.made.namespaces.clone(),
    };
    let message = Request {
        task: Task::Exec(Box::new(task)),
        namespace: shim.namespace.clone(),
        id: container.id.clone(),
        state: container.state.path().to_owned(),
        cgroup: container.cgroup.path().clone(),
        plan,
        console: None,
        descriptors: Vec::new(),
    };
    let mut descriptors = Descriptors::default();
    descriptors.insert(Descriptor::Init, container.init.handle()?);
    if let Some(ruleset) = &container.made.ruleset {
        descriptors.insert(Descriptor::Ruleset, ruleset.try_clone().context("duplicate the ruleset")?);
    }
    let tag = launcher::tag(&shim.namespace, &container.id, Some(&process.exec_id));
    let launching = container.launching();
    let launched = launch_with_streams(
        shim,
        message,
        &tag,
        descriptors,
        &process.streams,
        &container.admission,
        admission.process(),
    )
    .await;
    // Not by its launcher, which may have been killed.
    if let Err(error) = container.state.remove_file(&state::exec_file(&process.exec_id)) {
        log::warn!("{error:#}");
    }
    let stopped = || Fault::state(format!("cannot exec: container {} is stopped", container.id));
    let (launched, io) = match launched {
        Ok(launched) => launched,
        Err(fault) => {
            launching.failed();
            return match container.init.has_ended() {
                // Joining its namespaces fails in many ways then; this is the one reason.
                Ok(true) => Err(stopped()),
                Ok(false) | Err(_) => Err(fault),
            };
        }
    };
    process.launched(launched.pid, launched.process, io);
    drop(launching);
    container.supervise(Arc::clone(process), launched.exit, shim.publisher.clone());
    if container.init.has_ended()? {
        // Namespaces are known by numbers, which are given again once init is gone. As long as it is there, the
        // lock-down has seen that these are its own.
        ignore(process.signal(libc::SIGKILL), "it has ended, then");
        return Err(stopped());
    }
    let explained = |listener| {
        let exec = explain::Exec::new(&process.exec_id, &admission.process().args);
        explain::supervise(&container.denials, Some(exec), admission.plan().seccomp.clone(), listener);
    };
    launcher::executed(launched.report, || process.has_ended().unwrap_or(true), explained).await.map_err(|error| {
        ignore(process.signal(libc::SIGKILL), "as a rule it has ended, which is the error");
        not_started("exec", &error)
    })
}

/// The lock-down or `execve` failed: what containerd shows.
pub(crate) fn not_started(what: &str, error: &anyhow::Error) -> Fault {
    Fault::new(
        containerd_shim_protos::ttrpc::Code::UNKNOWN,
        format!("hardened: cannot start the {what} process: {error:#}"),
    )
}
