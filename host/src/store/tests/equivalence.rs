//! Random changes: the store holds what the model holds, however they are grouped, coalesced and restarted between.

use proptest::collection::vec;
use proptest::prelude::*;
use redb::backends::InMemoryBackend;
use redb::{Database, Key, ReadableDatabase, ReadableTable, TableDefinition, Value};

use super::model::{Model, Step, changes};
use super::{commit_and_close, open};
use crate::store::batch::{Batch, Highest};
use crate::store::committer::commit_batch;
use crate::store::tables;
use vespiary_core::event::{Change, Sequence, SessionId};

fn steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
    vec((any::<u8>(), any::<u8>(), any::<u8>()), 0..most)
}

/// Splits changes into groups at random places.
fn groups(changes: Vec<Change>, lengths: &[u8]) -> Vec<Vec<Change>> {
    let mut lengths = lengths.iter().cycle().map(|&length| usize::from(length) + 1);
    let mut changes = changes.into_iter().peekable();
    let mut groups = Vec::new();
    while changes.peek().is_some() {
        groups.push(changes.by_ref().take(lengths.next().unwrap_or(1)).collect());
    }
    groups
}

/// A database in memory into which batches are written.
struct Tables {
    database: Database,
    highest: Highest,
    scratch: Vec<u8>,
}

impl Tables {
    fn new() -> Self {
        let database = Database::builder().create_with_backend(InMemoryBackend::new()).unwrap();
        tables::create_all(&database).unwrap();
        Self { database, highest: Highest::default(), scratch: Vec::new() }
    }

    fn write(&mut self, changes: &[Change]) {
        let mut batch = Batch::new(self.highest);
        changes.iter().cloned().for_each(|change| batch.push(change));
        commit_batch(&self.database, &batch, &mut self.scratch).unwrap();
        self.highest = batch.highest();
    }

    /// Writes one change without any knowledge of what is in the database.
    fn write_naively(&mut self, change: &Change) {
        self.highest = Highest { message: u64::MAX, sequence: u64::MAX };
        self.write(std::slice::from_ref(change));
    }

    /// Every row of every table, as bytes.
    fn rows(&self) -> Vec<(&'static str, Vec<u8>, Vec<u8>)> {
        let mut rows = Vec::new();
        self.dump("meta", tables::META, &mut rows);
        self.dump("sessions", tables::SESSIONS, &mut rows);
        self.dump("subscriptions", tables::SUBSCRIPTIONS, &mut rows);
        self.dump("messages", tables::MESSAGES, &mut rows);
        self.dump("queue", tables::QUEUE, &mut rows);
        self.dump("received", tables::RECEIVED, &mut rows);
        self.dump("retained", tables::RETAINED, &mut rows);
        self.dump("plugins", tables::PLUGINS, &mut rows);
        self.dump("plugin_revisions", tables::PLUGIN_REVISIONS, &mut rows);
        self.dump("plugin_state", tables::PLUGIN_STATE, &mut rows);
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

#[test]
fn a_row_that_the_database_holds_is_deleted_even_if_it_was_written_again_in_the_batch() {
    let (session, sequence) = (SessionId(1), Sequence(5));
    let queued = Change::Queued { session, sequence, entry: super::entry(1) };
    let mut tables = Tables::new();
    let empty = tables.rows();
    tables.write(std::slice::from_ref(&queued));
    assert_ne!(tables.rows(), empty);
    tables.write(&[queued, Change::Dequeued { session, sequence }]);
    assert_eq!(tables.rows(), empty);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn coalescing_gives_the_same_tables_as_applying_one_by_one(steps in steps(300), lengths in vec(any::<u8>(), 1..8)) {
        let changes = changes(&steps);
        let mut one_by_one = Tables::new();
        changes.iter().for_each(|change| one_by_one.write_naively(change));
        let mut coalesced = Tables::new();
        groups(changes.clone(), &lengths).iter().for_each(|group| coalesced.write(group));
        prop_assert_eq!(coalesced.rows(), one_by_one.rows());
        let mut at_once = Tables::new();
        at_once.write(&changes);
        prop_assert_eq!(at_once.rows(), one_by_one.rows());
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
            part.iter().for_each(|change| model.apply(change));
            commit_and_close(open(directory.path()), groups(part, &lengths));
            model.check(&open(directory.path()));
        }
    }
}
