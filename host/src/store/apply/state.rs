//! The state of plugins: values, what they were before a probation, when they expire, and how much they are.

use std::collections::BTreeMap;

use redb::{AccessGuard, ReadableTable, ReadableTableMetadata, Table, WriteTransaction};
use vespiary_core::message::Timestamp;

use super::super::batch::{Purge, Stage, StateChange};
use super::super::record::{InvalidRow, StateRow};
use super::super::tables::{Bytes, PLUGIN_STATE, PLUGIN_UNDO, STATE_BYTES, STATE_EXPIRY};
use super::{WriteError, with};

/// The tables of state, opened when the first of them is needed.
pub(super) struct States<'t> {
    transaction: &'t WriteTransaction,
    open: Option<Open<'t>>,
}

/// The tables of state.
struct Open<'t> {
    /// Values.
    values: Values<'t>,
    /// What values were before a probation.
    undo: Table<'t, (u64, &'static str), Bytes>,
}

/// Values of state, and what follows from them.
struct Values<'t> {
    /// The values.
    rows: Table<'t, (u64, &'static str), Bytes>,
    /// Those that expire, by when they do.
    expiry: Table<'t, (u64, u64, &'static str), ()>,
    /// Bytes by which each generation grew in this transaction, or shrank.
    grown: BTreeMap<u64, i64>,
    /// Bytes of each generation, without that.
    bytes: Table<'t, u64, u64>,
}

impl<'t> States<'t> {
    pub(super) fn new(transaction: &'t WriteTransaction) -> Self {
        Self { transaction, open: None }
    }

    /// Writes what plugins wrote.
    pub(super) fn write(&mut self, stage: &Stage, scratch: &mut Vec<u8>) -> Result<(), WriteError> {
        let mut rows = with(stage, |changes| &changes.state, |rows| rows.is_empty()).peekable();
        if rows.peek().is_none() {
            return Ok(());
        }
        let open = self.open()?;
        for (state, writes) in rows {
            for (key, change) in writes {
                open.write(state, key, change, scratch)?;
            }
        }
        Ok(())
    }

    /// Everything of a generation goes.
    pub(super) fn clear(&mut self, state: u64) -> Result<(), WriteError> {
        let open = self.open()?;
        open.undo.retain_in(all_of(state), |_, _| false)?;
        open.values.clear(state)
    }

    /// What values were before a probation is forgotten.
    pub(super) fn forget_undo(&mut self, state: u64) -> Result<(), WriteError> {
        self.open()?.undo.retain_in(all_of(state), |_, _| false)?;
        Ok(())
    }

    /// Values are again what they were before a probation.
    pub(super) fn undo(&mut self, state: u64) -> Result<(), WriteError> {
        let Open { values, undo } = self.open()?;
        for row in undo.range(all_of(state))? {
            let (key, before) = row?;
            let before = Some(before.value()).filter(|before| !before.is_empty());
            values.replace(state, key.value().1, before)?;
        }
        Ok(())
    }

    /// Some of the values that have expired go.
    pub(super) fn purge(&mut self, purge: Purge) -> Result<(), WriteError> {
        let values = &mut self.open()?.values;
        let mut due = Vec::new();
        for row in values.expiry.range(..(purge.now.0.saturating_add(1), 0, ""))?.take(purge.rows) {
            let row = row?;
            let (at, state, key) = row.0.value();
            due.push((at, state, key.to_owned()));
        }
        for (at, state, key) in due {
            if values.expires_at(state, &key)? == Some(Timestamp(at)) {
                values.replace(state, &key, None)?;
            } else {
                values.expiry.remove((at, state, key.as_str()))?;
            }
        }
        Ok(())
    }

    /// Writes what can be known only in the end: how much state there is.
    pub(super) fn finish(self) -> Result<(), WriteError> {
        self.open.map_or(Ok(()), |open| open.values.finish())
    }

    fn open(&mut self) -> Result<&mut Open<'t>, WriteError> {
        let open = match self.open.take() {
            Some(open) => open,
            None => {
                let values = Values {
                    rows: self.transaction.open_table(PLUGIN_STATE)?,
                    expiry: self.transaction.open_table(STATE_EXPIRY)?,
                    grown: BTreeMap::new(),
                    bytes: self.transaction.open_table(STATE_BYTES)?,
                };
                Open { values, undo: self.transaction.open_table(PLUGIN_UNDO)? }
            }
        };
        Ok(self.open.insert(open))
    }
}

impl Open<'_> {
    fn write(&mut self, state: u64, key: &str, change: &StateChange, scratch: &mut Vec<u8>) -> Result<(), WriteError> {
        let value = change.value.as_ref().map(|value| {
            StateRow { bytes: value, expires_at: change.expires_at }.encode(scratch);
            scratch.as_slice()
        });
        let before = self.values.replace(state, key, value)?;
        if change.undo && self.undo.get((state, key))?.is_none() {
            self.undo.insert((state, key), before.as_ref().map_or(&[][..], |before| before.value()))?;
        }
        Ok(())
    }
}

impl<'t> Values<'t> {
    /// Writes a value, or deletes it, with what follows from that; gives the value before.
    fn replace(
        &mut self,
        state: u64,
        key: &str,
        value: Option<&[u8]>,
    ) -> Result<Option<AccessGuard<'_, Bytes>>, WriteError> {
        let before = match value {
            Some(value) => self.rows.insert((state, key), value)?,
            None => self.rows.remove((state, key))?,
        };
        let unreadable = |error: InvalidRow| WriteError::Row("plugin_state", error);
        let went = before.as_ref().map(|row| StateRow::decode(row.value())).transpose().map_err(unreadable)?;
        let came = value.map(StateRow::decode).transpose().map_err(unreadable)?;
        let size = |row: Option<StateRow<'_>>| row.map_or(0, |row| row.size(key)).cast_signed();
        *self.grown.entry(state).or_default() += size(came) - size(went);
        let (was, is) = (went.and_then(|row| row.expires_at), came.and_then(|row| row.expires_at));
        if was != is {
            if let Some(at) = was {
                self.expiry.remove((at.0, state, key))?;
            }
            if let Some(at) = is {
                self.expiry.insert((at.0, state, key), ())?;
            }
        }
        Ok(before)
    }

    /// When a value expires, if there is one that does.
    fn expires_at(&self, state: u64, key: &str) -> Result<Option<Timestamp>, WriteError> {
        let Some(row) = self.rows.get((state, key))? else { return Ok(None) };
        let row = StateRow::decode(row.value()).map_err(|error| WriteError::Row("plugin_state", error))?;
        Ok(row.expires_at)
    }

    /// Deletes all values of a generation.
    fn clear(&mut self, state: u64) -> Result<(), WriteError> {
        if !self.expiry.is_empty()? {
            for row in self.rows.range(all_of(state))? {
                let (key, row) = row?;
                // What cannot be read goes all the same.
                if let Ok(StateRow { expires_at: Some(at), .. }) = StateRow::decode(row.value()) {
                    self.expiry.remove((at.0, state, key.value().1))?;
                }
            }
        }
        self.rows.retain_in(all_of(state), |_, _| false)?;
        self.bytes.remove(state)?;
        self.grown.remove(&state);
        Ok(())
    }

    fn finish(mut self) -> Result<(), WriteError> {
        for (state, grown) in self.grown.into_iter().filter(|&(_, grown)| grown != 0) {
            let before = self.bytes.get(state)?.map_or(0, |bytes| bytes.value());
            match before.saturating_add_signed(grown) {
                0 => drop(self.bytes.remove(state)?),
                bytes => drop(self.bytes.insert(state, bytes)?),
            }
        }
        Ok(())
    }
}

/// The range of all rows of a generation. The next one's empty key is the least after all of its own.
fn all_of(state: u64) -> std::ops::Range<(u64, &'static str)> {
    (state, "")..(state.saturating_add(1), "")
}
