//! Questions to hooks, and their answers, as the SDK's test host puts them.
//!
//! A hook has as long as any call: how long the broker would wait for it is not what a test of what it says is about.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use vespiary_core::event::Protocol;
use vespiary_core::message::{Qos, Timestamp};
use vespiary_core::topic::TopicFilter;

use super::{Entries, WireMessage, invalid};
use crate::wasm::hooks::{
    Access, Action, AuthProgress, AuthStep, Authentication, Authorization, Credentials, DeliverVerdict, HookClient,
    Passing, PublishVerdict, Refusal, SubscribeVerdict, Subscribing,
};
use crate::wasm::{CallError, Instance, WasmLimits};

/// A question, by the function that it is put to; with the fields of the contract.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Question {
    Authenticate { client: WireClient, password: Option<Vec<u8>>, clean_start: bool },
    AuthStep { client: WireClient, method: String, data: Option<Vec<u8>>, state: Option<Vec<u8>> },
    Authorize { client: WireClient, action: String, topic: String, qos: u8, retain: bool },
    InterceptPublish { client: WireClient, message: WireMessage },
    InterceptSubscribe { client: WireClient, filter: String, qos: u8 },
    InterceptDeliver { client: WireClient, message: WireMessage },
}

/// A client.
#[derive(Deserialize)]
pub(super) struct WireClient {
    /// Client identifier.
    id: String,
    /// User name.
    user: Option<String>,
    /// Address of its socket.
    address: String,
    /// MQTT version: 4 or 5.
    protocol: u8,
}

/// An answer of any hook; with the fields of the contract.
#[derive(Serialize)]
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

/// Puts a question to the component.
pub(super) fn ask(
    instance: &mut Instance,
    now: Timestamp,
    state: Entries,
    question: Question,
) -> Result<Answer, CallError> {
    let deadline = Duration::from_millis(WasmLimits::default().call_deadline_ms);
    Ok(match question {
        Question::Authenticate { client, password, clean_start } => {
            let question = Credentials { client: client.into_client(), password, clean_start };
            match instance.authenticate(now, deadline, state, &question)? {
                Authentication::Allow(user) => Answer::Allow(user),
                Authentication::Deny(refusal) => refusal.into(),
                Authentication::Pass => Answer::Pass,
            }
        }
        Question::AuthStep { client, method, data, state: before } => {
            let question = AuthStep { client: client.into_client(), method, data, state: before };
            match instance.auth_step(now, deadline, state, &question)? {
                AuthProgress::Continue { data, next } => Answer::Continue { data, next },
                AuthProgress::Success { data, user } => Answer::Success { data, user },
                AuthProgress::Deny(refusal) => refusal.into(),
            }
        }
        Question::Authorize { client, action, topic, qos, retain } => {
            let action = Action::ALL.into_iter().find(|known| known.name() == action);
            let action = action.ok_or_else(|| invalid("there is no such action"))?;
            let (client, topic) = (client.into_client(), topic.into());
            let question = Access { client, action, topic, qos: level(qos), retain };
            match instance.authorize(now, deadline, state, &question)? {
                Authorization::Allow => Answer::Allow(None),
                Authorization::Deny(refusal) => refusal.into(),
                Authorization::Pass => Answer::Pass,
            }
        }
        Question::InterceptPublish { client, message } => {
            match instance.intercept_publish(now, deadline, state, &passing(client, message, now)?)? {
                PublishVerdict::Keep => Answer::Keep,
                PublishVerdict::Replace(message) => Answer::Message(WireMessage::of(&message)),
                PublishVerdict::Drop => Answer::Drop,
                PublishVerdict::Deny(refusal) => refusal.into(),
            }
        }
        Question::InterceptSubscribe { client, filter, qos } => {
            let filter = TopicFilter::parse(&filter).map_err(invalid)?;
            let question = Subscribing { client: client.into_client(), filter, qos: level(qos) };
            match instance.intercept_subscribe(now, deadline, state, &question)? {
                SubscribeVerdict::Keep => Answer::Keep,
                SubscribeVerdict::Replace { filter, qos } => {
                    Answer::Subscription { filter: filter.as_str().to_owned(), qos: qos as u8 }
                }
                SubscribeVerdict::Deny(refusal) => refusal.into(),
            }
        }
        Question::InterceptDeliver { client, message } => {
            match instance.intercept_deliver(now, deadline, state, &passing(client, message, now)?)? {
                DeliverVerdict::Keep => Answer::Keep,
                DeliverVerdict::Replace(message) => Answer::Message(WireMessage::of(&message)),
                DeliverVerdict::Drop => Answer::Drop,
            }
        }
    })
}

fn passing(client: WireClient, message: WireMessage, now: Timestamp) -> Result<Passing, CallError> {
    let (qos, retain) = (message.qos(), message.retain);
    let message = message.into_message(now.0).map_err(invalid)?;
    Ok(Passing { client: client.into_client(), message: Arc::new(message), qos, retain })
}

fn level(qos: u8) -> Qos {
    Qos::from_u8(qos).unwrap_or(Qos::AtLeastOnce)
}

impl WireClient {
    fn into_client(self) -> HookClient {
        let Self { id, user, address, protocol } = self;
        let protocol = if protocol == 4 { Protocol::V3 } else { Protocol::V5 };
        HookClient { id: id.into(), user: user.map(Into::into), address: address.into(), protocol }
    }
}

impl From<Refusal> for Answer {
    fn from(Refusal { code, reason }: Refusal) -> Self {
        Self::Deny { code, reason }
    }
}
