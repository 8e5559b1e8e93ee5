//! What was handled, so that anybody can check from outside that no reading was lost, doubled or reordered.
//!
//! The ledger is part of the asset's state and is committed with the reading that it counts. It believes nobody: it
//! compares the sequence numbers that the sensor gave with those that it has seen, and chains a hash over the payloads in
//! the order in which they were handled. A sender that chains what it sent gets the same value exactly if each of its
//! messages was handled once and in order (up to chance collisions of 64 bits; the hash does not resist forgery).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Ranges of missing sequence numbers that are remembered, so that a late reading is told from a repeated one.
const MAX_MISSING_RANGES: usize = 32;

/// The chain over no payload: the offset basis of 64-bit FNV-1a.
pub const EMPTY_CHAIN: u64 = 0xcbf2_9ce4_8422_2325;

/// Per asset: which readings were handled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ledger {
    /// Readings handled, however they arrived.
    pub handled: u64,
    /// Readings handled by each version of the service.
    pub handled_by: BTreeMap<String, u64>,
    /// Sequence number that came first since the sensor last started.
    pub first_seq: u64,
    /// Highest sequence number since the sensor last started.
    pub last_seq: u64,
    /// When the reading with the highest sequence number was measured; milliseconds since the Unix epoch.
    pub last_ts: u64,
    /// Readings that were skipped and have not arrived since: lost.
    pub gaps: u64,
    /// Readings that had been handled before: doubled.
    pub repeats: u64,
    /// Readings that arrived after a later one: reordered.
    pub reordered: u64,
    /// Times the sensor began to count anew.
    pub restarts: u64,
    /// 64-bit FNV-1a over all payloads in the order in which they were handled.
    pub chain: u64,
    /// Sequence numbers that make up `gaps`, as inclusive ranges; the most recent [`MAX_MISSING_RANGES`].
    missing: Vec<(u64, u64)>,
}

/// How a reading arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// Later than all before it: part of the asset's course.
    InOrder,
    /// Missed before, and now here after later ones.
    Late,
    /// Handled before.
    Repeat,
    /// The sensor began to count anew.
    Restart,
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            handled: 0,
            handled_by: BTreeMap::new(),
            first_seq: 0,
            last_seq: 0,
            last_ts: 0,
            gaps: 0,
            repeats: 0,
            reordered: 0,
            restarts: 0,
            chain: EMPTY_CHAIN,
            missing: Vec::new(),
        }
    }
}

impl Ledger {
    /// Enters a reading that `version` of the service handles now.
    pub fn enter(&mut self, seq: u64, ts: u64, payload: &[u8], version: &str) -> Arrival {
        let first = self.handled == 0;
        self.handled += 1;
        match self.handled_by.get_mut(version) {
            Some(count) => *count += 1,
            None => drop(self.handled_by.insert(version.to_owned(), 1)),
        }
        self.chain = chained(self.chain, payload);
        if first {
            self.begin(seq, ts);
            Arrival::InOrder
        } else if seq > self.last_seq {
            self.advance(seq, ts);
            Arrival::InOrder
        } else if self.take_missing(seq) {
            self.gaps = self.gaps.saturating_sub(1);
            self.reordered += 1;
            Arrival::Late
        } else if seq < self.last_seq && ts > self.last_ts {
            // Neither repeated nor late: those were measured before the last one.
            self.restarts += 1;
            self.begin(seq, ts);
            Arrival::Restart
        } else {
            self.repeats += 1;
            Arrival::Repeat
        }
    }

    fn begin(&mut self, seq: u64, ts: u64) {
        self.first_seq = seq;
        self.last_seq = seq;
        self.last_ts = ts;
        self.missing.clear();
    }

    fn advance(&mut self, seq: u64, ts: u64) {
        let skipped = seq - self.last_seq - 1;
        if skipped > 0 {
            self.gaps = self.gaps.saturating_add(skipped);
            self.missing.push((self.last_seq + 1, seq - 1));
            if self.missing.len() > MAX_MISSING_RANGES {
                self.missing.remove(0);
            }
        }
        self.last_seq = seq;
        self.last_ts = ts;
    }

    /// Whether `seq` was missing; it no longer is.
    fn take_missing(&mut self, seq: u64) -> bool {
        let Some(index) = self.missing.iter().position(|&(from, to)| (from..=to).contains(&seq)) else {
            return false;
        };
        let (from, to) = self.missing.remove(index);
        if seq < to {
            self.missing.insert(index, (seq + 1, to));
        }
        if from < seq {
            self.missing.insert(index, (from, seq - 1));
        }
        true
    }
}

/// The chain after `payload`, whose length is part of it so that the borders between payloads matter.
pub fn chained(chain: u64, payload: &[u8]) -> u64 {
    let length = (payload.len() as u64).to_le_bytes();
    length.iter().chain(payload).fold(chain, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ledger_of(sequence: &[u64]) -> Ledger {
        let mut ledger = Ledger::default();
        for seq in sequence {
            ledger.enter(*seq, seq * 1_000, &seq.to_le_bytes(), "1.0.0");
        }
        ledger
    }

    fn check(sequence: &[u64], lost: u64, doubled: u64, reordered: u64) {
        let ledger = ledger_of(sequence);
        assert_eq!((ledger.gaps, ledger.repeats, ledger.reordered), (lost, doubled, reordered), "{sequence:?}");
        assert_eq!(ledger.handled, sequence.len() as u64);
    }

    #[test]
    fn readings_are_told_apart_by_how_they_arrive() {
        check(&[1, 2, 3, 4], 0, 0, 0);
        check(&[1, 2, 5], 2, 0, 0);
        check(&[1, 2, 2, 3], 0, 1, 0);
        check(&[1, 3, 2, 4], 0, 0, 1);
        check(&[1, 3, 2, 2, 4], 0, 1, 1);
        check(&[1, 6, 3, 3, 5], 2, 1, 2);
        check(&[1, 2, 3, 1], 0, 1, 0);
    }

    #[test]
    fn a_sensor_that_starts_anew_has_lost_nothing() {
        let mut ledger = ledger_of(&[1, 2, 3]);
        assert_eq!(ledger.enter(1, 9_000, b"", "1.0.0"), Arrival::Restart);
        assert_eq!(ledger.enter(2, 10_000, b"", "1.0.0"), Arrival::InOrder);
        assert_eq!((ledger.restarts, ledger.gaps, ledger.repeats, ledger.reordered), (1, 0, 0, 0));
    }

    #[test]
    fn each_version_counts_what_it_handled() {
        let mut ledger = ledger_of(&[1, 2, 3]);
        ledger.enter(4, 4_000, b"", "2.0.0");
        let handled: Vec<_> = ledger.handled_by.iter().map(|(version, count)| (version.as_str(), *count)).collect();
        assert_eq!(handled, [("1.0.0", 3), ("2.0.0", 1)]);
    }

    #[test]
    fn the_chain_is_the_one_that_senders_compute() {
        let chain = [&b"one"[..], b"two"].into_iter().fold(EMPTY_CHAIN, chained);
        assert_eq!(format!("{chain:016x}"), "ce36e7e83f558e71");
    }

    #[test]
    fn a_flood_of_gaps_stays_bounded() {
        let sequence: Vec<u64> = (0..1_000).map(|step| step * 2).collect();
        let ledger = ledger_of(&sequence);
        assert_eq!(ledger.gaps, 999);
        assert_eq!(ledger.missing.len(), MAX_MISSING_RANGES);
        // The number line has an end.
        let ledger = ledger_of(&[0, u64::MAX / 1_000]);
        assert_eq!(ledger.gaps, u64::MAX / 1_000 - 1);
    }

    proptest! {
        /// The counts agree with a model that keeps every number it has seen.
        #[test]
        fn counts_agree_with_a_model(sequence in proptest::collection::vec(1_u64..20, 1..60)) {
            let ledger = ledger_of(&sequence);
            let (mut seen, mut last) = (std::collections::BTreeSet::new(), 0);
            let (mut repeats, mut reordered) = (0, 0);
            for &seq in &sequence {
                // What lies before the first reading was never missed: it counts as a repeat.
                let known = seq < sequence[0] || !seen.insert(seq);
                if known { repeats += 1 } else if seq < last { reordered += 1 }
                last = last.max(seq);
            }
            let missing = (sequence[0]..=last).filter(|seq| !seen.contains(seq)).count() as u64;
            prop_assert_eq!((ledger.gaps, ledger.repeats, ledger.reordered), (missing, repeats, reordered));
        }

        /// Any loss, doubling or change of order changes the chain.
        #[test]
        fn the_chain_notices(count in 2_u64..40, at in 0_usize..38) {
            let sent: Vec<u64> = (1..=count).collect();
            let at = at % (sent.len() - 1);
            let mut swapped = sent.clone();
            swapped.swap(at, at + 1);
            let mut lost = sent.clone();
            lost.remove(at);
            let mut doubled = sent.clone();
            doubled.insert(at, sent[at]);
            let intact = ledger_of(&sent).chain;
            for other in [swapped, lost, doubled] {
                prop_assert_ne!(ledger_of(&other).chain, intact);
            }
        }
    }
}
