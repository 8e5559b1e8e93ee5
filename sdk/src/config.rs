//! The plugin's configuration, set by the operator: strings by key.

use std::fmt::{self, Display};
use std::str::FromStr;

use crate::error::Result;
use crate::host::{Host, TheHost};

/// The plugin's configuration: what the operator set for it (`wasi:config/store`).
///
/// It does not change while a revision of the plugin runs; `init` is the place to refuse a wrong one.
pub struct Config {
    /// Where it is kept.
    host: TheHost,
}

/// Why configuration could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigError {
    /// The host cannot read it, and why.
    Unavailable(String),
    /// This key is required and not set.
    Missing(String),
    /// The value of this key does not parse, and why.
    Invalid(String, String),
}

impl Config {
    pub(crate) fn new(host: TheHost) -> Self {
        Self { host }
    }

    /// The value of a key; `None` if it is not set.
    pub fn get(&self, key: &str) -> Option<String> {
        // The host answers from memory; that it cannot is told where a value is required.
        self.host.config(key).ok().flatten()
    }

    /// The value of a key that must be set.
    pub fn require(&self, key: &str) -> Result<String, ConfigError> {
        self.host.config(key)?.ok_or_else(|| ConfigError::Missing(key.into()))
    }

    /// The value of a key, parsed; `None` if it is not set, an error if it does not parse.
    ///
    /// ```
    /// # use vespiary_sdk::prelude::*;
    /// # fn start(config: &Config) -> Result<()> {
    /// let threshold = config.parse::<f64>("threshold")?.unwrap_or(4.5);
    /// # Ok(())
    /// # }
    /// ```
    pub fn parse<T>(&self, key: &str) -> Result<Option<T>, ConfigError>
    where
        T: FromStr,
        T::Err: Display,
    {
        match self.host.config(key)? {
            None => Ok(None),
            Some(text) => match text.parse() {
                Ok(value) => Ok(Some(value)),
                Err(error) => Err(ConfigError::Invalid(key.into(), format!("{error} (it is `{text}`)"))),
            },
        }
    }

    /// The value of a key, parsed, or this default if it is not set; an error if it does not parse.
    pub fn parse_or<T>(&self, key: &str, default: T) -> Result<T, ConfigError>
    where
        T: FromStr,
        T::Err: Display,
    {
        self.parse(key).map(|value| value.unwrap_or(default))
    }

    /// Everything that is set.
    pub fn all(&self) -> Result<Vec<(String, String)>, ConfigError> {
        self.host.config_all()
    }
}

impl Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable(reason) => write!(f, "the configuration cannot be read: {reason}"),
            Self::Missing(key) => write!(f, "the configuration lacks `{key}`"),
            Self::Invalid(key, reason) => write!(f, "the configuration's `{key}` is not valid: {reason}"),
        }
    }
}

impl std::error::Error for ConfigError {}
