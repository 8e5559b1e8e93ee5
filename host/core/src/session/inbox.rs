//! A plugin's inbox: the queue of a session that has a plugin in place of a client, with all else that the broker keeps
//! for a plugin.
//!
//! Events are spread over [lanes](lane) by their key, so that those of one key are in one lane, in order, while several
//! batches are out at the same time. What the broker knows beside the events: timers, the numbers of dead letters, the
//! generations of the state, and what a revision on probation has handled.

mod lane;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::FixedState;

use self::lane::InboxLane;
use crate::event::{
    EventKey, InboxEvent, Lane, Lanes, PluginName, ProbationRecord, Revision, Sequence, SessionId, ShareNumber, Timer,
};
use crate::message::{Message, MessageId, Qos, Timestamp};

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
    /// Whether a revision that was rolled back has handled it before.
    pub(crate) replayed: bool,
}

/// A plugin's inbox.
#[derive(Debug)]
pub(crate) struct Inbox {
    /// The plugin.
    pub(crate) plugin: PluginName,
    /// Its active revision.
    pub(crate) revision: Revision,
    /// The generation of its state in use.
    pub(crate) state: SessionId,
    /// A further generation of its state, not in use.
    pub(crate) generation: Option<SessionId>,
    /// What the revision may have to give back, while it is on probation.
    pub(crate) probation: Option<Box<Probation>>,
    /// Numbers of the dead letters kept, oldest first.
    pub(crate) dead_letters: BTreeSet<Sequence>,
    /// Its timers.
    pub(crate) timers: Timers,
    /// Whether the broker already knows that it has to look here at the end of the turn.
    pub(crate) woken: bool,
    /// When the broker looks here for an event to be handed out again.
    pub(crate) deadline: Option<Timestamp>,
    /// When the broker looks here for a timer.
    pub(crate) timer_deadline: Option<Timestamp>,
    /// How events are spread.
    arrangement: Lanes,
    /// The lanes.
    lanes: Vec<InboxLane>,
    /// Decides which key is in which lane.
    hasher: FixedState,
    /// Seed of the lanes' tables.
    seed: u64,
    /// Events in all lanes.
    count: usize,
    /// Their weight.
    bytes: usize,
}

/// What a revision on probation may have to give back.
#[derive(Debug)]
pub(crate) struct Probation {
    /// What to go back to.
    pub(crate) previous: ProbationRecord,
    /// Events that it has handled.
    pub(crate) handled: Vec<Event>,
    /// Their weight.
    pub(crate) handled_bytes: usize,
    /// Events that it has given up, while the process lives; they are dead letters.
    pub(crate) given_up: Vec<Event>,
}

/// Timers by name and by time.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    by_name: BTreeMap<Arc<str>, Timer>,
    by_time: BTreeSet<(Timestamp, Arc<str>)>,
}

/// What [`Inbox::take`] found.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    /// The batch.
    pub(crate) events: Vec<InboxEvent>,
    /// Events that expired before they were handed out; they have left the inbox.
    pub(crate) expired: Vec<Event>,
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

impl Inbox {
    /// An empty inbox with one lane, whose plugin keeps its state under the name of its session.
    pub(crate) fn new(plugin: PluginName, revision: Revision, session: SessionId, seed: u64) -> Self {
        let arrangement = Lanes::default();
        Self {
            plugin,
            revision,
            state: session,
            generation: None,
            probation: None,
            dead_letters: BTreeSet::new(),
            timers: Timers::default(),
            woken: false,
            deadline: None,
            timer_deadline: None,
            lanes: vec![InboxLane::new(arrangement.key, seed)],
            arrangement,
            hasher: FixedState::with_seed(seed),
            seed,
            count: 0,
            bytes: 0,
        }
    }

    /// Events in the inbox, those of the batches that are out included.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// Their weight in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How events are spread.
    pub(crate) fn arrangement(&self) -> Lanes {
        self.arrangement
    }

    /// Whether a batch is out.
    pub(crate) fn is_out(&self) -> bool {
        self.lanes.iter().any(InboxLane::is_out)
    }

    /// Whether a batch of this lane is out.
    pub(crate) fn lane_is_out(&self, lane: Lane) -> bool {
        self.lanes.get(usize::from(lane.0)).is_some_and(InboxLane::is_out)
    }

    /// Whether a lane waits for events that may be there.
    pub(crate) fn has_ready(&self) -> bool {
        self.lanes.iter().any(|lane| lane.waits() && lane.has_ready())
    }

    /// Keys with an event that failed and waits for its time.
    pub(crate) fn retrying(&self) -> usize {
        self.lanes.iter().map(InboxLane::retrying).sum()
    }

    /// When the next event that failed may be handed out to a lane that waits.
    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        self.lanes.iter().filter(|lane| lane.waits()).filter_map(InboxLane::next_due).min()
    }

    /// Sets or forgets what a lane asks for; gives `false` where there is no such lane.
    pub(crate) fn ask(&mut self, lane: Lane, demand: Option<usize>) -> bool {
        let lane = self.lanes.get_mut(usize::from(lane.0));
        lane.map(|lane| lane.demand = demand).is_some()
    }

    /// Appends an event; says whether its lane waits for one.
    pub(crate) fn push(&mut self, event: Event) -> bool {
        self.count += 1;
        self.bytes += event.message.weight();
        let lane = self.lane_of(&event.message);
        self.lanes[lane].push(event);
        self.lanes[lane].waits()
    }

    /// Lanes that wait for events.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = Lane> + use<> {
        let waiting: smallvec::SmallVec<[Lane; 4]> =
            self.lanes.iter().zip(0..).filter(|(lane, _)| lane.waits()).map(|(_, number)| Lane(number)).collect();
        waiting.into_iter()
    }

    /// Takes what a lane asks for out as a batch, of about this weight at most. Its demand is met if there is one.
    pub(crate) fn take(&mut self, now: Timestamp, lane: Lane, max_bytes: usize) -> Taken {
        let lane = &mut self.lanes[usize::from(lane.0)];
        let Some(max) = lane.demand.filter(|_| !lane.is_out()) else { return Taken::default() };
        let taken = lane.take(now, max, max_bytes);
        if !taken.events.is_empty() {
            lane.demand = None;
        }
        self.leave(&taken.expired);
        taken
    }

    /// Ends a lane's batch. `verdict` says of each event what becomes of it; gives those that leave, in order.
    pub(crate) fn put_back(&mut self, lane: Lane, verdict: impl Fn(&Event) -> Verdict) -> Vec<Event> {
        let Some(lane) = self.lanes.get_mut(usize::from(lane.0)) else { return Vec::new() };
        let left = lane.put_back(verdict);
        self.leave(&left);
        left
    }

    /// Spreads events in another way. Batches that are out are put back, and demands forgotten.
    pub(crate) fn arrange(&mut self, lanes: Lanes) {
        let lanes = Lanes { count: lanes.count.max(1), ..lanes };
        let events = self.take_all();
        let number = usize::from(lanes.count) + usize::from(lanes.canary_percent > 0);
        self.arrangement = lanes;
        self.lanes = (0..number).map(|_| InboxLane::new(lanes.key, self.seed)).collect();
        self.take_in(events);
    }

    /// Forgets what failed, for other code is to handle it: those events are as new, and due at once.
    pub(crate) fn forgive(&mut self) {
        self.lanes.iter_mut().for_each(InboxLane::forgive);
    }

    /// Adds events that belong among those that are there.
    pub(crate) fn insert(&mut self, events: impl IntoIterator<Item = Event>) {
        let mut all = self.take_all();
        for event in events {
            self.count += 1;
            self.bytes += event.message.weight();
            all.insert(event.sequence, event);
        }
        self.take_in(all);
    }

    /// All events, in no particular order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Event> {
        self.lanes.iter().flat_map(InboxLane::iter)
    }

    /// Events that were handled on probation; they are not in the inbox.
    pub(crate) fn handled(&self) -> impl Iterator<Item = &Event> {
        self.probation.iter().flat_map(|probation| &probation.handled)
    }

    fn leave(&mut self, events: &[Event]) {
        for event in events {
            self.count -= 1;
            self.bytes -= event.message.weight();
        }
    }

    fn take_all(&mut self) -> BTreeMap<Sequence, Event> {
        let mut events = BTreeMap::new();
        for lane in &mut self.lanes {
            let demand = lane.demand;
            let empty = InboxLane::new(self.arrangement.key, self.seed);
            let full = std::mem::replace(lane, empty);
            lane.demand = demand;
            events.extend(full.into_events().map(|event| (event.sequence, event)));
        }
        events
    }

    fn take_in(&mut self, events: BTreeMap<Sequence, Event>) {
        for event in events.into_values() {
            let lane = self.lane_of(&event.message);
            self.lanes[lane].take_in(event);
        }
    }

    fn lane_of(&self, message: &Message) -> usize {
        let Lanes { count, key, canary_percent } = self.arrangement;
        if count == 1 && canary_percent == 0 {
            return 0;
        }
        let hash = self.hasher.hash_one(key.of(message));
        if hash % 100 < u64::from(canary_percent) {
            return usize::from(count);
        }
        (hash / 100 % u64::from(count)) as usize
    }

    /// Panics where an invariant does not hold.
    pub(crate) fn check_invariants(&self) {
        assert_eq!(self.iter().count(), self.count);
        assert_eq!(self.iter().map(|event| event.message.weight()).sum::<usize>(), self.bytes);
        for (lane, number) in self.lanes.iter().zip(0..) {
            lane.check_invariants();
            assert!(lane.iter().all(|event| self.lane_of(&event.message) == number), "an event is in its key's lane");
        }
        let timers = &self.timers;
        assert!(timers.by_time.iter().all(|(at, name)| timers.by_name.get(name).is_some_and(|timer| timer.at == *at)));
        assert_eq!(timers.by_time.len(), timers.by_name.len());
        assert_eq!(self.timer_deadline.is_some(), !timers.by_name.is_empty());
    }
}

impl Timers {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.by_name.len()
    }

    /// The timer of a name.
    pub(crate) fn get(&self, name: &str) -> Option<&Timer> {
        self.by_name.get(name)
    }

    /// Sets a timer, in place of one of the same name.
    pub(crate) fn set(&mut self, name: Arc<str>, timer: Timer) {
        self.cancel(&name);
        self.by_time.insert((timer.at, name.clone()));
        self.by_name.insert(name, timer);
    }

    /// Cancels a timer, and gives it if there is one.
    pub(crate) fn cancel(&mut self, name: &str) -> Option<Timer> {
        let (name, timer) = self.by_name.remove_entry(name)?;
        self.by_time.remove(&(timer.at, name));
        Some(timer)
    }

    /// When the first falls due.
    pub(crate) fn next(&self) -> Option<Timestamp> {
        self.by_time.first().map(|&(at, _)| at)
    }

    /// The name of the first that is due.
    pub(crate) fn first_due(&self, now: Timestamp) -> Option<Arc<str>> {
        self.by_time.first().filter(|(at, _)| *at <= now).map(|(_, name)| name.clone())
    }

    /// All timers, by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Timer)> {
        self.by_name.iter()
    }
}

impl EventKey {
    /// The key of a message.
    pub fn of(self, message: &Message) -> &str {
        let topic = &message.topic;
        match self {
            Self::Topic => topic.as_str(),
            Self::Publisher => &message.publisher,
            Self::Level(level) => topic.levels().nth(usize::from(level)).unwrap_or(topic.as_str()),
        }
    }
}

impl Event {
    /// The event as if it had not failed.
    fn forgiven(self) -> Self {
        Self { attempt: 0, not_before: Timestamp(0), ..self }
    }

    fn hand_out(&self) -> InboxEvent {
        InboxEvent {
            sequence: self.sequence,
            message: self.message.clone(),
            qos: self.qos,
            retain: self.retain,
            attempt: self.attempt,
            replayed: self.replayed,
        }
    }
}
