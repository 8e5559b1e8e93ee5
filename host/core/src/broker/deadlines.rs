//! What falls due by time: ends of sessions, delayed wills, events to be handed out again, timers of
//! plugins, expired retained messages.
//!
//! A tick does a bounded amount, so that it does not hold up everybody else; what is left stays due.

use super::Broker;
use crate::event::{Change, Effects};
use crate::key::SessionKey;
use crate::message::Timestamp;
use crate::session::Session;

/// What falls due. At one time, a will comes before the end of its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Deadline {
    /// The will of an absent client.
    Will(SessionKey),
    /// The session of an absent client; or what one that ended left behind is tried again.
    Expiry(SessionKey),
    /// An event that a plugin failed to handle.
    Retry(SessionKey),
    /// A timer of a plugin.
    Timer(SessionKey),
}

/// Deadlines, and expired retained messages, that one tick does.
const DUE_PER_TICK: usize = 1000;

impl Broker {
    /// When [`Input::Tick`](crate::Input::Tick) has something to do next; a time in the past if there is something now.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        if !self.woken.is_empty() || !self.greeting.is_empty() || !self.fan_outs.is_empty() {
            return Some(Timestamp(0));
        }
        let deadline = self.deadlines.first().map(|&(at, _)| at);
        [deadline, self.retained.next_expiry()].into_iter().flatten().min()
    }

    pub(super) fn tick(&mut self, now: Timestamp, effects: &mut Effects) {
        for _ in 0..DUE_PER_TICK {
            let Some(&due) = self.deadlines.first().filter(|(at, _)| *at <= now) else { break };
            self.deadlines.remove(&due);
            match due.1 {
                Deadline::Will(key) => {
                    self.sessions[key].will_at = None;
                    self.publish_will(now, key, effects);
                }
                Deadline::Expiry(key) => {
                    self.sessions[key].expires_at = None;
                    if self.sessions[key].heirs.is_some() {
                        self.load(key, effects);
                    } else {
                        self.end_session(now, key, effects);
                    }
                }
                Deadline::Retry(key) => {
                    self.sessions[key].plugin_inbox().deadline = None;
                    self.serve(now, key, effects);
                }
                Deadline::Timer(key) => self.fire_timers(now, key, effects),
            }
        }
        self.expire_retained(now, effects);
        self.go_on_with_greetings(now, effects);
        self.go_on_with_fan_outs(now, effects);
        self.serve_woken(now, effects);
    }

    fn expire_retained(&mut self, now: Timestamp, effects: &mut Effects) {
        for _ in 0..DUE_PER_TICK {
            let Some(topic) = self.retained.next_expired(now) else { break };
            self.retained.remove(&topic);
            effects.record(Change::RetainedCleared { topic });
        }
    }

    /// Cancels what a session has yet to come.
    pub(super) fn cancel_deadlines(&mut self, key: SessionKey) {
        let session = &mut self.sessions[key];
        let inbox = session.inbox.as_deref_mut();
        let (retry, timer) = inbox.map_or((None, None), |inbox| (inbox.deadline.take(), inbox.timer_deadline.take()));
        let deadlines = [
            session.will_at.take().map(|at| (at, Deadline::Will(key))),
            session.expires_at.take().map(|at| (at, Deadline::Expiry(key))),
            retry.map(|at| (at, Deadline::Retry(key))),
            timer.map(|at| (at, Deadline::Timer(key))),
        ];
        for deadline in deadlines.into_iter().flatten() {
            self.deadlines.remove(&deadline);
        }
    }

    /// The first input after a restart: no client is there, so those that were are gone as of `now`.
    pub(super) fn start(&mut self, now: Timestamp, effects: &mut Effects) {
        self.identifiers.reserve(effects);
        let is_away = |session: &Session| {
            session.connection.is_none()
                && session.inbox.is_none()
                && session.heirs.is_none()
                && session.disconnected_at.is_none()
        };
        let gone: Vec<SessionKey> =
            self.sessions.iter().filter(|(_, session)| is_away(session)).map(|(key, _)| key).collect();
        for key in gone {
            if self.sessions[key].expiry_s == 0 {
                self.end_session(now, key, effects);
            } else {
                self.begin_absence(now, key, effects);
            }
        }
        self.resume_handing_on(effects);
        // What a migration left that did not come to its switch.
        let plugins: Vec<SessionKey> = self.plugins.values().copied().collect();
        for key in plugins {
            self.drop_generation(key, effects);
        }
    }

    /// Goes on with sessions that have ended and whose queues are still to be given to others.
    fn resume_handing_on(&mut self, effects: &mut Effects) {
        let has_heirs = |session: &Session| session.heirs.is_some() && !session.outbound.is_loading();
        let ended: Vec<SessionKey> =
            self.sessions.iter().filter(|(_, session)| has_heirs(session)).map(|(key, _)| key).collect();
        for key in ended {
            self.cancel_deadlines(key);
            self.load(key, effects);
        }
    }

    /// Changes can be made durable again.
    pub(super) fn recover_storage(&mut self, effects: &mut Effects) {
        self.storage_failed = false;
        self.resume_handing_on(effects);
    }
}
