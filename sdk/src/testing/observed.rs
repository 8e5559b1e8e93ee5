//! What a test looks at: published messages, requests, measurements, log lines, dead letters.

use std::fmt;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::event::{Event, Property, Qos, Timestamp};
use crate::log::Level;
use crate::message::Message;
use crate::request::RequestId;

/// A message that the plugin published.
#[derive(Clone, PartialEq, Eq)]
pub struct Published {
    /// The topic.
    pub topic: String,
    /// The payload.
    pub payload: Vec<u8>,
    /// The QoS.
    pub qos: Qos,
    /// Whether it becomes the topic's retained message.
    pub retain: bool,
    /// Further properties.
    pub properties: Vec<Property>,
    /// When it was published.
    pub at: Timestamp,
}

/// A line that the plugin logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// The level.
    pub level: Level,
    /// The plugin's name.
    pub context: String,
    /// The text.
    pub message: String,
    /// When it was logged.
    pub at: Timestamp,
}

/// An event that was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The event.
    pub event: Event,
    /// Why it was given up.
    pub reason: String,
    /// Times it was handed out.
    pub attempts: u32,
    /// When it was given up.
    pub at: Timestamp,
}

/// A request that waits for an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingRequest {
    /// See [`PendingRequest::id`].
    pub(super) id: u64,
    /// The message, with the response topic that the host gave it.
    pub message: Published,
    /// When it times out.
    pub due: Timestamp,
}

/// Something that the plugin measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Measurement {
    /// The name.
    pub name: String,
    /// Labels, in the order in which they were given.
    pub labels: Vec<(String, String)>,
    /// What was measured.
    pub value: Measured,
}

/// The value of a [`Measurement`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Measured {
    /// Added to a counter.
    Count(u64),
    /// Set as a gauge.
    Gauge(f64),
    /// Observed by a histogram.
    Observation(f64),
}

impl PendingRequest {
    /// Its identity.
    pub fn id(&self) -> RequestId {
        RequestId(self.id)
    }
}

impl Published {
    /// The message itself.
    pub(super) fn to_message(&self) -> Message {
        Message {
            topic: self.topic.clone(),
            payload: self.payload.clone(),
            qos: self.qos,
            retain: self.retain,
            properties: self.properties.clone(),
        }
    }

    /// The payload, read from JSON.
    ///
    /// # Panics
    /// If it is not what `T` expects.
    #[track_caller]
    pub fn json<T: DeserializeOwned>(&self) -> T {
        match serde_json::from_slice(&self.payload) {
            Ok(value) => value,
            Err(error) => panic!("{self:?}: {error}"),
        }
    }

    /// The payload as a JSON value; `None` if it is not JSON.
    pub fn value(&self) -> Option<Value> {
        serde_json::from_slice(&self.payload).ok()
    }

    /// The payload as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }
}

impl fmt::Debug for Published {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.topic, self.text())?;
        if self.qos != Qos::default() {
            write!(f, " {:?}", self.qos)?;
        }
        if self.retain {
            write!(f, " retained")?;
        }
        for property in &self.properties {
            write!(f, " {}={}", property.name, property.value)?;
        }
        Ok(())
    }
}
