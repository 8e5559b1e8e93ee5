//! When state that has expired is purged, and how much of it at a time.
//!
//! A piece at a time and with a pause between, since others wait for the checkpoint that it is in. When the first value expires
//! is known, so with nothing to expire nobody wakes up.

use std::time::{Duration, Instant};

use vespiary_core::message::Timestamp;

use super::batch::Purge;
use super::checkpoint::Written;

/// Expired values purged in one checkpoint, where no more are written: more would make those wait who wait for it. Of
/// those that are written, twice as many go as come.
const PURGED_ROWS: usize = 1_024;

/// The thread sleeps no longer than this while some value is to expire, for the clock may be set.
const LONGEST_SLEEP: Duration = Duration::from_secs(3_600);

/// Tells the time.
pub(super) type Clock = Box<dyn Fn() -> Timestamp + Send>;

/// What is known of state that expires.
pub(super) struct Purging {
    /// Tells the time by which it does.
    clock: Clock,
    /// When the first value in the database does.
    next_expiry: Option<Timestamp>,
    /// When some was last purged.
    purged_at: Option<Instant>,
    /// Values that expire, as often as they were written since.
    written: usize,
}

impl Purging {
    /// Of a database in which the first value expires at this time.
    pub(super) fn new(clock: Clock, next_expiry: Option<Timestamp>) -> Self {
        Self { clock, next_expiry, purged_at: None, written: 0 }
    }

    /// How long the thread may sleep; `None` for as long as nothing comes.
    pub(super) fn sleep(&self, pause: Duration) -> Option<Duration> {
        let ahead_ms = self.next_expiry?.0.saturating_sub((self.clock)().0);
        Some(Duration::from_millis(ahead_ms).max(self.rest(pause)).min(LONGEST_SLEEP))
    }

    /// What is to be purged now.
    pub(super) fn due(&self, pause: Duration) -> Option<Purge> {
        let first = self.next_expiry?;
        let now = (self.clock)();
        let is_due = first <= now && self.rest(pause).is_zero();
        is_due.then(|| Purge { now, rows: PURGED_ROWS.max(self.written.saturating_mul(2)) })
    }

    /// What is left of the pause since some was last purged.
    fn rest(&self, pause: Duration) -> Duration {
        self.purged_at.map_or(Duration::ZERO, |at| pause.saturating_sub(at.elapsed()))
    }

    /// Takes note of a checkpoint.
    pub(super) fn note(&mut self, written: &Written) {
        self.next_expiry = written.next_expiry;
        self.written = self.written.saturating_add(written.expiring);
        if written.purged {
            (self.purged_at, self.written) = (Some(Instant::now()), 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    const PAUSE: Duration = Duration::from_secs(3_600);

    fn purging(next_expiry: Option<u64>) -> (Purging, Arc<AtomicU64>) {
        let now: Arc<AtomicU64> = Arc::default();
        let shared = now.clone();
        let clock: Clock = Box::new(move || Timestamp(shared.load(Ordering::Relaxed)));
        (Purging::new(clock, next_expiry.map(Timestamp)), now)
    }

    fn written(expiring: usize, purged: bool, next_expiry: Option<u64>) -> Written {
        Written { frame: 1, expiring, purged, next_expiry: next_expiry.map(Timestamp) }
    }

    #[test]
    fn with_nothing_to_expire_nobody_wakes_up() {
        let (mut purging, now) = purging(None);
        for time in [0, 1, u64::MAX] {
            now.store(time, Ordering::Relaxed);
            assert_eq!((purging.sleep(PAUSE), purging.due(PAUSE)), (None, None));
        }
        purging.note(&written(0, false, Some(u64::MAX)));
        assert_eq!(purging.sleep(PAUSE), Some(Duration::ZERO));
        purging.note(&written(0, false, None));
        assert_eq!(purging.sleep(PAUSE), None);
    }

    #[test]
    fn a_piece_is_due_when_something_has_expired_and_the_pause_is_over() {
        let (mut purging, now) = purging(Some(1_500));
        assert_eq!((purging.sleep(PAUSE), purging.due(PAUSE)), (Some(Duration::from_millis(1_500)), None));
        now.store(1_500, Ordering::Relaxed);
        let purge = Purge { now: Timestamp(1_500), rows: PURGED_ROWS };
        assert_eq!((purging.sleep(PAUSE), purging.due(PAUSE)), (Some(Duration::ZERO), Some(purge)));
        purging.note(&written(0, true, Some(1_500)));
        assert_eq!(purging.due(PAUSE), None);
        assert!(purging.sleep(PAUSE).is_some_and(|sleep| !sleep.is_zero() && sleep <= PAUSE));
        assert_eq!(purging.due(Duration::ZERO), Some(purge));
    }

    #[test]
    fn more_goes_at_a_time_than_is_written_meanwhile() {
        let (mut purging, now) = purging(Some(0));
        now.store(1, Ordering::Relaxed);
        for (expiring, rows) in [(0, PURGED_ROWS), (PURGED_ROWS, 2 * PURGED_ROWS), (PURGED_ROWS, 4 * PURGED_ROWS)] {
            purging.note(&written(expiring, false, Some(0)));
            assert_eq!(purging.due(PAUSE).map(|purge| purge.rows), Some(rows));
        }
    }
}
