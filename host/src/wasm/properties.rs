//! MQTT 5 properties as the contract has them: an open list of names and values.
//!
//! A name that is not known is ignored in both directions, so that names can be added without a new contract.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use vespiary_core::message::{Message, MessageProperties, Qos, Timestamp};
use vespiary_core::topic::Topic;

use super::bindings::vespiary::plugin::types;

/// Most properties of one message that a plugin publishes.
const PROPERTIES: usize = 64;
/// Longest name or value in bytes: a two-byte length on the wire.
const TEXT_BYTES: usize = 65_535;

pub(super) fn core_qos(qos: types::Qos) -> Qos {
    match qos {
        types::Qos::AtMostOnce => Qos::AtMostOnce,
        types::Qos::AtLeastOnce => Qos::AtLeastOnce,
        types::Qos::ExactlyOnce => Qos::ExactlyOnce,
    }
}

pub(super) fn contract_qos(qos: Qos) -> types::Qos {
    match qos {
        Qos::AtMostOnce => types::Qos::AtMostOnce,
        Qos::AtLeastOnce => types::Qos::AtLeastOnce,
        Qos::ExactlyOnce => types::Qos::ExactlyOnce,
    }
}

/// The properties of a message that a plugin made.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    /// Those that travel unchanged.
    pub(super) properties: Option<Box<MessageProperties>>,
    /// When it stops being worth delivering.
    pub(super) expires_at: Option<Timestamp>,
}

/// Understands the properties of a message that a plugin makes now; the error names the property.
pub(super) fn parse(list: &[types::PropertyResult], now: Timestamp) -> Result<Parsed, String> {
    let mut expires_at = None;
    if list.is_empty() {
        return Ok(Parsed::default());
    }
    if list.len() > PROPERTIES {
        return Err(format!("the message has {} properties; {PROPERTIES} are allowed", list.len()));
    }
    let mut properties = MessageProperties::default();
    for types::PropertyResult { name, value } in list {
        if name.len() > TEXT_BYTES || value.len() > TEXT_BYTES || name.contains('\0') || value.contains('\0') {
            return Err("a property is longer than 65535 bytes or holds the character U+0000".to_owned());
        }
        match name.as_str() {
            "content-type" => properties.content_type = Some(value.as_str().into()),
            "response-topic" => {
                let topic =
                    Topic::parse(value).map_err(|reason| format!("the response-topic is not valid: {reason}"))?;
                properties.response_topic = Some(topic);
            }
            "payload-format" => properties.payload_is_utf8 = Some(payload_is_utf8(value)?),
            "correlation-data" => {
                let data = STANDARD.decode(value).map_err(|_| "the correlation-data is not base64".to_owned())?;
                if data.len() > TEXT_BYTES {
                    return Err("the correlation-data is longer than 65535 bytes".to_owned());
                }
                properties.correlation_data = Some(data.into());
            }
            "message-expiry" => {
                let seconds: u32 = value
                    .parse()
                    .map_err(|_| "the message-expiry is no number of seconds within 32 bits".to_owned())?;
                expires_at = Some(now.after_ms(u64::from(seconds) * 1_000));
            }
            name => {
                if let Some(name) = name.strip_prefix("user:") {
                    properties.user_properties.push((name.into(), value.as_str().into()));
                }
            }
        }
    }
    let properties = (properties != MessageProperties::default()).then(|| Box::new(properties));
    Ok(Parsed { properties, expires_at })
}

fn payload_is_utf8(value: &str) -> Result<bool, String> {
    match value {
        "utf8" | "utf-8" => Ok(true),
        "bytes" => Ok(false),
        _ => Err("the payload-format is neither `utf-8` nor `bytes`".to_owned()),
    }
}

/// The properties of a message as owned pairs, from which those of the contract borrow; empty for most messages.
pub(super) fn list(message: &Message, now: Timestamp) -> Vec<(String, String)> {
    let mut list = Vec::new();
    let mut add = |name: &str, value: String| list.push((name.to_owned(), value));
    if let Some(at) = message.expires_at {
        add("message-expiry", at.since_ms(now).div_ceil(1_000).to_string());
    }
    let Some(properties) = &message.properties else { return list };
    let MessageProperties { payload_is_utf8, content_type, response_topic, correlation_data, user_properties } =
        &**properties;
    if let Some(utf8) = payload_is_utf8 {
        add("payload-format", if *utf8 { "utf-8" } else { "bytes" }.to_owned());
    }
    if let Some(text) = content_type {
        add("content-type", text.to_string());
    }
    if let Some(topic) = response_topic {
        add("response-topic", topic.to_string());
    }
    if let Some(data) = correlation_data {
        add("correlation-data", STANDARD.encode(data));
    }
    for (name, value) in user_properties {
        add(&format!("user:{name}"), value.to_string());
    }
    list
}
