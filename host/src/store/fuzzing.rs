//! Values of the tables, fuzzed: a disk may give anything back.

use std::fmt::Debug;

use vespiary_core::event::PacketId;

use super::record::{
    self, DeadLetterRow, InvalidRow, MessageRow, PluginRow, QueueRow, RECORD_VERSION, RevisionRow, SessionRow,
    SubscriptionRow,
};

/// Most bytes by which a value grows when it is read and written again: the fields that version 1 does not have.
const GROWTH_BYTES: usize = 2;

/// Takes the first of `bytes` for a kind of row, and the rest for the value of such a row.
///
/// It is refused, or what is read is written again as a value that reads the same; and that value is no larger, so what
/// was read is no more than the bytes held.
pub fn records(bytes: &[u8]) {
    let Some((&kind, value)) = bytes.split_first() else { return };
    match kind % 8 {
        0 => check(
            value,
            |value| record::decode::<MessageRow<'_>>(value)?.message(),
            |message, scratch| record::encode(scratch, &MessageRow::new(message)),
        ),
        1 => check(
            value,
            |value| record::decode::<SessionRow<'_>>(value)?.record(),
            |session, scratch| record::encode(scratch, &SessionRow::new(session)),
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
            |value| Ok(record::decode::<PluginRow<'_>>(value)?.plugin()),
            |(session, revision), scratch| record::encode(scratch, &PluginRow::new(*session, revision)),
        ),
        6 => dead_letter(value),
        // The state of plugins, which is not a record.
        _ => check(
            value,
            |value| record::unversioned(value).map(<[u8]>::to_vec),
            |state, scratch| {
                scratch.push(RECORD_VERSION);
                scratch.extend_from_slice(state);
                Ok(())
            },
        ),
    }
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
    assert_eq!(row.weight, entry.weight);
    for packet_id in [None, Some(PacketId::MAX)] {
        for now_released in [false, true] {
            let mut row = QueueRow::decode(value).expect("it was decoded before");
            row.mark(packet_id, now_released);
            let marked = row.entry().expect("a mark makes no row impossible");
            assert_eq!(marked.0.packet_id, packet_id.or(entry.packet_id));
            assert_eq!(marked.1, released || now_released);
        }
    }
}

fn dead_letter(value: &[u8]) {
    let read = |value: &[u8]| record::decode::<DeadLetterRow<'_>>(value)?.letter();
    check(value, read, |letter, scratch| record::encode(scratch, &DeadLetterRow::new(letter)));
    let (Ok(mut row), Ok(whole)) = (record::decode::<DeadLetterRow<'_>>(value), read(value)) else { return };
    // As at start, where the content is not kept.
    row.message = row.message.without_content();
    let letter = row.letter().expect("less of what is valid");
    assert!(letter.content.payload.is_empty() && letter.content.properties.is_none());
    assert_eq!((&letter.content.topic, &letter.reason), (&whole.content.topic, &whole.reason));
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde::Serialize;
    use vespiary_core::event::{
        DeadLetter, QueueEntry, RetainHandling, Revision, SessionId, SessionRecord, ShareNumber, SubscriptionOptions,
        SubscriptionRecord, Will,
    };
    use vespiary_core::message::{Message, MessageId, MessageProperties};
    use vespiary_core::{Qos, Timestamp, Topic};

    use super::*;

    #[test]
    fn values_read_as_they_were_written_or_not_at_all() {
        corpus::check("records", seeds, records);
    }

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
        Message { retain: true, qos: Qos::ExactlyOnce, properties: Some(properties.into()), expires_at, ..plain() }
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
        }
    }

    /// A record's value behind its kind.
    fn row(kind: u8, record: &impl Serialize) -> Vec<u8> {
        let mut value = Vec::new();
        record::encode(&mut value, record).unwrap();
        [&[kind][..], &value].concat()
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
            ("message", row(0, &MessageRow::new(&plain()))),
            ("message-with-properties", row(0, &MessageRow::new(&full()))),
            ("session", row(1, &SessionRow::new(&session(None)))),
            ("session-with-will", row(1, &SessionRow::new(&session(Some(will(full()).into()))))),
            ("dead-letter", row(6, &DeadLetterRow::new(&letter(plain())))),
            ("dead-letter-with-properties", row(6, &DeadLetterRow::new(&letter(full())))),
        ]
    }

    fn others() -> Vec<(&'static str, Vec<u8>)> {
        let options = SubscriptionOptions {
            maximum_qos: Qos::ExactlyOnce,
            no_local: true,
            retain_as_published: true,
            retain_handling: RetainHandling::Never,
        };
        let mut subscription = vec![2];
        let share = Some(ShareNumber(PacketId::MIN));
        let record = SubscriptionRecord { options, identifier: Some(268_435_455), share };
        let mut value = Vec::new();
        SubscriptionRow::new(record).encode(&mut value).unwrap();
        subscription.extend_from_slice(&value);
        let mut queued = vec![3];
        QueueRow::new(&entry(), true).encode(&mut value).unwrap();
        queued.extend_from_slice(&value);
        let revision = Revision { number: 3, digest: [0xAB; 32], version: "2.0.0".into(), activated_at: Timestamp(1) };
        vec![
            ("subscription", subscription),
            ("queue", queued),
            ("revision", row(4, &RevisionRow::new(&revision))),
            ("plugin", row(5, &PluginRow::new(SessionId(65_537), &revision))),
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
            // As nobody wrote them.
            ("no-value", &[0]),
            ("version-0", &[0, 0]),
            ("version-3", &[3, 3, 0]),
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
