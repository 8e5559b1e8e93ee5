//! Hooks without a sandbox, for tests: a closure answers.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use vespiary_core::TopicFilter;
use vespiary_core::event::PluginName;

use super::{Answer, Code, Guest, Hooks, Question};
use crate::plugins::manifest::{Action, Hook, HookDeclaration, OnFailure};
use crate::wasm::LogSink;

/// What answers.
type Script = Arc<dyn Fn(&Question) -> Result<Answer, String> + Send + Sync>;

/// Code whose guests follow a script.
pub(crate) struct Scripted {
    script: Script,
}

impl Scripted {
    pub(crate) fn code(script: impl Fn(&Question) -> Result<Answer, String> + Send + Sync + 'static) -> Arc<dyn Code> {
        Arc::new(Self { script: Arc::new(script) })
    }
}

struct ScriptedGuest(Script);

impl Code for Scripted {
    fn guest(&self) -> Result<Box<dyn Guest>, String> {
        Ok(Box::new(ScriptedGuest(Arc::clone(&self.script))))
    }
}

impl Guest for ScriptedGuest {
    fn ask(&mut self, _: Duration, question: &Question) -> Result<Answer, String> {
        (self.0)(question)
    }
}

/// A declaration that waits for long and fails closed.
pub(crate) fn declaration(hook: Hook, filters: &[&str]) -> HookDeclaration {
    HookDeclaration {
        hook,
        filters: filters.iter().map(|filter| TopicFilter::parse(filter).unwrap()).collect(),
        methods: Vec::new(),
        actions: if hook == Hook::Authorize { Action::ALL.to_vec() } else { Vec::new() },
        priority: 0,
        deadline_ms: 10_000,
        on_failure: OnFailure::Deny,
    }
}

/// A log, and the lines in it.
pub(crate) fn log() -> (LogSink, Arc<Mutex<Vec<String>>>) {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&lines);
    (Arc::new(move |line| sink.lock().unwrap().push(line.message)), lines)
}

/// Installs a plugin whose hooks follow a script.
pub(crate) fn install(
    hooks: &Hooks,
    plugin: &str,
    declarations: &[HookDeclaration],
    script: impl Fn(&Question) -> Result<Answer, String> + Send + Sync + 'static,
) {
    hooks.install(&PluginName(plugin.into()), Scripted::code(script), log().0, declarations);
}
