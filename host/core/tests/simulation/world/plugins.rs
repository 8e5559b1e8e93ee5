//! Plugins of a world: they work, are swapped, and go back to what they were; and what must be true of them at the end.

use std::collections::{BTreeMap, BTreeSet};

use vespiary_core::event::{Activation, Change, PluginName, ProbationVerdict, Revision, SessionId};
use vespiary_core::{Input, Message, Qos};

use super::{PUBLISHERS, World};
use crate::client::number_of;
use crate::plugin::Plugin;

/// Keys of each plugin's state, and those that it had at the switch to a revision on probation.
#[derive(Default)]
pub(super) struct States {
    keys: BTreeMap<SessionId, (BTreeSet<u64>, Option<BTreeSet<u64>>)>,
    /// Where each plugin's state is.
    plugins: BTreeMap<PluginName, SessionId>,
    /// Messages of which a plugin ever settled the event.
    settled: BTreeSet<(SessionId, u64)>,
    /// Messages that were ever given up.
    pub(super) given_up: BTreeSet<u64>,
}

impl World {
    /// The next revision of a plugin.
    pub(super) fn activation(&mut self, plugin: usize) -> Activation {
        self.revisions += 1;
        let number = self.revisions;
        let revision = Revision { number, digest: [0; 32], version: "1".into(), activated_at: self.now };
        let subscriptions = vec![(self.plugins[plugin].1.clone(), Qos::ExactlyOnce)];
        Activation { lanes: Plugin::lanes(), ..Activation::plain(revision, subscriptions) }
    }

    /// A new revision of a plugin takes over, on probation; or the probation of the last one ends, one way or the other.
    pub(super) fn swap(&mut self) {
        let place = self.rng.usize(0..self.plugins.len());
        if !self.plugins[place].0.rests() {
            return;
        }
        let plugin = self.plugins[place].0.name.clone();
        let on_probation = self.broker.plugins().any(|it| *it.plugin == plugin && it.probation.is_some());
        let activation = self.activation(place);
        let keeps = on_probation && self.rng.bool();
        if !keeps {
            self.plugins[place].0.is_swapped();
        }
        let input = match on_probation {
            true if keeps => Input::EndProbation { plugin, verdict: ProbationVerdict::Keep },
            true => {
                self.totals.rollbacks += 1;
                Input::EndProbation { plugin, verdict: ProbationVerdict::RollBack(Box::new(activation)) }
            }
            false => {
                let probation = self.rng.u8(..) < 200;
                Input::ActivatePlugin { plugin, activation: Box::new(Activation { probation, ..activation }) }
            }
        };
        self.input(input);
    }

    pub(super) fn step_plugin(&mut self) {
        let plugin = self.rng.usize(0..self.plugins.len());
        if let Some(input) = self.plugins[plugin].0.step(&mut self.rng, self.now, self.calm) {
            self.input(input);
        }
    }

    /// Every acknowledged event of QoS 2 was passed on, or became a dead letter: exactly once.
    pub(super) fn check_plugins(&mut self, acknowledged: &BTreeSet<u64>) {
        let listener = &self.clients[PUBLISHERS];
        for (plugin, filter) in &self.plugins {
            let session = self.broker.plugins().find(|status| *status.plugin == plugin.name).map(|it| it.session);
            let mut handled: BTreeMap<u64, u32> = BTreeMap::new();
            let mut buried: BTreeSet<u64> = BTreeSet::new();
            for (topic, _, number) in &listener.deliveries {
                *handled.entry(*number).or_default() += u32::from(plugin.has_published(topic));
            }
            for change in self.durable.dead_letters() {
                if let Change::DeadLettered { session: of, letter, .. } = change
                    && Some(of) == session
                {
                    *handled.entry(number_of(&letter.content)).or_default() += 1;
                    buried.insert(number_of(&letter.content));
                    self.totals.dead_letters += 1;
                }
            }
            for (number, (topic, qos)) in &self.published {
                let count = handled.get(number).copied().unwrap_or_default();
                if filter.matches(topic) && acknowledged.contains(number) {
                    assert!(count >= 1, "plugin {:?} never handled {number}", plugin.name);
                    assert!(count == 1 || *qos == Qos::AtLeastOnce, "plugin {:?} handled {number} twice", plugin.name);
                    let written = session.is_some_and(|session| self.states.holds(session, *number));
                    let buried = buried.contains(number);
                    assert!(written || buried, "plugin {:?} handled {number} and does not know", plugin.name);
                }
            }
        }
    }
}

impl States {
    pub(super) fn apply(&mut self, change: &Change) {
        match change {
            Change::StateWritten { state, write, .. } => {
                let key = write.key.parse().expect("the number of a message");
                self.keys.entry(*state).or_default().0.insert(key);
                self.settled.insert((*state, key));
            }
            Change::PluginActivated { plugin, state, probation, .. } => {
                self.plugins.insert(plugin.clone(), *state);
                let (keys, before) = self.keys.entry(*state).or_default();
                *before = probation.is_some().then(|| keys.clone());
            }
            Change::ProbationEnded { session, undone, .. } => {
                let (keys, before) = self.keys.entry(*session).or_default();
                let before = before.take().expect("a probation");
                if *undone {
                    *keys = before;
                }
            }
            Change::DeadLettered { letter, .. } => {
                self.given_up.insert(number_of(&letter.content));
            }
            _ => {}
        }
    }

    /// What a plugin made of an event is seen only once the event is settled, durably.
    pub(super) fn check_settled(&self, message: &Message) {
        let Some(plugin) = message.publisher.strip_prefix("$plugin/") else { return };
        let (state, number) = (self.plugins[&PluginName(plugin.into())], number_of(message));
        assert!(self.settled.contains(&(state, number)), "{} shows before plugin {plugin} settled", message.topic);
    }

    fn holds(&self, session: SessionId, number: u64) -> bool {
        self.keys.get(&session).is_some_and(|(keys, _)| keys.contains(&number))
    }
}
