//! One deployed plugin at run time: which code is live, and where its one batch is.
//!
//! ```text
//! Resting --ask--> Asking --Events--> Busy --Settle--> Settling --Settled--> Asking | Resting
//!    ^               |                  |
//!    +-TakeCancelled-+                  +--ReturnEvents--> Asking | Resting
//! ```
//! While `hold` is set nothing is asked for: a swap, an operator's pause, an open breaker or code that cannot run. A
//! swap takes over in `Resting`, where the core has no batch out and no demand standing.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use vespiary_core::event::{PluginName, Revision, SessionId};
use vespiary_core::{ChangeNumber, Timestamp};

use super::breaker::Breaker;
use super::grants::Grants;
use super::log::PluginLog;
use crate::clock::wall_clock;
use crate::wasm::{Compiled, Instance, Interrupter};

/// A deployed plugin.
pub(super) struct Plugin {
    /// Its name.
    pub name: PluginName,
    /// Its log.
    pub log: Arc<PluginLog>,
    run: Mutex<Run>,
    /// Signalled at every change of [`Run`] that somebody may wait for.
    changed: Condvar,
}

/// What changes while a plugin runs.
pub(super) struct Run {
    /// Where the batch is.
    pub phase: Phase,
    /// Whether a deploy or a removal is under way; no other may begin.
    pub deploying: bool,
    /// Whether it is being brought to rest for a switch: nothing is asked for.
    pub swapping: bool,
    /// Whether the operator paused it.
    pub paused: bool,
    /// Why the code cannot run at all, if it cannot.
    pub broken: Option<String>,
    /// Pauses what keeps failing.
    pub breaker: Breaker,
    /// The active revision's code; `None` before the first deploy and when it cannot run.
    pub code: Option<Code>,
    /// The active revision; `None` before the first deploy is complete.
    pub revision: Option<Revision>,
    /// The session that holds inbox and state.
    pub session: Option<SessionId>,
    /// Events that are still to be handed out one by one, after a call that failed as a whole.
    pub isolating: usize,
    /// The next call reads state only after this change is durable.
    pub settled: ChangeNumber,
    /// What the core answered to an activation or a removal: the change it rests on.
    pub answered: Option<Result<ChangeNumber, Refused>>,
    /// Interrupts the call under way, if there is one.
    pub interrupter: Option<Interrupter>,
    /// What happened since start.
    pub counts: Counts,
}

/// Where a plugin's batch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing is out and nothing is asked for.
    Resting,
    /// The core was asked for events.
    Asking,
    /// A batch waits for a thread or is being handled.
    Busy,
    /// The outcome is with the core; `asked` says whether the next batch was already asked for.
    Settling {
        /// Whether the next batch was asked for.
        asked: bool,
    },
}

/// The core refused an activation: one of its bounds is reached.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refused;

/// The live code of a plugin.
pub(super) struct Code {
    /// The compiled component.
    pub compiled: Compiled,
    /// What it may do.
    pub grants: Grants,
    /// A warm instance; `None` while a call has it and after it died.
    pub instance: Option<Instance>,
}

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
    /// Messages published.
    pub published: u64,
    /// Publishes refused for want of a grant.
    pub denied: u64,
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

impl Plugin {
    /// A plugin without code.
    pub(super) fn new(name: PluginName, breaker_failures: u32) -> Self {
        let run = Run {
            phase: Phase::Resting,
            deploying: false,
            swapping: false,
            paused: false,
            broken: None,
            breaker: Breaker::new(breaker_failures),
            code: None,
            revision: None,
            session: None,
            isolating: 0,
            settled: ChangeNumber(0),
            answered: None,
            interrupter: None,
            counts: Counts::default(),
        };
        Self { log: Arc::new(PluginLog::new(name.clone())), name, run: Mutex::new(run), changed: Condvar::new() }
    }

    /// Looks at or changes how it runs, and wakes who waits for a change.
    pub(super) fn run<R>(&self, change: impl FnOnce(&mut Run) -> R) -> R {
        let result = change(&mut self.lock());
        self.changed.notify_all();
        result
    }

    /// Blocks until `condition` gives a value, at most for `timeout`.
    pub(super) fn wait<R>(&self, timeout: Duration, mut condition: impl FnMut(&mut Run) -> Option<R>) -> Option<R> {
        let deadline = Instant::now() + timeout;
        let mut run = self.lock();
        loop {
            if let Some(result) = condition(&mut run) {
                return Some(result);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            run = self.changed.wait_timeout(run, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Run> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plugin").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Run {
    /// Whether events may be asked for.
    pub(super) fn may_ask(&self) -> bool {
        !self.swapping && !self.paused && self.broken.is_none() && self.breaker.pause().is_none() && self.code.is_some()
    }

    /// Events to ask for: one while a culprit is looked for or the breaker tries again.
    pub(super) fn batch(&self, most: usize) -> usize {
        if self.isolating > 0 || self.breaker.is_half_open() { 1 } else { most }
    }

    /// Notes a failure, for the operator.
    pub(super) fn note_failure(&mut self, now: Timestamp, reason: &str) {
        self.counts.last_failure = Some(Failure { at: now.0, reason: reason.to_owned() });
    }

    /// What it is doing, in a word and, where it is not running, a reason.
    pub(super) fn status(&self) -> (&'static str, Option<String>) {
        if let Some(reason) = &self.broken {
            return ("broken", Some(reason.clone()));
        }
        if self.swapping {
            return ("swapping", None);
        }
        if self.paused {
            return ("paused", Some("paused by the operator".to_owned()));
        }
        if let Some((until, reason)) = self.breaker.pause() {
            let left_s = until.since_ms(wall_clock()).div_ceil(1_000);
            return ("stopped", Some(format!("{reason}; tried again in {left_s} s")));
        }
        if self.breaker.is_half_open() { ("probing", None) } else { ("running", None) }
    }
}
