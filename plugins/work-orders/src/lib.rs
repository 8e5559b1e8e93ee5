//! Opens exactly one work order for each fault of each asset.
//!
//! State: `saga/order/{order}` an order that is being prepared, `order/{order}` one that is issued, `fault/{asset}/{fault}` which of
//! them is open, `asset/{asset}` what is registered, `orders` how many there were. All of it changes in the transaction of the
//! event that asks for it, so an order is published if and only if it is kept here.

pub mod alert;
pub mod order;
pub mod preparation;
pub mod registration;

use vespiary_sdk::prelude::*;
use vespiary_sdk::saga::{Ended, Saga, Status, Turn};

use crate::alert::{Alert, Anomaly, MAX_NAME_BYTES};
use crate::order::{Decision, Fault, Order, OrderEvent, OrderNumber, Outcome};
use crate::preparation::{Preparation, preparation};
use crate::registration::Registration;

plugin! {
    name: "work-orders",
    handlers: [alerted, answered, due, close, release, registered],
    publishes: [
        "workorders/+", "assets/+/maintained",
        "api/location/get", "api/skills/get", "api/tools/get",
        "api/technicians/reserve", "api/technicians/release", "api/tools/reserve", "api/tools/release",
    ],
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

#[on_response("saga/order/{order}/{turn}")]
fn answered(cx: &mut Context, order: &str, turn: Turn) -> Result<()> {
    orders().advance(cx, order, turn)
}

#[on_timer("saga/order/{order}/{turn}")]
fn due(cx: &mut Context, order: &str, turn: Turn) -> Result<()> {
    orders().advance(cx, order, turn)
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

/// Tries again to give back what could not be given back.
#[on("workorders/{order}/release", qos = 1)]
fn release(cx: &mut Context, order: OrderNumber) -> Result<()> {
    orders().retry(cx, &order.to_string()).map(drop)
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

/// The saga that every order begins as.
fn orders() -> Saga<Preparation> {
    preparation().on_end(issue)
}

/// Issues an order that is prepared as well as it can be.
fn issue(cx: &Context, _: &str, ended: &Ended<'_, Preparation>) -> Result<()> {
    let mut order = ended.data.order.clone();
    if cx.state().get::<Order>(order_key(order.order))?.is_some() {
        // It was issued when the saga got stuck, which is over now.
        return Ok(());
    }
    if ended.status == Status::Completed {
        order.reserved_technician = ended.data.technician.clone();
    }
    publish(cx, &order, OrderEvent::WorkOrderCreated(&order))
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
            orders().begin(cx, &number.to_string(), Preparation::of(order))?;
        }
        Decision::Join(number) => {
            if let Some(mut order) = cx.state().get::<Order>(order_key(number))? {
                if order.escalate(anomaly.severity, now) {
                    publish(cx, &order, OrderEvent::WorkOrderEscalated(&order))?;
                }
            } else {
                let worsen = |preparation: &mut Preparation| {
                    preparation.order.escalate(anomaly.severity, now);
                };
                if !orders().update(cx, &number.to_string(), worsen)? {
                    return Err(Error::retry(format!("{number} is missing")));
                }
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
