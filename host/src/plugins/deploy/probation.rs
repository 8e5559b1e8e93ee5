//! A revision on probation: watched, and rolled back by itself if it fails.
//!
//! The activation that puts a revision on probation has the core keep what a way back needs: the state as of the switch, and
//! every event that is handled since. All of that is durable, each step of it one transaction, so a crash leaves either the
//! new revision on probation (which goes on at the next start) or the old one active again. A rollback is a switch like
//! any other, to the code before under a new number; what was handled since comes to it again, marked, and updates its state.

use std::sync::Arc;
use std::time::{Duration, Instant};

use vespiary_core::event::{Lane, ProbationVerdict, Revision};
use vespiary_core::{Input, Timestamp};

use super::super::Plugins;
use super::super::plugin::{Code, Phase, Plugin};
use super::super::trial::{Length, Trial};
use super::switch::{COMMIT_TIMEOUT, unconfirmed};
use super::{DeployError, DeployReport, milliseconds};
use crate::clock::wall_clock;
use crate::wasm::{Instance, LogLevel};

/// Milliseconds between two calls of `health` while code is on trial.
const HEALTH_INTERVAL_MS: u64 = 2_000;

/// Pause before a rollback is tried again that could not be done at the time.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// The probation of an active revision.
pub(in super::super) struct Probation {
    /// How it does.
    pub trial: Trial,
    /// When it is over.
    pub length: Length,
    /// The revision to go back to.
    pub previous: Revision,
    /// Its code, where it is still at hand.
    pub code: Option<Arc<Code>>,
    /// When `health` was last asked.
    pub asked_at: Timestamp,
}

impl Plugins {
    /// Puts the revision that has just become active on probation.
    pub(super) fn begin_probation(&self, plugin: &Plugin, length: Length, previous: Revision, code: Option<Arc<Code>>) {
        let now = wall_clock();
        let trial = Trial::new(now, self.options.probation_failures);
        plugin.run(|run| run.probation = Some(Probation { trial, length, previous, code, asked_at: now }));
    }

    /// Goes on with a probation after a restart.
    pub(in super::super) fn resume_probation(&self, plugin: &Plugin, previous: Revision, handled: usize) {
        let (now, length) = (wall_clock(), self.options.probation);
        plugin.run(|run| {
            let began = run.revision.as_ref().map_or(now, |revision| revision.activated_at);
            let trial = Trial::resumed(began, self.options.probation_failures, handled as u64);
            run.probation = Some(Probation { trial, length, previous, code: None, asked_at: now });
        });
    }

    /// Asks `health` of code on trial from time to time. Gives the reason where it is not well.
    pub(in super::super) fn check_health(
        &self,
        plugin: &Plugin,
        lane: Lane,
        instance: &mut Instance,
    ) -> Option<String> {
        let now = wall_clock();
        let due = plugin.run(|run| {
            let asked_at = if run.is_canary(lane) {
                run.canary.as_mut().map(|canary| &mut canary.asked_at)
            } else {
                run.probation.as_mut().map(|probation| &mut probation.asked_at)
            };
            asked_at.is_some_and(|at| {
                let due = now.since_ms(*at) >= HEALTH_INTERVAL_MS;
                if due {
                    *at = now;
                }
                due
            })
        });
        if due { instance.health().err().map(|error| error.to_string()) } else { None }
    }

    /// Ends probations that are passed, and asks code on trial that has no events how it is.
    pub(in super::super) fn look_at_trials(self: &Arc<Self>) {
        let now = wall_clock();
        let plugins: Vec<Arc<Plugin>> = self.plugins().values().cloned().collect();
        for plugin in plugins {
            let (passed, idle) = plugin.run(|run| {
                let probation = run.probation.as_ref().filter(|_| !run.deploying);
                let passed = probation.is_some_and(|probation| probation.trial.is_passed(now, probation.length));
                let asked_at = probation.map(|probation| probation.asked_at);
                let lanes = run.lane_numbers().filter(|&lane| match run.is_canary(lane) {
                    true => run.canary.as_ref().is_some_and(|one| now.since_ms(one.asked_at) >= HEALTH_INTERVAL_MS),
                    false => lane == Lane(0) && asked_at.is_some_and(|at| now.since_ms(at) >= HEALTH_INTERVAL_MS),
                });
                let idle: Vec<Lane> =
                    lanes.filter(|lane| run.lanes[usize::from(lane.0)].phase == Phase::Asking).collect();
                (passed, idle)
            });
            if passed {
                self.post(Input::EndProbation { plugin: plugin.name.clone(), verdict: ProbationVerdict::Keep });
                plugin.log.note(LogLevel::Info, "its probation is over: the revision stays");
                plugin.run(|run| run.probation = None);
                continue;
            }
            for lane in idle {
                let (plugins, plugin) = (Arc::clone(self), Arc::clone(&plugin));
                self.threads.run(move || plugins.ask_health(&plugin, lane));
            }
        }
    }

    /// Asks `health` of a lane that has nothing to do.
    fn ask_health(&self, plugin: &Arc<Plugin>, lane: Lane) {
        let Some(mut instance) = plugin.run(|run| run.lane(lane).and_then(|lane| lane.instance.take())) else { return };
        match self.check_health(plugin, lane, &mut instance) {
            Some(reason) => self.trip(plugin, lane, &reason),
            None => plugin.run(|run| {
                // An event may have come meanwhile, and brought an instance of its own.
                if let Some(lane) = run.lane(lane).filter(|lane| lane.instance.is_none() && lane.phase == Phase::Asking)
                {
                    lane.instance = Some(instance);
                }
            }),
        }
    }

    /// Rolls a plugin back whose new revision has failed its probation, on a thread of its own.
    pub(in super::super) fn roll_back_later(&self, plugin: &Arc<Plugin>) {
        let (Some(plugins), plugin) = (self.this.upgrade(), Arc::clone(plugin)) else { return };
        self.threads.run(move || {
            let tripped = |run: &mut super::super::plugin::Run| {
                run.probation.as_ref().and_then(|probation| probation.trial.tripped().map(str::to_owned))
            };
            // Where a deploy is under way, its end looks again.
            let Ok(plugin) = plugins.claim(plugin) else { return };
            if let Some(reason) = plugin.run(tripped) {
                match plugins.roll_back(&plugin, &reason) {
                    Ok(_) => {}
                    Err(error) => {
                        let line = format!("it failed its probation ({reason}) and cannot be rolled back: {error}");
                        plugin.log.note(LogLevel::Error, line);
                        if passes(&error) {
                            // The end of this looks again.
                            std::thread::sleep(RETRY_PAUSE);
                        } else {
                            let (name, verdict) = (plugin.name.clone(), ProbationVerdict::Keep);
                            plugins.post(Input::EndProbation { plugin: name, verdict });
                            plugin.run(|run| run.probation = None);
                        }
                    }
                }
            }
            plugins.end(&plugin, true);
        });
    }

    /// Goes back to the revision before, with its state. The plugin is claimed.
    pub(super) fn roll_back(&self, plugin: &Arc<Plugin>, reason: &str) -> Result<DeployReport, DeployError> {
        let no_revision = || DeployError::NoRevision {
            plugin: plugin.name.0.to_string(),
            wanted: "probation in which the revision before was kept".to_owned(),
        };
        let way_back = plugin.run(|run| {
            let probation = run.probation.as_ref()?;
            Some((probation.previous.clone(), probation.code.clone(), run.revision.clone()))
        });
        let (previous, code, replaced) = way_back.ok_or_else(no_revision)?;
        let (code, instances) = match code {
            Some(code) => (code, Vec::new()),
            None => self.load(plugin, &previous)?,
        };
        let revision = self.next_revision(plugin, previous.digest, &previous.version)?;
        let paused_at = Instant::now();
        self.quiesce(plugin)?;
        let activation = Self::activation(&code, &revision, false, false);
        plugin.run(|run| run.answers.probation = None);
        let verdict = ProbationVerdict::RollBack(Box::new(activation));
        self.post(Input::EndProbation { plugin: plugin.name.clone(), verdict });
        // Had the probation ended before this came, there is no answer to it but the word that the revision stays.
        let over =
            plugin.wait(COMMIT_TIMEOUT, |run| run.answers.probation.take()).ok_or_else(|| unconfirmed(plugin))?;
        if !over.rolled_back {
            return Err(no_revision());
        }
        if !self.pool.wait_durable(over.after, COMMIT_TIMEOUT) {
            return Err(unconfirmed(plugin));
        }
        self.take_over(plugin, revision.clone(), Arc::clone(&code), instances);
        self.install_hooks(plugin, &code);
        let pause = paused_at.elapsed();
        let from = replaced.as_ref().map_or(0, |revision| revision.number);
        let line = format!(
            "revision {from} was rolled back: {reason}; revision {} (version {}) is active, the code of revision {}, and \
             {} events are handled again by it",
            revision.number, revision.version, previous.number, over.put_back
        );
        plugin.log.note(LogLevel::Warn, line.clone());
        plugin.run(|run| run.rolled_back = Some(line));
        let mut report = self.report(plugin, &revision, &code, replaced);
        report.pause_ms = milliseconds(pause);
        Ok(report)
    }
}

/// Whether what failed may succeed later.
fn passes(error: &DeployError) -> bool {
    matches!(error, DeployError::DoesNotRest(_) | DeployError::Unconfirmed(_) | DeployError::Store(_))
}
