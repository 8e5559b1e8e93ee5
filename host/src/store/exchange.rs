//! What callers and the threads of the store share: the buffer of changes, and what has become of them.
//!
//! Callers append a group of changes to the buffer under a short mutex and go on. The thread that commits swaps the
//! buffer for an empty one; what arrives meanwhile makes the next commit. A group is appended whole, so it is never split.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use vespiary_core::event::{Change, ChangeNumber};

use super::batch;
use super::checkpoint::Finished;
use super::linger::{Linger, Pace};
use super::overlay::Overlay;

/// Changes beyond which a commit waits for no more.
const LINGER_CHANGES: usize = 16_384;

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
    /// Frames written to the log.
    pub commits: u64,
    /// Changes that became durable, those included that never touched the disk because later ones undid them.
    pub changes: u64,
    /// How long the last commit took, from encoding to the end of its fsync.
    pub last: Duration,
    /// The mean over all commits.
    pub mean: Duration,
    /// The longest commit.
    pub max: Duration,
    /// Checkpoints: transactions that brought the database up to the log.
    pub checkpoints: u64,
    /// The longest of them.
    pub longest_checkpoint: Duration,
    /// Commits and checkpoints that failed, further attempts at the same included, and reads for which the database was
    /// opened anew.
    pub failures: u64,
}

/// Called with what is durable, each time that changes, on the store's thread. Must not block.
pub type Follower = Box<dyn Fn(&Durability) + Send + Sync>;

/// What callers and the threads of the store share.
pub(super) struct Exchange {
    /// What waits to be committed.
    waiting: Mutex<Waiting>,
    /// Wakes the thread that commits.
    wake: Condvar,
    /// Wakes those who wait for the database.
    stored: Condvar,
    /// State that is not in the database yet.
    pub(super) overlay: Overlay,
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
    /// Tells whoever waits for the database how far it has come.
    checkpointed: watch::Sender<ChangeNumber>,
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
    /// Up to here the database has the changes, and is asked to have them.
    stored: ChangeNumber,
    wanted: ChangeNumber,
    /// The checkpoint that has ended, until the thread takes note of it.
    finished: Option<Finished>,
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

/// What the thread that commits has to do.
#[derive(Debug)]
pub(super) struct Work {
    /// Number of the last change taken.
    pub(super) last: ChangeNumber,
    /// Weight of what was taken.
    bytes: usize,
    /// Whether the database has to be opened anew first.
    pub(super) unreadable: bool,
    /// A checkpoint that has ended.
    pub(super) finished: Option<Finished>,
    /// Whether what is taken, and all before it, is to be in the database: state is sealed up to here.
    pub(super) seals: bool,
}

/// What the thread that commits is about to do by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plan {
    /// A checkpoint is under way: nothing.
    Nothing,
    /// A checkpoint at this time; at none if nothing comes.
    Checkpoint(Option<Instant>),
}

impl Exchange {
    pub(super) fn new() -> Self {
        Self {
            waiting: Mutex::new(Waiting {
                changes: Vec::new(),
                last: ChangeNumber(0),
                bytes: 0,
                asleep: false,
                linger: Linger::default(),
                lingers: false,
                unreadable: false,
                stored: ChangeNumber(0),
                wanted: ChangeNumber(0),
                finished: None,
                state: State::Open,
            }),
            wake: Condvar::new(),
            stored: Condvar::new(),
            overlay: Overlay::default(),
            durable: AtomicU64::new(0),
            failing: AtomicBool::new(false),
            backlog: AtomicUsize::new(0),
            lost: AtomicU64::new(0),
            watch: watch::Sender::new(Durability::UpTo(ChangeNumber(0))),
            checkpointed: watch::Sender::new(ChangeNumber(0)),
            ended: watch::Sender::new(None),
            follower: OnceLock::new(),
            totals: Mutex::new(Totals::default()),
        }
    }

    /// Takes a group.
    pub(super) fn hand_over(&self, changes: &mut Vec<Change>, last: ChangeNumber, pace: Pace) {
        if changes.is_empty() && !pace.came {
            return;
        }
        let bytes: usize = changes.iter().map(batch::weight).sum();
        let mut waiting = locked(&self.waiting);
        waiting.linger.note(pace);
        waiting.asleep |= pace.came && std::mem::take(&mut waiting.lingers);
        if changes.is_empty() {
            return self.wake(waiting);
        }
        if waiting.state != State::Open {
            self.lost.fetch_add(changes.len() as u64, Ordering::Relaxed);
            changes.clear();
            return;
        }
        debug_assert!(last > waiting.last, "groups are handed over in the order of their numbers");
        self.overlay.note(changes, last);
        if waiting.changes.is_empty() {
            std::mem::swap(&mut waiting.changes, changes);
        } else {
            waiting.changes.append(changes);
        }
        waiting.last = last;
        waiting.bytes += bytes;
        self.backlog.fetch_add(bytes, Ordering::Relaxed);
        self.wake(waiting);
    }

    /// Lets go of the buffer, and wakes the thread if it sleeps.
    fn wake(&self, mut waiting: MutexGuard<'_, Waiting>) {
        let wake = std::mem::take(&mut waiting.asleep);
        drop(waiting);
        if wake {
            self.wake.notify_one();
        }
    }

    /// Number of the last change that was handed over.
    pub(super) fn handed_over(&self) -> ChangeNumber {
        locked(&self.waiting).last
    }

    /// Number of the last durable change.
    pub(super) fn durable(&self) -> ChangeNumber {
        ChangeNumber(self.durable.load(Ordering::Acquire))
    }

    /// Whether commits fail at present, or for good.
    pub(super) fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Acquire)
    }

    /// Somebody could not read: the database is opened anew, if that has not been done already.
    pub(super) fn cannot_read(&self) {
        let mut waiting = locked(&self.waiting);
        waiting.unreadable = !self.is_failing();
        waiting.asleep = true;
        self.wake(waiting);
    }

    /// Asks for a checkpoint, so that the database has all changes up to this one soon.
    pub(super) fn want(&self, number: ChangeNumber) {
        let mut waiting = locked(&self.waiting);
        waiting.wanted = waiting.wanted.max(number);
        self.wake(waiting);
    }

    /// Waits until the database has all changes up to this one; `false` if that may never be.
    pub(super) fn wait_until_stored(&self, number: ChangeNumber) -> bool {
        let mut waiting = locked(&self.waiting);
        if waiting.stored >= number {
            return true;
        }
        waiting.wanted = waiting.wanted.max(number);
        if std::mem::take(&mut waiting.asleep) {
            self.wake.notify_one();
        }
        while waiting.stored < number && waiting.state == State::Open && !self.is_failing() {
            waiting = self.stored.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        waiting.stored >= number
    }

    /// Changes that were handed over and never will be durable.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Follows what is durable.
    pub(super) fn watch(&self) -> watch::Receiver<Durability> {
        self.watch.subscribe()
    }

    /// Follows what the database has.
    pub(super) fn watch_checkpoints(&self) -> watch::Receiver<ChangeNumber> {
        self.checkpointed.subscribe()
    }

    /// Told once nothing becomes durable any more, and why.
    pub(super) fn ended(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.ended.subscribe()
    }

    /// Has the thread itself tell what is durable. There is one follower; a second is not told.
    pub(super) fn follow(&self, follower: Follower) {
        follower(&self.watch.borrow());
        // The first stays.
        let _ = self.follower.set(follower);
    }

    /// Bytes handed over and not yet committed.
    pub(super) fn backlog_bytes(&self) -> usize {
        self.backlog.load(Ordering::Relaxed)
    }

    /// What commits cost so far.
    pub(super) fn statistics(&self) -> CommitStatistics {
        let totals = locked(&self.totals);
        let commits = u32::try_from(totals.statistics.commits.max(1)).unwrap_or(u32::MAX);
        CommitStatistics { mean: totals.spent / commits, ..totals.statistics }
    }

    /// Takes no more changes; what waits is still committed.
    pub(super) fn close(&self) {
        let mut waiting = locked(&self.waiting);
        if waiting.state == State::Open {
            waiting.state = State::Closed;
        }
        waiting.asleep = true;
        self.wake(waiting);
        self.stored.notify_all();
    }

    /// Waits for something to do, but no longer than the plan says, and swaps the changes that wait for the empty `changes`.
    /// `None` when the store is closed and nothing waits.
    pub(super) fn take(&self, changes: &mut Vec<Change>, plan: Plan) -> Option<Work> {
        let until = match plan {
            Plan::Checkpoint(at) => at,
            Plan::Nothing => None,
        };
        let is_hurried = |waiting: &Waiting| plan != Plan::Nothing && waiting.wanted.min(waiting.last) > waiting.stored;
        let mut waiting = locked(&self.waiting);
        while waiting.changes.is_empty() && !waiting.unreadable && waiting.finished.is_none() && !is_hurried(&waiting) {
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
        let is_due = until.is_some_and(|until| until <= Instant::now());
        let seals = is_due || is_hurried(&waiting);
        if seals {
            // Here, so that it has exactly what has been taken.
            self.overlay.seal();
        }
        std::mem::swap(&mut waiting.changes, changes);
        Some(Work {
            last: waiting.last,
            bytes: std::mem::take(&mut waiting.bytes),
            unreadable: std::mem::take(&mut waiting.unreadable),
            finished: waiting.finished.take(),
            seals,
        })
    }

    /// What was taken is on disk.
    pub(super) fn succeed(&self, work: &Work) {
        self.durable.store(work.last.0, Ordering::Release);
        self.backlog.fetch_sub(work.bytes, Ordering::Relaxed);
        self.failing.store(false, Ordering::Release);
        self.tell(Durability::UpTo(work.last));
    }

    /// What failed works again; nothing more became durable by that.
    pub(super) fn recovered(&self) {
        self.failing.store(false, Ordering::Release);
        self.tell(Durability::UpTo(self.durable()));
    }

    fn tell(&self, durability: Durability) {
        if let Some(follower) = self.follower.get() {
            follower(&durability);
        }
        self.watch.send_replace(durability);
    }

    /// A checkpoint has ended. With `stored`, the database has all changes up to that one.
    pub(super) fn finish(&self, finished: Finished, stored: Option<ChangeNumber>) {
        let mut waiting = locked(&self.waiting);
        waiting.finished = Some(finished);
        if let Some(stored) = stored {
            self.note_stored(&mut waiting, stored);
        }
        waiting.asleep = true;
        self.wake(waiting);
    }

    /// The database has all changes up to this one.
    pub(super) fn store(&self, number: ChangeNumber) {
        self.note_stored(&mut locked(&self.waiting), number);
    }

    /// Tells it with the lock held, so that nobody is told of less after more.
    fn note_stored(&self, waiting: &mut Waiting, number: ChangeNumber) {
        waiting.stored = waiting.stored.max(number);
        self.stored.notify_all();
        self.checkpointed.send_replace(waiting.stored);
    }

    /// Waits for the checkpoint under way.
    pub(super) fn await_finished(&self) -> Finished {
        let mut waiting = locked(&self.waiting);
        loop {
            if let Some(finished) = waiting.finished.take() {
                return finished;
            }
            waiting = self.wake.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Something failed that is tried again.
    pub(super) fn failing(&self, reason: &Arc<str>) {
        locked(&self.totals).statistics.failures += 1;
        {
            // With the lock held, so that nobody begins to wait for the database without seeing it.
            let _waiting = locked(&self.waiting);
            self.failing.store(true, Ordering::Release);
        }
        self.stored.notify_all();
        self.tell(Durability::Failing(reason.clone()));
    }

    /// Waits before the next attempt, but no longer than the store is open; whether it is closed.
    pub(super) fn pause(&self, pause: Duration) -> bool {
        let is_open = |waiting: &mut Waiting| waiting.state == State::Open;
        let waited = self.wake.wait_timeout_while(locked(&self.waiting), pause, is_open);
        waited.unwrap_or_else(PoisonError::into_inner).0.state != State::Open
    }

    /// Something failed for good, and with it `changes` that were taken.
    pub(super) fn fail(&self, reason: &str, changes: usize) {
        let durable = self.durable.load(Ordering::Acquire);
        let mut waiting = locked(&self.waiting);
        let lost = (changes + waiting.changes.len()) as u64;
        waiting.state = State::Failed;
        waiting.changes = Vec::new();
        self.failing.store(true, Ordering::Release);
        drop(waiting);
        self.stored.notify_all();
        self.lost.fetch_add(lost, Ordering::Relaxed);
        tracing::error!(durable, lost, "cannot commit, nothing is stored any more: {reason}");
        self.backlog.store(0, Ordering::Relaxed);
        let reason: Arc<str> = reason.into();
        self.tell(Durability::Failed(reason.clone()));
        self.ended.send_replace(Some(reason));
    }

    /// Whether something failed for good.
    pub(super) fn has_failed(&self) -> bool {
        locked(&self.waiting).state == State::Failed
    }

    /// Counts changes that became durable; with the time that it took if there was anything to write.
    pub(super) fn count(&self, changes: usize, spent: Option<Duration>) {
        let mut totals = locked(&self.totals);
        totals.statistics.changes += changes as u64;
        if let Some(spent) = spent {
            totals.statistics.commits += 1;
            totals.statistics.last = spent;
            totals.statistics.max = totals.statistics.max.max(spent);
            totals.spent += spent;
        }
    }

    /// Counts a checkpoint.
    pub(super) fn count_checkpoint(&self, spent: Duration) {
        let statistics = &mut locked(&self.totals).statistics;
        statistics.checkpoints += 1;
        statistics.longest_checkpoint = statistics.longest_checkpoint.max(spent);
    }
}

/// A lock; what it guards is whole even where a holder panicked, for holders only assign.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
