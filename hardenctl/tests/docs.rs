//! Every command of the documentation that can be run here is run.
#![allow(clippy::unwrap_used, reason = "helpers of tests, which clippy does not take for tests")]

use std::path::Path;
use std::process::Command;

/// Lines of the `sh` blocks of a page.
fn commands(page: &str) -> Vec<String> {
    let blocks = page.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default());
    blocks.flat_map(str::lines).map(str::to_owned).collect()
}

#[test]
fn every_command_of_the_documentation_works() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut run = 0;
    for entry in std::fs::read_dir(root.join("docs")).unwrap() {
        let path = entry.unwrap().path();
        for line in commands(&std::fs::read_to_string(&path).unwrap()) {
            let words: Vec<&str> = line.split_whitespace().collect();
            assert_eq!(words.first(), Some(&"hardenctl"), "{}: {line}", path.display());
            // What changes a node is run by the tests of a node's files.
            if ["install", "uninstall", "status"].contains(&words[1]) {
                continue;
            }
            let mut command = Command::new(env!("CARGO_BIN_EXE_hardenctl"));
            let out = command.args(&words[1..]).current_dir(&root).output().unwrap();
            // 1 says that something is refused, differs or is missing here; 2 that it cannot be answered.
            assert!(out.status.code() < Some(2), "{line}: {}", String::from_utf8_lossy(&out.stderr));
            assert!(!out.stdout.is_empty(), "{line}");
            run += 1;
        }
    }
    assert!(run >= 12, "{run} commands");
}

#[test]
fn every_link_between_pages_leads_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let pages = ["README.md", "ARCHITECTURE.md", "SECURITY.md", "CONTRIBUTING.md"].map(|name| root.join(name));
    let docs = std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    for page in pages.into_iter().chain(docs) {
        let text = std::fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let to = page.parent().unwrap().join(file);
            let there = std::fs::read_to_string(&to).unwrap_or_default();
            let mut names =
                there.lines().map(|line| line.trim_start_matches(['#', ' ']).to_lowercase().replace(' ', "-"));
            let found = if heading.is_empty() { to.exists() } else { names.any(|name| name == heading) };
            assert!(found, "{}: {link}", page.display());
        }
    }
}

#[test]
fn the_table_of_kernel_features_is_the_codes_own() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../SECURITY.md")).unwrap();
    let out = Command::new(env!("CARGO_BIN_EXE_hardenctl")).args(["doctor", "--features"]).output().unwrap();
    let table = String::from_utf8(out.stdout).unwrap();
    assert!(table.lines().count() > 10 && page.contains(&table), "SECURITY.md should have this table:\n{table}");
}
