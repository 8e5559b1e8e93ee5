//! A worker's connections by identifier, with the deadline of each.
//!
//! A [`ConnectionId`] is the worker (16 bits), the slot (20 bits) and how often the slot was used before (28 bits), so
//! an effect finds its connection by one index, and finds none when the connection is gone. A slot whose uses are
//! exhausted stays empty. Deadlines stand together, in ticks of the worker's sweep: one pass over them replaces a timer
//! per connection.

use std::rc::Rc;

use vespiary_core::event::ConnectionId;

const SLOT_BITS: u32 = 20;
const USE_BITS: u32 = 28;

/// Most connections of one worker.
const MAX_SLOTS: usize = 1 << SLOT_BITS;

/// A tick that never comes.
pub(super) const NEVER: u32 = u32::MAX;

/// Connections `C` of one worker.
#[derive(Debug)]
pub(super) struct Slots<C> {
    /// The worker, in place in the identifier.
    worker: u64,
    /// All slots, used or not.
    slots: Vec<Slot<C>>,
    /// Indices of slots that are free.
    free: Vec<u32>,
    /// How many slots have a connection.
    count: usize,
}

#[derive(Debug)]
struct Slot<C> {
    /// Times that the slot was used before.
    uses: u32,
    /// The tick at which something is to happen to the connection.
    deadline: u32,
    /// The connection.
    connection: Option<Rc<C>>,
}

impl<C> Slots<C> {
    pub(super) fn new(worker: usize) -> Self {
        Self { worker: (worker as u64) << (SLOT_BITS + USE_BITS), slots: Vec::new(), free: Vec::new(), count: 0 }
    }

    /// Puts a connection, made from its identifier, into a free slot; `None` if all are taken.
    pub(super) fn insert(&mut self, deadline: u32, make: impl FnOnce(ConnectionId) -> C) -> Option<Rc<C>> {
        let index = match self.free.pop() {
            Some(index) => index as usize,
            None if self.slots.len() < MAX_SLOTS => {
                self.slots.push(Slot { uses: 0, deadline: NEVER, connection: None });
                self.slots.len() - 1
            }
            None => return None,
        };
        let slot = &mut self.slots[index];
        let id = ConnectionId(self.worker | (index as u64) << USE_BITS | u64::from(slot.uses));
        let connection = Rc::new(make(id));
        slot.connection = Some(connection.clone());
        self.count += 1;
        slot.deadline = deadline;
        Some(connection)
    }

    /// The connection with this identifier, if it is still there.
    pub(super) fn find(&self, id: ConnectionId) -> Option<&Rc<C>> {
        let slot = self.slots.get(index_of(id))?;
        if uses_of(id) == slot.uses { slot.connection.as_ref() } else { None }
    }

    pub(super) fn set_deadline(&mut self, id: ConnectionId, deadline: u32) {
        if let Some(slot) = self.slots.get_mut(index_of(id))
            && slot.uses == uses_of(id)
        {
            slot.deadline = deadline;
        }
    }

    pub(super) fn remove(&mut self, id: ConnectionId) {
        let index = index_of(id);
        if let Some(slot) = self.slots.get_mut(index)
            && slot.uses == uses_of(id)
            && slot.connection.take().is_some()
        {
            slot.deadline = NEVER;
            self.count -= 1;
            slot.uses += 1;
            if slot.uses < 1 << USE_BITS {
                self.free.push(index as u32);
            }
        }
    }

    /// The connections whose deadline is `tick` or before.
    pub(super) fn due(&self, tick: u32) -> Vec<Rc<C>> {
        self.slots.iter().filter(|slot| slot.deadline <= tick).filter_map(|slot| slot.connection.clone()).collect()
    }

    /// All connections.
    pub(super) fn all(&self) -> Vec<Rc<C>> {
        self.slots.iter().filter_map(|slot| slot.connection.clone()).collect()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }
}

fn index_of(id: ConnectionId) -> usize {
    (id.0 >> USE_BITS) as usize & (MAX_SLOTS - 1)
}

fn uses_of(id: ConnectionId) -> u32 {
    id.0 as u32 & ((1 << USE_BITS) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_is_not_used_again_though_its_slot_is() {
        let mut slots = Slots::new(3);
        let first = slots.insert(NEVER, |id| id).unwrap();
        let second = slots.insert(NEVER, |id| id).unwrap();
        assert_eq!(first.0 >> 48, 3);
        slots.remove(*first);
        slots.remove(*first);
        let third = slots.insert(NEVER, |id| id).unwrap();
        assert_eq!(index_of(*third), index_of(*first));
        assert_ne!(third, first);
        assert_eq!(slots.find(*first), None);
        assert_eq!(slots.find(*second), Some(&second));
        assert_eq!(slots.find(*third), Some(&third));
        slots.set_deadline(*first, 0);
        slots.set_deadline(*second, 7);
        assert_eq!(slots.due(6), []);
        assert_eq!(slots.due(7), [second]);
    }
}
