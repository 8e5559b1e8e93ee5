//! What an operator can see of plugins: the serialised forms of the admin API's answers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;
use vespiary_core::event::PluginName;

use super::Plugins;
use super::deploy::{DeployError, hex};
use super::log::Entry;
use super::plugin::{Counts, Plugin};

/// Dead letters shown with a plugin, at most.
const DEAD_LETTERS: usize = 20;

/// One line of `plugin list`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Summary {
    /// Its name.
    pub name: String,
    /// Version of the active revision; empty where there is none.
    pub version: String,
    /// The active revision; 0 where there is none.
    pub revision: u32,
    /// `running`, `probing`, `swapping`, `paused`, `stopped` or `broken`.
    pub status: String,
    /// Why it is not running, where it is not.
    pub reason: Option<String>,
    /// Events that wait in its inbox.
    pub inbox_events: usize,
    /// Events handled since the broker started.
    pub handled: u64,
    /// Events given up since the broker started.
    pub dead_lettered: u64,
}

/// All of `plugin show`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Details {
    /// What the list shows.
    #[serde(flatten)]
    pub summary: Summary,
    /// Topic filters that it listens to.
    pub subscribes: Vec<String>,
    /// Topic filters that it may publish to.
    pub publishes: Vec<String>,
    /// Names of the settings that it is configured with; values may be confidential.
    pub config: Vec<String>,
    /// Counters since the broker started, and the last failure.
    pub counts: Counts,
    /// The revisions that are kept, newest first.
    pub history: Vec<KeptRevision>,
    /// The newest dead letters.
    pub dead_letters: Vec<DeadLetterView>,
    /// The bounds that it runs under.
    pub limits: LimitsView,
}

/// A revision that is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KeptRevision {
    /// Its number.
    pub number: u32,
    /// Its version.
    pub version: String,
    /// SHA-256 of its component, in hex.
    pub digest: String,
    /// When it became active, in milliseconds since the Unix epoch.
    pub activated_at: u64,
}

/// An event that was given up.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeadLetterView {
    /// The event's identity.
    pub event: u64,
    /// The topic it was published to.
    pub topic: String,
    /// Why it was given up.
    pub reason: String,
    /// Times it was handed out.
    pub attempts: u32,
    /// When it was given up, in milliseconds since the Unix epoch.
    pub at: u64,
}

/// The bounds of one plugin.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LimitsView {
    /// Bytes of memory of an instance.
    pub memory_bytes: usize,
    /// Milliseconds of computing in one call.
    pub call_deadline_ms: u64,
    /// Publishes of one call.
    pub publishes_per_call: usize,
    /// Events in the inbox.
    pub inbox_events: usize,
    /// Times an event is handed out.
    pub attempts: u32,
}

/// Events that wait in each plugin's inbox, as the broker counts them.
pub type Inboxes = BTreeMap<PluginName, usize>;

impl Plugins {
    /// All plugins, by name.
    pub fn list(&self, inboxes: &Inboxes) -> Vec<Summary> {
        let plugins: Vec<_> = self.plugins().values().cloned().collect();
        plugins.iter().map(|plugin| summary(plugin, inboxes)).collect()
    }

    /// Everything about one plugin.
    pub fn show(&self, name: &PluginName, inboxes: &Inboxes) -> Result<Details, DeployError> {
        let plugin = self.find(name).ok_or_else(|| DeployError::Unknown(name.0.to_string()))?;
        let (grants, counts, session) =
            plugin.run(|run| (run.code.as_ref().map(|code| code.grants.clone()), run.counts.clone(), run.session));
        let letters = match session {
            Some(session) => self.store.dead_letters(session, None, DEAD_LETTERS)?,
            None => Vec::new(),
        };
        let history = self.store.plugin_history(name)?;
        let grants = grants.as_ref();
        Ok(Details {
            summary: summary(&plugin, inboxes),
            subscribes: grants
                .map(|grants| grants.subscribes.iter().map(|(filter, qos)| format!("{filter} (QoS {})", *qos as u8)))
                .into_iter()
                .flatten()
                .collect(),
            publishes: grants
                .map(|grants| grants.publishes.iter().map(ToString::to_string).collect())
                .unwrap_or_default(),
            config: grants.map(|grants| grants.config.keys().cloned().collect()).unwrap_or_default(),
            counts,
            history: history
                .into_iter()
                .map(|revision| KeptRevision {
                    number: revision.number,
                    version: revision.version.to_string(),
                    digest: hex(&revision.digest),
                    activated_at: revision.activated_at.0,
                })
                .collect(),
            dead_letters: letters
                .into_iter()
                .map(|(sequence, letter)| DeadLetterView {
                    event: sequence.0,
                    topic: letter.content.topic.to_string(),
                    reason: letter.reason.to_string(),
                    attempts: letter.attempts,
                    at: letter.at.0,
                })
                .collect(),
            limits: self.limits_view(),
        })
    }

    /// The last lines of a plugin's log, oldest first.
    pub fn logs(&self, name: &PluginName, count: usize) -> Result<Vec<Entry>, DeployError> {
        let plugin = self.find(name).ok_or_else(|| DeployError::Unknown(name.0.to_string()))?;
        Ok(plugin.log.tail(count))
    }

    /// The lines to come in a plugin's log, until it is removed.
    pub fn follow_logs(&self, name: &PluginName) -> Result<broadcast::Receiver<Entry>, DeployError> {
        let plugin = self.find(name).ok_or_else(|| DeployError::Unknown(name.0.to_string()))?;
        Ok(plugin.log.follow())
    }

    fn limits_view(&self) -> LimitsView {
        let options = &self.options;
        LimitsView {
            memory_bytes: options.memory_bytes,
            call_deadline_ms: options.call_deadline_ms,
            publishes_per_call: options.publishes_per_call,
            inbox_events: options.inbox_events,
            attempts: options.attempts,
        }
    }
}

fn summary(plugin: &Plugin, inboxes: &Inboxes) -> Summary {
    plugin.run(|run| {
        let (status, reason) = run.status();
        Summary {
            name: plugin.name.0.to_string(),
            version: run.revision.as_ref().map_or_else(String::new, |revision| revision.version.to_string()),
            revision: run.revision.as_ref().map_or(0, |revision| revision.number),
            status: status.to_owned(),
            reason,
            inbox_events: inboxes.get(&plugin.name).copied().unwrap_or(0),
            handled: run.counts.handled,
            dead_lettered: run.counts.dead_lettered,
        }
    })
}
