//! The broker: one match, one method per input.

use crate::event::{Change, Effects, Input};
use crate::limits::Limits;
use crate::message::Timestamp;

/// The broker.
#[derive(Debug)]
pub struct Broker {
    limits: Limits,
}

impl Broker {
    /// An empty broker.
    pub fn new(limits: Limits, _seed: u64) -> Self {
        Self { limits }
    }

    /// The broker that made these changes.
    pub fn restore(limits: Limits, seed: u64, _changes: impl IntoIterator<Item = Change>) -> Self {
        Self::new(limits, seed)
    }

    /// Does what an input asks.
    pub fn handle(&mut self, _now: Timestamp, _input: Input, _effects: &mut Effects) {
        let _ = &self.limits;
    }

    /// When [`Input::Tick`] has something to do next.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        None
    }
}
