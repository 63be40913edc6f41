//! The launcher's life: the only code that calls libcontainer.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail};
use hardened_lockdown::{self as lockdown, Failure, Payload};
use hardened_sandbox::{CgroupMounts, LockdownPlan, Placement};
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use libcontainer::workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError};
use nix::mount::{MsFlags, mount};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, umask};
use oci_spec::runtime::Spec;

use super::mounts;
use super::wire::{self, Answer, Task};
use crate::cgroup::{CGROUP_ROOT, Cgroup, systemd_unit};
use crate::sys;

/// Entry point. The shim's socket is standard input.
pub(crate) fn main() -> ExitCode {
    let Ok(socket) = take_socket() else { return ExitCode::FAILURE };
    let answer = match run(&socket) {
        Ok(pid) => Answer::Started { pid },
        Err(error) => Answer::Failed { message: format!("{error:#}") },
    };
    // With the shim gone there is nobody to tell.
    if wire::answer(&socket, &answer).is_ok() && matches!(answer, Answer::Started { .. }) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Moves the socket out of the way of the container's standard input, and keeps every other
/// descriptor from the payload (CVE-2024-21626).
fn take_socket() -> Result<UnixStream> {
    let socket = std::io::stdin().as_fd().try_clone_to_owned()?;
    let null = File::open("/dev/null")?;
    nix::unistd::dup2(null.as_raw_fd(), 0)?;
    sys::close_on_exec_from(3)?;
    // A launcher must not outlive its shim: nobody would ever start or delete what it makes.
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    // libcontainer sets groups and umask only for who asks for some: others would keep containerd's.
    nix::unistd::setgroups(&[])?;
    umask(Mode::from_bits_truncate(0o022));
    // The shim's own folder may be gone: it was the bundle of the pod's first container.
    std::env::set_current_dir("/")?;
    Ok(socket.into())
}

fn run(socket: &UnixStream) -> Result<i32> {
    let (request, descriptors) = wire::receive(socket).context("the launcher's request")?;
    let mut descriptors = descriptors.into_iter();
    let status = descriptors.next().context("no status pipe")?;
    let stdio: Vec<OwnedFd> = descriptors.collect();
    // Held open to the end: the executor in the child uses it by number.
    let executor = Sandboxed { plan: request.plan.clone(), status: status.as_raw_fd() };
    let mut builder = ContainerBuilder::new(request.id.clone(), SyscallType::default())
        .with_root_path(&request.runtime_root)
        .context("libcontainer's state folder")?
        .with_executor(executor)
        .with_console_socket(request.console.as_ref());
    let mut stdio = stdio.into_iter();
    match (stdio.next(), stdio.next(), stdio.next()) {
        (Some(stdin), Some(stdout), Some(stderr)) => {
            builder = builder.with_stdin(stdin).with_stdout(stdout).with_stderr(stderr);
        }
        (None, ..) if request.console.is_some() => {}
        _ => bail!("neither stdio nor a console"),
    }
    match &request.task {
        Task::Create { bundle, rootfs, mounts, volumes, users, root, loopback } => {
            mounts::make_private()?;
            if let Some(users) = users {
                mounts::make_users(bundle, users)?;
            }
            mounts::mount_volumes(bundle, volumes)?;
            mounts::mount_rootfs(bundle, rootfs, mounts)?;
            mounts::make_directory(rootfs, &request.plan.cwd, *root);
            let config = bundle.join("config.json");
            let mut spec = Spec::load(&config).map_err(|e| anyhow!(chain(&e)))?;
            if let Some(cgroup) = own_cgroup(&spec, &request.id) {
                cgroup.make_legacy(&spec)?;
                enter_cgroup(&cgroup)?;
                // Set already; libcontainer would look for the cgroups that it cannot find.
                if let Some(linux) = spec.linux_mut() {
                    linux.set_resources(None);
                }
                spec.save(&config).map_err(|e| anyhow!(chain(&e)))?;
            }
            let cgroup = spec.linux().as_ref().and_then(|l| l.cgroups_path().as_deref()).context("no cgroup")?;
            let pid = create(builder, bundle, systemd_unit(cgroup).is_some())?;
            Cgroup::new(cgroup, &request.id).confine_devices(&spec)?;
            if *loopback {
                sys::bring_loopback_up(pid).context("switch on the loopback interface")?;
            }
            if request.plan.memfd_noexec {
                sys::refuse_executable_memfds(pid).context("set vm.memfd_noexec in the container's pid namespace")?;
            }
            Ok(pid)
        }
        Task::Exec { process, cgroup, user_namespace_of } => {
            mounts::make_private()?;
            enter_cgroup(&Cgroup::new(cgroup, &request.id))?;
            if let Some(init) = user_namespace_of {
                // libcontainer joins each namespace of init but this one, and would leave a root
                // of the host in the container. From here on this process is nobody there, but
                // still owns what root of the host does: nobody must look into it.
                prctl::set_dumpable(false).context("make the launcher non-dumpable")?;
                sys::join_user_namespace(*init).context("join the container's user namespace")?;
            }
            exec(builder, process)
        }
    }
}

fn create(builder: ContainerBuilder, bundle: &Path, systemd: bool) -> Result<i32> {
    let container = builder
        .validate_id()
        .context("container id")?
        .as_init(bundle)
        .with_systemd(systemd)
        .build()
        .map_err(|e| anyhow!(chain(&e)))?;
    container.pid().map(|pid| pid.as_raw()).context("libcontainer reports no pid")
}

/// The container's v1 cgroup, where this process may make it instead of libcontainer: not where
/// the spec mounts cgroups into the container, for which libcontainer must find them.
fn own_cgroup(spec: &Spec, id: &str) -> Option<Cgroup> {
    let mounts = spec.mounts().as_deref().unwrap_or_default();
    let path = spec.linux().as_ref()?.cgroups_path().as_ref()?;
    let mounted = mounts.iter().any(|m| m.typ().as_deref() == Some("cgroup"));
    (!mounted && !Cgroup::is_unified()).then(|| Cgroup::new(path, id))
}

/// Moves this process into the container's cgroup, and then has libcontainer find none. This
/// process's mounts must be its own.
///
/// libcontainer would write a pid to `cgroup.procs` of each v1 hierarchy, for which the kernel
/// stops all forks and waits for an RCU grace period each time: 23 of the 27 ms of an exec, measured
/// with 8 hierarchies. A thread that moves only itself, by writing 0 to `tasks`, takes no such
/// lock (kernel/cgroup/cgroup.c, `cgroup_procs_write_start`); this process has one thread, and
/// its children are born where it is. On v2 it would ask systemd, or change the parents' controllers.
fn enter_cgroup(cgroup: &Cgroup) -> Result<()> {
    cgroup.enter()?;
    nix::mount::umount2(CGROUP_ROOT, nix::mount::MntFlags::MNT_DETACH).context("hide the cgroup mounts")?;
    mount(Some("tmpfs"), CGROUP_ROOT, Some("tmpfs"), MsFlags::MS_RDONLY, None::<&str>).context("hide the cgroup mounts")
}

fn exec(builder: ContainerBuilder, process: &Path) -> Result<i32> {
    let pid = builder
        .validate_id()
        .context("container id")?
        .as_tenant()
        .with_detach(true)
        .with_process(Some(process))
        .build()
        .map_err(|e| anyhow!(chain(&e)))?;
    Ok(pid.as_raw())
}

/// An error and its causes, each said once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

/// The one place that init and exec both pass, and the last before `execve`.
#[derive(Clone)]
struct Sandboxed {
    plan: LockdownPlan,
    status: RawFd,
}

impl Sandboxed {
    fn lock_down(&self, payload: Payload) -> Failure {
        let prepare = || {
            let mut plan = self.plan.clone();
            let ruleset = plan.landlock.as_ref().map(lockdown::build_ruleset).transpose()?;
            if let (Some(landlock), Some(exec)) = (&plan.landlock, &mut plan.exec) {
                exec.hidden = lockdown::resolve_hidden(landlock)?;
            }
            let mut placement = Placement::of_exec(lockdown::own_namespaces()?);
            placement.cgroups =
                plan.masks.as_ref().map(|_| CgroupMounts { path: None, at: Vec::new(), volumes: vec!["/".into()] });
            Ok((plan, placement, ruleset))
        };
        match prepare() {
            Ok((plan, placement, ruleset)) => lockdown::run(&plan, &placement, ruleset, payload),
            Err(failure) => failure,
        }
    }
}

impl Executor for Sandboxed {
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let process = spec.process().as_ref();
        let strings = |list: Option<&Vec<String>>| list.cloned().unwrap_or_default();
        let payload = Payload::new(
            strings(process.and_then(|p| p.args().as_ref())),
            strings(process.and_then(|p| p.env().as_ref())),
        );
        let failure = self.lock_down(payload);
        let report = serde_json::to_vec(&failure).unwrap_or_default();
        // A filter that does not even allow write leaves the exit status to tell.
        drop(File::from(sys::adopt(self.status)).write_all(&report));
        lockdown::exit(255)
    }

    fn validate(&self, _: &Spec) -> Result<(), ExecutorValidationError> {
        // The decision was made on the very spec that libcontainer was given.
        Ok(())
    }

    fn setup_envs(&self, _: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        // The payload gets the spec's environment, in the spec's order; ours stays as it is.
        Ok(())
    }
}
