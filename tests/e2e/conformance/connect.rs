//! CONNECT and CONNACK (sections 3.1 and 3.2), but for sessions and wills.

use super::LEVELS;
use super::packets::{Connect, PINGREQ, PINGRESP, packet, property, publish, string, subscribe};
use super::peer::Peer;

/// A CONNECT that breaks its format: 3.1.1 closes without a word, 5.0 says so.
#[track_caller]
fn check_malformed(level: u8, bytes: &[u8], reasons: &[u8]) {
    let mut peer = Peer::socket(level);
    peer.send(bytes);
    if level == 5 {
        let connack = peer.connack();
        assert_eq!(connack.flags, 0);
        assert!(reasons.contains(&connack.reason), "{connack:?} for {bytes:02x?}");
    }
    peer.expect_end();
}

/// CONNECT with these flags and what follows the client identifier `connect-raw`.
fn raw(level: u8, flags: u8, behind: &[u8]) -> Vec<u8> {
    let properties: &[u8] = if level == 5 { &[0] } else { &[] };
    packet(0x10, &[&string("MQTT")[..], &[level, flags, 0, 0], properties, &string("connect-raw"), behind].concat())
}

#[test]
fn nothing_but_connect_opens_a_connection() {
    for level in LEVELS {
        for bytes in [
            PINGREQ.to_vec(),
            publish(level, 0x30, "connect/first", 0, b""),
            subscribe(level, 1, &[("connect/first", 0)]),
            vec![0xE0, 0],
            vec![0xF0, 0],
        ] {
            let mut peer = Peer::socket(level);
            peer.send(&[bytes, Connect::new(level, "connect-first").bytes()].concat());
            peer.expect_end();
        }
    }
}

#[test]
fn a_second_connect_is_a_protocol_error() {
    for level in LEVELS {
        let mut peer = Peer::new(level, &format!("connect-second-{level}"));
        peer.send(&Connect::new(level, format!("connect-second-{level}")).bytes());
        peer.expect_disconnect(&[0x82]);
    }
}

#[test]
fn another_protocol_is_not_served() {
    for level in LEVELS {
        for name in ["MQTX", "mqtt", "MQTTT", ""] {
            let mut peer = Peer::socket(level);
            let body = [&string(name)[..], &[level, 2, 0, 0, 0], &string("connect-protocol")].concat();
            peer.send(&packet(0x10, &body));
            // A CONNACK with Unsupported Protocol Version may come before the end.
            if let Some(answer) = peer.next() {
                assert!(answer[0] == 0x20 && [0x01, 0x84].contains(&answer[3]), "{answer:02x?}");
                peer.expect_end();
            }
        }
    }
}

#[test]
fn the_reserved_flag_must_be_zero() {
    for level in LEVELS {
        check_malformed(level, &raw(level, 0x03, &[]), &[0x81]);
    }
}

#[test]
fn flags_and_fields_agree() {
    let will_properties = |level: u8| if level == 5 { vec![0] } else { vec![] };
    let will = |level: u8| [will_properties(level), string("connect/will"), string("gone")].concat();
    for level in LEVELS {
        for (what, flags, behind) in [
            ("a will flag and no will", 0x06, vec![]),
            ("a will topic and no payload", 0x06, [will_properties(level), string("connect/will")].concat()),
            ("a will and no will flag", 0x02, will(level)),
            ("will QoS and no will", 0x0A, vec![]),
            ("will retain and no will", 0x22, vec![]),
            ("will QoS 3", 0x1E, will(level)),
            ("a user name flag and no user name", 0x82, vec![]),
            ("a user name and no flag", 0x02, string("user")),
            ("user name and password flags and no password", 0xC2, string("user")),
            ("a password and no flag", 0x82, [string("user"), string("secret")].concat()),
        ] {
            println!("{level}: {what}");
            check_malformed(level, &raw(level, flags, &behind), &[0x81, 0x82]);
        }
    }
}

#[test]
fn a_password_without_user_name_is_for_5_0_only() {
    check_malformed(4, &raw(4, 0x42, &string("secret")), &[]);
    let (peer, connack) = Peer::join(&Connect::new(5, "connect-password").password(b"secret"));
    assert_eq!(connack.reason, 0);
    peer.leave();
}

#[test]
fn a_connect_without_a_client_identifier_field_is_malformed() {
    for level in LEVELS {
        let properties: &[u8] = if level == 5 { &[0] } else { &[] };
        let body = [&string("MQTT")[..], &[level, 2, 0, 0], properties].concat();
        check_malformed(level, &packet(0x10, &body), &[0x81]);
    }
}

#[test]
fn the_fields_are_read_in_their_order() {
    for level in LEVELS {
        let topic = format!("connect/order/{level}");
        let mut heir = Peer::new(level, &format!("connect-heir-{level}"));
        heir.subscribe(&topic, 0);
        let connect = Connect::new(level, format!("connect-order-{level}"))
            .will(&topic, b"will payload", 0, false)
            .user_name(b"user")
            .password(b"\xFFsecret\0");
        let (peer, connack) = Peer::join(&connect);
        assert_eq!(connack.reason, 0);
        drop(peer);
        heir.expect_publish(&topic, b"will payload");
    }
}

#[test]
fn client_identifiers_of_letters_and_digits_are_taken() {
    for level in LEVELS {
        for name in ["0", "0123456789abcdefghijklm", "nopqrstuvwxyzABCDEFGHIJ", "KLMNOPQRSTUVWXYZ0123456"] {
            Peer::new(level, name).leave();
        }
    }
}

#[test]
fn a_client_without_a_name_is_given_one() {
    let (first, one) = Peer::join(&Connect::new(5, ""));
    let (second, other) = Peer::join(&Connect::new(5, "").resume());
    let name = |connack: &super::peer::Connack| {
        let value = connack.properties.one(property::ASSIGNED_CLIENT_IDENTIFIER).expect("a name");
        value[2..].to_vec()
    };
    assert!(!name(&one).is_empty());
    assert_ne!(name(&one), name(&other));
    assert_eq!((one.flags, one.reason, other.flags, other.reason), (0, 0, 0, 0));
    first.leave();
    second.leave();
    // It is a name like any other: its session can be resumed.
    let (third, again) = Peer::join(&Connect::new(5, name(&other)).resume());
    assert_eq!((again.flags, again.reason), (1, 0));
    assert_eq!(again.properties.one(property::ASSIGNED_CLIENT_IDENTIFIER), None);
    third.leave();

    // In 3.1.1 it is not told, and it must ask for a clean session.
    let (fourth, connack) = Peer::join(&Connect::new(4, ""));
    assert_eq!((connack.flags, connack.reason), (0, 0));
    let mut fifth = Peer::new(4, "connect-named");
    fifth.expect_silence();
    fourth.leave();
    let (mut refused, connack) = Peer::join(&Connect::new(4, "").resume());
    assert_eq!((connack.flags, connack.reason), (0, 2));
    refused.expect_end();
}

#[test]
fn a_refused_client_identifier_is_named_as_the_reason() {
    for (level, reason) in [(4, 0x02), (5, 0x85)] {
        let (mut peer, connack) = Peer::join(&Connect::new(level, "$plugin/x"));
        assert_eq!((connack.flags, connack.reason), (0, reason));
        peer.expect_end();
    }
}

#[test]
fn nothing_behind_a_refused_connect_is_processed() {
    for level in LEVELS {
        let topic = format!("connect/refused/{level}");
        let mut peer = Peer::socket(level);
        let refused = Connect::new(level, "$plugin/x").bytes();
        peer.send(&[refused, publish(level, 0x31, &topic, 0, b"smuggled"), PINGREQ.to_vec()].concat());
        assert!(peer.connack().reason > 0);
        peer.expect_end();
        let mut watcher = Peer::new(level, &format!("connect-watcher-{level}"));
        watcher.subscribe(&topic, 0);
        watcher.expect_silence();
    }
}

#[test]
fn a_refusal_says_no_session_even_where_there_is_one() {
    for level in LEVELS {
        let name = format!("connect-present-{level}");
        let (peer, _) = Peer::join(&Connect::new(level, &name).resume());
        peer.leave();
        // The session is there, and the will's topic is not allowed.
        let mut peer = Peer::socket(level);
        peer.send(&Connect::new(level, &name).resume().will("connect/#", b"", 0, false).bytes());
        if level == 5 {
            let connack = peer.connack();
            assert_eq!((connack.flags, connack.reason), (0, 0x90));
        }
        peer.expect_end();
        let (peer, connack) = Peer::join(&Connect::new(level, &name).resume());
        assert_eq!(connack.flags, 1, "the session is still there");
        peer.leave();
    }
}

#[test]
fn connack_comes_first_and_once() {
    for level in LEVELS {
        let mut peer = Peer::socket(level);
        let name = format!("connect-once-{level}");
        peer.send(
            &[
                Connect::new(level, &name).bytes(),
                subscribe(level, 1, &[("connect/once", 0)]),
                publish(level, 0x30, "connect/once", 0, b"early"),
                PINGREQ.to_vec(),
            ]
            .concat(),
        );
        assert_eq!(peer.connack().reason, 0);
        assert_eq!(peer.reasons(0x90, 1), [0]);
        peer.expect_publish("connect/once", b"early");
        peer.expect(&PINGRESP);
        peer.expect_silence();
        peer.leave();
    }
}

#[test]
fn a_connack_of_3_1_1_has_two_bytes() {
    let mut peer = Peer::socket(4);
    peer.send(&Connect::new(4, "connect-bytes").bytes());
    peer.expect(&[0x20, 2, 0, 0]);
}

#[test]
fn connack_takes_back_nothing_that_the_broker_does() {
    let (mut peer, connack) = Peer::join(&Connect::new(5, "connect-offers"));
    for id in [
        property::MAXIMUM_QOS,
        property::RETAIN_AVAILABLE,
        property::WILDCARD_SUBSCRIPTION_AVAILABLE,
        property::SUBSCRIPTION_IDENTIFIER_AVAILABLE,
        property::SERVER_KEEP_ALIVE,
    ] {
        // A missing property, or one that says 1, is an offer; Maximum QoS may not be 2, so it may not be there.
        assert!(matches!(connack.properties.one(id), None | Some([1])), "property {id:#x} in {connack:?}");
    }
    assert_eq!(connack.properties.one(property::MAXIMUM_QOS), None);
    peer.send(&publish(5, 0x34, "connect/offers", 1, b""));
    peer.expect_acknowledgement(0x50, 1, 0x10);
}

#[test]
fn connect_takes_every_property_that_it_may_have() {
    let connect = Connect::new(5, "connect-every-property")
        .property(property::SESSION_EXPIRY, &[0, 0, 0, 9])
        .property(property::RECEIVE_MAXIMUM, &[0, 9])
        .property(property::MAXIMUM_PACKET_SIZE, &[0, 1, 0, 0])
        .property(property::TOPIC_ALIAS_MAXIMUM, &[0, 9])
        .property(property::REQUEST_RESPONSE_INFORMATION, &[1])
        .property(property::REQUEST_PROBLEM_INFORMATION, &[1])
        .property(property::USER, &[0, 1, b'k', 0, 1, b'v'])
        .property(property::USER, &[0, 1, b'k', 0, 1, b'v']);
    let (peer, connack) = Peer::join(&connect);
    assert_eq!(connack.reason, 0);
    peer.leave();
}

#[test]
fn other_qualities_of_a_connection_do_not_outlive_it() {
    // Maximum Packet Size and Receive Maximum are of the connection, not of the session.
    let small = Connect::new(5, "connect-qualities")
        .resume()
        .property(property::MAXIMUM_PACKET_SIZE, &[0, 0, 0, 50])
        .property(property::RECEIVE_MAXIMUM, &[0, 1]);
    let (mut peer, _) = Peer::join(&small);
    peer.subscribe("connect/qualities", 1);
    peer.leave();
    let (mut peer, _) = Peer::join(&Connect::new(5, "connect-qualities").resume());
    let mut sender = Peer::new(5, "connect-qualities-from");
    for _ in 0..3 {
        sender.publish_acknowledged("connect/qualities", &[7; 200]);
    }
    for _ in 0..3 {
        peer.expect_publish("connect/qualities", &[7; 200]);
    }
}

#[test]
fn properties_of_connect_come_once_and_hold_what_they_may() {
    let interval = [0, 0, 0, 9];
    let mut wrong = Vec::new();
    for (what, connect, reasons) in [
        ("session expiry twice", twice(property::SESSION_EXPIRY, &interval), &[0x82][..]),
        ("receive maximum twice", twice(property::RECEIVE_MAXIMUM, &[0, 9]), &[0x82]),
        ("receive maximum 0", once(property::RECEIVE_MAXIMUM, &[0, 0]), &[0x82]),
        ("maximum packet size twice", twice(property::MAXIMUM_PACKET_SIZE, &interval), &[0x82]),
        ("maximum packet size 0", once(property::MAXIMUM_PACKET_SIZE, &[0, 0, 0, 0]), &[0x82]),
        ("topic alias maximum twice", twice(property::TOPIC_ALIAS_MAXIMUM, &[0, 9]), &[0x82]),
        ("request response information twice", twice(property::REQUEST_RESPONSE_INFORMATION, &[1]), &[0x82]),
        ("request response information 2", once(property::REQUEST_RESPONSE_INFORMATION, &[2]), &[0x82]),
        ("request problem information twice", twice(property::REQUEST_PROBLEM_INFORMATION, &[1]), &[0x82]),
        ("request problem information 2", once(property::REQUEST_PROBLEM_INFORMATION, &[2]), &[0x82]),
        ("a property of PUBLISH", once(property::TOPIC_ALIAS, &[0, 1]), &[0x81, 0x82]),
        ("a property that there is not", once(0x7F, &[0]), &[0x81]),
    ] {
        let found = refusal(&connect);
        if !reasons.contains(&found) {
            wrong.push(format!("{what}: {found:#x}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The reason with which a CONNECT of 5.0 is refused; 0 where it is not.
fn refusal(connect: &Connect) -> u8 {
    let (mut peer, connack) = Peer::join(connect);
    if connack.reason > 0 {
        peer.expect_end();
    }
    connack.reason
}

fn once(id: u8, value: &[u8]) -> Connect {
    Connect::new(5, "connect-properties").property(id, value)
}

fn twice(id: u8, value: &[u8]) -> Connect {
    once(id, value).property(id, value)
}

#[test]
fn properties_of_a_will_come_once_and_hold_what_they_may() {
    let will = || Connect::new(5, "connect-will-properties").will("connect/will", b"gone", 0, false);
    let mut wrong = Vec::new();
    for (what, id, value, count, reasons) in [
        ("will delay twice", property::WILL_DELAY, &[0, 0, 0, 9][..], 2, &[0x82][..]),
        ("payload format twice", property::PAYLOAD_FORMAT, &[1], 2, &[0x82]),
        ("payload format 2", property::PAYLOAD_FORMAT, &[2], 1, &[0x81, 0x82, 0x99]),
        ("message expiry twice", property::MESSAGE_EXPIRY, &[0, 0, 0, 9], 2, &[0x82]),
        ("message expiry 0", property::MESSAGE_EXPIRY, &[0, 0, 0, 0], 1, &[0]),
        ("content type twice", property::CONTENT_TYPE, &[0, 1, b't'], 2, &[0x82]),
        ("response topic twice", property::RESPONSE_TOPIC, &[0, 1, b't'], 2, &[0x82]),
        ("a response topic with a wildcard", property::RESPONSE_TOPIC, &[0, 1, b'#'], 1, &[0x81, 0x82, 0x90]),
        ("correlation data twice", property::CORRELATION_DATA, &[0, 1, 9], 2, &[0x82]),
        ("a property of PUBLISH alone", property::TOPIC_ALIAS, &[0, 1], 1, &[0x81, 0x82]),
    ] {
        let found = refusal(&(0..count).fold(will(), |connect, _| connect.will_property(id, value)));
        if !reasons.contains(&found) {
            wrong.push(format!("{what}: {found:#x}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn connack_keeps_to_the_client_s_maximum_packet_size() {
    // Any CONNACK has at least five bytes; properties for which there is no room are left out, or nobody is let in.
    for maximum in 5..40_u32 {
        let mut peer = Peer::socket(5);
        let connect = Connect::new(5, "connect-small").property(property::MAXIMUM_PACKET_SIZE, &maximum.to_be_bytes());
        peer.send(&connect.bytes());
        if let Some(connack) = peer.next() {
            assert!(connack.len() <= maximum as usize, "{connack:02x?} for a client that takes {maximum} bytes");
        }
    }
}
