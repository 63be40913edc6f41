//! `hardenctl check`: the shim's verdicts, without a node.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use hardened_sandbox::policy::Policy;
use hardened_sandbox::{Admission, KernelSupport, Observations, Refusal, Violation, judge as judge_spec};

use crate::args::Format;
use crate::manifest::{self, Content, Object};
use crate::report::{Change, Finding, Report, Verdict};
use crate::style::{BAD, BOLD, DIM, GOOD, NOTE, PLAIN};
use crate::{pod, policy_source, sarif};

pub(crate) fn run(
    policy: &Path,
    profile: Option<&str>,
    format: Format,
    verbose: bool,
    namespace: &str,
    files: &[PathBuf],
) -> Result<ExitCode> {
    let mut policy = policy_source::read(policy)?;
    if let Some(name) = profile {
        policy = policy.with_profile_for_all(name).map_err(|problem| anyhow::anyhow!("--profile: {problem}"))?;
    }
    let mut reports = Vec::new();
    for object in manifest::read(files)? {
        reports.push(judge(object, namespace, &policy)?);
    }
    match format {
        Format::Text => reports.iter().for_each(|report| print(report, verbose)),
        Format::Json => println!("{}", serde_json::to_string_pretty(&reports)?),
        Format::Sarif => println!("{}", serde_json::to_string_pretty(&sarif::log(&reports))?),
    }
    let refused = reports.iter().flat_map(|r| &r.containers).filter(|c| !c.admitted).count();
    let containers: usize = reports.iter().map(|r| r.containers.len()).sum();
    if format == Format::Text {
        let colour = if refused == 0 { GOOD } else { BAD };
        anstream::println!("{colour}{} of {containers} containers would start{PLAIN}", containers - refused);
    }
    Ok(ExitCode::from(u8::from(refused > 0)))
}

/// All verdicts on one object.
pub(crate) fn judge(object: Object, namespace: &str, policy: &Policy) -> Result<Report> {
    let namespace = object.namespace.clone().unwrap_or_else(|| namespace.to_owned());
    let mut containers = Vec::new();
    match &object.content {
        Content::Oci(spec) => {
            let decided = judge_spec(spec, policy, &KernelSupport::assumed(), &Observations::none(None));
            containers.push(verdict("", "", decided, Vec::new()));
        }
        Content::Pod { metadata, spec, handler } => {
            for judged in pod::containers(&namespace, &object.name, metadata, spec)? {
                let decided =
                    judge_spec(&judged.spec, policy, &KernelSupport::assumed(), &Observations::none(Some(handler)));
                containers.push(verdict(&judged.name, judged.list, decided, judged.warnings));
            }
        }
        Content::Class(_) | Content::Other => {}
    }
    let Object { file, line, kind, name, .. } = object;
    Ok(Report { file, line, kind, name, namespace, containers })
}

fn verdict(name: &str, list: &str, decided: Result<Admission, Refusal>, warnings: Vec<String>) -> Verdict {
    let (name, list) = (name.to_owned(), list.to_owned());
    match decided {
        Ok(admission) => {
            let is_news = |note: &&hardened_sandbox::Note| !note.field.starts_with("linux.");
            let tightened = admission.notes().iter().filter(is_news);
            let tightened =
                tightened.map(|note| Change { field: note.field.clone(), change: note.change.clone() }).collect();
            let by = admission.by().to_owned();
            Verdict { name, list, admitted: true, by, violations: Vec::new(), implied: Vec::new(), tightened, warnings }
        }
        Err(refusal) => {
            let of_list = |field: String| field.replacen("spec.containers[", &format!("spec.{list}["), 1);
            let finding = |v: &Violation| Finding {
                reason: v.reason,
                field: of_list(refusal.field_of(v)),
                problem: v.problem.clone(),
                advice: v.advice.clone(),
            };
            let violations = refusal.violations().iter().map(finding).collect();
            let implied = refusal.implied().iter().map(finding).collect();
            let by = refusal.by().to_owned();
            Verdict { name, list, admitted: false, by, violations, implied, tightened: Vec::new(), warnings }
        }
    }
}

fn print(report: &Report, verbose: bool) {
    let Report { file, line, kind, name, namespace, containers } = report;
    let place = format!("{}:{line}", file.display());
    if kind == "OCI spec" {
        anstream::println!("{BOLD}{kind}{PLAIN} {DIM}{place}{PLAIN}");
    } else {
        anstream::println!("{BOLD}{kind} {namespace}/{name}{PLAIN} {DIM}{place}{PLAIN}");
    }
    if containers.is_empty() {
        anstream::println!("  {DIM}runs nothing{PLAIN}");
    }
    for container in containers {
        let what = match (container.list.as_str(), container.name.as_str()) {
            ("", _) if kind == "OCI spec" => "container".to_owned(),
            ("", _) => "sandbox (pause)".to_owned(),
            (list, name) => format!("{list}[{name}]"),
        };
        // The sandbox is of interest where it is refused.
        if container.admitted && container.list.is_empty() && kind != "OCI spec" {
            continue;
        }
        let (colour, word) = if container.admitted { (GOOD, "admitted") } else { (BAD, "refused") };
        anstream::println!("  {colour}{word:8}{PLAIN} {what} {DIM}by {}{PLAIN}", container.by);
        for v in &container.violations {
            anstream::println!("    {BAD}{}{PLAIN}: {}\n      {DIM}->{PLAIN} {}", v.field, v.problem, v.advice);
        }
        for v in container.implied.iter().filter(|_| verbose) {
            anstream::println!("    {DIM}and so{PLAIN} {}: {}", v.field, v.problem);
        }
        for change in &container.tightened {
            anstream::println!("    {NOTE}tightened{PLAIN} {}: {}", change.field, change.change);
        }
        for warning in &container.warnings {
            anstream::println!("    {NOTE}may break{PLAIN} {warning}");
        }
    }
}
