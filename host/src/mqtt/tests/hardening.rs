//! What a codec would let through, sent as bytes: each ends its connection, with the reason, and nothing else.

use super::*;

/// Who is to send the bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum From {
    V3,
    V5,
    Both,
}

/// Sends bytes after CONNECT, and a PINGREQ behind them that must go unanswered. 5.0 is told the reason.
#[track_caller]
fn check(table: &[(&str, From, &[u8], u8)]) {
    let served = served();
    // Whatever happens elsewhere, this client notices nothing.
    let mut bystander = served.v3("bystander");
    bystander.send(&subscribe(4, 1, "#", 0));
    bystander.packet();
    for (what, from, bytes, reason) in table {
        let sent = [bytes, &[0xC0, 0][..]].concat();
        if *from != From::V3 {
            let mut client = served.v5("five");
            client.send(&sent);
            let packet = client.packet();
            assert_eq!((packet[0], packet[2]), (0xE0, *reason), "{what}: {bytes:02x?}: {packet:02x?}");
            client.expect_end();
        }
        if *from != From::V5 {
            let mut client = served.v3("three");
            client.send(&sent);
            client.expect_end();
        }
    }
    bystander.expect_silence();
}

#[test]
fn lengths_that_lie_swallow_nothing() {
    check(&[
        ("a topic past the frame", From::Both, &[0x30, 4, 0, 16, b'a', b'b', 0x30, 4, 0, 1, b'a', b'x'], 0x81),
        ("a topic past everything", From::Both, &[0x30, 2, 0xFF, 0xFF], 0x81),
        ("half a topic length", From::Both, &[0x30, 1, 0], 0x81),
        ("properties past the frame", From::V5, &[0x30, 5, 0, 1, b'a', 99, 1], 0x81),
        ("no property length", From::V5, &[0x30, 3, 0, 1, b'a'], 0x81),
        ("a property past its list", From::V5, &[0x30, 7, 0, 1, b'a', 3, 3, 0, 9], 0x81),
        ("no packet identifier", From::Both, &[0x32, 3, 0, 1, b'a'], 0x81),
        ("a filter past the frame", From::V3, &[0x82, 6, 0, 1, 0, 9, b'a', 0], 0x81),
        ("a filter past the frame", From::V5, &[0x82, 7, 0, 1, 0, 0, 9, b'a', 0], 0x81),
        ("a filter past the frame", From::V5, &[0xA2, 6, 0, 1, 0, 0, 9, b'a'], 0x81),
        ("subscribe properties past the frame", From::V5, &[0x82, 7, 0, 1, 99, 0, 1, b'a', 0], 0x81),
        ("an acknowledgement of one byte", From::Both, &[0x40, 1, 0], 0x81),
        ("an acknowledgement of three in 3.1.1", From::V3, &[0x40, 3, 0, 1, 0], 0x81),
        ("bytes behind the properties", From::V5, &[0x40, 5, 0, 1, 0, 0, 0], 0x81),
        ("an overlong remaining length", From::Both, &[0xC0, 0x80, 0x00], 0x81),
        ("a remaining length of five bytes", From::Both, &[0xC0, 0x80, 0x80, 0x80, 0x80, 0x01], 0x81),
        ("an overlong property length", From::V5, &[0x30, 5, 0, 1, b'a', 0x80, 0], 0x81),
    ]);
}

/// [MQTT-2.1.3-1] [MQTT-3.8.3-5] [MQTT-3.3.1-2] [MQTT-3.3.1-4]
#[test]
fn reserved_bits_and_flags_that_contradict_each_other_end_the_connection() {
    check(&[
        ("type 0", From::Both, &[0x00, 0], 0x81),
        ("flags of PUBACK", From::Both, &[0x41, 2, 0, 1], 0x81),
        ("flags of PUBREL", From::Both, &[0x60, 2, 0, 1], 0x81),
        ("flags of SUBSCRIBE", From::Both, &[0x80, 6, 0, 1, 0, 1, b'a', 0], 0x81),
        ("flags of UNSUBSCRIBE", From::Both, &[0xA0, 5, 0, 1, 0, 1, b'a'], 0x81),
        ("flags of PINGREQ", From::Both, &[0xC1, 0], 0x81),
        ("flags of DISCONNECT", From::Both, &[0xE1, 0], 0x81),
        ("QoS 3", From::Both, &[0x36, 6, 0, 1, b'a', 0, 1, 0], 0x81),
        ("DUP at QoS 0", From::Both, &[0x38, 4, 0, 1, b'a', 0], 0x81),
        ("options of 3.1.1", From::V3, &[0x82, 6, 0, 1, 0, 1, b'a', 4], 0x81),
        ("options of 5.0", From::V5, &[0x82, 7, 0, 1, 0, 0, 1, b'a', 0x80], 0x81),
        ("subscribing at QoS 3", From::V3, &[0x82, 6, 0, 1, 0, 1, b'a', 3], 0x82),
        ("subscribing at QoS 3", From::V5, &[0x82, 7, 0, 1, 0, 0, 1, b'a', 3], 0x82),
        ("Retain Handling 3", From::V5, &[0x82, 7, 0, 1, 0, 0, 1, b'a', 0x30], 0x82),
        ("packet identifier 0", From::Both, &[0x32, 6, 0, 1, b'a', 0, 0, 0], 0x81),
        ("packet identifier 0", From::Both, &[0x40, 2, 0, 0], 0x81),
        ("packet identifier 0", From::V3, &[0x82, 6, 0, 0, 0, 1, b'a', 0], 0x81),
        ("packet identifier 0", From::V5, &[0x82, 7, 0, 0, 0, 0, 1, b'a', 0], 0x81),
        ("PINGREQ with a body", From::Both, &[0xC0, 1, 0], 0x81),
        ("DISCONNECT with a body", From::V3, &[0xE0, 1, 0], 0x81),
    ]);
}

/// [MQTT-3.3.2-2] [MQTT-4.7.3-1] [MQTT-4.7.3-2] [MQTT-1.5.4-1] [MQTT-3.8.3-2] [MQTT-3.10.3-2] [MQTT-3.8.3-4]
#[test]
fn topics_and_filters_that_may_not_be_end_the_connection() {
    let shared = [&[0x82, 17, 0, 1, 0, 0, 11][..], b"$share/g/ab", &[4]].concat();
    check(&[
        ("a wildcard", From::Both, &[0x30, 4, 0, 1, b'+', 0], 0x90),
        ("a wildcard", From::Both, &[0x30, 5, 0, 2, b'a', b'#', 0], 0x90),
        ("U+0000", From::Both, &[0x30, 4, 0, 1, 0, 0], 0x81),
        ("no UTF-8", From::Both, &[0x30, 4, 0, 1, 0xFF, 0], 0x81),
        ("a surrogate", From::Both, &[0x30, 6, 0, 3, 0xED, 0xA0, 0x80, 0], 0x81),
        ("an empty topic", From::Both, &[0x30, 3, 0, 0, 0], 0x82),
        ("no filter", From::V3, &[0x82, 2, 0, 1], 0x82),
        ("no filter", From::V5, &[0x82, 3, 0, 1, 0], 0x82),
        ("no filter", From::V3, &[0xA2, 2, 0, 1], 0x82),
        ("no filter", From::V5, &[0xA2, 3, 0, 1, 0], 0x82),
        ("an empty filter", From::V3, &[0x82, 5, 0, 1, 0, 0, 0], 0x82),
        ("an empty filter", From::V5, &[0x82, 6, 0, 1, 0, 0, 0, 0], 0x82),
        ("U+0000 in a filter", From::V3, &[0x82, 6, 0, 1, 0, 1, 0, 0], 0x81),
        ("U+0000 in a filter", From::V5, &[0x82, 7, 0, 1, 0, 0, 1, 0, 0], 0x81),
        ("no UTF-8 in a filter", From::V5, &[0x82, 7, 0, 1, 0, 0, 1, 0xFF, 0], 0x81),
        ("a filter that could not be", From::V3, &[0xA2, 7, 0, 1, 0, 3, b'#', b'/', b'a'], 0x81),
        ("No Local on a shared subscription", From::V5, &shared, 0x82),
    ]);
    // A malformed filter is refused by itself.
    let served = served();
    let mut v3 = served.v3("three");
    for filter in ["a/#/b", "a+", "#a", "$share/g"] {
        v3.send(&subscribe(4, 1, filter, 0));
        v3.expect(&[0x90, 3, 0, 1, 0x80]);
    }
}

/// [MQTT-3.3.4-6] [MQTT-3.3.2-14] [MQTT-3.3.2-8] [MQTT-3.3.2-9]
#[test]
fn properties_that_may_not_be_end_the_connection() {
    check(&[
        ("an unknown property", From::V5, &[0x30, 6, 0, 1, b'a', 2, 0x7F, 0], 0x81),
        ("a subscription identifier", From::V5, &[0x30, 6, 0, 1, b'a', 2, 0x0B, 1], 0x82),
        ("a wildcard to respond to", From::V5, &[0x30, 8, 0, 1, b'a', 4, 8, 0, 1, b'#'], 0x82),
        ("two payload formats", From::V5, &[0x30, 8, 0, 1, b'a', 4, 1, 0, 1, 0], 0x82),
        ("a payload not of its format", From::V5, &[0x30, 7, 0, 1, b'a', 2, 1, 1, 0xFF], 0x99),
        ("alias 0", From::V5, &[0x30, 7, 0, 1, b'a', 3, 0x23, 0, 0], 0x94),
        ("an alias above the maximum", From::V5, &[0x30, 7, 0, 1, b'a', 3, 0x23, 0, 17], 0x94),
        ("an unknown alias", From::V5, &[0x30, 6, 0, 0, 3, 0x23, 0, 1], 0x82),
        ("subscription identifier 0", From::V5, &[0x82, 9, 0, 1, 2, 0x0B, 0, 0, 1, b'a', 0], 0x82),
        ("a foreign property", From::V5, &[0x40, 6, 0, 1, 0, 2, 1, 0], 0x81),
        ("an unknown reason", From::V5, &[0x40, 3, 0, 1, 0x81], 0x82),
        ("a reason of PUBACK", From::V5, &[0x62, 3, 0, 1, 0x10], 0x82),
        ("two reason strings", From::V5, &[0x40, 10, 0, 1, 0, 6, 0x1F, 0, 0, 0x1F, 0, 0], 0x82),
        ("a server's Server Reference", From::V5, &[0xE0, 6, 0, 4, 0x1C, 0, 1, b'x'], 0x82),
        ("a session prolonged that ends", From::V5, &[0xE0, 7, 0, 5, 0x11, 0, 0, 0, 9], 0x82),
        ("a server's reason", From::V5, &[0xE0, 1, 0x8B], 0x82),
        ("no reason that there is", From::V5, &[0xE0, 1, 0x05], 0x81),
    ]);
}

/// [MQTT-3.1.0-2]
#[test]
fn packets_that_only_a_server_sends_and_a_second_connect_end_the_connection() {
    let (second_v3, second_v5) = (connect(4, 2, 0, "three"), connect(5, 2, 0, "five"));
    check(&[
        ("a second CONNECT", From::V3, &second_v3, 0x82),
        ("a second CONNECT", From::V5, &second_v5, 0x82),
        ("CONNACK", From::Both, &[0x20, 2, 0, 0], 0x82),
        ("SUBACK", From::Both, &[0x90, 3, 0, 1, 0], 0x82),
        ("UNSUBACK", From::Both, &[0xB0, 2, 0, 1], 0x82),
        ("PINGRESP", From::Both, &[0xD0, 0], 0x82),
        ("AUTH", From::Both, &[0xF0, 0], 0x82),
        ("AUTH", From::V5, &[0xF0, 6, 0x18, 4, 0x15, 0, 1, b'm'], 0x82),
    ]);
}

#[test]
fn no_packet_comes_before_connect() {
    let served = served();
    for first in 0..=0xFF_u8 {
        if first != 0x10 {
            let mut client = served.socket();
            client.send(&[first, 2, 0, 1]);
            client.expect_end();
        }
    }
    assert_eq!(served.counters.protocol_errors.value(), 255);
}

/// What a CONNECT is answered, if it is; then the connection ends.
#[test]
fn connects_that_may_not_be_are_refused() {
    /// CONNECT of this level with these flags, and what follows the keep-alive.
    fn connect(level: u8, flags: u8, rest: &[u8]) -> Vec<u8> {
        frame(0x10, &[&[0, 4, b'M', b'Q', b'T', b'T', level, flags, 0, 60], rest].concat())
    }
    let served = served();
    for (what, bytes, answer) in [
        ("another protocol", frame(0x10, &[0, 4, b'H', b'T', b'T', b'P', 4, 2, 0, 60, 0, 0]), None),
        ("no level", frame(0x10, &[0, 4, b'M', b'Q', b'T', b'T']), None),
        ("an empty CONNECT", frame(0x10, &[]), None),
        ("reserved flags of the header", vec![0x11, 0], None),
        ("the reserved flag", connect(4, 3, &[0, 1, b'a']), None),
        ("the reserved flag", connect(5, 3, &[0, 0, 1, b'a']), Some(0x81)),
        ("bytes behind the end", connect(4, 2, &[0, 1, b'a', 0]), None),
        ("bytes behind the end", connect(5, 2, &[0, 0, 1, b'a', 0]), Some(0x81)),
        ("an identifier past the end", connect(4, 2, &[0, 9, b'a']), None),
        ("an identifier past the end", connect(5, 2, &[0, 0, 9, b'a']), Some(0x81)),
        ("properties past the end", connect(5, 2, &[99, 0, 1, b'a']), Some(0x81)),
        ("password without user name", connect(4, 0x42, &[0, 1, b'a', 0, 1, b'p']), None),
        ("will QoS without will", connect(4, 0x0A, &[0, 1, b'a']), None),
        ("will QoS without will", connect(5, 0x0A, &[0, 0, 1, b'a']), Some(0x81)),
        ("will retain without will", connect(5, 0x22, &[0, 0, 1, b'a']), Some(0x81)),
        ("will QoS 3", connect(4, 0x1E, &[0, 1, b'a', 0, 1, b'w', 0, 0]), None),
        ("a will to a wildcard", connect(5, 6, &[0, 0, 1, b'a', 0, 0, 1, b'#', 0, 0]), Some(0x90)),
        ("authentication data without method", connect(5, 2, &[4, 0x16, 0, 1, b'd', 0, 1, b'a']), Some(0x82)),
        ("Receive Maximum 0", connect(5, 2, &[3, 0x21, 0, 0, 0, 1, b'a']), Some(0x82)),
        ("Maximum Packet Size 0", connect(5, 2, &[5, 0x27, 0, 0, 0, 0, 0, 1, b'a']), Some(0x82)),
        ("two Receive Maximums", connect(5, 2, &[6, 0x21, 0, 1, 0x21, 0, 1, 0, 1, b'a']), Some(0x82)),
        ("an unknown property", connect(5, 2, &[2, 0x7F, 0, 0, 1, b'a']), Some(0x81)),
        ("U+0000", connect(5, 2, &[0, 0, 1, 0]), Some(0x81)),
        ("no UTF-8", connect(4, 2, &[0, 1, 0xFF]), None),
        ("a session without a name", connect(4, 0, &[0, 0]), Some(2)),
    ] {
        let mut client = served.socket();
        client.send(&bytes);
        if let Some(reason) = answer {
            let packet = client.packet();
            assert_eq!((packet[0], packet[2], packet[3]), (0x20, 0, reason), "{what}: {packet:02x?}");
        }
        client.expect_end();
    }
    assert_eq!(served.driver.inspect(|broker| broker.statistics().sessions), 0);
}

/// [MQTT-3.2.2-15]
#[test]
fn a_header_is_believed_only_within_the_limit() {
    let options = MqttOptions { packet_bytes: 1000, connect_packet_bytes: 50, ..MqttOptions::default() };
    let served = served_with(1, options, Limits::default());
    // Before CONNECT, 50 bytes are the most.
    let mut client = served.socket();
    client.send(&connect(5, 2, 0, &"x".repeat(35)));
    assert_eq!(client.packet()[3], 0);
    client.send(&publish(5, 0x30, "t", 0, &[0; 990]));
    client.expect_silence();
    let mut too_long = served.socket();
    too_long.send(&connect(5, 2, 0, &"x".repeat(36)));
    too_long.expect_gone();
    // After it, 1000.
    for header in [&[0x30, 0xE7, 0x07][..], &[0x82, 0xFF, 0xFF, 0xFF, 0x7F], &[0x30, 0xFF, 0xFF, 0xFF, 0x7F]] {
        let mut client = served.v5("five");
        client.send(header);
        client.expect_disconnect(0x95);
        client.expect_end();
    }
}

/// The address space of this process in bytes.
#[cfg(target_os = "linux")]
fn address_space() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmSize:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
}

/// Each header announces 256 MB, within the limit.
#[cfg(target_os = "linux")]
#[test]
fn a_header_of_five_bytes_reserves_nothing() {
    let options = MqttOptions { packet_bytes: usize::MAX, ..MqttOptions::default() };
    let served = served_with(1, options, Limits::default());
    let mut witness = served.v3("witness");
    let before = address_space();
    let mut clients: Vec<_> = (0..60)
        .map(|index| {
            let mut client = served.v3(&format!("client{index}"));
            client.send(&[if index % 2 == 0 { 0x82 } else { 0x30 }, 0xFF, 0xFF, 0xFF, 0x7F]);
            client.send(&[0; 100]);
            client
        })
        .collect();
    // All of that has been read by the time at which a later packet is answered.
    witness.expect_silence();
    let grown = address_space().saturating_sub(before);
    assert!(grown < 60 * (256 << 20) / 2, "the address space grew by {grown} bytes");
    assert_eq!(served.counters.protocol_errors.value(), 0);
    clients.clear();
}

#[test]
fn a_packet_may_come_in_pieces_of_any_size() {
    let served = served();
    let mut to = served.v5("to");
    to.send(&subscribe(5, 1, "t", 0));
    to.packet();
    let mut from = served.v5("from");
    let message = publish(5, 0x30, "t", 0, &[7; 300]);
    let pair = [&message[..], &message].concat();
    for size in [1, 2, 3, 4, 5, 299, 303, 304, 305, 307, 311, 600] {
        for piece in pair.chunks(size) {
            from.send(piece);
        }
        to.expect(&pair);
    }
}
