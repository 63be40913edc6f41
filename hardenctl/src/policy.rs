//! `hardenctl policy`: lint, show, prove, diff, match, schema.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use hardened_node::policy_files;
use hardened_sandbox::policy::{Policy, PolicyFile, Profile};
use hardened_sandbox::profile::BuiltIn;
use hardened_sandbox::{Identity, Kind};

use crate::args::{HANDLER, PolicyPath, dns_label};
use crate::facts::{Line, calls, facts, table};
use crate::policy_source::{check_path, parse, read};
use crate::prove;
use crate::style::{BAD, BOLD, DIM, GOOD, NOTE, PLAIN};
use crate::table::{rows, width};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Checks policy files. Exit code 0: usable; 1: not.
    Lint {
        /// Folders or files.
        #[arg(default_value = policy_files::FOLDER)]
        paths: Vec<PathBuf>,
        /// Prints JSON.
        #[arg(long)]
        json: bool,
    },
    /// Prints profiles: what each allows.
    Show {
        #[command(flatten)]
        policy: PolicyPath,
        /// Prints JSON, which always has everything.
        #[arg(long)]
        json: bool,
        /// Also prints what is empty or as under runc, the pause container's profile, and long lists in full.
        #[arg(long)]
        all: bool,
        /// Only this one.
        profile: Option<String>,
    },
    /// Proves what the filters of profiles let through, for every call and all arguments.
    ///
    /// An SMT solver (z3) looks for a call that gets another answer than by the profile's rules, makes a
    /// namespace, types into a terminal, and the like. It finds none, which proves the claim, or prints it.
    /// Exit code 0: all claims are proved; 1: some are refuted; 2: nothing can be said, because the solver
    /// is not installed, say.
    Prove {
        /// Prints JSON.
        #[arg(long)]
        json: bool,
        /// Folder or file.
        #[arg(default_value = policy_files::FOLDER)]
        file: PathBuf,
        /// Only these, built-in ones too. Without: those that the policy defines, and its default.
        profiles: Vec<String>,
    },
    /// Compares two policies, profile by profile. Exit code 0: the same; 1: they differ.
    Diff {
        /// Prints JSON.
        #[arg(long)]
        json: bool,
        /// Folder or file.
        before: PathBuf,
        /// Folder or file.
        after: PathBuf,
    },
    /// Tells which rule and profile a container would get.
    Explain {
        #[command(flatten)]
        policy: PolicyPath,
        /// Prints JSON.
        #[arg(long)]
        json: bool,
        /// Also prints what is empty or as under runc, and long lists in full.
        #[arg(long)]
        all: bool,
        /// Kubernetes namespace.
        #[arg(long, value_parser = dns_label)]
        namespace: Option<String>,
        /// Image reference.
        #[arg(long)]
        image: Option<String>,
        /// Pod name.
        #[arg(long)]
        pod: Option<String>,
        /// Container name.
        #[arg(long)]
        container: Option<String>,
        /// Runtime handler.
        #[arg(long, default_value = HANDLER, value_parser = dns_label)]
        handler: String,
        /// The pod's sandbox (pause) container.
        #[arg(long)]
        sandbox: bool,
        /// The container asks for privileged.
        #[arg(long)]
        privileged: bool,
    },
    /// Prints the JSON Schema of policy files, by which editors complete them.
    Schema,
}

impl Command {
    pub(crate) fn run(self) -> Result<ExitCode> {
        match self {
            Self::Lint { paths, json } => lint(&paths, json),
            Self::Show { policy, json, all, profile } => show(&read(&policy.policy)?, json, all, profile.as_deref()),
            Self::Prove { json, file, profiles } => prove::run(&file, &profiles, json),
            Self::Diff { json, before, after } => diff(&read(&before)?, &read(&after)?, json),
            Self::Explain { policy, json, all, namespace, image, pod, container, handler, sandbox, privileged } => {
                let kind = if sandbox { Kind::Sandbox } else { Kind::Container };
                let (kind, handler) = (Some(kind), Some(handler));
                let identity = Identity { namespace, image, pod, container, handler, kind, ..Identity::default() };
                explain(&read(&policy.policy)?, &identity, privileged, json, all)
            }
            Self::Schema => {
                let schema = schemars::schema_for!(PolicyFile);
                println!("{}", serde_json::to_string_pretty(&schema)?);
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

fn lint(paths: &[PathBuf], json: bool) -> Result<ExitCode> {
    let mut report = Vec::new();
    let mut usable = true;
    for path in paths {
        check_path(path)?;
        let read = parse(path);
        usable &= read.is_ok();
        let show = path.display();
        match &read {
            Ok(policy) if !json => {
                let own = policy.profiles().filter(|p| p.origin().to_string() != "built in").count();
                anstream::println!("{GOOD}ok{PLAIN}  {show}: {own} profiles, {} rules", policy.rules().len());
                for warning in policy.warnings() {
                    anstream::println!("{NOTE}warning{PLAIN}  {warning}");
                }
            }
            Err(errors) if !json => {
                for error in &errors.0 {
                    anstream::println!("{BAD}error{PLAIN}  {error}");
                }
            }
            Ok(_) | Err(_) => {}
        }
        let warnings: Vec<serde_json::Value> = read
            .iter()
            .flat_map(Policy::warnings)
            .map(|w| {
                serde_json::json!({
                    "file": w.place.file,
                    "line": w.place.line,
                    "column": w.place.column,
                    "problem": w.problem,
                })
            })
            .collect();
        let errors: Vec<serde_json::Value> = read
            .err()
            .map(|e| e.0)
            .unwrap_or_default()
            .iter()
            .map(|e| {
                serde_json::json!({
                    "file": e.place.as_ref().map(|p| &p.file),
                    "line": e.place.as_ref().map(|p| p.line),
                    "column": e.place.as_ref().map(|p| p.column),
                    "problem": e.problem,
                })
            })
            .collect();
        report.push(serde_json::json!({"path": path, "errors": errors, "warnings": warnings}));
    }
    if json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    }
    Ok(ExitCode::from(u8::from(!usable)))
}

fn show(policy: &Policy, json: bool, all: bool, only: Option<&str>) -> Result<ExitCode> {
    let chosen: Vec<&Profile> = policy.profiles().filter(|p| only.is_none_or(|name| p.name() == name)).collect();
    if chosen.is_empty() {
        let known: Vec<&str> = policy.profiles().map(Profile::name).collect();
        bail!("there is no profile {:?}; there are: {}", only.unwrap_or_default(), known.join(", "));
    }
    if json {
        let all: serde_json::Map<String, serde_json::Value> = chosen
            .iter()
            .map(|p| (p.name().to_owned(), serde_json::json!({"origin": p.origin().to_string(), "allows": facts(p).into_iter().collect::<std::collections::BTreeMap<_, _>>()})))
            .collect();
        println!("{}", serde_json::to_string_pretty(&all)?);
        return Ok(ExitCode::SUCCESS);
    }
    // Nothing of a workload runs in a pod's own sandbox.
    let is_pause = |profile: &Profile| profile.name() == BuiltIn::Pause.name();
    for profile in chosen.into_iter().filter(|profile| all || only.is_some() || !is_pause(profile)) {
        anstream::println!("{BOLD}{}{PLAIN} {DIM}({}){PLAIN}", profile.name(), profile.origin());
        anstream::print!("{}", table(facts(profile).into_iter().map(Line::from), all, width()));
    }
    Ok(ExitCode::SUCCESS)
}

fn diff(before: &Policy, after: &Policy, json: bool) -> Result<ExitCode> {
    let names: BTreeSet<&str> = before.profiles().chain(after.profiles()).map(Profile::name).collect();
    let mut changes: Vec<(String, String)> = Vec::new();
    for name in names {
        match (before.profile(name), after.profile(name)) {
            (Some(old), Some(new)) => {
                for ((key, old), (_, new)) in old.describe().into_iter().zip(new.describe()) {
                    if old != new {
                        changes.push((format!("profile {name}: {key}"), format!("{old} -> {new}")));
                    }
                }
                let (old, new) = (old.sandbox(), new.sandbox());
                let (had, has) = (calls(old), calls(new));
                for (word, calls) in [("allowed", &has - &had), ("denied", &had - &has)] {
                    if !calls.is_empty() {
                        let calls: Vec<&str> = calls.into_iter().collect();
                        changes.push((
                            format!("profile {name}: system calls"),
                            format!("now {word}: {}", calls.join(" ")),
                        ));
                    }
                }
            }
            (Some(_), None) => changes.push((format!("profile {name}"), "removed".to_owned())),
            (None, Some(_)) => changes.push((format!("profile {name}"), "added".to_owned())),
            (None, None) => {}
        }
    }
    let rules = |policy: &Policy| -> Vec<String> { policy.rules().iter().map(ToString::to_string).collect() };
    let (old, new) = (rules(before), rules(after));
    for n in 0..old.len().max(new.len()) {
        let (old, new) = (old.get(n).map_or("none", String::as_str), new.get(n).map_or("none", String::as_str));
        if old != new {
            changes.push((format!("rule {}", n + 1), format!("{old} -> {new}")));
        }
    }
    if before.default_profile() != after.default_profile() {
        changes.push(("default".to_owned(), format!("{} -> {}", before.default_profile(), after.default_profile())));
    }
    if json {
        let changes: Vec<_> = changes.iter().map(|(w, c)| serde_json::json!({"what": w, "change": c})).collect();
        println!("{}", serde_json::to_string_pretty(&changes)?);
    } else if changes.is_empty() {
        anstream::println!("no difference");
    } else {
        anstream::print!("{}", rows(&changes, width()));
    }
    Ok(ExitCode::from(u8::from(!changes.is_empty())))
}

fn explain(policy: &Policy, identity: &Identity, privileged: bool, json: bool, all: bool) -> Result<ExitCode> {
    let choice = policy.choose(identity, privileged);
    if json {
        let answer = serde_json::json!({"by": choice.to_string(), "profile": choice.profile.name()});
        println!("{}", serde_json::to_string_pretty(&answer).context("encode")?);
    } else {
        anstream::println!("{choice}");
        anstream::print!("{}", table(facts(choice.profile).into_iter().map(Line::from), all, width()));
    }
    Ok(ExitCode::SUCCESS)
}
