//! The broker as a value.
//!
//! [`Broker`] owns everything that outlives a network connection: sessions, packet identifiers, in-flight windows,
//! queues, QoS 1 and 2 ledgers, subscriptions, retained messages, wills, and the inboxes of plugins. It is changed
//! through [`Broker::handle`] alone, which does no I/O, reads no clock, has no randomness, cannot fail and cannot
//! panic on input. What has to survive a restart leaves it as [`Change`] values and nothing else.
//!
//! Reading order: [`event`] (the vocabulary), [`broker`] (one match, one method per input), then [`session`],
//! [`subscriptions`] and [`retained`], which rest on [`message`], [`topic`] and [`limits`].

#![forbid(unsafe_code)]

pub mod event;

pub mod broker;
pub mod ledger;

pub mod retained;
pub mod session;
pub mod subscriptions;

mod key;
pub mod limits;
pub mod message;
pub mod topic;

#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;

pub use broker::Broker;
pub use event::{Change, ChangeNumber, Effect, Effects, Input};
pub use ledger::Ledger;
pub use limits::{Limits, SharedStrategy};
pub use message::{Message, Qos, Timestamp};
pub use topic::{Topic, TopicFilter};
