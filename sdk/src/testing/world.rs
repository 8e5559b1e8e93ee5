//! The host's side of a test: what is committed, and the transaction that is open.
//!
//! Implements [`Host`] with the rules of `wit/`; what is committed and what is not is decided by `testing`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::rc::Rc;
use std::time::Duration;

use super::observed::{LogLine, Measured, Measurement, PendingRequest, Published};
use crate::config::ConfigError;
use crate::event::{Property, Timestamp};
use crate::host::{Host, Publication};
use crate::http::{HttpError, HttpRequest, Response};
use crate::log::Level;
use crate::message::{BrokerError, Message};
use crate::pattern::filter_matches;
use crate::plugin::Plugin;
use crate::secret::SecretError;
use crate::state::StateError;
use crate::timers::TimerError;

/// Longest key of the state in bytes, as in the host.
const MAX_KEY_BYTES: usize = 512;

/// Longest value of the state in bytes, as in the host unless it is configured otherwise.
const MAX_VALUE_BYTES: usize = 1 << 20;

/// Longest name of a timer in bytes, as in the host.
const MAX_TIMER_NAME_BYTES: usize = 256;

/// Most entries of one scan, as in the host.
const MAX_SCAN: u32 = 1_000;

/// What the plugin sees of its host. Clones are the same world.
#[derive(Clone)]
pub(crate) struct World {
    /// All of it; borrowed within one method only.
    pub(super) inner: Rc<RefCell<Inner>>,
}

/// Answers the plugin's requests over HTTP.
pub(super) type HttpServer = Rc<dyn Fn(&HttpRequest) -> Result<Response, HttpError>>;

/// The parts of a [`World`].
pub(crate) struct Inner {
    /// The active revision.
    pub(super) plugin: Plugin,
    /// The clock.
    pub(super) now: Timestamp,
    /// Whether the call may only read: a hook.
    pub(super) read_only: bool,
    /// Committed state; expired entries are there until somebody looks.
    pub(super) state: BTreeMap<String, Stored>,
    /// Committed timers.
    pub(super) timers: BTreeMap<String, Timer>,
    /// Names of timers that the last transaction set or cancelled.
    pub(super) touched: Vec<String>,
    /// Committed requests that wait for an answer.
    pub(super) requests: BTreeMap<u64, PendingRequest>,
    /// Retained messages.
    pub(super) retained: BTreeMap<String, Message>,
    /// Committed publishes.
    pub(super) published: Vec<Published>,
    /// Clients that were disconnected.
    pub(super) disconnected: Vec<String>,
    /// What was measured.
    pub(super) measurements: Vec<Measurement>,
    /// What the open transaction would change.
    pub(super) open: Changes,
    /// Identity of the last request.
    last_request: u64,
    /// Configuration.
    pub(super) config: BTreeMap<String, String>,
    /// Configured secrets.
    pub(super) secrets: BTreeMap<String, String>,
    /// Answers requests over HTTP.
    pub(super) http: Option<HttpServer>,
    /// What was logged.
    pub(super) logs: Vec<LogLine>,
    /// What was refused for want of a grant.
    pub(super) denied: Vec<String>,
    /// Whether refusals do not fail the test.
    pub(super) tolerate_denied: bool,
}

/// A value of the state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stored {
    /// The bytes.
    pub(super) value: Vec<u8>,
    /// When it is gone.
    pub(super) expires: Option<Timestamp>,
}

/// A timer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Timer {
    /// When it falls due.
    pub(super) at: Timestamp,
    /// The payload of its event.
    pub(super) payload: Vec<u8>,
    /// The cron expression, if it falls due again and again.
    pub(super) cron: Option<String>,
}

/// A value, and how long it lasts in milliseconds.
type Written = (Vec<u8>, Option<u64>);

/// What a transaction would change.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Writes; `None` deletes.
    pub(super) writes: BTreeMap<String, Option<Written>>,
    /// Publishes.
    pub(super) publishes: Vec<Published>,
    /// Requests.
    pub(super) requests: Vec<(u64, PendingRequest)>,
    /// Timers; `None` cancels.
    pub(super) timers: BTreeMap<String, Option<Timer>>,
    /// Clients to disconnect.
    pub(super) disconnects: Vec<String>,
}

impl World {
    pub(super) fn new(plugin: Plugin) -> Self {
        Self {
            inner: Rc::new(RefCell::new(Inner {
                plugin,
                now: super::START,
                read_only: false,
                state: BTreeMap::new(),
                timers: BTreeMap::new(),
                touched: Vec::new(),
                requests: BTreeMap::new(),
                retained: BTreeMap::new(),
                published: Vec::new(),
                disconnected: Vec::new(),
                measurements: Vec::new(),
                open: Changes::default(),
                last_request: 0,
                config: BTreeMap::new(),
                secrets: BTreeMap::new(),
                http: None,
                logs: Vec::new(),
                denied: Vec::new(),
                tolerate_denied: false,
            })),
        }
    }

    /// Commits the open transaction; gives what it published.
    pub(super) fn commit(&self) -> Vec<Published> {
        let inner = &mut *self.inner.borrow_mut();
        let Changes { writes, publishes, requests, timers, disconnects } = std::mem::take(&mut inner.open);
        for (key, value) in writes {
            match value {
                Some((value, ttl_ms)) => {
                    let expires = ttl_ms.map(|ttl_ms| inner.now + Duration::from_millis(ttl_ms));
                    inner.state.insert(key, Stored { value, expires });
                }
                None => drop(inner.state.remove(&key)),
            }
        }
        inner.touched = timers.keys().cloned().collect();
        for (name, timer) in timers {
            match timer {
                Some(timer) => drop(inner.timers.insert(name, timer)),
                None => drop(inner.timers.remove(&name)),
            }
        }
        for message in publishes.iter().filter(|message| message.retain) {
            inner.retain(message.to_message());
        }
        inner.requests.extend(requests);
        inner.disconnected.extend(disconnects);
        inner.published.extend(publishes.iter().cloned());
        publishes
    }

    /// Makes this the world that the thread's log lines go to, until the guard is dropped.
    pub(super) fn enter(world: &Self) -> Entered {
        Entered { previous: CURRENT.replace(Some(world.clone())) }
    }

    fn change(&self) -> Result<(), String> {
        if self.inner.borrow().read_only { Err("a hook reads only".into()) } else { Ok(()) }
    }

    fn write(&self, key: &str, value: Option<Written>) -> Result<(), StateError> {
        self.change().map_err(StateError::Unavailable)?;
        check_key(key)?;
        if let Some((value, _)) = &value
            && value.len() > MAX_VALUE_BYTES
        {
            let reason = format!("a value has up to {MAX_VALUE_BYTES} bytes, that of `{key}` {}", value.len());
            return Err(StateError::TooLarge(reason));
        }
        self.inner.borrow_mut().open.writes.insert(key.into(), value);
        Ok(())
    }

    /// Checks a message and makes it one that is published.
    fn checked(&self, publication: &Publication<'_>) -> Result<Published, BrokerError> {
        self.change().map_err(BrokerError::Unavailable)?;
        let topic = publication.topic;
        if topic.is_empty() || topic.len() > 65_535 || topic.contains(['+', '#', '\0']) {
            return Err(BrokerError::Invalid(format!("`{topic}` is not a topic name")));
        }
        let inner = &mut *self.inner.borrow_mut();
        // The broker gave a response topic of `$reply/`, and with it the right to answer.
        let granted =
            topic.starts_with("$reply/") || inner.plugin.publishes().iter().any(|filter| filter_matches(filter, topic));
        if !granted {
            return Err(inner.deny(format!("published to `{topic}`"), format!("`{topic}` is not granted")));
        }
        Ok(Published {
            topic: topic.into(),
            payload: publication.payload.into(),
            qos: publication.qos,
            retain: publication.retain,
            properties: publication.properties.to_vec(),
            at: inner.now,
        })
    }

    fn set_timer(&self, name: &str, timer: Option<Timer>) -> Result<(), TimerError> {
        self.change().map_err(TimerError::Unavailable)?;
        if name.is_empty() || name.len() > MAX_TIMER_NAME_BYTES || name.starts_with('$') {
            let reason =
                format!("a name has 1 to {MAX_TIMER_NAME_BYTES} bytes and does not begin with `$`, not `{name}`");
            return Err(TimerError::Invalid(reason));
        }
        self.inner.borrow_mut().open.timers.insert(name.into(), timer);
        Ok(())
    }

    fn measure(&self, name: &str, labels: &[(&str, &str)], value: Measured) {
        let labels = labels.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        self.inner.borrow_mut().measurements.push(Measurement { name: name.into(), labels, value });
    }
}

impl Inner {
    /// Sets a retained message, or takes it away if it is empty.
    pub(super) fn retain(&mut self, message: Message) {
        if message.payload.is_empty() {
            self.retained.remove(&message.topic);
        } else {
            self.retained.insert(message.topic.clone(), message);
        }
    }

    /// The committed value of a key that has not expired.
    pub(super) fn committed(&self, key: &str) -> Option<&Vec<u8>> {
        self.state.get(key).filter(|stored| self.is_there(stored)).map(|stored| &stored.value)
    }

    /// Whether a value has not expired.
    pub(super) fn is_there(&self, stored: &Stored) -> bool {
        stored.expires.is_none_or(|expires| expires > self.now)
    }

    fn deny(&mut self, done: String, reason: String) -> BrokerError {
        self.denied.push(done);
        BrokerError::Denied(reason)
    }
}

thread_local! {
    /// Where log lines of this thread go.
    static CURRENT: RefCell<Option<World>> = const { RefCell::new(None) };
}

/// While it lives, log lines of the thread go to a world.
pub(super) struct Entered {
    /// Where they went before.
    previous: Option<World>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.set(self.previous.take());
    }
}

/// Logs a line; outside of a [`World`], it is printed only. Secrets are blotted out, as in the host.
pub(crate) fn log(level: Level, message: &str) {
    let Some(world) = CURRENT.with_borrow(Clone::clone) else {
        println!("{level:?} {message}");
        return;
    };
    let inner = &mut *world.inner.borrow_mut();
    let mut message = message.to_owned();
    for secret in inner.secrets.values().filter(|secret| !secret.is_empty()) {
        message = message.replace(secret.as_str(), "[secret]");
    }
    let context = inner.plugin.name();
    println!("{level:?} {context} {message}");
    inner.logs.push(LogLine { level, context: context.into(), message, at: inner.now });
}

/// The value of a secret.
pub(crate) struct SecretHandle(String);

impl SecretHandle {
    pub(crate) fn reveal(&self) -> String {
        self.0.clone()
    }
}

impl Host for World {
    fn begin(&self, _event: u64) {
        self.rollback();
    }

    fn rollback(&self) {
        self.inner.borrow_mut().open = Changes::default();
    }

    fn now(&self) -> Timestamp {
        self.inner.borrow().now
    }

    fn state_get(&self, key: &str) -> Result<Option<Vec<u8>>, StateError> {
        check_key(key)?;
        let inner = self.inner.borrow();
        Ok(match inner.open.writes.get(key) {
            Some(written) => written.as_ref().map(|(value, _)| value.clone()),
            None => inner.committed(key).cloned(),
        })
    }

    fn state_set(&self, key: &str, value: &[u8]) -> Result<(), StateError> {
        self.write(key, Some((value.into(), None)))
    }

    fn state_set_for(&self, key: &str, value: &[u8], ttl_ms: u64) -> Result<(), StateError> {
        self.write(key, Some((value.into(), Some(ttl_ms))))
    }

    fn state_swap(&self, key: &str, expected: Option<&[u8]>, value: Option<&[u8]>) -> Result<bool, StateError> {
        let matches = self.state_get(key)?.as_deref() == expected;
        if matches {
            self.write(key, value.map(|value| (value.into(), None)))?;
        }
        Ok(matches)
    }

    fn state_add(&self, key: &str, amount: i64) -> Result<i64, StateError> {
        let before = match self.state_get(key)? {
            None => 0,
            Some(value) => {
                let number = std::str::from_utf8(&value).ok().and_then(|text| text.parse::<i64>().ok());
                number.ok_or_else(|| StateError::Mismatch(format!("the value of `{key}` is no integer")))?
            }
        };
        let overflow = || StateError::Mismatch(format!("the sum of `{key}` does not fit into 64 bits"));
        let sum = before.checked_add(amount).ok_or_else(overflow)?;
        self.write(key, Some((sum.to_string().into_bytes(), None)))?;
        Ok(sum)
    }

    fn state_delete(&self, key: &str) -> Result<(), StateError> {
        self.write(key, None)
    }

    fn state_scan(&self, prefix: &str, after: Option<&str>, limit: u32) -> Result<Vec<(String, Vec<u8>)>, StateError> {
        let inner = self.inner.borrow();
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let range = (start, Bound::Unbounded);
        let committed = inner.state.range::<str, _>(range).filter(|(_, stored)| inner.is_there(stored));
        let mut entries: BTreeMap<&String, &Vec<u8>> = committed.map(|(key, stored)| (key, &stored.value)).collect();
        for (key, value) in inner.open.writes.range::<str, _>(range) {
            match value {
                Some((value, _)) => drop(entries.insert(key, value)),
                None => drop(entries.remove(key)),
            }
        }
        let entries = entries.into_iter().take_while(|(key, _)| key.starts_with(prefix));
        Ok(entries.take(limit.min(MAX_SCAN) as usize).map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn publish(&self, publication: &Publication<'_>) -> Result<(), BrokerError> {
        let message = self.checked(publication)?;
        self.inner.borrow_mut().open.publishes.push(message);
        Ok(())
    }

    fn request(&self, publication: &Publication<'_>, timeout_ms: u64) -> Result<u64, BrokerError> {
        let mut message = self.checked(publication)?;
        let inner = &mut *self.inner.borrow_mut();
        inner.last_request += 1;
        let id = inner.last_request;
        let reply_to = format!("$reply/{}/{id}", inner.plugin.name());
        message.properties.push(Property { name: "response-topic".into(), value: reply_to });
        let due = inner.now + Duration::from_millis(timeout_ms);
        inner.open.requests.push((id, PendingRequest { id, message: message.clone(), due }));
        inner.open.publishes.push(message);
        Ok(id)
    }

    fn disconnect(&self, client: &str) -> Result<(), BrokerError> {
        self.change().map_err(BrokerError::Unavailable)?;
        let inner = &mut *self.inner.borrow_mut();
        if !inner.plugin.declaration().disconnects {
            return Err(inner.deny(format!("disconnected `{client}`"), "the plugin may not disconnect clients".into()));
        }
        inner.open.disconnects.push(client.into());
        Ok(())
    }

    fn retained(&self, topic: &str) -> Result<Option<Message>, BrokerError> {
        let inner = &mut *self.inner.borrow_mut();
        if !inner.plugin.subscribes().any(|filter| filter_matches(filter, topic)) {
            let reason = format!("`{topic}` is not among the plugin's subscriptions");
            return Err(inner.deny(format!("looked up what is retained on `{topic}`"), reason));
        }
        Ok(inner.retained.get(topic).cloned())
    }

    fn timer_set(&self, name: &str, at: Timestamp, payload: &[u8]) -> Result<(), TimerError> {
        self.set_timer(name, Some(Timer { at, payload: payload.into(), cron: None }))
    }

    fn timer_schedule(&self, name: &str, cron: &str, payload: &[u8]) -> Result<(), TimerError> {
        let at = super::cron::next_after(cron, Host::now(self)).map_err(TimerError::Invalid)?;
        self.set_timer(name, Some(Timer { at, payload: payload.into(), cron: Some(cron.into()) }))
    }

    fn timer_cancel(&self, name: &str) -> Result<(), TimerError> {
        self.set_timer(name, None)
    }

    fn count(&self, name: &str, labels: &[(&str, &str)], amount: u64) {
        self.measure(name, labels, Measured::Count(amount));
    }

    fn gauge(&self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.measure(name, labels, Measured::Gauge(value));
    }

    fn observe(&self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.measure(name, labels, Measured::Observation(value));
    }

    fn secret(&self, name: &str) -> Result<SecretHandle, SecretError> {
        let inner = &mut *self.inner.borrow_mut();
        if !inner.plugin.declaration().secrets.contains(&name) {
            inner.denied.push(format!("asked for the secret `{name}`"));
            return Err(SecretError::Denied(format!("`{name}` is not granted")));
        }
        let value = inner.secrets.get(name).cloned();
        value.map(SecretHandle).ok_or_else(|| SecretError::Missing(format!("`{name}` is not configured")))
    }

    fn config(&self, key: &str) -> Result<Option<String>, ConfigError> {
        Ok(self.inner.borrow().config.get(key).cloned())
    }

    fn config_all(&self) -> Result<Vec<(String, String)>, ConfigError> {
        let inner = self.inner.borrow();
        Ok(inner.config.iter().map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn send_http(&self, request: &HttpRequest) -> Result<Response, HttpError> {
        let server = {
            let inner = &mut *self.inner.borrow_mut();
            if !inner.plugin.declaration().http_hosts.iter().any(|host| is_of(&request.url, host)) {
                inner.denied.push(format!("made a request to `{}`", request.url));
                return Err(HttpError::Denied(format!("`{}` is not among the plugin's `http_hosts`", request.url)));
            }
            inner.http.clone()
        };
        match server {
            Some(server) => server(request),
            None => Err(HttpError::Failed("nobody answers: see `TestHost::answer_http`".into())),
        }
    }
}

/// Whether a URL is one of a granted server's.
fn is_of(url: &str, granted: &str) -> bool {
    let Some((scheme, rest)) = url.split_once("://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let Some((granted_scheme, granted)) = granted.split_once("://") else { return false };
    let named = match granted.strip_prefix("*.") {
        Some(domain) => authority.strip_suffix(domain).is_some_and(|name| name.len() > 1 && name.ends_with('.')),
        None => authority == granted,
    };
    scheme == granted_scheme && named
}

fn check_key(key: &str) -> Result<(), StateError> {
    if key.is_empty() || key.len() > MAX_KEY_BYTES {
        return Err(StateError::TooLarge(format!("a key has 1 to {MAX_KEY_BYTES} bytes, this one {}", key.len())));
    }
    Ok(())
}
