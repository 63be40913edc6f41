//! What a cluster applies, against the API's own types: strictly, no unknown field.
#![allow(clippy::unwrap_used, reason = "helpers of tests, which clippy does not take for tests")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use k8s_openapi::api::node::v1::RuntimeClass;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use serde::de::DeserializeOwned;
use serde_json::Value;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../runtimeclass")
}

fn documents(text: &str) -> Vec<Value> {
    let values = text.split("\n---\n").map(|d| serde_yaml_ng::from_str::<Value>(d).unwrap());
    values.filter(|v| !v.is_null()).collect()
}

fn strict<T: DeserializeOwned>(value: &Value) {
    let mut unknown = Vec::new();
    let read: Result<T, _> = serde_ignored::deserialize(value, |field| unknown.push(field.to_string()));
    assert!(read.is_ok(), "{:?}: {value}", read.err());
    assert!(unknown.is_empty(), "the API knows no {unknown:?}");
}

/// Checks one object; `false` where its type is not the API's own.
fn check(value: &Value) -> bool {
    match value["kind"].as_str().unwrap() {
        "RuntimeClass" => strict::<RuntimeClass>(value),
        "DaemonSet" => strict::<DaemonSet>(value),
        "Namespace" => strict::<Namespace>(value),
        "ServiceAccount" => strict::<ServiceAccount>(value),
        "ClusterRole" => strict::<ClusterRole>(value),
        "ClusterRoleBinding" => strict::<ClusterRoleBinding>(value),
        "Pod" => strict::<Pod>(value),
        "ValidatingAdmissionPolicy" => strict::<ValidatingAdmissionPolicy>(value),
        "ValidatingAdmissionPolicyBinding" => strict::<ValidatingAdmissionPolicyBinding>(value),
        _ => return false,
    }
    true
}

#[test]
fn every_manifest_is_what_the_api_takes() {
    let mut foreign = BTreeSet::new();
    let mut checked = 0;
    for part in [".", "installer", "agent", "samples", "admission"] {
        for entry in std::fs::read_dir(folder().join(part)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|e| e != "yaml") {
                continue;
            }
            for value in documents(&std::fs::read_to_string(&path).unwrap()) {
                if check(&value) {
                    checked += 1;
                } else {
                    foreign.insert(value["kind"].as_str().unwrap().to_owned());
                }
            }
        }
    }
    assert!(checked >= 15, "{checked}");
    // For these, scripts/check has Kyverno's types and kustomize itself.
    assert_eq!(foreign, ["ClusterPolicy", "Kustomization"].map(str::to_owned).into());
}

/// The chart is rendered by hand: it has nothing but values in it, and one condition around the agent.
#[test]
fn the_chart_renders_to_the_plain_manifests() {
    let read = |path: &str| std::fs::read_to_string(folder().join(path)).unwrap();
    let values: Value = serde_yaml_ng::from_str(&read("chart/values.yaml")).unwrap();
    let agent = read("chart/templates/agent.yaml");
    let agent = agent.strip_prefix("{{- if .Values.agent.enabled }}\n").and_then(|t| t.strip_suffix("{{- end }}\n"));
    assert_eq!(values["agent"]["enabled"], false);
    for (mut text, plain) in [
        (read("chart/templates/installer.yaml"), "installer/daemonset.yaml"),
        (read("chart/templates/runtimeclass.yaml"), "runtimeclass.yaml"),
        (agent.unwrap().to_owned(), "agent/daemonset.yaml"),
    ] {
        while let Some(start) = text.find("{{") {
            let end = text[start..].find("}}").unwrap() + start;
            let key = text[start + 2..end].trim().strip_prefix(".Values.").unwrap().to_owned();
            let value = key.split('.').fold(&values, |value, key| &value[key]).as_str().unwrap().to_owned();
            text.replace_range(start..end + 2, &value);
        }
        assert_eq!(text, read(plain), "{plain}");
    }
}

/// What denials cost a node has the same bounds, whoever starts the agent.
#[test]
fn the_agent_has_the_same_limits_as_a_service_and_as_a_pod() {
    let unit = std::fs::read_to_string(folder().join("../configs/hardened-agent.service")).unwrap();
    let set = |key: &str| unit.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    let percent: u32 = set("CPUQuota=").strip_suffix('%').unwrap().parse().unwrap();
    let mebibytes = set("MemoryMax=").strip_suffix('M').unwrap();
    let pod = documents(&std::fs::read_to_string(folder().join("agent/daemonset.yaml")).unwrap()).pop().unwrap();
    let limits = serde_json::json!({"cpu": format!("{}m", percent * 10), "memory": format!("{mebibytes}Mi")});
    assert_eq!(pod["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"], limits);
}

/// The list of the admission policy is containerd's own.
#[test]
fn the_early_answer_knows_the_default_capabilities() {
    let text = std::fs::read_to_string(folder().join("admission/policy.yaml")).unwrap();
    let policy: ValidatingAdmissionPolicy = serde_json::from_value(documents(&text)[0].clone()).unwrap();
    let variables = policy.spec.unwrap().variables.unwrap();
    let list = |name: &str| -> BTreeSet<String> {
        let variable = variables.iter().find(|v| v.name == name).unwrap();
        variable.expression.split('\'').skip(1).step_by(2).map(str::to_owned).collect()
    };
    let default = hardened_sandbox::capability::CapabilitySet::CONTAINERD_DEFAULT;
    assert_eq!(list("capabilities"), default.names().map(str::to_owned).collect());
}

#[test]
fn the_samples_are_what_their_names_say() {
    for (name, code, words) in [
        ("allowed", 0, "admitted containers[web]"),
        ("tightened", 0, "may break"),
        ("refused", 1, "spec.containers[agent].securityContext.privileged"),
    ] {
        let file = folder().join("samples").join(format!("{name}.yaml"));
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_hardenctl"));
        let out = command.args(["check", "--policy", "../configs/policy.toml"]).arg(file).output().unwrap();
        assert_eq!(out.status.code(), Some(code), "{name}");
        assert!(String::from_utf8_lossy(&out.stdout).contains(words), "{name}");
    }
}

/// Evaluates an expression over an object and what earlier ones came to.
fn evaluate(expression: &str, object: &Value, variables: &Value) -> Value {
    let mut context = cel::Context::default();
    context.add_variable("object", object.clone()).unwrap();
    context.add_variable("variables", variables.clone()).unwrap();
    let value = cel::Program::compile(expression).unwrap().execute(&context);
    value.map_err(|error| format!("{expression}: {error} for {object}")).unwrap().json().unwrap()
}

/// What an admission policy has against a pod, as the API server would put it.
fn objections(policy: &ValidatingAdmissionPolicy, pod: &Value) -> Vec<String> {
    let spec = policy.spec.clone().unwrap();
    let mut variables = serde_json::json!({});
    if !spec.match_conditions.unwrap_or_default().iter().all(|c| evaluate(&c.expression, pod, &variables) == true) {
        return Vec::new();
    }
    for variable in spec.variables.unwrap_or_default() {
        variables[variable.name] = evaluate(&variable.expression, pod, &variables);
    }
    let validations = spec.validations.unwrap();
    let failed = validations.into_iter().filter(|v| evaluate(&v.expression, pod, &variables) != true);
    failed.map(|validation| validation.message.unwrap()).collect()
}

fn policies() -> [ValidatingAdmissionPolicy; 2] {
    let text = std::fs::read_to_string(folder().join("admission/policy.yaml")).unwrap();
    let all = documents(&text).into_iter().filter(|value| value["kind"] == "ValidatingAdmissionPolicy");
    let all: Vec<_> = all.map(|value| serde_json::from_value(value).unwrap()).collect();
    all.try_into().unwrap()
}

/// The API refuses nothing that the node lets through, and each of its reasons is met.
#[test]
fn the_early_answer_is_the_nodes() {
    let [early, _] = policies();
    let mut met = BTreeSet::new();
    for file in ["good", "tightened", "hostile"] {
        let path = folder().join("../integration/manifests").join(format!("{file}.yaml"));
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_hardenctl"));
        let out = command.args(["check", "--json", "--policy", "../configs/policy.toml"]).arg(&path).output().unwrap();
        let reports: Vec<Value> = serde_json::from_slice(&out.stdout).unwrap();
        let pods = documents(std::fs::read_to_string(path).unwrap().split_once("---\n").unwrap().1);
        assert_eq!(pods.len(), reports.len());
        for (mut pod, report) in pods.into_iter().zip(reports) {
            pod["spec"]["runtimeClassName"] = "hardened".into();
            let objections = objections(&early, &pod);
            let admitted = report["containers"].as_array().unwrap().iter().all(|c| c["admitted"] == true);
            assert!(!admitted || objections.is_empty(), "{}: {objections:?}", pod["metadata"]["name"]);
            met.extend(objections);
        }
    }
    let all = early.spec.unwrap().validations.unwrap().into_iter().map(|validation| validation.message.unwrap());
    assert_eq!(met, all.collect());
}

#[test]
fn a_namespace_can_demand_the_runtime() {
    let [early, required] = policies();
    let pod = |class: Option<&str>| {
        let mut pod = serde_json::json!({"spec": {"hostPID": true, "containers": [{"name": "web"}]}});
        if let Some(class) = class {
            pod["spec"]["runtimeClassName"] = class.into();
        }
        pod
    };
    for other in [None, Some("runc")] {
        assert!(objections(&required, &pod(other))[0].starts_with("runtimeClassName: "));
        assert_eq!(objections(&early, &pod(other)), [""; 0], "not this runtime's");
    }
    assert_eq!(objections(&required, &pod(Some("hardened"))), [""; 0]);
    assert_eq!(objections(&early, &pod(Some("hardened"))).len(), 1);
}
