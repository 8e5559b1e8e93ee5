//! The planner's desk: candidates with their diaries, jobs and checks, as they are in the plugin's state.
//!
//! A desk lives for one event. Each change is stored at once and belongs to that event's transaction, so a booking, the
//! check that it is for and the message that tells of it exist together or not at all.
//!
//! Timers: `order/{order}/due` while an order waits, `check/{check}/over` while a check is planned.
//!
//! State: `technician/{technician}` who is registered, `diary/{technician}` their bookings, `job/{order}` each order,
//! `check/{check}` each check, `waiting/{due}/{order}` what could not be planned, `checks` how many there were.

use serde::Serialize;
use vespiary_sdk::{Context, Error, Json, OrReject, Result, Timestamp};

use crate::check::{Check, CheckEvent, CheckNumber, Status};
use crate::diary::{Booking, Diary};
use crate::job::{Job, Order, Progress};
use crate::planner::{self, Candidate, Need, Slot, Unplannable};
use crate::shift::{MINUTE_MS, Span};
use crate::technician::{Technician, built_in};

/// How long after now a check begins at the earliest: somebody has to read of it, and walk.
const LEAD_MS: u64 = 30 * MINUTE_MS;

/// How long after its end somebody has to say what came of a check.
const REPORT_MS: u64 = 60 * MINUTE_MS;

/// How many of the orders that wait are tried again when somebody becomes free.
const MAX_TRIED_AGAIN: usize = 50;

/// The desk.
pub struct Desk<'cx> {
    /// State and topics.
    cx: &'cx Context,
    /// Now; milliseconds since the Unix epoch.
    now: u64,
    /// The site's offset from UTC.
    utc_offset_minutes: i32,
    /// Whom can be planned with.
    candidates: Vec<Candidate>,
}

/// The payload of `workorders/{order}/unplannable`.
#[derive(Debug, Serialize)]
struct CheckUnplannable<'a> {
    /// What happened.
    event: &'static str,
    /// The order.
    order: &'a str,
    /// The asset.
    asset: &'a str,
    /// When it must be over; milliseconds since the Unix epoch.
    due_ts: u64,
    /// The reason.
    #[serde(flatten)]
    unplannable: &'a Unplannable,
    /// The reason, for people.
    why: String,
    /// The check that stays as it is, for want of a better one.
    #[serde(skip_serializing_if = "Option::is_none")]
    stays: Option<CheckNumber>,
}

impl<'cx> Desk<'cx> {
    /// Sits down.
    pub fn open(cx: &'cx Context, utc_offset_minutes: i32) -> Result<Self> {
        let now = cx.now().as_millis();
        let registered: Vec<(String, Technician)> = cx.state().scan("technician/")?;
        let technicians = if registered.is_empty() {
            built_in()
        } else {
            let id = |key: &str| key.trim_start_matches("technician/").to_owned();
            registered.into_iter().map(|(key, technician)| (id(&key), technician)).collect()
        };
        let candidate = |(id, technician): (String, Technician)| {
            let diary: Diary = cx.state().get_or_default(diary_key(&id))?;
            Ok(Candidate { id, technician, diary })
        };
        let candidates = technicians.into_iter().map(candidate).collect::<Result<_>>()?;
        Ok(Self { cx, now, utc_offset_minutes, candidates })
    }

    /// Plans a job that has no check; if that cannot be, says why and lets it wait.
    pub fn plan(&mut self, job: &mut Job) -> Result<()> {
        match planner::plan(&self.candidates, &self.need(job), self.utc_offset_minutes) {
            Ok(slot) => {
                let number = self.cx.state().update("checks", |checks: &mut u64| {
                    *checks += 1;
                    CheckNumber(*checks)
                })?;
                self.take(job, number, &slot, CheckEvent::CheckPlanned)
            }
            Err(unplannable) => self.wait(job, unplannable),
        }
    }

    /// Looks for another slot for a check; keeps the one that it has if there is none, and then says why.
    pub fn hasten(&mut self, job: &mut Job, check: &Check) -> Result<()> {
        self.release(check)?;
        match planner::plan(&self.candidates, &self.need(job), self.utc_offset_minutes) {
            Ok(slot) => self.take(job, check.check, &slot, CheckEvent::CheckMoved),
            Err(unplannable) => {
                self.change_diary(&check.technician, |diary| {
                    diary.book(Booking { span: check.span, check: check.check });
                })?;
                self.tell_unplannable(job, &unplannable, Some(check.check))?;
                self.store_job(job)
            }
        }
    }

    /// Finds somebody else for a check, or another time; if that cannot be, cancels it and lets the job wait.
    pub fn reassign(&mut self, job: &mut Job, check: Check) -> Result<()> {
        self.release(&check)?;
        match planner::plan(&self.candidates, &self.need(job), self.utc_offset_minutes) {
            Ok(slot) => self.take(job, check.check, &slot, CheckEvent::CheckMoved),
            Err(unplannable) => {
                self.end(check, CheckEvent::CheckCancelled, Status::Cancelled { why: unplannable.to_string() })?;
                self.wait(job, unplannable)
            }
        }
    }

    /// Ends a check: its time is free again.
    pub fn end(&mut self, mut check: Check, event: CheckEvent, status: Status) -> Result<()> {
        self.release(&check)?;
        self.cx.timers().cancel(over_timer(check.check))?;
        check.status = status;
        self.store_check(&check, event)
    }

    /// Says that nobody has said what came of a check.
    pub fn miss(&self, check: &Check) -> Result<()> {
        self.store_check(check, CheckEvent::CheckOverdue)
    }

    /// Lets a job wait no longer, since it is due.
    pub fn give_up(&self, job: &mut Job) -> Result<()> {
        self.stop_waiting(job)?;
        self.tell_unplannable(job, &Unplannable::Overdue, None)?;
        job.progress = Progress::Waiting(Unplannable::Overdue);
        self.store_job(job)
    }

    /// Tries again what could not be planned, what is due first coming first.
    pub fn try_again(&mut self) -> Result<()> {
        let waiting: Vec<(String, String)> = self.cx.state().scan_page("waiting/", None, MAX_TRIED_AGAIN)?;
        for (_, order) in waiting {
            let mut job = self.job(&order)?.ok_or_else(|| Error::retry(format!("job/{order} is missing")))?;
            self.plan(&mut job)?;
        }
        Ok(())
    }

    /// The bookings of a technician that lie ahead and that the technician, as registered now, would not be given.
    pub fn unfit(&self, technician: &str) -> Result<Vec<CheckNumber>> {
        let diary: Diary = self.cx.state().get_or_default(diary_key(technician))?;
        let mut unfit = Vec::new();
        for booking in diary.bookings().iter().filter(|booking| booking.span.from_ts > self.now) {
            let check = self.check(booking.check)?;
            let job = self.job(&check.order)?;
            let fits = self.candidates.iter().find(|candidate| candidate.id == technician).is_some_and(|candidate| {
                let Candidate { technician, .. } = candidate;
                let mut hours = technician.shift.hours(booking.span, self.utc_offset_minutes);
                job.is_some_and(|job| technician.can(&job.order.skills))
                    && hours.any(|shift| shift.holds(&booking.span))
            });
            if !fits {
                unfit.push(booking.check);
            }
        }
        Ok(unfit)
    }

    /// A job, if there is one.
    pub fn job(&self, order: &str) -> Result<Option<Job>> {
        Ok(self.cx.state().get(job_key(order))?)
    }

    /// Stores a job.
    pub fn store_job(&self, job: &Job) -> Result<()> {
        Ok(self.cx.state().set(job_key(&job.order.order), job)?)
    }

    /// A check; an event about one that does not exist is rejected.
    pub fn check(&self, check: CheckNumber) -> Result<Check> {
        self.cx.state().get(check_key(check))?.or_reject_with("there is no such check")
    }

    /// Takes a job out of those that wait; to be called before its due time changes.
    pub fn stop_waiting(&self, job: &Job) -> Result<()> {
        self.cx.timers().cancel(due_timer(job))?;
        Ok(self.cx.state().delete(job.waiting_key())?)
    }

    fn need(&self, job: &Job) -> Need {
        let from_ts = job.not_before_ts.max(self.now.saturating_add(LEAD_MS));
        let within = Span { from_ts, to_ts: job.order.due_ts };
        let Order { skills, check_minutes, reserved_technician, .. } = &job.order;
        Need { skills: skills.clone(), minutes: *check_minutes, reserved: reserved_technician.clone(), within }
    }

    /// Books a slot.
    fn take(&mut self, job: &mut Job, number: CheckNumber, slot: &Slot, event: CheckEvent) -> Result<()> {
        let Candidate { id, technician, .. } = &self.candidates[slot.candidate];
        let check = Check {
            check: number,
            status: Status::Planned,
            order: job.order.order.clone(),
            asset: job.order.asset.clone(),
            location: job.order.location.clone(),
            tools: job.order.tools.clone(),
            technician: id.clone(),
            technician_name: technician.name.clone(),
            span: slot.span,
            due_ts: job.order.due_ts,
        };
        self.change_diary(&check.technician, |diary| diary.book(Booking { span: slot.span, check: number }))?;
        self.stop_waiting(job)?;
        let over_ts = slot.span.to_ts.saturating_add(REPORT_MS);
        self.cx.timers().set(over_timer(number), Timestamp::from_millis(over_ts), "")?;
        job.progress = Progress::Planned(number);
        self.store_job(job)?;
        self.store_check(&check, event)
    }

    fn wait(&mut self, job: &mut Job, unplannable: Unplannable) -> Result<()> {
        let same = |known: &Unplannable| std::mem::discriminant(known) == std::mem::discriminant(&unplannable);
        if !matches!(&job.progress, Progress::Waiting(known) if same(known)) {
            self.tell_unplannable(job, &unplannable, None)?;
        }
        job.progress = Progress::Waiting(unplannable);
        if job.order.due_ts > self.now {
            self.cx.state().set(job.waiting_key(), &job.order.order)?;
            self.cx.timers().set(due_timer(job), Timestamp::from_millis(job.order.due_ts), "")?;
        } else {
            self.stop_waiting(job)?;
        }
        self.store_job(job)
    }

    fn tell_unplannable(&self, job: &Job, unplannable: &Unplannable, stays: Option<CheckNumber>) -> Result<()> {
        let message = CheckUnplannable {
            event: "CheckUnplannable",
            order: &job.order.order,
            asset: &job.order.asset,
            due_ts: job.order.due_ts,
            unplannable,
            why: unplannable.to_string(),
            stays,
        };
        self.cx.publish(format!("workorders/{}/unplannable", job.order.order), Json(&message))
    }

    fn release(&mut self, check: &Check) -> Result<()> {
        self.change_diary(&check.technician, |diary| diary.release(check.check))
    }

    /// Changes a diary, also that of somebody who no longer is a candidate.
    fn change_diary(&mut self, technician: &str, change: impl FnOnce(&mut Diary)) -> Result<()> {
        let key = diary_key(technician);
        match self.candidates.iter_mut().find(|candidate| candidate.id == technician) {
            Some(candidate) => {
                change(&mut candidate.diary);
                self.cx.state().set(key, &candidate.diary)?;
            }
            None => self.cx.state().update(key, change)?,
        }
        Ok(())
    }

    /// Stores a check, and publishes what became of it as the topic's retained message.
    fn store_check(&self, check: &Check, event: CheckEvent) -> Result<()> {
        self.cx.state().set(check_key(check.check), check)?;
        self.cx.message(format!("checks/{}", check.check), Json(&check.published(event))).retain().publish()
    }
}

fn due_timer(job: &Job) -> String {
    format!("order/{}/due", job.order.order)
}

fn over_timer(check: CheckNumber) -> String {
    format!("check/{check}/over")
}

fn diary_key(technician: &str) -> String {
    format!("diary/{technician}")
}

fn job_key(order: &str) -> String {
    format!("job/{order}")
}

fn check_key(check: CheckNumber) -> String {
    format!("check/{check}")
}
