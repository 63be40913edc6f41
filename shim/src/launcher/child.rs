//! The launcher's life: the only code that calls libcontainer.
//!
//! What a create and an exec do, in order, is in `create` and `exec`. Here is what both have: the request, the answer,
//! and the executor, in which both end.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use hardened_lockdown::{self as lockdown, Failure, Mechanism, Payload};
use hardened_sandbox::{LockdownPlan, Placement};
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use libcontainer::workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, umask};
use oci_spec::runtime::Spec;

use super::outcome::Made;
use super::wire::{self, Answer, Descriptor, Descriptors, Request, Task};
use super::{create, exec, words};
use crate::state;
use crate::sys::{self, ignore};

/// Entry point. The shim's socket is standard input.
pub(crate) fn main() -> ExitCode {
    let started = words::speak().and_then(|words| Ok((words, take_socket()?)));
    let (words, socket) = match started {
        Ok(started) => started,
        Err(error) => return end(&error.context("start the launcher")),
    };
    let mut descriptors = Descriptors::default();
    let answer = match run(&socket, words) {
        Ok(Made { pid, process, namespaces, ruleset, hidden }) => {
            descriptors.insert(Descriptor::Process, process);
            if let Some(ruleset) = ruleset {
                descriptors.insert(Descriptor::Ruleset, ruleset);
            }
            Answer::Started { pid, namespaces, hidden, descriptors: descriptors.kinds() }
        }
        Err(error) => Answer::Failed { message: format!("{error:#}") },
    };
    match wire::answer(&socket, &answer, &descriptors) {
        Ok(()) if matches!(answer, Answer::Started { .. }) => ExitCode::SUCCESS,
        Ok(()) => ExitCode::FAILURE,
        Err(error) => end(&error.context("answer the shim")),
    }
}

/// Says why there is no answer.
fn end(error: &anyhow::Error) -> ExitCode {
    ignore(writeln!(std::io::stderr(), "{error:#}"), "with the shim gone there is nobody to tell");
    ExitCode::FAILURE
}

/// Moves the socket out of the way of the container's standard input, and keeps every other
/// descriptor from the payload (CVE-2024-21626).
fn take_socket() -> Result<UnixStream> {
    let socket = std::io::stdin().as_fd().try_clone_to_owned().context("duplicate the shim's socket")?;
    let null = File::open("/dev/null").context("open /dev/null")?;
    nix::unistd::dup2(null.as_raw_fd(), 0).context("replace standard input")?;
    sys::close_on_exec_from(3).context("have all descriptors close on exec")?;
    // A launcher must not outlive its shim: nobody would ever start or delete what it makes.
    prctl::set_pdeathsig(Signal::SIGKILL).context("end with the shim")?;
    // Nor must root of the container look into what is not the payload yet: at its descriptors, above all. execve ends it.
    prctl::set_dumpable(false).context("hide from root of the container")?;
    // libcontainer sets groups and umask only for who asks for some: others would keep containerd's.
    nix::unistd::setgroups(&[]).context("drop the supplementary groups")?;
    umask(Mode::from_bits_truncate(0o022));
    // The shim's own folder may be gone: it was the bundle of the pod's first container.
    std::env::set_current_dir("/").context("chdir to /")?;
    Ok(socket.into())
}

fn run(socket: &UnixStream, words: RawFd) -> Result<Made> {
    let (request, mut descriptors) = wire::receive(socket).context("the launcher's request")?;
    let (ours, theirs) = UnixStream::pair().context("make a socket pair")?;
    // Held open to the end: the executor in the child uses them by number.
    let status = descriptors.take(Descriptor::Status).context("no status socket")?;
    let executor = |placement: Placement| Sandboxed {
        plan: request.plan.clone(),
        placement,
        status: status.as_raw_fd(),
        words,
        ruleset: theirs.as_raw_fd(),
    };
    let stdio = Stdio::take(&request, &mut descriptors)?;
    match &request.task {
        Task::Create(task) => {
            create::create(&request, task, &ours, |placement| stdio.builder(&request, executor(placement)))
        }
        Task::Exec(task) => {
            let init = descriptors.take(Descriptor::Init).context("no pidfd of init")?;
            let ruleset = descriptors.take(Descriptor::Ruleset);
            wire::hand_over(&ours, ruleset.as_ref()).context("hand over the ruleset")?;
            let placement = Placement::of_exec(task.namespaces.clone());
            let builder = stdio.builder(&request, executor(placement))?;
            exec::exec(&request, task, &init, builder)
        }
    }
}

/// Pipes, or nothing where a console takes the terminal.
struct Stdio(Option<[OwnedFd; 3]>);

impl Stdio {
    fn take(request: &Request, descriptors: &mut Descriptors) -> Result<Self> {
        let mut take = |kind| descriptors.take(kind);
        match (take(Descriptor::Stdin), take(Descriptor::Stdout), take(Descriptor::Stderr)) {
            (Some(stdin), Some(stdout), Some(stderr)) => Ok(Self(Some([stdin, stdout, stderr]))),
            (None, None, None) if request.console.is_some() => Ok(Self(None)),
            _ => bail!("neither stdio nor a console"),
        }
    }

    fn builder(self, request: &Request, executor: Sandboxed) -> Result<ContainerBuilder> {
        let builder = ContainerBuilder::new(request.id.clone(), SyscallType::default())
            .with_root_path(state::runtime_root(&request.state))
            .context("libcontainer's state folder")?
            .with_executor(executor)
            .with_console_socket(request.console.as_ref());
        Ok(match self.0 {
            Some([stdin, stdout, stderr]) => builder.with_stdin(stdin).with_stdout(stdout).with_stderr(stderr),
            None => builder,
        })
    }
}

/// The one place that init and exec both pass, and the last before `execve`.
#[derive(Clone)]
struct Sandboxed {
    plan: LockdownPlan,
    placement: Placement,
    status: RawFd,
    words: RawFd,
    /// A socket on which the Landlock ruleset has come: of init it is made when the container's mounts are.
    ruleset: RawFd,
}

impl Sandboxed {
    fn fail(&self, failure: &Failure) -> ! {
        let report = serde_json::to_vec(failure).unwrap_or_default();
        let written = File::from(sys::adopt(self.status)).write_all(&report);
        ignore(written, "a filter that does not even allow write leaves the exit status to tell");
        lockdown::exit(255)
    }
}

/// Closes all descriptors but standard input, output and error, and these.
fn keep_only(kept: &[RawFd]) -> std::io::Result<()> {
    let mut kept: Vec<u32> = kept.iter().filter_map(|fd| u32::try_from(*fd).ok()).collect();
    kept.sort_unstable();
    let mut first = 3;
    for fd in kept {
        if fd > first {
            sys::close_range(first, fd - 1)?;
        }
        first = fd + 1;
    }
    sys::close_range(first, u32::MAX)
}

impl Executor for Sandboxed {
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        // What the launcher held of the host has no use from here on, whatever the lock-down lets through.
        if let Err(error) = keep_only(&[self.status, self.words, self.ruleset]) {
            let failure = Failure {
                mechanism: Mechanism::Execve,
                step: "close the launcher's descriptors".to_owned(),
                errno: error.raw_os_error().unwrap_or(0),
            };
            self.fail(&failure);
        }
        let process = spec.process().as_ref();
        let strings = |list: Option<&Vec<String>>| list.cloned().unwrap_or_default();
        let payload = Payload::new(
            strings(process.and_then(|p| p.args().as_ref())),
            strings(process.and_then(|p| p.env().as_ref())),
        );
        // Closed by `execve`, or here with the process.
        let status = ManuallyDrop::new(sys::adopt(self.status));
        let failure = match wire::take_over(&sys::adopt(self.ruleset)) {
            Ok(ruleset) => lockdown::run(&self.plan, &self.placement, ruleset, payload, status.as_fd()),
            Err(error) => Failure {
                mechanism: Mechanism::Landlock,
                step: "take the container's ruleset".to_owned(),
                errno: error.raw_os_error().unwrap_or(0),
            },
        };
        self.fail(&failure)
    }

    fn validate(&self, _: &Spec) -> Result<(), ExecutorValidationError> {
        // The decision was made on what this very spec was written from.
        Ok(())
    }

    fn setup_envs(&self, _: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        // The payload gets the spec's environment, in the spec's order; ours stays as it is. This is the last that
        // is called before init is parked, where libcontainer waits for the start and notices nothing else.
        sys::end_with(self.status).map_err(|e| ExecutorSetEnvsError::Other(format!("end with the shim: {e}")))
    }
}
