//! `hardenctl doctor`: what this node offers, what is missing, and what that costs.

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::Result;
use hardened_sandbox::policy::load;
use hardened_sandbox::seccomp::Arch;
use hardened_sandbox::{AppArmor, Host, LEAST_LANDLOCK_ABI, OWN_APPARMOR, probe};
use serde::Serialize;

use crate::style::{BAD, DIM, GOOD, NOTE, PLAIN};

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    what: &'static str,
    found: String,
    state: State,
    /// What is lost, or what to do.
    cost: String,
    /// Name of the node label, if it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<&'static str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum State {
    Good,
    /// Something is lost, and containers start.
    Reduced,
    /// No container starts.
    Bad,
}

/// Landlock features, and what is lost without each (SECURITY.md, "Kernel features").
const LANDLOCK: &[(u32, &str, &str)] = &[
    (3, "truncate (Linux 6.2)", "truncate(2) of a system file by root in the container is not denied"),
    (4, "TCP ports (Linux 6.7)", "profiles and annotations with TCP ports are refused"),
    (5, "device ioctls (Linux 6.10)", "ioctls on devices of the container are not restricted"),
    (6, "abstract sockets (Linux 6.12)", "abstract sockets are kept apart by the network namespace alone"),
    (7, "audit of denials (Linux 6.15)", "denials are not in the audit log"),
];

pub(crate) fn run(json: bool, labels: bool, policy: &Path) -> Result<ExitCode> {
    let findings = examine(policy);
    let bad = findings.iter().any(|f| f.state == State::Bad);
    if json {
        println!("{}", serde_json::to_string_pretty(&findings)?);
    } else if labels {
        for (label, finding) in findings.iter().filter_map(|f| Some((f.label?, f))) {
            println!("io.containerd.hardened.v1/{label}={}", label_value(&finding.found));
        }
        println!("io.containerd.hardened.v1/ready={}", !bad);
    } else {
        print(&findings, bad);
    }
    Ok(ExitCode::from(u8::from(bad)))
}

/// Kubernetes takes letters, digits, `-`, `_` and `.` in a label's value, 63 at most.
fn label_value(found: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') { c } else { '-' };
    found.chars().take(63).map(plain).collect()
}

fn examine(policy: &Path) -> Vec<Finding> {
    let host = probe();
    let mut all = kernel(&host);
    all.extend(landlock(&host));
    all.extend(confinement(&host));
    all.push(cgroups());
    all.push(rights(&host));
    all.extend(software());
    all.push(policy_files(policy));
    all
}

fn finding(what: &'static str, found: impl Into<String>, state: State, cost: impl Into<String>) -> Finding {
    let cost = if state == State::Good { String::new() } else { cost.into() };
    Finding { what, found: found.into(), state, cost, label: None }
}

fn kernel(host: &Host) -> Vec<Finding> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let arch = Arch::native();
    let known = if arch.is_some() { State::Good } else { State::Bad };
    let state = |there, without| if there { State::Good } else { without };
    let yes_no = |there| if there { "yes" } else { "no" };
    vec![
        Finding { label: Some("kernel"), ..finding("kernel", release.trim(), State::Good, "") },
        finding("architecture", std::env::consts::ARCH, known, "no filter can be made; use x86_64 or aarch64"),
        finding(
            "seccomp filters",
            yes_no(host.seccomp),
            state(host.seccomp, State::Bad),
            "boot a kernel with CONFIG_SECCOMP_FILTER",
        ),
        finding(
            "vm.memfd_noexec",
            yes_no(host.memfd_noexec),
            state(host.memfd_noexec, State::Reduced),
            "programs can be executed from a memfd (Linux 6.3 has it)",
        ),
    ]
}

fn landlock(host: &Host) -> Vec<Finding> {
    let abi = host.landlock_abi;
    let enough = abi >= LEAST_LANDLOCK_ABI;
    let state = if enough { State::Good } else { State::Bad };
    let cost = format!("at least ABI {LEAST_LANDLOCK_ABI} is needed: boot Linux 5.19 or newer with landlock in lsm=");
    let mut all =
        vec![Finding { label: Some("landlock-abi"), ..finding("Landlock ABI", abi.to_string(), state, cost) }];
    for (least, feature, lost) in LANDLOCK.iter().filter(|(least, ..)| enough && abi < *least) {
        all.push(finding("Landlock", format!("no ABI {least}: {feature}"), State::Reduced, *lost));
    }
    all
}

fn confinement(host: &Host) -> Vec<Finding> {
    let (found, state) = match (host.apparmor != AppArmor::Off, host.selinux) {
        (true, true) => ("AppArmor and SELinux", State::Good),
        (true, false) => ("AppArmor", State::Good),
        (false, true) => ("SELinux", State::Good),
        (false, false) => ("none", State::Reduced),
    };
    let cost = "pods that ask for an AppArmor profile or SELinux label are refused";
    let mut all = vec![Finding { label: Some("lsm"), ..finding("AppArmor or SELinux", found, state, cost) }];
    if let AppArmor::On(loaded) = &host.apparmor {
        let (found, state) =
            if loaded.contains(OWN_APPARMOR) { ("loaded", State::Good) } else { ("not loaded", State::Bad) };
        all.push(finding("AppArmor profile", found, state, "run: hardenctl install, which loads it"));
    }
    all
}

fn cgroups() -> Finding {
    let found = if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() { "v2" } else { "v1" };
    Finding { label: Some("cgroup"), ..finding("cgroups", found, State::Good, "") }
}

fn rights(host: &Host) -> Finding {
    let found = if host.may_raise_limits { "yes" } else { "no" };
    let state = if host.may_raise_limits { State::Good } else { State::Reduced };
    finding("CAP_SYS_RESOURCE", found, state, "limits and OOM scores are clamped to those of containerd")
}

/// What is installed, by its own word.
fn software() -> Vec<Finding> {
    let shim = "containerd-shim-hardened-v1";
    [(shim, "-v", "run: hardenctl install"), ("containerd", "--version", "install containerd 1.7 or 2.x")]
        .into_iter()
        .map(|(program, flag, cost)| {
            let out = Command::new(program).arg(flag).output();
            match out.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()) {
                Ok(text) => {
                    let words: Vec<&str> = text.split_whitespace().collect();
                    let version =
                        words.iter().find(|w| w.trim_start_matches('v').starts_with(|c: char| c.is_ascii_digit()));
                    finding(program, version.copied().unwrap_or("found"), State::Good, "")
                }
                Err(_) => finding(program, "not in PATH", State::Bad, cost),
            }
        })
        .collect()
}

fn policy_files(folder: &Path) -> Finding {
    let arch = Arch::native().unwrap_or(Arch::X86_64);
    match load::load(folder, load::Trust::Root, arch) {
        Ok(_) if !folder.exists() => finding("policy", "none: baseline for every container", State::Good, ""),
        Ok(policy) => {
            let found =
                format!("{}: {} rules, default {}", folder.display(), policy.rules().len(), policy.default_profile());
            finding("policy", found, State::Good, "")
        }
        Err(errors) => finding("policy", errors.to_string(), State::Bad, "mend it: hardenctl policy lint"),
    }
}

fn print(findings: &[Finding], bad: bool) {
    let width = findings.iter().map(|f| f.what.len()).max().unwrap_or(0);
    for f in findings {
        let (colour, sign) = match f.state {
            State::Good => (GOOD, "ok     "),
            State::Reduced => (NOTE, "reduced"),
            State::Bad => (BAD, "missing"),
        };
        anstream::println!("{colour}{sign}{PLAIN}  {:width$}  {}", f.what, f.found);
        if !f.cost.is_empty() {
            anstream::println!("         {:width$}  {DIM}{}{PLAIN}", "", f.cost);
        }
    }
    if bad {
        anstream::println!("{BAD}No container can be started here as things are.{PLAIN}");
    } else {
        anstream::println!("{GOOD}Containers can be started here.{PLAIN}");
    }
}
