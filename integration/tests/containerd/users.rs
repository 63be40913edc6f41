//! User namespaces.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use hardened_integration::cri::{Cri, Pod, container_config, new_users, security, users_of};
use hardened_integration::{Containerd, Generation, eventually, hardenctl};
use k8s_cri::v1 as cri;
use serde_json::json;

use crate::pods::{contains, exec_stream, host, init, kubelet, refused, run_in, shell, volume};
use crate::refusals::spec;
use crate::sandbox::allowed;

crate::tests!(a_new_user_namespace_holds_init_and_exec, owners_of_a_volume_are_mapped_without_a_user_namespace,);

/// The claims about pods.
pub(crate) const POD_TESTS: &[crate::PodTest] = &[
    ("root_of_a_user_namespace_is_nobody_on_the_host", root_of_a_user_namespace_is_nobody_on_the_host),
    ("the_sandbox_is_the_same_in_a_user_namespace", the_sandbox_is_the_same_in_a_user_namespace),
    ("volumes_of_a_user_namespace_have_its_owners", volumes_of_a_user_namespace_have_its_owners),
    ("namespaces_that_are_none_are_refused", namespaces_that_are_none_are_refused),
    ("a_policy_demands_user_namespaces", a_policy_demands_user_namespaces),
];

fn a_new_user_namespace_holds_init_and_exec(c: &Containerd) -> Result<()> {
    // One range for each test at a time: see pods.
    let host = if c.generation() == Generation::Two { 2_000_000 } else { 2_100_000 };
    let map = format!("0:{host}:65536");
    let options = ["--uidmap", &map, "--gidmap", &map, "--remap-labels"];
    let show = [
        "sh",
        "-c",
        "tr -s ' ' < /proc/self/uid_map; id -G; stat -c %u / /proc/self/status; touch /usr/x 2>&1; : > /tmp/x",
    ];
    let running = c.start_container(&options, &["sleep", "1000"])?;
    let init = c.run(&options, &show)?.ok()?.text();
    let exec = running.exec(&show)?.ok()?.text();
    let want = format!(" 0 {host} 65536\n0\n0\n0\n");
    ensure!(init.starts_with(&want) && init == exec, "init:\n{init}\nexec:\n{exec}");
    let status = fs::read_to_string(format!("/proc/{}/status", running.pid()?))?;
    ensure!(status.contains(&format!("Uid:\t{host}\t{host}\t{host}")), "{status}");
    // It walks through this container's state to its volumes, and can read none of it.
    let mode = |path: &Path| Ok::<_, anyhow::Error>(fs::metadata(path)?.mode() & 0o7777);
    let state = Path::new("/run/hardened").join(c.namespace()).join(running.id());
    for (name, want) in [("", 0o711), ("runtime", 0o700), ("config.json", 0o600), ("admission.json", 0o600)] {
        let found = mode(&state.join(name))?;
        ensure!(found == want, "{name}: {found:o}");
    }
    let name = format!("{}/{}", c.namespace(), running.id());
    let told = hardenctl(&["explain", "--container", &name])?.ok()?.text();
    ensure!(told.contains(&format!("root is uid {host} of the host")), "{told}");
    running.remove()
}

fn owners_of_a_volume_are_mapped_without_a_user_namespace(c: &Containerd) -> Result<()> {
    let volume = c.volume()?;
    fs::write(volume.join("file"), "")?;
    let one = json!([{"containerID": 0, "hostID": 1000, "size": 1}]);
    let out = spec(c, |s| {
        s["process"]["args"] = json!(["stat", "-c", "%u:%g", "/data/file"]);
        let mount = json!({"destination": "/data", "type": "bind", "source": volume,
            "options": ["rbind", "idmap"], "uidMappings": one, "gidMappings": one});
        if let Some(mounts) = s["mounts"].as_array_mut() {
            mounts.push(mount);
        }
    })?;
    let out = out.run()?.ok()?.text();
    ensure!(out == "1000:1000", "{out}");
    Ok(())
}

/// A pod with `hostUsers: false`.
fn pod_in_a_user_namespace<'a>(c: &'a Cri, name: &str) -> Result<Pod<'a>> {
    let mut config = c.pod_config(name);
    let users = new_users();
    host(&mut config, |n| n.userns_options = Some(users.clone()));
    c.run_pod(config)
}

/// A container of such a pod.
fn inside(pod: &Pod<'_>, mut config: cri::ContainerConfig) -> cri::ContainerConfig {
    security(&mut config).namespace_options.get_or_insert_default().userns_options = users_of(pod.config()).cloned();
    config
}

/// Real and effective user and group, on the host, of a process.
fn host_users(pid: i32) -> Result<Vec<u32>> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let ids = status.lines().filter_map(|line| line.strip_prefix("Uid:").or_else(|| line.strip_prefix("Gid:")));
    ids.flat_map(|ids| ids.split_whitespace().take(2)).map(|id| Ok(id.parse()?)).collect()
}

fn root_of_a_user_namespace_is_nobody_on_the_host(c: &Cri) -> Result<()> {
    let pod = pod_in_a_user_namespace(c, "users")?;
    let show = "id -u; id -G; tr -s ' ' < /proc/self/uid_map; touch /srv/x && stat -c %u:%g /srv/x /bin/busybox; \
                echo null > /dev/null; hostname; cat /etc/resolv.conf > /dev/null && echo resolves";
    let app = pod.run(inside(&pod, shell("app", &format!("{show}; echo out > /dev/stdout; sleep 1000"))))?;
    let root = users_of(pod.config()).context("no user namespace")?.uids[0].host_id;
    let want = format!("0\n0\n 0 {root} 65536\n0:0\n0:0\n{}\nresolves", pod.config().hostname);
    eventually("it has said all", || pod.log("app").is_ok_and(|log| log.ends_with("out")))?;
    ensure!(pod.log("app")? == format!("{want}\nout"), "{}", pod.log("app")?);
    let out = pod.exec(&app, &["sh", "-c", show])?;
    ensure!(String::from_utf8_lossy(&out.stdout).trim_end() == want, "{}", String::from_utf8_lossy(&out.stdout));

    let on_host = host_users(init(&app)?)?;
    ensure!(on_host == [root; 4], "{on_host:?}");
    // A user of the container is no user of the host either, and reaches its streams.
    let mut config = inside(&pod, shell("user", "echo $(id -u) > /dev/stderr; sleep 1000"));
    security(&mut config).run_as_user = Some(cri::Int64Value { value: 1000 });
    let user = pod.run(config)?;
    eventually("it has said who it is", || pod.log("user").is_ok_and(|log| log == "1000"))?;
    let on_host = host_users(init(&user)?)?;
    ensure!(on_host == [root + 1000; 4], "{on_host:?}");
    // So is its terminal.
    let mut terminal = exec_stream(
        c,
        &user,
        true,
        &["sh", "-c", "while [ $(stat -c %u $(tty)) != 1000 ]; do :; done; echo yes > $(tty)"],
    )?;
    terminal.read_until(1, "yes")?;
    pod.remove()
}

fn the_sandbox_is_the_same_in_a_user_namespace(c: &Cri) -> Result<()> {
    let pod = pod_in_a_user_namespace(c, "users-probe")?;
    let (code, init) = run_in(&pod, inside(&pod, container_config("probe", &["hardened-probe"])))?;
    ensure!(code == 0, "{init}");
    let mut config = inside(&pod, container_config("app", &["sleep", "1000"]));
    config.linux.get_or_insert_default().resources.get_or_insert_default().oom_score_adj = 500;
    let app = pod.run(config)?;
    let score = pod.exec(&app, &["cat", "/proc/self/oom_score_adj"])?.stdout;
    ensure!(score == b"500\n", "{score:?}");
    let exec = String::from_utf8(pod.exec(&app, &["hardened-probe"])?.stdout)?;
    for (place, said) in [("init", init), ("exec", exec)] {
        ensure!(said.lines().count() >= 100, "{said}");
        let allowed = allowed(&said)?;
        ensure!(allowed.is_empty(), "{place}: {allowed:?}");
    }
    let status = pod.exec(&app, &["grep", "-E", "^(CapBnd|NoNewPrivs|Seccomp|Groups)", "/proc/self/status"])?.stdout;
    let status = String::from_utf8_lossy(&status).into_owned();
    contains(&status, &["CapBnd:\t00000000000005fb", "NoNewPrivs:\t1", "Seccomp:\t2", "Groups:\t"])?;
    pod.remove()
}

fn volumes_of_a_user_namespace_have_its_owners(c: &Cri) -> Result<()> {
    let pod = pod_in_a_user_namespace(c, "users-volume")?;
    let data = kubelet(c, &pod, "volumes/kubernetes.io~empty-dir/data")?;
    // As the kubelet's own folders: nobody but root of the host comes here.
    fs::set_permissions(&data, fs::Permissions::from_mode(0o700))?;
    fs::write(data.join("secret"), "of root")?;
    fs::set_permissions(data.join("secret"), fs::Permissions::from_mode(0o600))?;
    let mut config = shell("app", "cat /data/secret; touch /data/new; stat -c ' %u' /data/new");
    let mapped = c.containerd().generation() == Generation::Two;
    let mut mount = volume(&data, "/data", false);
    if mapped {
        let users = users_of(pod.config()).context("no user namespace")?;
        (mount.uid_mappings, mount.gid_mappings) = (users.uids.clone(), users.gids.clone());
    }
    config.mounts = vec![mount];
    let (_, log) = run_in(&pod, inside(&pod, config))?;
    if mapped {
        ensure!(log == "of root 0", "{log}");
        ensure!(fs::metadata(data.join("new"))?.uid() == 0);
    } else {
        // containerd 1.7 maps no owners: the folder is of somebody who does not exist.
        contains(&log, &["can't open '/data/secret': Permission denied"])?;
    }
    pod.remove()
}

fn namespaces_that_are_none_are_refused(c: &Cri) -> Result<()> {
    let mut config = c.pod_config("users-root");
    let ids = || vec![cri::IdMapping { host_id: 0, container_id: 0, length: 65536 }];
    host(&mut config, |n| {
        n.userns_options = Some(cri::UserNamespace { uids: ids(), gids: ids(), ..new_users() });
    });
    let error = c.run_pod(config).err().context("it was started")?;
    contains(&format!("{error:#}"), &["spec.hostUsers: root of the container would be root of the host"])?;

    let pod = pod_in_a_user_namespace(c, "users-beyond")?;
    let mut config = inside(&pod, container_config("web", &["true"]));
    security(&mut config).run_as_user = Some(cri::Int64Value { value: 70_000 });
    let error = refused(&pod, config)?;
    match c.containerd().generation() {
        Generation::One => contains(&error, &["spec.containers[web].securityContext.runAsUser: 70000 is not mapped"])?,
        // It looks first.
        Generation::Two => contains(&error, &["container ID 70000 cannot be mapped to a host ID"])?,
    }
    pod.remove()
}

fn a_policy_demands_user_namespaces(c: &Cri) -> Result<()> {
    let c = Cri::start_beside(c)?;
    c.set_policy("default = \"users\"\n[profile.users.user]\nown-namespace = true\n")?;
    let error = c.pod("host-users").err().context("it was started")?;
    contains(
        &format!("{error:#}"),
        &["spec.hostUsers: the container would run without a user namespace", "set hostUsers: false"],
    )?;
    if c.containerd().generation() == Generation::Two {
        // It gives such a pod no handler with a policy of its own.
        return Ok(());
    }
    let pod = pod_in_a_user_namespace(&c, "own-users")?;
    let (code, log) = run_in(&pod, inside(&pod, shell("app", "echo ran")))?;
    ensure!(code == 0 && log == "ran", "{log}");
    pod.remove()
}
