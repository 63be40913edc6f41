//! What is not done twice.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use hardened_integration::direct::Direct;
use hardened_integration::{Containerd, eventually};
use serde_json::json;

crate::tests!(the_mount_table_is_read_once);

/// A node with a hundred pods has a thousand mounts or more, and the kernel writes a line for each.
///
/// libcontainer's own processes look into theirs for hierarchies of cgroup v1, once for each of the twelve that there
/// can be: the jail's table, which has a dozen lines whatever the node has.
fn the_mount_table_is_read_once(c: &Containerd) -> Result<()> {
    let mut config = c.spec(&["/bin/sleep", "1000"])?;
    // One source that is not the pod's own has to be found among the host's mounts.
    let volume = c.home().join("volume");
    fs::create_dir_all(&volume)?;
    let options = ["rbind", "ro"];
    let mount = json!({"destination": "/srv", "type": "bind", "source": volume, "options": options});
    config["mounts"].as_array_mut().context("mounts")?.push(mount);
    let mut direct = Direct::start(c, "containerd-shim-hardened-v1", &config)?;
    let shim = c.shims()?.into_iter().find(|(_, line)| line.contains(direct.id())).context("no shim")?.0;
    let log = c.home().join("opened");
    let mut tracer = Command::new("strace")
        .args(["-f", "-qq", "-e", "trace=execve,open,openat,openat2", "-p", &shim.to_string(), "-o"])
        .arg(&log)
        .spawn()
        .context("run strace")?;
    let status = format!("/proc/{shim}/status");
    let is_traced = || fs::read_to_string(&status).is_ok_and(|status| !status.contains("TracerPid:\t0\n"));
    eventually("strace is attached to the shim", is_traced)?;
    let policy = c.home().join("policy-with-volume");
    fs::create_dir_all(&policy)?;
    fs::write(policy.join("policy.toml"), "default = \"compatible\"\n")?;
    direct.set_policy(&policy);
    direct.create_and_start(None)?;
    let mut process = config["process"].clone();
    process["args"] = json!(["/bin/true"]);
    for _ in 0..2 {
        direct.exec(&process)?;
    }
    direct.end()?;
    // Everything that it traced has ended.
    tracer.wait().context("wait for strace")?;
    let opened = fs::read_to_string(&log)?;
    let mut reads: BTreeMap<String, usize> = BTreeMap::new();
    let is_table =
        |line: &&str| ["mountinfo\"", "self/mounts\"", "proc/mounts\""].iter().any(|name| line.contains(name));
    let pid = |line: &'_ str| line.split(' ').next().unwrap_or_default().to_owned();
    for line in opened.lines().filter(is_table) {
        *reads.entry(pid(line)).or_default() += 1;
    }
    let launchers: BTreeSet<String> = opened.lines().filter(|line| line.contains("\"launch\"")).map(pid).collect();
    ensure!(reads.get(&shim.to_string()) == Some(&1), "the shim's reads: {reads:?}");
    ensure!(launchers.len() == 3, "a create and two execs have three launchers: {launchers:?}");
    for launcher in launchers {
        let count = reads.remove(&launcher).unwrap_or_default();
        let lines: Vec<&str> = opened.lines().filter(|line| line.starts_with(&launcher) && is_table(line)).collect();
        ensure!(count <= 1, "a launcher reads it {count} times: {lines:?}");
    }
    reads.remove(&shim.to_string());
    ensure!(reads.values().all(|count| *count <= 12), "{reads:?}");
    Ok(())
}
