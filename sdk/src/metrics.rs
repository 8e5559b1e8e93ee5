//! Measurements, which the broker exposes with its own for Prometheus.

use crate::host::{Host, TheHost};

/// Takes measurements; from [`Context::metrics`](crate::Context::metrics).
///
/// A name is of the form `[a-z][a-z0-9_]*`; the broker exposes it as `vespiary_plugin_NAME` with the label `plugin`.
/// Measurements are not part of the event's transaction: what a failed attempt measured stays measured.
///
/// ```
/// # use vespiary_sdk::prelude::*;
/// # fn handler(cx: &mut Context) {
/// cx.metrics().count("readings", 1);
/// cx.metrics().label("hall", "north").gauge("temperature_celsius", 21.5);
/// # }
/// ```
#[must_use = "nothing is measured before `count`, `gauge` or `observe`"]
pub struct Metrics<'context> {
    /// Where they go.
    host: &'context TheHost,
    /// Labels of the series.
    labels: Vec<(&'context str, &'context str)>,
}

impl<'context> Metrics<'context> {
    pub(crate) fn new(host: &'context TheHost) -> Self {
        Self { host, labels: Vec::new() }
    }

    /// Adds a label to the series.
    pub fn label(mut self, name: &'context str, value: &'context str) -> Self {
        self.labels.push((name, value));
        self
    }

    /// Adds to a counter.
    pub fn count(&self, name: &str, amount: u64) {
        self.host.count(name, &self.labels, amount);
    }

    /// Sets a gauge.
    pub fn gauge(&self, name: &str, value: f64) {
        self.host.gauge(name, &self.labels, value);
    }

    /// Adds an observation to a histogram.
    pub fn observe(&self, name: &str, value: f64) {
        self.host.observe(name, &self.labels, value);
    }
}
