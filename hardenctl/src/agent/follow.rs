//! The files of records, followed: what each record tells beyond the ones before it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use hardened_sandbox::record::Record;

use crate::records::{Kind, Reader, kind_of};

/// Kinds of denials whose counts are known. A node's files hold some ten thousand records.
const MAX_KINDS: usize = 50_000;

/// What was counted.
#[derive(Debug)]
pub(super) struct Followed {
    folder: PathBuf,
    reader: Reader,
    /// By kind, and by when it was first denied: a new container with the name of an earlier one starts again.
    counts: HashMap<(Kind, String), u64>,
}

impl Followed {
    /// From now on. What was denied before is known, and not news: a counter that began with it would count it once more
    /// at each start.
    pub(super) fn new(folder: &Path) -> Result<Self> {
        let (folder, reader) = (folder.to_owned(), Reader::new(folder));
        let mut followed = Self { folder, reader, counts: HashMap::new() };
        followed.news()?;
        Ok(followed)
    }

    /// The records since the last look, each with how many denials are new; and how many lines were no records.
    pub(super) fn read(&mut self) -> Result<(Vec<(Record, u64)>, u64)> {
        if self.counts.len() > MAX_KINDS {
            // Those of files that are gone are forgotten.
            *self = Self::new(&self.folder)?;
        }
        self.news()
    }

    fn news(&mut self) -> Result<(Vec<(Record, u64)>, u64)> {
        let mut news = Vec::new();
        for record in self.reader.read()? {
            let last = self.counts.entry((kind_of(&record), record.first_seen.clone())).or_default();
            let more = record.count.saturating_sub(*last);
            *last = record.count.max(*last);
            if more > 0 {
                news.push((record, more));
            }
        }
        Ok((news, self.reader.take_unreadable()))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn each_denial_is_counted_once() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ns@b.jsonl"), "of before\n").unwrap();
        let mut followed = Followed::new(folder.path()).unwrap();
        let line = |count, resource: &str| {
            let record = Record { count, resource: resource.to_owned(), ..Record::default() };
            serde_json::to_string(&record).unwrap() + "\n"
        };
        let path = folder.path().join("ns@a.jsonl");
        let other = line(1, "bpf").replace("\"Version\":0", "\"Version\":0,\"Newer\":1");
        fs::write(&path, line(1, "mount") + &line(10, "mount") + &line(1, "bpf") + &other + "{\"cut\n{\"half").unwrap();
        let read = |followed: &mut Followed| {
            let (news, unreadable) = followed.read().unwrap();
            (news.iter().map(|(record, more)| (record.resource.clone(), *more)).collect::<Vec<_>>(), unreadable)
        };
        let expected = [("mount", 1), ("mount", 9), ("bpf", 1)].map(|(name, more)| (name.to_owned(), more));
        assert_eq!(read(&mut followed), (expected.to_vec(), 2));
        // The file becomes the old one: what is in it was counted.
        fs::rename(&path, folder.path().join("ns@a@old.jsonl")).unwrap();
        fs::write(&path, line(12, "mount")).unwrap();
        assert_eq!(read(&mut followed).0, [("mount".to_owned(), 2)]);
    }
}
