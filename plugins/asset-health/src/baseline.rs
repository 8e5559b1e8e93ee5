//! What is normal for one asset: mean and variance of its vibration when it was new to the service or newly repaired.
//!
//! Learned by Welford's recurrence (1962; in the form of T. Finch, "Incremental calculation of weighted mean and variance",
//! 2009). No sum of squares is kept, so nothing cancels: the variance is never negative, however large the mean.
//!
//! After [`LEARNED_READINGS`] it stands, until a repair begins it anew. It does not follow the asset: a bearing fails over
//! thousands of readings, and a baseline that forgets would take each of them for normal in the end.

use serde::{Deserialize, Serialize};

/// Readings that are learned: enough for some cycles of load.
pub const LEARNED_READINGS: u64 = 1_000;

/// The least standard deviation as a part of the mean: a machine that ran very evenly while it was learned is not ill
/// when its load changes.
const LEAST_SPREAD: f64 = 0.10;

/// The least standard deviation in mm/s RMS: below this is the sensor's own noise.
const LEAST_SPREAD_MM_S: f64 = 0.05;

/// Running statistics of one asset's vibration.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// Readings learned.
    pub count: u64,
    /// Mean in mm/s RMS.
    pub mean: f64,
    /// Variance in (mm/s)^2.
    pub variance: f64,
}

impl Baseline {
    /// Learns a value, if there is anything left to learn.
    pub fn learn(&mut self, value: f64) {
        if self.count >= LEARNED_READINGS {
            return;
        }
        self.count += 1;
        let weight = 1.0 / self.count as f64;
        let distance = value - self.mean;
        let step = weight * distance;
        self.mean += step;
        self.variance = (1.0 - weight) * (self.variance + distance * step);
    }

    /// Standard deviation in mm/s RMS, not less than what is plausible.
    pub fn spread(&self) -> f64 {
        self.variance.sqrt().max(self.mean * LEAST_SPREAD).max(LEAST_SPREAD_MM_S)
    }

    /// How far `value` is from normal, in standard deviations.
    pub fn deviation(&self, value: f64) -> f64 {
        (value - self.mean) / self.spread()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn learned(values: impl IntoIterator<Item = f64>) -> Baseline {
        let mut baseline = Baseline::default();
        values.into_iter().for_each(|value| baseline.learn(value));
        baseline
    }

    #[test]
    fn a_large_mean_does_not_eat_the_variance() {
        // The textbook formula, mean of squares minus square of mean, gives a negative variance here.
        let baseline = learned([4.0, 7.0, 13.0, 16.0].map(|value| value + 1e9));
        assert!((baseline.mean - (1e9 + 10.0)).abs() < 1e-6);
        assert!((baseline.variance - 22.5).abs() < 1e-6, "{}", baseline.variance);
    }

    #[test]
    fn what_changes_slowly_does_not_become_normal() {
        let baseline =
            learned((0..1_000).map(|_| 1.0).chain((0..1_000_000).map(|index| 1.0 + f64::from(index) * 1e-5)));
        assert_eq!((baseline.count, baseline.mean), (LEARNED_READINGS, 1.0));
    }

    #[test]
    fn an_even_machine_has_a_plausible_spread() {
        assert_eq!(learned([2.0; 50]).spread(), 0.2);
        assert_eq!(learned([0.0; 50]).spread(), 0.05);
        assert_eq!(learned([2.0; 50]).deviation(3.0), 5.0);
    }

    proptest! {
        #[test]
        fn it_agrees_with_two_passes(values in proptest::collection::vec(0.0_f64..50.0, 1..400)) {
            let baseline = learned(values.iter().copied());
            let count = values.len() as f64;
            let mean = values.iter().sum::<f64>() / count;
            let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
            prop_assert!((baseline.mean - mean).abs() < 1e-9);
            prop_assert!((baseline.variance - variance).abs() < 1e-7);
        }
    }
}
