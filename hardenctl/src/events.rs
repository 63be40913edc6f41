//! `hardenctl events`, `hardenctl why` and `hardenctl top`: what containers were denied.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use hardened_sandbox::record::Record;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use serde::Serialize;

use crate::records::{Reader, Selection, last_of_each, name_of, printable, time, what};
use crate::style::{BAD, BOLD, DIM, GOOD, NOTE, PLAIN};

/// Lists what containers were denied, oldest first.
///
/// A line for the first denial of a kind, the tenth, the hundredth and so on, and for the last. The records of a container
/// are kept when it is gone.
#[derive(Debug, Args)]
pub(crate) struct Events {
    #[command(flatten)]
    selection: Selection,
    /// Waits for what comes.
    #[arg(long, short)]
    follow: bool,
    /// Prints each record as JSON, a line each.
    #[arg(long)]
    json: bool,
    /// A pod, or a container by its id. Default: all.
    pod: Option<String>,
}

/// Tells why a pod was denied something, and what would allow it.
///
/// The newest first. The lines of a policy are TOML, to be copied: NAME stands for a profile of your own, which a rule gives
/// to the pod.
#[derive(Debug, Args)]
pub(crate) struct Why {
    #[command(flatten)]
    selection: Selection,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
    /// A pod, or a container by its id.
    pod: String,
}

/// Lists pods by how much they were denied.
#[derive(Debug, Args)]
pub(crate) struct Top {
    #[command(flatten)]
    selection: Selection,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

impl Events {
    pub(crate) fn run(&self) -> Result<ExitCode> {
        // Watched before it is read: nothing is missed between the two.
        let watch = self.follow.then(|| self.watch()).transpose()?;
        let mut reader = Reader::new(&self.selection.events);
        loop {
            for record in reader.read()? {
                if self.selection.has(&record, self.pod.as_deref()) {
                    self.print(&record)?;
                }
            }
            std::io::stdout().flush().context("write")?;
            match &watch {
                Some(watch) => drop(watch.read_events().context("wait for records")?),
                None => return Ok(ExitCode::SUCCESS),
            }
        }
    }

    fn watch(&self) -> Result<Inotify> {
        let folder = &self.selection.events;
        let show = folder.display();
        std::fs::create_dir_all(folder).with_context(|| format!("make {show}, to watch it"))?;
        let watch = Inotify::init(InitFlags::IN_CLOEXEC).context("watch files")?;
        let flags = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_CREATE;
        watch.add_watch(folder, flags).with_context(|| format!("watch {show}"))?;
        Ok(watch)
    }

    fn print(&self, record: &Record) -> Result<()> {
        if self.json {
            let line = serde_json::to_string(record)?;
            return writeln!(std::io::stdout(), "{line}").context("write");
        }
        let exec = record.exec_event.as_ref().map(|e| format!(" (exec {})", printable(&e.exec_id))).unwrap_or_default();
        let program = printable(&record.process_name);
        let count = if record.count == 1 { String::new() } else { format!("  {} times", record.count) };
        anstream::println!(
            "{DIM}{}{PLAIN}  {BOLD}{}{PLAIN}  {}  {BAD}{}{PLAIN}{count}  {DIM}{program}{exec}{PLAIN}",
            time(&record.updated_time),
            name_of(record),
            what(record),
            printable(&record.result),
        );
        Ok(())
    }
}

impl Why {
    pub(crate) fn run(&self) -> Result<ExitCode> {
        let records = last_of_each(self.selection.read(Some(&self.pod))?);
        if self.json {
            println!("{}", serde_json::to_string_pretty(&records)?);
            return Ok(ExitCode::SUCCESS);
        }
        if records.is_empty() {
            anstream::println!(
                "Nothing is recorded that {} was denied. {DIM}`hardenctl top` lists pods that were denied something; \
                 `hardenctl explain --container ID` tells what a container may do.{PLAIN}",
                printable(&self.pod)
            );
        }
        for record in &records {
            print_reason(record);
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn print_reason(record: &Record) {
    let times = if record.count == 1 { "once".to_owned() } else { format!("{} times", record.count) };
    anstream::println!("{BOLD}{}{PLAIN}  {BAD}{}{PLAIN}  {times}", what(record), printable(&record.result));
    let exec = record.exec_event.as_ref().map_or_else(String::new, |exec| {
        format!(", in the exec {} of {}", printable(&exec.exec_id), printable(&exec.executable_name))
    });
    let who = format!("{} (pid {}, uid {}){exec}", printable(&record.process_name), record.pid, record.uid);
    let setting = record.setting.as_deref().map_or_else(
        || format!("{NOTE}no setting allows it{PLAIN}"),
        |setting| format!("{GOOD}{}{PLAIN}", printable(setting)),
    );
    let mut rows = vec![("container", name_of(record)), ("asked by", who)];
    let when = if record.count == 1 {
        time(&record.updated_time)
    } else {
        format!("{} to {}", time(&record.first_seen), time(&record.updated_time))
    };
    rows.extend([
        ("when", when),
        ("because", printable(&record.message)),
        ("denied by", printable(&record.policy_name)),
    ]);
    rows.extend([("allow it", setting), ("tags", format!("{DIM}{}{PLAIN}", printable(&record.tags)))]);
    for (key, value) in rows.iter().filter(|(_, value)| !value.is_empty()) {
        anstream::println!("  {DIM}{key:9}{PLAIN}  {value}");
    }
    anstream::println!();
}

/// What one pod was denied.
#[derive(Debug, Default, Serialize)]
struct Sum {
    pod: String,
    denials: u64,
    kinds: usize,
    last: String,
    most: String,
    #[serde(skip)]
    most_count: u64,
}

impl Top {
    pub(crate) fn run(&self) -> Result<ExitCode> {
        let mut pods: BTreeMap<String, Sum> = BTreeMap::new();
        for record in last_of_each(self.selection.read(None)?) {
            let of_pod = !record.pod_name.is_empty();
            let pod = format!("{}/{}", record.namespace_name, record.pod_name);
            let name = printable(if of_pod { &pod } else { &record.container_id });
            let sum = pods.entry(name.clone()).or_insert_with(|| Sum { pod: name, ..Sum::default() });
            sum.denials += record.count;
            sum.kinds += 1;
            sum.last = sum.last.clone().max(time(&record.updated_time));
            if record.count > sum.most_count {
                (sum.most, sum.most_count) = (what(&record), record.count);
            }
        }
        let mut pods: Vec<Sum> = pods.into_values().collect();
        pods.sort_by_key(|sum| std::cmp::Reverse(sum.denials));
        if self.json {
            println!("{}", serde_json::to_string_pretty(&pods)?);
            return Ok(ExitCode::SUCCESS);
        }
        let width = pods.iter().map(|sum| sum.pod.chars().count()).max().unwrap_or(0).max(3);
        anstream::println!("{BOLD}{:width$}  {:>10}  {:>5}  {:19}  MOST{PLAIN}", "POD", "DENIALS", "KINDS", "LAST");
        for sum in pods {
            let Sum { pod, denials, kinds, last, most, .. } = sum;
            anstream::println!("{pod:width$}  {denials:>10}  {kinds:>5}  {last:19}  {most}");
        }
        Ok(ExitCode::SUCCESS)
    }
}
