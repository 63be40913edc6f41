//! Events to containerd: one queue, in order, kept while containerd restarts.

use std::time::{Duration, SystemTime};

use containerd_shim_protos::events::container::ContainerUpdate;
use containerd_shim_protos::events::task::{
    TaskCreate, TaskDelete, TaskExecAdded, TaskExecStarted, TaskExit, TaskOOM, TaskPaused, TaskResumed, TaskStart,
};
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::well_known_types::timestamp::Timestamp;
use containerd_shim_protos::protobuf::{Message, MessageField};
use containerd_shim_protos::shim::event::Envelope;
use containerd_shim_protos::shim::events::ForwardRequest;
use containerd_shim_protos::shim_async::{Client, EventsClient};
use containerd_shim_protos::topics;
use tokio::sync::mpsc;
use ttrpc::context;

/// Events that wait for containerd at most; the oldest ones are what a restarted containerd asks
/// for anew.
const QUEUE: usize = 2048;

/// How long one event is tried before it is given up: containerd is restarting.
const TRIES: u32 = 60;
const PAUSE: Duration = Duration::from_millis(500);
const TIMEOUT: Duration = Duration::from_secs(5);

/// An event for containerd.
pub(crate) trait Event: Message {
    const TOPIC: &'static str;
    const TYPE: &'static str;
}

macro_rules! events {
    ($($event:ident => $topic:ident),* $(,)?) => {
        $(impl Event for $event {
            const TOPIC: &'static str = topics::$topic;
            const TYPE: &'static str = concat!("containerd.events.", stringify!($event));
        })*
    };
}

events! {
    TaskCreate => TASK_CREATE_EVENT_TOPIC,
    TaskStart => TASK_START_EVENT_TOPIC,
    TaskExit => TASK_EXIT_EVENT_TOPIC,
    TaskDelete => TASK_DELETE_EVENT_TOPIC,
    TaskOOM => TASK_OOM_EVENT_TOPIC,
    TaskExecAdded => TASK_EXEC_ADDED_EVENT_TOPIC,
    TaskExecStarted => TASK_EXEC_STARTED_EVENT_TOPIC,
    TaskPaused => TASK_PAUSED_EVENT_TOPIC,
    TaskResumed => TASK_RESUMED_EVENT_TOPIC,
}

/// A privileged container that a rule of the node's policy lets through.
pub(crate) const PRIVILEGED_ADMITTED: &str = "/hardened/privileged-admitted";

/// A container that starts under an older Landlock than is demanded, since the policy takes that.
pub(crate) const LANDLOCK_REDUCED: &str = "/hardened/landlock-reduced";

/// What was taken from a container that nobody asked for by name; once for each that starts.
pub(crate) const TIGHTENED: &str = "/hardened/tightened";

/// Where events go.
#[derive(Debug, Clone)]
pub(crate) struct Publisher {
    namespace: String,
    queue: mpsc::Sender<Envelope>,
}

impl Publisher {
    /// Sends events to containerd's ttrpc socket. The returned task ends when every publisher is
    /// dropped and the queue is empty.
    pub(crate) fn start(address: String, namespace: String) -> (Self, tokio::task::JoinHandle<()>) {
        let (queue, envelopes) = mpsc::channel(QUEUE);
        (Self { namespace, queue }, tokio::spawn(forward(address, envelopes)))
    }

    /// Queues an event; the order of calls is the order that containerd sees.
    pub(crate) fn publish<E: Event>(&self, event: &E) {
        self.send(E::TOPIC, E::TYPE, event);
    }

    /// Queues an event about what was decided, for the node's admin: a type that containerd's clients know, on
    /// a topic of ours.
    pub(crate) fn publish_for_admin(&self, topic: &str, event: &ContainerUpdate) {
        self.send(topic, "containerd.events.ContainerUpdate", event);
    }

    fn send(&self, topic: &str, kind: &str, event: &impl Message) {
        let Ok(value) = event.write_to_bytes() else { return };
        // Packed by hand: protobuf's reflection would cost a pod a quarter of a megabyte.
        let any = Any { type_url: kind.to_owned(), value, ..Any::default() };
        let envelope = Envelope {
            timestamp: MessageField::some(timestamp(SystemTime::now())),
            namespace: self.namespace.clone(),
            topic: topic.to_owned(),
            event: MessageField::some(any),
            ..Envelope::default()
        };
        if self.queue.try_send(envelope).is_err() {
            log::error!("event {topic} dropped: {QUEUE} others wait for containerd");
        }
    }
}

pub(crate) fn timestamp(at: SystemTime) -> Timestamp {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(since.subsec_nanos()).unwrap_or(0),
        ..Timestamp::default()
    }
}

async fn forward(address: String, mut envelopes: mpsc::Receiver<Envelope>) {
    let mut client = None;
    while let Some(envelope) = envelopes.recv().await {
        let mut request = ForwardRequest::new();
        request.set_envelope(envelope);
        for attempt in 1..=TRIES {
            if client.is_none() {
                client = connect(&address).await;
            }
            if let Some(client) = &client {
                let timeout = i64::try_from(TIMEOUT.as_nanos()).unwrap_or(i64::MAX);
                match client.forward(context::with_timeout(timeout), &request).await {
                    Ok(_) => break,
                    Err(error) => log::warn!("publish an event, attempt {attempt}: {error}"),
                }
            }
            client = None;
            tokio::time::sleep(PAUSE).await;
        }
    }
}

async fn connect(address: &str) -> Option<EventsClient> {
    match Client::connect(&format!("unix://{address}")).await {
        Ok(client) => Some(EventsClient::new(client)),
        Err(error) => {
            log::warn!("connect to containerd at {address}: {error}");
            None
        }
    }
}
