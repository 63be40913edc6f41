//! Drives a shim through the life of a container and of execs, while its launchers are followed.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use containerd_shim_protos::TaskClient;
use containerd_shim_protos::api::{
    DeleteRequest, ExecProcessRequest, KillRequest, StartRequest, StateRequest, Status, WaitRequest,
};
use containerd_shim_protos::protobuf::MessageField;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::ttrpc::{self, context};

use super::follow::{Call, Deed, Phase, Seen, follow};
use super::ptrace;
use super::stream::Stream;
use crate::direct::Direct;
use crate::{Containerd, eventually, processes};

const SHIM: &str = "containerd-shim-hardened-v1";

/// Longer than a launcher may take.
const PATIENCE: Duration = Duration::from_secs(75);

/// How long a program may take to say what it finds.
const WORDS: Duration = Duration::from_secs(60);

/// Shows the sandbox from inside, and stays.
const SHOW: &str = "hostname; id; hardened-probe; echo done; exec sleep 1000";

/// What a client saw of a container and an exec.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Life {
    /// The request that was refused, and how.
    pub(super) refused: Option<(&'static str, String)>,
    /// The status of a process that was started, and said nothing.
    pub(super) ended: Option<u32>,
    pub(super) init: Vec<String>,
    pub(super) exec: Vec<String>,
}

/// A shim, with at most one container.
pub(super) struct Shim<'a> {
    pub(super) containerd: &'a Containerd,
    pub(super) direct: Direct<'a>,
    pub(super) pid: i32,
    config: serde_json::Value,
    init: Stream,
    exec: Stream,
    /// Whether there is a container, for one exec after another.
    pub(super) runs: bool,
    /// What is in the bundle, and how many descriptors the shim has: without a container, and with one.
    pub(super) bundle: Vec<PathBuf>,
    pub(super) descriptors: Option<[usize; 2]>,
}

impl<'a> Shim<'a> {
    /// Starts one. What it leaves is looked for in itself, too, where it `is_to_live`.
    pub(super) fn start(
        containerd: &'a Containerd,
        config: &serde_json::Value,
        wrapper: &[&str],
        is_to_live: bool,
    ) -> Result<Self> {
        let mut direct = Direct::start_under(containerd, SHIM, config, wrapper)?;
        let mark = format!("-id {} ", direct.id());
        let pid = containerd.shims()?.into_iter().find(|(_, line)| line.contains(&mark)).context("no shim")?.0;
        let init = Stream::make(&direct.bundle().join("stdout"))?;
        let exec = Stream::make(&direct.bundle().join("exec"))?;
        direct.set_stdout(&init.path);
        let config = serde_json::from_slice(&fs::read(direct.bundle().join("config.json"))?)?;
        fs::create_dir_all(direct.bundle().join("empty"))?;
        let (bundle, descriptors) = (Vec::new(), None);
        let mut shim = Self { containerd, direct, pid, config, init, exec, runs: false, bundle, descriptors };
        shim.bundle = shim.bundle_now()?;
        if is_to_live {
            // Its connection to containerd is there once it has told something.
            shim.make_waiting_container()?;
            let with = shim.descriptors_now();
            shim.end_container()?;
            shim.descriptors = Some([shim.descriptors_now(), with]);
        }
        Ok(shim)
    }

    pub(super) fn id(&self) -> String {
        self.direct.id().to_owned()
    }

    pub(super) fn client(&self) -> Result<&TaskClient> {
        self.direct.client()
    }

    /// A create with all that follows, or an exec, while a call of its launcher is disturbed. An error of the life is what
    /// must not be: a shim that does not answer, for one.
    pub(super) fn live(&mut self, phase: Phase, target: Option<&(Call, Deed)>) -> Result<(Result<Life>, Seen)> {
        match (phase, self.runs) {
            (Phase::Create, true) => self.end_container()?,
            (Phase::Exec, false) => self.make_waiting_container()?,
            (Phase::Create, false) | (Phase::Exec, true) => {}
        }
        ptrace::let_waits_be_interrupted()?;
        let stop = AtomicBool::new(false);
        let (ready, is_ready) = mpsc::channel();
        let pid = self.pid;
        std::thread::scope(|scope| -> Result<_> {
            let ready = move || ready.send(ptrace::this_thread()).unwrap_or_default();
            let stopped = &stop;
            let thread = scope.spawn(move || follow(pid, phase, target, ready, stopped));
            // Not sent where it cannot be followed.
            let follower = is_ready.recv();
            let life = follower.map_err(anyhow::Error::from).and_then(|_| match phase {
                Phase::Create => self.create(),
                Phase::Exec => self.exec(),
            });
            stop.store(true, Ordering::Release);
            while let (Ok(follower), false) = (follower, thread.is_finished()) {
                ptrace::interrupt(follower);
                std::thread::sleep(Duration::from_micros(200));
            }
            let seen = thread.join().ok().context("the follower panicked")??;
            Ok((life, seen))
        })
    }

    fn create(&mut self) -> Result<Life> {
        let refused = self.make_container(&["/bin/sh", "-c", SHOW])?;
        if refused.is_some() {
            return Ok(Life { refused, ..Life::default() });
        }
        let mut life = Life::default();
        match self.words(&self.init, "").context("init")? {
            Ok(words) => life.init = words,
            Err(status) => life.ended = Some(status),
        }
        if life.ended.is_none() {
            let exec = self.exec()?;
            life = Life { init: life.init, ..exec };
        }
        self.end_container()?;
        Ok(life)
    }

    /// Create and Start. The request that was refused, and how.
    fn make_container(&mut self, program: &[&str]) -> Result<Option<(&'static str, String)>> {
        drop(self.init.read()?);
        self.config["process"]["args"] = program.into();
        fs::write(self.direct.bundle().join("config.json"), self.config.to_string())?;
        if let Err(error) = self.direct.create_within(ctx(), None) {
            return Ok(Some(("Create", answer(error.root_cause().downcast_ref()))));
        }
        let start = StartRequest { id: self.id(), ..StartRequest::default() };
        if let Err(error) = self.client()?.start(ctx(), &start) {
            self.delete("").context("Delete after a failed Start")?;
            return Ok(Some(("Start", answer(Some(&error)))));
        }
        self.runs = true;
        Ok(None)
    }

    fn make_waiting_container(&mut self) -> Result<()> {
        match self.make_container(&["/bin/sleep", "1000"])? {
            Some(refused) => bail!("refused, undisturbed: {refused:?}"),
            None => Ok(()),
        }
    }

    /// Kill, Wait and Delete.
    fn end_container(&mut self) -> Result<()> {
        let kill = KillRequest { id: self.id(), signal: 9, all: true, ..KillRequest::default() };
        self.client()?.kill(ctx(), &kill).context("Kill")?;
        self.client()?.wait(ctx(), &WaitRequest { id: self.id(), ..WaitRequest::default() }).context("Wait")?;
        self.delete("")?;
        self.runs = false;
        Ok(())
    }

    fn exec(&self) -> Result<Life> {
        let exec_id = "exec";
        let mut process = self.config["process"].clone();
        process["args"] = ["/bin/sh", "-c", SHOW].as_slice().into();
        let request = ExecProcessRequest {
            id: self.id(),
            exec_id: exec_id.to_owned(),
            stdout: self.exec.path.display().to_string(),
            spec: MessageField::some(Any { value: process.to_string().into_bytes(), ..Any::default() }),
            ..ExecProcessRequest::default()
        };
        // What was refused may have said something before it was killed.
        drop(self.exec.read()?);
        self.client()?.exec(ctx(), &request).context("Exec")?;
        let start = StartRequest { id: self.id(), exec_id: exec_id.to_owned(), ..StartRequest::default() };
        let mut life = Life::default();
        match self.client()?.start(ctx(), &start) {
            Ok(_) => match self.words(&self.exec, exec_id).context("exec")? {
                Ok(words) => {
                    life.exec = words;
                    let kill =
                        KillRequest { id: self.id(), exec_id: exec_id.to_owned(), signal: 9, ..KillRequest::default() };
                    self.client()?.kill(ctx(), &kill).context("Kill an exec")?;
                    let wait = WaitRequest { id: self.id(), exec_id: exec_id.to_owned(), ..WaitRequest::default() };
                    let status = self.client()?.wait(ctx(), &wait).context("Wait for an exec")?.exit_status;
                    ensure!(status == 137, "an exec ended with status {status}");
                }
                Err(status) => life.ended = Some(status),
            },
            Err(error) => life.refused = Some(("Start of an exec", answer(Some(&error)))),
        }
        self.delete(exec_id).context("Delete an exec")?;
        Ok(life)
    }

    fn delete(&self, exec_id: &str) -> Result<()> {
        let request = DeleteRequest { id: self.id(), exec_id: exec_id.to_owned(), ..DeleteRequest::default() };
        self.client()?.delete(ctx(), &request).context("Delete")?;
        Ok(())
    }

    /// What a process says up to its last word, in lines; or the status that it ended with before.
    fn words(&self, stream: &Stream, exec_id: &str) -> Result<Result<Vec<String>, u32>> {
        let request = StateRequest { id: self.id(), exec_id: exec_id.to_owned(), ..StateRequest::default() };
        let end = Instant::now() + WORDS;
        let mut said = String::new();
        while !said.ends_with("done\n") {
            let more = stream.read()?;
            if more.is_empty() {
                let state = self.client()?.state(ctx(), &request).context("State")?;
                let has_ended = state.status.enum_value() == Ok(Status::STOPPED);
                // Its last words may have come in between.
                said.push_str(&stream.read()?);
                if has_ended && !said.ends_with("done\n") {
                    return Ok(Err(state.exit_status));
                }
                ensure!(Instant::now() < end, "said only {said:?}");
                std::thread::sleep(Duration::from_millis(2));
            }
            said.push_str(&more);
        }
        Ok(Ok(said.lines().map(str::to_owned).collect()))
    }

    pub(super) fn is_alive(&self) -> bool {
        // A zombie has no command line.
        fs::read(format!("/proc/{}/cmdline", self.pid)).is_ok_and(|line| !line.is_empty())
    }

    /// Kills the shim, and does what containerd does then.
    pub(super) fn kill(self) -> Result<()> {
        ptrace::kill(self.pid);
        self.abandon()
    }

    /// What containerd does when a shim is gone.
    pub(super) fn abandon(self) -> Result<()> {
        let process = Path::new("/proc").join(self.pid.to_string());
        eventually("the shim is gone", || !process.exists())?;
        let (containerd, id) = (self.containerd, self.id());
        let tag = format!(" launch {}/{id}", self.direct.namespace());
        self.direct.abandon()?;
        containerd.nothing_left(&id)?;
        let strays = || processes().map(|all| all.into_values().filter(|line| line.contains(&tag)).collect::<Vec<_>>());
        eventually("no process is left", || strays().is_ok_and(|all| all.is_empty()))
            .with_context(|| format!("{:?}", strays()))
    }

    /// Ends container and shim.
    pub(super) fn end(mut self) -> Result<()> {
        if self.runs {
            self.end_container()?;
        }
        self.direct.give_up()
    }
}

/// The shim's own words, which containerd passes on.
fn answer(error: Option<&ttrpc::Error>) -> String {
    match error {
        Some(ttrpc::Error::RpcStatus(status)) => status.message.clone(),
        Some(error) => format!("no answer: {error}"),
        None => "no answer".to_owned(),
    }
}

pub(super) fn ctx() -> context::Context {
    context::with_timeout(i64::try_from(PATIENCE.as_nanos()).unwrap_or(i64::MAX))
}
