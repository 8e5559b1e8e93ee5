//! What has to survive a restart.

use std::sync::Arc;

use super::{
    PacketId, PluginName, Revision, Sequence, SessionId, ShareNumber, StateWrite, SubscriptionOptions, Timer, Will,
};
use crate::message::{Message, MessageId, Qos, Timestamp};
use crate::topic::{Topic, TopicFilter};

/// What has to survive a restart. A broker restored from all changes, in order, equals the one that made them.
///
/// The changes of one [`Input`](super::Input) belong into one transaction.
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
    /// A message that at least one durable queue is about to hold. It goes when no queue holds it any more; whoever
    /// keeps changes counts its entries.
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
    /// A plugin's active revision. `session` holds its inbox, its timers and its subscriptions, `state` is the generation
    /// of its state in use: under the name of the session itself at first. Ends a probation before it: what was kept for
    /// that goes, and so does a generation that is neither in use nor kept for the probation that begins.
    PluginActivated {
        plugin: PluginName,
        session: SessionId,
        revision: Revision,
        state: SessionId,
        probation: Option<Box<ProbationRecord>>,
    },
    /// A plugin is gone with its history and the generations of its state; its session is removed by its own change.
    PluginRemoved { plugin: PluginName },
    /// A further generation of a plugin's state exists, and is empty.
    GenerationBegun { plugin: PluginName, state: SessionId },
    /// The further generation of a plugin's state is gone.
    GenerationDropped { plugin: PluginName, state: SessionId },
    /// A plugin's state changed. The broker does not keep state; only the store does. With `undo`, the plugin is on probation
    /// and in the generation of the revision before: the value that the key had at the switch is kept.
    StateWritten { state: SessionId, write: StateWrite, undo: bool },
    /// An event was handled on probation: it leaves the inbox, and is kept in case of a rollback.
    Kept { session: SessionId, sequence: Sequence },
    /// An event that was kept is in the inbox again, as [replayed](QueueEntry::replayed).
    PutBack { session: SessionId, sequence: Sequence },
    /// A probation ended: what was kept for it and is not put back goes, and so does the generation that is not in use any
    /// more. With `undone`, the values that keys had at the switch are restored first.
    ProbationEnded { plugin: PluginName, session: SessionId, undone: bool },
    /// A plugin's timer; replaces one of the same name.
    TimerSet { session: SessionId, name: Arc<str>, timer: Timer },
    /// A plugin's timer is gone: fallen due, answered or cancelled.
    TimerCancelled { session: SessionId, name: Arc<str> },
    /// An event was given up. The broker keeps its number only.
    DeadLettered { session: SessionId, sequence: Sequence, letter: DeadLetter },
    /// A dead letter was dropped, to make room or by an operator, or is an event again.
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
    /// Whether a revision that was rolled back has handled it before.
    pub replayed: bool,
}

/// What is kept of the revision to which a probation may go back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbationRecord {
    /// The revision.
    pub revision: Revision,
    /// Its generation of the state.
    pub state: SessionId,
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
