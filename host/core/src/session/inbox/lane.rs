//! One lane of an inbox: events whose order counts among themselves, and the one batch of them that may be out.
//!
//! Events are handed out in batches, at most one at a time. An event that failed waits for its time, and the events
//! after it of the same key wait behind it, apart; other keys flow. The order of events of a key holds: what is `held`
//! of a key is older than what is `ready` of it.
//!
//! Invariants: a held key either is scheduled, or has an event in the batch that is out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::{Event, Taken, Verdict};
use crate::event::{EventKey, Sequence};
use crate::message::Timestamp;

/// Events of one key that wait behind one that failed.
#[derive(Debug, Default)]
struct Held {
    /// The events, in order.
    events: VecDeque<Event>,
    /// Whether `due` names the first of them.
    scheduled: bool,
}

/// A lane.
#[derive(Debug)]
pub(super) struct InboxLane {
    /// What holds back what.
    key: EventKey,
    /// How many events are asked for, if some are.
    pub(super) demand: Option<usize>,
    /// Events that wait behind none.
    ready: VecDeque<Event>,
    /// Keys with an event that failed.
    held: HashMap<Box<str>, Held, FixedState>,
    /// When the first event of each held key may be handed out.
    due: BTreeSet<(Timestamp, Sequence, Box<str>)>,
    /// The batch that is out.
    out: Vec<Event>,
}

/// What a batch may still take.
#[derive(Debug)]
struct Room {
    /// Events.
    events: usize,
    /// Weight; the last event may exceed it.
    bytes: usize,
}

impl InboxLane {
    pub(super) fn new(key: EventKey, seed: u64) -> Self {
        Self {
            key,
            demand: None,
            ready: VecDeque::new(),
            held: HashMap::with_hasher(FixedState::with_seed(seed)),
            due: BTreeSet::new(),
            out: Vec::new(),
        }
    }

    /// Whether a batch is out.
    pub(super) fn is_out(&self) -> bool {
        !self.out.is_empty()
    }

    /// Whether events are asked for, and none are out.
    pub(super) fn waits(&self) -> bool {
        self.demand.is_some() && !self.is_out()
    }

    /// Whether there may be something to hand out without waiting for a time.
    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Keys with an event that failed and waits for its time.
    pub(super) fn retrying(&self) -> usize {
        self.due.len()
    }

    /// When the next event that failed may be handed out again.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.due.first().map(|&(at, ..)| at)
    }

    /// Appends an event.
    pub(super) fn push(&mut self, event: Event) {
        self.ready.push_back(event);
    }

    /// Takes in an event that is younger than all that are here, and that may have failed before.
    pub(super) fn take_in(&mut self, event: Event) {
        if event.attempt == 0 {
            return self.ready.push_back(event);
        }
        let key: Box<str> = self.key.of(&event.message).into();
        // What is ready of its key is older, and goes before it.
        let (older, ready) =
            std::mem::take(&mut self.ready).into_iter().partition(|other| *self.key.of(&other.message) == *key);
        self.ready = ready;
        let held = self.held.entry(key.clone()).or_default();
        held.events.extend::<VecDeque<Event>>(older);
        held.events.push_back(event);
        self.schedule(&key);
    }

    /// Forgets what failed: those events are as new, and due at once.
    pub(super) fn forgive(&mut self) {
        self.due.clear();
        let held = self.held.drain().flat_map(|(_, held)| held.events);
        let events = held.chain(std::mem::take(&mut self.ready)).map(|event| (event.sequence, event));
        let in_order: BTreeMap<Sequence, Event> = events.collect();
        self.ready = in_order.into_values().map(Event::forgiven).collect();
    }

    /// Takes up to `max` events out as a batch, of about this weight at most. No batch may be out.
    pub(super) fn take(&mut self, now: Timestamp, max: usize, max_bytes: usize) -> Taken {
        debug_assert!(self.out.is_empty());
        let mut room = Room { events: max, bytes: max_bytes.max(1) };
        let mut expired = Vec::new();
        while room.is_left() && self.next_due().is_some_and(|at| at <= now) {
            if let Some((_, _, key)) = self.due.pop_first() {
                self.take_held(&key, now, &mut room, &mut expired);
            }
        }
        while room.is_left() {
            let Some(event) = self.ready.pop_front() else { break };
            if !self.held.is_empty()
                && let Some(held) = self.held.get_mut(self.key.of(&event.message))
            {
                held.events.push_back(event);
            } else if event.message.is_expired(now) {
                expired.push(event);
            } else {
                room.take(&event);
                self.out.push(event);
            }
        }
        Taken { events: self.out.iter().map(Event::hand_out).collect(), expired }
    }

    /// Takes events of one held key. An event that failed before goes without those that follow it.
    fn take_held(&mut self, key: &str, now: Timestamp, room: &mut Room, expired: &mut Vec<Event>) {
        let Some(held) = self.held.get_mut(key) else { return };
        held.scheduled = false;
        let before = self.out.len();
        while room.is_left()
            && let Some(event) = held.events.pop_front_if(|event| event.not_before <= now)
        {
            let failed_before = event.attempt > 0;
            if event.message.is_expired(now) && !failed_before {
                expired.push(event);
                continue;
            }
            room.take(&event);
            self.out.push(event);
            if failed_before {
                break;
            }
        }
        if self.out.len() == before {
            self.schedule(key);
        }
    }

    /// Schedules a held key that has no event out; ends the holding where nothing is left.
    fn schedule(&mut self, key: &str) {
        let Some(held) = self.held.get_mut(key) else { return };
        match held.events.front() {
            Some(_) if held.scheduled => {}
            Some(first) => {
                held.scheduled = true;
                self.due.insert((first.not_before, first.sequence, key.into()));
            }
            None => {
                self.held.remove(key);
            }
        }
    }

    /// Ends the batch. `verdict` says of each event what becomes of it; gives those that leave, in order.
    pub(super) fn put_back(&mut self, verdict: impl Fn(&Event) -> Verdict) -> Vec<Event> {
        let batch = std::mem::take(&mut self.out);
        let key = self.key;
        let mut left = Vec::new();
        let mut keys: Vec<Box<str>> = Vec::new();
        for mut event in batch.into_iter().rev() {
            let verdict = verdict(&event);
            if !self.held.is_empty() || matches!(verdict, Verdict::RetryAt(_)) {
                keys.push(key.of(&event.message).into());
            }
            match verdict {
                Verdict::Leave => left.push(event),
                Verdict::Back => match self.held.get_mut(key.of(&event.message)) {
                    Some(held) => held.events.push_front(event),
                    None => self.ready.push_front(event),
                },
                Verdict::RetryAt(at) => {
                    event.attempt = event.attempt.saturating_add(1);
                    event.not_before = at;
                    self.held.entry(key.of(&event.message).into()).or_default().events.push_front(event);
                }
            }
        }
        for key in keys.iter().rev() {
            self.schedule(key);
        }
        left.reverse();
        left
    }

    /// All events, in no particular order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Event> {
        let held = self.due.iter().map(|(_, _, key)| &**key).chain(self.unscheduled());
        let held = held.filter_map(|key| self.held.get(key)).flat_map(|held| &held.events);
        self.ready.iter().chain(&self.out).chain(held)
    }

    /// All events, in no particular order; a batch that is out is not any more.
    pub(super) fn into_events(self) -> impl Iterator<Item = Event> {
        // The order among keys is of no meaning to whoever puts them in order again.
        let held = self.due.into_iter().map(|(_, _, key)| key).collect::<BTreeSet<_>>();
        let keys = held.into_iter().chain(self.out.iter().map(|event| self.key.of(&event.message).into()));
        let mut table = self.held;
        let held: Vec<Event> = keys.filter_map(|key| table.remove(&key)).flat_map(|held| held.events).collect();
        self.ready.into_iter().chain(self.out).chain(held)
    }

    /// Held keys that are not scheduled: each has an event in the batch that is out.
    fn unscheduled(&self) -> impl Iterator<Item = &str> {
        let mut keys: BTreeSet<&str> = self.out.iter().map(|event| self.key.of(&event.message)).collect();
        keys.retain(|key| self.held.get(*key).is_some_and(|held| !held.scheduled));
        keys.into_iter()
    }

    /// Panics where an invariant does not hold.
    pub(super) fn check_invariants(&self) {
        assert_eq!(self.due.len() + self.unscheduled().count(), self.held.len());
        for (at, sequence, key) in &self.due {
            let first = self.held.get(key).and_then(|held| held.events.front()).expect("a held key has events");
            assert_eq!((first.not_before, first.sequence), (*at, *sequence));
        }
        for key in self.due.iter().map(|(_, _, key)| &**key).chain(self.unscheduled()) {
            let held = &self.held[key].events;
            assert!(held.iter().map(|event| event.sequence).is_sorted(), "held events keep their order");
        }
        assert!(self.ready.iter().map(|event| event.sequence).is_sorted(), "ready events keep their order");
    }
}

impl Room {
    fn is_left(&self) -> bool {
        self.events > 0 && self.bytes > 0
    }

    fn take(&mut self, event: &Event) {
        self.events -= 1;
        self.bytes = self.bytes.saturating_sub(event.message.weight());
    }
}
