//! `hardenctl events`, `hardenctl why` and `hardenctl top`: what containers were denied.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;
use hardened_sandbox::record::Record;
use hardened_sandbox::{Answer, Standing};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use serde::Serialize;

use crate::records::{Reader, Selection, last_of_each, name_of, printable, time, what};
use crate::style::{BAD, BOLD, DIM, GOOD, NOTE, PLAIN};

/// Lists what containers were denied, oldest first.
///
/// Repeated denials are listed at the 1st, 10th, 100th and so on, and when the container ends. Records outlive their
/// container.
#[derive(Debug, Args)]
pub(crate) struct Events {
    #[command(flatten)]
    selection: Selection,
    /// Keeps waiting for new records.
    #[arg(long, short)]
    follow: bool,
    /// Prints each record as JSON, a line each.
    #[arg(long)]
    json: bool,
    /// Prints the JSON Schema of a record.
    #[arg(long, conflicts_with_all = ["follow", "json", "pod"])]
    schema: bool,
    /// A pod, or a container by its id. Default: all.
    pod: Option<String>,
}

/// Tells why a pod was denied something, and what would allow it.
///
/// Newest first. Policy lines are TOML, ready to copy: replace NAME by the name of your profile, and give that to the pod
/// by a rule.
///
/// With a question, answers it for the pod's containers that run on this node, whether or not it was tried. Exit code 0:
/// everything is allowed; 1: something is not.
#[derive(Debug, Args)]
pub(crate) struct Why {
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    questions: Questions,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
    /// A pod, or a container by its id.
    pod: String,
}

/// What may be asked of a container that runs.
#[derive(Debug, Args)]
#[group(multiple = true)]
struct Questions {
    /// May it write to, create or remove this file? A path inside the container, without symbolic links.
    #[arg(long, value_name = "PATH", value_parser = absolute)]
    write: Vec<PathBuf>,
    /// May it execute this program?
    #[arg(long, value_name = "PATH", value_parser = absolute)]
    execute: Vec<PathBuf>,
    /// May it connect to this TCP port?
    #[arg(long, value_name = "PORT")]
    connect: Vec<u16>,
    /// May it listen on this TCP port?
    #[arg(long, value_name = "PORT")]
    listen: Vec<u16>,
    /// May it make this system call?
    #[arg(long, value_name = "NAME")]
    call: Vec<String>,
}

fn absolute(text: &str) -> Result<PathBuf, String> {
    let path = Path::new(text);
    let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if path.is_absolute() && plain {
        Ok(path.components().collect())
    } else {
        Err("expected an absolute path without ..".to_owned())
    }
}

impl Questions {
    fn ask(&self, standing: &Standing) -> Result<Vec<(String, Answer)>> {
        let mut all = Vec::new();
        all.extend(self.write.iter().map(|path| (format!("write {}", path.display()), standing.write(path))));
        all.extend(self.execute.iter().map(|path| (format!("execute {}", path.display()), standing.execute(path))));
        all.extend(self.connect.iter().map(|port| (format!("connect to {port}"), standing.port(*port, true))));
        all.extend(self.listen.iter().map(|port| (format!("listen at {port}"), standing.port(*port, false))));
        for name in &self.call {
            all.push((format!("call {name}"), standing.call(name).map_err(anyhow::Error::msg)?));
        }
        Ok(all)
    }

    const fn is_empty(&self) -> bool {
        let Self { write, execute, connect, listen, call } = self;
        write.is_empty() && execute.is_empty() && connect.is_empty() && listen.is_empty() && call.is_empty()
    }
}

/// Lists pods by their number of denials.
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
        if self.schema {
            println!("{}", serde_json::to_string_pretty(&schemars::schema_for!(Record))?);
            return Ok(ExitCode::SUCCESS);
        }
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
        if !self.questions.is_empty() {
            return self.answer();
        }
        let records = last_of_each(self.selection.read(Some(&self.pod))?);
        if self.json {
            println!("{}", serde_json::to_string_pretty(&records)?);
            return Ok(ExitCode::SUCCESS);
        }
        if records.is_empty() {
            anstream::println!(
                "No denials are recorded for {}. {DIM}`hardenctl top` lists pods that were denied something; \
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

impl Why {
    fn answer(&self) -> Result<ExitCode> {
        let mut all = Vec::new();
        for (id, standing) in standings(&self.pod, self.selection.namespace.as_deref())? {
            all.push((standing.identity.name().unwrap_or(id), self.questions.ask(&standing)?));
        }
        let refused = all.iter().flat_map(|(_, answers)| answers).any(|(_, answer)| !answer.allowed);
        if self.json {
            let entry =
                |(question, answer): &(String, Answer)| serde_json::json!({"question": question, "answer": answer});
            let json = |(container, answers): &(String, Vec<_>)| serde_json::json!({"container": container, "answers": answers.iter().map(entry).collect::<Vec<_>>()});
            println!("{}", serde_json::to_string_pretty(&all.iter().map(json).collect::<Vec<_>>())?);
            return Ok(ExitCode::from(u8::from(refused)));
        }
        for (container, answers) in &all {
            anstream::println!("{BOLD}{}{PLAIN}", printable(container));
            for (question, Answer { allowed, because, setting }) in answers {
                let verdict = if *allowed { format!("{GOOD}yes{PLAIN}") } else { format!("{BAD}no{PLAIN}") };
                anstream::println!("  {question}: {verdict}, {}", printable(because));
                match setting {
                    Some(setting) => {
                        anstream::println!("    {DIM}allow it{PLAIN}  {GOOD}{}{PLAIN}", printable(setting))
                    }
                    None if !*allowed => anstream::println!("    {NOTE}no setting allows it{PLAIN}"),
                    None => {}
                }
            }
        }
        Ok(ExitCode::from(u8::from(refused)))
    }
}

/// What was decided of the containers of a pod that run here, or of the container of that id.
pub(crate) fn standings(name: &str, namespace: Option<&str>) -> Result<Vec<(String, Standing)>> {
    let root = Path::new("/run/hardened");
    let list = |folder: &Path| std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut found = Vec::new();
    for folder in list(root).flat_map(|namespace| list(&namespace)) {
        // Those of a container that ends right now are gone.
        let Ok(text) = std::fs::read(folder.join("standing.json")) else { continue };
        let show = folder.display();
        let id = folder.file_name().unwrap_or_default().display().to_string();
        let standing: Standing = match serde_json::from_slice(&text) {
            Ok(standing) => standing,
            Err(error) if id == name => return Err(error).with_context(|| format!("{show}/standing.json")),
            // Another version's.
            Err(_) => continue,
        };
        let (of_namespace, of_pod) = (&standing.identity.namespace, &standing.identity.pod);
        let called = of_pod.as_deref() == Some(name) || id == name || (name.len() >= 8 && id.starts_with(name));
        if called && (namespace.is_none() || namespace == of_namespace.as_deref()) {
            found.push((id, standing));
        }
    }
    if found.is_empty() {
        bail!(
            "no pod or container of this runtime is called {name} on this node; `crictl ps` lists them; run this as root"
        );
    }
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(found)
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
    let mut rows = vec![("container", name_of(record))];
    // Not of what is not listed.
    if record.host_pid != 0 {
        rows.push(("asked by", who));
    }
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
