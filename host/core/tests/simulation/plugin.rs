//! A plugin that passes on each event it handles, now and then fails, and keeps to the order of a topic.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;
use vespiary_core::event::{InboxEvent, Lane, Outcome, PluginName, Settlement, StateWrite};
use vespiary_core::{Input, Message, Qos, Timestamp, Topic};

use crate::client::number_of;

/// A plugin.
pub struct Plugin {
    /// Its name.
    pub name: PluginName,
    /// Where it publishes: below this, at the topic that the event has.
    publishes: String,
    /// The batch it works on.
    pub batch: Option<Vec<InboxEvent>>,
    /// Whether it has asked for events.
    pub asked: bool,
    /// Attempts of each event since the broker started, by what it has said itself.
    attempts: BTreeMap<u64, u32>,
}

impl Plugin {
    pub fn new(name: &str, publishes: &str) -> Self {
        Self {
            name: PluginName(name.into()),
            publishes: format!("{publishes}/"),
            batch: None,
            asked: false,
            attempts: BTreeMap::new(),
        }
    }

    /// The broker is a new one.
    pub fn restart(&mut self) {
        self.batch = None;
        self.asked = false;
        self.attempts.clear();
    }

    pub fn take(&mut self, events: Vec<InboxEvent>) {
        assert!(self.batch.is_none(), "one batch at a time");
        for event in &events {
            let attempts = self.attempts.get(&event.sequence.0).copied().unwrap_or_default();
            assert_eq!(event.attempt, attempts, "attempts are counted");
        }
        self.asked = false;
        self.batch = Some(events);
    }

    /// What it does next: asks, cancels, returns or settles.
    pub fn step(&mut self, rng: &mut Rng, now: Timestamp, calm: bool) -> Option<Input> {
        let plugin = self.name.clone();
        let Some(batch) = self.batch.take_if(|_| calm || rng.u8(..) < 200) else {
            if self.asked {
                return (!calm && rng.u8(..) < 8).then(|| {
                    self.asked = false;
                    Input::CancelTake { lane: Lane(0), plugin }
                });
            }
            self.asked = self.batch.is_none();
            return self.asked.then(|| Input::TakeEvents { lane: Lane(0), plugin, max: rng.usize(1..6) });
        };
        if !calm && rng.u8(..) < 20 {
            return Some(Input::ReturnEvents { lane: Lane(0), plugin });
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
                30..40 => Outcome::DeadLetter("it says so".into()),
                40..50 => {
                    failed.insert(event.message.topic.clone());
                    continue;
                }
                _ => Outcome::Done,
            };
            match &outcome {
                Outcome::Done => {
                    settlement.publishes.push(self.publish(&event.message, now));
                    let key = number_of(&event.message).to_string();
                    settlement.writes.push(StateWrite::lasting(key, Some(Box::from([]))));
                }
                Outcome::RetryAt(_) => {
                    failed.insert(event.message.topic.clone());
                    *self.attempts.entry(event.sequence.0).or_default() += 1;
                }
                Outcome::DeadLetter(_) => {}
            }
            settlement.outcomes.push((event.sequence, outcome));
        }
        Some(Input::Settle { lane: Lane(0), plugin, settlement: Box::new(settlement) })
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
