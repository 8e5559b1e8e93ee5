//! Questions to the component's hooks, and its answers.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{WireMessage, World, call, pairs, qos_of, wire_qos};
use crate::hooks::{
    Access, Action, Authentication, Authorization, Client, Credentials, DeliverVerdict, Progress, PublishVerdict,
    Refusal, Step, SubscribeVerdict, Subscription,
};
use crate::message::Message;

/// What the SDK's glue says before the error of a hook.
const FAILED: &str = "the hook failed: ";

/// What is in the words of the sandbox behind it, which say where it was.
const EXPORT: &str = "vespiary:plugin/hooks@";

/// An answer of any hook. Mirrors `vespiary test-host`.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    Allow(Option<String>),
    Continue { data: Vec<u8>, next: Vec<u8> },
    Success { data: Option<Vec<u8>>, user: Option<String> },
    Deny { code: u8, reason: String },
    Pass,
    Keep,
    Drop,
    Message(WireMessage),
    Subscription { filter: String, qos: u8 },
}

/// `hooks.authenticate`; the error, here and below, is why it failed.
pub(in crate::testing) fn authenticate(world: &World, asked: &Credentials) -> Result<Authentication, String> {
    let Credentials { client, password, clean_start } = asked;
    let question = json!({ "client": wire(client), "password": password, "clean_start": clean_start });
    match ask(world, "authenticate", &question)? {
        Answer::Allow(user) => Ok(Authentication::Allow(user)),
        Answer::Deny { code, reason } => Ok(Authentication::Deny(Refusal { code, reason })),
        Answer::Pass => Ok(Authentication::Pass),
        _ => Err(no_answer("authenticate")),
    }
}

/// `hooks.auth-step`.
pub(in crate::testing) fn auth_step(world: &World, asked: &Step) -> Result<Progress, String> {
    let Step { client, method, data, state } = asked;
    let question = json!({ "client": wire(client), "method": method, "data": data, "state": state });
    match ask(world, "auth_step", &question)? {
        Answer::Continue { data, next } => Ok(Progress::Continue { data, next }),
        Answer::Success { data, user } => Ok(Progress::Success { data, user }),
        Answer::Deny { code, reason } => Ok(Progress::Deny(Refusal { code, reason })),
        _ => Err(no_answer("auth-step")),
    }
}

/// `hooks.authorize`.
pub(in crate::testing) fn authorize(world: &World, asked: &Access) -> Result<Authorization, String> {
    let Access { client, action, topic, qos, retain } = asked;
    let action = match action {
        Action::Publish => "publish",
        Action::Subscribe => "subscribe",
        Action::Will => "will",
    };
    let qos = wire_qos(*qos);
    let question = json!({ "client": wire(client), "action": action, "topic": topic, "qos": qos, "retain": retain });
    match ask(world, "authorize", &question)? {
        Answer::Allow(_) => Ok(Authorization::Allow),
        Answer::Deny { code, reason } => Ok(Authorization::Deny(Refusal { code, reason })),
        Answer::Pass => Ok(Authorization::Pass),
        _ => Err(no_answer("authorize")),
    }
}

/// `hooks.intercept-publish`.
pub(in crate::testing) fn intercept_publish(
    world: &World,
    client: &Client,
    message: &Message,
) -> Result<PublishVerdict, String> {
    match ask(world, "intercept_publish", &passing(client, message))? {
        Answer::Keep => Ok(PublishVerdict::Keep),
        Answer::Message(message) => Ok(PublishVerdict::Replace(message.into_message())),
        Answer::Drop => Ok(PublishVerdict::Drop),
        Answer::Deny { code, reason } => Ok(PublishVerdict::Deny(Refusal { code, reason })),
        _ => Err(no_answer("intercept-publish")),
    }
}

/// `hooks.intercept-subscribe`.
pub(in crate::testing) fn intercept_subscribe(
    world: &World,
    client: &Client,
    subscription: &Subscription,
) -> Result<SubscribeVerdict, String> {
    let question = json!({
        "client": wire(client), "filter": subscription.filter, "qos": wire_qos(subscription.qos),
    });
    match ask(world, "intercept_subscribe", &question)? {
        Answer::Keep => Ok(SubscribeVerdict::Keep),
        Answer::Subscription { filter, qos } => {
            Ok(SubscribeVerdict::Replace(Subscription { filter, qos: qos_of(qos) }))
        }
        Answer::Deny { code, reason } => Ok(SubscribeVerdict::Deny(Refusal { code, reason })),
        _ => Err(no_answer("intercept-subscribe")),
    }
}

/// `hooks.intercept-deliver`.
pub(in crate::testing) fn intercept_deliver(
    world: &World,
    client: &Client,
    message: &Message,
) -> Result<DeliverVerdict, String> {
    match ask(world, "intercept_deliver", &passing(client, message))? {
        Answer::Keep => Ok(DeliverVerdict::Keep),
        Answer::Message(message) => Ok(DeliverVerdict::Replace(message.into_message())),
        Answer::Drop => Ok(DeliverVerdict::Drop),
        _ => Err(no_answer("intercept-deliver")),
    }
}

fn ask(world: &World, function: &str, question: &Value) -> Result<Answer, String> {
    let asked = call(world, json!({ "ask": { function: question } }));
    asked.map_err(|trap| error_of(&trap).to_owned())?.answer.ok_or_else(|| no_answer(function))
}

/// What a hook said that gave an error, which ends as a trap in a component; or all of what is told of another trap.
fn error_of(trap: &str) -> &str {
    let Some((_, error)) = trap.split_once(FAILED) else { return trap };
    match error.rsplit_once(" (in ") {
        Some((error, place)) if place.contains(EXPORT) => error,
        Some(_) | None => error,
    }
}

fn no_answer(function: &str) -> String {
    format!("the component gave no answer of `{function}`")
}

fn wire(client: &Client) -> Value {
    let Client { id, user, address, protocol } = client;
    json!({ "id": id, "user": user, "address": address, "protocol": protocol })
}

fn passing(client: &Client, message: &Message) -> Value {
    let Message { topic, payload, qos, retain, properties } = message;
    let message = json!({
        "topic": topic, "payload": payload, "qos": wire_qos(*qos), "retain": retain, "properties": pairs(properties),
    });
    json!({ "client": wire(client), "message": message })
}
