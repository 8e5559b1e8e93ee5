//! Version 1: a reading is suspicious when it alone is far from the asset's own history.

use serde::{Deserialize, Serialize};

use crate::health::{Detector, Settings};

/// Judges each reading by itself and keeps nothing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Deviation {}

impl Detector for Deviation {
    const VERSION: &'static str = "1.0.0";
    const NAME: &'static str = "deviation";

    fn suspects(&mut self, sigmas: f64, settings: &Settings) -> bool {
        sigmas >= settings.suspicious_sigmas
    }
}
