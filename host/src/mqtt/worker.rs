//! A worker: one thread, its connections, and their turns.
//!
//! Connections' tasks read and push inputs; the first push wakes the turn, which therefore runs when all tasks that
//! the same wake-up made ready have read. The turn steps the broker through all of it, stages what comes of it in each
//! connection's buffer, and writes once per connection. No message hops between threads unless its receiver's
//! socket is another worker's. Worker 0 accepts, and sees to the broker's deadlines.

mod admit;
mod memory;
mod stalled;
mod waiting;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::LocalSet;
use vespiary_core::event::{ConnectionId, Delivery, Packet, PacketId, Protocol, ReasonCode};
use vespiary_core::{ChangeNumber, Effect, Input, Limits, Timestamp};

pub(super) use admit::Source;
use stalled::Stalled;

use super::connection::Connection;
use super::encode::Publishes;
use super::slots::{NEVER, Slots};
use super::translate::{ConnectOptions, Terms};
use super::{MqttOptions, ServeError};
use crate::clock::wall_clock;
use crate::driver::Driver;
use crate::plugins::hooks::View;

/// Sockets that wait to be taken over by another worker than the one that accepted them.
pub(super) const HANDOVER_SOCKETS: usize = 1024;

/// Bytes that one read takes at most.
const SCRATCH_BYTES: usize = 64 << 10;

/// Bytes staged for one connection after which they are written before the turn ends: they are then still in the
/// processor's cache, and their buffer is one of those that are kept.
const WRITE_AT_BYTES: usize = 64 << 10;

/// Buffers that are kept for connections that need one, and the largest that is kept.
const SPARE_BUFFERS: usize = 256;
const SPARE_BUFFER_BYTES: usize = 128 << 10;

/// Milliseconds between two sweeps over the connections' deadlines.
const SWEEP_MS: u64 = 500;

/// What a worker's tasks share.
#[derive(Debug)]
pub(super) struct Worker {
    /// Which worker this is.
    index: usize,
    /// Steps the broker.
    driver: Arc<Driver>,
    /// Bounds and wishes.
    pub(super) options: Arc<MqttOptions>,
    /// Hooks, as this worker sees them.
    pub(super) hooks: View,
    /// What a packet came to that hooks may be asked about; empty between packets.
    pub(super) understood: RefCell<VecDeque<Input>>,
    /// The connections.
    slots: RefCell<Slots<Connection>>,
    /// Connections whose CONNECT has not come.
    fresh: Cell<usize>,
    /// What a read fills. Its content means nothing between two polls.
    pub(super) scratch: RefCell<Box<[u8]>>,
    /// Inputs for the next turn.
    inputs: RefCell<VecDeque<Input>>,
    /// What a turn works on, kept for its memory.
    turn: RefCell<Turn>,
    /// Connections to which something was staged.
    dirty: RefCell<Vec<Rc<Connection>>>,
    /// Connections with a closed gate.
    held: RefCell<Vec<Rc<Connection>>>,
    /// The most connections that there were since memory was last given back.
    most_connections: Cell<usize>,
    /// The sweep in which memory is given back, if one is to do so.
    trim_at: Cell<u32>,
    /// Connections whose sockets did not take all.
    stalled: RefCell<Vec<Stalled>>,
    /// Whether commits fail, so that what is held leaves nobody knows when, or never.
    failing: Cell<bool>,
    /// The last change that was durable when this worker last looked.
    durable: Cell<ChangeNumber>,
    /// Tasks that do not read because the store is behind; `None` while all may read.
    paused: RefCell<Option<Vec<Waker>>>,
    /// Buffers that no connection needs at present.
    spare: RefCell<Vec<Vec<u8>>>,
    /// Sweeps so far.
    tick: Cell<u32>,
    /// The time of what is being read.
    now: Cell<Timestamp>,
    /// Makes up client identifiers.
    random: RefCell<fastrand::Rng>,
}

/// What a turn works on.
#[derive(Debug, Default)]
struct Turn {
    /// Inputs.
    inputs: VecDeque<Input>,
    /// What came of them for this worker.
    effects: Vec<Effect>,
    /// Frames of the message that is being sent.
    publishes: Publishes,
    /// Connections to be written to.
    dirty: Vec<Rc<Connection>>,
}

/// A publish that is being staged on one connection or many.
struct Staged<'a> {
    /// What is sent.
    delivery: &'a Delivery,
    /// What it counts for.
    weight: usize,
    /// The form in which the last recipient got it.
    form: Option<(Protocol, usize)>,
    /// Whether there are further recipients, who may share it.
    is_shared: bool,
}

impl<'a> Staged<'a> {
    fn new(delivery: &'a Delivery) -> Self {
        Self { delivery, weight: delivery.message.weight(), form: None, is_shared: false }
    }

    fn shared(delivery: &'a Delivery) -> Self {
        Self { is_shared: true, ..Self::new(delivery) }
    }

    /// The form for a protocol; mostly that of the last recipient.
    fn form(&mut self, protocol: Protocol, publishes: &mut Publishes) -> usize {
        match self.form {
            Some((last, form)) if last == protocol => form,
            Some(_) | None => {
                let form = publishes.form(self.delivery, protocol);
                self.form = Some((protocol, form));
                form
            }
        }
    }
}

/// Runs a worker on this thread until `stop` is true or the store fails.
pub(super) fn run(
    index: usize,
    driver: Arc<Driver>,
    options: Arc<MqttOptions>,
    stop: watch::Receiver<bool>,
    source: Source,
) -> Result<(), ServeError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    let worker = Rc::new(Worker::new(index, driver, options));
    LocalSet::new().block_on(&runtime, worker.run(stop, source))
}

impl Worker {
    fn new(index: usize, driver: Arc<Driver>, options: Arc<MqttOptions>) -> Self {
        let (durable, now, hooks) = (driver.store().durable(), wall_clock(), options.hooks.view());
        Self {
            index,
            driver,
            options,
            hooks,
            understood: RefCell::default(),
            slots: RefCell::new(Slots::new(index)),
            fresh: Cell::new(0),
            scratch: RefCell::new(vec![0; SCRATCH_BYTES].into()),
            inputs: RefCell::default(),
            turn: RefCell::default(),
            dirty: RefCell::default(),
            held: RefCell::default(),
            most_connections: Cell::new(0),
            trim_at: Cell::new(NEVER),
            stalled: RefCell::default(),
            failing: Cell::new(false),
            durable: Cell::new(durable),
            paused: RefCell::default(),
            spare: RefCell::default(),
            tick: Cell::new(0),
            now: Cell::new(now),
            random: RefCell::new(fastrand::Rng::new()),
        }
    }

    // ------------------------------------------------------------------------------------------ tasks

    async fn run(self: Rc<Self>, mut stop: watch::Receiver<bool>, source: Source) -> Result<(), ServeError> {
        let accepting = match source {
            Source::Listener(listener, others) => {
                let listener = TcpListener::from_std(listener)?;
                tokio::task::spawn_local(self.clone().accept(listener, others))
            }
            Source::Handover(sockets) => tokio::task::spawn_local(self.clone().take_over(sockets)),
        };
        tokio::task::spawn_local(tokio::task::unconstrained(self.clone().take_turns()));
        tokio::task::spawn_local(self.clone().sweep());
        let failure = tokio::select! {
            reason = self.clone().release() => Some(reason),
            _ = stop.wait_for(|stop| *stop) => None,
        };
        accepting.abort();
        match failure {
            None => {
                let releasing = tokio::task::spawn_local(self.clone().release());
                self.shut_down().await;
                releasing.abort();
                Ok(())
            }
            Some(reason) => {
                if self.index == 0 {
                    tracing::error!(%reason, "the store failed; nothing more is acknowledged, stopping");
                }
                self.send_the_held_away();
                self.shut_down().await;
                Err(ServeError::StoreFailed(reason))
            }
        }
    }

    /// Takes a turn whenever there is something to take one for.
    async fn take_turns(self: Rc<Self>) {
        let mut timer = std::pin::pin!(tokio::time::sleep(Duration::ZERO));
        let mut armed = None;
        loop {
            tokio::select! {
                biased;
                () = self.driver.wake(self.index).notified() => {}
                () = &mut timer, if armed.is_some() => armed = None,
            }
            self.take_turn();
            while self.has_more_to_do() {
                // Sockets that have become ready are read in between, so nobody waits for all of it.
                tokio::task::yield_now().await;
                self.take_turn();
            }
            let deadline = if self.index == 0 { self.driver.next_deadline() } else { None };
            if deadline != armed {
                armed = deadline;
                if let Some(deadline) = deadline {
                    let wait_ms = deadline.since_ms(wall_clock()).max(1);
                    timer.as_mut().reset(tokio::time::Instant::now() + Duration::from_millis(wait_ms));
                }
            }
        }
    }

    /// Whether the broker left something for its next turn, which worker 0 then takes at once.
    fn has_more_to_do(&self) -> bool {
        self.index == 0 && self.driver.next_deadline().is_some_and(|deadline| deadline <= wall_clock())
    }

    /// Looks at all deadlines, now and then.
    async fn sweep(self: Rc<Self>) {
        let mut interval = tokio::time::interval(Duration::from_millis(SWEEP_MS));
        loop {
            interval.tick().await;
            self.tick.set(self.tick.get() + 1);
            self.cut_stalled();
            self.give_back_memory();
            if self.is_paused() {
                // What would put deadlines off may be there, and is not read.
                continue;
            }
            let due = self.slots.borrow().due(self.tick.get());
            for connection in due {
                connection.expired(&self);
            }
        }
    }

    /// Says goodbye to all, and waits until they are gone or their time is up.
    async fn shut_down(&self) {
        let all = self.slots.borrow().all();
        for connection in all {
            connection.violated(self, ReasonCode::ServerShuttingDown);
        }
        self.settle();
        let patience = Duration::from_millis(self.options.linger_timeout_ms);
        let gone = async {
            while !self.slots.borrow().is_empty() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        // Those that do not go in time are cut off.
        let _ = tokio::time::timeout(patience, gone).await;
    }

    // ------------------------------------------------------------------------------------------ turns

    /// Hands an input to the next turn.
    pub(super) fn push(&self, input: Input) {
        self.hand_in(|inputs| inputs.push_back(input));
    }

    /// Lets inputs be handed to the next turn.
    pub(super) fn hand_in<T>(&self, append: impl FnOnce(&mut VecDeque<Input>) -> T) -> T {
        let mut inputs = self.inputs.borrow_mut();
        let was_empty = inputs.is_empty();
        let result = append(&mut inputs);
        if was_empty && !inputs.is_empty() {
            self.driver.wake(self.index).notify_one();
        }
        result
    }

    /// Takes a turn if inputs wait, so that what is staged next stands behind the answers to them.
    pub(super) fn settle(&self) {
        if !self.inputs.borrow().is_empty() {
            self.take_turn();
        }
    }

    fn take_turn(&self) {
        let mut turn = self.turn.borrow_mut();
        let Turn { inputs, effects, publishes, dirty } = &mut *turn;
        std::mem::swap(inputs, &mut self.inputs.borrow_mut());
        loop {
            self.driver.turn(self.index, wall_clock(), inputs, effects);
            self.durable.set(self.driver.store().durable().max(self.durable.get()));
            // By reference: letting go of each message at once would wait, each time, for all that was just written
            // to reach the cache.
            for effect in &*effects {
                self.carry_out(effect, publishes);
            }
            effects.clear();
            if inputs.is_empty() {
                break;
            }
        }
        publishes.forget();
        std::mem::swap(dirty, &mut self.dirty.borrow_mut());
        for connection in dirty.drain(..) {
            connection.dirty.set(false);
            connection.flush(self);
            self.list_if_held(&connection);
        }
        self.pause_if_behind();
    }

    fn carry_out(&self, effect: &Effect, publishes: &mut Publishes) {
        match effect {
            Effect::Send { connection, after, packet: Packet::Publish(delivery) } => {
                if let Some(connection) = self.slots.borrow().find(*connection)
                    && connection.takes_packets()
                {
                    let set = self.hooks.deliveries(&delivery.message.topic);
                    if set.is_some() || connection.delays() {
                        return connection.delay(set, *after, delivery.clone());
                    }
                    let mut publish = Staged::new(delivery);
                    self.stage_publish(connection, *after, delivery.packet_id, &mut publish, publishes);
                }
            }
            Effect::FanOut(fan_out) => {
                let (mut publish, slots) = (Staged::shared(&fan_out.delivery), self.slots.borrow());
                let set = self.hooks.deliveries(&fan_out.delivery.message.topic);
                for receiver in &fan_out.to {
                    if let Some(connection) = slots.find(receiver.connection)
                        && connection.takes_packets()
                    {
                        if set.is_some() || connection.delays() {
                            let delivery = Delivery { packet_id: receiver.packet_id, ..fan_out.delivery.clone() };
                            connection.delay(set.clone(), ChangeNumber(0), delivery);
                            continue;
                        }
                        self.stage_publish(connection, ChangeNumber(0), receiver.packet_id, &mut publish, publishes);
                    }
                }
            }
            Effect::Send { connection, after, packet } => {
                if let Some(connection) = self.find(*connection) {
                    connection.answer(self, *after, packet);
                }
            }
            Effect::Close { connection, after, reason } => {
                if let Some(connection) = self.find(*connection) {
                    connection.close_with(self, *after, *reason);
                }
            }
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
            | Effect::Dropped { .. } => debug_assert!(false, "the driver hands a worker what is for connections"),
        }
    }

    /// Appends a packet to what a connection is about to write. It is written when the turn ends.
    pub(super) fn stage(&self, connection: &Rc<Connection>, after: ChangeNumber, packet: impl FnOnce(&mut Vec<u8>)) {
        let mut outgoing = connection.outgoing.borrow_mut();
        outgoing.lend(|| self.buffer());
        packet(outgoing.stage(after, self.durable.get()));
        self.list_as_dirty(connection);
    }

    /// Appends a publish under its packet identifier. If much has come together then, it is written at once.
    fn stage_publish(
        &self,
        connection: &Rc<Connection>,
        after: ChangeNumber,
        packet_id: Option<PacketId>,
        publish: &mut Staged<'_>,
        publishes: &mut Publishes,
    ) {
        let mut outgoing = connection.outgoing.borrow_mut();
        outgoing.lend(|| self.buffer());
        outgoing.add_weight(publish.weight);
        let before = outgoing.unwritten();
        let durable = self.durable.get();
        match connection.topic_alias_maximum() {
            None => {
                let form = publish.form(connection.protocol(), publishes);
                if !(publish.is_shared && publishes.link_form(form, packet_id, &mut outgoing)) {
                    publishes.append_form(form, publish.delivery.dup, packet_id, outgoing.stage(after, durable));
                }
            }
            Some(maximum) => {
                let (out, aliases) = outgoing.stage_aliased(after, durable, maximum);
                let most = connection.maximum_packet_size();
                publishes.append_aliased(publish.delivery, packet_id, aliases, most, out);
            }
        }
        let is_much = before / WRITE_AT_BYTES != outgoing.unwritten() / WRITE_AT_BYTES;
        drop(outgoing);
        self.list_as_dirty(connection);
        if is_much {
            connection.flush(self);
        }
    }

    /// Appends a publish that waited for hooks, outside of a turn. It counts for `weight`. Says whether it is no larger than
    /// the client takes, which is looked at if it `is_another` than the core gave.
    pub(super) fn stage_late(
        &self,
        connection: &Rc<Connection>,
        after: ChangeNumber,
        delivery: &Delivery,
        weight: usize,
        is_another: bool,
    ) -> bool {
        let mut publishes = std::mem::take(&mut self.turn.borrow_mut().publishes);
        let fits = !is_another || publishes.length(delivery, connection.protocol()) <= connection.maximum_packet_size();
        if fits {
            let mut publish = Staged { weight, ..Staged::new(delivery) };
            self.stage_publish(connection, after, delivery.packet_id, &mut publish, &mut publishes);
        }
        publishes.forget();
        self.turn.borrow_mut().publishes = publishes;
        fits
    }

    /// Something is staged on a connection.
    fn list_as_dirty(&self, connection: &Rc<Connection>) {
        if !connection.dirty.replace(true) {
            let mut dirty = self.dirty.borrow_mut();
            // Outside of a turn, nothing else may come to write it.
            if dirty.is_empty() && self.turn.try_borrow().is_ok() {
                self.driver.wake(self.index).notify_one();
            }
            dirty.push(connection.clone());
        }
    }

    /// A connection is over.
    pub(super) fn forget(&self, id: ConnectionId) {
        self.slots.borrow_mut().remove(id);
    }

    fn find(&self, id: ConnectionId) -> Option<Rc<Connection>> {
        self.slots.borrow().find(id).filter(|connection| connection.takes_packets()).cloned()
    }

    // ------------------------------------------------------------------------------------------ for connections

    /// What CONNECT is held to.
    pub(super) fn connect_options(&self) -> ConnectOptions {
        ConnectOptions {
            keep_alive_maximum_s: self.options.keep_alive_maximum_s,
            topic_alias_maximum: self.options.topic_alias_maximum,
        }
    }

    /// An identifier for a client that has none: 128 random bits.
    pub(super) fn fresh_id(&self) -> Arc<str> {
        format!("{:032x}", self.random.borrow_mut().u128(..)).into()
    }

    /// The time of what is being read.
    pub(super) fn now(&self) -> Timestamp {
        self.now.get()
    }

    /// What packets that follow CONNECT are held to.
    pub(super) fn terms(&self) -> Terms<'_> {
        Terms {
            now: self.now.get(),
            receive_maximum: self.limits().receive_maximum,
            denied_subscriptions: &self.options.denied_subscriptions,
        }
    }

    /// The broker's bounds.
    pub(super) fn limits(&self) -> &Limits {
        self.driver.limits()
    }

    pub(super) fn read_the_clock(&self) {
        self.now.set(wall_clock());
    }

    /// CONNECT has come: the keep-alive counts from now on [MQTT-3.1.2-22].
    pub(super) fn identified(&self, connection: &Connection, keep_alive_s: u16) {
        self.fresh.set(self.fresh.get() - 1);
        let patience_ms = u64::from(keep_alive_s) * 1500;
        let patience = if patience_ms == 0 { 0 } else { self.ticks(patience_ms) };
        connection.patience.set(patience);
        let deadline = if patience == 0 { NEVER } else { self.tick.get() + patience };
        self.slots.borrow_mut().set_deadline(connection.id, deadline);
    }

    /// A connection ends whose CONNECT may not have come.
    pub(super) fn left_fresh(&self, connection: &Connection) {
        if connection.is_fresh() {
            self.fresh.set(self.fresh.get() - 1);
        }
    }

    /// Something came, so the keep-alive starts again.
    pub(super) fn put_off_deadline(&self, connection: &Connection) {
        let patience = connection.patience.get();
        if patience > 0 {
            self.slots.borrow_mut().set_deadline(connection.id, self.tick.get() + patience);
        }
    }

    /// A connection that closes gets a last deadline.
    pub(super) fn linger(&self, connection: &Connection) {
        connection.patience.set(0);
        let deadline = self.ticks_from_now(self.options.linger_timeout_ms);
        self.slots.borrow_mut().set_deadline(connection.id, deadline);
    }

    fn ticks_from_now(&self, milliseconds: u64) -> u32 {
        self.tick.get() + self.ticks(milliseconds)
    }

    /// Sweeps after which this much time has surely passed.
    fn ticks(&self, milliseconds: u64) -> u32 {
        u32::try_from(milliseconds.div_ceil(SWEEP_MS) + 1).unwrap_or(NEVER / 2)
    }

    /// Weight of publishes that is worth telling the core of.
    pub(super) fn report_weight(&self) -> usize {
        (self.driver.limits().unwritten_bytes / 4).max(1)
    }

    /// An empty buffer.
    pub(super) fn buffer(&self) -> Option<Vec<u8>> {
        self.spare.borrow_mut().pop()
    }

    /// Keeps a buffer for the next that needs one.
    pub(super) fn give_back(&self, buffer: Vec<u8>) {
        let mut spare = self.spare.borrow_mut();
        if (1..=SPARE_BUFFER_BYTES).contains(&buffer.capacity()) && spare.len() < SPARE_BUFFERS {
            spare.push(buffer);
        }
    }
}
