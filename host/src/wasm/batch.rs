//! What a call does to the world, collected until it ends: writes, publishes, timers, disconnects, and to which event they
//! belong.
//!
//! Pure: no engine, no store. A batch begins with the events handed to the guest and a snapshot of the plugin's state, and
//! ends as one [`Handled`] for each event. Reads see the snapshot under the batch's own writes (`batch/state.rs`).
//!
//! Invariants: `overlay` names the newest write of each key that was written; what belongs to the event that is being handled
//! is the tail of each list, so that a rollback cuts it off.

use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use vespiary_core::event::{REPLY_TOPICS, REQUEST_TIMER, Sequence, StateWrite, Timer, TimerWrite};
use vespiary_core::message::{Message, Timestamp};
use vespiary_core::topic::Topic;

use super::limits::WasmLimits;
use super::state::StateRead;

mod state;

/// What each timer counts beyond its name and payload.
const TIMER_OVERHEAD_BYTES: usize = 64;
/// Requests of one event: what its number leaves room for in their identities.
const REQUESTS_PER_EVENT: u16 = u16::MAX;

/// An event that was handed to a guest, and what came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Handled {
    /// The event.
    pub sequence: Sequence,
    /// What became of it.
    pub result: EventResult,
    /// What it published; empty unless it is done.
    pub publishes: Vec<Message>,
    /// What it wrote; empty unless it is done.
    pub writes: Vec<StateWrite>,
    /// Timers that it set or cancelled, also those of its requests; empty unless it is done.
    pub timers: Vec<TimerWrite>,
    /// Clients that it disconnects; empty unless it is done.
    pub disconnects: Vec<Arc<str>>,
    /// Uses of what the plugin is not granted, which were denied.
    pub denied: u32,
}

/// What became of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventResult {
    /// Handled; its effects count.
    Done,
    /// Failed for now.
    Retry {
        /// Why.
        reason: String,
        /// Milliseconds until it is to come again, where the plugin says so.
        after_ms: Option<u64>,
    },
    /// Given up, with the reason.
    Reject(String),
    /// Not handled, or handled with knowledge of what an earlier event of the batch should not have left: hand it out
    /// again.
    Untouched,
}

/// What a call that belongs to no event did.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Done {
    /// What it published.
    pub(super) publishes: Vec<Message>,
    /// What it wrote.
    pub(super) writes: Vec<StateWrite>,
    /// Timers that it set or cancelled.
    pub(super) timers: Vec<TimerWrite>,
    /// Clients that it disconnects.
    pub(super) disconnects: Vec<Arc<str>>,
    /// Uses that were denied.
    pub(super) denied: u32,
}

/// Why a function of the contract refuses; the cases of its errors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// A key or a value is too large.
    TooLarge(String),
    /// The plugin or the call is at one of its limits.
    QuotaExceeded(String),
    /// The value of the key is not what the function works on.
    Mismatch(String),
    /// The store cannot be read, or this call may not do it.
    Unavailable(String),
}

/// What a call is for, and so what it may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Purpose {
    /// These events, in order.
    Events(Vec<Sequence>),
    /// A request to the plugin's HTTP service: everything, as one section.
    Request,
    /// A decision of a hook: the state is read and nothing is done.
    Decision,
}

/// What a call has done so far.
pub(super) struct Batch {
    /// The state before the call.
    state: Box<dyn StateRead>,
    /// What the call is for.
    purpose: Purpose,
    /// When the call began; what is relative to a time counts from here.
    now: Timestamp,
    /// What belongs to each event that was begun; the last of them is being handled.
    begun: Vec<Section>,
    /// Number of the newest write to each key. Looked up at every access; put in order for a scan, which is rarer.
    overlay: HashMap<Arc<str>, usize, RandomState>,
    /// All writes that count, in order.
    writes: Vec<LoggedWrite>,
    /// All publishes that count, in order.
    publishes: Vec<Message>,
    /// All timers that count, in order.
    timers: Vec<TimerWrite>,
    /// All disconnects that count, in order.
    disconnects: Vec<Arc<str>>,
    /// Where the current event began: what a rollback goes back to.
    mark: Lengths,
    /// Requests of the current event so far.
    requests: u16,
    /// Bytes of `writes`.
    written_bytes: usize,
    /// Weight of `publishes` and `timers`.
    published_bytes: usize,
    /// What is known of the size of the committed state.
    usage: state::Usage,
    /// Uses denied so far.
    denied: u32,
}

/// How long each list is.
#[derive(Debug, Clone, Copy, Default)]
struct Lengths {
    writes: usize,
    publishes: usize,
    timers: usize,
    disconnects: usize,
}

/// What belongs to one event: everything up to the next section's beginning.
#[derive(Debug, Clone, Copy, Default)]
struct Section {
    /// Its first write, publish and so on.
    first: Lengths,
    /// Uses denied before it began.
    denied_before: u32,
}

struct LoggedWrite {
    /// The write.
    write: StateWrite,
    /// The write to the same key that it hides, if there is one.
    hides: Option<usize>,
}

impl Batch {
    pub(super) fn new(state: Box<dyn StateRead>, purpose: Purpose, now: Timestamp) -> Self {
        // Most handlers write about once an event.
        let events = match &purpose {
            Purpose::Events(events) => events.len(),
            Purpose::Request | Purpose::Decision => 0,
        };
        Self {
            state,
            purpose,
            now,
            begun: Vec::with_capacity(events),
            overlay: HashMap::with_capacity_and_hasher(events, RandomState::default()),
            writes: Vec::with_capacity(events),
            publishes: Vec::new(),
            timers: Vec::new(),
            disconnects: Vec::new(),
            mark: Lengths::default(),
            requests: 0,
            written_bytes: 0,
            published_bytes: 0,
            usage: state::Usage::default(),
            denied: 0,
        }
    }

    /// When the call began.
    pub(super) fn now(&self) -> Timestamp {
        self.now
    }

    /// Whether the call may do more than look.
    pub(super) fn may_act(&self) -> bool {
        self.purpose != Purpose::Decision
    }

    // ------------------------------------------------------------------------------------------ transactions

    /// From here on, what is done belongs to this event. What came before the first event belongs to it too.
    pub(super) fn begin(&mut self, event: u64) -> Result<(), String> {
        let Purpose::Events(events) = &self.purpose else {
            return Err("it called `begin` where no events are handled".to_owned());
        };
        let next = events.get(self.begun.len());
        if next != Some(&Sequence(event)) {
            return Err(match (events.iter().position(|known| known.0 == event), next) {
                (None, _) => format!("it began event {event}, which is not in the batch"),
                (Some(_), None) => format!("it began event {event} again after the last event of the batch"),
                (Some(_), Some(next)) => format!("it began event {event} where event {} comes next", next.0),
            });
        }
        self.mark = self.lengths();
        if self.begun.is_empty() {
            self.begun.push(Section::default());
        } else {
            self.begun.push(Section { first: self.mark, denied_before: self.denied });
            self.requests = 0;
        }
        Ok(())
    }

    /// Drops what was done since the last `begin`, or since the call began.
    pub(super) fn rollback(&mut self) {
        for logged in self.writes.drain(self.mark.writes..).rev() {
            self.written_bytes -= state::weight(&logged.write);
            match logged.hides {
                Some(hidden) => {
                    if let Some(newest) = self.overlay.get_mut(&logged.write.key) {
                        *newest = hidden;
                    }
                }
                None => {
                    self.overlay.remove(&logged.write.key);
                }
            }
        }
        for message in self.publishes.drain(self.mark.publishes..) {
            self.published_bytes -= message.weight();
        }
        for timer in self.timers.drain(self.mark.timers..) {
            self.published_bytes -= timer_weight(&timer);
        }
        self.disconnects.truncate(self.mark.disconnects);
    }

    /// Whether the guest said which event it was at.
    pub(super) fn began_any(&self) -> bool {
        !self.begun.is_empty()
    }

    fn lengths(&self) -> Lengths {
        Lengths {
            writes: self.writes.len(),
            publishes: self.publishes.len(),
            timers: self.timers.len(),
            disconnects: self.disconnects.len(),
        }
    }

    // ------------------------------------------------------------------------------------------ acting

    pub(super) fn publish(&mut self, message: Message, limits: &WasmLimits) -> Result<(), Refusal> {
        if self.publishes.len() >= limits.publishes_per_call {
            let limit = limits.publishes_per_call;
            return Err(Refusal::QuotaExceeded(format!("one call may publish {limit} messages")));
        }
        self.published_bytes = self.room_for(message.weight(), limits)?;
        self.publishes.push(message);
        Ok(())
    }

    /// Publishes a request: gives it an identity, a topic for its answer, correlation data where it has none, and a timer for
    /// the answer that does not come.
    pub(super) fn request(
        &mut self,
        plugin: &str,
        mut message: Message,
        timeout_ms: u64,
        limits: &WasmLimits,
    ) -> Result<u64, Refusal> {
        if self.requests == REQUESTS_PER_EVENT {
            return Err(Refusal::QuotaExceeded(format!("one event may make {REQUESTS_PER_EVENT} requests")));
        }
        let identity = self.next_identity();
        let answers =
            Topic::parse(&format!("{REPLY_TOPICS}/{plugin}/{identity}")).expect("names of plugins are levels");
        let properties = message.properties.get_or_insert_default();
        properties.response_topic = Some(answers);
        properties.correlation_data.get_or_insert_with(|| identity.to_be_bytes().into());
        let name: Arc<str> = format!("{REQUEST_TIMER}{identity}").into();
        let at = self.now.after_ms(timeout_ms);
        let timer = Timer { at, schedule: None, declared: false, payload: Arc::new([]) };
        // The timer first: where the publish is refused it is taken back, which is simpler than the other way round.
        self.timer(TimerWrite { name, timer: Some(timer) }, limits)?;
        if let Err(refusal) = self.publish(message, limits) {
            let taken_back = self.timers.pop().expect("pushed just now");
            self.published_bytes -= timer_weight(&taken_back);
            return Err(refusal);
        }
        self.requests += 1;
        Ok(identity)
    }

    /// The identity of the current event's next request: the same when the event is handled again.
    fn next_identity(&self) -> u64 {
        let event = match &self.purpose {
            Purpose::Events(events) => events.get(self.begun.len().saturating_sub(1)),
            Purpose::Request | Purpose::Decision => None,
        };
        let identity = match event {
            Some(event) => event.0 << 16 | u64::from(self.requests),
            None => fastrand::u64(..),
        };
        identity & (u64::MAX >> 1)
    }

    pub(super) fn timer(&mut self, timer: TimerWrite, limits: &WasmLimits) -> Result<(), Refusal> {
        if self.timers.len() >= limits.timers_per_call {
            let limit = limits.timers_per_call;
            return Err(Refusal::QuotaExceeded(format!("one call may set {limit} timers")));
        }
        self.published_bytes = self.room_for(timer_weight(&timer), limits)?;
        self.timers.push(timer);
        Ok(())
    }

    pub(super) fn disconnect(&mut self, client: &str, limits: &WasmLimits) -> Result<(), Refusal> {
        if self.disconnects.len() >= limits.disconnects_per_call {
            let limit = limits.disconnects_per_call;
            return Err(Refusal::QuotaExceeded(format!("one call may disconnect {limit} clients")));
        }
        self.disconnects.push(client.into());
        Ok(())
    }

    /// What the output of the call weighs with so much more.
    fn room_for(&self, more: usize, limits: &WasmLimits) -> Result<usize, Refusal> {
        let bytes = self.published_bytes + more;
        if bytes > limits.publish_bytes_per_call {
            let limit = limits.publish_bytes_per_call;
            return Err(Refusal::QuotaExceeded(format!("one call may publish {limit} bytes")));
        }
        Ok(bytes)
    }

    /// Counts a use that was denied.
    pub(super) fn count_denied(&mut self) {
        self.denied = self.denied.saturating_add(1);
    }

    // ------------------------------------------------------------------------------------------ end

    /// Ends a batch of events: each with what belongs to it. An event that failed and left writes behind makes every later
    /// event [`EventResult::Untouched`], since these could have seen the writes.
    pub(super) fn finish(mut self, results: Vec<EventResult>) -> Result<Vec<Handled>, String> {
        let Purpose::Events(events) = std::mem::replace(&mut self.purpose, Purpose::Decision) else {
            return Err("it handled events where none were given".to_owned());
        };
        if results.len() != events.len() {
            return Err(format!("it gave {} outcomes for {} events", results.len(), events.len()));
        }
        if self.begun.is_empty() && events.len() == 1 {
            self.begun.push(Section::default());
        }
        if self.begun.len() != events.len() {
            return Err(format!("it began {} of {} events", self.begun.len(), events.len()));
        }
        let end = Section { first: self.lengths(), denied_before: self.denied };
        let ends = self.begun.iter().skip(1).copied().chain([end]);
        let mut writes = self.writes.into_iter().map(|logged| logged.write);
        let (mut publishes, mut timers) = (self.publishes.into_iter(), self.timers.into_iter());
        let mut disconnects = self.disconnects.into_iter();
        let mut seen_what_failed = false;
        let mut handled = Vec::with_capacity(results.len());
        for (((sequence, begin), end), result) in events.into_iter().zip(&self.begun).zip(ends).zip(results) {
            let result = if seen_what_failed { EventResult::Untouched } else { result };
            let (first, next) = (begin.first, end.first);
            let mut one = Handled {
                sequence,
                result,
                publishes: publishes.by_ref().take(next.publishes - first.publishes).collect(),
                writes: writes.by_ref().take(next.writes - first.writes).collect(),
                timers: timers.by_ref().take(next.timers - first.timers).collect(),
                disconnects: disconnects.by_ref().take(next.disconnects - first.disconnects).collect(),
                denied: end.denied_before - begin.denied_before,
            };
            if one.result != EventResult::Done {
                seen_what_failed |= !one.writes.is_empty();
                one.publishes.clear();
                one.writes.clear();
                one.timers.clear();
                one.disconnects.clear();
            }
            handled.push(one);
        }
        Ok(handled)
    }

    /// Ends a call that belongs to no event.
    pub(super) fn done(self) -> Done {
        Done {
            publishes: self.publishes,
            writes: self.writes.into_iter().map(|logged| logged.write).collect(),
            timers: self.timers,
            disconnects: self.disconnects,
            denied: self.denied,
        }
    }
}

/// What a timer counts against the output of a call.
fn timer_weight(write: &TimerWrite) -> usize {
    write.name.len() + write.timer.as_ref().map_or(0, |timer| timer.payload.len()) + TIMER_OVERHEAD_BYTES
}

#[cfg(test)]
mod tests;
