//! What a container was denied: which calls count as the same, and what is reported of them.

use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hardened_node::events::{EventFile, Tally, Writer};
use hardened_node::process::Process;
use hardened_sandbox::record::{ExecEvent, Record};
use hardened_sandbox::seccomp::Call;
use hardened_sandbox::{Admission, Explanation, Filters, Identity, Refusal, telling_argument};
use nix::errno::Errno;

use super::bucket::Bucket;

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

/// What is reported of the first denial of a kind.
pub(super) struct First {
    pub(super) caller: Process,
    pub(super) exec: Option<ExecEvent>,
    pub(super) errno: u16,
    pub(super) explained: Explanation,
}

/// What a container was denied.
#[derive(Debug)]
pub(crate) struct Denials {
    pod: Pod,
    filters: Filters,
    container: String,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    bucket: Bucket,
    tally: Tally<Kind>,
}

impl Denials {
    pub(crate) fn new(pod: Pod, namespace: &str, id: &str, admission: &Admission) -> Self {
        let tally = tally(namespace, id, admission.identity());
        let inner = Inner { bucket: Bucket::full(Instant::now()), tally };
        Self { pod, filters: admission.filters().clone(), container: id.to_owned(), inner: Mutex::new(inner) }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The container's id.
    pub(super) fn container(&self) -> &str {
        &self.container
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
        let inner = self.inner();
        let of_call = |other: &&Kind| (other.arch, other.number) == (kind.arch, kind.number);
        if inner.tally.has(&kind) || inner.tally.kinds().filter(of_call).count() < MAX_KINDS_OF_A_CALL {
            kind
        } else {
            Kind { argument: None, command: None, ..kind }
        }
    }

    /// Whether it is the first of its kind, and will be listed.
    pub(super) fn is_new(&self, kind: &Kind) -> bool {
        self.inner().tally.is_new(kind)
    }

    /// Counts a denial, and writes it down where its count is 1, 10, 100 and so on.
    pub(super) fn note(&self, kind: Kind, first: impl FnOnce() -> First) {
        told(self.inner().tally.note(kind, |about| record(about, first())));
    }

    /// Writes down how often each was denied in the end; and says what was denied shortly before.
    pub(crate) fn close(&self) -> Option<String> {
        let mut inner = self.inner();
        told(inner.tally.close());
        let (record, when) = inner.tally.last()?;
        (when.elapsed() < SUSPECT).then(|| summary(record))
    }
}

/// Writes down that a container may not start: where what others are denied stands, its author finds it too.
pub(crate) fn refused(namespace: &str, id: &str, refusal: &Refusal) {
    told(tally(namespace, id, refusal.identity()).note((), |about| refusal.record(about)));
}

/// Of a container's denials none yet.
fn tally<K: Eq + Hash>(namespace: &str, id: &str, identity: &Identity) -> Tally<K> {
    let host = nix::unistd::gethostname().unwrap_or_default();
    Tally::new(Record::about(&host.to_string_lossy(), id, identity), EventFile::new(namespace, id, Writer::Shim))
}

fn told(written: anyhow::Result<()>) {
    if let Err(error) = written {
        log::warn!("a denial was not recorded: {error:#}");
    }
}

fn record(about: &Record, first: First) -> Record {
    let First { caller, exec, errno, explained } = first;
    let Explanation { call, argument, denied_by, reason, setting, tags } = explained;
    let arguments = argument.as_ref().map(|argument| format!(" {argument}")).unwrap_or_default();
    Record {
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
        ..about.clone()
    }
}

/// A denial in a few words, for a log line. What is in it is this program's own.
fn summary(record: &Record) -> String {
    let arguments = record.args.join(", ");
    let call = if record.resource.is_empty() { "a system call" } else { &record.resource };
    let setting =
        record.setting.as_ref().map_or_else(|| "no setting allows it".to_owned(), |s| format!("allow it by {s}"));
    format!("{call}({arguments}), {} by {}: {} ({setting})", record.result, record.policy_name, record.message)
}
