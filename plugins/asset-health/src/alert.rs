//! What the service publishes to `assets/{asset}/alerts`.

use serde::Serialize;

use crate::severity::{Severity, Zone};

/// An event about an asset's health; `event` in the payload names the variant.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event")]
pub enum Alert {
    /// An asset departs from what is normal for it. Once per failure until it is cleared.
    AnomalyDetected(Anomaly),
    /// A standing anomaly has become more severe.
    AnomalyEscalated(Anomaly),
    /// It is over.
    AnomalyCleared(Cleared),
}

/// An anomaly as it is now.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Anomaly {
    /// Its name: the same in each event about it.
    pub anomaly: String,
    /// The asset.
    pub asset: String,
    /// What is wrong.
    pub fault: String,
    /// How soon somebody has to act.
    pub severity: Severity,
    /// The zone of the velocity.
    pub zone: Zone,
    /// Smoothed velocity in mm/s RMS.
    pub mm_s: f64,
    /// What is normal for this asset, in mm/s RMS.
    pub baseline_mm_s: f64,
    /// How far this reading is from normal, in standard deviations; none if the asset is not known yet.
    pub sigmas: Option<f64>,
    /// Sequence number of the reading.
    pub seq: u64,
    /// When it was measured; milliseconds since the Unix epoch.
    pub ts: u64,
    /// Which detector found it, with its version.
    pub detector: String,
}

/// An anomaly that is over.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cleared {
    /// Its name.
    pub anomaly: String,
    /// The asset.
    pub asset: String,
    /// What was wrong.
    pub fault: String,
    /// Why it is over.
    pub reason: Reason,
    /// When it ended; milliseconds since the Unix epoch.
    pub ts: u64,
}

/// Why an anomaly is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The asset has been normal for long enough.
    Calm,
    /// It was repaired.
    Repaired,
    /// Somebody looked and found nothing.
    NoFaultFound,
}
