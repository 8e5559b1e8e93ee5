//! A client that follows the protocol, keeps its session, and notes what it gets.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use vespiary_core::event::{
    AcknowledgeStep, Connect, ConnectionId, Delivery, Packet, PacketId, Protocol, Publish, ReasonCode, RetainHandling,
    Subscribe, SubscriptionOptions,
};
use vespiary_core::{Input, Message, Qos, Timestamp, Topic, TopicFilter};

/// A client.
pub struct Client {
    /// Its identifier.
    pub name: String,
    /// The connection it believes to have.
    pub link: Option<Link>,
    /// Whether its session outlives connections.
    pub durable: bool,
    /// Seconds that its session outlives its connection.
    expiry_s: u32,
    /// A subscription that it makes when its session is new.
    share: Option<(TopicFilter, Qos)>,
    /// QoS 1 and 2 publishes it takes at a time.
    receive_maximum: u16,
    /// Publishes of which it does not yet know that they arrived, in order.
    outgoing: VecDeque<Outgoing>,
    /// Identifiers of QoS 2 messages received and not released.
    received: BTreeSet<PacketId>,
    /// QoS 1 and 2 publishes received on this link and not completed.
    unacknowledged: BTreeSet<PacketId>,
    /// Every message that it was given: topic, QoS, number, in order.
    pub deliveries: Vec<(Topic, Qos, u64)>,
    /// Messages of which it has the broker's word.
    pub acknowledged: BTreeSet<u64>,
}

/// A connection with what is under way on it.
#[derive(Default)]
pub struct Link {
    /// Its name; `None` before CONNECT was made.
    pub connection: u64,
    /// To the broker.
    pub up: VecDeque<Input>,
    /// To the client.
    pub down: VecDeque<Packet>,
    /// Whether CONNACK has come.
    pub established: bool,
}

/// A QoS 1 or 2 publish under way.
struct Outgoing {
    /// Its identifier.
    packet_id: PacketId,
    /// The message.
    message: Message,
    /// Whether PUBREC has come.
    released: bool,
}

impl Client {
    pub fn new(name: &str, durable: bool) -> Self {
        Self {
            name: name.into(),
            link: None,
            durable,
            expiry_s: if durable { u32::MAX } else { 0 },
            share: None,
            receive_maximum: 0,
            outgoing: VecDeque::new(),
            received: BTreeSet::new(),
            unacknowledged: BTreeSet::new(),
            deliveries: Vec::new(),
            acknowledged: BTreeSet::new(),
        }
    }

    /// One of those who share a subscription.
    pub fn worker(name: &str, expiry_s: u32, filter: TopicFilter, qos: Qos) -> Self {
        Self { expiry_s, share: Some((filter, qos)), ..Self::new(name, true) }
    }

    /// Whether it shares its subscription with others.
    pub fn is_worker(&self) -> bool {
        self.share.is_some()
    }

    /// Whether it shares its subscription at this QoS.
    pub fn shares_at(&self, qos: Qos) -> bool {
        self.share.as_ref().is_some_and(|(_, maximum)| *maximum == qos)
    }

    pub fn connect(&mut self, connection: u64, protocol: Protocol, receive_maximum: u16) {
        self.receive_maximum = receive_maximum;
        let connect = Connect {
            protocol,
            client_id: self.name.as_str().into(),
            client_id_assigned: false,
            clean_start: !self.durable,
            session_expiry_s: self.expiry_s,
            receive_maximum: self.receive_maximum,
            maximum_packet_size: None,
            will: None,
            user: None,
            address: "".into(),
        };
        let connect = Input::Connect { connection: ConnectionId(connection), connect: Box::new(connect) };
        self.unacknowledged.clear();
        self.link = Some(Link { connection, up: VecDeque::from([connect]), ..Link::default() });
    }

    fn send(&mut self, input: impl FnOnce(ConnectionId) -> Input) {
        if let Some(link) = &mut self.link {
            link.up.push_back(input(ConnectionId(link.connection)));
        }
    }

    pub fn is_established(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.established)
    }

    /// Whether it waits for nothing.
    pub fn is_idle(&self) -> bool {
        self.outgoing.is_empty() && self.link.as_ref().is_some_and(|link| link.up.is_empty() && link.down.is_empty())
    }

    /// The last of the retained messages that have the broker's word.
    pub fn last_retained(&self, topic: &Topic, published: &BTreeMap<u64, (Topic, Qos)>) -> Option<u64> {
        self.acknowledged.iter().copied().filter(|number| published[number].0 == *topic).max()
    }

    pub fn unfinished(&self) -> usize {
        self.outgoing.len()
    }

    pub fn publish(&mut self, topic: Topic, qos: Qos, retain: bool, number: u64, now: Timestamp) {
        let message = Message {
            topic,
            payload: Box::from(number.to_be_bytes()),
            qos,
            retain,
            properties: None,
            expires_at: None,
            received_at: now,
            publisher: self.name.as_str().into(),
            user: None,
        };
        let mut packet_id = None;
        if qos != Qos::AtMostOnce {
            let in_use: BTreeSet<PacketId> = self.outgoing.iter().map(|outgoing| outgoing.packet_id).collect();
            // The lowest that is free, so that identifiers are used again soon.
            packet_id = (1..).filter_map(PacketId::new).find(|packet_id| !in_use.contains(packet_id));
        }
        if let Some(packet_id) = packet_id {
            self.outgoing.push_back(Outgoing { packet_id, message: message.clone(), released: false });
        }
        self.send(|connection| Input::Publish { connection, publish: Publish { packet_id, dup: false, message } });
    }

    pub fn acknowledge(&mut self, packet_id: PacketId, step: AcknowledgeStep) {
        let reason = ReasonCode::Success;
        self.send(|connection| Input::Acknowledge { connection, packet_id, step, reason });
    }

    /// Takes a packet from the broker.
    pub fn take(&mut self, packet: Packet) {
        match packet {
            Packet::Connack { session_present, .. } => self.established(session_present),
            Packet::Refused { reason } => panic!("{} was refused: {reason:?}", self.name),
            Packet::Publish(delivery) => self.delivered(delivery),
            Packet::Acknowledge { packet_id, step, reason } => self.acknowledged(packet_id, step, reason),
            Packet::Suback { reasons, .. } | Packet::Unsuback { reasons, .. } => {
                assert!(reasons.iter().all(|reason| !reason.is_error()));
            }
        }
    }

    fn established(&mut self, session_present: bool) {
        if let Some(link) = &mut self.link {
            link.established = true;
        }
        if !session_present {
            self.received.clear();
            if !self.durable {
                self.outgoing.clear();
            }
            if let Some((filter, maximum_qos)) = self.share.clone() {
                self.subscribe(filter, maximum_qos);
            }
        }
        let outgoing: Vec<(PacketId, bool, Message)> =
            self.outgoing.iter().map(|out| (out.packet_id, out.released, out.message.clone())).collect();
        for (packet_id, released, message) in outgoing {
            if released {
                self.acknowledge(packet_id, AcknowledgeStep::Pubrel);
            } else {
                let publish = Publish { packet_id: Some(packet_id), dup: true, message };
                self.send(|connection| Input::Publish { connection, publish });
            }
        }
    }

    pub fn subscribe(&mut self, filter: TopicFilter, maximum_qos: Qos) {
        let options = SubscriptionOptions {
            maximum_qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::AtSubscribe,
        };
        let subscribe = Subscribe { packet_id: PacketId::MIN, identifier: None, filters: vec![Ok((filter, options))] };
        self.send(|connection| Input::Subscribe { connection, subscribe: Box::new(subscribe) });
    }

    fn delivered(&mut self, delivery: Delivery) {
        let Delivery { message, packet_id, qos, .. } = delivery;
        let number = u64::from_be_bytes((*message.payload).try_into().expect("a number"));
        let Some(packet_id) = packet_id else {
            return self.deliveries.push((message.topic.clone(), qos, number));
        };
        self.unacknowledged.insert(packet_id);
        assert!(
            self.unacknowledged.len() <= usize::from(self.receive_maximum),
            "{} gets more than it takes",
            self.name
        );
        if qos == Qos::AtLeastOnce {
            self.deliveries.push((message.topic.clone(), qos, number));
            self.unacknowledged.remove(&packet_id);
            self.acknowledge(packet_id, AcknowledgeStep::Puback);
        } else {
            if self.received.insert(packet_id) {
                self.deliveries.push((message.topic.clone(), qos, number));
            }
            self.acknowledge(packet_id, AcknowledgeStep::Pubrec);
        }
    }

    fn acknowledged(&mut self, packet_id: PacketId, step: AcknowledgeStep, reason: ReasonCode) {
        let place = self.outgoing.iter().position(|outgoing| outgoing.packet_id == packet_id);
        if reason == ReasonCode::QuotaExceeded {
            // It keeps the message, and may publish it later; here it does not.
            self.outgoing.remove(place.expect("a refusal of what was published"));
            return;
        }
        assert!(!reason.is_error() || step == AcknowledgeStep::Pubcomp, "{}: {step:?} {reason:?}", self.name);
        match step {
            AcknowledgeStep::Puback => {
                let place = place.expect("PUBACK of what was published");
                let outgoing = self.outgoing.remove(place).expect("it was found");
                assert_eq!(outgoing.message.qos, Qos::AtLeastOnce);
                self.acknowledged.insert(number_of(&outgoing.message));
            }
            AcknowledgeStep::Pubrec => {
                let outgoing = &mut self.outgoing[place.expect("PUBREC of what was published")];
                outgoing.released = true;
                let number = number_of(&outgoing.message);
                self.acknowledged.insert(number);
                self.acknowledge(packet_id, AcknowledgeStep::Pubrel);
            }
            AcknowledgeStep::Pubrel => {
                self.received.remove(&packet_id);
                self.unacknowledged.remove(&packet_id);
                self.acknowledge(packet_id, AcknowledgeStep::Pubcomp);
            }
            AcknowledgeStep::Pubcomp => {
                if let Some(place) = place.filter(|&place| self.outgoing[place].released) {
                    self.outgoing.remove(place);
                }
            }
        }
    }

    /// Checks that what it got of each publisher, topic and QoS is in order, and QoS 2 once. Numbers grow as each
    /// publisher publishes; `origin` tells whose a number is and at which QoS it was published. What a plugin passes on
    /// comes at QoS 2, and is there twice if the event came twice. Where publishes are refused, order does not hold: one whose
    /// refusal was lost comes again, and may then be taken after those that followed it; and what a plugin gave up and a
    /// rollback handed out again is passed on `late`.
    pub fn check_order(&self, in_order: bool, late: &BTreeSet<u64>, origin: impl Fn(u64) -> (usize, Qos)) {
        let mut last: BTreeMap<(usize, Qos, &Topic, Qos), u64> = BTreeMap::new();
        let mut seen: BTreeSet<(&Topic, Qos, u64)> = BTreeSet::new();
        for (topic, qos, number) in &self.deliveries {
            let is_new = seen.insert((topic, *qos, *number));
            let (publisher, published_qos) = origin(*number);
            assert!(
                is_new || *qos == Qos::AtLeastOnce || published_qos == Qos::AtLeastOnce,
                "{} got {number} on {topic} twice at {qos:?}",
                self.name
            );
            // Of an event that came twice, the first may have become a dead letter.
            let may_be_late =
                topic.as_str().starts_with("passed/") && (published_qos == Qos::AtLeastOnce || late.contains(number));
            if is_new && !may_be_late && in_order {
                let last = last.entry((publisher, published_qos, topic, *qos)).or_default();
                assert!(*last < *number, "{} got {number} on {topic} at {qos:?} after {last}", self.name);
                *last = *number;
            }
        }
    }
}

pub fn number_of(message: &Message) -> u64 {
    u64::from_be_bytes((*message.payload).try_into().expect("a number"))
}
