//! SUBSCRIBE and SUBACK (sections 3.8 and 3.9), but for retained and shared ones.

use super::LEVELS;
use super::packets::{acknowledge, packet, property, publish, subscribe, subscribe_with, user_property};
use super::peer::Peer;

/// A client that sends these bytes is cut off, in 5.0 with one of the reasons.
#[track_caller]
fn check_closes(level: u8, bytes: &[u8], reasons: &[u8]) {
    let mut peer = Peer::new(level, &super::unique("subscribe-closes"));
    peer.send(bytes);
    peer.expect_disconnect(reasons);
}

#[test]
fn a_subscribe_without_filters_closes_the_connection() {
    check_closes(4, &packet(0x82, &[0, 1]), &[]);
    check_closes(5, &packet(0x82, &[0, 1, 0]), &[0x82]);
}

#[test]
fn a_filter_without_options_closes_the_connection() {
    check_closes(4, &packet(0x82, &[0, 1, 0, 1, b'a']), &[]);
    check_closes(5, &packet(0x82, &[0, 1, 0, 0, 1, b'a']), &[0x81]);
}

#[test]
fn reserved_options_close_the_connection() {
    for bit in [0x04, 0x08, 0x10, 0x20, 0x40, 0x80] {
        check_closes(4, &subscribe(4, 1, &[("a", bit)]), &[]);
    }
    check_closes(5, &subscribe(5, 1, &[("a", 0x40)]), &[0x81]);
    check_closes(5, &subscribe(5, 1, &[("a", 0x80)]), &[0x81]);
    // Also in the second of two filters.
    check_closes(5, &subscribe(5, 1, &[("a", 0), ("b", 0xC0)]), &[0x81]);
    check_closes(4, &subscribe(4, 1, &[("a", 0), ("b", 0x80)]), &[]);
}

#[test]
fn qos_3_and_retain_handling_3_close_the_connection() {
    check_closes(4, &subscribe(4, 1, &[("a", 3)]), &[]);
    check_closes(5, &subscribe(5, 1, &[("a", 3)]), &[0x82]);
    check_closes(5, &subscribe(5, 1, &[("a", 0x30)]), &[0x82]);
}

#[test]
fn an_empty_filter_closes_the_connection() {
    for level in LEVELS {
        check_closes(level, &subscribe(level, 1, &[("", 0)]), &[0x81, 0x82]);
    }
}

#[test]
fn a_subscribe_is_answered_with_its_identifier_and_the_granted_qos() {
    for level in LEVELS {
        let mut peer = Peer::new(level, &format!("subscribe-answer-{level}"));
        for qos in 0..3 {
            peer.send(&subscribe(level, 0x0102, &[("subscribe/answer", qos)]));
            let properties: &[u8] = if level == 5 { &[0] } else { &[] };
            peer.expect(&packet(0x90, &[&[1, 2], properties, &[qos]].concat()));
        }
    }
}

#[test]
fn each_filter_is_answered_in_its_place() {
    for (level, refused) in [(4, 0x80), (5, 0x8F)] {
        let mut peer = Peer::new(level, &format!("subscribe-order-{level}"));
        let filters = [("subscribe/order/a", 2), ("a#b", 1), ("subscribe/order/b", 0), ("+a", 0), ("subscribe/+/c", 1)];
        peer.send(&subscribe(level, 1, &filters));
        assert_eq!(peer.reasons(0x90, 1), [2, refused, 0, refused, 1]);
        // The others stand.
        for (topic, qos) in [("subscribe/order/a", 2), ("subscribe/order/b", 0), ("subscribe/order/c", 1)] {
            peer.send(&publish(level, 0x34, topic, 7, b"x"));
            let mut seen = None;
            for _ in 0..2 {
                let packet = peer.packet();
                match packet[0] >> 4 {
                    5 => peer.send(&acknowledge(0x62, 7)),
                    _ => seen = Some(packet[0] >> 1 & 3),
                }
            }
            peer.expect_acknowledgement(0x70, 7, 0);
            assert_eq!(seen, Some(qos), "{topic}");
        }
    }
}

#[test]
fn many_filters_in_one_packet_are_as_many_packets() {
    for level in LEVELS {
        let mut peer = Peer::new(level, &format!("subscribe-many-{level}"));
        let names: Vec<String> = (0..300).map(|number| format!("subscribe/many/{level}/{number}")).collect();
        let filters: Vec<(&String, u8)> = names.iter().enumerate().map(|(at, name)| (name, (at % 3) as u8)).collect();
        peer.send(&subscribe(level, 9, &filters));
        let granted: Vec<u8> = filters.iter().map(|(_, qos)| *qos).collect();
        assert_eq!(peer.reasons(0x90, 9), granted);
        for name in [&names[0], &names[150], &names[299]] {
            peer.send(&publish(level, 0x30, name, 0, b"x"));
            peer.expect_publish(name, b"x");
        }
        // The same filter twice in one packet: the second replaces the first.
        peer.send(&subscribe(level, 10, &[(&names[0], 0), (&names[0], 1)]));
        assert_eq!(peer.reasons(0x90, 10), [0, 1]);
        let mut sender = Peer::new(level, &format!("subscribe-many-from-{level}"));
        sender.publish_acknowledged(&names[0], b"y");
        assert_eq!(peer.expect_publish(&names[0], b"y").qos, 1);
        peer.expect_silence();
    }
}

#[test]
fn the_same_filter_again_replaces_its_subscription() {
    for level in LEVELS {
        let topic = format!("subscribe/replaced/{level}");
        let mut peer = Peer::new(level, &format!("subscribe-replaced-{level}"));
        let mut sender = Peer::new(level, &format!("subscribe-replaced-from-{level}"));
        for qos in [2, 0, 1] {
            peer.subscribe(&topic, qos);
            sender.send(&publish(level, 0x34, &topic, 1, &[qos]));
            sender.expect_acknowledgement(0x50, 1, 0);
            sender.send(&acknowledge(0x62, 1));
            sender.expect_acknowledgement(0x70, 1, 0);
            assert_eq!(peer.expect_publish(&topic, &[qos]).qos, qos, "one copy, at the QoS that was granted last");
        }
        peer.expect_silence();
    }
}

#[test]
fn replacing_a_subscription_loses_nothing() {
    for level in LEVELS {
        let topic = format!("subscribe/lossless/{level}");
        let mut peer = Peer::new(level, &format!("subscribe-lossless-{level}"));
        peer.subscribe(&topic, 0);
        // What arrives on one connection is taken in order, so each message meets one subscription or the next.
        let mut all = Vec::new();
        for number in 0..50 {
            all.extend(publish(level, 0x30, &topic, 0, &[number]));
            all.extend(subscribe(level, 1 + u16::from(number), &[(&topic, 0)]));
        }
        peer.send(&all);
        for number in 0..50 {
            peer.expect_publish(&topic, &[number]);
            assert_eq!(peer.reasons(0x90, 1 + u16::from(number)), [0]);
        }
    }
}

#[test]
fn a_message_comes_at_the_lower_of_both_qos() {
    for level in LEVELS {
        let mut sender = Peer::new(level, &format!("subscribe-lower-from-{level}"));
        for granted in 0..3 {
            let topic = format!("subscribe/lower/{level}/{granted}");
            let mut peer = Peer::new(level, &format!("subscribe-lower-{level}-{granted}"));
            peer.subscribe(&topic, granted);
            for published in 0..3_u8 {
                sender.send(&publish(level, 0x30 | published << 1, &topic, u16::from(published), &[published]));
                match published {
                    0 => {}
                    1 => sender.expect_acknowledgement(0x40, 1, 0),
                    _ => {
                        sender.expect_acknowledgement(0x50, 2, 0);
                        sender.send(&acknowledge(0x62, 2));
                        sender.expect_acknowledgement(0x70, 2, 0);
                    }
                }
                let seen = peer.expect_publish(&topic, &[published]);
                assert_eq!(seen.qos, granted.min(published));
            }
            peer.expect_silence();
        }
    }
}

#[test]
fn no_local_keeps_from_a_client_what_it_published() {
    let mut local = Peer::new(5, "subscribe-local");
    local.send(&subscribe(5, 1, &[("subscribe/no-local", 0x04)]));
    assert_eq!(local.reasons(0x90, 1), [0]);
    let mut other = Peer::new(5, "subscribe-other");
    other.send(&subscribe(5, 1, &[("subscribe/no-local", 0x04)]));
    assert_eq!(other.reasons(0x90, 1), [0]);
    local.send(&publish(5, 0x30, "subscribe/no-local", 0, b"x"));
    other.expect_publish("subscribe/no-local", b"x");
    local.expect_silence();
    other.send(&publish(5, 0x30, "subscribe/no-local", 0, b"y"));
    local.expect_publish("subscribe/no-local", b"y");
    other.expect_silence();
    // Without the option it hears itself.
    local.subscribe("subscribe/no-local", 0);
    local.send(&publish(5, 0x30, "subscribe/no-local", 0, b"z"));
    local.expect_publish("subscribe/no-local", b"z");
}

#[test]
fn a_subscription_identifier_is_of_its_subscription() {
    let mut peer = Peer::new(5, "subscribe-identifier");
    peer.send(&subscribe_with(5, 1, &[0x0B, 5], &[("subscribe/id/a", 0), ("subscribe/id/b", 0)]));
    assert_eq!(peer.reasons(0x90, 1), [0, 0]);
    for topic in ["subscribe/id/a", "subscribe/id/b"] {
        peer.send(&publish(5, 0x30, topic, 0, b"x"));
        assert_eq!(peer.expect_publish(topic, b"x").properties.all(0x0B), [[5]]);
    }
    // Replaced with another, and with none.
    for (properties, expected) in [(&[0x0B, 6][..], &[&[6][..]][..]), (&[], &[])] {
        peer.send(&subscribe_with(5, 2, properties, &[("subscribe/id/a", 0)]));
        assert_eq!(peer.reasons(0x90, 2), [0]);
        peer.send(&publish(5, 0x30, "subscribe/id/a", 0, b"x"));
        assert_eq!(peer.expect_publish("subscribe/id/a", b"x").properties.all(0x0B), expected);
    }
}

#[test]
fn properties_of_subscribe_are_checked() {
    let with = |properties: &[u8]| subscribe_with(5, 1, properties, &[("subscribe/properties", 0)]);
    check_closes(5, &with(&[property::CONTENT_TYPE, 0, 1, b't']), &[0x81]);
    check_closes(5, &with(&[0x7F, 0]), &[0x81]);
    let mut peer = Peer::new(5, "subscribe-properties");
    peer.send(&with(&[user_property("a", "1"), user_property("a", "2")].concat()));
    assert_eq!(peer.reasons(0x90, 1), [0]);
}

#[test]
fn an_ordinary_subscription_beside_one_with_no_local_still_brings_what_the_client_published() {
    let mut peer = Peer::new(5, "subscribe-both");
    for (identifier, filter, options) in [(1, "subscribe/both/+", 0x06), (2, "subscribe/both/#", 0x01)] {
        peer.send(&subscribe_with(5, 1, &[0x0B, identifier], &[(filter, options)]));
        assert_eq!(peer.reasons(0x90, 1), [options & 3]);
    }
    peer.send(&publish(5, 0x34, "subscribe/both/a", 7, b"x"));
    let mut seen = None;
    for _ in 0..2 {
        let packet = peer.packet();
        if packet[0] >> 4 == 3 {
            seen = Some(packet);
        }
    }
    // Only by the second: at its QoS, with its identifier.
    let expected = super::packets::publish_with(5, 0x32, "subscribe/both/a", 1, &[0x0B, 2], b"x");
    assert_eq!(seen.as_deref(), Some(&expected[..]));
    peer.expect_silence();
}

#[test]
fn a_suback_that_is_too_large_for_its_client_is_not_sent() {
    let connect = super::packets::Connect::new(5, "subscribe-suback-size")
        .property(property::MAXIMUM_PACKET_SIZE, &[0, 0, 0, 60]);
    let (mut peer, _) = Peer::join(&connect);
    let names: Vec<String> = (0..200).map(|number| format!("subscribe/suback-size/{number}")).collect();
    let filters: Vec<(&String, u8)> = names.iter().map(|name| (name, 0)).collect();
    peer.send(&[subscribe(5, 1, &filters), super::packets::PINGREQ.to_vec()].concat());
    // Left out, or the connection ends: whatever comes fits.
    while let Some(packet) = peer.next() {
        assert!(packet.len() <= 60, "{} bytes for a client that takes 60", packet.len());
        if packet[0] == 0xD0 {
            break;
        }
    }
}

#[test]
fn a_second_subscription_identifier_is_a_protocol_error() {
    check_closes(5, &subscribe_with(5, 1, &[0x0B, 1, 0x0B, 2], &[("subscribe/twice", 0)]), &[0x82]);
}

#[test]
fn subscription_identifier_0_is_a_protocol_error() {
    check_closes(5, &subscribe_with(5, 1, &[0x0B, 0], &[("subscribe/zero", 0)]), &[0x82]);
}
