//! Knows each asset's latest reading, and which assets have fallen silent.
//!
//! Silence makes no event, so other assets' readings carry the time forward; see [`fleet`]. State: `fleet`, and `asset/{asset}`
//! for each asset.

pub mod fleet;
pub mod watch;

use std::borrow::Cow;
use std::cell::Cell;

use vespiary_sdk::prelude::*;

use crate::fleet::{Counts, Fleet};
use crate::watch::{Latest, State as Availability, Watch};

/// The longest name of an asset, in bytes: it becomes part of a key.
const MAX_NAME_BYTES: usize = 128;

/// The least and the most that may be configured as the time after which an asset is silent.
const SILENT_AFTER_MS: std::ops::RangeInclusive<u64> = 10..=7 * 24 * 3_600_000;

thread_local! {
    /// Set by [`start`], before anything else runs: an instance has one thread and one configuration.
    static SILENT_AFTER: Cell<u64> = const { Cell::new(5_000) };
}

plugin! {
    name: "asset-monitoring",
    handlers: [vibration, registered, query],
    publishes: ["assets/+/availability", "fleet/availability"],
    init: start,
}

/// What this service reads of the payload of `assets/{asset}/vibration`.
#[derive(Debug, Deserialize)]
struct Reading<'payload> {
    /// The asset that was measured; repeats the topic.
    #[serde(borrow)]
    asset: Cow<'payload, str>,
    /// The sensor's own count of its readings.
    seq: u64,
    /// When it was measured; milliseconds since the Unix epoch, by the sensor's clock.
    ts: u64,
    /// Vibration velocity in mm/s RMS.
    mm_s: f64,
    /// Temperature in degrees Celsius.
    temperature_c: Option<f64>,
    /// Speed in revolutions a minute.
    rpm: Option<f64>,
}

/// What this service reads of the payload of `registry/assets/{asset}`.
#[derive(Debug, Deserialize)]
struct Registration {
    /// The least time after which this asset is silent, in milliseconds.
    silent_after_ms: Option<u64>,
}

/// The payload of `assets/{asset}/availability`.
#[derive(Debug, Serialize)]
struct AssetAvailability<'a> {
    /// The state as an event: what happened when it was entered.
    event: &'static str,
    /// The asset.
    asset: &'a str,
    /// Its state.
    state: Availability,
    /// Since when; milliseconds since the Unix epoch.
    since_ts: u64,
    /// How long it may be unheard of, in milliseconds.
    silent_after_ms: u64,
    /// Readings received.
    readings: u64,
    /// Times that it fell silent.
    silences: u64,
    /// The reading that was measured last.
    latest: Option<&'a Latest>,
}

/// The payload of `fleet/availability`.
#[derive(Debug, Serialize)]
struct FleetAvailability {
    /// How many assets are in which state.
    #[serde(flatten)]
    counts: Counts,
    /// When that changed; milliseconds since the Unix epoch.
    ts: u64,
}

fn start(config: &Config) -> Result<()> {
    SILENT_AFTER.set(checked_silence(config.parse_or("silent_after_ms", 5_000)?)?);
    Ok(())
}

#[on("assets/{asset}/vibration", qos = 1)]
fn vibration(cx: &mut Context, asset: &str, Json(reading): Json<Reading<'_>>) -> Result<()> {
    if reading.asset != asset {
        return Err(Error::reject(format!("reading of {:?} published for {asset:?}", reading.asset)));
    }
    let key = asset_key(asset)?;
    let now = cx.now().as_millis();
    let silent_after_ms = SILENT_AFTER.get();
    let mut fleet: Fleet = cx.state().get_or_default("fleet")?;
    let counts = fleet.counts;
    let is_time_to_look = fleet.hear(now, silent_after_ms);
    let mut watch: Watch = cx.state().get_or_default(&key)?;
    let before = watch.state;
    let Reading { seq, ts, mm_s, temperature_c, rpm, .. } = reading;
    let latest = Latest { seq, ts, received_ts: now, mm_s, temperature_c, rpm };
    if watch.hear(latest, fleet.clock_ms, silent_after_ms) {
        fleet.counts.change(before, watch.state);
        tell(cx, asset, &watch)?;
    }
    cx.state().set(&key, &watch)?;
    if is_time_to_look {
        look(cx, &mut fleet)?;
    }
    store_fleet(cx, &fleet, counts)
}

#[on("registry/assets/{asset}", qos = 1)]
fn registered(cx: &mut Context, asset: &str) -> Result<()> {
    let key = asset_key(asset)?;
    if cx.event().payload().is_empty() {
        // Taken out of service: nobody is to wait for it any longer.
        let mut fleet: Fleet = cx.state().get_or_default("fleet")?;
        let counts = fleet.counts;
        let watch: Watch = cx.state().get_or_default(&key)?;
        fleet.counts.change(watch.state, Availability::Unknown);
        cx.state().delete(key)?;
        cx.message(format!("assets/{asset}/availability"), "").retain().publish()?;
        return store_fleet(cx, &fleet, counts);
    }
    let registration: Registration = cx.event().json()?;
    let silent_after_ms = registration.silent_after_ms.map(checked_silence).transpose()?;
    Ok(cx.state().update(key, |watch: &mut Watch| watch.silent_after_ms = silent_after_ms)?)
}

#[on("assets/{asset}/availability/query", qos = 1)]
fn query(cx: &mut Context, asset: &str) -> Result<()> {
    let watch: Watch = cx.state().get_or_default(asset_key(asset)?)?;
    tell(cx, asset, &watch)
}

/// Looks at all assets for some that have fallen silent.
fn look(cx: &Context, fleet: &mut Fleet) -> Result<()> {
    let watches: Vec<(String, Watch)> = cx.state().scan("asset/")?;
    for (key, mut watch) in watches {
        let (before, stored) = (watch.state, watch.clone());
        if watch.look(fleet.clock_ms, SILENT_AFTER.get(), cx.now().as_millis()) {
            fleet.counts.change(before, watch.state);
            tell(cx, key.trim_start_matches("asset/"), &watch)?;
        }
        if watch != stored {
            cx.state().set(key, &watch)?;
        }
    }
    Ok(())
}

/// Publishes the availability of an asset, as the topic's retained message.
fn tell(cx: &Context, asset: &str, watch: &Watch) -> Result<()> {
    let message = AssetAvailability {
        event: match watch.state {
            Availability::Unknown => "AssetUnknown",
            Availability::Available => "AssetAvailable",
            Availability::Silent => "AssetSilent",
            Availability::Unstable => "AssetUnstable",
        },
        asset,
        state: watch.state,
        since_ts: watch.since_ts,
        silent_after_ms: watch.limit_ms(SILENT_AFTER.get()),
        readings: watch.readings,
        silences: watch.silences,
        latest: watch.latest.as_ref(),
    };
    cx.message(format!("assets/{asset}/availability"), Json(&message)).retain().publish()
}

/// Stores the fleet, and publishes its counts if they are no longer `before`.
fn store_fleet(cx: &Context, fleet: &Fleet, before: Counts) -> Result<()> {
    cx.state().set("fleet", fleet)?;
    if fleet.counts == before {
        return Ok(());
    }
    let message = FleetAvailability { counts: fleet.counts, ts: cx.now().as_millis() };
    cx.message("fleet/availability", Json(&message)).retain().publish()
}

fn checked_silence(silent_after_ms: u64) -> Result<u64> {
    if SILENT_AFTER_MS.contains(&silent_after_ms) {
        Ok(silent_after_ms)
    } else {
        Err(Error::reject(format!("`silent_after_ms` of {silent_after_ms} is outside {SILENT_AFTER_MS:?}")))
    }
}

fn asset_key(asset: &str) -> Result<String> {
    if (1..=MAX_NAME_BYTES).contains(&asset.len()) {
        Ok(format!("asset/{asset}"))
    } else {
        Err(Error::reject(format!("an asset's name has 1 to {MAX_NAME_BYTES} bytes")))
    }
}
