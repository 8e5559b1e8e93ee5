//! The in-flight window: what was sent to a client on this connection and is not acknowledged.
//!
//! Packet identifiers are given out in a cycle, so the window is a ring in which they ascend: the oldest is found at
//! once, any other by binary search. Entries that leave from the middle stay as gaps until they are half of the ring.
//! An entry that is still there when the identifiers have come round to it moves to `stragglers`.
//!
//! An entry knows where its message is on disk, not the message itself: what is to be sent again after a reconnect is
//! read back, and a session that is not durable has no reconnect.
//!
//! Invariants: the ring's offsets from its first identifier ascend strictly; its first entry is no gap.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::event::{PacketId, Sequence, ShareNumber};
use crate::message::{Message, MessageId, Qos};

/// Where an entry of a queue is on disk; zeros where it is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Place {
    /// Its place in the session's order.
    pub(crate) sequence: Sequence,
    /// Its message.
    pub(crate) message: MessageId,
}

/// A message sent under a packet identifier.
#[derive(Debug)]
pub(crate) struct InFlight {
    /// The identifier.
    pub(crate) packet_id: PacketId,
    /// The shared subscription it came through, if it did.
    pub(crate) share: Option<ShareNumber>,
    /// QoS of the delivery.
    pub(crate) qos: Qos,
    /// Whether the client has received it (PUBREC), so that only PUBREL is sent from now on.
    pub(crate) released: bool,
    /// Whether it was sent as PUBLISH on this connection, and so counts against the client's Receive Maximum.
    pub(crate) counted: bool,
    /// Weight of its message.
    pub(crate) weight: u32,
    /// Where it is on disk.
    pub(crate) place: Place,
    /// The message, where another member of the group gets it if this client leaves and the disk does not have it.
    pub(crate) content: Option<Arc<Message>>,
}

/// A place in the ring.
#[derive(Debug)]
enum Slot {
    /// Under way.
    Taken(InFlight),
    /// Done; the identifier keeps the order searchable.
    Gap(PacketId),
}

/// What is under way to one client.
#[derive(Debug, Default)]
pub(crate) struct Window {
    /// In flight, by ascending identifier (in the cycle that begins with the first).
    ring: VecDeque<Slot>,
    /// Gaps in the ring.
    gaps: usize,
    /// In flight for so long that the identifiers came round to them.
    stragglers: BTreeMap<PacketId, InFlight>,
    /// The identifier that was given out last; 0 before the first.
    last_packet_id: u16,
    /// Whether one was given out since the broker started.
    has_given_out: bool,
    /// Entries that count against the client's Receive Maximum.
    unacknowledged: usize,
}

impl Place {
    /// Whether it is on disk.
    pub(crate) fn is_on_disk(self) -> bool {
        self.sequence != Sequence(0)
    }
}

impl Window {
    /// Entries in flight.
    pub(crate) fn len(&self) -> usize {
        self.ring.len() - self.gaps + self.stragglers.len()
    }

    /// Entries sent on this connection that the client still has to complete.
    pub(crate) fn unacknowledged(&self) -> usize {
        self.unacknowledged
    }

    /// An identifier is in use that may have been given out before the broker started; they come in order.
    pub(crate) fn resume_after(&mut self, packet_id: PacketId) {
        if !self.has_given_out {
            self.last_packet_id = packet_id.get();
        }
    }

    /// Gives out a packet identifier that is not in use. At least one must be free.
    pub(crate) fn next_packet_id(&mut self) -> PacketId {
        debug_assert!(self.len() < usize::from(u16::MAX));
        self.has_given_out = true;
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
    pub(crate) fn push(&mut self, entry: InFlight) {
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
    pub(crate) fn find(&mut self, packet_id: PacketId) -> Option<&mut InFlight> {
        match self.position(packet_id) {
            Some(position) => match &mut self.ring[position] {
                Slot::Taken(entry) => Some(entry),
                Slot::Gap(_) => None,
            },
            None => self.stragglers.get_mut(&packet_id),
        }
    }

    /// Takes the entry in flight under an identifier out, if it is one that may leave now.
    pub(crate) fn remove(&mut self, packet_id: PacketId, may_leave: impl Fn(&InFlight) -> bool) -> Option<InFlight> {
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

    /// Everything in flight, in no particular order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &InFlight> {
        let ring = self.ring.iter().filter_map(|slot| match slot {
            Slot::Taken(entry) => Some(entry),
            Slot::Gap(_) => None,
        });
        self.stragglers.values().chain(ring)
    }

    /// Forgets everything in flight, and gives it in the order in which it was sent.
    pub(crate) fn take_all(&mut self) -> impl Iterator<Item = InFlight> {
        (self.gaps, self.unacknowledged) = (0, 0);
        let ring = std::mem::take(&mut self.ring).into_iter().filter_map(Slot::into_entry);
        std::mem::take(&mut self.stragglers).into_values().chain(ring)
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
        let mut identifiers: Vec<PacketId> = self.iter().map(|entry| entry.packet_id).collect();
        identifiers.sort_unstable();
        assert!(identifiers.is_sorted_by(|a, b| a < b), "each identifier is in flight once");
        assert_eq!(self.iter().filter(|entry| entry.counted).count(), self.unacknowledged);
        assert!(self.iter().all(|entry| entry.qos != Qos::AtMostOnce));
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

    fn in_flight(packet_id: PacketId, sequence: u64) -> InFlight {
        let place = Place { sequence: Sequence(sequence), message: MessageId(0) };
        let (share, content, qos) = (None, None, Qos::AtLeastOnce);
        InFlight { packet_id, share, qos, released: false, counted: true, weight: 0, place, content }
    }

    #[test]
    fn the_window_finds_each_identifier_in_whatever_order_it_is_acknowledged() {
        for (seed, size, in_order) in [(1, 1, 0), (2, 10, 128), (3, 300, 250), (4, 300, 0), (5, 60_000, 200)] {
            let mut rng = Rng::with_seed(seed);
            let mut window = Window::default();
            let mut expected: VecDeque<(PacketId, u64)> = VecDeque::new();
            for sequence in 0..70_000 {
                while expected.len() >= size {
                    let place = if rng.u8(..) < in_order { 0 } else { rng.usize(0..expected.len()) };
                    let (packet_id, sequence) = expected.swap_remove_back(place).expect("it is there");
                    let found = window.remove(packet_id, |_| true).map(|entry| entry.place.sequence);
                    assert_eq!(found, Some(Sequence(sequence)), "seed {seed}");
                    assert!(window.find(packet_id).is_none());
                }
                let packet_id = window.next_packet_id();
                window.push(in_flight(packet_id, sequence));
                expected.push_back((packet_id, sequence));
                assert_eq!(window.len(), expected.len());
                if sequence % 7_011 == 0 {
                    window.check_invariants();
                }
            }
            window.check_invariants();
            assert!(expected.iter().all(|&(packet_id, _)| window.remove(packet_id, |_| true).is_some()));
        }
    }

    #[test]
    fn an_entry_that_is_never_acknowledged_does_not_stop_the_identifiers() {
        let mut window = Window::default();
        for sequence in 0..3 {
            let packet_id = window.next_packet_id();
            window.push(in_flight(packet_id, sequence));
        }
        for sequence in 3..150_000 {
            let packet_id = window.next_packet_id();
            assert!(packet_id.get() > 3);
            window.push(in_flight(packet_id, sequence));
            assert!(window.remove(packet_id, |_| true).is_some());
            assert!(window.ring.len() < 100, "gaps are swept");
        }
        window.check_invariants();
        assert_eq!(window.len(), 3);
    }
}
