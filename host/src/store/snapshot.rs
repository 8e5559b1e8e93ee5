//! A plugin's state as it was at one moment: what the database holds, under what is not in there yet.
//!
//! A snapshot pins the pages that it can see: whoever holds one makes the file grow. It lives for one batch of events.

use std::path::Path;
use std::sync::Arc;

use redb::{Database, ReadOnlyTable, ReadTransaction, ReadableDatabase};
use vespiary_core::event::{DeadLetter, PluginName, Revision, Sequence, SessionId};
use vespiary_core::message::Timestamp;

use super::error::StoreError;
use super::overlay::{Overlay, Row, Unwritten};
use super::record::{self, DeadLetterRow, RevisionRow, StateRow};
use super::tables::{Bytes, DEAD_LETTERS, PLUGIN_REVISIONS, PLUGIN_STATE, STATE_BYTES};

/// A key of a plugin's state, its value, and when that expires; `None` for never.
pub type StateEntry = (String, Vec<u8>, Option<Timestamp>);

/// A value of a plugin's state, and when it expires; `None` for never.
pub type StateValue = (Vec<u8>, Option<Timestamp>);

/// A generation of a plugin's state as all changes left it that were handed over when the snapshot was taken, without what
/// had expired. Keep it for one batch only.
pub struct StateSnapshot {
    /// What is read in.
    transaction: ReadTransaction,
    /// The state of all plugins.
    table: ReadOnlyTable<(u64, &'static str), Bytes>,
    /// What is not in there yet.
    unwritten: Unwritten,
    /// Which generation it is.
    state: u64,
    /// What expires by then is not there.
    now: Timestamp,
    /// The database file, for errors.
    path: Arc<Path>,
}

impl StateSnapshot {
    pub(super) fn take(
        database: &Database,
        overlay: &Overlay,
        path: &Arc<Path>,
        state: SessionId,
        now: Timestamp,
    ) -> Result<Self, StoreError> {
        let (unwritten, transaction) = overlay.with(state.0, || database.begin_read());
        let transaction = transaction.map_err(StoreError::database("read", path))?;
        let table = transaction.open_table(PLUGIN_STATE).map_err(StoreError::database("read", path))?;
        Ok(Self { transaction, table, unwritten, state: state.0, now, path: path.clone() })
    }

    /// The value of a key, if it has one.
    pub fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.look_up(key, |row| row.bytes.to_vec())
    }

    /// The value of a key, if it has one, and when it expires.
    pub fn entry(&self, key: &str) -> Result<Option<StateValue>, StoreError> {
        self.look_up(key, |row| (row.bytes.to_vec(), row.expires_at))
    }

    /// Up to `limit` keys that begin with `prefix`, with their values, in the order of keys; from the first key greater
    /// than `after` if it is given.
    pub fn scan(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        self.read(prefix, after, limit, |key, row| (key.to_owned(), row.bytes.to_vec()))
    }

    /// Up to `limit` keys, with their values and when these expire, in the order of keys; from the first key greater than
    /// `after` if it is given.
    pub fn entries(&self, after: Option<&str>, limit: usize) -> Result<Vec<StateEntry>, StoreError> {
        self.read("", after, limit, |key, row| (key.to_owned(), row.bytes.to_vec(), row.expires_at))
    }

    /// Bytes of all keys and values; what has expired and is not purged yet is counted. Looks up what was there before
    /// each write that is not in the database yet.
    pub fn usage(&self) -> Result<u64, StoreError> {
        let mut usage = bytes_of(&self.transaction, &self.path, self.state)?;
        for (key, row) in self.unwritten.from("") {
            let before = self.stored(key, |row| row.size(key))?.unwrap_or(0);
            usage = (usage + row.size(key)).saturating_sub(before);
        }
        Ok(usage)
    }

    /// The same or more, at once.
    pub fn usage_at_most(&self) -> Result<u64, StoreError> {
        Ok(bytes_of(&self.transaction, &self.path, self.state)? + self.unwritten.bytes_at_most())
    }

    /// What a key holds, unless that has expired.
    fn look_up<T>(&self, key: &str, value: impl Fn(StateRow<'_>) -> T) -> Result<Option<T>, StoreError> {
        match self.unwritten.get(key) {
            Some(row) => Ok(self.living(stored_as(row)).map(value)),
            None => Ok(self.stored(key, |row| self.living(Some(row)).map(value))?.flatten()),
        }
    }

    /// What the database holds of a key.
    fn stored<T>(&self, key: &str, value: impl FnOnce(StateRow<'_>) -> T) -> Result<Option<T>, StoreError> {
        let row = self.table.get((self.state, key)).map_err(StoreError::database("read", &self.path))?;
        row.map(|row| self.decode(row.value()).map(value)).transpose()
    }

    fn read<T>(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        entry: impl Fn(&str, StateRow<'_>) -> T,
    ) -> Result<Vec<T>, StoreError> {
        let from = after.map_or(prefix, |after| after.max(prefix));
        let range = (self.state, from)..(self.state.saturating_add(1), "");
        let mut stored = self.table.range(range).map_err(StoreError::database("read", &self.path))?;
        let mut unwritten = self.unwritten.from(from).peekable();
        let mut found = Vec::new();
        let mut add = |key: &str, row: Option<StateRow<'_>>| {
            let wanted = found.len() < limit && key.starts_with(prefix);
            if wanted && after.is_none_or(|after| key > after) {
                found.extend(self.living(row).map(|row| entry(key, row)));
            }
            wanted
        };
        loop {
            let next = stored.next().transpose().map_err(StoreError::database("read", &self.path))?;
            let key = next.as_ref().map(|(key, _)| key.value().1);
            // What is not in the database yet comes in between, or in the place of what is.
            let mut hidden = false;
            while let Some((newer, row)) = unwritten.next_if(|(newer, _)| key.is_none_or(|key| *newer <= key)) {
                hidden = key == Some(newer);
                if !add(newer, stored_as(row)) {
                    return Ok(found);
                }
            }
            let (Some(key), Some((_, value))) = (key, &next) else { return Ok(found) };
            if !hidden && !add(key, Some(self.decode(value.value())?)) {
                return Ok(found);
            }
        }
    }

    fn decode<'v>(&self, value: &'v [u8]) -> Result<StateRow<'v>, StoreError> {
        StateRow::decode(value).map_err(StoreError::row("plugin_state", &self.path))
    }

    /// A value, unless it has expired.
    fn living<'v>(&self, row: Option<StateRow<'v>>) -> Option<StateRow<'v>> {
        row.filter(|row| !row.is_expired(self.now))
    }
}

/// A write as the database will hold it.
fn stored_as(row: &Row) -> Option<StateRow<'_>> {
    row.value.as_ref().map(|bytes| StateRow { bytes, expires_at: row.expires_at })
}

impl std::fmt::Debug for StateSnapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StateSnapshot").field("state", &self.state).finish_non_exhaustive()
    }
}

/// Bytes of the keys and values of a generation.
pub(super) fn state_bytes(database: &Database, path: &Path, state: SessionId) -> Result<u64, StoreError> {
    let transaction = database.begin_read().map_err(StoreError::database("read", path))?;
    bytes_of(&transaction, path, state.0)
}

fn bytes_of(transaction: &ReadTransaction, path: &Path, state: u64) -> Result<u64, StoreError> {
    let table = transaction.open_table(STATE_BYTES).map_err(StoreError::database("read", path))?;
    let bytes = table.get(state).map_err(StoreError::database("read", path))?;
    Ok(bytes.map_or(0, |bytes| bytes.value()))
}

/// Up to `limit` dead letters of a plugin, oldest first, from the first behind `after`.
pub(super) fn dead_letters(
    database: &Database,
    path: &Path,
    session: SessionId,
    after: Option<Sequence>,
    limit: usize,
) -> Result<Vec<(Sequence, DeadLetter)>, StoreError> {
    let transaction = database.begin_read().map_err(StoreError::database("read", path))?;
    let table = transaction.open_table(DEAD_LETTERS).map_err(StoreError::database("read", path))?;
    let mut letters = Vec::new();
    let Some(first) = after.map_or(Some(0), |after| after.0.checked_add(1)) else { return Ok(letters) };
    let range = (session.0, first)..=(session.0, u64::MAX);
    for row in table.range(range).map_err(StoreError::database("read", path))?.take(limit) {
        let (key, value) = row.map_err(StoreError::database("read", path))?;
        letters.push((Sequence(key.value().1), letter(value.value(), path)?));
    }
    Ok(letters)
}

/// A dead letter of a plugin.
pub(super) fn dead_letter(
    database: &Database,
    path: &Path,
    session: SessionId,
    sequence: Sequence,
) -> Result<Option<DeadLetter>, StoreError> {
    let transaction = database.begin_read().map_err(StoreError::database("read", path))?;
    let table = transaction.open_table(DEAD_LETTERS).map_err(StoreError::database("read", path))?;
    let row = table.get((session.0, sequence.0)).map_err(StoreError::database("read", path))?;
    row.map(|row| letter(row.value(), path)).transpose()
}

fn letter(value: &[u8], path: &Path) -> Result<DeadLetter, StoreError> {
    DeadLetterRow::decode(value).and_then(DeadLetterRow::letter).map_err(StoreError::row("dead_letters", path))
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
