//! Threads for work that may wait: they come when work comes and go when there is none.
//!
//! A call that may wait for the network, a request to a service, a rollback: none of them may keep a thread from the batches
//! that only compute. How much of such work there is at a time is bounded by whoever hands it in: the lanes of plugins that
//! may call hosts, and the requests that services take.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a thread waits for more work before it goes.
const IDLE: Duration = Duration::from_secs(10);

/// Work for one thread.
type Work = Box<dyn FnOnce() + Send>;

/// The threads.
#[derive(Default)]
pub(super) struct Threads {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Signalled when work comes, when a thread ends and when all are to.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    work: VecDeque<Work>,
    /// Threads that wait for work.
    idle: usize,
    /// Threads alive.
    alive: usize,
    /// Whether threads are to end, and no more work is taken.
    stopping: bool,
}

impl Threads {
    /// Does a piece of work on a thread of its own, at once. Gives `false`, and drops the work, where threads are to end or
    /// the system gives none.
    pub(super) fn run(&self, work: impl FnOnce() + Send + 'static) -> bool {
        let mut state = lock(&self.shared);
        if state.stopping {
            return false;
        }
        state.work.push_back(Box::new(work));
        if state.idle >= state.work.len() {
            self.shared.changed.notify_one();
            return true;
        }
        let shared = Arc::clone(&self.shared);
        match std::thread::Builder::new().name("vespiary-waiting".to_owned()).spawn(move || shared.work()) {
            Ok(_) => {
                state.alive += 1;
                true
            }
            // Those that are there will come to it.
            Err(_) if state.alive > 0 => true,
            Err(error) => {
                state.work.pop_back();
                tracing::error!("a thread for a plugin's call cannot be started: {error}");
                false
            }
        }
    }

    /// Takes no more work, drops what waits, and blocks until every thread has ended, at most for `timeout`.
    pub(super) fn stop(&self, timeout: Duration) {
        let mut state = lock(&self.shared);
        state.stopping = true;
        state.work.clear();
        self.shared.changed.notify_all();
        let waited = self.shared.changed.wait_timeout_while(state, timeout, |state| state.alive > 0);
        if waited.unwrap_or_else(PoisonError::into_inner).1.timed_out() {
            tracing::warn!("a plugin's call did not end in time; it ends with the process");
        }
    }
}

impl Shared {
    /// The body of a thread.
    fn work(&self) {
        let mut state = lock(self);
        loop {
            if let Some(work) = state.work.pop_front() {
                drop(state);
                // What panics is a defect of the broker; the thread's count must be right all the same.
                if std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_err() {
                    tracing::error!("a plugin thread panicked; this is a defect of the broker");
                }
                state = lock(self);
                continue;
            }
            if state.stopping {
                break;
            }
            state.idle += 1;
            let (woken, timeout) = self.changed.wait_timeout(state, IDLE).unwrap_or_else(PoisonError::into_inner);
            state = woken;
            state.idle -= 1;
            if timeout.timed_out() && state.work.is_empty() {
                break;
            }
        }
        state.alive -= 1;
        self.changed.notify_all();
    }
}

impl std::fmt::Debug for Threads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Threads").field("alive", &lock(&self.shared).alive).finish_non_exhaustive()
    }
}

fn lock(shared: &Shared) -> MutexGuard<'_, State> {
    shared.state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn work_that_waits_starves_no_other() {
        let threads = Threads::default();
        let (release, wait) = mpsc::channel::<()>();
        let wait = Mutex::new(wait);
        let (done, results) = mpsc::channel();
        let first = done.clone();
        assert!(threads.run(move || {
            let _ = wait.lock().unwrap().recv();
            first.send("first").unwrap();
        }));
        assert!(threads.run(move || done.send("second").unwrap()));
        assert_eq!(results.recv(), Ok("second"));
        release.send(()).unwrap();
        assert_eq!(results.recv(), Ok("first"));
        threads.stop(Duration::from_secs(60));
        assert_eq!(lock(&threads.shared).alive, 0);
        assert!(!threads.run(|| {}));
    }
}
