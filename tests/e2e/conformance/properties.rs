//! Properties of PUBLISH in 5.0 (section 3.3.2.3): what travels with a message, and what belongs to a connection.

use super::packets::{Connect, property, publish, publish_with, string, subscribe, subscribe_with, user_property};
use super::peer::{Peer, Properties};

/// A client that subscribed to `properties/NAME`, and one that did not.
fn pair(name: &str) -> (Peer, Peer, String) {
    let topic = format!("properties/{name}");
    let mut subscriber = Peer::new(5, &format!("properties-{name}-to"));
    subscriber.subscribe(&topic, 2);
    (subscriber, Peer::new(5, &format!("properties-{name}-from")), topic)
}

/// A client that sends a PUBLISH with these properties is cut off with one of the reasons.
#[track_caller]
fn check_closes(properties: &[u8], payload: &[u8], reasons: &[u8]) {
    let mut sender = Peer::new(5, &super::unique("properties-closes"));
    sender.send(&publish_with(5, 0x30, "properties/closes", 0, properties, payload));
    sender.expect_disconnect(reasons);
}

#[test]
fn everything_that_describes_a_message_arrives_unaltered() {
    let (mut subscriber, mut sender, topic) = pair("all");
    let properties = [
        &[property::PAYLOAD_FORMAT, 1][..],
        &[property::CONTENT_TYPE],
        &string("text/plain; \u{e4}"),
        &[property::RESPONSE_TOPIC],
        &string("properties/answers/1"),
        &[property::CORRELATION_DATA],
        &string([0, 0xFF, 7]),
    ]
    .concat();
    sender.send(&publish_with(5, 0x32, &topic, 1, &properties, "gr\u{fc}n".as_bytes()));
    sender.expect_acknowledgement(0x40, 1, 0);
    let seen = subscriber.expect_publish(&topic, "gr\u{fc}n".as_bytes()).properties;
    assert_eq!(seen.one(property::PAYLOAD_FORMAT), Some(&[1][..]));
    assert_eq!(seen.one(property::CONTENT_TYPE), Some(&string("text/plain; \u{e4}")[..]));
    assert_eq!(seen.one(property::RESPONSE_TOPIC), Some(&string("properties/answers/1")[..]));
    assert_eq!(seen.one(property::CORRELATION_DATA), Some(&string([0, 0xFF, 7])[..]));
}

#[test]
fn empty_and_zero_values_are_values_too() {
    let (mut subscriber, mut sender, topic) = pair("zero");
    let properties = [
        &[property::PAYLOAD_FORMAT, 0][..],
        &[property::CONTENT_TYPE, 0, 0],
        &[property::CORRELATION_DATA, 0, 0],
        &user_property("", ""),
    ]
    .concat();
    sender.send(&publish_with(5, 0x30, &topic, 0, &properties, b"\xFF"));
    let seen = subscriber.expect_publish(&topic, b"\xFF").properties;
    assert_eq!(seen.one(property::PAYLOAD_FORMAT), Some(&[0][..]));
    assert_eq!(seen.one(property::CONTENT_TYPE), Some(&[0, 0][..]));
    assert_eq!(seen.one(property::CORRELATION_DATA), Some(&[0, 0][..]));
    assert_eq!(seen.one(property::USER), Some(&[0, 0, 0, 0][..]));
}

#[test]
fn user_properties_arrive_all_and_in_their_order() {
    let (mut subscriber, mut sender, topic) = pair("user");
    let pairs = [("b", "1"), ("a", "2"), ("b", "1"), ("", ""), ("b", "0"), ("\u{1F41D}", "wasp")];
    let properties: Vec<u8> = pairs.iter().flat_map(|(name, value)| user_property(name, value)).collect();
    sender.send(&publish_with(5, 0x30, &topic, 0, &properties, b"x"));
    let seen = subscriber.expect_publish(&topic, b"x").properties;
    let expected: Vec<Vec<u8>> = pairs.iter().map(|(name, value)| [string(name), string(value)].concat()).collect();
    assert_eq!(seen.all(property::USER), expected);
}

#[test]
fn a_message_without_properties_arrives_without() {
    let (mut subscriber, mut sender, topic) = pair("none");
    sender.send(&publish(5, 0x30, &topic, 0, b"x"));
    assert_eq!(subscriber.expect_publish(&topic, b"x").properties, Properties::default());
}

#[test]
fn a_retained_message_keeps_its_properties() {
    let mut sender = Peer::new(5, "properties-retained-from");
    let properties = [&user_property("unit", "mm/s")[..], &[property::RESPONSE_TOPIC], &string("answers")].concat();
    sender.send(&publish_with(5, 0x33, "properties/retained", 1, &properties, b"kept"));
    sender.expect_acknowledgement(0x40, 1, 0x10);
    let mut late = Peer::new(5, "properties-retained-to");
    late.subscribe("properties/retained", 1);
    let seen = late.expect_publish("properties/retained", b"kept").properties;
    assert_eq!(seen.one(property::USER), Some(&[string("unit"), string("mm/s")].concat()[..]));
    assert_eq!(seen.one(property::RESPONSE_TOPIC), Some(&string("answers")[..]));
}

#[test]
fn the_expiry_interval_comes_with_the_message_and_does_not_grow() {
    let (mut subscriber, mut sender, topic) = pair("expiry");
    sender.send(&publish_with(5, 0x30, &topic, 0, &[property::MESSAGE_EXPIRY, 0, 0, 0x0E, 0x10], b"x"));
    let seen = subscriber.expect_publish(&topic, b"x").properties;
    let value = seen.one(property::MESSAGE_EXPIRY).expect("an interval");
    let seconds = u32::from_be_bytes([value[0], value[1], value[2], value[3]]);
    assert!((3500..=3600).contains(&seconds), "{seconds} of 3600 s are left");
}

#[test]
fn a_property_that_comes_twice_is_a_protocol_error() {
    for once in [
        &[property::PAYLOAD_FORMAT, 1][..],
        &[property::MESSAGE_EXPIRY, 0, 0, 0, 9],
        &[property::TOPIC_ALIAS, 0, 1],
        &[property::RESPONSE_TOPIC, 0, 1, b'r'],
        &[property::CORRELATION_DATA, 0, 1, b'c'],
        &[property::CONTENT_TYPE, 0, 1, b't'],
    ] {
        check_closes(&once.repeat(2), b"x", &[0x82]);
    }
}

#[test]
fn properties_of_other_packets_and_of_none_are_malformed() {
    for property in [
        &[property::SESSION_EXPIRY, 0, 0, 0, 9][..],
        &[property::REASON_STRING, 0, 1, b'r'],
        &[property::RECEIVE_MAXIMUM, 0, 9],
        &[0x00, 0],
        &[0x7F, 0],
    ] {
        check_closes(property, b"x", &[0x81]);
    }
}

#[test]
fn the_response_topic_is_a_topic_name() {
    for name in ["#", "a/+", "a/#"] {
        check_closes(&[&[property::RESPONSE_TOPIC][..], &string(name)].concat(), b"x", &[0x82, 0x90]);
    }
    for name in [&b"\xFF"[..], b"a\0", b"\xED\xA0\x80"] {
        check_closes(&[&[property::RESPONSE_TOPIC][..], &string(name)].concat(), b"x", &[0x81]);
    }
}

#[test]
fn the_content_type_is_a_string() {
    for name in [&b"\xFF"[..], b"a\0", b"\xED\xA0\x80"] {
        check_closes(&[&[property::CONTENT_TYPE][..], &string(name)].concat(), b"x", &[0x81]);
    }
}

#[test]
fn a_payload_is_held_to_the_format_it_announces() {
    check_closes(&[property::PAYLOAD_FORMAT, 1], b"\xC3\x28", &[0x99]);
    check_closes(&[property::PAYLOAD_FORMAT, 2], b"x", &[0x81, 0x82]);
}

// ------------------------------------------------------------------------------------ topic aliases to the broker

#[test]
fn every_alias_up_to_the_announced_maximum_is_taken() {
    let (mut sender, connack) = Peer::join(&Connect::new(5, "properties-alias-from"));
    let value = connack.properties.one(property::TOPIC_ALIAS_MAXIMUM).expect("aliases are offered");
    let maximum = u16::from_be_bytes([value[0], value[1]]);
    let mut subscriber = Peer::new(5, "properties-alias-to");
    subscriber.subscribe("properties/alias/#", 0);
    for alias in 1..=maximum {
        let [high, low] = alias.to_be_bytes();
        sender.send(&publish_with(5, 0x30, format!("properties/alias/{alias}"), 0, &[0x23, high, low], b"set"));
        subscriber.expect_publish(&format!("properties/alias/{alias}"), b"set");
    }
    for alias in (1..=maximum).rev() {
        let [high, low] = alias.to_be_bytes();
        sender.send(&publish_with(5, 0x30, "", 0, &[0x23, high, low], b"used"));
        let seen = subscriber.expect_publish(&format!("properties/alias/{alias}"), b"used");
        assert_eq!(seen.properties.one(property::TOPIC_ALIAS), None, "an alias is of one connection");
    }
    sender.send(&publish_with(5, 0x30, "properties/alias/other", 0, &[0x23, 0, 1], b"set again"));
    subscriber.expect_publish("properties/alias/other", b"set again");
    sender.send(&publish_with(5, 0x30, "", 0, &[0x23, 0, 1], b"used again"));
    subscriber.expect_publish("properties/alias/other", b"used again");
    let [high, low] = (maximum + 1).to_be_bytes();
    sender.send(&publish_with(5, 0x30, "properties/alias/beyond", 0, &[0x23, high, low], b"x"));
    sender.expect_disconnect(&[0x94]);
}

#[test]
fn alias_0_is_invalid() {
    check_closes(&[property::TOPIC_ALIAS, 0, 0], b"x", &[0x94]);
}

#[test]
fn an_alias_ends_with_its_connection() {
    let connect = Connect::new(5, "properties-alias-ends").resume();
    let (mut sender, _) = Peer::join(&connect);
    sender.send(&publish_with(5, 0x30, "properties/alias-ends", 0, &[0x23, 0, 1], b"set"));
    sender.leave();
    let (mut sender, connack) = Peer::join(&connect);
    assert_eq!(connack.flags, 1);
    sender.send(&publish_with(5, 0x30, "", 0, &[0x23, 0, 1], b"used"));
    sender.expect_disconnect(&[0x82]);
}

// ------------------------------------------------------------------------------------ maximum packet size

#[test]
fn a_message_that_is_too_large_for_a_client_is_left_out_for_it_alone() {
    let connect = Connect::new(5, "properties-small").property(property::MAXIMUM_PACKET_SIZE, &[0, 0, 0, 100]);
    let (mut small, _) = Peer::join(&connect);
    let mut large = Peer::new(5, "properties-large");
    small.subscribe("properties/size", 1);
    large.subscribe("properties/size", 1);
    let mut sender = Peer::new(5, "properties-size-from");
    // The whole packet counts: header, topic, identifier, property length and payload.
    let room = 100 - publish(5, 0x32, "properties/size", 1, b"").len();
    for length in [room + 1, 400, room] {
        sender.publish_acknowledged("properties/size", &vec![7; length]);
        let seen = large.expect_publish("properties/size", &vec![7; length]);
        large.send(&super::packets::acknowledge(0x40, seen.packet_id));
    }
    // The two that were left out count as delivered: they neither come later nor keep a place.
    let seen = small.expect_publish("properties/size", &vec![7; room]);
    small.send(&super::packets::acknowledge(0x40, seen.packet_id));
    small.expect_silence();
}

#[test]
fn properties_count_for_the_maximum_packet_size() {
    let connect = Connect::new(5, "properties-counted").property(property::MAXIMUM_PACKET_SIZE, &[0, 0, 0, 100]);
    let (mut small, _) = Peer::join(&connect);
    small.send(&subscribe_with(5, 1, &[0x0B, 9], &[("properties/counted", 0)]));
    assert_eq!(small.reasons(0x90, 1), [0]);
    let mut sender = Peer::new(5, "properties-counted-from");
    let large = user_property("name", [b'v'; 60]);
    sender.send(&publish_with(5, 0x30, "properties/counted", 0, &large, b"left out"));
    sender.send(&publish_with(5, 0x30, "properties/counted", 0, &user_property("name", "v"), b"sent"));
    sender.expect_silence();
    small.expect_publish("properties/counted", b"sent");
    small.expect_silence();
}

#[test]
fn a_packet_larger_than_the_broker_takes_closes_the_connection() {
    let (mut sender, connack) = Peer::join(&Connect::new(5, "properties-too-large"));
    let value = connack.properties.one(property::MAXIMUM_PACKET_SIZE).expect("a bound is announced");
    let maximum = u32::from_be_bytes([value[0], value[1], value[2], value[3]]) as usize;
    let mut largest = publish(5, 0x32, "properties/largest", 1, b"");
    largest = publish(5, 0x32, "properties/largest", 1, &vec![0; maximum - largest.len() - 2]);
    assert_eq!(largest.len(), maximum);
    sender.send(&largest);
    sender.expect_acknowledgement(0x40, 1, 0x10);
    let longer = publish(5, 0x32, "properties/largest-1", 1, &vec![0; maximum - 20]);
    assert!(longer.len() > maximum);
    // It is the header that says so: nobody has to read the rest.
    sender.send(&longer[..64]);
    sender.expect_disconnect(&[0x95]);
}

#[test]
fn subscriptions_of_either_kind_stand_side_by_side() {
    let mut peer = Peer::new(5, "properties-identifiers");
    peer.send(&subscribe_with(5, 1, &[0x0B, 0xFF, 0xFF, 0xFF, 0x7F], &[("properties/identified", 0)]));
    assert_eq!(peer.reasons(0x90, 1), [0]);
    peer.send(&subscribe(5, 2, &[("properties/plain", 0)]));
    assert_eq!(peer.reasons(0x90, 2), [0]);
    peer.send(&publish(5, 0x30, "properties/identified", 0, b"1"));
    let seen = peer.expect_publish("properties/identified", b"1").properties;
    assert_eq!(seen.one(property::SUBSCRIPTION_IDENTIFIER), Some(&[0xFF, 0xFF, 0xFF, 0x7F][..]));
    peer.send(&publish(5, 0x30, "properties/plain", 0, b"2"));
    assert_eq!(peer.expect_publish("properties/plain", b"2").properties, Properties::default());
}
