//! Messages with very many subscribers: given to a part of them in each turn, so that their publisher and everybody
//! else are not kept waiting.
//!
//! Whoever's copy has to be durable, plugins, and members of groups get it at once, since the publisher's
//! acknowledgement rests on them. The others follow in later turns. A message on a topic of which an earlier one is
//! still on its way goes behind it, so the order on a topic holds [MQTT-4.6.0-5].

use std::collections::VecDeque;
use std::sync::Arc;

use smallvec::SmallVec;

use super::Broker;
use super::publish::Target;
use super::stored::Parcel;
use crate::event::{ChangeNumber, Effects};
use crate::message::{Message, Timestamp};

/// Subscribers who wait for some message, at most; beyond it the publisher waits after all.
const WAITING: usize = 1 << 18;

/// Messages on their way to very many subscribers, in order.
#[derive(Debug, Default)]
pub(super) struct FanOuts {
    /// The messages.
    messages: VecDeque<FanOut>,
    /// Subscribers that they are still to be given to.
    waiting: usize,
}

/// A message on its way to very many subscribers.
#[derive(Debug)]
struct FanOut {
    /// The message.
    message: Arc<Message>,
    /// Who gets it; their Subscription Identifiers are in `merged`.
    targets: Vec<Target>,
    /// Subscription Identifiers.
    merged: Vec<SmallVec<[u32; 4]>>,
    /// The change that its deliveries rest on; 0 for none.
    after: ChangeNumber,
    /// How many of the targets have it.
    served: usize,
    /// How many sessions there had been: one that was born later has the key of one that is gone.
    born_before: u64,
}

impl FanOuts {
    /// Whether nothing is under way.
    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Whether a message has to be given out part by part.
    pub(super) fn take_over(&self, message: &Message, targets: usize, at_once: usize) -> bool {
        targets > at_once || self.messages.iter().any(|under_way| under_way.message.topic == message.topic)
    }
}

impl Broker {
    /// Leaves for later turns those of `targets` who can wait.
    pub(super) fn put_off(
        &mut self,
        now: Timestamp,
        message: &Arc<Message>,
        targets: &mut Vec<Target>,
        merged: &[SmallVec<[u32; 4]>],
        effects: &mut Effects,
    ) {
        let mut can_wait: Vec<Target> = targets.extract_if(.., |target| target.can_wait()).collect();
        if can_wait.is_empty() {
            return;
        }
        let mut merged = merged.to_vec();
        can_wait.iter_mut().for_each(|target| target.detach(&self.subscriptions, &mut merged));
        self.fan_outs.waiting += can_wait.len();
        self.fan_outs.messages.push_back(FanOut {
            message: message.clone(),
            targets: can_wait,
            merged,
            after: effects.held_later(),
            served: 0,
            born_before: self.sessions.born(),
        });
        while self.fan_outs.waiting > WAITING {
            self.go_on_with_fan_outs(now, effects);
        }
    }

    /// Serves some of those who wait for a message.
    pub(super) fn go_on_with_fan_outs(&mut self, now: Timestamp, effects: &mut Effects) {
        let Some(mut fan_out) = self.fan_outs.messages.pop_front() else { return };
        let end = fan_out.targets.len().min(fan_out.served + self.limits.fan_out_per_turn.max(1));
        let mut parcel = Parcel::new(fan_out.message.clone());
        parcel.has_many_receivers = true;
        let hold = effects.hold_upon(effects.recorded(fan_out.after));
        for &target in &fan_out.targets[fan_out.served..end] {
            let session = self.sessions.get_mut(target.session);
            if session.is_some_and(|session| session.born < fan_out.born_before && session.connection.is_some()) {
                let to = self.addressee(&target, &fan_out.message, &fan_out.merged);
                self.deliver(now, to, &mut parcel, effects);
            }
        }
        effects.let_hold(hold);
        self.fan_outs.waiting -= end - fan_out.served;
        fan_out.served = end;
        if end < fan_out.targets.len() {
            self.fan_outs.messages.push_front(fan_out);
        }
    }
}
