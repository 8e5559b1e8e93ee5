//! What clients are told: Reason Strings, other servers, Response Information, and nothing larger than they take.

use super::*;

/// Request Problem Information 0.
const NO_REASONS: [u8; 2] = [0x17, 0];

/// Maximum Packet Size.
fn at_most(bytes: u8) -> [u8; 5] {
    [0x27, 0, 0, 0, bytes]
}

/// The property that begins with these bytes is in the packet.
#[track_caller]
fn has(packet: &[u8], property: &[u8]) {
    assert!(packet.windows(property.len()).any(|bytes| bytes == property), "{property:02x?} in {packet:02x?}");
}

/// Packets whose answers refuse, with the beginning of the answer and its reason.
fn refused() -> Vec<(Vec<u8>, u8, u8)> {
    vec![
        (publish(5, 0x32, "$x", 1, b""), 0x40, 0x87),
        (publish(5, 0x34, "$x", 1, b""), 0x50, 0x87),
        (vec![0x50, 2, 0, 9], 0x62, 0x92),
        (vec![0x62, 2, 0, 9], 0x70, 0x92),
        (subscribe(5, 1, "a/#/b", 0), 0x90, 0x8F),
        (subscribe(5, 1, "$share/g+/b", 0), 0x90, 0x8F),
    ]
}

/// [MQTT-3.1.2-29]
#[test]
fn refusals_say_why_to_clients_that_take_it() {
    let served = served();
    let (mut talkative, _) = served.v5_with("talkative", &[0x17, 1]);
    let (mut quiet, _) = served.v5_with("quiet", &NO_REASONS);
    let mut unsaid = served.v5("unsaid");
    for (sent, first, reason) in refused() {
        talkative.send(&sent);
        let packet = talkative.packet();
        assert_eq!(packet[0], first, "{packet:02x?}");
        assert!(packet.contains(&reason), "{packet:02x?}");
        let at = if first == 0x90 { 5 } else { 6 };
        assert_eq!(packet[at], 0x1F, "a reason string in {packet:02x?}");

        quiet.send(&sent);
        let expected: &[u8] = if first == 0x90 { &[0x90, 4, 0, 1, 0, reason] } else { &[first, 3, 0, sent[3], reason] };
        let packet = quiet.packet();
        assert_eq!((packet[0], packet.len(), packet.last()), (first, expected.len(), expected.last()), "{packet:02x?}");
    }
    // Who says nothing of it gets sentences, but not in the acknowledgement of a publish.
    for (sent, first, reason) in refused() {
        unsaid.send(&sent);
        let packet = unsaid.packet();
        if first == 0x90 {
            assert_eq!(packet[5], 0x1F, "a reason string in {packet:02x?}");
        } else {
            assert_eq!((packet[0], packet.len(), packet[4]), (first, 5, reason), "{packet:02x?}");
        }
    }
    // On DISCONNECT it is always allowed.
    for mut client in [talkative, quiet, unsaid] {
        client.send(&[0xC1, 0]);
        client.expect_disconnect(0x81);
        client.expect_end();
    }
}

/// [MQTT-3.4.2-2] [MQTT-3.5.2-2] [MQTT-3.6.2-2] [MQTT-3.7.2-2] [MQTT-3.9.2-1] [MQTT-3.14.2-3]
#[test]
fn reason_strings_are_left_out_where_they_do_not_fit() {
    let served = served();
    let (mut client, _) = served.v5_with("small", &[&[0x17, 1], &at_most(20)[..]].concat());
    for (sent, first, reason) in refused() {
        client.send(&sent);
        let packet = client.packet();
        assert_eq!((packet[0], packet.last()), (first, Some(&reason)), "{packet:02x?}");
        assert!(packet.len() <= 6, "{packet:02x?}");
    }
    client.send(&[0xC1, 0]);
    client.expect(&[0xE0, 2, 0x81, 0]);
    client.expect_end();
    // [MQTT-3.2.2-19]
    let mut client = served.socket();
    client.send(&connect_with("$small", &at_most(20)));
    client.expect(&[0x20, 3, 0, 0x85, 0]);
    client.expect_end();
}

/// [MQTT-3.1.2-24]
#[test]
fn what_cannot_fit_at_all_ends_the_connection() {
    let served = served();
    for first in [0x82, 0xA2] {
        let (mut client, _) = served.v5_with("small", &at_most(20));
        let filter: &[u8] = if first == 0x82 { &[0, 1, b'a', 0] } else { &[0, 1, b'a'] };
        for (count, is_told) in [(15, true), (16, false)] {
            client.send(&frame(first, &[&[0, 1, 0][..], &filter.repeat(count)].concat()));
            if is_told {
                assert_eq!(client.packet().len(), 20);
            } else {
                client.expect(&[0xE0, 2, 0x95, 0]);
                client.expect_end();
            }
        }
    }
    // CONNACK takes 16 bytes.
    served.v5_with("small", &at_most(16));
    let mut client = served.socket();
    client.send(&connect_with("small", &at_most(15)));
    client.expect(&[0x20, 3, 0, 0x95, 0]);
    client.expect_end();
    let mut client = served.socket();
    client.send(&connect_with("small", &at_most(4)));
    client.expect_end();
    // Nobody is left over.
    assert_eq!(served.driver.inspect(|broker| broker.statistics().connections), 0);
}

/// [MQTT-3.1.2-28]
#[test]
fn response_information_is_for_clients_that_ask() {
    let property = [0x1A, 0, 5, b'r', b'e', b'p', b'l', b'y'];
    let options = MqttOptions { response_information: Some("reply".into()), ..MqttOptions::default() };
    for (options, asked, expected) in [
        (options.clone(), &[0x19, 1][..], true),
        (options.clone(), &[0x19, 0], false),
        (options, &[], false),
        (MqttOptions::default(), &[0x19, 1], false),
    ] {
        let served = served_with(1, options, Limits::default());
        let (_, connack) = served.v5_with("five", asked);
        let found = connack.windows(property.len()).any(|bytes| bytes == property);
        assert_eq!(found, expected, "{connack:02x?}");
    }
}

/// Sections 3.2.2.3.16 and 4.11: to go there for now is Use another server.
#[test]
fn a_full_broker_names_another_server() {
    let reference = [&[0x1C, 0, 10][..], b"there:1883"].concat();
    for elsewhere in [None, Some("there:1883")] {
        let options = MqttOptions { server_reference: elsewhere.map(Into::into), ..MqttOptions::default() };
        let served = served_with(1, options, Limits { connections: 1, ..Limits::default() });
        let _first = served.v5("first");
        let mut v5 = served.socket();
        v5.send(&connect(5, 2, 0, "second"));
        let connack = v5.packet();
        if elsewhere.is_some() {
            assert_eq!((connack[0], connack[3]), (0x20, 0x9C), "{connack:02x?}");
            has(&connack, &reference);
        } else {
            assert_eq!((connack[0], connack[3]), (0x20, 0x97), "{connack:02x?}");
        }
        v5.expect_end();
        let mut v3 = served.socket();
        v3.send(&connect(4, 2, 0, "third"));
        v3.expect(&[0x20, 2, 0, 3]);
        v3.expect_end();
        // A client with another mistake is to mend it, not to go elsewhere.
        let mut wrong = served.socket();
        wrong.send(&connect(5, 2, 0, "$wrong"));
        assert_eq!(wrong.packet()[3], 0x85);
    }
}

/// Section 3.14.2.2.5
#[test]
fn a_stop_sends_clients_to_another_server() {
    let options = MqttOptions { server_reference: Some("there:1883".into()), ..MqttOptions::default() };
    let served = served_with(2, options, Limits::default());
    let (mut client, _) = served.v5_with("five", &[]);
    let (mut small, _) = served.v5_with("small", &at_most(20));
    let (mut tiny, _) = served.v5_with("tiny", &at_most(16));
    let mut v3 = served.v3("three");
    served.stop().unwrap();
    let packet = client.packet();
    assert_eq!((packet[0], packet[2]), (0xE0, 0x9C), "{packet:02x?}");
    has(&packet, &[&[0x1C, 0, 10][..], b"there:1883"].concat());
    client.expect_end();
    small.expect(&[&[0xE0, 15, 0x9C, 13, 0x1C, 0, 10][..], b"there:1883"].concat());
    tiny.expect(&[0xE0, 2, 0x9C, 0]);
    v3.expect_end();
}

#[test]
fn denied_filters_are_refused_without_their_neighbours() {
    let denied = vec![crate::config::Filter(vespiary_core::TopicFilter::parse("test/nosubscribe").unwrap())];
    let options = MqttOptions { denied_subscriptions: denied, ..MqttOptions::default() };
    let served = served_with(1, options, Limits::default());
    let filters = [&[0, 16][..], b"test/nosubscribe", &[2, 0, 1, b'a', 1]].concat();
    let mut v3 = served.v3("three");
    v3.send(&frame(0x82, &[&[0, 7][..], &filters].concat()));
    v3.expect(&[0x90, 4, 0, 7, 0x80, 1]);
    let (mut v5, _) = served.v5_with("five", &NO_REASONS);
    v5.send(&frame(0x82, &[&[0, 7, 0][..], &filters].concat()));
    v5.expect(&[0x90, 5, 0, 7, 0, 0x80, 1]);
    for (client, level) in [(&mut v3, 4), (&mut v5, 5)] {
        client.send(&publish(level, 0x30, "test/nosubscribe", 0, b"x"));
        client.expect_silence();
    }
}

/// [MQTT-4.8.2-1] [MQTT-4.8.2-2] [MQTT-3.8.3-4]
#[test]
fn shared_subscriptions_are_taken_in_either_protocol() {
    let served = served();
    let (mut v5, _) = served.v5_with("five", &NO_REASONS);
    v5.send(&subscribe(5, 1, "$share/group/t", 1));
    v5.expect(&[0x90, 4, 0, 1, 0, 1]);
    let mut v3 = served.v3("three");
    v3.send(&subscribe(4, 1, "$share/group/t", 1));
    v3.expect(&[0x90, 3, 0, 1, 1]);
    v3.send(&subscribe(4, 1, "$share//t", 1));
    v3.expect(&[0x90, 3, 0, 1, 0x80]);
    v5.send(&subscribe(5, 1, "$share/group/t", 1 | 4));
    v5.expect_disconnect(0x82);
    v5.expect_end();
}
