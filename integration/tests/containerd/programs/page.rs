//! `docs/programs.md`: a row a program, written by the trial that ran it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use hardened_integration::repository;

const HEAD: &str = "\
# Programs

What real programs do under `baseline` and `restricted`: Debian 13's packages, unmodified, each started as its usual
image starts it, and asked one request. `integration/tests/containerd/programs.rs` makes each row from what it saw, and
fails if the row here is another one.

- **restricted** is as a user (`www-data`, where no other is named), with a read-only root file system and a tmpfs at
  `/tmp`.
- A line of policy is what the node's profile must grant. [migration.md](migration.md) says what each gives.
- Versions are those of the run that last wrote the row.

| program | version | started | request | baseline | restricted |
|---|---|---|---|---|---|
";

/// Trials write their rows one after another.
static WRITING: Mutex<()> = Mutex::new(());

/// Cells of a row but for the program's name and version.
pub(super) type Cells = [String; 4];

/// The page as it is: rows by the program's name.
struct Page {
    rows: BTreeMap<String, String>,
}

fn path() -> PathBuf {
    repository().join("docs/programs.md")
}

/// Whether rows are written rather than compared.
fn updates() -> bool {
    std::env::var("HARDENED_UPDATE").is_ok_and(|what| what == "docs")
}

impl Page {
    fn read() -> Result<Self> {
        let text = std::fs::read_to_string(path()).context("docs/programs.md")?;
        let rows = text.lines().filter_map(|line| Some((line.strip_prefix("| ")?.split(" |").next()?, line)));
        Ok(Self { rows: rows.skip(1).map(|(name, line)| (name.to_owned(), line.to_owned())).collect() })
    }

    fn text(&self) -> String {
        let rows: Vec<&str> = self.rows.values().map(String::as_str).collect();
        format!("{HEAD}{}\n", rows.join("\n"))
    }

    fn version(&self, name: &str) -> &str {
        self.rows.get(name).and_then(|row| row.split(" | ").nth(1)).unwrap_or_default()
    }
}

fn row(name: &str, version: &str, cells: &Cells) -> String {
    format!("| {name} | {version} | {} |", cells.join(" | "))
}

/// Compares a program's row with the page's, or writes it there. Versions change with each point
/// release: they are not compared.
pub(super) fn has(name: &str, version: impl FnOnce() -> Result<String>, cells: &Cells) -> Result<()> {
    let _writing = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
    let mut page = Page::read()?;
    if updates() {
        page.rows.insert(name.to_owned(), row(name, &version()?, cells));
        return std::fs::write(path(), page.text()).context("docs/programs.md");
    }
    let seen = row(name, page.version(name), cells);
    ensure!(
        page.rows.get(name) == Some(&seen),
        "docs/programs.md should have this row (HARDENED_UPDATE=docs writes it):\n{seen}"
    );
    Ok(())
}

/// The page has its head, and rows of these programs and no others.
pub(super) fn lists(names: &[&str]) -> Result<()> {
    let _writing = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
    let mut page = Page::read()?;
    if updates() {
        page.rows.retain(|name, _| names.contains(&name.as_str()));
        return std::fs::write(path(), page.text()).context("docs/programs.md");
    }
    let listed: Vec<&str> = page.rows.keys().map(String::as_str).collect();
    let mut names = names.to_owned();
    names.sort_unstable();
    ensure!(listed == names, "docs/programs.md has {listed:?}, and not {names:?}");
    ensure!(std::fs::read_to_string(path())? == page.text(), "docs/programs.md has another head: HARDENED_UPDATE=docs");
    Ok(())
}
