//! `hardenctl check`: the shim's verdicts, without a node.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use hardened_sandbox::policy::Policy;
use hardened_sandbox::{Admission, KernelSupport, Observations, Refusal, Violation, judge as judge_spec};

use crate::args::Format;
use crate::manifest::{self, Content, Object};
use crate::pod::title;
use crate::records::printable;
use crate::report::{Change, Finding, Report, Verdict, is_news};
use crate::style::{BAD, BOLD, DIM, GOOD, NOTE, PLAIN};
use crate::table::{folded, hanging, width};
use crate::warning::{self, Warning};
use crate::{pod, policy_source, sarif};

pub(crate) fn run(
    policy: &Path,
    profile: Option<&str>,
    format: Format,
    verbose: bool,
    all: bool,
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
        Format::Text => {
            let shown: Vec<String> = reports.iter().map(|report| text(report, verbose || all, all, width())).collect();
            anstream::print!("{}", shown.concat());
        }
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
            let warnings = decided.as_ref().map(|admission| warning::of_spec(spec, admission)).unwrap_or_default();
            containers.push(verdict("", "", decided, warnings));
        }
        Content::Pod { metadata, spec, handler } => {
            for judged in pod::containers(&namespace, &object.name, metadata, spec)? {
                let decided =
                    judge_spec(&judged.spec, policy, &KernelSupport::assumed(), &Observations::none(Some(handler)));
                let warnings = warning::of_decided(&judged, &decided);
                containers.push(verdict(&judged.name, judged.list, decided, warnings));
            }
        }
        Content::Class(_) | Content::Other => {}
    }
    let Object { file, line, kind, name, .. } = object;
    Ok(Report { file, line, kind, name, namespace, containers })
}

fn verdict(name: &str, list: &str, decided: Result<Admission, Refusal>, warnings: Vec<Warning>) -> Verdict {
    let (name, list) = (name.to_owned(), list.to_owned());
    match decided {
        Ok(admission) => {
            let tightened = admission.notes().iter().filter(|note| is_news(note));
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

/// Columns before the second line of a paragraph, below its first word.
const INDENT: usize = 9;

/// A report for people: what is refused and what may break comes first. Manifests are foreign: nothing of them reaches the
/// terminal raw.
fn text(report: &Report, implied: bool, all: bool, width: usize) -> String {
    let Report { file, line, kind, name, namespace, containers } = report;
    let place = printable(&format!("{}:{line}", file.display()));
    let is_spec = kind == "OCI spec";
    let object = if is_spec { kind.clone() } else { format!("{kind} {namespace}/{name}") };
    let mut text = format!("{BOLD}{}{PLAIN} {DIM}{place}{PLAIN}\n", printable(&object));
    let mut add = |first: &str, rest: &str| text.push_str(&hanging(first, rest, INDENT, width));
    if containers.is_empty() {
        add("  ", &format!("{DIM}runs nothing{PLAIN}"));
    }
    for container in containers {
        let is_sandbox = container.list.is_empty() && !is_spec;
        if is_sandbox && container.admitted && !all {
            continue;
        }
        let what = if is_spec { "container".to_owned() } else { title(&container.list, &container.name) };
        let (colour, word) = if container.admitted { (GOOD, "admitted") } else { (BAD, "refused") };
        add("  ", &format!("{colour}{word:8}{PLAIN} {} {DIM}by {}{PLAIN}", printable(&what), printable(&container.by)));
        for v in &container.violations {
            add("    ", &format!("{BAD}{}{PLAIN}: {}", printable(&v.field), printable(&v.problem)));
            add(&format!("      {DIM}->{PLAIN} "), &printable(&v.advice));
        }
        for v in container.implied.iter().filter(|_| implied) {
            add(&format!("    {DIM}and so{PLAIN} "), &printable(&format!("{}: {}", v.field, v.problem)));
        }
        for warning in &container.warnings {
            let problem = printable(&format!("{}: {}", warning.field, warning.problem));
            add(&format!("    {NOTE}may break{PLAIN} "), &problem);
            add(&format!("      {DIM}->{PLAIN} "), &printable(&warning.advice));
        }
        for change in &container.tightened {
            let change = format!("{}: {}", change.field, folded(&change.change, all));
            add(&format!("    {NOTE}tightened{PLAIN} "), &printable(&change));
        }
    }
    text
}
