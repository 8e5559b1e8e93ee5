//! A small plugin: remembers each room's highest temperature and announces a new one.
//!
//! `cargo build -p vespiary-sdk --example thermometer --target wasm32-wasip2 --profile component` makes the component.

use vespiary_sdk::prelude::*;

plugin! {
    name: "thermometer",
    description: "Remembers each room's highest temperature.",
    handlers: [temperature],
    publishes: ["rooms/+/record"],
}

/// What a thermometer sends.
#[derive(Deserialize)]
struct Reading {
    /// The temperature.
    celsius: f64,
}

/// What is kept for a room, and announced when it changes.
#[derive(Default, Serialize, Deserialize)]
struct Record {
    /// The highest temperature so far.
    celsius: f64,
    /// When it was measured.
    at: Timestamp,
    /// Readings so far.
    readings: u64,
}

#[on("rooms/{room}/temperature")]
fn temperature(cx: &mut Context, room: &str, Json(reading): Json<Reading>) -> Result<()> {
    let mut record: Record = cx.state().get_or_default(room)?;
    record.readings += 1;
    let higher = record.readings == 1 || reading.celsius > record.celsius;
    if higher {
        record.celsius = reading.celsius;
        record.at = cx.now();
        cx.publish(format!("rooms/{room}/record"), Json(&record))?;
    }
    cx.state().set(room, &record)?;
    Ok(())
}
