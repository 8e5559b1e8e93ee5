//! The watch over one asset: its latest reading, and whether it is there.
//!
//! An asset is silent when it has not been heard of for some of its own intervals between readings, and for a least time. It
//! is available again after a few readings: one is no return. Silent too often, it is unstable, which is told once
//! instead of each time it comes and goes, until it has been there, or away, for long. All times are those of the fleet's
//! clock, except where a field says otherwise.

use serde::{Deserialize, Serialize};

/// Intervals of its own that an asset may miss.
const MISSED_INTERVALS: f64 = 4.0;

/// How fast the learned interval follows.
const INTERVAL_WEIGHT: f64 = 0.1;

/// Readings after which a silent asset is available again.
const RETURN_READINGS: u32 = 3;

/// Silences within a window that make an asset unstable.
const UNSTABLE_SILENCES: usize = 3;

/// Length of that window, in times that an asset may be unheard of. An unstable asset that was there, or away, for as long
/// is no longer unstable.
const WINDOW_LIMITS: u64 = 20;

/// The state of an asset.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Never heard of.
    #[default]
    Unknown,
    /// Heard of as expected.
    Available,
    /// Not heard of.
    Silent,
    /// Comes and goes.
    Unstable,
}

/// What is kept per asset.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Watch {
    /// Its state.
    pub state: State,
    /// Since when; milliseconds since the Unix epoch, by the broker's clock.
    pub since_ts: u64,
    /// The reading that was measured last.
    pub latest: Option<Latest>,
    /// Readings received.
    pub readings: u64,
    /// Times that it fell silent.
    pub silences: u64,
    /// The least time after which it is silent, if its registration gives one; milliseconds.
    pub silent_after_ms: Option<u64>,
    /// Learned time between its readings, in milliseconds.
    interval_ms: f64,
    /// When it was last heard of.
    heard_ms: u64,
    /// Whether it has been unheard of for too long, at this moment: what the state is made from.
    quiet: bool,
    /// Readings since it was last quiet; counted only while it is silent.
    returned: u32,
    /// When it last fell quiet, the latest last; at most [`UNSTABLE_SILENCES`].
    fell_quiet_ms: Vec<u64>,
}

/// A reading as it was received.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Latest {
    /// The sensor's own count.
    pub seq: u64,
    /// When it was measured; milliseconds since the Unix epoch, by the sensor's clock.
    pub ts: u64,
    /// When it was received; milliseconds since the Unix epoch, by the broker's clock.
    pub received_ts: u64,
    /// Vibration velocity in mm/s RMS.
    pub mm_s: f64,
    /// Temperature in degrees Celsius.
    pub temperature_c: Option<f64>,
    /// Speed in revolutions a minute.
    pub rpm: Option<f64>,
}

impl Watch {
    /// Takes a reading at `clock_ms`, and says whether the state changed.
    pub fn hear(&mut self, latest: Latest, clock_ms: u64, least_ms: u64) -> bool {
        let before = self.state;
        // It may have been away for long without anybody looking.
        self.look(clock_ms, least_ms, latest.received_ts);
        let interval = clock_ms.saturating_sub(self.heard_ms) as f64;
        if self.readings == 1 {
            self.interval_ms = interval;
        } else if self.readings > 1 && !self.quiet {
            self.interval_ms += INTERVAL_WEIGHT * (interval - self.interval_ms);
        }
        let received_ts = latest.received_ts;
        self.readings += 1;
        self.heard_ms = clock_ms;
        self.quiet = false;
        // One that was held up on its way is news of the asset, and no news of its vibration.
        if self.latest.as_ref().is_none_or(|known| known.ts <= latest.ts) {
            self.latest = Some(latest);
        }
        match self.state {
            State::Unknown => self.enter(State::Available, received_ts),
            State::Available => {}
            State::Silent => {
                self.returned += 1;
                if self.returned >= RETURN_READINGS {
                    self.enter(State::Available, received_ts);
                }
            }
            State::Unstable => {
                let last_quiet_ms = self.fell_quiet_ms.last().copied().unwrap_or_default();
                if clock_ms.saturating_sub(last_quiet_ms) >= self.window_ms(least_ms) {
                    self.enter(State::Available, received_ts);
                }
            }
        }
        self.state != before
    }

    /// Looks whether it is still there at `clock_ms`, which is `now`, and says whether the state changed.
    pub fn look(&mut self, clock_ms: u64, least_ms: u64, now: u64) -> bool {
        let before = self.state;
        let unheard_ms = clock_ms.saturating_sub(self.heard_ms);
        if unheard_ms <= self.limit_ms(least_ms) || self.state == State::Unknown {
            return false;
        }
        if !self.quiet {
            self.quiet = true;
            self.returned = 0;
            self.fell_quiet_ms.push(clock_ms);
            if self.fell_quiet_ms.len() > UNSTABLE_SILENCES {
                self.fell_quiet_ms.remove(0);
            }
        }
        match self.state {
            State::Available => {
                self.silences += 1;
                let often = self.is_often_quiet(clock_ms, least_ms);
                self.enter(if often { State::Unstable } else { State::Silent }, now);
            }
            State::Unstable if unheard_ms > self.window_ms(least_ms) => self.enter(State::Silent, now),
            State::Unknown | State::Silent | State::Unstable => {}
        }
        self.state != before
    }

    /// How long it may be unheard of, in milliseconds.
    pub fn limit_ms(&self, least_ms: u64) -> u64 {
        self.silent_after_ms.unwrap_or(least_ms).max((MISSED_INTERVALS * self.interval_ms) as u64)
    }

    fn window_ms(&self, least_ms: u64) -> u64 {
        WINDOW_LIMITS * self.limit_ms(least_ms)
    }

    fn is_often_quiet(&self, clock_ms: u64, least_ms: u64) -> bool {
        let first_ms = self.fell_quiet_ms.first().copied().unwrap_or_default();
        self.fell_quiet_ms.len() == UNSTABLE_SILENCES && clock_ms.saturating_sub(first_ms) < self.window_ms(least_ms)
    }

    fn enter(&mut self, state: State, now: u64) {
        self.state = state;
        self.since_ts = now;
        self.returned = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST_MS: u64 = 5_000;

    fn hear(watch: &mut Watch, clock_ms: u64) -> bool {
        let latest = Latest { seq: 1, ts: clock_ms, received_ts: clock_ms, mm_s: 1.0, temperature_c: None, rpm: None };
        watch.hear(latest, clock_ms, LEAST_MS)
    }

    /// An asset that was heard of each second until `clock_ms`.
    fn known(clock_ms: u64) -> Watch {
        let mut watch = Watch::default();
        for clock_ms in (0..=clock_ms).step_by(1_000) {
            hear(&mut watch, clock_ms);
        }
        assert_eq!(watch.state, State::Available);
        watch
    }

    #[test]
    fn an_asset_is_silent_after_the_least_time_and_after_some_of_its_intervals() {
        let mut watch = known(20_000);
        assert!(!watch.look(25_000, LEAST_MS, 0));
        assert!(watch.look(25_001, LEAST_MS, 7));
        assert_eq!((watch.state, watch.since_ts, watch.silences), (State::Silent, 7, 1));
        let mut slow = Watch::default();
        for index in 0..10 {
            hear(&mut slow, index * 60_000);
        }
        assert!(!slow.look(9 * 60_000 + 239_000, LEAST_MS, 0), "{slow:?}");
        assert!(slow.look(9 * 60_000 + 241_000, LEAST_MS, 0), "{slow:?}");
    }

    #[test]
    fn one_reading_is_no_return() {
        let mut watch = known(20_000);
        watch.look(30_000, LEAST_MS, 0);
        let returned = [31_000, 32_000, 33_000].map(|clock_ms| hear(&mut watch, clock_ms));
        assert_eq!(returned, [false, false, true]);
        assert_eq!(watch.state, State::Available);
    }

    #[test]
    fn an_asset_that_comes_and_goes_is_told_of_once() {
        let mut watch = known(20_000);
        let mut changes = Vec::new();
        let mut clock_ms = 20_000;
        for _ in 0..10 {
            clock_ms += 6_000;
            watch.look(clock_ms, LEAST_MS, 0).then(|| changes.push(watch.state));
            for _ in 0..4 {
                clock_ms += 1_000;
                hear(&mut watch, clock_ms).then(|| changes.push(watch.state));
            }
        }
        use State::{Available, Silent, Unstable};
        assert_eq!(changes, [Silent, Available, Silent, Available, Unstable]);
        // There for long: stable again.
        for _ in 0..120 {
            clock_ms += 1_000;
            hear(&mut watch, clock_ms).then(|| changes.push(watch.state));
        }
        assert_eq!(changes.last(), Some(&Available));
        assert_eq!(changes.len(), 6);
    }

    #[test]
    fn an_unstable_asset_that_goes_for_good_is_silent() {
        let mut watch = known(20_000);
        let mut clock_ms = 20_000;
        while watch.state != State::Unstable {
            clock_ms += 6_000;
            watch.look(clock_ms, LEAST_MS, 0);
            for step in 0..3 {
                hear(&mut watch, clock_ms + step);
            }
        }
        assert!(!watch.look(clock_ms + 90_000, LEAST_MS, 0));
        assert!(watch.look(clock_ms + 110_000, LEAST_MS, 0));
        assert_eq!(watch.state, State::Silent);
    }

    #[test]
    fn the_latest_reading_is_the_one_measured_last() {
        let mut watch = known(20_000);
        let late = Latest { seq: 9, ts: 3, received_ts: 21_000, mm_s: 9.0, temperature_c: None, rpm: None };
        watch.hear(late, 21_000, LEAST_MS);
        assert_eq!(watch.latest.as_ref().map(|latest| latest.ts), Some(20_000));
        assert_eq!(watch.readings, 22);
    }
}
