//! Who is let in: what hooks say of a client that connects, and of its will.
//!
//! While a hook is asked, the deadline of CONNECT runs on, the connection counts as one whose CONNECT is still to come, and
//! nothing is read.

use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use vespiary_core::event::ReasonCode;
use vespiary_core::{ChangeNumber, Message};

use super::{Connection, Later, Phase};
use crate::mqtt::refusals;
use crate::mqtt::translate::Accepted;
use crate::mqtt::worker::Worker;
use crate::plugins::hooks::{Admission, Set, Wanted};
use crate::wasm::hooks::{Credentials, HookClient, Refusal};

/// A client that waits to be let in.
pub(super) struct Admitting {
    /// What it said of itself.
    accepted: Box<Accepted>,
    /// What hooks say of it.
    answer: Later<Result<Option<Arc<str>>, Refusal>>,
}

impl Connection {
    /// A client is let in if hooks say so, or the configuration. `is_proven` says whether it has authenticated by a method.
    pub(super) fn admit(self: &Rc<Self>, worker: &Worker, accepted: Accepted, is_proven: bool) {
        let is_asked = !is_proven && worker.hooks.any(Wanted::Authentication);
        if !is_proven && !is_asked && !worker.options.anonymous {
            worker.options.counters.failed_authentications.add();
            return self.refuse(worker, ChangeNumber(0), ReasonCode::NotAuthorized);
        }
        let will = accepted.connect.will.as_ref().filter(|_| worker.hooks.any(Wanted::Wills));
        let will = will.filter(|will| worker.hooks.set().wants_will(&will.message.topic));
        if !is_asked && will.is_none() {
            return self.accept(worker, accepted);
        }
        let will = will.map(|will| will.message.clone());
        let connect = &accepted.connect;
        let client = HookClient {
            id: connect.client_id.clone(),
            user: connect.user.clone(),
            address: (&*connect.address).into(),
            protocol: connect.protocol,
        };
        let credentials = is_asked.then(|| Credentials {
            client: client.clone(),
            password: accepted.password.as_deref().map(Into::into),
            clean_start: connect.clean_start,
        });
        let answer = Box::pin(ask(worker.hooks.set(), client, credentials, will, worker.options.anonymous));
        self.phase.set(Phase::Authenticating);
        self.hooked.with_some(|hooked| hooked.admitting = Some(Admitting { accepted: Box::new(accepted), answer }));
        self.waits.set(true);
    }

    /// Sees whether hooks have said who is let in.
    pub(super) fn poll_admission(self: &Rc<Self>, worker: &Worker, context: &mut Context<'_>) {
        let answered = self.hooked.with(|hooked| {
            let answer = hooked.admitting.as_mut()?.answer.as_mut();
            let Poll::Ready(answer) = answer.poll(context) else { return None };
            Some((hooked.admitting.take()?, answer))
        });
        let Some((Admitting { mut accepted, .. }, answer)) = answered.flatten() else { return };
        self.waits.set(false);
        match answer {
            Ok(user) => {
                if user.is_some() {
                    accepted.rename(user);
                }
                self.accept(worker, *accepted);
            }
            Err(refusal) => {
                let client = &*accepted.connect.client_id;
                tracing::debug!(client, refusal.code, refusal.reason, "a hook refused a connection");
                worker.options.counters.failed_authentications.add();
                let (reason, words) =
                    (refusals::of_connect(refusal.code, self.protocol()), refusals::words(&refusal.reason));
                self.refuse_saying(worker, ChangeNumber(0), reason, words.as_deref());
            }
        }
    }
}

/// Gives the user name to know the client by, if it is another than it gave.
async fn ask(
    set: Arc<Set>,
    mut client: HookClient,
    credentials: Option<Credentials>,
    will: Option<Message>,
    anonymous: bool,
) -> Result<Option<Arc<str>>, Refusal> {
    let mut user = None;
    if let Some(credentials) = credentials {
        match set.authenticate(credentials).await {
            Admission::Allowed(name) => user = name,
            Admission::Denied(refusal) => return Err(refusal),
            Admission::Unknown if anonymous => {}
            Admission::Unknown => {
                let reason = "nobody vouches for this client".to_owned();
                return Err(Refusal { code: ReasonCode::NotAuthorized as u8, reason });
            }
        }
    }
    if let Some(message) = will {
        if user.is_some() {
            client.user.clone_from(&user);
        }
        set.will(&client, &message).await?;
    }
    Ok(user)
}
