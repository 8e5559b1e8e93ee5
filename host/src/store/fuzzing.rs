//! Values of the tables, and changes in the log, fuzzed: a disk may give anything back.

use std::fmt::Debug;

use vespiary_core::event::{PacketId, QueueEntry};

use super::log;
use super::record::{
    self, DeadLetterRow, InvalidRow, MessageRow, PluginRow, QueueRow, RevisionRow, SessionRow, StateRow,
    SubscriptionRow, TimerRow,
};

/// Most bytes by which a value grows when it is read and written again: the fields that version 1 does not have. The
/// most are those of a plugin: a generation, and that there is no probation and no other generation.
const GROWTH_BYTES: usize = 10 + 2;

/// Takes the first of `bytes` for a kind of row, and the rest for the value of such a row.
///
/// It is refused, or what is read is written again as a value that reads the same; and that value is no larger, so what
/// was read is no more than the bytes held.
pub fn records(bytes: &[u8]) {
    let Some((&kind, value)) = bytes.split_first() else { return };
    match kind % 9 {
        0 => check(
            value,
            |value| MessageRow::decode(value)?.message(),
            |message, scratch| MessageRow::new(message).encode(scratch),
        ),
        1 => check(
            value,
            |value| SessionRow::decode(value)?.record(),
            |session, scratch| SessionRow::new(session).encode(scratch),
        ),
        2 => check(
            value,
            |value| SubscriptionRow::decode(value)?.subscription(),
            |subscription, scratch| SubscriptionRow::new(*subscription).encode(scratch),
        ),
        3 => queue(value),
        4 => check(
            value,
            |value| Ok(record::decode::<RevisionRow<'_>>(value)?.revision()),
            |revision, scratch| record::encode(scratch, &RevisionRow::new(revision)),
        ),
        5 => check(
            value,
            |value| Ok(PluginRow::decode(value)?.plugin()),
            |plugin, scratch| PluginRow::new(plugin).encode(scratch),
        ),
        6 => dead_letter(value),
        7 => check(
            value,
            |value| StateRow::decode(value).map(|row| (row.bytes.to_vec(), row.expires_at)),
            |(bytes, expires_at), scratch| {
                StateRow { bytes, expires_at: *expires_at }.encode(scratch);
                Ok(())
            },
        ),
        _ => check(
            value,
            |value| Ok(record::decode::<TimerRow<'_>>(value)?.timer()),
            |timer, scratch| record::encode(scratch, &TimerRow::new(timer)),
        ),
    }
}

/// Takes `bytes` for a change in the log. It is refused, or what is read is written again, as in [`records`].
pub fn changes(bytes: &[u8]) {
    check(
        bytes,
        |mut bytes| {
            let change = log::record::decode(&mut bytes)?;
            if bytes.is_empty() { Ok(change) } else { Err(InvalidRow::TrailingBytes(bytes.len())) }
        },
        log::record::encode,
    );
}

fn check<T: Debug + PartialEq>(
    value: &[u8],
    read: impl Fn(&[u8]) -> Result<T, InvalidRow>,
    write: impl Fn(&T, &mut Vec<u8>) -> Result<(), InvalidRow>,
) {
    let found = match read(value) {
        Ok(found) => found,
        Err(error) => {
            let text = error.to_string();
            assert!(!text.is_empty() && !text.chars().any(char::is_control), "not one line: {text:?}");
            return;
        }
    };
    let mut written = Vec::new();
    write(&found, &mut written).expect("what was read can be written");
    assert!(written.len() <= value.len() + GROWTH_BYTES, "{} bytes hold {found:?}", value.len());
    let again = read(&written).expect("what was written can be read");
    assert_eq!(again, found);
    let mut twice = Vec::new();
    write(&again, &mut twice).expect("what was read can be written");
    assert_eq!(twice, written);
}

fn queue(value: &[u8]) {
    let read = |value: &[u8]| QueueRow::decode(value)?.entry();
    check(value, read, |(entry, released), scratch| QueueRow::new(entry, *released).encode(scratch));
    let message = QueueRow::message(value);
    let (Ok(row), Ok((entry, released))) = (QueueRow::decode(value), read(value)) else { return };
    assert_eq!(message.expect("the beginning of a whole row"), entry.message.0);
    assert_eq!(row.weight(), entry.weight);
    for packet_id in [None, Some(PacketId::MAX)] {
        for now_released in [false, true] {
            let mut row = QueueRow::decode(value).expect("it was decoded before");
            row.mark(packet_id, now_released);
            let marked = row.entry().expect("a mark makes no row impossible");
            assert_eq!(marked.0.packet_id, packet_id.or(entry.packet_id));
            assert_eq!(marked.1, released || now_released);
        }
    }
    let mut row = QueueRow::decode(value).expect("it was decoded before");
    row.replay();
    let replayed = row.entry().expect("a mark makes no row impossible");
    assert_eq!(replayed, (QueueEntry { replayed: true, ..entry }, false));
}

fn dead_letter(value: &[u8]) {
    let read = |value: &[u8]| DeadLetterRow::decode(value)?.letter();
    check(value, read, |letter, scratch| DeadLetterRow::new(letter).encode(scratch));
    let (Ok(row), Ok(whole)) = (DeadLetterRow::decode(value), read(value)) else { return };
    // As at start, where the content is not kept.
    let letter = row.without_content().letter().expect("less of what is valid");
    assert!(letter.content.payload.is_empty() && letter.content.properties.is_none());
    assert_eq!((&letter.content.topic, &letter.reason), (&whole.content.topic, &whole.reason));
    assert_eq!(letter.content.user, whole.content.user);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde::Serialize;
    use vespiary_core::event::{
        DeadLetter, ProbationRecord, RetainHandling, Revision, SessionId, SessionRecord, ShareNumber,
        SubscriptionOptions, SubscriptionRecord, Timer, Will,
    };
    use vespiary_core::message::{Message, MessageId, MessageProperties};
    use vespiary_core::{Qos, Timestamp, Topic};

    use super::super::record::PluginRecord;
    use super::super::tests::{one_of_each, removals};
    use super::*;

    #[test]
    fn values_read_as_they_were_written_or_not_at_all() {
        corpus::check("records", seeds, records);
    }

    #[test]
    fn changes_read_as_they_were_written_or_not_at_all() {
        corpus::check("changes", seeds_of_changes, changes);
    }

    /// A change of each kind, named after it, and some that are none.
    fn seeds_of_changes() -> corpus::Seeds {
        let table: &[(&str, &[u8])] = &[
            ("no-change", &[]),
            ("kind-0", &[0, 1]),
            ("kind-unknown", &[27, 1]),
            ("trailing", &[3, 1, 0]),
            ("session-overlong", &[3, 0x81, 0x80, 0x00]),
            ("packet-id-0", &[8, 1, 2, 0]),
            ("filter-misplaced", b"\x05\x01\x02#a"),
            ("topic-wildcard", b"\x0E\x01#"),
            ("name-lies", b"\x10\xFF\xFF\xFF\xFF\x0Fa"),
            ("undo-2", &[19, 1, 1, b'k', 0, 0, 2]),
            ("state-expires", &[19, 1, 1, b'k', 1, 2, 0xFE, 0xFF, 1, 0xAC, 0x02, 1]),
            ("deletion-expires", &[19, 1, 1, b'k', 0, 1, 0xAC, 0x02, 0]),
            // A row that a change cannot have.
            ("queued-released", &[7, 1, 2, 1, 1, 0, 0, 0, 0, 1]),
            ("queued-version-1", &[7, 1, 2, 1, 1, 0, 0, 0, 0, 0]),
            ("row-version-9", &[7, 1, 2, 9, 1, 0, 0, 0, 0, 0]),
        ];
        let mut seeds: corpus::Seeds = table.iter().map(|&(name, bytes)| (name.to_owned(), bytes.to_vec())).collect();
        for change in [one_of_each(), removals()].concat() {
            let text = format!("{change:?}");
            let mut name = String::new();
            for letter in text.chars().take_while(|letter| letter.is_alphanumeric()) {
                name.extend((letter.is_uppercase() && !name.is_empty()).then_some('-'));
                name.push(letter.to_ascii_lowercase());
            }
            let mut bytes = Vec::new();
            log::record::encode(&change, &mut bytes).unwrap();
            seeds.push((name, bytes));
        }
        seeds
    }

    /// Session 7, revision 3 of version "1" activated at 5.
    const PLUGIN_VERSION_1: [u8; 39] = {
        let mut row = [0xAB; 39];
        (row[0], row[1], row[2], row[3]) = (5, 1, 7, 3);
        (row[36], row[37], row[38]) = (1, b'1', 5);
        row
    };

    fn plain() -> Message {
        Message {
            topic: Topic::parse("assets/7/vibration").unwrap(),
            payload: b"{\"rms\":2.5}".as_slice().into(),
            qos: Qos::AtLeastOnce,
            retain: false,
            properties: None,
            expires_at: None,
            received_at: Timestamp(1_700_000_000_000),
            publisher: "sensor-7".into(),
            user: None,
        }
    }

    fn full() -> Message {
        let properties = MessageProperties {
            payload_is_utf8: Some(true),
            content_type: Some("application/json".into()),
            response_topic: Some(Topic::parse("answers/1").unwrap()),
            correlation_data: Some([0, 0xFF].into()),
            user_properties: vec![("site".into(), "north".into()), ("".into(), "".into())],
        };
        let expires_at = Some(Timestamp(u64::MAX));
        let (properties, user) = (Some(properties.into()), Some("operator".into()));
        Message { retain: true, qos: Qos::ExactlyOnce, properties, expires_at, user, ..plain() }
    }

    fn entry() -> QueueEntry {
        QueueEntry {
            message: MessageId(300),
            qos: Qos::ExactlyOnce,
            retain: false,
            subscription_identifiers: Some([7, 268_435_455].into()),
            packet_id: PacketId::new(9),
            share: Some(ShareNumber(PacketId::MAX)),
            weight: 70_000,
            replayed: true,
        }
    }

    /// A value behind its kind.
    fn row(kind: u8, encode: impl Fn(&mut Vec<u8>) -> Result<(), InvalidRow>) -> Vec<u8> {
        let mut value = Vec::new();
        encode(&mut value).unwrap();
        [&[kind][..], &value].concat()
    }

    /// The value of a record that has never changed, behind its kind.
    fn first(kind: u8, record: &impl Serialize) -> Vec<u8> {
        row(kind, |value| record::encode(value, record))
    }

    fn messages() -> Vec<(&'static str, Vec<u8>)> {
        let will = |message| Will { message, expiry_s: Some(60), delay_s: u32::MAX };
        let session = |will| SessionRecord {
            client_id: "sensor-7".into(),
            session_expiry_s: 3_600,
            disconnected_at: Some(Timestamp(1_700_000_000_000)),
            will,
        };
        let letter = |content| DeadLetter {
            content: Arc::new(content),
            reason: "unreachable executed".into(),
            attempts: 8,
            at: Timestamp(1_700_000_000_001),
        };
        vec![
            ("message", row(0, |value| MessageRow::new(&plain()).encode(value))),
            ("message-with-properties", row(0, |value| MessageRow::new(&full()).encode(value))),
            ("session", row(1, |value| SessionRow::new(&session(None)).encode(value))),
            ("session-with-will", row(1, |value| SessionRow::new(&session(Some(will(full()).into()))).encode(value))),
            ("dead-letter", row(6, |value| DeadLetterRow::new(&letter(plain())).encode(value))),
            ("dead-letter-with-properties", row(6, |value| DeadLetterRow::new(&letter(full())).encode(value))),
        ]
    }

    fn others() -> Vec<(&'static str, Vec<u8>)> {
        let options = SubscriptionOptions {
            maximum_qos: Qos::ExactlyOnce,
            no_local: true,
            retain_as_published: true,
            retain_handling: RetainHandling::Never,
        };
        let share = Some(ShareNumber(PacketId::MIN));
        let record = SubscriptionRecord { options, identifier: Some(268_435_455), share };
        let revision = Revision { number: 3, digest: [0xAB; 32], version: "2.0.0".into(), activated_at: Timestamp(1) };
        let probation = ProbationRecord { revision: revision.clone(), state: SessionId(2) };
        let plugin = |probation: Option<ProbationRecord>| PluginRecord {
            session: SessionId(65_537),
            active: revision.clone(),
            state: SessionId(65_538),
            begun: probation.is_some().then_some(SessionId(u64::MAX)),
            probation,
        };
        let timer = |schedule| Timer { at: Timestamp(1), schedule, declared: true, payload: (*b"\0\xFF").into() };
        vec![
            ("subscription", row(2, |value| SubscriptionRow::new(record).encode(value))),
            ("queue", row(3, |value| QueueRow::new(&entry(), true).encode(value))),
            ("revision", first(4, &RevisionRow::new(&revision))),
            ("plugin", row(5, |value| PluginRow::new(&plugin(None)).encode(value))),
            ("plugin-on-probation", row(5, |value| PluginRow::new(&plugin(Some(probation.clone()))).encode(value))),
            ("timer", first(8, &TimerRow::new(&timer(None)))),
            ("timer-with-schedule", first(8, &TimerRow::new(&timer(Some("0 3 * * *".into()))))),
        ]
    }

    fn seeds() -> corpus::Seeds {
        let table: &[(&str, &[u8])] = &[
            // As earlier programs wrote them.
            ("subscription-version-1", &[2, 1, 2, 1, 0, 1, 0]),
            ("queue-version-1", &[3, 1, 0xAC, 0x02, 1, 0, 1, 2, 7, 8, 1, 9, 0]),
            ("queue-version-1-least", &[3, 1, 1, 0, 0, 0, 0, 0]),
            ("state", b"\x07\x01{\"count\":3}"),
            ("state-empty", &[7, 1]),
            ("state-expires", b"\x07\x02\0\0\x01\x8B\xCF\xE5\x68\0{\"count\":3}"),
            ("state-expires-cut", b"\x07\x02\0\0\x01\x8B\xCF\xE5\x68"),
            ("queue-version-2", &[3, 2, 0xAC, 0x02, 1, 0, 1, 2, 7, 8, 1, 9, 0, 1, 3, 5]),
            ("plugin-version-1", &PLUGIN_VERSION_1),
            ("message-version-1", b"\x00\x01\x01a\x01x\x01\x00\x00\x00\x07\x00"),
            ("session-version-1", b"\x01\x01\x01c\x05\x00\x00"),
            ("dead-letter-version-1", b"\x06\x01\x01a\x01x\x01\x00\x00\x00\x07\x00\x01r\x02\x08"),
            // As nobody wrote them.
            ("no-value", &[0]),
            ("version-0", &[0, 0]),
            ("version-3", &[3, 3, 0]),
            ("version-4", &[3, 4, 0]),
            ("subscription-version-2-cut", &[2, 2, 2, 1, 0, 1, 0]),
            ("subscription-trailing", &[2, 1, 2, 1, 0, 1, 0, 0]),
            ("subscription-qos-3", &[2, 1, 3, 1, 0, 1, 0]),
            ("subscription-handling-3", &[2, 1, 2, 1, 0, 3, 0]),
            ("subscription-share-0", &[2, 2, 2, 1, 0, 1, 0, 1, 0]),
            ("queue-packet-id-0", &[3, 1, 1, 0, 0, 0, 1, 0, 0]),
            ("queue-identifiers-lie", &[3, 1, 1, 0, 0, 1, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F]),
            ("queue-message-overlong", &[3, 1, 0x81, 0x80, 0x00, 0, 0, 0, 0, 0]),
            ("queue-message-too-long", &[3, 1, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F]),
            ("message-topic-empty", &[0, 1, 0, 0, 0, 0, 0, 0, 0, 0]),
            ("message-topic-wildcard", b"\x00\x01\x01#\x00\x00\x00\x00\x00\x00\x00"),
            ("message-topic-nul", &[0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0]),
            ("message-topic-not-utf8", &[0, 1, 1, 0xFF, 0, 0, 0, 0, 0, 0, 0]),
            ("message-topic-lies", &[0, 1, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01, b'a']),
            // A million user properties announced by three bytes.
            ("properties-lie", b"\x00\x01\x01a\x00\x00\x00\x01\x00\x00\x00\x00\xC0\x84\x3D"),
        ];
        let table = table.iter().map(|&(name, bytes)| (name, bytes.to_vec()));
        let rows = messages().into_iter().chain(others()).chain(table);
        rows.map(|(name, bytes)| (name.to_owned(), bytes)).collect()
    }
}
