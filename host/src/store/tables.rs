//! The tables of the database: their names, keys and values. `docs/storage.md` describes each.
//!
//! Keys are tuples that begin with the session where there is one, so that all of a session is one range. Values are
//! a version byte and a record (see `record.rs`). Only `meta`, `references` and `state_bytes` hold bare numbers, the first
//! because every version of the program has to be able to read it, the others because a sum is all they will ever hold;
//! and `received` and `state_expiry` hold nothing, because their keys say all.

use std::collections::BTreeMap;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, TableError, WriteTransaction};

use vespiary_core::message::Timestamp;

use super::apply::WriteError;
use super::record::{QueueRow, StateRow};

/// Version of the whole layout: which tables there are and how their keys look. A database with a higher one is
/// refused.
pub(super) const FORMAT_VERSION: u64 = 4;

/// The layout before there was a log.
pub(super) const UNLOGGED_FORMAT_VERSION: u64 = 3;

/// The layout before the bytes of plugins' state were summed up.
pub(super) const UNSUMMED_FORMAT_VERSION: u64 = 2;

/// The layout before messages had their references counted.
pub(super) const UNCOUNTED_FORMAT_VERSION: u64 = 1;

/// Key in [`META`] of the layout's version.
pub(super) const META_FORMAT_VERSION: &str = "format_version";
/// Key in [`META`] of the number below which identifiers are used up.
pub(super) const META_IDENTIFIERS_BELOW: &str = "identifiers_below";

/// Key in [`META`] of the number of the last frame of the log of which there is something in the database. Before there was
/// a log, of the last transaction.
pub(super) const META_FRAME: &str = "commits";

/// Revisions kept for each plugin.
pub(super) const REVISIONS_KEPT: usize = 10;

pub(super) type Bytes = &'static [u8];

pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// Session -> `SessionRow`.
pub(super) const SESSIONS: TableDefinition<'_, u64, Bytes> = TableDefinition::new("sessions");
/// Session, topic filter -> `SubscriptionRow`.
pub(super) const SUBSCRIPTIONS: TableDefinition<'_, (u64, &str), Bytes> = TableDefinition::new("subscriptions");
/// Message -> `MessageRow`.
pub(super) const MESSAGES: TableDefinition<'_, u64, Bytes> = TableDefinition::new("messages");
/// Message -> rows of [`QUEUE`] and [`KEPT`] that refer to it, where they are 2 or more.
pub(super) const REFERENCES: TableDefinition<'_, u64, u32> = TableDefinition::new("references");
/// Session, sequence -> `QueueRow`, of events that were handled on probation.
pub(super) const KEPT: TableDefinition<'_, (u64, u64), Bytes> = TableDefinition::new("kept");
/// Session, sequence -> `QueueRow`.
pub(super) const QUEUE: TableDefinition<'_, (u64, u64), Bytes> = TableDefinition::new("queue");
/// Session, packet identifier -> nothing.
pub(super) const RECEIVED: TableDefinition<'_, (u64, u16), ()> = TableDefinition::new("received");
/// Topic -> `MessageRow`.
pub(super) const RETAINED: TableDefinition<'_, &str, Bytes> = TableDefinition::new("retained");
/// Plugin -> `PluginRow`.
pub(super) const PLUGINS: TableDefinition<'_, &str, Bytes> = TableDefinition::new("plugins");
/// Plugin, revision number -> `RevisionRow`.
pub(super) const PLUGIN_REVISIONS: TableDefinition<'_, (&str, u32), Bytes> = TableDefinition::new("plugin_revisions");
/// Generation, key -> `StateRow`.
pub(super) const PLUGIN_STATE: TableDefinition<'_, (u64, &str), Bytes> = TableDefinition::new("plugin_state");
/// Generation, key -> the `StateRow` that the key had when the probation began; no bytes where it had none.
pub(super) const PLUGIN_UNDO: TableDefinition<'_, (u64, &str), Bytes> = TableDefinition::new("plugin_undo");
/// Time, generation, key -> nothing: the rows of [`PLUGIN_STATE`] that expire, by when they do.
pub(super) const STATE_EXPIRY: TableDefinition<'_, (u64, u64, &str), ()> = TableDefinition::new("state_expiry");
/// Generation -> bytes of the keys and values that [`PLUGIN_STATE`] holds of it, if any.
pub(super) const STATE_BYTES: TableDefinition<'_, u64, u64> = TableDefinition::new("state_bytes");
/// Session, name -> `TimerRow`.
pub(super) const TIMERS: TableDefinition<'_, (u64, &str), Bytes> = TableDefinition::new("timers");
/// Session, sequence -> `DeadLetterRow`.
pub(super) const DEAD_LETTERS: TableDefinition<'_, (u64, u64), Bytes> = TableDefinition::new("dead_letters");

/// Makes every table and notes the format version. For a new database only.
pub(super) fn create_all(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    create_tables(&transaction)?;
    transaction.open_table(META)?.insert(META_FORMAT_VERSION, FORMAT_VERSION)?;
    transaction.commit()?;
    Ok(())
}

fn create_tables(transaction: &WriteTransaction) -> Result<(), TableError> {
    transaction.open_table(SESSIONS)?;
    transaction.open_table(SUBSCRIPTIONS)?;
    transaction.open_table(MESSAGES)?;
    transaction.open_table(REFERENCES)?;
    transaction.open_table(QUEUE)?;
    transaction.open_table(KEPT)?;
    transaction.open_table(RECEIVED)?;
    transaction.open_table(RETAINED)?;
    transaction.open_table(PLUGINS)?;
    transaction.open_table(PLUGIN_REVISIONS)?;
    transaction.open_table(PLUGIN_STATE)?;
    transaction.open_table(PLUGIN_UNDO)?;
    transaction.open_table(STATE_EXPIRY)?;
    transaction.open_table(STATE_BYTES)?;
    transaction.open_table(TIMERS)?;
    transaction.open_table(DEAD_LETTERS)?;
    Ok(())
}

/// Brings a database of an earlier version, `found`, to [`FORMAT_VERSION`], in one transaction.
pub(super) fn upgrade(database: &Database, found: u64) -> Result<(), WriteError> {
    let transaction = database.begin_write().map_err(redb::Error::from)?;
    create_tables(&transaction)?;
    if found == UNCOUNTED_FORMAT_VERSION {
        count_references(&transaction)?;
    }
    if found <= UNSUMMED_FORMAT_VERSION {
        sum_state(&transaction)?;
    }
    transaction.open_table(META)?.insert(META_FORMAT_VERSION, FORMAT_VERSION)?;
    transaction.commit().map_err(redb::Error::from)?;
    Ok(())
}

/// Counts the references of each message.
fn count_references(transaction: &WriteTransaction) -> Result<(), WriteError> {
    let mut counts: BTreeMap<u64, u32> = BTreeMap::new();
    for row in transaction.open_table(QUEUE)?.iter()? {
        let (_, row) = row?;
        let message = QueueRow::message(row.value()).map_err(|error| WriteError::Row("queue", error))?;
        *counts.entry(message).or_default() += 1;
    }
    transaction.open_table(MESSAGES)?.retain(|message, _| counts.contains_key(&message))?;
    let mut references = transaction.open_table(REFERENCES)?;
    for (message, count) in counts.into_iter().filter(|&(_, count)| count > 1) {
        references.insert(message, count)?;
    }
    Ok(())
}

/// Sums up the bytes of each generation of plugins' state.
fn sum_state(transaction: &WriteTransaction) -> Result<(), WriteError> {
    let mut sums: BTreeMap<u64, u64> = BTreeMap::new();
    for row in transaction.open_table(PLUGIN_STATE)?.iter()? {
        let (key, row) = row?;
        let (state, key) = key.value();
        let value = StateRow::decode(row.value()).map_err(|error| WriteError::Row("plugin_state", error))?;
        *sums.entry(state).or_default() += value.size(key);
    }
    let mut table = transaction.open_table(STATE_BYTES)?;
    for (state, bytes) in sums.into_iter().filter(|&(_, bytes)| bytes > 0) {
        table.insert(state, bytes)?;
    }
    Ok(())
}

/// The number of the last frame of the log of which there is something in the database.
pub(super) fn frame(database: &Database) -> Result<u64, redb::Error> {
    let frame = database.begin_read()?.open_table(META)?.get(META_FRAME)?;
    Ok(frame.map_or(0, |value| value.value()))
}

/// When the first value of state expires.
pub(super) fn next_expiry(database: &Database) -> Result<Option<Timestamp>, redb::Error> {
    let table = database.begin_read()?.open_table(STATE_EXPIRY)?;
    Ok(table.first()?.map(|(key, _)| Timestamp(key.value().0)))
}

/// The format version that a database says it has; `None` if it says nothing.
pub(super) fn format_version(database: &Database) -> Result<Option<u64>, redb::Error> {
    let transaction = database.begin_read()?;
    match transaction.open_table(META) {
        Ok(meta) => Ok(meta.get(META_FORMAT_VERSION)?.map(|value| value.value())),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
