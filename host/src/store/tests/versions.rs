//! What earlier programs wrote is read, and counted and measured where they did not do that.

use redb::{Database, ReadableDatabase};

use super::model::Model;
use super::{commit_and_close, entry, message, open};
use crate::store::record::{QueueRow, SubscriptionRow};
use crate::store::tables;
use std::sync::Arc;
use vespiary_core::event::{
    Change, DeadLetter, QueueEntry, RetainHandling, Sequence, SessionId, SessionRecord, SubscriptionOptions,
    SubscriptionRecord,
};
use vespiary_core::message::{Message, MessageId, Qos, Timestamp};

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
    for (row, error) in [(&[][..], "it is empty"), (&[4, 0], "its version 4 is unknown"), (&[2, 0], "decoded")] {
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
    meta.remove(tables::META_FRAME).unwrap();
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

#[test]
fn a_database_of_the_second_version_is_read_and_its_state_is_measured() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path()));
    let path = directory.path().join("vespiary.redb");
    let database = Database::open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.delete_table(tables::KEPT).unwrap();
    transaction.delete_table(tables::PLUGIN_UNDO).unwrap();
    transaction.delete_table(tables::STATE_EXPIRY).unwrap();
    transaction.delete_table(tables::STATE_BYTES).unwrap();
    transaction.delete_table(tables::TIMERS).unwrap();
    let put = |table, key, row: &[u8]| drop(transaction.open_table(table).unwrap().insert(key, row).unwrap());
    let put_of = |table, key: (u64, u64), row: &[u8]| {
        transaction.open_table(table).unwrap().insert(key, row).unwrap();
    };
    // Topic a, payload x, QoS 1, received at 7, by nobody.
    let message = b"\x01\x01a\x01x\x01\x00\x00\x00\x07\x00";
    put(tables::MESSAGES, 10, message);
    put(tables::SESSIONS, 1, b"\x01\x01c\x05\x00\x00");
    put_of(tables::QUEUE, (2, 20), &[2, 10, 1, 0, 0, 0, 0, 0, 5]);
    put_of(tables::DEAD_LETTERS, (2, 19), &[message, &b"\x01r\x02\x08"[..]].concat());
    let revision = [&[1, 2, 1][..], &[1; 32], b"\x050.1.0\x01"].concat();
    transaction.open_table(tables::PLUGINS).unwrap().insert("health", revision.as_slice()).unwrap();
    let mut revisions = transaction.open_table(tables::PLUGIN_REVISIONS).unwrap();
    revisions.insert(("health", 1), [&[1][..], &revision[2..]].concat().as_slice()).unwrap();
    drop(revisions);
    let mut values = transaction.open_table(tables::PLUGIN_STATE).unwrap();
    values.insert((2, "pump-1"), b"\x01{}".as_slice()).unwrap();
    values.insert((2, "pump-2"), b"\x01".as_slice()).unwrap();
    drop(values);
    transaction.open_table(tables::META).unwrap().insert(tables::META_FORMAT_VERSION, 2).unwrap();
    transaction.commit().unwrap();
    database.close().unwrap();

    let (inbox, content) = (SessionId(2), Arc::new(Message { received_at: Timestamp(7), ..super::message("a", b"x") }));
    let content = Arc::new(Message { publisher: "".into(), ..(*content).clone() });
    let record = SessionRecord { client_id: "c".into(), session_expiry_s: 5, disconnected_at: None, will: None };
    let letter = DeadLetter { content: content.clone(), reason: "r".into(), attempts: 2, at: Timestamp(8) };
    let mut changes = vec![
        super::activated(super::plugin(0), inbox, 1),
        Change::SessionStored { session: SessionId(1), record: Box::new(record) },
        Change::MessageStored { message: MessageId(10), content },
        Change::Queued { session: inbox, sequence: Sequence(20), entry: entry(10) },
        super::state(2, "pump-1", Some(b"{}")),
        super::state(2, "pump-2", Some(b"")),
        Change::DeadLettered { session: inbox, sequence: Sequence(19), letter },
    ];
    let opened = open(directory.path());
    Model::of(&changes).check(&opened);
    assert_eq!(opened.store.state_bytes(inbox).unwrap(), 14);
    // And it goes on from there: a row of the former version is changed, and the sum of the state grows.
    let more = [
        super::on_probation(super::plugin(0), inbox, 2),
        Change::Kept { session: inbox, sequence: Sequence(20) },
        super::states::with_undo(super::state(2, "pump-1", Some(b"{...}"))),
    ];
    changes.extend(more.clone());
    commit_and_close(opened, [more.to_vec()]);
    Model::of(&changes).check(&open(directory.path()));
    let back = [
        Change::PutBack { session: inbox, sequence: Sequence(20) },
        Change::ProbationEnded { plugin: super::plugin(0), session: inbox, undone: true },
        super::activated(super::plugin(0), inbox, 3),
    ];
    changes.extend(back.clone());
    commit_and_close(open(directory.path()), [back.to_vec()]);
    Model::of(&changes).check(&open(directory.path()));
}
