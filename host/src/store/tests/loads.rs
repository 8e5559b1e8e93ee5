//! Queues read back: in order, in parts, not before their change is durable, and not without bound. That they hold what
//! they should is shown with random changes, see `model.rs`.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use redb::ReadableDatabase;

use super::model::Model;
use super::{LoadRequest, Store, commit_and_close, entry, load_all, message, open, wait};
use crate::store::testing::Disk;
use crate::store::{StoreError, tables};
use vespiary_core::event::{
    Change, ChangeNumber, LoadTicket, LoadedEntry, QueueEntry, Sequence, SessionId, SessionRecord,
};
use vespiary_core::message::MessageId;

const SESSION: SessionId = SessionId(1);

/// Long enough for what is not to happen.
const MOMENT: Duration = Duration::from_millis(50);
/// Longer than anything takes that is to happen.
const PATIENCE: Duration = Duration::from_secs(20);

type Answers = mpsc::Receiver<(LoadTicket, Option<Vec<LoadedEntry>>)>;

fn answers(store: &Store) -> Answers {
    let (sender, receiver) = mpsc::channel();
    store.answer_loads(Box::new(move |ticket, entries| sender.send((ticket, entries)).unwrap()));
    receiver
}

fn ask(store: &Store, ticket: u64, after: u64, change: u64) {
    let (ticket, after, change) = (LoadTicket(ticket), Sequence(after), ChangeNumber(change));
    store.load(LoadRequest { ticket, session: SESSION, after, max: 100, max_bytes: usize::MAX, change });
}

/// A message with a payload of so many bytes in the queue, under its own number.
fn queued(number: u64, bytes: usize) -> Vec<Change> {
    vec![
        Change::MessageStored { message: MessageId(number), content: Arc::new(message("a", &vec![7; bytes])) },
        Change::Queued { session: SESSION, sequence: Sequence(number), entry: entry(number) },
    ]
}

fn sequences(entries: Option<Vec<LoadedEntry>>) -> Vec<u64> {
    entries.expect("queues can be read").iter().map(|entry| entry.sequence.0).collect()
}

#[test]
fn an_answer_sees_the_change_it_waits_for_and_keeps_no_other_waiting() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).store;
    let answers = answers(&store);
    store.commit(&mut queued(1, 1), ChangeNumber(2));
    ask(&store, 1, 0, 4);
    ask(&store, 2, 0, 2);
    let (ticket, entries) = answers.recv_timeout(PATIENCE).unwrap();
    assert_eq!((ticket, sequences(entries)), (LoadTicket(2), vec![1]));
    assert!(answers.recv_timeout(MOMENT).is_err(), "change 4 is not durable");
    store.commit(&mut queued(2, 1), ChangeNumber(4));
    let (ticket, entries) = answers.recv_timeout(PATIENCE).unwrap();
    assert_eq!((ticket, sequences(entries)), (LoadTicket(1), vec![1, 2]));
    ask(&store, 3, 2, 0);
    assert_eq!(answers.recv_timeout(PATIENCE).unwrap(), (LoadTicket(3), Some(vec![])), "there are no more");
    let loads = store.loads();
    assert_eq!((loads.loads, loads.entries), (3, 3));
    assert!(!loads.mean.is_zero());
}

#[test]
fn answers_that_nobody_takes_are_bounded() {
    const BYTES: usize = 1 << 20;
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).store;
    let answers = answers(&store);
    store.commit(&mut queued(1, BYTES), ChangeNumber(2));
    (0..50).for_each(|ticket| ask(&store, ticket, 0, 2));
    let mut given = 0;
    while answers.recv_timeout(if given < 32 { PATIENCE } else { 4 * MOMENT }).is_ok() {
        given += 1;
    }
    // Somewhat more than 32 MiB, since it stops only once there are more.
    assert!((32..=33).contains(&given), "{given}");
    store.load_taken();
    store.load_taken();
    answers.recv_timeout(PATIENCE).unwrap();
    given += 1;
    // What waits when the store is closed is dropped.
    store.close().unwrap();
    while answers.try_recv().is_ok() {
        given += 1;
    }
    assert!(given < 40, "{given}");
    ask(&store, 99, 0, 0);
    assert!(answers.try_recv().is_err());
}

#[test]
fn while_the_store_is_failing_every_question_is_answered_with_none() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Disk::new();
    let store = disk.open(directory.path()).store;
    let answers = answers(&store);
    store.commit(&mut queued(1, 1), ChangeNumber(2));
    wait(&store, ChangeNumber(2));
    disk.fail_after(0);
    store.commit(&mut queued(2, 1), ChangeNumber(4));
    ask(&store, 1, 0, 4);
    assert_eq!(answers.recv_timeout(PATIENCE).unwrap(), (LoadTicket(1), None));
    ask(&store, 2, 0, 0);
    assert_eq!(answers.recv_timeout(PATIENCE).unwrap(), (LoadTicket(2), None));
    disk.mend();
    wait(&store, ChangeNumber(4));
    ask(&store, 3, 0, 4);
    assert_eq!(sequences(answers.recv_timeout(PATIENCE).unwrap().1), [1, 2]);
}

#[test]
fn an_entry_whose_message_is_missing_is_left_out() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).store;
    let mut changes = (1..=3).flat_map(|number| queued(number, 1)).collect();
    store.commit(&mut changes, ChangeNumber(6));
    store.stored_messages().expect("the database has them");
    let damaged = store.read(|database| {
        let transaction = database.begin_write().map_err(StoreError::database("write", directory.path()))?;
        transaction.open_table(tables::MESSAGES).unwrap().remove(2).unwrap();
        transaction.commit().unwrap();
        Ok(())
    });
    damaged.unwrap();
    let answers = answers(&store);
    ask(&store, 1, 0, 0);
    assert_eq!(sequences(answers.recv_timeout(PATIENCE).unwrap().1), [1, 3]);
}

#[test]
fn opening_reads_sessions_and_not_messages() {
    const SESSIONS: u64 = 100;
    const MESSAGES: u64 = 1_000;
    let directory = tempfile::tempdir().unwrap();
    let groups = (0..SESSIONS).map(|session| {
        let id = SessionId(session);
        let record = SessionRecord {
            client_id: session.to_string().into(),
            session_expiry_s: 1,
            disconnected_at: None,
            will: None,
        };
        let mut group = vec![Change::SessionStored { session: id, record: Box::new(record) }];
        for number in (1 + session * MESSAGES / SESSIONS)..=((session + 1) * MESSAGES / SESSIONS) {
            let content = Arc::new(message("a", b"x"));
            group.push(Change::MessageStored { message: MessageId(number), content });
            let entry = QueueEntry { weight: 3, ..entry(number) };
            group.push(Change::Queued { session: id, sequence: Sequence(number), entry });
        }
        group
    });
    let groups: Vec<Vec<Change>> = groups.collect();
    commit_and_close(open(directory.path()), groups.clone());
    let opened = open(directory.path());
    assert_eq!(opened.changes.len() as u64, 2 * SESSIONS);
    let (messages, bytes) = (MESSAGES / SESSIONS, 3 * MESSAGES / SESSIONS);
    assert!(opened.changes.contains(&Change::QueueKept { session: SessionId(7), messages, bytes }));
    Model::of(groups.iter().flatten()).check(&opened);
    let last = SessionId(SESSIONS - 1);
    let loaded = load_all(&opened.store, &[last], 4, usize::MAX).remove(0);
    assert_eq!(loaded.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4, 2, 0]);
    let snapshot = opened.store.read(|database| Ok(database.begin_read().unwrap().list_tables().unwrap().count()));
    assert_eq!(snapshot.unwrap(), 17, "tables");
}
