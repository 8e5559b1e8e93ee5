//! What a manifest says of hooks: which, for what, in which order, under which deadline.

use std::fmt;

use vespiary_core::TopicFilter;

use super::parse_filter;
use super::raw::RawHook;

/// Longest deadline of a hook, in milliseconds: a client waits as long.
const LONGEST_DEADLINE_MS: u64 = 10_000;
/// Most filters, and most methods, of one hook.
const ENTRIES: usize = 64;
/// Longest name of an authentication method, in bytes.
const METHOD_BYTES: usize = 128;

/// A place in the path of a client's packets where a plugin may decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    /// A client connects without an Authentication Method.
    Authenticate,
    /// A client connects, or authenticates again, with an Authentication Method.
    AuthStep,
    /// A client wants to publish, to subscribe or to leave a will.
    Authorize,
    /// A client publishes.
    InterceptPublish,
    /// A client subscribes.
    InterceptSubscribe,
    /// A message is about to leave for a client.
    InterceptDeliver,
}

/// What a client wants to do, to `authorize`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Publish to a topic name.
    Publish,
    /// Subscribe to a topic filter.
    Subscribe,
    /// Leave a will for a topic name.
    Will,
}

/// What happens where a hook fails or is late.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OnFailure {
    /// As if the hook were not there.
    Allow,
    /// As if the hook had refused.
    Deny,
}

/// One entry of the manifest's `hooks`.
#[derive(Debug, Clone, PartialEq)]
pub struct HookDeclaration {
    /// Where.
    pub hook: Hook,
    /// Topics for which it is asked; none for `authenticate` and `auth-step`, which know no topic.
    pub filters: Vec<TopicFilter>,
    /// Authentication Methods that it answers for; of `auth-step` alone.
    pub methods: Vec<String>,
    /// What it is asked about; of `authorize` alone.
    pub actions: Vec<Action>,
    /// Its place among the hooks of several plugins: lower first, and of one priority by the plugin's name.
    pub priority: i32,
    /// How long it may take, in milliseconds.
    pub deadline_ms: u64,
    /// What happens where it fails or is late.
    pub on_failure: OnFailure,
}

impl Hook {
    /// Every hook, in the order of their declaration.
    pub const ALL: [Self; 6] = [
        Self::Authenticate,
        Self::AuthStep,
        Self::Authorize,
        Self::InterceptPublish,
        Self::InterceptSubscribe,
        Self::InterceptDeliver,
    ];

    /// Its name in manifests; the function of the interface `hooks`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Authenticate => "authenticate",
            Self::AuthStep => "auth-step",
            Self::Authorize => "authorize",
            Self::InterceptPublish => "intercept-publish",
            Self::InterceptSubscribe => "intercept-subscribe",
            Self::InterceptDeliver => "intercept-deliver",
        }
    }
}

impl Action {
    /// Every action, in the order of their declaration.
    pub const ALL: [Self; 3] = [Self::Publish, Self::Subscribe, Self::Will];

    /// Its name in manifests.
    pub fn name(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Subscribe => "subscribe",
            Self::Will => "will",
        }
    }
}

impl OnFailure {
    /// Its name in manifests.
    pub fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

impl HookDeclaration {
    pub(super) fn parse(raw: &RawHook) -> Result<Self, String> {
        let hook = Hook::ALL.into_iter().find(|hook| hook.name() == raw.hook);
        let hook = hook.ok_or_else(|| {
            format!("hook {:?} does not exist: use one of {}", raw.hook, Hook::ALL.map(Hook::name).join(", "))
        })?;
        let on_failure = [OnFailure::Allow, OnFailure::Deny].into_iter().find(|one| one.name() == raw.on_failure);
        let on_failure =
            on_failure.ok_or_else(|| format!("on_failure {:?} is neither allow nor deny", raw.on_failure))?;
        if raw.deadline_ms == 0 || raw.deadline_ms > LONGEST_DEADLINE_MS {
            let deadline_ms = raw.deadline_ms;
            return Err(format!("deadline_ms {deadline_ms} is not possible: use 1 to {LONGEST_DEADLINE_MS}"));
        }
        Ok(Self {
            hook,
            filters: filters(hook, raw.filters.as_deref())?,
            methods: methods(hook, raw.methods.as_deref())?,
            actions: actions(hook, raw.actions.as_deref())?,
            priority: raw.priority,
            deadline_ms: raw.deadline_ms,
            on_failure,
        })
    }
}

fn filters(hook: Hook, raw: Option<&[String]>) -> Result<Vec<TopicFilter>, String> {
    match (hook, raw) {
        (Hook::Authenticate | Hook::AuthStep, None) => Ok(Vec::new()),
        (Hook::Authenticate | Hook::AuthStep, Some(_)) => Err(format!("{hook} takes no filters")),
        (Hook::Authorize, None) => Ok(vec![parse_filter("#")?]),
        (Hook::InterceptPublish | Hook::InterceptSubscribe | Hook::InterceptDeliver, None | Some([])) => {
            Err(format!("{hook} needs filters: traffic that no hook asks for pays nothing"))
        }
        (_, Some(raw)) if raw.is_empty() || raw.len() > ENTRIES => {
            Err(format!("it has {} filters: use 1 to {ENTRIES}", raw.len()))
        }
        (_, Some(raw)) => raw.iter().map(|filter| parse_filter(filter)).collect(),
    }
}

fn methods(hook: Hook, raw: Option<&[String]>) -> Result<Vec<String>, String> {
    let raw = match (hook, raw) {
        (Hook::AuthStep, Some(raw)) if (1..=ENTRIES).contains(&raw.len()) => raw,
        (Hook::AuthStep, _) => return Err(format!("{hook} needs methods: name 1 to {ENTRIES}")),
        (_, None) => return Ok(Vec::new()),
        (_, Some(_)) => return Err(format!("{hook} takes no methods")),
    };
    let wrong =
        |method: &&String| method.is_empty() || method.len() > METHOD_BYTES || method.chars().any(char::is_control);
    match raw.iter().find(wrong) {
        Some(method) => Err(format!("{method:?} is not a method: use 1 to {METHOD_BYTES} bytes without controls")),
        None => Ok(raw.to_vec()),
    }
}

fn actions(hook: Hook, raw: Option<&[String]>) -> Result<Vec<Action>, String> {
    let raw = match (hook, raw) {
        (Hook::Authorize, None) => return Ok(Action::ALL.to_vec()),
        (Hook::Authorize, Some([])) => return Err(format!("{hook} is asked about no action: name one")),
        (Hook::Authorize, Some(raw)) => raw,
        (_, None) => return Ok(Vec::new()),
        (_, Some(_)) => return Err(format!("{hook} takes no actions")),
    };
    let mut actions = Vec::new();
    for name in raw {
        let action = Action::ALL.into_iter().find(|action| action.name() == name);
        let action = action.ok_or_else(|| format!("action {name:?} is none of publish, subscribe, will"))?;
        if !actions.contains(&action) {
            actions.push(action);
        }
    }
    Ok(actions)
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
