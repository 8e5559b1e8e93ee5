//! Deploy, swap, rollback and removal: how code becomes live without a gap.
//!
//! 1. *Stage*: size, manifest, exports, grants.
//! 2. *Compile and warm*: an instance, `init`, `health`, under deadline; the old revision serves meanwhile, and a failure
//!    up to here has changed nothing.
//! 3. *Keep* the component, by its digest.
//! 4. *Quiesce*: no new batch; the call under way ends or is interrupted; publishes go on into the inbox.
//! 5. *Switch*: one transaction sets the revision and its subscriptions. Then events flow into the new code.
//!
//! The switch is one commit, so a crash at any step leaves exactly one active revision.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use vespiary_core::Input;
use vespiary_core::event::{Activation, Lane, PluginName, Revision};

use super::Plugins;
use super::grants::{Grants, NotGranted};
use super::manifest::{Manifest, ManifestError};
use super::plugin::{Code, Phase, Plugin, Refused};
use super::signature::SignatureError;
use crate::clock::wall_clock;
use crate::store::StoreError;
use crate::wasm::{CallError, Compiled, ComponentError, Instance, InstanceContext, LogLevel, Runtime};

/// How long the broker may take to answer an activation or a removal, and the disk to hold it.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long after its interruption a call may take to end.
const INTERRUPT_TIMEOUT: Duration = Duration::from_secs(5);

/// What a deploy came to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Deployed {
    /// The plugin.
    pub plugin: String,
    /// Its new revision.
    pub revision: u32,
    /// The version in its manifest.
    pub version: String,
    /// SHA-256 of the component, in hex.
    pub digest: String,
    /// The revision that it took over from, if there was one.
    pub replaced: Option<u32>,
    /// Topic filters that it listens to.
    pub subscribes: Vec<String>,
    /// Topic filters that it may publish to.
    pub publishes: Vec<String>,
    /// Who decided what it may do.
    pub grants: String,
    /// Milliseconds of compiling (or of reading the compiled code from the cache).
    pub compile_ms: f64,
    /// Milliseconds of instantiation, `init` and `health`.
    pub warm_ms: f64,
    /// Milliseconds in which no event was handed out; publishes were accepted all the while.
    pub pause_ms: f64,
}

/// Why a deploy, a rollback or a removal was refused or given up. Unless it says otherwise, nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// The upload is over the limit.
    #[error("the component has {bytes} bytes, and plugins.component_bytes allows {limit}")]
    TooLarge {
        /// What came.
        bytes: usize,
        /// What is allowed.
        limit: usize,
    },
    /// It is not a component that this broker can run.
    #[error("{0}")]
    Component(#[from] ComponentError),
    /// Its manifest is missing or wrong.
    #[error("{0}")]
    Manifest(#[from] ManifestError),
    /// It is not signed as it has to be.
    #[error("{0}")]
    Signature(#[from] SignatureError),
    /// It asks for more than it is granted.
    #[error("{0}")]
    NotGranted(#[from] NotGranted),
    /// `init` or `health` failed, or the instance could not be made.
    #[error("plugin {plugin} does not start: {source}; the revision that was active still is")]
    DoesNotStart {
        /// The plugin.
        plugin: String,
        /// Why.
        source: CallError,
    },
    /// Another deploy of the same plugin is under way.
    #[error("another deploy of plugin {0} is under way: wait for it")]
    Busy(String),
    /// No plugin of this name is deployed.
    #[error("no plugin {0:?} is deployed: see `vespiary plugin list`")]
    Unknown(String),
    /// There is no such revision to go back to.
    #[error("plugin {plugin} has no {wanted} to go back to: see `vespiary plugin show {plugin}`")]
    NoRevision {
        /// The plugin.
        plugin: String,
        /// What was asked for.
        wanted: String,
    },
    /// As many plugins as may be are deployed.
    #[error("{0} plugins are deployed, and limits.plugins allows no more: remove one first")]
    TooMany(usize),
    /// The call under way did not end.
    #[error("plugin {0} does not come to rest: its call did not end after it was interrupted; nothing was switched")]
    DoesNotRest(String),
    /// The store failed.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// The component of a revision is gone from the data directory.
    #[error(
        "the component of revision {revision} (sha256:{digest}) is missing from the data directory: deploy it again"
    )]
    MissingComponent {
        /// The revision.
        revision: u32,
        /// Its digest, in hex.
        digest: String,
    },
    /// The broker is at one of its bounds.
    #[error("the broker refused to activate plugin {0}: limits.sessions or limits.plugins is reached")]
    Refused(String),
    /// The switch is not known to be on disk.
    #[error("the switch of plugin {0} was not confirmed in time: see `vespiary plugin show {0}` for what is active")]
    Unconfirmed(String),
}

/// A component that passed staging.
struct Staged<'a> {
    bytes: &'a [u8],
    digest: [u8; 32],
    manifest: Manifest,
    grants: Grants,
}

/// Code that has run `init` and `health`.
struct Warm {
    code: Code,
    compile: Duration,
    warm: Duration,
}

impl Plugins {
    /// Deploys a component: a first one, or a new revision over the one that is active.
    pub fn deploy(&self, component: &[u8]) -> Result<Deployed, DeployError> {
        let staged = self.stage(component)?;
        self.store.check()?;
        let plugin = self.begin(&staged.manifest.name)?;
        let result = self.deploy_staged(&plugin, &staged);
        self.end(&plugin, result.is_ok());
        result
    }

    /// Makes an earlier revision's code active again, as a new revision: revision `to`, or the last one whose code
    /// differs from the active one's.
    pub fn rollback(&self, name: &PluginName, to: Option<u32>) -> Result<Deployed, DeployError> {
        let unknown = || DeployError::Unknown(name.0.to_string());
        let active = self.find(name).and_then(|plugin| plugin.run(|run| run.revision.clone())).ok_or_else(unknown)?;
        let history = self.store.plugin_history(name)?;
        let target = match to {
            Some(number) => history.iter().find(|revision| revision.number == number),
            None => history.iter().find(|revision| revision.digest != active.digest),
        };
        let wanted = || to.map_or_else(|| "earlier revision".to_owned(), |number| format!("revision {number}"));
        let target = target.ok_or_else(|| DeployError::NoRevision { plugin: name.0.to_string(), wanted: wanted() })?;
        let component = self.component_of(target)?;
        self.deploy(&component)
    }

    /// Removes a plugin with its inbox, its dead letters and its state.
    pub fn remove(&self, name: &PluginName) -> Result<(), DeployError> {
        let plugin = self.find(name).ok_or_else(|| DeployError::Unknown(name.0.to_string()))?;
        self.store.check()?;
        let plugin = self.claim(plugin)?;
        let result = self.quiesce(&plugin).and_then(|()| {
            plugin.run(|run| run.answered = None);
            self.post(Input::RemovePlugin { plugin: name.clone() });
            self.confirm(&plugin)
        });
        match result {
            Ok(()) => {
                self.plugins().remove(name);
                self.metrics.remove(name);
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
                self.post(Input::CancelTake { lane: Lane(0), plugin: name.clone() });
            } else {
                run.breaker.succeeded();
            }
        });
        plugin.log.note(LogLevel::Info, if paused { "paused by the operator" } else { "resumed by the operator" });
        self.ask(&plugin);
        Ok(())
    }

    /// The code of a revision that was deployed before, ready to run.
    pub(super) fn load(&self, plugin: &Plugin, revision: &Revision) -> Result<Code, DeployError> {
        let component = self.component_of(revision)?;
        let staged = self.stage(&component)?;
        Ok(self.warm(plugin, &staged)?.code)
    }

    fn component_of(&self, revision: &Revision) -> Result<Vec<u8>, DeployError> {
        let missing = || DeployError::MissingComponent { revision: revision.number, digest: hex(&revision.digest) };
        self.store.components().get(&revision.digest)?.ok_or_else(missing)
    }

    /// A new instance that has run `init`.
    pub(super) fn warm_instance(
        &self,
        plugin: &Plugin,
        compiled: &Compiled,
        grants: &Grants,
    ) -> Result<Instance, CallError> {
        let log = Arc::clone(&plugin.log);
        let context = InstanceContext {
            plugin: plugin.name.clone(),
            publish_grants: Arc::clone(&grants.publishes),
            subscribe_grants: grants.subscribes.iter().map(|(filter, _)| filter.clone()).collect(),
            config: Arc::clone(&grants.config),
            log: Arc::new(move |line| log.write(line)),
            ..InstanceContext::without_grants(plugin.name.clone())
        };
        let mut instance = self.runtime.instantiate(compiled, context)?;
        instance.init()?;
        Ok(instance)
    }

    fn stage<'a>(&self, bytes: &'a [u8]) -> Result<Staged<'a>, DeployError> {
        let limit = self.options.component_bytes;
        if bytes.len() > limit {
            return Err(DeployError::TooLarge { bytes: bytes.len(), limit });
        }
        self.signers.check(bytes)?;
        let inspection = Runtime::inspect(bytes)?;
        let section = inspection.manifest.ok_or(ManifestError::Missing)?;
        let manifest = Manifest::parse(&section)?;
        let grants = self.policy.decide(&manifest)?;
        Ok(Staged { bytes, digest: Sha256::digest(bytes).into(), manifest, grants })
    }

    /// Finds or makes the plugin and keeps other deploys away from it.
    fn begin(&self, name: &PluginName) -> Result<Arc<Plugin>, DeployError> {
        let plugin = {
            let mut plugins = self.plugins();
            if !plugins.contains_key(name) && plugins.len() >= self.options.most_plugins {
                return Err(DeployError::TooMany(plugins.len()));
            }
            let fresh = || Arc::new(Plugin::new(name.clone(), self.options.breaker_failures));
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

    /// Lets events flow again, into whatever code is active now.
    fn end(&self, plugin: &Arc<Plugin>, succeeded: bool) {
        let never_active = plugin.run(|run| {
            run.deploying = false;
            run.swapping = false;
            run.revision.is_none()
        });
        if !succeeded && never_active {
            self.plugins().remove(&plugin.name);
        }
        self.ask(plugin);
    }

    fn deploy_staged(&self, plugin: &Arc<Plugin>, staged: &Staged<'_>) -> Result<Deployed, DeployError> {
        let warm = self.warm(plugin, staged)?;
        self.store.components().put(staged.bytes)?;
        let replaced = plugin.run(|run| run.revision.clone());
        let history = self.store.plugin_history(&plugin.name)?;
        let last = history.iter().chain(&replaced).map(|revision| revision.number).max();
        let revision = Revision {
            number: last.unwrap_or(0) + 1,
            digest: staged.digest,
            version: staged.manifest.version.as_str().into(),
            activated_at: wall_clock(),
        };
        let paused_at = Instant::now();
        self.quiesce(plugin)?;
        self.switch(plugin, &revision, warm.code)?;
        let pause = paused_at.elapsed();
        plugin
            .log
            .note(LogLevel::Info, format!("revision {} (version {}) is active", revision.number, revision.version));
        Ok(Deployed {
            plugin: plugin.name.0.to_string(),
            revision: revision.number,
            version: revision.version.to_string(),
            digest: hex(&staged.digest),
            replaced: replaced.map(|revision| revision.number),
            subscribes: staged.grants.subscribes.iter().map(|(filter, _)| filter.to_string()).collect(),
            publishes: staged.grants.publishes.iter().map(ToString::to_string).collect(),
            grants: self.policy.to_string(),
            compile_ms: milliseconds(warm.compile),
            warm_ms: milliseconds(warm.warm),
            pause_ms: milliseconds(pause),
        })
    }

    fn warm(&self, plugin: &Plugin, staged: &Staged<'_>) -> Result<Warm, DeployError> {
        let started = Instant::now();
        let compiled = self.runtime.compile(&staged.digest, staged.bytes)?;
        let compile = started.elapsed();
        let does_not_start = |source| DeployError::DoesNotStart { plugin: plugin.name.0.to_string(), source };
        let mut instance = self.warm_instance(plugin, &compiled, &staged.grants).map_err(does_not_start)?;
        instance.health().map_err(does_not_start)?;
        let code = Code { compiled, grants: staged.grants.clone(), instance: Some(instance) };
        Ok(Warm { code, compile, warm: started.elapsed() - compile })
    }

    /// Brings a plugin to rest: no batch is out, none is asked for. A call that does not end by itself is interrupted,
    /// and its events stay in the inbox.
    fn quiesce(&self, plugin: &Plugin) -> Result<(), DeployError> {
        plugin.run(|run| {
            run.swapping = true;
            if run.phase != Phase::Resting {
                self.post(Input::CancelTake { lane: Lane(0), plugin: plugin.name.clone() });
            }
        });
        let resting = |run: &mut super::plugin::Run| (run.phase == Phase::Resting).then_some(());
        if plugin.wait(self.options.quiesce, resting).is_some() {
            return Ok(());
        }
        plugin.log.note(LogLevel::Warn, "the call under way is interrupted for a swap; its events are handled again");
        plugin.run(|run| {
            if let Some(interrupter) = run.interrupter.take() {
                interrupter.interrupt();
            }
        });
        plugin.wait(INTERRUPT_TIMEOUT, resting).ok_or_else(|| DeployError::DoesNotRest(plugin.name.0.to_string()))
    }

    /// Makes `code` the active revision, in one transaction.
    fn switch(&self, plugin: &Plugin, revision: &Revision, code: Code) -> Result<(), DeployError> {
        let activation = Activation::plain(revision.clone(), code.grants.subscribes.clone());
        plugin.run(|run| run.answered = None);
        self.post(Input::ActivatePlugin { plugin: plugin.name.clone(), activation: Box::new(activation) });
        self.confirm(plugin)?;
        plugin.run(|run| {
            run.code = Some(code);
            run.revision = Some(revision.clone());
            run.broken = None;
            run.isolating = 0;
            run.breaker.succeeded();
        });
        Ok(())
    }

    /// Waits until the broker has answered and its answer is on disk.
    fn confirm(&self, plugin: &Plugin) -> Result<(), DeployError> {
        let unconfirmed = || DeployError::Unconfirmed(plugin.name.0.to_string());
        let answer = plugin.wait(COMMIT_TIMEOUT, |run| run.answered.take()).ok_or_else(unconfirmed)?;
        let after = answer.map_err(|Refused| DeployError::Refused(plugin.name.0.to_string()))?;
        if self.pool.wait_durable(after, COMMIT_TIMEOUT) { Ok(()) } else { Err(unconfirmed()) }
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
