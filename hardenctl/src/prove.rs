//! `hardenctl policy prove`: what holds of a profile's filters for every call, and the calls for which it does not.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use hardened_prove::{Claim, Counterexample, Families, Mode, ProveError, SocketCall, Solver, prove, prove_rules};
use hardened_sandbox::policy::{Origin, Policy, Profile};
use hardened_sandbox::profile::BuiltIn;
use hardened_sandbox::seccomp::Arch;
use serde_json::{Value, json};

use crate::policy_source;
use crate::records::printable;
use crate::style::{BAD, BOLD, DIM, GOOD, PLAIN};
use crate::table::{beside, width};

/// A policy is the same for nodes of both.
const ARCHS: [(Arch, &str); 2] = [(Arch::X86_64, "x86_64"), (Arch::Aarch64, "aarch64")];

/// A claim about a profile on one architecture.
struct Finding {
    claim: String,
    counterexample: Option<Found>,
}

/// A call that contradicts a claim.
struct Found {
    /// The profile with which the meet allows it; absent where the profile itself does.
    with: Option<String>,
    call: Counterexample,
}

/// Proves claims about these profiles; without names, about those that the policy defines and the default.
pub(crate) fn run(path: &Path, names: &[String], json: bool) -> Result<ExitCode> {
    // The two have nothing to do with each other.
    let [x86_64, aarch64] = ARCHS.map(|(arch, _)| move || of_arch(path, names, arch));
    let (x86_64, aarch64) = std::thread::scope(|scope| {
        let other = scope.spawn(aarch64);
        (x86_64(), other.join())
    });
    let aarch64 = aarch64.map_err(|_| anyhow::anyhow!("the thread for aarch64 ended early"))?;
    let (profiles, x86_64) = x86_64?;
    let (_, aarch64) = aarch64?;
    let mut report = Vec::new();
    let (mut proved, mut refuted) = (0, 0);
    for (((name, origin), x86_64), aarch64) in profiles.into_iter().zip(x86_64).zip(aarch64) {
        if !json {
            anstream::println!("{BOLD}{}{PLAIN} {DIM}({}){PLAIN}", printable(&name), printable(&origin));
        }
        let mut claims = Vec::new();
        for (x86_64, aarch64) in x86_64.into_iter().zip(aarch64) {
            let found = [(ARCHS[0].1, &x86_64.counterexample), (ARCHS[1].1, &aarch64.counterexample)];
            let found: Vec<(&str, &Found)> =
                found.into_iter().filter_map(|(arch, f)| Some((arch, f.as_ref()?))).collect();
            *(if found.is_empty() { &mut proved } else { &mut refuted }) += 1;
            if json {
                claims.push(as_json(&x86_64.claim, &found));
            } else {
                print(&x86_64.claim, &found);
            }
        }
        report.push(json!({"profile": name, "origin": origin, "claims": claims}));
    }
    if json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        let of_refuted = if refuted == 0 { String::new() } else { format!(", {BAD}{refuted} refuted{PLAIN}") };
        anstream::println!("{proved} claims proved for every call on x86_64 and aarch64{of_refuted}");
    }
    Ok(ExitCode::from(u8::from(refuted > 0)))
}

/// Names and origins of profiles.
type Profiles = Vec<(String, String)>;

/// What was found of each profile, on one architecture.
fn of_arch(path: &Path, names: &[String], arch: Arch) -> Result<(Profiles, Vec<Vec<Finding>>)> {
    let policy = policy_source::read_for(path, arch)?;
    let profiles = chosen(&policy, names)?;
    let mut solver = Solver::start()?;
    let findings = profiles
        .iter()
        .map(|profile| {
            of_profile(&mut solver, &policy, profile).with_context(|| format!("profile {} on {arch:?}", profile.name()))
        })
        .collect::<Result<_>>()?;
    let profiles = profiles.iter().map(|profile| (profile.name().to_owned(), profile.origin().to_string()));
    Ok((profiles.collect(), findings))
}

fn chosen<'a>(policy: &'a Policy, names: &[String]) -> Result<Vec<&'a Profile>> {
    if names.is_empty() {
        let is_own =
            |profile: &&Profile| *profile.origin() != Origin::BuiltIn || profile.name() == policy.default_profile();
        return Ok(policy.profiles().filter(is_own).collect());
    }
    let find = |name: &String| match policy.profile(name) {
        Some(profile) => Ok(profile),
        None => {
            let known: Vec<&str> = policy.profiles().map(Profile::name).collect();
            bail!("there is no profile {name:?}; there are: {}", known.join(", "))
        }
    };
    names.iter().map(find).collect()
}

fn of_profile(solver: &mut Solver, policy: &Policy, profile: &Profile) -> Result<Vec<Finding>, ProveError> {
    let sandbox = profile.sandbox();
    let filter = sandbox.effective_filter();
    let arch = filter.arch();
    let mut found = prove_rules(solver, &filter, sandbox.quiet())?;
    let of_execs = sandbox.exec_filter();
    if found.is_none() && of_execs != filter {
        found = prove_rules(solver, &of_execs, sandbox.quiet())?;
    }
    let itself = |claim: String, found: Option<Counterexample>| Finding {
        claim,
        counterexample: found.map(|call| Found { with: None, call }),
    };
    let mut findings = vec![itself(Claim::Rules(&filter, Mode::Plain).to_string(), found)];
    let program = filter.compile()?;
    let compatible = BuiltIn::Compatible.seccomp(arch);
    for claim in [
        Claim::NoForeignAbi,
        Claim::NoNamespace,
        Claim::NoTyping,
        Claim::Sockets(SocketCall::Single, Families::named(&filter, SocketCall::Single)),
        Claim::Sockets(SocketCall::Pair, Families::named(&filter, SocketCall::Pair)),
        Claim::Within(BuiltIn::Compatible.name(), &[&compatible]),
    ] {
        let found = prove(solver, arch, &program, &claim)?;
        findings.push(itself(claim.to_string(), found));
    }
    findings.push(Finding {
        claim: "met with any other profile, no call runs that either denies".to_owned(),
        counterexample: of_meets(solver, policy, profile)?,
    });
    Ok(findings)
}

/// A call that a meet with another profile allows and one of both denies, or that gets another answer than by the rules.
fn of_meets(solver: &mut Solver, policy: &Policy, profile: &Profile) -> Result<Option<Found>, ProveError> {
    let filter = profile.sandbox().effective_filter();
    let mut seen = vec![filter.clone()];
    for other in policy.profiles() {
        let theirs = other.sandbox().effective_filter();
        if seen.contains(&theirs) {
            continue;
        }
        let met = profile.sandbox().meet(other.sandbox());
        let both = met.effective_filter();
        let claim = Claim::Within("either", &[&filter, &theirs]);
        let found = match prove(solver, both.arch(), &both.compile()?, &claim)? {
            None => prove_rules(solver, &both, met.quiet())?,
            found => found,
        };
        if let Some(call) = found {
            return Ok(Some(Found { with: Some(other.name().to_owned()), call }));
        }
        seen.push(theirs);
    }
    Ok(None)
}

fn print(claim: &str, found: &[(&str, &Found)]) {
    let first = if found.is_empty() { format!("  {GOOD}proved{PLAIN}   ") } else { format!("  {BAD}refuted{PLAIN}  ") };
    anstream::print!("{}", beside(&first, claim, width()));
    for (arch, Found { with, call }) in found {
        let with = with.as_ref().map_or(String::new(), |with| format!(", with {}", printable(with)));
        anstream::print!("{}", beside("           ", &format!("{arch}{with}: {call}"), width()));
    }
}

fn as_json(claim: &str, found: &[(&str, &Found)]) -> Value {
    let counterexamples = found.iter().map(|(arch, Found { with, call })| {
        json!({
            "arch": arch,
            "with": with,
            "text": call.to_string(),
            "audit-arch": call.call.arch,
            "number": call.call.number,
            // As text: programs that read JSON lose the last digits of such numbers.
            "arguments": call.call.arguments.map(|argument| format!("{argument:#x}")),
            "answer": call.answer,
            "expected": call.expected,
        })
    });
    json!({"claim": claim, "proved": found.is_empty(), "counterexamples": counterexamples.collect::<Vec<_>>()})
}
