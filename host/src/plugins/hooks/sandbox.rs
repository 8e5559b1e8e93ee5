//! Guests in the sandbox: an instance answers with the plugin's state as it is when it is asked.
//!
//! Nothing is decided here. What a guest asks of the host while it answers is the wasm floor's.

use std::sync::Arc;
use std::time::Duration;

use vespiary_core::event::SessionId;

use super::guest::{Answer, Code, Guest, Question};
use crate::clock::wall_clock;
use crate::store::Store;
use crate::wasm::{CallError, Compiled, Instance, InstanceContext, Runtime};

/// A compiled component with what its instances need.
pub struct SandboxCode {
    /// Makes instances.
    pub runtime: Arc<Runtime>,
    /// The component.
    pub compiled: Compiled,
    /// What instances are made for.
    pub context: InstanceContext,
    /// Where the plugin's state is read.
    pub store: Store,
    /// The generation of the state in use.
    pub state: SessionId,
}

/// A living instance.
struct SandboxGuest {
    /// The instance.
    instance: Instance,
    /// Where the plugin's state is read.
    store: Store,
    /// The generation of the state in use.
    state: SessionId,
}

impl Code for SandboxCode {
    fn guest(&self) -> Result<Box<dyn Guest>, String> {
        let make = || -> Result<Instance, CallError> {
            let mut instance = self.runtime.instantiate(&self.compiled, self.context.clone())?;
            instance.init()?;
            Ok(instance)
        };
        let instance = make().map_err(|error| error.to_string())?;
        Ok(Box::new(SandboxGuest { instance, store: self.store.clone(), state: self.state }))
    }
}

impl Guest for SandboxGuest {
    fn ask(&mut self, deadline: Duration, question: &Question) -> Result<Answer, String> {
        let now = wall_clock();
        let state = self.store.snapshot(self.state, now).map_err(|error| error.to_string())?;
        let instance = &mut self.instance;
        let answer = match question {
            Question::Authenticate(asked) => {
                instance.authenticate(now, deadline, state, asked).map(Answer::Authenticate)
            }
            Question::AuthStep(asked) => instance.auth_step(now, deadline, state, asked).map(Answer::AuthStep),
            Question::Authorize(asked) => instance.authorize(now, deadline, state, asked).map(Answer::Authorize),
            Question::Publish(asked) => instance.intercept_publish(now, deadline, state, asked).map(Answer::Publish),
            Question::Subscribe(asked) => {
                instance.intercept_subscribe(now, deadline, state, asked).map(Answer::Subscribe)
            }
            Question::Deliver(asked) => instance.intercept_deliver(now, deadline, state, asked).map(Answer::Deliver),
        };
        answer.map_err(|error| error.to_string())
    }
}
