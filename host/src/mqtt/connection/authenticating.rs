//! Enhanced authentication on a connection (section 4.12): whose turn it is, and what the method's outcome means.
//!
//! Before CONNACK, nothing but AUTH and DISCONNECT may come [MQTT-3.1.2-30], the deadline of CONNECT runs on, and the
//! connection counts as one whose CONNECT is still to come. On a running connection a client may authenticate again while
//! its other packets flow [MQTT-4.12.1-1]. The method's answer is polled by the connection's own task and dropped with
//! it.

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use vespiary_core::ChangeNumber;
use vespiary_core::event::ReasonCode;

use super::{Connection, Phase};
use crate::mqtt::authentication::{Answer, Claim, Exchange, Method, Outcome, offered};
use crate::mqtt::encode;
use crate::mqtt::frame::{Frame, PacketType};
use crate::mqtt::translate::{self, Accepted, AuthStep};
use crate::mqtt::worker::Worker;

/// Most bytes of Authentication Data: its length is a two-byte field.
const MAX_DATA_BYTES: usize = u16::MAX as usize;

/// A client that named a method.
#[derive(Debug)]
pub(super) struct Authentication {
    /// The method's name; all AUTH packets and CONNACK carry it [MQTT-4.12.0-5].
    name: Arc<str>,
    /// The method.
    method: Arc<dyn Method>,
    /// What the client said of itself in CONNECT, for when it authenticates again.
    claim: Claim,
    /// Whose turn it is.
    stage: Stage,
    /// CONNECT, until the client has authenticated.
    accepted: Option<Box<Accepted>>,
    /// The method's last data, until CONNACK takes it.
    data: Option<Box<[u8]>>,
}

/// Whose turn it is.
enum Stage {
    /// Nobody's: there is no exchange.
    Idle,
    /// The method's.
    Method(Answer),
    /// The client's.
    Client(Box<dyn Exchange>),
}

impl fmt::Debug for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "Idle",
            Self::Method(_) => "Method",
            Self::Client(_) => "Client",
        })
    }
}

impl Connection {
    /// CONNECT names an authentication method: the client is let in when it has authenticated.
    pub(super) fn begin_authentication(self: &Rc<Self>, worker: &Worker, mut accepted: Box<Accepted>) {
        let Some(request) = accepted.authentication.take() else { return };
        let own = worker.options.authentication_methods.find(&request.method).cloned();
        let Some(method) = own.or_else(|| offered(worker.hooks.hooks(), &request.method)) else {
            worker.options.counters.protocol_errors.add();
            return self.refuse(worker, ChangeNumber(0), ReasonCode::BadAuthenticationMethod); // [MQTT-4.12.0-1]
        };
        let client_id = accepted.connect.client_id.clone();
        let claim = Claim { client_id, user_name: request.user_name, address: self.address(), data: None };
        let answer = method.begin(Claim { data: request.data, ..claim.clone() });
        self.phase.set(Phase::Authenticating);
        self.authentication.keep(Authentication {
            name: request.method,
            method,
            claim,
            stage: Stage::Method(answer),
            accepted: Some(accepted),
            data: None,
        });
    }

    /// A packet before CONNACK.
    pub(super) fn packet_while_authenticating(self: &Rc<Self>, worker: &Worker, frame: Frame<'_>) {
        match frame.packet {
            PacketType::Auth => self.authenticate(worker, frame),
            PacketType::Disconnect => self.close(worker),
            _ => self.violated(worker, ReasonCode::ProtocolError), // [MQTT-3.1.2-30]
        }
    }

    /// AUTH.
    pub(super) fn authenticate(self: &Rc<Self>, worker: &Worker, frame: Frame<'_>) {
        if let Err(reason) = self.take_auth(frame) {
            self.violated(worker, reason);
        }
    }

    fn take_auth(&self, frame: Frame<'_>) -> Result<(), ReasonCode> {
        let auth = translate::auth(frame)?;
        let taken = self.authentication.with(|authentication| {
            // Another method than that of CONNECT [MQTT-4.12.0-5] [MQTT-4.12.1-1].
            if *authentication.name != *auth.method {
                return Err(ReasonCode::ProtocolError);
            }
            let data = auth.data.map(Into::into);
            let answer = match (auth.step, std::mem::replace(&mut authentication.stage, Stage::Idle)) {
                (AuthStep::Continue, Stage::Client(exchange)) => exchange.proceed(data),
                (AuthStep::Reauthenticate, Stage::Idle) if self.is_open() => {
                    authentication.method.begin(Claim { data, ..authentication.claim.clone() })
                }
                // It is not the client's turn, or there is no exchange to go on with.
                (AuthStep::Continue | AuthStep::Reauthenticate, _) => return Err(ReasonCode::ProtocolError),
            };
            authentication.stage = Stage::Method(answer);
            Ok(())
        });
        taken.unwrap_or(Err(ReasonCode::ProtocolError)) // no method in CONNECT [MQTT-4.12.0-7]
    }

    /// Sees whether a method has answered.
    pub(super) fn poll_authentication(self: &Rc<Self>, worker: &Worker, context: &mut Context<'_>) {
        let outcome = self.authentication.with(|authentication| {
            let Stage::Method(answer) = &mut authentication.stage else { return None };
            match answer.as_mut().poll(context) {
                Poll::Ready(outcome) => {
                    authentication.stage = Stage::Idle;
                    Some(outcome)
                }
                Poll::Pending => None,
            }
        });
        let Some(outcome) = outcome.flatten() else { return };
        let data = match &outcome {
            Outcome::Continue { data, .. } | Outcome::Success { data, .. } => data.as_ref(),
            Outcome::Refuse(_) => None,
        };
        if data.is_some_and(|data| data.len() > MAX_DATA_BYTES) {
            tracing::error!(connection = self.id.0, "an authentication method gave more data than fits a packet");
            return self.end(worker, ReasonCode::ImplementationSpecificError);
        }
        self.conclude(worker, outcome);
    }

    fn conclude(self: &Rc<Self>, worker: &Worker, outcome: Outcome) {
        match outcome {
            Outcome::Continue { data, exchange } => {
                if self.say_auth(worker, false, data) {
                    self.authentication.with(|authentication| authentication.stage = Stage::Client(exchange));
                }
            }
            Outcome::Success { data, user_name } => {
                let accepted = self.authentication.with(|authentication| {
                    if user_name.is_some() {
                        authentication.claim.user_name.clone_from(&user_name);
                    }
                    let accepted = authentication.accepted.take()?;
                    authentication.data = data.clone();
                    Some(accepted)
                });
                match accepted.flatten() {
                    Some(mut accepted) => {
                        if user_name.is_some() {
                            accepted.rename(user_name);
                        }
                        self.admit(worker, *accepted, true);
                    }
                    None => {
                        if user_name.is_some() {
                            self.rename(user_name);
                        }
                        self.say_auth(worker, true, data);
                    }
                }
            }
            Outcome::Refuse(reason) => {
                worker.options.counters.failed_authentications.add();
                // [MQTT-4.12.1-2], or a CONNACK that refuses.
                self.end(worker, if reason.is_error() { reason } else { ReasonCode::NotAuthorized });
            }
        }
    }

    /// Stages AUTH, with the method of CONNECT; says whether the client takes one so large.
    fn say_auth(self: &Rc<Self>, worker: &Worker, is_success: bool, data: Option<Box<[u8]>>) -> bool {
        let method = self.authentication.with(|authentication| authentication.name.clone());
        let Some(method) = method else { return false };
        let authentication = encode::Authentication { method, data };
        let packet = |out: &mut Vec<u8>| encode::auth(is_success, &authentication, out);
        let fits = self.stage_if_it_fits(worker, ChangeNumber(0), packet);
        if !fits {
            self.end(worker, ReasonCode::PacketTooLarge);
        }
        fits
    }

    /// What a CONNACK that accepts says of the method [MQTT-4.12.0-5].
    pub(super) fn authenticated(&self) -> Option<encode::Authentication> {
        self.authentication.with(|Authentication { name, data, .. }| encode::Authentication {
            method: name.clone(),
            data: data.take(),
        })
    }
}
