//! The documentation: its commands run, its links lead somewhere, and its table of contents is whole.
#![allow(clippy::unwrap_used, reason = "helpers of tests, which clippy does not take for tests")]

use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Files below a folder whose names end so, sorted.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Every page of the book, its table of contents too.
fn book() -> Vec<PathBuf> {
    files(&root().join("docs"), "md")
}

/// Every page: the book, and those beside the code.
fn pages() -> Vec<PathBuf> {
    let beside = ["README.md", "ARCHITECTURE.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md"];
    beside.iter().map(|name| root().join(name)).chain(book()).collect()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display())).unwrap()
}

/// Lines of the `sh` blocks of a page.
fn commands(page: &str) -> Vec<String> {
    let blocks = page.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default());
    blocks.flat_map(str::lines).map(str::to_owned).collect()
}

/// Targets of a page's links and pictures.
fn links(page: &str) -> Vec<&str> {
    page.split("](").skip(1).filter_map(|rest| rest.split(')').next()).collect()
}

/// The name by which a link knows a heading: as forges make it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim_start_matches(['#', ' ']).chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

#[test]
fn every_command_of_the_documentation_works() {
    let mut run = 0;
    for path in book() {
        for line in commands(&read(&path)) {
            let words: Vec<&str> = line.split_whitespace().collect();
            assert_eq!(words.first(), Some(&"hardenctl"), "{}: {line}", path.display());
            // What changes a node is run by the tests of a node's files.
            if ["install", "uninstall", "status"].contains(&words[1]) {
                continue;
            }
            let mut command = Command::new(env!("CARGO_BIN_EXE_hardenctl"));
            let out = command.args(&words[1..]).current_dir(root()).output().unwrap();
            // 1 says that something is refused, differs or is missing here; 2 that it cannot be answered.
            assert!(out.status.code() < Some(2), "{line}: {}", String::from_utf8_lossy(&out.stderr));
            assert!(!out.stdout.is_empty(), "{line}");
            run += 1;
        }
    }
    assert!(run >= 20, "{run} commands");
}

#[test]
fn every_link_between_pages_leads_somewhere() {
    for page in pages() {
        let text = read(&page);
        for link in links(&text) {
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let to = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            let found = if heading.is_empty() {
                to.exists()
            } else {
                read(&to).lines().filter(|line| line.starts_with('#')).any(|line| anchor(line) == heading)
            };
            assert!(found, "{}: {link}", page.display());
        }
    }
}

#[test]
fn the_table_of_contents_lists_every_page_once() {
    let docs = root().join("docs");
    let summary = docs.join("SUMMARY.md");
    let text = read(&summary);
    let mut listed: Vec<PathBuf> = links(&text).into_iter().map(|link| docs.join(link)).collect();
    listed.sort();
    let pages: Vec<PathBuf> = book().into_iter().filter(|page| *page != summary).collect();
    assert_eq!(listed, pages);
    for line in text.lines().filter(|line| line.contains("](")) {
        let title = line.split_once('[').and_then(|(_, rest)| rest.split_once("](")).unwrap().0;
        assert!(!title.is_empty(), "{line}");
    }
}

#[test]
fn every_decision_has_its_three_parts_and_a_link() {
    let decisions = root().join("docs/decisions");
    let index = read(&decisions.join("README.md"));
    let architecture = read(&root().join("ARCHITECTURE.md"));
    assert!(architecture.contains("(docs/decisions/README.md)"), "ARCHITECTURE.md should link to the decisions");
    let mut numbers = Vec::new();
    for page in files(&decisions, "md") {
        let name = page.file_name().unwrap().to_str().unwrap();
        if name == "README.md" {
            continue;
        }
        let text = read(&page);
        let headings: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("## ")).collect();
        assert_eq!(headings, ["Context", "Decision", "Consequences"], "{name}");
        assert!(links(&index).contains(&name), "decisions/README.md should list {name}");
        numbers.push(name.split('-').next().unwrap().parse::<usize>().unwrap());
    }
    assert_eq!(numbers, (1..=numbers.len()).collect::<Vec<_>>());
}

#[test]
fn every_picture_is_shown_and_brings_its_background() {
    let text: String = pages().iter().map(|page| read(page)).collect();
    let pictures = files(&root().join("docs/pictures"), "svg");
    assert!(!pictures.is_empty());
    for picture in pictures {
        let name = picture.file_name().unwrap().to_str().unwrap();
        assert!(text.contains(&format!("pictures/{name})")), "no page shows {name}");
        // On a dark page, too, dark text must be readable.
        assert!(read(&picture).contains("<rect class=\"background\" width=\"100%\" height=\"100%\""), "{name}");
    }
}

#[test]
fn the_table_of_kernel_features_is_the_codes_own() {
    let page = read(&root().join("SECURITY.md"));
    let out = Command::new(env!("CARGO_BIN_EXE_hardenctl")).args(["doctor", "--features"]).output().unwrap();
    let table = String::from_utf8(out.stdout).unwrap();
    assert!(table.lines().count() > 10 && page.contains(&table), "SECURITY.md should have this table:\n{table}");
}
