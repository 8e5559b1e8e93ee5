//! Application messages and the small values that describe them.
//!
//! A [`Message`] is immutable and shared: however many queues hold it, topic and payload exist once.

use std::sync::Arc;

use crate::topic::Topic;

/// A point in time in milliseconds since the Unix epoch. The core never reads a clock; time is an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The point `milliseconds` later; saturates at the end of time.
    pub fn after_ms(self, milliseconds: u64) -> Self {
        Self(self.0.saturating_add(milliseconds))
    }

    /// Milliseconds from `earlier` to this point; 0 if the clock went backwards.
    pub fn since_ms(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Quality of service of a delivery (section 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Qos {
    /// QoS 0.
    AtMostOnce = 0,
    /// QoS 1.
    AtLeastOnce = 1,
    /// QoS 2.
    ExactlyOnce = 2,
}

impl Qos {
    /// The level from its wire value; `None` for 3 and above.
    pub fn from_u8(level: u8) -> Option<Self> {
        match level {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }
}

/// Identity of a durable message, unique for the life of a data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MessageId(pub u64);

/// An application message as it was published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Where it was published.
    pub topic: Topic,
    /// Its payload; may be empty.
    pub payload: Box<[u8]>,
    /// QoS it was published with; a delivery uses the lower of this and the subscription's [MQTT-3.8.4-8].
    pub qos: Qos,
    /// The RETAIN flag of the PUBLISH.
    pub retain: bool,
    /// MQTT 5 properties; `None` when there are none, which is the common case.
    pub properties: Option<Box<MessageProperties>>,
    /// When it stops being worth delivering (message expiry interval, counted from arrival); `None` for never.
    pub expires_at: Option<Timestamp>,
    /// When the broker took it.
    pub received_at: Timestamp,
    /// Client identifier, or `$plugin/NAME`, of who published it; empty for what the broker says by itself.
    pub publisher: Arc<str>,
    /// User name of who published it, if it has one.
    pub user: Option<Arc<str>>,
}

/// MQTT 5 properties that travel with a message unchanged [MQTT-3.3.2-17] [MQTT-3.3.2-20].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MessageProperties {
    /// Payload format indicator: `true` when the payload is announced to be UTF-8.
    pub payload_is_utf8: Option<bool>,
    /// MIME type or any other description of the content.
    pub content_type: Option<Box<str>>,
    /// Where a response is to be published.
    pub response_topic: Option<Topic>,
    /// Lets the requester tell which request a response belongs to.
    pub correlation_data: Option<Box<[u8]>>,
    /// Name and value pairs, in the order in which they came [MQTT-3.3.2-18].
    pub user_properties: Vec<(Box<str>, Box<str>)>,
}

impl Message {
    /// Whether it has expired at `now`.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    /// Its weight in bytes, by which queues and output are bounded: topic, payload, properties and a fixed overhead
    /// for the header.
    pub fn weight(&self) -> usize {
        let properties = self.properties.as_ref().map_or(0, |properties| properties.weight());
        self.topic.as_str().len() + self.payload.len() + properties + 16
    }
}

impl MessageProperties {
    fn weight(&self) -> usize {
        let pairs: usize = self.user_properties.iter().map(|(name, value)| name.len() + value.len() + 5).sum();
        self.content_type.as_ref().map_or(0, |text| text.len() + 3)
            + self.response_topic.as_ref().map_or(0, |topic| topic.as_str().len() + 3)
            + self.correlation_data.as_ref().map_or(0, |data| data.len() + 3)
            + pairs
            + 2
    }
}
