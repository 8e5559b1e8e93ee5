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

pub use change::{Change, DeadLetter, QueueEntry, SessionRecord, SubscriptionRecord};
pub use effect::{Delivery, DropReason, Effect, Effects, FanOut, InboxEvent, Packet, Receiver};
pub use input::{
    AcknowledgeStep, Activation, Connect, Disconnect, Input, LoadedEntry, Outcome, Protocol, Publish, RetainHandling,
    Revision, Settlement, StateWrite, Subscribe, SubscriptionOptions, Will,
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

/// Packet identifier of a QoS 1 or 2 exchange: 1 to 65,535 [MQTT-2.2.1-3].
pub type PacketId = std::num::NonZeroU16;

/// A plugin's name: 1 to 64 of `a-z`, `0-9` and `-`, beginning with a letter (checked where manifests are read).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PluginName(pub Arc<str>);
