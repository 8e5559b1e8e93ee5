//! Guests that misbehave: each is stopped and reported by name and reason, and traffic beside it loses nothing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::client::{Client, Packet};
use super::harness::{Broker, guest};

/// What went by in a stream.
pub(crate) struct Streamed {
    /// Messages, all in order.
    pub(crate) messages: usize,
    /// The time from PUBLISH to the subscriber that 99 of 100 of them took at most.
    pub(crate) p99: Duration,
}

/// Runs `during` beside a stream of QoS 1 messages between two clients, none of which may get lost.
pub(crate) fn beside_a_stream(broker: &Broker, during: impl FnOnce() -> Result<()>) -> Result<Streamed> {
    let stop = &AtomicBool::new(false);
    std::thread::scope(|scope| {
        let mut subscriber = Client::connect(broker.mqtt, "stream-subscriber", true)?;
        subscriber.subscribe("stream", 1)?;
        let mut publisher = Client::connect(broker.mqtt, "stream-publisher", true)?;
        let stream = scope.spawn(move || -> Result<Streamed> {
            let (mut number, mut times) = (0u32, Vec::new());
            while !stop.load(Ordering::Relaxed) {
                let began = Instant::now();
                publisher.publish_acknowledged("stream", &number.to_be_bytes())?;
                let packet = subscriber.expect()?;
                let Packet::Publish { payload, dup: false, packet_id, .. } = packet else {
                    anyhow::bail!("instead of message {number}: {packet:?}")
                };
                ensure!(payload == number.to_be_bytes(), "message {number} is lost");
                times.push(began.elapsed());
                subscriber.puback(packet_id)?;
                number += 1;
            }
            times.sort();
            let p99 = times.get(times.len() * 99 / 100).copied().unwrap_or_default();
            Ok(Streamed { messages: times.len(), p99 })
        });
        let result = during();
        stop.store(true, Ordering::Relaxed);
        let streamed = stream.join().expect("the stream does not panic")?;
        result.map(|()| streamed)
    })
}

#[test]
fn misbehaving_plugins_are_stopped_and_reported_while_others_notice_nothing() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let data = directory.path().join("data");
    let config = directory.path().join("vespiary.toml");
    std::fs::write(&config, "[plugins]\ncall_deadline_ms = 2000\nattempts = 3\nbreaker_failures = 4\n")?;
    let broker = Broker::start_with(&data, &["--config", config.to_str().context("path")?])?;
    for (name, reason) in [("spins", "deadline"), ("hogs", "memory"), ("traps", "trap"), ("recurses", "stack")] {
        let streamed = beside_a_stream(&broker, || {
            broker.deploy(&guest(name))?;
            let mut publisher = Client::connect(broker.mqtt, "trigger", true)?;
            for number in 0..6u32 {
                publisher.publish_acknowledged(&format!("in/{number}"), b"x")?;
            }
            let shown = broker.wait_plugin(name, "stopped", |shown| shown["status"] == "stopped")?;
            let said = shown["reason"].as_str().context("no reason")?.to_owned();
            ensure!(said.contains(reason), "{name}: {said}");
            ensure!(
                shown["counts"]["last_failure"]["reason"].as_str().is_some_and(|r| r.contains(reason)),
                "{shown:#}"
            );
            let logged = broker.log();
            let line = logged.lines().find(|line| line.contains("stopped: it keeps failing") && line.contains(name));
            ensure!(line.is_some_and(|line| line.contains(reason)), "{name} is not in the log: {logged}");
            broker.ok(&["plugin", "remove", name])?;
            Ok(())
        })
        .with_context(|| name)?;
        ensure!(streamed.messages > 10, "{name}: only {} messages went by", streamed.messages);
    }
    Ok(())
}

#[test]
fn a_publish_where_it_may_not_is_denied_counted_and_named() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let broker = Broker::start(&directory.path().join("data"))?;
    let mut watcher = Client::connect(broker.mqtt, "watcher", true)?;
    watcher.subscribe("#", 1)?;
    let streamed = beside_a_stream(&broker, || {
        broker.deploy(&guest("publishes_elsewhere"))?;
        Client::connect(broker.mqtt, "trigger", true)?.publish_acknowledged("in/a", b"x")?;
        let shown = broker.wait_plugin("publishes-elsewhere", "denied", |shown| {
            shown["counts"]["denied"].as_u64().is_some_and(|denied| denied > 0)
        })?;
        ensure!(!shown["counts"]["last_failure"].is_null() || shown["counts"]["handled"] == 1, "{shown:#}");
        let logged = broker.log();
        let named = |line: &&str| line.contains("publishes-elsewhere") && line.contains("not granted");
        ensure!(logged.lines().any(|line| named(&line)), "the denial is not in the log: {logged}");
        Ok(())
    })?;
    ensure!(streamed.messages > 0);
    while let Some((topic, _)) = watcher.receive_publish(Duration::from_millis(300))? {
        ensure!(topic == "stream" || topic == "in/a", "it was published all the same: {topic}");
    }
    Ok(())
}

#[test]
fn one_bad_event_in_a_batch_becomes_a_dead_letter_and_its_neighbours_are_handled() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let broker = Broker::start(&directory.path().join("data"))?;
    broker.deploy(&guest("ledger"))?;
    broker.ok(&["plugin", "pause", "ledger"])?;
    let mut publisher = Client::connect(broker.mqtt, "publisher", true)?;
    for payload in ["1", "2", "no number", "3"] {
        publisher.publish_acknowledged("in/k", payload.as_bytes())?;
    }
    let shown = broker.show("ledger")?;
    ensure!(shown["status"] == "paused" && shown["inbox_events"] == 4, "{shown:#}");
    broker.ok(&["plugin", "resume", "ledger"])?;
    let shown = broker.wait_plugin("ledger", "done", |shown| {
        shown["counts"]["handled"] == 3 && !shown["dead_letters"][0].is_null()
    })?;
    let letter = &shown["dead_letters"][0];
    ensure!(letter["topic"] == "in/k", "{shown:#}");
    ensure!(letter["reason"].as_str().is_some_and(|reason| reason.contains("no number")), "{shown:#}");
    ensure!(super::ledger::dump(broker.mqtt, &["k".to_owned()])?["k"] == [1, 2, 3]);
    Ok(())
}

#[test]
fn a_component_that_is_not_one_or_asks_for_more_is_refused_in_one_line() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let config = directory.path().join("vespiary.toml");
    std::fs::write(
        &config,
        "[plugins]\ngrants = \"explicit\"\ncomponent_bytes = 1000000\n\
         [plugin.ledger]\nsubscribes = [\"in/+\", \"dump/+\"]\npublishes = [\"out/+\", \"dumped/+\"]\n",
    )?;
    let broker = Broker::start_with(&directory.path().join("data"), &["--config", config.to_str().context("path")?])?;
    broker.deploy(&guest("ledger"))?;
    let file = |name: &str, bytes: &[u8]| -> Result<String> {
        let path = directory.path().join(name);
        std::fs::write(&path, bytes)?;
        Ok(path.to_str().context("path")?.to_owned())
    };
    let wasm_module = b"\0asm\x01\0\0\0";
    let truncated = std::fs::read(guest("ledger"))?[..40_000].to_vec();
    for (path, reason) in [
        (file("text.wasm", b"this is no component")?, "component"),
        (file("empty.wasm", b"")?, "component"),
        (file("module.wasm", wasm_module)?, "core WebAssembly module"),
        (file("truncated.wasm", &truncated)?, "component"),
        (file("large.wasm", &vec![0; 1_000_001])?, "1000001 bytes"),
        (guest("asks_for_more").to_str().context("path")?.to_owned(), "not granted"),
        (guest("echo").to_str().context("path")?.to_owned(), "not granted"),
    ] {
        let line = broker.refused(&["deploy", &path])?;
        ensure!(line.contains(reason), "{path}: {line}");
    }
    let line = broker.refused(&["deploy", "/nowhere/at-all.wasm"])?;
    ensure!(line.contains("/nowhere/at-all.wasm"), "{line}");
    ensure!(broker.show("ledger")?["status"] == "running");
    let mut client = Client::connect(broker.mqtt, "p", true)?;
    client.publish_acknowledged("in/k", b"1")?;
    ensure!(client.receive(Duration::ZERO)?.is_none());
    broker.wait_plugin("ledger", "done", |shown| shown["counts"]["handled"] == 1)?;
    Ok(())
}
