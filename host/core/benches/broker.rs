//! What the broker's core costs by itself: `cargo bench -p vespiary-core`.
//!
//! Each figure is one turn on a broker that is warm, with what sockets say back; effects and changes are thrown away, as a
//! store and sockets that cost nothing would.

use std::num::NonZeroU16;
use std::sync::Arc;

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use vespiary_core::event::{
    Activation, Connect, ConnectionId, Lane, Outcome, Packet, PluginName, Protocol, Publish, RetainHandling, Revision,
    Settlement, StateWrite, Subscribe, SubscriptionOptions,
};
use vespiary_core::{Broker, Effect, Effects, Input, Limits, Message, Qos, Timestamp, Topic, TopicFilter};

const NOW: Timestamp = Timestamp(1_700_000_000_000);
const PUBLISHER: ConnectionId = ConnectionId(1);
/// Events that a plugin takes at a time.
const BATCH: usize = 256;

fn main() {
    divan::main();
}

/// A broker with a publisher, and what it leaves.
struct Bench {
    broker: Broker,
    effects: Effects,
}

impl Bench {
    fn new() -> Self {
        let mut bench = Self { broker: Broker::new(Limits::default(), 1), effects: Effects::default() };
        bench.input(Input::Started);
        bench.connect(PUBLISHER);
        bench
    }

    fn input(&mut self, input: Input) {
        self.broker.handle(NOW, input, &mut self.effects);
    }

    /// Ends a turn: every socket says that it has written what it got. Gives the events that plugins get.
    fn end_turn(&mut self) -> Vec<Effect> {
        self.input(Input::Tick);
        self.effects.changes.clear();
        let (mut events, mut written) = (Vec::new(), Vec::new());
        for effect in self.effects.list.drain(..) {
            match effect {
                Effect::Send { connection, packet: Packet::Publish(delivery), .. } => {
                    written.push((connection, delivery.message.weight()));
                }
                Effect::FanOut(fan_out) => {
                    let bytes = fan_out.delivery.message.weight();
                    written.extend(fan_out.to.iter().map(|receiver| (receiver.connection, bytes)));
                }
                Effect::Events { .. } => events.push(effect),
                _ => {}
            }
        }
        for (connection, bytes) in written {
            self.input(Input::Written { connection, bytes });
        }
        self.effects.begin();
        events
    }

    fn connect(&mut self, connection: ConnectionId) {
        let connect = Connect {
            protocol: Protocol::V5,
            client_id: format!("client-{}", connection.0).into(),
            client_id_assigned: false,
            clean_start: true,
            session_expiry_s: 0,
            receive_maximum: u16::MAX,
            maximum_packet_size: None,
            will: None,
            user: None,
            address: "".into(),
        };
        self.input(Input::Connect { connection, connect: Box::new(connect) });
        self.end_turn();
    }

    fn subscribe(&mut self, connection: ConnectionId, filter: &str) {
        let options = SubscriptionOptions {
            maximum_qos: Qos::AtMostOnce,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::Never,
        };
        let filter = TopicFilter::parse(filter).expect("a filter");
        let subscribe =
            Subscribe { packet_id: NonZeroU16::MIN, filters: vec![Ok((filter, options))], identifier: None };
        self.input(Input::Subscribe { connection, subscribe: Box::new(subscribe) });
        self.end_turn();
    }

    fn publish(&mut self, message: &Message, packet_id: Option<u16>) {
        let packet_id = packet_id.and_then(NonZeroU16::new);
        let publish = Publish { packet_id, dup: false, message: message.clone() };
        self.input(Input::Publish { connection: PUBLISHER, publish });
    }
}

fn message(topic: &str, qos: Qos) -> Message {
    Message {
        topic: Topic::parse(topic).expect("a topic"),
        payload: [7; 125].into(),
        qos,
        retain: false,
        properties: None,
        expires_at: None,
        received_at: NOW,
        publisher: "client-1".into(),
        user: None,
    }
}

/// A publish at QoS 0 to so many clients; to more than 256 it is done in parts, over several turns.
#[divan::bench(args = [1, 16, 256])]
fn publish(bencher: Bencher<'_, '_>, subscribers: u64) {
    let mut bench = Bench::new();
    for number in 0..subscribers {
        bench.connect(ConnectionId(2 + number));
        bench.subscribe(ConnectionId(2 + number), "assets/+/vibration");
    }
    let message = message("assets/pump-1/vibration", Qos::AtMostOnce);
    bencher.counter(ItemsCount::new(subscribers)).bench_local(|| {
        bench.publish(&message, None);
        black_box(bench.end_turn())
    });
}

/// A publish that one of so many filters with wildcards matches.
#[divan::bench(args = [100, 100_000])]
fn among_wildcards(bencher: Bencher<'_, '_>, filters: u64) {
    let mut bench = Bench::new();
    for number in 0..filters {
        // A client has a bound.
        let connection = ConnectionId(2 + number / 100);
        if number % 100 == 0 {
            bench.connect(connection);
        }
        bench.subscribe(connection, &format!("+/{number}/#"));
    }
    assert_eq!(bench.broker.statistics().subscriptions as u64, filters);
    let message = message("assets/77/vibration", Qos::AtMostOnce);
    bencher.bench_local(|| {
        bench.publish(&message, None);
        black_box(bench.end_turn())
    });
}

/// Events at QoS 1 through a plugin's inbox: published, handed out, settled with a write each.
#[divan::bench]
fn through_a_plugin(bencher: Bencher<'_, '_>) {
    let mut bench = Bench::new();
    let (plugin, lane) = (PluginName("health".into()), Lane(0));
    let filter = TopicFilter::parse("assets/+/vibration").expect("a filter");
    let revision = Revision { number: 1, digest: [1; 32], version: "1.0.0".into(), activated_at: NOW };
    let activation = Box::new(Activation::plain(revision, vec![(filter, Qos::AtLeastOnce)]));
    bench.input(Input::ActivatePlugin { plugin: plugin.clone(), activation });
    bench.end_turn();
    let message = message("assets/pump-1/vibration", Qos::AtLeastOnce);
    let value: Arc<[u8]> = [7; 64].into();
    bencher.counter(ItemsCount::new(BATCH)).bench_local(|| {
        for number in 1..=BATCH {
            bench.publish(&message, u16::try_from(number).ok());
        }
        bench.input(Input::TakeEvents { plugin: plugin.clone(), lane, max: BATCH });
        for effect in bench.end_turn() {
            let Effect::Events { events, .. } = effect else { unreachable!("nothing else is given") };
            assert_eq!(events.len(), BATCH);
            let outcomes = events.iter().map(|event| (event.sequence, Outcome::Done)).collect();
            let writes = events.iter().map(|_| StateWrite::lasting("pump-1", Some(value.clone()))).collect();
            let settlement = Box::new(Settlement { outcomes, writes, ..Settlement::default() });
            bench.input(Input::Settle { plugin: plugin.clone(), lane, settlement });
        }
        black_box(bench.end_turn())
    });
}
