//! What may be said, and what may not: tables of bytes, each with what becomes of it.

use proptest::prelude::*;
use vespiary_core::TopicFilter;
use vespiary_core::event::SubscriptionOptions;

use super::*;
use crate::mqtt::frame;

const CONNECTION: ConnectionId = ConnectionId(7);
const NOW: Timestamp = Timestamp(1_000);
const OPTIONS: ConnectOptions = ConnectOptions { keep_alive_maximum_s: Some(600), topic_alias_maximum: 4 };

fn inbound(protocol: Protocol) -> Inbound {
    Inbound {
        connection: CONNECTION,
        protocol,
        client_id: "client".into(),
        user: None,
        last_topic: None,
        aliases: None,
        topic_alias_maximum: OPTIONS.topic_alias_maximum,
        session_outlives_connection: false,
        quota: Quota::default(),
    }
}

fn terms(denied_subscriptions: &[Filter]) -> Terms<'_> {
    Terms { now: NOW, receive_maximum: 10, denied_subscriptions }
}

/// Takes all packets in `bytes`, and gives what the last of them comes to, and its input.
fn understand(protocol: Protocol, bytes: &[u8]) -> Result<(Understood, Option<Input>), ReasonCode> {
    let mut inbound = inbound(protocol);
    let mut inputs = VecDeque::new();
    let mut rest = bytes;
    loop {
        let frame = frame::next(rest, 1 << 20)?.expect("the table holds whole packets");
        rest = &rest[frame.bytes.len()..];
        let before = inputs.len();
        let understood = inbound.understand(frame, terms(&[]), &mut inputs);
        assert_eq!(inputs.len() - before, usize::from(understood == Ok(Understood::Input)));
        if rest.is_empty() || understood.is_err() {
            return Ok((understood?, inputs.pop_back()));
        }
    }
}

fn check_refused(protocol: Protocol, table: &[(&str, &[u8], ReasonCode)]) {
    for (what, bytes, reason) in table {
        assert_eq!(understand(protocol, bytes), Err(*reason), "{protocol:?}: {what}: {bytes:02x?}");
    }
}

#[test]
fn publishes_that_may_not_be_are_refused() {
    use ReasonCode::{MalformedPacket, ProtocolError, TopicNameInvalid};
    for protocol in [Protocol::V3, Protocol::V5] {
        check_refused(
            protocol,
            &[
                ("a topic length past the frame", &[0x30, 4, 0, 16, b'a', b'b', 0x30, 0], MalformedPacket),
                ("a topic length and no topic", &[0x30, 2, 0xFF, 0xFF], MalformedPacket),
                ("no topic length", &[0x30, 1, 0], MalformedPacket),
                ("no packet identifier", &[0x32, 4, 0, 1, b'a', 0], MalformedPacket),
                ("packet identifier 0", &[0x32, 6, 0, 1, b'a', 0, 0, 0], MalformedPacket),
                ("QoS 3", &[0x36, 6, 0, 1, b'a', 0, 1, 0], MalformedPacket),
                ("DUP at QoS 0", &[0x38, 4, 0, 1, b'a', 0], MalformedPacket),
                ("a wildcard", &[0x30, 4, 0, 1, b'#', 0], TopicNameInvalid),
                ("a wildcard", &[0x30, 4, 0, 1, b'+', 0], TopicNameInvalid),
                ("U+0000", &[0x30, 4, 0, 1, 0, 0], MalformedPacket),
                ("no UTF-8", &[0x30, 4, 0, 1, 0xFF, 0], MalformedPacket),
                ("a surrogate", &[0x30, 6, 0, 3, 0xED, 0xA0, 0x80, 0], MalformedPacket),
                ("an empty topic", &[0x30, 3, 0, 0, 0], ProtocolError),
            ],
        );
    }
}

#[test]
fn properties_of_publishes_are_held_to_the_specification() {
    use ReasonCode::{MalformedPacket, PayloadFormatInvalid, ProtocolError, TopicAliasInvalid};
    check_refused(
        Protocol::V5,
        &[
            ("no property length", &[0x30, 3, 0, 1, b'a'], MalformedPacket),
            ("properties past the frame", &[0x30, 5, 0, 1, b'a', 9, 1], MalformedPacket),
            ("an overlong property length", &[0x30, 5, 0, 1, b'a', 0x80, 0], MalformedPacket),
            ("an unknown property", &[0x30, 6, 0, 1, b'a', 2, 0x7F, 0], MalformedPacket),
            ("a subscription identifier", &[0x30, 6, 0, 1, b'a', 2, 0x0B, 1], ProtocolError),
            ("two payload formats", &[0x30, 8, 0, 1, b'a', 4, 1, 0, 1, 0], ProtocolError),
            ("payload format 2", &[0x30, 6, 0, 1, b'a', 2, 1, 2], MalformedPacket),
            ("a payload not of its format", &[0x30, 7, 0, 1, b'a', 2, 1, 1, 0xFF], PayloadFormatInvalid),
            ("a wildcard to respond to", &[0x30, 8, 0, 1, b'a', 4, 8, 0, 1, b'#'], ProtocolError),
            ("alias 0", &[0x30, 7, 0, 1, b'a', 3, 0x23, 0, 0], TopicAliasInvalid),
            ("an alias above the maximum", &[0x30, 7, 0, 1, b'a', 3, 0x23, 0, 5], TopicAliasInvalid),
            ("an unknown alias", &[0x30, 6, 0, 0, 3, 0x23, 0, 4], ProtocolError),
            ("two aliases", &[0x30, 10, 0, 1, b'a', 6, 0x23, 0, 1, 0x23, 0, 1], ProtocolError),
        ],
    );
}

#[test]
fn acknowledgements_are_read_exactly() {
    use ReasonCode::{MalformedPacket, ProtocolError};
    for protocol in [Protocol::V3, Protocol::V5] {
        check_refused(
            protocol,
            &[
                ("no identifier", &[0x40, 0], MalformedPacket),
                ("half an identifier", &[0x40, 1, 0], MalformedPacket),
                ("identifier 0", &[0x40, 2, 0, 0], MalformedPacket),
            ],
        );
    }
    check_refused(Protocol::V3, &[("a reason in 3.1.1", &[0x40, 3, 0, 1, 0], MalformedPacket)]);
    check_refused(
        Protocol::V5,
        &[
            ("an unknown reason", &[0x40, 3, 0, 1, 0x81], ProtocolError),
            ("a reason of PUBREL", &[0x50, 3, 0, 1, 0x92], ProtocolError),
            ("a reason of PUBACK", &[0x62, 3, 0, 1, 0x10], ProtocolError),
            ("properties past the frame", &[0x40, 4, 0, 1, 0, 1], MalformedPacket),
            ("bytes behind the properties", &[0x40, 5, 0, 1, 0, 0, 0], MalformedPacket),
            ("a foreign property", &[0x40, 6, 0, 1, 0, 2, 1, 0], MalformedPacket),
            ("two reason strings", &[0x40, 10, 0, 1, 0, 6, 0x1F, 0, 0, 0x1F, 0, 0], ProtocolError),
        ],
    );
    let one = PacketId::MIN;
    for (bytes, step, reason) in [
        (&[0x40, 2, 0, 1][..], AcknowledgeStep::Puback, ReasonCode::Success),
        (&[0x50, 3, 0, 1, 0x97], AcknowledgeStep::Pubrec, ReasonCode::QuotaExceeded),
        (&[0x62, 4, 0, 1, 0x92, 0], AcknowledgeStep::Pubrel, ReasonCode::PacketIdentifierNotFound),
        (&[0x70, 9, 0, 1, 0, 5, 0x26, 0, 0, 0, 0], AcknowledgeStep::Pubcomp, ReasonCode::Success),
    ] {
        let expected = Input::Acknowledge { connection: CONNECTION, packet_id: one, step, reason };
        assert_eq!(understand(Protocol::V5, bytes), Ok((Understood::Input, Some(expected))), "{bytes:02x?}");
    }
}

#[test]
fn subscriptions_that_may_not_be_are_refused() {
    use ReasonCode::{MalformedPacket, ProtocolError};
    check_refused(
        Protocol::V3,
        &[
            ("no filter", &[0x82, 2, 0, 1], ProtocolError),
            ("an empty filter", &[0x82, 5, 0, 1, 0, 0, 0], ProtocolError),
            ("U+0000", &[0x82, 6, 0, 1, 0, 1, 0, 0], MalformedPacket),
            ("no options", &[0x82, 5, 0, 1, 0, 1, b'a'], MalformedPacket),
            ("reserved options", &[0x82, 6, 0, 1, 0, 1, b'a', 4], MalformedPacket),
            ("QoS 3", &[0x82, 6, 0, 1, 0, 1, b'a', 3], ProtocolError),
            ("identifier 0", &[0x82, 6, 0, 0, 0, 1, b'a', 0], MalformedPacket),
            ("a filter past the frame", &[0x82, 6, 0, 1, 0, 9, b'a', 0], MalformedPacket),
            ("no filter to unsubscribe from", &[0xA2, 2, 0, 1], ProtocolError),
            ("no such filter can be", &[0xA2, 7, 0, 1, 0, 3, b'a', b'/', 0xFF], MalformedPacket),
        ],
    );
    check_refused(
        Protocol::V5,
        &[
            ("no filter", &[0x82, 3, 0, 1, 0], ProtocolError),
            ("reserved options", &[0x82, 7, 0, 1, 0, 0, 1, b'a', 0x40], MalformedPacket),
            ("retain handling 3", &[0x82, 7, 0, 1, 0, 0, 1, b'a', 0x30], ProtocolError),
            ("subscription identifier 0", &[0x82, 9, 0, 1, 2, 0x0B, 0, 0, 1, b'a', 0], ProtocolError),
            ("no filter to unsubscribe from", &[0xA2, 3, 0, 1, 0], ProtocolError),
        ],
    );
    let shared_not_local = [0x82, 15, 0, 1, 0, 0, 9, b'$', b's', b'h', b'a', b'r', b'e', b'/', b'g', b'/', 4];
    assert_eq!(understand(Protocol::V5, &shared_not_local), Err(ProtocolError));
}

#[test]
fn a_filter_is_refused_without_its_neighbours() {
    let bytes = [0x82, 21, 0, 9, 0, 3, b'a', b'#', b'b', 1, 0, 3, b'a', b'/', b'+', 2, 0, 4, b'$', b's', b'h', b'a', 0];
    let Ok((_, Some(Input::Subscribe { subscribe, .. }))) = understand(Protocol::V3, &bytes) else {
        panic!("it is understood");
    };
    assert_eq!(subscribe.packet_id.get(), 9);
    assert_eq!(subscribe.filters[0], Err(ReasonCode::TopicFilterInvalid));
    let Ok((filter, SubscriptionOptions { maximum_qos: Qos::ExactlyOnce, .. })) = &subscribe.filters[1] else {
        panic!("the second is taken");
    };
    assert_eq!(filter.as_str(), "a/+");
    assert!(subscribe.filters[2].is_ok(), "$sha is not $share");
}

/// What becomes of a SUBSCRIBE to one filter.
fn requested(protocol: Protocol, filter: &str, denied: &[Filter]) -> Result<TopicFilter, ReasonCode> {
    let mut body = vec![0, 1];
    if protocol == Protocol::V5 {
        body.push(0);
    }
    body.extend((filter.len() as u16).to_be_bytes());
    body.extend(filter.as_bytes());
    body.push(0);
    let bytes = [&[0x82, body.len() as u8], &body[..]].concat();
    let frame = frame::next(&bytes, 1 << 16).unwrap().unwrap();
    let mut inputs = VecDeque::new();
    inbound(protocol).understand(frame, terms(denied), &mut inputs)?;
    let Some(Input::Subscribe { mut subscribe, .. }) = inputs.pop_front() else { panic!("it is a SUBSCRIBE") };
    subscribe.filters.remove(0).map(|(filter, _)| filter)
}

/// [MQTT-4.8.2-1] [MQTT-4.8.2-2]
#[test]
fn shared_subscriptions_have_a_name_and_a_filter() {
    for protocol in [Protocol::V3, Protocol::V5] {
        for (filter, expected) in [
            ("$share/g/a", true),
            ("$share/g/a/+/#", true),
            ("$share/g//", true),
            ("$share/g/$SYS/#", true),
            ("$shared/g", true),
            ("$share", false),
            ("$share/", false),
            ("$share/g", false),
            ("$share/g/", false),
            ("$share//a", false),
            ("$share/g+/a", false),
            ("$share/+/a", false),
            ("$share/#/a", false),
            ("$share/#", false),
            ("$share/g/a#", false),
            ("$share/g/#/a", false),
        ] {
            let found = requested(protocol, filter, &[]);
            let expected =
                if expected { Ok(TopicFilter::parse(filter).unwrap()) } else { Err(ReasonCode::TopicFilterInvalid) };
            assert_eq!(found, expected, "{filter}");
        }
    }
}

#[test]
fn what_a_denied_filter_covers_is_denied_and_what_is_wider_is_not() {
    let denied = ["secret/#", "test/nosubscribe", "$SYS/+"].map(|filter| Filter(TopicFilter::parse(filter).unwrap()));
    for (filter, expected) in [
        ("test/nosubscribe", false),
        ("secret", false),
        ("secret/a", false),
        ("secret/+/b", false),
        ("secret/#", false),
        ("$share/g/secret/a", false),
        ("$share/secret/a", true),
        ("$SYS/+", false),
        ("$SYS/a/b", true),
        ("test/+", true),
        ("#", true),
        ("$share/g/#", true),
        ("secrets", true),
    ] {
        for protocol in [Protocol::V3, Protocol::V5] {
            let expected =
                if expected { Ok(TopicFilter::parse(filter).unwrap()) } else { Err(ReasonCode::UnspecifiedError) };
            assert_eq!(requested(protocol, filter, &denied), expected, "{filter}");
        }
    }
}

/// [MQTT-4.12.0-6] [MQTT-3.15.2-1]
#[test]
fn auth_is_read_exactly() {
    use ReasonCode::{MalformedPacket, ProtocolError};
    let understood = |bytes: &[u8]| {
        let frame = frame::next(bytes, 1 << 16).unwrap().unwrap();
        auth(frame).map(|auth| (auth.step, auth.method.to_owned(), auth.data.map(<[u8]>::to_vec)))
    };
    for (what, bytes, expected) in [
        ("nothing", &[0xF0, 0][..], Err(ProtocolError)),
        ("Success", &[0xF0, 2, 0, 0], Err(ProtocolError)),
        ("no such reason", &[0xF0, 2, 0x1A, 0], Err(ProtocolError)),
        ("no properties", &[0xF0, 1, 0x18], Err(MalformedPacket)),
        ("no method", &[0xF0, 2, 0x18, 0], Err(ProtocolError)),
        ("two methods", &[0xF0, 10, 0x18, 8, 0x15, 0, 1, b'm', 0x15, 0, 1, b'm'], Err(ProtocolError)),
        ("a foreign property", &[0xF0, 8, 0x18, 6, 0x15, 0, 1, b'm', 0x01, 0], Err(MalformedPacket)),
        ("bytes behind the properties", &[0xF0, 7, 0x18, 4, 0x15, 0, 1, b'm', 0], Err(MalformedPacket)),
        ("properties past the frame", &[0xF0, 6, 0x18, 5, 0x15, 0, 1, b'm'], Err(MalformedPacket)),
        ("a method", &[0xF0, 6, 0x18, 4, 0x15, 0, 1, b'm'], Ok((AuthStep::Continue, "m".to_owned(), None))),
        (
            "a method and data",
            &[0xF0, 10, 0x19, 8, 0x15, 0, 1, b'm', 0x16, 0, 1, 0],
            Ok((AuthStep::Reauthenticate, "m".to_owned(), Some(vec![0]))),
        ),
    ] {
        assert_eq!(understood(bytes), expected, "{what}: {bytes:02x?}");
    }
}

#[test]
fn packets_where_they_may_not_be_are_refused() {
    use ReasonCode::{MalformedPacket, ProtocolError};
    for protocol in [Protocol::V3, Protocol::V5] {
        check_refused(
            protocol,
            &[
                ("a second CONNECT", &[0x10, 0], ProtocolError),
                ("CONNACK", &[0x20, 2, 0, 0], ProtocolError),
                ("SUBACK", &[0x90, 3, 0, 1, 0], ProtocolError),
                ("UNSUBACK", &[0xB0, 2, 0, 1], ProtocolError),
                ("PINGRESP", &[0xD0, 0], ProtocolError),
                ("PINGREQ with a body", &[0xC0, 1, 0], MalformedPacket),
            ],
        );
    }
    check_refused(
        Protocol::V3,
        &[("DISCONNECT with a body", &[0xE0, 1, 0], MalformedPacket), ("AUTH", &[0xF0, 0], ProtocolError)],
    );
    check_refused(
        Protocol::V5,
        &[
            ("a server's reason", &[0xE0, 1, 0x8B], ProtocolError),
            ("no reason that there is", &[0xE0, 1, 0x05], MalformedPacket),
            ("a server's property", &[0xE0, 6, 0, 4, 0x1C, 0, 1, b'x'], ProtocolError),
            ("a session prolonged that ends", &[0xE0, 7, 0, 5, 0x11, 0, 0, 0, 9], ProtocolError),
            ("bytes behind the properties", &[0xE0, 3, 0, 0, 0], MalformedPacket),
        ],
    );
}

#[test]
fn only_a_normal_disconnection_cancels_the_will() {
    for (protocol, bytes, with_will) in [
        (Protocol::V3, &[0xE0, 0][..], false),
        (Protocol::V5, &[0xE0, 0], false),
        (Protocol::V5, &[0xE0, 1, 0x00], false),
        (Protocol::V5, &[0xE0, 1, 0x04], true),
        (Protocol::V5, &[0xE0, 1, 0x80], true),
    ] {
        let expected = Disconnect { with_will, session_expiry_s: None };
        assert_eq!(understand(protocol, bytes), Ok((Understood::Disconnect(expected), None)), "{bytes:02x?}");
    }
}

#[test]
fn a_publish_keeps_its_properties_and_its_alias_keeps_its_topic() {
    let set = [0x3D, 15, 0, 1, b'a', 0, 9, 8, 0x23, 0, 4, 2, 0, 0, 0, 3, b'x'];
    let used = [
        0x30, 37, 0, 0, 33, 0x23, 0, 4, 1, 0, 3, 0, 1, b't', 8, 0, 1, b'r', 9, 0, 2, 0, 0xFF, // ...
        0x26, 0, 1, b'k', 0, 1, b'v', 0x26, 0, 1, b'k', 0, 0, b'y', b'z',
    ];
    let mut used = used.to_vec();
    used[1] = (used.len() - 2) as u8;
    used[4] = (used.len() - 2 - 2 - 1 - 2) as u8;
    let Ok((_, Some(Input::Publish { publish, .. }))) = understand(Protocol::V5, &set) else {
        panic!("it is understood");
    };
    assert_eq!((publish.packet_id.map(PacketId::get), publish.dup), (Some(9), true));
    let message = publish.message;
    assert_eq!((message.topic.as_str(), &*message.payload, message.retain), ("a", &b"x"[..], true));
    assert_eq!((message.expires_at, message.properties), (Some(Timestamp(4_000)), None));

    let Ok((_, Some(Input::Publish { publish, .. }))) = understand(Protocol::V5, &[&set[..], &used].concat()) else {
        panic!("it is understood");
    };
    assert_eq!(publish.message.topic.as_str(), "a");
    assert_eq!(&*publish.message.payload, b"yz");
    let properties = publish.message.properties.expect("it has properties");
    assert_eq!(properties.payload_is_utf8, Some(false));
    assert_eq!(properties.content_type.as_deref(), Some("t"));
    assert_eq!(properties.response_topic.as_ref().map(Topic::as_str), Some("r"));
    assert_eq!(properties.correlation_data.as_deref(), Some(&[0, 0xFF][..]));
    assert_eq!(properties.user_properties, [("k".into(), "v".into()), ("k".into(), "".into())]);
}

#[test]
fn topics_of_the_broker_are_not_published_to_by_clients() {
    for (bytes, answer) in [
        (&[0x30, 5, 0, 2, b'$', b'x', 0][..], None),
        (&[0x32, 7, 0, 2, b'$', b'x', 0, 3, 0], Some((3, AcknowledgeStep::Puback))),
        (&[0x34, 7, 0, 2, b'$', b'x', 0, 3, 0], Some((3, AcknowledgeStep::Pubrec))),
    ] {
        let answer = answer.map(|(packet_id, step)| (PacketId::new(packet_id).unwrap(), step));
        assert_eq!(understand(Protocol::V5, bytes), Ok((Understood::Denied(answer), None)), "{bytes:02x?}");
    }
}

// ---------------------------------------------------------------------------------------------- connect

fn connect_packet(level: u8, flags: u8, rest: &[u8]) -> Vec<u8> {
    let body = [&[0, 4, b'M', b'Q', b'T', b'T', level, flags, 0, 60], rest].concat();
    [&[0x10, body.len() as u8], &body[..]].concat()
}

fn connected(bytes: &[u8]) -> Result<connect::Accepted, Refusal> {
    let frame = frame::next(bytes, 1 << 16).expect("the header is well-formed").expect("the packet is whole");
    connect(CONNECTION, frame, NOW, OPTIONS, || "made-up".into())
}

#[test]
fn connects_that_may_not_be_are_refused() {
    use ReasonCode::{
        ClientIdentifierNotValid, MalformedPacket, NotAuthorized, PayloadFormatInvalid, ProtocolError,
        TopicNameInvalid, UnsupportedProtocolVersion,
    };
    let v3 = |reason| Refusal::Told { protocol: Protocol::V3, reason, maximum_packet_size: None };
    let v5 = |reason| Refusal::Told { protocol: Protocol::V5, reason, maximum_packet_size: None };
    let mqisdp = [&[0x10, 15, 0, 6][..], b"MQIsdp", &[3, 2, 0, 60, 0, 1, b'a']].concat();
    for (what, bytes, refusal) in [
        ("another packet first", vec![0xC0, 0], Refusal::Close),
        ("another protocol", vec![0x10, 7, 0, 4, b'H', b'T', b'T', b'P', 4], Refusal::Close),
        ("no level", vec![0x10, 6, 0, 4, b'M', b'Q', b'T', b'T'], Refusal::Close),
        ("3.1", mqisdp, v3(UnsupportedProtocolVersion)),
        ("level 3", connect_packet(3, 2, &[0, 0]), v3(UnsupportedProtocolVersion)),
        ("a bridge", connect_packet(0x84, 2, &[0, 0]), v3(UnsupportedProtocolVersion)),
        ("level 6", connect_packet(6, 2, &[0, 0]), v5(UnsupportedProtocolVersion)),
        ("the reserved flag", connect_packet(4, 3, &[0, 0]), Refusal::Close),
        ("the reserved flag", connect_packet(5, 3, &[0, 0, 0]), v5(MalformedPacket)),
        ("bytes behind the end", connect_packet(4, 2, &[0, 0, 0]), Refusal::Close),
        ("bytes behind the end", connect_packet(5, 2, &[0, 0, 0, 0]), v5(MalformedPacket)),
        ("password without user name", connect_packet(4, 0x42, &[0, 0, 0, 0]), Refusal::Close),
        ("will QoS without will", connect_packet(4, 0x0A, &[0, 0]), Refusal::Close),
        ("will retain without will", connect_packet(5, 0x22, &[0, 0, 0]), v5(MalformedPacket)),
        ("will QoS 3", connect_packet(4, 0x1E, &[0, 0, 0, 1, b'a', 0, 0]), Refusal::Close),
        ("a will to a wildcard", connect_packet(5, 6, &[0, 0, 0, 0, 0, 1, b'#', 0, 0]), v5(TopicNameInvalid)),
        ("a will to $x", connect_packet(4, 6, &[0, 0, 0, 2, b'$', b'x', 0, 0]), v3(NotAuthorized)),
        (
            "a will not of its format",
            connect_packet(5, 6, &[0, 0, 0, 2, 1, 1, 0, 1, b'a', 0, 1, 0xFF]),
            v5(PayloadFormatInvalid),
        ),
        ("a session without a name", connect_packet(4, 0, &[0, 0]), v3(ClientIdentifierNotValid)),
        ("a plugin's name", connect_packet(4, 2, &[0, 2, b'$', b'p']), v3(ClientIdentifierNotValid)),
        ("a plugin's name", connect_packet(5, 2, &[0, 0, 2, b'$', b'p']), v5(ClientIdentifierNotValid)),
        ("U+0000", connect_packet(5, 2, &[0, 0, 1, 0]), v5(MalformedPacket)),
        ("U+0000 in a method", connect_packet(5, 2, &[4, 0x15, 0, 1, 0, 0, 0]), v5(MalformedPacket)),
        (
            "a plugin's name, and packets of 99 bytes",
            connect_packet(5, 2, &[5, 0x27, 0, 0, 0, 99, 0, 2, b'$', b'p']),
            Refusal::Told { protocol: Protocol::V5, reason: ClientIdentifierNotValid, maximum_packet_size: Some(99) },
        ),
        ("data without a method", connect_packet(5, 2, &[4, 0x16, 0, 1, b'x', 0, 0]), v5(ProtocolError)),
    ] {
        assert_eq!(connected(&bytes).map(drop), Err(refusal), "{what}: {bytes:02x?}");
    }
}

#[test]
fn a_connect_is_understood_in_either_protocol() {
    let accepted =
        connected(&connect_packet(4, 0xC6, &[0, 1, b'c', 0, 1, b'w', 0, 2, b'h', b'i', 0, 1, b'u', 0, 1, b'p']))
            .expect("it is accepted");
    assert_eq!((accepted.keep_alive_s, accepted.server_keep_alive_s), (60, None));
    let connect = accepted.connect;
    assert_eq!((&*connect.client_id, connect.client_id_assigned, connect.session_expiry_s), ("c", false, 0));
    let will = connect.will.expect("it has a will");
    assert_eq!((will.message.topic.as_str(), &*will.message.payload, &*will.message.publisher), ("w", &b"hi"[..], "c"));

    // With Topic Alias Maximum 8.
    let properties = [17, 0x11, 0, 0, 0, 9, 0x21, 0, 5, 0x27, 0, 0, 1, 0, 0x22, 0, 8, 0x00];
    let properties = [&[16], &properties[1..17]].concat();
    let mut packet = connect_packet(5, 0, &[&properties[..], &[0, 0]].concat());
    packet[10..12].copy_from_slice(&[0xFF, 0xFF]); // keep alive
    let accepted = connected(&packet).expect("it is accepted");
    assert_eq!((accepted.keep_alive_s, accepted.server_keep_alive_s), (600, Some(600)));
    let connect = accepted.connect;
    assert_eq!((&*connect.client_id, connect.client_id_assigned, connect.clean_start), ("made-up", true, false));
    assert_eq!((connect.session_expiry_s, connect.receive_maximum), (9, 5));
    assert_eq!(connect.maximum_packet_size, Some(256));
    let wishes = accepted.wishes;
    assert_eq!((wishes.topic_alias_maximum, wishes.response_information), (8, false));
    assert_eq!(wishes.problem_information, ProblemInformation::Unsaid);
    assert_eq!(accepted.authentication, None);

    // A will with all of its properties; a message expiry of 0 is one, too.
    let properties = [
        &[33, 0x18, 0, 0, 0, 7, 0x02, 0, 0, 0, 0, 0x01, 1, 0x03, 0, 1, b't', 0x08, 0, 1, b'r', 0x09, 0, 1, 0][..],
        &[0x26, 0, 1, b'k', 0, 3, b'v', b'v', b'v'],
    ]
    .concat();
    let packet =
        connect_packet(5, 0x34, &[&[0, 0, 1, b'c'], &properties[..], &[0, 1, b'w', 0, 2, b'h', b'i']].concat());
    let will = connected(&packet).expect("it is accepted").connect.will.expect("it has a will");
    assert_eq!((will.delay_s, will.expiry_s), (7, Some(0)));
    let message = will.message;
    assert_eq!(
        (message.topic.as_str(), &*message.payload, message.qos, message.retain),
        ("w", &b"hi"[..], Qos::ExactlyOnce, true)
    );
    let properties = message.properties.expect("it has properties");
    assert_eq!((properties.payload_is_utf8, properties.content_type.as_deref()), (Some(true), Some("t")));
    assert_eq!(properties.response_topic.as_ref().map(Topic::as_str), Some("r"));
    assert_eq!(properties.correlation_data.as_deref(), Some(&[0][..]));
    assert_eq!(properties.user_properties.len(), 1);

    let properties = [12, 0x17, 0, 0x19, 1, 0x15, 0, 1, b'm', 0x16, 0, 1, 9];
    let packet = connect_packet(5, 0x80, &[&properties[..], &[0, 1, b'c', 0, 1, b'u']].concat());
    let accepted = connected(&packet).expect("it is accepted");
    let wishes = accepted.wishes;
    assert_eq!((wishes.topic_alias_maximum, wishes.response_information), (0, true));
    assert_eq!(wishes.problem_information, ProblemInformation::Refused);
    let request = accepted.authentication.expect("it names a method");
    assert_eq!((&*request.method, request.user_name.as_deref()), ("m", Some("u")));
    assert_eq!(request.data.as_deref(), Some(&[9][..]));
}

/// [MQTT-3.1.2-29]
#[test]
fn problem_information_is_wanted_only_by_whoever_says_so() {
    // One of every property, in two orders around it.
    let before = [
        &[0x11, 0, 0, 0, 9, 0x27, 0, 0, 1, 0][..],
        &[0x21, 0, 5, 0x22, 0, 8, 0x19, 1],
        &[0x26, 0, 1, 0x17, 0, 1, 1, 0x15, 0, 1, b'm', 0x16, 0, 2, 0x17, 1],
    ]
    .concat();
    for (property, expected) in [
        (&[][..], ProblemInformation::Unsaid),
        (&[0x17, 1], ProblemInformation::Wanted),
        (&[0x17, 0], ProblemInformation::Refused),
    ] {
        for properties in [[&before, property].concat(), [property, &before].concat()] {
            let rest = [&[properties.len() as u8], &properties[..], &[0, 0]].concat();
            let accepted = connected(&connect_packet(5, 2, &rest)).expect("it is accepted");
            assert_eq!(accepted.wishes.problem_information, expected, "{properties:02x?}");
        }
    }
}

// ---------------------------------------------------------------------------------------------- anything at all

/// Bytes that look like packets often enough to get somewhere.
fn packet_like() -> impl Strategy<Value = Vec<u8>> {
    let body = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..60),
        prop::collection::vec(prop_oneof![Just(0), Just(1), Just(2), 0..0x2B_u8, Just(b'a'), any::<u8>()], 0..60),
    ];
    (any::<u8>(), prop::option::of(prop_oneof![Just(4_u8), Just(5)]), body).prop_map(|(first, level, mut body)| {
        if let Some(level) = level {
            body.splice(0..0, [0, 4, b'M', b'Q', b'T', b'T', level]);
        }
        [&[if level.is_some() { 0x10 } else { first }, body.len() as u8], &body[..]].concat()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_bytes_make_the_decoder_panic(packets in prop::collection::vec(packet_like(), 1..5), v5 in any::<bool>()) {
        let mut inbound = inbound(if v5 { Protocol::V5 } else { Protocol::V3 });
        let denied = ["a/#", "+"].map(|filter| Filter(TopicFilter::parse(filter).unwrap()));
        for bytes in packets {
            if let Ok(Some(frame)) = frame::next(&bytes, 1 << 16) {
                let _ = connect(CONNECTION, frame, NOW, OPTIONS, || "made-up".into());
                let _ = auth(frame);
                let _ = inbound.understand(frame, terms(&denied), &mut VecDeque::new());
            }
        }
    }

    #[test]
    fn arbitrary_bytes_do_not_either(bytes in prop::collection::vec(any::<u8>(), 0..200), v5 in any::<bool>()) {
        let mut inbound = inbound(if v5 { Protocol::V5 } else { Protocol::V3 });
        let mut rest = &bytes[..];
        while let Ok(Some(frame)) = frame::next(rest, 100) {
            rest = &rest[frame.bytes.len()..];
            let _ = inbound.understand(frame, terms(&[]), &mut VecDeque::new());
        }
    }
}
