//! Reason strings and user properties in answers: only where the client wants them and has room for them.

use super::packets::{Connect, acknowledge, property, publish, subscribe, unsubscribe};
use super::peer::{Peer, Properties, body, properties_behind};

/// Provokes one answer of each kind that says something went wrong; gives them with where their reason stands.
#[track_caller]
fn answers(peer: &mut Peer) -> Vec<(Vec<u8>, usize)> {
    let mut answers = Vec::new();
    let mut ask = |bytes: &[u8], first: u8, reason: u8| {
        peer.send(bytes);
        let packet = peer.packet();
        assert_eq!(packet[0], first, "{packet:02x?}");
        let found = if matches!(first, 0x90 | 0xB0) { packet.last().copied() } else { body(&packet).get(2).copied() };
        assert_eq!(found, Some(reason), "{packet:02x?}");
        answers.push((packet, 2));
    };
    ask(&publish(5, 0x32, "$SYS/reasons", 1, b""), 0x40, 0x87);
    ask(&publish(5, 0x34, "$SYS/reasons", 2, b""), 0x50, 0x87);
    ask(&acknowledge(0x62, 3), 0x70, 0x92);
    ask(&acknowledge(0x50, 4), 0x62, 0x92);
    ask(&subscribe(5, 5, &[("reasons/a#", 0)]), 0x90, 0x8F);
    ask(&unsubscribe(5, 6, &["reasons/never"]), 0xB0, 0x11);
    answers
}

/// The properties of an answer.
fn properties(packet: &[u8], at: usize) -> Properties {
    // SUBACK and UNSUBACK have their properties before their reasons.
    let at = if matches!(packet[0], 0x90 | 0xB0) { at - 1 } else { at };
    properties_behind(packet, at)
}

#[test]
fn a_client_that_wants_no_problem_information_gets_none() {
    let connect = Connect::new(5, "reasons-none").property(property::REQUEST_PROBLEM_INFORMATION, &[0]);
    let (mut peer, _) = Peer::join(&connect);
    for (packet, at) in answers(&mut peer) {
        assert!(properties(&packet, at).is_empty(), "{packet:02x?}");
    }
    // It still gets what belongs to a message.
    peer.subscribe("reasons/none", 0);
    let user = super::packets::user_property("k", "v");
    peer.send(&super::packets::publish_with(5, 0x30, "reasons/none", 0, &user, b"x"));
    assert!(peer.expect_publish("reasons/none", b"x").properties.one(property::USER).is_some());
}

#[test]
fn a_reason_string_is_one_readable_string() {
    let mut peer = Peer::new(5, "reasons-some");
    for (packet, at) in answers(&mut peer) {
        if let Some(value) = properties(&packet, at).one(property::REASON_STRING) {
            let text = std::str::from_utf8(&value[2..]).expect("a reason string is UTF-8");
            assert!(!text.is_empty() && !text.contains('\0'), "{text:?}");
        }
    }
}

#[test]
fn answers_keep_to_the_client_s_maximum_packet_size() {
    // From the size that the largest of these answers has without any property.
    for maximum in 20..40_u32 {
        let connect = Connect::new(5, super::unique("reasons-small"))
            .property(property::MAXIMUM_PACKET_SIZE, &maximum.to_be_bytes());
        let (mut peer, _) = Peer::join(&connect);
        for (packet, _) in answers(&mut peer) {
            assert!(packet.len() <= maximum as usize, "{packet:02x?} for a client that takes {maximum} bytes");
        }
        peer.send(&[0xC1, 0]);
        let packet = peer.packet();
        assert_eq!((packet[0], packet[2]), (0xE0, 0x81));
        assert!(packet.len() <= maximum as usize, "{packet:02x?} for a client that takes {maximum} bytes");
        peer.expect_end();
    }
}

#[test]
fn response_information_is_for_those_who_ask() {
    for connect in [
        Connect::new(5, "reasons-response-absent"),
        Connect::new(5, "reasons-response-zero").property(property::REQUEST_RESPONSE_INFORMATION, &[0]),
    ] {
        let (peer, connack) = Peer::join(&connect);
        assert_eq!(connack.properties.one(property::RESPONSE_INFORMATION), None);
        peer.leave();
    }
    let asking = Connect::new(5, "reasons-response").property(property::REQUEST_RESPONSE_INFORMATION, &[1]);
    let (peer, connack) = Peer::join(&asking);
    assert_eq!(connack.reason, 0);
    // It may be given, and is then a string of which topics are made.
    if let Some(value) = connack.properties.one(property::RESPONSE_INFORMATION) {
        let text = std::str::from_utf8(&value[2..]).expect("response information is UTF-8");
        assert!(!text.is_empty() && !text.contains(['#', '+', '\0']), "{text:?}");
    }
    peer.leave();
}

#[test]
fn a_server_reference_comes_only_where_the_client_is_to_go() {
    let (_, connack) = Peer::join(&Connect::new(5, "reasons-reference"));
    assert_eq!((connack.reason, connack.properties.one(property::SERVER_REFERENCE)), (0, None));
    let (_, connack) = Peer::join(&Connect::new(5, "$plugin/x"));
    assert_eq!((connack.reason, connack.properties.one(property::SERVER_REFERENCE)), (0x85, None));
}
