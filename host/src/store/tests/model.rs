//! What the store should hold, by the core's own ledger, and random sequences of changes that a broker could make.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;
use std::sync::Arc;

use redb::{ReadableDatabase, ReadableTable};

use super::states::{FUTURE, Plugin, States, expiring, with_undo};
use super::{entry, load_all, message, message_with_everything, packet_id, plugin, revision, state};
use crate::store::record::QueueRow;
use crate::store::tables::{KEPT, MESSAGES, QUEUE, REFERENCES, REVISIONS_KEPT};
use crate::store::{Opened, Store};
use vespiary_core::Ledger;
use vespiary_core::event::{
    Change, DeadLetter, LoadedEntry, PluginName, ProbationRecord, QueueEntry, RetainHandling, Revision, Sequence,
    SessionId, SessionRecord, ShareNumber, SubscriptionOptions, SubscriptionRecord, Timer, Will,
};
use vespiary_core::message::{Message, MessageId, Qos, Timestamp};
use vespiary_core::topic::TopicFilter;

/// What the store should hold. Beside the ledger it keeps what no ledger is asked for, and what there is to choose from.
#[derive(Debug, Default, Clone)]
pub(super) struct Model {
    ledger: Ledger,
    states: States,
    revisions: BTreeMap<(PluginName, u32), Revision>,
    sessions: BTreeMap<SessionId, ()>,
    queue: BTreeMap<(SessionId, Sequence), MessageId>,
    kept: BTreeMap<(SessionId, Sequence), MessageId>,
    dead_letters: BTreeMap<(SessionId, Sequence), DeadLetter>,
}

impl Model {
    /// The model of all of these.
    pub(super) fn of<'a>(changes: impl IntoIterator<Item = &'a Change>) -> Self {
        let mut model = Self::default();
        changes.into_iter().for_each(|change| model.apply(change));
        model
    }

    /// What it holds of the state of plugins.
    pub(super) fn states(&self) -> &States {
        &self.states
    }

    pub(super) fn apply(&mut self, change: &Change) {
        self.ledger.apply(change.clone());
        self.states.apply(change);
        match change.clone() {
            Change::SessionStored { session, .. } => drop(self.sessions.insert(session, ())),
            Change::SessionRemoved { session } => self.remove_session(session),
            Change::Queued { session, sequence, entry } => {
                self.queue.insert((session, sequence), entry.message);
            }
            Change::Dequeued { session, sequence, .. } => {
                self.queue.remove(&(session, sequence));
            }
            Change::PluginActivated { plugin, session, revision, .. } => self.activate(plugin, session, revision),
            Change::PluginRemoved { plugin } => self.revisions.retain(|(name, _), _| *name != plugin),
            Change::Kept { session, sequence } => {
                let message = self.queue.remove(&(session, sequence));
                self.kept.extend(message.map(|message| ((session, sequence), message)));
            }
            Change::PutBack { session, sequence } => {
                let message = self.kept.remove(&(session, sequence));
                self.queue.extend(message.map(|message| ((session, sequence), message)));
            }
            Change::ProbationEnded { session, .. } => self.kept.retain(|(of, _), _| *of != session),
            Change::DeadLettered { session, sequence, letter } => {
                self.dead_letters.insert((session, sequence), letter);
            }
            Change::DeadLetterDropped { session, sequence } => {
                self.dead_letters.remove(&(session, sequence));
            }
            Change::IdentifiersReserved { .. }
            | Change::Subscribed { .. }
            | Change::Unsubscribed { .. }
            | Change::MessageStored { .. }
            | Change::Sent { .. }
            | Change::Released { .. }
            | Change::QueueKept { .. }
            | Change::Received { .. }
            | Change::ReceivedReleased { .. }
            | Change::Retained { .. }
            | Change::RetainedCleared { .. }
            | Change::StateWritten { .. }
            | Change::GenerationBegun { .. }
            | Change::GenerationDropped { .. }
            | Change::TimerSet { .. }
            | Change::TimerCancelled { .. } => {}
        }
    }

    fn remove_session(&mut self, session: SessionId) {
        self.sessions.remove(&session);
        self.queue.retain(|(of, _), _| *of != session);
        self.kept.retain(|(of, _), _| *of != session);
        self.dead_letters.retain(|(of, _), _| *of != session);
    }

    fn activate(&mut self, plugin: PluginName, session: SessionId, revision: Revision) {
        self.kept.retain(|(of, _), _| *of != session);
        let active = revision.number;
        self.revisions.insert((plugin.clone(), active), revision);
        loop {
            let kept: Vec<u32> =
                self.revisions.keys().filter(|(name, _)| *name == plugin).map(|(_, number)| *number).collect();
            if kept.len() <= REVISIONS_KEPT {
                break;
            }
            let oldest = kept.into_iter().find(|&number| number != active).unwrap();
            self.revisions.remove(&(plugin.clone(), oldest));
        }
    }

    /// Checks that a store that was just opened holds what this model does.
    #[track_caller]
    pub(super) fn check(&self, opened: &Opened) {
        let mut restored = Ledger::default();
        opened.changes.iter().for_each(|change| restored.apply(change.clone()));
        assert_same(&restored.changes(), &self.ledger.changes());
        assert_same(&restored.dead_letters(), &self.dead_letters_without_content());
        self.check_store(&opened.store);
    }

    /// Checks that a store in which all is durable holds what this model does.
    #[track_caller]
    pub(super) fn check_store(&self, store: &Store) {
        assert_eq!(store.stored_messages().unwrap(), self.ledger.messages() as u64);
        check_references(store);
        self.check_queues(store);
        self.states.check(store);
        let mut sessions: BTreeSet<SessionId> = self.dead_letters.keys().map(|(session, _)| *session).collect();
        // Some that should have nothing.
        sessions.extend((0..8).map(SessionId));
        for session in sessions {
            let letters = store.dead_letters(session, None, usize::MAX).unwrap();
            let expected: Vec<_> = self
                .dead_letters
                .iter()
                .filter(|((of, _), _)| *of == session)
                .map(|((_, sequence), letter)| (*sequence, letter.clone()))
                .collect();
            assert_eq!(letters, expected, "dead letters of {session:?}");
            if let Some(((first, letter), rest)) = expected.split_first() {
                assert_eq!(store.dead_letters(session, Some(*first), usize::MAX).unwrap(), rest);
                assert_eq!(store.dead_letter(session, *first).unwrap().as_ref(), Some(letter));
            }
        }
        for plugin in self.states.plugins.keys() {
            let history = store.plugin_history(plugin).unwrap();
            let kept = self.revisions.iter().filter(|((name, _), _)| name == plugin).rev();
            assert_eq!(history, kept.map(|(_, revision)| revision.clone()).collect::<Vec<_>>());
        }
    }

    /// All queues, read in parts and compared part by part.
    #[track_caller]
    fn check_queues(&self, store: &Store) {
        let sessions: BTreeSet<SessionId> = self.queue.keys().map(|(session, _)| *session).collect();
        let sessions: Vec<SessionId> = sessions.into_iter().chain([SessionId(u64::MAX)]).collect();
        for (max, max_bytes) in [(3, usize::MAX), (usize::MAX, 1_000)] {
            let loaded = load_all(store, &sessions, max, max_bytes);
            for (session, parts) in sessions.iter().zip(loaded) {
                let mut after = Sequence(0);
                for part in parts {
                    let expected: Vec<LoadedEntry> = self.ledger.load(*session, after, max, max_bytes);
                    assert_eq!(part, expected, "queue of {session:?} after {after:?}");
                    after = part.last().map_or(after, |last| last.sequence);
                }
            }
        }
    }

    fn dead_letters_without_content(&self) -> Vec<Change> {
        let mut letters = self.ledger.dead_letters();
        for change in &mut letters {
            let Change::DeadLettered { letter, .. } = change else { unreachable!("a dead letter") };
            letter.content = Arc::new(Message { payload: [].into(), properties: None, ..(*letter.content).clone() });
        }
        letters
    }

    /// Any element of a map by a number.
    fn pick<K: Clone, V>(map: &BTreeMap<K, V>, number: u8) -> Option<K> {
        map.keys().nth(usize::from(number) % map.len().max(1)).cloned()
    }

    /// The changes that a random step stands for, which belong together; none if they cannot be now. From `next` on there
    /// are ten identifiers that were not used before.
    fn step(&self, (kind, a, b): Step, next: u64) -> Vec<Change> {
        let step = (usual(kind), a, b);
        self.change(step, next)
            .map(|change| vec![change])
            .or_else(|| self.removal((step.0, a)))
            .or_else(|| self.swap(step, next))
            .or_else(|| self.on_probation(step))
            .or_else(|| self.delivery(step, next))
            .unwrap_or_default()
    }

    fn change(&self, (kind, a, b): Step, next: u64) -> Option<Change> {
        let session = Self::pick(&self.sessions, a);
        let queued = || Self::pick(&self.queue, b);
        Some(match kind {
            0 => Change::IdentifiersReserved { below: next + 100 },
            1 => Change::SessionStored { session: SessionId(next), record: record(a, b) },
            2 => Change::SessionStored { session: session?, record: record(a, b) },
            4 => Change::Subscribed { session: session?, filter: filter(b), subscription: subscription(a, b) },
            5 => Change::Unsubscribed { session: session?, filter: filter(b) },
            13 => {
                let (session, sequence) = queued()?;
                Change::Sent { session, sequence, packet_id: packet_id(u16::from(a) + 1) }
            }
            14 => {
                let (session, sequence) = queued()?;
                Change::Released { session, sequence }
            }
            15..=17 => {
                let (session, sequence) = queued()?;
                Change::Dequeued { session, sequence, message: self.queue[&(session, sequence)] }
            }
            18 => Change::Received { session: session?, packet_id: packet_id(u16::from(b % 8) + 1) },
            19 => Change::ReceivedReleased { session: session?, packet_id: packet_id(u16::from(b % 8) + 1) },
            20 => Change::Retained { message: content(a, b) },
            21 => Change::RetainedCleared { topic: content(a, b).topic.clone() },
            23 if b.is_multiple_of(8) => Change::PluginRemoved { plugin: plugin(a) },
            24..=27 => {
                let value = [a, b].repeat(usize::from(b) * 8);
                self.write(session?, kind, &format!("key/{}", b / 64), &value, (a, b))
            }
            30 => {
                let (session, name) = (self.plugin(a)?.1.session, format!("timer/{}", b % 4).into());
                Change::TimerSet { session, name, timer: timer(a, b) }
            }
            31 => {
                let (session, name) = (self.plugin(a)?.1.session, format!("timer/{}", b % 4).into());
                Change::TimerCancelled { session, name }
            }
            28 => Change::DeadLettered { session: session?, sequence: Sequence(next), letter: letter(a, b) },
            29 => {
                let (session, sequence) = Self::pick(&self.dead_letters, b)?;
                Change::DeadLetterDropped { session, sequence }
            }
            _ => return None,
        })
    }

    /// A plugin by a number.
    fn plugin(&self, number: u8) -> Option<(PluginName, &Plugin)> {
        let name = Self::pick(&self.states.plugins, number)?;
        let plugin = &self.states.plugins[&name];
        Some((name, plugin))
    }

    /// A write to some session's state, or to that of a plugin: to the generation in use, undone with the probation if
    /// there is one that uses it too, or to the one that is begun.
    fn write(&self, session: SessionId, kind: u8, key: &str, value: &[u8], (a, b): (u8, u8)) -> Change {
        let to = |of: SessionId| match kind {
            24 => state(of.0, key, Some(value)),
            25 | 26 => expiring(of.0, key, value, FUTURE + u64::from(a ^ b)),
            _ => state(of.0, key, None),
        };
        match self.plugin(b) {
            Some((_, plugin)) if !a.is_multiple_of(4) => match (&plugin.probation, plugin.begun) {
                (_, Some(begun)) if a % 4 == 1 => to(begun),
                (Some(before), _) if before.state == plugin.state => with_undo(to(plugin.state)),
                _ => to(plugin.state),
            },
            _ => to(session),
        }
    }

    /// A plugin's revision takes over, at first or later, with or without a probation and a new generation; or a
    /// generation is begun or dropped.
    fn swap(&self, (kind, a, b): Step, next: u64) -> Option<Vec<Change>> {
        let revision = revision(1 + u32::from(b) % 24);
        match kind {
            22 if self.states.plugins.contains_key(&plugin(a)) => {
                let before = &self.states.plugins[&plugin(a)];
                let probation = ProbationRecord { revision: before.revision.clone(), state: before.state };
                let change = Change::PluginActivated {
                    plugin: plugin(a),
                    session: before.session,
                    revision,
                    state: before.begun.filter(|_| a < 160).unwrap_or(before.state),
                    probation: (a > 80).then(|| Box::new(probation)),
                };
                Some(vec![change])
            }
            22 => {
                let used = |session: &SessionId| self.states.plugins.values().any(|plugin| plugin.session == *session);
                let session = Self::pick(&self.sessions, a).filter(|session| !used(session))?;
                Some(vec![super::activated(plugin(a), session, revision.number)])
            }
            32 => {
                let (plugin, before) = self.plugin(a)?;
                let dropped = before.begun.map(|state| Change::GenerationDropped { plugin: plugin.clone(), state });
                let begun = Change::GenerationBegun { plugin, state: SessionId(next) };
                Some(dropped.into_iter().chain((b < 200).then_some(begun)).collect())
            }
            _ => None,
        }
    }

    /// An event is handled on probation, or a probation ends.
    fn on_probation(&self, (kind, a, b): Step) -> Option<Vec<Change>> {
        let name = self.states.plugins.iter().filter(|(_, plugin)| plugin.probation.is_some());
        let on_probation: BTreeMap<_, _> = name.map(|(name, plugin)| (name.clone(), plugin.clone())).collect();
        let name = Self::pick(&on_probation, a)?;
        let Plugin { session, probation, .. } = on_probation[&name].clone();
        let events = |of: &BTreeMap<(SessionId, Sequence), MessageId>| {
            of.keys().filter(|(of, _)| *of == session).map(|(_, sequence)| *sequence).collect::<Vec<_>>()
        };
        match kind {
            33..=36 => {
                let waiting = events(&self.queue);
                let sequence = *waiting.get(usize::from(b) % waiting.len().max(1))?;
                Some(vec![Change::Kept { session, sequence }])
            }
            37 => Some(vec![Change::ProbationEnded { plugin: name, session, undone: false }]),
            38 => {
                // Most are put back, and what is not goes.
                let put_back = events(&self.kept).into_iter().filter(|sequence| sequence.0 % 5 != u64::from(b % 8));
                let mut changes: Vec<Change> = put_back.map(|sequence| Change::PutBack { session, sequence }).collect();
                let ProbationRecord { revision: before, state } = probation?;
                let revision = Revision { number: revision(1 + u32::from(b) % 24).number, ..before };
                changes.push(Change::ProbationEnded { plugin: name.clone(), session, undone: true });
                changes.push(Change::PluginActivated { plugin: name, session, revision, state, probation: None });
                Some(changes)
            }
            _ => None,
        }
    }

    /// A session that ends, with the plugin whose inbox it is.
    fn removal(&self, (kind, a): (u8, u8)) -> Option<Vec<Change>> {
        let session = Self::pick(&self.sessions, a).filter(|_| kind == 3 && a.is_multiple_of(4))?;
        let mut changes = vec![Change::SessionRemoved { session }];
        let plugins = self.states.plugins.iter().filter(|(_, plugin)| plugin.session == session);
        changes.extend(plugins.map(|(plugin, _)| Change::PluginRemoved { plugin: plugin.clone() }));
        Some(changes)
    }

    /// A message that goes into queues: a new one into one or several, or one that is in a queue into another, which it
    /// may leave the first for.
    fn delivery(&self, (kind, a, b): Step, next: u64) -> Option<Vec<Change>> {
        let into = |message: MessageId, offset: u64| {
            let session = Self::pick(&self.sessions, a.wrapping_add(offset as u8))?;
            let packet_id = (a > 200).then(|| packet_id(u16::from(a)));
            let share = NonZeroU16::new(u16::from(b % 3)).map(ShareNumber);
            let entry = QueueEntry { packet_id, share, weight: u32::from(b), ..entry(message.0) };
            Some(Change::Queued { session, sequence: Sequence(next + offset), entry })
        };
        match kind {
            6..=9 => {
                let message = MessageId(next);
                let mut changes = vec![Change::MessageStored { message, content: content(a, b) }];
                for offset in 1..=u64::from(b % 4) + 1 {
                    changes.push(into(message, offset)?);
                }
                Some(changes)
            }
            10..=12 => {
                let (session, sequence) = Self::pick(&self.queue, b)?;
                let message = self.queue[&(session, sequence)];
                let mut changes = vec![into(message, 1)?];
                changes.extend((kind == 12).then_some(Change::Dequeued { session, sequence, message }));
                Some(changes)
            }
            _ => None,
        }
    }
}

/// Like `assert_eq`, but shows only where the lists begin to differ, and not all of a payload.
#[track_caller]
fn assert_same(found: &[Change], expected: &[Change]) {
    if let Some(at) = (0..found.len().max(expected.len())).find(|&at| found.get(at) != expected.get(at)) {
        let show = |changes: &[Change]| format!("{:.1000}", format!("{:?}", changes.get(at)));
        panic!("change {at} is {}, not {}", show(found), show(expected));
    }
}

/// Checks that the messages are those that queues refer to, and that they are counted.
#[track_caller]
fn check_references(store: &Store) {
    let mut expected: BTreeMap<u64, u32> = BTreeMap::new();
    let mut found: BTreeMap<u64, u32> = BTreeMap::new();
    let read = store.read(|database| {
        let transaction = database.begin_read().unwrap();
        for table in [QUEUE, KEPT] {
            for row in transaction.open_table(table).unwrap().iter().unwrap() {
                *expected.entry(QueueRow::message(row.unwrap().1.value()).unwrap()).or_default() += 1;
            }
        }
        for row in transaction.open_table(MESSAGES).unwrap().iter().unwrap() {
            found.insert(row.unwrap().0.value(), 1);
        }
        for row in transaction.open_table(REFERENCES).unwrap().iter().unwrap() {
            let (message, count) = row.unwrap();
            assert!(count.value() > 1, "a count of {} is noted", count.value());
            assert!(found.insert(message.value(), count.value()).is_some(), "a message that is not there is counted");
        }
        Ok(())
    });
    read.unwrap();
    assert_eq!(found, expected);
}

/// A random change in the making: its kind, and two numbers to choose with.
pub(super) type Step = (u8, u8, u8);

const KINDS: u8 = 64;

/// The kind of a step. Those that need others before them are more frequent.
fn usual(kind: u8) -> u8 {
    match kind % KINDS {
        kind @ 39..=52 => 24 + kind % 4,
        53..=57 => 22,
        58..=62 => 33,
        63 => 38,
        kind => kind,
    }
}

/// The changes that random steps stand for, in parts that belong together.
pub(super) fn changes(steps: &[Step]) -> Vec<Vec<Change>> {
    let mut model = Model::default();
    let mut changes = Vec::new();
    for (&step, next) in steps.iter().zip((1..).map(|number| number * 10)) {
        let part = model.step(step, next);
        part.iter().for_each(|change| model.apply(change));
        changes.extend((!part.is_empty()).then_some(part));
    }
    changes
}

fn record(a: u8, b: u8) -> Box<SessionRecord> {
    let will = Will { message: (*content(a, b)).clone(), expiry_s: None, delay_s: u32::from(a) };
    Box::new(SessionRecord {
        client_id: format!("client-{a}").into(),
        session_expiry_s: u32::from(b),
        disconnected_at: (b > 128).then_some(Timestamp(u64::from(a))),
        will: (a > 128).then(|| Box::new(will)),
    })
}

fn filter(b: u8) -> TopicFilter {
    TopicFilter::parse(["#", "a/+", "a/b", "+/b", "$SYS/#"][usize::from(b % 5)]).unwrap()
}

fn subscription(a: u8, b: u8) -> SubscriptionRecord {
    let options = SubscriptionOptions {
        maximum_qos: Qos::from_u8(a % 3).unwrap(),
        no_local: a > 128,
        retain_as_published: b > 128,
        retain_handling: [RetainHandling::AtSubscribe, RetainHandling::IfNew, RetainHandling::Never]
            [usize::from(b % 3)],
    };
    let share = NonZeroU16::new(u16::from(a % 3)).map(ShareNumber);
    SubscriptionRecord { options, identifier: (b > 99).then_some(u32::from(b)), share }
}

fn content(a: u8, b: u8) -> Arc<Message> {
    let payload = [b].repeat(usize::from(a) * 16);
    let plain = message(&format!("a/{}", a % 6), &payload);
    Arc::new(if b > 128 { Message { topic: plain.topic, ..message_with_everything() } } else { plain })
}

fn letter(a: u8, b: u8) -> DeadLetter {
    DeadLetter {
        content: content(a, b),
        reason: format!("because of {b}").into(),
        attempts: u32::from(a),
        at: Timestamp(u64::from(b)),
    }
}

fn timer(a: u8, b: u8) -> Timer {
    Timer {
        at: Timestamp(u64::from(a)),
        schedule: (b > 128).then(|| format!("{a} * * * *").into()),
        declared: a.is_multiple_of(2),
        payload: [b].repeat(usize::from(a)).into(),
    }
}
