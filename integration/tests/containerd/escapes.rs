//! Ways out of the sandbox that were open once: what each of them did to the host is not done.
//!
//! A refusal is as good as a start that harms nothing; so what is looked at is the harm.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use hardened_integration::cri::Cri;
use hardened_integration::hostile::{Case, Entry, Kind, Range, Sentinels, Swapper, generate};
use hardened_integration::{Containerd, Output, Running, has_cgroup_v2, mount, processes, run};
use serde_json::{Value, json};

use crate::pods::{kubelet, shell, volume};
use crate::refusals::spec;
use crate::sandbox::small_image;

crate::tests!(
    an_image_whose_dev_is_a_link_changes_nothing_on_the_host,
    a_volume_at_dev_that_changes_meanwhile_makes_nothing_on_the_host,
    an_exec_never_runs_outside_of_its_container,
    system_folders_stay_read_only_for_an_exec_wherever_links_lead_by_then,
    volumes_stay_without_programs_for_an_exec_wherever_links_lead_by_then,
    cgroups_are_mounted_read_only_and_show_the_containers_own,
    read_only_reaches_the_mounts_below_a_path_of_the_host,
    what_the_host_mounts_later_has_the_options_of_the_volume,
    mount_options_that_take_back_a_protection_give_nothing,
    a_container_that_calls_itself_a_sandbox_mounts_no_other_file_systems,
    the_hosts_root_is_nobodys_root_file_system,
    another_name_of_a_denied_folder_is_denied,
    a_folder_that_nobody_thought_of_is_not_a_pods,
    socketpair_makes_no_other_families_than_socket,
    nobody_is_scheduled_before_the_host,
    a_cgroup_that_exists_is_not_taken,
    a_fifo_in_an_image_keeps_nobody_waiting,
    a_fifo_in_a_container_keeps_no_exec_waiting,
    what_proc_tells_of_the_hosts_memory_is_hidden,
);

/// On cgroup v2 only: v1 passes over these.
pub(crate) const UNIFIED_TESTS: &[crate::Test] =
    &[("a_unified_resource_is_a_file_of_the_cgroup", a_unified_resource_is_a_file_of_the_cgroup)];

pub(crate) const POD_TESTS: &[crate::PodTest] =
    &[("a_pod_does_not_get_what_the_kubelet_keeps_for_itself", a_pod_does_not_get_what_the_kubelet_keeps_for_itself)];

const RESTRICTED: &str = "io.containerd.hardened.v1/profile";

/// Folders of the host, and that they stay as they are.
struct Guarded {
    sentinels: Sentinels,
    before: Vec<String>,
}

impl Guarded {
    fn make(c: &Containerd) -> Result<Self> {
        let sentinels = Sentinels::make(c)?;
        let before = sentinels.digest();
        Ok(Self { sentinels, before })
    }

    fn unchanged(&self) -> Result<()> {
        let now = self.sentinels.digest();
        let came: Vec<_> = now.iter().filter(|line| !self.before.contains(line)).collect();
        ensure!(now == self.before, "the host's folders changed: {came:#?}");
        Ok(())
    }
}

fn program(s: &mut Value, script: &str) {
    s["process"]["args"] = json!(["/bin/busybox", "sh", "-c", script]);
}

fn bind(s: &mut Value, source: &Path, at: &str, options: &[&str]) -> Result<()> {
    let mounts = s["mounts"].as_array_mut().context("mounts")?;
    mounts.push(json!({"destination": at, "type": "bind", "source": source, "options": options}));
    Ok(())
}

/// A mount of the host's, until it is dropped. Private, unless it is to be shared.
pub(crate) struct Mounted(PathBuf);

impl Mounted {
    pub(crate) fn new(arguments: &[&str], at: &Path) -> Result<Self> {
        let show = at.display().to_string();
        mount(&[arguments, &[&show]].concat())?;
        Ok(Self(at.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

/// A folder of the host's that is removed when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn make(path: PathBuf) -> Result<Self> {
        fs::create_dir(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// A process of the host's.
struct Process(Child);

impl Process {
    fn start() -> Result<Self> {
        Ok(Self(Command::new("sleep").arg("1000").spawn()?))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn signal(pid: i32, number: i32) {
    // SAFETY: takes numbers only; the pid is of a process that the test has found to be its own.
    unsafe { libc::kill(pid, number) };
}

fn an_image_whose_dev_is_a_link_changes_nothing_on_the_host(c: &Containerd) -> Result<()> {
    let host = Guarded::make(c)?;
    let up = "../".repeat(14);
    for folder in [host.sentinels.empty(), host.sentinels.full()] {
        let inside = folder.strip_prefix("/")?;
        let inside = inside.display();
        for target in [
            format!("/{inside}"),
            format!("{up}{inside}"),
            format!("/proc/self/root/{inside}"),
            format!("/proc/1/root/{inside}"),
            format!("proc/self/fd/11/1/root/{inside}"),
        ] {
            for (readonly, uid, profile) in [(false, 0, None), (true, 1000, None), (true, 1000, Some("restricted"))] {
                let root = small_image(c)?;
                fs::create_dir_all(root.join(folder.strip_prefix("/")?))?;
                fs::remove_dir(root.join("dev"))?;
                symlink(&target, root.join("dev"))?;
                spec(c, |s| {
                    s["root"] = json!({"path": root, "readonly": readonly});
                    s["process"]["user"] = json!({"uid": uid, "gid": uid});
                    program(s, "true");
                    if let Some(profile) = profile {
                        s["annotations"] = json!({RESTRICTED: profile});
                    }
                })?
                .run()?;
                host.unchanged().with_context(|| format!("/dev -> {target}, as {uid}, {profile:?}"))?;
                fs::remove_dir_all(&root)?;
            }
        }
    }
    Ok(())
}

fn a_volume_at_dev_that_changes_meanwhile_makes_nothing_on_the_host(c: &Containerd) -> Result<()> {
    let host = Guarded::make(c)?;
    for _ in 0..30 {
        // A new one each time: a runtime that leaves something in it could not do so twice.
        let volume = c.volume()?;
        let (folder, link) = (volume.join("sub"), volume.join(".sub"));
        fs::create_dir(&folder)?;
        symlink(host.sentinels.empty(), &link)?;
        symlink("sub/nologin", volume.join("full"))?;
        let custom = spec(c, |s| {
            let devices =
                (0..40).map(|n| json!({"path": format!("/dev/sub/d{n}"), "type": "c", "major": 1, "minor": 3}));
            s["linux"]["devices"] = devices.collect();
            if let Some(mounts) = s["mounts"].as_array_mut() {
                mounts.retain(|m| m["destination"] != "/dev");
            }
            drop(bind(s, &volume, "/dev", &["rbind", "rw"]));
        })?;
        let swapper = Swapper::start(vec![(folder, link)]);
        let out = custom.run()?;
        let swaps = swapper.stop()?;
        host.unchanged().with_context(|| format!("after {swaps} swaps: {out:?}"))?;
    }
    Ok(())
}

/// A host process with this pid: the next one that the kernel gives out. Others may come first.
fn process_with_pid(pid: i32) -> Option<Process> {
    for _ in 0..400 {
        fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).ok()?;
        let process = Process::start().ok()?;
        if i32::try_from(process.0.id()).ok() == Some(pid) {
            return Some(process);
        }
    }
    None
}

/// Stops a launcher before it has joined anything; its pid.
fn stop_launcher(c: &Containerd, running: &Running<'_>) -> Result<Option<i32>> {
    // An exec's name comes after its container's.
    let mark = format!(" launch {}/{}/", c.namespace(), running.id());
    let end = Instant::now() + Duration::from_secs(10);
    while Instant::now() < end {
        if let Some((pid, _)) = processes()?.into_iter().find(|(_, line)| line.contains(&mark)) {
            signal(pid, libc::SIGSTOP);
            return Ok(Some(pid));
        }
    }
    Ok(None)
}

fn an_exec_never_runs_outside_of_its_container(c: &Containerd) -> Result<()> {
    let host = Guarded::make(c)?;
    let mark = host.sentinels.empty().join("escaped");
    let own = fs::read_link("/proc/self/ns/mnt")?.display().to_string();
    let script =
        format!("readlink /proc/self/ns/mnt; cat {}/passwd; touch {}", host.sentinels.full().display(), mark.display());
    let mut tried = 0;
    for _ in 0..8 {
        // A launcher that is in the container's cgroup already hardly runs.
        let running = c.start_container(&["--cpu-quota", "1000", "--cpu-period", "100000"], &["sleep", "1000"])?;
        let init = running.pid()?;
        let out = std::thread::scope(|scope| -> Result<Option<Output>> {
            let exec = scope.spawn(|| running.exec(&["sh", "-c", &script]));
            let stopped = stop_launcher(c, &running)?;
            let mut other = None;
            if let Some(launcher) = stopped {
                signal(init, libc::SIGKILL);
                let gone = || !Path::new(&format!("/proc/{init}")).exists();
                let end = Instant::now() + Duration::from_secs(5);
                while !gone() && Instant::now() < end {
                    std::thread::sleep(Duration::from_millis(5));
                }
                other = gone().then(|| process_with_pid(init)).flatten();
                signal(launcher, libc::SIGCONT);
            }
            let out = exec.join().ok().context("the exec panicked")??;
            Ok(other.map(|_| out))
        })?;
        host.unchanged()?;
        if let Some(out) = out {
            tried += 1;
            let text = out.text();
            ensure!(!text.contains(&own) && !text.contains("the host's"), "the exec ran on the host: {out:?}");
        }
        // Its init is gone.
        drop(running);
    }
    ensure!(tried > 0, "no process of the host got the pid of a container's init");
    Ok(())
}

/// A container with a volume at `/opt/x`, which is a link to `/mnt/y` in the image and to another
/// folder soon after.
fn with_a_changing_link<'a>(c: &'a Containerd, profile: &str, to: &str) -> Result<Running<'a>> {
    let root = small_image(c)?;
    for folder in ["opt", "mnt/y", "usr/lib", "home"] {
        fs::create_dir_all(root.join(folder))?;
    }
    symlink("/mnt/y", root.join("opt/x"))?;
    let script = format!("busybox rm /opt/x; busybox ln -s {to} /opt/x; busybox sleep 1000");
    let mut config = c.spec(&["/bin/busybox", "sh", "-c", &script])?;
    config["root"] = json!({"path": root, "readonly": false});
    config["annotations"] = json!({RESTRICTED: profile});
    bind(&mut config, &c.volume()?, "/opt/x", &["rbind", "rw"])?;
    let running = c.start_spec(&config)?;
    std::thread::sleep(Duration::from_millis(300));
    Ok(running)
}

fn system_folders_stay_read_only_for_an_exec_wherever_links_lead_by_then(c: &Containerd) -> Result<()> {
    let running = with_a_changing_link(c, "baseline", "/")?;
    let link = running.exec(&["/bin/busybox", "readlink", "/opt/x"])?.text();
    for file in ["/usr/escaped", "/usr/bin/escaped", "/bin/escaped", "/lib/escaped"] {
        let out = running.exec(&["/bin/busybox", "touch", file])?;
        ensure!(out.status != 0, "{file} was made, with /opt/x -> {link}");
    }
    running.remove()
}

fn volumes_stay_without_programs_for_an_exec_wherever_links_lead_by_then(c: &Containerd) -> Result<()> {
    let running = with_a_changing_link(c, "restricted", "/tmp")?;
    let script = "/bin/busybox cp /bin/busybox /mnt/y/busybox && /mnt/y/busybox echo it-ran";
    let out = running.exec(&["/bin/busybox", "sh", "-c", script])?;
    ensure!(!out.text().contains("it-ran"), "a program of the volume ran: {out:?}");
    ensure!(out.stderr.contains("Permission denied"), "nothing was tried: {out:?}");
    running.remove()
}

fn cgroups_are_mounted_read_only_and_show_the_containers_own(c: &Containerd) -> Result<()> {
    let kind = if has_cgroup_v2() { "cgroup2" } else { "cgroup" };
    let mut config = c.spec(&["sleep", "1000"])?;
    config["root"] = json!({"path": c.rootfs()?, "readonly": true});
    let options = ["nosuid", "noexec", "nodev", "relatime", "ro"];
    config["mounts"]
        .as_array_mut()
        .context("mounts")?
        .push(json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": options}));
    let running = match c.start_spec(&config) {
        Ok(running) => running,
        // Not to start is as good.
        Err(error) if format!("{error:#}").contains("hardened: ") => return Ok(()),
        Err(error) => return Err(error),
    };
    let table = fs::read_to_string(format!("/proc/{}/mountinfo", running.pid()?))?;
    let mut seen = 0;
    for line in table.lines().filter(|line| line.contains(&format!(" - {kind} "))) {
        seen += 1;
        // Identity, parent, device, root, place, options: proc_pid_mountinfo(5).
        let fields: Vec<&str> = line.split(' ').collect();
        let (root, options) = (fields[3], fields[5]);
        ensure!(options.split(',').any(|o| o == "ro"), "writable: {line}");
        // In a cgroup namespace, the container's own is the root.
        ensure!(root.contains(running.id()) || (has_cgroup_v2() && root == "/"), "not its own: {line}");
    }
    ensure!(seen > 0 || table.contains("/sys/fs/cgroup"), "no cgroups are mounted: {table}");
    running.remove()
}

/// A folder of the host's logs, which a pod may read.
fn logs(c: &Containerd, name: &str) -> Result<Folder> {
    Folder::make(Path::new("/var/log").join(format!("{}-{name}", c.namespace())))
}

fn read_only_reaches_the_mounts_below_a_path_of_the_host(c: &Containerd) -> Result<()> {
    let folder = logs(c, "below")?;
    let below = folder.0.join("audit");
    fs::create_dir(&below)?;
    let _mounted = Mounted::new(&["-t", "tmpfs", "audit"], &below)?;
    let out = spec(c, |s| {
        program(s, "busybox touch /v/audit/escaped && echo written; grep /v/ /proc/self/mountinfo");
        drop(bind(s, &folder.0, "/v", &["rbind", "rprivate", "ro"]));
    })?
    .run()?;
    ensure!(!below.join("escaped").exists(), "it was written to a mount below a read-only one: {out:?}");
    // Privileges of files on it are worth as little as those on the mount above.
    for line in out.text().lines().filter(|line| line.contains(" /v/audit ")) {
        ensure!(line.contains("nosuid") && line.contains("nodev"), "{line}");
    }
    Ok(())
}

fn what_the_host_mounts_later_has_the_options_of_the_volume(c: &Containerd) -> Result<()> {
    let folder = logs(c, "later")?;
    let late = folder.0.join("late");
    fs::create_dir(&late)?;
    let show = folder.0.display().to_string();
    let _shared = Mounted::new(&["--bind", &show], &folder.0)?;
    mount(&["--make-shared", &show])?;
    let mut config = c.spec(&["sleep", "1000"])?;
    config["root"] = json!({"path": c.rootfs()?, "readonly": true});
    bind(&mut config, &folder.0, "/srv", &["rbind", "rslave", "ro"])?;
    let running = match c.start_spec(&config) {
        Ok(running) => running,
        Err(error) if format!("{error:#}").contains("hardened: ") => return Ok(()),
        Err(error) => return Err(error),
    };
    let _late = Mounted::new(&["-t", "tmpfs", "late"], &late)?;
    let out = running.exec(&["touch", "/srv/late/escaped"])?;
    ensure!(!late.join("escaped").exists(), "it was written to what the host mounted later: {out:?}");
    let table = fs::read_to_string(format!("/proc/{}/mountinfo", running.pid()?))?;
    for line in table.lines().filter(|line| line.contains(" /srv/late ")) {
        ensure!([" ro", "nosuid", "nodev"].iter().all(|option| line.contains(option)), "{line}");
    }
    running.remove()
}

fn mount_options_that_take_back_a_protection_give_nothing(c: &Containerd) -> Result<()> {
    let folder = logs(c, "options")?;
    for options in [
        &["rbind", "rrw", "ro"][..],
        &["rbind", "ro", "rrw"],
        &["rbind", "ro", "rw"],
        &["rbind", "ro", "rsuid", "rdev", "rexec"],
        &["rbind", "ro", "suid", "dev"],
    ] {
        let out = spec(c, |s| {
            program(s, "busybox touch /v/escaped; grep ' /v ' /proc/self/mountinfo");
            drop(bind(s, &folder.0, "/v", options));
        })?
        .run()?;
        ensure!(!folder.0.join("escaped").exists(), "{options:?}: it was written: {out:?}");
        for line in out.text().lines().filter(|line| line.contains(" /v ")) {
            let fields = line.split(' ').nth(5).unwrap_or_default();
            let has = |option: &str| fields.split(',').any(|o| o == option);
            ensure!(has("ro") && has("nosuid") && has("nodev"), "{options:?}: {line}");
        }
    }
    Ok(())
}

fn a_container_that_calls_itself_a_sandbox_mounts_no_other_file_systems(c: &Containerd) -> Result<()> {
    let host = Guarded::make(c)?;
    let layers = format!("lowerdir={}:{}", host.sentinels.full().display(), host.sentinels.empty().display());
    for (kind, options) in [("overlay", &["ro", layers.as_str()][..]), ("devtmpfs", &["ro"]), ("tracefs", &["ro"])] {
        let root = small_image(c)?;
        fs::create_dir(root.join("x"))?;
        let mut config = c.spec(&["/bin/busybox", "sleep", "1000"])?;
        config["root"] = json!({"path": root});
        config["annotations"] = json!({"io.kubernetes.cri.container-type": "sandbox"});
        config["mounts"]
            .as_array_mut()
            .context("mounts")?
            .push(json!({"destination": "/x", "type": kind, "source": kind, "options": options}));
        let running = match c.start_spec(&config) {
            Ok(running) => running,
            Err(error) if format!("{error:#}").contains("hardened: ") => continue,
            Err(error) => return Err(error),
        };
        // The sandbox's filter lets it do too little to look itself.
        let table = fs::read_to_string(format!("/proc/{}/mountinfo", running.pid()?))?;
        ensure!(!table.contains(&format!(" - {kind} ")), "{kind} is mounted: {table}");
        running.remove()?;
    }
    host.unchanged()
}

fn the_hosts_root_is_nobodys_root_file_system(c: &Containerd) -> Result<()> {
    let host = Guarded::make(c)?;
    let elsewhere = c.volume()?.join("elsewhere");
    fs::create_dir(&elsewhere)?;
    let script =
        format!("cat {}/passwd; touch {}/escaped", host.sentinels.full().display(), host.sentinels.empty().display());
    {
        let _mounted = Mounted::new(&["--bind", "/"], &elsewhere)?;
        for readonly in [true, false] {
            let out = spec(c, |s| {
                s["root"] = json!({"path": elsewhere, "readonly": readonly});
                s["process"]["args"] = json!(["/bin/sh", "-c", script]);
            })?
            .run()?;
            ensure!(!out.text().contains("the host's"), "the host's files were read: {out:?}");
            host.unchanged()?;
        }
    }
    Ok(())
}

fn another_name_of_a_denied_folder_is_denied(c: &Containerd) -> Result<()> {
    let secret = Folder::make(Path::new("/etc").join(c.namespace()))?;
    let volume = c.volume()?;
    let alias = volume.join("alias");
    fs::create_dir(&alias)?;
    let mounted = Mounted::new(&["--bind", &secret.0.display().to_string()], &alias)?;
    for (source, at) in [(&alias, "/v"), (&volume, "/v/alias")] {
        let script = format!("busybox touch {at}/escaped");
        let out = spec(c, |s| {
            program(s, &script);
            drop(bind(s, source, "/v", &["rbind", "rw"]));
        })?
        .run()?;
        ensure!(!secret.0.join("escaped").exists(), "{} was given: {out:?}", source.display());
    }
    drop(mounted);
    Ok(())
}

fn a_folder_that_nobody_thought_of_is_not_a_pods(c: &Containerd) -> Result<()> {
    let name = format!("{}-kept", c.namespace());
    let new = ["/", "/var"].map(|above| Path::new(above).join(&name));
    let _made = new.clone().map(Folder::make).into_iter().collect::<Result<Vec<_>>>()?;
    let known = ["/var/cache", "/var/mail", "/var/crash", "/var/db", "/oem", "/.snapshots"].map(PathBuf::from);
    let mut given = Vec::new();
    for folder in new.iter().chain(known.iter().filter(|folder| folder.is_dir())) {
        spec(c, |s| {
            program(s, "busybox touch /v/.escaped");
            drop(bind(s, folder, "/v", &["rbind", "rw"]));
        })?
        .run()?;
        if folder.join(".escaped").exists() {
            fs::remove_file(folder.join(".escaped"))?;
            given.push(folder);
        }
    }
    ensure!(given.is_empty(), "writable, though no policy names them: {given:?}");
    Ok(())
}

fn socketpair_makes_no_other_families_than_socket(c: &Containerd) -> Result<()> {
    let tries = ["AF_PACKET", "AF_VSOCK", "AF_TIPC", "AF_ALG", "AF_KCM"].map(|family| format!("socketpair {family}"));
    let tries: Vec<&str> = tries.iter().map(String::as_str).collect();
    let out = c.run(&[], &[&["hardened-probe"], &tries[..]].concat())?.ok()?.text();
    ensure!(out.lines().count() == tries.len(), "{out}");
    let allowed = crate::sandbox::allowed(&out)?;
    ensure!(allowed.is_empty(), "{allowed:?}");
    Ok(())
}

fn nobody_is_scheduled_before_the_host(c: &Containerd) -> Result<()> {
    let table: [(&str, Value); 7] = [
        ("scheduler", json!({"policy": "SCHED_FIFO", "priority": 50})),
        ("scheduler", json!({"policy": "SCHED_RR", "priority": 1})),
        ("scheduler", json!({"policy": "SCHED_OTHER", "nice": -20})),
        ("scheduler", json!({"policy": "SCHED_BATCH", "nice": -1})),
        (
            "scheduler",
            json!({"policy": "SCHED_DEADLINE", "runtime": 10_000_000, "deadline": 30_000_000, "period": 30_000_000}),
        ),
        ("ioPriority", json!({"class": "IOPRIO_CLASS_RT", "priority": 0})),
        ("ioPriority", json!({"class": "IOPRIO_CLASS_RT", "priority": 7})),
    ];
    let mut favoured = BTreeMap::new();
    for (field, value) in table {
        let mut config = c.spec(&["sleep", "1000"])?;
        config["root"] = json!({"path": c.rootfs()?, "readonly": true});
        config["process"][field] = value.clone();
        let running = match c.start_spec(&config) {
            Ok(running) => running,
            Err(error) if format!("{error:#}").contains("hardened: ") => continue,
            Err(error) => return Err(error).with_context(|| format!("{field} {value}")),
        };
        let pid = running.pid()?;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // Behind the name: 3 is the state, 19 the nice value, 41 the policy (proc_pid_stat(5)).
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let (nice, policy) = (fields[16].parse::<i32>()?, fields[38].parse::<i32>()?);
        // SAFETY: takes numbers only. 1 is IOPRIO_WHO_PROCESS, and the class stands above 13 bits.
        let class = unsafe { libc::syscall(libc::SYS_ioprio_get, 1, pid) } >> 13;
        running.remove()?;
        // SCHED_OTHER, SCHED_BATCH, SCHED_IDLE; IOPRIO_CLASS_NONE, _BE, _IDLE.
        if nice < 0 || ![0, 3, 5].contains(&policy) || class == 1 {
            favoured.insert(format!("{field} {value}"), format!("nice {nice}, policy {policy}, class {class}"));
        }
    }
    ensure!(favoured.is_empty(), "{favoured:#?}");
    Ok(())
}

fn a_cgroup_that_exists_is_not_taken(c: &Containerd) -> Result<()> {
    let name = format!("{}/{}", c.namespace(), c.id("taken"));
    let hierarchies: Vec<PathBuf> = if has_cgroup_v2() {
        vec![PathBuf::from("/sys/fs/cgroup")]
    } else {
        let all = fs::read_dir("/sys/fs/cgroup")?.flatten().map(|entry| entry.path());
        all.filter(|path| path.join("cgroup.procs").exists()).collect()
    };
    let mut process = Process::start()?;
    let mut groups = Vec::new();
    for hierarchy in hierarchies {
        let group = hierarchy.join(&name);
        fs::create_dir_all(&group)?;
        // A cpuset without processors takes nobody: cgroups(7).
        if fs::write(group.join("cgroup.procs"), process.0.id().to_string()).is_ok() {
            groups.push(group);
        } else {
            fs::remove_dir(&group)?;
        }
    }
    ensure!(!groups.is_empty(), "no cgroup takes a process");
    let out = spec(c, |s| {
        program(s, "true");
        s["linux"]["cgroupsPath"] = json!(format!("/{name}"));
    })?
    .run();
    let ended = process.0.try_wait()?;
    let lost: Vec<_> = groups.iter().filter(|group| !group.exists()).collect();
    let lost = format!("{lost:?}");
    drop(process);
    for group in &groups {
        if group.exists() {
            fs::remove_dir(group)?;
        }
    }
    ensure!(ended.is_none() && lost == "[]", "the host's process ended ({ended:?}), groups went ({lost}): {out:?}");
    // The root group holds all that runs here: what would be done to it is not tried. What the spec
    // asks for else is refused in any case.
    let out = spec(c, |s| {
        program(s, "true");
        s["linux"]["cgroupsPath"] = json!("/");
        s["linux"]["rootfsPropagation"] = json!("shared");
    })?
    .run()?;
    ensure!(out.stderr.contains("cgroupsPath"), "the root cgroup is not refused: {out:?}");
    Ok(())
}

/// Nothing unusual but these.
fn case_with(entries: Vec<Entry>) -> Case {
    let mut case = generate(0);
    case.image = entries;
    case.volumes.clear();
    case.without.clear();
    case.devices.clear();
    case.masked.clear();
    (case.cwd, case.exec) = ("/".to_owned(), Some("/".to_owned()));
    (case.cgroups, case.restricted, case.terminal, case.home, case.uid) = (false, false, false, false, 0);
    case
}

fn a_fifo_in_an_image_keeps_nobody_waiting(c: &Containerd) -> Result<()> {
    let own = Containerd::start_beside(c)?;
    let mut range = Range::open(&own)?;
    for path in ["/etc/passwd", "/etc/group", "/var", "/srv", "/etc", "/home", "/dev/console", "/tmp", "/run"] {
        for kind in [Kind::Fifo, Kind::Socket] {
            let outcome = range.run(&case_with(vec![Entry { path: path.to_owned(), kind: kind.clone() }]))?;
            ensure!(outcome.harm.is_empty(), "{path} as {kind:?}: {:?}", outcome.harm);
        }
    }
    range.close()
}

fn a_fifo_in_a_container_keeps_no_exec_waiting(c: &Containerd) -> Result<()> {
    let root = small_image(c)?;
    let mut config =
        c.spec(&["/bin/busybox", "sh", "-c", "busybox mkfifo /etc/passwd /etc/group; busybox sleep 1000"])?;
    config["root"] = json!({"path": root, "readonly": false});
    let running = c.start_spec(&config)?;
    std::thread::sleep(Duration::from_millis(300));
    ensure!(root.join("etc/passwd").exists(), "the container made no FIFO");
    let arguments = ["tasks", "exec", "--exec-id", "waits", running.id(), "/bin/busybox", "true"];
    let ran = run(&mut c.command(&arguments), b"", Duration::from_secs(20));
    let removed = running.remove();
    ran.context("the exec")?;
    removed
}

fn what_proc_tells_of_the_hosts_memory_is_hidden(c: &Containerd) -> Result<()> {
    let read = "for f in kpagecgroup kpagecount kpageflags pagetypeinfo slabinfo vmallocinfo; do \
                [ \"$(head -c 64 /proc/$f 2>/dev/null | wc -c)\" = 0 ] || echo $f; done; \
                f=/proc/dynamic_debug/control; [ ! -e $f ] || { (: >>$f) 2>/dev/null && echo $f; }; true";
    for uid in ["0:0", "1000:1000"] {
        let shown = c.run(&["--user", uid], &["sh", "-c", read])?.ok()?.text();
        ensure!(shown.is_empty(), "{uid} reads of /proc: {shown}");
    }
    Ok(())
}

fn a_unified_resource_is_a_file_of_the_cgroup(c: &Containerd) -> Result<()> {
    let host = Guarded::make(c)?;
    let file = host.sentinels.full().join("passwd");
    let up = "../".repeat(14);
    for key in [file.display().to_string(), format!("{up}{}", file.display())] {
        let out = spec(c, |s| {
            program(s, "true");
            s["linux"]["resources"]["unified"] = json!({key.clone(): "text"});
        })?
        .run()?;
        host.unchanged().with_context(|| format!("{key}: {out:?}"))?;
        let running = c.start_container(&[], &["sleep", "1000"])?;
        let update = crate::rpc::update(c, &running, &json!({"unified": {key.clone(): "text"}}));
        host.unchanged().with_context(|| format!("update, {key}: {update:?}"))?;
        running.remove()?;
    }
    Ok(())
}

/// The kubelet follows names in these folders as root: anyone who can change them makes it read or write
/// the host's files.
fn a_pod_does_not_get_what_the_kubelet_keeps_for_itself(c: &Cri) -> Result<()> {
    let pod = c.pod("own")?;
    let own = kubelet(c, &pod, "")?;
    for folder in ["containers/app", "volumes/kubernetes.io~configmap/settings", "plugins", "etc"] {
        fs::create_dir_all(own.join(folder))?;
    }
    for file in ["etc-hosts", "containers/app/0"] {
        fs::write(own.join(file), "")?;
    }
    // What an admitted path of the host may hold.
    let planted = c.containerd().volume()?;
    symlink(&own, planted.join("link"))?;
    let mut sources = Vec::new();
    for part in ["", "containers", "containers/app", "volumes", "volumes/kubernetes.io~configmap", "plugins", "etc"] {
        sources.push(own.join(part));
        sources.push(planted.join("link").join(part));
    }
    let mut given = Vec::new();
    for (n, source) in sources.iter().enumerate() {
        let name = format!("own{n}");
        let mut config = shell(&name, "touch /own/escaped; ln -s /etc/shadow /own/link");
        config.mounts.push(volume(source, "/own", false));
        let Ok(id) = pod.create(config) else { continue };
        if pod.start(&id).is_ok() {
            pod.wait(&id)?;
        }
        for made in ["escaped", "link"] {
            let made = source.join(made);
            if fs::symlink_metadata(&made).is_ok() {
                fs::remove_file(&made)?;
                given.push(source.display().to_string());
            }
        }
    }
    // As the kubelet mounts it for subPathExpr: $(POD_UID).
    let subpath = hardened_integration::kubelet::Subpath::mount(&own, own.join("volume-subpaths/v/app/0"))?;
    let mut config = shell("subpath", "touch /own/escaped");
    config.mounts.push(volume(subpath.path(), "/own", false));
    let id = pod.create(config)?;
    if pod.start(&id).is_ok() {
        pod.wait(&id)?;
    }
    if own.join("escaped").exists() {
        given.push("a subPath".to_owned());
    }
    drop(subpath);
    pod.remove()?;
    if !given.is_empty() {
        bail!("writable in a container: {given:#?}");
    }
    Ok(())
}
