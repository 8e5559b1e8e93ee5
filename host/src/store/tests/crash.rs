//! Power cuts, full disks and kills: what is found afterwards is a prefix of the groups, at least up to the number that
//! was reported durable.

use std::io::{self, BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use super::model::Model;
use super::{entry, message, open, packet_id, state, wait, wait_until};
use crate::store::testing::Disk;
use crate::store::{Durability, LockHolder, Opened, Store, StoreError, StoreOptions};
use vespiary_core::event::{Change, ChangeNumber, Sequence, SessionId};
use vespiary_core::message::MessageId;

const SESSION: SessionId = SessionId(1);

/// Every group has this many changes, so that numbers tell groups.
const CHANGES_PER_GROUP: u64 = 5;

/// The group with this number, from 1: a message queued, the one before the last but two dequeued, state.
fn group(number: u64) -> Vec<Change> {
    let payload = vec![number as u8; (number as usize * 37) % 900];
    let old = number.saturating_sub(3);
    vec![
        Change::MessageStored { message: MessageId(number), content: Arc::new(message("a/b", &payload)) },
        Change::Queued { session: SESSION, sequence: Sequence(number), entry: entry(number) },
        Change::Sent { session: SESSION, sequence: Sequence(number), packet_id: packet_id(1 + number as u16 % 9) },
        Change::Dequeued { session: SESSION, sequence: Sequence(old), message: MessageId(old) },
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
    Model::of(&(1..=groups).flat_map(group).collect::<Vec<_>>()).check(opened);
    groups
}

/// Hands over groups, waiting now and then, until all are durable or a commit fails. Gives the groups handed over.
fn run(opened: &Opened, groups: u64, random: &mut fastrand::Rng) -> u64 {
    for number in 1..=groups {
        let last = ChangeNumber(number * CHANGES_PER_GROUP);
        opened.store.commit(&mut group(number), last);
        if (random.u8(0..3) == 0 || number == groups) && !is_written(&opened.store, last) {
            return number;
        }
    }
    groups
}

/// Waits until a number is durable, or a commit fails; whether it is durable.
fn is_written(store: &Store, number: ChangeNumber) -> bool {
    wait_until(store, |durability| match durability {
        Durability::UpTo(durable) => *durable >= number,
        Durability::Failing(_) | Durability::Failed(_) => true,
    }) == Durability::UpTo(number)
}

#[test]
fn a_power_cut_leaves_a_prefix_of_the_groups_at_least_up_to_the_durable_number() {
    const GROUPS: u64 = 40;
    let data = tempfile::tempdir().unwrap();
    for seed in 0..150 {
        let mut random = fastrand::Rng::with_seed(seed);
        let disk = Disk::new();
        let opened = disk.open(data.path());
        disk.fail_after(random.usize(0..250));
        let handed_over = run(&opened, GROUPS, &mut random);
        let durable = opened.store.durable().0;
        let image = disk.image_after_power_cut(&mut random);
        // What closing does to a disk that has stopped is nothing; where it has not, the image is the earlier one.
        drop(opened);

        let opened = Disk::with(image).open(data.path());
        let found = check_prefix(&opened, handed_over);
        assert!(found * CHANGES_PER_GROUP >= durable, "seed {seed}: {found} groups, change {durable} was durable");
        // And it goes on from there.
        opened.store.commit(&mut group(found + 1), ChangeNumber(1));
        assert_eq!(wait(&opened.store, ChangeNumber(1)), Durability::UpTo(ChangeNumber(1)));
    }
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
