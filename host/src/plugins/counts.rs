//! What happened to a plugin since the broker started.

use serde::{Deserialize, Serialize};
use vespiary_core::event::{Outcome, Settlement};

/// Counters since the broker started, and the last failure.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Events handled.
    pub handled: u64,
    /// Times an event failed and was put back.
    pub retried: u64,
    /// Events given up.
    pub dead_lettered: u64,
    /// Calls of the handler.
    pub calls: u64,
    /// Calls that trapped, ran out of time or memory.
    pub failed_calls: u64,
    /// Time spent in calls, in microseconds.
    pub call_us: u64,
    /// Calls whose work was dropped and done again, because another lane had written what they read.
    #[serde(default)]
    pub conflicts: u64,
    /// Messages published.
    pub published: u64,
    /// Most messages that one settlement published.
    #[serde(default)]
    pub most_publishes: u64,
    /// Uses refused for want of a grant.
    pub denied: u64,
    /// Requests to its HTTP service that were answered.
    #[serde(default)]
    pub served: u64,
    /// Requests to its HTTP service that failed.
    #[serde(default)]
    pub failed_requests: u64,
    /// The last failure: when and why.
    pub last_failure: Option<Failure>,
}

/// A failure, for the operator.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Failure {
    /// When, in milliseconds since the Unix epoch.
    pub at: u64,
    /// Why.
    pub reason: String,
}

impl Counts {
    /// Counts what handling a batch came to.
    pub(super) fn settle(&mut self, settlement: &Settlement) {
        let publishes = settlement.publishes.len() as u64;
        self.published += publishes;
        self.most_publishes = self.most_publishes.max(publishes);
        for (_, outcome) in &settlement.outcomes {
            match outcome {
                Outcome::Done => self.handled += 1,
                Outcome::RetryAt(_) => self.retried += 1,
                Outcome::DeadLetter(_) => self.dead_lettered += 1,
            }
        }
    }
}
