//! What is under way to a client: the in-flight window, what is to be sent again after a reconnect, and the queue.
//!
//! Packet identifiers are given out in a cycle, so the window is a ring in which they ascend: the oldest is found at
//! once, any other by binary search. Entries that leave from the middle stay as gaps until they are half of the ring.
//! An entry that is still there when the identifiers have come round to it moves to `stragglers`.
//!
//! Invariants: the ring's offsets from its first identifier ascend strictly; its first entry is no gap; nothing is sent
//! from the queue while something is still to be sent again.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::event::{PacketId, Sequence};
use crate::key::StoredKey;
use crate::message::{Message, Qos};

/// A message on its way to one session.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// The message.
    pub(crate) message: Arc<Message>,
    /// Its place in the session's order; 0 where nothing of it is on disk.
    pub(crate) sequence: Sequence,
    /// The durable message; `None` where nothing of it is on disk.
    pub(crate) stored: Option<StoredKey>,
    /// Subscription Identifiers that the delivery carries.
    pub(crate) identifiers: Option<Arc<[u32]>>,
    /// QoS of the delivery.
    pub(crate) qos: Qos,
    /// RETAIN flag of the delivery.
    pub(crate) retain: bool,
}

/// An entry sent under a packet identifier.
#[derive(Debug)]
pub(crate) struct InFlight {
    /// The identifier.
    pub(crate) packet_id: PacketId,
    /// Whether the client has received it (PUBREC), so that only PUBREL is sent from now on.
    pub(crate) released: bool,
    /// Whether it was sent as PUBLISH on this connection, and so counts against the client's Receive Maximum.
    pub(crate) counted: bool,
    /// The message.
    pub(crate) entry: Entry,
}

/// A place in the ring.
#[derive(Debug)]
enum Slot {
    /// Under way.
    Taken(InFlight),
    /// Done; the identifier keeps the order searchable.
    Gap(PacketId),
}

/// Everything on its way to one client.
#[derive(Debug, Default)]
pub(crate) struct Outbound {
    /// In flight, by ascending identifier (in the cycle that begins with the first).
    ring: VecDeque<Slot>,
    /// Gaps in the ring.
    gaps: usize,
    /// In flight for so long that the identifiers came round to them.
    stragglers: BTreeMap<PacketId, InFlight>,
    /// In flight before the reconnect, and not yet sent again.
    resend: VecDeque<InFlight>,
    /// The identifier that was given out last; 0 before the first.
    last_packet_id: u16,
    /// Entries in flight that count against the client's Receive Maximum.
    unacknowledged: usize,
    /// Beyond the window, in order.
    queue: VecDeque<Entry>,
    /// Weight of the queue.
    queued_bytes: usize,
}

impl Outbound {
    /// Whether nothing waits to be sent, so that a new message may go at once.
    pub(crate) fn is_drained(&self) -> bool {
        self.queue.is_empty() && self.resend.is_empty()
    }

    /// Entries in flight, sent on this connection or before it.
    pub(crate) fn in_flight(&self) -> usize {
        self.ring.len() - self.gaps + self.stragglers.len() + self.resend.len()
    }

    /// Entries sent on this connection that the client still has to complete.
    pub(crate) fn unacknowledged(&self) -> usize {
        self.unacknowledged
    }

    /// Entries in the queue.
    pub(crate) fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Weight of the queue.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// Gives out a packet identifier that is not in use. At least one must be free.
    pub(crate) fn next_packet_id(&mut self) -> PacketId {
        debug_assert!(self.resend.is_empty(), "identifiers are given out when what was in flight is sent again");
        debug_assert!(self.in_flight() < usize::from(u16::MAX));
        loop {
            let candidate = PacketId::new(self.last_packet_id.wrapping_add(1)).unwrap_or(PacketId::MIN);
            self.last_packet_id = candidate.get();
            if self.ring.front().is_some_and(|front| front.packet_id() == candidate) {
                self.front_to_stragglers();
            }
            if self.stragglers.is_empty() || !self.stragglers.contains_key(&candidate) {
                return candidate;
            }
        }
    }

    /// Puts an entry in flight. Its identifier is from [`Self::next_packet_id`] or was in flight before.
    pub(crate) fn push_in_flight(&mut self, entry: InFlight) {
        while let (Some(front), Some(back)) = (self.ring.front(), self.ring.back()) {
            let first = front.packet_id();
            if distance(first, entry.packet_id) > distance(first, back.packet_id()) {
                break;
            }
            self.front_to_stragglers();
        }
        self.unacknowledged += usize::from(entry.counted);
        self.ring.push_back(Slot::Taken(entry));
    }

    fn front_to_stragglers(&mut self) {
        if let Some(Slot::Taken(entry)) = self.ring.pop_front() {
            self.stragglers.insert(entry.packet_id, entry);
        }
        self.trim();
    }

    /// The entry in flight under an identifier.
    pub(crate) fn find_in_flight(&mut self, packet_id: PacketId) -> Option<&mut InFlight> {
        match self.position(packet_id) {
            Some(position) => match &mut self.ring[position] {
                Slot::Taken(entry) => Some(entry),
                Slot::Gap(_) => None,
            },
            None => self.stragglers.get_mut(&packet_id),
        }
    }

    /// Takes the entry in flight under an identifier out, if it is one that may leave now.
    pub(crate) fn remove_in_flight(
        &mut self,
        packet_id: PacketId,
        may_leave: impl Fn(&InFlight) -> bool,
    ) -> Option<InFlight> {
        let Some(position) = self.position(packet_id) else {
            self.stragglers.get(&packet_id).filter(|entry| may_leave(entry))?;
            let entry = self.stragglers.remove(&packet_id)?;
            self.unacknowledged -= usize::from(entry.counted);
            return Some(entry);
        };
        match &self.ring[position] {
            Slot::Taken(entry) if may_leave(entry) => {}
            Slot::Taken(_) | Slot::Gap(_) => return None,
        }
        let slot = if position == 0 {
            self.ring.pop_front()
        } else {
            self.gaps += 1;
            Some(std::mem::replace(&mut self.ring[position], Slot::Gap(packet_id)))
        };
        let entry = slot.and_then(Slot::into_entry)?;
        self.unacknowledged -= usize::from(entry.counted);
        self.trim();
        Some(entry)
    }

    /// Where the ring holds an identifier, as an entry or as a gap.
    fn position(&self, packet_id: PacketId) -> Option<usize> {
        let first = self.ring.front()?.packet_id();
        if first == packet_id {
            return Some(0);
        }
        let wanted = distance(first, packet_id);
        self.ring.binary_search_by_key(&wanted, |slot| distance(first, slot.packet_id())).ok()
    }

    /// Restores that the first slot is no gap, and that gaps are fewer than entries.
    fn trim(&mut self) {
        while let Some(Slot::Gap(_)) = self.ring.front() {
            self.ring.pop_front();
            self.gaps -= 1;
        }
        if self.gaps > 32 && self.gaps * 2 > self.ring.len() {
            self.ring.retain(|slot| matches!(slot, Slot::Taken(_)));
            self.gaps = 0;
        }
        if self.ring.is_empty() && self.ring.capacity() > 1024 {
            self.ring.shrink_to(64);
        }
    }

    /// Marks everything in flight as still to be sent again, in the original order.
    pub(crate) fn begin_resend(&mut self) {
        if self.ring.is_empty() && self.stragglers.is_empty() {
            return;
        }
        let mut entries: Vec<InFlight> = std::mem::take(&mut self.stragglers).into_values().collect();
        entries.extend(std::mem::take(&mut self.ring).into_iter().filter_map(Slot::into_entry));
        entries.extend(std::mem::take(&mut self.resend));
        entries.sort_by_key(|entry| entry.entry.sequence);
        for entry in &mut entries {
            entry.counted = false;
        }
        (self.gaps, self.unacknowledged) = (0, 0);
        self.resend = entries.into();
    }

    /// The next entry to be sent again.
    pub(crate) fn next_resend(&self) -> Option<&InFlight> {
        self.resend.front()
    }

    /// Takes the next entry to be sent again out.
    pub(crate) fn pop_resend(&mut self) -> Option<InFlight> {
        self.resend.pop_front()
    }

    /// The next entry of the queue.
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

    /// Appends to the queue.
    pub(crate) fn push_queued(&mut self, entry: Entry) {
        self.queued_bytes += entry.message.weight();
        self.queue.push_back(entry);
    }

    /// Forgets the QoS 0 messages in the queue: they do not outlive a connection.
    pub(crate) fn drop_qos0(&mut self) {
        let dropped = &mut self.queued_bytes;
        self.queue.retain(|entry| {
            let kept = entry.qos != Qos::AtMostOnce;
            if !kept {
                *dropped -= entry.message.weight();
            }
            kept
        });
    }

    /// Everything in flight, in no particular order.
    pub(crate) fn iter_in_flight(&self) -> impl Iterator<Item = &InFlight> {
        let ring = self.ring.iter().filter_map(|slot| match slot {
            Slot::Taken(entry) => Some(entry),
            Slot::Gap(_) => None,
        });
        self.stragglers.values().chain(ring).chain(&self.resend)
    }

    /// The queue, in order.
    pub(crate) fn iter_queued(&self) -> impl Iterator<Item = &Entry> {
        self.queue.iter()
    }

    /// Everything, to change what is kept of it on disk.
    pub(crate) fn entries_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        let ring = self.ring.iter_mut().filter_map(|slot| match slot {
            Slot::Taken(entry) => Some(entry),
            Slot::Gap(_) => None,
        });
        let in_flight = self.stragglers.values_mut().chain(ring).chain(&mut self.resend);
        in_flight.map(|in_flight| &mut in_flight.entry).chain(&mut self.queue)
    }

    /// Takes over, when the broker starts, what was in flight; in order.
    pub(crate) fn restore_in_flight(&mut self, entry: InFlight) {
        self.last_packet_id = entry.packet_id.get();
        self.resend.push_back(entry);
    }

    /// Panics where an invariant does not hold.
    pub(crate) fn check_invariants(&self) {
        let gaps = self.ring.iter().filter(|slot| matches!(slot, Slot::Gap(_))).count();
        assert_eq!(gaps, self.gaps);
        assert!(!matches!(self.ring.front(), Some(Slot::Gap(_))));
        if let Some(front) = self.ring.front() {
            let distances: Vec<u16> =
                self.ring.iter().map(|slot| distance(front.packet_id(), slot.packet_id())).collect();
            assert!(distances.is_sorted_by(|a, b| a < b), "the ring ascends: {distances:?}");
        }
        let mut identifiers: Vec<PacketId> = self.iter_in_flight().map(|entry| entry.packet_id).collect();
        identifiers.sort_unstable();
        assert!(identifiers.is_sorted_by(|a, b| a < b), "each identifier is in flight once");
        let counted = self.iter_in_flight().filter(|entry| entry.counted).count();
        assert_eq!(counted, self.unacknowledged);
        assert!(self.iter_in_flight().all(|entry| entry.entry.qos != Qos::AtMostOnce));
        assert_eq!(self.queue.iter().map(|entry| entry.message.weight()).sum::<usize>(), self.queued_bytes);
    }
}

impl Slot {
    fn packet_id(&self) -> PacketId {
        match self {
            Self::Taken(entry) => entry.packet_id,
            Self::Gap(packet_id) => *packet_id,
        }
    }

    fn into_entry(self) -> Option<InFlight> {
        match self {
            Self::Taken(entry) => Some(entry),
            Self::Gap(_) => None,
        }
    }
}

/// Steps from one identifier to another in the cycle 1, 2, .., 65535, 1, ..
fn distance(from: PacketId, to: PacketId) -> u16 {
    if to >= from { to.get() - from.get() } else { u16::MAX - (from.get() - to.get()) }
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;
    use crate::message::Timestamp;
    use crate::topic::Topic;

    fn in_flight(packet_id: PacketId, sequence: u64) -> InFlight {
        let message = Message {
            topic: Topic::parse("t").expect("a topic"),
            payload: Box::from([]),
            qos: Qos::AtLeastOnce,
            retain: false,
            properties: None,
            expires_at: None,
            received_at: Timestamp(0),
            publisher: "p".into(),
        };
        let (message, qos) = (Arc::new(message), Qos::AtLeastOnce);
        let sequence = Sequence(sequence);
        let entry = Entry { message, sequence, stored: None, identifiers: None, qos, retain: false };
        InFlight { packet_id, released: false, counted: true, entry }
    }

    #[test]
    fn the_window_finds_each_identifier_in_whatever_order_it_is_acknowledged() {
        for (seed, window, in_order) in [(1, 1, 0), (2, 10, 128), (3, 300, 250), (4, 300, 0), (5, 60_000, 200)] {
            let mut rng = Rng::with_seed(seed);
            let mut outbound = Outbound::default();
            let mut expected: VecDeque<(PacketId, u64)> = VecDeque::new();
            for sequence in 0..70_000 {
                while expected.len() >= window {
                    let place = if rng.u8(..) < in_order { 0 } else { rng.usize(0..expected.len()) };
                    let (packet_id, sequence) = expected.swap_remove_back(place).expect("it is there");
                    let found = outbound.remove_in_flight(packet_id, |_| true).map(|entry| entry.entry.sequence);
                    assert_eq!(found, Some(Sequence(sequence)), "seed {seed}");
                    assert!(outbound.find_in_flight(packet_id).is_none());
                }
                let packet_id = outbound.next_packet_id();
                outbound.push_in_flight(in_flight(packet_id, sequence));
                expected.push_back((packet_id, sequence));
                assert_eq!(outbound.in_flight(), expected.len());
                if sequence % 7_011 == 0 {
                    outbound.check_invariants();
                }
            }
            outbound.begin_resend();
            let order: Vec<Sequence> = outbound.resend.iter().map(|entry| entry.entry.sequence).collect();
            assert!(order.is_sorted() && order.len() == expected.len());
            while let Some(entry) = outbound.pop_resend() {
                outbound.push_in_flight(entry);
            }
            outbound.check_invariants();
            assert!(expected.iter().all(|&(packet_id, _)| outbound.remove_in_flight(packet_id, |_| true).is_some()));
        }
    }

    #[test]
    fn an_entry_that_is_never_acknowledged_does_not_stop_the_identifiers() {
        let mut outbound = Outbound::default();
        for sequence in 0..3 {
            let packet_id = outbound.next_packet_id();
            outbound.push_in_flight(in_flight(packet_id, sequence));
        }
        for sequence in 3..150_000 {
            let packet_id = outbound.next_packet_id();
            assert!(packet_id.get() > 3);
            outbound.push_in_flight(in_flight(packet_id, sequence));
            assert!(outbound.remove_in_flight(packet_id, |_| true).is_some());
            assert!(outbound.ring.len() < 100, "gaps are swept");
        }
        outbound.check_invariants();
        assert_eq!(outbound.in_flight(), 3);
    }
}
