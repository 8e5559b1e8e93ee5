//! Measurements of plugins, kept for Prometheus: counters, gauges and histograms that guests name themselves.
//!
//! A series is a name with the values of its labels. Each plugin has a bound on its series, and a name is of one kind over all
//! plugins, for that is how it is exposed: what is beyond the bound or of another kind is dropped and counted. A plugin's series
//! go with the plugin. Measuring takes the plugin's own lock; the names' lock is taken under it, for a new name only.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use vespiary_core::event::PluginName;

use super::Plugins;
use super::counts::Counts;
use super::hooks::HookCounts;
use super::plugin::Plugin;

/// What the name of each series begins with.
const PREFIX: &str = "vespiary_plugin_";
/// Help of a plugin's metrics: the contract has no place for better.
const HELP: &str = "Measured by a plugin.";
/// Upper bounds of a histogram's buckets: whatever the unit, some fit.
const BUCKETS: [f64; 24] = [
    0.000_1, 0.000_25, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0,
    100.0, 250.0, 500.0, 1_000.0, 2_500.0, 5_000.0, 10_000.0,
];

/// The measurements of all plugins.
pub struct Metrics {
    /// Series of one plugin, at most.
    most_series: usize,
    /// Which names there are; never held while a plugin's lock is waited for.
    names: Mutex<Names>,
    plugins: Mutex<BTreeMap<PluginName, Arc<Mutex<Series>>>>,
}

/// Where one plugin's measurements go; a cheap handle.
#[derive(Clone)]
pub struct PluginMetrics {
    plugin: PluginName,
    series: Arc<Mutex<Series>>,
    all: Arc<Metrics>,
}

/// A measured value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Measured {
    /// Adds to a counter.
    Count(u64),
    /// Sets a gauge.
    Gauge(f64),
    /// Adds to a histogram.
    Observe(f64),
}

/// Measurements of one plugin that were dropped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Beyond the bound on series.
    pub over_limit: u64,
    /// Of a name that is taken by another kind.
    pub conflicting: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

#[derive(Default)]
struct Names {
    families: BTreeMap<String, Family>,
    /// Every name that is exposed, with the family that it belongs to: `x` of a counter is exposed as `x_total`.
    exposed: BTreeMap<String, String>,
}

struct Family {
    kind: Kind,
    users: BTreeSet<PluginName>,
}

/// The series of one plugin.
#[derive(Default)]
struct Series {
    families: BTreeMap<String, (Kind, BTreeMap<Labels, Value>)>,
    /// How many series there are in all families.
    count: usize,
    dropped: Dropped,
    /// The plugin was removed; an instance that still ends measures nothing any more.
    closed: bool,
}

/// Names and values, the plugin's own name first; values are escaped as the text form wants them.
type Labels = Vec<(String, String)>;

#[derive(Debug)]
enum Value {
    Counter(u64),
    Gauge(f64),
    Histogram(Histogram),
}

impl Metrics {
    /// None yet; `most_series` bounds each plugin's.
    pub fn new(most_series: usize) -> Arc<Self> {
        Arc::new(Self { most_series, names: Mutex::default(), plugins: Mutex::default() })
    }

    /// Where a plugin's measurements go, from its first instance to its removal.
    pub fn of(self: &Arc<Self>, plugin: &PluginName) -> PluginMetrics {
        let series = Arc::clone(lock(&self.plugins).entry(plugin.clone()).or_default());
        PluginMetrics { plugin: plugin.clone(), series, all: Arc::clone(self) }
    }

    /// Forgets a plugin that is removed.
    pub fn remove(&self, plugin: &PluginName) {
        let Some(series) = lock(&self.plugins).remove(plugin) else { return };
        let mut series = lock(&series);
        series.closed = true;
        series.families.clear();
        lock(&self.names).release(plugin);
    }

    /// What was dropped, by plugin.
    pub fn dropped(&self) -> Vec<(PluginName, Dropped)> {
        let plugins = lock(&self.plugins).clone();
        plugins.into_iter().map(|(plugin, series)| (plugin, lock(&series).dropped)).collect()
    }
}

impl Plugins {
    /// What plugins measured.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// What happened to the hooks of each plugin that has some.
    pub fn hook_counts(&self) -> Vec<(PluginName, HookCounts)> {
        self.hooks.counts()
    }

    /// What the broker itself counts of each plugin, with its status.
    pub fn counted(&self) -> Vec<(PluginName, &'static str, Counts)> {
        let plugins: Vec<_> = self.plugins().values().cloned().collect();
        let counted = |plugin: &Plugin| plugin.run(|run| (plugin.name.clone(), run.status().0, run.counts.clone()));
        plugins.iter().map(|plugin| counted(plugin)).collect()
    }
}

impl PluginMetrics {
    /// Takes a measurement. The name is of the form `[a-z][a-z0-9_]*`, and so are the labels' names, none of which is
    /// `plugin` or there twice.
    pub fn measure(&self, name: &str, labels: &[(String, String)], measured: Measured) {
        let kind = measured.kind();
        let mut series = lock(&self.series);
        if series.closed {
            return;
        }
        let known = match series.families.get_mut(name) {
            Some((known, _)) if *known != kind => {
                series.dropped.conflicting += 1;
                return;
            }
            Some((_, family)) => {
                let labels = self.labels(labels);
                if let Some(value) = family.get_mut(&labels) {
                    return value.add(measured);
                }
                labels
            }
            None => self.labels(labels),
        };
        if series.count >= self.all.most_series {
            series.dropped.over_limit += 1;
            return;
        }
        if !lock(&self.all.names).claim(name, kind, &self.plugin) {
            series.dropped.conflicting += 1;
            return;
        }
        let mut value = Value::new(kind);
        value.add(measured);
        series.families.entry(name.to_owned()).or_insert_with(|| (kind, BTreeMap::new())).1.insert(known, value);
        series.count += 1;
    }

    fn labels(&self, labels: &[(String, String)]) -> Labels {
        let own = ("plugin".to_owned(), self.plugin.0.to_string());
        std::iter::once(own).chain(labels.iter().map(|(name, value)| (name.clone(), escaped(value)))).collect()
    }
}

impl Names {
    /// Whether a plugin may use a name for a kind; it then holds it until it is released.
    fn claim(&mut self, name: &str, kind: Kind, plugin: &PluginName) -> bool {
        if let Some(family) = self.families.get_mut(name) {
            if family.kind == kind {
                family.users.insert(plugin.clone());
            }
            return family.kind == kind;
        }
        let exposed = kind.exposed(name);
        if exposed.iter().any(|exposed| self.exposed.contains_key(exposed)) {
            return false;
        }
        self.exposed.extend(exposed.into_iter().map(|exposed| (exposed, name.to_owned())));
        self.families.insert(name.to_owned(), Family { kind, users: BTreeSet::from([plugin.clone()]) });
        true
    }

    fn release(&mut self, plugin: &PluginName) {
        self.families.retain(|_, family| {
            family.users.remove(plugin);
            !family.users.is_empty()
        });
        let families = &self.families;
        self.exposed.retain(|_, family| families.contains_key(family));
    }
}

impl Measured {
    fn kind(self) -> Kind {
        match self {
            Self::Count(_) => Kind::Counter,
            Self::Gauge(_) => Kind::Gauge,
            Self::Observe(_) => Kind::Histogram,
        }
    }
}

impl Kind {
    /// The names under which a family of this kind appears.
    fn exposed(self, name: &str) -> Vec<String> {
        let suffixes: &[&str] = match self {
            Self::Counter => &["", "_total"],
            Self::Gauge => &[""],
            Self::Histogram => &["", "_bucket", "_sum", "_count"],
        };
        suffixes.iter().map(|suffix| format!("{name}{suffix}")).collect()
    }

    fn metric_type(self) -> MetricType {
        match self {
            Self::Counter => MetricType::Counter,
            Self::Gauge => MetricType::Gauge,
            Self::Histogram => MetricType::Histogram,
        }
    }
}

impl Value {
    fn new(kind: Kind) -> Self {
        match kind {
            Kind::Counter => Self::Counter(0),
            Kind::Gauge => Self::Gauge(0.0),
            Kind::Histogram => Self::Histogram(Histogram::new(BUCKETS)),
        }
    }

    /// Takes a measurement of its own kind.
    fn add(&mut self, measured: Measured) {
        match (self, measured) {
            (Self::Counter(sum), Measured::Count(amount)) => *sum = sum.saturating_add(amount),
            (Self::Gauge(value), Measured::Gauge(new)) => *value = new,
            (Self::Histogram(histogram), Measured::Observe(value)) => histogram.observe(value),
            (value, measured) => debug_assert!(false, "{value:?} takes no {measured:?}"),
        }
    }

    fn encode(&self, encoder: MetricEncoder<'_>) -> fmt::Result {
        match self {
            Self::Counter(sum) => ConstCounter::new(*sum).encode(encoder),
            Self::Gauge(value) => ConstGauge::new(*value).encode(encoder),
            Self::Histogram(histogram) => histogram.encode(encoder),
        }
    }
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let families: Vec<(String, Kind, Vec<PluginName>)> = (lock(&self.names).families.iter())
            .map(|(name, family)| (name.clone(), family.kind, family.users.iter().cloned().collect()))
            .collect();
        let plugins = lock(&self.plugins).clone();
        for (name, kind, users) in families {
            let exposed = format!("{PREFIX}{name}");
            let mut metric = encoder.encode_descriptor(&exposed, HELP, None, kind.metric_type())?;
            for series in users.iter().filter_map(|user| plugins.get(user)) {
                let series = lock(series);
                for (labels, value) in series.families.get(&name).into_iter().flat_map(|(_, family)| family) {
                    value.encode(metric.encode_family(labels)?)?;
                }
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").field("most_series", &self.most_series).finish_non_exhaustive()
    }
}

impl fmt::Debug for PluginMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PluginMetrics").field("plugin", &self.plugin).finish_non_exhaustive()
    }
}

/// A label's value as the text form wants it: the library writes values as they are.
pub fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::registry::Registry;

    fn exposed(metrics: &Arc<Metrics>) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Arc::clone(metrics)));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    }

    fn labels(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    fn plugin(name: &str) -> PluginName {
        PluginName(name.into())
    }

    #[test]
    fn measurements_are_exposed_with_their_plugin() {
        let metrics = Metrics::new(10);
        let (a, b) = (metrics.of(&plugin("a")), metrics.of(&plugin("b")));
        a.measure("readings", &labels(&[("asset", "pump-1")]), Measured::Count(2));
        a.measure("readings", &labels(&[("asset", "pump-1")]), Measured::Count(3));
        b.measure("readings", &[], Measured::Count(1));
        a.measure("level", &[], Measured::Gauge(1.5));
        a.measure("level", &[], Measured::Gauge(-2.0));
        b.measure("wait_s", &[], Measured::Observe(0.3));
        let text = exposed(&metrics);
        for line in [
            "# TYPE vespiary_plugin_readings counter",
            "vespiary_plugin_readings_total{plugin=\"a\",asset=\"pump-1\"} 5",
            "vespiary_plugin_readings_total{plugin=\"b\"} 1",
            "vespiary_plugin_level{plugin=\"a\"} -2.0",
            "vespiary_plugin_wait_s_bucket{le=\"0.25\",plugin=\"b\"} 0",
            "vespiary_plugin_wait_s_bucket{le=\"0.5\",plugin=\"b\"} 1",
            "vespiary_plugin_wait_s_count{plugin=\"b\"} 1",
        ] {
            assert!(text.lines().any(|seen| seen == line), "{line}\n{text}");
        }
        assert_eq!(text.matches("# TYPE vespiary_plugin_readings ").count(), 1);
    }

    #[test]
    fn what_a_label_holds_cannot_break_out_of_its_line() {
        let metrics = Metrics::new(10);
        metrics.of(&plugin("a")).measure("x", &labels(&[("l", "a\\b\"c\nvespiary_up 1")]), Measured::Count(1));
        let text = exposed(&metrics);
        assert!(text.contains(r#"{plugin="a",l="a\\b\"c\nvespiary_up 1"} 1"#), "{text}");
        assert!(!text.lines().any(|line| line.starts_with("vespiary_up")));
    }

    #[test]
    fn series_beyond_the_bound_are_dropped_and_counted() {
        let metrics = Metrics::new(3);
        let handle = metrics.of(&plugin("a"));
        for index in 0..5 {
            handle.measure("x", &labels(&[("l", &index.to_string())]), Measured::Count(1));
        }
        // A series that is there goes on.
        handle.measure("x", &labels(&[("l", "0")]), Measured::Count(1));
        metrics.of(&plugin("b")).measure("x", &[], Measured::Count(1));
        assert_eq!(exposed(&metrics).matches("vespiary_plugin_x_total{").count(), 4);
        let dropped = Dropped { over_limit: 2, conflicting: 0 };
        assert_eq!(metrics.dropped(), [(plugin("a"), dropped), (plugin("b"), Dropped::default())]);
    }

    #[test]
    fn a_name_is_of_one_kind_until_all_who_use_it_are_gone() {
        let metrics = Metrics::new(10);
        let (a, b) = (metrics.of(&plugin("a")), metrics.of(&plugin("b")));
        a.measure("x", &[], Measured::Count(1));
        a.measure("x", &[], Measured::Gauge(1.0));
        b.measure("x", &[], Measured::Observe(1.0));
        // A counter x is exposed as x_total.
        b.measure("x_total", &[], Measured::Gauge(1.0));
        assert_eq!(metrics.dropped()[0].1.conflicting, 1);
        assert_eq!(metrics.dropped()[1].1.conflicting, 2);
        metrics.remove(&plugin("a"));
        assert!(!exposed(&metrics).contains("vespiary_plugin_x"));
        b.measure("x", &[], Measured::Observe(1.0));
        assert!(exposed(&metrics).contains("vespiary_plugin_x_count{plugin=\"b\"} 1"));
        // What still runs of the removed plugin measures into nothing.
        a.measure("y", &[], Measured::Count(1));
        assert!(!exposed(&metrics).contains("vespiary_plugin_y"));
    }
}
