//! Create, from top to bottom: parse, observe, decide, launch. The container is locked down at its start.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use containerd_shim_protos::api::{CreateTaskRequest, Mount};
use containerd_shim_protos::events::container::ContainerUpdate;
use containerd_shim_protos::events::task::{TaskCreate, TaskIO};
use containerd_shim_protos::protobuf::MessageField;
use hardened_sandbox::bundle::{self, CgroupPath, NamespaceKind};
use hardened_sandbox::{
    Admission, Identity, KernelSupport, Request, Standing, UserNamespace, decide, profile_asked_for,
};

use crate::cgroup::Cgroup;
use crate::container::{Container, Made};
use crate::events::{LANDLOCK_REDUCED, PRIVILEGED_ADMITTED, TIGHTENED};
use crate::explain::{self, Denials};
use crate::fault::{Fault, Result};
use crate::launcher::wire::{self, Descriptor, Descriptors, RootfsMount, Task};
use crate::launcher::{self, Launched};
use crate::process::Process;
use crate::registry::Shim;
use crate::state::{self, InitRecord, Record, StateDir};
use crate::stdio::{Console, Io, Streams, await_readers};
use crate::{id, observe, runtime_options, sys};

/// Largest `config.json` that is read, in bytes. Kubernetes' largest pods make a few hundred
/// kilobytes.
const MAX_CONFIG_BYTES: u64 = 8 << 20;

/// Most of what an event says of changes: containerd keeps events in memory for slow listeners.
const MAX_EVENT_CHARACTERS: usize = 4096;

/// Where systemd is asked to make cgroups (D-Bus specification, "Well-known Message Bus Instances").
const SYSTEM_BUS: &str = "/var/run/dbus/system_bus_socket";

/// Makes a container and parks its init.
pub(crate) async fn create(shim: &Shim, request: CreateTaskRequest) -> Result<Arc<Container>> {
    id::check(&request.id).map_err(|e| Fault::invalid(format!("container id: {e}")))?;
    if !request.checkpoint.is_empty() {
        return Err(Fault::new(
            containerd_shim_protos::ttrpc::Code::UNIMPLEMENTED,
            "hardened: restoring from a checkpoint is not supported",
        ));
    }
    let asked = Request::from_json(&read_config(Path::new(&request.bundle))?)?;
    // Each time: a change applies to the containers that come after it.
    let identity = Identity { handler: observe::handler(), ..asked.identity().clone() };
    let policy = runtime_options::load(request.options.as_ref(), &identity, profile_asked_for(&asked))?;
    let observed = observe::observe(&asked, &policy, &shim.namespace, &request.id)?;
    // Profiles of AppArmor may have been loaded since.
    let kernel = KernelSupport { apparmor: hardened_node::apparmor(), ..shim.kernel.clone() };
    let admission = decide(&asked, &policy, &kernel, &observed)
        .inspect_err(|refusal| explain::refused(&shim.namespace, &request.id, refusal))?;
    check_cgroup_driver(&admission.bundle().cgroup)?;
    drop(policy);
    log::info!("container {}: admitted by {}", request.id, admission.by());
    for note in admission.notes() {
        log::info!("container {}: {note}", request.id);
    }

    // Removed again with all in it when anything below fails.
    let state = StateDir::create(&shim.namespace, &request.id)?;
    if admission.user_namespace().is_some() {
        state.let_through()?;
    }
    let cgroup = Cgroup::new(&admission.bundle().cgroup, &shim.namespace, &request.id)?;
    // For `delete`, if this shim is gone a moment later.
    state.write("container.json", &Record { cgroup: cgroup.path().to_string(), init: None })?;
    state.write("admission.json", &admission.summary())?;
    state.write("standing.json", &Standing::new(&admission))?;
    let streams = Streams {
        stdin: request.stdin.clone(),
        stdout: request.stdout.clone(),
        stderr: request.stderr.clone(),
        terminal: request.terminal,
    };
    let launched = async {
        let (launched, io) = launch(shim, &request, &admission, &state, &streams).await?;
        let start_time = state::start_time(launched.pid, &launched.process).context("look at init")?;
        let init = Some(InitRecord { pid: launched.pid, start_time });
        state.write("container.json", &Record { cgroup: cgroup.path().to_string(), init })?;
        Ok((launched, io))
    };
    let (launched, io) = match launched.await {
        Ok(launched) => launched,
        Err(fault) => {
            // libcontainer cleans up after itself, unless it was killed, or had done its part.
            undo(shim, &cgroup, &request.id).await;
            return Err(fault);
        }
    };
    let init = Arc::new(Process::new(String::new(), streams));
    init.launched(launched.pid, launched.process, io);
    let own_pid_namespace = admission.bundle().makes(NamespaceKind::Pid);
    let made =
        Made { own_pid_namespace, namespaces: launched.namespaces, ruleset: launched.ruleset, hidden: launched.hidden };
    let denials = Arc::new(Denials::new(shim.pod.clone(), &shim.namespace, &request.id, &admission));
    let container = Arc::new(Container::new(
        request.id.clone(),
        request.bundle.clone(),
        state.keep(),
        admission,
        cgroup,
        Arc::clone(&init),
        made,
        denials,
    ));
    container.watch_oom(&shim.publisher);
    shim.publisher.publish(&TaskCreate {
        container_id: request.id,
        bundle: request.bundle,
        rootfs: request.rootfs,
        io: MessageField::some(TaskIO {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            terminal: request.terminal,
            ..TaskIO::default()
        }),
        pid: init.pid_u32(),
        ..TaskCreate::default()
    });
    if container.admission.is_privileged() {
        log::warn!("container {}: privileged, let through by {}", container.id, container.admission.by());
        shim.publisher.publish_for_admin(PRIVILEGED_ADMITTED, &decided(&container, None));
    }
    if container.admission.is_best_effort() {
        let lost: Vec<_> = container.admission.lacks().map(|feature| feature.lost).collect();
        log::warn!("container {}: Landlock is best-effort by policy: {}", container.id, lost.join("; "));
        shim.publisher.publish_for_admin(LANDLOCK_REDUCED, &decided(&container, Some(("lost", lost.join("; ")))));
    }
    let changes: Vec<_> = container.admission.notes().iter().map(ToString::to_string).collect();
    if !changes.is_empty() {
        let changes = changes.join("; ").chars().take(MAX_EVENT_CHARACTERS).collect();
        shim.publisher.publish_for_admin(TIGHTENED, &decided(&container, Some(("changes", changes))));
    }
    shim.park(&container.id, launched.report);
    container.supervise(init, launched.exit, shim.publisher.clone());
    Ok(container)
}

/// The event of a container that starts, with one more label.
fn decided(container: &Container, told: Option<(&str, String)>) -> ContainerUpdate {
    let identity = container.admission.identity();
    let labels = [
        ("by", Some(container.admission.by())),
        ("namespace", identity.namespace.as_deref()),
        ("pod", identity.pod.as_deref()),
        ("container", identity.container.as_deref()),
    ];
    let told = told.as_ref().map(|(key, value)| (*key, Some(value.as_str())));
    let labels = labels.into_iter().chain(told).filter_map(|(key, value)| Some((key.to_owned(), value?.to_owned())));
    ContainerUpdate {
        id: container.id.clone(),
        image: identity.image.clone().unwrap_or_default(),
        labels: labels.collect(),
        ..ContainerUpdate::default()
    }
}

fn read_config(bundle: &Path) -> Result<Vec<u8>> {
    let path = bundle.join("config.json");
    let show = path.display();
    let file = File::open(&path).map_err(|e| Fault::invalid(format!("hardened: open {show}: {e}")))?;
    hardened_node::read_bounded(file, MAX_CONFIG_BYTES)
        .map_err(|e| Fault::invalid(format!("hardened: read {show}: {e}")))
}

/// Refuses a cgroup of systemd's where systemd cannot be asked for it.
fn check_cgroup_driver(path: &CgroupPath) -> Result<()> {
    // libcgroups would ask systemd by its private socket then, and wait for ever.
    if matches!(path, CgroupPath::Unit { .. }) && Cgroup::is_unified()? && !Path::new(SYSTEM_BUS).exists() {
        return Err(Fault::state(format!(
            "hardened: config.json: linux.cgroupsPath {path}: the systemd cgroup driver needs D-Bus at {SYSTEM_BUS}: \
             install dbus, or use the cgroupfs driver on this node"
        )));
    }
    Ok(())
}

async fn launch(
    shim: &Shim,
    request: &CreateTaskRequest,
    admission: &Admission,
    state: &StateDir,
    streams: &Streams,
) -> Result<(Launched, Io)> {
    let mount = |m: &Mount| RootfsMount { kind: m.type_.clone(), source: m.source.clone(), options: m.options.clone() };
    let bundle = admission.bundle();
    let task = wire::Create {
        bundle: bundle.clone(),
        folder: PathBuf::from(&request.bundle),
        rootfs: request.rootfs.iter().map(mount).collect(),
        root: admission.user_namespace().map_or((0, 0), UserNamespace::root),
    };
    let message = wire::Request {
        task: Task::Create(Box::new(task)),
        namespace: shim.namespace.clone(),
        id: request.id.clone(),
        state: state.path().to_owned(),
        cgroup: bundle.cgroup.clone(),
        plan: admission.plan().clone(),
        console: None,
        descriptors: Vec::new(),
    };
    let tag = launcher::tag(&shim.namespace, &request.id, None);
    launch_with_streams(shim, message, &tag, Descriptors::default(), streams, admission, &bundle.process).await
}

/// Runs a launcher for a process with its streams: pipes, or a terminal.
pub(crate) async fn launch_with_streams(
    shim: &Shim,
    mut message: wire::Request,
    tag: &str,
    mut descriptors: Descriptors,
    streams: &Streams,
    admission: &Admission,
    process: &bundle::Process,
) -> Result<(Launched, Io)> {
    let (uid, gid) = (process.user.uid, process.user.gid);
    let (uid, gid) = admission.user_namespace().map_or((uid, gid), |namespace| namespace.host_user(uid, gid));
    let _readers = await_readers(streams).await;
    if !streams.terminal {
        let (io, ends) = Io::pipes(streams, uid, gid)?;
        for (kind, end) in [Descriptor::Stdin, Descriptor::Stdout, Descriptor::Stderr].into_iter().zip(ends) {
            descriptors.insert(kind, end);
        }
        let launched = launcher::launch(&shim.program, &shim.reaper, tag, message, descriptors).await?;
        return Ok((launched, io));
    }
    let console = Console::listen(&message.state, &format!("console-{}.sock", shim.next()))?;
    message.console = Some(console.path().to_owned());
    let launching = launcher::launch(&shim.program, &shim.reaper, tag, message, descriptors);
    // As soon as there is one: an exec does not wait for it.
    let terminal = async {
        let master = console.receive().await?;
        sys::give_terminal(&master, uid).context("give the terminal to the process's user")?;
        if let Some((rows, columns)) = process.console_size {
            sys::set_window_size(&master, rows, columns).context("set the terminal's size")?;
        }
        Ok::<_, Fault>(master)
    };
    // The launcher's own error says more than "no terminal came".
    let (launched, master) = tokio::join!(launching, terminal);
    let launched = launched?;
    match master.and_then(|master| Io::terminal(streams, master)) {
        Ok(io) => Ok((launched, io)),
        Err(fault) => {
            // Nobody would know of it.
            sys::ignore(sys::pidfd_signal(&launched.process, libc::SIGKILL), "it has ended, then");
            Err(fault)
        }
    }
}

/// Ends and removes what a failed create left.
async fn undo(shim: &Shim, cgroup: &Cgroup, id: &str) {
    let undone = async {
        launcher::end_strays(&shim.namespace, id)?;
        cgroup.kill_all().await?;
        cgroup.remove().await
    };
    let undone = undone.await;
    if let Err(error) = undone {
        log::error!("after a failed create: {error:#}");
    }
}

/// Lets a parked init execute: libcontainer waits for a connection on its socket.
pub(crate) async fn release(state: &StateDir, id: &str) -> anyhow::Result<()> {
    use std::os::fd::AsRawFd;
    use tokio::io::AsyncWriteExt;

    let runtime = state.runtime_root().join(id);
    let directory = File::open(&runtime).with_context(|| format!("open {}", runtime.display()))?;
    // A socket's path has 107 bytes, fewer than the names of container and namespace can have.
    let path = format!("/proc/self/fd/{}/notify.sock", directory.as_raw_fd());
    let mut socket = tokio::net::UnixStream::connect(path).await.context("connect to the parked init")?;
    socket.write_all(b"start container").await.context("start the parked init")?;
    socket.shutdown().await.context("start the parked init")?;
    Ok(())
}
