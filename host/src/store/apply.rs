//! Writes a [`Batch`] into a redb write transaction, table by table, rows in the order of keys.
//!
//! Rows of removed sessions go first, by range; then what was written. Deletes of neighbouring keys are done by one
//! walk over their range, which costs about half of deleting each alone.

use redb::{ReadableTable, Table, WriteTransaction};
use vespiary_core::event::{PacketId, PluginName};

use super::batch::{Batch, PluginChange, QueueChange, SessionBatch};
use super::record::{
    self, DeadLetterRow, InvalidRow, MessageRow, PluginRow, QueueRow, RECORD_VERSION, RevisionRow, SessionRow,
    SubscriptionRow,
};
use super::tables::{
    Bytes, DEAD_LETTERS, MESSAGES, META, META_IDENTIFIERS_BELOW, PLUGIN_REVISIONS, PLUGIN_STATE, PLUGINS, QUEUE,
    RECEIVED, RETAINED, REVISIONS_KEPT, SESSIONS, SUBSCRIPTIONS,
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

/// Writes the batch. `scratch` is where values are encoded; kept by the caller for its capacity.
pub(super) fn write(transaction: &WriteTransaction, batch: &Batch, scratch: &mut Vec<u8>) -> Result<(), WriteError> {
    if let Some(below) = batch.identifiers_below {
        transaction.open_table(META)?.insert(META_IDENTIFIERS_BELOW, below)?;
    }
    remove_sessions(transaction, batch)?;
    write_sessions(transaction, batch, scratch)?;
    write_subscriptions(transaction, batch, scratch)?;
    write_messages(transaction, batch, scratch)?;
    write_queues(transaction, batch, scratch)?;
    write_received(transaction, batch)?;
    write_retained(transaction, batch, scratch)?;
    write_plugins(transaction, batch, scratch)?;
    write_state(transaction, batch)?;
    write_dead_letters(transaction, batch, scratch)
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

fn remove_sessions(transaction: &WriteTransaction, batch: &Batch) -> Result<(), WriteError> {
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
        queue.retain_in((session, 0)..=(session, u64::MAX), |_, _| false)?;
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
            if let &Some((options, identifier)) = subscription {
                record::encode(scratch, &SubscriptionRow::new(options, identifier))
                    .map_err(|error| WriteError::Row("subscriptions", error))?;
                table.insert(key, scratch.as_slice())?;
            } else {
                table.remove(key)?;
            }
        }
    }
    Ok(())
}

fn write_messages(transaction: &WriteTransaction, batch: &Batch, scratch: &mut Vec<u8>) -> Result<(), WriteError> {
    if batch.messages.is_empty() {
        return Ok(());
    }
    let mut table = transaction.open_table(MESSAGES)?;
    let mut released = Vec::new();
    for (&message, content) in &batch.messages {
        let Some(content) = content else {
            released.push(message);
            continue;
        };
        record::encode(scratch, &MessageRow::new(content)).map_err(|error| WriteError::Row("messages", error))?;
        table.insert(message, scratch.as_slice())?;
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

fn write_queues(transaction: &WriteTransaction, batch: &Batch, scratch: &mut Vec<u8>) -> Result<(), WriteError> {
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
                    record::encode(scratch, &QueueRow::new(entry, *released))
                        .map_err(|error| WriteError::Row("queue", error))?;
                    table.insert((session, sequence), scratch.as_slice())?;
                }
                QueueChange::Mark { packet_id, released } => {
                    mark(&mut table, (session, sequence), *packet_id, *released, scratch)?;
                }
                QueueChange::Delete => dequeued.push(sequence),
            }
        }
        remove_entries(&mut table, session, &dequeued)?;
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
        let mut row: QueueRow<'_> = record::decode(value.value()).map_err(|error| WriteError::Row("queue", error))?;
        row.packet_id = packet_id.map(PacketId::get).or(row.packet_id);
        row.released |= released;
        record::encode(scratch, &row).map_err(|error| WriteError::Row("queue", error))?;
    }
    table.insert(key, scratch.as_slice())?;
    Ok(())
}

fn remove_entries(table: &mut Table<'_, (u64, u64), Bytes>, session: u64, sequences: &[u64]) -> Result<(), WriteError> {
    for run in neighbours(sequences) {
        if run.len() < NEIGHBOURS_MIN {
            for &sequence in run {
                table.remove((session, sequence))?;
            }
        } else {
            let mut listed = Listed(run);
            let range = (session, run[0])..=(session, run[run.len() - 1]);
            table.retain_in(range, |(_, sequence), _| !listed.contains(sequence))?;
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
