//! One simulated machine: an MQTT client that publishes what its sensor measures, on time, and remembers what it sent.

use std::time::{Duration, Instant};

use anyhow::ensure;
use vespiary_core::Qos;

use super::plant::Plant;
use crate::mqtt::client::{Client, ConnectOptions, Publish};

/// When a machine publishes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schedule {
    /// When tick 0 is.
    pub(super) started: Instant,
    /// Time between two ticks.
    pub(super) interval: Duration,
    /// How many there are.
    pub(super) ticks: u64,
}

/// What a machine sent and was acknowledged.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    /// The machine.
    pub(super) asset: String,
    /// Readings sent; all are acknowledged.
    pub(super) readings: u64,
    /// Hash over all payloads in the order in which they were sent; see [`chained`].
    pub(super) chain: u64,
}

/// Publishes every reading at its time with QoS 1, and waits until all are acknowledged.
pub(super) async fn run(plant: &Plant, number: usize, address: &str, schedule: Schedule) -> anyhow::Result<Sent> {
    let asset = &plant.machines()[number].asset;
    let mut client = Client::connect(ConnectOptions::new(address).client_id(asset)).await?;
    let topic = format!("assets/{asset}/vibration");
    let mut chain = EMPTY_CHAIN;
    let mut receipts = Vec::new();
    // Machines do not measure in step: each has its own share of the interval.
    let offset = schedule.interval * u32::try_from(number)? / u32::try_from(plant.machines().len())?;
    for tick in 0..schedule.ticks {
        let due = schedule.started + schedule.interval * u32::try_from(tick)? + offset;
        tokio::time::sleep_until(due.into()).await;
        let payload = serde_json::to_vec(&plant.reading(number, tick))?;
        chain = chained(chain, &payload);
        receipts.push(client.start(Publish::new(topic.clone(), payload).qos(Qos::AtLeastOnce)).await?);
    }
    for receipt in receipts {
        let reason = receipt.done().await?;
        ensure!(!reason.is_error(), "the broker refused a reading of {asset}: {reason}");
    }
    client.disconnect().await?;
    Ok(Sent { asset: asset.clone(), readings: schedule.ticks, chain })
}

/// The chain over no payload: the offset basis of 64-bit FNV-1a.
const EMPTY_CHAIN: u64 = 0xcbf2_9ce4_8422_2325;

/// The chain after `payload`: 64-bit FNV-1a over its length (8 bytes, little-endian) and itself. asset-health computes
/// the same over what it handled; see docs/guide/asset-management.md.
fn chained(chain: u64, payload: &[u8]) -> u64 {
    let length = (payload.len() as u64).to_le_bytes();
    length.iter().chain(payload).fold(chain, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
