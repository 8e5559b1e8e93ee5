//! CONNECT: a new session or an old one, takeover, and what is sent again.

use serde_json::json;

use super::Broker;
use crate::event::{Change, Connect, ConnectionId, Effect, Effects, Packet, Protocol, ReasonCode, SessionId};
use crate::key::SessionKey;
use crate::message::Timestamp;
use crate::session::Session;

impl Broker {
    pub(super) fn connect(
        &mut self,
        now: Timestamp,
        connection: ConnectionId,
        connect: Connect,
        effects: &mut Effects,
    ) {
        if let Some(key) = self.session_on(connection) {
            return self.close(now, key, ReasonCode::ProtocolError, effects);
        }
        let before = effects.last_change();
        if let Some(reason) = self.refuses(&connect) {
            let packet = Packet::Refused { reason };
            effects.list.push(Effect::Send { connection, after: effects.since(before), packet });
            return;
        }
        let existed = self.clients.contains_key(&connect.client_id);
        let resumed = self.take_over(now, &connect, effects);
        let session_expiry_s = connect.session_expiry_s.min(self.limits.session_expiry_s);
        let key = resumed.unwrap_or_else(|| self.add_session(&connect, session_expiry_s > 0, effects));
        let shortened = connect.protocol == Protocol::V5 && session_expiry_s != connect.session_expiry_s;
        let packet = Packet::Connack {
            session_present: resumed.is_some(),
            session_expiry_s: shortened.then_some(session_expiry_s),
            assigned_client_id: connect.client_id_assigned.then(|| connect.client_id.clone()),
        };
        if existed && resumed.is_some() {
            self.tell_of_client(&connect.client_id, "session-resumed", || json!({}));
        } else {
            self.tell_of_client(&connect.client_id, "session-created", || json!({ "durable": session_expiry_s > 0 }));
        }
        self.tell_of_client(&connect.client_id, "connected", || {
            let protocol = if connect.protocol == Protocol::V3 { "3.1.1" } else { "5.0" };
            let (user, address) = (connect.user.as_deref(), &*connect.address);
            json!({ "protocol": protocol, "user": user, "address": address, "clean_start": connect.clean_start })
        });
        self.attach(key, connection, connect, session_expiry_s, effects);
        let after = effects.since(before).max(self.last_session_removal);
        effects.list.push(Effect::Send { connection, after, packet });
        self.refill(key, effects);
    }

    fn refuses(&self, connect: &Connect) -> Option<ReasonCode> {
        let existing = self.clients.get(&connect.client_id).map(|&key| &self.sessions[key]);
        let takes_place = existing.is_some_and(|session| session.connection.is_some());
        let full = (!takes_place && self.connections.len() >= self.limits.connections)
            || (existing.is_none() && self.clients.len() >= self.limits.sessions);
        let existing_is_durable = existing.is_some_and(|session| session.durable);
        if full {
            Some(ReasonCode::QuotaExceeded)
        } else if self.storage_failed && (connect.session_expiry_s > 0 || existing_is_durable) {
            Some(ReasonCode::ServerBusy)
        } else {
            None
        }
    }

    /// Ends the connection that the client may still have, and the session if it is not to go on; gives the session
    /// that does.
    fn take_over(&mut self, now: Timestamp, connect: &Connect, effects: &mut Effects) -> Option<SessionKey> {
        let key = *self.clients.get(&connect.client_id)?;
        if self.sessions[key].connection.is_some() {
            self.tell_of_client(&connect.client_id, "session-taken-over", || json!({}));
        }
        self.close(now, key, ReasonCode::SessionTakenOver, effects);
        // Closing ends a session that does not outlive its connection.
        let key = *self.clients.get(&connect.client_id)?;
        let expired = self.sessions[key].expires_at.is_some_and(|at| at <= now);
        if connect.clean_start || expired {
            self.end_session(now, key, effects);
            return None;
        }
        if self.sessions[key].will_at.is_some_and(|at| at <= now) {
            self.publish_will(now, key, effects);
        }
        Some(key)
    }

    fn add_session(&mut self, connect: &Connect, durable: bool, effects: &mut Effects) -> SessionKey {
        let id = if durable { self.identifiers.session(effects) } else { SessionId(0) };
        let key = self.sessions.insert(Session::new(id, connect.client_id.clone()));
        self.clients.insert(connect.client_id.clone(), key);
        key
    }

    /// Puts a client in its session.
    fn attach(
        &mut self,
        key: SessionKey,
        connection: ConnectionId,
        connect: Connect,
        session_expiry_s: u32,
        effects: &mut Effects,
    ) {
        self.cancel_deadlines(key);
        self.connections.insert(connection, key);
        let receive_maximum = connect.receive_maximum.min(self.limits.inflight_messages).max(1);
        let session = &mut self.sessions[key];
        session.protocol = connect.protocol;
        session.connection = Some(connection);
        session.receive_maximum = receive_maximum;
        session.maximum_packet_size = connect.maximum_packet_size;
        session.unwritten_bytes = 0;
        session.expiry_s = session_expiry_s;
        session.disconnected_at = None;
        session.will = connect.will;
        if session.durable {
            effects.record(Change::SessionStored { session: session.id, record: session.record() });
        }
    }
}
