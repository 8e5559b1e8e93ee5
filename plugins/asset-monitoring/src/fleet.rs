//! What holds for all assets together: the clock that their readings drive, and how many are in which state.
//!
//! The clock counts the time during which the service was listening. Each reading, of whichever asset, moves it on by the time
//! since the one before, but by no more than a step: when nothing at all came for longer than that, it was the service,
//! the broker or the network that was deaf, and no asset is to be blamed. So a restart of the broker makes nobody
//! silent.

use serde::{Deserialize, Serialize};

use crate::watch::State;

/// The fleet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fleet {
    /// Time listened so far, in milliseconds.
    pub clock_ms: u64,
    /// When the last reading was received; milliseconds since the Unix epoch. None before the first.
    pub last_received_ts: Option<u64>,
    /// When all assets are looked at again, by `clock_ms`.
    pub look_at_ms: u64,
    /// How many assets are in which state.
    pub counts: Counts,
}

/// How many assets are in which state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Heard of as expected.
    pub available: u64,
    /// Not heard of.
    pub silent: u64,
    /// Heard of, with silences in between.
    pub unstable: u64,
}

impl Fleet {
    /// Takes a reading that was received at `now`, and says whether it is time to look at all assets.
    pub fn hear(&mut self, now: u64, silent_after_ms: u64) -> bool {
        let since = self.last_received_ts.map_or(0, |last| now.saturating_sub(last));
        self.clock_ms += since.min(silent_after_ms / 2);
        self.last_received_ts = Some(now);
        if self.clock_ms < self.look_at_ms {
            return false;
        }
        self.look_at_ms = self.clock_ms + (silent_after_ms / 4).max(1);
        true
    }
}

impl Counts {
    /// An asset went from one state to another.
    pub fn change(&mut self, from: State, to: State) {
        if let Some(count) = self.of(from) {
            *count = count.saturating_sub(1);
        }
        if let Some(count) = self.of(to) {
            *count += 1;
        }
    }

    fn of(&mut self, state: State) -> Option<&mut u64> {
        match state {
            State::Unknown => None,
            State::Available => Some(&mut self.available),
            State::Silent => Some(&mut self.silent),
            State::Unstable => Some(&mut self.unstable),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_drive_the_clock_and_deafness_does_not() {
        let mut fleet = Fleet::default();
        let mut clock = |now| {
            fleet.hear(now, 5_000);
            fleet.clock_ms
        };
        assert_eq!([clock(10_000), clock(11_000), clock(13_000)], [0, 1_000, 3_000]);
        assert_eq!([clock(600_000), clock(601_000)], [5_500, 6_500]);
        // The broker's clock was set back.
        assert_eq!([clock(1_000), clock(2_000)], [6_500, 7_500]);
    }

    #[test]
    fn all_assets_are_looked_at_now_and_then() {
        let mut fleet = Fleet::default();
        let looks = (0..1_000).filter(|tick| fleet.hear(tick * 10, 5_000)).count();
        assert_eq!(looks, 8);
    }
}
