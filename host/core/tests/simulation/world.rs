//! The world of one seed: who is there, what happens, and what must be true at the end.

#[path = "world/plugins.rs"]
mod plugins;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use fastrand::Rng;
use vespiary_core::event::{Change, ConnectionId, DropReason, Packet, ProbationVerdict, Protocol, ReasonCode};
use vespiary_core::{
    Broker, ChangeNumber, Effect, Effects, Input, Ledger, Limits, Qos, SharedStrategy, Timestamp, Topic, TopicFilter,
};

use self::plugins::States;
use crate::client::{Client, number_of};
use crate::plugin::Plugin;
use crate::totals::Totals;

/// Topics that clients publish to. Each subscriber's filter matches some of them.
const TOPICS: [&str; 4] = ["a/1", "a/2", "b/1", "b/2"];

/// Publishers come first among the clients; a message's number holds whose it is.
const PUBLISHERS: usize = 2;

/// Everything.
pub struct World {
    /// Decides everything.
    rng: Rng,
    /// The seed of the broker's hash tables.
    seed: u64,
    /// The time.
    now: Timestamp,
    /// The broker's bounds.
    limits: Limits,
    /// The broker.
    broker: Broker,
    /// What it asks for.
    effects: Effects,
    /// What is durable.
    durable: Ledger,
    /// Changes since this start that are durable.
    durable_number: u64,
    /// Changes that are not durable yet, by input, with the number of the last of each.
    pending: VecDeque<(u64, Vec<Change>)>,
    /// What is to be read from disk.
    loads: VecDeque<Effect>,
    /// Effects that wait for their change, by connection, in order.
    held: BTreeMap<ConnectionId, VecDeque<Effect>>,
    /// Weight of the publishes that connections have not reported as written.
    unwritten: BTreeMap<ConnectionId, usize>,
    /// Publishers, then subscribers.
    clients: Vec<Client>,
    /// What each subscriber subscribes to.
    filters: Vec<(usize, TopicFilter, Qos)>,
    /// Plugins, each with the filter that it subscribes to.
    plugins: Vec<(Plugin, TopicFilter)>,
    /// What is durable of the state of plugins.
    states: States,
    /// Activations so far.
    revisions: u32,
    /// The number of the next connection.
    next_connection: u64,
    /// The number of the next message.
    next_message: u64,
    /// Every message published: topic and QoS.
    published: BTreeMap<u64, (Topic, Qos)>,
    /// Whether everything works from now on.
    calm: bool,
    /// What happened.
    totals: Totals,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let limits = Limits {
            inflight_messages: rng.u16(1..8),
            receive_maximum: rng.u16(1..8),
            unwritten_bytes: if rng.bool() { 1 << 20 } else { 60 },
            inbox_events: if rng.u8(..) < 80 { 3 } else { 1000 },
            window_messages: rng.usize(1..6),
            window_bytes: if rng.bool() { 1 << 20 } else { 100 },
            fan_out_at_once: rng.usize(0..4),
            fan_out_per_turn: rng.usize(1..3),
            shared_strategy: [
                SharedStrategy::RoundRobin,
                SharedStrategy::Sticky,
                SharedStrategy::Random,
                SharedStrategy::LeastInFlight,
            ][rng.usize(0..4)],
            ..Limits::default()
        };
        let mut clients = vec![Client::new("p0", true), Client::new("p1", true)];
        for name in ["s0", "s1", "s2"] {
            clients.push(Client::new(name, true));
        }
        clients.push(Client::new("clean", false));
        clients.push(Client::new("clean too", false));
        let mut filters = Vec::new();
        for subscriber in PUBLISHERS..clients.len() {
            let qos = [Qos::AtLeastOnce, Qos::ExactlyOnce, Qos::ExactlyOnce][rng.usize(0..3)];
            for filter in [["a/+", "b/#", "#"][rng.usize(0..3)], ["a/1", "passed/one/#", "+/2"][rng.usize(0..3)]] {
                filters.push((subscriber, TopicFilter::parse(filter).expect("a filter"), qos));
            }
        }
        let shared = TopicFilter::parse("$share/workers/a/#").expect("a filter");
        let shared_qos = [Qos::AtLeastOnce, Qos::ExactlyOnce][rng.usize(0..2)];
        clients.push(Client::worker("stays", u32::MAX, shared.clone(), shared_qos));
        clients.push(Client::worker("leaves", 30, shared, shared_qos));
        let passed = TopicFilter::parse("$share/passed/passed/#").expect("a filter");
        for name in ["in memory", "in memory too"] {
            clients.push(Client::worker(name, 0, passed.clone(), shared_qos));
        }
        filters.push((PUBLISHERS, TopicFilter::parse("passed/#").expect("a filter"), Qos::ExactlyOnce));
        let filter = |filter| TopicFilter::parse(filter).expect("a filter");
        let plugins =
            vec![(Plugin::new("one", "passed/one"), filter("a/#")), (Plugin::new("two", "passed/two"), filter("+/2"))];
        Self {
            seed,
            now: Timestamp(1_000_000),
            broker: Broker::new(limits.clone(), seed),
            limits,
            effects: Effects::default(),
            durable: Ledger::default(),
            loads: VecDeque::new(),
            durable_number: 0,
            pending: VecDeque::new(),
            held: BTreeMap::new(),
            unwritten: BTreeMap::new(),
            clients,
            filters,
            plugins,
            states: States::default(),
            revisions: 0,
            next_connection: 1,
            next_message: 1,
            published: BTreeMap::new(),
            calm: false,
            totals: Totals::default(),
            rng,
        }
    }

    pub fn run(mut self) -> Totals {
        self.begin();
        for _ in 0..1500 {
            self.step();
        }
        self.heal();
        self.check_end();
        self.totals
    }

    /// Subscribes everybody, while nothing goes wrong.
    fn begin(&mut self) {
        for plugin in 0..self.plugins.len() {
            let activation = Box::new(self.activation(plugin));
            self.input(Input::ActivatePlugin { plugin: self.plugins[plugin].0.name.clone(), activation });
        }
        for client in 0..self.clients.len() {
            self.connect(client);
        }
        self.settle_down();
        for (client, filter, maximum_qos) in self.filters.clone() {
            self.clients[client].subscribe(filter, maximum_qos);
        }
        self.settle_down();
    }

    fn connect(&mut self, client: usize) {
        if let Some(link) = &self.clients[client].link {
            self.held.remove(&ConnectionId(link.connection));
            self.totals.takeovers += 1;
        }
        let protocol = if self.rng.bool() { Protocol::V5 } else { Protocol::V3 };
        let receive_maximum = self.rng.u16(1..8);
        self.clients[client].connect(self.next_connection, protocol, receive_maximum);
        self.next_connection += 1;
    }

    fn step(&mut self) {
        let client = self.rng.usize(0..self.clients.len());
        match self.rng.u32(0..1000) {
            0..3 => self.crash(),
            3..12 => self.lose_link(client),
            12..20 => self.connect(client),
            20..40 => {
                let jump = [0, 1, 10, 5_000, 100_000][self.rng.usize(0..5)];
                self.now = self.now.after_ms(jump);
                self.input(Input::Tick);
            }
            40..60 => self.now = Timestamp(self.now.0 - 5),
            60..200 => self.publish(),
            200..300 => self.commit(),
            300..400 => self.step_plugin(),
            400..460 => self.written(),
            460..500 => self.read(),
            500..750 => self.move_up(client),
            750..988 => self.move_down(client),
            988..998 => self.swap(),
            _ => self.check_restore(),
        }
        let keenness = if self.clients[client].is_worker() { 15 } else { 60 };
        if self.clients[client].link.is_none() && self.rng.u8(..) < keenness {
            self.connect(client);
        }
    }

    fn publish(&mut self) {
        let publisher = self.rng.usize(0..PUBLISHERS);
        let client = &mut self.clients[publisher];
        if !client.is_established() || client.unfinished() >= usize::from(self.limits.receive_maximum) {
            return;
        }
        let number = self.next_message * PUBLISHERS as u64 + publisher as u64;
        self.next_message += 1;
        // Each publisher alone retains at a topic of its own and at one QoS, so that the last one is known: sent again,
        // QoS 1 is routed anew and QoS 2 is not, which changes the order between them.
        let retain = self.rng.u8(..) < 40;
        let topic = if retain { retained_topic(publisher) } else { topic(TOPICS[self.rng.usize(0..TOPICS.len())]) };
        let any = [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce, Qos::ExactlyOnce][self.rng.usize(0..4)];
        let qos = if retain { [Qos::AtLeastOnce, Qos::ExactlyOnce][publisher] } else { any };
        client.publish(topic.clone(), qos, retain, number, self.now);
        self.published.insert(number, (topic, qos));
        self.totals.publishes += 1;
    }

    fn lose_link(&mut self, client: usize) {
        let Some(link) = self.clients[client].link.take() else { return };
        self.totals.lost_links += 1;
        let connection = ConnectionId(link.connection);
        self.held.remove(&connection);
        // The broker may have got a part of what was under way, and may not notice the loss.
        let arrived = self.rng.usize(0..=link.up.len());
        for input in link.up.into_iter().take(arrived) {
            self.input(input);
        }
        if self.rng.bool() {
            self.input(Input::ConnectionLost { connection });
        }
        self.unwritten.remove(&connection);
    }

    fn move_up(&mut self, client: usize) {
        let link = self.clients[client].link.as_mut();
        if let Some(input) = link.and_then(|link| link.up.pop_front()) {
            self.input(input);
        }
    }

    fn move_down(&mut self, client: usize) {
        let link = self.clients[client].link.as_mut();
        if let Some(packet) = link.and_then(|link| link.down.pop_front()) {
            self.clients[client].take(packet);
        }
    }

    fn written(&mut self) {
        if let Some((connection, bytes)) = self.unwritten.pop_first() {
            self.input(Input::Written { connection, bytes });
        }
    }

    fn input(&mut self, input: Input) {
        self.broker.handle(self.now, input, &mut self.effects);
        self.collect();
        if self.rng.u8(..) < 100 {
            self.broker.handle(self.now, Input::Tick, &mut self.effects);
            self.collect();
        }
        if self.rng.u8(..) < 16 {
            self.broker.check_invariants();
        }
    }

    /// Takes what the broker asks for.
    fn collect(&mut self) {
        let ended = |change: &&Change| matches!(change, Change::SessionRemoved { .. });
        self.totals.expired += self.effects.changes.iter().filter(ended).count() as u64;
        if !self.effects.changes.is_empty() {
            let number = self.effects.last_change().0;
            self.pending.push_back((number, std::mem::take(&mut self.effects.changes)));
        }
        let effects = std::mem::take(&mut self.effects.list).into_iter();
        for effect in effects.flat_map(Effect::unfold) {
            match effect {
                Effect::FanOut(_) => unreachable!("it was unfolded"),
                Effect::Send { connection, .. } | Effect::Close { connection, .. } => {
                    self.totals.refused += u64::from(refuses(&effect));
                    self.held.entry(connection).or_default().push_back(effect);
                }
                Effect::Events { plugin, lane, events } => {
                    self.totals.retries += events.iter().filter(|event| event.attempt > 0).count() as u64;
                    let place = self.plugins.iter().position(|(known, _)| known.name == plugin);
                    self.plugins[place.expect("a plugin of ours")].0.take(lane, events);
                }
                Effect::Load { .. } => self.loads.push_back(effect),
                Effect::TakeCancelled { .. }
                | Effect::Settled { .. }
                | Effect::Committed { .. }
                | Effect::LanesArranged { .. }
                | Effect::DeadLettersChanged { .. }
                | Effect::GenerationStepped { .. }
                | Effect::ProbationEnded { .. }
                | Effect::PluginActivated { .. }
                | Effect::PluginRefused { .. }
                | Effect::PluginRemoved { .. } => {}
                // QoS 0 only: what is published at QoS 1 or 2 is refused.
                Effect::Dropped { reason: DropReason::InboxFull, .. } => self.totals.dropped += 1,
                Effect::Dropped { reason, .. } => panic!("dropped: {reason:?}"),
            }
        }
        self.let_go();
    }

    /// Lets go of effects whose changes are durable.
    fn let_go(&mut self) {
        for (&connection, effects) in &mut self.held {
            while let Some(effect) = effects.pop_front_if(|effect| after(effect).0 <= self.durable_number) {
                let client = self.clients.iter_mut();
                let mut on_it = client.filter(|client| {
                    client.link.as_ref().is_some_and(|link| ConnectionId(link.connection) == connection)
                });
                let Some(client) = on_it.next() else { continue };
                match effect {
                    Effect::Send { packet, .. } => {
                        if let Packet::Publish(delivery) = &packet {
                            self.states.check_settled(&delivery.message);
                            self.totals.settled += u64::from(delivery.message.publisher.starts_with("$plugin/"));
                            *self.unwritten.entry(connection).or_default() += delivery.message.weight();
                            self.totals.deliveries += 1;
                            self.totals.resent += u64::from(delivery.dup);
                        }
                        if let Some(link) = &mut client.link {
                            link.down.push_back(packet);
                        }
                    }
                    // Another connection took over, or a publish was refused on 3.1.1.
                    _ => client.link = None,
                }
            }
        }
        self.held.retain(|_, effects| !effects.is_empty());
    }

    /// Some of what waits becomes durable, whole inputs at a time.
    fn commit(&mut self) {
        let count = if self.calm { self.pending.len() } else { self.rng.usize(0..=self.pending.len()) };
        for (number, changes) in self.pending.drain(..count) {
            self.durable_number = number;
            for change in changes {
                self.states.apply(&change);
                self.durable.apply(change);
            }
        }
        self.let_go();
    }

    /// Something that waits to be read is, if the disk has got that far. Now and then it cannot be read.
    fn read(&mut self) {
        let Some(Effect::Load { ticket, session, after, max, max_bytes, change }) = self.loads.front() else { return };
        if change.0 <= self.durable_number {
            let is_readable = self.calm || self.rng.u8(..) > 10;
            let entries = is_readable.then(|| self.durable.load(*session, *after, *max, *max_bytes));
            let input = Input::Loaded { ticket: *ticket, entries };
            self.loads.pop_front();
            self.input(input);
        }
    }

    /// The process ends at once, and another starts from what is durable.
    fn crash(&mut self) {
        self.totals.crashes += 1;
        self.pending.clear();
        self.held.clear();
        self.unwritten.clear();
        for client in &mut self.clients {
            client.link = None;
        }
        for (plugin, _) in &mut self.plugins {
            plugin.restart();
        }
        self.loads.clear();
        let everything = [self.durable.changes(), self.durable.dead_letters()].concat();
        self.broker = Broker::restore(self.limits.clone(), self.seed, everything);
        self.broker.check_invariants();
        self.effects = Effects::default();
        self.durable_number = 0;
        self.broker.handle(self.now, Input::Started, &mut self.effects);
        self.collect();
        for place in 0..self.plugins.len() {
            let plugin = self.plugins[place].0.name.clone();
            self.input(Input::ArrangeLanes { plugin, lanes: Plugin::lanes() });
        }
    }

    fn check_restore(&mut self) {
        let mut disk = self.durable.clone();
        let pending = self.pending.iter().flat_map(|(_, changes)| changes);
        pending.for_each(|change| disk.apply(change.clone()));
        assert_eq!(disk.changes(), self.broker.durable_state(), "the disk equals what is live");
        let everything = [disk.changes(), disk.dead_letters()].concat();
        let restored = Broker::restore(self.limits.clone(), self.seed, everything);
        restored.check_invariants();
        assert_eq!(restored.durable_state(), self.broker.durable_state(), "restored equals live");
        for (plugin, _) in &self.plugins {
            assert!(restored.dead_letters(&plugin.name).eq(self.broker.dead_letters(&plugin.name)));
        }
    }

    /// Everything works until nothing is left to do.
    fn heal(&mut self) {
        self.check_restore();
        self.calm = true;
        for client in 0..self.clients.len() {
            if self.clients[client].link.is_none() {
                self.connect(client);
            }
        }
        self.now = self.now.after_ms(10_000);
        self.settle_down();
        for place in 0..self.plugins.len() {
            let plugin = self.plugins[place].0.name.clone();
            self.input(Input::EndProbation { plugin, verdict: ProbationVerdict::Keep });
        }
        self.commit();
        self.check_restore();
    }

    fn settle_down(&mut self) {
        for _ in 0..10_000 {
            for client in 0..self.clients.len() {
                self.move_up(client);
                self.move_down(client);
                if self.clients[client].link.is_none() {
                    self.connect(client);
                }
            }
            while !self.unwritten.is_empty() {
                self.written();
            }
            self.commit();
            self.read();
            if self.calm {
                self.step_plugin();
                self.input(Input::Tick);
            }
            let idle = self.clients.iter().all(|client| client.is_established() && client.is_idle());
            let inboxes_empty = self.broker.plugins().all(|plugin| plugin.inbox_events == 0);
            if idle
                && self.pending.is_empty()
                && self.held.is_empty()
                && self.loads.is_empty()
                && (inboxes_empty || !self.calm)
            {
                return;
            }
        }
        panic!("nothing comes to rest: {:?}", self.broker.statistics());
    }

    /// What must be true when all is done.
    fn check_end(&mut self) {
        self.broker.check_invariants();
        let statistics = self.broker.statistics();
        assert_eq!(
            (statistics.inflight_messages, statistics.queued_messages, self.durable.messages()),
            (0, 0, 0),
            "everything has been delivered"
        );
        let acknowledged: BTreeSet<u64> =
            self.clients.iter().flat_map(|client| client.acknowledged.iter().copied()).collect();
        for (place, client) in self.clients.iter().enumerate() {
            if client.is_worker() {
                continue;
            }
            client.check_order(self.totals.refused == 0, &self.states.given_up, |number| {
                (number as usize % PUBLISHERS, self.published[&number].1)
            });
            if place >= PUBLISHERS && client.durable {
                self.check_complete(place, &acknowledged);
            }
        }
        self.check_workers(&acknowledged);
        self.check_plugins(&acknowledged);
        self.check_retained();
    }

    /// Those who share a subscription got every message between them, but for QoS 2 that had been sent to one whose
    /// session then ended; and QoS 2 once.
    fn check_workers(&mut self, acknowledged: &BTreeSet<u64>) {
        let workers: Vec<&Client> = self.clients.iter().filter(|client| client.is_worker()).collect();
        let mut got: BTreeMap<u64, u32> = BTreeMap::new();
        let deliveries = workers.iter().flat_map(|worker| &worker.deliveries);
        for (_, qos, number) in deliveries.filter(|(topic, ..)| topic.as_str().starts_with("a/")) {
            let count = got.entry(*number).or_default();
            *count += 1;
            assert!(*count == 1 || *qos != Qos::ExactlyOnce || self.published[number].1 != Qos::ExactlyOnce);
        }
        for worker in &workers {
            self.totals.shared += worker.deliveries.len() as u64;
        }
        let exactly_once = workers.iter().any(|worker| worker.shares_at(Qos::ExactlyOnce));
        for number in acknowledged {
            let (topic, qos) = &self.published[number];
            let may_be_lost = exactly_once && *qos == Qos::ExactlyOnce;
            let is_shared = topic.as_str().starts_with("a/") && !may_be_lost;
            assert!(!is_shared || got.contains_key(number), "nobody of those who share got {number} on {topic}");
        }
    }

    fn check_complete(&self, subscriber: usize, acknowledged: &BTreeSet<u64>) {
        let client = &self.clients[subscriber];
        let got: BTreeSet<(&Topic, u64)> =
            client.deliveries.iter().map(|(topic, _, number)| (topic, *number)).collect();
        for number in acknowledged {
            let (topic, _) = &self.published[number];
            let subscribed = self.filters.iter().any(|(of, filter, _)| *of == subscriber && filter.matches(topic));
            assert!(!subscribed || got.contains(&(topic, *number)), "{} misses {number} on {topic}", client.name);
        }
    }

    /// What is retained is the last message that was acknowledged, or a later one.
    fn check_retained(&self) {
        let mut retained: BTreeMap<Topic, u64> = BTreeMap::new();
        for change in self.broker.durable_state() {
            if let Change::Retained { message } = change {
                retained.insert(message.topic.clone(), number_of(&message));
            }
        }
        for (publisher, client) in self.clients[..PUBLISHERS].iter().enumerate() {
            let topic = retained_topic(publisher);
            let acknowledged = client.last_retained(&topic, &self.published);
            assert!(retained.get(&topic).copied() >= acknowledged, "{topic} has lost {acknowledged:?}");
        }
    }
}

fn topic(name: &str) -> Topic {
    Topic::parse(name).expect("a topic")
}

fn retained_topic(publisher: usize) -> Topic {
    topic(&format!("retained/{publisher}"))
}

fn refuses(effect: &Effect) -> bool {
    let reason = match effect {
        Effect::Send { packet: Packet::Acknowledge { reason, .. }, .. } | Effect::Close { reason, .. } => *reason,
        _ => ReasonCode::Success,
    };
    reason == ReasonCode::QuotaExceeded
}

fn after(effect: &Effect) -> ChangeNumber {
    match effect {
        Effect::Send { after, .. } | Effect::Close { after, .. } => *after,
        other => panic!("not for a connection: {other:?}"),
    }
}
