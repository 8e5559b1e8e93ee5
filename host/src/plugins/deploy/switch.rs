//! The steps of a deploy that somebody could notice: quiesce and switch.

use std::sync::Arc;
use std::time::Duration;

use vespiary_core::Input;
use vespiary_core::event::{Activation, Lanes, Revision};

use super::super::Plugins;
use super::super::plugin::{Code, Phase, Plugin, Refused, Run};
use super::super::schedules;
use super::DeployError;
use crate::clock::wall_clock;
use crate::wasm::{Instance, LogLevel};

/// How long the broker may take to answer, and the disk to hold the answer.
pub(in super::super) const COMMIT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long after its interruption a call may take to end.
const INTERRUPT_TIMEOUT: Duration = Duration::from_secs(5);

impl Plugins {
    /// Brings a plugin to rest: no batch of any lane is out, none is asked for, no request is served, and what was settled is
    /// on disk. A call that does not end by itself is interrupted, and its events stay in the inbox.
    pub(super) fn quiesce(&self, plugin: &Plugin) -> Result<(), DeployError> {
        plugin.run(|run| {
            run.swapping = true;
            let out = |run: &Run| run.lanes.iter().any(|lane| lane.phase != Phase::Resting);
            if out(run) {
                self.cancel_takes(&plugin.name, run.lane_numbers());
            }
            // A batch that waits for a request whose turn does not come any more.
            if run.service.is_idle() {
                for lane in run.lane_numbers() {
                    if let Some(waiting) = run.lane(lane)
                        && waiting.held.take().is_some()
                    {
                        waiting.phase = Phase::Resting;
                        self.post(Input::ReturnEvents { plugin: plugin.name.clone(), lane });
                    }
                }
            }
        });
        let resting = |run: &mut Run| run.is_resting().then_some(run.settled);
        let settled = match plugin.wait(self.options.quiesce, resting) {
            Some(settled) => settled,
            None => {
                let line = "the call under way is interrupted for a swap; its events are handled again";
                plugin.log.note(LogLevel::Warn, line);
                plugin.run(Run::interrupt);
                let rested = plugin.wait(INTERRUPT_TIMEOUT, resting);
                rested.ok_or_else(|| DeployError::DoesNotRest(plugin.name.0.to_string()))?
            }
        };
        if self.pool.wait_durable(settled, COMMIT_TIMEOUT) { Ok(()) } else { Err(unconfirmed(plugin)) }
    }

    /// What the switch to this code asks of the broker.
    pub(super) fn activation(code: &Code, revision: &Revision, new_generation: bool, probation: bool) -> Activation {
        Activation {
            revision: revision.clone(),
            subscriptions: code.grants.subscribes.clone(),
            lanes: code.grants.lanes,
            schedules: schedules::timers(wall_clock(), &code.grants.schedules),
            new_generation,
            probation,
        }
    }

    /// Makes `code` the active revision, in one transaction.
    pub(super) fn switch(
        &self,
        plugin: &Arc<Plugin>,
        activation: Activation,
        code: Arc<Code>,
        instances: Vec<Instance>,
    ) -> Result<(), DeployError> {
        let revision = activation.revision.clone();
        plugin.run(|run| run.answers.activated = None);
        self.post(Input::ActivatePlugin { plugin: plugin.name.clone(), activation: Box::new(activation) });
        self.confirm(plugin)?;
        self.take_over(plugin, revision, code, instances);
        Ok(())
    }

    /// The code of the revision that the broker has activated takes the place of the one before.
    pub(super) fn take_over(
        &self,
        plugin: &Arc<Plugin>,
        revision: Revision,
        code: Arc<Code>,
        instances: Vec<Instance>,
    ) {
        let retired = plugin.run(|run| {
            run.arrange(code.grants.lanes);
            let retired: Vec<Instance> = run.service.retire();
            run.schedules.declare(&code.grants.schedules);
            for (lane, instance) in run.lanes.iter_mut().zip(instances) {
                lane.instance = Some(instance);
            }
            run.code = Some(Arc::clone(&code));
            run.revision = Some(revision);
            run.broken = None;
            run.canary = None;
            run.probation = None;
            run.breaker.succeeded();
            retired
        });
        // Instances are dropped without a lock: it takes a moment.
        drop(retired);
    }

    /// Spreads a plugin's events over lanes in another way; it rests.
    pub(super) fn arrange(&self, plugin: &Plugin, lanes: Lanes) -> Result<(), DeployError> {
        plugin.run(|run| run.answers.arranged = false);
        self.post(Input::ArrangeLanes { plugin: plugin.name.clone(), lanes });
        let arranged = plugin.wait(COMMIT_TIMEOUT, |run| {
            run.answers.arranged.then(|| {
                run.answers.arranged = false;
                run.arrange(lanes);
            })
        });
        arranged.ok_or_else(|| unconfirmed(plugin))
    }

    /// Waits until the broker has answered and its answer is on disk.
    pub(super) fn confirm(&self, plugin: &Plugin) -> Result<(), DeployError> {
        let answer = plugin.wait(COMMIT_TIMEOUT, |run| run.answers.activated.take());
        let answer = answer.ok_or_else(|| unconfirmed(plugin))?;
        let after = answer.map_err(|Refused| DeployError::Refused(plugin.name.0.to_string()))?;
        if self.pool.wait_durable(after, COMMIT_TIMEOUT) { Ok(()) } else { Err(unconfirmed(plugin)) }
    }
}

pub(super) fn unconfirmed(plugin: &Plugin) -> DeployError {
    DeployError::Unconfirmed(plugin.name.0.to_string())
}
