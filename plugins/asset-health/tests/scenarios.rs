//! What the service promises, through its topics; with both versions, and with the second after the first.

use std::time::Duration;

use asset_health::ledger::{EMPTY_CHAIN, chained};
use asset_health::{version1, version2};
use vespiary_sdk::Plugin;
use vespiary_sdk::serde_json::{self, Value, json};
use vespiary_sdk::testing::{Delivery, TestHost};

/// A sensor on `PUMP-01`, and the chain over what it sent.
struct Sensor {
    host: TestHost,
    seq: u64,
    chain: u64,
}

impl Sensor {
    fn new(plugin: Plugin) -> Self {
        Self { host: TestHost::new(plugin), seq: 0, chain: EMPTY_CHAIN }
    }

    fn payload(&self, seq: u64, mm_s: f64) -> Vec<u8> {
        let ts = 1_767_225_600_000_u64 + seq * 50;
        let reading =
            json!({ "asset": "PUMP-01", "seq": seq, "ts": ts, "mm_s": mm_s, "temperature_c": 41.5, "rpm": 1480 });
        serde_json::to_vec(&reading).expect("JSON")
    }

    /// Sends readings of these velocities.
    fn measure(&mut self, velocities: impl IntoIterator<Item = f64>) {
        for mm_s in velocities {
            self.seq += 1;
            let payload = self.payload(self.seq, mm_s);
            self.chain = chained(self.chain, &payload);
            self.host.publish_bytes("assets/PUMP-01/vibration", payload);
            self.host.advance(Duration::from_millis(50));
        }
    }

    /// A healthy machine: 1.2 mm/s, wavering a little.
    fn healthy(&mut self, readings: u64) {
        self.measure((0..readings).map(|index| 1.2 + 0.1 * ((index % 7) as f64 - 3.0) / 3.0));
    }

    /// The events so far.
    fn alerts(&self) -> Vec<String> {
        let name = |value: Value| value["event"].as_str().unwrap_or_default().to_owned();
        self.host.published("assets/PUMP-01/alerts").iter().map(|message| name(message.json())).collect()
    }

    fn summary(&mut self) -> Value {
        self.host.publish("assets/PUMP-01/health/query", json!({ "request": "now" }));
        let answer = self.host.published("assets/PUMP-01/health").pop().expect("an answer");
        assert!(answer.retain);
        let summary: Value = answer.json();
        assert_eq!(summary["request"], json!("now"));
        summary
    }
}

const BOTH: [fn() -> Plugin; 2] = [version1::plugin, version2::plugin];

#[test]
fn one_failing_bearing_is_one_anomaly_that_grows() {
    for plugin in BOTH {
        let mut sensor = Sensor::new(plugin());
        sensor.healthy(100);
        sensor.measure((0..300).map(|index| 1.2 + f64::from(index) * 0.02 + 0.3 * f64::from(index % 2)));
        assert_eq!(sensor.alerts(), ["AnomalyDetected", "AnomalyEscalated", "AnomalyEscalated"]);
        let alerts: Vec<Value> =
            sensor.host.published("assets/PUMP-01/alerts").iter().map(|message| message.json()).collect();
        let severities: Vec<&Value> = alerts.iter().map(|alert| &alert["severity"]).collect();
        assert_eq!(severities, ["advisory", "warning", "critical"]);
        assert!(alerts.iter().all(|alert| alert["anomaly"] == alerts[0]["anomaly"]));
        assert_eq!(sensor.summary()["state"], json!({ "alarm": "critical" }));
    }
}

#[test]
fn the_second_version_sees_a_shift_that_the_first_does_not() {
    let shifted = |plugin: Plugin| {
        let mut sensor = Sensor::new(plugin);
        sensor.healthy(100);
        sensor.measure([1.6; 50]);
        sensor.alerts()
    };
    assert_eq!(shifted(version1::plugin()), [""; 0]);
    assert_eq!(shifted(version2::plugin()), ["AnomalyDetected"]);
}

#[test]
fn an_anomaly_is_cleared_by_lasting_calm_and_the_next_is_another() {
    for plugin in BOTH {
        let mut sensor = Sensor::new(plugin());
        for _ in 0..2 {
            sensor.healthy(100);
            sensor.measure([2.5; 20]);
        }
        sensor.healthy(100);
        assert_eq!(sensor.alerts(), ["AnomalyDetected", "AnomalyCleared", "AnomalyDetected", "AnomalyCleared"]);
        let names: Vec<Value> =
            sensor.host.published("assets/PUMP-01/alerts").iter().map(|alert| alert.json()).collect();
        assert_eq!(names[0]["anomaly"], names[1]["anomaly"]);
        assert_ne!(names[0]["anomaly"], names[2]["anomaly"]);
    }
}

#[test]
fn a_repaired_asset_is_learned_anew() {
    for plugin in BOTH {
        let mut sensor = Sensor::new(plugin());
        sensor.healthy(100);
        sensor.measure([2.5; 20]);
        let repaired = json!({ "order": "WO-000001", "asset": "PUMP-01", "outcome": "repaired", "ts": 1 });
        sensor.host.publish("assets/PUMP-01/maintained", repaired);
        // The new bearing runs less smoothly, and that is normal for it.
        sensor.measure([2.2; 100]);
        assert_eq!(sensor.alerts(), ["AnomalyDetected", "AnomalyCleared"]);
        assert_eq!(sensor.summary()["state"], json!("normal"));
    }
}

#[test]
fn where_nothing_was_found_a_machine_that_goes_on_like_this_is_reported_again() {
    let mut sensor = Sensor::new(version1::plugin());
    sensor.healthy(100);
    sensor.measure([2.5; 20]);
    sensor.host.publish("assets/PUMP-01/maintained", json!({ "outcome": "no-fault-found", "ts": 1 }));
    sensor.measure([2.5; 20]);
    assert_eq!(sensor.alerts(), ["AnomalyDetected", "AnomalyCleared", "AnomalyDetected"]);
}

#[test]
fn a_machine_that_does_damage_is_reported_though_it_was_never_better() {
    let mut sensor = Sensor::new(version1::plugin());
    sensor.measure([6.0; 10]);
    assert_eq!(sensor.alerts(), ["AnomalyDetected"]);
    // Unless it is one that may.
    let mut sensor = Sensor::new(version1::plugin());
    sensor.host.publish("registry/assets/PUMP-01", json!({ "zone_borders_mm_s": [3.5, 7.1, 11.0] }));
    sensor.measure([6.0; 100]);
    assert_eq!(sensor.alerts(), [""; 0]);
}

#[test]
fn the_second_version_takes_over_what_the_first_one_learned_counted_and_raised() {
    let mut sensor = Sensor::new(version1::plugin());
    sensor.healthy(100);
    sensor.measure([2.5; 20]);
    sensor.host.upgrade(version2::plugin());
    sensor.measure([2.5; 20]);
    // The alarm stands, and is not raised again.
    assert_eq!(sensor.alerts(), ["AnomalyDetected"]);
    let summary = sensor.summary();
    assert_eq!(summary["version"], json!("2.0.0"));
    assert_eq!(summary["handled_by"], json!({ "1.0.0": 120, "2.0.0": 20 }));
    sensor.healthy(100);
    assert_eq!(sensor.alerts(), ["AnomalyDetected", "AnomalyCleared"]);
    // And back: the first one reads what the second one wrote.
    sensor.host.upgrade(version1::plugin());
    sensor.measure([2.5; 20]);
    assert_eq!(sensor.alerts(), ["AnomalyDetected", "AnomalyCleared", "AnomalyDetected"]);
    assert_eq!(sensor.summary()["handled"], json!(260));
}

#[test]
fn a_trend_that_began_before_the_swap_is_found_after_it() {
    let mut sensor = Sensor::new(version1::plugin());
    sensor.healthy(100);
    sensor.measure((0..60).map(|index| 1.2 + f64::from(index) * 0.007));
    assert_eq!(sensor.alerts(), [""; 0]);
    sensor.host.upgrade(version2::plugin());
    sensor.measure((60..85).map(|index| 1.2 + f64::from(index) * 0.007));
    assert_eq!(sensor.alerts(), ["AnomalyDetected"]);
}

#[test]
fn the_summary_proves_that_nothing_was_lost_doubled_or_reordered() {
    let mut sensor = Sensor::new(version1::plugin());
    sensor.healthy(40);
    sensor.host.crash_after_next_call();
    sensor.healthy(40);
    sensor.host.upgrade(version2::plugin());
    sensor.healthy(40);
    sensor.host.settle();
    let (summary, chain) = (sensor.summary(), format!("{:016x}", sensor.chain));
    let number = |field: &str| summary[field].as_u64().expect("a number");
    assert_eq!([number("handled"), number("first_seq"), number("last_seq")], [120, 1, 120]);
    assert_eq!([number("gaps"), number("repeats"), number("reordered"), number("restarts")], [0; 4]);
    assert_eq!(summary["chain"], json!(chain));
}

#[test]
fn the_summary_shows_what_was_lost_doubled_and_reordered() {
    let mut sensor = Sensor::new(version1::plugin());
    for seq in [1, 2, 2, 5, 4, 6] {
        let payload = sensor.payload(seq, 1.2);
        sensor.host.publish_bytes("assets/PUMP-01/vibration", payload);
    }
    let summary = sensor.summary();
    let counts = ["handled", "gaps", "repeats", "reordered"].map(|field| summary[field].as_u64());
    assert_eq!(counts, [Some(6), Some(1), Some(1), Some(1)]);
}

#[test]
fn what_makes_no_sense_becomes_a_dead_letter_that_says_why() {
    let mut host = TestHost::new(version1::plugin());
    let reading = |asset: &str, mm_s: f64| json!({ "asset": asset, "seq": 1, "ts": 1, "mm_s": mm_s });
    host.publish("assets/P-01/vibration", reading("P-02", 1.0));
    host.publish("assets/P-01/vibration", reading("P-01", -1.0));
    host.publish_bytes("assets/P-01/vibration", "1.0");
    let long = "x".repeat(200);
    host.publish(format!("assets/{long}/vibration"), reading(&long, 1.0));
    host.publish("registry/assets/P-01", json!({ "zone_borders_mm_s": [3, 2, 1] }));
    host.publish("assets/P-01/health/query", json!({ "request": "x".repeat(300) }));
    let reasons: Vec<String> = host.dead_letters().iter().map(|letter| letter.reason.clone()).collect();
    let parts = ["published for", "-1 mm/s", "invalid type", "200 bytes", "zone borders", "longer than 256"];
    assert_eq!(reasons.len(), parts.len(), "{reasons:?}");
    for (reason, part) in reasons.iter().zip(parts) {
        assert!(reason.contains(part), "{reason} lacks {part}");
    }
    assert!(host.state_keys("").is_empty());
}

#[test]
fn a_configuration_that_makes_no_sense_refuses_the_deploy() {
    for (key, value) in [("suspicious_sigmas", "1"), ("warm_up_readings", "0"), ("calm_sigmas", "much")] {
        let refused = TestHost::new(version1::plugin()).with_config([(key, value)]).start();
        assert!(refused.is_err(), "{key}={value}");
    }
    let mut host = TestHost::new(version1::plugin()).with_config([("raise_after_readings", "1")]);
    assert_eq!(host.start(), Ok(()));
    assert_eq!(
        host.publish("assets/P-01/vibration", json!({ "asset": "P-01", "seq": 1, "ts": 1, "mm_s": 9.0 })),
        Delivery::Done
    );
    assert_eq!(host.published("assets/P-01/alerts").len(), 1);
}
