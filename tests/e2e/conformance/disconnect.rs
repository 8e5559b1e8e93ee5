//! DISCONNECT from either side, and the end of connections (sections 3.14 and 4.13).

use super::LEVELS;
use super::packets::{Connect, DISCONNECT, PINGREQ, packet, property, publish};
use super::peer::{Peer, properties_behind};

#[test]
fn nothing_behind_a_disconnect_is_processed() {
    for level in LEVELS {
        let topic = format!("disconnect/behind/{level}");
        let mut watcher = Peer::new(level, &format!("disconnect-watcher-{level}"));
        watcher.subscribe(&topic, 0);
        let mut peer = Peer::new(level, &format!("disconnect-behind-{level}"));
        peer.send(&[&DISCONNECT[..], &publish(level, 0x30, &topic, 0, b"late"), &PINGREQ].concat());
        peer.expect_end();
        watcher.expect_silence();
    }
}

#[test]
fn a_disconnect_with_a_body_is_malformed_in_3_1_1() {
    let mut peer = Peer::new(4, "disconnect-body");
    peer.send(&[0xE0, 1, 0]);
    peer.expect_end();
}

#[test]
fn reserved_bits_of_disconnect_must_be_zero() {
    for (level, flags) in LEVELS.into_iter().flat_map(|level| [1, 2, 4, 8].map(|flags| (level, flags))) {
        let topic = format!("disconnect/reserved/{level}/{flags}");
        let mut heir = Peer::new(level, &super::unique("disconnect-heir"));
        heir.subscribe(&topic, 0);
        let connect = Connect::new(level, super::unique("disconnect-reserved")).will(&topic, b"gone", 0, false);
        let (mut peer, _) = Peer::join(&connect);
        peer.send(&[0xE0 | flags, 0]);
        peer.expect_disconnect(&[0x81]);
        // It was no goodbye.
        heir.expect_publish(&topic, b"gone");
    }
}

#[test]
fn reasons_and_properties_of_servers_are_refused() {
    for body in [
        &[0x8B][..], // Server shutting down
        &[0x8E],     // Session taken over
        &[0x01],     // no reason at all
        &[0x00, 4, property::SERVER_REFERENCE, 0, 1, b'x'],
        &[0x00, 5, property::RECEIVE_MAXIMUM, 0, 1, 0, 0],
    ] {
        let mut peer = Peer::new(5, &super::unique("disconnect-refused"));
        peer.send(&packet(0xE0, body));
        peer.expect_disconnect(&[0x81, 0x82]);
    }
}

#[test]
fn a_disconnect_may_say_why() {
    for body in [
        &[][..],
        &[0x00],
        &[0x00, 0],
        &[0x00, 4, property::REASON_STRING, 0, 1, b'r'],
        &[0x00, 7, property::USER, 0, 1, b'k', 0, 1, b'v'],
    ] {
        let mut peer = Peer::new(5, &super::unique("disconnect-why"));
        peer.send(&packet(0xE0, body));
        peer.expect_end();
    }
}

#[test]
fn the_broker_s_disconnect_is_its_last_packet() {
    for level in LEVELS {
        let mut peer = Peer::new(level, &format!("disconnect-last-{level}"));
        peer.send(&[&PINGREQ[..], &[0xC1, 0], &PINGREQ, &PINGREQ].concat());
        // What came before the violation is still answered, what came behind it is not.
        peer.expect(&[0xD0, 0]);
        peer.expect_disconnect(&[0x81]);
    }
}

#[test]
fn the_broker_s_disconnect_holds_no_session_expiry() {
    let connect = Connect::new(5, "disconnect-expiry").resume();
    let (mut old, _) = Peer::join(&connect);
    let (mut new, _) = Peer::join(&connect);
    let packet = old.packet();
    assert_eq!((packet[0], packet[2]), (0xE0, 0x8E), "{packet:02x?}");
    assert_eq!(properties_behind(&packet, 0).one(property::SESSION_EXPIRY), None);
    old.expect_end();
    new.send(&[0x00, 0x00]);
    let packet = new.packet();
    assert_eq!((packet[0], packet[2]), (0xE0, 0x81), "{packet:02x?}");
    assert_eq!(properties_behind(&packet, 0).one(property::SESSION_EXPIRY), None);
    new.expect_end();
}

#[test]
fn no_disconnect_comes_before_a_connack() {
    for bytes in [&[0x00, 0][..], &[0xC1, 0], &[0x10, 0xFF, 0xFF, 0xFF, 0xFF], &[0xE0, 0], b"GET / HTTP/1.1\r\n\r\n"] {
        let mut peer = Peer::socket(5);
        peer.send(bytes);
        peer.expect_end();
    }
}

#[test]
fn a_property_of_disconnect_that_comes_twice_is_a_protocol_error() {
    let expiry = [property::SESSION_EXPIRY, 0, 0, 0, 9];
    let reason = [property::REASON_STRING, 0, 1, b'r'];
    for properties in [expiry.repeat(2), reason.repeat(2)] {
        let (mut peer, _) = Peer::join(&Connect::new(5, super::unique("disconnect-twice")).resume());
        peer.send(&packet(0xE0, &[&[0, properties.len() as u8][..], &properties].concat()));
        peer.expect_disconnect(&[0x82]);
    }
}
