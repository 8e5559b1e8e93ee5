//! SUBSCRIBE and UNSUBSCRIBE.

use std::num::NonZeroU16;

use serde_json::json;

use super::Broker;
use crate::event::{
    Change, Effect, Effects, Packet, PacketId, ReasonCode, RetainHandling, ShareNumber, Subscribe, SubscriptionOptions,
    SubscriptionRecord,
};
use crate::key::SessionKey;
use crate::message::{Qos, Timestamp};
use crate::subscriptions::SubscriberKind;
use crate::topic::TopicFilter;

impl Broker {
    pub(super) fn subscribe(&mut self, now: Timestamp, key: SessionKey, subscribe: Subscribe, effects: &mut Effects) {
        let Subscribe { packet_id, identifier, filters } = subscribe;
        let before = effects.last_change();
        let mut reasons = Vec::with_capacity(filters.len());
        let mut with_retained = Vec::new();
        for filter in filters {
            let outcome = filter.and_then(|(filter, options)| {
                let is_new = self.add_subscription(key, &filter, options, identifier, effects)?;
                Ok((filter, options, is_new))
            });
            if let Ok((filter, options, is_new)) = &outcome {
                let client = self.sessions[key].client_id.clone();
                self.tell_of_client(
                    &client,
                    "subscribed",
                    || json!({ "filter": filter.as_str(), "qos": options.maximum_qos as u8, "new": is_new }),
                );
            }
            reasons.push(match &outcome {
                Ok((_, options, _)) => granted(options.maximum_qos),
                Err(reason) => *reason,
            });
            with_retained.extend(outcome.ok().filter(|(_, options, is_new)| match options.retain_handling {
                RetainHandling::AtSubscribe => true,
                RetainHandling::IfNew => *is_new,
                RetainHandling::Never => false,
            }));
        }
        if let Some(connection) = self.sessions[key].connection {
            let packet = Packet::Suback { packet_id, reasons };
            effects.list.push(Effect::Send { connection, after: effects.since(before), packet });
        }
        for (filter, options, _) in with_retained {
            self.greet(now, key, filter, options, effects);
        }
    }

    /// Subscribes a session; says whether the subscription is new.
    pub(super) fn add_subscription(
        &mut self,
        key: SessionKey,
        filter: &TopicFilter,
        options: SubscriptionOptions,
        identifier: Option<u32>,
        effects: &mut Effects,
    ) -> Result<bool, ReasonCode> {
        let session = &self.sessions[key];
        let is_new = !session.subscriptions.contains_key(filter);
        if is_new && session.subscriptions.len() >= self.limits.subscriptions_per_session {
            return Err(ReasonCode::QuotaExceeded);
        }
        if session.durable && self.storage_failed {
            return Err(ReasonCode::QuotaExceeded);
        }
        let share = match session.subscriptions.get(filter) {
            Some(&existing) => self.subscriptions.subscription(existing).share,
            None if filter.shared().is_some() => Some(self.next_share(key)?),
            None => None,
        };
        let subscription = SubscriptionRecord { options, identifier, share };
        let session = &self.sessions[key];
        if session.durable {
            let (session, filter) = (session.id, filter.clone());
            effects.record(Change::Subscribed { session, filter, subscription });
        }
        self.set_subscription(key, filter, subscription);
        Ok(is_new)
    }

    /// Numbers a shared subscription. A session that has used all numbers up has to end first.
    fn next_share(&mut self, key: SessionKey) -> Result<ShareNumber, ReasonCode> {
        let session = &mut self.sessions[key];
        session.last_share = session.last_share.checked_add(1).ok_or(ReasonCode::QuotaExceeded)?;
        NonZeroU16::new(session.last_share).map(ShareNumber).ok_or(ReasonCode::QuotaExceeded)
    }

    /// Adds or replaces a subscription, without a change.
    pub(super) fn set_subscription(&mut self, key: SessionKey, filter: &TopicFilter, record: SubscriptionRecord) {
        let session = &mut self.sessions[key];
        let kind = match (&session.inbox, record.identifier) {
            (Some(_), _) => SubscriberKind::Plugin,
            (None, Some(_)) => SubscriberKind::Identified,
            (None, None) => SubscriberKind::Plain,
        };
        match session.subscriptions.get(filter) {
            Some(&existing) => self.subscriptions.replace(existing, kind, record),
            None => {
                let subscription = self.subscriptions.insert(key, kind, session.durable, filter, record);
                session.subscriptions.insert(filter.clone(), subscription);
            }
        }
    }

    pub(super) fn unsubscribe(
        &mut self,
        key: SessionKey,
        packet_id: PacketId,
        filters: &[TopicFilter],
        effects: &mut Effects,
    ) {
        let before = effects.last_change();
        let reasons = filters.iter().map(|filter| self.remove_subscription(key, filter, effects)).collect();
        let client = self.sessions[key].client_id.clone();
        for filter in filters {
            self.tell_of_client(&client, "unsubscribed", || json!({ "filter": filter.as_str() }));
        }
        if let Some(connection) = self.sessions[key].connection {
            let packet = Packet::Unsuback { packet_id, reasons };
            effects.list.push(Effect::Send { connection, after: effects.since(before), packet });
        }
    }

    pub(super) fn remove_subscription(
        &mut self,
        key: SessionKey,
        filter: &TopicFilter,
        effects: &mut Effects,
    ) -> ReasonCode {
        let session = &mut self.sessions[key];
        let Some(subscription) = session.subscriptions.remove(filter) else {
            return ReasonCode::NoSubscriptionExisted;
        };
        self.subscriptions.remove(subscription);
        session.greetings.retain(|greeting| greeting.filter != *filter);
        if session.durable {
            effects.record(Change::Unsubscribed { session: session.id, filter: filter.clone() });
        }
        ReasonCode::Success
    }
}

fn granted(qos: Qos) -> ReasonCode {
    match qos {
        Qos::AtMostOnce => ReasonCode::Success,
        Qos::AtLeastOnce => ReasonCode::GrantedQos1,
        Qos::ExactlyOnce => ReasonCode::GrantedQos2,
    }
}
