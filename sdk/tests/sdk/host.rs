//! The test host keeps the real host's promises.

use std::cell::Cell;
use std::time::Duration;

use vespiary_sdk::prelude::*;
use vespiary_sdk::testing::{ATTEMPTS, Delivery, TestHost};
use vespiary_sdk::{BrokerError, StateError};

plugin! {
    name: "orders",
    handlers: [order, stock],
    publishes: ["done/+", "orders/+"],
    init: start,
    health: check,
}

thread_local! {
    /// What a handler must not have: a memory beside the state.
    static CALLS: Cell<u32> = const { Cell::new(0) };
}

fn start(config: &Config) -> Result<()> {
    let limit = config.parse_or("limit", 10_u32)?;
    info!("limit {limit}, colour {:?}, {} entries", config.get("colour"), config.all()?.len());
    Ok(())
}

fn check(config: &Config) -> Result<()> {
    config.require("colour")?;
    Ok(())
}

/// Does what the payload says.
#[on("orders/{name}")]
fn order(cx: &Context, name: &str, Text(todo): Text) -> Result<()> {
    CALLS.set(CALLS.get() + 1);
    let count = cx.state().update(name, |count: &mut u32| {
        *count += 1;
        *count
    })?;
    cx.publish(format!("done/{name}"), Json(count))?;
    match todo.as_str() {
        "fail twice" if cx.event().attempt() < 2 => Err(Error::retry("not yet")),
        "fail" => Err(Error::retry("never")),
        "reject" => Err(Error::reject("nonsense")),
        "panic" => panic!("broken {name}"),
        "elsewhere" => cx.publish("elsewhere", ""),
        "elsewhere, ignored" => {
            let _ = cx.publish("elsewhere", "");
            Ok(())
        }
        "chain" => cx.publish("orders/next", ""),
        "loop" => cx.publish("orders/loop", "loop"),
        _ => Ok(()),
    }
}

#[on("stock")]
fn stock(cx: &Context) -> Result<()> {
    for index in 0..1_500 {
        cx.state().set(format!("stock/{index:04}"), &index)?;
    }
    cx.state().delete("stock/0007")?;
    assert_eq!(cx.state().scan::<u32>("stock/")?.len(), 1_499, "its own writes are seen");
    let page: Vec<(String, u32)> = cx.state().scan_page("stock/", Some("stock/0006"), 2)?;
    assert_eq!(page, [("stock/0008".to_owned(), 8), ("stock/0009".to_owned(), 9)]);
    assert!(matches!(cx.state().get::<u32>(""), Err(StateError::TooLarge(_))));
    assert!(matches!(cx.state().set("x".repeat(513), &0), Err(StateError::TooLarge(_))));
    assert!(matches!(cx.state().set("large", &"x".repeat(1 << 20)), Err(StateError::TooLarge(_))));
    cx.state().set_bytes("raw", b"{")?;
    assert!(cx.state().get::<u32>("raw").unwrap_err().to_string().starts_with("the state of `raw`: invalid type: map"));
    Ok(())
}

/// The next version: other subscriptions, same name.
mod next {
    use vespiary_sdk::prelude::*;

    plugin! { name: "orders", handlers: [order], publishes: ["done/+"] }

    #[on("orders/{name}", qos = 2)]
    fn order(cx: &Context, name: &str) -> Result<()> {
        cx.state().update(name, |count: &mut u32| *count += 100)?;
        Ok(())
    }
}

fn host() -> TestHost {
    TestHost::new(plugin())
}

#[test]
fn a_failed_attempt_leaves_nothing_and_comes_again_after_a_pause() {
    let mut host = host();
    assert_eq!(host.publish_bytes("orders/a", "fail twice"), Delivery::Retry("not yet".into()));
    assert_eq!((host.state::<u32>("a"), host.published("#").len(), host.waiting()), (None, 0, 1));
    host.advance(Duration::from_millis(999));
    assert_eq!(host.waiting(), 1);
    host.advance(Duration::from_millis(1));
    assert_eq!(host.waiting(), 1, "the second attempt failed too");
    host.advance(Duration::from_secs(2));
    assert_eq!((host.state::<u32>("a"), host.waiting()), (Some(1), 0));
    host.assert_published("done/a", 1);
}

#[test]
fn later_events_wait_behind_a_failed_one_on_their_topic_only() {
    let mut host = host();
    host.publish_bytes("orders/a", "fail twice");
    assert_eq!(host.publish_bytes("orders/a", ""), Delivery::Waiting);
    assert_eq!(host.publish_bytes("orders/b", ""), Delivery::Done);
    host.settle();
    let topics: Vec<String> = host.published("#").into_iter().map(|message| format!("{message:?}")).collect();
    assert_eq!(topics, ["done/b 1", "done/a 1", "done/a 2"]);
}

#[test]
fn what_never_succeeds_becomes_a_dead_letter_and_can_be_replayed() {
    let mut host = host();
    host.publish_bytes("orders/a", "fail");
    host.advance(Duration::from_secs(14));
    assert!(host.dead_letters().is_empty());
    host.advance(Duration::from_secs(1));
    let [letter] = &host.dead_letters()[..] else { panic!() };
    assert_eq!((letter.reason.as_str(), letter.attempts, letter.event.topic()), ("never", ATTEMPTS, "orders/a"));
    assert_eq!((host.state::<u32>("a"), host.waiting()), (None, 0));

    assert_eq!(host.publish_bytes("orders/b", "reject"), Delivery::Reject("nonsense".into()));
    assert_eq!((host.dead_letters()[1].attempts, host.state::<u32>("b")), (1, None));

    host.upgrade(next::plugin());
    host.replay_dead();
    assert_eq!((host.dead_letters().len(), host.state::<u32>("a"), host.state::<u32>("b")), (0, Some(100), Some(100)));
}

#[test]
fn a_panic_is_a_trap_with_message_and_line() {
    let mut host = host();
    let Delivery::Trap(message) = host.publish_bytes("orders/a", "panic") else { panic!() };
    assert!(message.starts_with("panicked at sdk/tests/sdk/host.rs:"), "{message}");
    assert!(message.ends_with(": broken a"), "{message}");
    let line = host.logs().pop().unwrap();
    assert_eq!((line.level, line.context.as_str()), (vespiary_sdk::log::Level::Critical, "orders"));
    assert_eq!((line.message, host.state::<u32>("a"), host.waiting()), (message, None, 1));
    host.settle();
    assert_eq!(host.dead_letters()[0].attempts, ATTEMPTS);
}

#[test]
#[should_panic(expected = "published to `elsewhere`, which it was not granted")]
fn publishing_without_a_grant_fails_the_test() {
    host().publish_bytes("orders/a", "elsewhere, ignored");
}

#[test]
fn publishing_without_a_grant_is_denied_as_by_the_host() {
    let mut host = host().tolerating_denied();
    let Delivery::Retry(reason) = host.publish_bytes("orders/a", "elsewhere") else { panic!() };
    assert_eq!(reason, BrokerError::Denied("`elsewhere` is not granted".into()).to_string());
    assert_eq!(host.publish_bytes("orders/b", "elsewhere, ignored"), Delivery::Done);
    assert_eq!(host.denied(), ["published to `elsewhere`", "published to `elsewhere`"]);
}

#[test]
fn messages_come_back_to_the_plugins_own_subscriptions_if_asked() {
    let mut host = host();
    host.publish_bytes("orders/a", "chain");
    assert_eq!(host.state::<u32>("next"), None);
    let mut host = self::host().with_loopback();
    host.publish_bytes("orders/a", "chain");
    assert_eq!(host.state::<u32>("next"), Some(1));
}

#[test]
#[should_panic(expected = "it feeds itself")]
fn a_plugin_that_feeds_itself_without_end_fails_the_test() {
    host().with_loopback().publish_bytes("orders/a", "loop");
}

#[test]
fn a_repeated_message_is_handled_again_and_a_lost_commit_is_not_seen() {
    let mut host = host();
    host.publish_bytes("orders/a", "");
    host.redeliver_last();
    assert_eq!(host.state::<u32>("a"), Some(2));
    CALLS.set(0);
    host.crash_after_next_call();
    assert_eq!(host.publish_bytes("orders/a", ""), Delivery::Done);
    assert_eq!((CALLS.get(), host.state::<u32>("a"), host.published("#").len()), (2, Some(3), 3));
}

#[test]
fn an_upgrade_keeps_state_and_waiting_events() {
    let mut host = host();
    host.publish_bytes("orders/a", "");
    host.publish_bytes("orders/a", "fail");
    host.publish_bytes("stock", "");
    host.set_state("b", 7);
    host.upgrade(next::plugin());
    host.publish_bytes("orders/b", "");
    host.settle();
    assert_eq!((host.state::<u32>("a"), host.state::<u32>("b")), (Some(101), Some(107)));
    assert_eq!(host.publish_bytes("stock", ""), Delivery::NotSubscribed);
    assert_eq!(host.state_keys("stock/").len(), 1_499);
}

#[test]
fn an_event_that_no_handler_takes_any_more_is_done_with_a_warning() {
    let mut host = TestHost::new(plugin());
    CALLS.set(0);
    host.publish_bytes("orders/a", "fail");
    host.publish_bytes("stock", "");
    mod other {
        use vespiary_sdk::prelude::*;
        plugin! { name: "orders", handlers: [nothing] }
        #[on("nothing")]
        fn nothing() {}
    }
    host.upgrade(other::plugin());
    host.settle();
    assert_eq!((host.waiting(), host.dead_letters().len(), CALLS.get()), (0, 0, 1));
    assert_eq!(host.logs().pop().unwrap().message, "no handler for `orders/a`: the event is dropped");
}

#[test]
fn init_and_health_see_the_configuration_and_can_refuse() {
    let mut host = self::host().with_config([("limit", "3"), ("colour", "red")]);
    assert_eq!((host.start(), host.health()), (Ok(()), Ok(())));
    assert_eq!(host.logs()[0].message, "limit 3, colour Some(\"red\"), 2 entries");
    let error = self::host().with_config([("limit", "many")]).start().unwrap_err();
    assert_eq!(error, "the configuration's `limit` is not valid: invalid digit found in string (it is `many`)");
    assert_eq!(self::host().health().unwrap_err(), "the configuration lacks `colour`");
}
