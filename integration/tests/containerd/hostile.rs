//! A thousand hostile images and pods, from seeds.
//!
//! `HARDENED_HOSTILE_CASES` says how many (0: without end), `HARDENED_HOSTILE_SEED` where to begin,
//! `HARDENED_HOSTILE_FAILURES` how many are enough, `HARDENED_HOSTILE_LIMIT` after how many seconds a
//! case hangs.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, ensure};
use hardened_integration::hostile::{Case, Range, class, generate};
use hardened_integration::{Containerd, repository};

crate::tests!(no_image_and_no_pod_changes_the_host);

/// How many are found before it is enough: each hanging one takes half a minute.
const MOST_FAILURES: u64 = 8;

fn setting(name: &str, default: u64) -> Result<u64> {
    match std::env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name}={text}: expected a number")),
        Err(_) => Ok(default),
    }
}

/// What once found a hole.
fn known() -> Result<Vec<Case>> {
    let file = repository().join("integration/hostile-seeds.txt");
    let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    // No case has this in it.
    let lines = text.lines().map(|line| line.split(" # ").next().unwrap_or_default().trim());
    lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| match line.parse::<u64>() {
            Ok(seed) => Ok(generate(seed)),
            Err(_) => line.parse().with_context(|| format!("{}: {line}", file.display())),
        })
        .collect()
}

fn no_image_and_no_pod_changes_the_host(c: &Containerd) -> Result<()> {
    let cases = setting("HARDENED_HOSTILE_CASES", 1000)?;
    let first = setting("HARDENED_HOSTILE_SEED", 1)?;
    let last = if cases == 0 { u64::MAX } else { first + cases };
    // Other tests run meanwhile.
    let own = Containerd::start_beside(c)?;
    let mut range = Range::open(&own)?;
    let (mut table, mut failures) = (BTreeMap::<String, (u64, u64)>::new(), Vec::new());
    let (mut started, mut refused) = (0, 0);
    for case in known()?.into_iter().chain((first..last).map(generate)) {
        let outcome = range.run(&case).with_context(|| format!("seed {}: {case}", case.seed))?;
        let row =
            outcome.refused.as_deref().map_or_else(|| "started".to_owned(), |why| format!("refused: {}", class(why)));
        table.entry(row).or_insert((0, case.seed)).0 += 1;
        *if outcome.refused.is_some() { &mut refused } else { &mut started } += 1;
        if let Some(exec) = &outcome.exec {
            let row =
                exec.as_deref().map_or_else(|| "exec: started".to_owned(), |e| format!("exec refused: {}", class(e)));
            table.entry(row).or_insert((0, case.seed)).0 += 1;
        }
        if !outcome.harm.is_empty() {
            eprintln!("seed {}: {case}\n    {}", case.seed, outcome.harm.join("\n    "));
            failures.push(case.seed);
        }
        if u64::try_from(failures.len())? >= setting("HARDENED_HOSTILE_FAILURES", MOST_FAILURES)? {
            break;
        }
    }
    range.close()?;
    let mut rows: Vec<_> = table.iter().collect();
    rows.sort_by_key(|(_, (count, _))| std::cmp::Reverse(*count));
    rows.iter().for_each(|(row, (count, seed))| eprintln!("{count:6} {row} (seed {seed})"));
    ensure!(failures.is_empty(), "{} cases changed the host or hung: seeds {failures:?}", failures.len());
    // Neither all of one kind, nor all of the other, would say much.
    if cases >= 100 {
        ensure!(started * 5 >= cases, "only {started} of {cases} started");
        ensure!(refused * 10 >= cases, "only {refused} of {cases} were refused");
    }
    Ok(())
}
