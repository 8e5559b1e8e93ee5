//! Fixed headers, strings, identifiers and property lengths (sections 1.5 and 2).

use super::LEVELS;
use super::packets::{
    Connect, PINGREQ, acknowledge, packet, publish, publish_with, subscribe, unsubscribe, user_property,
};
use super::peer::{Peer, Properties};

/// Byte sequences that are no UTF-8: a stray byte, a surrogate, an overlong NUL, a cut-off sequence.
const ILL_FORMED: [&[u8]; 4] = [b"a\xFF", b"\xED\xA0\x80", b"\xC0\x80", b"a\xE2\x82"];

/// A client that sends these bytes is cut off, in 5.0 with one of the reasons.
#[track_caller]
fn check_closes(level: u8, bytes: &[u8], reasons: &[u8]) {
    let mut peer = Peer::new(level, &super::unique("framing-closes"));
    peer.send(bytes);
    peer.expect_disconnect(reasons);
}

/// A CONNECT that may not be: 3.1.1 closes without a word, 5.0 says malformed.
#[track_caller]
fn check_connect_refused(connect: &Connect) {
    let mut peer = Peer::socket(connect.level);
    peer.send(&connect.bytes());
    if connect.level == 5 {
        let connack = peer.connack();
        assert_eq!((connack.flags, connack.reason), (0, 0x81));
    }
    peer.expect_end();
}

#[test]
fn ill_formed_utf_8_closes_the_connection() {
    for (level, bad) in LEVELS.into_iter().flat_map(|level| ILL_FORMED.map(|bad| (level, bad))) {
        check_closes(level, &publish(level, 0x30, bad, 0, b""), &[0x81]);
        check_closes(level, &subscribe(level, 1, &[(bad, 0)]), &[0x81]);
        check_closes(level, &unsubscribe(level, 1, &[bad]), &[0x81]);
    }
}

#[test]
fn ill_formed_utf_8_in_connect_is_refused() {
    for (level, bad) in LEVELS.into_iter().flat_map(|level| ILL_FORMED.map(|bad| (level, bad))) {
        check_connect_refused(&Connect::new(level, bad));
        check_connect_refused(&Connect::new(level, "framing-utf8").will(bad, b"", 0, false));
        check_connect_refused(&Connect::new(level, "framing-utf8").user_name(bad));
    }
}

#[test]
fn the_null_character_closes_the_connection() {
    let bad = b"a\0b";
    for level in LEVELS {
        check_closes(level, &publish(level, 0x30, bad, 0, b""), &[0x81]);
        check_closes(level, &subscribe(level, 1, &[(bad, 0)]), &[0x81]);
        check_closes(level, &unsubscribe(level, 1, &[bad]), &[0x81]);
        check_connect_refused(&Connect::new(level, bad));
        check_connect_refused(&Connect::new(level, "framing-nul").will(bad, b"", 0, false));
        check_connect_refused(&Connect::new(level, "framing-nul").user_name(bad));
    }
}

#[test]
fn a_byte_order_mark_is_part_of_the_string() {
    for level in LEVELS {
        let mut peer = Peer::new(level, &format!("framing-bom-{level}"));
        peer.subscribe("framing/bom", 0);
        peer.subscribe("framing/\u{FEFF}bom", 0);
        peer.send(&publish(level, 0x30, "framing/\u{FEFF}bom", 0, b"marked"));
        peer.expect_publish("framing/\u{FEFF}bom", b"marked");
        peer.expect_silence();
    }
}

#[test]
fn a_length_of_more_than_four_bytes_closes_the_connection() {
    for level in LEVELS {
        check_closes(level, &[0x30, 0xFF, 0xFF, 0xFF, 0xFF], &[0x81]);
        check_closes(level, &[0x30, 0x80, 0x80, 0x80, 0x80, 0x01], &[0x81]);
    }
}

#[test]
fn a_length_longer_than_it_need_be_is_malformed() {
    check_closes(5, &[0xC0, 0x80, 0x00], &[0x81]);
    check_closes(5, &[0x30, 0x84, 0x00, 0, 1, b'a', 0], &[0x81]);
    check_closes(5, &[0x30, 5, 0, 1, b'a', 0x80, 0x00], &[0x81]);
}

#[test]
fn both_strings_of_a_user_property_are_checked() {
    for bad in ILL_FORMED.into_iter().chain([&b"a\0"[..]]) {
        for pair in [user_property(bad, "value"), user_property("name", bad)] {
            check_closes(5, &publish_with(5, 0x30, "framing/user", 0, &pair, b""), &[0x81]);
        }
    }
}

#[test]
fn reserved_flags_close_the_connection() {
    for level in LEVELS {
        for bytes in [
            acknowledge(0x41, 1),
            acknowledge(0x58, 1),
            acknowledge(0x60, 1),
            acknowledge(0x63, 1),
            acknowledge(0x72, 1),
            [&[0x80], &subscribe(level, 1, &[("a", 0)])[1..]].concat(),
            [&[0x83], &subscribe(level, 1, &[("a", 0)])[1..]].concat(),
            [&[0xA0], &unsubscribe(level, 1, &["a"])[1..]].concat(),
            [&[0xAA], &unsubscribe(level, 1, &["a"])[1..]].concat(),
            vec![0xC1, 0],
            vec![0xE1, 0],
            vec![0x00, 0],
        ] {
            check_closes(level, &bytes, &[0x81]);
        }
        let mut peer = Peer::socket(level);
        peer.send(&[&[0x11], &Connect::new(level, "framing-flags").bytes()[1..]].concat());
        peer.expect_end();
    }
}

#[test]
fn packets_that_only_servers_send_close_the_connection() {
    for level in LEVELS {
        for bytes in [packet(0x20, &[0, 0]), packet(0x90, &[0, 1, 0]), packet(0xB0, &[0, 1]), packet(0xD0, &[])] {
            check_closes(level, &bytes, &[0x81, 0x82]);
        }
    }
    check_closes(4, &packet(0xF0, &[]), &[]);
}

#[test]
fn an_identifier_of_zero_closes_the_connection() {
    for level in LEVELS {
        let zero = [&[0, 1, b'a', 0, 0][..], if level == 5 { &[0] } else { &[] }].concat();
        // The specification forbids it and names no reason of its own.
        let reasons = [0x81, 0x82];
        check_closes(level, &packet(0x32, &zero), &reasons);
        check_closes(level, &packet(0x34, &zero), &reasons);
        check_closes(level, &subscribe(level, 0, &[("a", 0)]), &reasons);
        check_closes(level, &unsubscribe(level, 0, &["a"]), &reasons);
    }
}

#[test]
fn answers_carry_the_identifier_of_what_they_answer() {
    for level in LEVELS {
        let mut peer = Peer::new(level, &format!("framing-identifiers-{level}"));
        for packet_id in [1, 0xFF, 0x100, 0x1234, 0xFFFF] {
            peer.send(&subscribe(level, packet_id, &[("framing/identifiers/none", 0)]));
            assert_eq!(peer.reasons(0x90, packet_id), [0]);
            peer.send(&unsubscribe(level, packet_id, &["framing/identifiers/none"]));
            assert_eq!(peer.reasons(0xB0, packet_id), if level == 5 { &[0][..] } else { &[] });
            let unheard = if level == 5 { 0x10 } else { 0 };
            peer.send(&publish(level, 0x32, "framing/identifiers", packet_id, b""));
            peer.expect_acknowledgement(0x40, packet_id, unheard);
            peer.send(&publish(level, 0x34, "framing/identifiers", packet_id, b""));
            peer.expect_acknowledgement(0x50, packet_id, unheard);
            peer.send(&acknowledge(0x62, packet_id));
            peer.expect_acknowledgement(0x70, packet_id, 0);
        }
    }
}

#[test]
fn the_broker_s_identifiers_are_not_zero_and_not_in_use() {
    for level in LEVELS {
        let topic = format!("framing/unique/{level}");
        let mut peer = Peer::new(level, &format!("framing-unique-{level}"));
        peer.subscribe(&topic, 1);
        let mut sender = Peer::new(level, &format!("framing-unique-sender-{level}"));
        let mut in_use = Vec::new();
        for round in 0..200_u8 {
            sender.publish_acknowledged(&topic, &[round]);
            let packet_id = peer.expect_publish(&topic, &[round]).packet_id;
            assert!(packet_id != 0 && !in_use.contains(&packet_id), "{packet_id} of {in_use:?}");
            in_use.push(packet_id);
            // Every third that is open is acknowledged, not the oldest first.
            if round % 2 == 1 {
                let done = in_use.remove(in_use.len() / 3);
                peer.send(&acknowledge(0x40, done));
            }
        }
    }
}

#[test]
fn a_packet_without_properties_says_so() {
    let mut peer = Peer::new(5, "framing-none");
    peer.send(&subscribe(5, 1, &[("framing/none", 0)]));
    peer.expect(&[0x90, 4, 0, 1, 0, 0]);
    peer.send(&publish(5, 0x30, "framing/none", 0, b"x"));
    peer.expect(&publish(5, 0x30, "framing/none", 0, b"x"));
    peer.send(&unsubscribe(5, 1, &["framing/none"]));
    peer.expect(&[0xB0, 4, 0, 1, 0, 0]);
    // A client that leaves out the length is malformed.
    peer.send(&[0x30, 3, 0, 1, b'a']);
    peer.expect_disconnect(&[0x81]);
    check_closes(5, &[0x82, 6, 0, 1, 0, 1, b'a', 0], &[0x81]);
}

#[test]
fn a_publish_at_qos_0_has_no_identifier() {
    for level in LEVELS {
        let mut peer = Peer::new(level, &format!("framing-qos0-{level}"));
        peer.subscribe("framing/qos0", 2);
        // What a client puts behind the topic is payload, or in 5.0 the property length first.
        peer.send(&publish(level, 0x30, "framing/qos0", 0, &[0, 9, b'x']));
        let seen = peer.expect_publish("framing/qos0", &[0, 9, b'x']);
        assert_eq!((seen.qos, seen.packet_id, seen.properties), (0, 0, Properties::default()));
        peer.leave();
    }
}

#[test]
fn packets_need_not_end_where_segments_end() {
    for level in LEVELS {
        let mut peer = Peer::socket(level);
        let all = [Connect::new(level, "framing-pieces").bytes(), PINGREQ.to_vec(), PINGREQ.to_vec()].concat();
        for byte in &all {
            peer.send(&[*byte]);
        }
        assert_eq!(peer.connack().reason, 0);
        peer.expect(&[0xD0, 0]);
        peer.expect(&[0xD0, 0]);
        peer.leave();
    }
}

#[test]
fn lengths_that_run_past_their_packet_are_malformed() {
    for level in LEVELS {
        // The topic claims bytes of the packets behind it.
        check_closes(level, &[0x30, 4, 0, 16, b'a', 0, 0x30, 4, 0, 1, b'a', 0, 0xC0, 0, 0xC0, 0, 0xC0, 0], &[0x81]);
        check_closes(level, &[0x82, 6, 0, 1, 0, 9, b'a', 0], &[0x81]);
        check_closes(level, &[0x40, 1, 0], &[0x81]);
        check_closes(level, &[0xC0, 1, 0], &[0x81]);
    }
}

#[test]
fn a_length_longer_than_it_need_be_is_malformed_in_every_field() {
    let padded = |properties: &[u8]| packet(0x82, &[&[0, 1][..], properties, &[0, 1, b'a', 0]].concat());
    check_closes(5, &padded(&[0x80, 0x00]), &[0x81]);
    check_closes(5, &padded(&[3, 0x0B, 0x81, 0x00]), &[0x81]);
    check_closes(5, &packet(0xA2, &[0, 1, 0x80, 0x00, 0, 1, b'a']), &[0x81]);
    check_closes(5, &packet(0xE0, &[0, 0x80, 0x00]), &[0x81]);
}
