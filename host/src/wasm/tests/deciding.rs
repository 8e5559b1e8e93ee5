//! Hooks: what they are asked, what they answer, and what they may not do.

use std::time::{Duration, Instant};

use vespiary_core::event::Protocol;

use super::*;
use crate::wasm::hooks::*;

const PATIENCE: Duration = Duration::from_secs(20);

fn client() -> HookClient {
    let (user, address) = (Some("ada".into()), "192.0.2.7:50123".into());
    HookClient { id: "c1".into(), user, address, protocol: Protocol::V5 }
}

fn authenticate(instance: &mut Instance, password: Option<&str>) -> Result<Authentication, CallError> {
    let password = password.map(|password| password.as_bytes().to_vec());
    let question = Credentials { client: client(), password, clean_start: true };
    instance.authenticate(Timestamp(0), PATIENCE, MapState::default(), &question)
}

#[test]
fn a_client_is_authenticated_by_its_password() {
    let mut instance = Bed::new().start("decides");
    assert_eq!(authenticate(&mut instance, Some("right")), Ok(Authentication::Allow(None)));
    assert_eq!(authenticate(&mut instance, Some("as bob")), Ok(Authentication::Allow(Some("bob".to_owned()))));
    assert_eq!(authenticate(&mut instance, None), Ok(Authentication::Pass));
    let refusal = Refusal { code: 0x86, reason: "not so, c1".to_owned() };
    assert_eq!(authenticate(&mut instance, Some("wrong")), Ok(Authentication::Deny(refusal)));
}

#[test]
fn an_answer_that_cannot_be_is_an_error_and_the_instance_lives() {
    let mut instance = Bed::new().start("decides");
    let error = authenticate(&mut instance, Some("odd")).unwrap_err();
    assert_eq!(error.to_string(), "authenticate failed: it refuses with the reason code 0x00, which is no error");
    assert_eq!(authenticate(&mut instance, None), Ok(Authentication::Pass));
    let nul = authenticate(&mut instance, Some("as a\0b")).unwrap_err();
    assert_eq!(nul.to_string(), r#"authenticate failed: the user name "a\0b" is not possible"#);
}

#[test]
fn a_hook_has_a_deadline_of_its_own() {
    let mut instance = Bed::new().start("decides");
    let (password, clean_start) = (Some(b"spin".to_vec()), false);
    let question = Credentials { client: client(), password, clean_start };
    let begun = Instant::now();
    let deadline = Duration::from_millis(150);
    let late = instance.authenticate(Timestamp(0), deadline, MapState::default(), &question);
    assert_eq!(late, Err(CallError::Deadline { deadline_ms: 150 }));
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    assert_eq!(authenticate(&mut instance, None), Err(CallError::Dead));
}

#[test]
fn a_hook_that_panics_says_why() {
    let error = authenticate(&mut Bed::new().start("decides"), Some("panic")).unwrap_err();
    assert!(error.is_fatal() && error.to_string().contains("no password like that"), "{error}");
}

#[test]
fn an_exchange_goes_on_from_what_the_step_before_left() {
    let mut instance = Bed::new().start("decides");
    let mut step = |data: Option<&str>, before: Option<&[u8]>| {
        let (data, state) = (data.map(|data| data.as_bytes().to_vec()), before.map(<[u8]>::to_vec));
        let question = AuthStep { client: client(), method: "COUNTDOWN".to_owned(), data, state };
        instance.auth_step(Timestamp(0), PATIENCE, MapState::default(), &question)
    };
    let next = AuthProgress::Continue { data: b"1 left".to_vec(), next: b"0".to_vec() };
    assert_eq!(step(Some("1"), None), Ok(next));
    let success = AuthProgress::Success { data: Some(b"welcome".to_vec()), user: Some("COUNTDOWN".to_owned()) };
    assert_eq!(step(Some("more"), Some(b"0")), Ok(success));
    assert_eq!(step(None, None), Ok(AuthProgress::Deny(Refusal { code: 0x87, reason: "no number".to_owned() })));
}

#[test]
fn a_hook_reads_the_state_and_changes_nothing() {
    let mut instance = Bed::new().start("decides");
    let mut ask = |action, topic: &str| {
        let question = Access { client: client(), action, topic: topic.into(), qos: Qos::AtLeastOnce, retain: true };
        instance.authorize(Timestamp(0), PATIENCE, MapState::of(&[("allowed", "a/b")]), &question).unwrap()
    };
    assert_eq!(ask(Action::Publish, "a/b"), Authorization::Allow);
    assert!(matches!(ask(Action::Publish, "a/c"), Authorization::Deny(Refusal { code: 0x87, .. })));
    assert_eq!(ask(Action::Will, "a/b"), Authorization::Pass);
    let Authorization::Deny(refusal) = ask(Action::Subscribe, "#") else { panic!("it was allowed") };
    let tried: Vec<_> = refusal.reason.split("; ").collect();
    assert_eq!(tried.len(), 6);
    assert!(tried[..2].iter().all(|tried| tried.contains("Unavailable")), "{tried:?}");
    assert!(tried[2..5].iter().all(|tried| tried.contains("Denied")), "{tried:?}");
    assert!(tried[5].contains("Unavailable"), "{tried:?}");
}

fn passing(payload: &str) -> Passing {
    let mut message = (*event(1, "raw/a", payload).message).clone();
    message.expires_at = Some(Timestamp(5_500));
    message.user = Some("ada".into());
    Passing { client: client(), message: Arc::new(message), qos: Qos::AtLeastOnce, retain: false }
}

#[test]
fn a_publish_is_kept_replaced_dropped_or_denied() {
    let mut instance = Bed::new().start("decides");
    let mut ask =
        |payload: &str| instance.intercept_publish(Timestamp(1_000), PATIENCE, MapState::default(), &passing(payload));
    assert_eq!(ask("keep"), Ok(PublishVerdict::Keep));
    assert_eq!(ask("drop"), Ok(PublishVerdict::Drop));
    let refusal = Refusal { code: 0x99, reason: "192.0.2.7:50123".to_owned() };
    assert_eq!(ask("deny"), Ok(PublishVerdict::Deny(refusal)));
    let expected = Message { payload: (*b"hot (seen)").into(), ..(*passing("hot").message).clone() };
    assert_eq!(ask("hot"), Ok(PublishVerdict::Replace(Box::new(expected))));
    let Ok(PublishVerdict::Replace(moved)) = ask("move") else { panic!("it was not moved") };
    assert_eq!(moved.topic.as_str(), "moved/raw/a");
    let error = ask("wrong").unwrap_err().to_string();
    assert_eq!(error, "intercept-publish failed: the topic is not valid: a topic name holds no wildcard");
}

#[test]
fn a_subscription_is_kept_replaced_or_denied() {
    let mut instance = Bed::new().start("decides");
    let mut ask = |filter: &str| {
        let question =
            Subscribing { client: client(), filter: TopicFilter::parse(filter).unwrap(), qos: Qos::ExactlyOnce };
        instance.intercept_subscribe(Timestamp(0), PATIENCE, MapState::default(), &question)
    };
    assert_eq!(ask("tenants/a"), Ok(SubscribeVerdict::Keep));
    assert_eq!(ask("#"), Ok(SubscribeVerdict::Deny(Refusal { code: 0x8f, reason: "too much".to_owned() })));
    let filter = TopicFilter::parse("tenants/ada/x/+").unwrap();
    assert_eq!(ask("x/+"), Ok(SubscribeVerdict::Replace { filter, qos: Qos::AtMostOnce }));
    assert!(ask("wrong").unwrap_err().to_string().contains("the filter is not valid"));
}

#[test]
fn a_delivery_is_kept_replaced_or_dropped() {
    let mut instance = Bed::new().start("decides");
    let mut ask = |payload: &str| {
        instance.intercept_deliver(Timestamp(1_000), PATIENCE, MapState::default(), &passing(payload)).unwrap()
    };
    assert_eq!(ask("keep"), DeliverVerdict::Keep);
    assert_eq!(ask("drop"), DeliverVerdict::Drop);
    let expected = Message { payload: (*b"***").into(), ..(*passing("").message).clone() };
    assert_eq!(ask("secret"), DeliverVerdict::Replace(Box::new(expected)));
}

#[test]
fn what_a_component_does_not_export_cannot_be_called() {
    let mut instance = Bed::new().start("echo");
    assert_eq!(
        authenticate(&mut instance, None).unwrap_err().to_string(),
        "it does not export `vespiary:plugin/hooks@0.1.0`"
    );
    instance.health().unwrap();
    let handled = Bed::new().start("decides").handle(Timestamp(0), MapState::default(), &[event(1, "in/a", "")]);
    assert_eq!(handled, Err(CallError::NotExported { interface: "vespiary:plugin/handler@0.1.0" }));
}
