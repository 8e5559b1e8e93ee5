//! The broker: one match, one method per input.
//!
//! The methods stand in `broker/`, by what they are about. They share one manner: an input changes the state, records
//! each [`Change`](crate::Change) at the place where the state changes, and pushes effects, in order. Nothing here
//! fails.
//!
//! Invariants (checked by [`Broker::check_invariants`]): a session without a connection is durable or a plugin's; each
//! deadline belongs to a session that names it.

mod acknowledge;
mod backlog;
mod connect;
mod deadlines;
mod deliver;
mod disconnect;
mod fanout;
mod inbox;
mod invariants;
mod news;
mod packet_size;
mod plugin;
mod probation;
mod publish;
mod restore;
mod retain;
mod shared;
mod stored;
mod subscribe;
mod timers;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::event::{
    ChangeNumber, ConnectionId, Effect, Effects, Input, Lanes, PluginName, ReasonCode, Revision, SessionId,
};
use crate::key::SessionKey;
use crate::limits::Limits;
use crate::message::{Message, Timestamp};
use crate::retained::Retained;
use crate::session::inbox::Inbox;
use crate::session::{Session, Sessions};
use crate::subscriptions::Subscriptions;
use crate::topic::Topic;
use deadlines::Deadline;
use fanout::FanOuts;
use news::News;
use publish::Routing;
use stored::Identifiers;

/// The broker.
#[derive(Debug)]
pub struct Broker {
    /// The bounds.
    limits: Limits,
    /// Seed of all hash tables.
    seed: u64,
    /// Every session, of clients and of plugins.
    sessions: Sessions,
    /// The session on each connection.
    connections: HashMap<ConnectionId, SessionKey, FixedState>,
    /// The session of each client.
    clients: HashMap<Arc<str>, SessionKey, FixedState>,
    /// The session of each plugin.
    plugins: BTreeMap<PluginName, SessionKey>,
    /// Who subscribes to what.
    subscriptions: Subscriptions,
    /// Retained messages.
    retained: Retained,
    /// Identifiers of sessions, messages and queue entries.
    identifiers: Identifiers,
    /// What falls due when.
    deadlines: BTreeSet<(Timestamp, Deadline)>,
    /// Plugins that wait for events and have got some in this turn.
    woken: Vec<SessionKey>,
    /// Sessions to which more retained messages can be sent in the next turn.
    greeting: Vec<SessionKey>,
    /// Messages that are still to be given to some of their many subscribers.
    fan_outs: FanOuts,
    /// Number of the last removal of a session from disk: until it is durable, nobody may be told that a session is
    /// new.
    last_session_removal: ChangeNumber,
    /// Loads asked for; tells them apart.
    loads: u32,
    /// Whether nothing can be made durable at present.
    storage_failed: bool,
    /// State of the generator behind [`SharedStrategy::Random`](crate::SharedStrategy::Random).
    random: u64,
    /// What has happened in this input and is to be told to those who observe; empty between inputs.
    news: Vec<News>,
    /// Memory for routing, reused.
    routing: Routing,
}

/// How much the broker holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Statistics {
    /// Clients connected.
    pub connections: usize,
    /// Sessions of clients, connected or not.
    pub sessions: usize,
    /// Subscriptions of clients and plugins.
    pub subscriptions: usize,
    /// Retained messages.
    pub retained_messages: usize,
    /// Weight of the retained messages in bytes.
    pub retained_bytes: usize,
    /// QoS 1 and 2 messages sent to clients and not acknowledged.
    pub inflight_messages: usize,
    /// Messages in clients' queues beyond those in flight.
    pub queued_messages: u64,
    /// Weight of the messages in clients' queues, in bytes.
    pub queued_bytes: u64,
    /// Plugins deployed.
    pub plugins: usize,
    /// Events in all inboxes.
    pub inbox_events: usize,
}

/// A deployed plugin.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PluginStatus<'a> {
    /// Its name.
    pub plugin: &'a PluginName,
    /// Its session, which names its inbox and its state on disk.
    pub session: SessionId,
    /// Its active revision.
    pub revision: &'a Revision,
    /// The generation of its state in use.
    pub state: SessionId,
    /// The revision to which its probation may go back, if it is on one, and how many events it has handled on it.
    pub probation: Option<(&'a Revision, usize)>,
    /// How its events are spread.
    pub lanes: Lanes,
    /// Timers set, and requests that wait for an answer.
    pub timers: usize,
    /// Events in its inbox, those that are out included.
    pub inbox_events: usize,
    /// Weight of these events in bytes.
    pub inbox_bytes: usize,
    /// Keys of which an event failed and waits for its next attempt.
    pub retrying: usize,
    /// Dead letters kept.
    pub dead_letters: usize,
    /// Whether a batch is out.
    pub busy: bool,
}

impl Broker {
    /// An empty broker. `seed` decides the layout of hash tables, which untrusted strings must not be able to foresee.
    pub fn new(limits: Limits, seed: u64) -> Self {
        let hasher = FixedState::with_seed(seed);
        Self {
            limits,
            seed,
            sessions: Sessions::default(),
            connections: HashMap::with_hasher(hasher.clone()),
            clients: HashMap::with_hasher(hasher),
            plugins: BTreeMap::new(),
            subscriptions: Subscriptions::new(seed),
            retained: Retained::new(),
            identifiers: Identifiers::default(),
            deadlines: BTreeSet::new(),
            woken: Vec::new(),
            greeting: Vec::new(),
            fan_outs: FanOuts::default(),
            last_session_removal: ChangeNumber(0),
            loads: 0,
            storage_failed: false,
            random: seed,
            news: Vec::new(),
            routing: Routing::default(),
        }
    }

    /// Does what an input asks. What `effects` already holds stays; `now` is the time of the input.
    pub fn handle(&mut self, now: Timestamp, input: Input, effects: &mut Effects) {
        let before = effects.last_change();
        match input {
            Input::Started => self.start(now, effects),
            Input::Connect { connection, connect } => self.connect(now, connection, *connect, effects),
            Input::Publish { connection, publish } => {
                if let Some(key) = self.session_on(connection) {
                    self.publish(now, key, publish, effects);
                }
            }
            Input::Acknowledge { connection, packet_id, step, reason } => {
                if let Some(key) = self.session_on(connection) {
                    self.acknowledge(now, key, packet_id, (step, reason), effects);
                }
            }
            Input::Subscribe { connection, subscribe } => {
                if let Some(key) = self.session_on(connection) {
                    self.subscribe(now, key, *subscribe, effects);
                }
            }
            Input::Unsubscribe { connection, packet_id, filters } => {
                if let Some(key) = self.session_on(connection) {
                    self.unsubscribe(key, packet_id, &filters, effects);
                }
            }
            Input::Disconnect { connection, disconnect } => {
                if let Some(key) = self.session_on(connection) {
                    self.disconnect(now, key, disconnect, effects);
                }
            }
            Input::ConnectionLost { connection } => {
                if let Some(key) = self.session_on(connection) {
                    self.lose_connection(now, key, "lost", effects);
                }
            }
            Input::Written { connection, bytes } => {
                if let Some(key) = self.session_on(connection) {
                    self.written(now, key, bytes, effects);
                }
            }
            Input::Tick => self.tick(now, effects),
            Input::ActivatePlugin { plugin, activation } => self.activate_plugin(now, plugin, *activation, effects),
            Input::RemovePlugin { plugin } => self.remove_plugin(plugin, effects),
            Input::TakeEvents { plugin, lane, max } => self.take_events(now, &plugin, lane, max, effects),
            Input::CancelTake { plugin, lane } => self.cancel_take(plugin, lane, effects),
            Input::Settle { plugin, lane, settlement } => self.settle(now, plugin, lane, *settlement, effects),
            Input::ReturnEvents { plugin, lane } => self.return_events(&plugin, lane),
            Input::Commit { plugin, ticket, settlement } => self.commit(now, plugin, ticket, *settlement, effects),
            Input::ArrangeLanes { plugin, lanes } => self.arrange_lanes(plugin, lanes, effects),
            Input::ChangeDeadLetters { plugin, letters } => self.change_dead_letters(now, plugin, letters, effects),
            Input::Generation { plugin, step } => self.step_generation(plugin, step, effects),
            Input::EndProbation { plugin, verdict } => self.end_probation(now, &plugin, verdict, effects),
            Input::Loaded { ticket, entries } => self.loaded(now, ticket, entries, effects),
            Input::StorageFailed => self.storage_failed = true,
            Input::StorageRecovered => self.recover_storage(effects),
        }
        if !self.news.is_empty() {
            self.tell_news(now, before, effects);
        }
    }

    /// How much the broker holds; walks all sessions.
    pub fn statistics(&self) -> Statistics {
        let mut statistics = Statistics {
            connections: self.connections.len(),
            sessions: self.clients.len(),
            subscriptions: self.subscriptions.len(),
            retained_messages: self.retained.len(),
            retained_bytes: self.retained.bytes(),
            plugins: self.plugins.len(),
            ..Statistics::default()
        };
        for (_, session) in self.sessions.iter() {
            statistics.inflight_messages += session.outbound.in_flight();
            statistics.queued_messages += session.outbound.queued();
            statistics.queued_bytes += session.outbound.queued_bytes();
            statistics.inbox_events += session.inbox.as_ref().map_or(0, |inbox| inbox.len());
        }
        statistics
    }

    /// The plugins, by name.
    pub fn plugins(&self) -> impl Iterator<Item = PluginStatus<'_>> {
        self.plugins.values().filter_map(|&key| {
            let session = &self.sessions[key];
            let inbox = session.inbox.as_deref()?;
            Some(PluginStatus {
                plugin: &inbox.plugin,
                session: session.id,
                revision: &inbox.revision,
                state: inbox.state,
                probation: (inbox.probation.as_ref())
                    .map(|probation| (&probation.previous.revision, probation.handled.len())),
                lanes: inbox.arrangement(),
                timers: inbox.timers.len(),
                inbox_events: inbox.len(),
                inbox_bytes: inbox.bytes(),
                retrying: inbox.retrying(),
                dead_letters: inbox.dead_letters.len(),
                busy: inbox.is_out(),
            })
        })
    }

    /// The retained message of a topic.
    pub fn retained_message(&self, topic: &Topic) -> Option<Arc<Message>> {
        self.retained.find(topic).cloned()
    }

    fn session_on(&self, connection: ConnectionId) -> Option<SessionKey> {
        self.connections.get(&connection).copied()
    }

    /// Closes the connection of a session, for a reason that the client is told.
    fn close(&mut self, now: Timestamp, key: SessionKey, reason: ReasonCode, effects: &mut Effects) {
        if let Some(connection) = self.sessions[key].connection {
            effects.list.push(Effect::Close { connection, after: effects.held(), reason });
            self.lose_connection(now, key, &format!("closed by the broker: {reason:?}"), effects);
        }
    }
}

impl Session {
    /// The inbox of a plugin's session.
    fn plugin_inbox(&mut self) -> &mut Inbox {
        self.inbox.as_deref_mut().expect("a plugin's session has an inbox")
    }
}
