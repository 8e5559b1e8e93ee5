//! What the service promises, through its topics: one open order per asset and fault, whatever comes how often.
//!
//! Here no IT system answers, unless a test says so; `preparation.rs` is about those that do.

use std::time::Duration;

use proptest::prelude::*;
use vespiary_sdk::serde_json::{Value, json};
use vespiary_sdk::testing::{Delivery, TestHost};

const HOUR_MS: u64 = 3_600_000;

/// So long an order waits for an IT system that is not there.
const NOBODY_ANSWERS: Duration = Duration::from_secs(5);

fn host() -> TestHost {
    TestHost::new(work_orders::plugin())
}

fn anomaly(event: &str, asset: &str, number: u32, severity: &str) -> Value {
    let fault = "bearing-vibration";
    json!({ "event": event, "anomaly": format!("{asset}:{fault}:{number}"), "asset": asset, "fault": fault,
        "severity": severity, "zone": "C", "mm_s": 3.1, "seq": 77, "ts": 1_767_225_600_000_u64 })
}

fn detected(asset: &str, number: u32) -> Value {
    anomaly("AnomalyDetected", asset, number, "advisory")
}

/// Publishes an alert, and waits until it is clear that no IT system answers.
fn alert(host: &mut TestHost, asset: &str, alert: &Value) {
    host.publish(format!("assets/{asset}/alerts"), alert);
    host.advance(NOBODY_ANSWERS);
}

/// The events about orders so far, as `order event`.
fn events(host: &TestHost) -> Vec<String> {
    let name = |value: &Value| format!("{} {}", value["order"], value["event"]).replace('"', "");
    host.published("workorders/+").iter().map(|message| name(&message.json())).collect()
}

#[test]
fn an_anomaly_opens_an_order_with_what_is_registered() {
    let mut host = host();
    let registration = json!({ "location": "hall A, bay 3", "kind": "pump", "skills": ["bearings", "alignment"],
        "tools": ["bearing-puller"], "check_minutes": 90 });
    host.publish("registry/assets/PUMP-01", registration);
    let now = host.now().as_millis();
    alert(&mut host, "PUMP-01", &anomaly("AnomalyDetected", "PUMP-01", 1, "warning"));
    host.assert_published(
        "workorders/WO-000001",
        json!({ "event": "WorkOrderCreated", "order": "WO-000001", "status": "open", "asset": "PUMP-01",
            "fault": "bearing-vibration", "anomaly": "PUMP-01:bearing-vibration:1", "severity": "warning",
            "location": "hall A, bay 3", "skills": ["bearings", "alignment"], "tools": ["bearing-puller"],
            "check_minutes": 90, "opened_ts": now, "due_ts": now + 72 * HOUR_MS }),
    );
    assert!(host.published("workorders/+")[0].retain);
}

#[test]
fn an_asset_that_nobody_registered_gets_an_order_all_the_same() {
    let mut host = host();
    alert(&mut host, "PUMP-01", &detected("PUMP-01", 1));
    let order: Value = host.published("workorders/+")[0].json();
    assert_eq!((&order["location"], &order["skills"]), (&json!("unknown"), &json!(["bearings"])));
}

#[test]
fn the_same_anomaly_again_opens_nothing() {
    let mut host = host();
    host.publish("assets/PUMP-01/alerts", detected("PUMP-01", 1));
    assert_eq!(host.redeliver_last(), Delivery::Done);
    host.publish("assets/PUMP-01/alerts", detected("PUMP-01", 2));
    host.advance(NOBODY_ANSWERS);
    host.publish("assets/PUMP-01/alerts", detected("PUMP-01", 3));
    host.advance(NOBODY_ANSWERS);
    assert_eq!(events(&host), ["WO-000001 WorkOrderCreated"]);
}

#[test]
fn a_lost_commit_neither_doubles_an_order_nor_skips_a_number() {
    let mut host = host();
    host.crash_after_next_call();
    host.publish("assets/PUMP-01/alerts", detected("PUMP-01", 1));
    host.publish("assets/PUMP-02/alerts", detected("PUMP-02", 1));
    host.crash_after_next_call();
    host.advance(NOBODY_ANSWERS);
    assert_eq!(events(&host), ["WO-000001 WorkOrderCreated", "WO-000002 WorkOrderCreated"]);
}

#[test]
fn what_gets_worse_is_due_earlier() {
    let mut host = host();
    alert(&mut host, "PUMP-01", &detected("PUMP-01", 1));
    host.advance(Duration::from_secs(3_600));
    host.publish("assets/PUMP-01/alerts", anomaly("AnomalyEscalated", "PUMP-01", 1, "critical"));
    host.redeliver_last();
    assert_eq!(events(&host), ["WO-000001 WorkOrderCreated", "WO-000001 WorkOrderEscalated"]);
    let order: Value = host.published("workorders/+")[1].json();
    assert_eq!(order["due_ts"], json!(host.now().as_millis() + 8 * HOUR_MS));
}

#[test]
fn a_closed_order_allows_the_next_and_tells_that_the_asset_was_worked_on() {
    let mut host = host();
    alert(&mut host, "PUMP-01", &detected("PUMP-01", 1));
    let close = json!({ "outcome": "repaired" });
    assert_eq!(host.publish("workorders/WO-000001/close", &close), Delivery::Done);
    assert_eq!(host.publish("workorders/WO-000001/close", &close), Delivery::Done);
    let maintained = json!({ "order": "WO-000001", "asset": "PUMP-01", "outcome": "repaired",
        "ts": host.now().as_millis() });
    assert_eq!(host.published("assets/+/maintained").len(), 1);
    host.assert_published("assets/PUMP-01/maintained", maintained);
    // The anomaly that was dealt with comes again: late, or because its publisher saw no acknowledgement.
    alert(&mut host, "PUMP-01", &detected("PUMP-01", 1));
    alert(&mut host, "PUMP-01", &detected("PUMP-01", 2));
    assert_eq!(
        events(&host),
        ["WO-000001 WorkOrderCreated", "WO-000001 WorkOrderClosed", "WO-000002 WorkOrderCreated"]
    );
}

#[test]
fn an_order_stays_open_when_the_anomaly_goes_away() {
    let mut host = host();
    alert(&mut host, "PUMP-01", &detected("PUMP-01", 1));
    let cleared = json!({ "event": "AnomalyCleared", "asset": "PUMP-01", "reason": "calm" });
    assert_eq!(host.publish("assets/PUMP-01/alerts", cleared), Delivery::Done);
    assert_eq!(host.publish("assets/PUMP-01/alerts", json!({ "event": "SomethingNew" })), Delivery::Done);
    assert_eq!(events(&host).len(), 1);
}

#[test]
fn what_makes_no_sense_becomes_a_dead_letter_that_says_why() {
    let mut host = host();
    host.publish("assets/PUMP-01/alerts", detected("PUMP-02", 1));
    host.publish_bytes("assets/PUMP-01/alerts", "{");
    host.publish("assets/PUMP-01/alerts", anomaly("AnomalyDetected", "PUMP-01", 1, "awful"));
    host.publish("workorders/WO-000001/close", json!({ "outcome": "repaired" }));
    host.publish("workorders/42/close", json!({ "outcome": "repaired" }));
    host.publish("registry/assets/PUMP-01", json!({ "check_minutes": 0 }));
    let reasons: Vec<String> = host.dead_letters().iter().map(|letter| letter.reason.clone()).collect();
    let parts = ["PUMP-02", "EOF", "awful", "no such order", "no order number", "check of 0 minutes"];
    assert_eq!(reasons.len(), parts.len(), "{reasons:?}");
    for (reason, part) in reasons.iter().zip(parts) {
        assert!(reason.contains(part), "{reason} lacks {part}");
    }
    assert_eq!(events(&host), [""; 0]);
}

/// Something that happens to the service.
#[derive(Debug, Clone)]
enum Happening {
    Anomaly { asset: u32, number: u32, severity: usize, escalated: bool, lost: bool },
    Close { order: u32 },
}

fn happening() -> impl Strategy<Value = Happening> {
    let anomaly = (0..3_u32, 0..4_u32, 0..3_usize, any::<bool>(), any::<bool>()).prop_map(
        |(asset, number, severity, escalated, lost)| Happening::Anomaly { asset, number, severity, escalated, lost },
    );
    prop_oneof![3 => anomaly, 1 => (1..8_u32).prop_map(|order| Happening::Close { order })]
}

proptest! {
    /// Seen from outside, through what is published alone: of each asset at most one order is open at any time, no anomaly
    /// opens two, and numbers are given once, without gaps.
    #[test]
    fn at_most_one_order_is_open_per_asset(happenings in proptest::collection::vec(happening(), 1..60)) {
        let mut host = host();
        for happening in happenings {
            match happening {
                Happening::Anomaly { asset, number, severity, escalated, lost } => {
                    if lost { host.crash_after_next_call() }
                    let event = if escalated { "AnomalyEscalated" } else { "AnomalyDetected" };
                    let severity = ["advisory", "warning", "critical"][severity];
                    let asset = format!("PUMP-{asset}");
                    host.publish(format!("assets/{asset}/alerts"), anomaly(event, &asset, number, severity));
                }
                Happening::Close { order } => {
                    host.publish(format!("workorders/WO-{order:06}/close"), json!({ "outcome": "no-fault-found" }));
                }
            }
            host.advance(NOBODY_ANSWERS);
        }
        prop_assert!(host.dead_letters().iter().all(|letter| letter.reason.contains("no such order")));
        let (mut open, mut opened) = (std::collections::BTreeMap::new(), std::collections::BTreeSet::new());
        for message in host.published("workorders/+") {
            let order: Value = message.json();
            let asset = order["asset"].to_string();
            let number = order["order"].to_string();
            match order["event"].as_str() {
                Some("WorkOrderCreated") => {
                    prop_assert_eq!(open.insert(asset, number.clone()), None);
                    prop_assert!(opened.insert(order["anomaly"].to_string()), "{} opened twice", order["anomaly"]);
                    prop_assert_eq!(number, format!("\"WO-{:06}\"", opened.len()));
                }
                Some("WorkOrderClosed") => prop_assert_eq!(open.remove(&asset), Some(number)),
                _ => prop_assert_eq!(open.get(&asset), Some(&number)),
            }
        }
    }
}
