//! A naive store in memory, and random sequences of changes that a broker could make.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{entry, message, message_with_everything, packet_id, revision, state};
use crate::store::Opened;
use crate::store::tables::REVISIONS_KEPT;
use vespiary_core::event::{
    Change, DeadLetter, PacketId, PluginName, QueueEntry, RetainHandling, Revision, Sequence, SessionId, SessionRecord,
    SubscriptionOptions, Will,
};
use vespiary_core::message::{Message, MessageId, Qos, Timestamp};
use vespiary_core::topic::{Topic, TopicFilter};

/// What the store should hold.
#[derive(Debug, Default, Clone)]
pub(super) struct Model {
    below: Option<u64>,
    plugins: BTreeMap<PluginName, (SessionId, Revision)>,
    revisions: BTreeMap<(PluginName, u32), Revision>,
    sessions: BTreeMap<SessionId, Box<SessionRecord>>,
    subscriptions: BTreeMap<(SessionId, TopicFilter), (SubscriptionOptions, Option<u32>)>,
    messages: BTreeMap<MessageId, Arc<Message>>,
    queue: BTreeMap<(SessionId, Sequence), (QueueEntry, bool)>,
    received: BTreeSet<(SessionId, PacketId)>,
    retained: BTreeMap<Topic, Arc<Message>>,
    state: BTreeMap<(SessionId, String), Box<[u8]>>,
    dead_letters: BTreeMap<(SessionId, Sequence), DeadLetter>,
}

impl Model {
    pub(super) fn apply(&mut self, change: &Change) {
        match change.clone() {
            Change::IdentifiersReserved { below } => self.below = Some(below),
            Change::SessionStored { session, record } => {
                self.sessions.insert(session, record);
            }
            Change::SessionRemoved { session } => self.remove_session(session),
            Change::Subscribed { session, filter, options, identifier } => {
                self.subscriptions.insert((session, filter), (options, identifier));
            }
            Change::Unsubscribed { session, filter } => {
                self.subscriptions.remove(&(session, filter));
            }
            Change::MessageStored { message, content } => {
                self.messages.insert(message, content);
            }
            Change::MessageReleased { message } => {
                self.messages.remove(&message);
            }
            Change::Queued { session, sequence, entry } => {
                self.queue.insert((session, sequence), (entry, false));
            }
            Change::Sent { session, sequence, packet_id } => {
                if let Some((entry, _)) = self.queue.get_mut(&(session, sequence)) {
                    entry.packet_id = Some(packet_id);
                }
            }
            Change::Released { session, sequence } => {
                if let Some((_, released)) = self.queue.get_mut(&(session, sequence)) {
                    *released = true;
                }
            }
            Change::Dequeued { session, sequence } => {
                self.queue.remove(&(session, sequence));
            }
            Change::Received { session, packet_id } => {
                self.received.insert((session, packet_id));
            }
            Change::ReceivedReleased { session, packet_id } => {
                self.received.remove(&(session, packet_id));
            }
            Change::Retained { message } => {
                self.retained.insert(message.topic.clone(), message);
            }
            Change::RetainedCleared { topic } => {
                self.retained.remove(&topic);
            }
            Change::PluginActivated { plugin, session, revision } => self.activate(plugin, session, revision),
            Change::PluginRemoved { plugin } => {
                self.plugins.remove(&plugin);
                self.revisions.retain(|(name, _), _| *name != plugin);
            }
            Change::StateWritten { session, write } => {
                let key = (session, write.key.into_string());
                match write.value {
                    Some(value) => self.state.insert(key, value),
                    None => self.state.remove(&key),
                };
            }
            Change::DeadLettered { session, sequence, letter } => {
                self.dead_letters.insert((session, sequence), letter);
            }
            Change::DeadLetterDropped { session, sequence } => {
                self.dead_letters.remove(&(session, sequence));
            }
        }
    }

    fn remove_session(&mut self, session: SessionId) {
        self.sessions.remove(&session);
        self.subscriptions.retain(|(of, _), _| *of != session);
        self.queue.retain(|(of, _), _| *of != session);
        self.received.retain(|(of, _)| *of != session);
        self.state.retain(|(of, _), _| *of != session);
        self.dead_letters.retain(|(of, _), _| *of != session);
    }

    fn activate(&mut self, plugin: PluginName, session: SessionId, revision: Revision) {
        self.plugins.insert(plugin.clone(), (session, revision.clone()));
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

    /// What an open store should give back, in the documented order.
    fn changes(&self) -> Vec<Change> {
        let mut changes = Vec::new();
        changes.extend(self.below.map(|below| Change::IdentifiersReserved { below }));
        for (plugin, (session, revision)) in self.plugins.clone() {
            changes.push(Change::PluginActivated { plugin, session, revision });
        }
        for (session, record) in self.sessions.clone() {
            changes.push(Change::SessionStored { session, record });
        }
        for ((session, filter), (options, identifier)) in self.subscriptions.clone() {
            changes.push(Change::Subscribed { session, filter, options, identifier });
        }
        for (message, content) in self.messages.clone() {
            changes.push(Change::MessageStored { message, content });
        }
        for ((session, sequence), (entry, released)) in self.queue.clone() {
            changes.push(Change::Queued { session, sequence, entry });
            changes.extend(released.then_some(Change::Released { session, sequence }));
        }
        for (session, packet_id) in self.received.clone() {
            changes.push(Change::Received { session, packet_id });
        }
        for message in self.retained.values().cloned() {
            changes.push(Change::Retained { message });
        }
        for ((session, sequence), mut letter) in self.dead_letters.clone() {
            letter.content = Arc::new(Message { payload: [].into(), properties: None, ..(*letter.content).clone() });
            changes.push(Change::DeadLettered { session, sequence, letter });
        }
        changes
    }

    /// Checks that a store that was just opened holds what this model does.
    #[track_caller]
    pub(super) fn check(&self, opened: &Opened) {
        assert_eq!(opened.changes, self.changes());
        let with_state = self.state.keys().map(|(session, _)| *session);
        let with_letters = self.dead_letters.keys().map(|(session, _)| *session);
        let mut sessions: BTreeSet<SessionId> = with_state.chain(with_letters).collect();
        // Some that should have nothing.
        sessions.extend((0..8).map(SessionId));
        for session in sessions {
            let state = opened.store.snapshot(session).unwrap().scan("", None, usize::MAX).unwrap();
            let expected: Vec<_> = self
                .state
                .iter()
                .filter(|((of, _), _)| *of == session)
                .map(|((_, key), value)| (key.clone(), value.to_vec()))
                .collect();
            assert_eq!(state, expected, "state of {session:?}");
            let letters = opened.store.dead_letters(session, usize::MAX).unwrap();
            let expected: Vec<_> = self
                .dead_letters
                .iter()
                .filter(|((of, _), _)| *of == session)
                .map(|((_, sequence), letter)| (*sequence, letter.clone()))
                .collect();
            assert_eq!(letters, expected, "dead letters of {session:?}");
        }
        for plugin in self.plugins.keys() {
            let history = opened.store.plugin_history(plugin).unwrap();
            let kept = self.revisions.iter().filter(|((name, _), _)| name == plugin).rev();
            assert_eq!(history, kept.map(|(_, revision)| revision.clone()).collect::<Vec<_>>());
        }
    }

    /// Any element of a map by a number.
    fn pick<K: Clone, V>(map: &BTreeMap<K, V>, number: u8) -> Option<K> {
        map.keys().nth(usize::from(number) % map.len().max(1)).cloned()
    }

    /// The change that a random step stands for, if there is one now. `next` is an identifier not used before.
    pub(super) fn step(&self, (kind, a, b): Step, next: u64) -> Option<Change> {
        let session = Self::pick(&self.sessions, a);
        let queued = || Self::pick(&self.queue, b);
        Some(match kind % KINDS {
            0 => Change::IdentifiersReserved { below: next + 100 },
            1 => Change::SessionStored { session: SessionId(next), record: record(a, b) },
            2 => Change::SessionStored { session: session?, record: record(a, b) },
            3 if a.is_multiple_of(4) => Change::SessionRemoved { session: session? },
            4 => Change::Subscribed {
                session: session?,
                filter: filter(b),
                options: options(a, b),
                identifier: (b > 99).then_some(u32::from(b)),
            },
            5 => Change::Unsubscribed { session: session?, filter: filter(b) },
            6 | 7 => Change::MessageStored { message: MessageId(next), content: content(a, b) },
            8 => Change::MessageReleased { message: Self::pick(&self.messages, a)? },
            9..=12 => {
                let message = Self::pick(&self.messages, b)?.0;
                let packet_id = (a > 200).then(|| packet_id(u16::from(a)));
                let entry = QueueEntry { packet_id, ..entry(message) };
                Change::Queued { session: session?, sequence: Sequence(next), entry }
            }
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
                Change::Dequeued { session, sequence }
            }
            18 => Change::Received { session: session?, packet_id: packet_id(u16::from(b % 8) + 1) },
            19 => Change::ReceivedReleased { session: session?, packet_id: packet_id(u16::from(b % 8) + 1) },
            20 => Change::Retained { message: content(a, b) },
            21 => Change::RetainedCleared { topic: content(a, b).topic.clone() },
            22 => Change::PluginActivated {
                plugin: plugin(a),
                session: session?,
                revision: revision(1 + u32::from(b) % 24),
            },
            23 if b.is_multiple_of(8) => Change::PluginRemoved { plugin: plugin(a) },
            24..=27 => {
                let value = [a, b].repeat(usize::from(b) * 8);
                state(session?.0, &format!("key/{}", b % 16), (kind % KINDS < 27).then_some(&value))
            }
            28 => Change::DeadLettered { session: session?, sequence: Sequence(next), letter: letter(a, b) },
            29 => {
                let (session, sequence) = Self::pick(&self.dead_letters, b)?;
                Change::DeadLetterDropped { session, sequence }
            }
            _ => return None,
        })
    }
}

/// A random change in the making: its kind, and two numbers to choose with.
pub(super) type Step = (u8, u8, u8);

const KINDS: u8 = 30;

/// The changes that random steps stand for.
pub(super) fn changes(steps: &[Step]) -> Vec<Change> {
    let mut model = Model::default();
    let mut changes = Vec::new();
    for (&step, next) in steps.iter().zip(1..) {
        if let Some(change) = model.step(step, next) {
            model.apply(&change);
            changes.push(change);
        }
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

fn options(a: u8, b: u8) -> SubscriptionOptions {
    SubscriptionOptions {
        maximum_qos: Qos::from_u8(a % 3).unwrap(),
        no_local: a > 128,
        retain_as_published: b > 128,
        retain_handling: [RetainHandling::AtSubscribe, RetainHandling::IfNew, RetainHandling::Never]
            [usize::from(b % 3)],
    }
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

fn plugin(a: u8) -> PluginName {
    PluginName(["health", "health-2", "orders"][usize::from(a % 3)].into())
}
