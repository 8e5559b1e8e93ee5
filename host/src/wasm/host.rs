//! The functions that guests import, and what they work on. One [`HostState`] lives in the store of each instance.
//!
//! Each interface has a file of its own in `host/`. What acts on the broker (`state`, `broker`, `timers`) works within a
//! [`Batch`] only: what `init` or `health` would write belongs to no event and to no transaction.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vespiary_core::event::PluginName;
use vespiary_core::topic::TopicFilter;
use wasmtime::ResourceLimiter;
use wasmtime::component::{HasSelf, Linker, ResourceTable};
use wasmtime_wasi::WasiCtx;

use super::batch::Batch;
use super::bindings::Everything;
use super::bindings::vespiary::plugin::{transaction, types};
use super::bindings::wasi::config::store as config;
use super::bindings::wasi::logging::logging;
use super::context::{InstanceContext, MetricSink, RetainedLookup, Secret};
use super::deadline::{CallTime, Stop};
use super::http::{Http, Tls};
use super::limits::WasmLimits;
use super::log::{GuestLog, LogLevel};
use super::{http, wasi};

mod broker;
mod metrics;
pub(super) mod secrets;
mod state;
mod timers;

/// What an instance's host functions work on.
pub(super) struct HostState {
    /// The virtual WASI.
    pub(super) wasi: WasiCtx,
    /// HTTP, both ways.
    pub(super) http: Http,
    /// The guest's handles.
    pub(super) table: ResourceTable,
    /// When the current call is over.
    pub(super) time: CallTime,
    /// What the instance may use of the machine.
    pub(super) memory: MemoryLimiter,
    /// What the guest logs and prints.
    pub(super) log: GuestLog,
    /// What the current call has done so far; `None` where it may not use the broker at all.
    pub(super) batch: Option<Batch>,
    /// The plugin.
    pub(super) plugin: PluginName,
    /// The publisher that its messages carry.
    pub(super) publisher: Arc<str>,
    /// Topics that the plugin may publish to.
    pub(super) publish_grants: Arc<[TopicFilter]>,
    /// Topics that the plugin hears of.
    pub(super) subscribe_grants: Arc<[TopicFilter]>,
    /// Whether it may disconnect clients.
    pub(super) disconnects: bool,
    /// The plugin's configuration.
    pub(super) config: Arc<BTreeMap<String, String>>,
    /// The secrets that it is granted.
    pub(super) secrets: Arc<BTreeMap<String, Option<Secret>>>,
    /// Where its measurements go.
    pub(super) measure: MetricSink,
    /// Measurements of the current call so far.
    pub(super) measured: u32,
    /// Looks retained messages up.
    pub(super) retained: RetainedLookup,
    /// The bounds of a call.
    pub(super) limits: WasmLimits,
}

impl HostState {
    pub(super) fn new(context: InstanceContext, limits: &WasmLimits, tls: &Tls) -> Self {
        let limits = WasmLimits { state_bytes: context.state_bytes.unwrap_or(limits.state_bytes), ..limits.clone() };
        let log = GuestLog::new(context.log, limits.log_lines_per_s, limits.log_line_bytes, Instant::now());
        let (wasi, table) = wasi::context(&log);
        let may_call_out = !context.http_hosts.is_empty();
        let call_ms = if may_call_out { limits.http_call_deadline_ms } else { limits.call_deadline_ms };
        Self {
            wasi,
            http: Http::new(context.http_hosts, context.private_addresses, (log.clone(), tls.clone()), &limits),
            table,
            time: CallTime::new(Duration::from_millis(call_ms)),
            memory: MemoryLimiter::new(&limits),
            log,
            batch: None,
            publisher: format!("$plugin/{}", context.plugin.0).into(),
            plugin: context.plugin,
            publish_grants: context.publish_grants,
            subscribe_grants: context.subscribe_grants,
            disconnects: context.disconnects,
            config: context.config,
            secrets: context.secrets,
            measure: context.measure,
            measured: 0,
            retained: context.retained,
            limits,
        }
    }

    /// Forgets what belongs to an earlier call.
    pub(super) fn begin_call(&mut self) {
        self.memory.refused = false;
        self.measured = 0;
        self.http.begin_call();
        self.log.begin_call();
    }

    /// Counts and logs a use of what the plugin is not granted, and gives the reason.
    fn deny(&mut self, what: &str, reason: String) -> String {
        if let Some(batch) = &mut self.batch {
            batch.count_denied();
        }
        self.log.host(Instant::now(), LogLevel::Warn, &format!("{what} denied: {reason}"));
        reason
    }
}

/// Offers everything that a guest may import.
pub(super) fn add_to_linker(linker: &mut Linker<HostState>) -> wasmtime::Result<()> {
    wasi::add_to_linker(linker)?;
    http::add_to_linker(linker)?;
    Everything::add_to_linker::<HostState, HasSelf<HostState>>(linker, |state| state)
}

/// Bounds an instance's memory and tables, and remembers that it hit the bound.
pub(super) struct MemoryLimiter {
    /// Bytes that all of the instance's memories may have.
    memory_bytes: usize,
    /// Elements that all of its tables may have.
    table_elements: usize,
    /// Bytes in use.
    used_bytes: usize,
    /// Table elements in use.
    used_elements: usize,
    /// Whether memory was refused since the call began.
    pub(super) refused: bool,
}

impl MemoryLimiter {
    fn new(limits: &WasmLimits) -> Self {
        let WasmLimits { memory_bytes, table_elements, .. } = *limits;
        Self { memory_bytes, table_elements, used_bytes: 0, used_elements: 0, refused: false }
    }

    /// Bytes of linear memory granted.
    pub(super) fn used_bytes(&self) -> usize {
        self.used_bytes
    }
}

impl ResourceLimiter for MemoryLimiter {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let used = self.used_bytes.saturating_add(desired.saturating_sub(current));
        let granted = used <= self.memory_bytes;
        if granted {
            self.used_bytes = used;
        } else {
            self.refused = true;
        }
        Ok(granted)
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.refused = true;
        Ok(())
    }

    fn table_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let used = self.used_elements.saturating_add(desired.saturating_sub(current));
        let granted = used <= self.table_elements;
        if granted {
            self.used_elements = used;
        }
        Ok(granted)
    }
}

impl types::Host for HostState {}

impl transaction::Host for HostState {
    fn begin(&mut self, event: u64) -> wasmtime::Result<()> {
        self.count_http_denied();
        let Some(batch) = &mut self.batch else {
            return Err(Stop::Contract("it called `begin` outside of `handle`".to_owned()).into());
        };
        Ok(batch.begin(event).map_err(Stop::Contract)?)
    }

    fn rollback(&mut self) -> wasmtime::Result<()> {
        let Some(batch) = &mut self.batch else {
            return Err(Stop::Contract("it called `rollback` outside of `handle`".to_owned()).into());
        };
        batch.rollback();
        Ok(())
    }
}

impl HostState {
    /// Counts denied HTTP requests to the event that is being handled.
    pub(super) fn count_http_denied(&mut self) {
        let denied = self.http.take_denied();
        if let Some(batch) = &mut self.batch {
            (0..denied).for_each(|_| batch.count_denied());
        }
    }
}

impl logging::Host for HostState {
    fn log(&mut self, level: logging::Level, context: String, message: String) {
        let level = match level {
            logging::Level::Trace => LogLevel::Trace,
            logging::Level::Debug => LogLevel::Debug,
            logging::Level::Info => LogLevel::Info,
            logging::Level::Warn => LogLevel::Warn,
            logging::Level::Error => LogLevel::Error,
            logging::Level::Critical => LogLevel::Critical,
        };
        self.log.logged(Instant::now(), level, &context, &message);
    }
}

impl config::Host for HostState {
    fn get(&mut self, key: String) -> Result<Option<String>, config::Error> {
        Ok(self.config.get(&key).cloned())
    }

    fn get_all(&mut self) -> Result<Vec<(String, String)>, config::Error> {
        Ok(self.config.iter().map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}
