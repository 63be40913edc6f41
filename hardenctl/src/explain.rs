//! `hardenctl explain`: the effective sandbox, and where each part comes from.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use hardened_sandbox::policy::Policy;
use hardened_sandbox::{Admission, KernelSupport, Note, Observations, Refusal, Sandbox, Summary, judge};

use crate::facts::{Line, facts, table, with_calls};
use crate::manifest::{self, Content};
use crate::records::printable;
use crate::report::is_news;
use crate::style::{BAD, BOLD, DIM, NOTE, PLAIN};
use crate::table::{folded, hanging, width};
use crate::warning::{self, Warning};
use crate::{pod, policy_source};

/// Columns before the second line of a paragraph, below its first word.
const INDENT: usize = 7;

/// A container of a manifest, and what was decided of it.
struct Explained {
    what: String,
    is_sandbox: bool,
    decided: Result<Admission, Refusal>,
    warnings: Vec<Warning>,
}

pub(crate) fn run(policy: &Path, json: bool, all: bool, namespace: &str, file: &Path) -> Result<ExitCode> {
    let policy = policy_source::read(policy)?;
    let explained = decide(file, namespace, &policy)?;
    let refused = explained.iter().any(|container| container.decided.is_err());
    if json {
        let json: Vec<_> = explained.iter().map(|container| to_json(container, &policy)).collect();
        println!("{}", serde_json::to_string_pretty(&json)?);
    } else {
        for container in explained.iter().filter(|c| all || !c.is_sandbox || c.decided.is_err()) {
            anstream::print!("{}", text(container, &policy, all, width()));
        }
    }
    Ok(ExitCode::from(u8::from(refused)))
}

fn decide(file: &Path, namespace: &str, policy: &Policy) -> Result<Vec<Explained>> {
    let kernel = KernelSupport::assumed();
    let mut explained = Vec::new();
    for object in manifest::read(&[file.to_owned()])? {
        let title = |what: &str| format!("{} {}: {what}", object.kind, object.name);
        match &object.content {
            Content::Class(_) | Content::Other => {}
            Content::Oci(spec) => {
                let decided = judge(spec, policy, &kernel, &Observations::none(None));
                let warnings = decided.as_ref().map(|admission| warning::of_spec(spec, admission)).unwrap_or_default();
                explained.push(Explained { what: title("container"), is_sandbox: false, decided, warnings });
            }
            Content::Pod { metadata, spec, handler } => {
                let namespace = object.namespace.as_deref().unwrap_or(namespace);
                for judged in pod::containers(namespace, &object.name, metadata, spec)? {
                    let decided = judge(&judged.spec, policy, &kernel, &Observations::none(Some(handler)));
                    let warnings = warning::of_decided(&judged, &decided);
                    let (what, is_sandbox) = (title(&judged.title()), judged.is_sandbox());
                    explained.push(Explained { what, is_sandbox, decided, warnings });
                }
            }
        }
    }
    Ok(explained)
}

/// What was decided of a container that runs on this node.
pub(crate) fn running(id: &str, json: bool, all: bool) -> Result<ExitCode> {
    let folder = find(Path::new("/run/hardened"), id)?;
    let path = folder.join("admission.json");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    if json {
        println!("{text}");
        return Ok(ExitCode::SUCCESS);
    }
    let summary: Summary = serde_json::from_str(&text).with_context(|| format!("read {}", path.display()))?;
    let name = folder.file_name().unwrap_or_default().display().to_string();
    let profiles = summary.profiles.join(" and ");
    let by = printable(&format!("{}: {profiles}", summary.by));
    let title = format!("{BOLD}{}{PLAIN} {DIM}by {by}{PLAIN}", printable(&name));
    anstream::print!("{}", hanging("", &title, INDENT, width()));
    anstream::print!("{}", table(summary.sandbox.into_iter().map(Line::from), all, width()));
    anstream::print!("{}", changes(&summary.notes, all, width()));
    for lost in summary.lost {
        anstream::print!("{}", hanging(&format!("  {NOTE}lost{PLAIN} "), &printable(&lost), INDENT, width()));
    }
    Ok(ExitCode::SUCCESS)
}

/// What was tightened.
fn changes(notes: &[Note], all: bool, width: usize) -> String {
    let notes = notes.iter().filter(|note| all || is_news(note));
    let text = |note: &Note| printable(&format!("{}: {}", note.field, folded(&note.change, all)));
    notes.map(|note| hanging(&format!("  {NOTE}tightened{PLAIN} "), &text(note), INDENT, width)).collect()
}

/// The folder of the container that is called so, or whose name alone begins so.
fn find(root: &Path, id: &str) -> Result<PathBuf> {
    let list = |folder: &Path| std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path());
    let name = |path: &Path| path.strip_prefix(root).unwrap_or(path).display().to_string();
    let (namespace, id) = id.rsplit_once('/').map_or((None, id), |(namespace, id)| (Some(namespace), id));
    let of = |path: &PathBuf| namespace.is_none_or(|namespace| path.ends_with(namespace));
    let all: Vec<_> = list(root).filter(of).flat_map(|namespace| list(&namespace)).collect();
    let called = |exact: bool| -> Vec<&PathBuf> {
        let fits = |name: &str| if exact { name == id } else { name.starts_with(id) && !id.is_empty() };
        all.iter().filter(|path| path.file_name().and_then(|n| n.to_str()).is_some_and(fits)).collect()
    };
    let exact = called(true);
    match &*(if exact.is_empty() { called(false) } else { exact }) {
        [] => bail!("no container of this runtime is called {id}; `crictl ps` and `ctr tasks ls` list them"),
        [one] => Ok((*one).clone()),
        several => {
            let names: Vec<String> = several.iter().map(|path| name(path)).collect();
            bail!("{} containers begin with {id}: {}; give one of those", several.len(), names.join(", "))
        }
    }
}

/// Each line of the sandbox, with the profiles that have it so: none where it is the meet of several.
fn lines(sandbox: &Sandbox, policy: &Policy) -> Vec<(String, String, Vec<String>)> {
    let of_profile: Vec<_> = sandbox
        .names()
        .iter()
        .filter_map(|name| policy.profile(name))
        .map(|profile| (format!("{} ({})", profile.name(), profile.origin()), facts(profile)))
        .collect();
    let from = |at: usize, value: &str| {
        let has_it = |lines: &Vec<(String, String)>| lines.get(at).is_some_and(|(_, v)| v == value);
        of_profile.iter().filter(|(_, lines)| has_it(lines)).map(|(name, _)| name.clone()).collect()
    };
    let lines = with_calls(sandbox.describe(), sandbox).into_iter().enumerate();
    lines.map(|(at, (key, value))| (key, value.clone(), from(at, &value))).collect()
}

/// Where a line comes from, in words.
fn origin(from: &[String]) -> String {
    if from.is_empty() { "combined from the profiles and the pod's settings".to_owned() } else { from.join(", ") }
}

/// The system folders of the image that are read-only; none where all of it is, or none.
fn system_folders(admission: &Admission) -> Vec<String> {
    let system = &admission.bundle().system;
    let alone = system.alone.iter().map(|folder| format!("{} itself", folder.display()));
    system.whole.iter().map(|folder| folder.display().to_string()).chain(alone).collect()
}

fn text(container: &Explained, policy: &Policy, all: bool, width: usize) -> String {
    let Explained { what, decided, warnings, .. } = container;
    let admission = match decided {
        Ok(admission) => admission,
        Err(refusal) => {
            let refusal = format!("{BAD}{}{PLAIN}", printable(&refusal.to_string()));
            return format!("{BOLD}{}{PLAIN}\n{}", printable(what), hanging("  ", &refusal, 2, width));
        }
    };
    let title = format!("{BOLD}{}{PLAIN} {DIM}by {}{PLAIN}", printable(what), printable(admission.by()));
    let mut text = hanging("", &title, INDENT, width);
    for warning in warnings {
        let problem = printable(&format!("{}: {}", warning.field, warning.problem));
        text.push_str(&hanging(&format!("  {NOTE}may break{PLAIN} "), &problem, INDENT, width));
        text.push_str(&hanging(&format!("    {DIM}->{PLAIN} "), &printable(&warning.advice), INDENT, width));
    }
    let profiles = admission.sandbox().names().len();
    let line = |(key, value, from): (String, String, Vec<String>)| {
        // What all of them have so needs no name.
        let is_telling = all || from.len() != profiles;
        Line { key, value, from: is_telling.then(|| origin(&from)) }
    };
    let mut lines: Vec<Line> = lines(admission.sandbox(), policy).into_iter().map(line).collect();
    let sets = admission.plan().capabilities;
    if all || sets.effective != admission.sandbox().capabilities() {
        lines.push(Line::from(("effective capabilities".to_owned(), sets.effective.to_string())));
    }
    let folders = system_folders(admission);
    if !folders.is_empty() {
        lines.push(Line::from(("read-only folders".to_owned(), folders.join(", "))));
    }
    text.push_str(&table(lines, all, width));
    text.push_str(&changes(admission.notes(), all, width));
    text
}

fn to_json(container: &Explained, policy: &Policy) -> serde_json::Value {
    let Explained { what, decided, warnings, .. } = container;
    match decided {
        Ok(admission) => {
            let lines: BTreeMap<String, serde_json::Value> = lines(admission.sandbox(), policy)
                .into_iter()
                .map(|(key, value, from)| (key, serde_json::json!({"value": value, "from": origin(&from)})))
                .collect();
            serde_json::json!({
                "container": what,
                "by": admission.by(),
                "sandbox": lines,
                "readOnlyFolders": system_folders(admission),
                "notes": admission.notes(),
                "warnings": warnings,
            })
        }
        Err(refusal) => serde_json::json!({"container": what, "refused": refusal.to_string()}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_found_by_its_name_or_a_part_that_only_it_has() {
        let root = std::env::temp_dir().join(format!("hardenctl-explain-{}", std::process::id()));
        for container in ["k8s.io/abc1", "k8s.io/abc10", "default/abc10", "default/web"] {
            std::fs::create_dir_all(root.join(container)).unwrap();
        }
        let found = |id: &str| find(&root, id).map(|path| path.strip_prefix(&root).unwrap().display().to_string());
        assert_eq!(found("w").unwrap(), "default/web");
        assert_eq!(found("abc1").unwrap(), "k8s.io/abc1");
        assert_eq!(found("default/abc").unwrap(), "default/abc10");
        let error = found("abc10").unwrap_err().to_string();
        assert!(error.contains("k8s.io/abc10") && error.contains("default/abc10"), "{error}");
        for none in ["", "x", "nowhere/web"] {
            assert!(found(none).unwrap_err().to_string().contains("no container of this runtime"), "{none}");
        }
        std::fs::remove_dir_all(root).unwrap();
    }
}
