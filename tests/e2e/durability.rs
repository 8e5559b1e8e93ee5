//! What an acknowledgement means: SIGKILL at random moments, restart on the same data, and a comparison of what was
//! acknowledged with what is there.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::client::{Client, Packet};
use super::harness::{Broker, PATIENCE, eventually, guest};
use super::ledger;

/// Times the broker is killed.
const ROUNDS: usize = 50;
/// Keys that events are spread over.
const KEYS: u32 = 8;
/// Events in flight.
const WINDOW: usize = 64;

/// What the publisher and the subscriber saw, over all rounds.
#[derive(Default)]
struct Seen {
    sent: BTreeMap<String, BTreeSet<u32>>,
    acknowledged: BTreeMap<String, BTreeSet<u32>>,
    /// What came out of the service, by key, in order of arrival; repeats with DUP are left out.
    delivered: BTreeMap<String, Vec<u32>>,
    next: u32,
}

#[test]
fn killed_fifty_times_no_acknowledged_event_is_lost_and_each_takes_effect_once() -> Result<()> {
    let seed =
        std::env::var("VESPIARY_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("VESPIARY_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let directory = tempfile::tempdir()?;
    let data = directory.path().join("data");
    let mut seen = Seen::default();
    let broker = Broker::start(&data)?;
    broker.deploy(&guest("ledger"))?;
    let mut subscriber = Client::connect(broker.mqtt, "subscriber", false)?;
    subscriber.subscribe("out/+", 1)?;
    drop(subscriber);
    broker.kill()?;
    for round in 0..ROUNDS {
        let broker = Broker::start(&data)?;
        let traffic = Duration::from_micros(random.u64(1_000..250_000));
        publish_until(&broker, &mut seen, Instant::now() + traffic).with_context(|| format!("round {round}"))?;
        broker.kill()?;
    }
    let broker = Broker::start(&data)?;
    let keys: Vec<String> = seen.sent.keys().cloned().collect();
    let written = ledger::dump(broker.mqtt, &keys)?;
    let acknowledged: usize = seen.acknowledged.values().map(BTreeSet::len).sum();
    println!("sent {}, acknowledged {acknowledged}, in {ROUNDS} rounds", seen.next);
    ensure!(acknowledged > 1_000, "too little happened to mean anything");
    let none = BTreeSet::new();
    for (key, numbers) in &written {
        ledger::check(key, numbers, seen.acknowledged.get(key).unwrap_or(&none), &seen.sent[key])?;
    }
    // What the service published in the same transactions reached the durable subscriber, once each and in order.
    let mut subscriber = Client::connect(broker.mqtt, "subscriber", false)?;
    ensure!(subscriber.session_present, "the durable session is gone");
    let total = |seen: &Seen| seen.delivered.values().map(Vec::len).sum::<usize>();
    let expected: usize = written.values().map(Vec::len).sum();
    let deadline = Instant::now() + PATIENCE;
    while total(&seen) < expected && Instant::now() < deadline {
        deliver(&mut subscriber, &mut seen, Duration::from_secs(1))?;
    }
    ensure!(seen.delivered == written, "what was delivered differs from what was written down");
    ensure!(subscriber.receive(Duration::from_millis(300))?.is_none(), "more was delivered than was written down");
    Ok(())
}

/// Publishes with a window until `end`, receives what the service publishes, and notes both.
fn publish_until(broker: &Broker, seen: &mut Seen, end: Instant) -> Result<()> {
    let mut publisher = Client::connect(broker.mqtt, "publisher", true)?;
    let mut subscriber = Client::connect(broker.mqtt, "subscriber", false)?;
    ensure!(subscriber.session_present, "the durable session is gone");
    let mut in_flight: BTreeMap<u16, (String, u32)> = BTreeMap::new();
    let mut packet_id = 0u16;
    while Instant::now() < end {
        while in_flight.len() < WINDOW {
            let key = format!("k{}", seen.next % KEYS);
            packet_id = packet_id % 60_000 + 1;
            publisher.publish(&format!("in/{key}"), seen.next.to_string().as_bytes(), 1, packet_id, false)?;
            seen.sent.entry(key.clone()).or_default().insert(seen.next);
            in_flight.insert(packet_id, (key, seen.next));
            seen.next += 1;
        }
        let mut wait = Duration::from_millis(5);
        while let Some(packet) = publisher.receive(wait)? {
            wait = Duration::ZERO;
            let Packet::Puback(packet_id) = packet else { anyhow::bail!("instead of PUBACK: {packet:?}") };
            let (key, number) = in_flight.remove(&packet_id).context("a PUBACK of nothing")?;
            seen.acknowledged.entry(key).or_default().insert(number);
        }
        deliver(&mut subscriber, seen, Duration::ZERO)?;
    }
    Ok(())
}

/// Takes what there is for the subscriber.
fn deliver(subscriber: &mut Client, seen: &mut Seen, mut wait: Duration) -> Result<()> {
    while let Some(packet) = subscriber.receive(wait)? {
        wait = Duration::ZERO;
        let Packet::Publish { topic, payload, dup, packet_id, .. } = packet else {
            anyhow::bail!("instead of PUBLISH: {packet:?}")
        };
        let key = topic.strip_prefix("out/").context("another topic")?.to_owned();
        let text = String::from_utf8(payload)?;
        let number: u32 = text.split(' ').next().context("empty")?.parse()?;
        let list = seen.delivered.entry(key).or_default();
        // QoS 1: a PUBACK that the kill swallowed makes the broker send again, and say so.
        if list.contains(&number) {
            ensure!(dup, "{number} came twice without DUP");
        } else {
            list.push(number);
        }
        subscriber.puback(packet_id)?;
    }
    Ok(())
}

#[test]
fn qos2_is_delivered_once_across_kills_of_the_broker() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let data = directory.path().join("data");
    let broker = Broker::start(&data)?;
    let mut subscriber = Client::connect(broker.mqtt, "subscriber", false)?;
    subscriber.subscribe("exact/+", 2)?;
    let mut publisher = Client::connect(broker.mqtt, "publisher", false)?;
    publisher.publish("exact/a", b"1", 2, 7, false)?;
    ensure!(publisher.expect()? == Packet::Pubrec(7));
    let Packet::Publish { payload, qos: 2, packet_id, dup: false, .. } = subscriber.expect()? else {
        anyhow::bail!("not the first delivery")
    };
    ensure!(payload == b"1");
    broker.kill()?;

    // Neither side finished: both resume where they were.
    let broker = Broker::start(&data)?;
    let mut publisher = Client::connect(broker.mqtt, "publisher", false)?;
    ensure!(publisher.session_present);
    publisher.publish("exact/a", b"1", 2, 7, true)?;
    ensure!(publisher.expect()? == Packet::Pubrec(7));
    publisher.pubrel(7)?;
    ensure!(publisher.expect()? == Packet::Pubcomp(7));
    let mut subscriber = Client::connect(broker.mqtt, "subscriber", false)?;
    let again = subscriber.expect()?;
    ensure!(
        matches!(&again, Packet::Publish { qos: 2, packet_id: same, dup: true, .. } if *same == packet_id),
        "not the same delivery again: {again:?}"
    );
    subscriber.pubrec(packet_id)?;
    ensure!(subscriber.expect()? == Packet::Pubrel(packet_id));
    broker.kill()?;

    let broker = Broker::start(&data)?;
    let mut subscriber = Client::connect(broker.mqtt, "subscriber", false)?;
    ensure!(subscriber.expect()? == Packet::Pubrel(packet_id), "after PUBREC only PUBREL is sent");
    subscriber.pubcomp(packet_id)?;
    ensure!(subscriber.receive(Duration::from_millis(300))?.is_none(), "it was delivered twice");
    Ok(())
}

#[test]
fn retained_messages_and_deployed_plugins_are_there_after_a_kill() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let data = directory.path().join("data");
    let broker = Broker::start(&data)?;
    broker.deploy(&guest("ledger"))?;
    broker.ok(&["pub", "-t", "site/name", "-m", "north", "-q", "1", "-r"])?;
    Client::connect(broker.mqtt, "p", true)?.publish_acknowledged("in/k", b"5")?;
    broker.kill()?;
    let broker = Broker::start(&data)?;
    let seen = broker.ok(&["sub", "-t", "site/#", "-C", "1", "-W", "30", "-v"])?;
    ensure!(seen == "site/name north\n", "{seen}");
    let shown = broker.show("ledger")?;
    ensure!(shown["status"] == "running" && shown["revision"] == 1, "{shown:#}");
    eventually("the event of before the kill is handled", || {
        Ok(ledger::dump(broker.mqtt, &["k".to_owned()])?["k"] == [5])
    })
}
