//! What the values of the tables look like on disk, and their translation from and to the core's types.
//!
//! A value is one version byte and a postcard record. The records are types of their own, so that the core may change
//! without changing the disk, and they borrow, so that encoding copies nothing but into the scratch buffer. Changing a
//! record means a new version byte, and decoding the old one too: fields are added at the end, so that the record of
//! an earlier version is the beginning of a later one's.

use std::borrow::Cow;
use std::num::NonZeroU16;
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};
use vespiary_core::event::{
    DeadLetter, PacketId, QueueEntry, RetainHandling, Revision, SessionId, SessionRecord, ShareNumber,
    SubscriptionOptions, SubscriptionRecord, Will,
};
use vespiary_core::message::{Message, MessageId, MessageProperties, Qos, Timestamp};
use vespiary_core::topic::{InvalidTopic, Topic};

/// The version byte of values whose record has never changed.
pub(super) const RECORD_VERSION: u8 = 1;

/// The version byte of queue entries and subscriptions, which know of shared subscriptions since then.
const SHARED_VERSION: u8 = 2;

/// Why a value cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum InvalidRow {
    /// It has no bytes at all.
    #[error("it is empty")]
    Empty,
    /// Its version byte is unknown.
    #[error("its version {0} is unknown")]
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
    encode_as(RECORD_VERSION, scratch, record)
}

fn encode_as(version: u8, scratch: &mut Vec<u8>, record: &impl Serialize) -> Result<(), InvalidRow> {
    let mut buffer = std::mem::take(scratch);
    buffer.clear();
    buffer.push(version);
    *scratch = postcard::to_extend(record, buffer)?;
    Ok(())
}

/// Decodes a value written by [`encode`]; the record borrows from it.
pub(super) fn decode<'a, R: Deserialize<'a>>(value: &'a [u8]) -> Result<R, InvalidRow> {
    whole(unversioned(value)?)
}

/// A value without its version byte, which is checked.
pub(super) fn unversioned(value: &[u8]) -> Result<&[u8], InvalidRow> {
    match versioned(value)? {
        (RECORD_VERSION, rest) => Ok(rest),
        (version, _) => Err(InvalidRow::Version(version)),
    }
}

/// The version byte of a value, and the rest of it.
fn versioned(value: &[u8]) -> Result<(u8, &[u8]), InvalidRow> {
    value.split_first().map(|(&version, rest)| (version, rest)).ok_or(InvalidRow::Empty)
}

/// Decodes a record that is all there is.
fn whole<'a, R: Deserialize<'a>>(bytes: &'a [u8]) -> Result<R, InvalidRow> {
    let (record, rest) = postcard::take_from_bytes(bytes)?;
    if rest.is_empty() { Ok(record) } else { Err(InvalidRow::TrailingBytes(rest.len())) }
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
            user: None,
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
    first: FirstSubscriptionRow,
    share: Option<u16>,
}

/// A subscription as version 1 has it.
#[derive(Serialize, Deserialize)]
struct FirstSubscriptionRow {
    maximum_qos: u8,
    no_local: bool,
    retain_as_published: bool,
    /// As on the wire: 0, 1 or 2.
    retain_handling: u8,
    identifier: Option<u32>,
}

impl SubscriptionRow {
    pub(super) fn new(subscription: SubscriptionRecord) -> Self {
        let SubscriptionRecord { options, identifier, share } = subscription;
        let first = FirstSubscriptionRow {
            maximum_qos: options.maximum_qos as u8,
            no_local: options.no_local,
            retain_as_published: options.retain_as_published,
            retain_handling: match options.retain_handling {
                RetainHandling::AtSubscribe => 0,
                RetainHandling::IfNew => 1,
                RetainHandling::Never => 2,
            },
            identifier,
        };
        Self { first, share: share.map(|share| share.0.get()) }
    }

    pub(super) fn encode(&self, scratch: &mut Vec<u8>) -> Result<(), InvalidRow> {
        encode_as(SHARED_VERSION, scratch, self)
    }

    pub(super) fn decode(value: &[u8]) -> Result<Self, InvalidRow> {
        match versioned(value)? {
            (SHARED_VERSION, rest) => whole(rest),
            (RECORD_VERSION, rest) => Ok(Self { first: whole(rest)?, share: None }),
            (version, _) => Err(InvalidRow::Version(version)),
        }
    }

    pub(super) fn subscription(&self) -> Result<SubscriptionRecord, InvalidRow> {
        let options = SubscriptionOptions {
            maximum_qos: qos(self.first.maximum_qos)?,
            no_local: self.first.no_local,
            retain_as_published: self.first.retain_as_published,
            retain_handling: match self.first.retain_handling {
                0 => RetainHandling::AtSubscribe,
                1 => RetainHandling::IfNew,
                2 => RetainHandling::Never,
                _ => return Err(InvalidRow::Field("retain_handling")),
            },
        };
        Ok(SubscriptionRecord { options, identifier: self.first.identifier, share: share(self.share)? })
    }
}

/// An entry of a session's queue, in `queue`.
#[derive(Serialize, Deserialize)]
pub(super) struct QueueRow<'a> {
    #[serde(borrow)]
    first: FirstQueueRow<'a>,
    share: Option<u16>,
    pub(super) weight: u32,
}

/// An entry of a session's queue as version 1 has it.
#[derive(Serialize, Deserialize)]
struct FirstQueueRow<'a> {
    message: u64,
    qos: u8,
    retain: bool,
    subscription_identifiers: Option<Cow<'a, [u32]>>,
    /// The identifier it is in flight under.
    packet_id: Option<u16>,
    /// Whether PUBREC came, so that only PUBREL is sent from now on.
    released: bool,
}

impl<'a> QueueRow<'a> {
    pub(super) fn new(entry: &'a QueueEntry, released: bool) -> Self {
        let first = FirstQueueRow {
            message: entry.message.0,
            qos: entry.qos as u8,
            retain: entry.retain,
            subscription_identifiers: entry.subscription_identifiers.as_deref().map(Cow::Borrowed),
            packet_id: entry.packet_id.map(PacketId::get),
            released,
        };
        Self { first, share: entry.share.map(|share| share.0.get()), weight: entry.weight }
    }

    pub(super) fn encode(&self, scratch: &mut Vec<u8>) -> Result<(), InvalidRow> {
        encode_as(SHARED_VERSION, scratch, self)
    }

    /// Decodes a row. One of version 1 has no weight.
    pub(super) fn decode(value: &'a [u8]) -> Result<Self, InvalidRow> {
        match versioned(value)? {
            (SHARED_VERSION, rest) => whole(rest),
            (RECORD_VERSION, rest) => Ok(Self { first: whole(rest)?, share: None, weight: 0 }),
            (version, _) => Err(InvalidRow::Version(version)),
        }
    }

    /// The message that a row refers to; nothing else of it is looked at.
    pub(super) fn message(value: &[u8]) -> Result<u64, InvalidRow> {
        match versioned(value)? {
            (RECORD_VERSION | SHARED_VERSION, rest) => Ok(postcard::take_from_bytes(rest)?.0),
            (version, _) => Err(InvalidRow::Version(version)),
        }
    }

    /// Notes that it is in flight under `packet_id`, if one is given, and that PUBREC came.
    pub(super) fn mark(&mut self, packet_id: Option<PacketId>, released: bool) {
        self.first.packet_id = packet_id.map(PacketId::get).or(self.first.packet_id);
        self.first.released |= released;
    }

    /// The entry, and whether it is released.
    pub(super) fn entry(self) -> Result<(QueueEntry, bool), InvalidRow> {
        let Self { first, share: through, weight } = self;
        let packet_id = match first.packet_id {
            None => None,
            Some(id) => Some(PacketId::new(id).ok_or(InvalidRow::Field("packet_id"))?),
        };
        let entry = QueueEntry {
            replayed: false,
            message: MessageId(first.message),
            qos: qos(first.qos)?,
            retain: first.retain,
            subscription_identifiers: first.subscription_identifiers.map(|identifiers| Arc::from(&*identifiers)),
            packet_id,
            share: share(through)?,
            weight,
        };
        Ok((entry, first.released))
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

fn share(number: Option<u16>) -> Result<Option<ShareNumber>, InvalidRow> {
    number.map(|number| NonZeroU16::new(number).map(ShareNumber).ok_or(InvalidRow::Field("share"))).transpose()
}

fn qos(level: u8) -> Result<Qos, InvalidRow> {
    Qos::from_u8(level).ok_or(InvalidRow::Field("qos"))
}
