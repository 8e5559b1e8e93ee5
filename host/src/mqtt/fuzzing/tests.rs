//! The corpus of connections: every packet of both versions, and what codecs are known to trip over.

use super::connection;

#[test]
fn what_is_accepted_is_valid_however_it_is_cut() {
    corpus::check("connection", seeds, connection);
}

/// A whole packet, with the shortest remaining length.
fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut rest = body.len();
    while rest > 0x7F {
        bytes.push(rest as u8 & 0x7F | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
    bytes.extend_from_slice(body);
    bytes
}

/// Properties of less than 128 bytes, with their length.
fn properties(list: &[u8]) -> Vec<u8> {
    [&[list.len() as u8][..], list].concat()
}

/// CONNECT with these flags and this keep-alive, and what follows them.
fn connect(level: u8, flags: u8, rest: &[u8]) -> Vec<u8> {
    packet(0x10, &[&[0, 4, b'M', b'Q', b'T', b'T', level, flags, 0, 60][..], rest].concat())
}

/// The ways to begin.
fn connects() -> Vec<(&'static str, Vec<u8>)> {
    let all_v5 = properties(
        b"\x11\0\0\0\x78\x21\0\x0A\x27\0\0\x10\0\x22\0\x10\x19\x01\x17\x01\
          \x26\0\x01k\0\x01v\x26\0\x01k\0\x01w\x16\0\x02\0\xFF\x15\0\x01m",
    );
    let of_will = properties(
        b"\x18\0\0\0\x05\x01\x01\x02\0\0\0\x3C\x03\0\x01t\x08\0\x01r\x09\0\x02\0\xFF\
          \x26\0\x01k\0\x01v\x26\0\x01k\0\x01v",
    );
    let will_v5 = [&b"\0\0\x01c"[..], &of_will, b"\0\x01w\0\x02ok"].concat();
    let level_84 = connect(0x84, 2, b"\0\x01c");
    vec![
        ("v3-clean", connect(4, 0x02, b"\0\x01c")),
        ("v3-kept", connect(4, 0x00, b"\0\x01c")),
        ("v3-anonymous", connect(4, 0x02, b"\0\0")),
        ("v3-all", connect(4, 0xEE, b"\0\x01c\0\x01w\0\x02ok\0\x04user\0\x06secret")),
        ("v5-clean", connect(5, 0x02, b"\0\0\x01c")),
        ("v5-kept", connect(5, 0x02, b"\x05\x11\xFF\xFF\xFF\xFF\0\x01c")),
        ("v5-anonymous", connect(5, 0x02, b"\0\0\0")),
        ("v5-properties", connect(5, 0x02, &[&all_v5, &b"\0\x01c"[..]].concat())),
        ("v5-will", connect(5, 0x36, &will_v5)),
        ("v5-authentication-data-alone", connect(5, 0x02, b"\x05\x16\0\x02ab\0\x01c")),
        ("v5-receive-maximum-0", connect(5, 0x02, b"\x03\x21\0\0\0\x01c")),
        ("v5-packet-size-0", connect(5, 0x02, b"\x05\x27\0\0\0\0\0\x01c")),
        ("v5-expiry-twice", connect(5, 0x02, b"\x0A\x11\0\0\0\x01\x11\0\0\0\x01\0\x01c")),
        ("v5-problem-information-2", connect(5, 0x02, b"\x02\x17\x02\0\x01c")),
        ("v5-properties-too-long", connect(5, 0x02, b"\x7F\0\x01c")),
        ("v5-property-of-publish", connect(5, 0x02, b"\x03\x23\0\x01\0\x01c")),
        ("reserved-flag", connect(4, 0x03, b"\0\x01c")),
        ("will-qos-3", connect(4, 0x1E, b"\0\x01c\0\x01w\0\0")),
        ("will-qos-without-will", connect(4, 0x0A, b"\0\x01c")),
        ("password-without-user", connect(4, 0x42, b"\0\x01c\0\x01p")),
        ("will-wildcard", connect(4, 0x06, b"\0\x01c\0\x01#\0\0")),
        ("will-nul", connect(4, 0x06, b"\0\x01c\0\x01\0\0\0")),
        ("will-reserved", connect(4, 0x06, b"\0\x01c\0\x02$s\0\0")),
        ("id-nul", connect(4, 0x02, b"\0\x01\0")),
        ("id-reserved", connect(5, 0x02, b"\0\0\x09$plugin/a")),
        ("id-too-long", connect(4, 0x02, b"\xFF\xFFc")),
        ("trailing", connect(4, 0x02, b"\0\x01cx")),
        ("level-3", packet(0x10, b"\0\x06MQIsdp\x03\x02\0\x3C\0\x01c")),
        ("level-6", connect(6, 0x02, b"\0\0\x01c")),
        ("level-of-a-bridge", level_84),
        ("no-mqtt", packet(0x10, b"\0\x04HTTP\x04\x02\0\x3C\0\x01c")),
        ("http", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("tls", b"\x16\x03\x01\x02\0\x01\0\x01\xFC\x03\x03".to_vec()),
        ("publish-first", packet(0x30, b"\0\x01ax")),
        ("nothing", Vec::new()),
    ]
}

/// What a client may send in 3.1.1.
fn session_v3() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("publish-qos0", packet(0x31, b"\0\x03a/bhello")),
        ("publish-qos1", packet(0x32, b"\0\x03a/b\0\x01hello")),
        ("publish-qos2", [packet(0x3C, b"\0\x03a/b\0\x02"), packet(0x62, b"\0\x02")].concat()),
        ("publish-reserved", packet(0x32, b"\0\x04$SYS\0\x01x")),
        ("acknowledgements", [packet(0x40, b"\0\x01"), packet(0x50, b"\0\x02"), packet(0x70, b"\0\x02")].concat()),
        ("subscribe", packet(0x82, b"\0\x01\0\x03a/+\x01\0\x01#\x02\0\x0B$share/g/+/\x00")),
        (
            "subscribe-denied",
            packet(0x82, b"\0\x01\0\x08secret/#\x01\0\x08secret/a\0\0\x01+\0\0\x11$share/g/secret/#\0"),
        ),
        ("subscribe-invalid", packet(0x82, b"\0\x01\0\x05a/#/b\x01\0\x02a+\0\0\x06$share\0\0\x08$share/g\0")),
        ("unsubscribe", packet(0xA2, b"\0\x01\0\x03a/+\0\x01#")),
        ("ping", packet(0xC0, b"")),
        ("disconnect", packet(0xE0, b"")),
        ("auth", packet(0xF0, b"")),
    ]
}

/// What a client may send in 5.0 only, or differently.
fn session_v5() -> Vec<(&'static str, Vec<u8>)> {
    let all = properties(
        b"\x01\x01\x02\0\0\0\x0A\x03\0\x04json\x08\0\x01r\x09\0\x02\0\xFF\x23\0\x01\
          \x26\0\x01k\0\x01v\x26\0\x01k\0\x01w\x26\0\0\0\0",
    );
    let all = [&b"\0\x01a\0\x01"[..], &all, b"text"].concat();
    let alias = [packet(0x30, b"\0\x01a\x03\x23\0\x04x"), packet(0x30, b"\0\0\x03\x23\0\x04x")];
    let many: Vec<u8> = (1..=4).flat_map(|id| packet(0x34, &[0, 1, b'a', 0, id, 0])).collect();
    vec![
        ("publish-properties", packet(0x33, &all)),
        ("publish-alias", alias.concat()),
        ("publish-qos1", packet(0x32, b"\0\x03a/b\0\x01\0hello")),
        ("publish-qos2", [packet(0x3C, b"\0\x03a/b\0\x02\0"), packet(0x62, b"\0\x02")].concat()),
        ("publish-reserved", packet(0x34, b"\0\x04$SYS\0\x01\0x")),
        ("publish-alias-unknown", packet(0x30, b"\0\0\x03\x23\0\x01x")),
        ("publish-alias-0", packet(0x30, b"\0\x01a\x03\x23\0\0x")),
        ("publish-alias-above", packet(0x30, b"\0\x01a\x03\x23\0\x05x")),
        ("publish-alias-twice", packet(0x30, b"\0\x01a\x06\x23\0\x01\x23\0\x01x")),
        ("publish-content-type-twice", packet(0x30, b"\0\x01a\x08\x03\0\x01t\x03\0\x01tx")),
        ("publish-format-2", packet(0x30, b"\0\x01a\x02\x01\x02x")),
        ("publish-not-utf8", packet(0x30, b"\0\x01a\x02\x01\x01\xFF")),
        ("publish-subscription-identifier", packet(0x30, b"\0\x01a\x02\x0B\x01x")),
        ("publish-response-wildcard", packet(0x30, b"\0\x01a\x04\x08\0\x01#x")),
        ("publish-overlong-properties", packet(0x30, b"\0\x01a\x80\0x")),
        ("publish-more-than-receive-maximum", many),
        ("acknowledge-reasons", [packet(0x40, b"\0\x01\x10"), packet(0x62, b"\0\x02\x92\0")].concat()),
        ("acknowledge-properties", packet(0x50, b"\0\x01\x80\x0B\x1F\0\x01r\x26\0\x01k\0\x01v")),
        ("acknowledge-reason-twice", packet(0x40, b"\0\x01\0\x08\x1F\0\x01r\x1F\0\x01r")),
        ("subscribe-options", packet(0x82, b"\0\x01\x09\x0B\x7F\x26\0\x01k\0\x01v\0\x01a\x2E\0\x01#\x15")),
        ("subscribe-denied", packet(0x82, b"\0\x01\0\0\x08secret/#\x01\0\x01+\0\0\x11$share/g/secret/#\0")),
        ("subscribe-invalid", packet(0x82, b"\0\x01\0\0\x05a/#/b\x01\0\x02a+\0\0\x06$share\0\0\x08$share/g\0")),
        ("subscribe-identifier-0", packet(0x82, b"\0\x01\x02\x0B\0\0\x01a\0")),
        ("subscribe-identifier-twice", packet(0x82, b"\0\x01\x04\x0B\x01\x0B\x02\0\x01a\0")),
        ("subscribe-identifier-most", packet(0x82, b"\0\x01\x05\x0B\xFF\xFF\xFF\x7F\0\x01a\0")),
        ("subscribe-no-local-shared", packet(0x82, b"\0\x01\0\0\x0A$share/g/a\x04")),
        ("subscribe-retain-handling-3", packet(0x82, b"\0\x01\0\0\x01a\x30")),
        ("subscribe-reserved-option", packet(0x82, b"\0\x01\0\0\x01a\x40")),
        ("unsubscribe-properties", packet(0xA2, b"\0\x01\x07\x26\0\x01k\0\x01v\0\x01a")),
        ("ping", packet(0xC0, b"")),
        ("disconnect", packet(0xE0, b"")),
        ("disconnect-will", packet(0xE0, b"\x04\0")),
        ("disconnect-all", packet(0xE0, b"\x04\x12\x11\0\0\0\x05\x1F\0\x03bye\x26\0\x01k\0\x01v")),
        ("disconnect-prolongs", packet(0xE0, b"\0\x05\x11\0\0\0\x05")),
        ("disconnect-of-a-server", packet(0xE0, b"\x8E\0")),
        ("disconnect-server-reference", packet(0xE0, b"\0\x04\x1C\0\x01s")),
        ("auth-again", packet(0xF0, b"\x19\x08\x15\0\x01m\x16\0\x01d")),
        ("auth-twice-a-method", packet(0xF0, b"\x18\x08\x15\0\x01m\x15\0\x01m")),
        ("auth-nothing", packet(0xF0, b"")),
    ]
}

/// What closes a connection in either version: known traps of codecs.
fn traps() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("connect-again", connect(4, 0x02, b"\0\x01c")),
        ("connack", packet(0x20, b"\0\0")),
        ("suback", packet(0x90, b"\0\x01\0")),
        ("unsuback", packet(0xB0, b"\0\x01")),
        ("pingresp", packet(0xD0, b"")),
        ("reserved-type", packet(0x00, b"")),
        ("reserved-bits-of-subscribe", packet(0x80, b"\0\x01\0\x01a\0")),
        ("reserved-bits-of-ping", packet(0xC1, b"")),
        ("ping-with-body", packet(0xC0, b"x")),
        ("overlong-length", vec![0xC0, 0x80, 0x00]),
        ("five-byte-length", vec![0x30, 0x80, 0x80, 0x80, 0x80, 0x01]),
        ("a-quarter-gigabyte", vec![0x82, 0xFF, 0xFF, 0xFF, 0x7F, 0, 1]),
        ("half-a-packet", vec![0x30, 0x20, 0, 1, b'a']),
        ("topic-beyond-frame", vec![0x30, 4, 0, 16, b'a', b'b', 0x30, 0]),
        ("topic-wildcard", packet(0x30, b"\0\x03a/#\0")),
        ("topic-nul", packet(0x30, b"\0\x02a\0\0")),
        ("topic-surrogate", packet(0x30, b"\0\x03\xED\xA0\x80\0")),
        ("topic-empty", packet(0x30, b"\0\0\0")),
        ("qos-3", packet(0x36, b"\0\x01a\0\x01\0")),
        ("dup-at-qos-0", packet(0x38, b"\0\x01a\0")),
        ("packet-id-0", packet(0x32, b"\0\x01a\0\0\0")),
        ("acknowledge-0", packet(0x40, b"\0\0")),
        ("acknowledge-half", packet(0x40, b"\0")),
        ("subscribe-nothing", packet(0x82, b"\0\x01")),
        ("subscribe-nothing-v5", packet(0x82, b"\0\x01\0")),
        ("subscribe-no-options", packet(0x82, b"\0\x01\0\0\x01a")),
        ("subscribe-beyond-frame", packet(0x82, b"\0\x01\0\0\x0Aa\0")),
        ("subscribe-nul", packet(0x82, b"\0\x01\0\0\x02a\0\0")),
        ("subscribe-empty-filter", packet(0x82, b"\0\x01\0\0\0\0")),
        ("subscribe-qos-3", packet(0x82, b"\0\x01\0\0\x01a\x03")),
        ("unsubscribe-nothing", packet(0xA2, b"\0\x01")),
        ("unsubscribe-misplaced-hash", packet(0xA2, b"\0\x01\0\0\x05a/#/b")),
    ]
}

/// Each way to begin is a file; what follows is one a packet, behind a CONNECT of its version, cut into reads or not.
fn seeds() -> corpus::Seeds {
    let v3 = connect(4, 0x02, b"\0\x01c");
    let v5 = connect(5, 0x02, b"\x05\x11\0\0\0\x78\0\x01c");
    let method = connect(5, 0x02, b"\x04\x15\0\x01m\0\x01c");
    let mut seeds = corpus::Seeds::new();
    for (name, bytes) in connects() {
        seeds.push((format!("connect-{name}"), [&[0][..], &bytes].concat()));
    }
    for (name, bytes) in session_v3().into_iter().chain(traps()) {
        seeds.push((format!("v3-{name}"), [&[0x01, 2][..], &v3, &bytes].concat()));
    }
    for (name, bytes) in session_v5().into_iter().chain(traps()) {
        seeds.push((format!("v5-{name}"), [&[0x02, 0, 30][..], &v5, &bytes].concat()));
    }
    let answer = packet(0xF0, b"\x18\x08\x15\0\x01m\x16\0\x01d");
    let other = packet(0xF0, b"\x18\x04\x15\0\x01n");
    let ping = packet(0xC0, b"");
    for (name, bytes) in [("method", answer), ("method-changed", other), ("method-and-ping", ping.clone())] {
        seeds.push((format!("v5-{name}"), [&[0][..], &method, &bytes, &ping].concat()));
    }
    let publishes = |length| packet(0x30, &[&[0, 1, b'a'][..], &vec![b'x'; length]].concat());
    for (name, first) in [("small", 0x30), ("smaller", 0x20), ("large", 0x10)] {
        let stream = [v3.clone(), publishes(9), publishes(60), publishes(1_100)].concat();
        seeds.push((format!("v3-packets-{name}"), [&[first | 1, 0xFF][..], &stream].concat()));
    }
    for (version, connect, packets, names) in [
        ("v3", v3, session_v3(), &["publish", "ack", "sub", "unsub", "ping", "disconnect"][..]),
        (
            "v5",
            v5,
            session_v5(),
            &["publish-p", "publish-q", "acknowledge-p", "subscribe-o", "unsub", "ping", "disconnect"],
        ),
    ] {
        let packets = packets.into_iter().filter(|(name, _)| names.iter().any(|beginning| name.starts_with(beginning)));
        let all: Vec<u8> = packets.flat_map(|(_, bytes)| bytes).collect();
        seeds.push((format!("{version}-one-after-the-other"), [&[0x01, 0][..], &connect, &all].concat()));
    }
    seeds
}
