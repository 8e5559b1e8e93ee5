//! Delivery to one session: at once where its window and its output have room, through its queue where not.
//!
//! The order of deliveries to a session is that of its queue: nothing overtakes what waits.

use std::sync::Arc;

use super::stored::Parcel;
use super::{Broker, packet_size};
use crate::event::{
    AcknowledgeStep, Change, ChangeNumber, ConnectionId, Delivery, DropReason, Effect, Effects, FanOut, Packet,
    PacketId, QueueEntry, ReasonCode, Receiver, ShareNumber,
};
use crate::key::SessionKey;
use crate::message::{Message, Qos, Timestamp};
use crate::session::Session;
use crate::session::outbound::{Entry, Resend};
use crate::session::window::{InFlight, Place};

/// Who gets a message, and how.
#[derive(Debug)]
pub(super) struct Addressee {
    /// The session.
    pub(super) session: SessionKey,
    /// QoS of the delivery.
    pub(super) qos: Qos,
    /// RETAIN flag of the delivery.
    pub(super) retain: bool,
    /// The shared subscription it goes through, if it does.
    pub(super) share: Option<ShareNumber>,
    /// Subscription Identifiers of the delivery.
    pub(super) identifiers: Option<Arc<[u32]>>,
}

impl Broker {
    /// Gives a message to a session.
    pub(super) fn deliver(&mut self, now: Timestamp, to: Addressee, parcel: &mut Parcel, effects: &mut Effects) {
        let session = &self.sessions[to.session];
        if session.inbox.is_some() {
            return self.deliver_to_inbox(now, &to, parcel, effects);
        }
        let may_go = session.unwritten_bytes < self.limits.unwritten_bytes
            && match to.qos {
                // The order between QoS 0 and what is on disk is nobody's [MQTT-4.6.0-5].
                Qos::AtMostOnce => !session.outbound.has_waiting(),
                Qos::AtLeastOnce | Qos::ExactlyOnce => {
                    session.outbound.is_drained() && session.has_window(self.limits.inflight_messages)
                }
            };
        match session.connection {
            Some(connection) if may_go => self.send_at_once(now, connection, to, parcel, effects),
            None if to.qos == Qos::AtMostOnce => {}
            Some(_) | None => {
                let key = to.session;
                self.enqueue(now, to, parcel, effects);
                self.refill(key, effects);
            }
        }
    }

    fn send_at_once(
        &mut self,
        now: Timestamp,
        connection: ConnectionId,
        to: Addressee,
        parcel: &mut Parcel,
        effects: &mut Effects,
    ) {
        let session = &mut self.sessions[to.session];
        let message = &parcel.message;
        if session.is_too_large(message, to.qos, to.identifiers.as_deref()) {
            return self.drop_for(to.session, DropReason::TooLargeForClient, message, effects);
        }
        session.unwritten_bytes += parcel.weight;
        let packet_id = (to.qos != Qos::AtMostOnce).then(|| session.outbound.window.next_packet_id());
        let mut after = ChangeNumber(0);
        if let Some(packet_id) = packet_id {
            let (qos, share, weight) = (to.qos, to.share, parcel.noted_weight());
            let mut place = Place::default();
            let mut content = None;
            if session.durable {
                (place, after) = self.store_entry(&to, Some(packet_id), parcel, effects);
            } else if share.is_some() {
                content = Some(message.clone());
                session.rest_upon(effects.held_later());
            }
            let in_flight = InFlight { packet_id, share, qos, released: false, counted: true, weight, place, content };
            self.sessions[to.session].outbound.push_in_flight(in_flight);
        }
        let after = after.max(effects.held());
        let message = &parcel.message;
        let folds = parcel.has_many_receivers && after == ChangeNumber(0) && to.identifiers.is_none();
        if folds && let Some(fan_out) = effects.open_fan_out(message, to.qos, to.retain) {
            return fan_out.to.push(Receiver { connection, packet_id });
        }
        let delivery = Delivery {
            message: message.clone(),
            packet_id,
            qos: to.qos,
            retain: to.retain,
            dup: false,
            expiry_s: remaining_s(message, now),
            subscription_identifiers: to.identifiers,
        };
        effects.list.push(if folds {
            Effect::FanOut(Box::new(FanOut { delivery, to: vec![Receiver { connection, packet_id }] }))
        } else {
            Effect::Send { connection, after, packet: Packet::Publish(delivery) }
        });
    }

    fn enqueue(&mut self, now: Timestamp, to: Addressee, parcel: &mut Parcel, effects: &mut Effects) {
        if parcel.message.is_expired(now) {
            return self.drop_for(to.session, DropReason::Expired, &parcel.message, effects);
        }
        let key = to.session;
        let durable = self.sessions[key].durable && to.qos != Qos::AtMostOnce;
        while self.queue_is_full(key, durable, parcel.weight)
            && self.sessions[key].outbound.next_queued().is_some_and(|entry| entry.message.is_expired(now))
        {
            self.drop_queued(key, DropReason::Expired, effects);
        }
        if self.queue_is_full(key, durable, parcel.weight) {
            self.drop_for(key, DropReason::QueueFull, &parcel.message, effects);
            return self.look_for_expired(now, key, effects);
        }
        if !durable {
            let entry = Entry::new(to, Place::default(), parcel.message.clone());
            self.sessions[key].rest_upon(effects.held_later());
            return self.sessions[key].outbound.push_queued(entry);
        }
        let (place, _) = self.store_entry(&to, None, parcel, effects);
        let outbound = &mut self.sessions[key].outbound;
        outbound.backlog.expires |= parcel.message.expires_at.is_some();
        let (messages, bytes) = outbound.buffered();
        let has_client = self.sessions[key].connection.is_some();
        let outbound = &mut self.sessions[key].outbound;
        let fits = messages < self.limits.window_messages && bytes + parcel.weight <= self.limits.window_bytes;
        if has_client && outbound.backlog.messages == 0 && (fits || messages == 0) {
            outbound.push_queued(Entry::new(to, place, parcel.message.clone()));
        } else {
            outbound.push_backlog(parcel.noted_weight());
        }
    }

    /// Whether the queue takes no more: what is on disk, or what is in memory alone.
    fn queue_is_full(&self, key: SessionKey, durable: bool, weight: usize) -> bool {
        let (outbound, limits) = (&self.sessions[key].outbound, &self.limits);
        if durable {
            outbound.queued() >= limits.queued_messages as u64
                || outbound.queued_bytes() + weight as u64 > limits.queued_bytes as u64
        } else {
            let (messages, bytes) = outbound.buffered();
            messages >= limits.buffered_messages || bytes + weight > limits.buffered_bytes
        }
    }

    /// Puts an entry of a durable session on disk.
    fn store_entry(
        &mut self,
        to: &Addressee,
        packet_id: Option<PacketId>,
        parcel: &mut Parcel,
        effects: &mut Effects,
    ) -> (Place, ChangeNumber) {
        let message = parcel.store(&mut self.identifiers, effects);
        let sequence = self.identifiers.sequence(effects);
        let entry = QueueEntry {
            message,
            qos: to.qos,
            retain: to.retain,
            replayed: false,
            subscription_identifiers: to.identifiers.clone(),
            packet_id,
            share: to.share,
            weight: parcel.noted_weight(),
        };
        let session = self.sessions[to.session].id;
        let after = effects.record(Change::Queued { session, sequence, entry });
        (Place { sequence, message }, after)
    }

    /// Lets go of an entry that has left a queue or the window.
    pub(super) fn let_go(&mut self, key: SessionKey, place: Place, effects: &mut Effects) {
        if place.is_on_disk() {
            let (session, Place { sequence, message }) = (self.sessions[key].id, place);
            effects.record(Change::Dequeued { session, sequence, message });
        }
    }

    fn drop_queued(&mut self, key: SessionKey, reason: DropReason, effects: &mut Effects) {
        if let Some(entry) = self.sessions[key].outbound.pop_queued() {
            self.let_go(key, entry.place, effects);
            self.drop_for(key, reason, &entry.message, effects);
        }
    }

    /// Sends what waits, as far as the window and the output have room.
    pub(super) fn pump(&mut self, now: Timestamp, key: SessionKey, effects: &mut Effects) {
        let Some(connection) = self.sessions[key].connection else { return };
        loop {
            let session = &self.sessions[key];
            if session.unwritten_bytes >= self.limits.unwritten_bytes {
                break;
            }
            let moved = if session.outbound.next_resend().is_some() {
                self.resend_next(now, key, connection, effects)
            } else {
                self.send_next(now, key, connection, effects)
            };
            if !moved {
                break;
            }
        }
        if !self.sessions[key].greetings.is_empty() {
            self.go_on_greeting(now, key, effects);
        }
        self.refill(key, effects);
    }

    /// Sends the next message of the queue, or drops it; says whether it did.
    fn send_next(&mut self, now: Timestamp, key: SessionKey, connection: ConnectionId, effects: &mut Effects) -> bool {
        let session = &mut self.sessions[key];
        let Some(entry) = session.outbound.next_queued() else { return false };
        if entry.message.is_expired(now) {
            self.drop_queued(key, DropReason::Expired, effects);
            return true;
        }
        let qos = entry.qos;
        if qos != Qos::AtMostOnce && !session.has_window(self.limits.inflight_messages) {
            return false;
        }
        let packet_id = (qos != Qos::AtMostOnce).then(|| session.outbound.window.next_packet_id());
        let Some(delivery) = session.outbound.next_queued().map(|entry| entry.delivery(now, packet_id)) else {
            return false;
        };
        if session.is_too_large(&delivery.message, delivery.qos, delivery.subscription_identifiers.as_deref()) {
            self.drop_queued(key, DropReason::TooLargeForClient, effects);
            return true;
        }
        session.unwritten_bytes += delivery.message.weight();
        let mut after = effects.recorded(session.rests_on);
        if let (Some(entry), Some(packet_id)) = (session.outbound.pop_queued(), packet_id) {
            if entry.place.is_on_disk() {
                let (session, sequence) = (session.id, entry.place.sequence);
                after = effects.record(Change::Sent { session, sequence, packet_id });
            }
            session.outbound.window.push(entry.in_flight(packet_id, session.durable));
        }
        effects.list.push(Effect::Send { connection, after, packet: Packet::Publish(delivery) });
        true
    }

    /// Sends again the next message or release that was in flight before a reconnect [MQTT-4.4.0-1]; says whether it
    /// did. Nothing has to be waited for: the CONNACK before it rested on every change of the session.
    fn resend_next(
        &mut self,
        now: Timestamp,
        key: SessionKey,
        connection: ConnectionId,
        effects: &mut Effects,
    ) -> bool {
        let after = ChangeNumber(0);
        let session = &mut self.sessions[key];
        let Some(next) = session.outbound.next_resend() else { return false };
        if !next.released && session.outbound.window.unacknowledged() >= usize::from(session.receive_maximum) {
            return false;
        }
        let Some(Resend { packet_id, released, entry }) = session.outbound.pop_resend() else { return false };
        if released {
            let packet = Packet::Acknowledge { packet_id, step: AcknowledgeStep::Pubrel, reason: ReasonCode::Success };
            effects.list.push(Effect::Send { connection, after, packet });
            let in_flight = InFlight { released, counted: false, ..entry.in_flight(packet_id, true) };
            session.outbound.window.push(in_flight);
            return true;
        }
        let delivery = Delivery { dup: true, ..entry.delivery(now, Some(packet_id)) };
        if session.is_too_large(&delivery.message, delivery.qos, delivery.subscription_identifiers.as_deref()) {
            self.drop_for(key, DropReason::TooLargeForClient, &delivery.message, effects);
            self.let_go(key, entry.place, effects);
            return true;
        }
        session.unwritten_bytes += delivery.message.weight();
        session.outbound.window.push(entry.in_flight(packet_id, true));
        effects.list.push(Effect::Send { connection, after, packet: Packet::Publish(delivery) });
        true
    }

    pub(super) fn written(&mut self, now: Timestamp, key: SessionKey, bytes: usize, effects: &mut Effects) {
        let session = &mut self.sessions[key];
        session.unwritten_bytes = session.unwritten_bytes.saturating_sub(bytes);
        if !session.outbound.is_drained() || !session.greetings.is_empty() {
            self.pump(now, key, effects);
        }
    }
}

impl Session {
    /// Whether one more QoS 1 or 2 message may be in flight.
    pub(super) fn has_window(&self, limit: u16) -> bool {
        self.outbound.window.unacknowledged() < usize::from(self.receive_maximum)
            && self.outbound.in_flight() < usize::from(limit)
    }

    /// Whether a PUBLISH is larger than its client takes [MQTT-3.1.2-24].
    fn is_too_large(&self, message: &Message, qos: Qos, identifiers: Option<&[u32]>) -> bool {
        self.maximum_packet_size.is_some_and(|maximum| {
            let has = (qos != Qos::AtMostOnce, message.expires_at.is_some());
            packet_size::publish(self.protocol, message, has, identifiers) > maximum as usize
        })
    }
}

impl Entry {
    fn new(to: Addressee, place: Place, message: Arc<Message>) -> Self {
        let Addressee { session: _, qos, retain, share, identifiers } = to;
        Self { message, place, identifiers, share, qos, retain }
    }

    /// What is kept of it in the window once it is sent.
    fn in_flight(self, packet_id: PacketId, durable: bool) -> InFlight {
        let Self { message, place, identifiers: _, share, qos, retain: _ } = self;
        let weight = u32::try_from(message.weight()).unwrap_or(u32::MAX);
        let content = (share.is_some() && !durable).then_some(message);
        InFlight { packet_id, share, qos, released: false, counted: true, weight, place, content }
    }

    fn delivery(&self, now: Timestamp, packet_id: Option<PacketId>) -> Delivery {
        Delivery {
            message: self.message.clone(),
            packet_id,
            qos: self.qos,
            retain: self.retain,
            dup: false,
            expiry_s: remaining_s(&self.message, now),
            subscription_identifiers: self.identifiers.clone(),
        }
    }
}

/// Seconds of message expiry that remain [MQTT-3.3.2-6].
fn remaining_s(message: &Message, now: Timestamp) -> Option<u32> {
    let remaining_ms = message.expires_at?.since_ms(now);
    Some(u32::try_from(remaining_ms.div_ceil(1000)).unwrap_or(u32::MAX))
}
