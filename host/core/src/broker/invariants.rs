//! What must be true of a broker between two inputs; for tests and simulations.

use std::collections::BTreeSet;

use super::Broker;
use super::deadlines::Deadline;
use crate::key::SessionKey;
use crate::message::Timestamp;
use crate::session::Session;

impl Broker {
    /// Panics where an invariant does not hold. Walks everything.
    pub fn check_invariants(&self) {
        self.subscriptions.check_invariants();
        self.retained.check_invariants();
        let mut deadlines = BTreeSet::new();
        let mut connections = 0;
        for (key, session) in self.sessions.iter() {
            self.check_session(key, session);
            connections += usize::from(session.connection.is_some());
            let retry = session.inbox.as_ref().and_then(|inbox| inbox.deadline);
            let timer = session.inbox.as_ref().and_then(|inbox| inbox.timer_deadline);
            let own = [
                session.will_at.map(|at| (at, Deadline::Will(key))),
                session.expires_at.map(|at| (at, Deadline::Expiry(key))),
                retry.map(|at| (at, Deadline::Retry(key))),
                timer.map(|at| (at, Deadline::Timer(key))),
            ];
            deadlines.extend(own.into_iter().flatten());
        }
        assert_eq!(deadlines, self.deadlines);
        assert_eq!(connections, self.connections.len());
        let ended = self.sessions.iter().filter(|(_, session)| session.heirs.is_some()).count();
        assert_eq!(self.sessions.len(), self.clients.len() + self.plugins.len() + ended);
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
            let put_back = 2 * self.limits.probation_events;
            assert!(inbox.len() <= self.limits.inbox_events + put_back, "a rollback may go beyond the bound");
            assert!(inbox.timers.len() <= self.limits.timers);
            assert!(inbox.dead_letters.len() <= self.limits.dead_letters);
            return;
        }
        if session.heirs.is_some() {
            assert!(session.durable && session.connection.is_none() && session.subscriptions.is_empty());
            return;
        }
        assert_eq!(self.clients.get(&session.client_id), Some(&key));
        assert!(session.durable || session.expiry_s == 0);
        let outbound = &session.outbound;
        match session.connection {
            Some(connection) => {
                assert_eq!(self.session_on(connection), Some(key));
                assert_eq!((session.disconnected_at, session.expires_at, session.will_at), (None, None, None));
                let has_room = session.unwritten_bytes < self.limits.unwritten_bytes
                    && session.has_window(self.limits.inflight_messages);
                let greets = session.greetings.is_empty() || self.greeting.contains(&key);
                assert!(greets || !has_room || !outbound.is_drained(), "retained messages go where there is room");
                assert!(!outbound.has_waiting() || !has_room, "nothing waits where there is room");
                assert!(
                    !outbound.needs_load(self.limits.window_messages, self.limits.window_bytes),
                    "what runs low is loaded"
                );
            }
            None => assert!(session.durable, "a session without a connection is durable"),
        }
        assert!(outbound.window.unacknowledged() <= usize::from(session.receive_maximum));
        assert!(outbound.window.len() <= usize::from(self.limits.inflight_messages));
        let (messages, bytes) = outbound.buffered();
        assert!(messages <= self.limits.buffered_messages.max(2 * self.limits.window_messages.max(1)));
        assert!(session.durable || bytes <= self.limits.buffered_bytes);
        assert!(session.durable || outbound.on_disk() == (0, 0));
        assert!(session.will_at != Some(Timestamp(0)) || session.will.is_some());
    }
}
