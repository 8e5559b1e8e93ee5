//! What an instance is made for: who it is, what it may do, and where what it says goes.
//!
//! Decided above, once for each instance; the host functions check it at each use.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use vespiary_core::event::PluginName;
use vespiary_core::message::Message;
use vespiary_core::topic::{Topic, TopicFilter};

use super::host_pattern::HostPattern;
use super::log::LogSink;

/// What an instance is made for.
#[derive(Clone)]
pub struct InstanceContext {
    /// The plugin; names the publisher of its messages.
    pub plugin: PluginName,
    /// Topics that it may publish to.
    pub publish_grants: Arc<[TopicFilter]>,
    /// Topics that it hears of, in the order of its manifest: captures come of the first that matches, and retained messages
    /// of these topics may be looked up.
    pub subscribe_grants: Arc<[TopicFilter]>,
    /// What `wasi:config/store` shows it.
    pub config: Arc<BTreeMap<String, String>>,
    /// The secrets that it is granted, by name; `None` for one that is not configured.
    pub secrets: Arc<BTreeMap<String, Option<Secret>>>,
    /// Bytes of keys and values that its state may hold, where it is not [`WasmLimits::state_bytes`](super::WasmLimits).
    pub state_bytes: Option<u64>,
    /// Hosts that it may send HTTP requests to. Where there are any, its calls may take `http_call_deadline_ms`.
    pub http_hosts: Arc<[HostPattern]>,
    /// Whether these hosts may have addresses that are not of the public internet.
    pub private_addresses: bool,
    /// Whether it may disconnect clients.
    pub disconnects: bool,
    /// Where its log goes.
    pub log: LogSink,
    /// Where its measurements go.
    pub measure: MetricSink,
    /// Looks a retained message up.
    pub retained: RetainedLookup,
}

/// Takes the measurements of an instance. Called on the thread that runs the call; must not block.
pub type MetricSink = Arc<dyn Fn(Measurement) + Send + Sync>;

/// Gives the retained message of a topic. Called on the thread that runs the call; must not block for long.
pub type RetainedLookup = Arc<dyn Fn(&Topic) -> Option<Arc<Message>> + Send + Sync>;

/// A measurement of a plugin.
#[derive(Debug, Clone, PartialEq)]
pub struct Measurement {
    /// The name: of the form `[a-z][a-z0-9_]*`, at most 64 bytes.
    pub name: String,
    /// Labels, sorted by name, each name once: of the same form, and not `plugin`.
    pub labels: Vec<(String, String)>,
    /// What was measured.
    pub value: MeasuredValue,
}

/// The value of a measurement. Floating-point values are finite.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MeasuredValue {
    /// Adds to a counter.
    Count(u64),
    /// Sets a gauge.
    Gauge(f64),
    /// Adds to a histogram.
    Observe(f64),
}

/// The value of a secret; never shown in logs.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<str>);

impl Secret {
    /// A secret with this value.
    pub fn new(value: impl Into<Arc<str>>) -> Self {
        Self(value.into())
    }

    /// The value, for those who may see it.
    pub fn reveal(&self) -> &Arc<str> {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl InstanceContext {
    /// A plugin that is granted nothing, and whose log and measurements nobody sees.
    pub fn without_grants(plugin: PluginName) -> Self {
        Self {
            plugin,
            publish_grants: Arc::new([]),
            subscribe_grants: Arc::new([]),
            config: Arc::default(),
            secrets: Arc::default(),
            state_bytes: None,
            http_hosts: Arc::new([]),
            private_addresses: false,
            disconnects: false,
            log: Arc::new(drop),
            measure: Arc::new(drop),
            retained: Arc::new(|_| None),
        }
    }
}

impl fmt::Debug for InstanceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InstanceContext").field("plugin", &self.plugin).finish_non_exhaustive()
    }
}
