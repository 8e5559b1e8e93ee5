//! The event that a handler handles, and the small types that it is made of.
//!
//! Read only: what a handler changes, it changes through its [`Context`](crate::Context).

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::json;

/// Quality of service of a delivery or of a publish.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Qos {
    /// QoS 0.
    AtMostOnce,
    /// QoS 1, the default.
    #[default]
    AtLeastOnce,
    /// QoS 2.
    ExactlyOnce,
}

/// A further property of a message, named as in MQTT 5: `content-type`, `response-topic`, `payload-format` (`utf-8` or
/// `bytes`), `correlation-data` (base64), `message-expiry` (seconds); any other name is a user property, prefixed with `user:`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Property {
    /// The name.
    pub name: String,
    /// The value.
    pub value: String,
}

/// Where an event comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// A message on a topic that the plugin subscribes to.
    #[default]
    Message,
    /// A timer that fell due; the topic is `$timer/NAME`.
    Timer,
    /// The answer to a request, or that none came in time; the topic begins with `$reply/`.
    Response,
    /// Something happened to a client; the topic begins with `$clients/`.
    Client,
}

/// A point in time: milliseconds since the Unix epoch. As JSON it is that number; printed, it is RFC 3339 in UTC.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(u64);

/// An event from the plugin's inbox: a message published to a topic that a handler listens to, a timer, an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// See [`Event::id`].
    pub(crate) id: u64,
    /// See [`Event::kind`].
    pub(crate) kind: EventKind,
    /// See [`Event::topic`].
    pub(crate) topic: String,
    /// See [`Event::captures`].
    pub(crate) captures: Vec<String>,
    /// See [`Event::payload`].
    pub(crate) payload: Vec<u8>,
    /// See [`Event::qos`].
    pub(crate) qos: Qos,
    /// See [`Event::is_retained`].
    pub(crate) retained: bool,
    /// See [`Event::publisher`].
    pub(crate) publisher: String,
    /// See [`Event::user`].
    pub(crate) user: Option<String>,
    /// See [`Event::received_at`].
    pub(crate) received_at: Timestamp,
    /// See [`Event::attempt`].
    pub(crate) attempt: u32,
    /// See [`Event::properties`].
    pub(crate) properties: Vec<Property>,
}

impl Event {
    /// Identity of the event: the same when it is handed out again, never reused for another.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Where it comes from.
    pub fn kind(&self) -> EventKind {
        self.kind
    }

    /// The levels of the topic that wildcards stand for, of the first of the plugin's filters that matches. Handlers usually
    /// name theirs: `#[on("rooms/{room}/temperature")]`.
    pub fn captures(&self) -> &[String] {
        &self.captures
    }

    /// The topic it was published to.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The payload.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The payload as text; rejects the event if it is not UTF-8.
    pub fn text(&self) -> Result<&str> {
        std::str::from_utf8(&self.payload).map_err(|error| Error::reject(format!("the payload is not UTF-8: {error}")))
    }

    /// The payload, read from JSON; rejects the event if it is not what `T` expects, naming the field and the position.
    pub fn json<'event, T: Deserialize<'event>>(&'event self) -> Result<T> {
        serde_json::from_slice(&self.payload)
            .map_err(|error| Error::reject(format!("the payload: {}", json::explain(&self.payload, &error))))
    }

    /// QoS of the delivery to this plugin: the lower one of the message's and the subscription's.
    pub fn qos(&self) -> Qos {
        self.qos
    }

    /// Whether this is a retained message, delivered because the plugin subscribed.
    pub fn is_retained(&self) -> bool {
        self.retained
    }

    /// Client identifier of the publisher, or `$plugin/NAME`; empty for what comes from the broker itself.
    pub fn publisher(&self) -> &str {
        &self.publisher
    }

    /// User name of the publisher, if it authenticated with one.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// When the broker took the message.
    pub fn received_at(&self) -> Timestamp {
        self.received_at
    }

    /// Times the event was handed out before: 0 the first time.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Further properties; often none.
    pub fn properties(&self) -> &[Property] {
        &self.properties
    }

    /// The first property of this name, such as `content-type` or `user:unit`.
    pub fn property(&self, name: &str) -> Option<&str> {
        self.properties.iter().find(|property| property.name == name).map(|property| property.value.as_str())
    }

    /// The first user property of this name (without `user:`).
    pub fn user_property(&self, name: &str) -> Option<&str> {
        self.properties
            .iter()
            .find(|property| property.name.strip_prefix("user:") == Some(name))
            .map(|property| property.value.as_str())
    }
}

impl Timestamp {
    /// The point this many milliseconds after the Unix epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// How long after `earlier` this is; zero if it is before.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }
}

impl Sub for Timestamp {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.since(earlier)
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, millis) = (self.0 / 86_400_000, self.0 % 86_400_000);
        let (year, month, day) = civil_from_days(days);
        let (hour, minute) = (millis / 3_600_000, millis / 60_000 % 60);
        let (second, milli) = (millis / 1_000 % 60, millis % 1_000);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
    }
}

/// Year, month and day of the month, so many days after the Unix epoch, by Howard Hinnant's `civil_from_days`: years begin in
/// March, eras have 146,097 days.
pub(crate) fn civil_from_days(days: u64) -> (u64, u8, u8) {
    let shifted = days + 719_468;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + shifted / 146_097 * 400 + u64::from(month <= 2);
    // Both are below 32.
    (year, month as u8, day as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_print_as_rfc_3339() {
        for (millis, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_767_225_600_000, "2026-01-01T00:00:00.000Z"),
            (4_102_444_799_001, "2099-12-31T23:59:59.001Z"),
        ] {
            assert_eq!(Timestamp::from_millis(millis).to_string(), expected);
        }
    }

    #[test]
    fn timestamps_are_numbers_in_json_and_saturate() {
        let time = Timestamp::from_millis(1_500);
        assert_eq!(serde_json::to_string(&time).unwrap(), "1500");
        assert_eq!(time + Duration::from_secs(1), Timestamp::from_millis(2_500));
        assert_eq!(time - Duration::from_secs(2), Timestamp::from_millis(0));
        assert_eq!(Timestamp::from_millis(0) - time, Duration::ZERO);
    }
}
