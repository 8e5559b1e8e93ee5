//! Group commit: one thread that writes what has been handed over to the log, a frame at a time.
//!
//! It takes all groups that wait, writes them as one frame with an fsync, and publishes the number of the last change.
//! What is in the log is kept, coalesced, until a [checkpoint] brings it into the database: a while
//! after the first of it came, at once where it has grown large or somebody waits to read it there.
//!
//! What fails keeps its changes. The log and the database are opened anew; what of a checkpoint had taken effect all the
//! same is told by the number of the last frame in the database, and a frame is written again where it was. What
//! arrives meanwhile waits. Only what no second attempt can mend, such as damage, is the end: what is not on disk is
//! dropped then, and the published number stays.
//!
//! State that has expired is purged by the way, a piece at a time: with the next checkpoint, or in one of its own when none
//! comes. When the first value expires is known, so with nothing to expire the thread sleeps.
//!
//! A caller may say that more is about to come, which a commit then waits for, for a moment; see [`super::linger`].
//!
//! The buffer has no bound of its own, since a caller cannot wait; callers heed [`Exchange::backlog_bytes`].

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use vespiary_core::event::{Change, ChangeNumber};
use vespiary_core::message::Timestamp;

use super::batch::Batch;
use super::checkpoint::{self, Checkpoints, Finished, Sealed};
use super::database::LiveDatabase;
use super::error::StoreError;
use super::exchange::{Exchange, Plan, locked};
use super::failure::Failure;
use super::log::Log;
use super::purging::{Clock, Purging};
use super::tables;
use super::trimming::trim;

/// Buffers that grew beyond this many changes are given back after use.
const BUFFER_KEPT: usize = 16_384;

/// Weight of what the log has and the database lacks for which a checkpoint is due at once, in bytes of memory or of the log,
/// whichever is more.
const CHECKPOINT_BYTES: u64 = 16 << 20;

/// The weight beyond which commits wait for the checkpoint under way.
const MOST_BYTES: u64 = 4 * CHECKPOINT_BYTES;

/// How long the thread waits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pauses {
    /// Before it tries again, after the first failure; doubles with each further one.
    pub(super) first: Duration,
    /// The longest of these.
    pub(super) longest: Duration,
    /// Between two pieces of expired state that are purged.
    pub(super) purge: Duration,
    /// From the first commit to the checkpoint that has it.
    pub(super) checkpoint: Duration,
}

/// What commits go to, as it was found.
pub(super) struct Found {
    /// The database, which has all that was in the log.
    pub(super) database: Arc<LiveDatabase>,
    /// The log, empty.
    pub(super) log: Log,
    /// The highest sequence in the database.
    pub(super) highest: u64,
    /// The number of the last frame in it.
    pub(super) frame: u64,
    /// When the first value in it expires.
    pub(super) next_expiry: Option<Timestamp>,
}

impl Default for Pauses {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(1),
            longest: Duration::from_secs(10),
            purge: Duration::from_secs(1),
            checkpoint: Duration::from_secs(5),
        }
    }
}

/// The thread that commits.
#[derive(Debug)]
pub(super) struct Committer {
    /// Shared with it.
    exchange: Arc<Exchange>,
    /// The thread, until it is joined.
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Committer {
    /// Starts the thread.
    pub(super) fn start(exchange: Arc<Exchange>, found: Found, pauses: Pauses, clock: Clock) -> std::io::Result<Self> {
        let Found { database, log, highest, frame, next_expiry } = found;
        let checkpoints = Checkpoints::start(exchange.clone(), database.clone())?;
        let writer = Writer {
            exchange: exchange.clone(),
            database,
            log,
            checkpoints,
            pending: Batch::new(highest),
            pending_since: None,
            frame,
            appended: frame,
            checkpointed: frame,
            stage: Stage::Idle,
            pauses,
            purging: Purging::new(clock, next_expiry),
        };
        let shared = exchange.clone();
        let thread = thread::Builder::new().name("vespiary-store".to_owned()).spawn(move || {
            if catch_unwind(AssertUnwindSafe(|| writer.run())).is_err() {
                shared.fail("the thread that commits panicked", 0);
            }
        })?;
        Ok(Self { exchange, thread: Mutex::new(Some(thread)) })
    }

    /// Commits what waits, takes no more, and waits for the thread to end. Does nothing the second time.
    pub(super) fn close(&self) {
        self.exchange.close();
        if let Some(thread) = locked(&self.thread).take() {
            // The thread catches its own panics.
            let _ = thread.join();
        }
    }
}

/// Writes the log, and sees to checkpoints.
struct Writer {
    /// Where changes come from.
    exchange: Arc<Exchange>,
    /// Where checkpoints go to.
    database: Arc<LiveDatabase>,
    /// Where commits go to.
    log: Log,
    /// Writes checkpoints.
    checkpoints: Checkpoints,
    /// What is in the log and in no checkpoint yet.
    pending: Batch,
    /// Since when there is something in it.
    pending_since: Option<Instant>,
    /// The number of the last frame in the log of which everybody knows.
    frame: u64,
    /// The number of the last frame that was given to the log, which is that one or the next.
    appended: u64,
    /// The number of the last frame in the database.
    checkpointed: u64,
    /// The checkpoint that there is.
    stage: Stage,
    /// How long to wait.
    pauses: Pauses,
    /// What is known of state that expires.
    purging: Purging,
}

/// What has become of the checkpoint that there is.
#[derive(Debug)]
enum Stage {
    /// There is none.
    Idle,
    /// The thread writes it.
    UnderWay,
    /// It failed, and is to be written before any other.
    Failed(Box<Sealed>),
}

impl Writer {
    /// The thread.
    fn run(mut self) {
        let exchange = self.exchange.clone();
        let mut changes = Vec::new();
        while let Some(mut work) = exchange.take(&mut changes, self.plan()) {
            let started = Instant::now();
            let count = changes.len();
            trim(&mut changes, self.pending.highest());
            let wrote = !changes.is_empty();
            let mut outcome = if work.unreadable { Err(Failure::unreadable()) } else { Ok(()) };
            if let Some(finished) = work.finished.take() {
                outcome = outcome.and(self.finish(finished));
            }
            if outcome.is_ok() && wrote {
                outcome = self.append(&changes);
            }
            let seal = work.seals.then_some(work.last);
            let mut spent = wrote.then(|| started.elapsed());
            if let Err(failure) = outcome {
                match self.recover(&mut changes, seal, failure) {
                    Ok(last_attempt) => spent = Some(last_attempt.elapsed()),
                    // What is in the log is not lost.
                    Err(reason) => return exchange.fail(&reason, if changes.is_empty() { 0 } else { count }),
                }
                exchange.count(count, spent);
                exchange.succeed(&work);
            } else {
                // First of all, for many wait to hear of it.
                if count > 0 {
                    exchange.count(count, spent);
                    exchange.succeed(&work);
                }
                self.keep(&mut changes);
                if let Some(last) = seal {
                    self.begin_checkpoint(last);
                }
            }
            if changes.capacity() > BUFFER_KEPT {
                changes = Vec::new();
            }
            if matches!(self.stage, Stage::UnderWay)
                && self.weight() >= MOST_BYTES
                && let Err(failure) = self.await_checkpoint()
                && let Err(reason) = self.recover(&mut changes, None, failure)
            {
                return exchange.fail(&reason, 0);
            }
        }
        if !exchange.has_failed() {
            self.close();
        }
    }

    /// What there is to do when nothing comes.
    fn plan(&self) -> Plan {
        match self.stage {
            Stage::UnderWay | Stage::Failed(_) => Plan::Nothing,
            Stage::Idle if self.weight() >= CHECKPOINT_BYTES => Plan::Checkpoint(Some(Instant::now())),
            Stage::Idle => {
                let due = self.pending_since.map(|since| since + self.pauses.checkpoint);
                let purge = self.purging.sleep(self.pauses.purge).map(|sleep| Instant::now() + sleep);
                Plan::Checkpoint(due.into_iter().chain(purge).min())
            }
        }
    }

    /// What the log has and no checkpoint, in bytes, roughly.
    fn weight(&self) -> u64 {
        self.log.bytes().max(self.pending.weight() as u64)
    }

    /// Writes changes to the log, as a frame.
    fn append(&mut self, changes: &[Change]) -> Result<(), Failure> {
        self.appended = self.frame + 1;
        self.log.append(self.appended, changes)?;
        Ok(())
    }

    /// Keeps changes that are in the log for the next checkpoint, and empties the list.
    fn keep(&mut self, changes: &mut Vec<Change>) {
        if changes.is_empty() {
            return;
        }
        self.frame += 1;
        self.pending_since.get_or_insert_with(Instant::now);
        changes.drain(..).for_each(|change| self.pending.push(change));
        self.pending.forget_messages();
    }

    /// Has a checkpoint written of all that is pending. With `last`, the overlay was sealed after the change of this number,
    /// which is the last one taken.
    fn seal(&mut self, last: Option<ChangeNumber>) -> Sealed {
        let next = Batch::new(self.pending.highest());
        let mut batch = std::mem::replace(&mut self.pending, next);
        batch.purge = self.purging.due(self.pauses.purge);
        self.pending_since = None;
        // The other file's frames are all in the database, or there would be a checkpoint before this one.
        self.log.switch();
        Sealed { batch, frame: self.frame, last }
    }

    /// Begins the checkpoint of all changes up to `last`, after which the overlay was sealed.
    fn begin_checkpoint(&mut self, last: ChangeNumber) {
        if self.frame == self.checkpointed && self.purging.due(self.pauses.purge).is_none() {
            // All of it came to nothing, or is in the database.
            self.exchange.overlay.drop_sealed(last);
            return self.exchange.store(last);
        }
        let sealed = self.seal(Some(last));
        self.stage = Stage::UnderWay;
        self.checkpoints.begin(sealed);
    }

    /// Takes note of the checkpoint that has ended.
    fn finish(&mut self, finished: Finished) -> Result<(), Failure> {
        match finished {
            Ok(written) => {
                self.stage = Stage::Idle;
                self.checkpointed = written.frame;
                self.purging.note(&written);
                Ok(())
            }
            Err(failed) => {
                let (sealed, failure) = *failed;
                self.stage = Stage::Failed(Box::new(sealed));
                Err(failure)
            }
        }
    }

    /// Waits for the checkpoint under way.
    fn await_checkpoint(&mut self) -> Result<(), Failure> {
        let finished = self.exchange.await_finished();
        self.finish(finished)
    }

    /// Tries until what failed is on disk, and `changes` with it; gives when the attempt that succeeded began. With `seal`,
    /// the overlay was sealed behind these changes. An error is the end.
    fn recover(
        &mut self,
        changes: &mut Vec<Change>,
        seal: Option<ChangeNumber>,
        failure: Failure,
    ) -> Result<Instant, Arc<str>> {
        let mut reason = failure.passing()?;
        let path = self.database.path().clone();
        tracing::error!(
            path = %path.display(),
            "the database cannot be used: {}; {}. What is to be kept is refused meanwhile; trying again at least every {} s",
            reason.text,
            reason.advice,
            self.pauses.longest.as_secs(),
        );
        let failed_at = Instant::now();
        let exchange = self.exchange.clone();
        // The database must not be opened anew while somebody writes to it.
        if let Stage::UnderWay = self.stage
            && let Err(Failure::Final(reason)) = self.await_checkpoint()
        {
            return Err(reason);
        }
        let mut pause = self.pauses.first;
        loop {
            self.database.fail(&reason.text);
            exchange.failing(&reason.text);
            let closing = exchange.pause(pause);
            pause = (pause * 2).min(self.pauses.longest);
            let started = Instant::now();
            match self.try_again(changes, seal) {
                Ok(()) => {
                    tracing::info!(path = %path.display(), after = ?failed_at.elapsed(), "the database can be used again");
                    exchange.recovered();
                    return Ok(started);
                }
                Err(failure) => reason = failure.passing()?,
            }
            if closing {
                return Err(reason.text);
            }
        }
    }

    /// Opens the log and the database anew, and writes what is not in them.
    fn try_again(&mut self, changes: &mut Vec<Change>, seal: Option<ChangeNumber>) -> Result<(), Failure> {
        let (log, found) = catch_unwind(AssertUnwindSafe(|| {
            let log = self.database.reopen()?;
            let path = self.database.path();
            let found =
                self.database.read(|database| tables::frame(database).map_err(StoreError::database("read", path)))?;
            Ok::<_, StoreError>((log, found))
        }))
        .map_err(|_| Failure::Final("the database library panicked".into()))??;
        match std::mem::replace(&mut self.stage, Stage::Idle) {
            // The checkpoint that failed had taken effect.
            Stage::Failed(sealed) if found == sealed.frame && found != self.checkpointed => {
                self.checkpointed = found;
                self.stage = Stage::Failed(Box::new(Sealed { batch: Batch::new(sealed.batch.highest()), ..*sealed }));
            }
            stage if found == self.checkpointed => self.stage = stage,
            _ => {
                let reason = format!("frame {} was in the database, and what is found is {found}", self.checkpointed);
                return Err(Failure::Final(reason.into()));
            }
        }
        self.log.retry(log)?;
        if !changes.is_empty() {
            if self.appended == self.frame {
                self.append(changes)?;
            }
            self.keep(changes);
        }
        // Whatever failed, the database has to show that it takes writes.
        let sealed = match std::mem::replace(&mut self.stage, Stage::Idle) {
            Stage::Failed(sealed) => *sealed,
            Stage::Idle | Stage::UnderWay => self.seal(seal),
        };
        let last = sealed.last;
        let finished = checkpoint::write(&self.exchange, &self.database, sealed, &mut Vec::new());
        self.finish(finished)?;
        if let Some(last) = last {
            self.exchange.store(last);
        }
        Ok(())
    }

    /// Brings the database up to the log, and empties that. What fails is left to the next start, for it is in the log.
    fn close(mut self) {
        let mut outcome = match self.stage {
            Stage::UnderWay => self.await_checkpoint(),
            Stage::Idle | Stage::Failed(_) => Ok(()),
        };
        if outcome.is_ok() && self.frame > self.checkpointed {
            let sealed = self.seal(None);
            let finished = checkpoint::write(&self.exchange, &self.database, sealed, &mut Vec::new());
            outcome = self.finish(finished);
        }
        if let Err(failure) = outcome.and_then(|()| Ok(self.log.clear()?)) {
            let reason = failure.passing().map_or_else(|reason| reason, |reason| reason.text);
            let path = self.database.path().display();
            tracing::warn!(path = %path, "the database is not up to date, and will be from its log at the next start: {reason}");
        }
    }
}
