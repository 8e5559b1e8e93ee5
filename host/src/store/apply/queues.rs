//! Queues, the messages in them, and who refers to a message.

use redb::{ReadableTable, ReadableTableMetadata, Table, WriteTransaction};
use vespiary_core::event::PacketId;

use super::super::batch::{Batch, QueueChange, Stage};
use super::super::record::{InvalidRow, MessageRow, QueueRow};
use super::super::tables::{Bytes, KEPT, MESSAGES, QUEUE, REFERENCES};
use super::{WriteError, with};

/// Keys that lie this close together are deleted in one walk. Bounds the rows that a walk visits in vain.
const NEIGHBOUR_GAP: u64 = 16;

/// Fewer neighbours than this are deleted one by one.
const NEIGHBOURS_MIN: usize = 3;

/// Queue rows that came and went, by the message that they refer to.
#[derive(Default)]
pub(super) struct References {
    /// A message, and 1 for each row that came or -1 for each that went; in the order of the rows.
    rows: Vec<(u64, i64)>,
    /// The first row that went and could not be read.
    unreadable: Option<InvalidRow>,
}

impl References {
    fn came(&mut self, message: u64) {
        self.rows.push((message, 1));
    }

    pub(super) fn went(&mut self, row: &[u8]) {
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

/// Writes the new messages that are referred to, and deletes those that are not any more.
pub(super) fn write_messages(
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
                MessageRow::new(content).encode(scratch).map_err(|error| WriteError::Row("messages", error))?;
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

/// Writes what happened to the queues, and to what of them is kept for a probation.
pub(super) fn write(
    transaction: &WriteTransaction,
    stage: &Stage,
    references: &mut References,
    scratch: &mut Vec<u8>,
) -> Result<(), WriteError> {
    let mut rows = with(stage, |changes| &changes.queue, |rows| rows.is_empty()).peekable();
    if rows.peek().is_none() {
        return Ok(());
    }
    let mut table = transaction.open_table(QUEUE)?;
    let mut kept_table = transaction.open_table(KEPT)?;
    let mut dequeued = Vec::new();
    for (session, entries) in rows {
        dequeued.clear();
        for (&sequence, change) in entries {
            let key = (session, sequence);
            match change {
                QueueChange::Put { entry, released, kept } => {
                    QueueRow::new(entry, *released).encode(scratch).map_err(|error| WriteError::Row("queue", error))?;
                    references.came(entry.message.0);
                    let table = if *kept { &mut kept_table } else { &mut table };
                    if let Some(replaced) = table.insert(key, scratch.as_slice())? {
                        references.went(replaced.value());
                    }
                }
                QueueChange::Mark { packet_id, released } => mark(&mut table, key, *packet_id, *released, scratch)?,
                QueueChange::Delete => dequeued.push(sequence),
                QueueChange::Keep => {
                    let Some(row) = table.remove(key)? else { continue };
                    if let Some(replaced) = kept_table.insert(key, row.value())? {
                        references.went(replaced.value());
                    }
                }
                QueueChange::PutBack => {
                    let Some(row) = kept_table.remove(key)? else { continue };
                    replayed(row.value(), scratch).map_err(|error| WriteError::Row("kept", error))?;
                    if let Some(replaced) = table.insert(key, scratch.as_slice())? {
                        references.went(replaced.value());
                    }
                }
            }
        }
        remove_entries(&mut table, session, &dequeued, references)?;
    }
    Ok(())
}

/// Encodes a row again, as one that was handled before.
fn replayed(row: &[u8], scratch: &mut Vec<u8>) -> Result<(), InvalidRow> {
    let mut row = QueueRow::decode(row)?;
    row.replay();
    row.encode(scratch)
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
