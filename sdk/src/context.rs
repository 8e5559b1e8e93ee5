//! What a handler works with: the event, state, timers, configuration, and ways to reach others.

use std::rc::Rc;

use crate::config::Config;
use crate::error::Result;
use crate::event::{Event, Timestamp};
use crate::host::{Host, TheHost};
use crate::http::Http;
use crate::message::{BrokerError, Draft, Message, Payload};
use crate::metrics::Metrics;
use crate::request::Request;
use crate::secret::{Secret, SecretError};
use crate::state::State;
use crate::timers::Timers;

/// A handler's access to everything outside itself, for one event, one HTTP request or one question to a hook.
///
/// Everything done through it belongs to one transaction: it takes effect when the handler returns `Ok`, and not at all if
/// it fails or panics, or if the broker dies meanwhile. A hook runs while its client waits: it reads, and whatever it would
/// change is refused.
pub struct Context {
    /// The event that is handled; none in a hook and in a route.
    event: Option<Rc<Event>>,
    /// The plugin's state.
    state: State,
    /// The plugin's configuration.
    config: Config,
    /// Where everything else goes.
    host: TheHost,
}

impl Context {
    pub(crate) fn new(event: Option<Rc<Event>>, host: &TheHost) -> Self {
        Self { event, state: State::new(host.clone()), config: Config::new(host.clone()), host: host.clone() }
    }

    /// The event that is handled.
    ///
    /// # Panics
    /// In a hook and in a route: they are asked by a client, and no event is there.
    #[track_caller]
    pub fn event(&self) -> &Event {
        self.event.as_deref().expect("a hook or a route handles no event")
    }

    /// The time to calculate with: when the broker took the event, the same at every attempt. In a hook and in a route, the
    /// time of the call.
    pub fn now(&self) -> Timestamp {
        match &self.event {
            Some(event) => event.received_at(),
            None => self.host.now(),
        }
    }

    /// The plugin's state.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The plugin's configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The plugin's timers.
    pub fn timers(&self) -> Timers<'_> {
        Timers::new(&self.host, self.now())
    }

    /// Measurements for Prometheus.
    pub fn metrics(&self) -> Metrics<'_> {
        Metrics::new(&self.host)
    }

    /// A secret that the declaration's `secrets` names.
    ///
    /// ```
    /// # use vespiary_sdk::prelude::*;
    /// # fn handler(cx: &mut Context) -> Result<()> {
    /// let token = cx.secret("cmdb-token")?.reveal();
    /// # Ok(())
    /// # }
    /// ```
    pub fn secret(&self, name: &str) -> Result<Secret, SecretError> {
        self.host.secret(name).map(|handle| Secret::new(name, handle))
    }

    /// Requests over HTTP to servers that the declaration's `http_hosts` names. A handler that makes them is slow, and they
    /// are not part of the transaction: a request of an event that is tried again is made again.
    pub fn http(&self) -> Http<'_> {
        Http::new(&self.host)
    }

    /// Publishes with QoS 1, not retained; [`message`](Self::message) has the other choices.
    ///
    /// The message leaves when the event's transaction commits. Fails if the topic is not valid, not granted, or if the call
    /// has published as much as it may; see [`BrokerError`].
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

    /// A message to set up and then [`publish`](Draft::publish).
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
    pub fn message<P: Payload>(&self, topic: impl Into<String>, payload: P) -> Draft<'_, P> {
        Draft::new(&self.host, topic.into(), payload)
    }

    /// A request to set up and then [`send`](Request::send): a message whose answer comes to `#[on_response(..)]`.
    pub fn request<P: Payload>(&self, topic: impl Into<String>, payload: P) -> Request<'_, P> {
        Request::new(self.message(topic, payload))
    }

    /// Publishes the answer to a request: to the event's response topic, with its correlation data (MQTT 5.0
    /// section 4.10). Gives `false`, and does nothing, if the event asks for no answer. The response topic must be granted,
    /// unless it is the one that the broker gave to a plugin's request.
    pub fn reply(&self, payload: impl Payload) -> Result<bool> {
        let event = self.event();
        let Some(topic) = event.property("response-topic") else { return Ok(false) };
        let mut message = self.message(topic, payload);
        if let Some(correlation) = event.property("correlation-data") {
            message = message.property("correlation-data", correlation);
        }
        message.publish().map(|()| true)
    }

    /// The retained message of a topic, as it is now. The plugin must be granted to subscribe to the topic.
    pub fn retained(&self, topic: impl AsRef<str>) -> Result<Option<Message>, BrokerError> {
        self.host.retained(topic.as_ref())
    }

    /// Disconnects a client, if it is connected. The declaration must say `disconnects: true`.
    pub fn disconnect(&self, client: impl AsRef<str>) -> Result<(), BrokerError> {
        self.host.disconnect(client.as_ref())
    }

    /// Turns to the next event.
    pub(crate) fn turn_to(&mut self, event: Rc<Event>) {
        self.event = Some(event);
    }

    /// The host, for what is done on behalf of handlers.
    pub(crate) fn host(&self) -> &TheHost {
        &self.host
    }
}
