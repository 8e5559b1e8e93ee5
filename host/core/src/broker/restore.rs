//! From changes back to a broker, and from a broker to the changes that make it.
//!
//! The changes are first folded into plain ordered maps ([`Durable`]), in which any order of independent changes comes to
//! the same; the broker is then built from what is left.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Broker;
use super::stored::Identifiers;
use crate::event::{
    Change, ChangeNumber, PacketId, PluginName, QueueEntry, Revision, Sequence, SessionId, SessionRecord,
    SubscriptionOptions,
};
use crate::key::SessionKey;
use crate::key::StoredKey;
use crate::limits::Limits;
use crate::message::{Message, MessageId, Timestamp};
use crate::session::Session;
use crate::session::inbox::{Event, Inbox};
use crate::session::outbound::{Entry, InFlight};
use crate::topic::{Topic, TopicFilter};

/// Everything durable.
#[derive(Debug, Default)]
struct Durable {
    /// Identifiers below this are used up.
    identifiers_below: u64,
    /// Sessions of clients and of plugins.
    sessions: BTreeMap<SessionId, DurableSession>,
    /// Messages that queues hold.
    messages: BTreeMap<MessageId, Arc<Message>>,
    /// Retained messages.
    retained: BTreeMap<Topic, Arc<Message>>,
    /// Plugins, with their sessions and active revisions.
    plugins: BTreeMap<PluginName, (SessionId, Revision)>,
}

/// A durable session, or that of a plugin.
#[derive(Debug, Default)]
struct DurableSession {
    /// What is known of it; `None` for a plugin's.
    record: Option<Box<SessionRecord>>,
    /// Its subscriptions.
    subscriptions: BTreeMap<TopicFilter, (SubscriptionOptions, Option<u32>)>,
    /// Its queue, with whether an entry is released.
    queue: BTreeMap<Sequence, (QueueEntry, bool)>,
    /// QoS 2 messages received and not released.
    received: BTreeSet<PacketId>,
    /// Numbers of its dead letters.
    dead_letters: BTreeSet<Sequence>,
}

impl Broker {
    /// The broker that made these changes. Hand it [`Input::Started`](crate::Input::Started) first.
    pub fn restore(limits: Limits, seed: u64, changes: impl IntoIterator<Item = Change>) -> Self {
        let mut durable = Durable::default();
        for change in changes {
            durable.apply(change);
        }
        let mut broker = Self::new(limits, seed);
        broker.identifiers = Identifiers::starting_at(durable.identifiers_below.max(1));
        for message in durable.retained.into_values() {
            broker.retained.insert(message);
        }
        let mut messages = BTreeMap::new();
        for (id, content) in durable.messages {
            messages.insert(id, broker.stored.insert(id, content));
        }
        let plugins: BTreeMap<SessionId, (PluginName, Revision)> =
            durable.plugins.into_iter().map(|(plugin, (session, revision))| (session, (plugin, revision))).collect();
        for (id, kept) in durable.sessions {
            match (&kept.record, plugins.get(&id)) {
                (_, Some(plugin)) => broker.restore_plugin(id, plugin, kept, &messages),
                (Some(record), None) => broker.restore_session(id, SessionRecord::clone(record), kept, &messages),
                (None, None) => {}
            }
        }
        broker.stored.forget_unreferenced();
        broker
    }
}

impl Broker {
    fn restore_session(
        &mut self,
        id: SessionId,
        record: SessionRecord,
        kept: DurableSession,
        messages: &BTreeMap<MessageId, StoredKey>,
    ) {
        let SessionRecord { client_id, session_expiry_s, disconnected_at, will } = record;
        let mut session = Session::new(id, client_id.clone());
        session.expiry_s = session_expiry_s;
        session.disconnected_at = disconnected_at;
        session.will = will;
        session.received = kept.received.iter().map(|&packet_id| (packet_id, ChangeNumber(0))).collect();
        for (sequence, (entry, released)) in kept.queue {
            let Some(&stored) = messages.get(&entry.message) else { continue };
            let message = self.stored.restore_reference(stored);
            let packet_id = entry.packet_id;
            let entry = Entry {
                message,
                sequence,
                stored: Some(stored),
                identifiers: entry.subscription_identifiers,
                qos: entry.qos,
                retain: entry.retain,
            };
            match packet_id {
                Some(packet_id) => {
                    session.outbound.restore_in_flight(InFlight { packet_id, released, counted: false, entry });
                }
                None => session.outbound.push_queued(entry),
            }
        }
        let key = self.sessions.insert(session);
        self.clients.insert(client_id, key);
        self.restore_subscriptions(key, kept.subscriptions);
        self.schedule_absence(key);
    }

    fn restore_plugin(
        &mut self,
        id: SessionId,
        (plugin, revision): &(PluginName, Revision),
        kept: DurableSession,
        messages: &BTreeMap<MessageId, StoredKey>,
    ) {
        let mut inbox = Inbox::new(plugin.clone(), revision.clone(), self.seed);
        inbox.dead_letters = kept.dead_letters;
        for (sequence, (entry, _)) in kept.queue {
            let Some(&stored) = messages.get(&entry.message) else { continue };
            inbox.push(Event {
                message: self.stored.restore_reference(stored),
                sequence,
                stored: Some(stored),
                qos: entry.qos,
                retain: entry.retain,
                attempt: 0,
                not_before: Timestamp(0),
            });
        }
        let mut session = Session::new(id, plugin.0.clone());
        session.inbox = Some(Box::new(inbox));
        let key = self.sessions.insert(session);
        self.plugins.insert(plugin.clone(), key);
        self.restore_subscriptions(key, kept.subscriptions);
    }

    fn restore_subscriptions(
        &mut self,
        key: SessionKey,
        subscriptions: BTreeMap<TopicFilter, (SubscriptionOptions, Option<u32>)>,
    ) {
        for (filter, (options, identifier)) in subscriptions {
            self.set_subscription(key, &filter, options, identifier);
        }
    }

    /// The shortest changes that make a broker equal to this one in everything durable, in an order that depends on
    /// nothing else. Of dead letters the broker knows only the numbers ([`Self::dead_letters`]); they are left out.
    pub fn durable_state(&self) -> Vec<Change> {
        let mut changes = vec![Change::IdentifiersReserved { below: self.identifiers.reserved_below() }];
        let messages: BTreeMap<MessageId, &Arc<Message>> =
            self.stored.iter().map(|stored| (stored.id, &stored.content)).collect();
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
        changes.extend(self.retained.iter().map(|message| Change::Retained { message: message.clone() }));
        changes
    }

    fn durable_session(&self, session: &Session, changes: &mut Vec<Change>) {
        let id = session.id;
        changes.push(match &session.inbox {
            Some(inbox) => {
                Change::PluginActivated { plugin: inbox.plugin.clone(), session: id, revision: inbox.revision.clone() }
            }
            None => Change::SessionStored { session: id, record: session.record() },
        });
        for (filter, &key) in &session.subscriptions {
            let subscription = self.subscriptions.subscription(key);
            let identifier = subscription.identifiers.as_ref().and_then(|identifiers| identifiers.first().copied());
            let (filter, options) = (filter.clone(), subscription.options);
            changes.push(Change::Subscribed { session: id, filter, options, identifier });
        }
        for (sequence, (entry, released)) in self.durable_queue(session) {
            changes.push(Change::Queued { session: id, sequence, entry });
            if released {
                changes.push(Change::Released { session: id, sequence });
            }
        }
        for &packet_id in session.received.keys() {
            changes.push(Change::Received { session: id, packet_id });
        }
    }

    /// What is on disk of a session's queue, with whether an entry is released.
    fn durable_queue(&self, session: &Session) -> BTreeMap<Sequence, (QueueEntry, bool)> {
        let queue_entry = |entry: &Entry, packet_id| {
            let stored = entry.stored?;
            let message = self.stored.get(stored).id;
            let subscription_identifiers = entry.identifiers.clone();
            let (qos, retain) = (entry.qos, entry.retain);
            Some((entry.sequence, QueueEntry { message, qos, retain, subscription_identifiers, packet_id }))
        };
        let mut queue = BTreeMap::new();
        for in_flight in session.outbound.iter_in_flight() {
            let entry = queue_entry(&in_flight.entry, Some(in_flight.packet_id));
            queue.extend(entry.map(|(sequence, entry)| (sequence, (entry, in_flight.released))));
        }
        for entry in session.outbound.iter_queued() {
            queue.extend(queue_entry(entry, None).map(|(sequence, entry)| (sequence, (entry, false))));
        }
        for event in session.inbox.iter().flat_map(|inbox| inbox.iter()) {
            let Some(stored) = event.stored else { continue };
            let entry = QueueEntry {
                message: self.stored.get(stored).id,
                qos: event.qos,
                retain: event.retain,
                subscription_identifiers: None,
                packet_id: None,
            };
            queue.insert(event.sequence, (entry, false));
        }
        queue
    }

    /// Numbers of the dead letters kept for a plugin, oldest first.
    pub fn dead_letters(&self, plugin: &PluginName) -> impl Iterator<Item = Sequence> {
        let inbox = self.plugins.get(plugin).and_then(|&key| self.sessions[key].inbox.as_ref());
        inbox.into_iter().flat_map(|inbox| inbox.dead_letters.iter().copied())
    }
}

impl Durable {
    fn apply(&mut self, change: Change) {
        match change {
            Change::IdentifiersReserved { below } => self.identifiers_below = below,
            Change::SessionStored { session, record } => self.session(session).record = Some(record),
            Change::SessionRemoved { session } => drop(self.sessions.remove(&session)),
            Change::Subscribed { session, filter, options, identifier } => {
                self.session(session).subscriptions.insert(filter, (options, identifier));
            }
            Change::Unsubscribed { session, filter } => drop(self.session(session).subscriptions.remove(&filter)),
            Change::MessageStored { message, content } => drop(self.messages.insert(message, content)),
            Change::MessageReleased { message } => drop(self.messages.remove(&message)),
            Change::Queued { session, sequence, entry } => {
                self.session(session).queue.insert(sequence, (entry, false));
            }
            Change::Sent { session, sequence, packet_id } => {
                if let Some((entry, _)) = self.session(session).queue.get_mut(&sequence) {
                    entry.packet_id = Some(packet_id);
                }
            }
            Change::Released { session, sequence } => {
                if let Some((_, released)) = self.session(session).queue.get_mut(&sequence) {
                    *released = true;
                }
            }
            Change::Dequeued { session, sequence } => drop(self.session(session).queue.remove(&sequence)),
            Change::Received { session, packet_id } => {
                self.session(session).received.insert(packet_id);
            }
            Change::ReceivedReleased { session, packet_id } => {
                self.session(session).received.remove(&packet_id);
            }
            Change::Retained { message } => drop(self.retained.insert(message.topic.clone(), message)),
            Change::RetainedCleared { topic } => drop(self.retained.remove(&topic)),
            Change::PluginActivated { plugin, session, revision } => {
                self.session(session);
                self.plugins.insert(plugin, (session, revision));
            }
            Change::PluginRemoved { plugin } => drop(self.plugins.remove(&plugin)),
            // The broker does not keep the state of plugins.
            Change::StateWritten { session: _, write: _ } => {}
            Change::DeadLettered { session, sequence, letter: _ } => {
                self.session(session).dead_letters.insert(sequence);
            }
            Change::DeadLetterDropped { session, sequence } => {
                self.session(session).dead_letters.remove(&sequence);
            }
        }
    }

    fn session(&mut self, session: SessionId) -> &mut DurableSession {
        self.sessions.entry(session).or_default()
    }
}
