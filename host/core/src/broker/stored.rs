//! Messages on their way into durable queues, and the identifiers that go to disk.
//!
//! A message is stored when the first durable queue takes it. Who else refers to it is not counted here: whoever keeps
//! the changes counts the entries, so that a queue can be on disk and nowhere else.

use std::sync::Arc;

use crate::event::{Change, Effects, Sequence, SessionId};
use crate::message::{Message, MessageId};

/// Identifiers reserved at a time: so many are skipped by a restart, at most.
const IDENTIFIER_BLOCK: u64 = 1 << 16;

/// A message that is being routed.
#[derive(Debug)]
pub(super) struct Parcel {
    /// The message.
    pub(super) message: Arc<Message>,
    /// Its weight.
    pub(super) weight: usize,
    /// Whether it goes to several clients at the same time, so that one effect may stand for all.
    pub(super) has_many_receivers: bool,
    /// Its name on disk, once a durable queue has taken it.
    stored: Option<MessageId>,
}

/// Where the identifiers of sessions, messages and queue entries come from.
#[derive(Debug)]
pub(super) struct Identifiers {
    /// The next to be given out.
    next: u64,
    /// Those below are reserved on disk.
    reserved_below: u64,
}

impl Parcel {
    pub(super) fn new(message: Arc<Message>) -> Self {
        let weight = message.weight();
        Self { message, weight, has_many_receivers: false, stored: None }
    }

    /// A message that a durable queue holds already.
    pub(super) fn stored(message: Arc<Message>, id: MessageId) -> Self {
        Self { stored: Some(id), ..Self::new(message) }
    }

    /// Its name on disk; stores it the first time.
    pub(super) fn store(&mut self, identifiers: &mut Identifiers, effects: &mut Effects) -> MessageId {
        *self.stored.get_or_insert_with(|| {
            let message = MessageId(identifiers.take(effects));
            effects.record(Change::MessageStored { message, content: self.message.clone() });
            message
        })
    }

    /// Its weight as a queue entry notes it.
    pub(super) fn noted_weight(&self) -> u32 {
        u32::try_from(self.weight).unwrap_or(u32::MAX)
    }
}

impl Default for Identifiers {
    fn default() -> Self {
        Self::starting_at(1)
    }
}

impl Identifiers {
    /// Identifiers from this one on; all below are used up.
    pub(super) fn starting_at(next: u64) -> Self {
        Self { next, reserved_below: next }
    }

    pub(super) fn reserved_below(&self) -> u64 {
        self.reserved_below
    }

    pub(super) fn take(&mut self, effects: &mut Effects) -> u64 {
        self.reserve(effects);
        self.next += 1;
        self.next - 1
    }

    /// Sees to it that more are reserved, well before they are given out: an identifier that a plugin has seen must not
    /// come again, even if nothing else of its event was durable when the process ended.
    pub(super) fn reserve(&mut self, effects: &mut Effects) {
        if self.next + IDENTIFIER_BLOCK / 2 >= self.reserved_below {
            self.reserved_below += IDENTIFIER_BLOCK;
            effects.record(Change::IdentifiersReserved { below: self.reserved_below });
        }
    }

    pub(super) fn session(&mut self, effects: &mut Effects) -> SessionId {
        SessionId(self.take(effects))
    }

    pub(super) fn sequence(&mut self, effects: &mut Effects) -> Sequence {
        Sequence(self.take(effects))
    }
}
