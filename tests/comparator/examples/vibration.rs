//! The service as a plugin: the same rules, and nothing else that a service outside of the broker has to do.

use comparator::vibration::{Reading, Record};
use vespiary_sdk::prelude::*;

plugin! {
    name: "vibration",
    version: "1.0.0",
    handlers: [vibration, inspect],
    publishes: ["assets/+/alerts", "assets/+/record"],
}

#[on("assets/{asset}/vibration", qos = 1)]
fn vibration(cx: &mut Context, asset: &str, Json(reading): Json<Reading<'_>>) -> Result<()> {
    let mut record = record(cx, asset)?;
    let alert = record.observe(&reading);
    cx.state().set_bytes(asset, &record.to_bytes())?;
    match alert {
        Some(alert) => cx.publish(format!("assets/{asset}/alerts"), Json(&alert)),
        None => Ok(()),
    }
}

#[on("assets/{asset}/inspect", qos = 1)]
fn inspect(cx: &mut Context, asset: &str) -> Result<()> {
    cx.publish(format!("assets/{asset}/record"), Json(&record(cx, asset)?.answer(asset)))
}

fn record(cx: &Context, asset: &str) -> Result<Record> {
    match cx.state().get_bytes(asset)? {
        None => Ok(Record::default()),
        Some(bytes) => Record::from_bytes(&bytes).ok_or_else(|| Error::reject("the record is no record")),
    }
}
