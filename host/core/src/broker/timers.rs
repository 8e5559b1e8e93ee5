//! Timers of plugins, and the requests that wait for their answers: a request is a timer that an answer cancels.

use std::sync::Arc;

use super::Broker;
use super::deadlines::Deadline;
use crate::event::{
    Change, DropReason, ERROR_PROPERTY, Effects, PluginName, REPLY_TOPICS, REQUEST_PROPERTY, REQUEST_TIMER, ReasonCode,
    SCHEDULE_PROPERTY, TIMER_TOPICS, Timer,
};
use crate::key::SessionKey;
use crate::message::{Message, MessageProperties, Qos, Timestamp};
use crate::topic::Topic;

/// Timers of one plugin that one tick fires; the rest are due in the next.
const FIRED_PER_TICK: usize = 1000;

/// Milliseconds until a timer is tried again for which the inbox, or the disk, has no room.
const PUT_OFF_MS: u64 = 1_000;

impl Broker {
    pub(super) fn set_timer(&mut self, key: SessionKey, name: Arc<str>, timer: Timer, effects: &mut Effects) {
        let session = self.sessions[key].id;
        let limit = self.limits.timers;
        let timers = &mut self.sessions[key].plugin_inbox().timers;
        if timers.len() >= limit && timers.get(&name).is_none() {
            return effects.drop_counted(DropReason::TimersFull, 1);
        }
        timers.set(name.clone(), timer.clone());
        effects.record(Change::TimerSet { session, name, timer });
        self.refresh_timers(key);
    }

    /// Cancels a timer if it is there.
    pub(super) fn cancel_timer(&mut self, key: SessionKey, name: &Arc<str>, effects: &mut Effects) {
        let session = self.sessions[key].id;
        if self.sessions[key].plugin_inbox().timers.cancel(name).is_some() {
            effects.record(Change::TimerCancelled { session, name: name.clone() });
            self.refresh_timers(key);
        }
    }

    /// Sees to it that the broker looks at a plugin's timers when the first is due.
    pub(super) fn refresh_timers(&mut self, key: SessionKey) {
        let wanted = self.sessions[key].plugin_inbox().timers.next();
        self.look_at_timers(key, wanted);
    }

    fn look_at_timers(&mut self, key: SessionKey, at: Option<Timestamp>) {
        let current = std::mem::replace(&mut self.sessions[key].plugin_inbox().timer_deadline, at);
        if current != at {
            if let Some(at) = current {
                self.deadlines.remove(&(at, Deadline::Timer(key)));
            }
            self.deadlines.extend(at.map(|at| (at, Deadline::Timer(key))));
        }
    }

    /// Makes events of a plugin's timers that are due. One that has no room waits, and those after it with it.
    pub(super) fn fire_timers(&mut self, now: Timestamp, key: SessionKey, effects: &mut Effects) {
        self.sessions[key].plugin_inbox().timer_deadline = None;
        for _ in 0..FIRED_PER_TICK {
            let inbox = self.sessions[key].plugin_inbox();
            let Some(name) = inbox.timers.first_due(now) else { break };
            let Some(timer) = inbox.timers.get(&name) else { break };
            let message = fired(now, &inbox.plugin, &name, timer);
            let fits = message.as_ref().is_none_or(|message| self.fits_inbox(key, message.weight()));
            if self.storage_failed || !fits {
                return self.look_at_timers(key, Some(now.after_ms(PUT_OFF_MS)));
            }
            self.cancel_timer(key, &name, effects);
            if let Some(message) = message {
                self.hand_in(now, key, message, effects);
            }
        }
        self.refresh_timers(key);
    }

    /// Gives the answer to a request to the plugin that asked. An error means that nothing happened.
    pub(super) fn route_reply(
        &mut self,
        now: Timestamp,
        message: &Message,
        refusable: bool,
        effects: &mut Effects,
    ) -> ReasonCode {
        let Some((key, number)) = self.asker(&message.topic) else { return ReasonCode::NoMatchingSubscribers };
        let name: Arc<str> = format!("{REQUEST_TIMER}{number}").into();
        if self.sessions[key].plugin_inbox().timers.get(&name).is_none() {
            return ReasonCode::NoMatchingSubscribers;
        }
        let message = Message { retain: false, ..with_property(message.clone(), REQUEST_PROPERTY, number) };
        if self.storage_failed || !self.fits_inbox(key, message.weight()) {
            // Who cannot be told to keep the answer loses it; the request then ends with its timeout.
            if !refusable {
                effects.drop_counted(DropReason::InboxFull, 1);
            }
            return ReasonCode::QuotaExceeded;
        }
        self.cancel_timer(key, &name, effects);
        self.hand_in(now, key, message, effects);
        ReasonCode::Success
    }

    /// The plugin that a topic `$reply/PLUGIN/REQUEST` names, and the request.
    fn asker<'t>(&self, topic: &'t Topic) -> Option<(SessionKey, &'t str)> {
        let (plugin, number) = topic.as_str().strip_prefix(REPLY_TOPICS)?.strip_prefix('/')?.split_once('/')?;
        let key = self.plugins.get(&PluginName(plugin.into()))?;
        Some((*key, number))
    }
}

/// The event of a timer; `None` where its name is not one that a topic may have.
fn fired(now: Timestamp, plugin: &PluginName, name: &str, timer: &Timer) -> Option<Message> {
    let request = name.strip_prefix(REQUEST_TIMER);
    let topic = match request {
        Some(number) => format!("{REPLY_TOPICS}/{}/{number}", plugin.0),
        None => format!("{TIMER_TOPICS}/{name}"),
    };
    let mut message = Message {
        topic: Topic::parse(&topic).ok()?,
        payload: Box::from(&*timer.payload),
        qos: Qos::AtLeastOnce,
        retain: false,
        properties: None,
        expires_at: None,
        received_at: now,
        publisher: "".into(),
        user: None,
    };
    if let Some(schedule) = &timer.schedule {
        message = with_property(message, SCHEDULE_PROPERTY, schedule);
    }
    if let Some(number) = request {
        message = with_property(message, REQUEST_PROPERTY, number);
        message = with_property(message, ERROR_PROPERTY, "timeout");
    }
    Some(message)
}

/// A message with a further user property.
pub(super) fn with_property(mut message: Message, name: &str, value: &str) -> Message {
    let properties: &mut MessageProperties = message.properties.get_or_insert_default();
    properties.user_properties.push((name.into(), value.into()));
    message
}
