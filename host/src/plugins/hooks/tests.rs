//! Hooks with scripted guests: who is asked, in which order, and what becomes of failures.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use vespiary_core::event::{PluginName, Protocol, ReasonCode};
use vespiary_core::{Message, Qos, Timestamp, Topic, TopicFilter};

use super::testing::{Scripted, declaration, install, log};
use super::*;
use crate::plugins::manifest::{Action, Hook, OnFailure};
use crate::wasm::hooks::{
    AuthProgress, AuthStep, Authentication, Authorization, Credentials, DeliverVerdict, HookClient, PublishVerdict,
    Refusal, SubscribeVerdict,
};

fn client() -> HookClient {
    HookClient { id: "c".into(), user: None, address: "192.0.2.7:1".into(), protocol: Protocol::V5 }
}

fn message(topic: &str, payload: &str) -> Message {
    Message {
        topic: Topic::parse(topic).unwrap(),
        payload: payload.as_bytes().into(),
        qos: Qos::AtLeastOnce,
        retain: false,
        properties: None,
        expires_at: None,
        received_at: Timestamp(5),
        publisher: "c".into(),
        user: Some("u".into()),
    }
}

fn credentials() -> Credentials {
    Credentials { client: client(), password: Some(b"secret".to_vec()), clean_start: true }
}

fn refusal(code: u8) -> Refusal {
    Refusal { code, reason: "no".to_owned() }
}

fn wait<T>(answer: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(answer)
}

fn publish(hooks: &Hooks, topic: &str) -> Published {
    let set = hooks.current();
    wait(async move { set.publish(&client(), message(topic, "m")).await })
}

/// Appends a letter to the payload.
fn append(letter: char) -> impl Fn(&Question) -> Result<Answer, String> {
    move |question| {
        let Question::Publish(passing) = question else { return Err("another question".to_owned()) };
        let payload = [&passing.message.payload[..], &[letter as u8]].concat();
        let other = Message { payload: payload.into(), publisher: "forged".into(), ..(*passing.message).clone() };
        Ok(Answer::Publish(PublishVerdict::Replace(Box::new(other))))
    }
}

fn payload(published: Published) -> String {
    let Published::Message(message) = published else { panic!("{published:?}") };
    assert_eq!((&*message.publisher, message.user.as_deref(), message.received_at), ("c", Some("u"), Timestamp(5)));
    String::from_utf8(message.payload.into()).unwrap()
}

#[test]
fn hooks_are_asked_by_priority_then_name_and_each_sees_what_the_ones_before_made() {
    let hooks = Hooks::default();
    let of = |priority| [HookDeclaration { priority, ..declaration(Hook::InterceptPublish, &["a/#"]) }];
    install(&hooks, "b", &of(0), append('b'));
    install(&hooks, "z", &of(-1), append('z'));
    install(&hooks, "a", &of(0), append('a'));
    assert_eq!(payload(publish(&hooks, "a/x")), "mzab");
    assert_eq!(payload(publish(&hooks, "b/x")), "m");
    hooks.remove(&PluginName("z".into()));
    install(&hooks, "b", &of(-5), append('B'));
    assert_eq!(payload(publish(&hooks, "a/x")), "mBa");
}

#[test]
fn what_nobody_wants_to_know_is_one_look_and_each_install_is_seen_by_the_next() {
    let hooks = Hooks::default();
    let view = hooks.view();
    let topic = Topic::parse("a/x").unwrap();
    assert!(!view.any(Wanted::Publishes) && view.publishes(&topic).is_none());
    install(&hooks, "p", &[declaration(Hook::InterceptPublish, &["b/#"])], append('b'));
    assert!(view.any(Wanted::Publishes) && !view.any(Wanted::Deliveries) && view.publishes(&topic).is_none());
    install(&hooks, "p", &[declaration(Hook::InterceptPublish, &["a/#"])], append('b'));
    assert!(view.publishes(&topic).is_some());
    let subscribe = HookDeclaration { actions: vec![Action::Subscribe], ..declaration(Hook::Authorize, &["a/+"]) };
    install(&hooks, "q", &[subscribe], append('b'));
    let filters = ["#", "b/#"].map(|filter| TopicFilter::parse(filter).unwrap());
    assert!(view.subscriptions(filters.iter()).is_some() && view.subscriptions(filters[1..].iter()).is_none());
    assert!(!view.any(Wanted::Wills));
    for plugin in ["p", "q"] {
        hooks.remove(&PluginName(plugin.into()));
    }
    assert!(!view.any(Wanted::Publishes) && !view.any(Wanted::Subscriptions));
}

#[test]
fn the_first_that_knows_a_client_settles_who_it_is() {
    use Authentication::{Allow, Deny, Pass};
    let allow = || Allow(Some("bob".to_owned()));
    for (first, second, expected) in [
        (Pass, Pass, Admission::Unknown),
        (Pass, allow(), Admission::Allowed(Some("bob".into()))),
        (Deny(refusal(0x86)), allow(), Admission::Denied(refusal(0x86))),
        (Allow(None), Deny(refusal(0x86)), Admission::Allowed(None)),
    ] {
        let hooks = Hooks::default();
        for (name, answer) in [("a", first.clone()), ("b", second.clone())] {
            install(&hooks, name, &[declaration(Hook::Authenticate, &[])], move |question| {
                let Question::Authenticate(credentials) = question else { return Err("another question".to_owned()) };
                assert_eq!(credentials.password.as_deref(), Some(&b"secret"[..]));
                Ok(Answer::Authenticate(answer.clone()))
            });
        }
        let set = hooks.current();
        assert_eq!(wait(async move { set.authenticate(credentials()).await }), expected, "{first:?} {second:?}");
    }
}

#[test]
fn what_a_client_may_is_asked_before_its_message_is_changed() {
    let hooks = Hooks::default();
    let authorize = declaration(Hook::Authorize, &["#"]);
    install(&hooks, "a", &[authorize.clone(), declaration(Hook::InterceptPublish, &["#"])], |question| {
        Ok(match question {
            Question::Authorize(access) if &*access.topic == "secret" => {
                Answer::Authorize(Authorization::Deny(refusal(0x87)))
            }
            Question::Authorize(_) => Answer::Authorize(Authorization::Pass),
            Question::Publish(passing) if passing.message.topic.as_str() == "noise" => {
                Answer::Publish(PublishVerdict::Drop)
            }
            Question::Publish(_) => Answer::Publish(PublishVerdict::Keep),
            _ => return Err("another question".to_owned()),
        })
    });
    assert_eq!(publish(&hooks, "secret"), Published::Denied(refusal(0x87)));
    assert_eq!(publish(&hooks, "noise"), Published::Dropped);
    assert_eq!(payload(publish(&hooks, "plain")), "m");
    let set = hooks.current();
    let will = wait(async move { set.will(&client(), &message("secret", "")).await });
    assert_eq!(will, Err(refusal(0x87)));
    // The first that allows settles it.
    install(&hooks, "A", &[HookDeclaration { priority: -1, ..authorize }], |_| {
        Ok(Answer::Authorize(Authorization::Allow))
    });
    assert_eq!(payload(publish(&hooks, "secret")), "m");
}

#[test]
fn a_subscription_is_changed_to_what_the_host_can_follow_or_refused() {
    let hooks = Hooks::default();
    install(&hooks, "a", &[declaration(Hook::InterceptSubscribe, &["#", "$SYS/#"])], |question| {
        let Question::Subscribe(subscribing) = question else { return Err("another question".to_owned()) };
        let other = |filter, qos| SubscribeVerdict::Replace { filter: TopicFilter::parse(filter).unwrap(), qos };
        Ok(Answer::Subscribe(match subscribing.filter.as_str() {
            "mine/#" => other("7/mine/#", Qos::ExactlyOnce),
            "$share/g/lower" => other("$share/g/lower", Qos::AtMostOnce),
            "theirs" => other("$reply/p/1", Qos::AtMostOnce),
            "no" => SubscribeVerdict::Deny(refusal(0x8F)),
            _ => SubscribeVerdict::Keep,
        }))
    });
    let failed = Refusal { code: ReasonCode::ImplementationSpecificError as u8, reason: String::new() };
    for (filter, expected) in [
        ("mine/#", Ok(("7/mine/#", Qos::AtLeastOnce))),
        ("$share/g/lower", Ok(("$share/g/lower", Qos::AtMostOnce))),
        ("other", Ok(("other", Qos::AtLeastOnce))),
        ("no", Err(refusal(0x8F).code)),
        ("theirs", Err(failed.code)),
    ] {
        let (set, filter) = (hooks.current(), TopicFilter::parse(filter).unwrap());
        let found = wait(async move { set.subscribe(&client(), filter, Qos::AtLeastOnce).await });
        let found = found.as_ref().map(|(filter, qos)| (filter.as_str(), *qos)).map_err(|refusal| refusal.code);
        assert_eq!(found, expected);
    }
}

#[test]
fn failures_are_decided_by_the_declaration_counted_and_logged() {
    for (on_failure, expected) in [(OnFailure::Deny, None), (OnFailure::Allow, Some("m"))] {
        let hooks = Hooks::default();
        let (sink, lines) = log();
        let declaration = HookDeclaration { on_failure, ..declaration(Hook::InterceptPublish, &["#"]) };
        // An error, an answer to another question, and a message that nobody may publish.
        let answers = Mutex::new(vec![
            Ok(Answer::Publish(PublishVerdict::Replace(Box::new(message("$plugin/x", ""))))),
            Ok(Answer::Deliver(DeliverVerdict::Drop)),
            Err("trap".to_owned()),
        ]);
        let code = Scripted::code(move |_| answers.lock().unwrap().pop().unwrap());
        hooks.install(&PluginName("p".into()), code, sink, &[declaration]);
        for _ in 0..3 {
            match (publish(&hooks, "t"), expected) {
                (Published::Denied(refusal), None) => {
                    assert_eq!(refusal.code, ReasonCode::ImplementationSpecificError as u8);
                }
                (published, Some(expected)) => assert_eq!(payload(published), expected),
                (published, None) => panic!("{published:?}"),
            }
        }
        let (_, counts) = hooks.counts().remove(0);
        assert_eq!((counts.asked, counts.answered, counts.failed), (3, 2, 1));
        let lines = lines.lock().unwrap();
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines[0].contains("hook intercept-publish failed") && lines[0].contains("trap"), "{lines:?}");
    }
}

#[test]
fn an_exchange_without_an_answer_never_succeeds() {
    let hooks = Hooks::default();
    let step = HookDeclaration {
        methods: vec!["m".to_owned()],
        on_failure: OnFailure::Allow,
        ..declaration(Hook::AuthStep, &[])
    };
    install(&hooks, "p", &[step], |question| match question {
        Question::AuthStep(step) if step.state.is_some() => {
            Ok(Answer::AuthStep(AuthProgress::Success { data: None, user: None }))
        }
        _ => Err("trap".to_owned()),
    });
    assert!(hooks.current().offers("m") && !hooks.current().offers("n"));
    let progress = |method: &str, state| {
        let step = AuthStep { client: client(), method: method.to_owned(), data: None, state };
        let set = hooks.current();
        wait(async move { set.step(step).await })
    };
    assert!(matches!(progress("m", Some(Vec::new())), AuthProgress::Success { .. }));
    for (method, code) in [("m", ReasonCode::ServerUnavailable), ("n", ReasonCode::BadAuthenticationMethod)] {
        let AuthProgress::Deny(refusal) = progress(method, None) else { panic!("{method}") };
        assert_eq!(refusal.code, code as u8);
    }
}

#[test]
fn a_late_hook_costs_its_deadline_until_its_breaker_opens_and_then_nothing() {
    let hooks = Hooks::default();
    let (calls, released) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let declaration = HookDeclaration {
        deadline_ms: 20,
        on_failure: OnFailure::Allow,
        ..declaration(Hook::InterceptPublish, &["#"])
    };
    let called = Arc::clone(&calls);
    let may_answer = Arc::clone(&released);
    install(&hooks, "p", &[declaration], move |_| {
        let number = called.fetch_add(1, Ordering::Relaxed) + 1;
        while may_answer.load(Ordering::Relaxed) < number {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(Answer::Publish(PublishVerdict::Drop))
    });
    for asked in 1..=10 {
        let begun = Instant::now();
        assert_eq!(payload(publish(&hooks, "t")), "m");
        assert!(begun.elapsed() >= Duration::from_millis(20));
        // Only now may the guest answer. It is judged before the next question.
        while hooks.counts()[0].1.late < asked {
            released.store(calls.load(Ordering::Relaxed), Ordering::Relaxed);
            std::thread::yield_now();
        }
    }
    for _ in 0..50 {
        assert_eq!(payload(publish(&hooks, "t")), "m");
    }
    let (_, counts) = hooks.counts().remove(0);
    assert_eq!((counts.late, counts.paused, counts.asked), (10, 50, 60));
    assert!(calls.load(Ordering::Relaxed) <= 10);
}

#[test]
fn a_plugin_that_answers_nobody_does_not_keep_the_others_waiting() {
    let hooks = Hooks::default();
    let (open, gate) = std::sync::mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    install(&hooks, "stuck", &[declaration(Hook::InterceptPublish, &["stuck"])], move |_| {
        let _ = gate.lock().unwrap().recv();
        Ok(Answer::Publish(PublishVerdict::Drop))
    });
    install(&hooks, "quick", &[declaration(Hook::InterceptPublish, &["quick"])], |_| {
        Ok(Answer::Publish(PublishVerdict::Drop))
    });
    let set = hooks.current();
    wait(async {
        let client = client();
        let stuck: Vec<_> = (0..20).map(|_| Box::pin(set.publish(&client, message("stuck", "")))).collect();
        let mut all = std::pin::pin!(async {
            for one in stuck {
                assert_eq!(one.await, Published::Dropped);
            }
        });
        tokio::select! {
            biased;
            () = &mut all => panic!("nobody opened the gate"),
            published = set.publish(&client, message("quick", "")) => assert_eq!(published, Published::Dropped),
        }
        drop(open);
        all.await;
    });
}

#[test]
fn a_guest_is_made_before_it_is_needed_and_one_that_died_is_replaced() {
    struct Counted(AtomicU32);
    struct Dies;
    impl Guest for Dies {
        fn ask(&mut self, _: Duration, question: &Question) -> Result<Answer, String> {
            match question {
                Question::Publish(passing) if passing.message.topic.as_str() == "die" => Err("trap".to_owned()),
                _ => Ok(Answer::Publish(PublishVerdict::Drop)),
            }
        }
    }
    impl Code for Counted {
        fn guest(&self) -> Result<Box<dyn Guest>, String> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Ok(Box::new(Dies))
        }
    }
    let (hooks, code) = (Hooks::default(), Arc::new(Counted(AtomicU32::new(0))));
    let made = || code.0.load(Ordering::Relaxed);
    let declarations = [declaration(Hook::InterceptPublish, &["#"])];
    hooks.install(&PluginName("p".into()), code.clone(), log().0, &declarations);
    while made() == 0 {
        std::thread::yield_now();
    }
    // The first question may come while that one is still being put aside.
    for _ in 0..5 {
        assert_eq!(publish(&hooks, "t"), Published::Dropped);
    }
    let before = made();
    assert!(before <= 2, "{before}");
    for _ in 0..3 {
        assert!(matches!(publish(&hooks, "die"), Published::Denied(_)));
    }
    assert_eq!(publish(&hooks, "t"), Published::Dropped);
    assert!((3..=4).contains(&made()), "{}", made());
}
