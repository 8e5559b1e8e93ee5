//! What the values of the tables look like on disk, and their translation from and to the core's types.
//!
//! A value is one version byte and a postcard record. The records are types of their own, so that the core may change
//! without changing the disk, and they borrow, so that encoding copies nothing but into the scratch buffer. Changing a
//! record means a new version byte, and decoding the old one too.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};
use vespiary_core::event::{
    DeadLetter, PacketId, QueueEntry, RetainHandling, Revision, SessionId, SessionRecord, SubscriptionOptions, Will,
};
use vespiary_core::message::{Message, MessageId, MessageProperties, Qos, Timestamp};
use vespiary_core::topic::{InvalidTopic, Topic};

/// The version byte that every value begins with today.
pub(super) const RECORD_VERSION: u8 = 1;

/// Why a value cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum InvalidRow {
    /// It has no bytes at all.
    #[error("it is empty")]
    Empty,
    /// Its version byte is unknown.
    #[error("its version is {0}, not {RECORD_VERSION}")]
    Version(u8),
    /// It is not a record of its table.
    #[error("it cannot be decoded: {0}")]
    Encoding(#[from] postcard::Error),
    /// Bytes follow its record.
    #[error("{0} bytes follow its record")]
    TrailingBytes(usize),
    /// It holds a topic name or filter that is none.
    #[error("it holds an invalid topic: {0}")]
    Topic(#[from] InvalidTopic),
    /// A field has a value it cannot have.
    #[error("its field {0} has an impossible value")]
    Field(&'static str),
}

/// Encodes a record, with its version byte, into `scratch`, replacing what was there.
pub(super) fn encode(scratch: &mut Vec<u8>, record: &impl Serialize) -> Result<(), InvalidRow> {
    let mut buffer = std::mem::take(scratch);
    buffer.clear();
    buffer.push(RECORD_VERSION);
    *scratch = postcard::to_extend(record, buffer)?;
    Ok(())
}

/// Decodes a value written by [`encode`]; the record borrows from it.
pub(super) fn decode<'a, R: Deserialize<'a>>(value: &'a [u8]) -> Result<R, InvalidRow> {
    let (record, rest) = postcard::take_from_bytes(unversioned(value)?)?;
    if rest.is_empty() { Ok(record) } else { Err(InvalidRow::TrailingBytes(rest.len())) }
}

/// A value without its version byte, which is checked.
pub(super) fn unversioned(value: &[u8]) -> Result<&[u8], InvalidRow> {
    match value.split_first() {
        None => Err(InvalidRow::Empty),
        Some((&RECORD_VERSION, rest)) => Ok(rest),
        Some((&version, _)) => Err(InvalidRow::Version(version)),
    }
}

/// Serialises bytes in one piece; serde takes a plain slice for a sequence of numbers.
fn in_one_piece<S: Serializer>(bytes: &&[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}

/// Bytes within an `Option`, serialised in one piece.
#[derive(Serialize, Deserialize)]
struct BytesRow<'a>(#[serde(borrow, serialize_with = "in_one_piece")] &'a [u8]);

/// A message, in `messages`, `retained`, `dead_letters` and in wills.
#[derive(Serialize, Deserialize)]
pub(super) struct MessageRow<'a> {
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
    pub(super) fn new(message: &'a Message) -> Self {
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

    pub(super) fn message(self) -> Result<Message, InvalidRow> {
        Ok(Message {
            topic: Topic::parse(self.topic)?,
            payload: self.payload.into(),
            qos: qos(self.qos)?,
            retain: self.retain,
            properties: self.properties.map(|row| row.properties().map(Box::new)).transpose()?,
            expires_at: self.expires_at.map(Timestamp),
            received_at: Timestamp(self.received_at),
            publisher: self.publisher.into(),
        })
    }

    /// Leaves out what the broker does not keep of a dead letter.
    pub(super) fn without_content(self) -> Self {
        Self { payload: &[], properties: None, ..self }
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
pub(super) struct SessionRow<'a> {
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
    message: MessageRow<'a>,
    expiry_s: Option<u32>,
    delay_s: u32,
}

impl<'a> SessionRow<'a> {
    pub(super) fn new(record: &'a SessionRecord) -> Self {
        let will = record.will.as_deref().map(|will| WillRow {
            message: MessageRow::new(&will.message),
            expiry_s: will.expiry_s,
            delay_s: will.delay_s,
        });
        Self {
            client_id: &record.client_id,
            session_expiry_s: record.session_expiry_s,
            disconnected_at: record.disconnected_at.map(|at| at.0),
            will,
        }
    }

    pub(super) fn record(self) -> Result<SessionRecord, InvalidRow> {
        let will = match self.will {
            None => None,
            Some(will) => Some(Box::new(Will {
                message: will.message.message()?,
                expiry_s: will.expiry_s,
                delay_s: will.delay_s,
            })),
        };
        Ok(SessionRecord {
            client_id: self.client_id.into(),
            session_expiry_s: self.session_expiry_s,
            disconnected_at: self.disconnected_at.map(Timestamp),
            will,
        })
    }
}

/// A subscription, in `subscriptions`.
#[derive(Serialize, Deserialize)]
pub(super) struct SubscriptionRow {
    maximum_qos: u8,
    no_local: bool,
    retain_as_published: bool,
    /// As on the wire: 0, 1 or 2.
    retain_handling: u8,
    identifier: Option<u32>,
}

impl SubscriptionRow {
    pub(super) fn new(options: SubscriptionOptions, identifier: Option<u32>) -> Self {
        Self {
            maximum_qos: options.maximum_qos as u8,
            no_local: options.no_local,
            retain_as_published: options.retain_as_published,
            retain_handling: match options.retain_handling {
                RetainHandling::AtSubscribe => 0,
                RetainHandling::IfNew => 1,
                RetainHandling::Never => 2,
            },
            identifier,
        }
    }

    pub(super) fn options(&self) -> Result<(SubscriptionOptions, Option<u32>), InvalidRow> {
        let options = SubscriptionOptions {
            maximum_qos: qos(self.maximum_qos)?,
            no_local: self.no_local,
            retain_as_published: self.retain_as_published,
            retain_handling: match self.retain_handling {
                0 => RetainHandling::AtSubscribe,
                1 => RetainHandling::IfNew,
                2 => RetainHandling::Never,
                _ => return Err(InvalidRow::Field("retain_handling")),
            },
        };
        Ok((options, self.identifier))
    }
}

/// An entry of a session's queue, in `queue`.
#[derive(Serialize, Deserialize)]
pub(super) struct QueueRow<'a> {
    message: u64,
    qos: u8,
    retain: bool,
    subscription_identifiers: Option<Cow<'a, [u32]>>,
    /// The identifier it is in flight under.
    pub(super) packet_id: Option<u16>,
    /// Whether PUBREC came, so that only PUBREL is sent from now on.
    pub(super) released: bool,
}

impl<'a> QueueRow<'a> {
    pub(super) fn new(entry: &'a QueueEntry, released: bool) -> Self {
        Self {
            message: entry.message.0,
            qos: entry.qos as u8,
            retain: entry.retain,
            subscription_identifiers: entry.subscription_identifiers.as_deref().map(Cow::Borrowed),
            packet_id: entry.packet_id.map(PacketId::get),
            released,
        }
    }

    /// The entry, and whether it is released.
    pub(super) fn entry(self) -> Result<(QueueEntry, bool), InvalidRow> {
        let packet_id = match self.packet_id {
            None => None,
            Some(id) => Some(PacketId::new(id).ok_or(InvalidRow::Field("packet_id"))?),
        };
        let entry = QueueEntry {
            message: MessageId(self.message),
            qos: qos(self.qos)?,
            retain: self.retain,
            subscription_identifiers: self.subscription_identifiers.map(|identifiers| Arc::from(&*identifiers)),
            packet_id,
        };
        Ok((entry, self.released))
    }
}

/// A revision of a plugin, in `plugin_revisions` and within `plugins`.
#[derive(Serialize, Deserialize)]
pub(super) struct RevisionRow<'a> {
    number: u32,
    digest: [u8; 32],
    version: &'a str,
    activated_at: u64,
}

impl<'a> RevisionRow<'a> {
    pub(super) fn new(revision: &'a Revision) -> Self {
        Self {
            number: revision.number,
            digest: revision.digest,
            version: &revision.version,
            activated_at: revision.activated_at.0,
        }
    }

    pub(super) fn revision(&self) -> Revision {
        Revision {
            number: self.number,
            digest: self.digest,
            version: self.version.into(),
            activated_at: Timestamp(self.activated_at),
        }
    }
}

/// A plugin, in `plugins`.
#[derive(Serialize, Deserialize)]
pub(super) struct PluginRow<'a> {
    session: u64,
    #[serde(borrow)]
    active: RevisionRow<'a>,
}

impl<'a> PluginRow<'a> {
    pub(super) fn new(session: SessionId, active: &'a Revision) -> Self {
        Self { session: session.0, active: RevisionRow::new(active) }
    }

    pub(super) fn plugin(&self) -> (SessionId, Revision) {
        (SessionId(self.session), self.active.revision())
    }
}

/// A dead letter, in `dead_letters`.
#[derive(Serialize, Deserialize)]
pub(super) struct DeadLetterRow<'a> {
    #[serde(borrow)]
    pub(super) message: MessageRow<'a>,
    reason: &'a str,
    attempts: u32,
    at: u64,
}

impl<'a> DeadLetterRow<'a> {
    pub(super) fn new(letter: &'a DeadLetter) -> Self {
        Self {
            message: MessageRow::new(&letter.content),
            reason: &letter.reason,
            attempts: letter.attempts,
            at: letter.at.0,
        }
    }

    pub(super) fn letter(self) -> Result<DeadLetter, InvalidRow> {
        Ok(DeadLetter {
            content: Arc::new(self.message.message()?),
            reason: self.reason.into(),
            attempts: self.attempts,
            at: Timestamp(self.at),
        })
    }
}

fn qos(level: u8) -> Result<Qos, InvalidRow> {
    Qos::from_u8(level).ok_or(InvalidRow::Field("qos"))
}
