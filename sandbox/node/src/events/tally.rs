//! What a container was denied, by kind, and when that is written down: a container that is denied the same a million
//! times makes seven lines.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Instant;

use anyhow::Result;
use chrono::{DateTime, SecondsFormat, Utc};
use hardened_sandbox::record::Record;

use super::file::EventFile;

/// Kinds of denials that are kept of a container.
const MAX_KINDS: usize = 64;

/// The denials of one container. `K` tells which are one to a person.
#[derive(Debug)]
pub struct Tally<K> {
    about: Record,
    kinds: HashMap<K, Told>,
    /// Denials of kinds that are not listed.
    unlisted: Option<Told>,
    file: EventFile,
}

/// One kind of denial, and what of it is written.
#[derive(Debug)]
struct Told {
    record: Record,
    last: Instant,
    written: u64,
}

impl<K: Eq + Hash> Tally<K> {
    /// Of a container, with what every record of it has.
    #[must_use]
    pub fn new(about: Record, file: EventFile) -> Self {
        Self { about, kinds: HashMap::new(), unlisted: None, file }
    }

    /// Whether it is the first of its kind, and will be listed.
    #[must_use]
    pub fn is_new(&self, kind: &K) -> bool {
        self.kinds.len() < MAX_KINDS && !self.kinds.contains_key(kind)
    }

    /// Whether it is listed.
    #[must_use]
    pub fn has(&self, kind: &K) -> bool {
        self.kinds.contains_key(kind)
    }

    /// The kinds that are listed.
    pub fn kinds(&self) -> impl Iterator<Item = &K> {
        self.kinds.keys()
    }

    /// Counts a denial, and writes it down where its count is 1, 10, 100 and so on.
    ///
    /// # Errors
    /// It is counted, and not written down.
    pub fn note(&mut self, kind: K, first: impl FnOnce(&Record) -> Record) -> Result<()> {
        let Self { about, kinds, unlisted, file } = self;
        let is_full = kinds.len() >= MAX_KINDS;
        let told = match kinds.get_mut(&kind) {
            Some(told) => told,
            None if is_full => unlisted.get_or_insert_with(|| Told::new(unlisted_of(about))),
            None => kinds.entry(kind).or_insert(Told::new(first(about))),
        };
        told.record.count += 1;
        told.last = Instant::now();
        if is_power_of_ten(told.record.count) { told.write(file) } else { Ok(()) }
    }

    /// Writes down how often each was denied in the end.
    ///
    /// # Errors
    /// The last of what could not be written.
    pub fn close(&mut self) -> Result<()> {
        let Self { kinds, unlisted, file, .. } = self;
        let mut all = Ok(());
        // One that fails keeps no other from being tried.
        for told in kinds.values_mut().chain(unlisted.as_mut()).filter(|told| told.record.count > told.written) {
            let written = told.write(file);
            all = written.and(all);
        }
        all
    }

    /// What was denied last, and when.
    #[must_use]
    pub fn last(&self) -> Option<(&Record, Instant)> {
        let last = self.kinds.values().chain(self.unlisted.as_ref()).max_by_key(|told| told.last)?;
        Some((&last.record, last.last))
    }
}

fn unlisted_of(about: &Record) -> Record {
    Record {
        kind: "SystemEvent".to_owned(),
        operation: "AlertThreshold".to_owned(),
        message: format!("the container had more than {MAX_KINDS} kinds of denials; the others are not listed"),
        ..about.clone()
    }
}

impl Told {
    fn new(record: Record) -> Self {
        Self { record: Record { first_seen: rfc3339(Utc::now()), ..record }, last: Instant::now(), written: 0 }
    }

    fn write(&mut self, file: &EventFile) -> Result<()> {
        let now = Utc::now();
        self.record.timestamp = now.timestamp();
        self.record.updated_time = rfc3339(now);
        self.written = self.record.count;
        file.append(&self.record)
    }
}

/// As records have times: with microseconds.
fn rfc3339(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}

const fn is_power_of_ten(mut count: u64) -> bool {
    while count >= 10 && count.is_multiple_of(10) {
        count /= 10;
    }
    count == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denial_is_written_at_powers_of_ten() {
        let written: Vec<u64> = (0..2_000).filter(|count| is_power_of_ten(*count)).collect();
        assert_eq!(written, [1, 10, 100, 1000]);
    }

    #[test]
    fn kinds_beyond_the_bound_are_counted_as_one() {
        let folder = tempfile::tempdir().unwrap();
        let file = EventFile::at(folder.path(), "ns", "a", super::super::Writer::Agent);
        let mut tally = Tally::new(Record::default(), file);
        for kind in 0..70 {
            tally.note(kind, |about| Record { resource: kind.to_string(), ..about.clone() }).unwrap();
        }
        tally.close().unwrap();
        let text = std::fs::read_to_string(folder.path().join("ns@a@agent.jsonl")).unwrap();
        let records: Vec<Record> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(records.iter().filter(|record| record.kind != "SystemEvent").count(), MAX_KINDS);
        assert_eq!(records.last().map(|record| (record.operation.as_str(), record.count)), Some(("AlertThreshold", 6)));
    }
}
