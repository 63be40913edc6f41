//! SELinux enforcing: `scripts/guest -l selinux` boots a kernel that runs it.

use std::fs;

use anyhow::{Context, Result, ensure};
use hardened_integration::cri::{Cri, container_config, security};
use hardened_integration::{Containerd, eventually, label_file};
use k8s_cri::v1 as cri;
use serde_json::json;

use crate::agent::{self, Agent};
use crate::refusals::spec;

crate::tests!(
    a_container_that_asks_for_none_gets_a_label_of_its_own,
    a_label_that_is_asked_for_is_on_init_and_exec,
    labels_that_a_pod_may_not_have_are_refused,
    files_of_other_categories_are_denied,
    the_agent_tells_what_it_denies,
);

/// The claims about pods.
pub(crate) const POD_TESTS: &[crate::PodTest] = &[("pods_are_kept_apart_by_category", pods_are_kept_apart_by_category)];

const SHOW: &[&str] = &["sh", "-c", "tr -d '\\0' < /proc/self/attr/current"];

/// The level of a process label that must be of the usual type.
fn level(label: &str) -> Result<&str> {
    label.strip_prefix("system_u:system_r:container_t:").with_context(|| format!("the label is {label}"))
}

fn a_container_that_asks_for_none_gets_a_label_of_its_own(c: &Containerd) -> Result<()> {
    let restricted = ["--annotation", "io.containerd.hardened.v1/profile=restricted", "--user", "1000:1000"];
    let mut levels = Vec::new();
    for options in [&[][..], &restricted] {
        let running = c.start_container(options, &["sleep", "1000"])?;
        let init = fs::read_to_string(format!("/proc/{}/attr/current", running.pid()?))?;
        let init = init.trim_end_matches(['\0', '\n']);
        let exec = running.exec(SHOW)?.ok()?.text();
        ensure!(init == exec, "init is {init}, exec is {exec}");
        let level = level(&exec)?;
        ensure!(level.starts_with("s0:c") && level.contains(','), "{level}");
        let mounts = running.exec(&["cat", "/proc/mounts"])?.ok()?.text();
        let root = mounts.lines().find(|l| l.contains(" / ")).context("no root")?;
        ensure!(root.contains(&format!("system_u:object_r:container_file_t:{level}")), "{root}");
        running.exec(&["sh", "-c", "echo x > /tmp/x && cat /tmp/x"])?.ok()?;
        running
            .exec(&["sh", "-c", "echo x > /dev/shm/x && cat /dev/shm/x && test -e /dev/null && : > /dev/null"])?
            .ok()?;
        levels.push(level.to_owned());
        running.remove()?;
    }
    ensure!(levels[0] != levels[1], "two containers have the level {}", levels[0]);
    Ok(())
}

fn a_label_that_is_asked_for_is_on_init_and_exec(c: &Containerd) -> Result<()> {
    let asked = "system_u:system_r:container_t:s0:c7,c8";
    let out = spec(c, |s| {
        s["process"]["selinuxLabel"] = json!(asked);
        s["process"]["args"] = json!(SHOW);
    })?;
    let out = out.run()?;
    ensure!(out.stdout == asked.as_bytes(), "{out:?}");
    Ok(())
}

fn labels_that_a_pod_may_not_have_are_refused(c: &Containerd) -> Result<()> {
    for (label, words) in [
        ("system_u:system_r:spc_t:s0", "not one of the allowed types"),
        ("system_u:system_r:kernel_t:s0", "not one of the allowed types"),
        ("root:sysadm_r:container_t:s0", "user and role are system_u:system_r"),
        ("system_u:system_r:container_t:s0:c99999", "is no label of this node's SELinux policy"),
        ("system_u:system_r:container_kvmm_t:s0", "is no label of this node's SELinux policy"),
    ] {
        let out = spec(c, |s| s["process"]["selinuxLabel"] = json!(label))?.run()?;
        ensure!(out.status != 0 && out.stderr.contains(words), "{label}: {out:?}");
    }
    Ok(())
}

fn files_of_other_categories_are_denied(c: &Containerd) -> Result<()> {
    let folder = c.volume()?;
    fs::write(folder.join("secret"), "of c7,c8")?;
    for path in [folder.clone(), folder.join("secret")] {
        label_file(&path, "system_u:object_r:container_file_t:s0:c7,c8")?;
    }
    let read = |categories: &str| {
        let out = spec(c, |s| {
            s["process"]["selinuxLabel"] = json!(format!("system_u:system_r:container_t:s0:{categories}"));
            s["process"]["args"] = json!(["cat", "/data/secret"]);
            if let Some(mounts) = s["mounts"].as_array_mut() {
                mounts.push(
                    json!({"destination": "/data", "type": "bind", "source": folder, "options": ["rbind", "rw"]}),
                );
            }
        })?;
        out.run()
    };
    ensure!(read("c7,c8")?.ok()?.text() == "of c7,c8");
    let denied = read("c7,c9")?;
    ensure!(denied.status != 0 && denied.stderr.contains("Permission denied"), "{denied:?}");
    Ok(())
}

/// A shell opens the file itself: of a process that is gone nobody can say whose it was.
fn the_agent_tells_what_it_denies(c: &Containerd) -> Result<()> {
    let folder = c.volume()?;
    fs::write(folder.join("secret"), "of c7,c8")?;
    // Debian's policy does not log denials on folders: `dontaudit`.
    label_file(&folder, "system_u:object_r:container_file_t:s0")?;
    label_file(&folder.join("secret"), "system_u:object_r:container_file_t:s0:c7,c8")?;
    let events = agent::folder(c)?;
    let agent = Agent::start(&["--events", events.to_str().context("a path")?], &[])?;
    let mount = format!("type=bind,src={},dst=/data,options=rbind:ro", folder.display());
    let running =
        c.start_container(&["--mount", &mount], &["sh", "-c", "read line < /data/secret; exec sleep 1000"])?;
    let find = || agent::told(&events, c, running.id()).into_iter().find(|record| record["Enforcer"] == "selinux");
    eventually("the denial is reported", || find().is_some()).with_context(|| agent.lost())?;
    let record = find().context("it is gone again")?;
    ensure!(record["HostPID"] == running.pid()? && record["Operation"] == "File", "{record}");
    ensure!(record["Setting"].as_str().is_some_and(|s| s.contains("allow container_t container_file_t:")), "{record}");
    running.remove()
}

fn pods_are_kept_apart_by_category(c: &Cri) -> Result<()> {
    let show = |pod: &hardened_integration::cri::Pod<'_>, id: &str| -> Result<String> {
        Ok(String::from_utf8_lossy(&pod.exec(id, SHOW)?.stdout).into_owned())
    };
    let mut levels = Vec::new();
    for name in ["one", "other"] {
        let pod = c.pod(name)?;
        let ids: Vec<String> = ["app", "sidecar"]
            .iter()
            .map(|name| pod.run(container_config(name, &["sleep", "1000"])))
            .collect::<Result<_>>()?;
        let (app, sidecar) = (show(&pod, &ids[0])?, show(&pod, &ids[1])?);
        ensure!(app == sidecar, "app is {app}, sidecar is {sidecar}");
        levels.push(level(&app)?.to_owned());
        pod.remove()?;
    }
    ensure!(levels[0] != levels[1], "both pods have the level {}", levels[0]);

    let pod = c.pod("asks")?;
    let mut config = container_config("app", &["sleep", "1000"]);
    let mut options = cri::SeLinuxOption {
        user: "system_u".to_owned(),
        role: "system_r".to_owned(),
        r#type: "container_t".to_owned(),
        level: "s0:c3,c4".to_owned(),
    };
    security(&mut config).selinux_options = Some(options.clone());
    let id = pod.run(config.clone())?;
    ensure!(show(&pod, &id)? == "system_u:system_r:container_t:s0:c3,c4", "{}", show(&pod, &id)?);
    options.r#type = "spc_t".to_owned();
    security(&mut config).selinux_options = Some(options);
    if let Some(metadata) = config.metadata.as_mut() {
        metadata.name = "wider".to_owned();
    }
    let error = pod.run(config).err().context("spc_t was let through")?;
    ensure!(format!("{error:#}").contains("spc_t"), "{error:#}");
    pod.remove()
}
