//! Records of denials: read, chosen, and made fit to be printed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
pub(crate) use hardened_sandbox::record::printable;
use hardened_sandbox::record::{EVENTS, Enforcer, Record};

use crate::args::dns_label;

/// Which records a command is about.
#[derive(Debug, Args)]
pub(crate) struct Selection {
    /// Kubernetes namespace. Default: all.
    #[arg(long, short, value_parser = dns_label)]
    pub(crate) namespace: Option<String>,
    /// Folder of the records.
    #[arg(long, value_name = "PATH", default_value = EVENTS)]
    pub(crate) events: PathBuf,
}

impl Selection {
    /// Whether a record is of the namespace, and of the pod or container of that name.
    pub(crate) fn has(&self, record: &Record, pod: Option<&str>) -> bool {
        let called = |name: &str| {
            record.pod_name == name
                || record.container_id == name
                // As `crictl ps` shows ids.
                || (name.len() >= 8 && record.container_id.starts_with(name))
        };
        self.namespace.as_ref().is_none_or(|namespace| record.namespace_name == *namespace) && pod.is_none_or(called)
    }

    /// All records, oldest first.
    pub(crate) fn read(&self, pod: Option<&str>) -> Result<Vec<Record>> {
        let mut reader = Reader::new(&self.events);
        let mut records = reader.read()?;
        records.retain(|record| self.has(record, pod));
        Ok(records)
    }
}

/// Reads what was added to the files of a folder since it read last.
#[derive(Debug)]
pub(crate) struct Reader {
    folder: PathBuf,
    /// How far each file was read.
    offsets: BTreeMap<PathBuf, u64>,
    /// Lines that are no records of this version.
    unreadable: u64,
}

impl Reader {
    pub(crate) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), offsets: BTreeMap::new(), unreadable: 0 }
    }

    /// Oldest first. A file that is gone, or was started again, is no error: old records are removed like this.
    pub(crate) fn read(&mut self) -> Result<Vec<Record>> {
        let folder = self.folder.clone();
        let show = folder.display();
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            // Nothing was ever denied here.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => bail!("only root can read {show}: use sudo"),
            Err(error) => return Err(error).with_context(|| format!("read {show}")),
        };
        let mut records = Vec::new();
        for entry in entries {
            let path = entry.with_context(|| format!("read {show}"))?.path();
            if path.to_str().is_some_and(|path| path.ends_with(".jsonl")) {
                match self.read_file(&path, &mut records) {
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    result => result.with_context(|| format!("read {}", path.display()))?,
                }
            }
        }
        // Times of one form are in the order of their texts.
        records.sort_by(|a: &Record, b| a.updated_time.cmp(&b.updated_time));
        Ok(records)
    }

    /// How many lines were no records of this version, since this was asked last.
    pub(crate) const fn take_unreadable(&mut self) -> u64 {
        std::mem::replace(&mut self.unreadable, 0)
    }

    fn read_file(&mut self, path: &Path, records: &mut Vec<Record>) -> std::io::Result<()> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        let offset = self.offsets.entry(path.to_owned()).or_default();
        if length < *offset {
            *offset = 0;
        }
        file.seek(SeekFrom::Start(*offset))?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        // The rest of a line may still be on its way.
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        *offset += whole as u64;
        let mut lost = 0;
        for line in text.get(..whole).unwrap_or_default().split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            match serde_json::from_slice(line) {
                Ok(record) => records.push(record),
                // Of another version, which has other fields; or cut, where the disk was full.
                Err(_) => lost += 1,
            }
        }
        if lost > 0 {
            let path = printable(&path.display().to_string());
            eprintln!("warning: {path}: skipped {lost} lines that are not records of this version of hardenctl");
        }
        self.unreadable += lost;
        Ok(())
    }
}

/// What tells one kind of denials of one container from another.
pub(crate) type Kind = (String, Enforcer, String, String, String, Option<String>);

/// The kind of a record.
pub(crate) fn kind_of(record: &Record) -> Kind {
    (
        record.container_id.clone(),
        record.enforcer,
        record.operation.clone(),
        record.resource.clone(),
        record.data.clone(),
        record.exec_event.as_ref().map(|exec| exec.exec_id.clone()),
    )
}

/// The last record of each kind of denial of each container, newest first: each has the count of all before it.
pub(crate) fn last_of_each(records: Vec<Record>) -> Vec<Record> {
    let mut last: BTreeMap<_, Record> = BTreeMap::new();
    for record in records {
        last.insert(kind_of(&record), record);
    }
    let mut all: Vec<Record> = last.into_values().collect();
    all.sort_by(|a, b| b.updated_time.cmp(&a.updated_time));
    all
}

/// Who it was, for people: `shop/web-0 web`, or the container's id where no pod has it.
pub(crate) fn name_of(record: &Record) -> String {
    if record.pod_name.is_empty() {
        return printable(&record.container_id);
    }
    printable(&format!("{}/{} {}", record.namespace_name, record.pod_name, record.container_name))
}

/// What was denied: `unshare(flags=CLONE_NEWUSER)`, or a path.
pub(crate) fn what(record: &Record) -> String {
    match record.operation.as_str() {
        "Syscall" => printable(&format!("{}({})", record.resource, record.args.join(", "))),
        "AlertThreshold" => "kinds of denials not listed".to_owned(),
        _ => printable(&format!("{} {}", record.operation.to_lowercase(), record.resource)),
    }
}

/// A time without its fractions, in universal time.
pub(crate) fn time(text: &str) -> String {
    printable(text.get(..19).unwrap_or(text)).replace('T', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_is_read_once_and_whole() {
        let folder = tempfile::tempdir().unwrap();
        let mut reader = Reader::new(folder.path());
        assert!(Reader::new(Path::new("/nowhere")).read().unwrap().is_empty());
        let line = |count, time: &str| {
            let record = Record { count, updated_time: time.to_owned(), ..Record::default() };
            serde_json::to_string(&record).unwrap() + "\n"
        };
        let path = folder.path().join("ns@a.jsonl");
        fs::write(&path, line(2, "2") + "no record\n" + &line(1, "1") + "{\"half").unwrap();
        fs::write(folder.path().join("other"), line(7, "7")).unwrap();
        let counts = |reader: &mut Reader| reader.read().unwrap().iter().map(|r| r.count).collect::<Vec<_>>();
        assert_eq!(counts(&mut reader), [1, 2]);
        assert!(counts(&mut reader).is_empty());
        // Started again.
        fs::write(&path, line(3, "3")).unwrap();
        assert_eq!(counts(&mut reader), [3]);
    }

    #[test]
    fn the_last_of_a_kind_stands_for_those_before_it() {
        let record = |count, resource: &str, time: &str| Record {
            count,
            resource: resource.to_owned(),
            updated_time: time.to_owned(),
            ..Record::default()
        };
        let last = last_of_each(vec![record(1, "mount", "1"), record(1, "bpf", "2"), record(10, "mount", "3")]);
        let last: Vec<_> = last.iter().map(|r| (r.resource.as_str(), r.count)).collect();
        assert_eq!(last, [("mount", 10), ("bpf", 1)]);
    }
}
