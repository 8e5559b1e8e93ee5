//! One living guest, and the calls into it.
//!
//! Every call begins and ends the same way, in [`Instance::call`]: time is set, the guest runs, and an error is
//! explained. After an error the instance is dead, whatever its memory holds.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use vespiary_core::event::{InboxEvent, PluginName};
use vespiary_core::message::Timestamp;
use vespiary_core::topic::TopicFilter;
use wasmtime::{Store, UpdateDeadline};

use super::batch::{Batch, EventResult, Handled};
use super::bindings::Plugin;
use super::bindings::exports::vespiary::plugin::handler;
use super::component::Compiled;
use super::deadline::{CallTime, Interrupter};
use super::engine::Ticker;
use super::error::{CallError, bounded};
use super::host::{HostState, MemoryLimiter, publisher_of};
use super::limits::WasmLimits;
use super::log::{GuestLog, LogSink};
use super::state::StateRead;
use super::{properties, trap, wasi};

/// Longest reason of an outcome, or of `init` and `health`, in bytes.
const REASON_BYTES: usize = 1024;
/// Bytes that one call of a host function may move beyond the largest payload.
const HOSTCALL_BYTES: usize = 1 << 20;

/// What an instance is made for.
#[derive(Clone)]
pub struct InstanceContext {
    /// The plugin; names the publisher of its messages.
    pub plugin: PluginName,
    /// Topics that it may publish to.
    pub publish_grants: Arc<[TopicFilter]>,
    /// What `wasi:config/store` shows it.
    pub config: Arc<BTreeMap<String, String>>,
    /// Where its log goes.
    pub log: LogSink,
}

/// A living guest. One call at a time; can be moved between threads.
pub struct Instance {
    /// Its memory, and the state of its host functions.
    store: Store<HostState>,
    /// Its exports.
    plugin: Plugin,
    /// Ticks while it runs.
    ticker: Arc<Ticker>,
    /// Whether the component marks its events with `transaction.begin`; shared by its instances.
    begins: Arc<AtomicU8>,
    /// Whether a call killed it.
    dead: bool,
}

/// What is known about whether a component marks its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Begins {
    /// Nothing yet: its next call gets a single event.
    Unknown = 0,
    /// It does, and gets whole batches.
    Always = 1,
    /// It does not, and gets its events one by one.
    Never = 2,
}

impl Instance {
    pub(super) fn new(
        compiled: &Compiled,
        context: InstanceContext,
        limits: &WasmLimits,
        ticker: Arc<Ticker>,
    ) -> Result<Self, CallError> {
        let log = GuestLog::new(context.log, limits.log_lines_per_s, limits.log_line_bytes, Instant::now());
        let (wasi, table) = wasi::context(&log);
        let state = HostState {
            wasi,
            table,
            time: CallTime::new(Duration::from_millis(limits.call_deadline_ms)),
            memory: MemoryLimiter::new(limits),
            log,
            batch: None,
            now: Timestamp::default(),
            publisher: publisher_of(&context.plugin),
            publish_grants: context.publish_grants,
            config: context.config,
            limits: limits.clone(),
        };
        let mut store = Store::new(compiled.pre.engine(), state);
        store.limiter(|state| &mut state.memory);
        store.epoch_deadline_callback(|store| {
            store.data().time.check()?;
            Ok(UpdateDeadline::Continue(1))
        });
        store.set_hostcall_fuel(HOSTCALL_BYTES + limits.publish_bytes_per_call.max(limits.state_value_bytes));
        let plugin = run(&mut store, &ticker, |store| compiled.pre.instantiate(store))?;
        Ok(Self { store, plugin, ticker, begins: Arc::clone(&compiled.begins), dead: false })
    }

    /// Calls `lifecycle.init`.
    pub fn init(&mut self) -> Result<(), CallError> {
        let answer = self.call(|plugin, store| plugin.vespiary_plugin_lifecycle().call_init(store))?;
        answer.map_err(|reason| CallError::Failed { function: "init", reason: bounded(&reason, REASON_BYTES) })
    }

    /// Calls `lifecycle.health`.
    pub fn health(&mut self) -> Result<(), CallError> {
        let answer = self.call(|plugin, store| plugin.vespiary_plugin_lifecycle().call_health(store))?;
        answer.map_err(|reason| CallError::Failed { function: "health", reason: bounded(&reason, REASON_BYTES) })
    }

    /// Hands a batch to the guest and gives one [`Handled`] for each event, in order. `now` becomes the time of what
    /// the guest publishes; `state` is read under the guest's own writes, and dropped with the call.
    ///
    /// A guest that does not call `transaction.begin` gets the first event only, and the rest come back
    /// [`EventResult::Untouched`]; so does, on its first call, a component of which that is not known yet.
    pub fn handle(
        &mut self,
        now: Timestamp,
        state: impl StateRead + 'static,
        events: &[InboxEvent],
    ) -> Result<Vec<Handled>, CallError> {
        let taken = if self.takes_batches() { events.len() } else { events.len().min(1) };
        let (batch, rest) = events.split_at(taken);
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let data = self.store.data_mut();
        data.now = now;
        data.batch = Some(Batch::new(Box::new(state), batch.iter().map(|event| event.sequence).collect()));
        let answer = with_events(batch, |list| {
            self.call(|plugin, store| plugin.vespiary_plugin_handler().call_handle(store, list))
        });
        let effects = self.store.data_mut().batch.take();
        let (outcomes, effects) = (answer?, effects.expect("put there above, and taken nowhere else"));
        self.learn_begins(effects.began_any());
        let results = outcomes.into_iter().map(event_result).collect();
        let finished = effects.finish(results);
        let mut handled = finished.map_err(|reason| {
            self.dead = true;
            CallError::Contract { reason }
        })?;
        handled.extend(rest.iter().map(untouched));
        Ok(handled)
    }

    /// Whether the guest is known to mark its events, so that [`Self::handle`] uses more than one.
    pub fn takes_batches(&self) -> bool {
        self.begins.load(Ordering::Relaxed) == Begins::Always as u8
    }

    /// Ends what the instance is doing, from another thread.
    pub fn interrupter(&self) -> Interrupter {
        self.store.data().time.interrupter(self.store.engine().weak())
    }

    fn learn_begins(&self, began: bool) {
        if self.begins.load(Ordering::Relaxed) == Begins::Unknown as u8 {
            let learned = if began { Begins::Always } else { Begins::Never };
            self.begins.store(learned as u8, Ordering::Relaxed);
        }
    }

    fn call<T>(
        &mut self,
        body: impl FnOnce(&Plugin, &mut Store<HostState>) -> wasmtime::Result<T>,
    ) -> Result<T, CallError> {
        if self.dead {
            return Err(CallError::Dead);
        }
        let result = run(&mut self.store, &self.ticker, |store| body(&self.plugin, store));
        self.dead = result.is_err();
        result
    }
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instance").field("dead", &self.dead).finish_non_exhaustive()
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.store.data().log.close();
    }
}

/// Runs guest code under the deadline, and explains an error.
fn run<T>(
    store: &mut Store<HostState>,
    ticker: &Ticker,
    body: impl FnOnce(&mut Store<HostState>) -> wasmtime::Result<T>,
) -> Result<T, CallError> {
    let state = store.data_mut();
    if state.time.is_interrupted() {
        return Err(CallError::Interrupted);
    }
    state.time.begin_call(Instant::now());
    state.memory.refused = false;
    state.log.begin_call();
    store.set_epoch_deadline(1);
    let running = ticker.call();
    let result = body(store);
    drop(running);
    let state = store.data();
    state.log.end_call(Instant::now());
    result.map_err(|error| trap::explain(&error, state))
}

/// Shows events as the contract has them, borrowed from the inbox.
fn with_events<T>(events: &[InboxEvent], body: impl FnOnce(&[handler::Event<'_>]) -> T) -> T {
    let pairs: Vec<_> = events.iter().map(|event| properties::list(&event.message)).collect();
    let lists: Vec<Vec<handler::Property<'_>>> = pairs
        .iter()
        .map(|pairs| pairs.iter().map(|(name, value)| handler::Property { name, value }).collect())
        .collect();
    let list: Vec<handler::Event<'_>> = events
        .iter()
        .zip(&lists)
        .map(|(event, properties)| handler::Event {
            id: event.sequence.0,
            kind: handler::EventKind::Message,
            captures: &[],
            user: event.message.user.as_deref(),
            topic: event.message.topic.as_str(),
            payload: &event.message.payload,
            qos: properties::contract_qos(event.qos),
            retain: event.retain,
            publisher: &event.message.publisher,
            received_at: event.message.received_at.0,
            attempt: event.attempt,
            properties,
        })
        .collect();
    body(&list)
}

fn event_result(outcome: handler::Outcome) -> EventResult {
    match outcome {
        handler::Outcome::Done => EventResult::Done,
        handler::Outcome::Retry(retry) => EventResult::Retry(bounded(&retry.reason, REASON_BYTES)),
        handler::Outcome::Reject(reason) => EventResult::Reject(bounded(&reason, REASON_BYTES)),
    }
}

fn untouched(event: &InboxEvent) -> Handled {
    let (publishes, writes) = (Vec::new(), Vec::new());
    Handled { sequence: event.sequence, result: EventResult::Untouched, publishes, writes, denied: 0 }
}
