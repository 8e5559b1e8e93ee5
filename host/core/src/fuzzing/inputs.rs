//! Sequences of inputs: whatever comes, in whatever order, the broker does not panic, keeps its invariants and its bounds,
//! and equals the one restored from its changes.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::event::{
    AcknowledgeStep, Activation, CommitTicket, Connect, ConnectionId, DeadLetterAction, Disconnect, EventKey,
    GenerationStep, Lane, Lanes, Outcome, PacketId, PluginName, ProbationVerdict, Protocol, Publish, ReasonCode,
    RetainHandling, Revision, Sequence, Settlement, StateWrite, Subscribe, SubscriptionOptions, Timer, TimerWrite,
    Will,
};
use crate::{
    Broker, Change, Effect, Effects, Input, Ledger, Limits, Message, Qos, SharedStrategy, Timestamp, Topic, TopicFilter,
};

/// Inputs between two comparisons with the broker that the changes make.
const COMPARE_EVERY: usize = 20;

/// Takes `bytes` for the limits of a broker and for what happens to it: inputs, times, answers from a disk that may
/// fail, and restarts.
///
/// The invariants hold after each input; what the changes come to is what the broker holds durably, and so does a broker
/// restored from them.
pub fn inputs(bytes: &[u8]) {
    play(bytes, |_, _| {});
}

/// Plays; `saw` gets what each input led to, and how many bytes it took to get there.
fn play(bytes: &[u8], mut saw: impl FnMut(usize, &Effects)) {
    let mut chaos = Chaos::new(bytes);
    let (limits, seed) = (chaos.limits(), u64::from(chaos.choices.byte()));
    let mut broker = Broker::new(limits.clone(), seed);
    let mut effects = Effects::default();
    let mut disk = Ledger::default();
    let mut step = 0;
    while !chaos.choices.rest.is_empty() {
        step += 1;
        let input = chaos.input();
        effects.begin();
        broker.handle(chaos.now, input, &mut effects);
        saw(bytes.len() - chaos.choices.rest.len(), &effects);
        keep(&mut disk, &mut effects.changes);
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
        if step % COMPARE_EVERY == 0 {
            compare(&broker, &limits, &disk);
        }
        if chaos.choices.byte() == u8::MAX {
            broker = Broker::restore(limits.clone(), seed, everything(&disk));
            chaos.answers = vec![Input::Started];
            chaos.loads.clear();
        }
    }
    compare(&broker, &limits, &disk);
}

/// Keeps the changes of one input, which are one group: a message that leaves one queue in it and enters another is there
/// all the time, as in the store's transaction.
fn keep(disk: &mut Ledger, changes: &mut Vec<Change>) {
    let left = |change: &Change| matches!(change, Change::Dequeued { .. });
    let (left, others): (Vec<_>, Vec<_>) = changes.drain(..).partition(left);
    others.into_iter().chain(left).for_each(|change| disk.apply(change));
}

fn everything(disk: &Ledger) -> Vec<Change> {
    [disk.changes(), disk.dead_letters()].concat()
}

/// Disk, broker and the broker restored from disk are the same in everything durable.
fn compare(broker: &Broker, limits: &Limits, disk: &Ledger) {
    assert_eq!(disk.changes(), broker.durable_state());
    let on_disk = disk.dead_letters();
    let numbers = on_disk.iter().filter_map(|change| match change {
        Change::DeadLettered { sequence, .. } => Some(*sequence),
        _ => None,
    });
    let known = broker.plugins().flat_map(|status| broker.dead_letters(status.plugin));
    assert_eq!(numbers.collect::<BTreeSet<_>>(), known.collect::<BTreeSet<_>>());
    let restored = Broker::restore(limits.clone(), 0, everything(disk));
    restored.check_invariants();
    assert_eq!(restored.durable_state(), broker.durable_state());
}

/// Makes inputs.
struct Chaos<'a> {
    /// Decides everything.
    choices: Choices<'a>,
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

/// Decisions, a byte each; 0 when the bytes are used up.
struct Choices<'a> {
    /// What has not been used.
    rest: &'a [u8],
}

impl Choices<'_> {
    fn byte(&mut self) -> u8 {
        let Some((&byte, rest)) = self.rest.split_first() else { return 0 };
        self.rest = rest;
        byte
    }

    fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    fn below<T: From<u8>>(&mut self, bound: u8) -> T {
        T::from(self.byte() % bound)
    }
}

impl<'a> Chaos<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self {
            choices: Choices { rest: bytes },
            now: Timestamp(1),
            connections: 0,
            sequences: Vec::new(),
            loads: Vec::new(),
            answers: Vec::new(),
        }
    }

    /// Reads from disk, now or later; the answer comes later still, or in vain.
    fn read(&mut self, disk: &Ledger) {
        if self.choices.flag() {
            return;
        }
        for load in std::mem::take(&mut self.loads) {
            let Effect::Load { ticket, session, after, max, max_bytes, change: _ } = load else { continue };
            // One entry at the least, even where not a byte is wanted.
            let entries = (self.choices.byte() > 10).then(|| disk.load(session, after, max, max_bytes));
            self.answers.push(Input::Loaded { ticket, entries });
        }
    }

    fn limits(&mut self) -> Limits {
        let choices = &mut self.choices;
        Limits {
            connections: choices.below::<usize>(5) + 1,
            sessions: choices.below::<usize>(5) + 1,
            subscriptions_per_session: choices.below::<usize>(4) + 1,
            queued_messages: choices.below(5),
            queued_bytes: choices.below(200),
            window_messages: choices.below(4),
            window_bytes: choices.below(100),
            buffered_messages: choices.below(5),
            buffered_bytes: choices.below(200),
            inflight_messages: choices.below::<u16>(4) + 1,
            receive_maximum: choices.below::<u16>(3) + 1,
            unwritten_bytes: choices.below::<usize>(99) + 1,
            retained_messages: choices.below(4),
            retained_bytes: choices.below(100),
            session_expiry_s: if choices.flag() { 5 } else { u32::MAX },
            plugins: choices.below(3),
            inbox_events: choices.below(6),
            inbox_bytes: choices.below(200),
            batch_bytes: choices.below(100),
            dead_letters: choices.below(3),
            timers: 3,
            probation_events: 3,
            fan_out_at_once: choices.below(3),
            fan_out_per_turn: choices.below(3),
            shared_strategy: [
                SharedStrategy::RoundRobin,
                SharedStrategy::Sticky,
                SharedStrategy::Random,
                SharedStrategy::LeastInFlight,
            ][choices.below::<usize>(4)],
        }
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.choices.below::<usize>(from.len() as u8)]
    }

    fn input(&mut self) -> Input {
        // The clock may go backwards, too.
        self.now = match self.choices.byte() {
            0..10 => self.now.after_ms(10_000),
            10..60 => self.now.after_ms(1_000),
            60..70 => Timestamp(self.now.0.saturating_sub(2_000)),
            _ => self.now,
        };
        if let Some(answer) = self.answers.pop() {
            return answer;
        }
        let connection = ConnectionId(self.connections.saturating_sub(self.choices.below(7)));
        let packet_id = PacketId::MIN.saturating_add(self.choices.below(4));
        let plugin = PluginName(self.pick(&["p", "q", "r"]).into());
        match self.choices.below(100) {
            0..12 => self.connect(),
            12..40 => {
                let message = self.message();
                // Now and then an identifier where there should be none, or none where there should be one.
                let with_id = (message.qos != Qos::AtMostOnce) != (self.choices.byte() == 0);
                let publish = Publish { packet_id: with_id.then_some(packet_id), dup: self.choices.flag(), message };
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
                let identifier = self.choices.flag().then_some(7);
                let count = self.choices.below(3);
                let filters = (0..count).map(|_: u8| self.subscription()).collect();
                Input::Subscribe { connection, subscribe: Box::new(Subscribe { packet_id, identifier, filters }) }
            }
            64..66 => Input::Unsubscribe { connection, packet_id, filters: vec![self.filter()] },
            66..68 => {
                let session_expiry_s = self.pick(&[None, None, Some(0), Some(3)]);
                let disconnect = Disconnect { with_will: self.choices.flag(), session_expiry_s };
                Input::Disconnect { connection, disconnect }
            }
            68..72 => Input::ConnectionLost { connection },
            72..78 => Input::Written { connection, bytes: self.choices.below(100) },
            78..83 => Input::Tick,
            83 => self.pick_storage(),
            84..87 => self.activate(plugin),
            87 => Input::RemovePlugin { plugin },
            88..91 => {
                let lane = self.lane();
                Input::TakeEvents { plugin, lane, max: self.choices.below(4) }
            }
            91 => self.arrange(plugin),
            92 => self.generation(plugin),
            93 => Input::CancelTake { plugin, lane: self.lane() },
            94 => Input::ReturnEvents { plugin, lane: self.lane() },
            95 => self.end_probation(plugin),
            96 => self.change_dead_letters(plugin),
            97 => {
                let (ticket, settlement) = (CommitTicket(7), Box::new(self.settlement()));
                Input::Commit { plugin, ticket, settlement }
            }
            _ => {
                let (lane, settlement) = (self.lane(), Box::new(self.settlement()));
                Input::Settle { plugin, lane, settlement }
            }
        }
    }

    fn lane(&mut self) -> Lane {
        Lane(self.pick(&[0, 0, 0, 1, 2]))
    }

    fn lanes(&mut self) -> Lanes {
        Lanes {
            count: self.pick(&[0, 1, 1, 2]),
            key: self.pick(&[EventKey::Topic, EventKey::Publisher, EventKey::Level(1)]),
            canary_percent: self.pick(&[0, 0, 30, 200]),
        }
    }

    fn arrange(&mut self, plugin: PluginName) -> Input {
        let lanes = self.lanes();
        Input::ArrangeLanes { plugin, lanes }
    }

    fn generation(&mut self, plugin: PluginName) -> Input {
        let write = StateWrite::lasting("k", Some(Arc::from([])));
        let step = match self.choices.below(4) {
            0 | 1 => GenerationStep::Begin,
            2 => GenerationStep::Write(vec![write]),
            _ => GenerationStep::Drop,
        };
        Input::Generation { plugin, step }
    }

    fn end_probation(&mut self, plugin: PluginName) -> Input {
        let verdict = if self.choices.flag() {
            ProbationVerdict::Keep
        } else {
            ProbationVerdict::RollBack(Box::new(self.activation()))
        };
        Input::EndProbation { plugin, verdict }
    }

    fn change_dead_letters(&mut self, plugin: PluginName) -> Input {
        let count = self.choices.below(3);
        let letters = (0..count).map(|_: u8| {
            let sequence = Sequence(self.choices.below(60));
            let replay = self.choices.flag().then(|| DeadLetterAction::Replay(Arc::new(self.message())));
            (sequence, replay.unwrap_or(DeadLetterAction::Drop))
        });
        Input::ChangeDeadLetters { plugin, letters: letters.collect() }
    }

    fn pick_storage(&mut self) -> Input {
        if self.choices.byte() < 60 { Input::StorageFailed } else { Input::StorageRecovered }
    }

    fn connect(&mut self) -> Input {
        self.connections += 1;
        let will = self.choices.flag().then(|| {
            let (expiry_s, delay_s) = (self.pick(&[None, Some(0), Some(2)]), self.pick(&[0, 0, 2, 100]));
            Box::new(Will { message: self.message(), expiry_s, delay_s })
        });
        let connect = Connect {
            protocol: self.pick(&[Protocol::V3, Protocol::V5]),
            client_id: self.pick(&["a", "b", "c", "p"]).into(),
            client_id_assigned: self.choices.flag(),
            clean_start: self.choices.flag(),
            session_expiry_s: self.pick(&[0, 1, 4, u32::MAX]),
            receive_maximum: self.pick(&[0, 1, 2, u16::MAX]),
            maximum_packet_size: self.pick(&[None, None, Some(0), Some(12)]),
            will,
            user: None,
            address: "".into(),
        };
        // Now and then on a connection that is already there.
        let connection = ConnectionId(self.connections - u64::from(self.choices.byte() == 0));
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
            user: None,
        }
    }

    fn message(&mut self) -> Message {
        let topic = self.pick(&["a", "a/b", "b/c", "$s", "$reply/p/1"]);
        let qos = self.pick(&[Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce]);
        Message {
            payload: vec![0; self.pick(&[0, 1, 9])].into(),
            retain: self.choices.byte() < 80,
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
            "$clients/#",
            "$dead/#",
            "b/c",
            "$share/g/#",
            "$share/h/#",
            "$share/g/a",
        ]))
        .expect("a filter")
    }

    fn subscription(&mut self) -> Result<(TopicFilter, SubscriptionOptions), ReasonCode> {
        if self.choices.byte() < 10 {
            return Err(ReasonCode::SharedSubscriptionsNotSupported);
        }
        let options = SubscriptionOptions {
            maximum_qos: self.pick(&[Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce]),
            no_local: self.choices.flag(),
            retain_as_published: self.choices.flag(),
            retain_handling: self.pick(&[RetainHandling::AtSubscribe, RetainHandling::IfNew, RetainHandling::Never]),
        };
        Ok((self.filter(), options))
    }

    fn activate(&mut self, plugin: PluginName) -> Input {
        Input::ActivatePlugin { plugin, activation: Box::new(self.activation()) }
    }

    fn activation(&mut self) -> Activation {
        let number = self.choices.below(5);
        let revision = Revision { number, digest: [0; 32], version: "1".into(), activated_at: self.now };
        let count = self.choices.below(4);
        let subscriptions =
            (0..count).map(|_: u8| (self.filter(), self.pick(&[Qos::AtMostOnce, Qos::ExactlyOnce]))).collect();
        let schedules = self.choices.flag().then(|| ("nightly".into(), self.timer(true)));
        Activation {
            lanes: self.lanes(),
            schedules: schedules.into_iter().collect(),
            new_generation: self.choices.flag(),
            probation: self.choices.flag(),
            ..Activation::plain(revision, subscriptions)
        }
    }

    fn timer(&mut self, declared: bool) -> Timer {
        let at = self.now.after_ms(100 * self.choices.below::<u64>(30));
        let schedule = self.choices.flag().then(|| "* * * * *".into());
        Timer { at, schedule, declared, payload: Arc::from([7]) }
    }

    fn settlement(&mut self) -> Settlement {
        let mut settlement = Settlement::default();
        for sequence in self.sequences.clone() {
            let at = self.now.after_ms(100 * self.choices.below::<u64>(30));
            let outcome = match self.choices.below(6) {
                0 => continue,
                1 | 2 => Outcome::RetryAt(at),
                3 => Outcome::DeadLetter("".into()),
                _ => Outcome::Done,
            };
            settlement.outcomes.push((sequence, outcome));
        }
        settlement.outcomes.push((Sequence(self.choices.below(40)), Outcome::Done));
        let publishes = self.choices.below(3);
        settlement.publishes.extend((0..publishes).map(|_: u8| self.message()));
        let timers = self.choices.below(3);
        settlement.timers.extend((0..timers).map(|_: u8| TimerWrite {
            name: self.pick(&["a", "b", "c", "$request/1", "$request/2", "+"]).into(),
            timer: self.choices.flag().then(|| self.timer(false)),
        }));
        if self.choices.byte() < 20 {
            settlement.disconnects.push(self.pick(&["a", "b", "nobody"]).into());
        }
        settlement.writes.push(StateWrite::lasting("k", None));
        settlement
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fmt::Debug;

    use fastrand::Rng;

    use super::*;

    #[test]
    fn no_inputs_break_the_broker() {
        for seed in 0..120 {
            inputs(&random(seed, 4_096));
        }
    }

    #[test]
    fn no_variants_of_telling_inputs_break_the_broker() {
        corpus::check("inputs", seeds, inputs);
    }

    fn random(seed: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        Rng::with_seed(seed).fill(&mut bytes);
        bytes
    }

    /// For each kind of effect, of packet and of change, the fewest random bytes that led to it.
    fn seeds() -> corpus::Seeds {
        let mut shortest: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        for seed in 0..2_000 {
            let bytes = random(seed, 1_024);
            play(&bytes, |used, effects| {
                let names = effects.list.iter().map(|effect| match effect {
                    Effect::Send { packet, .. } => name("send", packet),
                    Effect::Dropped { reason, .. } => name("dropped", reason),
                    effect => name("effect", effect),
                });
                for name in names.chain(effects.changes.iter().map(|change| name("change", change))) {
                    let known = shortest.entry(name).or_insert_with(|| bytes.clone());
                    if used < known.len() {
                        *known = bytes[..used].to_vec();
                    }
                }
            });
        }
        shortest.into_iter().collect()
    }

    fn name(kind: &str, value: &impl Debug) -> String {
        let text = format!("{value:?}");
        let name = text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
        format!("{kind}-{name}")
    }
}
