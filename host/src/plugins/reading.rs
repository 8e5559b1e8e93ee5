//! The state that a call reads.
//!
//! It is read as it was handed to the store, on disk or not, because what a call says waits for its own commit, and so for
//! all that it has read. What it says to hosts outside cannot be held back: a call that may do that reads what is on disk.

use vespiary_core::event::SessionId;
use vespiary_core::{ChangeNumber, Timestamp};

use super::Plugins;
use super::deploy::COMMIT_TIMEOUT;
use crate::store::{StateSnapshot, StoreError};

/// The state for a call.
pub(super) struct Reading {
    /// What it reads.
    pub(super) snapshot: StateSnapshot,
    /// No change behind this one is in it.
    pub(super) up_to: ChangeNumber,
    /// Failures of the store before it was taken.
    failures: u64,
}

impl Plugins {
    /// The state for a call that begins now; one that `tells_others` waits until all of it is on disk.
    pub(super) fn read(&self, state: SessionId, now: Timestamp, tells_others: bool) -> Result<Reading, StoreError> {
        let failures = self.store.commits().failures;
        let snapshot = self.store.snapshot(state, now)?;
        let reading = Reading { snapshot, up_to: self.store.handed_over(), failures };
        if tells_others && !self.pool.wait_durable(reading.up_to, COMMIT_TIMEOUT) {
            return Err(self.store.failing("what a call has to read is not on disk yet"));
        }
        if self.was_cut_off(reading.failures) {
            return Err(self.store.failing("it failed while a call waited for it"));
        }
        Ok(reading)
    }

    /// Whether a state that was read after so many failures may have been cut off under its reader, whose own failure then is
    /// nothing that it did.
    pub(super) fn was_cut_off(&self, failures: u64) -> bool {
        self.store.commits().failures > failures
    }
}

impl Reading {
    /// For [`Plugins::was_cut_off`].
    pub(super) fn failures(&self) -> u64 {
        self.failures
    }
}
