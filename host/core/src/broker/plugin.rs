//! Plugins: their inboxes, and what handling a batch comes to.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Broker;
use super::deadlines::Deadline;
use super::deliver::Addressee;
use super::publish::Origin;
use super::stored::Parcel;
use crate::event::{
    Activation, Change, DeadLetter, DropReason, Effect, Effects, Lane, Outcome, PluginName, QueueEntry, ReasonCode,
    RetainHandling, Sequence, Settlement, SubscriptionOptions,
};
use crate::key::SessionKey;
use crate::message::{Message, Qos, Timestamp};
use crate::session::Session;
use crate::session::inbox::{Event, Inbox, Verdict};
use crate::topic::TopicFilter;

impl Broker {
    pub(super) fn activate_plugin(
        &mut self,
        now: Timestamp,
        plugin: PluginName,
        activation: Activation,
        effects: &mut Effects,
    ) {
        let Activation { revision, subscriptions, .. } = activation;
        let wanted: BTreeMap<TopicFilter, Qos> = subscriptions.into_iter().collect();
        let existing = self.plugins.get(&plugin).copied();
        if (existing.is_none() && self.plugins.len() >= self.limits.plugins)
            || wanted.len() > self.limits.subscriptions_per_session
        {
            effects.list.push(Effect::PluginRefused { plugin, reason: ReasonCode::QuotaExceeded });
            return;
        }
        let key = match existing {
            Some(key) => key,
            None => {
                let mut session = Session::new(self.identifiers.session(effects), plugin.0.clone());
                session.inbox = Some(Box::new(Inbox::new(plugin.clone(), revision.clone(), self.seed)));
                let key = self.sessions.insert(session);
                self.plugins.insert(plugin.clone(), key);
                key
            }
        };
        let session = self.sessions[key].id;
        self.sessions[key].plugin_inbox().revision = revision.clone();
        let number = revision.number;
        effects.record(Change::PluginActivated { plugin: plugin.clone(), session, revision, state: session, probation: None });
        let added = self.set_plugin_subscriptions(key, &wanted, effects);
        let after = effects.last_change();
        effects.list.push(Effect::PluginActivated { plugin, session, state: session, revision: number, after });
        for (filter, qos) in added {
            self.greet(now, key, filter.clone(), plugin_options(*qos), effects);
        }
    }

    /// Makes these the subscriptions of a plugin; gives those that are new.
    fn set_plugin_subscriptions<'a>(
        &mut self,
        key: SessionKey,
        wanted: &'a BTreeMap<TopicFilter, Qos>,
        effects: &mut Effects,
    ) -> Vec<(&'a TopicFilter, &'a Qos)> {
        let existing: Vec<TopicFilter> = self.sessions[key].subscriptions.keys().cloned().collect();
        for filter in existing.iter().filter(|filter| !wanted.contains_key(filter)) {
            self.remove_subscription(key, filter, effects);
        }
        let mut added = Vec::new();
        for (filter, qos) in wanted {
            let options = plugin_options(*qos);
            let current = self.sessions[key].subscriptions.get(filter);
            if current.is_some_and(|&current| self.subscriptions.subscription(current).options == options) {
                continue;
            }
            if let Ok(true) = self.add_subscription(key, filter, options, None, effects) {
                added.push((filter, qos));
            }
        }
        added
    }

    pub(super) fn remove_plugin(&mut self, plugin: PluginName, effects: &mut Effects) {
        let before = effects.last_change();
        if let Some(key) = self.plugins.remove(&plugin) {
            self.cancel_deadlines(key);
            let session = self.sessions.remove(key);
            for &subscription in session.subscriptions.values() {
                self.subscriptions.remove(subscription);
            }
            effects.record(Change::SessionRemoved { session: session.id });
            effects.record(Change::PluginRemoved { plugin: plugin.clone() });
            self.woken.retain(|&woken| woken != key);
            let count = session.inbox.map_or(0, |inbox| inbox.len() as u32);
            if count > 0 {
                effects.drop_counted(DropReason::PluginRemoved, count);
            }
        }
        effects.list.push(Effect::PluginRemoved { plugin, after: effects.since(before) });
    }

    pub(super) fn take_events(&mut self, now: Timestamp, plugin: &PluginName, _lane: Lane, max: usize, effects: &mut Effects) {
        if let Some(&key) = self.plugins.get(plugin) {
            self.sessions[key].plugin_inbox().demand = Some(max.max(1));
            self.serve(now, key, effects);
        }
    }

    pub(super) fn cancel_take(&mut self, plugin: PluginName, lane: Lane, effects: &mut Effects) {
        if let Some(&key) = self.plugins.get(&plugin) {
            let inbox = self.sessions[key].plugin_inbox();
            inbox.demand = None;
            if inbox.is_out() {
                return;
            }
            self.refresh_inbox(key);
        }
        effects.list.push(Effect::TakeCancelled { plugin, lane });
    }

    pub(super) fn return_events(&mut self, plugin: &PluginName, _lane: Lane) {
        if let Some(&key) = self.plugins.get(plugin) {
            self.sessions[key].plugin_inbox().put_back(|_| Verdict::Back);
            self.refresh_inbox(key);
        }
    }

    pub(super) fn settle(&mut self, now: Timestamp, plugin: PluginName, lane: Lane, settlement: Settlement, effects: &mut Effects) {
        let Some(&key) = self.plugins.get(&plugin) else { return };
        let before = effects.last_change();
        let session = self.sessions[key].id;
        let inbox = self.sessions[key].plugin_inbox();
        if !inbox.is_out() {
            return;
        }
        let Settlement { outcomes, publishes, writes, .. } = settlement;
        let outcomes: BTreeMap<Sequence, Outcome> = outcomes.into_iter().collect();
        let left = inbox.put_back(|event| match outcomes.get(&event.sequence) {
            Some(Outcome::Done | Outcome::DeadLetter(_)) => Verdict::Leave,
            Some(Outcome::RetryAt(at)) => Verdict::RetryAt(*at),
            None => Verdict::Back,
        });
        for event in left {
            if let Some(Outcome::DeadLetter(reason)) = outcomes.get(&event.sequence) {
                let (content, attempts) = (event.message.clone(), event.attempt.saturating_add(1));
                let letter = DeadLetter { content, reason: reason.clone(), attempts, at: now };
                self.bury(key, event.sequence, letter, effects);
            }
            self.let_go_event(key, &event, effects);
        }
        for write in writes {
            effects.record(Change::StateWritten { state: session, write, undo: false });
        }
        for message in publishes {
            let origin = Origin { session: Some(key), refusable: false };
            let _ = self.route(now, Arc::new(message), origin, effects);
        }
        effects.list.push(Effect::Settled { plugin, lane, after: effects.since(before) });
        self.refresh_inbox(key);
    }

    /// Keeps an event as a dead letter; the oldest makes room.
    fn bury(&mut self, key: SessionKey, sequence: Sequence, letter: DeadLetter, effects: &mut Effects) {
        let session = self.sessions[key].id;
        effects.record(Change::DeadLettered { session, sequence, letter });
        let limit = self.limits.dead_letters;
        let dead_letters = &mut self.sessions[key].plugin_inbox().dead_letters;
        dead_letters.insert(sequence);
        while dead_letters.len() > limit {
            let Some(sequence) = dead_letters.pop_first() else { break };
            effects.record(Change::DeadLetterDropped { session, sequence });
            effects.drop_counted(DropReason::DeadLettersFull, 1);
        }
    }

    fn let_go_event(&mut self, key: SessionKey, event: &Event, effects: &mut Effects) {
        if let Some(message) = event.stored {
            let (session, sequence) = (self.sessions[key].id, event.sequence);
            effects.record(Change::Dequeued { session, sequence, message });
        }
    }

    /// Whether a plugin's inbox takes one more event of this weight.
    pub(super) fn fits_inbox(&self, key: SessionKey, weight: usize) -> bool {
        self.sessions[key].inbox.as_ref().is_some_and(|inbox| {
            inbox.len() < self.limits.inbox_events && inbox.bytes() + weight <= self.limits.inbox_bytes
        })
    }

    pub(super) fn deliver_to_inbox(
        &mut self,
        now: Timestamp,
        to: &Addressee,
        parcel: &mut Parcel,
        effects: &mut Effects,
    ) {
        let key = to.session;
        if !self.fits_inbox(key, parcel.weight) {
            return self.overflow_inbox(now, to, &parcel.message, effects);
        }
        let sequence = self.identifiers.sequence(effects);
        let mut stored = None;
        if to.qos != Qos::AtMostOnce {
            let message = parcel.store(&mut self.identifiers, effects);
            let entry = QueueEntry {
                message,
                qos: to.qos,
                retain: to.retain,
                subscription_identifiers: None,
                packet_id: None,
                share: to.share,
                weight: parcel.noted_weight(),
                replayed: false,
            };
            effects.record(Change::Queued { session: self.sessions[key].id, sequence, entry });
            stored = Some(message);
        }
        let inbox = self.sessions[key].plugin_inbox();
        inbox.push(Event {
            message: parcel.message.clone(),
            sequence,
            stored,
            share: to.share,
            qos: to.qos,
            retain: to.retain,
            attempt: 0,
            not_before: Timestamp(0),
        });
        self.wake(key);
    }

    /// A message that nobody keeps for a full inbox: at QoS 1 and 2 it becomes a dead letter, unless it stays retained.
    fn overflow_inbox(&mut self, now: Timestamp, to: &Addressee, message: &Arc<Message>, effects: &mut Effects) {
        effects.drop_counted(DropReason::InboxFull, 1);
        if to.qos != Qos::AtMostOnce && !to.retain {
            let sequence = self.identifiers.sequence(effects);
            let reason = "the inbox is full".into();
            let letter = DeadLetter { content: message.clone(), reason, attempts: 0, at: now };
            self.bury(to.session, sequence, letter, effects);
        }
    }

    /// Notes that a plugin that waits for events has got some.
    fn wake(&mut self, key: SessionKey) {
        let inbox = self.sessions[key].plugin_inbox();
        if inbox.demand.is_some() && !inbox.is_out() && !inbox.woken {
            inbox.woken = true;
            self.woken.push(key);
        }
    }

    pub(super) fn serve_woken(&mut self, now: Timestamp, effects: &mut Effects) {
        for key in std::mem::take(&mut self.woken) {
            self.sessions[key].plugin_inbox().woken = false;
            self.serve(now, key, effects);
        }
    }

    /// Hands out a batch if the plugin waits for one and there is one.
    pub(super) fn serve(&mut self, now: Timestamp, key: SessionKey, effects: &mut Effects) {
        let inbox = self.sessions[key].plugin_inbox();
        if let Some(max) = inbox.demand.filter(|_| !inbox.is_out()) {
            let taken = inbox.take(now, max, self.limits.batch_bytes);
            if !taken.events.is_empty() {
                inbox.demand = None;
                let plugin = inbox.plugin.clone();
                effects.list.push(Effect::Events { plugin, lane: Lane(0), events: taken.events });
            }
            for event in &taken.expired {
                self.let_go_event(key, event, effects);
                effects.drop_counted(DropReason::Expired, 1);
            }
        }
        self.refresh_inbox(key);
    }

    /// Sees to it that the broker looks at an inbox when it has something to hand out.
    fn refresh_inbox(&mut self, key: SessionKey) {
        let inbox = self.sessions[key].plugin_inbox();
        let waits = inbox.demand.is_some() && !inbox.is_out();
        let wanted = if waits { inbox.next_due() } else { None };
        let has_ready = inbox.has_ready();
        let current = std::mem::replace(&mut inbox.deadline, wanted);
        if current != wanted {
            if let Some(at) = current {
                self.deadlines.remove(&(at, Deadline::Retry(key)));
            }
            self.deadlines.extend(wanted.map(|at| (at, Deadline::Retry(key))));
        }
        if has_ready {
            self.wake(key);
        }
    }
}

/// Options of a plugin's subscriptions. It may hear what it publishes itself.
fn plugin_options(maximum_qos: Qos) -> SubscriptionOptions {
    SubscriptionOptions {
        maximum_qos,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::IfNew,
    }
}
