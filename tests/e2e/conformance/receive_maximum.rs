//! More unacknowledged messages of either quality than the broker takes (section 3.3.4).

use super::packets::{Connect, property, publish};
use super::peer::Peer;
use crate::harness::Broker;

/// A broker that takes two unacknowledged messages of a client, with a durable session for which everything published
/// to `kept` has to reach the disk before it is acknowledged.
fn broker_of_two(directory: &std::path::Path) -> anyhow::Result<Broker> {
    let config = directory.join("config.toml");
    std::fs::write(&config, "[limits]\nreceive_maximum = 2\n")?;
    let config = config.to_str().expect("a path of this machine");
    let broker = Broker::start_with(&directory.join("data"), &["--config", config])?;
    let (mut keeper, _) = Peer::join_at(broker.mqtt, &Connect::new(5, "keeper").resume());
    keeper.subscribe("kept", 2);
    keeper.leave();
    Ok(broker)
}

#[track_caller]
fn join(broker: &Broker, name: &str) -> Peer {
    let (peer, connack) = Peer::join_at(broker.mqtt, &Connect::new(5, name));
    assert_eq!(connack.properties.one(property::RECEIVE_MAXIMUM), Some(&[0, 2][..]));
    peer
}

/// Reads acknowledgements up to the DISCONNECT; gives how many there were.
#[track_caller]
fn acknowledged_before_the_end(peer: &mut Peer, first: u8) -> usize {
    let mut count = 0;
    loop {
        let packet = peer.packet();
        if packet[0] == 0xE0 {
            assert_eq!(packet[2], 0x93, "{packet:02x?}");
            peer.expect_end();
            return count;
        }
        assert_eq!(packet[0], first, "{packet:02x?}");
        count += 1;
    }
}

#[test]
fn too_many_open_messages_of_qos_2_close_the_connection() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let broker = broker_of_two(directory.path())?;
    let mut peer = join(&broker, "two");
    let all: Vec<u8> = (1..=3).flat_map(|id| publish(5, 0x34, "kept", id, b"")).collect();
    peer.send(&all);
    assert_eq!(acknowledged_before_the_end(&mut peer, 0x50), 2);
    Ok(())
}

#[test]
fn too_many_open_messages_of_qos_1_close_the_connection() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let broker = broker_of_two(directory.path())?;
    let mut peer = join(&broker, "one");
    // All in one segment, so no PUBACK can have come between them.
    let all: Vec<u8> = (1..=200).flat_map(|id| publish(5, 0x32, "kept", id, b"")).collect();
    peer.send(&all);
    let acknowledged = acknowledged_before_the_end(&mut peer, 0x40);
    assert!(acknowledged < 200);
    Ok(())
}

#[test]
fn a_client_that_keeps_to_the_bound_is_served() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let broker = broker_of_two(directory.path())?;
    let mut peer = join(&broker, "polite");
    for round in 0..50 {
        let ids = [1 + 2 * round, 2 + 2 * round];
        peer.send(&ids.map(|id| publish(5, 0x32, "kept", id, b"")).concat());
        for id in ids {
            peer.expect_acknowledgement(0x40, id, 0);
        }
    }
    peer.expect_silence();
    Ok(())
}
