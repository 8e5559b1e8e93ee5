//! Events on their way through a plugin: asked for, handed to the guest, settled.
//!
//! Each lane goes round by itself, with one batch out at a time. Settling is one input: acknowledgements, state, publishes and
//! timers of a batch become one transaction. A call that fails as a whole leaves nothing behind; its events are handed out
//! again one by one until the culprit is found, so that its neighbours do not suffer. What a batch comes to is computed in
//! `outcomes`; whether it counts is decided in [`Plugins::settle`], with the plugin's lock held: with several lanes, only if it
//! has read nothing that another lane has written since.

mod effects;
mod outcomes;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use vespiary_core::Input;
use vespiary_core::event::{InboxEvent, Lane, Outcome, PluginName, Sequence, SessionId, TIMER_TOPICS, TimerWrite};

use self::outcomes::{CallContext, Outcomes, Verdict};
use super::Plugins;
use super::conflicts::{Caller, NotedState, Reads};
use super::plugin::{Code, Phase, Plugin, Run};
use super::pool::Job;
use crate::clock::wall_clock;
use crate::wasm::{CallError, Instance, LogLevel};

/// A call that is about to run.
struct Call {
    instance: Instance,
    /// The generation of the state that it reads.
    state: SessionId,
    /// Whether what it reads has to be noted.
    noted: bool,
}

/// What became of a batch that was to be settled.
enum Settled {
    /// It is with the broker. New code on trial may have failed once too often.
    Posted { stopped: Option<String>, tripped: Option<Tripped> },
    /// Another lane wrote what it had read: its events go back.
    Conflict,
}

/// New code that failed too often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tripped {
    Probation,
    Canary,
}

impl Plugins {
    /// Asks the core for events, for each lane that rests, if the plugin may run.
    pub(super) fn ask(&self, plugin: &Plugin) {
        let most = self.options.batch_events;
        plugin.run(|run| {
            if !run.may_ask() {
                return;
            }
            for lane in run.lane_numbers() {
                let max = run.batch(lane, most);
                match run.lane(lane) {
                    Some(resting) if resting.phase == Phase::Resting => resting.phase = Phase::Asking,
                    Some(_) | None => continue,
                }
                self.post(Input::TakeEvents { plugin: plugin.name.clone(), lane, max });
            }
        });
    }

    /// Runs batches until the pool stops; the body of a pool thread.
    pub(super) fn run_jobs(&self) {
        while let Some(job) = self.pool.next() {
            self.run_job(job);
        }
    }

    /// Gives batches that may wait for others threads of their own, until the pool stops.
    pub(super) fn run_waiting_jobs(self: &Arc<Self>) {
        while let Some(job) = self.pool.next_waiting() {
            let (plugins, plugin, lane) = (Arc::clone(self), Arc::clone(&job.plugin), job.lane);
            if !self.threads.run(move || plugins.run_job(job)) {
                self.give_back(&plugin, lane);
            }
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

    /// A batch has come for a lane.
    fn events(&self, name: &PluginName, lane: Lane, events: Vec<InboxEvent>) {
        let Some(plugin) = self.find(name) else { return };
        let may_run = plugin.run(|run| {
            let may_ask = run.may_ask();
            let serving = !run.is_concurrent() && run.service.has_turn();
            let may_wait = run.code_of(lane).is_some_and(|code| code.grants.may_wait());
            let Some(taken) = run.lane(lane).filter(|_| may_ask) else {
                // A swap or a pause came between the question and the answer.
                if let Some(lane) = run.lane(lane) {
                    lane.phase = Phase::Resting;
                }
                self.post(Input::ReturnEvents { plugin: plugin.name.clone(), lane });
                return None;
            };
            taken.phase = Phase::Busy;
            if serving {
                taken.held = Some(events);
                return None;
            }
            Some((events, may_wait, taken.waits_for()))
        });
        if let Some((events, may_wait, after)) = may_run {
            self.pool.submit(Job { plugin, lane, may_wait, events }, after);
        }
    }

    fn run_job(&self, job: Job) {
        let Job { plugin, lane, events, .. } = &job;
        let lane = *lane;
        let Call { mut instance, state, noted } = match self.ready(plugin, lane) {
            Ok(ready) => ready,
            Err(error) => return self.cannot_run(plugin, lane, &error),
        };
        let now = wall_clock();
        if noted {
            let seen = self.store.handed_over();
            plugin.run(|run| run.conflicts.begin(Caller::Lane(lane.0), seen));
        }
        let reading = match self.read(state, now, job.may_wait) {
            Ok(reading) => reading,
            Err(error) if error.is_passing() => {
                put_away(plugin, lane, Some(instance));
                return self.pool.put_back(job);
            }
            Err(error) => return self.cannot_run(plugin, lane, &error.to_string()),
        };
        let (failures, started) = (reading.failures(), Instant::now());
        let (result, reads) = if noted {
            let (state, reads) = NotedState::new(reading.snapshot);
            (instance.handle(now, state, events), reads)
        } else {
            (instance.handle(now, reading.snapshot, events), Arc::<Mutex<Reads>>::default())
        };
        let call_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        plugin.run(|run| {
            run.counts.calls += 1;
            run.counts.call_us += call_us;
        });
        let unhealthy = result.is_ok().then(|| self.check_health(plugin, lane, &mut instance)).flatten();
        let lives = result.is_ok() && unhealthy.is_none();
        put_away(plugin, lane, lives.then_some(instance));
        if self.was_cut_off(failures) {
            return self.pool.put_back(job);
        }
        let outcomes = match result {
            Ok(handled) => self.context(plugin, lane, events, |context| context.outcomes(events, handled)),
            Err(CallError::Interrupted) => return self.give_back(plugin, lane),
            Err(CallError::NotExported { interface }) => {
                let handled = events.iter().map(|event| outcomes::unheard(event, interface)).collect();
                self.context(plugin, lane, events, |context| context.outcomes(events, handled))
            }
            Err(error) => match self.call_failed(plugin, lane, events, &error) {
                Some(outcomes) => outcomes,
                None => return self.give_back(plugin, lane),
            },
        };
        self.finish(plugin, lane, events, outcomes, &Reads::take(&reads));
        if let Some(reason) = unhealthy {
            self.trip(plugin, lane, &reason);
        }
    }

    /// A warm instance, or a new one where the last call killed it.
    fn ready(&self, plugin: &Plugin, lane: Lane) -> Result<Call, String> {
        let ready = |run: &mut Run| {
            let (code, state, noted) = (run.code_of(lane)?, run.state?, run.is_concurrent());
            let warm = run.lane(lane)?.instance.take();
            Some((code, state, noted, warm))
        };
        let (code, state, noted, warm): (Arc<Code>, _, _, _) = plugin.run(ready).ok_or("it has no code")?;
        let instance = match warm {
            Some(instance) => instance,
            None => self.warm_instance(plugin, &code).map_err(|error| error.to_string())?,
        };
        let interrupter = instance.interrupter();
        plugin.run(|run| {
            if let Some(lane) = run.lane(lane) {
                lane.interrupter = Some(interrupter);
            }
        });
        Ok(Call { instance, state, noted })
    }

    /// What `outcomes` needs to know.
    fn context<T>(
        &self,
        plugin: &Plugin,
        lane: Lane,
        events: &[InboxEvent],
        then: impl FnOnce(&CallContext<'_>) -> T,
    ) -> T {
        let now = wall_clock();
        let of_timers = events.iter().filter(|event| event.message.topic.as_str().starts_with(TIMER_TOPICS));
        let of_timers: Vec<&InboxEvent> = of_timers.collect();
        let (revision, key, again) = plugin.run(|run| {
            let again = |event: &&InboxEvent| Some((event.sequence, run.schedules.again(now, event)?));
            let again: BTreeMap<Sequence, TimerWrite> = of_timers.iter().filter_map(again).collect();
            (run.revision_of(lane), run.arrangement.key, again)
        });
        let (number, version) = revision;
        let attempts = self.options.attempts;
        then(&CallContext { plugin: &plugin.name, revision: (number, &version), key, attempts, now, again })
    }

    /// A call failed as a whole: a single event is to blame for itself; of several, each is tried alone, and there is nothing
    /// to settle.
    fn call_failed(&self, plugin: &Plugin, lane: Lane, events: &[InboxEvent], error: &CallError) -> Option<Outcomes> {
        let reason = error.to_string();
        plugin.run(|run| run.counts.failed_calls += 1);
        if let [event] = events {
            return Some(self.context(plugin, lane, events, |context| context.failed_alone(event, &reason)));
        }
        plugin.run(|run| {
            if let Some(lane) = run.lane(lane) {
                lane.isolating = events.len();
            }
        });
        let count = events.len();
        plugin
            .log
            .note(LogLevel::Warn, format!("a call with {count} events failed, each is tried alone now: {reason}"));
        None
    }

    /// Settles a batch, and sees to what follows from it.
    fn finish(&self, plugin: &Arc<Plugin>, lane: Lane, events: &[InboxEvent], outcomes: Outcomes, reads: &Reads) {
        let mut outcomes = outcomes;
        let lines = std::mem::take(&mut outcomes.lines);
        match self.settle(plugin, lane, events, outcomes, reads) {
            Settled::Conflict => self.ask(plugin),
            Settled::Posted { stopped, tripped } => {
                for (level, line) in lines {
                    plugin.log.note(level, line);
                }
                if let Some(reason) = stopped {
                    plugin.log.note(LogLevel::Error, format!("stopped: it keeps failing: {reason}"));
                }
                if let Some(tripped) = tripped {
                    self.end_trial(plugin, tripped);
                }
            }
        }
    }

    /// Hands a batch's outcome to the broker, and asks for the next, unless the batch has read what another lane wrote.
    fn settle(&self, plugin: &Plugin, lane: Lane, events: &[InboxEvent], outcomes: Outcomes, reads: &Reads) -> Settled {
        let (most, now) = (self.options.batch_events, wall_clock());
        let Outcomes { settlement, verdicts, own_timers, lines: _, denied } = outcomes;
        plugin.run(|run| {
            let name = || plugin.name.clone();
            if run.is_concurrent() && run.conflicts.end(Caller::Lane(lane.0), reads) {
                run.counts.conflicts += 1;
                if let Some(lane) = run.lane(lane) {
                    lane.phase = Phase::Resting;
                }
                self.post(Input::ReturnEvents { plugin: name(), lane });
                return Settled::Conflict;
            }
            run.note_writes(&settlement.writes);
            run.schedules.touch(now, &own_timers);
            run.counts.settle(&settlement);
            run.counts.denied += denied;
            let (stopped, tripped) = run.judge(lane, &verdicts);
            let done = settlement.outcomes.iter().filter(|(_, outcome)| !matches!(outcome, Outcome::RetryAt(_)));
            let mut rest = events.iter();
            for (sequence, _) in done {
                if let Some(event) = rest.find(|event| event.sequence == *sequence) {
                    run.recent.push(event);
                }
            }
            let asked = run.may_ask();
            let count = settlement.outcomes.len();
            if let Some(lane) = run.lane(lane) {
                lane.isolating = lane.isolating.saturating_sub(count);
                lane.phase = Phase::Settling { asked };
            }
            let max = run.batch(lane, most);
            self.post(Input::Settle { plugin: name(), lane, settlement: Box::new(settlement) });
            if asked {
                self.post(Input::TakeEvents { plugin: name(), lane, max });
            }
            Settled::Posted { stopped, tripped }
        })
    }

    /// The plugin's code cannot run: its events go back, and it is tried again after a pause.
    fn cannot_run(&self, plugin: &Arc<Plugin>, lane: Lane, reason: &str) {
        let now = wall_clock();
        let canary = plugin.run(|run| {
            run.note_failure(now, reason);
            let canary = run.is_canary(lane);
            if !canary {
                run.breaker.open(reason, now);
            }
            canary
        });
        if !canary {
            plugin.log.note(LogLevel::Error, format!("stopped: it cannot run: {reason}"));
        }
        self.trip(plugin, lane, &format!("it cannot run: {reason}"));
        self.give_back(plugin, lane);
    }

    /// New code that is on trial on this lane, if it is, fails its trial.
    pub(super) fn trip(&self, plugin: &Arc<Plugin>, lane: Lane, reason: &str) {
        let tripped = plugin.run(|run| {
            if run.is_canary(lane) {
                let first = run.canary.as_mut().is_some_and(|canary| canary.trial.trip(reason));
                return first.then_some(Tripped::Canary);
            }
            let first = run.probation.as_mut().is_some_and(|probation| probation.trial.trip(reason));
            first.then_some(Tripped::Probation)
        });
        if let Some(tripped) = tripped {
            self.end_trial(plugin, tripped);
        }
    }

    fn end_trial(&self, plugin: &Arc<Plugin>, tripped: Tripped) {
        match tripped {
            Tripped::Probation => self.roll_back_later(plugin),
            Tripped::Canary => self.abort_later(plugin),
        }
    }

    pub(super) fn give_back(&self, plugin: &Plugin, lane: Lane) {
        plugin.run(|run| {
            if run.is_concurrent() {
                run.conflicts.end(Caller::Lane(lane.0), &Reads::default());
            }
            if let Some(lane) = run.lane(lane) {
                lane.interrupter = None;
                lane.phase = Phase::Resting;
            }
            self.post(Input::ReturnEvents { plugin: plugin.name.clone(), lane });
        });
        self.ask(plugin);
    }
}

impl Run {
    /// Notes what verdicts say of the code: gives the reason if they stopped the plugin, and whose trial they ended.
    fn judge(&mut self, lane: Lane, verdicts: &[Verdict]) -> (Option<String>, Option<Tripped>) {
        let now = wall_clock();
        let (mut stopped, mut tripped) = (None, None);
        let canary = self.is_canary(lane);
        for verdict in verdicts {
            if let Verdict::Failed(reason) | Verdict::Rejected(reason) = verdict {
                self.note_failure(now, reason);
            }
            let failure = match verdict {
                Verdict::Succeeded | Verdict::Rejected(_) => None,
                Verdict::Failed(reason) => Some(reason),
            };
            let trial = match (&mut self.canary, &mut self.probation) {
                (Some(one), _) if canary => Some((&mut one.trial, Tripped::Canary)),
                (_, Some(one)) => Some((&mut one.trial, Tripped::Probation)),
                (_, None) => None,
            };
            let opened = match failure {
                // The code before is not to blame for the canary's.
                _ if canary => false,
                None => {
                    self.breaker.succeeded();
                    false
                }
                Some(reason) => self.breaker.failed(reason, now),
            };
            if opened {
                stopped = failure.cloned();
            }
            if let Some((trial, whose)) = trial {
                let failed = match failure {
                    None => {
                        trial.succeeded(1);
                        false
                    }
                    Some(reason) => {
                        trial.failed(reason) || (opened && trial.trip(format!("it keeps failing: {reason}")))
                    }
                };
                if failed {
                    tripped = Some(whose);
                }
            }
        }
        // What is about to be rolled back gets no further events.
        if tripped == Some(Tripped::Probation) {
            self.swapping = true;
        }
        (stopped, tripped)
    }
}

/// A call is over: its instance waits for the next, if it lives.
fn put_away(plugin: &Plugin, lane: Lane, instance: Option<Instance>) {
    plugin.run(|run| {
        if let Some(lane) = run.lane(lane) {
            lane.interrupter = None;
            lane.instance = instance;
        }
    });
}
