//! Whether a commit waits a moment for what is about to come.
//!
//! An event that a plugin takes at once is handled within some tens of microseconds, and what that comes to is then handed
//! over. A commit that waits for it makes one frame of both: the event never enters its inbox on disk, and one fsync serves
//! its publisher and those who hear what the plugin says. Where what was expected does not come in time, waiting is given up
//! for a while, for longer each time.
//!
//! Pure: time is an argument.

use std::time::{Duration, Instant};

/// Longest wait, from when something was announced.
const LONGEST: Duration = Duration::from_micros(300);
/// Announcements in a row, at most, that are not waited for after one that was not kept: 2 to this power.
const MOST_PASSED_OVER: u32 = 10;

/// What a caller that hands a group over knows of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pace {
    /// This is what was announced.
    pub came: bool,
    /// More is about to come that belongs together with this: a plugin has got events that are in this group. If this is
    /// what was announced, too, then what is announced now comes only once this is durable.
    pub more_to_come: bool,
}

/// What is known of what is to come.
#[derive(Debug, Default)]
pub(super) struct Linger {
    /// Whether something was announced that may come at any time.
    announced: bool,
    /// Whether something was announced that comes only after the next commit.
    announced_after: bool,
    /// Until when what was announced is waited for; set when waiting begins.
    until: Option<Instant>,
    /// Announcements in a row that were not kept.
    broken: u32,
    /// Announcements that are still to be passed over.
    pass_over: u32,
}

impl Linger {
    /// Takes note of what a caller knows.
    pub(super) fn note(&mut self, pace: Pace) {
        if pace.came && std::mem::take(&mut self.announced) {
            self.until = None;
            self.broken = 0;
        }
        if !pace.more_to_come || self.announced || self.announced_after {
            return;
        }
        if self.pass_over > 0 {
            self.pass_over -= 1;
        } else if pace.came {
            self.announced_after = true;
        } else {
            self.announced = true;
        }
    }

    /// How long a commit that could begin now waits; `None` for not at all.
    pub(super) fn wait(&mut self, now: Instant) -> Option<Duration> {
        if !self.announced {
            return None;
        }
        let until = *self.until.get_or_insert(now + LONGEST);
        let left = until.saturating_duration_since(now);
        if left.is_zero() {
            self.announced = false;
            self.until = None;
            self.broken = (self.broken + 1).min(MOST_PASSED_OVER);
            self.pass_over = 1 << self.broken;
            return None;
        }
        Some(left)
    }

    /// A commit begins.
    pub(super) fn begin(&mut self) {
        self.announced |= std::mem::take(&mut self.announced_after);
        self.until = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Pace = Pace { came: false, more_to_come: false };
    const MORE: Pace = Pace { came: false, more_to_come: true };
    const CAME: Pace = Pace { came: true, more_to_come: false };
    const BOTH: Pace = Pace { came: true, more_to_come: true };

    #[test]
    fn what_is_announced_is_waited_for_until_it_comes() {
        let (mut linger, start) = (Linger::default(), Instant::now());
        linger.note(NOTHING);
        assert_eq!(linger.wait(start), None);
        linger.note(MORE);
        assert_eq!(linger.wait(start), Some(LONGEST));
        linger.note(MORE);
        assert_eq!(linger.wait(start + LONGEST / 2), Some(LONGEST / 2), "the first announcement counts");
        linger.note(CAME);
        assert_eq!(linger.wait(start + LONGEST / 2), None);
    }

    #[test]
    fn what_comes_after_a_commit_is_waited_for_after_it() {
        let (mut linger, start) = (Linger::default(), Instant::now());
        linger.note(MORE);
        linger.note(BOTH);
        assert_eq!(linger.wait(start), None, "what came goes at once");
        linger.begin();
        assert_eq!(linger.wait(start + LONGEST), Some(LONGEST), "however long the commit took");
        linger.note(CAME);
        linger.begin();
        assert_eq!(linger.wait(start), None);
    }

    #[test]
    fn announcements_that_are_not_kept_are_passed_over_for_longer_each_time() {
        let (mut linger, start) = (Linger::default(), Instant::now());
        let mut waits = Vec::new();
        for announcement in 0..40 {
            linger.note(MORE);
            if linger.wait(start).is_some() {
                waits.push(announcement);
                assert_eq!(linger.wait(start + LONGEST), None);
            }
            linger.begin();
        }
        assert_eq!(waits, [0, 3, 8, 17, 34]);
        for _ in 0..5_000 {
            linger.note(MORE);
            if linger.wait(start).is_some() {
                linger.note(CAME);
                break;
            }
        }
        linger.note(MORE);
        assert!(linger.wait(start).is_some(), "once one is kept, the next is waited for");
    }
}
