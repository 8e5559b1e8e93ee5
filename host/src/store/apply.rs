//! Writes a [`Batch`] into a redb write transaction, table by table, rows in the order of keys.
//!
//! Rows of removed sessions go first, by range; then what was written. Deletes of neighbouring keys are done by one
//! walk over their range, which costs about half of deleting each alone.
//!
//! Who refers to a message is counted by the queue rows that come and go here, whatever made them do so; messages are
//! written last, when that is known.

use std::path::Path;

use redb::{ReadableTable, ReadableTableMetadata, Table, WriteTransaction};
use vespiary_core::event::{PacketId, PluginName};

use super::batch::{Batch, PluginChange, QueueChange, SessionBatch};
use super::error::StoreError;
use super::record::{
    self, DeadLetterRow, InvalidRow, MessageRow, PluginRow, QueueRow, RECORD_VERSION, RevisionRow, SessionRow,
    SubscriptionRow,
};
use super::tables::{
    Bytes, DEAD_LETTERS, MESSAGES, META, META_COMMITS, META_IDENTIFIERS_BELOW, PLUGIN_REVISIONS, PLUGIN_STATE, PLUGINS,
    QUEUE, RECEIVED, REFERENCES, RETAINED, REVISIONS_KEPT, SESSIONS, SUBSCRIPTIONS,
};

/// Keys that lie this close together are deleted in one walk. Bounds the rows that a walk visits in vain.
const NEIGHBOUR_GAP: u64 = 16;

/// Fewer neighbours than this are deleted one by one.
const NEIGHBOURS_MIN: usize = 3;

/// Why a batch could not be written.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    /// The database refused.
    #[error("{0}")]
    Database(#[from] redb::Error),
    /// A row that had to be changed cannot be read, or a record cannot be encoded.
    #[error("a row of table {0}: {1}")]
    Row(&'static str, InvalidRow),
}

impl WriteError {
    /// The same for whoever opens the database at `path`.
    pub(super) fn of_store(self, action: &'static str, path: &Path) -> StoreError {
        match self {
            Self::Database(error) => StoreError::database(action, path)(error),
            Self::Row(table, reason) => StoreError::row(table, path)(reason),
        }
    }
}

impl From<redb::StorageError> for WriteError {
    fn from(error: redb::StorageError) -> Self {
        Self::Database(error.into())
    }
}

impl From<redb::TableError> for WriteError {
    fn from(error: redb::TableError) -> Self {
        Self::Database(error.into())
    }
}

/// Writes the batch, in the transaction with the number `commit`. `scratch` is where values are encoded; kept by the
/// caller for its capacity.
pub(super) fn write(
    transaction: &WriteTransaction,
    batch: &Batch,
    commit: u64,
    scratch: &mut Vec<u8>,
) -> Result<(), WriteError> {
    write_meta(transaction, batch, commit)?;
    let mut references = References::default();
    remove_sessions(transaction, batch, &mut references)?;
    write_sessions(transaction, batch, scratch)?;
    write_subscriptions(transaction, batch, scratch)?;
    write_queues(transaction, batch, &mut references, scratch)?;
    write_messages(transaction, batch, references, scratch)?;
    write_received(transaction, batch)?;
    write_retained(transaction, batch, scratch)?;
    write_plugins(transaction, batch, scratch)?;
    write_state(transaction, batch)?;
    write_dead_letters(transaction, batch, scratch)
}

/// Queue rows that came and went, by the message that they refer to.
#[derive(Default)]
struct References {
    /// A message, and 1 for each row that came or -1 for each that went; in the order of the rows.
    rows: Vec<(u64, i64)>,
    /// The first row that went and could not be read.
    unreadable: Option<InvalidRow>,
}

impl References {
    fn came(&mut self, message: u64) {
        self.rows.push((message, 1));
    }

    fn went(&mut self, row: &[u8]) {
        match QueueRow::message(row) {
            Ok(message) => self.rows.push((message, -1)),
            Err(error) => self.unreadable = self.unreadable.take().or(Some(error)),
        }
    }

    /// What it comes to for each message, in the order of messages.
    fn sums(mut self) -> Result<impl Iterator<Item = (u64, i64)>, WriteError> {
        if let Some(error) = self.unreadable {
            return Err(WriteError::Row("queue", error));
        }
        self.rows.sort_unstable();
        self.rows.dedup_by(|(next, more), (message, sum)| {
            let same = next == message;
            *sum += if same { *more } else { 0 };
            same
        });
        Ok(self.rows.into_iter())
    }
}

fn write_meta(transaction: &WriteTransaction, batch: &Batch, commit: u64) -> Result<(), WriteError> {
    let mut meta = transaction.open_table(META)?;
    meta.insert(META_COMMITS, commit)?;
    if let Some(below) = batch.identifiers_below {
        meta.insert(META_IDENTIFIERS_BELOW, below)?;
    }
    Ok(())
}

/// The sessions of which `part` holds something, in order.
fn with<'a, P: 'a>(
    batch: &'a Batch,
    part: impl Fn(&'a SessionBatch) -> &'a P,
    is_empty: impl Fn(&P) -> bool,
) -> impl Iterator<Item = (u64, &'a P)> {
    batch
        .sessions
        .iter()
        .map(move |(&session, changes)| (session, part(changes)))
        .filter(move |(_, part)| !is_empty(part))
}

fn remove_sessions(
    transaction: &WriteTransaction,
    batch: &Batch,
    references: &mut References,
) -> Result<(), WriteError> {
    let removed: Vec<u64> =
        batch.sessions.iter().filter(|(_, changes)| changes.removed).map(|(&session, _)| session).collect();
    if removed.is_empty() {
        return Ok(());
    }
    let mut sessions = transaction.open_table(SESSIONS)?;
    let mut subscriptions = transaction.open_table(SUBSCRIPTIONS)?;
    let mut queue = transaction.open_table(QUEUE)?;
    let mut received = transaction.open_table(RECEIVED)?;
    let mut state = transaction.open_table(PLUGIN_STATE)?;
    let mut dead_letters = transaction.open_table(DEAD_LETTERS)?;
    for session in removed {
        // The next session's empty string is the least key after all of this one's.
        let next = session.saturating_add(1);
        sessions.remove(session)?;
        subscriptions.retain_in((session, "")..(next, ""), |_, _| false)?;
        queue.retain_in((session, 0)..=(session, u64::MAX), |_, row| {
            references.went(row);
            false
        })?;
        received.retain_in((session, 0)..=(session, u16::MAX), |_, ()| false)?;
        state.retain_in((session, "")..(next, ""), |_, _| false)?;
        dead_letters.retain_in((session, 0)..=(session, u64::MAX), |_, _| false)?;
    }
    Ok(())
}

fn write_sessions(transaction: &WriteTransaction, batch: &Batch, scratch: &mut Vec<u8>) -> Result<(), WriteError> {
    let mut rows = with(batch, |changes| &changes.record, Option::is_none).peekable();
    if rows.peek().is_none() {
        return Ok(());
    }
    let mut table = transaction.open_table(SESSIONS)?;
    for (session, record) in rows {
        if let Some(record) = record {
            record::encode(scratch, &SessionRow::new(record)).map_err(|error| WriteError::Row("sessions", error))?;
            table.insert(session, scratch.as_slice())?;
        }
    }
    Ok(())
}

fn write_subscriptions(transaction: &WriteTransaction, batch: &Batch, scratch: &mut Vec<u8>) -> Result<(), WriteError> {
    let mut rows = with(batch, |changes| &changes.subscriptions, |rows| rows.is_empty()).peekable();
    if rows.peek().is_none() {
        return Ok(());
    }
    let mut table = transaction.open_table(SUBSCRIPTIONS)?;
    for (session, subscriptions) in rows {
        for (filter, subscription) in subscriptions {
            let key = (session, filter.as_str());
            if let &Some(subscription) = subscription {
                SubscriptionRow::new(subscription)
                    .encode(scratch)
                    .map_err(|error| WriteError::Row("subscriptions", error))?;
                table.insert(key, scratch.as_slice())?;
            } else {
                table.remove(key)?;
            }
        }
    }
    Ok(())
}

/// Writes the new messages that are referred to, and deletes those that are not any more.
fn write_messages(
    transaction: &WriteTransaction,
    batch: &Batch,
    references: References,
    scratch: &mut Vec<u8>,
) -> Result<(), WriteError> {
    let mut sums = references.sums()?.filter(|&(_, sum)| sum != 0).peekable();
    if sums.peek().is_none() {
        return Ok(());
    }
    let mut table = transaction.open_table(MESSAGES)?;
    let mut counts = transaction.open_table(REFERENCES)?;
    let counts_none = counts.is_empty()?;
    let mut released = Vec::new();
    for (message, sum) in sums {
        let (counted, before) = match batch.messages.get(&message) {
            Some(content) => {
                record::encode(scratch, &MessageRow::new(content))
                    .map_err(|error| WriteError::Row("messages", error))?;
                table.insert(message, scratch.as_slice())?;
                (false, 0)
            }
            None if counts_none => (false, 1),
            None => counts.get(message)?.map_or((false, 1), |count| (true, i64::from(count.value()))),
        };
        let count = before + sum;
        if count > 1 {
            counts.insert(message, u32::try_from(count).unwrap_or(u32::MAX))?;
        } else if counted {
            counts.remove(message)?;
        }
        if count <= 0 {
            released.push(message);
        }
    }
    for run in neighbours(&released) {
        if run.len() < NEIGHBOURS_MIN {
            for &message in run {
                table.remove(message)?;
            }
        } else {
            let mut listed = Listed(run);
            table.retain_in(run[0]..=run[run.len() - 1], |message, _| !listed.contains(message))?;
        }
    }
    Ok(())
}

fn write_queues(
    transaction: &WriteTransaction,
    batch: &Batch,
    references: &mut References,
    scratch: &mut Vec<u8>,
) -> Result<(), WriteError> {
    let mut rows = with(batch, |changes| &changes.queue, |rows| rows.is_empty()).peekable();
    if rows.peek().is_none() {
        return Ok(());
    }
    let mut table = transaction.open_table(QUEUE)?;
    let mut dequeued = Vec::new();
    for (session, entries) in rows {
        dequeued.clear();
        for (&sequence, change) in entries {
            match change {
                QueueChange::Put { entry, released } => {
                    QueueRow::new(entry, *released).encode(scratch).map_err(|error| WriteError::Row("queue", error))?;
                    references.came(entry.message.0);
                    if let Some(replaced) = table.insert((session, sequence), scratch.as_slice())? {
                        references.went(replaced.value());
                    }
                }
                QueueChange::Mark { packet_id, released } => {
                    mark(&mut table, (session, sequence), *packet_id, *released, scratch)?;
                }
                QueueChange::Delete => dequeued.push(sequence),
            }
        }
        remove_entries(&mut table, session, &dequeued, references)?;
    }
    Ok(())
}

fn mark(
    table: &mut Table<'_, (u64, u64), Bytes>,
    key: (u64, u64),
    packet_id: Option<PacketId>,
    released: bool,
    scratch: &mut Vec<u8>,
) -> Result<(), WriteError> {
    {
        let Some(value) = table.get(key)? else { return Ok(()) };
        let unreadable = |error| WriteError::Row("queue", error);
        let mut row = QueueRow::decode(value.value()).map_err(unreadable)?;
        row.mark(packet_id, released);
        row.encode(scratch).map_err(unreadable)?;
    }
    table.insert(key, scratch.as_slice())?;
    Ok(())
}

fn remove_entries(
    table: &mut Table<'_, (u64, u64), Bytes>,
    session: u64,
    sequences: &[u64],
    references: &mut References,
) -> Result<(), WriteError> {
    for run in neighbours(sequences) {
        if run.len() < NEIGHBOURS_MIN {
            for &sequence in run {
                if let Some(row) = table.remove((session, sequence))? {
                    references.went(row.value());
                }
            }
        } else {
            let mut listed = Listed(run);
            let range = (session, run[0])..=(session, run[run.len() - 1]);
            table.retain_in(range, |(_, sequence), row| {
                let goes = listed.contains(sequence);
                if goes {
                    references.went(row);
                }
                !goes
            })?;
        }
    }
    Ok(())
}

fn write_received(transaction: &WriteTransaction, batch: &Batch) -> Result<(), WriteError> {
    let mut rows = with(batch, |changes| &changes.received, |rows| rows.is_empty()).peekable();
    if rows.peek().is_none() {
        return Ok(());
    }
    let mut table = transaction.open_table(RECEIVED)?;
    for (session, packet_ids) in rows {
        for (&packet_id, &begun) in packet_ids {
            if begun {
                table.insert((session, packet_id), ())?;
            } else {
                table.remove((session, packet_id))?;
            }
        }
    }
    Ok(())
}

fn write_retained(transaction: &WriteTransaction, batch: &Batch, scratch: &mut Vec<u8>) -> Result<(), WriteError> {
    if batch.retained.is_empty() {
        return Ok(());
    }
    let mut table = transaction.open_table(RETAINED)?;
    for (topic, message) in &batch.retained {
        if let Some(message) = message {
            record::encode(scratch, &MessageRow::new(message)).map_err(|error| WriteError::Row("retained", error))?;
            table.insert(topic.as_str(), scratch.as_slice())?;
        } else {
            table.remove(topic.as_str())?;
        }
    }
    Ok(())
}

fn write_plugins(transaction: &WriteTransaction, batch: &Batch, scratch: &mut Vec<u8>) -> Result<(), WriteError> {
    if batch.plugins.is_empty() {
        return Ok(());
    }
    let mut plugins = transaction.open_table(PLUGINS)?;
    let mut revisions = transaction.open_table(PLUGIN_REVISIONS)?;
    for change in &batch.plugins {
        match change {
            PluginChange::Activated { plugin: PluginName(plugin), session, revision } => {
                record::encode(scratch, &PluginRow::new(*session, revision))
                    .map_err(|error| WriteError::Row("plugins", error))?;
                plugins.insert(&**plugin, scratch.as_slice())?;
                record::encode(scratch, &RevisionRow::new(revision))
                    .map_err(|error| WriteError::Row("plugin_revisions", error))?;
                revisions.insert((&**plugin, revision.number), scratch.as_slice())?;
                forget_old_revisions(&mut revisions, plugin, revision.number)?;
            }
            PluginChange::Removed { plugin: PluginName(plugin) } => {
                plugins.remove(&**plugin)?;
                revisions.retain_in((&**plugin, 0)..=(&**plugin, u32::MAX), |_, _| false)?;
            }
        }
    }
    Ok(())
}

/// Forgets the lowest numbers until [`REVISIONS_KEPT`] are left; never the active one.
fn forget_old_revisions(
    revisions: &mut Table<'_, (&str, u32), Bytes>,
    plugin: &str,
    active: u32,
) -> Result<(), WriteError> {
    let mut numbers = Vec::with_capacity(REVISIONS_KEPT + 1);
    for row in revisions.range((plugin, 0)..=(plugin, u32::MAX))? {
        numbers.push(row?.0.value().1);
    }
    let excess = numbers.len().saturating_sub(REVISIONS_KEPT);
    for &number in numbers.iter().filter(|&&number| number != active).take(excess) {
        revisions.remove((plugin, number))?;
    }
    Ok(())
}

fn write_state(transaction: &WriteTransaction, batch: &Batch) -> Result<(), WriteError> {
    let mut rows = with(batch, |changes| &changes.state, |rows| rows.is_empty()).peekable();
    if rows.peek().is_none() {
        return Ok(());
    }
    let mut table = transaction.open_table(PLUGIN_STATE)?;
    for (session, writes) in rows {
        for (key, value) in writes {
            let Some(value) = value else {
                table.remove((session, &**key))?;
                continue;
            };
            // Straight into the page: a plugin's value may be large.
            let mut place = table.insert_reserve((session, &**key), 1 + value.len())?;
            let place = place.as_mut();
            place[0] = RECORD_VERSION;
            place[1..].copy_from_slice(value);
        }
    }
    Ok(())
}

fn write_dead_letters(transaction: &WriteTransaction, batch: &Batch, scratch: &mut Vec<u8>) -> Result<(), WriteError> {
    let mut rows = with(batch, |changes| &changes.dead_letters, |rows| rows.is_empty()).peekable();
    if rows.peek().is_none() {
        return Ok(());
    }
    let mut table = transaction.open_table(DEAD_LETTERS)?;
    for (session, letters) in rows {
        for (&sequence, letter) in letters {
            if let Some(letter) = letter {
                record::encode(scratch, &DeadLetterRow::new(letter))
                    .map_err(|error| WriteError::Row("dead_letters", error))?;
                table.insert((session, sequence), scratch.as_slice())?;
            } else {
                table.remove((session, sequence))?;
            }
        }
    }
    Ok(())
}

/// Splits growing keys into runs whose members lie close together.
fn neighbours(keys: &[u64]) -> impl Iterator<Item = &[u64]> {
    keys.chunk_by(|a, b| b - a <= NEIGHBOUR_GAP)
}

/// Growing keys, asked for in growing order.
struct Listed<'a>(&'a [u64]);

impl Listed<'_> {
    /// Whether `key` is listed. Keys below are forgotten.
    fn contains(&mut self, key: u64) -> bool {
        while let Some((&first, rest)) = self.0.split_first() {
            if first > key {
                return false;
            }
            self.0 = rest;
            if first == key {
                return true;
            }
        }
        false
    }
}
