//! What a guest may do to the broker and its state beside publishing, and how it is bounded.

use super::*;

/// One event, obeyed, and what came of it.
fn done(bed: &Bed, script: &str) -> Handled {
    obey(&mut bed.start("obeys"), &[], &[script]).unwrap().remove(0)
}

#[test]
fn captures_kind_and_user_arrive_with_the_event() {
    let mut instance = Bed::new().start("obeys");
    let mut show = |topic: &str, user: Option<&str>| {
        let mut shown = event(1, topic, "captures");
        Arc::make_mut(&mut shown.message).user = user.map(Into::into);
        published(&instance.handle(Timestamp(0), MapState::default(), &[shown]).unwrap()[0]).remove(0)
    };
    assert_eq!(show("in/7/deep/a/b", Some("ada")), r#"out/captures ["7", "a/b"] EventKind::Message Some("ada")"#);
    assert_eq!(show("in/x", None), r#"out/captures ["x"] EventKind::Message None"#);
    assert_eq!(show("$timer/nightly", None), "out/captures [] EventKind::Timer None");
    assert_eq!(show("$reply/test/7", None), "out/captures [] EventKind::Response None");
    assert_eq!(show("$clients/a/connected", None), "out/captures [] EventKind::Client None");
}

#[test]
fn captures_of_a_batch_stay_with_their_events() {
    let mut instance = Bed::new().start("obeys");
    obey(&mut instance, &[], &[""]).unwrap();
    let events: Vec<_> =
        ["in/1", "in/2/deep/3"].iter().zip(1..).map(|(topic, id)| event(id, topic, "captures")).collect();
    let handled = instance.handle(Timestamp(0), MapState::default(), &events).unwrap();
    assert!(published(&handled[0])[0].starts_with(r#"out/captures ["1"]"#));
    assert!(published(&handled[1])[0].starts_with(r#"out/captures ["2", "3"]"#));
}

#[test]
fn a_retry_says_when_it_is_to_come_again() {
    let expected = EventResult::Retry { reason: String::new(), after_ms: Some(1_500) };
    assert_eq!(done(&Bed::new(), "later 1500").result, expected);
}

#[test]
fn counters_swaps_and_expiring_keys_are_state_like_other() {
    let script = "add n 5\nadd n -7\ncas a - 1\ncas a - 2\ncas a 1 2\nget a\ncas a 2 -\nget a\nset-for 500 t x\nget t\n\
                  set-for 0 gone x\nget gone\nscan t\nset word seven\nadd word 1\nset n 9223372036854775807\nadd n 1";
    let handled = done(&Bed::new(), script);
    let expected = [
        "out/add Ok(5)",
        "out/add Ok(-2)",
        "out/cas Ok(true)",
        "out/cas Ok(false)",
        "out/cas Ok(true)",
        "out/get 2",
        "out/cas Ok(true)",
        "out/get none",
        "out/get x",
        "out/get none",
        "out/scan t=x",
    ];
    let published = published(&handled);
    assert_eq!(published[..11], expected);
    assert!(published[11].contains("Mismatch(\"the value of `word` is no integer"), "{}", published[11]);
    assert!(published[12].contains("have no sum within 64 bits"), "{}", published[12]);
    let timed: Vec<_> = handled.writes.iter().filter(|write| write.expires_at.is_some()).collect();
    assert_eq!((timed.len(), &*timed[0].key, timed[0].expires_at), (2, "t", Some(Timestamp(577))));
}

#[test]
fn timers_are_set_with_the_event_and_rolled_back_with_it() {
    let bed = Bed::new();
    let scripts =
        ["timer a 5000 payload\nschedule b */5 * * * *\ncancel c", "timer lost 1 x\nrollback\nretry", "timer d 1 x"];
    let handled = obey(&mut bed.start("obeys"), &[], &scripts).unwrap();
    let [set, schedule, cancel] = &handled[0].timers[..] else { panic!("{:?}", handled[0].timers) };
    let timer = set.timer.as_ref().unwrap();
    assert_eq!((&*set.name, timer.at, &*timer.payload), ("a", Timestamp(5_000), &b"payload"[..]));
    assert_eq!((timer.schedule.as_deref(), timer.declared), (None, false));
    let timer = schedule.timer.as_ref().unwrap();
    assert_eq!((&*schedule.name, timer.at, timer.schedule.as_deref()), ("b", Timestamp(300_000), Some("*/5 * * * *")));
    assert_eq!((&*cancel.name, &cancel.timer), ("c", &None));
    assert!(handled[1].timers.is_empty());
    assert_eq!(handled[2].timers.len(), 1);
}

#[test]
fn timers_that_cannot_be_are_refused() {
    let bed = Bed::with(WasmLimits { timers_per_call: 2, timer_payload_bytes: 100, ..small() });
    let long = "n".repeat(257);
    for (script, expected) in [
        ("timer a/+ 1 x", "a topic name holds no wildcard"),
        ("timer $request/1 1 x", "names with `$` are the broker's own"),
        (&format!("timer {long} 1 x"), "it has 257 bytes; 256 are allowed"),
        ("cancel ", "it is empty"),
        ("schedule a every day", "is not a cron expression"),
        ("schedule a 0 0 30 2 *", "the schedule `0 0 30 2 *` has no time to come"),
        ("big-timer a 101", "the payload has 101 bytes; 100 are allowed"),
        ("timer a 1 x\ntimer a 1 x\ntimer a 1 x", "one call may set 2 timers"),
    ] {
        let published = published(&done(&bed, script));
        assert!(published.len() == 1 && published[0].contains(expected), "{script}: {published:?}");
    }
}

#[test]
fn a_request_has_an_identity_a_topic_for_its_answer_and_a_timer() {
    let bed = Bed::new();
    let handled =
        obey(&mut bed.start("obeys"), &[], &["request 250 out/q one\nrequest 9 out/q two", "request 1 out/q three"])
            .unwrap();
    let [first, second] = [10 << 16, 10 << 16 | 1];
    let told: Vec<_> = published(&handled[0]).into_iter().filter(|line| line.starts_with("out/request")).collect();
    assert_eq!(told, [format!("out/request Ok({first})"), format!("out/request Ok({second})")]);
    let question = &handled[0].publishes[0];
    let properties = question.properties.as_deref().unwrap();
    assert_eq!(question.topic.as_str(), "out/q");
    assert_eq!(properties.response_topic.as_ref().unwrap().as_str(), format!("$reply/test/{first}"));
    assert_eq!(properties.correlation_data.as_deref(), Some(&u64::to_be_bytes(first)[..]));
    let timer = &handled[0].timers[0];
    assert_eq!((&*timer.name, timer.timer.as_ref().unwrap().at), (&*format!("$request/{first}"), Timestamp(77 + 250)));
    assert_eq!(&*handled[1].timers[0].name, &*format!("$request/{}", 11 << 16));
}

#[test]
fn a_request_to_a_topic_that_is_not_granted_is_denied_as_a_whole() {
    let handled = done(&Bed::new(), "request 250 elsewhere x");
    assert!(published(&handled)[0].contains("Denied"), "{handled:?}");
    assert!(handled.timers.is_empty() && handled.denied == 1);
}

#[test]
fn a_message_may_expire() {
    let handled = done(&Bed::new(), "expiring 3 out/x hot\nexpiring never out/x hot");
    assert_eq!(handled.publishes[0].expires_at, Some(Timestamp(77 + 3_000)));
    assert_eq!(handled.publishes[0].properties, None);
    assert!(published(&handled)[1].contains("the message-expiry is no number"), "{handled:?}");
}

#[test]
fn clients_are_disconnected_by_those_who_may() {
    let mut bed = Bed::with(WasmLimits { disconnects_per_call: 2, ..small() });
    let handled = done(&bed, "disconnect c1");
    assert!(published(&handled)[0].contains("Denied(\"the plugin is not granted to disconnect clients\")"));
    assert_eq!((handled.denied, handled.disconnects.len()), (1, 0));
    assert_eq!(bed.messages(), ["disconnect denied: the plugin is not granted to disconnect clients"]);
    bed.context.disconnects = true;
    let handled = done(&bed, "disconnect \ndisconnect c1\ndisconnect c2\ndisconnect c3");
    assert_eq!(handled.disconnects, ["c1".into(), "c2".into()]);
    let published = published(&handled);
    assert!(published[0].contains("Invalid"), "{published:?}");
    assert!(published[1].contains("one call may disconnect 2 clients"), "{published:?}");
}

#[test]
fn a_retained_message_is_looked_up_where_the_plugin_may_subscribe() {
    let mut bed = Bed::new();
    let mut kept = (*event(1, "in/kept", "old").message).clone();
    kept.expires_at = Some(Timestamp(10_000));
    let gone = Message { expires_at: Some(Timestamp(77)), ..kept.clone() };
    bed.context.retained = Arc::new(move |topic| match topic.as_str() {
        "in/kept" => Some(Arc::new(kept.clone())),
        "in/gone" => Some(Arc::new(gone.clone())),
        _ => None,
    });
    let handled = done(&bed, "retained in/kept\nretained in/other\nretained in/gone\nretained secret\nretained in/+");
    let published = published(&handled);
    let expected = r#"out/retained in/kept old true [Property { name: "message-expiry", value: "10" }]"#;
    assert_eq!(published[..3], [expected, "out/retained Ok(None)", "out/retained Ok(None)"]);
    assert!(published[3].contains("Denied(\"the plugin is not granted to subscribe to the topic `secret`\")"));
    assert!(published[4].contains("Invalid"), "{published:?}");
    assert_eq!(handled.denied, 1);
}

#[test]
fn measurements_are_checked_and_stay_when_the_event_fails() {
    let bed = Bed::with(WasmLimits { measurements_per_call: 3, ..small() });
    let script = "count parts_total 2 line=a shift=b\ngauge heat 1.5\nrollback\nretry";
    assert_ne!(done(&bed, script).result, EventResult::Done);
    let measured = std::mem::take(&mut *bed.measured.lock().unwrap());
    let labels = vec![("line".to_owned(), "a".to_owned()), ("shift".to_owned(), "b".to_owned())];
    assert_eq!(
        measured,
        [
            Measurement { name: "parts_total".to_owned(), labels, value: MeasuredValue::Count(2) },
            Measurement { name: "heat".to_owned(), labels: Vec::new(), value: MeasuredValue::Gauge(1.5) },
        ]
    );
    for (script, expected) in [
        ("count Parts 1", r#"the name "Parts" is not of the form [a-z][a-z0-9_]*"#),
        ("count parts 1 plugin=x", r#"the label "plugin" of parts is not possible"#),
        ("count parts 1 a=x a=y", "parts names a label twice"),
        ("gauge heat NaN", "heat is no finite number"),
        ("count a 1\ncount a 1\ncount a 1\ncount a 1\ncount a 1", "one call may make 3 measurements"),
    ] {
        bed.lines.lock().unwrap().clear();
        done(&bed, script);
        assert_eq!(bed.messages(), [format!("a measurement was dropped: {expected}")], "{script}");
    }
    assert_eq!(bed.measured.lock().unwrap().len(), 3);
}

#[test]
fn a_secret_is_seen_by_the_plugin_and_by_nobody_in_its_log() {
    let mut bed = Bed::new();
    let secrets = [("token".to_owned(), Some(Secret::new("s3cr3t-value"))), ("later".to_owned(), None)];
    bed.context.secrets = Arc::new(BTreeMap::from(secrets));
    let handled =
        done(&bed, "secret token\nlog info s3cr3t-value again\nsecret later\nsecret other\nreject it was s3cr3t-value");
    assert_eq!(handled.result, EventResult::Reject("it was [secret token]".to_owned()));
    assert_eq!(
        bed.messages(),
        [
            "stdout: the secret is [secret token]",
            "obeys: [secret token] again",
            r#"secret denied: the plugin is not granted the secret "other""#,
        ]
    );
    assert_eq!(handled.denied, 1);
    assert_eq!(format!("{:?}", Secret::new("s3cr3t-value")), "Secret(..)");
}

#[test]
fn outside_of_a_call_that_commits_nothing_is_done() {
    let bed = Bed::new();
    let error = bed.runtime.instantiate(&bed.compile("asks_for_more").unwrap(), bed.context()).unwrap().serve(
        Timestamp(0),
        MapState::default(),
        ::http::Request::new(bytes::Bytes::new()),
    );
    let expected = CallError::NotExported { interface: "wasi:http/incoming-handler@0.2.0" };
    assert_eq!(error.map(drop), Err(expected));
}
