//! A disk that is full and has room again, made by a limit on the size of files: writes fail with "File too large" as they
//! would with "No space left on device". What was acknowledged is there in the end, once and in order, and what needs
//! no disk never noticed.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::client::{Client, Packet};
use super::harness::{Broker, eventually, guest};
use super::ledger;

/// Bytes of a payload: enough of them make the database grow.
const PAYLOAD: usize = 20_000;

/// What a publisher saw.
struct Seen {
    /// The number of the next message.
    next: u32,
    /// Numbers that were acknowledged.
    acknowledged: Vec<u32>,
}

#[test]
fn a_full_disk_costs_nothing_that_was_acknowledged_and_the_broker_goes_on_when_there_is_room() -> Result<()> {
    let Some(broken) = break_disk()? else { return Ok(()) };
    let Broken { directory: _directory, data: _, broker, mut seen } = broken;
    let mut from = Client::connect(broker.mqtt, "from", true)?;
    let mut to = Client::connect(broker.mqtt, "to", true)?;
    to.subscribe("pair", 1)?;
    for number in 0..20_u32 {
        from.publish_acknowledged("pair", &number.to_be_bytes())?;
        let (_, payload) =
            to.receive_publish(Duration::from_secs(10))?.context("a message between two clean sessions")?;
        ensure!(payload == number.to_be_bytes(), "another message");
    }
    ensure!(!publish(&mut from, &mut seen)?, "a message for a durable session was acknowledged");
    ensure!(Client::connect(broker.mqtt, "new", false).is_err(), "a durable session was made");
    let refused = broker.refused(&["pub", "--topic", "kept", "--qos", "1", "--message", "x"])?;
    ensure!(refused.contains("quota") || refused.contains("Quota") || refused.contains("0x97"), "{refused}");

    limit_files(&broker, None)?;
    eventually("the store is well", || Ok(store(&broker)?["state"] == "ok"))?;
    let mut from = Client::connect(broker.mqtt, "from", true)?;
    for _ in 0..20 {
        ensure!(publish(&mut from, &mut seen)?, "a message was refused on a disk with room");
    }
    check(&broker, &seen)?;
    let log = broker.log();
    ensure!(log.matches("the database cannot be used").count() == 1, "{log}");
    ensure!(log.matches("the database can be used again").count() == 1, "{log}");
    let (status, _) = broker.stop()?;
    ensure!(status.success(), "{status}");
    Ok(())
}

#[test]
fn a_broker_that_ends_while_the_disk_is_full_keeps_what_it_acknowledged() -> Result<()> {
    for killed in [true, false] {
        let Some(Broken { directory: _directory, data, broker, seen }) = break_disk()? else { return Ok(()) };
        if killed {
            broker.kill()?;
        } else {
            // It says that something was not written, since somebody may want to know.
            let (status, _) = broker.stop()?;
            ensure!(status.code() == Some(1), "{status}");
            let log = std::fs::read_to_string(data.with_extension("log"))?;
            ensure!(log.contains("are lost"), "{log}");
        }
        let broker = Broker::start(&data)?;
        check(&broker, &seen)?;
    }
    Ok(())
}

#[test]
fn a_service_handles_each_event_once_though_the_disk_was_full_meanwhile() -> Result<()> {
    if !has_prlimit() {
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    let data = directory.path().join("data");
    let broker = Broker::start_without_file_size_signal(&data)?;
    broker.deploy(&guest("ledger"))?;
    let mut kept = Client::connect(broker.mqtt, "kept", false)?;
    kept.subscribe("kept", 1)?;
    kept.subscribe("out/+", 1)?;
    drop(kept);
    let (mut sent, mut acknowledged) = (BTreeSet::new(), BTreeSet::new());
    let mut seen = Seen { next: 0, acknowledged: Vec::new() };
    for round in 0..3 {
        limit_files(&broker, Some(database(&data)?))?;
        let mut fills = Client::connect(broker.mqtt, "fills", true)?;
        let mut from = Client::connect(broker.mqtt, "from", true)?;
        // Events go on until one is refused; until then the other publisher makes the database grow.
        let mut is_full = false;
        loop {
            is_full = is_full || !publish(&mut fills, &mut seen)?;
            let number = u32::try_from(sent.len())?;
            sent.insert(number);
            from.publish("in/k", number.to_string().as_bytes(), 1, 1, false)?;
            if from.expect().is_err() {
                break;
            }
            acknowledged.insert(number);
            ensure!(number < 10_000, "round {round}: the disk never is full");
        }
        limit_files(&broker, None)?;
        eventually("the store is well", || Ok(store(&broker)?["state"] == "ok"))?;
    }
    let keys = ["k".to_owned()];
    let written = ledger::dump(broker.mqtt, &keys)?.remove("k").context("no list")?;
    ledger::check("k", &written, &acknowledged, &sent)?;
    let shown = broker.show("ledger")?;
    let counts = &shown["counts"];
    ensure!(counts["retried"] == 0 && counts["dead_lettered"] == 0, "the service was blamed: {counts}");
    // What the service published in the same transactions is with the durable subscriber, once and in order.
    let mut kept = Client::connect(broker.mqtt, "kept", false)?;
    let mut delivered = Vec::new();
    while delivered.len() < written.len() {
        let (topic, payload) = kept.receive_publish(Duration::from_secs(30))?.context("less was delivered")?;
        if topic == "out/k" {
            let text = String::from_utf8(payload)?;
            delivered.push(text.split(' ').next().context("empty")?.parse::<u32>()?);
        }
    }
    ensure!(delivered == written, "what was delivered differs from what was written down");
    Ok(())
}

/// A broker whose disk is full.
struct Broken {
    directory: tempfile::TempDir,
    data: std::path::PathBuf,
    broker: Broker,
    seen: Seen,
}

fn has_prlimit() -> bool {
    let found = Command::new("prlimit").arg("--version").output().is_ok();
    if !found {
        println!("there is no prlimit (package util-linux), so no disk can be made full: nothing was tested");
    }
    found
}

/// Publishes to a durable session until the disk is full. `None` where the system has no `prlimit`.
fn break_disk() -> Result<Option<Broken>> {
    if !has_prlimit() {
        return Ok(None);
    }
    let directory = tempfile::tempdir()?;
    let data = directory.path().join("data");
    let broker = Broker::start_without_file_size_signal(&data)?;
    let mut kept = Client::connect(broker.mqtt, "kept", false)?;
    kept.subscribe("kept", 1)?;
    drop(kept);
    let mut from = Client::connect(broker.mqtt, "from", true)?;
    let mut seen = Seen { next: 0, acknowledged: Vec::new() };
    for _ in 0..10 {
        ensure!(publish(&mut from, &mut seen)?, "a message was refused on a disk with room");
    }
    limit_files(&broker, Some(database(&data)?))?;
    while publish(&mut from, &mut seen)? {
        ensure!(seen.next < 10_000, "the disk never is full");
    }
    eventually("the store is failing", || Ok(store(&broker)?["state"] == "failing"))?;
    let store = store(&broker)?;
    ensure!(store["failures"].as_u64() >= Some(1), "{store}");
    ensure!(store["reason"].as_str().is_some_and(|reason| reason.contains("too large")), "{store}");
    Ok(Some(Broken { directory, data, broker, seen }))
}

/// Publishes the next message to the durable session; whether it was acknowledged. If not, the connection is closed.
fn publish(from: &mut Client, seen: &mut Seen) -> Result<bool> {
    let number = seen.next;
    seen.next += 1;
    let mut payload = number.to_be_bytes().to_vec();
    payload.resize(PAYLOAD, 7);
    from.publish("kept", &payload, 1, 1, false)?;
    match from.expect() {
        Ok(answer) => {
            ensure!(answer == Packet::Puback(1), "instead of PUBACK: {answer:?}");
            seen.acknowledged.push(number);
            Ok(true)
        }
        Err(_) => Ok(false),
    }
}

/// Takes all that the durable session has: what was acknowledged, in order, once; of the rest nothing twice.
fn check(broker: &Broker, seen: &Seen) -> Result<()> {
    let mut kept = Client::connect(broker.mqtt, "kept", false)?;
    ensure!(kept.session_present, "the durable session is gone");
    let last = *seen.acknowledged.last().context("nothing was acknowledged")?;
    let mut found = Vec::new();
    while let Some((_, payload)) =
        kept.receive_publish(Duration::from_secs(if found.last() == Some(&last) { 1 } else { 30 }))?
    {
        let number = payload.first_chunk().map(|bytes| u32::from_be_bytes(*bytes)).context("no number")?;
        ensure!(payload.len() == PAYLOAD, "{} bytes", payload.len());
        found.push(number);
    }
    ensure!(found.is_sorted_by(|a, b| a < b), "out of order or twice: {found:?}");
    let missing: Vec<&u32> = seen.acknowledged.iter().filter(|number| !found.contains(number)).collect();
    ensure!(missing.is_empty(), "acknowledged and lost: {missing:?}");
    Ok(())
}

fn store(broker: &Broker) -> Result<Value> {
    Ok(broker.status()?["store"].clone())
}

/// Bytes of the database file.
fn database(data: &Path) -> Result<u64> {
    Ok(std::fs::metadata(data.join("vespiary.redb"))?.len())
}

/// No file may grow beyond so many bytes, or all may.
fn limit_files(broker: &Broker, bytes: Option<u64>) -> Result<()> {
    let soft = bytes.map_or("unlimited".to_owned(), |bytes| bytes.to_string());
    let limited = Command::new("prlimit")
        .args(["--pid", &broker.pid().to_string(), &format!("--fsize={soft}:unlimited")])
        .status()?;
    ensure!(limited.success(), "prlimit: {limited}");
    Ok(())
}
