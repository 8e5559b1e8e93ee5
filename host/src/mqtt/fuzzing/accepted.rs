//! What was accepted, held to the specification once more.

use vespiary_core::event::{AcknowledgeStep, Connect, Protocol, Publish, ReasonCode, Subscribe};
use vespiary_core::message::MessageProperties;
use vespiary_core::{Input, Message, Qos, Topic, TopicFilter};

use super::{CONNECTION, FRESH_ID, KEEP_ALIVE_MAXIMUM_S, NOW};
use crate::config::Filter;
use crate::mqtt::frame::{Frame, PacketType};
use crate::mqtt::translate::Accepted;

/// Largest Subscription Identifier (section 3.8.2.1.2).
const MAX_SUBSCRIPTION_IDENTIFIER: u32 = 268_435_455;

/// Checks what a CONNECT of `bytes` bytes came to.
pub(super) fn check_connect(accepted: &Accepted, bytes: usize) {
    let connect = &*accepted.connect;
    let id = &*connect.client_id;
    assert!(!id.is_empty() && !id.starts_with('$') && !id.contains('\0'), "{id:?}");
    assert!(id.len() < bytes);
    assert!(!connect.client_id_assigned || id == FRESH_ID);
    if let Some(will) = &connect.will {
        check_message(&will.message, connect, bytes);
        // Counted from when it is published.
        assert_eq!(will.message.expires_at, None);
        assert!(connect.protocol == Protocol::V5 || (will.expiry_s, will.delay_s) == (None, 0));
    }
    match connect.protocol {
        Protocol::V3 => {
            let expiry_s = if connect.clean_start { 0 } else { u32::MAX };
            assert_eq!((connect.session_expiry_s, connect.receive_maximum), (expiry_s, u16::MAX));
            assert_eq!((connect.maximum_packet_size, accepted.server_keep_alive_s), (None, None));
            assert_eq!((accepted.wishes.topic_alias_maximum, &accepted.authentication), (0, &None));
        }
        Protocol::V5 => {
            assert_ne!(connect.receive_maximum, 0); // section 3.1.2.11.3
            assert_ne!(connect.maximum_packet_size, Some(0)); // section 3.1.2.11.4
            assert!((1..=KEEP_ALIVE_MAXIMUM_S).contains(&accepted.keep_alive_s));
            if let Some(request) = &accepted.authentication {
                let data = request.data.as_ref().map_or(0, |data| data.len());
                assert!(!request.method.contains('\0') && request.method.len() + data < bytes);
            }
        }
    }
}

/// Checks an input that `frame` came to, on the connection that `connect` began.
pub(super) fn check_input(input: &Input, connect: &Connect, frame: Frame<'_>, denied: &[Filter]) {
    let (packet, on) = match input {
        Input::Publish { connection, publish } => {
            check_publish(publish, connect, frame);
            (PacketType::Publish, connection)
        }
        Input::Acknowledge { connection, packet_id: _, step, reason } => {
            assert!(connect.protocol == Protocol::V5 || *reason == ReasonCode::Success);
            let packet = match step {
                AcknowledgeStep::Puback => PacketType::Puback,
                AcknowledgeStep::Pubrec => PacketType::Pubrec,
                AcknowledgeStep::Pubrel => PacketType::Pubrel,
                AcknowledgeStep::Pubcomp => PacketType::Pubcomp,
            };
            (packet, connection)
        }
        Input::Subscribe { connection, subscribe } => {
            check_subscribe(subscribe, connect, frame, denied);
            (PacketType::Subscribe, connection)
        }
        Input::Unsubscribe { connection, packet_id: _, filters } => {
            assert!(!filters.is_empty());
            filters.iter().for_each(check_filter);
            let bytes: usize = filters.iter().map(|filter| 2 + filter.as_str().len()).sum();
            assert!(bytes <= frame.body.len());
            (PacketType::Unsubscribe, connection)
        }
        Input::Started
        | Input::Connect { .. }
        | Input::Disconnect { .. }
        | Input::ConnectionLost { .. }
        | Input::Written { .. }
        | Input::Tick
        | Input::ActivatePlugin { .. }
        | Input::RemovePlugin { .. }
        | Input::TakeEvents { .. }
        | Input::CancelTake { .. }
        | Input::Settle { .. }
        | Input::ReturnEvents { .. }
        | Input::Commit { .. }
        | Input::ArrangeLanes { .. }
        | Input::ChangeDeadLetters { .. }
        | Input::Generation { .. }
        | Input::EndProbation { .. }
        | Input::Loaded { .. }
        | Input::StorageFailed
        | Input::StorageRecovered => panic!("{:?} came to {input:?}", frame.packet),
    };
    assert_eq!((frame.packet, *on), (packet, CONNECTION));
}

fn check_publish(publish: &Publish, connect: &Connect, frame: Frame<'_>) {
    let Publish { packet_id, dup, message } = publish;
    check_message(message, connect, frame.bytes.len());
    assert_eq!(packet_id.is_some(), message.qos != Qos::AtMostOnce); // [MQTT-2.2.1-2]
    assert!(!dup || message.qos != Qos::AtMostOnce); // [MQTT-3.3.1-2]
    let flags = u8::from(*dup) << 3 | (message.qos as u8) << 1 | u8::from(message.retain);
    // Answers to requests are never retained.
    let expected = if message.topic.is_reserved() { frame.flags & !1 } else { frame.flags };
    assert_eq!(flags, expected);
    assert!(frame.body.ends_with(&message.payload));
    assert!(message.expires_at.is_none_or(|at| at >= NOW && connect.protocol == Protocol::V5));
}

/// Checks a message that came within `bytes` bytes, but for a topic that came by its alias.
fn check_message(message: &Message, connect: &Connect, bytes: usize) {
    check_topic(&message.topic);
    assert!(!message.topic.is_reserved() || message.topic.as_str().starts_with("$reply"));
    assert!(message.payload.len() < bytes);
    assert_eq!((message.received_at, &message.publisher), (NOW, &connect.client_id));
    let Some(properties) = &message.properties else { return };
    assert_eq!(connect.protocol, Protocol::V5);
    let MessageProperties { payload_is_utf8, content_type, response_topic, correlation_data, user_properties } =
        &**properties;
    assert_ne!(**properties, MessageProperties::default());
    assert!(*payload_is_utf8 != Some(true) || std::str::from_utf8(&message.payload).is_ok());
    let mut length = message.payload.len() + correlation_data.as_ref().map_or(0, |data| data.len());
    if let Some(topic) = response_topic {
        check_topic(topic); // [MQTT-3.3.2-14]
        length += topic.as_str().len();
    }
    for text in content_type.iter().chain(user_properties.iter().flat_map(|(name, value)| [name, value])) {
        assert!(!text.contains('\0'), "{text:?}"); // [MQTT-1.5.4-2]
        length += 2 + text.len();
    }
    assert!(length < bytes, "{bytes} bytes hold {length}");
}

fn check_subscribe(subscribe: &Subscribe, connect: &Connect, frame: Frame<'_>, denied: &[Filter]) {
    let Subscribe { packet_id: _, identifier, filters } = subscribe;
    assert!(!filters.is_empty() && 3 * filters.len() <= frame.body.len()); // [MQTT-3.8.3-2]
    assert!(identifier.is_none_or(|identifier| (1..=MAX_SUBSCRIPTION_IDENTIFIER).contains(&identifier)));
    assert!(connect.protocol == Protocol::V5 || identifier.is_none());
    for requested in filters {
        match requested {
            Ok((filter, options)) => {
                check_filter(filter);
                let shared = filter.shared().map(|(_, inner)| inner);
                assert!(!options.no_local || shared.is_none()); // [MQTT-3.8.3-4]
                assert!(shared.is_some() || !format!("{filter}/").starts_with("$share/"), "{filter}"); // [MQTT-4.8.2-1]
                let wanted = shared.as_ref().unwrap_or(filter);
                assert!(!denied.iter().any(|denied| denied.covers(wanted)), "{filter}");
                assert!(!wanted.as_str().starts_with("secret/"), "{filter}");
            }
            Err(reason) => assert!(reason.is_error()),
        }
    }
}

fn check_topic(topic: &Topic) {
    assert_eq!(Topic::parse(topic.as_str()).as_ref(), Ok(topic));
}

fn check_filter(filter: &TopicFilter) {
    assert_eq!(TopicFilter::parse(filter.as_str()).as_ref(), Ok(filter));
}
