//! Whatever comes, in whatever order: the broker does not panic, keeps its invariants and its bounds, and equals the one
//! restored from its changes.

use fastrand::Rng;
use vespiary_core::event::{
    AcknowledgeStep, Activation, Connect, ConnectionId, Disconnect, Outcome, PacketId, PluginName, Protocol, Publish,
    ReasonCode, RetainHandling, Revision, Sequence, Settlement, Subscribe, SubscriptionOptions, Will,
};
use vespiary_core::{
    Broker, Effect, Effects, Input, Ledger, Limits, Message, Qos, SharedStrategy, Timestamp, Topic, TopicFilter,
};

/// Makes inputs.
struct Chaos {
    /// Decides everything.
    rng: Rng,
    /// The time.
    now: Timestamp,
    /// The number of the last connection.
    connections: u64,
    /// Sequences that plugins have seen lately.
    sequences: Vec<Sequence>,
    /// What is to be read from disk.
    loads: Vec<Effect>,
    /// What was read, and is still to be told.
    answers: Vec<Input>,
}

#[test]
fn no_inputs_break_the_broker() {
    for seed in 0..120 {
        let mut chaos = Chaos::new(seed);
        let limits = chaos.limits();
        let mut broker = Broker::new(limits.clone(), seed);
        let mut effects = Effects::default();
        let mut disk = Ledger::default();
        for step in 0..400 {
            let input = chaos.input();
            broker.handle(chaos.now, input, &mut effects);
            effects.changes.drain(..).for_each(|change| disk.apply(change));
            for effect in effects.list.drain(..) {
                match effect {
                    Effect::Events { events, .. } => {
                        chaos.sequences = events.iter().map(|event| event.sequence).collect();
                    }
                    Effect::Load { .. } => chaos.loads.push(effect),
                    _ => {}
                }
            }
            chaos.read(&disk);
            broker.check_invariants();
            if step % 20 == 0 {
                let everything = [disk.changes(), disk.dead_letters()].concat();
                let restored = Broker::restore(limits.clone(), 0, everything);
                restored.check_invariants();
                assert_eq!(disk.changes(), broker.durable_state(), "seed {seed}, step {step}");
                assert_eq!(restored.durable_state(), broker.durable_state(), "seed {seed}, step {step}");
            }
            if chaos.rng.u8(..) == 0 {
                broker = Broker::restore(limits.clone(), seed, [disk.changes(), disk.dead_letters()].concat());
                chaos.answers.clear();
                chaos.loads.clear();
                broker.handle(chaos.now, Input::Started, &mut effects);
            }
        }
    }
}

impl Chaos {
    fn new(seed: u64) -> Self {
        Self {
            rng: Rng::with_seed(seed),
            now: Timestamp(1),
            connections: 0,
            sequences: Vec::new(),
            loads: Vec::new(),
            answers: Vec::new(),
        }
    }

    /// Reads from disk, now or later; the answer comes later still, or in vain.
    fn read(&mut self, disk: &Ledger) {
        if self.rng.bool() {
            return;
        }
        for load in std::mem::take(&mut self.loads) {
            let Effect::Load { ticket, session, after, max, max_bytes, change: _ } = load else { continue };
            let entries = (self.rng.u8(..) > 10).then(|| disk.load(session, after, max, max_bytes));
            self.answers.push(Input::Loaded { ticket, entries });
        }
    }

    fn limits(&mut self) -> Limits {
        let rng = &mut self.rng;
        Limits {
            connections: rng.usize(1..6),
            sessions: rng.usize(1..6),
            subscriptions_per_session: rng.usize(1..5),
            queued_messages: rng.usize(0..5),
            queued_bytes: rng.usize(0..200),
            window_messages: rng.usize(0..4),
            window_bytes: rng.usize(0..100),
            buffered_messages: rng.usize(0..5),
            buffered_bytes: rng.usize(0..200),
            inflight_messages: rng.u16(1..5),
            receive_maximum: rng.u16(1..4),
            unwritten_bytes: rng.usize(1..100),
            retained_messages: rng.usize(0..4),
            retained_bytes: rng.usize(0..100),
            session_expiry_s: if rng.bool() { 5 } else { u32::MAX },
            plugins: rng.usize(0..3),
            inbox_events: rng.usize(0..6),
            inbox_bytes: rng.usize(0..200),
            batch_bytes: rng.usize(0..100),
            dead_letters: rng.usize(0..3),
            fan_out_at_once: rng.usize(0..3),
            fan_out_per_turn: rng.usize(0..3),
            shared_strategy: [
                SharedStrategy::RoundRobin,
                SharedStrategy::Sticky,
                SharedStrategy::Random,
                SharedStrategy::LeastInFlight,
            ][rng.usize(0..4)],
        }
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.rng.usize(0..from.len())]
    }

    fn input(&mut self) -> Input {
        // The clock may go backwards, too.
        self.now = match self.rng.u8(..) {
            0..10 => self.now.after_ms(10_000),
            10..60 => self.now.after_ms(1_000),
            60..70 => Timestamp(self.now.0.saturating_sub(2_000)),
            _ => self.now,
        };
        if let Some(answer) = self.answers.pop() {
            return answer;
        }
        let connection = ConnectionId(self.rng.u64(self.connections.saturating_sub(6)..=self.connections));
        let packet_id = PacketId::MIN.saturating_add(self.rng.u16(0..4));
        let plugin = PluginName(self.pick(&["p", "q", "r"]).into());
        match self.rng.u8(0..100) {
            0..12 => self.connect(),
            12..40 => {
                let message = self.message();
                // Now and then an identifier where there should be none, or none where there should be one.
                let with_id = (message.qos != Qos::AtMostOnce) != (self.rng.u8(..) == 0);
                let publish = Publish { packet_id: with_id.then_some(packet_id), dup: self.rng.bool(), message };
                Input::Publish { connection, publish }
            }
            40..56 => {
                let step = self.pick(&[
                    AcknowledgeStep::Puback,
                    AcknowledgeStep::Pubrec,
                    AcknowledgeStep::Pubrel,
                    AcknowledgeStep::Pubcomp,
                ]);
                let reason = self.pick(&[ReasonCode::Success, ReasonCode::Success, ReasonCode::UnspecifiedError]);
                Input::Acknowledge { connection, packet_id, step, reason }
            }
            56..64 => {
                let identifier = self.rng.bool().then_some(7);
                let count = self.rng.usize(0..3);
                let filters = (0..count).map(|_| self.subscription()).collect();
                Input::Subscribe { connection, subscribe: Box::new(Subscribe { packet_id, identifier, filters }) }
            }
            64..66 => Input::Unsubscribe { connection, packet_id, filters: vec![self.filter()] },
            66..68 => {
                let session_expiry_s = self.pick(&[None, None, Some(0), Some(3)]);
                let disconnect = Disconnect { with_will: self.rng.bool(), session_expiry_s };
                Input::Disconnect { connection, disconnect }
            }
            68..72 => Input::ConnectionLost { connection },
            72..78 => Input::Written { connection, bytes: self.rng.usize(0..100) },
            78..83 => Input::Tick,
            83 => self.pick_storage(),
            84..87 => self.activate(plugin),
            87 => Input::RemovePlugin { plugin },
            88..93 => Input::TakeEvents { plugin, max: self.rng.usize(0..4) },
            93 => Input::CancelTake { plugin },
            94 => Input::ReturnEvents { plugin },
            _ => self.settle(plugin),
        }
    }

    fn pick_storage(&mut self) -> Input {
        if self.rng.u8(..) < 60 { Input::StorageFailed } else { Input::StorageRecovered }
    }

    fn connect(&mut self) -> Input {
        self.connections += 1;
        let will = self.rng.bool().then(|| {
            let (expiry_s, delay_s) = (self.pick(&[None, Some(0), Some(2)]), self.pick(&[0, 0, 2, 100]));
            Box::new(Will { message: self.message(), expiry_s, delay_s })
        });
        let connect = Connect {
            protocol: self.pick(&[Protocol::V3, Protocol::V5]),
            client_id: self.pick(&["a", "b", "c", "p"]).into(),
            client_id_assigned: self.rng.bool(),
            clean_start: self.rng.bool(),
            session_expiry_s: self.pick(&[0, 1, 4, u32::MAX]),
            receive_maximum: self.pick(&[0, 1, 2, u16::MAX]),
            maximum_packet_size: self.pick(&[None, None, Some(0), Some(12)]),
            will,
        };
        // Now and then on a connection that is already there.
        let connection = ConnectionId(self.connections - u64::from(self.rng.u8(..) == 0));
        Input::Connect { connection, connect: Box::new(connect) }
    }

    fn text(topic: &str, qos: Qos, received_at: Timestamp) -> Message {
        Message {
            topic: Topic::parse(topic).expect("a topic"),
            payload: Box::from([]),
            qos,
            retain: false,
            properties: None,
            expires_at: None,
            received_at,
            publisher: "a".into(),
        }
    }

    fn message(&mut self) -> Message {
        let topic = self.pick(&["a", "a/b", "b/c", "$s"]);
        let qos = self.pick(&[Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce]);
        Message {
            payload: vec![0; self.pick(&[0, 1, 9])].into(),
            retain: self.rng.u8(..) < 80,
            expires_at: self.pick(&[None, None, Some(0), Some(3_000)]).map(|after| self.now.after_ms(after)),
            ..Self::text(topic, qos, self.now)
        }
    }

    fn filter(&mut self) -> TopicFilter {
        TopicFilter::parse(self.pick(&[
            "a",
            "#",
            "+",
            "a/#",
            "+/+",
            "$s",
            "b/c",
            "$share/g/#",
            "$share/h/#",
            "$share/g/a",
        ]))
        .expect("a filter")
    }

    fn subscription(&mut self) -> Result<(TopicFilter, SubscriptionOptions), ReasonCode> {
        if self.rng.u8(..) < 10 {
            return Err(ReasonCode::SharedSubscriptionsNotSupported);
        }
        let options = SubscriptionOptions {
            maximum_qos: self.pick(&[Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce]),
            no_local: self.rng.bool(),
            retain_as_published: self.rng.bool(),
            retain_handling: self.pick(&[RetainHandling::AtSubscribe, RetainHandling::IfNew, RetainHandling::Never]),
        };
        Ok((self.filter(), options))
    }

    fn activate(&mut self, plugin: PluginName) -> Input {
        let number = self.rng.u32(..);
        let revision = Revision { number, digest: [0; 32], version: "1".into(), activated_at: self.now };
        let count = self.rng.usize(0..4);
        let subscriptions =
            (0..count).map(|_| (self.filter(), self.pick(&[Qos::AtMostOnce, Qos::ExactlyOnce]))).collect();
        Input::ActivatePlugin { plugin, activation: Box::new(Activation { revision, subscriptions }) }
    }

    fn settle(&mut self, plugin: PluginName) -> Input {
        let mut settlement = Settlement::default();
        for sequence in self.sequences.clone() {
            let at = self.now.after_ms(self.rng.u64(0..3_000));
            let outcome = match self.rng.u8(0..6) {
                0 => continue,
                1 | 2 => Outcome::RetryAt(at),
                3 => Outcome::DeadLetter("".into()),
                _ => Outcome::Done,
            };
            settlement.outcomes.push((sequence, outcome));
        }
        settlement.outcomes.push((Sequence(self.rng.u64(..)), Outcome::Done));
        let publishes = self.rng.usize(0..3);
        settlement.publishes.extend((0..publishes).map(|_| self.message()));
        Input::Settle { plugin, settlement: Box::new(settlement) }
    }
}
