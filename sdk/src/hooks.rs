//! Hooks: what a plugin decides in the path of a client's packets.
//!
//! A hook runs while its client waits, under a deadline. It may read state, retained messages, configuration and secrets; what it
//! would change is refused. A hook that fails, by `Err` or panic, has no answer: what then happens to the client, its
//! `on_failure` says.

mod dispatch;
mod questions;
mod verdicts;

pub use self::dispatch::{Hook, HookResult, HookRun, Verdict, into_verdict};
pub(crate) use self::dispatch::{
    auth_step, authenticate, authorize, intercept_deliver, intercept_publish, intercept_subscribe,
};
pub use self::questions::{Access, Action, Client, Credentials, FromQuestion, InFlight, Step, Subscription, Wanted};
pub use self::verdicts::{
    Authentication, Authorization, DeliverVerdict, Progress, PublishVerdict, Refusal, SubscribeVerdict,
};
