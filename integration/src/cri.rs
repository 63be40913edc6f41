//! containerd's CRI, driven over gRPC as the kubelet drives it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};
use hyper_util::rt::TokioIo;
use k8s_cri::v1 as cri;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

use crate::{Containerd, Generation, IMAGE};

/// The runtime handler that a RuntimeClass names.
pub const HANDLER: &str = "hardened";

/// The same runtime, without options: its policy is the node's.
pub const PLAIN_HANDLER: &str = "hardened-plain";

/// The user namespace of a pod with `hostUsers: false`: a range of ids that no other pod has, as the
/// kubelet gives them out. (containerd 1.7 makes two copies of an image for one range, if they are
/// wanted at once, and fails.)
#[must_use]
pub fn new_users() -> cri::UserNamespace {
    static PODS: AtomicU32 = AtomicU32::new(3);
    let host_id = PODS.fetch_add(1, Ordering::Relaxed) << 16;
    let ids = || vec![cri::IdMapping { host_id, container_id: 0, length: 65536 }];
    cri::UserNamespace { mode: cri::NamespaceMode::Pod.into(), uids: ids(), gids: ids() }
}

/// The user namespace that a pod asks for.
#[must_use]
pub fn users_of(config: &cri::PodSandboxConfig) -> Option<&cri::UserNamespace> {
    config.linux.as_ref()?.security_context.as_ref()?.namespace_options.as_ref()?.userns_options.as_ref()
}

/// A containerd with its CRI on, in a network namespace of its own.
#[derive(Debug)]
pub struct Cri {
    containerd: Containerd,
    runtime: Runtime,
    client: RuntimeServiceClient<Channel>,
    attempts: AtomicU32,
}

impl Cri {
    /// Starts one, with an empty policy.
    ///
    /// # Errors
    /// Something that `scripts/setup` and `scripts/test` make is missing.
    pub fn start(generation: Generation) -> Result<Self> {
        Self::connect(Containerd::start_for_cri(generation, generation.name())?)
    }

    /// Starts another of the same generation, for a test that restarts it.
    ///
    /// # Errors
    /// As [`Cri::start`].
    pub fn start_beside(other: &Self) -> Result<Self> {
        let generation = other.containerd.generation();
        Self::connect(Containerd::start_for_cri(generation, &other.containerd.id(generation.name()))?)
    }

    fn connect(containerd: Containerd) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let socket = containerd.home().join("c.sock");
        let connect = service_fn(move |_: Uri| {
            let socket = socket.clone();
            async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(socket).await?)) }
        });
        let endpoint = Endpoint::try_from("http://[::]")?;
        let channel = runtime.block_on(async { endpoint.connect_with_connector(connect).await })?;
        let client = RuntimeServiceClient::new(channel);
        Ok(Self { containerd, runtime, client, attempts: AtomicU32::new(0) })
    }

    /// The daemon.
    #[must_use]
    pub const fn containerd(&self) -> &Containerd {
        &self.containerd
    }

    /// Puts a policy in place of the one that is there.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn set_policy(&self, text: &str) -> Result<()> {
        Ok(fs::write(policy_folder(self.containerd.home()).join("policy.toml"), text)?)
    }

    /// Any call of the runtime service.
    ///
    /// # Errors
    /// What containerd answers.
    pub fn call<T, F>(&self, call: impl FnOnce(RuntimeServiceClient<Channel>) -> F) -> Result<T>
    where
        F: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        let limit = std::time::Duration::from_secs(60) * crate::patience();
        let answered = self.runtime.block_on(async { tokio::time::timeout(limit, call(self.client.clone())).await });
        let answer = answered.context("no answer from the CRI")?;
        Ok(answer.map_err(|status| anyhow::anyhow!("{:?}: {}", status.code(), status.message()))?.into_inner())
    }

    /// The configuration of a pod of its own name.
    #[must_use]
    pub fn pod_config(&self, name: &str) -> cri::PodSandboxConfig {
        let attempt = self.attempts.fetch_add(1, Ordering::Relaxed);
        let name = format!("{name}-{attempt}");
        let logs = self.containerd.home().join("logs").join(&name);
        cri::PodSandboxConfig {
            metadata: Some(cri::PodSandboxMetadata {
                name: name.clone(),
                uid: format!("uid-{}-{attempt}", std::process::id()),
                namespace: "shop".to_owned(),
                attempt: 0,
            }),
            hostname: name,
            log_directory: logs.display().to_string(),
            linux: Some(cri::LinuxPodSandboxConfig {
                cgroup_parent: if with_systemd() {
                    format!("{}.slice", self.containerd.namespace())
                } else {
                    format!("/{}", self.containerd.namespace())
                },
                security_context: Some(cri::LinuxSandboxSecurityContext {
                    namespace_options: Some(cri::NamespaceOption {
                        pid: cri::NamespaceMode::Container.into(),
                        ..cri::NamespaceOption::default()
                    }),
                    seccomp: Some(runtime_default()),
                    ..cri::LinuxSandboxSecurityContext::default()
                }),
                ..cri::LinuxPodSandboxConfig::default()
            }),
            ..cri::PodSandboxConfig::default()
        }
    }

    /// RunPodSandbox with our runtime handler. A pod with a user namespace gets the one without
    /// options, and so the policy of `/etc/hardened`: containerd 2.1 takes all options for runc's
    /// then.
    ///
    /// # Errors
    /// What containerd answers.
    pub fn run_pod(&self, config: cri::PodSandboxConfig) -> Result<Pod<'_>> {
        let plain = users_of(&config).is_some() && self.containerd().generation() == Generation::Two;
        self.run_pod_by(if plain { PLAIN_HANDLER } else { HANDLER }, config)
    }

    /// RunPodSandbox with a runtime handler.
    ///
    /// # Errors
    /// What containerd answers.
    pub fn run_pod_by(&self, handler: &str, config: cri::PodSandboxConfig) -> Result<Pod<'_>> {
        fs::create_dir_all(&config.log_directory)?;
        let runtime_handler = handler.to_owned();
        let request = cri::RunPodSandboxRequest { config: Some(config.clone()), runtime_handler };
        let answer = self.call(|mut client| async move { client.run_pod_sandbox(request).await })?;
        Ok(Pod { cri: self, id: answer.pod_sandbox_id, config })
    }

    /// A pod with nothing special about it.
    ///
    /// # Errors
    /// What containerd answers.
    pub fn pod(&self, name: &str) -> Result<Pod<'_>> {
        self.run_pod(self.pod_config(name))
    }
}

/// Whether cgroups are systemd's to make, as on most nodes.
#[must_use]
pub fn with_systemd() -> bool {
    fs::read_to_string("/proc/1/comm").is_ok_and(|name| name.trim() == "systemd") && crate::has_cgroup_v2()
}

/// Where a test's policy is.
pub(crate) fn policy_folder(home: &Path) -> PathBuf {
    home.join("policy")
}

/// `seccompProfile: {type: RuntimeDefault}`.
#[must_use]
pub fn runtime_default() -> cri::SecurityProfile {
    cri::SecurityProfile {
        profile_type: cri::security_profile::ProfileType::RuntimeDefault.into(),
        localhost_ref: String::new(),
    }
}

/// A pod, stopped and removed when dropped.
#[derive(Debug)]
pub struct Pod<'a> {
    cri: &'a Cri,
    id: String,
    config: cri::PodSandboxConfig,
}

/// The configuration of a container with this program.
#[must_use]
pub fn container_config(name: &str, program: &[&str]) -> cri::ContainerConfig {
    cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata { name: name.to_owned(), attempt: 0 }),
        image: Some(cri::ImageSpec { image: IMAGE.to_owned(), ..cri::ImageSpec::default() }),
        command: program.iter().map(|s| (*s).to_owned()).collect(),
        log_path: format!("{name}.log"),
        linux: Some(cri::LinuxContainerConfig {
            security_context: Some(cri::LinuxContainerSecurityContext {
                namespace_options: Some(cri::NamespaceOption {
                    pid: cri::NamespaceMode::Container.into(),
                    ..cri::NamespaceOption::default()
                }),
                seccomp: Some(runtime_default()),
                masked_paths: ["/proc/acpi", "/proc/kcore", "/proc/keys", "/sys/firmware"].map(str::to_owned).to_vec(),
                readonly_paths: ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"].map(str::to_owned).to_vec(),
                ..cri::LinuxContainerSecurityContext::default()
            }),
            ..cri::LinuxContainerConfig::default()
        }),
        ..cri::ContainerConfig::default()
    }
}

/// The security context of a container's configuration.
pub fn security(config: &mut cri::ContainerConfig) -> &mut cri::LinuxContainerSecurityContext {
    config.linux.get_or_insert_default().security_context.get_or_insert_default()
}

impl<'a> Pod<'a> {
    /// The sandbox's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What it was made from.
    #[must_use]
    pub const fn config(&self) -> &cri::PodSandboxConfig {
        &self.config
    }

    /// CreateContainer; its id.
    ///
    /// # Errors
    /// What containerd answers.
    pub fn create(&self, config: cri::ContainerConfig) -> Result<String> {
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: self.id.clone(),
            config: Some(config),
            sandbox_config: Some(self.config.clone()),
        };
        Ok(self.cri.call(|mut client| async move { client.create_container(request).await })?.container_id)
    }

    /// StartContainer.
    ///
    /// # Errors
    /// What containerd answers: a refusal too.
    pub fn start(&self, container: &str) -> Result<()> {
        let request = cri::StartContainerRequest { container_id: container.to_owned() };
        self.cri.call(|mut client| async move { client.start_container(request).await })?;
        Ok(())
    }

    /// Both; the container's id.
    ///
    /// # Errors
    /// What containerd answers.
    pub fn run(&self, config: cri::ContainerConfig) -> Result<String> {
        let id = self.create(config)?;
        self.start(&id)?;
        Ok(id)
    }

    /// ExecSync: a probe.
    ///
    /// # Errors
    /// What containerd answers.
    pub fn exec(&self, container: &str, program: &[&str]) -> Result<cri::ExecSyncResponse> {
        let request = cri::ExecSyncRequest {
            container_id: container.to_owned(),
            cmd: program.iter().map(|s| (*s).to_owned()).collect(),
            timeout: 20,
        };
        self.cri.call(|mut client| async move { client.exec_sync(request).await })
    }

    /// ContainerStatus.
    ///
    /// # Errors
    /// What containerd answers.
    pub fn status(&self, container: &str) -> Result<cri::ContainerStatus> {
        let request = cri::ContainerStatusRequest { container_id: container.to_owned(), verbose: false };
        let answer = self.cri.call(|mut client| async move { client.container_status(request).await })?;
        answer.status.context("no status")
    }

    /// Waits for a container's end.
    ///
    /// # Errors
    /// It does not end.
    pub fn wait(&self, container: &str) -> Result<cri::ContainerStatus> {
        let exited = i32::from(cri::ContainerState::ContainerExited);
        crate::eventually("the container ends", || self.status(container).is_ok_and(|s| s.state == exited))?;
        self.status(container)
    }

    /// StopContainer.
    ///
    /// # Errors
    /// What containerd answers.
    pub fn stop(&self, container: &str, timeout: i64) -> Result<()> {
        let request = cri::StopContainerRequest { container_id: container.to_owned(), timeout };
        self.cri.call(|mut client| async move { client.stop_container(request).await })?;
        Ok(())
    }

    /// What a container has logged: its standard output and error, without the CRI's prefixes.
    ///
    /// # Errors
    /// There is no log.
    pub fn log(&self, name: &str) -> Result<String> {
        let file = Path::new(&self.config.log_directory).join(format!("{name}.log"));
        let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        // 2026-01-01T00:00:00Z stdout F text
        let lines = text.lines().map(|line| line.splitn(4, ' ').nth(3).unwrap_or_default());
        Ok(lines.collect::<Vec<_>>().join("\n"))
    }

    /// StopPodSandbox and RemovePodSandbox, after which nothing may be left.
    ///
    /// # Errors
    /// What containerd answers, or something is left.
    pub fn remove(self) -> Result<()> {
        let (containerd, id) = (&self.cri.containerd, self.id.clone());
        self.stop_and_remove()?;
        std::mem::forget(self);
        containerd.nothing_left_in("k8s.io", &id)
    }

    fn stop_and_remove(&self) -> Result<()> {
        let request = cri::StopPodSandboxRequest { pod_sandbox_id: self.id.clone() };
        self.cri.call(|mut client| async move { client.stop_pod_sandbox(request).await })?;
        let request = cri::RemovePodSandboxRequest { pod_sandbox_id: self.id.clone() };
        self.cri.call(|mut client| async move { client.remove_pod_sandbox(request).await })?;
        Ok(())
    }
}

impl Drop for Pod<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.stop_and_remove() {
            eprintln!("remove pod {}: {error:#}", self.id);
        }
    }
}
