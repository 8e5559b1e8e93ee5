//! A declared plugin, and the loop that takes a batch of events through its handlers.
//!
//! The loop is the same in a component and in tests. Each event is a transaction: `begin`, every handler whose pattern matches,
//! in the order of the declaration, and `rollback` if one of them fails.

use std::fmt;
use std::rc::Rc;

use crate::config::Config;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::event::Event;
use crate::host::{Host, TheHost};
use crate::pattern::{self, Level, MAX_WILDCARDS};
use crate::warn;

/// A plugin, as `plugin!` declares it; `plugin()` gives it.
#[derive(Clone, Copy)]
pub struct Plugin {
    /// See [`Plugin::name`].
    name: &'static str,
    /// See [`Plugin::version`].
    version: &'static str,
    /// See [`Plugin::manifest`].
    manifest: &'static str,
    /// The handlers, in the order in which they run.
    handlers: &'static [Handler],
    /// See [`Plugin::publishes`].
    publishes: &'static [&'static str],
    /// Called once on each new instance.
    init: Option<Check>,
    /// Called after `init` on a deploy.
    health: Option<Check>,
}

/// A plugin's `init` or `health`.
type Check = fn(&Config) -> Result<()>;

/// What `#[on(..)]` declares about a function.
#[doc(hidden)]
#[derive(Clone, Copy)]
pub struct Handler {
    /// The function's name.
    pub name: &'static str,
    /// The topic filter to subscribe to.
    pub filter: &'static str,
    /// The topic filter as a JSON string.
    pub filter_json: &'static str,
    /// QoS of the subscription.
    pub qos: u8,
    /// The pattern that topics are matched against.
    pub levels: &'static [Level<'static>],
    /// Fetches the parameters and calls the function; gets what the pattern captured.
    pub run: fn(&mut Context, &Event, &[&str]) -> Result<()>,
}

/// What became of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Handled: its writes and publishes are committed.
    Done,
    /// Failed for now, with the reason: it comes again after a pause.
    Retry(String),
    /// Will never succeed, with the reason: it becomes a dead letter.
    Reject(String),
}

impl Plugin {
    /// The plugin's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The plugin's version: usually its crate's.
    pub fn version(&self) -> &'static str {
        self.version
    }

    /// The manifest, as it stands in the component: JSON with name, version, description, subscriptions and grants
    /// asked for.
    pub fn manifest(&self) -> &'static str {
        self.manifest
    }

    /// The topic filters that it subscribes to, in the order of its handlers.
    pub fn subscribes(&self) -> impl Iterator<Item = &'static str> {
        self.handlers.iter().map(|handler| handler.filter)
    }

    /// The topic filters that it asks to publish to.
    pub fn publishes(&self) -> &'static [&'static str] {
        self.publishes
    }

    /// Runs the plugin's `init`.
    pub(crate) fn init(&self, host: &TheHost) -> Result<(), String> {
        check(self.init, host)
    }

    /// Runs the plugin's `health`.
    pub(crate) fn health(&self, host: &TheHost) -> Result<(), String> {
        check(self.health, host)
    }

    /// Handles a batch: one outcome for each event, in order.
    pub(crate) fn handle(&self, host: &TheHost, events: impl Iterator<Item = Event>) -> Vec<Outcome> {
        let mut outcomes = Vec::with_capacity(events.size_hint().0);
        let mut context: Option<Context> = None;
        for event in events {
            let event = Rc::new(event);
            let context = match &mut context {
                Some(context) => {
                    context.turn_to(Rc::clone(&event));
                    context
                }
                none => none.insert(Context::new(Rc::clone(&event), host)),
            };
            host.begin(event.id());
            let outcome = match self.handle_one(context, &event) {
                Ok(()) => Outcome::Done,
                Err(error) => {
                    host.rollback();
                    if error.is_reject() {
                        Outcome::Reject(error.into_message())
                    } else {
                        Outcome::Retry(error.into_message())
                    }
                }
            };
            outcomes.push(outcome);
        }
        outcomes
    }

    fn handle_one(&self, context: &mut Context, event: &Event) -> Result<()> {
        let mut matched = false;
        for handler in self.handlers {
            let mut captures = [""; MAX_WILDCARDS];
            if pattern::matches(handler.levels.iter().copied(), event.topic(), &mut captures) {
                matched = true;
                (handler.run)(context, event, &captures)?;
            }
        }
        if !matched {
            // It came while an earlier revision with other subscriptions was active.
            warn!("no handler for `{}`: the event is dropped", event.topic());
        }
        Ok(())
    }
}

fn check(check: Option<Check>, host: &TheHost) -> Result<(), String> {
    match check {
        None => Ok(()),
        Some(check) => check(&Config::new(host.clone())).map_err(Error::into_message),
    }
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.version)
    }
}

impl fmt::Debug for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.name, self.filter)
    }
}

/// Makes a plugin; called by `plugin!`.
#[doc(hidden)]
pub const fn plugin(
    name: &'static str,
    version: &'static str,
    manifest: &'static [u8],
    handlers: &'static [Handler],
    publishes: &'static [&'static str],
    init: Option<Check>,
    health: Option<Check>,
) -> Plugin {
    let manifest = match std::str::from_utf8(manifest) {
        Ok(manifest) => manifest,
        Err(_) => panic!("a manifest is put together from strings"),
    };
    Plugin { name, version, manifest, handlers, publishes, init, health }
}

/// What a handler may return: nothing, or a result.
#[doc(hidden)]
pub fn into_result(returned: impl HandlerResult) -> Result<()> {
    returned.into_result()
}

/// What a handler may return.
#[diagnostic::on_unimplemented(
    message = "a handler returns `Result<()>` or nothing, not `{Self}`",
    label = "not what a handler returns"
)]
pub trait HandlerResult {
    /// The result.
    fn into_result(self) -> Result<()>;
}

impl HandlerResult for () {
    fn into_result(self) -> Result<()> {
        Ok(())
    }
}

impl<E: Into<Error>> HandlerResult for Result<(), E> {
    fn into_result(self) -> Result<()> {
        self.map_err(Into::into)
    }
}
