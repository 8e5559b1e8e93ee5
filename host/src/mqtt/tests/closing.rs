//! How connections end.

use super::*;

#[test]
fn who_breaks_the_protocol_is_told_why_if_it_can_be_told() {
    let served = served();
    for (bytes, reason) in [
        (connect(5, 2, 0, "again"), 0x82),
        (vec![0xC1, 0], 0x81),
        (vec![0xC0, 0x80, 0x00], 0x81),
        (vec![0xC0, 1, 0], 0x81),
        (vec![0xD0, 0], 0x82),
        (vec![0xF0, 0], 0x82),
        (vec![0x30, 0x81, 0x80, 0x40], 0x95),
        (vec![0x36, 6, 0, 1, b'a', 0, 1, 0], 0x81),
        (vec![0x30, 4, 0, 16, b'a', 0, 0x30, 4, 0, 1, b'a', 0], 0x81),
        (vec![0x30, 4, 0, 1, b'#', 0], 0x90),
        (vec![0x30, 7, 0, 1, b'a', 3, 0x23, 0, 17], 0x94),
        (vec![0x30, 7, 0, 1, b'a', 2, 1, 1, 0xFF], 0x99),
        (vec![0x82, 3, 0, 1, 0], 0x82),
    ] {
        let mut client = served.v5("five");
        client.send(&bytes);
        let packet = client.packet();
        assert_eq!((packet[0], packet[2]), (0xE0, reason), "{bytes:02x?}: {packet:02x?}");
        client.expect_end();

        // 3.1.1 has no properties, so these two are payload there.
        if !matches!(reason, 0x94 | 0x99) {
            let mut client = served.v3("three");
            client.send(&bytes);
            client.expect_end();
        }
    }
    assert_eq!(served.counters.protocol_errors.value(), 24);
}

#[test]
fn what_came_before_a_violation_is_still_answered() {
    let served = served();
    let mut client = served.v5("five");
    let sent =
        [publish(5, 0x32, "t", 1, b""), vec![0xC0, 0], publish(5, 0x32, "t", 2, b""), vec![0xC1, 0], vec![0xC0, 0]];
    client.send(&sent.concat());
    for (first, packet_id) in [(0x40, 1), (0xD0, 0), (0x40, 2), (0xE0, 0)] {
        let packet = client.packet();
        assert_eq!(packet[0], first, "{packet:02x?}");
        if packet_id > 0 {
            assert_eq!(packet[3], packet_id);
        }
    }
    client.expect_end();
}

#[test]
fn a_second_client_of_the_same_name_takes_over() {
    let served = served();
    let mut old_v5 = served.v5("same");
    let mut old_v3 = served.v3("same");
    old_v5.expect_disconnect(0x8E);
    old_v5.expect_end();
    let mut new = served.v5("same");
    old_v3.expect_end();
    new.expect_silence();
}

#[test]
fn a_client_that_falls_silent_is_lost_and_its_will_published() {
    let served = served();
    let mut heir = served.v3("heir");
    heir.send(&subscribe(4, 1, "will", 0));
    heir.packet();
    let mut silent = served.socket();
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 5, 6, 0, 1, 0, 0, 1, b's', 0, 0, 4];
    body.extend(b"will\0\x02ha");
    silent.send(&frame(0x10, &body));
    silent.packet();
    silent.expect_disconnect(0x8D);
    silent.expect_end();
    heir.expect(&publish(4, 0x30, "will", 0, b"ha"));
    assert_eq!(served.counters.timeouts.value(), 1);
}

#[test]
fn a_socket_that_says_nothing_is_closed() {
    let options = MqttOptions { connect_timeout_ms: 100, ..MqttOptions::default() };
    let served = served_with(1, options, Limits::default());
    let mut client = served.socket();
    client.send(&[0x10]);
    client.expect_gone();
    assert_eq!(served.counters.timeouts.value(), 1);
}

#[test]
fn sockets_without_connect_are_bounded() {
    let options = MqttOptions { connecting_sockets: 2, ..MqttOptions::default() };
    let served = served_with(1, options, Limits::default());
    let (mut first, second, mut third) = (served.socket(), served.socket(), served.socket());
    third.expect_gone();
    drop(second);
    first.send(&connect(4, 2, 0, "first"));
    first.expect(&[0x20, 2, 0, 0]);
    served.v3("fourth");
}

#[test]
fn disconnect_ends_a_connection_without_its_will() {
    let served = served();
    let mut heir = served.v3("heir");
    heir.send(&subscribe(4, 1, "will", 0));
    heir.packet();
    for (goodbye, published) in [(&[0xE0, 0][..], false), (&[0xE0, 1, 4], true)] {
        let mut leaving = served.socket();
        let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 5, 6, 0, 0, 0, 0, 1, b's', 0, 0, 4];
        body.extend(b"will\0\x02ha");
        leaving.send(&frame(0x10, &body));
        leaving.packet();
        leaving.send(goodbye);
        leaving.expect_end();
        if published {
            heir.expect(&publish(4, 0x30, "will", 0, b"ha"));
        } else {
            heir.expect_silence();
        }
    }
}

#[test]
fn a_stop_says_goodbye() {
    let served = served_with(2, MqttOptions::default(), Limits::default());
    let mut v5: Vec<_> = (0..4).map(|index| served.v5(&format!("five{index}"))).collect();
    let mut v3 = served.v3("three");
    served.stop().unwrap();
    for client in &mut v5 {
        client.expect_disconnect(0x8B);
        client.expect_end();
    }
    v3.expect_end();
}
