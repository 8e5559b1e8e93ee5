//! The end of a connection, with DISCONNECT or without, and the end of a session; what becomes of the will
//! (sections 3.1.2.5 and 3.14).

use std::sync::Arc;

use serde_json::json;

use super::Broker;
use super::deadlines::Deadline;
use super::publish::Origin;
use crate::event::{Change, Disconnect, Effects, ReasonCode, Will};
use crate::key::SessionKey;
use crate::message::{Message, Timestamp};

impl Broker {
    pub(super) fn disconnect(
        &mut self,
        now: Timestamp,
        key: SessionKey,
        disconnect: Disconnect,
        effects: &mut Effects,
    ) {
        let session = &mut self.sessions[key];
        if let Some(expiry_s) = disconnect.session_expiry_s {
            let expiry_s = expiry_s.min(self.limits.session_expiry_s);
            if session.expiry_s == 0 && expiry_s > 0 {
                // [MQTT-3.1.2-11.2]: a session announced to end with its connection does.
                return self.close(now, key, ReasonCode::ProtocolError, effects);
            }
            session.expiry_s = expiry_s;
        }
        if !disconnect.with_will {
            session.will = None;
        }
        let reason = if disconnect.with_will { "client, with its will" } else { "client" };
        self.lose_connection(now, key, reason, effects);
    }

    /// A session's connection is gone, for a reason in words.
    pub(super) fn lose_connection(&mut self, now: Timestamp, key: SessionKey, reason: &str, effects: &mut Effects) {
        let client = self.sessions[key].client_id.clone();
        self.tell_of_client(&client, "disconnected", || json!({ "reason": reason }));
        let session = &mut self.sessions[key];
        if let Some(connection) = session.connection.take() {
            self.connections.remove(&connection);
        }
        session.unwritten_bytes = 0;
        session.greetings.clear();
        if session.expiry_s == 0 {
            self.end_session(now, key, effects);
        } else {
            session.outbound.park();
            self.begin_absence(now, key, effects);
        }
    }

    /// A durable session has no client from now on: its clocks start.
    pub(super) fn begin_absence(&mut self, now: Timestamp, key: SessionKey, effects: &mut Effects) {
        let session = &mut self.sessions[key];
        session.disconnected_at = Some(now);
        let due = session.will.take_if(|will| will.delay_s == 0);
        effects.record(Change::SessionStored { session: session.id, record: session.record() });
        self.schedule_absence(key);
        if let Some(will) = due {
            self.publish_message_of(now, *will, Some(key), effects);
        }
    }

    /// Sets the deadlines of a session whose client is away.
    pub(super) fn schedule_absence(&mut self, key: SessionKey) {
        let session = &mut self.sessions[key];
        let Some(since) = session.disconnected_at else { return };
        let after_s = |seconds: u32| since.after_ms(u64::from(seconds) * 1000);
        session.expires_at = (session.expiry_s != u32::MAX).then(|| after_s(session.expiry_s));
        session.will_at = session.will.as_ref().map(|will| after_s(will.delay_s));
        let deadlines = [
            session.will_at.map(|at| (at, Deadline::Will(key))),
            session.expires_at.map(|at| (at, Deadline::Expiry(key))),
        ];
        self.deadlines.extend(deadlines.into_iter().flatten());
    }

    /// Ends a session without a connection, and publishes its will if that is still to come [MQTT-3.1.3-9].
    pub(super) fn end_session(&mut self, now: Timestamp, key: SessionKey, effects: &mut Effects) {
        self.cancel_deadlines(key);
        let mut session = self.sessions.remove(key);
        debug_assert!(session.connection.is_none() && session.inbox.is_none());
        self.tell_of_client(&session.client_id, "session-ended", || json!({}));
        self.clients.remove(&session.client_id);
        if self.clients.capacity() > 1024 && self.clients.len() * 4 <= self.clients.capacity() {
            self.clients.shrink_to(self.clients.len() * 2);
            self.connections.shrink_to(self.connections.len() * 2);
        }
        let heirs = self.heirs(&session);
        for &subscription in session.subscriptions.values() {
            self.subscriptions.remove(subscription);
        }
        let will = session.will.take();
        match heirs {
            Some(heirs) if !session.durable => self.bequeath(now, &mut session, &heirs, effects),
            Some(heirs) if session.outbound.on_disk().0 > 0 => self.keep_for_heirs(now, session, heirs, effects),
            Some(_) | None if session.durable => self.forget_session(session.id, effects),
            Some(_) | None => {}
        }
        if let Some(will) = will {
            self.publish_message_of(now, *will, None, effects);
        }
    }

    /// The delay of a will is over.
    pub(super) fn publish_will(&mut self, now: Timestamp, key: SessionKey, effects: &mut Effects) {
        let session = &mut self.sessions[key];
        if let Some(at) = session.will_at.take() {
            self.deadlines.remove(&(at, Deadline::Will(key)));
        }
        if let Some(will) = session.will.take() {
            effects.record(Change::SessionStored { session: session.id, record: session.record() });
            self.publish_message_of(now, *will, Some(key), effects);
        }
    }

    fn publish_message_of(&mut self, now: Timestamp, will: Will, session: Option<SessionKey>, effects: &mut Effects) {
        let expires_at = will.expiry_s.map(|seconds| now.after_ms(u64::from(seconds) * 1000));
        let message = Message { received_at: now, expires_at, ..will.message };
        let _ = self.route(now, Arc::new(message), Origin { session, refusable: false }, effects);
    }
}
