//! `delete`: containerd calls it for a container whose shim is gone.

use std::io::Write;
use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context, Result};
use containerd_shim::Flags;
use containerd_shim_protos::api::DeleteResponse;
use containerd_shim_protos::protobuf::{Message, MessageField};

use crate::cgroup::Cgroup;
use crate::events::timestamp;
use crate::launcher;
use crate::state::{self, Record, StateDir};
use crate::sys;

/// SIGKILL, as an exit status.
const KILLED: u32 = 137;

/// Ends and removes what is left of a container, and prints how it ended.
pub(crate) fn run(flags: &Flags) -> Result<()> {
    let mut response = DeleteResponse {
        exit_status: KILLED,
        exited_at: MessageField::some(timestamp(SystemTime::now())),
        ..DeleteResponse::default()
    };
    if let Some(state) = StateDir::find(&flags.namespace, &flags.id) {
        let record = state.record().ok();
        if let Some(record) = &record {
            response.pid = u32::try_from(record.pid).unwrap_or(0);
            kill_init(record);
        }
        launcher::end_strays(&flags.namespace, &flags.id)?;
        let cgroup = record.map_or_else(|| cgroup_of(state.path()), |r| Some(r.cgroup));
        if let Some(path) = cgroup {
            let cgroup = Cgroup::new(&path, &flags.id);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().context("runtime")?;
            runtime.block_on(cgroup.kill_all())?;
            cgroup.remove()?;
        }
        // Removes the folder.
        drop(state);
    }
    let bytes = response.write_to_bytes().context("encode the answer")?;
    std::io::stdout().write_all(&bytes).context("answer containerd")
}

/// The pid may be another process's by now; its start time tells.
fn kill_init(record: &Record) {
    if let Ok(init) = sys::pidfd(record.pid)
        && state::start_time(record.pid).is_ok_and(|t| t == record.start_time)
    {
        // It may just have ended.
        drop(sys::pidfd_signal(&init, libc::SIGKILL));
    }
}

/// Where a create was cut short there is the hardened spec at most.
fn cgroup_of(folder: &Path) -> Option<std::path::PathBuf> {
    let spec = oci_spec::runtime::Spec::load(folder.join("config.json")).ok()?;
    spec.linux().as_ref()?.cgroups_path().clone()
}
