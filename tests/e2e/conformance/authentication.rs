//! Enhanced authentication and AUTH (sections 3.15 and 4.12), for methods that nothing answers for. Those that something
//! does are in `host/src/mqtt/tests/authenticating.rs`.

use super::packets::{Connect, PINGREQ, packet, property, publish, string};
use super::peer::Peer;

/// AUTH with a reason and an authentication method.
fn auth(reason: u8, method: &str) -> Vec<u8> {
    let properties = [&[property::AUTHENTICATION_METHOD][..], &string(method)].concat();
    packet(0xF0, &[&[reason, properties.len() as u8][..], &properties].concat())
}

#[test]
fn a_method_that_the_broker_does_not_know_is_refused() {
    let connect = Connect::new(5, "auth-unknown").property(property::AUTHENTICATION_METHOD, &string("NO-SUCH-METHOD"));
    for connect in [connect.clone(), connect.property(property::AUTHENTICATION_DATA, &string([1, 2, 3]))] {
        let (mut peer, connack) = Peer::join(&connect);
        assert_eq!((connack.flags, connack.reason), (0, 0x8C));
        peer.expect_end();
    }
}

#[test]
fn data_without_a_method_is_a_protocol_error() {
    let connect = Connect::new(5, "auth-data").property(property::AUTHENTICATION_DATA, &string([1, 2, 3]));
    let (mut peer, connack) = Peer::join(&connect);
    assert_eq!((connack.flags, connack.reason), (0, 0x82));
    peer.expect_end();
}

#[test]
fn a_client_without_a_method_hears_of_none_and_may_not_speak_of_one() {
    for bytes in [auth(0x18, "METHOD"), auth(0x19, "METHOD"), packet(0xF0, &[]), packet(0xF0, &[0, 0])] {
        let (mut peer, connack) = Peer::join(&Connect::new(5, super::unique("auth-none")));
        assert_eq!(connack.reason, 0);
        assert_eq!(connack.properties.one(property::AUTHENTICATION_METHOD), None);
        assert_eq!(connack.properties.one(property::AUTHENTICATION_DATA), None);
        peer.expect_silence();
        peer.send(&bytes);
        peer.expect_disconnect(&[0x82]);
    }
}

#[test]
fn reserved_bits_of_auth_must_be_zero() {
    for flags in [1, 2, 4, 8] {
        let mut peer = Peer::new(5, &super::unique("auth-flags"));
        peer.send(&[&[0xF0 | flags], &auth(0x19, "METHOD")[1..]].concat());
        peer.expect_disconnect(&[0x81]);
    }
}

#[test]
fn auth_does_not_open_a_connection() {
    let mut peer = Peer::socket(5);
    peer.send(&[auth(0x18, "METHOD"), Connect::new(5, "auth-first").bytes()].concat());
    peer.expect_end();
}

#[test]
fn nothing_behind_a_refused_method_is_processed() {
    let mut peer = Peer::socket(5);
    let connect = Connect::new(5, "auth-behind").property(property::AUTHENTICATION_METHOD, &string("NO-SUCH-METHOD"));
    let retained = publish(5, 0x31, "auth/behind", 0, b"smuggled");
    peer.send(&[connect.bytes(), auth(0x18, "NO-SUCH-METHOD"), retained, PINGREQ.to_vec()].concat());
    assert_eq!(peer.connack().reason, 0x8C);
    peer.expect_end();
    let mut watcher = Peer::new(5, "auth-watcher");
    watcher.subscribe("auth/behind", 0);
    watcher.expect_silence();
}
