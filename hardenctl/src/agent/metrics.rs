//! The agent's metrics, bounded whatever containers do.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use anyhow::Result;
use hardened_sandbox::record::{Enforcer, Record};
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::containers::Containers;
use super::process;

/// Most series of denials, and of refusals: more are counted in one, whose labels are all `other`.
const MAX_SERIES: usize = 1000;

/// A series to which nothing was added for so long makes room for another.
const IDLE: Duration = Duration::from_secs(3600);

/// The labels of the metrics of denials.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DenialLabels {
    namespace: String,
    pod: String,
    container: String,
    enforcer: String,
    resource: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusalLabels {
    namespace: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ContainerLabels {
    profile: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MemoryLabels {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LossLabels {
    reason: Reason,
}

/// Why something is not told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(super) enum Reason {
    /// The kernel had more than its queues hold.
    Overrun,
    /// Whose it is cannot be said for certain.
    Unattributed,
    /// A record, of the kernel or in a file, has not the form that this version knows.
    Unreadable,
    /// A record could not be written down.
    NotWritten,
    /// There were more Events to make than are made.
    EventLimit,
    /// The API server did not take an Event.
    EventNotMade,
}

/// Counts what is not told, and logs the first of a kind.
#[derive(Debug, Clone, Default)]
pub(super) struct Losses(Family<LossLabels, Counter>);

impl Losses {
    pub(super) fn count(&self, reason: Reason, lost: u64) {
        self.0.get_or_create(&LossLabels { reason }).inc_by(lost);
    }

    /// Counts what failed, and tells why once.
    pub(super) fn check(&self, reason: Reason, result: Result<()>) {
        if let Err(error) = result {
            let counter = self.0.get_or_create(&LossLabels { reason }).clone();
            if counter.inc() == 0 {
                eprintln!("hardenctl agent: {error:#}; from here on this is counted, and not logged");
            }
        }
    }
}

/// Counters of which there are no more than so many.
#[derive(Debug)]
struct Bounded<L> {
    family: Family<L, Counter>,
    used: HashMap<L, Instant>,
    other: L,
}

impl<L: Clone + Eq + std::hash::Hash> Bounded<L> {
    fn new(other: L) -> Self {
        Self { family: Family::default(), used: HashMap::new(), other }
    }

    fn count(&mut self, labels: L, more: u64, now: Instant) {
        if !self.used.contains_key(&labels) && self.used.len() >= MAX_SERIES {
            let idle: Vec<L> = self
                .used
                .iter()
                .filter(|(_, used)| now.duration_since(**used) > IDLE)
                .map(|(l, _)| l.clone())
                .collect();
            for labels in idle {
                self.used.remove(&labels);
                self.family.remove(&labels);
            }
            if self.used.len() >= MAX_SERIES {
                self.family.get_or_create(&self.other).inc_by(more);
                return;
            }
        }
        self.family.get_or_create(&labels).inc_by(more);
        self.used.insert(labels, now);
    }
}

/// All metrics that count or measure; [`Losses`] are beside them.
#[derive(Debug)]
pub(super) struct Metrics {
    denials: Bounded<DenialLabels>,
    refusals: Bounded<RefusalLabels>,
    containers: Family<ContainerLabels, Gauge>,
    shims: Gauge,
    memory: Family<MemoryLabels, Gauge<u64, AtomicU64>>,
}

/// What a record's denial is called where there must be few names: the system call, or the first right that was missing.
pub(super) fn operation(record: &Record) -> &str {
    let name = match record.enforcer {
        Enforcer::Seccomp => &record.resource,
        Enforcer::Landlock | Enforcer::AppArmor | Enforcer::SELinux => record.args.first().unwrap_or(&record.operation),
        Enforcer::Policy => &record.operation,
    };
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-' | b' ');
    if name.is_empty() || name.len() > 40 || !name.bytes().all(plain) { "other" } else { name }
}

impl Metrics {
    /// All of them, and a registry that encodes them.
    pub(super) fn new(losses: &Losses) -> (Self, Registry) {
        let other = || "other".to_owned();
        let labels =
            DenialLabels { namespace: other(), pod: other(), container: other(), enforcer: other(), resource: other() };
        let metrics = Self {
            denials: Bounded::new(labels),
            refusals: Bounded::new(RefusalLabels { namespace: other() }),
            containers: Family::default(),
            shims: Gauge::default(),
            memory: Family::default(),
        };
        let mut registry = Registry::with_prefix("hardened");
        let denials = metrics.denials.family.clone();
        registry.register(
            "denials",
            "What containers were denied; told at counts of 1, 10, 100 and so on, and at the container's end",
            denials,
        );
        registry.register("refusals", "Containers that may not start", metrics.refusals.family.clone());
        registry.register(
            "containers",
            "Containers of this runtime on the node, by their profiles",
            metrics.containers.clone(),
        );
        registry.register("shims", "Shims of these containers, one a pod", metrics.shims.clone());
        registry.register_with_unit(
            "shims_memory",
            "Resident memory of all shims: their own, and what they may share",
            Unit::Bytes,
            metrics.memory.clone(),
        );
        registry.register("agent_lost_records", "What is not told, by the reason", losses.0.clone());
        (metrics, registry)
    }

    /// Counts what a record tells beyond the ones before it.
    pub(super) fn count(&mut self, record: &Record, more: u64) {
        let now = Instant::now();
        let text = |text: &str| text.chars().take(253).collect::<String>();
        let namespace = text(&record.namespace_name);
        let enforcer = match record.enforcer {
            Enforcer::Seccomp => "seccomp",
            Enforcer::Landlock => "landlock",
            Enforcer::AppArmor => "apparmor",
            Enforcer::SELinux => "selinux",
            Enforcer::Policy => return self.refusals.count(RefusalLabels { namespace }, more, now),
        };
        let labels = DenialLabels {
            namespace,
            pod: text(&record.pod_name),
            // One that `ctr` started has an id alone.
            container: text(if record.pod_name.is_empty() { &record.container_id } else { &record.container_name }),
            enforcer: enforcer.to_owned(),
            resource: operation(record).to_owned(),
        };
        self.denials.count(labels, more, now);
    }

    /// Measures what is on the node.
    pub(super) fn measure(&self, containers: &Containers) {
        let mut profiles: BTreeMap<String, i64> = BTreeMap::new();
        for container in containers.iter() {
            *profiles.entry(container.standing.profiles().join("+")).or_default() += 1;
        }
        self.containers.clear();
        for (profile, count) in profiles {
            self.containers.get_or_create(&ContainerLabels { profile }).set(count);
        }
        let shims = containers.shims();
        self.shims.set(i64::try_from(shims.len()).unwrap_or(i64::MAX));
        let (own, shared) =
            shims.iter().map(|pid| process::memory(*pid)).fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1));
        for (kind, bytes) in [("anonymous", own), ("shareable", shared)] {
            self.memory.get_or_create(&MemoryLabels { kind }).set(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(registry: &Registry) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
        text
    }

    #[test]
    fn a_container_cannot_make_series_without_end() {
        let (mut metrics, registry) = Metrics::new(&Losses::default());
        for number in 0..3 * MAX_SERIES {
            let record =
                Record { pod_name: format!("pod-{number}"), resource: "unshare".to_owned(), ..Record::default() };
            metrics.count(&record, 2);
        }
        let text = text(&registry);
        assert_eq!(text.lines().filter(|line| line.starts_with("hardened_denials_total{")).count(), MAX_SERIES + 1);
        let other = format!("container=\"other\",enforcer=\"other\",resource=\"other\"}} {}", 4 * MAX_SERIES);
        assert!(text.contains(&other), "{}", text.lines().find(|line| line.contains("other")).unwrap_or_default());
    }

    #[test]
    fn a_series_that_rests_makes_room() {
        let now = Instant::now();
        let mut bounded = Bounded::new(RefusalLabels { namespace: "other".to_owned() });
        let labels = |number: usize| RefusalLabels { namespace: number.to_string() };
        for number in 0..MAX_SERIES {
            bounded.count(labels(number), 1, now);
        }
        let later = now + IDLE + Duration::from_secs(1);
        bounded.count(labels(7), 1, later - Duration::from_secs(10));
        bounded.count(labels(MAX_SERIES), 1, later);
        assert_eq!(bounded.used.len(), 2);
    }

    #[test]
    fn names_of_operations_are_few_and_plain() {
        let record = |enforcer, resource: &str, args: &[&str]| Record {
            enforcer,
            resource: resource.to_owned(),
            args: args.iter().map(|a| (*a).to_owned()).collect(),
            operation: "File".to_owned(),
            ..Record::default()
        };
        assert_eq!(operation(&record(Enforcer::Seccomp, "mount", &["x"])), "mount");
        assert_eq!(operation(&record(Enforcer::Landlock, "/etc/any\npath", &["fs.write_file", "x"])), "fs.write_file");
        assert_eq!(operation(&record(Enforcer::AppArmor, "/etc/any", &[])), "File");
        assert_eq!(operation(&record(Enforcer::Seccomp, "x\"} 1\n", &[])), "other");
    }

    #[test]
    fn what_fails_is_counted() {
        let losses = Losses::default();
        let (_, registry) = Metrics::new(&losses);
        losses.check(Reason::NotWritten, Err(anyhow::anyhow!("no space left on device")));
        losses.check(Reason::NotWritten, Ok(()));
        losses.count(Reason::Overrun, 3);
        let text = text(&registry);
        for line in ["{reason=\"NotWritten\"} 1", "{reason=\"Overrun\"} 3"] {
            assert!(text.contains(&format!("hardened_agent_lost_records_total{line}")), "{text}");
        }
    }
}
