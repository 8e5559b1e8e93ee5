//! Which hooks are live, in the order in which they are asked, and whom a packet concerns.
//!
//! Immutable. The number of hooks and of their filters is bounded by the manifests', so filters are tried one by one; they
//! are only looked at where somebody asked for the kind of packet at all.

use std::sync::Arc;
use std::sync::Mutex;

use vespiary_core::event::PluginName;
use vespiary_core::{Topic, TopicFilter};

use super::Wanted;
use super::live::{Entry, HookCounts, Live};
use super::queue::Threads;
use crate::plugins::breaker::Breaker;
use crate::plugins::manifest::{Action, Hook, HookDeclaration};

/// Failures in a row after which a hook is not asked for a while.
const BREAKER_FAILURES: u32 = 10;

/// The live hooks.
#[derive(Debug, Default)]
pub struct Set {
    /// All, in the order in which they are asked: by priority, then by the plugin's name, then as declared.
    entries: Vec<Arc<Entry>>,
}

impl Set {
    /// This set with the hooks of a plugin, in the place of those that it had.
    pub(super) fn with(&self, live: &Arc<Live>, declarations: &[HookDeclaration], threads: &Threads) -> Self {
        let mut set = self.without(&live.plugin);
        set.entries.extend(declarations.iter().map(|declaration| {
            Arc::new(Entry {
                live: Arc::clone(live),
                declaration: declaration.clone(),
                breaker: Mutex::new(Breaker::new(BREAKER_FAILURES)),
                threads: threads.clone(),
            })
        }));
        set.entries
            .sort_by(|a, b| (a.declaration.priority, &a.live.plugin).cmp(&(b.declaration.priority, &b.live.plugin)));
        set
    }

    /// This set without the hooks of a plugin.
    pub(super) fn without(&self, plugin: &PluginName) -> Self {
        let others = self.entries.iter().filter(|entry| entry.live.plugin != *plugin);
        Self { entries: others.cloned().collect() }
    }

    /// What is [wanted](Wanted), a bit each.
    pub(super) fn wanted(&self) -> u64 {
        self.entries.iter().fold(0, |bits, entry| bits | wanted(&entry.declaration))
    }

    pub(super) fn counts(&self) -> Vec<(PluginName, HookCounts)> {
        let mut counts: Vec<(PluginName, HookCounts)> = Vec::new();
        for entry in &self.entries {
            if counts.iter().all(|(plugin, _)| *plugin != entry.live.plugin) {
                counts.push((entry.live.plugin.clone(), entry.live.counts()));
            }
        }
        counts
    }

    /// Whether somebody wants to say who clients are.
    pub fn wants_authentication(&self) -> bool {
        self.of(Hook::Authenticate).next().is_some()
    }

    /// Whether somebody answers for an Authentication Method.
    pub fn offers(&self, method: &str) -> bool {
        self.of_method(method).is_some()
    }

    /// Whether somebody wants to be asked about a will for this topic.
    pub fn wants_will(&self, topic: &Topic) -> bool {
        self.of_action(Action::Will).any(|entry| entry.matches(topic))
    }

    /// Whether somebody wants to be asked about a publish to this topic.
    pub fn wants_publish(&self, topic: &Topic) -> bool {
        self.of_action(Action::Publish).chain(self.of(Hook::InterceptPublish)).any(|entry| entry.matches(topic))
    }

    /// Whether somebody wants to be asked about a subscription with this filter.
    pub fn wants_subscription(&self, filter: &TopicFilter) -> bool {
        self.of_action(Action::Subscribe).chain(self.of(Hook::InterceptSubscribe)).any(|entry| entry.overlaps(filter))
    }

    /// Whether somebody wants to be asked before a message of this topic leaves.
    pub fn wants_delivery(&self, topic: &Topic) -> bool {
        self.of(Hook::InterceptDeliver).any(|entry| entry.matches(topic))
    }

    /// The entries of one hook, in order.
    pub(super) fn of(&self, hook: Hook) -> impl Iterator<Item = &Arc<Entry>> {
        self.entries.iter().filter(move |entry| entry.declaration.hook == hook)
    }

    /// The entries of `authorize` that are asked about an action, in order.
    pub(super) fn of_action(&self, action: Action) -> impl Iterator<Item = &Arc<Entry>> {
        self.of(Hook::Authorize).filter(move |entry| entry.declaration.actions.contains(&action))
    }

    /// The entry that answers for an Authentication Method.
    pub(super) fn of_method(&self, method: &str) -> Option<&Arc<Entry>> {
        self.of(Hook::AuthStep).find(|entry| entry.declaration.methods.iter().any(|offered| offered == method))
    }
}

/// What a declaration wants, a bit each.
fn wanted(declaration: &HookDeclaration) -> u64 {
    let of_action = |action| match action {
        Action::Publish => Wanted::Publishes as u64,
        Action::Subscribe => Wanted::Subscriptions as u64,
        Action::Will => Wanted::Wills as u64,
    };
    match declaration.hook {
        Hook::Authenticate => Wanted::Authentication as u64,
        Hook::AuthStep => Wanted::Methods as u64,
        Hook::Authorize => declaration.actions.iter().fold(0, |bits, action| bits | of_action(*action)),
        Hook::InterceptPublish => Wanted::Publishes as u64,
        Hook::InterceptSubscribe => Wanted::Subscriptions as u64,
        Hook::InterceptDeliver => Wanted::Deliveries as u64,
    }
}

impl Entry {
    /// Whether a topic name is one of those for which it is asked.
    pub(super) fn matches(&self, topic: &Topic) -> bool {
        self.declaration.filters.iter().any(|filter| filter.matches(topic))
    }

    /// Whether a subscription may bring messages of topics for which it is asked.
    pub(super) fn overlaps(&self, filter: &TopicFilter) -> bool {
        let shared = filter.shared().map(|(_, filter)| filter);
        let filter = shared.as_ref().unwrap_or(filter);
        self.declaration.filters.iter().any(|own| overlap(own, filter))
    }
}

/// Whether there is a topic name that both match.
fn overlap(one: &TopicFilter, other: &TopicFilter) -> bool {
    let is_wild = |level: Option<&str>| matches!(level, Some("+" | "#"));
    let is_reserved = |filter: &TopicFilter| filter.as_str().starts_with('$');
    // Wildcards at the first level do not match topics that begin with `$` [MQTT-4.7.2-1].
    if (is_reserved(one) && is_wild(other.levels().next())) || (is_reserved(other) && is_wild(one.levels().next())) {
        return false;
    }
    let (mut one, mut other) = (one.levels(), other.levels());
    loop {
        match (one.next(), other.next()) {
            (Some("#"), _) | (_, Some("#")) | (None, None) => return true,
            (Some("+"), Some(_)) | (Some(_), Some("+")) => {}
            (Some(one), Some(other)) if one == other => {}
            (Some(_), Some(_)) | (None, Some(_)) | (Some(_), None) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_overlap_where_one_topic_matches_both() {
        for (one, other, expected) in [
            ("a/b", "a/b", true),
            ("a/b", "a/c", false),
            ("a/+", "+/b", true),
            ("a/+", "a", false),
            ("a/#", "a", true),
            ("a/#", "b/#", false),
            ("#", "a/b/c", true),
            ("+/+", "#", true),
            ("a/+/c", "a/b/#", true),
            ("a/+/c", "a/b/d", false),
            ("#", "$SYS/x", false),
            ("+/x", "$SYS/x", false),
            ("$SYS/#", "$SYS/x", true),
        ] {
            let parse = |filter| TopicFilter::parse(filter).unwrap();
            assert_eq!(overlap(&parse(one), &parse(other)), expected, "{one} {other}");
            assert_eq!(overlap(&parse(other), &parse(one)), expected, "{other} {one}");
        }
    }
}
