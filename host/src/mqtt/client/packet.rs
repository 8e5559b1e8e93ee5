//! The client's packets, the same for 3.1.1 and 5.0, and their way to and from bytes.
//!
//! [`Wire`] guards ntex-mqtt's decoder against what a broken broker may send: it hands over whole packets only, within
//! the size limit, in which the lengths of a PUBLISH fit. After an error the stream cannot be read any further. It
//! decides nothing about sessions; packets that only a client may send are refused here.

use ntex_bytes::{BytePages, ByteString, Bytes, BytesMut};
use ntex_codec::{Decoder as _, Encoder as _};
use ntex_mqtt::{QoS, v3, v5};
use std::num::NonZeroU32;
use vespiary_core::Qos;
use vespiary_core::event::{AcknowledgeStep, PacketId, Protocol, ReasonCode, RetainHandling, SubscriptionOptions};
use vespiary_core::message::MessageProperties;
use vespiary_core::topic::Topic;

use super::super::frame::{self, Fields, PacketType};
use super::{ConnectOptions, Delivery, Publish, Reason};

/// What a broker sends.
#[derive(Debug, PartialEq)]
pub(super) enum Received {
    /// CONNACK.
    Connack(Connack),
    /// PUBLISH.
    Publish(Delivery),
    /// PUBACK, PUBREC, PUBREL or PUBCOMP.
    Acknowledge { packet_id: PacketId, step: AcknowledgeStep, reason: Reason },
    /// SUBACK or UNSUBACK: a reason for each filter; none in an UNSUBACK of 3.1.1.
    Answer { packet_id: PacketId, reasons: Vec<Reason> },
    /// PINGRESP.
    Pong,
    /// DISCONNECT (5.0), with what the broker says about it.
    Disconnect { reason: Reason, text: Option<String> },
}

/// CONNACK, with the bounds that the broker sets.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Connack {
    /// Whether the broker has a session of this client.
    pub(super) session_present: bool,
    /// Success, or why not.
    pub(super) reason: Reason,
    /// What the broker says about the reason, if anything.
    pub(super) reason_text: Option<String>,
    /// Unacknowledged publishes that the broker takes.
    pub(super) receive_maximum: u16,
    /// Keep-alive that the broker wants instead of ours.
    pub(super) keep_alive_s: Option<u16>,
    /// Identifier that the broker made up for us.
    pub(super) assigned_client_id: Option<String>,
}

/// What a client sends.
#[derive(Debug, Clone, Copy)]
pub(super) enum Sent<'a> {
    /// CONNECT.
    Connect { options: &'a ConnectOptions, clean_start: bool },
    /// PUBLISH; the identifier exactly for QoS 1 and 2.
    Publish { publish: &'a Publish, packet_id: Option<PacketId>, dup: bool },
    /// PUBACK, PUBREC, PUBREL or PUBCOMP with reason 0.
    Acknowledge { packet_id: PacketId, step: AcknowledgeStep },
    /// SUBSCRIBE.
    Subscribe { packet_id: PacketId, filters: &'a [(String, SubscriptionOptions)] },
    /// UNSUBSCRIBE.
    Unsubscribe { packet_id: PacketId, filters: &'a [String] },
    /// PINGREQ.
    Ping,
    /// DISCONNECT, with a new session expiry interval (5.0).
    Disconnect { with_will: bool, session_expiry_s: Option<u32> },
}

/// Why bytes are not a packet, or a packet cannot become bytes.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(super) enum WireError {
    /// A packet that came, beyond the limit.
    #[error("a packet larger than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: u32,
    },
    /// A text or a payload that is to be sent.
    #[error("{size} bytes where at most {limit} fit")]
    TooLong {
        /// Its size.
        size: usize,
        /// What fits.
        limit: u32,
    },
    /// Not MQTT.
    #[error("a malformed packet ({0})")]
    Malformed(String),
    /// MQTT that a broker must not send.
    #[error("{0}, which it must not")]
    Unexpected(&'static str),
}

/// Bytes to packets and back, for one connection.
pub(super) struct Wire {
    /// The codec of the protocol spoken.
    codec: Codec,
    /// Where the codec leaves its bytes; kept for its memory.
    pages: BytePages,
    /// Largest packet taken, in bytes.
    limit: u32,
}

enum Codec {
    V3(v3::codec::Codec),
    V5(v5::codec::Codec),
}

impl Wire {
    /// A codec for one connection; `limit` bounds incoming packets.
    pub(super) fn new(protocol: Protocol, limit: u32) -> Self {
        let codec = match protocol {
            Protocol::V3 => Codec::V3(v3::codec::Codec::new()),
            Protocol::V5 => Codec::V5(v5::codec::Codec::new()),
        };
        Self { codec, pages: BytePages::default(), limit }
    }

    /// Takes the next packet off `input`; `None` when it is not all there.
    pub(super) fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Received>, WireError> {
        let Some(length) = whole_packet(input, self.limit, matches!(self.codec, Codec::V5(_)))? else {
            return Ok(None);
        };
        if matches!(self.codec, Codec::V5(_)) && length == 4 && input[0] == 0x20 {
            // A broker that speaks 3.1.1 only answers in its own format.
            let reason = connack_reason(input[3]);
            input.advance_to(length);
            return Ok(Some(Received::Connack(Connack::plain(false, reason))));
        }
        let mut frame = BytesMut::from(input.split_to(length));
        match &self.codec {
            Codec::V3(codec) => match codec.decode(&mut frame).map_err(malformed)? {
                Some(v3::codec::Decoded::Packet(packet, _)) => from_v3(packet).map(Some),
                Some(v3::codec::Decoded::Publish(publish, payload, _)) => publish_from_v3(publish, &payload).map(Some),
                Some(v3::codec::Decoded::PayloadChunk(..)) | None => Err(malformed("torn")),
            },
            Codec::V5(codec) => match codec.decode(&mut frame).map_err(malformed)? {
                Some(v5::codec::Decoded::Packet(packet, _)) => from_v5(packet).map(Some),
                Some(v5::codec::Decoded::Publish(publish, payload, _)) => publish_from_v5(publish, &payload).map(Some),
                Some(v5::codec::Decoded::PayloadChunk(..)) | None => Err(malformed("torn")),
            },
        }
    }

    /// Appends a packet to `output`, which an error leaves as it was.
    pub(super) fn encode(&mut self, packet: Sent<'_>, output: &mut Vec<u8>) -> Result<(), WireError> {
        let encoded = match &self.codec {
            Codec::V3(codec) => codec.encodev(to_v3(packet)?, &mut self.pages),
            Codec::V5(codec) => codec.encodev(to_v5(packet)?, &mut self.pages),
        };
        if encoded.is_ok() {
            self.pages.iter().for_each(|page| output.extend_from_slice(page));
        }
        self.pages.clear();
        encoded.map_err(malformed)
    }
}

/// Length of the packet at the start of `input`, once all of it is there. A PUBLISH whose topic, packet identifier or
/// properties run past the packet is refused: the codec would read on into the packets behind it.
fn whole_packet(input: &[u8], limit: u32, with_properties: bool) -> Result<Option<usize>, WireError> {
    let guard = |error: ReasonCode| match error {
        ReasonCode::PacketTooLarge => WireError::TooLarge { limit },
        _ => malformed("its fixed header is wrong"),
    };
    let Some(frame) = frame::next(input, limit as usize).map_err(guard)? else { return Ok(None) };
    if frame.packet == PacketType::Publish {
        let mut fields = Fields::new(frame.body);
        let mut read = || {
            fields.binary()?;
            if frame.flags & 0b0110 != 0 {
                fields.two_bytes()?;
            }
            if with_properties { fields.properties().map(drop) } else { Ok(()) }
        };
        read().map_err(|_: ReasonCode| malformed("the lengths in a PUBLISH do not fit"))?;
    }
    Ok(Some(frame.bytes.len()))
}

fn malformed(cause: impl ToString) -> WireError {
    WireError::Malformed(cause.to_string().to_lowercase())
}

impl Connack {
    fn plain(session_present: bool, reason: Reason) -> Self {
        Self {
            session_present,
            reason,
            reason_text: None,
            receive_maximum: u16::MAX,
            keep_alive_s: None,
            assigned_client_id: None,
        }
    }
}

/// The 5.0 reason for a 3.1.1 CONNACK return code.
fn connack_reason(code: u8) -> Reason {
    Reason(match code {
        0 => 0x00,
        1 => 0x84,
        2 => 0x85,
        3 => 0x88,
        4 => 0x86,
        5 => 0x87,
        _ => 0x80,
    })
}

// ---------------------------------------------------------------------------------------------- from the codecs

fn from_v3(packet: v3::codec::Packet) -> Result<Received, WireError> {
    use v3::codec::{Packet, SubscribeReturnCode};
    let acknowledge = |packet_id, step| Ok(Received::Acknowledge { packet_id, step, reason: Reason(0) });
    match packet {
        Packet::ConnectAck(ack) => {
            Ok(Received::Connack(Connack::plain(ack.session_present, connack_reason(ack.return_code.into()))))
        }
        Packet::PublishAck { packet_id } => acknowledge(packet_id, AcknowledgeStep::Puback),
        Packet::PublishReceived { packet_id } => acknowledge(packet_id, AcknowledgeStep::Pubrec),
        Packet::PublishRelease { packet_id } => acknowledge(packet_id, AcknowledgeStep::Pubrel),
        Packet::PublishComplete { packet_id } => acknowledge(packet_id, AcknowledgeStep::Pubcomp),
        Packet::SubscribeAck { packet_id, status } => {
            let reason = |code: &SubscribeReturnCode| match code {
                SubscribeReturnCode::Success(qos) => Reason((*qos).into()),
                SubscribeReturnCode::Failure => Reason(0x80),
            };
            Ok(Received::Answer { packet_id, reasons: status.iter().map(reason).collect() })
        }
        Packet::UnsubscribeAck { packet_id } => Ok(Received::Answer { packet_id, reasons: Vec::new() }),
        Packet::PingResponse => Ok(Received::Pong),
        Packet::Connect(_)
        | Packet::Subscribe { .. }
        | Packet::Unsubscribe { .. }
        | Packet::PingRequest
        | Packet::Disconnect => Err(WireError::Unexpected("a packet that only clients send")),
    }
}

fn from_v5(packet: v5::codec::Packet) -> Result<Received, WireError> {
    use v5::codec::Packet;
    let publish_ack = |ack: v5::codec::PublishAck, step| {
        Ok(Received::Acknowledge { packet_id: ack.packet_id, step, reason: Reason(ack.reason_code.into()) })
    };
    let release_ack = |ack: v5::codec::PublishAck2, step| {
        Ok(Received::Acknowledge { packet_id: ack.packet_id, step, reason: Reason(ack.reason_code.into()) })
    };
    match packet {
        Packet::ConnectAck(ack) => Ok(Received::Connack(Connack {
            session_present: ack.session_present,
            reason: Reason(ack.reason_code.into()),
            reason_text: ack.reason_string.as_ref().map(ToString::to_string),
            receive_maximum: ack.receive_max.get(),
            keep_alive_s: ack.server_keepalive_sec,
            assigned_client_id: ack.assigned_client_id.as_ref().map(ToString::to_string),
        })),
        Packet::PublishAck(ack) => publish_ack(ack, AcknowledgeStep::Puback),
        Packet::PublishReceived(ack) => publish_ack(ack, AcknowledgeStep::Pubrec),
        Packet::PublishRelease(ack) => release_ack(ack, AcknowledgeStep::Pubrel),
        Packet::PublishComplete(ack) => release_ack(ack, AcknowledgeStep::Pubcomp),
        Packet::SubscribeAck(ack) => {
            let reasons = ack.status.iter().map(|reason| Reason((*reason).into())).collect();
            Ok(Received::Answer { packet_id: ack.packet_id, reasons })
        }
        Packet::UnsubscribeAck(ack) => {
            let reasons = ack.status.iter().map(|reason| Reason((*reason).into())).collect();
            Ok(Received::Answer { packet_id: ack.packet_id, reasons })
        }
        Packet::PingResponse => Ok(Received::Pong),
        Packet::Disconnect(disconnect) => Ok(Received::Disconnect {
            reason: Reason(disconnect.reason_code.into()),
            text: disconnect.reason_string.as_ref().map(ToString::to_string),
        }),
        Packet::Auth(_) => Err(WireError::Unexpected("AUTH without being asked")),
        Packet::Connect(_) | Packet::Subscribe(_) | Packet::Unsubscribe(_) | Packet::PingRequest => {
            Err(WireError::Unexpected("a packet that only clients send"))
        }
    }
}

fn publish_from_v3(publish: v3::codec::Publish, payload: &[u8]) -> Result<Received, WireError> {
    Ok(Received::Publish(Delivery {
        topic: topic(&publish.topic)?,
        payload: payload.to_vec(),
        qos: qos(publish.qos),
        retain: publish.retain,
        dup: publish.dup,
        packet_id: publish.packet_id,
        properties: None,
        expiry_s: None,
        subscription_identifiers: Vec::new(),
    }))
}

fn publish_from_v5(publish: v5::codec::Publish, payload: &[u8]) -> Result<Received, WireError> {
    let v5::codec::Publish { dup, retain, qos: level, packet_id, topic: name, properties, .. } = publish;
    let text = |value: &ByteString| Box::<str>::from(&**value);
    let message_properties = MessageProperties {
        payload_is_utf8: properties.is_utf8_payload.then_some(true),
        content_type: properties.content_type.as_ref().map(text),
        response_topic: properties.response_topic.as_ref().and_then(|topic| Topic::parse(topic).ok()),
        correlation_data: properties.correlation_data.as_ref().map(|data| Box::from(&**data)),
        user_properties: properties.user_properties.iter().map(|(name, value)| (text(name), text(value))).collect(),
    };
    Ok(Received::Publish(Delivery {
        topic: topic(&name)?,
        payload: payload.to_vec(),
        qos: qos(level),
        retain,
        dup,
        packet_id,
        properties: (message_properties != MessageProperties::default()).then(|| Box::new(message_properties)),
        expiry_s: properties.message_expiry_interval.map(NonZeroU32::get),
        subscription_identifiers: properties.subscription_ids.iter().map(|id| id.get()).collect(),
    }))
}

/// A topic name as a broker may send it. No alias is ever announced, so an empty name is an error too.
fn topic(name: &ByteString) -> Result<String, WireError> {
    let name: &str = name;
    if name.is_empty() || name.contains(['+', '#', '\0']) {
        return Err(WireError::Unexpected("a PUBLISH without a valid topic name"));
    }
    Ok(name.to_owned())
}

fn qos(level: QoS) -> Qos {
    match level {
        QoS::AtMostOnce => Qos::AtMostOnce,
        QoS::AtLeastOnce => Qos::AtLeastOnce,
        QoS::ExactlyOnce => Qos::ExactlyOnce,
    }
}

// ---------------------------------------------------------------------------------------------- to the codecs

fn level(qos: Qos) -> QoS {
    match qos {
        Qos::AtMostOnce => QoS::AtMostOnce,
        Qos::AtLeastOnce => QoS::AtLeastOnce,
        Qos::ExactlyOnce => QoS::ExactlyOnce,
    }
}

fn text(value: &str) -> Result<ByteString, WireError> {
    if value.len() > usize::from(u16::MAX) {
        return Err(WireError::TooLong { size: value.len(), limit: u32::from(u16::MAX) });
    }
    Ok(ByteString::from(value))
}

fn payload_size(publish: &Publish) -> Result<u32, WireError> {
    // The largest remaining length, less the longest topic and generous properties.
    const LIMIT: u32 = 0x0fff_ffff - 0x3_0000;
    match u32::try_from(publish.payload.len()) {
        Ok(size) if size <= LIMIT => Ok(size),
        Ok(_) | Err(_) => Err(WireError::TooLong { size: publish.payload.len(), limit: LIMIT }),
    }
}

fn to_v3(packet: Sent<'_>) -> Result<v3::codec::Encoded, WireError> {
    use v3::codec::{Encoded, Packet};
    let packet = match packet {
        Sent::Connect { options, clean_start } => Packet::Connect(Box::new(v3_connect(options, clean_start)?)),
        Sent::Publish { publish, packet_id, dup } => {
            let header = v3::codec::Publish {
                dup,
                retain: publish.retain,
                qos: level(publish.qos),
                topic: text(&publish.topic)?,
                packet_id,
                payload_size: payload_size(publish)?,
            };
            return Ok(Encoded::Publish(header, Some(Bytes::copy_from_slice(&publish.payload))));
        }
        Sent::Acknowledge { packet_id, step } => match step {
            AcknowledgeStep::Puback => Packet::PublishAck { packet_id },
            AcknowledgeStep::Pubrec => Packet::PublishReceived { packet_id },
            AcknowledgeStep::Pubrel => Packet::PublishRelease { packet_id },
            AcknowledgeStep::Pubcomp => Packet::PublishComplete { packet_id },
        },
        Sent::Subscribe { packet_id, filters } => {
            let filter = |(filter, options): &(String, SubscriptionOptions)| {
                text(filter).map(|filter| (filter, level(options.maximum_qos)))
            };
            Packet::Subscribe { packet_id, topic_filters: filters.iter().map(filter).collect::<Result<_, _>>()? }
        }
        Sent::Unsubscribe { packet_id, filters } => {
            let topic_filters = filters.iter().map(|filter| text(filter)).collect::<Result<_, _>>()?;
            Packet::Unsubscribe { packet_id, topic_filters }
        }
        Sent::Ping => Packet::PingRequest,
        Sent::Disconnect { .. } => Packet::Disconnect,
    };
    Ok(Encoded::Packet(packet))
}

fn v3_connect(options: &ConnectOptions, clean_start: bool) -> Result<v3::codec::Connect, WireError> {
    let last_will = match &options.will {
        None => None,
        Some(will) => Some(v3::codec::LastWill {
            qos: level(will.publish.qos),
            retain: will.publish.retain,
            topic: text(&will.publish.topic)?,
            message: Bytes::copy_from_slice(&will.publish.payload),
        }),
    };
    Ok(v3::codec::Connect {
        clean_session: clean_start,
        keep_alive: options.keep_alive_s,
        last_will,
        client_id: text(&options.client_id)?,
        username: options.username.as_deref().map(text).transpose()?,
        password: options.password.as_deref().map(Bytes::copy_from_slice),
    })
}

fn to_v5(packet: Sent<'_>) -> Result<v5::codec::Encoded, WireError> {
    use v5::codec::{Encoded, Packet, PublishAck, PublishAck2};
    let packet = match packet {
        Sent::Connect { options, clean_start } => Packet::Connect(Box::new(v5_connect(options, clean_start)?)),
        Sent::Publish { publish, packet_id, dup } => {
            let header = v5::codec::Publish {
                dup,
                retain: publish.retain,
                qos: level(publish.qos),
                packet_id,
                topic: text(&publish.topic)?,
                payload_size: payload_size(publish)?,
                properties: v5_properties(publish)?,
            };
            return Ok(Encoded::Publish(header, Some(Bytes::copy_from_slice(&publish.payload))));
        }
        Sent::Acknowledge { packet_id, step } => match step {
            AcknowledgeStep::Puback => Packet::PublishAck(PublishAck { packet_id, ..PublishAck::default() }),
            AcknowledgeStep::Pubrec => Packet::PublishReceived(PublishAck { packet_id, ..PublishAck::default() }),
            AcknowledgeStep::Pubrel => Packet::PublishRelease(PublishAck2 { packet_id, ..PublishAck2::default() }),
            AcknowledgeStep::Pubcomp => Packet::PublishComplete(PublishAck2 { packet_id, ..PublishAck2::default() }),
        },
        Sent::Subscribe { packet_id, filters } => {
            let filter = |(filter, options): &(String, SubscriptionOptions)| {
                text(filter).map(|filter| (filter, v5_subscription(*options)))
            };
            let topic_filters = filters.iter().map(filter).collect::<Result<_, _>>()?;
            Packet::Subscribe(v5::codec::Subscribe { packet_id, id: None, user_properties: Vec::new(), topic_filters })
        }
        Sent::Unsubscribe { packet_id, filters } => {
            let topic_filters = filters.iter().map(|filter| text(filter)).collect::<Result<_, _>>()?;
            Packet::Unsubscribe(v5::codec::Unsubscribe { packet_id, user_properties: Vec::new(), topic_filters })
        }
        Sent::Ping => Packet::PingRequest,
        Sent::Disconnect { with_will, session_expiry_s } => {
            use v5::codec::DisconnectReasonCode::{DisconnectWithWillMessage, NormalDisconnection};
            let reason_code = if with_will { DisconnectWithWillMessage } else { NormalDisconnection };
            let session_expiry_interval_secs = session_expiry_s;
            Packet::Disconnect(v5::codec::Disconnect {
                reason_code,
                session_expiry_interval_secs,
                ..Default::default()
            })
        }
    };
    Ok(Encoded::Packet(packet))
}

fn v5_connect(options: &ConnectOptions, clean_start: bool) -> Result<v5::codec::Connect, WireError> {
    let last_will = match &options.will {
        None => None,
        Some(will) => {
            let properties = v5_properties(&will.publish)?;
            Some(v5::codec::LastWill {
                qos: level(will.publish.qos),
                retain: will.publish.retain,
                topic: text(&will.publish.topic)?,
                message: Bytes::copy_from_slice(&will.publish.payload),
                will_delay_interval_sec: (will.delay_s > 0).then_some(will.delay_s),
                correlation_data: properties.correlation_data,
                message_expiry_interval: properties.message_expiry_interval,
                content_type: properties.content_type,
                user_properties: properties.user_properties,
                is_utf8_payload: properties.is_utf8_payload.then_some(true),
                response_topic: properties.response_topic,
            })
        }
    };
    Ok(v5::codec::Connect {
        clean_start,
        keep_alive: options.keep_alive_s,
        session_expiry_interval_secs: options.session_expiry_s,
        receive_max: std::num::NonZeroU16::new(options.receive_maximum),
        max_packet_size: NonZeroU32::new(options.maximum_packet_bytes),
        user_properties: user_properties(&options.user_properties)?,
        last_will,
        client_id: text(&options.client_id)?,
        username: options.username.as_deref().map(text).transpose()?,
        password: options.password.as_deref().map(Bytes::copy_from_slice),
        ..v5::codec::Connect::default()
    })
}

fn v5_properties(publish: &Publish) -> Result<v5::codec::PublishProperties, WireError> {
    let message_expiry_interval = publish.expiry_s.and_then(NonZeroU32::new);
    let Some(properties) = &publish.properties else {
        return Ok(v5::codec::PublishProperties { message_expiry_interval, ..Default::default() });
    };
    Ok(v5::codec::PublishProperties {
        topic_alias: None,
        correlation_data: properties.correlation_data.as_deref().map(Bytes::copy_from_slice),
        message_expiry_interval,
        content_type: properties.content_type.as_deref().map(text).transpose()?,
        user_properties: user_properties(&properties.user_properties)?,
        is_utf8_payload: properties.payload_is_utf8 == Some(true),
        response_topic: properties.response_topic.as_ref().map(|topic| text(topic.as_str())).transpose()?,
        subscription_ids: Vec::new(),
    })
}

fn user_properties(pairs: &[(Box<str>, Box<str>)]) -> Result<v5::codec::UserProperties, WireError> {
    pairs.iter().map(|(name, value)| Ok((text(name)?, text(value)?))).collect()
}

fn v5_subscription(options: SubscriptionOptions) -> v5::codec::SubscriptionOptions {
    v5::codec::SubscriptionOptions {
        qos: level(options.maximum_qos),
        no_local: options.no_local,
        retain_as_published: options.retain_as_published,
        retain_handling: match options.retain_handling {
            RetainHandling::AtSubscribe => v5::codec::RetainHandling::AtSubscribe,
            RetainHandling::IfNew => v5::codec::RetainHandling::AtSubscribeNew,
            RetainHandling::Never => v5::codec::RetainHandling::NoAtSubscribe,
        },
    }
}
