//! The shim's life: serve the Task API until the last container is gone.

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use containerd_shim::Flags;
use containerd_shim_protos::shim_async::create_task;
use tokio::signal::unix::{SignalKind, signal};
use ttrpc::asynchronous::Server;
use ttrpc::asynchronous::transport::Listener;

use crate::events::Publisher;
use crate::launcher::Program;
use crate::reaper::Reaper;
use crate::registry::Shim;
use crate::service::Service;
use crate::{logging, sys};

/// One name for containerd 1.x, one for 2.x; the messages are the same.
const SERVICES: [&str; 2] = ["containerd.task.v2.Task", "containerd.task.v3.Task"];

/// Serves. The listening socket is standard input.
pub(crate) fn run(flags: &Flags) -> Result<()> {
    logging::init(flags.debug);
    let served = serve(flags);
    if let Err(error) = &served {
        log::error!("the shim ends: {error:#}");
    }
    served
}

fn serve(flags: &Flags) -> Result<()> {
    let listener = take_listener().context("take over the listening socket")?;
    // The bundle is of the pod's first container, and may go before the others.
    std::env::set_current_dir("/").context("chdir to /")?;
    sys::set_subreaper().context("become a subreaper")?;
    // One thread: a shim waits most of its life, and its memory is paid for each pod.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
    runtime.block_on(async {
        let address = std::env::var("TTRPC_ADDRESS").context("TTRPC_ADDRESS")?;
        let (publisher, forwarded) = Publisher::start(address, flags.namespace.clone());
        let shim = Arc::new(Shim::new(
            flags.namespace.clone(),
            hardened_node::probe(),
            Program::open()?,
            Reaper::start()?,
            publisher,
        ));
        let mut server = Server::new()
            .add_listener(Listener::try_from(listener).context("listen")?)
            .register_service(services(&shim));
        server.start().await.context("serve")?;
        finished(&shim).await?;
        server.shutdown().await.context("stop serving")?;
        let socket = flags.socket.strip_prefix("unix://").unwrap_or(&flags.socket);
        fs::remove_file(Path::new(socket)).with_context(|| format!("remove {socket}"))?;
        drop(server);
        drop(shim);
        // What is queued still reaches containerd.
        drop(tokio::time::timeout(std::time::Duration::from_secs(5), forwarded).await);
        Ok(())
    })
}

fn take_listener() -> Result<UnixListener> {
    let listener = std::io::stdin().as_fd().try_clone_to_owned()?;
    let null = File::open("/dev/null")?;
    nix::unistd::dup2(null.as_raw_fd(), 0)?;
    sys::close_on_exec_from(3)?;
    let listener = UnixListener::from(listener);
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn services(shim: &Arc<Shim>) -> std::collections::HashMap<String, ttrpc::asynchronous::Service> {
    let mut services = std::collections::HashMap::new();
    for name in SERVICES {
        let service = Arc::new(Service(Arc::clone(shim)));
        services.extend(create_task(service).into_values().map(|methods| (name.to_owned(), methods)));
    }
    services
}

/// Waits for containerd's Shutdown, or for a signal when there is no container left to serve.
async fn finished(shim: &Shim) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("subscribe to SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("subscribe to SIGINT")?;
    loop {
        tokio::select! {
            () = shim.shut_down() => return Ok(()),
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        if shim.is_empty() {
            return Ok(());
        }
        log::warn!("ignored a signal to end: containers still run");
    }
}
