//! Bounds from the configuration file, each at its edge: what still goes, what does not, and with which reason.

use anyhow::Result;

use super::{configured, counter};
use crate::conformance::packets::{
    Connect, PINGREQ, acknowledge, property, publish, publish_with, subscribe, user_property,
};
use crate::conformance::peer::Peer;
use crate::harness::{Broker, eventually};

/// A client that was let in.
#[track_caller]
fn join(broker: &Broker, connect: &Connect) -> Peer {
    let (peer, connack) = Peer::join_at(broker.mqtt, connect);
    assert_eq!(connack.reason, 0, "{connack:?}");
    peer
}

/// A client that is refused with this reason.
#[track_caller]
fn refused(broker: &Broker, connect: &Connect, reason: u8) {
    let (mut peer, connack) = Peer::join_at(broker.mqtt, connect);
    assert_eq!((connack.flags, connack.reason), (0, reason), "{connack:?}");
    peer.expect_end();
}

/// The number in a property of CONNACK.
#[track_caller]
fn announced(broker: &Broker, connect: &Connect, id: u8) -> (Peer, Option<u32>) {
    let (peer, connack) = Peer::join_at(broker.mqtt, connect);
    let value = connack.properties.one(id);
    (peer, value.map(|bytes| bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte))))
}

#[test]
fn one_connection_too_many_is_refused_until_another_ends() -> Result<()> {
    let (broker, _directory) = configured("[limits]\nconnections = 2\n")?;
    let first = join(&broker, &Connect::new(5, "first"));
    let mut second = join(&broker, &Connect::new(4, "second"));
    refused(&broker, &Connect::new(5, "third"), 0x97);
    refused(&broker, &Connect::new(4, "third"), 3);
    // Who takes over its own connection takes no second place.
    let _second = join(&broker, &Connect::new(4, "second"));
    second.expect_end();
    refused(&broker, &Connect::new(5, "third"), 0x97);
    first.leave();
    let _third = join(&broker, &Connect::new(5, "third"));
    assert_eq!(counter(&broker, "broker", "connections")?, 2);
    Ok(())
}

#[test]
fn one_session_too_many_is_refused_and_those_that_are_there_go_on() -> Result<()> {
    let (broker, _directory) = configured("[limits]\nsessions = 2\n")?;
    let kept = Connect::new(5, "kept").resume();
    join(&broker, &kept).leave();
    let other = join(&broker, &Connect::new(4, "other"));
    refused(&broker, &Connect::new(5, "third"), 0x97);
    refused(&broker, &Connect::new(4, "third"), 3);
    join(&broker, &kept).leave();
    other.leave();
    join(&broker, &Connect::new(4, "third")).leave();
    Ok(())
}

#[test]
fn a_packet_that_is_too_large_closes_its_connection_alone() -> Result<()> {
    let (broker, _directory) = configured("[mqtt]\npacket_bytes = 200\n")?;
    let (mut witness, size) = announced(&broker, &Connect::new(5, "witness"), property::MAXIMUM_PACKET_SIZE);
    assert_eq!(size, Some(200));
    witness.subscribe("t", 0);
    for level in [4, 5] {
        let mut peer = join(&broker, &Connect::new(level, "sender"));
        let room = 200 - publish(level, 0x30, "t", 0, &[7; 128]).len() + 128;
        peer.send(&publish(level, 0x30, "t", 0, &vec![7; room]));
        witness.expect_publish("t", &vec![7; room]);
        peer.send(&publish(level, 0x30, "t", 0, &vec![7; room + 1]));
        peer.expect_disconnect(&[0x95]);
    }
    // The first packet is held to it as well; who is not let in yet is not told.
    let mut peer = Peer::socket_at(broker.mqtt, 5);
    peer.send(&Connect::new(5, "x".repeat(200)).bytes());
    peer.expect_end();
    witness.expect_silence();
    Ok(())
}

#[test]
fn a_session_s_queue_keeps_its_oldest_and_counts_what_it_drops() -> Result<()> {
    let (broker, _directory) = configured("[limits]\nqueued_messages = 5\ninflight_messages = 2\n")?;
    let away = Connect::new(5, "away").resume();
    let mut peer = join(&broker, &away);
    peer.subscribe("t", 1);
    peer.leave();
    let mut sender = join(&broker, &Connect::new(5, "sender"));
    for number in 0..12 {
        sender.publish_acknowledged("t", &[number]);
    }
    assert_eq!(counter(&broker, "broker", "queued_messages")?, 5);
    assert_eq!(counter(&broker, "dropped", "queue_full")?, 7);
    let mut peer = join(&broker, &away);
    for number in 0..5 {
        let packet_id = peer.expect_publish("t", &[number]).packet_id;
        peer.send(&acknowledge(0x40, packet_id));
    }
    peer.expect_silence();
    // There is room again.
    sender.publish_acknowledged("t", &[99]);
    peer.expect_publish("t", &[99]);
    Ok(())
}

#[test]
fn a_session_s_queue_is_bounded_in_bytes_as_well() -> Result<()> {
    let (broker, _directory) = configured("[limits]\nqueued_bytes = 10000\n")?;
    let away = Connect::new(4, "away").resume();
    let mut peer = join(&broker, &away);
    peer.subscribe("t", 1);
    peer.leave();
    let mut sender = join(&broker, &Connect::new(5, "sender"));
    for number in 0..20 {
        sender.publish_acknowledged("t", &[number; 1000]);
    }
    let kept = counter(&broker, "broker", "queued_messages")?;
    assert!((1..=10).contains(&kept), "{kept} messages of 1000 bytes in 10000");
    assert!(counter(&broker, "broker", "queued_bytes")? <= 10_000);
    assert_eq!(counter(&broker, "dropped", "queue_full")?, 20 - kept);
    let mut peer = join(&broker, &away);
    for number in 0..kept {
        peer.expect_publish("t", &[number as u8; 1000]);
    }
    Ok(())
}

#[test]
fn what_waits_in_memory_alone_is_bounded_and_counted() -> Result<()> {
    let (broker, _directory) = configured("[limits]\nbuffered_messages = 4\ninflight_messages = 1\n")?;
    let mut peer = join(&broker, &Connect::new(5, "not-durable"));
    peer.subscribe("t", 1);
    let mut sender = join(&broker, &Connect::new(5, "sender"));
    for number in 0..9 {
        sender.publish_acknowledged("t", &[number]);
    }
    assert_eq!(counter(&broker, "dropped", "queue_full")?, 4);
    // One was in flight, four waited.
    for number in 0..5 {
        let packet_id = peer.expect_publish("t", &[number]).packet_id;
        peer.expect_silence();
        peer.send(&acknowledge(0x40, packet_id));
    }
    peer.expect_silence();
    Ok(())
}

/// Publishes a retained message at QoS 1; gives the reason in PUBACK.
#[track_caller]
fn retain(peer: &mut Peer, topic: &str, payload: &[u8]) -> u8 {
    peer.send(&publish(5, 0x33, topic, 9, payload));
    let packet = peer.packet();
    assert_eq!((packet[0], &packet[2..4]), (0x40, &[0, 9][..]), "{packet:02x?}");
    packet.get(4).copied().unwrap_or(0)
}

#[test]
fn one_retained_message_too_many_is_refused_until_another_goes() -> Result<()> {
    let (broker, _directory) = configured("[limits]\nretained_messages = 2\n")?;
    let mut peer = join(&broker, &Connect::new(5, "peer"));
    assert_eq!([retain(&mut peer, "a", b"1"), retain(&mut peer, "b", b"1")], [0x10, 0x10]);
    assert_eq!(retain(&mut peer, "c", b"1"), 0x97);
    // One takes the place of its topic's last, an empty one takes none, and makes room.
    assert_eq!(retain(&mut peer, "a", b"2"), 0x10);
    assert_eq!(retain(&mut peer, "c", b""), 0x10);
    assert_eq!(retain(&mut peer, "b", b""), 0x10);
    assert_eq!(retain(&mut peer, "c", b"3"), 0x10);
    assert_eq!(counter(&broker, "broker", "retained_messages")?, 2);
    // 3.1.1 knows no refusal: the connection closes, so the client keeps its message.
    let mut older = join(&broker, &Connect::new(4, "older"));
    older.send(&publish(4, 0x33, "d", 1, b"1"));
    older.expect_end();
    let mut late = join(&broker, &Connect::new(5, "late"));
    late.subscribe("#", 0);
    let mut seen = [late.publish(), late.publish()].map(|publish| (publish.topic, publish.payload));
    seen.sort();
    assert_eq!(seen, [("a".to_owned(), b"2".to_vec()), ("c".to_owned(), b"3".to_vec())]);
    late.expect_silence();
    Ok(())
}

#[test]
fn retained_messages_are_bounded_in_bytes_with_their_properties() -> Result<()> {
    let (broker, _directory) = configured("[limits]\nretained_bytes = 1000\n")?;
    let mut peer = join(&broker, &Connect::new(5, "peer"));
    assert_eq!(retain(&mut peer, "a", &[0; 600]), 0x10);
    assert_eq!(retain(&mut peer, "b", &[0; 600]), 0x97);
    peer.send(&publish_with(5, 0x33, "c", 1, &user_property("name", [b'v'; 600]), b""));
    peer.send(&publish_with(5, 0x33, "c", 2, &user_property("name", [b'v'; 600]), b"1"));
    // Without a payload nothing is retained, whatever the properties.
    peer.expect_acknowledgement(0x40, 1, 0x10);
    peer.expect_acknowledgement(0x40, 2, 0x97);
    assert_eq!(retain(&mut peer, "b", &[0; 200]), 0x10);
    assert_eq!(retain(&mut peer, "a", &[0; 900]), 0x97);
    assert_eq!(retain(&mut peer, "a", &[0; 100]), 0x10);
    assert!(counter(&broker, "broker", "retained_bytes")? <= 1000);
    Ok(())
}

#[test]
fn one_subscription_too_many_is_refused_by_itself() -> Result<()> {
    let (broker, _directory) = configured("[limits]\nsubscriptions_per_session = 2\n")?;
    for (level, refused) in [(5, 0x97), (4, 0x80)] {
        let mut peer = join(&broker, &Connect::new(level, format!("peer-{level}")));
        peer.send(&subscribe(level, 1, &[("a", 0), ("b", 1), ("c", 2), ("a", 2)]));
        assert_eq!(peer.reasons(0x90, 1), [0, 1, refused, 2]);
        peer.send(&publish(level, 0x30, "c", 0, b""));
        peer.send(&publish(level, 0x30, "b", 0, b"there"));
        peer.expect_publish("b", b"there");
        peer.send(&crate::conformance::packets::unsubscribe(level, 2, &["a"]));
        peer.reasons(0xB0, 2);
        peer.send(&subscribe(level, 3, &[("c", 2)]));
        assert_eq!(peer.reasons(0x90, 3), [2]);
    }
    Ok(())
}

#[test]
fn no_more_is_in_flight_than_the_bound_nor_than_the_client_takes() -> Result<()> {
    let (broker, _directory) = configured("[limits]\ninflight_messages = 3\n")?;
    for (name, level, receive_maximum, expected) in [("a", 4, None, 3), ("b", 5, None, 3), ("c", 5, Some(2), 2)] {
        let mut connect = Connect::new(level, name);
        if let Some(maximum) = receive_maximum {
            connect = connect.property(property::RECEIVE_MAXIMUM, &[0, maximum]);
        }
        let mut peer = join(&broker, &connect);
        peer.subscribe(name, 1);
        let mut sender = join(&broker, &Connect::new(5, "sender"));
        for number in 0..5 {
            sender.publish_acknowledged(name, &[number]);
        }
        let open: Vec<u16> = (0..expected).map(|number| peer.expect_publish(name, &[number]).packet_id).collect();
        peer.expect_silence();
        peer.send(&acknowledge(0x40, open[0]));
        peer.expect_publish(name, &[expected]);
        peer.expect_silence();
        sender.leave();
    }
    Ok(())
}

#[test]
fn one_publish_beyond_receive_maximum_closes_the_connection() -> Result<()> {
    let (broker, _directory) = configured("[limits]\nreceive_maximum = 2\n")?;
    let (mut peer, maximum) = announced(&broker, &Connect::new(5, "peer"), property::RECEIVE_MAXIMUM);
    assert_eq!(maximum, Some(2));
    for packet_id in [1, 2] {
        peer.send(&publish(5, 0x34, "t", packet_id, b""));
        peer.expect_acknowledgement(0x50, packet_id, 0x10);
    }
    // QoS 0 does not count, and an exchange that ends gives its place back.
    peer.send(&publish(5, 0x30, "t", 0, b""));
    peer.send(&acknowledge(0x62, 1));
    peer.expect_acknowledgement(0x70, 1, 0);
    peer.send(&publish(5, 0x34, "t", 3, b""));
    peer.expect_acknowledgement(0x50, 3, 0x10);
    peer.send(&publish(5, 0x34, "t", 4, b""));
    peer.expect_disconnect(&[0x93]);
    Ok(())
}

#[test]
fn a_session_expiry_is_shortened_and_told_and_kept() -> Result<()> {
    let (broker, _directory) = configured("[limits]\nsession_expiry_s = 1\n")?;
    for (asked, told) in [(0, None), (1, None), (2, Some(1)), (u32::MAX, Some(1))] {
        let connect = Connect::new(5, format!("asks-{asked}")).expires_after(asked);
        let (peer, expiry) = announced(&broker, &connect, property::SESSION_EXPIRY);
        assert_eq!(expiry, told, "asked for {asked}");
        peer.leave();
    }
    // 3.1.1 cannot be told; its session ends all the same.
    join(&broker, &Connect::new(4, "older").resume()).leave();
    eventually("all sessions end", || Ok(counter(&broker, "broker", "sessions")? == 0))?;
    let (mut peer, connack) = Peer::join_at(broker.mqtt, &Connect::new(5, "asks-2").resume());
    assert_eq!((connack.flags, connack.reason), (0, 0));
    // Nor does DISCONNECT prolong it.
    peer.send(&[0xE0, 7, 0, 5, property::SESSION_EXPIRY, 0, 0, 0xFF, 0xFF]);
    peer.expect_end();
    eventually("the session ends", || Ok(counter(&broker, "broker", "sessions")? == 0))?;
    let mut witness = join(&broker, &Connect::new(5, "witness"));
    witness.send(&PINGREQ);
    witness.expect(&[0xD0, 0]);
    Ok(())
}
