//! The tables of the database: their names, keys and values. `docs/storage.md` describes each.
//!
//! Keys are tuples that begin with the session where there is one, so that all of a session is one range. Values are
//! a version byte and a record (see `record.rs`); only `meta` holds bare numbers, because every version of the
//! program has to be able to read it, and `received` holds nothing, because its key says all.

use redb::{Database, ReadableDatabase, TableDefinition, TableError, WriteTransaction};

/// Version of the whole layout: which tables there are and how their keys look. A database with a higher one is
/// refused.
pub(super) const FORMAT_VERSION: u64 = 1;

/// Key in [`META`] of the layout's version.
pub(super) const META_FORMAT_VERSION: &str = "format_version";
/// Key in [`META`] of the number below which identifiers are used up.
pub(super) const META_IDENTIFIERS_BELOW: &str = "identifiers_below";

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
    transaction.open_table(QUEUE)?;
    transaction.open_table(RECEIVED)?;
    transaction.open_table(RETAINED)?;
    transaction.open_table(PLUGINS)?;
    transaction.open_table(PLUGIN_REVISIONS)?;
    transaction.open_table(PLUGIN_STATE)?;
    transaction.open_table(DEAD_LETTERS)?;
    Ok(())
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
