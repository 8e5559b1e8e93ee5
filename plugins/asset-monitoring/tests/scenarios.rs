//! What the service promises, through its topics.

use std::time::Duration;

use proptest::prelude::*;
use vespiary_sdk::serde_json::{Value, json};
use vespiary_sdk::testing::{Delivery, TestHost};

/// A plant whose assets are measured each second.
struct Plant {
    host: TestHost,
    seq: u64,
}

impl Plant {
    fn new() -> Self {
        Self { host: TestHost::new(asset_monitoring::plugin()), seq: 0 }
    }

    /// Lets so many seconds pass in which only these assets are heard of.
    fn seconds(&mut self, seconds: u64, assets: &[&str]) {
        for _ in 0..seconds {
            self.host.advance(Duration::from_secs(1));
            self.seq += 1;
            for asset in assets {
                let ts = self.host.now().as_millis();
                let reading = json!({ "asset": asset, "seq": self.seq, "ts": ts, "mm_s": 1.25, "temperature_c": 41.5,
                    "rpm": 1480.0, "load": 0.7 });
                let delivery = self.host.publish(format!("assets/{asset}/vibration"), reading);
                assert_eq!(delivery, Delivery::Done);
            }
        }
    }

    /// What was told so far, as `asset event`.
    fn told(&self) -> Vec<String> {
        let line = |value: Value| format!("{} {}", value["asset"], value["event"]).replace('"', "");
        self.host.published("assets/+/availability").iter().map(|message| line(message.json())).collect()
    }

    fn counts(&self) -> [u64; 3] {
        let counts: Value = self.host.published("fleet/availability").last().expect("counts").json();
        ["available", "silent", "unstable"].map(|state| counts[state].as_u64().expect("a count"))
    }
}

#[test]
fn the_latest_reading_is_known_and_can_be_asked_for() {
    let mut plant = Plant::new();
    plant.seconds(3, &["P-01"]);
    plant.host.publish_bytes("assets/P-01/availability/query", "");
    let now = plant.host.now().as_millis();
    plant.host.assert_published(
        "assets/P-01/availability",
        json!({ "event": "AssetAvailable", "asset": "P-01", "state": "available", "since_ts": now - 2_000,
            "silent_after_ms": 5_000, "readings": 3, "silences": 0,
            "latest": { "seq": 3, "ts": now, "received_ts": now, "mm_s": 1.25, "temperature_c": 41.5, "rpm": 1480.0 } }),
    );
    assert!(plant.host.published("assets/+/availability").iter().all(|message| message.retain));
}

#[test]
fn an_asset_that_falls_silent_is_noticed_by_the_readings_of_others() {
    let mut plant = Plant::new();
    plant.seconds(10, &["P-01", "P-02"]);
    assert_eq!(plant.told(), ["P-01 AssetAvailable", "P-02 AssetAvailable"]);
    plant.seconds(10, &["P-02"]);
    assert_eq!(plant.told()[2..], ["P-01 AssetSilent"]);
    assert_eq!(plant.counts(), [1, 1, 0]);
    plant.seconds(3, &["P-01", "P-02"]);
    assert_eq!(plant.told()[3..], ["P-01 AssetAvailable"]);
    assert_eq!(plant.counts(), [2, 0, 0]);
}

#[test]
fn when_nothing_is_heard_at_all_nobody_is_blamed() {
    let mut plant = Plant::new();
    plant.seconds(10, &["P-01", "P-02", "P-03"]);
    // The broker was down for an hour; the sensors come back one after the other.
    plant.host.advance(Duration::from_secs(3_600));
    plant.seconds(1, &["P-01"]);
    plant.seconds(10, &["P-01", "P-02", "P-03"]);
    assert_eq!(plant.told().len(), 3, "{:?}", plant.told());
}

#[test]
fn an_asset_that_flaps_is_told_of_once() {
    let mut plant = Plant::new();
    plant.seconds(10, &["P-01", "P-02"]);
    for _ in 0..10 {
        plant.seconds(8, &["P-02"]);
        plant.seconds(4, &["P-01", "P-02"]);
    }
    let flaps = ["P-01 AssetSilent", "P-01 AssetAvailable", "P-01 AssetSilent", "P-01 AssetAvailable"];
    assert_eq!(plant.told()[2..6], flaps);
    assert_eq!(plant.told()[6..], ["P-01 AssetUnstable"]);
    assert_eq!(plant.counts(), [1, 0, 1]);
}

#[test]
fn an_asset_may_have_a_limit_of_its_own_and_be_taken_out_of_service() {
    let mut plant = Plant::new();
    plant.host.publish("registry/assets/P-01", json!({ "location": "hall A", "silent_after_ms": 60_000 }));
    plant.seconds(10, &["P-01", "P-02"]);
    plant.seconds(50, &["P-02"]);
    assert_eq!(plant.told().len(), 2);
    plant.seconds(20, &["P-02"]);
    assert_eq!(plant.told()[2..], ["P-01 AssetSilent"]);
    plant.host.publish_bytes("registry/assets/P-01", "");
    assert_eq!(plant.counts(), [1, 0, 0]);
    let last = plant.host.published("assets/P-01/availability").pop().expect("published");
    assert!(last.retain && last.payload.is_empty());
    assert_eq!(plant.host.state_keys("asset/"), ["asset/P-02"]);
}

#[test]
fn what_makes_no_sense_becomes_a_dead_letter_that_says_why() {
    let mut host = TestHost::new(asset_monitoring::plugin());
    host.publish("assets/P-01/vibration", json!({ "asset": "P-02", "seq": 1, "ts": 1, "mm_s": 1.0 }));
    host.publish("assets/P-01/vibration", json!({ "asset": "P-01", "seq": -1, "ts": 1, "mm_s": 1.0 }));
    host.publish("registry/assets/P-01", json!({ "silent_after_ms": 0 }));
    let reasons: Vec<String> = host.dead_letters().iter().map(|letter| letter.reason.clone()).collect();
    let parts = ["published for", "integer `-1`", "silent_after_ms"];
    assert_eq!(reasons.len(), parts.len(), "{reasons:?}");
    for (reason, part) in reasons.iter().zip(parts) {
        assert!(reason.contains(part), "{reason} lacks {part}");
    }
    assert!(host.state_keys("").is_empty());
    let refused = TestHost::new(asset_monitoring::plugin()).with_config([("silent_after_ms", "0")]).start();
    assert!(refused.is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whoever is heard of when, the counts of the fleet are those of what was told of each asset.
    #[test]
    fn the_counts_are_those_of_the_assets(steps in proptest::collection::vec((0..6_usize, 0_u64..4_000), 1..300)) {
        const ASSETS: [&str; 5] = ["P-0", "P-1", "P-2", "P-3", "P-4"];
        let mut plant = Plant::new();
        for (asset, pause_ms) in steps {
            plant.host.advance(Duration::from_millis(pause_ms));
            match ASSETS.get(asset) {
                Some(asset) => plant.seconds(1, &[asset]),
                None => drop(plant.host.publish_bytes("registry/assets/P-0", "")),
            }
        }
        let mut states = std::collections::BTreeMap::new();
        for message in plant.host.published("assets/+/availability") {
            let state = message.value().map(|value| value["state"].clone());
            prop_assert!(state.is_none() || states.get(&message.topic) != Some(&state), "{message:?} told twice");
            states.insert(message.topic, state);
        }
        let count = |name: &str| states.values().filter(|state| **state == Some(json!(name))).count() as u64;
        if !plant.host.published("fleet/availability").is_empty() {
            prop_assert_eq!(plant.counts(), [count("available"), count("silent"), count("unstable")]);
        }
    }
}
