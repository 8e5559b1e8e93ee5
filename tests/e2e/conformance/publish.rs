//! PUBLISH from and to clients (section 3.3), but for retained messages and properties.

use super::LEVELS;
use super::packets::{acknowledge, packet, publish, publish_with, string, subscribe, unsubscribe};
use super::peer::Peer;

/// A pair of clients of this level: one that subscribed to `publish/NAME/LEVEL` at QoS 2, and one that did not.
fn pair(level: u8, name: &str) -> (Peer, Peer, String) {
    let topic = format!("publish/{name}/{level}");
    let mut subscriber = Peer::new(level, &format!("publish-{name}-to-{level}"));
    subscriber.subscribe(&topic, 2);
    (subscriber, Peer::new(level, &format!("publish-{name}-from-{level}")), topic)
}

#[test]
fn each_quality_is_answered_as_it_must_be() {
    for level in LEVELS {
        let (_subscriber, mut sender, topic) = pair(level, "answered");
        sender.send(&publish(level, 0x30, &topic, 0, b"0"));
        sender.expect_silence();
        sender.send(&publish(level, 0x32, &topic, 11, b"1"));
        sender.expect(&[0x40, 2, 0, 11]);
        sender.send(&publish(level, 0x34, &topic, 12, b"2"));
        sender.expect(&[0x50, 2, 0, 12]);
        sender.expect_silence();
    }
}

#[test]
fn dup_is_not_passed_on() {
    for level in LEVELS {
        let (mut subscriber, mut sender, topic) = pair(level, "dup");
        for (first, qos, answer) in [(0x3A, 1, 0x40), (0x3C, 2, 0x50)] {
            sender.send(&publish(level, first, &topic, 5, b"again"));
            sender.expect_acknowledgement(answer, 5, 0);
            let seen = subscriber.expect_publish(&topic, b"again");
            assert_eq!((seen.qos, seen.dup), (qos, false));
        }
    }
}

#[test]
fn dup_at_qos_0_closes_the_connection() {
    for level in LEVELS {
        let (mut subscriber, mut sender, topic) = pair(level, "dup0");
        sender.send(&publish(level, 0x38, &topic, 0, b"again"));
        sender.expect_disconnect(&[0x81, 0x82]);
        subscriber.expect_silence();
    }
}

#[test]
fn both_qos_bits_close_the_connection() {
    for level in LEVELS {
        let (mut subscriber, mut sender, topic) = pair(level, "qos3");
        sender.send(&publish(level, 0x36, &topic, 1, b"x"));
        sender.expect_disconnect(&[0x81]);
        subscriber.expect_silence();
    }
}

#[test]
fn a_topic_with_a_wildcard_is_refused() {
    for level in LEVELS {
        for topic in ["publish/+", "publish/#", "#", "+", "publish/a+b", "publish/a#"] {
            let mut watcher = Peer::new(level, &super::unique("publish-wildcard-watcher"));
            watcher.subscribe("publish/+", 0);
            let mut sender = Peer::new(level, &super::unique("publish-wildcard"));
            sender.send(&publish(level, 0x30, topic, 0, b"x"));
            sender.expect_disconnect(&[0x90]);
            watcher.expect_silence();
        }
    }
}

#[test]
fn a_publish_without_a_topic_name_closes_the_connection() {
    for level in LEVELS {
        for body in [&[][..], &[0], &[0, 5, b'a']] {
            let mut sender = Peer::new(level, &super::unique("publish-no-topic"));
            sender.send(&packet(0x30, body));
            sender.expect_disconnect(&[0x81]);
        }
        let mut sender = Peer::new(level, &super::unique("publish-empty-topic"));
        sender.send(&publish(level, 0x30, "", 0, b"x"));
        sender.expect_disconnect(&[0x82]);
    }
}

#[test]
fn a_message_arrives_under_the_name_it_was_published_to() {
    for level in LEVELS {
        let mut subscriber = Peer::new(level, &format!("publish-name-to-{level}"));
        subscriber.subscribe(&format!("publish/name/{level}/#"), 0);
        let mut sender = Peer::new(level, &format!("publish-name-from-{level}"));
        for name in ["", "/", "/a", "/a/b", "/A/ b"] {
            let topic = format!("publish/name/{level}{name}");
            sender.send(&publish(level, 0x30, &topic, 0, name.as_bytes()));
            subscriber.expect_publish(&topic, name.as_bytes());
        }
        sender.send(&publish(level, 0x30, format!("publish/names/{level}"), 0, b"x"));
        sender.expect_silence();
        subscriber.expect_silence();
    }
}

#[test]
fn any_payload_arrives_unchanged() {
    for level in LEVELS {
        let (mut subscriber, mut sender, topic) = pair(level, "payload");
        let all: Vec<u8> = (0..=255).collect();
        for payload in [Vec::new(), vec![0], all.clone(), all.repeat(100), all.repeat(2000)] {
            sender.send(&publish(level, 0x30, &topic, 0, &payload));
            let seen = subscriber.publish();
            assert!(seen.payload == payload, "{} bytes arrived of {}", seen.payload.len(), payload.len());
        }
    }
}

#[test]
fn messages_cross_between_the_protocols() {
    for (from, to) in [(4, 5), (5, 4)] {
        let topic = format!("publish/cross/{from}");
        let mut subscriber = Peer::new(to, &format!("publish-cross-to-{to}"));
        subscriber.subscribe(&topic, 2);
        let mut sender = Peer::new(from, &format!("publish-cross-from-{from}"));
        for (first, answer, qos) in [(0x30, 0, 0), (0x32, 0x40, 1), (0x34, 0x50, 2)] {
            sender.send(&publish(from, first, &topic, u16::from(qos), &[qos]));
            if qos > 0 {
                sender.expect_acknowledgement(answer, u16::from(qos), 0);
            }
            let seen = subscriber.expect_publish(&topic, &[qos]);
            assert_eq!((seen.qos, seen.dup, seen.retain), (qos, false, false));
        }
    }
}

#[test]
fn acknowledgements_use_reasons_of_their_own() {
    let mut sender = Peer::new(5, "publish-reasons");
    // Nobody listens: No matching subscribers (0x10) or Success, and we say the former.
    sender.send(&publish(5, 0x32, "publish/reasons/nobody", 1, b""));
    sender.expect_acknowledgement(0x40, 1, 0x10);
    sender.send(&publish(5, 0x34, "publish/reasons/nobody", 2, b""));
    sender.expect_acknowledgement(0x50, 2, 0x10);
    sender.send(&acknowledge(0x62, 2));
    sender.expect_acknowledgement(0x70, 2, 0);
    // Packet Identifier not found (0x92).
    sender.send(&acknowledge(0x62, 3));
    sender.expect_acknowledgement(0x70, 3, 0x92);
    sender.send(&acknowledge(0x50, 4));
    sender.expect_acknowledgement(0x62, 4, 0x92);
    // Not authorized (0x87): topics that begin with $ are the broker's.
    sender.send(&publish(5, 0x32, "$SYS/publish", 5, b""));
    sender.expect_acknowledgement(0x40, 5, 0x87);
    sender.send(&publish(5, 0x34, "$SYS/publish", 6, b""));
    sender.expect_acknowledgement(0x50, 6, 0x87);
}

#[test]
fn acknowledgements_with_reasons_that_there_are_not_close_the_connection() {
    for (first, reason) in [(0x40, 0x92), (0x40, 0x01), (0x50, 0x92), (0x50, 0xFF), (0x62, 0x10), (0x70, 0x87)] {
        let mut peer = Peer::new(5, &super::unique("publish-wrong-reason"));
        peer.send(&super::packets::acknowledge_because(first, 1, reason));
        peer.expect_disconnect(&[0x81, 0x82]);
    }
}

#[test]
fn a_denied_publish_of_3_1_1_is_acknowledged_and_not_delivered() {
    let mut watcher = Peer::new(4, "publish-denied-watcher");
    watcher.subscribe("$publish/#", 0);
    let mut sender = Peer::new(4, "publish-denied");
    sender.send(&publish(4, 0x32, "$publish/denied", 1, b"x"));
    sender.expect(&[0x40, 2, 0, 1]);
    sender.send(&publish(4, 0x34, "$publish/denied", 2, b"x"));
    sender.expect(&[0x50, 2, 0, 2]);
    sender.send(&acknowledge(0x62, 2));
    sender.expect(&[0x70, 2, 0, 2]);
    watcher.expect_silence();
}

#[test]
fn a_subscription_identifier_from_a_client_is_a_protocol_error() {
    let mut sender = Peer::new(5, "publish-identifier");
    sender.send(&publish_with(5, 0x30, "publish/identifier", 0, &[0x0B, 1], b"x"));
    sender.expect_disconnect(&[0x82]);
}

#[test]
fn overlapping_subscriptions_get_one_copy_at_the_highest_qos_with_every_identifier() {
    let mut subscriber = Peer::new(5, "publish-overlap");
    for (identifier, filter, qos) in [(1, "publish/overlap", 0), (2, "publish/overlap/#", 2), (3, "publish/+", 1)] {
        subscriber.send(&super::packets::subscribe_with(5, 9, &[0x0B, identifier], &[(filter, qos)]));
        assert_eq!(subscriber.reasons(0x90, 9), [qos]);
    }
    subscriber.send(&subscribe(5, 9, &[("+/overlap", 1)]));
    assert_eq!(subscriber.reasons(0x90, 9), [1]);
    let mut sender = Peer::new(5, "publish-overlap-sender");
    for (first, qos) in [(0x30, 0), (0x32, 1), (0x34, 2)] {
        sender.send(&publish(5, first, "publish/overlap", u16::from(qos) * 7, &[qos]));
        let seen = subscriber.expect_publish("publish/overlap", &[qos]);
        let mut identifiers = seen.properties.all(0x0B);
        identifiers.sort_unstable();
        assert_eq!(identifiers, [[1], [2], [3]]);
        assert_eq!(seen.qos, qos, "the highest granted is 2");
    }
    subscriber.expect_silence();
}

#[test]
fn overlapping_subscriptions_of_3_1_1_respect_the_highest_qos() {
    let mut subscriber = Peer::new(4, "publish-overlap-3");
    subscriber.subscribe("publish/overlap-3/+", 0);
    subscriber.subscribe("publish/overlap-3/#", 2);
    let mut sender = Peer::new(4, "publish-overlap-3-sender");
    sender.send(&publish(4, 0x34, "publish/overlap-3/a", 1, b"x"));
    assert_eq!(subscriber.expect_publish("publish/overlap-3/a", b"x").qos, 2);
    subscriber.send(&unsubscribe(4, 2, &["publish/overlap-3/#"]));
    subscriber.reasons(0xB0, 2);
    sender.send(&publish(4, 0x34, "publish/overlap-3/a", 2, b"y"));
    assert_eq!(subscriber.expect_publish("publish/overlap-3/a", b"y").qos, 0);
    subscriber.expect_silence();
}

#[test]
fn a_topic_may_be_as_long_as_its_length_field_allows() {
    for level in LEVELS {
        let prefix = format!("publish/long/{level}/");
        let longest = prefix.clone() + &"x".repeat(65_535 - prefix.len());
        let mut subscriber = Peer::new(level, &format!("publish-long-{level}"));
        subscriber.subscribe(&longest, 0);
        let body = [&string(&longest)[..], if level == 5 { &[0] } else { &[] }, b"x"].concat();
        subscriber.send(&packet(0x30, &body));
        subscriber.expect_publish(&longest, b"x");
    }
}
