//! What clients may do to the shipped binary, and what it stays true to meanwhile: crowds that come and go, peers that
//! misbehave, and the bounds of a configuration file.
//!
//! Facts alone are asserted: what was delivered, what a counter or the log says, how many bytes are resident. Nothing here
//! depends on how fast this machine is.

mod crowds;
mod misbehaving;
mod quotas;

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use super::harness::Broker;

/// A broker with this configuration file, and the directory of its data.
fn configured(text: &str) -> Result<(Broker, TempDir)> {
    let directory = tempfile::tempdir()?;
    let config = directory.path().join("config.toml");
    std::fs::write(&config, text)?;
    let config = config.to_str().context("a path of this machine")?;
    Ok((Broker::start_with(&directory.path().join("data"), &["--config", config])?, directory))
}

/// A counter of `GET /api/v1/status`.
fn counter(broker: &Broker, group: &str, name: &str) -> Result<u64> {
    let status = broker.status()?;
    status[group][name].as_u64().with_context(|| format!("no counter {group}.{name} in {status:#}"))
}

/// A field of the broker's `/proc/PID/status` in bytes: `VmRSS` is what is resident, `VmHWM` the most that ever was.
fn memory(broker: &Broker, field: &str) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", broker.pid()))?;
    let line = status.lines().find(|line| line.starts_with(field)).with_context(|| format!("no {field}"))?;
    let kilobytes: u64 = line.split_whitespace().nth(1).context("no value")?.parse()?;
    Ok(kilobytes << 10)
}
