//! Hooks: plugins that decide in the path of a client's packets.
//!
//! [`Hooks`] knows which plugins ask for which questions, and asks them on threads of its own. What is live is an immutable
//! [`Set`], swapped whole when a plugin is installed or removed: whoever asks keeps the set of the moment, and the next
//! packet sees the next one. Whether anybody wants to be asked at all is one relaxed load of one word.
//!
//! A question has the deadline of its declaration, counted from when it is asked. A hook that fails, is late, is not asked
//! because too many wait, or is paused by its breaker, decides by its declaration: as if it were not there, or as if it had
//! refused. What the answers mean for a client's packet is decided in [`chain`]; what becomes of its connection, above.

mod set;

mod chain;

mod guest;

mod sandbox;

mod live;

mod queue;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use self::chain::{Admission, Published};
pub(crate) use self::chain::{may_be_published, may_be_subscribed};
pub use self::guest::{Answer, Code, Guest, Question};
pub use self::live::HookCounts;
pub use self::sandbox::SandboxCode;
pub use self::set::Set;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vespiary_core::event::PluginName;
use vespiary_core::{Topic, TopicFilter};

use self::live::Live;
use self::queue::Threads;
use super::manifest::HookDeclaration;
use crate::wasm::LogSink;

/// What somebody wants to be asked about: a bit each in the word that is looked at for every packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Wanted {
    /// CONNECT without an Authentication Method.
    Authentication = 1,
    /// Authentication Methods.
    Methods = 1 << 1,
    /// Wills.
    Wills = 1 << 2,
    /// PUBLISH from clients.
    Publishes = 1 << 3,
    /// SUBSCRIBE.
    Subscriptions = 1 << 4,
    /// PUBLISH to clients.
    Deliveries = 1 << 5,
}

/// Bits of the word below its version.
const WANTED_BITS: u32 = 8;

/// The hooks of all plugins. Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub struct Hooks(Arc<Shared>);

/// What clones have in common.
#[derive(Default)]
struct Shared {
    /// What is [wanted](Wanted), and above it the version of the set.
    word: AtomicU64,
    /// What is live.
    set: Mutex<Arc<Set>>,
    /// Where guests run; started with the first hook.
    threads: Threads,
}

impl Hooks {
    /// From now on these hooks of a plugin are asked, in the place of those that it had. Clients that are connected are
    /// affected with their next packet. To be called at the switch to a revision; without declarations it is
    /// [`Hooks::remove`].
    pub fn install(&self, plugin: &PluginName, code: Arc<dyn Code>, log: LogSink, declarations: &[HookDeclaration]) {
        if declarations.is_empty() {
            return self.remove(plugin);
        }
        self.0.threads.start();
        let live = Arc::new(Live::new(plugin.clone(), code, log, self.0.threads.line()));
        self.change(|set| set.with(&live, declarations, &self.0.threads));
        let line = live.line;
        // If that cannot be queued, the first question makes its guest itself.
        self.0.threads.submit(line, Box::new(move || live.warm()));
    }

    /// From now on a plugin is not asked any more. Questions under way are still answered.
    pub fn remove(&self, plugin: &PluginName) {
        self.change(|set| set.without(plugin));
    }

    /// What happened to the hooks of each plugin that has some, since it was installed.
    pub fn counts(&self) -> Vec<(PluginName, HookCounts)> {
        self.current().counts()
    }

    /// What is live.
    pub fn current(&self) -> Arc<Set> {
        Arc::clone(&self.set())
    }

    /// A worker's view.
    pub fn view(&self) -> View {
        View { hooks: self.clone(), version: Cell::new(u64::MAX), set: RefCell::default() }
    }

    fn change(&self, change: impl FnOnce(&Set) -> Set) {
        let mut set = self.set();
        let changed = change(&set);
        let version = (self.0.word.load(Ordering::Relaxed) >> WANTED_BITS) + 1;
        self.0.word.store(version << WANTED_BITS | changed.wanted(), Ordering::Relaxed);
        *set = Arc::new(changed);
    }

    fn set(&self) -> MutexGuard<'_, Arc<Set>> {
        self.0.set.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks").field("set", &self.current()).finish_non_exhaustive()
    }
}

/// The hooks as one thread looks at them, for every packet: it keeps the set that it saw last.
#[derive(Debug)]
pub struct View {
    /// All of them.
    hooks: Hooks,
    /// The version of the set below.
    version: Cell<u64>,
    /// The set that was seen last.
    set: RefCell<Arc<Set>>,
}

impl View {
    /// Whether anybody wants to be asked about this at all: one relaxed load.
    pub fn any(&self, wanted: Wanted) -> bool {
        self.hooks.0.word.load(Ordering::Relaxed) & wanted as u64 != 0
    }

    /// What is live.
    pub fn set(&self) -> Arc<Set> {
        let version = self.hooks.0.word.load(Ordering::Relaxed) >> WANTED_BITS;
        if version != self.version.get() {
            // The word is written under the set's lock, so this set is of this version or later.
            self.set.replace(self.hooks.current());
            self.version.set(version);
        }
        Arc::clone(&self.set.borrow())
    }

    /// All of them.
    pub fn hooks(&self) -> &Hooks {
        &self.hooks
    }

    /// The set, if somebody wants to be asked about publishes to this topic.
    pub fn publishes(&self, topic: &Topic) -> Option<Arc<Set>> {
        let set = self.any(Wanted::Publishes).then(|| self.set())?;
        set.wants_publish(topic).then_some(set)
    }

    /// The set, if somebody wants to be asked about one of these subscriptions.
    pub fn subscriptions<'a>(&self, mut filters: impl Iterator<Item = &'a TopicFilter>) -> Option<Arc<Set>> {
        let set = self.any(Wanted::Subscriptions).then(|| self.set())?;
        filters.any(|filter| set.wants_subscription(filter)).then_some(set)
    }

    /// The set, if somebody wants to be asked about messages of this topic before they leave.
    pub fn deliveries(&self, topic: &Topic) -> Option<Arc<Set>> {
        let set = self.any(Wanted::Deliveries).then(|| self.set())?;
        set.wants_delivery(topic).then_some(set)
    }
}
