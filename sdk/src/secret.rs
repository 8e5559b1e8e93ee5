//! Secrets: values that nobody should see by accident.

use std::fmt;

use crate::host::SecretHandle;

/// A secret that the operator configured for the plugin; from [`Context::secret`](crate::Context::secret).
///
/// Its value appears only where [`reveal`](Self::reveal) is written; printing it with `{:?}` does not show it.
pub struct Secret {
    /// Its name.
    name: String,
    /// The host's handle to the value.
    handle: SecretHandle,
}

/// Why there is no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretError {
    /// The plugin was not granted it: the declaration's `secrets` does not name it.
    Denied(String),
    /// It is granted and not configured.
    Missing(String),
}

impl Secret {
    pub(crate) fn new(name: &str, handle: SecretHandle) -> Self {
        Self { name: name.into(), handle }
    }

    /// Its value. Do not log it, store it or publish it; the broker blots it out of the plugin's log.
    pub fn reveal(&self) -> String {
        self.handle.reveal()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({})", self.name)
    }
}

impl fmt::Display for SecretError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied(reason) => write!(f, "the plugin may not have this secret: {reason}"),
            Self::Missing(reason) => write!(f, "the secret is not configured: {reason}"),
        }
    }
}

impl std::error::Error for SecretError {}
