//! What handlers can take and return, and which of them run.

use vespiary_sdk::prelude::*;
use vespiary_sdk::testing::{Delivery, TestHost};

use crate::thermometer;

plugin! {
    name: "handlers",
    handlers: [everything, numbers, whole, borrowed, bytes, text, infallible, own_error, early, late, answer],
    publishes: ["seen/#", "answers/+"],
}

#[derive(Deserialize)]
struct Name<'a> {
    #[serde(borrow)]
    name: &'a str,
}

#[on("everything/{a}/x/{rest..}")]
fn everything(Json(value): Json<Vec<u8>>, rest: &str, cx: &mut Context, a: String, event: &Event) -> Result<()> {
    cx.publish(format!("seen/{a}"), Json(&json!([value, rest, event.topic(), event.publisher(), cx.now()])))
}

#[on("numbers/{n}/{flag}")]
fn numbers(cx: &Context, n: i16, flag: bool) -> Result<()> {
    cx.publish("seen/number", Json((n, flag)))
}

#[on("whole")]
fn whole(cx: &Context, event: &Event) -> Result<()> {
    let properties = (event.user_property("unit"), event.property("content-type"), event.property("none"));
    cx.message("seen/whole", Json((event.attempt(), event.is_retained(), properties)))
        .qos(event.qos())
        .retain()
        .user_property("unit", "mm")
        .publish()
}

#[on("borrowed")]
fn borrowed(cx: &Context, Json(value): Json<Name<'_>>) -> Result<()> {
    cx.publish("seen/borrowed", value.name)
}

#[on("bytes")]
fn bytes(cx: &Context, payload: &[u8], Raw(copy): Raw) -> Result<()> {
    assert_eq!(payload, copy);
    cx.publish("seen/bytes", payload)
}

#[on("text")]
fn text(cx: &Context, Text(text): Text) -> Result<()> {
    cx.publish("seen/text", text.to_uppercase())
}

#[on("infallible")]
fn infallible() {
    info!("called");
}

#[on("own-error")]
fn own_error(payload: &[u8]) -> Result<(), std::str::Utf8Error> {
    std::str::from_utf8(payload).map(drop)
}

#[on("order/{x}")]
fn early(cx: &Context) -> Result<()> {
    cx.state().update("order", |order: &mut Vec<String>| order.push("early".into()))?;
    Ok(())
}

#[on("order/late")]
fn late(cx: &Context, Text(text): Text) -> Result<()> {
    if text == "fail" {
        return Err(Error::reject("told to"));
    }
    cx.state().update("order", |order: &mut Vec<String>| order.push("late".into()))?;
    Ok(())
}

#[on("questions")]
fn answer(cx: &Context) -> Result<()> {
    if !cx.reply("42")? {
        info!("nobody asked");
    }
    Ok(())
}

fn host() -> TestHost {
    TestHost::new(plugin())
}

#[test]
fn parameters_come_in_any_order() {
    let mut host = host();
    host.message("everything/one/x/y/z", Json([1, 2])).from_client("me").publish();
    let now = host.now();
    host.assert_published("seen/one", json!([[1, 2], "y/z", "everything/one/x/y/z", "me", now]));
}

#[test]
fn captures_are_parsed_and_rejected_if_they_do_not() {
    let mut host = host();
    assert_eq!(host.publish_bytes("numbers/-7/true", ""), Delivery::Done);
    host.assert_published("seen/number", json!([-7, true]));
    let Delivery::Reject(reason) = host.publish_bytes("numbers/40000/true", "") else { panic!() };
    assert_eq!(reason, "`n` in the topic is `40000`: number too large to fit in target type");
}

#[test]
fn the_whole_event_is_there() {
    let mut host = host();
    host.message("whole", "").qos(Qos::ExactlyOnce).retained().property("user:unit", "m").publish();
    let [message] = &host.published("seen/whole")[..] else { panic!() };
    assert_eq!(message.text(), r#"[0,true,["m",null,null]]"#);
    assert_eq!(format!("{message:?}"), format!("seen/whole {} ExactlyOnce retained user:unit=mm", message.text()));
}

#[test]
fn payloads_can_be_json_bytes_or_text() {
    let mut host = host();
    host.publish("borrowed", json!({ "name": "pump" }));
    host.publish_bytes("bytes", [1, 255]);
    host.publish_bytes("text", "ab");
    assert_eq!(host.published("seen/borrowed")[0].text(), "pump");
    assert_eq!(host.published("seen/bytes")[0].payload, [1, 255]);
    assert_eq!(host.published("seen/text")[0].text(), "AB");
    assert!(matches!(host.publish_bytes("text", [255]), Delivery::Reject(_)));
}

#[test]
fn a_handler_may_return_nothing_or_an_error_of_its_own() {
    let mut host = host();
    assert_eq!(host.publish_bytes("infallible", ""), Delivery::Done);
    assert_eq!(host.logs()[0].message, "called");
    assert!(matches!(host.publish_bytes("own-error", [255]), Delivery::Retry(_)));
}

#[test]
fn json_that_does_not_parse_is_rejected_with_field_and_position() {
    let mut host = TestHost::new(thermometer::plugin());
    let Delivery::Reject(reason) = host.publish_bytes("rooms/attic/temperature", r#"{"celsius":"warm"}"#) else {
        panic!()
    };
    assert!(reason.contains("string \"warm\"") && reason.contains("line 1 column 17"), "{reason}");
    assert!(reason.ends_with("(in celsius)"), "{reason}");
}

#[test]
fn all_handlers_that_match_run_in_order_in_one_transaction() {
    let mut host = host();
    host.publish_bytes("order/late", "");
    assert_eq!(host.state::<Vec<String>>("order").unwrap(), ["early", "late"]);
    assert_eq!(host.publish_bytes("order/late", "fail"), Delivery::Reject("told to".into()));
    assert_eq!(host.state::<Vec<String>>("order").unwrap(), ["early", "late"], "the first handler's write is dropped");
}

#[test]
fn a_reply_goes_where_the_request_asks() {
    let mut host = host();
    let request = host.message("questions", "").property("response-topic", "answers/me");
    request.property("correlation-data", "AQID").publish();
    let [message] = &host.published("answers/me")[..] else { panic!() };
    assert_eq!((message.text().as_str(), message.properties[0].value.as_str()), ("42", "AQID"));
    host.publish_bytes("questions", "");
    assert_eq!(host.logs()[0].message, "nobody asked");
}

#[test]
fn the_example_remembers_the_highest_temperature() {
    let mut host = TestHost::new(thermometer::plugin());
    for celsius in [20.0, 19.5, 21.5] {
        host.publish("rooms/attic/temperature", json!({ "celsius": celsius }));
    }
    assert_eq!(host.published("rooms/+/record").len(), 2);
    let record: serde_json::Value = host.state("attic").unwrap();
    assert_eq!(record, json!({ "celsius": 21.5, "at": host.now(), "readings": 3 }));
}
