//! `hardenctl doctor`: what this node offers, what is missing, and what that costs.

mod audit;
mod monitoring;

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::Result;
use hardened_node::{policy_files, probe};
use hardened_sandbox::policy::{Patterns, Policy, PolicyErrors};
use hardened_sandbox::profile::BuiltIn;
use hardened_sandbox::seccomp::Arch;
use hardened_sandbox::{AppArmor, Demand, FEATURES, Feature, KernelSupport, OWN_APPARMOR, handler_of};
use serde::Serialize;

use self::monitoring::Seen;
use crate::policy_source;
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
    /// Optional, and not in use.
    Off,
    /// It cannot be found out from here.
    Unknown,
    /// Something is lost, and containers start.
    Reduced,
    /// No container starts.
    Bad,
}

pub(crate) fn run(json: bool, labels: bool, policy: &Path) -> Result<ExitCode> {
    policy_source::check_path(policy)?;
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

/// What is used of the kernel, as a table in Markdown.
pub(crate) fn features() -> ExitCode {
    println!("| feature | Linux | without it | and then is lost |\n|---|---|---|---|");
    for Feature { name, since, fallback, lost, .. } in FEATURES {
        println!("| {name} | {since} | {fallback} | {lost} |");
    }
    ExitCode::SUCCESS
}

/// Kubernetes takes letters, digits, `-`, `_` and `.` in a label's value, 63 at most.
fn label_value(found: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') { c } else { '-' };
    found.chars().take(63).map(plain).collect()
}

fn examine(folder: &Path) -> Vec<Finding> {
    let host = probe();
    let policy = policy_files::load(folder, policy_files::Trust::Root, policy_source::arch());
    let best_effort = policy.as_ref().is_ok_and(Policy::takes_old_landlock);
    let mut all = kernel(&host);
    all.extend(host.missing().map(|feature| lacking(feature, best_effort)));
    all.extend(confinement(&host));
    all.push(rights(&host));
    all.extend(software());
    let logs = policy.as_ref().is_ok_and(Policy::logs_landlock_denials);
    all.extend(Seen::look(host.landlock_abi, logs).findings());
    if let Ok(policy) = &policy {
        all.extend(unserved(policy));
    }
    all.push(policy_files(folder, policy));
    all
}

fn finding(what: &'static str, found: impl Into<String>, state: State, cost: impl Into<String>) -> Finding {
    let cost = if state == State::Good { String::new() } else { cost.into() };
    Finding { what, found: found.into(), state, cost, label: None }
}

fn kernel(host: &KernelSupport) -> Vec<Finding> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let known = if Arch::native().is_some() { State::Good } else { State::Bad };
    let lsm = match (host.apparmor != AppArmor::Off, host.selinux) {
        (true, true) => "AppArmor and SELinux",
        (true, false) => "AppArmor",
        (false, true) => "SELinux",
        (false, false) => "none",
    };
    let cgroups = if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() { "v2" } else { "v1" };
    let labelled = |label, what, found: String| Finding { label: Some(label), ..finding(what, found, State::Good, "") };
    vec![
        labelled("kernel", "kernel", release.trim().to_owned()),
        finding("architecture", std::env::consts::ARCH, known, "no seccomp filter for it; use x86_64 or aarch64"),
        labelled("landlock-abi", "Landlock ABI", host.landlock_abi.to_string()),
        labelled("lsm", "confinement", lsm.to_owned()),
        labelled("cgroup", "cgroups", cgroups.to_owned()),
    ]
}

/// A feature that the kernel does not have.
fn lacking(feature: &Feature, best_effort: bool) -> Finding {
    let state = match feature.demand {
        Demand::Always => State::Bad,
        Demand::Policy if !best_effort => State::Bad,
        Demand::Policy | Demand::Asked => State::Reduced,
    };
    let cost = match (state, feature.costs()) {
        (State::Bad, _) | (_, false) => feature.fallback.to_owned(),
        (_, true) => format!("{}; lost: {}", feature.fallback, feature.lost),
    };
    finding(feature.name, format!("missing; Linux {} has it", feature.since), state, cost)
}

fn confinement(host: &KernelSupport) -> Option<Finding> {
    if std::fs::read_to_string("/sys/fs/selinux/enforce").is_ok_and(|on| on.trim() == "0") {
        let cost = "SELinux labels are set but not enforced; run: setenforce 1";
        return Some(finding("SELinux", "permissive", State::Reduced, cost));
    }
    let AppArmor::On(loaded) = &host.apparmor else { return None };
    let (found, state) =
        if loaded.contains(OWN_APPARMOR) { ("loaded", State::Good) } else { ("not loaded", State::Bad) };
    Some(finding("AppArmor profile", found, state, "run hardenctl install to load it"))
}

fn rights(host: &KernelSupport) -> Finding {
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

fn policy_files(folder: &Path, policy: Result<Policy, PolicyErrors>) -> Finding {
    match policy {
        Ok(_) if !folder.exists() => finding("policy", "none: baseline for every container", State::Good, ""),
        Ok(policy) => {
            let found =
                format!("{}: {} rules, default {}", folder.display(), policy.rules().len(), policy.default_profile());
            if policy.default_profile() == BuiltIn::Compatible.name() {
                const ADVICE: &str = "it gives the host's paths and namespaces to all pods, so anyone who can create one \
                                      is root on the node: `hardenctl check --profile baseline` tells which pods can move to \
                                      baseline";
                return finding("policy", found, State::Reduced, ADVICE);
            }
            finding("policy", found, State::Good, "")
        }
        Err(errors) => finding("policy", errors.to_string(), State::Bad, "fix it: hardenctl policy lint"),
    }
}

/// Rules for runtime handlers that nothing here serves.
fn unserved(policy: &Policy) -> Vec<Finding> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let programs = std::env::split_paths(&path).filter_map(|folder| std::fs::read_dir(folder).ok()).flatten().flatten();
    let served: Vec<String> = programs.filter_map(|p| handler_of(&p.path()).map(str::to_owned)).collect();
    let is_served = |handlers: &Patterns| served.iter().any(|handler| handlers.matches(handler));
    let cost = "it never matches: no shim for that handler is in PATH; run: hardenctl install --handler NAME";
    let rules = policy.rules().iter().filter(|rule| rule.handlers().is_some_and(|handlers| !is_served(handlers)));
    rules.map(|rule| finding("rule", rule.to_string(), State::Reduced, cost)).collect()
}

fn print(findings: &[Finding], bad: bool) {
    let width = findings.iter().map(|f| f.what.len()).max().unwrap_or(0);
    for f in findings {
        let (colour, sign) = match f.state {
            State::Good => (GOOD, "ok     "),
            State::Off => (DIM, "off    "),
            State::Unknown => (NOTE, "unknown"),
            State::Reduced => (NOTE, "reduced"),
            State::Bad => (BAD, "missing"),
        };
        anstream::println!("{colour}{sign}{PLAIN}  {:width$}  {}", f.what, f.found);
        if !f.cost.is_empty() {
            anstream::println!("         {:width$}  {DIM}{}{PLAIN}", "", f.cost);
        }
    }
    if bad {
        anstream::println!("{BAD}No container can start on this node.{PLAIN}");
    } else {
        anstream::println!("{GOOD}Containers can start on this node.{PLAIN}");
    }
}
