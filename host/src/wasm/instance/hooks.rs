//! Calls of hooks: decisions in the path of a client's packets, each under a deadline of its own.
//!
//! A hook reads the state and does nothing to the broker. What the contract does not allow as an answer is [`CallError::Failed`].

use std::time::Duration;

use vespiary_core::event::Protocol;
use vespiary_core::message::{Message, Timestamp};
use vespiary_core::topic::{Topic, TopicFilter};
use wasmtime::Store;

use super::{Instance, contract_properties, exported};
use crate::wasm::batch::{Batch, Purpose};
use crate::wasm::bindings::exports::vespiary::plugin::hooks;
use crate::wasm::bindings::vespiary::plugin::types;
use crate::wasm::error::{CallError, bounded};
use crate::wasm::hooks::{
    Access, Action, AuthProgress, AuthStep, Authentication, Authorization, Credentials, DeliverVerdict, HookClient,
    Passing, PublishVerdict, Refusal, SubscribeVerdict, Subscribing,
};
use crate::wasm::host::HostState;
use crate::wasm::state::StateRead;
use crate::wasm::{inspect, properties};

/// Longest user name, and most bytes of Authentication Data: a two-byte length on the wire.
const FIELD_BYTES: usize = 65_535;
/// Most bytes of what a step of an exchange leaves to the next.
const NEXT_BYTES: usize = 64 << 10;
/// The lowest reason code that is a refusal.
const FIRST_ERROR: u8 = 0x80;

impl Instance {
    /// Asks `authenticate`.
    pub fn authenticate(
        &mut self,
        now: Timestamp,
        deadline: Duration,
        state: impl StateRead + 'static,
        question: &Credentials,
    ) -> Result<Authentication, CallError> {
        let Credentials { client, password, clean_start } = question;
        let (client, password) = (contract_client(client), password.as_deref());
        let credentials = hooks::Credentials { client, password, clean_start: *clean_start };
        let answer = self.ask(now, deadline, state, |hooks, store| hooks.call_authenticate(store, credentials))?;
        let understood = match answer {
            hooks::Authentication::Allow(user) => check_user(user).map(Authentication::Allow),
            hooks::Authentication::Deny(refusal) => self.refusal(refusal).map(Authentication::Deny),
            hooks::Authentication::Pass => Ok(Authentication::Pass),
        };
        understood.map_err(|reason| self.failed("authenticate", &reason))
    }

    /// Asks `auth-step`.
    pub fn auth_step(
        &mut self,
        now: Timestamp,
        deadline: Duration,
        state: impl StateRead + 'static,
        question: &AuthStep,
    ) -> Result<AuthProgress, CallError> {
        let AuthStep { client, method, data, state: before } = question;
        let client = contract_client(client);
        let step = hooks::Step { client, method, data: data.as_deref(), state: before.as_deref() };
        let answer = self.ask(now, deadline, state, |hooks, store| hooks.call_auth_step(store, step))?;
        let understood = match answer {
            hooks::Progress::Continue(hooks::Challenge { data, next }) => match check_bytes(&data, &next) {
                Ok(()) => Ok(AuthProgress::Continue { data, next }),
                Err(reason) => Err(reason),
            },
            hooks::Progress::Success(hooks::Success { data, user }) => {
                check_bytes(data.as_deref().unwrap_or_default(), &[])
                    .and_then(|()| Ok(AuthProgress::Success { data, user: check_user(user)? }))
            }
            hooks::Progress::Deny(refusal) => self.refusal(refusal).map(AuthProgress::Deny),
        };
        understood.map_err(|reason| self.failed("auth-step", &reason))
    }

    /// Asks `authorize`.
    pub fn authorize(
        &mut self,
        now: Timestamp,
        deadline: Duration,
        state: impl StateRead + 'static,
        question: &Access,
    ) -> Result<Authorization, CallError> {
        let Access { client, action, topic, qos, retain } = question;
        let action = match action {
            Action::Publish => hooks::Action::Publish,
            Action::Subscribe => hooks::Action::Subscribe,
            Action::Will => hooks::Action::Will,
        };
        let (client, qos) = (contract_client(client), properties::contract_qos(*qos));
        let access = hooks::Access { client, action, topic, qos, retain: *retain };
        let answer = self.ask(now, deadline, state, |hooks, store| hooks.call_authorize(store, access))?;
        let understood = match answer {
            hooks::Authorization::Allow => Ok(Authorization::Allow),
            hooks::Authorization::Deny(refusal) => self.refusal(refusal).map(Authorization::Deny),
            hooks::Authorization::Pass => Ok(Authorization::Pass),
        };
        understood.map_err(|reason| self.failed("authorize", &reason))
    }

    /// Asks `intercept-publish`.
    pub fn intercept_publish(
        &mut self,
        now: Timestamp,
        deadline: Duration,
        state: impl StateRead + 'static,
        question: &Passing,
    ) -> Result<PublishVerdict, CallError> {
        let answer = with_message(question, now, |client, message| {
            self.ask(now, deadline, state, |hooks, store| hooks.call_intercept_publish(store, client, message))
        })?;
        let understood = match answer {
            hooks::PublishVerdict::Keep => Ok(PublishVerdict::Keep),
            hooks::PublishVerdict::Replace(message) => {
                self.replacement(message, question, now).map(PublishVerdict::Replace)
            }
            hooks::PublishVerdict::Drop => Ok(PublishVerdict::Drop),
            hooks::PublishVerdict::Deny(refusal) => self.refusal(refusal).map(PublishVerdict::Deny),
        };
        understood.map_err(|reason| self.failed("intercept-publish", &reason))
    }

    /// Asks `intercept-subscribe`.
    pub fn intercept_subscribe(
        &mut self,
        now: Timestamp,
        deadline: Duration,
        state: impl StateRead + 'static,
        question: &Subscribing,
    ) -> Result<SubscribeVerdict, CallError> {
        let Subscribing { client, filter, qos } = question;
        let qos = properties::contract_qos(*qos);
        let (client, subscription) =
            (contract_client(client), hooks::SubscriptionParam { filter: filter.as_str(), qos });
        let answer =
            self.ask(now, deadline, state, |hooks, store| hooks.call_intercept_subscribe(store, client, subscription))?;
        let understood = match answer {
            hooks::SubscribeVerdict::Keep => Ok(SubscribeVerdict::Keep),
            hooks::SubscribeVerdict::Replace(hooks::SubscriptionResult { filter, qos }) => {
                let filter = TopicFilter::parse(&filter).map_err(|reason| format!("the filter is not valid: {reason}"));
                filter.map(|filter| SubscribeVerdict::Replace { filter, qos: properties::core_qos(qos) })
            }
            hooks::SubscribeVerdict::Deny(refusal) => self.refusal(refusal).map(SubscribeVerdict::Deny),
        };
        understood.map_err(|reason| self.failed("intercept-subscribe", &reason))
    }

    /// Asks `intercept-deliver`.
    pub fn intercept_deliver(
        &mut self,
        now: Timestamp,
        deadline: Duration,
        state: impl StateRead + 'static,
        question: &Passing,
    ) -> Result<DeliverVerdict, CallError> {
        let answer = with_message(question, now, |client, message| {
            self.ask(now, deadline, state, |hooks, store| hooks.call_intercept_deliver(store, client, message))
        })?;
        let understood = match answer {
            hooks::DeliverVerdict::Keep => Ok(DeliverVerdict::Keep),
            hooks::DeliverVerdict::Replace(message) => {
                self.replacement(message, question, now).map(DeliverVerdict::Replace)
            }
            hooks::DeliverVerdict::Drop => Ok(DeliverVerdict::Drop),
        };
        understood.map_err(|reason| self.failed("intercept-deliver", &reason))
    }

    fn ask<T>(
        &mut self,
        now: Timestamp,
        deadline: Duration,
        state: impl StateRead + 'static,
        body: impl FnOnce(&hooks::Guest, &mut Store<HostState>) -> wasmtime::Result<T>,
    ) -> Result<T, CallError> {
        let batch = Batch::new(Box::new(state), Purpose::Decision, now);
        let asked = self.call_with(batch, Some(deadline), |exports, store| {
            body(exported(exports.hooks.as_ref(), inspect::HOOKS)?, store)
        });
        asked.map(|(answer, _)| answer)
    }

    fn refusal(&self, refusal: hooks::Refusal) -> Result<Refusal, String> {
        let hooks::Refusal { code, reason } = refusal;
        if code < FIRST_ERROR {
            return Err(format!("it refuses with the reason code {code:#04x}, which is no error"));
        }
        Ok(Refusal { code, reason: self.reason(&reason) })
    }

    /// The message that a hook gives in the place of another.
    fn replacement(
        &self,
        message: types::MessageResult,
        question: &Passing,
        now: Timestamp,
    ) -> Result<Box<Message>, String> {
        let before = &question.message;
        let topic = Topic::parse(&message.topic).map_err(|reason| format!("the topic is not valid: {reason}"))?;
        let parsed = properties::parse(&message.properties, now)?;
        // Told in whole seconds: what comes back as it went is as it was.
        let as_shown = |at: &Timestamp| {
            parsed.expires_at.map(|new| new.since_ms(now).div_ceil(1_000)) == Some(at.since_ms(now).div_ceil(1_000))
        };
        let replacement = Message {
            topic,
            payload: message.payload.into_boxed_slice(),
            qos: properties::core_qos(message.qos),
            retain: message.retain,
            properties: parsed.properties,
            expires_at: before.expires_at.filter(as_shown).or(parsed.expires_at),
            received_at: before.received_at,
            publisher: before.publisher.clone(),
            user: before.user.clone(),
        };
        let limit = self.store.data().limits.publish_bytes_per_call;
        if replacement.weight() > limit {
            return Err(format!("the message has more than {limit} bytes"));
        }
        Ok(Box::new(replacement))
    }
}

fn contract_client(client: &HookClient) -> hooks::Client<'_> {
    let protocol = match client.protocol {
        Protocol::V3 => 4,
        Protocol::V5 => 5,
    };
    hooks::Client { id: &client.id, user: client.user.as_deref(), address: &client.address, protocol }
}

fn with_message<T>(
    question: &Passing,
    now: Timestamp,
    body: impl FnOnce(hooks::Client<'_>, hooks::MessageParam<'_>) -> T,
) -> T {
    let Passing { client, message, qos, retain } = question;
    let pairs = properties::list(message, now);
    let properties = contract_properties(&pairs);
    let message = hooks::MessageParam {
        topic: message.topic.as_str(),
        payload: &message.payload,
        qos: properties::contract_qos(*qos),
        retain: *retain,
        properties: &properties,
    };
    body(contract_client(client), message)
}

fn check_user(user: Option<String>) -> Result<Option<String>, String> {
    match &user {
        Some(name) if name.len() > FIELD_BYTES || name.contains('\0') => {
            Err(format!("the user name {:?} is not possible", bounded(name, 80)))
        }
        Some(_) | None => Ok(user),
    }
}

fn check_bytes(data: &[u8], next: &[u8]) -> Result<(), String> {
    if data.len() > FIELD_BYTES {
        return Err(format!("the Authentication Data has {} bytes; {FIELD_BYTES} are allowed", data.len()));
    }
    if next.len() > NEXT_BYTES {
        return Err(format!("what is left to the next step has {} bytes; {NEXT_BYTES} are allowed", next.len()));
    }
    Ok(())
}
