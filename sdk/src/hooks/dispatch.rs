//! From a question to the hooks that answer it, in the order of the declaration.
//!
//! The first answer that is not `Pass` or `Keep` counts, but for a message that is replaced: it goes on to the hooks that
//! are declared for the topic that it has then.

use super::{
    Access, Action, Authentication, Authorization, Credentials, DeliverVerdict, InFlight, Progress, PublishVerdict,
    Step, SubscribeVerdict, Wanted,
};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::host::TheHost;
use crate::pattern::{self, Level, MAX_WILDCARDS};

/// What an attribute such as `#[authorize(..)]` declares about a function.
#[doc(hidden)]
#[derive(Clone, Copy)]
pub struct Hook {
    /// The function's name.
    pub name: &'static str,
    /// Its name in the manifest.
    pub kind: &'static str,
    /// The topic filter as a JSON string; empty where there is none.
    pub filter_json: &'static str,
    /// The filter's levels.
    pub levels: &'static [Level<'static>],
    /// Authentication methods, each a JSON string.
    pub methods: &'static [&'static str],
    /// Actions, each a JSON string.
    pub actions: &'static [&'static str],
    /// Priority, deadline and what a failure means, as members of the manifest's object, each with a comma before it.
    pub settings: &'static str,
    /// The function.
    pub run: HookRun,
}

/// Fetches a hook's parameters and calls it.
#[doc(hidden)]
#[derive(Clone, Copy)]
pub enum HookRun {
    /// `#[authenticate]`
    Authenticate(fn(&mut Context, &Credentials, &[&str]) -> Result<Authentication>),
    /// `#[auth_step(..)]`
    AuthStep(fn(&mut Context, &Step, &[&str]) -> Result<Progress>),
    /// `#[authorize(..)]`
    Authorize(fn(&mut Context, &Access, &[&str]) -> Result<Authorization>),
    /// `#[intercept_publish(..)]`
    InterceptPublish(fn(&mut Context, &InFlight, &[&str]) -> Result<PublishVerdict>),
    /// `#[intercept_subscribe(..)]`
    InterceptSubscribe(fn(&mut Context, &Wanted, &[&str]) -> Result<SubscribeVerdict>),
    /// `#[intercept_deliver(..)]`
    InterceptDeliver(fn(&mut Context, &InFlight, &[&str]) -> Result<DeliverVerdict>),
}

/// An answer of a hook.
pub trait Verdict {}

impl Verdict for Authentication {}
impl Verdict for Progress {}
impl Verdict for Authorization {}
impl Verdict for PublishVerdict {}
impl Verdict for SubscribeVerdict {}
impl Verdict for DeliverVerdict {}

/// What a hook that answers with `V` may return.
#[diagnostic::on_unimplemented(
    message = "this hook answers with `{V}` or `Result<{V}>`, not with `{Self}`",
    label = "not what this hook returns"
)]
pub trait HookResult<V> {
    /// The result.
    fn into_verdict(self) -> Result<V>;
}

impl<V: Verdict> HookResult<V> for V {
    fn into_verdict(self) -> Result<V> {
        Ok(self)
    }
}

impl<V: Verdict, E: Into<Error>> HookResult<V> for Result<V, E> {
    fn into_verdict(self) -> Result<V> {
        self.map_err(Into::into)
    }
}

/// The verdict in what a hook returned.
#[doc(hidden)]
pub fn into_verdict<V>(returned: impl HookResult<V>) -> Result<V> {
    returned.into_verdict()
}

/// Answers `authenticate`.
pub(crate) fn authenticate(hooks: &[Hook], host: &TheHost, credentials: &Credentials) -> Result<Authentication> {
    let mut context = Context::new(None, host);
    for hook in hooks {
        let HookRun::Authenticate(run) = hook.run else { continue };
        let answer = run(&mut context, credentials, &[])?;
        if answer != Authentication::Pass {
            return Ok(answer);
        }
    }
    Ok(Authentication::Pass)
}

/// Answers `auth-step`.
pub(crate) fn auth_step(hooks: &[Hook], host: &TheHost, step: &Step) -> Result<Progress> {
    let mut context = Context::new(None, host);
    for hook in hooks {
        let HookRun::AuthStep(run) = hook.run else { continue };
        if hook.methods.iter().any(|method| method.trim_matches('"') == step.method) {
            return run(&mut context, step, &[]);
        }
    }
    Ok(Progress::deny(format!("no such method: {}", step.method)))
}

/// Answers `authorize`.
pub(crate) fn authorize(hooks: &[Hook], host: &TheHost, access: &Access) -> Result<Authorization> {
    let mut context = Context::new(None, host);
    let action = match access.action {
        Action::Publish => "\"publish\"",
        Action::Subscribe => "\"subscribe\"",
        Action::Will => "\"will\"",
    };
    for hook in hooks {
        let HookRun::Authorize(run) = hook.run else { continue };
        if !(hook.actions.is_empty() || hook.actions.contains(&action)) {
            continue;
        }
        let mut captures = [""; MAX_WILDCARDS];
        let concerned = match access.action {
            Action::Publish | Action::Will => {
                pattern::matches(hook.levels.iter().copied(), &access.topic, &mut captures)
            }
            Action::Subscribe => pattern::overlap(hook.levels, &access.topic),
        };
        if concerned {
            let answer = run(&mut context, access, &captures)?;
            if answer != Authorization::Pass {
                return Ok(answer);
            }
        }
    }
    Ok(Authorization::Pass)
}

/// Answers `intercept-publish`.
pub(crate) fn intercept_publish(hooks: &[Hook], host: &TheHost, mut asked: InFlight) -> Result<PublishVerdict> {
    let mut context = Context::new(None, host);
    let mut replaced = false;
    for hook in hooks {
        let HookRun::InterceptPublish(run) = hook.run else { continue };
        let mut captures = [""; MAX_WILDCARDS];
        if !pattern::matches(hook.levels.iter().copied(), &asked.message.topic, &mut captures) {
            continue;
        }
        match run(&mut context, &asked, &captures)? {
            PublishVerdict::Keep => {}
            PublishVerdict::Replace(message) => {
                asked.message = message;
                replaced = true;
            }
            end @ (PublishVerdict::Drop | PublishVerdict::Deny(_)) => return Ok(end),
        }
    }
    Ok(if replaced { PublishVerdict::Replace(asked.message) } else { PublishVerdict::Keep })
}

/// Answers `intercept-subscribe`.
pub(crate) fn intercept_subscribe(hooks: &[Hook], host: &TheHost, mut asked: Wanted) -> Result<SubscribeVerdict> {
    let mut context = Context::new(None, host);
    let mut replaced = false;
    for hook in hooks {
        let HookRun::InterceptSubscribe(run) = hook.run else { continue };
        if !pattern::overlap(hook.levels, &asked.subscription.filter) {
            continue;
        }
        match run(&mut context, &asked, &[])? {
            SubscribeVerdict::Keep => {}
            SubscribeVerdict::Replace(subscription) => {
                asked.subscription = subscription;
                replaced = true;
            }
            denied @ SubscribeVerdict::Deny(_) => return Ok(denied),
        }
    }
    Ok(if replaced { SubscribeVerdict::Replace(asked.subscription) } else { SubscribeVerdict::Keep })
}

/// Answers `intercept-deliver`.
pub(crate) fn intercept_deliver(hooks: &[Hook], host: &TheHost, mut asked: InFlight) -> Result<DeliverVerdict> {
    let mut context = Context::new(None, host);
    let mut replaced = false;
    for hook in hooks {
        let HookRun::InterceptDeliver(run) = hook.run else { continue };
        let mut captures = [""; MAX_WILDCARDS];
        if !pattern::matches(hook.levels.iter().copied(), &asked.message.topic, &mut captures) {
            continue;
        }
        match run(&mut context, &asked, &captures)? {
            DeliverVerdict::Keep => {}
            DeliverVerdict::Replace(message) => {
                asked.message = message;
                replaced = true;
            }
            DeliverVerdict::Drop => return Ok(DeliverVerdict::Drop),
        }
    }
    Ok(if replaced { DeliverVerdict::Replace(asked.message) } else { DeliverVerdict::Keep })
}
