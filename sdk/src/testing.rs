//! Runs a plugin natively, against a host that exists only in the test, with a clock that only the test moves.
//!
//! [`TestHost`] keeps the promises of the real host: an event's writes and publishes are committed together or dropped, a
//! failed event comes again after a pause and blocks later ones on its topic only, a rejected one becomes a dead letter,
//! and publishing needs a grant. It is not a broker: there are no clients, no retained messages and no limits on memory
//! or time.
//!
//! ```
//! use std::time::Duration;
//! use vespiary_sdk::prelude::*;
//! use vespiary_sdk::testing::{Delivery, TestHost};
//!
//! plugin! { name: "doors", handlers: [opened], publishes: ["doors/+/count"] }
//!
//! #[on("doors/{door}/opened")]
//! fn opened(cx: &mut Context, door: &str) -> Result<()> {
//!     let count = cx.state().update(door, |count: &mut u64| { *count += 1; *count })?;
//!     if cx.event().attempt() == 0 && count == 2 {
//!         return Err(Error::retry("not now"));
//!     }
//!     cx.publish(format!("doors/{door}/count"), Json(count))
//! }
//!
//! let mut host = TestHost::new(plugin());
//! assert_eq!(host.publish("doors/front/opened", json!({})), Delivery::Done);
//! assert_eq!(host.publish("doors/front/opened", json!({})), Delivery::Retry("not now".into()));
//! assert_eq!(host.state::<u64>("front"), Some(1));
//!
//! host.advance(Duration::from_secs(1));
//! assert_eq!(host.state::<u64>("front"), Some(2));
//! assert_eq!(host.published("doors/+/count").len(), 2);
//! ```

mod observed;
mod world;

use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use self::observed::{DeadLetter, LogLine, Published};
pub(crate) use self::world::{World, log};
use crate::event::{Event, Property, Qos, Timestamp};
use crate::extract::Json;
use crate::host::Host;
use crate::log::Level;
use crate::message::Payload;
use crate::pattern::filter_matches;
use crate::plugin::{Outcome, Plugin};

/// Times that an event is handed out before it becomes a dead letter, as in the host.
pub const ATTEMPTS: u32 = 5;

/// The pause before the second attempt; it doubles with each further one. (The real host adds some randomness.)
pub const BACK_OFF: Duration = Duration::from_secs(1);

/// Where the clock begins: 2026-01-01T00:00:00Z.
pub const START: Timestamp = Timestamp::from_millis(1_767_225_600_000);

/// Events that one step may handle; more means that the plugin feeds itself without end.
const MAX_EVENTS_PER_STEP: usize = 10_000;

/// A host for one plugin, in a test. See the [module](self).
pub struct TestHost {
    /// The plugin under test.
    plugin: Plugin,
    /// What the plugin sees of its host.
    world: World,
    /// Whether this revision's `init` ran.
    started: bool,
    /// Events that are not handled yet, in the order in which they came.
    inbox: Vec<Waiting>,
    /// See [`TestHost::dead_letters`].
    dead_letters: Vec<DeadLetter>,
    /// Identity of the next event.
    next_id: u64,
    /// The message that came last from outside.
    last: Option<Event>,
    /// See [`TestHost::with_loopback`].
    loopback: bool,
    /// See [`TestHost::lose_next_commit`].
    lose_commit: bool,
}

/// What became of a message right after it was published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// Handled and committed.
    Done,
    /// Failed for now, with the reason: [`TestHost::advance`] the clock to see the next attempt.
    Retry(String),
    /// Rejected, with the reason: it is a dead letter.
    Reject(String),
    /// The handler panicked: in a component a trap, which is tried again.
    Trap(String),
    /// An earlier event on its topic waits for its next attempt, and this one waits behind it.
    Waiting,
    /// No handler listens to its topic.
    NotSubscribed,
}

/// A message to publish to the plugin under test; made by [`TestHost::message`].
#[must_use = "a message arrives only when `publish` is called"]
pub struct TestMessage<'host> {
    /// Where it goes.
    host: &'host mut TestHost,
    /// What it becomes; identity and time are set later.
    event: Event,
}

/// An event that is not handled yet.
struct Waiting {
    /// The event.
    event: Event,
    /// When it is handed out.
    due: Timestamp,
}

impl TestHost {
    /// A host with this plugin, empty state and empty configuration. `init` runs before the first event.
    pub fn new(plugin: Plugin) -> Self {
        Self {
            plugin,
            world: World::new(plugin),
            started: false,
            inbox: Vec::new(),
            dead_letters: Vec::new(),
            next_id: 1,
            last: None,
            loopback: false,
            lose_commit: false,
        }
    }

    /// Sets configuration.
    #[must_use]
    pub fn with_config<K: Into<String>, V: Into<String>>(self, entries: impl IntoIterator<Item = (K, V)>) -> Self {
        let entries = entries.into_iter().map(|(key, value)| (key.into(), value.into()));
        self.world.inner.borrow_mut().config.extend(entries);
        self
    }

    /// Delivers what the plugin publishes to its own subscriptions too, as the broker does.
    #[must_use]
    pub fn with_loopback(mut self) -> Self {
        self.loopback = true;
        self
    }

    /// Lets refused publishes pass: the plugin gets [`PublishError::Denied`](crate::PublishError::Denied), as from the
    /// real host. Without this, such a publish fails the test.
    #[must_use]
    pub fn tolerating_denied(self) -> Self {
        self.world.inner.borrow_mut().tolerate_denied = true;
        self
    }

    /// Runs the plugin's `init`, once; the error is the reason for which a deploy would be refused.
    pub fn start(&mut self) -> Result<(), String> {
        if !self.started {
            let host = self.world.clone();
            let plugin = self.plugin;
            self.call(|| plugin.init(&host)).and_then(|result| result)?;
            self.started = true;
        }
        Ok(())
    }

    /// Runs the plugin's `init`, if it did not run yet, and its `health`.
    pub fn health(&mut self) -> Result<(), String> {
        self.start()?;
        let host = self.world.clone();
        let plugin = self.plugin;
        self.call(|| plugin.health(&host)).and_then(|result| result)
    }

    /// Publishes a JSON message and lets the plugin handle what is due.
    ///
    /// # Panics
    /// If the plugin's `init` fails, and if the plugin publishes what it was not granted.
    pub fn publish(&mut self, topic: impl Into<String>, json: impl Serialize) -> Delivery {
        self.message(topic, Json(json)).publish()
    }

    /// Publishes a message as it is; otherwise as [`publish`](Self::publish).
    pub fn publish_bytes(&mut self, topic: impl Into<String>, payload: impl AsRef<[u8]>) -> Delivery {
        self.message(topic, payload.as_ref()).publish()
    }

    /// A message to set up and then [`publish`](TestMessage::publish).
    ///
    /// # Panics
    /// If the payload cannot be written as JSON.
    pub fn message(&mut self, topic: impl Into<String>, payload: impl Payload) -> TestMessage<'_> {
        let payload = payload.bytes().expect("the payload can be written as JSON").into_owned();
        let event = Event {
            id: 0,
            topic: topic.into(),
            payload,
            qos: Qos::AtLeastOnce,
            retained: false,
            publisher: "test".into(),
            received_at: START,
            attempt: 0,
            properties: Vec::new(),
        };
        TestMessage { host: self, event }
    }

    /// Publishes the last message once more, as a publisher does that did not see the acknowledgement: the same content,
    /// but to the broker a message of its own.
    ///
    /// # Panics
    /// If nothing was published yet.
    pub fn redeliver_last(&mut self) -> Delivery {
        let event = self.last.clone().expect("something was published before");
        self.receive(event)
    }

    /// Loses the next commit, as if the broker died just before it: the handler runs, nothing of it remains, and the
    /// event is handed out again. What a handler does to anything but state and messages shows here.
    pub fn lose_next_commit(&mut self) {
        self.lose_commit = true;
    }

    /// Moves the clock on, and lets the plugin handle what falls due, each at its time.
    pub fn advance(&mut self, duration: Duration) {
        let target = self.now() + duration;
        while let Some(due) = self.next_due().filter(|due| *due <= target) {
            self.world.inner.borrow_mut().now = due;
            self.run();
        }
        self.world.inner.borrow_mut().now = target;
    }

    /// Moves the clock on until no event waits for another attempt.
    pub fn settle(&mut self) {
        while let Some(due) = self.next_due() {
            let now = self.now();
            self.advance(due - now);
        }
    }

    /// The time on the clock.
    pub fn now(&self) -> Timestamp {
        self.world.inner.borrow().now
    }

    /// Lets another version of the plugin take over: state, waiting events and dead letters stay.
    ///
    /// # Panics
    /// If it is not the same plugin.
    pub fn upgrade(&mut self, plugin: Plugin) {
        assert_eq!(plugin.name(), self.plugin.name(), "an upgrade has the same name");
        self.world.inner.borrow_mut().plugin = plugin;
        self.plugin = plugin;
        self.started = false;
    }

    /// What the plugin published to topics that match this filter, in order; only what was committed.
    pub fn published(&self, filter: &str) -> Vec<Published> {
        let inner = self.world.inner.borrow();
        inner.published.iter().filter(|message| filter_matches(filter, &message.topic)).cloned().collect()
    }

    /// Forgets what was published so far.
    pub fn clear_published(&mut self) {
        self.world.inner.borrow_mut().published.clear();
    }

    /// Checks that a message was published to a topic that matches this filter, with this JSON.
    ///
    /// # Panics
    /// If there is none; lists what was published instead.
    #[track_caller]
    pub fn assert_published(&self, filter: &str, json: impl Serialize) {
        let expected = serde_json::to_value(json).expect("the expected value can be written as JSON");
        let found = self.published(filter).iter().any(|message| message.value().as_ref() == Some(&expected));
        assert!(found, "{expected} was not published to `{filter}`; published:{}", self.listing());
    }

    /// Checks that nothing was published to topics that match this filter.
    ///
    /// # Panics
    /// If something was.
    #[track_caller]
    pub fn assert_nothing_published(&self, filter: &str) {
        assert!(self.published(filter).is_empty(), "published to `{filter}`:{}", self.listing());
    }

    /// The committed state of a key.
    ///
    /// # Panics
    /// If the value is not what `T` expects.
    #[track_caller]
    pub fn state<T: DeserializeOwned>(&self, key: &str) -> Option<T> {
        let inner = self.world.inner.borrow();
        let value = inner.state.get(key)?;
        match serde_json::from_slice(value) {
            Ok(value) => Some(value),
            Err(error) => panic!("the state of `{key}` is {}: {error}", String::from_utf8_lossy(value)),
        }
    }

    /// The keys of the committed state that begin with this prefix, in order.
    pub fn state_keys(&self, prefix: &str) -> Vec<String> {
        let inner = self.world.inner.borrow();
        inner.state.keys().filter(|key| key.starts_with(prefix)).cloned().collect()
    }

    /// Sets the state of a key, such as what an earlier version left.
    ///
    /// # Panics
    /// If the value cannot be written as JSON.
    pub fn set_state(&mut self, key: impl Into<String>, value: impl Serialize) {
        let value = serde_json::to_vec(&value).expect("the value can be written as JSON");
        self.world.inner.borrow_mut().state.insert(key.into(), value);
    }

    /// What the plugin logged, also in attempts that failed.
    pub fn logs(&self) -> Vec<LogLine> {
        self.world.inner.borrow().logs.clone()
    }

    /// Events that were given up, in order.
    pub fn dead_letters(&self) -> Vec<DeadLetter> {
        self.dead_letters.clone()
    }

    /// Hands the dead letters out again, as an operator does after a repair.
    pub fn replay_dead(&mut self) {
        for letter in std::mem::take(&mut self.dead_letters) {
            self.enqueue(letter.event);
        }
        self.run();
    }

    /// Events that wait for another attempt, or behind such an event.
    pub fn waiting(&self) -> usize {
        self.inbox.len()
    }

    /// Topics of refused publishes; see [`tolerating_denied`](Self::tolerating_denied).
    pub fn denied(&self) -> Vec<String> {
        self.world.inner.borrow().denied.clone()
    }

    fn receive(&mut self, mut event: Event) -> Delivery {
        assert!(
            !event.topic.is_empty() && !event.topic.contains(['+', '#', '\0']),
            "`{}` is not a topic name",
            event.topic
        );
        event.received_at = self.now();
        self.last = Some(event.clone());
        if !self.plugin.subscribes().any(|filter| filter_matches(filter, &event.topic)) {
            return Delivery::NotSubscribed;
        }
        let id = self.enqueue(event);
        self.run().into_iter().rev().find(|(handled, _)| *handled == id).map_or(Delivery::Waiting, |(_, result)| result)
    }

    fn enqueue(&mut self, mut event: Event) -> u64 {
        event.id = self.next_id;
        event.attempt = 0;
        self.next_id += 1;
        let id = event.id;
        self.inbox.push(Waiting { event, due: self.now() });
        id
    }

    /// Handles what is due, and what follows from it.
    fn run(&mut self) -> Vec<(u64, Delivery)> {
        if let Err(reason) = self.start() {
            panic!("the `init` of {:?} failed: {reason}", self.plugin);
        }
        let mut results = Vec::new();
        while let Some(index) = (0..self.inbox.len()).find(|index| self.is_ready(*index)) {
            assert!(
                results.len() < MAX_EVENTS_PER_STEP,
                "{:?} handled {MAX_EVENTS_PER_STEP} events in one step: it feeds itself",
                self.plugin
            );
            let waiting = self.inbox.remove(index);
            let id = waiting.event.id;
            let result = self.attempt(index, waiting.event);
            results.push((id, result));
        }
        results
    }

    /// Whether an event is due and no earlier one on its topic waits.
    fn is_ready(&self, index: usize) -> bool {
        self.inbox[index].due <= self.now() && !self.is_behind(index)
    }

    fn is_behind(&self, index: usize) -> bool {
        self.inbox[..index].iter().any(|earlier| earlier.event.topic == self.inbox[index].event.topic)
    }

    fn next_due(&self) -> Option<Timestamp> {
        (0..self.inbox.len()).filter(|index| !self.is_behind(*index)).map(|index| self.inbox[index].due).min()
    }

    /// Hands an event out; if it has to come again, it goes back to its place.
    fn attempt(&mut self, index: usize, event: Event) -> Delivery {
        let host = self.world.clone();
        let plugin = self.plugin;
        let handed = event.clone();
        let outcome = self.call(|| plugin.handle(&host, std::iter::once(handed)).remove(0));
        if !self.world.inner.borrow().tolerate_denied
            && let Some(topic) = self.denied().first()
        {
            panic!(
                "{plugin:?} published to `{topic}`, which it was not granted: its `publishes` names {:?}",
                plugin.publishes()
            );
        }
        if std::mem::take(&mut self.lose_commit) {
            self.world.rollback();
            let event = Event { attempt: event.attempt + 1, ..event };
            let due = self.now();
            self.inbox.insert(index, Waiting { event: event.clone(), due });
            let event = self.inbox.remove(index).event;
            return self.attempt(index, event);
        }
        match outcome {
            Ok(Outcome::Done) => {
                self.commit();
                Delivery::Done
            }
            Ok(Outcome::Reject(reason)) => {
                self.world.rollback();
                self.bury(event, &reason);
                Delivery::Reject(reason)
            }
            Ok(Outcome::Retry(reason)) => {
                self.world.rollback();
                self.put_back(index, event, &reason);
                Delivery::Retry(reason)
            }
            Err(panic) => {
                self.world.rollback();
                self.put_back(index, event, &panic);
                Delivery::Trap(panic)
            }
        }
    }

    fn put_back(&mut self, index: usize, mut event: Event, reason: &str) {
        event.attempt += 1;
        if event.attempt >= ATTEMPTS {
            self.bury(event, reason);
        } else {
            let due = self.now() + BACK_OFF * 2_u32.pow(event.attempt - 1);
            self.inbox.insert(index, Waiting { event, due });
        }
    }

    fn bury(&mut self, event: Event, reason: &str) {
        let attempts = event.attempt.max(1);
        self.dead_letters.push(DeadLetter { event, reason: reason.into(), attempts, at: self.now() });
    }

    fn commit(&mut self) {
        let messages = self.world.commit();
        if !self.loopback {
            return;
        }
        for message in messages {
            if self.plugin.subscribes().any(|filter| filter_matches(filter, &message.topic)) {
                self.enqueue(Event {
                    id: 0,
                    topic: message.topic,
                    payload: message.payload,
                    qos: message.qos,
                    retained: false,
                    publisher: format!("$plugin/{}", self.plugin.name()),
                    received_at: message.at,
                    attempt: 0,
                    properties: message.properties,
                });
            }
        }
    }

    /// Calls into the plugin; a panic is an error and a line in the log, as in a component.
    fn call<T>(&mut self, call: impl FnOnce() -> T) -> Result<T, String> {
        let _current = World::enter(&self.world);
        catch(call).inspect_err(|panic| log(Level::Critical, panic))
    }

    fn listing(&self) -> String {
        let inner = self.world.inner.borrow();
        if inner.published.is_empty() {
            return " nothing".into();
        }
        inner.published.iter().map(|message| format!("\n  {message:?}")).collect()
    }
}

impl TestMessage<'_> {
    /// Sets the client identifier of the publisher; without this it is `test`.
    pub fn from_client(mut self, client: impl Into<String>) -> Self {
        self.event.publisher = client.into();
        self
    }

    /// Sets the QoS of the delivery; without this it is QoS 1.
    pub fn qos(mut self, qos: Qos) -> Self {
        self.event.qos = qos;
        self
    }

    /// Makes it a retained message that was there when the plugin subscribed.
    pub fn retained(mut self) -> Self {
        self.event.retained = true;
        self
    }

    /// Adds a property; see [`Property`] for the names.
    pub fn property(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.event.properties.push(Property { name: name.into(), value: value.into() });
        self
    }

    /// Publishes it; otherwise as [`TestHost::publish`].
    pub fn publish(self) -> Delivery {
        self.host.receive(self.event)
    }
}

thread_local! {
    /// Whether a panic of this thread is caught by [`catch`].
    static CATCHING: Cell<bool> = const { Cell::new(false) };
    /// What the panic that is being caught said.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Calls a function; a panic becomes what it said and where.
fn catch<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if CATCHING.get() {
                PANIC.set(Some(crate::panic::describe(info)));
            } else {
                previous(info);
            }
        }));
    });
    let nested = CATCHING.replace(true);
    let result = panic::catch_unwind(AssertUnwindSafe(call));
    CATCHING.set(nested);
    result.map_err(|_| PANIC.take().unwrap_or_else(|| "panicked".into()))
}
