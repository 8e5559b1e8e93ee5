//! Group commit: one thread that writes what has been handed over, in one transaction after the other.
//!
//! Callers append a group of changes to a buffer under a short mutex and go on. The thread swaps the buffer for an
//! empty one, commits all of it in one transaction, and publishes the number of its last change; what arrives
//! meanwhile makes the next transaction. A group is appended whole, so it is never split.
//!
//! A commit that fails keeps its changes. The database is opened anew, which tells whether the commit took effect all
//! the same (every transaction writes its number), and what did not is committed again, until it is on disk. What
//! arrives meanwhile waits. Only what no second attempt can mend, such as damage, is the end: what is not on disk is
//! dropped then, and the published number stays.
//!
//! State that has expired is purged by the way, a piece at a time: with the next commit, or in one of its own when none
//! comes. When the first value expires is known, so with nothing to expire the thread sleeps.
//!
//! A caller may say that more is about to come, which a commit then waits for, for a moment; see [`Linger`].
//!
//! The buffer has no bound of its own, since a caller cannot wait; callers heed [`Committer::backlog_bytes`].

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use redb::{Durability as RedbDurability, WriteTransaction};
use tokio::sync::watch;
use vespiary_core::event::{Change, ChangeNumber};
use vespiary_core::message::Timestamp;

use super::apply::{self, WriteError};
use super::batch::{self, Batch};
use super::database::LiveDatabase;
use super::error::StoreError;
use super::failure::Failure;
use super::linger::{Linger, Pace};
use super::purging::{Clock, Purging};
use super::tables;

/// Buffers that grew beyond this many changes are given back after use.
const BUFFER_KEPT: usize = 16_384;

/// Scratch space that grew beyond this many bytes is given back after use.
const SCRATCH_KEPT_BYTES: usize = 1 << 20;

/// What is on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Durability {
    /// All changes up to this number.
    UpTo(ChangeNumber),
    /// A commit failed, with this reason, and is tried again now and then. What became durable stays so; further changes
    /// are kept and wait.
    Failing(Arc<str>),
    /// A commit failed for good, with this reason. Nothing becomes durable any more; what did stays so.
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
    /// Commits that failed, further attempts at the same included, and reads for which the database was opened anew.
    pub failures: u64,
}

/// How long the thread waits before it tries again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pauses {
    /// After the first failure; doubles with each further one.
    pub(super) first: Duration,
    /// The longest.
    pub(super) longest: Duration,
    /// Between two pieces of expired state that are purged.
    pub(super) purge: Duration,
}

/// Called with what is durable, each time that changes, on the store's thread. Must not block.
pub type Follower = Box<dyn Fn(&Durability) + Send + Sync>;

/// Changes beyond which a commit waits for no more.
const LINGER_CHANGES: usize = 16_384;

/// The database that commits go to, as it was found.
pub(super) struct Found {
    /// The database.
    pub(super) database: Arc<LiveDatabase>,
    /// The highest sequence in it.
    pub(super) highest: u64,
    /// The number of its last transaction.
    pub(super) commits: u64,
    /// When the first value in it expires.
    pub(super) next_expiry: Option<Timestamp>,
}

impl Default for Pauses {
    fn default() -> Self {
        Self { first: Duration::from_secs(1), longest: Duration::from_secs(10), purge: Duration::from_secs(1) }
    }
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
struct Exchange {
    /// What waits to be committed.
    waiting: Mutex<Waiting>,
    /// Wakes the thread.
    wake: Condvar,
    /// Number of the last durable change.
    durable: AtomicU64,
    /// Whether commits fail at present.
    failing: AtomicBool,
    /// Bytes handed over and not yet committed.
    backlog: AtomicUsize,
    /// Changes that were handed over and never will be.
    lost: AtomicU64,
    /// Tells whoever waits for a commit.
    watch: watch::Sender<Durability>,
    /// Tells whoever waits for the end: the reason for which nothing becomes durable any more.
    ended: watch::Sender<Option<Arc<str>>>,
    /// Is told by the thread itself, without the wake-up that a watch costs.
    follower: OnceLock<Follower>,
    /// What commits cost.
    totals: Mutex<Totals>,
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exchange").field("durable", &self.durable).finish_non_exhaustive()
    }
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
    /// What is known of what is to come.
    linger: Linger,
    /// Whether the thread waits for what is to come.
    lingers: bool,
    /// Whether somebody could not read, for which the database has to be opened anew.
    unreadable: bool,
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
    /// A commit failed for good.
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
    /// Starts the thread.
    pub(super) fn start(found: Found, pauses: Pauses, clock: Clock) -> std::io::Result<Self> {
        let exchange = Arc::new(Exchange {
            waiting: Mutex::new(Waiting {
                changes: Vec::new(),
                last: ChangeNumber(0),
                bytes: 0,
                asleep: false,
                linger: Linger::default(),
                lingers: false,
                unreadable: false,
                state: State::Open,
            }),
            wake: Condvar::new(),
            durable: AtomicU64::new(0),
            failing: AtomicBool::new(false),
            backlog: AtomicUsize::new(0),
            lost: AtomicU64::new(0),
            watch: watch::Sender::new(Durability::UpTo(ChangeNumber(0))),
            ended: watch::Sender::new(None),
            follower: OnceLock::new(),
            totals: Mutex::new(Totals::default()),
        });
        let Found { database, highest, commits, next_expiry } = found;
        let writer = Writer {
            database,
            highest,
            commits,
            scratch: Vec::new(),
            pauses,
            purging: Purging::new(clock, next_expiry),
        };
        let shared = exchange.clone();
        let thread = thread::Builder::new().name("vespiary-store".to_owned()).spawn(move || run(&shared, writer))?;
        Ok(Self { exchange, thread: Mutex::new(Some(thread)) })
    }

    /// Hands over a group.
    pub(super) fn commit(&self, changes: &mut Vec<Change>, last: ChangeNumber, pace: Pace) {
        if changes.is_empty() && !pace.came {
            return;
        }
        let bytes: usize = changes.iter().map(batch::weight).sum();
        let mut waiting = locked(&self.exchange.waiting);
        waiting.linger.note(pace);
        waiting.asleep |= pace.came && std::mem::take(&mut waiting.lingers);
        if changes.is_empty() {
            return self.wake(waiting);
        }
        if waiting.state != State::Open {
            self.exchange.lost.fetch_add(changes.len() as u64, Ordering::Relaxed);
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
        self.wake(waiting);
    }

    /// Lets go of the buffer, and wakes the thread if it sleeps.
    fn wake(&self, mut waiting: MutexGuard<'_, Waiting>) {
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

    /// Whether commits fail at present, or for good.
    pub(super) fn is_failing(&self) -> bool {
        self.exchange.failing.load(Ordering::Acquire)
    }

    /// Somebody could not read: the database is opened anew, if that has not been done already.
    pub(super) fn cannot_read(&self) {
        let mut waiting = locked(&self.exchange.waiting);
        waiting.unreadable = !self.is_failing();
        waiting.asleep = false;
        self.exchange.wake.notify_one();
    }

    /// Changes that were handed over and never will be durable.
    pub(super) fn lost(&self) -> u64 {
        self.exchange.lost.load(Ordering::Relaxed)
    }

    /// Follows what is durable.
    pub(super) fn watch(&self) -> watch::Receiver<Durability> {
        self.exchange.watch.subscribe()
    }

    /// Told once nothing becomes durable any more, and why.
    pub(super) fn ended(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.exchange.ended.subscribe()
    }

    /// Has the thread itself tell what is durable. There is one follower; a second is not told.
    pub(super) fn follow(&self, follower: Follower) {
        follower(&self.exchange.watch.borrow());
        // The first stays.
        let _ = self.exchange.follower.set(follower);
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

/// What the thread has to do.
struct Work {
    /// Number of the last change taken.
    last: ChangeNumber,
    /// Weight of what was taken.
    bytes: usize,
    /// Whether the database has to be opened anew first.
    unreadable: bool,
}

impl Exchange {
    /// Waits for changes, but no longer than `sleep` if it is given, and swaps them for the empty `changes`. `None` when the
    /// store is closed and nothing waits.
    fn take(&self, changes: &mut Vec<Change>, sleep: Option<Duration>) -> Option<Work> {
        let until = sleep.map(|sleep| Instant::now() + sleep);
        let mut waiting = locked(&self.waiting);
        while waiting.changes.is_empty() && !waiting.unreadable {
            if waiting.state != State::Open {
                return None;
            }
            waiting.asleep = true;
            let Some(until) = until else {
                waiting = self.wake.wait(waiting).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let sleep = until.saturating_duration_since(Instant::now());
            if sleep.is_zero() {
                break;
            }
            waiting = self.wake.wait_timeout(waiting, sleep).unwrap_or_else(PoisonError::into_inner).0;
        }
        waiting.asleep = false;
        while waiting.state == State::Open
            && (1..LINGER_CHANGES).contains(&waiting.changes.len())
            && let Some(patience) = waiting.linger.wait(Instant::now())
        {
            waiting.lingers = true;
            waiting = self.wake.wait_timeout(waiting, patience).unwrap_or_else(PoisonError::into_inner).0;
            waiting.lingers = false;
        }
        waiting.asleep = false;
        waiting.linger.begin();
        std::mem::swap(&mut waiting.changes, changes);
        let bytes = std::mem::take(&mut waiting.bytes);
        Some(Work { last: waiting.last, bytes, unreadable: std::mem::take(&mut waiting.unreadable) })
    }

    fn succeed(&self, work: &Work) {
        self.durable.store(work.last.0, Ordering::Release);
        self.backlog.fetch_sub(work.bytes, Ordering::Relaxed);
        self.failing.store(false, Ordering::Release);
        self.tell(Durability::UpTo(work.last));
    }

    fn tell(&self, durability: Durability) {
        if let Some(follower) = self.follower.get() {
            follower(&durability);
        }
        self.watch.send_replace(durability);
    }

    /// Something failed that is tried again.
    fn failing(&self, reason: &Arc<str>) {
        locked(&self.totals).statistics.failures += 1;
        self.failing.store(true, Ordering::Release);
        self.tell(Durability::Failing(reason.clone()));
    }

    /// Waits before the next attempt, but no longer than the store is open; whether it is closed.
    fn pause(&self, pause: Duration) -> bool {
        let is_open = |waiting: &mut Waiting| waiting.state == State::Open;
        let waited = self.wake.wait_timeout_while(locked(&self.waiting), pause, is_open);
        waited.unwrap_or_else(PoisonError::into_inner).0.state != State::Open
    }

    /// Something failed for good, and with it `changes` that were taken.
    fn fail(&self, reason: &str, changes: usize) {
        let durable = self.durable.load(Ordering::Acquire);
        let mut waiting = locked(&self.waiting);
        let lost = (changes + waiting.changes.len()) as u64;
        waiting.state = State::Failed;
        waiting.changes = Vec::new();
        drop(waiting);
        self.lost.fetch_add(lost, Ordering::Relaxed);
        tracing::error!(durable, lost, "cannot commit to the database, nothing is stored any more: {reason}");
        self.backlog.store(0, Ordering::Relaxed);
        self.failing.store(true, Ordering::Release);
        let reason: Arc<str> = reason.into();
        self.tell(Durability::Failed(reason.clone()));
        self.ended.send_replace(Some(reason));
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
    while let Some(work) = exchange.take(&mut changes, writer.purging.sleep(writer.pauses.purge)) {
        let mut started = Instant::now();
        let batch = writer.batch(&mut changes);
        let (count, mut wrote) = (batch.changes, !batch.is_empty());
        if count == 0 && !wrote && !work.unreadable {
            continue;
        }
        let outcome = match work.unreadable {
            true => Err(Failure::unreadable()),
            false if wrote => writer.commit(&batch),
            false => writer.skip(&batch),
        };
        if let Err(failure) = outcome {
            match recover(exchange, &mut writer, batch, failure) {
                Ok(last_attempt) => (started, wrote) = (last_attempt, true),
                Err(reason) => return exchange.fail(&reason, count),
            }
        }
        exchange.count(count, wrote, started.elapsed());
        exchange.succeed(&work);
        if changes.capacity() > BUFFER_KEPT {
            changes = Vec::new();
        }
    }
}

/// Tries until the batch is on disk; gives when the attempt that succeeded began. An error is the end.
fn recover(exchange: &Exchange, writer: &mut Writer, mut batch: Batch, failure: Failure) -> Result<Instant, Arc<str>> {
    let mut reason = failure.passing()?;
    let path = writer.database.path().clone();
    tracing::error!(
        path = %path.display(),
        "the database cannot be used: {}; {}. What is to be kept is refused meanwhile; trying again at least every {} s",
        reason.text,
        reason.advice,
        writer.pauses.longest.as_secs(),
    );
    let failed_at = Instant::now();
    let mut pause = writer.pauses.first;
    loop {
        writer.database.fail(&reason.text);
        exchange.failing(&reason.text);
        let closing = exchange.pause(pause);
        pause = (pause * 2).min(writer.pauses.longest);
        let started = Instant::now();
        match writer.try_again(&mut batch) {
            Ok(()) => {
                tracing::info!(path = %path.display(), after = ?failed_at.elapsed(), "the database can be used again");
                return Ok(started);
            }
            Err(failure) => reason = failure.passing()?,
        }
        if closing {
            return Err(reason.text);
        }
    }
}

/// Writes transactions.
struct Writer {
    /// Where to.
    database: Arc<LiveDatabase>,
    /// The highest sequence that the database may hold.
    highest: u64,
    /// The number of the last transaction in the database.
    commits: u64,
    /// Where values are encoded.
    scratch: Vec<u8>,
    /// How long to wait before trying again.
    pauses: Pauses,
    /// What is known of state that expires.
    purging: Purging,
}

impl Writer {
    /// Coalesces the changes, and empties the list.
    fn batch(&mut self, changes: &mut Vec<Change>) -> Batch {
        let mut batch = Batch::new(self.highest);
        changes.drain(..).for_each(|change| batch.push(change));
        batch.purge = self.purging.due(self.pauses.purge);
        batch
    }

    /// Takes note of a batch with nothing to write.
    fn skip(&mut self, batch: &Batch) -> Result<(), Failure> {
        self.highest = batch.highest();
        Ok(())
    }

    /// Commits a batch, also one with nothing to write.
    fn commit(&mut self, batch: &Batch) -> Result<(), Failure> {
        // redb may panic on a file that was altered behind its back; those who wait have to hear of it.
        let next_expiry = catch_unwind(AssertUnwindSafe(|| {
            let transaction = self.database.begin_write()?;
            write_batch(transaction, batch, self.commits + 1, &mut self.scratch)
        }))
        .map_err(|_| Failure::Final("the database library panicked".into()))??;
        self.purging.note(batch, next_expiry);
        self.commits += 1;
        self.highest = batch.highest();
        if self.scratch.capacity() > SCRATCH_KEPT_BYTES {
            self.scratch = Vec::new();
        }
        Ok(())
    }

    /// Opens the database anew, and commits what of the batch is not in it.
    fn try_again(&mut self, batch: &mut Batch) -> Result<(), Failure> {
        let found = catch_unwind(AssertUnwindSafe(|| {
            self.database.reopen()?;
            let path = self.database.path();
            self.database.read(|database| tables::commits(database).map_err(StoreError::database("read", path)))
        }))
        .map_err(|_| Failure::Final("the database library panicked".into()))??;
        if found == self.commits + 1 {
            // The commit that failed had taken effect. What is left is to show that the disk takes writes.
            self.commits = found;
            *batch = Batch::new(batch.highest());
        } else if found != self.commits {
            let reason = format!("transaction {} was on disk, and what is found is {found}", self.commits);
            return Err(Failure::Final(reason.into()));
        }
        self.commit(batch)
    }
}

/// Writes a batch in one durable transaction with this number; gives when the first value of state expires.
pub(super) fn write_batch(
    mut transaction: WriteTransaction,
    batch: &Batch,
    commit: u64,
    scratch: &mut Vec<u8>,
) -> Result<Option<Timestamp>, WriteError> {
    transaction.set_durability(RedbDurability::Immediate).map_err(redb::Error::from)?;
    let next_expiry = apply::write(&transaction, batch, commit, scratch)?;
    transaction.commit().map_err(redb::Error::from)?;
    Ok(next_expiry)
}

/// A lock; what it guards is whole even where a holder panicked, for holders only assign.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
