//! The last events of a plugin, remembered so that new code can be tried on them.

use std::collections::VecDeque;

use vespiary_core::event::InboxEvent;

/// What an event costs beside its message, in bytes, roughly.
const OVERHEAD_BYTES: usize = 64;

/// The last events that a plugin was done with, bounded in number and bytes.
#[derive(Debug)]
pub(super) struct RecentEvents {
    events: VecDeque<InboxEvent>,
    bytes: usize,
    most_events: usize,
    most_bytes: usize,
}

impl RecentEvents {
    /// Nothing yet; keeps so many events and so many bytes.
    pub(super) fn new(most_events: usize, most_bytes: usize) -> Self {
        Self { events: VecDeque::new(), bytes: 0, most_events, most_bytes }
    }

    /// Remembers an event; the oldest go where there is no room.
    pub(super) fn push(&mut self, event: &InboxEvent) {
        if self.most_events == 0 || weight(event) > self.most_bytes {
            return;
        }
        self.bytes += weight(event);
        self.events.push_back(InboxEvent { attempt: 0, replayed: false, ..event.clone() });
        while self.events.len() > self.most_events || self.bytes > self.most_bytes {
            let oldest = self.events.pop_front();
            self.bytes -= oldest.as_ref().map_or(0, weight);
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.events.len()
    }

    /// All of them, oldest first.
    pub(super) fn list(&self) -> Vec<InboxEvent> {
        self.events.iter().cloned().collect()
    }
}

fn weight(event: &InboxEvent) -> usize {
    event.message.weight() + OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use vespiary_core::event::Sequence;
    use vespiary_core::{Message, Qos, Timestamp, Topic};

    use super::*;

    fn event(sequence: u64, bytes: usize) -> InboxEvent {
        let message = Message {
            topic: Topic::parse("t").unwrap(),
            payload: vec![0; bytes].into(),
            qos: Qos::AtLeastOnce,
            retain: false,
            properties: None,
            expires_at: None,
            received_at: Timestamp(0),
            publisher: "p".into(),
            user: None,
        };
        let (sequence, message) = (Sequence(sequence), Arc::new(message));
        InboxEvent { sequence, message, qos: Qos::AtLeastOnce, retain: false, attempt: 3, replayed: false }
    }

    fn kept(recent: &RecentEvents) -> Vec<u64> {
        recent.list().iter().map(|event| event.sequence.0).collect()
    }

    #[test]
    fn the_oldest_go_first_by_number_and_by_bytes() {
        let mut recent = RecentEvents::new(3, 1_000);
        (1..=4).for_each(|sequence| recent.push(&event(sequence, 10)));
        assert_eq!(kept(&recent), [2, 3, 4]);
        recent.push(&event(5, 750));
        assert_eq!(kept(&recent), [4, 5]);
        recent.push(&event(6, 2_000));
        assert_eq!(kept(&recent), [4, 5], "what has no room at all is passed over");
        assert!(recent.list().iter().all(|event| event.attempt == 0));
    }

    #[test]
    fn nothing_is_kept_where_nothing_is_wanted() {
        let mut recent = RecentEvents::new(0, 1_000);
        recent.push(&event(1, 10));
        assert_eq!(kept(&recent), [0; 0]);
    }
}
