//! Authenticates clients by SCRAM-SHA-256, without ever seeing a password.
//!
//! State: `user/{user}` what is kept of each user's password ([`Verifier`]). The hook reads it while the client waits; messages
//! on `scram/users/{user}` write it.

pub mod scram;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use vespiary_sdk::prelude::*;
use vespiary_sdk::serde_json;

use crate::scram::{ClientFirst, Failure, MIN_ITERATIONS, Pending, Verifier};

plugin! {
    name: "scram-auth",
    handlers: [registered],
    hooks: [step],
    secrets: ["scram-pepper"],
}

/// Longest user name in bytes.
const MAX_USER_BYTES: usize = 256;

/// The payload of `scram/users/{user}`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Registration {
    /// A password, to be stretched here.
    Password {
        /// The password.
        password: String,
    },
    /// What was computed elsewhere.
    Computed(Verifier),
}

#[on("scram/users/{user}", qos = 1)]
fn registered(cx: &mut Context, user: &str, payload: &[u8]) -> Result<()> {
    if user.is_empty() || user.len() > MAX_USER_BYTES {
        return Err(Error::reject(format!("a user's name has 1 to {MAX_USER_BYTES} bytes")));
    }
    if payload.is_empty() {
        info!("{user} is removed");
        return Ok(cx.state().delete(user_key(user))?);
    }
    // The reason becomes part of a dead letter, so it must not quote the payload.
    let registration = serde_json::from_slice(payload).map_err(|_| Error::reject("neither a password nor its keys"))?;
    let verifier = match registration {
        Registration::Computed(verifier) => verifier.checked().map_err(Error::reject)?,
        Registration::Password { password } => Verifier::of_password(&password, &random::<16>()?, MIN_ITERATIONS)
            .map_err(|_| Error::reject("the password holds characters that SASLprep forbids"))?,
    };
    info!("{user} is registered");
    Ok(cx.state().set(user_key(user), &verifier)?)
}

#[auth_step(method = "SCRAM-SHA-256", deadline_ms = 250, on_failure = "deny")]
fn step(cx: &Context, step: &Step) -> Result<Progress> {
    let message = step.data.as_deref().unwrap_or_default();
    let progress = match &step.state {
        None => match ClientFirst::parse(message) {
            Ok(first) => Ok(begin(cx, first)?),
            Err(failure) => Err(failure),
        },
        Some(state) => {
            let pending: Pending = serde_json::from_slice(state)?;
            let verifier = verifier(cx, &pending.user)?;
            pending
                .finish(message, &verifier)
                .map(|last| Progress::Success { data: Some(last.into_bytes()), user: Some(pending.user) })
        }
    };
    Ok(progress.unwrap_or_else(|failure: Failure| Progress::deny(failure.to_string())))
}

/// Answers the client's first message.
fn begin(cx: &Context, first: ClientFirst) -> Result<Progress> {
    let verifier = verifier(cx, &first.user)?;
    let (message, pending) = first.challenge(&verifier, &STANDARD.encode(random::<18>()?));
    Ok(Progress::Continue { data: message.into_bytes(), next: serde_json::to_vec(&pending)? })
}

/// What is kept of a user, or what an unknown one is asked with.
fn verifier(cx: &Context, user: &str) -> Result<Verifier> {
    if let Some(verifier) = cx.state().get(user_key(user))? {
        return Ok(verifier);
    }
    let pepper = cx.secret("scram-pepper").map(|pepper| pepper.reveal()).unwrap_or_default();
    Ok(Verifier::of_nobody(user, pepper.as_bytes()))
}

fn random<const LENGTH: usize>() -> Result<[u8; LENGTH]> {
    let mut bytes = [0; LENGTH];
    getrandom::fill(&mut bytes).map_err(|error| Error::retry(format!("no random numbers: {error}")))?;
    Ok(bytes)
}

fn user_key(user: &str) -> String {
    format!("user/{user}")
}
