//! Measures hardened against `io.containerd.runc.v2` with runc and with crun, interleaved in one
//! run. `scripts/bench [ROUNDS] [PART...]` runs it and writes `target/bench.md` and `target/bench.json`.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, CString};
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use hardened_integration::direct::Direct;
use hardened_integration::{Containerd, Generation, HARDENED, IMAGE, RUNC, processes, repository, run};

/// What is compared.
struct Contender {
    name: &'static str,
    /// Options of `ctr run`.
    options: Vec<&'static str>,
    /// The shim.
    binary: &'static str,
    /// What runc's shim runs.
    oci_runtime: Option<&'static str>,
}

/// Everything that can be measured, by the names of the command line.
const PARTS: [&str; 5] = ["own", "calls", "rpc", "memory", "system-calls"];

const CHURN: usize = 200;
const CONCURRENCY: usize = 8;

/// Pods on a node.
const PODS: [(usize, &str); 3] =
    [(1, "PSS of a shim, one pod, kB"), (20, "PSS of a shim, 20 pods, kB"), (200, "PSS of a shim, 200 pods, kB")];

/// Mounts of a node with a hundred pods and their volumes.
const MOUNTS: usize = 1000;

/// Pods of a large node.
const MANY_PODS: usize = 300;

/// How often the first and the last of them are measured, the others being hardened's.
const POD_ROUNDS: usize = 15;

const RPC: &str = "Create + Start as RPCs, ms";
const RPC_MOUNTS: &str = "Create + Start with 1,000 host mounts, ms";
const RPC_RULES: &str = "Create + Start under 500 rules, ms";
const EXEC: &str = "Exec to Delete as RPCs, ms";
const EXEC_MOUNTS: &str = "Exec to Delete with 1,000 host mounts, ms";
const DELETE: &str = "Delete as RPC, ms";
const FIRST_POD: &str = "Create + Start of the first pod, ms";
const LAST_POD: &str = "Create + Start of the 300th pod, ms";

/// Which row is also printed as a multiple of which other row.
const AGAINST: [(&str, &str); 4] = [(RPC_MOUNTS, RPC), (RPC_RULES, RPC), (EXEC_MOUNTS, EXEC), (LAST_POD, FIRST_POD)];

/// Milliseconds, kilobytes or nanoseconds by measurement and contender.
type Samples = BTreeMap<&'static str, BTreeMap<&'static str, Vec<f64>>>;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let rounds: usize = arguments.next().map_or(Ok(25), |n| n.parse()).context("ROUNDS: expected a number")?;
    let parts: Vec<String> = arguments.collect();
    if let Some(unknown) = parts.iter().find(|part| !PARTS.contains(&part.as_str())) {
        bail!("{unknown}: there is no such part; expected some of {}", PARTS.join(", "));
    }
    let wanted = |part: &str| parts.is_empty() || parts.iter().any(|wanted| wanted == part);
    let c = Containerd::start(Generation::Two)?;
    let contenders = contenders(&c)?;
    let mut report = Report::default();
    let mut samples = Samples::new();
    macro_rules! note {
        ($what:expr, $who:expr, $value:expr) => {
            samples.entry($what).or_default().entry($who).or_default().push($value)
        };
    }

    if wanted("own") {
        for _ in 0..50 {
            let (decide, lock_down) = hardening(&c)?;
            note!("decide and compile, µs", "hardened", decide);
            note!("lock-down up to execve, µs", "hardened", lock_down);
            let (read, compiled, judge) = five_hundred_rules()?;
            note!("read a policy of 500 rules as TOML, µs", "hardened", read);
            note!("read a policy of 500 rules as compiled, µs", "hardened", compiled);
            note!("decide and compile under 500 rules, µs", "hardened", judge);
        }
        report.add(&samples)?;
    }
    let config = stored_config(&c)?;
    if wanted("rpc") {
        let rules = policy_of_500_rules(&c)?;
        for round in 0..=rounds {
            eprint!("\rTask calls, round {round} of {rounds} ");
            for who in &contenders {
                let [create, exec, delete] = life(&c, who, &config, None)?;
                // The first round fills caches.
                if round > 0 {
                    note!(RPC, who.name, create);
                    note!(EXEC, who.name, exec);
                    note!(DELETE, who.name, delete);
                }
            }
            for who in contenders.iter().filter(|who| who.oci_runtime.is_none()) {
                let [create, ..] = life(&c, who, &config, Some(&rules))?;
                if round > 0 {
                    note!(RPC_RULES, who.name, create);
                }
            }
            let mounts = HostMounts::make(&c)?;
            for who in &contenders {
                let [create, exec, _] = life(&c, who, &config, None)?;
                if round > 0 {
                    note!(RPC_MOUNTS, who.name, create);
                    note!(EXEC_MOUNTS, who.name, exec);
                }
            }
            drop(mounts);
        }
        report.add(&samples)?;
        eprint!("\rthe first pod and the {MANY_PODS}th            ");
        for who in contenders.iter().cycle().take(POD_ROUNDS * contenders.len()) {
            note!(FIRST_POD, who.name, life(&c, who, &config, None)?[0]);
        }
        let pods = pods(&c, &contenders[0].options, MANY_PODS - 1)?;
        for who in contenders.iter().cycle().take(POD_ROUNDS * contenders.len()) {
            note!(LAST_POD, who.name, life(&c, who, &config, None)?[0]);
        }
        remove(&c, pods)?;
        report.add(&samples)?;
    }
    if wanted("calls") {
        for round in 0..=rounds {
            eprint!("\rcommand lines, round {round} of {rounds} ");
            for who in &contenders {
                let once = start(&c, &who.options)?;
                let exec = exec(&c, &who.options)?;
                if round > 0 {
                    note!("run --rm, ms", who.name, once);
                    note!("exec, ms", who.name, exec);
                }
            }
        }
        for round in 1..=3 {
            eprint!("\rchurn, round {round} of 3 ");
            for who in &contenders {
                note!("200 containers, 8 at a time, s", who.name, churn(&c, &who.options)?);
            }
        }
        report.add(&samples)?;
    }
    if wanted("memory") {
        for round in 1..=3 {
            eprint!("\rmemory, round {round} of 3 ");
            // So many take long to start, and differ little from one round to the next.
            let pods: Vec<_> = PODS.into_iter().filter(|(pods, _)| round == 1 || *pods < 100).collect();
            for who in &contenders {
                for (what, kilobytes) in memory(&c, &who.options, &pods)? {
                    note!(what, who.name, kilobytes);
                }
            }
        }
        report.add(&samples)?;
    }
    if wanted("system-calls") {
        for round in 1..=5 {
            eprint!("\rsystem calls, round {round} of 5 ");
            let unfiltered = ("unfiltered", vec!["--runtime", RUNC]);
            let all = contenders.iter().map(|who| (who.name, who.options.clone())).chain([unfiltered]);
            for (who, options) in all {
                let out = run_in(&c, &options, &["hardened-probe", "bench"])?;
                for line in out.lines() {
                    let (name, value) = line.split_once(' ').context("bench line")?;
                    let what = match name {
                        "getpid" => "getpid, ns",
                        "openclose" => "openat + close, ns",
                        _ => "a denied call, ns",
                    };
                    note!(what, who, value.parse()?);
                }
            }
        }
        report.add(&samples)?;
    }
    println!("\n{rounds} rounds, interleaved");
    Ok(())
}

/// hardened, runc and crun; and before them all an older shim, whose path is in `HARDENED_BEFORE`.
fn contenders(c: &Containerd) -> Result<Vec<Contender>> {
    let of_runc = |name, options: &[&'static str]| Contender {
        name,
        options: [&["--runtime", RUNC, "--seccomp"], options].concat(),
        binary: "containerd-shim-runc-v2",
        oci_runtime: Some(name),
    };
    let own =
        |name, runtime, binary| Contender { name, options: vec!["--runtime", runtime], binary, oci_runtime: None };
    let mut all = vec![
        own("hardened", HARDENED, "containerd-shim-hardened-v1"),
        of_runc("runc", &[]),
        of_runc("crun", &["--runc-binary", "crun"]),
    ];
    if let Some(before) = std::env::var_os("HARDENED_BEFORE") {
        let binary = "containerd-shim-before-v1";
        fs::copy(&before, c.home().join("bin").join(binary)).with_context(|| format!("copy {before:?}"))?;
        all.push(own("before", "io.containerd.before.v1", binary));
    }
    Ok(all)
}

fn id(c: &Containerd) -> String {
    c.id("bench")
}

fn run_in(c: &Containerd, options: &[&str], program: &[&str]) -> Result<String> {
    let id = id(c);
    Ok(c.ctr(&[&["run", "--rm"], options, &[IMAGE, &id], program].concat())?.ok()?.text())
}

/// `ctr run --rm ... true`, from command line to command line.
fn start(c: &Containerd, options: &[&str]) -> Result<f64> {
    let begin = Instant::now();
    run_in(c, options, &["true"])?;
    Ok(begin.elapsed().as_secs_f64() * 1e3)
}

/// What containerd writes for a container with its default seccomp profile.
fn stored_config(c: &Containerd) -> Result<serde_json::Value> {
    let id = id(c);
    c.ctr(&["run", "-d", "--runtime", RUNC, "--seccomp", IMAGE, &id, "sleep", "1000"])?.ok()?;
    let config = fs::read_to_string(c.bundle(&id).join("config.json"))?;
    c.ctr(&["tasks", "delete", "-f", &id])?;
    c.ctr(&["containers", "delete", &id])?.ok()?;
    Ok(serde_json::from_str(&config)?)
}

/// Many mounts of the host, which has this program's mount namespace: `scripts/bench` gives it its own.
struct HostMounts(CString);

impl HostMounts {
    fn make(c: &Containerd) -> Result<Self> {
        let folder = c.home().join("mounts");
        fs::create_dir_all(&folder)?;
        let root = CString::new(folder.as_os_str().as_bytes())?;
        mount(c"tmpfs", &root, c"tmpfs", 0)?;
        // Gone with its root.
        let mounts = Self(root);
        let source = CString::new(c.rootfs()?.as_os_str().as_bytes())?;
        for number in 0..MOUNTS {
            let place = folder.join(number.to_string());
            fs::create_dir(&place)?;
            mount(&source, &CString::new(place.as_os_str().as_bytes())?, c"", libc::MS_BIND)?;
        }
        Ok(mounts)
    }
}

impl Drop for HostMounts {
    fn drop(&mut self) {
        // SAFETY: the path is NUL terminated.
        if unsafe { libc::umount2(self.0.as_ptr(), libc::MNT_DETACH) } < 0 {
            eprintln!("umount {:?}: {}", self.0, std::io::Error::last_os_error());
        }
    }
}

fn mount(source: &CStr, place: &CStr, kind: &CStr, flags: libc::c_ulong) -> Result<()> {
    // SAFETY: all strings are NUL terminated, and no data is given.
    let mounted = unsafe { libc::mount(source.as_ptr(), place.as_ptr(), kind.as_ptr(), flags, std::ptr::null()) };
    ensure!(mounted == 0, "mount {place:?}: {}", std::io::Error::last_os_error());
    Ok(())
}

/// Starts containers that stay.
fn pods(c: &Containerd, options: &[&str], count: usize) -> Result<Vec<String>> {
    let mut ids = Vec::new();
    for _ in 0..count {
        let id = id(c);
        c.ctr(&[&["run", "-d"], options, &[IMAGE, &id, "sleep", "10000"]].concat())?.ok()?;
        ids.push(id);
    }
    Ok(ids)
}

fn remove(c: &Containerd, ids: Vec<String>) -> Result<()> {
    for id in ids {
        c.ctr(&["tasks", "delete", "-f", &id])?;
        c.ctr(&["containers", "delete", &id])?;
    }
    Ok(())
}

/// One container's life as RPCs of a shim that serves already: milliseconds of Create and Start, of an exec from Exec
/// to Delete, and of Delete.
fn life(c: &Containerd, who: &Contender, config: &serde_json::Value, policy: Option<&Path>) -> Result<[f64; 3]> {
    let mut direct = Direct::start(c, who.binary, config)?;
    if let Some(policy) = policy {
        direct.set_policy(policy);
    }
    let create = direct.create_and_start(who.oci_runtime).with_context(|| who.name.to_owned())?;
    let mut process = config["process"].clone();
    process["args"] = serde_json::json!(["true"]);
    let exec = direct.exec(&process).with_context(|| who.name.to_owned())?;
    let delete = direct.end_timed()?;
    Ok([create, exec, delete].map(|elapsed| elapsed.as_secs_f64() * 1e3))
}

/// `ctr tasks exec ... true`, the median of five in one container.
fn exec(c: &Containerd, options: &[&str]) -> Result<f64> {
    let id = id(c);
    c.ctr(&[&["run", "-d"], options, &[IMAGE, &id, "sleep", "1000"]].concat())?.ok()?;
    let mut times = Vec::new();
    for n in 0..5 {
        let begin = Instant::now();
        c.ctr(&["tasks", "exec", "--exec-id", &format!("e{n}"), &id, "true"])?.ok()?;
        times.push(begin.elapsed().as_secs_f64() * 1e3);
    }
    c.ctr(&["tasks", "delete", "-f", &id])?;
    c.ctr(&["containers", "delete", &id])?.ok()?;
    Ok(median(&mut times))
}

/// Our own part of a create, in microseconds: the decision in the shim, and the lock-down in the
/// container's process, which is made to fail at its very last step.
fn hardening(c: &Containerd) -> Result<(f64, f64)> {
    use hardened_lockdown::{self as lockdown, Mechanism, Payload};
    use hardened_node::probe;
    use hardened_sandbox::policy::Policy;
    use hardened_sandbox::seccomp::Arch;
    use hardened_sandbox::{LockdownPlan, Observations, Placement, judge};

    let spec: oci_spec::runtime::Spec = serde_json::from_value(c.spec(&["/bin/true"])?)?;
    let arch = Arch::native().context("an architecture that we know")?;
    let policy = Policy::built_in(arch);
    let begin = Instant::now();
    let admission = judge(&spec, &policy, &probe(), &Observations::none(None))?;
    let decided = begin.elapsed();

    // Passes everything, and then has no interpreter.
    let script = c.home().join("no-interpreter");
    fs::write(&script, "#!/no/such/interpreter\n")?;
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let payload = Payload::new(vec![script.display().to_string()], vec!["HOME=/".to_owned()]);
    let (mut reader, mut writer) = std::io::pipe()?;
    // Takes the filter's listener, and does not answer: nothing is denied before the end.
    let (_supervisor, supervised) = std::os::unix::net::UnixStream::pair()?;
    // SAFETY: this program has one thread now, so the child may run any code.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // Nothing is masked out here.
        let plan = LockdownPlan { masks: None, ..admission.plan().clone() };
        let begin = Instant::now();
        let run = || {
            let ruleset = plan.landlock.as_ref().map(lockdown::build_ruleset).transpose()?;
            let placement = Placement::of_exec(lockdown::own_namespaces()?);
            Ok::<_, lockdown::Failure>(lockdown::run(&plan, &placement, ruleset, payload, supervised.as_fd()))
        };
        let failure = run().unwrap_or_else(|failure| failure);
        let elapsed = begin.elapsed().as_secs_f64() * 1e6;
        let text = if failure.mechanism == Mechanism::Execve { elapsed.to_string() } else { failure.to_string() };
        drop(std::io::Write::write_all(&mut writer, text.as_bytes()));
        lockdown::exit(0);
    }
    drop(writer);
    let mut text = String::new();
    std::io::Read::read_to_string(&mut reader, &mut text)?;
    // SAFETY: a null status is allowed, and the child is ours.
    unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
    Ok((decided.as_secs_f64() * 1e6, text.parse().with_context(|| text.clone())?))
}

/// 500 rules.
fn rules() -> String {
    let mut text = String::from("[profile.web]\nextends = \"restricted\"\n");
    for n in 0..500 {
        text.push_str(&format!(
            "[[rule]]\nnamespace = [\"team-{n}\", \"team-{n}-*\"]\nimage = \"registry/{n}/*:*\"\nprofile = \"web\"\n"
        ));
    }
    text
}

/// A folder with them, which has been there for a while.
fn policy_of_500_rules(c: &Containerd) -> Result<PathBuf> {
    let folder = c.home().join("policy-of-500-rules");
    fs::create_dir(&folder)?;
    fs::write(folder.join("policy.toml"), rules())?;
    std::thread::sleep(Duration::from_secs(3));
    Ok(folder)
}

/// A policy of 500 rules, of which the last decides; microseconds to read it both ways and to decide.
fn five_hundred_rules() -> Result<(f64, f64, f64)> {
    use hardened_sandbox::policy::{Policy, Source};
    use hardened_sandbox::seccomp::Arch;
    use hardened_sandbox::{KernelSupport, Observations, Request, decide};

    let namespaces = ["mount", "pid", "ipc", "network", "uts"].map(|kind| serde_json::json!({"type": kind}));
    let spec = serde_json::json!({
        "ociVersion": "1.2.0",
        "annotations": {
            "io.kubernetes.cri.sandbox-namespace": "team-499-x",
            "io.kubernetes.cri.image-name": "registry/499/web:1",
        },
        "root": {"path": "rootfs"},
        "process": {"cwd": "/", "args": ["/bin/true"], "user": {"uid": 0, "gid": 0}},
        "linux": {
            "maskedPaths": ["/proc/kcore"],
            "namespaces": namespaces,
        },
    });
    let spec: oci_spec::runtime::Spec = serde_json::from_value(spec)?;
    let files = [Source::new("policy.toml".into(), rules())];
    let arch = Arch::native().context("an architecture that we know")?;
    let begin = Instant::now();
    let policy = Policy::parse(&files, &|_| Err(String::new()), arch)?;
    let read = begin.elapsed();
    let (text, request) = (policy.compiled()?, Request::parse(&spec)?);
    let begin = Instant::now();
    let policy = Policy::for_pod(&text, request.identity(), None)?;
    let compiled = begin.elapsed();
    let begin = Instant::now();
    let admission = decide(&request, &policy, &KernelSupport::assumed(), &Observations::none(None))?;
    let judged = begin.elapsed();
    ensure!(admission.by().starts_with("rule 500 "), "{}", admission.by());
    Ok((read.as_secs_f64() * 1e6, compiled.as_secs_f64() * 1e6, judged.as_secs_f64() * 1e6))
}

/// Memory of the shims themselves, shared pages counted by their share.
fn memory(c: &Containerd, options: &[&str], counts: &[(usize, &'static str)]) -> Result<Vec<(&'static str, f64)>> {
    let mut ids = BTreeSet::new();
    let mut measured = Vec::new();
    for (count, what) in counts {
        ids.extend(pods(c, options, count - ids.len())?);
        std::thread::sleep(Duration::from_millis(500));
        let id = |line: &str| line.split_whitespace().skip_while(|word| *word != "-id").nth(1).map(str::to_owned);
        let is_own = |line: &str| line.contains("containerd-shim-") && id(line).is_some_and(|id| ids.contains(&id));
        let shims = processes()?.into_iter().filter(|(_, line)| is_own(line));
        let all = shims.map(|(pid, _)| pss(pid)).collect::<Result<Vec<_>>>()?;
        ensure!(all.len() == *count, "{} shims for {count} pods", all.len());
        measured.push((*what, all.iter().sum::<f64>() / *count as f64));
    }
    remove(c, ids.into_iter().collect())?;
    Ok(measured)
}

fn pss(pid: i32) -> Result<f64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = rollup.lines().find_map(|l| l.strip_prefix("Pss:")).context("Pss")?;
    Ok(line.split_whitespace().next().context("Pss")?.parse()?)
}

/// Seconds for many containers, some at a time.
fn churn(c: &Containerd, options: &[&str]) -> Result<f64> {
    let begin = Instant::now();
    let workers: Vec<Result<()>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..CONCURRENCY)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..CHURN / CONCURRENCY {
                        let id = id(c);
                        let arguments = [&["run", "--rm"], options, &[IMAGE, &id, "true"]].concat();
                        run(&mut c.command(&arguments), b"", Duration::from_secs(60))?.ok()?;
                    }
                    Ok(())
                })
            })
            .collect();
        threads.into_iter().map(|t| t.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a worker panicked")))).collect()
    });
    workers.into_iter().collect::<Result<()>>()?;
    Ok(begin.elapsed().as_secs_f64())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The table, which grows as measurements are done: a reader sees them early, and an interrupted run loses none.
#[derive(Default)]
struct Report {
    done: BTreeSet<&'static str>,
    table: String,
}

impl Report {
    /// Adds the rows of what was measured since, here and in `target/`.
    fn add(&mut self, samples: &Samples) -> Result<()> {
        if self.table.is_empty() {
            self.line("| measurement (median) | hardened | runc | crun | hardened / runc | hardened / crun |");
            self.line("|---|---|---|---|---|---|");
        }
        for (what, contenders) in samples {
            if self.done.insert(what) {
                rows(what, contenders, samples).iter().for_each(|row| self.line(row));
            }
        }
        fs::write(repository().join("target/bench.md"), &self.table)?;
        fs::write(repository().join("target/bench.json"), serde_json::to_vec_pretty(samples)?)?;
        Ok(())
    }

    fn line(&mut self, row: &str) {
        // Over the line that shows the progress.
        println!("\r\x1b[K{row}");
        self.table.push_str(row);
        self.table.push('\n');
    }
}

/// The row of a measurement, and what it is compared with.
fn rows(what: &str, contenders: &BTreeMap<&'static str, Vec<f64>>, samples: &Samples) -> Vec<String> {
    let of = |who: &str| contenders.get(who).map_or(f64::NAN, |v| median(&mut v.clone()));
    let (hardened, runc, crun) = (of("hardened"), of("runc"), of("crun"));
    let mut rows = Vec::new();
    if runc.is_nan() {
        rows.push(format!("| {what} | {hardened:.1} | | | | |"));
    } else {
        let (to_runc, to_crun) = (hardened / runc, hardened / crun);
        rows.push(format!("| {what} | {hardened:.1} | {runc:.1} | {crun:.1} | {to_runc:.2} | {to_crun:.2} |"));
    }
    if let Some((_, base)) = AGAINST.iter().find(|(row, _)| *row == what) {
        let times = |who: &str, now: f64| {
            let base = samples.get(base).and_then(|c| c.get(who)).map_or(f64::NAN, |v| now / median(&mut v.clone()));
            if base.is_nan() { String::new() } else { format!("{base:.2} ×") }
        };
        let (hardened, runc, crun) = (times("hardened", hardened), times("runc", runc), times("crun", crun));
        rows.push(format!("| … against {base} | {hardened} | {runc} | {crun} | | |"));
    }
    if contenders.contains_key("before") {
        let before = of("before");
        rows.push(format!("| … before | {before:.1} | | | {:.2} | |", hardened / before));
    }
    if contenders.contains_key("unfiltered") {
        let unfiltered = of("unfiltered");
        rows.push(format!("| … without any filter | {unfiltered:.1} | | | {:.2} | |", hardened / unfiltered));
    }
    rows
}
