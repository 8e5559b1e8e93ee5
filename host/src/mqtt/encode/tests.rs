//! Frames against what the codec of ntex-mqtt reads in them, and refusals against the tables of the specification.

use super::super::aliases::Aliases;
use super::super::frame;
use super::*;
use ntex_bytes::BytesMut;
use ntex_codec::Decoder;
use proptest::prelude::*;
use vespiary_core::event::Delivery;
use vespiary_core::message::MessageProperties;
use vespiary_core::{Message, Qos, Timestamp, Topic};

/// A message of any shape.
fn message() -> impl Strategy<Value = Message> {
    let short = "[a-z]{0,8}";
    let properties = (
        prop::option::of(any::<bool>()),
        prop::option::of(short),
        prop::option::of("[a-z]{1,8}"),
        prop::option::of(prop::collection::vec(any::<u8>(), 0..9)),
        prop::collection::vec((short, short), 0..30),
    );
    let payload = prop::collection::vec(any::<u8>(), 0..300);
    ("[a-z/]{1,200}", payload, prop::option::of(properties)).prop_map(|(topic, payload, properties)| Message {
        topic: Topic::parse(&topic).unwrap(),
        payload: payload.into(),
        qos: Qos::ExactlyOnce,
        retain: false,
        properties: properties.map(|(payload_is_utf8, content_type, response_topic, correlation_data, user)| {
            Box::new(MessageProperties {
                payload_is_utf8,
                content_type: content_type.map(Into::into),
                response_topic: response_topic.map(|topic| Topic::parse(&topic).unwrap()),
                correlation_data: correlation_data.map(Into::into),
                user_properties: user.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
            })
        }),
        expires_at: None,
        received_at: Timestamp(0),
        publisher: "p".into(),
        user: None,
    })
}

/// A delivery of it.
fn delivery(message: Arc<Message>) -> impl Strategy<Value = Delivery> {
    let identifiers = prop::option::of(prop::collection::vec(1..=268_435_455_u32, 1..4));
    (0..3_u8, 1..=u16::MAX, any::<[bool; 2]>(), prop::option::of(1..=u32::MAX), identifiers).prop_map(
        move |(qos, packet_id, [retain, dup], expiry_s, identifiers)| Delivery {
            message: message.clone(),
            packet_id: PacketId::new(packet_id).filter(|_| qos > 0),
            qos: Qos::from_u8(qos).unwrap(),
            retain,
            dup: dup && qos > 0,
            expiry_s,
            subscription_identifiers: identifiers.map(Into::into),
        },
    )
}

/// Checks a frame against what the codec of ntex-mqtt reads in it.
fn check(frame: &[u8], delivery: &Delivery, protocol: Protocol) {
    let message = &delivery.message;
    let mut source = BytesMut::from(frame);
    match protocol {
        Protocol::V3 => {
            let decoded = v3::codec::Codec::new().decode(&mut source).unwrap().unwrap();
            let v3::codec::Decoded::Publish(publish, payload, _) = decoded else { panic!("{decoded:?}") };
            assert_eq!(&publish.topic[..], message.topic.as_str());
            assert_eq!((publish.dup, publish.retain), (delivery.dup, delivery.retain));
            assert_eq!((u8::from(publish.qos), publish.packet_id), (delivery.qos as u8, delivery.packet_id));
            assert_eq!(&payload[..], &*message.payload);
        }
        Protocol::V5 => {
            let decoded = v5::codec::Codec::new().decode(&mut source).unwrap().unwrap();
            let v5::codec::Decoded::Publish(publish, payload, _) = decoded else { panic!("{decoded:?}") };
            assert_eq!(&publish.topic[..], message.topic.as_str());
            assert_eq!((publish.dup, publish.retain), (delivery.dup, delivery.retain));
            assert_eq!((u8::from(publish.qos), publish.packet_id), (delivery.qos as u8, delivery.packet_id));
            assert_eq!(&payload[..], &*message.payload);
            let found = publish.properties;
            assert_eq!(found.message_expiry_interval.map(|seconds| seconds.get()), delivery.expiry_s);
            let identifiers: Vec<u32> = found.subscription_ids.iter().map(|id| id.get()).collect();
            assert_eq!(identifiers, delivery.subscription_identifiers.as_deref().unwrap_or_default());
            let expected = message.properties.as_deref().cloned().unwrap_or_default();
            assert_eq!(found.is_utf8_payload, expected.payload_is_utf8.unwrap_or(false));
            assert_eq!(found.content_type.as_deref(), expected.content_type.as_deref());
            assert_eq!(found.response_topic.as_deref(), expected.response_topic.as_ref().map(Topic::as_str));
            assert_eq!(found.correlation_data.as_deref(), expected.correlation_data.as_deref());
            let user: Vec<(Box<str>, Box<str>)> =
                found.user_properties.iter().map(|(name, value)| ((&name[..]).into(), (&value[..]).into())).collect();
            assert_eq!(user, expected.user_properties);
        }
    }
    assert!(source.is_empty());
}

proptest! {
    #[test]
    fn deliveries_say_what_they_are_to_say_also_when_a_frame_is_used_again(
        deliveries in prop::collection::vec(message(), 1..4).prop_flat_map(|messages| {
            let deliveries = messages.into_iter().map(|message| prop::collection::vec(delivery(Arc::new(message)), 1..6));
            deliveries.collect::<Vec<_>>()
        })
    ) {
        let mut publishes = Publishes::default();
        let mut out = Vec::new();
        let deliveries = deliveries.concat();
        for delivery in &deliveries {
            for protocol in [Protocol::V3, Protocol::V5] {
                publishes.append(delivery, delivery.packet_id, protocol, &mut out);
            }
        }
        let mut rest = &out[..];
        for delivery in &deliveries {
            for protocol in [Protocol::V3, Protocol::V5] {
                let frame = frame::next(rest, usize::MAX).unwrap().expect("the frame is whole");
                check(frame.bytes, delivery, protocol);
                rest = &rest[frame.bytes.len()..];
            }
        }
        prop_assert!(rest.is_empty());
    }
}

#[test]
fn refusals_have_the_codes_of_their_protocol() {
    for (reason, v3, v5) in [
        (ReasonCode::UnsupportedProtocolVersion, 1, 0x84),
        (ReasonCode::ClientIdentifierNotValid, 2, 0x85),
        (ReasonCode::QuotaExceeded, 3, 0x97),
        (ReasonCode::ServerUnavailable, 3, 0x88),
        (ReasonCode::BadUserNameOrPassword, 4, 0x86),
        (ReasonCode::NotAuthorized, 5, 0x87),
        (ReasonCode::BadAuthenticationMethod, 3, 0x8C),
        (ReasonCode::UseAnotherServer, 3, 0x9C),
    ] {
        let mut out = Vec::new();
        refusal_v3(reason, &mut out);
        assert_eq!(out, [0x20, 2, 0, v3], "{reason:?}");
        out.clear();
        refusal_v5(reason, None, None, &mut out);
        assert_eq!(out, [0x20, 3, 0, v5, 0], "{reason:?}");
    }
}

/// What the codec of ntex-mqtt reads in a packet.
fn decode_v5(bytes: &[u8]) -> v5::codec::Packet {
    let mut source = BytesMut::from(bytes);
    let decoded = v5::codec::Codec::new().decode(&mut source).unwrap().unwrap();
    assert!(source.is_empty());
    let v5::codec::Decoded::Packet(packet, _) = decoded else { panic!("{decoded:?}") };
    packet
}

#[test]
fn reason_strings_and_server_references_are_where_they_belong() {
    use v5::codec::Packet;
    let id = PacketId::new(0x102).unwrap();
    let text = Some("why");
    let encoded = |encode: &dyn Fn(&mut Vec<u8>)| {
        let mut out = Vec::new();
        encode(&mut out);
        decode_v5(&out)
    };
    for step in [AcknowledgeStep::Puback, AcknowledgeStep::Pubrec, AcknowledgeStep::Pubrel, AcknowledgeStep::Pubcomp] {
        let publishing = matches!(step, AcknowledgeStep::Puback | AcknowledgeStep::Pubrec);
        let reason = if publishing { ReasonCode::QuotaExceeded } else { ReasonCode::PacketIdentifierNotFound };
        let long = "w".repeat(300);
        for text in ["why", &long] {
            let packet = encoded(&|out| acknowledge(Protocol::V5, id, (step, reason), Some(text), out));
            let (packet_id, code, reason_string) = match packet {
                Packet::PublishAck(ack) | Packet::PublishReceived(ack) => {
                    (ack.packet_id, u8::from(ack.reason_code), ack.reason_string)
                }
                Packet::PublishRelease(ack) | Packet::PublishComplete(ack) => {
                    (ack.packet_id, u8::from(ack.reason_code), ack.reason_string)
                }
                other => panic!("{other:?}"),
            };
            assert_eq!((packet_id, code, reason_string.as_deref()), (id, reason as u8, Some(text)));
        }
    }
    let reasons = [ReasonCode::GrantedQos1, ReasonCode::NotAuthorized];
    let Packet::SubscribeAck(ack) = encoded(&|out| suback(Protocol::V5, id, &reasons, text, out)) else { panic!() };
    assert_eq!((ack.reason_string.as_deref(), ack.status.len()), (text, 2));
    let Packet::UnsubscribeAck(ack) = encoded(&|out| unsuback(Protocol::V5, id, &reasons, text, out)) else { panic!() };
    assert_eq!((ack.reason_string.as_deref(), ack.status.len()), (text, 2));
    let there = Some("there:1883");
    let reason = ReasonCode::UseAnotherServer;
    let Packet::ConnectAck(ack) = encoded(&|out| refusal_v5(reason, text, there, out)) else { panic!() };
    assert_eq!((ack.reason_string.as_deref(), ack.server_reference.as_deref()), (text, there));
    let Packet::Disconnect(ack) = encoded(&|out| disconnect(reason, text, there, out)) else { panic!() };
    assert_eq!((ack.reason_string.as_deref(), ack.server_reference.as_deref()), (text, there));
}

proptest! {
    /// [MQTT-3.3.2-8] to [MQTT-3.3.2-12]: what a client makes of it, which knows numbers by what it was sent.
    #[test]
    fn a_client_finds_topic_and_content_behind_every_alias(
        deliveries in prop::collection::vec((0..4_usize, 0..40_usize), 1..40).prop_flat_map(|picks| {
            let topics = ["abc", "abcd", "some/topic", "another/longer/topic"];
            let picks = picks.into_iter().map(move |(topic, payload)| {
                message().prop_flat_map(move |message| {
                    let topic = Topic::parse(topics[topic]).unwrap();
                    delivery(Arc::new(Message { topic, payload: vec![7; payload * 8].into(), ..message }))
                })
            });
            picks.collect::<Vec<_>>()
        }),
        maximum in 1..4_u16,
        limit in prop_oneof![Just(usize::MAX), 100..400_usize]
    ) {
        let mut aliases = Aliases::new(maximum.try_into().unwrap());
        let mut publishes = Publishes::default();
        let mut known = vec![None; usize::from(maximum)];
        for delivery in &deliveries {
            let (mut out, mut plain) = (Vec::new(), Vec::new());
            publishes.append_aliased(delivery, delivery.packet_id, &mut aliases, limit, &mut out);
            publishes.append(delivery, delivery.packet_id, Protocol::V5, &mut plain);
            // A number never makes a packet too large that was not.
            prop_assert!(out.len() <= limit || out.len() <= plain.len());
            let mut source = BytesMut::from(&out[..]);
            let decoded = v5::codec::Codec::new().decode(&mut source).unwrap().unwrap();
            let v5::codec::Decoded::Publish(publish, _, _) = decoded else { panic!("{decoded:?}") };
            let name = delivery.message.topic.as_str();
            if let Some(alias) = publish.properties.topic_alias {
                prop_assert!(alias.get() <= maximum);
                let known = &mut known[usize::from(alias.get()) - 1];
                if publish.topic.is_empty() {
                    prop_assert_eq!(*known, Some(name));
                    prop_assert!(out.len() < plain.len());
                } else {
                    *known = Some(name);
                }
            }
            // With the alias taken out and the topic put back, it is the packet without.
            let restored = v5::codec::Publish {
                topic: name.into(),
                properties: v5::codec::PublishProperties { topic_alias: None, ..publish.properties },
                ..publish
            };
            let decoded = v5::codec::Codec::new().decode(&mut BytesMut::from(&plain[..])).unwrap().unwrap();
            let v5::codec::Decoded::Publish(expected, _, _) = decoded else { panic!("{decoded:?}") };
            let restored = v5::codec::Publish { payload_size: expected.payload_size, ..restored };
            prop_assert_eq!(restored, expected);
        }
    }
}
