//! From changes back to a broker, and from a broker to the changes that make it.
//!
//! The queues of clients stay on disk: what comes back of them is how much they hold.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Broker;
use super::stored::Identifiers;
use crate::event::{
    Change, ChangeNumber, PluginName, QueueEntry, Sequence, SessionId, SessionRecord, SubscriptionRecord,
};
use crate::key::SessionKey;
use crate::ledger::{KeptPlugin, KeptSession, Ledger};
use crate::limits::Limits;
use crate::message::{Message, MessageId, Timestamp};
use crate::session::Session;
use crate::session::inbox::{Event, Inbox, Probation};
use crate::topic::TopicFilter;

impl Broker {
    /// The broker that made these changes. Hand it [`Input::Started`](crate::Input::Started) first.
    pub fn restore(limits: Limits, seed: u64, changes: impl IntoIterator<Item = Change>) -> Self {
        let mut ledger = Ledger::default();
        changes.into_iter().for_each(|change| ledger.apply(change));
        let mut broker = Self::new(limits, seed);
        broker.identifiers = Identifiers::starting_at(ledger.identifiers_below.max(1));
        for message in ledger.retained.into_values() {
            broker.retained.insert(message);
        }
        let mut plugins: BTreeMap<SessionId, (PluginName, KeptPlugin)> =
            ledger.plugins.into_iter().map(|(plugin, kept)| (kept.session, (plugin, kept))).collect();
        for (id, mut kept) in ledger.sessions {
            match (kept.record.take(), plugins.remove(&id)) {
                (_, Some(plugin)) => broker.restore_plugin(plugin, kept, &ledger.messages),
                (Some(record), None) => broker.restore_session(id, *record, kept),
                (None, None) => {}
            }
        }
        broker
    }
}

impl Broker {
    fn restore_session(&mut self, id: SessionId, record: SessionRecord, kept: KeptSession) {
        let (messages, bytes) = kept.length();
        let SessionRecord { client_id, session_expiry_s, disconnected_at, will } = record;
        let mut session = Session::new(id, client_id.clone());
        session.expiry_s = session_expiry_s;
        session.disconnected_at = disconnected_at;
        session.will = will;
        session.received = kept.received.iter().map(|&packet_id| (packet_id, ChangeNumber(0))).collect();
        session.outbound.restore_backlog(messages, bytes);
        if client_id.is_empty() {
            session.heirs = Some(kept.subscriptions);
            self.sessions.insert(session);
            return;
        }
        let key = self.sessions.insert(session);
        self.clients.insert(client_id, key);
        self.restore_subscriptions(key, kept.subscriptions);
        self.schedule_absence(key);
    }

    fn restore_plugin(
        &mut self,
        (plugin, found): (PluginName, KeptPlugin),
        kept: KeptSession,
        messages: &BTreeMap<MessageId, (Arc<Message>, u64)>,
    ) {
        let KeptPlugin { session: id, revision, state, probation, generation } = found;
        let event = |sequence: Sequence, entry: QueueEntry| {
            let (message, _) = messages.get(&entry.message)?;
            Some(Event {
                message: message.clone(),
                sequence,
                stored: Some(entry.message),
                share: entry.share,
                qos: entry.qos,
                retain: entry.retain,
                attempt: 0,
                not_before: Timestamp(0),
                replayed: entry.replayed,
            })
        };
        let mut inbox = Inbox::new(plugin.clone(), revision, id, self.seed);
        inbox.state = state;
        inbox.generation = generation;
        inbox.dead_letters = kept.dead_letters.into_keys().collect();
        for event in kept.queue.into_iter().filter_map(|(sequence, (entry, _))| event(sequence, entry)) {
            inbox.push(event);
        }
        if let Some(previous) = probation {
            let mut probation = Probation::new(*previous);
            let handled = kept.handled.into_iter().filter_map(|(sequence, entry)| event(sequence, entry));
            handled.for_each(|event| probation.keep(event));
            inbox.probation = Some(Box::new(probation));
        }
        for (name, timer) in kept.timers {
            inbox.timers.set(name, timer);
        }
        let mut session = Session::new(id, plugin.0.clone());
        session.inbox = Some(Box::new(inbox));
        let key = self.sessions.insert(session);
        self.plugins.insert(plugin, key);
        self.restore_subscriptions(key, kept.subscriptions);
        self.refresh_timers(key);
    }

    fn restore_subscriptions(&mut self, key: SessionKey, subscriptions: BTreeMap<TopicFilter, SubscriptionRecord>) {
        for (filter, subscription) in subscriptions {
            let last_share = &mut self.sessions[key].last_share;
            *last_share = subscription.share.map_or(*last_share, |share| share.0.get().max(*last_share));
            self.set_subscription(key, &filter, subscription);
        }
    }

    /// The shortest changes that make a broker equal to this one in everything durable, in an order that depends on
    /// nothing else: what [`Ledger::changes`] says of the changes that this broker made. Of dead letters the broker
    /// knows only the numbers ([`Self::dead_letters`]); they are left out.
    pub fn durable_state(&self) -> Vec<Change> {
        let mut changes = vec![Change::IdentifiersReserved { below: self.identifiers.reserved_below() }];
        let inboxes = self.sessions.iter().filter_map(|(_, session)| session.inbox.as_deref());
        let events = inboxes.flat_map(|inbox| inbox.iter().chain(inbox.handled()));
        let messages: BTreeMap<MessageId, &Arc<Message>> =
            events.filter_map(|event| Some((event.stored?, &event.message))).collect();
        let stored = messages.into_iter();
        changes.extend(stored.map(|(message, content)| Change::MessageStored { message, content: content.clone() }));
        let sessions: BTreeMap<SessionId, &Session> = self
            .sessions
            .iter()
            .filter(|(_, session)| session.durable)
            .map(|(_, session)| (session.id, session))
            .collect();
        for session in sessions.into_values() {
            self.durable_session(session, &mut changes);
        }
        let retained: BTreeSet<_> = self.retained.iter().map(|message| &message.topic).collect();
        let retained = retained.into_iter().filter_map(|topic| self.retained.find(topic));
        changes.extend(retained.map(|message| Change::Retained { message: message.clone() }));
        changes
    }

    fn durable_session(&self, session: &Session, changes: &mut Vec<Change>) {
        let id = session.id;
        match &session.inbox {
            Some(inbox) => {
                let (plugin, revision, state) = (inbox.plugin.clone(), inbox.revision.clone(), inbox.state);
                let probation = inbox.probation.as_ref().map(|probation| Box::new(probation.previous.clone()));
                changes.push(Change::PluginActivated { plugin, session: id, revision, state, probation });
                let plugin = &inbox.plugin;
                let begun = |state| Change::GenerationBegun { plugin: plugin.clone(), state };
                changes.extend(inbox.generation.map(begun));
            }
            None => changes.push(Change::SessionStored { session: id, record: session.record() }),
        }
        let heirs = session.heirs.iter().flat_map(|heirs| heirs.iter());
        let heirs = heirs.map(|(filter, subscription)| (filter.clone(), *subscription));
        let own = session.subscriptions.iter();
        let own = own.map(|(filter, &key)| (filter.clone(), self.subscriptions.subscription(key).record()));
        changes.extend(heirs.chain(own).map(|(filter, subscription)| Change::Subscribed {
            session: id,
            filter,
            subscription,
        }));
        match &session.inbox {
            Some(inbox) => {
                let timers = inbox.timers.iter().map(|(name, timer)| (name.clone(), timer.clone()));
                changes.extend(timers.map(|(name, timer)| Change::TimerSet { session: id, name, timer }));
                let events: BTreeMap<Sequence, QueueEntry> =
                    inbox.iter().chain(inbox.handled()).filter_map(inbox_entry).collect();
                let events = events.into_iter();
                changes.extend(events.map(|(sequence, entry)| Change::Queued { session: id, sequence, entry }));
                let handled: BTreeSet<Sequence> = inbox.handled().map(|event| event.sequence).collect();
                changes.extend(handled.into_iter().map(|sequence| Change::Kept { session: id, sequence }));
            }
            None => {
                let (messages, bytes) = session.outbound.on_disk();
                changes.extend((messages > 0).then_some(Change::QueueKept { session: id, messages, bytes }));
            }
        }
        for &packet_id in session.received.keys() {
            changes.push(Change::Received { session: id, packet_id });
        }
    }

    /// Numbers of the dead letters kept for a plugin, oldest first.
    pub fn dead_letters(&self, plugin: &PluginName) -> impl Iterator<Item = Sequence> {
        let inbox = self.plugins.get(plugin).and_then(|&key| self.sessions[key].inbox.as_ref());
        inbox.into_iter().flat_map(|inbox| inbox.dead_letters.iter().copied())
    }
}

/// What is on disk of an event.
fn inbox_entry(event: &Event) -> Option<(Sequence, QueueEntry)> {
    let entry = QueueEntry {
        message: event.stored?,
        qos: event.qos,
        retain: event.retain,
        subscription_identifiers: None,
        packet_id: None,
        share: event.share,
        weight: u32::try_from(event.message.weight()).unwrap_or(u32::MAX),
        replayed: event.replayed,
    };
    Some((event.sequence, entry))
}
