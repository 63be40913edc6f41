//! `hardenctl score`: how much a container, a manifest's containers or a profile's are exposed.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use hardened_sandbox::policy::{Policy, Profile};
use hardened_sandbox::{Access, Finding, HOST_PATHS, KernelSupport, Observations, Standing, judge, score};
use oci_spec::runtime::Spec;
use serde::Serialize;

use crate::args::{PolicyPath, dns_label};
use crate::events::standings;
use crate::manifest::{self, Content};
use crate::records::printable;
use crate::style::{BAD, BOLD, DIM, GOOD, NOTE, PLAIN};
use crate::{pod, policy_source};

/// Tells how much a container is exposed, with a line for each thing that adds to it.
///
/// From 0 (it may do next to nothing) to 10. Of containers that run here, of those of a manifest, or of one that a profile
/// gives all that it can. Without a name: of each profile. The weights are opinion; compare scores, and read the lines.
#[derive(Debug, Args)]
pub(crate) struct Score {
    #[command(flatten)]
    policy: PolicyPath,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
    /// Kubernetes namespace of manifests that name none, or of the pod.
    #[arg(long, short, value_parser = dns_label)]
    namespace: Option<String>,
    /// A manifest or config.json, a profile, or a pod or container that runs here; tried in this order.
    target: Option<String>,
}

/// The score of one container.
#[derive(Debug, Serialize)]
struct Scored {
    name: String,
    /// Absent where it would be refused.
    score: Option<f64>,
    rating: &'static str,
    findings: Vec<Finding>,
}

impl Scored {
    fn of(name: String, findings: Vec<Finding>) -> Self {
        let score = f64::from(score(&findings)) / 10.0;
        Self { name, score: Some(score), rating: rating(score), findings }
    }

    const fn refused(name: String) -> Self {
        Self { name, score: None, rating: "refused", findings: Vec::new() }
    }
}

const fn rating(score: f64) -> &'static str {
    match score {
        ..2.0 => "tight",
        2.0..4.0 => "good",
        4.0..6.0 => "medium",
        6.0..8.0 => "exposed",
        _ => "unsafe",
    }
}

impl Score {
    pub(crate) fn run(&self) -> Result<ExitCode> {
        let all = self.all()?;
        if self.json {
            println!("{}", serde_json::to_string_pretty(&all)?);
            return Ok(ExitCode::SUCCESS);
        }
        let width = all.iter().map(|scored| scored.name.chars().count()).max().unwrap_or(0);
        for scored in &all {
            let Scored { name, score, rating, findings } = scored;
            let colour = match *rating {
                "tight" | "good" => GOOD,
                "medium" => NOTE,
                _ => BAD,
            };
            let number = score.map_or("-".to_owned(), |score| format!("{score:.1}"));
            anstream::println!("{BOLD}{:width$}{PLAIN}  {colour}{number:>4} {rating}{PLAIN}", printable(name));
            if self.target.is_some() {
                print(findings);
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    fn all(&self) -> Result<Vec<Scored>> {
        let policy = policy_source::read(&self.policy.policy)?;
        let Some(target) = &self.target else {
            return policy
                .profiles()
                .filter(|profile| is_for_workloads(profile))
                .map(|p| of_profile(&policy, p))
                .collect();
        };
        if Path::new(target).is_file() || target == "-" {
            return self.of_manifest(&policy, Path::new(target));
        }
        if let Some(profile) = policy.profile(target) {
            return Ok(vec![of_profile(&policy, profile)?]);
        }
        let running = standings(target, self.namespace.as_deref())
            .with_context(|| format!("{target} is neither a file nor a profile"))?;
        Ok(running
            .iter()
            .map(|(id, standing)| {
                Scored::of(standing.identity.name().unwrap_or_else(|| id.clone()), standing.findings())
            })
            .collect())
    }

    fn of_manifest(&self, policy: &Policy, file: &Path) -> Result<Vec<Scored>> {
        let mut all = Vec::new();
        for object in manifest::read(&[file.to_owned()])? {
            let (observed, specs): (Observations, Vec<(String, Spec)>) = match &object.content {
                Content::Class(_) | Content::Other => continue,
                Content::Oci(spec) => (Observations::none(None), vec![("container".to_owned(), (**spec).clone())]),
                Content::Pod { metadata, spec, handler } => {
                    let namespace = object.namespace.as_deref().or(self.namespace.as_deref()).unwrap_or("default");
                    let containers = pod::containers(namespace, &object.name, metadata, spec)?;
                    // Nothing of the workload runs in the pod's sandbox.
                    let of_workload = containers.into_iter().filter(|container| !container.list.is_empty());
                    (Observations::none(Some(handler)), of_workload.map(|c| (c.name.clone(), c.spec)).collect())
                }
            };
            for (container, spec) in specs {
                let name = format!("{} {} {container}", object.kind, object.name);
                all.push(match judge(&spec, policy, &KernelSupport::assumed(), &observed) {
                    Ok(admission) => Scored::of(name, Standing::new(&admission).findings()),
                    Err(_) => Scored::refused(name),
                });
            }
        }
        Ok(all)
    }
}

/// `pause` is for a pod's own sandbox, and `privileged` gives what is asked for.
fn is_for_workloads(profile: &Profile) -> bool {
    !profile.sandbox().is_open() && profile.name() != "pause"
}

/// A container that asks for all that a profile gives: root, the profile's capabilities, its host namespaces.
fn of_profile(policy: &Policy, profile: &Profile) -> Result<Scored> {
    let sandbox = profile.sandbox();
    let capabilities: Vec<String> = sandbox.capabilities().names().map(|name| format!("CAP_{name}")).collect();
    let namespaces = ["mount", "pid", "ipc", "network", "uts", "cgroup"];
    let given: Vec<&str> = sandbox.host_namespaces().map(|namespace| namespace.kind()).collect();
    let own = namespaces.iter().filter(|kind| !given.contains(kind)).map(|kind| serde_json::json!({"type": kind}));
    let spec = serde_json::json!({
        "ociVersion": "1.2.0",
        "root": {"path": "rootfs"},
        "process": {
            "cwd": "/", "args": ["/bin/true"], "user": {"uid": u32::from(sandbox.needs_a_user()), "gid": 0},
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
        },
        "linux": {"namespaces": own.collect::<Vec<_>>()},
    });
    let spec: Spec = serde_json::from_value(spec).context("the spec of a container")?;
    let policy = policy.clone().with_profile_for_all(profile.name()).map_err(anyhow::Error::msg)?;
    let name = format!("profile {}", profile.name());
    let observed =
        Observations { container: "c".to_owned(), namespace: "default".to_owned(), ..Observations::none(None) };
    let Ok(admission) = judge(&spec, &policy, &KernelSupport::assumed(), &observed) else {
        return Ok(Scored::refused(name));
    };
    let mut findings = Standing::new(&admission).findings();
    // It mounts nothing; what it could is the profile's to say.
    if let (Some(access), Some(finding)) =
        (sandbox.access(Path::new("/")), findings.iter_mut().find(|f| f.name == HOST_PATHS))
    {
        (finding.exposure, finding.found) = match access {
            Access::ReadWrite => (finding.weight, "any, writable".to_owned()),
            Access::ReadOnly => (finding.weight / 2, "any, read-only".to_owned()),
        };
    }
    Ok(Scored::of(name, findings))
}

fn print(findings: &[Finding]) {
    let width = findings.iter().map(|finding| finding.name.len()).max().unwrap_or(0);
    let mut sorted: Vec<&Finding> = findings.iter().collect();
    sorted.sort_by_key(|finding| std::cmp::Reverse(finding.exposure));
    for Finding { name, found, exposure, weight } in sorted {
        let colour = match exposure {
            0 => GOOD,
            1..=3 => NOTE,
            _ => BAD,
        };
        anstream::println!(
            "  {colour}{exposure:>2}{PLAIN}{DIM}/{weight:<2}{PLAIN}  {name:width$}  {}",
            printable(found)
        );
    }
}
