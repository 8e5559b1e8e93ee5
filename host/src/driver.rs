//! The driver: the only holder of the [`Broker`] value, and the one way to step it.
//!
//! It is a lock, not a thread. A worker that has inputs takes a [turn](Driver::turn): with the lock held, it steps the
//! broker through them, hands the changes to the store, and sorts the effects: its own it takes along, other workers'
//! go into their mailboxes, plugins' to the plugin port. All of that happens under the lock, so everybody sees effects
//! in the order in which they arose. Nothing else is done under the lock: no I/O, no encoding, no waiting. Threads that
//! are not workers [post](Driver::post) their inputs, and worker 0 takes them into its next turn.
//!
//! An effect with a change number is handed on at once; whoever carries it out waits for the store.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use tokio::sync::Notify;
use vespiary_core::event::{ConnectionId, DropReason};
use vespiary_core::{Broker, Effect, Effects, Input, Limits, Timestamp};

use crate::clock::wall_clock;
use crate::store::Store;

/// Most workers that there can be: a connection's identifier has 16 bits for its worker.
pub const MAX_WORKERS: usize = 1 << 16;

/// Takes the effects that are for plugins. Called with the broker's lock held: it must not block, and must not call
/// the driver.
pub type PluginPort = Box<dyn Fn(Effect) + Send + Sync>;

/// The driver.
pub struct Driver {
    /// The broker and what a turn leaves for others.
    state: Mutex<State>,
    /// Where changes go.
    store: Store,
    /// The broker's bounds, for those who announce or obey them.
    limits: Limits,
    /// Where plugins' effects go.
    plugins: PluginPort,
    /// Inputs from threads that are not workers, for worker 0. Bounded by design: each plugin and each request of the
    /// admin API has at most a few under way.
    posted: Mutex<Vec<Input>>,
    /// Wakes each worker for a turn.
    wakes: Box<[Notify]>,
    /// Messages dropped, by reason, in the order of their declaration.
    dropped: [AtomicU64; DropReason::ALL.len()],
    /// When the broker has something to do by itself, in milliseconds; `u64::MAX` for never.
    deadline: AtomicU64,
}

/// What the lock guards.
struct State {
    /// The broker.
    broker: Broker,
    /// Where the broker leaves effects and changes; empty between turns.
    effects: Effects,
    /// Effects that one worker's turn left for another, by worker.
    mailboxes: Box<[Vec<Effect>]>,
    /// Time of the last turn; the broker's time does not step back.
    now: Timestamp,
}

impl Driver {
    /// A driver for `workers` workers, and the broker [started](Input::Started): its first input has been handled when
    /// this returns. `broker` was made with these `limits`.
    pub fn new(broker: Broker, limits: Limits, store: Store, workers: usize, plugins: PluginPort) -> Self {
        assert!((1..=MAX_WORKERS).contains(&workers), "the number of workers is between 1 and {MAX_WORKERS}");
        let mailboxes = (0..workers).map(|_| Vec::new()).collect();
        let driver = Self {
            state: Mutex::new(State { broker, effects: Effects::default(), mailboxes, now: Timestamp(0) }),
            store,
            limits,
            plugins,
            posted: Mutex::new(Vec::new()),
            wakes: (0..workers).map(|_| Notify::new()).collect(),
            dropped: Default::default(),
            deadline: AtomicU64::new(u64::MAX),
        };
        let mut effects = Vec::new();
        driver.turn(0, wall_clock(), &mut vec![Input::Started], &mut effects);
        debug_assert!(effects.is_empty(), "nobody is connected yet");
        driver
    }

    /// Steps the broker through `inputs`, which are left empty, and gives in `effects` what `worker` has to carry out:
    /// what other workers' turns left for it, and then what came of its own inputs.
    pub fn turn(&self, worker: usize, now: Timestamp, inputs: &mut Vec<Input>, effects: &mut Vec<Effect>) {
        debug_assert!(effects.is_empty(), "the effects of the last turn have been carried out");
        if worker == 0 {
            inputs.append(&mut lock(&self.posted));
        }
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        std::mem::swap(effects, &mut state.mailboxes[worker]);
        state.now = state.now.max(now);
        for input in inputs.drain(..) {
            state.broker.handle(state.now, input, &mut state.effects);
        }
        state.broker.handle(state.now, Input::Tick, &mut state.effects);
        if !state.effects.changes.is_empty() {
            let last = state.effects.last_change();
            self.store.commit(&mut state.effects.changes, last);
        }
        self.sort(worker, state, effects);
        let deadline = state.broker.next_deadline().map_or(u64::MAX, |deadline| deadline.0);
        let others: Vec<usize> =
            (0..state.mailboxes.len()).filter(|&other| !state.mailboxes[other].is_empty()).collect();
        let sooner = self.deadline.swap(deadline, Ordering::Relaxed) > deadline;
        drop(guard);
        for other in others {
            self.wakes[other].notify_one();
        }
        if sooner && worker != 0 {
            self.wakes[0].notify_one();
        }
    }

    /// Leaves in `effects` those of `worker`; the others go where they belong.
    fn sort(&self, worker: usize, state: &mut State, effects: &mut Vec<Effect>) {
        let list = &mut state.effects.list;
        for effect in list.extract_if(.., |effect| destination(effect) != Some(worker)) {
            match effect {
                Effect::Send { connection, .. } | Effect::Close { connection, .. } => {
                    if let Some(mailbox) = state.mailboxes.get_mut(worker_of(connection)) {
                        mailbox.push(effect);
                    }
                }
                Effect::Events { .. }
                | Effect::TakeCancelled { .. }
                | Effect::Settled { .. }
                | Effect::PluginActivated { .. }
                | Effect::PluginRefused { .. }
                | Effect::PluginRemoved { .. } => (self.plugins)(effect),
                Effect::Dropped { reason, count } => self.count_dropped(reason, count),
            }
        }
        if effects.is_empty() {
            std::mem::swap(effects, list);
        } else {
            effects.append(list);
        }
    }

    /// Hands in an input from a thread that is not a worker.
    pub fn post(&self, input: Input) {
        lock(&self.posted).push(input);
        self.wakes[0].notify_one();
    }

    /// Looks at the broker, between turns.
    pub fn inspect<T>(&self, look: impl FnOnce(&Broker) -> T) -> T {
        look(&lock(&self.state).broker)
    }

    /// Woken when a worker should take a turn though it has no inputs.
    pub fn wake(&self, worker: usize) -> &Notify {
        &self.wakes[worker]
    }

    /// When a turn is due though nothing came in. Worker 0 sees to it.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        match self.deadline.load(Ordering::Relaxed) {
            u64::MAX => None,
            deadline => Some(Timestamp(deadline)),
        }
    }

    /// The number of workers.
    pub fn workers(&self) -> usize {
        self.wakes.len()
    }

    /// The store, where what an effect waits for becomes durable.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The broker's bounds.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Messages dropped since the process started.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.counter(reason).load(Ordering::Relaxed)
    }

    fn count_dropped(&self, reason: DropReason, count: u32) {
        self.counter(reason).fetch_add(u64::from(count), Ordering::Relaxed);
    }

    fn counter(&self, reason: DropReason) -> &AtomicU64 {
        &self.dropped[reason as usize]
    }
}

/// The worker that named a connection.
fn worker_of(connection: ConnectionId) -> usize {
    (connection.0 >> 48) as usize
}

/// The worker that carries an effect out, if it is a worker's.
fn destination(effect: &Effect) -> Option<usize> {
    match effect {
        Effect::Send { connection, .. } | Effect::Close { connection, .. } => Some(worker_of(*connection)),
        Effect::Events { .. }
        | Effect::TakeCancelled { .. }
        | Effect::Settled { .. }
        | Effect::PluginActivated { .. }
        | Effect::PluginRefused { .. }
        | Effect::PluginRemoved { .. }
        | Effect::Dropped { .. } => None,
    }
}

/// A panic under one of these locks is a bug that may have left half a turn behind; going on would be worse than ending.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no thread panicked while it held the lock")
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver").field("workers", &self.workers()).finish_non_exhaustive()
    }
}
