//! Routing against a naive model: every subscription is tried with every topic by `TopicFilter::matches`.

use std::collections::BTreeMap;

use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_assert_eq, prop_oneof, proptest};
use proptest::test_runner::TestCaseError;
use vespiary_core::event::{
    Connect, ConnectionId, Packet, PacketId, Protocol, Publish, RetainHandling, Subscribe, SubscriptionOptions,
};
use vespiary_core::{Broker, Effect, Effects, Input, Limits, Message, Qos, Timestamp, Topic, TopicFilter};

/// What clients do.
#[derive(Debug, Clone)]
enum Step {
    /// Subscribes.
    Subscribe { client: u64, filter: TopicFilter, options: SubscriptionOptions, identifier: Option<u32> },
    /// Unsubscribes.
    Unsubscribe { client: u64, filter: TopicFilter },
    /// Publishes.
    Publish { client: u64, topic: Topic, qos: Qos, retain: bool, empty: bool },
    /// Leaves with its session, and comes back with an empty one.
    Leave { client: u64 },
}

/// A delivery: the client, the topic, the text, QoS, RETAIN, and the sorted Subscription Identifiers.
type Delivered = (u64, String, Vec<u8>, Qos, bool, Vec<u32>);

/// The naive model.
#[derive(Default)]
struct Model {
    /// Subscriptions by client and filter.
    subscriptions: BTreeMap<(u64, TopicFilter), (SubscriptionOptions, Option<u32>)>,
    /// Retained messages, each with its text, QoS and publisher.
    retained: BTreeMap<Topic, (Vec<u8>, Qos, u64)>,
}

const CLIENTS: u64 = 3;

impl Model {
    fn step(&mut self, step: &Step, payload: &[u8]) -> Vec<Delivered> {
        match step.clone() {
            Step::Subscribe { client, filter, options, identifier } => {
                let key = (client, filter.clone());
                let is_new = self.subscriptions.insert(key, (options, identifier)).is_none();
                let wanted = match options.retain_handling {
                    RetainHandling::AtSubscribe => true,
                    RetainHandling::IfNew => is_new,
                    RetainHandling::Never => false,
                };
                let retained = self.retained.iter().filter(|(topic, (_, _, publisher))| {
                    wanted && filter.matches(topic) && !(options.no_local && *publisher == client)
                });
                let deliver = |(topic, (payload, qos, _)): (&Topic, &(Vec<u8>, Qos, u64))| {
                    let qos = (*qos).min(options.maximum_qos);
                    (client, topic.to_string(), payload.clone(), qos, true, identifier.into_iter().collect())
                };
                retained.map(deliver).collect()
            }
            Step::Unsubscribe { client, filter } => {
                self.subscriptions.remove(&(client, filter));
                Vec::new()
            }
            Step::Publish { client, topic, qos, retain, empty } => {
                if retain && empty {
                    self.retained.remove(&topic);
                } else if retain {
                    self.retained.insert(topic.clone(), (payload.to_vec(), qos, client));
                }
                let payload = if empty { Vec::new() } else { payload.to_vec() };
                (0..CLIENTS).filter_map(|to| self.deliver(to, client, &topic, &payload, qos, retain)).collect()
            }
            Step::Leave { client } => {
                self.subscriptions.retain(|(of, _), _| *of != client);
                Vec::new()
            }
        }
    }

    fn deliver(&self, to: u64, from: u64, topic: &Topic, payload: &[u8], qos: Qos, retain: bool) -> Option<Delivered> {
        let matching: Vec<_> = self
            .subscriptions
            .iter()
            .filter(|((client, filter), (options, _))| {
                *client == to && filter.matches(topic) && !(options.no_local && from == to)
            })
            .map(|(_, subscription)| *subscription)
            .collect();
        let highest = matching.iter().map(|(options, _)| options.maximum_qos).max()?;
        let retain = retain && matching.iter().any(|(options, _)| options.retain_as_published);
        let mut identifiers: Vec<u32> = matching.iter().filter_map(|(_, identifier)| *identifier).collect();
        identifiers.sort_unstable();
        Some((to, topic.to_string(), payload.to_vec(), qos.min(highest), retain, identifiers))
    }
}

fn qos() -> impl Strategy<Value = Qos> {
    prop_oneof![Just(Qos::AtMostOnce), Just(Qos::AtLeastOnce), Just(Qos::ExactlyOnce)]
}

fn topic() -> impl Strategy<Value = Topic> {
    let level = prop_oneof![Just("a"), Just("b"), Just(""), Just("$x")];
    let levels = proptest::collection::vec(level, 1..4);
    levels.prop_filter_map("not empty", |levels| Topic::parse(&levels.join("/")).ok())
}

fn filter() -> impl Strategy<Value = TopicFilter> {
    let level = prop_oneof![Just("a"), Just("b"), Just(""), Just("$x"), Just("+"), Just("+")];
    let levels = (proptest::collection::vec(level, 0..4), any::<bool>()).prop_map(|(mut levels, hash)| {
        levels.extend(hash.then_some("#"));
        levels.join("/")
    });
    levels.prop_filter_map("not empty", |filter| TopicFilter::parse(&filter).ok())
}

fn options() -> impl Strategy<Value = SubscriptionOptions> {
    let handling =
        prop_oneof![Just(RetainHandling::AtSubscribe), Just(RetainHandling::IfNew), Just(RetainHandling::Never)];
    (qos(), any::<bool>(), any::<bool>(), handling).prop_map(
        |(maximum_qos, no_local, retain_as_published, retain_handling)| SubscriptionOptions {
            maximum_qos,
            no_local,
            retain_as_published,
            retain_handling,
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let client = 0..CLIENTS;
    let identifier = proptest::option::of(1..5_u32);
    prop_oneof![
        6 => (client.clone(), filter(), options(), identifier)
            .prop_map(|(client, filter, options, identifier)| Step::Subscribe { client, filter, options, identifier }),
        3 => (client.clone(), filter()).prop_map(|(client, filter)| Step::Unsubscribe { client, filter }),
        10 => (client.clone(), topic(), qos(), any::<bool>(), proptest::bool::weighted(0.2))
            .prop_map(|(client, topic, qos, retain, empty)| Step::Publish { client, topic, qos, retain, empty }),
        1 => client.prop_map(|client| Step::Leave { client }),
    ]
}

fn inputs(step: &Step, payload: &[u8], number: u16) -> Vec<Input> {
    let packet_id = PacketId::new(number + 1).expect("not 0");
    match step.clone() {
        Step::Subscribe { client, filter, options, identifier } => {
            let subscribe = Box::new(Subscribe { packet_id, identifier, filters: vec![Ok((filter, options))] });
            vec![Input::Subscribe { connection: ConnectionId(client), subscribe }]
        }
        Step::Unsubscribe { client, filter } => {
            vec![Input::Unsubscribe { connection: ConnectionId(client), packet_id, filters: vec![filter] }]
        }
        Step::Publish { client, topic, qos, retain, empty } => {
            let message = Message {
                topic,
                payload: if empty { Box::from([]) } else { payload.into() },
                qos,
                retain,
                properties: None,
                expires_at: None,
                received_at: Timestamp(0),
                publisher: client.to_string().into(),
                user: None,
            };
            let packet_id = (qos != Qos::AtMostOnce).then_some(packet_id);
            let publish = Publish { packet_id, dup: false, message };
            vec![Input::Publish { connection: ConnectionId(client), publish }]
        }
        Step::Leave { client } => {
            vec![Input::ConnectionLost { connection: ConnectionId(client) }, connect(client)]
        }
    }
}

fn connect(client: u64) -> Input {
    let connect = Connect {
        protocol: Protocol::V5,
        client_id: client.to_string().into(),
        client_id_assigned: false,
        clean_start: true,
        session_expiry_s: 0,
        receive_maximum: u16::MAX,
        maximum_packet_size: None,
        will: None,
        user: None,
        address: "".into(),
    };
    Input::Connect { connection: ConnectionId(client), connect: Box::new(connect) }
}

fn check(steps: &[Step]) -> Result<(), TestCaseError> {
    let mut model = Model::default();
    let mut broker = Broker::new(Limits::default(), 11);
    let mut effects = Effects::default();
    for client in 0..CLIENTS {
        broker.handle(Timestamp(0), connect(client), &mut effects);
    }
    for (number, step) in steps.iter().enumerate() {
        let payload = number.to_string();
        effects.list.clear();
        for input in inputs(step, payload.as_bytes(), number as u16) {
            broker.handle(Timestamp(0), input, &mut effects);
        }
        broker.check_invariants();
        let unfolded = effects.list.drain(..).flat_map(Effect::unfold);
        let mut actual: Vec<Delivered> = unfolded.filter_map(|effect| delivered(&effect)).collect();
        let mut expected = model.step(step, payload.as_bytes());
        actual.sort_unstable();
        expected.sort_unstable();
        prop_assert_eq!(actual, expected, "step {}: {:?}", number, step);
    }
    Ok(())
}

fn delivered(effect: &Effect) -> Option<Delivered> {
    let Effect::Send { connection, packet: Packet::Publish(delivery), .. } = effect else { return None };
    let message = &delivery.message;
    let mut identifiers = delivery.subscription_identifiers.as_deref().unwrap_or_default().to_vec();
    identifiers.sort_unstable();
    let (topic, payload) = (message.topic.to_string(), message.payload.to_vec());
    Some((connection.0, topic, payload, delivery.qos, delivery.retain, identifiers))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn everybody_gets_what_the_naive_model_says(steps in proptest::collection::vec(step(), 1..60)) {
        check(&steps)?;
    }
}
