//! Figures of several runs, and what one kind of run has more of than another.
//!
//! Medians over rounds, because one round that the machine disturbed should not decide; with the lowest and the highest, because a
//! difference within them is none.

use anyhow::Context as _;
use serde::Serialize;

use crate::cli::bench::report::{Results, round};

/// The names of [`Figures`], in a table.
pub(super) const HEAD: [&str; 4] = ["mean us", "p50 us", "p99 us", "CPU us a message"];

/// What is compared of a run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Figures<T> {
    mean_us: T,
    p50_us: T,
    p99_us: T,
    /// CPU time of the broker for each message.
    broker_us_per_message: T,
}

/// A figure over rounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Spread {
    median: f64,
    lowest: f64,
    highest: f64,
}

/// How far a median is above another.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Added {
    difference: f64,
    /// To the other; nothing where that is zero.
    ratio: Option<f64>,
}

impl Figures<f64> {
    /// Those of a run.
    pub(super) fn of(results: &Results) -> anyhow::Result<Self> {
        let latency = &results.latency;
        Ok(Self {
            mean_us: latency.mean_us,
            p50_us: latency.p50_us,
            p99_us: latency.p99_us,
            broker_us_per_message: results.broker_us_per_sent.context("nothing was sent while it was measured")?,
        })
    }

    /// Those of several runs, one at least.
    pub(super) fn over(runs: &[Self]) -> Figures<Spread> {
        let spread = |figure: fn(&Self) -> f64| Spread::of(runs.iter().map(figure).collect());
        Figures {
            mean_us: spread(|run| run.mean_us),
            p50_us: spread(|run| run.p50_us),
            p99_us: spread(|run| run.p99_us),
            broker_us_per_message: spread(|run| run.broker_us_per_message),
        }
    }
}

impl Figures<Spread> {
    /// How far these are above others.
    pub(super) fn less(&self, other: &Self) -> Figures<Added> {
        let added = |figure: fn(&Self) -> Spread| figure(self).less(figure(other));
        Figures {
            mean_us: added(|figures| figures.mean_us),
            p50_us: added(|figures| figures.p50_us),
            p99_us: added(|figures| figures.p99_us),
            broker_us_per_message: added(|figures| figures.broker_us_per_message),
        }
    }
}

impl<T> Figures<T> {
    /// Their text, below [`HEAD`].
    pub(super) fn cells(&self, describe: impl Fn(&T) -> String) -> [String; 4] {
        [&self.mean_us, &self.p50_us, &self.p99_us, &self.broker_us_per_message].map(describe)
    }
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Self {
        assert!(!values.is_empty(), "there is a round at least");
        values.sort_by(f64::total_cmp);
        let (low, high) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
        Self { median: round((low + high) / 2.0), lowest: values[0], highest: values[values.len() - 1] }
    }

    fn less(self, other: Self) -> Added {
        Added {
            difference: round(self.median - other.median),
            ratio: (other.median > 0.0).then(|| round(self.median / other.median)),
        }
    }

    pub(super) fn describe(&self) -> String {
        let [median, lowest, highest] = [self.median, self.lowest, self.highest].map(|figure| short(figure, false));
        format!("{median} ({lowest} to {highest})")
    }
}

impl Added {
    pub(super) fn describe(&self) -> String {
        let ratio = self.ratio.map_or(String::new(), |ratio| format!(" (x {ratio:.2})"));
        short(self.difference, true) + &ratio
    }
}

/// With a decimal where it says something.
fn short(figure: f64, signed: bool) -> String {
    let decimals = usize::from(figure.abs() < 100.0);
    if signed { format!("{figure:+.decimals$}") } else { format!("{figure:.decimals$}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(value: f64) -> Figures<f64> {
        Figures { mean_us: value, p50_us: value + 1.0, p99_us: value + 2.0, broker_us_per_message: 0.0 }
    }

    #[test]
    fn a_median_is_that_of_the_rounds_in_whatever_order_they_came() {
        for (values, median, lowest, highest) in
            [(&[3.0][..], 3.0, 3.0, 3.0), (&[9.0, 1.0, 2.0], 2.0, 1.0, 9.0), (&[4.0, 1.0, 2.0, 9.0], 3.0, 1.0, 9.0)]
        {
            assert_eq!(Spread::of(values.to_vec()), Spread { median, lowest, highest }, "{values:?}");
        }
    }

    #[test]
    fn what_is_added_is_told_of_each_figure_by_itself() {
        let plain = Figures::over(&[figures(9.0), figures(10.0), figures(90.0)]);
        let hooked = Figures::over(&[figures(15.0), figures(14.0), figures(1.0)]);
        let added = hooked.less(&plain);
        let of = |difference, ratio| Added { difference, ratio };
        assert_eq!(added.mean_us, of(4.0, Some(1.4)));
        assert_eq!(added.p99_us, of(4.0, Some(1.333)));
        assert_eq!(added.broker_us_per_message, of(0.0, None));
        assert_eq!(added.cells(Added::describe), ["+4.0 (x 1.40)", "+4.0 (x 1.36)", "+4.0 (x 1.33)", "+0.0"]);
        assert_eq!(plain.less(&hooked).p50_us.describe(), "-4.0 (x 0.73)");
        assert_eq!(plain.p50_us.describe(), "11.0 (10.0 to 91.0)");
        assert_eq!(Spread::of(vec![99.94, 1234.5, 100.0]).describe(), "100 (99.9 to 1234)");
    }
}
