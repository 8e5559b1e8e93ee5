//! The service around [`Health`]: what its handlers do, whichever detector they work with.
//!
//! Each asset's health is one value of the plugin's state, at `asset/{asset}`. It is stored in the transaction of the event
//! that changed it, so the ledger in it cannot disagree with what was handled.

use std::cell::Cell;

use serde::de::DeserializeOwned;
use vespiary_sdk::prelude::*;

use crate::alert::Alert;
use crate::health::{Detector, Health, Outcome, Settings};
use crate::reading::{RawReading, checked_name};
use crate::severity::ZoneBorders;

/// The longest text that a query can have repeated, in bytes.
const MAX_REQUEST_BYTES: usize = 256;

thread_local! {
    /// Set by [`start`], before anything else runs: an instance has one thread and one configuration.
    static SETTINGS: Cell<Settings> = Cell::new(Settings::default());
}

/// A detector whose state can be stored.
pub trait Stored: Detector + Serialize + DeserializeOwned {}

impl<D: Detector + Serialize + DeserializeOwned> Stored for D {}

/// The payload of `assets/{asset}/health/query`; may be left out.
#[derive(Debug, Default, Deserialize)]
pub struct Query {
    /// What the answer is to repeat, so that it is told from others.
    request: Option<String>,
}

/// The payload of `assets/{asset}/maintained`.
#[derive(Debug, Deserialize)]
pub struct Maintained {
    /// What was done.
    outcome: Outcome,
    /// When; milliseconds since the Unix epoch.
    ts: u64,
}

/// What this service reads of the payload of `registry/assets/{asset}`.
#[derive(Debug, Deserialize)]
struct Registration {
    /// Zone borders in mm/s RMS.
    zone_borders_mm_s: Option<ZoneBorders>,
}

/// Reads the configuration, and refuses one that makes no sense.
pub fn start(config: &Config) -> Result<()> {
    let defaults = Settings::default();
    let mut settings = Settings {
        warm_up_readings: config.parse_or("warm_up_readings", defaults.warm_up_readings)?,
        suspicious_sigmas: config.parse_or("suspicious_sigmas", defaults.suspicious_sigmas)?,
        calm_sigmas: config.parse_or("calm_sigmas", defaults.calm_sigmas)?,
        patience: defaults.patience,
    };
    settings.patience.raise = config.parse_or("raise_after_readings", defaults.patience.raise)?;
    settings.patience.clear = config.parse_or("clear_after_readings", defaults.patience.clear)?;
    SETTINGS.set(settings.checked().or_reject()?);
    Ok(())
}

/// Handles a reading.
pub fn vibration<D: Stored>(cx: &Context, asset: &str, reading: &RawReading<'_>) -> Result<()> {
    let reading = reading.understand(asset).or_reject()?;
    let settings = SETTINGS.get();
    change::<D>(cx, asset, |health| health.observe(asset, reading, cx.event().payload(), &settings))
}

/// Handles the news that an asset was worked on.
pub fn maintained<D: Stored>(cx: &Context, asset: &str, maintained: &Maintained) -> Result<()> {
    change::<D>(cx, asset, |health| health.maintained(asset, maintained.outcome, maintained.ts))
}

/// Handles what is told of an asset; an empty payload takes it back.
pub fn registered<D: Stored>(cx: &Context, asset: &str) -> Result<()> {
    let registration: Option<Registration> =
        if cx.event().payload().is_empty() { None } else { Some(cx.event().json()?) };
    change::<D>(cx, asset, |health| {
        health.borders = registration.and_then(|registration| registration.zone_borders_mm_s);
        None
    })
}

/// Answers with the asset's summary, which stays as the topic's retained message.
pub fn query<D: Stored>(cx: &Context, asset: &str) -> Result<()> {
    let query: Query = if cx.event().payload().is_empty() { Query::default() } else { cx.event().json()? };
    if query.request.as_ref().is_some_and(|request| request.len() > MAX_REQUEST_BYTES) {
        return Err(Error::reject(format!("the request is longer than {MAX_REQUEST_BYTES} bytes")));
    }
    let health: Health<D> = cx.state().get_or_default(key(asset)?)?;
    let summary = health.summary(asset, query.request, &SETTINGS.get());
    cx.message(format!("assets/{asset}/health"), Json(&summary)).retain().publish()
}

/// Changes an asset's health, and publishes the alert that the change gives, if any.
fn change<D: Stored>(cx: &Context, asset: &str, change: impl FnOnce(&mut Health<D>) -> Option<Alert>) -> Result<()> {
    let alert = cx.state().update(key(asset)?, change)?;
    match alert {
        Some(alert) => cx.publish(format!("assets/{asset}/alerts"), Json(&alert)),
        None => Ok(()),
    }
}

fn key(asset: &str) -> Result<String> {
    Ok(format!("asset/{}", checked_name(asset).or_reject()?))
}
