//! Which code is live: manifests, grants, deploys, swaps, dispatch and supervision of plugins.
//!
//! [`Plugins`] stands between the driver and the wasm floor. Downwards it compiles components and runs calls on its
//! own threads; upwards it gives the admin API deploys, rollbacks and views. It never touches the broker: it posts
//! inputs through [`Post`] and is told effects through [`Plugins::effect`].
//!
//! Locks: the driver calls [`Plugins::effect`] while it holds the broker, so nothing here may wait for the broker
//! while it holds a lock of its own.

pub mod manifest;

pub mod grants;

pub mod deploy;

pub mod hooks;

pub mod service;

pub mod dead_letters;

pub mod view;

pub mod signature;

pub mod sections;

pub mod metrics;

mod plugin;

mod dispatch;

mod pool;

mod threads;

mod conflicts;

mod schedules;

mod trial;

mod breaker;

mod reading;
mod recent;

mod report;

mod counts;

mod log;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;

pub use self::counts::{Counts, Failure};
pub use self::dead_letters::DeadSelection;
pub use self::log::Entry;
pub use self::service::ServiceError;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use vespiary_core::event::{Lanes, PluginName, Revision, SessionId};
use vespiary_core::{Input, Message, Topic};

use self::grants::Policy;
use self::hooks::{Hooks, SandboxCode};
use self::metrics::Metrics;
use self::plugin::{Code, LaneRun, Plugin, PluginOptions};
use self::pool::Pool;
use self::signature::Signers;
use self::threads::Threads;
use self::trial::Length;
use crate::config::Config;
use crate::store::Store;
use crate::wasm::{LogLevel, RetainedLookup, Runtime};

/// How often breakers and trials are looked at.
const SUPERVISION_INTERVAL: Duration = Duration::from_millis(500);
/// How long calls that may wait may take to end once the broker stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// Hands an input to the broker, in order and without waiting.
pub type Post = Box<dyn Fn(Input) + Send + Sync>;

/// Every deployed plugin, and the threads that run them.
pub struct Plugins {
    runtime: Arc<Runtime>,
    store: Store,
    policy: Policy,
    signers: Signers,
    metrics: Arc<Metrics>,
    hooks: Hooks,
    options: Options,
    links: OnceLock<Links>,
    plugins: Mutex<BTreeMap<PluginName, Arc<Plugin>>>,
    pool: Pool,
    /// Where work runs that may wait.
    threads: Threads,
    /// The threads of the pool and the supervisor.
    workers: Mutex<Vec<JoinHandle<()>>>,
    /// Itself, for work that goes on by itself.
    this: Weak<Self>,
}

/// What leads to the floors above; they are there once the broker runs.
pub struct Links {
    /// Hands an input to the broker.
    pub post: Post,
    /// Looks a retained message up.
    pub retained: RetainedLookup,
}

/// A plugin that was deployed before, as the broker has it at start.
#[derive(Debug, Clone)]
pub struct Deployed {
    /// Its name.
    pub name: PluginName,
    /// The session that holds its inbox.
    pub session: SessionId,
    /// The generation of its state in use.
    pub state: SessionId,
    /// The active revision.
    pub revision: Revision,
    /// The revision that its probation may go back to, if it is on one, and the events that were handled on it.
    pub probation: Option<(Revision, usize)>,
    /// How its events are spread.
    pub lanes: Lanes,
}

/// What of the configuration the plugins floor itself needs.
#[derive(Debug, Clone)]
struct Options {
    batch_events: usize,
    attempts: u32,
    quiesce: Duration,
    component_bytes: usize,
    most_plugins: usize,
    threads: usize,
    http_requests: usize,
    plugin: PluginOptions,
    probation: Length,
    probation_failures: Option<u32>,
    limits: view::LimitsView,
}

impl Plugins {
    /// No plugins yet; [`Plugins::start`] brings those that were deployed before.
    pub fn new(config: &Config, runtime: Runtime, store: Store, hooks: Hooks) -> Arc<Self> {
        let settings = &config.plugins;
        let limits = config.limits.resolve();
        let threads = match settings.threads {
            0 => std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 8),
            threads => threads,
        };
        let options = Options {
            batch_events: settings.batch_events,
            attempts: settings.attempts,
            quiesce: Duration::from_millis(settings.quiesce_ms),
            component_bytes: settings.component_bytes,
            most_plugins: limits.plugins,
            threads,
            http_requests: settings.http_requests,
            plugin: PluginOptions {
                breaker_failures: settings.breaker_failures,
                recent_events: settings.dry_run_events,
                recent_bytes: settings.dry_run_bytes,
            },
            probation: Length { events: settings.probation_events.into(), seconds: settings.probation_s.into() },
            probation_failures: settings.probation_failures,
            limits: view::LimitsView::new(settings, &limits),
        };
        Arc::new_cyclic(|this| Self {
            runtime: Arc::new(runtime),
            store,
            policy: Policy::new(config),
            signers: Signers::new(&settings.signed_by),
            metrics: Metrics::new(settings.metric_series),
            hooks,
            options,
            links: OnceLock::new(),
            plugins: Mutex::default(),
            pool: Pool::default(),
            threads: Threads::default(),
            workers: Mutex::default(),
            this: this.clone(),
        })
    }

    /// Makes the plugins that were deployed before live again, and starts the threads. A plugin that cannot run is
    /// reported and kept: its events wait in its inbox. A canary that was under way is over.
    pub fn start(self: &Arc<Self>, links: Links, deployed: Vec<Deployed>) {
        assert!(self.links.set(links).is_ok(), "plugins are started once");
        let plugins = Arc::downgrade(self);
        self.store.follow(Box::new(move |durability| {
            if let Some(plugins) = plugins.upgrade() {
                plugins.pool.follow(durability);
            }
        }));
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        for index in 0..self.options.threads {
            let plugins = Arc::clone(self);
            workers.push(spawn(format!("vespiary-plugin-{index}"), move || plugins.run_jobs()));
        }
        let plugins = Arc::clone(self);
        workers.push(spawn("vespiary-waiting".to_owned(), move || plugins.run_waiting_jobs()));
        let plugins = Arc::clone(self);
        workers.push(spawn("vespiary-supervisor".to_owned(), move || plugins.supervise()));
        drop(workers);
        for plugin in deployed {
            self.restore(plugin);
        }
        self.collect_components();
    }

    /// Ends the threads after the calls that they are in. Events that were not settled stay in their inboxes.
    pub fn stop(&self) {
        self.pool.stop();
        let plugins: Vec<Arc<Plugin>> = self.plugins().values().cloned().collect();
        for plugin in plugins {
            plugin.run(|run| {
                run.swapping = true;
                run.interrupt();
            });
        }
        let workers = std::mem::take(&mut *self.workers.lock().unwrap_or_else(PoisonError::into_inner));
        for worker in workers {
            if worker.join().is_err() {
                tracing::error!("a plugin thread panicked; this is a defect of the broker");
            }
        }
        self.threads.stop(STOP_TIMEOUT);
    }

    /// The live code of a revision that was deployed before.
    fn restore(&self, deployed: Deployed) {
        let Deployed { name, session, state, revision, probation, lanes } = deployed;
        let plugin = Arc::new(Plugin::new(name.clone(), self.options.plugin));
        self.plugins().insert(name.clone(), Arc::clone(&plugin));
        let loaded = self.load(&plugin, &revision);
        self.retire_schedules(&plugin, &revision);
        let code = plugin.run(|run| {
            run.session = Some(session);
            run.state = Some(state);
            let code = match loaded {
                Ok((code, instances)) => {
                    let wanted = code.grants.lanes;
                    if wanted != lanes {
                        self.post(Input::ArrangeLanes { plugin: name.clone(), lanes: wanted });
                    }
                    run.arrange(wanted);
                    run.lanes.iter_mut().zip(instances).for_each(|(lane, one): (&mut LaneRun, _)| {
                        lane.instance = Some(one);
                    });
                    run.schedules.declare(&code.grants.schedules);
                    run.code = Some(Arc::clone(&code));
                    Some(code)
                }
                Err(error) => {
                    let reason = format!("revision {} cannot run: {error}", revision.number);
                    plugin.log.note(LogLevel::Error, reason.clone());
                    run.broken = Some(reason);
                    None
                }
            };
            run.revision = Some(revision);
            code
        });
        if let Some((previous, handled)) = probation {
            self.resume_probation(&plugin, previous, handled);
        }
        match code {
            Some(code) => self.install_hooks(&plugin, &code),
            None => self.trip(&plugin, vespiary_core::event::Lane(0), "it cannot run after a restart"),
        }
        self.ask(&plugin);
    }

    /// Tells the plugin's schedules what the revisions before the active one declared.
    fn retire_schedules(&self, plugin: &Plugin, active: &Revision) {
        let Ok(history) = self.store.plugin_history(&plugin.name) else { return };
        for revision in history.iter().filter(|revision| revision.digest != active.digest) {
            // One whose component is gone cannot be asked; its timers were cancelled when it was replaced.
            if let Ok(manifest) = self.manifest_of(revision) {
                plugin.run(|run| run.schedules.retire(&manifest.schedules));
            }
        }
    }

    /// From now on the hooks of this code are asked.
    fn install_hooks(&self, plugin: &Plugin, code: &Arc<Code>) {
        let Some(state) = plugin.run(|run| run.state) else { return };
        if code.grants.hooks.is_empty() {
            return self.hooks.remove(&plugin.name);
        }
        let context = self.instance_context(plugin, &code.grants);
        let log = Arc::clone(&context.log);
        let (runtime, compiled, store) = (Arc::clone(&self.runtime), code.compiled.clone(), self.store.clone());
        let sandbox = Arc::new(SandboxCode { runtime, compiled, context, store, state });
        self.hooks.install(&plugin.name, sandbox, log, &code.grants.hooks);
    }

    /// A plugin is removed: nothing of it stays.
    fn forget(&self, name: &PluginName) {
        self.hooks.remove(name);
        self.metrics.remove(name);
    }

    /// Deletes components that no kept revision refers to, and what was compiled of them.
    fn collect_components(&self) {
        let plugins: Vec<Arc<Plugin>> = self.plugins().values().cloned().collect();
        let mut kept = Vec::new();
        for plugin in plugins {
            match self.store.plugin_history(&plugin.name) {
                Ok(history) => kept.extend(history.into_iter().map(|revision| revision.digest)),
                Err(error) => {
                    tracing::warn!("components are not cleaned up: {error}");
                    return;
                }
            }
            let deploying = plugin.run(|run| {
                let probation = run.probation.as_ref().map(|probation| probation.previous.digest);
                let active = run.revision.as_ref().map(|revision| revision.digest);
                let canary = run.canary.as_ref().map(|canary| canary.revision.digest);
                kept.extend(active.into_iter().chain(canary).chain(probation));
                run.deploying
            });
            if deploying {
                // Its component may be there already, and its revision not yet; the next time cleans up.
                return;
            }
        }
        match self.store.components().list() {
            Ok(all) => {
                for digest in all.into_iter().filter(|digest| !kept.contains(digest)) {
                    if let Err(error) = self.store.components().remove(&digest) {
                        tracing::warn!("a component that nothing refers to stays: {error}");
                    }
                }
            }
            Err(error) => tracing::warn!("components are not cleaned up: {error}"),
        }
        if let Err(error) = self.runtime.prune(&kept) {
            tracing::warn!("compiled components are not cleaned up: {error}");
        }
    }

    /// Lets breakers try again, and looks at trials; runs on a thread of its own.
    fn supervise(self: &Arc<Self>) {
        while !self.pool.wait_stopping(SUPERVISION_INTERVAL) {
            self.try_again();
            self.look_at_trials();
        }
    }

    fn post(&self, input: Input) {
        if let Some(links) = self.links.get() {
            (links.post)(input);
        }
    }

    /// Looks a retained message up.
    fn retained(&self) -> RetainedLookup {
        let nothing: fn(&Topic) -> Option<Arc<Message>> = |_| None;
        self.links.get().map_or_else(|| Arc::new(nothing) as RetainedLookup, |links| Arc::clone(&links.retained))
    }

    fn plugins(&self) -> MutexGuard<'_, BTreeMap<PluginName, Arc<Plugin>>> {
        self.plugins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, name: &PluginName) -> Option<Arc<Plugin>> {
        self.plugins().get(name).cloned()
    }
}

impl std::fmt::Debug for Plugins {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plugins").field("plugins", &self.plugins).finish_non_exhaustive()
    }
}

fn spawn(name: String, body: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    match std::thread::Builder::new().name(name).spawn(body) {
        Ok(handle) => handle,
        // Without threads there is no service; the system is out of them at start.
        Err(error) => panic!("cannot start a thread: {error}"),
    }
}
