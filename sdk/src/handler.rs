//! Handlers: what the macros declare about a function, and which events it takes.

use std::fmt;

use crate::context::Context;
use crate::error::{Error, Result};
use crate::event::{Event, EventKind};
use crate::pattern::{self, Level, MAX_WILDCARDS};

/// What `#[on(..)]` and its siblings declare about a function.
#[doc(hidden)]
#[derive(Clone, Copy)]
pub struct Handler {
    /// The function's name.
    pub name: &'static str,
    /// Which events it takes.
    pub trigger: Trigger,
    /// Fetches the parameters and calls the function; gets what the pattern captured.
    pub run: fn(&mut Context, &Event, &[&str]) -> Result<()>,
}

/// Which events a handler takes.
#[doc(hidden)]
#[derive(Clone, Copy)]
pub enum Trigger {
    /// Messages: `#[on(..)]`, `#[on_client(..)]`.
    Topic {
        /// The topic filter to subscribe to.
        filter: &'static str,
        /// The topic filter as a JSON string.
        filter_json: &'static str,
        /// QoS of the subscription.
        qos: u8,
        /// The pattern that topics are matched against.
        levels: &'static [Level<'static>],
    },
    /// Timers: `#[on_timer(..)]`.
    Timer {
        /// The pattern that names are matched against.
        levels: &'static [Level<'static>],
    },
    /// A timer that is always there: `#[schedule(..)]`.
    Schedule {
        /// Its name.
        name: &'static str,
        /// The cron expression.
        cron: &'static str,
        /// The payload of its events.
        payload: &'static str,
        /// Its entry in the manifest.
        json: &'static str,
    },
    /// Answers: `#[on_response(..)]`.
    Response {
        /// The pattern that the tags of requests are matched against; none for requests without a tag.
        levels: Option<&'static [Level<'static>]>,
    },
}

impl Trigger {
    /// Whether it takes an event; on success, what was captured is in `captures`. `tag` is that of the request that is
    /// answered.
    pub(crate) fn takes<'event>(
        &self,
        event: &'event Event,
        tag: Option<&'event str>,
        captures: &mut [&'event str; MAX_WILDCARDS],
    ) -> bool {
        match (self, event.kind()) {
            (Self::Topic { levels, .. }, EventKind::Message | EventKind::Client) => {
                pattern::matches(levels.iter().copied(), event.topic(), captures)
            }
            (Self::Timer { levels }, EventKind::Timer) => {
                pattern::matches(levels.iter().copied(), timer_name(event), captures)
            }
            (Self::Schedule { name, .. }, EventKind::Timer) => timer_name(event) == *name,
            (Self::Response { levels: None }, EventKind::Response) => tag.is_none(),
            (Self::Response { levels: Some(levels) }, EventKind::Response) => {
                tag.is_some_and(|tag| pattern::matches(levels.iter().copied(), tag, captures))
            }
            (
                Self::Topic { .. } | Self::Timer { .. } | Self::Schedule { .. } | Self::Response { .. },
                EventKind::Message | EventKind::Client | EventKind::Timer | EventKind::Response,
            ) => false,
        }
    }
}

/// The name of the timer that fell due.
fn timer_name(event: &Event) -> &str {
    event.topic().strip_prefix("$timer/").unwrap_or(event.topic())
}

impl fmt::Debug for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// What a handler may return: nothing, or a result.
#[doc(hidden)]
pub fn into_result(returned: impl HandlerResult) -> Result<()> {
    returned.into_result()
}

/// What a handler may return.
#[diagnostic::on_unimplemented(
    message = "a handler returns `Result<()>` or nothing, not `{Self}`",
    label = "not what a handler returns"
)]
pub trait HandlerResult {
    /// The result.
    fn into_result(self) -> Result<()>;
}

impl HandlerResult for () {
    fn into_result(self) -> Result<()> {
        Ok(())
    }
}

impl<E: Into<Error>> HandlerResult for Result<(), E> {
    fn into_result(self) -> Result<()> {
        self.map_err(Into::into)
    }
}
