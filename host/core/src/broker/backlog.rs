//! Queues that are longer than their part in memory: reading the rest back from disk, as it is needed.

use super::Broker;
use crate::event::{Change, DropReason, Effect, Effects, LoadTicket, LoadedEntry, ReasonCode};
use crate::key::{SessionKey, narrow};
use crate::message::Timestamp;

/// Milliseconds between two searches for expired messages in the full queue of a client that is away.
const SEARCH_INTERVAL_MS: u64 = 1_000;

impl Broker {
    /// Asks for the next part of a queue if what a client's session has in memory runs low.
    pub(super) fn refill(&mut self, key: SessionKey, effects: &mut Effects) {
        let (session, limits) = (&self.sessions[key], &self.limits);
        if session.connection.is_some() && session.outbound.needs_load(limits.window_messages, limits.window_bytes) {
            self.load(key, effects);
        }
    }

    /// Asks for the next part of a queue.
    pub(super) fn load(&mut self, key: SessionKey, effects: &mut Effects) {
        self.loads = self.loads.wrapping_add(1);
        let ticket = LoadTicket(u64::from(self.loads) << 32 | u64::from(narrow(key.index())));
        let session = &mut self.sessions[key];
        session.outbound.begin_load(ticket);
        effects.list.push(Effect::Load {
            ticket,
            session: session.id,
            after: session.outbound.backlog.after,
            max: self.limits.window_messages.max(1),
            max_bytes: self.limits.window_bytes,
            change: effects.last_change(),
        });
    }

    /// What was asked for is here, unless whoever asked is not any more.
    pub(super) fn loaded(
        &mut self,
        now: Timestamp,
        ticket: LoadTicket,
        entries: Option<Vec<LoadedEntry>>,
        effects: &mut Effects,
    ) {
        let key = SessionKey::new((ticket.0 & u64::from(u32::MAX)) as usize);
        let Some(session) = self.sessions.get_mut(key).filter(|session| session.outbound.awaits(ticket)) else {
            return;
        };
        let Some(entries) = entries else {
            session.outbound.end_load();
            if session.heirs.is_some() {
                self.hand_on_later(now, key);
            }
            return self.close(now, key, ReasonCode::ServerBusy, effects);
        };
        if session.heirs.is_some() {
            session.outbound.end_load();
            self.hand_on(now, key, entries, effects);
        } else if session.connection.is_some() {
            session.outbound.take_loaded(entries);
            self.pump(now, key, effects);
        } else {
            session.outbound.end_load();
            self.drop_expired(now, key, &entries, effects);
        }
    }

    /// The queue of a client that is away is full: expired messages at its front may make room.
    pub(super) fn look_for_expired(&mut self, now: Timestamp, key: SessionKey, effects: &mut Effects) {
        let session = &mut self.sessions[key];
        let backlog = &mut session.outbound.backlog;
        if session.connection.is_none() && backlog.expires && now.since_ms(backlog.searched_at) >= SEARCH_INTERVAL_MS {
            backlog.searched_at = now;
            if !session.outbound.is_loading() {
                self.load(key, effects);
            }
        }
    }

    fn drop_expired(&mut self, now: Timestamp, key: SessionKey, entries: &[LoadedEntry], effects: &mut Effects) {
        let is_over = |loaded: &&LoadedEntry| loaded.entry.packet_id.is_none() && loaded.content.is_expired(now);
        for LoadedEntry { sequence, entry, content, .. } in entries.iter().filter(is_over) {
            let session = &mut self.sessions[key];
            session.outbound.forget_backlog(entry);
            let (session, message) = (session.id, entry.message);
            effects.record(Change::Dequeued { session, sequence: *sequence, message });
            self.drop_for(key, DropReason::Expired, content, effects);
        }
    }
}
