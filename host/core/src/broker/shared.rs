//! Shared subscriptions (section 4.8.2): which member of a group gets a message, and who gets what a member leaves
//! behind.
//!
//! What a member has not acknowledged when its session ends goes to another member of its group, except QoS 2 messages
//! that were sent [MQTT-4.8.2-5]. Of a session in memory that is done at once. A durable session's queue is read back
//! first: until that is done the session is kept, without client, as one that has `heirs`.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Broker;
use super::deadlines::Deadline;
use super::deliver::Addressee;
use super::stored::Parcel;
use crate::event::{Change, Effects, LoadedEntry, SessionId, ShareNumber, SubscriptionRecord};
use crate::key::{GroupKey, SessionKey};
use crate::limits::SharedStrategy;
use crate::message::{Message, Qos, Timestamp};
use crate::session::Session;
use crate::subscriptions::{Group, Subscriber};
use crate::topic::TopicFilter;

/// Members that are looked at for one message, at most.
const MEMBERS_CONSIDERED: usize = 64;

/// Milliseconds until what could not be read is tried again.
const RETRY_MS: u64 = 1_000;

/// The subscriptions of a session that ends, of which some are shared.
pub(super) type Heirs = BTreeMap<TopicFilter, SubscriptionRecord>;

/// How well a member can take a message; the least is the best.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Readiness {
    /// At once.
    Ready,
    /// It has a client, but other messages wait for it.
    Busy,
    /// Its client is away; the message waits on disk.
    Away,
    /// Not at all.
    Unable,
}

impl Broker {
    /// The member of a group that gets the next message.
    pub(super) fn choose_member(&mut self, key: GroupKey, qos: Qos) -> Option<Subscriber> {
        let strategy = self.limits.shared_strategy;
        let random = if strategy == SharedStrategy::Random { self.random() } else { 0 };
        let group = self.subscriptions.group(key);
        let count = group.members.len();
        let start = match strategy {
            SharedStrategy::Random => random as usize % count.max(1),
            SharedStrategy::RoundRobin | SharedStrategy::Sticky | SharedStrategy::LeastInFlight => {
                group.next % count.max(1)
            }
        };
        let places = (0..count.min(MEMBERS_CONSIDERED)).map(|offset| (start + offset) % count);
        let rank = |place: usize| {
            let session = &self.sessions[group.members[place].session];
            let load = match strategy {
                SharedStrategy::LeastInFlight => session.outbound.in_flight() as u64 + session.outbound.queued(),
                SharedStrategy::RoundRobin | SharedStrategy::Sticky | SharedStrategy::Random => 0,
            };
            (self.readiness(session, qos), load)
        };
        let best = match strategy {
            SharedStrategy::LeastInFlight => places.min_by_key(|&place| rank(place)),
            SharedStrategy::RoundRobin | SharedStrategy::Sticky | SharedStrategy::Random => {
                self.first_ready(group, qos, places)
            }
        }?;
        let member = group.members[best];
        let next = if strategy == SharedStrategy::Sticky { best } else { best + 1 };
        self.subscriptions.group_mut(key).next = next;
        Some(member)
    }

    /// The first member that is ready, or else the first of those that are most so.
    fn first_ready(&self, group: &Group, qos: Qos, places: impl Iterator<Item = usize>) -> Option<usize> {
        let mut best: Option<(Readiness, usize)> = None;
        for place in places {
            let readiness = self.readiness(&self.sessions[group.members[place].session], qos);
            if readiness == Readiness::Ready {
                return Some(place);
            }
            if best.is_none_or(|(known, _)| readiness < known) {
                best = Some((readiness, place));
            }
        }
        best.map(|(_, place)| place)
    }

    fn readiness(&self, session: &Session, qos: Qos) -> Readiness {
        if session.inbox.is_some() {
            return Readiness::Ready;
        }
        let has_room = session.outbound.is_drained()
            && session.unwritten_bytes < self.limits.unwritten_bytes
            && (qos == Qos::AtMostOnce || session.has_window(self.limits.inflight_messages));
        let is_full = session.outbound.queued() >= self.limits.queued_messages as u64;
        match session.connection {
            Some(_) if has_room => Readiness::Ready,
            Some(_) if !is_full => Readiness::Busy,
            None if qos != Qos::AtMostOnce && !is_full => Readiness::Away,
            Some(_) | None => Readiness::Unable,
        }
    }

    /// A number that clients cannot foresee; the same for the same seed and history.
    fn random(&mut self) -> u64 {
        // SplitMix64 (Steele, Lea, Flood 2014).
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.random ^ self.random >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }

    /// The subscriptions of a session, if some of them are shared.
    pub(super) fn heirs(&self, session: &Session) -> Option<Heirs> {
        let record = |&key| self.subscriptions.subscription(key).record();
        session
            .subscriptions
            .values()
            .any(|key| record(key).share.is_some())
            .then(|| session.subscriptions.iter().map(|(filter, key)| (filter.clone(), record(key))).collect())
    }

    /// Gives to others what a session in memory leaves behind.
    pub(super) fn bequeath(&mut self, now: Timestamp, session: &mut Session, heirs: &Heirs, effects: &mut Effects) {
        let hold = effects.hold_upon(effects.recorded(session.rests_on));
        let (in_flight, queued) = session.outbound.take_all();
        let in_flight = in_flight.into_iter().filter(|in_flight| in_flight.qos == Qos::AtLeastOnce);
        let in_flight = in_flight.filter_map(|in_flight| Some((in_flight.share?, in_flight.content?)));
        let queued = queued.into_iter().filter(|entry| entry.qos != Qos::AtMostOnce);
        let queued = queued.filter_map(|entry| Some((entry.share?, entry.message)));
        for (share, message) in in_flight.chain(queued) {
            if let Some(filter) = shared_by(heirs, share) {
                self.pass_on(now, filter, &mut Parcel::new(message), effects);
            }
        }
        effects.let_hold(hold);
    }

    /// Keeps a durable session that has ended until others have what it leaves behind.
    pub(super) fn keep_for_heirs(&mut self, now: Timestamp, mut session: Session, heirs: Heirs, effects: &mut Effects) {
        session.outbound.park();
        session.client_id = Arc::from("");
        session.expiry_s = 0;
        session.disconnected_at = Some(now);
        session.will = None;
        session.subscriptions.clear();
        session.heirs = Some(heirs);
        effects.record(Change::SessionStored { session: session.id, record: session.record() });
        let key = self.sessions.insert(session);
        self.load(key, effects);
    }

    /// Gives to others the next part of what a durable session left behind.
    pub(super) fn hand_on(
        &mut self,
        now: Timestamp,
        key: SessionKey,
        entries: Vec<LoadedEntry>,
        effects: &mut Effects,
    ) {
        let Some(last) = entries.last().map(|last| last.sequence) else {
            let session = self.sessions.remove(key);
            self.forget_session(session.id, effects);
            return;
        };
        let session = self.sessions[key].id;
        let heirs = self.sessions[key].heirs.take().unwrap_or_default();
        for LoadedEntry { sequence, entry, released: _, content } in entries {
            let is_begun = entry.packet_id.is_some() && entry.qos == Qos::ExactlyOnce;
            let filter = entry.share.filter(|_| !is_begun).and_then(|share| shared_by(&heirs, share));
            if let Some(filter) = filter {
                self.pass_on(now, filter, &mut Parcel::stored(content, entry.message), effects);
            }
            effects.record(Change::Dequeued { session, sequence, message: entry.message });
            self.sessions[key].outbound.forget_backlog(&entry);
        }
        self.sessions[key].heirs = Some(heirs);
        self.sessions[key].outbound.backlog.after = last;
        self.load(key, effects);
    }

    /// What a durable session left behind cannot be read: tries again.
    pub(super) fn hand_on_later(&mut self, now: Timestamp, key: SessionKey) {
        let at = now.after_ms(RETRY_MS);
        self.sessions[key].expires_at = Some(at);
        self.deadlines.insert((at, Deadline::Expiry(key)));
    }

    /// A durable session goes from disk.
    pub(super) fn forget_session(&mut self, session: SessionId, effects: &mut Effects) {
        self.last_session_removal = effects.record(Change::SessionRemoved { session });
    }

    fn pass_on(&mut self, now: Timestamp, filter: &TopicFilter, parcel: &mut Parcel, effects: &mut Effects) {
        if parcel.message.is_expired(now) {
            return;
        }
        let Some(group) = self.subscriptions.find_group(filter) else { return };
        if let Some(member) = self.choose_member(group, parcel.message.qos) {
            let to = self.addressee_of_member(&member, &parcel.message);
            self.deliver(now, to, parcel, effects);
        }
    }

    /// How a member of a group gets a message.
    fn addressee_of_member(&self, member: &Subscriber, message: &Message) -> Addressee {
        let subscription = self.subscriptions.subscription(member.subscription);
        Addressee {
            session: member.session,
            qos: member.maximum_qos.min(message.qos),
            retain: member.retain_as_published && message.retain,
            share: subscription.share,
            identifiers: subscription.identifiers.clone(),
        }
    }
}

/// The shared subscription of this number.
fn shared_by(heirs: &Heirs, share: ShareNumber) -> Option<&TopicFilter> {
    heirs.iter().find(|(_, record)| record.share == Some(share)).map(|(filter, _)| filter)
}
