//! Delivery to one session: at once where its window and its output have room, through its queue where not.
//!
//! The order of deliveries to a session is that of its queue: nothing overtakes what waits.

use std::sync::Arc;

use super::stored::Parcel;
use super::{Broker, packet_size};
use crate::event::{
    AcknowledgeStep, Change, ChangeNumber, ConnectionId, Delivery, DropReason, Effect, Effects, Packet, PacketId,
    QueueEntry, ReasonCode, Sequence,
};
use crate::key::SessionKey;
use crate::message::{Message, Qos, Timestamp};
use crate::session::Session;
use crate::session::outbound::{Entry, InFlight};

/// Who gets a message, and how.
#[derive(Debug)]
pub(super) struct Addressee {
    /// The session.
    pub(super) session: SessionKey,
    /// QoS of the delivery.
    pub(super) qos: Qos,
    /// RETAIN flag of the delivery.
    pub(super) retain: bool,
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
        let may_go = session.outbound.is_drained()
            && session.unwritten_bytes < self.limits.unwritten_bytes
            && (to.qos == Qos::AtMostOnce || session.has_window(self.limits.inflight_messages));
        match session.connection {
            Some(connection) if may_go => self.send_at_once(now, connection, to, parcel, effects),
            None if to.qos == Qos::AtMostOnce => {}
            Some(_) | None => self.enqueue(now, to, parcel, effects),
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
        let key = to.session;
        let session = &mut self.sessions[key];
        let mut entry = Entry::new(to, parcel.message.clone());
        let packet_id = (entry.qos != Qos::AtMostOnce).then(|| session.outbound.next_packet_id());
        let delivery = entry.delivery(now, packet_id);
        if session.is_too_large(&delivery) {
            effects.drop_counted(DropReason::TooLargeForClient, 1);
            return;
        }
        session.unwritten_bytes += parcel.weight;
        let mut after = ChangeNumber(0);
        if let Some(packet_id) = packet_id {
            if session.durable {
                after = self.store_entry(key, &mut entry, Some(packet_id), parcel, effects);
            }
            let in_flight = InFlight { packet_id, released: false, counted: true, entry };
            self.sessions[key].outbound.push_in_flight(in_flight);
        }
        effects.list.push(Effect::Send { connection, after, packet: Packet::Publish(delivery) });
    }

    fn enqueue(&mut self, now: Timestamp, to: Addressee, parcel: &mut Parcel, effects: &mut Effects) {
        let key = to.session;
        while self.queue_is_full(key, parcel.weight)
            && self.sessions[key].outbound.next_queued().is_some_and(|entry| entry.message.is_expired(now))
        {
            self.drop_queued(key, DropReason::Expired, effects);
        }
        if self.queue_is_full(key, parcel.weight) {
            effects.drop_counted(DropReason::QueueFull, 1);
            return;
        }
        let mut entry = Entry::new(to, parcel.message.clone());
        if self.sessions[key].durable && entry.qos != Qos::AtMostOnce {
            self.store_entry(key, &mut entry, None, parcel, effects);
        }
        self.sessions[key].outbound.push_queued(entry);
    }

    fn queue_is_full(&self, key: SessionKey, weight: usize) -> bool {
        let outbound = &self.sessions[key].outbound;
        outbound.queued() >= self.limits.queued_messages || outbound.queued_bytes() + weight > self.limits.queued_bytes
    }

    /// Puts an entry of a durable session on disk.
    fn store_entry(
        &mut self,
        key: SessionKey,
        entry: &mut Entry,
        packet_id: Option<PacketId>,
        parcel: &mut Parcel,
        effects: &mut Effects,
    ) -> ChangeNumber {
        let stored = self.stored.refer(parcel, &mut self.identifiers, effects);
        entry.stored = Some(stored);
        entry.sequence = self.identifiers.sequence(effects);
        let queued = QueueEntry {
            message: self.stored.get(stored).id,
            qos: entry.qos,
            retain: entry.retain,
            subscription_identifiers: entry.identifiers.clone(),
            packet_id,
        };
        let session = self.sessions[key].id;
        effects.record(Change::Queued { session, sequence: entry.sequence, entry: queued })
    }

    /// Lets go of an entry that has left a queue or the window.
    pub(super) fn let_go(&mut self, key: SessionKey, entry: Entry, effects: &mut Effects) {
        if let Some(stored) = entry.stored {
            effects.record(Change::Dequeued { session: self.sessions[key].id, sequence: entry.sequence });
            self.stored.release(stored, effects);
        }
    }

    fn drop_queued(&mut self, key: SessionKey, reason: DropReason, effects: &mut Effects) {
        if let Some(entry) = self.sessions[key].outbound.pop_queued() {
            self.let_go(key, entry, effects);
            effects.drop_counted(reason, 1);
        }
    }

    /// Sends what waits, as far as the window and the output have room.
    pub(super) fn pump(&mut self, now: Timestamp, key: SessionKey, effects: &mut Effects) {
        let Some(connection) = self.sessions[key].connection else { return };
        loop {
            let session = &self.sessions[key];
            if session.unwritten_bytes >= self.limits.unwritten_bytes {
                return;
            }
            let moved = if session.outbound.next_resend().is_some() {
                self.resend_next(now, key, connection, effects)
            } else {
                self.send_next(now, key, connection, effects)
            };
            if !moved {
                return;
            }
        }
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
        let packet_id = (qos != Qos::AtMostOnce).then(|| session.outbound.next_packet_id());
        let Some(delivery) = session.outbound.next_queued().map(|entry| entry.delivery(now, packet_id)) else {
            return false;
        };
        if session.is_too_large(&delivery) {
            self.drop_queued(key, DropReason::TooLargeForClient, effects);
            return true;
        }
        session.unwritten_bytes += delivery.message.weight();
        let mut after = ChangeNumber(0);
        if let (Some(entry), Some(packet_id)) = (session.outbound.pop_queued(), packet_id) {
            if entry.stored.is_some() {
                after = effects.record(Change::Sent { session: session.id, sequence: entry.sequence, packet_id });
            }
            session.outbound.push_in_flight(InFlight { packet_id, released: false, counted: true, entry });
        }
        effects.list.push(Effect::Send { connection, after, packet: Packet::Publish(delivery) });
        true
    }

    /// Sends again the next message or release that was in flight before a reconnect [MQTT-4.4.0-1]; says whether it did.
    /// Nothing has to be waited for: the CONNACK before it rested on every change of the session.
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
        if !next.released && session.outbound.unacknowledged() >= usize::from(session.window) {
            return false;
        }
        let Some(mut in_flight) = session.outbound.pop_resend() else { return false };
        let packet_id = in_flight.packet_id;
        if in_flight.released {
            let packet = Packet::Acknowledge { packet_id, step: AcknowledgeStep::Pubrel, reason: ReasonCode::Success };
            effects.list.push(Effect::Send { connection, after, packet });
            session.outbound.push_in_flight(in_flight);
            return true;
        }
        let delivery = Delivery { dup: true, ..in_flight.entry.delivery(now, Some(packet_id)) };
        if session.is_too_large(&delivery) {
            effects.drop_counted(DropReason::TooLargeForClient, 1);
            self.let_go(key, in_flight.entry, effects);
            return true;
        }
        session.unwritten_bytes += delivery.message.weight();
        in_flight.counted = true;
        session.outbound.push_in_flight(in_flight);
        effects.list.push(Effect::Send { connection, after, packet: Packet::Publish(delivery) });
        true
    }

    pub(super) fn written(&mut self, now: Timestamp, key: SessionKey, bytes: usize, effects: &mut Effects) {
        let session = &mut self.sessions[key];
        session.unwritten_bytes = session.unwritten_bytes.saturating_sub(bytes);
        if !session.outbound.is_drained() {
            self.pump(now, key, effects);
        }
    }
}

impl Session {
    /// Whether one more QoS 1 or 2 message may be in flight.
    fn has_window(&self, limit: u16) -> bool {
        self.outbound.unacknowledged() < usize::from(self.window) && self.outbound.in_flight() < usize::from(limit)
    }

    /// Whether a PUBLISH is larger than its client takes [MQTT-3.1.2-24].
    fn is_too_large(&self, delivery: &Delivery) -> bool {
        self.maximum_packet_size.is_some_and(|maximum| packet_size::publish(self.protocol, delivery) > maximum as usize)
    }
}

impl Entry {
    fn new(to: Addressee, message: Arc<Message>) -> Self {
        Self {
            message,
            sequence: Sequence(0),
            stored: None,
            identifiers: to.identifiers,
            qos: to.qos,
            retain: to.retain,
        }
    }

    fn delivery(&self, now: Timestamp, packet_id: Option<PacketId>) -> Delivery {
        let remaining_ms = self.message.expires_at.map(|at| at.since_ms(now));
        Delivery {
            message: self.message.clone(),
            packet_id,
            qos: self.qos,
            retain: self.retain,
            dup: false,
            expiry_s: remaining_ms.map(|left| u32::try_from(left.div_ceil(1000)).unwrap_or(u32::MAX)),
            subscription_identifiers: self.identifiers.clone(),
        }
    }
}
