//! The state of an earlier revision, brought into this one's form.

use std::collections::HashSet;

use super::{Exports, Instance, exported};
use crate::wasm::bindings::vespiary::plugin::state::EntryParam;
use crate::wasm::error::{CallError, bounded};
use crate::wasm::inspect;

/// Longest key in bytes.
const KEY_BYTES: usize = 512;
/// Longest key in an error.
const SHOWN_BYTES: usize = 80;

/// What one old entry becomes: new keys with their values.
type Migrated = Vec<(String, Vec<u8>)>;

impl Instance {
    /// Hands entries of the state of version `from` to `migration.migrate`, and gives for each, in order, what comes of it. That no
    /// two entries of different calls give the same key is for the caller to see.
    pub fn migrate(&mut self, from: u32, entries: &[(String, Vec<u8>)]) -> Result<Vec<Migrated>, CallError> {
        let list: Vec<_> = entries.iter().map(|(key, value)| EntryParam { key, value }).collect();
        let answer = self.call(|exports: &Exports, store| {
            exported(exports.migration.as_ref(), inspect::MIGRATION)?.call_migrate(store, from, &list)
        })?;
        let answer = answer.map_err(|reason| self.failed("migrate", &reason))?;
        let migrated: Vec<Migrated> = answer
            .into_iter()
            .map(|entries| entries.into_iter().map(|entry| (entry.key, entry.value)).collect())
            .collect();
        let limit = self.store.data().limits.state_value_bytes;
        check(entries.len(), &migrated, limit).map_err(|reason| self.failed("migrate", &reason))?;
        Ok(migrated)
    }
}

/// What a migration gives must fit the state.
fn check(asked: usize, migrated: &[Migrated], value_bytes: usize) -> Result<(), String> {
    if migrated.len() != asked {
        return Err(format!("it gave what becomes of {} entries, and was handed {asked}", migrated.len()));
    }
    let mut keys = HashSet::new();
    for (key, value) in migrated.iter().flatten() {
        let shown = bounded(key, SHOWN_BYTES);
        if key.is_empty() || key.len() > KEY_BYTES {
            return Err(format!("it gave the key {shown:?} of {} bytes; 1 to {KEY_BYTES} are allowed", key.len()));
        }
        if value.len() > value_bytes {
            return Err(format!("the value of {shown:?} has {} bytes; {value_bytes} are allowed", value.len()));
        }
        if !keys.insert(key.as_str()) {
            return Err(format!("it gave the key {shown:?} twice"));
        }
    }
    Ok(())
}
