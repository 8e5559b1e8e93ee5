//! Packets to bytes, appended to what a connection is about to write.
//!
//! A PUBLISH that goes to many is encoded once per turn and form ([`Publishes`]); each recipient's copy is one append
//! and a patched packet identifier. PUBLISH and its acknowledgements are written by hand, the rarer packets by the
//! codec of ntex-mqtt. Nothing here fails: what the core hands out can be said in either protocol.

use std::sync::Arc;

use ntex_bytes::BytePages;
use ntex_codec::Encoder;
use ntex_mqtt::{v3, v5};
use vespiary_core::Message;
use vespiary_core::event::{AcknowledgeStep, Delivery, PacketId, Protocol, ReasonCode};
use vespiary_core::message::MessageProperties;
use vespiary_core::{Qos, Topic};

use super::translate::{Refusal, connack_reason};

/// PINGRESP.
pub(super) const PINGRESP: [u8; 2] = [0xD0, 0x00];

// ---------------------------------------------------------------------------------------------- publish

/// Encodes deliveries. Those of one message stand together among the effects of a turn, so the frames of the message
/// last seen are kept, one for each form in which it is sent.
#[derive(Debug, Default)]
pub(super) struct Publishes {
    /// The message whose frames are kept; holding it keeps its address from being used again.
    message: Option<Arc<Message>>,
    /// Its frames, one behind the other.
    bytes: Vec<u8>,
    /// Where they are, and what each is for.
    forms: Vec<Form>,
}

/// A way in which a message is sent.
#[derive(Debug)]
struct Form {
    /// Protocol of the recipients.
    protocol: Protocol,
    /// QoS of the delivery.
    qos: Qos,
    /// RETAIN flag of the delivery.
    retain: bool,
    /// Message expiry interval that remains.
    expiry_s: Option<u32>,
    /// Subscription identifiers.
    identifiers: Option<Arc<[u32]>>,
    /// Where the frame begins in `Publishes::bytes`.
    start: usize,
    /// Where it ends.
    end: usize,
    /// Offset of the packet identifier in the frame, for QoS 1 and 2.
    packet_id_at: usize,
}

impl Form {
    fn suits(&self, delivery: &Delivery, protocol: Protocol) -> bool {
        self.protocol == protocol
            && self.qos == delivery.qos
            && self.retain == delivery.retain
            && (protocol == Protocol::V3
                || (self.expiry_s == delivery.expiry_s
                    && same_identifiers(&self.identifiers, &delivery.subscription_identifiers)))
    }
}

fn same_identifiers(one: &Option<Arc<[u32]>>, other: &Option<Arc<[u32]>>) -> bool {
    match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) => Arc::ptr_eq(one, other) || one == other,
        (None, Some(_)) | (Some(_), None) => false,
    }
}

impl Publishes {
    /// Forgets the message, at the end of a turn.
    pub(super) fn forget(&mut self) {
        self.message = None;
    }

    /// Appends a delivery.
    pub(super) fn append(&mut self, delivery: &Delivery, protocol: Protocol, out: &mut Vec<u8>) {
        if !self.message.as_ref().is_some_and(|message| Arc::ptr_eq(message, &delivery.message)) {
            self.message = Some(delivery.message.clone());
            self.forms.clear();
            self.bytes.clear();
        }
        let index = match self.forms.iter().position(|form| form.suits(delivery, protocol)) {
            Some(index) => index,
            None => self.encode(delivery, protocol),
        };
        let form = &self.forms[index];
        let start = out.len();
        out.extend_from_slice(&self.bytes[form.start..form.end]);
        if delivery.dup {
            out[start] |= 0x08;
        }
        if let Some(packet_id) = delivery.packet_id {
            let at = start + form.packet_id_at;
            out[at..at + 2].copy_from_slice(&packet_id.get().to_be_bytes());
        }
    }

    /// Encodes a form of the message (section 3.3), with 0 as packet identifier, and gives its index.
    fn encode(&mut self, delivery: &Delivery, protocol: Protocol) -> usize {
        let message = &*delivery.message;
        let bytes = &mut self.bytes;
        let identified = delivery.qos != Qos::AtMostOnce;
        let identifiers = delivery.subscription_identifiers.as_deref().unwrap_or_default();
        let properties = match protocol {
            Protocol::V3 => 0,
            Protocol::V5 => properties_length(message.properties.as_deref(), delivery.expiry_s, identifiers),
        };
        let properties_with_length = match protocol {
            Protocol::V3 => 0,
            Protocol::V5 => variable_length(properties) + properties,
        };
        let topic = message.topic.as_str();
        let remaining = 2 + topic.len() + 2 * usize::from(identified) + properties_with_length + message.payload.len();
        let start = bytes.len();
        bytes.reserve(super::frame::MAX_HEADER_BYTES + remaining);
        bytes.push(0x30 | (delivery.qos as u8) << 1 | u8::from(delivery.retain));
        put_variable(remaining, bytes);
        put_binary(topic.as_bytes(), bytes);
        let packet_id_at = bytes.len() - start;
        if identified {
            bytes.extend_from_slice(&[0, 0]);
        }
        if protocol == Protocol::V5 {
            put_variable(properties, bytes);
            put_properties(message.properties.as_deref(), delivery.expiry_s, identifiers, bytes);
        }
        bytes.extend_from_slice(&message.payload);
        self.forms.push(Form {
            protocol,
            qos: delivery.qos,
            retain: delivery.retain,
            expiry_s: delivery.expiry_s,
            identifiers: delivery.subscription_identifiers.clone(),
            start,
            end: self.bytes.len(),
            packet_id_at,
        });
        self.forms.len() - 1
    }
}

fn properties_length(properties: Option<&MessageProperties>, expiry_s: Option<u32>, identifiers: &[u32]) -> usize {
    let mut length = expiry_s.map_or(0, |_| 5);
    for &identifier in identifiers {
        length += 1 + variable_length(identifier as usize);
    }
    let Some(properties) = properties else { return length };
    length += properties.payload_is_utf8.map_or(0, |_| 2);
    length += properties.content_type.as_ref().map_or(0, |text| 3 + text.len());
    length += properties.response_topic.as_ref().map_or(0, |topic| 3 + topic.as_str().len());
    length += properties.correlation_data.as_ref().map_or(0, |data| 3 + data.len());
    length + properties.user_properties.iter().map(|(name, value)| 5 + name.len() + value.len()).sum::<usize>()
}

/// Writes the properties of a PUBLISH to a client (section 3.3.2.3), the user's in the order in which they came
/// [MQTT-3.3.2-18].
fn put_properties(
    properties: Option<&MessageProperties>,
    expiry_s: Option<u32>,
    identifiers: &[u32],
    bytes: &mut Vec<u8>,
) {
    if let Some(seconds) = expiry_s {
        bytes.push(0x02);
        bytes.extend_from_slice(&seconds.to_be_bytes());
    }
    for &identifier in identifiers {
        bytes.push(0x0B);
        put_variable(identifier as usize, bytes);
    }
    let Some(properties) = properties else { return };
    if let Some(is_utf8) = properties.payload_is_utf8 {
        bytes.extend_from_slice(&[0x01, u8::from(is_utf8)]);
    }
    if let Some(content_type) = &properties.content_type {
        bytes.push(0x03);
        put_binary(content_type.as_bytes(), bytes);
    }
    if let Some(topic) = properties.response_topic.as_ref().map(Topic::as_str) {
        bytes.push(0x08);
        put_binary(topic.as_bytes(), bytes);
    }
    if let Some(data) = &properties.correlation_data {
        bytes.push(0x09);
        put_binary(data, bytes);
    }
    for (name, value) in &properties.user_properties {
        bytes.push(0x26);
        put_binary(name.as_bytes(), bytes);
        put_binary(value.as_bytes(), bytes);
    }
}

/// Writes a length of two bytes and the data. What the core holds came from such a field, or from a plugin's output,
/// which is bounded likewise; anything longer would be cut rather than break the stream.
fn put_binary(data: &[u8], bytes: &mut Vec<u8>) {
    debug_assert!(data.len() <= usize::from(u16::MAX));
    let length = u16::try_from(data.len()).unwrap_or(u16::MAX);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&data[..usize::from(length)]);
}

fn variable_length(value: usize) -> usize {
    match value {
        0..=127 => 1,
        128..=16_383 => 2,
        16_384..=2_097_151 => 3,
        _ => 4,
    }
}

fn put_variable(mut value: usize, bytes: &mut Vec<u8>) {
    debug_assert!(value <= super::frame::MAX_REMAINING_LENGTH);
    while value > 0x7F {
        bytes.push((value & 0x7F) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

// ---------------------------------------------------------------------------------------------- acknowledgements

/// PUBACK, PUBREC, PUBREL or PUBCOMP. 5.0 leaves out a reason of Success [section 3.4.2.1]; 3.1.1 has none.
pub(super) fn acknowledge(
    protocol: Protocol,
    packet_id: PacketId,
    step: AcknowledgeStep,
    reason: ReasonCode,
    out: &mut Vec<u8>,
) {
    let first = match step {
        AcknowledgeStep::Puback => 0x40,
        AcknowledgeStep::Pubrec => 0x50,
        AcknowledgeStep::Pubrel => 0x62,
        AcknowledgeStep::Pubcomp => 0x70,
    };
    let [high, low] = packet_id.get().to_be_bytes();
    if protocol == Protocol::V3 || reason == ReasonCode::Success {
        out.extend_from_slice(&[first, 2, high, low]);
    } else {
        out.extend_from_slice(&[first, 3, high, low, reason as u8]);
    }
}

/// SUBACK: in 3.1.1, whatever was refused is 0x80.
pub(super) fn suback(protocol: Protocol, packet_id: PacketId, reasons: &[ReasonCode], out: &mut Vec<u8>) {
    match protocol {
        Protocol::V3 => {
            let status = reasons.iter().map(|reason| match reason {
                ReasonCode::Success => v3::codec::SubscribeReturnCode::Success(ntex_mqtt::QoS::AtMostOnce),
                ReasonCode::GrantedQos1 => v3::codec::SubscribeReturnCode::Success(ntex_mqtt::QoS::AtLeastOnce),
                ReasonCode::GrantedQos2 => v3::codec::SubscribeReturnCode::Success(ntex_mqtt::QoS::ExactlyOnce),
                _ => v3::codec::SubscribeReturnCode::Failure,
            });
            put_v3(v3::codec::Packet::SubscribeAck { packet_id, status: status.collect() }, out);
        }
        Protocol::V5 => {
            use v5::codec::SubscribeAckReason as Code;
            let status =
                reasons.iter().map(|reason| Code::try_from(*reason as u8).unwrap_or(Code::UnspecifiedError)).collect();
            let packet = v5::codec::SubscribeAck { packet_id, properties: Vec::new(), reason_string: None, status };
            put_v5(v5::codec::Packet::SubscribeAck(packet), out);
        }
    }
}

/// UNSUBACK: in 3.1.1 without reasons.
pub(super) fn unsuback(protocol: Protocol, packet_id: PacketId, reasons: &[ReasonCode], out: &mut Vec<u8>) {
    match protocol {
        Protocol::V3 => put_v3(v3::codec::Packet::UnsubscribeAck { packet_id }, out),
        Protocol::V5 => {
            use v5::codec::UnsubscribeAckReason as Code;
            let status =
                reasons.iter().map(|reason| Code::try_from(*reason as u8).unwrap_or(Code::UnspecifiedError)).collect();
            let packet = v5::codec::UnsubscribeAck { packet_id, properties: Vec::new(), reason_string: None, status };
            put_v5(v5::codec::Packet::UnsubscribeAck(packet), out);
        }
    }
}

// ---------------------------------------------------------------------------------------------- beginning and end

/// What a CONNACK that accepts tells a 5.0 client (section 3.2.2.3).
#[derive(Debug)]
pub(super) struct Announcement {
    /// Whether the session was there before.
    pub(super) session_present: bool,
    /// The session expiry interval, where it is not what the client asked for.
    pub(super) session_expiry_s: Option<u32>,
    /// The identifier made up for the client.
    pub(super) assigned_client_id: Option<Arc<str>>,
    /// The keep-alive, where it is not what the client asked for.
    pub(super) server_keep_alive_s: Option<u16>,
    /// QoS 1 and 2 publishes that we take unacknowledged.
    pub(super) receive_maximum: u16,
    /// Largest packet that we take.
    pub(super) maximum_packet_size: u32,
    /// Highest topic alias that we take.
    pub(super) topic_alias_maximum: u16,
}

/// CONNACK that accepts.
pub(super) fn connack(protocol: Protocol, announcement: Announcement, out: &mut Vec<u8>) {
    let session_present = announcement.session_present;
    match protocol {
        Protocol::V3 => {
            let return_code = v3::codec::ConnectAckReason::ConnectionAccepted;
            put_v3(v3::codec::Packet::ConnectAck(v3::codec::ConnectAck { return_code, session_present }), out);
        }
        Protocol::V5 => {
            let packet = v5::codec::ConnectAck {
                session_present,
                session_expiry_interval_secs: announcement.session_expiry_s,
                receive_max: announcement.receive_maximum.try_into().unwrap_or(std::num::NonZeroU16::MAX),
                max_packet_size: Some(announcement.maximum_packet_size),
                assigned_client_id: announcement.assigned_client_id.as_deref().map(Into::into),
                topic_alias_max: announcement.topic_alias_maximum,
                retain_available: true,
                wildcard_subscription_available: true,
                subscription_identifiers_available: true,
                shared_subscription_available: false,
                server_keepalive_sec: announcement.server_keep_alive_s,
                ..v5::codec::ConnectAck::default()
            };
            put_v5(v5::codec::Packet::ConnectAck(Box::new(packet)), out);
        }
    }
}

/// CONNACK with which the core refuses.
pub(super) fn refused(protocol: Protocol, reason: ReasonCode, out: &mut Vec<u8>) {
    use v3::codec::ConnectAckReason as Code;
    match protocol {
        Protocol::V5 => refusal(Refusal::V5(connack_reason(reason)), out),
        Protocol::V3 => {
            let code = match reason {
                ReasonCode::UnsupportedProtocolVersion => Code::UnacceptableProtocolVersion,
                ReasonCode::ClientIdentifierNotValid => Code::IdentifierRejected,
                ReasonCode::NotAuthorized => Code::NotAuthorized,
                _ => Code::ServiceUnavailable,
            };
            refusal(Refusal::V3(code), out);
        }
    }
}

/// CONNACK with which the connection refuses.
pub(super) fn refusal(refusal: Refusal, out: &mut Vec<u8>) {
    match refusal {
        Refusal::Close => {}
        Refusal::V3(return_code) => {
            put_v3(v3::codec::Packet::ConnectAck(v3::codec::ConnectAck { return_code, session_present: false }), out);
        }
        Refusal::V5(reason_code) => {
            let packet = v5::codec::ConnectAck { reason_code, ..v5::codec::ConnectAck::default() };
            put_v5(v5::codec::Packet::ConnectAck(Box::new(packet)), out);
        }
    }
}

/// DISCONNECT, which only 5.0 lets a server send.
pub(super) fn disconnect(reason: ReasonCode, out: &mut Vec<u8>) {
    use v5::codec::DisconnectReasonCode as Code;
    let code = Code::try_from(reason as u8).unwrap_or(Code::UnspecifiedError);
    put_v5(v5::codec::Packet::Disconnect(v5::codec::Disconnect::new(code)), out);
}

fn put_v3(packet: v3::codec::Packet, out: &mut Vec<u8>) {
    let mut pages = BytePages::default();
    let encoded = v3::codec::Codec::new().encodev(v3::codec::Encoded::Packet(packet), &mut pages);
    debug_assert!(encoded.is_ok(), "the codec takes every packet that is built here");
    pages.iter().for_each(|page| out.extend_from_slice(page));
}

fn put_v5(packet: v5::codec::Packet, out: &mut Vec<u8>) {
    let mut pages = BytePages::default();
    let encoded = v5::codec::Codec::new().encodev(v5::codec::Encoded::Packet(packet), &mut pages);
    debug_assert!(encoded.is_ok(), "the codec takes every packet that is built here");
    pages.iter().for_each(|page| out.extend_from_slice(page));
}

#[cfg(test)]
mod tests {
    use super::super::frame;
    use super::*;
    use ntex_bytes::BytesMut;
    use ntex_codec::Decoder;
    use proptest::prelude::*;
    use vespiary_core::Timestamp;

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
                let user: Vec<(Box<str>, Box<str>)> = found
                    .user_properties
                    .iter()
                    .map(|(name, value)| ((&name[..]).into(), (&value[..]).into()))
                    .collect();
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
                    publishes.append(delivery, protocol, &mut out);
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
            (ReasonCode::NotAuthorized, 5, 0x87),
        ] {
            let mut out = Vec::new();
            refused(Protocol::V3, reason, &mut out);
            assert_eq!(out, [0x20, 2, 0, v3], "{reason:?}");
            out.clear();
            refused(Protocol::V5, reason, &mut out);
            assert_eq!(out, [0x20, 3, 0, v5, 0], "{reason:?}");
        }
    }
}
