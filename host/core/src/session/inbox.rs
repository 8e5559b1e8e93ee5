//! A plugin's inbox: the queue of a session that has a plugin in place of a client.
//!
//! Events are handed out in batches, at most one at a time. An event that failed waits for its time, and the events
//! after it on the same topic wait behind it, apart; other topics flow. The order of events on a topic holds:
//! what is `held` of a topic is older than what is `ready` of it.
//!
//! Invariants: a held topic either is scheduled, or has an event in the batch that is out.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::event::{InboxEvent, PluginName, Revision, Sequence, ShareNumber};
use crate::message::{Message, MessageId, Qos, Timestamp};
use crate::topic::Topic;

/// An event in an inbox.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    /// The message.
    pub(crate) message: Arc<Message>,
    /// Its identity and its place in the order.
    pub(crate) sequence: Sequence,
    /// The durable message; `None` for QoS 0, which is not on disk.
    pub(crate) stored: Option<MessageId>,
    /// The shared subscription it came through, if it did.
    pub(crate) share: Option<ShareNumber>,
    /// QoS of the delivery.
    pub(crate) qos: Qos,
    /// Whether it is a retained message.
    pub(crate) retain: bool,
    /// Times it was handed out and failed.
    pub(crate) attempt: u32,
    /// When it may be handed out (again).
    pub(crate) not_before: Timestamp,
}

/// Events of one topic that wait behind one that failed.
#[derive(Debug, Default)]
struct Held {
    /// The events, in order.
    events: VecDeque<Event>,
    /// Whether `due` names the first of them.
    scheduled: bool,
}

/// A plugin's inbox.
#[derive(Debug)]
pub(crate) struct Inbox {
    /// The plugin.
    pub(crate) plugin: PluginName,
    /// Its active revision.
    pub(crate) revision: Revision,
    /// Numbers of the dead letters kept, oldest first.
    pub(crate) dead_letters: BTreeSet<Sequence>,
    /// How many events the plugin asked for, if it waits for some.
    pub(crate) demand: Option<usize>,
    /// Whether the broker already knows that it has to look here at the end of the turn.
    pub(crate) woken: bool,
    /// When the broker looks here for an event to be handed out again.
    pub(crate) deadline: Option<Timestamp>,
    /// Events that wait behind none.
    ready: VecDeque<Event>,
    /// Topics with an event that failed.
    held: HashMap<Topic, Held, FixedState>,
    /// When the first event of each held topic may be handed out.
    due: BTreeSet<(Timestamp, Sequence, Topic)>,
    /// The batch that is out.
    out: Vec<Event>,
    /// Events in all of these.
    count: usize,
    /// Their weight.
    bytes: usize,
}

/// What a batch may still take.
#[derive(Debug)]
struct Room {
    /// Events.
    events: usize,
    /// Weight; the last event may exceed it.
    bytes: usize,
}

/// What [`Inbox::take`] found.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    /// The batch.
    pub(crate) events: Vec<InboxEvent>,
    /// Events that expired before they were handed out; they have left the inbox.
    pub(crate) expired: Vec<Event>,
}

impl Inbox {
    /// An empty inbox.
    pub(crate) fn new(plugin: PluginName, revision: Revision, seed: u64) -> Self {
        Self {
            plugin,
            revision,
            dead_letters: BTreeSet::new(),
            demand: None,
            woken: false,
            deadline: None,
            ready: VecDeque::new(),
            held: HashMap::with_hasher(FixedState::with_seed(seed)),
            due: BTreeSet::new(),
            out: Vec::new(),
            count: 0,
            bytes: 0,
        }
    }

    /// Events in the inbox, those of the batch that is out included.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// Their weight in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether a batch is out.
    pub(crate) fn is_out(&self) -> bool {
        !self.out.is_empty()
    }

    /// Whether there may be something to hand out without waiting for a time.
    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Events that failed and wait for their time, or behind one that does.
    pub(crate) fn retrying(&self) -> usize {
        self.due.len()
    }

    /// When the next event that failed may be handed out again.
    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        self.due.first().map(|&(at, ..)| at)
    }

    /// Appends an event.
    pub(crate) fn push(&mut self, event: Event) {
        self.count += 1;
        self.bytes += event.message.weight();
        self.ready.push_back(event);
    }

    /// Takes up to `max` events out as a batch, of about this weight at most. No batch may be out.
    pub(crate) fn take(&mut self, now: Timestamp, max: usize, max_bytes: usize) -> Taken {
        debug_assert!(self.out.is_empty());
        let mut room = Room { events: max, bytes: max_bytes.max(1) };
        let mut expired = Vec::new();
        while room.is_left() && self.next_due().is_some_and(|at| at <= now) {
            if let Some((_, _, topic)) = self.due.pop_first() {
                self.take_held(topic, now, &mut room, &mut expired);
            }
        }
        while room.is_left() {
            let Some(event) = self.ready.pop_front() else { break };
            if !self.held.is_empty()
                && let Some(held) = self.held.get_mut(&event.message.topic)
            {
                held.events.push_back(event);
            } else if event.message.is_expired(now) {
                expired.push(event);
            } else {
                room.take(&event);
                self.out.push(event);
            }
        }
        for event in &expired {
            self.count -= 1;
            self.bytes -= event.message.weight();
        }
        Taken { events: self.out.iter().map(Event::hand_out).collect(), expired }
    }

    /// Takes events of one held topic. An event that failed before goes without those that follow it.
    fn take_held(&mut self, topic: Topic, now: Timestamp, room: &mut Room, expired: &mut Vec<Event>) {
        let Some(held) = self.held.get_mut(&topic) else { return };
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
            self.schedule(&topic);
        }
    }

    /// Schedules a held topic that has no event out; ends the holding where nothing is left.
    fn schedule(&mut self, topic: &Topic) {
        let Some(held) = self.held.get_mut(topic).filter(|held| !held.scheduled) else { return };
        match held.events.front() {
            Some(first) => {
                held.scheduled = true;
                self.due.insert((first.not_before, first.sequence, topic.clone()));
            }
            None => {
                self.held.remove(topic);
            }
        }
    }

    /// Ends the batch. `verdict` says of each event whether it leaves (`None`) or goes back, and not before when.
    pub(crate) fn put_back(&mut self, verdict: impl Fn(&Event) -> Verdict) -> Vec<Event> {
        let batch = std::mem::take(&mut self.out);
        let topics: Vec<Topic> = batch.iter().map(|event| event.message.topic.clone()).collect();
        let mut left = Vec::new();
        for mut event in batch.into_iter().rev() {
            match verdict(&event) {
                Verdict::Leave => {
                    self.count -= 1;
                    self.bytes -= event.message.weight();
                    left.push(event);
                }
                Verdict::Back => match self.held.get_mut(&event.message.topic) {
                    Some(held) => held.events.push_front(event),
                    None => self.ready.push_front(event),
                },
                Verdict::RetryAt(at) => {
                    event.attempt = event.attempt.saturating_add(1);
                    event.not_before = at;
                    self.held.entry(event.message.topic.clone()).or_default().events.push_front(event);
                }
            }
        }
        for topic in &topics {
            self.schedule(topic);
        }
        left.reverse();
        left
    }

    /// All events, in no particular order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Event> {
        let held = self.due.iter().map(|(_, _, topic)| topic).chain(self.unscheduled());
        let held = held.filter_map(|topic| self.held.get(topic)).flat_map(|held| &held.events);
        self.ready.iter().chain(&self.out).chain(held)
    }

    /// Held topics that are not scheduled: each has an event in the batch that is out.
    fn unscheduled(&self) -> impl Iterator<Item = &Topic> {
        let mut topics: BTreeSet<&Topic> = self.out.iter().map(|event| &event.message.topic).collect();
        topics.retain(|topic| self.held.get(*topic).is_some_and(|held| !held.scheduled));
        topics.into_iter()
    }

    /// Panics where an invariant does not hold.
    pub(crate) fn check_invariants(&self) {
        assert_eq!(self.iter().count(), self.count);
        assert_eq!(self.iter().map(|event| event.message.weight()).sum::<usize>(), self.bytes);
        assert_eq!(self.due.len() + self.unscheduled().count(), self.held.len());
        for (at, sequence, topic) in &self.due {
            let first = self.held.get(topic).and_then(|held| held.events.front()).expect("a held topic has events");
            assert_eq!((first.not_before, first.sequence), (*at, *sequence));
        }
        for topic in self.due.iter().map(|(_, _, topic)| topic).chain(self.unscheduled()) {
            let held = &self.held[topic].events;
            assert!(held.iter().map(|event| event.sequence).is_sorted(), "held events keep their order");
        }
        assert!(self.ready.iter().map(|event| event.sequence).is_sorted(), "ready events keep their order");
    }
}

/// What becomes of an event of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It leaves the inbox.
    Leave,
    /// It goes back as it was.
    Back,
    /// It failed, and goes back until this time.
    RetryAt(Timestamp),
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

impl Event {
    fn hand_out(&self) -> InboxEvent {
        InboxEvent {
            sequence: self.sequence,
            message: self.message.clone(),
            qos: self.qos,
            retain: self.retain,
            attempt: self.attempt,
            replayed: false,
        }
    }
}
