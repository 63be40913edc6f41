//! The Task service, as `ctr` sees it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hardened_integration::{Containerd, eventually};

crate::tests!(
    a_program_runs_and_its_exit_code_comes_back,
    a_program_that_ends_at_once_is_told_of,
    a_signal_ends_a_container,
    kill_all_reaches_every_process,
    an_exec_runs_and_its_exit_code_comes_back,
    fifty_execs_run_at_once,
    a_paused_container_stands_still,
    processes_are_listed_with_their_execs,
    metrics_are_containerds_own,
    an_oom_kill_is_told_of,
    events_come_in_containerds_order,
    zombies_are_reaped,
    a_container_is_deleted_before_it_ever_starts,
    checkpoint_is_refused_clearly,
    a_limit_on_processes_holds,
);

fn a_program_runs_and_its_exit_code_comes_back(c: &Containerd) -> Result<()> {
    for code in [0, 1, 7, 255] {
        let out = c.run(&[], &["sh", "-c", &format!("echo hello; exit {code}")])?;
        ensure!(out.status == code && out.text() == "hello", "{out:?}");
    }
    Ok(())
}

fn a_program_that_ends_at_once_is_told_of(c: &Containerd) -> Result<()> {
    for _ in 0..20 {
        let out = c.run(&[], &["true"])?;
        ensure!(out.status == 0, "{out:?}");
    }
    Ok(())
}

fn a_signal_ends_a_container(c: &Containerd) -> Result<()> {
    for (signal, program) in [
        ("SIGKILL", ["sleep", "1000"].as_slice()),
        // As pid 1, a program gets only the signals that it handles.
        ("SIGTERM", &["sh", "-c", "trap 'exit 9' TERM; while :; do sleep 0.1; done"]),
    ] {
        let running = c.start_container(&[], program)?;
        c.ctr(&["tasks", "kill", "-s", signal, running.id()])?.ok()?;
        eventually("it is stopped", || running.status().is_ok_and(|s| s == "STOPPED"))?;
        let deleted = c.ctr(&["tasks", "delete", running.id()])?;
        let expected = if signal == "SIGKILL" { 137 } else { 9 };
        ensure!(deleted.stderr.contains(&format!("exit code {expected}")), "{signal}: {deleted:?}");
        running.remove()?;
    }
    Ok(())
}

fn kill_all_reaches_every_process(c: &Containerd) -> Result<()> {
    let running = c.start_container(&[], &["sh", "-c", "sleep 1000 & sleep 1000 & wait; sleep 1000"])?;
    eventually("three processes", || {
        c.ctr(&["tasks", "ps", running.id()]).is_ok_and(|o| o.text().lines().count() == 4)
    })?;
    c.ctr(&["tasks", "kill", "-a", "-s", "SIGKILL", running.id()])?.ok()?;
    eventually("it is stopped", || running.status().is_ok_and(|s| s == "STOPPED"))?;
    running.remove()
}

fn an_exec_runs_and_its_exit_code_comes_back(c: &Containerd) -> Result<()> {
    let running = c.start_container(&[], &["sleep", "1000"])?;
    for code in [0, 3] {
        let out = running.exec(&["sh", "-c", &format!("echo out; echo err >&2; exit {code}")])?;
        ensure!(out.status == code && out.text() == "out" && out.stderr.contains("err"), "{out:?}");
    }
    let missing = running.exec(&["no-such-program"])?;
    ensure!(missing.status != 0 && missing.stderr.contains("executable file not found in $PATH"), "{missing:?}");
    ensure!(running.status()? == "RUNNING");
    running.remove()
}

fn fifty_execs_run_at_once(c: &Containerd) -> Result<()> {
    let running = c.start_container(&[], &["sleep", "1000"])?;
    let outputs: Vec<_> = std::thread::scope(|scope| {
        let execs: Vec<_> = (0..50)
            .map(|n| {
                let running = &running;
                scope.spawn(move || running.exec(&["sh", "-c", &format!("echo {n}; exit {}", n % 7)]))
            })
            .collect();
        execs.into_iter().map(std::thread::ScopedJoinHandle::join).collect()
    });
    for (n, out) in outputs.into_iter().enumerate() {
        let out = out.ok().context("exec panicked")??;
        ensure!(out.text() == n.to_string() && out.status == i32::try_from(n % 7)?, "{n}: {out:?}");
    }
    let runtime = format!("/run/hardened/{}/{}/runtime/{}", c.namespace(), running.id(), running.id());
    let left: Vec<_> = std::fs::read_dir(&runtime)?.flatten().map(|e| e.file_name()).collect();
    ensure!(!left.iter().any(|n| n.to_string_lossy().starts_with("tenant-")), "left in {runtime}: {left:?}");
    running.remove()
}

fn a_paused_container_stands_still(c: &Containerd) -> Result<()> {
    let running = c.start_container(&[], &["sh", "-c", "while :; do echo x >> /tmp/ticks; sleep 0.05; done"])?;
    let ticks = || -> Result<usize> {
        let pid = running.pid()?;
        Ok(std::fs::read_to_string(format!("/proc/{pid}/root/tmp/ticks")).unwrap_or_default().len())
    };
    eventually("it ticks", || ticks().is_ok_and(|n| n > 4))?;
    c.ctr(&["tasks", "pause", running.id()])?.ok()?;
    ensure!(running.status()? == "PAUSED");
    let before = ticks()?;
    std::thread::sleep(Duration::from_millis(400));
    ensure!(ticks()? == before, "it ticks while paused");
    let exec = running.exec(&["true"])?;
    ensure!(exec.status != 0 && exec.stderr.contains("paused"), "{exec:?}");
    c.ctr(&["tasks", "resume", running.id()])?.ok()?;
    ensure!(running.status()? == "RUNNING");
    eventually("it ticks again", || ticks().is_ok_and(|n| n > before))?;
    running.remove()
}

fn processes_are_listed_with_their_execs(c: &Containerd) -> Result<()> {
    let running = c.start_container(&[], &["sleep", "1000"])?;
    c.ctr(&["tasks", "exec", "-d", "--exec-id", "second", running.id(), "sleep", "1000"])?.ok()?;
    let list = || c.ctr(&["tasks", "ps", running.id()])?.ok().map(|out| out.text());
    // The launcher of the exec may not be gone yet when its program runs.
    eventually("there are two", || list().is_ok_and(|list| list.lines().count() == 3))?;
    let list = list()?;
    ensure!(list.contains(&running.pid()?.to_string()) && list.contains("second"), "{list}");
    running.remove()
}

fn metrics_are_containerds_own(c: &Containerd) -> Result<()> {
    let running = c.start_container(&["--memory-limit", "67108864"], &["sleep", "1000"])?;
    let metrics = c.ctr(&["tasks", "metrics", "--format", "json", running.id()])?.ok()?.text();
    let metrics: serde_json::Value = serde_json::from_str(&metrics).with_context(|| metrics.clone())?;
    let limit = metrics.pointer("/memory/usage/limit").or_else(|| metrics.pointer("/memory/usage_limit"));
    let value = limit.map(|l| l.as_u64().map_or_else(|| l.to_string(), |n| n.to_string())).unwrap_or_default();
    ensure!(value.trim_matches('"') == "67108864", "{metrics}");
    ensure!(metrics.pointer("/pids/current").is_some_and(|n| n.to_string().trim_matches('"') == "1"), "{metrics}");
    running.remove()
}

fn an_oom_kill_is_told_of(c: &Containerd) -> Result<()> {
    let events = Events::follow(c)?;
    let running = c.start_container(
        &["--memory-limit", "16777216"],
        &["sh", "-c", "sleep 0.2; dd if=/dev/zero of=/dev/shm/x bs=1M count=60; x=$(head -c 80000000 /dev/zero | tr '\\0' x); sleep 1"],
    )?;
    let told = eventually("/tasks/oom is sent", || events.of(running.id()).iter().any(|topic| topic == "/tasks/oom"));
    running.remove()?;
    told
}

fn events_come_in_containerds_order(c: &Containerd) -> Result<()> {
    let events = Events::follow(c)?;
    let running = c.start_container(&[], &["sleep", "1000"])?;
    // Ends faster than its start is answered.
    running.exec(&["true"])?.ok()?;
    c.ctr(&["tasks", "exec", "-d", "--exec-id", "long", running.id(), "sleep", "1000"])?.ok()?;
    c.ctr(&["tasks", "pause", running.id()])?.ok()?;
    c.ctr(&["tasks", "resume", running.id()])?.ok()?;
    c.ctr(&["tasks", "kill", "-s", "SIGKILL", running.id()])?.ok()?;
    eventually("it is stopped", || running.status().is_ok_and(|s| s == "STOPPED"))?;
    let id = running.id().to_owned();
    running.remove()?;
    eventually("/tasks/delete is sent", || events.of(&id).iter().any(|t| t == "/tasks/delete"))?;
    let topics = events.of(&id);
    let expected = [
        "/tasks/create",
        "/tasks/start",
        "/tasks/exec-added",
        "/tasks/exec-started",
        "/tasks/exit",
        "/tasks/exec-added",
        "/tasks/exec-started",
        "/tasks/paused",
        "/tasks/resumed",
        "/tasks/exit",
        "/tasks/exit",
        "/tasks/delete",
    ];
    ensure!(topics == expected, "{topics:?}");
    // The exec's end before init's.
    let exits: Vec<String> = events.lines(&id).into_iter().filter(|l| l.contains("/tasks/exit")).collect();
    ensure!(exits.get(1).is_some_and(|l| l.contains("\"long\"")), "{exits:?}");
    ensure!(exits.get(2).is_some_and(|l| l.contains(&format!("\"id\":\"{id}\""))), "{exits:?}");
    Ok(())
}

fn zombies_are_reaped(c: &Containerd) -> Result<()> {
    let running = c.start_container(&[], &["sleep", "1000"])?;
    for _ in 0..5 {
        running.exec(&["sh", "-c", "(sleep 0.1 &) ; true"])?.ok()?;
    }
    // Orphans of execs are init's to reap, and sleep does not; those of the shim must be gone.
    let shim = running.shim()?;
    eventually("the shim has no zombie", || {
        hardened_integration::processes().is_ok_and(|all| {
            all.keys().all(|pid| {
                let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
                let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
                fields.first() != Some(&"Z") || fields.get(1) != Some(&shim.to_string().as_str())
            })
        })
    })?;
    running.remove()
}

fn a_container_is_deleted_before_it_ever_starts(c: &Containerd) -> Result<()> {
    // A program that is missing is found out at start: the container was made, and is undone.
    let id = c.id("never");
    let out = c.ctr(&[
        "run",
        "--rm",
        "--runtime",
        hardened_integration::HARDENED,
        hardened_integration::IMAGE,
        &id,
        "/nowhere",
    ])?;
    ensure!(out.status != 0 && out.stderr.contains("\"/nowhere\" does not exist in the container"), "{out:?}");
    c.ctr(&["containers", "delete", &id])?;
    c.nothing_left(&id)
}

fn checkpoint_is_refused_clearly(c: &Containerd) -> Result<()> {
    let running = c.start_container(&[], &["sleep", "1000"])?;
    let out = c.ctr(&["tasks", "checkpoint", running.id()])?;
    ensure!(out.status != 0 && out.stderr.contains("checkpoint is not supported"), "{out:?}");
    running.remove()
}

fn a_limit_on_processes_holds(c: &Containerd) -> Result<()> {
    let spec = crate::refusals::spec(c, |spec| {
        spec["linux"]["resources"]["pids"] = serde_json::json!({"limit": 5});
        spec["process"]["args"] =
            serde_json::json!(["/bin/sh", "-c", "for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; echo unreached"]);
    })?;
    let out = spec.run()?;
    ensure!(out.stderr.contains("can't fork"), "{out:?}");
    Ok(())
}

/// `ctr events`, running in the background.
pub(crate) struct Events {
    child: std::process::Child,
    file: std::path::PathBuf,
}

impl Events {
    pub(crate) fn follow(c: &Containerd) -> Result<Self> {
        let file = c.home().join(c.id("events"));
        let child = c.command(&["events"]).stdout(std::fs::File::create(&file)?).spawn()?;
        let events = Self { child, file };
        // Subscribed once it sees something happen.
        let end = Instant::now() + Duration::from_secs(10);
        while std::fs::metadata(&events.file)?.len() == 0 && Instant::now() < end {
            let name = c.id("label");
            c.ctr(&["namespaces", "label", c.namespace(), &format!("{name}=x")])?.ok()?;
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(events)
    }

    /// All that was told so far.
    pub(crate) fn text(&self) -> String {
        std::fs::read_to_string(&self.file).unwrap_or_default()
    }

    fn lines(&self, id: &str) -> Vec<String> {
        let text = self.text();
        let wanted = format!("\"container_id\":\"{id}\"");
        text.lines().filter(|l| l.contains("/tasks/") && l.contains(&wanted)).map(str::to_owned).collect()
    }

    fn of(&self, id: &str) -> Vec<String> {
        let topic = |l: &String| l.split_whitespace().find(|w| w.starts_with("/tasks/")).map(str::to_owned);
        self.lines(id).iter().filter_map(topic).collect()
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
