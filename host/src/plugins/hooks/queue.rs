//! The threads that run hooks, and the lines before them.
//!
//! Each plugin has a line of its own; lines are served in turn, and no plugin has all threads, so one that is slow costs
//! the others little. A line is bounded. The threads start with the first hook and end with the last [`Threads`].

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Questions that wait for one plugin, at most. What is asked of so many is late anyway.
pub(super) const LINE_QUESTIONS: usize = 10_000;

/// The names that lines are given.
static LINES: AtomicU64 = AtomicU64::new(0);

/// A piece of work.
pub(super) type Work = Box<dyn FnOnce() + Send>;

/// The threads. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Threads(Arc<Owner>);

/// Ends the threads when nobody can give them work any more.
#[derive(Default)]
struct Owner(Arc<Lines>);

/// What the threads share.
#[derive(Default)]
struct Lines {
    queue: Mutex<Queue>,
    /// Signalled when there is work, and at the end.
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    /// The lines that are not empty, or of which work runs.
    lines: BTreeMap<u64, Line>,
    /// Lines from which work may be taken now, once for each piece.
    ready: VecDeque<u64>,
    /// Threads; 0 before the first hook.
    threads: usize,
    /// Whether they are to end.
    stopping: bool,
}

/// The work of one plugin.
#[derive(Default)]
struct Line {
    /// What waits.
    waiting: VecDeque<Work>,
    /// Times that the line stands in `ready`.
    ready: usize,
    /// Pieces that run.
    running: usize,
}

impl Threads {
    /// Starts the threads, unless they run.
    pub(super) fn start(&self) {
        let lines = &self.0.0;
        let mut queue = lines.lock();
        if queue.threads > 0 {
            return;
        }
        queue.threads = std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 8) + 1;
        for index in 0..queue.threads {
            let lines = Arc::clone(lines);
            let started = std::thread::Builder::new().name(format!("vespiary-hook-{index}")).spawn(move || lines.run());
            if let Err(error) = started {
                // What is asked is late then, and decided by its declaration.
                tracing::error!("cannot start a thread for hooks: {error}");
            }
        }
    }

    /// The name of a new line.
    pub(super) fn line(&self) -> u64 {
        LINES.fetch_add(1, Ordering::Relaxed)
    }

    /// Queues work in a line; `false` if too much waits there.
    pub(super) fn submit(&self, line: u64, work: Work) -> bool {
        let lines = &self.0.0;
        let mut queue = lines.lock();
        let most = queue.most_at_once();
        let queue = &mut *queue;
        let entry = queue.lines.entry(line).or_default();
        if entry.waiting.len() >= LINE_QUESTIONS {
            return false;
        }
        entry.waiting.push_back(work);
        if entry.ready + entry.running < most {
            entry.ready += 1;
            queue.ready.push_back(line);
            lines.changed.notify_one();
        }
        true
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.lock().stopping = true;
        self.0.changed.notify_all();
    }
}

impl Lines {
    /// What a thread does.
    fn run(&self) {
        let mut queue = self.lock();
        while !queue.stopping {
            let Some(line) = queue.ready.pop_front() else {
                queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let work = queue.lines.get_mut(&line).and_then(Line::take);
            drop(queue);
            if let Some(work) = work {
                work();
            }
            queue = self.lock();
            queue.finished(line);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    /// Pieces of one line that run at a time, at most: one thread is left to the others.
    fn most_at_once(&self) -> usize {
        self.threads.saturating_sub(1).max(1)
    }

    /// A piece of a line has run; the next may, after those of others.
    fn finished(&mut self, name: u64) {
        let Some(line) = self.lines.get_mut(&name) else { return };
        line.running -= 1;
        if line.waiting.len() > line.ready {
            line.ready += 1;
            self.ready.push_back(name);
        } else if line.ready + line.running == 0 {
            self.lines.remove(&name);
        }
    }
}

impl Line {
    /// Takes what waits longest. The line stands in `ready` for it.
    fn take(&mut self) -> Option<Work> {
        self.ready -= 1;
        self.running += 1;
        self.waiting.pop_front()
    }
}

impl fmt::Debug for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Threads").field("threads", &self.0.0.lock().threads).finish_non_exhaustive()
    }
}
