//! Messages, and what carries one: wills within sessions, and dead letters.
//!
//! Since version 2 a message says by which user it was published. In records that carry a message that stands at their
//! end, as all that is added does.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vespiary_core::event::{DeadLetter, SessionRecord, Will};
use vespiary_core::message::{Message, MessageProperties, Timestamp};
use vespiary_core::topic::Topic;

use super::{BytesRow, InvalidRow, RECORD_VERSION, append_as, in_one_piece, qos, take_fields, take_version, whole};

/// The version byte of messages, sessions and dead letters that know of the publisher's user.
const USER_VERSION: u8 = 2;

/// A message, in `messages` and `retained`.
#[derive(Serialize, Deserialize)]
pub(in crate::store) struct MessageRow<'a> {
    #[serde(borrow)]
    first: FirstMessageRow<'a>,
    user: Option<&'a str>,
}

/// A message as version 1 has it, and within other records.
#[derive(Serialize, Deserialize)]
struct FirstMessageRow<'a> {
    topic: &'a str,
    #[serde(serialize_with = "in_one_piece")]
    payload: &'a [u8],
    qos: u8,
    retain: bool,
    #[serde(borrow)]
    properties: Option<PropertiesRow<'a>>,
    /// Milliseconds since the Unix epoch, like every time here.
    expires_at: Option<u64>,
    received_at: u64,
    publisher: &'a str,
}

/// MQTT 5 properties of a message.
#[derive(Serialize, Deserialize)]
struct PropertiesRow<'a> {
    payload_is_utf8: Option<bool>,
    content_type: Option<&'a str>,
    response_topic: Option<&'a str>,
    #[serde(borrow)]
    correlation_data: Option<BytesRow<'a>>,
    user_properties: Vec<(&'a str, &'a str)>,
}

impl<'a> MessageRow<'a> {
    pub(in crate::store) fn new(message: &'a Message) -> Self {
        Self { first: FirstMessageRow::new(message), user: message.user.as_deref() }
    }

    pub(in crate::store) fn encode(&self, scratch: &mut Vec<u8>) -> Result<(), InvalidRow> {
        scratch.clear();
        self.append(scratch)
    }

    /// The same behind what is there.
    pub(in crate::store) fn append(&self, out: &mut Vec<u8>) -> Result<(), InvalidRow> {
        append_as(USER_VERSION, out, self)
    }

    pub(in crate::store) fn decode(value: &'a [u8]) -> Result<Self, InvalidRow> {
        whole(value, Self::take)
    }

    /// The same from the beginning of `bytes`, which are moved behind it.
    pub(in crate::store) fn take(bytes: &mut &'a [u8]) -> Result<Self, InvalidRow> {
        match take_version(bytes)? {
            USER_VERSION => take_fields(bytes),
            RECORD_VERSION => Ok(Self { first: take_fields(bytes)?, user: None }),
            version => Err(InvalidRow::Version(version)),
        }
    }

    pub(in crate::store) fn message(self) -> Result<Message, InvalidRow> {
        self.first.message(self.user)
    }
}

impl<'a> FirstMessageRow<'a> {
    fn new(message: &'a Message) -> Self {
        Self {
            topic: message.topic.as_str(),
            payload: &message.payload,
            qos: message.qos as u8,
            retain: message.retain,
            properties: message.properties.as_deref().map(PropertiesRow::new),
            expires_at: message.expires_at.map(|at| at.0),
            received_at: message.received_at.0,
            publisher: &message.publisher,
        }
    }

    fn message(self, user: Option<&str>) -> Result<Message, InvalidRow> {
        Ok(Message {
            topic: Topic::parse(self.topic)?,
            payload: self.payload.into(),
            qos: qos(self.qos)?,
            retain: self.retain,
            properties: self.properties.map(|row| row.properties().map(Box::new)).transpose()?,
            expires_at: self.expires_at.map(Timestamp),
            received_at: Timestamp(self.received_at),
            publisher: self.publisher.into(),
            user: user.map(Arc::from),
        })
    }
}

impl<'a> PropertiesRow<'a> {
    fn new(properties: &'a MessageProperties) -> Self {
        Self {
            payload_is_utf8: properties.payload_is_utf8,
            content_type: properties.content_type.as_deref(),
            response_topic: properties.response_topic.as_ref().map(Topic::as_str),
            correlation_data: properties.correlation_data.as_deref().map(BytesRow),
            user_properties: properties.user_properties.iter().map(|(name, value)| (&**name, &**value)).collect(),
        }
    }

    fn properties(self) -> Result<MessageProperties, InvalidRow> {
        Ok(MessageProperties {
            payload_is_utf8: self.payload_is_utf8,
            content_type: self.content_type.map(Box::from),
            response_topic: self.response_topic.map(Topic::parse).transpose()?,
            correlation_data: self.correlation_data.map(|data| data.0.into()),
            user_properties: self
                .user_properties
                .into_iter()
                .map(|(name, value)| (Box::from(name), Box::from(value)))
                .collect(),
        })
    }
}

/// A session, in `sessions`.
#[derive(Serialize, Deserialize)]
pub(in crate::store) struct SessionRow<'a> {
    #[serde(borrow)]
    first: FirstSessionRow<'a>,
    /// Of the will's message.
    user: Option<&'a str>,
}

/// A session as version 1 has it.
#[derive(Serialize, Deserialize)]
struct FirstSessionRow<'a> {
    client_id: &'a str,
    session_expiry_s: u32,
    disconnected_at: Option<u64>,
    #[serde(borrow)]
    will: Option<WillRow<'a>>,
}

/// A will, within a session.
#[derive(Serialize, Deserialize)]
struct WillRow<'a> {
    #[serde(borrow)]
    message: FirstMessageRow<'a>,
    expiry_s: Option<u32>,
    delay_s: u32,
}

impl<'a> SessionRow<'a> {
    pub(in crate::store) fn new(record: &'a SessionRecord) -> Self {
        let will = record.will.as_deref().map(|will| WillRow {
            message: FirstMessageRow::new(&will.message),
            expiry_s: will.expiry_s,
            delay_s: will.delay_s,
        });
        let first = FirstSessionRow {
            client_id: &record.client_id,
            session_expiry_s: record.session_expiry_s,
            disconnected_at: record.disconnected_at.map(|at| at.0),
            will,
        };
        Self { first, user: record.will.as_deref().and_then(|will| will.message.user.as_deref()) }
    }

    pub(in crate::store) fn encode(&self, scratch: &mut Vec<u8>) -> Result<(), InvalidRow> {
        scratch.clear();
        self.append(scratch)
    }

    /// The same behind what is there.
    pub(in crate::store) fn append(&self, out: &mut Vec<u8>) -> Result<(), InvalidRow> {
        append_as(USER_VERSION, out, self)
    }

    pub(in crate::store) fn decode(value: &'a [u8]) -> Result<Self, InvalidRow> {
        whole(value, Self::take)
    }

    /// The same from the beginning of `bytes`, which are moved behind it.
    pub(in crate::store) fn take(bytes: &mut &'a [u8]) -> Result<Self, InvalidRow> {
        match take_version(bytes)? {
            USER_VERSION => take_fields(bytes),
            RECORD_VERSION => Ok(Self { first: take_fields(bytes)?, user: None }),
            version => Err(InvalidRow::Version(version)),
        }
    }

    pub(in crate::store) fn record(self) -> Result<SessionRecord, InvalidRow> {
        let Self { first, user } = self;
        let will = match first.will {
            None => None,
            Some(WillRow { message, expiry_s, delay_s }) => {
                Some(Box::new(Will { message: message.message(user)?, expiry_s, delay_s }))
            }
        };
        Ok(SessionRecord {
            client_id: first.client_id.into(),
            session_expiry_s: first.session_expiry_s,
            disconnected_at: first.disconnected_at.map(Timestamp),
            will,
        })
    }
}

/// A dead letter, in `dead_letters`.
#[derive(Serialize, Deserialize)]
pub(in crate::store) struct DeadLetterRow<'a> {
    #[serde(borrow)]
    first: FirstDeadLetterRow<'a>,
    /// Of its message.
    user: Option<&'a str>,
}

/// A dead letter as version 1 has it.
#[derive(Serialize, Deserialize)]
struct FirstDeadLetterRow<'a> {
    #[serde(borrow)]
    message: FirstMessageRow<'a>,
    reason: &'a str,
    attempts: u32,
    at: u64,
}

impl<'a> DeadLetterRow<'a> {
    pub(in crate::store) fn new(letter: &'a DeadLetter) -> Self {
        let first = FirstDeadLetterRow {
            message: FirstMessageRow::new(&letter.content),
            reason: &letter.reason,
            attempts: letter.attempts,
            at: letter.at.0,
        };
        Self { first, user: letter.content.user.as_deref() }
    }

    pub(in crate::store) fn encode(&self, scratch: &mut Vec<u8>) -> Result<(), InvalidRow> {
        scratch.clear();
        self.append(scratch)
    }

    /// The same behind what is there.
    pub(in crate::store) fn append(&self, out: &mut Vec<u8>) -> Result<(), InvalidRow> {
        append_as(USER_VERSION, out, self)
    }

    pub(in crate::store) fn decode(value: &'a [u8]) -> Result<Self, InvalidRow> {
        whole(value, Self::take)
    }

    /// The same from the beginning of `bytes`, which are moved behind it.
    pub(in crate::store) fn take(bytes: &mut &'a [u8]) -> Result<Self, InvalidRow> {
        match take_version(bytes)? {
            USER_VERSION => take_fields(bytes),
            RECORD_VERSION => Ok(Self { first: take_fields(bytes)?, user: None }),
            version => Err(InvalidRow::Version(version)),
        }
    }

    pub(in crate::store) fn letter(self) -> Result<DeadLetter, InvalidRow> {
        let Self { first, user } = self;
        Ok(DeadLetter {
            content: Arc::new(first.message.message(user)?),
            reason: first.reason.into(),
            attempts: first.attempts,
            at: Timestamp(first.at),
        })
    }

    /// Leaves out what the broker does not keep of a dead letter.
    pub(in crate::store) fn without_content(mut self) -> Self {
        self.first.message.payload = &[];
        self.first.message.properties = None;
        self
    }
}
