//! What an operator can see of plugins: the serialised forms of the admin API's answers.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;
use vespiary_core::broker::PluginStatus;
use vespiary_core::event::{DeadLetter, EventKey, PluginName, Sequence};
use vespiary_core::{Limits, Message};

use super::Plugins;
use super::counts::Counts;
use super::deploy::{DeployError, hex};
use super::grants::Grants;
use super::log::Entry;
use super::plugin::{Plugin, Run};
use crate::clock::wall_clock;
use crate::config;

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
    /// Whether its revision is on probation.
    #[serde(default)]
    pub on_probation: bool,
    /// The share of the keys, in percent, that its canary gets, if it has one.
    #[serde(default)]
    pub canary_percent: Option<u8>,
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
    /// Secrets that it may read, and whether they are configured.
    #[serde(default)]
    pub secrets: BTreeMap<String, bool>,
    /// Hosts that it may call.
    #[serde(default)]
    pub http_hosts: Vec<String>,
    /// Whether it may disconnect clients.
    #[serde(default)]
    pub disconnects: bool,
    /// Hooks that it is asked at.
    #[serde(default)]
    pub hooks: Vec<String>,
    /// Timers that its manifest declares, with their cron expressions.
    #[serde(default)]
    pub schedules: BTreeMap<String, String>,
    /// Whether it has an HTTP service.
    #[serde(default)]
    pub serves: bool,
    /// Version of its state.
    #[serde(default)]
    pub state_version: u32,
    /// Name of the generation of its state in use.
    #[serde(default)]
    pub state_generation: Option<u64>,
    /// How its events are spread.
    #[serde(default)]
    pub lanes: LanesView,
    /// Its breaker, where that is not closed.
    #[serde(default)]
    pub breaker: Option<BreakerView>,
    /// Its probation, if it is on one.
    #[serde(default)]
    pub probation: Option<TrialView>,
    /// Its canary, if it has one.
    #[serde(default)]
    pub canary: Option<TrialView>,
    /// What became of the last new code that failed its trial since the broker started.
    #[serde(default)]
    pub rolled_back: Option<String>,
    /// Counters since the broker started, and the last failure.
    pub counts: Counts,
    /// What it uses of its bounds.
    #[serde(default)]
    pub usage: UsageView,
    /// The key that signed its component, if one did.
    #[serde(default)]
    pub signed_by: Option<String>,
    /// The revisions that are kept, newest first.
    pub history: Vec<KeptRevision>,
    /// The oldest dead letters.
    pub dead_letters: Vec<DeadLetterView>,
    /// The bounds that it runs under.
    pub limits: LimitsView,
}

/// How events are spread.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LanesView {
    /// Lanes.
    pub lanes: u16,
    /// `topic`, `client` or `level N`.
    pub key: String,
    /// Lanes with a batch under way.
    pub busy: usize,
}

/// A breaker that is not closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakerView {
    /// `open` or `half-open`.
    pub state: String,
    /// Since when, in milliseconds since the Unix epoch.
    pub since: u64,
    /// Until when nothing is tried, in milliseconds since the Unix epoch; none where one event is tried now.
    pub until: Option<u64>,
    /// Why.
    pub reason: String,
}

/// New code on trial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrialView {
    /// Its version.
    pub version: String,
    /// Of a probation, the revision to go back to; of a canary, the one beside which it runs.
    pub beside: u32,
    /// Since when, in milliseconds since the Unix epoch.
    pub since: u64,
    /// When it is over, in milliseconds since the Unix epoch; none for a canary, which an operator ends.
    pub until: Option<u64>,
    /// Events so far.
    pub events: u64,
    /// Events after which it is over; none for a canary.
    pub of_events: Option<u64>,
    /// Events that failed so far.
    pub failures: u64,
}

/// What a plugin uses of its bounds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageView {
    /// Events in its inbox.
    pub inbox_events: usize,
    /// Their weight in bytes.
    pub inbox_bytes: usize,
    /// Bytes of keys and values of its state.
    pub state_bytes: u64,
    /// Timers set, and requests that wait for an answer.
    pub timers: usize,
    /// Keys of which an event failed and waits for its next attempt.
    pub retrying: usize,
    /// Dead letters kept.
    pub dead_letters: usize,
    /// Instances alive that wait for events.
    pub instances: usize,
    /// Bytes of their memory, at most.
    pub memory_bytes: u64,
    /// Most messages that one settlement published.
    pub most_publishes: u64,
    /// Events remembered for dry runs.
    pub recent_events: usize,
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

/// An event that was given up, with its message.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeadLetterContent {
    /// What the list shows.
    #[serde(flatten)]
    pub letter: DeadLetterView,
    /// The payload.
    pub payload: Vec<u8>,
    /// QoS it was published with.
    pub qos: u8,
    /// Whether it was published as retained.
    pub retain: bool,
    /// Who published it.
    pub publisher: String,
    /// The publisher's user name.
    pub user: Option<String>,
    /// When the broker took it, in milliseconds since the Unix epoch.
    pub received_at: u64,
    /// Its user properties.
    pub user_properties: Vec<(String, String)>,
}

/// The bounds of one plugin.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitsView {
    /// Bytes of memory of an instance.
    pub memory_bytes: usize,
    /// Milliseconds of computing in one call.
    pub call_deadline_ms: u64,
    /// Publishes of one call.
    pub publishes_per_call: usize,
    /// Bytes of keys and values of the state.
    #[serde(default)]
    pub state_bytes: u64,
    /// Lines that an instance logs in a second.
    #[serde(default)]
    pub log_lines_per_s: u32,
    /// Timers set, and requests that wait for an answer.
    #[serde(default)]
    pub timers: usize,
    /// Dead letters kept.
    #[serde(default)]
    pub dead_letters: usize,
    /// Events in the inbox.
    pub inbox_events: usize,
    /// Their weight in bytes.
    #[serde(default)]
    pub inbox_bytes: usize,
    /// Requests to the HTTP service at a time.
    #[serde(default)]
    pub http_requests: usize,
    /// Times an event is handed out.
    pub attempts: u32,
}

/// What the broker counts of one plugin.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InboxView {
    /// Events in its inbox.
    pub events: usize,
    /// Their weight in bytes.
    pub bytes: usize,
    /// Keys of which an event failed and waits for its next attempt.
    pub retrying: usize,
    /// Timers set, and requests that wait for an answer.
    pub timers: usize,
    /// Dead letters kept.
    pub dead_letters: usize,
}

/// What the broker counts of each plugin.
pub type Inboxes = BTreeMap<PluginName, InboxView>;

impl From<&PluginStatus<'_>> for InboxView {
    fn from(status: &PluginStatus<'_>) -> Self {
        Self {
            events: status.inbox_events,
            bytes: status.inbox_bytes,
            retrying: status.retrying,
            timers: status.timers,
            dead_letters: status.dead_letters,
        }
    }
}

impl LimitsView {
    /// The bounds of a configuration.
    pub(super) fn new(settings: &config::Plugins, limits: &Limits) -> Self {
        Self {
            memory_bytes: settings.memory_bytes,
            call_deadline_ms: settings.call_deadline_ms,
            publishes_per_call: settings.publishes_per_call,
            state_bytes: settings.state_bytes,
            log_lines_per_s: settings.log_lines_per_s,
            timers: limits.timers,
            dead_letters: limits.dead_letters,
            inbox_events: limits.inbox_events,
            inbox_bytes: limits.inbox_bytes,
            http_requests: settings.http_requests,
            attempts: settings.attempts,
        }
    }
}

impl DeadLetterView {
    pub(super) fn new(sequence: Sequence, letter: &DeadLetter) -> Self {
        Self {
            event: sequence.0,
            topic: letter.content.topic.to_string(),
            reason: letter.reason.to_string(),
            attempts: letter.attempts,
            at: letter.at.0,
        }
    }
}

impl DeadLetterContent {
    pub(super) fn new(sequence: Sequence, letter: &DeadLetter) -> Self {
        let content: &Arc<Message> = &letter.content;
        let properties = content.properties.iter().flat_map(|properties| &properties.user_properties);
        Self {
            letter: DeadLetterView::new(sequence, letter),
            payload: content.payload.to_vec(),
            qos: content.qos as u8,
            retain: content.retain,
            publisher: content.publisher.to_string(),
            user: content.user.as_deref().map(str::to_owned),
            received_at: content.received_at.0,
            user_properties: properties.map(|(name, value)| (name.to_string(), value.to_string())).collect(),
        }
    }
}

impl Plugins {
    /// All plugins, by name.
    pub fn list(&self, inboxes: &Inboxes) -> Vec<Summary> {
        let plugins: Vec<_> = self.plugins().values().cloned().collect();
        plugins.iter().map(|plugin| summary(plugin, inboxes)).collect()
    }

    /// Everything about one plugin.
    pub fn show(&self, name: &PluginName, inboxes: &Inboxes) -> Result<Details, DeployError> {
        let plugin = self.find(name).ok_or_else(|| DeployError::Unknown(name.0.to_string()))?;
        let inbox = inboxes.get(name).copied().unwrap_or_default();
        let (session, state, revision) = plugin.run(|run| (run.session, run.state, run.revision.clone()));
        let signed_by = revision.as_ref().and_then(|revision| self.signer_of(revision));
        let letters = session.map(|session| self.store.dead_letters(session, None, DEAD_LETTERS));
        let letters = letters.transpose()?.unwrap_or_default();
        let state_bytes = state.map_or(Ok(0), |state| self.store.state_bytes(state))?;
        let history = self.store.plugin_history(name)?;
        let summary = summary(&plugin, inboxes);
        let history = history.into_iter().map(|revision| KeptRevision {
            number: revision.number,
            version: revision.version.to_string(),
            digest: hex(&revision.digest),
            activated_at: revision.activated_at.0,
        });
        let letters = letters.iter().map(|(sequence, letter)| DeadLetterView::new(*sequence, letter));
        let (history, dead_letters) = (history.collect(), letters.collect());
        Ok(plugin.run(|run| {
            let grants = run.code.as_ref().map(|code| &code.grants);
            let (warm, memory_bytes) = run.memory();
            Details {
                summary,
                subscribes: list(grants, |grants| {
                    let filters = grants.subscribes.iter();
                    filters.map(|(filter, qos)| format!("{filter} (QoS {})", *qos as u8)).collect()
                }),
                publishes: list(grants, |grants| grants.publishes.iter().map(ToString::to_string).collect()),
                config: list(grants, |grants| grants.config.keys().cloned().collect()),
                secrets: list(grants, |grants| {
                    grants.secrets.iter().map(|(name, value)| (name.clone(), value.is_some())).collect()
                }),
                http_hosts: list(grants, |grants| grants.http_hosts.iter().map(ToString::to_string).collect()),
                disconnects: grants.is_some_and(|grants| grants.disconnects),
                hooks: list(grants, |grants| grants.hooks.iter().map(|one| one.hook.to_string()).collect()),
                schedules: list(grants, |grants| {
                    grants.schedules.iter().map(|one| (one.name.clone(), one.cron.clone())).collect()
                }),
                serves: run.code.as_ref().is_some_and(|code| code.serves),
                state_version: grants.map_or(0, |grants| grants.state_version),
                state_generation: state.map(|state| state.0),
                lanes: run.lanes_view(),
                breaker: run.breaker_view(),
                probation: run.probation_view(),
                canary: run.canary_view(),
                rolled_back: run.rolled_back.clone(),
                counts: run.counts.clone(),
                usage: UsageView {
                    inbox_events: inbox.events,
                    inbox_bytes: inbox.bytes,
                    state_bytes,
                    timers: inbox.timers,
                    retrying: inbox.retrying,
                    dead_letters: inbox.dead_letters,
                    instances: warm,
                    memory_bytes,
                    most_publishes: run.counts.most_publishes,
                    recent_events: run.recent.len(),
                },
                signed_by,
                history,
                dead_letters,
                limits: LimitsView {
                    state_bytes: grants
                        .and_then(|grants| grants.state_bytes)
                        .unwrap_or(self.options.limits.state_bytes),
                    ..self.options.limits
                },
            }
        }))
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
}

impl Run {
    /// Instances that wait for events, and the memory that they have at most.
    fn memory(&self) -> (usize, u64) {
        let warm = self.lanes.iter().filter_map(|lane| lane.instance.as_ref());
        warm.fold((0, 0), |(count, bytes), instance| (count + 1, bytes + instance.memory_bytes() as u64))
    }

    fn lanes_view(&self) -> LanesView {
        let key = match self.arrangement.key {
            EventKey::Topic => "topic".to_owned(),
            EventKey::Publisher => "client".to_owned(),
            EventKey::Level(level) => format!("level {level}"),
        };
        let busy = self.lanes.iter().filter(|lane| lane.is_busy()).count();
        LanesView { lanes: self.arrangement.count, key, busy }
    }

    fn breaker_view(&self) -> Option<BreakerView> {
        let (state, since, until, reason) = self.breaker.trouble()?;
        let until = until.map(|until| until.0);
        Some(BreakerView { state: state.to_owned(), since: since.0, until, reason: reason.to_owned() })
    }

    fn probation_view(&self) -> Option<TrialView> {
        let probation = self.probation.as_ref()?;
        let (trial, length) = (&probation.trial, probation.length);
        Some(TrialView {
            version: self.revision.as_ref().map_or_else(String::new, |revision| revision.version.to_string()),
            beside: probation.previous.number,
            since: trial.began().0,
            until: Some(trial.began().after_ms(length.seconds.saturating_mul(1_000)).0),
            events: trial.events(),
            of_events: Some(length.events),
            failures: trial.failures(),
        })
    }

    fn canary_view(&self) -> Option<TrialView> {
        let canary = self.canary.as_ref()?;
        Some(TrialView {
            version: canary.revision.version.to_string(),
            beside: self.revision.as_ref().map_or(0, |revision| revision.number),
            since: canary.trial.began().0,
            until: None,
            events: canary.trial.events(),
            of_events: None,
            failures: canary.trial.failures(),
        })
    }

    /// What it is doing, in a word and, where it is not running, a reason.
    pub(super) fn status(&self) -> (&'static str, Option<String>) {
        if let Some(reason) = &self.broken {
            return ("broken", Some(reason.clone()));
        }
        if self.swapping {
            return ("swapping", None);
        }
        if self.paused {
            return ("paused", Some("paused by the operator".to_owned()));
        }
        if let Some((until, reason)) = self.breaker.pause() {
            let left_s = until.since_ms(wall_clock()).div_ceil(1_000);
            return ("stopped", Some(format!("{reason}; tried again in {left_s} s")));
        }
        if self.breaker.is_half_open() { ("probing", None) } else { ("running", None) }
    }
}

/// Something of what a plugin is granted; nothing where its code cannot run.
fn list<T: Default>(grants: Option<&Grants>, of: impl FnOnce(&Grants) -> T) -> T {
    grants.map(of).unwrap_or_default()
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
            on_probation: run.probation.is_some(),
            canary_percent: run.canary.as_ref().map(|_| run.arrangement.canary_percent),
            inbox_events: inboxes.get(&plugin.name).map_or(0, |inbox| inbox.events),
            handled: run.counts.handled,
            dead_lettered: run.counts.dead_lettered,
        }
    })
}
