//! `hardenctl agent`: what the kernel's audit records tell of containers, metrics, and Events on pods.

mod audit;
mod containers;
mod denials;
mod follow;
mod kubernetes;
mod metrics;
mod process;
mod server;

use std::fs::{File, TryLockError};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use hardened_sandbox::record::EVENTS;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use self::audit::Read;
use self::containers::Containers;
use self::denials::Denials;
use self::follow::Followed;
use self::kubernetes::Events;
use self::metrics::{Losses, Metrics, Reason};

/// How often it looks which containers there are, and measures.
const MEASURE: Duration = Duration::from_secs(10);

/// How often it looks for what is new in the files of records.
const LOOK: Duration = Duration::from_secs(1);

/// Serves metrics of this node's containers, and records what Landlock, AppArmor and SELinux deny.
///
/// One a node, and optional: system calls are recorded without it. It reads the kernel's audit records, which takes
/// CAP_AUDIT_READ and the node's own network and pid namespaces. Landlock's are made only where audit is enabled
/// (`auditctl -e 1`) and the policy has `log-landlock-denials = true`. What cannot be told is counted in
/// `hardened_agent_lost_records_total`.
#[derive(Debug, Args)]
pub(crate) struct Agent {
    /// Where /metrics is served. Anyone who can connect can read it.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9465")]
    listen: SocketAddr,
    /// Makes Kubernetes Events on pods: SandboxDenied, one a pod and operation in five minutes.
    /// The API server is that of KUBECONFIG, or of the pod that this runs in.
    #[arg(long)]
    kubernetes: bool,
    /// Reads no audit records: metrics and Events of system calls alone.
    #[arg(long)]
    no_audit: bool,
    /// Folder of the records.
    #[arg(long, value_name = "PATH", default_value = EVENTS)]
    events: PathBuf,
    /// Folder in which shims keep what they know of their containers.
    #[arg(long, value_name = "PATH", default_value = "/run/hardened")]
    state: PathBuf,
}

impl Agent {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start")?;
        runtime.block_on(self.serve())?;
        Ok(ExitCode::SUCCESS)
    }

    async fn serve(&self) -> Result<()> {
        let losses = Losses::default();
        let (mut metrics, registry) = Metrics::new(&losses);
        let host = nix::unistd::gethostname().unwrap_or_default();
        let containers = Containers::new(&self.state, &host.to_string_lossy());
        let mut denials = Denials::new(containers, &self.events, losses.clone());
        let mut audit = if self.no_audit { None } else { Some(audit::listen()?) };
        let _claimed = claim(&self.events, !self.no_audit)?;
        let mut events = if self.kubernetes { Some(Events::new(&losses).await?) } else { None };
        let mut followed = Followed::new(&self.events)?;
        let listener = TcpListener::bind(self.listen).await.with_context(|| format!("listen at {}", self.listen))?;
        eprintln!("hardenctl agent: serves http://{}/metrics", listener.local_addr().unwrap_or(self.listen));
        tokio::spawn(server::serve(listener, registry));

        let (mut measure, mut ticks) = (tokio::time::interval(MEASURE), tokio::time::interval(LOOK));
        let (mut end, mut stop) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        loop {
            tokio::select! {
                read = next(audit.as_mut()) => match read.context("read audit records")? {
                    Read::Record(kind, text) => denials.take(kind, &text),
                    Read::Overrun => losses.count(Reason::Overrun, 1),
                },
                _ = ticks.tick() => look(&mut followed, &mut metrics, events.as_mut(), &losses),
                _ = measure.tick() => {
                    denials.tidy();
                    metrics.measure(&denials.containers);
                }
                _ = end.recv() => break,
                _ = stop.recv() => break,
            }
        }
        denials.close();
        Ok(())
    }
}

/// Makes the folder of records, and keeps other agents from it for as long as it is open: a file has one writer. Agents that
/// write no records share it.
fn claim(folder: &Path, writes: bool) -> Result<File> {
    let show = folder.display();
    let opened = hardened_node::events::make(folder)?;
    match if writes { opened.try_lock() } else { opened.try_lock_shared() } {
        Ok(()) => Ok(opened),
        Err(TryLockError::WouldBlock) => bail!(
            "another agent uses {show}, and a node has one: `hardenctl doctor` names its process; stop that, or name \
             another folder with --events"
        ),
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("lock {show}")),
    }
}

/// Counts what is new in the files of records, and tells of it.
fn look(followed: &mut Followed, metrics: &mut Metrics, mut events: Option<&mut Events>, losses: &Losses) {
    let (news, unreadable) = match followed.read() {
        Ok(read) => read,
        Err(error) => return losses.check(Reason::Unreadable, Err(error)),
    };
    losses.count(Reason::Unreadable, unreadable);
    for (record, more) in news {
        metrics.count(&record, more);
        if let Some(events) = &mut events {
            events.tell(&record);
        }
    }
}

/// The next audit record; where none are read, it never comes.
async fn next(audit: Option<&mut mpsc::Receiver<std::io::Result<Read>>>) -> Result<Read> {
    match audit {
        Some(audit) => Ok(audit.recv().await.context("the reader has ended")??),
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_records_has_one_agent_that_writes() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("events");
        let first = claim(&folder, true).unwrap();
        for writes in [true, false] {
            let error = claim(&folder, writes).unwrap_err().to_string();
            assert!(error.starts_with("another agent uses") && error.contains("--events"), "{error}");
        }
        drop(first);
        let _readers = [claim(&folder, false).unwrap(), claim(&folder, false).unwrap()];
        assert!(claim(&folder, true).is_err());
    }
}
