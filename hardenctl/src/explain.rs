//! `hardenctl explain`: the effective sandbox, and where each part comes from.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use hardened_sandbox::policy::Policy;
use hardened_sandbox::{Admission, KernelSupport, Observations, Refusal, Sandbox, Summary, judge};
use oci_spec::runtime::Spec;

use crate::facts::with_calls;
use crate::manifest::{self, Content};
use crate::style::{BAD, BOLD, DIM, NOTE, PLAIN, rows};
use crate::{pod, policy_source};

pub(crate) fn run(policy: &Path, json: bool, namespace: &str, file: &Path) -> Result<ExitCode> {
    let policy = policy_source::read(policy)?;
    let mut all = Vec::new();
    for object in manifest::read(&[file.to_owned()])? {
        let (observed, specs): (Observations, Vec<(String, Spec)>) = match &object.content {
            Content::Class(_) | Content::Other => continue,
            Content::Oci(spec) => (Observations::none(None), vec![("container".to_owned(), (**spec).clone())]),
            Content::Pod { metadata, spec, handler } => {
                let namespace = object.namespace.as_deref().unwrap_or(namespace);
                let containers = pod::containers(namespace, &object.name, metadata, spec)?;
                let specs = containers.into_iter().map(|c| (describe(c.list, &c.name), c.spec)).collect();
                (Observations::none(Some(handler)), specs)
            }
        };
        for (what, spec) in specs {
            all.push((
                format!("{} {}: {what}", object.kind, object.name),
                judge(&spec, &policy, &KernelSupport::assumed(), &observed),
            ));
        }
    }
    let refused = all.iter().any(|(_, decided)| decided.is_err());
    if json {
        let all: Vec<_> = all.iter().map(|(what, decided)| to_json(what, decided, &policy)).collect();
        println!("{}", serde_json::to_string_pretty(&all)?);
    } else {
        for (what, decided) in &all {
            print(what, decided, &policy);
        }
    }
    Ok(ExitCode::from(u8::from(refused)))
}

/// What was decided of a container that runs on this node.
pub(crate) fn running(id: &str, json: bool) -> Result<ExitCode> {
    let folder = find(Path::new("/run/hardened"), id)?;
    let path = folder.join("admission.json");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    if json {
        println!("{text}");
        return Ok(ExitCode::SUCCESS);
    }
    let summary: Summary = serde_json::from_str(&text).with_context(|| format!("{}", path.display()))?;
    let name = folder.file_name().unwrap_or_default().display().to_string();
    let profiles = summary.profiles.join(" and ");
    anstream::println!("{BOLD}{name}{PLAIN} {DIM}by {}: {profiles}{PLAIN}", summary.by);
    rows(&summary.sandbox);
    for note in summary.notes {
        anstream::println!("  {DIM}{note}{PLAIN}");
    }
    for lost in summary.lost {
        anstream::println!("  {NOTE}{lost}{PLAIN}");
    }
    Ok(ExitCode::SUCCESS)
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
        [] => bail!("no container of this runtime is called {id}; `crictl ps` or `ctr tasks ls` names them"),
        [one] => Ok((*one).clone()),
        several => {
            let names: Vec<String> = several.iter().map(|path| name(path)).collect();
            bail!("{} containers begin with {id}: {}; give one of those", several.len(), names.join(", "))
        }
    }
}

fn describe(list: &str, name: &str) -> String {
    if list.is_empty() { "sandbox (pause)".to_owned() } else { format!("{list}[{name}]") }
}

/// Each line of the sandbox, with the profiles that have it so.
fn lines(sandbox: &Sandbox, policy: &Policy) -> Vec<(String, String, String)> {
    let of_profile: Vec<_> = sandbox
        .names()
        .iter()
        .filter_map(|name| policy.profile(name))
        .map(|profile| {
            (
                format!("{} ({})", profile.name(), profile.origin()),
                with_calls(profile.sandbox().describe(), profile.sandbox()),
            )
        })
        .collect();
    with_calls(sandbox.describe(), sandbox)
        .into_iter()
        .enumerate()
        .map(|(at, (key, value))| {
            let from: Vec<&str> = of_profile
                .iter()
                .filter(|(_, lines)| lines.get(at).is_some_and(|(_, v)| *v == value))
                .map(|(name, _)| name.as_str())
                .collect();
            let from =
                if from.is_empty() { "all of them, and the pod's own wishes".to_owned() } else { from.join(", ") };
            (key, value, from)
        })
        .collect()
}

fn print(what: &str, decided: &Result<Admission, Refusal>, policy: &Policy) {
    match decided {
        Ok(admission) => {
            anstream::println!("{BOLD}{what}{PLAIN} {DIM}by {}{PLAIN}", admission.by());
            for (key, value, from) in lines(admission.sandbox(), policy) {
                anstream::println!("  {key:22} {value}  {DIM}{from}{PLAIN}");
            }
            let sets = admission.plan().capabilities;
            anstream::println!("  {:22} {}", "effective capabilities", sets.effective);
            for note in admission.notes() {
                anstream::println!("  {DIM}{note}{PLAIN}");
            }
        }
        Err(refusal) => anstream::println!("{BOLD}{what}{PLAIN}\n  {BAD}{refusal}{PLAIN}"),
    }
}

fn to_json(what: &str, decided: &Result<Admission, Refusal>, policy: &Policy) -> serde_json::Value {
    match decided {
        Ok(admission) => {
            let lines: BTreeMap<String, serde_json::Value> = lines(admission.sandbox(), policy)
                .into_iter()
                .map(|(key, value, from)| (key, serde_json::json!({"value": value, "from": from})))
                .collect();
            serde_json::json!({"container": what, "by": admission.by(), "sandbox": lines, "notes": admission.notes()})
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
