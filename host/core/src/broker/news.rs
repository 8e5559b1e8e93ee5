//! What the broker says by itself: what happens to clients, on `$clients/CLIENT/EVENT`, and dead letters, on
//! `$dead/PLUGIN/TOPIC`.
//!
//! These are ordinary messages, published with QoS 1 at the end of the input that they tell of, and only where somebody
//! subscribes to such topics. What is published here is not told of in turn.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::Broker;
use super::publish::Origin;
use super::timers::with_property;
use crate::event::{CLIENT_TOPICS, ChangeNumber, DEAD_LETTER_TOPICS, DeadLetter, DropReason, Effects, Sequence};
use crate::key::SessionKey;
use crate::message::{Message, Qos, Timestamp};
use crate::topic::Topic;

/// What has happened in an input and is still to be told.
#[derive(Debug)]
pub(super) enum News {
    /// Something happened to a client.
    Client {
        /// Its client identifier.
        client: Arc<str>,
        /// What: the last level of the topic.
        event: &'static str,
        /// What else there is to say.
        details: Map<String, Value>,
    },
    /// A message was not delivered to a client.
    Dropped {
        /// Its client identifier.
        client: Arc<str>,
        /// Why.
        reason: DropReason,
        /// How many in a row.
        count: u32,
    },
    /// An event was given up.
    DeadLetter(Box<Message>),
}

impl Broker {
    /// Whether somebody wants to hear.
    pub(super) fn is_observed(&self) -> bool {
        self.subscriptions.observers() > 0
    }

    /// Something happened to a client. `details` are members of the payload, a JSON object.
    pub(super) fn tell_of_client(&mut self, client: &Arc<str>, event: &'static str, details: impl FnOnce() -> Value) {
        if self.is_observed() {
            let details = match details() {
                Value::Object(details) => details,
                _ => Map::new(),
            };
            self.news.push(News::Client { client: client.clone(), event, details });
        }
    }

    /// Messages to a client were dropped; counts them.
    pub(super) fn drop_for(&mut self, key: SessionKey, reason: DropReason, message: &Message, effects: &mut Effects) {
        effects.drop_counted(reason, 1);
        if !self.is_observed() || is_news(message) {
            return;
        }
        let client = &self.sessions[key].client_id;
        match self.news.last_mut() {
            Some(News::Dropped { client: last, reason: same, count }) if last == client && *same == reason => {
                *count += 1
            }
            Some(_) | None => self.news.push(News::Dropped { client: client.clone(), reason, count: 1 }),
        }
    }

    /// An event of a plugin was given up.
    pub(super) fn tell_of_dead_letter(&mut self, key: SessionKey, sequence: Sequence, letter: &DeadLetter) {
        if !self.is_observed() || is_news(&letter.content) {
            return;
        }
        let topic = format!("{DEAD_LETTER_TOPICS}/{}/{}", self.sessions[key].client_id, letter.content.topic);
        // A topic that gets too long by this is not told.
        let Ok(topic) = Topic::parse(&topic) else { return };
        let message = Message {
            topic,
            qos: Qos::AtLeastOnce,
            retain: false,
            expires_at: None,
            ..Message::clone(&letter.content)
        };
        let message = with_property(message, "reason", &letter.reason);
        let message = with_property(message, "attempts", &letter.attempts.to_string());
        let message = with_property(message, "event", &sequence.0.to_string());
        self.news.push(News::DeadLetter(Box::new(message)));
    }

    /// Publishes what is to be told of an input whose changes follow `before`, once these are durable.
    pub(super) fn tell_news(&mut self, now: Timestamp, before: ChangeNumber, effects: &mut Effects) {
        let hold = effects.hold_upon(effects.since(before));
        // What telling leads to is not told, except that a plugin which handles news may itself give some up.
        for news in std::mem::take(&mut self.news) {
            if let Some(message) = message_of(news, now) {
                let _ = self.route(now, Arc::new(message), Origin { session: None, refusable: false }, effects);
            }
        }
        self.news.clear();
        effects.let_hold(hold);
    }
}

/// Whether a message is one of those published here.
fn is_news(message: &Message) -> bool {
    let first = message.topic.as_str().split('/').next();
    first == Some(CLIENT_TOPICS) || first == Some(DEAD_LETTER_TOPICS)
}

fn message_of(news: News, now: Timestamp) -> Option<Message> {
    let (client, event, mut details) = match news {
        News::DeadLetter(message) => return Some(Message { received_at: now, ..*message }),
        News::Client { client, event, details } => (client, event, details),
        News::Dropped { client, reason, count } => {
            let name = DropReason::ALL.iter().find(|(known, _)| *known == reason).map_or("", |(_, name)| name);
            let details = Map::from_iter([("reason".to_owned(), json!(name)), ("count".to_owned(), json!(count))]);
            (client, "dropped", details)
        }
    };
    let topic = Topic::parse(&format!("{CLIENT_TOPICS}/{}/{event}", level(&client))).ok()?;
    details.insert("client_id".to_owned(), json!(&*client));
    details.insert("at".to_owned(), json!(now.0));
    Some(Message {
        topic,
        payload: Value::Object(details).to_string().into_bytes().into(),
        qos: Qos::AtLeastOnce,
        retain: false,
        properties: None,
        expires_at: None,
        received_at: now,
        publisher: "".into(),
        user: None,
    })
}

/// A client identifier as one level of a topic: what may not stand there is written as in a URL.
fn level(client: &str) -> String {
    let mut level = String::with_capacity(client.len());
    for character in client.chars() {
        match character {
            '/' => level.push_str("%2F"),
            '+' => level.push_str("%2B"),
            '#' => level.push_str("%23"),
            '%' => level.push_str("%25"),
            other => level.push(other),
        }
    }
    level
}
