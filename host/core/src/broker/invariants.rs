//! What must be true of a broker between two inputs; for tests and simulations.

use std::collections::{BTreeMap, BTreeSet};

use super::Broker;
use super::deadlines::Deadline;
use crate::key::SessionKey;
use crate::message::{MessageId, Timestamp};
use crate::session::Session;

impl Broker {
    /// Panics where an invariant does not hold. Walks everything.
    pub fn check_invariants(&self) {
        self.subscriptions.check_invariants();
        self.retained.check_invariants();
        let mut references: BTreeMap<MessageId, u32> = BTreeMap::new();
        let mut deadlines = BTreeSet::new();
        let mut connections = 0;
        for (key, session) in self.sessions.iter() {
            self.check_session(key, session);
            connections += usize::from(session.connection.is_some());
            let in_flight = session.outbound.iter_in_flight().map(|in_flight| &in_flight.entry);
            let entries = in_flight.chain(session.outbound.iter_queued()).filter_map(|entry| entry.stored);
            let events = session.inbox.iter().flat_map(|inbox| inbox.iter()).filter_map(|event| event.stored);
            for stored in entries.chain(events) {
                *references.entry(self.stored.get(stored).id).or_default() += 1;
            }
            let retry = session.inbox.as_ref().and_then(|inbox| inbox.deadline);
            let own = [
                session.will_at.map(|at| (at, Deadline::Will(key))),
                session.expires_at.map(|at| (at, Deadline::Expiry(key))),
                retry.map(|at| (at, Deadline::Retry(key))),
            ];
            deadlines.extend(own.into_iter().flatten());
        }
        let counted: BTreeMap<MessageId, u32> =
            self.stored.iter().map(|stored| (stored.id, stored.references)).collect();
        assert_eq!(references, counted, "durable messages count their references");
        assert_eq!(deadlines, self.deadlines);
        assert_eq!(connections, self.connections.len());
        assert_eq!(self.sessions.len(), self.clients.len() + self.plugins.len());
        assert!(self.connections.len() <= self.limits.connections);
        assert!(self.clients.len() <= self.limits.sessions);
        assert!(self.plugins.len() <= self.limits.plugins);
        assert!(self.retained.len() <= self.limits.retained_messages);
        assert!(self.retained.bytes() <= self.limits.retained_bytes);
    }

    fn check_session(&self, key: SessionKey, session: &Session) {
        session.outbound.check_invariants();
        assert_eq!(session.durable, session.id.0 != 0);
        assert!(session.subscriptions.len() <= self.limits.subscriptions_per_session);
        if let Some(inbox) = &session.inbox {
            inbox.check_invariants();
            assert_eq!(self.plugins.get(&inbox.plugin), Some(&key));
            assert!(session.durable && session.connection.is_none() && session.outbound.is_drained());
            assert!(inbox.len() <= self.limits.inbox_events && inbox.bytes() <= self.limits.inbox_bytes);
            assert!(inbox.dead_letters.len() <= self.limits.dead_letters);
            return;
        }
        assert_eq!(self.clients.get(&session.client_id), Some(&key));
        assert_eq!(session.durable, session.expiry_s > 0);
        let outbound = &session.outbound;
        match session.connection {
            Some(connection) => {
                assert_eq!(self.session_on(connection), Some(key));
                assert_eq!((session.disconnected_at, session.expires_at, session.will_at), (None, None, None));
                let has_room = session.unwritten_bytes < self.limits.unwritten_bytes
                    && outbound.unacknowledged() < usize::from(session.window)
                    && outbound.in_flight() < usize::from(self.limits.inflight_messages);
                assert!(outbound.is_drained() || !has_room, "nothing waits where there is room");
            }
            None => assert!(session.durable, "a session without a connection is durable"),
        }
        assert!(outbound.unacknowledged() <= usize::from(session.window));
        assert!(outbound.in_flight() <= usize::from(self.limits.inflight_messages));
        assert!(outbound.queued() <= self.limits.queued_messages);
        assert!(outbound.queued_bytes() <= self.limits.queued_bytes);
        let on_disk = outbound.iter_queued().filter(|entry| entry.stored.is_some()).count();
        assert!(session.durable || on_disk == 0);
        assert!(session.will_at != Some(Timestamp(0)) || session.will.is_some());
    }
}
