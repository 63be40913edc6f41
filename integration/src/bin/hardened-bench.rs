//! Measures hardened against `io.containerd.runc.v2` with runc and with crun, interleaved in one
//! run. `scripts/bench [ROUNDS]` runs it and writes `target/bench.md` and `target/bench.json`.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, CString};
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hardened_integration::direct::Direct;
use hardened_integration::{Containerd, Generation, HARDENED, IMAGE, RUNC, processes, repository, run};

/// One contender: name, and options of `ctr run`.
const CONTENDERS: [(&str, &[&str]); 3] = [
    ("hardened", &["--runtime", HARDENED]),
    ("runc", &["--runtime", RUNC, "--seccomp"]),
    ("crun", &["--runtime", RUNC, "--seccomp", "--runc-binary", "crun"]),
];

const CHURN: usize = 200;
const CONCURRENCY: usize = 8;
const PODS: usize = 20;

/// Mounts of a node with a hundred pods and their volumes.
const MOUNTS: usize = 1000;

/// Pods of a large node.
const MANY_PODS: usize = 300;

/// How often the first and the last of them are measured, the others being hardened's.
const POD_ROUNDS: usize = 15;

const RPC: &str = "Create + Start as RPCs, ms";
const RPC_MOUNTS: &str = "Create + Start with 1,000 host mounts, ms";
const FIRST_POD: &str = "Create + Start of the first pod, ms";
const LAST_POD: &str = "Create + Start of the 300th pod, ms";

/// What is told in times of what.
const AGAINST: [(&str, &str); 2] = [(RPC_MOUNTS, RPC), (LAST_POD, FIRST_POD)];

/// Milliseconds, kilobytes or nanoseconds by measurement and contender.
type Samples = BTreeMap<&'static str, BTreeMap<&'static str, Vec<f64>>>;

fn main() -> Result<()> {
    let rounds: usize = std::env::args().nth(1).map_or(Ok(25), |n| n.parse()).context("ROUNDS: expected a number")?;
    let c = Containerd::start(Generation::Two)?;
    let mut report = Report::default();
    let mut samples = Samples::new();
    macro_rules! note {
        ($what:expr, $who:expr, $value:expr) => {
            samples.entry($what).or_default().entry($who).or_default().push($value)
        };
    }

    for _ in 0..50 {
        let (decide, lock_down) = hardening(&c)?;
        note!("decide and compile, µs", "hardened", decide);
        note!("lock-down up to execve, µs", "hardened", lock_down);
        let (read, judge) = five_hundred_rules()?;
        note!("read a policy of 500 rules, µs", "hardened", read);
        note!("decide and compile under 500 rules, µs", "hardened", judge);
    }
    report.add(&samples)?;
    let config = stored_config(&c)?;
    for round in 0..=rounds {
        eprint!("\rstart and exec, round {round} of {rounds} ");
        for (who, options) in CONTENDERS {
            let rpc = create_and_start(&c, who, &config)?;
            let once = start(&c, options)?;
            let exec = exec(&c, options)?;
            // The first round fills caches.
            if round > 0 {
                note!("run --rm, ms", who, once);
                note!("exec, ms", who, exec);
                note!(RPC, who, rpc);
            }
        }
        let mounts = HostMounts::make(&c)?;
        for (who, _) in CONTENDERS {
            let rpc = create_and_start(&c, who, &config)?;
            if round > 0 {
                note!(RPC_MOUNTS, who, rpc);
            }
        }
        drop(mounts);
    }
    report.add(&samples)?;
    eprint!("\rthe first pod and the {MANY_PODS}th            ");
    for (who, _) in CONTENDERS.iter().cycle().take(POD_ROUNDS * CONTENDERS.len()) {
        note!(FIRST_POD, *who, create_and_start(&c, who, &config)?);
    }
    let pods = pods(&c, CONTENDERS[0].1, MANY_PODS - 1)?;
    for (who, _) in CONTENDERS.iter().cycle().take(POD_ROUNDS * CONTENDERS.len()) {
        note!(LAST_POD, *who, create_and_start(&c, who, &config)?);
    }
    remove(&c, pods)?;
    report.add(&samples)?;
    for round in 1..=3 {
        eprint!("\rmemory and churn, round {round} of 3 ");
        for (who, options) in CONTENDERS {
            let (one, many) = memory(&c, options)?;
            note!("PSS of a shim, one pod, kB", who, one);
            note!("PSS of a shim, 20 pods, kB", who, many);
            note!("200 containers, 8 at a time, s", who, churn(&c, options)?);
        }
    }
    report.add(&samples)?;
    for round in 1..=5 {
        eprint!("\rsystem calls, round {round} of 5 ");
        for (who, options) in CONTENDERS.into_iter().chain([("unfiltered", &["--runtime", RUNC][..])]) {
            let out = run_in(&c, options, &["hardened-probe", "bench"])?;
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
    println!("\n{rounds} rounds, interleaved");
    Ok(())
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

/// Create and Start of a shim that serves already.
fn create_and_start(c: &Containerd, who: &str, config: &serde_json::Value) -> Result<f64> {
    let (binary, oci_runtime) = match who {
        "hardened" => ("containerd-shim-hardened-v1", None),
        _ => ("containerd-shim-runc-v2", Some(who)),
    };
    let direct = Direct::start(c, binary, config)?;
    let elapsed = direct.create_and_start(oci_runtime).with_context(|| who.to_owned())?;
    direct.end()?;
    Ok(elapsed.as_secs_f64() * 1e3)
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

/// A policy of 500 rules, of which the last decides; microseconds to read it and to decide.
fn five_hundred_rules() -> Result<(f64, f64)> {
    use hardened_sandbox::policy::{Policy, Source};
    use hardened_sandbox::seccomp::Arch;
    use hardened_sandbox::{KernelSupport, Observations, judge};

    let mut text = String::from("[profile.web]\nextends = \"restricted\"\n");
    for n in 0..500 {
        text.push_str(&format!(
            "[[rule]]\nnamespace = [\"team-{n}\", \"team-{n}-*\"]\nimage = \"registry/{n}/*:*\"\nprofile = \"web\"\n"
        ));
    }
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
    let files = [Source::new("policy.toml".into(), text)];
    let arch = Arch::native().context("an architecture that we know")?;
    let begin = Instant::now();
    let policy = Policy::parse(&files, &|_| Err(String::new()), arch)?;
    let read = begin.elapsed();
    let begin = Instant::now();
    let admission = judge(&spec, &policy, &KernelSupport::assumed(), &Observations::none(None))?;
    let judged = begin.elapsed();
    ensure!(admission.by().starts_with("rule 500 "), "{}", admission.by());
    Ok((read.as_secs_f64() * 1e6, judged.as_secs_f64() * 1e6))
}

/// Memory of the shims themselves, shared pages counted by their share.
fn memory(c: &Containerd, options: &[&str]) -> Result<(f64, f64)> {
    let mut ids = Vec::new();
    let mut measured = Vec::new();
    for n in 1..=PODS {
        ids.extend(pods(c, options, 1)?);
        if n == 1 || n == PODS {
            std::thread::sleep(Duration::from_millis(500));
            let shims: Vec<i32> = processes()?
                .into_iter()
                .filter(|(_, l)| {
                    l.contains("containerd-shim-") && ids.iter().any(|id| l.contains(&format!("-id {id} ")))
                })
                .map(|(pid, _)| pid)
                .collect();
            ensure!(shims.len() == n, "{} shims for {n} pods", shims.len());
            let total: f64 = shims.iter().map(|pid| pss(*pid)).sum::<Result<f64>>()?;
            measured.push(total / n as f64);
        }
    }
    remove(c, ids)?;
    Ok((measured[0], measured[1]))
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

/// The table, which grows as measurements are done: whoever waits sees them, and what is cut off is not lost.
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
        // Over what is told of the progress.
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
    if contenders.contains_key("unfiltered") {
        let unfiltered = of("unfiltered");
        rows.push(format!("| … without any filter | {unfiltered:.1} | | | {:.2} | |", hardened / unfiltered));
    }
    rows
}
