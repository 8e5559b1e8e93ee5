//! A session: what the broker keeps of one client, or of one plugin, across connections.
//!
//! Sessions live in a slab and are named by a [`SessionKey`] while the process lives; [`SessionId`] is the name that
//! goes to disk. A session is durable exactly when it outlives its connection. Invariant: a session that is not durable
//! has a connection.

pub(crate) mod inbox;
pub(crate) mod outbound;
pub(crate) mod window;

use std::collections::{BTreeMap, VecDeque};
use std::ops::{Index, IndexMut};
use std::sync::Arc;

use slab::Slab;

use crate::event::{
    ChangeNumber, ConnectionId, PacketId, Protocol, SessionId, SessionRecord, SubscriptionRecord, Will,
};
use crate::key::{SessionKey, SubscriptionKey};
use crate::message::Timestamp;
use crate::topic::{Topic, TopicFilter};
use inbox::Inbox;
use outbound::Outbound;

/// All sessions, by key.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    /// The sessions, each at the index that its key holds.
    slab: Slab<Session>,
    /// How many there have been.
    born: u64,
}

/// A subscription whose retained messages have not all been sent.
#[derive(Debug)]
pub(crate) struct Greeting {
    /// What was subscribed to.
    pub(crate) filter: TopicFilter,
    /// The last topic of which the message was sent.
    pub(crate) after: Option<Topic>,
}

/// One session.
#[derive(Debug)]
pub(crate) struct Session {
    /// Its name on disk; 0 if it is not durable.
    pub(crate) id: SessionId,
    /// Client identifier; the plugin's name for a plugin.
    pub(crate) client_id: Arc<str>,
    /// Whether it is on disk.
    pub(crate) durable: bool,
    /// How many sessions there had been before: tells it from others that had its key.
    pub(crate) born: u64,
    /// The client's protocol on the latest connection.
    pub(crate) protocol: Protocol,
    /// The connection that its client is on.
    pub(crate) connection: Option<ConnectionId>,
    /// QoS 1 and 2 messages that may be under way: the lower of the client's Receive Maximum and our own bound.
    pub(crate) receive_maximum: u16,
    /// Largest packet the client takes.
    pub(crate) maximum_packet_size: Option<u32>,
    /// Weight of the publishes handed to the connection and not yet written.
    pub(crate) unwritten_bytes: usize,
    /// What is under way to the client, and what waits.
    pub(crate) outbound: Outbound,
    /// What is in memory alone for it rests on no change beyond this one: messages in its queue, those that others get
    /// if it leaves, events of a plugin.
    pub(crate) rests_on: ChangeNumber,
    /// QoS 2 messages that the client sent and has not released, each with the change that its PUBREC rests on.
    pub(crate) received: BTreeMap<PacketId, ChangeNumber>,
    /// What it subscribes to.
    pub(crate) subscriptions: BTreeMap<TopicFilter, SubscriptionKey>,
    /// Subscriptions whose retained messages have not all been sent.
    pub(crate) greetings: VecDeque<Greeting>,
    /// Number of its latest shared subscription; 0 before the first.
    pub(crate) last_share: u16,
    /// The routing in which this session was last chosen.
    pub(crate) chosen_in: u64,
    /// Its place among the targets then.
    pub(crate) chosen_at: u32,
    /// Seconds that it outlives a connection; `u32::MAX` for ever.
    pub(crate) expiry_s: u32,
    /// Since when it has no client; `None` while connected.
    pub(crate) disconnected_at: Option<Timestamp>,
    /// The will that is still to be published or cancelled.
    pub(crate) will: Option<Box<Will>>,
    /// When the will is published, if the client does not come back before.
    pub(crate) will_at: Option<Timestamp>,
    /// When the session ends, if the client does not come back before.
    pub(crate) expires_at: Option<Timestamp>,
    /// Set exactly for a session that has ended and is kept until others have what it leaves: its subscriptions.
    pub(crate) heirs: Option<BTreeMap<TopicFilter, SubscriptionRecord>>,
    /// Set exactly for a plugin's session: it has an inbox in place of a client.
    pub(crate) inbox: Option<Box<Inbox>>,
}

impl Sessions {
    /// Takes a session in.
    pub(crate) fn insert(&mut self, mut session: Session) -> SessionKey {
        session.born = self.born;
        self.born += 1;
        SessionKey::new(self.slab.insert(session))
    }

    /// Takes a session out; it must exist.
    pub(crate) fn remove(&mut self, key: SessionKey) -> Session {
        let session = self.slab.remove(key.index());
        // Once for each halving at the most, since it looks at all.
        let len = self.slab.len();
        if self.slab.capacity() > 1024 && len * 4 <= self.slab.capacity() && (len == 0 || len.is_power_of_two()) {
            self.slab.shrink_to_fit();
        }
        session
    }

    /// A session, if there is one under this key.
    pub(crate) fn get_mut(&mut self, key: SessionKey) -> Option<&mut Session> {
        self.slab.get_mut(key.index())
    }

    /// How many there have been; a session that is there now was born before.
    pub(crate) fn born(&self) -> u64 {
        self.born
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.slab.len()
    }

    /// All of them, in the order of their keys.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (SessionKey, &Session)> {
        self.slab.iter().map(|(index, session)| (SessionKey::new(index), session))
    }
}

impl Index<SessionKey> for Sessions {
    type Output = Session;

    fn index(&self, key: SessionKey) -> &Session {
        &self.slab[key.index()]
    }
}

impl IndexMut<SessionKey> for Sessions {
    fn index_mut(&mut self, key: SessionKey) -> &mut Session {
        &mut self.slab[key.index()]
    }
}

impl Session {
    /// A session without a connection, subscriptions or messages.
    pub(crate) fn new(id: SessionId, client_id: Arc<str>) -> Self {
        Self {
            id,
            client_id,
            durable: id != SessionId(0),
            born: 0,
            protocol: Protocol::V5,
            connection: None,
            receive_maximum: u16::MAX,
            maximum_packet_size: None,
            unwritten_bytes: 0,
            outbound: Outbound::default(),
            rests_on: ChangeNumber(0),
            received: BTreeMap::new(),
            subscriptions: BTreeMap::new(),
            greetings: VecDeque::new(),
            last_share: 0,
            chosen_in: 0,
            chosen_at: 0,
            expiry_s: 0,
            disconnected_at: None,
            will: None,
            will_at: None,
            expires_at: None,
            heirs: None,
            inbox: None,
        }
    }

    /// Something comes to be in memory alone, and rests on this change.
    pub(crate) fn rest_upon(&mut self, change: ChangeNumber) {
        self.rests_on = self.rests_on.max(change);
    }

    /// What is kept of it on disk.
    pub(crate) fn record(&self) -> Box<SessionRecord> {
        Box::new(SessionRecord {
            client_id: self.client_id.clone(),
            session_expiry_s: self.expiry_s,
            disconnected_at: self.disconnected_at,
            will: self.will.clone(),
        })
    }
}
