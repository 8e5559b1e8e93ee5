//! One living guest, and the calls into it.
//!
//! Every call begins and ends the same way, in [`Instance::call`]: time is set, the guest runs, and an error is
//! explained. After an error the instance is dead, whatever its memory holds.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use vespiary_core::event::{EventKind, InboxEvent};
use vespiary_core::message::Timestamp;
use vespiary_core::topic::{Topic, TopicFilter};
use wasmtime::{Store, UpdateDeadline};

use super::batch::{Batch, EventResult, Handled, Purpose};
use super::bindings::exports::vespiary::plugin::handler;
use super::captures::Captures;
use super::component::{Compiled, Exports};
use super::context::InstanceContext;
use super::deadline::{Interrupter, Stop};
use super::engine::Ticker;
use super::error::{CallError, bounded};
use super::host::HostState;
use super::http::Tls;
use super::limits::WasmLimits;
use super::state::StateRead;
use super::{inspect, properties, trap};

mod hooks;
mod migration;
mod serve;

pub use serve::Served;

/// Longest reason of an outcome, or of `init` and `health`, in bytes.
const REASON_BYTES: usize = 1024;
/// Bytes that one call of a host function may move beyond the largest payload.
const HOSTCALL_BYTES: usize = 1 << 20;

/// A living guest. One call at a time; can be moved between threads.
pub struct Instance {
    /// Its memory, and the state of its host functions.
    store: Store<HostState>,
    /// Its exports.
    exports: Exports,
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
        (limits, tls): (&WasmLimits, &Tls),
        ticker: Arc<Ticker>,
    ) -> Result<Self, CallError> {
        let mut store = Store::new(compiled.pre.engine(), HostState::new(context, limits, tls));
        store.limiter(|state| &mut state.memory);
        store.epoch_deadline_callback(|store| {
            store.data().time.check()?;
            Ok(UpdateDeadline::Continue(1))
        });
        store.set_hostcall_fuel(HOSTCALL_BYTES + limits.publish_bytes_per_call.max(limits.state_value_bytes));
        let exports = run(&mut store, &ticker, None, |store| compiled.instantiate(store))?;
        Ok(Self { store, exports, ticker, begins: Arc::clone(&compiled.begins), dead: false })
    }

    /// Calls `lifecycle.init`.
    pub fn init(&mut self) -> Result<(), CallError> {
        let answer = self.call(|exports, store| exports.lifecycle.call_init(store))?;
        answer.map_err(|reason| self.failed("init", &reason))
    }

    /// Calls `lifecycle.health`.
    pub fn health(&mut self) -> Result<(), CallError> {
        let answer = self.call(|exports, store| exports.lifecycle.call_health(store))?;
        answer.map_err(|reason| self.failed("health", &reason))
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
        let (taken, rest) = events.split_at(taken);
        if taken.is_empty() {
            return Ok(Vec::new());
        }
        let purpose = Purpose::Events(taken.iter().map(|event| event.sequence).collect());
        let batch = Batch::new(Box::new(state), purpose, now);
        let grants = Arc::clone(&self.store.data().subscribe_grants);
        let (outcomes, batch) = with_events(taken, &grants, now, |list| {
            self.call_with(batch, None, |exports, store| {
                exported(exports.handler.as_ref(), inspect::HANDLER)?.call_handle(store, list)
            })
        })?;
        self.learn_begins(batch.began_any());
        let results = outcomes.into_iter().map(|outcome| self.event_result(outcome)).collect();
        let finished = batch.finish(results);
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

    /// Bytes of linear memory that it has.
    pub fn memory_bytes(&self) -> usize {
        self.store.data().memory.used_bytes()
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

    fn event_result(&self, outcome: handler::Outcome) -> EventResult {
        match outcome {
            handler::Outcome::Done => EventResult::Done,
            handler::Outcome::Retry(handler::Retry { reason, after_ms }) => {
                EventResult::Retry { reason: self.reason(&reason), after_ms }
            }
            handler::Outcome::Reject(reason) => EventResult::Reject(self.reason(&reason)),
        }
    }

    /// What the guest gives as a reason, bounded and without secrets.
    fn reason(&self, reason: &str) -> String {
        bounded(&self.store.data().log.blotted(reason.to_owned()), REASON_BYTES)
    }

    fn failed(&self, function: &'static str, reason: &str) -> CallError {
        CallError::Failed { function, reason: self.reason(reason) }
    }

    /// A call without access to the broker.
    fn call<T>(
        &mut self,
        body: impl FnOnce(&Exports, &mut Store<HostState>) -> wasmtime::Result<T>,
    ) -> Result<T, CallError> {
        if self.dead {
            return Err(CallError::Dead);
        }
        let result = run(&mut self.store, &self.ticker, None, |store| body(&self.exports, store));
        self.dead = result.as_ref().is_err_and(CallError::is_fatal);
        result
    }

    /// A call that collects what it does; `deadline` where it is another than usual.
    fn call_with<T>(
        &mut self,
        batch: Batch,
        deadline: Option<Duration>,
        body: impl FnOnce(&Exports, &mut Store<HostState>) -> wasmtime::Result<T>,
    ) -> Result<(T, Batch), CallError> {
        if self.dead {
            return Err(CallError::Dead);
        }
        self.store.data_mut().batch = Some(batch);
        let result = run(&mut self.store, &self.ticker, deadline, |store| body(&self.exports, store));
        self.dead = result.as_ref().is_err_and(CallError::is_fatal);
        self.store.data_mut().count_http_denied();
        let batch = self.store.data_mut().batch.take();
        Ok((result?, batch.expect("put there above, and taken nowhere else")))
    }
}

/// An export that was looked for, or the name of what is missing.
fn exported<'a, T>(export: Option<&'a T>, interface: &'static str) -> Result<&'a T, Stop> {
    export.ok_or(Stop::NotExported(interface))
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
    deadline: Option<Duration>,
    body: impl FnOnce(&mut Store<HostState>) -> wasmtime::Result<T>,
) -> Result<T, CallError> {
    let state = store.data_mut();
    if state.time.is_interrupted() {
        return Err(CallError::Interrupted);
    }
    state.time.begin_call(Instant::now(), deadline);
    state.begin_call();
    store.set_epoch_deadline(1);
    let running = ticker.call();
    let result = body(store);
    drop(running);
    let state = store.data();
    state.log.end_call(Instant::now());
    result.map_err(|error| trap::explain(&error, state))
}

/// Shows events as the contract has them, borrowed from the inbox.
fn with_events<T>(
    events: &[InboxEvent],
    filters: &[TopicFilter],
    now: Timestamp,
    body: impl FnOnce(&[handler::Event<'_>]) -> T,
) -> T {
    let captures = Captures::of(filters, events.iter().map(|event| &event.message.topic));
    let pairs: Vec<_> = events.iter().map(|event| properties::list(&event.message, now)).collect();
    let lists: Vec<Vec<handler::Property<'_>>> = pairs.iter().map(|pairs| contract_properties(pairs)).collect();
    let list: Vec<handler::Event<'_>> = events
        .iter()
        .zip(&lists)
        .enumerate()
        .map(|(place, (event, properties))| handler::Event {
            id: event.sequence.0,
            kind: contract_kind(&event.message.topic),
            captures: captures.get(place),
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

fn contract_properties(pairs: &[(String, String)]) -> Vec<handler::Property<'_>> {
    pairs.iter().map(|(name, value)| handler::Property { name, value }).collect()
}

fn contract_kind(topic: &Topic) -> handler::EventKind {
    if !topic.is_reserved() {
        return handler::EventKind::Message;
    }
    match EventKind::of(topic) {
        EventKind::Message => handler::EventKind::Message,
        EventKind::Timer => handler::EventKind::Timer,
        EventKind::Response => handler::EventKind::Response,
        EventKind::Client => handler::EventKind::Client,
    }
}

fn untouched(event: &InboxEvent) -> Handled {
    Handled {
        sequence: event.sequence,
        result: EventResult::Untouched,
        publishes: Vec::new(),
        writes: Vec::new(),
        timers: Vec::new(),
        disconnects: Vec::new(),
        denied: 0,
    }
}
