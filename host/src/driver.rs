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
use vespiary_core::event::{ConnectionId, DropReason, FanOut, Receiver};
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
        let mut settles = false;
        while state.effects.size() < EFFECTS_PER_TURN
            && let Some(input) = inputs.pop_front()
        {
            if let Input::Loaded { .. } = input {
                self.store.load_taken();
            }
            settles |= matches!(input, Input::Settle { .. } | Input::ReturnEvents { .. });
            if state.storage_failed && is_of_a_plugin(&input) {
                state.deferred.push(input);
                continue;
            }
            state.broker.handle(state.now, input, &mut state.effects);
        }
        state.broker.handle(state.now, Input::Tick, &mut state.effects);
        if !state.effects.changes.is_empty() || settles {
            let last = state.effects.last_change();
            let pace = match settles {
                true => Pace::Came,
                false if hands_out(&state.effects) => Pace::MoreToCome,
                false => Pace::Unknown,
            };
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

/// Whether a plugin gets events, of which will be heard at once.
fn hands_out(effects: &Effects) -> bool {
    effects.list.iter().any(|effect| matches!(effect, Effect::Events { .. }))
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
mod tests {
    use std::future::Future;
    use std::sync::{Arc, mpsc};
    use std::task::{Context, Waker};

    use vespiary_core::event::{
        Activation, Connect, Lane, Outcome, Packet, PluginName, Protocol, Publish, RetainHandling, Revision,
        Settlement, Subscribe, SubscriptionOptions, Will,
    };
    use vespiary_core::{Message, Qos, Topic, TopicFilter};

    use super::*;
    use crate::store::StoreOptions;
    use crate::store::testing::Disk;

    const NOW: Timestamp = Timestamp(1_000);

    /// A driver with a store, and what its plugin port was given.
    fn driver(workers: usize, limits: Limits) -> (Driver, mpsc::Receiver<Effect>, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let opened = Store::open(directory.path(), &StoreOptions::default()).unwrap();
        let (sender, receiver) = mpsc::channel();
        let port = Box::new(move |effect| sender.send(effect).unwrap());
        let broker = Broker::restore(limits.clone(), 1, opened.changes);
        (Driver::new(broker, limits, opened.store, workers, port), receiver, directory)
    }

    fn turn(driver: &Driver, worker: usize, inputs: Vec<Input>) -> Vec<Effect> {
        let (mut inputs, mut effects) = (VecDeque::from(inputs), Vec::new());
        driver.turn(worker, NOW, &mut inputs, &mut effects);
        assert!(inputs.is_empty());
        effects
    }

    fn on_worker(worker: u64) -> ConnectionId {
        ConnectionId(worker << 48)
    }

    fn connect(connection: ConnectionId, will_delay_s: Option<u32>) -> Input {
        let client_id: Arc<str> = format!("client {}", connection.0).into();
        let will = will_delay_s.map(|delay_s| Box::new(Will { message: message("will"), expiry_s: None, delay_s }));
        let connect = Connect {
            user: None,
            address: "".into(),
            protocol: Protocol::V5,
            client_id,
            client_id_assigned: false,
            clean_start: true,
            session_expiry_s: 100,
            receive_maximum: u16::MAX,
            maximum_packet_size: None,
            will,
        };
        Input::Connect { connection, connect: Box::new(connect) }
    }

    fn subscribe(connection: ConnectionId) -> Input {
        let options = SubscriptionOptions {
            maximum_qos: Qos::AtMostOnce,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::AtSubscribe,
        };
        let filters = vec![Ok((TopicFilter::parse("t").unwrap(), options))];
        let subscribe = Subscribe { packet_id: std::num::NonZeroU16::MIN, identifier: None, filters };
        Input::Subscribe { connection, subscribe: Box::new(subscribe) }
    }

    fn message(payload: &str) -> Message {
        Message {
            topic: Topic::parse("t").unwrap(),
            payload: payload.as_bytes().into(),
            qos: Qos::AtMostOnce,
            retain: false,
            properties: None,
            expires_at: None,
            received_at: NOW,
            publisher: "publisher".into(),
            user: None,
        }
    }

    fn publish(connection: ConnectionId, payload: &str) -> Input {
        Input::Publish { connection, publish: Publish { packet_id: None, dup: false, message: message(payload) } }
    }

    fn payloads(effects: &[Effect]) -> Vec<&str> {
        let payload = |effect| match effect {
            &Effect::Send { packet: Packet::Publish(ref delivery), .. } => {
                std::str::from_utf8(&delivery.message.payload).ok()
            }
            Effect::FanOut(fan_out) => std::str::from_utf8(&fan_out.delivery.message.payload).ok(),
            _ => None,
        };
        effects.iter().filter_map(payload).collect()
    }

    fn is_woken(driver: &Driver, worker: usize) -> bool {
        let mut woken = std::pin::pin!(driver.wake(worker).notified());
        woken.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn effects_for_another_worker_wait_for_its_turn_in_order() {
        let (driver, _, _directory) = driver(2, Limits::default());
        let (here, there) = (on_worker(0), on_worker(1));
        turn(&driver, 1, vec![connect(there, None), subscribe(there)]);
        assert!(!is_woken(&driver, 0));
        turn(&driver, 0, vec![connect(here, None), subscribe(here)]);
        let effects = turn(&driver, 0, vec![publish(here, "1"), publish(here, "2")]);
        assert_eq!(payloads(&effects), ["1", "2"]);
        assert!(is_woken(&driver, 1) && !is_woken(&driver, 0));
        let effects = turn(&driver, 1, vec![publish(there, "3")]);
        assert_eq!(payloads(&effects), ["1", "2", "3"]);
        assert_eq!(payloads(&turn(&driver, 0, vec![])), ["3"]);
        assert_eq!(payloads(&turn(&driver, 1, vec![])), [""; 0]);
    }

    #[test]
    fn what_other_threads_post_is_taken_by_worker_0_and_answered_at_the_plugin_port() {
        let (driver, port, _directory) = driver(2, Limits::default());
        driver.post(Input::RemovePlugin { plugin: PluginName("nobody".into()) });
        assert!(is_woken(&driver, 0) && !is_woken(&driver, 1));
        turn(&driver, 1, vec![]);
        assert!(port.try_recv().is_err());
        assert_eq!(turn(&driver, 0, vec![]), []);
        assert!(port.try_recv().is_ok());
    }

    #[test]
    fn a_deadline_that_comes_sooner_wakes_worker_0() {
        let (driver, _, _directory) = driver(2, Limits::default());
        let connection = on_worker(1);
        turn(&driver, 1, vec![connect(connection, Some(5))]);
        assert_eq!(driver.next_deadline(), None);
        turn(&driver, 1, vec![Input::ConnectionLost { connection }]);
        let wait_ms = driver.next_deadline().expect("the will is due").since_ms(wall_clock());
        assert!((1..=5_000).contains(&wait_ms), "{wait_ms}");
        assert!(is_woken(&driver, 0));
    }

    #[test]
    fn what_plugins_have_to_say_waits_while_the_store_is_failing() {
        let (disk, directory) = (Disk::new(), tempfile::tempdir().unwrap());
        let opened = disk.open(directory.path());
        let (sender, port) = mpsc::channel();
        let broker = Broker::restore(Limits::default(), 1, opened.changes);
        let port_of = Box::new(move |effect| sender.send(effect).unwrap());
        let driver = Driver::new(broker, Limits::default(), opened.store, 1, port_of);
        let wait = |failing| {
            while driver.store().is_failing() != failing {
                std::thread::yield_now();
            }
        };
        let plugin = PluginName("p".into());
        let revision = Revision { number: 1, digest: [0; 32], version: "1".into(), activated_at: NOW };
        let subscriptions = vec![(TopicFilter::parse("t").unwrap(), Qos::AtLeastOnce)];
        let activation = Box::new(Activation::plain(revision, subscriptions));
        turn(&driver, 0, vec![Input::ActivatePlugin { plugin: plugin.clone(), activation }]);
        let connection = on_worker(0);
        turn(&driver, 0, vec![connect(connection, None), publish(connection, "x")]);
        turn(&driver, 0, vec![Input::TakeEvents { lane: Lane(0), plugin: plugin.clone(), max: 9 }]);
        let events = port.try_iter().find_map(|effect| match effect {
            Effect::Events { events, .. } => Some(events),
            _ => None,
        });
        let outcomes = vec![(events.expect("an event")[0].sequence, Outcome::Done)];

        disk.fail_after(0);
        turn(&driver, 0, vec![connect(on_worker(0), None)]);
        wait(true);
        let settlement = Box::new(Settlement { outcomes, ..Settlement::default() });
        driver.post(Input::Settle { lane: Lane(0), plugin: plugin.clone(), settlement });
        turn(&driver, 0, vec![]);
        turn(&driver, 0, vec![]);
        assert!(port.try_recv().is_err());
        disk.mend();
        wait(false);
        turn(&driver, 0, vec![]);
        assert!(matches!(port.try_recv(), Ok(Effect::Settled { .. })));
        assert_eq!(driver.inspect(|broker| broker.plugins().map(|plugin| plugin.inbox_events).sum::<usize>()), 0);
    }

    #[test]
    fn what_is_dropped_is_counted() {
        let limits = Limits { unwritten_bytes: 1, buffered_messages: 1, ..Limits::default() };
        let (driver, _, _directory) = driver(1, limits);
        let connection = on_worker(0);
        turn(&driver, 0, vec![connect(connection, None), subscribe(connection)]);
        turn(&driver, 0, (0..5).map(|number| publish(connection, &number.to_string())).collect());
        assert_eq!(driver.dropped(DropReason::QueueFull), 3);
        assert_eq!(driver.dropped(DropReason::Expired), 0);
    }

    #[test]
    fn a_turn_that_comes_to_much_leaves_inputs_for_the_next() {
        let (driver, _, _directory) = driver(1, Limits::default());
        let connection = on_worker(0);
        turn(&driver, 0, vec![connect(connection, None), subscribe(connection)]);
        let mut inputs: VecDeque<_> = (0..1_000).map(|number| publish(connection, &number.to_string())).collect();
        let mut delivered = Vec::new();
        while !inputs.is_empty() {
            let mut effects = Vec::new();
            driver.turn(0, NOW, &mut inputs, &mut effects);
            assert!(effects.len() <= EFFECTS_PER_TURN);
            delivered.extend(payloads(&effects).iter().map(|payload| payload.parse::<usize>().unwrap()));
        }
        assert!(delivered.iter().copied().eq(0..1_000));
    }

    #[test]
    fn every_reason_has_a_counter_of_its_own() {
        let (driver, _, _directory) = driver(1, Limits::default());
        for (index, &(reason, _)) in DropReason::ALL.iter().enumerate() {
            driver.count_dropped(reason, index as u32 + 1);
        }
        for (index, &(reason, _)) in DropReason::ALL.iter().enumerate() {
            assert_eq!(driver.dropped(reason), index as u64 + 1);
        }
    }
}
