//! What the changes of a broker come to: the reference for whoever keeps them.
//!
//! A [`Ledger`] folds changes into plain ordered maps, in which any order of independent changes comes to the same. A
//! broker is restored through one, tests compare with one, and a store gives back what [`Ledger::changes`] does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::event::{
    Change, DeadLetter, LoadedEntry, PacketId, PluginName, ProbationRecord, QueueEntry, Revision, Sequence, SessionId,
    SessionRecord, SubscriptionRecord, Timer,
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
    /// Plugins.
    pub(crate) plugins: BTreeMap<PluginName, KeptPlugin>,
}

/// A plugin.
#[derive(Debug, Clone)]
pub(crate) struct KeptPlugin {
    /// Its session.
    pub(crate) session: SessionId,
    /// Its active revision.
    pub(crate) revision: Revision,
    /// The generation of its state in use.
    pub(crate) state: SessionId,
    /// What its probation may go back to, if it is on one.
    pub(crate) probation: Option<Box<ProbationRecord>>,
    /// A further generation of its state, not in use.
    pub(crate) generation: Option<SessionId>,
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
    /// Its timers.
    pub(crate) timers: BTreeMap<Arc<str>, Timer>,
    /// Events that were handled on probation.
    pub(crate) handled: BTreeMap<Sequence, QueueEntry>,
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
                removed.handled.into_values().for_each(|entry| self.let_go(entry.message));
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
            change @ (Change::PluginActivated { .. }
            | Change::PluginRemoved { .. }
            | Change::GenerationBegun { .. }
            | Change::GenerationDropped { .. }
            | Change::StateWritten { .. }
            | Change::Kept { .. }
            | Change::PutBack { .. }
            | Change::ProbationEnded { .. }
            | Change::TimerSet { .. }
            | Change::TimerCancelled { .. }) => self.apply_to_plugin(change),
            Change::DeadLettered { session, sequence, letter } => {
                self.session(session).dead_letters.insert(sequence, letter);
            }
            Change::DeadLetterDropped { session, sequence } => {
                self.session(session).dead_letters.remove(&sequence);
            }
        }
    }

    /// Takes a change that only plugins have.
    fn apply_to_plugin(&mut self, change: Change) {
        match change {
            Change::PluginActivated { plugin, session, revision, state, probation } => {
                self.forget_handled(session);
                self.plugins.insert(plugin, KeptPlugin { session, revision, state, probation, generation: None });
            }
            Change::PluginRemoved { plugin } => drop(self.plugins.remove(&plugin)),
            Change::GenerationBegun { plugin, state } => self.set_generation(&plugin, Some(state)),
            Change::GenerationDropped { plugin, state: _ } => self.set_generation(&plugin, None),
            // Nobody asks a ledger for the state of plugins.
            Change::StateWritten { .. } => {}
            Change::Kept { session, sequence } => {
                let kept = self.session(session);
                if let Some((entry, _)) = kept.queue.remove(&sequence) {
                    kept.handled.insert(sequence, entry);
                }
            }
            Change::PutBack { session, sequence } => {
                let kept = self.session(session);
                if let Some(entry) = kept.handled.remove(&sequence) {
                    kept.queue.insert(sequence, (QueueEntry { replayed: true, ..entry }, false));
                }
            }
            Change::ProbationEnded { plugin, session, undone: _ } => {
                self.forget_handled(session);
                if let Some(kept) = self.plugins.get_mut(&plugin) {
                    kept.probation = None;
                }
            }
            Change::TimerSet { session, name, timer } => drop(self.session(session).timers.insert(name, timer)),
            Change::TimerCancelled { session, name } => drop(self.session(session).timers.remove(&name)),
            other => debug_assert!(false, "not of a plugin: {other:?}"),
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
        let plugins: BTreeMap<SessionId, (&PluginName, &KeptPlugin)> =
            self.plugins.iter().map(|(plugin, kept)| (kept.session, (plugin, kept))).collect();
        let inboxes = plugins.keys().filter_map(|session| self.sessions.get(session));
        let held: BTreeSet<MessageId> = inboxes.flat_map(KeptSession::events).map(|(_, entry)| entry.message).collect();
        for message in held {
            let content = self.messages[&message].0.clone();
            changes.push(Change::MessageStored { message, content });
        }
        for (&session, kept) in &self.sessions {
            match (plugins.get(&session), &kept.record) {
                (Some(&(plugin, kept)), _) => kept.tell(plugin, &mut changes),
                (None, Some(record)) => changes.push(Change::SessionStored { session, record: record.clone() }),
                (None, None) => continue,
            }
            for (filter, &subscription) in &kept.subscriptions {
                changes.push(Change::Subscribed { session, filter: filter.clone(), subscription });
            }
            if plugins.contains_key(&session) {
                let timers = kept.timers.clone().into_iter();
                changes.extend(timers.map(|(name, timer)| Change::TimerSet { session, name, timer }));
                let events: BTreeMap<Sequence, &QueueEntry> = kept.events().collect();
                let entries = events.into_iter();
                changes.extend(entries.map(|(sequence, entry)| Change::Queued {
                    session,
                    sequence,
                    entry: entry.clone(),
                }));
                changes.extend(kept.handled.keys().map(|&sequence| Change::Kept { session, sequence }));
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

    fn set_generation(&mut self, plugin: &PluginName, generation: Option<SessionId>) {
        if let Some(kept) = self.plugins.get_mut(plugin) {
            kept.generation = generation;
        }
    }

    /// What was handled on probation is not needed any more.
    fn forget_handled(&mut self, session: SessionId) {
        let handled = std::mem::take(&mut self.session(session).handled);
        handled.into_values().for_each(|entry| self.let_go(entry.message));
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

impl KeptPlugin {
    /// The changes that make it.
    fn tell(&self, plugin: &PluginName, changes: &mut Vec<Change>) {
        let Self { session, revision, state, probation, generation } = self.clone();
        changes.push(Change::PluginActivated { plugin: plugin.clone(), session, revision, state, probation });
        changes.extend(generation.map(|state| Change::GenerationBegun { plugin: plugin.clone(), state }));
    }
}

impl KeptSession {
    /// Entries of an inbox, with those that were handled on probation.
    fn events(&self) -> impl Iterator<Item = (Sequence, &QueueEntry)> {
        let waiting = self.queue.iter().map(|(&sequence, (entry, _))| (sequence, entry));
        waiting.chain(self.handled.iter().map(|(&sequence, entry)| (sequence, entry)))
    }

    /// Messages in its queue, and their weight.
    pub(crate) fn length(&self) -> (u64, u64) {
        let (messages, bytes) = self.kept;
        let weights = self.queue.values().map(|(entry, _)| u64::from(entry.weight));
        (messages + self.queue.len() as u64, bytes + weights.sum::<u64>())
    }
}
