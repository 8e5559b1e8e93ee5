//! What an IT system contributes: what it knows, and reservations of which all are made or none.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use vespiary_sdk::Json;
use vespiary_sdk::serde_json::{Value, json};
use vespiary_sdk::testing::TestHost;

/// What becomes of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Answered,
    Refused,
    /// What it asks for is done, and nobody says so.
    Silent,
    /// Nobody gets it.
    Lost,
    Garbled,
}

/// An IT system: what it knows, and what is reserved for which order.
#[derive(Default)]
struct System {
    technicians: BTreeSet<String>,
    tools: BTreeSet<String>,
}

impl System {
    /// Does what is asked for, and gives the answer.
    fn answer(&mut self, topic: &str, question: &Value, fate: Fate) -> Option<Value> {
        let order = question["order"].as_str().unwrap_or_default().to_owned();
        if !matches!(fate, Fate::Refused | Fate::Lost) {
            match topic {
                "api/technicians/reserve" => drop(self.technicians.insert(order)),
                "api/technicians/release" => drop(self.technicians.remove(&order)),
                "api/tools/reserve" => drop(self.tools.insert(order)),
                "api/tools/release" => drop(self.tools.remove(&order)),
                _ => {}
            }
        }
        match (fate, topic) {
            (Fate::Silent | Fate::Lost, _) => None,
            (Fate::Garbled, _) => Some(json!(["so to say"])),
            (Fate::Refused, _) => Some(json!({ "reserved": false, "released": false, "reason": "not today" })),
            (Fate::Answered, "api/location/get") => Some(json!({ "location": "hall B" })),
            (Fate::Answered, "api/skills/get") => Some(json!({ "skills": ["gears"], "check_minutes": 45 })),
            (Fate::Answered, "api/tools/get") => Some(json!({ "tools": ["gear-puller"] })),
            (Fate::Answered, _) => Some(json!({ "reserved": true, "released": true, "technician": "chika" })),
        }
    }

    /// Sees to all questions, until none is open and all orders are issued or given up.
    fn work(&mut self, host: &mut TestHost, mut fate: impl FnMut(&str) -> Fate) {
        let mut idle = 0;
        let mut seen = BTreeSet::new();
        // Longer than any saga takes.
        while idle < 200 {
            let request = host.requests("api/+/+").into_iter().find(|request| seen.insert(request.id()));
            let Some(request) = request else {
                host.advance(Duration::from_secs(1));
                idle += 1;
                continue;
            };
            let topic = request.message.topic.clone();
            match self.answer(&topic, &request.message.json(), fate(&topic)) {
                // The oldest open question on a topic is the only one: those that were lost are over before.
                Some(answer) => drop(host.answer(&topic, Json(answer))),
                None => host.advance(Duration::from_secs(5)),
            }
        }
    }
}

fn alerted() -> TestHost {
    let mut host = TestHost::new(work_orders::plugin());
    host.publish("assets/PUMP-01/alerts", detected("advisory"));
    host
}

fn detected(severity: &str) -> Value {
    json!({ "event": "AnomalyDetected", "anomaly": "PUMP-01:x:1", "asset": "PUMP-01", "fault": "x", "severity": severity })
}

fn order(host: &TestHost) -> Value {
    let orders = host.published("workorders/+");
    assert_eq!(orders.len(), 1, "{orders:?}");
    orders[0].json()
}

/// The topics that were asked, in order.
fn asked(host: &TestHost) -> Vec<String> {
    host.published("api/+/+").into_iter().map(|message| message.topic.trim_start_matches("api/").to_owned()).collect()
}

#[test]
fn an_order_tells_what_the_system_knows_and_who_is_reserved() {
    let mut host = alerted();
    let opened = host.now().as_millis();
    let mut system = System::default();
    system.work(&mut host, |_| Fate::Answered);
    let issued = order(&host);
    assert_eq!(
        (&issued["location"], &issued["skills"], &issued["tools"]),
        (&json!("hall B"), &json!(["gears"]), &json!(["gear-puller"]))
    );
    assert_eq!((&issued["check_minutes"], &issued["reserved_technician"]), (&json!(45), &json!("chika")));
    assert_eq!(issued["opened_ts"], json!(opened));
    assert_eq!(asked(&host), ["location/get", "skills/get", "tools/get", "technicians/reserve", "tools/reserve"]);
    let reserve: Value = host.published("api/tools/reserve")[0].json();
    assert_eq!((&reserve["order"], &reserve["tools"]), (&json!("WO-000001"), &json!(["gear-puller"])));
    assert_eq!((system.technicians.len(), system.tools.len()), (1, 1));
}

#[test]
fn what_the_system_does_not_know_is_taken_from_the_registration() {
    let mut host = TestHost::new(work_orders::plugin());
    host.publish("registry/assets/PUMP-01", json!({ "location": "hall A", "skills": ["fans"], "check_minutes": 30 }));
    host.publish("assets/PUMP-01/alerts", detected("warning"));
    host.answer("api/location/get", "{}");
    host.answer("api/skills/get", Json(json!({ "skills": vec!["x"; 33] })));
    host.answer("api/tools/get", "nonsense");
    host.answer("api/technicians/reserve", r#"{"reserved":false}"#);
    let issued = order(&host);
    assert_eq!(
        (&issued["location"], &issued["skills"], &issued["check_minutes"]),
        (&json!("hall A"), &json!(["fans"]), &json!(30))
    );
    assert_eq!(issued["reserved_technician"], Value::Null);
    host.assert_no_dead_letters();
}

#[test]
fn a_technician_without_tools_is_given_back_and_the_order_is_issued_all_the_same() {
    let mut host = alerted();
    let mut system = System::default();
    system.work(&mut host, |topic| if topic == "api/tools/reserve" { Fate::Refused } else { Fate::Answered });
    assert_eq!(asked(&host)[3..], ["technicians/reserve", "tools/reserve", "technicians/release"]);
    assert_eq!(order(&host)["reserved_technician"], Value::Null);
    assert!(system.technicians.is_empty() && system.tools.is_empty());
}

#[test]
fn what_may_be_reserved_is_given_back_too() {
    let mut host = alerted();
    let mut system = System::default();
    system.work(&mut host, |topic| if topic == "api/tools/reserve" { Fate::Silent } else { Fate::Answered });
    assert_eq!(asked(&host)[4..], ["tools/reserve", "tools/release", "technicians/release"]);
    assert!(system.technicians.is_empty() && system.tools.is_empty());
}

#[test]
fn what_cannot_be_given_back_shows_and_can_be_tried_again() {
    let mut host = alerted();
    let mut system = System::default();
    system.work(&mut host, |topic| match topic {
        "api/tools/reserve" | "api/technicians/release" => Fate::Refused,
        _ => Fate::Answered,
    });
    let kept: Value = host.state("saga/order/WO-000001").unwrap();
    assert_eq!((&kept["status"], &kept["done"][3]), (&json!("stuck"), &json!("technician")));
    assert_eq!(order(&host)["reserved_technician"], Value::Null);
    host.publish("workorders/WO-000001/release", json!({}));
    system.work(&mut host, |_| Fate::Answered);
    let kept: Value = host.state("saga/order/WO-000001").unwrap_or_default();
    assert_eq!((&kept["status"], system.technicians.len()), (&json!("compensated"), 0));
    order(&host);
}

#[test]
fn an_order_that_gets_worse_while_it_is_prepared_is_issued_as_the_worse_one() {
    let mut host = alerted();
    let mut worse = detected("critical");
    worse["event"] = json!("AnomalyEscalated");
    host.publish("assets/PUMP-01/alerts", worse);
    System::default().work(&mut host, |_| Fate::Answered);
    assert_eq!((&order(&host)["severity"], &order(&host)["event"]), (&json!("critical"), &json!("WorkOrderCreated")));
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        6 => Just(Fate::Answered),
        1 => Just(Fate::Refused),
        1 => Just(Fate::Silent),
        1 => Just(Fate::Lost),
        1 => Just(Fate::Garbled),
    ]
}

proptest! {
    /// Seen from the IT system: whatever it does and loses, an order is issued once, and it names a technician if and only if
    /// technician and tools are reserved for it. Otherwise nothing is, or the saga says that it is stuck.
    #[test]
    fn technician_and_tools_are_reserved_together_or_not_at_all(
        fates in proptest::collection::vec(fate(), 0..40),
        crashes in proptest::collection::vec(any::<bool>(), 3),
    ) {
        let mut host = TestHost::new(work_orders::plugin());
        let mut system = System::default();
        for (number, crash) in crashes.into_iter().enumerate() {
            if crash {
                host.crash_after_next_call();
            }
            let asset = format!("PUMP-{number}");
            let alert = json!({ "event": "AnomalyDetected", "anomaly": "1", "asset": asset, "fault": "x", "severity": "warning" });
            host.publish(format!("assets/{asset}/alerts"), alert);
        }
        let mut fates = fates.into_iter();
        system.work(&mut host, |_| fates.next().unwrap_or(Fate::Answered));
        let orders: BTreeMap<String, Value> =
            host.published("workorders/+").iter().map(|message| (message.topic.clone(), message.json())).collect();
        prop_assert_eq!((orders.len(), host.published("workorders/+").len()), (3, 3));
        for order in orders.values() {
            let number = order["order"].as_str().unwrap();
            let reserved = (system.technicians.contains(number), system.tools.contains(number));
            let kept: Value = host.state(&format!("saga/order/{number}")).unwrap();
            match (order["reserved_technician"].is_string(), kept["status"].as_str().unwrap()) {
                (true, status) => prop_assert_eq!((reserved, status), ((true, true), "completed")),
                (false, "stuck") => {}
                (false, status) => prop_assert_eq!(reserved, (false, false), "{}", status),
            }
        }
        host.assert_no_dead_letters();
    }
}
