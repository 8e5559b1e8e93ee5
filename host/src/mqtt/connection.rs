//! One connection: its socket, its phase, and what belongs to neither the core nor any other connection.
//!
//! A connection is a small value that its task and its worker's turn share; both are on one thread, and neither keeps
//! a borrow over a wait. The task reads, and writes only when the socket would not take all that a turn wanted to
//! write. Nothing is kept for an idle connection but this value. Whatever the connection says by itself (PINGRESP,
//! DISCONNECT, the answer to a denied publish) goes behind the answers to what the client sent before, for which
//! the worker takes a turn first if it must.

mod kept;

mod answer;
mod authenticating;
mod output;

mod admitting;
mod delivering;
mod hooked;

use std::cell::{Cell, OnceCell, RefCell};
use std::fmt;
use std::num::NonZeroU16;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use vespiary_core::event::{ConnectionId, Protocol, ReasonCode};
use vespiary_core::{ChangeNumber, Input};

use self::authenticating::Authentication;
use self::hooked::Hooked;
use self::kept::Kept;
use super::encode;
use super::frame::{self, Frame};
use super::outgoing::Outgoing;
use super::translate::{self, Accepted, Inbound, ProblemInformation, Refusal, Understood};
use super::worker::Worker;

/// A connection.
pub(super) struct Connection {
    /// Its name.
    pub(super) id: ConnectionId,
    /// The socket.
    stream: RefCell<TcpStream>,
    /// Where it is in its life.
    phase: Cell<Phase>,
    /// What its client speaks; of no meaning before CONNECT.
    protocol: Cell<Protocol>,
    /// Ticks of the worker's sweep that may pass without a packet; 0 for any number.
    pub(super) patience: Cell<u32>,
    /// Server Keep Alive that CONNACK is to announce.
    server_keep_alive_s: Cell<Option<NonZeroU16>>,
    /// Largest packet that the client takes, in bytes with its header.
    maximum_packet_size: Cell<u32>,
    /// Highest topic alias to be used towards the client; 0 for none.
    topic_alias_maximum: Cell<u16>,
    /// Which packets may have a Reason String.
    problem_information: Cell<ProblemInformation>,
    /// Whether the client wants Response Information.
    response_information: Cell<bool>,
    /// How many reads in a row took as much as they could.
    full_reads: Cell<u8>,
    /// Whether the worker knows that the socket does not take all.
    stalled: Cell<bool>,
    /// Whether the turn that runs has something to write here.
    pub(super) dirty: Cell<bool>,
    /// Whether the worker knows that a gate is closed here.
    pub(super) held: Cell<bool>,
    /// Whether packets of the client wait for hooks; then nothing is read.
    waits: Cell<bool>,
    /// Whether whole packets were left when packets of the client began to wait.
    left_over: Cell<bool>,
    /// Whether publishes to the client wait for hooks.
    delays: Cell<bool>,
    /// Weight of publishes that have left and that the core does not know of yet.
    pub(super) flushed_weight: Cell<usize>,
    /// What is to be written.
    pub(super) outgoing: RefCell<Outgoing>,
    /// What is remembered of the client's packets, from CONNECT on.
    inbound: RefCell<Option<Inbound>>,
    /// Of a client that named an authentication method.
    authentication: Kept<Authentication>,
    /// Of a client of which hooks were asked.
    hooked: Kept<Hooked>,
    /// The beginning of a packet whose end has not come, and what was [left over](Self::left_over) before it.
    partial: Cell<Vec<u8>>,
    /// Wakes the task.
    waker: OnceCell<Waker>,
}

/// What is said later, polled by the connection's task.
type Later<T> = Pin<Box<dyn Future<Output = T>>>;

/// There may be a hundred thousand of them, and nearly all do nothing: what few need is behind a pointer.
const _: () = assert!(size_of::<Connection>() <= 336);

/// Where a connection is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// CONNECT has not come.
    Fresh,
    /// CONNECT named an authentication method, by which the client has not authenticated.
    Authenticating,
    /// CONNECT has gone to the core.
    Connecting,
    /// CONNACK has been staged.
    Open,
    /// Nothing is read any more; what is staged leaves, and then our side is shut.
    Closing,
    /// Our side is shut; what the peer still sends is thrown away until it shuts its own, so that it can read what
    /// we sent before a reset would take it away.
    Draining,
    /// Over.
    Closed,
}

/// What reading came to.
enum Read {
    /// This many bytes are in the worker's scratch buffer.
    Some(usize),
    /// The peer has shut its side, or the connection broke.
    End,
}

/// Full reads in a row after which a client is taken to send faster than it is read. One that waits for answers does not
/// get there.
const FLOOD_FULL_READS: u8 = 8;

/// Bytes read at a time of such a client.
const FLOOD_READ_BYTES: usize = 4 << 10;

/// Ends a task's turn though it could go on: it goes on once all others that are ready, and sockets that have become so,
/// have had theirs.
fn others_first(context: &mut Context<'_>) -> Poll<()> {
    // The first poll sees to it that the task is woken, after the sockets have been looked at.
    let _ = pin!(tokio::task::yield_now()).poll(context);
    Poll::Pending
}

impl Connection {
    pub(super) fn new(id: ConnectionId, stream: TcpStream) -> Self {
        Self {
            id,
            stream: RefCell::new(stream),
            phase: Cell::new(Phase::Fresh),
            protocol: Cell::new(Protocol::V3),
            patience: Cell::new(0),
            server_keep_alive_s: Cell::new(None),
            maximum_packet_size: Cell::new(u32::MAX),
            topic_alias_maximum: Cell::new(0),
            problem_information: Cell::new(ProblemInformation::Refused),
            response_information: Cell::new(false),
            full_reads: Cell::new(0),
            stalled: Cell::new(false),
            dirty: Cell::new(false),
            held: Cell::new(false),
            waits: Cell::new(false),
            left_over: Cell::new(false),
            delays: Cell::new(false),
            flushed_weight: Cell::new(0),
            outgoing: RefCell::default(),
            inbound: RefCell::default(),
            authentication: Kept::default(),
            hooked: Kept::default(),
            partial: Cell::default(),
            waker: OnceCell::new(),
        }
    }

    /// What the client speaks.
    pub(super) fn protocol(&self) -> Protocol {
        self.protocol.get()
    }

    /// Whether CONNECT is still to come, or to be accepted: the deadline of CONNECT runs.
    pub(super) fn is_fresh(&self) -> bool {
        matches!(self.phase.get(), Phase::Fresh | Phase::Authenticating)
    }

    /// Highest topic alias to be used towards the client, if it takes any.
    pub(super) fn topic_alias_maximum(&self) -> Option<NonZeroU16> {
        NonZeroU16::new(self.topic_alias_maximum.get())
    }

    /// Largest packet that the client takes.
    pub(super) fn maximum_packet_size(&self) -> usize {
        self.maximum_packet_size.get() as usize
    }

    /// Whether the core's packets have somewhere to go.
    pub(super) fn takes_packets(&self) -> bool {
        matches!(self.phase.get(), Phase::Connecting | Phase::Open)
    }

    /// Whether CONNACK is staged, so that a DISCONNECT may be [MQTT-3.14.0-1].
    fn is_open(&self) -> bool {
        self.phase.get() == Phase::Open
    }

    fn is_reading(&self) -> bool {
        self.is_fresh() || self.takes_packets()
    }

    /// Lets go of what rests on changes up to `durable`.
    pub(super) fn release(&self, durable: ChangeNumber) {
        let acknowledgements = self.outgoing.borrow_mut().release(durable);
        if acknowledgements > 0
            && let Some(inbound) = &mut *self.inbound.borrow_mut()
        {
            inbound.acknowledged(acknowledgements);
        }
    }

    // ------------------------------------------------------------------------------------------ the task

    /// The task: done when the connection is over.
    fn poll(self: &Rc<Self>, worker: &Worker, context: &mut Context<'_>) -> Poll<()> {
        self.waker.get_or_init(|| context.waker().clone());
        self.flush(worker);
        loop {
            self.poll_authentication(worker, context);
            if self.waits.get() {
                self.poll_waiting(worker, context);
            }
            if self.delays.get() {
                self.poll_leaving(worker, context);
            }
            match self.phase.get() {
                Phase::Fresh | Phase::Authenticating | Phase::Connecting | Phase::Open => {
                    if worker.pauses(context) || self.waits.get() {
                        return Poll::Pending;
                    }
                    if self.left_over.take() {
                        self.received(worker, &[]);
                        continue;
                    }
                    match ready!(self.read(worker, context)) {
                        Read::Some(count) => {
                            let scratch = worker.scratch.borrow();
                            let is_full = count == self.most_to_read(scratch.len());
                            self.received(worker, &scratch[..count]);
                            self.full_reads.set(if is_full { self.full_reads.get().saturating_add(1) } else { 0 });
                            if is_full {
                                return others_first(context);
                            }
                        }
                        Read::End => self.lost(worker),
                    }
                }
                Phase::Closing => {
                    if !self.outgoing.borrow().is_empty() {
                        return Poll::Pending;
                    }
                    match ready!(Pin::new(&mut *self.stream.borrow_mut()).poll_shutdown(context)) {
                        Ok(()) => self.phase.set(Phase::Draining),
                        Err(_) => self.phase.set(Phase::Closed),
                    }
                }
                Phase::Draining => match ready!(self.read(worker, context)) {
                    Read::Some(_) => return others_first(context),
                    Read::End => self.phase.set(Phase::Closed),
                },
                Phase::Closed => return Poll::Ready(()),
            }
        }
    }

    fn read(&self, worker: &Worker, context: &mut Context<'_>) -> Poll<Read> {
        let mut scratch = worker.scratch.borrow_mut();
        let most = self.most_to_read(scratch.len());
        let mut buffer = ReadBuf::new(&mut scratch[..most]);
        let outcome = ready!(Pin::new(&mut *self.stream.borrow_mut()).poll_read(context, &mut buffer));
        Poll::Ready(match (outcome, buffer.filled().len()) {
            (Ok(()), 1..) => Read::Some(buffer.filled().len()),
            (Ok(()), 0) | (Err(_), _) => Read::End,
        })
    }

    /// How much is read at a time. Of a client that goes on sending faster than it is read little, so that others do not
    /// wait for long; except of a packet that is larger than that.
    fn most_to_read(&self, all: usize) -> usize {
        if self.full_reads.get() < FLOOD_FULL_READS {
            return all;
        }
        let partial = self.partial.take();
        let length = partial.len();
        self.partial.set(partial);
        if length < FLOOD_READ_BYTES { FLOOD_READ_BYTES.min(all) } else { all }
    }

    /// Takes in what was read: whole packets one by one; the beginning of the next is kept.
    fn received(self: &Rc<Self>, worker: &Worker, data: &[u8]) {
        worker.read_the_clock();
        let mut partial = self.partial.take();
        let consumed;
        if partial.is_empty() {
            consumed = self.consume(worker, data);
            if consumed < data.len() {
                partial = worker.buffer().unwrap_or_default();
                partial.extend_from_slice(&data[consumed..]);
            }
        } else {
            partial.extend_from_slice(data);
            consumed = self.consume(worker, &partial);
            partial.drain(..consumed);
        }
        // Packets count, not the bytes of one that is not all there [MQTT-3.1.2-22].
        if consumed > 0 {
            worker.put_off_deadline(self);
        }
        if partial.is_empty() {
            worker.give_back(partial);
        } else {
            self.partial.set(partial);
        }
    }

    /// Takes the whole packets at the beginning of `bytes`, and gives their length. Once nothing is read any more, that
    /// is all of it.
    fn consume(self: &Rc<Self>, worker: &Worker, bytes: &[u8]) -> usize {
        let mut consumed = 0;
        while self.is_reading() {
            let limit = if self.is_fresh() {
                worker.options.connect_packet_bytes.min(worker.options.packet_bytes)
            } else {
                worker.options.packet_bytes
            };
            match frame::next(&bytes[consumed..], limit) {
                Ok(Some(frame)) => {
                    if self.waits.get() && !self.takes_more(frame.packet) {
                        self.left_over.set(true);
                        return consumed;
                    }
                    consumed += frame.bytes.len();
                    match self.phase.get() {
                        Phase::Fresh => self.connect(worker, frame),
                        Phase::Authenticating => self.packet_while_authenticating(worker, frame),
                        _ => self.packet(worker, frame),
                    }
                }
                Ok(None) => return consumed,
                // What came before stands, and is to be done first.
                Err(_) if self.waits.get() => {
                    self.left_over.set(true);
                    return consumed;
                }
                Err(reason) => self.violated(worker, reason),
            }
        }
        bytes.len()
    }

    // ------------------------------------------------------------------------------------------ packets

    fn connect(self: &Rc<Self>, worker: &Worker, frame: Frame<'_>) {
        let options = worker.connect_options();
        match translate::connect(self.id, frame, worker.now(), options, || worker.fresh_id()) {
            Ok(mut accepted) => {
                accepted.connect.address = (&*self.address()).into();
                self.protocol.set(accepted.connect.protocol);
                self.maximum_packet_size.set(accepted.connect.maximum_packet_size.unwrap_or(u32::MAX));
                if accepted.authentication.is_some() {
                    self.begin_authentication(worker, Box::new(accepted));
                } else {
                    self.admit(worker, accepted, false);
                }
            }
            Err(refusal) => {
                tracing::debug!(connection = self.id.0, ?refusal, "refused a connection");
                worker.options.counters.protocol_errors.add();
                match refusal {
                    Refusal::Close => self.close(worker),
                    Refusal::Told { protocol, reason, maximum_packet_size } => {
                        self.protocol.set(protocol);
                        self.maximum_packet_size.set(maximum_packet_size.unwrap_or(u32::MAX));
                        self.refuse(worker, ChangeNumber(0), reason);
                    }
                }
            }
        }
    }

    /// Nothing stands against the client but the core's bounds.
    fn accept(&self, worker: &Worker, accepted: Accepted) {
        let Accepted { connect, inbound, keep_alive_s, server_keep_alive_s, wishes, authentication: _, password: _ } =
            accepted;
        worker.identified(self, keep_alive_s);
        self.phase.set(Phase::Connecting);
        self.server_keep_alive_s.set(server_keep_alive_s.and_then(NonZeroU16::new));
        self.topic_alias_maximum.set(wishes.topic_alias_maximum.min(worker.options.topic_aliases));
        self.problem_information.set(wishes.problem_information);
        self.response_information.set(wishes.response_information);
        self.inbound.replace(Some(inbound));
        worker.push(Input::Connect { connection: self.id, connect });
    }

    fn packet(self: &Rc<Self>, worker: &Worker, frame: Frame<'_>) {
        if self.waits.get() || hooked::concerns(worker, frame.packet) {
            return self.packet_for_hooks(worker, frame);
        }
        let understood = worker.hand_in(|inputs| match &mut *self.inbound.borrow_mut() {
            Some(inbound) => inbound.understand(frame, worker.terms(), inputs),
            None => Err(ReasonCode::ProtocolError),
        });
        match understood {
            Ok(Understood::Auth) => self.authenticate(worker, frame),
            understood => self.follow(worker, understood),
        }
    }

    /// Does what a packet comes to, beside what it is to the core.
    fn follow(self: &Rc<Self>, worker: &Worker, understood: Result<Understood, ReasonCode>) {
        match understood {
            Ok(Understood::Input) => {}
            Ok(Understood::Ping) => {
                worker.settle();
                self.say(worker, |out| out.extend_from_slice(&encode::PINGRESP));
            }
            Ok(Understood::Denied(answer)) => {
                worker.options.counters.denied_publishes.add();
                let reason = match self.protocol() {
                    Protocol::V3 => ReasonCode::Success,
                    Protocol::V5 => ReasonCode::NotAuthorized,
                };
                if let Some((packet_id, step)) = answer {
                    worker.settle();
                    if self.takes_packets() {
                        self.acknowledge(worker, ChangeNumber(0), packet_id, (step, reason));
                    }
                }
            }
            Ok(Understood::Disconnect(disconnect)) => {
                worker.push(Input::Disconnect { connection: self.id, disconnect });
                worker.settle();
                self.close(worker);
            }
            Ok(Understood::Auth) => debug_assert!(false, "AUTH is followed where its bytes are"),
            Err(reason) => self.violated(worker, reason),
        }
    }

    /// Address of the client's socket; empty once that is gone.
    fn address(&self) -> Arc<str> {
        self.stream.borrow().peer_addr().map_or_else(|_| "".into(), |address| address.to_string().into())
    }

    /// Stages a packet of the connection's own.
    fn say(self: &Rc<Self>, worker: &Worker, packet: impl FnOnce(&mut Vec<u8>)) {
        if self.takes_packets() {
            worker.stage(self, ChangeNumber(0), packet);
        }
    }

    // ------------------------------------------------------------------------------------------ the end

    /// The client did what it may not: it is told why, if it speaks 5.0, and the connection closes [MQTT-4.13.1-1].
    pub(super) fn violated(self: &Rc<Self>, worker: &Worker, reason: ReasonCode) {
        tracing::debug!(connection = self.id.0, ?reason, "closing a connection");
        match reason {
            ReasonCode::KeepAliveTimeout => worker.options.counters.timeouts.add(),
            ReasonCode::ServerShuttingDown => {}
            _ => worker.options.counters.protocol_errors.add(),
        }
        self.end(worker, reason);
    }

    /// The connection ends from our side; the client is told why, as far as it can be told.
    fn end(self: &Rc<Self>, worker: &Worker, reason: ReasonCode) {
        if self.phase.get() == Phase::Authenticating {
            return self.refuse(worker, ChangeNumber(0), reason);
        }
        if self.takes_packets() {
            worker.settle();
            worker.push(Input::ConnectionLost { connection: self.id });
        }
        self.close_with(worker, ChangeNumber(0), reason);
    }

    /// What this connection waits for cannot be made durable at present: that is dropped, so that its client can be told
    /// to come back later.
    pub(super) fn send_away(self: &Rc<Self>, worker: &Worker) {
        let dropped_connack = self.outgoing.borrow_mut().drop_held();
        if !self.takes_packets() {
            return self.wake();
        }
        worker.options.counters.storage_failures.add();
        worker.push(Input::ConnectionLost { connection: self.id });
        if dropped_connack {
            // Nothing has come yet, or AUTH alone: it is a CONNACK that has to come next [MQTT-3.14.0-1].
            return self.refuse(worker, ChangeNumber(0), ReasonCode::ServerBusy);
        }
        self.close_with(worker, ChangeNumber(0), ReasonCode::ServerBusy);
    }

    /// Closes once all that is staged has left.
    pub(super) fn close(&self, worker: &Worker) {
        if self.is_reading() {
            worker.left_fresh(self);
            self.phase.set(Phase::Closing);
            worker.linger(self);
            self.inbound.take();
            self.authentication.forget();
            self.forget_hooks();
            self.partial.take();
            self.wake();
        }
    }

    /// Closes at once: the peer is gone, or does not read.
    pub(super) fn lost(&self, worker: &Worker) {
        if self.takes_packets() {
            worker.push(Input::ConnectionLost { connection: self.id });
        }
        worker.left_fresh(self);
        self.phase.set(Phase::Closed);
        self.forget_hooks();
        self.outgoing.borrow_mut().clear();
        self.wake();
    }

    /// The sweep found that the deadline has passed.
    pub(super) fn expired(self: &Rc<Self>, worker: &Worker) {
        match self.phase.get() {
            Phase::Fresh | Phase::Authenticating => {
                worker.options.counters.timeouts.add();
                self.lost(worker);
            }
            // What would put the deadline off may be there, and is not read.
            Phase::Connecting | Phase::Open if self.waits.get() => worker.put_off_deadline(self),
            Phase::Connecting | Phase::Open => self.violated(worker, ReasonCode::KeepAliveTimeout),
            Phase::Closing | Phase::Draining | Phase::Closed => self.lost(worker),
        }
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.get() {
            waker.wake_by_ref();
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("id", &self.id).field("phase", &self.phase).finish_non_exhaustive()
    }
}

/// A connection's task.
pub(super) struct ConnectionTask {
    /// Where it belongs.
    worker: Rc<Worker>,
    /// The connection.
    connection: Rc<Connection>,
}

impl ConnectionTask {
    pub(super) fn new(worker: Rc<Worker>, connection: Rc<Connection>) -> Self {
        Self { worker, connection }
    }
}

impl Future for ConnectionTask {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        ready!(self.connection.poll(&self.worker, context));
        self.worker.forget(self.connection.id);
        Poll::Ready(())
    }
}
