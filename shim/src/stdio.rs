//! Standard streams: containerd's fifos and files on one side, the container's pipes or terminal
//! on the other, and a relay between.
//!
//! The fifos themselves never become the container's stdio: under Landlock a program could not
//! open `/dev/stdout` again (nginx logs that way), since the fifo's path is not in its tree. An
//! anonymous pipe has no path.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixAddr, recvmsg};
use nix::unistd::{Gid, Uid};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::Instant;

use crate::fault::{Fault, Result};
use crate::sys;

/// Bytes moved at a time.
const CHUNK: usize = 32 * 1024;

/// How long Delete waits for readers to take what is left, as containerd's runc shim does.
const DRAIN: Duration = Duration::from_secs(10);

/// How long a start waits for the readers of its output, which open it while the request is on its
/// way. A program that ends sooner would have written for nobody.
const READERS: Duration = Duration::from_secs(1);

/// How long the runtime may take to hand over a terminal.
const CONSOLE: Duration = Duration::from_secs(10);

/// The streams that containerd asks for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Streams {
    pub(crate) stdin: String,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) terminal: bool,
}

/// One end of a stream as containerd names it: containerd, runtime/v2 README, "IO".
#[derive(Debug, PartialEq, Eq)]
enum Target {
    None,
    Fifo(PathBuf),
    File(PathBuf),
}

fn parse(field: &str, uri: &str) -> Result<Target> {
    if uri.is_empty() {
        return Ok(Target::None);
    }
    let bad = |what: &str| Fault::invalid(format!("{field} {uri:?}: {what}; expected a path, fifo:// or file://"));
    let (scheme, path) = uri.split_once("://").unwrap_or(("fifo", uri));
    let path = PathBuf::from(path);
    if !path.is_absolute() || uri.contains('\0') {
        return Err(bad("is not an absolute path"));
    }
    match scheme {
        "fifo" => Ok(Target::Fifo(path)),
        "file" => Ok(Target::File(path)),
        _ => Err(bad("is a scheme that is not supported")),
    }
}

/// Waits until somebody reads each fifo for output. What comes back keeps readers from seeing the end
/// before the streams are open.
pub(crate) async fn await_readers(streams: &Streams) -> Vec<File> {
    let deadline = Instant::now() + READERS;
    let mut writers = Vec::new();
    for uri in [&streams.stdout, &streams.stderr] {
        // An error is reported when it is opened for good.
        let Ok(Target::Fifo(path)) = parse("", uri) else { continue };
        loop {
            match OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(&path) {
                Ok(writer) => break writers.push(writer),
                Err(error) if error.raw_os_error() == Some(libc::ENXIO) && Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Err(_) => break,
            }
        }
    }
    writers
}

/// The shim's side of the streams of one process.
#[derive(Debug, Default)]
pub(crate) struct Io {
    /// Keeps stdin from ending when a client detaches; dropped by CloseIO.
    stdin_hold: Option<File>,
    stdin: Option<AbortHandle>,
    outputs: Vec<JoinHandle<()>>,
    terminal: Option<OwnedFd>,
}

impl Io {
    /// Opens the streams of a process without a terminal. Returns the ends for the container.
    pub(crate) fn pipes(streams: &Streams, uid: u32, gid: u32) -> Result<(Self, [OwnedFd; 3])> {
        let mut io = Self::default();
        let stdin = match parse("stdin", &streams.stdin)? {
            Target::None => null()?,
            target @ (Target::Fifo(_) | Target::File(_)) => {
                let (reader, writer) = pipe(uid, gid)?;
                io.open_stdin(&target, writer)?;
                reader
            }
        };
        let mut output = |field: &str, uri: &str| -> Result<OwnedFd> {
            match parse(field, uri)? {
                Target::None => null(),
                target @ (Target::Fifo(_) | Target::File(_)) => {
                    let (reader, writer) = pipe(uid, gid)?;
                    io.outputs.push(relay(Stream::new(reader)?, Stream::output(field, &target)?));
                    Ok(writer)
                }
            }
        };
        let stdout = output("stdout", &streams.stdout)?;
        let stderr = output("stderr", &streams.stderr)?;
        Ok((io, [stdin, stdout, stderr]))
    }

    /// Connects a terminal's master to the streams.
    pub(crate) fn terminal(streams: &Streams, master: OwnedFd) -> Result<Self> {
        let mut io = Self::default();
        let copy = |fd: &OwnedFd| fd.try_clone().map_err(|e| fault("duplicate the terminal", &e));
        match parse("stdin", &streams.stdin)? {
            Target::None => {}
            target @ (Target::Fifo(_) | Target::File(_)) => io.open_stdin(&target, copy(&master)?)?,
        }
        let sink = match parse("stdout", &streams.stdout)? {
            // Nobody reads, and the terminal must not fill up.
            Target::None => Stream::File(File::from(null()?)),
            target @ (Target::Fifo(_) | Target::File(_)) => Stream::output("stdout", &target)?,
        };
        io.outputs.push(relay(Stream::new(copy(&master)?)?, sink));
        io.terminal = Some(master);
        Ok(io)
    }

    fn open_stdin(&mut self, target: &Target, to: OwnedFd) -> Result<()> {
        let (Target::Fifo(path) | Target::File(path)) = target else { return Ok(()) };
        let failed = |e: &io::Error| fault(&format!("open stdin {}", path.display()), e);
        let open = |write: bool| {
            OpenOptions::new()
                .read(!write)
                .write(write)
                .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
                .open(path)
                .map_err(|e| failed(&e))
        };
        let from = open(false)?;
        if from.metadata().map_err(|e| failed(&e))?.file_type().is_fifo() {
            self.stdin_hold = Some(open(true)?);
        } else if matches!(target, Target::Fifo(_)) {
            return Err(failed(&not_a_fifo()));
        }
        self.stdin = Some(relay(Stream::new(from.into())?, Stream::new(to)?).abort_handle());
        Ok(())
    }

    /// Ends stdin as soon as its other writers do.
    pub(crate) fn close_stdin(&mut self) {
        self.stdin_hold = None;
    }

    /// The terminal, if there is one.
    pub(crate) fn master(&self) -> Option<&OwnedFd> {
        self.terminal.as_ref()
    }

    /// Waits until everything that the process wrote is with its reader, or nobody reads.
    pub(crate) async fn drain(mut self) {
        if let Some(stdin) = self.stdin.take() {
            stdin.abort();
        }
        self.terminal = None;
        let mut outputs = std::mem::take(&mut self.outputs);
        let all = async {
            for output in &mut outputs {
                // A relay that was aborted has nothing left to wait for.
                drop(output.await);
            }
        };
        if tokio::time::timeout(DRAIN, all).await.is_err() {
            log::warn!("output was not read within {DRAIN:?}, or a process outlives its container's init");
        }
        for output in outputs {
            output.abort();
        }
    }
}

impl Drop for Io {
    fn drop(&mut self) {
        if let Some(stdin) = &self.stdin {
            stdin.abort();
        }
        for output in &self.outputs {
            output.abort();
        }
    }
}

fn fault(operation: &str, error: &io::Error) -> Fault {
    Fault::new(containerd_shim_protos::ttrpc::Code::UNKNOWN, format!("hardened: {operation}: {error}"))
}

fn not_a_fifo() -> io::Error {
    io::Error::other("is not a named pipe; containerd makes one, or names a file as file:///PATH")
}

fn null() -> Result<OwnedFd> {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null");
    null.map(OwnedFd::from).map_err(|e| fault("open /dev/null", &e))
}

/// A pipe owned by the user that the container runs as, so that it can open `/dev/stdout` again.
fn pipe(uid: u32, gid: u32) -> Result<(OwnedFd, OwnedFd)> {
    let made = io::pipe().and_then(|(reader, writer)| {
        // Both ends are one inode.
        nix::unistd::fchown(reader.as_raw_fd(), Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        Ok((reader.into(), writer.into()))
    });
    made.map_err(|e| fault("make a pipe", &e))
}

fn set_nonblocking(fd: &OwnedFd) -> io::Result<()> {
    let flags = OFlag::from_bits_truncate(fcntl(fd.as_raw_fd(), FcntlArg::F_GETFL)?);
    fcntl(fd.as_raw_fd(), FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

/// One end of a relay.
enum Stream {
    Watched(AsyncFd<File>),
    /// A regular file: it never blocks, and epoll does not take it.
    File(File),
}

impl Stream {
    fn new(fd: OwnedFd) -> Result<Self> {
        set_nonblocking(&fd).map_err(|e| fault("set a stream non-blocking", &e))?;
        match sys::register(File::from(fd)) {
            Ok(watched) => Ok(Self::Watched(watched)),
            Err((file, error)) if error.raw_os_error() == Some(libc::EPERM) => Ok(Self::File(file)),
            Err((_, error)) => Err(fault("watch a stream", &error)),
        }
    }

    /// Opens where output goes.
    fn output(field: &str, target: &Target) -> Result<Self> {
        let failed = |path: &Path, e: io::Error| fault(&format!("open {field} {}", path.display()), &e);
        match target {
            Target::None => Ok(Self::File(File::from(null()?))),
            Target::Fifo(path) => {
                // Also for reading: the container must not get EPIPE while containerd restarts.
                let file = OpenOptions::new()
                    .read(true)
                    .write(true)
                    .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
                    .open(path)
                    .map_err(|e| failed(path, e))?;
                if !file.metadata().map_err(|e| failed(path, e))?.file_type().is_fifo() {
                    return Err(failed(path, not_a_fifo()));
                }
                Self::new(file.into())
            }
            Target::File(path) => {
                let file = OpenOptions::new().create(true).append(true).mode(0o640).open(path);
                file.map(Self::File).map_err(|e| failed(path, e))
            }
        }
    }
}

/// Moves bytes until the source ends.
fn relay(mut from: Stream, mut to: Stream) -> JoinHandle<()> {
    tokio::spawn(async move {
        while let Ok(Some(rest)) = step(&mut from, &mut to).await {
            if finish(&mut to, &rest).await.is_err() {
                break;
            }
        }
    })
}

/// Waits for bytes and moves them; gives back what the sink did not take, `None` at the end. The
/// buffer lives on the stack between two waits only: an idle stream costs none.
async fn step(from: &mut Stream, to: &mut Stream) -> io::Result<Option<Vec<u8>>> {
    match from {
        Stream::File(file) => pass(file, to),
        Stream::Watched(watched) => loop {
            let mut ready = watched.readable_mut().await?;
            match ready.try_io(|file| pass(file.get_mut(), to)) {
                // A terminal whose last program is gone answers EIO.
                Ok(Err(error)) if error.raw_os_error() == Some(libc::EIO) => return Ok(None),
                Ok(result) => return result,
                Err(_would_block) => {}
            }
        },
    }
}

fn pass(from: &mut File, to: &mut Stream) -> io::Result<Option<Vec<u8>>> {
    let mut buffer = [0; CHUNK];
    let length = loop {
        match from.read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => break result?,
        }
    };
    if length == 0 {
        return Ok(None);
    }
    let bytes = buffer.get(..length).unwrap_or_default();
    let written = match to {
        Stream::File(file) => file.write_all(bytes).map(|()| length)?,
        Stream::Watched(watched) => match watched.get_mut().write(bytes) {
            Ok(written) => written,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => 0,
            Err(error) => return Err(error),
        },
    };
    Ok(Some(bytes.get(written..).unwrap_or_default().to_vec()))
}

async fn finish(to: &mut Stream, mut rest: &[u8]) -> io::Result<()> {
    while !rest.is_empty() {
        let Stream::Watched(watched) = to else { return Ok(()) };
        let mut ready = watched.writable_mut().await?;
        if let Ok(result) = ready.try_io(|file| file.get_mut().write(rest)) {
            match result {
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// The socket through which the runtime hands over a terminal.
#[derive(Debug)]
pub(crate) struct Console {
    listener: UnixListener,
    path: PathBuf,
}

impl Console {
    /// Listens in a container's folder.
    pub(crate) fn listen(folder: &Path, name: &str) -> Result<Self> {
        let path = folder.join(name);
        let directory = File::open(folder).map_err(|e| fault(&format!("open {}", folder.display()), &e))?;
        // A socket's path has 107 bytes, fewer than the names of container and namespace can have.
        let short = format!("/proc/self/fd/{}/{name}", directory.as_fd().as_raw_fd());
        let listener = UnixListener::bind(short).map_err(|e| fault(&format!("listen at {}", path.display()), &e))?;
        Ok(Self { listener, path })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The terminal's master.
    pub(crate) async fn receive(self) -> Result<OwnedFd> {
        let take = async {
            let (socket, _) = self.listener.accept().await?;
            socket.async_io(Interest::READABLE, || receive_descriptor(&socket)).await
        };
        match tokio::time::timeout(CONSOLE, take).await {
            Ok(result) => result.map_err(|e| fault("receive the terminal", &e)),
            Err(_) => Err(fault("receive the terminal", &io::Error::from(ErrorKind::TimedOut))),
        }
    }
}

fn receive_descriptor(socket: &UnixStream) -> io::Result<OwnedFd> {
    let mut name = [0; 64];
    let mut control = nix::cmsg_space!([i32; 1]);
    let mut buffers = [io::IoSliceMut::new(&mut name)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<UnixAddr>(socket.as_raw_fd(), &mut buffers, Some(&mut control), flags)?;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(descriptors) = control
            && let Some(master) = descriptors.into_iter().map(sys::adopt).next()
        {
            return Ok(master);
        }
    }
    Err(io::Error::other("no descriptor came with it"))
}

impl Drop for Console {
    fn drop(&mut self) {
        // Gone already where the folder is.
        drop(std::fs::remove_file(&self.path));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_fifos_and_files_by_absolute_path() {
        assert_eq!(parse("stdin", "").unwrap(), Target::None);
        assert_eq!(parse("stdin", "/a").unwrap(), Target::Fifo("/a".into()));
        assert_eq!(parse("stdin", "fifo:///a").unwrap(), Target::Fifo("/a".into()));
        assert_eq!(parse("stdin", "file:///a").unwrap(), Target::File("/a".into()));
        for bad in ["a", "binary:///bin/logger", "file://a", "npipe:////x"] {
            assert!(parse("stdin", bad).is_err(), "{bad}");
        }
    }
}
