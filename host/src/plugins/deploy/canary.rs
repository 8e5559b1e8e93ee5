//! A canary: new code that gets the events of a part of the keys, beside the code that is active.
//!
//! It is one more lane, which runs other code on the same state; so it is for code of the same state version. It stays until it
//! is promoted, which is a deploy of it, or aborted: by the operator, by itself when it fails as a probation would, or by a
//! restart, for nothing of it is on disk but the component. Events that it was given are in the inbox until they are handled,
//! whoever handles them.

use std::sync::Arc;

use vespiary_core::Timestamp;
use vespiary_core::event::{Lanes, PluginName, Revision};

use super::super::Plugins;
use super::super::plugin::{Code, Plugin};
use super::super::trial::Trial;
use super::stage::Staged;
use super::{DeployError, DeployOptions, DeployReport, milliseconds};
use crate::clock::wall_clock;
use crate::wasm::LogLevel;

/// New code that gets a part of the events.
pub(in super::super) struct Canary {
    /// The code.
    pub code: Arc<Code>,
    /// The revision that it would be.
    pub revision: Revision,
    /// How it does.
    pub trial: Trial,
    /// When `health` was last asked.
    pub asked_at: Timestamp,
}

impl Plugins {
    /// Gives a part of the keys to new code. The plugin is claimed.
    pub(super) fn begin_canary(
        &self,
        plugin: &Arc<Plugin>,
        staged: &Staged<'_>,
        percent: u8,
    ) -> Result<DeployReport, DeployError> {
        self.check_canary(plugin, staged, percent)?;
        let warm = self.warm(plugin, staged)?;
        self.store.components().put(staged.bytes)?;
        let revision = self.next_revision(plugin, staged.digest, &warm.code.version)?;
        let paused_at = std::time::Instant::now();
        self.quiesce(plugin)?;
        let lanes = plugin.run(|run| {
            let now = wall_clock();
            let trial = Trial::new(now, self.options.probation_failures);
            let (code, revision) = (Arc::clone(&warm.code), revision.clone());
            run.canary = Some(Canary { code, revision, trial, asked_at: now });
            Lanes { canary_percent: percent, ..run.arrangement }
        });
        if let Err(error) = self.arrange(plugin, lanes) {
            plugin.run(|run| run.canary = None);
            return Err(error);
        }
        let pause = paused_at.elapsed();
        plugin.run(|run| {
            if let Some(lane) = run.lanes.last_mut() {
                lane.instance = warm.instances.into_iter().next();
            }
        });
        plugin
            .log
            .note(LogLevel::Info, format!("version {} is a canary with {percent} % of the keys", revision.version));
        let replaced = plugin.run(|run| run.revision.clone());
        let mut report = self.report(plugin, &revision, &warm.code, replaced);
        report.canary_percent = Some(percent);
        report.signed_by.clone_from(&staged.signed_by);
        (report.compile_ms, report.warm_ms) = (milliseconds(warm.compile), milliseconds(warm.warm));
        report.pause_ms = milliseconds(pause);
        Ok(report)
    }

    fn check_canary(&self, plugin: &Plugin, staged: &Staged<'_>, percent: u8) -> Result<(), DeployError> {
        let refuse =
            |reason: String| Err(DeployError::NotNow { plugin: plugin.name.0.to_string(), what: "canary", reason });
        if !(1..=99).contains(&percent) {
            return refuse(format!("{percent} % is not a part of the keys: use 1 to 99"));
        }
        let (active, on_probation) =
            plugin.run(|run| (run.code.as_ref().map(|code| code.grants.state_version), run.probation.is_some()));
        let (Some(has), wants) = (active, staged.grants.state_version) else {
            return refuse("nothing is active beside which it could run: deploy it".to_owned());
        };
        if has != wants {
            return refuse(format!("it uses state of version {wants}, and the active revision of version {has}"));
        }
        if on_probation {
            return refuse("the active revision is on probation: wait until that is over".to_owned());
        }
        Ok(())
    }

    /// Makes the canary of a plugin its active revision, with a probation.
    pub fn promote(&self, name: &PluginName) -> Result<DeployReport, DeployError> {
        let (plugin, canary) = self.canary_of(name)?;
        let component = self.component_of(&canary)?;
        let plugin = self.claim(plugin)?;
        let result =
            self.stage(&component).and_then(|staged| self.deploy_staged(&plugin, &staged, &DeployOptions::default()));
        self.end(&plugin, result.is_ok());
        result
    }

    /// Ends the canary of a plugin; the active revision gets all events again.
    pub fn abort(&self, name: &PluginName) -> Result<(), DeployError> {
        let (plugin, _) = self.canary_of(name)?;
        let plugin = self.claim(plugin)?;
        let result = self.end_canary(&plugin, "aborted by the operator");
        self.end(&plugin, result.is_ok());
        result
    }

    /// Ends a canary that has failed, on a thread of its own.
    pub(in super::super) fn abort_later(&self, plugin: &Arc<Plugin>) {
        let (Some(plugins), plugin) = (self.this.upgrade(), Arc::clone(plugin)) else { return };
        self.threads.run(move || {
            let Ok(plugin) = plugins.claim(plugin) else { return };
            let tripped =
                plugin.run(|run| run.canary.as_ref().and_then(|canary| canary.trial.tripped().map(str::to_owned)));
            if let Some(reason) = tripped
                && let Err(error) = plugins.end_canary(&plugin, &reason)
            {
                plugin.log.note(LogLevel::Error, format!("its canary failed ({reason}) and cannot be ended: {error}"));
            }
            plugins.end(&plugin, true);
        });
    }

    fn end_canary(&self, plugin: &Arc<Plugin>, reason: &str) -> Result<(), DeployError> {
        self.quiesce(plugin)?;
        let lanes = plugin.run(|run| Lanes { canary_percent: 0, ..run.arrangement });
        self.arrange(plugin, lanes)?;
        let version = plugin.run(|run| run.canary.take().map(|canary| canary.revision.version)).unwrap_or_default();
        let line = format!("the canary of version {version} is over: {reason}");
        plugin.log.note(LogLevel::Warn, line.clone());
        plugin.run(|run| run.rolled_back = Some(line));
        Ok(())
    }

    fn canary_of(&self, name: &PluginName) -> Result<(Arc<Plugin>, Revision), DeployError> {
        let plugin = self.find(name).ok_or_else(|| DeployError::Unknown(name.0.to_string()))?;
        let revision = plugin.run(|run| run.canary.as_ref().map(|canary| canary.revision.clone()));
        let revision = revision.ok_or_else(|| DeployError::NoCanary(name.0.to_string()))?;
        Ok((plugin, revision))
    }
}
