//! Receive Maximum: what a 5.0 client may have unacknowledged, and who is not held to it [MQTT-3.3.4-7].

use super::*;

fn served_taking(receive_maximum: u16, options: MqttOptions) -> Served {
    served_with(1, options, Limits { receive_maximum, ..Limits::default() })
}

/// Makes a durable session that waits for `t` at QoS 2, so that acknowledgements wait for the disk.
fn leave_a_session(served: &Served) {
    let mut away = served.socket();
    away.send(&connect(4, 0, 0, "away"));
    away.packet();
    away.send(&subscribe(4, 1, "t", 2));
    away.expect(&[0x90, 3, 0, 1, 2]);
    away.send(&[0xE0, 0]);
    away.expect_end();
}

#[test]
fn one_publish_more_than_receive_maximum_closes_the_connection() {
    let served = served_taking(3, MqttOptions::default());
    for last in [0x32, 0x34] {
        let (mut client, connack) = served.v5_with("client", &[]);
        assert!(connack.windows(3).any(|bytes| bytes == [0x21, 0, 3]), "receive maximum in {connack:02x?}");
        for packet_id in 1..=3 {
            client.send(&publish(5, 0x34, "t", packet_id, b""));
            assert_eq!(client.packet()[0], 0x50);
        }
        client.send(&publish(5, last, "t", 4, b""));
        client.expect_disconnect(0x93);
        client.expect_end();
    }
}

#[test]
fn publishes_whose_acknowledgement_waits_for_the_disk_count_at_qos_1_too() {
    let served = served_taking(3, MqttOptions::default());
    leave_a_session(&served);
    let mut witness = served.v3("witness");
    witness.send(&subscribe(4, 1, "seen", 0));
    witness.packet();
    let mut v3 = served.v3("three");
    // With a will, which tells when its connection ends.
    let mut v5 = served.socket();
    let body = [&[0, 4][..], b"MQTT", &[5, 6, 0, 0, 0, 0, 4], b"five", &[0, 0, 4], b"seen", &[0, 3], b"end"].concat();
    v5.send(&frame(0x10, &body));
    v5.packet();
    // From now on no change becomes durable any more.
    served.driver.store().close().unwrap();
    for packet_id in 1..=3 {
        v5.send(&publish(5, 0x32, "t", packet_id, b""));
        v3.send(&publish(4, 0x32, "t", packet_id, b""));
    }
    v5.send(&publish(5, 0x30, "seen", 0, b"five"));
    witness.expect(&publish(4, 0x30, "seen", 0, b"five"));
    assert_eq!(served.counters.protocol_errors.value(), 0);
    v5.send(&publish(5, 0x32, "t", 4, b""));
    witness.expect(&publish(4, 0x30, "seen", 0, b"end"));
    assert_eq!(served.counters.protocol_errors.value(), 1);
    // A 3.1.1 client was told of no bound.
    v3.send(&publish(4, 0x32, "t", 4, b""));
    v3.send(&publish(4, 0x30, "seen", 0, b"three"));
    witness.expect(&publish(4, 0x30, "seen", 0, b"three"));
}

#[test]
fn whoever_keeps_to_receive_maximum_is_never_cut() {
    let served = served_taking(4, MqttOptions::default());
    leave_a_session(&served);
    let mut client = served.v5("client");
    let (mut sent, mut complete) = (0_u16, 0);
    while complete < 400 {
        while sent < 400 && sent - complete < 4 {
            sent += 1;
            // Every third at QoS 2, every seventh refused.
            let topic = if sent % 7 == 0 { "$t" } else { "t" };
            client.send(&publish(5, if sent % 3 == 0 { 0x34 } else { 0x32 }, topic, sent, b""));
        }
        let packet = client.packet();
        let refused = packet.get(4).is_some_and(|reason| *reason >= 0x80);
        match packet[0] {
            0x50 if !refused => client.send(&[0x62, 2, packet[2], packet[3]]),
            0x40 | 0x50 | 0x70 => complete += 1,
            _ => panic!("{packet:02x?}"),
        }
    }
    client.expect_silence();
}

#[test]
fn a_qos_2_publish_that_is_repeated_counts_once() {
    let served = served_taking(2, MqttOptions::default());
    let mut client = served.v5("client");
    for first in [0x34, 0x3C, 0x3C, 0x3C] {
        client.send(&publish(5, first, "t", 1, b""));
        client.expect(&[0x50, 3, 0, 1, 0x10][..if first == 0x34 { 5 } else { 0 }]);
        if first != 0x34 {
            client.expect(&[0x50, 2, 0, 1]);
        }
    }
    client.send(&publish(5, 0x32, "t", 2, b""));
    assert_eq!(client.packet()[0], 0x40);
    client.send(&[0x62, 2, 0, 1]);
    client.expect(&[0x70, 2, 0, 1]);
    client.expect_silence();
}

/// Section 4.9: the quota begins anew with each network connection.
#[test]
fn exchanges_of_an_earlier_connection_count_only_if_their_publish_comes_again() {
    let served = served_taking(2, MqttOptions::default());
    let connected = |flags: u8| {
        let mut client = served.socket();
        let mut connect = connect_with("client", &[0x11, 0, 0, 0, 99]);
        connect[9] = flags;
        client.send(&connect);
        client.packet();
        client
    };
    let mut client = connected(2);
    for packet_id in [1, 2] {
        client.send(&publish(5, 0x34, "t", packet_id, b""));
        client.packet();
    }
    drop(client);
    let mut client = connected(0);
    client.send(&publish(5, 0x3C, "t", 1, b""));
    client.expect(&[0x50, 2, 0, 1]);
    for packet_id in [1, 2] {
        client.send(&[0x62, 2, 0, packet_id]);
        client.expect(&[0x70, 2, 0, packet_id]);
    }
    for packet_id in [3, 4] {
        client.send(&publish(5, 0x34, "t", packet_id, b""));
        assert_eq!(client.packet()[0], 0x50);
    }
    client.send(&publish(5, 0x32, "t", 5, b""));
    client.expect_disconnect(0x93);
}

#[test]
fn a_3_1_1_client_has_as_many_exchanges_as_it_likes() {
    let served = served_taking(1, MqttOptions::default());
    let mut client = served.v3("three");
    for packet_id in 1..=20 {
        client.send(&publish(4, 0x34, "t", packet_id, b""));
        client.expect(&[0x50, 2, 0, packet_id as u8]);
    }
    client.expect_silence();
}
