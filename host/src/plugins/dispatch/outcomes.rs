//! What a call came to: from what the guest said of each event to what becomes of it.
//!
//! Nothing happens here. Whether the outcome counts is decided when it is handed to the broker, so what is to be logged and
//! counted then is collected too.

use std::collections::BTreeMap;

use vespiary_core::Timestamp;
use vespiary_core::event::{
    EventKey, EventKind, InboxEvent, Outcome, PluginName, REQUEST_TIMER, Sequence, Settlement, TimerWrite,
};

use super::super::report::FailureReport;
use crate::wasm::{EventResult, Handled, LogLevel};

/// First pause before a failed event is handed out again, in milliseconds; doubles with each attempt.
const FIRST_RETRY_MS: u64 = 1_000;
/// Longest pause by itself, in milliseconds.
const LONGEST_RETRY_MS: u64 = 60_000;
/// Longest pause that a plugin may ask for, in milliseconds.
const LONGEST_ASKED_RETRY_MS: u64 = 86_400_000;

/// What is known when a call is over.
pub(super) struct CallContext<'a> {
    /// Whose call it was.
    pub plugin: &'a PluginName,
    /// Number and version of its revision.
    pub revision: (u32, &'a str),
    /// What keeps its place in the order.
    pub key: EventKey,
    /// Times an event is handed out.
    pub attempts: u32,
    /// The time.
    pub now: Timestamp,
    /// Timers that fall due again once their events are done with.
    pub again: BTreeMap<Sequence, TimerWrite>,
}

/// What a call came to.
#[derive(Debug, Default)]
pub(super) struct Outcomes {
    /// For the broker.
    pub settlement: Settlement,
    /// What each event that is named there says of the code, in order.
    pub verdicts: Vec<Verdict>,
    /// The timers that the plugin set or cancelled by itself.
    pub own_timers: Vec<TimerWrite>,
    /// For the plugin's log.
    pub lines: Vec<(LogLevel, String)>,
    /// Uses that were denied.
    pub denied: u64,
}

/// What an event says of the code that handled it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It was handled.
    Succeeded,
    /// It was refused with a reason, which is an answer and not a failure.
    Rejected(String),
    /// It failed.
    Failed(String),
}

/// What becomes of an event for which the component has no handler: a message that an earlier revision was to handle is kept as a
/// dead letter; that a timer fell due, or a request of the HTTP service was answered, is nobody's business.
pub(super) fn unheard(event: &InboxEvent, interface: &str) -> Handled {
    let result = match EventKind::of(&event.message.topic) {
        EventKind::Timer | EventKind::Response => EventResult::Done,
        EventKind::Message | EventKind::Client => {
            EventResult::Reject(format!("the component does not export `{interface}`"))
        }
    };
    Handled {
        sequence: event.sequence,
        result,
        publishes: Vec::new(),
        writes: Vec::new(),
        timers: Vec::new(),
        disconnects: Vec::new(),
        denied: 0,
    }
}

impl CallContext<'_> {
    /// Turns what the guest said into what becomes of each event.
    ///
    /// An event that is put back is not overtaken by a later one of its key. The batch ends before such a one: it and all
    /// after it, which may have read what it wrote, are left to be handed out again.
    pub(super) fn outcomes(&self, events: &[InboxEvent], handled: Vec<Handled>) -> Outcomes {
        let mut outcomes = Outcomes::with_room_for(&handled);
        let mut put_back: Vec<&str> = Vec::new();
        for (one, event) in handled.into_iter().zip(events) {
            debug_assert_eq!(one.sequence, event.sequence, "one result for each event, in order");
            if put_back.contains(&key_of(self.key, event)) {
                break;
            }
            outcomes.denied += u64::from(one.denied);
            match &one.result {
                EventResult::Done => {
                    self.set_again(event, &mut outcomes);
                    outcomes.take_effects(one, event.replayed);
                    outcomes.name(event, Outcome::Done, Verdict::Succeeded);
                }
                EventResult::Retry { reason, after_ms } => {
                    if matches!(self.fail(event, reason, *after_ms, &mut outcomes), Outcome::RetryAt(_)) {
                        put_back.push(key_of(self.key, event));
                    }
                }
                EventResult::Reject(reason) => {
                    let report = self.report(event, reason);
                    self.give_up(event, report.clone(), Verdict::Rejected(report), &mut outcomes);
                }
                EventResult::Untouched => {}
            }
        }
        outcomes
    }

    /// A call failed as a whole, for its only event.
    pub(super) fn failed_alone(&self, event: &InboxEvent, reason: &str) -> Outcomes {
        let mut outcomes = Outcomes::default();
        self.fail(event, reason, None, &mut outcomes);
        outcomes
    }

    /// Puts an event back with a pause, or gives it up after the last attempt.
    fn fail(&self, event: &InboxEvent, reason: &str, after_ms: Option<u64>, outcomes: &mut Outcomes) -> Outcome {
        let report = self.report(event, reason);
        let attempts = event.attempt + 1;
        if attempts >= self.attempts {
            let reason = format!("failed {attempts} times, the last time: {report}");
            return self.give_up(event, reason, Verdict::Failed(report), outcomes);
        }
        outcomes.lines.push((LogLevel::Warn, format!("failed: {report}")));
        let outcome = Outcome::RetryAt(self.now.after_ms(pause_ms(event.attempt, after_ms)));
        outcomes.name(event, outcome.clone(), Verdict::Failed(report));
        outcome
    }

    fn give_up(&self, event: &InboxEvent, reason: String, verdict: Verdict, outcomes: &mut Outcomes) -> Outcome {
        outcomes.lines.push((LogLevel::Error, format!("dead letter: {reason}")));
        self.set_again(event, outcomes);
        let outcome = Outcome::DeadLetter(reason.into());
        outcomes.name(event, outcome.clone(), verdict);
        outcome
    }

    /// Sets a timer that has a schedule again, unless an earlier event of the batch touched it.
    fn set_again(&self, event: &InboxEvent, outcomes: &mut Outcomes) {
        if let Some(write) = self.again.get(&event.sequence)
            && !outcomes.own_timers.iter().any(|own| own.name == write.name)
        {
            outcomes.settlement.timers.push(write.clone());
        }
    }

    fn report(&self, event: &InboxEvent, reason: &str) -> String {
        FailureReport { plugin: self.plugin, revision: self.revision, event, reason }.to_string()
    }
}

impl Outcomes {
    /// Nothing yet, with room for what these can come to, so that no list is moved while it grows.
    fn with_room_for(handled: &[Handled]) -> Self {
        let mut outcomes = Self { verdicts: Vec::with_capacity(handled.len()), ..Self::default() };
        outcomes.settlement.outcomes.reserve_exact(handled.len());
        outcomes.settlement.writes.reserve_exact(handled.iter().map(|one| one.writes.len()).sum());
        outcomes
    }

    fn name(&mut self, event: &InboxEvent, outcome: Outcome, verdict: Verdict) {
        self.settlement.outcomes.push((event.sequence, outcome));
        self.verdicts.push(verdict);
    }

    /// Takes what an event that is done did. What a replayed one published has gone out already, its requests are under
    /// way, and whom it disconnected has been.
    fn take_effects(&mut self, one: Handled, replayed: bool) {
        self.settlement.writes.extend(one.writes);
        let is_kept = |timer: &TimerWrite| !replayed || !timer.name.starts_with(REQUEST_TIMER);
        for timer in one.timers.into_iter().filter(is_kept) {
            if !timer.name.starts_with(REQUEST_TIMER) {
                self.own_timers.push(timer.clone());
            }
            self.settlement.timers.push(timer);
        }
        if !replayed {
            self.settlement.publishes.extend(one.publishes);
            self.settlement.disconnects.extend(one.disconnects);
        }
    }
}

/// What of an event keeps its place in the order.
fn key_of(key: EventKey, event: &InboxEvent) -> &str {
    let topic = event.message.topic.as_str();
    match key {
        EventKey::Topic => topic,
        EventKey::Publisher => &event.message.publisher,
        EventKey::Level(level) => topic.split('/').nth(usize::from(level)).unwrap_or(topic),
    }
}

/// Milliseconds until an event that failed comes again.
fn pause_ms(attempt: u32, asked_ms: Option<u64>) -> u64 {
    if let Some(asked_ms) = asked_ms {
        return asked_ms.min(LONGEST_ASKED_RETRY_MS);
    }
    let pause_ms = (FIRST_RETRY_MS << attempt.min(16)).min(LONGEST_RETRY_MS);
    // A fifth of jitter keeps events that failed together from coming back together.
    pause_ms - pause_ms / 10 + fastrand::u64(0..=pause_ms / 5)
}

#[cfg(test)]
mod tests;
