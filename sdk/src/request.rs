//! Requests: a message that asks for an answer, and the event that brings it.
//!
//! A handler does not wait. It sends a request under a tag and returns; the answer, or that none came in time, is an event
//! for the handler marked `#[on_response("tag")]`. So a restart in between loses nothing. Which tag a request has is kept
//! under [`KEPT_UNDER`] in the plugin's state until then.

use std::fmt;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::event::Event;
use crate::extract::FromEvent;
use crate::host::{Host, TheHost};
use crate::message::{Draft, Payload};
use crate::state::StateError;

/// Prefix of the keys that hold tags.
pub(crate) const KEPT_UNDER: &str = "$request/";

/// How long a request waits unless it is told.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A request to set up and then [`send`](Self::send); from [`Context::request`](crate::Context::request).
///
/// ```
/// use std::time::Duration;
/// use vespiary_sdk::prelude::*;
///
/// plugin! { name: "orders", handlers: [ordered, located], publishes: ["locations/ask", "orders/+/located"] }
///
/// #[on("orders/{order}")]
/// fn ordered(cx: &mut Context, order: &str, Text(asset): Text) -> Result<()> {
///     cx.request("locations/ask", asset).tag(format!("where/{order}")).timeout(Duration::from_secs(5)).send()?;
///     Ok(())
/// }
///
/// #[on_response("where/{order}")]
/// fn located(cx: &mut Context, order: &str, answer: Answer<Text>) -> Result<()> {
///     match answer {
///         Answer::Given(Text(place)) => cx.publish(format!("orders/{order}/located"), place),
///         Answer::TimedOut => cx.publish(format!("orders/{order}/located"), "unknown"),
///     }
/// }
///
/// let mut host = vespiary_sdk::testing::TestHost::new(plugin());
/// host.publish_bytes("orders/7", "pump");
/// host.answer("locations/ask", "hall 3");
/// host.publish_bytes("orders/8", "fan");
/// host.advance(Duration::from_secs(5));
/// assert_eq!(host.published("orders/7/located")[0].text(), "hall 3");
/// assert_eq!(host.published("orders/8/located")[0].text(), "unknown");
/// ```
#[must_use = "a request leaves only when `send` is called"]
pub struct Request<'context, P> {
    /// The message.
    draft: Draft<'context, P>,
    /// What its answer is recognised by.
    tag: Option<String>,
    /// How long it waits.
    timeout: Duration,
}

/// Identity of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub(crate) u64);

/// What came of a request: a parameter of handlers marked `#[on_response(..)]`. `T` is what the answer is taken as, such as
/// `Json<Location>` or `Text`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer<T> {
    /// The answer.
    Given(T),
    /// None came in time.
    TimedOut,
}

impl<'context, P: Payload> Request<'context, P> {
    pub(crate) fn new(draft: Draft<'context, P>) -> Self {
        Self { draft, tag: None, timeout: TIMEOUT }
    }

    /// Sets what the answer is recognised by: `#[on_response("where/{order}")]` takes the answers to requests with a tag
    /// like `where/17`. Levels between `/` may be captured.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tag = Some(tag.into());
        self
    }

    /// Sets how long it waits for an answer; without this, 30 seconds.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Adds a user property; its name is given without `user:`.
    pub fn user_property(mut self, name: &str, value: impl Into<String>) -> Self {
        self.draft = self.draft.user_property(name, value);
        self
    }

    /// Sends it, when the event's transaction commits. Exactly one event follows: the answer or the timeout.
    pub fn send(self) -> Result<RequestId> {
        let Self { draft, tag, timeout } = self;
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        let host = draft.host();
        let id = draft.with_publication(|publication| host.request(publication, timeout_ms).map_err(Error::from))?;
        if let Some(tag) = tag {
            host.state_set(&key(id), tag.as_bytes())?;
        }
        Ok(RequestId(id))
    }
}

/// The key that holds the tag of a request.
fn key(id: u64) -> String {
    format!("{KEPT_UNDER}{id}")
}

/// Takes the tag of an answered request out of the state.
pub(crate) fn take_tag(host: &TheHost, event: &Event) -> Result<Option<String>, StateError> {
    let Ok(RequestId(id)) = RequestId::from_event(event) else { return Ok(None) };
    let key = key(id);
    let Some(tag) = host.state_get(&key)? else { return Ok(None) };
    host.state_delete(&key)?;
    Ok(Some(String::from_utf8_lossy(&tag).into_owned()))
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromEvent<'_> for RequestId {
    fn from_event(event: &Event) -> Result<Self> {
        let id = event.user_property("request").and_then(|id| id.parse().ok());
        id.map(Self).ok_or_else(|| Error::reject("the event answers no request"))
    }
}

impl<'event, T: FromEvent<'event>> FromEvent<'event> for Answer<T> {
    fn from_event(event: &'event Event) -> Result<Self> {
        RequestId::from_event(event)?;
        if event.user_property("error") == Some("timeout") {
            Ok(Self::TimedOut)
        } else {
            T::from_event(event).map(Self::Given)
        }
    }
}
