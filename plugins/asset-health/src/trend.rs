//! Version 2: also sees readings that are each nearly normal and together are not.
//!
//! A one-sided CUSUM (E. S. Page, "Continuous inspection schemes", 1954) over the same deviations: it sums how far each
//! reading is above the allowance, never below zero. A bearing that slowly fails fills it long before a single reading is
//! far from normal. It is one more field in the state; version 1's state lacks it and starts at zero.

use serde::{Deserialize, Serialize};

use crate::health::{Detector, Settings};

/// What the sum lets pass at each reading, in standard deviations: half of the shift that it is meant to find, and above
/// what the crest of a load cycle is.
const ALLOWANCE_SIGMAS: f64 = 1.75;

/// The sum from which on a reading is suspicious.
const THRESHOLD_SIGMAS: f64 = 12.0;

/// The most that one reading can add: a knock against the sensor is no trend.
const STEP_SIGMAS: f64 = 3.0;

/// Judges each reading by itself and by the trend that it continues.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Trend {
    /// The cumulative sum, in standard deviations; 0 to twice the threshold, so that it can come down again.
    #[serde(default)]
    pub sum: f64,
}

impl Detector for Trend {
    const VERSION: &'static str = "2.0.0";
    const NAME: &'static str = "trend";

    fn suspects(&mut self, sigmas: f64, settings: &Settings) -> bool {
        let step = (sigmas - ALLOWANCE_SIGMAS).min(STEP_SIGMAS);
        self.sum = (self.sum + step).clamp(0.0, 2.0 * THRESHOLD_SIGMAS);
        self.sum >= THRESHOLD_SIGMAS || sigmas >= settings.suspicious_sigmas
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deviation::Deviation;

    /// The index of the first deviation that a detector suspects.
    fn first<D: Detector>(deviations: impl IntoIterator<Item = f64>) -> Option<usize> {
        let mut detector = D::default();
        deviations.into_iter().position(|sigmas| detector.suspects(sigmas, &Settings::default()))
    }

    #[test]
    fn a_lasting_shift_that_no_single_reading_shows_is_found_by_the_trend_only() {
        let shift = || (0..200).map(|index| 3.5 + if index % 2 == 0 { 0.5 } else { -0.5 });
        assert_eq!(first::<Deviation>(shift()), None);
        assert!(first::<Trend>(shift()).is_some_and(|index| index < 10));
    }

    #[test]
    fn a_load_cycle_is_no_trend() {
        let cycle = || (0..5_000).map(|index| 1.9 * (f64::from(index) * std::f64::consts::TAU / 60.0).sin());
        assert_eq!(first::<Trend>(cycle()), None);
    }

    #[test]
    fn a_single_outlier_is_no_trend() {
        let mut detector = Trend::default();
        for index in 0..1_000 {
            let sigmas = if index % 50 == 0 { 5.9 } else { 0.0 };
            assert!(!detector.suspects(sigmas, &Settings::default()));
        }
    }

    #[test]
    fn the_sum_comes_down_again() {
        let mut detector = Trend::default();
        (0..100_000).for_each(|_| assert!(detector.suspects(50.0, &Settings::default())));
        let readings = (0..100).position(|_| !detector.suspects(0.0, &Settings::default()));
        assert!(readings.is_some_and(|readings| readings < 10), "{readings:?}");
    }
}
