//! Overlay, rollback and attribution, against a plain map and by example.

use std::collections::BTreeMap;

use proptest::prelude::*;
use vespiary_core::message::{Qos, Timestamp};
use vespiary_core::topic::Topic;

use super::*;
use crate::wasm::testing::MapState;

const NOW: Timestamp = Timestamp(10_000);

fn batch(committed: &[(&str, &str)], events: &[u64]) -> Batch {
    let events = Purpose::Events(events.iter().copied().map(Sequence).collect());
    Batch::new(Box::new(MapState::of(committed)), events, NOW)
}

fn message(topic: &str) -> Message {
    Message {
        topic: Topic::parse(topic).unwrap(),
        payload: Box::new([]),
        qos: Qos::AtLeastOnce,
        retain: false,
        properties: None,
        expires_at: None,
        received_at: Timestamp(0),
        publisher: "$plugin/test".into(),
        user: None,
    }
}

fn set(batch: &mut Batch, key: &str, value: &str) {
    batch.write(key, Some(value.into()), &WasmLimits::default()).unwrap();
}

fn later() -> EventResult {
    EventResult::Retry { reason: "later".to_owned(), after_ms: None }
}

fn keys(handled: &Handled) -> Vec<&str> {
    handled.writes.iter().map(|write| &*write.key).collect()
}

#[test]
fn writes_and_publishes_belong_to_the_event_that_was_begun() {
    let mut batch = batch(&[], &[7, 8, 9]);
    set(&mut batch, "early", "0");
    batch.begin(7).unwrap();
    set(&mut batch, "a", "1");
    batch.publish(message("x"), &WasmLimits::default()).unwrap();
    batch.begin(8).unwrap();
    batch.count_denied();
    batch.begin(9).unwrap();
    set(&mut batch, "a", "2");
    let handled = batch.finish(vec![EventResult::Done; 3]).unwrap();
    assert_eq!(handled.iter().map(keys).collect::<Vec<_>>(), [vec!["early", "a"], vec![], vec!["a"]]);
    assert_eq!(handled.iter().map(|handled| handled.publishes.len()).collect::<Vec<_>>(), [1, 0, 0]);
    assert_eq!(handled.iter().map(|handled| handled.denied).collect::<Vec<_>>(), [0, 1, 0]);
}

#[test]
fn a_rollback_uncovers_what_was_there_before() {
    let mut batch = batch(&[("a", "committed"), ("c", "committed")], &[1, 2]);
    batch.begin(1).unwrap();
    set(&mut batch, "a", "first");
    batch.begin(2).unwrap();
    set(&mut batch, "a", "second");
    set(&mut batch, "a", "third");
    set(&mut batch, "b", "second");
    batch.write("c", None, &WasmLimits::default()).unwrap();
    batch.publish(message("x"), &WasmLimits::default()).unwrap();
    assert_eq!(batch.get("c"), Ok(None));
    batch.rollback();
    assert_eq!(batch.get("a"), Ok(Some(b"first".to_vec())));
    assert_eq!(batch.get("b"), Ok(None));
    assert_eq!(batch.get("c"), Ok(Some(b"committed".to_vec())));
    assert_eq!((batch.written_bytes, batch.published_bytes), (6 + state::WRITE_OVERHEAD_BYTES, 0));
    let handled = batch.finish(vec![EventResult::Done, later()]).unwrap();
    assert_eq!(keys(&handled[0]), ["a"]);
    assert_eq!(handled[1].result, later());
    assert!(handled[1].writes.is_empty() && handled[1].publishes.is_empty());
}

#[test]
fn later_events_are_untouched_when_a_failed_one_left_writes() {
    let mut batch = batch(&[], &[1, 2, 3]);
    batch.begin(1).unwrap();
    set(&mut batch, "a", "1");
    batch.begin(2).unwrap();
    set(&mut batch, "b", "2");
    batch.begin(3).unwrap();
    set(&mut batch, "c", "3");
    let results = vec![EventResult::Done, EventResult::Reject("no".into()), EventResult::Done];
    let handled = batch.finish(results).unwrap();
    let results: Vec<_> = handled.iter().map(|handled| handled.result.clone()).collect();
    assert_eq!(results, [EventResult::Done, EventResult::Reject("no".into()), EventResult::Untouched]);
    assert_eq!(handled.iter().map(keys).collect::<Vec<_>>(), [vec!["a"], vec![], vec![]]);
}

#[test]
fn publishes_that_a_failed_event_left_are_dropped_and_its_neighbours_stay() {
    let mut batch = batch(&[], &[1, 2]);
    batch.begin(1).unwrap();
    batch.publish(message("x"), &WasmLimits::default()).unwrap();
    batch.begin(2).unwrap();
    batch.publish(message("y"), &WasmLimits::default()).unwrap();
    let handled = batch.finish(vec![later(), EventResult::Done]).unwrap();
    assert!(handled[0].publishes.is_empty());
    assert_eq!(handled[1].publishes, [message("y")]);
}

#[test]
fn a_guest_that_breaks_the_contract_is_told_how() {
    let check = |steps: &[u64], outcomes: usize, expected: &str| {
        let mut batch = batch(&[], &[4, 5]);
        let begun = steps.iter().try_for_each(|&event| batch.begin(event));
        let error = match begun {
            Ok(()) => batch.finish(vec![EventResult::Done; outcomes]).map(drop).unwrap_err(),
            Err(error) => error,
        };
        assert_eq!(error, expected, "{steps:?}");
    };
    check(&[6], 2, "it began event 6, which is not in the batch");
    check(&[5], 2, "it began event 5 where event 4 comes next");
    check(&[4, 4], 2, "it began event 4 where event 5 comes next");
    check(&[4, 5, 4], 2, "it began event 4 again after the last event of the batch");
    check(&[4], 2, "it began 1 of 2 events");
    check(&[], 2, "it began 0 of 2 events");
    check(&[4, 5], 1, "it gave 1 outcomes for 2 events");
}

#[test]
fn a_single_event_need_not_be_begun() {
    let mut batch = batch(&[], &[4]);
    set(&mut batch, "a", "1");
    batch.count_denied();
    let handled = batch.finish(vec![EventResult::Done]).unwrap();
    assert_eq!((keys(&handled[0]), handled[0].denied), (vec!["a"], 1));
}

#[test]
fn keys_values_and_totals_are_bounded() {
    let limits = WasmLimits { state_value_bytes: 10, write_bytes_per_call: 100, ..WasmLimits::default() };
    let limits = WasmLimits { publishes_per_call: 2, publish_bytes_per_call: 40, state_scan_bytes: 8, ..limits };
    let mut batch = batch(&[("k1", "12345"), ("k2", "12345")], &[1]);
    let long = "k".repeat(513);
    assert!(matches!(batch.get(""), Err(Refusal::TooLarge(_))));
    assert!(matches!(batch.get(&long), Err(Refusal::TooLarge(_))));
    assert!(matches!(batch.write("a", Some(vec![0; 11]), &limits), Err(Refusal::TooLarge(_))));
    for _ in 0..3 {
        batch.write("a", Some(vec![0; 10]), &limits).unwrap();
    }
    assert!(matches!(batch.write("b", Some(vec![0; 10]), &limits), Err(Refusal::QuotaExceeded(_))));
    assert!(matches!(batch.scan("k", None, 2, &limits), Err(Refusal::QuotaExceeded(_))));
    assert_eq!(batch.scan("k", None, 1, &limits).unwrap().len(), 1);
    batch.publish(message("aaaa"), &limits).unwrap();
    assert!(matches!(batch.publish(message(&"a".repeat(10)), &limits), Err(Refusal::QuotaExceeded(_))));
    batch.publish(message("aaaa"), &limits).unwrap();
    assert!(matches!(batch.publish(message("a"), &limits), Err(Refusal::QuotaExceeded(_))));
}

#[test]
fn everything_that_an_event_did_is_rolled_back_with_it() {
    let limits = WasmLimits::default();
    let timer = |name: &str| TimerWrite { name: name.into(), timer: None };
    let mut batch = batch(&[], &[1, 2, 3]);
    batch.begin(1).unwrap();
    batch.timer(timer("a"), &limits).unwrap();
    batch.disconnect("c1", &limits).unwrap();
    let first = batch.request("p", message("x"), 10, &limits).unwrap();
    let published_bytes = batch.published_bytes;
    batch.begin(2).unwrap();
    batch.timer(timer("b"), &limits).unwrap();
    batch.disconnect("c2", &limits).unwrap();
    batch.request("p", message("x"), 10, &limits).unwrap();
    batch.rollback();
    assert_eq!(batch.published_bytes, published_bytes);
    batch.begin(3).unwrap();
    batch.disconnect("c3", &limits).unwrap();
    let results = vec![EventResult::Done, later(), EventResult::Done];
    let handled = batch.finish(results).unwrap();
    let names: Vec<_> = handled[0].timers.iter().map(|timer| timer.name.to_string()).collect();
    assert_eq!(names, ["a".to_owned(), format!("$request/{first}")]);
    assert!(handled[1].timers.is_empty() && handled[1].publishes.is_empty());
    let disconnects: Vec<_> = handled.iter().map(|handled| handled.disconnects.len()).collect();
    assert_eq!(disconnects, [1, 0, 1]);
}

#[test]
fn what_a_failed_event_left_of_timers_and_disconnects_is_dropped() {
    let limits = WasmLimits::default();
    let mut batch = batch(&[], &[1]);
    batch.disconnect("c1", &limits).unwrap();
    batch.timer(TimerWrite { name: "a".into(), timer: None }, &limits).unwrap();
    let handled = batch.finish(vec![later()]).unwrap();
    assert!(handled[0].timers.is_empty() && handled[0].disconnects.is_empty());
}

#[test]
fn requests_of_one_event_are_told_apart_and_come_again_under_the_same_names() {
    let limits = WasmLimits { publishes_per_call: 3, ..WasmLimits::default() };
    let ask = |batch: &mut Batch| batch.request("p", message("x"), 10, &limits);
    let identities = || {
        let mut batch = batch(&[], &[7, 8]);
        let before = ask(&mut batch).unwrap();
        batch.begin(7).unwrap();
        let second = ask(&mut batch).unwrap();
        batch.begin(8).unwrap();
        let third = ask(&mut batch).unwrap();
        assert!(matches!(ask(&mut batch), Err(Refusal::QuotaExceeded(_))));
        assert_eq!((batch.timers.len(), batch.publishes.len()), (3, 3), "a request is refused as a whole");
        [before, second, third]
    };
    assert_eq!(identities(), [7 << 16, 7 << 16 | 1, 8 << 16]);
    assert_eq!(identities(), identities());
    let mut first = Batch::new(Box::new(MapState::default()), Purpose::Request, NOW);
    let mut second = Batch::new(Box::new(MapState::default()), Purpose::Request, NOW);
    assert_ne!(ask(&mut first), ask(&mut second));
}

#[test]
fn an_expired_write_is_not_seen_by_the_call_itself() {
    let limits = WasmLimits::default();
    let mut batch = batch(&[("a", "old"), ("b", "old")], &[1]);
    batch.write_for("a", b"now".to_vec(), 0, &limits).unwrap();
    batch.write_for("b", b"later".to_vec(), 1, &limits).unwrap();
    assert_eq!((batch.get("a"), batch.get("b")), (Ok(None), Ok(Some(b"later".to_vec()))));
    assert_eq!(batch.scan("", None, 9, &limits), Ok(vec![("b".to_owned(), b"later".to_vec())]));
    assert_eq!(batch.add("a", 3, &limits), Ok(3));
    let handled = batch.finish(vec![EventResult::Done]).unwrap();
    assert_eq!(handled[0].writes[1].expires_at, Some(Timestamp(10_001)));
    assert_eq!(handled[0].writes[0], StateWrite::lasting("a", Some((*b"3").into())));
}

#[test]
fn a_decision_reads_and_does_nothing() {
    let limits = WasmLimits::default();
    let state = Box::new(MapState::of(&[("a", "1")]));
    let mut batch = Batch::new(state, Purpose::Decision, NOW);
    assert_eq!(batch.get("a"), Ok(Some(b"1".to_vec())));
    for refused in [
        batch.write("a", None, &limits),
        batch.write_for("a", Vec::new(), 1, &limits),
        batch.add("a", 1, &limits).map(drop),
        // Also where nothing would be written.
        batch.compare_and_set("a", None, None, &limits).map(drop),
    ] {
        assert!(matches!(refused, Err(Refusal::Unavailable(_))), "{refused:?}");
    }
    assert!(!batch.may_act());
}

#[test]
fn the_quota_counts_what_would_be_there_after_the_call() {
    let limits = WasmLimits { state_bytes: 100, ..WasmLimits::default() };
    // 40 + 40 bytes are committed.
    let value = "x".repeat(39);
    let mut batch = batch(&[("a", &value), ("b", &value)], &[1, 2]);
    let write = |batch: &mut Batch, key: &str, bytes: usize| batch.write(key, Some(vec![0; bytes]), &limits);
    batch.begin(1).unwrap();
    write(&mut batch, "c", 19).unwrap();
    assert!(matches!(write(&mut batch, "d", 0), Err(Refusal::QuotaExceeded(_))));
    write(&mut batch, "c", 9).unwrap();
    write(&mut batch, "d", 9).unwrap();
    write(&mut batch, "a", 39).unwrap();
    assert!(matches!(write(&mut batch, "a", 40), Err(Refusal::QuotaExceeded(_))));
    batch.begin(2).unwrap();
    batch.write("b", None, &limits).unwrap();
    write(&mut batch, "a", 79).unwrap();
    batch.rollback();
    assert!(matches!(write(&mut batch, "a", 40), Err(Refusal::QuotaExceeded(_))));
}

#[test]
fn a_state_beyond_its_quota_may_shrink() {
    let limits = WasmLimits { state_bytes: 10, ..WasmLimits::default() };
    let value = "x".repeat(39);
    let mut batch = batch(&[("a", &value)], &[1]);
    assert!(matches!(batch.write("b", Some(vec![0]), &limits), Err(Refusal::QuotaExceeded(_))));
    batch.write("a", Some(vec![0; 20]), &limits).unwrap();
    batch.write("a", None, &limits).unwrap();
}

#[derive(Debug, Clone)]
enum Step {
    Write(String, Option<u8>),
    WriteFor(String, u64),
    Begin,
    Rollback,
    Scan(String, Option<String>, usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = "[ab]{1,3}";
    let step = prop_oneof![
        4 => (key, proptest::option::of(any::<u8>())).prop_map(|(key, value)| Step::Write(key, value)),
        1 => (key, 0_u64..2).prop_map(|(key, ttl_ms)| Step::WriteFor(key, ttl_ms)),
        1 => Just(Step::Begin),
        1 => Just(Step::Rollback),
        3 => ("[ab]{0,2}", proptest::option::of(key), 0_usize..90).prop_map(|(prefix, after, limit)| Step::Scan(prefix, after, limit)),
    ];
    proptest::collection::vec(step, 1..60)
}

proptest! {
    /// Whatever is written, rolled back and scanned: the batch reads as one map would, in which rollback restores a copy.
    #[test]
    fn reads_see_one_map(committed in proptest::collection::btree_map("[ab]{1,7}", any::<u8>(), 0..150), steps in steps()) {
        let mut model: BTreeMap<String, Vec<u8>> = committed.into_iter().map(|(key, value)| (key, vec![value])).collect();
        let events = Purpose::Events((0..100).map(Sequence).collect());
        let mut batch = Batch::new(Box::new(MapState(model.clone())), events, NOW);
        let (mut saved, mut event) = (model.clone(), 0);
        let limits = WasmLimits::default();
        for step in steps {
            match step {
                Step::Write(key, value) => {
                    batch.write(&key, value.map(|value| vec![value]), &limits).unwrap();
                    match value {
                        Some(value) => model.insert(key, vec![value]),
                        None => model.remove(&key),
                    };
                }
                Step::WriteFor(key, ttl_ms) => {
                    batch.write_for(&key, vec![7], ttl_ms, &limits).unwrap();
                    match ttl_ms {
                        0 => model.remove(&key),
                        _ => model.insert(key, vec![7]),
                    };
                }
                Step::Begin => {
                    batch.begin(event).unwrap();
                    event += 1;
                    saved = model.clone();
                }
                Step::Rollback => {
                    batch.rollback();
                    model = saved.clone();
                }
                Step::Scan(prefix, after, limit) => {
                    let expected = MapState(model.clone()).scan(&prefix, after.as_deref(), limit).unwrap();
                    prop_assert_eq!(batch.scan(&prefix, after.as_deref(), limit, &limits).unwrap(), expected);
                }
            }
            let written: usize = batch.writes.iter().map(|logged| state::weight(&logged.write)).sum();
            prop_assert_eq!(batch.written_bytes, written);
        }
        for (key, value) in &model {
            prop_assert_eq!(batch.get(key), Ok(Some(value.clone())));
        }
    }
}
