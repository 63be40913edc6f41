//! A container: its init, its execs, and what it takes to watch over them.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use containerd_shim_protos::events::task::{TaskExit, TaskOOM};
use containerd_shim_protos::protobuf::MessageField;
use hardened_node::process::stat_field;
use hardened_sandbox::bundle::NamespaceKind;
use hardened_sandbox::{Admission, Namespaces};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use crate::cgroup::Cgroup;
use crate::events::{Publisher, timestamp};
use crate::explain::Denials;
use crate::fault::{Fault, Result};
use crate::oom;
use crate::process::{Phase, Process};
use crate::reaper::Exit;
use crate::state::StateDir;
use crate::sys::{self, ignore};

/// How long the exits of execs may take once init is gone and all are killed. Only a process that
/// hangs in the kernel needs it.
const STRAGGLERS: Duration = Duration::from_secs(10);

/// libcontainer leaves a socket behind for every exec; the last of several that are launched at
/// once removes them. It ends what failed launches have left, too.
#[derive(Debug)]
pub(crate) struct Launching<'a>(&'a Container);

impl Drop for Launching<'_> {
    fn drop(&mut self) {
        if self.0.launching.fetch_sub(1, Ordering::Relaxed) != 1 {
            return;
        }
        if self.0.launch_failed.swap(false, Ordering::Relaxed)
            && let Err(error) = self.0.end_orphans()
        {
            log::error!("after a failed exec: {error:#}");
        }
        let runtime = self.0.state.runtime_root().join(&self.0.id);
        for entry in std::fs::read_dir(runtime).into_iter().flatten().flatten() {
            if entry.file_name().to_str().is_some_and(|n| n.starts_with("tenant-"))
                && let Err(error) = std::fs::remove_file(entry.path())
            {
                log::warn!("remove {}: {error}", entry.path().display());
            }
        }
    }
}

impl Launching<'_> {
    /// Its process may have executed all the same: its launcher was killed before it could answer, say.
    pub(crate) fn failed(&self) {
        self.0.launch_failed.store(true, Ordering::Relaxed);
    }
}

/// What was found and made with the container's mounts, before anything of it ran.
#[derive(Debug)]
pub(crate) struct Made {
    /// Whether the kernel kills all processes of the container with its init.
    pub(crate) own_pid_namespace: bool,
    /// What init was made in.
    pub(crate) namespaces: Namespaces,
    /// The Landlock ruleset; absent for a container that has none.
    pub(crate) ruleset: Option<OwnedFd>,
    /// What is hidden from execs, with the image's links followed.
    pub(crate) hidden: Vec<PathBuf>,
}

/// A container of this shim.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) bundle: String,
    /// `/run/hardened/<namespace>/<id>`.
    pub(crate) state: StateDir,
    pub(crate) admission: Admission,
    pub(crate) cgroup: Cgroup,
    pub(crate) init: Arc<Process>,
    /// What init was made in, and what its execs have of it.
    pub(crate) made: Made,
    pub(crate) denials: Arc<Denials>,
    execs: Mutex<HashMap<String, Arc<Process>>>,
    paused: AtomicBool,
    launching: AtomicUsize,
    launch_failed: AtomicBool,
    oom: Mutex<Option<AbortHandle>>,
}

impl Container {
    #[expect(clippy::too_many_arguments, reason = "each is what one step of a create has made")]
    pub(crate) fn new(
        id: String,
        bundle: String,
        state: StateDir,
        admission: Admission,
        cgroup: Cgroup,
        init: Arc<Process>,
        made: Made,
        denials: Arc<Denials>,
    ) -> Self {
        Self {
            id,
            bundle,
            state,
            admission,
            cgroup,
            init,
            made,
            denials,
            execs: Mutex::default(),
            paused: AtomicBool::new(false),
            launching: AtomicUsize::new(0),
            launch_failed: AtomicBool::new(false),
            oom: Mutex::default(),
        }
    }

    fn execs(&self) -> MutexGuard<'_, HashMap<String, Arc<Process>>> {
        self.execs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Init for an empty id, else that exec.
    pub(crate) fn process(&self, exec_id: &str) -> Result<Arc<Process>> {
        if exec_id.is_empty() {
            return Ok(Arc::clone(&self.init));
        }
        self.execs()
            .get(exec_id)
            .cloned()
            .ok_or_else(|| Fault::not_found(format!("container {} has no exec {exec_id}", self.id)))
    }

    pub(crate) fn add_exec(&self, process: Arc<Process>) -> Result<()> {
        let mut execs = self.execs();
        if execs.contains_key(&process.exec_id) {
            return Err(Fault::new(
                containerd_shim_protos::ttrpc::Code::ALREADY_EXISTS,
                format!("container {} has an exec {} already", self.id, process.exec_id),
            ));
        }
        execs.insert(process.exec_id.clone(), process);
        Ok(())
    }

    pub(crate) fn remove_exec(&self, exec_id: &str) {
        self.execs().remove(exec_id);
    }

    /// Id of the exec with that pid.
    pub(crate) fn exec_by_pid(&self, pid: i32) -> Option<String> {
        self.execs().values().find(|e| e.pid() == Some(pid)).map(|e| e.exec_id.clone())
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed)
    }

    pub(crate) fn set_paused(&self, paused: bool) {
        self.paused.store(paused, Ordering::Relaxed);
    }

    /// To be held while an exec is launched.
    pub(crate) fn launching(&self) -> Launching<'_> {
        self.launching.fetch_add(1, Ordering::Relaxed);
        Launching(self)
    }

    /// Kills the processes of the container that this shim is the parent of and knows nothing of: a launcher has made them
    /// and is gone. What loses its parent in a pid namespace goes to that namespace's first process, not to the shim.
    fn end_orphans(&self) -> anyhow::Result<()> {
        let own = hardened_lockdown::own_namespaces()?;
        if self.made.namespaces.get(&NamespaceKind::Pid) == own.get(&NamespaceKind::Pid) {
            return Ok(());
        }
        for pid in self.cgroup.processes()? {
            // Before the look at it, so that both are of one process. What fails from here on has just ended.
            let Ok(process) = sys::pidfd(pid) else { continue };
            let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
            let is_child = stat_field(&stat, 4) == Some(u64::from(std::process::id()));
            let is_known = self.init.pid() == Some(pid) || self.exec_by_pid(pid).is_some();
            if is_child && !is_known {
                log::warn!("container {}: kill process {pid}, which a failed exec left behind", self.id);
                ignore(sys::pidfd_signal(&process, libc::SIGKILL), "it may just have ended");
            }
        }
        Ok(())
    }

    /// Tells containerd of OOM kills from now on.
    pub(crate) fn watch_oom(&self, publisher: &Publisher) {
        let (publisher, id) = (publisher.clone(), self.id.clone());
        let watched = oom::watch(&self.cgroup, move || {
            publisher.publish(&TaskOOM { container_id: id.clone(), ..TaskOOM::default() });
        });
        match watched {
            Ok(handle) => *self.oom.lock().unwrap_or_else(PoisonError::into_inner) = Some(handle),
            Err(error) => log::warn!("OOM events of {} will not be reported: {error:#}", self.id),
        }
    }

    /// Follows a process to its end, and tells containerd: after its start, and init's end after
    /// the ends of all execs.
    pub(crate) fn supervise(
        self: &Arc<Self>,
        process: Arc<Process>,
        exit: oneshot::Receiver<Exit>,
        publisher: Publisher,
    ) {
        let container = Arc::clone(self);
        tokio::spawn(async move {
            let Ok(exit) = exit.await else { return };
            let is_init = process.exec_id.is_empty();
            if is_init {
                container.end_execs().await;
                container.tell_last_denial(exit);
            }
            process.settled().await;
            let started = process.phase() == Phase::Running;
            process.set_phase(Phase::Stopped(exit));
            // An exec whose start failed was never announced.
            if started || is_init {
                publisher.publish(&TaskExit {
                    container_id: container.id.clone(),
                    id: if is_init { container.id.clone() } else { process.exec_id.clone() },
                    pid: process.pid_u32(),
                    exit_status: exit.status,
                    exited_at: MessageField::some(timestamp(exit.at)),
                    ..TaskExit::default()
                });
            }
        });
    }

    /// A container that ends shortly after a denial may have ended of it.
    fn tell_last_denial(&self, exit: Exit) {
        if let Some(denial) = self.denials.close() {
            log::warn!(
                "container {} ended with status {} shortly after it was denied {denial}; `hardenctl why {}` has all of it",
                self.id,
                exit.status,
                self.admission.identity().pod.as_deref().unwrap_or(&self.id)
            );
        }
    }

    /// Sees the execs out once init is gone.
    async fn end_execs(&self) {
        if !self.made.own_pid_namespace
            && let Err(error) = self.cgroup.kill_all().await
        {
            log::error!("{error:#}");
        }
        let live: Vec<Arc<Process>> = self.execs().values().filter(|e| e.pid().is_some()).cloned().collect();
        let all = async {
            for exec in live {
                exec.exited().await;
            }
        };
        if tokio::time::timeout(STRAGGLERS, all).await.is_err() {
            log::error!("execs of {} outlive its init", self.id);
        }
    }

    /// Frees what the container took, once init has ended.
    pub(crate) async fn clean(&self) -> Result<()> {
        if let Some(oom) = self.oom.lock().unwrap_or_else(PoisonError::into_inner).take() {
            oom.abort();
        }
        self.cgroup.kill_all().await?;
        self.cgroup.remove().await?;
        self.state.remove()?;
        Ok(())
    }
}
