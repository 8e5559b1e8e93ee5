//! What earlier programs wrote is read, and counted where they did not count.

use redb::{Database, ReadableDatabase};

use super::model::Model;
use super::{commit_and_close, entry, message, open};
use crate::store::record::{QueueRow, SubscriptionRow};
use crate::store::tables;
use std::sync::Arc;
use vespiary_core::event::{
    Change, QueueEntry, RetainHandling, Sequence, SessionId, SubscriptionOptions, SubscriptionRecord,
};
use vespiary_core::message::{MessageId, Qos};

/// Message 300, QoS 1, not retained, identifiers 7 and 8, in flight under 9, not released.
const FIRST_QUEUE_ROW: &[u8] = &[1, 0xAC, 0x02, 1, 0, 1, 2, 7, 8, 1, 9, 0];
/// QoS 2, No Local, Retain Handling 1, no identifier.
const FIRST_SUBSCRIPTION_ROW: &[u8] = &[1, 2, 1, 0, 1, 0];

#[test]
fn rows_of_the_first_version_are_read_without_what_it_did_not_know() {
    let (entry, released) = QueueRow::decode(FIRST_QUEUE_ROW).unwrap().entry().unwrap();
    let expected = QueueEntry {
        message: MessageId(300),
        subscription_identifiers: Some([7, 8].into()),
        packet_id: Some(super::packet_id(9)),
        weight: 0,
        ..super::entry(300)
    };
    assert_eq!((entry, released), (expected, false));
    assert_eq!(QueueRow::message(FIRST_QUEUE_ROW).unwrap(), 300);
    let options = SubscriptionOptions {
        maximum_qos: Qos::ExactlyOnce,
        no_local: true,
        retain_as_published: false,
        retain_handling: RetainHandling::IfNew,
    };
    let subscription = SubscriptionRow::decode(FIRST_SUBSCRIPTION_ROW).unwrap().subscription().unwrap();
    assert_eq!(subscription, SubscriptionRecord { options, identifier: None, share: None });
    for (row, error) in [(&[][..], "it is empty"), (&[3, 0], "its version 3 is unknown"), (&[2, 0], "decoded")] {
        assert!(QueueRow::decode(row).err().unwrap().to_string().contains(error));
        assert!(SubscriptionRow::decode(row).err().unwrap().to_string().contains(error));
    }
    let trailing = [FIRST_QUEUE_ROW, &[0]].concat();
    assert!(QueueRow::decode(&trailing).err().unwrap().to_string().contains("1 bytes follow"));
}

#[test]
fn a_database_that_did_not_count_references_is_counted_at_start() {
    let directory = tempfile::tempdir().unwrap();
    let mut changes = Vec::new();
    for number in 1..=3 {
        let content = Arc::new(message("a", b"x"));
        changes.push(Change::MessageStored { message: MessageId(number), content });
        for session in 1..=number {
            let sequence = Sequence(10 * number + session);
            changes.push(Change::Queued { session: SessionId(session), sequence, entry: entry(number) });
        }
    }
    commit_and_close(open(directory.path()), [changes.clone()]);
    let path = directory.path().join("vespiary.redb");
    let database = Database::open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.delete_table(tables::REFERENCES).unwrap();
    // As the first version has it.
    let rows: Vec<(u64, u64, u64)> =
        (1..=3).flat_map(|number| (1..=number).map(move |session| (session, 10 * number + session, number))).collect();
    for (session, sequence, message) in rows {
        let row = [1, message as u8, 1, 0, 0, 0, 0];
        transaction.open_table(tables::QUEUE).unwrap().insert((session, sequence), row.as_slice()).unwrap();
    }
    // A message that nothing refers to, which should not have been.
    transaction.open_table(tables::MESSAGES).unwrap().insert(9, [1].as_slice()).unwrap();
    let mut meta = transaction.open_table(tables::META).unwrap();
    meta.insert(tables::META_FORMAT_VERSION, tables::UNCOUNTED_FORMAT_VERSION).unwrap();
    meta.remove(tables::META_COMMITS).unwrap();
    drop(meta);
    transaction.commit().unwrap();
    database.close().unwrap();

    let changes: Vec<Change> = changes
        .into_iter()
        .map(|change| match change {
            Change::Queued { session, sequence, entry } => {
                Change::Queued { session, sequence, entry: QueueEntry { weight: 0, ..entry } }
            }
            other => other,
        })
        .collect();
    let opened = open(directory.path());
    Model::of(&changes).check(&opened);
    opened.store.close().unwrap();
    drop(opened);
    let database = Database::open(&path).unwrap();
    let meta = database.begin_read().unwrap().open_table(tables::META).unwrap();
    assert_eq!(meta.get(tables::META_FORMAT_VERSION).unwrap().unwrap().value(), tables::FORMAT_VERSION);
    drop((meta, database));

    let removal = Change::SessionRemoved { session: SessionId(1) };
    commit_and_close(open(directory.path()), [vec![removal.clone()]]);
    Model::of(changes.iter().chain([&removal])).check(&open(directory.path()));
}
