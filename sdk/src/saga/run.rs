//! How a saga moves: each function is one move, or leads to one, and stores what comes of it.
//!
//! An event moves a saga only if it belongs to the turn that the saga is in. So what comes twice, late, or after the saga's
//! end does nothing.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::record::{Awaits, Of, Record, Status, Turn};
use super::step::{Ask, Exchange, Kind, Reply, Step};
use super::{Ended, Saga, is_level};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::event::{Event, EventKind};
use crate::{error, extract::Raw, warn};

/// Times that a compensation is tried before the saga is stuck.
const ATTEMPTS: u32 = 5;

/// The pause before the second attempt; it doubles with each further one.
const PAUSE: Duration = Duration::from_secs(1);

impl<D: Serialize + DeserializeOwned> Saga<D> {
    /// Begins a saga, unless there is or was one of this identity, and gives whether it did. The identity has 1 to 128 bytes
    /// and no `/`, `+`, `#` or control characters; with another one, the event is rejected.
    pub fn begin(&self, cx: &Context, id: &str, data: D) -> Result<bool> {
        if !is_level(id) {
            return Err(Error::reject(format!("{id:?} cannot be the identity of a saga")));
        }
        if self.load(cx, id)?.is_some() {
            return Ok(false);
        }
        cx.timers().after(self.label(id, Turn(Of::Deadline)), self.deadline, "")?;
        self.forward(cx, id, Record::new(cx.now(), data), 0)?;
        Ok(true)
    }

    /// Moves a saga on by an answer, or a timer: to be called by `#[on_response("saga/NAME/{id}/{turn}")]` and
    /// `#[on_timer("saga/NAME/{id}/{turn}")]`. What belongs to no saga, or comes too late, does nothing.
    pub fn advance(&self, cx: &Context, id: &str, turn: Turn) -> Result<()> {
        let Some(record) = self.load(cx, id)? else { return Ok(()) };
        match (turn.0, record.awaits) {
            (Of::Deadline, _) if record.status == Status::Running => self.overdue(cx, id, record),
            (Of::Number(turn), Awaits::Answer) if turn == record.turn => self.take(cx, id, record, answer(cx.event())),
            (Of::Number(turn), Awaits::Pause) if turn == record.turn => self.undo(cx, id, record),
            (Of::Deadline | Of::Number(_), Awaits::Answer | Awaits::Pause | Awaits::Nothing) => Ok(()),
        }
    }

    /// Takes the event that is handled as the answer to the step of this name, and gives whether the saga waited for it.
    pub fn resume(&self, cx: &Context, id: &str, step: &str) -> Result<bool> {
        let waits = |record: &Record<D>| record.status == Status::Running && record.step.as_deref() == Some(step);
        self.take_if(cx, id, waits)
    }

    /// Takes the event that is handled as the answer to the compensation of the step of this name, and gives whether the
    /// saga waited for it.
    pub fn acknowledge(&self, cx: &Context, id: &str, step: &str) -> Result<bool> {
        let waits = |record: &Record<D>| record.status == Status::Compensating && record.step.as_deref() == Some(step);
        self.take_if(cx, id, waits)
    }

    /// How far a saga is; `None` if there is none of this identity, or it is no longer remembered.
    pub fn status(&self, cx: &Context, id: &str) -> Result<Option<Status>> {
        Ok(self.load(cx, id)?.map(|record| record.status))
    }

    /// Changes what a saga knows, and gives whether it did: a saga that ended knows what it knew.
    pub fn update(&self, cx: &Context, id: &str, change: impl FnOnce(&mut D)) -> Result<bool> {
        match self.load(cx, id)? {
            Some(mut record) if !record.status.is_end() => {
                change(&mut record.data);
                self.store(cx, id, &record)?;
                Ok(true)
            }
            Some(_) | None => Ok(false),
        }
    }

    /// Tries the compensations of a stuck saga again, and gives whether it is stuck.
    pub fn retry(&self, cx: &Context, id: &str) -> Result<bool> {
        match self.load(cx, id)? {
            Some(mut record) if record.status == Status::Stuck => {
                record.status = Status::Compensating;
                record.attempt = 0;
                record.ended_ts = None;
                self.undo(cx, id, record)?;
                Ok(true)
            }
            Some(_) | None => Ok(false),
        }
    }

    /// Forgets a saga that ended, such as a stuck one that somebody repaired by hand, and gives whether it did.
    pub fn forget(&self, cx: &Context, id: &str) -> Result<bool> {
        match self.load(cx, id)? {
            Some(record) if record.status.is_end() => {
                cx.state().delete(self.key(id))?;
                Ok(true)
            }
            Some(_) | None => Ok(false),
        }
    }

    /// Asks for the next step that has something to ask, from this one on; after the last one, the saga is completed.
    fn forward(&self, cx: &Context, id: &str, mut record: Record<D>, from: usize) -> Result<()> {
        for step in self.steps.iter().skip(from) {
            match (step.action.ask)(cx, id, &record.data) {
                Ok(Ask { kind: Kind::Nothing, .. }) => {}
                Ok(ask) => {
                    record.step = Some(step.name.to_owned());
                    self.send(cx, id, &mut record, step.name, ask)?;
                    return self.store(cx, id, &record);
                }
                Err(error) if error.is_reject() && step.optional => {
                    warn_without(self.name, id, step.name, error.message())
                }
                Err(error) if error.is_reject() => return self.fail(cx, id, record, step.name, error.message()),
                Err(error) => return Err(error),
            }
        }
        self.end(cx, id, record, Status::Completed)
    }

    /// Takes an answer, or that none came.
    fn take(&self, cx: &Context, id: &str, mut record: Record<D>, answer: Option<&Event>) -> Result<()> {
        let turn = Turn(Of::Number(record.turn));
        cx.timers().cancel(self.label(id, turn))?;
        record.awaits = Awaits::Nothing;
        let name = record.step.take().unwrap_or_default();
        if record.status == Status::Compensating {
            let Some(compensation) = self.find(&name).and_then(|(_, step)| step.compensation.as_ref()) else {
                return self.undo(cx, id, record);
            };
            return match compensation.judge(&mut record.data, answer) {
                Ok(Reply::Accepted) => {
                    record.done.pop();
                    record.attempt = 0;
                    self.undo(cx, id, record)
                }
                Ok(Reply::Refused(reason)) | Err(reason) => self.again(cx, id, record, &name, &reason),
            };
        }
        let Some((index, step)) = self.find(&name) else {
            record.done.push(name.clone());
            return self.fail(cx, id, record, &name, "this version of the plugin has no such step");
        };
        let (may_be_done, refusal) = match step.action.judge(&mut record.data, answer) {
            Ok(Reply::Accepted) => (true, None),
            Ok(Reply::Refused(reason)) => (false, Some(reason)),
            Err(reason) => (true, Some(reason)),
        };
        if may_be_done {
            record.done.push(name.clone());
        }
        match refusal {
            None => self.forward(cx, id, record, index + 1),
            Some(reason) if step.optional => {
                warn_without(self.name, id, &name, &reason);
                self.forward(cx, id, record, index + 1)
            }
            Some(reason) => self.fail(cx, id, record, &name, &reason),
        }
    }

    fn take_if(&self, cx: &Context, id: &str, waits: impl Fn(&Record<D>) -> bool) -> Result<bool> {
        match self.load(cx, id)? {
            Some(record) if record.awaits == Awaits::Answer && waits(&record) => {
                self.take(cx, id, record, Some(cx.event()))?;
                Ok(true)
            }
            Some(_) | None => Ok(false),
        }
    }

    /// The deadline passed: what is being asked for may be done already.
    fn overdue(&self, cx: &Context, id: &str, mut record: Record<D>) -> Result<()> {
        cx.timers().cancel(self.label(id, Turn(Of::Number(record.turn))))?;
        let step = record.step.take().unwrap_or_default();
        record.done.push(step.clone());
        self.fail(cx, id, record, &step, "the deadline of the saga has passed")
    }

    /// A step failed: what is done is undone.
    fn fail(&self, cx: &Context, id: &str, mut record: Record<D>, step: &str, reason: &str) -> Result<()> {
        cx.timers().cancel(self.label(id, Turn(Of::Deadline)))?;
        record.status = Status::Compensating;
        record.reason = Some(format!("{step}: {reason}"));
        self.undo(cx, id, record)
    }

    /// Asks for the compensation of the last step that is done; when none is left, the saga is compensated.
    fn undo(&self, cx: &Context, id: &str, mut record: Record<D>) -> Result<()> {
        while let Some(name) = record.done.last().cloned() {
            let Some((_, step)) = self.find(&name) else {
                record.reason = Some(format!("{name}: this version of the plugin cannot undo the step"));
                return self.end(cx, id, record, Status::Stuck);
            };
            if let Some(compensation) = &step.compensation {
                let asked = (compensation.ask)(cx, id, &record.data).and_then(|ask| match ask.kind {
                    Kind::Nothing => Ok(false),
                    Kind::Request(..) | Kind::Message(..) => {
                        self.send(cx, id, &mut record, &name, ask)?;
                        Ok(true)
                    }
                });
                match asked {
                    Ok(false) => {}
                    Ok(true) => {
                        record.step = Some(name);
                        return self.store(cx, id, &record);
                    }
                    Err(error) => return self.again(cx, id, record, &name, error.message()),
                }
            }
            record.done.pop();
        }
        self.end(cx, id, record, Status::Compensated)
    }

    /// A compensation failed: it is tried again after a pause, unless it was tried often enough.
    fn again(&self, cx: &Context, id: &str, mut record: Record<D>, step: &str, reason: &str) -> Result<()> {
        record.attempt += 1;
        if record.attempt >= ATTEMPTS {
            let why = record.reason.take().unwrap_or_default();
            record.reason = Some(format!("{why}; the compensation of {step}: {reason}"));
            return self.end(cx, id, record, Status::Stuck);
        }
        let pause = PAUSE * 2_u32.saturating_pow(record.attempt - 1);
        let turn = record.next_turn(Awaits::Pause);
        cx.timers().after(self.label(id, turn), pause, "")?;
        self.store(cx, id, &record)
    }

    fn end(&self, cx: &Context, id: &str, mut record: Record<D>, status: Status) -> Result<()> {
        record.status = status;
        record.step = None;
        record.awaits = Awaits::Nothing;
        record.ended_ts = Some(cx.now());
        cx.timers().cancel(self.label(id, Turn(Of::Deadline)))?;
        let (name, reason) = (self.name, record.reason.as_deref().unwrap_or_default());
        match status {
            Status::Stuck => error!("saga {name}/{id} is stuck: {reason}"),
            Status::Compensated => warn!("saga {name}/{id} is compensated: {reason}"),
            Status::Completed | Status::Running | Status::Compensating => {}
        }
        cx.metrics().label("saga", name).label("status", &status.to_string()).count("sagas_ended", 1);
        if status == Status::Stuck {
            self.store(cx, id, &record)?;
        } else {
            cx.state().set_for(self.key(id), &record, self.kept)?;
        }
        match self.on_end {
            Some(on_end) => on_end(cx, id, &Ended { status, reason: record.reason.as_deref(), data: &record.data }),
            None => Ok(()),
        }
    }

    /// Sends what is asked for, in a turn of its own.
    fn send(&self, cx: &Context, id: &str, record: &mut Record<D>, step: &str, ask: Ask) -> Result<()> {
        let turn = record.next_turn(Awaits::Answer);
        let label = self.label(id, turn);
        let mark = format!("{}/{id}/{step}", self.name);
        match ask.kind {
            Kind::Nothing => Ok(()),
            Kind::Request(topic, payload) => {
                let request = cx.request(topic, Raw(payload)).tag(label).timeout(ask.timeout);
                request.user_property("saga", mark).send().map(drop)
            }
            Kind::Message(topic, payload) => {
                cx.message(topic, Raw(payload)).user_property("saga", mark).publish()?;
                cx.timers().after(label, ask.timeout, "")
            }
        }
    }

    pub(super) fn find(&self, name: &str) -> Option<(usize, &Step<D>)> {
        self.steps.iter().enumerate().find(|(_, step)| step.name == name)
    }

    fn load(&self, cx: &Context, id: &str) -> Result<Option<Record<D>>> {
        Ok(cx.state().get(self.key(id))?)
    }

    fn store(&self, cx: &Context, id: &str, record: &Record<D>) -> Result<()> {
        Ok(cx.state().set(self.key(id), record)?)
    }

    fn key(&self, id: &str) -> String {
        format!("saga/{}/{id}", self.name)
    }

    /// The tag of a turn's request, and the name of its timer.
    fn label(&self, id: &str, turn: Turn) -> String {
        format!("saga/{}/{id}/{turn}", self.name)
    }
}

impl<D> Exchange<D> {
    /// What an answer says, or the reason for which nobody knows.
    fn judge(&self, data: &mut D, answer: Option<&Event>) -> Result<Reply, String> {
        match answer {
            None => Err("no answer came in time".to_owned()),
            Some(event) => (self.reply)(data, event).map_err(Error::into_message),
        }
    }
}

/// The answer that an event brings; none if it says that none came.
fn answer(event: &Event) -> Option<&Event> {
    match event.kind() {
        EventKind::Response if event.user_property("error") != Some("timeout") => Some(event),
        EventKind::Response | EventKind::Timer | EventKind::Message | EventKind::Client => None,
    }
}

fn warn_without(saga: &str, id: &str, step: &str, reason: &str) {
    warn!("saga {saga}/{id} goes on without {step}: {reason}");
}
