//! What the broker asks for, and the list where it leaves that.

use std::sync::Arc;

use super::{
    AcknowledgeStep, Change, ChangeNumber, CommitTicket, ConnectionId, Lane, LoadTicket, PacketId, PluginName,
    ReasonCode, Sequence, SessionId,
};
use crate::message::{Message, Qos};

/// What the broker asks for.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "a variant says what its fields are; their types say the rest")]
pub enum Effect {
    /// Send a packet. Packets to one connection leave in the order of their effects, also where an earlier one is
    /// held for its change.
    Send { connection: ConnectionId, after: ChangeNumber, packet: Packet },
    /// Send the same PUBLISH to several connections. It rests on nothing. Stands for a [`Effect::Send`] to each, in
    /// order.
    FanOut(Box<FanOut>),
    /// Close a connection once what was sent before has left. A 5.0 client is told `reason` in a DISCONNECT. The broker
    /// has forgotten the connection; no [`Input::ConnectionLost`](super::Input::ConnectionLost) is needed, and one does
    /// no harm.
    Close { connection: ConnectionId, after: ChangeNumber, reason: ReasonCode },
    /// The batch for a lane that asked with [`Input::TakeEvents`](super::Input::TakeEvents); never empty.
    Events { plugin: PluginName, lane: Lane, events: Vec<InboxEvent> },
    /// [`Input::CancelTake`](super::Input::CancelTake) is done: no batch of the lane is out, and none comes until the next
    /// [`Input::TakeEvents`](super::Input::TakeEvents).
    TakeCancelled { plugin: PluginName, lane: Lane },
    /// Read entries of a client's durable queue: those behind `after`, in order, up to `max` of them and about
    /// `max_bytes` of [weight](Message::weight), one at the least. The read must see every change up to `change`.
    /// Answered by one [`Input::Loaded`](super::Input::Loaded).
    Load { ticket: LoadTicket, session: SessionId, after: Sequence, max: usize, max_bytes: usize, change: ChangeNumber },
    /// A settlement is complete once `after` is durable.
    Settled { plugin: PluginName, lane: Lane, after: ChangeNumber },
    /// What [`Input::Commit`](super::Input::Commit) brought is complete once `after` is durable.
    Committed { plugin: PluginName, ticket: CommitTicket, after: ChangeNumber },
    /// Events are spread over lanes as was asked.
    LanesArranged { plugin: PluginName },
    /// So many dead letters were handed out again or dropped, once `after` is durable.
    DeadLettersChanged { plugin: PluginName, count: u32, after: ChangeNumber },
    /// A step towards a new generation is complete once `after` is durable; `state` names the generation, if one is left.
    GenerationStepped { plugin: PluginName, state: Option<SessionId>, after: ChangeNumber },
    /// A revision is active once `after` is durable. `session` names the plugin's inbox, `state` its state.
    PluginActivated { plugin: PluginName, session: SessionId, state: SessionId, revision: u32, after: ChangeNumber },
    /// A probation is over once `after` is durable: the revision stays, also where so many events were handled that no more
    /// are kept; or the one before is active, and so many events were put back. `state` names the plugin's state.
    ProbationEnded { plugin: PluginName, rolled_back: bool, put_back: u32, state: SessionId, after: ChangeNumber },
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
    /// Times it was handed out and failed since the broker started or the revision became active; handing it back
    /// untouched does not count.
    pub attempt: u32,
    /// Whether a revision that was rolled back has handled it before: its writes are wanted, and what it publishes has
    /// gone out already.
    pub replayed: bool,
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
    /// A plugin has as many timers as it may; the one that it set is not there.
    TimersFull,
    /// A plugin that was removed still had events waiting.
    PluginRemoved,
    /// Nothing can be made durable at present, and the publish cannot be refused: it is delivered and not retained, or
    /// not kept for a durable session.
    StorageFailed,
}

impl DropReason {
    /// Every reason, in the order of their declaration, with a name for counters.
    pub const ALL: [(Self, &'static str); 9] = [
        (Self::QueueFull, "queue_full"),
        (Self::Expired, "expired"),
        (Self::TooLargeForClient, "too_large_for_client"),
        (Self::InboxFull, "inbox_full"),
        (Self::RetainedFull, "retained_full"),
        (Self::DeadLettersFull, "dead_letters_full"),
        (Self::TimersFull, "timers_full"),
        (Self::PluginRemoved, "plugin_removed"),
        (Self::StorageFailed, "storage_failed"),
    ];
}

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
    /// What deliveries rest on at present beside what they rest on by themselves.
    hold: Hold,
}

/// What deliveries rest on beside what they rest on by themselves. What a plugin does must not show before it is durable, to
/// whomever.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Hold {
    /// This change; 0 for none.
    upon: ChangeNumber,
    /// The changes of their group, which are those recorded after this one: they become durable together.
    since: Option<ChangeNumber>,
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

    /// From here on deliveries rest on the changes that follow `before`, too; gives what they rested on so far.
    pub(crate) fn hold_since(&mut self, before: ChangeNumber) -> Hold {
        let hold = Hold { since: Some(before), ..self.hold };
        std::mem::replace(&mut self.hold, hold)
    }

    /// From here on deliveries rest on this change, too; gives what they rested on so far.
    pub(crate) fn hold_upon(&mut self, change: ChangeNumber) -> Hold {
        let hold = Hold { upon: self.hold.upon.max(change), ..self.hold };
        std::mem::replace(&mut self.hold, hold)
    }

    /// From here on deliveries rest on what they rested on before.
    pub(crate) fn let_hold(&mut self, before: Hold) {
        self.hold = before;
    }

    /// The change that a delivery rests on because of what led to it; 0 for none.
    pub(crate) fn held(&self) -> ChangeNumber {
        self.hold.upon.max(self.hold.since.map_or(ChangeNumber(0), |before| self.since(before)))
    }

    /// The change that a delivery of a later input rests on because of what leads to it now; 0 for none. Of a group it is
    /// the first, which may still be to come: see [`Self::recorded`].
    pub(crate) fn held_later(&self) -> ChangeNumber {
        self.hold.since.map_or(self.hold.upon, |before| ChangeNumber(before.0 + 1))
    }

    /// What an earlier input said with [`Self::held_later`], as a change that there is.
    pub(crate) fn recorded(&self, change: ChangeNumber) -> ChangeNumber {
        change.min(self.last)
    }

    /// What was pushed from `place` on, while nothing of its group was recorded, rests on the group after all.
    pub(crate) fn rest_upon(&mut self, place: usize, change: ChangeNumber) {
        for effect in self.list.split_off(place) {
            if let Effect::FanOut(fan_out) = &effect {
                self.receivers = self.receivers.saturating_sub(fan_out.to.len() - 1);
            }
            self.list.extend(effect.unfold().into_iter().map(|mut effect| {
                if let Effect::Send { after, .. } | Effect::Close { after, .. } = &mut effect {
                    *after = change.max(*after);
                }
                effect
            }));
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
