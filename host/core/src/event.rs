//! The vocabulary: what can happen to the broker ([`Input`]), what it asks for ([`Effect`]), and what has to be on
//! disk ([`Change`]).
//!
//! All three are closed sums, matched without a catch-all. [`Effects`] is the one out-parameter of
//! [`Broker::handle`](crate::Broker::handle): effects and changes in the order in which they arose.
//!
//! An effect that promises something carries the number of the last change that the promise rests on; whoever
//! carries it out holds it until that number is durable. Number 0 rests on nothing.

use std::sync::Arc;

use crate::message::{Message, MessageId, Qos, Timestamp};
use crate::topic::{Topic, TopicFilter};

// ---------------------------------------------------------------------------------------------- identities

/// A network connection, named by whoever accepted it; never reused while the process lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// A session, durable or not; unique for the life of a data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// Position of a message in a session's queue or in a plugin's inbox. Grows with time across all sessions and is never
/// reused in the life of a data directory, so a plugin can use it to recognise an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Sequence(pub u64);

/// Number of a change since the broker started, from 1; 0 is before all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ChangeNumber(pub u64);

/// A shared subscription of a session, numbered upwards within the session: queue entries name by it the group that
/// they came through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShareNumber(pub std::num::NonZeroU16);

/// Names one [`Effect::Load`]; its answer brings it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LoadTicket(pub u64);

/// Packet identifier of a QoS 1 or 2 exchange: 1 to 65,535 [MQTT-2.2.1-3].
pub type PacketId = std::num::NonZeroU16;

/// A plugin's name: 1 to 64 of `a-z`, `0-9` and `-`, beginning with a letter (checked where manifests are read).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PluginName(pub Arc<str>);

// ---------------------------------------------------------------------------------------------- inputs

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
    /// A plugin's revision takes over: a first deploy, a swap or a rollback. One transaction sets the revision and its
    /// subscriptions; events that wait in the inbox stay there, even where no subscription of the new revision matches.
    ActivatePlugin { plugin: PluginName, activation: Box<Activation> },
    /// A plugin is removed with its inbox, its dead letters and its state.
    RemovePlugin { plugin: PluginName },
    /// A plugin is idle and takes up to `max` events, now or as soon as there are some; answered by one
    /// [`Effect::Events`]. At most one batch of a plugin is out at a time.
    TakeEvents { plugin: PluginName, max: usize },
    /// A plugin no longer wants what [`Input::TakeEvents`] asked for (it is being swapped or paused); answered by one
    /// [`Effect::TakeCancelled`] unless a batch is already out.
    CancelTake { plugin: PluginName },
    /// A plugin handled the batch that is out; state, publishes and acknowledgements are one transaction. Ignored, without
    /// an effect, where no batch is out or the plugin is gone.
    Settle { plugin: PluginName, settlement: Box<Settlement> },
    /// The batch that is out was not handled (the call was interrupted by a swap): its events go back, untouched.
    ReturnEvents { plugin: PluginName },
    /// What [`Effect::Load`] asked for: the next entries of the queue, in order; an empty list where there are no more,
    /// `None` where they cannot be read.
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
}

/// What became of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Handled: it leaves the inbox.
    Done,
    /// Failed: it is handed out again at this time, alone of its topic. Later events on its topic wait for it; others do
    /// not. Of the same batch, later events on its topic should be left unnamed, or they have overtaken it.
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
    pub key: Box<str>,
    /// The value, or `None` to delete.
    pub value: Option<Box<[u8]>>,
}

// ---------------------------------------------------------------------------------------------- effects

/// What the broker asks for.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "a variant says what its fields are; their types say the rest")]
pub enum Effect {
    /// Send a packet. Packets to one connection leave in the order of their effects, also where an earlier one is
    /// held for its change.
    Send { connection: ConnectionId, after: ChangeNumber, packet: Packet },
    /// Send the same PUBLISH to several connections. It rests on nothing. Stands for a [`Effect::Send`] to each, in order.
    FanOut(Box<FanOut>),
    /// Close a connection once what was sent before has left. A 5.0 client is told `reason` in a DISCONNECT. The broker
    /// has forgotten the connection; no [`Input::ConnectionLost`] is needed, and one does no harm.
    Close { connection: ConnectionId, after: ChangeNumber, reason: ReasonCode },
    /// The batch for a plugin that asked with [`Input::TakeEvents`]; never empty.
    Events { plugin: PluginName, events: Vec<InboxEvent> },
    /// [`Input::CancelTake`] is done: no batch is out, and none comes until the next [`Input::TakeEvents`].
    TakeCancelled { plugin: PluginName },
    /// Read entries of a client's durable queue: those behind `after`, in order, up to `max` of them and about `max_bytes` of
    /// [weight](Message::weight), one at the least. The read must see every change up to `change`. Answered by one
    /// [`Input::Loaded`].
    Load { ticket: LoadTicket, session: SessionId, after: Sequence, max: usize, max_bytes: usize, change: ChangeNumber },
    /// A settlement is complete once `after` is durable.
    Settled { plugin: PluginName, after: ChangeNumber },
    /// A revision is active once `after` is durable. `session` names the plugin's inbox and its state.
    PluginActivated { plugin: PluginName, session: SessionId, revision: u32, after: ChangeNumber },
    /// An activation is refused: it would exceed [`Limits`](crate::Limits). Nothing has changed.
    PluginRefused { plugin: PluginName, reason: ReasonCode },
    /// A plugin is gone once `after` is durable.
    PluginRemoved { plugin: PluginName, after: ChangeNumber },
    /// Something was dropped at a bound or by the rules; to be counted, and logged where it is rare.
    Dropped { reason: DropReason, count: u32 },
}

/// A packet from the broker to a client, to be encoded for the client's protocol.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "a variant says what its fields are; their types say the rest")]
pub enum Packet {
    /// CONNACK that accepts. What only the connection knows (keep-alive, packet size, aliases) it adds itself.
    Connack { session_present: bool, session_expiry_s: Option<u32>, assigned_client_id: Option<Arc<str>> },
    /// CONNACK that refuses; the connection closes after it.
    Refused { reason: ReasonCode },
    /// PUBLISH.
    Publish(Delivery),
    /// PUBACK, PUBREC, PUBREL or PUBCOMP.
    Acknowledge { packet_id: PacketId, step: AcknowledgeStep, reason: ReasonCode },
    /// SUBACK: a granted QoS or a refusal for each filter, in order.
    Suback { packet_id: PacketId, reasons: Vec<ReasonCode> },
    /// UNSUBACK: one reason for each filter, in order.
    Unsuback { packet_id: PacketId, reasons: Vec<ReasonCode> },
}

/// A PUBLISH to one client.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    /// What is delivered; shared by all that get it.
    pub message: Arc<Message>,
    /// `Some` exactly for QoS 1 and 2.
    pub packet_id: Option<PacketId>,
    /// QoS of this delivery.
    pub qos: Qos,
    /// RETAIN flag of this delivery.
    pub retain: bool,
    /// DUP flag of this delivery.
    pub dup: bool,
    /// Seconds of message expiry that remain (5.0) [MQTT-3.3.2-6].
    pub expiry_s: Option<u32>,
    /// Subscription Identifiers of the subscriptions it matches (5.0).
    pub subscription_identifiers: Option<Arc<[u32]>>,
}

/// An event as a plugin gets it.
#[derive(Debug, Clone, PartialEq)]
pub struct InboxEvent {
    /// Its identity.
    pub sequence: Sequence,
    /// The message.
    pub message: Arc<Message>,
    /// QoS of the delivery.
    pub qos: Qos,
    /// Whether this is a retained message, sent because the plugin had just subscribed.
    pub retain: bool,
    /// Times it was handed out and failed since the broker started; handing it back untouched does not count.
    pub attempt: u32,
}

/// A PUBLISH to several clients.
#[derive(Debug, Clone, PartialEq)]
pub struct FanOut {
    /// What each of them gets; the packet identifiers stand with the receivers.
    pub delivery: Delivery,
    /// Who gets it.
    pub to: Vec<Receiver>,
}

/// One who gets a [`FanOut`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receiver {
    /// On this connection.
    pub connection: ConnectionId,
    /// Under this identifier; `Some` exactly for QoS 1 and 2.
    pub packet_id: Option<PacketId>,
}

/// Why something was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DropReason {
    /// A session's queue is full.
    QueueFull,
    /// The message expired before it could be delivered.
    Expired,
    /// The message is larger than the client takes [MQTT-3.1.2-25].
    TooLargeForClient,
    /// A plugin's inbox is full; a QoS 0 publish to it is lost, a QoS 1 or 2 publish is refused. What cannot be refused
    /// (a will, a plugin's own publish) becomes a dead letter.
    InboxFull,
    /// No further message can be retained; a publish that cannot be refused is delivered and not retained.
    RetainedFull,
    /// A plugin's dead letters are full; the oldest went.
    DeadLettersFull,
    /// A plugin that was removed still had events waiting.
    PluginRemoved,
    /// Nothing can be made durable at present, and the publish cannot be refused: it is delivered and not retained, or
    /// not kept for a durable session.
    StorageFailed,
}

impl DropReason {
    /// Every reason, in the order of their declaration, with a name for counters.
    pub const ALL: [(Self, &'static str); 8] = [
        (Self::QueueFull, "queue_full"),
        (Self::Expired, "expired"),
        (Self::TooLargeForClient, "too_large_for_client"),
        (Self::InboxFull, "inbox_full"),
        (Self::RetainedFull, "retained_full"),
        (Self::DeadLettersFull, "dead_letters_full"),
        (Self::PluginRemoved, "plugin_removed"),
        (Self::StorageFailed, "storage_failed"),
    ];
}

/// Reason codes (MQTT 5.0 section 2.4) that the core uses; the connection turns them into what 3.1.1 has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ReasonCode {
    /// Success, normal disconnection, granted QoS 0.
    Success = 0x00,
    /// Granted QoS 1.
    GrantedQos1 = 0x01,
    /// Granted QoS 2.
    GrantedQos2 = 0x02,
    /// The message was taken and nobody subscribes to it.
    NoMatchingSubscribers = 0x10,
    /// UNSUBSCRIBE of a filter that was not subscribed to.
    NoSubscriptionExisted = 0x11,
    /// An error for which there is no better code.
    UnspecifiedError = 0x80,
    /// A packet that cannot be parsed.
    MalformedPacket = 0x81,
    /// A packet that comes where it may not, or says what it may not.
    ProtocolError = 0x82,
    /// Valid, and not accepted by this broker.
    ImplementationSpecificError = 0x83,
    /// The protocol version is not spoken here.
    UnsupportedProtocolVersion = 0x84,
    /// The client identifier is not accepted.
    ClientIdentifierNotValid = 0x85,
    /// User name, password or the data of an authentication exchange are not right.
    BadUserNameOrPassword = 0x86,
    /// Not allowed.
    NotAuthorized = 0x87,
    /// The broker does not take connections now.
    ServerUnavailable = 0x88,
    /// The broker is busy; try again later.
    ServerBusy = 0x89,
    /// The broker is stopping.
    ServerShuttingDown = 0x8B,
    /// The authentication method is not offered, or is not the one that was agreed on.
    BadAuthenticationMethod = 0x8C,
    /// Nothing came for 1.5 times the keep-alive.
    KeepAliveTimeout = 0x8D,
    /// Another connection uses the same client identifier.
    SessionTakenOver = 0x8E,
    /// The topic filter is not accepted.
    TopicFilterInvalid = 0x8F,
    /// The topic name is not accepted.
    TopicNameInvalid = 0x90,
    /// The packet identifier is in use.
    PacketIdentifierInUse = 0x91,
    /// The packet identifier is not in use.
    PacketIdentifierNotFound = 0x92,
    /// More publishes in flight than Receive Maximum allows.
    ReceiveMaximumExceeded = 0x93,
    /// A topic alias that is 0, too large or unknown.
    TopicAliasInvalid = 0x94,
    /// A packet larger than Maximum Packet Size.
    PacketTooLarge = 0x95,
    /// A bound of the broker is reached.
    QuotaExceeded = 0x97,
    /// Closed by an operator's action.
    AdministrativeAction = 0x98,
    /// The payload is not of the format announced.
    PayloadFormatInvalid = 0x99,
    /// Another server takes the client for now.
    UseAnotherServer = 0x9C,
    /// Shared subscriptions are not offered.
    SharedSubscriptionsNotSupported = 0x9E,
}

impl ReasonCode {
    /// Whether the code stands for a failure (0x80 and above).
    pub fn is_error(self) -> bool {
        self as u8 >= 0x80
    }
}

// ---------------------------------------------------------------------------------------------- changes

/// What has to survive a restart. A broker restored from all changes, in order, equals the one that made them.
///
/// The changes of one [`Input`] belong into one transaction.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "a variant says what its fields are; their types say the rest")]
pub enum Change {
    /// Identifiers (sessions, messages, sequences) below this are used up; the next start begins here.
    IdentifiersReserved { below: u64 },
    /// A durable session exists, or what is known of it changed. `connected` says whether a client was there.
    SessionStored { session: SessionId, record: Box<SessionRecord> },
    /// A session ended: everything under its identifier goes.
    SessionRemoved { session: SessionId },
    /// A durable session, or a plugin, subscribed; replaces a subscription to the same filter.
    Subscribed { session: SessionId, filter: TopicFilter, subscription: SubscriptionRecord },
    /// A durable session, or a plugin, unsubscribed.
    Unsubscribed { session: SessionId, filter: TopicFilter },
    /// A message that at least one durable queue is about to hold. It goes when no queue holds it any more; whoever keeps
    /// changes counts its entries.
    MessageStored { message: MessageId, content: Arc<Message> },
    /// A message entered a durable session's queue, or a plugin's inbox. With a `packet_id` it is in flight at once.
    Queued { session: SessionId, sequence: Sequence, entry: QueueEntry },
    /// A queued message is in flight under this identifier.
    Sent { session: SessionId, sequence: Sequence, packet_id: PacketId },
    /// A QoS 2 message is received by the client (PUBREC): from now on only PUBREL is sent.
    Released { session: SessionId, sequence: Sequence },
    /// A message left a queue or an inbox: acknowledged, handled, expired or dropped.
    Dequeued { session: SessionId, sequence: Sequence, message: MessageId },
    /// How much a client's queue holds. Never recorded: a store gives it back in place of the entries, which are loaded
    /// when the client comes.
    QueueKept { session: SessionId, messages: u64, bytes: u64 },
    /// A QoS 2 message came from this client under this identifier, and was routed.
    Received { session: SessionId, packet_id: PacketId },
    /// The exchange under this identifier ended (PUBREL).
    ReceivedReleased { session: SessionId, packet_id: PacketId },
    /// A topic's retained message; replaces the one before.
    Retained { message: Arc<Message> },
    /// A topic has no retained message any more.
    RetainedCleared { topic: Topic },
    /// A plugin's active revision. `session` holds its inbox and its subscriptions.
    PluginActivated { plugin: PluginName, session: SessionId, revision: Revision },
    /// A plugin is gone with its history; its session is removed by its own change.
    PluginRemoved { plugin: PluginName },
    /// A plugin's state changed. The broker does not keep state; only the store does.
    StateWritten { session: SessionId, write: StateWrite },
    /// An event was given up. The broker keeps its number only.
    DeadLettered { session: SessionId, sequence: Sequence, letter: DeadLetter },
    /// A dead letter was dropped to make room.
    DeadLetterDropped { session: SessionId, sequence: Sequence },
}

/// What is kept of a durable session.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionRecord {
    /// Its client; empty for a session that has ended and whose queue is still to be given to others.
    pub client_id: Arc<str>,
    /// Seconds that it outlives a connection; `u32::MAX` for ever.
    pub session_expiry_s: u32,
    /// Since when it has no client; `None` while connected.
    pub disconnected_at: Option<Timestamp>,
    /// The will that is still to be published or cancelled.
    pub will: Option<Box<Will>>,
}

/// What is kept of a subscription.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SubscriptionRecord {
    /// What was asked for.
    pub options: SubscriptionOptions,
    /// The Subscription Identifier.
    pub identifier: Option<u32>,
    /// Set exactly for a shared subscription.
    pub share: Option<ShareNumber>,
}

/// An entry of a durable queue or of an inbox.
#[derive(Debug, Clone, PartialEq)]
pub struct QueueEntry {
    /// The message.
    pub message: MessageId,
    /// QoS of the delivery.
    pub qos: Qos,
    /// RETAIN flag of the delivery.
    pub retain: bool,
    /// Subscription Identifiers that the delivery carries.
    pub subscription_identifiers: Option<Arc<[u32]>>,
    /// The identifier it is in flight under, if it is.
    pub packet_id: Option<PacketId>,
    /// The shared subscription it came through, if it did.
    pub share: Option<ShareNumber>,
    /// [Weight](Message::weight) of the message, in bytes.
    pub weight: u32,
}

/// An event that a plugin could not handle.
#[derive(Debug, Clone, PartialEq)]
pub struct DeadLetter {
    /// The event's message.
    pub content: Arc<Message>,
    /// Why it was given up.
    pub reason: Arc<str>,
    /// Times it was handed out.
    pub attempts: u32,
    /// When it was given up.
    pub at: Timestamp,
}

// ---------------------------------------------------------------------------------------------- effects list

/// Where [`Broker::handle`](crate::Broker::handle) leaves what it asks for. Kept and reused by the caller.
#[derive(Debug, Default)]
pub struct Effects {
    /// What is to be done, in order.
    pub list: Vec<Effect>,
    /// What has to be made durable, in order; the changes of several inputs may stand here together, and then go into
    /// one transaction.
    pub changes: Vec<Change>,
    /// Number of the last change ever recorded here or before.
    last: ChangeNumber,
    /// Receivers in the fan-outs of the list, since [`Self::begin`].
    receivers: usize,
}

impl Effect {
    /// The effects that a fan-out stands for; any other stands for itself.
    pub fn unfold(self) -> Vec<Self> {
        let Self::FanOut(fan_out) = self else { return vec![self] };
        let FanOut { delivery, to } = *fan_out;
        let send = |Receiver { connection, packet_id }| {
            let packet = Packet::Publish(Delivery { packet_id, ..delivery.clone() });
            Self::Send { connection, after: ChangeNumber(0), packet }
        };
        to.into_iter().map(send).collect()
    }
}

/// Fan-outs at the end of the list that a further receiver may belong to: those of one message, by QoS and RETAIN.
const OPEN_FAN_OUTS: usize = 4;

impl Effects {
    /// The list is empty, and counts anew.
    pub fn begin(&mut self) {
        self.receivers = 0;
    }

    /// How much is to be done: effects, each receiver of a fan-out for one.
    pub fn size(&self) -> usize {
        self.list.len() + self.receivers
    }

    /// A fan-out of this message to which a receiver can be added.
    pub(crate) fn open_fan_out(&mut self, message: &Arc<Message>, qos: Qos, retain: bool) -> Option<&mut FanOut> {
        let place = self.list.iter().rev().take(OPEN_FAN_OUTS).position(|effect| match effect {
            Effect::FanOut(fan_out) => {
                let delivery = &fan_out.delivery;
                Arc::ptr_eq(&delivery.message, message) && delivery.qos == qos && delivery.retain == retain
            }
            _ => false,
        })?;
        let place = self.list.len() - 1 - place;
        self.receivers += 1;
        match &mut self.list[place] {
            Effect::FanOut(fan_out) => Some(fan_out),
            _ => None,
        }
    }

    /// Records a change and gives its number.
    pub(crate) fn record(&mut self, change: Change) -> ChangeNumber {
        self.changes.push(change);
        self.last.0 += 1;
        self.last
    }

    /// Counts what was dropped; the same in a row is one effect.
    pub(crate) fn drop_counted(&mut self, reason: DropReason, more: u32) {
        match self.list.last_mut() {
            Some(Effect::Dropped { reason: last, count }) if *last == reason => *count = count.saturating_add(more),
            Some(_) | None => self.list.push(Effect::Dropped { reason, count: more }),
        }
    }

    /// Number of the last change if one was recorded after `before`; 0 if none was.
    pub(crate) fn since(&self, before: ChangeNumber) -> ChangeNumber {
        if self.last > before { self.last } else { ChangeNumber(0) }
    }

    /// Number of the last change recorded.
    pub fn last_change(&self) -> ChangeNumber {
        self.last
    }
}
