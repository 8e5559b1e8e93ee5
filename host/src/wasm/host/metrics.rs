//! `metrics`: measurements, checked and bounded, on their way to whoever counts them.

use std::time::Instant;

use super::HostState;
use crate::wasm::bindings::vespiary::plugin::metrics;
use crate::wasm::context::{MeasuredValue, Measurement};
use crate::wasm::error::bounded;
use crate::wasm::log::LogLevel;

/// Longest name of a series or of a label in bytes.
const NAME_BYTES: usize = 64;
/// Most labels of one series.
const LABELS: usize = 8;
/// Longest value of a label in bytes.
const LABEL_BYTES: usize = 128;
/// The label that the broker adds itself.
const RESERVED_LABEL: &str = "plugin";

impl HostState {
    fn measure(&mut self, name: String, labels: Vec<metrics::Label>, value: MeasuredValue) {
        self.measured = self.measured.saturating_add(1);
        let limit = self.limits.measurements_per_call;
        let refused = if self.measured > limit {
            // Said once a call; a flood of measurements is not to become one of log lines.
            (self.measured == limit + 1).then(|| format!("one call may make {limit} measurements"))
        } else {
            match measurement(name, labels, value) {
                Ok(measurement) => return (self.measure)(measurement),
                Err(reason) => Some(reason),
            }
        };
        if let Some(reason) = refused {
            self.log.host(Instant::now(), LogLevel::Warn, &format!("a measurement was dropped: {reason}"));
        }
    }
}

impl metrics::Host for HostState {
    fn count(&mut self, name: String, labels: Vec<metrics::Label>, amount: u64) {
        self.measure(name, labels, MeasuredValue::Count(amount));
    }

    fn gauge(&mut self, name: String, labels: Vec<metrics::Label>, value: f64) {
        self.measure(name, labels, MeasuredValue::Gauge(value));
    }

    fn observe(&mut self, name: String, labels: Vec<metrics::Label>, value: f64) {
        self.measure(name, labels, MeasuredValue::Observe(value));
    }
}

fn measurement(name: String, labels: Vec<metrics::Label>, value: MeasuredValue) -> Result<Measurement, String> {
    if !is_name(&name) {
        return Err(format!("the name {:?} is not of the form [a-z][a-z0-9_]*", bounded(&name, NAME_BYTES)));
    }
    if labels.len() > LABELS {
        return Err(format!("{name} has {} labels; {LABELS} are allowed", labels.len()));
    }
    let mut labels: Vec<_> = labels.into_iter().map(|label| (label.name, label.value)).collect();
    labels.sort();
    if labels.windows(2).any(|pair| pair[0].0 == pair[1].0) {
        return Err(format!("{name} names a label twice"));
    }
    if let Some((label, _)) = labels.iter().find(|(label, _)| !is_name(label) || label == RESERVED_LABEL) {
        return Err(format!("the label {:?} of {name} is not possible", bounded(label, NAME_BYTES)));
    }
    if let Some((label, value)) = labels.iter().find(|(_, value)| value.len() > LABEL_BYTES) {
        return Err(format!("the value of {label} of {name} has {} bytes; {LABEL_BYTES} are allowed", value.len()));
    }
    match value {
        MeasuredValue::Gauge(number) | MeasuredValue::Observe(number) if !number.is_finite() => {
            Err(format!("{name} is no finite number"))
        }
        MeasuredValue::Count(_) | MeasuredValue::Gauge(_) | MeasuredValue::Observe(_) => {
            Ok(Measurement { name, labels, value })
        }
    }
}

fn is_name(name: &str) -> bool {
    name.len() <= NAME_BYTES
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}
