//! Everything on its way to one client: the window, what is to be sent again after a reconnect, the queue, and the
//! backlog.
//!
//! A message passes through them in one direction. The *backlog* is the part of a durable session's queue that is on
//! disk and not in memory; its entries are all younger than those in memory, and are read back (*loaded*) when the
//! queue runs low. Of a durable session without a client everything is backlog. The *queue* is in memory: for a durable
//! session a window on what is on disk, for others all there is. What was in flight when a client left comes back from
//! disk into *resend*.
//!
//! Invariants: nothing is sent from the queue while something is still to be sent again; while there is a backlog, what
//! needs to be durable goes behind it.

use std::collections::VecDeque;
use std::sync::Arc;

use super::window::{InFlight, Place, Window};
use crate::event::{LoadTicket, LoadedEntry, PacketId, QueueEntry, Sequence, ShareNumber};
use crate::message::{Message, Qos, Timestamp};

/// A message on its way to one session.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// The message.
    pub(crate) message: Arc<Message>,
    /// Where it is on disk.
    pub(crate) place: Place,
    /// Subscription Identifiers that the delivery carries.
    pub(crate) identifiers: Option<Arc<[u32]>>,
    /// The shared subscription it came through, if it did.
    pub(crate) share: Option<ShareNumber>,
    /// QoS of the delivery.
    pub(crate) qos: Qos,
    /// RETAIN flag of the delivery.
    pub(crate) retain: bool,
}

/// A message that was in flight before the client reconnected.
#[derive(Debug)]
pub(crate) struct Resend {
    /// The identifier it was sent under.
    pub(crate) packet_id: PacketId,
    /// Whether the client had received it (PUBREC).
    pub(crate) released: bool,
    /// The message.
    pub(crate) entry: Entry,
}

/// The part of a queue that is on disk and not in memory.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    /// Messages in it.
    pub(crate) messages: u64,
    /// Their weight.
    pub(crate) bytes: u64,
    /// All of it is behind this.
    pub(crate) after: Sequence,
    /// Whether messages with an expiry may be in it.
    pub(crate) expires: bool,
    /// When expired messages were last looked for in it.
    pub(crate) searched_at: Timestamp,
    /// The load that is under way, and how much the backlog held when it was asked for.
    load: Option<(LoadTicket, u64)>,
}

/// Everything on its way to one client.
#[derive(Debug, Default)]
pub(crate) struct Outbound {
    /// What is in flight.
    pub(crate) window: Window,
    /// In flight before the reconnect, and not yet sent again.
    resend: VecDeque<Resend>,
    /// In memory, beyond the window, in order.
    queue: VecDeque<Entry>,
    /// Weight of the queue in memory.
    queued_bytes: usize,
    /// On disk, beyond the queue in memory.
    pub(crate) backlog: Backlog,
}

impl Outbound {
    /// Whether nothing waits to be sent, so that a new message may go at once.
    pub(crate) fn is_drained(&self) -> bool {
        !self.has_waiting() && self.backlog.messages == 0
    }

    /// Whether something in memory waits to be sent.
    pub(crate) fn has_waiting(&self) -> bool {
        !self.queue.is_empty() || !self.resend.is_empty()
    }

    /// Entries in flight, sent on this connection or before it.
    pub(crate) fn in_flight(&self) -> usize {
        self.window.len() + self.resend.len()
    }

    /// Messages beyond those in flight, in memory or not.
    pub(crate) fn queued(&self) -> u64 {
        self.queue.len() as u64 + self.backlog.messages
    }

    /// Weight of the messages beyond those in flight.
    pub(crate) fn queued_bytes(&self) -> u64 {
        self.queued_bytes as u64 + self.backlog.bytes
    }

    /// Messages and weight of the part of the queue that is in memory.
    pub(crate) fn buffered(&self) -> (usize, usize) {
        (self.queue.len(), self.queued_bytes)
    }

    /// The next entry to be sent again.
    pub(crate) fn next_resend(&self) -> Option<&Resend> {
        self.resend.front()
    }

    /// Takes the next entry to be sent again out.
    pub(crate) fn pop_resend(&mut self) -> Option<Resend> {
        self.resend.pop_front()
    }

    /// Whether what was in flight before the reconnect may still be to come.
    pub(crate) fn is_resuming(&self) -> bool {
        !self.resend.is_empty() || self.backlog.load.is_some()
    }

    /// The next entry of the queue in memory.
    pub(crate) fn next_queued(&self) -> Option<&Entry> {
        self.queue.front()
    }

    /// Takes the next entry of the queue out.
    pub(crate) fn pop_queued(&mut self) -> Option<Entry> {
        let entry = self.queue.pop_front()?;
        self.queued_bytes -= entry.message.weight();
        if self.queue.is_empty() && self.queue.capacity() > 1024 {
            self.queue.shrink_to(64);
        }
        Some(entry)
    }

    /// Puts a new message in flight that did not wait in the queue.
    pub(crate) fn push_in_flight(&mut self, in_flight: InFlight) {
        debug_assert!(self.is_drained(), "nothing overtakes what waits");
        if in_flight.place.is_on_disk() {
            self.backlog.after = in_flight.place.sequence;
        }
        self.window.push(in_flight);
    }

    /// Appends to the queue in memory.
    pub(crate) fn push_queued(&mut self, entry: Entry) {
        self.queued_bytes += entry.message.weight();
        if entry.place.is_on_disk() {
            self.backlog.after = entry.place.sequence;
        }
        self.queue.push_back(entry);
    }

    /// Notes an entry that is on disk alone.
    pub(crate) fn push_backlog(&mut self, weight: u32) {
        self.backlog.messages += 1;
        self.backlog.bytes += u64::from(weight);
    }

    /// The client of a durable session is gone: what is on disk is kept there alone, and the rest is forgotten.
    pub(crate) fn park(&mut self) {
        let Backlog { mut messages, mut bytes, searched_at, .. } = self.backlog;
        let mut keep = |place: Place, weight: usize| {
            if place.is_on_disk() {
                messages += 1;
                bytes += weight as u64;
            }
        };
        self.window.take_all().for_each(|in_flight| keep(in_flight.place, in_flight.weight as usize));
        let resend = std::mem::take(&mut self.resend).into_iter().map(|resend| resend.entry);
        resend.chain(std::mem::take(&mut self.queue)).for_each(|entry| keep(entry.place, entry.message.weight()));
        self.queued_bytes = 0;
        self.backlog = Backlog { messages, bytes, searched_at, expires: true, ..Backlog::default() };
    }

    /// Everything in memory, in the order in which it was sent or would have been; for a session that ends.
    pub(crate) fn take_all(&mut self) -> (Vec<InFlight>, Vec<Entry>) {
        self.queued_bytes = 0;
        (self.window.take_all().collect(), std::mem::take(&mut self.queue).into())
    }

    /// Whether the part in memory has run so low that the next part of the backlog should be loaded.
    pub(crate) fn needs_load(&self, window_messages: usize, window_bytes: usize) -> bool {
        let waiting = self.queue.len() + self.resend.len();
        let runs_low = waiting * 2 <= window_messages && self.queued_bytes * 2 <= window_bytes;
        self.backlog.messages > 0 && self.backlog.load.is_none() && (waiting == 0 || runs_low)
    }

    /// Whether a load is under way.
    pub(crate) fn is_loading(&self) -> bool {
        self.backlog.load.is_some()
    }

    /// A load is under way.
    pub(crate) fn begin_load(&mut self, ticket: LoadTicket) {
        self.backlog.load = Some((ticket, self.backlog.messages));
    }

    /// Whether this is the load that is waited for.
    pub(crate) fn awaits(&self, ticket: LoadTicket) -> bool {
        self.backlog.load.is_some_and(|(expected, _)| expected == ticket)
    }

    /// The load under way gives nothing to take over.
    pub(crate) fn end_load(&mut self) {
        self.backlog.load = None;
    }

    /// Takes over what was loaded, in order.
    pub(crate) fn take_loaded(&mut self, entries: Vec<LoadedEntry>) {
        let Some((_, expected)) = self.backlog.load.take() else { return };
        if entries.is_empty() {
            // What was there when the load was asked for is not; only what came since can be.
            let added = self.backlog.messages.saturating_sub(expected);
            debug_assert!(added == self.backlog.messages, "the backlog is where it was left");
            self.backlog.messages = added;
        }
        for LoadedEntry { sequence, entry, released, content } in entries {
            debug_assert!(sequence > self.backlog.after, "what is in memory is not loaded");
            self.forget_backlog(&entry);
            self.backlog.after = sequence;
            let packet_id = entry.packet_id;
            let entry = Entry::loaded(sequence, entry, content);
            match packet_id {
                Some(packet_id) => {
                    self.window.resume_after(packet_id);
                    self.resend.push_back(Resend { packet_id, released, entry });
                }
                None => self.push_queued(entry),
            }
        }
    }

    /// An entry is not in the backlog any more.
    pub(crate) fn forget_backlog(&mut self, entry: &QueueEntry) {
        self.backlog.messages = self.backlog.messages.saturating_sub(1);
        self.backlog.bytes = self.backlog.bytes.saturating_sub(u64::from(entry.weight));
    }

    /// How much a queue on disk holds, when the broker starts.
    pub(crate) fn restore_backlog(&mut self, messages: u64, bytes: u64) {
        self.backlog = Backlog { messages, bytes, expires: true, ..Backlog::default() };
    }

    /// How much of it is on disk: messages and weight.
    pub(crate) fn on_disk(&self) -> (u64, u64) {
        let window = self.window.iter().map(|in_flight| (in_flight.place, u64::from(in_flight.weight)));
        let entries = self.resend.iter().map(|resend| &resend.entry).chain(&self.queue);
        let entries = entries.map(|entry| (entry.place, entry.message.weight() as u64));
        let on_disk = window.chain(entries).filter(|(place, _)| place.is_on_disk());
        on_disk.fold((self.backlog.messages, self.backlog.bytes), |(messages, bytes), (_, weight)| {
            (messages + 1, bytes + weight)
        })
    }

    /// Panics where an invariant does not hold.
    pub(crate) fn check_invariants(&self) {
        self.window.check_invariants();
        assert_eq!(self.queue.iter().map(|entry| entry.message.weight()).sum::<usize>(), self.queued_bytes);
        let places = self.queue.iter().map(|entry| entry.place.sequence).filter(|&sequence| sequence != Sequence(0));
        let places: Vec<Sequence> = places.collect();
        assert!(places.is_sorted_by(|a, b| a < b), "the queue is in order");
        assert!(places.last().is_none_or(|&last| last <= self.backlog.after), "the backlog is behind the queue");
        assert!(self.resend.iter().all(|resend| resend.entry.place.is_on_disk()));
    }
}

impl Entry {
    /// An entry of a queue on disk.
    pub(crate) fn loaded(sequence: Sequence, entry: QueueEntry, message: Arc<Message>) -> Self {
        Self {
            message,
            place: Place { sequence, message: entry.message },
            identifiers: entry.subscription_identifiers,
            share: entry.share,
            qos: entry.qos,
            retain: entry.retain,
        }
    }
}
