//! What the answers of several hooks come to, for one packet.
//!
//! Hooks are asked one after the other, in the order of their set. The first that allows or denies settles who a client is
//! and what it may; those that change messages see what the ones before made of them. The futures are for the thread of the
//! connection; dropping one forgets the answer.

use std::sync::Arc;

use vespiary_core::event::{REPLY_TOPICS, ReasonCode, TIMER_TOPICS};
use vespiary_core::{Message, Qos, Topic, TopicFilter};

use super::guest::{Answer, Question};
use super::live::{Entry, NoAnswer};
use super::set::Set;
use crate::plugins::manifest::{Action, Hook, OnFailure};
use crate::wasm::hooks::{
    self, Access, AuthProgress, AuthStep, Authentication, Authorization, Credentials, DeliverVerdict, HookClient,
    Passing, PublishVerdict, Refusal, SubscribeVerdict, Subscribing,
};

/// Who a client is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// Who it claims to be; to be known by this name, if by another than it gave.
    Allowed(Option<Arc<str>>),
    /// Somebody else.
    Denied(Refusal),
    /// Nobody knows.
    Unknown,
}

/// What becomes of a publish.
#[derive(Debug, Clone, PartialEq)]
pub enum Published {
    /// This is published.
    Message(Message),
    /// Nothing is published, and the client is told that it was.
    Dropped,
    /// Nothing is published, and the client is told so.
    Denied(Refusal),
}

impl Set {
    /// Who a client is.
    pub async fn authenticate(&self, credentials: Credentials) -> Admission {
        for entry in self.of(Hook::Authenticate) {
            let answer = entry.ask(Question::Authenticate(credentials.clone())).await;
            match answer {
                Ok(Answer::Authenticate(Authentication::Allow(user))) => {
                    return Admission::Allowed(user.map(Into::into));
                }
                Ok(Answer::Authenticate(Authentication::Deny(refusal))) => return Admission::Denied(refusal),
                Ok(Answer::Authenticate(Authentication::Pass)) => {}
                other => {
                    if let Some(refusal) = failed(entry, other, ReasonCode::ServerUnavailable) {
                        return Admission::Denied(refusal);
                    }
                }
            }
        }
        Admission::Unknown
    }

    /// The next step of an exchange. Without an answer it has failed, whatever the declaration says: nobody has proven
    /// anything.
    pub async fn step(&self, step: AuthStep) -> AuthProgress {
        let Some(entry) = self.of_method(&step.method) else {
            return AuthProgress::Deny(refusal(
                ReasonCode::BadAuthenticationMethod,
                "the method is not offered any more",
            ));
        };
        match entry.ask(Question::AuthStep(step)).await {
            Ok(Answer::AuthStep(progress)) => progress,
            _ => AuthProgress::Deny(refusal(ReasonCode::ServerUnavailable, UNANSWERED)),
        }
    }

    /// Whether a client may leave a will.
    pub async fn will(&self, client: &HookClient, message: &Message) -> Result<(), Refusal> {
        self.authorize(client, Action::Will, message).await
    }

    async fn authorize(&self, client: &HookClient, action: Action, message: &Message) -> Result<(), Refusal> {
        for entry in self.of_action(action).filter(|entry| entry.matches(&message.topic)) {
            let topic = message.topic.as_str();
            match allowed(entry, access(client, action, topic, (message.qos, message.retain))).await? {
                Authorized::Yes => break,
                Authorized::Unsaid => {}
            }
        }
        Ok(())
    }

    /// What becomes of a publish.
    pub async fn publish(&self, client: &HookClient, message: Message) -> Published {
        if let Err(refusal) = self.authorize(client, Action::Publish, &message).await {
            return Published::Denied(refusal);
        }
        let mut message = Arc::new(message);
        for entry in self.of(Hook::InterceptPublish) {
            if !entry.matches(&message.topic) {
                continue;
            }
            let passing = Passing {
                client: client.clone(),
                message: Arc::clone(&message),
                qos: message.qos,
                retain: message.retain,
            };
            match entry.ask(Question::Publish(passing)).await {
                Ok(Answer::Publish(PublishVerdict::Keep)) => {}
                Ok(Answer::Publish(PublishVerdict::Replace(other))) if may_be_published(&other.topic) => {
                    message = Arc::new(in_place_of(&message, *other));
                }
                Ok(Answer::Publish(PublishVerdict::Drop)) => return Published::Dropped,
                Ok(Answer::Publish(PublishVerdict::Deny(refusal))) => return Published::Denied(refusal),
                other => {
                    if let Some(refusal) = failed(entry, other, ReasonCode::ImplementationSpecificError) {
                        return Published::Denied(refusal);
                    }
                }
            }
        }
        // A guest that is late may still look at it.
        Published::Message(Arc::try_unwrap(message).unwrap_or_else(|message| (*message).clone()))
    }

    /// What becomes of a subscription.
    pub async fn subscribe(
        &self,
        client: &HookClient,
        mut filter: TopicFilter,
        mut qos: Qos,
    ) -> Result<(TopicFilter, Qos), Refusal> {
        for entry in self.of_action(Action::Subscribe).filter(|entry| entry.overlaps(&filter)) {
            match allowed(entry, access(client, Action::Subscribe, filter.as_str(), (qos, false))).await? {
                Authorized::Yes => break,
                Authorized::Unsaid => {}
            }
        }
        for entry in self.of(Hook::InterceptSubscribe) {
            if !entry.overlaps(&filter) {
                continue;
            }
            let subscribing = Subscribing { client: client.clone(), filter: filter.clone(), qos };
            match entry.ask(Question::Subscribe(subscribing)).await {
                Ok(Answer::Subscribe(SubscribeVerdict::Keep)) => {}
                Ok(Answer::Subscribe(SubscribeVerdict::Replace { filter: other, qos: lower }))
                    if may_be_subscribed(&other) =>
                {
                    (filter, qos) = (other, lower.min(qos));
                }
                Ok(Answer::Subscribe(SubscribeVerdict::Deny(refusal))) => return Err(refusal),
                other => {
                    if let Some(refusal) = failed(entry, other, ReasonCode::ImplementationSpecificError) {
                        return Err(refusal);
                    }
                }
            }
        }
        Ok((filter, qos))
    }

    /// What a client gets instead of a message that is about to leave for it; nothing, perhaps.
    pub async fn deliver(
        &self,
        client: &HookClient,
        mut message: Arc<Message>,
        (qos, retain): (Qos, bool),
    ) -> Option<Arc<Message>> {
        for entry in self.of(Hook::InterceptDeliver) {
            if !entry.matches(&message.topic) {
                continue;
            }
            let passing = Passing { client: client.clone(), message: Arc::clone(&message), qos, retain };
            match entry.ask(Question::Deliver(passing)).await {
                Ok(Answer::Deliver(DeliverVerdict::Keep)) => {}
                Ok(Answer::Deliver(DeliverVerdict::Replace(other))) => {
                    message = Arc::new(in_place_of(&message, *other))
                }
                Ok(Answer::Deliver(DeliverVerdict::Drop)) => return None,
                other => {
                    if failed(entry, other, ReasonCode::UnspecifiedError).is_some() {
                        return None;
                    }
                }
            }
        }
        Some(message)
    }
}

/// Whether clients may publish to a topic: to what begins with `$` they may not, except to answer a plugin's request.
pub(crate) fn may_be_published(topic: &Topic) -> bool {
    !topic.is_reserved() || topic.levels().next() == Some(REPLY_TOPICS)
}

/// Whether clients may subscribe with a filter: not to what is between the broker and one plugin.
pub(crate) fn may_be_subscribed(filter: &TopicFilter) -> bool {
    let shared = filter.shared().map(|(_, filter)| filter);
    let first = shared.as_ref().unwrap_or(filter).levels().next();
    first != Some(TIMER_TOPICS) && first != Some(REPLY_TOPICS)
}

/// What `authorize` has come to so far.
enum Authorized {
    /// It is allowed.
    Yes,
    /// Others are to say.
    Unsaid,
}

async fn allowed(entry: &Arc<Entry>, access: Access) -> Result<Authorized, Refusal> {
    match entry.ask(Question::Authorize(access)).await {
        Ok(Answer::Authorize(Authorization::Allow)) => Ok(Authorized::Yes),
        Ok(Answer::Authorize(Authorization::Pass)) => Ok(Authorized::Unsaid),
        Ok(Answer::Authorize(Authorization::Deny(refusal))) => Err(refusal),
        other => failed(entry, other, ReasonCode::NotAuthorized).map_or(Ok(Authorized::Unsaid), Err),
    }
}

fn access(client: &HookClient, action: Action, topic: &str, (qos, retain): (Qos, bool)) -> Access {
    let action = match action {
        Action::Publish => hooks::Action::Publish,
        Action::Subscribe => hooks::Action::Subscribe,
        Action::Will => hooks::Action::Will,
    };
    Access { client: client.clone(), action, topic: topic.into(), qos, retain }
}

/// What a replacement keeps of what it replaces. The exchange with the client goes on at the QoS that it chose.
fn in_place_of(message: &Message, other: Message) -> Message {
    Message {
        qos: message.qos,
        received_at: message.received_at,
        publisher: message.publisher.clone(),
        user: message.user.clone(),
        ..other
    }
}

/// The words where a hook says nothing.
const UNANSWERED: &str = "a hook gave no answer";

fn refusal(reason: ReasonCode, words: &str) -> Refusal {
    Refusal { code: reason as u8, reason: words.to_owned() }
}

/// What the declaration makes of a hook without an answer, or with one that cannot be: a refusal, or nothing.
fn failed(entry: &Entry, answer: Result<Answer, NoAnswer>, reason: ReasonCode) -> Option<Refusal> {
    if answer.is_ok() {
        entry.failed("the answer is not one that the host can follow");
    }
    match entry.declaration.on_failure {
        OnFailure::Allow => None,
        OnFailure::Deny => Some(refusal(reason, UNANSWERED)),
    }
}
