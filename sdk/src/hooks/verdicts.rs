//! What hooks answer.

use super::Subscription;
use crate::message::Message;

/// Not authorized (MQTT 5.0 section 2.4).
const NOT_AUTHORIZED: u8 = 0x87;

/// Bad user name or password (MQTT 5.0 section 2.4).
const BAD_USER_NAME_OR_PASSWORD: u8 = 0x86;

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// An MQTT 5 reason code of 0x80 or above.
    pub code: u8,
    /// Why, for the log and, where the client wants it, for its Reason String.
    pub reason: String,
}

/// An answer of `#[authenticate]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authentication {
    /// It is who it claims to be; with the user name to know it by, if that is another than the one in CONNECT.
    Allow(Option<String>),
    /// It is not.
    Deny(Refusal),
    /// Somebody else is to say: the next hook, or the broker's configuration.
    Pass,
}

/// An answer of `#[auth_step(..)]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// The client has to answer.
    Continue {
        /// Authentication Data for the client.
        data: Vec<u8>,
        /// What the next step is handed.
        next: Vec<u8>,
    },
    /// It is who it claims to be.
    Success {
        /// Authentication Data for the client.
        data: Option<Vec<u8>>,
        /// The user name to know it by.
        user: Option<String>,
    },
    /// It is not.
    Deny(Refusal),
}

/// An answer of `#[authorize(..)]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authorization {
    /// It may.
    Allow,
    /// It may not.
    Deny(Refusal),
    /// Somebody else is to say: the next hook, or the broker's configuration.
    Pass,
}

/// An answer of `#[intercept_publish(..)]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublishVerdict {
    /// The message goes on as it is.
    Keep,
    /// This one goes on in its place. Its topic may be another.
    Replace(Message),
    /// It ends here; the client is told that it was taken.
    Drop,
    /// It ends here, and the client is told so.
    Deny(Refusal),
}

/// An answer of `#[intercept_subscribe(..)]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubscribeVerdict {
    /// The subscription is made as it is.
    Keep,
    /// This one is made in its place.
    Replace(Subscription),
    /// It is refused.
    Deny(Refusal),
}

/// An answer of `#[intercept_deliver(..)]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeliverVerdict {
    /// The client gets the message as it is.
    Keep,
    /// It gets this one; the QoS of the delivery stays.
    Replace(Message),
    /// It does not get it.
    Drop,
}

impl Refusal {
    /// A refusal with a reason code of your choice.
    pub fn new(code: u8, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into() }
    }

    /// Not authorized (0x87).
    pub fn not_authorized(reason: impl Into<String>) -> Self {
        Self::new(NOT_AUTHORIZED, reason)
    }
}

impl Authentication {
    /// It is who it claims to be.
    pub fn allow() -> Self {
        Self::Allow(None)
    }

    /// It is allowed, and known by this user name.
    pub fn allow_as(user: impl Into<String>) -> Self {
        Self::Allow(Some(user.into()))
    }

    /// Bad user name or password (0x86).
    pub fn deny(reason: impl Into<String>) -> Self {
        Self::Deny(Refusal::new(BAD_USER_NAME_OR_PASSWORD, reason))
    }
}

impl Progress {
    /// Not authorized (0x87).
    pub fn deny(reason: impl Into<String>) -> Self {
        Self::Deny(Refusal::not_authorized(reason))
    }
}

impl Authorization {
    /// Not authorized (0x87).
    pub fn deny(reason: impl Into<String>) -> Self {
        Self::Deny(Refusal::not_authorized(reason))
    }
}

impl PublishVerdict {
    /// Not authorized (0x87).
    pub fn deny(reason: impl Into<String>) -> Self {
        Self::Deny(Refusal::not_authorized(reason))
    }
}

impl SubscribeVerdict {
    /// Not authorized (0x87).
    pub fn deny(reason: impl Into<String>) -> Self {
        Self::Deny(Refusal::not_authorized(reason))
    }
}
