//! What a swap may need beside the switch: a further generation of the state, and a way back.
//!
//! While a revision is on probation, what it handles is kept: on disk in place of being deleted, and here. A rollback puts
//! that back into the inbox, in the old order, for the revision before, whose state is restored as of the switch.

use std::collections::BTreeMap;

use super::Broker;
use super::stored::Parcel;
use crate::event::{
    Activation, Change, Effect, Effects, GenerationStep, PluginName, ProbationRecord, ProbationVerdict, QueueEntry,
    Sequence,
};
use crate::key::SessionKey;
use crate::message::Timestamp;
use crate::session::inbox::{Event, Probation};

impl Broker {
    // ------------------------------------------------------------------------------------------ generations

    pub(super) fn step_generation(&mut self, plugin: PluginName, step: GenerationStep, effects: &mut Effects) {
        let before = effects.last_change();
        let mut state = None;
        if let Some(&key) = self.plugins.get(&plugin) {
            match step {
                GenerationStep::Begin => {
                    self.drop_generation(key, effects);
                    let begun = self.identifiers.session(effects);
                    effects.record(Change::GenerationBegun { plugin: plugin.clone(), state: begun });
                    self.sessions[key].plugin_inbox().generation = Some(begun);
                }
                GenerationStep::Write(writes) => {
                    if let Some(state) = self.sessions[key].plugin_inbox().generation {
                        for write in writes {
                            effects.record(Change::StateWritten { state, write, undo: false });
                        }
                    }
                }
                GenerationStep::Drop => self.drop_generation(key, effects),
            }
            state = self.sessions[key].plugin_inbox().generation;
        }
        effects.list.push(Effect::GenerationStepped { plugin, state, after: effects.since(before) });
    }

    pub(super) fn drop_generation(&mut self, key: SessionKey, effects: &mut Effects) {
        let inbox = self.sessions[key].plugin_inbox();
        if let Some(state) = inbox.generation.take() {
            effects.record(Change::GenerationDropped { plugin: inbox.plugin.clone(), state });
        }
    }

    // ------------------------------------------------------------------------------------------ probation

    pub(super) fn end_probation(
        &mut self,
        now: Timestamp,
        plugin: &PluginName,
        verdict: ProbationVerdict,
        effects: &mut Effects,
    ) {
        let Some(&key) = self.plugins.get(plugin) else { return };
        let Some(probation) = self.sessions[key].plugin_inbox().probation.take() else { return };
        match verdict {
            ProbationVerdict::Keep => self.pass(key, effects),
            ProbationVerdict::RollBack(activation) => self.roll_back(now, key, *probation, *activation, effects),
        }
    }

    /// Ends a probation that has kept as much as it may: its revision stays.
    pub(super) fn end_full_probation(&mut self, key: SessionKey, effects: &mut Effects) {
        let (events, bytes) = (self.limits.probation_events, self.limits.inbox_bytes);
        let inbox = self.sessions[key].plugin_inbox();
        let full = |probation: &Probation| probation.handled.len() >= events || probation.handled_bytes >= bytes;
        if inbox.probation.as_deref().is_some_and(full) {
            inbox.probation = None;
            self.pass(key, effects);
        }
    }

    fn pass(&mut self, key: SessionKey, effects: &mut Effects) {
        let session = self.sessions[key].id;
        let inbox = self.sessions[key].plugin_inbox();
        let (plugin, state) = (inbox.plugin.clone(), inbox.state);
        effects.record(Change::ProbationEnded { plugin: plugin.clone(), session, undone: false });
        let after = effects.last_change();
        effects.list.push(Effect::ProbationEnded { plugin, rolled_back: false, put_back: 0, state, after });
    }

    fn roll_back(
        &mut self,
        now: Timestamp,
        key: SessionKey,
        probation: Probation,
        activation: Activation,
        effects: &mut Effects,
    ) {
        let session = self.sessions[key].id;
        let Probation { previous, handled, handled_bytes: _, given_up } = probation;
        let mut events: BTreeMap<Sequence, Event> = BTreeMap::new();
        for event in handled {
            effects.record(Change::PutBack { session, sequence: event.sequence });
            events.insert(event.sequence, Event { replayed: true, attempt: 0, ..event });
        }
        for event in given_up {
            if let Some(event) = self.raise(key, event, effects) {
                events.insert(event.sequence, event);
            }
        }
        let put_back = u32::try_from(events.len()).unwrap_or(u32::MAX);
        let inbox = self.sessions[key].plugin_inbox();
        let plugin = inbox.plugin.clone();
        inbox.insert(events.into_values());
        effects.record(Change::ProbationEnded { plugin: plugin.clone(), session, undone: true });
        let state = previous.state;
        self.switch(now, key, state, None, activation, effects);
        let after = effects.last_change();
        effects.list.push(Effect::ProbationEnded { plugin, rolled_back: true, put_back, state, after });
    }

    /// Makes a dead letter an event again, under its old number; `None` where it is not there any more.
    fn raise(&mut self, key: SessionKey, event: Event, effects: &mut Effects) -> Option<Event> {
        let (session, sequence) = (self.sessions[key].id, event.sequence);
        if !self.sessions[key].plugin_inbox().dead_letters.remove(&sequence) {
            return None;
        }
        effects.record(Change::DeadLetterDropped { session, sequence });
        let mut parcel = Parcel::new(event.message.clone());
        let message = parcel.store(&mut self.identifiers, effects);
        let entry = QueueEntry {
            message,
            qos: event.qos,
            retain: event.retain,
            subscription_identifiers: None,
            packet_id: None,
            share: event.share,
            weight: parcel.noted_weight(),
            replayed: event.replayed,
        };
        effects.record(Change::Queued { session, sequence, entry });
        Some(Event { stored: Some(message), attempt: 0, not_before: Timestamp(0), ..event })
    }
}

impl Probation {
    /// A probation in which nothing has been handled.
    pub(crate) fn new(previous: ProbationRecord) -> Self {
        Self { previous, handled: Vec::new(), handled_bytes: 0, given_up: Vec::new() }
    }

    /// Keeps an event that was handled.
    pub(crate) fn keep(&mut self, event: Event) {
        self.handled_bytes += event.message.weight();
        self.handled.push(event);
    }
}
