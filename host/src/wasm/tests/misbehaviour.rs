//! Guests that behave badly are stopped, and the reason is told.

use std::time::{Duration, Instant};

use super::*;

/// Runs one event through a guest that must fail, and gives the error.
fn fail(bed: &Bed, name: &str) -> CallError {
    let mut instance = bed.start(name);
    let failed = instance.handle(Timestamp(0), MapState::default(), &[event(1, "in/a", "x")]);
    let error = failed.map(drop).unwrap_err();
    assert!(error.is_fatal(), "{error}");
    assert_eq!(instance.health(), Err(CallError::Dead), "{name} must not be used again");
    error
}

#[test]
fn a_guest_that_spins_is_stopped_at_its_deadline() {
    let bed = Bed::with(WasmLimits { call_deadline_ms: 200, ..small() });
    let started = Instant::now();
    let error = fail(&bed, "spins");
    let took = started.elapsed();
    assert_eq!(error.to_string(), "the call exceeded its deadline of 200 ms");
    assert!(took >= Duration::from_millis(200) && took < Duration::from_secs(30), "{took:?}");
}

#[test]
fn a_guest_that_hogs_memory_is_stopped_at_its_limit() {
    assert_eq!(fail(&Bed::new(), "hogs").to_string(), "the plugin exceeded its memory limit of 67108864 bytes");
}

#[test]
fn a_panic_is_reported_with_its_message_and_place() {
    let CallError::Trap(report) = fail(&Bed::new(), "traps") else { panic!("not a trap") };
    let panic = report.panic.clone().unwrap_or_default();
    assert!(panic.starts_with("tests/guests/examples/traps.rs:"), "{panic}");
    assert!(panic.ends_with("cannot stand the topic in/a"), "{panic}");
    assert!(report.frames.iter().any(|frame| frame.contains("handle")), "{:?}", report.frames);
    assert!(report.to_string().starts_with("the plugin panicked: tests/guests/"), "{report}");
}

#[test]
fn the_last_critical_line_of_the_call_is_the_panic_message() {
    let mut instance = Bed::new().start("obeys");
    let script = "log critical wrong at src/lib.rs:7\npanic boom";
    let CallError::Trap(report) = obey(&mut instance, &[], &[script]).unwrap_err() else { panic!("not a trap") };
    assert_eq!(report.panic.as_deref(), Some("wrong at src/lib.rs:7"));
}

#[test]
fn a_guest_that_recurses_exhausts_its_own_stack_only() {
    let CallError::Trap(report) = fail(&Bed::new(), "recurses") else { panic!("not a trap") };
    assert_eq!(report.kind, "call stack exhausted");
    assert_eq!(report.frames.first().map(|frame| frame.contains("deeper")), Some(true), "{:?}", report.frames);
    assert!(report.frames.len() <= 6);
}

#[test]
fn a_guest_that_exits_is_told_apart_from_one_that_traps() {
    let mut instance = Bed::new().start("obeys");
    let error = obey(&mut instance, &[], &["exit 3"]).unwrap_err();
    assert!(error.to_string().starts_with("the plugin trapped: it called exit("), "{error}");
}

#[test]
fn a_guest_that_floods_is_refused_more_messages_or_bytes() {
    for (limits, expected) in [
        (WasmLimits { publishes_per_call: 100, ..small() }, "after 100: one call may publish 100 messages"),
        (WasmLimits { publish_bytes_per_call: 1_000, ..small() }, "after 38: one call may publish 1000 bytes"),
    ] {
        let bed = Bed::with(limits);
        let handled = bed.start("floods_publishes").handle(Timestamp(0), MapState::default(), &[event(1, "in/a", "x")]);
        let handled = handled.unwrap().remove(0);
        assert_eq!(handled.result, EventResult::Reject(expected.to_owned()));
        assert!(handled.publishes.is_empty());
    }
}

#[test]
fn a_guest_that_floods_its_state_is_refused_more() {
    let bed = Bed::with(WasmLimits { state_bytes: 50_000, ..small() });
    let flood = |state: MapState| {
        let mut instance = bed.start("floods_state");
        instance.handle(Timestamp(0), state, &[event(1, "in/a", "x")]).unwrap().remove(0)
    };
    // Each entry has a key of 9 bytes and a value of 1,000.
    let handled = flood(MapState::default());
    let told = |count| EventResult::Reject(format!("after {count}: {}", QUOTA));
    assert_eq!((handled.result, handled.writes.len()), (told(49), 0));
    let before = (0..40).map(|number| (format!("{:04}/{number:04}", 9), vec![0; 1_000])).collect();
    assert_eq!(flood(MapState(before)).result, told(9));
    // What is replaced makes room.
    let before = (0..40).map(|number| (format!("{:04}/{number:04}", 1), vec![0; 1_000])).collect();
    assert_eq!(flood(MapState(before)).result, told(49));
}

/// What a guest is told that reached the quota of its state.
const QUOTA: &str = r#"Error::QuotaExceeded("the plugin may keep 50000 bytes of state")"#;

#[test]
fn the_operators_quota_for_one_plugin_comes_first() {
    let mut bed = Bed::new();
    bed.context.state_bytes = Some(50_000);
    let mut instance = bed.start("floods_state");
    let handled = instance.handle(Timestamp(0), MapState::default(), &[event(1, "in/a", "x")]).unwrap();
    assert_eq!(handled[0].result, EventResult::Reject(format!("after 49: {QUOTA}")));
}

#[test]
fn a_flood_of_lines_is_cut_and_counted() {
    let bed = Bed::with(WasmLimits { log_lines_per_s: 5, ..small() });
    let mut instance = bed.start("floods_logs");
    instance.handle(Timestamp(0), MapState::default(), &[event(1, "in/a", "x")]).unwrap();
    drop(instance);
    let messages = bed.messages();
    assert_eq!(messages[0], "flood: line 0 of event 1");
    assert_eq!(messages[1], "stdout: printed 0");
    // Twenty thousand lines; a slow machine lets five through in each second that it takes.
    let told = |message: &String| message.ends_with("log lines were dropped: more than 5 in a second");
    let dropped: usize = messages
        .iter()
        .filter(|message| told(message))
        .map(|message| message.split(' ').next().unwrap().parse::<usize>().unwrap())
        .sum();
    let through = messages.iter().filter(|message| !told(message)).count();
    assert_eq!(through + dropped, 20_000);
    assert!(dropped > 15_000, "{through} lines came through");
}

#[test]
fn a_publish_beyond_the_grants_is_denied_counted_and_logged() {
    let bed = Bed::new();
    let mut instance = bed.start("publishes_elsewhere");
    let handled = instance.handle(Timestamp(0), MapState::default(), &[event(1, "in/a", "x")]).unwrap().remove(0);
    let EventResult::Reject(reason) = &handled.result else { panic!("{handled:?}") };
    assert!(reason.contains("Denied") && reason.contains("`elsewhere/secret`"), "{reason}");
    assert_eq!((handled.denied, handled.publishes.len()), (1, 0));
    assert_eq!(bed.messages(), ["publish denied: the plugin is not granted the topic `elsewhere/secret`"]);
}

#[test]
fn init_and_health_that_say_no_are_told_with_their_reason() {
    let bed = Bed::new();
    let mut instance = bed.runtime.instantiate(&bed.compile("fails_init").unwrap(), bed.context()).unwrap();
    let error = instance.init().unwrap_err();
    assert_eq!(error.to_string(), "init failed: the key `station` is missing from the configuration");
    assert!(!error.is_fatal());
    let error = bed.start("fails_health").health().unwrap_err();
    assert_eq!(error.to_string(), "health failed: calibration is out of date");
}

#[test]
fn waiting_in_init_ends_with_the_deadline_too() {
    let bed = Bed::with(WasmLimits { call_deadline_ms: 200, ..small() });
    let mut instance = bed.runtime.instantiate(&bed.compile("slow_init").unwrap(), bed.context()).unwrap();
    let started = Instant::now();
    assert_eq!(instance.init(), Err(CallError::Deadline { deadline_ms: 200 }));
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
}

#[test]
fn an_interrupter_ends_a_running_call_at_once() {
    for script in ["print begun\nspin", "print begun\nsleep 3600000"] {
        let bed = Bed::with(WasmLimits { call_deadline_ms: 3_600_000, ..small() });
        let (begun, wait) = std::sync::mpsc::channel();
        let context = InstanceContext { log: Arc::new(move |_| begun.send(()).unwrap_or_default()), ..bed.context() };
        let mut instance = bed.runtime.instantiate(&bed.compile("obeys").unwrap(), context).unwrap();
        let interrupter = instance.interrupter();
        let call = std::thread::spawn(move || (obey(&mut instance, &[], &[script]), instance));
        wait.recv().unwrap();
        interrupter.interrupt();
        let (result, mut instance) = call.join().unwrap();
        assert_eq!(result, Err(CallError::Interrupted), "{script}");
        assert_eq!(instance.health(), Err(CallError::Dead));
    }
}

#[test]
fn an_interrupted_instance_does_not_start_another_call() {
    let mut instance = Bed::new().start("echo");
    instance.interrupter().interrupt();
    assert_eq!(instance.health(), Err(CallError::Interrupted));
}

#[test]
fn a_guest_that_breaks_the_contract_is_told_how() {
    for (scripts, expected) in [
        (&["begin 99", ""][..], "the plugin broke its contract: it began event 99, which is not in the batch"),
        (&["begin 10", ""], "the plugin broke its contract: it began event 10 where event 11 comes next"),
        (&["forget", ""], "the plugin broke its contract: it gave 1 outcomes for 2 events"),
    ] {
        let mut instance = Bed::new().start("obeys");
        assert_eq!(obey(&mut instance, &[], scripts).unwrap_err().to_string(), expected);
        assert_eq!(instance.health(), Err(CallError::Dead));
    }
}

#[test]
fn a_guest_that_never_begins_gets_its_events_one_by_one() {
    let bed = Bed::new();
    let compiled = bed.compile("forgets_begin").unwrap();
    let events: Vec<_> = (1..4).map(|sequence| event(sequence, "in/a", "x")).collect();
    for _instance in 0..2 {
        let mut instance = bed.runtime.instantiate(&compiled, bed.context()).unwrap();
        for _call in 0..2 {
            let handled = instance.handle(Timestamp(0), MapState::default(), &events).unwrap();
            let results: Vec<_> = handled.iter().map(|handled| handled.result.clone()).collect();
            assert_eq!(results, [EventResult::Done, EventResult::Untouched, EventResult::Untouched]);
            assert_eq!(handled.iter().map(|handled| handled.writes.len()).collect::<Vec<_>>(), [1, 0, 0]);
            assert!(!instance.takes_batches());
        }
    }
}

#[test]
fn no_more_instances_live_than_the_pool_has() {
    let bed = Bed::with(WasmLimits { instances: Some(1), ..small() });
    let compiled = bed.compile("echo").unwrap();
    let first = bed.runtime.instantiate(&compiled, bed.context()).unwrap();
    let second = bed.runtime.instantiate(&compiled, bed.context());
    assert!(matches!(second.map(drop), Err(CallError::Exhausted { .. })));
    drop(first);
    bed.runtime.instantiate(&compiled, bed.context()).unwrap();
}
