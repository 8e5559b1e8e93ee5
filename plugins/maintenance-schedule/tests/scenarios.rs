//! What the service promises, through its topics. The clock of the test begins on Thursday, 2026-01-01 at 00:00 UTC.

use std::time::Duration;

use vespiary_sdk::serde_json::{Value, json};
use vespiary_sdk::testing::{Delivery, START, TestHost};

const HOUR_MS: u64 = 3_600_000;

fn host() -> TestHost {
    TestHost::new(maintenance_schedule::plugin())
}

/// An order that is due so many hours after the clock began.
fn order(number: u32, status: &str, due_hour: u64, skills: &[&str]) -> Value {
    json!({ "event": "WorkOrderCreated", "order": format!("WO-{number:06}"), "status": status, "asset": "PUMP-01",
        "fault": "bearing-vibration", "anomaly": "x", "severity": "warning", "location": "hall A, bay 3",
        "skills": skills, "tools": ["bearing-puller"], "check_minutes": 60, "opened_ts": START.as_millis(),
        "due_ts": START.as_millis() + due_hour * HOUR_MS })
}

fn open(host: &mut TestHost, number: u32, due_hour: u64, skills: &[&str]) {
    let delivery = host.publish(format!("workorders/WO-{number:06}"), order(number, "open", due_hour, skills));
    assert_eq!(delivery, Delivery::Done);
}

fn technician(host: &mut TestHost, id: &str, skills: &[&str], from: &str, to: &str) {
    let profile = json!({ "name": id, "skills": skills, "shift": { "from": from, "to": to } });
    assert_eq!(host.publish(format!("registry/technicians/{id}"), profile), Delivery::Done);
}

/// The events about checks so far: `check event technician from`, with the time as day and hour.
fn events(host: &TestHost) -> Vec<String> {
    let line = |value: Value| {
        let from = value["from"].as_str().map(|from| from[8..16].to_owned()).unwrap_or_default();
        format!("{} {} {} {from}", value["check"], value["event"], value["technician"]).replace('"', "")
    };
    host.published("checks/+").iter().map(|message| line(message.json())).collect()
}

#[test]
fn an_order_becomes_a_check_by_the_first_who_is_free() {
    let mut host = host();
    host.advance(Duration::from_secs(7 * 3_600 + 100));
    open(&mut host, 1, 72, &["bearings"]);
    let from = START.as_millis() + 7 * HOUR_MS + HOUR_MS * 3 / 4;
    host.assert_published(
        "checks/CHK-000001",
        json!({ "event": "CheckPlanned", "check": "CHK-000001", "status": "planned", "order": "WO-000001",
            "asset": "PUMP-01", "location": "hall A, bay 3", "tools": ["bearing-puller"], "technician": "ada",
            "technician_name": "Ada Moreau", "from_ts": from, "to_ts": from + HOUR_MS,
            "due_ts": START.as_millis() + 72 * HOUR_MS, "from": "2026-01-01T07:45:00.000Z",
            "to": "2026-01-01T08:45:00.000Z" }),
    );
    assert!(host.published("checks/+")[0].retain);
}

#[test]
fn at_any_hour_of_any_day_somebody_built_in_can_go_within_eight_hours() {
    for hour in 0..7 * 24 {
        let mut host = host();
        host.advance(Duration::from_secs(hour * 3_600 + 1_234));
        for number in 1..=4 {
            open(&mut host, number, hour + 8, &["bearings", "alignment"]);
        }
        assert_eq!(events(&host).len(), 4, "hour {hour}: {:?}", host.published("#"));
    }
}

#[test]
fn the_same_order_again_plans_nothing() {
    let mut host = host();
    host.crash_after_next_call();
    host.publish("workorders/WO-000001", order(1, "open", 72, &["bearings"]));
    host.settle();
    open(&mut host, 1, 72, &["bearings"]);
    host.redeliver_last();
    assert_eq!(events(&host).len(), 1);
}

#[test]
fn no_two_checks_of_one_technician_are_at_one_time() {
    let mut host = host();
    technician(&mut host, "eve", &["bearings"], "08:00", "12:00");
    for number in 1..=5 {
        open(&mut host, number, 72, &["bearings"]);
    }
    let times: Vec<String> = events(&host).iter().map(|event| event.split(' ').next_back().unwrap().into()).collect();
    assert_eq!(times, ["01T08:00", "01T09:00", "01T10:00", "01T11:00", "02T08:00"]);
}

#[test]
fn what_nobody_can_do_says_why_and_is_planned_when_somebody_can() {
    let mut host = host();
    technician(&mut host, "eve", &["bearings"], "08:00", "12:00");
    open(&mut host, 1, 72, &["bearings", "welding"]);
    host.redeliver_last();
    let expected = json!({ "event": "CheckUnplannable", "order": "WO-000001", "asset": "PUMP-01",
        "due_ts": START.as_millis() + 72 * HOUR_MS, "reason": "no-technician", "missing": ["welding"],
        "why": "no technician can do welding" });
    host.assert_published("workorders/+/unplannable", expected);
    assert_eq!(host.published("workorders/+/unplannable").len(), 1);
    technician(&mut host, "fay", &["bearings", "welding"], "14:00", "22:00");
    assert_eq!(events(&host), ["CHK-000001 CheckPlanned fay 01T14:00"]);
}

#[test]
fn a_full_diary_makes_an_order_wait_until_a_check_is_completed() {
    let mut host = host();
    technician(&mut host, "eve", &["bearings"], "08:00", "10:00");
    for number in 1..=3 {
        open(&mut host, number, 12, &["bearings"]);
    }
    let unplannable: Value = host.published("workorders/WO-000003/unplannable")[0].json();
    let tomorrow = START.as_millis() + 32 * HOUR_MS;
    assert_eq!((&unplannable["reason"], &unplannable["earliest_ts"]), (&json!("no-free-time"), &json!(tomorrow)));
    host.clear_published();
    host.publish("checks/CHK-000001/complete", json!({ "outcome": "repaired" }));
    assert_eq!(events(&host), ["CHK-000001 CheckCompleted eve 01T08:00", "CHK-000003 CheckPlanned eve 01T08:00"]);
    host.assert_published("workorders/WO-000001/close", json!({ "outcome": "repaired" }));
}

#[test]
fn a_check_of_which_nobody_says_what_came_of_it_is_told_once_an_hour_after_its_end() {
    let mut host = host();
    technician(&mut host, "eve", &["bearings"], "08:00", "12:00");
    for number in 1..=3 {
        open(&mut host, number, 72, &["bearings"]);
    }
    host.clear_published();
    host.advance(Duration::from_secs(9 * 3_600));
    host.publish("checks/CHK-000002/complete", json!({ "outcome": "repaired" }));
    host.publish("checks/CHK-000003/cancel", json!({ "why": "machine in use" }));
    host.clear_published();
    host.crash_after_next_call();
    host.advance(Duration::from_secs(3_600));
    assert_eq!(events(&host), ["CHK-000001 CheckOverdue eve 01T08:00"]);
    host.advance(Duration::from_secs(7 * 24 * 3_600));
    assert_eq!(events(&host)[1..], ["CHK-000004 CheckOverdue eve 01T11:00"]);
    // Late, and done after all.
    host.publish("checks/CHK-000001/complete", json!({ "outcome": "repaired" }));
    assert_eq!(events(&host)[2..], ["CHK-000001 CheckCompleted eve 01T08:00"]);
}

#[test]
fn an_order_waits_until_it_is_due_and_no_longer() {
    let mut host = host();
    technician(&mut host, "eve", &["bearings"], "08:00", "09:00");
    for number in 1..=60 {
        open(&mut host, number, 12, &["bearings"]);
    }
    assert_eq!(host.state_keys("waiting/").len(), 59);
    host.advance(Duration::from_secs(12 * 3_600));
    assert!(host.state_keys("waiting/").is_empty());
    let told = host.published("workorders/WO-000060/unplannable");
    assert_eq!((told.len(), told[1].json::<Value>()["reason"].clone()), (2, json!("overdue")));
    // What is due already does not begin to wait, and keeps nobody else from being planned.
    open(&mut host, 61, 11, &["bearings"]);
    open(&mut host, 62, 48, &["welding"]);
    assert_eq!(host.state_keys("waiting/").len(), 1);
    technician(&mut host, "fay", &["welding"], "14:00", "16:00");
    assert_eq!(events(&host).last().unwrap(), "CHK-000002 CheckPlanned fay 01T14:00");
    let left: Vec<String> = host.timers().into_iter().map(|(timer, _)| timer).collect();
    assert_eq!(left, ["check/CHK-000002/over", "tidy"]);
}

#[test]
fn at_night_diaries_forget_what_is_long_over() {
    let mut host = host();
    technician(&mut host, "eve", &["bearings"], "08:00", "09:00");
    open(&mut host, 1, 72, &["bearings"]);
    open(&mut host, 2, 72, &["bearings"]);
    let bookings = |host: &TestHost| host.state::<Vec<Value>>("diary/eve").map(|bookings| bookings.len());
    host.advance(Duration::from_secs(27 * 3_600));
    assert_eq!(bookings(&host), Some(2), "the first ended less than a day ago");
    host.advance(Duration::from_secs(24 * 3_600));
    assert_eq!(bookings(&host), Some(1));
    host.publish_bytes("registry/technicians/eve", "");
    host.advance(Duration::from_secs(24 * 3_600));
    assert_eq!(bookings(&host), None);
}

#[test]
fn a_cancelled_check_is_planned_anew_and_later() {
    let mut host = host();
    technician(&mut host, "eve", &["bearings"], "08:00", "12:00");
    open(&mut host, 1, 72, &["bearings"]);
    host.publish("checks/CHK-000001/cancel", json!({ "why": "machine in use" }));
    assert_eq!(host.publish("checks/CHK-000001/cancel", json!({ "why": "machine in use" })), Delivery::Done);
    assert_eq!(
        events(&host),
        [
            "CHK-000001 CheckPlanned eve 01T08:00",
            "CHK-000001 CheckCancelled eve 01T08:00",
            "CHK-000002 CheckPlanned eve 01T09:00",
        ]
    );
}

#[test]
fn a_closed_order_frees_the_time_of_its_check() {
    let mut host = host();
    technician(&mut host, "eve", &["bearings"], "08:00", "09:00");
    open(&mut host, 1, 24, &["bearings"]);
    open(&mut host, 2, 24, &["bearings"]);
    host.clear_published();
    host.publish("workorders/WO-000001", order(1, "closed", 24, &["bearings"]));
    assert_eq!(events(&host), ["CHK-000001 CheckCancelled eve 01T08:00", "CHK-000002 CheckPlanned eve 01T08:00"]);
    // Nothing reopens it.
    host.publish("workorders/WO-000001", order(1, "open", 24, &["bearings"]));
    assert_eq!(events(&host).len(), 2);
}

#[test]
fn an_order_that_is_due_earlier_than_its_check_is_moved_forward() {
    let mut host = host();
    technician(&mut host, "eve", &["bearings"], "08:00", "10:00");
    technician(&mut host, "zoe", &["bearings"], "12:00", "13:00");
    for number in 1..=4 {
        open(&mut host, number, 72, &["bearings"]);
    }
    // The fourth has the slot of tomorrow morning; the first one's check falls through and leaves a gap today.
    host.publish("checks/CHK-000001/complete", json!({ "outcome": "no-fault-found" }));
    host.clear_published();
    open(&mut host, 4, 13, &["bearings"]);
    assert_eq!(events(&host), ["CHK-000004 CheckMoved eve 01T08:00"]);
    // In time already: nothing to move.
    open(&mut host, 2, 11, &["bearings"]);
    assert_eq!(events(&host).len(), 1);
    // Not in time, and nothing better: it stays, and says so.
    open(&mut host, 3, 5, &["bearings"]);
    assert_eq!(events(&host).len(), 1);
    let unplannable: Value = host.published("workorders/WO-000003/unplannable")[0].json();
    assert_eq!(unplannable["stays"], json!("CHK-000003"));
}

#[test]
fn the_checks_of_somebody_who_falls_ill_go_to_others() {
    let mut host = host();
    technician(&mut host, "eve", &["bearings", "welding"], "08:00", "12:00");
    technician(&mut host, "fay", &["bearings"], "10:00", "18:00");
    open(&mut host, 1, 72, &["bearings"]);
    open(&mut host, 2, 72, &["welding"]);
    host.clear_published();
    let ill = json!({ "name": "eve", "skills": ["bearings", "welding"], "shift": { "from": "08:00", "to": "12:00" },
        "active": false });
    host.publish("registry/technicians/eve", ill);
    assert_eq!(events(&host), ["CHK-000001 CheckMoved fay 01T10:00", "CHK-000002 CheckCancelled eve 01T09:00"]);
    assert_eq!(host.published("workorders/WO-000002/unplannable").len(), 1);
}

#[test]
fn with_the_first_real_technician_the_built_in_ones_go() {
    let mut host = host();
    open(&mut host, 1, 72, &["bearings"]);
    technician(&mut host, "eve", &["bearings"], "08:00", "12:00");
    assert_eq!(events(&host), ["CHK-000001 CheckPlanned chika 01T00:30", "CHK-000001 CheckMoved eve 01T08:00"]);
    // And come back with the last.
    host.publish_bytes("registry/technicians/eve", "");
    assert_eq!(events(&host)[2], "CHK-000001 CheckMoved chika 01T00:30");
}

#[test]
fn hours_are_those_of_the_site() {
    let mut host = host().with_config([("utc_offset_minutes", "120")]);
    technician(&mut host, "eve", &["bearings"], "08:00", "12:00");
    open(&mut host, 1, 72, &["bearings"]);
    assert_eq!(events(&host), ["CHK-000001 CheckPlanned eve 01T06:00"]);
    let refused = TestHost::new(maintenance_schedule::plugin()).with_config([("utc_offset_minutes", "9000")]).start();
    assert!(refused.is_err_and(|reason| reason.contains("9000")));
}

#[test]
fn what_makes_no_sense_becomes_a_dead_letter_that_says_why() {
    let mut host = host();
    host.publish("workorders/WO-000002", order(1, "open", 72, &["bearings"]));
    host.publish_bytes("workorders/WO-000001", "[]");
    host.publish("checks/CHK-000007/complete", json!({ "outcome": "repaired" }));
    host.publish("checks/7/cancel", json!({ "why": "" }));
    host.publish(
        "registry/technicians/eve",
        json!({ "name": "eve", "skills": [], "shift": { "from": "8", "to": "9" } }),
    );
    let mut no_length = order(3, "open", 72, &["bearings"]);
    no_length["check_minutes"] = json!(0);
    host.publish("workorders/WO-000003", no_length);
    let reasons: Vec<String> = host.dead_letters().iter().map(|letter| letter.reason.clone()).collect();
    let parts =
        ["published for", "payload", "no such check", "no check number", "no time of day", "check of 0 minutes"];
    assert_eq!(reasons.len(), parts.len(), "{reasons:?}");
    for (reason, part) in reasons.iter().zip(parts) {
        assert!(reason.contains(part), "{reason} lacks {part}");
    }
    assert_eq!(host.publish_bytes("workorders/WO-000001", ""), Delivery::Done);
}
