//! Which code is live: manifests, grants, deploys, swaps, dispatch and supervision of plugins.
//!
//! [`Plugins`] stands between the driver and the wasm floor. Downwards it compiles components and runs calls on its
//! own threads; upwards it gives the admin API deploys, rollbacks and views. It never touches the broker: it posts
//! inputs through [`Post`] and is told effects through [`Plugins::effect`].
//!
//! Locks: the driver calls [`Plugins::effect`] while it holds the broker, so nothing here may wait for the broker
//! while it holds a lock of its own.

pub mod manifest;

pub mod hooks;

pub mod grants;

pub mod deploy;

pub mod view;

pub mod signature;

pub mod sections;

pub mod metrics;

mod dispatch;

mod plugin;

mod pool;

mod breaker;

mod log;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;

pub use self::log::Entry;
pub use self::plugin::{Counts, Failure};

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use vespiary_core::Input;
use vespiary_core::event::{PluginName, Revision, SessionId};

use self::grants::Policy;
use self::metrics::Metrics;
use self::plugin::Plugin;
use self::pool::Pool;
use self::signature::Signers;
use crate::config::Config;
use crate::store::{Durability, Store};
use crate::wasm::{LogLevel, Runtime};

/// How often breakers are looked at.
const SUPERVISION_INTERVAL: Duration = Duration::from_millis(500);

/// Hands an input to the broker, in order and without waiting.
pub type Post = Box<dyn Fn(Input) + Send + Sync>;

/// Every deployed plugin, and the threads that run them.
pub struct Plugins {
    runtime: Runtime,
    store: Store,
    policy: Policy,
    signers: Signers,
    metrics: Arc<Metrics>,
    options: Options,
    post: OnceLock<Post>,
    plugins: Mutex<BTreeMap<PluginName, Arc<Plugin>>>,
    pool: Pool,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What of the configuration the plugins floor itself needs.
#[derive(Debug, Clone)]
struct Options {
    batch_events: usize,
    attempts: u32,
    breaker_failures: u32,
    quiesce: Duration,
    component_bytes: usize,
    most_plugins: usize,
    threads: usize,
    inbox_events: usize,
    memory_bytes: usize,
    call_deadline_ms: u64,
    publishes_per_call: usize,
}

impl Plugins {
    /// No plugins yet; [`Plugins::start`] brings those that were deployed before.
    pub fn new(config: &Config, runtime: Runtime, store: Store) -> Arc<Self> {
        let settings = &config.plugins;
        let limits = config.limits.resolve();
        let threads = match settings.threads {
            0 => std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 8),
            threads => threads,
        };
        let options = Options {
            batch_events: settings.batch_events,
            attempts: settings.attempts,
            breaker_failures: settings.breaker_failures,
            quiesce: Duration::from_millis(settings.quiesce_ms),
            component_bytes: settings.component_bytes,
            most_plugins: limits.plugins,
            threads,
            inbox_events: limits.inbox_events,
            memory_bytes: settings.memory_bytes,
            call_deadline_ms: settings.call_deadline_ms,
            publishes_per_call: settings.publishes_per_call,
        };
        Arc::new(Self {
            runtime,
            store,
            policy: Policy::new(config),
            signers: Signers::new(&settings.signed_by),
            metrics: Metrics::new(settings.metric_series),
            options,
            post: OnceLock::new(),
            plugins: Mutex::default(),
            pool: Pool::default(),
            threads: Mutex::default(),
        })
    }

    /// Makes the plugins that were deployed before live again, and starts the threads. A plugin that cannot run is
    /// reported and kept: its events wait in its inbox.
    pub fn start(self: &Arc<Self>, post: Post, deployed: Vec<(PluginName, SessionId, Revision)>) {
        assert!(self.post.set(post).is_ok(), "plugins are started once");
        self.pool.durable(self.store.durable());
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        for index in 0..self.options.threads {
            let plugins = Arc::clone(self);
            threads.push(spawn(format!("vespiary-plugin-{index}"), move || plugins.run_jobs()));
        }
        let plugins = Arc::clone(self);
        threads.push(spawn("vespiary-supervisor".to_owned(), move || plugins.supervise()));
        drop(threads);
        for (name, session, revision) in deployed {
            self.restore(&name, session, revision);
        }
        self.collect_components();
    }

    /// Ends the threads after the calls that they are in. Events that were not settled stay in their inboxes.
    pub fn stop(&self) {
        self.pool.stop();
        for plugin in self.plugins().values() {
            plugin.run(|run| {
                run.swapping = true;
                if let Some(interrupter) = run.interrupter.take() {
                    interrupter.interrupt();
                }
            });
        }
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a plugin thread panicked; this is a defect of the broker");
            }
        }
    }

    /// The live code of a revision that was deployed before.
    fn restore(self: &Arc<Self>, name: &PluginName, session: SessionId, revision: Revision) {
        let plugin = Arc::new(Plugin::new(name.clone(), self.options.breaker_failures));
        self.plugins().insert(name.clone(), Arc::clone(&plugin));
        let loaded = self.load(&plugin, &revision);
        plugin.run(|run| {
            run.session = Some(session);
            match loaded {
                Ok(code) => run.code = Some(code),
                Err(error) => {
                    let reason = format!("revision {} cannot run: {error}", revision.number);
                    plugin.log.note(LogLevel::Error, reason.clone());
                    run.broken = Some(reason);
                }
            }
            run.revision = Some(revision);
        });
        self.ask(&plugin);
    }

    /// Deletes components that no kept revision refers to.
    fn collect_components(&self) {
        let names: Vec<PluginName> = self.plugins().keys().cloned().collect();
        let mut kept = Vec::new();
        for name in names {
            match self.store.plugin_history(&name) {
                Ok(history) => kept.extend(history.into_iter().map(|revision| revision.digest)),
                Err(error) => {
                    tracing::warn!("components are not cleaned up: {error}");
                    return;
                }
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
    }

    /// Tells the pool what is durable, and lets breakers try again; runs on a thread of its own.
    fn supervise(&self) {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_time().build() else {
            tracing::error!("the plugin supervisor cannot start; plugins do not run");
            return;
        };
        let mut durability = self.store.watch();
        runtime.block_on(async {
            loop {
                match tokio::time::timeout(SUPERVISION_INTERVAL, durability.changed()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return,
                    Err(_) => self.try_again(),
                }
                match &*durability.borrow_and_update() {
                    Durability::UpTo(number) => self.pool.durable(*number),
                    Durability::Failing(_) => self.pool.hold(),
                    Durability::Failed(_) => return self.pool.stop(),
                }
                if self.pool.is_stopping() {
                    return;
                }
            }
        });
    }

    fn post(&self, input: Input) {
        if let Some(post) = self.post.get() {
            post(input);
        }
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
