//! Many kills of the broker under mixed traffic, and then the clients' own logs against each other.
//!
//! In each round the broker starts on what the last one left, everybody comes back with their session and goes on where
//! the protocol says, and at a random moment the broker is killed; now and then one that is stopped is in between.
//! Publishers of both versions send QoS 1 and 2 to several topics, some retained; of the subscribers some are slow, take
//! little at a time, or are away; three share a subscription, and the session of one of them expires now and then. The
//! last round ends when all is done.
//!
//! `VESPIARY_TORTURE_ROUNDS` and `VESPIARY_SEED` say how long and which; the seed decides everything but the machine's
//! own timing.

pub(crate) mod client;
pub(crate) mod message;
pub(crate) mod verdict;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use self::client::{Client, Role};
use self::message::{Message, Number};
use super::harness::{Broker, PATIENCE};

/// Times the broker is killed, unless it is said otherwise.
const ROUNDS: u32 = 200;
/// Messages of one publisher in a round, at most, so that what waits stays below the bound of a queue on any machine.
const MESSAGES_PER_ROUND: usize = 120;
/// How long the last round may take, as long as something happens in it.
const DRAIN_PATIENCE: Duration = Duration::from_secs(300);
/// How long nothing may happen while something is waited for.
const STALL_PATIENCE: Duration = Duration::from_secs(20);
/// Messages of a queue in memory: one of these in each round.
const WINDOWS: [u32; 3] = [4, 64, 256];

/// One of the publishers, who are never away.
const PUBLISHER: Role = Role {
    name: "",
    level: 4,
    filters: &[],
    receive_maximum: u16::MAX,
    expiry_s: None,
    pause: Duration::ZERO,
    away: 0,
};

/// The publishers, whose messages have their place here as publisher.
const PUBLISHERS: [Role; 4] = [
    Role { name: "publisher-0", ..PUBLISHER },
    Role { name: "publisher-1", level: 5, ..PUBLISHER },
    Role { name: "publisher-2", ..PUBLISHER },
    Role { name: "publisher-3", level: 5, ..PUBLISHER },
];

/// Those who have subscriptions of their own.
const SUBSCRIBERS: [Role; 6] = [
    Role { name: "everything", level: 5, filters: &[("t/#", 2)], ..PUBLISHER },
    Role { name: "at-least-once", filters: &[("t/+/0", 1), ("r/+/1", 1)], ..PUBLISHER },
    Role { name: "narrow", level: 5, filters: &[("t/+/1", 2), ("t/+/2", 1)], receive_maximum: 3, ..PUBLISHER },
    Role { name: "slow", filters: &[("t/1/+", 2), ("r/#", 2)], pause: Duration::from_millis(3), ..PUBLISHER },
    Role { name: "often-away", level: 5, filters: &[("t/#", 2)], receive_maximum: 50, away: 7, ..PUBLISHER },
    Role { name: "away-at-times", filters: &[("t/0/#", 1), ("r/0/+", 2)], away: 3, ..PUBLISHER },
];

/// Those who share a subscription; the last one's session expires.
const GROUP: [Role; 3] = [
    Role { name: "member-0", level: 5, filters: &[("$share/crew/g/+", 2)], away: 4, ..PUBLISHER },
    Role { name: "member-1", level: 5, filters: &[("$share/crew/g/+", 2)], receive_maximum: 8, away: 5, ..PUBLISHER },
    Role {
        name: "member-2",
        level: 5,
        filters: &[("$share/crew/g/+", 2)],
        receive_maximum: 4,
        expiry_s: Some(1),
        away: 8,
        ..PUBLISHER
    },
];

/// Everybody and everything.
struct World {
    random: fastrand::Rng,
    /// The broker's data.
    data: PathBuf,
    /// Publishers, subscribers, group, in the order of the lists above.
    clients: Vec<Client>,
    /// Most messages seen waiting in queues.
    most_queued: u64,
}

#[test]
fn killed_two_hundred_times_nothing_acknowledged_is_lost_doubled_or_out_of_order() -> Result<()> {
    let asked = |name: &str| std::env::var(name).ok().and_then(|value| value.parse().ok());
    let seed = asked("VESPIARY_SEED").unwrap_or_else(|| fastrand::u64(..));
    let rounds = asked("VESPIARY_TORTURE_ROUNDS").map_or(ROUNDS, |rounds| rounds as u32);
    println!("VESPIARY_SEED={seed} VESPIARY_TORTURE_ROUNDS={rounds}");
    let directory = tempfile::tempdir()?;
    let roles = PUBLISHERS.into_iter().chain(SUBSCRIBERS).chain(GROUP);
    let mut world = World {
        random: fastrand::Rng::with_seed(seed),
        data: directory.path().join("data"),
        clients: roles.map(Client::new).collect(),
        most_queued: 0,
    };
    let started = Instant::now();
    world.introduce()?;
    for round in 0..rounds {
        world.round(Broker::kill).with_context(|| format!("round {round}"))?;
        if world.random.u8(..24) == 0 {
            world.round(stop).with_context(|| format!("round {round}, and a stop"))?;
        }
    }
    let killed = started.elapsed();
    world.finish().context("the last round")?;
    let (publishers, others) = world.clients.split_at(PUBLISHERS.len());
    let (subscribers, group) = others.split_at(SUBSCRIBERS.len());
    println!("{rounds} rounds in {killed:.1?}, all drained after {:.1?}", started.elapsed());
    println!("{}, most queued {}", verdict::summary(publishers, subscribers, group), world.most_queued);
    verdict::check(publishers, subscribers, group)?;
    if rounds >= ROUNDS {
        ensure!(world.most_queued > 1_000, "no queue grew long enough to mean anything");
        ensure!(group.iter().any(|member| member.ended_sessions > 0), "no session expired");
    }
    Ok(())
}

impl World {
    /// Everybody gets a session with subscriptions; the broker is stopped in peace.
    fn introduce(&mut self) -> Result<()> {
        let broker = self.start()?;
        for client in &mut self.clients {
            client.connect(broker.mqtt)?;
        }
        self.turn_until("everybody is ready", |clients| Ok(clients.iter().all(Client::is_ready)))?;
        self.clients.iter_mut().for_each(Client::cut);
        broker.stop()?;
        Ok(())
    }

    /// From a start to an end in the middle of everything.
    fn round(&mut self, end: fn(Broker) -> Result<()>) -> Result<()> {
        let broker = self.start()?;
        if self.random.u8(..4) == 0 {
            let status = broker.status()?;
            self.most_queued = self.most_queued.max(count(&status, "queued_messages")?);
            self.audit(&broker)?;
        }
        let mut order: Vec<usize> = (0..self.clients.len()).collect();
        self.random.shuffle(&mut order);
        for place in order {
            if self.random.u32(..10) >= self.clients[place].role.away {
                self.clients[place].connect(broker.mqtt)?;
            }
        }
        let most_ms = if self.random.u8(..4) == 0 { 30 } else { 400 };
        let until = Instant::now() + Duration::from_micros(self.random.u64(1_000..most_ms * 1_000));
        let most = self.clients.iter().map(|client| client.sent.len() + MESSAGES_PER_ROUND).collect::<Vec<_>>();
        while Instant::now() < until {
            for (publisher, client) in self.clients[..PUBLISHERS.len()].iter_mut().enumerate() {
                if client.sent.len() < most[publisher] {
                    client.publish(|number| message(&mut self.random, publisher as u16, number));
                }
            }
            let place = self.random.usize(..self.clients.len() * 100);
            if let Some(client) = self.clients.get_mut(place).filter(|client| client.is_connected()) {
                client.cut();
                client.connect(broker.mqtt)?;
            }
            self.turn()?;
        }
        let died = Instant::now();
        end(broker)?;
        self.clients.iter_mut().try_for_each(|client| client.bury(died))
    }

    /// Everybody comes, and all is done; then again, and there is nothing left.
    fn finish(&mut self) -> Result<()> {
        for is_again in [false, true] {
            let broker = self.start()?;
            for client in &mut self.clients {
                client.hurried = true;
                client.connect(broker.mqtt)?;
            }
            let before = self.delivered();
            let done = self.turn_until("all is done", |clients| {
                Ok(clients.iter().all(Client::is_done) && is_empty(&broker.status()?)?)
            });
            done.with_context(|| format!("the broker says {:?}", broker.status()))?;
            ensure!(!is_again || self.delivered() == before, "deliveries after all was done");
            self.audit(&broker)?;
            self.clients.iter_mut().for_each(Client::cut);
            broker.stop()?;
        }
        Ok(())
    }

    fn delivered(&self) -> usize {
        self.clients.iter().map(|client| client.deliveries.len()).sum()
    }

    fn start(&mut self) -> Result<Broker> {
        let config = self.data.with_extension("toml");
        let window = WINDOWS[self.random.usize(..WINDOWS.len())];
        std::fs::write(&config, format!("[limits]\nwindow_messages = {window}\n[store]\ncache_bytes = 4194304\n"))?;
        let broker = Broker::start_with(&self.data, &["--config", config.to_str().context("a path")?])?;
        self.clients.iter_mut().for_each(Client::is_missed);
        Ok(broker)
    }

    /// Everybody does what can be done now; tells whether there was anything.
    fn turn(&mut self) -> Result<bool> {
        let mut worked = false;
        for client in &mut self.clients {
            worked |= client.turn()?;
        }
        if !worked {
            std::thread::sleep(Duration::from_micros(300));
        }
        Ok(worked)
    }

    fn turn_until(&mut self, what: &str, mut condition: impl FnMut(&[Client]) -> Result<bool>) -> Result<()> {
        let started = Instant::now();
        let mut worked = started;
        while !condition(&self.clients)? {
            if self.turn()? {
                worked = Instant::now();
            }
            let waiting = || self.clients.iter().filter(|client| !client.is_done()).map(|client| client.role.name);
            ensure!(
                started.elapsed() < DRAIN_PATIENCE && worked.elapsed() < STALL_PATIENCE,
                "never: {what}; not done: {:?}",
                waiting().collect::<Vec<_>>()
            );
        }
        Ok(())
    }

    /// What is retained is the last acknowledged message of its topic, or a later one.
    fn audit(&self, broker: &Broker) -> Result<()> {
        let mut least: BTreeMap<&str, u32> = BTreeMap::new();
        for publisher in &self.clients[..PUBLISHERS.len()] {
            for number in &publisher.acknowledged {
                let message = &publisher.sent[*number as usize];
                if message.retain {
                    least.insert(&message.topic, *number);
                }
            }
        }
        let mut auditor = super::client::Client::connect(broker.mqtt, "auditor", true)?;
        auditor.subscribe("r/#", 1)?;
        while !least.is_empty() {
            let seen = auditor.receive_publish(PATIENCE)?;
            let (topic, payload) = seen.with_context(|| format!("retained and lost: {least:?}"))?;
            let number = message::number_in(&topic, &payload)?.number;
            let acknowledged = least.remove(topic.as_str()).unwrap_or(0);
            ensure!(number >= acknowledged, "{number} is retained on {topic}, after {acknowledged}");
        }
        Ok(())
    }
}

/// The other end of a broker: it takes the time it needs, which is not long.
fn stop(broker: Broker) -> Result<()> {
    let (status, took) = broker.stop()?;
    ensure!(status.success() && took < PATIENCE / 6, "{status} after {took:?}");
    Ok(())
}

/// The next message of a publisher: mixed QoS, except where it is retained, since the order is that of a QoS.
fn message(random: &mut fastrand::Rng, publisher: u16, number: u32) -> Message {
    let (kind, qos, choice) = (random.u8(..10), random.u8(1..=2), random.u8(..3));
    let number = Number { publisher, number };
    match kind {
        0..=5 => Message { number, topic: format!("t/{publisher}/{choice}"), qos, retain: false },
        6..=7 => Message { number, topic: format!("r/{publisher}/{qos}"), qos, retain: true },
        _ => Message { number, topic: format!("g/{publisher}"), qos, retain: false },
    }
}

fn count(status: &Value, name: &str) -> Result<u64> {
    status["broker"][name].as_u64().with_context(|| format!("no {name}: {status:#}"))
}

/// Whether nothing waits for anybody, in memory and on disk.
fn is_empty(status: &Value) -> Result<bool> {
    let dropped = status["dropped"].as_object().context("no dropped")?;
    ensure!(dropped.values().all(|count| count == 0), "dropped: {dropped:?}");
    Ok(count(status, "inflight_messages")? == 0
        && count(status, "queued_messages")? == 0
        && count(status, "queued_bytes")? == 0
        && status["store"]["backlog_bytes"] == 0
        && status["store"]["stored_messages"] == 0)
}
