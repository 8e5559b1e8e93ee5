//! What has to survive a restart.

use std::sync::Arc;

use super::{PacketId, PluginName, Revision, Sequence, SessionId, ShareNumber, StateWrite, SubscriptionOptions, Will};
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
