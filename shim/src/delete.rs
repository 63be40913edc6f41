//! `delete`: containerd calls it for a container whose shim is gone.

use std::io::{ErrorKind, Write};
use std::os::unix::net::UnixStream;
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
    remove_stale_socket(if flags.bundle.is_empty() { Path::new(".") } else { Path::new(&flags.bundle) })?;
    let bytes = response.write_to_bytes().context("encode the answer")?;
    std::io::stdout().write_all(&bytes).context("answer containerd")
}

/// Removes the socket of a shim that was killed. One that still answers serves the pod's other
/// containers.
fn remove_stale_socket(bundle: &Path) -> Result<()> {
    let Ok(address) = std::fs::read_to_string(bundle.join("address")) else { return Ok(()) };
    let socket = Path::new(address.strip_prefix("unix://").unwrap_or(&address));
    let Err(error) = UnixStream::connect(socket) else { return Ok(()) };
    if error.kind() == ErrorKind::ConnectionRefused {
        std::fs::remove_file(socket).with_context(|| format!("remove {}", socket.display()))?;
    }
    Ok(())
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
