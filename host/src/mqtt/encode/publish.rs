//! PUBLISH to clients (section 3.3): encoded once per turn and form, copied for each recipient.
//!
//! A recipient that takes topic aliases gets a head of its own; properties and payload, which are nearly all of it, are
//! copied from the shared frame all the same.

use std::rc::Rc;
use std::sync::Arc;

use vespiary_core::event::{Delivery, PacketId, Protocol};
use vespiary_core::message::MessageProperties;
use vespiary_core::{ChangeNumber, Message, Qos, Topic};

use super::super::aliases::{Alias, Aliases};
use super::super::outgoing::Outgoing;

/// Bytes of the property Topic Alias.
const ALIAS_BYTES: usize = 3;

/// Bytes by which the lengths in front of the packet and of its properties may grow with it.
const LENGTH_GROWTH: usize = 2;

/// Shortest frame that is linked where many get it: below, copying costs less.
const SHORTEST_LINKED_FRAME: usize = 512;

/// Shortest topic name that is worth a number: what takes its place is shorter even if a length grows with it.
const SHORTEST_ALIASED_TOPIC: usize = ALIAS_BYTES + LENGTH_GROWTH;

/// Encodes deliveries. Those of one message stand together among the effects of a turn, so the frames of the message
/// last seen are kept, one for each form in which it is sent.
#[derive(Debug, Default)]
pub(in crate::mqtt) struct Publishes {
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
    /// Offset of what follows the length of the properties: they, and the payload.
    properties_at: usize,
    /// Length of the properties.
    properties: usize,
    /// The frame once more, for those who link it.
    shared: Option<Rc<[u8]>>,
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
    pub(in crate::mqtt) fn forget(&mut self) {
        self.message = None;
    }

    /// Appends a delivery under a packet identifier; that of `delivery` is not looked at.
    pub(in crate::mqtt) fn append(
        &mut self,
        delivery: &Delivery,
        packet_id: Option<PacketId>,
        protocol: Protocol,
        out: &mut Vec<u8>,
    ) {
        let index = self.form(delivery, protocol);
        self.append_form(index, delivery.dup, packet_id, out);
    }

    /// Appends a delivery in a form that was [found](Self::form) and whose message is still the one last seen.
    pub(in crate::mqtt) fn append_form(&self, index: usize, dup: bool, packet_id: Option<PacketId>, out: &mut Vec<u8>) {
        let form = &self.forms[index];
        let start = out.len();
        out.extend_from_slice(&self.bytes[form.start..form.end]);
        if dup {
            out[start] |= 0x08;
        }
        if let Some(packet_id) = packet_id {
            let at = start + form.packet_id_at;
            out[at..at + 2].copy_from_slice(&packet_id.get().to_be_bytes());
        }
    }

    /// How long a delivery is.
    pub(in crate::mqtt) fn length(&mut self, delivery: &Delivery, protocol: Protocol) -> usize {
        let index = self.form(delivery, protocol);
        let form = &self.forms[index];
        form.end - form.start
    }

    /// Stages a delivery in a form that was [found](Self::form), like [`Self::append_form`]: linked, but for what is the
    /// recipient's own, if the frame is large enough for that to pay.
    pub(in crate::mqtt) fn link_form(
        &mut self,
        index: usize,
        packet_id: Option<PacketId>,
        outgoing: &mut Outgoing,
    ) -> bool {
        let form = &mut self.forms[index];
        let frame = &self.bytes[form.start..form.end];
        if frame.len() < SHORTEST_LINKED_FRAME || !outgoing.takes_links() {
            return false;
        }
        let shared = form.shared.get_or_insert_with(|| frame.into());
        let own = packet_id.map_or(0, |packet_id| {
            let out = outgoing.stage(ChangeNumber(0), ChangeNumber(0));
            out.extend_from_slice(&frame[..form.packet_id_at]);
            out.extend_from_slice(&packet_id.get().to_be_bytes());
            form.packet_id_at + 2
        });
        outgoing.link(shared, own);
        true
    }

    /// Appends a delivery to a 5.0 client that takes topic aliases. A number is only given to a topic if the packet, which
    /// it makes longer, stays within what the client takes [MQTT-3.1.2-24].
    pub(in crate::mqtt) fn append_aliased(
        &mut self,
        delivery: &Delivery,
        packet_id: Option<PacketId>,
        aliases: &mut Aliases,
        maximum_packet_size: usize,
        out: &mut Vec<u8>,
    ) {
        let topic = &delivery.message.topic;
        if topic.as_str().len() < SHORTEST_ALIASED_TOPIC {
            return self.append(delivery, packet_id, Protocol::V5, out);
        }
        let index = self.form(delivery, Protocol::V5);
        let form = &self.forms[index];
        let fits = form.end - form.start + ALIAS_BYTES + LENGTH_GROWTH <= maximum_packet_size;
        let alias = aliases.find(topic).or_else(|| if fits { aliases.assign(topic) } else { None });
        let (name, number) = match alias {
            Some(Alias::Known(number)) => ("", number),
            Some(Alias::New(number)) => (topic.as_str(), number),
            None => return self.append(delivery, packet_id, Protocol::V5, out),
        };
        let frame = &self.bytes[form.start..form.end];
        let rest = &frame[form.properties_at..];
        let properties = ALIAS_BYTES + form.properties;
        let packet_id_bytes = if packet_id.is_some() { 2 } else { 0 };
        let head = 2 + name.len() + packet_id_bytes + variable_length(properties) + ALIAS_BYTES;
        out.reserve(super::super::frame::MAX_HEADER_BYTES + head + rest.len());
        out.push(frame[0] | if delivery.dup { 0x08 } else { 0 });
        put_variable(head + rest.len(), out);
        put_binary(name.as_bytes(), out);
        if let Some(packet_id) = packet_id {
            out.extend_from_slice(&packet_id.get().to_be_bytes());
        }
        put_variable(properties, out);
        out.push(0x23);
        out.extend_from_slice(&number.get().to_be_bytes());
        out.extend_from_slice(rest);
    }

    /// The index of the form in which a delivery is sent, encoded if it is the first.
    pub(in crate::mqtt) fn form(&mut self, delivery: &Delivery, protocol: Protocol) -> usize {
        if !self.message.as_ref().is_some_and(|message| Arc::ptr_eq(message, &delivery.message)) {
            self.message = Some(delivery.message.clone());
            self.forms.clear();
            self.bytes.clear();
        }
        match self.forms.iter().position(|form| form.suits(delivery, protocol)) {
            Some(index) => index,
            None => self.encode(delivery, protocol),
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
        bytes.reserve(super::super::frame::MAX_HEADER_BYTES + remaining);
        bytes.push(0x30 | (delivery.qos as u8) << 1 | u8::from(delivery.retain));
        put_variable(remaining, bytes);
        put_binary(topic.as_bytes(), bytes);
        let packet_id_at = bytes.len() - start;
        if identified {
            bytes.extend_from_slice(&[0, 0]);
        }
        if protocol == Protocol::V5 {
            put_variable(properties, bytes);
        }
        let properties_at = bytes.len() - start;
        if protocol == Protocol::V5 {
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
            properties_at,
            properties,
            shared: None,
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
pub(super) fn put_binary(data: &[u8], bytes: &mut Vec<u8>) {
    debug_assert!(data.len() <= usize::from(u16::MAX));
    let length = u16::try_from(data.len()).unwrap_or(u16::MAX);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&data[..usize::from(length)]);
}

pub(super) fn variable_length(value: usize) -> usize {
    match value {
        0..=127 => 1,
        128..=16_383 => 2,
        16_384..=2_097_151 => 3,
        _ => 4,
    }
}

pub(super) fn put_variable(mut value: usize, bytes: &mut Vec<u8>) {
    debug_assert!(value <= super::super::frame::MAX_REMAINING_LENGTH);
    while value > 0x7F {
        bytes.push((value & 0x7F) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}
