//! Swaps that are killed at each of their steps, that migrate, and that go back: exactly one revision is active afterwards, and no
//! event is lost, handled twice or out of order.
//!
//! The service (`guests::swaps`) takes a number only if it is one more than the last of its key, so that whatever is lost,
//! doubled or reordered becomes a dead letter, which these tests do not allow.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::client::Client;
use super::harness::{Broker, binary, guest};

/// Keys that events are spread over.
const KEYS: u32 = 10;

/// A broker that is killed and comes back, and what was published to it.
struct Plant {
    directory: tempfile::TempDir,
    broker: Option<Broker>,
    /// The last number published, and acknowledged, of each key.
    last: u32,
}

impl Plant {
    /// A broker with version 1 of the service, which has handled some events.
    fn start(settings: &str) -> Result<Self> {
        let mut plant = Self { directory: tempfile::tempdir()?, broker: None, last: 0 };
        plant.restart(settings)?;
        plant.broker().deploy(&guest("swaps"))?;
        plant.publish("in", 20)?;
        plant.handled(20 * KEYS)?;
        Ok(plant)
    }

    /// Starts the broker with these settings of the service.
    fn restart(&mut self, settings: &str) -> Result<()> {
        if let Some(broker) = self.broker.take() {
            broker.kill()?;
        }
        let config = self.directory.path().join("vespiary.toml");
        let common = "[plugins]\ncall_deadline_ms = 10000\nquiesce_ms = 5000\nbreaker_failures = 3\nattempts = 50\n";
        std::fs::write(&config, format!("{common}[plugin.swaps.config]\n{settings}\n"))?;
        let data = self.directory.path().join("data");
        self.broker = Some(Broker::start_with(&data, &["--config", config.to_str().context("path")?])?);
        Ok(())
    }

    fn broker(&self) -> &Broker {
        self.broker.as_ref().expect("it runs")
    }

    /// Publishes the next numbers of each key; all are acknowledged when this returns.
    fn publish(&mut self, kind: &str, count: u32) -> Result<()> {
        let mut publisher = Client::connect(self.broker().mqtt, "publisher", true)?;
        for _ in 0..count {
            self.last += 1;
            for key in 0..KEYS {
                publisher.publish_acknowledged(&format!("{kind}/{key}"), self.last.to_string().as_bytes())?;
            }
        }
        Ok(())
    }

    /// Waits until so many events have been handled since the broker started.
    fn handled(&self, count: u32) -> Result<()> {
        self.broker()
            .wait_plugin("swaps", "done", |shown| shown["counts"]["handled"].as_u64() >= Some(count.into()))?;
        Ok(())
    }

    /// Begins a deploy that nobody waits for.
    fn deploying(&self, component: &Path) -> Result<Child> {
        let mut command = Command::new(binary());
        command.arg("deploy").arg(component).env("VESPIARY_HTTP", self.broker().http.to_string());
        Ok(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?)
    }

    /// What the service knows of each key must be what was published; gives the version that says so.
    fn check(&self) -> Result<u32> {
        self.broker().wait_plugin("swaps", "through", |shown| shown["inbox_events"] == 0)?;
        let mut client = Client::connect(self.broker().mqtt, "checker", true)?;
        client.subscribe("dumped/+", 0)?;
        for key in 0..KEYS {
            client.publish(&format!("dump/{key}"), b"", 0, 0, false)?;
        }
        let mut versions = Vec::new();
        for _ in 0..KEYS {
            let (topic, payload) = client.receive_publish(super::harness::PATIENCE)?.context("no dump")?;
            let text = String::from_utf8(payload)?;
            let (last, version) = text.split_once(' ').context("no version")?;
            ensure!(last == self.last.to_string(), "{topic}: {last} instead of {}: {:#}", self.last, self.shown()?);
            versions.push(version.parse::<u32>()?);
        }
        versions.dedup();
        let shown = self.shown()?;
        ensure!(versions.len() == 1, "one version is active: {versions:?}");
        ensure!(shown["version"] == format!("{}.0.0", versions[0]), "{shown:#}");
        ensure!(shown["dead_letters"].as_array().is_none_or(Vec::is_empty), "{shown:#}");
        Ok(versions[0])
    }

    fn shown(&self) -> Result<Value> {
        self.broker().show("swaps")
    }

    /// Goes on after a kill: the broker comes back, more is published, all of it must be there, and the next deploy works.
    fn recover(&mut self) -> Result<u32> {
        self.restart("")?;
        self.publish("in", 3)?;
        let version = self.check()?;
        self.broker().deploy(&guest(if version == 3 { "swaps_migrated" } else { "swaps_same" }))?;
        self.publish("in", 3)?;
        self.check()?;
        Ok(version)
    }
}

#[test]
fn a_kill_while_a_component_comes_in_changes_nothing() -> Result<()> {
    let mut plant = Plant::start("")?;
    let mut deploying = plant.deploying(&guest("swaps_migrated"))?;
    std::thread::sleep(Duration::from_millis(2));
    plant.restart("")?;
    deploying.wait()?;
    plant.recover()?;
    Ok(())
}

#[test]
fn a_kill_while_new_code_warms_up_changes_nothing() -> Result<()> {
    let mut plant = Plant::start("init_ms = \"3000\"")?;
    let mut deploying = plant.deploying(&guest("swaps_migrated"))?;
    std::thread::sleep(Duration::from_millis(1_000));
    // The old revision serves.
    plant.publish("in", 2)?;
    plant.handled(22 * KEYS)?;
    plant.restart("")?;
    deploying.wait()?;
    ensure!(plant.recover()? == 1);
    Ok(())
}

#[test]
fn a_kill_while_state_is_migrated_changes_nothing() -> Result<()> {
    let mut plant = Plant::start("migrate_ms = \"3000\"")?;
    let mut deploying = plant.deploying(&guest("swaps_migrated"))?;
    std::thread::sleep(Duration::from_millis(1_500));
    plant.publish("in", 2)?;
    plant.handled(22 * KEYS)?;
    plant.restart("")?;
    deploying.wait()?;
    ensure!(plant.recover()? == 1);
    Ok(())
}

#[test]
fn a_kill_while_the_old_code_comes_to_rest_changes_nothing() -> Result<()> {
    let mut plant = Plant::start("handle_ms = \"3000\"")?;
    plant.last += 1;
    let mut publisher = Client::connect(plant.broker().mqtt, "publisher", true)?;
    for key in 0..KEYS {
        let kind = if key == 0 { "slow" } else { "in" };
        publisher.publish_acknowledged(&format!("{kind}/{key}"), plant.last.to_string().as_bytes())?;
    }
    let mut deploying = plant.deploying(&guest("swaps_same"))?;
    std::thread::sleep(Duration::from_millis(1_000));
    plant.publish("in", 1)?;
    plant.restart("")?;
    deploying.wait()?;
    ensure!(plant.recover()? == 1);
    Ok(())
}

#[test]
fn a_kill_around_the_switch_leaves_one_revision() -> Result<()> {
    let mut plant = Plant::start("")?;
    for round in 0..12 {
        let version = plant.check()?;
        let component = guest(if version == 3 { "swaps_migrated" } else { ["swaps", "swaps_same"][round % 2] });
        let mut deploying = plant.deploying(&component)?;
        plant.publish("in", 1)?;
        std::thread::sleep(Duration::from_millis(fastrand::u64(0..60)));
        plant.restart("")?;
        deploying.wait()?;
        plant.publish("in", 1)?;
        plant.check()?;
    }
    Ok(())
}

#[test]
fn a_kill_on_probation_goes_on_with_the_probation() -> Result<()> {
    let mut plant = Plant::start("")?;
    plant.broker().deploy(&guest("swaps_migrated"))?;
    plant.publish("in", 4)?;
    plant.handled(24 * KEYS)?;
    plant.restart("fails = \"yes\"")?;
    ensure!(plant.shown()?["version"] == "3.0.0");
    // It fails now, so that the probation ends with a rollback, which has to know of what was handled before the kill.
    plant.publish("in", 1)?;
    plant.broker().wait_plugin("swaps", "rolled back", |shown| shown["version"] == "1.0.0")?;
    ensure!(plant.check()? == 1);
    Ok(())
}

#[test]
fn a_failing_revision_goes_back_by_itself_with_code_and_state() -> Result<()> {
    for component in ["swaps_same", "swaps_migrated"] {
        let mut plant = Plant::start("fails = \"later\"")?;
        plant.broker().deploy(&guest(component))?;
        plant.publish("in", 6)?;
        plant.broker().wait_plugin("swaps", "rolled back", |shown| shown["version"] == "1.0.0")?;
        plant.publish("in", 2)?;
        ensure!(plant.check()? == 1, "{component}");
        ensure!(plant.shown()?["revision"] == 3, "{component}");
    }
    Ok(())
}

#[test]
fn a_kill_around_a_rollback_leaves_one_revision() -> Result<()> {
    for round in 0..6 {
        let mut plant = Plant::start("fails = \"later\"")?;
        plant.broker().deploy(&guest(["swaps_same", "swaps_migrated"][round % 2]))?;
        plant.publish("in", 5)?;
        std::thread::sleep(Duration::from_millis(fastrand::u64(0..300)));
        plant.restart("fails = \"later\"")?;
        plant.publish("in", 1)?;
        plant.broker().wait_plugin("swaps", "rolled back", |shown| shown["version"] == "1.0.0")?;
        plant.publish("in", 2)?;
        ensure!(plant.check()? == 1);
    }
    Ok(())
}

#[test]
fn a_swap_with_migration_under_load_loses_doubles_and_reorders_nothing() -> Result<()> {
    let mut plant = Plant::start("migrate_ms = \"500\"")?;
    let mut deploying = plant.deploying(&guest("swaps_migrated"))?;
    while deploying.try_wait()?.is_none() {
        plant.publish("in", 1)?;
    }
    ensure!(deploying.wait()?.success());
    plant.publish("in", 5)?;
    ensure!(plant.check()? == 3);
    Ok(())
}
