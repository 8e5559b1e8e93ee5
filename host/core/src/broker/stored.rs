//! Durable messages and their reference counts, and the identifiers that go to disk.
//!
//! A message is stored when the first durable queue takes it, and released when the last lets go of it.

use std::sync::Arc;

use slab::Slab;

use crate::event::{Change, Effects, Sequence, SessionId};
use crate::key::StoredKey;
use crate::message::{Message, MessageId};

/// Identifiers reserved at a time: so many are skipped by a restart, at most.
const IDENTIFIER_BLOCK: u64 = 1 << 16;

/// All messages that durable queues hold.
#[derive(Debug, Default)]
pub(super) struct StoredMessages {
    /// The messages.
    slab: Slab<Stored>,
}

/// A durable message.
#[derive(Debug)]
pub(super) struct Stored {
    /// Its name on disk.
    pub(super) id: MessageId,
    /// The message.
    pub(super) content: Arc<Message>,
    /// Queue entries that refer to it.
    pub(super) references: u32,
}

/// A message that is being routed.
#[derive(Debug)]
pub(super) struct Parcel {
    /// The message.
    pub(super) message: Arc<Message>,
    /// Its weight.
    pub(super) weight: usize,
    /// Its durable form, once a durable queue has taken it.
    stored: Option<StoredKey>,
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
        Self { message, weight, stored: None }
    }
}

impl StoredMessages {
    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }

    pub(super) fn insert(&mut self, id: MessageId, content: Arc<Message>) -> StoredKey {
        StoredKey::new(self.slab.insert(Stored { id, content, references: 0 }))
    }

    pub(super) fn get(&self, key: StoredKey) -> &Stored {
        &self.slab[key.index()]
    }

    pub(super) fn get_mut(&mut self, key: StoredKey) -> &mut Stored {
        &mut self.slab[key.index()]
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Stored> {
        self.slab.iter().map(|(_, stored)| stored)
    }

    /// Refers to a message that is being routed once more; stores it the first time.
    pub(super) fn refer(
        &mut self,
        parcel: &mut Parcel,
        identifiers: &mut Identifiers,
        effects: &mut Effects,
    ) -> StoredKey {
        let key = *parcel.stored.get_or_insert_with(|| {
            let message = MessageId(identifiers.take(effects));
            effects.record(Change::MessageStored { message, content: parcel.message.clone() });
            self.insert(message, parcel.message.clone())
        });
        self.get_mut(key).references += 1;
        key
    }

    /// Refers to a stored message once more, when the broker starts.
    pub(super) fn restore_reference(&mut self, key: StoredKey) -> Arc<Message> {
        let stored = self.get_mut(key);
        stored.references += 1;
        stored.content.clone()
    }

    /// Forgets, when the broker starts, what no queue refers to.
    pub(super) fn forget_unreferenced(&mut self) {
        self.slab.retain(|_, stored| stored.references > 0);
    }

    /// Lets go of a message; releases it the last time.
    pub(super) fn release(&mut self, key: StoredKey, effects: &mut Effects) {
        let stored = self.get_mut(key);
        stored.references -= 1;
        if stored.references == 0 {
            effects.record(Change::MessageReleased { message: stored.id });
            self.slab.remove(key.index());
        }
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
