//! What `hardenctl` prints, as snapshots.
#![allow(clippy::unwrap_used, reason = "helpers of tests, which clippy does not take for tests")]

use std::process::Command;

fn hardenctl(arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hardenctl"));
    command.args(arguments).current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let out = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (out.status.code().unwrap(), text(&out.stdout), text(&out.stderr))
}

#[test]
fn verdicts_on_every_manifest() {
    for (name, code) in [("good", 0), ("tightened", 0), ("hostile", 1)] {
        let file = format!("integration/manifests/{name}.yaml");
        let (found, text, error) = hardenctl(&["check", "--policy", "/nowhere", &file]);
        assert_eq!(found, code, "{error}");
        insta::assert_snapshot!(name, text);
    }
}

#[test]
fn a_policy_changes_the_verdicts() {
    let policy = "configs/policy-example.toml";
    let (code, text, _) = hardenctl(&["check", "--policy", policy, "integration/manifests/good.yaml"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("by rule 4 (configs/policy-example.toml:"), "{text}");
    let (_, text, _) = hardenctl(&["policy", "explain", "--policy", policy, "--namespace", "vault", "--image", "x"]);
    assert!(text.starts_with("rule 5 (configs/policy-example.toml:"), "{text}");
    let (code, text, _) = hardenctl(&["policy", "diff", "configs/policy.toml", policy]);
    assert_eq!(code, 1);
    insta::assert_snapshot!("diff", text);
}

#[test]
fn formats_are_what_they_say() {
    let file = "integration/manifests/hostile.yaml";
    let parse = |arguments: &[&str]| -> serde_json::Value { serde_json::from_str(&hardenctl(arguments).1).unwrap() };
    let json = parse(&["check", "--json", file]);
    assert!(json[0]["containers"][1]["violations"][0]["advice"].is_string());
    let sarif = parse(&["check", "--format", "sarif", file]);
    assert!(sarif["runs"][0]["results"].as_array().unwrap().len() > 30);
    assert!(parse(&["explain", "--json", file]).as_array().unwrap().len() > 50);
    assert!(parse(&["doctor", "--json"]).as_array().unwrap().len() > 8);
    assert!(parse(&["policy", "show", "--json"])["baseline"]["allows"]["Landlock"] == "yes");
    let labels = hardenctl(&["doctor", "--labels"]).1;
    assert!(labels.contains("io.containerd.hardened.v1/landlock-abi="), "{labels}");
    for shell in ["bash", "zsh", "fish"] {
        assert!(hardenctl(&["completion", shell]).1.contains("hardenctl"));
    }
    let dir = tempfile::tempdir().unwrap();
    hardenctl(&["man", dir.path().to_str().unwrap()]);
    assert!(dir.path().join("hardenctl-check.1").exists());
}

/// `hardenctl policy schema > configs/policy.schema.json` brings it up to date.
#[test]
fn the_shipped_schema_is_that_of_the_code() {
    let shipped = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../configs/policy.schema.json"));
    assert_eq!(shipped.unwrap(), hardenctl(&["policy", "schema"]).1);
}

#[test]
fn bad_input_is_answered_with_what_and_where() {
    let dir = tempfile::tempdir().unwrap();
    let mut table = String::new();
    for (what, text) in [
        ("empty", ""),
        ("no YAML", "a: [1\n"),
        ("no manifest", "a: 1\n"),
        ("no spec", "kind: Pod\nmetadata: {name: x}\n"),
        ("an unknown field", "kind: Pod\nspec: {containers: [{name: a, securityContex: {}}]}\n"),
        ("a wrong type", "kind: Pod\nspec: {hostNetwork: 'yes', containers: []}\n"),
        ("a template without a spec", "kind: Deployment\nspec: {template: {}}\n"),
        ("a broken OCI spec", "{\"ociVersion\": 1}"),
        ("the second document", "kind: ConfigMap\n---\nkind: Pod\n"),
    ] {
        let file = dir.path().join("x.yaml");
        std::fs::write(&file, text).unwrap();
        let (code, _, error) = hardenctl(&["check", file.to_str().unwrap()]);
        assert_eq!(code, 2, "{what}");
        table.push_str(&format!("{what}\n  {}", error.replace(dir.path().to_str().unwrap(), "")));
    }
    for arguments in [
        &["check", "/nowhere.yaml"][..],
        &["policy", "lint", "/nowhere"],
        &["policy", "show", "nobody"],
        &["check", "--policy", "integration/manifests/good.yaml", "integration/manifests/good.yaml"],
        &["fly"],
    ] {
        let (code, _, error) = hardenctl(arguments);
        assert_eq!(code, 2, "{arguments:?}");
        table.push_str(&format!("{arguments:?}\n  {error}"));
    }
    insta::assert_snapshot!("bad-input", table);
}
