//! What the changes of a broker come to: the reference for whoever keeps them.
//!
//! A [`Ledger`] folds changes into plain ordered maps, in which any order of independent changes comes to the same. A
//! broker is restored through one, tests compare with one, and a store gives back what [`Ledger::changes`] does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::event::{
    Change, DeadLetter, LoadedEntry, PacketId, PluginName, QueueEntry, Revision, Sequence, SessionId, SessionRecord,
    SubscriptionRecord,
};
use crate::message::{Message, MessageId};
use crate::topic::{Topic, TopicFilter};

/// Everything durable.
#[derive(Debug, Default, Clone)]
pub struct Ledger {
    /// Identifiers below this are used up.
    pub(crate) identifiers_below: u64,
    /// Sessions of clients and of plugins.
    pub(crate) sessions: BTreeMap<SessionId, KeptSession>,
    /// Messages that queues hold, each with the number of entries that refer to it.
    pub(crate) messages: BTreeMap<MessageId, (Arc<Message>, u64)>,
    /// Retained messages.
    pub(crate) retained: BTreeMap<Topic, Arc<Message>>,
    /// Plugins, with their sessions and active revisions.
    pub(crate) plugins: BTreeMap<PluginName, (SessionId, Revision)>,
}

/// A durable session, or that of a plugin.
#[derive(Debug, Default, Clone)]
pub(crate) struct KeptSession {
    /// What is known of it; `None` for a plugin's.
    pub(crate) record: Option<Box<SessionRecord>>,
    /// Its subscriptions.
    pub(crate) subscriptions: BTreeMap<TopicFilter, SubscriptionRecord>,
    /// Its queue, with whether an entry is released.
    pub(crate) queue: BTreeMap<Sequence, (QueueEntry, bool)>,
    /// What its queue holds beside these entries: messages and weight.
    pub(crate) kept: (u64, u64),
    /// QoS 2 messages received and not released.
    pub(crate) received: BTreeSet<PacketId>,
    /// Its dead letters.
    pub(crate) dead_letters: BTreeMap<Sequence, DeadLetter>,
}

impl Ledger {
    /// Takes the next change.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::IdentifiersReserved { below } => self.identifiers_below = below,
            Change::SessionStored { session, record } => self.session(session).record = Some(record),
            Change::SessionRemoved { session } => {
                let removed = self.sessions.remove(&session).unwrap_or_default();
                removed.queue.into_values().for_each(|(entry, _)| self.let_go(entry.message));
            }
            Change::Subscribed { session, filter, subscription } => {
                self.session(session).subscriptions.insert(filter, subscription);
            }
            Change::Unsubscribed { session, filter } => drop(self.session(session).subscriptions.remove(&filter)),
            Change::MessageStored { message, content } => drop(self.messages.insert(message, (content, 0))),
            Change::Queued { session, sequence, entry } => {
                if let Some((_, references)) = self.messages.get_mut(&entry.message) {
                    *references += 1;
                }
                self.session(session).queue.insert(sequence, (entry, false));
            }
            Change::Sent { session, sequence, packet_id } => {
                if let Some((entry, _)) = self.session(session).queue.get_mut(&sequence) {
                    entry.packet_id = Some(packet_id);
                }
            }
            Change::Released { session, sequence } => {
                if let Some((_, released)) = self.session(session).queue.get_mut(&sequence) {
                    *released = true;
                }
            }
            Change::Dequeued { session, sequence, message } => {
                if self.session(session).queue.remove(&sequence).is_some() {
                    self.let_go(message);
                }
            }
            Change::QueueKept { session, messages, bytes } => self.session(session).kept = (messages, bytes),
            Change::Received { session, packet_id } => {
                self.session(session).received.insert(packet_id);
            }
            Change::ReceivedReleased { session, packet_id } => {
                self.session(session).received.remove(&packet_id);
            }
            Change::Retained { message } => drop(self.retained.insert(message.topic.clone(), message)),
            Change::RetainedCleared { topic } => drop(self.retained.remove(&topic)),
            Change::PluginActivated { plugin, session, revision, .. } => {
                self.session(session);
                self.plugins.insert(plugin, (session, revision));
            }
            Change::PluginRemoved { plugin } => drop(self.plugins.remove(&plugin)),
            // Nobody asks a ledger for the state of plugins.
            Change::StateWritten { .. }
            | Change::GenerationBegun { .. }
            | Change::GenerationDropped { .. }
            | Change::Kept { .. }
            | Change::PutBack { .. }
            | Change::ProbationEnded { .. }
            | Change::TimerSet { .. }
            | Change::TimerCancelled { .. } => {}
            Change::DeadLettered { session, sequence, letter } => {
                self.session(session).dead_letters.insert(sequence, letter);
            }
            Change::DeadLetterDropped { session, sequence } => {
                self.session(session).dead_letters.remove(&sequence);
            }
        }
    }

    /// What [`Effect::Load`](crate::Effect::Load) asks for.
    pub fn load(&self, session: SessionId, after: Sequence, max: usize, max_bytes: usize) -> Vec<LoadedEntry> {
        let mut loaded = Vec::new();
        let mut bytes = 0;
        let queue = self.sessions.get(&session).map(|kept| &kept.queue);
        for (&sequence, (entry, released)) in queue.into_iter().flat_map(|queue| queue.range(after..)) {
            let Some((content, _)) = self.messages.get(&entry.message).filter(|_| sequence > after) else { continue };
            if loaded.len() == max || (bytes >= max_bytes && !loaded.is_empty()) {
                break;
            }
            bytes += content.weight();
            let (entry, content) = (entry.clone(), content.clone());
            loaded.push(LoadedEntry { sequence, entry, released: *released, content });
        }
        loaded
    }

    /// The shortest changes that come to the same, but for dead letters ([`Self::dead_letters`]), and for the queues of
    /// clients, of which only the length is given. Their order depends on nothing else.
    pub fn changes(&self) -> Vec<Change> {
        let mut changes = vec![Change::IdentifiersReserved { below: self.identifiers_below.max(1) }];
        let plugins: BTreeMap<SessionId, (&PluginName, &Revision)> =
            self.plugins.iter().map(|(plugin, (session, revision))| (*session, (plugin, revision))).collect();
        let inboxes = plugins.keys().filter_map(|session| self.sessions.get(session));
        let held: BTreeSet<MessageId> =
            inboxes.flat_map(|inbox| inbox.queue.values().map(|(entry, _)| entry.message)).collect();
        for message in held {
            let content = self.messages[&message].0.clone();
            changes.push(Change::MessageStored { message, content });
        }
        for (&session, kept) in &self.sessions {
            match (plugins.get(&session), &kept.record) {
                (Some(&(plugin, revision)), _) => {
                    let (plugin, revision) = (plugin.clone(), revision.clone());
                    changes.push(Change::PluginActivated { plugin, session, revision, state: session, probation: None });
                }
                (None, Some(record)) => changes.push(Change::SessionStored { session, record: record.clone() }),
                (None, None) => continue,
            }
            for (filter, &subscription) in &kept.subscriptions {
                changes.push(Change::Subscribed { session, filter: filter.clone(), subscription });
            }
            if plugins.contains_key(&session) {
                let entries = kept.queue.iter();
                changes.extend(entries.map(|(&sequence, (entry, _))| Change::Queued {
                    session,
                    sequence,
                    entry: entry.clone(),
                }));
            } else {
                let (messages, bytes) = kept.length();
                changes.extend((messages > 0).then_some(Change::QueueKept { session, messages, bytes }));
            }
            let received = kept.received.iter();
            changes.extend(received.map(|&packet_id| Change::Received { session, packet_id }));
        }
        changes.extend(self.retained.values().map(|message| Change::Retained { message: message.clone() }));
        changes
    }

    /// The dead letters, as changes.
    pub fn dead_letters(&self) -> Vec<Change> {
        let of = |(&session, kept): (&SessionId, &KeptSession)| {
            let letters = kept.dead_letters.clone().into_iter();
            letters.map(move |(sequence, letter)| Change::DeadLettered { session, sequence, letter })
        };
        self.sessions.iter().flat_map(of).collect()
    }

    /// Messages that queues hold.
    pub fn messages(&self) -> usize {
        self.messages.values().filter(|(_, references)| *references > 0).count()
    }

    fn session(&mut self, session: SessionId) -> &mut KeptSession {
        self.sessions.entry(session).or_default()
    }

    /// An entry no longer refers to a message.
    fn let_go(&mut self, message: MessageId) {
        if let Some((_, references)) = self.messages.get_mut(&message) {
            *references = references.saturating_sub(1);
            if *references == 0 {
                self.messages.remove(&message);
            }
        }
    }
}

impl KeptSession {
    /// Messages in its queue, and their weight.
    pub(crate) fn length(&self) -> (u64, u64) {
        let (messages, bytes) = self.kept;
        let weights = self.queue.values().map(|(entry, _)| u64::from(entry.weight));
        (messages + self.queue.len() as u64, bytes + weights.sum::<u64>())
    }
}
