//! What the shim of one pod holds: its containers, and what waits to be started.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hardened_sandbox::{ExecAdmission, KernelSupport};
use tokio::sync::Notify;

use crate::container::Container;
use crate::events::Publisher;
use crate::explain::Pod;
use crate::fault::{Fault, Result};
use crate::launcher::{Program, Report};
use crate::reaper::Reaper;

/// The shim of one pod.
#[derive(Debug)]
pub(crate) struct Shim {
    pub(crate) namespace: String,
    pub(crate) kernel: KernelSupport,
    pub(crate) program: Program,
    pub(crate) reaper: Reaper,
    pub(crate) publisher: Publisher,
    /// What its containers share.
    pub(crate) pod: Pod,
    tables: Mutex<Tables>,
    pub(crate) shutdown: Notify,
    counter: AtomicU64,
}

#[derive(Debug, Default)]
pub(crate) struct Tables {
    pub(crate) containers: HashMap<String, Arc<Container>>,
    /// Containers that are being created.
    pub(crate) creating: Vec<String>,
    /// What parked inits report to, by container.
    pub(crate) parked: HashMap<String, Report>,
    /// Execs that may run and have not started, by container and exec.
    pub(crate) admitted: HashMap<(String, String), ExecAdmission>,
}

impl Shim {
    pub(crate) fn new(
        namespace: String,
        kernel: KernelSupport,
        program: Program,
        reaper: Reaper,
        publisher: Publisher,
    ) -> Self {
        Self {
            namespace,
            kernel,
            program,
            reaper,
            publisher,
            pod: Pod::default(),
            tables: Mutex::default(),
            shutdown: Notify::new(),
            counter: AtomicU64::new(0),
        }
    }

    pub(crate) fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn container(&self, id: &str) -> Result<Arc<Container>> {
        self.tables().containers.get(id).cloned().ok_or_else(|| Fault::not_found(format!("no container {id} here")))
    }

    /// A number that was not given before.
    pub(crate) fn next(&self) -> u64 {
        self.counter.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn park(&self, id: &str, report: Report) {
        self.tables().parked.insert(id.to_owned(), report);
    }

    pub(crate) fn admit(&self, id: &str, exec_id: &str, admission: ExecAdmission) {
        self.tables().admitted.insert((id.to_owned(), exec_id.to_owned()), admission);
    }

    pub(crate) fn admitted(&self, id: &str, exec_id: &str) -> Option<ExecAdmission> {
        self.tables().admitted.remove(&(id.to_owned(), exec_id.to_owned()))
    }

    pub(crate) fn is_empty(&self) -> bool {
        let tables = self.tables();
        tables.containers.is_empty() && tables.creating.is_empty()
    }

    /// Waits for containerd to end this shim.
    pub(crate) async fn shut_down(&self) {
        self.shutdown.notified().await;
    }
}
