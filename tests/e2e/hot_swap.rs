//! Code changes while events flow: nothing lost, nothing doubled, nothing out of order.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::client::{Client, Packet};
use super::harness::{Broker, PATIENCE, guest};

/// Swaps, one a second.
const SWAPS: usize = 60;
/// Events a second.
const RATE: u32 = 5_000;
/// Keys that events are spread over.
const KEYS: u32 = 50;
/// Events that may be published and not yet have come out of the service. A machine that is too slow for the rate is
/// not pushed into the limits of inbox and queue, which are another test's matter.
const WINDOW: u32 = 5_000;

/// What came out of the service.
#[derive(Default)]
struct Output {
    /// The last number of each key.
    last: BTreeMap<String, u32>,
    /// Events by version of the code that handled them.
    by_version: BTreeMap<String, u64>,
    received: u32,
}

#[test]
fn a_swap_every_second_under_load_loses_doubles_and_reorders_nothing() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let broker = Broker::start(&directory.path().join("data"))?;
    let versions = [guest("ledger"), guest("ledger_v2")];
    broker.deploy(&versions[0])?;
    let stop = AtomicBool::new(false);
    let received = AtomicU32::new(0);
    let (mut pauses, sent, output) = std::thread::scope(|scope| -> Result<_> {
        let mut subscriber = Client::connect(broker.mqtt, "subscriber", false)?;
        subscriber.subscribe("out/+", 1)?;
        let publisher = scope.spawn(|| publish_at_rate(&broker, &stop, &received));
        let receiver = scope.spawn(|| receive_in_order(subscriber, &stop, &received));
        let swapped = swap_every_second(&broker, &versions);
        stop.store(true, Ordering::Relaxed);
        let sent = publisher.join().expect("the publisher does not panic")?;
        let output = receiver.join().expect("the receiver does not panic")?;
        Ok((swapped?, sent, output))
    })?;
    pauses.sort_by(f64::total_cmp);
    println!(
        "{} swaps under {sent} events: dispatch pause p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms; by version {:?}",
        pauses.len(),
        pauses[pauses.len() / 2],
        pauses[pauses.len() * 99 / 100],
        pauses[pauses.len() - 1],
        output.by_version
    );
    // Order and doubles were checked as they came: each key's numbers grew by one. So only the total is left.
    ensure!(output.received == sent, "sent and acknowledged {sent}, handled {}", output.received);
    ensure!(output.by_version.len() == 2, "both versions should have handled events: {:?}", output.by_version);
    let shown = broker.show("ledger")?;
    ensure!(shown["counts"]["dead_lettered"] == 0 && shown["counts"]["retried"] == 0, "{shown:#}");
    Ok(())
}

/// Swaps to and fro; gives each dispatch pause in milliseconds.
fn swap_every_second(broker: &Broker, versions: &[std::path::PathBuf; 2]) -> Result<Vec<f64>> {
    let started = Instant::now();
    let mut pauses = Vec::new();
    for swap in 0..SWAPS {
        std::thread::sleep((started + Duration::from_secs(swap as u64 + 1)).saturating_duration_since(Instant::now()));
        let deployed = broker.deploy(&versions[(swap + 1) % 2]).with_context(|| format!("swap {swap}"))?;
        ensure!(deployed["replaced"] == swap + 1 && deployed["revision"] == swap + 2, "{deployed}");
        pauses.push(deployed["pause_ms"].as_f64().context("no pause")?);
    }
    Ok(pauses)
}

/// Publishes numbers that grow by one in each key, at a rate, until told to stop; gives how many were acknowledged.
fn publish_at_rate(broker: &Broker, stop: &AtomicBool, received: &AtomicU32) -> Result<u32> {
    let mut client = Client::connect(broker.mqtt, "publisher", true)?;
    let started = Instant::now();
    let (mut sent, mut acknowledged) = (0u32, 0u32);
    loop {
        let stopping = stop.load(Ordering::Relaxed);
        let due = (started.elapsed().as_secs_f64() * f64::from(RATE)) as u32;
        while !stopping && sent < due && sent - received.load(Ordering::Relaxed) < WINDOW {
            let (key, number) = (sent % KEYS, sent / KEYS);
            let packet_id = (sent % 60_000) as u16 + 1;
            client.publish(&format!("in/k{key}"), number.to_string().as_bytes(), 1, packet_id, false)?;
            sent += 1;
        }
        if stopping && acknowledged == sent {
            return Ok(sent);
        }
        let mut wait = if stopping { PATIENCE } else { Duration::from_millis(1) };
        while let Some(packet) = client.receive(wait)? {
            wait = Duration::ZERO;
            let expected = Packet::Puback((acknowledged % 60_000) as u16 + 1);
            ensure!(packet == expected, "instead of {expected:?}: {packet:?}");
            acknowledged += 1;
        }
    }
}

/// Receives until told to stop and until nothing more comes; every key's numbers must grow by one.
fn receive_in_order(mut client: Client, stop: &AtomicBool, received: &AtomicU32) -> Result<Output> {
    let mut output = Output::default();
    loop {
        let stopping = stop.load(Ordering::Relaxed);
        let wait = if stopping { Duration::from_secs(3) } else { Duration::from_millis(100) };
        let Some((topic, payload)) = client.receive_publish(wait)? else {
            if stopping {
                return Ok(output);
            }
            continue;
        };
        let text = String::from_utf8(payload)?;
        let (number, version) = text.split_once(' ').context("no version")?;
        let number: u32 = number.parse()?;
        let expected = output.last.get(&topic).map_or(0, |last| last + 1);
        ensure!(number == expected, "{topic}: {number} came where {expected} was due");
        output.last.insert(topic, number);
        *output.by_version.entry(version.to_owned()).or_default() += 1;
        output.received += 1;
        received.store(output.received, Ordering::Relaxed);
    }
}

#[test]
fn a_component_that_does_not_start_leaves_the_active_revision_serving() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let broker = Broker::start(&directory.path().join("data"))?;
    broker.deploy(&guest("ledger"))?;
    for (component, reason) in [
        (guest("fails_init"), "does not start"),
        (guest("fails_health"), "does not start"),
        (guest("slow_init"), "deadline"),
        (guest("no_handler"), "handler"),
        (guest("imports_more"), "import"),
    ] {
        let line = broker.refused(&["deploy", component.to_str().context("path")?])?;
        ensure!(line.contains(reason), "{line}");
    }
    let shown: serde_json::Value = serde_json::from_str(&broker.ok(&["plugin", "list", "--json"])?)?;
    ensure!(shown.as_array().is_some_and(|list| list.len() == 1), "{shown:#}");
    Client::connect(broker.mqtt, "p", true)?.publish_acknowledged("in/k", b"1")?;
    broker.wait_plugin("ledger", "done", |shown| shown["counts"]["handled"] == 1)?;
    Ok(())
}

#[test]
fn rollback_brings_the_earlier_code_back_with_the_state_as_it_is() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let broker = Broker::start(&directory.path().join("data"))?;
    let mut subscriber = Client::connect(broker.mqtt, "subscriber", true)?;
    subscriber.subscribe("out/+", 1)?;
    let mut publisher = Client::connect(broker.mqtt, "publisher", true)?;
    let mut handled_by = |number: &str| -> Result<String> {
        publisher.publish_acknowledged("in/k", number.as_bytes())?;
        let (_, payload) = subscriber.receive_publish(PATIENCE)?.context("nothing came out")?;
        Ok(String::from_utf8(payload)?)
    };
    ensure!(broker.refused(&["plugin", "rollback", "ledger"])?.contains("no plugin \"ledger\" is deployed"));
    broker.deploy(&guest("ledger"))?;
    ensure!(handled_by("1")? == "1 1");
    ensure!(broker.refused(&["plugin", "rollback", "ledger"])?.contains("has no earlier revision"));
    broker.deploy(&guest("ledger_v2"))?;
    ensure!(handled_by("2")? == "2 2");
    broker.ok(&["plugin", "rollback", "ledger"])?;
    ensure!(handled_by("3")? == "3 1");
    broker.ok(&["plugin", "rollback", "ledger", "--to", "2"])?;
    ensure!(handled_by("4")? == "4 2");
    ensure!(super::ledger::dump(broker.mqtt, &["k".to_owned()])?["k"] == [1, 2, 3, 4]);
    let shown = broker.show("ledger")?;
    ensure!(shown["revision"] == 4 && shown["history"].as_array().is_some_and(|kept| kept.len() == 4), "{shown:#}");

    broker.ok(&["plugin", "remove", "ledger"])?;
    ensure!(broker.refused(&["plugin", "show", "ledger"])?.contains("no plugin \"ledger\" is deployed"));
    broker.deploy(&guest("ledger"))?;
    ensure!(super::ledger::dump(broker.mqtt, &["k".to_owned()])?["k"].is_empty(), "state outlived its plugin");
    Ok(())
}
