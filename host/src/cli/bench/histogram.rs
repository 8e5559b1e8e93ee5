//! Counts of durations in logarithmic buckets: constant memory, values off by at most 1/64.
//!
//! Buckets are exact below 64 ns; above, each power of two has 64 of them. Not thread-safe, and nothing but counts.

use std::time::Duration;

const STEPS: u64 = 64;

/// Durations in nanoseconds. See the [module](self).
pub(super) struct Histogram {
    /// How many fell into each bucket.
    buckets: Box<[u64]>,
    /// All of them.
    count: u64,
    /// Their sum, for the mean.
    sum_ns: u128,
    /// The largest, exactly.
    max_ns: u64,
}

impl Histogram {
    pub(super) fn new() -> Self {
        let buckets = vec![0; (bucket(u64::MAX) + 1) as usize].into_boxed_slice();
        Self { buckets, count: 0, sum_ns: 0, max_ns: 0 }
    }

    pub(super) fn record(&mut self, ns: u64) {
        self.buckets[bucket(ns) as usize] += 1;
        self.count += 1;
        self.sum_ns += u128::from(ns);
        self.max_ns = self.max_ns.max(ns);
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// The value that this share of all does not exceed; zero if there are none.
    pub(super) fn quantile(&self, share: f64) -> Duration {
        debug_assert!((0.0..=1.0).contains(&share));
        let rank = ((self.count as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Duration::from_nanos(upper_bound(index as u64).min(self.max_ns));
            }
        }
        self.max()
    }

    pub(super) fn max(&self) -> Duration {
        Duration::from_nanos(self.max_ns)
    }

    pub(super) fn mean(&self) -> Duration {
        let mean = self.sum_ns / u128::from(self.count.max(1));
        Duration::from_nanos(u64::try_from(mean).unwrap_or(u64::MAX))
    }
}

/// The bucket of a value.
fn bucket(ns: u64) -> u64 {
    match ns.checked_ilog2() {
        None | Some(0..=5) => ns,
        Some(exponent) => {
            let shift = u64::from(exponent) - 6;
            (shift + 1) * STEPS + ((ns >> shift) - STEPS)
        }
    }
}

/// The largest value of a bucket.
fn upper_bound(bucket: u64) -> u64 {
    if bucket < STEPS {
        return bucket;
    }
    let shift = bucket / STEPS - 1;
    ((bucket % STEPS + STEPS) << shift) | ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_each_other_and_hold_their_values() {
        let mut values: Vec<u64> =
            (0..10_000).chain((14..64).flat_map(|power| [(1 << power) - 1, 1 << power])).collect();
        values.push(u64::MAX);
        let mut last = 0;
        for value in values {
            let index = bucket(value);
            assert!(index == last || index == last + 1 || value > 10_000, "{value} skips a bucket");
            assert!(index >= last, "{value} goes back");
            let upper = upper_bound(index);
            assert!(upper >= value && upper - value <= value / 64, "{value} is off: {upper}");
            last = index;
        }
    }

    #[test]
    fn quantiles_are_those_of_the_values() {
        let mut histogram = Histogram::new();
        assert_eq!(histogram.quantile(0.99), Duration::ZERO);
        for value in 1..=100_000_u64 {
            histogram.record(value * 1000);
        }
        for (share, expected_ns) in [(0.5, 50_000_000.0), (0.99, 99_000_000.0), (0.999, 99_900_000.0), (1.0, 1e8)] {
            let found = histogram.quantile(share).as_nanos() as f64;
            assert!((found / expected_ns - 1.0).abs() < 1.0 / 64.0, "{share}: {found}");
        }
        assert_eq!(histogram.max(), Duration::from_millis(100));
        assert_eq!(histogram.mean(), Duration::from_nanos(50_000_500));
        assert_eq!(histogram.count(), 100_000);
    }
}
