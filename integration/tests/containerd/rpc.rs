//! The Task service, called directly: what `ctr` does not ask for.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use containerd_shim_protos::api::{
    ConnectRequest, CreateTaskRequest, DeleteRequest, ExecProcessRequest, KillRequest, PidsRequest, ResizePtyRequest,
    ShutdownRequest, StartRequest, StateRequest, StatsRequest, UpdateTaskRequest,
};
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{Message, MessageField};
use containerd_shim_protos::ttrpc::{self, Code, context};
use containerd_shim_protos::types::introspection::RuntimeInfo;
use containerd_shim_protos::types::task::Status;
use containerd_shim_protos::{Client, TaskClient};
use hardened_integration::direct::Direct;
use hardened_integration::{Containerd, Running, cgroup_of, eventually, has_cgroup_v2, opens_in, parent, run};
use oci_spec::runtime::{Features, LinuxNamespaceType};

crate::tests!(
    connect_names_shim_and_task,
    update_changes_limits_and_no_device_rule,
    a_terminal_is_resized,
    stats_are_of_containerds_type,
    calls_out_of_turn_are_refused_by_their_code,
    a_shim_with_containers_does_not_shut_down,
    a_bundle_that_is_missing_or_broken_is_told_of,
    a_call_that_its_client_gives_up_is_done_all_the_same,
    what_cannot_execute_is_told_of_as_soon_as_it_is_known,
    a_newer_containerd_starts_a_shim_in_the_cgroup_that_it_names,
    a_newer_containerd_is_told_what_works,
);

fn client(c: &Containerd, running: &Running<'_>) -> Result<TaskClient> {
    let address = std::fs::read_to_string(c.bundle(running.id()).join("address"))?;
    Ok(TaskClient::new(Client::connect(&address).context("connect to the shim")?))
}

fn ctx() -> context::Context {
    context::with_timeout(10_000_000_000)
}

fn code(error: &ttrpc::Error) -> Option<Code> {
    if let ttrpc::Error::RpcStatus(status) = error { Some(status.code()) } else { None }
}

fn connect_names_shim_and_task(c: &Containerd) -> Result<()> {
    let running = c.start_container(&[], &["sleep", "1000"])?;
    let mut request = ConnectRequest::new();
    request.set_id(running.id().to_owned());
    let answer = client(c, &running)?.connect(ctx(), &request)?;
    ensure!(i32::try_from(answer.task_pid)? == running.pid()?, "{answer:?}");
    ensure!(c.shims()?.contains_key(&i32::try_from(answer.shim_pid)?), "{answer:?}");
    running.remove()
}

fn update_changes_limits_and_no_device_rule(c: &Containerd) -> Result<()> {
    let running = c.start_container(&["--memory-limit", "67108864"], &["sleep", "1000"])?;
    let update = |resources: serde_json::Value| update(c, &running, &resources);
    let read = |controller: &str, file: &str| -> Result<String> {
        Ok(std::fs::read_to_string(cgroup_of(running.pid()?, controller)?.join(file))?.trim().to_owned())
    };
    // v2 has a program for them, and no list.
    let rules = || if has_cgroup_v2() { Ok(String::new()) } else { read("devices", "devices.list") };
    let before = rules()?;
    ensure!(!before.starts_with("a *:* rwm"), "{before}");
    update(serde_json::json!({"memory": {"limit": 33_554_432}, "pids": {"limit": 77},
        "devices": [{"allow": true, "access": "rwm"}]}))?;
    let limit = if has_cgroup_v2() { "memory.max" } else { "memory.limit_in_bytes" };
    ensure!(read("memory", limit)? == "33554432" && read("pids", "pids.max")? == "77");
    ensure!(rules()? == before && !opens_in(&cgroup_of(running.pid()?, "devices")?, "/dev/kmsg")?);
    let wrong = update(serde_json::json!({"memory": "much"})).err().context("taken")?;
    ensure!(format!("{wrong:#}").contains("resources are not OCI LinuxResources"), "{wrong:#}");
    let file = c.home().join("written-by-update");
    std::fs::write(&file, "as before")?;
    let outside =
        update(serde_json::json!({"unified": {file.display().to_string(): "changed"}})).err().context("taken")?;
    let named = format!("resources.unified[{}]", file.display());
    ensure!(outside.downcast_ref().and_then(code) == Some(Code::INVALID_ARGUMENT), "{outside:#}");
    ensure!(format!("{outside:#}").contains(&named), "{outside:#}");
    ensure!(std::fs::read_to_string(&file)? == "as before");
    running.remove()
}

/// Update of a container's resources.
pub(crate) fn update(c: &Containerd, running: &Running<'_>, resources: &serde_json::Value) -> Result<()> {
    let mut request = UpdateTaskRequest::new();
    request.set_id(running.id().to_owned());
    request.resources = MessageField::some(Any {
        type_url: "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources".to_owned(),
        value: resources.to_string().into_bytes(),
        ..Any::default()
    });
    client(c, running)?.update(ctx(), &request)?;
    Ok(())
}

fn a_terminal_is_resized(c: &Containerd) -> Result<()> {
    let running = c.start_container(&[], &["sleep", "1000"])?;
    let client = client(c, &running)?;
    // An exec, since `ctr run -t` wants a terminal of its own.
    let process = serde_json::json!({
        // The request says that there is one, and holds.
        "terminal": false,
        "consoleSize": {"height": 20, "width": 60},
        "cwd": "/",
        "user": {"uid": 0, "gid": 0},
        "env": ["PATH=/bin"],
        "args": ["sh", "-c", "while :; do stty size > /tmp/size; sleep 0.1; done"],
    });
    let (id, exec_id) = (running.id().to_owned(), "terminal".to_owned());
    let exec = ExecProcessRequest {
        id: id.clone(),
        exec_id: exec_id.clone(),
        terminal: true,
        spec: MessageField::some(Any { value: process.to_string().into_bytes(), ..Any::default() }),
        ..Default::default()
    };
    client.exec(ctx(), &exec)?;
    client.start(ctx(), &StartRequest { id: id.clone(), exec_id: exec_id.clone(), ..Default::default() })?;
    let file = format!("/proc/{}/root/tmp/size", running.pid()?);
    let reads = |size: &str| std::fs::read_to_string(&file).is_ok_and(|s| s.trim() == size);
    eventually("the program sees the size that it was given", || reads("20 60"))?;
    client.resize_pty(ctx(), &ResizePtyRequest { id, exec_id, width: 132, height: 43, ..Default::default() })?;
    eventually("the program sees the new size", || reads("43 132"))?;
    running.remove()
}

fn stats_are_of_containerds_type(c: &Containerd) -> Result<()> {
    let running = c.start_container(&[], &["sleep", "1000"])?;
    let mut request = StatsRequest::new();
    request.set_id(running.id().to_owned());
    let stats = client(c, &running)?.stats(ctx(), &request)?.stats;
    ensure!(matches!(stats.type_url.as_str(), "io.containerd.cgroups.v1.Metrics" | "io.containerd.cgroups.v2.Metrics"));
    running.remove()
}

fn calls_out_of_turn_are_refused_by_their_code(c: &Containerd) -> Result<()> {
    let running = c.start_container(&[], &["sleep", "1000"])?;
    let client = client(c, &running)?;
    let id = running.id().to_owned();

    let again = StartRequest { id: id.clone(), ..Default::default() };
    let error = client.start(ctx(), &again).err().context("started twice")?;
    ensure!(code(&error) == Some(Code::FAILED_PRECONDITION), "{error}");

    let early = DeleteRequest { id: id.clone(), ..Default::default() };
    let error = client.delete(ctx(), &early).err().context("deleted while running")?;
    ensure!(code(&error) == Some(Code::FAILED_PRECONDITION), "{error}");

    let nobody = StateRequest { id: "nobody".to_owned(), ..Default::default() };
    let error = client.state(ctx(), &nobody).err().context("found nobody")?;
    ensure!(code(&error) == Some(Code::NOT_FOUND), "{error}");

    let no_exec = KillRequest { id: id.clone(), exec_id: "none".to_owned(), signal: 9, ..Default::default() };
    let error = client.kill(ctx(), &no_exec).err().context("killed no exec")?;
    ensure!(code(&error) == Some(Code::NOT_FOUND), "{error}");

    let no_signal = KillRequest { id: id.clone(), signal: 999, ..Default::default() };
    let error = client.kill(ctx(), &no_signal).err().context("sent signal 999")?;
    ensure!(code(&error) == Some(Code::INVALID_ARGUMENT), "{error}");

    let no_terminal = ResizePtyRequest { id: id.clone(), width: 1, height: 1, ..Default::default() };
    let error = client.resize_pty(ctx(), &no_terminal).err().context("resized no terminal")?;
    ensure!(code(&error) == Some(Code::FAILED_PRECONDITION), "{error}");

    client.kill(ctx(), &KillRequest { id: id.clone(), signal: 9, ..Default::default() })?;
    eventually("it is stopped", || running.status().is_ok_and(|s| s == "STOPPED"))?;
    let error =
        client.kill(ctx(), &KillRequest { id, signal: 9, ..Default::default() }).err().context("killed twice")?;
    ensure!(code(&error) == Some(Code::NOT_FOUND), "{error}");
    running.remove()
}

fn a_shim_with_containers_does_not_shut_down(c: &Containerd) -> Result<()> {
    let running = c.start_container(&[], &["sleep", "1000"])?;
    let client = client(c, &running)?;
    client.shutdown(ctx(), &ShutdownRequest { id: running.id().to_owned(), now: true, ..Default::default() })?;
    let request = PidsRequest { id: running.id().to_owned(), ..Default::default() };
    ensure!(client.pids(ctx(), &request)?.processes.len() == 1);
    let shim = running.shim()?;
    // SAFETY: takes numbers only; the pid is of this container's shim.
    unsafe { libc::kill(shim, libc::SIGTERM) };
    std::thread::sleep(std::time::Duration::from_millis(300));
    ensure!(client.pids(ctx(), &request)?.processes.len() == 1);
    running.remove()
}

fn a_bundle_that_is_missing_or_broken_is_told_of(c: &Containerd) -> Result<()> {
    let running = c.start_container(&[], &["sleep", "1000"])?;
    let client = client(c, &running)?;
    let real = std::fs::read_to_string(c.bundle(running.id()).join("config.json"))?;
    let no_rootfs = real.replace("\"path\":\"rootfs\"", "\"path\":\"elsewhere\"");
    let large = format!("{{\"annotations\": {{\"a\": \"{}\"}}}}", "x".repeat(9 << 20));
    let cases: [(&str, Option<&str>, &str); 6] = [
        ("gone", None, "config.json: No such file"),
        ("empty", Some(""), "is not an OCI spec: EOF"),
        ("cut", real.get(..real.len() / 2), "is not an OCI spec"),
        ("number", Some("7"), "is not an OCI spec"),
        ("large", Some(&large), "is larger than 8388608 bytes"),
        ("rootless", Some(&no_rootfs), "elsewhere: No such file"),
    ];
    for (name, config, words) in cases {
        let bundle = c.home().join(c.id("bundle"));
        if let Some(config) = config {
            std::fs::create_dir_all(&bundle)?;
            std::fs::write(bundle.join("config.json"), config)?;
        }
        let id = c.id(name);
        let request = CreateTaskRequest { id: id.clone(), bundle: bundle.display().to_string(), ..Default::default() };
        let error = client.create(ctx(), &request).err().with_context(|| format!("{name} was taken"))?;
        ensure!(error.to_string().contains(words), "{name}: {error}");
        c.nothing_left(&id)?;
    }
    for id in ["../x", "a/b", ""] {
        let request = CreateTaskRequest { id: id.to_owned(), bundle: "/".to_owned(), ..Default::default() };
        let error = client.create(ctx(), &request).err().context("taken")?;
        ensure!(code(&error) == Some(Code::INVALID_ARGUMENT), "{id:?}: {error}");
    }
    running.remove()
}

/// containerd's deadline may be over, or it may restart, in the middle of any call.
fn a_call_that_its_client_gives_up_is_done_all_the_same(c: &Containerd) -> Result<()> {
    let config = c.spec(&["/bin/sleep", "1000"])?;
    // From a moment at which nothing is done to one at which all is.
    let mut given_up = 0;
    for milliseconds in [1, 2, 4, 8, 12, 16, 24, 32] {
        let direct = Direct::start(c, "containerd-shim-hardened-v1", &config)?;
        let id = direct.id().to_owned();
        let limit = context::with_timeout(milliseconds * 1_000_000);
        given_up += u32::from(direct.create_within(limit, None).is_err());
        eventually("the container is made", || direct.pid().is_ok_and(|pid| pid > 0))?;
        let start = StartRequest { id: id.clone(), ..StartRequest::default() };
        let limit = context::with_timeout(milliseconds * 500_000);
        given_up += u32::from(direct.client()?.start(limit, &start).is_err());
        direct.end().with_context(|| format!("after {milliseconds} ms"))?;
        c.nothing_left(&id)?;
    }
    ensure!(given_up > 2, "{given_up} calls of 16 were given up");
    Ok(())
}

/// A program that is missing at the create, as with runc; one that cannot be executed at the start, which leaves a stopped
/// container: containerd 1.7 deletes no other.
fn what_cannot_execute_is_told_of_as_soon_as_it_is_known(c: &Containerd) -> Result<()> {
    for (program, words) in [
        ("/no/such", "does not exist in the container"),
        ("no-such", "executable file not found in $PATH"),
        ("./no-such", "does not exist in the container"),
    ] {
        let direct = Direct::start(c, "containerd-shim-hardened-v1", &c.spec(&[program])?)?;
        let id = direct.id().to_owned();
        let error = direct.create(None).err().with_context(|| format!("{program} was made"))?;
        ensure!(format!("{error:#}").contains(words), "{error:#}");
        direct.give_up()?;
        c.nothing_left(&id)?;
    }
    let direct = Direct::start(c, "containerd-shim-hardened-v1", &c.spec(&["/etc/passwd"])?)?;
    let id = direct.id().to_owned();
    direct.create(None)?;
    let start = StartRequest { id: id.clone(), ..StartRequest::default() };
    let error = direct.client()?.start(ctx(), &start).err().context("a file that is no program was started")?;
    ensure!(error.to_string().contains("is not executable"), "{error}");
    let state = direct.client()?.state(ctx(), &StateRequest { id: id.clone(), ..StateRequest::default() })?;
    ensure!(state.status.enum_value() == Ok(Status::STOPPED), "{state:?}");
    direct.give_up()?;
    c.nothing_left(&id)
}

/// containerd 2.3, of which no Debian has a package yet.
fn a_newer_containerd_starts_a_shim_in_the_cgroup_that_it_names(c: &Containerd) -> Result<()> {
    let config = c.spec(&["/bin/sleep", "1000"])?;
    let path = format!("/{}/shims", c.namespace());
    // containerd.runc.v1.Options with shim_cgroup, its field 3.
    let options = |path: &str| Any {
        type_url: "containerd.runc.v1.Options".to_owned(),
        value: [&[0x1a, u8::try_from(path.len()).unwrap_or_default()], path.as_bytes()].concat(),
        ..Any::default()
    };
    let missing = Direct::bootstrap(c, "containerd-shim-hardened-v1", &config, options("/no/such"));
    let error = format!("{:#}", missing.err().context("a shim without its cgroup")?);
    ensure!(error.contains("ShimCgroup /no/such: there is no such cgroup"), "{error}");

    let root = if has_cgroup_v2() { "/sys/fs/cgroup" } else { "/sys/fs/cgroup/memory" };
    let cgroup = Path::new(root).join(path.trim_start_matches('/'));
    std::fs::create_dir_all(&cgroup)?;
    let shim = Direct::bootstrap(c, "containerd-shim-hardened-v1", &config, options(&path))?;
    shim.create_and_start(None)?;
    let init = i32::try_from(shim.pid()?)?;
    let of_shim = parent(init).context("parent")?;
    ensure!(cgroup_of(of_shim, "memory")? == cgroup, "{:?}", cgroup_of(of_shim, "memory")?);
    ensure!(cgroup_of(init, "memory")? != cgroup, "the container is in the shims' cgroup");
    shim.end()?;
    eventually("the shims' cgroup is empty", || std::fs::remove_dir(&cgroup).is_ok())
}

/// containerd 2.3 asks every shim by `-info`, and offers Kubernetes user namespaces and recursive read-only mounts where the
/// answer has these (`internal/cri/server/service.go`, `introspectRuntimeHandler`).
fn a_newer_containerd_is_told_what_works(c: &Containerd) -> Result<()> {
    let shim = c.home().join("bin/containerd-shim-hardened-v1");
    let out = run(Command::new(shim).arg("-info"), b"", Duration::from_secs(10))?.ok()?;
    let info = RuntimeInfo::parse_from_bytes(&out.stdout)?;
    ensure!(info.name == hardened_integration::HARDENED, "{info:?}");
    ensure!(info.features.type_url == "types.containerd.io/opencontainers/runtime-spec/1/features/Features");
    let features: Features = serde_json::from_slice(&info.features.value)?;
    let options = features.mount_options().clone().unwrap_or_default();
    ensure!(options.iter().any(|option| option == "rro"), "{options:?}");
    let linux = features.linux().clone().context("linux")?;
    let kinds = linux.namespaces().clone().unwrap_or_default();
    ensure!(kinds.contains(&LinuxNamespaceType::User), "{kinds:?}");
    let idmap = linux.mount_extensions().as_ref().and_then(|all| all.idmap().clone());
    ensure!(idmap.is_some_and(|idmap| *idmap.enabled() == Some(true)), "no id-mapped mounts");
    // What is offered is taken.
    for option in options.iter().filter(|option| !option.contains("idmap") && !option.contains("slave")) {
        let mount = format!("type=bind,src={},dst=/data,options=rbind:{option}", c.volume()?.display());
        c.run(&["--mount", &mount], &["true"])?.ok().with_context(|| option.clone())?;
    }
    Ok(())
}
