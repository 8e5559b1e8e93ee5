//! Reads queues back: one thread that answers the broker's questions for the next entries of a queue.
//!
//! A question names the change that its answer must have seen; those that the database has already are answered first,
//! for the others a checkpoint is asked for, and none waits for another. Answers given in a row come from one read transaction, which is short: it pins freed pages.
//!
//! What was answered and not yet taken is bounded: above [`UNTAKEN_BYTES`] nothing more is read until the broker has
//! taken some. While the store is failing there is nothing to read, and every question is answered with `None`.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use redb::{Database, ReadOnlyTable, ReadableDatabase};
use tokio::sync::Notify;
use vespiary_core::event::{ChangeNumber, LoadTicket, LoadedEntry, Sequence, SessionId};
use vespiary_core::message::Message;

use super::database::LiveDatabase;
use super::error::StoreError;
use super::exchange::{Durability, Exchange, locked};
use super::record::{MessageRow, QueueRow};
use super::tables::{Bytes, MESSAGES, QUEUE};

/// Weight of messages answered and not yet taken above which reading waits.
const UNTAKEN_BYTES: usize = 32 << 20;

/// Weight of messages after which a read transaction ends.
const ROUND_BYTES: usize = 4 << 20;

/// A question for the next entries of a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadRequest {
    /// Names the question; the answer brings it back.
    pub ticket: LoadTicket,
    /// Whose queue.
    pub session: SessionId,
    /// Entries behind this one.
    pub after: Sequence,
    /// Entries at most.
    pub max: usize,
    /// Weight at which it is enough; one entry is given in any case.
    pub max_bytes: usize,
    /// The answer has to see every change up to this one.
    pub change: ChangeNumber,
}

/// Takes answers: the entries in order, none where there are no more, `None` where they cannot be read. Called on the
/// loader's thread.
pub type LoadAnswer = Box<dyn Fn(LoadTicket, Option<Vec<LoadedEntry>>) + Send + Sync>;

/// What reading queues back cost so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LoadStatistics {
    /// Questions answered with entries, or with none because there are no more.
    pub loads: u64,
    /// Entries given.
    pub entries: u64,
    /// How long reading an answer took, in the mean.
    pub mean: Duration,
}

/// The thread, and what is asked of it.
#[derive(Debug)]
pub(super) struct Loader {
    /// Shared with the thread.
    desk: Arc<Desk>,
    /// The thread, until it is joined.
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What callers and the thread share.
struct Desk {
    /// What is asked and what is answered.
    questions: Mutex<Questions>,
    /// Wakes the thread.
    wake: Notify,
    /// Where answers go.
    answer: Mutex<Option<LoadAnswer>>,
    /// What it cost.
    totals: Mutex<(LoadStatistics, Duration)>,
}

/// What is asked and what is answered.
#[derive(Debug, Default)]
struct Questions {
    /// What is asked, by the change to wait for, and in the order of asking.
    waiting: BTreeMap<(ChangeNumber, u64), LoadRequest>,
    /// Questions so far.
    asked: u64,
    /// The weight of each answer that was given and not taken, in order.
    untaken: VecDeque<usize>,
    /// The sum of these.
    untaken_bytes: usize,
    /// Whether the store is closed.
    closed: bool,
}

impl Loader {
    /// Starts the thread.
    pub(super) fn start(database: Arc<LiveDatabase>, exchange: Arc<Exchange>) -> std::io::Result<Self> {
        let desk = Arc::new(Desk {
            questions: Mutex::default(),
            wake: Notify::new(),
            answer: Mutex::default(),
            totals: Mutex::default(),
        });
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let shared = desk.clone();
        let thread = thread::Builder::new()
            .name("vespiary-loader".to_owned())
            .spawn(move || runtime.block_on(shared.serve(&database, &exchange)))?;
        Ok(Self { desk, thread: Mutex::new(Some(thread)) })
    }

    /// Says where answers go from now on.
    pub(super) fn answer_to(&self, answer: LoadAnswer) {
        *locked(&self.desk.answer) = Some(answer);
    }

    pub(super) fn ask(&self, request: LoadRequest) {
        let mut questions = locked(&self.desk.questions);
        if !questions.closed {
            questions.asked += 1;
            let key = (request.change, questions.asked);
            questions.waiting.insert(key, request);
            self.desk.wake.notify_one();
        }
    }

    /// The oldest answer that was given has been taken.
    pub(super) fn taken(&self) {
        let mut questions = locked(&self.desk.questions);
        let bytes = questions.untaken.pop_front().unwrap_or(0);
        let was_full = questions.is_full();
        questions.untaken_bytes -= bytes;
        if was_full && !questions.is_full() {
            self.desk.wake.notify_one();
        }
    }

    pub(super) fn statistics(&self) -> LoadStatistics {
        let (statistics, spent) = *locked(&self.desk.totals);
        let loads = u32::try_from(statistics.loads.max(1)).unwrap_or(u32::MAX);
        LoadStatistics { mean: spent / loads, ..statistics }
    }

    /// Drops what is asked, and waits for the thread to end. Does nothing the second time.
    pub(super) fn close(&self) {
        locked(&self.desk.questions).closed = true;
        self.desk.wake.notify_one();
        if let Some(thread) = locked(&self.thread).take() {
            // It catches what the database library does; its own panic has been printed.
            let _ = thread.join();
        }
    }
}

impl Questions {
    fn is_full(&self) -> bool {
        self.untaken_bytes > UNTAKEN_BYTES
    }
}

impl Desk {
    /// The thread.
    async fn serve(&self, database: &LiveDatabase, exchange: &Exchange) {
        let (mut durability, mut checkpoints) = (exchange.watch(), exchange.watch_checkpoints());
        let (mut is_logged, mut asked_for) = (false, ChangeNumber(0));
        loop {
            let reason = match &*durability.borrow_and_update() {
                Durability::UpTo(_) => None,
                Durability::Failing(reason) | Durability::Failed(reason) => Some(reason.clone()),
            };
            let stored = *checkpoints.borrow_and_update();
            let served = match reason {
                None => self.round(database, stored, &mut is_logged),
                Some(reason) => self.give_up(&reason, &mut is_logged),
            };
            if served {
                continue;
            }
            let wanted = {
                let questions = locked(&self.questions);
                if questions.closed {
                    return;
                }
                questions.waiting.last_key_value().map(|(&(change, _), _)| change).filter(|_| !questions.is_full())
            };
            if let Some(wanted) = wanted.filter(|&wanted| wanted > asked_for) {
                asked_for = wanted;
                exchange.want(wanted);
            }
            tokio::select! {
                () = self.wake.notified() => {}
                changed = durability.changed(), if wanted.is_some() => if changed.is_err() { return },
                changed = checkpoints.changed(), if wanted.is_some() => if changed.is_err() { return },
            }
        }
    }

    /// Takes the next question that can be answered, if there is room for an answer.
    fn next(&self, stored: ChangeNumber) -> Option<LoadRequest> {
        let mut questions = locked(&self.questions);
        if questions.closed || questions.is_full() {
            return None;
        }
        let first = questions.waiting.first_entry()?;
        (first.key().0 <= stored).then(|| first.remove())
    }

    /// Answers questions from one read transaction. Whether there were any.
    fn round(&self, database: &LiveDatabase, stored: ChangeNumber, is_logged: &mut bool) -> bool {
        let Some(mut request) = self.next(stored) else { return false };
        let path = database.path();
        // redb may panic on a file that was altered behind its back; the question is to be answered all the same.
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            database.read(|database| {
                let mut queues = Queues::begin(database, path)?;
                let mut bytes = 0;
                loop {
                    let started = Instant::now();
                    let entries = queues.load(&request)?;
                    bytes += self.give(&request, entries, started);
                    match if bytes < ROUND_BYTES { self.next(stored) } else { None } {
                        Some(next) => request = next,
                        None => return Ok(()),
                    }
                }
            })
        }));
        let error = match outcome {
            Ok(Ok(())) => {
                *is_logged = false;
                return true;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the database library panicked".to_owned(),
        };
        if !std::mem::replace(is_logged, true) {
            tracing::error!("cannot read a queue back; its client is sent away: {error}");
        }
        self.refuse(&request);
        true
    }

    /// Nothing can be read: refuses all questions. Whether there were any.
    fn give_up(&self, reason: &str, is_logged: &mut bool) -> bool {
        let waiting = std::mem::take(&mut locked(&self.questions).waiting);
        if !waiting.is_empty() && !std::mem::replace(is_logged, true) {
            tracing::warn!("queues cannot be read back while the store is failing: {reason}");
        }
        waiting.values().for_each(|request| self.refuse(request));
        !waiting.is_empty()
    }

    /// Answers with entries, and gives their weight.
    fn give(&self, request: &LoadRequest, entries: Vec<LoadedEntry>, started: Instant) -> usize {
        {
            let (statistics, spent) = &mut *locked(&self.totals);
            statistics.loads += 1;
            statistics.entries += entries.len() as u64;
            *spent += started.elapsed();
        }
        let bytes = entries.iter().map(|entry| entry.content.weight()).sum();
        self.answer(request.ticket, Some(entries), bytes);
        bytes
    }

    fn refuse(&self, request: &LoadRequest) {
        self.answer(request.ticket, None, 0);
    }

    fn answer(&self, ticket: LoadTicket, entries: Option<Vec<LoadedEntry>>, bytes: usize) {
        if let Some(answer) = &*locked(&self.answer) {
            let mut questions = locked(&self.questions);
            questions.untaken.push_back(bytes);
            questions.untaken_bytes += bytes;
            drop(questions);
            answer(ticket, entries);
        }
    }
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk").field("questions", &self.questions).finish_non_exhaustive()
    }
}

/// Queues and messages as they are committed now.
struct Queues<'a> {
    queue: ReadOnlyTable<(u64, u64), Bytes>,
    messages: ReadOnlyTable<u64, Bytes>,
    /// Messages read already: one that went to many is in the queues of many.
    contents: HashMap<u64, Arc<Message>>,
    /// The database file, for errors.
    path: &'a Path,
}

impl<'a> Queues<'a> {
    fn begin(database: &Database, path: &'a Path) -> Result<Self, StoreError> {
        let transaction = database.begin_read().map_err(StoreError::database("read", path))?;
        let queue = transaction.open_table(QUEUE).map_err(StoreError::database("read", path))?;
        let messages = transaction.open_table(MESSAGES).map_err(StoreError::database("read", path))?;
        Ok(Self { queue, messages, contents: HashMap::new(), path })
    }

    fn load(&mut self, request: &LoadRequest) -> Result<Vec<LoadedEntry>, StoreError> {
        let session = request.session.0;
        let mut entries = Vec::new();
        let Some(first) = request.after.0.checked_add(1) else { return Ok(entries) };
        let mut bytes = 0;
        let path = self.path;
        let rows = self.queue.range((session, first)..=(session, u64::MAX));
        for row in rows.map_err(StoreError::database("read", path))? {
            let (key, value) = row.map_err(StoreError::database("read", path))?;
            if entries.len() == request.max || (bytes >= request.max_bytes && !entries.is_empty()) {
                break;
            }
            let sequence = Sequence(key.value().1);
            let row = QueueRow::decode(value.value()).and_then(QueueRow::entry);
            let (entry, released) = row.map_err(StoreError::row("queue", path))?;
            let Some(content) = self.content(entry.message.0)? else {
                let message = entry.message.0;
                tracing::error!(session, sequence = sequence.0, message, "a queue refers to a message that is missing");
                continue;
            };
            bytes += content.weight();
            entries.push(LoadedEntry { sequence, entry, released, content });
        }
        Ok(entries)
    }

    fn content(&mut self, message: u64) -> Result<Option<Arc<Message>>, StoreError> {
        if let Some(content) = self.contents.get(&message) {
            return Ok(Some(content.clone()));
        }
        let Some(row) = self.messages.get(message).map_err(StoreError::database("read", self.path))? else {
            return Ok(None);
        };
        let content = MessageRow::decode(row.value()).and_then(MessageRow::message);
        let content = Arc::new(content.map_err(StoreError::row("messages", self.path))?);
        self.contents.insert(message, content.clone());
        Ok(Some(content))
    }
}
