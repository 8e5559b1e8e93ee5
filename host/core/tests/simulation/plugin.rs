//! A plugin that passes on each event it handles, now and then fails, and keeps to the order of a topic; with two lanes.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;
use vespiary_core::event::{InboxEvent, Lane, Lanes, Outcome, PluginName, Settlement, StateWrite};
use vespiary_core::{Input, Message, Qos, Timestamp, Topic};

use crate::client::number_of;

/// Lanes of each plugin.
const LANES: u16 = 2;

/// A plugin.
pub struct Plugin {
    /// Its name.
    pub name: PluginName,
    /// Where it publishes: below this, at the topic that the event has.
    publishes: String,
    /// The batch each lane works on.
    batches: BTreeMap<Lane, Vec<InboxEvent>>,
    /// Lanes that have asked for events.
    asked: BTreeSet<Lane>,
    /// Attempts of each event since the broker started, by what it has said itself.
    attempts: BTreeMap<u64, u32>,
}

impl Plugin {
    pub fn new(name: &str, publishes: &str) -> Self {
        Self {
            name: PluginName(name.into()),
            publishes: format!("{publishes}/"),
            batches: BTreeMap::new(),
            asked: BTreeSet::new(),
            attempts: BTreeMap::new(),
        }
    }

    /// The broker is a new one.
    pub fn restart(&mut self) {
        self.batches.clear();
        self.asked.clear();
        self.attempts.clear();
    }

    /// Its code is another: what failed is as new.
    pub fn is_swapped(&mut self) {
        self.attempts.clear();
    }

    /// How its events are spread.
    pub fn lanes() -> Lanes {
        Lanes { count: LANES, ..Lanes::default() }
    }

    /// Whether it works on nothing.
    pub fn rests(&self) -> bool {
        self.batches.is_empty()
    }

    pub fn take(&mut self, lane: Lane, events: Vec<InboxEvent>) {
        assert!(!self.batches.contains_key(&lane), "one batch of a lane at a time");
        for event in &events {
            let attempts = self.attempts.get(&event.sequence.0).copied().unwrap_or_default();
            assert_eq!(event.attempt, attempts, "attempts are counted");
        }
        self.asked.remove(&lane);
        self.batches.insert(lane, events);
    }

    /// What it does next: asks, cancels, returns or settles.
    pub fn step(&mut self, rng: &mut Rng, now: Timestamp, calm: bool) -> Option<Input> {
        let plugin = self.name.clone();
        let lane = Lane(rng.u16(0..LANES));
        let works = self.batches.contains_key(&lane);
        if !works && self.asked.contains(&lane) {
            return (!calm && rng.u8(..) < 8).then(|| {
                self.asked.remove(&lane);
                Input::CancelTake { plugin, lane }
            });
        }
        if !works {
            self.asked.insert(lane);
            return Some(Input::TakeEvents { plugin, lane, max: rng.usize(1..6) });
        }
        if !calm && rng.u8(..) >= 200 {
            return None;
        }
        let batch = self.batches.remove(&lane)?;
        if !calm && rng.u8(..) < 20 {
            return Some(Input::ReturnEvents { plugin, lane });
        }
        let mut settlement = Settlement::default();
        let mut failed: BTreeSet<Topic> = BTreeSet::new();
        for event in batch {
            if failed.contains(&event.message.topic) {
                // Handling it now would change the order.
                continue;
            }
            let outcome = match rng.u8(..) {
                _ if calm => Outcome::Done,
                0..30 => Outcome::RetryAt(now.after_ms(rng.u64(0..2000))),
                // What was handled once and is given up the second time would count as both.
                30..40 if !event.replayed => Outcome::DeadLetter("it says so".into()),
                40..50 => {
                    failed.insert(event.message.topic.clone());
                    continue;
                }
                _ => Outcome::Done,
            };
            match &outcome {
                Outcome::Done => {
                    if !event.replayed {
                        settlement.publishes.push(self.publish(&event.message, now));
                    }
                    let key = number_of(&event.message).to_string();
                    settlement.writes.push(StateWrite::lasting(key, Some([].into())));
                }
                Outcome::RetryAt(_) => {
                    failed.insert(event.message.topic.clone());
                    *self.attempts.entry(event.sequence.0).or_default() += 1;
                }
                Outcome::DeadLetter(_) => {}
            }
            if !matches!(outcome, Outcome::RetryAt(_)) {
                // A rollback may hand it out again, as if it were new.
                self.attempts.remove(&event.sequence.0);
            }
            settlement.outcomes.push((event.sequence, outcome));
        }
        Some(Input::Settle { plugin, lane, settlement: Box::new(settlement) })
    }

    pub fn has_published(&self, topic: &Topic) -> bool {
        topic.as_str().starts_with(&self.publishes)
    }

    fn publish(&self, message: &Message, now: Timestamp) -> Message {
        Message {
            topic: Topic::parse(&format!("{}{}", self.publishes, message.topic)).expect("a topic"),
            qos: Qos::ExactlyOnce,
            received_at: now,
            publisher: format!("$plugin/{}", self.name.0).as_str().into(),
            ..message.clone()
        }
    }
}
