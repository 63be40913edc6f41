//! Events on pods: what they were denied, where their author looks first.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use hardened_sandbox::record::{Enforcer, Record};
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, PostParams};
use kube::{Client, Config};
use tokio::sync::mpsc;

use super::metrics::{Losses, Reason, operation};
use crate::records::{printable, what};

/// How long no further event is sent for the same operation of a pod.
const QUIET: Duration = Duration::from_secs(300);

/// Operations of pods that are remembered for that.
const MAX_TOLD: usize = 4096;

/// Events that the agent makes at once, after a while without.
const BURST: u32 = 50;

/// Then, one in so long.
const REFILL: Duration = Duration::from_secs(10);

/// Longest message that the API takes of an Event, in bytes.
const MAX_MESSAGE_BYTES: usize = 1024;

/// Events that wait for the API server.
const MAX_QUEUE: usize = 64;

/// How long the API server has for one.
const PATIENCE: Duration = Duration::from_secs(10);

/// What decides which denials become Events.
#[derive(Debug)]
pub(super) struct Limit {
    told: HashMap<(String, Enforcer, String), Instant>,
    tokens: u32,
    filled: Instant,
}

impl Limit {
    fn new(now: Instant) -> Self {
        Self { told: HashMap::new(), tokens: BURST, filled: now }
    }

    /// Whether to send an event for a denial; `None` if it would exceed the rate.
    fn allows(&mut self, record: &Record, now: Instant) -> Option<bool> {
        let key = (record.pod_uid.clone(), record.enforcer, operation(record).to_owned());
        if self.told.get(&key).is_some_and(|last| now.duration_since(*last) < QUIET) {
            return Some(false);
        }
        self.told.retain(|_, last| now.duration_since(*last) < QUIET);
        while self.tokens < BURST && now.duration_since(self.filled) >= REFILL {
            self.tokens += 1;
            self.filled += REFILL;
        }
        if self.tokens == BURST {
            self.filled = now;
        }
        if self.tokens == 0 || self.told.len() >= MAX_TOLD {
            return None;
        }
        self.tokens -= 1;
        self.told.insert(key, now);
        Some(true)
    }
}

/// Who makes them.
#[derive(Debug)]
pub(super) struct Events {
    limit: Limit,
    /// What was recorded before is old news.
    since: i64,
    queue: mpsc::Sender<Event>,
    losses: Losses,
}

impl Events {
    /// Connects as `kubectl` does: by `KUBECONFIG`, or as the pod's service account.
    pub(super) async fn new(losses: &Losses) -> Result<Self> {
        let config = Config::infer().await.context("find the cluster, by KUBECONFIG or as a pod of it")?;
        let client = Client::try_from(config).context("prepare to speak to the API server")?;
        let (queue, mut waiting) = mpsc::channel::<Event>(MAX_QUEUE);
        let counted = losses.clone();
        tokio::spawn(async move {
            while let Some(event) = waiting.recv().await {
                counted.check(Reason::EventNotMade, create(&client, &event).await);
            }
        });
        let since = Timestamp::now().as_second();
        Ok(Self { limit: Limit::new(Instant::now()), since, queue, losses: losses.clone() })
    }

    /// Makes an Event of a record, if it is one of a pod and there are not too many.
    pub(super) fn tell(&mut self, record: &Record) {
        // Of a refused container the kubelet makes one itself.
        let of_pod =
            !record.pod_uid.is_empty() && record.kind == "MatchedPolicy" && record.enforcer != Enforcer::Policy;
        if !of_pod || record.timestamp < self.since {
            return;
        }
        match self.limit.allows(record, Instant::now()) {
            Some(true) if self.queue.try_send(event(record)).is_ok() => {}
            Some(false) => {}
            Some(true) | None => self.losses.count(Reason::EventLimit, 1),
        }
    }
}

async fn create(client: &Client, event: &Event) -> Result<()> {
    let namespace = event.metadata.namespace.as_deref().unwrap_or_default();
    let api: Api<Event> = Api::namespaced(client.clone(), namespace);
    let created = tokio::time::timeout(PATIENCE, api.create(&PostParams::default(), event)).await;
    let created = created.with_context(|| format!("make an Event in {namespace}: no answer within {PATIENCE:?}"))?;
    created.with_context(|| format!("make an Event in {namespace} (it takes the right to create events)")).map(drop)
}

fn event(record: &Record) -> Event {
    let now = Timestamp::now();
    // As client-go names them: of one pod, at most one in a nanosecond.
    let name = format!("{}.{:x}", record.pod_name, now.as_nanosecond());
    Event {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: Some(record.namespace_name.clone()),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(record.namespace_name.clone()),
            name: Some(record.pod_name.clone()),
            uid: Some(record.pod_uid.clone()),
            field_path: Some(format!("spec.containers{{{}}}", record.container_name)),
            ..ObjectReference::default()
        },
        type_: Some("Warning".to_owned()),
        reason: Some("SandboxDenied".to_owned()),
        message: Some(message(record)),
        source: Some(EventSource {
            component: Some("hardened-agent".to_owned()),
            host: Some(record.host_name.clone()),
        }),
        count: Some(1),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        ..Event::default()
    }
}

/// What was denied, why, by which rule, and what would allow it.
fn message(record: &Record) -> String {
    let setting = match &record.setting {
        Some(setting) => format!("Allow it: {setting}"),
        None => "No setting allows it".to_owned(),
    };
    let text = format!(
        "{} was denied {} ({}) by {}: {}. {setting}",
        record.container_name,
        what(record),
        record.result,
        record.policy_name,
        record.message
    );
    let mut text = printable(&text);
    let end = (0..=MAX_MESSAGE_BYTES).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.truncate(end);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(pod: &str, call: &str) -> Record {
        Record {
            namespace_name: "shop".to_owned(),
            pod_name: pod.to_owned(),
            pod_uid: format!("uid-{pod}"),
            container_name: "web".to_owned(),
            resource: call.to_owned(),
            operation: "Syscall".to_owned(),
            kind: "MatchedPolicy".to_owned(),
            result: "EPERM".to_owned(),
            policy_name: "profile baseline".to_owned(),
            message: "it is a reason\n\u{1b}[31m".to_owned(),
            ..Record::default()
        }
    }

    #[test]
    fn an_operation_is_told_of_once_in_a_while_and_all_are_bounded() {
        let now = Instant::now();
        let mut limit = Limit::new(now);
        assert_eq!(limit.allows(&record("a", "mount"), now), Some(true));
        assert_eq!(limit.allows(&record("a", "mount"), now + QUIET / 2), Some(false));
        assert_eq!(limit.allows(&record("a", "mount"), now + QUIET), Some(true));
        let now = now + QUIET;
        let told = (0..200).filter(|n| limit.allows(&record(&n.to_string(), "mount"), now) == Some(true)).count();
        assert_eq!(told, BURST as usize - 1);
        assert_eq!(limit.allows(&record("b", "bpf"), now + REFILL), Some(true));
        assert_eq!(limit.allows(&record("c", "bpf"), now + REFILL), None);
    }

    #[test]
    fn a_message_says_what_would_allow_it_and_has_a_bound() {
        let told = message(&record("a", "mount"));
        let expected =
            r"web was denied mount() (EPERM) by profile baseline: it is a reason\n\u{1b}[31m. No setting allows it";
        assert_eq!(told, expected);
        let long = Record { message: "é".repeat(2000), setting: Some("x".to_owned()), ..record("a", "mount") };
        assert!(message(&long).len() <= MAX_MESSAGE_BYTES);
    }
}
