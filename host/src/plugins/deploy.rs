//! Deploy, swap, rollback and removal: how code becomes live without a gap.
//!
//! 1. *Stage* (`stage`): size, signature, manifest, exports, grants.
//! 2. *Compile and warm*: instances, `init`, `health`, under deadline; the old revision serves meanwhile, and a failure
//!    up to here has changed nothing. The component is kept, by its digest.
//! 3. *Migrate* (`migrate`), where the state is of another version: a new generation of the state is filled while the old
//!    revision runs.
//! 4. *Quiesce* (`switch`): no new batch; the calls under way end or are interrupted; publishes go on into the inbox.
//! 5. *Switch*: one transaction sets the revision, its subscriptions, its schedules and its generation of the state. Then
//!    events flow into the new code.
//! 6. *Probation* (`probation`): the new revision is watched, and rolled back by itself where it fails.
//! 7. *Retire*: old instances are dropped; the last revisions are kept for a rollback.
//!
//! The switch is one commit, and what is done before it is dropped at the next start, so a crash at any step leaves exactly one
//! active revision. Beside that: a `canary` gets a part of the events, and a `dry_run` tries code on the last ones.

pub(super) mod canary;
mod dry_run;
mod error;
mod migrate;
pub(super) mod migration;
pub(super) mod probation;
mod stage;
mod switch;

pub(super) use self::switch::COMMIT_TIMEOUT;

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use vespiary_core::Input;
use vespiary_core::event::{PluginName, Revision, SessionId};

use self::migrate::Migration;
use self::stage::Staged;
use super::Plugins;
use super::plugin::{Code, Plugin};
use super::trial::Length;
use crate::clock::wall_clock;
use crate::wasm::{Instance, LogLevel};

pub use self::dry_run::{Difference, DryRunReport, Made};
pub use self::error::DeployError;

/// How a component is deployed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeployOptions {
    /// As a canary, with this share of the keys in percent.
    pub canary_percent: Option<u8>,
    /// Not at all: it is tried on the last events, and nothing comes of it.
    pub dry_run: bool,
    /// Events and seconds of the probation, where they are not those of the configuration; either 0 for none.
    pub probation: Option<(u32, u32)>,
}

/// What a deploy came to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeployReport {
    /// The plugin.
    pub plugin: String,
    /// Its new revision; of a canary or a dry run, the one that it would be.
    pub revision: u32,
    /// The version in its manifest.
    pub version: String,
    /// SHA-256 of the component, in hex.
    pub digest: String,
    /// The revision that it took over from, or runs beside, if there was one.
    pub replaced: Option<u32>,
    /// Topic filters that it listens to.
    pub subscribes: Vec<String>,
    /// Topic filters that it may publish to.
    pub publishes: Vec<String>,
    /// Secrets that it may read.
    #[serde(default)]
    pub secrets: Vec<String>,
    /// Hosts that it may call.
    #[serde(default)]
    pub http_hosts: Vec<String>,
    /// Whether it may disconnect clients.
    #[serde(default)]
    pub disconnects: bool,
    /// Hooks that it is asked at.
    #[serde(default)]
    pub hooks: Vec<String>,
    /// Who decided what it may do.
    pub grants: String,
    /// The key that signed it, if one did.
    #[serde(default)]
    pub signed_by: Option<String>,
    /// Milliseconds of compiling (or of reading the compiled code from the cache).
    pub compile_ms: f64,
    /// Milliseconds of instantiation, `init` and `health`.
    pub warm_ms: f64,
    /// What was migrated, if the state was of another version.
    #[serde(default)]
    pub migrated: Option<Migrated>,
    /// Milliseconds in which no event was handed out; publishes were accepted all the while.
    pub pause_ms: f64,
    /// The probation that has begun, if one has.
    #[serde(default)]
    pub probation: Option<ProbationReport>,
    /// The share of the keys that it gets as a canary.
    #[serde(default)]
    pub canary_percent: Option<u8>,
    /// What a dry run found.
    #[serde(default)]
    pub dry_run: Option<DryRunReport>,
}

/// A migration that is done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Migrated {
    /// The version before.
    pub from: u32,
    /// The version now.
    pub to: u32,
    /// Entries that were migrated; one that was written meanwhile counts again.
    pub entries: u64,
    /// Milliseconds, most of them while the old revision ran.
    pub ms: f64,
}

/// How long a probation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbationReport {
    /// Events.
    pub events: u64,
    /// Seconds.
    pub seconds: u64,
}

impl Plugins {
    /// Deploys a component: a first one, a new revision over the one that is active, a canary beside it, or not at all.
    pub fn deploy(&self, component: &[u8], options: &DeployOptions) -> Result<DeployReport, DeployError> {
        let staged = self.stage(component)?;
        self.store.check()?;
        let plugin = self.begin(&staged.manifest.name)?;
        let has_canary = plugin.run(|run| run.canary.is_some());
        let result = match options {
            DeployOptions { dry_run: true, .. } => self.dry_run(&plugin, &staged),
            _ if has_canary => Err(DeployError::HasCanary(plugin.name.0.to_string())),
            DeployOptions { canary_percent: Some(percent), .. } => self.begin_canary(&plugin, &staged, *percent),
            DeployOptions { canary_percent: None, .. } => self.deploy_staged(&plugin, &staged, options),
        };
        self.end(&plugin, result.is_ok());
        result
    }

    /// Makes an earlier revision's code active again, as a new revision: revision `to`, or the last one whose code
    /// differs from the active one's. While the active revision is on probation, the one before gets its state back too.
    pub fn rollback(&self, name: &PluginName, to: Option<u32>) -> Result<DeployReport, DeployError> {
        let unknown = || DeployError::Unknown(name.0.to_string());
        let plugin = self.find(name).ok_or_else(unknown)?;
        let way_back = |run: &mut super::plugin::Run| {
            let previous = run.probation.as_ref().map(|probation| probation.previous.number);
            Some((run.revision.clone()?, previous, run.canary.is_some()))
        };
        let (active, previous, has_canary) = plugin.run(way_back).ok_or_else(unknown)?;
        if has_canary {
            return Err(DeployError::HasCanary(name.0.to_string()));
        }
        if previous.is_some_and(|previous| to.is_none_or(|to| to == previous)) {
            let plugin = self.claim(plugin)?;
            let result = self.roll_back(&plugin, "by the operator");
            self.end(&plugin, result.is_ok());
            return result;
        }
        let history = self.store.plugin_history(name)?;
        let target = match to {
            Some(number) => history.iter().find(|revision| revision.number == number),
            None => history.iter().find(|revision| revision.digest != active.digest),
        };
        let wanted = || to.map_or_else(|| "earlier revision".to_owned(), |number| format!("revision {number}"));
        let target = target.ok_or_else(|| DeployError::NoRevision { plugin: name.0.to_string(), wanted: wanted() })?;
        let (wants, has) = (self.manifest_of(target)?.state_version, self.manifest_of(&active)?.state_version);
        if wants != has {
            let (plugin, revision) = (name.0.to_string(), target.number);
            return Err(DeployError::OtherState { plugin, revision, wants, has });
        }
        let component = self.component_of(target)?;
        self.deploy(&component, &DeployOptions { probation: Some((0, 0)), ..DeployOptions::default() })
    }

    /// Removes a plugin with its inbox, its dead letters and its state.
    pub fn remove(&self, name: &PluginName) -> Result<(), DeployError> {
        let plugin = self.find(name).ok_or_else(|| DeployError::Unknown(name.0.to_string()))?;
        self.store.check()?;
        let plugin = self.claim(plugin)?;
        let result = self.quiesce(&plugin).and_then(|()| {
            plugin.run(|run| run.answers.activated = None);
            self.post(Input::RemovePlugin { plugin: name.clone() });
            self.confirm(&plugin)
        });
        match result {
            Ok(()) => {
                self.plugins().remove(name);
                self.forget(name);
                tracing::info!(plugin = &*name.0, "removed");
                self.collect_components();
                Ok(())
            }
            Err(error) => {
                self.end(&plugin, false);
                Err(error)
            }
        }
    }

    /// Stops or resumes handing events to a plugin; they wait in its inbox meanwhile.
    pub fn pause(&self, name: &PluginName, paused: bool) -> Result<(), DeployError> {
        let plugin = self.find(name).ok_or_else(|| DeployError::Unknown(name.0.to_string()))?;
        plugin.run(|run| {
            run.paused = paused;
            if paused {
                self.cancel_takes(name, run.lane_numbers());
            } else {
                run.breaker.succeeded();
            }
        });
        plugin.log.note(LogLevel::Info, if paused { "paused by the operator" } else { "resumed by the operator" });
        self.ask(&plugin);
        Ok(())
    }

    /// Finds or makes the plugin and keeps other deploys away from it.
    fn begin(&self, name: &PluginName) -> Result<Arc<Plugin>, DeployError> {
        let plugin = {
            let mut plugins = self.plugins();
            if !plugins.contains_key(name) && plugins.len() >= self.options.most_plugins {
                return Err(DeployError::TooMany(plugins.len()));
            }
            let fresh = || Arc::new(Plugin::new(name.clone(), self.options.plugin));
            Arc::clone(plugins.entry(name.clone()).or_insert_with(fresh))
        };
        self.claim(plugin)
    }

    fn claim(&self, plugin: Arc<Plugin>) -> Result<Arc<Plugin>, DeployError> {
        match plugin.run(|run| std::mem::replace(&mut run.deploying, true)) {
            true => Err(DeployError::Busy(plugin.name.0.to_string())),
            false => Ok(plugin),
        }
    }

    /// Lets events flow again, into whatever code is active now; code that failed its trial meanwhile goes.
    fn end(&self, plugin: &Arc<Plugin>, succeeded: bool) {
        let (never_active, on_probation, canary) = plugin.run(|run| {
            let probation = run.probation.as_ref().is_some_and(|one| one.trial.tripped().is_some());
            let canary = run.canary.as_ref().is_some_and(|one| one.trial.tripped().is_some());
            run.deploying = false;
            run.swapping = probation;
            (run.revision.is_none(), probation, canary)
        });
        if !succeeded && never_active {
            self.plugins().remove(&plugin.name);
        }
        if on_probation {
            self.roll_back_later(plugin);
        }
        if canary {
            self.abort_later(plugin);
        }
        self.ask(plugin);
    }

    fn deploy_staged(
        &self,
        plugin: &Arc<Plugin>,
        staged: &Staged<'_>,
        options: &DeployOptions,
    ) -> Result<DeployReport, DeployError> {
        let mut warm = self.warm(plugin, staged)?;
        self.store.components().put(staged.bytes)?;
        let (replaced, previous, state) = plugin.run(|run| (run.revision.clone(), run.code.clone(), run.state));
        let revision = self.next_revision(plugin, staged.digest, &warm.code.version)?;
        let from = self.state_version(previous.as_deref(), replaced.as_ref())?;
        let migration = match (from, state) {
            (Some(from), Some(state)) if from != staged.grants.state_version => {
                Some(self.migrate(plugin, staged, &warm.code, (from, state))?)
            }
            (Some(_), _) | (None, _) => None,
        };
        let length = options.probation.map_or(self.options.probation, |(events, seconds)| Length {
            events: events.into(),
            seconds: seconds.into(),
        });
        let on_probation = replaced.is_some() && length.events > 0 && length.seconds > 0;
        let paused_at = Instant::now();
        self.quiesce(plugin)?;
        let migrated = self.switch_to(plugin, &revision, &mut warm, migration, on_probation)?;
        if let Some(replaced) = replaced.clone().filter(|_| on_probation) {
            self.begin_probation(plugin, length, replaced, previous);
        }
        self.install_hooks(plugin, &warm.code);
        let pause = paused_at.elapsed();
        let line = format!("revision {} (version {}) is active", revision.number, revision.version);
        plugin.log.note(LogLevel::Info, line);
        let mut report = self.report(plugin, &revision, &warm.code, replaced);
        report.signed_by.clone_from(&staged.signed_by);
        report.migrated = migrated.zip(from).map(|((entries, elapsed), from)| Migrated {
            from,
            to: staged.grants.state_version,
            entries,
            ms: milliseconds(elapsed),
        });
        (report.compile_ms, report.warm_ms) = (milliseconds(warm.compile), milliseconds(warm.warm));
        report.pause_ms = milliseconds(pause);
        report.probation = on_probation.then_some(ProbationReport { events: length.events, seconds: length.seconds });
        Ok(report)
    }

    /// The version of the state in use; `None` where there is none yet.
    fn state_version(&self, code: Option<&Code>, revision: Option<&Revision>) -> Result<Option<u32>, DeployError> {
        match (code, revision) {
            (Some(code), _) => Ok(Some(code.grants.state_version)),
            // Its code cannot run; its manifest tells all the same.
            (None, Some(revision)) => Ok(Some(self.manifest_of(revision)?.state_version)),
            (None, None) => Ok(None),
        }
    }

    /// Fills a new generation of the state while the old revision runs.
    fn migrate<'a>(
        &'a self,
        plugin: &'a Arc<Plugin>,
        staged: &Staged<'_>,
        code: &Code,
        (from, state): (u32, SessionId),
    ) -> Result<Migration<'a>, DeployError> {
        if !staged.migrates {
            let (plugin, to) = (plugin.name.0.to_string(), staged.grants.state_version);
            return Err(DeployError::NoMigration { plugin, from, to });
        }
        let does_not_start = |source| DeployError::DoesNotStart { plugin: plugin.name.0.to_string(), source };
        let instance = self.warm_instance(plugin, code).map_err(does_not_start)?;
        Migration::run(self, plugin, instance, from, state)
    }

    /// Switches to warm code, with what was migrated for it; the plugin rests. Gives the entries and the time of the migration.
    fn switch_to(
        &self,
        plugin: &Arc<Plugin>,
        revision: &Revision,
        warm: &mut stage::Warm,
        migration: Option<Migration<'_>>,
        on_probation: bool,
    ) -> Result<Option<(u64, Duration)>, DeployError> {
        let activation = Self::activation(&warm.code, revision, migration.is_some(), on_probation);
        let instances: Vec<Instance> = std::mem::take(&mut warm.instances);
        let Some(mut migration) = migration else {
            self.switch(plugin, activation, Arc::clone(&warm.code), instances)?;
            return Ok(None);
        };
        migration.finish()?;
        match self.switch(plugin, activation, Arc::clone(&warm.code), instances) {
            Ok(()) => Ok(Some(migration.keep())),
            Err(error) => {
                // Where it is not known which is in use, the next start drops the other.
                if matches!(error, DeployError::Unconfirmed(_)) {
                    migration.keep();
                }
                Err(error)
            }
        }
    }

    /// The revision that comes after all there have been.
    fn next_revision(&self, plugin: &Plugin, digest: [u8; 32], version: &Arc<str>) -> Result<Revision, DeployError> {
        let history = self.store.plugin_history(&plugin.name)?;
        let active = plugin.run(|run| run.revision.as_ref().map(|revision| revision.number));
        let last = history.iter().map(|revision| revision.number).chain(active).max();
        let (number, version) = (last.unwrap_or(0) + 1, Arc::clone(version));
        Ok(Revision { number, digest, version, activated_at: wall_clock() })
    }

    /// A report of this code, with no times in it yet.
    fn report(&self, plugin: &Plugin, revision: &Revision, code: &Code, replaced: Option<Revision>) -> DeployReport {
        let grants = &code.grants;
        DeployReport {
            plugin: plugin.name.0.to_string(),
            revision: revision.number,
            version: revision.version.to_string(),
            digest: hex(&revision.digest),
            replaced: replaced.map(|revision| revision.number),
            subscribes: grants.subscribes.iter().map(|(filter, _)| filter.to_string()).collect(),
            publishes: grants.publishes.iter().map(ToString::to_string).collect(),
            secrets: grants.secrets.keys().cloned().collect(),
            http_hosts: grants.http_hosts.iter().map(ToString::to_string).collect(),
            disconnects: grants.disconnects,
            hooks: grants.hooks.iter().map(|declaration| declaration.hook.to_string()).collect(),
            grants: self.policy.to_string(),
            signed_by: None,
            compile_ms: 0.0,
            warm_ms: 0.0,
            migrated: None,
            pause_ms: 0.0,
            probation: None,
            canary_percent: None,
            dry_run: None,
        }
    }
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
