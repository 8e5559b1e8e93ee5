//! The store: everything that survives a restart, in one redb file with its log, and components beside it.
//!
//! [`Store::commit`] takes the broker's changes and never waits; a thread of its own writes them to the log in groups and
//! reports what is durable; another brings the database up to the log now and then, and what it lacks meanwhile is kept in
//! memory. [`Store::open`] gives back the changes that make an equal broker, but for the queues of clients: they
//! are read back by another thread, in pieces, as [`Store::load`] asks for them. Nothing here knows what a change means
//! to MQTT; the tables are described in `docs/storage.md`.
//!
//! Invariants: a group of changes is in the log whole or not at all, and in the database; groups become durable in the order in which
//! they were handed over; a file that cannot be read is reported and never replaced.

mod apply;
mod batch;
mod checkpoint;
mod committer;
mod components;
mod database;
mod directory;
mod error;
mod exchange;
mod failure;
mod linger;
mod loader;
mod log;
mod overlay;
mod purging;
mod record;
mod restore;
mod snapshot;
mod tables;
mod trimming;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use redb::{Database, ReadableDatabase, ReadableTableMetadata};
use tokio::sync::watch;
use vespiary_core::event::{Change, ChangeNumber, DeadLetter, PluginName, Revision, Sequence, SessionId};
use vespiary_core::message::Timestamp;

pub use components::Components;
pub use error::{LockHolder, StoreError};
pub use exchange::{CommitStatistics, Durability, Follower};
pub use linger::Pace;
pub use loader::{LoadAnswer, LoadRequest, LoadStatistics};
pub use record::InvalidRow;
pub use snapshot::{StateEntry, StateSnapshot, StateValue};

use crate::clock::wall_clock;
use batch::Batch;
use committer::{Committer, Found, Pauses};
use database::{Files, LiveDatabase, Reopen};
use exchange::Exchange;
use loader::Loader;
use log::{Log, LogError};
use purging::Clock;

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
    /// What is shared with the threads.
    exchange: Arc<Exchange>,
    /// The thread that commits.
    committer: Committer,
    /// The thread that reads queues back.
    loader: Loader,
    /// The database.
    database: Arc<LiveDatabase>,
    /// Keeps other processes out, until the store is closed.
    lock: Mutex<Option<File>>,
    /// The components beside the database.
    components: Components,
}

/// The parts of a store that is being opened.
struct Parts {
    /// The database and its log.
    files: Files,
    /// The database's file, for errors.
    path: Arc<Path>,
    /// Opens them again after a failure.
    reopen: Reopen,
    /// How long to wait before that.
    pauses: Pauses,
    /// Tells the time by which state expires.
    clock: Clock,
    /// The components beside it.
    components: Components,
    /// Keeps other processes out.
    lock: File,
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
            let files = directory::open_files(directory, options)?;
            let (data, options) = (directory.to_owned(), options.clone());
            let reopen: Reopen = Box::new(move || directory::reopen_files(&data, &options));
            let (pauses, clock): (_, Clock) = (Pauses::default(), Box::new(wall_clock));
            Self::start(Parts { files, path: path.clone(), reopen, pauses, clock, components, lock })
        }))
        .unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given");
            let reason = format!("the database library panicked: {text}");
            Err(StoreError::Damaged { path: path.to_path_buf(), reason })
        })
    }

    /// Reads an open database back, and starts the threads.
    fn start(parts: Parts) -> Result<Opened, StoreError> {
        let Parts { files: Files { database, log }, path, reopen, pauses, clock, components, lock } = parts;
        let started = Instant::now();
        let log = replay(&database, Log::new(log), &path)?;
        let restored = restore::read(&database, &path)?;
        let frame = tables::frame(&database).map_err(StoreError::database("read", &path))?;
        let next_expiry = tables::next_expiry(&database).map_err(StoreError::database("read", &path))?;
        if started.elapsed() > directory::PROGRESS_INTERVAL {
            let changes = restored.changes.len();
            tracing::info!(path = %path.display(), changes, elapsed = ?started.elapsed(), "read the database back");
        }
        let database = Arc::new(LiveDatabase::new(database, path.clone(), reopen));
        let no_thread = || StoreError::io("start a thread for", &path);
        let exchange = Arc::new(Exchange::new());
        exchange.overlay.expect_undo(&restored.changes);
        let found = Found { database: database.clone(), log, highest: restored.highest, frame, next_expiry };
        let committer = Committer::start(exchange.clone(), found, pauses, clock).map_err(no_thread())?;
        let loader = Loader::start(database.clone(), exchange.clone()).map_err(no_thread())?;
        let lock = Mutex::new(Some(lock));
        let store = Self { inner: Arc::new(Inner { exchange, committer, loader, database, lock, components }) };
        Ok(Opened { store, changes: restored.changes })
    }

    /// Hands over changes as one group, which will be durable whole or not at all; empties the list. Never waits for
    /// the disk. `last` is the number of the last of them. Groups come in the order of their numbers.
    ///
    /// While commits fail, changes are kept and wait. After one has failed for good, or once closed, changes are
    /// dropped: their numbers never become durable.
    pub fn commit(&self, changes: &mut Vec<Change>, last: ChangeNumber) {
        self.commit_at(changes, last, Pace::default());
    }

    /// The same by one who knows something of what comes next.
    pub fn commit_at(&self, changes: &mut Vec<Change>, last: ChangeNumber, pace: Pace) {
        self.inner.exchange.hand_over(changes, last, pace);
    }

    /// Told once nothing becomes durable any more, and why.
    pub fn ended(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.inner.exchange.ended()
    }

    /// Says who is told what is durable by the store's thread itself, each time that changes, beginning now. There is
    /// one; a second is not told. Must not block.
    pub fn follow(&self, follower: Follower) {
        self.inner.exchange.follow(follower);
    }

    /// Number of the last change that is on disk; 0 at first.
    pub fn durable(&self) -> ChangeNumber {
        self.inner.exchange.durable()
    }

    /// Follows what is durable: changes after each commit, and when one fails.
    pub fn watch(&self) -> watch::Receiver<Durability> {
        self.inner.exchange.watch()
    }

    /// Whether commits fail: what is handed over becomes durable nobody knows when, if ever.
    pub fn is_failing(&self) -> bool {
        self.inner.exchange.is_failing()
    }

    /// Whether the store can be used now; the error says why not.
    pub fn check(&self) -> Result<(), StoreError> {
        self.read(|_| Ok(()))
    }

    /// Asks for entries of a queue. The answer goes to whom [`Store::answer_loads`] said.
    pub fn load(&self, request: LoadRequest) {
        self.inner.loader.ask(request);
    }

    /// Says who gets the answers to [`Store::load`] from now on. Called on a thread of the store; must not block.
    pub fn answer_loads(&self, answer: LoadAnswer) {
        self.inner.loader.answer_to(answer);
    }

    /// The oldest answer that was not taken yet has been taken. To be said of each, or answers stop coming: those that
    /// are not taken are bounded.
    pub fn load_taken(&self) {
        self.inner.loader.taken();
    }

    /// What reading queues back cost so far.
    pub fn loads(&self) -> LoadStatistics {
        self.inner.loader.statistics()
    }

    /// Number of the last change that was handed over.
    pub fn handed_over(&self) -> ChangeNumber {
        self.inner.exchange.handed_over()
    }

    /// Messages in queues and inboxes, and kept for probations, each counted once.
    pub fn stored_messages(&self) -> Result<u64, StoreError> {
        let path = self.inner.database.path();
        self.read_all(|database| {
            let transaction = database.begin_read().map_err(StoreError::database("read", path))?;
            let table = transaction.open_table(tables::MESSAGES).map_err(StoreError::database("read", path))?;
            table.len().map_err(StoreError::database("read", path))
        })
    }

    /// Memory in changes handed over and not yet committed, in bytes, roughly. Callers take in less above a bound.
    pub fn backlog_bytes(&self) -> usize {
        self.inner.exchange.backlog_bytes()
    }

    /// A generation of a plugin's state as all changes leave it that have been handed over, without what has expired at
    /// `now`. Keep it for one batch only: it keeps freed pages from being reused. Waits where a probation was just undone.
    pub fn snapshot(&self, state: SessionId, now: Timestamp) -> Result<StateSnapshot, StoreError> {
        let Inner { exchange, database, .. } = &*self.inner;
        if let Some(barrier) = exchange.overlay.barrier(state)
            && !exchange.wait_until_stored(barrier)
        {
            self.check()?;
            return Err(self.failing("what a rollback restores is not in it yet"));
        }
        self.read(|open| StateSnapshot::take(open, &exchange.overlay, database.path(), state, now))
    }

    /// Bytes of the keys and values of a generation of a plugin's state. What has expired counts until it is purged, which
    /// is seconds later.
    pub fn state_bytes(&self, state: SessionId) -> Result<u64, StoreError> {
        self.read_all(|database| snapshot::state_bytes(database, self.inner.database.path(), state))
    }

    /// Up to `limit` dead letters of a plugin, oldest first; from the first behind `after` if it is given.
    pub fn dead_letters(
        &self,
        session: SessionId,
        after: Option<Sequence>,
        limit: usize,
    ) -> Result<Vec<(Sequence, DeadLetter)>, StoreError> {
        self.read_all(|database| snapshot::dead_letters(database, self.inner.database.path(), session, after, limit))
    }

    /// A dead letter of a plugin, if it has this one.
    pub fn dead_letter(&self, session: SessionId, sequence: Sequence) -> Result<Option<DeadLetter>, StoreError> {
        self.read_all(|database| snapshot::dead_letter(database, self.inner.database.path(), session, sequence))
    }

    /// The revisions kept of a plugin, highest number first: those of the last ten numbers that were activated, and
    /// the active one.
    pub fn plugin_history(&self, plugin: &PluginName) -> Result<Vec<Revision>, StoreError> {
        self.read_all(|database| snapshot::revisions(database, self.inner.database.path(), plugin))
    }

    /// The components of plugins.
    pub fn components(&self) -> &Components {
        &self.inner.components
    }

    /// What commits cost so far.
    pub fn commits(&self) -> CommitStatistics {
        self.inner.exchange.statistics()
    }

    /// Commits what waits, ends the threads, closes the database and releases the directory. Reading afterwards fails
    /// with [`StoreError::Closed`]. An error says that changes were handed over that are not on disk.
    pub fn close(&self) -> Result<(), StoreError> {
        self.inner.close()
    }

    /// Reads from a database that has all changes that were handed over until now: waits for a checkpoint.
    fn read_all<T>(&self, operation: impl FnOnce(&Database) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let exchange = &self.inner.exchange;
        if !exchange.wait_until_stored(exchange.handed_over()) {
            self.check()?;
            return Err(self.failing("it is not up to its log yet"));
        }
        self.read(operation)
    }

    /// That it cannot be used at present, for this reason.
    pub(crate) fn failing(&self, reason: &str) -> StoreError {
        StoreError::Failing { path: self.inner.database.path().to_path_buf(), reason: reason.into() }
    }

    fn read<T>(&self, operation: impl FnOnce(&Database) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let outcome = self.inner.database.read(operation);
        if let Err(StoreError::Database { .. }) = &outcome {
            self.inner.exchange.cannot_read();
        }
        outcome
    }
}

/// Brings a database up to its log, and empties that.
fn replay(database: &Database, mut log: Log, path: &Path) -> Result<Log, StoreError> {
    let started = Instant::now();
    let before = tables::frame(database).map_err(StoreError::database("read", path))?;
    // What sequences the database holds is not known yet: any.
    let mut batch = Batch::new(u64::MAX);
    let frame = log.replay::<LogError>(before, |_, changes| {
        changes.into_iter().for_each(|change| batch.push(change));
        batch.forget_messages();
        Ok(())
    });
    let frame = frame.map_err(|error| error.of_store(path))?;
    if frame > before {
        let transaction = database.begin_write().map_err(StoreError::database("write", path))?;
        checkpoint::write_batch(transaction, &batch, frame, &mut Vec::new())
            .map_err(|error| error.of_store("write", path))?;
        let (frames, changes) = (frame - before, batch.changes);
        tracing::info!(path = %path.display(), frames, changes, elapsed = ?started.elapsed(), "brought the database up to its log");
    }
    log.clear().map_err(|error| error.of_store(path))?;
    Ok(log)
}

impl Inner {
    fn close(&self) -> Result<(), StoreError> {
        self.committer.close();
        self.loader.close();
        self.database.close();
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
        match (self.exchange.lost(), &*self.exchange.watch().borrow()) {
            (changes @ 1.., Durability::Failed(reason) | Durability::Failing(reason)) => {
                let path = self.database.path().to_path_buf();
                Err(StoreError::Lost { path, changes, reason: reason.clone() })
            }
            _ => Ok(()),
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // What is lost has been logged.
        let _ = self.close();
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("path", self.inner.database.path()).finish_non_exhaustive()
    }
}
