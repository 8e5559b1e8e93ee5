//! What hooks are asked, and what they answer; the host's own types for the interface `hooks`.
//!
//! An answer that the contract does not allow (a topic that is none, a reason code that is no error) is an error of the call and
//! not an answer, so that whoever asks has one kind of failure to decide about.

use std::sync::Arc;

use vespiary_core::event::Protocol;
use vespiary_core::message::{Message, Qos};
use vespiary_core::topic::TopicFilter;

/// A client, as hooks see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookClient {
    /// Client identifier.
    pub id: Arc<str>,
    /// User name: the one in CONNECT, or the one that a hook gave when it allowed the client.
    pub user: Option<Arc<str>>,
    /// Address of its socket.
    pub address: Arc<str>,
    /// What it speaks.
    pub protocol: Protocol,
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// An MQTT 5 reason code of 0x80 or above.
    pub code: u8,
    /// Why, for people; bounded.
    pub reason: String,
}

/// What `authenticate` is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The client; its user name is not proven.
    pub client: HookClient,
    /// Password in CONNECT.
    pub password: Option<Vec<u8>>,
    /// Whether it asked for a clean start.
    pub clean_start: bool,
}

/// An answer of `authenticate`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authentication {
    /// It is who it claims to be; with the user name to know it by, if that is another.
    Allow(Option<String>),
    /// It is not.
    Deny(Refusal),
    /// Somebody else is to say.
    Pass,
}

/// What `auth-step` is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthStep {
    /// The client; its user name is not proven.
    pub client: HookClient,
    /// Authentication Method.
    pub method: String,
    /// Authentication Data, if the packet had any.
    pub data: Option<Vec<u8>>,
    /// What the step before gave as `next`; `None` in the first.
    pub state: Option<Vec<u8>>,
}

/// An answer of `auth-step`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthProgress {
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

/// What a client wants to do, to `authorize`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Publish to a topic name.
    Publish,
    /// Subscribe to a topic filter.
    Subscribe,
    /// Leave a will for a topic name.
    Will,
}

/// What `authorize` is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Who.
    pub client: HookClient,
    /// What.
    pub action: Action,
    /// The topic name or filter.
    pub topic: Arc<str>,
    /// The QoS asked for.
    pub qos: Qos,
    /// Whether the message is to be retained; false for a subscription.
    pub retain: bool,
}

/// An answer of `authorize`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authorization {
    /// It may.
    Allow,
    /// It may not.
    Deny(Refusal),
    /// Somebody else is to say.
    Pass,
}

/// A message on its way: what `intercept-publish` and `intercept-deliver` are asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Passing {
    /// Who published it, or who is to get it.
    pub client: HookClient,
    /// The message.
    pub message: Arc<Message>,
    /// The QoS to show: of the publish, or of the delivery.
    pub qos: Qos,
    /// The RETAIN flag to show: of the publish, or of the delivery.
    pub retain: bool,
}

/// An answer of `intercept-publish`. A message that replaces another keeps its publisher, its user and its time.
#[derive(Debug, Clone, PartialEq)]
pub enum PublishVerdict {
    /// It goes on as it is.
    Keep,
    /// This one goes on in its place.
    Replace(Box<Message>),
    /// It ends here; the client is told that it was taken.
    Drop,
    /// It ends here, and the client is told so.
    Deny(Refusal),
}

/// A subscription that a client asks for: what `intercept-subscribe` is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribing {
    /// Who.
    pub client: HookClient,
    /// The topic filter, with `$share/NAME/` where it is shared.
    pub filter: TopicFilter,
    /// Highest QoS of deliveries.
    pub qos: Qos,
}

/// An answer of `intercept-subscribe`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubscribeVerdict {
    /// The subscription is made as it is.
    Keep,
    /// This one is made in its place.
    Replace {
        /// The topic filter.
        filter: TopicFilter,
        /// Highest QoS of deliveries.
        qos: Qos,
    },
    /// It is refused.
    Deny(Refusal),
}

/// An answer of `intercept-deliver`. A message that replaces another keeps its publisher, its user and its time; its QoS and its
/// RETAIN flag are those of the delivery, whatever it says.
#[derive(Debug, Clone, PartialEq)]
pub enum DeliverVerdict {
    /// The client gets the message as it is.
    Keep,
    /// It gets this one.
    Replace(Box<Message>),
    /// It does not get it.
    Drop,
}

impl Action {
    /// Every action, in the order of their declaration.
    pub const ALL: [Self; 3] = [Self::Publish, Self::Subscribe, Self::Will];

    /// Its name in the contract and in manifests.
    pub fn name(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Subscribe => "subscribe",
            Self::Will => "will",
        }
    }
}
