//! The state under a shadow, and what is reported of two of them.

use vespiary_core::event::Sequence;
use vespiary_core::{Qos, Topic};

use super::*;

/// A state in memory.
struct Fixed(BTreeMap<String, Vec<u8>>);

impl StateRead for Fixed {
    fn usage(&self) -> Result<u64, StateUnavailable> {
        Ok(0)
    }

    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StateUnavailable> {
        Ok(self.0.get(key).cloned())
    }

    fn scan(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Vec<u8>)>, StateUnavailable> {
        let keys = self.0.iter().filter(|(key, _)| key.starts_with(prefix));
        let keys = keys.filter(|(key, _)| after.is_none_or(|after| key.as_str() > after));
        Ok(keys.take(limit).map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}

fn message(topic: &str, payload: &str) -> Message {
    Message {
        topic: Topic::parse(topic).unwrap(),
        payload: payload.as_bytes().into(),
        qos: Qos::AtLeastOnce,
        retain: false,
        properties: None,
        expires_at: None,
        received_at: Timestamp(0),
        publisher: "p".into(),
        user: None,
    }
}

#[test]
fn a_shadow_sees_the_snapshot_under_what_it_wrote() {
    let base = ["a1", "a2", "a3", "a4", "b1"].map(|key| (key.to_owned(), b"old".to_vec()));
    let state = ShadowState { base: Arc::new(Mutex::new(Fixed(base.into()))), written: Arc::default() };
    for (key, value) in [("a1", None), ("a2", None), ("a3", Some("new")), ("a35", Some("new")), ("a9", Some("new"))] {
        lock(&state.written).insert(key.to_owned(), value.map(|value| value.as_bytes().to_vec()));
    }
    assert_eq!(state.get("a1").unwrap(), None);
    assert_eq!(state.get("a3").unwrap().as_deref(), Some(&b"new"[..]));
    assert_eq!(state.get("a4").unwrap().as_deref(), Some(&b"old"[..]));
    for (prefix, after, limit, expected) in [
        ("a", None, 10, vec!["a3", "a35", "a4", "a9"]),
        ("a", None, 1, vec!["a3"]),
        ("a", None, 2, vec!["a3", "a35"]),
        ("a", Some("a3"), 2, vec!["a35", "a4"]),
        ("a", Some("a4"), 5, vec!["a9"]),
        ("", None, 5, vec!["a3", "a35", "a4", "a9", "b1"]),
        ("c", None, 5, vec![]),
        ("b", Some("a"), 5, vec!["b1"]),
        ("a", None, 0, vec![]),
    ] {
        let keys: Vec<String> = state.scan(prefix, after, limit).unwrap().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, expected, "{prefix:?} {after:?} {limit}");
    }
}

#[test]
fn differences_are_told_with_what_both_made() {
    let event = |sequence| InboxEvent {
        sequence: Sequence(sequence),
        message: Arc::new(message("in", "1")),
        qos: Qos::AtLeastOnce,
        retain: false,
        attempt: 0,
        replayed: false,
    };
    let done = |payload| Shadowed { outcome: "done", reason: String::new(), publishes: vec![message("out", payload)] };
    let events = [event(1), event(2), event(3), event(4)];
    let old = [done("1"), done("2"), done("3"), done("4")];
    let new = [done("1"), done("two"), failed("it traps")];
    let report = compare(&events, &old, &new);
    assert_eq!((report.events, report.same), (3, 1));
    let [second, third] = &report.differences[..] else { panic!("{report:?}") };
    assert_eq!((second.event, &*second.new.publishes[0]), (2, "out (QoS 1): two"));
    assert_eq!(second.active.publishes, ["out (QoS 1): 2"]);
    assert_eq!((third.event, &*third.new.outcome), (3, "failed: it traps"));
    assert!(third.new.publishes.is_empty());
}
