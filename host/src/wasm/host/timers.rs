//! `timers`: durable timers, set with the transaction of the event.

use std::sync::Arc;

use vespiary_core::event::{TIMER_TOPICS, Timer, TimerWrite};
use vespiary_core::message::Timestamp;
use vespiary_core::topic::Topic;

use super::HostState;
use crate::schedule::Schedule;
use crate::wasm::batch::{Batch, Refusal};
use crate::wasm::bindings::vespiary::plugin::timers::{self, Error};
use crate::wasm::limits::WasmLimits;

/// Longest name of a timer in bytes.
const NAME_BYTES: usize = 256;

impl HostState {
    fn clockmaker(&mut self, name: &str) -> Result<(&mut Batch, &WasmLimits), Error> {
        match &mut self.batch {
            Some(batch) if batch.may_act() => {
                check_name(name)?;
                Ok((batch, &self.limits))
            }
            Some(_) | None => Err(Error::Unavailable("timers can be set while events are handled only".to_owned())),
        }
    }

    fn set_timer(
        &mut self,
        name: &str,
        at: Timestamp,
        schedule: Option<Arc<str>>,
        payload: Vec<u8>,
    ) -> Result<(), Error> {
        let (batch, limits) = self.clockmaker(name)?;
        if payload.len() > limits.timer_payload_bytes {
            let limit = limits.timer_payload_bytes;
            return Err(Error::QuotaExceeded(format!("the payload has {} bytes; {limit} are allowed", payload.len())));
        }
        let timer = Timer { at, schedule, declared: false, payload: payload.into() };
        Ok(batch.timer(TimerWrite { name: name.into(), timer: Some(timer) }, limits)?)
    }
}

impl timers::Host for HostState {
    fn set(&mut self, name: String, at: u64, payload: Vec<u8>) -> Result<(), Error> {
        self.set_timer(&name, Timestamp(at), None, payload)
    }

    fn schedule(&mut self, name: String, cron: String, payload: Vec<u8>) -> Result<(), Error> {
        let now = self.clockmaker(&name)?.0.now();
        let schedule = Schedule::parse(&cron).map_err(Error::Invalid)?;
        let at = schedule
            .next_after(now)
            .ok_or_else(|| Error::Invalid(format!("the schedule `{cron}` has no time to come")))?;
        self.set_timer(&name, at, Some(cron.into()), payload)
    }

    fn cancel(&mut self, name: String) -> Result<(), Error> {
        let (batch, limits) = self.clockmaker(&name)?;
        Ok(batch.timer(TimerWrite { name: name.into(), timer: None }, limits)?)
    }
}

/// A timer's name is the end of a topic, and names with `$` are the broker's own.
fn check_name(name: &str) -> Result<(), Error> {
    let wrong = |reason: String| Err(Error::Invalid(format!("the name of the timer is not valid: {reason}")));
    match name.len() {
        0 => return wrong("it is empty".to_owned()),
        1..=NAME_BYTES => {}
        bytes => return wrong(format!("it has {bytes} bytes; {NAME_BYTES} are allowed")),
    }
    if name.starts_with('$') {
        return wrong("names with `$` are the broker's own".to_owned());
    }
    match Topic::parse(&format!("{TIMER_TOPICS}/{name}")) {
        Ok(_) => Ok(()),
        Err(reason) => wrong(reason.to_string()),
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::TooLarge(reason) | Refusal::QuotaExceeded(reason) => Self::QuotaExceeded(reason),
            Refusal::Mismatch(reason) => Self::Invalid(reason),
            Refusal::Unavailable(reason) => Self::Unavailable(reason),
        }
    }
}
