//! Disturbs each system call of a create and of an exec: `scripts/inject` runs it.
//!
//! `hardened-inject fail` makes each fail, with each of four errnos; `hardened-inject kill` kills a process after each;
//! `hardened-inject limits` takes resources away. What comes of each call is in `target/inject/fail.tsv` or `kill.tsv`, and
//! in the tables of docs/.
//!
//! `only=EIO` is one errno alone, `every=8` every eighth call alone, and another word a part of `create launcher openat`:
//! then no table is written.

use std::fs::{self, File};
use std::io::Write;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use hardened_integration::inject::{self, Deed, ERRNOS, Job, Stand, VICTIMS, Verdict};
use hardened_integration::{Containerd, Generation, repository};

/// Where docs/fault-injection.md has its tables.
const PAGE: &str = "docs/fault-injection.md";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let option = |name: &str| arguments.iter().find_map(|argument| argument.strip_prefix(name));
    let kind = arguments.first().map(String::as_str).unwrap_or_default();
    let filter = arguments.iter().skip(1).find(|argument| !argument.contains('='));
    let every = option("every=").map_or(Ok(1), str::parse).context("every=: expected a number")?;
    let mut deeds: Vec<(Deed, &str)> = match kind {
        "limits" => return try_limits(filter),
        "fail" => ERRNOS.iter().map(|(errno, name)| (Deed::Fail(*errno), *name)).collect(),
        "kill" => VICTIMS.iter().map(|role| (Deed::Kill(*role), inject::victim(*role))).collect(),
        _ => bail!("usage: hardened-inject fail|kill|limits [FILTER] [only=ERRNO] [every=NUMBER]"),
    };
    deeds.retain(|(_, name)| option("only=").is_none_or(|only| only == *name));
    let c = Containerd::start(Generation::Two)?;
    let config = c.spec(&["true"])?;
    let calls = inject::calls(&c, &config)?;
    let disturbed: Vec<_> = inject::disturbed(&calls).into_iter().step_by(every).collect();
    let mut jobs = Vec::new();
    for (deed, _) in &deeds {
        let wanted = disturbed.iter().filter(|call| filter.is_none_or(|part| call.to_string().contains(part)));
        jobs.extend(wanted.map(|call| Job { call: call.clone(), deed: *deed }));
    }
    ensure!(!jobs.is_empty(), "no such call");
    let workers = std::thread::available_parallelism()?.get();
    let lines = disturb(&c, &config, jobs, workers, kind)?;
    let (sum, wrong) = (inject::sum(&lines), lines.iter().filter(|line| line.contains("\tWRONG\t")).count());
    println!("{sum}");
    if filter.is_none() {
        let names: Vec<&str> = deeds.iter().map(|(_, name)| *name).collect();
        let (ways, part) = (names.len(), if every > 1 { format!(" (one in {every})") } else { String::new() });
        let (all, some) = (calls.len(), disturbed.len());
        let text = format!("{all} calls, of which {some}{part} were disturbed, each in {ways} ways: {sum}.\n\n");
        write_between(kind, &(text + &inject::table(&lines, &names)))?;
    }
    ensure!(wrong == 0, "{wrong} are wrong: see target/inject/{kind}.tsv");
    Ok(())
}

/// Does it, with a line for each in a file, and the progress on standard error.
fn disturb(
    c: &Containerd,
    config: &serde_json::Value,
    jobs: Vec<Job>,
    workers: usize,
    kind: &str,
) -> Result<Vec<String>> {
    let folder = repository().join("target/inject");
    fs::create_dir_all(&folder)?;
    let file = File::create(folder.join(format!("{kind}.tsv")))?;
    let (total, begin) = (jobs.len(), Instant::now());
    let written = Mutex::new((file, Vec::with_capacity(total)));
    let done = |verdict: &Verdict| {
        let line = inject::line(verdict);
        let (file, lines) = &mut *written.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = writeln!(file, "{line}") {
            eprintln!("target/inject/{kind}.tsv: {error}");
        }
        if verdict.problem().is_some() {
            eprintln!("\r\x1b[K{line}");
        }
        lines.push(line);
        if lines.len() % 20 == 0 || verdict.took > Duration::from_secs(5) {
            let left = begin.elapsed().mul_f64((total - lines.len()) as f64 / lines.len() as f64);
            eprint!("\r\x1b[K{} of {total}, {} minutes left ", lines.len(), left.as_secs() / 60 + 1);
        }
    };
    inject::run(c, config, jobs, workers, &done)?;
    eprintln!("\r\x1b[K{total} in {} minutes", begin.elapsed().as_secs() / 60 + 1);
    Ok(written.into_inner().unwrap_or_else(PoisonError::into_inner).1)
}

/// Tries each limit at each of its values; FILTER is a part of its name.
fn try_limits(filter: Option<&String>) -> Result<()> {
    let c = Containerd::start(Generation::Two)?;
    let config = c.spec(&["true"])?;
    let mut stand = Stand::new(&c, config.clone());
    stand.rehearse(inject::Phase::Create)?;
    let (mut table, mut wrong) = ("| what | value | comes to |\n|---|---|---|\n".to_owned(), 0);
    for limit in inject::limits().iter().filter(|limit| filter.is_none_or(|part| limit.name.contains(part))) {
        let outcomes = stand.attempt_all(&config, limit)?;
        for (value, outcome) in &outcomes {
            eprintln!("{limit:?} {value}: {outcome:?}");
            if let Some(problem) = inject::problem(outcome) {
                wrong += 1;
                println!("WRONG: {limit:?} {value}: {problem}");
            }
        }
        table.push_str(&inject::ranges(limit.name, &outcomes));
    }
    print!("{table}");
    if filter.is_none() {
        write_between("limits", &table)?;
    }
    ensure!(wrong == 0, "{wrong} are wrong");
    Ok(())
}

/// Writes something between its marks in the page.
fn write_between(kind: &str, what: &str) -> Result<()> {
    let page = repository().join(PAGE);
    let text = fs::read_to_string(&page)?;
    let (begin, end) = (format!("<!-- inject {kind} -->\n"), format!("<!-- /inject {kind} -->"));
    let (before, rest) = text.split_once(&begin).with_context(|| format!("{PAGE} has no {begin}"))?;
    let (_, after) = rest.split_once(&end).with_context(|| format!("{PAGE} has no {end}"))?;
    Ok(fs::write(page, format!("{before}{begin}{what}{end}{after}"))?)
}
