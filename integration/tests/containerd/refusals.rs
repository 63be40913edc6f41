//! What is refused, with which words, and that a refusal leaves nothing behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use hardened_integration::{Containerd, HARDENED, IMAGE, Output, eventually, has_apparmor, has_cgroup_v2, has_selinux};
use serde_json::{Value, json};

crate::tests!(
    privileged_is_refused_in_one_sentence,
    what_amounts_to_privileged_is_refused,
    what_cannot_be_honoured_is_refused,
    a_cgroup_that_exists_is_refused_and_what_is_in_it_lives,
    bad_input_is_answered_with_what_and_where,
    a_program_that_cannot_run_is_told_why,
    an_exec_beyond_the_sandbox_is_refused,
    absent_capabilities_are_none,
    the_shim_names_what_is_wrong_with_its_command_line,
);

/// A spec of our own, for `ctr run --config`.
pub(crate) struct Custom<'a> {
    c: &'a Containerd,
    id: String,
    file: PathBuf,
}

/// containerd's default spec for the test image's files, changed.
pub(crate) fn spec<'a>(c: &'a Containerd, change: impl FnOnce(&mut Value)) -> Result<Custom<'a>> {
    let id = c.id("spec");
    let mut spec = c.spec(&["/bin/true"])?;
    spec["root"] = json!({"path": c.rootfs()?, "readonly": true});
    spec["process"]["cwd"] = json!("/");
    spec["linux"]["cgroupsPath"] = json!(format!("/{}/{id}", c.namespace()));
    change(&mut spec);
    let file = c.home().join(format!("{id}.json"));
    fs::write(&file, spec.to_string())?;
    Ok(Custom { c, id, file })
}

impl Custom<'_> {
    pub(crate) fn run(&self) -> Result<Output> {
        let config = self.file.display().to_string();
        let out = self.c.ctr(&["run", "--rm", "--runtime", HARDENED, "--config", &config, &self.id]);
        self.c.ctr(&["containers", "delete", &self.id])?;
        self.c.nothing_left(&self.id)?;
        out
    }
}

fn refused(c: &Containerd, options: &[&str], words: &[&str]) -> Result<()> {
    let id = c.id("refused");
    let arguments = [&["run", "--rm", "--runtime", HARDENED], options, &[IMAGE, &id, "true"]].concat();
    let out = c.ctr(&arguments)?;
    ensure!(out.status != 0, "{options:?} was not refused");
    for word in words {
        ensure!(out.stderr.contains(word), "{options:?}: {word:?} is not in: {}", out.stderr);
    }
    c.ctr(&["containers", "delete", &id])?;
    c.nothing_left(&id)
}

fn privileged_is_refused_in_one_sentence(c: &Containerd) -> Result<()> {
    let words = ["hardened: privileged: true is refused by profile baseline", "the container is privileged -> set"];
    refused(c, &["--privileged"], &words)?;
    // What follows from that is not listed as another reason.
    let out = c.run(&["--privileged"], &["true"])?;
    ensure!(!out.stderr.contains("(2)") && !out.stderr.contains("sysfs"), "{out:?}");
    Ok(())
}

fn what_amounts_to_privileged_is_refused(c: &Containerd) -> Result<()> {
    refused(c, &["--cap-add", "CAP_SYS_ADMIN"], &["added: SYS_ADMIN", "securityContext.capabilities.add"])?;
    refused(c, &["--cap-add", "CAP_NET_ADMIN", "--cap-add", "CAP_BPF"], &["NET_ADMIN, BPF"])?;
    refused(c, &["--net-host"], &["the host's network namespace", "hostNetwork: false"])?;
    // To the shim, self is the shim: the host.
    refused(c, &["--with-ns", "pid:/proc/self/ns/pid"], &["the host's pid namespace", "hostPID: false"])?;
    refused(c, &["--with-ns", "ipc:/proc/self/ns/ipc"], &["the host's ipc namespace", "hostIPC: false"])?;
    refused(c, &["--with-ns", "ipc:/nowhere"], &["linux.namespaces: look at /nowhere"])?;
    refused(c, &["--device", "/dev/kmsg"], &["host devices /dev/kmsg (1:11)"])?;
    refused(c, &["--rootfs-propagation", "shared"], &["linux.rootfsPropagation"])?;
    for source in ["/", "/proc", "/sys", "/dev", "/run/hardened"] {
        let mount = format!("type=bind,src={source},dst=/host,options=rbind:rw");
        refused(c, &["--mount", &mount], &[&format!("mounts[/host]: {source} of the host is mounted")])?;
    }
    refused(
        c,
        &["--mount", "type=bind,src=/tmp,dst=/x,options=rbind:rshared"],
        &["mounts[/x]: mounts would propagate"],
    )?;
    refused(c, &["--mount", "type=proc,src=proc,dst=/x,options=rw"], &["mounts[/x]: a second /proc"])?;
    for kind in ["devtmpfs", "tracefs", "bpf", "overlay"] {
        let mount = format!("type={kind},src={kind},dst=/x,options=ro");
        refused(c, &["--mount", &mount], &[&format!("mounts[/x]: a file system of type \"{kind}\" is mounted")])?;
    }
    refused(c, &["--cwd", "/proc/self/fd/7"], &["process.cwd: /proc/self/fd/7 is inside /proc"])
}

fn what_cannot_be_honoured_is_refused(c: &Containerd) -> Result<()> {
    if !has_apparmor() {
        refused(
            c,
            &["--apparmor-profile", "web"],
            &["process.apparmorProfile: web is requested", "does not run AppArmor"],
        )?;
    }
    refused(
        c,
        &["--annotation", "io.containerd.hardened.v1/profile=loose"],
        &["there is no profile \"loose\"", "baseline, build, compatible, restricted"],
    )?;
    refused(c, &["--annotation", "io.containerd.hardened.v1/porfile=x"], &["is not an annotation of this runtime"])?;
    if !has_selinux() {
        let label = spec(c, |s| s["process"]["selinuxLabel"] = json!("system_u:system_r:container_t:s0"))?.run()?;
        ensure!(
            label.stderr.contains("process.selinuxLabel") && label.stderr.contains("does not run SELinux"),
            "{label:?}"
        );
    }
    let notify = spec(c, |s| s["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_NOTIFY"}))?.run()?;
    ensure!(notify.stderr.contains("linux.seccomp.defaultAction: SCMP_ACT_NOTIFY"), "{notify:?}");
    let sysctl = spec(c, |s| s["linux"]["sysctl"] = json!({"kernel.msgmax": "1"}))?.run()?;
    ensure!(sysctl.stderr.contains("linux.sysctl[kernel.msgmax]"), "{sysctl:?}");
    if !has_cgroup_v2() {
        // A path like others, as it is for runc: systemd makes cgroups on v2 alone.
        let path = format!("system.slice:{}:b", c.namespace());
        let literal = spec(c, |s| {
            s["linux"]["cgroupsPath"] = json!(path);
            s["process"]["args"] = json!(["grep", format!("/{path}$"), "/proc/self/cgroup"]);
        })?;
        ensure!(literal.run()?.ok()?.text().contains("memory"), "it is in another cgroup");
    }
    let neither = spec(c, |s| s["linux"]["cgroupsPath"] = json!("system.slice:../a:b"))?.run()?;
    ensure!(
        neither.stderr.contains("expected an absolute path below / without .., or SLICE:PREFIX:NAME"),
        "{neither:?}"
    );
    let hook = spec(c, |s| s["hooks"] = json!({"startContainer": [{"path": "/bin/true"}]}))?.run()?;
    ensure!(hook.stderr.contains("hooks.startContainer: would run outside of the sandbox"), "{hook:?}");
    Ok(())
}

fn a_cgroup_that_exists_is_refused_and_what_is_in_it_lives(c: &Containerd) -> Result<()> {
    let path = format!("{}/{}", c.namespace(), c.id("taken"));
    // On v1 in one of the hierarchies: the others get a cgroup first, and lose it again.
    let mount = Path::new("/sys/fs/cgroup").join(if has_cgroup_v2() { "" } else { "pids" });
    let folder = mount.join(&path);
    fs::create_dir_all(&folder)?;
    let mut process = Command::new("sleep").arg("1000").spawn()?;
    fs::write(folder.join("cgroup.procs"), process.id().to_string())?;
    let out = spec(c, |s| s["linux"]["cgroupsPath"] = json!(format!("/{path}")))?.run();
    let lives = process.try_wait()?.is_none();
    let inside = fs::read_to_string(folder.join("cgroup.procs"))?;
    process.kill()?;
    process.wait()?;
    eventually("the cgroup is removed", || fs::remove_dir(&folder).is_ok())?;
    let out = out?;
    ensure!(out.status != 0 && out.stderr.contains(&format!("linux.cgroupsPath /{path} exists already")), "{out:?}");
    ensure!(lives && inside.trim() == process.id().to_string(), "the create ended a process of the host: {inside:?}");
    for hierarchy in fs::read_dir("/sys/fs/cgroup")?.flatten() {
        ensure!(!hierarchy.path().join(&path).exists(), "left in {:?}", hierarchy.path());
    }
    Ok(())
}

fn bad_input_is_answered_with_what_and_where(c: &Containerd) -> Result<()> {
    type Change = fn(&mut Value);
    let table: &[(&str, Change, &[&str])] = &[
        ("no process", |s| s["process"] = Value::Null, &["process"]),
        ("no linux section", |s| s["linux"] = Value::Null, &["linux"]),
        ("no root", |s| s["root"] = Value::Null, &["root: missing"]),
        ("no arguments", |s| s["process"]["args"] = json!([]), &["process.args: no program to run"]),
        ("an empty program", |s| s["process"]["args"] = json!([""]), &["process.args: no program to run"]),
        (
            "a NUL in an argument",
            |s| s["process"]["args"] = json!(["/bin/echo", "a\u{0}b"]),
            &["process.args[1]: contains a NUL byte"],
        ),
        (
            "a NUL in the environment",
            |s| s["process"]["env"] = json!(["A=a\u{0}"]),
            &["process.env[0]: contains a NUL byte"],
        ),
        ("a relative cwd", |s| s["process"]["cwd"] = json!("tmp"), &["process.cwd", "is not an absolute path"]),
        (
            "a cwd that is a file",
            |s| s["process"]["cwd"] = json!("/etc/passwd"),
            &["cwd: chdir to /etc/passwd: Not a directory"],
        ),
        ("a root that is missing", |s| s["root"]["path"] = json!("/nowhere"), &["root file system /nowhere"]),
        ("a root that is the host's", |s| s["root"]["path"] = json!("/"), &["root file system / is the host's"]),
        (
            "an unknown capability",
            |s| s["process"]["capabilities"]["bounding"] = json!(["CAP_FLY"]),
            &["is not an OCI spec", "CAP_FLY"],
        ),
        ("a cgroup outside", |s| s["linux"]["cgroupsPath"] = json!("/a/../../b"), &["cgroupsPath"]),
        (
            "three megabytes of environment",
            |s| s["process"]["env"] = json!([format!("A={}", "x".repeat(3 << 20))]),
            &["process.args and process.env"],
        ),
        (
            "an absurd limit",
            |s| s["process"]["rlimits"] = json!([{"type": "RLIMIT_FLY", "hard": 1, "soft": 1}]),
            &["RLIMIT_FLY"],
        ),
    ];
    for (what, change, words) in table {
        let out = spec(c, change)?.run().with_context(|| (*what).to_owned())?;
        ensure!(out.status != 0, "{what} was taken");
        for word in *words {
            ensure!(out.stderr.contains(word), "{what}: {word:?} is not in: {}", out.stderr);
        }
    }
    // A root that is a symbolic link to the host's.
    let link = c.home().join(c.id("link"));
    std::os::unix::fs::symlink("/", &link)?;
    let out = spec(c, |s| s["root"]["path"] = json!(link))?.run()?;
    ensure!(out.status != 0 && out.stderr.contains("symbolic link"), "{out:?}");
    for id in ["a/b", "..", &"x".repeat(300)] {
        let out = c.ctr(&["run", "--rm", "--runtime", HARDENED, IMAGE, id, "true"])?;
        ensure!(out.status != 0, "id {id} was taken");
    }
    Ok(())
}

fn a_program_that_cannot_run_is_told_why(c: &Containerd) -> Result<()> {
    for (program, words) in [
        ("no-such", "\"no-such\": executable file not found in $PATH"),
        ("/bin/no-such", "\"/bin/no-such\" does not exist in the container"),
        ("/etc/passwd", "\"/etc/passwd\" is not executable"),
        ("/etc", "\"/etc\" is not a file"),
        ("./relative", "\"./relative\" does not exist"),
        ("/bad/script", "its interpreter or dynamic loader is missing"),
        ("/bad/foreign", "it is for another architecture, or a script without #!"),
    ] {
        let out = c.run(&[], &[program])?;
        ensure!(out.status != 0 && out.stderr.contains(words), "{program}: {out:?}");
        let running = c.start_container(&[], &["sleep", "1000"])?;
        let out = running.exec(&[program])?;
        ensure!(out.status != 0 && out.stderr.contains(words), "exec of {program}: {out:?}");
        running.remove()?;
    }
    Ok(())
}

fn an_exec_beyond_the_sandbox_is_refused(c: &Containerd) -> Result<()> {
    let running = c.start_container(&[], &["sleep", "1000"])?;
    let out = running.exec_with(&["--cwd", "/proc/self/fd/3"], &["true"], b"")?;
    ensure!(out.status != 0 && out.stderr.contains("process.cwd"), "{out:?}");
    let out = running.exec_with(&["--cwd", "/nowhere"], &["true"], b"")?;
    ensure!(out.status != 0 && out.stderr.contains("cwd: chdir to /nowhere: No such file"), "{out:?}");
    ensure!(running.status()? == "RUNNING");
    running.remove()
}

fn absent_capabilities_are_none(c: &Containerd) -> Result<()> {
    let change = |s: &mut Value| {
        s["process"]["capabilities"] = Value::Null;
        s["process"]["noNewPrivileges"] = json!(false);
        s["process"]["args"] = json!(["/bin/grep", "-E", "^(Cap|NoNew)", "/proc/self/status"]);
    };
    let out = spec(c, change)?.run()?.ok()?.text();
    ensure!(out.matches("0000000000000000").count() == 5 && out.contains("NoNewPrivs:\t1"), "{out}");
    Ok(())
}

fn the_shim_names_what_is_wrong_with_its_command_line(c: &Containerd) -> Result<()> {
    let shim = c.home().join("bin/containerd-shim-hardened-v1");
    for (arguments, words) in [
        (&["-namespace", "n", "-id", "a/b", "start"][..], "-id: \"a/b\""),
        (&["-namespace", "", "-id", "a", "start"], "-namespace: is empty"),
        (&["-namespace", "n", "-id", "a", "fly"], "action \"fly\": expected start or delete"),
        (&["-namespace", "n", "-id", "a"], "no action given"),
        (&["-unknown"], "command line"),
    ] {
        let mut command = std::process::Command::new(&shim);
        let out = hardened_integration::run(command.args(arguments), b"", std::time::Duration::from_secs(10))?;
        ensure!(out.status == 1 && out.stderr.contains(words), "{arguments:?}: {out:?}");
    }
    let mut command = std::process::Command::new(&shim);
    let out = hardened_integration::run(command.arg("-v"), b"", std::time::Duration::from_secs(10))?.ok()?;
    ensure!(out.text().contains("0.1.0"), "{out:?}");
    Ok(())
}
