//! Writes a [`Batch`] into a redb write transaction: stage by stage, in a stage table by table, rows in the order of keys.
//!
//! In a stage rows of removed sessions go first, by range; then what was written; then what happened to a plugin. Deletes of neighbouring keys are done by one
//! walk over their range, which costs about half of deleting each alone.
//!
//! Who refers to a message is counted by the queue rows that come and go here, whatever made them do so; messages are
//! written last, when that is known.

mod plugins;
mod queues;
mod state;

use std::path::Path;

use redb::{ReadableTable, WriteTransaction};
use vespiary_core::message::Timestamp;

use super::batch::{Batch, SessionBatch, Stage};
use super::error::StoreError;
use super::record::{self, DeadLetterRow, InvalidRow, MessageRow, SessionRow, SubscriptionRow, TimerRow};
use super::tables::{
    DEAD_LETTERS, KEPT, META, META_FRAME, META_IDENTIFIERS_BELOW, QUEUE, RECEIVED, RETAINED, SESSIONS, STATE_EXPIRY,
    SUBSCRIPTIONS, TIMERS,
};
use queues::References;
use state::States;

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

/// Writes the batch, and the number of the last `frame` that it has something of; gives when the first value of state expires that is
/// there afterwards. `scratch` is where values are encoded; kept by the caller for its capacity.
pub(super) fn write(
    transaction: &WriteTransaction,
    batch: &Batch,
    frame: u64,
    scratch: &mut Vec<u8>,
) -> Result<Option<Timestamp>, WriteError> {
    write_meta(transaction, batch, frame)?;
    let mut references = References::default();
    let mut states = States::new(transaction);
    for stage in batch.stages() {
        remove_sessions(transaction, stage, &mut references, &mut states)?;
        write_sessions(transaction, stage, scratch)?;
        write_subscriptions(transaction, stage, scratch)?;
        queues::write(transaction, stage, &mut references, scratch)?;
        write_received(transaction, stage)?;
        write_timers(transaction, stage, scratch)?;
        write_dead_letters(transaction, stage, scratch)?;
        states.write(stage, scratch)?;
        if let Some(change) = &stage.plugin {
            plugins::write(transaction, change, &mut references, &mut states, scratch)?;
        }
    }
    queues::write_messages(transaction, batch, references, scratch)?;
    write_retained(transaction, batch, scratch)?;
    if let Some(purge) = batch.purge {
        states.purge(purge)?;
    }
    states.finish()?;
    let expiry = transaction.open_table(STATE_EXPIRY)?;
    let first = expiry.first()?;
    Ok(first.map(|(key, _)| Timestamp(key.value().0)))
}

fn write_meta(transaction: &WriteTransaction, batch: &Batch, frame: u64) -> Result<(), WriteError> {
    let mut meta = transaction.open_table(META)?;
    meta.insert(META_FRAME, frame)?;
    if let Some(below) = batch.identifiers_below {
        meta.insert(META_IDENTIFIERS_BELOW, below)?;
    }
    Ok(())
}

/// The sessions of which `part` holds something, in order.
fn with<'a, P: 'a>(
    stage: &'a Stage,
    part: impl Fn(&'a SessionBatch) -> &'a P,
    is_empty: impl Fn(&P) -> bool,
) -> impl Iterator<Item = (u64, &'a P)> {
    stage
        .sessions
        .iter()
        .map(move |(&session, changes)| (session, part(changes)))
        .filter(move |(_, part)| !is_empty(part))
}

fn remove_sessions(
    transaction: &WriteTransaction,
    stage: &Stage,
    references: &mut References,
    states: &mut States<'_>,
) -> Result<(), WriteError> {
    let removed: Vec<u64> =
        stage.sessions.iter().filter(|(_, changes)| changes.removed).map(|(&session, _)| session).collect();
    if removed.is_empty() {
        return Ok(());
    }
    let mut sessions = transaction.open_table(SESSIONS)?;
    let mut subscriptions = transaction.open_table(SUBSCRIPTIONS)?;
    let mut queue = transaction.open_table(QUEUE)?;
    let mut kept = transaction.open_table(KEPT)?;
    let mut received = transaction.open_table(RECEIVED)?;
    let mut timers = transaction.open_table(TIMERS)?;
    let mut dead_letters = transaction.open_table(DEAD_LETTERS)?;
    for session in removed {
        // The next session's empty string is the least key after all of this one's.
        let next = session.saturating_add(1);
        sessions.remove(session)?;
        subscriptions.retain_in((session, "")..(next, ""), |_, _| false)?;
        for table in [&mut queue, &mut kept] {
            table.retain_in((session, 0)..=(session, u64::MAX), |_, row| {
                references.went(row);
                false
            })?;
        }
        received.retain_in((session, 0)..=(session, u16::MAX), |_, ()| false)?;
        timers.retain_in((session, "")..(next, ""), |_, _| false)?;
        states.clear(session)?;
        dead_letters.retain_in((session, 0)..=(session, u64::MAX), |_, _| false)?;
    }
    Ok(())
}

fn write_sessions(transaction: &WriteTransaction, stage: &Stage, scratch: &mut Vec<u8>) -> Result<(), WriteError> {
    let mut rows = with(stage, |changes| &changes.record, Option::is_none).peekable();
    if rows.peek().is_none() {
        return Ok(());
    }
    let mut table = transaction.open_table(SESSIONS)?;
    for (session, record) in rows {
        if let Some(record) = record {
            SessionRow::new(record).encode(scratch).map_err(|error| WriteError::Row("sessions", error))?;
            table.insert(session, scratch.as_slice())?;
        }
    }
    Ok(())
}

fn write_subscriptions(transaction: &WriteTransaction, stage: &Stage, scratch: &mut Vec<u8>) -> Result<(), WriteError> {
    let mut rows = with(stage, |changes| &changes.subscriptions, |rows| rows.is_empty()).peekable();
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

fn write_received(transaction: &WriteTransaction, stage: &Stage) -> Result<(), WriteError> {
    let mut rows = with(stage, |changes| &changes.received, |rows| rows.is_empty()).peekable();
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

fn write_timers(transaction: &WriteTransaction, stage: &Stage, scratch: &mut Vec<u8>) -> Result<(), WriteError> {
    let mut rows = with(stage, |changes| &changes.timers, |rows| rows.is_empty()).peekable();
    if rows.peek().is_none() {
        return Ok(());
    }
    let mut table = transaction.open_table(TIMERS)?;
    for (session, timers) in rows {
        for (name, timer) in timers {
            if let Some(timer) = timer {
                record::encode(scratch, &TimerRow::new(timer)).map_err(|error| WriteError::Row("timers", error))?;
                table.insert((session, &**name), scratch.as_slice())?;
            } else {
                table.remove((session, &**name))?;
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
            MessageRow::new(message).encode(scratch).map_err(|error| WriteError::Row("retained", error))?;
            table.insert(topic.as_str(), scratch.as_slice())?;
        } else {
            table.remove(topic.as_str())?;
        }
    }
    Ok(())
}

fn write_dead_letters(transaction: &WriteTransaction, stage: &Stage, scratch: &mut Vec<u8>) -> Result<(), WriteError> {
    let mut rows = with(stage, |changes| &changes.dead_letters, |rows| rows.is_empty()).peekable();
    if rows.peek().is_none() {
        return Ok(());
    }
    let mut table = transaction.open_table(DEAD_LETTERS)?;
    for (session, letters) in rows {
        for (&sequence, letter) in letters {
            if let Some(letter) = letter {
                DeadLetterRow::new(letter).encode(scratch).map_err(|error| WriteError::Row("dead_letters", error))?;
                table.insert((session, sequence), scratch.as_slice())?;
            } else {
                table.remove((session, sequence))?;
            }
        }
    }
    Ok(())
}
