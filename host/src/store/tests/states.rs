//! The state of plugins: what it should be, and how it expires, is undone, and is measured.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::equivalence::Tables;
use super::{activated, commit_and_close, on_probation, open, plugin, revision, state, wait};
use crate::store::Store;
use crate::store::testing::Disk;
use vespiary_core::event::{Change, ChangeNumber, PluginName, ProbationRecord, Revision, SessionId, StateWrite};
use vespiary_core::message::Timestamp;

/// A value, and when it expires.
type Value = (Vec<u8>, Option<Timestamp>);

/// What the store should hold of the state of plugins, one change after the other.
#[derive(Debug, Default, Clone)]
pub(super) struct States {
    /// Plugins.
    pub(super) plugins: BTreeMap<PluginName, Plugin>,
    /// Values by generation and key.
    values: BTreeMap<(SessionId, String), Value>,
    /// What they were before a probation, if they were.
    undo: BTreeMap<(SessionId, String), Option<Value>>,
    /// Generations that went at some time. A broker never takes one again, and nobody asks for its values before a checkpoint.
    gone: BTreeSet<SessionId>,
}

/// What the store should hold of a plugin.
#[derive(Debug, Clone)]
pub(super) struct Plugin {
    pub(super) session: SessionId,
    pub(super) revision: Revision,
    pub(super) state: SessionId,
    pub(super) probation: Option<ProbationRecord>,
    pub(super) begun: Option<SessionId>,
}

impl Plugin {
    fn generations(&self) -> BTreeSet<SessionId> {
        let before = self.probation.as_ref().map(|before| before.state);
        [Some(self.state), before, self.begun].into_iter().flatten().collect()
    }
}

impl States {
    pub(super) fn apply(&mut self, change: &Change) {
        match change.clone() {
            Change::SessionRemoved { session } => self.clear(session),
            Change::PluginActivated { plugin, session, revision, state, probation } => {
                let probation = probation.map(|before| *before);
                let active = Plugin { session, revision, state, probation, begun: None };
                if let Some(before) = self.plugins.insert(plugin, active.clone()) {
                    self.undo.retain(|(of, _), _| *of != before.state);
                    let kept = active.generations();
                    let gone = before.generations().into_iter().filter(|state| !kept.contains(state));
                    gone.for_each(|state| self.clear(state));
                }
            }
            Change::PluginRemoved { plugin } => {
                let removed = self.plugins.remove(&plugin);
                removed.iter().flat_map(Plugin::generations).for_each(|state| self.clear(state));
            }
            Change::GenerationBegun { plugin, state } => {
                self.plugins.get_mut(&plugin).unwrap().begun = Some(state);
            }
            Change::GenerationDropped { plugin, state } => {
                self.clear(state);
                self.plugins.get_mut(&plugin).unwrap().begun = None;
            }
            Change::StateWritten { state, write: StateWrite { key, value, expires_at }, undo } => {
                let key = (state, key.to_string());
                if undo && !self.undo.contains_key(&key) {
                    self.undo.insert(key.clone(), self.values.get(&key).cloned());
                }
                match value {
                    Some(value) => drop(self.values.insert(key, (value.to_vec(), expires_at))),
                    None => drop(self.values.remove(&key)),
                }
            }
            Change::ProbationEnded { plugin, session: _, undone } => self.end_probation(&plugin, undone),
            _ => {}
        }
    }

    fn end_probation(&mut self, plugin: &PluginName, undone: bool) {
        let plugin = self.plugins.get_mut(plugin).unwrap();
        let (state, before) = (plugin.state, plugin.probation.take());
        let gone = if undone { Some(state) } else { before.as_ref().map(|before| before.state) };
        plugin.state = if undone { before.map_or(state, |before| before.state) } else { state };
        let in_use = plugin.state;
        let (of_it, others) = std::mem::take(&mut self.undo).into_iter().partition(|((of, _), _)| *of == state);
        self.undo = others;
        let of_it: BTreeMap<_, _> = of_it;
        for (key, value) in of_it.into_iter().filter(|_| undone) {
            match value {
                Some(value) => drop(self.values.insert(key, value)),
                None => drop(self.values.remove(&key)),
            }
        }
        gone.filter(|gone| *gone != in_use).into_iter().for_each(|gone| self.clear(gone));
    }

    fn clear(&mut self, state: SessionId) {
        self.gone.insert(state);
        self.values.retain(|(of, _), _| *of != state);
        self.undo.retain(|(of, _), _| *of != state);
    }

    /// What has expired is purged.
    fn purge(&mut self, now: Timestamp) {
        self.values.retain(|_, (_, expires_at)| expires_at.is_none_or(|at| at > now));
    }

    /// Checks that a snapshot shows this of each generation that is in use, whether it is in the database or not.
    #[track_caller]
    pub(super) fn check_snapshots(&self, store: &Store) {
        let generations = self.plugins.values().flat_map(Plugin::generations);
        for state in generations.filter(|state| !self.gone.contains(state)) {
            let of_it = self.values.range((state, String::new())..).take_while(|((of, _), _)| *of == state);
            let expected: Vec<_> = of_it.map(|((_, key), (value, at))| (key.clone(), value.clone(), *at)).collect();
            let bytes: usize = expected.iter().map(|(key, value, _)| key.len() + value.len()).sum();
            let snapshot = store.snapshot(state, Timestamp(0)).unwrap();
            assert_eq!(snapshot.entries(None, usize::MAX).unwrap(), expected, "state {state:?}");
            assert_eq!(snapshot.usage().unwrap(), bytes as u64);
            assert!(snapshot.usage_at_most().unwrap() >= bytes as u64);
            for (number, (key, value, at)) in expected.iter().enumerate() {
                assert_eq!(snapshot.entry(key).unwrap(), Some((value.clone(), *at)));
                let next = snapshot.scan("", Some(key), 1).unwrap();
                assert_eq!(next.first().map(|(key, _)| key), expected.get(number + 1).map(|(key, ..)| key));
            }
        }
    }

    /// Checks that a store holds this.
    #[track_caller]
    pub(super) fn check(&self, store: &Store) {
        let mut states: BTreeSet<SessionId> = self.values.keys().map(|(state, _)| *state).collect();
        // Some that should have nothing.
        states.extend((0..8).map(SessionId));
        for state in states {
            let of_it = self.values.iter().filter(|((of, _), _)| *of == state);
            let expected: Vec<_> = of_it.map(|((_, key), (value, at))| (key.clone(), value.clone(), *at)).collect();
            let bytes: usize = expected.iter().map(|(key, value, _)| key.len() + value.len()).sum();
            let snapshot = store.snapshot(state, Timestamp(0)).unwrap();
            assert_eq!(snapshot.entries(None, usize::MAX).unwrap(), expected, "state {state:?}");
            assert_eq!((snapshot.usage().unwrap(), store.state_bytes(state).unwrap()), (bytes as u64, bytes as u64));
            let now = Timestamp(FUTURE + 128);
            let living = expected.into_iter().filter(|(_, _, at)| at.is_none_or(|at| at > now));
            let living: Vec<_> = living.map(|(key, value, _)| (key, value)).collect();
            let scanned = store.snapshot(state, now).unwrap().scan("", None, usize::MAX).unwrap();
            assert_eq!(scanned, living, "state {state:?} later");
        }
    }
}

/// No test is that late, in milliseconds.
pub(super) const FUTURE: u64 = 1 << 50;

/// A value that is written and expires.
pub(super) fn expiring(state: u64, key: &str, value: &[u8], at: u64) -> Change {
    let write = StateWrite { key: key.into(), value: Some(value.into()), expires_at: Some(Timestamp(at)) };
    Change::StateWritten { state: SessionId(state), write, undo: false }
}

/// The same change, on probation.
pub(super) fn with_undo(change: Change) -> Change {
    match change {
        Change::StateWritten { state, write, undo: _ } => Change::StateWritten { state, write, undo: true },
        other => panic!("not a write: {other:?}"),
    }
}

fn ended(undone: bool) -> Change {
    Change::ProbationEnded { plugin: plugin(0), session: SessionId(1), undone }
}

/// Keys and values of a generation, with the time at which they expire; none for those that do not.
fn found(tables: &Tables, state: u64) -> Vec<(String, Vec<u8>, u64)> {
    let values = tables.state(state).into_iter();
    values.map(|(key, value, at)| (key, value, at.map_or(0, |at| at.0))).collect()
}

#[test]
fn a_probation_that_is_undone_restores_values_their_expiry_and_their_size() {
    let before = [state(1, "kept", Some(b"1")), state(1, "changed", Some(b"22")), expiring(1, "expires", b"333", 77)];
    let begin = [activated(plugin(0), SessionId(1), 1), on_probation(plugin(0), SessionId(1), 2)];
    let during = [
        with_undo(state(1, "changed", Some(b"again and again"))),
        with_undo(state(1, "changed", None)),
        with_undo(expiring(1, "changed", b"", 9)),
        with_undo(state(1, "expires", Some(b"not any more"))),
        with_undo(state(1, "new", Some(b"4444"))),
        with_undo(state(1, "came and went", Some(b"5"))),
        with_undo(state(1, "came and went", None)),
        // Nobody does that, but what is kept is what was there before the first write on probation.
        state(1, "mixed", Some(b"6")),
        with_undo(state(1, "mixed", Some(b"66"))),
        state(1, "mixed", Some(b"666")),
    ];
    let whole = [&before[..], &begin, &during].concat();
    let old = || [("changed", &b"22"[..], 0), ("expires", b"333", 77), ("kept", b"1", 0), ("mixed", b"6", 0)];
    let new = || {
        let (kept, mixed) = (("kept", &b"1"[..], 0), ("mixed", &b"666"[..], 0));
        [("changed", &b""[..], 9), ("expires", b"not any more", 0), kept, mixed, ("new", b"4444", 0)]
    };
    let values = |list: &[(&str, &[u8], u64)]| {
        list.iter().map(|&(key, value, at)| (key.to_owned(), value.to_vec(), at)).collect::<Vec<_>>()
    };
    for (end, expected) in [
        (vec![], values(&new())),
        (vec![ended(true)], values(&old())),
        (vec![ended(false)], values(&new())),
        // An activation ends a probation, and its revision stays.
        (vec![activated(plugin(0), SessionId(1), 3)], values(&new())),
        (vec![activated(plugin(0), SessionId(1), 3), ended(true)], values(&new())),
    ] {
        for at_once in [true, false] {
            let mut tables = Tables::new();
            let changes = [&whole[..], &end].concat();
            if at_once {
                tables.write(&changes);
            } else {
                changes.iter().for_each(|change| tables.write(std::slice::from_ref(change)));
            }
            assert_eq!(found(&tables, 1), expected, "{end:?}, at once: {at_once}");
            let bytes: usize = expected.iter().map(|(key, value, _)| key.len() + value.len()).sum();
            assert_eq!(tables.bytes(1), bytes as u64);
            let expiring: Vec<_> =
                expected.iter().filter(|(_, _, at)| *at > 0).map(|(key, _, at)| (*at, key)).collect();
            assert_eq!(tables.count("state_expiry"), expiring.len(), "{expiring:?}");
            assert_eq!(tables.count("plugin_undo"), if end.is_empty() { 5 } else { 0 });
        }
    }
}

#[test]
fn generations_go_when_nothing_refers_to_them_any_more() {
    let (plugin, session) = (|| plugin(0), SessionId(1));
    let begun = |state| Change::GenerationBegun { plugin: plugin(), state: SessionId(state) };
    let moved = |number, state, probation: Option<(u32, u64)>| Change::PluginActivated {
        plugin: plugin(),
        session,
        revision: revision(number),
        state: SessionId(state),
        probation: probation
            .map(|(number, state)| Box::new(ProbationRecord { revision: revision(number), state: SessionId(state) })),
    };
    let fill = |of: u64| [state(of, "a", Some(b"a")), expiring(of, "b", b"b", 5)].to_vec();
    let first = || [vec![activated(plugin(), session, 1)], fill(1), vec![begun(7)], fill(7)].concat();
    for (then, left) in [
        (vec![], &[1, 7][..]),
        (vec![Change::GenerationDropped { plugin: plugin(), state: SessionId(7) }], &[1]),
        (vec![moved(2, 1, None)], &[1]),
        (vec![moved(2, 7, None)], &[7]),
        (vec![moved(2, 7, Some((1, 1)))], &[1, 7]),
        (vec![moved(2, 7, Some((1, 1))), ended(false)], &[7]),
        (vec![moved(2, 7, Some((1, 1))), ended(true)], &[1]),
        (vec![moved(2, 7, Some((1, 1))), ended(true), moved(3, 1, None)], &[1]),
        (vec![moved(2, 7, Some((1, 1))), moved(3, 7, None)], &[7]),
        (vec![moved(2, 7, Some((1, 1))), moved(3, 7, Some((2, 7)))], &[7]),
        (vec![moved(2, 7, Some((1, 1))), Change::PluginRemoved { plugin: plugin() }], &[]),
        (vec![Change::SessionRemoved { session }, Change::PluginRemoved { plugin: plugin() }], &[]),
        ([vec![begun(8)], fill(8)].concat(), &[1, 8]),
    ] {
        let mut tables = Tables::new();
        tables.write(&[first(), then.clone()].concat());
        let filled: Vec<u64> = [1, 7, 8].into_iter().filter(|&state| !tables.state(state).is_empty()).collect();
        assert_eq!(filled, left, "{then:?}");
        assert_eq!((tables.count("state_bytes"), tables.count("state_expiry")), (left.len(), left.len()), "{then:?}");
    }
}

#[test]
fn what_has_expired_is_purged_in_pieces_oldest_first() {
    let mut tables = Tables::new();
    let mut states = States::default();
    let mut changes: Vec<Change> =
        (0..100).map(|at| expiring(1 + at % 3, &format!("key/{at}"), b"value", at)).collect();
    changes.push(state(1, "stays", Some(b"")));
    // Written again, with another time, or none.
    changes.push(expiring(2, "key/1", b"longer value", 1_000));
    changes.push(state(3, "key/2", Some(b"stays")));
    tables.write(&changes);
    changes.iter().for_each(|change| states.apply(change));
    for (now, rows, next, left) in [
        // Keys 1 and 2 are not there any more under these times.
        (10, 4, Some(6), 99 - 4 + 3 - 1),
        (10, 4, Some(10), 93),
        (10, 4, Some(11), 92),
        (10, 4, Some(11), 92),
        (99, 1_000, Some(1_000), 3),
        (u64::MAX, 1_000, None, 2),
    ] {
        let first = tables.purge(Timestamp(now), rows);
        assert_eq!(first.map(|at| at.0), next, "the next to expire, after {now}");
        let found: usize = (1..=3).map(|state| tables.state(state).len()).sum();
        assert_eq!(found, left, "values left after {now}");
        if next.is_none_or(|next| next > now) {
            states.purge(Timestamp(now));
            let expected = |of| states.values.keys().filter(|(state, _)| state.0 == of).count();
            assert_eq!((1..=3).map(expected).sum::<usize>(), left);
        }
        for state in 1..=3 {
            let bytes: usize = tables.state(state).iter().map(|(key, value, _)| key.len() + value.len()).sum();
            assert_eq!(tables.bytes(state), bytes as u64);
        }
    }
}

#[test]
fn the_store_purges_by_itself_when_something_has_expired_and_sleeps_while_nothing_has() {
    let data = tempfile::tempdir().unwrap();
    let now = Arc::new(AtomicU64::new(0));
    let disk = Disk::new();
    let store = disk.open_at(data.path(), &now).store;
    let (one, two) = (expiring(1, "soon", b"1", 5), expiring(1, "later", b"2", 1_000_000_000));
    store.commit(&mut vec![one, two, state(1, "stays", Some(b"3"))], ChangeNumber(3));
    wait(&store, ChangeNumber(3));
    assert_eq!((store.state_bytes(SessionId(1)).unwrap(), store.commits().checkpoints), (17, 1));
    let checkpoints = |count| {
        while store.commits().checkpoints < count {
            std::thread::yield_now();
        }
    };
    now.store(5, Ordering::Relaxed);
    checkpoints(2);
    // That made one transaction, without a change, and nothing is said of it.
    assert_eq!((store.commits().commits, store.commits().changes, store.durable()), (1, 3, ChangeNumber(3)));
    assert_eq!(store.state_bytes(SessionId(1)).unwrap(), 12);
    // What comes later is purged with what it comes with, or after the pause.
    now.store(2_000_000_000, Ordering::Relaxed);
    store.commit(&mut vec![state(1, "stays", Some(b"4"))], ChangeNumber(4));
    checkpoints(3);
    while store.state_bytes(SessionId(1)).unwrap() != 6 {
        std::thread::yield_now();
    }
    store.close().unwrap();

    // What expired while nobody looked is purged after the next start.
    commit_and_close(disk.open_at(data.path(), &now), [vec![expiring(1, "again", b"5", 3_000_000_000)]]);
    now.store(3_000_000_000, Ordering::Relaxed);
    let store = disk.open_at(data.path(), &now).store;
    while store.state_bytes(SessionId(1)).unwrap() != 6 {
        std::thread::yield_now();
    }
}

#[test]
fn a_snapshot_shows_what_has_not_expired_by_the_time_given() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).store;
    let changes = [expiring(1, "a", b"1", FUTURE), expiring(1, "b", b"2", FUTURE + 1), state(1, "c", Some(b"3"))];
    store.commit(&mut changes.to_vec(), ChangeNumber(3));
    wait(&store, ChangeNumber(3));
    let at = |now| store.snapshot(SessionId(1), Timestamp(now)).unwrap();
    for (now, keys) in [(0, &["a", "b", "c"][..]), (FUTURE, &["b", "c"]), (FUTURE + 1, &["c"]), (u64::MAX, &["c"])] {
        let scanned = at(now).scan("", None, 9).unwrap().into_iter().map(|(key, _)| key);
        assert_eq!(scanned.collect::<Vec<_>>(), keys);
        let entries = at(now).entries(None, 9).unwrap().into_iter().map(|(key, ..)| key);
        assert_eq!(entries.collect::<Vec<_>>(), keys);
        assert_eq!(at(now).get("a").unwrap().is_some(), keys.contains(&"a"));
        let entry = at(now).entry("b").unwrap();
        assert_eq!(entry, keys.contains(&"b").then(|| (b"2".to_vec(), Some(Timestamp(FUTURE + 1)))));
        assert_eq!(at(now).usage().unwrap(), 6);
    }
    // The limit counts what is shown.
    assert_eq!(at(FUTURE).entries(None, 1).unwrap(), [("b".to_owned(), b"2".to_vec(), Some(Timestamp(FUTURE + 1)))]);
    assert_eq!(at(0).entries(Some("b"), 9).unwrap(), [("c".to_owned(), b"3".to_vec(), None)]);
}
