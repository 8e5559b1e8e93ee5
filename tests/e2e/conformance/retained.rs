//! Retained messages (section 3.3.1.3).

use super::LEVELS;
use super::packets::{publish, subscribe, unsubscribe};
use super::peer::Peer;

/// Publishes a retained message and sees it stored.
#[track_caller]
fn retain(peer: &mut Peer, topic: &str, payload: &[u8]) {
    peer.send(&publish(peer.level, 0x33, topic, 0x7FFD, payload));
    let packet = peer.packet();
    assert_eq!((packet[0], &packet[2..4]), (0x40, &[0x7F, 0xFD][..]), "{packet:02x?}");
}

/// What a client that subscribes now is greeted with.
#[track_caller]
fn greeting(level: u8, topic: &str) -> Option<Vec<u8>> {
    let mut late = Peer::new(level, &super::unique("retained-late"));
    late.subscribe(topic, 2);
    late.send(&super::packets::PINGREQ);
    let packet = late.packet();
    (packet[0] != 0xD0).then_some(packet)
}

#[test]
fn the_last_retained_message_greets_a_new_subscription() {
    for level in LEVELS {
        let topic = format!("retained/last/{level}");
        let mut sender = Peer::new(level, &format!("retained-last-{level}"));
        retain(&mut sender, &topic, b"first");
        retain(&mut sender, &topic, b"last");
        for qos in 0..3 {
            let mut late = Peer::new(level, &format!("retained-late-{level}-{qos}"));
            late.subscribe(&topic, qos);
            let seen = late.expect_publish(&topic, b"last");
            // Stored with its QoS, which is 1; delivered at the lower of both.
            assert_eq!((seen.qos, seen.retain, seen.dup), (qos.min(1), true, false));
            late.expect_silence();
        }
    }
}

#[test]
fn each_quality_is_stored_and_the_message_outlives_its_sender() {
    for level in LEVELS {
        let mut sender = Peer::new(level, &format!("retained-qos-{level}"));
        for (qos, first) in [(0, 0x31), (1, 0x33), (2, 0x35)] {
            sender.send(&publish(level, first, format!("retained/qos/{level}/{qos}"), u16::from(qos), &[qos]));
            if qos > 0 {
                sender.packet();
            }
        }
        sender.expect_silence();
        sender.leave();
        for qos in 0..3_u8 {
            let mut late = Peer::new(level, &format!("retained-qos-late-{level}"));
            late.subscribe(&format!("retained/qos/{level}/{qos}"), 2);
            let seen = late.expect_publish(&format!("retained/qos/{level}/{qos}"), &[qos]);
            assert_eq!((seen.qos, seen.retain), (qos, true));
            late.leave();
        }
    }
}

#[test]
fn every_matching_retained_message_is_sent() {
    for level in LEVELS {
        let mut sender = Peer::new(level, &format!("retained-every-{level}"));
        for leaf in ["a", "b", "a/c"] {
            retain(&mut sender, &format!("retained/every/{level}/{leaf}"), leaf.as_bytes());
        }
        for (filter, expected) in [("#", &["a", "a/c", "b"][..]), ("+", &["a", "b"]), ("+/c", &["a/c"]), ("d", &[])] {
            let mut late = Peer::new(level, &super::unique("retained-every-late"));
            late.subscribe(&format!("retained/every/{level}/{filter}"), 0);
            let mut seen: Vec<_> = expected.iter().map(|_| late.publish()).collect();
            seen.sort_by(|one, other| one.topic.cmp(&other.topic));
            for (message, leaf) in seen.iter().zip(expected) {
                assert_eq!(message.topic, format!("retained/every/{level}/{leaf}"));
                assert!(message.retain);
            }
            late.expect_silence();
        }
    }
}

#[test]
fn a_standing_subscription_sees_the_flag_cleared() {
    for level in LEVELS {
        let topic = format!("retained/standing/{level}");
        let mut subscriber = Peer::new(level, &format!("retained-standing-{level}"));
        subscriber.subscribe(&topic, 1);
        let mut sender = Peer::new(level, &format!("retained-standing-from-{level}"));
        retain(&mut sender, &topic, b"kept");
        assert!(!subscriber.expect_publish(&topic, b"kept").retain);
    }
}

#[test]
fn a_qos_0_message_replaces_what_was_retained() {
    for level in LEVELS {
        let topic = format!("retained/qos0/{level}");
        let mut sender = Peer::new(level, &format!("retained-qos0-{level}"));
        retain(&mut sender, &topic, b"old");
        sender.send(&publish(level, 0x31, &topic, 0, b"new"));
        sender.expect_silence();
        // The new one may be discarded at any time, but the old one never comes back; we keep the new one.
        assert_eq!(greeting(level, &topic), Some(publish(level, 0x31, &topic, 0, b"new")));
    }
}

#[test]
fn an_empty_message_removes_what_was_retained_and_is_delivered() {
    for level in LEVELS {
        let topic = format!("retained/empty/{level}");
        let mut sender = Peer::new(level, &format!("retained-empty-{level}"));
        retain(&mut sender, &topic, b"old");
        let mut subscriber = Peer::new(level, &format!("retained-empty-to-{level}"));
        subscriber.subscribe(&topic, 0);
        subscriber.expect_publish(&topic, b"old");
        retain(&mut sender, &topic, b"");
        assert!(!subscriber.expect_publish(&topic, b"").retain);
        assert_eq!(greeting(level, &topic), None);
    }
}

#[test]
fn an_empty_message_is_not_stored() {
    for level in LEVELS {
        let topic = format!("retained/never/{level}");
        let mut sender = Peer::new(level, &format!("retained-never-{level}"));
        retain(&mut sender, &topic, b"");
        assert_eq!(greeting(level, &topic), None);
    }
}

#[test]
fn a_message_without_the_flag_changes_nothing() {
    for level in LEVELS {
        let topic = format!("retained/without/{level}");
        let mut sender = Peer::new(level, &format!("retained-without-{level}"));
        sender.publish_acknowledged(&topic, b"passing");
        assert_eq!(greeting(level, &topic), None);
        retain(&mut sender, &topic, b"kept");
        sender.publish_acknowledged(&topic, b"passing");
        sender.publish_acknowledged(&topic, b"");
        assert!(greeting(level, &topic).is_some_and(|packet| packet.ends_with(b"kept")));
    }
}

#[test]
fn subscribing_again_sends_them_again() {
    for level in LEVELS {
        let topic = format!("retained/again/{level}");
        let mut sender = Peer::new(level, &format!("retained-again-{level}"));
        retain(&mut sender, &topic, b"kept");
        let mut subscriber = Peer::new(level, &format!("retained-again-to-{level}"));
        for _ in 0..3 {
            subscriber.subscribe(&topic, 0);
            assert!(subscriber.expect_publish(&topic, b"kept").retain);
        }
        subscriber.expect_silence();
    }
}

#[test]
fn retain_handling_decides_when_they_are_sent() {
    let mut sender = Peer::new(5, "retained-handling");
    retain(&mut sender, "retained/handling", b"kept");
    let mut subscriber = Peer::new(5, "retained-handling-to");
    let mut subscribed = |options: u8, greeted: bool| {
        subscriber.send(&subscribe(5, 1, &[("retained/handling", options)]));
        assert_eq!(subscriber.reasons(0x90, 1), [0]);
        if greeted {
            subscriber.expect_publish("retained/handling", b"kept");
        }
        subscriber.expect_silence();
    };
    let (always, if_new, never) = (0x00, 0x10, 0x20);
    subscribed(never, false);
    subscribed(if_new, false);
    subscribed(always, true);
    subscribed(if_new, false);
    subscribed(never, false);
    subscriber.send(&unsubscribe(5, 2, &["retained/handling"]));
    assert_eq!(subscriber.reasons(0xB0, 2), [0]);
    subscriber.send(&subscribe(5, 3, &[("retained/handling", if_new)]));
    assert_eq!(subscriber.reasons(0x90, 3), [0]);
    subscriber.expect_publish("retained/handling", b"kept");
    subscriber.expect_silence();
}

#[test]
fn retain_as_published_keeps_the_flag() {
    let mut plain = Peer::new(5, "retained-plain");
    plain.subscribe("retained/as-published", 0);
    let mut faithful = Peer::new(5, "retained-faithful");
    faithful.send(&subscribe(5, 1, &[("retained/as-published", 0x08)]));
    assert_eq!(faithful.reasons(0x90, 1), [0]);
    let mut sender = Peer::new(5, "retained-as-published-from");
    for (first, retained) in [(0x31, true), (0x30, false)] {
        sender.send(&publish(5, first, "retained/as-published", 0, b"x"));
        assert_eq!(faithful.expect_publish("retained/as-published", b"x").retain, retained);
        assert!(!plain.expect_publish("retained/as-published", b"x").retain);
    }
}

#[test]
fn retained_messages_do_not_end_with_a_session() {
    for level in LEVELS {
        let topic = format!("retained/session/{level}");
        let mut sender = Peer::new(level, &format!("retained-session-{level}"));
        retain(&mut sender, &topic, b"kept");
        sender.leave();
        // The session of that client ended with its connection, and another clean one follows.
        Peer::new(level, &format!("retained-session-{level}")).leave();
        assert!(greeting(level, &topic).is_some_and(|packet| packet.ends_with(b"kept")));
    }
}

#[test]
fn a_retained_message_that_is_too_large_for_a_client_is_left_out() {
    let mut sender = Peer::new(5, "retained-too-large");
    retain(&mut sender, "retained/too-large/a", &[7; 200]);
    retain(&mut sender, "retained/too-large/b", &[7; 2]);
    let connect = super::packets::Connect::new(5, "retained-too-large-to")
        .property(super::packets::property::MAXIMUM_PACKET_SIZE, &[0, 0, 0, 100]);
    let (mut late, _) = Peer::join(&connect);
    late.subscribe("retained/too-large/+", 1);
    late.expect_publish("retained/too-large/b", &[7; 2]);
    late.expect_silence();
}

#[test]
fn a_retained_message_comes_with_the_identifier_of_the_new_subscription() {
    let mut sender = Peer::new(5, "retained-identifier");
    retain(&mut sender, "retained/identifier", b"kept");
    let mut late = Peer::new(5, "retained-identifier-to");
    for (identifier, filter) in [(1, "retained/identifier"), (2, "retained/identifier/#")] {
        late.send(&super::packets::subscribe_with(5, 1, &[0x0B, identifier], &[(filter, 0)]));
        assert_eq!(late.reasons(0x90, 1), [0]);
        let seen = late.expect_publish("retained/identifier", b"kept");
        assert_eq!(seen.properties.all(0x0B), [[identifier]]);
    }
}

#[test]
fn a_subscription_of_a_resumed_session_is_not_new() {
    let mut sender = Peer::new(5, "retained-resumed-from");
    retain(&mut sender, "retained/resumed", b"kept");
    let connect = super::packets::Connect::new(5, "retained-resumed").resume();
    let if_new = [("retained/resumed", 0x11)];
    let (mut peer, _) = Peer::join(&connect);
    peer.send(&subscribe(5, 1, &if_new));
    assert_eq!(peer.reasons(0x90, 1), [1]);
    let packet_id = peer.expect_publish("retained/resumed", b"kept").packet_id;
    peer.leave();
    // What was not acknowledged comes again as it was, and nothing else.
    let (mut peer, connack) = Peer::join(&connect);
    assert_eq!(connack.flags, 1);
    peer.expect(&publish(5, 0x3B, "retained/resumed", packet_id, b"kept"));
    peer.send(&subscribe(5, 2, &if_new));
    assert_eq!(peer.reasons(0x90, 2), [1]);
    peer.expect_silence();
}
