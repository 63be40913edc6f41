//! Pods, as the kubelet makes them through containerd's CRI.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use hardened_integration::cri::{Cri, HANDLER, Pod, container_config, security, with_systemd};
use hardened_integration::kubelet::Subpath;
use hardened_integration::{Generation, STRICT, cgroup_of, eventually, has_cgroup_v2, opens_in};
use k8s_cri::v1 as cri;

crate::pod_tests!(
    a_pod_lives_and_leaves_nothing,
    probes_and_hooks_run_in_the_sandbox,
    kubectl_exec_streams_both_ways,
    kubectl_attach_sees_the_entrypoint,
    ports_are_forwarded,
    a_crash_an_exit_and_a_signal_are_reported,
    an_oom_kill_is_reported,
    resources_are_updated_in_place,
    stats_are_reported,
    cgroups_are_seen_from_the_inside_and_not_changed,
    privileged_is_refused_in_the_pods_words,
    what_a_pod_may_not_have_of_the_host_is_refused,
    a_rule_of_the_policy_lets_a_namespace_have_more,
    paths_of_the_host_are_judged,
    volumes_of_the_kubelet_work,
    a_part_of_the_host_is_not_a_volumes_part,
    an_image_is_a_volume,
    containerd_does_not_ask_what_is_offered,
    mounts_do_not_propagate_out,
    identity_is_the_pods,
    allow_privilege_escalation_is_tightened,
    a_read_only_root_and_added_capabilities,
    seccomp_profiles_narrow_and_never_widen,
    devices_of_the_host_are_refused,
    an_image_with_a_user_and_a_script_runs_as_it_says,
    sysctls_safe_and_unsafe,
    processes_are_shared_where_the_pod_says_so,
    a_debug_container_joins_a_running_pod,
    annotations_of_a_pod_reach_every_container,
    output_to_dev_stdout_is_logged,
    a_container_is_restarted_after_its_end,
    pods_survive_a_restart_of_containerd,
    fifty_pods_come_and_go,
);

/// Runs a shell in a container of its own pod, to its end; its exit code and log.
pub(crate) fn run_in(pod: &Pod<'_>, config: cri::ContainerConfig) -> Result<(i32, String)> {
    let name = config.metadata.clone().unwrap_or_default().name;
    let id = pod.run(config)?;
    let status = pod.wait(&id)?;
    Ok((status.exit_code, pod.log(&name)?))
}

pub(crate) fn shell(name: &str, program: &str) -> cri::ContainerConfig {
    container_config(name, &["sh", "-c", program])
}

/// The answer to a container that must not start.
pub(crate) fn refused(pod: &Pod<'_>, config: cri::ContainerConfig) -> Result<String> {
    let id = pod.create(config)?;
    let error = pod.start(&id).err().context("it was started")?;
    Ok(format!("{error:#}"))
}

pub(crate) fn contains(text: &str, words: &[&str]) -> Result<()> {
    words.iter().try_for_each(|word| {
        ensure!(text.contains(word), "{word:?} is not in: {text}");
        Ok(())
    })
}

pub(crate) fn volume(host: &Path, at: &str, readonly: bool) -> cri::Mount {
    cri::Mount {
        container_path: at.to_owned(),
        host_path: host.display().to_string(),
        readonly,
        // As the kubelet asks for with volumes of its own.
        selinux_relabel: host.to_string_lossy().contains("/kubelet/pods/"),
        ..cri::Mount::default()
    }
}

/// A folder that the kubelet would keep for this pod.
pub(crate) fn kubelet(c: &Cri, pod: &Pod<'_>, what: &str) -> Result<PathBuf> {
    let uid = &pod.config().metadata.as_ref().context("metadata")?.uid;
    let folder = c.containerd().home().join("kubelet/pods").join(uid).join(what);
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

fn subpath(c: &Cri, pod: &Pod<'_>, name: &str, part: &Path) -> Result<Subpath> {
    Subpath::mount(part, kubelet(c, pod, "volume-subpaths")?.join(name))
}

fn a_pod_lives_and_leaves_nothing(c: &Cri) -> Result<()> {
    let pod = c.pod("whole")?;
    let init = pod.run(shell("init", "echo prepared; exit 0"))?;
    ensure!(pod.wait(&init)?.exit_code == 0);
    ensure!(pod.log("init")? == "prepared", "{}", pod.log("init")?);
    let app = pod.run(shell("app", "echo serving; exec sleep 1000"))?;
    let sidecar = pod.run(container_config("sidecar", &["sleep", "1000"]))?;
    for container in [&app, &sidecar] {
        ensure!(pod.status(container)?.state == i32::from(cri::ContainerState::ContainerRunning));
    }
    let probe =
        pod.exec(&app, &["sh", "-c", "grep -E '^(Seccomp:|NoNewPrivs)' /proc/self/status; ip -4 addr show eth0"])?;
    let text = String::from_utf8_lossy(&probe.stdout);
    ensure!(probe.exit_code == 0 && text.contains("Seccomp:\t2") && text.contains("10.88."), "{text}");
    pod.remove()
}

fn probes_and_hooks_run_in_the_sandbox(c: &Cri) -> Result<()> {
    let pod = c.pod("probes")?;
    let app =
        pod.run(shell("app", "trap 'echo stopping; exit 3' TERM; touch /tmp/ready; while :; do sleep 0.1; done"))?;
    // postStart and readiness; a probe that fails; one that takes too long.
    eventually("it is ready", || pod.exec(&app, &["cat", "/tmp/ready"]).is_ok_and(|o| o.exit_code == 0))?;
    ensure!(pod.exec(&app, &["sh", "-c", "exit 7"])?.exit_code == 7);
    let out = pod.exec(&app, &["hardened-probe", "ptrace own child", "mount tmpfs", "unshare CLONE_NEWUSER"])?;
    ensure!(String::from_utf8_lossy(&out.stdout).matches("\"denied\"").count() == 3, "{out:?}");
    let request =
        cri::ExecSyncRequest { container_id: app.clone(), cmd: vec!["sleep".into(), "60".into()], timeout: 1 };
    let late = c.call(|mut client| async move { client.exec_sync(request).await });
    ensure!(late.err().is_some_and(|e| format!("{e:#}").contains("DeadlineExceeded")));
    // preStop, then the signal of termination.
    ensure!(pod.exec(&app, &["sh", "-c", "kill -0 1"])?.exit_code == 0);
    pod.stop(&app, 10)?;
    ensure!(pod.status(&app)?.exit_code == 3 && pod.log("app")?.ends_with("stopping"), "{:?}", pod.status(&app)?);
    pod.remove()
}

/// A stream of the kubelet's kind, over the protocol that it speaks to `kubectl`: one channel a
/// stream, its number in the first byte (Kubernetes `remotecommand`, `v4.channel.k8s.io`).
pub(crate) struct Stream(tungstenite::WebSocket<std::net::TcpStream>);

impl Stream {
    /// containerd streams in a network namespace of its own; a socket stays in the one that it was
    /// made in.
    pub(crate) fn open(c: &Cri, url: &str, protocol: &str) -> Result<Self> {
        let namespace = fs::File::open(format!("/proc/{}/ns/net", c.containerd().pid()?))?;
        let address = url.trim_start_matches("http://").split('/').next().unwrap_or_default().to_owned();
        // A separate thread joins it, and ends there.
        let connected = std::thread::scope(|scope| {
            let connect = scope.spawn(|| {
                // SAFETY: takes numbers only; the thread goes to no other place afterwards.
                let entered = unsafe { libc::setns(std::os::fd::AsRawFd::as_raw_fd(&namespace), libc::CLONE_NEWNET) };
                ensure!(entered == 0, "setns: {}", std::io::Error::last_os_error());
                Ok(std::net::TcpStream::connect(&address)?)
            });
            connect.join().unwrap_or_else(|_| Err(anyhow::anyhow!("connecting panicked")))
        })?;
        connected.set_read_timeout(Some(std::time::Duration::from_secs(20)))?;
        let request = tungstenite::http::Request::get(url.replacen("http://", "ws://", 1))
            .header("Host", &address)
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", tungstenite::handshake::client::generate_key())
            .header("Sec-WebSocket-Protocol", protocol)
            .body(())?;
        let (socket, _) = tungstenite::client(request, connected).map_err(|e| anyhow::anyhow!("{e}"))?;
        Ok(Self(socket))
    }

    pub(crate) fn send(&mut self, channel: u8, data: &[u8]) -> Result<()> {
        Ok(self.0.send(tungstenite::Message::binary([&[channel], data].concat()))?)
    }

    /// Reads until a channel has said so much, or the stream ends.
    pub(crate) fn read_until(&mut self, channel: u8, words: &str) -> Result<String> {
        let mut said = Vec::new();
        while !String::from_utf8_lossy(&said).contains(words) {
            let message = self.0.read().with_context(|| format!("after {:?}", String::from_utf8_lossy(&said)))?;
            let data = message.into_data();
            if data.first() == Some(&channel) {
                said.extend_from_slice(&data[1..]);
            }
        }
        Ok(String::from_utf8_lossy(&said).into_owned())
    }
}

pub(crate) const CHANNELS: &str = "v4.channel.k8s.io";

/// `kubectl exec -i`, or `-it`.
pub(crate) fn exec_stream(c: &Cri, container: &str, tty: bool, program: &[&str]) -> Result<Stream> {
    let request = cri::ExecRequest {
        container_id: container.to_owned(),
        cmd: program.iter().map(|s| (*s).to_owned()).collect(),
        tty,
        stdin: true,
        stdout: true,
        stderr: !tty,
    };
    let answer = c.call(|mut client| async move { client.exec(request).await })?;
    Stream::open(c, &answer.url, CHANNELS)
}

fn kubectl_exec_streams_both_ways(c: &Cri) -> Result<()> {
    let pod = c.pod("exec")?;
    let app = pod.run(container_config("app", &["sleep", "1000"]))?;
    let program = ["sh", "-c", "read a; echo got $a; echo bad >&2; exit 3"];
    let mut stream = exec_stream(c, &app, false, &program)?;
    stream.send(0, b"hello\n")?;
    ensure!(stream.read_until(1, "\n")? == "got hello\n");
    // The exit code comes on the error channel.
    let end = stream.read_until(3, "}")?;
    ensure!(end.contains("\"ExitCode\"") && end.contains("\"3\""), "{end}");

    let mut stream = exec_stream(c, &app, true, &["sh"])?;
    stream.send(4, b"{\"Width\":132,\"Height\":43}")?;
    stream.send(0, b"stty size; hardened-probe 'ptrace own child'; exit\n")?;
    let said = stream.read_until(1, "\"denied\"")?;
    contains(&said, &["43 132"])?;
    pod.remove()
}

fn kubectl_attach_sees_the_entrypoint(c: &Cri) -> Result<()> {
    let pod = c.pod("attach")?;
    let mut config = shell("app", "while read a; do echo heard $a; done; echo ended");
    (config.stdin, config.stdin_once) = (true, true);
    let app = pod.run(config)?;
    let request = cri::AttachRequest { container_id: app.clone(), stdin: true, tty: false, stdout: true, stderr: true };
    let answer = c.call(|mut client| async move { client.attach(request).await })?;
    let mut stream = Stream::open(c, &answer.url, CHANNELS)?;
    stream.send(0, b"a word\n")?;
    ensure!(stream.read_until(1, "word\n")? == "heard a word\n");
    // Input that is for one client ends with it.
    drop(stream);
    ensure!(pod.wait(&app)?.exit_code == 0);
    ensure!(pod.log("app")?.ends_with("ended"), "{}", pod.log("app")?);
    pod.remove()
}

fn ports_are_forwarded(c: &Cri) -> Result<()> {
    let pod = c.pod("forward")?;
    pod.run(shell("app", "while :; do nc -l -p 8080 -e echo through; done"))?;
    let mut said = Err(anyhow::anyhow!("never tried"));
    // The server may not listen yet, and an address is good for one try.
    for _ in 0..20 {
        let request = cri::PortForwardRequest { pod_sandbox_id: pod.id().to_owned(), port: vec![8080] };
        let answer = c.call(|mut client| async move { client.port_forward(request).await })?;
        let mut stream = Stream::open(c, &format!("{}?port=8080", answer.url), CHANNELS)?;
        said = stream.read_until(0, "through");
        if said.is_ok() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    ensure!(said?.contains("through"));
    pod.remove()
}

fn a_crash_an_exit_and_a_signal_are_reported(c: &Cri) -> Result<()> {
    let pod = c.pod("ends")?;
    for (name, program, code, reason) in [
        ("done", "exit 0", 0, "Completed"),
        ("failed", "exit 9", 9, "Error"),
        ("killed", "kill -ABRT $$; sleep 9", 134, "Error"),
    ] {
        let program = if name == "killed" { "sh -c 'kill -ABRT $$'; exit $?" } else { program };
        let id = pod.run(shell(name, program))?;
        let status = pod.wait(&id)?;
        ensure!(status.exit_code == code && status.reason == reason, "{name}: {status:?}");
    }
    let id = pod.create(container_config("none", &["/no/such/program"]))?;
    let error = format!("{:#}", pod.start(&id).err().context("it was started")?);
    contains(&error, &["\"/no/such/program\" does not exist in the container"])?;
    pod.remove()
}

fn an_oom_kill_is_reported(c: &Cri) -> Result<()> {
    let pod = c.pod("oom")?;
    let mut config = shell("eats", "x=$(head -c 80000000 /dev/zero | tr '\\0' x)");
    let resources = cri::LinuxContainerResources { memory_limit_in_bytes: 16 << 20, ..Default::default() };
    config.linux.get_or_insert_default().resources = Some(resources);
    let id = pod.run(config)?;
    pod.wait(&id)?;
    eventually("its reason is OOMKilled", || pod.status(&id).is_ok_and(|s| s.reason == "OOMKilled"))?;
    pod.remove()
}

fn resources_are_updated_in_place(c: &Cri) -> Result<()> {
    let pod = c.pod("resize")?;
    let app = pod.run(container_config("app", &["sleep", "1000"]))?;
    let linux = cri::LinuxContainerResources { memory_limit_in_bytes: 48 << 20, cpu_shares: 512, ..Default::default() };
    let request = cri::UpdateContainerResourcesRequest {
        container_id: app.clone(),
        linux: Some(linux),
        ..cri::UpdateContainerResourcesRequest::default()
    };
    c.call(|mut client| async move { client.update_container_resources(request).await })?;
    let file = if has_cgroup_v2() { "memory.max" } else { "memory.limit_in_bytes" };
    let limit = fs::read_to_string(cgroup_of(init(&app)?, "memory")?.join(file))?.trim().to_owned();
    ensure!(limit == (48 << 20).to_string(), "{limit}");
    pod.remove()
}

/// The pid of a container's init on the host.
pub(crate) fn init(id: &str) -> Result<i32> {
    let record = fs::read_to_string(format!("/run/hardened/k8s.io/{id}/container.json"))?;
    let pid = serde_json::from_str::<serde_json::Value>(&record)?["pid"].as_i64();
    Ok(i32::try_from(pid.context("no pid")?)?)
}

fn stats_are_reported(c: &Cri) -> Result<()> {
    let pod = c.pod("stats")?;
    let app = pod.run(shell("app", "while :; do :; done"))?;
    eventually("it has used CPU and memory", || {
        let request = cri::ContainerStatsRequest { container_id: app.clone() };
        let stats = c.call(|mut client| async move { client.container_stats(request).await });
        let Ok(Some(stats)) = stats.map(|s| s.stats) else { return false };
        let cpu = stats.cpu.and_then(|c| c.usage_core_nano_seconds).map_or(0, |v| v.value);
        let memory = stats.memory.and_then(|m| m.working_set_bytes).map_or(0, |v| v.value);
        cpu > 0 && memory > 0
    })?;
    pod.remove()
}

/// cgroup v2 is delegated as far as a container may look: its own cgroup is the root, and read-only.
fn cgroups_are_seen_from_the_inside_and_not_changed(c: &Cri) -> Result<()> {
    if !has_cgroup_v2() {
        // containerd gives no cgroup namespace on v1; there, too, nothing can be written.
        let pod = c.pod("cgroups")?;
        let (status, log) = run_in(&pod, shell("app", "! mkdir /sys/fs/cgroup/memory/x && echo denied"))?;
        ensure!(status == 0 && log.lines().any(|line| line == "denied"), "{log}");
        return pod.remove();
    }
    let pod = c.pod("cgroups")?;
    let mut config = shell(
        "app",
        "cat /proc/self/cgroup /sys/fs/cgroup/pids.max /sys/fs/cgroup/memory.max; \
         ! mkdir /sys/fs/cgroup/x && ! echo max > /sys/fs/cgroup/memory.max && echo denied",
    );
    let linux = config.linux.get_or_insert_default();
    linux.resources = Some(cri::LinuxContainerResources {
        memory_limit_in_bytes: 32 << 20,
        ..cri::LinuxContainerResources::default()
    });
    let (status, log) = run_in(&pod, config)?;
    let lines: Vec<&str> = log.lines().collect();
    ensure!(
        status == 0 && lines.contains(&"0::/") && lines.contains(&"33554432") && lines.contains(&"denied"),
        "{log}"
    );
    pod.remove()
}

fn privileged_is_refused_in_the_pods_words(c: &Cri) -> Result<()> {
    let mut config = c.pod_config("privileged");
    config.linux.get_or_insert_default().security_context.get_or_insert_default().privileged = true;
    let pod = c.run_pod(config)?;
    let mut config = container_config("web", &["true"]);
    let context = security(&mut config);
    context.privileged = true;
    context.masked_paths.clear();
    context.readonly_paths.clear();
    contains(
        &refused(&pod, config)?,
        &["hardened: privileged: true is refused by profile baseline (built in): \
             spec.containers[web].securityContext.privileged: the container is privileged -> set privileged: false"],
    )?;
    // Without privileged, and yet unmasked: procMount: Unmasked, or a client that knows no masks.
    let mut config = shell(
        "unmasked",
        "cat /proc/kallsyms 2>/dev/null | wc -c; echo x 2>/dev/null >/proc/sys/kernel/msgmax || echo read-only",
    );
    security(&mut config).masked_paths.clear();
    security(&mut config).readonly_paths.clear();
    let (_, log) = run_in(&pod, config)?;
    ensure!(log.lines().next() == Some("0") && log.contains("read-only"), "{log}");
    // The rest of the pod runs.
    ensure!(run_in(&pod, shell("plain", "echo fine"))? == (0, "fine".to_owned()));
    pod.remove()
}

pub(crate) fn host(config: &mut cri::PodSandboxConfig, change: impl Fn(&mut cri::NamespaceOption)) {
    let linux = config.linux.get_or_insert_default().security_context.get_or_insert_default();
    change(linux.namespace_options.get_or_insert_default());
}

type Change = fn(&mut cri::NamespaceOption);

const HOST: [(&str, Change); 3] = [
    ("spec.hostNetwork: the container would share the host's network", |n| n.network = cri::NamespaceMode::Node.into()),
    ("spec.hostPID: the container would share the host's pid", |n| n.pid = cri::NamespaceMode::Node.into()),
    ("spec.hostIPC: the container would share the host's ipc", |n| n.ipc = cri::NamespaceMode::Node.into()),
];

fn what_a_pod_may_not_have_of_the_host_is_refused(c: &Cri) -> Result<()> {
    for (words, change) in HOST {
        let mut config = c.pod_config("host");
        host(&mut config, change);
        let error = c.run_pod(config).err().with_context(|| format!("started, and not: {words}"))?;
        contains(&format!("{error:#}"), &[words])?;
    }
    Ok(())
}

/// Of another namespace than the tests that run beside it, under the one policy that they share.
fn a_rule_of_the_policy_lets_a_namespace_have_more(c: &Cri) -> Result<()> {
    c.set_policy(
        r#"
        [profile.host-access.host]
        namespaces = ["network", "pid", "ipc"]
        paths = { "/etc/hostname" = "read-only" }
        [[rule]]
        namespace = "system"
        image = "docker.io/hardened/*"
        profile = "host-access"
        [[rule]]
        namespace = "pinned"
        digest = "sha256:*"
        privileged = "allow"
        [profile.strict]
        seccomp.deny = ["mkdir", "mkdirat"]
        [[rule]]
        handler = "hardened-strict"
        profile = "strict"
        "#,
    )?;
    let of = |namespace: &str| {
        let mut config = c.pod_config("system");
        config.metadata.get_or_insert_default().namespace = namespace.to_owned();
        config
    };
    for (_, change) in HOST {
        let mut config = of("system");
        host(&mut config, change);
        // The kubelet gives none to a pod on the host's network.
        config.hostname.clear();
        let pod = c.run_pod(config.clone())?;
        let mut inner = shell("web", "echo inside");
        change(security(&mut inner).namespace_options.get_or_insert_default());
        inner.mounts = vec![volume(Path::new("/etc/hostname"), "/srv/name", true)];
        ensure!(run_in(&pod, inner)? == (0, "inside".to_owned()));
        pod.remove()?;
    }
    for (handler, made) in [(HANDLER, "made"), (STRICT, "denied")] {
        let pod = c.run_pod_by(handler, c.pod_config("handler"))?;
        for name in ["first", "second"] {
            let config = shell(name, "mkdir /tmp/x 2>/dev/null && echo made || echo denied");
            ensure!(run_in(&pod, config)? == (0, made.to_owned()), "{handler}: {name}");
        }
        pod.remove()?;
    }
    // A tag can be moved, so the rule by digest does not take it.
    let privileged = |name: &str, image: &str| {
        let mut config = shell(name, "mkdir /m && mount -t tmpfs x /m && echo mounted");
        // containerd 2 tells us what the pod's author wrote, and the kubelet has pulled just that;
        // 1.7 tells the name by which it found the image.
        let spec = config.image.get_or_insert_default();
        spec.image = image.to_owned();
        spec.user_specified_image = image.to_owned();
        let context = security(&mut config);
        context.privileged = true;
        context.seccomp = None;
        context.masked_paths.clear();
        context.readonly_paths.clear();
        config
    };
    let mut config = of("pinned");
    config.linux.get_or_insert_default().security_context.get_or_insert_default().privileged = true;
    let pod = c.run_pod(config)?;
    contains(&refused(&pod, privileged("tag", hardened_integration::IMAGE))?, &["securityContext.privileged"])?;
    let pinned = format!("docker.io/hardened/test@{}", c.containerd().digest(hardened_integration::IMAGE)?);
    c.containerd().ctr(&["-n", "k8s.io", "images", "tag", hardened_integration::IMAGE, &pinned])?.ok()?;
    eventually("the CRI knows the image by its digest", || pod.create(privileged("known", &pinned)).is_ok())?;
    if c.containerd().generation() == Generation::Two {
        ensure!(run_in(&pod, privileged("pinned", &pinned))? == (0, "mounted".to_owned()));
    } else {
        // containerd 1.7 names an image by a tag where it has one: no digest, no privilege.
        contains(&refused(&pod, privileged("pinned", &pinned))?, &["securityContext.privileged"])?;
    }
    pod.remove()
}

fn paths_of_the_host_are_judged(c: &Cri) -> Result<()> {
    let pod = c.pod("paths")?;
    let home = c.containerd().home();
    let other_pod = home.join("kubelet/pods/uid-of-another/volumes");
    fs::create_dir_all(&other_pod)?;
    let link = home.join(c.containerd().id("link"));
    std::os::unix::fs::symlink("/etc", &link)?;
    for (n, path) in [
        "/",
        "/etc",
        "/etc/shadow",
        "/proc",
        "/sys",
        "/dev",
        "/var",
        "/var/run",
        "/run/containerd",
        "/var/lib/kubelet",
        "/usr",
        "/root",
        "/home",
        "/opt",
        "/run/lock",
        "/var/spool",
    ]
    .into_iter()
    .map(Path::new)
    .chain([link.as_path()])
    .enumerate()
    .filter(|(_, path)| path.exists())
    {
        let name = format!("c{n}");
        let mut config = container_config(&name, &["true"]);
        config.mounts = vec![volume(path, "/host", true)];
        // containerd follows links before we see them.
        let words = format!("spec.containers[{name}].volumeMounts[/host]: {}", fs::canonicalize(path)?.display());
        contains(&refused(&pod, config)?, &[&words, "of the host is mounted"])?;
    }
    // A volume of a local provisioner's.
    let data = c.containerd().volume()?;
    let mut config = shell("data", "echo x > /data/x");
    config.mounts = vec![volume(&data, "/data", false)];
    ensure!(run_in(&pod, config)?.0 == 0 && data.join("x").exists());
    pod.remove()
}

fn volumes_of_the_kubelet_work(c: &Cri) -> Result<()> {
    let pod = c.pod("volumes")?;
    let disk = kubelet(c, &pod, "volumes/kubernetes.io~empty-dir/disk")?;
    let secret = kubelet(c, &pod, "volumes/kubernetes.io~projected/token")?;
    let conf = kubelet(c, &pod, "volumes/kubernetes.io~configmap/conf/..1")?;
    let subpath = subpath(c, &pod, "conf/app/0", &conf)?;
    let termination = kubelet(c, &pod, "containers/app")?.join("7e57");
    fs::write(&termination, "")?;
    // The kubelet's atomic writer: ..data leads to a folder of this version.
    let version = |name: &str, token: &str| -> Result<()> {
        fs::create_dir_all(secret.join(name))?;
        fs::write(secret.join(name).join("token"), token)?;
        std::os::unix::fs::symlink(name, secret.join("..data_tmp"))?;
        fs::rename(secret.join("..data_tmp"), secret.join("..data"))?;
        Ok(())
    };
    version("..1", "first")?;
    std::os::unix::fs::symlink("..data/token", secret.join("token"))?;
    fs::write(conf.join("app.conf"), "setting")?;
    let mut config = shell(
        "app",
        "cat /secret/token /conf/app.conf; echo; ! touch /secret/x; ! touch /conf/x; echo kept > /cache/file; \
         echo last words > /dev/termination-log; while ! grep -q second /secret/token; do sleep 0.1; done; echo swapped",
    );
    config.mounts = vec![
        volume(&disk, "/cache", false),
        volume(&secret, "/secret", true),
        cri::Mount { recursive_read_only: false, ..volume(subpath.path(), "/conf", true) },
        volume(&termination, "/dev/termination-log", false),
    ];
    let id = pod.run(config)?;
    eventually("it has read the first token", || pod.log("app").is_ok_and(|log| log.contains("firstsetting")))?;
    version("..2", "second")?;
    ensure!(pod.wait(&id)?.exit_code == 0, "{}", pod.log("app")?);
    ensure!(pod.log("app")?.ends_with("swapped"), "{}", pod.log("app")?);
    ensure!(fs::read_to_string(&termination)? == "last words\n");
    ensure!(fs::read_to_string(disk.join("file"))? == "kept\n");
    pod.remove()
}

/// A `subPath` of a `hostPath`: the kubelet mounts it below the pod's own folder.
fn a_part_of_the_host_is_not_a_volumes_part(c: &Cri) -> Result<()> {
    let pod = c.pod("subpath")?;
    let data = c.containerd().volume()?;
    for (n, part) in ["/etc", "/etc/shadow", "/", "/root", &data.display().to_string()].into_iter().enumerate() {
        let subpath = subpath(c, &pod, &format!("host/web/{n}"), Path::new(part))?;
        let name = format!("c{n}");
        let mut config = shell(&name, "ls /host");
        config.mounts = vec![cri::Mount { selinux_relabel: false, ..volume(subpath.path(), "/host", true) }];
        if Path::new(part) == data {
            // A volume of a local provisioner's.
            ensure!(run_in(&pod, config)?.0 == 0);
            continue;
        }
        let words = format!("spec.containers[{name}].volumeMounts[/host]: {part} of the host is mounted");
        contains(&refused(&pod, config)?, &[&words])?;
    }
    // Where nothing is mounted, nobody can tell what it would be.
    let nothing = kubelet(c, &pod, "volume-subpaths/host/web/9")?;
    let mut config = shell("nothing", "true");
    config.mounts = vec![volume(&nothing, "/host", true)];
    contains(&refused(&pod, config)?, &["volume-subpaths/host/web/9 of the host is mounted"])?;
    pod.remove()
}

/// `volumes[].image`, which containerd 2.1 knows, and keeps with all else that is the pod's own.
fn an_image_is_a_volume(c: &Cri) -> Result<()> {
    let c = Cri::start_beside(c)?;
    c.set_policy("default = \"own\"\n[profile.own.host]\nother-paths = \"deny\"\n")?;
    let pod = c.pod("image")?;
    let mut config = shell("app", "ls /image/bin/busybox && ! touch /image/x 2>/dev/null && echo read-only");
    let image = cri::ImageSpec { image: hardened_integration::IMAGE.to_owned(), ..cri::ImageSpec::default() };
    config.mounts = vec![cri::Mount {
        container_path: "/image".to_owned(),
        readonly: true,
        image: Some(image),
        ..cri::Mount::default()
    }];
    match c.containerd().generation() {
        Generation::Two => ensure!(run_in(&pod, config)? == (0, "/image/bin/busybox\nread-only".to_owned())),
        Generation::One => ensure!(pod.create(config).is_err(), "it had no source"),
    }
    let mut config = shell("data", "true");
    config.mounts = vec![volume(Path::new("/etc"), "/data", true)];
    contains(&refused(&pod, config)?, &["of the host is mounted"])?;
    pod.remove()
}

/// containerd asks runc alone for its features, so what works is not offered to Kubernetes: neither
/// user namespaces nor recursive read-only mounts.
fn containerd_does_not_ask_what_is_offered(c: &Cri) -> Result<()> {
    let status = c.call(|mut client| async move { client.status(cri::StatusRequest::default()).await })?;
    let ours = status.runtime_handlers.into_iter().find(|handler| handler.name == "hardened");
    let features = ours.and_then(|handler| handler.features).unwrap_or_default();
    ensure!(!features.user_namespaces, "{features:?}");
    Ok(())
}

fn mounts_do_not_propagate_out(c: &Cri) -> Result<()> {
    let pod = c.pod("propagation")?;
    let data = kubelet(c, &pod, "volumes/kubernetes.io~empty-dir/data")?;
    let mut config = container_config("web", &["true"]);
    let mount = cri::Mount {
        propagation: cri::MountPropagation::PropagationBidirectional.into(),
        ..volume(&data, "/data", false)
    };
    config.mounts = vec![mount];
    let error = match pod.create(config) {
        Ok(id) => pod.start(&id).err().context("it was started")?,
        // containerd itself wants the source to be a shared mount.
        Err(error) => error,
    };
    let error = format!("{error:#}");
    ensure!(error.contains("mounts would propagate to the host") || error.contains("not a shared mount"), "{error}");
    pod.remove()
}

fn identity_is_the_pods(c: &Cri) -> Result<()> {
    let pod = c.pod("identity")?;
    let mut config = shell("app", "id -u; id -g; id -G; touch /tmp/x && stat -c %u:%g /tmp/x; env | grep ^HOME");
    let context = security(&mut config);
    context.run_as_user = Some(cri::Int64Value { value: 1000 });
    context.run_as_group = Some(cri::Int64Value { value: 3000 });
    context.supplemental_groups = vec![2000, 4000];
    let (code, log) = run_in(&pod, config)?;
    ensure!(code == 0 && log.starts_with("1000\n3000\n3000 "), "{log}");
    contains(&log, &["2000", "4000", "1000:3000", "HOME=/home/user"])?;
    pod.remove()
}

fn allow_privilege_escalation_is_tightened(c: &Cri) -> Result<()> {
    let pod = c.pod("escalation")?;
    let mut config = shell("app", "grep NoNewPrivs /proc/self/status");
    security(&mut config).no_new_privs = false;
    ensure!(run_in(&pod, config)? == (0, "NoNewPrivs:\t1".to_owned()));
    pod.remove()
}

fn a_read_only_root_and_added_capabilities(c: &Cri) -> Result<()> {
    let pod = c.pod("context")?;
    let mut config = shell("root", "! touch /etc/x && ! touch /tmp/x && echo sealed");
    security(&mut config).readonly_rootfs = true;
    ensure!(run_in(&pod, config)?.0 == 0);
    let mut config = shell("drop", "grep CapBnd /proc/self/status");
    let drop = cri::Capability { drop_capabilities: vec!["ALL".into()], ..Default::default() };
    security(&mut config).capabilities = Some(drop);
    ensure!(run_in(&pod, config)?.1.ends_with("0000000000000000"));
    let mut config = container_config("add", &["true"]);
    let add = cri::Capability { add_capabilities: vec!["NET_ADMIN".into(), "SYS_TIME".into()], ..Default::default() };
    security(&mut config).capabilities = Some(add);
    let words = "spec.containers[add].securityContext.capabilities.add: added: NET_ADMIN, SYS_TIME, which the profile does not give";
    contains(&refused(&pod, config)?, &[words])?;
    pod.remove()
}

fn seccomp_profiles_narrow_and_never_widen(c: &Cri) -> Result<()> {
    let pod = c.pod("seccomp")?;
    let local = c.containerd().home().join(c.containerd().id("local.json"));
    let profile = serde_json::json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}]});
    fs::write(&local, profile.to_string())?;
    let kinds = cri::security_profile::ProfileType::Localhost;
    for (name, kind, localhost, may_make) in [
        ("default", cri::security_profile::ProfileType::RuntimeDefault, String::new(), true),
        ("unconfined", cri::security_profile::ProfileType::Unconfined, String::new(), true),
        ("localhost", kinds, format!("localhost/{}", local.display()), false),
    ] {
        let mut config =
            shell(name, "mkdir /tmp/x; hardened-probe 'unshare CLONE_NEWUSER' 'mount tmpfs' io_uring_setup");
        let localhost = localhost.strip_prefix("localhost/").map(str::to_owned).unwrap_or_default();
        security(&mut config).seccomp =
            Some(cri::SecurityProfile { profile_type: kind.into(), localhost_ref: localhost });
        let (_, log) = run_in(&pod, config)?;
        ensure!(log.matches("\"denied\"").count() == 3, "{name}: {log}");
        ensure!(log.contains("can't create directory") != may_make, "{name}: {log}");
    }
    pod.remove()
}

fn devices_of_the_host_are_refused(c: &Cri) -> Result<()> {
    let pod = c.pod("devices")?;
    let mut config = container_config("web", &["true"]);
    let device = |path: &str| cri::Device {
        container_path: path.to_owned(),
        host_path: path.to_owned(),
        permissions: "rwm".to_owned(),
    };
    config.devices = vec![device("/dev/kmsg")];
    contains(&refused(&pod, config)?, &["host devices /dev/kmsg (1:11)", "access to devices 1:11"])?;
    let mut config = shell("null", "echo x > /dev/null2 && echo given");
    config.devices = vec![cri::Device { container_path: "/dev/null2".to_owned(), ..device("/dev/null") }];
    ensure!(run_in(&pod, config)? == (0, "given".to_owned()));
    let app = pod.run(container_config("app", &["sleep", "1000"]))?;
    let cgroup = cgroup_of(init(&app)?, "devices")?;
    if with_systemd() {
        // systemd writes its units' settings again, and has no device rules for this one.
        let reload = std::process::Command::new("systemctl").arg("daemon-reload").status()?;
        ensure!(reload.success(), "{reload}");
    }
    ensure!(opens_in(&cgroup, "/dev/null")? && !opens_in(&cgroup, "/dev/kmsg")?);
    pod.remove()
}

fn an_image_with_a_user_and_a_script_runs_as_it_says(c: &Cri) -> Result<()> {
    let pod = c.pod("image")?;
    let mut config = container_config("app", &[]);
    config.image.get_or_insert_default().image = "docker.io/hardened/user:1".to_owned();
    ensure!(run_in(&pod, config)? == (0, "uid 1000 in /home/user with setting".to_owned()));
    pod.remove()
}

fn sysctls_safe_and_unsafe(c: &Cri) -> Result<()> {
    let with = |key: &str, value: &str| {
        let mut config = c.pod_config("sysctl");
        config.linux.get_or_insert_default().sysctls = [(key.to_owned(), value.to_owned())].into();
        config
    };
    let pod = c.run_pod(with("net.ipv4.ip_unprivileged_port_start", "80"))?;
    let (_, log) = run_in(&pod, shell("app", "cat /proc/sys/net/ipv4/ip_unprivileged_port_start"))?;
    ensure!(log == "80", "{log}");
    pod.remove()?;
    let error = c.run_pod(with("kernel.msgmax", "8192")).err().context("it was started")?;
    contains(&format!("{error:#}"), &["spec.securityContext.sysctls[kernel.msgmax]: is not one of the sysctls"])
}

fn processes_are_shared_where_the_pod_says_so(c: &Cri) -> Result<()> {
    let mut config = c.pod_config("shared");
    host(&mut config, |n| n.pid = cri::NamespaceMode::Pod.into());
    let pod = c.run_pod(config)?;
    let share = |mut config: cri::ContainerConfig| {
        security(&mut config).namespace_options.get_or_insert_default().pid = cri::NamespaceMode::Pod.into();
        config
    };
    let app = pod.run(share(container_config("app", &["sleep", "4711"])))?;
    let (code, log) = run_in(&pod, share(shell("look", "ps -o args; ! cat /proc/1/environ; ! ls /proc/1/root/")))?;
    ensure!(code == 0, "{log}");
    contains(&log, &["sleep 4711", "sleep 1000000000"])?;
    // Its end is its own, and takes all of it along, though the pid namespace stays.
    let orphans = pod.run(share(shell("orphans", "sleep 815 & sleep 816 & exec sleep 0.3")))?;
    pod.wait(&orphans)?;
    let out = pod.exec(&app, &["ps", "-o", "args"])?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    ensure!(!text.contains("sleep 815") && !text.contains("sleep 816"), "{text}");
    pod.remove()
}

fn a_debug_container_joins_a_running_pod(c: &Cri) -> Result<()> {
    let pod = c.pod("debug")?;
    let app = pod.run(container_config("app", &["sleep", "4711"]))?;
    let mut config = shell("debugger", "ps -o args; hardened-probe 'ptrace own child'");
    let namespaces = security(&mut config).namespace_options.get_or_insert_default();
    namespaces.pid = cri::NamespaceMode::Target.into();
    namespaces.target_id.clone_from(&app);
    let (_, log) = run_in(&pod, config)?;
    contains(&log, &["sleep 4711", "\"denied\""])?;
    pod.remove()
}

fn annotations_of_a_pod_reach_every_container(c: &Cri) -> Result<()> {
    let annotated = |key: &str, value: &str| {
        let mut config = c.pod_config("annotated");
        config.annotations = [(format!("io.containerd.hardened.v1/{key}"), value.to_owned())].into();
        config
    };
    let pod = c.run_pod(annotated("profile", "restricted"))?;
    let (_, log) =
        run_in(&pod, shell("app", "grep CapBnd /proc/self/status; cp /bin/busybox /tmp/echo; /tmp/echo ran"))?;
    ensure!(log.contains("0000000000000400") && !log.ends_with("ran"), "{log}");
    pod.remove()?;
    for (key, value, words) in [
        ("profile", "loose", "metadata.annotations[io.containerd.hardened.v1/profile]: there is no profile \"loose\""),
        ("privileged", "true", "metadata.annotations[io.containerd.hardened.v1/privileged]: is not an annotation"),
    ] {
        let error = c.run_pod(annotated(key, value)).err().context("it was started")?;
        contains(&format!("{error:#}"), &[words])?;
    }
    let pod = c.run_pod(annotated("exec", "refuse"))?;
    let app = pod.run(container_config("app", &["sleep", "1000"]))?;
    let error = pod.exec(&app, &["true"]).err().context("it was executed")?;
    contains(&format!("{error:#}"), &["the profile refuses every exec in this container"])?;
    pod.remove()
}

fn output_to_dev_stdout_is_logged(c: &Cri) -> Result<()> {
    let pod = c.pod("stdout")?;
    let mut config = shell(
        "app",
        "echo one > /dev/stdout; echo two > /dev/stderr; ln -s /dev/stdout /tmp/log; echo three > /tmp/log",
    );
    security(&mut config).run_as_user = Some(cri::Int64Value { value: 1000 });
    let (code, log) = run_in(&pod, config)?;
    ensure!(code == 0, "{log}");
    contains(&log, &["one", "two", "three"])?;
    pod.remove()
}

fn a_container_is_restarted_after_its_end(c: &Cri) -> Result<()> {
    let pod = c.pod("restart")?;
    for attempt in 0..3 {
        let mut config = shell("app", "exit 5");
        config.metadata.get_or_insert_default().attempt = attempt;
        let id = pod.run(config)?;
        ensure!(pod.wait(&id)?.exit_code == 5);
        let request = cri::RemoveContainerRequest { container_id: id };
        c.call(|mut client| async move { client.remove_container(request).await })?;
    }
    pod.remove()
}

fn pods_survive_a_restart_of_containerd(c: &Cri) -> Result<()> {
    // The daemon that the other tests use is left alone.
    let c = Cri::start_beside(c)?;
    let pod = c.pod("survivor")?;
    let app = pod.run(container_config("app", &["sleep", "1000"]))?;
    c.containerd().shut_down()?;
    c.containerd().boot()?;
    eventually("the pod is listed again", || {
        let request = cri::ListPodSandboxRequest::default();
        c.call(|mut client| async move { client.list_pod_sandbox(request).await })
            .is_ok_and(|list| list.items.iter().any(|p| p.id == pod.id()))
    })?;
    ensure!(pod.status(&app)?.state == i32::from(cri::ContainerState::ContainerRunning));
    ensure!(pod.exec(&app, &["echo", "back"])?.stdout == b"back\n");
    // A shim that is killed takes its pod along, and nothing is left of it.
    let shims = c.containerd().shims()?;
    let shim = shims.iter().find(|(_, line)| line.contains(pod.id())).map(|(pid, _)| *pid).context("no shim")?;
    // SAFETY: takes numbers only; the pid is of this pod's shim.
    unsafe { libc::kill(shim, libc::SIGKILL) };
    let exited = i32::from(cri::ContainerState::ContainerExited);
    eventually("the container is seen to end", || pod.status(&app).is_ok_and(|s| s.state == exited))?;
    pod.remove()
}

fn fifty_pods_come_and_go(c: &Cri) -> Result<()> {
    let queue = std::sync::atomic::AtomicU32::new(0);
    let workers: Vec<Result<()>> = std::thread::scope(|scope| {
        let work = || -> Result<()> {
            while queue.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < 50 {
                let pod = c.pod("churn")?;
                let containers: Result<Vec<_>> = ["a", "b", "c"]
                    .into_iter()
                    .map(|name| pod.run(container_config(name, &["sleep", "1000"])))
                    .collect();
                for container in containers? {
                    ensure!(pod.exec(&container, &["true"])?.exit_code == 0);
                }
                pod.remove()?;
            }
            Ok(())
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|t| t.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a worker panicked")))).collect()
    });
    workers.into_iter().collect()
}
