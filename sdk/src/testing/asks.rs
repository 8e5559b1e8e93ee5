//! What others ask of the plugin while they wait: hooks and HTTP.

use serde::Serialize;

use super::{TestHost, World, component};
use crate::error::{Error, Result};
use crate::hooks::{
    self, Access, Authentication, Authorization, Client, Credentials, DeliverVerdict, Hook, InFlight, Progress,
    PublishVerdict, Step, SubscribeVerdict, Subscription, Wanted,
};
use crate::host::Host;
use crate::http::{self, Incoming, Response};
use crate::message::{Message, Payload};

/// A request to the plugin's routes, to set up and then [`send`](Self::send).
#[must_use = "a request arrives only when `send` is called"]
pub struct TestCall<'host> {
    /// Where it goes.
    host: &'host mut TestHost,
    /// The request.
    request: Incoming,
}

impl Client {
    /// A client for tests, of MQTT 5 and without a user name.
    pub fn of(id: impl Into<String>) -> Self {
        Self { id: id.into(), user: None, address: "192.0.2.1:50000".into(), protocol: 5 }
    }

    /// Sets the user name.
    #[must_use]
    pub fn with_user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
        self
    }
}

impl Credentials {
    /// What a client shows that connects with a user name and a password, for tests.
    pub fn of(client: impl Into<String>, user: impl Into<String>, password: impl AsRef<[u8]>) -> Self {
        let client = Client::of(client).with_user(user);
        Self { client, password: Some(password.as_ref().to_vec()), clean_start: true }
    }
}

impl Message {
    /// A message with QoS 1, for tests.
    ///
    /// # Panics
    /// If the payload cannot be written as JSON.
    pub fn of(topic: impl Into<String>, payload: impl Payload) -> Self {
        let payload = payload.bytes().expect("the payload can be written as JSON").into_owned();
        Self { topic: topic.into(), payload, qos: crate::Qos::AtLeastOnce, retain: false, properties: Vec::new() }
    }
}

/// Hooks: an `Err` means that the hook failed, by `Err` or by a panic; then its `on_failure` decides.
impl TestHost {
    /// Asks who a client is.
    pub fn authenticate(&mut self, credentials: &Credentials) -> Result<Authentication, String> {
        self.ask(
            |hooks, world| hooks::authenticate(hooks, world, credentials),
            |world| component::authenticate(world, credentials),
        )
    }

    /// Takes a step of an authentication exchange.
    pub fn auth_step(&mut self, step: &Step) -> Result<Progress, String> {
        self.ask(|hooks, world| hooks::auth_step(hooks, world, step), |world| component::auth_step(world, step))
    }

    /// Asks whether a client may do something.
    pub fn authorize(&mut self, access: &Access) -> Result<Authorization, String> {
        self.ask(|hooks, world| hooks::authorize(hooks, world, access), |world| component::authorize(world, access))
    }

    /// Shows what a client publishes.
    pub fn intercept_publish(&mut self, client: &Client, message: &Message) -> Result<PublishVerdict, String> {
        let asked = InFlight { client: client.clone(), message: message.clone() };
        self.ask(
            |hooks, world| hooks::intercept_publish(hooks, world, asked),
            |world| component::intercept_publish(world, client, message),
        )
    }

    /// Shows what a client subscribes to.
    pub fn intercept_subscribe(
        &mut self,
        client: &Client,
        subscription: &Subscription,
    ) -> Result<SubscribeVerdict, String> {
        let asked = Wanted { client: client.clone(), subscription: subscription.clone() };
        self.ask(
            |hooks, world| hooks::intercept_subscribe(hooks, world, asked),
            |world| component::intercept_subscribe(world, client, subscription),
        )
    }

    /// Shows what is about to leave for a client.
    pub fn intercept_deliver(&mut self, client: &Client, message: &Message) -> Result<DeliverVerdict, String> {
        let asked = InFlight { client: client.clone(), message: message.clone() };
        self.ask(
            |hooks, world| hooks::intercept_deliver(hooks, world, asked),
            |world| component::intercept_deliver(world, client, message),
        )
    }

    /// Asks for a resource of the plugin's HTTP API: `host.get("/assets/1?full=yes")`.
    pub fn get(&mut self, target: &str) -> Response {
        self.call_http("GET", target).send()
    }

    /// Posts JSON to the plugin's HTTP API.
    pub fn post(&mut self, target: &str, json: impl Serialize) -> Response {
        self.call_http("POST", target).json(json).send()
    }

    /// A request to the plugin's HTTP API, to set up and then send.
    pub fn call_http(&mut self, method: &str, target: &str) -> TestCall<'_> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let request = Incoming {
            method: method.to_ascii_uppercase(),
            path: path.into(),
            query: query.into(),
            headers: Vec::new(),
            body: Vec::new(),
        };
        TestCall { host: self, request }
    }

    /// Calls a hook, which may only read: natively or in the component.
    fn ask<T>(
        &mut self,
        natively: impl FnOnce(&[Hook], &World) -> Result<T>,
        in_component: impl FnOnce(&World) -> Result<T, String>,
    ) -> Result<T, String> {
        self.start()?;
        let world = self.world.clone();
        let answer = if component::stands_for(self.plugin) {
            self.call(|| in_component(&world)).and_then(|result| result)
        } else {
            let hooks = self.plugin.declaration().hooks;
            world.inner.borrow_mut().read_only = true;
            let answer = self.call(|| natively(hooks, &world));
            world.inner.borrow_mut().read_only = false;
            answer.and_then(|answer| answer.map_err(Error::into_message))
        };
        self.check_grants();
        answer
    }
}

impl TestCall<'_> {
    /// Adds a header.
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.request.headers.push((name.to_ascii_lowercase(), value.into()));
        self
    }

    /// Sets the body.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.request.body = body.into();
        self
    }

    /// Sets the body to this value as JSON.
    ///
    /// # Panics
    /// If it cannot be written as JSON.
    pub fn json(self, json: impl Serialize) -> Self {
        let body = serde_json::to_vec(&json).expect("the body can be written as JSON");
        self.header("content-type", "application/json").body(body)
    }

    /// Sends it. A panic is answered with 500, as by the host. Neither it nor an answer of 500 and above leaves anything behind.
    ///
    /// # Panics
    /// If the plugin's `init` fails, and if the plugin did what it was not granted.
    pub fn send(self) -> Response {
        let Self { host, request } = self;
        if let Err(reason) = host.start() {
            panic!("the `init` of {:?} failed: {reason}", host.plugin);
        }
        let world = host.world.clone();
        let routes = host.plugin.declaration().routes;
        world.rollback();
        let response = if component::stands_for(host.plugin) {
            host.call(|| component::serve(&world, &request)).and_then(|result| result)
        } else {
            host.call(|| http::serve(routes, &world, &request))
        };
        host.check_grants();
        match response {
            Ok(response) if response.code() < 500 => {
                host.commit();
                host.fire();
                host.run();
                response
            }
            failed => {
                world.rollback();
                failed.unwrap_or_else(|_| Response::new(500))
            }
        }
    }
}
