//! One failing bearing, from reading to repair, through all services: each understands what the others publish.

use std::time::Duration;

use vespiary_sdk::Json;
use vespiary_sdk::serde_json::{Value, json};
use vespiary_sdk::testing::{Published, TestHost};

/// Where `work-orders` is among the services.
const ORDERS: usize = 1;

/// The services, joined as the broker joins them.
struct Site {
    services: [TestHost; 3],
    /// How many of each service's messages have been passed on.
    passed_on: [usize; 3],
    /// All messages so far.
    messages: Vec<Published>,
    seq: u64,
}

impl Site {
    fn new() -> Self {
        let plugins = [asset_health::version1::plugin(), work_orders::plugin(), maintenance_schedule::plugin()];
        Self { services: plugins.map(TestHost::new), passed_on: [0; 3], messages: Vec::new(), seq: 0 }
    }

    fn publish(&mut self, topic: &str, payload: &[u8]) {
        for service in &mut self.services {
            service.publish_bytes(topic, payload);
        }
        loop {
            while let Some(message) = self.next() {
                for service in &mut self.services {
                    service.publish_bytes(message.topic.clone(), &message.payload);
                }
                self.messages.push(message);
            }
            let Some(question) = self.services[ORDERS].requests("api/+/+").into_iter().next() else { break };
            self.services[ORDERS].answer(&question.message.topic, Json(answer(&question.message.topic)));
        }
    }

    fn next(&mut self) -> Option<Published> {
        self.services.iter().zip(&mut self.passed_on).find_map(|(service, passed_on)| {
            let message = service.published("#").get(*passed_on).cloned()?;
            *passed_on += 1;
            Some(message)
        })
    }

    fn measure(&mut self, readings: u32, mm_s: impl Fn(u32) -> f64) {
        for index in 0..readings {
            self.seq += 1;
            let ts = 1_767_225_600_000 + self.seq * 50;
            let reading = json!({ "asset": "PUMP-03", "seq": self.seq, "ts": ts, "mm_s": mm_s(index), "rpm": 1480 });
            self.publish("assets/PUMP-03/vibration", reading.to_string().as_bytes());
            self.services.iter_mut().for_each(|service| service.advance(Duration::from_millis(50)));
        }
    }

    /// The events so far, as `topic event`.
    fn events(&self) -> Vec<String> {
        let event = |message: &Published| Some(message.value()?["event"].as_str()?.to_owned());
        let line = |message: &Published| Some(format!("{} {}", message.topic, event(message)?));
        self.messages.iter().filter_map(line).collect()
    }
}

/// What the site's IT system knows and reserves.
fn answer(topic: &str) -> Value {
    match topic {
        "api/location/get" => json!({ "location": "hall A, bay 3" }),
        "api/technicians/reserve" => json!({ "reserved": true, "technician": "chika" }),
        "api/tools/reserve" => json!({ "reserved": true }),
        _ => json!({}),
    }
}

#[test]
fn a_failing_bearing_is_found_ordered_planned_and_repaired() {
    let mut site = Site::new();
    let registration = json!({ "kind": "pump", "skills": ["bearings", "alignment"],
        "tools": ["bearing-puller"], "zone_borders_mm_s": [1.4, 2.8, 4.5] });
    site.publish("registry/assets/PUMP-03", registration.to_string().as_bytes());
    site.measure(100, |index| 1.2 + 0.02 * f64::from(index % 5));
    assert_eq!(site.events(), [""; 0]);
    site.measure(250, |index| 1.2 + 0.02 * f64::from(index));
    let found = [
        "assets/PUMP-03/alerts AnomalyDetected",
        "workorders/WO-000001 WorkOrderCreated",
        "checks/CHK-000001 CheckPlanned",
        "assets/PUMP-03/alerts AnomalyEscalated",
        "workorders/WO-000001 WorkOrderEscalated",
        "assets/PUMP-03/alerts AnomalyEscalated",
        "workorders/WO-000001 WorkOrderEscalated",
    ];
    assert_eq!(site.events(), found);
    let check: Value = site.messages.iter().find(|message| message.topic.starts_with("checks/")).unwrap().json();
    assert_eq!((&check["asset"], &check["location"]), (&json!("PUMP-03"), &json!("hall A, bay 3")));
    assert_eq!(check["technician"], json!("chika"));
    site.publish("checks/CHK-000001/complete", br#"{"outcome":"repaired"}"#);
    let repaired = [
        "checks/CHK-000001 CheckCompleted",
        "workorders/WO-000001 WorkOrderClosed",
        "assets/PUMP-03/alerts AnomalyCleared",
    ];
    assert_eq!(site.events()[found.len()..], repaired);
    // The new bearing is learned; it is well, and nothing more happens.
    site.measure(150, |index| 1.0 + 0.02 * f64::from(index % 5));
    assert_eq!(site.events().len(), found.len() + repaired.len());
    for service in &site.services {
        assert_eq!(service.dead_letters(), []);
    }
}
