//! Power cuts, full disks and kills: what is found afterwards is a prefix of the groups, at least up to the number that
//! was reported durable.

use std::io::{self, BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use redb::{Database, StorageBackend};

use super::model::Model;
use super::{entry, message, open, packet_id, state, wait};
use crate::store::components::Components;
use crate::store::{Durability, LockHolder, Opened, Store, StoreError, StoreOptions, directory, tables};
use vespiary_core::event::{Change, ChangeNumber, Sequence, SessionId};
use vespiary_core::message::MessageId;

const SESSION: SessionId = SessionId(1);

/// Every group has this many changes, so that numbers tell groups.
const CHANGES_PER_GROUP: u64 = 6;

/// The group with this number, from 1: a message queued, the one before the last but two dequeued, state.
fn group(number: u64) -> Vec<Change> {
    let payload = vec![number as u8; (number as usize * 37) % 900];
    let old = number.saturating_sub(3);
    vec![
        Change::MessageStored { message: MessageId(number), content: Arc::new(message("a/b", &payload)) },
        Change::Queued { session: SESSION, sequence: Sequence(number), entry: entry(number) },
        Change::Sent { session: SESSION, sequence: Sequence(number), packet_id: packet_id(1 + number as u16 % 9) },
        Change::Dequeued { session: SESSION, sequence: Sequence(old) },
        Change::MessageReleased { message: MessageId(old) },
        state(SESSION.0, &format!("key/{}", number % 5), Some(&number.to_be_bytes())),
    ]
}

/// Checks that what is found is the first groups and nothing of any other. Gives their number.
fn check_prefix(opened: &Opened, most: u64) -> u64 {
    let snapshot = opened.store.snapshot(SESSION).unwrap();
    let written = snapshot.scan("key/", None, 5).unwrap();
    let groups = written.into_iter().map(|(_, value)| u64::from_be_bytes(value.try_into().unwrap())).max();
    let groups = groups.unwrap_or(0);
    assert!(groups <= most, "{groups} groups of {most}");
    let mut model = Model::default();
    (1..=groups).flat_map(group).for_each(|change| model.apply(&change));
    model.check(opened);
    groups
}

/// A disk that stops working after some operations, and forgets some of what was not synced.
#[derive(Debug, Clone)]
struct Disk(Arc<Mutex<Platters>>);

#[derive(Debug)]
struct Platters {
    /// What is read: everything written.
    live: Vec<u8>,
    /// What survives for sure.
    synced: Vec<u8>,
    /// What was done since the last sync.
    unsynced: Vec<Unsynced>,
    /// Operations that are still carried out.
    operations_left: usize,
}

#[derive(Debug)]
enum Unsynced {
    Length(usize),
    Write(usize, Vec<u8>),
}

impl Unsynced {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Length(length) => bytes.resize(*length, 0),
            Self::Write(offset, data) => {
                bytes.resize(bytes.len().max(offset + data.len()), 0);
                bytes[*offset..offset + data.len()].copy_from_slice(data);
            }
        }
    }
}

impl Disk {
    fn new(image: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(Platters {
            live: image.clone(),
            synced: image,
            unsynced: Vec::new(),
            operations_left: usize::MAX,
        })))
    }

    fn fail_after(&self, operations: usize) {
        self.0.lock().unwrap().operations_left = operations;
    }

    /// What is on the disk after the power is back: all that was synced, and of the rest each write whole, in part
    /// (sectors of 512 bytes), or not at all.
    fn image_after_power_cut(&self, random: &mut fastrand::Rng) -> Vec<u8> {
        let platters = self.0.lock().unwrap();
        let mut image = platters.synced.clone();
        for unsynced in &platters.unsynced {
            match (random.u8(0..3), unsynced) {
                (0, _) => {}
                (1, Unsynced::Write(offset, data)) => {
                    let kept = random.usize(0..=data.len().div_ceil(512)) * 512;
                    Unsynced::Write(*offset, data[..kept.min(data.len())].to_vec()).apply(&mut image);
                }
                _ => unsynced.apply(&mut image),
            }
        }
        image
    }

    fn operate(&self, unsynced: Option<Unsynced>) -> io::Result<()> {
        let mut platters = self.0.lock().unwrap();
        if platters.operations_left == 0 {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "no space left on device"));
        }
        platters.operations_left -= 1;
        if let Some(unsynced) = unsynced {
            unsynced.apply(&mut platters.live);
            platters.unsynced.push(unsynced);
        } else {
            platters.synced = platters.live.clone();
            platters.unsynced.clear();
        }
        Ok(())
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().live.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let platters = self.0.lock().unwrap();
        let bytes = platters.live.get(offset as usize..offset as usize + out.len());
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.operate(Some(Unsynced::Length(length as usize)))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.operate(None)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.operate(Some(Unsynced::Write(offset as usize, data.to_vec())))
    }
}

/// The bytes of a new database.
fn empty_image() -> Vec<u8> {
    let disk = Disk::new(Vec::new());
    let database = Database::builder().create_with_backend(disk.clone()).unwrap();
    tables::create_all(&database).unwrap();
    database.close().unwrap();
    disk.0.lock().unwrap().live.clone()
}

/// A store on a disk, with its lock and components in a directory.
fn open_on(disk: &Disk, data: &Path) -> Opened {
    let database = directory::builder(&StoreOptions::default(), false, data).create_with_backend(disk.clone()).unwrap();
    let (components, lock) = (Components::open(data).unwrap(), directory::lock(data).unwrap());
    Store::start(database, data.into(), components, lock).unwrap()
}

/// Hands over groups, waiting now and then, until all are durable or a commit fails. Gives the groups handed over.
fn run(opened: &Opened, groups: u64, random: &mut fastrand::Rng) -> u64 {
    for number in 1..=groups {
        let last = ChangeNumber(number * CHANGES_PER_GROUP);
        opened.store.commit(&mut group(number), last);
        if (random.u8(0..3) == 0 || number == groups) && wait(&opened.store, last) != Durability::UpTo(last) {
            return number;
        }
    }
    groups
}

#[test]
fn a_power_cut_leaves_a_prefix_of_the_groups_at_least_up_to_the_durable_number() {
    const GROUPS: u64 = 40;
    let empty = empty_image();
    let data = tempfile::tempdir().unwrap();
    for seed in 0..150 {
        let mut random = fastrand::Rng::with_seed(seed);
        let disk = Disk::new(empty.clone());
        let opened = open_on(&disk, data.path());
        disk.fail_after(random.usize(0..250));
        let handed_over = run(&opened, GROUPS, &mut random);
        let durable = opened.store.durable().0;
        let image = disk.image_after_power_cut(&mut random);
        // What closing does to a disk that has stopped is nothing; where it has not, the image is the earlier one.
        drop(opened);

        let opened = open_on(&Disk::new(image), data.path());
        let found = check_prefix(&opened, handed_over);
        assert!(found * CHANGES_PER_GROUP >= durable, "seed {seed}: {found} groups, change {durable} was durable");
        // And it goes on from there.
        opened.store.commit(&mut group(found + 1), ChangeNumber(1));
        assert_eq!(wait(&opened.store, ChangeNumber(1)), Durability::UpTo(ChangeNumber(1)));
    }
}

#[test]
fn a_commit_that_fails_is_reported_and_nothing_becomes_durable_any_more() {
    let data = tempfile::tempdir().unwrap();
    let disk = Disk::new(empty_image());
    let opened = open_on(&disk, data.path());
    let store = opened.store.clone();
    let mut random = fastrand::Rng::with_seed(1);
    assert_eq!(run(&opened, 3, &mut random), 3);
    let (durable, committed) = (store.durable(), store.commits());
    assert_eq!(durable, ChangeNumber(3 * CHANGES_PER_GROUP));

    disk.fail_after(0);
    store.commit(&mut group(4), ChangeNumber(4 * CHANGES_PER_GROUP));
    let Durability::Failed(reason) = wait(&store, ChangeNumber(4 * CHANGES_PER_GROUP)) else {
        panic!("the commit succeeded on a disk that does not work");
    };
    assert!(reason.contains("no space left on device"), "{reason}");
    // The disk works again, yet a later group must not be durable without the one before it.
    disk.fail_after(usize::MAX);
    let mut late = group(5);
    store.commit(&mut late, ChangeNumber(5 * CHANGES_PER_GROUP));
    assert!(late.is_empty());
    store.close();
    assert_eq!((store.durable(), store.commits(), store.backlog_bytes()), (durable, committed, 0));
    assert_eq!(*store.watch().borrow(), Durability::Failed(reason));
    drop((store, opened));

    let image = disk.0.lock().unwrap().live.clone();
    let found = check_prefix(&open_on(&Disk::new(image), data.path()), 4);
    assert!(found == 3 || found == 4, "{found}");
}

/// Names the data directory to the child process of the test below.
const CHILD_DIRECTORY: &str = "VESPIARY_TEST_KILLED_STORE";

/// Not a test of its own: what the child process does until it is killed.
#[test]
fn child_that_is_killed() {
    let Some(data) = std::env::var_os(CHILD_DIRECTORY) else { return };
    let opened = open(Path::new(&data));
    let mut output = io::stdout();
    for number in 1.. {
        let last = ChangeNumber(number * CHANGES_PER_GROUP);
        opened.store.commit(&mut group(number), last);
        if number % 3 == 0 {
            wait(&opened.store, last);
        }
        writeln!(output, "\ndurable {} of {number}", opened.store.durable().0).unwrap();
        output.flush().unwrap();
    }
}

#[test]
fn a_killed_process_leaves_a_prefix_of_the_groups_at_least_up_to_the_durable_number() {
    for reports in [1, 20, 150] {
        let data = tempfile::tempdir().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::tests::crash::child_that_is_killed", "--nocapture"])
            .env(CHILD_DIRECTORY, data.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut lines = lines.filter_map(|line| {
            let (durable, _) = line.strip_prefix("durable ")?.split_once(" of ")?;
            Some(durable.parse::<u64>().unwrap())
        });
        let durable = lines.by_ref().take(reports).last().unwrap();
        match Store::open(data.path(), &StoreOptions::default()) {
            Err(StoreError::InUse { pid, .. }) => assert_eq!(pid, LockHolder(Some(child.id()))),
            other => panic!("the directory of a running process: {other:?}"),
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let durable = lines.last().unwrap_or(durable);
        let found = check_prefix(&open(data.path()), u64::MAX);
        assert!(found * CHANGES_PER_GROUP >= durable, "{found} groups, change {durable} was durable");
    }
}
