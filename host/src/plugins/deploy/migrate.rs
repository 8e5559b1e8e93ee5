//! Brings a plugin's state into the form of a new revision, while the old revision works on the old form.
//!
//! 1. A further generation of the state is begun, and from then on the keys that settlements write are noted.
//! 2. The old state is read in chunks, each from a snapshot of its own (a snapshot that is kept makes the file grow); the new
//!    code migrates each, and the result is written to the new generation. Each chunk is on disk before the next.
//! 3. What was written meanwhile is migrated again, in rounds, until little is left or the rounds do not get shorter.
//! 4. When the plugin rests, the remainder is migrated, and the switch makes the new generation the one in use.
//!
//! A failure at any step drops the new generation. So does a crash: a generation that is not in use when the process ends is
//! dropped at the next start, and the switch itself is one transaction.

use std::sync::Arc;
use std::time::{Duration, Instant};

use vespiary_core::Input;
use vespiary_core::event::{GenerationStep, SessionId, StateWrite};

use super::super::Plugins;
use super::super::plugin::Plugin;
use super::DeployError;
use super::migration::{Dirty, Renames};
use super::switch::{COMMIT_TIMEOUT, unconfirmed};
use crate::clock::wall_clock;
use crate::store::StateSnapshot;
use crate::wasm::Instance;

/// Most entries of a chunk.
const CHUNK_ENTRIES: usize = 500;
/// Bytes of values that a chunk should have.
const CHUNK_BYTES: usize = 1 << 20;
/// Keys written meanwhile that may be left to the pause.
const FEW_KEYS: usize = 500;
/// Rounds over keys that were written meanwhile, at most.
const ROUNDS: usize = 8;

/// A migration under way.
pub(super) struct Migration<'a> {
    plugins: &'a Plugins,
    plugin: &'a Arc<Plugin>,
    /// An instance of the new code.
    instance: Instance,
    /// The version of the old state.
    from: u32,
    /// The old generation.
    old: SessionId,
    renames: Renames,
    /// The last key that was copied; `None` before the first.
    copied: Option<String>,
    /// Whether everything was copied once.
    complete: bool,
    /// Entries migrated, again or for the first time.
    entries: u64,
    began: Instant,
    /// Whether the new generation is in use, so that it stays.
    kept: bool,
}

/// An entry of the old state; without a value where it is gone.
type Entry = (String, Option<Vec<u8>>, Option<vespiary_core::Timestamp>);

impl<'a> Migration<'a> {
    /// Begins a new generation, and copies the old into it while the old revision runs.
    pub(super) fn run(
        plugins: &'a Plugins,
        plugin: &'a Arc<Plugin>,
        instance: Instance,
        from: u32,
        old: SessionId,
    ) -> Result<Self, DeployError> {
        plugin.run(|run| run.dirty = Some(Dirty::default()));
        let mut migration = Self {
            plugins,
            plugin,
            instance,
            from,
            old,
            renames: Renames::default(),
            copied: None,
            complete: false,
            entries: 0,
            began: Instant::now(),
            kept: false,
        };
        // Once this is on disk, so is all that was settled before keys were noted.
        migration.step(GenerationStep::Begin)?;
        migration.copy()?;
        let mut before = usize::MAX;
        for _ in 0..ROUNDS {
            let keys = plugin.run(|run| match &mut run.dirty {
                Some(dirty) if dirty.len() > FEW_KEYS && dirty.len() < before => dirty.take(),
                Some(_) | None => Vec::new(),
            });
            if keys.is_empty() {
                break;
            }
            before = keys.len();
            migration.catch_up(keys)?;
        }
        Ok(migration)
    }

    /// Migrates what is left; the plugin rests.
    pub(super) fn finish(&mut self) -> Result<(), DeployError> {
        let keys = self.plugin.run(|run| run.dirty.as_mut().map(Dirty::take)).unwrap_or_default();
        self.catch_up(keys)
    }

    /// The new generation is in use. Gives how many entries were migrated, and how long that took.
    pub(super) fn keep(mut self) -> (u64, Duration) {
        self.kept = true;
        (self.entries, self.began.elapsed())
    }

    fn copy(&mut self) -> Result<(), DeployError> {
        let mut limit = CHUNK_ENTRIES / 8;
        loop {
            let snapshot = self.snapshot()?;
            let rows = snapshot.entries(self.copied.as_deref(), limit)?;
            let (Some(last), full) = (rows.last().map(|(key, ..)| key.clone()), rows.len() == limit) else { break };
            let bytes: usize = rows.iter().map(|(key, value, _)| key.len() + value.len()).sum();
            let entries = rows.into_iter().map(|(key, value, expires_at)| (key, Some(value), expires_at)).collect();
            self.migrate(&snapshot, entries, false)?;
            self.copied = Some(last);
            limit = next_chunk(limit, bytes);
            if !full {
                break;
            }
        }
        self.complete = true;
        Ok(())
    }

    /// Migrates keys again that were written since.
    fn catch_up(&mut self, keys: Vec<Box<str>>) -> Result<(), DeployError> {
        if keys.is_empty() {
            return Ok(());
        }
        // A settlement is noted before it is handed to the broker. Once the broker has answered a step that comes after it,
        // a snapshot has what it wrote.
        self.step(GenerationStep::Write(Vec::new()))?;
        for keys in keys.chunks(CHUNK_ENTRIES / 8) {
            let snapshot = self.snapshot()?;
            let mut entries = Vec::new();
            for key in keys {
                let found = snapshot.entry(key)?;
                let (value, expires_at) = found.map_or((None, None), |(value, expires_at)| (Some(value), expires_at));
                entries.push((key.to_string(), value, expires_at));
            }
            self.migrate(&snapshot, entries, true)?;
        }
        Ok(())
    }

    /// Migrates some entries, and writes what comes of them to the new generation.
    fn migrate(&mut self, snapshot: &StateSnapshot, entries: Vec<Entry>, before: bool) -> Result<(), DeployError> {
        let there = entries.iter().filter_map(|(key, value, _)| Some((key.clone(), value.clone()?)));
        let there: Vec<(String, Vec<u8>)> = there.collect();
        let called = self.instance.migrate(self.from, &there);
        let mut results = called.map_err(|error| self.failed(error.to_string()))?.into_iter();
        let mut writes = Vec::new();
        for (old, value, expires_at) in entries {
            let new = match value {
                None => Vec::new(),
                Some(_) => results.next().ok_or_else(|| self.failed("it gave too few results".to_owned()))?,
            };
            self.entries += 1;
            let keys: Vec<&str> = new.iter().map(|(key, _)| key.as_str()).collect();
            let (complete, copied) = (self.complete, self.copied.as_deref());
            let is_copied = |key: &str| complete || copied.is_some_and(|copied| key <= copied);
            let is_taken = |key: &str| is_copied(key) && snapshot.get(key).is_ok_and(|value| value.is_some());
            let removed = self.renames.replace(&old, &keys, before, is_taken);
            let removed = removed.map_err(|reason| self.failed(reason))?;
            writes.extend(removed.into_iter().map(|key| StateWrite::lasting(key, None)));
            writes.extend(new.into_iter().map(|(key, value)| StateWrite {
                key: key.into(),
                value: Some(value.into()),
                expires_at,
            }));
        }
        if writes.is_empty() { Ok(()) } else { self.step(GenerationStep::Write(writes)) }
    }

    /// Takes a step, and waits until it is on disk.
    fn step(&self, step: GenerationStep) -> Result<(), DeployError> {
        let plugin = self.plugin;
        plugin.run(|run| run.answers.generation = None);
        self.plugins.post(Input::Generation { plugin: plugin.name.clone(), step });
        let answer = plugin.wait(COMMIT_TIMEOUT, |run| run.answers.generation.take());
        match answer.ok_or_else(|| unconfirmed(plugin))? {
            (None, _) => Err(self.failed("the broker has no new generation of it".to_owned())),
            (Some(_), after) if self.plugins.pool.wait_durable(after, COMMIT_TIMEOUT) => Ok(()),
            (Some(_), _) => Err(unconfirmed(plugin)),
        }
    }

    fn snapshot(&self) -> Result<StateSnapshot, DeployError> {
        Ok(self.plugins.store.snapshot(self.old, wall_clock())?)
    }

    fn failed(&self, reason: String) -> DeployError {
        DeployError::Migration { plugin: self.plugin.name.0.to_string(), reason }
    }
}

impl Drop for Migration<'_> {
    fn drop(&mut self) {
        self.plugin.run(|run| run.dirty = None);
        if !self.kept {
            let step = GenerationStep::Drop;
            self.plugins.post(Input::Generation { plugin: self.plugin.name.clone(), step });
        }
    }
}

/// Entries of the next chunk, after one of so many entries had so many bytes.
fn next_chunk(entries: usize, bytes: usize) -> usize {
    let fitting = entries.saturating_mul(CHUNK_BYTES) / bytes.max(1);
    fitting.clamp(1, (entries * 2).min(CHUNK_ENTRIES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_grow_to_their_most_and_shrink_with_large_values() {
        for (entries, bytes, expected) in [
            (62, 1_000, 124),
            (400, 1_000, CHUNK_ENTRIES),
            (62, 0, 124),
            (62, 62 << 20, 1),
            (100, 2 << 20, 50),
            (1, usize::MAX, 1),
        ] {
            assert_eq!(next_chunk(entries, bytes), expected, "{entries} {bytes}");
        }
    }
}
