//! Version 1 of the service: its handlers and its manifest, around [`Deviation`].

use vespiary_sdk::prelude::*;

use crate::deviation::Deviation;
use crate::reading::RawReading;
use crate::service::{self, Maintained};

plugin! {
    name: "asset-health",
    version: "1.0.0",
    handlers: [vibration, maintained, registered, query],
    publishes: ["assets/+/alerts", "assets/+/health"],
    init: service::start,
}

#[on("assets/{asset}/vibration", qos = 1)]
fn vibration(cx: &mut Context, asset: &str, Json(reading): Json<RawReading<'_>>) -> Result<()> {
    service::vibration::<Deviation>(cx, asset, &reading)
}

#[on("assets/{asset}/maintained", qos = 1)]
fn maintained(cx: &mut Context, asset: &str, Json(maintained): Json<Maintained>) -> Result<()> {
    service::maintained::<Deviation>(cx, asset, &maintained)
}

#[on("registry/assets/{asset}", qos = 1)]
fn registered(cx: &mut Context, asset: &str) -> Result<()> {
    service::registered::<Deviation>(cx, asset)
}

#[on("assets/{asset}/health/query", qos = 1)]
fn query(cx: &mut Context, asset: &str) -> Result<()> {
    service::query::<Deviation>(cx, asset)
}
