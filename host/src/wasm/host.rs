//! The functions that guests import: `broker`, `state`, `transaction`, `wasi:logging` and `wasi:config/store`.
//!
//! One [`HostState`] lives in the store of each instance. State and publishing work inside of a `handle` only: what
//! `init` or `health` would write belongs to no event and to no transaction.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use vespiary_core::event::PluginName;
use vespiary_core::message::{Message, Timestamp};
use vespiary_core::topic::{Topic, TopicFilter};
use wasmtime::ResourceLimiter;
use wasmtime::component::{HasSelf, Linker, Resource, ResourceTable};
use wasmtime_wasi::WasiCtx;

use super::batch::{Batch, Refusal};
use super::bindings::Plugin;
use super::bindings::vespiary::plugin::{broker, metrics, secrets, state, timers, transaction, types};
use super::bindings::wasi::config::store as config;
use super::bindings::wasi::logging::logging;
use super::deadline::{CallTime, Stop};
use super::limits::WasmLimits;
use super::log::{GuestLog, LogLevel};
use super::{properties, wasi};

/// What an instance's host functions work on.
pub(super) struct HostState {
    /// The virtual WASI.
    pub(super) wasi: WasiCtx,
    /// WASI's handles.
    pub(super) table: ResourceTable,
    /// When the current call is over.
    pub(super) time: CallTime,
    /// What the instance may use of the machine.
    pub(super) memory: MemoryLimiter,
    /// What the guest logs and prints.
    pub(super) log: GuestLog,
    /// What the current `handle` has done so far.
    pub(super) batch: Option<Batch>,
    /// What messages published in the current call carry as their time.
    pub(super) now: Timestamp,
    /// Topics that the plugin may publish to.
    pub(super) publish_grants: Arc<[TopicFilter]>,
    /// The plugin's configuration.
    pub(super) config: Arc<BTreeMap<String, String>>,
    /// The publisher that its messages carry.
    pub(super) publisher: Arc<str>,
    /// The bounds of a call.
    pub(super) limits: WasmLimits,
}

/// The publisher that a plugin's messages carry.
pub(super) fn publisher_of(plugin: &PluginName) -> Arc<str> {
    format!("$plugin/{}", plugin.0).into()
}

/// Offers everything that a guest may import.
pub(super) fn add_to_linker(linker: &mut Linker<HostState>) -> wasmtime::Result<()> {
    wasi::add_to_linker(linker)?;
    Plugin::add_to_linker::<HostState, HasSelf<HostState>>(linker, |state| state)
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
    pub(super) fn new(limits: &WasmLimits) -> Self {
        let WasmLimits { memory_bytes, table_elements, .. } = *limits;
        Self { memory_bytes, table_elements, used_bytes: 0, used_elements: 0, refused: false }
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

impl broker::Host for HostState {
    fn publish(&mut self, message: types::Message) -> Result<(), broker::Error> {
        let Some(batch) = &mut self.batch else {
            return Err(broker::Error::Denied("only `handle` may publish".to_owned()));
        };
        let topic = Topic::parse(&message.topic)
            .map_err(|reason| broker::Error::Invalid(format!("the topic is not valid: {reason}")))?;
        if !self.publish_grants.iter().any(|granted| granted.matches(&topic)) {
            batch.count_denied();
            let reason = format!("the plugin is not granted the topic `{topic}`");
            self.log.host(Instant::now(), LogLevel::Warn, &format!("publish denied: {reason}"));
            return Err(broker::Error::Denied(reason));
        }
        let properties = properties::parse(&message.properties).map_err(broker::Error::Invalid)?;
        let message = Message {
            topic,
            payload: message.payload.into_boxed_slice(),
            qos: properties::core_qos(message.qos),
            retain: message.retain,
            properties,
            expires_at: None,
            received_at: self.now,
            publisher: Arc::clone(&self.publisher),
            user: None,
        };
        batch.publish(message, &self.limits).map_err(|refusal| match refusal {
            Refusal::QuotaExceeded(reason) | Refusal::TooLarge(reason) | Refusal::Unavailable(reason) => {
                broker::Error::QuotaExceeded(reason)
            }
        })
    }

    fn request(&mut self, _message: types::Message, _timeout_ms: u64) -> Result<u64, broker::Error> {
        Err(broker::Error::Unavailable("requests are not offered".to_owned()))
    }

    fn disconnect(&mut self, _client: String) -> Result<(), broker::Error> {
        Err(broker::Error::Unavailable("disconnecting is not offered".to_owned()))
    }

    fn retained(&mut self, _topic: String) -> Result<Option<types::Message>, broker::Error> {
        Err(broker::Error::Unavailable("looking up is not offered".to_owned()))
    }
}

impl timers::Host for HostState {
    fn set(&mut self, _name: String, _at: u64, _payload: Vec<u8>) -> Result<(), timers::Error> {
        Err(timers::Error::Unavailable("timers are not offered".to_owned()))
    }

    fn schedule(&mut self, _name: String, _cron: String, _payload: Vec<u8>) -> Result<(), timers::Error> {
        Err(timers::Error::Unavailable("timers are not offered".to_owned()))
    }

    fn cancel(&mut self, _name: String) -> Result<(), timers::Error> {
        Err(timers::Error::Unavailable("timers are not offered".to_owned()))
    }
}

impl metrics::Host for HostState {
    fn count(&mut self, _name: String, _labels: Vec<metrics::Label>, _amount: u64) {}

    fn gauge(&mut self, _name: String, _labels: Vec<metrics::Label>, _value: f64) {}

    fn observe(&mut self, _name: String, _labels: Vec<metrics::Label>, _value: f64) {}
}

impl secrets::HostSecret for HostState {
    fn reveal(&mut self, _secret: Resource<secrets::Secret>) -> String {
        String::new()
    }

    fn drop(&mut self, _secret: Resource<secrets::Secret>) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl secrets::Host for HostState {
    fn get(&mut self, name: String) -> Result<Resource<secrets::Secret>, secrets::Error> {
        Err(secrets::Error::Denied(name))
    }
}

impl HostState {
    fn batch(&mut self) -> Result<(&mut Batch, &WasmLimits), state::Error> {
        match &mut self.batch {
            Some(batch) => Ok((batch, &self.limits)),
            None => Err(state::Error::Unavailable("only `handle` may use the state".to_owned())),
        }
    }
}

impl From<Refusal> for state::Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::TooLarge(reason) => Self::TooLarge(reason),
            Refusal::QuotaExceeded(reason) => Self::QuotaExceeded(reason),
            Refusal::Unavailable(reason) => Self::Unavailable(reason),
        }
    }
}

impl state::Host for HostState {
    fn get(&mut self, key: String) -> Result<Option<Vec<u8>>, state::Error> {
        Ok(self.batch()?.0.get(&key)?)
    }

    fn set(&mut self, key: String, value: Vec<u8>) -> Result<(), state::Error> {
        let (batch, limits) = self.batch()?;
        Ok(batch.write(&key, Some(value), limits)?)
    }

    fn set_for(&mut self, _key: String, _value: Vec<u8>, _ttl_ms: u64) -> Result<(), state::Error> {
        Err(state::Error::Unavailable("not offered".to_owned()))
    }

    fn compare_and_set(
        &mut self,
        _key: String,
        _expected: Option<Vec<u8>>,
        _value: Option<Vec<u8>>,
    ) -> Result<bool, state::Error> {
        Err(state::Error::Unavailable("not offered".to_owned()))
    }

    fn add(&mut self, _key: String, _amount: i64) -> Result<i64, state::Error> {
        Err(state::Error::Unavailable("not offered".to_owned()))
    }

    fn delete(&mut self, key: String) -> Result<(), state::Error> {
        let (batch, limits) = self.batch()?;
        Ok(batch.write(&key, None, limits)?)
    }

    fn scan(&mut self, prefix: String, after: Option<String>, limit: u32) -> Result<Vec<state::Entry>, state::Error> {
        let (batch, limits) = self.batch()?;
        let entries = batch.scan(&prefix, after.as_deref(), limit as usize, limits)?;
        Ok(entries.into_iter().map(|(key, value)| state::Entry { key, value }).collect())
    }
}

impl transaction::Host for HostState {
    fn begin(&mut self, event: u64) -> wasmtime::Result<()> {
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
