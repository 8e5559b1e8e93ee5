//! The same small service in other languages, built by their tools, given a manifest by `vespiary embed`, and run.
//!
//! The tools are fetched from npm and PyPI; where they cannot be had, a line says so and the test passes.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::client::{Client, Packet};
use super::harness::{Broker, PATIENCE, root, run_limited};
use super::tools;

/// How long a tool may take to make a component.
const BUILD: Duration = Duration::from_secs(300);

/// Where an example stands.
fn example(language: &str) -> PathBuf {
    root().join("plugins/examples").join(language)
}

/// Builds with a command that writes to `component`, and embeds the manifest.
fn build(broker: &Broker, language: &str, command: &mut Command, component: &Path) -> Result<()> {
    let output = run_limited(command.current_dir(example(language)), BUILD)?;
    ensure!(output.status.success(), "{language}: {}", String::from_utf8_lossy(&output.stderr));
    let manifest = example(language).join("manifest.json");
    let (manifest, component) = (manifest.to_str().context("path")?, component.to_str().context("path")?);
    // A second time: a manifest that is there is replaced.
    broker.ok(&["embed", "--manifest", manifest, component])?;
    broker.ok(&["embed", "--manifest", manifest, component])?;
    Ok(())
}

fn broker(directory: &Path) -> Result<Broker> {
    let config = directory.join("vespiary.toml");
    // An interpreter and its library are large, and take a while to compile.
    let plugin = "config = { limit_mm_s = \"12.5\" }\n";
    let plugins = format!("[plugin.peak-watch-js]\n{plugin}[plugin.peak-watch-py]\n{plugin}");
    std::fs::write(&config, format!("[plugins]\ncomponent_bytes = 33554432\n{plugins}"))?;
    Broker::start_with(&directory.join("data"), &["--config", config.to_str().context("path")?])
}

/// What the service has to do, whatever it is written in.
fn works(broker: &Broker, plugin: &str, component: &Path) -> Result<()> {
    broker.deploy(component)?;
    let mut subscriber = Client::connect(broker.mqtt, "alerts", true)?;
    subscriber.subscribe("assets/+/alerts", 1)?;
    let mut publisher = Client::connect(broker.mqtt, "sensor", true)?;
    for (asset, reading) in [
        ("pump-1", r#"{"mm_s":3}"#),
        ("pump-1", r#"{"mm_s":14.5}"#),
        ("pump-2", r#"{"mm_s":13}"#),
        ("pump-1", r#"{"mm_s":14.5}"#),
        ("pump-1", "not JSON"),
        ("pump-1", r#"{"mm_s":20}"#),
    ] {
        publisher.publish_acknowledged(&format!("assets/{asset}/vibration"), reading.as_bytes())?;
    }
    let mut alerts = Vec::new();
    while alerts.len() < 3 {
        let Some(Packet::Publish { topic, payload, packet_id, .. }) = subscriber.receive(PATIENCE)? else {
            anyhow::bail!("after {alerts:?} there is no alert")
        };
        subscriber.puback(packet_id)?;
        let alert: Value = serde_json::from_slice(&payload)?;
        alerts.push(format!("{topic} {} {}", alert["mm_s"], alert["readings"]));
    }
    // Between topics there is no order.
    alerts.sort();
    let expected = ["assets/pump-1/alerts 14.5 2", "assets/pump-1/alerts 20 4", "assets/pump-2/alerts 13 1"];
    ensure!(alerts == expected, "{alerts:?}");
    let shown = broker.wait_plugin(plugin, "done with all", |shown| shown["counts"]["handled"] == 5)?;
    ensure!(shown["counts"]["dead_lettered"] == 1, "{shown:#}");
    ensure!(shown["dead_letters"][0]["reason"].as_str().is_some_and(|reason| reason.contains("mm_s")), "{shown:#}");
    let log = broker.ok(&["plugin", "logs", plugin])?;
    ensure!(log.contains("pump-1: 14.5 mm/s"), "{log}");
    Ok(())
}

#[test]
fn a_service_in_javascript_runs() -> Result<()> {
    let Some(tool) = tools::componentize_js() else { return Ok(()) };
    let directory = tempfile::tempdir()?;
    let broker = broker(directory.path())?;
    let component = directory.path().join("peak-watch.wasm");
    let mut command = Command::new(tool);
    command.args(["--wit", "../../../wit", "--world-name", "plugin", "-o"]).arg(&component).arg("peak-watch.js");
    command.args(["--disable", "stdio", "random", "clocks", "http", "fetch-event"]);
    build(&broker, "javascript", &mut command, &component)?;
    works(&broker, "peak-watch-js", &component)
}

#[test]
fn a_service_in_python_runs() -> Result<()> {
    let Some(tool) = tools::componentize_py() else { return Ok(()) };
    let directory = tempfile::tempdir()?;
    let broker = broker(directory.path())?;
    let component = directory.path().join("peak_watch.wasm");
    let mut command = Command::new(tool);
    command.args(["--quiet", "--wit-path", "../../../wit", "--world", "plugin", "componentize", "-o"]);
    command.arg(&component).arg("peak_watch").env("PYTHONDONTWRITEBYTECODE", "1");
    build(&broker, "python", &mut command, &component)?;
    works(&broker, "peak-watch-py", &component)
}

#[test]
fn a_manifest_is_embedded_in_the_place_of_another_unless_a_broker_would_refuse_it() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let broker = Broker::start(&directory.path().join("data"))?;
    let file = |name: &str, bytes: &[u8]| -> Result<String> {
        let path = directory.path().join(name);
        std::fs::write(&path, bytes)?;
        Ok(path.to_str().context("path")?.to_owned())
    };
    let good = file("good.json", br#"{"manifest":1,"name":"renamed","version":"2"}"#)?;
    let bad = file("bad.json", b"{\"manifest\":1,\n\"name\":\"Bad Name\",\"version\":\"2\"}")?;
    let component = file("plugin.wasm", &std::fs::read(super::harness::guest("obeys"))?)?;
    let script = file("script.wasm", b"#!/bin/sh\n")?;
    for (manifest, target, expected) in [
        (&bad, &component, "name is refused"),
        (&good, &script, "is not a WebAssembly component"),
        (&file("none.json", b"")?, &component, "malformed"),
    ] {
        let refused = broker.refused(&["embed", "--manifest", manifest, target])?;
        ensure!(refused.contains(expected), "{refused}");
    }
    // The compiler has left its own in the core module within: it makes room.
    broker.ok(&["embed", "--manifest", &good, &component])?;
    broker.deploy(component.as_ref())?;
    ensure!(broker.show("renamed")?["version"] == "2");
    Ok(())
}
