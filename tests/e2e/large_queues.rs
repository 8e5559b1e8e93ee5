//! Queues that are far longer than their part in memory: what they weigh there after a start, that they come whole and
//! in order, also across a kill, and that their bound holds.

use std::fmt::Write as _;
use std::path::Path;
use std::slice::from_ref;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::client::{Client, Packet};
use super::harness::{Broker, PATIENCE, eventually};
use super::torture::client::{Client as StrictClient, Role};
use super::torture::message::{Message, Number};
use super::torture::verdict;

/// Sessions that are away.
const SESSIONS: usize = 2_000;
/// Sessions with the same subscription, so that their queues hold the same messages.
const SHARING: usize = 4;
/// Messages for each group of these.
const MESSAGES_EACH: usize = 200;
/// Bytes of a payload.
const PAYLOAD_BYTES: usize = 512;
/// Kibibytes that the broker may take after a start beyond what an empty one takes. The messages weigh 50,000.
const GROWTH_KIB: u64 = 20_000;
/// A page cache that does not blur this.
const SMALL_CACHE: &str = "[store]\ncache_bytes = 1048576\n";

#[test]
fn a_hundred_thousand_messages_that_wait_are_not_in_memory_and_come_in_order() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let empty = start(&directory.path().join("empty"), SMALL_CACHE)?;
    let empty_kib = resident_kib(&empty)?;
    empty.stop()?;
    let data = directory.path().join("data");
    let groups = SESSIONS / SHARING;
    let broker = start(&data, SMALL_CACHE)?;
    for session in 0..SESSIONS {
        let mut client = Client::connect(broker.mqtt, &format!("away-{session}"), false)?;
        client.subscribe(&format!("fleet/{}/+", session % groups), 1)?;
    }
    let mut publisher = Client::connect(broker.mqtt, "publisher", true)?;
    let messages = (0..MESSAGES_EACH).flat_map(|number| (0..groups).map(move |group| (group, number)));
    publish_all(&mut publisher, messages.map(|(group, number)| (topic(group, number), payload(group, number))))?;
    ensure!(queued(&broker)? == SESSIONS * MESSAGES_EACH);
    ensure!(stored(&broker)? == groups * MESSAGES_EACH, "a payload is stored once");
    broker.stop()?;

    let broker = start(&data, SMALL_CACHE)?;
    let growth_kib = resident_kib(&broker)?.saturating_sub(empty_kib);
    println!("empty {empty_kib} KiB, with {} messages for {SESSIONS} sessions {growth_kib} more", stored(&broker)?);
    ensure!(growth_kib < GROWTH_KIB, "{growth_kib} KiB more than the {empty_kib} of an empty broker");
    ensure!(queued(&broker)? == SESSIONS * MESSAGES_EACH);
    for session in (0..SESSIONS).step_by(SESSIONS / 20) {
        let mut client = Client::connect(broker.mqtt, &format!("away-{session}"), false)?;
        ensure!(client.session_present, "session {session} is gone");
        for number in 0..MESSAGES_EACH {
            let seen = client.receive_publish(PATIENCE)?.context("a message that does not come")?;
            let group = session % groups;
            ensure!(seen == (topic(group, number), payload(group, number)), "{} instead of {number}", seen.0);
        }
        ensure!(client.receive(Duration::from_millis(10))?.is_none(), "more than there was");
    }
    eventually("what was read has left the queues", || {
        Ok(queued(&broker)? == (SESSIONS - 20) * MESSAGES_EACH && broker.status()?["broker"]["inflight_messages"] == 0)
    })
}

/// Messages of the queue that is read across a kill.
const LONG_QUEUE: usize = 20_000;
/// Publishes that its reader takes at a time.
const RECEIVE_MAXIMUM: u16 = 10;

#[test]
fn twenty_thousand_messages_come_in_order_to_a_client_that_takes_ten_at_a_time_across_a_kill() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let data = directory.path().join("data");
    let mut publisher = StrictClient::new(PUBLISHER);
    let mut reader = StrictClient::new(Role {
        name: "reader",
        filters: &[("t/#", 2)],
        receive_maximum: RECEIVE_MAXIMUM,
        pause: Duration::from_millis(2),
        ..PUBLISHER
    });
    let broker = start(&data, "")?;
    reader.connect(broker.mqtt)?;
    turn_until(&mut reader, |client| client.is_ready())?;
    reader.cut();
    publish_mixed(&mut publisher, &broker, "t", LONG_QUEUE)?;
    ensure!(queued(&broker)? == publisher.sent.len());

    reader.connect(broker.mqtt)?;
    turn_until(&mut reader, |client| client.deliveries.len() > 200)?;
    reader.hurried = true;
    turn_until(&mut reader, |client| client.deliveries.len() > LONG_QUEUE / 2)?;
    let died = Instant::now();
    broker.kill()?;
    reader.bury(died)?;
    let broker = start(&data, "")?;
    reader.connect(broker.mqtt)?;
    turn_until(&mut reader, |client| client.is_done() && queued(&broker).is_ok_and(|count| count == 0))?;
    eventually("nothing is left on disk", || Ok(stored(&broker)? == 0))?;
    verdict::check(from_ref(&publisher), from_ref(&reader), &[])?;
    let again = reader.deliveries.len() - publisher.sent.len();
    println!("{} messages, of which {again} came again", publisher.sent.len());
    ensure!(again <= usize::from(RECEIVE_MAXIMUM), "{again} messages came again");
    Ok(())
}

/// Messages that wait for a group of two, one half for each.
const LEFT_BEHIND: usize = 4_000;
/// Times the broker is killed while one half is handed on.
const KILLS: usize = 8;

#[test]
fn what_a_session_leaves_to_its_group_comes_once_across_kills_while_it_is_handed_on() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let data = directory.path().join("data");
    // So little is read back at a time that handing on takes many commits.
    let config = "[limits]\nwindow_messages = 4\n";
    let member = Role { filters: &[("$share/crew/g/+", 2)], ..PUBLISHER };
    let mut publisher = StrictClient::new(PUBLISHER);
    let mut stays = StrictClient::new(Role { name: "stays", ..member });
    let mut ends = StrictClient::new(Role { name: "ends", expiry_s: Some(1), ..member });
    let broker = start(&data, config)?;
    for member in [&mut stays, &mut ends] {
        member.connect(broker.mqtt)?;
        turn_until(member, |member| member.is_ready())?;
    }
    drop((ends, stays.cut()));
    publish_mixed(&mut publisher, &broker, "g", LEFT_BEHIND)?;
    broker.kill()?;
    // The session expires while the broker is down, so each start goes on with handing on.
    std::thread::sleep(Duration::from_millis(1_100));

    for _ in 0..KILLS {
        let broker = start(&data, config)?;
        // What has been handed on, and what has not, is one and the same number at any time.
        ensure!(queued(&broker)? == publisher.sent.len());
        // Each message makes two changes, so all of this is less than there is to do.
        let changes = fastrand::u64(10..250);
        eventually("some are handed on", || {
            Ok(broker.status()?["store"]["changes"].as_u64().context("no changes")? >= changes)
        })?;
        broker.kill()?;
    }
    let broker = start(&data, config)?;
    ensure!(queued(&broker)? == publisher.sent.len());
    stays.connect(broker.mqtt)?;
    turn_until(&mut stays, |client| client.is_done() && queued(&broker).is_ok_and(|count| count == 0))?;
    ensure!(stays.deliveries.len() == publisher.sent.len(), "{} came", stays.deliveries.len());
    verdict::check(from_ref(&publisher), &[], from_ref(&stays))?;
    eventually("nothing is left on disk", || Ok(stored(&broker)? == 0))
}

#[test]
fn the_bound_of_a_queue_holds_and_what_is_beyond_it_is_counted() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let data = directory.path().join("data");
    let bounded = "[limits]\nqueued_messages = 100\n";
    let dropped = |status: &Value| status["dropped"]["queue_full"].as_u64();
    let broker = start(&data, bounded)?;
    Client::connect(broker.mqtt, "away", false)?.subscribe("fleet/#", 1)?;
    Client::connect(broker.mqtt, "also-away", false)?.subscribe("fleet/1/#", 1)?;
    let publish = |broker: &Broker, group: usize, numbers: std::ops::Range<usize>| -> Result<()> {
        let mut publisher = Client::connect(broker.mqtt, "publisher", true)?;
        publish_all(&mut publisher, numbers.map(|number| (topic(group, number), payload(group, number))))
    };
    publish(&broker, 0, 0..250)?;
    ensure!(queued(&broker)? == 100 && stored(&broker)? == 100 && dropped(&broker.status()?) == Some(150));
    // A full queue is nobody else's.
    publish(&broker, 1, 0..10)?;
    ensure!(queued(&broker)? == 110 && dropped(&broker.status()?) == Some(160));
    broker.kill()?;

    let broker = start(&data, bounded)?;
    publish(&broker, 0, 250..260)?;
    ensure!(queued(&broker)? == 110 && dropped(&broker.status()?) == Some(10), "the bound holds after a restart");
    for (name, group, count) in [("away", 0, 100), ("also-away", 1, 10)] {
        let mut client = Client::connect(broker.mqtt, name, false)?;
        for number in 0..count {
            let seen = client.receive_publish(PATIENCE)?.context("a message that does not come")?;
            ensure!(seen == (topic(group, number), payload(group, number)), "{} instead of {number}", seen.0);
        }
        ensure!(client.receive(Duration::from_millis(10))?.is_none(), "more than there was");
    }
    eventually("there is room again", || Ok(stored(&broker)? == 0))?;
    publish(&broker, 0, 260..270)?;
    ensure!(queued(&broker)? == 10 && dropped(&broker.status()?) == Some(10));
    Ok(())
}

fn start(data: &Path, config: &str) -> Result<Broker> {
    let file = data.with_extension("toml");
    std::fs::write(&file, config)?;
    Broker::start_with(data, &["--config", file.to_str().context("a path")?])
}

fn topic(group: usize, number: usize) -> String {
    format!("fleet/{group}/{number}")
}

/// Different bytes for each message.
fn payload(group: usize, number: usize) -> Vec<u8> {
    let mut text = String::new();
    while text.len() < PAYLOAD_BYTES {
        let _ = write!(text, "{group} {number} {}, ", text.len());
    }
    text.truncate(PAYLOAD_BYTES);
    text.into_bytes()
}

/// Publishes at QoS 1, some hundreds at a time, and waits for every PUBACK.
fn publish_all(publisher: &mut Client, messages: impl Iterator<Item = (String, Vec<u8>)>) -> Result<()> {
    let mut messages = messages.fuse().peekable();
    while messages.peek().is_some() {
        let mut sent = 0;
        // The identifiers end first, so that no message is taken and not sent.
        for (packet_id, (topic, payload)) in (1..=500).zip(messages.by_ref()) {
            publisher.publish(&topic, &payload, 1, packet_id, false)?;
            sent = packet_id;
        }
        for packet_id in 1..=sent {
            ensure!(publisher.expect()? == Packet::Puback(packet_id));
        }
    }
    Ok(())
}

/// A client without subscriptions.
const PUBLISHER: Role = Role {
    name: "publisher",
    level: 5,
    filters: &[],
    receive_maximum: u16::MAX,
    expiry_s: None,
    pause: Duration::ZERO,
    away: 0,
};

/// Publishes messages of both QoS to topics below `root`, and completes them.
fn publish_mixed(publisher: &mut StrictClient, broker: &Broker, root: &str, count: usize) -> Result<()> {
    publisher.connect(broker.mqtt)?;
    turn_until(publisher, |client| {
        if client.sent.len() < count {
            client.publish(|number| Message {
                number: Number { publisher: 0, number },
                topic: format!("{root}/{}", number % 3),
                qos: 1 + (number / 3 % 2) as u8,
                retain: false,
            });
        }
        client.sent.len() >= count && client.is_done()
    })
}

/// Does what `client` can do until it is as `condition` says.
fn turn_until(client: &mut StrictClient, mut condition: impl FnMut(&mut StrictClient) -> bool) -> Result<()> {
    let started = Instant::now();
    while !condition(client) {
        ensure!(started.elapsed() < 3 * PATIENCE, "{} does not get on", client.role.name);
        if !client.turn()? {
            std::thread::sleep(Duration::from_micros(300));
        }
    }
    Ok(())
}

/// Messages in queues, those in flight included.
fn queued(broker: &Broker) -> Result<usize> {
    let status = broker.status()?;
    let count = |name: &str| status["broker"][name].as_u64().with_context(|| format!("no {name}"));
    Ok((count("queued_messages")? + count("inflight_messages")?) as usize)
}

/// Messages on disk for queues.
fn stored(broker: &Broker) -> Result<usize> {
    Ok(broker.status()?["store"]["stored_messages"].as_u64().context("no stored_messages")? as usize)
}

/// Memory that the process occupies.
fn resident_kib(broker: &Broker) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", broker.pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.split_whitespace().next().context("no number")?.parse()?)
}
