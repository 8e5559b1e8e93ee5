//! Steps: what is asked, how the answer is taken, and what undoes it.

use std::time::Duration;

use crate::context::Context;
use crate::error::Result;
use crate::event::Event;
use crate::message::Payload;

/// How long an answer may take unless it is told.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What is asked for; gets the context, the saga's identity and what it knows.
pub(super) type AskFunction<D> = fn(&Context, &str, &D) -> Result<Ask>;

/// What an answer says.
pub(super) type ReplyFunction<D> = fn(&mut D, &Event) -> Result<Reply>;

/// A step of a saga.
///
/// It asks by a function that looks at what the saga knows, and takes the answer by another. An error of the first that
/// [rejects](crate::Error::reject) counts as a refusal of the step; any other error fails the event, which is tried again. An error of
/// the second means that the answer makes no sense: the step may be done, and is undone.
pub struct Step<D> {
    /// Its name, by which the saga's state knows it.
    pub(super) name: &'static str,
    /// What does it.
    pub(super) action: Exchange<D>,
    /// What undoes it; nothing if there is nothing to undo.
    pub(super) compensation: Option<Exchange<D>>,
    /// Whether the saga goes on without it.
    pub(super) optional: bool,
}

/// A question and its answer.
pub(super) struct Exchange<D> {
    /// Asks.
    pub(super) ask: AskFunction<D>,
    /// Takes the answer.
    pub(super) reply: ReplyFunction<D>,
}

/// What a step or a compensation asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// What is sent.
    pub(super) kind: Kind,
    /// How long the answer may take.
    pub(super) timeout: Duration,
}

/// What is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// A request: the answer finds its way by itself.
    Request(String, Vec<u8>),
    /// A message; the plugin recognises the answer.
    Message(String, Vec<u8>),
    /// Nothing: there is nothing to do.
    Nothing,
}

/// What an answer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// It is done.
    Accepted,
    /// It is not done, for this reason. A step that is refused is not undone.
    Refused(String),
}

impl<D> Step<D> {
    /// A step that asks and takes the answer so. The name is what the saga's state knows it by: later versions of the plugin
    /// find it under the same one.
    pub fn new(name: &'static str, ask: AskFunction<D>, reply: ReplyFunction<D>) -> Self {
        Self { name, action: Exchange { ask, reply }, compensation: None, optional: false }
    }

    /// Sets what undoes it. A compensation may come twice, and for something that was never done; it should accept both.
    pub fn compensated_by(mut self, ask: AskFunction<D>, reply: ReplyFunction<D>) -> Self {
        self.compensation = Some(Exchange { ask, reply });
        self
    }

    /// Lets the saga go on if the step is refused or not answered.
    pub fn optional(mut self) -> Self {
        self.optional = true;
        self
    }
}

impl Ask {
    /// Asks by a request: `#[on_response("saga/NAME/{id}/{turn}")]` gets the answer.
    pub fn request(topic: impl Into<String>, payload: impl Payload) -> Result<Self> {
        Ok(Self { kind: Kind::Request(topic.into(), payload.bytes()?.into_owned()), timeout: TIMEOUT })
    }

    /// Asks by a message. The answer is an event that some handler of the plugin recognises and hands to
    /// [`Saga::resume`](super::Saga::resume), or for a compensation to [`Saga::acknowledge`](super::Saga::acknowledge).
    pub fn message(topic: impl Into<String>, payload: impl Payload) -> Result<Self> {
        Ok(Self { kind: Kind::Message(topic.into(), payload.bytes()?.into_owned()), timeout: TIMEOUT })
    }

    /// Asks nothing: the step is not needed, and the saga goes on. A compensation that asks nothing counts as acknowledged.
    pub fn nothing() -> Result<Self> {
        Ok(Self { kind: Kind::Nothing, timeout: TIMEOUT })
    }

    /// Sets how long the answer may take; without this, 30 seconds.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

impl Reply {
    /// A refusal with a reason.
    pub fn refused(reason: impl Into<String>) -> Self {
        Self::Refused(reason.into())
    }

    /// Takes any answer as acceptance: for [`Step::new`] and [`Step::compensated_by`].
    pub fn accepted<D>(_data: &mut D, _answer: &Event) -> Result<Self> {
        Ok(Self::Accepted)
    }
}
