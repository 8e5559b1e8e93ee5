//! Timers, schedules, requests and what expires, by the test's clock.

use std::time::Duration;

use vespiary_sdk::prelude::*;
use vespiary_sdk::testing::{Delivery, TestHost};

plugin! {
    name: "clockwork",
    handlers: [job, overdue, nightly, odd, located, untagged, came, known],
    publishes: ["overdue/+", "nights", "odd", "ask/#", "told/#"],
    disconnects: true,
}

/// Does what the payload says.
#[on("jobs/{job}")]
fn job(cx: &mut Context, job: &str, Text(todo): Text) -> Result<()> {
    match todo.as_str() {
        "begin" => cx.timers().after(format!("job/{job}/overdue"), Duration::from_secs(60), Json(job)),
        "end" => cx.timers().cancel(format!("job/{job}/overdue")),
        "begin, and fail" => {
            cx.timers().after(format!("job/{job}/overdue"), Duration::from_secs(60), "")?;
            Err(Error::reject("told to"))
        }
        "busy" if cx.event().attempt() == 0 => Err(Error::retry_after(Duration::from_secs(90))),
        "odd" => cx.timers().schedule("odd", "*/20 * * * *", "tick"),
        "bad schedule" => cx.timers().schedule("odd", "never", ""),
        "bad name" => cx.timers().set("$request/1", cx.now(), ""),
        "where" => {
            let request = cx.request("ask/where", Text(job.into())).tag(format!("where/{job}"));
            let id = request.timeout(Duration::from_secs(5)).user_property("unit", "m").send()?;
            info!("request {id}");
            Ok(())
        }
        "who" => cx.request("ask/who", "").send().map(drop),
        "expiring" => Ok(cx.state().set_for(job, &1, Duration::from_secs(10))?),
        _ => Ok(()),
    }
}

#[on_timer("job/{job}/overdue")]
fn overdue(cx: &mut Context, job: &str, Json(payload): Json<String>) -> Result<()> {
    assert_eq!(job, payload);
    let count = cx.state().add("overdue", 1)?;
    cx.publish(format!("overdue/{job}"), Json(count))
}

#[schedule("0 3 * * *", name = "every-night", payload = "{}")]
fn nightly(cx: &mut Context, event: &Event) -> Result<()> {
    assert_eq!((event.topic(), event.payload()), ("$timer/every-night", &b"{}"[..]));
    cx.publish("nights", cx.now().to_string())
}

#[on_timer("odd")]
fn odd(cx: &mut Context) -> Result<()> {
    if cx.state().add("odd", 1)? == 2 { cx.timers().cancel("odd") } else { cx.publish("odd", "") }
}

#[on_response("where/{job}")]
fn located(cx: &mut Context, job: &str, answer: Answer<Text>, id: RequestId) -> Result<()> {
    match answer {
        Answer::Given(Text(place)) => cx.publish(format!("told/{job}"), Json((place, id.to_string()))),
        Answer::TimedOut => cx.publish(format!("told/{job}"), Json("nobody answers")),
    }
}

#[on_response]
fn untagged(cx: &mut Context, answer: Answer<&[u8]>) -> Result<()> {
    cx.publish("told/untagged", Json(answer == Answer::TimedOut))
}

#[on_client("connected")]
fn came(cx: &mut Context, client: &str, event: ClientEvent) -> Result<()> {
    assert_eq!(client, event.client_id);
    if event.details.get("address") == Some(&json!("192.0.2.66")) {
        cx.disconnect(client)?;
    }
    Ok(cx.state().set(format!("client/{client}"), &(event.user, event.at))?)
}

#[on("known/{name}")]
fn known(cx: &mut Context, name: &str) -> Result<()> {
    let metrics = cx.metrics().label("name", name);
    metrics.count("lookups", 1);
    metrics.gauge("length", 0.5);
    let retained = cx.retained(format!("known/{name}"))?;
    Ok(cx.state().set(name, &retained.map(|message| message.json::<u64>()).transpose()?)?)
}

fn host() -> TestHost {
    TestHost::new(plugin())
}

#[test]
fn a_timer_is_an_event_at_its_time() {
    let mut host = host();
    host.publish_bytes("jobs/a", "begin");
    host.publish_bytes("jobs/b", "begin");
    host.publish_bytes("jobs/b", "end");
    host.advance(Duration::from_millis(59_999));
    host.assert_nothing_published("overdue/+");
    host.advance(Duration::from_millis(1));
    assert_eq!(host.published("#").len(), 1);
    host.assert_published("overdue/a", 1);
    host.assert_state("overdue", 1);
    host.assert_no_dead_letters();
}

#[test]
fn a_timer_of_a_failed_attempt_is_none() {
    let mut host = host();
    assert_eq!(host.publish_bytes("jobs/a", "begin, and fail"), Delivery::Reject("told to".into()));
    let names: Vec<String> = host.timers().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["every-night"]);
    for (todo, part) in [("bad schedule", "the timer is not valid"), ("bad name", "does not begin with `$`")] {
        let Delivery::Retry(reason) = host.publish_bytes(format!("jobs/{part}"), todo) else { panic!("{todo}") };
        assert!(reason.contains(part), "{reason}");
    }
}

#[test]
fn a_retry_may_name_its_pause() {
    let mut host = host();
    let Delivery::Retry(reason) = host.publish_bytes("jobs/a", "busy") else { panic!() };
    assert_eq!(reason, "to be tried again in 90s");
    host.advance(Duration::from_secs(89));
    assert_eq!(host.waiting(), 1);
    host.advance(Duration::from_secs(1));
    assert_eq!(host.waiting(), 0);
}

#[test]
fn schedules_come_at_their_times_also_those_that_are_set() {
    let mut host = host();
    host.advance(Duration::from_secs(2 * 86_400));
    let nights: Vec<String> = host.published("nights").iter().map(|night| night.text()).collect();
    assert_eq!(nights, ["2026-01-01T03:00:00.000Z", "2026-01-02T03:00:00.000Z"]);
    host.publish_bytes("jobs/a", "odd");
    host.advance(Duration::from_secs(3_600));
    assert_eq!((host.published("odd").len(), host.state("odd")), (1, Some(2)), "it is cancelled by its second event");
}

#[test]
fn answers_and_timeouts_find_their_request() {
    let mut host = host();
    host.publish_bytes("jobs/a", "where");
    host.publish_bytes("jobs/b", "where");
    let [first, second] = &host.requests("ask/#")[..] else { panic!() };
    assert_eq!((first.message.text().as_str(), second.message.text().as_str()), ("a", "b"));
    assert!(first.message.properties.iter().any(|property| property.name == "user:unit"));
    assert_eq!(host.answer("ask/where", "hall 3"), Delivery::Done);
    host.assert_published("told/a", json!(["hall 3", first.id().to_string()]));
    host.advance(Duration::from_secs(5));
    host.assert_published("told/b", "nobody answers");
    assert!(host.state_keys("$").is_empty(), "no tag is left");
    host.publish_bytes("jobs/c", "who");
    host.answer("ask/who", "me");
    host.assert_published("told/untagged", false);
}

#[test]
#[should_panic(expected = "no request to `ask/where` waits for an answer; published: nothing")]
fn an_answer_that_nobody_waits_for_fails_the_test() {
    host().answer("ask/where", "");
}

#[test]
fn what_is_set_for_a_time_is_gone_after_it() {
    let mut host = host();
    host.publish_bytes("jobs/x", "expiring");
    host.advance(Duration::from_millis(9_999));
    host.assert_state("x", 1);
    host.advance(Duration::from_millis(1));
    assert_eq!((host.state::<u64>("x"), host.state_keys("x").len()), (None, 0));
}

#[test]
fn clients_come_with_what_is_told_of_them() {
    let mut host = host();
    host.client_event("connected", "pump-7", json!({ "user": "plant" }));
    let at = host.now();
    host.assert_state("client/pump-7", json!(["plant", at]));
    host.client_event("connected", "bad", json!({ "address": "192.0.2.66" }));
    assert_eq!(host.disconnected(), ["bad"]);
    assert_eq!(host.client_event("disconnected", "bad", json!({})), Delivery::NotSubscribed);
}

#[test]
fn retained_messages_and_measurements_are_seen() {
    let mut host = host();
    host.retain("known/x", Json(7));
    host.publish("known/x", json!({}));
    host.publish("known/y", json!({}));
    assert_eq!((host.state::<u64>("x"), host.state::<Option<u64>>("y")), (Some(7), Some(None)));
    let measured = host.measurements();
    assert_eq!((measured[0].name.as_str(), measured.len()), ("lookups", 4));
    assert_eq!(measured[0].labels, [("name".to_owned(), "x".to_owned())]);
}

#[test]
fn what_arrives_twice_and_what_is_lost_in_a_crash_shows() {
    let mut host = host();
    host.publish_bytes("jobs/a", "begin");
    host.crash_after_next_call();
    host.advance(Duration::from_secs(60));
    host.assert_state("overdue", 1);
    host.deliver_twice();
    host.publish("known/x", json!({}));
    assert_eq!(host.measurements().len(), 4);
}

#[test]
#[should_panic(expected = "not published to `overdue/+`\nexpected:\n  2\nactual:\n  1")]
fn what_was_expected_and_what_came_is_shown() {
    let mut host = host();
    host.publish_bytes("jobs/a", "begin");
    host.advance(Duration::from_secs(60));
    host.assert_published("overdue/+", 2);
}
