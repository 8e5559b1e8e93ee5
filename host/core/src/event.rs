//! The vocabulary: what can happen to the broker ([`Input`]), what it asks for ([`Effect`]), and what has to be on
//! disk ([`Change`]).
//!
//! All three are closed sums, matched without a catch-all. [`Effects`] is the one out-parameter of
//! [`Broker::handle`](crate::Broker::handle): effects and changes in the order in which they arose.
//!
//! An effect that promises something carries the number of the last change that the promise rests on; whoever
//! carries it out holds it until that number is durable. Number 0 rests on nothing.

mod change;
mod effect;
mod input;
mod reason;

use std::sync::Arc;

use crate::message::Timestamp;
use crate::topic::Topic;

pub use change::{Change, DeadLetter, ProbationRecord, QueueEntry, SessionRecord, SubscriptionRecord};
pub use effect::{Delivery, DropReason, Effect, Effects, FanOut, InboxEvent, Packet, Receiver};
pub use input::{
    AcknowledgeStep, Activation, Connect, DeadLetterAction, Disconnect, EventKey, GenerationStep, Input, Lanes,
    LoadedEntry, Outcome, ProbationVerdict, Protocol, Publish, RetainHandling, Revision, Settlement, StateWrite,
    Subscribe, SubscriptionOptions, TimerWrite, Will,
};
pub use reason::ReasonCode;

/// A network connection, named by whoever accepted it; never reused while the process lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// A session, durable or not; unique for the life of a data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// Position of a message in a session's queue or in a plugin's inbox. Grows with time across all sessions and is never
/// reused in the life of a data directory, so a plugin can use it to recognise an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Sequence(pub u64);

/// Number of a change since the broker started, from 1; 0 is before all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ChangeNumber(pub u64);

/// A shared subscription of a session, numbered upwards within the session: queue entries name by it the group that
/// they came through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShareNumber(pub std::num::NonZeroU16);

/// Names one [`Effect::Load`]; its answer brings it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LoadTicket(pub u64);

/// One of the lanes over which a plugin's events are spread, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lane(pub u16);

/// Names one [`Input::Commit`]; its answer brings it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitTicket(pub u64);

/// A plugin's durable timer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timer {
    /// When it falls due.
    pub at: Timestamp,
    /// The schedule by which it is to be set again, in words that only the setter understands; its event carries it as
    /// the user property [`SCHEDULE_PROPERTY`].
    pub schedule: Option<Arc<str>>,
    /// Whether the manifest of the active revision declares it.
    pub declared: bool,
    /// Payload of its event.
    pub payload: Arc<[u8]>,
}

/// First level of the topics of timers' events: `$timer/NAME`.
pub const TIMER_TOPICS: &str = "$timer";
/// First level of the topics on which requests of plugins are answered: `$reply/PLUGIN/REQUEST`.
pub const REPLY_TOPICS: &str = "$reply";
/// First level of the topics on which the broker tells what happens to clients: `$clients/CLIENT/EVENT`.
pub const CLIENT_TOPICS: &str = "$clients";
/// First level of the topics on which dead letters are published: `$dead/PLUGIN/TOPIC`.
pub const DEAD_LETTER_TOPICS: &str = "$dead";

/// What the name of a timer begins with that stands for a request of a plugin; the request's number follows.
pub const REQUEST_TIMER: &str = "$request/";

/// User property of a timer's event: its schedule.
pub const SCHEDULE_PROPERTY: &str = "schedule";
/// User property of an event of a request: the request's number.
pub const REQUEST_PROPERTY: &str = "request";
/// User property of an event of a request that was not answered in time: `timeout`.
pub const ERROR_PROPERTY: &str = "error";

/// What kind of event a message is to a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// A message that somebody published.
    Message,
    /// A timer that fell due.
    Timer,
    /// The answer to a request, or that none came.
    Response,
    /// Something happened to a client.
    Client,
}

impl EventKind {
    /// The kind of what comes on a topic.
    pub fn of(topic: &Topic) -> Self {
        match topic.as_str().split_once('/').map_or("", |(first, _)| first) {
            TIMER_TOPICS => Self::Timer,
            REPLY_TOPICS => Self::Response,
            CLIENT_TOPICS => Self::Client,
            _ => Self::Message,
        }
    }
}

/// Packet identifier of a QoS 1 or 2 exchange: 1 to 65,535 [MQTT-2.2.1-3].
pub type PacketId = std::num::NonZeroU16;

/// A plugin's name: 1 to 64 of `a-z`, `0-9` and `-`, beginning with a letter (checked where manifests are read).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PluginName(pub Arc<str>);
