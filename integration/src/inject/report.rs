//! What came of every disturbed call: a line each in a file, and a table by process and call for docs/.

use std::collections::{BTreeMap, BTreeSet};

use super::campaign::{ERRNOS, Verdict};
use super::follow::{Call, Deed, Phase, Role};
use super::stand::Outcome;

/// A line of tab-separated values: phase, process, call, number, what was done, outcome, arguments, message.
#[must_use]
pub fn line(verdict: &Verdict) -> String {
    let call = &verdict.job.call;
    let deed = match verdict.job.deed {
        Deed::Fail(errno) => name_of(errno).to_owned(),
        Deed::Kill(role) => victim(role).to_owned(),
    };
    let said = match &verdict.outcome {
        Outcome::Refused { request, message } => format!("{request}: {message}"),
        Outcome::Wrong(problem) => problem.clone(),
        Outcome::Ended(status) => format!("status {status}"),
        Outcome::Whole | Outcome::CleanedUp | Outcome::NotReached => String::new(),
    };
    let word = match (verdict.problem(), verdict.job.deed) {
        (Some(_), _) => "WRONG",
        (None, Deed::Fail(_)) if verdict.outcome == Outcome::NotReached => "not made",
        (None, _) => word(&verdict.outcome),
    };
    let launch = launch(call.phase);
    let process = process(call.phase, call.role);
    let fields = [launch, process, call.name, &call.number.to_string(), &deed, word, &verdict.about, &said];
    fields.map(|field| field.replace(char::is_control, " ")).join("\t")
}

impl std::fmt::Display for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { phase, role, name, number } = self;
        write!(f, "{} {} {name} {number}", launch(*phase), process(*phase, *role))
    }
}

/// Column of those that are killed.
#[must_use]
pub fn victim(role: Role) -> &'static str {
    match role {
        Role::Process => "kill init or process",
        Role::Launcher => "kill launcher",
        Role::Intermediate => "kill intermediate",
        Role::Shim | Role::Spawn | Role::Helper => "kill shim",
    }
}

fn name_of(errno: i32) -> &'static str {
    ERRNOS.iter().find(|(number, _)| *number == errno).map_or("another errno", |(_, name)| name)
}

fn launch(phase: Phase) -> &'static str {
    match phase {
        Phase::Create => "create",
        Phase::Exec => "exec",
    }
}

fn process(phase: Phase, role: Role) -> &'static str {
    match role {
        Role::Shim => "shim",
        Role::Spawn => "launcher, before it executes",
        Role::Launcher => "launcher",
        Role::Helper => "helper",
        Role::Intermediate => "intermediate",
        Role::Process if phase == Phase::Create => "init",
        Role::Process => "process",
    }
}

fn word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Refused { .. } => "refused",
        Outcome::Whole => "whole",
        Outcome::Ended(_) => "ended",
        Outcome::CleanedUp => "cleaned up",
        Outcome::NotReached => "nobody there",
        Outcome::Wrong(_) => "WRONG",
    }
}

/// How often each outcome came, by its word.
type Counts = BTreeMap<String, usize>;

/// The table of lines as [`line()`] writes them: a row for each call of a process, a column for each deed.
#[must_use]
pub fn table(lines: &[String], deeds: &[&str]) -> String {
    let mut rows: BTreeMap<[String; 3], BTreeMap<String, Counts>> = BTreeMap::new();
    let mut numbers: BTreeMap<[String; 3], BTreeSet<String>> = BTreeMap::new();
    for line in lines {
        let fields: Vec<&str> = line.split('\t').collect();
        let [launch, process, call, number, deed, word, ..] = fields[..] else { continue };
        let key = [launch, process, call].map(str::to_owned);
        *rows
            .entry(key.clone())
            .or_default()
            .entry(deed.to_owned())
            .or_default()
            .entry(word.to_owned())
            .or_default() += 1;
        numbers.entry(key).or_default().insert(number.to_owned());
    }
    let mut text = format!("| launch | process | call | calls | {} |\n", deeds.join(" | "));
    text.push_str(&format!("|---|---|---|---|{}\n", "---|".repeat(deeds.len())));
    for (key, by_deed) in &rows {
        let [launch, process, call] = key;
        let calls = numbers.get(key).map_or(0, BTreeSet::len);
        let cells: Vec<String> = deeds.iter().map(|deed| by_deed.get(*deed).map_or_else(String::new, cell)).collect();
        text.push_str(&format!("| {launch} | {process} | {call} | {calls} | {} |\n", cells.join(" | ")));
    }
    text
}

fn cell(counts: &Counts) -> String {
    if let [(word, _)] = counts.iter().collect::<Vec<_>>()[..] {
        return word.clone();
    }
    counts.iter().map(|(word, count)| format!("{word} {count}")).collect::<Vec<_>>().join(", ")
}

/// Rows of a limit's values, those that come to the same together.
#[must_use]
pub fn ranges(name: &str, outcomes: &[(u64, Outcome)]) -> String {
    let mut rows: Vec<(u64, u64, &str)> = Vec::new();
    for (value, outcome) in outcomes {
        match rows.last_mut() {
            Some((_, last, of)) if *of == word(outcome) => *last = *value,
            _ => rows.push((*value, *value, word(outcome))),
        }
    }
    let row = |(first, last, word): (u64, u64, &str)| {
        let range = if first == last { first.to_string() } else { format!("{first} to {last}") };
        format!("| {name} | {range} | {word} |\n")
    };
    rows.into_iter().map(row).collect()
}

/// How many lines have each outcome.
#[must_use]
pub fn sum(lines: &[String]) -> String {
    let mut counts = Counts::new();
    for line in lines {
        *counts.entry(line.split('\t').nth(5).unwrap_or_default().to_owned()).or_default() += 1;
    }
    counts.iter().map(|(word, count)| format!("{count} {word}")).collect::<Vec<_>>().join(", ")
}
