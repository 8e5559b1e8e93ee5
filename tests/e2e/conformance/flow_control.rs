//! Receive Maximum of either side (sections 3.3.4 and 4.9).

use super::packets::{Connect, acknowledge, acknowledge_because, property, publish, subscribe, unsubscribe};
use super::peer::Peer;

/// A 5.0 client that takes this many messages at once, and subscribed to `flow/NAME` at QoS 2; and a sender.
fn pair(name: &str, receive_maximum: u16) -> (Peer, Peer, String) {
    let topic = format!("flow/{name}");
    let connect = Connect::new(5, format!("flow-{name}-to"))
        .resume()
        .property(property::RECEIVE_MAXIMUM, &receive_maximum.to_be_bytes());
    let (mut peer, _) = Peer::join(&connect);
    peer.subscribe(&topic, 2);
    (peer, Peer::new(5, &format!("flow-{name}-from")), topic)
}

#[test]
fn no_more_is_in_flight_than_the_client_takes() {
    for maximum in [1, 3] {
        let (mut peer, mut sender, topic) = pair(&format!("bound-{maximum}"), maximum);
        for number in 0..10 {
            sender.publish_acknowledged(&topic, &[number]);
        }
        let mut open = Vec::new();
        for number in 0..10 {
            if open.len() == usize::from(maximum) {
                peer.expect_silence();
                peer.send(&acknowledge(0x40, open.remove(0)));
            }
            open.push(peer.expect_publish(&topic, &[number]).packet_id);
        }
        peer.expect_silence();
    }
}

#[test]
fn pubcomp_makes_room_and_pubrec_only_with_an_error() {
    let (mut peer, mut sender, topic) = pair("qos2", 1);
    for number in 0..3 {
        sender.send(&publish(5, 0x34, &topic, 1 + u16::from(number), &[number]));
        sender.expect_acknowledgement(0x50, 1 + u16::from(number), 0);
    }
    let first = peer.expect_publish(&topic, &[0]).packet_id;
    peer.send(&acknowledge(0x50, first));
    peer.expect_acknowledgement(0x62, first, 0);
    peer.expect_silence();
    peer.send(&acknowledge(0x70, first));
    let second = peer.expect_publish(&topic, &[1]).packet_id;
    peer.send(&acknowledge_because(0x50, second, 0x83));
    peer.expect_publish(&topic, &[2]);
    peer.expect_silence();
}

#[test]
fn a_full_window_holds_up_nothing_else() {
    let (mut peer, mut sender, topic) = pair("others", 1);
    sender.publish_acknowledged(&topic, b"in flight");
    sender.publish_acknowledged(&topic, b"waits");
    let packet_id = peer.expect_publish(&topic, b"in flight").packet_id;
    peer.send(&subscribe(5, 1, &[("flow/others/zero", 1)]));
    assert_eq!(peer.reasons(0x90, 1), [1]);
    peer.send(&publish(5, 0x32, "flow/others/nobody", 2, b""));
    peer.expect_acknowledgement(0x40, 2, 0x10);
    peer.send(&publish(5, 0x34, "flow/others/nobody", 3, b""));
    peer.expect_acknowledgement(0x50, 3, 0x10);
    peer.send(&acknowledge(0x62, 3));
    peer.expect_acknowledgement(0x70, 3, 0);
    peer.send(&unsubscribe(5, 4, &["flow/others/zero"]));
    assert_eq!(peer.reasons(0xB0, 4), [0]);
    peer.expect_silence();
    peer.send(&acknowledge(0x40, packet_id));
    peer.expect_publish(&topic, b"waits");
}

#[test]
fn the_window_begins_anew_with_each_connection() {
    let (mut peer, mut sender, topic) = pair("anew", 2);
    for number in 0..4 {
        sender.publish_acknowledged(&topic, &[number]);
    }
    peer.expect_publish(&topic, &[0]);
    peer.expect_publish(&topic, &[1]);
    peer.expect_silence();
    drop(peer);
    let connect = Connect::new(5, "flow-anew-to").resume().property(property::RECEIVE_MAXIMUM, &3_u16.to_be_bytes());
    let (mut peer, connack) = Peer::join(&connect);
    assert_eq!(connack.flags, 1);
    for (number, dup) in [(0, true), (1, true), (2, false)] {
        assert_eq!(peer.expect_publish(&topic, &[number]).dup, dup);
    }
    peer.expect_silence();
}

#[test]
fn the_broker_takes_what_it_announced_and_no_more() {
    let (mut sender, connack) = Peer::join(&Connect::new(5, "flow-announced"));
    let maximum = connack
        .properties
        .one(property::RECEIVE_MAXIMUM)
        .map_or(u16::MAX, |value| u16::from_be_bytes([value[0], value[1]]));
    let all: Vec<u8> = (1..=maximum).flat_map(|id| publish(5, 0x34, "flow/announced", id, b"")).collect();
    sender.send(&all);
    for id in 1..=maximum {
        sender.expect_acknowledgement(0x50, id, 0x10);
    }
    // One is released, so one more is taken.
    sender.send(&acknowledge(0x62, 1));
    sender.expect_acknowledgement(0x70, 1, 0);
    sender.send(&publish(5, 0x34, "flow/announced", 1, b""));
    sender.expect_acknowledgement(0x50, 1, 0x10);
    // What is sent again counts once.
    sender.send(&publish(5, 0x3C, "flow/announced", 2, b""));
    sender.packet();
    sender.send(&publish(5, 0x34, "flow/announced", maximum + 1, b""));
    sender.expect_disconnect(&[0x93]);
}

#[test]
fn a_refused_message_does_not_count() {
    let (mut sender, connack) = Peer::join(&Connect::new(5, "flow-refused"));
    let maximum = connack
        .properties
        .one(property::RECEIVE_MAXIMUM)
        .map_or(u16::MAX, |value| u16::from_be_bytes([value[0], value[1]]));
    for id in 1..=maximum + 10 {
        sender.send(&publish(5, 0x34, "$SYS/flow", id, b""));
        sender.expect_acknowledgement(0x50, id, 0x87);
    }
    sender.expect_silence();
}
