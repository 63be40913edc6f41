//! What critest asks of a runtime and no other module here does: `docs/conformance.md` has its specs one by one.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use hardened_integration::cri::{Cri, Pod, container_config, security};
use hardened_integration::{Generation, eventually, mount};
use k8s_cri::v1 as cri;

use crate::escapes::Mounted;
use crate::pods::{CHANNELS, Stream, contains, exec_stream, host, kubelet, run_in, shell, volume};

crate::pod_tests!(
    containers_of_a_pod_share_what_is_the_pods,
    namespaces_of_the_host_are_joined_under_compatible,
    an_exec_has_a_terminal_where_its_request_says_so,
    a_terminal_is_attached_to,
    groups_of_the_image_are_taken_or_left,
    mounts_that_come_later_are_seen,
    an_unsafe_sysctl_is_set_where_the_policy_says_so,
);

/// The namespaces of a process, as text of procfs.
const NAMESPACES: &str = "for n in net ipc uts mnt pid; do readlink /proc/self/ns/$n; done";

fn containers_of_a_pod_share_what_is_the_pods(c: &Cri) -> Result<()> {
    let pod = c.pod("shared")?;
    let server = "hostname; echo shared >/dev/shm/word; while :; do echo served | nc -l -p 8080; done";
    let app = pod.run(shell("app", server))?;
    let ask = "hostname; cat /dev/shm/word; nc -w 5 127.0.0.1 8080 </dev/null; ps | grep -c '[n]c -l'";
    let mut last = String::new();
    let name = pod.config().hostname.clone();
    eventually("the other container answers", || {
        let mut config = shell("other", ask);
        config.metadata.get_or_insert_default().attempt = u32::try_from(last.len()).unwrap_or_default();
        last = run_in(&pod, config).map(|(_, log)| log).unwrap_or_default();
        last.lines().map(str::trim).eq([name.as_str(), "shared", "served", "0"])
    })
    .with_context(|| last.clone())?;
    ensure!(pod.log("app")?.starts_with(&name));
    let one = String::from_utf8(pod.exec(&app, &["sh", "-c", NAMESPACES])?.stdout)?;
    let (_, other) = run_in(&pod, shell("another", NAMESPACES))?;
    let same: Vec<bool> = one.lines().zip(other.lines()).map(|(one, other)| one == other).collect();
    // Mounts and processes are the container's own.
    ensure!(same == [true, true, true, false, false], "{one}\n{other}");
    pod.stop(&app, 0)?;
    pod.remove()
}

/// As `hostNetwork`, `hostIPC` and `hostPID` do; the pod's own annotation cannot ask for that.
fn namespaces_of_the_host_are_joined_under_compatible(c: &Cri) -> Result<()> {
    let c = Cri::start_beside(c)?;
    c.set_policy("default = \"compatible\"\n")?;
    let mut config = c.pod_config("node");
    host(&mut config, |n| {
        (n.network, n.pid, n.ipc) =
            (cri::NamespaceMode::Node.into(), cri::NamespaceMode::Node.into(), cri::NamespaceMode::Node.into());
    });
    config.hostname.clear();
    let of_pod =
        config.linux.clone().and_then(|linux| linux.security_context).and_then(|context| context.namespace_options);
    let pod = c.run_pod(config)?;
    // A process of the host: its containerd.
    let mut config =
        shell("app", &format!("{NAMESPACES}; ls -d /proc/{0}; ! ls /proc/{0}/root/", c.containerd().pid()?));
    security(&mut config).namespace_options = of_pod;
    let (code, log) = run_in(&pod, config)?;
    ensure!(code == 0, "{log}");
    let of_daemon =
        |kind: &str| fs::read_link(format!("/proc/{}/ns/{kind}", c.containerd().pid()?)).map_err(anyhow::Error::from);
    for kind in ["net", "ipc", "pid"] {
        contains(&log, &[&of_daemon(kind)?.display().to_string()])?;
    }
    ensure!(!log.contains(&of_daemon("mnt")?.display().to_string()), "{log}");
    pod.remove()
}

/// Whatever the container itself has.
fn an_exec_has_a_terminal_where_its_request_says_so(c: &Cri) -> Result<()> {
    let pod = c.pod("terminals")?;
    for of_container in [false, true] {
        let mut config = container_config(if of_container { "with" } else { "without" }, &["sleep", "1000"]);
        config.tty = of_container;
        let app = pod.run(config)?;
        for tty in [false, true] {
            let program = ["sh", "-c", "if [ -t 1 ]; then echo yes: $(tty); else echo no: -; fi"];
            let mut stream = exec_stream(c, &app, tty, &program)?;
            let said = stream.read_until(1, "\n")?;
            ensure!(said.starts_with(if tty { "yes: /dev/pts/" } else { "no: -" }), "{of_container} {tty}: {said}");
        }
        // ExecSync, as probes use it, has none.
        let out = pod.exec(&app, &["sh", "-c", "! tty; ! [ -t 0 ]; echo out; echo err >&2; exit 7"])?;
        let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        ensure!(out.exit_code == 7 && stdout == "not a tty\nout\n" && stderr == "err\n", "{of_container}: {out:?}");
    }
    pod.remove()
}

fn a_terminal_is_attached_to(c: &Cri) -> Result<()> {
    let pod = c.pod("attach-terminal")?;
    let mut config = shell("app", "tty; stty size; while read a; do echo heard $a; done");
    (config.stdin, config.tty) = (true, true);
    let app = pod.run(config)?;
    let request = cri::AttachRequest { container_id: app, stdin: true, tty: true, stdout: true, stderr: false };
    let answer = c.call(|mut client| async move { client.attach(request).await })?;
    let mut stream = Stream::open(c, &answer.url, CHANNELS)?;
    stream.send(0, b"a word\n")?;
    stream.read_until(1, "heard a word")?;
    contains(&pod.log("app")?, &["/dev/"])?;
    pod.remove()
}

/// `supplementalGroupsPolicy`: the groups that the image's `/etc/group` gives its user come along, or do not.
fn groups_of_the_image_are_taken_or_left(c: &Cri) -> Result<()> {
    let pod = c.pod("groups")?;
    for (policy, expected) in
        [(cri::SupplementalGroupsPolicy::Merge, "3000 2000 5000"), (cri::SupplementalGroupsPolicy::Strict, "3000 2000")]
    {
        let mut config = shell(&format!("{policy:?}").to_lowercase(), "id -G; cat /proc/self/status | grep ^Groups");
        let context = security(&mut config);
        context.run_as_user = Some(cri::Int64Value { value: 1000 });
        context.run_as_group = Some(cri::Int64Value { value: 3000 });
        context.supplemental_groups = vec![2000];
        context.supplemental_groups_policy = policy.into();
        let (code, log) = run_in(&pod, config)?;
        let sorted = |text: &str| {
            let mut ids: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
            ids.sort();
            ids
        };
        // containerd 1.7 merges whatever it is asked for.
        let expected = if c.containerd().generation() == Generation::One { "3000 2000 5000" } else { expected };
        ensure!(code == 0 && sorted(log.lines().next().unwrap_or_default()) == sorted(expected), "{policy:?}: {log}");
    }
    pod.remove()
}

/// `mountPropagation: HostToContainer`: of the pod's own volume; of a path that is granted read-only where the policy says
/// so too, since the host's later mounts have the host's flags.
fn mounts_that_come_later_are_seen(c: &Cri) -> Result<()> {
    let c = Cri::start_beside(c)?;
    let seen = |of: &dyn Fn(&Pod<'_>) -> Result<PathBuf>, program: &str, readonly: bool| -> Result<(i32, String)> {
        let pod = c.pod("later")?;
        let data = &of(&pod)?;
        let shared = Mounted::new(&["-t", "tmpfs", "tmpfs"], data)?;
        mount(&["--make-rshared", &data.display().to_string()])?;
        fs::create_dir(data.join("later"))?;
        let wait = "until [ -e /data/later/seen ]; do [ $((i+=1)) -gt 600 ] && exit 9; sleep 0.1; done";
        let mut config = shell("web", &format!("{wait}; {program}"));
        config.mounts = vec![cri::Mount {
            propagation: cri::MountPropagation::PropagationHostToContainer.into(),
            ..volume(data, "/data", readonly)
        }];
        let id = pod.create(config)?;
        pod.start(&id)?;
        let later = Mounted::new(&["-t", "tmpfs", "tmpfs"], &data.join("later"))?;
        fs::write(data.join("later/seen"), "")?;
        let end = (pod.wait(&id)?.exit_code, pod.log("web")?);
        pod.remove()?;
        drop((later, shared));
        Ok(end)
    };
    let own = |pod: &Pod<'_>| kubelet(&c, pod, "volumes/kubernetes.io~empty-dir/data");
    let folder = c.containerd().home().join("later");
    fs::create_dir_all(&folder)?;
    let of_host = |_: &Pod<'_>| Ok(folder.clone());
    ensure!(seen(&own, "touch /data/later/x /data/y", false)? == (0, String::new()));
    let grant = format!("[profile.node.host]\npaths = {{ {folder:?} = \"read-only\" }}\n");
    c.set_policy(&format!("default = \"node\"\n{grant}"))?;
    let error = seen(&of_host, "true", true).err().context("it was started")?;
    contains(&format!("{error:#}"), &["mountPropagation", "host.later-mounts = true"])?;
    c.set_policy(&format!("default = \"node\"\n{grant}later-mounts = true\n"))?;
    let (code, log) = seen(&of_host, "! touch /data/later/x && ! touch /data/y", true)?;
    ensure!(code == 0, "{log}");
    Ok(())
}

fn an_unsafe_sysctl_is_set_where_the_policy_says_so(c: &Cri) -> Result<()> {
    let c = Cri::start_beside(c)?;
    c.set_policy("default = \"own\"\n[profile.own.host]\nsysctls = [\"kernel.msgmax\"]\n")?;
    let mut config = c.pod_config("sysctl");
    config.linux.get_or_insert_default().sysctls = [("kernel.msgmax".to_owned(), "8193".to_owned())].into();
    let pod = c.run_pod(config)?;
    let (_, log) = run_in(&pod, shell("app", "cat /proc/sys/kernel/msgmax"))?;
    ensure!(log == "8193", "{log}");
    pod.remove()
}
