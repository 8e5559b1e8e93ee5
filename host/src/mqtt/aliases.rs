//! Topic aliases towards one client (sections 3.3.2.3.4 and 3.1.2.11.5): which numbers stand for which topics.
//!
//! The table follows the packets as they are staged, in their order, so it says what the client will know when it reads
//! them. It belongs to one network connection, and must be forgotten if anything staged is not sent. A free number goes
//! to the first topic that comes. Once none is free, a topic takes the number of the least recently used one if it comes
//! a second time within a while; otherwise many topics that come once each would only exchange numbers and gain nothing.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::num::NonZeroU16;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use vespiary_core::Topic;

/// Topics that came once and have no number, remembered by their hash; at most as many as there are numbers.
const REMEMBERED_TOPICS: usize = 64;

/// No slot.
const NONE: u16 = u16::MAX;

/// How a topic is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Alias {
    /// By this number alone; the client knows it.
    Known(NonZeroU16),
    /// In full, with this number, which stands for it from now on.
    New(NonZeroU16),
}

/// The numbers of one connection.
#[derive(Debug)]
pub(super) struct Aliases {
    /// The highest number.
    maximum: u16,
    /// The slot of each topic that has a number.
    slots_by_topic: HashMap<Topic, u16, RandomState>,
    /// The numbers in use, less one, in a list from the most to the least recently used.
    slots: Vec<Slot>,
    /// The most recently used.
    newest: u16,
    /// The least recently used.
    oldest: u16,
    /// Hashes of topics that came lately and have no number.
    missed: VecDeque<u64>,
}

/// A number in use.
#[derive(Debug)]
struct Slot {
    /// What it stands for.
    topic: Topic,
    /// The one used next after it.
    newer: u16,
    /// The one used last before it.
    older: u16,
}

impl Aliases {
    /// A table for numbers from 1 to `maximum` [MQTT-3.3.2-8] [MQTT-3.3.2-11], without any use yet.
    pub(super) fn new(maximum: NonZeroU16) -> Self {
        Self {
            // The slots are numbered below `NONE`.
            maximum: maximum.get().min(NONE - 1),
            slots_by_topic: HashMap::with_hasher(RandomState::default()),
            slots: Vec::new(),
            newest: NONE,
            oldest: NONE,
            missed: VecDeque::new(),
        }
    }

    /// The number of a topic that the client knows by it.
    pub(super) fn find(&mut self, topic: &Topic) -> Option<Alias> {
        let slot = *self.slots_by_topic.get(topic)?;
        self.unlink(slot);
        self.link_newest(slot);
        Some(Alias::Known(number(slot)))
    }

    /// Gives a number to a topic that has none, if it is worth one; the topic must then be sent with it.
    pub(super) fn assign(&mut self, topic: &Topic) -> Option<Alias> {
        debug_assert!(!self.slots_by_topic.contains_key(topic));
        let slot = if self.slots.len() < usize::from(self.maximum) {
            self.slots.push(Slot { topic: topic.clone(), newer: NONE, older: NONE });
            (self.slots.len() - 1) as u16
        } else if self.came_before(topic) {
            let slot = self.oldest;
            self.unlink(slot);
            let replaced = std::mem::replace(&mut self.slots[usize::from(slot)].topic, topic.clone());
            self.slots_by_topic.remove(&replaced);
            slot
        } else {
            return None;
        };
        self.slots_by_topic.insert(topic.clone(), slot);
        self.link_newest(slot);
        Some(Alias::New(number(slot)))
    }

    /// Whether this topic came lately and got no number; otherwise it is remembered.
    fn came_before(&mut self, topic: &Topic) -> bool {
        let hash = self.slots_by_topic.hasher().hash_one(topic);
        if let Some(place) = self.missed.iter().position(|missed| *missed == hash) {
            self.missed.remove(place);
            return true;
        }
        if self.missed.len() >= REMEMBERED_TOPICS.min(usize::from(self.maximum)) {
            self.missed.pop_front();
        }
        self.missed.push_back(hash);
        false
    }

    fn unlink(&mut self, slot: u16) {
        let Slot { newer, older, .. } = self.slots[usize::from(slot)];
        match self.slots.get_mut(usize::from(newer)) {
            Some(newer) => newer.older = older,
            None => self.newest = older,
        }
        match self.slots.get_mut(usize::from(older)) {
            Some(older) => older.newer = newer,
            None => self.oldest = newer,
        }
    }

    fn link_newest(&mut self, slot: u16) {
        let second = std::mem::replace(&mut self.newest, slot);
        match self.slots.get_mut(usize::from(second)) {
            Some(second) => second.newer = slot,
            None => self.oldest = slot,
        }
        let slot = &mut self.slots[usize::from(slot)];
        (slot.newer, slot.older) = (NONE, second);
    }
}

fn number(slot: u16) -> NonZeroU16 {
    NonZeroU16::MIN.saturating_add(slot)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn aliases(maximum: u16) -> Aliases {
        Aliases::new(NonZeroU16::new(maximum).unwrap())
    }

    /// What becomes of each topic: `n` for a known number, `n=` for a new one, `-` for none.
    fn check(maximum: u16, topics: &str, expected: &str) {
        let mut aliases = aliases(maximum);
        let found = topics.split(' ').map(|topic| {
            let topic = Topic::parse(topic).unwrap();
            match aliases.find(&topic).or_else(|| aliases.assign(&topic)) {
                Some(Alias::Known(number)) => number.to_string(),
                Some(Alias::New(number)) => format!("{number}="),
                None => "-".to_owned(),
            }
        });
        assert_eq!(found.collect::<Vec<_>>().join(" "), expected, "{topics}");
    }

    #[test]
    fn free_numbers_go_to_the_first_topics_and_then_the_least_recently_used_is_replaced() {
        check(1, "a a a", "1= 1 1");
        check(3, "a b a c b a", "1= 2= 1 3= 2 1");
        // The third topic comes a second time; `b` was used before `a`.
        check(2, "a b a c c a c b b", "1= 2= 1 - 2= 1 2 - 1=");
        check(1, "a b b b a a", "1= - 1= 1 - 1=");
    }

    #[test]
    fn topics_that_come_once_each_take_no_numbers_from_those_that_repeat() {
        check(2, "a b c d e f c d a b", "1= 2= - - - - - - 1 2");
    }

    proptest! {
        /// What a client makes of it, which knows only numbers.
        #[test]
        fn a_client_finds_the_topic_of_every_number(
            maximum in 1..6_u16, topics in prop::collection::vec(0..9_u8, 0..200)
        ) {
            let mut aliases = aliases(maximum);
            let mut client: Vec<Option<Topic>> = vec![None; usize::from(maximum)];
            for topic in topics {
                let topic = Topic::parse(&topic.to_string()).unwrap();
                match aliases.find(&topic).or_else(|| aliases.assign(&topic)) {
                    Some(Alias::New(number)) => client[usize::from(number.get()) - 1] = Some(topic),
                    Some(Alias::Known(number)) => {
                        prop_assert_eq!(client[usize::from(number.get()) - 1].as_ref(), Some(&topic));
                    }
                    None => {}
                }
            }
        }
    }
}
