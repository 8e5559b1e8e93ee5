//! Messages: those that a handler publishes, and those that it is shown.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::event::{Property, Qos};
use crate::extract::{Json, Raw, Text};
use crate::host::{Host, Publication, TheHost};
use crate::json;

/// What a payload can be made from: `Json(&value)`, text, bytes.
pub trait Payload {
    /// The bytes of the payload.
    fn bytes(&self) -> Result<Cow<'_, [u8]>>;
}

/// A message that is: a retained one, or one on its way that a hook is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The topic name.
    pub topic: String,
    /// The payload.
    pub payload: Vec<u8>,
    /// The QoS.
    pub qos: Qos,
    /// Whether it becomes, or is, the topic's retained message.
    pub retain: bool,
    /// Further properties.
    pub properties: Vec<Property>,
}

/// A message to publish; made by [`Context::message`](crate::Context::message).
#[must_use = "a message leaves only when `publish` is called"]
pub struct Draft<'context, P> {
    /// Where it goes.
    host: &'context TheHost,
    /// The topic.
    topic: String,
    /// The payload.
    payload: P,
    /// The QoS.
    qos: Qos,
    /// Whether it becomes the topic's retained message.
    retain: bool,
    /// Further properties.
    properties: Vec<Property>,
}

/// Why the broker refused something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BrokerError {
    /// A topic, a property or a client identifier is not valid.
    Invalid(String),
    /// The plugin was not granted this: the declaration does not ask for it, or the operator refuses it.
    Denied(String),
    /// The call did more of this than it may.
    QuotaExceeded(String),
    /// The broker cannot be asked here or now.
    Unavailable(String),
}

impl Message {
    /// The payload as text; an error if it is not UTF-8.
    pub fn text(&self) -> Result<&str, std::str::Utf8Error> {
        std::str::from_utf8(&self.payload)
    }

    /// The payload, read from JSON; the error names the field and the position.
    pub fn json<'message, T: Deserialize<'message>>(&'message self) -> Result<T> {
        serde_json::from_slice(&self.payload).map_err(|error| {
            Error::reject(format!("the message on `{}`: {}", self.topic, json::explain(&self.payload, &error)))
        })
    }

    /// The first property of this name, such as `content-type` or `user:unit`.
    pub fn property(&self, name: &str) -> Option<&str> {
        self.properties.iter().find(|property| property.name == name).map(|property| property.value.as_str())
    }
}

impl<'context, P: Payload> Draft<'context, P> {
    pub(crate) fn new(host: &'context TheHost, topic: String, payload: P) -> Self {
        Self { host, topic, payload, qos: Qos::default(), retain: false, properties: Vec::new() }
    }

    /// Sets the QoS; without this it is QoS 1.
    pub fn qos(mut self, qos: Qos) -> Self {
        self.qos = qos;
        self
    }

    /// Makes it the topic's retained message; with an empty payload (`""`), the topic has none from then on.
    pub fn retain(mut self) -> Self {
        self.retain = true;
        self
    }

    /// Adds a property; see [`Property`] for the names.
    pub fn property(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.properties.push(Property { name: name.into(), value: value.into() });
        self
    }

    /// Adds a user property; its name is given without `user:`.
    pub fn user_property(self, name: &str, value: impl Into<String>) -> Self {
        self.property(format!("user:{name}"), value)
    }

    /// Publishes the message: it leaves when the event's transaction commits.
    pub fn publish(self) -> Result<()> {
        let host = self.host;
        self.with_publication(|publication| host.publish(publication).map_err(Error::from))
    }

    pub(crate) fn host(&self) -> &'context TheHost {
        self.host
    }

    /// Does something with it in the form that the host takes.
    pub(crate) fn with_publication<T>(self, send: impl FnOnce(&Publication<'_>) -> Result<T>) -> Result<T> {
        let payload = self.payload.bytes()?;
        send(&Publication {
            topic: &self.topic,
            payload: &payload,
            qos: self.qos,
            retain: self.retain,
            properties: &self.properties,
        })
    }
}

impl<T: Serialize> Payload for Json<T> {
    fn bytes(&self) -> Result<Cow<'_, [u8]>> {
        Ok(Cow::Owned(serde_json::to_vec(&self.0)?))
    }
}

impl Payload for Raw {
    fn bytes(&self) -> Result<Cow<'_, [u8]>> {
        Ok(Cow::Borrowed(&self.0))
    }
}

impl Payload for Text {
    fn bytes(&self) -> Result<Cow<'_, [u8]>> {
        Ok(Cow::Borrowed(self.0.as_bytes()))
    }
}

impl Payload for [u8] {
    fn bytes(&self) -> Result<Cow<'_, [u8]>> {
        Ok(Cow::Borrowed(self))
    }
}

impl<const N: usize> Payload for [u8; N] {
    fn bytes(&self) -> Result<Cow<'_, [u8]>> {
        Ok(Cow::Borrowed(self))
    }
}

impl Payload for Vec<u8> {
    fn bytes(&self) -> Result<Cow<'_, [u8]>> {
        Ok(Cow::Borrowed(self))
    }
}

impl Payload for str {
    fn bytes(&self) -> Result<Cow<'_, [u8]>> {
        Ok(Cow::Borrowed(self.as_bytes()))
    }
}

impl Payload for String {
    fn bytes(&self) -> Result<Cow<'_, [u8]>> {
        Ok(Cow::Borrowed(self.as_bytes()))
    }
}

impl<P: Payload + ?Sized> Payload for &P {
    fn bytes(&self) -> Result<Cow<'_, [u8]>> {
        (**self).bytes()
    }
}

impl fmt::Display for BrokerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(reason) => write!(f, "the broker cannot do this: {reason}"),
            Self::Denied(reason) => write!(f, "the plugin may not do this: {reason}"),
            Self::QuotaExceeded(reason) => write!(f, "the call did more than it may: {reason}"),
            Self::Unavailable(reason) => write!(f, "the broker cannot be asked: {reason}"),
        }
    }
}

impl std::error::Error for BrokerError {}
