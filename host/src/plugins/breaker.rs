//! The circuit breaker of a plugin: pauses what keeps failing, tries again later, remembers why.
//!
//! Closed: events flow. Open: none are asked for until a pause is over. Half-open: one event is tried; success closes
//! the breaker, failure opens it again for twice as long. Pure: time is an argument.

use vespiary_core::Timestamp;

/// First pause, in milliseconds.
const FIRST_PAUSE_MS: u64 = 10_000;
/// Longest pause, in milliseconds.
const LONGEST_PAUSE_MS: u64 = 300_000;

/// The breaker of one plugin.
#[derive(Debug, Clone)]
pub(super) struct Breaker {
    /// Failures in a row that open it.
    threshold: u32,
    /// Failures since the last success.
    failures: u32,
    state: State,
    /// The next pause, in milliseconds.
    pause_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Closed,
    Open { since: Timestamp, until: Timestamp, reason: String },
    HalfOpen { since: Timestamp, reason: String },
}

impl Breaker {
    /// A closed breaker that opens after `threshold` failures in a row.
    pub(super) fn new(threshold: u32) -> Self {
        Self { threshold, failures: 0, state: State::Closed, pause_ms: FIRST_PAUSE_MS }
    }

    /// An event was handled.
    pub(super) fn succeeded(&mut self) {
        *self = Self::new(self.threshold);
    }

    /// An event failed for `reason`. Gives `true` when this opened the breaker.
    pub(super) fn failed(&mut self, reason: &str, now: Timestamp) -> bool {
        self.failures = self.failures.saturating_add(1);
        match self.state {
            State::Open { .. } => return false,
            State::Closed if self.failures < self.threshold => return false,
            State::Closed | State::HalfOpen { .. } => {}
        }
        self.open(reason, now);
        true
    }

    /// Opens at once: the plugin cannot run at all.
    pub(super) fn open(&mut self, reason: &str, now: Timestamp) {
        let since = self.trouble().map_or(now, |(_, since, ..)| since);
        self.state = State::Open { since, until: now.after_ms(self.pause_ms), reason: reason.to_owned() };
        self.pause_ms = (self.pause_ms * 2).min(LONGEST_PAUSE_MS);
    }

    /// Becomes half-open when the pause is over; gives `true` when it did.
    pub(super) fn try_again(&mut self, now: Timestamp) -> bool {
        match &mut self.state {
            State::Open { since, until, reason } if *until <= now => {
                self.state = State::HalfOpen { since: *since, reason: std::mem::take(reason) };
                true
            }
            State::Open { .. } | State::Closed | State::HalfOpen { .. } => false,
        }
    }

    /// When the pause ends, and why there is one.
    pub(super) fn pause(&self) -> Option<(Timestamp, &str)> {
        match &self.state {
            State::Open { until, reason, .. } => Some((*until, reason)),
            State::Closed | State::HalfOpen { .. } => None,
        }
    }

    /// Where it is not closed: `open` or `half-open`, since when it has not been closed, when its pause ends, and why.
    pub(super) fn trouble(&self) -> Option<(&'static str, Timestamp, Option<Timestamp>, &str)> {
        match &self.state {
            State::Closed => None,
            State::Open { since, until, reason } => Some(("open", *since, Some(*until), reason)),
            State::HalfOpen { since, reason } => Some(("half-open", *since, None, reason)),
        }
    }

    /// Whether only one event is to be tried.
    pub(super) fn is_half_open(&self) -> bool {
        matches!(self.state, State::HalfOpen { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_after_failures_in_a_row_and_probes_with_growing_pauses() {
        let mut breaker = Breaker::new(3);
        assert!(!breaker.failed("a", Timestamp(0)));
        assert!(!breaker.failed("a", Timestamp(0)));
        breaker.succeeded();
        assert!(!breaker.failed("a", Timestamp(0)));
        assert!(!breaker.failed("a", Timestamp(0)));
        assert!(breaker.failed("b", Timestamp(0)));
        assert_eq!(breaker.pause(), Some((Timestamp(FIRST_PAUSE_MS), "b")));
        assert!(!breaker.try_again(Timestamp(FIRST_PAUSE_MS - 1)));
        assert!(breaker.try_again(Timestamp(FIRST_PAUSE_MS)));
        assert!(breaker.is_half_open());
        assert_eq!(breaker.trouble(), Some(("half-open", Timestamp(0), None, "b")));
        assert!(breaker.failed("c", Timestamp(FIRST_PAUSE_MS)));
        assert_eq!(breaker.pause(), Some((Timestamp(3 * FIRST_PAUSE_MS), "c")));
        assert_eq!(breaker.trouble(), Some(("open", Timestamp(0), Some(Timestamp(3 * FIRST_PAUSE_MS)), "c")));
        assert!(breaker.try_again(Timestamp(u64::MAX)));
        breaker.succeeded();
        assert_eq!((breaker.pause(), breaker.trouble()), (None, None));
        assert!(!breaker.is_half_open());
    }

    #[test]
    fn pauses_are_bounded() {
        let mut breaker = Breaker::new(1);
        for _ in 0..40 {
            breaker.open("x", Timestamp(0));
        }
        assert_eq!(breaker.pause(), Some((Timestamp(LONGEST_PAUSE_MS), "x")));
    }
}
