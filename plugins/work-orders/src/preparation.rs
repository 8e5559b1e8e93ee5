//! What has to be known and reserved before an order is issued: a saga for each order.
//!
//! The site's IT system is asked where the asset stands and what it takes to work on it, and then for a technician and the
//! tools. Both reservations are made, or neither: one that cannot be followed by the other is given back. The order is issued
//! in any case, since a machine that fails cannot wait for an IT system; it says whether anybody is reserved for it. Where
//! nobody answers the first question, nothing more is asked, and what is registered counts.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use vespiary_sdk::saga::{Ask, Reply, Saga, Step};
use vespiary_sdk::serde_json::json;
use vespiary_sdk::{Context, Error, Event, Json, Result};

use crate::order::Order;
use crate::registration::Registration;

/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the preparation of an order may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// An order that is being prepared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preparation {
    /// The order as it would be issued now.
    pub order: Order,
    /// Whether somebody answered so far.
    heard: bool,
    /// Who is reserved.
    pub technician: Option<String>,
}

/// What an IT system may know of an asset: the answer to `api/location/get`, `api/skills/get` and `api/tools/get`.
#[derive(Debug, Deserialize)]
struct Known {
    /// Where it stands.
    location: Option<String>,
    /// What a technician must be able to do.
    skills: Option<Vec<String>>,
    /// What a technician has to bring.
    tools: Option<Vec<String>>,
    /// How long a check takes.
    check_minutes: Option<u32>,
}

/// The answer to `api/technicians/reserve` and `api/tools/reserve`.
#[derive(Debug, Deserialize)]
struct Reservation {
    /// Whether it is reserved.
    reserved: bool,
    /// Who is.
    technician: Option<String>,
    /// Why nothing is.
    reason: Option<String>,
}

/// The answer to `api/technicians/release` and `api/tools/release`.
#[derive(Debug, Deserialize)]
struct Release {
    /// Whether nothing is reserved any more; also if nothing was.
    released: bool,
    /// Why it still is.
    reason: Option<String>,
}

impl Preparation {
    /// An order to prepare.
    pub fn of(order: Order) -> Self {
        Self { order, heard: false, technician: None }
    }
}

/// The saga, without what follows from its end; its identity is the order's number.
pub fn preparation() -> Saga<Preparation> {
    Saga::new("order")
        .step(
            Step::new("location", |_, _, preparation| about_asset("api/location/get", preparation), located).optional(),
        )
        .step(
            Step::new("skills", |_, _, preparation| about_asset_if_heard("api/skills/get", preparation), skilled)
                .optional(),
        )
        .step(
            Step::new("tools", |_, _, preparation| about_asset_if_heard("api/tools/get", preparation), equipped)
                .optional(),
        )
        .step(
            Step::new("technician", reserve_technician, technician_reserved)
                .compensated_by(|_, id, _| release("api/technicians/release", id), released),
        )
        .step(
            Step::new("tool", reserve_tools, tools_reserved)
                .compensated_by(|_, id, _| release("api/tools/release", id), released),
        )
        .deadline(DEADLINE)
}

fn about_asset(topic: &str, preparation: &Preparation) -> Result<Ask> {
    let Order { asset, fault, .. } = &preparation.order;
    Ok(Ask::request(topic, Json(&json!({ "asset": asset, "fault": fault })))?.timeout(ANSWER_TIMEOUT))
}

fn about_asset_if_heard(topic: &str, preparation: &Preparation) -> Result<Ask> {
    if preparation.heard { about_asset(topic, preparation) } else { Ask::nothing() }
}

fn located(preparation: &mut Preparation, answer: &Event) -> Result<Reply> {
    preparation.heard = true;
    let Known { location: Some(location), .. } = answer.json()? else { return Ok(Reply::refused("it is not known")) };
    preparation.order.location = location;
    Ok(Reply::Accepted)
}

fn skilled(preparation: &mut Preparation, answer: &Event) -> Result<Reply> {
    let Known { skills: Some(skills), check_minutes, .. } = answer.json()? else {
        return Ok(Reply::refused("they are not known"));
    };
    let check_minutes = check_minutes.unwrap_or(preparation.order.check_minutes);
    Ok(within_bounds(preparation, |registration| Registration { skills, check_minutes, ..registration }))
}

fn equipped(preparation: &mut Preparation, answer: &Event) -> Result<Reply> {
    let Known { tools: Some(tools), .. } = answer.json()? else { return Ok(Reply::refused("they are not known")) };
    Ok(within_bounds(preparation, |registration| Registration { tools, ..registration }))
}

/// Takes what is known into the order, unless it is nothing that could be registered.
fn within_bounds(preparation: &mut Preparation, change: impl FnOnce(Registration) -> Registration) -> Reply {
    let order = &mut preparation.order;
    let known = Registration {
        location: order.location.clone(),
        skills: order.skills.clone(),
        tools: order.tools.clone(),
        check_minutes: order.check_minutes,
    };
    match change(known).checked() {
        Ok(Registration { skills, tools, check_minutes, .. }) => {
            (order.skills, order.tools, order.check_minutes) = (skills, tools, check_minutes);
            Reply::Accepted
        }
        Err(invalid) => Reply::refused(invalid.to_string()),
    }
}

fn reserve_technician(_: &Context, id: &str, preparation: &Preparation) -> Result<Ask> {
    let Order { asset, skills, due_ts, .. } = &preparation.order;
    if !preparation.heard {
        return Ask::nothing();
    }
    let wanted = json!({ "order": id, "asset": asset, "skills": skills, "due_ts": due_ts });
    Ok(Ask::request("api/technicians/reserve", Json(&wanted))?.timeout(ANSWER_TIMEOUT))
}

fn technician_reserved(preparation: &mut Preparation, answer: &Event) -> Result<Reply> {
    let reservation: Reservation = answer.json()?;
    match (reservation.reserved, reservation.technician) {
        (true, Some(technician)) => {
            preparation.technician = Some(technician);
            Ok(Reply::Accepted)
        }
        (true, None) => Err(Error::reject("somebody is reserved, and nobody knows who")),
        (false, _) => Ok(Reply::refused(reservation.reason.unwrap_or_else(|| "nobody is free".to_owned()))),
    }
}

fn reserve_tools(_: &Context, id: &str, preparation: &Preparation) -> Result<Ask> {
    let Order { asset, tools, due_ts, .. } = &preparation.order;
    if preparation.technician.is_none() || tools.is_empty() {
        return Ask::nothing();
    }
    let wanted = json!({ "order": id, "asset": asset, "tools": tools, "due_ts": due_ts });
    Ok(Ask::request("api/tools/reserve", Json(&wanted))?.timeout(ANSWER_TIMEOUT))
}

fn tools_reserved(_: &mut Preparation, answer: &Event) -> Result<Reply> {
    let Reservation { reserved, reason, .. } = answer.json()?;
    Ok(if reserved {
        Reply::Accepted
    } else {
        Reply::refused(reason.unwrap_or_else(|| "a tool is not there".to_owned()))
    })
}

fn release(topic: &str, id: &str) -> Result<Ask> {
    Ok(Ask::request(topic, Json(&json!({ "order": id })))?.timeout(ANSWER_TIMEOUT))
}

fn released(_: &mut Preparation, answer: &Event) -> Result<Reply> {
    let Release { released, reason } = answer.json()?;
    Ok(if released {
        Reply::Accepted
    } else {
        Reply::refused(reason.unwrap_or_else(|| "it is still reserved".to_owned()))
    })
}
