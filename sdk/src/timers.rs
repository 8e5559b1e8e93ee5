//! Durable timers: set in a handler, kept by the broker, back as events.
//!
//! A timer is part of the event's transaction, as state and messages are: a handler that fails has set none.

use std::fmt;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::event::Timestamp;
use crate::host::{Host, TheHost};
use crate::message::Payload;

/// The plugin's timers; from [`Context::timers`](crate::Context::timers).
///
/// A timer has a name, and setting a name again replaces its timer. When it falls due, the handler marked
/// `#[on_timer("name")]` gets an event with the payload that was set. The time is the broker's.
///
/// ```
/// use std::time::Duration;
/// use vespiary_sdk::prelude::*;
///
/// plugin! { name: "doors", handlers: [opened, closed, still_open], publishes: ["doors/+/forgotten"] }
///
/// #[on("doors/{door}/opened")]
/// fn opened(cx: &mut Context, door: &str) -> Result<()> {
///     cx.timers().after(format!("{door}/open"), Duration::from_secs(60), "")
/// }
///
/// #[on("doors/{door}/closed")]
/// fn closed(cx: &mut Context, door: &str) -> Result<()> {
///     cx.timers().cancel(format!("{door}/open"))
/// }
///
/// #[on_timer("{door}/open")]
/// fn still_open(cx: &mut Context, door: &str) -> Result<()> {
///     cx.publish(format!("doors/{door}/forgotten"), "")
/// }
///
/// let mut host = vespiary_sdk::testing::TestHost::new(plugin());
/// host.publish_bytes("doors/front/opened", "");
/// host.publish_bytes("doors/back/opened", "");
/// host.publish_bytes("doors/back/closed", "");
/// host.advance(Duration::from_secs(60));
/// assert_eq!(host.published("doors/front/forgotten").len(), 1);
/// host.assert_nothing_published("doors/back/forgotten");
/// ```
pub struct Timers<'context> {
    /// Where they are kept.
    host: &'context TheHost,
    /// What "now" is: the event's time.
    now: Timestamp,
}

/// Why a timer was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TimerError {
    /// The name or the schedule is not valid.
    Invalid(String),
    /// The plugin has as many timers as it may, or the payload is too long.
    QuotaExceeded(String),
    /// Timers can be set where events are handled and requests are served only.
    Unavailable(String),
}

impl<'context> Timers<'context> {
    pub(crate) fn new(host: &'context TheHost, now: Timestamp) -> Self {
        Self { host, now }
    }

    /// Sets a timer for a point in time; one in the past falls due at once. Without content, the payload is `""`.
    pub fn set(&self, name: impl AsRef<str>, at: Timestamp, payload: impl Payload) -> Result<()> {
        self.host.timer_set(name.as_ref(), at, &payload.bytes()?).map_err(Error::from)
    }

    /// Sets a timer for so much later than the event ([`Context::now`](crate::Context::now)).
    pub fn after(&self, name: impl AsRef<str>, pause: Duration, payload: impl Payload) -> Result<()> {
        self.set(name, self.now + pause, payload)
    }

    /// Sets a timer that falls due again and again, by a cron expression in UTC: five fields (minute, hour, day of month,
    /// month, day of week) or six, with seconds first. What is always scheduled is better declared with
    /// `#[schedule(..)]`.
    pub fn schedule(&self, name: impl AsRef<str>, cron: &str, payload: impl Payload) -> Result<()> {
        self.host.timer_schedule(name.as_ref(), cron, &payload.bytes()?).map_err(Error::from)
    }

    /// Cancels a timer; one that does not exist is no error. An event that is in the inbox already stays there.
    pub fn cancel(&self, name: impl AsRef<str>) -> Result<()> {
        self.host.timer_cancel(name.as_ref()).map_err(Error::from)
    }
}

impl fmt::Display for TimerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(reason) => write!(f, "the timer is not valid: {reason}"),
            Self::QuotaExceeded(reason) => write!(f, "too many timers, or too large a payload: {reason}"),
            Self::Unavailable(reason) => write!(f, "timers cannot be set here: {reason}"),
        }
    }
}

impl std::error::Error for TimerError {}
