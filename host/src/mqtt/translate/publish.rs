//! PUBLISH (section 3.3), read straight from its frame: it is most of what a broker reads, and the codec loses whether a
//! payload format of 0 was announced or none at all.

use std::collections::VecDeque;

use vespiary_core::event::{AcknowledgeStep, Protocol, Publish, ReasonCode};
use vespiary_core::message::MessageProperties;
use vespiary_core::{Input, Message, Qos, Topic};

use super::{Aliases, Inbound, Terms, Understood, once, packet_id, response_topic, topic_reason};
use crate::mqtt::frame::{Fields, Frame, text};
use crate::plugins::hooks::may_be_published;

/// Properties of a PUBLISH.
#[derive(Debug, Default)]
struct Properties {
    /// Those that travel with the message.
    message: MessageProperties,
    /// Message expiry interval in seconds.
    expiry_s: Option<u32>,
    /// Topic alias.
    alias: Option<u16>,
}

impl Inbound {
    pub(super) fn publish(
        &mut self,
        frame: Frame<'_>,
        terms: Terms<'_>,
        inputs: &mut VecDeque<Input>,
    ) -> Result<Understood, ReasonCode> {
        // QoS 3 [MQTT-3.3.1-4], DUP at QoS 0 [MQTT-3.3.1-2].
        let qos = Qos::from_u8((frame.flags >> 1) & 3).ok_or(ReasonCode::MalformedPacket)?;
        let dup = frame.flags & 8 != 0;
        if dup && qos == Qos::AtMostOnce {
            return Err(ReasonCode::MalformedPacket);
        }
        let mut fields = Fields::new(frame.body);
        let name = fields.binary()?;
        let packet_id = if qos == Qos::AtMostOnce { None } else { Some(packet_id(&mut fields)?) };
        let properties = match self.protocol {
            Protocol::V3 => None,
            Protocol::V5 => Some(fields.properties()?).filter(|list| !list.is_empty()).map(read).transpose()?,
        };
        let topic = self.topic(name, properties.as_ref().and_then(|properties| properties.alias))?;
        if let Some(packet_id) = packet_id {
            self.quota.take(self.protocol, qos, packet_id, terms.receive_maximum)?;
        }
        let is_reserved = topic.is_reserved();
        if is_reserved && !may_be_published(&topic) {
            let step = if qos == Qos::ExactlyOnce { AcknowledgeStep::Pubrec } else { AcknowledgeStep::Puback };
            return Ok(Understood::Denied(packet_id.map(|packet_id| (packet_id, step))));
        }
        let payload = fields.rest();
        let (properties, expiry_s) = match properties {
            None => (None, None),
            Some(Properties { message, expiry_s, .. }) => {
                check_payload(&message, payload)?;
                let any = message != MessageProperties::default();
                (any.then(|| Box::new(message)), expiry_s)
            }
        };
        let message = Message {
            topic,
            payload: payload.into(),
            qos,
            // The answer to a request is of no use to anybody later.
            retain: frame.flags & 1 != 0 && !is_reserved,
            properties,
            expires_at: expiry_s.map(|seconds| terms.now.after_ms(u64::from(seconds) * 1000)),
            received_at: terms.now,
            publisher: self.client_id.clone(),
            user: self.user(),
        };
        let publish = Publish { packet_id, dup, message };
        inputs.push_back(Input::Publish { connection: self.connection, publish });
        Ok(Understood::Input)
    }

    /// The topic that a name and an alias stand for (section 3.3.2.3.4).
    fn topic(&mut self, name: &[u8], alias: Option<u16>) -> Result<Topic, ReasonCode> {
        let Some(alias) = alias else { return self.parse_topic(name) };
        // 0 [MQTT-3.3.2-8], above the maximum that we announced [MQTT-3.3.2-9].
        if alias == 0 || alias > self.topic_alias_maximum {
            return Err(ReasonCode::TopicAliasInvalid);
        }
        let index = usize::from(alias) - 1;
        if name.is_empty() {
            // An alias that was never set is a protocol error [MQTT-3.3.4-2 and section 3.3.2.3.4].
            let topics = self.aliases.as_ref().map_or(&[][..], |aliases| &aliases.0);
            return topics.get(index).cloned().flatten().ok_or(ReasonCode::ProtocolError);
        }
        let topic = self.parse_topic(name)?;
        let maximum = usize::from(self.topic_alias_maximum);
        let aliases = self.aliases.get_or_insert_with(|| Box::new(Aliases(vec![None; maximum])));
        aliases.0[index] = Some(topic.clone());
        Ok(topic)
    }

    fn parse_topic(&mut self, name: &[u8]) -> Result<Topic, ReasonCode> {
        if let Some(last) = &self.last_topic
            && last.as_str().as_bytes() == name
        {
            return Ok(last.clone());
        }
        let topic = Topic::parse(text(name)?).map_err(topic_reason)?;
        self.last_topic = Some(topic.clone());
        Ok(topic)
    }
}

/// Reads the properties of a PUBLISH from a client (section 3.3.2.3).
fn read(mut list: Fields<'_>) -> Result<Properties, ReasonCode> {
    let mut properties = Properties::default();
    let message = &mut properties.message;
    while !list.is_empty() {
        match list.byte()? {
            0x01 => once(&mut message.payload_is_utf8, payload_format(list.byte()?)?)?,
            0x02 => once(&mut properties.expiry_s, list.four_bytes()?)?,
            0x03 => once(&mut message.content_type, list.string()?.into())?,
            0x08 => once(&mut message.response_topic, response_topic(list.string()?)?)?,
            0x09 => once(&mut message.correlation_data, list.binary()?.into())?,
            // Subscription Identifier: only from server to client [MQTT-3.3.4-6].
            0x0B => return Err(ReasonCode::ProtocolError),
            0x23 => once(&mut properties.alias, list.two_bytes()?)?,
            0x26 => message.user_properties.push((list.string()?.into(), list.string()?.into())),
            _ => return Err(ReasonCode::MalformedPacket), // section 2.2.2.2
        }
    }
    Ok(properties)
}

fn payload_format(byte: u8) -> Result<bool, ReasonCode> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(ReasonCode::MalformedPacket),
    }
}

/// Holds the payload to the format that was announced for it (section 3.3.2.3.2).
pub(super) fn check_payload(properties: &MessageProperties, payload: &[u8]) -> Result<(), ReasonCode> {
    if properties.payload_is_utf8 == Some(true) && std::str::from_utf8(payload).is_err() {
        return Err(ReasonCode::PayloadFormatInvalid);
    }
    Ok(())
}
