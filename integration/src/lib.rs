//! A private containerd for tests: own root, state, socket and cgroups, all removed at the end.

pub mod audit;
pub mod cri;
pub mod direct;
pub mod hostile;
pub mod inject;
pub mod kubelet;

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// Runtime type under test.
pub const HARDENED: &str = "io.containerd.hardened.v1";

/// Another runtime handler that the shim serves, and its runtime's part of the name.
pub const STRICT: &str = "hardened-strict";

/// The contrast.
pub const RUNC: &str = "io.containerd.runc.v2";

/// Image with busybox, the probe, and traps for the runtime.
pub const IMAGE: &str = "docker.io/hardened/test:1";

/// A generation of containerd, unpacked by `scripts/setup`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Generation {
    /// Debian forky's containerd 2.1.
    Two,
    /// Debian trixie's containerd 1.7.
    One,
}

impl Generation {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Two, Self::One];

    /// Name of its folder and of its tests.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Two => "containerd-2",
            Self::One => "containerd-1.7",
        }
    }
}

/// The repository.
#[must_use]
pub fn repository() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_owned()
}

/// Where containerds keep their roots: on disk, since overlayfs cannot have an upper layer on
/// every tmpfs, unless `HARDENED_TEST_ROOT` names another place. In a guest the disk is an
/// overlay itself.
fn test_root() -> PathBuf {
    std::env::var_os("HARDENED_TEST_ROOT").map_or_else(|| repository().join("target/integration"), PathBuf::from)
}

/// Where volumes are: one of the folders in which provisioners keep PersistentVolumes, which are the only
/// paths of the host that `baseline` lets through. In a guest the one on a tmpfs.
fn volumes_root() -> PathBuf {
    let in_guest = std::env::var_os("HARDENED_TEST_ROOT").is_some();
    PathBuf::from(if in_guest { "/tmp/hostpath-provisioner" } else { "/opt/local-path-provisioner" })
}

/// mount(8).
///
/// # Errors
/// It cannot be mounted.
pub fn mount(arguments: &[&str]) -> Result<()> {
    run(Command::new("mount").args(arguments), b"", Duration::from_secs(20))?.ok().map(drop)
}

/// How much longer than usual things may take: `HARDENED_PATIENCE` times.
fn patience() -> u32 {
    std::env::var("HARDENED_PATIENCE").ok().and_then(|times| times.parse().ok()).unwrap_or(1)
}

/// What a program printed and how it ended.
#[derive(Debug)]
pub struct Output {
    /// Exit code; 128 and the signal where it was killed.
    pub status: i32,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// Standard output as text, without its last newline.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end().to_owned()
    }

    /// This output, if the program ended well.
    ///
    /// # Errors
    /// It did not.
    pub fn ok(self) -> Result<Self> {
        ensure!(self.status == 0, "exit {}: {}{}", self.status, self.text(), self.stderr);
        Ok(self)
    }
}

/// Runs a program with a time limit.
///
/// # Errors
/// It cannot be run, or takes longer.
pub fn run(command: &mut Command, input: &[u8], limit: Duration) -> Result<Output> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("run {command:?}"))?;
    let mut stdin = child.stdin.take().context("stdin")?;
    let input = input.to_vec();
    // The program may end without reading all.
    std::thread::spawn(move || stdin.write_all(&input).is_ok());
    let read = |mut from: Box<dyn std::io::Read + Send>| {
        std::thread::spawn(move || {
            let mut all = Vec::new();
            from.read_to_end(&mut all).map(|_| all).unwrap_or_default()
        })
    };
    let stdout = read(Box::new(child.stdout.take().context("stdout")?));
    let stderr = read(Box::new(child.stderr.take().context("stderr")?));
    let status = wait(&mut child, limit).with_context(|| format!("{command:?}"))?;
    let take = |t: std::thread::JoinHandle<Vec<u8>>| t.join().unwrap_or_default();
    Ok(Output { status, stdout: take(stdout), stderr: String::from_utf8_lossy(&take(stderr)).into_owned() })
}

/// Where `hardenctl` was built.
///
/// # Errors
/// `scripts/test` has not said where.
pub fn hardenctl_path() -> Result<PathBuf> {
    Ok(std::env::var_os("HARDENCTL").context("HARDENCTL: run scripts/test, which sets it")?.into())
}

/// Runs `hardenctl`.
///
/// # Errors
/// It cannot be run, or takes longer than ten seconds.
pub fn hardenctl(arguments: &[&str]) -> Result<Output> {
    run(Command::new(hardenctl_path()?).args(arguments), b"", Duration::from_secs(10))
}

fn wait(child: &mut Child, limit: Duration) -> Result<i32> {
    use std::os::unix::process::ExitStatusExt;
    let end = Instant::now() + limit * patience();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)));
        }
        if Instant::now() > end {
            child.kill()?;
            child.wait()?;
            bail!("not done after {limit:?}");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until something is so.
///
/// # Errors
/// It is not so within 15 seconds, times the patience asked for.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(15) * patience();
    while !is_so() {
        ensure!(Instant::now() < end, "still not after waiting: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// What a containerd is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Ctr,
    Cri,
}

/// A containerd of our own.
#[derive(Debug)]
pub struct Containerd {
    generation: Generation,
    purpose: Use,
    home: PathBuf,
    root: PathBuf,
    /// Volumes of containers.
    volumes: PathBuf,
    namespace: String,
    child: Mutex<Option<Child>>,
    counter: AtomicU32,
    /// Held while the files of the test image are copied.
    rootfs: Mutex<()>,
}

impl Containerd {
    /// Starts one and loads the test image.
    ///
    /// # Errors
    /// Something that `scripts/setup` and `scripts/test` make is missing.
    pub fn start(generation: Generation) -> Result<Self> {
        Self::start_named(generation, format!("{}-{}", std::process::id(), generation.name()), Use::Ctr)
    }

    /// Starts one with its CRI on, in a network namespace of its own.
    ///
    /// # Errors
    /// As [`Containerd::start`].
    pub(crate) fn start_for_cri(generation: Generation, name: &str) -> Result<Self> {
        let name = format!("{}-cri-{name}", std::process::id());
        let containerd = Self::start_named(generation, name, Use::Cri)?;
        for archive in ["test.tar", "pause.tar", "user.tar"] {
            let archive = repository().join("target/integration").join(archive).display().to_string();
            containerd.ctr(&["-n", "k8s.io", "images", "import", &archive])?.ok()?;
        }
        Ok(containerd)
    }

    /// Starts another of the same generation, for a test that restarts it or counts what it left.
    ///
    /// # Errors
    /// As [`Containerd::start`].
    pub fn start_beside(other: &Self) -> Result<Self> {
        Self::start_named(
            other.generation,
            format!("{}-{}", std::process::id(), other.id(other.generation.name())),
            Use::Ctr,
        )
    }

    fn start_named(generation: Generation, name: String, purpose: Use) -> Result<Self> {
        let home = PathBuf::from(format!("/run/hardened-test-{name}"));
        fs::create_dir_all(home.join("bin"))?;
        let containerd = Self {
            generation,
            purpose,
            home,
            // One per containerd, because /run/hardened and cgroups belong to the whole machine.
            namespace: format!("test{name}"),
            root: test_root().join(format!("root-{name}")),
            volumes: volumes_root().join(format!("hardened-test-{name}")),
            child: Mutex::new(None),
            counter: AtomicU32::new(0),
            rootfs: Mutex::new(()),
        };
        containerd.install()?;
        containerd.boot()?;
        containerd.load(&repository().join("target/integration/test.tar"))?;
        Ok(containerd)
    }

    fn install(&self) -> Result<()> {
        let bin = self.home.join("bin");
        let shim = std::env::var("HARDENED_SHIM").context("HARDENED_SHIM: run scripts/test, which sets it")?;
        fs::copy(&shim, bin.join("containerd-shim-hardened-v1")).with_context(|| format!("copy {shim}"))?;
        std::os::unix::fs::symlink("containerd-shim-hardened-v1", bin.join(format!("containerd-shim-{STRICT}-v1")))?;
        for name in ["containerd-shim-runc-v2", "containerd", "ctr"] {
            std::os::unix::fs::symlink(self.tool(name), bin.join(name))?;
        }
        for (name, path) in [("runc", "usr/sbin/runc"), ("crun", "usr/bin/crun")] {
            std::os::unix::fs::symlink(repository().join(".cache/runtimes").join(path), bin.join(name))?;
        }
        let home = self.home.display();
        // No images come from a registry here.
        let mut off = vec![
            "io.containerd.nri.v1.nri",
            "io.containerd.snapshotter.v1.btrfs",
            "io.containerd.snapshotter.v1.devmapper",
            "io.containerd.snapshotter.v1.zfs",
            "io.containerd.snapshotter.v1.blockfile",
            "io.containerd.snapshotter.v1.erofs",
            "io.containerd.internal.v1.tracing",
            "io.containerd.tracing.processor.v1.otlp",
        ];
        if self.purpose == Use::Ctr {
            off.extend(["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime"]);
        }
        let version = match self.generation {
            Generation::Two => 3,
            Generation::One => 2,
        };
        let mut config = format!(
            "version = {version}\nroot = \"{root}\"\nstate = \"{home}/state\"\ndisabled_plugins = {off:?}\n\
             [grpc]\n  address = \"{home}/c.sock\"\n[ttrpc]\n  address = \"{home}/c.sock.ttrpc\"\n",
            root = self.root.display(),
        );
        if self.purpose == Use::Cri {
            config.push_str(&self.cri_config());
            fs::create_dir_all(cri::policy_folder(&self.home))?;
            fs::create_dir_all(self.home.join("cni"))?;
            fs::write(self.home.join("cni/10-test.conflist"), self.network())?;
        }
        fs::write(self.home.join("config.toml"), config)?;
        Ok(())
    }

    fn cri_config(&self) -> String {
        let home = self.home.display();
        let (runtime, image) = match self.generation {
            Generation::Two => (
                "io.containerd.cri.v1.runtime",
                "[plugins.'io.containerd.cri.v1.images'.pinned_images]\nsandbox = 'docker.io/hardened/pause:1'\n",
            ),
            Generation::One => ("io.containerd.grpc.v1.cri", ""),
        };
        let no_apparmor = !has_apparmor();
        let selinux = has_selinux();
        let pause = if image.is_empty() { "sandbox_image = 'docker.io/hardened/pause:1'\n" } else { "" };
        format!(
            "{image}[plugins.'{runtime}']\n{pause}restrict_oom_score_adj = true\n\
             netns_mounts_under_state_dir = true\ndisable_apparmor = {no_apparmor}\nenable_selinux = {selinux}\n\
             [plugins.'{runtime}'.cni]\nbin_dir = '/usr/lib/cni'\nconf_dir = '{home}/cni'\n\
             [plugins.'{runtime}'.containerd]\ndefault_runtime_name = 'hardened'\n\
             [plugins.'{runtime}'.containerd.runtimes.hardened]\nruntime_type = '{HARDENED}'\n\
             pod_annotations = ['io.containerd.hardened.v1/*']\n\
             [plugins.'{runtime}'.containerd.runtimes.hardened.options]\nConfigPath = '{home}/policy'\n\
             [plugins.'{runtime}'.containerd.runtimes.{plain}]\nruntime_type = '{HARDENED}'\n\
             pod_annotations = ['io.containerd.hardened.v1/*']\n\
             [plugins.'{runtime}'.containerd.runtimes.{STRICT}]\nruntime_type = 'io.containerd.{STRICT}.v1'\n\
             [plugins.'{runtime}'.containerd.runtimes.{STRICT}.options]\nConfigPath = '{home}/policy'\n",
            plain = cri::PLAIN_HANDLER
        )
    }

    /// A bridge and addresses of its own: no packet filter, nothing outside of this namespace.
    fn network(&self) -> String {
        serde_json::json!({
            "cniVersion": "0.4.0", "name": "test", "plugins": [{
                "type": "bridge", "bridge": "test0", "isGateway": true, "ipMasq": false,
                "ipam": {
                    "type": "host-local", "dataDir": self.home.join("ipam"),
                    "ranges": [[{"subnet": "10.88.0.0/16"}]], "routes": [{"dst": "0.0.0.0/0"}],
                },
            }],
        })
        .to_string()
    }

    fn tool(&self, name: &str) -> PathBuf {
        repository().join(".cache").join(self.generation.name()).join("usr/bin").join(name)
    }

    /// The digest of an image that was loaded for the CRI.
    ///
    /// # Errors
    /// There is no such image.
    pub fn digest(&self, image: &str) -> Result<String> {
        let list = self.ctr(&["-n", "k8s.io", "images", "ls"])?.ok()?.text();
        let line = list.lines().find(|l| l.starts_with(image)).context("no such image")?;
        Ok(line.split_whitespace().nth(2).context("no digest")?.to_owned())
    }

    /// Pid of the daemon.
    ///
    /// # Errors
    /// It does not run.
    pub fn pid(&self) -> Result<u32> {
        let child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(child.as_ref().context("containerd does not run")?.id())
    }

    /// Its folder.
    #[must_use]
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Which containerd it is.
    #[must_use]
    pub const fn generation(&self) -> Generation {
        self.generation
    }

    /// The namespace that tests use.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    pub(crate) fn path(&self) -> String {
        format!("{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", self.home.join("bin").display())
    }

    /// Starts the daemon, and waits until it answers.
    ///
    /// # Errors
    /// It does not.
    pub fn boot(&self) -> Result<()> {
        let log = fs::File::options().create(true).append(true).open(self.home.join("log"))?;
        let mut command = match self.purpose {
            Use::Ctr => Command::new(self.home.join("bin/containerd")),
            Use::Cri => {
                let mut command = Command::new("unshare");
                command
                    .args(["--net", "sh", "-c", "ip link set lo up && exec \"$0\" \"$@\""])
                    .arg(self.home.join("bin/containerd"));
                command
            }
        };
        let child = command
            .arg("-c")
            .arg(self.home.join("config.toml"))
            .env("PATH", self.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("start containerd: run scripts/setup test")?;
        *self.child.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
        eventually("containerd answers", || self.ctr(&["version"]).is_ok_and(|o| o.status == 0))
    }

    /// Ends the daemon, as an upgrade of it would; shims stay.
    ///
    /// # Errors
    /// It cannot be ended.
    pub fn shut_down(&self) -> Result<()> {
        let child = self.child.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut child) = child {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Loads an image archive.
    ///
    /// # Errors
    /// containerd does not take it.
    pub fn load(&self, archive: &Path) -> Result<()> {
        let archive = archive.display().to_string();
        self.ctr(&["images", "import", &archive])?.ok().with_context(|| format!("import {archive}"))?;
        Ok(())
    }

    /// A command line of `ctr`.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.home.join("bin/ctr"));
        command
            .arg("-a")
            .arg(self.home.join("c.sock"))
            .args(["-n", &self.namespace])
            .args(arguments)
            .env("PATH", self.path());
        command
    }

    /// Runs `ctr`.
    ///
    /// # Errors
    /// It takes longer than two minutes.
    pub fn ctr(&self, arguments: &[&str]) -> Result<Output> {
        self.ctr_with(arguments, b"")
    }

    /// Runs `ctr` with standard input.
    ///
    /// # Errors
    /// It takes longer than two minutes.
    pub fn ctr_with(&self, arguments: &[&str], input: &[u8]) -> Result<Output> {
        run(&mut self.command(arguments), input, Duration::from_secs(120))
    }

    /// A name that no other container has.
    #[must_use]
    pub fn id(&self, what: &str) -> String {
        format!("{what}-{}", self.counter.fetch_add(1, Ordering::Relaxed))
    }

    /// containerd's default spec for a program without a terminal.
    ///
    /// # Errors
    /// `ctr` prints none.
    pub fn spec(&self, program: &[&str]) -> Result<serde_json::Value> {
        let mut spec: serde_json::Value = serde_json::from_str(&self.ctr(&["oci", "spec"])?.ok()?.text())?;
        spec["process"]["args"] = program.into();
        spec["process"]["terminal"] = false.into();
        Ok(spec)
    }

    /// `ctr run --rm` under hardened.
    ///
    /// # Errors
    /// It takes longer than two minutes.
    pub fn run(&self, options: &[&str], program: &[&str]) -> Result<Output> {
        self.run_under(HARDENED, options, program, b"")
    }

    /// `ctr run --rm` under a runtime, with standard input.
    ///
    /// # Errors
    /// It takes longer than two minutes.
    pub fn run_under(&self, runtime: &str, options: &[&str], program: &[&str], input: &[u8]) -> Result<Output> {
        let id = self.id("run");
        let arguments = [&["run", "--rm", "--runtime", runtime], options, &[IMAGE, &id], program].concat();
        self.ctr_with(&arguments, input)
    }

    /// A container that runs until it is dropped.
    ///
    /// # Errors
    /// It does not start.
    pub fn start_container(&self, options: &[&str], program: &[&str]) -> Result<Running<'_>> {
        self.start_image(IMAGE, options, program)
    }

    /// The same, of another image.
    ///
    /// # Errors
    /// It does not start.
    pub fn start_image(&self, image: &str, options: &[&str], program: &[&str]) -> Result<Running<'_>> {
        let id = self.id("box");
        // Dropped, and so removed, also where the start fails.
        let running = Running { containerd: self, id };
        let arguments = [&["run", "-d", "--runtime", HARDENED], options, &[image, &running.id], program].concat();
        self.ctr(&arguments)?.ok()?;
        Ok(running)
    }

    /// The same, of a whole spec: its cgroup becomes the container's own.
    ///
    /// # Errors
    /// It does not start.
    pub fn start_spec(&self, spec: &serde_json::Value) -> Result<Running<'_>> {
        let id = self.id("box");
        let mut spec = spec.clone();
        spec["linux"]["cgroupsPath"] = format!("/{}/{id}", self.namespace).into();
        let file = self.home.join(format!("{id}.json"));
        fs::write(&file, spec.to_string())?;
        let config = file.display().to_string();
        let running = Running { containerd: self, id };
        self.ctr(&["run", "-d", "--runtime", HARDENED, "--config", &config, &running.id])?.ok()?;
        Ok(running)
    }

    /// The bundle of a container.
    #[must_use]
    pub fn bundle(&self, id: &str) -> PathBuf {
        self.home.join("state/io.containerd.runtime.v2.task").join(&self.namespace).join(id)
    }

    /// Pids of this containerd's shims, with their command lines.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn shims(&self) -> Result<BTreeMap<i32, String>> {
        let home = self.home.display().to_string();
        Ok(processes()?
            .into_iter()
            .filter(|(_, line)| line.contains("containerd-shim-hardened-v1") && line.contains(&home))
            .collect())
    }

    /// Where containerd keeps what is large, and tests too: an overlay's layers may lie there.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A folder that containers may be given. Under SELinux every container may use it.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn volume(&self) -> Result<PathBuf> {
        let volume = self.volumes.join(self.id("volume"));
        fs::create_dir_all(&volume)?;
        share(&volume)?;
        Ok(volume)
    }

    /// The files of the test image. Under SELinux a copy that every container may read.
    ///
    /// # Errors
    /// They cannot be copied.
    pub fn rootfs(&self) -> Result<PathBuf> {
        let files = repository().join("target/integration/rootfs");
        let root = self.home.join("rootfs");
        if !has_selinux() {
            return Ok(files);
        }
        let _copying = self.rootfs.lock().unwrap_or_else(PoisonError::into_inner);
        if root.exists() {
            return Ok(root);
        }
        run(Command::new("cp").arg("-a").arg(files).arg(&root), b"", Duration::from_secs(30))?.ok()?;
        share(&root)?;
        Ok(root)
    }

    /// Waits until nothing of a container is on the machine.
    ///
    /// # Errors
    /// Something is left: it is named.
    pub fn nothing_left(&self, id: &str) -> Result<()> {
        self.nothing_left_in(&self.namespace, id)
    }

    /// The same, for another of containerd's namespaces.
    pub(crate) fn nothing_left_in(&self, namespace: &str, id: &str) -> Result<()> {
        eventually(&format!("nothing is left of {id}"), || self.traces_in(namespace, id).is_ok_and(|t| t.is_empty()))
            .with_context(|| {
                let log = fs::read_to_string(self.home.join("log")).unwrap_or_default();
                let told: Vec<&str> = log.lines().filter(|line| line.contains(id)).rev().take(10).collect();
                format!("{:#?}, containerd's last words: {told:#?}", self.traces_in(namespace, id).unwrap_or_default())
            })
    }

    /// Everything on the machine that belongs to a container: what must be empty when it is gone.
    ///
    /// # Errors
    /// `/proc` or `/sys` cannot be read.
    pub fn traces(&self, id: &str) -> Result<Vec<String>> {
        self.traces_in(&self.namespace, id)
    }

    fn traces_in(&self, namespace: &str, id: &str) -> Result<Vec<String>> {
        let mut traces = self.files_of(namespace, id)?;
        traces.extend(self.shims()?.into_values().filter(|line| line.contains(&format!("-id {id} "))));
        Ok(traces)
    }

    /// Those that are no processes.
    pub(crate) fn files_of(&self, namespace: &str, id: &str) -> Result<Vec<String>> {
        let mut traces = Vec::new();
        let bundle = self.home.join("state/io.containerd.runtime.v2.task").join(namespace).join(id);
        for folder in [bundle, Path::new("/run/hardened").join(namespace).join(id)] {
            if folder.exists() {
                traces.push(folder.display().to_string());
            }
        }
        let wanted = format!("/{id}");
        for line in fs::read_to_string("/proc/self/mounts")?.lines() {
            if line.contains(&format!("{wanted}/")) {
                traces.push(format!("mount {line}"));
            }
        }
        for controller in fs::read_dir("/sys/fs/cgroup")?.flatten() {
            let folder = controller.path().join(&self.namespace).join(id);
            if folder.exists() {
                traces.push(folder.display().to_string());
            }
        }
        if has_cgroup_v2() {
            traces.extend(folders_named(Path::new("/sys/fs/cgroup"), id));
        }
        Ok(traces)
    }
}

/// Whether this kernel has cgroup v2 only.
#[must_use]
pub fn has_cgroup_v2() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// The cgroup of a process: its folder of a v1 controller, or of v2.
///
/// # Errors
/// The process is gone, or has no such cgroup.
pub fn cgroup_of(pid: i32, controller: &str) -> Result<PathBuf> {
    let controller = if has_cgroup_v2() { "" } else { controller };
    let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let of = |line: &&str| line.split(':').nth(1).is_some_and(|names| names.split(',').any(|n| n == controller));
    let path = cgroups.lines().find(of).and_then(|line| line.splitn(3, ':').nth(2)).context("no such cgroup")?;
    Ok(Path::new("/sys/fs/cgroup").join(controller).join(path.trim_start_matches('/')))
}

/// Whether a process of the host, with all its capabilities, can write to a device once it is in
/// this cgroup.
///
/// # Errors
/// It fails for another reason than the cgroup's device rules.
pub fn opens_in(cgroup: &Path, device: &str) -> Result<bool> {
    let script = format!("echo $$ >{}/cgroup.procs && exec 3>{device}", cgroup.display());
    let out = Command::new("sh").args(["-c", &script]).output()?;
    let error = String::from_utf8_lossy(&out.stderr);
    ensure!(out.status.success() || error.contains("Operation not permitted"), "{device}: {error}");
    Ok(out.status.success())
}

/// The SELinux label of files that every container may use.
pub const SHARED: &str = "system_u:object_r:container_file_t:s0";

/// Sets the SELinux label of a file, or of a symbolic link itself.
///
/// # Errors
/// The kernel refuses.
pub fn label_file(path: &Path, label: &str) -> Result<()> {
    let file = CString::new(path.as_os_str().as_bytes())?;
    let label = CString::new(label)?;
    let value = label.as_bytes_with_nul();
    // SAFETY: the strings end in NUL, and the value is as long as said.
    let set =
        unsafe { libc::lsetxattr(file.as_ptr(), c"security.selinux".as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    ensure!(set == 0, "label {}: {}", path.display(), std::io::Error::last_os_error());
    Ok(())
}

/// Lets every container use a file, or a folder and all in it, where the kernel runs SELinux.
///
/// # Errors
/// The kernel refuses.
pub fn share(path: &Path) -> Result<()> {
    if !has_selinux() {
        return Ok(());
    }
    label_file(path, SHARED)?;
    if fs::symlink_metadata(path)?.is_dir() {
        for entry in fs::read_dir(path)? {
            share(&entry?.path())?;
        }
    }
    Ok(())
}

/// Folders below with this in their names: systemd's scopes of a container.
fn folders_named(root: &Path, id: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if entry.file_name().to_string_lossy().contains(id) {
            found.push(entry.path().display().to_string());
        }
        found.extend(folders_named(&entry.path(), id));
    }
    found
}

/// Whether the kernel runs AppArmor.
#[must_use]
pub fn has_apparmor() -> bool {
    Path::new("/sys/kernel/security/apparmor/profiles").exists()
}

/// Whether the kernel runs SELinux, and enforces its policy.
#[must_use]
pub fn has_selinux() -> bool {
    fs::read_to_string("/sys/fs/selinux/enforce").is_ok_and(|on| on.trim() == "1")
}

/// Whether the file system of containerd's images has id-mapped mounts: tmpfs has from Linux 6.3 on,
/// and disks' have longer than Landlock's least ABI.
#[must_use]
pub fn maps_owners() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let kind = Command::new("stat").args(["-f", "-c", "%T"]).arg(test_root().parent().unwrap_or(&test_root())).output();
    kind.is_ok_and(|kind| kind.stdout != b"tmpfs\n") || (numbers.next(), numbers.next()) >= (Some(6), Some(3))
}

/// Parent of a process.
#[must_use]
pub fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command in parentheses may hold anything, more of them too.
    stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok()
}

/// Every process and its command line.
///
/// # Errors
/// `/proc` cannot be read.
pub fn processes() -> Result<BTreeMap<i32, String>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        if let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            all.insert(pid, String::from_utf8_lossy(&line).replace('\0', " "));
        }
    }
    Ok(all)
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let report = |what: &str, result: Result<()>| {
            if let Err(error) = result {
                eprintln!("{what}: {error:#}");
            }
        };
        let all = || -> Result<()> {
            for id in self.ctr(&["tasks", "ls", "-q"])?.text().lines() {
                self.ctr(&["tasks", "delete", "-f", id])?;
            }
            self.shut_down()?;
            for pid in self.shims()?.into_keys() {
                // SAFETY: takes numbers only; the pid is of a shim that this containerd started.
                unsafe { libc::kill(pid, libc::SIGKILL) };
            }
            for line in fs::read_to_string("/proc/self/mounts")?.lines().rev() {
                let at = line.split(' ').nth(1).unwrap_or_default();
                if [&self.home, &self.root, &self.volumes].iter().any(|folder| Path::new(at).starts_with(folder)) {
                    Command::new("umount").args(["-l", at]).status()?;
                }
            }
            Ok(())
        };
        report("tear down containerd", all());
        if std::env::var_os("HARDENED_KEEP").is_none() {
            report("remove its root", fs::remove_dir_all(&self.root).map_err(Into::into));
            if self.volumes.exists() {
                report("remove its volumes", fs::remove_dir_all(&self.volumes).map_err(Into::into));
            }
            report("remove its folder", fs::remove_dir_all(&self.home).map_err(Into::into));
        }
        // Records outlive containers. Those of pods are in one containerd namespace, whichever daemon it is.
        let of_pods = self.purpose == Use::Cri;
        for record in fs::read_dir("/run/hardened/events").into_iter().flatten().flatten() {
            let name = record.file_name().to_string_lossy().into_owned();
            if name.starts_with(&format!("{}.", self.namespace)) || (of_pods && name.starts_with("k8s.io.")) {
                drop(fs::remove_file(record.path()));
            }
        }
        drop(fs::remove_dir("/run/hardened/events"));
        for controller in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            // Empty by now; where it is not, the next run says so.
            drop(fs::remove_dir(controller.path().join(&self.namespace)));
        }
    }
}

/// A container that is killed and deleted when dropped.
#[derive(Debug)]
pub struct Running<'a> {
    containerd: &'a Containerd,
    id: String,
}

impl Running<'_> {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Runs a program in it.
    ///
    /// # Errors
    /// It takes longer than two minutes.
    pub fn exec(&self, program: &[&str]) -> Result<Output> {
        self.exec_with(&[], program, b"")
    }

    /// Runs a program in it, with options and standard input.
    ///
    /// # Errors
    /// It takes longer than two minutes.
    pub fn exec_with(&self, options: &[&str], program: &[&str], input: &[u8]) -> Result<Output> {
        let exec_id = self.containerd.id("exec");
        let arguments = [&["tasks", "exec", "--exec-id", &exec_id], options, &[&self.id], program].concat();
        self.containerd.ctr_with(&arguments, input)
    }

    /// Its status, as `ctr tasks ls` says it.
    ///
    /// # Errors
    /// containerd does not answer.
    pub fn status(&self) -> Result<String> {
        let list = self.containerd.ctr(&["tasks", "ls"])?.ok()?.text();
        let line = list.lines().find(|l| l.split_whitespace().next() == Some(&self.id));
        Ok(line.and_then(|l| l.split_whitespace().nth(2)).unwrap_or("GONE").to_owned())
    }

    /// Pid of its init.
    ///
    /// # Errors
    /// It has none.
    pub fn pid(&self) -> Result<i32> {
        let list = self.containerd.ctr(&["tasks", "ls"])?.ok()?.text();
        let line = list.lines().find(|l| l.split_whitespace().next() == Some(&self.id)).context("no task")?;
        line.split_whitespace().nth(1).and_then(|p| p.parse().ok()).context("no pid")
    }

    /// Pid of its shim.
    ///
    /// # Errors
    /// It has none.
    pub fn shim(&self) -> Result<i32> {
        let shims = self.containerd.shims()?;
        shims.into_iter().find(|(_, line)| line.contains(&self.id)).map(|(pid, _)| pid).context("no shim")
    }

    /// Kills and deletes it.
    ///
    /// # Errors
    /// containerd does not.
    pub fn remove(self) -> Result<()> {
        let (containerd, id) = (self.containerd, self.id.clone());
        drop(self);
        containerd.nothing_left(&id)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        for arguments in [&["tasks", "delete", "-f", &self.id][..], &["containers", "delete", &self.id]] {
            // Gone already, where the test removed it.
            drop(self.containerd.ctr(arguments));
        }
    }
}
