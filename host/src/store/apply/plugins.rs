//! Plugins: revisions, generations of state, and probation.

use std::collections::BTreeSet;

use redb::{ReadableTable, Table, WriteTransaction};
use vespiary_core::event::{PluginName, SessionId};

use super::super::batch::PluginChange;
use super::super::record::{self, PluginRecord, PluginRow, RevisionRow};
use super::super::tables::{Bytes, KEPT, PLUGIN_REVISIONS, PLUGINS, REVISIONS_KEPT};
use super::WriteError;
use super::queues::References;
use super::state::States;

/// Writes what happened to a plugin.
pub(super) fn write<'t>(
    transaction: &'t WriteTransaction,
    change: &PluginChange,
    references: &mut References,
    states: &mut States<'t>,
    scratch: &mut Vec<u8>,
) -> Result<(), WriteError> {
    let mut plugins = Plugins { transaction, table: transaction.open_table(PLUGINS)?, references, states, scratch };
    match change {
        PluginChange::Activated { plugin, session, revision, state, probation } => {
            let probation = probation.as_deref().cloned();
            let active = revision.clone();
            plugins.activate(plugin, PluginRecord { session: *session, active, state: *state, probation, begun: None })
        }
        PluginChange::Removed { plugin } => plugins.remove(plugin),
        PluginChange::GenerationBegun { plugin, state } => plugins.begin_generation(plugin, *state),
        PluginChange::GenerationDropped { plugin, state } => plugins.drop_generation(plugin, *state),
        PluginChange::ProbationEnded { plugin, session, undone } => plugins.end_probation(plugin, *session, *undone),
    }
}

/// What is written where something happens to a plugin.
struct Plugins<'a, 't> {
    /// Holds the tables that are opened where they are needed.
    transaction: &'t WriteTransaction,
    /// Plugins by name.
    table: Table<'t, &'static str, Bytes>,
    /// Counts the queue rows that go.
    references: &'a mut References,
    /// The tables of state.
    states: &'a mut States<'t>,
    /// Where values are encoded.
    scratch: &'a mut Vec<u8>,
}

impl Plugins<'_, '_> {
    /// Notes the active revision. What was kept for a probation before it goes, and so does every generation that is
    /// neither in use nor kept for the probation that begins.
    fn activate(&mut self, plugin: &PluginName, record: PluginRecord) -> Result<(), WriteError> {
        self.forget_kept(record.session)?;
        if let Some(before) = self.find(plugin)? {
            self.states.forget_undo(before.state.0)?;
            for state in generations(&before).difference(&generations(&record)) {
                self.states.clear(*state)?;
            }
        }
        self.put(plugin, &record)?;
        let PluginName(plugin) = plugin;
        let mut revisions = self.transaction.open_table(PLUGIN_REVISIONS)?;
        record::encode(self.scratch, &RevisionRow::new(&record.active))
            .map_err(|error| WriteError::Row("plugin_revisions", error))?;
        revisions.insert((&**plugin, record.active.number), self.scratch.as_slice())?;
        forget_old_revisions(&mut revisions, plugin, record.active.number)
    }

    /// Forgets the plugin, its revisions, and all generations of its state. What is under its session goes with that.
    fn remove(&mut self, plugin: &PluginName) -> Result<(), WriteError> {
        if let Some(before) = self.find(plugin)? {
            for state in generations(&before) {
                self.states.clear(state)?;
            }
        }
        let PluginName(plugin) = plugin;
        self.table.remove(&**plugin)?;
        let mut revisions = self.transaction.open_table(PLUGIN_REVISIONS)?;
        revisions.retain_in((&**plugin, 0)..=(&**plugin, u32::MAX), |_, _| false)?;
        Ok(())
    }

    /// Notes a further generation, in place of the one that there may be.
    fn begin_generation(&mut self, plugin: &PluginName, state: SessionId) -> Result<(), WriteError> {
        let Some(before) = self.find(plugin)? else { return Ok(()) };
        if let Some(earlier) = before.begun.filter(|earlier| *earlier != state) {
            self.states.clear(earlier.0)?;
        }
        self.put(plugin, &PluginRecord { begun: Some(state), ..before })
    }

    /// Forgets a further generation.
    fn drop_generation(&mut self, plugin: &PluginName, state: SessionId) -> Result<(), WriteError> {
        self.states.clear(state.0)?;
        match self.find(plugin)? {
            Some(before) if before.begun == Some(state) => self.put(plugin, &PluginRecord { begun: None, ..before }),
            Some(_) | None => Ok(()),
        }
    }

    /// Restores what keys had before, if the probation is undone, and forgets what was kept for it, with the generation
    /// that is not in use any more.
    fn end_probation(&mut self, plugin: &PluginName, session: SessionId, undone: bool) -> Result<(), WriteError> {
        self.forget_kept(session)?;
        let Some(mut record) = self.find(plugin)? else { return Ok(()) };
        if undone {
            self.states.undo(record.state.0)?;
        }
        self.states.forget_undo(record.state.0)?;
        let Some(before) = record.probation.take() else { return Ok(()) };
        if before.state != record.state {
            let gone = if undone { std::mem::replace(&mut record.state, before.state) } else { before.state };
            self.states.clear(gone.0)?;
        }
        self.put(plugin, &record)
    }

    fn find(&self, plugin: &PluginName) -> Result<Option<PluginRecord>, WriteError> {
        let Some(row) = self.table.get(&*plugin.0)? else { return Ok(None) };
        let row = PluginRow::decode(row.value()).map_err(|error| WriteError::Row("plugins", error))?;
        Ok(Some(row.plugin()))
    }

    fn put(&mut self, plugin: &PluginName, record: &PluginRecord) -> Result<(), WriteError> {
        PluginRow::new(record).encode(self.scratch).map_err(|error| WriteError::Row("plugins", error))?;
        self.table.insert(&*plugin.0, self.scratch.as_slice())?;
        Ok(())
    }

    /// Forgets the events that were kept for a probation.
    fn forget_kept(&mut self, session: SessionId) -> Result<(), WriteError> {
        let mut kept = self.transaction.open_table(KEPT)?;
        kept.retain_in((session.0, 0)..=(session.0, u64::MAX), |_, row| {
            self.references.went(row);
            false
        })?;
        Ok(())
    }
}

/// The generations of a plugin's state.
fn generations(plugin: &PluginRecord) -> BTreeSet<u64> {
    let before = plugin.probation.as_ref().map(|before| before.state);
    [Some(plugin.state), before, plugin.begun].into_iter().flatten().map(|state| state.0).collect()
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
