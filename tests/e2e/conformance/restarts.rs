//! What falls due across a restart: the time while the broker is down counts for those who were away before, and for a
//! client that the broker lost with its own life it begins with the next start.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::packets::{Connect, property, publish_with};
use super::peer::Peer;
use crate::harness::{Broker, eventually};

/// A client that is let in, and whether its session was there.
fn join(broker: &Broker, connect: &Connect) -> (Peer, bool) {
    let (peer, connack) = Peer::join_at(broker.mqtt, connect);
    assert_eq!(connack.reason, 0);
    (peer, connack.flags == 1)
}

/// A client of 5.0 whose session outlives the test.
fn lasting(name: &str) -> Connect {
    Connect::new(5, name).resume()
}

/// The same with a will at `will/NAME`, so many seconds after its end.
fn with_will(name: &str, delay_s: u32) -> Connect {
    lasting(name).will(format!("will/{name}"), b"gone", 1, false).will_property(property::WILL_DELAY, &u32s(delay_s))
}

fn u32s(seconds: u32) -> [u8; 4] {
    seconds.to_be_bytes()
}

/// Waits until the broker knows that only so many clients are connected, and this is on disk.
fn wait_for_connections(broker: &Broker, count: u64) -> Result<()> {
    eventually("the broker notices who left, and notes it", || {
        let status = broker.status()?;
        Ok(status["broker"]["connections"] == count && status["store"]["backlog_bytes"] == 0)
    })
}

/// Lets time pass between two lives of a broker.
fn start_after(data: &Path, down: Duration) -> Result<Broker> {
    std::thread::sleep(down);
    Broker::start(data)
}

#[test]
fn a_client_lost_with_the_broker_leaves_its_will_after_its_delay_from_the_start() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let data = directory.path().join("data");
    let broker = Broker::start(&data)?;
    let (mut heir, _) = join(&broker, &lasting("heir"));
    heir.subscribe("will/+", 1);
    let stays_away = join(&broker, &with_will("stays-away", 4));
    let returns = join(&broker, &with_will("returns", 3));
    wait_for_connections(&broker, 3)?;
    broker.kill()?;
    drop((stays_away, returns, heir));

    // It is down for longer than the delay, which begins only now.
    let killed = Instant::now();
    let broker = start_after(&data, Duration::from_millis(4_500))?;
    let (mut heir, is_resumed) = join(&broker, &lasting("heir"));
    ensure!(is_resumed);
    heir.expect_silence();
    // A return takes a will back, before and after a restart.
    let (returned, is_resumed) = join(&broker, &lasting("returns"));
    ensure!(is_resumed);
    heir.expect_publish("will/stays-away", b"gone");
    heir.send(&super::packets::acknowledge(0x40, 1));
    ensure!(killed.elapsed() >= Duration::from_millis(8_500), "after {:?}", killed.elapsed());
    drop(returned);
    heir.expect_silence();
    Ok(())
}

#[test]
fn a_will_that_waits_comes_once_across_a_restart_and_at_once_where_its_time_has_passed() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let data = directory.path().join("data");
    let broker = Broker::start(&data)?;
    let (mut heir, _) = join(&broker, &lasting("heir"));
    heir.subscribe("will/+", 1);
    heir.leave();
    let left = Instant::now();
    drop(join(&broker, &with_will("soon", 1)));
    drop(join(&broker, &with_will("later", 5)));
    drop(join(&broker, &with_will("much-later", 3600)));
    wait_for_connections(&broker, 0)?;
    broker.kill()?;

    let broker = start_after(&data, Duration::from_secs(1))?;
    let (mut heir, _) = join(&broker, &lasting("heir"));
    for (topic, after_s) in [("will/soon", 1), ("will/later", 5)] {
        let packet_id = heir.expect_publish(topic, b"gone").packet_id;
        ensure!(left.elapsed() >= Duration::from_secs(after_s), "{topic} after {:?}", left.elapsed());
        heir.send(&super::packets::acknowledge(0x40, packet_id));
        heir.expect_silence();
    }
    wait_for_connections(&broker, 1)?;
    broker.kill()?;
    let broker = Broker::start(&data)?;
    let (mut heir, _) = join(&broker, &lasting("heir"));
    heir.expect_silence();
    Ok(())
}

#[test]
fn a_session_whose_time_passes_while_the_broker_is_down_is_gone() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let data = directory.path().join("data");
    let broker = Broker::start(&data)?;
    let brief = |name: &str| Connect::new(5, name).flags(0).expires_after(1);
    for connect in [brief("brief"), brief("briefly-published-to"), lasting("lasting")] {
        let (mut peer, _) = join(&broker, &connect);
        peer.subscribe("expiry/+", 1);
        peer.leave();
    }
    let (mut sender, _) = join(&broker, &Connect::new(5, "sender"));
    sender.publish_acknowledged("expiry/a", b"x");
    sender.leave();
    wait_for_connections(&broker, 0)?;
    broker.kill()?;

    let broker = start_after(&data, Duration::from_millis(1_100))?;
    for name in ["brief", "briefly-published-to"] {
        let (mut peer, is_resumed) = join(&broker, &brief(name));
        ensure!(!is_resumed, "{name} outlived its time");
        // Nothing is left of it: no subscription, no queue.
        let (mut sender, _) = join(&broker, &Connect::new(5, "sender"));
        sender.publish_acknowledged("expiry/a", b"y");
        peer.expect_silence();
    }
    let (mut peer, is_resumed) = join(&broker, &lasting("lasting"));
    ensure!(is_resumed);
    for payload in [b"x", b"y", b"y"] {
        let packet_id = peer.expect_publish("expiry/a", payload).packet_id;
        peer.send(&super::packets::acknowledge(0x40, packet_id));
    }
    peer.expect_silence();
    eventually("nothing is left on disk", || Ok(broker.status()?["store"]["stored_messages"] == 0))
}

#[test]
fn a_client_lost_with_the_broker_keeps_its_session_for_its_time_from_the_start() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let data = directory.path().join("data");
    let broker = Broker::start(&data)?;
    let brief = Connect::new(5, "brief").flags(0).expires_after(3);
    let (connected, _) = join(&broker, &brief);
    wait_for_connections(&broker, 1)?;
    broker.kill()?;
    drop(connected);
    let broker = start_after(&data, Duration::from_millis(3_100))?;
    let (connected, is_resumed) = join(&broker, &brief);
    ensure!(is_resumed, "nobody knows how long it would have stayed");
    drop(connected);
    // And no longer than that, though the broker is killed again.
    wait_for_connections(&broker, 0)?;
    broker.kill()?;
    let broker = start_after(&data, Duration::from_millis(3_100))?;
    ensure!(!join(&broker, &brief).1, "it outlived its time");
    Ok(())
}

#[test]
fn messages_expire_while_the_broker_is_down() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let data = directory.path().join("data");
    let broker = Broker::start(&data)?;
    let (mut peer, _) = join(&broker, &lasting("away"));
    peer.subscribe("expiry/+", 1);
    peer.leave();
    let (mut sender, _) = join(&broker, &Connect::new(5, "sender"));
    let kinds = [("brief", Some(2)), ("long", Some(3600)), ("endless", None)];
    for (packet_id, (topic, expiry_s)) in (1..).zip(kinds) {
        let expiry = expiry_s.map(|seconds| [&[property::MESSAGE_EXPIRY][..], &u32s(seconds)].concat());
        let expiry = expiry.unwrap_or_default();
        // Retained, so that there are two copies.
        sender.send(&publish_with(5, 0x33, format!("expiry/{topic}"), packet_id, &expiry, b"x"));
        sender.expect_acknowledgement(0x40, packet_id, 0);
    }
    sender.leave();
    broker.kill()?;

    let broker = start_after(&data, Duration::from_millis(2_100))?;
    let (mut peer, _) = join(&broker, &lasting("away"));
    let (mut late, _) = join(&broker, &Connect::new(5, "late"));
    late.subscribe("expiry/+", 0);
    for peer in [&mut peer, &mut late] {
        let mut seen = [peer.publish(), peer.publish()];
        seen.sort_by(|one, other| one.topic.cmp(&other.topic));
        ensure!(seen[0].topic == "expiry/endless" && seen[1].topic == "expiry/long", "{seen:?}");
        ensure!(seen[0].properties.one(property::MESSAGE_EXPIRY).is_none());
        let left = seen[1].properties.one(property::MESSAGE_EXPIRY).map(<[u8]>::to_vec);
        let left_s = left.and_then(|left| Some(u32::from_be_bytes(*left.first_chunk()?)));
        ensure!(left_s.is_some_and(|left_s| (3000..3600 - 1).contains(&left_s)), "{left_s:?} s are left");
        peer.expect_silence();
    }
    Ok(())
}
