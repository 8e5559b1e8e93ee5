//! Power cuts, full disks and kills: what is found afterwards is a prefix of the groups, at least up to the number that
//! was reported durable.

use std::io::{self, BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use super::model::Model;
use super::states::{FUTURE, expiring, with_undo};
use super::{activated, entry, message, on_probation, open, packet_id, plugin, state, wait, wait_until};
use crate::store::testing::Disk;
use crate::store::{Durability, LockHolder, Opened, Store, StoreError, StoreOptions};
use vespiary_core::event::{Change, ChangeNumber, Sequence, SessionId, Timer};
use vespiary_core::message::{MessageId, Timestamp};

const SESSION: SessionId = SessionId(1);

/// A plugin's.
const INBOX: SessionId = SessionId(2);

/// The group with this number, from 1: a message queued, the one before the last but two dequeued, state; and what happens
/// to a plugin.
fn group(number: u64) -> Vec<Change> {
    let payload = vec![number as u8; (number as usize * 37) % 900];
    let old = number.saturating_sub(3);
    let mut group = vec![
        Change::MessageStored { message: MessageId(number), content: Arc::new(message("a/b", &payload)) },
        Change::Queued { session: SESSION, sequence: Sequence(number), entry: entry(number) },
        Change::Sent { session: SESSION, sequence: Sequence(number), packet_id: packet_id(1 + number as u16 % 9) },
        Change::Dequeued { session: SESSION, sequence: Sequence(old), message: MessageId(old) },
        state(SESSION.0, &format!("key/{}", number % 5), Some(&number.to_be_bytes())),
    ];
    group.extend(on_a_plugin(number));
    group
}

/// Eight groups are a round: a revision takes over on probation, events are handled and state is written, and then it ends,
/// one way or the other.
fn on_a_plugin(number: u64) -> Vec<Change> {
    let (session, sequence, round) = (INBOX, Sequence(number), u32::try_from(number / 8).unwrap() + 2);
    let name = format!("timer/{}", number % 3).into();
    let timer = Timer { at: Timestamp(number), schedule: None, declared: false, payload: [].into() };
    let value = expiring(INBOX.0, &format!("key/{}", number % 4), &number.to_be_bytes(), FUTURE + number);
    let queued = Change::Queued { session, sequence, entry: entry(number) };
    match number % 8 {
        1 => {
            let before = (number.saturating_sub(8)..number).map(|number| (Sequence(number), MessageId(number)));
            let old = before.map(|(sequence, message)| Change::Dequeued { session, sequence, message });
            let first = (number == 1).then(|| activated(plugin(0), INBOX, 1));
            old.chain(first).chain([on_probation(plugin(0), INBOX, round), queued]).collect()
        }
        0 => {
            let undone = number.is_multiple_of(16);
            let put_back = (number - 6..number - 1).filter(|_| undone);
            let mut changes: Vec<Change> =
                put_back.map(|number| Change::PutBack { session, sequence: Sequence(number) }).collect();
            changes.push(Change::ProbationEnded { plugin: plugin(0), session, undone });
            changes.extend(undone.then(|| activated(plugin(0), INBOX, round)));
            changes.extend([queued, Change::TimerCancelled { session, name }]);
            changes
        }
        _ => vec![
            queued,
            Change::Kept { session, sequence },
            with_undo(value),
            Change::TimerSet { session, name, timer },
        ],
    }
}

/// Changes in so many groups.
fn changes_in(groups: u64) -> u64 {
    (1..=groups).map(|number| group(number).len() as u64).sum()
}

/// Checks that what is found is the first groups and nothing of any other. Gives their number.
fn check_prefix(opened: &Opened, most: u64) -> u64 {
    let snapshot = opened.store.snapshot(SESSION, Timestamp(0)).unwrap();
    let written = snapshot.scan("key/", None, 5).unwrap();
    let groups = written.into_iter().map(|(_, value)| u64::from_be_bytes(value.try_into().unwrap())).max();
    let groups = groups.unwrap_or(0);
    assert!(groups <= most, "{groups} groups of {most}");
    Model::of(&(1..=groups).flat_map(group).collect::<Vec<_>>()).check(opened);
    groups
}

/// Hands over groups, waiting now and then, until all are durable or a commit fails. Gives the groups handed over.
fn run(opened: &Opened, groups: u64, random: &mut fastrand::Rng) -> u64 {
    let mut last = ChangeNumber(0);
    for number in 1..=groups {
        let mut group = group(number);
        last.0 += group.len() as u64;
        opened.store.commit(&mut group, last);
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
        assert!(changes_in(found) >= durable, "seed {seed}: {found} groups, change {durable} was durable");
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
    let mut last = ChangeNumber(0);
    for number in 1_u64.. {
        let mut group = group(number);
        last.0 += group.len() as u64;
        opened.store.commit(&mut group, last);
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
        assert!(changes_in(found) >= durable, "{found} groups, change {durable} was durable");
    }
}
