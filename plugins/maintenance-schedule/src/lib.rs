//! Plans each open work order as a check by a technician who can do it and is free.
//!
//! What an order's event is called does not matter: each says how the order is now, and the plan is brought in line with that.
//! So an event that comes twice changes nothing, and a service that is deployed late plans what it finds retained.

pub mod check;
pub mod desk;
pub mod diary;
pub mod job;
pub mod planner;
pub mod shift;
pub mod technician;

use std::cell::Cell;

use vespiary_sdk::prelude::*;

use crate::check::{Check, CheckEvent, CheckNumber, Outcome, Status};
use crate::desk::Desk;
use crate::diary::Diary;
use crate::job::{Job, Order, OrderStatus, Progress};
use crate::technician::{Technician, built_in, checked_name};

/// The widest offset from UTC that any place on Earth has, in minutes.
const MAX_UTC_OFFSET_MINUTES: i32 = 14 * 60;

/// The longest reason that is kept with a cancelled check, in bytes.
const MAX_WHY_BYTES: usize = 512;

thread_local! {
    /// Set by [`start`], before anything else runs: an instance has one thread and one configuration.
    static UTC_OFFSET_MINUTES: Cell<i32> = const { Cell::new(0) };
}

plugin! {
    name: "maintenance-schedule",
    handlers: [ordered, completed, cancelled, registered, order_due, check_over, tidy],
    publishes: ["checks/+", "workorders/+/unplannable", "workorders/+/close"],
    init: start,
}

/// The payload of `checks/{check}/complete`, and of `workorders/{order}/close` that follows from it.
#[derive(Debug, Serialize, Deserialize)]
struct Completion {
    /// What came of it.
    outcome: Outcome,
}

/// The payload of `checks/{check}/cancel`.
#[derive(Debug, Deserialize)]
struct Cancellation {
    /// Why.
    why: String,
}

fn start(config: &Config) -> Result<()> {
    let minutes = config.parse_or("utc_offset_minutes", 0)?;
    if !(-MAX_UTC_OFFSET_MINUTES..=MAX_UTC_OFFSET_MINUTES).contains(&minutes) {
        return Err(Error::reject(format!("`utc_offset_minutes` is {minutes}: no place is that far from Greenwich")));
    }
    UTC_OFFSET_MINUTES.set(minutes);
    Ok(())
}

#[on("workorders/{order}", qos = 1)]
fn ordered(cx: &mut Context, order: &str) -> Result<()> {
    if cx.event().payload().is_empty() {
        // Somebody took the retained message away; the order itself is as it was.
        return Ok(());
    }
    let order = cx.event().json::<Order>()?.checked(order).or_reject()?;
    let mut desk = Desk::open(cx, UTC_OFFSET_MINUTES.get())?;
    let job = desk.job(&order.order)?;
    match (order.status, job) {
        (OrderStatus::Open, None) => desk.plan(&mut Job::new(order)),
        (OrderStatus::Open, Some(job)) => reconsider(&mut desk, job, order),
        (OrderStatus::Closed, None) => Ok(()),
        (OrderStatus::Closed, Some(job)) => settle(&mut desk, job, order),
    }
}

#[on("checks/{check}/complete", qos = 1)]
fn completed(cx: &mut Context, check: CheckNumber, Json(completion): Json<Completion>) -> Result<()> {
    let mut desk = Desk::open(cx, UTC_OFFSET_MINUTES.get())?;
    let check = desk.check(check)?;
    match &check.status {
        Status::Completed { .. } => return Ok(()),
        Status::Cancelled { why } => return Err(Error::reject(format!("the check was cancelled: {why}"))),
        Status::Planned => {}
    }
    let mut job = job_of(&desk, &check)?;
    job.progress = Progress::Done;
    desk.store_job(&job)?;
    desk.end(check, CheckEvent::CheckCompleted, Status::Completed { outcome: completion.outcome })?;
    cx.publish(format!("workorders/{}/close", job.order.order), Json(&completion))?;
    desk.try_again()
}

#[on("checks/{check}/cancel", qos = 1)]
fn cancelled(cx: &mut Context, check: CheckNumber, Json(cancellation): Json<Cancellation>) -> Result<()> {
    if cancellation.why.len() > MAX_WHY_BYTES {
        return Err(Error::reject(format!("the reason is longer than {MAX_WHY_BYTES} bytes")));
    }
    let mut desk = Desk::open(cx, UTC_OFFSET_MINUTES.get())?;
    let check = desk.check(check)?;
    match &check.status {
        Status::Cancelled { .. } => return Ok(()),
        Status::Completed { .. } => return Err(Error::reject("the check has taken place")),
        Status::Planned => {}
    }
    let mut job = job_of(&desk, &check)?;
    // The appointment fell through; the order still wants one, and not the same again.
    job.not_before_ts = check.span.to_ts;
    job.progress = Progress::New;
    desk.end(check, CheckEvent::CheckCancelled, Status::Cancelled { why: cancellation.why })?;
    desk.plan(&mut job)?;
    desk.try_again()
}

#[on("registry/technicians/{technician}", qos = 1)]
fn registered(cx: &mut Context, technician: &str) -> Result<()> {
    let key = format!("technician/{}", checked_name(technician).or_reject()?);
    let first = cx.state().scan_page::<Technician>("technician/", None, 1)?.is_empty();
    if cx.event().payload().is_empty() {
        cx.state().delete(key)?;
    } else {
        cx.state().set(key, &cx.event().json::<Technician>()?.checked().or_reject()?)?;
    }
    let mut desk = Desk::open(cx, UTC_OFFSET_MINUTES.get())?;
    let mut concerned = vec![technician.to_owned()];
    if first {
        // With the first real technician, those who stood in have gone.
        concerned.extend(built_in().into_iter().map(|(id, _)| id).filter(|id| id != technician));
    }
    for technician in concerned {
        for check in desk.unfit(&technician)? {
            let check = desk.check(check)?;
            let mut job = job_of(&desk, &check)?;
            desk.reassign(&mut job, check)?;
        }
    }
    desk.try_again()
}

/// An order that waits is due: nobody can be sent in time any more.
#[on_timer("order/{order}/due")]
fn order_due(cx: &mut Context, order: &str) -> Result<()> {
    let desk = Desk::open(cx, UTC_OFFSET_MINUTES.get())?;
    // The event may have been on its way while the order was changed.
    let is_due = |job: &Job| matches!(job.progress, Progress::Waiting(_)) && job.order.due_ts <= cx.now().as_millis();
    match desk.job(order)? {
        Some(mut job) if is_due(&job) => desk.give_up(&mut job),
        Some(_) | None => Ok(()),
    }
}

/// A check ought to be over, and somebody ought to have said what came of it.
#[on_timer("check/{check}/over")]
fn check_over(cx: &mut Context, check: CheckNumber) -> Result<()> {
    let desk = Desk::open(cx, UTC_OFFSET_MINUTES.get())?;
    let check = desk.check(check)?;
    match check.status {
        // The event may have been on its way while the check was moved.
        Status::Planned if check.span.to_ts < cx.now().as_millis() => desk.miss(&check),
        Status::Planned | Status::Completed { .. } | Status::Cancelled { .. } => Ok(()),
    }
}

/// Forgets what nobody has to know any more, also of those who have left.
#[schedule("0 3 * * *", name = "tidy")]
fn tidy(cx: &mut Context) -> Result<()> {
    let now = cx.now().as_millis();
    for (key, mut diary) in cx.state().scan::<Diary>("diary/")? {
        if diary.forget(now) {
            if diary.bookings().is_empty() { cx.state().delete(key)? } else { cx.state().set(key, &diary)? }
        }
    }
    Ok(())
}

/// Brings the plan in line with an order that is still open.
fn reconsider(desk: &mut Desk<'_>, mut job: Job, order: Order) -> Result<()> {
    match job.progress {
        Progress::Done => Ok(()),
        Progress::New | Progress::Waiting(_) => {
            desk.stop_waiting(&job)?;
            job.order = order;
            desk.plan(&mut job)
        }
        Progress::Planned(_) if order == job.order => Ok(()),
        Progress::Planned(number) => {
            job.order = order;
            let check = desk.check(number)?;
            if check.span.to_ts <= job.order.due_ts { desk.store_job(&job) } else { desk.hasten(&mut job, &check) }
        }
    }
}

/// Takes an order off the plan that was closed, by whomever.
fn settle(desk: &mut Desk<'_>, mut job: Job, order: Order) -> Result<()> {
    let progress = std::mem::replace(&mut job.progress, Progress::Done);
    desk.stop_waiting(&job)?;
    job.order = order;
    desk.store_job(&job)?;
    if let Progress::Planned(number) = progress {
        let check = desk.check(number)?;
        desk.end(check, CheckEvent::CheckCancelled, Status::Cancelled { why: "the order was closed".to_owned() })?;
        desk.try_again()?;
    }
    Ok(())
}

fn job_of(desk: &Desk<'_>, check: &Check) -> Result<Job> {
    desk.job(&check.order)?.ok_or_else(|| Error::retry(format!("job/{} is missing", check.order)))
}
