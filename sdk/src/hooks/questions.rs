//! What hooks are asked, and how a hook's parameters are taken from it.

use crate::event::Qos;
use crate::message::Message;

/// A client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// Client identifier.
    pub id: String,
    /// User name: the one in CONNECT, or the one that a hook gave when it allowed the client.
    pub user: Option<String>,
    /// Address of its socket, such as `192.0.2.7:50123`.
    pub address: String,
    /// MQTT version: 4 for 3.1.1, 5 for 5.0.
    pub protocol: u8,
}

/// What a client shows of itself when it connects: asked of `#[authenticate]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The client; its user name is not proven.
    pub client: Client,
    /// Password in CONNECT.
    pub password: Option<Vec<u8>>,
    /// Whether it asked for a clean start.
    pub clean_start: bool,
}

/// A step of an authentication exchange: asked of `#[auth_step(..)]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The client; its user name is not proven.
    pub client: Client,
    /// Authentication Method.
    pub method: String,
    /// Authentication Data, if the packet had any.
    pub data: Option<Vec<u8>>,
    /// What the step before gave as `next`; none in the first.
    pub state: Option<Vec<u8>>,
}

/// What a client wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Publish to a topic name.
    Publish,
    /// Subscribe to a topic filter.
    Subscribe,
    /// Leave a will for a topic name.
    Will,
}

/// What a client wants: asked of `#[authorize(..)]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Who.
    pub client: Client,
    /// What.
    pub action: Action,
    /// The topic name or filter.
    pub topic: String,
    /// The QoS asked for.
    pub qos: Qos,
    /// Whether the message is to be retained; false for a subscription.
    pub retain: bool,
}

/// A subscription that a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// The topic filter.
    pub filter: String,
    /// Highest QoS of deliveries.
    pub qos: Qos,
}

/// A client and a message of it or for it: asked of `#[intercept_publish(..)]` and `#[intercept_deliver(..)]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InFlight {
    /// The publisher, or who it is about to leave for.
    pub client: Client,
    /// The message.
    pub message: Message,
}

/// A client and a subscription that it asks for: asked of `#[intercept_subscribe(..)]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The subscriber.
    pub client: Client,
    /// The subscription.
    pub subscription: Subscription,
}

/// A type that a hook which is asked a `Q` can take as a parameter.
#[diagnostic::on_unimplemented(
    message = "a hook that is asked `{Q}` cannot take `{Self}`",
    label = "not part of the question",
    note = "a hook takes `&Context`, `&Client` and what it is asked: `&Credentials`, `&Step`, `&Access`, `&Message` or `&Subscription`"
)]
pub trait FromQuestion<'question, Q>: Sized {
    /// Takes the value from the question.
    fn from_question(question: &'question Q) -> Self;
}

impl<'question, Q> FromQuestion<'question, Q> for &'question Q {
    fn from_question(question: &'question Q) -> Self {
        question
    }
}

/// Parts of questions that hooks take by reference.
macro_rules! parts {
    ($($question:ty: $part:ident: $type:ty;)+) => {$(
        impl<'question> FromQuestion<'question, $question> for &'question $type {
            fn from_question(question: &'question $question) -> Self {
                &question.$part
            }
        }
    )+};
}

parts! {
    Credentials: client: Client;
    Step: client: Client;
    Access: client: Client;
    InFlight: client: Client;
    InFlight: message: Message;
    Wanted: client: Client;
    Wanted: subscription: Subscription;
}
