//! Runs a plugin natively, against a host that exists only in the test, with a clock that only the test moves.
//!
//! [`TestHost`] keeps the promises of the real host: an event's writes and publishes are committed together or dropped, a
//! failed event comes again after a pause and blocks later ones on its topic only, a rejected one becomes a dead letter,
//! and publishing needs a grant. With `vespiary test --wasm`, events, migrations, routes and hooks run in the component, in the
//! real sandbox. It is not a broker: there are no other clients and no subscribers, events are handled one at a time, and memory and
//! time are not limited.
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

mod asks;
mod component;
mod cron;
mod inbox;
mod observed;
mod upgrades;
mod world;

use std::rc::Rc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use self::asks::TestCall;
use self::inbox::Waiting;
pub use self::observed::{DeadLetter, LogLine, Measured, Measurement, PendingRequest, Published};
use self::world::Stored;
pub(crate) use self::world::{SecretHandle, World, log};
use crate::event::{Event, EventKind, Property, Qos, Timestamp};
use crate::extract::Json;
use crate::http::{HttpError, HttpRequest, Response};
use crate::message::{Message, Payload};
use crate::pattern::filter_matches;
use crate::plugin::Plugin;

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
    /// Whether the schedules of the first revision are still to be set.
    fresh: bool,
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
    /// See [`TestHost::crash_after_next_call`].
    crash: bool,
    /// See [`TestHost::deliver_twice`].
    twice: bool,
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

impl TestHost {
    /// A host with this plugin, empty state and empty configuration. `init` runs before the first event.
    pub fn new(plugin: Plugin) -> Self {
        Self {
            plugin,
            world: World::new(plugin),
            started: false,
            fresh: true,
            inbox: Vec::new(),
            dead_letters: Vec::new(),
            next_id: 1,
            last: None,
            loopback: false,
            crash: false,
            twice: false,
        }
    }

    /// Sets configuration.
    #[must_use]
    pub fn with_config<K: Into<String>, V: Into<String>>(self, entries: impl IntoIterator<Item = (K, V)>) -> Self {
        let entries = entries.into_iter().map(|(key, value)| (key.into(), value.into()));
        self.world.inner.borrow_mut().config.extend(entries);
        self
    }

    /// Configures a secret.
    #[must_use]
    pub fn with_secret(self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.world.inner.borrow_mut().secrets.insert(name.into(), value.into());
        self
    }

    /// Delivers what the plugin publishes to its own subscriptions too, as the broker does.
    #[must_use]
    pub fn with_loopback(mut self) -> Self {
        self.loopback = true;
        self
    }

    /// Lets what is not granted pass: the plugin gets [`BrokerError::Denied`](crate::BrokerError::Denied) or the like, as from
    /// the real host. Without this, it fails the test.
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
            if component::stands_for(plugin) {
                self.call(|| component::init(&host)).and_then(|result| result)?;
            } else {
                self.call(|| plugin.init(&host)).and_then(|result| result)?;
            }
            self.started = true;
            if std::mem::take(&mut self.fresh) {
                self.install_schedules(&[]);
            }
        }
        Ok(())
    }

    /// Runs the plugin's `init`, if it did not run yet, and its `health`.
    pub fn health(&mut self) -> Result<(), String> {
        self.start()?;
        let host = self.world.clone();
        let plugin = self.plugin;
        if component::stands_for(plugin) {
            return self.call(|| component::health(&host)).and_then(|result| result);
        }
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
            kind: EventKind::Message,
            topic: topic.into(),
            captures: Vec::new(),
            payload,
            qos: Qos::AtLeastOnce,
            retained: false,
            publisher: "test".into(),
            user: None,
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

    /// Lets everything that is published to the plugin from now on arrive twice, as publishers with QoS 1 may do it.
    pub fn deliver_twice(&mut self) {
        self.twice = true;
    }

    /// Loses the next commit, as if the broker died just before it: the handler runs, nothing of it remains, and the
    /// event is handed out again. What a handler does to anything but state, messages and timers shows here.
    pub fn crash_after_next_call(&mut self) {
        self.crash = true;
    }

    /// Moves the clock on, and lets the plugin handle what falls due, each at its time: attempts, timers, requests that time
    /// out.
    ///
    /// # Panics
    /// If the plugin's `init` fails.
    pub fn advance(&mut self, duration: Duration) {
        self.run();
        let target = self.now() + duration;
        while let Some(due) = self.next_due().filter(|due| *due <= target) {
            self.world.inner.borrow_mut().now = due;
            self.fire();
            self.run();
        }
        self.world.inner.borrow_mut().now = target;
    }

    /// Moves the clock on until no event waits for another attempt. Timers and requests that fall due on the way do so; those
    /// that are further away stay.
    pub fn settle(&mut self) {
        while let Some(due) = self.next_attempt() {
            let now = self.now();
            self.advance(due - now);
        }
    }

    /// The time on the clock.
    pub fn now(&self) -> Timestamp {
        self.world.inner.borrow().now
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
        let found = self.published(filter);
        if found.iter().any(|message| message.value().as_ref() == Some(&expected)) {
            return;
        }
        let on_topic: String = found.iter().map(|message| format!("\n  {}", message.text())).collect();
        if on_topic.is_empty() {
            panic!("nothing was published to `{filter}`\nexpected:\n  {expected}\npublished:{}", self.listing());
        }
        panic!("not published to `{filter}`\nexpected:\n  {expected}\nactual:{on_topic}");
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
        let value = inner.committed(key)?;
        match serde_json::from_slice(value) {
            Ok(value) => Some(value),
            Err(error) => panic!("the state of `{key}` is {}: {error}", String::from_utf8_lossy(value)),
        }
    }

    /// The keys of the committed state that begin with this prefix, in order.
    pub fn state_keys(&self, prefix: &str) -> Vec<String> {
        let inner = self.world.inner.borrow();
        let there = inner.state.iter().filter(|(key, stored)| key.starts_with(prefix) && inner.is_there(stored));
        there.map(|(key, _)| key.clone()).collect()
    }

    /// Sets the state of a key, such as what an earlier version left.
    ///
    /// # Panics
    /// If the value cannot be written as JSON.
    pub fn set_state(&mut self, key: impl Into<String>, value: impl Serialize) {
        let value = serde_json::to_vec(&value).expect("the value can be written as JSON");
        self.world.inner.borrow_mut().state.insert(key.into(), Stored { value, expires: None });
    }

    /// Checks the committed state of a key: this JSON, or `null` for none.
    ///
    /// # Panics
    /// If it is another; shows both, and which keys there are.
    #[track_caller]
    pub fn assert_state(&self, key: &str, json: impl Serialize) {
        let expected = serde_json::to_value(json).expect("the expected value can be written as JSON");
        let actual = self.state::<serde_json::Value>(key).unwrap_or_default();
        if actual != expected {
            let keys = self.state_keys("").join(", ");
            panic!("the state of `{key}`\nexpected:\n  {expected}\nactual:\n  {actual}\nkeys: {keys}");
        }
    }

    /// Checks that no event was given up.
    ///
    /// # Panics
    /// If one was; says why.
    #[track_caller]
    pub fn assert_no_dead_letters(&self) {
        let letters: String = self
            .dead_letters
            .iter()
            .map(|letter| format!("\n  {} after {} attempts: {}", letter.event.topic(), letter.attempts, letter.reason))
            .collect();
        assert!(letters.is_empty(), "events were given up:{letters}");
    }

    /// Sets a retained message, which the plugin may look up; with an empty payload, takes it away.
    pub fn retain(&mut self, topic: impl Into<String>, payload: impl Payload) {
        let payload = payload.bytes().expect("the payload can be written as JSON").into_owned();
        let message =
            Message { topic: topic.into(), payload, qos: Qos::AtLeastOnce, retain: true, properties: Vec::new() };
        self.world.inner.borrow_mut().retain(message);
    }

    /// The names of the timers that are set, and when they fall due.
    pub fn timers(&self) -> Vec<(String, Timestamp)> {
        self.world.inner.borrow().timers.iter().map(|(name, timer)| (name.clone(), timer.at)).collect()
    }

    /// Requests of the plugin that wait for an answer, in order.
    pub fn requests(&self, filter: &str) -> Vec<PendingRequest> {
        let inner = self.world.inner.borrow();
        inner.requests.values().filter(|request| filter_matches(filter, &request.message.topic)).cloned().collect()
    }

    /// Clients that the plugin disconnected, in order.
    pub fn disconnected(&self) -> Vec<String> {
        self.world.inner.borrow().disconnected.clone()
    }

    /// What the plugin measured, in order; also in attempts that failed.
    pub fn measurements(&self) -> Vec<Measurement> {
        self.world.inner.borrow().measurements.clone()
    }

    /// Sets who answers the plugin's requests over HTTP.
    pub fn answer_http(&mut self, server: impl Fn(&HttpRequest) -> Result<Response, HttpError> + 'static) {
        self.world.inner.borrow_mut().http = Some(Rc::new(server));
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

    /// What was refused for want of a grant, such as "published to `elsewhere`"; see [`tolerating_denied`](Self::tolerating_denied).
    pub fn denied(&self) -> Vec<String> {
        self.world.inner.borrow().denied.clone()
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

    /// Sets the user name of the publisher.
    pub fn from_user(mut self, user: impl Into<String>) -> Self {
        self.event.user = Some(user.into());
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
