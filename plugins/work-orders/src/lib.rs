//! Opens exactly one work order for each fault of each asset.
//!
//! State: `order/{order}` an order, `fault/{asset}/{fault}` which of them is open, `asset/{asset}` what is registered,
//! `orders` how many there were. All of it changes in the transaction of the event that asks for it, so an order is published if
//! and only if it is open here.

pub mod alert;
pub mod order;
pub mod registration;

use vespiary_sdk::prelude::*;

use crate::alert::{Alert, Anomaly, MAX_NAME_BYTES};
use crate::order::{Decision, Fault, Order, OrderEvent, OrderNumber, Outcome};
use crate::registration::Registration;

plugin! {
    name: "work-orders",
    handlers: [alerted, close, registered],
    publishes: ["workorders/+", "assets/+/maintained"],
}

/// The payload of `workorders/{order}/close`.
#[derive(Debug, Deserialize)]
struct Close {
    /// What came of it.
    outcome: Outcome,
}

/// The payload of `assets/{asset}/maintained`.
#[derive(Debug, Serialize)]
struct Maintained<'a> {
    /// The order under which the asset was worked on.
    order: OrderNumber,
    /// The asset.
    asset: &'a str,
    /// What came of it.
    outcome: Outcome,
    /// When; milliseconds since the Unix epoch.
    ts: u64,
}

#[on("assets/{asset}/alerts", qos = 1)]
fn alerted(cx: &mut Context, asset: &str, Json(alert): Json<Alert>) -> Result<()> {
    match alert {
        Alert::AnomalyDetected(anomaly) | Alert::AnomalyEscalated(anomaly) => {
            anomalous(cx, &anomaly.checked(asset).or_reject()?)
        }
        Alert::AnomalyCleared | Alert::Unknown => Ok(()),
    }
}

#[on("workorders/{order}/close", qos = 1)]
fn close(cx: &mut Context, order: OrderNumber, Json(close): Json<Close>) -> Result<()> {
    let now = cx.now().as_millis();
    let mut order: Order = cx.state().get(order_key(order))?.or_reject_with("there is no such order")?;
    if !order.close(close.outcome, now) {
        return Ok(());
    }
    cx.state().update(fault_key(&order.asset, &order.fault), |fault: &mut Fault| fault.open = None)?;
    publish(cx, &order, OrderEvent::WorkOrderClosed(&order))?;
    let maintained = Maintained { order: order.order, asset: &order.asset, outcome: close.outcome, ts: now };
    cx.publish(format!("assets/{}/maintained", order.asset), Json(&maintained))
}

#[on("registry/assets/{asset}", qos = 1)]
fn registered(cx: &mut Context, asset: &str) -> Result<()> {
    if asset.is_empty() || asset.len() > MAX_NAME_BYTES {
        return Err(Error::reject(format!("an asset's name has 1 to {MAX_NAME_BYTES} bytes")));
    }
    let key = format!("asset/{asset}");
    if cx.event().payload().is_empty() {
        return Ok(cx.state().delete(key)?);
    }
    let registration: Registration = cx.event().json()?;
    Ok(cx.state().set(key, &registration.checked().or_reject()?)?)
}

/// Opens an order for an anomaly, or takes it into the one that is open.
fn anomalous(cx: &Context, anomaly: &Anomaly) -> Result<()> {
    let now = cx.now().as_millis();
    let fault_key = fault_key(&anomaly.asset, &anomaly.fault);
    let mut fault: Fault = cx.state().get_or_default(&fault_key)?;
    match fault.take(&anomaly.anomaly) {
        Decision::Open => {
            let number = cx.state().update("orders", |orders: &mut u64| {
                *orders += 1;
                OrderNumber(*orders)
            })?;
            let registration: Registration = cx.state().get_or_default(format!("asset/{}", anomaly.asset))?;
            let order = Order::open(number, anomaly, registration, now);
            fault.open = Some(number);
            publish(cx, &order, OrderEvent::WorkOrderCreated(&order))?;
        }
        Decision::Join(number) => {
            let key = order_key(number);
            let mut order: Order = cx.state().get(&key)?.ok_or_else(|| Error::retry(format!("{key} is missing")))?;
            if order.escalate(anomaly.severity, now) {
                publish(cx, &order, OrderEvent::WorkOrderEscalated(&order))?;
            }
        }
        Decision::Settled => {}
    }
    Ok(cx.state().set(fault_key, &fault)?)
}

/// Stores an order, and publishes what became of it as the topic's retained message: whoever subscribes later finds each
/// order as it is.
fn publish(cx: &Context, order: &Order, event: OrderEvent<'_>) -> Result<()> {
    cx.state().set(order_key(order.order), order)?;
    cx.message(format!("workorders/{}", order.order), Json(&event)).retain().publish()
}

fn order_key(order: OrderNumber) -> String {
    format!("order/{order}")
}

fn fault_key(asset: &str, fault: &str) -> String {
    format!("fault/{asset}/{fault}")
}
