//! Messages that a handler publishes.

use std::borrow::Cow;
use std::fmt;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::event::{Property, Qos};
use crate::extract::{Json, Raw, Text};
use crate::host::{Host, Publication, TheHost};

/// What a payload can be made from: `Json(&value)`, text, bytes.
pub trait Payload {
    /// The bytes of the payload.
    fn bytes(&self) -> Result<Cow<'_, [u8]>>;
}

/// A message to publish; made by [`Context::message`](crate::Context::message).
#[must_use = "a message leaves only when `publish` is called"]
pub struct Message<'context, P> {
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

/// Why a publish was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublishError {
    /// The topic is not a valid topic name.
    Invalid(String),
    /// The plugin was not granted this topic: the declaration's `publishes` does not name it.
    Denied(String),
    /// The call published more messages or bytes than it may.
    QuotaExceeded(String),
}

impl<'context, P: Payload> Message<'context, P> {
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
        let payload = self.payload.bytes()?;
        let publication = Publication {
            topic: &self.topic,
            payload: &payload,
            qos: self.qos,
            retain: self.retain,
            properties: &self.properties,
        };
        self.host.publish(&publication).map_err(Error::from)
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

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(reason) => write!(f, "the message cannot be published: {reason}"),
            Self::Denied(reason) => write!(f, "the plugin may not publish this: {reason}"),
            Self::QuotaExceeded(reason) => write!(f, "the call published more than it may: {reason}"),
        }
    }
}

impl std::error::Error for PublishError {}
