//! A new version beside the active one: a share of the keys, promoted, aborted or gone with a kill; and rehearsals.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::super::client::Client;
use super::super::harness::{Broker, PATIENCE, guest};
use super::{Plant, publish, silence, text};

const KEYS: u32 = 200;

/// Sends `number` to each key; gives the version that handled each, which is all that came out.
fn handled_by(broker: &Broker, number: u32) -> Result<BTreeMap<String, u32>> {
    let mut client = Client::connect(broker.mqtt, "subscriber", true)?;
    client.subscribe("out/+", 1)?;
    let mut publisher = Client::connect(broker.mqtt, "publisher", true)?;
    for key in 0..KEYS {
        publisher.publish_acknowledged(&format!("in/k{key}"), number.to_string().as_bytes())?;
    }
    let mut versions = BTreeMap::new();
    for _ in 0..KEYS {
        let (topic, payload) = client.receive_publish(PATIENCE)?.context("an event is missing")?;
        let payload = String::from_utf8(payload)?;
        let (seen, version) = payload.split_once(' ').context("no version")?;
        ensure!(seen == number.to_string(), "{topic}: {payload}");
        ensure!(versions.insert(topic, version.parse()?).is_none(), "a key came twice");
    }
    silence(&mut client)?;
    Ok(versions)
}

fn begin(plant: &Plant) -> Result<Value> {
    let component = guest("swaps_same");
    Ok(serde_json::from_str(&plant.broker().ok(&["deploy", "--json", "--canary", "10%", text(&component)?])?)?)
}

/// The keys that went to version 2, which are about a tenth.
fn share(versions: &BTreeMap<String, u32>) -> Result<Vec<&String>> {
    let keys: Vec<_> = versions.iter().filter(|(_, version)| **version == 2).map(|(key, _)| key).collect();
    println!("{} of {KEYS} keys went to the canary of 10 %", keys.len());
    ensure!((5..=45).contains(&keys.len()), "{} of {KEYS} keys went to the canary", keys.len());
    Ok(keys)
}

fn all(versions: &BTreeMap<String, u32>, version: u32) -> Result<()> {
    ensure!(versions.values().all(|seen| *seen == version), "not all by version {version}: {versions:?}");
    Ok(())
}

#[test]
fn a_canary_gets_a_share_of_the_keys_until_it_is_aborted_or_promoted() -> Result<()> {
    let plant = Plant::start("")?;
    let broker = plant.broker();
    broker.deploy(&guest("swaps"))?;
    all(&handled_by(broker, 1)?, 1)?;
    let report = begin(&plant)?;
    ensure!(report["canary_percent"] == 10, "{report:#}");
    let (second, third) = (handled_by(broker, 2)?, handled_by(broker, 3)?);
    ensure!(share(&second)? == share(&third)?, "keys moved between the two");
    let shown = broker.show("swaps")?;
    ensure!(shown["version"] == "1.0.0" && shown["canary"]["version"] == "2.0.0", "{shown:#}");
    ensure!(shown["canary"]["events"].as_u64() == Some(2 * share(&second)?.len() as u64), "{shown:#}");
    broker.ok(&["plugin", "abort", "swaps"])?;
    ensure!(broker.show("swaps")?["canary"].is_null());
    all(&handled_by(broker, 4)?, 1)?;

    begin(&plant)?;
    share(&handled_by(broker, 5)?)?;
    broker.ok(&["plugin", "promote", "swaps"])?;
    all(&handled_by(broker, 6)?, 2)?;
    let shown = broker.show("swaps")?;
    ensure!(shown["version"] == "2.0.0" && shown["canary"].is_null(), "{shown:#}");
    ensure!(shown["usage"]["dead_letters"] == 0, "{shown:#}");
    ensure!(broker.refused(&["plugin", "abort", "swaps"])?.contains("canary"));
    Ok(())
}

#[test]
fn a_kill_during_a_canary_leaves_the_stable_revision_with_all_events() -> Result<()> {
    let mut plant = Plant::start("")?;
    plant.broker().deploy(&guest("swaps"))?;
    all(&handled_by(plant.broker(), 1)?, 1)?;
    begin(&plant)?;
    share(&handled_by(plant.broker(), 2)?)?;
    // Events that wait for either when the kill comes.
    let mut publisher = Client::connect(plant.broker().mqtt, "publisher", true)?;
    for key in 0..KEYS {
        publisher.publish_acknowledged(&format!("in/k{key}"), b"3")?;
    }
    plant.restart("")?;
    let shown = plant.broker().wait_plugin("swaps", "through", |shown| shown["inbox_events"] == 0)?;
    ensure!(shown["version"] == "1.0.0" && shown["canary"].is_null() && shown["revision"] == 1, "{shown:#}");
    all(&handled_by(plant.broker(), 4)?, 1)?;
    ensure!(plant.broker().show("swaps")?["usage"]["dead_letters"] == 0);
    Ok(())
}

#[test]
fn a_canary_that_fails_is_aborted_by_itself_and_loses_no_event() -> Result<()> {
    let plant = Plant::start("[plugins]\nattempts = 50\n[plugin.swaps.config]\nfails = \"yes\"\n")?;
    let broker = plant.broker();
    broker.deploy(&guest("swaps"))?;
    all(&handled_by(broker, 1)?, 1)?;
    ensure!(begin(&plant)?["canary_percent"] == 10);
    all(&handled_by(broker, 2)?, 1)?;
    let shown = broker.wait_plugin("swaps", "alone", |shown| shown["canary"].is_null())?;
    ensure!(shown["rolled_back"].as_str().is_some_and(|what| what.contains("2.0.0")), "{shown:#}");
    ensure!(shown["usage"]["dead_letters"] == 0, "{shown:#}");
    Ok(())
}

#[test]
fn a_dry_run_prints_what_would_differ_and_changes_nothing() -> Result<()> {
    let plant = Plant::start("")?;
    let broker = plant.broker();
    broker.deploy(&guest("ledger"))?;
    for number in 0..5 {
        publish(broker, "in/a", &number.to_string())?;
    }
    publish(broker, "in/b", "no number")?;
    let before = broker.wait_plugin("ledger", "through", |shown| shown["usage"]["dead_letters"] == 1)?;
    let mut listening = Client::connect(broker.mqtt, "listener", true)?;
    listening.subscribe("#", 1)?;
    let component = guest("ledger_v2");
    let printed = broker.ok(&["deploy", "--dry-run", text(&component)?])?;
    for expected in ["on in/a", "out/a", "0 1", "0 2", "4 1", "4 2"] {
        ensure!(printed.contains(expected), "{expected:?} is not in:\n{printed}");
    }
    let report: Value = serde_json::from_str(&broker.ok(&["deploy", "--dry-run", "--json", text(&component)?])?)?;
    let found = &report["dry_run"];
    ensure!(found["events"] == 6 && found["same"] == 1, "{found:#}");
    ensure!(found["differences"].as_array().is_some_and(|list| list.len() == 5), "{found:#}");
    // The same code makes the same of it.
    let report: Value =
        serde_json::from_str(&broker.ok(&["deploy", "--dry-run", "--json", text(&guest("ledger"))?])?)?;
    ensure!(report["dry_run"]["same"] == 6, "{report:#}");

    silence(&mut listening)?;
    let after = broker.show("ledger")?;
    for same in ["revision", "version", "history", "usage", "dead_letters", "status"] {
        if same != "usage" {
            ensure!(before[same] == after[same], "{same} changed: {after:#}");
        }
    }
    ensure!(before["usage"]["state_bytes"] == after["usage"]["state_bytes"], "{after:#}");
    ensure!(super::super::ledger::dump(broker.mqtt, &["a".to_owned()])?["a"] == [0, 1, 2, 3, 4]);
    publish(broker, "in/a", "5")?;
    let (_, payload) = loop {
        let (topic, payload) = listening.receive_publish(PATIENCE)?.context("nothing came")?;
        if topic == "out/a" {
            break (topic, payload);
        }
    };
    ensure!(payload == b"5 1", "{payload:?}");
    Ok(())
}
