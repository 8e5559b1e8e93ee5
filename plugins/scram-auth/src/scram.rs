//! SCRAM-SHA-256: the messages of the server, as functions of what came before (RFC 5802, RFC 7677).
//!
//! Nothing here draws random numbers or reads state. Channel binding is not offered: `n` and `y` are taken, `p` is not, and
//! an authorization identity is not either.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// Fewest iterations, by RFC 7677 section 4.
pub const MIN_ITERATIONS: u32 = 4096;

/// Most iterations: stretching happens once, where an event is handled, and should not take its time away.
pub const MAX_ITERATIONS: u32 = 100_000;

/// Longest message of a client in bytes.
const MAX_MESSAGE_BYTES: usize = 4096;

/// What is kept of a user's password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verifier {
    /// The salt, in base64.
    pub salt: String,
    /// How often it was stretched.
    pub iterations: u32,
    /// `H(ClientKey)`, in base64.
    pub stored_key: String,
    /// `ServerKey`, in base64.
    pub server_key: String,
}

/// What the server remembers between the two steps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// The user.
    pub user: String,
    /// The nonces of both, joined.
    nonce: String,
    /// What the client's last message has to bind: its GS2 header, in base64.
    binding: String,
    /// The messages so far, as the proof covers them.
    transcript: String,
}

/// The client's first message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientFirst {
    /// The user.
    pub user: String,
    /// The client's nonce.
    nonce: String,
    /// The GS2 header.
    header: String,
    /// The rest of the message.
    bare: String,
}

/// Why an exchange ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// A message is not what RFC 5802 says.
    Malformed(&'static str),
    /// The proof is wrong, or there is no such user.
    NotProven,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(what) => write!(f, "malformed: {what}"),
            Self::NotProven => f.write_str("the user or the proof is wrong"),
        }
    }
}

impl std::error::Error for Failure {}

impl Verifier {
    /// Stretches a password, prepared by SASLprep (RFC 4013).
    pub fn of_password(password: &str, salt: &[u8], iterations: u32) -> Result<Self, stringprep::Error> {
        let password = stringprep::saslprep(password)?;
        let mut salted = [0; 32];
        pbkdf2::pbkdf2_hmac::<Sha256>(password.as_bytes(), salt, iterations, &mut salted);
        let stored_key = Sha256::digest(hmac(&salted, b"Client Key"));
        Ok(Self {
            salt: STANDARD.encode(salt),
            iterations,
            stored_key: STANDARD.encode(stored_key),
            server_key: STANDARD.encode(hmac(&salted, b"Server Key")),
        })
    }

    /// What an unknown user is asked with, so that it looks like a known one: the same salt each time, and keys that nothing
    /// fits.
    pub fn of_nobody(user: &str, pepper: &[u8]) -> Self {
        let salt = &hmac(pepper, user.as_bytes())[..16];
        Self {
            salt: STANDARD.encode(salt),
            iterations: MIN_ITERATIONS,
            stored_key: String::new(),
            server_key: String::new(),
        }
    }

    /// Checks what somebody else computed; the error says what is wrong with it.
    pub fn checked(self) -> Result<Self, &'static str> {
        let bytes = |text: &str| STANDARD.decode(text).ok().map(|bytes| bytes.len());
        if bytes(&self.salt).is_none_or(|length| !(8..=64).contains(&length)) {
            return Err("the salt is 8 to 64 bytes in base64");
        }
        if !(MIN_ITERATIONS..=MAX_ITERATIONS).contains(&self.iterations) {
            return Err("there are 4,096 to 100,000 iterations");
        }
        if bytes(&self.stored_key) != Some(32) || bytes(&self.server_key) != Some(32) {
            return Err("the keys are 32 bytes in base64");
        }
        Ok(self)
    }
}

impl ClientFirst {
    /// Reads `n,,n=user,r=nonce`.
    pub fn parse(message: &[u8]) -> Result<Self, Failure> {
        let text = text(message)?;
        let malformed = Failure::Malformed;
        let mut parts = text.splitn(3, ',');
        let flag = parts.next().unwrap_or_default();
        let identity = parts.next().ok_or(malformed("it has no GS2 header"))?;
        let bare = parts.next().ok_or(malformed("it has no GS2 header"))?;
        if !["n", "y"].contains(&flag) {
            return Err(malformed("channel binding is not offered"));
        }
        if !identity.is_empty() {
            return Err(malformed("an authorization identity is not taken"));
        }
        let mut attributes = bare.split(',');
        let name = attributes.next().and_then(|attribute| attribute.strip_prefix("n="));
        let name = name.ok_or(malformed("the user name does not come first"))?;
        let nonce = attributes.next().and_then(|attribute| attribute.strip_prefix("r="));
        let nonce = nonce.filter(|nonce| is_nonce(nonce)).ok_or(malformed("the nonce does not come second"))?;
        Ok(Self { user: user_name(name)?, nonce: nonce.into(), header: format!("{flag},,"), bare: bare.into() })
    }

    /// The server's first message, and what to remember.
    pub fn challenge(self, verifier: &Verifier, server_nonce: &str) -> (String, Pending) {
        let nonce = format!("{}{server_nonce}", self.nonce);
        let message = format!("r={nonce},s={},i={}", verifier.salt, verifier.iterations);
        let pending = Pending {
            user: self.user,
            nonce,
            binding: STANDARD.encode(self.header),
            transcript: format!("{},{message}", self.bare),
        };
        (message, pending)
    }
}

impl Pending {
    /// Checks the client's last message and gives the server's.
    pub fn finish(&self, message: &[u8], verifier: &Verifier) -> Result<String, Failure> {
        let text = text(message)?;
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or(Failure::Malformed("it has no proof"))?;
        let mut attributes = without_proof.split(',');
        if attributes.next().and_then(|attribute| attribute.strip_prefix("c=")) != Some(&self.binding) {
            return Err(Failure::Malformed("the channel binding is another"));
        }
        if attributes.next().and_then(|attribute| attribute.strip_prefix("r=")) != Some(&self.nonce) {
            return Err(Failure::Malformed("the nonce is another"));
        }
        let proof: [u8; 32] = decoded(proof).ok_or(Failure::Malformed("the proof is not 32 bytes in base64"))?;
        // Nobody's keys are empty, and what is computed with zeros is not told.
        let stored_key: Option<[u8; 32]> = decoded(&verifier.stored_key);
        let signed = format!("{},{without_proof}", self.transcript);
        let signature = hmac(&stored_key.unwrap_or_default(), signed.as_bytes());
        let mut client_key = [0; 32];
        for (byte, (proof, signature)) in client_key.iter_mut().zip(proof.iter().zip(signature)) {
            *byte = proof ^ signature;
        }
        let right: bool = Sha256::digest(client_key).as_slice().ct_eq(&stored_key.unwrap_or_default()).into();
        let server_key: Option<[u8; 32]> = decoded(&verifier.server_key);
        match server_key {
            Some(server_key) if right && stored_key.is_some() => {
                Ok(format!("v={}", STANDARD.encode(hmac(&server_key, signed.as_bytes()))))
            }
            Some(_) | None => Err(Failure::NotProven),
        }
    }
}

fn text(message: &[u8]) -> Result<&str, Failure> {
    if message.len() > MAX_MESSAGE_BYTES {
        return Err(Failure::Malformed("it is too long"));
    }
    std::str::from_utf8(message).map_err(|_| Failure::Malformed("it is not UTF-8"))
}

/// Undoes `=2C` and `=3D`.
fn user_name(text: &str) -> Result<String, Failure> {
    let mut pieces = text.split('=');
    let mut name = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (character, rest) = match (piece.strip_prefix("2C"), piece.strip_prefix("3D")) {
            (Some(rest), _) => (',', rest),
            (None, Some(rest)) => ('=', rest),
            (None, None) => return Err(Failure::Malformed("`=` in the user name")),
        };
        name.push(character);
        name.push_str(rest);
    }
    if name.is_empty() { Err(Failure::Malformed("the user name is empty")) } else { Ok(name) }
}

/// Printable characters but for the comma.
fn is_nonce(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',')
}

fn decoded(text: &str) -> Option<[u8; 32]> {
    STANDARD.decode(text).ok()?.try_into().ok()
}

fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut hmac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    hmac.update(message);
    hmac.finalize().into_bytes().into()
}
