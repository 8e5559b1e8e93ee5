//! Group commit: one thread that writes what has been handed over, in one transaction after the other.
//!
//! Callers append a group of changes to a buffer under a short mutex and go on. The thread swaps the buffer for an
//! empty one, commits all of it in one transaction, and publishes the number of its last change; what arrives
//! meanwhile makes the next transaction. A group is appended whole, so it is never split.
//!
//! The first commit that fails is the last: what it held and what follows is dropped, and the published number stays.
//! The buffer has no bound of its own, since a caller cannot wait; callers heed [`Committer::backlog_bytes`].

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use redb::{Database, Durability as RedbDurability};
use tokio::sync::watch;
use vespiary_core::event::{Change, ChangeNumber};

use super::apply::{self, WriteError};
use super::batch::{self, Batch, Highest};

/// Buffers that grew beyond this many changes are given back after use.
const BUFFER_KEPT: usize = 16_384;

/// Scratch space that grew beyond this many bytes is given back after use.
const SCRATCH_KEPT_BYTES: usize = 1 << 20;

/// What is on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Durability {
    /// All changes up to this number.
    UpTo(ChangeNumber),
    /// A commit failed, with this reason. Nothing becomes durable any more; what did stays so.
    Failed(Arc<str>),
}

/// What commits cost so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CommitStatistics {
    /// Transactions written.
    pub commits: u64,
    /// Changes that became durable, those included that never touched the disk because later ones undid them.
    pub changes: u64,
    /// How long the last commit took, from encoding to the end of its fsync.
    pub last: Duration,
    /// The mean over all commits.
    pub mean: Duration,
    /// The longest commit.
    pub max: Duration,
}

/// The buffer, the thread behind it, and what the thread publishes.
#[derive(Debug)]
pub(super) struct Committer {
    /// Shared with the thread.
    exchange: Arc<Exchange>,
    /// The thread, until it is joined.
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What callers and the thread share.
#[derive(Debug)]
struct Exchange {
    /// What waits to be committed.
    waiting: Mutex<Waiting>,
    /// Wakes the thread.
    wake: Condvar,
    /// Number of the last durable change.
    durable: AtomicU64,
    /// Bytes handed over and not yet committed.
    backlog: AtomicUsize,
    /// Tells whoever waits for a commit.
    watch: watch::Sender<Durability>,
    /// What commits cost.
    totals: Mutex<Totals>,
}

/// What waits to be committed.
#[derive(Debug)]
struct Waiting {
    /// The changes, in order, groups one after the other.
    changes: Vec<Change>,
    /// Number of the last of them.
    last: ChangeNumber,
    /// Their weight.
    bytes: usize,
    /// Whether the thread sleeps and has to be woken.
    asleep: bool,
    /// Whether more is taken.
    state: State,
}

/// Whether changes are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// They are.
    Open,
    /// The store is closed: what waits is still committed.
    Closed,
    /// A commit failed.
    Failed,
}

/// Sums behind [`CommitStatistics`].
#[derive(Debug, Default)]
struct Totals {
    /// What is reported, but for the mean.
    statistics: CommitStatistics,
    /// Time spent in all commits.
    spent: Duration,
}

impl Committer {
    /// Starts the thread. The database holds no keys above `highest`.
    pub(super) fn start(database: Arc<Database>, highest: Highest) -> std::io::Result<Self> {
        let exchange = Arc::new(Exchange {
            waiting: Mutex::new(Waiting {
                changes: Vec::new(),
                last: ChangeNumber(0),
                bytes: 0,
                asleep: false,
                state: State::Open,
            }),
            wake: Condvar::new(),
            durable: AtomicU64::new(0),
            backlog: AtomicUsize::new(0),
            watch: watch::Sender::new(Durability::UpTo(ChangeNumber(0))),
            totals: Mutex::new(Totals::default()),
        });
        let writer = Writer { database, highest, scratch: Vec::new() };
        let shared = exchange.clone();
        let thread = thread::Builder::new().name("vespiary-store".to_owned()).spawn(move || run(&shared, writer))?;
        Ok(Self { exchange, thread: Mutex::new(Some(thread)) })
    }

    /// Hands over a group.
    pub(super) fn commit(&self, changes: &mut Vec<Change>, last: ChangeNumber) {
        if changes.is_empty() {
            return;
        }
        let bytes: usize = changes.iter().map(batch::weight).sum();
        let mut waiting = locked(&self.exchange.waiting);
        if waiting.state != State::Open {
            changes.clear();
            return;
        }
        debug_assert!(last > waiting.last, "groups are handed over in the order of their numbers");
        if waiting.changes.is_empty() {
            std::mem::swap(&mut waiting.changes, changes);
        } else {
            waiting.changes.append(changes);
        }
        waiting.last = last;
        waiting.bytes += bytes;
        self.exchange.backlog.fetch_add(bytes, Ordering::Relaxed);
        let wake = std::mem::take(&mut waiting.asleep);
        drop(waiting);
        if wake {
            self.exchange.wake.notify_one();
        }
    }

    /// Number of the last durable change.
    pub(super) fn durable(&self) -> ChangeNumber {
        ChangeNumber(self.exchange.durable.load(Ordering::Acquire))
    }

    /// Follows what is durable.
    pub(super) fn watch(&self) -> watch::Receiver<Durability> {
        self.exchange.watch.subscribe()
    }

    /// Bytes handed over and not yet committed.
    pub(super) fn backlog_bytes(&self) -> usize {
        self.exchange.backlog.load(Ordering::Relaxed)
    }

    /// What commits cost so far.
    pub(super) fn statistics(&self) -> CommitStatistics {
        let totals = locked(&self.exchange.totals);
        let commits = u32::try_from(totals.statistics.commits.max(1)).unwrap_or(u32::MAX);
        CommitStatistics { mean: totals.spent / commits, ..totals.statistics }
    }

    /// Commits what waits, takes no more, and waits for the thread to end. Does nothing the second time.
    pub(super) fn close(&self) {
        {
            let mut waiting = locked(&self.exchange.waiting);
            if waiting.state == State::Open {
                waiting.state = State::Closed;
            }
        }
        self.exchange.wake.notify_one();
        if let Some(thread) = locked(&self.thread).take() {
            // The thread catches its own panics.
            let _ = thread.join();
        }
    }
}

impl Exchange {
    /// Waits for changes and swaps them for the empty `changes`. `None` when the store is closed and nothing waits.
    fn take(&self, changes: &mut Vec<Change>) -> Option<(ChangeNumber, usize)> {
        let mut waiting = locked(&self.waiting);
        while waiting.changes.is_empty() {
            if waiting.state != State::Open {
                return None;
            }
            waiting.asleep = true;
            waiting = self.wake.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        waiting.asleep = false;
        std::mem::swap(&mut waiting.changes, changes);
        Some((waiting.last, std::mem::take(&mut waiting.bytes)))
    }

    fn succeed(&self, last: ChangeNumber, bytes: usize) {
        self.durable.store(last.0, Ordering::Release);
        self.backlog.fetch_sub(bytes, Ordering::Relaxed);
        self.watch.send_replace(Durability::UpTo(last));
    }

    fn fail(&self, reason: &str) {
        let durable = self.durable.load(Ordering::Acquire);
        tracing::error!(durable, "cannot commit to the database, nothing is stored any more: {reason}");
        let mut waiting = locked(&self.waiting);
        waiting.state = State::Failed;
        waiting.changes = Vec::new();
        drop(waiting);
        self.backlog.store(0, Ordering::Relaxed);
        self.watch.send_replace(Durability::Failed(reason.into()));
    }

    fn count(&self, changes: usize, wrote: bool, spent: Duration) {
        let mut totals = locked(&self.totals);
        totals.statistics.changes += changes as u64;
        if wrote {
            totals.statistics.commits += 1;
            totals.statistics.last = spent;
            totals.statistics.max = totals.statistics.max.max(spent);
            totals.spent += spent;
        }
    }
}

/// The thread.
fn run(exchange: &Exchange, mut writer: Writer) {
    let mut changes = Vec::new();
    while let Some((last, bytes)) = exchange.take(&mut changes) {
        let (count, started) = (changes.len(), Instant::now());
        // redb may panic on a file that was altered behind its back; those who wait have to hear of it.
        match catch_unwind(AssertUnwindSafe(|| writer.commit(&mut changes))) {
            Ok(Ok(wrote)) => {
                exchange.count(count, wrote, started.elapsed());
                exchange.succeed(last, bytes);
            }
            Ok(Err(error)) => return exchange.fail(&error.to_string()),
            Err(_) => return exchange.fail("the database library panicked"),
        }
        if changes.capacity() > BUFFER_KEPT {
            changes = Vec::new();
        }
    }
}

/// Writes transactions.
struct Writer {
    /// Where to.
    database: Arc<Database>,
    /// The highest keys the database may hold.
    highest: Highest,
    /// Where values are encoded.
    scratch: Vec<u8>,
}

impl Writer {
    /// Commits the changes, and empties the list. Whether there was anything to write in the end.
    fn commit(&mut self, changes: &mut Vec<Change>) -> Result<bool, WriteError> {
        let mut batch = Batch::new(self.highest);
        for change in changes.drain(..) {
            batch.push(change);
        }
        let wrote = !batch.is_empty();
        if wrote {
            commit_batch(&self.database, &batch, &mut self.scratch)?;
        }
        self.highest = batch.highest();
        if self.scratch.capacity() > SCRATCH_KEPT_BYTES {
            self.scratch = Vec::new();
        }
        Ok(wrote)
    }
}

/// Writes a batch in one durable transaction.
pub(super) fn commit_batch(database: &Database, batch: &Batch, scratch: &mut Vec<u8>) -> Result<(), WriteError> {
    let mut transaction = database.begin_write().map_err(redb::Error::from)?;
    transaction.set_durability(RedbDurability::Immediate).map_err(redb::Error::from)?;
    apply::write(&transaction, batch, scratch)?;
    transaction.commit().map_err(redb::Error::from)?;
    Ok(())
}

/// A lock; what it guards is whole even where a holder panicked, for holders only assign.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
