//! The inbox: events in order, attempts, what becomes of them, and what falls due.

use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use super::world::{Timer, World, log};
use super::{ATTEMPTS, BACK_OFF, DeadLetter, Delivery, MAX_EVENTS_PER_STEP, TestHost, component, cron};
use crate::event::{Event, EventKind, Property, Qos, Timestamp};
use crate::handler::Trigger;
use crate::host::Host;
use crate::log::Level;
use crate::message::Payload;
use crate::pattern::{self, MAX_WILDCARDS, filter_matches};
use crate::plugin::Outcome;

/// An event that is not handled yet.
pub(super) struct Waiting {
    /// The event.
    event: Event,
    /// When it is handed out.
    due: Timestamp,
    /// The timer that it is of, if that falls due again.
    again: Option<(String, Timer)>,
}

impl TestHost {
    /// Answers the oldest request of the plugin to a topic that matches this filter.
    ///
    /// # Panics
    /// If none waits.
    #[track_caller]
    pub fn answer(&mut self, filter: &str, payload: impl Payload) -> Delivery {
        let payload = payload.bytes().expect("the payload can be written as JSON").into_owned();
        let Some(request) = self.requests(filter).into_iter().next() else {
            panic!("no request to `{filter}` waits for an answer; published:{}", self.listing());
        };
        self.world.inner.borrow_mut().requests.remove(&request.id);
        let id = self.respond(request.id, payload, None);
        self.delivery_of(id)
    }

    /// Tells the plugin that something happened to a client. `details` is an object with whatever is told beside `client_id`,
    /// `user` and `at`.
    pub fn client_event(&mut self, event: &str, client: &str, details: serde_json::Value) -> Delivery {
        let mut told = serde_json::json!({ "client_id": client, "user": null, "at": self.now() });
        if let (Some(told), serde_json::Value::Object(details)) = (told.as_object_mut(), details) {
            told.extend(details);
        }
        // The topic has the client identifier as one level, as in the host.
        let level: String = client
            .chars()
            .map(|character| match character {
                '/' | '+' | '#' | '%' => format!("%{:02X}", u32::from(character)),
                other => other.to_string(),
            })
            .collect();
        self.message(format!("$clients/{level}/{event}"), crate::Json(told)).from_client("").publish()
    }

    pub(super) fn receive(&mut self, mut event: Event) -> Delivery {
        assert!(
            !event.topic.is_empty() && !event.topic.contains(['+', '#', '\0']),
            "`{}` is not a topic name",
            event.topic
        );
        if event.topic.starts_with("$clients/") {
            event.kind = EventKind::Client;
        }
        event.received_at = self.now();
        self.last = Some(event.clone());
        let Some(filter) = self.plugin.subscribes().find(|filter| filter_matches(filter, &event.topic)) else {
            return Delivery::NotSubscribed;
        };
        event.captures = captures(filter, &event.topic);
        if self.twice {
            self.enqueue(event.clone());
        }
        let id = self.enqueue(event);
        self.delivery_of(id)
    }

    /// Runs, and says what became of an event.
    fn delivery_of(&mut self, id: u64) -> Delivery {
        self.run().into_iter().rev().find(|(handled, _)| *handled == id).map_or(Delivery::Waiting, |(_, result)| result)
    }

    pub(super) fn enqueue(&mut self, event: Event) -> u64 {
        self.enqueue_of(event, None)
    }

    fn enqueue_of(&mut self, mut event: Event, again: Option<(String, Timer)>) -> u64 {
        event.id = self.next_id;
        event.attempt = 0;
        self.next_id += 1;
        let id = event.id;
        self.inbox.push(Waiting { event, due: self.now(), again });
        id
    }

    /// An event that comes from the host itself.
    fn host_event(&self, kind: EventKind, topic: String, payload: Vec<u8>) -> Event {
        Event {
            id: 0,
            kind,
            topic,
            captures: Vec::new(),
            payload,
            qos: Qos::AtLeastOnce,
            retained: false,
            publisher: String::new(),
            user: None,
            received_at: self.now(),
            attempt: 0,
            properties: Vec::new(),
        }
    }

    fn respond(&mut self, request: u64, payload: Vec<u8>, error: Option<&str>) -> u64 {
        let topic = format!("$reply/{}/{request}", self.plugin.name());
        let mut event = self.host_event(EventKind::Response, topic, payload);
        event.properties.push(Property { name: "user:request".into(), value: request.to_string() });
        if let Some(error) = error {
            event.properties.push(Property { name: "user:error".into(), value: error.into() });
        }
        self.enqueue(event)
    }

    /// Puts what falls due now into the inbox: timers and requests without an answer.
    pub(super) fn fire(&mut self) {
        let now = self.now();
        let (timers, requests) = {
            let inner = &mut *self.world.inner.borrow_mut();
            let timers: Vec<(String, Timer)> = inner.timers.extract_if(.., |_, timer| timer.at <= now).collect();
            let requests: Vec<u64> =
                inner.requests.extract_if(.., |_, request| request.due <= now).map(|(id, _)| id).collect();
            (timers, requests)
        };
        for (name, timer) in timers {
            let mut event = self.host_event(EventKind::Timer, format!("$timer/{name}"), timer.payload.clone());
            if let Some(cron) = &timer.cron {
                event.properties.push(Property { name: "user:schedule".into(), value: cron.clone() });
            }
            let again = timer.cron.is_some().then_some((name, timer));
            self.enqueue_of(event, again);
        }
        for request in requests {
            self.respond(request, Vec::new(), Some("timeout"));
        }
    }

    /// Sets the timers of the plugin's schedules, and takes away those that are no more.
    pub(super) fn install_schedules(&mut self, former: &[&str]) {
        let now = self.now();
        let inner = &mut *self.world.inner.borrow_mut();
        for name in former {
            inner.timers.remove(*name);
        }
        for handler in self.plugin.declaration().handlers {
            let Trigger::Schedule { name, cron, payload, .. } = handler.trigger else { continue };
            let at = match cron::next_after(cron, now) {
                Ok(at) => at,
                Err(reason) => panic!("the schedule of `{}` cannot be tested: {reason}", handler.name),
            };
            inner.timers.insert(name.into(), Timer { at, payload: payload.into(), cron: Some(cron.into()) });
        }
    }

    /// Handles what is due, and what follows from it.
    pub(super) fn run(&mut self) -> Vec<(u64, Delivery)> {
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
            let result = self.attempt(index, waiting);
            results.push((id, result));
            self.fire();
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

    /// When the next event is handed out again.
    pub(super) fn next_attempt(&self) -> Option<Timestamp> {
        (0..self.inbox.len()).filter(|index| !self.is_behind(*index)).map(|index| self.inbox[index].due).min()
    }

    /// When something happens by itself.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        let inner = self.world.inner.borrow();
        let timer = inner.timers.values().map(|timer| timer.at).min();
        let request = inner.requests.values().map(|request| request.due).min();
        [self.next_attempt(), timer, request].into_iter().flatten().min()
    }

    /// Hands an event out; if it has to come again, it goes back to its place.
    fn attempt(&mut self, index: usize, waiting: Waiting) -> Delivery {
        let host = self.world.clone();
        let plugin = self.plugin;
        let handed = waiting.event.clone();
        let outcome = if component::stands_for(plugin) {
            self.call(|| component::handle(&host, &handed)).and_then(|result| result)
        } else {
            self.call(|| plugin.handle(&host, std::iter::once(handed)).remove(0))
        };
        self.check_grants();
        if std::mem::take(&mut self.crash) {
            self.world.rollback();
            let event = Event { attempt: waiting.event.attempt + 1, ..waiting.event };
            return self.attempt(index, Waiting { event, ..waiting });
        }
        match outcome {
            Ok(Outcome::Done) => {
                self.commit();
                let touched = std::mem::take(&mut self.world.inner.borrow_mut().touched);
                self.set_again(waiting.again.filter(|(name, _)| !touched.contains(name)));
                Delivery::Done
            }
            Ok(Outcome::Reject(reason)) => {
                self.world.rollback();
                self.bury(waiting, &reason);
                Delivery::Reject(reason)
            }
            Ok(Outcome::Retry { reason, after }) => {
                self.world.rollback();
                let event = &waiting.event;
                let pause = after.unwrap_or(BACK_OFF * 2_u32.saturating_pow(event.attempt));
                self.put_back(index, waiting, pause, &reason);
                Delivery::Retry(reason)
            }
            Err(panic) => {
                self.world.rollback();
                let pause = BACK_OFF * 2_u32.saturating_pow(waiting.event.attempt);
                self.put_back(index, waiting, pause, &panic);
                Delivery::Trap(panic)
            }
        }
    }

    /// Fails the test if something was refused for want of a grant, unless that is tolerated.
    pub(super) fn check_grants(&self) {
        let denied = self.denied();
        if !self.world.inner.borrow().tolerate_denied
            && let Some(done) = denied.first()
        {
            let plugin = self.plugin;
            panic!("{plugin:?} {done}, which it was not granted: its `publishes` names {:?}", plugin.publishes());
        }
    }

    fn put_back(&mut self, index: usize, mut waiting: Waiting, pause: std::time::Duration, reason: &str) {
        waiting.event.attempt += 1;
        if waiting.event.attempt >= ATTEMPTS {
            self.bury(waiting, reason);
        } else {
            waiting.due = self.now() + pause;
            self.inbox.insert(index, waiting);
        }
    }

    fn bury(&mut self, waiting: Waiting, reason: &str) {
        let attempts = waiting.event.attempt.max(1);
        let at = self.now();
        self.dead_letters.push(DeadLetter { event: waiting.event, reason: reason.into(), attempts, at });
        self.set_again(waiting.again);
    }

    /// Sets a timer with a schedule again, unless another of its name was set.
    fn set_again(&mut self, again: Option<(String, Timer)>) {
        let Some((name, mut timer)) = again else { return };
        let now = self.now();
        let inner = &mut *self.world.inner.borrow_mut();
        let cron = timer.cron.as_deref().unwrap_or_default();
        if let (false, Ok(at)) = (inner.timers.contains_key(&name), cron::next_after(cron, now)) {
            timer.at = at;
            inner.timers.insert(name, timer);
        }
    }

    pub(super) fn commit(&mut self) {
        let messages = self.world.commit();
        if !self.loopback {
            return;
        }
        for message in messages {
            let Some(filter) = self.plugin.subscribes().find(|filter| filter_matches(filter, &message.topic)) else {
                continue;
            };
            self.enqueue(Event {
                id: 0,
                kind: EventKind::Message,
                captures: captures(filter, &message.topic),
                topic: message.topic,
                payload: message.payload,
                qos: message.qos,
                retained: false,
                publisher: format!("$plugin/{}", self.plugin.name()),
                user: None,
                received_at: message.at,
                attempt: 0,
                properties: message.properties,
            });
        }
    }

    /// Calls into the plugin; a panic is an error and a line in the log, as in a component.
    pub(super) fn call<T>(&mut self, call: impl FnOnce() -> T) -> Result<T, String> {
        let _current = World::enter(&self.world);
        catch(call).inspect_err(|panic| log(Level::Critical, panic))
    }
}

/// What the wildcards of a filter stand for in a topic.
fn captures(filter: &str, topic: &str) -> Vec<String> {
    let mut captures = [""; MAX_WILDCARDS];
    let wildcards = filter.split('/').filter(|level| ["+", "#"].contains(level)).count();
    pattern::matches(pattern::levels(filter), topic, &mut captures);
    captures.iter().take(wildcards).map(|capture| (*capture).to_owned()).collect()
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
