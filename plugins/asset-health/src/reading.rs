//! A vibration reading: as it stands in a payload ([`RawReading`]) and as the service trusts it ([`Reading`]).
//!
//! Velocities are mm/s RMS as ISO 20816-3 measures them; times are milliseconds since the Unix epoch by the clock of the
//! sensor. Fields that the service does not use are ignored, so that a sensor may send more than is read here.

use std::borrow::Cow;

use serde::Deserialize;

/// The longest name of an asset, in bytes: it becomes part of a key.
pub const MAX_NAME_BYTES: usize = 128;

/// The largest velocity that a sensor can mean: ten times what destroys a machine.
pub const MAX_MM_S: f64 = 500.0;

/// The payload of `assets/{asset}/vibration`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct RawReading<'payload> {
    /// The asset that was measured; repeats the topic.
    #[serde(borrow)]
    pub asset: Cow<'payload, str>,
    /// The sensor's own count of its readings: each is one more than the last.
    pub seq: u64,
    /// When it was measured, in milliseconds since the Unix epoch.
    pub ts: u64,
    /// Vibration velocity in mm/s RMS.
    pub mm_s: f64,
}

/// A reading that makes sense.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reading {
    /// The sensor's own count of its readings.
    pub seq: u64,
    /// When it was measured, in milliseconds since the Unix epoch.
    pub ts: u64,
    /// Vibration velocity in mm/s RMS: finite, 0 to [`MAX_MM_S`].
    pub mm_s: f64,
}

/// Why a payload is not a reading.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum InvalidReading {
    /// The payload speaks of another asset than the topic.
    #[error("reading of {payload:?} published for {topic:?}")]
    AnotherAsset {
        /// The asset in the topic.
        topic: String,
        /// The asset in the payload.
        payload: String,
    },
    /// The asset's name is too long to be kept.
    #[error("an asset's name of {0} bytes is empty or longer than {MAX_NAME_BYTES}")]
    Name(usize),
    /// No machine vibrates like this.
    #[error("vibration of {0} mm/s is outside 0..={MAX_MM_S}")]
    Velocity(f64),
}

impl RawReading<'_> {
    /// The reading that this payload means when it arrives for `asset`.
    pub fn understand(&self, asset: &str) -> Result<Reading, InvalidReading> {
        if self.asset != asset {
            return Err(InvalidReading::AnotherAsset {
                topic: asset.to_owned(),
                payload: self.asset.clone().into_owned(),
            });
        }
        checked_name(asset)?;
        if !(0.0..=MAX_MM_S).contains(&self.mm_s) {
            return Err(InvalidReading::Velocity(self.mm_s));
        }
        Ok(Reading { seq: self.seq, ts: self.ts, mm_s: self.mm_s })
    }
}

/// Checks that an asset's name can be kept.
pub fn checked_name(asset: &str) -> Result<&str, InvalidReading> {
    if (1..=MAX_NAME_BYTES).contains(&asset.len()) { Ok(asset) } else { Err(InvalidReading::Name(asset.len())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(asset: &str, mm_s: f64) -> RawReading<'_> {
        RawReading { asset: asset.into(), seq: 1, ts: 1_000, mm_s }
    }

    #[test]
    fn a_reading_of_another_asset_is_refused() {
        let error = raw("P-02", 1.0).understand("P-01").expect_err("another asset");
        assert_eq!(error.to_string(), "reading of \"P-02\" published for \"P-01\"");
    }

    #[test]
    fn velocities_outside_of_physics_are_refused() {
        for mm_s in [-0.1, 500.1, f64::INFINITY, f64::NAN] {
            assert!(matches!(raw("P-01", mm_s).understand("P-01"), Err(InvalidReading::Velocity(_))), "{mm_s}");
        }
        for mm_s in [0.0, 1.2, 500.0] {
            assert!(raw("P-01", mm_s).understand("P-01").is_ok(), "{mm_s}");
        }
    }
}
