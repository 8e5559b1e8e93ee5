//! `broker`: what a plugin asks of the broker. Each use is checked against what the plugin is granted.

use std::sync::Arc;

use vespiary_core::message::Message;
use vespiary_core::topic::{MAX_TOPIC_BYTES, Topic};

use super::HostState;
use crate::wasm::batch::{Batch, Refusal};
use crate::wasm::bindings::vespiary::plugin::broker::{self, Error};
use crate::wasm::bindings::vespiary::plugin::types;
use crate::wasm::limits::WasmLimits;
use crate::wasm::properties;

/// Longest client identifier in bytes.
const CLIENT_BYTES: usize = MAX_TOPIC_BYTES;

impl HostState {
    /// Where what the call does is collected, if it may do this.
    fn actor(&mut self, what: &str) -> Result<(&mut Batch, &WasmLimits), Error> {
        match &mut self.batch {
            Some(batch) if batch.may_act() => Ok((batch, &self.limits)),
            Some(_) => Err(Error::Denied(format!("a hook may not {what}"))),
            None => Err(Error::Denied(format!("only the handling of events and requests may {what}"))),
        }
    }

    /// A message that the plugin may publish.
    fn message(&mut self, message: types::MessageResult) -> Result<Message, Error> {
        let now = self.actor("publish")?.0.now();
        let topic = parse_topic(&message.topic)?;
        if !self.publish_grants.iter().any(|granted| granted.matches(&topic)) {
            let reason = format!("the plugin is not granted the topic `{topic}`");
            return Err(Error::Denied(self.deny("publish", reason)));
        }
        let parsed = properties::parse(&message.properties, now).map_err(Error::Invalid)?;
        Ok(Message {
            topic,
            payload: message.payload.into_boxed_slice(),
            qos: properties::core_qos(message.qos),
            retain: message.retain,
            properties: parsed.properties,
            expires_at: parsed.expires_at,
            received_at: now,
            publisher: Arc::clone(&self.publisher),
            user: None,
        })
    }
}

impl broker::Host for HostState {
    fn publish(&mut self, message: types::MessageResult) -> Result<(), Error> {
        let message = self.message(message)?;
        let (batch, limits) = self.actor("publish")?;
        Ok(batch.publish(message, limits)?)
    }

    fn request(&mut self, message: types::MessageResult, timeout_ms: u64) -> Result<u64, Error> {
        let message = self.message(message)?;
        let plugin = self.plugin.clone();
        let (batch, limits) = self.actor("publish")?;
        Ok(batch.request(&plugin.0, message, timeout_ms, limits)?)
    }

    fn disconnect(&mut self, client: String) -> Result<(), Error> {
        self.actor("disconnect clients")?;
        if !self.disconnects {
            let reason = "the plugin is not granted to disconnect clients".to_owned();
            return Err(Error::Denied(self.deny("disconnect", reason)));
        }
        if client.is_empty() || client.len() > CLIENT_BYTES || client.contains('\0') {
            return Err(Error::Invalid("the client identifier is not valid".to_owned()));
        }
        let (batch, limits) = self.actor("disconnect clients")?;
        Ok(batch.disconnect(&client, limits)?)
    }

    fn retained(&mut self, topic: String) -> Result<Option<types::MessageResult>, Error> {
        let Some(batch) = &self.batch else {
            let reason = "retained messages are there while events, requests and hooks are handled only";
            return Err(Error::Unavailable(reason.to_owned()));
        };
        let now = batch.now();
        let topic = parse_topic(&topic)?;
        if !self.subscribe_grants.iter().any(|granted| granted.matches(&topic)) {
            let reason = format!("the plugin is not granted to subscribe to the topic `{topic}`");
            return Err(Error::Denied(self.deny("retained", reason)));
        }
        let found = (self.retained)(&topic).filter(|message| !message.is_expired(now));
        Ok(found.map(|message| types::MessageResult {
            topic: message.topic.as_str().to_owned(),
            payload: message.payload.to_vec(),
            qos: properties::contract_qos(message.qos),
            retain: true,
            properties: properties::list(&message, now)
                .into_iter()
                .map(|(name, value)| types::PropertyResult { name, value })
                .collect(),
        }))
    }
}

fn parse_topic(topic: &str) -> Result<Topic, Error> {
    Topic::parse(topic).map_err(|reason| Error::Invalid(format!("the topic is not valid: {reason}")))
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::TooLarge(reason) | Refusal::QuotaExceeded(reason) => Self::QuotaExceeded(reason),
            Refusal::Mismatch(reason) => Self::Invalid(reason),
            Refusal::Unavailable(reason) => Self::Unavailable(reason),
        }
    }
}
