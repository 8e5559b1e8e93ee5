//! What the broker says to plugins. Called while the broker is locked: notes and queues, and waits for nothing.

use std::sync::Arc;

use vespiary_core::event::{Effect, Lane, PluginName};

use super::super::Plugins;
use super::super::plugin::{Phase, Plugin, ProbationOver, Refused};

impl Plugins {
    /// Takes what the broker says to plugins. Called while the broker is locked: it only notes and queues.
    pub fn effect(&self, effect: Effect) {
        match effect {
            Effect::Events { plugin, lane, events } => self.events(&plugin, lane, events),
            Effect::TakeCancelled { plugin, lane } => self.with(&plugin, |plugin| {
                plugin.run(|run| {
                    if let Some(lane) = run.lane(lane) {
                        lane.phase = Phase::Resting;
                    }
                });
                self.ask(plugin);
            }),
            Effect::Settled { plugin, lane, after } => self.with(&plugin, |plugin| {
                plugin.run(|run| {
                    run.settled = run.settled.max(after);
                    if run.is_concurrent() {
                        run.conflicts.settled(after);
                    }
                    if let Some(lane) = run.lane(lane) {
                        lane.settled(after);
                        if let Phase::Settling { asked } = lane.phase {
                            lane.phase = if asked { Phase::Asking } else { Phase::Resting };
                        }
                    }
                });
                self.ask(plugin);
            }),
            Effect::Committed { plugin, ticket, after } => self.with(&plugin, |plugin| {
                plugin.run(|run| {
                    run.settled = run.settled.max(after);
                    if run.is_concurrent() {
                        run.conflicts.settled(after);
                    }
                    run.service.committed(ticket, after);
                });
            }),
            Effect::PluginActivated { .. }
            | Effect::PluginRefused { .. }
            | Effect::PluginRemoved { .. }
            | Effect::LanesArranged { .. }
            | Effect::DeadLettersChanged { .. }
            | Effect::GenerationStepped { .. }
            | Effect::ProbationEnded { .. } => self.take_answer(effect),
            Effect::Send { .. }
            | Effect::FanOut(_)
            | Effect::Close { .. }
            | Effect::Load { .. }
            | Effect::Dropped { .. } => {}
        }
    }

    /// Leaves an answer for the deploy, or whoever else asked for something, to find.
    fn take_answer(&self, effect: Effect) {
        match effect {
            Effect::PluginActivated { plugin, session, state, revision: _, after } => self.with(&plugin, |plugin| {
                plugin.run(|run| {
                    run.session = Some(session);
                    run.state = Some(state);
                    run.settled = run.settled.max(after);
                    run.answers.activated = Some(Ok(after));
                });
            }),
            Effect::PluginRefused { plugin, reason: _ } => self.with(&plugin, |plugin| {
                plugin.run(|run| run.answers.activated = Some(Err(Refused)));
            }),
            Effect::PluginRemoved { plugin, after } => self.with(&plugin, |plugin| {
                plugin.run(|run| run.answers.activated = Some(Ok(after)));
            }),
            Effect::LanesArranged { plugin } => self.with(&plugin, |plugin| {
                plugin.run(|run| run.answers.arranged = true);
            }),
            Effect::DeadLettersChanged { plugin, count, after } => self.with(&plugin, |plugin| {
                plugin.run(|run| run.answers.letters = Some((count, after)));
            }),
            Effect::GenerationStepped { plugin, state, after } => self.with(&plugin, |plugin| {
                plugin.run(|run| run.answers.generation = Some((state, after)));
            }),
            Effect::ProbationEnded { plugin, rolled_back, put_back, state, after } => self.with(&plugin, |plugin| {
                plugin.run(|run| {
                    run.state = Some(state);
                    run.settled = run.settled.max(after);
                    run.probation = None;
                    run.answers.probation = Some(ProbationOver { rolled_back, put_back, after });
                });
            }),
            other => debug_assert!(false, "no answer: {other:?}"),
        }
    }

    fn with(&self, name: &PluginName, then: impl FnOnce(&Arc<Plugin>)) {
        if let Some(plugin) = self.find(name) {
            then(&plugin);
        }
    }

    /// Tells the core that no lane of a plugin wants events any more. The plugin's lock is held.
    pub(in super::super) fn cancel_takes(&self, name: &PluginName, lanes: impl Iterator<Item = Lane>) {
        for lane in lanes {
            self.post(vespiary_core::Input::CancelTake { plugin: name.clone(), lane });
        }
    }
}
