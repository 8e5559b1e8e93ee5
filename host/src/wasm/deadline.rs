//! When a call is over: at its deadline, or when somebody interrupts it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use wasmtime::EngineWeak;

/// Why the host ended a call; travels through the engine as its error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Stop {
    /// The deadline passed.
    #[error("deadline")]
    Deadline,
    /// Somebody interrupted it.
    #[error("interrupted")]
    Interrupted,
    /// The guest broke its contract.
    #[error("{0}")]
    Contract(String),
    /// The component does not export what was called.
    #[error("it does not export `{0}`")]
    NotExported(&'static str),
}

/// The time of an instance's calls.
pub(super) struct CallTime {
    /// When the current call is over.
    deadline: Instant,
    /// How long a call may take that has no deadline of its own.
    usual: Duration,
    /// How long the current call may take.
    length: Duration,
    /// Whether the instance was interrupted.
    interrupted: Arc<AtomicBool>,
}

impl CallTime {
    pub(super) fn new(usual: Duration) -> Self {
        Self { deadline: Instant::now(), usual, length: usual, interrupted: Arc::default() }
    }

    /// A call begins, with a deadline of its own or with the usual one.
    pub(super) fn begin_call(&mut self, now: Instant, length: Option<Duration>) {
        self.length = length.unwrap_or(self.usual);
        self.deadline = now + self.length;
    }

    /// How long the current call may take, in milliseconds.
    pub(super) fn length_ms(&self) -> u64 {
        u64::try_from(self.length.as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether the call may go on.
    pub(super) fn check(&self) -> Result<(), Stop> {
        if self.interrupted.load(Ordering::Acquire) {
            return Err(Stop::Interrupted);
        }
        if Instant::now() >= self.deadline {
            return Err(Stop::Deadline);
        }
        Ok(())
    }

    pub(super) fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Acquire)
    }

    pub(super) fn interrupter(&self, engine: EngineWeak) -> Interrupter {
        Interrupter { interrupted: Arc::clone(&self.interrupted), engine }
    }
}

/// Ends what an instance is doing, from any thread.
#[derive(Clone)]
pub struct Interrupter {
    /// Seen by the call at its next tick.
    interrupted: Arc<AtomicBool>,
    /// Whose epoch makes running calls look at once.
    engine: EngineWeak,
}

impl Interrupter {
    /// Makes the call that runs end with [`CallError::Interrupted`](super::CallError::Interrupted), and every later call
    /// too: an interrupted instance is of no further use. A call that is just ending may still succeed.
    pub fn interrupt(&self) {
        self.interrupted.store(true, Ordering::Release);
        if let Some(engine) = self.engine.upgrade() {
            engine.increment_epoch();
        }
    }
}

impl fmt::Debug for Interrupter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interrupter").field("interrupted", &self.interrupted).finish_non_exhaustive()
    }
}
