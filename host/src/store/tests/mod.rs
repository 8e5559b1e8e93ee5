//! Tests of the store at its door: what is handed over comes back, whatever happens in between.
//!
//! `model.rs` says what should be there; `equivalence.rs` compares that with what is over random changes, `crash.rs` over
//! power cuts and kills, `recovery.rs` over disks that fail and work again. `loads.rs` reads queues back, `refusal.rs`
//! looks at directories that are not to be opened, `states.rs` at the state of plugins, `versions.rs` at what earlier
//! programs wrote, `changes.rs` at changes as the log holds them.

mod changes;
mod crash;
mod equivalence;
mod loads;
mod model;
mod recovery;
mod refusal;
mod states;
mod versions;

use std::num::NonZeroU16;
use std::path::Path;
use std::sync::{Arc, mpsc};

use vespiary_core::event::{
    Change, ChangeNumber, DeadLetter, LoadTicket, LoadedEntry, PacketId, PluginName, ProbationRecord, QueueEntry,
    RetainHandling, Revision, Sequence, SessionId, SessionRecord, ShareNumber, StateWrite, SubscriptionOptions,
    SubscriptionRecord, Timer, Will,
};
use vespiary_core::message::{Message, MessageId, MessageProperties, Qos, Timestamp};
use vespiary_core::topic::{Topic, TopicFilter};

use super::{Durability, LoadRequest, Opened, Store, StoreError, StoreOptions};
use model::Model;

fn open(directory: &Path) -> Opened {
    Store::open(directory, &StoreOptions::default()).unwrap()
}

/// Hands groups over, numbered from 1, and closes the store.
fn commit_and_close(opened: Opened, groups: impl IntoIterator<Item = Vec<Change>>) {
    let mut last = 0;
    for mut group in groups {
        last += group.len() as u64;
        opened.store.commit(&mut group, ChangeNumber(last));
        assert!(group.is_empty());
    }
    opened.store.close().unwrap();
    assert_eq!(opened.store.durable(), ChangeNumber(last));
    assert_eq!(opened.store.backlog_bytes(), 0);
}

/// Waits until a number is durable, or a commit failed for good.
fn wait(store: &Store, number: ChangeNumber) -> Durability {
    wait_until(store, |durability| match durability {
        Durability::UpTo(durable) => *durable >= number,
        Durability::Failing(_) => false,
        Durability::Failed(_) => true,
    })
}

fn wait_until(store: &Store, condition: impl FnMut(&Durability) -> bool) -> Durability {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut watch = store.watch();
    runtime.block_on(watch.wait_for(condition)).unwrap().clone()
}

/// Reads the queues of all these sessions in parts, until a part is empty.
fn load_all(store: &Store, sessions: &[SessionId], max: usize, max_bytes: usize) -> Vec<Vec<Vec<LoadedEntry>>> {
    let (sender, receiver) = mpsc::channel();
    store.answer_loads(Box::new(move |ticket, entries| sender.send((ticket, entries)).unwrap()));
    let ask = |index: usize, after| {
        let (ticket, session, change) = (LoadTicket(index as u64), sessions[index], ChangeNumber(0));
        store.load(LoadRequest { ticket, session, after, max, max_bytes, change });
    };
    let mut loaded = vec![Vec::new(); sessions.len()];
    (0..sessions.len()).for_each(|index| ask(index, Sequence(0)));
    let mut under_way = sessions.len();
    while under_way > 0 {
        let (LoadTicket(index), entries) = receiver.recv().unwrap();
        store.load_taken();
        let entries = entries.expect("queues can be read");
        match entries.last() {
            Some(last) => ask(index as usize, last.sequence),
            None => under_way -= 1,
        }
        loaded[index as usize].push(entries);
    }
    loaded
}

fn packet_id(number: u16) -> PacketId {
    NonZeroU16::new(number).unwrap()
}

fn message(topic: &str, payload: &[u8]) -> Message {
    Message {
        topic: Topic::parse(topic).unwrap(),
        payload: payload.into(),
        qos: Qos::AtLeastOnce,
        retain: false,
        properties: None,
        expires_at: None,
        received_at: Timestamp(1_700_000_000_000),
        publisher: "sensor-1".into(),
        user: None,
    }
}

fn message_with_everything() -> Message {
    let properties = MessageProperties {
        payload_is_utf8: Some(true),
        content_type: Some("application/json".into()),
        response_topic: Some(Topic::parse("answers/1").unwrap()),
        correlation_data: Some((*b"\0\xff").into()),
        user_properties: vec![("a".into(), "1".into()), ("a".into(), "".into())],
    };
    Message {
        qos: Qos::ExactlyOnce,
        retain: true,
        properties: Some(Box::new(properties)),
        expires_at: Some(Timestamp(1_800_000_000_000)),
        user: Some("operator".into()),
        ..message("assets/ü/vibration", &[0, 255, 7])
    }
}

fn revision(number: u32) -> Revision {
    Revision {
        number,
        digest: [number as u8; 32],
        version: format!("0.{number}.0").into(),
        activated_at: Timestamp(u64::from(number)),
    }
}

fn entry(message: u64) -> QueueEntry {
    QueueEntry {
        message: MessageId(message),
        qos: Qos::AtLeastOnce,
        retain: false,
        subscription_identifiers: None,
        packet_id: None,
        share: None,
        weight: 5,
        replayed: false,
    }
}

fn subscription(options: SubscriptionOptions) -> SubscriptionRecord {
    SubscriptionRecord { options, identifier: None, share: None }
}

fn state(session: u64, key: &str, value: Option<&[u8]>) -> Change {
    let write = StateWrite::lasting(key, value.map(Arc::from));
    Change::StateWritten { state: SessionId(session), write, undo: false }
}

fn plugin(number: u8) -> PluginName {
    PluginName(["health", "health-2", "orders"][usize::from(number % 3)].into())
}

/// A plugin's revision takes over, with the state that is under the name of the session.
fn activated(plugin: PluginName, session: SessionId, number: u32) -> Change {
    Change::PluginActivated { plugin, session, revision: revision(number), state: session, probation: None }
}

/// The same on probation, after the revision before.
fn on_probation(plugin: PluginName, session: SessionId, number: u32) -> Change {
    let probation = Some(Box::new(ProbationRecord { revision: revision(number - 1), state: session }));
    Change::PluginActivated { plugin, session, revision: revision(number), state: session, probation }
}

/// One change of every kind that adds something, with every field in use.
pub(super) fn one_of_each() -> Vec<Change> {
    let (client, inbox) = (SessionId(1), SessionId(2));
    let will = Will { message: message_with_everything(), expiry_s: Some(3), delay_s: 5 };
    let record = SessionRecord {
        client_id: "client-1".into(),
        session_expiry_s: u32::MAX,
        disconnected_at: Some(Timestamp(9)),
        will: Some(Box::new(will)),
    };
    let options = SubscriptionOptions {
        maximum_qos: Qos::ExactlyOnce,
        no_local: true,
        retain_as_published: true,
        retain_handling: RetainHandling::Never,
    };
    let full_entry = QueueEntry {
        message: MessageId(10),
        qos: Qos::ExactlyOnce,
        retain: true,
        subscription_identifiers: Some([7, 268_435_455].into()),
        packet_id: Some(packet_id(65_535)),
        share: Some(ShareNumber(packet_id(3))),
        weight: 1_000_000,
        replayed: true,
    };
    let subscription = SubscriptionRecord { options, identifier: Some(7), share: Some(ShareNumber(packet_id(3))) };
    let letter = DeadLetter {
        content: Arc::new(message_with_everything()),
        reason: "the reading is no number".into(),
        attempts: 5,
        at: Timestamp(77),
    };
    let filter = TopicFilter::parse("assets/+/#").unwrap();
    let timer =
        Timer { at: Timestamp(88), schedule: Some("0 3 * * *".into()), declared: true, payload: (*b"\0\xff").into() };
    vec![
        Change::IdentifiersReserved { below: 1_000 },
        on_probation(plugin(0), inbox, 2),
        Change::GenerationBegun { plugin: plugin(0), state: SessionId(30) },
        Change::SessionStored { session: client, record: Box::new(record) },
        Change::Subscribed { session: client, filter, subscription },
        Change::TimerSet { session: inbox, name: "$request/7".into(), timer },
        Change::MessageStored { message: MessageId(10), content: Arc::new(message_with_everything()) },
        Change::MessageStored { message: MessageId(11), content: Arc::new(message("a", b"")) },
        Change::Queued { session: client, sequence: Sequence(21), entry: entry(11) },
        Change::Queued { session: inbox, sequence: Sequence(20), entry: full_entry },
        Change::Released { session: inbox, sequence: Sequence(20) },
        Change::Queued { session: inbox, sequence: Sequence(22), entry: entry(11) },
        Change::Queued { session: inbox, sequence: Sequence(18), entry: entry(11) },
        Change::Kept { session: inbox, sequence: Sequence(18) },
        Change::Received { session: client, packet_id: packet_id(1) },
        Change::Retained { message: Arc::new(message_with_everything()) },
        state(2, "pump-1", Some(b"\x01\x02")),
        states::with_undo(states::expiring(2, "pump-1", b"\x03", states::FUTURE)),
        state(30, "pump-1", Some(b"\x04")),
        Change::DeadLettered { session: inbox, sequence: Sequence(19), letter },
    ]
}

/// One change of every kind that takes away, of what [`one_of_each`] added.
pub(super) fn removals() -> Vec<Change> {
    let (client, inbox) = (SessionId(1), SessionId(2));
    vec![
        Change::Unsubscribed { session: client, filter: TopicFilter::parse("assets/+/#").unwrap() },
        Change::Sent { session: client, sequence: Sequence(21), packet_id: packet_id(9) },
        Change::Dequeued { session: inbox, sequence: Sequence(20), message: MessageId(10) },
        Change::ReceivedReleased { session: client, packet_id: packet_id(1) },
        Change::RetainedCleared { topic: Topic::parse("assets/ü/vibration").unwrap() },
        state(2, "pump-1", None),
        Change::TimerCancelled { session: inbox, name: "$request/7".into() },
        Change::GenerationDropped { plugin: plugin(0), state: SessionId(30) },
        Change::PutBack { session: inbox, sequence: Sequence(18) },
        Change::ProbationEnded { plugin: plugin(0), session: inbox, undone: true },
        Change::DeadLetterDropped { session: inbox, sequence: Sequence(19) },
        Change::SessionRemoved { session: inbox },
        Change::PluginRemoved { plugin: plugin(0) },
    ]
}

#[test]
fn every_kind_of_change_comes_back_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let additions = one_of_each();
    let opened = open(directory.path());
    assert_eq!(opened.changes, []);
    commit_and_close(opened, [additions.clone()]);

    let opened = open(directory.path());
    Model::of(&additions).check(&opened);
    // The additions are in the documented order already, but for state, which does not come back as a change, and the
    // queue of a client.
    let kinds = |changes: &[Change]| changes.iter().map(std::mem::discriminant).collect::<Vec<_>>();
    let kept = Change::QueueKept { session: SessionId(1), messages: 1, bytes: 5 };
    let as_kept = |change| match change {
        Change::Queued { session: SessionId(1), .. } => kept.clone(),
        other => other,
    };
    let expected = additions.into_iter().filter(|change| !matches!(change, Change::StateWritten { .. }));
    assert_eq!(kinds(&opened.changes), kinds(&expected.map(as_kept).collect::<Vec<_>>()));
    assert!(opened.changes.contains(&kept));
}

#[test]
fn every_kind_of_change_that_takes_away_takes_away() {
    let client = SessionId(1);
    let directory = tempfile::tempdir().unwrap();
    commit_and_close(open(directory.path()), [one_of_each()]);

    let removals = removals();
    let model = Model::of(one_of_each().iter().chain(&removals));
    commit_and_close(open(directory.path()), [removals]);
    let opened = open(directory.path());
    model.check(&opened);
    assert_eq!(opened.changes[2..], [Change::QueueKept { session: client, messages: 1, bytes: 5 }]);
    let left = load_all(&opened.store, &[client], 9, 9_999).remove(0).remove(0);
    assert_eq!(left[0].entry, QueueEntry { packet_id: Some(packet_id(9)), ..entry(11) });
}

#[test]
fn removing_a_session_takes_all_that_is_under_it_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let mut groups = Vec::new();
    let mut model = Model::default();
    for session in [0, 1, 2, 3, u64::from(u32::MAX)] {
        let id = SessionId(session);
        let options = SubscriptionOptions {
            maximum_qos: Qos::AtMostOnce,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::IfNew,
        };
        let letter =
            DeadLetter { content: Arc::new(message("a", b"")), reason: "".into(), attempts: 1, at: Timestamp(1) };
        let record = SessionRecord {
            client_id: session.to_string().into(),
            session_expiry_s: 1,
            disconnected_at: None,
            will: None,
        };
        let mut group = vec![
            Change::SessionStored { session: id, record: Box::new(record) },
            Change::Received { session: id, packet_id: packet_id(65_535) },
            state(session, "", Some(b"")),
            state(session, "\u{10ffff}", Some(b"x")),
        ];
        let content = Arc::new(message("a", b""));
        group.push(Change::MessageStored { message: MessageId(session), content });
        for number in [1, 2, 3, 500, u64::MAX] {
            let sequence = Sequence(number);
            group.push(Change::Queued { session: id, sequence, entry: entry(session) });
            group.push(Change::DeadLettered { session: id, sequence, letter: letter.clone() });
        }
        for filter in ["#", "a", "\u{10ffff}"] {
            let filter = TopicFilter::parse(filter).unwrap();
            group.push(Change::Subscribed { session: id, filter, subscription: subscription(options) });
        }
        groups.push(group);
    }
    groups.iter().flatten().for_each(|change| model.apply(change));
    commit_and_close(open(directory.path()), groups);
    for session in [1, 0, 3] {
        let removal = Change::SessionRemoved { session: SessionId(session) };
        model.apply(&removal);
        commit_and_close(open(directory.path()), [vec![removal]]);
        model.check(&open(directory.path()));
    }
}

#[test]
fn the_last_ten_revisions_of_a_plugin_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    let (health, other) = (PluginName("health".into()), PluginName("health-2".into()));
    let opened = open(directory.path());
    let activated = |plugin: &PluginName, number| activated(plugin.clone(), SessionId(1), number);
    let mut changes = vec![activated(&other, 1)];
    changes.extend((1..=13).map(|number| activated(&health, number)));
    opened.store.commit(&mut changes, ChangeNumber(14));
    wait(&opened.store, ChangeNumber(14));
    let kept = |plugin| {
        let history = opened.store.plugin_history(plugin).unwrap();
        history.iter().map(|revision| revision.number).collect::<Vec<_>>()
    };
    assert_eq!(kept(&health), (4..=13).rev().collect::<Vec<_>>());
    assert_eq!(kept(&other), [1]);

    // A rollback further than that brings the old revision back, and it stays while it is active.
    opened.store.commit(&mut vec![activated(&health, 2)], ChangeNumber(15));
    wait(&opened.store, ChangeNumber(15));
    assert_eq!(kept(&health), [13, 12, 11, 10, 9, 8, 7, 6, 5, 2]);
    opened.store.commit(&mut vec![Change::PluginRemoved { plugin: health.clone() }], ChangeNumber(16));
    wait(&opened.store, ChangeNumber(16));
    assert!(kept(&health).is_empty());
    assert_eq!(kept(&other), [1]);
}

#[test]
fn a_snapshot_shows_one_moment_and_one_session() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).store;
    let mut changes = vec![
        state(1, "b/1", Some(b"other")),
        state(2, "a", Some(b"a")),
        state(2, "b/1", Some(b"1")),
        state(2, "b/2", Some(b"2")),
        state(2, "b/3", Some(b"")),
        state(2, "c", Some(b"c")),
        state(3, "b/1", Some(b"other")),
    ];
    store.commit(&mut changes, ChangeNumber(7));
    wait(&store, ChangeNumber(7));
    let before = store.snapshot(SessionId(2), Timestamp(0)).unwrap();
    store.commit(&mut vec![state(2, "b/2", None)], ChangeNumber(8));
    wait(&store, ChangeNumber(8));
    let after = store.snapshot(SessionId(2), Timestamp(0)).unwrap();

    assert_eq!(before.get("b/2").unwrap().as_deref(), Some(&b"2"[..]));
    assert_eq!(after.get("b/2").unwrap(), None);
    assert_eq!(after.get("b/3").unwrap().as_deref(), Some(&b""[..]));
    for (prefix, from, limit, expected) in [
        ("", None, 9, &["a", "b/1", "b/2", "b/3", "c"][..]),
        ("", None, 0, &[]),
        ("b/", None, 9, &["b/1", "b/2", "b/3"]),
        ("b/", None, 2, &["b/1", "b/2"]),
        ("b/", Some("b/1"), 9, &["b/2", "b/3"]),
        ("b/", Some("b/3"), 9, &[]),
        ("b/", Some("a"), 9, &["b/1", "b/2", "b/3"]),
        ("b/", Some("c"), 9, &[]),
        ("d", None, 9, &[]),
    ] {
        let found = before.scan(prefix, from, limit).unwrap();
        let keys: Vec<_> = found.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, expected, "scan of {prefix:?} after {from:?}, {limit} at most");
    }
}

#[test]
fn what_comes_and_goes_within_a_group_costs_no_commit() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).store;
    let mut changes = vec![
        Change::MessageStored { message: MessageId(1), content: Arc::new(message("a", b"x")) },
        Change::Queued { session: SessionId(1), sequence: Sequence(2), entry: entry(1) },
        Change::Sent { session: SessionId(1), sequence: Sequence(2), packet_id: packet_id(1) },
        Change::Dequeued { session: SessionId(1), sequence: Sequence(2), message: MessageId(1) },
    ];
    store.commit(&mut changes, ChangeNumber(4));
    assert_eq!(wait(&store, ChangeNumber(4)), Durability::UpTo(ChangeNumber(4)));
    assert_eq!((store.commits().commits, store.commits().changes), (0, 4));

    store.commit(&mut vec![state(1, "k", Some(b"v"))], ChangeNumber(5));
    wait(&store, ChangeNumber(5));
    let commits = store.commits();
    assert_eq!((commits.commits, commits.changes, commits.failures), (1, 5, 0));
    assert!(!commits.last.is_zero() && commits.last == commits.mean && commits.last == commits.max);
}

#[test]
fn a_closed_store_takes_nothing_and_gives_the_directory_back() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).store;
    store.commit(&mut vec![state(1, "k", Some(b"v"))], ChangeNumber(1));
    store.close().unwrap();
    store.close().unwrap();
    assert_eq!(store.durable(), ChangeNumber(1));
    let mut late = vec![state(1, "k", None)];
    store.commit(&mut late, ChangeNumber(2));
    assert!(late.is_empty());
    assert!(matches!(store.snapshot(SessionId(1), Timestamp(0)), Err(StoreError::Closed { .. })));
    let again = open(directory.path()).store;
    assert_eq!(again.snapshot(SessionId(1), Timestamp(0)).unwrap().get("k").unwrap().as_deref(), Some(&b"v"[..]));
    assert_eq!((store.durable(), store.backlog_bytes()), (ChangeNumber(1), 0));
}
