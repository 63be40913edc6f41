//! AppArmor enforcing: `scripts/guest` boots a kernel that runs it.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hardened_integration::cri::{Cri, container_config, runtime_default, security};
use hardened_integration::{Containerd, HARDENED, IMAGE, Output, eventually, run};
use k8s_cri::v1 as cri;
use serde_json::json;

use crate::agent::{self, Agent};
use crate::refusals::spec;

crate::tests!(
    every_process_is_in_the_nodes_profile,
    a_profile_that_is_asked_for_is_stacked_on_top,
    a_profile_that_is_not_loaded_is_refused_with_what_loads_it,
    a_confined_runtime_narrows_its_own_profile,
    the_profile_stands_by_itself,
    the_agent_tells_what_it_denies,
);

/// The claims about pods.
pub(crate) const POD_TESTS: &[crate::PodTest] = &[("pods_get_it_by_every_kind", pods_get_it_by_every_kind)];

const SHOW: &[&str] = &["cat", "/proc/self/attr/current"];

/// Denies what Landlock lets a container read.
const WEB: &str = "profile hardened-test-web { file, capability, network, signal, deny /etc/passwd r, }";

/// A profile of a test, unloaded when dropped.
struct Loaded(&'static str);

impl Loaded {
    fn new(text: &'static str) -> Result<Self> {
        parser("-r", text)?;
        Ok(Self(text))
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        if let Err(error) = parser("-R", self.0) {
            eprintln!("{error:#}");
        }
    }
}

fn parser(what: &str, text: &str) -> Result<Output> {
    let mut command = Command::new("apparmor_parser");
    run(command.args(["-K", what]), text.as_bytes(), Duration::from_secs(30))?.ok()
}

fn every_process_is_in_the_nodes_profile(c: &Containerd) -> Result<()> {
    let restricted = ["--annotation", "io.containerd.hardened.v1/profile=restricted", "--user", "1000:1000"];
    for options in [&[][..], &restricted] {
        let init = c.run(options, SHOW)?.ok()?.text();
        ensure!(init == "hardened (enforce)", "{options:?}: init is in {init}");
        let running = c.start_container(options, &["sleep", "1000"])?;
        let exec = running.exec(SHOW)?.ok()?.text();
        ensure!(exec == init, "{options:?}: exec is in {exec}");
        running.remove()?;
    }
    // What stands for "the runtime's own", and what would be none.
    for name in ["", "unconfined", "runtime/default", "cri-containerd.apparmor.d"] {
        let out = spec(c, |s| {
            s["process"]["apparmorProfile"] = json!(name);
            s["process"]["args"] = json!(SHOW);
        })?;
        let out = out.run()?.ok()?.text();
        ensure!(out == "hardened (enforce)", "{name:?}: {out}");
    }
    Ok(())
}

fn a_profile_that_is_asked_for_is_stacked_on_top(c: &Containerd) -> Result<()> {
    let _loaded = Loaded::new(WEB)?;
    let options = ["--apparmor-profile", "hardened-test-web"];
    let init = c.run(&options, SHOW)?.ok()?.text();
    ensure!(init == "hardened//&hardened-test-web (enforce)", "{init}");
    let running = c.start_container(&options, &["sleep", "1000"])?;
    let exec = running.exec(SHOW)?.ok()?.text();
    ensure!(exec == init, "{exec}");
    let denied = running.exec(&["cat", "/etc/passwd"])?;
    ensure!(denied.status != 0 && denied.stderr.contains("Permission denied"), "{denied:?}");
    // Processes of one stack end each other.
    running.exec(&["sh", "-c", "sleep 100 & kill $! && wait $!; test $? = 143"])?.ok()?;
    running.remove()
}

/// A shell opens the file itself: of a process that is gone nobody can say whose it was.
fn the_agent_tells_what_it_denies(c: &Containerd) -> Result<()> {
    let _loaded =
        Loaded::new("profile hardened-test-told { file, capability, network, signal, audit deny /etc/passwd r, }")?;
    let events = agent::folder(c)?;
    let agent = Agent::start(&["--events", events.to_str().context("a path")?], &[])?;
    let program = "read line < /etc/passwd; exec sleep 1000";
    let running = c.start_container(&["--apparmor-profile", "hardened-test-told"], &["sh", "-c", program])?;
    let find = || agent::told(&events, c, running.id()).into_iter().find(|record| record["Resource"] == "/etc/passwd");
    eventually("the denial is reported", || find().is_some()).with_context(|| agent.lost())?;
    let record = find().context("it is gone again")?;
    ensure!(record["Enforcer"] == "apparmor" && record["HostPID"] == running.pid()?, "{record}");
    ensure!(record["PolicyName"].as_str().is_some_and(|name| name.contains("hardened-test-told")), "{record}");
    running.remove()
}

fn a_profile_that_is_not_loaded_is_refused_with_what_loads_it(c: &Containerd) -> Result<()> {
    let id = c.id("unloaded");
    let options = ["run", "--rm", "--runtime", HARDENED, "--apparmor-profile", "nowhere", IMAGE, &id, "true"];
    let out = c.ctr(&options)?;
    ensure!(out.status != 0, "{out:?}");
    for word in ["AppArmor profile nowhere is not loaded", "apparmor_parser -r /etc/apparmor.d/nowhere"] {
        ensure!(out.stderr.contains(word), "{out:?}");
    }
    c.ctr(&["containers", "delete", &id])?;
    c.nothing_left(&id)
}

/// As where the node confines containerd's shims, by a profile that attaches to their path.
fn a_confined_runtime_narrows_its_own_profile(c: &Containerd) -> Result<()> {
    let text = "profile hardened-test-shim /run/hardened-test-*/bin/containerd-shim-hardened-v1 \
                flags=(attach_disconnected) { file, capability, network, mount, remount, umount, pivot_root, signal, \
                ptrace, unix, change_profile -> **, }";
    let _loaded = Loaded::new(text)?;
    let running = c.start_container(&[], &["sleep", "1000"])?;
    let shim = std::fs::read_to_string(format!("/proc/{}/attr/current", running.shim()?))?;
    ensure!(shim.trim() == "hardened-test-shim (enforce)", "the shim is in {shim}");
    for out in [running.exec(SHOW)?.ok()?.text(), c.run(&[], SHOW)?.ok()?.text()] {
        ensure!(
            out.contains("hardened//&") && out.contains("hardened-test-shim") && out.contains("(enforce)"),
            "{out}"
        );
    }
    let status = running.exec(&["grep", "NoNewPrivs", "/proc/self/status"])?.ok()?.text();
    ensure!(status == "NoNewPrivs:\t1", "{status}");
    running.remove()
}

/// Outside of any other sandbox, as root of the node: what nothing but the profile denies.
fn the_profile_stands_by_itself(_: &Containerd) -> Result<()> {
    let under = |profile: &str, script: &str| {
        let enter = format!("echo exec {profile} > /proc/self/attr/exec && exec sh -c '{script}'");
        run(Command::new("sh").args(["-c", &enter]), b"", Duration::from_secs(30))
    };
    let raw = "python3 -c \"import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)\"";
    for script in [
        "mount -t tmpfs none /mnt",
        "mount -o remount,ro /run",
        "umount /dev/shm",
        "echo x > /proc/sys/kernel/core_pattern",
        "echo h > /proc/sysrq-trigger",
        "head -c 1 /proc/kcore",
        "cat /sys/kernel/security/lsm",
        "echo 1 > /sys/kernel/mm/ksm/run",
        "cat /proc/1/environ",
        "kill -0 1",
        raw,
        "python3 -c \"import socket; socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)\"",
    ] {
        let out = under("hardened", script)?;
        ensure!(out.status != 0, "{script} was not denied");
        let text = out.stderr.to_lowercase();
        // What mount(8) says of EACCES.
        let denials = ["permission denied", "not permitted", "read-only", "must be superuser"];
        ensure!(denials.iter().any(|denial| text.contains(denial)), "{script}: {text}");
    }
    for script in [
        "cat /proc/self/status",
        "sleep 100 & kill $!",
        "python3 -c \"import socket; socket.socket(socket.AF_INET, socket.SOCK_STREAM)\"",
        "python3 -c \"import socket; socket.socketpair(socket.AF_UNIX)\"",
        "python3 -c \"import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)\"",
    ] {
        under("hardened", script)?.ok().with_context(|| script.to_owned())?;
    }
    under("hardened-raw", raw)?.ok()?;
    ensure!(under("hardened-raw", "mount -t tmpfs none /mnt")?.status != 0);
    Ok(())
}

fn pods_get_it_by_every_kind(c: &Cri) -> Result<()> {
    let kind = |kind: cri::security_profile::ProfileType, name: &str| cri::SecurityProfile {
        profile_type: kind.into(),
        localhost_ref: name.to_owned(),
    };
    let _loaded = Loaded::new(WEB)?;
    let pod = c.pod("apparmor")?;
    let of = |name: &str, profile| -> Result<String> {
        let mut config = container_config(name, &["sleep", "1000"]);
        security(&mut config).apparmor = profile;
        let id = pod.run(config)?;
        Ok(String::from_utf8_lossy(&pod.exec(&id, SHOW)?.stdout).trim_end().to_owned())
    };
    for (name, profile, wanted) in [
        ("nothing", None, "hardened (enforce)"),
        ("default", Some(runtime_default()), "hardened (enforce)"),
        ("unconfined", Some(kind(cri::security_profile::ProfileType::Unconfined, "")), "hardened (enforce)"),
        (
            "localhost",
            Some(kind(cri::security_profile::ProfileType::Localhost, "hardened-test-web")),
            "hardened//&hardened-test-web (enforce)",
        ),
    ] {
        let found = of(name, profile)?;
        ensure!(found == wanted, "{name}: {found}");
    }
    pod.remove()
}
