//! The changes of one redb transaction, coalesced.
//!
//! A [`Batch`] takes changes in order and keeps, for each row, what applying them one by one would leave: the last
//! write wins; what a session held goes when the session does; a mark on a queue entry is folded into the entry. A
//! queue entry that came and went within the batch does not touch the database at all. That is only right where the
//! database cannot hold the row already, which the highest sequence tells without looking. Messages are written only
//! for the entries that are left; who refers to a message in the database is counted where rows are written.

use std::collections::BTreeMap;
use std::sync::Arc;

use vespiary_core::event::{
    Change, DeadLetter, PacketId, PluginName, QueueEntry, Revision, SessionId, SessionRecord, StateWrite,
    SubscriptionRecord,
};
use vespiary_core::message::Message;
use vespiary_core::topic::{Topic, TopicFilter};

/// The changes of one transaction, coalesced. Fields are rows by key, in the order of keys.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// The highest sequence that the database may hold before this batch. Sequences are handed out in growing order and
    /// never twice; the store does not trust that, but it gains from it: an entry above has no row.
    before: u64,
    /// The highest that it may hold after.
    after: u64,
    /// Changes taken, those included that others undid.
    pub(super) changes: usize,
    /// Identifiers below this are used up.
    pub(super) identifiers_below: Option<u64>,
    /// What happened to sessions, and to what is under them.
    pub(super) sessions: BTreeMap<u64, SessionBatch>,
    /// Messages that are new. Those that no entry refers to in the end are not written.
    pub(super) messages: BTreeMap<u64, Arc<Message>>,
    /// Retained messages set (`Some`) and cleared (`None`).
    pub(super) retained: BTreeMap<Topic, Option<Arc<Message>>>,
    /// What happened to plugins, in order: rare, and the history depends on the order.
    pub(super) plugins: Vec<PluginChange>,
}

/// What happened to one session, and to what is under it.
#[derive(Debug, Default)]
pub(super) struct SessionBatch {
    /// All that the database holds under the session goes, before anything else here is written.
    pub(super) removed: bool,
    /// The session's record.
    pub(super) record: Option<Box<SessionRecord>>,
    /// Subscriptions made (`Some`) and ended (`None`).
    pub(super) subscriptions: BTreeMap<TopicFilter, Option<SubscriptionRecord>>,
    /// Queue entries by sequence.
    pub(super) queue: BTreeMap<u64, QueueChange>,
    /// Packet identifiers of QoS 2 receptions begun (`true`) and ended (`false`).
    pub(super) received: BTreeMap<u16, bool>,
    /// State written (`Some`) and deleted (`None`).
    pub(super) state: BTreeMap<Box<str>, Option<Box<[u8]>>>,
    /// Dead letters added (`Some`) and dropped (`None`), by sequence.
    pub(super) dead_letters: BTreeMap<u64, Option<DeadLetter>>,
}

/// What happened to a queue entry.
#[derive(Debug)]
pub(super) enum QueueChange {
    /// The entry is written, with its `released` mark.
    Put { entry: QueueEntry, released: bool },
    /// The entry in the database is marked.
    Mark { packet_id: Option<PacketId>, released: bool },
    /// The entry is deleted.
    Delete,
}

/// What happened to a plugin.
#[derive(Debug)]
pub(super) enum PluginChange {
    /// A revision was activated.
    Activated { plugin: PluginName, session: SessionId, revision: Revision },
    /// The plugin was removed.
    Removed { plugin: PluginName },
}

impl Batch {
    /// An empty batch on top of a database that holds no sequence above `highest`.
    pub(super) fn new(highest: u64) -> Self {
        Self { before: highest, after: highest, ..Self::default() }
    }

    /// The highest sequence that the database may hold once this batch is in it.
    pub(super) fn highest(&self) -> u64 {
        self.after
    }

    /// Whether there is nothing to write.
    pub(super) fn is_empty(&self) -> bool {
        self.identifiers_below.is_none()
            && self.retained.is_empty()
            && self.plugins.is_empty()
            && self.sessions.values().all(SessionBatch::is_empty)
    }

    /// Takes the next change.
    pub(super) fn push(&mut self, change: Change) {
        self.changes += 1;
        match change {
            Change::IdentifiersReserved { below } => self.identifiers_below = Some(below),
            Change::SessionStored { session, record } => self.session(session).record = Some(record),
            Change::SessionRemoved { session } => {
                *self.session(session) = SessionBatch { removed: true, ..SessionBatch::default() };
            }
            Change::Subscribed { session, filter, subscription } => {
                self.session(session).subscriptions.insert(filter, Some(subscription));
            }
            Change::Unsubscribed { session, filter } => {
                self.session(session).subscriptions.insert(filter, None);
            }
            Change::MessageStored { message, content } => {
                self.messages.insert(message.0, content);
            }
            Change::Queued { session, sequence, entry } => {
                self.after = self.after.max(sequence.0);
                self.session(session).queue.insert(sequence.0, QueueChange::Put { entry, released: false });
            }
            Change::Sent { session, sequence, packet_id } => {
                self.session(session).mark(sequence.0, Some(packet_id), false);
            }
            Change::Released { session, sequence } => self.session(session).mark(sequence.0, None, true),
            Change::Dequeued { session, sequence, message: _ } => {
                let fresh = sequence.0 > self.before;
                let queue = &mut self.session(session).queue;
                if fresh {
                    queue.remove(&sequence.0);
                } else {
                    queue.insert(sequence.0, QueueChange::Delete);
                }
            }
            Change::QueueKept { .. } => debug_assert!(false, "the store gives this out and never takes it"),
            Change::Received { session, packet_id } => {
                self.session(session).received.insert(packet_id.get(), true);
            }
            Change::ReceivedReleased { session, packet_id } => {
                self.session(session).received.insert(packet_id.get(), false);
            }
            Change::Retained { message } => {
                self.retained.insert(message.topic.clone(), Some(message));
            }
            Change::RetainedCleared { topic } => {
                self.retained.insert(topic, None);
            }
            Change::PluginActivated { plugin, session, revision, .. } => {
                self.plugins.push(PluginChange::Activated { plugin, session, revision });
            }
            Change::PluginRemoved { plugin } => self.plugins.push(PluginChange::Removed { plugin }),
            Change::StateWritten { state, write: StateWrite { key, value, expires_at: _ }, undo: _ } => {
                self.session(state).state.insert(key, value);
            }
            Change::GenerationBegun { .. }
            | Change::GenerationDropped { .. }
            | Change::Kept { .. }
            | Change::PutBack { .. }
            | Change::ProbationEnded { .. }
            | Change::TimerSet { .. }
            | Change::TimerCancelled { .. } => {}
            Change::DeadLettered { session, sequence, letter } => {
                self.session(session).dead_letters.insert(sequence.0, Some(letter));
            }
            Change::DeadLetterDropped { session, sequence } => {
                self.session(session).dead_letters.insert(sequence.0, None);
            }
        }
    }

    fn session(&mut self, session: SessionId) -> &mut SessionBatch {
        self.sessions.entry(session.0).or_default()
    }
}

impl SessionBatch {
    fn is_empty(&self) -> bool {
        !self.removed
            && self.record.is_none()
            && self.subscriptions.is_empty()
            && self.queue.is_empty()
            && self.received.is_empty()
            && self.state.is_empty()
            && self.dead_letters.is_empty()
    }

    /// Marks a queue entry, here or in the database. Marking an entry that does not exist does nothing.
    fn mark(&mut self, sequence: u64, packet_id: Option<PacketId>, released: bool) {
        match self.queue.entry(sequence).or_insert(QueueChange::Mark { packet_id, released }) {
            QueueChange::Put { entry, released: entry_released } => {
                entry.packet_id = packet_id.or(entry.packet_id);
                *entry_released |= released;
            }
            QueueChange::Mark { packet_id: marked, released: mark_released } => {
                *marked = packet_id.or(*marked);
                *mark_released |= released;
            }
            QueueChange::Delete => {}
        }
    }
}

/// Bytes that a change keeps in memory, roughly.
pub(super) fn weight(change: &Change) -> usize {
    let content = match change {
        Change::MessageStored { content, .. } => content.weight(),
        Change::Retained { message } => message.weight(),
        Change::DeadLettered { letter, .. } => letter.content.weight() + letter.reason.len(),
        Change::StateWritten { write, .. } => write.key.len() + write.value.as_ref().map_or(0, |value| value.len()),
        Change::SessionStored { record, .. } => {
            size_of::<SessionRecord>() + record.will.as_ref().map_or(0, |will| will.message.weight())
        }
        Change::Subscribed { filter, .. } | Change::Unsubscribed { filter, .. } => filter.as_str().len(),
        Change::RetainedCleared { topic } => topic.as_str().len(),
        Change::IdentifiersReserved { .. }
        | Change::SessionRemoved { .. }
        | Change::Queued { .. }
        | Change::Sent { .. }
        | Change::Released { .. }
        | Change::Dequeued { .. }
        | Change::QueueKept { .. }
        | Change::Received { .. }
        | Change::ReceivedReleased { .. }
        | Change::PluginActivated { .. }
        | Change::PluginRemoved { .. }
        | Change::GenerationBegun { .. }
        | Change::GenerationDropped { .. }
        | Change::Kept { .. }
        | Change::PutBack { .. }
        | Change::ProbationEnded { .. }
        | Change::TimerSet { .. }
        | Change::TimerCancelled { .. }
        | Change::DeadLetterDropped { .. } => 0,
    };
    size_of::<Change>() + content
}
