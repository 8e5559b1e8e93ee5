//! Authentication methods that plugins offer with the hook `auth-step`.
//!
//! A method is found anew for each step, so what a deploy brings or takes away holds at once. What a step gives for the
//! next is kept here, not by the plugin.

use std::sync::Arc;

use vespiary_core::event::Protocol;

use super::{Answer, Claim, Exchange, Method, Outcome};
use crate::mqtt::refusals;
use crate::plugins::hooks::{Hooks, Wanted};
use crate::wasm::hooks::{AuthProgress, AuthStep, HookClient};

/// The method of this name that a plugin offers, if one does.
pub(in crate::mqtt) fn offered(hooks: &Hooks, name: &Arc<str>) -> Option<Arc<dyn Method>> {
    let view = hooks.view();
    let is_offered = view.any(Wanted::Methods) && view.set().offers(name);
    is_offered.then(|| Arc::new(Offered { hooks: hooks.clone(), name: name.clone() }) as Arc<dyn Method>)
}

/// A method.
#[derive(Debug, Clone)]
struct Offered {
    /// Where it is found.
    hooks: Hooks,
    /// Its name.
    name: Arc<str>,
}

/// An exchange that goes on.
#[derive(Debug)]
struct Next {
    /// The method.
    method: Offered,
    /// Who authenticates.
    client: HookClient,
    /// What the last step gave.
    state: Vec<u8>,
}

impl Offered {
    fn step(self, client: HookClient, data: Option<Box<[u8]>>, state: Option<Vec<u8>>) -> Answer {
        Box::pin(async move {
            let method = self.name.to_string();
            let step = AuthStep { client: client.clone(), method, data: data.map(Into::into), state };
            match self.hooks.current().step(step).await {
                AuthProgress::Continue { data, next } => {
                    let exchange = Box::new(Next { method: self, client, state: next });
                    Outcome::Continue { data: Some(data.into()), exchange }
                }
                AuthProgress::Success { data, user } => {
                    Outcome::Success { data: data.map(Into::into), user_name: user.map(Into::into) }
                }
                AuthProgress::Deny(refusal) => {
                    tracing::debug!(client = &*client.id, method = &*self.name, refusal.reason, "refused by a hook");
                    Outcome::Refuse(refusals::of_connect(refusal.code, Protocol::V5))
                }
            }
        })
    }
}

impl Method for Offered {
    fn begin(&self, claim: Claim) -> Answer {
        let Claim { client_id, user_name, address, data } = claim;
        let client = HookClient { id: client_id, user: user_name, address, protocol: Protocol::V5 };
        self.clone().step(client, data, None)
    }
}

impl Exchange for Next {
    fn proceed(self: Box<Self>, data: Option<Box<[u8]>>) -> Answer {
        let Self { method, client, state } = *self;
        method.step(client, data, Some(state))
    }
}
