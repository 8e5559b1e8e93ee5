//! Who answers: a living guest of a plugin, and the code that guests are made of.
//!
//! The sandbox is one implementor; tests have another, which needs no WebAssembly.

use std::time::Duration;

use crate::wasm::hooks::{
    Access, AuthProgress, AuthStep, Authentication, Authorization, Credentials, DeliverVerdict, Passing,
    PublishVerdict, SubscribeVerdict, Subscribing,
};

/// What a hook is asked.
#[derive(Debug, Clone)]
pub enum Question {
    /// `authenticate`.
    Authenticate(Credentials),
    /// `auth-step`.
    AuthStep(AuthStep),
    /// `authorize`.
    Authorize(Access),
    /// `intercept-publish`.
    Publish(Passing),
    /// `intercept-subscribe`.
    Subscribe(Subscribing),
    /// `intercept-deliver`.
    Deliver(Passing),
}

/// What a hook answers, each to its question.
#[derive(Debug, Clone)]
pub enum Answer {
    /// To `authenticate`.
    Authenticate(Authentication),
    /// To `auth-step`.
    AuthStep(AuthProgress),
    /// To `authorize`.
    Authorize(Authorization),
    /// To `intercept-publish`.
    Publish(PublishVerdict),
    /// To `intercept-subscribe`.
    Subscribe(SubscribeVerdict),
    /// To `intercept-deliver`.
    Deliver(DeliverVerdict),
}

/// What guests are made of.
pub trait Code: Send + Sync {
    /// Makes a guest, ready to be asked; or says why not.
    fn guest(&self) -> Result<Box<dyn Guest>, String>;
}

/// A guest: asked one thing at a time. After an error it is not asked again.
pub trait Guest: Send {
    /// Answers, within `deadline`; or says why not.
    fn ask(&mut self, deadline: Duration, question: &Question) -> Result<Answer, String>;
}
