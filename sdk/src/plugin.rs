//! A declared plugin, and the loop that takes a batch of events through its handlers.
//!
//! The loop is the same in a component and in tests. Each event is a transaction: `begin`, every handler that takes the event,
//! in the order of the declaration, and `rollback` if one of them fails.

use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use crate::config::Config;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::event::{Event, EventKind};
use crate::handler::{Handler, Trigger};
use crate::hooks::Hook;
use crate::host::{Host, TheHost};
use crate::http::Route;
use crate::migration::{self, Entry, Migration};
use crate::pattern::MAX_WILDCARDS;
use crate::request;
use crate::warn;

/// A plugin, as `plugin!` declares it; `plugin()` gives it.
#[derive(Clone, Copy)]
pub struct Plugin {
    /// What was declared.
    declaration: &'static Declaration,
}

/// What `plugin!` declares.
#[doc(hidden)]
pub struct Declaration {
    /// See [`Plugin::name`].
    pub name: &'static str,
    /// See [`Plugin::version`].
    pub version: &'static str,
    /// See [`Plugin::manifest`].
    pub manifest: &'static [u8],
    /// The handlers, in the order in which they run.
    pub handlers: &'static [Handler],
    /// The hooks, in the order in which they are asked.
    pub hooks: &'static [Hook],
    /// The routes.
    pub routes: &'static [Route],
    /// The migrations.
    pub migrations: &'static [Migration],
    /// See [`Plugin::state_version`].
    pub state_version: u32,
    /// See [`Plugin::publishes`].
    pub publishes: &'static [&'static str],
    /// Names of the secrets that it asks for.
    pub secrets: &'static [&'static str],
    /// Servers that it asks to reach over HTTP.
    pub http_hosts: &'static [&'static str],
    /// Whether it asks to disconnect clients.
    pub disconnects: bool,
    /// Called once on each new instance.
    pub init: Option<Check>,
    /// Called after `init` on a deploy.
    pub health: Option<Check>,
}

/// A plugin's `init` or `health`.
type Check = fn(&Config) -> Result<()>;

/// What became of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Handled: what it wrote, published and asked for is committed.
    Done,
    /// Failed for now: it comes again.
    Retry {
        /// The reason.
        reason: String,
        /// After how long, if that is not left to the broker.
        after: Option<Duration>,
    },
    /// Will never succeed, with the reason: it becomes a dead letter.
    Reject(String),
}

impl Plugin {
    /// The plugin's name.
    pub fn name(&self) -> &'static str {
        self.declaration.name
    }

    /// The plugin's version: usually its crate's.
    pub fn version(&self) -> &'static str {
        self.declaration.version
    }

    /// The manifest, as it stands in the component: JSON with all that the declaration and what it lists say.
    pub fn manifest(&self) -> &'static str {
        std::str::from_utf8(self.declaration.manifest).expect("a manifest is put together from strings")
    }

    /// The version of the form that the plugin's state has; 1 unless it is declared.
    pub fn state_version(&self) -> u32 {
        self.declaration.state_version
    }

    /// The topic filters that it subscribes to, in the order of its handlers.
    pub fn subscribes(&self) -> impl Iterator<Item = &'static str> {
        self.declaration.handlers.iter().filter_map(|handler| match handler.trigger {
            Trigger::Topic { filter, .. } => Some(filter),
            Trigger::Timer { .. } | Trigger::Schedule { .. } | Trigger::Response { .. } => None,
        })
    }

    /// The topic filters that it asks to publish to.
    pub fn publishes(&self) -> &'static [&'static str] {
        self.declaration.publishes
    }

    pub(crate) fn declaration(&self) -> &'static Declaration {
        self.declaration
    }

    /// Runs the plugin's `init`.
    pub(crate) fn init(&self, host: &TheHost) -> Result<(), String> {
        check(self.declaration.init, host)
    }

    /// Runs the plugin's `health`.
    pub(crate) fn health(&self, host: &TheHost) -> Result<(), String> {
        check(self.declaration.health, host)
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
                none => none.insert(Context::new(Some(Rc::clone(&event)), host)),
            };
            host.begin(event.id());
            let outcome = match self.handle_one(context, &event) {
                Ok(()) => Outcome::Done,
                Err(error) => {
                    host.rollback();
                    let after = error.pause();
                    if error.is_reject() {
                        Outcome::Reject(error.into_message())
                    } else {
                        Outcome::Retry { reason: error.into_message(), after }
                    }
                }
            };
            outcomes.push(outcome);
        }
        outcomes
    }

    fn handle_one(&self, context: &mut Context, event: &Event) -> Result<()> {
        let tag = match event.kind() {
            EventKind::Response => request::take_tag(context.host(), event)?,
            EventKind::Message | EventKind::Timer | EventKind::Client => None,
        };
        let mut matched = false;
        for handler in self.declaration.handlers {
            let mut captures = [""; MAX_WILDCARDS];
            if handler.trigger.takes(event, tag.as_deref(), &mut captures) {
                matched = true;
                (handler.run)(context, event, &captures)?;
            }
        }
        if !matched {
            // It came while an earlier revision with other handlers was active.
            warn!("no handler for `{}`: the event is dropped", event.topic());
        }
        Ok(())
    }

    /// Brings entries of an earlier state version to this one's form.
    pub(crate) fn migrate(&self, from: u32, entries: Vec<Entry>) -> Result<Vec<Vec<Entry>>, String> {
        let Declaration { migrations, state_version, .. } = self.declaration;
        let migrated = entries.into_iter().map(|entry| migration::migrate(migrations, from, *state_version, entry));
        migrated.collect::<Result<_>>().map_err(Error::into_message)
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
        write!(f, "{} {}", self.name(), self.version())
    }
}

/// Makes a plugin; called by `plugin!`.
#[doc(hidden)]
pub const fn plugin(declaration: &'static Declaration) -> Plugin {
    Plugin { declaration }
}
