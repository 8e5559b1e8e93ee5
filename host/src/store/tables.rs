//! The tables of the database: their names, keys and values. `docs/storage.md` describes each.
//!
//! Keys are tuples that begin with the session where there is one, so that all of a session is one range. Values are
//! a version byte and a record (see `record.rs`). Only `meta` and `references` hold bare numbers, the one because every
//! version of the program has to be able to read it, the other because a count is all it will ever hold; and `received`
//! holds nothing, because its key says all.

use std::collections::BTreeMap;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, TableError, WriteTransaction};

use super::apply::WriteError;
use super::record::QueueRow;

/// Version of the whole layout: which tables there are and how their keys look. A database with a higher one is
/// refused.
pub(super) const FORMAT_VERSION: u64 = 2;

/// The layout before messages had their references counted.
pub(super) const UNCOUNTED_FORMAT_VERSION: u64 = 1;

/// Key in [`META`] of the layout's version.
pub(super) const META_FORMAT_VERSION: &str = "format_version";
/// Key in [`META`] of the number below which identifiers are used up.
pub(super) const META_IDENTIFIERS_BELOW: &str = "identifiers_below";

/// Key in [`META`] of the number of transactions that ever wrote something.
pub(super) const META_COMMITS: &str = "commits";

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
/// Message -> rows of [`QUEUE`] that refer to it, where they are 2 or more.
pub(super) const REFERENCES: TableDefinition<'_, u64, u32> = TableDefinition::new("references");
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
/// Session, key -> version byte and the bytes that the plugin wrote.
pub(super) const PLUGIN_STATE: TableDefinition<'_, (u64, &str), Bytes> = TableDefinition::new("plugin_state");
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
    transaction.open_table(RECEIVED)?;
    transaction.open_table(RETAINED)?;
    transaction.open_table(PLUGINS)?;
    transaction.open_table(PLUGIN_REVISIONS)?;
    transaction.open_table(PLUGIN_STATE)?;
    transaction.open_table(DEAD_LETTERS)?;
    Ok(())
}

/// Brings a database of [`UNCOUNTED_FORMAT_VERSION`] to [`FORMAT_VERSION`], in one transaction: counts the references of
/// each message.
pub(super) fn count_references(database: &Database) -> Result<(), WriteError> {
    let transaction = database.begin_write().map_err(redb::Error::from)?;
    create_tables(&transaction)?;
    {
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
        transaction.open_table(META)?.insert(META_FORMAT_VERSION, FORMAT_VERSION)?;
    }
    transaction.commit().map_err(redb::Error::from)?;
    Ok(())
}

/// The number of transactions that ever wrote something.
pub(super) fn commits(database: &Database) -> Result<u64, redb::Error> {
    let commits = database.begin_read()?.open_table(META)?.get(META_COMMITS)?;
    Ok(commits.map_or(0, |value| value.value()))
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
