//! Plugins come and go: activation, removal, lanes.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Broker;
use crate::event::{
    Activation, Change, DropReason, Effect, Effects, Lanes, PluginName, ProbationRecord, ReasonCode, RetainHandling,
    SessionId, SubscriptionOptions, Timer,
};
use crate::key::SessionKey;
use crate::message::{Qos, Timestamp};
use crate::session::Session;
use crate::session::inbox::{Inbox, Probation};
use crate::topic::TopicFilter;

impl Broker {
    pub(super) fn activate_plugin(
        &mut self,
        now: Timestamp,
        plugin: PluginName,
        activation: Activation,
        effects: &mut Effects,
    ) {
        let existing = self.plugins.get(&plugin).copied();
        if (existing.is_none() && self.plugins.len() >= self.limits.plugins)
            || activation.subscriptions.len() > self.limits.subscriptions_per_session
            || activation.schedules.len() > self.limits.timers
        {
            effects.list.push(Effect::PluginRefused { plugin, reason: ReasonCode::QuotaExceeded });
            return;
        }
        let key = match existing {
            Some(key) => key,
            None => {
                let id = self.identifiers.session(effects);
                let mut session = Session::new(id, plugin.0.clone());
                let inbox = Inbox::new(plugin.clone(), activation.revision.clone(), id, self.seed);
                session.inbox = Some(Box::new(inbox));
                let key = self.sessions.insert(session);
                self.plugins.insert(plugin.clone(), key);
                key
            }
        };
        let inbox = self.sessions[key].plugin_inbox();
        let previous = ProbationRecord { revision: inbox.revision.clone(), state: inbox.state };
        let previous = (activation.probation && existing.is_some()).then_some(previous);
        let generation = inbox.generation.filter(|_| activation.new_generation);
        let state = generation.unwrap_or(inbox.state);
        self.switch(now, key, state, previous, activation, effects);
    }

    /// Makes a revision active on a generation of the state.
    pub(super) fn switch(
        &mut self,
        now: Timestamp,
        key: SessionKey,
        state: SessionId,
        previous: Option<ProbationRecord>,
        activation: Activation,
        effects: &mut Effects,
    ) {
        let Activation { revision, subscriptions, lanes, schedules, new_generation: _, probation: _ } = activation;
        let session = self.sessions[key].id;
        let inbox = self.sessions[key].plugin_inbox();
        let plugin = inbox.plugin.clone();
        inbox.revision = revision.clone();
        inbox.state = state;
        inbox.generation = None;
        inbox.probation = previous.clone().map(|previous| Box::new(Probation::new(previous)));
        inbox.forgive();
        if inbox.arrangement() != lanes {
            inbox.arrange(lanes);
        }
        let number = revision.number;
        let probation = previous.map(Box::new);
        effects.record(Change::PluginActivated { plugin: plugin.clone(), session, revision, state, probation });
        let wanted: BTreeMap<TopicFilter, Qos> = subscriptions.into_iter().collect();
        let added = self.set_plugin_subscriptions(key, &wanted, effects);
        self.set_schedules(key, schedules, effects);
        let after = effects.last_change();
        effects.list.push(Effect::PluginActivated { plugin, session, state, revision: number, after });
        for (filter, qos) in added {
            self.greet(now, key, filter.clone(), plugin_options(*qos), effects);
        }
        self.refresh_inbox(key);
    }

    /// Makes these the subscriptions of a plugin; gives those that are new.
    fn set_plugin_subscriptions<'a>(
        &mut self,
        key: SessionKey,
        wanted: &'a BTreeMap<TopicFilter, Qos>,
        effects: &mut Effects,
    ) -> Vec<(&'a TopicFilter, &'a Qos)> {
        let existing: Vec<TopicFilter> = self.sessions[key].subscriptions.keys().cloned().collect();
        for filter in existing.iter().filter(|filter| !wanted.contains_key(filter)) {
            self.remove_subscription(key, filter, effects);
        }
        let mut added = Vec::new();
        for (filter, qos) in wanted {
            let options = plugin_options(*qos);
            let current = self.sessions[key].subscriptions.get(filter);
            if current.is_some_and(|&current| self.subscriptions.subscription(current).options == options) {
                continue;
            }
            if let Ok(true) = self.add_subscription(key, filter, options, None, effects) {
                added.push((filter, qos));
            }
        }
        added
    }

    /// Makes these the timers that a plugin's manifest declares. One that is there with the same schedule goes on.
    fn set_schedules(&mut self, key: SessionKey, schedules: Vec<(Arc<str>, Timer)>, effects: &mut Effects) {
        let wanted: BTreeMap<Arc<str>, Timer> = schedules.into_iter().collect();
        let timers = self.sessions[key].plugin_inbox().timers.iter();
        let gone: Vec<Arc<str>> = timers
            .filter(|(name, timer)| timer.declared && !wanted.contains_key(*name))
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            self.cancel_timer(key, &name, effects);
        }
        for (name, timer) in wanted {
            let current = self.sessions[key].plugin_inbox().timers.get(&name);
            if !current.is_some_and(|current| current.declared && current.schedule == timer.schedule) {
                self.set_timer(key, name, timer, effects);
            }
        }
    }

    pub(super) fn remove_plugin(&mut self, plugin: PluginName, effects: &mut Effects) {
        let before = effects.last_change();
        if let Some(key) = self.plugins.remove(&plugin) {
            self.cancel_deadlines(key);
            let session = self.sessions.remove(key);
            for &subscription in session.subscriptions.values() {
                self.subscriptions.remove(subscription);
            }
            effects.record(Change::SessionRemoved { session: session.id });
            effects.record(Change::PluginRemoved { plugin: plugin.clone() });
            self.woken.retain(|&woken| woken != key);
            let count = session.inbox.map_or(0, |inbox| inbox.len() as u32);
            if count > 0 {
                effects.drop_counted(DropReason::PluginRemoved, count);
            }
        }
        effects.list.push(Effect::PluginRemoved { plugin, after: effects.since(before) });
    }

    pub(super) fn arrange_lanes(&mut self, plugin: PluginName, lanes: Lanes, effects: &mut Effects) {
        if let Some(&key) = self.plugins.get(&plugin) {
            self.sessions[key].plugin_inbox().arrange(lanes);
            self.refresh_inbox(key);
        }
        effects.list.push(Effect::LanesArranged { plugin });
    }
}

/// Options of a plugin's subscriptions. It may hear what it publishes itself.
pub(super) fn plugin_options(maximum_qos: Qos) -> SubscriptionOptions {
    SubscriptionOptions {
        maximum_qos,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::IfNew,
    }
}
