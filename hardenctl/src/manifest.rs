//! Kubernetes manifests and OCI specs, read from files and standard input.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{PodSpec, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use oci_spec::runtime::Spec;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::args::HANDLER;

/// Largest file that is read, in bytes.
const MAX_BYTES: u64 = 64 << 20;

/// Something to judge.
#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) file: PathBuf,
    /// First line of its document, from 1.
    pub(crate) line: usize,
    pub(crate) kind: String,
    pub(crate) name: String,
    /// Absent where it names none.
    pub(crate) namespace: Option<String>,
    pub(crate) content: Content,
}

/// What is judged.
#[derive(Debug)]
pub(crate) enum Content {
    Pod {
        metadata: Box<ObjectMeta>,
        spec: Box<PodSpec>,
        /// Runtime handler.
        handler: String,
    },
    Oci(Box<Spec>),
    /// A RuntimeClass, by its handler.
    Class(String),
    /// Nothing of it runs.
    Other,
}

/// Reads all objects of some files; `-` is standard input.
pub(crate) fn read(files: &[PathBuf]) -> Result<Vec<Object>> {
    let mut objects = Vec::new();
    for file in files {
        objects.append(&mut read_file(file)?);
    }
    let class = |object: &Object| match &object.content {
        Content::Class(handler) => Some((object.name.clone(), handler.clone())),
        Content::Pod { .. } | Content::Oci(_) | Content::Other => None,
    };
    let classes: HashMap<String, String> = objects.iter().filter_map(class).collect();
    for object in &mut objects {
        if let Content::Pod { handler, .. } = &mut object.content
            && let Some(of_class) = classes.get(handler)
        {
            handler.clone_from(of_class);
        }
    }
    Ok(objects)
}

fn read_file(file: &Path) -> Result<Vec<Object>> {
    let mut text = String::new();
    if file == Path::new("-") {
        std::io::stdin().take(MAX_BYTES).read_to_string(&mut text).context("read standard input")?;
    } else {
        let opened = std::fs::File::open(file).with_context(|| format!("open {}", file.display()))?;
        opened.take(MAX_BYTES).read_to_string(&mut text).with_context(|| format!("read {}", file.display()))?;
    }
    parse(file, &text)
}

/// The objects of a file's text.
pub(crate) fn parse(file: &Path, text: &str) -> Result<Vec<Object>> {
    let mut objects = Vec::new();
    for (line, document) in documents(text) {
        let place = || format!("{}:{line}", file.display());
        // YAML has JSON in it.
        let value: Value = serde_yaml_ng::from_str(document).with_context(|| format!("{}: no YAML", place()))?;
        if value.is_null() {
            continue;
        }
        collect(file, line, value, &mut objects).with_context(place)?;
    }
    if objects.is_empty() {
        bail!("{}: it has no document; expected a manifest or an OCI config.json", file.display());
    }
    Ok(objects)
}

/// The documents of a stream, each with its first line.
fn documents(text: &str) -> Vec<(usize, &str)> {
    let mut documents = Vec::new();
    let (mut start, mut first, mut at, mut number) = (0, 1, 0, 0);
    for line in text.split_inclusive('\n') {
        number += 1;
        if line.trim_end() == "---" {
            documents.push((first, text.get(start..at).unwrap_or_default()));
            (start, first) = (at + line.len(), number + 1);
        }
        at += line.len();
    }
    documents.push((first, text.get(start..).unwrap_or_default()));
    documents.retain(|(_, text)| text.lines().any(|l| !l.trim().is_empty() && !l.trim_start().starts_with('#')));
    documents
}

fn collect(file: &Path, line: usize, value: Value, objects: &mut Vec<Object>) -> Result<()> {
    let object = |kind: &str, metadata: &ObjectMeta, content| Object {
        file: file.to_owned(),
        line,
        kind: kind.to_owned(),
        name: metadata.name.clone().or_else(|| metadata.generate_name.clone()).unwrap_or_default(),
        namespace: metadata.namespace.clone(),
        content,
    };
    if value.get("ociVersion").is_some() {
        let spec: Spec = serde_json::from_value(value).context("not an OCI spec")?;
        let metadata = ObjectMeta::default();
        objects.push(object("OCI spec", &metadata, Content::Oci(Box::new(spec))));
        return Ok(());
    }
    let Some(kind) = value.get("kind").and_then(Value::as_str).map(str::to_owned) else {
        bail!("no kind; expected a Kubernetes manifest or an OCI config.json");
    };
    if kind.ends_with("List")
        && let Some(items) = value.get("items").and_then(Value::as_array)
    {
        return items.iter().try_for_each(|item| collect(file, line, item.clone(), objects));
    }
    let metadata: ObjectMeta = part(&value, "metadata")?.unwrap_or_default();
    // Called like its RuntimeClass, until one of that name is found. A pod without will name ours.
    let content = |metadata: ObjectMeta, spec: PodSpec| {
        let handler = spec.runtime_class_name.clone().unwrap_or_else(|| HANDLER.to_owned());
        Content::Pod { metadata: Box::new(metadata), spec: Box::new(spec), handler }
    };
    let template = match kind.as_str() {
        "Pod" => {
            let spec = part::<PodSpec>(&value, "spec")?.context("spec: missing")?;
            objects.push(object(&kind, &metadata, content(metadata.clone(), spec)));
            return Ok(());
        }
        "RuntimeClass" => {
            let handler = part(&value, "handler")?.context("handler: missing")?;
            objects.push(object(&kind, &metadata, Content::Class(handler)));
            return Ok(());
        }
        "PodTemplate" => "template",
        "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "ReplicationController" | "Job" => "spec.template",
        "CronJob" => "spec.jobTemplate.spec.template",
        _ => {
            objects.push(object(&kind, &metadata, Content::Other));
            return Ok(());
        }
    };
    let pod: PodTemplateSpec = part(&value, template)?.with_context(|| format!("{kind}: {template}: missing"))?;
    let spec = pod.spec.with_context(|| format!("{kind}: {template}.spec: missing"))?;
    objects.push(object(&kind, &metadata, content(pod.metadata.unwrap_or_default(), spec)));
    Ok(())
}

/// A part of a manifest as the API's own type; fields that the API does not know are errors, as in
/// its strict validation.
fn part<T: DeserializeOwned>(value: &Value, path: &str) -> Result<Option<T>> {
    let Some(found) = path.split('.').try_fold(value, |value, key| value.get(key)) else { return Ok(None) };
    let mut unknown = Vec::new();
    let read = serde_ignored::deserialize(found, |field| unknown.push(format!("{path}.{field}").replace(".?", "")));
    let read = read.with_context(|| format!("{path}: not valid for the Kubernetes API"))?;
    if !unknown.is_empty() {
        bail!("unknown to the Kubernetes API: {}", unknown.join(", "));
    }
    Ok(Some(read))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_told_apart_with_their_lines() {
        let found = documents("# only a comment\n---\na: 1\n---\n\n---\nb: 2\nc: 3\n");
        assert_eq!(found, [(3, "a: 1\n"), (7, "b: 2\nc: 3\n")]);
    }
}
