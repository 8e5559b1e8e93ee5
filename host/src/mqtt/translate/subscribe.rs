//! SUBSCRIBE and UNSUBSCRIBE (sections 3.8 and 3.10).
//!
//! A filter that MQTT does not allow is refused by itself, so that the others of its SUBSCRIBE stand and its author
//! sees which one it was; only an empty one, or one with U+0000, closes the connection. A shared subscription goes to the
//! core as the one filter that it is on the wire; 3.1.1 clients may share as well.

use std::collections::VecDeque;

use ntex_bytes::ByteString;
use ntex_mqtt::{v3, v5};
use vespiary_core::event::{PacketId, Protocol, ReasonCode, RetainHandling, Subscribe, SubscriptionOptions};
use vespiary_core::topic::InvalidTopic;
use vespiary_core::{Input, TopicFilter};

use super::properties::{Place, Properties};
use super::{Inbound, Terms, Understood, decode_v3, decode_v5, quality};
use crate::config::Filter;
use crate::mqtt::frame::{Fields, Frame};
use crate::plugins::hooks::may_be_subscribed;

/// A filter with its options, or why it is not taken.
type Requested = Result<(TopicFilter, SubscriptionOptions), ReasonCode>;

impl Inbound {
    pub(super) fn subscribe(
        &self,
        frame: Frame<'_>,
        terms: Terms<'_>,
        inputs: &mut VecDeque<Input>,
    ) -> Result<Understood, ReasonCode> {
        check_options(frame.body, self.protocol)?;
        let (packet_id, identifier, mut filters) = match self.protocol {
            Protocol::V3 => subscribe_v3(decode_v3(frame)?)?,
            Protocol::V5 => subscribe_v5(decode_v5(frame)?)?,
        };
        // No filter at all [MQTT-3.8.3-2].
        if filters.is_empty() {
            return Err(ReasonCode::ProtocolError);
        }
        for requested in &mut filters {
            if let Ok((filter, _)) = requested
                && let Some(reason) = denied(filter, terms.denied_subscriptions)
            {
                *requested = Err(reason);
            }
        }
        let subscribe = Box::new(Subscribe { packet_id, identifier, filters });
        inputs.push_back(Input::Subscribe { connection: self.connection, subscribe });
        Ok(Understood::Input)
    }

    pub(super) fn unsubscribe(&self, frame: Frame<'_>, inputs: &mut VecDeque<Input>) -> Result<Understood, ReasonCode> {
        let (packet_id, filters) = match self.protocol {
            Protocol::V3 => match decode_v3(frame)? {
                v3::codec::Packet::Unsubscribe { packet_id, topic_filters } => (packet_id, topic_filters),
                _ => return Err(ReasonCode::MalformedPacket),
            },
            Protocol::V5 => {
                let mut fields = Fields::new(frame.body);
                fields.two_bytes()?;
                Properties::next(Place::Unsubscribe, &mut fields)?.check()?;
                match decode_v5(frame)? {
                    v5::codec::Packet::Unsubscribe(packet) => (packet.packet_id, packet.topic_filters),
                    _ => return Err(ReasonCode::MalformedPacket),
                }
            }
        };
        // No filter at all [MQTT-3.10.3-2]; a filter that could never have been subscribed to.
        if filters.is_empty() {
            return Err(ReasonCode::ProtocolError);
        }
        let filters: Result<Vec<_>, _> = filters.iter().map(|filter| TopicFilter::parse(filter)).collect();
        let filters = filters.map_err(|_| ReasonCode::MalformedPacket)?;
        inputs.push_back(Input::Unsubscribe { connection: self.connection, packet_id, filters });
        Ok(Understood::Input)
    }
}

/// Checks properties and the bits of the subscription options that the codec does not look at.
fn check_options(body: &[u8], protocol: Protocol) -> Result<(), ReasonCode> {
    let mut fields = Fields::new(body);
    fields.two_bytes()?;
    if protocol == Protocol::V5 {
        Properties::next(Place::Subscribe, &mut fields)?.check()?;
    }
    while !fields.is_empty() {
        fields.binary()?;
        let options = fields.byte()?;
        let reserved = match protocol {
            Protocol::V3 => 0xFC, // 3.1.1: [MQTT-3-8.3-4]
            Protocol::V5 => 0xC0, // [MQTT-3.8.3-5]
        };
        if options & reserved != 0 {
            return Err(ReasonCode::MalformedPacket);
        }
        // QoS 3, Retain Handling 3 (section 3.8.3.1).
        if options & 0x03 == 0x03 || options & 0x30 == 0x30 {
            return Err(ReasonCode::ProtocolError);
        }
    }
    Ok(())
}

fn subscribe_v3(packet: v3::codec::Packet) -> Result<(PacketId, Option<u32>, Vec<Requested>), ReasonCode> {
    let v3::codec::Packet::Subscribe { packet_id, topic_filters } = packet else {
        return Err(ReasonCode::MalformedPacket);
    };
    let mut filters = Vec::with_capacity(topic_filters.len());
    for (filter, qos) in &topic_filters {
        let options = SubscriptionOptions {
            maximum_qos: quality(*qos),
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::AtSubscribe,
        };
        filters.push(requested(filter, options)?);
    }
    Ok((packet_id, None, filters))
}

fn subscribe_v5(packet: v5::codec::Packet) -> Result<(PacketId, Option<u32>, Vec<Requested>), ReasonCode> {
    let v5::codec::Packet::Subscribe(packet) = packet else {
        return Err(ReasonCode::MalformedPacket);
    };
    let mut filters = Vec::with_capacity(packet.topic_filters.len());
    for (filter, options) in &packet.topic_filters {
        // No Local on a shared subscription [MQTT-3.8.3-4].
        if options.no_local && is_shared(filter) {
            return Err(ReasonCode::ProtocolError);
        }
        let options = SubscriptionOptions {
            maximum_qos: quality(options.qos),
            no_local: options.no_local,
            retain_as_published: options.retain_as_published,
            retain_handling: match options.retain_handling {
                v5::codec::RetainHandling::AtSubscribe => RetainHandling::AtSubscribe,
                v5::codec::RetainHandling::AtSubscribeNew => RetainHandling::IfNew,
                v5::codec::RetainHandling::NoAtSubscribe => RetainHandling::Never,
            },
        };
        filters.push(requested(filter, options)?);
    }
    Ok((packet.packet_id, packet.id.map(std::num::NonZeroU32::get), filters))
}

fn requested(filter: &ByteString, options: SubscriptionOptions) -> Result<Requested, ReasonCode> {
    if is_shared(filter) && shared(filter).is_none() {
        return Ok(Err(ReasonCode::TopicFilterInvalid));
    }
    match TopicFilter::parse(filter) {
        Ok(filter) => Ok(Ok((filter, options))),
        Err(InvalidTopic::Empty) => Err(ReasonCode::ProtocolError), // [MQTT-4.7.3-1]
        Err(InvalidTopic::Nul) => Err(ReasonCode::MalformedPacket), // [MQTT-4.7.3-2]
        Err(
            InvalidTopic::TooLong
            | InvalidTopic::TooManyLevels
            | InvalidTopic::WildcardInName
            | InvalidTopic::MisplacedHash
            | InvalidTopic::MisplacedPlus,
        ) => Ok(Err(ReasonCode::TopicFilterInvalid)),
    }
}

fn is_shared(filter: &str) -> bool {
    filter == "$share" || filter.starts_with("$share/")
}

/// The filter that a shared subscription shares: `$share/{name}/{filter}`, with a name of at least one character
/// [MQTT-4.8.2-1] and without `+` and `#`, and something behind it [MQTT-4.8.2-2].
fn shared(filter: &str) -> Option<&str> {
    let (name, filter) = filter.strip_prefix("$share/")?.split_once('/')?;
    (!name.is_empty() && !name.contains(['+', '#']) && !filter.is_empty()).then_some(filter)
}

/// Why nobody may subscribe with a filter, also as one of a group: it would bring what is between the broker and one plugin,
/// or the operator denies it.
pub(in crate::mqtt) fn denied(filter: &TopicFilter, denied: &[Filter]) -> Option<ReasonCode> {
    if !may_be_subscribed(filter) {
        return Some(ReasonCode::NotAuthorized);
    }
    is_denied(filter, denied).then_some(ReasonCode::UnspecifiedError)
}

/// Whether the operator denies what a filter would bring, also to a group that shares it.
fn is_denied(filter: &TopicFilter, denied: &[Filter]) -> bool {
    if denied.is_empty() {
        return false;
    }
    // What stands behind the name of a group is as valid as the whole.
    let inner = shared(filter.as_str()).and_then(|filter| TopicFilter::parse(filter).ok());
    let filter = inner.as_ref().unwrap_or(filter);
    denied.iter().any(|denied| denied.covers(filter))
}
