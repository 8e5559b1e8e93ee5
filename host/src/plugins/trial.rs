//! New code on trial, on probation or as a canary: when it has failed too often, and when it has stood the test.
//!
//! Pure: time is an argument. A trial trips once, for one reason; what follows from that is decided elsewhere.

use vespiary_core::Timestamp;

/// Events before which a share of failures says nothing.
const LEAST_EVENTS: u64 = 20;
/// Most failures of events, in percent.
const MOST_FAILURES_PERCENT: u64 = 10;

/// A trial of new code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trial {
    /// Failures that are too many, where the operator says so.
    failures: Option<u32>,
    /// Events that were handled, or rejected with a reason.
    succeeded: u64,
    /// Events that failed, each time that they did.
    failed: u64,
    /// When it began.
    began: Timestamp,
    /// Why it is over, if the code failed it.
    tripped: Option<String>,
}

/// When a trial that has not tripped is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Length {
    /// After so many events.
    pub events: u64,
    /// After so many seconds.
    pub seconds: u64,
}

impl Trial {
    /// A trial that begins; `failures` is the operator's threshold, if there is one.
    pub(super) fn new(began: Timestamp, failures: Option<u32>) -> Self {
        Self { failures, succeeded: 0, failed: 0, began, tripped: None }
    }

    /// A trial that goes on after a restart, in which so many events were handled.
    pub(super) fn resumed(began: Timestamp, failures: Option<u32>, handled: u64) -> Self {
        Self { succeeded: handled, ..Self::new(began, failures) }
    }

    /// Events were handled.
    pub(super) fn succeeded(&mut self, events: u64) {
        self.succeeded += events;
    }

    /// An event failed. Gives `true` when this was one too many.
    pub(super) fn failed(&mut self, reason: &str) -> bool {
        self.failed += 1;
        let events = self.events();
        let too_many = match self.failures {
            Some(most) => self.failed > u64::from(most),
            None => events >= LEAST_EVENTS && self.failed * 100 > events * MOST_FAILURES_PERCENT,
        };
        too_many && self.trip(format!("{} of {events} events failed, the last: {reason}", self.failed))
    }

    /// Ends the trial for a reason. Gives `true` when it had not ended so before.
    pub(super) fn trip(&mut self, reason: impl Into<String>) -> bool {
        let first = self.tripped.is_none();
        self.tripped.get_or_insert_with(|| reason.into());
        first
    }

    /// Why it tripped, if it did.
    pub(super) fn tripped(&self) -> Option<&str> {
        self.tripped.as_deref()
    }

    /// Whether the code has stood the test.
    pub(super) fn is_passed(&self, now: Timestamp, length: Length) -> bool {
        let long_enough = now.since_ms(self.began) >= length.seconds.saturating_mul(1_000);
        self.tripped.is_none() && (long_enough || self.events() >= length.events)
    }

    /// Events so far, handled and failed.
    pub(super) fn events(&self) -> u64 {
        self.succeeded + self.failed
    }

    /// Events that failed so far.
    pub(super) fn failures(&self) -> u64 {
        self.failed
    }

    /// When it began.
    pub(super) fn began(&self) -> Timestamp {
        self.began
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_a_tenth_of_twenty_events_is_too_much() {
        for (succeeded, failures, expected) in
            [(0, 19, false), (0, 20, true), (18, 2, false), (18, 3, true), (90, 10, false)]
        {
            let mut trial = Trial::new(Timestamp(0), None);
            trial.succeeded(succeeded);
            let tripped = (0..failures).filter(|_| trial.failed("x")).count() == 1;
            assert_eq!(tripped, expected, "{succeeded} {failures}");
            assert_eq!(trial.tripped().is_some(), expected, "{succeeded} {failures}");
        }
    }

    #[test]
    fn the_operators_threshold_counts_alone() {
        let mut trial = Trial::new(Timestamp(0), Some(1));
        assert!(!trial.failed("a"));
        assert!(trial.failed("b"));
        assert_eq!(trial.tripped(), Some("2 of 2 events failed, the last: b"));
        assert!(!trial.failed("c"), "it trips once");
        let mut patient = Trial::new(Timestamp(0), Some(100));
        assert!((0..100).all(|_| !patient.failed("x")));
    }

    #[test]
    fn a_trial_is_passed_after_its_events_or_its_time_unless_it_tripped() {
        let length = Length { events: 10, seconds: 60 };
        let mut trial = Trial::resumed(Timestamp(1_000), None, 8);
        assert!(!trial.is_passed(Timestamp(60_999), length));
        assert!(trial.is_passed(Timestamp(61_000), length));
        trial.succeeded(2);
        assert!(trial.is_passed(Timestamp(1_000), length));
        assert!(trial.trip("health failed"));
        assert!(!trial.is_passed(Timestamp(61_000), length));
    }
}
