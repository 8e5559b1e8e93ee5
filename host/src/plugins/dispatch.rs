//! Events on their way through a plugin: asked for, handed to the guest, settled.
//!
//! Settling is one input: acknowledgements, state and publishes of a batch become one transaction. A call that fails
//! as a whole leaves nothing behind; its events are handed out again one by one until the culprit is found, so that its
//! neighbours do not suffer.

use std::sync::Arc;
use std::time::Instant;

use vespiary_core::event::{Effect, InboxEvent, Lane, Outcome, PluginName, Settlement};
use vespiary_core::{Input, Timestamp, Topic};

use super::Plugins;
use super::plugin::{Code, Phase, Plugin, Refused};
use super::pool::Job;
use crate::clock::wall_clock;
use crate::wasm::{CallError, EventResult, Handled, Instance, LogLevel};

/// First pause before a failed event is handed out again, in milliseconds; doubles with each attempt.
const FIRST_RETRY_MS: u64 = 1_000;
/// Longest pause, in milliseconds.
const LONGEST_RETRY_MS: u64 = 60_000;

impl Plugins {
    /// Takes what the broker says to plugins. Called while the broker is locked: it only notes and queues.
    pub fn effect(&self, effect: Effect) {
        match effect {
            Effect::Events { plugin, lane: _, events } => self.events(&plugin, events),
            Effect::TakeCancelled { plugin, lane: _ } => self.with(&plugin, |plugin| {
                plugin.run(|run| run.phase = Phase::Resting);
                self.ask(plugin);
            }),
            Effect::Settled { plugin, lane: _, after } => self.with(&plugin, |plugin| {
                plugin.run(|run| {
                    run.settled = run.settled.max(after);
                    if let Phase::Settling { asked } = run.phase {
                        run.phase = if asked { Phase::Asking } else { Phase::Resting };
                    }
                });
                self.ask(plugin);
            }),
            Effect::PluginActivated { plugin, session, state: _, revision: _, after } => self.with(&plugin, |plugin| {
                plugin.run(|run| {
                    run.session = Some(session);
                    run.settled = run.settled.max(after);
                    run.answered = Some(Ok(after));
                });
            }),
            Effect::PluginRefused { plugin, reason: _ } => self.with(&plugin, |plugin| {
                plugin.run(|run| run.answered = Some(Err(Refused)));
            }),
            Effect::PluginRemoved { plugin, after } => self.with(&plugin, |plugin| {
                plugin.run(|run| run.answered = Some(Ok(after)));
            }),
            Effect::Send { .. }
            | Effect::FanOut(_)
            | Effect::Close { .. }
            | Effect::Load { .. }
            | Effect::Dropped { .. }
            | Effect::Committed { .. }
            | Effect::LanesArranged { .. }
            | Effect::DeadLettersChanged { .. }
            | Effect::GenerationStepped { .. }
            | Effect::ProbationEnded { .. } => {}
        }
    }

    /// Asks the core for events, if the plugin may run and has not asked yet.
    pub(super) fn ask(&self, plugin: &Plugin) {
        let most = self.options.batch_events;
        plugin.run(|run| {
            if run.phase == Phase::Resting && run.may_ask() {
                run.phase = Phase::Asking;
                self.post(Input::TakeEvents { lane: Lane(0), plugin: plugin.name.clone(), max: run.batch(most) });
            }
        });
    }

    /// Runs batches until the pool stops; the body of a pool thread.
    pub(super) fn run_jobs(&self) {
        while let Some(job) = self.pool.next() {
            self.run_job(job);
        }
    }

    /// Lets every breaker whose pause is over try one event.
    pub(super) fn try_again(&self) {
        let now = wall_clock();
        let plugins: Vec<Arc<Plugin>> = self.plugins().values().cloned().collect();
        for plugin in plugins {
            if plugin.run(|run| run.breaker.try_again(now)) {
                self.ask(&plugin);
            }
        }
    }

    fn with(&self, name: &PluginName, then: impl FnOnce(&Arc<Plugin>)) {
        if let Some(plugin) = self.find(name) {
            then(&plugin);
        }
    }

    fn events(&self, name: &PluginName, events: Vec<InboxEvent>) {
        let Some(plugin) = self.find(name) else { return };
        let may_run = plugin.run(|run| {
            if run.may_ask() {
                run.phase = Phase::Busy;
                return Some(run.settled);
            }
            // A swap or a pause came between the question and the answer.
            run.phase = Phase::Resting;
            self.post(Input::ReturnEvents { lane: Lane(0), plugin: name.clone() });
            None
        });
        if let Some(after) = may_run {
            self.pool.submit(Job { plugin, events }, after);
        }
    }

    fn run_job(&self, job: Job) {
        let Job { plugin, events } = &job;
        let (mut instance, session) = match self.ready_instance(plugin) {
            Ok(ready) => ready,
            Err(error) => return self.cannot_run(plugin, &error),
        };
        let snapshot = match self.store.snapshot(session, wall_clock()) {
            Ok(snapshot) => snapshot,
            Err(error) if error.is_passing() => {
                plugin.run(|run| {
                    run.interrupter = None;
                    run.code.as_mut().map(|code| code.instance = Some(instance))
                });
                return self.pool.put_back(job);
            }
            Err(error) => return self.cannot_run(plugin, &error.to_string()),
        };
        let failures = self.store.commits().failures;
        let started = Instant::now();
        let result = instance.handle(wall_clock(), snapshot, events);
        let call_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        plugin.run(|run| {
            run.interrupter = None;
            run.counts.calls += 1;
            run.counts.call_us += call_us;
        });
        if self.store.commits().failures > failures {
            // Its state may have been cut off under the call, which then failed for nothing that it did.
            plugin.run(|run| run.code.as_mut().map(|code| code.instance = result.is_ok().then_some(instance)));
            return self.pool.put_back(job);
        }
        match result {
            Ok(handled) => {
                plugin.run(|run| run.code.as_mut().map(|code| code.instance = Some(instance)));
                let settlement = self.outcomes(plugin, events, handled);
                self.settle(plugin, settlement);
            }
            Err(CallError::Interrupted) => self.give_back(plugin),
            Err(error) => self.call_failed(plugin, events, &error),
        }
    }

    /// The warm instance, or a new one where the last call killed it.
    fn ready_instance(&self, plugin: &Plugin) -> Result<(Instance, vespiary_core::event::SessionId), String> {
        let (warm, code, session) = plugin
            .run(|run| {
                let code = run.code.as_mut()?;
                let warm = code.instance.take();
                let cold = Code { compiled: code.compiled.clone(), grants: code.grants.clone(), instance: None };
                Some((warm, cold, run.session?))
            })
            .ok_or("it has no code")?;
        let instance = match warm {
            Some(instance) => instance,
            None => self.warm_instance(plugin, &code.compiled, &code.grants).map_err(|error| error.to_string())?,
        };
        let interrupter = instance.interrupter();
        plugin.run(|run| run.interrupter = Some(interrupter));
        Ok((instance, session))
    }

    /// Turns what the guest said into what becomes of each event.
    ///
    /// An event that is put back is not overtaken by a later one of its topic. The batch ends before such a one: it and
    /// all after it, which may have read what it wrote, are left to be handed out again.
    fn outcomes(&self, plugin: &Plugin, events: &[InboxEvent], handled: Vec<Handled>) -> Settlement {
        let now = wall_clock();
        let mut settlement = Settlement::default();
        let mut denied = 0;
        let mut put_back: Vec<&Topic> = Vec::new();
        for (one, event) in handled.into_iter().zip(events) {
            debug_assert_eq!(one.sequence, event.sequence, "one result for each event, in order");
            if put_back.contains(&&event.message.topic) {
                break;
            }
            denied += u64::from(one.denied);
            let outcome = match one.result {
                EventResult::Done => {
                    plugin.run(|run| run.breaker.succeeded());
                    settlement.publishes.extend(one.publishes);
                    settlement.writes.extend(one.writes);
                    settlement.timers.extend(one.timers);
                    settlement.disconnects.extend(one.disconnects);
                    Outcome::Done
                }
                EventResult::Retry { reason, after_ms } => {
                    failed(plugin, now, &reason);
                    let outcome = self.retry(plugin, event, &reason, after_ms);
                    if matches!(outcome, Outcome::RetryAt(_)) {
                        put_back.push(&event.message.topic);
                    }
                    outcome
                }
                EventResult::Reject(reason) => {
                    // Saying no to an event is an answer, not a failure of the plugin.
                    plugin.run(|run| {
                        run.note_failure(now, &reason);
                        run.breaker.succeeded();
                    });
                    dead_letter(plugin, event, reason)
                }
                EventResult::Untouched => continue,
            };
            settlement.outcomes.push((one.sequence, outcome));
        }
        plugin.run(|run| {
            count(&mut run.counts, &settlement);
            run.counts.denied += denied;
            run.isolating = run.isolating.saturating_sub(settlement.outcomes.len());
        });
        settlement
    }

    /// A call failed as a whole: a single event is to blame for itself; of several, each is tried alone.
    fn call_failed(&self, plugin: &Plugin, events: &[InboxEvent], error: &CallError) {
        let reason = error.to_string();
        plugin.run(|run| run.counts.failed_calls += 1);
        let [event] = events else {
            plugin.run(|run| run.isolating = events.len());
            plugin.log.note(
                LogLevel::Warn,
                format!("a call with {} events failed, each is tried alone now: {reason}", events.len()),
            );
            return self.give_back(plugin);
        };
        failed(plugin, wall_clock(), &reason);
        let outcome = self.retry(plugin, event, &reason, None);
        let settlement = Settlement { outcomes: vec![(event.sequence, outcome)], ..Settlement::default() };
        plugin.run(|run| {
            count(&mut run.counts, &settlement);
            run.isolating = run.isolating.saturating_sub(1);
        });
        self.settle(plugin, settlement);
    }

    /// Puts an event back with a pause, or gives it up after the last attempt.
    fn retry(&self, plugin: &Plugin, event: &InboxEvent, reason: &str, after_ms: Option<u64>) -> Outcome {
        let attempts = event.attempt + 1;
        if attempts >= self.options.attempts {
            return dead_letter(plugin, event, format!("failed {attempts} times, the last time: {reason}"));
        }
        let pause_ms = (FIRST_RETRY_MS << event.attempt.min(16)).min(LONGEST_RETRY_MS);
        // A fifth of jitter keeps events that failed together from coming back together.
        let pause_ms = after_ms.unwrap_or_else(|| pause_ms - pause_ms / 10 + fastrand::u64(0..=pause_ms / 5));
        plugin.log.note(
            LogLevel::Warn,
            format!("event {} on {} failed (attempt {attempts}): {reason}", event.sequence.0, event.message.topic),
        );
        Outcome::RetryAt(wall_clock().after_ms(pause_ms))
    }

    /// The plugin's code cannot run: its events go back, and it is tried again after a pause.
    fn cannot_run(&self, plugin: &Plugin, reason: &str) {
        let now = wall_clock();
        plugin.run(|run| {
            run.note_failure(now, reason);
            run.breaker.open(reason, now);
        });
        plugin.log.note(LogLevel::Error, format!("stopped: it cannot run: {reason}"));
        self.give_back(plugin);
    }

    fn settle(&self, plugin: &Plugin, settlement: Settlement) {
        let most = self.options.batch_events;
        plugin.run(|run| {
            let asked = run.may_ask();
            run.phase = Phase::Settling { asked };
            self.post(Input::Settle { lane: Lane(0), plugin: plugin.name.clone(), settlement: Box::new(settlement) });
            if asked {
                self.post(Input::TakeEvents { lane: Lane(0), plugin: plugin.name.clone(), max: run.batch(most) });
            }
        });
    }

    fn give_back(&self, plugin: &Plugin) {
        plugin.run(|run| {
            run.interrupter = None;
            run.phase = Phase::Resting;
            self.post(Input::ReturnEvents { lane: Lane(0), plugin: plugin.name.clone() });
        });
        self.ask(plugin);
    }
}

/// Notes that an event failed, and stops the plugin if too many have in a row.
fn failed(plugin: &Plugin, now: Timestamp, reason: &str) {
    let stopped = plugin.run(|run| {
        run.note_failure(now, reason);
        run.breaker.failed(reason, now)
    });
    if stopped {
        plugin.log.note(LogLevel::Error, format!("stopped: it keeps failing: {reason}"));
    }
}

fn dead_letter(plugin: &Plugin, event: &InboxEvent, reason: String) -> Outcome {
    plugin.log.note(
        LogLevel::Error,
        format!("event {} on {} is a dead letter: {reason}", event.sequence.0, event.message.topic),
    );
    Outcome::DeadLetter(reason.into())
}

fn count(counts: &mut super::plugin::Counts, settlement: &Settlement) {
    counts.published += settlement.publishes.len() as u64;
    for (_, outcome) in &settlement.outcomes {
        match outcome {
            Outcome::Done => counts.handled += 1,
            Outcome::RetryAt(_) => counts.retried += 1,
            Outcome::DeadLetter(_) => counts.dead_lettered += 1,
        }
    }
}
