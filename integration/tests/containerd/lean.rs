//! What is not done twice.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hardened_integration::Containerd;
use hardened_integration::direct::Direct;
use serde_json::json;

crate::tests!(the_mount_table_is_read_once);

/// A node with a hundred pods has a thousand mounts or more, and the kernel writes a line for each.
fn the_mount_table_is_read_once(c: &Containerd) -> Result<()> {
    let mut config = c.spec(&["/bin/sleep", "1000"])?;
    // One source that is not the pod's own has to be found among the host's mounts.
    let volume = c.home().join("volume");
    fs::create_dir_all(&volume)?;
    let options = ["rbind", "ro"];
    let mount = json!({"destination": "/data", "type": "bind", "source": volume, "options": options});
    config["mounts"].as_array_mut().context("mounts")?.push(mount);
    let log = c.home().join("opened");
    let trace = format!("strace -D -f -qq -e trace=open,openat,openat2 -o {}", log.display());
    let wrapper: Vec<&str> = trace.split(' ').collect();
    let mut direct = Direct::start_under(c, "containerd-shim-hardened-v1", &config, &wrapper)?;
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
    let is_shim = |line: &str| !line.starts_with("strace") && line.contains(direct.id());
    let shim = c.shims()?.into_iter().find(|(_, line)| is_shim(line)).context("no shim")?.0;
    direct.end()?;
    // The tracer writes its last lines once everything that it traced has ended.
    let until = Instant::now() + Duration::from_secs(10);
    let mut opened = String::new();
    while Instant::now() < until && !opened.contains(&format!("{shim} +++ exited")) {
        std::thread::sleep(Duration::from_millis(50));
        opened = fs::read_to_string(&log)?;
    }
    let mut reads: BTreeMap<&str, usize> = BTreeMap::new();
    let is_table = |line: &&str| ["mountinfo\"", "/mounts\"", "mountstats\""].iter().any(|name| line.contains(name));
    for line in opened.lines().filter(is_table) {
        *reads.entry(line.split(' ').next().unwrap_or_default()).or_default() += 1;
    }
    ensure!(reads.remove(shim.to_string().as_str()) == Some(1), "the shim's reads: {opened}");
    ensure!(!reads.is_empty() && reads.values().all(|count| *count == 1), "{reads:?}: {opened}");
    Ok(())
}
