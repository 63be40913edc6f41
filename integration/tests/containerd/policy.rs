//! The node's policy: files on disk, and what a container can do under them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use hardened_integration::{
    Containerd, Output, Running, STRICT, cgroup_of, eventually, hardenctl, has_selinux, mount, opens_in, share,
};

crate::tests!(
    a_node_without_files_has_baseline,
    a_profile_narrows_what_a_container_may_do,
    a_capability_brings_what_it_gates,
    each_way_out_of_the_migration_table_is_one,
    a_hook_that_the_profile_names_runs,
    compatible_is_what_runc_lets_an_unprivileged_container_do,
    a_profile_widens_only_what_it_names,
    tcp_ports_are_the_profiles,
    tcp_ports_are_reached_by_no_other_way,
    a_rule_tells_runtime_handlers_apart,
    paths_of_the_host_are_known_by_their_other_names,
    what_is_taken_away_is_told,
    a_device_of_the_profile_can_be_used_and_no_other,
    the_cgroup_denies_devices_that_are_not_given,
    privileged_is_let_through_by_rule_alone,
    the_pause_container_gets_the_smallest_profile,
    an_exec_cannot_read_the_secrets_of_its_container,
    execs_are_narrower_than_their_container,
    annotations_tighten,
    a_change_is_for_the_containers_that_come_after_it,
    a_policy_that_others_may_write_to_is_not_used,
    a_broken_policy_starts_nothing,
);

/// A separate policy folder.
pub(crate) struct Folder<'a> {
    c: &'a Containerd,
    path: PathBuf,
}

pub(crate) fn policy<'a>(c: &'a Containerd, text: &str) -> Result<Folder<'a>> {
    let path = c.home().join(c.id("policy"));
    fs::create_dir_all(&path)?;
    let folder = Folder { c, path };
    folder.write("policy.toml", text)?;
    Ok(folder)
}

impl Folder<'_> {
    fn write(&self, name: &str, text: &str) -> Result<()> {
        let file = self.path.join(name);
        fs::create_dir_all(file.parent().context("a folder")?)?;
        Ok(fs::write(file, text)?)
    }

    fn options<'o>(&'o self, more: &[&'o str]) -> Result<Vec<&'o str>> {
        Ok([&["--runtime-config-path", self.path.to_str().context("a path")?], more].concat())
    }

    pub(crate) fn run(&self, options: &[&str], program: &[&str]) -> Result<Output> {
        self.c.run(&self.options(options)?, program)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn start(&self, options: &[&str], program: &[&str]) -> Result<Running<'_>> {
        self.c.start_container(&self.options(options)?, program)
    }
}

fn a_node_without_files_has_baseline(c: &Containerd) -> Result<()> {
    let nowhere = Folder { c, path: c.home().join("nowhere") };
    let out = nowhere.run(&[], &["true"])?;
    ensure!(
        out.status != 0 && out.stderr.contains("nowhere that the runtime's options name cannot be used"),
        "{out:?}"
    );
    let folder = Folder { c, path: c.home().join("no-files") };
    fs::create_dir_all(&folder.path)?;
    let out = folder.run(&["--cap-add", "CAP_SYS_ADMIN"], &["true"])?;
    ensure!(out.stderr.contains("refused by profile baseline (built in)"), "{out:?}");
    folder.run(&[], &["true"])?.ok()?;
    Ok(())
}

fn a_profile_narrows_what_a_container_may_do(c: &Containerd) -> Result<()> {
    let folder = policy(
        c,
        r#"
        default = "tight"
        [profile.tight]
        capabilities.drop = ["ALL"]
        seccomp.deny = ["mkdir", "mkdirat"]
        seccomp.errno = 13
        files = { no-write = ["/etc"], hidden = ["/srv", "/var/secret"], masked = ["/proc/cpuinfo"], execute-from-writable = false }
        limits = { RLIMIT_NOFILE = 77 }
        "#,
    )?;
    let checks = [
        ("grep -q '^CapBnd:.0000000000000000' /proc/self/status", "capabilities"),
        ("! mkdir /tmp/x 2>/tmp/why && grep -q 'Permission denied' /tmp/why", "a call"),
        ("touch /tmp/y && ! touch /etc/x", "no-write"),
        ("! ls /srv && ! cat /srv/x && ls /etc >/dev/null", "hidden"),
        ("! grep -q . /proc/cpuinfo", "masked"),
        ("cp /bin/busybox /tmp/echo && ! /tmp/echo ran", "execute"),
        ("test $(ulimit -n) = 77", "limits"),
    ];
    for (program, what) in checks {
        folder.run(&[], &["sh", "-c", program])?.ok().with_context(|| what.to_owned())?;
        let baseline = c.run(&[], &["sh", "-c", program])?;
        ensure!(baseline.status != 0, "{what} is no different under baseline");
    }
    let strict = policy(c, "default = \"user\"\n[profile.user.user]\nnon-root = true\nuids = [[1000, 1999]]\n")?;
    strict.run(&["--user", "1000:1000"], &["true"])?.ok()?;
    for (user, words) in [("0:0", "0 (root)"), ("2000:2000", "2000; the profile allows 1000 to 1999")] {
        let out = strict.run(&["--user", user], &["true"])?;
        ensure!(out.status != 0 && out.stderr.contains(words), "{user}: {out:?}");
    }
    Ok(())
}

/// A grant is one line: the calls and the rights to files that a capability gates come with it.
fn a_capability_brings_what_it_gates(c: &Containerd) -> Result<()> {
    let folder = policy(
        c,
        r#"
        default = "able"
        [profile.able]
        capabilities.add = ["SYS_CHROOT", "MKNOD", "NET_RAW"]
        files.system = "writable"
        "#,
    )?;
    for program in [
        "chroot / true",
        "mknod /dev/another c 1 3 && echo x >/dev/another",
        "arping -c 1 -w 1 -I lo 127.0.0.1 2>&1 | grep -q ARPable",
        "touch /usr/bin/new /usr/new && chmod 700 /usr/bin",
    ] {
        folder.run(&[], &["sh", "-c", program])?.ok().with_context(|| program.to_owned())?;
        let baseline = c.run(&[], &["sh", "-c", program])?;
        ensure!(baseline.status != 0, "{program} is no different under baseline");
    }
    // No node of a device that the rules do not have.
    folder.run(&[], &["sh", "-c", "! mknod /dev/memory c 1 1 || ! cat /dev/memory"])?.ok()?;
    Ok(())
}

/// What `docs/migration.md` says to write "if a program needs it", where no other trial here does it.
fn each_way_out_of_the_migration_table_is_one(c: &Containerd) -> Result<()> {
    let socket = |argument: u8, number: i32| {
        format!(
            "[[profile.out.seccomp.rule]]\ncalls = [\"socket\"]\nargument = {argument}\nequals = {number}\nanswer = \"allow\""
        )
    };
    for (way, options, tries) in [
        (
            "[profile.out]\nseccomp.allow = [\"io_uring_setup\", \"io_uring_enter\", \"io_uring_register\"]".to_owned(),
            &[][..],
            &["io_uring_setup", "io_uring_enter", "io_uring_register"][..],
        ),
        ("[profile.out]\nseccomp.allow = [\"personality\"]".to_owned(), &[], &["personality ADDR_NO_RANDOMIZE"]),
        (
            "[profile.out]\ncapabilities.add = [\"SYS_PTRACE\"]".to_owned(),
            &["--cap-add", "CAP_SYS_PTRACE"],
            &["ptrace own child", "process_vm_readv"],
        ),
        (socket(2, libc::IPPROTO_MPTCP), &[], &["socket INET MPTCP"]),
        (socket(0, libc::AF_NETLINK), &[], &["socket NETLINK_SOCK_DIAG", "socket NETLINK_NETFILTER"]),
    ] {
        let folder = policy(c, &format!("default = \"out\"\n{way}\n"))?;
        let probe = [&["hardened-probe"][..], tries].concat();
        let outcomes = |out: hardened_integration::Output| -> Result<Vec<String>> {
            let lines = out.text();
            let values = lines.lines().map(serde_json::from_str::<serde_json::Value>);
            values.map(|line| Ok(line?["verdict"].as_str().unwrap_or_default().to_owned())).collect()
        };
        let (before, after) = (outcomes(c.run(&[], &probe)?)?, outcomes(folder.run(options, &probe)?)?);
        ensure!(before == vec!["denied"; tries.len()], "{way}: {tries:?}: {before:?}");
        ensure!(after == vec!["allowed"; tries.len()], "{way}: {tries:?}: {after:?}");
    }
    // Reading the clock's state; setting it takes a capability too.
    let folder = policy(c, "default = \"out\"\n[profile.out]\nseccomp.allow = [\"adjtimex\", \"clock_adjtime\"]\n")?;
    ensure!(folder.run(&[], &["adjtimex"])?.ok()?.text().contains("freq.adjust"));
    ensure!(c.run(&[], &["adjtimex"])?.status != 0, "adjtimex is no different under baseline");
    // A call of another architecture fails, rather than kills.
    let folder = policy(c, "default = \"out\"\n[profile.out]\nseccomp.foreign = \"enosys\"\n")?;
    let foreign = ["hardened-probe", "i386 system call"];
    if cfg!(target_arch = "x86_64") {
        let (before, after) = (c.run(&[], &foreign)?.text(), folder.run(&[], &foreign)?.text());
        ensure!(before.contains("killed") && after.contains("denied") && after.contains("38"), "{before}\n{after}");
    }
    Ok(())
}

/// A program of the node's, which runs outside of the sandbox. What it says on standard error, however much, does not
/// keep it, and is told when it fails.
fn a_hook_that_the_profile_names_runs(c: &Containerd) -> Result<()> {
    let ran = c.home().join(c.id("hook"));
    let touch = format!(
        "i=0; while [ $i -lt 50000 ]; do echo it is said at length >&2; i=$((i+1)); done; touch {}",
        ran.display()
    );
    let mut spec = c.spec(&["/bin/true"])?;
    spec["root"]["path"] = c.rootfs()?.display().to_string().into();
    spec["linux"]["cgroupsPath"] = format!("/{}/{}", c.namespace(), c.id("hooked")).into();
    for (hook, script, words) in [
        ("/usr/bin/true", "true", Some("hooks.createRuntime")),
        ("/bin/sh", "echo the card is not there >&2; exit 3", Some("exit code: 3 (the card is not there;")),
        ("/bin/sh", &touch, None),
    ] {
        spec["hooks"] = serde_json::json!({"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]});
        let file = c.home().join(c.id("hook.json"));
        fs::write(&file, spec.to_string())?;
        let folder = policy(c, &format!("default = \"node\"\n[profile.node.host]\nhooks = [{hook:?}]\n"))?;
        let id = c.id("hooked");
        let options = folder.options(&["--config", file.to_str().context("a path")?])?;
        let arguments = [&["run", "--rm", "--runtime", hardened_integration::HARDENED][..], &options, &[&id]].concat();
        let out = c.ctr(&arguments)?;
        match words {
            Some(words) => ensure!(out.stderr.contains(words) && !ran.exists(), "{out:?}"),
            None => ensure!(out.ok()?.stderr.is_empty() && ran.exists(), "the hook did not run"),
        }
    }
    Ok(())
}

/// For moving a cluster over: no program notices, and `privileged` and no_new_privs are as everywhere.
fn compatible_is_what_runc_lets_an_unprivileged_container_do(c: &Containerd) -> Result<()> {
    let folder = policy(c, "default = \"compatible\"\n")?;
    let host = ["--net-host", "--mount", "type=bind,src=/etc,dst=/host,options=rbind:ro"];
    let program = "test -e /host/passwd && touch /usr/bin/new /new && chroot / true && mknod /dev/another c 1 3 && \
                   grep -q '^NoNewPrivs:.1' /proc/self/status && grep -q '^Seccomp:.2' /proc/self/status && \
                   ! mount -t tmpfs t /tmp && ! unshare -U true";
    folder.run(&host, &["sh", "-c", program])?.ok()?;
    for (options, words) in [
        (&["--privileged"][..], "privileged: true is refused by profile compatible"),
        (&["--cap-add", "CAP_SYS_ADMIN"], "added: SYS_ADMIN"),
        (&["--device", "/dev/kmsg"], "host devices /dev/kmsg"),
    ] {
        let out = folder.run(options, &["true"])?;
        ensure!(out.status != 0 && out.stderr.contains(words), "{options:?}: {out:?}");
    }
    Ok(())
}

fn a_profile_widens_only_what_it_names(c: &Containerd) -> Result<()> {
    let folder = policy(
        c,
        r#"
        default = "net"
        [profile.net]
        capabilities.add = ["NET_RAW", "NET_ADMIN"]
        seccomp.socket-families = ["unix", "inet", "packet"]
        host = { namespaces = ["network", "ipc"], sysctls = ["net.core.somaxconn"], paths = { "/etc/hostname" = "read-only" } }
        "#,
    )?;
    let probe = ["hardened-probe", "socket AF_PACKET", "raw IP socket", "ptrace own child", "bpf"];
    let out = folder.run(&["--cap-add", "CAP_NET_ADMIN"], &probe)?.ok()?.text();
    let verdict = |name: &str| out.lines().find(|l| l.contains(name)).unwrap_or_default().contains("allowed");
    ensure!(verdict("socket AF_PACKET") && verdict("raw IP socket"), "{out}");
    ensure!(!verdict("ptrace own child") && !verdict("bpf"), "{out}");
    let host = "type=bind,src=/etc/hostname,dst=/srv/name,options=rbind:ro";
    // Where it runs, SELinux has its own say on what is read there.
    let read: &[&str] = if has_selinux() { &["true"] } else { &["cat", "/srv/name"] };
    folder.run(&["--mount", host], read)?.ok()?;
    let host = "type=bind,src=/etc/hostname,dst=/srv/name,options=rbind:rw";
    let out = folder.run(&["--mount", host], &["true"])?;
    ensure!(out.stderr.contains("/etc/hostname of the host is mounted writable"), "{out:?}");
    let out = folder.run(&["--cap-add", "CAP_SYS_ADMIN"], &["true"])?;
    ensure!(out.stderr.contains("refused by profile net (") && out.stderr.contains("policy.toml:3)"), "{out:?}");
    Ok(())
}

/// Whether this kernel's Landlock has rules for TCP ports; where it has none, they are refused.
fn knows_ports() -> bool {
    hardened_node::probe().landlock_abi >= 4
}

fn tcp_ports_are_the_profiles(c: &Containerd) -> Result<()> {
    let folder = policy(c, "default = \"web\"\n[profile.web.network]\nbind-tcp = [8080]\nconnect-tcp = [8080]\n")?;
    if !knows_ports() {
        let out = folder.run(&[], &["true"])?;
        ensure!(out.status != 0 && out.stderr.contains("rules for TCP ports need 4"), "{out:?}");
        return Ok(());
    }
    let program = "nc -l -p 8080 -e echo hi & sleep 0.3; nc 127.0.0.1 8080; ! nc -l -p 9090 -w 1 && echo denied";
    let out = folder.run(&[], &["sh", "-c", program])?;
    ensure!(out.text() == "hi\ndenied", "{out:?}");
    let out = folder.run(&[], &["sh", "-c", "nc -w 1 127.0.0.1 9090"])?;
    ensure!(out.stderr.contains("Permission denied"), "{out:?}");
    Ok(())
}

/// Landlock looks at bind and connect of TCP sockets: what comes to the same is the filter's to refuse.
fn tcp_ports_are_reached_by_no_other_way(c: &Containerd) -> Result<()> {
    if !knows_ports() {
        return Ok(());
    }
    let probe = |network: &str| -> Result<Vec<String>> {
        let folder = policy(c, &format!("default = \"web\"\n[profile.web.network]\n{network}\n"))?;
        let ask = ["hardened-probe", "ports", "9090"];
        let running = folder.start(&[], &["sleep", "1000"])?;
        let (init, exec) = (folder.run(&[], &ask)?.ok()?.text(), running.exec(&ask)?.ok()?.text());
        ensure!(init == exec, "init: {init}\nexec: {exec}");
        running.remove()?;
        Ok(init.lines().map(str::to_owned).collect())
    };
    let answers = |given: [i32; 10]| -> Vec<String> {
        let names = [
            "socket",
            "bind",
            "connect",
            "MPTCP",
            "sendto",
            "sendmsg",
            "sendmmsg",
            "deferred connect",
            "listen without bind",
            "UNIX listen",
        ];
        names.iter().zip(given).map(|(name, errno)| format!("{name}: {errno}")).collect()
    };
    let (denied, no_protocol, no_fast_open) = (libc::EACCES, libc::EPROTONOSUPPORT, libc::EOPNOTSUPP);
    // Where fast open is switched on, it gets as far as the other side; a deferred connect waits for data.
    let open = probe("")?;
    for (at, line) in [(0, "socket: 0"), (1, "bind: 0"), (3, "MPTCP: 93"), (8, "listen without bind: 0")] {
        ensure!(open.get(at).is_some_and(|l| l == line), "{open:?}");
    }
    for way in ["sendto", "sendmsg", "sendmmsg"] {
        let refused = format!("{way}: {}", libc::ECONNREFUSED);
        ensure!(open.contains(&refused) || open.contains(&format!("{way}: {no_fast_open}")), "{open:?}");
    }
    let ports = probe("bind-tcp = [8080]\nconnect-tcp = [8080]")?;
    // A port of the kernel's choice is nobody's to refuse: SECURITY.md says so.
    let limited = answers([0, denied, denied, no_protocol, no_fast_open, no_fast_open, no_fast_open, denied, 0, 0]);
    ensure!(ports == limited, "{ports:?}");
    let none = probe("bind-tcp = []\nconnect-tcp = []")?;
    ensure!(none.first().is_some_and(|line| *line == format!("socket: {denied}")), "{none:?}");
    ensure!(none.iter().filter(|line| line.ends_with(": 0")).eq(["UNIX listen: 0"]), "{none:?}");
    Ok(())
}

/// Nothing is narrowed in silence.
fn what_is_taken_away_is_told(c: &Containerd) -> Result<()> {
    let events = crate::task::Events::follow(c)?;
    let running = c.start_container(&[], &["sleep", "1000"])?;
    let id = format!("\"id\":\"{}\"", running.id());
    let dropped = "process.capabilities: dropped: NET_RAW";
    eventually("the event is sent", || {
        events.text().lines().any(|l| l.contains("/hardened/tightened") && l.contains(&id) && l.contains(dropped))
    })?;
    ensure!(hardenctl(&["explain", "--container", running.id()])?.ok()?.text().contains("dropped: NET_RAW"));
    running.remove()
}

fn a_device_of_the_profile_can_be_used_and_no_other(c: &Containerd) -> Result<()> {
    let folder = policy(c, "default = \"log\"\n[profile.log.host]\ndevices = [\"c 1:11\"]\n")?;
    folder.run(&["--device", "/dev/kmsg"], &["sh", "-c", "exec 3>/dev/kmsg"])?.ok()?;
    let out = folder.run(&["--device", "/dev/cpu_dma_latency"], &["true"])?;
    ensure!(out.status != 0 && out.stderr.contains("/dev/cpu_dma_latency (10:"), "{out:?}");
    Ok(())
}

/// Asked from outside, since in the container there is no node to open; in cgroups made below too.
fn the_cgroup_denies_devices_that_are_not_given(c: &Containerd) -> Result<()> {
    let folder = policy(c, "default = \"log\"\n[profile.log.host]\ndevices = [\"c 1:11\"]\n")?;
    let given = folder.start(&["--device", "/dev/kmsg"], &["sleep", "1000"])?;
    given.exec(&["sh", "-c", "exec 3>/dev/kmsg"])?.ok()?;
    let plain = folder.start(&[], &["sleep", "1000"])?;
    let opens = |running: &Running<'_>, nested: &str, device: &str| -> Result<bool> {
        let cgroup = cgroup_of(running.pid()?, "devices")?.join(nested);
        fs::create_dir_all(&cgroup)?;
        opens_in(&cgroup, device)
    };
    for nested in ["", "nested"] {
        ensure!(opens(&given, nested, "/dev/null")? && opens(&plain, nested, "/dev/null")?);
        ensure!(opens(&given, nested, "/dev/kmsg")?, "the device of the profile");
        ensure!(!opens(&plain, nested, "/dev/kmsg")?, "not asked for");
        ensure!(!opens(&given, nested, "/dev/cpu_dma_latency")?, "not given");
    }
    for running in [given, plain] {
        fs::remove_dir(cgroup_of(running.pid()?, "devices")?.join("nested"))?;
        running.remove()?;
    }
    Ok(())
}

const IDENTITY: [&str; 4] = [
    "--annotation",
    "io.kubernetes.cri.sandbox-namespace=ops",
    "--annotation",
    "io.kubernetes.cri.image-name=r/x@sha256:5555555555555555555555555555555555555555555555555555555555555555",
];

fn privileged_is_let_through_by_rule_alone(c: &Containerd) -> Result<()> {
    let rule =
        format!("[[rule]]\nnamespace = \"ops\"\ndigest = \"sha256:{}\"\nprivileged = \"allow\"\n", "5".repeat(64));
    let folder = policy(c, &rule)?;
    let program = "mount -t tmpfs x /mnt 2>/dev/null || mkdir /m && mount -t tmpfs x /m; grep -E '^(NoNew|CapEff)' /proc/self/status; ls /dev | wc -l";
    let out = folder.run(&[&["--privileged"][..], &IDENTITY].concat(), &["sh", "-c", program])?.ok()?;
    ensure!(out.text().contains("NoNewPrivs:\t1") && !out.text().contains("CapEff:\t00000000000005fb"), "{out:?}");
    // It is an event, and what was decided can be asked for.
    let events = crate::task::Events::follow(c)?;
    let running = folder.start(&[&["--privileged"][..], &IDENTITY].concat(), &["sleep", "1000"])?;
    let told = format!("\"id\":\"{}\"", running.id());
    eventually("the event is sent", || {
        events
            .text()
            .lines()
            .any(|l| l.contains("/hardened/privileged-admitted") && l.contains(&told) && l.contains("rule 1 ("))
    })?;
    let out = hardenctl(&["explain", "--container", running.id()])?.ok()?;
    ensure!(out.text().contains("by rule 1 (") && out.text().contains("privileged"), "{out:?}");
    running.remove()?;
    // In another namespace, and without the wish.
    let out = folder.run(&["--privileged"], &["true"])?;
    ensure!(out.stderr.contains("the container is privileged"), "{out:?}");
    let out = folder
        .run(&IDENTITY, &["sh", "-c", "grep -E '^(Seccomp:|CapBnd)' /proc/self/status; ! mount -t tmpfs x /tmp"])?;
    ensure!(out.status == 0 && out.text().contains("CapBnd:\t00000000000005fb"), "{out:?}");
    Ok(())
}

fn the_pause_container_gets_the_smallest_profile(c: &Containerd) -> Result<()> {
    let sandbox = ["--annotation", "io.kubernetes.cri.container-type=sandbox"];
    let running = c.start_container(&sandbox, &["sleep", "1000"])?;
    let status = fs::read_to_string(format!("/proc/{}/status", running.pid()?))?;
    for line in ["CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"] {
        ensure!(status.contains(line), "{line} is not in {status}");
    }
    let out = running.exec(&["true"])?;
    ensure!(out.status != 0 && out.stderr.contains("the profile refuses every exec"), "{out:?}");
    running.remove()?;
    let out = c.run(&sandbox, &["sh", "-c", "mkdir /tmp/x"])?;
    ensure!(out.status != 0 && out.stderr.contains("Function not implemented"), "{out:?}");
    Ok(())
}

fn a_rule_tells_runtime_handlers_apart(c: &Containerd) -> Result<()> {
    let folder = policy(
        c,
        "[profile.strict]\nseccomp.deny = [\"mkdir\", \"mkdirat\"]\n\
         [[rule]]\nhandler = \"hardened-strict\"\nprofile = \"strict\"\n",
    )?;
    let program = ["sh", "-c", "mkdir /tmp/x && echo made"];
    folder.run(&[], &program)?.ok()?;
    let out = c.run_under(&format!("io.containerd.{STRICT}.v1"), &folder.options(&[])?, &program, b"")?;
    ensure!(out.status != 0 && out.stderr.contains("mkdir"), "{out:?}");
    Ok(())
}

/// A folder that the policy names may be a link, or mounted elsewhere too.
fn paths_of_the_host_are_known_by_their_other_names(c: &Containerd) -> Result<()> {
    let volume = c.volume()?;
    let at = |name: &str| volume.join(name).display().to_string();
    for name in ["disk/engine", "disk/engines", "named", "free"] {
        fs::create_dir_all(volume.join(name))?;
    }
    std::os::unix::fs::symlink(at("disk/engine"), at("link"))?;
    // It is unmounted again with this containerd's folder.
    mount(&["--bind", &at("disk/engines"), &at("named")])?;
    let folder = policy(
        c,
        &format!(
            "default = \"x\"\n[profile.x.host]\nother-paths = \"read-only\"\npaths = {{ {:?} = \"deny\", {:?} = \"deny\" }}\n",
            at("link"),
            at("named")
        ),
    )?;
    let run = |name: &str| {
        let volume = format!("type=bind,src={},dst=/srv,options=rbind:ro", at(name));
        folder.run(&["--mount", &volume], &["true"])
    };
    run("free")?.ok()?;
    for name in ["disk/engine", "disk/engines", "disk", "link", "named", "."] {
        let out = run(name)?;
        ensure!(out.status != 0 && out.stderr.contains("of the host is mounted"), "{name}: {out:?}");
    }
    ensure!(Command::new("umount").arg(at("named")).status()?.success());
    Ok(())
}

/// The case on which agents rest that start late: what the entrypoint can read, a person cannot.
fn an_exec_cannot_read_the_secrets_of_its_container(c: &Containerd) -> Result<()> {
    let secrets = c.volume()?;
    fs::write(secrets.join("token"), "s3cr3t")?;
    share(&secrets)?;
    let folder = policy(c, "default = \"app\"\n[profile.app.exec]\nhidden = [\"/var/run/secrets\", \"/srv/none\"]\n")?;
    let mount = format!("type=bind,src={},dst=/var/run/secrets,options=rbind:ro", secrets.display());
    let program = "cat /var/run/secrets/token > /tmp/entrypoint; sleep 1000";
    let running = folder.start(&["--mount", &mount], &["sh", "-c", program])?;
    let copied = format!("/proc/{}/root/tmp/entrypoint", running.pid()?);
    eventually("the entrypoint reads its secret", || fs::read_to_string(&copied).is_ok_and(|t| t == "s3cr3t"))?;
    for attempt in [
        "cat /var/run/secrets/token",
        "cd /var/run && cat secrets/token",
        "cat /proc/1/root/var/run/secrets/token",
        "cat /proc/self/root/var/run/secrets/token",
        "ls /var/run/secrets",
        "ln /var/run/secrets/token /tmp/token && cat /tmp/token",
        "mv /var/run/secrets /tmp/moved && cat /tmp/moved/token",
        "mv /var /aside",
        "cat /run/secrets/token",
        // /var/run is a link to /run. Where the hidden folder lies was found before anything ran.
        "rm /var/run; ln -s /tmp /var/run; cat /run/secrets/token",
        "cat /run/secrets/token",
    ] {
        let out = running.exec(&["sh", "-c", attempt])?;
        ensure!(out.status != 0 && !out.text().contains("s3cr3t"), "{attempt}: {out:?}");
    }
    running.exec(&["sh", "-c", "cat /etc/passwd && touch /tmp/x"])?.ok()?;
    running.remove()
}

fn execs_are_narrower_than_their_container(c: &Containerd) -> Result<()> {
    let folder = policy(
        c,
        "default = \"app\"\n[profile.app.exec]\nread-only = true\nno-network = true\nprograms = [\"sh\", \"/bin/*\"]\n",
    )?;
    let running = folder.start(&[], &["sh", "-c", "touch /tmp/entrypoint && nc -l -p 80"])?;
    for (attempt, words) in [
        ("touch /tmp/x", "Permission denied"),
        ("echo x > /tmp/entrypoint", "Permission denied"),
        ("nc 127.0.0.1 80 </dev/null", "not supported"),
    ] {
        let out = running.exec(&["sh", "-c", attempt])?;
        ensure!(out.status != 0 && out.stderr.contains(words), "{attempt}: {out:?}");
    }
    running.exec(&["/bin/sh", "-c", "echo x > /dev/null && cat /tmp/entrypoint"])?.ok()?;
    let out = running.exec(&["cat", "/etc/passwd"])?;
    ensure!(out.status != 0 && out.stderr.contains("\"cat\"; the profile allows exec of sh, /bin/*"), "{out:?}");
    running.remove()?;

    let folder = policy(c, "default = \"app\"\n[profile.app.exec]\nrefuse = true\n")?;
    let running = folder.start(&[], &["sleep", "1000"])?;
    let out = running.exec(&["true"])?;
    ensure!(out.stderr.contains("refused by profile app (") && out.stderr.contains("refuses every exec"), "{out:?}");
    running.remove()
}

fn annotations_tighten(c: &Containerd) -> Result<()> {
    let annotation = |what: &str| format!("io.containerd.hardened.v1/{what}");
    let out = c.run(&["--annotation", &annotation("read-only-root=true")], &["sh", "-c", "! touch /srv/x"])?;
    out.ok()?;
    let out = c.run(&["--annotation", &annotation("bind-tcp=8080")], &["sh", "-c", "nc -l -p 9090 -w 1"])?;
    let problem = if knows_ports() { "Permission denied" } else { "rules for TCP ports need 4" };
    ensure!(out.stderr.contains(problem), "{out:?}");
    let running = c.start_container(&["--annotation", &annotation("exec=refuse")], &["sleep", "1000"])?;
    ensure!(running.exec(&["true"])?.stderr.contains("refuses every exec"));
    running.remove()?;
    for (what, words) in [
        ("read-only-root=yes", "\"yes\" is not what it takes -> give it true"),
        ("bind-tcp=http", "give it TCP ports as in"),
        ("exec=allow", "give it refuse"),
        ("privileged=true", "is not an annotation of this runtime -> use io.containerd.hardened.v1/ with one of"),
    ] {
        let out = c.run(&["--annotation", &annotation(what)], &["true"])?;
        ensure!(out.status != 0 && out.stderr.contains(words), "{what}: {out:?}");
    }
    Ok(())
}

fn a_change_is_for_the_containers_that_come_after_it(c: &Containerd) -> Result<()> {
    let folder = policy(c, "")?;
    let running = folder.start(&[], &["sleep", "1000"])?;
    folder.write("policy.d/10-tight.toml", "default = \"restricted\"\n")?;
    folder.write("policy.d/ignored.txt", "no TOML at all")?;
    let bounding = |out: Output| out.text().contains("00000000000005fb");
    ensure!(bounding(running.exec(&["grep", "CapBnd", "/proc/self/status"])?.ok()?), "an old container changed");
    ensure!(!bounding(folder.run(&[], &["grep", "CapBnd", "/proc/self/status"])?.ok()?), "a new one did not");
    running.remove()
}

fn a_policy_that_others_may_write_to_is_not_used(c: &Containerd) -> Result<()> {
    let folder = policy(c, "")?;
    folder.write("policy.d/a.toml", "")?;
    for (name, mode) in [("", 0o777), ("policy.toml", 0o664), ("policy.d", 0o772), ("policy.d/a.toml", 0o602)] {
        let path = folder.path.join(name);
        let before = fs::metadata(&path)?.permissions();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        let out = folder.run(&[], &["true"])?;
        ensure!(out.status != 0 && out.stderr.contains("others may write to it"), "{name}: {out:?}");
        ensure!(out.stderr.contains("chmod go-w"), "{name}: {out:?}");
        fs::set_permissions(&path, before)?;
        folder.run(&[], &["true"])?.ok()?;
    }
    std::os::unix::fs::chown(folder.path.join("policy.toml"), Some(1000), None)?;
    let out = folder.run(&[], &["true"])?;
    ensure!(out.stderr.contains("belongs to uid 1000; run: chown root"), "{out:?}");
    Ok(())
}

fn a_broken_policy_starts_nothing(c: &Containerd) -> Result<()> {
    for (text, words) in [
        ("defautl = \"baseline\"\n", "policy.toml:1:1: unknown field `defautl`"),
        ("[profile.x]\nextends = \"y\"\n", "policy.toml:2:11: there is no profile \"y\""),
        ("[[rule]]\nprofile = \"baseline\"\n", "a rule that selects nothing"),
        ("x = [", "policy.toml:1:"),
    ] {
        let out = policy(c, text)?.run(&[], &["true"])?;
        ensure!(out.status != 0 && out.stderr.contains(words), "{text}: {out:?}");
        ensure!(
            out.stderr.contains("no container is started") && out.stderr.contains("hardenctl policy lint"),
            "{out:?}"
        );
    }
    let folder = policy(c, "")?;
    fs::remove_file(folder.path.join("policy.toml"))?;
    fs::create_dir(folder.path.join("policy.toml"))?;
    let out = folder.run(&[], &["true"])?;
    ensure!(out.status != 0 && out.stderr.contains("policy.toml: Is a directory"), "{out:?}");
    Ok(())
}
