//! PUBLISH from a client, and the routing of every message: who gets it, once each, and whether it is retained.

use std::sync::Arc;

use smallvec::SmallVec;

use super::Broker;
use super::deliver::Addressee;
use super::stored::Parcel;
use crate::event::{
    AcknowledgeStep, Change, ChangeNumber, Effect, Effects, Packet, PacketId, Protocol, Publish, REPLY_TOPICS,
    ReasonCode, ShareNumber,
};
use crate::key::{GroupKey, SessionKey, SubscriptionKey};
use crate::message::{Message, Qos, Timestamp};
use crate::subscriptions::{Matches, Subscriber, SubscriberKind, Subscriptions};

/// Memory for routing one message; kept and reused.
#[derive(Debug, Default)]
pub(super) struct Routing {
    /// Lists of subscribers that match.
    matches: Matches,
    /// Who gets the message: each session once.
    targets: Vec<Target>,
    /// Identifiers of the targets that match by several subscriptions.
    merged: Vec<SmallVec<[u32; 4]>>,
    /// Counts routings in which a session could be met twice; sessions note in which they were chosen.
    generation: u64,
}

/// A session that gets the message, as routing finds it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target {
    /// The session.
    pub(super) session: SessionKey,
    /// The highest QoS of the subscriptions that match.
    maximum_qos: Qos,
    /// Whether one of them keeps the RETAIN flag.
    retain_as_published: bool,
    /// Whether its copy has to be durable.
    durable: bool,
    /// Whether it is a plugin.
    plugin: bool,
    /// The shared subscription it gets the message through, if it does.
    share: Option<ShareNumber>,
    /// Subscription Identifiers of the delivery.
    identifiers: TargetIdentifiers,
}

/// Subscription Identifiers of a target.
#[derive(Debug, Clone, Copy)]
enum TargetIdentifiers {
    /// None.
    None,
    /// That of one subscription.
    One(SubscriptionKey),
    /// Several: place in [`Routing::merged`].
    Several(u32),
}

/// Where a message comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Origin {
    /// The session that publishes, for No Local.
    pub(super) session: Option<SessionKey>,
    /// Whether its publisher keeps it when it is refused.
    pub(super) refusable: bool,
}

impl Broker {
    pub(super) fn publish(&mut self, now: Timestamp, key: SessionKey, publish: Publish, effects: &mut Effects) {
        let Publish { packet_id, dup: _, message } = publish;
        match (message.qos, packet_id) {
            (Qos::AtMostOnce, _) => {
                // Nobody waits for an answer, so a refusal has nobody to go to.
                let origin = Origin { session: Some(key), refusable: false };
                let _ = self.route(now, Arc::new(message), origin, effects);
            }
            (Qos::AtLeastOnce, Some(packet_id)) => self.publish_qos1(now, key, packet_id, message, effects),
            (Qos::ExactlyOnce, Some(packet_id)) => self.publish_qos2(now, key, packet_id, message, effects),
            (Qos::AtLeastOnce | Qos::ExactlyOnce, None) => self.close(now, key, ReasonCode::ProtocolError, effects),
        }
    }

    fn publish_qos1(
        &mut self,
        now: Timestamp,
        key: SessionKey,
        packet_id: PacketId,
        message: Message,
        effects: &mut Effects,
    ) {
        if self.exceeds_receive_maximum(key) {
            return self.close(now, key, ReasonCode::ReceiveMaximumExceeded, effects);
        }
        let before = effects.last_change();
        let origin = Origin { session: Some(key), refusable: true };
        let reason = self.route(now, Arc::new(message), origin, effects);
        if reason.is_error() && self.sessions[key].protocol == Protocol::V3 {
            return self.close(now, key, reason, effects);
        }
        self.send_acknowledge(key, packet_id, (AcknowledgeStep::Puback, reason), effects.since(before), effects);
    }

    fn publish_qos2(
        &mut self,
        now: Timestamp,
        key: SessionKey,
        packet_id: PacketId,
        message: Message,
        effects: &mut Effects,
    ) {
        if let Some(&after) = self.sessions[key].received.get(&packet_id) {
            let answer = (AcknowledgeStep::Pubrec, ReasonCode::Success);
            return self.send_acknowledge(key, packet_id, answer, after, effects);
        }
        if self.exceeds_receive_maximum(key) {
            return self.close(now, key, ReasonCode::ReceiveMaximumExceeded, effects);
        }
        let before = effects.last_change();
        let origin = Origin { session: Some(key), refusable: true };
        let reason = if self.storage_failed && self.sessions[key].durable {
            ReasonCode::QuotaExceeded
        } else {
            self.route(now, Arc::new(message), origin, effects)
        };
        let session = &mut self.sessions[key];
        if reason.is_error() {
            if session.protocol == Protocol::V3 {
                return self.close(now, key, reason, effects);
            }
        } else {
            if session.durable {
                effects.record(Change::Received { session: session.id, packet_id });
            }
            session.received.insert(packet_id, effects.since(before));
        }
        self.send_acknowledge(key, packet_id, (AcknowledgeStep::Pubrec, reason), effects.since(before), effects);
    }

    /// Whether one more QoS 1 or 2 publish is one too many. A 3.1.1 client cannot be told the bound; there are never
    /// more than 65,535 packet identifiers.
    fn exceeds_receive_maximum(&self, key: SessionKey) -> bool {
        let session = &self.sessions[key];
        session.protocol == Protocol::V5 && session.received.len() >= usize::from(self.limits.receive_maximum)
    }

    pub(super) fn send_acknowledge(
        &self,
        key: SessionKey,
        packet_id: PacketId,
        (step, reason): (AcknowledgeStep, ReasonCode),
        after: ChangeNumber,
        effects: &mut Effects,
    ) {
        if let Some(connection) = self.sessions[key].connection {
            let packet = Packet::Acknowledge { packet_id, step, reason };
            effects.list.push(Effect::Send { connection, after, packet });
        }
    }

    /// Delivers a message to everybody who subscribes to its topic, and retains it if it says so. An error means that
    /// nothing happened.
    pub(super) fn route(
        &mut self,
        now: Timestamp,
        message: Arc<Message>,
        origin: Origin,
        effects: &mut Effects,
    ) -> ReasonCode {
        if message.topic.is_reserved() && message.topic.levels().next() == Some(REPLY_TOPICS) {
            return self.route_reply(now, &message, origin.refusable, effects);
        }
        let mut routing = std::mem::take(&mut self.routing);
        let with_inbox = self.choose_targets(&message, origin.session, &mut routing);
        if origin.refusable
            && (self.retention_is_full(&message)
                || (with_inbox && self.inbox_is_full(&message, &routing))
                || (self.storage_failed && self.needs_disk(&message, &routing)))
        {
            self.routing = routing;
            return ReasonCode::QuotaExceeded;
        }
        if message.retain {
            self.retain(&message, effects);
        }
        let reason = if routing.targets.is_empty() { ReasonCode::NoMatchingSubscribers } else { ReasonCode::Success };
        if self.fan_outs.take_over(&message, routing.targets.len(), self.limits.fan_out_at_once) {
            self.put_off(now, &message, &mut routing.targets, &routing.merged, effects);
        }
        let mut parcel = Parcel::new(message);
        parcel.has_many_receivers = routing.targets.len() > 1;
        for target in routing.targets.drain(..) {
            let to = self.addressee(&target, &parcel.message, &routing.merged);
            self.deliver(now, to, &mut parcel, effects);
        }
        self.routing = routing;
        reason
    }

    /// How a target gets a message.
    pub(super) fn addressee(&self, target: &Target, message: &Message, merged: &[SmallVec<[u32; 4]>]) -> Addressee {
        let identifiers = match target.identifiers {
            TargetIdentifiers::None => None,
            TargetIdentifiers::One(key) => self.subscriptions.subscription(key).identifiers.clone(),
            TargetIdentifiers::Several(place) => Some(Arc::from(merged[place as usize].as_slice())),
        };
        Addressee {
            session: target.session,
            qos: target.maximum_qos.min(message.qos),
            retain: target.retain_as_published && message.retain,
            share: target.share,
            identifiers,
        }
    }

    /// Fills in who gets a message; says whether a plugin is among them.
    fn choose_targets(&mut self, message: &Message, publisher: Option<SessionKey>, routing: &mut Routing) -> bool {
        self.choose_subscribers(message, publisher, routing);
        if self.subscriptions.has_groups() {
            self.choose_members(message.qos, routing);
        }
        routing.targets.iter().any(|target| target.plugin)
    }

    /// Each session that matches by subscriptions of its own, once.
    fn choose_subscribers(&mut self, message: &Message, publisher: Option<SessionKey>, routing: &mut Routing) {
        let Routing { matches, targets, merged, generation } = routing;
        targets.clear();
        merged.clear();
        self.subscriptions.find(&message.topic, matches);
        let mut lists = self.subscriptions.subscribers(matches);
        let is_for = |subscriber: &&Subscriber| !(subscriber.no_local && publisher == Some(subscriber.session));
        if lists.len() == 1 {
            // One filter has each session once.
            let list = lists.next().unwrap_or_default();
            targets.extend(list.iter().filter(is_for).map(Target::new));
        } else {
            *generation += 1;
            for subscriber in lists.flatten().filter(is_for) {
                let session = &mut self.sessions[subscriber.session];
                if session.chosen_in == *generation {
                    targets[session.chosen_at as usize].merge(subscriber, &self.subscriptions, merged);
                } else {
                    session.chosen_in = *generation;
                    session.chosen_at = targets.len() as u32;
                    targets.push(Target::new(subscriber));
                }
            }
        }
    }

    /// Adds one member of each group that shares a subscription (section 4.8.2). A session that matches by other
    /// subscriptions too gets the message once more.
    fn choose_members(&mut self, qos: Qos, routing: &mut Routing) {
        let groups: SmallVec<[GroupKey; 8]> = self.subscriptions.groups(&routing.matches).collect();
        for group in groups {
            if let Some(member) = self.choose_member(group, qos) {
                let share = self.subscriptions.subscription(member.subscription).share;
                routing.targets.push(Target { share, ..Target::new(&member) });
            }
        }
    }

    /// Whether something of a message would have to be durable.
    fn needs_disk(&self, message: &Message, routing: &Routing) -> bool {
        let is_kept = |target: &Target| {
            message.qos.min(target.maximum_qos) != Qos::AtMostOnce && self.sessions[target.session].durable
        };
        message.retain || routing.targets.iter().any(is_kept)
    }

    fn inbox_is_full(&self, message: &Message, routing: &Routing) -> bool {
        routing.targets.iter().any(|target| {
            let qos = message.qos.min(target.maximum_qos);
            let may_refuse = target.plugin && qos != Qos::AtMostOnce;
            may_refuse && !self.fits_inbox(target.session, message.weight())
        })
    }
}

impl Target {
    /// Notes its Subscription Identifier itself, so that it does not rest on the subscription any more.
    pub(super) fn detach(&mut self, subscriptions: &Subscriptions, merged: &mut Vec<SmallVec<[u32; 4]>>) {
        if let TargetIdentifiers::One(key) = self.identifiers {
            let identifiers = subscriptions.subscription(key).identifiers.as_deref().unwrap_or_default();
            self.identifiers = TargetIdentifiers::Several(merged.len() as u32);
            merged.push(identifiers.iter().copied().collect());
        }
    }

    /// Whether nobody's promise rests on what it gets.
    pub(super) fn can_wait(&self) -> bool {
        !self.durable && self.share.is_none()
    }

    fn new(subscriber: &Subscriber) -> Self {
        let identifiers = match subscriber.kind {
            SubscriberKind::Identified => TargetIdentifiers::One(subscriber.subscription),
            SubscriberKind::Plain | SubscriberKind::Plugin => TargetIdentifiers::None,
        };
        Self {
            session: subscriber.session,
            maximum_qos: subscriber.maximum_qos,
            retain_as_published: subscriber.retain_as_published,
            durable: subscriber.durable,
            plugin: subscriber.kind == SubscriberKind::Plugin,
            share: None,
            identifiers,
        }
    }

    /// Takes in a further subscription of the same session.
    fn merge(&mut self, subscriber: &Subscriber, subscriptions: &Subscriptions, merged: &mut Vec<SmallVec<[u32; 4]>>) {
        self.maximum_qos = self.maximum_qos.max(subscriber.maximum_qos);
        self.retain_as_published |= subscriber.retain_as_published;
        if subscriber.kind != SubscriberKind::Identified {
            return;
        }
        let identifiers = |key| subscriptions.subscription(key).identifiers.as_deref().unwrap_or_default();
        let further = identifiers(subscriber.subscription);
        match self.identifiers {
            TargetIdentifiers::None => self.identifiers = TargetIdentifiers::One(subscriber.subscription),
            TargetIdentifiers::One(first) => {
                self.identifiers = TargetIdentifiers::Several(merged.len() as u32);
                merged.push(identifiers(first).iter().chain(further).copied().collect());
            }
            TargetIdentifiers::Several(place) => merged[place as usize].extend_from_slice(further),
        }
    }
}
