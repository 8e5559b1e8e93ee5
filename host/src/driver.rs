//! The driver: the only holder of the [`Broker`] value, and the one way to step it.
//!
//! It is a lock, not a thread. A worker that has inputs takes a [turn](Driver::turn): with the lock held, it steps the
//! broker through them, hands the changes to the store, and sorts the effects: its own it takes along, other workers'
//! go into their mailboxes, plugins' to the plugin port. All of that happens under the lock, so everybody sees effects
//! in the order in which they arose. Nothing else is done under the lock: no I/O, no encoding, no waiting. Threads that
//! are not workers [post](Driver::post) their inputs, and worker 0 takes them into its next turn.
//!
//! A turn that hands events to a plugin says so to the store, which then waits a moment for what the plugin makes of them.
//!
//! An effect with a change number is handed on at once; whoever carries it out waits for the store. Questions for queues
//! on disk go to the store, and their answers are posted. A turn begins by telling the broker whether the store is
//! failing, so that nothing is taken that could not be kept; what plugins have to say waits until it is over, because what
//! they publish cannot be refused.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;
use vespiary_core::event::{ConnectionId, DropReason, FanOut, Packet, Receiver};
use vespiary_core::{Broker, Effect, Effects, Input, Limits, Timestamp};

use crate::clock::wall_clock;
use crate::store::{LoadRequest, Pace, Store};

/// Most workers that there can be: a connection's identifier has 16 bits for its worker.
pub const MAX_WORKERS: usize = 1 << 16;

/// Effects after which a turn ends though inputs are left. What a fan-out makes is then carried out while the processor
/// still has it at hand, and no turn holds the lock for long.
const EFFECTS_PER_TURN: usize = 512;

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
    /// What other threads have for the workers; the store's has a share of it.
    post: Arc<Post>,
    /// Publishes from clients.
    published: AtomicU64,
    /// Publishes to clients.
    delivered: AtomicU64,
    /// Messages dropped, by reason, in the order of their declaration.
    dropped: [AtomicU64; DropReason::ALL.len()],
    /// When the broker has something to do by itself, in milliseconds; `u64::MAX` for never.
    deadline: AtomicU64,
}

/// What other threads have for the workers.
struct Post {
    /// Inputs from threads that are not workers, for worker 0. Bounded by design: each plugin and each request of the
    /// admin API has at most a few under way, and the store waits when much that it has read is not taken.
    inputs: Mutex<Vec<Input>>,
    /// Wakes each worker for a turn.
    wakes: Box<[Notify]>,
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
    /// Whether the broker has been told that the store is failing.
    storage_failed: bool,
    /// Inputs of plugins that wait until the store is back, in order. Bounded like all that plugins post.
    deferred: Vec<Input>,
}

impl Post {
    fn push(&self, input: Input) {
        lock(&self.inputs).push(input);
        self.wakes[0].notify_one();
    }
}

impl Driver {
    /// A driver for `workers` workers, and the broker [started](Input::Started): its first input has been handled when
    /// this returns. `broker` was made with these `limits`.
    pub fn new(broker: Broker, limits: Limits, store: Store, workers: usize, plugins: PluginPort) -> Self {
        assert!((1..=MAX_WORKERS).contains(&workers), "the number of workers is between 1 and {MAX_WORKERS}");
        let mailboxes = (0..workers).map(|_| Vec::new()).collect();
        let wakes = (0..workers).map(|_| Notify::new()).collect();
        let post = Arc::new(Post { inputs: Mutex::default(), wakes });
        let loaded = post.clone();
        store.answer_loads(Box::new(move |ticket, entries| loaded.push(Input::Loaded { ticket, entries })));
        let state = State {
            broker,
            effects: Effects::default(),
            mailboxes,
            now: Timestamp(0),
            storage_failed: false,
            deferred: Vec::new(),
        };
        let driver = Self {
            state: Mutex::new(state),
            store,
            limits,
            plugins,
            post,
            published: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            dropped: Default::default(),
            deadline: AtomicU64::new(u64::MAX),
        };
        let mut effects = Vec::new();
        driver.turn(0, wall_clock(), &mut VecDeque::from([Input::Started]), &mut effects);
        debug_assert!(effects.is_empty(), "nobody is connected yet");
        driver
    }

    /// Steps the broker through `inputs`, and gives in `effects` what `worker` has to carry out: what other workers'
    /// turns left for it, and then what came of its own inputs. Inputs that are left when a turn has come to much
    /// are for the next.
    pub fn turn(&self, worker: usize, now: Timestamp, inputs: &mut VecDeque<Input>, effects: &mut Vec<Effect>) {
        debug_assert!(effects.is_empty(), "the effects of the last turn have been carried out");
        if worker == 0 {
            inputs.extend(lock(&self.post.inputs).drain(..));
        }
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        std::mem::swap(effects, &mut state.mailboxes[worker]);
        state.now = state.now.max(now);
        self.look_at_the_store(state);
        state.effects.begin();
        let (mut settles, mut published) = (false, 0);
        while state.effects.size() < EFFECTS_PER_TURN
            && let Some(input) = inputs.pop_front()
        {
            if let Input::Loaded { .. } = input {
                self.store.load_taken();
            }
            settles |= matches!(input, Input::Settle { .. } | Input::ReturnEvents { .. });
            published += u64::from(matches!(input, Input::Publish { .. }));
            if state.storage_failed && is_of_a_plugin(&input) {
                state.deferred.push(input);
                continue;
            }
            state.broker.handle(state.now, input, &mut state.effects);
        }
        state.broker.handle(state.now, Input::Tick, &mut state.effects);
        let survey = Survey::of(&state.effects);
        self.published.fetch_add(published, Ordering::Relaxed);
        self.delivered.fetch_add(survey.deliveries, Ordering::Relaxed);
        if !state.effects.changes.is_empty() || settles {
            let last = state.effects.last_change();
            let pace = Pace { came: settles, more_to_come: survey.hands_out };
            self.store.commit_at(&mut state.effects.changes, last, pace);
        }
        self.sort(worker, state, effects);
        let deadline = state.broker.next_deadline().map_or(u64::MAX, |deadline| deadline.0);
        let others: Vec<usize> =
            (0..state.mailboxes.len()).filter(|&other| !state.mailboxes[other].is_empty()).collect();
        let sooner = self.deadline.swap(deadline, Ordering::Relaxed) > deadline;
        drop(guard);
        for other in others {
            self.post.wakes[other].notify_one();
        }
        if sooner && worker != 0 {
            self.post.wakes[0].notify_one();
        }
    }

    /// Tells the broker what has become of the store since the last turn.
    fn look_at_the_store(&self, state: &mut State) {
        let is_failing = self.store.is_failing();
        if is_failing != state.storage_failed {
            state.storage_failed = is_failing;
            let input = if is_failing { Input::StorageFailed } else { Input::StorageRecovered };
            state.broker.handle(state.now, input, &mut state.effects);
        }
        if !is_failing {
            for input in state.deferred.drain(..) {
                state.broker.handle(state.now, input, &mut state.effects);
            }
        }
    }

    /// Leaves in `effects` those of `worker`; the others go where they belong.
    fn sort(&self, worker: usize, state: &mut State, effects: &mut Vec<Effect>) {
        let State { effects: Effects { list, .. }, mailboxes, .. } = state;
        if mailboxes.len() > 1 {
            for effect in list.drain(..) {
                match effect {
                    Effect::FanOut(fan_out) => split(*fan_out, worker, mailboxes, effects),
                    effect if destination(&effect) == Some(worker) => effects.push(effect),
                    effect => self.pass_on(effect, mailboxes),
                }
            }
            return;
        }
        for effect in list.extract_if(.., |effect| destination(effect).is_none()) {
            self.pass_on(effect, mailboxes);
        }
        if effects.is_empty() {
            std::mem::swap(effects, list);
        } else {
            effects.append(list);
        }
    }

    /// Hands an effect to whoever carries it out, if that is not the worker whose turn it is.
    fn pass_on(&self, effect: Effect, mailboxes: &mut [Vec<Effect>]) {
        match effect {
            Effect::Send { .. } | Effect::FanOut(_) | Effect::Close { .. } => {
                if let Some(mailbox) = destination(&effect).and_then(|worker| mailboxes.get_mut(worker)) {
                    mailbox.push(effect);
                }
            }
            Effect::Load { ticket, session, after, max, max_bytes, change } => {
                self.store.load(LoadRequest { ticket, session, after, max, max_bytes, change });
            }
            Effect::Events { .. }
            | Effect::TakeCancelled { .. }
            | Effect::Settled { .. }
            | Effect::Committed { .. }
            | Effect::LanesArranged { .. }
            | Effect::DeadLettersChanged { .. }
            | Effect::GenerationStepped { .. }
            | Effect::ProbationEnded { .. }
            | Effect::PluginActivated { .. }
            | Effect::PluginRefused { .. }
            | Effect::PluginRemoved { .. } => (self.plugins)(effect),
            Effect::Dropped { reason, count } => self.count_dropped(reason, count),
        }
    }

    /// Hands in an input from a thread that is not a worker.
    pub fn post(&self, input: Input) {
        self.post.push(input);
    }

    /// Looks at the broker, between turns.
    pub fn inspect<T>(&self, look: impl FnOnce(&Broker) -> T) -> T {
        look(&lock(&self.state).broker)
    }

    /// Woken when a worker should take a turn though it has no inputs.
    pub fn wake(&self, worker: usize) -> &Notify {
        &self.post.wakes[worker]
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
        self.post.wakes.len()
    }

    /// The store, where what an effect waits for becomes durable.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The broker's bounds.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Publishes from clients since the process started.
    pub fn published(&self) -> u64 {
        self.published.load(Ordering::Relaxed)
    }

    /// Publishes to clients since the process started.
    pub fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
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

/// What a turn came to.
#[derive(Debug, Default)]
struct Survey {
    /// Publishes to clients.
    deliveries: u64,
    /// Whether a plugin gets events, of which will be heard at once.
    hands_out: bool,
}

impl Survey {
    fn of(effects: &Effects) -> Self {
        let mut survey = Self::default();
        for effect in &effects.list {
            match effect {
                Effect::Send { packet: Packet::Publish(_), .. } => survey.deliveries += 1,
                Effect::FanOut(fan_out) => survey.deliveries += fan_out.to.len() as u64,
                Effect::Events { .. } => survey.hands_out = true,
                _ => {}
            }
        }
        survey
    }
}

/// The worker that named a connection.
fn worker_of(connection: ConnectionId) -> usize {
    (connection.0 >> 48) as usize
}

/// Whether an input comes from the plugins' floor.
fn is_of_a_plugin(input: &Input) -> bool {
    match input {
        Input::ActivatePlugin { .. }
        | Input::RemovePlugin { .. }
        | Input::TakeEvents { .. }
        | Input::CancelTake { .. }
        | Input::Settle { .. }
        | Input::ReturnEvents { .. }
        | Input::Commit { .. }
        | Input::ArrangeLanes { .. }
        | Input::ChangeDeadLetters { .. }
        | Input::Generation { .. }
        | Input::EndProbation { .. } => true,
        Input::Started
        | Input::Connect { .. }
        | Input::Publish { .. }
        | Input::Acknowledge { .. }
        | Input::Subscribe { .. }
        | Input::Unsubscribe { .. }
        | Input::Disconnect { .. }
        | Input::ConnectionLost { .. }
        | Input::Written { .. }
        | Input::Tick
        | Input::Loaded { .. }
        | Input::StorageFailed
        | Input::StorageRecovered => false,
    }
}

/// The worker that carries an effect out, if it is a worker's.
fn destination(effect: &Effect) -> Option<usize> {
    match effect {
        Effect::Send { connection, .. } | Effect::Close { connection, .. } => Some(worker_of(*connection)),
        Effect::FanOut(fan_out) => fan_out.to.first().map(|receiver| worker_of(receiver.connection)),
        Effect::Load { .. }
        | Effect::Events { .. }
        | Effect::TakeCancelled { .. }
        | Effect::Settled { .. }
        | Effect::Committed { .. }
        | Effect::LanesArranged { .. }
        | Effect::DeadLettersChanged { .. }
        | Effect::GenerationStepped { .. }
        | Effect::ProbationEnded { .. }
        | Effect::PluginActivated { .. }
        | Effect::PluginRefused { .. }
        | Effect::PluginRemoved { .. }
        | Effect::Dropped { .. } => None,
    }
}

/// Gives each worker its part of a fan-out: `own` into `effects`, the others into their mailboxes.
fn split(fan_out: FanOut, own: usize, mailboxes: &mut [Vec<Effect>], effects: &mut Vec<Effect>) {
    let FanOut { delivery, to } = fan_out;
    for (worker, mailbox) in mailboxes.iter_mut().enumerate() {
        let to: Vec<Receiver> = to.iter().copied().filter(|to| worker_of(to.connection) == worker).collect();
        if !to.is_empty() {
            let part = Effect::FanOut(Box::new(FanOut { delivery: delivery.clone(), to }));
            if worker == own { effects.push(part) } else { mailbox.push(part) }
        }
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

#[cfg(test)]
mod tests;
