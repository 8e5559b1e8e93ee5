//! HTTP services of plugins: a request is a call like any other, which belongs to no event.
//!
//! It reads the plugin's state, and what it writes, publishes and sets is one transaction; the response is given once that is
//! on disk. An error of the server (500 and above) leaves nothing behind. A plugin with one lane does one thing at a time: a
//! request waits for the batch that is out, and the next batch for the request, in turn. With several lanes a request runs
//! beside them, and again if it has read what they wrote since.
//!
//! Requests run on threads of their own. Each plugin takes a bounded number of them at a time, and refuses more.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use vespiary_core::event::{CommitTicket, Lane, PluginName, SessionId, Settlement};
use vespiary_core::{ChangeNumber, Input};

use super::Plugins;
use super::conflicts::{Caller, NotedState, Reads};
use super::deploy::COMMIT_TIMEOUT;
use super::plugin::{Code, Phase, Plugin, Run};
use super::pool::Job;
use crate::clock::wall_clock;
use crate::wasm::{CallError, Instance, Interrupter, LogLevel, Served};

/// How long a request may wait for its turn: for a batch that is out, for a swap.
const TURN_TIMEOUT: Duration = Duration::from_secs(30);
/// Times that a request runs again because of what other lanes wrote.
const ATTEMPTS: u32 = 8;

/// Why a request to a service was not answered by it.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// There is no such plugin, or it has no service.
    #[error("no plugin {0:?} with an HTTP service is deployed")]
    Unknown(String),
    /// It does not run at present, or is busy beyond its bound.
    #[error("the service of plugin {plugin} is not available: {reason}")]
    Unavailable {
        /// The plugin.
        plugin: String,
        /// Why.
        reason: String,
    },
    /// The call failed; nothing came of it.
    #[error("the service of plugin {plugin} failed: {reason}")]
    Failed {
        /// The plugin.
        plugin: String,
        /// Why.
        reason: String,
    },
    /// It ran longer than a call may; nothing came of it.
    #[error("the service of plugin {plugin} took too long: {reason}")]
    TooSlow {
        /// The plugin.
        plugin: String,
        /// The bound.
        reason: String,
    },
    /// What it did is not known to be on disk.
    #[error("what the service of plugin {0} did was not confirmed in time")]
    Unconfirmed(String),
}

/// The requests to one plugin.
#[derive(Default)]
pub(super) struct Service {
    /// Requests that came and are not answered.
    admitted: usize,
    /// Requests that wait for their turn.
    waiting: usize,
    /// Requests whose call is under way or not yet with the broker.
    running: usize,
    /// Number of the last request, and of its commit.
    last: u64,
    /// Interrupts the calls under way, by request.
    interrupters: BTreeMap<u64, Interrupter>,
    /// Commits that the broker was asked for, with the change once it has answered.
    commits: BTreeMap<u64, Option<ChangeNumber>>,
    /// Warm instances.
    instances: Vec<Instance>,
}

/// A request whose turn it is.
struct Turn {
    number: u64,
    code: Arc<Code>,
    state: SessionId,
    instance: Option<Instance>,
    /// What may have been read, and must be on disk before anybody is told of it.
    read: ChangeNumber,
    /// Whether other calls run beside it.
    concurrent: bool,
}

/// What came of one attempt.
enum Attempt {
    Answered(Box<http::Response<Bytes>>),
    Conflict,
}

impl Plugins {
    /// Hands a request to a plugin's service; the response comes once what the service did is on disk.
    pub async fn serve(
        self: &Arc<Self>,
        name: &PluginName,
        request: http::Request<Bytes>,
    ) -> Result<http::Response<Bytes>, ServiceError> {
        let plugin = self.find(name).ok_or_else(|| ServiceError::Unknown(name.0.to_string()))?;
        plugin.run(|run| run.admit(&plugin.name, self.options.http_requests))?;
        let (answer, answered) = tokio::sync::oneshot::channel();
        let (plugins, served) = (Arc::clone(self), Arc::clone(&plugin));
        let begun = self.threads.run(move || {
            let result = plugins.answer(&served, &request);
            served.run(|run| {
                run.service.admitted -= 1;
                let counter = if result.is_ok() { &mut run.counts.served } else { &mut run.counts.failed_requests };
                *counter += 1;
            });
            // An error means that the client has gone; what was done is done.
            let _ = answer.send(result);
        });
        if !begun {
            plugin.run(|run| run.service.admitted -= 1);
        }
        let unavailable = || unavailable(name, "the broker is stopping");
        answered.await.unwrap_or_else(|_| Err(unavailable()))
    }

    fn answer(
        &self,
        plugin: &Arc<Plugin>,
        request: &http::Request<Bytes>,
    ) -> Result<http::Response<Bytes>, ServiceError> {
        for _ in 0..ATTEMPTS {
            match self.attempt(plugin, request)? {
                Attempt::Answered(response) => return Ok(*response),
                Attempt::Conflict => {}
            }
        }
        Err(unavailable(&plugin.name, "its lanes write faster than it reads"))
    }

    fn attempt(&self, plugin: &Arc<Plugin>, request: &http::Request<Bytes>) -> Result<Attempt, ServiceError> {
        plugin.run(|run| run.service.waiting += 1);
        let turn = plugin.wait(TURN_TIMEOUT, |run| run.take_turn(&plugin.name).transpose());
        plugin.run(|run| run.service.waiting -= 1);
        let turn = turn.unwrap_or_else(|| Err(unavailable(&plugin.name, "its turn did not come in time")));
        if turn.is_err() {
            self.release(plugin);
        }
        let mut turn = turn?;
        let called = self.call(plugin, &mut turn, request);
        let read = turn.read;
        let result = called.map(|(served, reads)| self.hand_over(plugin, &turn, served, &reads));
        // Until the broker has taken what it did, nothing else may read the state of a plugin with one lane.
        let committed = match &result {
            Ok(Some((_, true))) => {
                let number = turn.number;
                plugin.wait(COMMIT_TIMEOUT, |run| run.service.take_commit(number))
            }
            Ok(Some((_, false)) | None) | Err(_) => Some(ChangeNumber(0)),
        };
        self.end_turn(plugin, turn);
        if result.is_err() {
            // What it says of why may tell what it read. Where that never gets to the disk, the error stands all the same.
            self.pool.wait_durable(read, COMMIT_TIMEOUT);
        }
        match result? {
            None => Ok(Attempt::Conflict),
            Some((response, _)) => match committed {
                // What it read may be no more than handed over.
                Some(after) if self.pool.wait_durable(after.max(read), COMMIT_TIMEOUT) => {
                    Ok(Attempt::Answered(Box::new(response)))
                }
                Some(_) | None => Err(ServiceError::Unconfirmed(plugin.name.0.to_string())),
            },
        }
    }

    fn call(
        &self,
        plugin: &Plugin,
        turn: &mut Turn,
        request: &http::Request<Bytes>,
    ) -> Result<(Served, Reads), ServiceError> {
        let failed = |error: &CallError| failure(&plugin.name, error);
        let mut instance = match turn.instance.take() {
            Some(instance) => instance,
            None => self.warm_instance(plugin, &turn.code).map_err(|error| failed(&error))?,
        };
        let (interrupter, now, seen) = (instance.interrupter(), wall_clock(), self.store.handed_over());
        plugin.run(|run| {
            run.service.interrupters.insert(turn.number, interrupter);
            if turn.concurrent {
                run.conflicts.begin(Caller::Request(turn.number), seen);
            }
        });
        let reading = self.read(turn.state, now, turn.code.grants.may_wait());
        let reading = reading.map_err(|error| unavailable(&plugin.name, &error.to_string()))?;
        turn.read = reading.up_to;
        let failures = reading.failures();
        let (state, reads) = NotedState::new(reading.snapshot);
        let result = instance.serve(now, state, request.clone());
        if result.as_ref().is_err_and(CallError::is_fatal) {
            drop(instance);
        } else {
            turn.instance = Some(instance);
        }
        if self.was_cut_off(failures) {
            return Err(unavailable(&plugin.name, "the store failed under it"));
        }
        let served = result.map_err(|error| {
            let reason = error.to_string();
            plugin.run(|run| {
                run.note_failure(now, &reason);
                run.counts.failed_calls += 1;
            });
            let (method, path) = (request.method(), request.uri().path());
            plugin.log.note(LogLevel::Warn, format!("a request failed: {method} {path}: {reason}"));
            failed(&error)
        })?;
        Ok((served, Reads::take(&reads)))
    }

    /// Hands what a request did to the broker; `None` where it read what other lanes have written since. Else the response, and
    /// whether there is anything to wait for.
    fn hand_over(
        &self,
        plugin: &Plugin,
        turn: &Turn,
        served: Served,
        reads: &Reads,
    ) -> Option<(http::Response<Bytes>, bool)> {
        let Served { response, publishes, writes, timers, disconnects, denied } = served;
        let settlement = Settlement { outcomes: Vec::new(), publishes, writes, timers, disconnects };
        let now = wall_clock();
        plugin.run(|run| {
            if turn.concurrent && run.conflicts.end(Caller::Request(turn.number), reads) {
                run.counts.conflicts += 1;
                return None;
            }
            run.counts.denied += u64::from(denied);
            if settlement == Settlement::default() {
                return Some((response, false));
            }
            run.note_writes(&settlement.writes);
            run.schedules.touch(now, &settlement.timers);
            run.counts.settle(&settlement);
            run.service.commits.insert(turn.number, None);
            let (name, ticket) = (plugin.name.clone(), CommitTicket(turn.number));
            self.post(Input::Commit { plugin: name, ticket, settlement: Box::new(settlement) });
            Some((response, true))
        })
    }

    /// A request's turn is over; a batch that waited for it runs.
    fn end_turn(&self, plugin: &Arc<Plugin>, turn: Turn) {
        plugin.run(|run| {
            run.service.interrupters.remove(&turn.number);
            run.service.commits.remove(&turn.number);
            run.service.running -= 1;
            if turn.concurrent {
                run.conflicts.end(Caller::Request(turn.number), &Reads::default());
            }
            let current = run.code.as_ref().is_some_and(|code| Arc::ptr_eq(code, &turn.code));
            if current {
                run.service.instances.extend(turn.instance);
            }
        });
        self.release(plugin);
    }

    /// A batch that waited for a request runs.
    fn release(&self, plugin: &Arc<Plugin>) {
        let waited = plugin.run(|run| {
            if run.service.running > 0 {
                return None;
            }
            let events = run.lane(Lane(0)).and_then(|lane| lane.held.take())?;
            let may_wait = run.code.as_ref().is_some_and(|code| code.grants.may_wait());
            let after = run.lane(Lane(0)).map_or(ChangeNumber(0), |lane| lane.waits_for());
            Some((events, may_wait, after))
        });
        if let Some((events, may_wait, after)) = waited {
            self.pool.submit(Job { plugin: Arc::clone(plugin), lane: Lane(0), may_wait, events }, after);
        }
    }
}

impl Run {
    /// Lets a request in, if there is a service and room for it.
    fn admit(&mut self, name: &PluginName, most: usize) -> Result<(), ServiceError> {
        if !self.code.as_ref().is_some_and(|code| code.serves) {
            return Err(ServiceError::Unknown(name.0.to_string()));
        }
        self.may_serve(name)?;
        if self.service.admitted >= most {
            return Err(unavailable(name, "it has as many requests as it takes (plugins.http_requests)"));
        }
        self.service.admitted += 1;
        Ok(())
    }

    fn may_serve(&self, name: &PluginName) -> Result<(), ServiceError> {
        match &self.broken {
            Some(reason) => Err(unavailable(name, reason)),
            None if self.paused => Err(unavailable(name, "it is paused by the operator")),
            None => Ok(()),
        }
    }

    /// The turn of a request, if it is its turn now.
    fn take_turn(&mut self, name: &PluginName) -> Result<Option<Turn>, ServiceError> {
        self.may_serve(name)?;
        let concurrent = self.is_concurrent();
        let free = concurrent
            || (self.service.running == 0
                && self.lanes.first().is_some_and(|lane| match lane.phase {
                    Phase::Resting | Phase::Asking => true,
                    Phase::Busy => lane.held.is_some(),
                    // What was settled is not yet handed over, and cannot be read.
                    Phase::Settling { .. } => false,
                }));
        let (Some(code), Some(state)) = (self.code.clone(), self.state) else { return Ok(None) };
        if self.swapping || !free {
            return Ok(None);
        }
        if !code.serves {
            return Err(ServiceError::Unknown(name.0.to_string()));
        }
        self.service.last += 1;
        self.service.running += 1;
        let (number, instance, read) = (self.service.last, self.service.instances.pop(), ChangeNumber(0));
        Ok(Some(Turn { number, code, state, instance, read, concurrent }))
    }
}

impl Service {
    /// Whether no call is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.running == 0
    }

    /// Whether a batch of a plugin with one lane has to wait for a request.
    pub(super) fn has_turn(&self) -> bool {
        self.running > 0 || self.waiting > 0
    }

    /// Interrupts every call that is under way.
    pub(super) fn interrupt(&mut self) {
        for (_, interrupter) in std::mem::take(&mut self.interrupters) {
            interrupter.interrupt();
        }
    }

    /// The broker has taken what a request did.
    pub(super) fn committed(&mut self, ticket: CommitTicket, after: ChangeNumber) {
        if let Some(change) = self.commits.get_mut(&ticket.0) {
            *change = Some(after);
        }
    }

    /// Gives its instances away: their code is not active any more.
    pub(super) fn retire(&mut self) -> Vec<Instance> {
        std::mem::take(&mut self.instances)
    }

    fn take_commit(&mut self, number: u64) -> Option<ChangeNumber> {
        let after = self.commits.get(&number).copied().flatten()?;
        self.commits.remove(&number);
        Some(after)
    }
}

fn unavailable(plugin: &PluginName, reason: &str) -> ServiceError {
    ServiceError::Unavailable { plugin: plugin.0.to_string(), reason: reason.to_owned() }
}

fn failure(plugin: &PluginName, error: &CallError) -> ServiceError {
    let (plugin, reason) = (plugin.0.to_string(), error.to_string());
    match error {
        CallError::Deadline { .. } => ServiceError::TooSlow { plugin, reason },
        CallError::Exhausted { .. } | CallError::Interrupted => ServiceError::Unavailable { plugin, reason },
        CallError::OutOfMemory { .. }
        | CallError::Trap(_)
        | CallError::Contract { .. }
        | CallError::Failed { .. }
        | CallError::NotExported { .. }
        | CallError::Dead => ServiceError::Failed { plugin, reason },
    }
}
