//! Random lives of a log, with failures, power cuts and kills at any moment: each time what is found begins with all that
//! was promised.

use fastrand::Rng;
use vespiary_core::event::Change;

use super::{Disks, Frame, SECTOR_BYTES, alter, change, copies, disks, files, image, replay};
use crate::store::log::{Log, LogError};
use crate::store::testing::DiskFile;

/// Lives of a log.
const SEEDS: u64 = 100;

/// Steps of a life.
const STEPS: usize = 60;

/// A log, and what is known of it.
struct Life {
    random: Rng,
    disks: Disks,
    log: Log,
    /// The changes of each frame from number 1 on, as they were last handed over.
    groups: Vec<Vec<Change>>,
    /// The last frame whose writing was reported.
    promised: u64,
    /// The last frame that is in the database.
    in_database: u64,
    /// The last frame of the file that is not written at present.
    in_other_file: u64,
    /// What happened.
    seen: Seen,
}

/// What happened in all lives, so that it is known to have happened.
#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    found_beyond_promise: u64,
    lost: u64,
    retried: u64,
    laps: u64,
    clears_broken: u64,
    damage: u64,
}

impl Life {
    fn new(seed: u64) -> Self {
        let disks = disks();
        let mut log = Log::new(files(&disks));
        log.clear().unwrap();
        let (groups, seen) = (Vec::new(), Seen::default());
        let random = Rng::with_seed(seed);
        Self { random, disks, log, groups, promised: 0, in_database: 0, in_other_file: 0, seen }
    }

    fn step(&mut self) {
        match self.random.u8(0..16) {
            0..=9 => assert!(self.append(), "the disks work"),
            10 | 11 => self.switch(),
            12 => self.append_on_a_failing_disk(),
            13 => self.mix_sectors(),
            14 => self.crash(),
            _ => self.look_at_damage(),
        }
    }

    /// The group of the next frame.
    fn next(&mut self) -> (u64, Vec<Change>) {
        let length = match self.random.u8(0..20) {
            0 => self.random.usize(0..60_000),
            1..=9 => self.random.usize(0..3_000),
            _ => self.random.usize(0..500),
        };
        let byte = self.random.u8(..);
        let changes: Vec<Change> = (0..self.random.u8(0..4)).map(|more| change(byte ^ more, length)).collect();
        self.groups.truncate(self.promised as usize);
        self.groups.push(changes.clone());
        (self.promised + 1, changes)
    }

    /// Whether it succeeded.
    fn append(&mut self) -> bool {
        let (number, changes) = self.next();
        let written = self.log.append(number, &changes).is_ok();
        if written {
            self.promised = number;
        }
        written
    }

    /// The database catches up with the other file at least, and that is begun again.
    fn switch(&mut self) {
        let from = self.in_database.max(self.in_other_file);
        self.in_database = self.random.u64(from..=self.promised);
        self.in_other_file = self.promised;
        self.log.switch();
        self.seen.laps += 1;
    }

    fn append_on_a_failing_disk(&mut self) {
        let fail = |life: &mut Self| {
            let operations = life.random.usize(0..4);
            life.disks.iter().for_each(|disk| disk.fail_after(operations));
        };
        fail(self);
        let mut written = self.append();
        while !written {
            self.disks.iter().for_each(DiskFile::mend);
            match self.random.u8(0..4) {
                0 => return self.crash(),
                1 => fail(self),
                // The system forgot what it had not written.
                2 => self.cut_power(),
                _ => {}
            }
            written = self.log.retry(files(&self.disks)).is_ok();
            self.seen.retried += u64::from(written);
        }
        self.disks.iter().for_each(DiskFile::mend);
        self.promised = self.groups.len() as u64;
    }

    /// The power goes during an append: any of its sectors are written.
    fn mix_sectors(&mut self) {
        let before = copies(&self.disks);
        let (number, changes) = self.next();
        self.log.append(number, &changes).unwrap();
        for (disk, before) in self.disks.iter().zip(&before) {
            let old = image(before);
            let share = self.random.u8(0..=10);
            alter(disk, |image| {
                for (at, sector) in image.chunks_mut(SECTOR_BYTES).enumerate() {
                    if self.random.u8(0..10) < share {
                        let old = old.get(at * SECTOR_BYTES..).unwrap_or_default();
                        let kept = old.len().min(sector.len());
                        sector[..kept].copy_from_slice(&old[..kept]);
                        sector[kept..].fill(0);
                    }
                }
                if self.random.u8(0..4) == 0 {
                    image.truncate(old.len().max(self.random.usize(..=image.len())));
                }
            });
        }
        self.restart();
    }

    fn cut_power(&mut self) {
        self.disks.iter().for_each(|disk| disk.cut_power(&mut self.random));
    }

    /// The power goes, or the process alone.
    fn crash(&mut self) {
        if self.random.bool() {
            self.cut_power();
        }
        self.restart();
    }

    /// The log is read, the database catches up, and the log is emptied; during which the power may go again.
    fn restart(&mut self) {
        loop {
            let last = self.check();
            self.seen.found_beyond_promise += u64::from(last > self.promised);
            self.seen.lost += u64::from(last < self.groups.len() as u64);
            (self.promised, self.in_database, self.in_other_file) = (last, last, last);
            self.log = Log::new(files(&self.disks));
            let operations = self.random.usize(0..6);
            self.disks[self.random.usize(0..2)].fail_after(operations);
            let cleared = self.log.clear();
            self.disks.iter().for_each(DiskFile::mend);
            if cleared.is_ok() {
                return;
            }
            self.seen.clears_broken += 1;
            if self.random.bool() {
                self.cut_power();
            }
        }
    }

    /// Reads the frames that are not in the database, and gives the number of the last.
    fn check(&self) -> u64 {
        let (found, last) = replay(&self.disks, self.in_database).unwrap();
        assert!(last >= self.promised, "frame {last} is the last, and {} was promised", self.promised);
        assert!(last <= self.groups.len() as u64);
        self.check_frames(&found);
        assert_eq!(found.len() as u64, last - self.in_database);
        last
    }

    /// Checks that these are the frames behind the database.
    fn check_frames(&self, found: &[Frame]) {
        for ((number, changes), expected) in found.iter().zip(self.in_database + 1..) {
            assert_eq!(*number, expected);
            assert!(*changes == self.groups[expected as usize - 1], "frame {expected} holds something else");
        }
    }

    /// A byte of a copy changes: what is found is right, or known not to be.
    fn look_at_damage(&mut self) {
        let disks = copies(&self.disks);
        let file = self.random.usize(0..2);
        let at = self.random.usize(0..20_000);
        alter(&disks[file], |image| {
            if let Some(byte) = image.get_mut(at) {
                *byte = byte.wrapping_add(self.random.u8(1..));
            }
        });
        match replay(&disks, self.in_database) {
            Ok((found, last)) => {
                assert!(last + 1 >= self.promised, "more than the last frame went without a word");
                self.check_frames(&found);
            }
            Err(LogError::Damaged { .. }) => self.seen.damage += 1,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn whatever_happens_what_is_found_begins_with_what_was_promised() {
    let mut all = Seen::default();
    for seed in 0..SEEDS {
        let mut life = Life::new(seed);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            (0..STEPS).for_each(|_| life.step());
            life.crash();
        }));
        if let Err(panic) = outcome {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(panic);
        }
        let Seen { found_beyond_promise, lost, retried, laps, clears_broken, damage } = life.seen;
        all.found_beyond_promise += found_beyond_promise;
        all.lost += lost;
        all.retried += retried;
        all.laps += laps;
        all.clears_broken += clears_broken;
        all.damage += damage;
    }
    let Seen { found_beyond_promise, lost, retried, laps, clears_broken, damage } = all;
    let least = [found_beyond_promise, lost, retried, laps, clears_broken, damage].into_iter().min();
    assert!(least > Some(50), "too little happened: {all:?}");
}
