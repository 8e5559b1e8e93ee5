//! An alert as this service reads it from `assets/{asset}/alerts`: what it needs of it, checked.

use serde::{Deserialize, Serialize};

/// The longest name of an asset, a fault or an anomaly, in bytes: they become parts of keys.
pub const MAX_NAME_BYTES: usize = 128;

/// The payload of `assets/{asset}/alerts`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "event")]
pub enum Alert {
    /// Something is wrong with an asset.
    AnomalyDetected(Anomaly),
    /// It has become worse.
    AnomalyEscalated(Anomaly),
    /// It went away. An open order stays open: somebody has to look.
    AnomalyCleared,
    /// An event that a later service publishes and this one does not know.
    #[serde(other)]
    Unknown,
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Anomaly {
    /// Name of the anomaly: the same in each event about it, and no other's.
    pub anomaly: String,
    /// The asset; repeats the topic.
    pub asset: String,
    /// What is wrong: a word.
    pub fault: String,
    /// How soon somebody has to act.
    pub severity: Severity,
}

/// How soon somebody has to act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// When it suits, within two weeks.
    Advisory,
    /// Within three days.
    Warning,
    /// Within eight hours.
    Critical,
}

/// Why an alert is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAlert {
    /// The payload speaks of another asset than the topic.
    #[error("alert about {payload:?} published for {topic:?}")]
    AnotherAsset {
        /// The asset in the topic.
        topic: String,
        /// The asset in the payload.
        payload: String,
    },
    /// A name that cannot be part of a key.
    #[error("{0:?} is no name: empty, longer than {MAX_NAME_BYTES} bytes, or with a slash")]
    Name(String),
}

impl Anomaly {
    /// Checks an anomaly that arrived for `asset`.
    pub fn checked(self, asset: &str) -> Result<Self, InvalidAlert> {
        if self.asset != asset {
            return Err(InvalidAlert::AnotherAsset { topic: asset.to_owned(), payload: self.asset });
        }
        for name in [&self.asset, &self.fault, &self.anomaly] {
            if name.is_empty() || name.len() > MAX_NAME_BYTES || name.contains('/') {
                return Err(InvalidAlert::Name(name.clone()));
            }
        }
        Ok(self)
    }
}

impl Severity {
    /// How long the asset may wait.
    pub fn due_after_ms(self) -> u64 {
        const HOUR_MS: u64 = 3_600_000;
        match self {
            Self::Advisory => 14 * 24 * HOUR_MS,
            Self::Warning => 72 * HOUR_MS,
            Self::Critical => 8 * HOUR_MS,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anomaly(asset: &str, fault: &str) -> Anomaly {
        Anomaly { anomaly: "A:1".into(), asset: asset.into(), fault: fault.into(), severity: Severity::Advisory }
    }

    #[test]
    fn names_that_would_break_keys_are_refused() {
        for fault in ["", "a/b", &"x".repeat(129)] {
            assert_eq!(anomaly("P-01", fault).checked("P-01"), Err(InvalidAlert::Name(fault.to_owned())));
        }
        assert!(anomaly("P-01", "bearing-vibration").checked("P-01").is_ok());
        assert!(anomaly("P-01", "bearing-vibration").checked("P-02").is_err());
    }
}
