//! Denied calls: answered as the filter would, and reported.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hardened_integration::cri::Cri;
use hardened_integration::direct::Direct;
use hardened_integration::{Containerd, eventually, hardenctl, parent, processes};
use serde_json::Value;

use crate::pods::{run_in, shell};
use crate::policy::policy;

crate::tests!(
    a_denied_call_is_told_of_with_who_and_what_would_allow_it,
    questions_are_answered_as_the_container_finds_it,
    what_is_told_outlives_its_container,
    each_of_five_hundred_short_lives_is_counted,
    ever_other_arguments_hide_no_other_call,
    no_process_of_a_container_has_a_listener,
    a_container_that_is_denied_calls_can_be_frozen,
    calls_stay_denied_when_the_shim_is_gone,
    a_container_that_spams_slows_itself_alone,
    a_hostile_name_forges_no_record,
    what_the_policy_says_is_not_told,
    the_probe_finds_the_same_with_explanations_and_without,
    records_that_cannot_be_written_hold_nobody_up,
    denials_are_told_of_after_containerd_was_restarted,
    a_signal_ends_a_call_that_waits,
    a_refused_container_is_told_of,
);

pub(crate) const POD_TESTS: &[crate::PodTest] =
    &[("a_pod_that_fails_of_a_denial_is_told_so", a_pod_that_fails_of_a_denial_is_told_so)];

/// The records of a container.
fn records(c: &Containerd, id: &str) -> Result<Vec<Value>> {
    let path = format!("/run/hardened/events/{}@{id}.jsonl", c.namespace());
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
}

/// Those of one call, as soon as there is one: it is written down when the program has its answer.
fn record_of(c: &Containerd, id: &str, call: &str) -> Result<Value> {
    let of_call = || records(c, id).ok().and_then(|all| all.into_iter().find(|record| record["Resource"] == call));
    eventually(&format!("{call} is reported"), || of_call().is_some())?;
    of_call().context("it is gone again")
}

/// Descriptors of a process that are listeners of a filter.
fn listeners(pid: i32) -> Result<usize> {
    let all = fs::read_dir(format!("/proc/{pid}/fd"))?.flatten().filter_map(|fd| fs::read_link(fd.path()).ok());
    Ok(all.filter(|link| link == Path::new("anon_inode:seccomp notify")).count())
}

fn a_denied_call_is_told_of_with_who_and_what_would_allow_it(c: &Containerd) -> Result<()> {
    let running = c.start_container(&[], &["sh", "-c", "unshare -U true; mount -t tmpfs t /mnt; exec sleep 1000"])?;
    let id = running.id();
    let record = record_of(c, id, "unshare")?;
    let wanted = serde_json::json!({
        "Version": 1, "Count": 1, "ContainerID": id, "UID": 0, "Comm": "unshare", "ProcessName": "/bin/busybox",
        "Type": "MatchedPolicy", "Enforcer": "seccomp", "Operation": "Syscall", "Resource": "unshare",
        "Data": "syscall=SYS_UNSHARE flags=CLONE_NEWUSER", "Args": ["flags=CLONE_NEWUSER"], "Action": "Block",
        "Result": "EPERM", "PolicyName": "profile baseline", "Setting": "profile.NAME.seccomp.allow = [\"unshare\"]",
    });
    for (key, value) in wanted.as_object().context("an object")? {
        ensure!(record[key] == *value, "{key}: {} instead of {value}", record[key]);
    }
    ensure!(record["Tags"].as_str().is_some_and(|tags| tags.contains("MITRE-T1611")), "{record}");
    ensure!(record["PID"].as_u64() > Some(1) && record["HostPID"].as_u64() > record["PID"].as_u64(), "{record}");
    ensure!(record.get("ExecEvent").is_none() && record_of(c, id, "mount")?["Setting"].is_null());

    let exec = running.exec(&["hardened-probe", "ptrace own child"])?.ok()?.text();
    ensure!(exec.contains("\"verdict\":\"denied\",\"number\":1"), "{exec}");
    let record = record_of(c, id, "ptrace")?;
    ensure!(record["ExecEvent"]["ExecutableName"] == "hardened-probe", "{record}");

    let why = hardenctl(&["why", id])?.ok()?.text();
    for words in
        ["unshare(flags=CLONE_NEWUSER)", "no setting allows it", "capabilities.add = [\"SYS_PTRACE\"]", "in the exec"]
    {
        ensure!(why.contains(words), "{words}: {why}");
    }
    let events = hardenctl(&["events", "--json", id])?.ok()?.text();
    // Other daemons' containers are called the same.
    let parsed: Vec<Value> = events.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    ensure!(records(c, id)?.iter().all(|record| parsed.contains(record)), "{events}");
    let top = hardenctl(&["top", "--json"])?.ok()?.text();
    ensure!(top.contains(&format!("\"pod\": \"{id}\"")), "{top}");
    running.remove()
}

/// Each answer is tried.
fn questions_are_answered_as_the_container_finds_it(c: &Containerd) -> Result<()> {
    let volume = c.volume()?;
    let text = r#"
        default = "asked"
        [profile.asked]
        files = { no-write = ["/etc"], hidden = ["/srv"], execute-from-writable = false }
        network.connect-tcp = [443]
    "#;
    let folder = policy(c, text)?;
    let mount = |at: &str, how: &str| format!("type=bind,src={},dst={at},options=rbind:{how}", volume.display());
    let (writable, read_only) = (mount("/data", "rw"), mount("/config", "ro"));
    let running = folder.start(&["--mount", &writable, "--mount", &read_only], &["sleep", "1000"])?;
    let copy = "cp /bin/busybox /tmp/echo && cp /bin/busybox /home/echo";
    running.exec(&["sh", "-c", &format!("mkdir -p /home && {copy}")])?.ok()?;
    for (question, value, try_it, allowed) in [
        ("--write", "/etc/x", "touch /etc/x", false),
        ("--write", "/srv/x", "touch /srv/x", false),
        ("--write", "/bin/x", "touch /bin/x", false),
        ("--write", "/usr/x", "touch /usr/x", false),
        ("--write", "/config/x", "touch /config/x", false),
        ("--write", "/proc/sys/kernel/hostname", "echo x >/proc/sys/kernel/hostname", false),
        ("--write", "/data/x", "touch /data/x", true),
        ("--write", "/x", "touch /x", false),
        ("--write", "/home/x", "touch /home/x", true),
        ("--write", "/usr/share/x", "mkdir -p /usr/share && touch /usr/share/x", true),
        ("--execute", "/tmp/echo", "/tmp/echo x", false),
        ("--execute", "/srv/echo", "/srv/echo x", false),
        ("--execute", "/home/echo", "/home/echo x", true),
        ("--connect", "80", "nc -w 1 127.0.0.1 80 </dev/null 2>&1 | grep -qi refused", false),
        ("--connect", "443", "nc -w 1 127.0.0.1 443 </dev/null 2>&1 | grep -qi refused", true),
        ("--call", "unshare", "unshare -U true", false),
        ("--call", "chown", "chown 0 /home/x", true),
    ] {
        let tried = running.exec(&["sh", "-c", try_it])?;
        ensure!((tried.status == 0) == allowed, "{try_it}: {tried:?}");
        let answer = hardenctl(&["why", running.id(), "--json", question, value])?;
        ensure!(answer.status == i32::from(!allowed), "{question} {value}: {answer:?}");
        let answer: Value = serde_json::from_slice(&answer.stdout)?;
        ensure!(answer[0]["answers"][0]["answer"]["allowed"] == allowed, "{question} {value}: {answer}");
    }
    let text = hardenctl(&["why", running.id(), "--write", "/bin/x", "--connect", "80"])?.text();
    for words in [
        "write /bin/x: no, programs and libraries",
        "profile.asked.files.system = \"writable\"",
        "network.connect-tcp allows: 443",
    ] {
        ensure!(text.contains(words), "{words}: {text}");
    }
    running.remove()
}

fn what_is_told_outlives_its_container(c: &Containerd) -> Result<()> {
    let running = c.start_container(&[], &["sh", "-c", "for i in $(seq 25); do unshare -U true; done; exit 3"])?;
    let id = running.id().to_owned();
    eventually("it ends", || running.status().is_ok_and(|status| status == "STOPPED"))?;
    running.remove()?;
    c.nothing_left(&id)?;
    // At powers of ten, and the last when it ended.
    let counts: Vec<_> = records(c, &id)?.iter().map(|record| record["Count"].as_u64()).collect();
    ensure!(counts == [Some(1), Some(10), Some(25)], "{counts:?}");
    ensure!(hardenctl(&["why", &id])?.ok()?.text().contains("25 times"));
    Ok(())
}

/// Processes that are gone when their denial is looked at, and execs: a probe's, again and again, and others between.
fn each_of_five_hundred_short_lives_is_counted(c: &Containerd) -> Result<()> {
    let running = c.start_container(&[], &["sleep", "1000"])?;
    let lives = "for i in $(seq 500); do hardened-probe 'unshare CLONE_NEWUTS' >/dev/null & done; wait";
    let lived = running.exec(&["sh", "-c", lives])?;
    ensure!(lived.status == 0, "{lived:?}");
    for probe in 0..80 {
        running.exec(&["hardened-probe", "pivot_root"])?.ok()?;
        if probe == 70 {
            running.exec(&["hardened-probe", "swapon"])?.ok()?;
        }
    }
    let id = running.id().to_owned();
    running.remove()?;
    let all = records(c, &id)?;
    let last = |call: &str| all.iter().rfind(|record| record["Resource"] == call);
    for (call, count) in [("unshare", 500), ("pivot_root", 80), ("swapon", 1)] {
        let record = last(call).with_context(|| call.to_owned())?;
        ensure!(record["Count"] == count && record["ContainerID"] == id.as_str(), "{record}");
        ensure!(record["ExecEvent"]["ExecID"].as_str().is_some_and(|exec| !exec.is_empty()), "{record}");
    }
    ensure!(all.iter().all(|record| record["Operation"] == "Syscall"), "some were not listed");
    Ok(())
}

/// Four kinds of a call have separate records; all others share one.
fn ever_other_arguments_hide_no_other_call(c: &Containerd) -> Result<()> {
    let calls = "for f in m u i n p U mu mi mn; do unshare -$f true; done; hardened-probe pivot_root; exec sleep 1000";
    let running = c.start_container(&[], &["sh", "-c", calls])?;
    let id = running.id().to_owned();
    record_of(c, &id, "pivot_root")?;
    running.remove()?;
    let mut last = std::collections::BTreeMap::new();
    for record in records(c, &id)?.into_iter().filter(|record| record["Resource"] == "unshare") {
        last.insert(record["Data"].to_string(), record["Count"].as_u64().context("a count")?);
    }
    ensure!(last.len() == 5 && last.values().sum::<u64>() == 9, "{last:?}");
    Ok(())
}

/// A process with a listener could let calls through.
fn no_process_of_a_container_has_a_listener(c: &Containerd) -> Result<()> {
    let running = c.start_container(&[], &["sh", "-c", "sleep 1000 & sleep 1000"])?;
    c.ctr(&["tasks", "exec", "-d", "--exec-id", "e", running.id(), "sleep", "1000"])?.ok()?;
    // As soon as the exec is what it is to be.
    let pids = || -> Result<Vec<i32>> {
        let list = c.ctr(&["tasks", "ps", running.id()])?.ok()?.text();
        let all: Vec<i32> = list.lines().filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect();
        let executes =
            |pid: &i32| fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|l| !l.contains("launch"));
        Ok(all.into_iter().filter(executes).collect())
    };
    eventually("three processes", || pids().is_ok_and(|all| all.len() == 3))?;
    for pid in pids()? {
        ensure!(listeners(pid)? == 0, "process {pid} has a listener");
    }
    // One for the entrypoint and what it starts, one for the exec.
    ensure!(listeners(running.shim()?)? == 2, "{} listeners", listeners(running.shim()?)?);
    c.ctr(&["tasks", "kill", "--exec-id", "e", "-s", "KILL", running.id()])?.ok()?;
    let shim = running.shim()?;
    eventually("the exec's is closed", || listeners(shim).is_ok_and(|open| open == 1))?;
    running.remove()
}

fn a_container_that_is_denied_calls_can_be_frozen(c: &Containerd) -> Result<()> {
    let running = c.start_container(&[], &["hardened-probe", "spam", "20", "600000"])?;
    record_of(c, running.id(), "unshare")?;
    for _ in 0..10 {
        c.ctr(&["tasks", "pause", running.id()])?.ok()?;
        ensure!(running.status()? == "PAUSED");
        c.ctr(&["tasks", "resume", running.id()])?.ok()?;
    }
    ensure!(running.status()? == "RUNNING");
    running.remove()
}

/// Without containerd, which would end the container at once.
/// Nor does a container become its own supervisor then: of two filters that ask one the kernel takes the newer.
fn calls_stay_denied_when_the_shim_is_gone(c: &Containerd) -> Result<()> {
    let program = "hardened-probe listener 60000 >/dev/shm/own & while :; do unshare -U true 2>>/dev/shm/said; \
                   [ $? = 0 ] && echo let-through >>/dev/shm/said; sleep 0.02; done";
    let shim = Direct::start(c, "containerd-shim-hardened-v1", &c.spec(&["/bin/sh", "-c", program])?)?;
    let id = shim.id().to_owned();
    shim.create_and_start(None)?;
    let init = i32::try_from(shim.pid()?)?;
    let said = |file: &str| fs::read_to_string(format!("/proc/{init}/root/dev/shm/{file}")).unwrap_or_default();
    eventually("it is denied", || said("said").contains("Operation not permitted"))?;
    eventually("it asked for a listener", || said("own").contains("Resource busy"))?;
    let of_shim = parent(init).context("parent")?;
    // SAFETY: takes numbers only; the pid is of this test's shim.
    unsafe { libc::kill(of_shim, libc::SIGKILL) };
    eventually("it is denied without the shim", || said("said").contains("Function not implemented"))?;
    std::thread::sleep(Duration::from_millis(300));
    let (said, own) = (said("said"), said("own"));
    shim.abandon()?;
    ensure!(!said.contains("let-through"), "{said}");
    ensure!(own.lines().count() == 1, "{own}");
    c.nothing_left(&id)
}

/// CPU time of a process, in clock ticks: proc_pid_stat(5).
fn ticks(pid: i32) -> Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit_once(')').context("no name")?.1.split_whitespace().collect();
    let field = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok()).context("a number");
    Ok(field(11)? + field(12)?)
}

fn a_container_that_spams_slows_itself_alone(c: &Containerd) -> Result<()> {
    let pod = c.id("pod");
    let options = ["--annotation", &format!("io.kubernetes.cri.sandbox-id={pod}")];
    let spammer = c.start_container(&options, &["sleep", "1000"])?;
    let bystander = c.start_container(&options, &["sleep", "1000"])?;
    let shim = parent(spammer.pid()?).context("parent")?;
    ensure!(parent(bystander.pid()?) == Some(shim), "two shims");
    let before = (Instant::now(), ticks(shim)?);
    let milliseconds = 3000;
    let spam = spammer.exec(&["hardened-probe", "spam", "200", &milliseconds.to_string()])?.ok()?.text();
    let (took, spent) = (before.0.elapsed(), ticks(shim)? - before.1);
    let spam: f64 = spam.parse()?;
    // What it may at once, and half of the pod's 1,000 a second: calls that wait for their answer are one a thread.
    let most = 10_000.0 + 500.0 * took.as_secs_f64() + 200.0;
    println!("{spam} calls of 200 threads in {took:?}, the shim's time {spent} ticks");
    ensure!(spam > 10_000.0 && spam <= most, "{spam} calls in {took:?}, at most {most}");
    // While the one has used up its share, the other has its own.
    let spamming = std::thread::scope(|scope| -> Result<_> {
        let spamming = scope.spawn(|| spammer.exec(&["hardened-probe", "spam", "200", "1500"]));
        let mine = bystander.exec(&["hardened-probe", "spam", "1", "1000"])?.ok()?.text();
        spamming.join().map_err(|_| anyhow::anyhow!("a thread failed"))??.ok()?;
        Ok(mine.parse::<u64>()?)
    })?;
    // An emulated machine answers no more than some hundred.
    ensure!(spamming > 50, "the bystander was answered {spamming} times in a second");
    let count = records(c, spammer.id())?.iter().filter_map(|record| record["Count"].as_u64()).max();
    ensure!(count >= Some(10_000), "{count:?}");
    bystander.remove()?;
    spammer.remove()
}

fn a_hostile_name_forges_no_record(c: &Containerd) -> Result<()> {
    // A line end, an escape sequence and a record of its own, as far as 15 bytes go.
    let program = r#"cd /tmp && n=$(printf 'x\n{"a":1}\033[31m') && cp /bin/hardened-probe "$n" && "./$n" 'ptrace own child'; exec sleep 1000"#;
    let running = c.start_container(&[], &["sh", "-c", program])?;
    let record = record_of(c, running.id(), "ptrace")?;
    // Already in the record: `tail` and `--json` print it as it is.
    ensure!(record["Comm"] == r#"x\n{"a":1}\u{1b}[31m"#, "{record}");
    ensure!(record["ProcessName"] == r#"/tmp/x\n{"a":1}\u{1b}[31m"#, "{record}");
    ensure!(records(c, running.id())?.len() == 1, "{:?}", records(c, running.id())?);
    for command in ["events", "why"] {
        let shown = hardenctl(&[command, running.id()])?.ok()?.text();
        ensure!(
            shown.contains(r#"x\n{"a":1}\u{1b}[31m"#) && !shown.contains("x\n") && !shown.contains("\u{1b}[31m"),
            "{shown}"
        );
    }
    running.remove()
}

/// Errno by errno.
fn the_probe_finds_the_same_with_explanations_and_without(c: &Containerd) -> Result<()> {
    for extends in ["baseline", "restricted"] {
        let found = |explain: &str| -> Result<Vec<String>> {
            let text = format!("default = \"p\"\n[profile.p]\nextends = \"{extends}\"\nexplain = \"{explain}\"\n");
            let folder = policy(c, &text)?;
            let mut lines = Vec::new();
            for program in [&["hardened-probe"][..], &["hardened-probe", "every-call"]] {
                lines.extend(folder.run(&[], program)?.ok()?.text().lines().map(str::to_owned));
            }
            Ok(lines)
        };
        let (on, off) = (found("on")?, found("off")?);
        ensure!(on.len() > 500 && on.len() == off.len(), "{} and {} lines", on.len(), off.len());
        let other: Vec<_> = on.iter().zip(&off).filter(|(on, off)| on != off).collect();
        ensure!(other.is_empty(), "{extends}: {other:?}");
    }
    Ok(())
}

fn a_refused_container_is_told_of(c: &Containerd) -> Result<()> {
    let id = c.id("refused");
    let options =
        ["run", "--rm", "--runtime", hardened_integration::HARDENED, "--privileged", hardened_integration::IMAGE];
    ensure!(c.ctr(&[&options[..], &[&id, "true"]].concat())?.status != 0, "it was started");
    let all = records(c, &id)?;
    ensure!(all.len() == 1 && all[0]["Operation"] == "Create" && all[0]["Enforcer"] == "policy", "{all:?}");
    let told = hardenctl(&["why", &id])?.ok()?.text();
    for words in ["refused", "privileged"] {
        ensure!(told.contains(words), "{told}");
    }
    c.ctr(&["containers", "delete", &id])?;
    c.nothing_left(&id)
}

/// Where the file would be there is a folder; a full disk is no other.
fn records_that_cannot_be_written_hold_nobody_up(c: &Containerd) -> Result<()> {
    let id = c.id("untold");
    let taken = PathBuf::from(format!("/run/hardened/events/{}@{id}.jsonl", c.namespace()));
    fs::create_dir_all(taken.join("full"))?;
    let program = ["hardened-probe", "ptrace own child", "unshare CLONE_NEWUTS", "getpid"];
    let run =
        [&["run", "--rm", "--runtime", hardened_integration::HARDENED, hardened_integration::IMAGE, &id][..], &program];
    let out = c.ctr(&run.concat());
    fs::remove_dir_all(&taken)?;
    let out = out?.ok()?.text();
    ensure!(out.matches("\"denied\"").count() == 2, "{out}");
    c.nothing_left(&id)
}

fn what_the_policy_says_is_not_told(c: &Containerd) -> Result<()> {
    let program = "unshare -U true; hardened-probe 'ptrace own child'; exec sleep 1000";
    let quiet = policy(c, "default = \"q\"\nprofile.q.seccomp.quiet = [\"unshare\"]")?;
    let running = quiet.start(&[], &["sh", "-c", program])?;
    record_of(c, running.id(), "ptrace")?;
    ensure!(records(c, running.id())?.iter().all(|record| record["Resource"] != "unshare"));
    running.remove()?;
    let off = policy(c, "default = \"q\"\nprofile.q.explain = \"off\"")?;
    let running = off.start(&[], &["sh", "-c", program])?;
    let denied = running.exec(&["hardened-probe", "ptrace own child"])?.ok()?.text();
    ensure!(denied.contains("denied"), "{denied}");
    ensure!(records(c, running.id())?.is_empty() && listeners(running.shim()?)? == 0);
    running.remove()
}

/// Of a filter in the kernel nothing waits.
fn a_signal_ends_a_call_that_waits(c: &Containerd) -> Result<()> {
    let running = c.start_container(&[], &["hardened-probe", "spam", "50", "600000"])?;
    record_of(c, running.id(), "unshare")?;
    let init = running.pid()?;
    let begin = Instant::now();
    c.ctr(&["tasks", "kill", "-s", "KILL", running.id()])?.ok()?;
    eventually("init has ended", || processes().is_ok_and(|all| !all.contains_key(&init)))?;
    ensure!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    running.remove()
}

fn denials_are_told_of_after_containerd_was_restarted(c: &Containerd) -> Result<()> {
    let own = Containerd::start_beside(c)?;
    let running = own
        .start_container(&[], &["sh", "-c", "until [ -e /tmp/go ]; do sleep 0.1; done; unshare -U true; sleep 1000"])?;
    own.shut_down()?;
    own.boot()?;
    running.exec(&["touch", "/tmp/go"])?.ok()?;
    record_of(&own, running.id(), "unshare")?;
    running.exec(&["hardened-probe", "pivot_root"])?.ok()?;
    record_of(&own, running.id(), "pivot_root")?;
    running.remove()
}

fn a_pod_that_fails_of_a_denial_is_told_so(cri: &Cri) -> Result<()> {
    let config = cri.pod_config("denied");
    let name = config.metadata.clone().unwrap_or_default().name;
    let pod = cri.run_pod(config)?;
    let (code, _) = run_in(&pod, shell("server", "unshare -U true || exit 7"))?;
    ensure!(code == 7, "{code}");
    let log = || fs::read_to_string(log_of(cri)).unwrap_or_default();
    eventually("containerd's log says so", || {
        log().contains("ended with status 7 shortly after it was denied unshare(flags=CLONE_NEWUSER)")
    })?;
    let why = hardenctl(&["why", "-n", "shop", &name])?.ok()?.text();
    ensure!(why.contains("unshare") && why.contains(&format!("shop/{name} server")), "{why}");
    ensure!(hardenctl(&["why", "-n", "elsewhere", &name])?.ok()?.text().contains("No denials are recorded"));
    pod.remove()
}

fn log_of(cri: &Cri) -> PathBuf {
    cri.containerd().home().join("log")
}
