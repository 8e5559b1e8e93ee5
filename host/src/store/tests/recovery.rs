//! Disks that fail and work again: what was handed over is on disk in the end, once, and until then nobody is told that
//! it is.

use std::io::ErrorKind;
use std::sync::Arc;

use super::model::{Model, changes};
use super::{entry, message, open, state, wait, wait_until};
use crate::store::testing::Disk;
use crate::store::{Durability, Opened, Store, StoreError};
use vespiary_core::event::{Change, ChangeNumber, Sequence, SessionId};
use vespiary_core::message::{MessageId, Timestamp};

const SESSION: SessionId = SessionId(1);

/// Operations of a disk for a commit: a write and a sync, and a further write where its file becomes longer.
const COMMIT_OPERATIONS: std::ops::RangeInclusive<usize> = 2..=3;

/// A message in the queues of three sessions, the one before out of one of them, state.
fn group(number: u64) -> Vec<Change> {
    let content = Arc::new(message("a/b", &vec![number as u8; 300]));
    let mut group = vec![Change::MessageStored { message: MessageId(number), content }];
    for session in 1..=3 {
        let sequence = Sequence(10 * number + session);
        group.push(Change::Queued { session: SessionId(session), sequence, entry: entry(number) });
    }
    if number > 1 {
        let (sequence, message) = (Sequence(10 * (number - 1) + number % 3 + 1), MessageId(number - 1));
        group.push(Change::Dequeued { session: SessionId(number % 3 + 1), sequence, message });
    }
    group.push(state(1, "last", Some(&number.to_be_bytes())));
    group
}

/// Hands a group over; gives the number of its last change.
fn commit(store: &Store, last: &mut ChangeNumber, changes: &[Change]) -> ChangeNumber {
    last.0 += changes.len() as u64;
    store.commit(&mut changes.to_vec(), *last);
    *last
}

fn is_failing(durability: &Durability) -> bool {
    matches!(durability, Durability::Failing(_))
}

/// Waits until so many further attempts have failed, or one has succeeded.
fn wait_for_failures(store: &Store, count: u64) {
    let before = store.commits().failures;
    while store.is_failing() && store.commits().failures < before + count {
        std::thread::yield_now();
    }
}

/// What is on the disk after everything was closed.
#[track_caller]
fn check(disk: &Disk, data: &std::path::Path, changes: &[Change]) {
    Model::of(changes).check(&disk.open(data));
}

/// A revision of a plugin. What history is kept depends on what there was before: done twice, it comes to something else.
fn activated(number: u32) -> Change {
    super::activated(super::plugin(0), SessionId(9), number)
}

#[test]
fn whatever_operation_fails_its_commit_is_on_disk_once_in_the_end() {
    let data = tempfile::tempdir().unwrap();
    let before: Vec<Change> = (1..=4).flat_map(group).chain((5..=14).map(activated)).collect();
    let failing: Vec<Change> = group(5).into_iter().chain([activated(1), activated(15)]).collect();
    let after = group(6);
    let all: Vec<Change> = [before.clone(), failing.clone(), after.clone()].concat();
    let (mut failed, mut operations) = (true, 0);
    while failed {
        let disk = Disk::new();
        let store = disk.open(data.path()).store;
        let mut last = ChangeNumber(0);
        let durable = commit(&store, &mut last, &before);
        store.stored_messages().expect("the database is brought up to the log");
        disk.fail_with(operations, [ErrorKind::StorageFull, ErrorKind::Other][operations % 2]);
        commit(&store, &mut last, &failing);
        wait_until(&store, |now| is_failing(now) || *now == Durability::UpTo(last));
        // The commit is written and synced, and then the database brought up to it.
        let is_committed = store.durable() == last;
        assert!(is_committed || store.durable() == durable);
        assert!(COMMIT_OPERATIONS.contains(&operations) || is_committed == (operations > *COMMIT_OPERATIONS.end()));
        failed = store.stored_messages().is_err();
        assert!(failed || is_committed);
        let waiting = commit(&store, &mut last, &after);
        disk.mend();
        assert_eq!(wait(&store, waiting), Durability::UpTo(waiting));
        assert!(!store.is_failing());
        Model::of(&all).check_store(&store);
        store.close().unwrap();
        drop(store);
        check(&disk, data.path(), &all);
        operations += 1;
    }
    assert!(operations > COMMIT_OPERATIONS.end() + 5, "{operations}");
}

#[test]
fn a_disk_that_keeps_failing_and_loses_power_meanwhile_loses_and_doubles_nothing() {
    for seed in 0..30 {
        let mut random = fastrand::Rng::with_seed(seed);
        let data = tempfile::tempdir().unwrap();
        let disk = Disk::new();
        let store = disk.open(data.path()).store;
        let steps: Vec<_> = (0..300).map(|_| (random.u8(..), random.u8(..), random.u8(..))).collect();
        let (mut last, mut handed_over) = (ChangeNumber(0), Vec::new());
        for part in changes(&steps) {
            commit(&store, &mut last, &part);
            handed_over.extend(part);
            if random.u8(0..12) > 0 {
                continue;
            }
            disk.fail_with(random.usize(0..25), [ErrorKind::StorageFull, ErrorKind::Other][random.usize(0..2)]);
            let written = state(9, "k", Some(&last.0.to_be_bytes()));
            commit(&store, &mut last, std::slice::from_ref(&written));
            handed_over.push(written);
            wait_until(&store, |now| is_failing(now) || *now == Durability::UpTo(last));
            if store.is_failing() && random.bool() {
                // A disk that comes back may do so for a moment only.
                disk.fail_after(random.usize(0..25));
                wait_for_failures(&store, 1);
            }
            disk.fail_after(0);
            if store.is_failing() && random.bool() {
                disk.cut_power(&mut random);
                // The next attempt but one begins after that.
                wait_for_failures(&store, 2);
            }
            disk.mend();
        }
        assert_eq!(wait(&store, last), Durability::UpTo(last), "seed {seed}");
        Model::of(&handed_over).check_store(&store);
        store.close().unwrap();
        drop(store);
        check(&disk, data.path(), &handed_over);
    }
}

#[test]
fn while_it_fails_everybody_is_told_and_what_is_handed_over_is_kept() {
    let data = tempfile::tempdir().unwrap();
    let disk = Disk::new();
    let Opened { store, .. } = disk.open(data.path());
    let mut last = ChangeNumber(0);
    let durable = commit(&store, &mut last, &group(1));
    wait(&store, durable);
    let before = store.snapshot(SESSION, Timestamp(0)).unwrap();
    disk.fail_after(0);
    commit(&store, &mut last, &group(2));
    let Durability::Failing(reason) = wait_until(&store, is_failing) else { unreachable!("as waited for") };
    assert!(reason.contains("no storage space"), "{reason}");
    assert!(store.is_failing());
    for error in [
        store.snapshot(SESSION, Timestamp(0)).err(),
        store.dead_letters(SESSION, None, 1).err(),
        store.stored_messages().err(),
    ] {
        let error = error.expect("nothing can be read");
        assert!(error.is_passing() && error.to_string().contains("no storage space"), "{error}");
    }
    let waiting = commit(&store, &mut last, &group(3));
    assert!(store.backlog_bytes() > 600, "{}", store.backlog_bytes());
    wait_for_failures(&store, 3);
    assert_eq!((store.durable(), store.commits().commits), (durable, 1));
    disk.mend();
    wait(&store, waiting);
    assert_eq!((store.is_failing(), store.backlog_bytes()), (false, 0));
    // What was read before the failure is as it was, or is not there; it is not something else.
    if let Ok(value) = before.get("last") {
        assert_eq!(value.as_deref(), Some(&1u64.to_be_bytes()[..]));
    }
    let now = store.snapshot(SESSION, Timestamp(0)).unwrap();
    assert_eq!(now.get("last").unwrap().as_deref(), Some(&3u64.to_be_bytes()[..]));
}

#[test]
fn a_disk_that_cannot_be_read_for_a_while_is_read_again_without_a_commit() {
    let data = tempfile::tempdir().unwrap();
    let disk = Disk::new();
    let store = disk.open(data.path()).store;
    let mut last = ChangeNumber(0);
    let durable = commit(&store, &mut last, &group(1));
    wait(&store, durable);
    drop(store);
    // Opened anew, so that nothing is in memory but what opening reads.
    let store = disk.open(data.path()).store;
    disk.set_unreadable(true);
    let read = || store.snapshot(SESSION, Timestamp(0)).and_then(|snapshot| snapshot.get("last"));
    // Reading may still be served from memory; what is certain is that it works afterwards.
    let _ = read();
    disk.set_unreadable(false);
    while read().is_err() {
        std::thread::yield_now();
    }
    assert_eq!(read().unwrap().as_deref(), Some(&1u64.to_be_bytes()[..]));
}

#[test]
fn a_snapshot_in_use_does_not_keep_the_file_from_being_opened_anew() {
    let data = tempfile::tempdir().unwrap();
    let store = open(data.path()).store;
    let mut last = ChangeNumber(0);
    let mut changes = group(1);
    // More than one page, so that there is something left to read.
    changes.extend((0..500).map(|number| state(1, &format!("key/{number:04}"), Some(&[7; 100]))));
    wait(&store, commit(&store, &mut last, &changes));
    store.close().unwrap();
    drop(store);
    let store = open(data.path()).store;
    let snapshot = store.snapshot(SESSION, Timestamp(0)).unwrap();
    // As after a read that failed: the file is whole, and is opened anew all the same.
    store.inner.exchange.cannot_read();
    wait_until(&store, is_failing);
    assert!(store.check().is_err());
    let mut last = ChangeNumber(0);
    wait(&store, commit(&store, &mut last, &group(2)));
    assert!(store.check().is_ok());
    let error = snapshot.scan("key/", None, usize::MAX).expect_err("the snapshot is cut off");
    assert!(matches!(error, StoreError::Closed { .. }), "{error}");
    assert_eq!(store.snapshot(SESSION, Timestamp(0)).unwrap().scan("key/", None, usize::MAX).unwrap().len(), 500);
}

#[test]
fn closing_tries_once_more_and_says_what_is_lost() {
    for mended in [true, false] {
        let data = tempfile::tempdir().unwrap();
        let disk = Disk::new();
        let store = disk.open(data.path()).store;
        let mut last = ChangeNumber(0);
        let durable = commit(&store, &mut last, &group(1));
        wait(&store, durable);
        disk.fail_after(0);
        commit(&store, &mut last, &group(2));
        wait_until(&store, is_failing);
        commit(&store, &mut last, &group(3));
        if mended {
            disk.mend();
            store.close().unwrap();
            assert_eq!(store.durable(), last);
        } else {
            let Err(error @ StoreError::Lost { changes, .. }) = store.close() else { panic!("nothing can be written") };
            assert_eq!((changes, store.durable()), (last.0 - durable.0, durable));
            assert!(error.to_string().contains("no storage space"), "{error}");
            assert!(matches!(&*store.watch().borrow(), Durability::Failed(_)));
        }
        drop(store);
        disk.mend();
        let groups = if mended { 3 } else { 1 };
        check(&disk, data.path(), &(1..=groups).flat_map(group).collect::<Vec<_>>());
    }
}

#[test]
fn damage_ends_commits_for_good() {
    type Damage<'a> = (&'static str, &'a dyn Fn(&Store, &Disk));
    let damages: [Damage<'_>; 3] = [
        ("invalid data", &|_, disk| disk.fail_with(0, ErrorKind::InvalidData)),
        ("row of table queue", &|store, _| {
            let damaged = store.read(|database| {
                let transaction = database.begin_write().unwrap();
                let row = [9, 9, 9];
                transaction.open_table(crate::store::tables::QUEUE).unwrap().insert((2, 22), row.as_slice()).unwrap();
                transaction.commit().unwrap();
                Ok(())
            });
            damaged.unwrap();
        }),
        ("frame 2 was in the database", &|store, disk| {
            // The disk forgets a transaction that it had said is written.
            let image = disk.image_after_power_cut(&mut fastrand::Rng::with_seed(1));
            store.commit(&mut group(2), ChangeNumber(11));
            store.stored_messages().unwrap();
            disk.fail_after(0);
            disk.replace(image);
        }),
    ];
    for (expected, damage) in damages {
        let data = tempfile::tempdir().unwrap();
        let disk = Disk::new();
        let store = disk.open(data.path()).store;
        store.commit(&mut group(1), ChangeNumber(5));
        store.stored_messages().unwrap();
        damage(&store, &disk);
        let durable = store.durable();
        let mut marked = group(3);
        let sequence = Sequence(22);
        marked.push(Change::Released { session: SessionId(2), sequence });
        store.commit(&mut marked, ChangeNumber(20));
        mend_when_noticed(&store, &disk);
        let has_failed = |now: &Durability| matches!(now, Durability::Failed(_));
        let Durability::Failed(reason) = wait_until(&store, has_failed) else { unreachable!("as waited for") };
        assert!(reason.contains(expected), "{reason}");
        // A row is looked at when the commit is in the log already.
        let durable = if expected.starts_with("row") { ChangeNumber(20) } else { durable };
        assert_eq!((store.durable(), store.backlog_bytes(), store.is_failing()), (durable, 0, true));
        let mut late = group(4);
        store.commit(&mut late, ChangeNumber(30));
        assert!(late.is_empty());
        assert!(matches!(store.close(), Err(StoreError::Lost { .. })));
    }
}

/// Lets the disk work again once it was noticed that it does not.
fn mend_when_noticed(store: &Store, disk: &Disk) {
    wait_until(store, |now| !matches!(now, Durability::UpTo(_)));
    disk.mend();
}
