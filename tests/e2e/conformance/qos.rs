//! Delivery at each quality of service, ordering, and what is sent again (sections 4.3 to 4.6).

use std::time::Duration;

use super::LEVELS;
use super::packets::{Connect, acknowledge, acknowledge_because, property, publish, publish_with};
use super::peer::Peer;

/// A client of this level whose session stays, and that subscribed to `qos/NAME/LEVEL` at QoS 2; with its CONNECT.
fn durable(level: u8, name: &str) -> (Peer, Connect, String) {
    let topic = format!("qos/{name}/{level}");
    let connect = Connect::new(level, format!("qos-{name}-to-{level}")).resume();
    let (mut peer, _) = Peer::join(&connect);
    peer.subscribe(&topic, 2);
    (peer, connect, topic)
}

fn sender(level: u8, name: &str) -> Peer {
    Peer::new(level, &format!("qos-{name}-from-{level}"))
}

/// Ends the connection without a word and comes back to the session.
#[track_caller]
fn reconnect(peer: Peer, connect: &Connect) -> Peer {
    drop(peer);
    let (peer, connack) = Peer::join(connect);
    assert_eq!((connack.flags, connack.reason), (1, 0));
    peer
}

// ------------------------------------------------------------------------------------ the broker receives

#[test]
fn after_puback_the_identifier_stands_for_a_new_message() {
    for level in LEVELS {
        let (mut peer, _, topic) = durable(level, "reused");
        let mut sender = sender(level, "reused");
        for (first, payload) in [(0x32, b"1"), (0x3A, b"2"), (0x32, b"3")] {
            sender.send(&publish(level, first, &topic, 9, payload));
            sender.expect_acknowledgement(0x40, 9, 0);
            peer.expect_publish(&topic, payload);
        }
        peer.expect_silence();
    }
}

#[test]
fn a_qos_2_message_is_delivered_once_until_its_release() {
    for level in LEVELS {
        let (mut peer, _, topic) = durable(level, "once");
        let mut sender = sender(level, "once");
        sender.send(&publish(level, 0x34, &topic, 9, b"1"));
        sender.expect_acknowledgement(0x50, 9, 0);
        for _ in 0..3 {
            sender.send(&publish(level, 0x3C, &topic, 9, b"1"));
            sender.expect_acknowledgement(0x50, 9, 0);
        }
        peer.expect_publish(&topic, b"1");
        sender.send(&acknowledge(0x62, 9));
        sender.expect_acknowledgement(0x70, 9, 0);
        peer.expect_silence();
        // From now on the identifier stands for a new message, whatever DUP says.
        sender.send(&publish(level, 0x3C, &topic, 9, b"2"));
        sender.expect_acknowledgement(0x50, 9, 0);
        peer.expect_publish(&topic, b"2");
    }
}

#[test]
fn a_release_is_answered_each_time() {
    for level in LEVELS {
        let mut sender = sender(level, "release");
        sender.send(&publish(level, 0x34, format!("qos/release/{level}"), 9, b"1"));
        sender.expect_acknowledgement(0x50, 9, if level == 5 { 0x10 } else { 0 });
        sender.send(&acknowledge(0x62, 9));
        sender.expect_acknowledgement(0x70, 9, 0);
        sender.send(&acknowledge(0x62, 9));
        sender.expect_acknowledgement(0x70, 9, if level == 5 { 0x92 } else { 0 });
    }
}

#[test]
fn after_a_pubrec_with_an_error_the_identifier_stands_for_a_new_message() {
    let (mut peer, _, topic) = durable(5, "refused");
    let mut sender = sender(5, "refused");
    sender.send(&publish(5, 0x34, "$SYS/refused", 9, b"1"));
    sender.expect_acknowledgement(0x50, 9, 0x87);
    sender.send(&publish(5, 0x34, &topic, 9, b"2"));
    sender.expect_acknowledgement(0x50, 9, 0);
    peer.expect_publish(&topic, b"2");
}

#[test]
fn an_unreleased_identifier_is_remembered_over_a_reconnect() {
    for level in LEVELS {
        let (mut peer, _, topic) = durable(level, "remembered");
        let connect = Connect::new(level, format!("qos-remembered-from-{level}")).resume();
        let (mut sender, _) = Peer::join(&connect);
        sender.send(&publish(level, 0x34, &topic, 9, b"1"));
        sender.expect_acknowledgement(0x50, 9, 0);
        peer.expect_publish(&topic, b"1");
        let mut sender = reconnect(sender, &connect);
        sender.send(&publish(level, 0x3C, &topic, 9, b"1"));
        sender.expect_acknowledgement(0x50, 9, 0);
        sender.send(&acknowledge(0x62, 9));
        sender.expect_acknowledgement(0x70, 9, 0);
        peer.expect_silence();
    }
}

// ------------------------------------------------------------------------------------ the broker sends

#[test]
fn a_qos_0_message_is_sent_once_without_dup() {
    for level in LEVELS {
        let (mut peer, connect, topic) = durable(level, "zero");
        sender(level, "zero").send(&publish(level, 0x30, &topic, 0, b"0"));
        peer.expect(&publish(level, 0x30, &topic, 0, b"0"));
        reconnect(peer, &connect).expect_silence();
    }
}

#[test]
fn a_qos_1_message_is_open_until_puback() {
    for level in LEVELS {
        let (mut peer, connect, topic) = durable(level, "one");
        let mut sender = sender(level, "one");
        sender.publish_acknowledged(&topic, b"1");
        let first = peer.expect_publish(&topic, b"1");
        assert_eq!((first.qos, first.dup), (1, false));
        // Not again on this connection, but on each that follows.
        peer.expect_silence();
        for _ in 0..2 {
            peer = reconnect(peer, &connect);
            peer.expect(&publish(level, 0x3A, &topic, first.packet_id, b"1"));
            peer.expect_silence();
        }
        peer.send(&acknowledge(0x40, first.packet_id));
        peer.expect_silence();
        reconnect(peer, &connect).expect_silence();
    }
}

#[test]
fn a_qos_2_message_is_open_until_pubrec_and_its_release_until_pubcomp() {
    for level in LEVELS {
        let (mut peer, connect, topic) = durable(level, "two");
        let mut sender = sender(level, "two");
        sender.publish_completely(&topic, b"2", 2);
        let first = peer.expect_publish(&topic, b"2");
        assert_eq!((first.qos, first.dup), (2, false));
        peer.expect_silence();
        let packet_id = first.packet_id;
        let mut peer = reconnect(peer, &connect);
        peer.expect(&publish(level, 0x3C, &topic, packet_id, b"2"));
        peer.send(&acknowledge(0x50, packet_id));
        peer.expect_acknowledgement(0x62, packet_id, 0);
        peer.expect_silence();
        // From PUBREL on the message itself is not sent again.
        for _ in 0..2 {
            peer = reconnect(peer, &connect);
            peer.expect_acknowledgement(0x62, packet_id, 0);
            peer.expect_silence();
        }
        peer.send(&acknowledge(0x70, packet_id));
        peer.expect_silence();
        reconnect(peer, &connect).expect_silence();
    }
}

#[test]
fn an_error_in_an_acknowledgement_ends_the_exchange() {
    let (mut peer, connect, topic) = durable(5, "error");
    let mut sender = sender(5, "error");
    sender.publish_acknowledged(&topic, b"1");
    sender.publish_completely(&topic, b"2", 2);
    let one = peer.expect_publish(&topic, b"1").packet_id;
    let two = peer.expect_publish(&topic, b"2").packet_id;
    peer.send(&acknowledge_because(0x40, one, 0x80));
    peer.send(&acknowledge_because(0x50, two, 0x97));
    // No PUBREL follows, and nothing is sent again.
    peer.expect_silence();
    reconnect(peer, &connect).expect_silence();
}

#[test]
fn open_messages_are_sent_again_in_their_order() {
    for level in LEVELS {
        let (mut peer, connect, topic) = durable(level, "again");
        let mut sender = sender(level, "again");
        let mut identifiers = Vec::new();
        for number in 0..10_u8 {
            if number % 2 == 0 {
                sender.publish_acknowledged(&topic, &[number]);
            } else {
                sender.publish_completely(&topic, &[number], 2);
            }
            identifiers.push(peer.expect_publish(&topic, &[number]).packet_id);
        }
        peer.send(&acknowledge(0x40, identifiers[4]));
        peer.expect_silence();
        let mut peer = reconnect(peer, &connect);
        for number in (0..10_u8).filter(|number| *number != 4) {
            let seen = peer.expect_publish(&topic, &[number]);
            assert_eq!((seen.packet_id, seen.dup), (identifiers[usize::from(number)], true));
        }
        peer.expect_silence();
    }
}

#[test]
fn messages_for_a_session_that_is_away_wait_for_it() {
    for level in LEVELS {
        let (peer, connect, topic) = durable(level, "away");
        peer.leave();
        let mut sender = sender(level, "away");
        for number in 0..20 {
            sender.publish_acknowledged(&topic, &[number]);
            sender.publish_completely(&topic, &[100 + number], 2);
        }
        let (mut peer, connack) = Peer::join(&connect);
        assert_eq!(connack.flags, 1);
        for number in 0..20 {
            let one = peer.expect_publish(&topic, &[number]);
            let two = peer.expect_publish(&topic, &[100 + number]);
            assert_eq!((one.qos, one.dup, two.qos, two.dup), (1, false, 2, false));
        }
        peer.expect_silence();
    }
}

// ------------------------------------------------------------------------------------ expiry

/// Lets the message expiry interval of one second pass. Nothing is concluded from the wait itself.
fn let_a_second_pass() {
    std::thread::sleep(Duration::from_millis(1_100));
}

/// PUBLISH at QoS 2 that expires after a second.
fn expiring(topic: &str, packet_id: u16) -> Vec<u8> {
    publish_with(5, 0x34, topic, packet_id, &[property::MESSAGE_EXPIRY, 0, 0, 0, 1], b"short")
}

#[test]
fn a_message_that_was_sent_does_not_expire() {
    let (mut peer, connect, topic) = durable(5, "sent");
    let mut sender = sender(5, "sent");
    sender.send(&expiring(&topic, 9));
    sender.expect_acknowledgement(0x50, 9, 0);
    let packet_id = peer.expect_publish(&topic, b"short").packet_id;
    drop(peer);
    let_a_second_pass();
    let (mut peer, connack) = Peer::join(&connect);
    assert_eq!(connack.flags, 1);
    let seen = peer.expect_publish(&topic, b"short");
    assert_eq!((seen.packet_id, seen.dup), (packet_id, true));
    peer.send(&acknowledge(0x50, packet_id));
    peer.expect_acknowledgement(0x62, packet_id, 0);
}

#[test]
fn an_exchange_outlives_the_expiry_of_its_message() {
    let (peer, connect, topic) = durable(5, "outlives");
    peer.leave();
    let mut sender = sender(5, "outlives");
    sender.send(&expiring(&topic, 9));
    sender.expect_acknowledgement(0x50, 9, 0);
    let_a_second_pass();
    // The message is gone, and the exchange goes on.
    let (mut peer, connack) = Peer::join(&connect);
    assert_eq!(connack.flags, 1);
    peer.expect_silence();
    sender.send(&acknowledge(0x62, 9));
    sender.expect_acknowledgement(0x70, 9, 0);
}

// ------------------------------------------------------------------------------------ order

#[test]
fn messages_of_one_client_arrive_in_their_order() {
    for (level, qos) in LEVELS.into_iter().flat_map(|level| [0, 1, 2].map(|qos| (level, qos))) {
        let topic = format!("qos/order/{level}/{qos}");
        let mut peer = Peer::new(level, &format!("qos-order-to-{level}-{qos}"));
        peer.subscribe(&topic, 2);
        let mut sender = Peer::new(level, &format!("qos-order-from-{level}-{qos}"));
        let all: Vec<u8> = (1..=200)
            .flat_map(|number: u16| {
                publish(level, 0x30 | qos << 1, &topic, number * u16::from(qos.min(1)), &number.to_be_bytes())
            })
            .collect();
        sender.send(&all);
        for number in 1..=200_u16 {
            let seen = peer.expect_publish(&topic, &number.to_be_bytes());
            assert_eq!(seen.qos, qos);
        }
        peer.expect_silence();
    }
}

#[test]
fn acknowledgements_leave_in_the_order_of_what_they_acknowledge() {
    for level in LEVELS {
        let mut peer = Peer::new(level, &format!("qos-acknowledged-{level}"));
        let topic = format!("qos/acknowledged/{level}");
        let reason = if level == 5 { 0x10 } else { 0 };
        let identifiers: Vec<u16> = (0..100).map(|number| 1 + number * 37 % 101).collect();
        for (first, answer, reason) in [(0x32, 0x40, reason), (0x34, 0x50, reason)] {
            let all: Vec<u8> = identifiers.iter().flat_map(|id| publish(level, first, &topic, *id, b"x")).collect();
            peer.send(&all);
            for id in &identifiers {
                peer.expect_acknowledgement(answer, *id, reason);
            }
        }
        let all: Vec<u8> = identifiers.iter().rev().flat_map(|id| acknowledge(0x62, *id)).collect();
        peer.send(&all);
        for id in identifiers.iter().rev() {
            peer.expect_acknowledgement(0x70, *id, 0);
        }
    }
}

#[test]
fn releases_leave_in_the_order_of_the_receipts() {
    for level in LEVELS {
        let (mut peer, _, topic) = durable(level, "releases");
        let mut sender = sender(level, "releases");
        let identifiers: Vec<u16> = (0..20_u8)
            .map(|number| {
                sender.publish_completely(&topic, &[number], 2);
                peer.expect_publish(&topic, &[number]).packet_id
            })
            .collect();
        let all: Vec<u8> = identifiers.iter().flat_map(|id| acknowledge(0x50, *id)).collect();
        peer.send(&all);
        for id in &identifiers {
            peer.expect_acknowledgement(0x62, *id, 0);
        }
    }
}

#[test]
fn both_kinds_of_client_receive_what_both_kinds_send_again() {
    // A session is of its client: what 3.1.1 left open is sent again to 5.0, in the form that it understands.
    let (mut peer, connect, topic) = durable(4, "upgraded");
    sender(5, "upgraded").publish_acknowledged(&topic, b"1");
    let packet_id = peer.expect_publish(&topic, b"1").packet_id;
    drop((peer, connect));
    let (mut peer, connack) = Peer::join(&Connect::new(5, "qos-upgraded-to-4").resume());
    assert_eq!((connack.flags, connack.reason), (1, 0));
    peer.expect(&publish(5, 0x3A, &topic, packet_id, b"1"));
}

#[test]
fn a_release_is_open_over_the_broker_s_death() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let data = directory.path().join("data");
    let broker = crate::harness::Broker::start(&data)?;
    let connect = Connect::new(5, "receiver").resume();
    let (mut peer, _) = Peer::join_at(broker.mqtt, &connect);
    peer.subscribe("release", 2);
    let (mut sender, _) = Peer::join_at(broker.mqtt, &Connect::new(5, "sender"));
    sender.publish_completely("release", b"2", 2);
    let packet_id = peer.expect_publish("release", b"2").packet_id;
    peer.send(&acknowledge(0x50, packet_id));
    peer.expect_acknowledgement(0x62, packet_id, 0);
    broker.kill()?;
    let broker = crate::harness::Broker::start(&data)?;
    let (mut peer, connack) = Peer::join_at(broker.mqtt, &connect);
    assert_eq!(connack.flags, 1);
    peer.expect_acknowledgement(0x62, packet_id, 0);
    peer.expect_silence();
    Ok(())
}

#[test]
fn an_identifier_of_either_quality_is_told_apart_from_requests() {
    // SUBSCRIBE and UNSUBSCRIBE may use what a PUBLISH of the broker uses, and each is answered.
    for level in LEVELS {
        let (mut peer, _, topic) = durable(level, "apart");
        let mut sender = sender(level, "apart");
        sender.publish_acknowledged(&topic, b"1");
        let packet_id = peer.expect_publish(&topic, b"1").packet_id;
        peer.send(&super::packets::subscribe(level, packet_id, &[("qos/apart/none", 0)]));
        assert_eq!(peer.reasons(0x90, packet_id), [0]);
        peer.send(&publish(level, 0x32, "qos/apart/none", packet_id, b"2"));
        let mut kinds = [peer.packet()[0] >> 4, peer.packet()[0] >> 4];
        kinds.sort_unstable();
        assert_eq!(kinds, [3, 4]);
        peer.send(&acknowledge(0x40, packet_id));
        peer.expect_silence();
    }
}
