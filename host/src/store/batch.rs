//! The changes of one checkpoint, coalesced.
//!
//! A [`Batch`] takes changes in order and keeps, for each row, what applying them one by one would leave: the last
//! write wins; what a session held goes when the session does; a mark on a queue entry is folded into the entry. A
//! queue entry that came and went within the batch does not touch the database at all. That is only right where the
//! database cannot hold the row already, which the highest sequence tells without looking. Messages are written only
//! for the entries that are left; who refers to a message in the database is counted where rows are written.
//!
//! What happens to a plugin as a whole (an activation, the end of a probation, a generation that goes) concerns rows that
//! only the database can name. It ends a [`Stage`]: changes are coalesced up to there, and anew behind it. So does the
//! rare change that depends on where an earlier one of the same row left it.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vespiary_core::event::{
    Change, DeadLetter, PacketId, PluginName, ProbationRecord, QueueEntry, Revision, SessionId, SessionRecord,
    StateWrite, SubscriptionRecord, Timer,
};
use vespiary_core::message::{Message, Timestamp};
use vespiary_core::topic::{Topic, TopicFilter};

/// What a session costs of which there is something: its maps, and the first node of one.
const SESSION_BYTES: usize = 1_024;

/// Messages that are kept without a look at who refers to them.
const MESSAGES_KEPT: usize = 4_096;

/// The changes of one checkpoint, coalesced. Fields are rows by key, in the order of keys.
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
    /// Stages that are over, in order.
    earlier: Vec<Stage>,
    /// The stage that is not.
    last: Stage,
    /// Messages that are new. Those that no entry refers to in the end are not written.
    pub(super) messages: BTreeMap<u64, Arc<Message>>,
    /// Retained messages set (`Some`) and cleared (`None`).
    pub(super) retained: BTreeMap<Topic, Option<Arc<Message>>>,
    /// Values that expire, as often as they were written.
    pub(super) expiring: usize,
    /// Expired state that is purged.
    pub(super) purge: Option<Purge>,
    /// Bytes that it keeps in memory, roughly; no less than it does.
    weight: usize,
    /// Messages that were left when those that no entry refers to were last forgotten.
    referred_to: usize,
}

/// What is coalesced, and then what happened to a plugin.
#[derive(Debug, Default)]
pub(super) struct Stage {
    /// What happened to sessions, and to what is under them.
    pub(super) sessions: BTreeMap<u64, SessionBatch>,
    /// What happened to a plugin as a whole, after that.
    pub(super) plugin: Option<PluginChange>,
}

/// Expired state that is to be purged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Purge {
    /// What has expired by then goes.
    pub(super) now: Timestamp,
    /// Rows at most.
    pub(super) rows: usize,
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
    /// State written and deleted.
    pub(super) state: BTreeMap<Arc<str>, StateChange>,
    /// Timers set (`Some`) and cancelled (`None`).
    pub(super) timers: BTreeMap<Arc<str>, Option<Timer>>,
    /// Dead letters added (`Some`) and dropped (`None`), by sequence.
    pub(super) dead_letters: BTreeMap<u64, Option<DeadLetter>>,
}

/// What happened to a queue entry.
#[derive(Debug)]
pub(super) enum QueueChange {
    /// The entry is written, with its `released` mark; to the queue, or at once to where events of a probation are kept.
    Put { entry: QueueEntry, released: bool, kept: bool },
    /// The entry in the database is marked.
    Mark { packet_id: Option<PacketId>, released: bool },
    /// The entry is deleted.
    Delete,
    /// The entry in the database goes to where events of a probation are kept.
    Keep,
    /// The entry comes back from there, as replayed.
    PutBack,
}

/// What happened to a key of a plugin's state.
#[derive(Debug)]
pub(super) struct StateChange {
    /// Its value; `None` for none.
    pub(super) value: Option<Arc<[u8]>>,
    /// When the value is gone by itself.
    pub(super) expires_at: Option<Timestamp>,
    /// Whether what the database holds is to be kept in case of a rollback.
    pub(super) undo: bool,
}

/// What happened to a plugin.
#[derive(Debug)]
pub(super) enum PluginChange {
    /// A revision was activated.
    Activated {
        plugin: PluginName,
        session: SessionId,
        revision: Revision,
        state: SessionId,
        probation: Option<Box<ProbationRecord>>,
    },
    /// The plugin was removed.
    Removed { plugin: PluginName },
    /// A generation of its state was begun.
    GenerationBegun { plugin: PluginName, state: SessionId },
    /// A generation of its state goes.
    GenerationDropped { plugin: PluginName, state: SessionId },
    /// A probation ended.
    ProbationEnded { plugin: PluginName, session: SessionId, undone: bool },
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

    /// The stages, in order.
    pub(super) fn stages(&self) -> impl Iterator<Item = &Stage> {
        self.earlier.iter().chain([&self.last])
    }

    /// Takes the next change.
    pub(super) fn push(&mut self, change: Change) {
        self.changes += 1;
        self.weight += weight(&change);
        match change {
            Change::IdentifiersReserved { below } => self.identifiers_below = Some(below),
            Change::SessionStored { session, record } => self.session(session).record = Some(record),
            Change::SessionRemoved { session } => *self.session(session) = SessionBatch::removed(),
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
                self.queue(session, sequence.0, QueueChange::Put { entry, released: false, kept: false });
            }
            Change::Sent { session, sequence, packet_id } => {
                self.queue(session, sequence.0, QueueChange::Mark { packet_id: Some(packet_id), released: false });
            }
            Change::Released { session, sequence } => {
                self.queue(session, sequence.0, QueueChange::Mark { packet_id: None, released: true });
            }
            Change::Dequeued { session, sequence, message: _ } => {
                self.queue(session, sequence.0, QueueChange::Delete);
            }
            Change::Kept { session, sequence } => self.queue(session, sequence.0, QueueChange::Keep),
            Change::PutBack { session, sequence } => self.queue(session, sequence.0, QueueChange::PutBack),
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
            Change::PluginActivated { plugin, session, revision, state, probation } => {
                self.end_stage(PluginChange::Activated { plugin, session, revision, state, probation });
            }
            Change::PluginRemoved { plugin } => self.end_stage(PluginChange::Removed { plugin }),
            Change::GenerationBegun { plugin, state } => {
                self.end_stage(PluginChange::GenerationBegun { plugin, state })
            }
            Change::GenerationDropped { plugin, state } => {
                self.end_stage(PluginChange::GenerationDropped { plugin, state });
            }
            Change::ProbationEnded { plugin, session, undone } => {
                self.end_stage(PluginChange::ProbationEnded { plugin, session, undone });
            }
            Change::StateWritten { state, write, undo } => self.write_state(state, write, undo),
            Change::TimerSet { session, name, timer } => {
                self.session(session).timers.insert(name, Some(timer));
            }
            Change::TimerCancelled { session, name } => {
                self.session(session).timers.insert(name, None);
            }
            Change::DeadLettered { session, sequence, letter } => {
                self.session(session).dead_letters.insert(sequence.0, Some(letter));
            }
            Change::DeadLetterDropped { session, sequence } => {
                self.session(session).dead_letters.insert(sequence.0, None);
            }
        }
    }

    /// Forgets messages that no entry refers to any more, once they may be most of all. Not within the changes of one input:
    /// a message comes before its entries.
    pub(super) fn forget_messages(&mut self) {
        if self.messages.len() < MESSAGES_KEPT.max(2 * self.referred_to) {
            return;
        }
        let entries =
            self.stages().flat_map(|stage| stage.sessions.values()).flat_map(|changes| changes.queue.values());
        let referred_to: BTreeSet<u64> = entries
            .filter_map(|change| match change {
                QueueChange::Put { entry, .. } => Some(entry.message.0),
                QueueChange::Mark { .. } | QueueChange::Delete | QueueChange::Keep | QueueChange::PutBack => None,
            })
            .collect();
        self.messages.retain(|message, _| referred_to.contains(message));
        self.referred_to = self.messages.len();
    }

    /// Bytes that it keeps in memory, roughly. What was undone since counts.
    pub(super) fn weight(&self) -> usize {
        self.weight
    }

    fn session(&mut self, session: SessionId) -> &mut SessionBatch {
        match self.last.sessions.entry(session.0) {
            Entry::Occupied(place) => place.into_mut(),
            Entry::Vacant(place) => {
                self.weight += SESSION_BYTES;
                place.insert(SessionBatch::default())
            }
        }
    }

    /// What comes is not coalesced with what has come so far.
    fn end_stage(&mut self, plugin: impl Into<Option<PluginChange>>) {
        let Stage { sessions, .. } = std::mem::take(&mut self.last);
        self.earlier.push(Stage { sessions, plugin: plugin.into() });
        // What has come so far is in the database by then.
        self.before = self.after;
    }

    /// Takes what happened to a queue entry.
    fn queue(&mut self, session: SessionId, sequence: u64, change: QueueChange) {
        let is_new = sequence > self.before;
        if let Err(change) = self.session(session).fold(sequence, is_new, change) {
            self.end_stage(None);
            self.session(session).queue.insert(sequence, change);
        }
    }

    fn write_state(&mut self, state: SessionId, write: StateWrite, undo: bool) {
        let StateWrite { key, value, expires_at } = write;
        self.expiring += usize::from(expires_at.is_some());
        if undo && self.session(state).state.get(&key).is_some_and(|earlier| !earlier.undo) {
            // The value that has to be kept is that of the earlier write.
            self.end_stage(None);
        }
        let change = StateChange { value, expires_at, undo };
        match self.session(state).state.entry(key) {
            Entry::Vacant(place) => drop(place.insert(change)),
            Entry::Occupied(mut place) => {
                let undo = undo || place.get().undo;
                place.insert(StateChange { undo, ..change });
            }
        }
    }
}

impl SessionBatch {
    /// Of a session that is gone.
    fn removed() -> Self {
        Self { removed: true, ..Self::default() }
    }

    /// Takes what happened to a queue entry; gives it back where it depends on what earlier changes did to the row in the
    /// database. Of an entry that `is_new` there is no row before this batch. What happens to an entry that is not there
    /// does nothing.
    fn fold(&mut self, sequence: u64, is_new: bool, change: QueueChange) -> Result<(), QueueChange> {
        let mut place = match self.queue.entry(sequence) {
            Entry::Occupied(place) => place,
            Entry::Vacant(place) => {
                let is_gone = is_new && matches!(change, QueueChange::Delete);
                if !is_gone {
                    place.insert(change);
                }
                return Ok(());
            }
        };
        match (place.get_mut(), change) {
            (
                QueueChange::Put { kept: true, .. } | QueueChange::Keep | QueueChange::PutBack,
                change @ (QueueChange::Put { .. } | QueueChange::PutBack),
            ) => return Err(change),
            (QueueChange::PutBack, change) => return Err(change),
            (QueueChange::Put { kept: true, .. } | QueueChange::Keep, _) => {}
            (_, change @ QueueChange::PutBack) => return Err(change),
            (_, change @ QueueChange::Put { .. }) => drop(place.insert(change)),
            (_, QueueChange::Delete) if is_new => drop(place.remove()),
            (_, change @ QueueChange::Delete) => drop(place.insert(change)),
            (QueueChange::Delete, QueueChange::Mark { .. } | QueueChange::Keep) => {}
            (QueueChange::Put { kept, .. }, QueueChange::Keep) if is_new => *kept = true,
            (QueueChange::Put { .. } | QueueChange::Mark { .. }, change @ QueueChange::Keep) => return Err(change),
            (QueueChange::Put { entry, released, .. }, QueueChange::Mark { packet_id, released: more }) => {
                entry.packet_id = packet_id.or(entry.packet_id);
                *released |= more;
            }
            (QueueChange::Mark { packet_id, released }, QueueChange::Mark { packet_id: later, released: more }) => {
                *packet_id = later.or(*packet_id);
                *released |= more;
            }
        }
        Ok(())
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
        Change::TimerSet { name, timer, .. } => {
            name.len() + timer.payload.len() + timer.schedule.as_ref().map_or(0, |schedule| schedule.len())
        }
        Change::TimerCancelled { name, .. } => name.len(),
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
        | Change::DeadLetterDropped { .. } => 0,
    };
    size_of::<Change>() + content
}
