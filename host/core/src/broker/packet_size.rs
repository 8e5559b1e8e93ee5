//! How long a PUBLISH is on the wire, exactly, without encoding it: what a client's Maximum Packet Size is compared
//! with.

use crate::event::Protocol;
use crate::message::{Message, MessageProperties};

/// Bytes of a PUBLISH packet with its fixed header.
pub(super) fn publish(
    protocol: Protocol,
    message: &Message,
    (has_packet_id, has_expiry): (bool, bool),
    identifiers: Option<&[u32]>,
) -> usize {
    let packet_id = if has_packet_id { 2 } else { 0 };
    let properties = match protocol {
        Protocol::V3 => 0,
        Protocol::V5 => with_length(properties(message.properties.as_deref(), has_expiry, identifiers)),
    };
    1 + with_length(2 + message.topic.as_str().len() + packet_id + properties + message.payload.len())
}

/// Bytes of the properties, without their length.
fn properties(properties: Option<&MessageProperties>, has_expiry: bool, identifiers: Option<&[u32]>) -> usize {
    let expiry = if has_expiry { 5 } else { 0 };
    let identifiers = identifiers.unwrap_or_default();
    let identifiers: usize = identifiers.iter().map(|&identifier| 1 + variable_length(identifier as usize)).sum();
    let Some(properties) = properties else { return expiry + identifiers };
    let user: usize = properties.user_properties.iter().map(|(name, value)| 5 + name.len() + value.len()).sum();
    expiry
        + identifiers
        + properties.payload_is_utf8.map_or(0, |_| 2)
        + properties.content_type.as_ref().map_or(0, |text| 3 + text.len())
        + properties.response_topic.as_ref().map_or(0, |topic| 3 + topic.as_str().len())
        + properties.correlation_data.as_ref().map_or(0, |data| 3 + data.len())
        + user
}

/// Bytes of something together with the variable byte integer that announces its length.
fn with_length(length: usize) -> usize {
    variable_length(length) + length
}

/// Bytes of a variable byte integer (section 1.5.5).
fn variable_length(value: usize) -> usize {
    match value {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => 4,
    }
}
