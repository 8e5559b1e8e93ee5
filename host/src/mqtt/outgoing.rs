//! What a connection has still to write: bytes in order, with gates.
//!
//! A gate stands where the first packet begins that rests on a change not yet durable; nothing behind it leaves before
//! the store has got that far, so packets keep their order and nothing is promised too soon. The buffer also knows how
//! much of the [weight](vespiary_core::Message::weight) of its publishes has gone, which the core counts, how many
//! acknowledgements wait behind gates, and which topic aliases the client will know.
//!
//! Large frames for many connections are not copied but linked: shared bytes that stand between the connection's own.
//! All links stand before the first gate.

mod links;

use std::collections::VecDeque;
use std::io::IoSlice;
use std::num::NonZeroU16;
use std::rc::Rc;

use vespiary_core::ChangeNumber;

use super::aliases::Aliases;
use links::Links;

/// Written bytes in front of the buffer are moved out of the way once they are this many and half of it.
const COMPACT_BYTES: usize = 64 << 10;

/// Slices that one write takes at most.
pub(super) const WRITE_SLICES: usize = 64;

/// Bytes to write.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    /// Encoded packets, as far as they are not linked; those before `written` have left.
    bytes: Vec<u8>,
    /// What is linked; `None` until something is.
    links: Option<Box<Links>>,
    /// How many of `bytes` have left.
    written: usize,
    /// Position of `bytes[0]` in all of `bytes` that was ever written here.
    base: u64,
    /// Gates, in the order of their positions and of their change numbers.
    gates: VecDeque<Gate>,
    /// Weight of the publishes among the bytes that have not left.
    weight: usize,
    /// Topic aliases that these bytes and those before them set; `None` until one is.
    aliases: Option<Box<Aliases>>,
}

/// Nothing from `position` on leaves before `after` is durable.
#[derive(Debug, Clone, Copy)]
struct Gate {
    /// The change.
    after: ChangeNumber,
    /// The position, counted like `Outgoing::base`.
    position: u64,
    /// Acknowledgements between this gate and the next that end an exchange of the client.
    acknowledgements: u16,
    /// Whether CONNACK is between this gate and the next.
    connack: bool,
}

impl Outgoing {
    /// Takes over an empty buffer, so that a connection with nothing to write needs none of its own.
    pub(super) fn lend(&mut self, buffer: impl FnOnce() -> Option<Vec<u8>>) {
        if self.bytes.capacity() == 0
            && let Some(buffer) = buffer()
        {
            debug_assert!(buffer.is_empty());
            self.bytes = buffer;
        }
    }

    /// Gives the buffer back once all has left.
    pub(super) fn take_empty(&mut self) -> Option<Vec<u8>> {
        (self.is_empty() && self.bytes.capacity() > 0).then(|| std::mem::take(&mut self.bytes))
    }

    /// Where the next packet is to be appended. It rests on the change `after`, of which `durable` are durable.
    pub(super) fn stage(&mut self, after: ChangeNumber, durable: ChangeNumber) -> &mut Vec<u8> {
        if after > durable && self.gates.back().is_none_or(|last| last.after < after) {
            let position = self.base + self.bytes.len() as u64;
            self.gates.push_back(Gate { after, position, acknowledgements: 0, connack: false });
        }
        &mut self.bytes
    }

    /// Where the next publish is to be appended, like [`Outgoing::stage`], with the topic aliases.
    pub(super) fn stage_aliased(
        &mut self,
        after: ChangeNumber,
        durable: ChangeNumber,
        maximum: NonZeroU16,
    ) -> (&mut Vec<u8>, &mut Aliases) {
        self.stage(after, durable);
        (&mut self.bytes, self.aliases.get_or_insert_with(|| Box::new(Aliases::new(maximum))))
    }

    /// Whether a frame may be [linked](Self::link) now.
    pub(super) fn takes_links(&self) -> bool {
        self.gates.is_empty()
    }

    /// Appends the part of a shared frame that begins at `start`, without copying it. No gate may be closed.
    pub(super) fn link(&mut self, frame: &Rc<[u8]>, start: usize) {
        debug_assert!(self.takes_links(), "links stand before all gates");
        self.links.get_or_insert_default().push(self.bytes.len(), frame.clone(), start);
    }

    /// The packet staged last ends an exchange of the client. Says whether it may leave; if not, it is counted at its
    /// gate.
    pub(super) fn note_acknowledgement(&mut self) -> bool {
        match self.gates.back_mut() {
            None => true,
            Some(gate) => {
                gate.acknowledgements = gate.acknowledgements.saturating_add(1);
                false
            }
        }
    }

    /// The packet staged last is a CONNACK that accepts.
    pub(super) fn note_connack(&mut self) {
        if let Some(gate) = self.gates.back_mut() {
            gate.connack = true;
        }
    }

    /// Adds to the weight of the publishes that are to leave.
    pub(super) fn add_weight(&mut self, weight: usize) {
        self.weight += weight;
    }

    /// Opens the gates up to `durable`; gives the number of acknowledgements that they held.
    pub(super) fn release(&mut self, durable: ChangeNumber) -> u16 {
        let mut acknowledgements = 0;
        while let Some(gate) = self.gates.pop_front_if(|gate| gate.after <= durable) {
            acknowledgements = gate.acknowledgements.saturating_add(acknowledgements);
        }
        acknowledgements
    }

    /// Drops what stands behind the first gate: nobody waits until it is durable. The client may not learn of topic aliases
    /// that were set there, so all are set anew. Says whether CONNACK stood there.
    pub(super) fn drop_held(&mut self) -> bool {
        let connack = self.gates.iter().any(|gate| gate.connack);
        if let Some(gate) = self.gates.front() {
            self.bytes.truncate((gate.position - self.base) as usize);
            self.gates.clear();
            self.aliases = None;
            self.forget_if_all_has_left();
        }
        connack
    }

    /// Drops everything.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Whether a gate is closed.
    pub(super) fn is_held(&self) -> bool {
        !self.gates.is_empty()
    }

    /// Whether everything has left.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.links.as_ref().is_none_or(|links| links.is_empty())
    }

    /// Bytes that have left since the connection was made.
    pub(super) fn left(&self) -> u64 {
        self.base + self.written as u64 + self.links.as_ref().map_or(0, |links| links.left())
    }

    /// Bytes that have not left.
    pub(super) fn unwritten(&self) -> usize {
        self.bytes.len() - self.written + self.links.as_ref().map_or(0, |links| links.waiting())
    }

    /// Whether something may be written now.
    pub(super) fn has_writable(&self) -> bool {
        self.written < self.open_end() || self.links.as_ref().is_some_and(|links| !links.is_empty())
    }

    /// Where the first gate stands in `bytes`, or their end.
    fn open_end(&self) -> usize {
        self.gates.front().map_or(self.bytes.len(), |gate| (gate.position - self.base) as usize)
    }

    /// What may be written now, if nothing of it is linked.
    pub(super) fn writable_alone(&self) -> Option<&[u8]> {
        let has_links = self.links.as_ref().is_some_and(|links| !links.is_empty());
        (!has_links).then(|| &self.bytes[self.written..self.open_end()])
    }

    /// What may be written now, in order, as far as `slices` has room; gives how many of them are filled.
    pub(super) fn writable<'a>(&'a self, slices: &mut [IoSlice<'a>; WRITE_SLICES]) -> usize {
        let (mut filled, mut at) = (0, self.written);
        let mut fill = |part: &'a [u8]| {
            let has_room = filled < WRITE_SLICES;
            if has_room && !part.is_empty() {
                slices[filled] = IoSlice::new(part);
                filled += 1;
            }
            has_room
        };
        for (link_at, part) in self.links.iter().flat_map(|links| links.iter()) {
            if !(fill(&self.bytes[at..link_at]) && fill(part)) {
                return filled;
            }
            at = link_at;
        }
        fill(&self.bytes[at..self.open_end()]);
        filled
    }

    /// Notes that `count` bytes have left, and gives the weight of the publishes that went with them. That is a share of
    /// the whole, exact once all has left.
    pub(super) fn advance(&mut self, count: usize) -> usize {
        let unwritten = self.unwritten();
        debug_assert!(count <= unwritten);
        let share = if count == unwritten {
            self.weight
        } else {
            (self.weight as u128 * count as u128 / unwritten as u128) as usize
        };
        self.weight -= share;
        self.advance_parts(count);
        self.forget_if_all_has_left();
        if self.written >= COMPACT_BYTES && self.written >= self.bytes.len() / 2 {
            self.base += self.written as u64;
            self.bytes.drain(..self.written);
            if let Some(links) = &mut self.links {
                links.move_up(self.written);
            }
            self.written = 0;
        }
        share
    }

    fn advance_parts(&mut self, mut count: usize) {
        while let Some(links) = &mut self.links
            && let Some(at) = links.first_at()
            && count > 0
        {
            let own = count.min(at - self.written);
            self.written += own;
            count -= own;
            count -= links.advance(count);
        }
        self.written += count;
    }

    fn forget_if_all_has_left(&mut self) {
        if self.written == self.bytes.len() && self.links.as_ref().is_none_or(|links| links.is_empty()) {
            self.base += self.written as u64;
            self.written = 0;
            self.bytes.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(outgoing: &mut Outgoing, after: u64, durable: u64, packet: &[u8]) {
        outgoing.stage(ChangeNumber(after), ChangeNumber(durable)).extend_from_slice(packet);
    }

    /// What may be written now.
    fn written(outgoing: &Outgoing) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); WRITE_SLICES];
        let count = outgoing.writable(&mut slices);
        slices[..count].iter().flat_map(|slice| slice.iter().copied()).collect()
    }

    #[test]
    fn linked_frames_leave_in_their_place_whatever_the_socket_takes() {
        let mut rng = fastrand::Rng::with_seed(7);
        for _ in 0..200 {
            let (mut outgoing, mut expected, mut left) = (Outgoing::default(), Vec::<u8>::new(), Vec::<u8>::new());
            let mut given = 0;
            for step in 0..100_u8 {
                match rng.u8(..) {
                    0..100 => {
                        let own = vec![step; rng.usize(0..2_000)];
                        stage(&mut outgoing, 0, 0, &own);
                        expected.extend(own);
                        outgoing.add_weight(1);
                    }
                    100..180 => {
                        let frame: Rc<[u8]> = (0..rng.usize(1..3_000)).map(|byte| byte as u8).collect();
                        let start = rng.usize(0..frame.len());
                        outgoing.link(&frame, start);
                        expected.extend(&frame[start..]);
                        outgoing.add_weight(1);
                    }
                    _ => {
                        let taken = written(&outgoing);
                        let count = rng.usize(0..=taken.len());
                        left.extend(&taken[..count]);
                        given += outgoing.advance(count);
                    }
                }
                assert_eq!(outgoing.unwritten(), expected.len() - left.len());
                assert_eq!(outgoing.left(), left.len() as u64);
                assert_eq!(outgoing.has_writable(), outgoing.unwritten() > 0);
            }
            let gate_at = expected.len();
            stage(&mut outgoing, 1, 0, b"held");
            assert!(!outgoing.takes_links());
            while outgoing.has_writable() {
                let taken = written(&outgoing);
                left.extend(&taken);
                given += outgoing.advance(taken.len());
            }
            assert!(left == expected && left.len() == gate_at);
            outgoing.release(ChangeNumber(1));
            assert_eq!(written(&outgoing), b"held");
            given += outgoing.advance(4);
            assert!(outgoing.is_empty() && given <= 100);
        }
    }

    #[test]
    fn packets_behind_a_held_one_wait_in_order() {
        let mut outgoing = Outgoing::default();
        stage(&mut outgoing, 0, 4, b"a");
        stage(&mut outgoing, 4, 4, b"b");
        stage(&mut outgoing, 6, 4, b"c");
        stage(&mut outgoing, 0, 4, b"d");
        stage(&mut outgoing, 5, 4, b"e");
        stage(&mut outgoing, 9, 4, b"f");
        assert_eq!(written(&outgoing), b"ab");
        outgoing.advance(2);
        outgoing.release(ChangeNumber(5));
        assert_eq!(written(&outgoing), b"");
        outgoing.release(ChangeNumber(8));
        assert_eq!(written(&outgoing), b"cde");
        outgoing.advance(1);
        stage(&mut outgoing, 0, 8, b"g");
        assert_eq!(written(&outgoing), b"de");
        outgoing.release(ChangeNumber(9));
        assert_eq!(written(&outgoing), b"defg");
        outgoing.advance(4);
        assert!(outgoing.is_empty() && !outgoing.is_held());
        stage(&mut outgoing, 10, 9, b"h");
        assert_eq!(written(&outgoing), b"");
    }

    #[test]
    fn what_can_never_be_durable_is_dropped_and_the_rest_still_leaves() {
        let mut outgoing = Outgoing::default();
        stage(&mut outgoing, 0, 0, b"ab");
        stage(&mut outgoing, 1, 0, b"cd");
        outgoing.advance(1);
        outgoing.drop_held();
        stage(&mut outgoing, 0, 0, b"x");
        assert_eq!(written(&outgoing), b"bx");
        outgoing.advance(2);
        stage(&mut outgoing, 2, 0, b"ef");
        outgoing.drop_held();
        assert!(outgoing.is_empty());
    }

    #[test]
    fn all_that_had_to_leave_has_left_once_the_rest_is_dropped() {
        let mut outgoing = Outgoing::default();
        stage(&mut outgoing, 1, 0, b"ab");
        outgoing.drop_held();
        assert!(outgoing.is_empty());
        stage(&mut outgoing, 0, 0, b"cd");
        stage(&mut outgoing, 1, 0, b"ef");
        outgoing.advance(2);
        assert!(!outgoing.is_empty());
        outgoing.drop_held();
        assert!(outgoing.is_empty());
    }

    #[test]
    fn a_connack_is_known_to_be_dropped_until_its_gate_has_opened() {
        for (connack_after, durable, expected) in [(3, 2, true), (3, 3, false), (0, 2, false)] {
            let mut outgoing = Outgoing::default();
            stage(&mut outgoing, 0, 2, b"auth");
            outgoing.advance(4);
            stage(&mut outgoing, connack_after, 2, b"connack");
            outgoing.note_connack();
            outgoing.release(ChangeNumber(durable));
            stage(&mut outgoing, 4, durable, b"puback");
            assert_eq!(outgoing.drop_held(), expected, "{connack_after} {durable}");
        }
    }

    #[test]
    fn acknowledgements_count_from_when_their_gate_opens() {
        let mut outgoing = Outgoing::default();
        let mut acknowledge = |after, durable| {
            stage(&mut outgoing, after, durable, b"a");
            outgoing.note_acknowledgement()
        };
        // The fourth rests on nothing, and stands behind the third.
        assert_eq!(
            [(1, 1), (2, 1), (3, 1), (0, 1)].map(|(after, durable)| acknowledge(after, durable)),
            [true, false, false, false]
        );
        assert_eq!(outgoing.release(ChangeNumber(1)), 0);
        assert_eq!(outgoing.release(ChangeNumber(2)), 1);
        assert_eq!(outgoing.release(ChangeNumber(9)), 2);
        stage(&mut outgoing, 9, 9, b"a");
        assert!(outgoing.note_acknowledgement());
        assert_eq!(outgoing.release(ChangeNumber(9)), 0);
    }

    #[test]
    fn aliases_that_were_never_sent_are_forgotten() {
        let topic = vespiary_core::Topic::parse("topic").unwrap();
        let mut outgoing = Outgoing::default();
        let mut publish = |after, durable| {
            let (_, aliases) = outgoing.stage_aliased(ChangeNumber(after), ChangeNumber(durable), NonZeroU16::MIN);
            let known = aliases.find(&topic).is_some();
            if !known {
                aliases.assign(&topic);
            }
            known
        };
        assert_eq!([publish(0, 0), publish(0, 0), publish(1, 0)], [false, true, true]);
        outgoing.drop_held();
        let (_, aliases) = outgoing.stage_aliased(ChangeNumber(0), ChangeNumber(0), NonZeroU16::MIN);
        assert_eq!(aliases.find(&topic), None);
    }

    #[test]
    fn the_whole_weight_is_given_back_and_no_more() {
        let mut outgoing = Outgoing::default();
        let mut given = 0;
        for round in 1..200usize {
            stage(&mut outgoing, 0, 0, &vec![0; round * 37]);
            outgoing.add_weight(round * 11);
            given += outgoing.advance(outgoing.unwritten() * 2 / 3);
        }
        given += outgoing.advance(outgoing.unwritten());
        assert_eq!(given, (1..200).map(|round| round * 11).sum::<usize>());
    }

    #[test]
    fn positions_of_gates_survive_compaction() {
        let mut outgoing = Outgoing::default();
        stage(&mut outgoing, 0, 0, &vec![1; COMPACT_BYTES + 10]);
        stage(&mut outgoing, 1, 0, &[2; 20]);
        outgoing.advance(COMPACT_BYTES + 5);
        assert_eq!(written(&outgoing), [1; 5]);
        outgoing.release(ChangeNumber(1));
        assert_eq!(written(&outgoing).len(), 25);
    }
}
