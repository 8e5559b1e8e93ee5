//! Tests of the log: what was promised is read back, what was not is there whole or not at all, and damage is told apart.

use std::sync::Arc;

use redb::StorageBackend;
use redb::backends::FileBackend;
use vespiary_core::event::{Change, Sequence, SessionId, StateWrite};
use vespiary_core::message::{Message, MessageId, Qos, Timestamp};
use vespiary_core::topic::Topic;

use super::frame::{HEADER_BYTES, SECTOR_BYTES};
use super::{BUFFER_BYTES, FILE_BYTES, GROWTH_BYTES, Log, LogError, LogFile};
use crate::store::testing::DiskFile;
use crate::store::tests::{one_of_each, removals};

mod cuts;

/// Two disks, one for each file.
type Disks = [DiskFile; 2];

/// The number of a frame, and its changes.
type Frame = (u64, Vec<Change>);

/// Alters a file.
type Alteration = fn(&mut [u8]);

fn disks() -> Disks {
    [DiskFile::with(Vec::new()), DiskFile::with(Vec::new())]
}

fn files(disks: &Disks) -> [LogFile; 2] {
    disks.clone().map(|disk| Box::new(disk) as LogFile)
}

/// What is on a disk.
fn image(disk: &DiskFile) -> Vec<u8> {
    let mut image = vec![0; disk.len().unwrap() as usize];
    disk.read(0, &mut image).unwrap();
    image
}

/// Copies of both disks, which change by themselves.
fn copies(disks: &Disks) -> Disks {
    disks.each_ref().map(|disk| DiskFile::with(image(disk)))
}

/// An empty log.
fn log(disks: &Disks) -> Log {
    let mut log = Log::new(files(disks));
    log.clear().unwrap();
    log
}

/// A change with so many bytes.
fn change(byte: u8, length: usize) -> Change {
    let write = StateWrite::lasting(format!("key/{byte}"), Some(vec![byte; length].into()));
    Change::StateWritten { state: SessionId(u64::from(byte)), write, undo: false }
}

/// The changes of the frame with this number; most frames have two sectors.
fn group(number: u64) -> Vec<Change> {
    let (session, sequence, message) = (SessionId(1), Sequence(number), MessageId(number));
    vec![change(number as u8, 500), Change::Dequeued { session, sequence, message }]
}

/// A log with these frames, where the other file is begun before each number in `switches`.
fn written(numbers: std::ops::RangeInclusive<u64>, switches: &[u64]) -> Disks {
    let disks = disks();
    let mut log = log(&disks);
    for number in numbers {
        if switches.contains(&number) {
            log.switch();
        }
        log.append(number, &group(number)).unwrap();
    }
    for disk in &disks {
        // Most of the zeros that were written ahead, which are much to copy.
        alter(disk, |image| {
            let used = image.iter().rposition(|&byte| byte != 0).map_or(0, |at| at + 1);
            image.truncate((used + SECTOR_BYTES).next_multiple_of(SECTOR_BYTES));
        });
    }
    disks
}

/// The frames behind `after`, and the number that is given as that of the last.
fn replay(disks: &Disks, after: u64) -> Result<(Vec<Frame>, u64), LogError> {
    let mut found = Vec::new();
    let last = Log::new(files(disks)).replay(after, |number, changes| {
        found.push((number, changes));
        Ok::<_, LogError>(())
    })?;
    Ok((found, last))
}

/// Checks that the frames behind `after` are found up to `last`, as they were written.
#[track_caller]
fn check(disks: &Disks, after: u64, last: u64) {
    let (found, found_last) = replay(disks, after).unwrap();
    let expected: Vec<_> = (after + 1..=last).map(|number| (number, group(number))).collect();
    assert!(found == expected, "{:?}", found.iter().map(|(number, _)| number).collect::<Vec<_>>());
    assert_eq!(found_last, last.max(after));
}

/// Checks that damage is found, at this place.
#[track_caller]
fn check_damaged(disks: &Disks, after: u64, place: (usize, u64)) {
    match replay(disks, after) {
        Err(LogError::Damaged { file, offset, .. }) => assert_eq!((file, offset), place),
        other => panic!("{other:?}"),
    }
}

/// Alters what is on a disk.
fn alter(disk: &DiskFile, alter: impl FnOnce(&mut Vec<u8>)) {
    let mut image = image(disk);
    alter(&mut image);
    disk.replace(image);
}

/// Where the frames of a file begin, and where the last one ends.
fn bounds(disk: &DiskFile) -> Vec<usize> {
    let image = image(disk);
    let mut bounds = vec![0];
    while let Some(payload) = image.get(bounds[bounds.len() - 1]..).filter(|rest| rest.starts_with(b"VLog")) {
        let bytes = u64::from_le_bytes(payload[24..32].try_into().unwrap()) as usize;
        bounds.push(bounds[bounds.len() - 1] + (HEADER_BYTES + bytes).next_multiple_of(SECTOR_BYTES));
    }
    bounds
}

#[test]
fn frames_are_read_back_in_order_from_both_files() {
    let disks = written(1..=9, &[4, 7]);
    // The first file was written over: what was in it is in the database.
    assert_eq!(bounds(&disks[0]).len(), 4);
    for after in 3..=9 {
        check(&disks, after, 9);
    }
    check(&disks, 12, 12);
    check(&written(1..=3, &[]), 0, 3);
    check(&self::disks(), 7, 7);
}

#[test]
fn every_kind_of_change_and_frames_of_every_size_come_back() {
    let disks = disks();
    let mut log = log(&disks);
    // Around the end of a sector, in turn with none at all; and one that outgrows what is kept in memory and ahead.
    let sizes = (SECTOR_BYTES - HEADER_BYTES - 40..SECTOR_BYTES + 8).map(|length| vec![change(1, length)]);
    let sizes = sizes.flat_map(|changes| [changes, Vec::new()]);
    let large = vec![change(2, 3 * GROWTH_BYTES as usize + 1)];
    let groups: Vec<_> = [[one_of_each(), removals()].concat(), large].into_iter().chain(sizes).collect();
    for (number, changes) in (1..).zip(&groups) {
        log.append(number, changes).unwrap();
        assert!(log.buffer.capacity() <= BUFFER_BYTES);
        assert_eq!(log.bytes() % SECTOR_BYTES as u64, 0);
    }
    let (found, _) = replay(&disks, 0).unwrap();
    assert!(found.into_iter().map(|(_, changes)| changes).eq(groups));
}

#[test]
fn files_of_the_system_do_as_the_disk_of_the_tests() {
    let data = tempfile::tempdir().unwrap();
    let open = || {
        ["log.0", "log.1"].map(|name| {
            let mut options = std::fs::File::options();
            let options = options.read(true).write(true).create(true).truncate(false);
            let file = options.open(data.path().join(name)).unwrap();
            Box::new(FileBackend::new(file).unwrap()) as LogFile
        })
    };
    let mut log = Log::new(open());
    log.clear().unwrap();
    for number in 1..=9 {
        log.append(number, &group(number)).unwrap();
        if number % 3 == 0 {
            log.switch();
        }
    }
    let mut log = Log::new(open());
    let mut found = Vec::new();
    let each = |number, changes| {
        found.push((number, changes));
        Ok::<_, LogError>(())
    };
    assert_eq!(log.replay(4, each).unwrap(), 9);
    assert_eq!(found, (5..=9).map(|number| (number, group(number))).collect::<Vec<_>>());
    log.clear().unwrap();
    assert_eq!(std::fs::metadata(data.path().join("log.0")).unwrap().len(), 0);
    assert_eq!(std::fs::metadata(data.path().join("log.1")).unwrap().len(), 0);
}

#[test]
fn a_file_grows_ahead_and_a_later_lap_writes_over_it_with_one_write_and_one_sync() {
    let disks = disks();
    let mut log = log(&disks);
    for number in 1..=4 {
        log.append(number, &group(number)).unwrap();
        assert_eq!(disks[0].len().unwrap(), GROWTH_BYTES);
        log.switch();
        log.switch();
    }
    for number in 5..=8 {
        disks[0].fail_after(2);
        log.append(number, &group(number)).unwrap();
    }
    disks[0].mend();
    assert_eq!((disks[0].len().unwrap(), disks[1].len().unwrap()), (GROWTH_BYTES, 0));
    assert_eq!(log.bytes(), *bounds(&disks[0]).last().unwrap() as u64);
    check(&disks, 4, 8);
}

#[test]
fn a_file_that_became_large_is_cut_back_when_it_is_begun_again() {
    let disks = written(1..=1, &[]);
    let mut log = Log::new(files(&disks));
    log.clear().unwrap();
    disks[0].set_len(FILE_BYTES + 1).unwrap();
    log.append(2, &group(2)).unwrap();
    assert_eq!(disks[0].len().unwrap(), FILE_BYTES);
    disks[0].set_len(FILE_BYTES + 1).unwrap();
    log.append(3, &group(3)).unwrap();
    assert_eq!(disks[0].len().unwrap(), FILE_BYTES + 1);
    check(&disks, 1, 3);
}

#[test]
fn what_an_earlier_lap_left_behind_is_not_read() {
    // Frame 7 stands where 1 was, and frame 8, whose header was never written, where 2 is whole.
    let disks = written(1..=7, &[4, 7]);
    assert_eq!(bounds(&disks[0]).len(), 4);
    check(&disks, 3, 7);
    // A longer frame, behind which there is the middle of another.
    let mut log = log(&disks);
    (8..=10).for_each(|number| log.append(number, &group(number)).unwrap());
    log.switch();
    log.switch();
    log.append(11, &[change(1, 600), change(2, 600)]).unwrap();
    assert_eq!(replay(&disks, 10).unwrap().0.len(), 1);
}

#[test]
fn a_last_frame_that_is_torn_was_never_there() {
    for switches in [&[][..], &[5], &[4, 5], &[2]] {
        let before = written(1..=4, switches);
        let disks = written(1..=5, switches);
        let file = switches.len() % 2;
        let frame = if switches == [4, 5] { 0 } else { bounds(&disks[file]).len() - 2 };
        let [begin, end] = bounds(&disks[file])[frame..frame + 2] else { unreachable!("two of them") };
        let after = if switches.len() == 2 { 3 } else { 0 };
        let sectors: Vec<_> = (begin..end).step_by(SECTOR_BYTES).collect();
        assert!(sectors.len() > 1);
        // Any one of its sectors is as it was before; or all but one are.
        for &sector in &sectors {
            for others in [false, true] {
                let disks = copies(&disks);
                let old = image(&before[file]);
                alter(&disks[file], |image| {
                    for &at in sectors.iter().filter(|&&at| (at == sector) != others) {
                        let old = old.get(at..at + SECTOR_BYTES).unwrap_or(&[0; SECTOR_BYTES]);
                        image[at..at + SECTOR_BYTES].copy_from_slice(old);
                    }
                });
                check(&disks, after, 4);
            }
        }
        // Or the file ends within it.
        for length in begin..end {
            let disks = copies(&disks);
            alter(&disks[file], |image| image.truncate(length));
            let payload = u64::from_le_bytes(image(&before[0])[24..32].try_into().unwrap());
            let whole = length >= begin + HEADER_BYTES + payload as usize;
            check(&disks, after, if whole { 5 } else { 4 });
        }
    }
}

#[test]
fn a_changed_byte_takes_the_last_frame_away_and_is_damage_anywhere_else() {
    let disks = written(1..=6, &[4]);
    let bounds = [bounds(&disks[0]), bounds(&disks[1])];
    let payload = u64::from_le_bytes(image(&disks[0])[24..32].try_into().unwrap()) as usize;
    for file in [0, 1] {
        for frame in [0, 1, 2] {
            let begin = bounds[file][frame];
            for at in begin..begin + HEADER_BYTES + payload {
                let disks = copies(&disks);
                alter(&disks[file], |image| image[at] ^= 1 << (at % 8));
                match (file, frame) {
                    (1, 2) => check(&disks, 0, 5),
                    // The end of a file is like any end, but that the other file goes on.
                    (0, 2) => check_damaged(&disks, 0, (1, 0)),
                    _ => check_damaged(&disks, 0, (file, begin as u64)),
                }
            }
            // Behind its payload there is nothing to damage.
            let copies = copies(&disks);
            alter(&copies[file], |image| image[begin + HEADER_BYTES + payload] = 1);
            check(&copies, 0, 6);
        }
    }
}

#[test]
fn damage_among_what_is_in_the_database_is_no_damage() {
    let disks = written(1..=6, &[4]);
    let bounds = bounds(&disks[0]);
    alter(&disks[0], |image| image[bounds[1] + 60] ^= 1);
    check_damaged(&disks, 2, (0, bounds[1] as u64));
    check(&disks, 3, 6);
}

#[test]
fn damage_is_found_however_far_before_the_next_frame() {
    let disks = disks();
    let mut log = log(&disks);
    log.append(1, &group(1)).unwrap();
    let begin = log.bytes();
    log.append(2, &[change(2, 5 << 19)]).unwrap();
    log.append(3, &group(3)).unwrap();
    alter(&disks[0], |image| image[begin as usize + 99] ^= 1);
    check_damaged(&disks, 0, (0, begin));
}

#[test]
fn what_is_behind_the_last_frame_and_has_no_higher_number_is_nothing() {
    let disks = written(5..=7, &[]);
    let bounds = bounds(&disks[0]);
    // The frame before the last stands there again; at once, or a sector further on.
    let again = image(&disks[0])[bounds[1]..bounds[2]].to_vec();
    for distance in [0, SECTOR_BYTES] {
        let disks = copies(&disks);
        alter(&disks[0], |image| {
            image.resize(bounds[3] + distance, 0);
            image.extend(&again);
        });
        check(&disks, 4, 7);
    }
}

#[test]
fn a_gap_between_the_files_or_behind_the_database_is_damage() {
    let disks = written(3..=8, &[6]);
    check(&disks, 2, 8);
    check_damaged(&disks, 1, (0, 0));
    disks[0].replace(Vec::new());
    check_damaged(&disks, 2, (1, 0));
    check(&disks, 5, 8);
    // Both files have the same frames.
    disks[0].replace(image(&disks[1]));
    check_damaged(&disks, 5, (1, 0));
    check(&disks, 8, 8);
}

#[test]
fn a_whole_frame_that_cannot_be_understood_is_damage() {
    fn short(image: &mut [u8], at: usize, value: u32) {
        image[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    let alterations: [(&str, Alteration); 4] = [
        ("frame 2 has version 2, and only 1 is known", |image| short(image, 4, 2)),
        ("frame 2 has 2 changes instead of 3", |image| short(image, 32, 3)),
        ("change 0 of frame 2: its field kind has an impossible value", |image| image[40] ^= 0x80),
        // Without its last byte.
        ("change 1 of frame 2: it cannot be decoded: Hit the end of buffer, expected more data", |image| {
            let length = u32::from_le_bytes(image[24..28].try_into().unwrap());
            short(image, 24, length - 1);
        }),
    ];
    for (expected, alteration) in alterations {
        let disks = written(1..=2, &[2]);
        alter(&disks[1], |image| {
            alteration(image);
            let length = u32::from_le_bytes(image[24..28].try_into().unwrap()) as usize;
            let checked = [&image[..36], &image[40..40 + length]].concat();
            short(image, 36, crc32fast::hash(&checked));
        });
        match replay(&disks, 0) {
            Err(LogError::Damaged { file: 1, offset: 0, reason }) => assert_eq!(reason, expected),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_length_that_lies_is_no_frame() {
    for length in [u64::MAX, u64::MAX - 40, 1 << 40, GROWTH_BYTES - 39] {
        let disks = written(1..=2, &[2]);
        alter(&disks[1], |image| image[24..32].copy_from_slice(&length.to_le_bytes()));
        check(&disks, 0, 1);
    }
}

#[test]
fn nothing_that_a_client_sends_passes_for_a_frame() {
    // A frame of another log, with the number that comes next and with a high one, so that it begins at every place
    // within a sector.
    let mut payload = Vec::new();
    for number in [4, 1 << 60] {
        let other = disks();
        log(&other).append(number, &[change(1, 1)]).unwrap();
        let forged = &image(&other[0])[..SECTOR_BYTES];
        (0..=SECTOR_BYTES).for_each(|_| payload.extend([forged, &[0]].concat()));
    }
    let message = Message {
        topic: Topic::parse("a").unwrap(),
        payload: payload.into(),
        qos: Qos::AtLeastOnce,
        retain: false,
        properties: None,
        expires_at: None,
        received_at: Timestamp(0),
        publisher: "".into(),
        user: None,
    };
    let disks = disks();
    let mut log = log(&disks);
    let changes = [Change::MessageStored { message: MessageId(1), content: Arc::new(message) }];
    log.append(1, &changes).unwrap();
    // The first file is begun again, with a frame that leaves most of that.
    log.switch();
    log.append(2, &group(2)).unwrap();
    log.switch();
    log.append(3, &group(3)).unwrap();
    check(&disks, 1, 3);
    // And with one that is torn.
    alter(&disks[0], |image| image[SECTOR_BYTES] ^= 1);
    check(&disks, 1, 2);
}

#[test]
fn a_frame_that_could_not_be_written_is_written_again_at_its_place() {
    for switches in [&[][..], &[4]] {
        // Not a single operation, then one more each time: the write, what goes ahead, the sync.
        for operations in 0..3 {
            let disks = disks();
            let mut log = log(&disks);
            (1..=3).for_each(|number| log.append(number, &group(number)).unwrap());
            switches.iter().for_each(|_| log.switch());
            let file = &disks[switches.len()];
            let long = vec![change(4, GROWTH_BYTES as usize)];
            let bytes = log.bytes();
            file.fail_after(operations);
            log.append(4, &long).unwrap_err();
            assert_eq!(log.bytes(), bytes);
            // What is left of it is lost with the power, and it fails again.
            file.mend();
            file.cut_power(&mut fastrand::Rng::with_seed(operations as u64));
            file.fail_after(operations.min(1));
            log.retry(files(&disks)).unwrap_err();
            file.mend();
            log.retry(files(&disks)).unwrap();
            log.append(5, &group(5)).unwrap();
            // Nothing is left to do.
            log.retry(files(&disks)).unwrap();
            let found: Vec<_> = replay(&disks, 0).unwrap().0.into_iter().map(|(_, changes)| changes).collect();
            assert!(found == [group(1), group(2), group(3), long, group(5)]);
        }
    }
}

#[test]
fn a_change_that_cannot_be_encoded_leaves_the_log_as_it_was() {
    let disks = disks();
    let mut log = log(&disks);
    log.append(1, &group(1)).unwrap();
    let kept = Change::QueueKept { session: SessionId(1), messages: 1, bytes: 5 };
    let error = log.append(2, &[change(1, 1), kept]).unwrap_err();
    assert!(matches!(error, LogError::Row(_)), "{error}");
    log.append(2, &group(2)).unwrap();
    check(&disks, 0, 2);
}

#[test]
fn an_emptied_log_holds_nothing_and_takes_any_number() {
    let disks = written(1..=6, &[4]);
    let mut log = Log::new(files(&disks));
    for operations in 0..2 {
        disks[1].fail_after(operations);
        log.clear().unwrap_err();
        disks[1].mend();
        log.retry(files(&disks)).unwrap();
    }
    log.clear().unwrap();
    assert_eq!(log.bytes(), 0);
    assert_eq!(disks.each_ref().map(|disk| disk.len().unwrap()), [0, 0]);
    check(&disks, 6, 6);
    log.append(11, &group(11)).unwrap();
    check(&disks, 10, 11);
}

#[test]
#[should_panic(expected = "the log was emptied before it was used")]
fn nothing_is_appended_behind_what_was_not_looked_at() {
    let _ = Log::new(files(&written(1..=1, &[]))).append(2, &group(2));
}

#[test]
#[should_panic(expected = "frame 3 follows Some(1)")]
fn numbers_go_up_by_one() {
    let mut log = log(&disks());
    log.append(1, &group(1)).unwrap();
    let _ = log.append(3, &group(3));
}

#[test]
#[should_panic(expected = "still to be written")]
fn nothing_is_appended_behind_a_frame_that_may_be_missing() {
    let disks = disks();
    let mut log = log(&disks);
    disks[0].fail_after(0);
    log.append(1, &group(1)).unwrap_err();
    disks[0].mend();
    let _ = log.append(2, &group(2));
}
