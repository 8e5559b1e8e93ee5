//! Retained messages: keeping the last one of a topic, and greeting new subscriptions with those that match.
//!
//! There may be more of them than any queue takes. So a client is sent as many as its connection takes, and the rest as
//! it reads; what has to survive for a durable session goes into its queue on disk at once.

use std::sync::Arc;

use super::Broker;
use super::deliver::Addressee;
use super::stored::Parcel;
use crate::event::{Change, DropReason, Effects, SubscriptionOptions};
use crate::key::SessionKey;
use crate::message::{Message, Qos, Timestamp};
use crate::session::Greeting;
use crate::topic::TopicFilter;

/// Retained messages that are looked up at a time.
const RETAINED_PER_STEP: usize = 64;

/// Retained messages that a session is sent before others have their turn.
const RETAINED_PER_TURN: usize = 512;

impl Broker {
    pub(super) fn retention_is_full(&self, message: &Message) -> bool {
        if !message.retain || message.payload.is_empty() {
            return false;
        }
        let (count, bytes) = match self.retained.find(&message.topic) {
            Some(replaced) => (self.retained.len() - 1, self.retained.bytes() - replaced.weight()),
            None => (self.retained.len(), self.retained.bytes()),
        };
        count >= self.limits.retained_messages || bytes + message.weight() > self.limits.retained_bytes
    }

    pub(super) fn retain(&mut self, message: &Arc<Message>, effects: &mut Effects) {
        if message.payload.is_empty() {
            if self.retained.remove(&message.topic).is_some() {
                effects.record(Change::RetainedCleared { topic: message.topic.clone() });
            }
        } else if self.retention_is_full(message) {
            effects.drop_counted(DropReason::RetainedFull, 1);
        } else if self.storage_failed {
            effects.drop_counted(DropReason::StorageFailed, 1);
        } else {
            self.retained.insert(message.clone());
            self.retained.rests_on = self.retained.rests_on.max(effects.held_later());
            effects.record(Change::Retained { message: message.clone() });
        }
    }

    /// Sends the retained messages that match a new subscription; none for a shared one (section 3.8.4).
    pub(super) fn greet(
        &mut self,
        now: Timestamp,
        key: SessionKey,
        filter: TopicFilter,
        options: SubscriptionOptions,
        effects: &mut Effects,
    ) {
        if filter.shared().is_some() || !self.sessions[key].subscriptions.contains_key(&filter) {
            return;
        }
        let session = &self.sessions[key];
        if session.inbox.is_some() {
            for message in self.retained.matching(&filter, None, now, self.limits.inbox_events) {
                self.send_retained(now, key, &filter, message, effects);
            }
            return;
        }
        if session.durable && options.maximum_qos != Qos::AtMostOnce {
            for message in self.retained.matching(&filter, None, now, self.limits.queued_messages) {
                if message.qos != Qos::AtMostOnce {
                    self.send_retained(now, key, &filter, message, effects);
                }
            }
        }
        let session = &mut self.sessions[key];
        session.greetings.retain(|greeting| greeting.filter != filter);
        session.greetings.push_back(Greeting { filter, after: None });
        self.go_on_greeting(now, key, effects);
    }

    /// Sends retained messages as far as there is room and nothing else waits.
    pub(super) fn go_on_greeting(&mut self, now: Timestamp, key: SessionKey, effects: &mut Effects) {
        for _ in 0..RETAINED_PER_TURN / RETAINED_PER_STEP {
            let Some(greeting) = self.sessions[key].greetings.front() else { return };
            let (filter, after) = (greeting.filter.clone(), greeting.after.clone());
            let found = self.retained.matching(&filter, after.as_ref(), now, RETAINED_PER_STEP);
            let is_last = found.len() < RETAINED_PER_STEP;
            for message in found {
                if !self.takes_retained(key) {
                    return;
                }
                let session = &mut self.sessions[key];
                if let Some(greeting) = session.greetings.front_mut() {
                    greeting.after = Some(message.topic.clone());
                }
                if !self.is_in_queue(key, &filter, &message) {
                    self.send_retained(now, key, &filter, message, effects);
                }
            }
            if is_last {
                self.sessions[key].greetings.pop_front();
            }
        }
        if !self.sessions[key].greetings.is_empty() {
            self.greeting.push(key);
        }
    }

    /// Whether a client takes one more retained message at once.
    fn takes_retained(&self, key: SessionKey) -> bool {
        let session = &self.sessions[key];
        session.connection.is_some()
            && session.outbound.is_drained()
            && session.unwritten_bytes < self.limits.unwritten_bytes
            && session.has_window(self.limits.inflight_messages)
    }

    /// Whether a retained message went into the session's queue when it subscribed.
    fn is_in_queue(&self, key: SessionKey, filter: &TopicFilter, message: &Message) -> bool {
        let session = &self.sessions[key];
        let options = session.subscriptions.get(filter).map(|&key| self.subscriptions.subscription(key).options);
        let maximum_qos = options.map_or(Qos::AtMostOnce, |options| options.maximum_qos);
        session.durable && message.qos.min(maximum_qos) != Qos::AtMostOnce
    }

    fn send_retained(
        &mut self,
        now: Timestamp,
        key: SessionKey,
        filter: &TopicFilter,
        message: Arc<Message>,
        effects: &mut Effects,
    ) {
        let session = &self.sessions[key];
        let Some(&subscription) = session.subscriptions.get(filter) else { return };
        let subscription = self.subscriptions.subscription(subscription);
        if subscription.options.no_local && session.client_id == message.publisher {
            return;
        }
        let qos = message.qos.min(subscription.options.maximum_qos);
        let identifiers = subscription.identifiers.clone();
        let to = Addressee { session: key, qos, retain: true, share: None, identifiers };
        let hold = effects.hold_upon(effects.recorded(self.retained.rests_on));
        self.deliver(now, to, &mut Parcel::new(message), effects);
        effects.let_hold(hold);
    }

    /// Goes on with those who were left for a later turn.
    pub(super) fn go_on_with_greetings(&mut self, now: Timestamp, effects: &mut Effects) {
        for key in std::mem::take(&mut self.greeting) {
            if self.sessions.get_mut(key).is_some_and(|session| !session.greetings.is_empty()) {
                self.go_on_greeting(now, key, effects);
            }
        }
    }
}
