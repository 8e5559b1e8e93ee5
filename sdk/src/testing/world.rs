//! The host's side of a test: state, configuration, grants and the transaction that is open.
//!
//! Implements [`Host`] with the rules of `wit/`; what is committed and what is not is decided by `testing`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::rc::Rc;

use super::observed::{LogLine, Published};
use crate::config::ConfigError;
use crate::event::Timestamp;
use crate::host::{Host, Publication};
use crate::log::Level;
use crate::message::PublishError;
use crate::pattern::filter_matches;
use crate::plugin::Plugin;
use crate::state::StateError;

/// Longest key of the state in bytes, as in the host.
const MAX_KEY_BYTES: usize = 512;

/// Longest value of the state in bytes, as in the host unless it is configured otherwise.
const MAX_VALUE_BYTES: usize = 1 << 20;

/// Most entries of one scan, as in the host.
const MAX_SCAN: u32 = 1_000;

/// What the plugin sees of its host. Clones are the same world.
#[derive(Clone)]
pub(crate) struct World {
    /// All of it; borrowed within one method only.
    pub(super) inner: Rc<RefCell<Inner>>,
}

/// The parts of a [`World`].
pub(crate) struct Inner {
    /// The active revision.
    pub(super) plugin: Plugin,
    /// The clock.
    pub(super) now: Timestamp,
    /// Committed state.
    pub(super) state: BTreeMap<String, Vec<u8>>,
    /// Writes of the open transaction; `None` deletes.
    writes: BTreeMap<String, Option<Vec<u8>>>,
    /// Publishes of the open transaction.
    publishes: Vec<Published>,
    /// Committed publishes.
    pub(super) published: Vec<Published>,
    /// Configuration.
    pub(super) config: BTreeMap<String, String>,
    /// What was logged.
    pub(super) logs: Vec<LogLine>,
    /// Topics of refused publishes.
    pub(super) denied: Vec<String>,
    /// Whether refused publishes do not fail the test.
    pub(super) tolerate_denied: bool,
}

impl World {
    pub(super) fn new(plugin: Plugin) -> Self {
        Self {
            inner: Rc::new(RefCell::new(Inner {
                plugin,
                now: super::START,
                state: BTreeMap::new(),
                writes: BTreeMap::new(),
                publishes: Vec::new(),
                published: Vec::new(),
                config: BTreeMap::new(),
                logs: Vec::new(),
                denied: Vec::new(),
                tolerate_denied: false,
            })),
        }
    }

    /// Commits the open transaction; gives what it published.
    pub(super) fn commit(&self) -> Vec<Published> {
        let inner = &mut *self.inner.borrow_mut();
        for (key, value) in std::mem::take(&mut inner.writes) {
            match value {
                Some(value) => drop(inner.state.insert(key, value)),
                None => drop(inner.state.remove(&key)),
            }
        }
        let publishes = std::mem::take(&mut inner.publishes);
        inner.published.extend(publishes.iter().cloned());
        publishes
    }

    /// Makes this the world that the thread's log lines go to, until the guard is dropped.
    pub(super) fn enter(world: &Self) -> Entered {
        Entered { previous: CURRENT.replace(Some(world.clone())) }
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

/// Logs a line; outside of a [`World`], it is printed only.
pub(crate) fn log(level: Level, message: &str) {
    let world = CURRENT.with_borrow(Clone::clone);
    let context = world.as_ref().map_or("", |world| world.inner.borrow().plugin.name());
    println!("{level:?} {context} {message}");
    if let Some(world) = world {
        let inner = &mut *world.inner.borrow_mut();
        inner.logs.push(LogLine { level, context: context.into(), message: message.into(), at: inner.now });
    }
}

impl Host for World {
    fn begin(&self, _event: u64) {
        self.rollback();
    }

    fn rollback(&self) {
        let inner = &mut *self.inner.borrow_mut();
        inner.writes.clear();
        inner.publishes.clear();
    }

    fn state_get(&self, key: &str) -> Result<Option<Vec<u8>>, StateError> {
        check_key(key)?;
        let inner = self.inner.borrow();
        Ok(match inner.writes.get(key) {
            Some(written) => written.clone(),
            None => inner.state.get(key).cloned(),
        })
    }

    fn state_set(&self, key: &str, value: &[u8]) -> Result<(), StateError> {
        check_key(key)?;
        if value.len() > MAX_VALUE_BYTES {
            let reason = format!("a value has up to {MAX_VALUE_BYTES} bytes, that of `{key}` {}", value.len());
            return Err(StateError::TooLarge(reason));
        }
        self.inner.borrow_mut().writes.insert(key.into(), Some(value.into()));
        Ok(())
    }

    fn state_delete(&self, key: &str) -> Result<(), StateError> {
        check_key(key)?;
        self.inner.borrow_mut().writes.insert(key.into(), None);
        Ok(())
    }

    fn state_scan(&self, prefix: &str, after: Option<&str>, limit: u32) -> Result<Vec<(String, Vec<u8>)>, StateError> {
        let inner = self.inner.borrow();
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let range = (start, Bound::Unbounded);
        let mut entries: BTreeMap<&String, &Vec<u8>> = inner.state.range::<str, _>(range).collect();
        for (key, value) in inner.writes.range::<str, _>(range) {
            match value {
                Some(value) => drop(entries.insert(key, value)),
                None => drop(entries.remove(key)),
            }
        }
        let entries = entries.into_iter().take_while(|(key, _)| key.starts_with(prefix));
        Ok(entries.take(limit.min(MAX_SCAN) as usize).map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn publish(&self, publication: &Publication<'_>) -> Result<(), PublishError> {
        let topic = publication.topic;
        if topic.is_empty() || topic.len() > 65_535 || topic.contains(['+', '#', '\0']) {
            return Err(PublishError::Invalid(format!("`{topic}` is not a topic name")));
        }
        let inner = &mut *self.inner.borrow_mut();
        if !inner.plugin.publishes().iter().any(|filter| filter_matches(filter, topic)) {
            inner.denied.push(topic.into());
            return Err(PublishError::Denied(format!("`{topic}` is not granted")));
        }
        inner.publishes.push(Published {
            topic: topic.into(),
            payload: publication.payload.into(),
            qos: publication.qos,
            retain: publication.retain,
            properties: publication.properties.to_vec(),
            at: inner.now,
        });
        Ok(())
    }

    fn config(&self, key: &str) -> Result<Option<String>, ConfigError> {
        Ok(self.inner.borrow().config.get(key).cloned())
    }

    fn config_all(&self) -> Result<Vec<(String, String)>, ConfigError> {
        let inner = self.inner.borrow();
        Ok(inner.config.iter().map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}

fn check_key(key: &str) -> Result<(), StateError> {
    if key.is_empty() || key.len() > MAX_KEY_BYTES {
        return Err(StateError::TooLarge(format!("a key has 1 to {MAX_KEY_BYTES} bytes, this one {}", key.len())));
    }
    Ok(())
}
