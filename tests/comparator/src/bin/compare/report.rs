//! Results: medians and their ratios to Vespiary as a table, and everything as JSON.

use std::fmt::{self, Write as _};

use serde_json::{Value, json};

use crate::args::{Args, Scenario};
use crate::subject::Subject;

/// One measurement.
pub(crate) struct Run {
    pub(crate) scenario: Scenario,
    pub(crate) subject: Subject,
    /// The generator's JSON, or what went wrong.
    pub(crate) outcome: anyhow::Result<Value>,
}

/// All measurements.
pub(crate) struct Report {
    assets: u32,
    random: bool,
    seconds: f64,
    runs: Vec<Run>,
}

impl Run {
    /// A number of the generator's, by its path in the JSON.
    fn number(&self, path: &str) -> Option<f64> {
        self.outcome.as_ref().ok()?.pointer(path)?.as_f64()
    }

    fn events_per_s(&self) -> Option<f64> {
        self.number("/sent_per_s")
    }

    /// Of all processes but the generator.
    fn us_per_event(&self) -> Option<f64> {
        Some(self.number("/broker_us_per_sent")? + self.number("/service_us_per_sent").unwrap_or(0.0))
    }

    fn mebibytes(&self) -> Option<f64> {
        let service = self.number("/service_resident_peak_bytes").unwrap_or(0.0);
        Some((self.number("/broker_resident_peak_bytes")? + service) / 1024.0 / 1024.0)
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Err(error) = &self.outcome {
            return write!(f, "FAILED: {error:#}");
        }
        let or_nan = |number: Option<f64>| number.unwrap_or(f64::NAN);
        write!(
            f,
            "{:.0} events/s, {:.1} us an event, alert p50 {:.0} us; {} of {} readings kept, {} of {} alerts came",
            or_nan(self.events_per_s()),
            or_nan(self.us_per_event()),
            or_nan(self.number("/handling/p50_us")),
            or_nan(self.number("/inspection/kept")),
            or_nan(self.number("/sent")),
            or_nan(self.number("/received")),
            or_nan(self.number("/expected")),
        )
    }
}

impl Report {
    pub(crate) fn new(args: &Args) -> Self {
        Self { assets: args.assets, random: args.random, seconds: args.seconds, runs: Vec::new() }
    }

    pub(crate) fn add(&mut self, run: Run) {
        self.runs.push(run);
    }

    pub(crate) fn has_failures(&self) -> bool {
        self.runs.iter().any(|run| run.outcome.is_err())
    }

    /// Medians of one scenario, a line a subject.
    pub(crate) fn table(&self, scenario: Scenario, subjects: &[Subject]) -> String {
        let order = if self.random { "at random" } else { "in turn" };
        let mut table = format!("\n{scenario}, {} assets {order}, {} s a run\n\n", self.assets, self.seconds);
        table.push_str(
            "| subject | runs | events/s | [min-max] | ratio | CPU us/event (broker + service) | ratio | reading to alert p50 | \
             p99 | MiB |\n|---|---|---|---|---|---|---|---|---|---|\n",
        );
        let base = |figure: fn(&Run) -> Option<f64>| self.median(scenario, Subject::Vespiary, figure);
        for subject in subjects {
            let median = |figure: fn(&Run) -> Option<f64>| self.median(scenario, *subject, figure);
            let ratio = |figure: fn(&Run) -> Option<f64>| Some(median(figure)? / base(figure)?);
            let all: Vec<&Run> = self.of(scenario, *subject).collect();
            let good = all.iter().filter(|run| run.outcome.is_ok()).count();
            let rates: Vec<f64> = all.iter().filter_map(|run| run.events_per_s()).collect();
            let lowest = rates.iter().copied().reduce(f64::min);
            let highest = rates.iter().copied().reduce(f64::max);
            let broker = shown(median(|run| run.number("/broker_us_per_sent")), 1);
            let service = shown(median(|run| run.number("/service_us_per_sent")), 1);
            // Writing into memory does not fail.
            let _ = writeln!(
                table,
                "| {} | {good} of {} | {} | [{}-{}] | {} | {} ({broker} + {service}) | {} | {} us | {} us | {} |",
                subject.made_of(),
                all.len(),
                shown(median(Run::events_per_s), 0),
                shown(lowest, 0),
                shown(highest, 0),
                shown(ratio(Run::events_per_s), 2),
                shown(median(Run::us_per_event), 1),
                shown(ratio(Run::us_per_event), 2),
                shown(median(|run| run.number("/handling/p50_us")), 0),
                shown(median(|run| run.number("/handling/p99_us")), 0),
                shown(median(Run::mebibytes), 0),
            );
        }
        table
    }

    /// Everything, with the median of what tables show left to the reader.
    pub(crate) fn to_json(&self) -> serde_json::Result<String> {
        let runs: Vec<Value> = self
            .runs
            .iter()
            .map(|run| {
                let (result, error) = match &run.outcome {
                    Ok(result) => (Some(result), None),
                    Err(error) => (None, Some(format!("{error:#}"))),
                };
                let scenario = run.scenario.to_string();
                json!({ "scenario": scenario, "subject": run.subject.name(), "result": result, "error": error })
            })
            .collect();
        serde_json::to_string_pretty(&json!({
            "assets": self.assets, "random": self.random, "seconds": self.seconds, "runs": runs,
        }))
    }

    fn of(&self, scenario: Scenario, subject: Subject) -> impl Iterator<Item = &Run> {
        self.runs.iter().filter(move |run| run.scenario == scenario && run.subject == subject)
    }

    fn median(&self, scenario: Scenario, subject: Subject, figure: fn(&Run) -> Option<f64>) -> Option<f64> {
        median(self.of(scenario, subject).filter_map(figure).collect())
    }
}

/// What each subject promises.
pub(crate) fn promises(subjects: &[Subject]) -> String {
    let lines = subjects.iter().map(|subject| format!("{}: {}", subject.name(), subject.promises()));
    format!("What an event survives:\n  {}", lines.collect::<Vec<_>>().join("\n  "))
}

fn shown(number: Option<f64>, decimals: usize) -> String {
    number.map_or_else(|| "-".to_owned(), |number| format!("{number:.decimals$}"))
}

fn median(mut numbers: Vec<f64>) -> Option<f64> {
    numbers.sort_by(f64::total_cmp);
    let middle = numbers.len() / 2;
    match numbers.len() {
        0 => None,
        length if length % 2 == 1 => Some(numbers[middle]),
        _ => Some((numbers[middle - 1] + numbers[middle]) / 2.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(subject: Subject, result: Option<Value>) -> Run {
        let outcome = result.ok_or_else(|| anyhow::anyhow!("it broke"));
        Run { scenario: Scenario::Saturated, subject, outcome }
    }

    #[test]
    fn medians_are_in_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(Vec::new()), None);
    }

    #[test]
    fn a_table_has_ratios_to_the_first_and_tells_failures() {
        let ours = json!({ "sent_per_s": 100_000.0, "broker_us_per_sent": 5.0, "handling": { "p50_us": 400.0 } });
        let theirs = json!({ "sent_per_s": 25_000.0, "broker_us_per_sent": 24.0, "service_us_per_sent": 16.0 });
        let runs = vec![
            run(Subject::Vespiary, Some(ours)),
            run(Subject::Mosquitto, Some(theirs)),
            run(Subject::Mosquitto, None),
        ];
        let report = Report { assets: 1000, random: false, seconds: 4.0, runs };
        let table = report.table(Scenario::Saturated, &[Subject::Vespiary, Subject::Mosquitto]);
        assert!(
            table.contains("| 1 of 1 | 100000 | [100000-100000] | 1.00 | 5.0 (5.0 + -) | 1.00 | 400 us |"),
            "{table}"
        );
        assert!(
            table.contains("| 1 of 2 | 25000 | [25000-25000] | 0.25 | 40.0 (24.0 + 16.0) | 8.00 | - us |"),
            "{table}"
        );
        assert!(report.has_failures());
        assert!(report.to_json().unwrap().contains("it broke"));
    }
}
