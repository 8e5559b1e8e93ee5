//! What a call sees, and what it gives back.

use super::*;

#[test]
fn a_batch_counts_in_state_and_publishes_event_by_event() {
    let mut instance = Bed::new().start("echo");
    instance.health().unwrap();
    let fifteen = String::from_utf8(15_u64.to_le_bytes().to_vec()).unwrap();
    let first = instance.handle(Timestamp(5), MapState::of(&[("in/a", &fifteen)]), &[event(1, "in/a", "x")]).unwrap();
    assert_eq!(first[0].writes[0].value.as_deref(), Some(&16_u64.to_le_bytes()[..]));
    assert!(instance.takes_batches());

    let events: Vec<_> = (2..35).map(|sequence| event(sequence, "in/a", "x")).collect();
    let handled = instance.handle(Timestamp(5), MapState::default(), &events).unwrap();
    assert_eq!(handled.len(), 33);
    for (count, handled) in (0_u64..).zip(&handled) {
        assert_eq!((handled.sequence, &handled.result), (Sequence(count + 2), &EventResult::Done));
        assert_eq!(handled.writes[0].value.as_deref(), Some(&(count + 1).to_le_bytes()[..]));
        assert_eq!(handled.publishes.len(), usize::from(count % 16 == 0));
    }
    let message = &handled[16].publishes[0];
    assert_eq!(message.topic.as_str(), "out/in/a");
    assert_eq!((&*message.publisher, message.received_at), ("$plugin/test", Timestamp(5)));
}

#[test]
fn an_empty_batch_is_not_handed_out() {
    let mut instance = Bed::new().start("traps");
    assert_eq!(instance.handle(Timestamp(0), MapState::default(), &[]), Ok(Vec::new()));
}

#[test]
fn reads_see_the_snapshot_under_the_calls_own_writes() {
    let mut instance = Bed::new().start("obeys");
    let state = [("a", "1"), ("b", "2"), ("c", "3"), ("z", "9")];
    let first = "get a\nset a 10\nget a\ndelete b\nget b\nset bb 20\nscan - - 10\nscan b";
    let second = "get a\nscan a a 1";
    let handled = obey(&mut instance, &state, &[first, second, "get z"]).unwrap();
    assert_eq!(published(&handled[0]), ["out/get 1", "out/get 10", "out/get none", "out/scan ", "out/scan bb=20"]);
    assert_eq!(written(&handled[0]), ["a=10", "b", "bb=20"]);
    assert_eq!(published(&handled[1]), ["out/get 10", "out/scan "]);
    assert_eq!(published(&handled[2]), ["out/get 9"]);
}

#[test]
fn a_rolled_back_event_leaves_nothing_to_its_neighbours() {
    let mut instance = Bed::new().start("obeys");
    let failed = "set a 2\nset b 2\npublish out/x lost\nrollback\nretry not now";
    let handled = obey(&mut instance, &[("b", "0")], &["set a 1", failed, "get a\nget b\nset c 3"]).unwrap();
    assert_eq!(written(&handled[0]), ["a=1"]);
    assert_eq!(handled[1].result, EventResult::Retry { reason: "not now".to_owned(), after_ms: None });
    assert!(handled[1].writes.is_empty() && handled[1].publishes.is_empty());
    assert_eq!(published(&handled[2]), ["out/get 1", "out/get 0"]);
    assert_eq!((&handled[2].result, written(&handled[2])), (&EventResult::Done, vec!["c=3".to_owned()]));
}

#[test]
fn events_after_one_that_failed_without_rollback_are_handed_out_again() {
    let mut instance = Bed::new().start("obeys");
    let handled = obey(&mut instance, &[], &["set a 1", "set a 2\nreject bad", "get a", "set d 4"]).unwrap();
    let results: Vec<_> = handled.iter().map(|handled| handled.result.clone()).collect();
    let rejected = EventResult::Reject("bad".to_owned());
    assert_eq!(results, [EventResult::Done, rejected, EventResult::Untouched, EventResult::Untouched]);
    assert!(handled[1..].iter().all(|handled| handled.writes.is_empty() && handled.publishes.is_empty()));
    assert_eq!(written(&handled[0]), ["a=1"]);
}

#[test]
fn state_that_cannot_be_read_or_is_too_large_is_an_error_the_guest_sees() {
    struct Broken;
    impl StateRead for Broken {
        fn get(&self, _key: &str) -> Result<Option<Vec<u8>>, StateUnavailable> {
            Err(StateUnavailable("the disk is gone".to_owned()))
        }

        fn scan(&self, _: &str, _: Option<&str>, _: usize) -> Result<Vec<(String, Vec<u8>)>, StateUnavailable> {
            Err(StateUnavailable("the disk is gone".to_owned()))
        }

        fn usage(&self) -> Result<u64, StateUnavailable> {
            Ok(0)
        }
    }
    let bed = Bed::with(WasmLimits { write_bytes_per_call: 3 << 20, ..small() });
    let mut instance = bed.start("obeys");
    let script = "get a\nscan a\nfill a 1048577\nfill a 1048576\nfill b 1048576\nfill c 1048576\nget  ";
    let handled = instance.handle(Timestamp(0), Broken, &[event(1, "in/a", script)]).unwrap();
    let published = published(&handled[0]);
    assert!(published[0].contains("Unavailable(\"the disk is gone\")"), "{published:?}");
    assert!(published[1].contains("Unavailable(\"the disk is gone\")"), "{published:?}");
    assert!(published[2].contains("the value has 1048577 bytes; 1048576 are allowed"), "{published:?}");
    assert!(published[3].contains("one call may write 3145728 bytes of state"), "{published:?}");
    assert!(published[4].contains("the key is empty"), "{published:?}");
    assert_eq!(handled[0].writes.len(), 2);
}

#[test]
fn an_invalid_topic_is_told_from_a_denied_one() {
    let mut instance = Bed::new().start("obeys");
    let handled = obey(&mut instance, &[], &["publish out/+ x\npublish elsewhere x\npublish out/b x"]).unwrap();
    let published = published(&handled[0]);
    assert!(published[0].contains("Invalid(\"the topic is not valid: a topic name holds no wildcard\")"));
    assert!(published[1].contains("Denied"), "{published:?}");
    assert_eq!((&*published[2], handled[0].denied), ("out/b x", 1));
}

#[test]
fn an_event_arrives_with_all_that_the_contract_names() {
    let mut instance = Bed::new().start("obeys");
    let mut shown = event(42, "in/a", "show");
    let message = Arc::make_mut(&mut shown.message);
    message.properties = Some(Box::new(MessageProperties {
        payload_is_utf8: Some(true),
        content_type: Some("text/plain".into()),
        response_topic: Some(Topic::parse("reply/1").unwrap()),
        correlation_data: Some(Box::new([0, 255])),
        user_properties: vec![("unit".into(), "mm/s".into())],
    }));
    message.expires_at = Some(Timestamp(2_500));
    (shown.qos, shown.retain, shown.attempt) = (Qos::ExactlyOnce, true, 3);
    let handled = instance.handle(Timestamp(0), MapState::default(), &[shown]).unwrap();
    let published = published(&handled[0]).remove(0);
    assert!(published.starts_with("out/show 42 in/a Qos::ExactlyOnce true sensor-1 1042 3 ["), "{published}");
    for property in [
        r#"{ name: "payload-format", value: "utf-8" }"#,
        r#"{ name: "content-type", value: "text/plain" }"#,
        r#"{ name: "response-topic", value: "reply/1" }"#,
        r#"{ name: "correlation-data", value: "AP8=" }"#,
        r#"{ name: "user:unit", value: "mm/s" }"#,
        r#"{ name: "message-expiry", value: "3" }"#,
    ] {
        assert!(published.contains(property), "{property} in {published}");
    }
}

#[test]
fn the_configuration_is_what_the_context_says() {
    let mut bed = Bed::new();
    bed.context.config = Arc::new(BTreeMap::from([("threshold".to_owned(), "2.5".to_owned())]));
    let handled = obey(&mut bed.start("obeys"), &[], &["config threshold\nconfig other"]).unwrap();
    assert_eq!(published(&handled[0]), [r#"out/config Ok(Some("2.5"))"#, "out/config Ok(None)"]);
}

#[test]
fn logged_and_printed_lines_arrive_in_order_with_their_levels() {
    let bed = Bed::new();
    obey(&mut bed.start("obeys"), &[], &["log warn hot\nprint out\ncomplain err\nlog debug cold"]).unwrap();
    let lines = bed.lines.lock().unwrap().clone();
    let line = |level, message: &str| LogLine { level, message: message.to_owned() };
    let expected = [
        line(LogLevel::Warn, "obeys: hot"),
        line(LogLevel::Info, "stdout: out"),
        line(LogLevel::Warn, "stderr: err"),
        line(LogLevel::Debug, "obeys: cold"),
    ];
    assert_eq!(lines, expected);
}

#[test]
fn a_guest_sees_no_environment_no_files_and_no_network() {
    let handled = obey(&mut Bed::new().start("obeys"), &[], &["look"]).unwrap();
    assert_eq!(published(&handled[0]), ["out/look 0 0 false false false true"]);
}
