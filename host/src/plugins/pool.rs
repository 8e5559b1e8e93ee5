//! The threads that run guest calls, and the queue before them.
//!
//! A batch waits here for two things: for a commit, where its lane has settled so much before that is not on disk yet,
//! and for a free thread. While the store is failing no state can be read, and all batches wait. A guest never runs on a worker or on the store's thread.
//!
//! Batches of plugins that may wait for others in a call, as for HTTP, wait here for their commit only, and then get threads
//! of their own ([`Threads`](super::threads::Threads)), so that they starve nobody.
//!
//! Bounded by construction: at most one batch of each lane of a plugin is out of the core at a time.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use vespiary_core::ChangeNumber;
use vespiary_core::event::{InboxEvent, Lane};

use super::plugin::Plugin;
use crate::store::Durability;

/// A batch for one lane of a plugin.
#[derive(Debug)]
pub(super) struct Job {
    /// Whose events they are.
    pub plugin: Arc<Plugin>,
    /// The lane.
    pub lane: Lane,
    /// Whether the call may wait for others, so that it needs a thread of its own.
    pub may_wait: bool,
    /// The events, never none.
    pub events: Vec<InboxEvent>,
}

/// The queue of batches.
#[derive(Debug, Default)]
pub(super) struct Pool {
    queue: Mutex<Queue>,
    /// Signalled for each batch that can run, and when the pool stops.
    ready: Condvar,
    /// The same for batches that need a thread of their own.
    waiting: Condvar,
    /// Signalled when a change became durable that somebody waits for, and when the pool stops.
    durable: Condvar,
    /// Signalled when the pool stops.
    stopped: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    /// Batches that can run.
    ready: VecDeque<Job>,
    /// Batches that can run, each on a thread of its own.
    waiting: VecDeque<Job>,
    /// Batches that wait for a change to be durable.
    parked: Vec<(ChangeNumber, Job)>,
    /// The last change known to be durable.
    durable: ChangeNumber,
    /// How many wait for a change to be durable.
    durable_awaited: usize,
    /// Whether the store is failing.
    failing: bool,
    /// Whether no batch may run until something is durable again.
    held: bool,
    /// Whether threads are to end.
    stopping: bool,
}

impl Pool {
    /// Queues a batch that may run once `after` is durable.
    pub(super) fn submit(&self, job: Job, after: ChangeNumber) {
        let mut queue = self.lock();
        if queue.stopping {
            return;
        }
        if after <= queue.durable {
            self.push(&mut queue, job);
        } else {
            queue.parked.push((after, job));
        }
    }

    /// Queues a batch again whose state could not be read. It runs when the store is back.
    pub(super) fn put_back(&self, job: Job) {
        let mut queue = self.lock();
        if queue.stopping {
            return;
        }
        // It may be back already.
        queue.held = queue.failing;
        if job.may_wait {
            queue.waiting.push_front(job);
            self.waiting.notify_one();
        } else {
            queue.ready.push_front(job);
            self.ready.notify_one();
        }
    }

    /// Takes note of what is durable. Called on the store's thread.
    pub(super) fn follow(&self, durability: &Durability) {
        match durability {
            Durability::UpTo(number) => self.durable(*number),
            Durability::Failing(_) => self.hold(),
            Durability::Failed(_) => self.stop(),
        }
    }

    /// Says that the store is failing: no batch runs until something is durable again.
    pub(super) fn hold(&self) {
        let mut queue = self.lock();
        (queue.failing, queue.held) = (true, true);
    }

    /// Says that changes up to `number` are durable, and that the store is not failing.
    pub(super) fn durable(&self, number: ChangeNumber) {
        let mut queue = self.lock();
        queue.durable = queue.durable.max(number);
        queue.failing = false;
        if std::mem::take(&mut queue.held) {
            self.ready.notify_all();
            self.waiting.notify_all();
        }
        if !queue.parked.is_empty() {
            let parked = std::mem::take(&mut queue.parked);
            let (run, still_parked): (Vec<_>, Vec<_>) = parked.into_iter().partition(|(after, _)| *after <= number);
            queue.parked = still_parked;
            for (_, job) in run {
                self.push(&mut queue, job);
            }
        }
        if queue.durable_awaited > 0 {
            self.durable.notify_all();
        }
    }

    /// Adds a batch that can run, and wakes a thread for it.
    fn push(&self, queue: &mut Queue, job: Job) {
        if job.may_wait {
            queue.waiting.push_back(job);
            self.waiting.notify_one();
        } else {
            queue.ready.push_back(job);
            self.ready.notify_one();
        }
    }

    /// The next batch; blocks until there is one, and gives none when the pool stops.
    pub(super) fn next(&self) -> Option<Job> {
        let mut queue = self.lock();
        loop {
            if queue.stopping {
                return None;
            }
            if !queue.held
                && let Some(job) = queue.ready.pop_front()
            {
                return Some(job);
            }
            queue = self.ready.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The next batch that needs a thread of its own; like [`Pool::next`], for the one thread that hands these out.
    pub(super) fn next_waiting(&self) -> Option<Job> {
        let mut queue = self.lock();
        loop {
            if queue.stopping {
                return None;
            }
            if !queue.held
                && let Some(job) = queue.waiting.pop_front()
            {
                return Some(job);
            }
            queue = self.waiting.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Blocks until `number` is durable; `false` when the pool stops or `timeout` passes first.
    pub(super) fn wait_durable(&self, number: ChangeNumber, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut queue = self.lock();
        while queue.durable < number {
            let left = deadline.saturating_duration_since(Instant::now());
            if queue.stopping || left.is_zero() {
                return false;
            }
            queue.durable_awaited += 1;
            queue = self.durable.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
            queue.durable_awaited -= 1;
        }
        true
    }

    /// Makes every thread end after the call that it is in. Batches that wait stay in their inboxes.
    pub(super) fn stop(&self) {
        let mut queue = self.lock();
        queue.stopping = true;
        queue.ready.clear();
        queue.waiting.clear();
        queue.parked.clear();
        for waited_for in [&self.ready, &self.waiting, &self.durable, &self.stopped] {
            waited_for.notify_all();
        }
    }

    /// Blocks until [`Pool::stop`] is called, at most for `timeout`; whether it was.
    pub(super) fn wait_stopping(&self, timeout: Duration) -> bool {
        let is_running = |queue: &mut Queue| !queue.stopping;
        let waited = self.stopped.wait_timeout_while(self.lock(), timeout, is_running);
        waited.unwrap_or_else(PoisonError::into_inner).0.stopping
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use vespiary_core::event::PluginName;

    use super::super::plugin::PluginOptions;
    use super::*;

    fn job(name: &str) -> Job {
        let options = PluginOptions { breaker_failures: 1, recent_events: 0, recent_bytes: 0 };
        let plugin = Arc::new(Plugin::new(PluginName(name.into()), options));
        Job { plugin, lane: Lane(0), may_wait: name.starts_with("waits"), events: Vec::new() }
    }

    /// The plugins whose batches run now, in order.
    fn run_all(pool: &Pool) -> Vec<String> {
        let mut ran = Vec::new();
        while !pool.lock().held && !pool.lock().ready.is_empty() {
            ran.extend(pool.next().map(|job| job.plugin.name.0.to_string()));
        }
        ran
    }

    #[test]
    fn batches_wait_for_their_change_and_for_the_store() {
        let pool = Pool::default();
        pool.submit(job("a"), ChangeNumber(0));
        pool.submit(job("b"), ChangeNumber(5));
        pool.hold();
        assert_eq!(run_all(&pool), [""; 0]);
        pool.durable(ChangeNumber(4));
        assert_eq!(run_all(&pool), ["a"]);
        // The store is back already.
        pool.put_back(job("late"));
        assert_eq!(run_all(&pool), ["late"]);
        pool.hold();
        pool.submit(job("c"), ChangeNumber(0));
        // Its state could not be read: it comes first when the store is back, and nothing runs before.
        pool.put_back(job("a"));
        assert_eq!(run_all(&pool), [""; 0]);
        pool.durable(ChangeNumber(5));
        assert_eq!(run_all(&pool), ["a", "c", "b"]);
        pool.hold();
        pool.put_back(job("d"));
        pool.stop();
        assert!(pool.next().is_none());
    }

    #[test]
    fn batches_that_may_wait_are_not_among_the_others() {
        let pool = Pool::default();
        pool.submit(job("waits-a"), ChangeNumber(1));
        pool.submit(job("b"), ChangeNumber(1));
        pool.durable(ChangeNumber(1));
        assert_eq!(run_all(&pool), ["b"]);
        assert_eq!(pool.next_waiting().map(|job| job.plugin.name.0.to_string()).as_deref(), Some("waits-a"));
    }
}
