//! Runs cases, one after another, with one shim that serves them all.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use containerd_shim_protos::TaskClient;
use containerd_shim_protos::api::{
    CreateTaskRequest, DeleteRequest, ExecProcessRequest, KillRequest, Mount, StartRequest, WaitRequest,
};
use containerd_shim_protos::protobuf::MessageField;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::ttrpc::{self, context};
use serde_json::Value;

use super::case::Case;
use super::host::{Host, mark};
use super::plant;
use super::swap::{Swapper, pair};
use crate::direct::Direct;
use crate::{Containerd, patience, processes, repository, share};

const SHIM: &str = "containerd-shim-hardened-v1";

/// How long a call may take. Nothing that an image or a volume holds may make a runtime wait.
const LIMIT: Duration = Duration::from_secs(30);

/// That, or as many seconds as `HARDENED_HOSTILE_LIMIT` says: to hunt, less is enough.
fn limit() -> Duration {
    let seconds = std::env::var("HARDENED_HOSTILE_LIMIT").ok().and_then(|seconds| seconds.parse().ok());
    seconds.map_or(LIMIT, Duration::from_secs) * patience()
}

/// What became of a case.
#[derive(Debug)]
pub struct Outcome {
    /// Why the container did not start; `None` where it did.
    pub refused: Option<String>,
    /// Why its exec did not start, if it had one; `Some(None)` where that started.
    pub exec: Option<Option<String>>,
    /// What was done to the host: empty, unless a hole was found.
    pub harm: Vec<String>,
}

/// A shim, the files that images are made of, and the host.
#[expect(missing_debug_implementations, reason = "ttrpc's client has none")]
pub struct Range<'a> {
    c: &'a Containerd,
    shim: Option<Direct<'a>>,
    host: Host,
    default: Value,
    home: PathBuf,
}

impl<'a> Range<'a> {
    /// Starts the shim. Nobody else may use this containerd.
    ///
    /// # Errors
    /// It does not start.
    pub fn open(c: &'a Containerd) -> Result<Self> {
        let home = c.root().join(c.id("hostile"));
        fs::create_dir_all(&home)?;
        let busybox = repository().join("target/integration/rootfs/bin/busybox");
        fs::copy(&busybox, home.join("busybox")).with_context(|| format!("copy {}", busybox.display()))?;
        let default = c.spec(&["/bin/true"])?;
        let mut range = Self { c, shim: None, host: Host::watch(c)?, default, home };
        range.start_shim()?;
        Ok(range)
    }

    fn start_shim(&mut self) -> Result<()> {
        self.shim = Some(Direct::start(self.c, SHIM, &self.default)?);
        self.host.restore()
    }

    fn shim(&self) -> Result<&Direct<'a>> {
        self.shim.as_ref().context("no shim")
    }

    fn shim_pid(&self) -> Result<i32> {
        let id = format!("-id {} ", self.shim()?.id());
        let shims = self.c.shims()?;
        shims.into_iter().find(|(_, line)| line.contains(&id)).map(|(pid, _)| pid).context("the shim is gone")
    }

    /// Runs a case: create, start, exec, kill, delete; and looks at the host.
    ///
    /// # Errors
    /// It could not be set up, or the shim is gone. What a container does is never one.
    pub fn run(&mut self, case: &Case) -> Result<Outcome> {
        let id = self.c.id("case");
        let pod = format!("pod-{id}");
        let bundle = self.home.join(&id);
        let pods = self.c.home().join("kubelet/pods").join(&pod);
        let image = bundle.join(if case.mounted { "image" } else { "rootfs" });
        fs::create_dir_all(bundle.join("rootfs"))?;
        plant::image(&image, &self.home.join("busybox"), case, self.host.sentinels())?;
        let mut volumes = Vec::new();
        let mut pairs = Vec::new();
        for (n, volume) in case.volumes.iter().enumerate() {
            let folder = pods.join(format!("volumes/kubernetes.io~empty-dir/v{n}"));
            fs::create_dir_all(&folder)?;
            plant::entries(&folder, &volume.entries, self.host.sentinels())?;
            for swap in &volume.swaps {
                pairs.push(pair(&folder, &swap.name, &plant::link(&swap.target, self.host.sentinels()))?);
            }
            volumes.push(folder);
        }
        share(&bundle)?;
        let container = plant::Container { id: &id, namespace: self.c.namespace(), pod: &pod, volumes: &volumes };
        fs::write(bundle.join("config.json"), plant::config(&self.default, case, &container).to_string())?;

        let swapper = (!pairs.is_empty()).then(|| Swapper::start(pairs));
        let begin = Instant::now();
        let (refused, exec) = self.live(case, &id, &bundle)?;
        let took = begin.elapsed();
        if let Some(swapper) = swapper {
            // A swap is over where the runtime is let to take a name away.
            drop(swapper.stop());
        }
        let mut harm = Vec::new();
        if took >= limit() {
            harm.push(format!("it hung: {}", refused.clone().or(exec.clone().flatten()).unwrap_or_default()));
            self.end_shim(&id, &bundle)?;
        } else if self.shim_pid().is_err() {
            harm.push("the shim is gone".to_owned());
        }
        // No process has this parent.
        harm.extend(self.host.changes(self.shim_pid().unwrap_or(-1))?);
        if !harm.is_empty() {
            self.end_shim(&id, &bundle)?;
            self.start_shim()?;
        }
        fs::remove_dir_all(&bundle).with_context(|| format!("remove {}", bundle.display()))?;
        if pods.exists() {
            fs::remove_dir_all(&pods)?;
        }
        Ok(Outcome { refused, exec, harm })
    }

    /// The container's life, as far as it gets.
    fn live(&self, case: &Case, id: &str, bundle: &Path) -> Result<(Option<String>, Option<Option<String>>)> {
        let client = self.shim()?.client()?;
        let rootfs = case.mounted.then(|| Mount {
            type_: "bind".to_owned(),
            source: bundle.join("image").display().to_string(),
            options: vec!["rbind".to_owned(), "rw".to_owned()],
            ..Mount::default()
        });
        let request = CreateTaskRequest {
            id: id.to_owned(),
            bundle: bundle.display().to_string(),
            rootfs: rootfs.into_iter().collect(),
            terminal: case.terminal,
            ..CreateTaskRequest::default()
        };
        if let Err(error) = client.create(ctx(), &request) {
            return Ok((Some(words(&error)), None));
        }
        let start = StartRequest { id: id.to_owned(), ..StartRequest::default() };
        let started = client.start(ctx(), &start);
        let exec = match (&started, &case.exec) {
            (Ok(_), Some(cwd)) => {
                Some(exec(client, id, &plant::process(case, cwd, self.c.namespace())).err().map(|e| words(&e)))
            }
            _ => None,
        };
        let kill = KillRequest { id: id.to_owned(), signal: 9, all: true, ..KillRequest::default() };
        // It may have ended by itself, or have never started. What is left is seen.
        if client.kill(ctx(), &kill).is_ok() {
            drop(client.wait(ctx(), &WaitRequest { id: id.to_owned(), ..WaitRequest::default() }));
        }
        drop(client.delete(ctx(), &DeleteRequest { id: id.to_owned(), ..DeleteRequest::default() }));
        Ok((started.err().map(|e| words(&e)), exec))
    }

    /// Ends the shim and what it left, by force.
    fn end_shim(&mut self, id: &str, bundle: &Path) -> Result<()> {
        let (launch, mark) = (format!(" launch {}/", self.c.namespace()), mark(self.c.namespace()));
        let shim = self.shim_pid().unwrap_or(-1);
        let all = processes()?.into_iter();
        let below = |pid| std::iter::successors(Some(pid), |pid| crate::parent(*pid)).take(50).any(|pid| pid == shim);
        let ours = all.filter(|(pid, line)| line.contains(&launch) || line.contains(&mark) || below(*pid));
        for (pid, _) in ours {
            // SAFETY: takes numbers only; the process is of this shim's.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
        if let Some(shim) = self.shim.take() {
            shim.clean_up(id, bundle)?;
            shim.abandon()?;
        }
        Ok(())
    }

    /// Ends the shim.
    ///
    /// # Errors
    /// It does not end.
    pub fn close(mut self) -> Result<()> {
        if let Some(shim) = self.shim.take() {
            shim.give_up()?;
        }
        Ok(fs::remove_dir_all(&self.home)?)
    }
}

fn exec(client: &TaskClient, id: &str, process: &Value) -> ttrpc::Result<()> {
    let exec_id = "exec".to_owned();
    let request = ExecProcessRequest {
        id: id.to_owned(),
        exec_id: exec_id.clone(),
        spec: MessageField::some(Any { value: process.to_string().into_bytes(), ..Any::default() }),
        ..ExecProcessRequest::default()
    };
    client.exec(ctx(), &request)?;
    client.start(ctx(), &StartRequest { id: id.to_owned(), exec_id: exec_id.clone(), ..StartRequest::default() })?;
    client.wait(ctx(), &WaitRequest { id: id.to_owned(), exec_id: exec_id.clone(), ..WaitRequest::default() })?;
    client.delete(ctx(), &DeleteRequest { id: id.to_owned(), exec_id, ..DeleteRequest::default() })?;
    Ok(())
}

fn ctx() -> context::Context {
    context::with_timeout(i64::try_from(limit().as_nanos()).unwrap_or(i64::MAX))
}

fn words(error: &ttrpc::Error) -> String {
    if let ttrpc::Error::RpcStatus(status) = error { status.message().to_owned() } else { error.to_string() }
}

/// A message without what is one case's alone: names, paths and numbers.
#[must_use]
pub fn class(message: &str) -> String {
    let mut words: Vec<&str> = Vec::new();
    for word in message.split_whitespace() {
        let word = if word.starts_with("mounts[") { "mounts[…]:" } else { word };
        let particular = word.contains(['/', '\\', '"']) && !word.starts_with("mounts");
        let word = if particular || word.chars().any(|c| c.is_ascii_digit()) { "…" } else { word };
        if word != "…" || words.last() != Some(&"…") {
            words.push(word);
        }
    }
    words.join(" ").chars().take(140).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_a_kind_are_one_class() {
        let a = class("hardened: container case-7: mounts[/dev]: a file system of type \"overlay\" is mounted");
        assert_eq!(a, "hardened: container … mounts[…]: a file system of type … is mounted");
        assert_eq!(class("mkdir /a/b: No such file"), class("mkdir /c: No such file"));
    }
}
