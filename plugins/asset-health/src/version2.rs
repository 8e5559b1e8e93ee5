//! Version 2 of the service: its handlers and its manifest, around [`Trend`].

use vespiary_sdk::prelude::*;

use crate::reading::RawReading;
use crate::service::{self, Maintained};
use crate::trend::Trend;

plugin! {
    name: "asset-health",
    version: "2.0.0",
    handlers: [vibration, maintained, registered, query],
    publishes: ["assets/+/alerts", "assets/+/health"],
    init: service::start,
}

#[on("assets/{asset}/vibration", qos = 1)]
fn vibration(cx: &mut Context, asset: &str, Json(reading): Json<RawReading<'_>>) -> Result<()> {
    service::vibration::<Trend>(cx, asset, &reading)
}

#[on("assets/{asset}/maintained", qos = 1)]
fn maintained(cx: &mut Context, asset: &str, Json(maintained): Json<Maintained>) -> Result<()> {
    service::maintained::<Trend>(cx, asset, &maintained)
}

#[on("registry/assets/{asset}", qos = 1)]
fn registered(cx: &mut Context, asset: &str) -> Result<()> {
    service::registered::<Trend>(cx, asset)
}

#[on("assets/{asset}/health/query", qos = 1)]
fn query(cx: &mut Context, asset: &str) -> Result<()> {
    service::query::<Trend>(cx, asset)
}
