//! What can happen to the broker.

use std::sync::Arc;

use super::{
    CommitTicket, ConnectionId, Lane, LoadTicket, PacketId, PluginName, QueueEntry, ReasonCode, Sequence, Timer,
};
use crate::message::{Message, Qos, Timestamp};
use crate::topic::TopicFilter;

/// What can happen to the broker.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "a variant says what its fields are; their types say the rest")]
pub enum Input {
    /// The first input after [`Broker::restore`](crate::Broker::restore): clients that were connected when the
    /// process ended are now gone, so their expiry clocks start and their wills fall due.
    Started,
    /// A client asked to connect, on a connection not seen before.
    Connect { connection: ConnectionId, connect: Box<Connect> },
    /// A client published.
    Publish { connection: ConnectionId, publish: Publish },
    /// A client acknowledged, or released, one step of a QoS 1 or 2 exchange.
    Acknowledge { connection: ConnectionId, packet_id: PacketId, step: AcknowledgeStep, reason: ReasonCode },
    /// A client subscribed.
    Subscribe { connection: ConnectionId, subscribe: Box<Subscribe> },
    /// A client unsubscribed.
    Unsubscribe { connection: ConnectionId, packet_id: PacketId, filters: Vec<TopicFilter> },
    /// A client said DISCONNECT. The connection closes itself.
    Disconnect { connection: ConnectionId, disconnect: Disconnect },
    /// A connection ended without DISCONNECT: closed by its peer, broken, silent for 1.5 times its keep-alive, or
    /// closed by us for a protocol error. The will falls due.
    ConnectionLost { connection: ConnectionId },
    /// A connection wrote publishes of this total [weight](Message::weight) to its socket, so that more may follow.
    Written { connection: ConnectionId, bytes: usize },
    /// A turn ends: does what is due by `now` (see [`Broker::next_deadline`](crate::Broker::next_deadline)) and hands
    /// waiting events to plugins that asked for some.
    Tick,
    /// A plugin's revision takes over: a first deploy, a swap or a rollback. One transaction sets the revision, its
    /// subscriptions, its schedules and its generation of the state; events that wait in the inbox stay there, even where
    /// no subscription of the new revision matches. No batch may be out. A probation under way ends: its revision stays.
    ActivatePlugin { plugin: PluginName, activation: Box<Activation> },
    /// A plugin is removed with its inbox, its dead letters and its state.
    RemovePlugin { plugin: PluginName },
    /// A lane of a plugin is idle and takes up to `max` events, now or as soon as there are some; answered by one
    /// [`Effect::Events`](super::Effect::Events). At most one batch of a lane is out at a time.
    TakeEvents { plugin: PluginName, lane: Lane, max: usize },
    /// A lane no longer wants what [`Input::TakeEvents`] asked for (its plugin is being swapped or paused); answered by one
    /// [`Effect::TakeCancelled`](super::Effect::TakeCancelled) unless a batch is already out.
    CancelTake { plugin: PluginName, lane: Lane },
    /// The batch of a lane that is out was handled; state, publishes, timers and acknowledgements are one transaction.
    /// Ignored, without an effect, where no batch is out or the plugin is gone.
    Settle { plugin: PluginName, lane: Lane, settlement: Box<Settlement> },
    /// The batch of a lane that is out was not handled (the call was interrupted by a swap): its events go back, untouched.
    ReturnEvents { plugin: PluginName, lane: Lane },
    /// What a call that belongs to no event came to (a request to the plugin's HTTP service): the outcomes of the settlement
    /// are none. Answered by one [`Effect::Committed`](super::Effect::Committed), unless the plugin is gone.
    Commit { plugin: PluginName, ticket: CommitTicket, settlement: Box<Settlement> },
    /// A plugin's events are spread over lanes in another way. No batch may be out; demands are forgotten. Answered by
    /// [`Effect::LanesArranged`](super::Effect::LanesArranged).
    ArrangeLanes { plugin: PluginName, lanes: Lanes },
    /// Dead letters of a plugin are handed out again, as new events, or dropped; those that are not there any more are passed
    /// over. Answered by [`Effect::DeadLettersChanged`](super::Effect::DeadLettersChanged).
    ChangeDeadLetters { plugin: PluginName, letters: Vec<(Sequence, DeadLetterAction)> },
    /// A step towards a new generation of a plugin's state, beside the one in use. Answered by
    /// [`Effect::GenerationStepped`](super::Effect::GenerationStepped). A generation that is not in use when the process
    /// ends is dropped at the next start.
    Generation { plugin: PluginName, step: GenerationStep },
    /// The probation of a plugin's revision is over. Answered by
    /// [`Effect::ProbationEnded`](super::Effect::ProbationEnded); ignored where there is none. To roll back, no batch
    /// may be out.
    EndProbation { plugin: PluginName, verdict: ProbationVerdict },
    /// What [`Effect::Load`](super::Effect::Load) asked for: the next entries of the queue, in order; an empty list
    /// where there are no more, `None` where they cannot be read.
    Loaded { ticket: LoadTicket, entries: Option<Vec<LoadedEntry>> },
    /// Changes cannot be made durable at present. From now on what needs to be durable is refused.
    StorageFailed,
    /// All changes so far are durable, and further ones will be.
    StorageRecovered,
}

/// Which MQTT a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// MQTT 3.1.1 (protocol level 4).
    V3,
    /// MQTT 5.0 (protocol level 5).
    V5,
}

/// CONNECT, understood.
#[derive(Debug, Clone, PartialEq)]
pub struct Connect {
    /// The client's protocol.
    pub protocol: Protocol,
    /// Client identifier; where the client sent none, the one the connection made up for it.
    pub client_id: Arc<str>,
    /// Whether the broker made the identifier up, so that a 5.0 client is told [MQTT-3.2.2-16].
    pub client_id_assigned: bool,
    /// Clean Start (5.0) or Clean Session (3.1.1): an existing session ends first.
    pub clean_start: bool,
    /// Seconds that the session outlives the connection; `u32::MAX` for ever. A 3.1.1 client has 0 with Clean Session
    /// and `u32::MAX` without.
    pub session_expiry_s: u32,
    /// QoS 1 and 2 publishes the client takes unacknowledged; 65,535 where it does not say.
    pub receive_maximum: u16,
    /// Largest packet the client takes, in bytes with its header; `None` for no bound.
    pub maximum_packet_size: Option<u32>,
    /// The message to publish when the connection is lost.
    pub will: Option<Box<Will>>,
    /// User name that the client was authenticated by, or gave where nobody asks for proof.
    pub user: Option<Arc<str>>,
    /// Address of its socket, for those who observe clients; may be empty.
    pub address: Box<str>,
}

/// A will (section 3.1.2.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Will {
    /// The message. `received_at` and `expires_at` are set when it is published.
    pub message: Message,
    /// Message expiry interval in seconds, counted from publication.
    pub expiry_s: Option<u32>,
    /// Seconds between the loss of the connection and publication; 0 for at once.
    pub delay_s: u32,
}

/// PUBLISH from a client, understood; topic aliases are already resolved.
#[derive(Debug, Clone, PartialEq)]
pub struct Publish {
    /// `Some` exactly for QoS 1 and 2.
    pub packet_id: Option<PacketId>,
    /// The DUP flag: the client may have sent this packet before.
    pub dup: bool,
    /// The message.
    pub message: Message,
}

/// A step of a QoS 1 or 2 exchange, as either side sends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcknowledgeStep {
    /// PUBACK: QoS 1 done.
    Puback,
    /// PUBREC: QoS 2 received.
    Pubrec,
    /// PUBREL: QoS 2 released.
    Pubrel,
    /// PUBCOMP: QoS 2 done.
    Pubcomp,
}

/// SUBSCRIBE, understood.
#[derive(Debug, Clone, PartialEq)]
pub struct Subscribe {
    /// Answered with the same identifier.
    pub packet_id: PacketId,
    /// Subscription Identifier, 1 to 268,435,455, which deliveries for these filters carry (5.0).
    pub identifier: Option<u32>,
    /// What is asked for, in order. A filter that could not be taken carries the reason instead.
    pub filters: Vec<Result<(TopicFilter, SubscriptionOptions), ReasonCode>>,
}

/// Subscription options (section 3.8.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SubscriptionOptions {
    /// Highest QoS of deliveries.
    pub maximum_qos: Qos,
    /// No Local: not to the client that published.
    pub no_local: bool,
    /// Retain As Published: keep the RETAIN flag as it came.
    pub retain_as_published: bool,
    /// When retained messages are sent.
    pub retain_handling: RetainHandling,
}

/// When retained messages are sent for a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RetainHandling {
    /// At every SUBSCRIBE (0); what 3.1.1 does.
    AtSubscribe,
    /// Only if the subscription did not exist (1).
    IfNew,
    /// Never (2).
    Never,
}

/// DISCONNECT from a client, understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disconnect {
    /// Whether the will is published all the same (reason 0x04).
    pub with_will: bool,
    /// A new session expiry interval in seconds, if the client gave one.
    pub session_expiry_s: Option<u32>,
}

/// What a plugin's new revision brings.
#[derive(Debug, Clone, PartialEq)]
pub struct Activation {
    /// The revision.
    pub revision: Revision,
    /// What the plugin listens to from now on; replaces all it had.
    pub subscriptions: Vec<(TopicFilter, Qos)>,
    /// How its events are spread over lanes.
    pub lanes: Lanes,
    /// Timers by name that the revision's manifest declares; each has a schedule. They replace those that an earlier
    /// revision's declared; one of the same name and schedule goes on as it is.
    pub schedules: Vec<(Arc<str>, Timer)>,
    /// Whether the generation that was filled by [`Input::Generation`] becomes the one in use.
    pub new_generation: bool,
    /// Whether the revision is on probation: until [`Input::EndProbation`], what is needed to go back is kept. There has to
    /// be a revision to go back to.
    pub probation: bool,
}

/// How a plugin's events are spread over batches that may be out at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lanes {
    /// Lanes, 1 or more.
    pub count: u16,
    /// Events of one key are in one lane, in order.
    pub key: EventKey,
    /// Share of the keys, in percent, whose events go to a further lane, the last.
    pub canary_percent: u8,
}

/// What of an event keeps its place in the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKey {
    /// Its topic.
    Topic,
    /// The client identifier of its publisher.
    Publisher,
    /// One level of its topic, counted from 0; of a topic that is shorter, the topic.
    Level(u16),
}

/// What becomes of a dead letter.
#[derive(Debug, Clone, PartialEq)]
pub enum DeadLetterAction {
    /// It enters the inbox again, with this content, which whoever keeps dead letters has read.
    Replay(Arc<Message>),
    /// It is dropped.
    Drop,
}

/// A step towards a new generation of a plugin's state.
#[derive(Debug, Clone, PartialEq)]
pub enum GenerationStep {
    /// An empty one is begun; one that was begun before is dropped.
    Begin,
    /// It is written to.
    Write(Vec<StateWrite>),
    /// It is dropped.
    Drop,
}

/// How a probation ends.
#[derive(Debug, Clone, PartialEq)]
pub enum ProbationVerdict {
    /// The revision stays.
    Keep,
    /// The revision before is active again, as this one, with the state as it was at the switch. What was handled since
    /// then enters its inbox again in the old order, marked as [replayed](super::InboxEvent::replayed); what was given up
    /// since then, unmarked.
    RollBack(Box<Activation>),
}

/// One deployed version of a plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision {
    /// Counts deploys of this plugin from 1.
    pub number: u32,
    /// SHA-256 of the component's bytes, under which the component is kept.
    pub digest: [u8; 32],
    /// Version from the manifest, for people.
    pub version: Arc<str>,
    /// When it was activated.
    pub activated_at: Timestamp,
}

/// What handling a batch came to. Outcomes, publishes and writes are in the order of the events that caused them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Settlement {
    /// What became of each event; an event of the batch that is not named goes back untouched.
    pub outcomes: Vec<(Sequence, Outcome)>,
    /// Messages to publish, from events that are `Done`.
    pub publishes: Vec<Message>,
    /// State to write, from events that are `Done`.
    pub writes: Vec<StateWrite>,
    /// Timers to set or cancel, from events that are `Done`.
    pub timers: Vec<TimerWrite>,
    /// Clients to disconnect, from events that are `Done`.
    pub disconnects: Vec<Arc<str>>,
}

/// A timer that is set, or cancelled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimerWrite {
    /// Its name within the plugin: characters that a topic name may have. A name that begins with
    /// [`REQUEST_TIMER`](super::REQUEST_TIMER) stands for a request that waits for its answer.
    pub name: Arc<str>,
    /// The timer, or `None` to cancel.
    pub timer: Option<Timer>,
}

/// What became of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Handled: it leaves the inbox.
    Done,
    /// Failed: it is handed out again at this time, alone of its key. Later events of its key wait for it; others
    /// do not. Of the same batch, later events of its key should be left unnamed, or they have overtaken it.
    RetryAt(Timestamp),
    /// Given up: it becomes a dead letter, with the reason.
    DeadLetter(Arc<str>),
}

/// An entry of a durable queue, read back.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadedEntry {
    /// Its place in the queue.
    pub sequence: Sequence,
    /// The entry.
    pub entry: QueueEntry,
    /// Whether the client has received it (PUBREC).
    pub released: bool,
    /// The message that it refers to.
    pub content: Arc<Message>,
}

/// One write to a plugin's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateWrite {
    /// The key.
    pub key: Arc<str>,
    /// The value, or `None` to delete.
    pub value: Option<Arc<[u8]>>,
    /// When the value is gone by itself; `None` for never.
    pub expires_at: Option<Timestamp>,
}

impl Activation {
    /// A revision with these subscriptions, one lane, no schedules, the generation in use, and no probation.
    pub fn plain(revision: Revision, subscriptions: Vec<(TopicFilter, Qos)>) -> Self {
        let (lanes, schedules) = (Lanes::default(), Vec::new());
        Self { revision, subscriptions, lanes, schedules, new_generation: false, probation: false }
    }
}

impl StateWrite {
    /// A value that stays, or `None` to delete the key.
    pub fn lasting(key: impl Into<Arc<str>>, value: Option<Arc<[u8]>>) -> Self {
        Self { key: key.into(), value, expires_at: None }
    }
}

impl Default for Lanes {
    /// One lane, in which events that failed hold back those of their topic.
    fn default() -> Self {
        Self { count: 1, key: EventKey::Topic, canary_percent: 0 }
    }
}
