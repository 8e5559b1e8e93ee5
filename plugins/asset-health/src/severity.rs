//! How bad a vibration is in itself, whatever is normal for the asset: evaluation zones after ISO 20816-3.
//!
//! The zones of the standard: A as new, B fit for unrestricted long-term operation, C fit for a limited time only, D
//! harmful. The borders used by default are those of its group 2 (15 to 300 kW) on rigid foundations; an asset's
//! registration may give others.

use serde::{Deserialize, Serialize};

/// An evaluation zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Zone {
    /// As newly commissioned.
    A,
    /// Unrestricted long-term operation.
    B,
    /// Limited operation until there is an opportunity for repair.
    C,
    /// Damage to the machine.
    D,
}

/// How soon somebody has to act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Departs from its history, yet vibrates no more than a good machine may (zones A and B).
    Advisory,
    /// Fit for a limited time (zone C).
    Warning,
    /// Doing damage (zone D).
    Critical,
}

/// Borders between the zones in mm/s RMS: A to B, B to C, C to D; ascending.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "[f64; 3]", into = "[f64; 3]")]
pub struct ZoneBorders([f64; 3]);

/// The numbers are no borders.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("zone borders {0:?} are not three ascending positive velocities")]
pub struct InvalidBorders([f64; 3]);

impl Default for ZoneBorders {
    fn default() -> Self {
        Self([1.4, 2.8, 4.5])
    }
}

impl TryFrom<[f64; 3]> for ZoneBorders {
    type Error = InvalidBorders;

    fn try_from(borders: [f64; 3]) -> Result<Self, InvalidBorders> {
        let [a_b, b_c, c_d] = borders;
        if a_b > 0.0 && a_b < b_c && b_c < c_d && c_d.is_finite() {
            Ok(Self(borders))
        } else {
            Err(InvalidBorders(borders))
        }
    }
}

impl From<ZoneBorders> for [f64; 3] {
    fn from(borders: ZoneBorders) -> Self {
        borders.0
    }
}

impl ZoneBorders {
    /// The zone that a velocity lies in.
    pub fn zone(&self, mm_s: f64) -> Zone {
        let [a_b, b_c, c_d] = self.0;
        match mm_s {
            level if level > c_d => Zone::D,
            level if level > b_c => Zone::C,
            level if level > a_b => Zone::B,
            _ => Zone::A,
        }
    }
}

impl Zone {
    /// How soon somebody has to act on an anomaly in this zone.
    pub fn severity(self) -> Severity {
        match self {
            Self::A | Self::B => Severity::Advisory,
            Self::C => Severity::Warning,
            Self::D => Severity::Critical,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn velocities_fall_into_their_zones() {
        let borders = ZoneBorders::default();
        let zones = [0.0, 1.4, 1.5, 2.8, 2.9, 4.5, 4.6].map(|mm_s| borders.zone(mm_s));
        assert_eq!(zones, [Zone::A, Zone::A, Zone::B, Zone::B, Zone::C, Zone::C, Zone::D]);
    }

    #[test]
    fn borders_ascend() {
        for borders in [[0.0, 1.0, 2.0], [1.0, 1.0, 2.0], [3.0, 2.0, 1.0], [1.0, 2.0, f64::INFINITY], [f64::NAN; 3]] {
            assert!(ZoneBorders::try_from(borders).is_err(), "{borders:?}");
        }
    }
}
