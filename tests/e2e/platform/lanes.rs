//! Lanes: keys are handled at the same time and each in its order, and what two of them write comes out as if one came after the
//! other.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::super::client::{Client, Packet};
use super::super::harness::PATIENCE;
use super::{OBEYS, Plant, heard, listener, publish};

const LANES: &str = r#""concurrency":{"lanes":4,"key":{"level":1}}"#;

/// Publishes all of it with a window, and waits for each PUBACK.
fn publish_all(client: &mut Client, messages: &[(String, String)]) -> Result<()> {
    let mut acknowledged = 0;
    for (number, (topic, payload)) in messages.iter().enumerate() {
        client.publish(topic, payload.as_bytes(), 1, number as u16 + 1, false)?;
        while acknowledged + 100 < number {
            ensure!(matches!(client.expect()?, Packet::Puback(_)));
            acknowledged += 1;
        }
    }
    while acknowledged < messages.len() {
        ensure!(matches!(client.expect()?, Packet::Puback(_)));
        acknowledged += 1;
    }
    Ok(())
}

#[test]
fn a_key_that_spins_holds_up_no_key_of_another_lane() -> Result<()> {
    let plant = Plant::start("[plugins]\nthreads = 4\ncall_deadline_ms = 4000\nattempts = 1\n")?;
    let broker = plant.broker();
    plant.deploy("obeys", "obeys", &format!("{OBEYS},{LANES}"))?;
    let mut listening = listener(broker, "listener")?;
    let began = Instant::now();
    publish(broker, "in/slow", "spin")?;
    publish(broker, "in/slow", "publish out/slow behind")?;
    let messages: Vec<_> = (0..32).map(|key| (format!("in/k{key}"), format!("publish out/quick {key}"))).collect();
    publish_all(&mut Client::connect(broker.mqtt, "publisher", true)?, &messages)?;
    let (mut early, mut seen) = (0, 0);
    while seen < 32 {
        let (topic, payload) = listening.receive_publish(PATIENCE)?.context("a key is held up")?;
        ensure!(topic == "out/quick" || (topic == "out/slow" && payload == b"behind"), "{topic}");
        if topic == "out/quick" {
            seen += 1;
            early += usize::from(began.elapsed() < Duration::from_secs(4));
        }
    }
    println!("{early} of 32 keys were handled while one spun in one of four lanes");
    ensure!(early >= 16, "only {early} of 32 keys were handled beside a lane that spins");
    let shown = broker.wait_plugin("obeys", "through", |shown| shown["usage"]["dead_letters"] == 1)?;
    ensure!(shown["lanes"]["lanes"] == 4 && shown["lanes"]["key"] == "level 1", "{shown:#}");
    broker.wait_plugin("obeys", "empty", |shown| shown["inbox_events"] == 0)?;
    Ok(())
}

#[test]
fn each_key_keeps_its_order_under_load_also_over_a_kill() -> Result<()> {
    let mut plant = Plant::start("[plugins]\nthreads = 4\n")?;
    // It takes a number only if it is one more than the last of its key.
    let fields = format!(
        r#""subscribes":[{{"filter":"in/+","qos":1}},{{"filter":"dump/+","qos":1}}],"publishes":["out/+","dumped/+"],{LANES}"#
    );
    plant.deploy("swaps", "swaps", &fields)?;
    let messages: Vec<_> =
        (1..=100).flat_map(|number| (0..40).map(move |key| (format!("in/k{key}"), number.to_string()))).collect();
    publish_all(&mut Client::connect(plant.broker().mqtt, "one", true)?, &messages)?;
    plant.restart("[plugins]\nthreads = 4\n")?;
    let more: Vec<_> =
        (101..=140).flat_map(|number| (0..40).map(move |key| (format!("in/k{key}"), number.to_string()))).collect();
    let mut client = Client::connect(plant.broker().mqtt, "two", true)?;
    publish_all(&mut client, &more)?;
    let shown = plant.broker().wait_plugin("swaps", "through", |shown| shown["inbox_events"] == 0)?;
    ensure!(shown["usage"]["dead_letters"] == 0, "{shown:#}");
    client.subscribe("dumped/+", 0)?;
    let mut dumped = BTreeMap::new();
    for key in 0..40 {
        client.publish(&format!("dump/k{key}"), b"", 0, 0, false)?;
        let (topic, payload) = client.receive_publish(PATIENCE)?.context("no dump")?;
        dumped.insert(topic, String::from_utf8(payload)?);
    }
    ensure!(dumped.len() == 40 && dumped.values().all(|text| text == "140 1"), "{dumped:?}");
    Ok(())
}

#[test]
fn keys_that_write_one_counter_at_the_same_time_end_with_the_right_sum() -> Result<()> {
    let plant = Plant::start("[plugins]\nthreads = 4\nbatch_events = 4\n")?;
    let broker = plant.broker();
    plant.deploy("obeys", "obeys", &format!("{OBEYS},{LANES}"))?;
    // Some time between reading and committing, so that calls overlap.
    let messages: Vec<_> =
        (0..400).map(|event| (format!("in/k{}", event % 8), "add shared 1\nsleep 1".to_owned())).collect();
    publish_all(&mut Client::connect(broker.mqtt, "publisher", true)?, &messages)?;
    let shown = broker.wait_plugin("obeys", "through", |shown| shown["inbox_events"] == 0)?;
    println!("400 events of 8 keys on one counter: {} conflicts", shown["counts"]["conflicts"]);
    ensure!(shown["usage"]["dead_letters"] == 0, "{shown:#}");
    let mut listening = listener(broker, "listener")?;
    publish(broker, "in/k0", "get shared")?;
    let sum = heard(&mut listening, "out/get")?;
    ensure!(sum == "400", "{sum}");
    Ok(())
}
