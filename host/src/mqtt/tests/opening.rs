//! CONNECT, and what comes instead of it.

use super::*;

#[test]
fn a_client_is_let_in_and_told_what_the_broker_takes() {
    let served = served();
    let mut client = served.socket();
    client.send(&connect(4, 2, 60, "three"));
    client.expect(&[0x20, 2, 0, 0]);
    client.expect_silence();

    let mut client = served.socket();
    client.send(&connect(5, 2, 60, "five"));
    client.expect(&[
        0x20, 14, 0, 0, 11, // CONNACK, no session, success, properties
        0x21, 4, 0, // Receive Maximum 1024
        0x27, 0, 16, 0, 0, // Maximum Packet Size 1 MiB
        0x22, 0, 16, // Topic Alias Maximum
    ]);
    client.expect_silence();
}

#[test]
fn a_client_without_a_name_gets_one_and_one_without_keep_alive_gets_the_broker_s() {
    let options = MqttOptions { keep_alive_maximum_s: Some(300), ..MqttOptions::default() };
    let served = served_with(1, options, Limits::default());
    let mut client = served.socket();
    client.send(&connect(5, 2, 0, ""));
    let connack = client.packet();
    let assigned = connack.windows(3).position(|bytes| bytes == [0x12, 0, 32]).expect("an assigned client identifier");
    let name = &connack[assigned + 3..assigned + 35];
    assert!(name.iter().all(u8::is_ascii_hexdigit), "{name:?}");
    assert!(connack.windows(3).any(|bytes| bytes == [0x13, 1, 44]), "server keep alive in {connack:02x?}");

    let mut client = served.socket();
    client.send(&connect(4, 2, 0, ""));
    client.expect(&[0x20, 2, 0, 0]);
}

#[test]
fn what_is_no_connect_gets_no_answer() {
    let served = served();
    for bytes in [
        &[0xC0, 0][..],
        &publish(4, 0x30, "t", 0, b"x"),
        b"GET / HTTP/1.1\r\n\r\n",
        &[0x10, 0xFF, 0xFF, 0xFF, 0x7F],
        &frame(0x10, &[0; 70_000]),
    ] {
        let mut client = served.socket();
        // The broker may close before it has read all.
        let _ = client.stream.write_all(bytes);
        client.expect_gone();
    }
    assert_eq!(served.counters.protocol_errors.value(), 5);
}

#[test]
fn other_versions_are_refused_in_a_form_they_understand() {
    let served = served();
    let mqisdp = [&[0x10, 13, 0, 6][..], b"MQIsdp", &[3, 2, 0, 60, 0]].concat();
    for (bytes, reason) in [
        ([&mqisdp[..], &[0]].concat(), 1),
        (connect(3, 2, 60, "a"), 1),
        (connect(6, 2, 60, "a"), 0x84),
        (connect(4, 0, 60, ""), 2),
        (connect(5, 2, 60, "$plugin/x"), 0x85),
        (connect(5, 3, 60, "a"), 0x81),
    ] {
        let mut bytes = bytes;
        if bytes[3] == 6 {
            bytes[1] = (bytes.len() - 2) as u8;
        }
        let mut client = served.socket();
        client.send(&bytes);
        let packet = client.packet();
        assert_eq!((packet[0], packet[2], packet[3]), (0x20, 0, reason), "{packet:02x?}");
        // The 5.0 form has properties, of which the Reason String is one.
        assert_eq!(packet.get(5), if reason < 0x80 { None } else { Some(&0x1F) }, "{packet:02x?}");
        client.expect_end();
    }
}

#[test]
fn a_session_is_kept_where_it_is_asked_for() {
    let served = served();
    for present in [0, 1] {
        let mut client = served.socket();
        client.send(&connect(4, 0, 60, "kept"));
        client.expect(&[0x20, 2, present, 0]);
        client.send(&[0xE0, 0]);
        client.expect_end();
    }
}

#[test]
fn a_packet_may_come_byte_by_byte_and_many_may_come_at_once() {
    let served = served();
    let mut client = served.socket();
    let all = [
        connect(4, 2, 60, "slow"),
        vec![0xC0, 0],
        subscribe(4, 1, "t", 1),
        publish(4, 0x32, "t", 5, b"hello"),
        vec![0xC0, 0],
    ]
    .concat();
    let answers = [
        &[0x20, 2, 0, 0][..],
        &[0xD0, 0],
        &[0x90, 3, 0, 1, 1],
        &[0x40, 2, 0, 5],
        &publish(4, 0x32, "t", 1, b"hello"),
        &[0xD0, 0],
    ];
    for byte in &all {
        client.send(&[*byte]);
    }
    let mut found: Vec<_> = answers.iter().map(|_| client.packet()).collect();
    // PUBACK and the delivery may come in either order.
    found[3..5].sort_by_key(|packet| std::cmp::Reverse(packet[0]));
    assert_eq!(found, answers);

    let mut client = served.socket();
    client.send(&all);
    let mut found: Vec<_> = answers.iter().map(|_| client.packet()).collect();
    found[3..5].sort_by_key(|packet| std::cmp::Reverse(packet[0]));
    assert_eq!(found, answers);
}
