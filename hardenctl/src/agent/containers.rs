//! The containers of this runtime that are on the node, and which of them a record is about.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use hardened_sandbox::record::Record;
use hardened_sandbox::{Mark, Ruleset, Standing};
use serde::Deserialize;

use super::process::{Cgroups, Process};

/// A container, by containerd's namespace and its id.
pub(super) type Key = (String, String);

/// What is known of a container.
#[derive(Debug)]
pub(super) struct Container {
    pub(super) standing: Standing,
    /// What every record of it has.
    pub(super) about: Record,
    /// Its cgroups; none until its init was found.
    cgroups: Option<Cgroups>,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Containers {
    root: PathBuf,
    host: String,
    all: BTreeMap<Key, Container>,
}

/// Whose a Landlock domain is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Owner {
    /// A container's, by these of its rules.
    Container(Key, Ruleset),
    /// A program's own that confines itself, in a container or on the node.
    Other,
    /// A container's that is not on the node, or no longer.
    Unknown,
}

/// What is read of a container's `container.json`.
#[derive(Deserialize)]
struct Init {
    pid: u32,
    start_time: u64,
}

impl Containers {
    /// Those below a folder, of a node of that name.
    pub(super) fn new(root: &Path, host: &str) -> Self {
        let mut containers = Self { root: root.to_owned(), host: host.to_owned(), all: BTreeMap::new() };
        containers.refresh();
        containers
    }

    /// Looks which there are.
    pub(super) fn refresh(&mut self) {
        let mut there = BTreeSet::new();
        for namespace in list(&self.root) {
            for id in list(&self.root.join(&namespace)) {
                let key = (namespace.clone(), id);
                if self.all.contains_key(&key) || self.add(&key) {
                    there.insert(key);
                }
            }
        }
        self.all.retain(|key, _| there.contains(key));
    }

    /// One that is made right now has no such file yet; that of another version cannot be read.
    fn add(&mut self, key: &Key) -> bool {
        let Ok(text) = fs::read(self.folder(key).join("standing.json")) else { return false };
        let Ok(standing) = serde_json::from_slice::<Standing>(&text) else { return false };
        let about = Record::about(&self.host, &key.1, &standing.identity);
        self.all.insert(key.clone(), Container { standing, about, cgroups: None });
        true
    }

    fn folder(&self, (namespace, id): &Key) -> PathBuf {
        self.root.join(namespace).join(id)
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Container> {
        self.all.get(key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Container> {
        self.all.values()
    }

    /// The first of which something is so. They are looked for again only if there is none: records come by the thousand.
    fn find(&mut self, is_it: impl Fn(&Container) -> bool) -> Option<Key> {
        let find = |all: &BTreeMap<Key, Container>| {
            all.iter().find(|(_, container)| is_it(container)).map(|(key, _)| key.clone())
        };
        find(&self.all).or_else(|| {
            self.refresh();
            self.look_at_cgroups();
            find(&self.all)
        })
    }

    /// Whose a domain is, by the name of the process that entered it.
    pub(super) fn owner(&mut self, name: &str) -> Owner {
        let Some((mark, ruleset)) = Mark::of_name(name) else { return Owner::Other };
        self.of_mark(&mark).map_or(Owner::Unknown, |key| Owner::Container(key, ruleset))
    }

    /// The container whose Landlock domains bear a mark.
    fn of_mark(&mut self, mark: &Mark) -> Option<Key> {
        self.find(|container| container.standing.mark() == Some(mark))
    }

    /// The container whose process this is: whose init's cgroups it is in, or below.
    pub(super) fn of_process(&mut self, process: &Process) -> Option<Key> {
        self.find(|container| container.cgroups.as_ref().is_some_and(|c| c.hold(&process.cgroups)))
    }

    /// Those whose init was not there before have it now, or next time.
    fn look_at_cgroups(&mut self) {
        let unknown: Vec<Key> =
            self.all.iter().filter(|(_, c)| c.cgroups.is_none()).map(|(key, _)| key.clone()).collect();
        for key in unknown {
            let cgroups = self.init(&key).map(|init| init.cgroups);
            if let Some(container) = self.all.get_mut(&key) {
                container.cgroups = cgroups;
            }
        }
    }

    /// The init of a container, as its shim has noted it.
    fn init(&self, key: &Key) -> Option<Process> {
        let text = fs::read(self.folder(key).join("container.json")).ok()?;
        let init: Init = serde_json::from_slice(&text).ok()?;
        Process::look_at(init.pid).filter(|process| process.start_time == init.start_time)
    }

    /// The shims that serve them: the parents of their inits.
    pub(super) fn shims(&self) -> BTreeSet<u32> {
        self.all.keys().filter_map(|key| self.init(key)).map(|init| init.parent).collect()
    }
}

/// The folders in a folder.
fn list(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}
