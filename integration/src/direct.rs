//! A shim driven as containerd drives it, without containerd between: `start`, then Task calls.

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use containerd_shim_protos::api::{
    CreateTaskRequest, DeleteRequest, ExecProcessRequest, KillRequest, Mount, ShutdownRequest, StartRequest,
    StateRequest, WaitRequest,
};
use containerd_shim_protos::bootstrap_api::{BootstrapParams, BootstrapResult, Extension};
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{Message, MessageField};
use containerd_shim_protos::ttrpc::context;
use containerd_shim_protos::{Client, TaskClient};

use crate::{Containerd, run};

/// A shim with one container's bundle, and nothing created yet.
#[expect(missing_debug_implementations, reason = "ttrpc's client has none")]
pub struct Direct<'a> {
    containerd: &'a Containerd,
    binary: &'a str,
    /// A command line that runs the shim's.
    wrapper: Vec<String>,
    id: String,
    bundle: PathBuf,
    /// Where a shim logs to: somebody must have it open. A pipe holds all that a test makes it say.
    log: fs::File,
    stdout: String,
    /// The runtime's options of the create.
    options: Option<Any>,
    /// Once it is started.
    client: Option<TaskClient>,
}

impl<'a> Direct<'a> {
    /// Starts the shim of that name, with a bundle of this `config.json`.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(containerd: &'a Containerd, binary: &'a str, config: &serde_json::Value) -> Result<Self> {
        Self::start_under(containerd, binary, config, &[])
    }

    /// The same, with the shim run by another program: one that takes something away from it.
    ///
    /// # Errors
    /// It does not start.
    pub fn start_under(
        containerd: &'a Containerd,
        binary: &'a str,
        config: &serde_json::Value,
        wrapper: &[&str],
    ) -> Result<Self> {
        let mut direct = Self::prepare(containerd, binary, config, wrapper)?;
        let answer = run(&mut direct.command("start"), b"", Duration::from_secs(20))?.ok()?;
        let answer: serde_json::Value = serde_json::from_slice(&answer.stdout)?;
        direct.connect(answer["address"].as_str().context("no address")?)?;
        Ok(direct)
    }

    /// Starts the shim as containerd 2.3 does: by a message on standard input, with the runtime's options in it.
    ///
    /// # Errors
    /// It does not start.
    pub fn bootstrap(
        containerd: &'a Containerd,
        binary: &'a str,
        config: &serde_json::Value,
        options: Any,
    ) -> Result<Self> {
        let mut direct = Self::prepare(containerd, binary, config, &[])?;
        let home = containerd.home();
        let parameters = BootstrapParams {
            instance_id: direct.id.clone(),
            namespace: containerd.namespace().to_owned(),
            containerd_version: "v2.3.4".to_owned(),
            containerd_ttrpc_address: home.join("c.sock.ttrpc").display().to_string(),
            containerd_grpc_address: home.join("c.sock").display().to_string(),
            containerd_binary: home.join("bin/containerd").display().to_string(),
            extensions: vec![Extension { value: MessageField::some(options), ..Extension::default() }],
            ..BootstrapParams::default()
        };
        // It still says that it speaks the older dialect, for older shims.
        let mut start = direct.command("start");
        let answer =
            run(start.env("MAX_SHIM_VERSION", "2"), &parameters.write_to_bytes()?, Duration::from_secs(20))?.ok()?;
        let answer = BootstrapResult::parse_from_bytes(&answer.stdout).context("the answer of the start")?;
        ensure!(answer.version == 3 && answer.protocol == "ttrpc", "{answer:?}");
        direct.connect(&answer.address)?;
        Ok(direct)
    }

    fn connect(&mut self, address: &str) -> Result<()> {
        self.client = Some(TaskClient::new(Client::connect(address).context("connect to the shim")?));
        Ok(())
    }

    fn prepare(
        containerd: &'a Containerd,
        binary: &'a str,
        config: &serde_json::Value,
        wrapper: &[&str],
    ) -> Result<Self> {
        let id = containerd.id("direct");
        let bundle = containerd.home().join("bundles").join(&id);
        fs::create_dir_all(bundle.join("rootfs"))?;
        let mut config = config.clone();
        config["root"]["path"] = "rootfs".into();
        config["linux"]["cgroupsPath"] = format!("/{}/{id}", containerd.namespace()).into();
        fs::write(bundle.join("config.json"), config.to_string())?;
        let wrapper = wrapper.iter().map(|w| (*w).to_owned()).collect();
        let log = CString::new(bundle.join("log").as_os_str().as_bytes())?;
        // SAFETY: the path is NUL terminated.
        ensure!(unsafe { libc::mkfifo(log.as_ptr(), 0o600) } == 0, "mkfifo: {}", std::io::Error::last_os_error());
        let log = fs::File::options().read(true).write(true).open(bundle.join("log"))?;
        Ok(Self { containerd, binary, wrapper, id, bundle, log, stdout: String::new(), options: None, client: None })
    }

    fn command(&self, action: &str) -> Command {
        self.command_for(&self.id, action)
    }

    fn command_for(&self, id: &str, action: &str) -> Command {
        let home = self.containerd.home();
        let binary = home.join("bin").join(self.binary);
        let mut command = match self.wrapper.split_first() {
            Some((wrapper, arguments)) if action == "start" => {
                let mut command = Command::new(wrapper);
                command.args(arguments).arg(binary);
                command
            }
            _ => Command::new(binary),
        };
        command
            .args(["-namespace", self.containerd.namespace(), "-id", id, "-address"])
            .arg(home.join("c.sock"))
            .arg("-publish-binary")
            .arg(home.join("bin/containerd"))
            .arg(action)
            .env("TTRPC_ADDRESS", home.join("c.sock.ttrpc"))
            .env("GRPC_ADDRESS", home.join("c.sock"))
            .env("MAX_SHIM_VERSION", "3")
            .env("PATH", self.containerd.path())
            .current_dir(&self.bundle);
        command
    }

    /// The Task service.
    ///
    /// # Errors
    /// The shim was not started.
    pub fn client(&self) -> Result<&TaskClient> {
        self.client.as_ref().context("the shim was not started")
    }

    /// The container's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The namespace that it is in.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.containerd.namespace()
    }

    /// The bundle that the shim was given.
    #[must_use]
    pub fn bundle(&self) -> &Path {
        &self.bundle
    }

    /// Gives the container a fifo for its output.
    pub fn set_stdout(&mut self, fifo: &Path) {
        self.stdout = fifo.display().to_string();
    }

    /// Has the node's policy read from another folder.
    pub fn set_policy(&mut self, folder: &Path) {
        let folder = folder.as_os_str().as_bytes();
        // runtimeoptions.v1.Options with config_path, its field 2.
        let value = [&[0x12, u8::try_from(folder.len()).unwrap_or_default()], folder].concat();
        self.options = Some(Any { type_url: "runtimeoptions.v1.Options".to_owned(), value, ..Any::default() });
    }

    /// Create, and nothing else.
    ///
    /// # Errors
    /// What the shim answers.
    pub fn create(&self, oci_runtime: Option<&str>) -> Result<()> {
        self.create_within(ctx(), oci_runtime)
    }

    /// The same, by a client that waits so long.
    ///
    /// # Errors
    /// What the shim answers, or that it did not.
    pub fn create_within(&self, context: context::Context, oci_runtime: Option<&str>) -> Result<()> {
        // As the overlay snapshotter has it for a view: no layer of it is written to.
        let (empty, files) = (self.bundle.join("empty"), self.containerd.rootfs()?);
        fs::create_dir_all(&empty)?;
        let rootfs = Mount {
            type_: "overlay".to_owned(),
            source: "overlay".to_owned(),
            options: vec![format!("lowerdir={}:{}", empty.display(), files.display())],
            ..Mount::default()
        };
        // containerd.runc.v1.Options with binary_name, its field 6.
        let runc = oci_runtime.map(|name| Any {
            type_url: "containerd.runc.v1.Options".to_owned(),
            value: [&[0x32, u8::try_from(name.len()).unwrap_or_default()], name.as_bytes()].concat(),
            ..Any::default()
        });
        let request = CreateTaskRequest {
            id: self.id.clone(),
            bundle: self.bundle.display().to_string(),
            rootfs: vec![rootfs],
            stdout: self.stdout.clone(),
            options: MessageField::from_option(runc.or_else(|| self.options.clone())),
            ..CreateTaskRequest::default()
        };
        self.client()?.create(context, &request).context("Create")?;
        Ok(())
    }

    /// Create and Start, timed.
    ///
    /// # Errors
    /// What the shim answers.
    pub fn create_and_start(&self, oci_runtime: Option<&str>) -> Result<Duration> {
        let begin = Instant::now();
        self.create(oci_runtime)?;
        self.client()?
            .start(ctx(), &StartRequest { id: self.id.clone(), ..StartRequest::default() })
            .context("Start")?;
        Ok(begin.elapsed())
    }

    /// Pid of its init.
    ///
    /// # Errors
    /// What the shim answers.
    pub fn pid(&self) -> Result<u32> {
        let request = StateRequest { id: self.id.clone(), ..StateRequest::default() };
        Ok(self.client()?.state(ctx(), &request)?.pid)
    }

    /// Exec, Start, Wait and Delete of a process that ends at once, timed.
    ///
    /// # Errors
    /// What the shim answers, or the process fails.
    pub fn exec(&self, process: &serde_json::Value) -> Result<Duration> {
        let (client, id, exec_id) = (self.client()?, self.id.clone(), "exec".to_owned());
        let spec = Any {
            type_url: "types.containerd.io/opencontainers/runtime-spec/1/Process".to_owned(),
            value: serde_json::to_vec(process)?,
            ..Any::default()
        };
        let exec = ExecProcessRequest {
            id: id.clone(),
            exec_id: exec_id.clone(),
            spec: MessageField::some(spec),
            ..ExecProcessRequest::default()
        };
        let begin = Instant::now();
        client.exec(ctx(), &exec).context("Exec")?;
        client
            .start(ctx(), &StartRequest { id: id.clone(), exec_id: exec_id.clone(), ..StartRequest::default() })
            .context("Start of the exec")?;
        let ended = client
            .wait(ctx(), &WaitRequest { id: id.clone(), exec_id: exec_id.clone(), ..WaitRequest::default() })
            .context("Wait")?;
        client
            .delete(ctx(), &DeleteRequest { id, exec_id, ..DeleteRequest::default() })
            .context("Delete of the exec")?;
        ensure!(ended.exit_status == 0, "the process ended with {}", ended.exit_status);
        Ok(begin.elapsed())
    }

    /// Kill, Wait, Delete and Shutdown, and the shim's own `delete`.
    ///
    /// # Errors
    /// What the shim answers.
    pub fn end(self) -> Result<()> {
        self.end_timed().map(drop)
    }

    /// The same; how long Delete took.
    ///
    /// # Errors
    /// What the shim answers.
    pub fn end_timed(self) -> Result<Duration> {
        let client = self.client()?;
        let id = self.id.clone();
        client.kill(ctx(), &KillRequest { id: id.clone(), signal: 9, all: true, ..KillRequest::default() })?;
        client.wait(ctx(), &WaitRequest { id: id.clone(), ..WaitRequest::default() })?;
        let begin = Instant::now();
        client.delete(ctx(), &DeleteRequest { id, ..DeleteRequest::default() })?;
        let elapsed = begin.elapsed();
        self.shut_down()?;
        Ok(elapsed)
    }

    /// What containerd does when a create or start fails: Delete, Shutdown, and the shim's own
    /// `delete`.
    ///
    /// # Errors
    /// What the shim answers.
    pub fn give_up(self) -> Result<()> {
        // There may be none.
        drop(self.client()?.delete(ctx(), &DeleteRequest { id: self.id.clone(), ..DeleteRequest::default() }));
        self.shut_down()
    }

    /// The shim's own `delete`, for a container of a shim that was killed.
    ///
    /// # Errors
    /// It cannot be run, or fails.
    pub fn clean_up(&self, id: &str, bundle: &Path) -> Result<()> {
        let mut delete = self.command_for(id, "delete");
        delete.arg("-bundle").arg(bundle);
        run(&mut delete, b"", Duration::from_secs(20))?.ok().map(drop)
    }

    /// The same for this container, and the end of its bundle: the shim was killed.
    ///
    /// # Errors
    /// It cannot be run, or fails.
    pub fn abandon(self) -> Result<()> {
        self.clean_up(&self.id, &self.bundle)?;
        Ok(fs::remove_dir_all(&self.bundle)?)
    }

    fn shut_down(self) -> Result<()> {
        // Ends the connection too, before it can be answered.
        fs::create_dir_all(&self.bundle)?;
        drop(self.client()?.shutdown(ctx(), &ShutdownRequest { id: self.id.clone(), ..ShutdownRequest::default() }));
        let mut delete = self.command("delete");
        delete.args(["-bundle"]).arg(&self.bundle);
        let out = run(&mut delete, b"", Duration::from_secs(20))?;
        drop(self.log);
        fs::remove_dir_all(&self.bundle)?;
        ensure!(out.status == 0, "delete: {out:?}");
        Ok(())
    }
}

fn ctx() -> context::Context {
    context::with_timeout(30_000_000_000)
}
