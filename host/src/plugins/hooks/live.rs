//! The hooks of one plugin while they are live: guests that are warm, breakers, counters.
//!
//! A question is judged where it runs: the breaker hears of success and failure also where nobody waits for the answer any
//! more. Whoever asks waits until the deadline and no longer.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::oneshot;
use vespiary_core::event::PluginName;

use super::guest::{Answer, Code, Guest, Question};
use super::queue::Threads;
use crate::clock::wall_clock;
use crate::plugins::breaker::Breaker;
use crate::plugins::manifest::HookDeclaration;
use crate::wasm::{LogLevel, LogLine, LogSink};

/// What happened to a plugin's hooks since they were installed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct HookCounts {
    /// Questions asked, or that were to be asked.
    pub asked: u64,
    /// Answers that came in time.
    pub answered: u64,
    /// Calls that failed.
    pub failed: u64,
    /// Questions whose deadline passed.
    pub late: u64,
    /// Questions not asked because too many waited.
    pub crowded_out: u64,
    /// Questions not asked because the hook had failed too often.
    pub paused: u64,
}

/// A plugin whose hooks are live.
pub(super) struct Live {
    /// Its name.
    pub(super) plugin: PluginName,
    /// What guests are made of.
    code: Arc<dyn Code>,
    /// Its log.
    log: LogSink,
    /// Where its questions queue.
    pub(super) line: u64,
    /// Guests that nobody asks at present.
    idle: Mutex<Vec<Box<dyn Guest>>>,
    /// Whether it was noted that too many questions wait.
    crowded: AtomicBool,
    /// What happened.
    counters: Counters,
}

#[derive(Debug, Default)]
struct Counters {
    asked: AtomicU64,
    answered: AtomicU64,
    failed: AtomicU64,
    late: AtomicU64,
    crowded_out: AtomicU64,
    paused: AtomicU64,
}

/// One declaration of a plugin whose hooks are live.
#[derive(Debug)]
pub(super) struct Entry {
    /// Whose.
    pub(super) live: Arc<Live>,
    /// When it is asked, and for how long.
    pub(super) declaration: HookDeclaration,
    /// Spares clients the deadline of what always fails.
    pub(super) breaker: Mutex<Breaker>,
    /// Where guests run.
    pub(super) threads: Threads,
}

/// There is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoAnswer;

/// A question on its way.
struct Asked {
    /// Of whom.
    entry: Arc<Entry>,
    /// What.
    question: Question,
    /// Until when.
    until: Instant,
    /// To whom the answer goes.
    asker: oneshot::Sender<Answer>,
}

impl Live {
    pub(super) fn new(plugin: PluginName, code: Arc<dyn Code>, log: LogSink, line: u64) -> Self {
        let (idle, crowded, counters) = (Mutex::default(), AtomicBool::new(false), Counters::default());
        Self { plugin, code, log, line, idle, crowded, counters }
    }

    pub(super) fn counts(&self) -> HookCounts {
        let Counters { asked, answered, failed, late, crowded_out, paused } = &self.counters;
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        HookCounts {
            asked: value(asked),
            answered: value(answered),
            failed: value(failed),
            late: value(late),
            crowded_out: value(crowded_out),
            paused: value(paused),
        }
    }

    /// Makes a guest before somebody needs one.
    pub(super) fn warm(&self) {
        match self.guest() {
            Ok(guest) => self.idle().push(guest),
            Err(reason) => self.note(LogLevel::Warn, format!("no instance for hooks could be made: {reason}")),
        }
    }

    /// A guest that nobody asks, or a new one.
    fn guest(&self) -> Result<Box<dyn Guest>, String> {
        let idle = self.idle().pop();
        idle.map_or_else(|| self.code.guest(), Ok)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Box<dyn Guest>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, level: LogLevel, message: String) {
        (self.log)(LogLine { level, message });
    }
}

impl Entry {
    /// Asks. The answer comes within the deadline, or there is none.
    pub(super) async fn ask(self: &Arc<Self>, question: Question) -> Result<Answer, NoAnswer> {
        let counters = &self.live.counters;
        count(&counters.asked);
        if !self.may_be_asked() {
            count(&counters.paused);
            return Err(NoAnswer);
        }
        let until = Instant::now() + self.deadline();
        let (asker, answer) = oneshot::channel();
        let asked = Asked { entry: Arc::clone(self), question, until, asker };
        if !self.threads.submit(self.live.line, Box::new(move || asked.run())) {
            count(&counters.crowded_out);
            self.crowded_out();
            return Err(NoAnswer);
        }
        match tokio::time::timeout_at(until.into(), answer).await {
            Ok(answer) => answer.map_err(|_| NoAnswer),
            Err(_) => Err(NoAnswer),
        }
    }

    fn deadline(&self) -> Duration {
        Duration::from_millis(self.declaration.deadline_ms)
    }

    /// Whether the breaker lets a question through. After a pause it lets one, and the next once that is answered.
    fn may_be_asked(&self) -> bool {
        let mut breaker = self.breaker();
        if breaker.pause().is_some() {
            return breaker.try_again(wall_clock());
        }
        !breaker.is_half_open()
    }

    fn succeeded(&self) {
        count(&self.live.counters.answered);
        self.live.crowded.store(false, Ordering::Relaxed);
        let mut breaker = self.breaker();
        if breaker.is_half_open() {
            self.live.note(LogLevel::Info, format!("hook {} answers again", self.declaration.hook));
        }
        breaker.succeeded();
    }

    pub(super) fn failed(&self, reason: &str) {
        let hook = self.declaration.hook;
        let opened = self.breaker().failed(reason, wall_clock());
        let on_failure = self.declaration.on_failure.name();
        self.live.note(LogLevel::Warn, format!("hook {hook} failed, on_failure = {on_failure}: {reason}"));
        if opened {
            let message = format!("hook {hook} is not asked for a while, on_failure = {on_failure}: {reason}");
            self.live.note(LogLevel::Error, message);
        }
    }

    /// Too many questions wait. That is not the hook's failure; it is noted once, until the hook answers again.
    fn crowded_out(&self) {
        const REASON: &str = "too many questions wait";
        if self.breaker().is_half_open() {
            return self.failed(REASON);
        }
        if !self.live.crowded.swap(true, Ordering::Relaxed) {
            let (hook, on_failure) = (self.declaration.hook, self.declaration.on_failure.name());
            self.live.note(LogLevel::Warn, format!("hook {hook} is not asked, on_failure = {on_failure}: {REASON}"));
        }
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Asked {
    /// On a thread for hooks.
    fn run(self) {
        let Self { entry, question, until, asker } = self;
        if Instant::now() >= until {
            return late(&entry);
        }
        let live = &entry.live;
        let answer = live.guest().and_then(|mut guest| {
            let left = until.saturating_duration_since(Instant::now());
            // To make a guest may have taken all the time. It is there for the next question.
            let answer = if left.is_zero() { Err("it is late".to_owned()) } else { Ok(guest.ask(left, &question)?) };
            live.idle().push(guest);
            answer
        });
        // What the question holds is whole again for whoever waits.
        drop(question);
        let is_late = Instant::now() > until;
        match answer {
            Ok(_) if is_late => late(&entry),
            Ok(answer) => {
                entry.succeeded();
                // Whoever asked may be gone.
                let _ = asker.send(answer);
            }
            Err(_) if is_late => late(&entry),
            Err(reason) => {
                count(&live.counters.failed);
                entry.failed(&reason);
            }
        }
    }
}

fn late(entry: &Entry) {
    count(&entry.live.counters.late);
    entry.failed(&format!("no answer within {} ms", entry.declaration.deadline_ms));
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").field("plugin", &self.plugin).finish_non_exhaustive()
    }
}
