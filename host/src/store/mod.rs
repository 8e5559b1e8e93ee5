//! The store: everything that survives a restart, in one redb file with components beside it.
//!
//! [`Store::commit`] takes the broker's changes and never waits; a thread of its own writes them in groups and reports
//! what is durable. [`Store::open`] gives back the changes that make an equal broker. Nothing here knows what a change
//! means to MQTT; the tables are described in `docs/storage.md`.
//!
//! Invariants: a group of changes is in the database whole or not at all; groups become durable in the order in which
//! they were handed over; a file that cannot be read is reported and never replaced.

mod apply;
mod batch;
mod committer;
mod components;
mod directory;
mod error;
mod record;
mod restore;
mod snapshot;
mod tables;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use redb::Database;
use tokio::sync::watch;
use vespiary_core::event::{Change, ChangeNumber, DeadLetter, PluginName, Revision, Sequence, SessionId};

pub use committer::{CommitStatistics, Durability};
pub use components::Components;
pub use error::{LockHolder, StoreError};
pub use record::InvalidRow;
pub use snapshot::StateSnapshot;

use committer::Committer;

/// How the store is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreOptions {
    /// Memory for pages of the database, in bytes.
    pub cache_bytes: usize,
    /// Databases up to this size have the checksum of every page verified at opening, which reads about 1 GB a second.
    /// Larger ones only after a crash; damage that their clean shutdown hides is found when the page is read.
    pub verify_up_to_bytes: u64,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self { cache_bytes: 32 << 20, verify_up_to_bytes: 256 << 20 }
    }
}

/// A handle to the open store; clones are the same store. Closed by [`Store::close`], or with the last handle.
#[derive(Clone)]
pub struct Store {
    /// What all handles share.
    inner: Arc<Inner>,
}

/// A store that has just been opened.
#[derive(Debug)]
pub struct Opened {
    /// The store.
    pub store: Store,
    /// What it held: the changes that `Broker::restore` takes, in an order it can apply (see `restore.rs`).
    pub changes: Vec<Change>,
}

/// What all handles share.
struct Inner {
    /// The thread that writes.
    committer: Committer,
    /// The database and the lock of its directory, until the store is closed. The thread has the database too.
    files: RwLock<Option<Files>>,
    /// The database file, for errors.
    path: Arc<Path>,
    /// The components beside it.
    components: Components,
}

/// What an open store holds open. The database is closed before the lock goes.
struct Files {
    /// The database.
    database: Arc<Database>,
    /// Keeps other processes out while it lives.
    _lock: File,
}

impl Store {
    /// Opens the data directory, made (0700) if there is none, and keeps it to this process until the store is closed.
    pub fn open(directory: &Path, options: &StoreOptions) -> Result<Opened, StoreError> {
        directory::create_private(directory)?;
        let lock = directory::lock(directory)?;
        let components = Components::open(directory)?;
        let path: Arc<Path> = directory::database_path(directory).into();
        // redb may panic on a file that was altered behind its back; that is damage to report like any other.
        catch_unwind(AssertUnwindSafe(|| {
            let database = directory::open_database(directory, options)?;
            Self::start(database, path.clone(), components, lock)
        }))
        .unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given");
            let reason = format!("the database library panicked: {text}");
            Err(StoreError::Damaged { path: path.to_path_buf(), reason })
        })
    }

    /// Reads an open database back, and starts the thread that writes.
    fn start(database: Database, path: Arc<Path>, components: Components, lock: File) -> Result<Opened, StoreError> {
        let started = Instant::now();
        let restored = restore::read(&database, &path)?;
        if started.elapsed() > directory::PROGRESS_INTERVAL {
            let changes = restored.changes.len();
            tracing::info!(path = %path.display(), changes, elapsed = ?started.elapsed(), "read the database back");
        }
        let database = Arc::new(database);
        let committer = Committer::start(database.clone(), restored.highest)
            .map_err(StoreError::io("start the thread that writes to", &path))?;
        let files = RwLock::new(Some(Files { database, _lock: lock }));
        let store = Self { inner: Arc::new(Inner { committer, files, path, components }) };
        Ok(Opened { store, changes: restored.changes })
    }

    /// Hands over changes as one group, which will be durable whole or not at all; empties the list. Never waits for
    /// the disk. `last` is the number of the last of them. Groups come in the order of their numbers.
    ///
    /// After a failed commit, or once closed, changes are dropped: their numbers never become durable.
    pub fn commit(&self, changes: &mut Vec<Change>, last: ChangeNumber) {
        self.inner.committer.commit(changes, last);
    }

    /// Number of the last change that is on disk; 0 at first.
    pub fn durable(&self) -> ChangeNumber {
        self.inner.committer.durable()
    }

    /// Follows what is durable: changes after each commit, and when one fails.
    pub fn watch(&self) -> watch::Receiver<Durability> {
        self.inner.committer.watch()
    }

    /// Memory in changes handed over and not yet committed, in bytes, roughly. Callers take in less above a bound.
    pub fn backlog_bytes(&self) -> usize {
        self.inner.committer.backlog_bytes()
    }

    /// A plugin's state as it is committed now. Keep it for one batch only: it keeps freed pages from being reused.
    pub fn snapshot(&self, session: SessionId) -> Result<StateSnapshot, StoreError> {
        self.read(|database| StateSnapshot::take(database, &self.inner.path, session))
    }

    /// Up to `limit` dead letters of a plugin, oldest first.
    pub fn dead_letters(&self, session: SessionId, limit: usize) -> Result<Vec<(Sequence, DeadLetter)>, StoreError> {
        self.read(|database| snapshot::dead_letters(database, &self.inner.path, session, limit))
    }

    /// The revisions kept of a plugin, highest number first: those of the last ten numbers that were activated, and
    /// the active one.
    pub fn plugin_history(&self, plugin: &PluginName) -> Result<Vec<Revision>, StoreError> {
        self.read(|database| snapshot::revisions(database, &self.inner.path, plugin))
    }

    /// The components of plugins.
    pub fn components(&self) -> &Components {
        &self.inner.components
    }

    /// What commits cost so far.
    pub fn commits(&self) -> CommitStatistics {
        self.inner.committer.statistics()
    }

    /// Commits what waits, ends the thread, closes the database and releases the directory. Reading afterwards fails
    /// with [`StoreError::Closed`].
    pub fn close(&self) {
        self.inner.close();
    }

    fn read<T>(&self, operation: impl FnOnce(&Database) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let files = self.inner.files.read().unwrap_or_else(PoisonError::into_inner);
        match &*files {
            Some(files) => operation(&files.database),
            None => Err(StoreError::Closed { path: self.inner.path.to_path_buf() }),
        }
    }
}

impl Inner {
    fn close(&self) {
        self.committer.close();
        let files = self.files.write().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Files { database, _lock }) = files else { return };
        // The thread has ended and readers are locked out, so this is the last reference.
        let closed = Arc::into_inner(database).map(Database::close);
        if let Some(Err(error)) = closed {
            tracing::warn!(path = %self.path.display(), "the database did not close cleanly: {error}");
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("path", &self.inner.path).finish_non_exhaustive()
    }
}
