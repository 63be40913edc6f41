//! What a container was denied, by kind, and when that is written down: a container that is denied the same a million
//! times makes seven lines.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::{SecondsFormat, Utc};
use hardened_sandbox::record::{ExecEvent, Record, VERSION};
use hardened_sandbox::seccomp::Call;
use hardened_sandbox::{Admission, Explanation, Filters, telling_argument};
use nix::errno::Errno;

use super::bucket::Bucket;
use super::caller::Caller;
use super::file::EventFile;

/// Kinds of denials that are kept of a container.
const MAX_KINDS: usize = 64;

/// Kinds that differ by the argument alone: others of the call are one kind more. A container that is denied the same call
/// with ever other arguments hides no other call.
const MAX_KINDS_OF_A_CALL: usize = 4;

/// How long before its end a denial may be what a container ended of.
const SUSPECT: Duration = Duration::from_secs(10);

/// The containers of a pod, as far as they share what their shim does for them.
#[derive(Debug, Default, Clone)]
pub(crate) struct Pod(Arc<()>);

impl Pod {
    /// How many containers have a handle on it.
    fn containers(&self) -> usize {
        // One is the shim's.
        Arc::strong_count(&self.0) - 1
    }
}

/// Denials that are one to a person. Compared for each call, and so without what is in memory elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Kind {
    arch: u32,
    number: u32,
    argument: Option<u64>,
    /// The command line of the exec that it comes from.
    command: Option<u64>,
}

/// One kind of denial, and what of it is written.
#[derive(Debug)]
struct Told {
    record: Record,
    last: Instant,
    written: u64,
}

/// What is told of the first denial of a kind.
pub(super) struct First {
    pub(super) caller: Caller,
    pub(super) exec: Option<ExecEvent>,
    pub(super) errno: u16,
    pub(super) explained: Explanation,
}

/// What a container was denied.
#[derive(Debug)]
pub(crate) struct Denials {
    pod: Pod,
    filters: Filters,
    /// What every record of the container has.
    about: Record,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    bucket: Bucket,
    kinds: HashMap<Kind, Told>,
    /// Denials of kinds that are not listed.
    unlisted: Option<Told>,
    file: EventFile,
}

impl Denials {
    pub(crate) fn new(pod: Pod, namespace: &str, id: &str, admission: &Admission) -> Self {
        let identity = admission.identity();
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let host_name = nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned();
        let about = Record {
            version: VERSION,
            host_name,
            namespace_name: text(&identity.namespace),
            pod_name: text(&identity.pod),
            container_name: text(&identity.container),
            container_id: id.to_owned(),
            container_image: text(&identity.image),
            action: "Block".to_owned(),
            ..Record::default()
        };
        let inner = Inner {
            bucket: Bucket::full(Instant::now()),
            kinds: HashMap::new(),
            unlisted: None,
            file: EventFile::new(namespace, id),
        };
        Self { pod, filters: admission.filters().clone(), about, inner: Mutex::new(inner) }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The container's id.
    pub(super) fn container(&self) -> &str {
        &self.about.container_id
    }

    pub(super) fn explain(&self, call: &Call) -> Explanation {
        self.filters.explain(call)
    }

    /// Leave to answer one more call, or how long there is none.
    pub(super) fn take_token(&self) -> Result<(), Duration> {
        let containers = self.pod.containers();
        self.inner().bucket.take(Instant::now(), containers)
    }

    pub(super) fn kind(&self, call: &Call, command: Option<u64>) -> Kind {
        let argument = telling_argument(self.filters.arch(), call);
        let kind = Kind { arch: call.arch, number: call.number, argument, command };
        let kinds = &self.inner().kinds;
        let of_call = |other: &&Kind| (other.arch, other.number) == (kind.arch, kind.number);
        if kinds.contains_key(&kind) || kinds.keys().filter(of_call).count() < MAX_KINDS_OF_A_CALL {
            kind
        } else {
            Kind { argument: None, command: None, ..kind }
        }
    }

    /// Whether it is the first of its kind, and will be listed.
    pub(super) fn is_new(&self, kind: &Kind) -> bool {
        let inner = self.inner();
        inner.kinds.len() < MAX_KINDS && !inner.kinds.contains_key(kind)
    }

    /// Counts a denial, and writes it down where its count is 1, 10, 100 and so on.
    pub(super) fn note(&self, kind: Kind, first: impl FnOnce() -> First) {
        let mut inner = self.inner();
        let Inner { kinds, unlisted, file, .. } = &mut *inner;
        let now = Instant::now();
        let is_full = kinds.len() >= MAX_KINDS;
        let told = match kinds.get_mut(&kind) {
            Some(told) => told,
            None if is_full => unlisted.get_or_insert_with(|| Told { record: self.unlisted(), last: now, written: 0 }),
            None => kinds.entry(kind).or_insert(Told { record: self.record(first()), last: now, written: 0 }),
        };
        told.record.count += 1;
        told.last = now;
        if is_power_of_ten(told.record.count) {
            told.write(file);
        }
    }

    /// Writes down how often each was denied in the end; and says what was denied shortly before.
    pub(crate) fn close(&self) -> Option<String> {
        let mut inner = self.inner();
        let Inner { kinds, unlisted, file, .. } = &mut *inner;
        for told in kinds.values_mut().chain(unlisted.as_mut()) {
            if told.record.count > told.written {
                told.write(file);
            }
        }
        let last = kinds.values().chain(unlisted.as_ref()).max_by_key(|told| told.last)?;
        (last.last.elapsed() < SUSPECT).then(|| summary(&last.record))
    }

    fn record(&self, first: First) -> Record {
        let First { caller, exec, errno, explained } = first;
        let Explanation { call, argument, denied_by, reason, setting, tags } = explained;
        let arguments = argument.as_ref().map(|argument| format!(" {argument}")).unwrap_or_default();
        Record {
            first_seen: now(),
            exec_event: exec,
            host_pid: caller.pid,
            pid: caller.own_pid,
            uid: caller.uid,
            process_name: caller.program,
            comm: caller.comm,
            kind: "MatchedPolicy".to_owned(),
            operation: "Syscall".to_owned(),
            data: format!("syscall=SYS_{}{arguments}", call.to_uppercase()),
            resource: call,
            args: argument.into_iter().collect(),
            result: format!("{:?}", Errno::from_raw(errno.into())),
            policy_name: denied_by.join("; "),
            message: reason,
            setting,
            tags: tags.join(","),
            ..self.about.clone()
        }
    }

    fn unlisted(&self) -> Record {
        Record {
            first_seen: now(),
            kind: "SystemEvent".to_owned(),
            operation: "AlertThreshold".to_owned(),
            message: format!(
                "the container was denied more than {MAX_KINDS} kinds of calls; the others are not listed"
            ),
            ..self.about.clone()
        }
    }
}

impl Told {
    fn write(&mut self, file: &EventFile) {
        let now = Utc::now();
        self.record.timestamp = now.timestamp();
        self.record.updated_time = now.to_rfc3339_opts(SecondsFormat::Micros, true);
        self.written = self.record.count;
        if let Err(error) = file.append(&self.record) {
            log::warn!("a denial is not written down: {error:#}");
        }
    }
}

fn now() -> String {
    Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// A denial in a few words, for a log line. What is in it is this program's own.
fn summary(record: &Record) -> String {
    let arguments = record.args.join(", ");
    let call = if record.resource.is_empty() { "a system call" } else { &record.resource };
    let setting =
        record.setting.as_ref().map_or_else(|| "no setting allows it".to_owned(), |s| format!("allow it by {s}"));
    format!("{call}({arguments}), {} by {}: {} ({setting})", record.result, record.policy_name, record.message)
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
}
