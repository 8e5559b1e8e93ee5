//! Runs scripts.
//!
//! ```text
//! limits queued_messages=2 ..                 first, where the bounds are not the default
//! NAME connects [v3] [clean] [expires S|never] [receives N] [packets N] [assigned] [will TOPIC TEXT ..] ..
//! NAME publishes TOPIC TEXT|- [qos N] [id N] [retained] [lasts S] [dup]
//! NAME pubacks|pubrecs|pubrels|pubcomps N [error]
//! NAME subscribes FILTER|!REASON [qos N] [no-local] [as-published] [retained N] [as ID] [, FILTER ..]
//! NAME unsubscribes FILTER ..
//! NAME disconnects [with-will] [expires S]
//! NAME vanishes                               the connection is lost
//! NAME writes N                               bytes are written
//! after S                                     so many seconds pass; then a tick
//! tick
//! restart                                     everything so far is durable; a new broker starts from it
//! disk slow|answers|forgets                   what is to be read from disk waits, comes, or cannot be read
//! storage fails|recovers                      nothing, or everything, can be made durable
//! plugin P ..                                 see `plugins`
//! ```
//! The will of CONNECT takes the words of a publish, and `delay S`. Packet identifiers are 1 where a line has none.

#[path = "script/plugins.rs"]
mod plugins;

use std::collections::BTreeMap;
use std::fmt::Write;

use vespiary_core::event::{
    AcknowledgeStep, Change, Connect, ConnectionId, Delivery, Disconnect, InboxEvent, Lane, Packet, PacketId, Protocol,
    Publish, ReasonCode, RetainHandling, Subscribe, SubscriptionOptions, Will,
};
use vespiary_core::{
    Broker, Effect, Effects, Input, Ledger, Limits, Message, Qos, SharedStrategy, Timestamp, Topic, TopicFilter,
};

/// Runs a script and compares what the broker does with what the script says. Between two inputs the broker keeps its
/// invariants, and equals the one restored from its changes.
#[track_caller]
pub fn check(script: &str) {
    let mut run = Run::new();
    let mut actual = String::new();
    let mut expected = String::new();
    for line in script.lines().filter(|line| !line.trim().is_empty()) {
        let indent = line.len() - line.trim_start().len();
        let base = script
            .lines()
            .find(|line| !line.trim().is_empty())
            .map_or(0, |first| first.len() - first.trim_start().len());
        if indent > base {
            writeln!(expected, "    {}", line.trim()).expect("a string takes all");
            continue;
        }
        writeln!(expected, "{}", line.trim()).expect("a string takes all");
        writeln!(actual, "{}", line.trim()).expect("a string takes all");
        for effect in run.line(line.trim()) {
            writeln!(actual, "    {effect}").expect("a string takes all");
        }
    }
    let wrong = expected.lines().zip(actual.lines()).take_while(|(expected, actual)| expected == actual).count();
    let tail = |text: &str| text.lines().skip(wrong).take(6).map(|line| format!("\n{line}")).collect::<String>();
    let head: Vec<&str> = actual.lines().take(wrong).collect();
    assert!(actual == expected, "{}\nexpected:{}\nactual:{}", head.join("\n"), tail(&expected), tail(&actual));
}

/// A script under way.
struct Run {
    /// The bounds.
    limits: Limits,
    /// The broker.
    broker: Broker,
    /// What it asks for.
    effects: Effects,
    /// The disk.
    ledger: Ledger,
    /// What is to be read from it, while it is slow.
    loads: Option<Vec<Effect>>,
    /// The time.
    now: Timestamp,
    /// The latest connection of each client.
    connections: BTreeMap<String, ConnectionId>,
    /// Whose a connection is.
    names: BTreeMap<ConnectionId, String>,
    /// Connections made.
    connected: u64,
    /// The batch that is out, of each plugin and lane.
    batches: BTreeMap<(String, Lane), Vec<InboxEvent>>,
}

/// The words of a line.
struct Words<'a>(std::iter::Peekable<std::str::SplitWhitespace<'a>>);

impl<'a> Words<'a> {
    fn new(text: &'a str) -> Self {
        Self(text.split_whitespace().peekable())
    }

    fn next(&mut self) -> Option<&'a str> {
        self.0.next()
    }

    fn word(&mut self) -> &'a str {
        self.next().expect("a further word")
    }

    fn number<T: std::str::FromStr>(&mut self) -> T {
        self.word().parse().ok().expect("a number")
    }

    fn seconds(&mut self) -> u32 {
        match self.word() {
            "never" => u32::MAX,
            number => number.parse().expect("seconds"),
        }
    }
}

impl Run {
    fn new() -> Self {
        let limits = Limits::default();
        Self {
            broker: Broker::new(limits.clone(), 1),
            limits,
            effects: Effects::default(),
            ledger: Ledger::default(),
            loads: None,
            now: Timestamp(1_000_000),
            connections: BTreeMap::new(),
            names: BTreeMap::new(),
            connected: 0,
            batches: BTreeMap::new(),
        }
    }

    fn line(&mut self, line: &str) -> Vec<String> {
        let mut words = Words::new(line);
        let input = match words.word() {
            "limits" => {
                self.limit(&mut words);
                return Vec::new();
            }
            "after" => {
                self.now = self.now.after_ms(u64::from(words.seconds()) * 1000);
                Input::Tick
            }
            "tick" => Input::Tick,
            "restart" => {
                self.broker = Broker::restore(self.limits.clone(), 2, self.everything());
                self.effects = Effects::default();
                Input::Started
            }
            "disk" => return self.disk(words.word()),
            "storage" if words.word() == "fails" => Input::StorageFailed,
            "storage" => Input::StorageRecovered,
            "plugin" => self.plugin(line),
            name => self.client(name, line, words),
        };
        self.handle(input, line)
    }

    fn handle(&mut self, input: Input, line: &str) -> Vec<String> {
        self.broker.handle(self.now, input, &mut self.effects);
        self.effects.changes.drain(..).for_each(|change| self.ledger.apply(change));
        self.broker.check_invariants();
        assert_eq!(self.ledger.changes(), self.broker.durable_state(), "the disk equals what is live after {line:?}");
        let restored = Broker::restore(self.limits.clone(), 3, self.everything());
        restored.check_invariants();
        assert_eq!(restored.durable_state(), self.broker.durable_state(), "restored equals live after {line:?}");
        let mut told = Vec::new();
        let effects = std::mem::take(&mut self.effects.list).into_iter();
        let effects: Vec<Effect> = effects.flat_map(Effect::unfold).collect();
        for effect in effects {
            match (&effect, &mut self.loads) {
                (Effect::Load { .. }, None) => told.extend(self.answer(&effect, line)),
                (Effect::Load { .. }, Some(loads)) => loads.push(effect),
                _ => told.push(self.tell(effect)),
            }
        }
        told
    }

    /// All that a new broker starts from.
    fn everything(&self) -> Vec<Change> {
        [self.ledger.changes(), self.ledger.dead_letters()].concat()
    }

    /// Reads what an effect asks for.
    fn answer(&mut self, load: &Effect, line: &str) -> Vec<String> {
        let Effect::Load { ticket, session, after, max, max_bytes, change: _ } = *load else { return Vec::new() };
        let entries = Some(self.ledger.load(session, after, max, max_bytes));
        self.handle(Input::Loaded { ticket, entries }, line)
    }

    fn disk(&mut self, word: &str) -> Vec<String> {
        if word == "slow" {
            self.loads = Some(Vec::new());
            return Vec::new();
        }
        let loads = self.loads.take().unwrap_or_default();
        let told = loads.into_iter().map(|load| match load {
            Effect::Load { ticket, .. } if word == "forgets" => {
                self.handle(Input::Loaded { ticket, entries: None }, "disk forgets")
            }
            load => self.answer(&load, "disk answers"),
        });
        told.flatten().collect()
    }

    fn limit(&mut self, words: &mut Words<'_>) {
        let mut limits = Limits::default();
        while let Some((name, value)) = words.next().and_then(|word| word.split_once('=')) {
            if name == "shared" {
                limits.shared_strategy = match value {
                    "sticky" => SharedStrategy::Sticky,
                    "random" => SharedStrategy::Random,
                    "least-in-flight" => SharedStrategy::LeastInFlight,
                    _ => panic!("no strategy {value}"),
                };
                continue;
            }
            let value: usize = value.parse().expect("a number");
            match name {
                "connections" => limits.connections = value,
                "sessions" => limits.sessions = value,
                "subscriptions" => limits.subscriptions_per_session = value,
                "queued_messages" => limits.queued_messages = value,
                "queued_bytes" => limits.queued_bytes = value,
                "window_messages" => limits.window_messages = value,
                "window_bytes" => limits.window_bytes = value,
                "buffered_messages" => limits.buffered_messages = value,
                "buffered_bytes" => limits.buffered_bytes = value,
                "inflight_messages" => limits.inflight_messages = value as u16,
                "receive_maximum" => limits.receive_maximum = value as u16,
                "unwritten_bytes" => limits.unwritten_bytes = value,
                "retained_messages" => limits.retained_messages = value,
                "retained_bytes" => limits.retained_bytes = value,
                "session_expiry_s" => limits.session_expiry_s = value as u32,
                "plugins" => limits.plugins = value,
                "inbox_events" => limits.inbox_events = value,
                "inbox_bytes" => limits.inbox_bytes = value,
                "batch_bytes" => limits.batch_bytes = value,
                "fan_out_at_once" => limits.fan_out_at_once = value,
                "fan_out_per_turn" => limits.fan_out_per_turn = value,
                "dead_letters" => limits.dead_letters = value,
                "timers" => limits.timers = value,
                "probation_events" => limits.probation_events = value,
                _ => panic!("no limit {name}"),
            }
        }
        self.broker = Broker::new(limits.clone(), 1);
        self.limits = limits;
    }

    fn client(&mut self, name: &str, line: &str, mut words: Words<'_>) -> Input {
        let verb = words.word();
        if verb == "connects" {
            return self.connect(name, words);
        }
        let connection = *self.connections.get(name).unwrap_or_else(|| panic!("{name} has connected: {line}"));
        let acknowledge = |mut words: Words<'_>, step| {
            let packet_id = words.number();
            let reason = if words.next() == Some("error") { ReasonCode::UnspecifiedError } else { ReasonCode::Success };
            Input::Acknowledge { connection, packet_id, step, reason }
        };
        match verb {
            "publishes" => {
                let (message, packet_id, dup, _) = self.message(name, &mut words);
                Input::Publish { connection, publish: Publish { packet_id, dup, message } }
            }
            "pubacks" => acknowledge(words, AcknowledgeStep::Puback),
            "pubrecs" => acknowledge(words, AcknowledgeStep::Pubrec),
            "pubrels" => acknowledge(words, AcknowledgeStep::Pubrel),
            "pubcomps" => acknowledge(words, AcknowledgeStep::Pubcomp),
            "subscribes" => {
                let (_, rest) = line.split_once("subscribes").expect("the verb");
                Input::Subscribe { connection, subscribe: Box::new(subscribe(rest)) }
            }
            "unsubscribes" => {
                let filters = words.0.map(filter).collect();
                Input::Unsubscribe { connection, packet_id: PacketId::MIN, filters }
            }
            "disconnects" => {
                let mut disconnect = Disconnect { with_will: false, session_expiry_s: None };
                while let Some(word) = words.next() {
                    match word {
                        "with-will" => disconnect.with_will = true,
                        "expires" => disconnect.session_expiry_s = Some(words.seconds()),
                        _ => panic!("no word {word}"),
                    }
                }
                Input::Disconnect { connection, disconnect }
            }
            "vanishes" => Input::ConnectionLost { connection },
            "writes" => Input::Written { connection, bytes: words.number() },
            _ => panic!("no verb {verb}"),
        }
    }

    fn connect(&mut self, name: &str, mut words: Words<'_>) -> Input {
        let mut connect = Connect {
            protocol: Protocol::V5,
            client_id: name.into(),
            client_id_assigned: false,
            clean_start: false,
            session_expiry_s: 0,
            receive_maximum: u16::MAX,
            maximum_packet_size: None,
            will: None,
            user: None,
            address: "".into(),
        };
        while let Some(word) = words.next() {
            match word {
                "v3" => connect.protocol = Protocol::V3,
                "clean" => connect.clean_start = true,
                "assigned" => connect.client_id_assigned = true,
                "expires" => connect.session_expiry_s = words.seconds(),
                "receives" => connect.receive_maximum = words.number(),
                "packets" => connect.maximum_packet_size = Some(words.number()),
                "will" => {
                    let (message, _, _, (expiry_s, delay_s)) = self.message(name, &mut words);
                    connect.will = Some(Box::new(Will { message, expiry_s, delay_s }));
                }
                _ => panic!("no word {word}"),
            }
        }
        self.connected += 1;
        let connection = ConnectionId(self.connected);
        let known = self.connections.insert(name.into(), connection).is_some();
        self.names.insert(connection, if known { format!("{name}'") } else { name.into() });
        Input::Connect { connection, connect: Box::new(connect) }
    }

    /// A message, its packet identifier, DUP, and what only a will has: expiry and delay.
    fn message(&self, name: &str, words: &mut Words<'_>) -> (Message, Option<PacketId>, bool, (Option<u32>, u32)) {
        let mut message = Message {
            topic: Topic::parse(words.word()).expect("a topic"),
            payload: Box::from(words.word().trim_matches('-').as_bytes()),
            qos: Qos::AtMostOnce,
            retain: false,
            properties: None,
            expires_at: None,
            received_at: self.now,
            publisher: name.into(),
            user: None,
        };
        let (mut packet_id, mut dup, mut expiry_s, mut delay_s) = (PacketId::MIN, false, None, 0);
        while let Some(word) = words.next() {
            match word {
                "qos" => message.qos = qos(words.word()),
                "id" => packet_id = words.number(),
                "retained" => message.retain = true,
                "dup" => dup = true,
                "lasts" => expiry_s = Some(words.seconds()),
                "delay" => delay_s = words.seconds(),
                _ => panic!("no word {word}"),
            }
        }
        message.expires_at = expiry_s.map(|seconds| self.now.after_ms(u64::from(seconds) * 1000));
        let packet_id = (message.qos != Qos::AtMostOnce).then_some(packet_id);
        (message, packet_id, dup, (expiry_s, delay_s))
    }

    fn name(&self, connection: ConnectionId) -> &str {
        &self.names[&connection]
    }

    /// An effect in words.
    fn tell(&mut self, effect: Effect) -> String {
        let wait = |after: vespiary_core::ChangeNumber| if after.0 == 0 { "" } else { " *" };
        match effect {
            Effect::Send { connection, after, packet } => {
                format!("{} {}{}", self.name(connection), tell_packet(&packet), wait(after))
            }
            Effect::Close { connection, after, reason } => {
                format!("{} is closed: {reason:?}{}", self.name(connection), wait(after))
            }
            Effect::Events { plugin, lane, events } => {
                let mut text = format!("{} handles{}", plugin.0, on(lane));
                for event in &events {
                    let payload = String::from_utf8_lossy(&event.message.payload);
                    write!(text, " {}={payload}", event.message.topic).expect("a string takes all");
                    if event.retain {
                        text.push_str("(retained)");
                    }
                    if event.attempt > 0 {
                        write!(text, "({})", event.attempt).expect("a string takes all");
                    }
                    if event.replayed {
                        text.push_str("(replayed)");
                    }
                    let properties = event.message.properties.iter().flat_map(|all| &all.user_properties);
                    for (name, value) in properties {
                        write!(text, "({name}={value})").expect("a string takes all");
                    }
                }
                self.batches.insert((plugin.0.to_string(), lane), events);
                text
            }
            Effect::TakeCancelled { plugin, lane } => format!("{} takes nothing{}", plugin.0, on(lane)),
            Effect::Settled { plugin, lane, after } => format!("{} has settled{}{}", plugin.0, on(lane), wait(after)),
            Effect::PluginActivated { plugin, revision, after, session: _, state: _ } => {
                format!("{} runs {revision}{}", plugin.0, wait(after))
            }
            Effect::PluginRefused { plugin, reason } => format!("{} is refused: {reason:?}", plugin.0),
            Effect::PluginRemoved { plugin, after } => format!("{} is gone{}", plugin.0, wait(after)),
            Effect::Committed { plugin, ticket, after } => {
                format!("{} committed {}{}", plugin.0, ticket.0, wait(after))
            }
            Effect::LanesArranged { plugin } => format!("{} has its lanes", plugin.0),
            Effect::DeadLettersChanged { plugin, count, after } => {
                format!("{} changed {count} dead letters{}", plugin.0, wait(after))
            }
            Effect::GenerationStepped { plugin, state, after } => {
                let left = if state.is_some() { "has a generation" } else { "has no generation" };
                format!("{} {left}{}", plugin.0, wait(after))
            }
            Effect::ProbationEnded { plugin, rolled_back, put_back, state: _, after } => {
                let verdict = if rolled_back { "rolled back" } else { "passed" };
                format!("{} {verdict}, {put_back} back{}", plugin.0, wait(after))
            }
            Effect::Load { .. } | Effect::FanOut(_) => unreachable!("neither is told as it is"),
            Effect::Dropped { reason, count } => format!("dropped: {count} {reason:?}"),
        }
    }
}

/// Which lane, where it is not the first.
fn on(lane: Lane) -> String {
    if lane == Lane(0) { String::new() } else { format!(" on {}", lane.0) }
}

fn subscribe(text: &str) -> Subscribe {
    let mut subscribe = Subscribe { packet_id: PacketId::MIN, identifier: None, filters: Vec::new() };
    for part in text.split(',') {
        let mut words = Words::new(part);
        let name = words.word();
        let mut options = SubscriptionOptions {
            maximum_qos: Qos::AtMostOnce,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::AtSubscribe,
        };
        while let Some(word) = words.next() {
            match word {
                "qos" => options.maximum_qos = qos(words.word()),
                "no-local" => options.no_local = true,
                "as-published" => options.retain_as_published = true,
                "retained" => {
                    options.retain_handling = match words.word() {
                        "0" => RetainHandling::AtSubscribe,
                        "1" => RetainHandling::IfNew,
                        _ => RetainHandling::Never,
                    }
                }
                "as" => subscribe.identifier = Some(words.number()),
                _ => panic!("no word {word}"),
            }
        }
        subscribe.filters.push(match name {
            "!shared" => Err(ReasonCode::SharedSubscriptionsNotSupported),
            name => Ok((filter(name), options)),
        });
    }
    subscribe
}

fn tell_packet(packet: &Packet) -> String {
    match packet {
        Packet::Connack { session_present, session_expiry_s, assigned_client_id } => {
            let mut text = String::from(if *session_present { "is back" } else { "is new" });
            if let Some(seconds) = session_expiry_s {
                write!(text, ", expires {seconds}").expect("a string takes all");
            }
            if assigned_client_id.is_some() {
                text.push_str(", assigned");
            }
            text
        }
        Packet::Refused { reason } => format!("is refused: {reason:?}"),
        Packet::Publish(delivery) => tell_delivery(delivery),
        Packet::Acknowledge { packet_id, step, reason: ReasonCode::Success } => {
            format!("gets {step:?} {packet_id}")
        }
        Packet::Acknowledge { packet_id, step, reason } => format!("gets {step:?} {packet_id}: {reason:?}"),
        Packet::Suback { reasons, .. } => format!("gets Suback {reasons:?}"),
        Packet::Unsuback { reasons, .. } => format!("gets Unsuback {reasons:?}"),
    }
}

fn tell_delivery(delivery: &Delivery) -> String {
    let Delivery { message, packet_id, qos, retain, dup, expiry_s, subscription_identifiers } = delivery;
    let payload = if message.payload.is_empty() { "-".into() } else { String::from_utf8_lossy(&message.payload) };
    let mut text = format!("gets {} {payload}", message.topic);
    assert_eq!(packet_id.is_some(), *qos != Qos::AtMostOnce);
    if let Some(packet_id) = packet_id {
        write!(text, " qos {} id {packet_id}", *qos as u8).expect("a string takes all");
    }
    for (flag, word) in [(*retain, " retained"), (*dup, " dup")] {
        text.push_str(if flag { word } else { "" });
    }
    if let Some(seconds) = expiry_s {
        write!(text, " lasts {seconds}").expect("a string takes all");
    }
    if let Some(identifiers) = subscription_identifiers {
        write!(text, " as {identifiers:?}").expect("a string takes all");
    }
    text
}

fn filter(text: &str) -> TopicFilter {
    TopicFilter::parse(text).expect("a filter")
}

fn qos(text: &str) -> Qos {
    text.parse().ok().and_then(Qos::from_u8).expect("a QoS")
}
