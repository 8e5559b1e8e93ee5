//! What the values of the tables look like on disk, and their translation from and to the core's types.
//!
//! A value is one version byte and a postcard record. The records are types of their own, so that the core may change
//! without changing the disk, and they borrow, so that encoding copies nothing but into the scratch buffer. Changing a
//! record means a new version byte, and decoding the old one too: fields are added at the end, so that the record of
//! an earlier version is the beginning of a later one's.

mod message;
mod plugin;
mod queue;

use serde::{Deserialize, Serialize, Serializer};
use vespiary_core::message::Qos;
use vespiary_core::topic::InvalidTopic;

pub(super) use message::{DeadLetterRow, MessageRow, SessionRow};
pub(super) use plugin::{PluginRecord, PluginRow, RevisionRow, StateRow, TimerRow};
pub(super) use queue::{QueueRow, SubscriptionRow};

/// The version byte of values as they first were, and of those whose record has never changed.
pub(super) const RECORD_VERSION: u8 = 1;

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
    scratch.clear();
    append(scratch, record)
}

/// The same behind what is there.
pub(super) fn append(out: &mut Vec<u8>, record: &impl Serialize) -> Result<(), InvalidRow> {
    append_as(RECORD_VERSION, out, record)
}

fn append_as(version: u8, out: &mut Vec<u8>, record: &impl Serialize) -> Result<(), InvalidRow> {
    out.push(version);
    append_fields(out, record)
}

/// Appends fields without a version byte. After an error what was there is gone as well.
pub(super) fn append_fields(out: &mut Vec<u8>, fields: &impl Serialize) -> Result<(), InvalidRow> {
    *out = postcard::to_extend(fields, std::mem::take(out))?;
    Ok(())
}

/// Decodes a value written by [`encode`]; the record borrows from it.
pub(super) fn decode<'a, R: Deserialize<'a>>(value: &'a [u8]) -> Result<R, InvalidRow> {
    whole(value, take)
}

/// Decodes what [`append`] wrote from the beginning of `bytes`, and moves them behind it.
pub(super) fn take<'a, R: Deserialize<'a>>(bytes: &mut &'a [u8]) -> Result<R, InvalidRow> {
    match take_version(bytes)? {
        RECORD_VERSION => take_fields(bytes),
        version => Err(InvalidRow::Version(version)),
    }
}

fn take_version(bytes: &mut &[u8]) -> Result<u8, InvalidRow> {
    bytes.split_off_first().copied().ok_or(InvalidRow::Empty)
}

/// Takes what [`append_fields`] wrote.
pub(super) fn take_fields<'a, R: Deserialize<'a>>(bytes: &mut &'a [u8]) -> Result<R, InvalidRow> {
    let (fields, rest) = postcard::take_from_bytes(bytes)?;
    *bytes = rest;
    Ok(fields)
}

/// Takes a row that is all there is.
fn whole<'a, R>(
    mut value: &'a [u8],
    take: impl FnOnce(&mut &'a [u8]) -> Result<R, InvalidRow>,
) -> Result<R, InvalidRow> {
    let row = take(&mut value)?;
    if value.is_empty() { Ok(row) } else { Err(InvalidRow::TrailingBytes(value.len())) }
}

/// Bytes as a field, or within an `Option`, serialised in one piece.
#[derive(Serialize, Deserialize)]
pub(super) struct BytesRow<'a>(#[serde(borrow, serialize_with = "in_one_piece")] pub(super) &'a [u8]);

/// Serialises bytes in one piece; serde takes a plain slice for a sequence of numbers.
fn in_one_piece<S: Serializer>(bytes: &&[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}

fn qos(level: u8) -> Result<Qos, InvalidRow> {
    Qos::from_u8(level).ok_or(InvalidRow::Field("qos"))
}
