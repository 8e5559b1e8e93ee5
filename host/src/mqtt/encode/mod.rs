//! Packets to bytes, appended to what a connection is about to write.
//!
//! A PUBLISH that goes to many is encoded once per turn and form ([`Publishes`]); each recipient's copy is one append
//! and a patched packet identifier. PUBLISH and its acknowledgements are written by hand, the rarer packets by the
//! codec of ntex-mqtt. Nothing here fails: what the core hands out can be said in either protocol. Whether a packet fits
//! its client is asked where it is staged.

mod publish;

use std::sync::Arc;

use ntex_bytes::{BytePages, ByteString, Bytes};
use ntex_codec::Encoder;
use ntex_mqtt::{v3, v5};
use vespiary_core::event::{AcknowledgeStep, PacketId, Protocol, ReasonCode};

pub(super) use self::publish::Publishes;

/// PINGRESP.
pub(super) const PINGRESP: [u8; 2] = [0xD0, 0x00];

// ---------------------------------------------------------------------------------------------- acknowledgements

/// PUBACK, PUBREC, PUBREL or PUBCOMP. 5.0 leaves out a reason of Success [section 3.4.2.1]; 3.1.1 has none. `text` is for
/// 5.0 and a reason other than Success.
pub(super) fn acknowledge(
    protocol: Protocol,
    packet_id: PacketId,
    (step, reason): (AcknowledgeStep, ReasonCode),
    text: Option<&str>,
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
    } else if let Some(text) = text {
        let properties = 1 + 2 + text.len();
        out.push(first);
        publish::put_variable(2 + 1 + publish::variable_length(properties) + properties, out);
        out.extend_from_slice(&[high, low, reason as u8]);
        publish::put_variable(properties, out);
        out.push(0x1F);
        publish::put_binary(text.as_bytes(), out);
    } else {
        out.extend_from_slice(&[first, 3, high, low, reason as u8]);
    }
}

/// SUBACK: in 3.1.1, whatever was refused is 0x80.
pub(super) fn suback(
    protocol: Protocol,
    packet_id: PacketId,
    reasons: &[ReasonCode],
    text: Option<&str>,
    out: &mut Vec<u8>,
) {
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
            let reason_string = text.map(ByteString::from);
            let packet = v5::codec::SubscribeAck { packet_id, properties: Vec::new(), reason_string, status };
            put_v5(v5::codec::Packet::SubscribeAck(packet), out);
        }
    }
}

/// UNSUBACK: in 3.1.1 without reasons.
pub(super) fn unsuback(
    protocol: Protocol,
    packet_id: PacketId,
    reasons: &[ReasonCode],
    text: Option<&str>,
    out: &mut Vec<u8>,
) {
    match protocol {
        Protocol::V3 => put_v3(v3::codec::Packet::UnsubscribeAck { packet_id }, out),
        Protocol::V5 => {
            use v5::codec::UnsubscribeAckReason as Code;
            let status =
                reasons.iter().map(|reason| Code::try_from(*reason as u8).unwrap_or(Code::UnspecifiedError)).collect();
            let reason_string = text.map(ByteString::from);
            let packet = v5::codec::UnsubscribeAck { packet_id, properties: Vec::new(), reason_string, status };
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
    /// Where response topics are to be made, if the client asked [MQTT-3.1.2-28].
    pub(super) response_information: Option<Arc<str>>,
    /// The method by which the client authenticated, with its last data [MQTT-4.12.0-5].
    pub(super) authentication: Option<Authentication>,
}

/// Authentication Method and Authentication Data of CONNACK or AUTH.
#[derive(Debug)]
pub(super) struct Authentication {
    /// The method.
    pub(super) method: Arc<str>,
    /// Its data.
    pub(super) data: Option<Box<[u8]>>,
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
                server_keepalive_sec: announcement.server_keep_alive_s,
                response_info: announcement.response_information.as_deref().map(Into::into),
                auth_method: announcement.authentication.as_ref().map(|with| (&*with.method).into()),
                auth_data: announcement
                    .authentication
                    .as_ref()
                    .and_then(|with| with.data.as_deref())
                    .map(Bytes::copy_from_slice),
                // Absent: QoS 2, retained messages, wildcards, subscription identifiers and shared subscriptions are
                // all there (sections 3.2.2.3.4 to 3.2.2.3.13).
                ..v5::codec::ConnectAck::default()
            };
            put_v5(v5::codec::Packet::ConnectAck(Box::new(packet)), out);
        }
    }
}

/// CONNACK that refuses a 3.1.1 client (table 3.1 there).
pub(super) fn refusal_v3(reason: ReasonCode, out: &mut Vec<u8>) {
    use v3::codec::ConnectAckReason as Code;
    let return_code = match reason {
        ReasonCode::UnsupportedProtocolVersion => Code::UnacceptableProtocolVersion,
        ReasonCode::ClientIdentifierNotValid => Code::IdentifierRejected,
        ReasonCode::BadUserNameOrPassword => Code::BadUserNameOrPassword,
        ReasonCode::NotAuthorized => Code::NotAuthorized,
        _ => Code::ServiceUnavailable,
    };
    put_v3(v3::codec::Packet::ConnectAck(v3::codec::ConnectAck { return_code, session_present: false }), out);
}

/// CONNACK that refuses a 5.0 client (table 3-1); a reason that it lacks is an unspecified error.
pub(super) fn refusal_v5(reason: ReasonCode, text: Option<&str>, server_reference: Option<&str>, out: &mut Vec<u8>) {
    use v5::codec::ConnectAckReason as Code;
    let packet = v5::codec::ConnectAck {
        reason_code: Code::try_from(reason as u8).unwrap_or(Code::UnspecifiedError),
        reason_string: text.map(Into::into),
        server_reference: server_reference.map(Into::into),
        ..v5::codec::ConnectAck::default()
    };
    put_v5(v5::codec::Packet::ConnectAck(Box::new(packet)), out);
}

/// DISCONNECT, which only 5.0 lets a server send.
pub(super) fn disconnect(reason: ReasonCode, text: Option<&str>, server_reference: Option<&str>, out: &mut Vec<u8>) {
    use v5::codec::DisconnectReasonCode as Code;
    let packet = v5::codec::Disconnect {
        reason_string: text.map(Into::into),
        server_reference: server_reference.map(Into::into),
        ..v5::codec::Disconnect::new(Code::try_from(reason as u8).unwrap_or(Code::UnspecifiedError))
    };
    put_v5(v5::codec::Packet::Disconnect(packet), out);
}

/// AUTH: Success, or Continue authentication where the client is to answer (section 3.15).
pub(super) fn auth(is_success: bool, authentication: &Authentication, out: &mut Vec<u8>) {
    use v5::codec::AuthReasonCode as Code;
    let packet = v5::codec::Auth {
        reason_code: if is_success { Code::Success } else { Code::ContinueAuth },
        auth_method: Some((&*authentication.method).into()),
        auth_data: authentication.data.as_deref().map(Bytes::copy_from_slice),
        ..v5::codec::Auth::default()
    };
    put_v5(v5::codec::Packet::Auth(packet), out);
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
mod tests;
