//! What one publish and one delivery cost in the core alone: `cargo run --release -p vespiary-core --example throughput`.
//!
//! A delivery of QoS 1 includes its PUBACK from the subscriber, and every delivery the `Written` of its connection. Counts
//! time on the processor, so that a busy machine disturbs less (Linux only).

use std::fs;

use vespiary_core::event::{
    AcknowledgeStep, Connect, ConnectionId, Packet, PacketId, Protocol, Publish, ReasonCode, Receiver, RetainHandling,
    Subscribe, SubscriptionOptions,
};
use vespiary_core::{Broker, Effect, Effects, Input, Limits, Message, Qos, Timestamp, Topic, TopicFilter};

/// A broker with its effects and clients.
struct Bench {
    /// The broker.
    broker: Broker,
    /// Its effects, taken after each publish.
    effects: Effects,
    /// Answers of subscribers, reused.
    answers: Vec<Input>,
}

const NOW: Timestamp = Timestamp(1_000);

fn main() {
    println!("{} bytes an input, {} an effect", size_of::<Input>(), size_of::<Effect>());
    for qos in [Qos::AtMostOnce, Qos::AtLeastOnce] {
        point_to_point(qos, 0, 1_000);
        fan_out(qos, 16);
        fan_out(qos, 10_000);
    }
    point_to_point(Qos::AtLeastOnce, 3600, 1_000);
    wildcards(100_000);
}

fn point_to_point(qos: Qos, session_expiry_s: u32, pairs: u64) {
    let mut bench = Bench::new();
    for pair in 0..pairs {
        bench.connect(pair, session_expiry_s);
        bench.subscribe(pair, &format!("devices/{pair}/telemetry"), qos);
    }
    bench.connect(pairs, 0);
    let topics: Vec<Topic> = (0..pairs).map(|pair| topic(&format!("devices/{pair}/telemetry"))).collect();
    let name = format!("point to point, {qos:?}, session expiry {session_expiry_s} s");
    bench.measure(&name, pairs, qos, |round| topics[round as usize % topics.len()].clone(), 300_000);
}

fn fan_out(qos: Qos, subscribers: u64) {
    let mut bench = Bench::new();
    for subscriber in 0..subscribers {
        bench.connect(subscriber, 0);
        bench.subscribe(subscriber, "news", qos);
    }
    bench.connect(subscribers, 0);
    let news = topic("news");
    bench.measure(
        &format!("fan-out to {subscribers}, {qos:?}"),
        subscribers,
        qos,
        |_| news.clone(),
        3_000_000 / subscribers,
    );
}

fn wildcards(filters: u64) {
    let mut bench = Bench::new();
    for client in 0..filters / 100 {
        bench.connect(client, 0);
        for filter in 0..100 {
            bench.subscribe(client, &format!("site/{client}/+/sensor{filter}/#"), Qos::AtMostOnce);
        }
    }
    bench.connect(filters, 0);
    let topics: Vec<Topic> =
        (0..1000).map(|n| topic(&format!("site/{}/line/sensor{}/x", n * 7 % (filters / 100), n % 100))).collect();
    let name = format!("point to point, {filters} wildcard subscriptions, QoS 0");
    bench.measure(&name, filters, Qos::AtMostOnce, |round| topics[round as usize % topics.len()].clone(), 300_000);
}

impl Bench {
    fn new() -> Self {
        Self { broker: Broker::new(Limits::default(), 7), effects: Effects::default(), answers: Vec::new() }
    }

    fn connect(&mut self, client: u64, session_expiry_s: u32) {
        let connect = Connect {
            protocol: Protocol::V5,
            client_id: format!("client-{client}").into(),
            client_id_assigned: false,
            clean_start: true,
            session_expiry_s,
            receive_maximum: u16::MAX,
            maximum_packet_size: None,
            will: None,
            user: None,
            address: "".into(),
        };
        self.handle(Input::Connect { connection: ConnectionId(client), connect: Box::new(connect) });
    }

    fn subscribe(&mut self, client: u64, filter: &str, maximum_qos: Qos) {
        let options = SubscriptionOptions {
            maximum_qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::AtSubscribe,
        };
        let filter = TopicFilter::parse(filter).expect("a valid filter");
        let subscribe = Subscribe { packet_id: PacketId::MIN, identifier: None, filters: vec![Ok((filter, options))] };
        self.handle(Input::Subscribe { connection: ConnectionId(client), subscribe: Box::new(subscribe) });
    }

    fn handle(&mut self, input: Input) {
        self.broker.handle(NOW, input, &mut self.effects);
        self.effects.list.clear();
        self.effects.changes.clear();
    }

    fn measure(&mut self, name: &str, publisher: u64, qos: Qos, topic: impl Fn(u64) -> Topic, rounds: u64) {
        let mut deliveries = 0;
        let mut best = (f64::MAX, f64::MAX);
        for _ in 0..3 {
            let start = processor_ns();
            deliveries = 0;
            for round in 0..rounds {
                deliveries += self.publish(publisher, qos, topic(round));
            }
            let nanoseconds = (processor_ns() - start) as f64;
            let costs = (nanoseconds / rounds as f64, nanoseconds / deliveries.max(1) as f64);
            best = (best.0.min(costs.0), best.1.min(costs.1));
        }
        println!("{name}: {:.0} ns a publish, {:.1} ns a delivery ({deliveries} deliveries)", best.0, best.1);
    }

    /// Publishes, and answers as the subscribers would; gives the number of deliveries.
    fn publish(&mut self, publisher: u64, qos: Qos, topic: Topic) -> u64 {
        let message = Message {
            topic,
            payload: Box::from([b'x'; 64]),
            qos,
            retain: false,
            properties: None,
            expires_at: None,
            received_at: NOW,
            publisher: "publisher".into(),
            user: None,
        };
        let weight = message.weight();
        let packet_id = (qos != Qos::AtMostOnce).then_some(PacketId::MIN);
        let publish = Publish { packet_id, dup: false, message };
        self.broker.handle(NOW, Input::Publish { connection: ConnectionId(publisher), publish }, &mut self.effects);
        while self.broker.next_deadline().is_some_and(|deadline| deadline <= NOW) {
            self.broker.handle(NOW, Input::Tick, &mut self.effects);
        }
        let mut deliveries = 0;
        for effect in self.effects.list.drain(..) {
            let mut answer = |Receiver { connection, packet_id }| {
                deliveries += 1;
                self.answers.push(Input::Written { connection, bytes: weight });
                if let Some(packet_id) = packet_id {
                    let (step, reason) = (AcknowledgeStep::Puback, ReasonCode::Success);
                    self.answers.push(Input::Acknowledge { connection, packet_id, step, reason });
                }
            };
            match effect {
                Effect::Send { connection, packet: Packet::Publish(delivery), .. } => {
                    answer(Receiver { connection, packet_id: delivery.packet_id });
                }
                Effect::FanOut(fan_out) => fan_out.to.iter().copied().for_each(answer),
                _ => {}
            }
        }
        for answer in self.answers.drain(..) {
            self.broker.handle(NOW, answer, &mut self.effects);
        }
        self.effects.list.clear();
        self.effects.changes.clear();
        deliveries
    }
}

/// Nanoseconds that this thread has run.
fn processor_ns() -> u64 {
    let statistics = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    statistics.split(' ').next().and_then(|time| time.parse().ok()).unwrap_or_default()
}

fn topic(name: &str) -> Topic {
    Topic::parse(name).expect("a valid topic")
}
