//! A dry run: new code is tried on the plugin's last events, beside the active code, and nothing comes of it.
//!
//! Both run on the same events and the same snapshot of the state, each with what it wrote itself laid over it from call to
//! call. What they say of an event and what they publish is compared. Neither may call hosts, whose world it would change;
//! what they log and measure is dropped.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use vespiary_core::event::InboxEvent;
use vespiary_core::{Message, Timestamp};

use super::super::Plugins;
use super::super::grants::Grants;
use super::super::plugin::{Code, Plugin};
use super::stage::Staged;
use super::{DeployError, DeployReport};
use crate::clock::wall_clock;
use crate::wasm::{CallError, EventResult, StateRead, StateUnavailable};

/// Events handed to a shadow at a time.
const BATCH: usize = 64;
/// How long one of the two may run.
const LONGEST: Duration = Duration::from_secs(30);
/// Differences that are reported.
const DIFFERENCES: usize = 50;
/// Publishes of one event that are reported.
const PUBLISHES: usize = 10;
/// Bytes of a payload that are reported.
const PAYLOAD_BYTES: usize = 256;

/// What a dry run found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DryRunReport {
    /// Events that both were tried on.
    pub events: usize,
    /// Of these, events of which both made the same.
    pub same: usize,
    /// The first differences.
    pub differences: Vec<Difference>,
}

/// An event of which the new code makes something else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The event's identity.
    pub event: u64,
    /// Its topic.
    pub topic: String,
    /// What the active code made of it.
    pub active: Made,
    /// What the new code made of it.
    pub new: Made,
}

/// What code made of an event.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// `done`, `retry`, `reject` or `failed`, with the reason.
    pub outcome: String,
    /// What it published, the first of it.
    pub publishes: Vec<String>,
}

/// What a shadow made of an event.
#[derive(Debug, Clone, PartialEq)]
struct Shadowed {
    outcome: &'static str,
    reason: String,
    publishes: Vec<Message>,
}

/// A snapshot with what a shadow wrote laid over it.
struct ShadowState<S> {
    base: Arc<Mutex<S>>,
    written: Arc<Mutex<BTreeMap<String, Option<Vec<u8>>>>>,
}

impl Plugins {
    /// Tries staged code on the plugin's last events. The plugin is claimed.
    pub(super) fn dry_run(&self, plugin: &Arc<Plugin>, staged: &Staged<'_>) -> Result<DeployReport, DeployError> {
        let refuse = |reason: &str| {
            let (plugin, reason) = (plugin.name.0.to_string(), reason.to_owned());
            DeployError::NotNow { plugin, what: "dry run", reason }
        };
        let (active, state, events) = plugin.run(|run| (run.code.clone(), run.state, run.recent.list()));
        let (Some(active), Some(state)) = (active, state) else {
            return Err(refuse("no revision is active to compare it with"));
        };
        let (has, wants) = (active.grants.state_version, staged.grants.state_version);
        if has != wants {
            let reason = format!("it uses state of version {wants}, and the active revision of version {has}");
            return Err(refuse(&reason));
        }
        let warm = self.warm(plugin, staged)?;
        let now = wall_clock();
        let base = Arc::new(Mutex::new(self.store.snapshot(state, now)?));
        let old = self.shadow(plugin, &active, &base, now, &events)?;
        let new = self.shadow(plugin, &warm.code, &base, now, &events)?;
        drop(base);
        let revision = self.next_revision(plugin, staged.digest, &warm.code.version)?;
        let replaced = plugin.run(|run| run.revision.clone());
        let mut report = self.report(plugin, &revision, &warm.code, replaced);
        report.signed_by.clone_from(&staged.signed_by);
        report.dry_run = Some(compare(&events, &old, &new));
        Ok(report)
    }

    /// Runs code on events of which nothing is to come.
    fn shadow<S: StateRead + 'static>(
        &self,
        plugin: &Plugin,
        code: &Code,
        base: &Arc<Mutex<S>>,
        now: Timestamp,
        events: &[InboxEvent],
    ) -> Result<Vec<Shadowed>, DeployError> {
        let does_not_start = |source| DeployError::DoesNotStart { plugin: plugin.name.0.to_string(), source };
        let grants = Grants { http_hosts: Arc::new([]), ..code.grants.clone() };
        let (compiled, digest, version) = (code.compiled.clone(), code.digest, Arc::clone(&code.version));
        let code = Code { compiled, digest, version, grants, serves: false };
        let make = || self.shadow_instance(plugin, &code).map_err(does_not_start);
        let state = ShadowState { base: Arc::clone(base), written: Arc::default() };
        let (mut instance, began) = (make()?, Instant::now());
        let (mut made, mut batch) = (Vec::new(), BATCH);
        while made.len() < events.len() && began.elapsed() < LONGEST {
            let rest = &events[made.len()..];
            let taken = &rest[..rest.len().min(batch)];
            match instance.handle(now, state.clone(), taken) {
                Ok(handled) => {
                    let before = made.len();
                    for one in handled {
                        let (outcome, reason) = match one.result {
                            EventResult::Done => ("done", String::new()),
                            EventResult::Retry { reason, .. } => ("retry", reason),
                            EventResult::Reject(reason) => ("reject", reason),
                            EventResult::Untouched => break,
                        };
                        for write in one.writes {
                            lock(&state.written).insert(write.key.to_string(), write.value.map(|value| value.to_vec()));
                        }
                        made.push(Shadowed { outcome, reason, publishes: one.publishes });
                    }
                    if made.len() == before {
                        made.push(failed("it left the first event of a batch untouched"));
                    }
                }
                Err(error @ CallError::Exhausted { .. }) => return Err(does_not_start(error)),
                Err(error) => {
                    // One by one, until the culprit is found.
                    if taken.len() == 1 {
                        made.push(failed(&error.to_string()));
                    }
                    batch = if taken.len() == 1 { BATCH } else { 1 };
                    instance = make()?;
                }
            }
        }
        Ok(made)
    }
}

fn failed(reason: &str) -> Shadowed {
    Shadowed { outcome: "failed", reason: reason.to_owned(), publishes: Vec::new() }
}

/// Holds what two shadows made of the same events against each other.
fn compare(events: &[InboxEvent], old: &[Shadowed], new: &[Shadowed]) -> DryRunReport {
    let mut report = DryRunReport::default();
    for ((event, old), new) in events.iter().zip(old).zip(new) {
        report.events += 1;
        if old.outcome == new.outcome && old.publishes == new.publishes {
            report.same += 1;
        } else if report.differences.len() < DIFFERENCES {
            let (event, topic) = (event.sequence.0, event.message.topic.to_string());
            report.differences.push(Difference { event, topic, active: old.made(), new: new.made() });
        }
    }
    report
}

impl Shadowed {
    fn made(&self) -> Made {
        let outcome = match &*self.reason {
            "" => self.outcome.to_owned(),
            reason => format!("{}: {reason}", self.outcome),
        };
        let mut publishes: Vec<String> = self.publishes.iter().take(PUBLISHES).map(published).collect();
        if self.publishes.len() > PUBLISHES {
            publishes.push(format!("and {} more", self.publishes.len() - PUBLISHES));
        }
        Made { outcome, publishes }
    }
}

fn published(message: &Message) -> String {
    let shown = &message.payload[..message.payload.len().min(PAYLOAD_BYTES)];
    let cut = if message.payload.len() > PAYLOAD_BYTES { "..." } else { "" };
    let retained = if message.retain { ", retained" } else { "" };
    format!("{} (QoS {}{retained}): {}{cut}", message.topic, message.qos as u8, String::from_utf8_lossy(shown))
}

impl<S> Clone for ShadowState<S> {
    fn clone(&self) -> Self {
        Self { base: Arc::clone(&self.base), written: Arc::clone(&self.written) }
    }
}

impl<S: StateRead> StateRead for ShadowState<S> {
    fn usage(&self) -> Result<u64, StateUnavailable> {
        lock(&self.base).usage()
    }

    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StateUnavailable> {
        match lock(&self.written).get(key) {
            Some(value) => Ok(value.clone()),
            None => lock(&self.base).get(key),
        }
    }

    fn scan(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Vec<u8>)>, StateUnavailable> {
        let (written, base) = (lock(&self.written), lock(&self.base));
        let mut found = BTreeMap::new();
        // How far the snapshot was read; `None` when to its end.
        let mut end = after.map(str::to_owned);
        loop {
            let page = base.scan(prefix, end.as_deref(), limit)?;
            let full = page.len() == limit && limit > 0;
            end = page.last().filter(|_| full).map(|(key, _)| key.clone());
            found.extend(page.into_iter().filter(|(key, _)| !written.contains_key(key)));
            if !full || found.len() >= limit {
                break;
            }
        }
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            Some(_) | None => Bound::Included(prefix),
        };
        let own = written.range::<str, _>((from, Bound::Unbounded)).take_while(|(key, _)| key.starts_with(prefix));
        let own = own.take_while(|(key, _)| end.as_ref().is_none_or(|end| *key <= end));
        found.extend(own.filter_map(|(key, value)| Some((key.clone(), value.clone()?))));
        Ok(found.into_iter().take(limit).collect())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
