//! From packets to the core's own, validated types.
//!
//! Everything that MQTT demands of a single packet, and of a packet on its connection, is checked here; what passes is
//! an [`Input`] for the core or one of the few things that the connection answers by itself. A packet that may not be
//! is an error with the reason that a 5.0 client is told before its connection closes; a 3.1.1 client just sees it
//! close. PUBLISH, acknowledgements, AUTH and CONNECT of 5.0 are read from the frame; the rarer packets go through the
//! codec of ntex-mqtt, which is given exactly one frame, and whose omissions are made good here. Statement ids are those
//! of MQTT 5.0 unless a comment says otherwise.

mod authenticate;
mod connect;
mod properties;
mod publish;
mod quota;
mod subscribe;

use std::collections::VecDeque;
use std::sync::Arc;

use ntex_bytes::{ByteString, BytesMut};
use ntex_codec::Decoder;
use ntex_mqtt::error::DecodeError;
use ntex_mqtt::{v3, v5};
use vespiary_core::event::{AcknowledgeStep, ConnectionId, Disconnect, PacketId, Protocol, ReasonCode};
use vespiary_core::topic::InvalidTopic;
use vespiary_core::{Input, Qos, Timestamp, Topic};

pub(super) use self::authenticate::{AuthStep, auth};
pub(super) use self::connect::{Accepted, ConnectOptions, ProblemInformation, Refusal, connect};
use self::properties::{Place, Properties};
use self::quota::Quota;
pub(super) use self::subscribe::denied;
use super::frame::{Fields, Frame, PacketType};
use crate::config::Filter;

/// What has to be remembered of a connection to understand its packets.
#[derive(Debug)]
pub(super) struct Inbound {
    /// Named in every input.
    connection: ConnectionId,
    /// What the client speaks.
    protocol: Protocol,
    /// The publisher of its messages.
    client_id: Arc<str>,
    /// The user name of its messages; most clients have none.
    user: Option<Box<UserName>>,
    /// The topic of its last PUBLISH; publishers repeat themselves, and cloning is cheaper than parsing.
    last_topic: Option<Topic>,
    /// Topics by alias; `None` until the client sets the first.
    aliases: Option<Box<Aliases>>,
    /// The highest alias that we announced.
    topic_alias_maximum: u16,
    /// Whether CONNECT gave a session expiry interval other than 0; only then may DISCONNECT.
    session_outlives_connection: bool,
    /// The client's publishes that it does not know to be taken.
    quota: Quota,
}

/// A user name.
#[derive(Debug)]
struct UserName(Arc<str>);

/// Topics by alias less one.
#[derive(Debug)]
struct Aliases(Vec<Option<Topic>>);

/// What packets that follow CONNECT are held to, on any connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms<'a> {
    /// When what is understood was read.
    pub(super) now: Timestamp,
    /// QoS 1 and 2 publishes that a 5.0 client may have unacknowledged.
    pub(super) receive_maximum: u16,
    /// What nobody may subscribe to.
    pub(super) denied_subscriptions: &'a [Filter],
}

/// What a packet comes to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Understood {
    /// Something for the core; it stands behind the inputs that were there.
    Input,
    /// PINGREQ.
    Ping,
    /// A PUBLISH to a topic that begins with `$`. Those are the broker's own, except `$reply/`: the message is dropped and
    /// counted. A 5.0 client is told Not authorized in the acknowledgement, a 3.1.1 client gets the ordinary one [3.1.1:
    /// MQTT-3.3.5-2], which is what Mosquitto and EMQX do.
    Denied(Option<(PacketId, AcknowledgeStep)>),
    /// DISCONNECT.
    Disconnect(Disconnect),
    /// AUTH, which is for [`auth`] to understand.
    Auth,
}

impl Inbound {
    /// Understands a packet that follows CONNECT. What is for the core is appended to `inputs` where it is made: an
    /// input is large, and there is one for nearly every packet.
    pub(super) fn understand(
        &mut self,
        frame: Frame<'_>,
        terms: Terms<'_>,
        inputs: &mut VecDeque<Input>,
    ) -> Result<Understood, ReasonCode> {
        match frame.packet {
            PacketType::Publish => self.publish(frame, terms, inputs),
            PacketType::Puback => self.acknowledge(frame, AcknowledgeStep::Puback, inputs),
            PacketType::Pubrec => self.acknowledge(frame, AcknowledgeStep::Pubrec, inputs),
            PacketType::Pubrel => self.acknowledge(frame, AcknowledgeStep::Pubrel, inputs),
            PacketType::Pubcomp => self.acknowledge(frame, AcknowledgeStep::Pubcomp, inputs),
            PacketType::Subscribe => self.subscribe(frame, terms, inputs),
            PacketType::Unsubscribe => self.unsubscribe(frame, inputs),
            // Packets without a body (section 3.12).
            PacketType::Pingreq if frame.body.is_empty() => Ok(Understood::Ping),
            PacketType::Pingreq => Err(ReasonCode::MalformedPacket),
            PacketType::Disconnect => self.disconnect(frame),
            PacketType::Auth if self.protocol == Protocol::V5 => Ok(Understood::Auth),
            // A second CONNECT [MQTT-3.1.0-2]. A packet that 3.1.1 does not have. The others are for servers to send.
            PacketType::Connect
            | PacketType::Auth
            | PacketType::Connack
            | PacketType::Suback
            | PacketType::Unsuback
            | PacketType::Pingresp => Err(ReasonCode::ProtocolError),
        }
    }

    /// Client identifier and user name.
    pub(super) fn client(&self) -> (Arc<str>, Option<Arc<str>>) {
        (self.client_id.clone(), self.user())
    }

    /// From now on the client is known by this user name.
    pub(super) fn rename(&mut self, user: Option<Arc<str>>) {
        self.user = user.map(|name| Box::new(UserName(name)));
    }

    fn user(&self) -> Option<Arc<str>> {
        self.user.as_ref().map(|name| name.0.clone())
    }

    /// An acknowledgement for the client is staged. Says whether it ends an exchange that counts against our Receive
    /// Maximum; if so, [`Inbound::acknowledged`] is owed when it leaves.
    pub(super) fn ends_exchange(&mut self, packet_id: PacketId, step: AcknowledgeStep, reason: ReasonCode) -> bool {
        self.protocol == Protocol::V5 && self.quota.ends_exchange(packet_id, step, reason)
    }

    /// This many acknowledgements that end an exchange may leave.
    pub(super) fn acknowledged(&mut self, count: u16) {
        self.quota.give_back(count);
    }

    /// PUBACK, PUBREC, PUBREL or PUBCOMP. A reason code and properties may follow the identifier in 5.0 (section 3.4).
    fn acknowledge(
        &self,
        frame: Frame<'_>,
        step: AcknowledgeStep,
        inputs: &mut VecDeque<Input>,
    ) -> Result<Understood, ReasonCode> {
        let mut fields = Fields::new(frame.body);
        let packet_id = packet_id(&mut fields)?;
        let mut reason = ReasonCode::Success;
        if self.protocol == Protocol::V5 && !fields.is_empty() {
            reason = acknowledge_reason(step, fields.byte()?)?;
            if !fields.is_empty() {
                Properties::next(Place::Acknowledgement, &mut fields)?.check()?;
            }
        }
        if !fields.is_empty() {
            return Err(ReasonCode::MalformedPacket);
        }
        inputs.push_back(Input::Acknowledge { connection: self.connection, packet_id, step, reason });
        Ok(Understood::Input)
    }

    fn disconnect(&self, frame: Frame<'_>) -> Result<Understood, ReasonCode> {
        match self.protocol {
            // 3.1.1 section 3.14: no body. The will goes unpublished [3.1.1: MQTT-3.14.4-3].
            Protocol::V3 if frame.body.is_empty() => {
                Ok(Understood::Disconnect(Disconnect { with_will: false, session_expiry_s: None }))
            }
            Protocol::V3 => Err(ReasonCode::MalformedPacket),
            Protocol::V5 => {
                check_disconnect(frame.body)?;
                let v5::codec::Packet::Disconnect(packet) = decode_v5(frame)? else {
                    return Err(ReasonCode::MalformedPacket);
                };
                self.disconnect_v5(&packet)
            }
        }
    }

    fn disconnect_v5(&self, packet: &v5::codec::Disconnect) -> Result<Understood, ReasonCode> {
        use v5::codec::DisconnectReasonCode as Code;
        // Reasons and properties that only a server may send (table 3-10, section 3.14.2.2.5).
        let from_client = matches!(
            packet.reason_code,
            Code::NormalDisconnection
                | Code::DisconnectWithWillMessage
                | Code::UnspecifiedError
                | Code::MalformedPacket
                | Code::ProtocolError
                | Code::ImplementationSpecificError
                | Code::TopicNameInvalid
                | Code::ReceiveMaximumExceeded
                | Code::TopicAliasInvalid
                | Code::PacketTooLarge
                | Code::MessageRateTooHigh
                | Code::QuotaExceeded
                | Code::AdministrativeAction
                | Code::PayloadFormatInvalid
        );
        // A session that ends with its connection cannot be prolonged by DISCONNECT (section 3.14.2.2.2).
        let prolongs = packet.session_expiry_interval_secs.is_some_and(|seconds| seconds > 0);
        if !from_client || packet.server_reference.is_some() || (prolongs && !self.session_outlives_connection) {
            return Err(ReasonCode::ProtocolError);
        }
        Ok(Understood::Disconnect(Disconnect {
            // Only Normal disconnection removes the will [MQTT-3.1.2-10].
            with_will: packet.reason_code != Code::NormalDisconnection,
            session_expiry_s: packet.session_expiry_interval_secs,
        }))
    }
}

/// Walks a DISCONNECT: a reason, and properties, either of which may be left out (section 3.14.2).
fn check_disconnect(body: &[u8]) -> Result<(), ReasonCode> {
    let mut fields = Fields::new(body.get(1..).unwrap_or_default());
    if !fields.is_empty() {
        Properties::next(Place::Disconnect, &mut fields)?.check()?;
    }
    if fields.is_empty() { Ok(()) } else { Err(ReasonCode::MalformedPacket) }
}

/// Sets a property that may come only once (section 3.3.2.3: "It is a Protocol Error to include ... more than once").
fn once<T>(property: &mut Option<T>, value: T) -> Result<(), ReasonCode> {
    match property.replace(value) {
        None => Ok(()),
        Some(_) => Err(ReasonCode::ProtocolError),
    }
}

/// A packet identifier, which is not 0 [MQTT-2.2.1-3].
fn packet_id(fields: &mut Fields<'_>) -> Result<PacketId, ReasonCode> {
    PacketId::new(fields.two_bytes()?).ok_or(ReasonCode::MalformedPacket)
}

/// The reason codes that may stand in an acknowledgement (tables 3-4 to 3-7) [MQTT-3.4.2-1] [MQTT-3.6.2-1].
fn acknowledge_reason(step: AcknowledgeStep, code: u8) -> Result<ReasonCode, ReasonCode> {
    let publishing = matches!(step, AcknowledgeStep::Puback | AcknowledgeStep::Pubrec);
    Ok(match code {
        0x00 => ReasonCode::Success,
        0x10 if publishing => ReasonCode::NoMatchingSubscribers,
        0x80 if publishing => ReasonCode::UnspecifiedError,
        0x83 if publishing => ReasonCode::ImplementationSpecificError,
        0x87 if publishing => ReasonCode::NotAuthorized,
        0x90 if publishing => ReasonCode::TopicNameInvalid,
        0x91 if publishing => ReasonCode::PacketIdentifierInUse,
        0x97 if publishing => ReasonCode::QuotaExceeded,
        0x99 if publishing => ReasonCode::PayloadFormatInvalid,
        0x92 if !publishing => ReasonCode::PacketIdentifierNotFound,
        _ => return Err(ReasonCode::ProtocolError),
    })
}

/// Decodes a 3.1.1 packet other than PUBLISH.
fn decode_v3(frame: Frame<'_>) -> Result<v3::codec::Packet, ReasonCode> {
    match v3::codec::Codec::new().decode(&mut BytesMut::from(frame.bytes)) {
        Ok(Some(v3::codec::Decoded::Packet(packet, _))) => Ok(packet),
        Ok(_) => Err(ReasonCode::MalformedPacket),
        Err(error) => Err(decode_reason(error)),
    }
}

/// Decodes a 5.0 packet other than PUBLISH.
fn decode_v5(frame: Frame<'_>) -> Result<v5::codec::Packet, ReasonCode> {
    match v5::codec::Codec::new().decode(&mut BytesMut::from(frame.bytes)) {
        Ok(Some(v5::codec::Decoded::Packet(packet, _))) => Ok(packet),
        Ok(_) => Err(ReasonCode::MalformedPacket),
        Err(error) => Err(decode_reason(error)),
    }
}

fn decode_reason(error: DecodeError) -> ReasonCode {
    match error {
        DecodeError::InvalidProtocol | DecodeError::UnsupportedProtocolLevel => ReasonCode::UnsupportedProtocolVersion,
        DecodeError::InvalidClientId => ReasonCode::ClientIdentifierNotValid,
        DecodeError::MaxSizeExceeded { .. } => ReasonCode::PacketTooLarge,
        DecodeError::InvalidLength
        | DecodeError::MalformedPacket
        | DecodeError::ConnectReservedFlagSet
        | DecodeError::ConnAckReservedFlagSet
        | DecodeError::UnsupportedPacketType
        | DecodeError::PacketIdRequired
        | DecodeError::Utf8Error
        | DecodeError::UnexpectedPayload => ReasonCode::MalformedPacket,
    }
}

/// Why a topic name is refused.
fn topic_reason(error: InvalidTopic) -> ReasonCode {
    match error {
        InvalidTopic::Nul => ReasonCode::MalformedPacket, // [MQTT-4.7.3-2]
        InvalidTopic::Empty => ReasonCode::ProtocolError, // [MQTT-4.7.3-1]
        InvalidTopic::WildcardInName // [MQTT-3.3.2-2]
        | InvalidTopic::TooLong
        | InvalidTopic::TooManyLevels
        | InvalidTopic::MisplacedHash
        | InvalidTopic::MisplacedPlus => ReasonCode::TopicNameInvalid,
    }
}

/// A Response Topic: a topic name, so without wildcards [MQTT-3.3.2-14].
fn response_topic(name: &str) -> Result<Topic, ReasonCode> {
    Topic::parse(name).map_err(|error| match error {
        InvalidTopic::WildcardInName => ReasonCode::ProtocolError,
        other => topic_reason(other),
    })
}

/// A string that the codec has found to be UTF-8, and that must hold no U+0000 either [MQTT-1.5.4-2].
fn without_nul(text: &ByteString) -> Result<&str, ReasonCode> {
    if text.as_bytes().contains(&0) { Err(ReasonCode::MalformedPacket) } else { Ok(text) }
}

fn quality(qos: ntex_mqtt::QoS) -> Qos {
    match qos {
        ntex_mqtt::QoS::AtMostOnce => Qos::AtMostOnce,
        ntex_mqtt::QoS::AtLeastOnce => Qos::AtLeastOnce,
        ntex_mqtt::QoS::ExactlyOnce => Qos::ExactlyOnce,
    }
}

#[cfg(test)]
mod tests;
