//! What a connection has still to write: bytes in order, with gates.
//!
//! A gate stands where the first packet begins that rests on a change not yet durable; nothing behind it leaves before
//! the store has got that far, so packets keep their order and nothing is promised too soon. The buffer also knows how
//! much of the [weight](vespiary_core::Message::weight) of its publishes has gone, which the core counts, how many
//! acknowledgements wait behind gates, and which topic aliases the client will know.

use std::collections::VecDeque;
use std::num::NonZeroU16;

use vespiary_core::ChangeNumber;

use super::aliases::Aliases;

/// Written bytes in front of the buffer are moved out of the way once they are this many and half of it.
const COMPACT_BYTES: usize = 64 << 10;

/// Bytes to write.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    /// Encoded packets; those before `written` have left.
    bytes: Vec<u8>,
    /// How many of `bytes` have left.
    written: usize,
    /// Position of `bytes[0]` in all that was ever written here.
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
        (self.bytes.is_empty() && self.bytes.capacity() > 0).then(|| std::mem::take(&mut self.bytes))
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
        self.bytes.is_empty()
    }

    /// Bytes that have not left.
    pub(super) fn unwritten(&self) -> usize {
        self.bytes.len() - self.written
    }

    /// What may be written now.
    pub(super) fn writable(&self) -> &[u8] {
        let end = self.gates.front().map_or(self.bytes.len(), |gate| (gate.position - self.base) as usize);
        &self.bytes[self.written..end]
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
        self.written += count;
        self.forget_if_all_has_left();
        if self.written >= COMPACT_BYTES && self.written >= self.bytes.len() / 2 {
            self.base += self.written as u64;
            self.bytes.drain(..self.written);
            self.written = 0;
        }
        share
    }

    fn forget_if_all_has_left(&mut self) {
        if self.written == self.bytes.len() {
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

    #[test]
    fn packets_behind_a_held_one_wait_in_order() {
        let mut outgoing = Outgoing::default();
        stage(&mut outgoing, 0, 4, b"a");
        stage(&mut outgoing, 4, 4, b"b");
        stage(&mut outgoing, 6, 4, b"c");
        stage(&mut outgoing, 0, 4, b"d");
        stage(&mut outgoing, 5, 4, b"e");
        stage(&mut outgoing, 9, 4, b"f");
        assert_eq!(outgoing.writable(), b"ab");
        outgoing.advance(2);
        outgoing.release(ChangeNumber(5));
        assert_eq!(outgoing.writable(), b"");
        outgoing.release(ChangeNumber(8));
        assert_eq!(outgoing.writable(), b"cde");
        outgoing.advance(1);
        stage(&mut outgoing, 0, 8, b"g");
        assert_eq!(outgoing.writable(), b"de");
        outgoing.release(ChangeNumber(9));
        assert_eq!(outgoing.writable(), b"defg");
        outgoing.advance(4);
        assert!(outgoing.is_empty() && !outgoing.is_held());
        stage(&mut outgoing, 10, 9, b"h");
        assert_eq!(outgoing.writable(), b"");
    }

    #[test]
    fn what_can_never_be_durable_is_dropped_and_the_rest_still_leaves() {
        let mut outgoing = Outgoing::default();
        stage(&mut outgoing, 0, 0, b"ab");
        stage(&mut outgoing, 1, 0, b"cd");
        outgoing.advance(1);
        outgoing.drop_held();
        stage(&mut outgoing, 0, 0, b"x");
        assert_eq!(outgoing.writable(), b"bx");
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
        assert_eq!(outgoing.writable(), [1; 5]);
        outgoing.release(ChangeNumber(1));
        assert_eq!(outgoing.writable().len(), 25);
    }
}
