//! What a change looks like in the log.
//!
//! A byte says which change it is, and its fields follow in the order of their declaration, as postcard writes them. What
//! has a row in a table is written as the value of that row, with its own version byte. All of it ends by itself, so
//! changes follow each other without lengths. A change that gets other fields gets another byte as well, and the earlier
//! one goes on being read.

use std::sync::Arc;

use serde::Deserialize;
use vespiary_core::event::{Change, PacketId, PluginName, ProbationRecord, Revision, Sequence, SessionId, StateWrite};
use vespiary_core::message::{MessageId, Timestamp};
use vespiary_core::topic::{Topic, TopicFilter};

use crate::store::record::{
    self, BytesRow, DeadLetterRow, InvalidRow, MessageRow, PluginRecord, PluginRow, QueueRow, SessionRow,
    SubscriptionRow, TimerRow, append_fields as append, take_fields,
};

/// The bytes that say which change it is. None is ever used for another, and none is 0, which is what an empty place of a
/// file says.
mod kind {
    pub(super) const IDENTIFIERS_RESERVED: u8 = 1;
    pub(super) const SESSION_STORED: u8 = 2;
    pub(super) const SESSION_REMOVED: u8 = 3;
    pub(super) const SUBSCRIBED: u8 = 4;
    pub(super) const UNSUBSCRIBED: u8 = 5;
    pub(super) const MESSAGE_STORED: u8 = 6;
    pub(super) const QUEUED: u8 = 7;
    pub(super) const SENT: u8 = 8;
    pub(super) const RELEASED: u8 = 9;
    pub(super) const DEQUEUED: u8 = 10;
    pub(super) const RECEIVED: u8 = 11;
    pub(super) const RECEIVED_RELEASED: u8 = 12;
    pub(super) const RETAINED: u8 = 13;
    pub(super) const RETAINED_CLEARED: u8 = 14;
    pub(super) const PLUGIN_ACTIVATED: u8 = 15;
    pub(super) const PLUGIN_REMOVED: u8 = 16;
    pub(super) const GENERATION_BEGUN: u8 = 17;
    pub(super) const GENERATION_DROPPED: u8 = 18;
    pub(super) const STATE_WRITTEN: u8 = 19;
    pub(super) const KEPT: u8 = 20;
    pub(super) const PUT_BACK: u8 = 21;
    pub(super) const PROBATION_ENDED: u8 = 22;
    pub(super) const TIMER_SET: u8 = 23;
    pub(super) const TIMER_CANCELLED: u8 = 24;
    pub(super) const DEAD_LETTERED: u8 = 25;
    pub(super) const DEAD_LETTER_DROPPED: u8 = 26;
}

/// Appends a change to `out`. After an error what was there is of no use.
pub(in crate::store) fn encode(change: &Change, out: &mut Vec<u8>) -> Result<(), InvalidRow> {
    match change {
        Change::IdentifiersReserved { below } => append(out, &(kind::IDENTIFIERS_RESERVED, below)),
        Change::SessionStored { session, record } => {
            append(out, &(kind::SESSION_STORED, session.0))?;
            SessionRow::new(record).append(out)
        }
        Change::SessionRemoved { session } => append(out, &(kind::SESSION_REMOVED, session.0)),
        Change::Subscribed { session, filter, subscription } => {
            append(out, &(kind::SUBSCRIBED, session.0, filter.as_str()))?;
            SubscriptionRow::new(*subscription).append(out)
        }
        Change::Unsubscribed { session, filter } => append(out, &(kind::UNSUBSCRIBED, session.0, filter.as_str())),
        Change::MessageStored { message, content } => {
            append(out, &(kind::MESSAGE_STORED, message.0))?;
            MessageRow::new(content).append(out)
        }
        Change::Queued { session, sequence, entry } => {
            append(out, &(kind::QUEUED, session.0, sequence.0))?;
            QueueRow::new(entry, false).append(out)
        }
        Change::Sent { session, sequence, packet_id } => append(out, &(kind::SENT, session.0, sequence.0, packet_id)),
        Change::Released { session, sequence } => append(out, &(kind::RELEASED, session.0, sequence.0)),
        Change::Dequeued { session, sequence, message } => {
            append(out, &(kind::DEQUEUED, session.0, sequence.0, message.0))
        }
        Change::QueueKept { .. } => Err(InvalidRow::Field("kind")),
        Change::Received { session, packet_id } => append(out, &(kind::RECEIVED, session.0, packet_id)),
        Change::ReceivedReleased { session, packet_id } => {
            append(out, &(kind::RECEIVED_RELEASED, session.0, packet_id))
        }
        Change::Retained { message } => {
            out.push(kind::RETAINED);
            MessageRow::new(message).append(out)
        }
        Change::RetainedCleared { topic } => append(out, &(kind::RETAINED_CLEARED, topic.as_str())),
        Change::PluginActivated { plugin, session, revision, state, probation } => {
            append(out, &(kind::PLUGIN_ACTIVATED, &*plugin.0))?;
            activated(*session, revision, *state, probation.as_deref(), out)
        }
        Change::PluginRemoved { plugin } => append(out, &(kind::PLUGIN_REMOVED, &*plugin.0)),
        Change::GenerationBegun { plugin, state } => append(out, &(kind::GENERATION_BEGUN, &*plugin.0, state.0)),
        Change::GenerationDropped { plugin, state } => append(out, &(kind::GENERATION_DROPPED, &*plugin.0, state.0)),
        Change::StateWritten { state, write: StateWrite { key, value, expires_at }, undo } => {
            let (value, expires_at) = (value.as_deref().map(BytesRow), expires_at.map(|at| at.0));
            append(out, &(kind::STATE_WRITTEN, state.0, &**key, value, expires_at, undo))
        }
        Change::Kept { session, sequence } => append(out, &(kind::KEPT, session.0, sequence.0)),
        Change::PutBack { session, sequence } => append(out, &(kind::PUT_BACK, session.0, sequence.0)),
        Change::ProbationEnded { plugin, session, undone } => {
            append(out, &(kind::PROBATION_ENDED, &*plugin.0, session.0, undone))
        }
        Change::TimerSet { session, name, timer } => {
            append(out, &(kind::TIMER_SET, session.0, &**name))?;
            record::append(out, &TimerRow::new(timer))
        }
        Change::TimerCancelled { session, name } => append(out, &(kind::TIMER_CANCELLED, session.0, &**name)),
        Change::DeadLettered { session, sequence, letter } => {
            append(out, &(kind::DEAD_LETTERED, session.0, sequence.0))?;
            DeadLetterRow::new(letter).append(out)
        }
        Change::DeadLetterDropped { session, sequence } => {
            append(out, &(kind::DEAD_LETTER_DROPPED, session.0, sequence.0))
        }
    }
}

/// An activation is written as the row of the plugin, in which no further generation is begun.
fn activated(
    session: SessionId,
    revision: &Revision,
    state: SessionId,
    probation: Option<&ProbationRecord>,
    out: &mut Vec<u8>,
) -> Result<(), InvalidRow> {
    let probation = probation.cloned();
    PluginRow::new(&PluginRecord { session, active: revision.clone(), state, probation, begun: None }).append(out)
}

/// Decodes a change from the beginning of `bytes`, which are moved behind it. After an error they are of no use.
pub(in crate::store) fn decode(bytes: &mut &[u8]) -> Result<Change, InvalidRow> {
    let kind = *bytes.split_off_first().ok_or(InvalidRow::Empty)?;
    let mut fields = Fields(bytes);
    let from = &mut fields;
    Ok(match kind {
        kind::IDENTIFIERS_RESERVED => Change::IdentifiersReserved { below: from.take()? },
        kind::SESSION_STORED => {
            Change::SessionStored { session: from.session()?, record: Box::new(SessionRow::take(from.0)?.record()?) }
        }
        kind::SESSION_REMOVED => Change::SessionRemoved { session: from.session()? },
        kind::SUBSCRIBED => Change::Subscribed {
            session: from.session()?,
            filter: from.filter()?,
            subscription: SubscriptionRow::take(from.0)?.subscription()?,
        },
        kind::UNSUBSCRIBED => Change::Unsubscribed { session: from.session()?, filter: from.filter()? },
        kind::MESSAGE_STORED => Change::MessageStored {
            message: MessageId(from.take()?),
            content: Arc::new(MessageRow::take(from.0)?.message()?),
        },
        kind::QUEUED => from.queued()?,
        kind::SENT => {
            Change::Sent { session: from.session()?, sequence: from.sequence()?, packet_id: from.packet_id()? }
        }
        kind::RELEASED => Change::Released { session: from.session()?, sequence: from.sequence()? },
        kind::DEQUEUED => {
            Change::Dequeued { session: from.session()?, sequence: from.sequence()?, message: MessageId(from.take()?) }
        }
        kind::RECEIVED => Change::Received { session: from.session()?, packet_id: from.packet_id()? },
        kind::RECEIVED_RELEASED => Change::ReceivedReleased { session: from.session()?, packet_id: from.packet_id()? },
        kind::RETAINED => Change::Retained { message: Arc::new(MessageRow::take(from.0)?.message()?) },
        kind::RETAINED_CLEARED => Change::RetainedCleared { topic: Topic::parse(from.take()?)? },
        kind::KEPT => Change::Kept { session: from.session()?, sequence: from.sequence()? },
        kind::PUT_BACK => Change::PutBack { session: from.session()?, sequence: from.sequence()? },
        kind::DEAD_LETTERED => Change::DeadLettered {
            session: from.session()?,
            sequence: from.sequence()?,
            letter: DeadLetterRow::take(from.0)?.letter()?,
        },
        kind::DEAD_LETTER_DROPPED => Change::DeadLetterDropped { session: from.session()?, sequence: from.sequence()? },
        kind => from.of_plugin(kind)?,
    })
}

/// Takes fields one after the other.
struct Fields<'f, 'a>(&'f mut &'a [u8]);

impl<'a> Fields<'_, 'a> {
    /// The changes that concern plugins alone.
    fn of_plugin(&mut self, kind: u8) -> Result<Change, InvalidRow> {
        Ok(match kind {
            kind::PLUGIN_ACTIVATED => self.activated()?,
            kind::PLUGIN_REMOVED => Change::PluginRemoved { plugin: self.plugin()? },
            kind::GENERATION_BEGUN => Change::GenerationBegun { plugin: self.plugin()?, state: self.session()? },
            kind::GENERATION_DROPPED => Change::GenerationDropped { plugin: self.plugin()?, state: self.session()? },
            kind::STATE_WRITTEN => {
                Change::StateWritten { state: self.session()?, write: self.write()?, undo: self.take()? }
            }
            kind::PROBATION_ENDED => {
                Change::ProbationEnded { plugin: self.plugin()?, session: self.session()?, undone: self.take()? }
            }
            kind::TIMER_SET => Change::TimerSet {
                session: self.session()?,
                name: self.text()?,
                timer: record::take::<TimerRow<'a>>(self.0)?.timer(),
            },
            kind::TIMER_CANCELLED => Change::TimerCancelled { session: self.session()?, name: self.text()? },
            _ => return Err(InvalidRow::Field("kind")),
        })
    }

    fn queued(&mut self) -> Result<Change, InvalidRow> {
        let (session, sequence) = (self.session()?, self.sequence()?);
        match QueueRow::take(self.0)?.entry()? {
            (entry, false) => Ok(Change::Queued { session, sequence, entry }),
            (_, true) => Err(InvalidRow::Field("released")),
        }
    }

    fn activated(&mut self) -> Result<Change, InvalidRow> {
        let plugin = self.plugin()?;
        match PluginRow::take(self.0)?.plugin() {
            PluginRecord { session, active: revision, state, probation, begun: None } => {
                Ok(Change::PluginActivated { plugin, session, revision, state, probation: probation.map(Box::new) })
            }
            _ => Err(InvalidRow::Field("begun")),
        }
    }

    fn write(&mut self) -> Result<StateWrite, InvalidRow> {
        let key = self.text()?;
        let value: Option<BytesRow<'a>> = self.take()?;
        let expires_at: Option<u64> = self.take()?;
        Ok(StateWrite { key, value: value.map(|value| value.0.into()), expires_at: expires_at.map(Timestamp) })
    }

    fn session(&mut self) -> Result<SessionId, InvalidRow> {
        self.take().map(SessionId)
    }

    fn sequence(&mut self) -> Result<Sequence, InvalidRow> {
        self.take().map(Sequence)
    }

    fn packet_id(&mut self) -> Result<PacketId, InvalidRow> {
        self.take()
    }

    fn filter(&mut self) -> Result<TopicFilter, InvalidRow> {
        Ok(TopicFilter::parse(self.take()?)?)
    }

    fn plugin(&mut self) -> Result<PluginName, InvalidRow> {
        self.text().map(PluginName)
    }

    fn text(&mut self) -> Result<Arc<str>, InvalidRow> {
        self.take::<&str>().map(Arc::from)
    }

    fn take<T: Deserialize<'a>>(&mut self) -> Result<T, InvalidRow> {
        take_fields(self.0)
    }
}
