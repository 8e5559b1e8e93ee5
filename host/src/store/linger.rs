//! Whether a commit waits a moment for what is about to come.
//!
//! An event that a plugin takes at once is handled within some tens of microseconds, and what that comes to is then handed over. A
//! commit that waits for it makes one transaction of both: the event never enters its inbox on disk, and one fsync serves
//! its publisher and those who hear what the plugin says. Where what was expected does not come in time, waiting is given up
//! for a while, for longer each time.
//!
//! Pure: time is an argument.

use std::time::{Duration, Instant};

/// Longest wait, from when something was announced.
const LONGEST: Duration = Duration::from_micros(300);
/// Announcements in a row, at most, that are not waited for after one that was not kept: 2 to this power.
const MOST_PASSED_OVER: u32 = 10;

/// What a caller that hands a group over knows of the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Nothing.
    Unknown,
    /// More is about to come that belongs together with this: a plugin has got events that are in this group.
    MoreToCome,
    /// This is what was to come.
    Came,
}

/// What is known of what is to come.
#[derive(Debug, Default)]
pub(super) struct Linger {
    /// Until when what was announced is waited for.
    until: Option<Instant>,
    /// Announcements in a row that were not kept.
    broken: u32,
    /// Announcements that are still to be passed over.
    pass_over: u32,
}

impl Linger {
    /// More is about to come.
    pub(super) fn announce(&mut self, now: Instant) {
        if self.until.is_some() {
            return;
        }
        if self.pass_over > 0 {
            self.pass_over -= 1;
            return;
        }
        self.until = Some(now + LONGEST);
    }

    /// What was announced has come.
    pub(super) fn came(&mut self) {
        if self.until.take().is_some() {
            self.broken = 0;
        }
    }

    /// How long to wait; `None` where nothing is worth it.
    pub(super) fn wait(&mut self, now: Instant) -> Option<Duration> {
        let left = self.until?.saturating_duration_since(now);
        if left.is_zero() {
            // The last commit took as long as that: nobody waited in vain.
            self.until = None;
            return None;
        }
        Some(left)
    }

    /// It was waited for in vain.
    pub(super) fn in_vain(&mut self) {
        if self.until.take().is_some() {
            self.broken = (self.broken + 1).min(MOST_PASSED_OVER);
            self.pass_over = 1 << self.broken;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_announced_is_waited_for_until_it_comes() {
        let (mut linger, start) = (Linger::default(), Instant::now());
        assert_eq!(linger.wait(start), None);
        linger.announce(start);
        linger.announce(start + LONGEST / 2);
        assert_eq!(linger.wait(start + LONGEST / 2), Some(LONGEST / 2), "the first announcement counts");
        linger.came();
        assert_eq!(linger.wait(start + LONGEST / 2), None);
        linger.announce(start);
        assert_eq!(linger.wait(start + LONGEST), None, "it is too late");
        assert_eq!(linger.pass_over, 0, "and nobody waited in vain");
    }

    #[test]
    fn announcements_that_are_not_kept_are_passed_over_for_longer_each_time() {
        let (mut linger, start) = (Linger::default(), Instant::now());
        let mut waits = Vec::new();
        for announcement in 0..40 {
            linger.announce(start);
            if linger.wait(start).is_some() {
                waits.push(announcement);
                linger.in_vain();
            }
        }
        assert_eq!(waits, [0, 3, 8, 17, 34]);
        for _ in 0..5_000 {
            linger.announce(start);
            if linger.wait(start).is_some() {
                linger.came();
                break;
            }
        }
        linger.announce(start);
        assert!(linger.wait(start).is_some(), "once one is kept, the next is waited for");
    }
}
