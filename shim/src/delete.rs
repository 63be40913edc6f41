//! `delete`: containerd calls it for a container whose shim is gone.

use std::io::{ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context, Result, anyhow};
use containerd_shim::Flags;
use containerd_shim_protos::api::DeleteResponse;
use containerd_shim_protos::protobuf::{Message, MessageField};
use hardened_sandbox::bundle::CgroupPath;

use crate::cgroup::Cgroup;
use crate::events::timestamp;
use crate::launcher;
use crate::state::{self, InitRecord, StateDir};
use crate::sys::{self, ignore};

/// SIGKILL, as an exit status.
const KILLED: u32 = 137;

/// Ends and removes what is left of a container, and prints how it ended.
pub(crate) fn run(flags: &Flags) -> Result<()> {
    let mut response = DeleteResponse {
        exit_status: KILLED,
        exited_at: MessageField::some(timestamp(SystemTime::now())),
        ..DeleteResponse::default()
    };
    if let Some(state) = StateDir::find(&flags.namespace, &flags.id)? {
        let record = state.record()?;
        if let Some(init) = record.as_ref().and_then(|record| record.init.as_ref()) {
            response.pid = u32::try_from(init.pid).unwrap_or(0);
            kill_init(init);
        }
        launcher::end_strays(&flags.namespace, &flags.id)?;
        if let Some(record) = record {
            let path = CgroupPath::parse(&record.cgroup).map_err(|e| anyhow!("cgroup of {}: {e}", flags.id))?;
            let cgroup = Cgroup::new(&path, &flags.namespace, &flags.id)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().context("runtime")?;
            runtime.block_on(async {
                cgroup.kill_all().await?;
                cgroup.remove().await
            })?;
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
    if error.kind() != ErrorKind::ConnectionRefused {
        return Ok(());
    }
    match std::fs::remove_file(socket) {
        // containerd deletes all containers of a shim at once.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => result.with_context(|| format!("remove {}", socket.display())),
    }
}

/// The pid may be another process's by now; its start time tells.
fn kill_init(record: &InitRecord) {
    if let Ok(init) = sys::pidfd(record.pid)
        && state::start_time(record.pid, &init).is_ok_and(|t| t == record.start_time)
    {
        ignore(sys::pidfd_signal(&init, libc::SIGKILL), "it may just have ended");
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixListener;

    use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr};

    use super::*;

    #[test]
    fn several_deletes_at_once_remove_a_stale_socket() {
        let bundle = tempfile::tempdir().unwrap();
        let socket = bundle.path().join("socket");
        std::fs::write(bundle.path().join("address"), format!("unix://{}", socket.display())).unwrap();
        for _ in 0..200 {
            // Never one that listens: a process that another test forks holds it open for a moment.
            let stale =
                nix::sys::socket::socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
            nix::sys::socket::bind(stale.as_raw_fd(), &UnixAddr::new(&socket).unwrap()).unwrap();
            drop(stale);
            std::thread::scope(|scope| {
                let deletes: Vec<_> = (0..4).map(|_| scope.spawn(|| remove_stale_socket(bundle.path()))).collect();
                deletes.into_iter().for_each(|delete| delete.join().unwrap().unwrap());
            });
            assert!(!socket.exists());
        }
    }

    #[test]
    fn a_socket_that_answers_stays() {
        let bundle = tempfile::tempdir().unwrap();
        let socket = bundle.path().join("socket");
        std::fs::write(bundle.path().join("address"), socket.display().to_string()).unwrap();
        let _serving = UnixListener::bind(&socket).unwrap();
        remove_stale_socket(bundle.path()).unwrap();
        assert!(socket.exists());
    }
}
