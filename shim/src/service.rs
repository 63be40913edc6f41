//! The Task service: containerd's calls, answered.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use containerd_shim_protos::api::{
    CheckpointTaskRequest, CloseIORequest, ConnectRequest, ConnectResponse, CreateTaskRequest, CreateTaskResponse,
    DeleteRequest, DeleteResponse, Empty, ExecProcessRequest, KillRequest, PauseRequest, PidsRequest, PidsResponse,
    ProcessInfo, ResizePtyRequest, ResumeRequest, ShutdownRequest, StartRequest, StartResponse, StateRequest,
    StateResponse, StatsRequest, StatsResponse, UpdateTaskRequest, WaitRequest, WaitResponse,
};
use containerd_shim_protos::events::task::{TaskDelete, TaskPaused, TaskResumed, TaskStart};
use containerd_shim_protos::protobuf::{EnumOrUnknown, MessageField};
use containerd_shim_protos::shim_async::Task;
use containerd_shim_protos::ttrpc::Code;
use hardened_sandbox::bundle::Resources;
use ttrpc::asynchronous::TtrpcContext;

use crate::container::Container;
use crate::events::timestamp;
use crate::fault::{Fault, Result};
use crate::process::Phase;
use crate::registry::Shim;
use crate::{create, exec, explain, launcher, metrics, sys};

/// How long the end of an init that could not be started is waited for.
const END_OF_INIT: Duration = Duration::from_secs(5);

impl Shim {
    async fn create(&self, request: CreateTaskRequest) -> Result<CreateTaskResponse> {
        let id = request.id.clone();
        {
            let mut tables = self.tables();
            if tables.containers.contains_key(&id) || tables.creating.contains(&id) {
                return Err(Fault::new(Code::ALREADY_EXISTS, format!("container {id} exists already")));
            }
            tables.creating.push(id.clone());
        }
        let created = create::create(self, request).await;
        let mut tables = self.tables();
        tables.creating.retain(|c| *c != id);
        let container = created?;
        let pid = container.init.pid_u32();
        tables.containers.insert(id, container);
        Ok(CreateTaskResponse { pid, ..CreateTaskResponse::default() })
    }

    async fn start(&self, request: StartRequest) -> Result<StartResponse> {
        let container = self.container(&request.id)?;
        let process = container.process(&request.exec_id)?;
        if process.exec_id.is_empty() {
            self.start_init(&container).await?;
        } else {
            exec::start(self, &container, &process).await?;
        }
        Ok(StartResponse { pid: process.pid_u32(), ..StartResponse::default() })
    }

    async fn start_init(&self, container: &Container) -> Result<()> {
        let init = &container.init;
        init.begin_start()?;
        let parked = self.tables().parked.remove(&container.id);
        let started = async {
            container.state.mark_running(&container.id)?;
            create::release(&container.state, &container.id).await?;
            match parked {
                Some(report) => {
                    let program = &container.admission.plan().seccomp;
                    launcher::executed(
                        report,
                        || init.has_ended().unwrap_or(true),
                        |listener| explain::supervise(&container.denials, None, program.clone(), listener),
                    )
                    .await
                    .map_err(|e| exec::not_started("init", &e))
                }
                None => Err(Fault::state("the container was started before")),
            }
        };
        match started.await {
            Ok(()) => {
                self.publisher.publish(&TaskStart {
                    container_id: container.id.clone(),
                    pid: init.pid_u32(),
                    ..TaskStart::default()
                });
                init.set_phase(Phase::Running);
                Ok(())
            }
            Err(fault) => {
                // It ends by itself; a create that cannot start is not started again. The Delete that follows at once
                // finds it stopped: containerd 1.7 deletes nothing else.
                drop(init.signal(libc::SIGKILL));
                init.set_phase(Phase::Created);
                if tokio::time::timeout(END_OF_INIT, init.exited()).await.is_err() {
                    log::error!("init of {} does not end", container.id);
                }
                Err(fault)
            }
        }
    }

    async fn delete(&self, request: DeleteRequest) -> Result<DeleteResponse> {
        let container = self.container(&request.id)?;
        let process = container.process(&request.exec_id)?;
        let exit = match process.phase() {
            Phase::Stopped(exit) => exit,
            Phase::Created if process.pid().is_some() => {
                // Parked, and never to be started.
                drop(process.signal(libc::SIGKILL));
                process.exited().await
            }
            Phase::Created => crate::reaper::Exit { status: 0, at: std::time::SystemTime::now() },
            Phase::Starting | Phase::Running => {
                return Err(Fault::state(format!("cannot delete: the process is {}", process.describe())));
            }
        };
        process.drain().await;
        let response = DeleteResponse {
            pid: process.pid_u32(),
            exit_status: exit.status,
            exited_at: MessageField::some(timestamp(exit.at)),
            ..DeleteResponse::default()
        };
        if !process.exec_id.is_empty() {
            container.remove_exec(&process.exec_id);
            drop(self.admitted(&container.id, &process.exec_id));
            return Ok(response);
        }
        container.clean().await?;
        let mut tables = self.tables();
        tables.containers.remove(&container.id);
        tables.parked.remove(&container.id);
        tables.admitted.retain(|(id, _), _| *id != container.id);
        self.publisher.publish(&TaskDelete {
            container_id: container.id.clone(),
            pid: response.pid,
            exit_status: response.exit_status,
            exited_at: response.exited_at.clone(),
            ..TaskDelete::default()
        });
        Ok(response)
    }

    fn state(&self, request: &StateRequest) -> Result<StateResponse> {
        let container = self.container(&request.id)?;
        let process = container.process(&request.exec_id)?;
        let mut response = StateResponse {
            id: container.id.clone(),
            bundle: container.bundle.clone(),
            pid: process.pid_u32(),
            status: EnumOrUnknown::new(process.status(container.is_paused())),
            stdin: process.streams.stdin.clone(),
            stdout: process.streams.stdout.clone(),
            stderr: process.streams.stderr.clone(),
            terminal: process.streams.terminal,
            exec_id: process.exec_id.clone(),
            ..StateResponse::default()
        };
        if let Phase::Stopped(exit) = process.phase() {
            response.exit_status = exit.status;
            response.exited_at = MessageField::some(timestamp(exit.at));
        }
        Ok(response)
    }

    fn kill(&self, request: &KillRequest) -> Result<()> {
        let container = self.container(&request.id)?;
        let signal = i32::try_from(request.signal).map_err(|_| Fault::invalid("signal: out of range"))?;
        if request.all {
            container.cgroup.signal_all(signal)?;
            return Ok(());
        }
        container.process(&request.exec_id)?.signal(signal)
    }

    fn pids(&self, request: &PidsRequest) -> Result<PidsResponse> {
        let container = self.container(&request.id)?;
        let processes = container.cgroup.processes()?;
        let describe = |pid: i32| {
            let mut info = ProcessInfo { pid: u32::try_from(pid).unwrap_or(0), ..ProcessInfo::default() };
            if let Some(exec_id) = container.exec_by_pid(pid) {
                let details = containerd_shim_protos::shim::oci::ProcessDetails { exec_id, ..Default::default() };
                info.info = MessageField::from_option(details_any(&details));
            }
            info
        };
        Ok(PidsResponse { processes: processes.into_iter().map(describe).collect(), ..PidsResponse::default() })
    }

    async fn pause(&self, id: &str, paused: bool) -> Result<()> {
        let container = self.container(id)?;
        if container.init.phase() != Phase::Running {
            return Err(Fault::state(format!("container {id} is {}, not running", container.init.describe())));
        }
        container.cgroup.freeze(paused).await?;
        container.set_paused(paused);
        let container_id = container.id.clone();
        if paused {
            self.publisher.publish(&TaskPaused { container_id, ..TaskPaused::default() });
        } else {
            self.publisher.publish(&TaskResumed { container_id, ..TaskResumed::default() });
        }
        Ok(())
    }

    fn update(&self, request: &UpdateTaskRequest) -> Result<()> {
        let container = self.container(&request.id)?;
        let resources = serde_json::from_slice(&request.resources.value)
            .map_err(|e| Fault::invalid(format!("hardened: resources are not OCI LinuxResources: {e}")))?;
        let resources = Resources::parse(&resources).map_err(|problems| {
            let all: Vec<_> = problems.iter().map(|(field, problem)| format!("resources.{field} {problem}")).collect();
            Fault::invalid(format!("hardened: {}", all.join("; ")))
        })?;
        container.cgroup.update(&resources)?;
        Ok(())
    }

    fn stats(&self, request: &StatsRequest) -> Result<StatsResponse> {
        let container = self.container(&request.id)?;
        let stats = metrics::of(&container.cgroup)?;
        Ok(StatsResponse { stats: MessageField::some(stats), ..StatsResponse::default() })
    }

    fn resize(&self, request: &ResizePtyRequest) -> Result<()> {
        let process = self.container(&request.id)?.process(&request.exec_id)?;
        let cell = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
        let resized = process.with_io(|io| {
            io.master().map(|master| sys::set_window_size(master, cell(request.height), cell(request.width)))
        });
        match resized.flatten() {
            Some(Ok(())) => Ok(()),
            Some(Err(error)) => Err(anyhow::Error::from(error).context("resize the terminal").into()),
            None => Err(Fault::state("the process has no terminal")),
        }
    }

    fn connect(&self, request: &ConnectRequest) -> Result<ConnectResponse> {
        let container = self.container(&request.id)?;
        Ok(ConnectResponse {
            shim_pid: std::process::id(),
            task_pid: container.init.pid_u32(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..ConnectResponse::default()
        })
    }
}

fn details_any(
    details: &containerd_shim_protos::shim::oci::ProcessDetails,
) -> Option<containerd_shim_protos::protobuf::well_known_types::any::Any> {
    use containerd_shim_protos::protobuf::Message;
    Some(containerd_shim_protos::protobuf::well_known_types::any::Any {
        type_url: "containerd.runc.v1.ProcessDetails".to_owned(),
        value: details.write_to_bytes().ok()?,
        ..Default::default()
    })
}

/// What containerd calls.
#[derive(Debug)]
pub(crate) struct Service(pub(crate) Arc<Shim>);

impl Service {
    /// Does something to its end: containerd may be gone before, or its deadline over, and half of it is a state that
    /// nobody knows.
    async fn to_its_end<T, F>(&self, act: impl FnOnce(Arc<Shim>) -> F) -> ttrpc::Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let done = tokio::spawn(act(Arc::clone(&self.0))).await;
        Ok(done.map_err(|error| Fault::new(Code::INTERNAL, format!("hardened: a task of the shim failed: {error}")))??)
    }
}

#[async_trait]
impl Task for Service {
    async fn create(&self, _: &TtrpcContext, request: CreateTaskRequest) -> ttrpc::Result<CreateTaskResponse> {
        self.to_its_end(|shim| async move { shim.create(request).await }).await
    }

    async fn start(&self, _: &TtrpcContext, request: StartRequest) -> ttrpc::Result<StartResponse> {
        self.to_its_end(|shim| async move { shim.start(request).await }).await
    }

    async fn delete(&self, _: &TtrpcContext, request: DeleteRequest) -> ttrpc::Result<DeleteResponse> {
        self.to_its_end(|shim| async move { shim.delete(request).await }).await
    }

    async fn state(&self, _: &TtrpcContext, request: StateRequest) -> ttrpc::Result<StateResponse> {
        Ok(self.0.state(&request)?)
    }

    async fn exec(&self, _: &TtrpcContext, request: ExecProcessRequest) -> ttrpc::Result<Empty> {
        let container = self.0.container(&request.id)?;
        exec::add(&self.0, &container, request)?;
        Ok(Empty::new())
    }

    async fn wait(&self, _: &TtrpcContext, request: WaitRequest) -> ttrpc::Result<WaitResponse> {
        let process = self.0.container(&request.id)?.process(&request.exec_id)?;
        let exit = process.exited().await;
        Ok(WaitResponse {
            exit_status: exit.status,
            exited_at: MessageField::some(timestamp(exit.at)),
            ..WaitResponse::default()
        })
    }

    async fn kill(&self, _: &TtrpcContext, request: KillRequest) -> ttrpc::Result<Empty> {
        self.0.kill(&request)?;
        Ok(Empty::new())
    }

    async fn pids(&self, _: &TtrpcContext, request: PidsRequest) -> ttrpc::Result<PidsResponse> {
        Ok(self.0.pids(&request)?)
    }

    async fn pause(&self, _: &TtrpcContext, request: PauseRequest) -> ttrpc::Result<Empty> {
        self.to_its_end(|shim| async move { shim.pause(&request.id, true).await }).await?;
        Ok(Empty::new())
    }

    async fn resume(&self, _: &TtrpcContext, request: ResumeRequest) -> ttrpc::Result<Empty> {
        self.to_its_end(|shim| async move { shim.pause(&request.id, false).await }).await?;
        Ok(Empty::new())
    }

    async fn checkpoint(&self, _: &TtrpcContext, _: CheckpointTaskRequest) -> ttrpc::Result<Empty> {
        Err(Fault::new(Code::UNIMPLEMENTED, "hardened: checkpoint is not supported").into())
    }

    async fn update(&self, _: &TtrpcContext, request: UpdateTaskRequest) -> ttrpc::Result<Empty> {
        self.0.update(&request)?;
        Ok(Empty::new())
    }

    async fn stats(&self, _: &TtrpcContext, request: StatsRequest) -> ttrpc::Result<StatsResponse> {
        Ok(self.0.stats(&request)?)
    }

    async fn resize_pty(&self, _: &TtrpcContext, request: ResizePtyRequest) -> ttrpc::Result<Empty> {
        self.0.resize(&request)?;
        Ok(Empty::new())
    }

    async fn close_io(&self, _: &TtrpcContext, request: CloseIORequest) -> ttrpc::Result<Empty> {
        let process = self.0.container(&request.id)?.process(&request.exec_id)?;
        if request.stdin {
            process.close_stdin();
        }
        Ok(Empty::new())
    }

    async fn connect(&self, _: &TtrpcContext, request: ConnectRequest) -> ttrpc::Result<ConnectResponse> {
        Ok(self.0.connect(&request)?)
    }

    async fn shutdown(&self, _: &TtrpcContext, _: ShutdownRequest) -> ttrpc::Result<Empty> {
        // containerd asks after each container of the pod; the shim goes with the last.
        if self.0.is_empty() {
            self.0.shutdown.notify_one();
        }
        Ok(Empty::new())
    }
}
