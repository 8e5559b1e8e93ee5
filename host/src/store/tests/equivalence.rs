//! Random changes: the store holds what the model holds, however they are grouped, coalesced and restarted between.

use std::path::Path;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use redb::backends::InMemoryBackend;
use redb::{Database, Key, ReadableDatabase, ReadableTable, TableDefinition, Value};

use super::model::{Model, Step, changes};
use super::{activated, commit_and_close, on_probation, open, plugin};
use crate::store::StateSnapshot;
use crate::store::batch::{Batch, Purge};
use crate::store::checkpoint::write_batch;
use crate::store::overlay::Overlay;
use crate::store::snapshot::state_bytes;
use crate::store::tables;
use crate::store::testing::Disk;
use crate::store::trimming::trim;
use vespiary_core::event::{Change, ChangeNumber, Sequence, SessionId};
use vespiary_core::message::{MessageId, Timestamp};

fn steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
    vec((any::<u8>(), any::<u8>(), any::<u8>()), 0..most)
}

/// Puts parts together to groups at random places.
fn groups(parts: Vec<Vec<Change>>, lengths: &[u8]) -> Vec<Vec<Change>> {
    let mut lengths = lengths.iter().cycle().map(|&length| usize::from(length) + 1);
    let mut parts = parts.into_iter().peekable();
    let mut groups = Vec::new();
    while parts.peek().is_some() {
        groups.push(parts.by_ref().take(lengths.next().unwrap_or(1)).flatten().collect());
    }
    groups
}

/// A database in memory into which batches are written.
pub(super) struct Tables {
    database: Database,
    highest: u64,
    scratch: Vec<u8>,
}

impl Tables {
    pub(super) fn new() -> Self {
        let database = Database::builder().create_with_backend(InMemoryBackend::new()).unwrap();
        tables::create_all(&database).unwrap();
        let mut tables = Self { database, highest: 0, scratch: Vec::new() };
        // The number of the last transaction is there from the first on.
        tables.write(&[]);
        tables
    }

    pub(super) fn write(&mut self, changes: &[Change]) {
        let mut batch = Batch::new(self.highest);
        changes.iter().cloned().for_each(|change| batch.push(change));
        self.write_batch(&batch);
    }

    fn write_batch(&mut self, batch: &Batch) {
        write_batch(self.database.begin_write().unwrap(), batch, 1, &mut self.scratch).unwrap();
        self.highest = batch.highest();
    }

    /// Purges so many rows of what has expired; gives when the next does.
    pub(super) fn purge(&mut self, now: Timestamp, rows: usize) -> Option<Timestamp> {
        let mut batch = Batch::new(self.highest);
        batch.purge = Some(Purge { now, rows });
        write_batch(self.database.begin_write().unwrap(), &batch, 1, &mut self.scratch).unwrap()
    }

    /// A generation of state, expired or not.
    pub(super) fn state(&self, state: u64) -> Vec<(String, Vec<u8>, Option<Timestamp>)> {
        let (overlay, path) = (Overlay::default(), Path::new("").into());
        let snapshot = StateSnapshot::take(&self.database, &overlay, &path, SessionId(state), Timestamp(0));
        snapshot.unwrap().entries(None, usize::MAX).unwrap()
    }

    /// What is noted as its size.
    pub(super) fn bytes(&self, state: u64) -> u64 {
        state_bytes(&self.database, Path::new(""), SessionId(state)).unwrap()
    }

    /// Rows of a table.
    pub(super) fn count(&self, name: &str) -> usize {
        self.rows().iter().filter(|(table, ..)| *table == name).count()
    }

    /// Writes changes that belong together without any knowledge of what is in the database.
    fn write_naively(&mut self, part: &[Change]) {
        self.highest = u64::MAX;
        self.write(part);
    }

    /// Every row of every table, as bytes.
    fn rows(&self) -> Vec<(&'static str, Vec<u8>, Vec<u8>)> {
        let mut rows = Vec::new();
        self.dump("meta", tables::META, &mut rows);
        self.dump("sessions", tables::SESSIONS, &mut rows);
        self.dump("subscriptions", tables::SUBSCRIPTIONS, &mut rows);
        self.dump("messages", tables::MESSAGES, &mut rows);
        self.dump("references", tables::REFERENCES, &mut rows);
        self.dump("queue", tables::QUEUE, &mut rows);
        self.dump("kept", tables::KEPT, &mut rows);
        self.dump("received", tables::RECEIVED, &mut rows);
        self.dump("retained", tables::RETAINED, &mut rows);
        self.dump("plugins", tables::PLUGINS, &mut rows);
        self.dump("plugin_revisions", tables::PLUGIN_REVISIONS, &mut rows);
        self.dump("plugin_state", tables::PLUGIN_STATE, &mut rows);
        self.dump("plugin_undo", tables::PLUGIN_UNDO, &mut rows);
        self.dump("state_expiry", tables::STATE_EXPIRY, &mut rows);
        self.dump("state_bytes", tables::STATE_BYTES, &mut rows);
        self.dump("timers", tables::TIMERS, &mut rows);
        self.dump("dead_letters", tables::DEAD_LETTERS, &mut rows);
        rows
    }

    fn dump<K: Key + 'static, V: Value + 'static>(
        &self,
        name: &'static str,
        definition: TableDefinition<'static, K, V>,
        rows: &mut Vec<(&'static str, Vec<u8>, Vec<u8>)>,
    ) {
        for row in self.database.begin_read().unwrap().open_table(definition).unwrap().iter().unwrap() {
            let (key, value) = row.unwrap();
            let key = K::as_bytes(&key.value()).as_ref().to_vec();
            rows.push((name, key, V::as_bytes(&value.value()).as_ref().to_vec()));
        }
    }
}

/// A message and as many entries that refer to it, each in a queue of its own.
fn fan_out(message: u64, queues: u64) -> Vec<Change> {
    let content = Arc::new(super::message("a", b"x"));
    let mut changes = vec![Change::MessageStored { message: MessageId(message), content }];
    changes.extend((1..=queues).map(|session| queued(session, message * 100 + session, message)));
    changes
}

fn queued(session: u64, sequence: u64, message: u64) -> Change {
    Change::Queued { session: SessionId(session), sequence: Sequence(sequence), entry: super::entry(message) }
}

fn dequeued(session: u64, sequence: u64, message: u64) -> Change {
    Change::Dequeued { session: SessionId(session), sequence: Sequence(sequence), message: MessageId(message) }
}

fn removed(session: u64) -> Change {
    Change::SessionRemoved { session: SessionId(session) }
}

#[test]
fn a_message_goes_with_the_last_entry_that_refers_to_it() {
    let nothing = Tables::new().rows();
    // What is there before, in one transaction; what happens then, in another; how many rows of messages and counts are
    // left.
    for (before, then, left) in [
        (vec![], fan_out(1, 1), (1, 0)),
        (vec![], fan_out(1, 3), (1, 1)),
        (fan_out(1, 1), vec![dequeued(1, 101, 1)], (0, 0)),
        (fan_out(1, 2), vec![dequeued(1, 101, 1)], (1, 0)),
        (fan_out(1, 3), vec![dequeued(1, 101, 1)], (1, 1)),
        (fan_out(1, 3), vec![dequeued(1, 101, 1), dequeued(2, 102, 1), dequeued(3, 103, 1)], (0, 0)),
        // An entry that was dequeued before its session is removed is counted once, and one of the same transaction not
        // at all.
        (fan_out(1, 3), vec![dequeued(1, 101, 1), removed(1)], (1, 1)),
        (fan_out(1, 3), vec![removed(1), removed(1), removed(2)], (1, 0)),
        (fan_out(1, 3), vec![queued(1, 104, 1), removed(1)], (1, 1)),
        (fan_out(1, 3), vec![queued(1, 104, 1), dequeued(1, 104, 1), removed(1)], (1, 1)),
        (fan_out(1, 3), vec![removed(1), queued(1, 104, 1)], (1, 1)),
        (fan_out(1, 1), vec![queued(2, 102, 1), removed(1)], (1, 0)),
        (fan_out(1, 1), vec![removed(1), queued(2, 102, 1)], (1, 0)),
        // Handed on, in whatever order.
        (fan_out(1, 1), vec![dequeued(1, 101, 1), queued(2, 102, 1)], (1, 0)),
        // A row that is written again is one row.
        (fan_out(1, 1), vec![queued(1, 101, 1)], (1, 0)),
        (fan_out(1, 1), vec![queued(1, 101, 1), dequeued(1, 101, 1)], (0, 0)),
    ] {
        let mut tables = Tables::new();
        tables.write(&before);
        tables.write(&then);
        let rows = tables.rows();
        let of = |name| rows.iter().filter(|(table, ..)| *table == name).count();
        assert_eq!((of("messages"), of("references")), left, "{then:?}");
        tables.write(&[removed(1), removed(2), removed(3)]);
        assert_eq!(tables.rows(), nothing, "{then:?}, and then all go");
    }
}

#[test]
fn what_is_kept_for_a_probation_refers_to_its_message_until_it_ends() {
    let kept = |sequence| Change::Kept { session: SessionId(1), sequence: Sequence(sequence) };
    let put_back = |sequence| Change::PutBack { session: SessionId(1), sequence: Sequence(sequence) };
    let ended = || Change::ProbationEnded { plugin: plugin(0), session: SessionId(1), undone: true };
    let begin = || vec![activated(plugin(0), SessionId(1), 1), on_probation(plugin(0), SessionId(1), 2)];
    // What happens to two entries, 101 and 201, that are in the inbox; rows of messages, queue and kept that are left.
    for (then, left) in [
        (vec![], (2, 2, 0)),
        (vec![kept(101)], (2, 1, 1)),
        (vec![kept(101), dequeued(1, 101, 1)], (2, 1, 1)),
        (vec![dequeued(1, 101, 1), kept(101)], (1, 1, 0)),
        (vec![kept(101), kept(101), kept(201)], (2, 0, 2)),
        (vec![kept(101), put_back(101)], (2, 2, 0)),
        (vec![kept(101), put_back(101), dequeued(1, 101, 1)], (1, 1, 0)),
        (vec![kept(101), put_back(101), kept(101), put_back(101), kept(101)], (2, 1, 1)),
        (vec![kept(101), put_back(201), kept(777), put_back(777)], (2, 1, 1)),
        (vec![kept(101), ended()], (1, 1, 0)),
        (vec![kept(101), kept(201), put_back(201), ended()], (1, 1, 0)),
        (vec![kept(101), activated(plugin(0), SessionId(1), 3)], (1, 1, 0)),
        (vec![kept(101), kept(201), removed(1)], (0, 0, 0)),
        // In flight, which an event never is: the mark goes with it.
        (vec![Change::Released { session: SessionId(1), sequence: Sequence(101) }, kept(101)], (2, 1, 1)),
    ] {
        let before = || [begin(), fan_out(1, 1), fan_out(2, 1)].concat();
        for parts in [vec![before(), then.clone()], vec![[before(), then.clone()].concat()]] {
            let mut tables = Tables::new();
            parts.iter().for_each(|part| tables.write(part));
            let found = (tables.count("messages"), tables.count("queue"), tables.count("kept"));
            assert_eq!(found, left, "{then:?} in {} parts", parts.len());
        }
    }
}

#[test]
fn what_came_and_went_within_a_commit_leaves_nothing_to_write() {
    let began = fan_out(7, 3);
    let mut changes = [began.clone(), vec![dequeued(1, 701, 7), dequeued(3, 703, 7), dequeued(2, 702, 7)]].concat();
    trim(&mut changes, 100);
    assert_eq!(changes, []);
    // An entry that stays keeps its message, and one that may be in the database is deleted there.
    let then = vec![dequeued(1, 100, 7), dequeued(1, 701, 7), dequeued(3, 703, 7)];
    let mut changes = [began.clone(), then.clone()].concat();
    trim(&mut changes, 100);
    assert_eq!(changes, [began[0].clone(), began[2].clone(), then[0].clone()]);
    // Of one to which more happened, everything is written.
    let kept = Change::Kept { session: SessionId(1), sequence: Sequence(701) };
    let mut changes = [began[..2].to_vec(), vec![kept, dequeued(1, 701, 7)]].concat();
    let all = changes.clone();
    trim(&mut changes, 100);
    assert_eq!(changes, all);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn coalescing_gives_the_same_tables_as_applying_one_by_one(steps in steps(300), lengths in vec(any::<u8>(), 1..8)) {
        let changes = changes(&steps);
        let mut one_by_one = Tables::new();
        changes.iter().for_each(|part| one_by_one.write_naively(part));
        let mut coalesced = Tables::new();
        groups(changes.clone(), &lengths).iter().for_each(|group| coalesced.write(group));
        prop_assert_eq!(coalesced.rows(), one_by_one.rows());
        let mut at_once = Tables::new();
        at_once.write(&changes.concat());
        prop_assert_eq!(at_once.rows(), one_by_one.rows());
        // As commits do it: each is trimmed, and one checkpoint has them all.
        let mut batch = Batch::new(0);
        for mut group in groups(changes, &lengths) {
            trim(&mut group, batch.highest());
            group.into_iter().for_each(|change| batch.push(change));
            batch.forget_messages();
        }
        let mut trimmed = Tables::new();
        trimmed.write_batch(&batch);
        prop_assert_eq!(trimmed.rows(), one_by_one.rows());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_snapshot_shows_all_that_was_handed_over(steps in steps(300), lengths in vec(0..20_u8, 1..8)) {
        let (data, disk) = (tempfile::tempdir().unwrap(), Disk::new());
        let store = disk.open(data.path()).store;
        let (mut model, mut last) = (Model::default(), 0);
        for mut group in groups(changes(&steps), &lengths) {
            group.iter().for_each(|change| model.apply(change));
            last += group.len() as u64;
            store.commit(&mut group, ChangeNumber(last));
            model.states().check_snapshots(&store);
        }
        model.check_store(&store);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_restart_gives_back_what_was_handed_over(steps in steps(400), lengths in vec(0..40_u8, 1..8), stop in 0..400_usize) {
        let directory = tempfile::tempdir().unwrap();
        let mut before = changes(&steps);
        let after = before.split_off(stop.min(before.len()));
        let mut model = Model::default();
        for part in [before, after] {
            part.iter().flatten().for_each(|change| model.apply(change));
            commit_and_close(open(directory.path()), groups(part, &lengths));
            model.check(&open(directory.path()));
        }
    }
}
