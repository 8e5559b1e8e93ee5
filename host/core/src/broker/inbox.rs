//! Events of plugins: how they get into inboxes, out of them, and what handling them comes to.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Broker;
use super::deadlines::Deadline;
use super::deliver::Addressee;
use super::publish::Origin;
use super::stored::Parcel;
use crate::event::{
    Change, ChangeNumber, CommitTicket, DeadLetter, DeadLetterAction, DropReason, Effect, Effects, Lane, Outcome,
    PluginName, QueueEntry, ReasonCode, Sequence, Settlement,
};
use crate::key::SessionKey;
use crate::message::{Message, Qos, Timestamp};
use crate::session::inbox::{Event, Verdict};

impl Broker {
    // ------------------------------------------------------------------------------------------ out

    pub(super) fn take_events(
        &mut self,
        now: Timestamp,
        plugin: &PluginName,
        lane: Lane,
        max: usize,
        effects: &mut Effects,
    ) {
        if let Some(&key) = self.plugins.get(plugin)
            && self.sessions[key].plugin_inbox().ask(lane, Some(max.max(1)))
        {
            self.serve(now, key, effects);
        }
    }

    pub(super) fn cancel_take(&mut self, plugin: PluginName, lane: Lane, effects: &mut Effects) {
        if let Some(&key) = self.plugins.get(&plugin) {
            let inbox = self.sessions[key].plugin_inbox();
            inbox.ask(lane, None);
            if inbox.lane_is_out(lane) {
                return;
            }
            self.refresh_inbox(key);
        }
        effects.list.push(Effect::TakeCancelled { plugin, lane });
    }

    pub(super) fn return_events(&mut self, plugin: &PluginName, lane: Lane) {
        if let Some(&key) = self.plugins.get(plugin) {
            self.sessions[key].plugin_inbox().put_back(lane, |_| Verdict::Back);
            self.refresh_inbox(key);
        }
    }

    /// Notes that a plugin has got an event, if it waits for one.
    fn wake(&mut self, key: SessionKey) {
        let inbox = self.sessions[key].plugin_inbox();
        if !inbox.woken {
            inbox.woken = true;
            self.woken.push(key);
        }
    }

    pub(super) fn serve_woken(&mut self, now: Timestamp, effects: &mut Effects) {
        for key in std::mem::take(&mut self.woken) {
            self.sessions[key].plugin_inbox().woken = false;
            self.serve(now, key, effects);
        }
    }

    /// Hands out a batch to each lane of a plugin that waits for one, if there is one.
    pub(super) fn serve(&mut self, now: Timestamp, key: SessionKey, effects: &mut Effects) {
        for lane in self.sessions[key].plugin_inbox().waiting() {
            let inbox = self.sessions[key].plugin_inbox();
            let taken = inbox.take(now, lane, self.limits.batch_bytes);
            if !taken.events.is_empty() {
                let plugin = inbox.plugin.clone();
                effects.list.push(Effect::Events { plugin, lane, events: taken.events });
            }
            for event in &taken.expired {
                self.let_go_event(key, event, effects);
                effects.drop_counted(DropReason::Expired, 1);
            }
        }
        self.refresh_inbox(key);
    }

    /// Sees to it that the broker looks at an inbox when it has something to hand out.
    pub(super) fn refresh_inbox(&mut self, key: SessionKey) {
        let inbox = self.sessions[key].plugin_inbox();
        let wanted = inbox.next_due();
        let has_ready = inbox.has_ready();
        let current = std::mem::replace(&mut inbox.deadline, wanted);
        if current != wanted {
            if let Some(at) = current {
                self.deadlines.remove(&(at, Deadline::Retry(key)));
            }
            self.deadlines.extend(wanted.map(|at| (at, Deadline::Retry(key))));
        }
        if has_ready {
            self.wake(key);
        }
    }

    // ------------------------------------------------------------------------------------------ handled

    pub(super) fn settle(
        &mut self,
        now: Timestamp,
        plugin: PluginName,
        lane: Lane,
        settlement: Settlement,
        effects: &mut Effects,
    ) {
        let Some(&key) = self.plugins.get(&plugin) else { return };
        let before = effects.last_change();
        let inbox = self.sessions[key].plugin_inbox();
        if !inbox.lane_is_out(lane) {
            return;
        }
        let outcomes: BTreeMap<Sequence, &Outcome> =
            settlement.outcomes.iter().map(|(sequence, outcome)| (*sequence, outcome)).collect();
        let left = inbox.put_back(lane, |event| match outcomes.get(&event.sequence) {
            Some(Outcome::Done | Outcome::DeadLetter(_)) => Verdict::Leave,
            Some(Outcome::RetryAt(at)) => Verdict::RetryAt(*at),
            None => Verdict::Back,
        });
        for event in left {
            match outcomes.get(&event.sequence) {
                Some(Outcome::DeadLetter(reason)) => self.give_up(now, key, event, reason, effects),
                Some(Outcome::Done | Outcome::RetryAt(_)) | None => self.handled(key, event, effects),
            }
        }
        self.carry_out(now, key, settlement, before, effects);
        effects.list.push(Effect::Settled { plugin, lane, after: effects.since(before) });
        self.end_full_probation(key, effects);
        self.refresh_inbox(key);
    }

    pub(super) fn commit(
        &mut self,
        now: Timestamp,
        plugin: PluginName,
        ticket: CommitTicket,
        settlement: Settlement,
        effects: &mut Effects,
    ) {
        let Some(&key) = self.plugins.get(&plugin) else { return };
        let before = effects.last_change();
        self.carry_out(now, key, settlement, before, effects);
        effects.list.push(Effect::Committed { plugin, ticket, after: effects.since(before) });
        self.refresh_inbox(key);
    }

    /// Does what handlers asked for. Whoever hears of it does so once the changes that follow `before` are durable, and those
    /// that the plugin made earlier, which the handlers may have read; and what led to their events.
    fn carry_out(
        &mut self,
        now: Timestamp,
        key: SessionKey,
        settlement: Settlement,
        before: ChangeNumber,
        effects: &mut Effects,
    ) {
        let outer = effects.hold_upon(effects.recorded(self.sessions[key].rests_on));
        effects.hold_since(before);
        let Settlement { outcomes: _, publishes, writes, timers, disconnects } = settlement;
        let inbox = self.sessions[key].plugin_inbox();
        let state = inbox.state;
        let undo = inbox.probation.as_ref().is_some_and(|probation| probation.previous.state == state);
        for write in writes {
            effects.record(Change::StateWritten { state, write, undo });
        }
        for write in timers {
            match write.timer {
                Some(timer) => self.set_timer(key, write.name, timer, effects),
                None => self.cancel_timer(key, &write.name, effects),
            }
        }
        let (place, is_first) = (effects.list.len(), effects.since(before) == ChangeNumber(0));
        for message in publishes {
            let origin = Origin { session: Some(key), refusable: false };
            let _ = self.route(now, Arc::new(message), origin, effects);
        }
        for client in disconnects {
            if let Some(&key) = self.clients.get(&client) {
                self.close(now, key, ReasonCode::AdministrativeAction, effects);
            }
        }
        if is_first && effects.since(before) != ChangeNumber(0) {
            // Something was published before there was a change to rest on: all shows together, or nothing.
            effects.rest_upon(place, effects.held());
        }
        effects.let_hold(outer);
        self.sessions[key].rest_upon(effects.since(before));
    }

    /// An event was handled: it leaves, or is kept while its revision is on probation.
    fn handled(&mut self, key: SessionKey, event: Event, effects: &mut Effects) {
        let session = self.sessions[key].id;
        match &mut self.sessions[key].plugin_inbox().probation {
            Some(probation) if event.stored.is_some() => {
                effects.record(Change::Kept { session, sequence: event.sequence });
                probation.keep(event);
            }
            Some(_) | None => self.let_go_event(key, &event, effects),
        }
    }

    // ------------------------------------------------------------------------------------------ given up

    /// An event is given up.
    fn give_up(&mut self, now: Timestamp, key: SessionKey, event: Event, reason: &Arc<str>, effects: &mut Effects) {
        let (content, attempts) = (event.message.clone(), event.attempt.saturating_add(1));
        let letter = DeadLetter { content, reason: reason.clone(), attempts, at: now };
        self.bury(key, event.sequence, letter, effects);
        self.let_go_event(key, &event, effects);
        let most = self.limits.probation_events;
        if let Some(probation) = &mut self.sessions[key].plugin_inbox().probation
            && probation.given_up.len() < most
        {
            probation.given_up.push(event);
        }
    }

    /// Keeps an event as a dead letter; the oldest makes room.
    fn bury(&mut self, key: SessionKey, sequence: Sequence, letter: DeadLetter, effects: &mut Effects) {
        let session = self.sessions[key].id;
        self.tell_of_dead_letter(key, sequence, &letter);
        effects.record(Change::DeadLettered { session, sequence, letter });
        let limit = self.limits.dead_letters;
        let dead_letters = &mut self.sessions[key].plugin_inbox().dead_letters;
        dead_letters.insert(sequence);
        while dead_letters.len() > limit {
            let Some(sequence) = dead_letters.pop_first() else { break };
            effects.record(Change::DeadLetterDropped { session, sequence });
            effects.drop_counted(DropReason::DeadLettersFull, 1);
        }
    }

    pub(super) fn change_dead_letters(
        &mut self,
        now: Timestamp,
        plugin: PluginName,
        letters: Vec<(Sequence, DeadLetterAction)>,
        effects: &mut Effects,
    ) {
        let before = effects.last_change();
        let mut count = 0;
        if let Some(&key) = self.plugins.get(&plugin) {
            for (sequence, action) in letters {
                count += u32::from(self.change_dead_letter(now, key, sequence, action, effects));
            }
            self.refresh_inbox(key);
        }
        effects.list.push(Effect::DeadLettersChanged { plugin, count, after: effects.since(before) });
    }

    /// Hands a dead letter out again, if the inbox takes it, or drops it; says whether it did.
    fn change_dead_letter(
        &mut self,
        now: Timestamp,
        key: SessionKey,
        sequence: Sequence,
        action: DeadLetterAction,
        effects: &mut Effects,
    ) -> bool {
        if let DeadLetterAction::Replay(content) = &action
            && !self.fits_inbox(key, content.weight())
        {
            return false;
        }
        let session = self.sessions[key].id;
        if !self.sessions[key].plugin_inbox().dead_letters.remove(&sequence) {
            return false;
        }
        effects.record(Change::DeadLetterDropped { session, sequence });
        if let DeadLetterAction::Replay(content) = action {
            // Whoever asks for it wants it handled, however old it is.
            let message = Message { expires_at: None, ..Message::clone(&content) };
            self.hand_in(now, key, message, effects);
        }
        true
    }

    // ------------------------------------------------------------------------------------------ in

    /// Gives a plugin an event of the broker's own making, durably.
    pub(super) fn hand_in(&mut self, now: Timestamp, key: SessionKey, message: Message, effects: &mut Effects) {
        let to = Addressee { session: key, qos: Qos::AtLeastOnce, retain: false, share: None, identifiers: None };
        self.deliver_to_inbox(now, &to, &mut Parcel::new(Arc::new(message)), effects);
    }

    /// Whether a plugin's inbox takes one more event of this weight.
    pub(super) fn fits_inbox(&self, key: SessionKey, weight: usize) -> bool {
        self.sessions[key].inbox.as_ref().is_some_and(|inbox| {
            inbox.len() < self.limits.inbox_events && inbox.bytes() + weight <= self.limits.inbox_bytes
        })
    }

    pub(super) fn deliver_to_inbox(
        &mut self,
        now: Timestamp,
        to: &Addressee,
        parcel: &mut Parcel,
        effects: &mut Effects,
    ) {
        let key = to.session;
        if !self.fits_inbox(key, parcel.weight) {
            return self.overflow_inbox(now, to, &parcel.message, effects);
        }
        let sequence = self.identifiers.sequence(effects);
        let mut stored = None;
        if to.qos != Qos::AtMostOnce {
            let message = parcel.store(&mut self.identifiers, effects);
            let entry = QueueEntry {
                message,
                qos: to.qos,
                retain: to.retain,
                subscription_identifiers: None,
                packet_id: None,
                share: to.share,
                weight: parcel.noted_weight(),
                replayed: false,
            };
            effects.record(Change::Queued { session: self.sessions[key].id, sequence, entry });
            stored = Some(message);
        } else {
            self.sessions[key].rest_upon(effects.held_later());
        }
        let lane_waits = self.sessions[key].plugin_inbox().push(Event {
            message: parcel.message.clone(),
            sequence,
            stored,
            share: to.share,
            qos: to.qos,
            retain: to.retain,
            attempt: 0,
            not_before: Timestamp(0),
            replayed: false,
        });
        if lane_waits {
            self.wake(key);
        }
    }

    /// A message that nobody keeps for a full inbox: at QoS 1 and 2 it becomes a dead letter, unless it stays retained.
    fn overflow_inbox(&mut self, now: Timestamp, to: &Addressee, message: &Arc<Message>, effects: &mut Effects) {
        effects.drop_counted(DropReason::InboxFull, 1);
        if to.qos != Qos::AtMostOnce && !to.retain {
            let sequence = self.identifiers.sequence(effects);
            let reason = "the inbox is full".into();
            let letter = DeadLetter { content: message.clone(), reason, attempts: 0, at: now };
            self.bury(to.session, sequence, letter, effects);
        }
    }

    /// An event does not need its message any more.
    pub(super) fn let_go_event(&mut self, key: SessionKey, event: &Event, effects: &mut Effects) {
        if let Some(message) = event.stored {
            let (session, sequence) = (self.sessions[key].id, event.sequence);
            effects.record(Change::Dequeued { session, sequence, message });
        }
    }
}
