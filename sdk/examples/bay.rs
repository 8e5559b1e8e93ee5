//! A loading bay: something of everything that a plugin can do, in one file.
//!
//! `cargo build -p vespiary-sdk --example bay --target wasm32-wasip2 --profile component` makes the component.

use std::time::Duration;

use vespiary_sdk::prelude::*;

plugin! {
    name: "bay",
    description: "Knows which truck stands at which gate, and for how long.",
    handlers: [arrived, left, too_long, report, weighed, scales],
    hooks: [named],
    routes: [truck],
    publishes: ["bay/+/too-long", "bay/report", "scales/ask"],
    secrets: ["yard-token"],
    http_hosts: ["https://yard.example.com"],
    disconnects: true,
    state_version: 2,
    migrations: [with_weight],
}

/// A truck at a gate.
#[derive(Serialize, Deserialize)]
struct Truck {
    /// Its plate.
    plate: String,
    /// Its weight, once the scales answered.
    weight_kg: Option<u32>,
}

/// In version 1, the plate was all that was kept.
#[migrate("gate/{gate}", from = 1)]
fn with_weight(Json(plate): Json<String>) -> Json<Truck> {
    Json(Truck { plate, weight_kg: None })
}

#[on("gates/{gate}/arrived")]
fn arrived(cx: &mut Context, gate: &str, Text(plate): Text) -> Result<()> {
    cx.request("scales/ask", plate.as_str()).tag(format!("weight/{gate}")).timeout(Duration::from_secs(10)).send()?;
    cx.timers().after(format!("gate/{gate}"), Duration::from_secs(1_800), plate.as_str())?;
    cx.metrics().label("gate", gate).count("arrivals", 1);
    Ok(cx.state().set(format!("gate/{gate}"), &Truck { plate, weight_kg: None })?)
}

#[on("gates/{gate}/left")]
fn left(cx: &mut Context, gate: &str) -> Result<()> {
    cx.timers().cancel(format!("gate/{gate}"))?;
    cx.state().add("departures", 1)?;
    Ok(cx.state().delete(format!("gate/{gate}"))?)
}

#[on_timer("gate/{gate}")]
fn too_long(cx: &mut Context, gate: &str, Text(plate): Text) -> Result<()> {
    cx.publish(format!("bay/{gate}/too-long"), plate)
}

/// Tells the yard how many left, once a night.
#[schedule("0 3 * * *")]
fn report(cx: &mut Context) -> Result<()> {
    let departures = cx.state().get_or_default::<u64>("departures")?;
    let token = cx.secret("yard-token")?.reveal();
    let call = cx.http().post("https://yard.example.com/departures").header("authorization", token);
    call.json(&departures)?.send()?.success()?;
    cx.publish("bay/report", Json(departures))
}

#[on_response("weight/{gate}")]
fn weighed(cx: &mut Context, gate: &str, answer: Answer<Json<u32>>) -> Result<()> {
    let Answer::Given(Json(weight_kg)) = answer else { return Ok(()) };
    let key = format!("gate/{gate}");
    if let Some(mut truck) = cx.state().get::<Truck>(&key)? {
        truck.weight_kg = Some(weight_kg);
        cx.state().set(&key, &truck)?;
    }
    Ok(())
}

/// There is one pair of scales: a second one under another name is an impostor.
#[on_client("connected")]
fn scales(cx: &mut Context, event: ClientEvent) -> Result<()> {
    if event.client_id.starts_with("scales") && !cx.state().compare_and_set("scales", None, Some(&event.client_id))? {
        let known: Option<String> = cx.state().get("scales")?;
        if known.as_deref() != Some(&event.client_id) {
            cx.disconnect(&event.client_id)?;
        }
    }
    Ok(())
}

#[intercept_publish("gates/{gate}/arrived")]
fn named(message: &Message) -> PublishVerdict {
    if message.payload.is_empty() { PublishVerdict::deny("a truck has a plate") } else { PublishVerdict::Keep }
}

#[http(GET, "/gates/{gate}")]
fn truck(cx: &Context, gate: &str) -> Result<Option<Json<Truck>>> {
    Ok(cx.state().get(format!("gate/{gate}"))?.map(Json))
}
