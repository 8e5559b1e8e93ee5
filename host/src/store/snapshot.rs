//! A plugin's state as it was committed at one moment.
//!
//! A snapshot pins the pages that it can see: whoever holds one makes the file grow. It lives for one batch of events.

use std::path::Path;
use std::sync::Arc;

use redb::{Database, ReadOnlyTable, ReadableDatabase};
use vespiary_core::event::{DeadLetter, PluginName, Revision, Sequence, SessionId};

use super::error::StoreError;
use super::record::{self, DeadLetterRow, RevisionRow};
use super::tables::{Bytes, DEAD_LETTERS, PLUGIN_REVISIONS, PLUGIN_STATE};

/// A plugin's state as it was committed when the snapshot was taken. Keep it for one batch only.
pub struct StateSnapshot {
    /// The state of all plugins; holds the read transaction.
    table: ReadOnlyTable<(u64, &'static str), Bytes>,
    /// Whose state it is.
    session: u64,
    /// The database file, for errors.
    path: Arc<Path>,
}

impl StateSnapshot {
    pub(super) fn take(database: &Database, path: &Arc<Path>, session: SessionId) -> Result<Self, StoreError> {
        let transaction = database.begin_read().map_err(StoreError::database("read", path))?;
        let table = transaction.open_table(PLUGIN_STATE).map_err(StoreError::database("read", path))?;
        Ok(Self { table, session: session.0, path: path.clone() })
    }

    /// The value of a key, if it has one.
    pub fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let value = self.table.get((self.session, key)).map_err(StoreError::database("read", &self.path))?;
        value.map(|value| self.bytes(value.value())).transpose()
    }

    /// Up to `limit` keys that begin with `prefix`, with their values, in the order of keys; from the first key greater
    /// than `after` if it is given.
    pub fn scan(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let from = after.map_or(prefix, |after| after.max(prefix));
        let range = (self.session, from)..(self.session.saturating_add(1), "");
        let mut found = Vec::new();
        for row in self.table.range(range).map_err(StoreError::database("read", &self.path))? {
            let (key, value) = row.map_err(StoreError::database("read", &self.path))?;
            let key = key.value().1;
            if found.len() == limit || !key.starts_with(prefix) {
                break;
            }
            if after.is_none_or(|after| key > after) {
                found.push((key.to_owned(), self.bytes(value.value())?));
            }
        }
        Ok(found)
    }

    fn bytes(&self, value: &[u8]) -> Result<Vec<u8>, StoreError> {
        Ok(record::unversioned(value).map_err(StoreError::row("plugin_state", &self.path))?.to_vec())
    }
}

impl std::fmt::Debug for StateSnapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StateSnapshot").field("session", &self.session).finish_non_exhaustive()
    }
}

/// Up to `limit` dead letters of a plugin, oldest first.
pub(super) fn dead_letters(
    database: &Database,
    path: &Path,
    session: SessionId,
    limit: usize,
) -> Result<Vec<(Sequence, DeadLetter)>, StoreError> {
    let transaction = database.begin_read().map_err(StoreError::database("read", path))?;
    let table = transaction.open_table(DEAD_LETTERS).map_err(StoreError::database("read", path))?;
    let rows =
        table.range((session.0, 0)..=(session.0, u64::MAX)).map_err(StoreError::database("read", path))?.take(limit);
    let mut letters = Vec::new();
    for row in rows {
        let (key, value) = row.map_err(StoreError::database("read", path))?;
        let letter = record::decode::<DeadLetterRow<'_>>(value.value()).and_then(DeadLetterRow::letter);
        letters.push((Sequence(key.value().1), letter.map_err(StoreError::row("dead_letters", path))?));
    }
    Ok(letters)
}

/// The revisions kept of a plugin, highest number first.
pub(super) fn revisions(database: &Database, path: &Path, plugin: &PluginName) -> Result<Vec<Revision>, StoreError> {
    let transaction = database.begin_read().map_err(StoreError::database("read", path))?;
    let table = transaction.open_table(PLUGIN_REVISIONS).map_err(StoreError::database("read", path))?;
    let range = (&*plugin.0, 0)..=(&*plugin.0, u32::MAX);
    let mut revisions = Vec::new();
    for row in table.range(range).map_err(StoreError::database("read", path))?.rev() {
        let (_, value) = row.map_err(StoreError::database("read", path))?;
        let row: RevisionRow<'_> = record::decode(value.value()).map_err(StoreError::row("plugin_revisions", path))?;
        revisions.push(row.revision());
    }
    Ok(revisions)
}
