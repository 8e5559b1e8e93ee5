//! What a handler's parameters can be taken from an event as.
//!
//! A parameter that is no capture and no context is fetched with [`FromEvent`]. What cannot be fetched rejects the event: it
//! would not be there at the next attempt either.

use std::fmt::Display;
use std::str::FromStr;

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::event::{Event, Property};

/// A type that a handler can take as a parameter.
///
/// ```
/// use vespiary_sdk::prelude::*;
/// use vespiary_sdk::FromEvent;
///
/// /// A payload such as `21.5;celsius`.
/// struct Measurement { value: f64, unit: String }
///
/// impl FromEvent<'_> for Measurement {
///     fn from_event(event: &Event) -> Result<Self> {
///         let (value, unit) = event.text()?.split_once(';').or_reject_with("no unit")?;
///         Ok(Self { value: value.parse().or_reject()?, unit: unit.into() })
///     }
/// }
///
/// #[on("rooms/{room}/temperature")]
/// fn temperature(room: &str, measurement: Measurement) {
///     info!("{room}: {} {}", measurement.value, measurement.unit);
/// }
/// # plugin! { name: "rooms", handlers: [temperature] }
/// # let mut host = vespiary_sdk::testing::TestHost::new(plugin());
/// # host.publish_bytes("rooms/attic/temperature", "21.5;celsius");
/// # assert_eq!(host.logs()[0].message, "attic: 21.5 celsius");
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be taken from an event",
    label = "neither a capture of the topic nor an extractor",
    note = "a parameter is `&mut Context`, named like a capture of the topic, or an extractor such as `Json<T>`, `&[u8]` or `&Event`"
)]
pub trait FromEvent<'event>: Sized {
    /// Takes the value from the event; an error becomes the handler's.
    fn from_event(event: &'event Event) -> Result<Self>;
}

/// A JSON payload: read as a handler's parameter, written where a message is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Json<T>(
    /// The value.
    pub T,
);

/// The payload as it is, copied. To borrow it, take `&[u8]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Raw(
    /// The bytes.
    pub Vec<u8>,
);

/// The payload as text; not UTF-8 rejects the event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text(
    /// The text.
    pub String,
);

/// The properties of the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Properties<'event>(
    /// All of them, in order.
    pub &'event [Property],
);

impl<'event> Properties<'event> {
    /// The first property of this name, such as `content-type`.
    pub fn get(&self, name: &str) -> Option<&'event str> {
        self.0.iter().find(|property| property.name == name).map(|property| property.value.as_str())
    }

    /// The first user property of this name (without `user:`).
    pub fn user(&self, name: &str) -> Option<&'event str> {
        let named = |property: &&Property| property.name.strip_prefix("user:") == Some(name);
        self.0.iter().find(named).map(|property| property.value.as_str())
    }
}

impl<'event, T: Deserialize<'event>> FromEvent<'event> for Json<T> {
    fn from_event(event: &'event Event) -> Result<Self> {
        event.json().map(Self)
    }
}

impl FromEvent<'_> for Raw {
    fn from_event(event: &Event) -> Result<Self> {
        Ok(Self(event.payload().to_vec()))
    }
}

impl FromEvent<'_> for Text {
    fn from_event(event: &Event) -> Result<Self> {
        event.text().map(|text| Self(text.to_owned()))
    }
}

impl<'event> FromEvent<'event> for &'event [u8] {
    fn from_event(event: &'event Event) -> Result<Self> {
        Ok(event.payload())
    }
}

impl<'event> FromEvent<'event> for Properties<'event> {
    fn from_event(event: &'event Event) -> Result<Self> {
        Ok(Self(event.properties()))
    }
}

impl<'event> FromEvent<'event> for &'event Event {
    fn from_event(event: &'event Event) -> Result<Self> {
        Ok(event)
    }
}

/// Parses a capture of the topic.
#[doc(hidden)]
pub fn parse_capture<T>(name: &str, text: &str) -> Result<T>
where
    T: FromStr,
    T::Err: Display,
{
    text.parse().map_err(|error| Error::reject(format!("`{name}` in the topic is `{text}`: {error}")))
}
