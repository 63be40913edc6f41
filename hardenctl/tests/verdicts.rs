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
        let (found, text, error) = hardenctl(&["check", "--policy", "configs/policy.toml", &file]);
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
fn a_pod_has_the_handler_of_its_runtime_class() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let policy = at("policy.toml", "[[rule]]\nhandler = \"strict\"\nprofile = \"restricted\"\n");
    let class = at("class.yaml", "kind: RuntimeClass\nmetadata: {name: secure}\nhandler: strict\n");
    let pod = |class: &str| {
        let spec = format!("{{runtimeClassName: {class}, containers: [{{name: web, image: x}}]}}");
        at(&format!("{class}.yaml"), &format!("kind: Pod\nmetadata: {{name: {class}}}\nspec: {spec}\n"))
    };
    for (files, profile) in [
        (vec![pod("strict")], "restricted"),
        (vec![pod("secure")], "baseline"),
        (vec![pod("secure"), class.clone()], "restricted"),
        (vec![class, pod("hardened")], "baseline"),
    ] {
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        let (code, text, error) = hardenctl(&[&["check", "--policy", &policy], files.as_slice()].concat());
        assert_eq!(code, 0, "{error}");
        assert!(text.contains(&format!("profile {profile} (built in)")), "{files:?}: {text}");
    }
    let (_, text, _) = hardenctl(&["explain", "--policy", &policy, &pod("strict")]);
    assert!(text.contains("profile restricted"), "{text}");
}

#[test]
fn what_matters_is_explained_and_all_of_it_on_demand() {
    let explain = |arguments: &[&str]| {
        let file = "runtimeclass/samples/allowed.yaml";
        let policy = ["--policy", "configs/policy-example.toml", "--namespace", "shop"];
        let (code, text, error) = hardenctl(&[&["explain"], &policy[..], arguments, &[file]].concat());
        assert_eq!(code, 0, "{error}");
        text
    };
    insta::assert_snapshot!("explain", explain(&[]));
    let all = explain(&["--all"]);
    assert!(all.contains("sandbox (pause)") && all.contains("limits  ") && !all.contains("--all"), "{all}");
    // The sample's root file system is read-only as a whole.
    let (_, folders, _) = hardenctl(&["explain", "--all", "runtimeclass/samples/tightened.yaml"]);
    assert!(folders.contains("/usr itself") && !all.contains("/usr itself"), "{folders}");
    // Programs get all of it in any case.
    assert_eq!(explain(&["--json"]), explain(&["--json", "--all"]));
    let profiles = |arguments: &[&str]| hardenctl(&[&["policy", "show"], arguments].concat()).1;
    assert!(!profiles(&[]).contains("\npause") && profiles(&["--all"]).contains("\npause"));
    assert!(profiles(&["pause"]).starts_with("pause"));
    let check =
        |arguments: &[&str]| hardenctl(&[&["check", "runtimeclass/samples/allowed.yaml"], arguments].concat()).1;
    assert!(!check(&[]).contains("pause") && check(&["--all"]).contains("admitted sandbox (pause)"));
    for text in [explain(&[]), all, profiles(&["--all"]), check(&["--all"])] {
        assert!(!text.contains('\x1b'), "no colours where no terminal is: {text}");
        // A setting stays in one piece.
        let words = |line: &str| line.split_whitespace().count();
        assert!(text.lines().all(|line| line.chars().count() <= 100 || words(line) < 4), "{text}");
    }
}

#[test]
fn a_warning_is_in_every_format_and_refuses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pod.yaml");
    let spec = "{containers: [{name: web, image: x, command: [strace, ls]}]}";
    std::fs::write(&file, format!("kind: Pod\nmetadata: {{name: pod}}\nspec: {spec}\n")).unwrap();
    let check = |format| {
        let (code, text, error) = hardenctl(&["check", "--format", format, file.to_str().unwrap()]);
        assert_eq!(code, 0, "{error}");
        text
    };
    let (what, how) =
        ("spec.containers[web].command: runs strace: ptrace is denied", "capabilities.add = [\"SYS_PTRACE\"]");
    let text = check("text");
    assert!(text.contains(&format!("may break {what}")) && text.contains(how), "{text}");
    let json: serde_json::Value = serde_json::from_str(&check("json")).unwrap();
    let warning = json[0]["containers"][1]["warnings"][0].as_str().unwrap();
    assert!(warning.starts_with(what) && warning.contains(how), "{warning}");
    let sarif: serde_json::Value = serde_json::from_str(&check("sarif")).unwrap();
    let results = sarif["runs"][0]["results"].as_array().unwrap();
    let of_rule = |rule: &str| results.iter().find(|result| result["ruleId"] == rule).unwrap();
    assert_eq!(of_rule("may-break")["level"], "warning");
    assert!(of_rule("may-break")["message"]["text"].as_str().unwrap().ends_with(warning));
    assert_eq!(of_rule("tightened")["level"], "note");
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
    assert!(shipped.unwrap() == hardenctl(&["policy", "schema"]).1, "configs/policy.schema.json is not up to date");
}

/// `hardenctl events --schema > configs/record.schema.json` brings it up to date.
#[test]
fn the_shipped_schema_of_records_is_that_of_the_code() {
    let shipped = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../configs/record.schema.json"));
    assert!(shipped.unwrap() == hardenctl(&["events", "--schema"]).1, "configs/record.schema.json is not up to date");
}

/// A weight that is changed, or a profile that gives more, shows up in a diff.
/// What is skipped is reported: `--follow` and the agent read by the same code.
#[test]
fn lines_that_are_no_records_are_told_of() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("ns@a.jsonl"), "no record\n{\"Version\":7}\n").unwrap();
    for command in ["events", "top"] {
        let (_, _, error) = hardenctl(&[command, "--events", folder.path().to_str().unwrap()]);
        assert!(
            error.contains("ns@a.jsonl: skipped 2 lines that are not records of this version"),
            "{command}: {error}"
        );
    }
}

#[test]
fn scores_are_told_with_what_adds_to_them() {
    let score = |arguments: &[&str]| {
        let (code, out, error) =
            hardenctl(&[&["score", "--policy", "configs/policy-example.toml"], arguments].concat());
        assert_eq!(code, 0, "{error}");
        out
    };
    insta::assert_snapshot!("scores", score(&[]) + &score(&["compatible"]) + &score(&["restricted"]));
    let json: serde_json::Value =
        serde_json::from_str(&score(&["--json", "integration/manifests/hostile.yaml"])).unwrap();
    let all = json.as_array().unwrap();
    assert!(all.len() > 20 && all.iter().any(|scored| scored["rating"] == "refused" && scored["score"].is_null()));
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
        ("a class without a handler", "kind: RuntimeClass\n"),
        ("the second document", "kind: ConfigMap\n---\nkind: Pod\n"),
    ] {
        let file = dir.path().join("x.yaml");
        std::fs::write(&file, text).unwrap();
        let (code, _, error) = hardenctl(&["check", file.to_str().unwrap()]);
        assert_eq!(code, 2, "{what}");
        table.push_str(&format!("{what}\n  {}", error.replace(dir.path().to_str().unwrap(), "")));
    }
    let good = "integration/manifests/good.yaml";
    let root = dir.path().to_str().unwrap();
    let record = dir.path().join("var/lib/hardened/install.json");
    std::fs::create_dir_all(record.parent().unwrap()).unwrap();
    std::fs::write(record, "x").unwrap();
    for arguments in [
        &["fly"][..],
        &["check"],
        &["check", "/nowhere.yaml"],
        &["check", "--format", "xml", good],
        &["check", "--namespace", "A B", good],
        &["check", "--policy", "/nowhere", good],
        &["check", "--policy", good, good],
        &["explain"],
        &["explain", "--container", "nobody"],
        &["explain", "--container", "x", good],
        &["explain", "--namespace", "-", good],
        &["events", "--namespace", "A B"],
        &["events", "--events", "/etc/passwd"],
        &["events", "--schema", "pod"],
        &["why"],
        &["why", "nobody", "--write", "/x"],
        &["why", "pod", "--write", "x"],
        &["why", "pod", "--write", "/x/../y"],
        &["why", "pod", "--connect", "70000"],
        &["top", "pod"],
        &["score", "nobody"],
        &["policy", "lint", "/nowhere"],
        &["policy", "show", "nobody"],
        &["policy", "diff", "configs/policy.toml"],
        &["policy", "diff", "configs/policy.toml", "/nowhere"],
        &["policy", "explain", "--handler", "a.b"],
        &["policy", "explain", "--namespace", ""],
        &["doctor", "--json", "--labels"],
        &["doctor", "--policy", "/nowhere"],
        &["install", "--root", "/nowhere"],
        &["install", "--shim", "/nowhere"],
        &["install", "--shim", "/bin/true", "--containerd-config", "/nowhere/c", "--containerd", "/nowhere"],
        &["install", "--shim", "/bin/true", "--containerd-config", "/nowhere/c", "--containerd", "/bin/false"],
        &["install", "--shim", "/bin/true", "--containerd-config", "/nowhere/c", "--containerd", "/bin/echo"],
        &["install", "--handler", "Strict"],
        &["install", "--restart-command", "true"],
        &["status", "--containerd-config", "/"],
        &["status", "--root", root],
        &["uninstall", "--root", root],
        &["completion", "tcsh"],
        &["man", "/proc/nowhere"],
    ] {
        let (code, _, error) = hardenctl(arguments);
        assert_eq!(code, 2, "{arguments:?}: {error}");
        let text = format!("{arguments:?}\n{error}").replace(root, "");
        // What clap says of all of them.
        let said = text.lines().filter(|line| !line.is_empty() && !line.starts_with("For more information"));
        table.push_str(&said.map(|line| format!("{line}\n")).collect::<String>());
    }
    insta::assert_snapshot!("bad-input", table);
}

#[test]
fn nothing_of_a_manifest_reaches_the_terminal_raw() {
    let hostile = "apiVersion: v1\nkind: Pod\nmetadata: {name: \"p\\e[2J\"}\nspec:\n  containers:\n  - name: \"web\\e[8m\"\n    \
                   image: x\n    workingDir: \"/usr/bin/\\e[2J\\n  admitted forged\"\n    \
                   volumeMounts: [{name: v, mountPath: \"/proc/\\e]0;x\\a\"}]\n";
    let dir = tempfile::tempdir().unwrap();
    let [refused, admitted] = ["refused.yaml", "admitted.yaml"].map(|name| dir.path().join(name));
    std::fs::write(&refused, format!("{hostile}  volumes: [{{name: v, emptyDir: {{}}}}]\n")).unwrap();
    std::fs::write(&admitted, hostile.lines().take(8).collect::<Vec<_>>().join("\n")).unwrap();
    for (file, code) in [(refused, 1), (admitted, 0)] {
        for command in ["check", "explain"] {
            let mut hardenctl = Command::new(env!("CARGO_BIN_EXE_hardenctl"));
            // As on a terminal: colours are kept, and so would be all else.
            let out = hardenctl.args([command]).arg(&file).env("CLICOLOR_FORCE", "1").output().unwrap();
            let text = String::from_utf8(out.stdout).unwrap();
            assert_eq!(out.status.code(), Some(code), "{text}{}", String::from_utf8_lossy(&out.stderr));
            let ours = ["\x1b[1;31m", "\x1b[32m", "\x1b[33m", "\x1b[1m", "\x1b[2m", "\x1b[0m"];
            let rest = ours.iter().fold(text.clone(), |text, style| text.replace(style, ""));
            assert_ne!(rest, text, "nothing is coloured");
            assert!(!rest.chars().any(|c| c.is_control() && c != '\n'), "{rest:?}");
            // A long text goes on further in than a verdict begins.
            assert!(!rest.lines().any(|line| line.starts_with("  admitted forged")), "{rest}");
            assert!(rest.contains("\\u{1b}"), "{rest}");
        }
    }
}

#[test]
fn what_a_filter_lets_through_is_proved_or_shown() {
    let (code, text, error) = hardenctl(&["policy", "prove", "configs/policy-example.toml", "web"]);
    assert_eq!(code, 0, "{text}{error}");
    insta::assert_snapshot!("proofs", text);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("loose.toml");
    std::fs::write(
        &path,
        "[profile.loose]\nextends = \"baseline\"\nseccomp.allow = [\"unshare\", \"ioctl\", \"socket\"]\n",
    )
    .unwrap();
    let file = path.to_str().unwrap();
    let (code, json, error) = hardenctl(&["policy", "prove", "--json", file, "loose"]);
    assert_eq!(code, 1, "{json}{error}");
    let report: serde_json::Value = serde_json::from_str(&json).unwrap();
    let shown = |claim: usize| {
        let claim = &report[0]["claims"][claim];
        let texts = claim["counterexamples"].as_array().unwrap().iter().map(|found| {
            assert_eq!(claim["proved"], false, "{claim}");
            format!("{} {}", found["arch"].as_str().unwrap(), found["text"].as_str().unwrap())
        });
        texts.collect::<Vec<_>>()
    };
    assert!(shown(0).is_empty() && shown(1).is_empty(), "{json}");
    for (claim, call) in [(2, "unshare(0x"), (3, "ioctl("), (4, "socket("), (6, "")] {
        let [x86_64, aarch64] = shown(claim).try_into().unwrap();
        assert!(x86_64.starts_with(&format!("x86_64 {call}")) && x86_64.ends_with(" is allowed"), "{x86_64}");
        assert!(aarch64.starts_with(&format!("aarch64 {call}")) && aarch64.ends_with(" is allowed"), "{aarch64}");
    }
    let (code, text, _) = hardenctl(&["policy", "prove", file, "loose"]);
    assert_eq!(code, 1);
    assert!(text.contains("  refuted  no call types into a terminal (TIOCSTI, TIOCLINUX)\n"), "{text}");
    assert!(text.contains("\n           x86_64: ioctl("), "{text}");
    assert!(text.ends_with("4 claims proved for every call on x86_64 and aarch64, 4 refuted\n"), "{text}");
    // Nothing is claimed where nothing can be proved.
    let mut command = Command::new(env!("CARGO_BIN_EXE_hardenctl"));
    let out = command.args(["policy", "prove", file]).env("PATH", dir.path()).output().unwrap();
    let error = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(2), "{error}");
    assert!(out.stdout.is_empty() && error.contains("apt-get install z3"), "{error}");
}
