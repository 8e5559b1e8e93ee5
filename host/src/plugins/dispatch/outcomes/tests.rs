//! What becomes of events, by what the guest said of them.

use std::sync::Arc;

use vespiary_core::event::{StateWrite, Timer};
use vespiary_core::{Message, Qos, Topic};

use super::*;

fn event(sequence: u64, topic: &str, publisher: &str) -> InboxEvent {
    let message = Message {
        topic: Topic::parse(topic).unwrap(),
        payload: Box::default(),
        qos: Qos::AtLeastOnce,
        retain: false,
        properties: None,
        expires_at: None,
        received_at: Timestamp(0),
        publisher: publisher.into(),
        user: None,
    };
    let (sequence, message) = (Sequence(sequence), Arc::new(message));
    InboxEvent { sequence, message, qos: Qos::AtLeastOnce, retain: false, attempt: 0, replayed: false }
}

fn handled(event: &InboxEvent, result: EventResult) -> Handled {
    let done = result == EventResult::Done;
    let write = StateWrite::lasting(event.sequence.0.to_string(), None);
    let timer = |name: &str| TimerWrite { name: name.into(), timer: None };
    Handled {
        sequence: event.sequence,
        result,
        publishes: if done { vec![(*event.message).clone()] } else { Vec::new() },
        writes: if done { vec![write] } else { Vec::new() },
        timers: if done { vec![timer("mine"), timer("$request/7")] } else { Vec::new() },
        disconnects: if done { vec!["c".into()] } else { Vec::new() },
        denied: 1,
    }
}

fn context(plugin: &PluginName, key: EventKey) -> CallContext<'_> {
    CallContext { plugin, revision: (3, "1.0"), key, attempts: 3, now: Timestamp(1_000), again: BTreeMap::new() }
}

fn retry(after_ms: Option<u64>) -> EventResult {
    EventResult::Retry { reason: "no".to_owned(), after_ms }
}

#[test]
fn an_event_that_is_put_back_is_not_overtaken_by_its_key() {
    let plugin = PluginName("p".into());
    let events =
        [event(1, "a/1", "x"), event(2, "b/1", "y"), event(3, "a/2", "y"), event(4, "a/1", "z"), event(5, "b/2", "x")];
    for (key, expected) in [
        (EventKey::Topic, vec![1, 2, 3]),
        (EventKey::Publisher, vec![1, 2, 3, 4]),
        (EventKey::Level(0), vec![1, 2]),
        (EventKey::Level(9), vec![1, 2, 3]),
    ] {
        let results = [retry(None), EventResult::Done, EventResult::Done, EventResult::Done, EventResult::Done];
        let handled = events.iter().zip(results).map(|(event, result)| handled(event, result)).collect();
        let outcomes = context(&plugin, key).outcomes(&events, handled);
        let named: Vec<u64> = outcomes.settlement.outcomes.iter().map(|(sequence, _)| sequence.0).collect();
        assert_eq!(named, expected, "{key:?}");
    }
}

#[test]
fn a_replayed_event_keeps_its_writes_and_timers_only() {
    let plugin = PluginName("p".into());
    let events = [event(1, "a", "x"), InboxEvent { replayed: true, ..event(2, "b", "x") }];
    let handled = events.iter().map(|event| handled(event, EventResult::Done)).collect();
    let settlement = context(&plugin, EventKey::Topic).outcomes(&events, handled).settlement;
    assert_eq!(settlement.writes.len(), 2);
    assert_eq!((settlement.publishes.len(), settlement.disconnects.len()), (1, 1));
    let timers: Vec<&str> = settlement.timers.iter().map(|timer| &*timer.name).collect();
    assert_eq!(timers, ["mine", "$request/7", "mine"]);
}

#[test]
fn a_pause_is_what_the_plugin_asks_for_up_to_a_day() {
    let plugin = PluginName("p".into());
    for (after_ms, expected) in [(Some(0), 1_000), (Some(250), 1_250), (Some(u64::MAX), 1_000 + 86_400_000)] {
        let events = [event(1, "a", "x")];
        let outcomes = context(&plugin, EventKey::Topic).outcomes(&events, vec![handled(&events[0], retry(after_ms))]);
        assert_eq!(outcomes.settlement.outcomes, [(Sequence(1), Outcome::RetryAt(Timestamp(expected)))]);
    }
    for attempt in 0..40 {
        assert!((900..=66_000).contains(&pause_ms(attempt, None)), "{attempt}");
    }
}

#[test]
fn the_last_attempt_and_a_rejection_are_dead_letters_with_the_whole_report() {
    let plugin = PluginName("p".into());
    let last = InboxEvent { attempt: 2, ..event(1, "a", "x") };
    let events = [last.clone(), event(2, "b", "x")];
    let results = vec![handled(&events[0], retry(Some(5))), handled(&events[1], EventResult::Reject("never".into()))];
    let outcomes = context(&plugin, EventKey::Topic).outcomes(&events, results);
    let failed = "no [plugin p, revision 3 (1.0), event 1 on a, attempt 3]";
    let rejected = "never [plugin p, revision 3 (1.0), event 2 on b, attempt 1]";
    let given_up = format!("failed 3 times, the last time: {failed}");
    let [(_, Outcome::DeadLetter(first)), (_, Outcome::DeadLetter(second))] = &outcomes.settlement.outcomes[..] else {
        panic!("{:?}", outcomes.settlement.outcomes)
    };
    assert_eq!((&**first, &**second), (&*given_up, rejected));
    assert_eq!(outcomes.verdicts, [Verdict::Failed(failed.into()), Verdict::Rejected(rejected.into())]);
    assert_eq!(outcomes.lines[1].1, format!("dead letter: {rejected}"));
    assert_eq!(outcomes.denied, 2);
    let alone = context(&plugin, EventKey::Topic).failed_alone(&last, "no");
    assert_eq!(alone.settlement.outcomes, [(Sequence(1), Outcome::DeadLetter(given_up.into()))]);
}

#[test]
fn a_schedule_goes_on_when_its_event_is_done_with_and_the_plugin_has_the_last_word() {
    let plugin = PluginName("p".into());
    let timer = Timer { at: Timestamp(9), schedule: Some("s".into()), declared: true, payload: Arc::new([]) };
    let again = |name: &str| TimerWrite { name: name.into(), timer: Some(timer.clone()) };
    let scheduled = |sequence, name| BTreeMap::from([(Sequence(sequence), again(name))]);
    for (result, expected) in [
        (EventResult::Done, vec!["nightly", "mine", "$request/7"]),
        (EventResult::Reject("no".into()), vec!["nightly"]),
        (retry(None), vec![]),
        (EventResult::Untouched, vec![]),
    ] {
        let events = [event(1, "$timer/nightly", "")];
        let context = CallContext { again: scheduled(1, "nightly"), ..context(&plugin, EventKey::Topic) };
        let settlement = context.outcomes(&events, vec![handled(&events[0], result.clone())]).settlement;
        let timers: Vec<&str> = settlement.timers.iter().map(|timer| &*timer.name).collect();
        assert_eq!(timers, expected, "{result:?}");
    }
    // The first event cancels the timer of the second, which has fallen due already.
    let events = [event(1, "a", "x"), event(2, "$timer/mine", "")];
    let context = CallContext { again: scheduled(2, "mine"), ..context(&plugin, EventKey::Topic) };
    let results = events.iter().map(|event| handled(event, EventResult::Done)).collect();
    let settlement = context.outcomes(&events, results).settlement;
    assert!(settlement.timers.iter().all(|timer| timer.timer.is_none()), "{:?}", settlement.timers);
}
