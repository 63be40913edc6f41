//! What the kernel's audit records tell of containers, made into records of denials: exact, or counted as lost.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hardened_node::events::{EventFile, Tally, Writer};
use hardened_sandbox::Ruleset;
use hardened_sandbox::audit::{self, Denial, Event, Message};
use hardened_sandbox::record::Record;

use super::containers::{Containers, Key, Owner};
use super::metrics::{Losses, Reason};
use super::process::Process;

/// Domains that are known at once. Each has a process, or an open descriptor.
const MAX_DOMAINS: usize = 65_536;

/// Most denials that wait for the record of their domain.
const MAX_WAITING: usize = 1024;

/// Kinds that differ by the object alone: others are one kind more. A container that is denied ever other paths hides nothing
/// else that it is denied.
const MAX_OBJECTS: usize = 8;

/// How long they wait: the kernel tells of a domain right after its first denial.
const WAIT: Duration = Duration::from_secs(2);

/// A Landlock domain.
#[derive(Debug)]
struct Domain {
    owner: Owner,
    /// The process that entered it.
    pid: u32,
    uid: u32,
    /// Denials that were seen of it.
    seen: u64,
}

/// What receives audit records.
#[derive(Debug)]
pub(super) struct Denials {
    pub(super) containers: Containers,
    events: PathBuf,
    domains: HashMap<u64, Domain>,
    waiting: VecDeque<(Instant, u64, Denial)>,
    tallies: HashMap<Key, Tally<(Denial, Ruleset)>>,
    losses: Losses,
}

impl Denials {
    pub(super) fn new(containers: Containers, events: &Path, losses: Losses) -> Self {
        let events = events.to_owned();
        let (domains, waiting, tallies) = (HashMap::new(), VecDeque::new(), HashMap::new());
        Self { containers, events, domains, waiting, tallies, losses }
    }

    /// Takes a record, as the kernel wrote it.
    pub(super) fn take(&mut self, kind: u16, text: &[u8]) {
        match audit::parse(kind, text) {
            Ok(Some(message)) => self.handle(message),
            Ok(None) => {}
            Err(_) => self.losses.count(Reason::Unreadable, 1),
        }
    }

    fn handle(&mut self, message: Message) {
        match message.event {
            Event::Begun { domain, pid, uid, comm } => {
                if self.domains.len() < MAX_DOMAINS {
                    let owner = self.containers.owner(&comm);
                    self.domains.insert(domain, Domain { owner, pid, uid, seen: 0 });
                }
                let (ready, waiting): (VecDeque<_>, _) = self.waiting.drain(..).partition(|(_, of, _)| *of == domain);
                self.waiting = waiting;
                for (_, domain, denial) in ready {
                    self.by_landlock(domain, denial);
                }
            }
            Event::Landlock { domain, denial } => self.by_landlock(domain, denial),
            Event::Ended { domain, denials } => {
                if let Some(domain) = self.domains.remove(&domain)
                    && domain.owner != Owner::Other
                {
                    self.losses.count(Reason::Overrun, denials.saturating_sub(domain.seen));
                }
            }
            Event::Labelled { pid, denial } => self.by_label(pid, message.time, denial),
        }
    }

    fn by_landlock(&mut self, id: u64, denial: Denial) {
        let Some(domain) = self.domains.get_mut(&id) else {
            if self.waiting.len() == MAX_WAITING {
                self.waiting.pop_front();
                self.losses.count(Reason::Unattributed, 1);
            }
            return self.waiting.push_back((Instant::now(), id, denial));
        };
        domain.seen += 1;
        let (pid, uid) = (domain.pid, domain.uid);
        match domain.owner.clone() {
            Owner::Container(key, ruleset) => {
                self.note(&key, denial, ruleset, |record| Record { host_pid: pid, uid, ..record });
            }
            Owner::Unknown => self.losses.count(Reason::Unattributed, 1),
            Owner::Other => {}
        }
    }

    /// A process that is gone could be anybody's: it is counted as lost.
    fn by_label(&mut self, pid: u32, time: u64, denial: Denial) {
        let Some(process) = Process::look_at(pid).filter(|process| process.ran_at(time)) else {
            return self.losses.count(Reason::Unattributed, 1);
        };
        if let Some(key) = self.containers.of_process(&process) {
            self.note(&key, denial, Ruleset::Container, |record| Record {
                host_pid: process.who.pid,
                pid: process.who.own_pid,
                uid: process.who.uid,
                comm: process.who.comm,
                process_name: process.who.program,
                ..record
            });
        }
    }

    fn note(&mut self, key: &Key, denial: Denial, ruleset: Ruleset, with: impl FnOnce(Record) -> Record) {
        let Some(container) = self.containers.get(key) else {
            return self.losses.count(Reason::Unattributed, 1);
        };
        let new = || {
            let file = EventFile::at(&self.events, &key.0, &key.1, Writer::Agent);
            Tally::new(container.about.clone(), file)
        };
        let tally = self.tallies.entry(key.clone()).or_insert_with(new);
        let kind = (denial.clone(), ruleset);
        let like = |(other, of): &&(Denial, Ruleset)| *of == ruleset && other.differs_by_object(&denial);
        let few = tally.has(&kind) || tally.kinds().filter(like).count() < MAX_OBJECTS;
        let kind = if few { kind } else { (denial.elsewhere(), ruleset) };
        let noted = tally.note(kind, |about| with(denial.record(about, &container.standing, ruleset)));
        self.losses.check(Reason::NotWritten, noted);
    }

    /// What is to be done now and then: containers that are gone get their last counts, and what waits in vain is lost.
    pub(super) fn tidy(&mut self) {
        self.containers.refresh();
        for (_, mut tally) in self.tallies.extract_if(|key, _| self.containers.get(key).is_none()) {
            self.losses.check(Reason::NotWritten, tally.close());
        }
        while self.waiting.front().is_some_and(|(since, ..)| since.elapsed() > WAIT) {
            self.waiting.pop_front();
            self.losses.count(Reason::Unattributed, 1);
        }
    }

    /// Writes down the last counts of all.
    pub(super) fn close(&mut self) {
        for tally in self.tallies.values_mut() {
            self.losses.check(Reason::NotWritten, tally.close());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use hardened_sandbox::policy::{Policy, Source};
    use hardened_sandbox::seccomp::Arch;
    use hardened_sandbox::{KernelSupport, Mark, Observations, Standing, judge};

    use super::*;

    /// A container as its shim has noted it, by a policy that has Landlock's denials logged.
    fn make(state: &Path, id: &str, mark: &Mark) {
        let spec = serde_json::json!({
            "ociVersion": "1.0.2", "root": {"path": "rootfs"},
            "process": {"cwd": "/", "args": ["/bin/true"], "user": {"uid": 0, "gid": 0}},
            "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}]}
        });
        let source = Source::new("test".into(), "log-landlock-denials = true".to_owned());
        let policy = Policy::parse(&[source], &|_| Err("no files".to_owned()), Arch::X86_64).unwrap();
        let observed = Observations { mark: Some(mark.clone()), ..Observations::none(None) };
        let spec = serde_json::from_value(spec).unwrap();
        let admission = judge(&spec, &policy, &KernelSupport::assumed(), &observed).unwrap();
        let folder = state.join("ns").join(id);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("standing.json"), serde_json::to_vec(&Standing::new(&admission)).unwrap()).unwrap();
    }

    #[test]
    fn a_denial_is_its_domains_container_s_and_is_counted_to_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let (state, events) = (folder.path().join("state"), folder.path().join("events"));
        let mark = Mark::from_random("0b7c1e52-9d3a-4c1f-8e21-000000000000").unwrap();
        let mut denials = Denials::new(Containers::new(&state, "node"), &events, Losses::default());
        make(&state, "a", &mark);
        let told = || -> Vec<(String, u64)> {
            let text = fs::read_to_string(events.join("ns@a@agent.jsonl")).unwrap_or_default();
            let records = text.lines().map(|line| serde_json::from_str::<Record>(line).unwrap());
            records.map(|record| (record.resource, record.count)).collect()
        };
        let denied = "audit(1.000:1): domain=7 blockers=net.connect_tcp daddr=127.0.0.1 dest=80";
        let begun = |domain: &str, name: &str| {
            format!(
                "audit(1.000:1): domain={domain} status=allocated mode=enforcing pid=9 uid=0 exe=\"/x\" comm=\"{name}\""
            )
        };
        // The kernel tells of a domain after its first denial.
        denials.take(audit::LANDLOCK_ACCESS, denied.as_bytes());
        assert!(told().is_empty());
        denials.take(audit::LANDLOCK_DOMAIN, begun("7", &format!("h:{mark}")).as_bytes());
        assert_eq!(told(), [("80".to_owned(), 1)]);
        denials.take(audit::LANDLOCK_ACCESS, denied.as_bytes());
        // Domains that no container of this runtime has, under a name of that form and under another.
        for (domain, name) in [("8", "h:000000000000"), ("9", "bash")] {
            denials.take(audit::LANDLOCK_DOMAIN, begun(domain, name).as_bytes());
            denials.take(audit::LANDLOCK_ACCESS, denied.replace("=7", &format!("={domain}")).as_bytes());
        }
        assert_eq!(told(), [("80".to_owned(), 1)]);
        // It ends; that is seen first when another mark is looked for.
        fs::remove_dir_all(state.join("ns/a")).unwrap();
        denials.take(audit::LANDLOCK_DOMAIN, begun("a", "h:111111111111").as_bytes());
        denials.tidy();
        assert_eq!(told(), [("80".to_owned(), 1), ("80".to_owned(), 2)]);
    }
}
