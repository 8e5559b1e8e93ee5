//! The service's rules: what a reading does to the record of its asset, and when it is alarming.
//!
//! Pure: no clock, no storage, no network. A record is 64 bytes, whoever keeps it.

use serde::{Deserialize, Serialize};

/// Velocity above which a reading is alarming, in mm/s RMS.
pub const ALARMING_MM_S: f64 = 10.0;

/// Size of a stored record.
pub const RECORD_BYTES: usize = 64;

/// Weight of the newest reading in the smoothed velocity.
const SMOOTHING: f64 = 0.125;

/// A reading, as sensors send it to `assets/ASSET/vibration`.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Reading<'a> {
    /// The asset.
    pub asset: &'a str,
    /// Names the reading.
    pub seq: u64,
    /// When it was measured, in milliseconds since the Unix epoch.
    pub ts: u64,
    /// Velocity in mm/s RMS.
    pub mm_s: f64,
    /// Temperature of the bearing in degrees Celsius.
    pub temperature_c: f64,
    /// Unit of the velocity.
    pub unit: &'a str,
    /// Where the sensor sits.
    pub sensor: &'a str,
}

/// What is kept of an asset.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Record {
    /// Readings taken.
    pub readings: u64,
    /// Alerts given.
    pub alerts: u64,
    /// When the last reading was measured, in milliseconds since the Unix epoch.
    pub last_ts: u64,
    /// Mean velocity in mm/s.
    pub mean: f64,
    /// Sum of squared differences from the mean (Welford 1962).
    pub squares: f64,
    /// Lowest velocity in mm/s.
    pub lowest: f64,
    /// Highest velocity in mm/s.
    pub highest: f64,
    /// Exponentially smoothed velocity in mm/s.
    pub smoothed: f64,
}

/// What goes to `assets/ASSET/alerts` because of an alarming reading.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Alert<'a> {
    /// The asset.
    pub asset: &'a str,
    /// `seq` of the reading.
    pub seq: u64,
    /// When the reading was measured.
    pub ts: u64,
    /// The velocity that alarms.
    pub mm_s: f64,
    /// What it has been in the mean.
    pub mean_mm_s: f64,
    /// Readings of the asset so far.
    pub readings: u64,
}

/// What answers a question to `assets/ASSET/inspect`, on `assets/ASSET/record`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Answer<'a> {
    /// The asset.
    pub asset: &'a str,
    /// Readings taken.
    pub readings: u64,
    /// Alerts given.
    pub alerts: u64,
    /// Mean velocity in mm/s.
    pub mean_mm_s: f64,
    /// Highest velocity in mm/s.
    pub highest_mm_s: f64,
}

impl Record {
    /// Takes a reading, and gives the alert that it causes, if any.
    pub fn observe<'a>(&mut self, reading: &Reading<'a>) -> Option<Alert<'a>> {
        let mm_s = reading.mm_s;
        if self.readings == 0 {
            (self.lowest, self.highest, self.smoothed) = (mm_s, mm_s, mm_s);
        }
        self.readings += 1;
        let difference = mm_s - self.mean;
        self.mean += difference / self.readings as f64;
        self.squares += difference * (mm_s - self.mean);
        self.lowest = self.lowest.min(mm_s);
        self.highest = self.highest.max(mm_s);
        self.smoothed += SMOOTHING * (mm_s - self.smoothed);
        self.last_ts = reading.ts;
        if mm_s <= ALARMING_MM_S {
            return None;
        }
        self.alerts += 1;
        let Reading { asset, seq, ts, .. } = *reading;
        Some(Alert { asset, seq, ts, mm_s, mean_mm_s: self.mean, readings: self.readings })
    }

    /// What answers a question about this record.
    pub fn answer<'a>(&self, asset: &'a str) -> Answer<'a> {
        let Self { readings, alerts, mean, highest, .. } = *self;
        Answer { asset, readings, alerts, mean_mm_s: mean, highest_mm_s: highest }
    }

    /// The record as it is stored: eight numbers of eight bytes, little-endian.
    pub fn to_bytes(&self) -> [u8; RECORD_BYTES] {
        let words = [
            self.readings,
            self.alerts,
            self.last_ts,
            self.mean.to_bits(),
            self.squares.to_bits(),
            self.lowest.to_bits(),
            self.highest.to_bits(),
            self.smoothed.to_bits(),
        ];
        let mut bytes = [0; RECORD_BYTES];
        for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// Understands a stored record; nothing if it is none.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; RECORD_BYTES] = bytes.try_into().ok()?;
        let mut words = [0; 8];
        for (word, place) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_le_bytes(place.try_into().ok()?);
        }
        let [readings, alerts, last_ts, floats @ ..] = words;
        let [mean, squares, lowest, highest, smoothed] = floats.map(f64::from_bits);
        Some(Self { readings, alerts, last_ts, mean, squares, lowest, highest, smoothed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_follows_its_readings_and_survives_storage() {
        let json =
            br#"{"asset":"press-7","seq":9,"ts":3,"mm_s":2.0,"temperature_c":40.1,"unit":"mm/s","sensor":"end"}"#;
        let mut reading: Reading<'_> = serde_json::from_slice(json).unwrap();
        let mut record = Record::default();
        assert_eq!(record.observe(&reading), None);
        reading.mm_s = 12.0;
        let alert = record.observe(&reading).unwrap();
        assert_eq!((alert.seq, alert.readings, alert.mean_mm_s), (9, 2, 7.0));
        assert_eq!((record.lowest, record.highest, record.squares, record.alerts), (2.0, 12.0, 50.0, 1));
        assert_eq!(record.smoothed, 3.25);
        assert_eq!(Record::from_bytes(&record.to_bytes()), Some(record));
        assert_eq!(Record::from_bytes(&[0; 63]), None);
        assert_eq!(Record::from_bytes(&[0; 64]), Some(Record::default()));
    }
}
