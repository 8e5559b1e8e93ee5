//! Several calls of one plugin at the same time, as if they had run one after the other.
//!
//! A call reads a snapshot, and what another lane writes meanwhile is not in it. So where a plugin has several lanes, a
//! call notes what it [reads](Reads), and the plugin which keys its settlements [wrote](Conflicts). A call that has read what
//! was written since its snapshot is not settled: its events go back, and it runs again. In the order in which settlements
//! are posted, each has then read what those before it left; that is the serial order.
//!
//! Keys that a call writes without reading them do not count: the later settlement wins, as it would in that order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vespiary_core::ChangeNumber;

use crate::wasm::{StateRead, StateUnavailable};

/// Keys of settlements that are remembered; beyond it, calls under way are taken to conflict.
const KEYS: usize = 1_000_000;
/// Keys of one call that are noted; beyond it the call is taken to have read everything.
const READS: usize = 100_000;

/// What one plugin's settlements wrote, as far as a call under way may not have seen it.
#[derive(Debug, Default)]
pub(super) struct Conflicts {
    /// Number of the last settlement.
    last: u64,
    /// Settlements that a new snapshot may not hold, with their change once the broker has said it.
    pending: VecDeque<(u64, Option<ChangeNumber>)>,
    /// The last settlement that wrote a key.
    written: BTreeMap<Box<str>, u64>,
    /// Settlements up to this one are no longer in `written`, though somebody may ask.
    forgotten: u64,
    /// For each call under way, the last settlement that its snapshot holds for certain.
    running: BTreeMap<Caller, u64>,
}

/// Who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Caller {
    /// A lane.
    Lane(u16),
    /// A request to the HTTP service.
    Request(u64),
}

/// What a call has read.
#[derive(Debug, Default)]
pub(super) struct Reads {
    keys: BTreeSet<Box<str>>,
    prefixes: BTreeSet<Box<str>>,
    everything: bool,
}

/// A state that notes what is read of it.
#[derive(Debug)]
pub(super) struct NotedState<S> {
    state: S,
    reads: Arc<Mutex<Reads>>,
}

impl Conflicts {
    /// A call is about to take its snapshot; changes up to `seen` are in it for certain.
    pub(super) fn begin(&mut self, caller: Caller, seen: ChangeNumber) {
        while self.pending.front().is_some_and(|(_, after)| after.is_some_and(|after| after <= seen)) {
            self.pending.pop_front();
        }
        let seen = self.pending.front().map_or(self.last, |(first, _)| first - 1);
        self.running.insert(caller, seen);
        self.prune();
    }

    /// A call is over. Gives whether it read what was written since its snapshot.
    pub(super) fn end(&mut self, caller: Caller, reads: &Reads) -> bool {
        let seen = self.running.remove(&caller).unwrap_or(self.last);
        seen < self.forgotten || self.written_since(seen, reads)
    }

    /// A settlement that writes these keys is handed to the broker.
    pub(super) fn settle<'a>(&mut self, keys: impl Iterator<Item = &'a str>) {
        self.last += 1;
        self.pending.push_back((self.last, None));
        for key in keys {
            self.written.insert(key.into(), self.last);
        }
        if self.written.len() > KEYS {
            self.written.clear();
            self.forgotten = self.last;
        }
    }

    /// The broker has taken the oldest settlement that it had not taken; its change has this number.
    pub(super) fn settled(&mut self, after: ChangeNumber) {
        if let Some((_, change)) = self.pending.iter_mut().find(|(_, change)| change.is_none()) {
            *change = Some(after);
        }
    }

    fn written_since(&self, seen: u64, reads: &Reads) -> bool {
        if self.last == seen {
            return false;
        }
        let newer = |number: &u64| *number > seen;
        let begins = |prefix: &str| {
            let from = (Bound::Included(prefix), Bound::Unbounded);
            let mut keys = self.written.range::<str, _>(from).take_while(|(key, _)| key.starts_with(prefix));
            keys.any(|(_, number)| newer(number))
        };
        (reads.everything && self.written.values().any(newer))
            || reads.keys.iter().any(|key| self.written.get(key).is_some_and(newer))
            || reads.prefixes.iter().any(|prefix| begins(prefix))
    }

    /// Forgets what every call under way has seen.
    fn prune(&mut self) {
        let seen = self.running.values().copied().min().unwrap_or(self.last);
        if self.running.len() == 1 && self.last == seen {
            self.written.clear();
        } else if self.written.len() > KEYS / 100 {
            self.written.retain(|_, number| *number > seen);
        }
    }
}

impl Reads {
    /// Takes what was noted out of its place.
    pub(super) fn take(shared: &Mutex<Self>) -> Self {
        std::mem::take(&mut *lock(shared))
    }

    fn note(&mut self, key: &str) {
        if self.keys.len() >= READS {
            self.everything = true;
        } else if !self.keys.contains(key) {
            self.keys.insert(key.into());
        }
    }

    fn note_prefix(&mut self, prefix: &str) {
        if self.prefixes.len() >= READS {
            self.everything = true;
        } else if !self.prefixes.contains(prefix) {
            self.prefixes.insert(prefix.into());
        }
    }
}

impl<S> NotedState<S> {
    /// A state, and where stands what is read of it.
    pub(super) fn new(state: S) -> (Self, Arc<Mutex<Reads>>) {
        let reads = Arc::default();
        (Self { state, reads: Arc::clone(&reads) }, reads)
    }
}

impl<S: StateRead> StateRead for NotedState<S> {
    fn usage(&self) -> Result<u64, StateUnavailable> {
        self.state.usage()
    }

    fn usage_at_most(&self) -> Result<u64, StateUnavailable> {
        self.state.usage_at_most()
    }

    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StateUnavailable> {
        lock(&self.reads).note(key);
        self.state.get(key)
    }

    fn scan(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Vec<u8>)>, StateUnavailable> {
        lock(&self.reads).note_prefix(prefix);
        self.state.scan(prefix, after, limit)
    }
}

fn lock(reads: &Mutex<Reads>) -> MutexGuard<'_, Reads> {
    reads.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Caller = Caller::Lane(0);
    const B: Caller = Caller::Lane(1);

    fn reads(keys: &[&str], prefixes: &[&str]) -> Reads {
        let boxed = |list: &[&str]| list.iter().map(|&text| text.into()).collect();
        Reads { keys: boxed(keys), prefixes: boxed(prefixes), everything: false }
    }

    #[test]
    fn a_call_conflicts_with_what_was_written_since_its_snapshot() {
        for (read, expected) in [
            (reads(&["a"], &[]), true),
            (reads(&["b"], &[]), false),
            (reads(&[], &[""]), true),
            (reads(&[], &["a"]), true),
            (reads(&[], &["ab"]), false),
            (Reads { everything: true, ..Reads::default() }, true),
            (Reads::default(), false),
        ] {
            let mut conflicts = Conflicts::default();
            conflicts.begin(A, ChangeNumber(0));
            conflicts.begin(B, ChangeNumber(0));
            assert!(!conflicts.end(A, &reads(&["a"], &[])));
            conflicts.settle(["a", "c"].into_iter());
            assert_eq!(conflicts.end(B, &read), expected, "{read:?}");
        }
    }

    #[test]
    fn a_snapshot_holds_what_is_handed_over_and_not_what_is_only_posted() {
        let mut conflicts = Conflicts::default();
        conflicts.settle(["a"].into_iter());
        conflicts.begin(B, ChangeNumber(9));
        assert!(conflicts.end(B, &reads(&["a"], &[])), "the broker has not taken it");
        conflicts.settled(ChangeNumber(10));
        conflicts.begin(B, ChangeNumber(9));
        assert!(conflicts.end(B, &reads(&["a"], &[])), "it is not handed over");
        conflicts.begin(B, ChangeNumber(10));
        assert!(!conflicts.end(B, &reads(&["a"], &[])), "it is in the snapshot");
    }

    #[test]
    fn what_a_call_under_way_has_not_seen_is_remembered() {
        let mut conflicts = Conflicts::default();
        conflicts.begin(A, ChangeNumber(0));
        conflicts.settle(["a"].into_iter());
        conflicts.settled(ChangeNumber(1));
        for number in 2..5 {
            conflicts.begin(B, ChangeNumber(number));
            assert!(!conflicts.end(B, &reads(&["a"], &[])));
        }
        assert!(conflicts.end(A, &reads(&["a"], &[])));
    }

    #[test]
    fn forgetting_too_much_is_a_conflict() {
        let mut conflicts = Conflicts::default();
        conflicts.begin(A, ChangeNumber(0));
        let keys: Vec<String> = (0..=KEYS).map(|number| number.to_string()).collect();
        conflicts.settle(keys.iter().map(String::as_str));
        assert!(conflicts.end(A, &Reads::default()));
    }
}
