//! The launcher's life: the only code that calls libcontainer.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail};
use hardened_lockdown::{self as lockdown, Payload};
use hardened_sandbox::LockdownPlan;
use hardened_sandbox::bundle::{CgroupPath, DeviceRule, Resources};
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use libcontainer::workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError};
use nix::mount::{MsFlags, mount};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, umask};
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType, LinuxResources, Spec};

use super::mounts;
use super::wire::{self, Answer, Task};
use crate::cgroup::{CGROUP_ROOT, Cgroup, DeviceProgram};
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
            let path = spec.linux().as_ref().and_then(|l| l.cgroups_path().as_deref()).context("no cgroup")?;
            let path = CgroupPath::parse(&path.display().to_string()).map_err(|e| anyhow!("cgroupsPath: {e}"))?;
            let cgroup = Cgroup::new(&path, &request.namespace, &request.id);
            let (resources, rules) = limits(&spec)?;
            cgroup.make(&resources, &rules)?;
            let program = cgroup.device_program(&rules)?;
            if mounts_cgroups(&spec) {
                // libcontainer must find them, and moves a process to where it is.
                cgroup.enter()?;
            } else {
                enter_cgroup(&cgroup)?;
            }
            // Set already; libcontainer would look for the cgroups that it cannot find.
            if let Some(linux) = spec.linux_mut() {
                linux.set_resources(None);
                if let CgroupPath::Unit { .. } = path {
                    linux.set_cgroups_path(Some(Path::new("/").join(cgroup.location())));
                }
            }
            spec.save(&config).map_err(|e| anyhow!(chain(&e)))?;
            let pid = create(builder, bundle)?;
            program.map_or(Ok(()), DeviceProgram::attach)?;
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
            enter_cgroup(&Cgroup::new(cgroup, &request.namespace, &request.id))?;
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

fn create(builder: ContainerBuilder, bundle: &Path) -> Result<i32> {
    let container = builder
        .validate_id()
        .context("container id")?
        .as_init(bundle)
        .with_systemd(false)
        .build()
        .map_err(|e| anyhow!(chain(&e)))?;
    container.pid().map(|pid| pid.as_raw()).context("libcontainer reports no pid")
}

/// Whether the spec mounts cgroups into the container.
fn mounts_cgroups(spec: &Spec) -> bool {
    spec.mounts().iter().flatten().any(|m| m.typ().as_deref() == Some("cgroup"))
}

/// The limits and the device rules of the spec.
fn limits(spec: &Spec) -> Result<(Resources, Vec<DeviceRule>)> {
    let asked = spec.linux().as_ref().and_then(|l| l.resources().clone());
    let asked = asked.unwrap_or_else(|| LinuxResources::default().set_devices(None).clone());
    let resources = Resources::parse(&asked).map_err(|problems| anyhow!("linux.resources: {problems:?}"))?;
    // A named pipe is no device.
    let rules = asked.devices().iter().flatten().filter(|rule| rule.typ() != Some(LinuxDeviceType::P));
    Ok((resources, rules.map(device_rule).collect()))
}

fn device_rule(rule: &LinuxDeviceCgroup) -> DeviceRule {
    let number = |n: Option<i64>| n.filter(|n| *n >= 0);
    let block = match rule.typ() {
        Some(LinuxDeviceType::B) => Some(true),
        Some(LinuxDeviceType::C | LinuxDeviceType::U) => Some(false),
        Some(LinuxDeviceType::A | LinuxDeviceType::P) | None => None,
    };
    let access = rule.access().clone().unwrap_or_else(|| "rwm".to_owned());
    DeviceRule { allow: rule.allow(), block, major: number(rule.major()), minor: number(rule.minor()), access }
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

impl Executor for Sandboxed {
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let process = spec.process().as_ref();
        let strings = |list: Option<&Vec<String>>| list.cloned().unwrap_or_default();
        let payload = Payload::new(
            strings(process.and_then(|p| p.args().as_ref())),
            strings(process.and_then(|p| p.env().as_ref())),
        );
        let failure = lockdown::run(&self.plan, payload);
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
