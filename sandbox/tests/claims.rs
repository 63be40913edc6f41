//! The claims of SECURITY.md: each names a test that stands behind it, and each of these tests exists.
#![allow(clippy::disallowed_methods, reason = "reads the sources, as a test; what decides reads nothing")]
#![allow(clippy::unwrap_used, reason = "helpers of tests, which clippy does not take for tests")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Folders whose tests count, from the workspace's.
const FOLDERS: [&str; 4] = ["sandbox", "shim", "hardenctl", "integration"];

/// Tables of which each row is a claim, by the first cells of their heads.
const TABLES: [&str; 3] = ["| layer |", "| it |", "| CVE |"];

/// The section whose list is of claims.
const LIST: &str = "### Denied calls are reported";

/// The sections that are one claim.
const SECTIONS: [&str; 3] = ["### AppArmor", "### SELinux", "### User namespaces"];

/// Names in the page that are no tests.
const OTHER_NAMES: [&str; 4] = ["container_engine_t", "container_init_t", "container_kvm_t", "name_to_handle_at"];

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn page() -> String {
    fs::read_to_string(workspace().join("SECURITY.md")).unwrap()
}

/// What is written as code, and has the form of a test's name: three words or more.
fn names(text: &str) -> impl Iterator<Item = &str> {
    let is_name = |code: &&str| {
        code.matches('_').count() >= 2
            && code.starts_with(|c: char| c.is_ascii_lowercase())
            && code.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '…'))
            && !OTHER_NAMES.contains(code)
    };
    text.split('`').skip(1).step_by(2).filter(is_name)
}

/// The tests of a file: functions with the attribute, and names in the lists that the integration tests keep.
fn tests_of(source: &str, tests: &mut BTreeSet<String>) {
    let mut is_test = false;
    for line in source.lines().map(str::trim) {
        let function = line.split_once("fn ").and_then(|(_, rest)| rest.split('(').next());
        match function {
            Some(name) if is_test => drop(tests.insert(name.to_owned())),
            Some(_) | None => {}
        }
        is_test = line == "#[test]" || is_test && (line.starts_with('#') || line.starts_with("//"));
    }
    for list in ["tests!(", "pod_tests!(", "TESTS: &["] {
        for rest in source.split(list).skip(1) {
            let listed = rest.split_once(';').map_or(rest, |(listed, _)| listed);
            let names = listed.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            tests.extend(names.filter(|name| !name.is_empty()).map(str::to_owned));
        }
    }
}

fn read(folder: &Path, tests: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target") {
                read(&path, tests);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            tests_of(&fs::read_to_string(&path).unwrap(), tests);
        }
    }
}

/// The claims of the page, each with the text in which a test has to be named.
fn claims(page: &str) -> Vec<(String, String)> {
    let mut claims = Vec::new();
    let (mut in_table, mut in_list, mut in_section) = (false, false, false);
    for line in page.lines() {
        if line.starts_with('#') {
            in_list = line == LIST;
            in_section = SECTIONS.contains(&line);
            if in_section {
                claims.push((line.to_owned(), String::new()));
            }
        }
        if line.starts_with('|') {
            in_table |= TABLES.iter().any(|table| line.starts_with(table));
        } else {
            in_table = false;
        }
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let is_head = TABLES.iter().any(|table| line.starts_with(table)) || line.starts_with("|---");
        if in_table && !is_head {
            claims.push((cells[0].to_owned(), cells[cells.len() - 1].to_owned()));
        } else if in_list && line.starts_with("- ") {
            claims.push((line.to_owned(), line.to_owned()));
        } else if (in_section || in_list && line.starts_with("  "))
            && let Some((_, text)) = claims.last_mut()
        {
            text.push_str(line);
        }
    }
    claims
}

#[test]
fn each_claim_names_a_test_and_each_test_that_is_named_exists() {
    let mut tests = BTreeSet::new();
    for folder in FOLDERS {
        read(&workspace().join(folder), &mut tests);
    }
    assert!(tests.len() > 400, "{} tests", tests.len());
    let page = page();
    let unknown: Vec<&str> = names(&page).filter(|name| !tests.contains(*name)).collect();
    assert!(unknown.is_empty(), "SECURITY.md names tests that do not exist: {unknown:?}");
    let claims = claims(&page);
    assert!(claims.len() > 50, "{} claims", claims.len());
    let bare = |(_, text): &&(String, String)| names(text).next().is_none() && !text.contains("(Not tested: ");
    let bare: Vec<&String> = claims.iter().filter(bare).map(|(claim, _)| claim).collect();
    assert!(bare.is_empty(), "claims of SECURITY.md that name no test: {bare:#?}");
}

#[test]
fn a_claim_without_a_test_and_a_test_that_is_gone_are_found() {
    let page = "| layer | closes | proved by |\n|---|---|---|\n| one | a_b_c | `a_test_of_it` |\n| two | `a_test_of_it` | same |\n\n\
                ### Denied calls are reported\n\n- three\n  `a_test_that_is_gone`\n- four\n\n### Else\n\n- five\n\n\
                ### SELinux\n\nIs on.\nProved by `a_test_of_it`.\n";
    let found: Vec<(String, Option<String>)> =
        claims(page).into_iter().map(|(claim, text)| (claim, names(&text).next().map(str::to_owned))).collect();
    let expected = [
        ("one", Some("a_test_of_it")),
        ("two", None),
        ("- three", Some("a_test_that_is_gone")),
        ("- four", None),
        ("### SELinux", Some("a_test_of_it")),
    ];
    assert_eq!(found, expected.map(|(claim, name)| (claim.to_owned(), name.map(str::to_owned))));
    let mut tests = BTreeSet::new();
    tests_of(
        "#[test]\n#[ignore]\n// why\nfn a_test_of_it() {}\nfn no_test_of_it() {}\ncrate::tests!(one_of_a_list,);",
        &mut tests,
    );
    let tests: Vec<&str> = tests.iter().map(String::as_str).collect();
    assert_eq!(tests, ["a_test_of_it", "one_of_a_list"]);
}
