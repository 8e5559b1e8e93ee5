//! What a handler works with: the event, the plugin's state and configuration, and a way to publish.

use std::rc::Rc;

use crate::config::Config;
use crate::error::Result;
use crate::event::{Event, Timestamp};
use crate::host::TheHost;
use crate::message::{Message, Payload};
use crate::state::State;

/// A handler's access to everything outside itself, for one event.
///
/// Everything done through it belongs to the event's transaction: it takes effect when the handler returns `Ok`, and not at all if
/// it fails or panics, or if the broker dies meanwhile.
pub struct Context {
    /// The event that is handled.
    event: Rc<Event>,
    /// The plugin's state.
    state: State,
    /// The plugin's configuration.
    config: Config,
    /// Where publishes go.
    host: TheHost,
}

impl Context {
    pub(crate) fn new(event: Rc<Event>, host: &TheHost) -> Self {
        Self { event, state: State::new(host.clone()), config: Config::new(host.clone()), host: host.clone() }
    }

    /// The event that is handled.
    pub fn event(&self) -> &Event {
        &self.event
    }

    /// When the broker took the event: the time to calculate with, since it is the same at every attempt.
    pub fn now(&self) -> Timestamp {
        self.event.received_at()
    }

    /// The plugin's state.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The plugin's configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Publishes with QoS 1, not retained; [`message`](Self::message) has the other choices.
    ///
    /// The message leaves when the event's transaction commits. Fails if the topic is not valid, not granted, or if the call
    /// has published as much as it may; see [`PublishError`](crate::PublishError).
    ///
    /// ```
    /// # use vespiary_sdk::prelude::*;
    /// # fn handler(cx: &mut Context) -> Result<()> {
    /// cx.publish("rooms/attic/alerts", Json(&json!({ "celsius": 31.5 })))?;
    /// cx.publish("rooms/attic/state", "hot")?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn publish(&self, topic: impl AsRef<str>, payload: impl Payload) -> Result<()> {
        self.message(topic.as_ref(), payload).publish()
    }

    /// A message to set up and then [`publish`](Message::publish).
    ///
    /// ```
    /// # use vespiary_sdk::prelude::*;
    /// # fn handler(cx: &mut Context) -> Result<()> {
    /// cx.message("rooms/attic/state", Json("hot"))
    ///     .qos(Qos::ExactlyOnce)
    ///     .retain()
    ///     .user_property("unit", "celsius")
    ///     .publish()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn message<P: Payload>(&self, topic: impl Into<String>, payload: P) -> Message<'_, P> {
        Message::new(&self.host, topic.into(), payload)
    }

    /// Publishes the answer to a request: to the event's response topic, with its correlation data (MQTT 5.0
    /// section 4.10). Gives `false`, and does nothing, if the event asks for no answer. The response topic must be granted.
    pub fn reply(&self, payload: impl Payload) -> Result<bool> {
        let Some(topic) = self.event.property("response-topic") else { return Ok(false) };
        let mut message = self.message(topic, payload);
        if let Some(correlation) = self.event.property("correlation-data") {
            message = message.property("correlation-data", correlation);
        }
        message.publish().map(|()| true)
    }

    /// Turns to the next event.
    pub(crate) fn turn_to(&mut self, event: Rc<Event>) {
        self.event = event;
    }
}
