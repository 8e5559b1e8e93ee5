//! Guests beyond their limits, and a plugin that is too slow: refused or stopped by name and reason, while a stream beside them
//! loses nothing.
//!
//! Those that spin, hog memory, trap and recurse are in `sandbox.rs`.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::super::conformance::packets::{self, Connect};
use super::super::conformance::peer::Peer;
use super::super::harness::{Broker, guest};
use super::super::sandbox::beside_a_stream;
use super::{OBEYS, Plant, heard, listener, publish, silence, text};

/// The stream's p99 may be this many times what it is without anything beside it; machines that run tests are noisy.
const TIMES: u32 = 10;
/// Nor is less than this taken for a delay.
const LEAST: Duration = Duration::from_millis(100);

/// Runs `during` beside a stream that loses nothing, and says how much slower the stream was.
fn beside(broker: &Broker, alone: Duration, name: &str, during: impl FnOnce() -> Result<()>) -> Result<()> {
    let streamed = beside_a_stream(broker, during).with_context(|| name.to_owned())?;
    println!("{name}: {} messages beside it, p99 {:?} (alone {alone:?})", streamed.messages, streamed.p99);
    ensure!(streamed.p99 <= (alone * TIMES).max(LEAST), "{name}: p99 {:?} instead of {alone:?}", streamed.p99);
    Ok(())
}

/// The stream with nothing beside it.
fn alone(broker: &Broker) -> Result<Duration> {
    let wait = || {
        std::thread::sleep(Duration::from_secs(1));
        Ok(())
    };
    Ok(beside_a_stream(broker, wait)?.p99)
}

#[test]
fn floods_are_cut_off_by_name_and_reason_beside_a_stream_that_loses_nothing() -> Result<()> {
    let plant =
        Plant::start("[plugins]\nattempts = 1\nlog_lines_per_s = 50\n[plugin.floods-state]\nstate_bytes = 100000\n")?;
    let broker = plant.broker();
    let alone = alone(broker)?;
    for (file, name, reason) in
        [("floods_publishes", "floods-publishes", "after 10000"), ("floods_state", "floods-state", "QuotaExceeded")]
    {
        beside(broker, alone, name, || {
            broker.deploy(&guest(file))?;
            for number in 0..3 {
                publish(broker, &format!("in/{number}"), "x")?;
            }
            let shown = broker.wait_plugin(name, "done", |shown| shown["usage"]["dead_letters"] == 3)?;
            let said = shown["dead_letters"][0]["reason"].as_str().context("no reason")?.to_owned();
            ensure!(said.contains(reason), "{said}");
            // Nothing of it is there.
            ensure!(shown["counts"]["published"] == 0 && shown["usage"]["state_bytes"] == 0, "{shown:#}");
            broker.ok(&["plugin", "remove", name])?;
            Ok(())
        })?;
    }
    beside(broker, alone, "floods-logs", || {
        broker.deploy(&guest("floods_logs"))?;
        publish(broker, "in/a", "x")?;
        broker.wait_plugin("floods-logs", "done", |shown| shown["counts"]["handled"] == 1)?;
        let logged = broker.ok(&["plugin", "logs", "floods-logs"])?;
        ensure!(logged.lines().count() < 500, "{} lines", logged.lines().count());
        // The next line says how many are missing.
        std::thread::sleep(Duration::from_millis(1_100));
        publish(broker, "in/a", "x")?;
        broker.wait_plugin("floods-logs", "done", |shown| shown["counts"]["handled"] == 2)?;
        let logged = broker.ok(&["plugin", "logs", "floods-logs"])?;
        ensure!(logged.contains("dropped"), "it is not said that lines were dropped: {logged}");
        broker.ok(&["plugin", "remove", "floods-logs"])?;
        Ok(())
    })
}

#[test]
fn components_that_must_not_run_are_refused_by_name_and_reason_beside_a_stream_that_loses_nothing() -> Result<()> {
    let plant = Plant::start(
        "[plugins]\ngrants = \"explicit\"\ncomponent_bytes = 3000000\n\
         [plugin.fails-health]\nsubscribes = [\"in/#\"]\n[plugin.slow-init]\nsubscribes = [\"in/#\"]\n\
         [plugin.fails-init]\nsubscribes = [\"in/#\"]\n[plugin.imports-more]\nsubscribes = [\"in/#\"]\n",
    )?;
    let broker = plant.broker();
    let huge = plant.directory.path().join("huge.wasm");
    std::fs::write(&huge, vec![0; 3_000_001])?;
    let alone = alone(broker)?;
    for (component, reason) in [
        (guest("asks_for_more"), "not granted"),
        (guest("old_contract"), "0.0.9"),
        (guest("imports_more"), "acme:machines/gpio"),
        (huge, "3000001 bytes"),
        (guest("fails_init"), "does not start"),
        (guest("fails_health"), "calibration is out of date"),
        (guest("slow_init"), "deadline"),
    ] {
        let name = component.file_stem().context("a name")?.to_string_lossy().into_owned();
        beside(broker, alone, &name, || {
            let line = broker.refused(&["deploy", text(&component)?])?;
            ensure!(line.contains(reason), "{line}");
            ensure!(broker.ok(&["plugin", "list", "--json"])?.trim() == "[]");
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn a_migration_that_fails_leaves_code_and_state_as_they_were_beside_a_stream_that_loses_nothing() -> Result<()> {
    let plant = Plant::start("")?;
    let broker = plant.broker();
    plant.deploy("obeys", "migrates", OBEYS)?;
    let mut listening = listener(broker, "listener")?;
    let component = guest("migrates");
    let alone = alone(broker)?;
    for (keys, reason) in [
        (&["panic"][..], "cannot stand the key panic"),
        (&["error"], "no form for error"),
        (&["short"], "migrate"),
        (&["long"], "512"),
        (&["twice", "again"], "same"),
    ] {
        beside(broker, alone, &format!("migrates {keys:?}"), || {
            let commands: Vec<_> = keys.iter().map(|key| format!("set {key} x")).collect();
            publish(broker, "in/a", &format!("{}\nscan - - 9", commands.join("\n")))?;
            heard(&mut listening, "out/scan")?;
            let line = broker.refused(&["deploy", text(&component)?])?;
            ensure!(line.contains(reason), "{keys:?}: {line}");
            let shown = broker.show("migrates")?;
            ensure!(shown["version"] == "1.0.0" && shown["state_version"] == 1, "{shown:#}");
            for key in keys {
                publish(broker, "in/a", &format!("get {key}\ndelete {key}"))?;
                ensure!(heard(&mut listening, "out/get")? == "x");
            }
            Ok(())
        })?;
    }
    // And one that does not fail goes through.
    publish(broker, "in/a", "set drop x\nset split y\nset other z")?;
    broker.deploy(&component)?;
    ensure!(broker.show("migrates")?["state_version"] == 2);
    silence(&mut listening)
}

#[test]
fn a_slow_plugin_holds_back_its_own_publishers_and_nobody_else() -> Result<()> {
    let plant = Plant::start("[limits]\ninbox_events = 40\n[plugins]\ncall_deadline_ms = 10000\n")?;
    let broker = plant.broker();
    plant.deploy("obeys", "obeys", OBEYS)?;
    let alone = alone(broker)?;
    let (mut publisher, _) = Peer::join_at(broker.mqtt, &Connect::new(5, "publisher"));
    beside(broker, alone, "a slow plugin", || {
        publish(broker, "in/a", "sleep 3000")?;
        let began = Instant::now();
        let mut accepted = 1;
        let refused = loop {
            publisher.send(&packets::publish(5, 0x32, "in/a", 5, b"add handled 1"));
            let packet = publisher.packet();
            ensure!(packet[0] == 0x40 && packet[2..4] == [0, 5], "{packet:02x?}");
            match packet.get(4).copied().unwrap_or(0) {
                reason @ 0x80.. => break reason,
                _ => accepted += 1,
            }
            ensure!(accepted < 200, "nothing holds it back");
        };
        ensure!(refused == 0x97, "{refused:#x} instead of Quota exceeded");
        ensure!(accepted == 40, "{accepted} events are in an inbox of 40");
        // The same client's other topics, and QoS 2 to the inbox too.
        publisher.publish_completely("elsewhere", b"x", 1);
        publisher.send(&packets::publish(5, 0x34, "in/a", 6, b"add handled 1"));
        publisher.expect_acknowledgement(0x50, 6, 0x97);
        // A 3.1.1 client cannot be told, and keeps the message: there is no PUBACK.
        let (mut old, _) = Peer::join_at(broker.mqtt, &Connect::new(4, "old"));
        old.send(&packets::publish(4, 0x32, "in/a", 7, b"add handled 1"));
        old.expect_end();
        ensure!(began.elapsed() < Duration::from_secs(3), "the plugin was done before: {:?}", began.elapsed());
        // When it is through, publishers may go on.
        broker.wait_plugin("obeys", "through", |shown| shown["inbox_events"] == 0)?;
        publisher.publish_acknowledged("in/a", b"get handled");
        Ok(())
    })?;
    let shown = broker.wait_plugin("obeys", "through", |shown| shown["counts"]["handled"] == 41)?;
    ensure!(shown["usage"]["dead_letters"] == 0 && shown["limits"]["inbox_events"] == 40, "{shown:#}");
    let mut listening = listener(broker, "listener")?;
    publish(broker, "in/a", "get handled")?;
    ensure!(heard(&mut listening, "out/get")? == "39");
    Ok(())
}
