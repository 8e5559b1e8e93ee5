//! The health of one asset: what the service keeps per asset, and what a reading does to it.
//!
//! Everything here is a value; [`crate::service`] loads it, lets it [`observe`](Health::observe) a reading, and stores it in
//! the reading's own transaction. What makes a reading suspicious is the [`Detector`], in which the versions differ.

use serde::{Deserialize, Serialize};

use crate::alarm::{Alarm, Patience, Standing, Step, Verdict};
use crate::alert::{Alert, Anomaly, Cleared, Reason};
use crate::baseline::Baseline;
use crate::ledger::{Arrival, Ledger};
use crate::reading::Reading;
use crate::severity::{Severity, Zone, ZoneBorders};

/// The fault that this service finds.
pub const FAULT: &str = "bearing-vibration";

/// How fast the smoothed level follows: the last five readings make up two thirds of it.
const LEVEL_WEIGHT: f64 = 0.2;

/// Deviations up to here are learned as normal; beyond, the baseline stands still, so that a fault is not learned.
const LEARNED_SIGMAS: f64 = 3.0;

/// What decides whether a deviation is suspicious; its state is part of the asset's.
pub trait Detector: Default {
    /// The version of the service that uses it.
    const VERSION: &'static str;
    /// The name that stands in alerts.
    const NAME: &'static str;

    /// Takes a reading's deviation from the asset's own history, in standard deviations. Called for each reading in
    /// order once the asset is known.
    fn suspects(&mut self, sigmas: f64, settings: &Settings) -> bool;
}

/// What the operator can set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// Readings after which an asset's history is long enough to judge by.
    pub warm_up_readings: u64,
    /// Standard deviations from which on a reading is suspicious.
    pub suspicious_sigmas: f64,
    /// Standard deviations below which a reading is calm.
    pub calm_sigmas: f64,
    /// Readings in a row that raise and clear an alarm.
    pub patience: Patience,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            warm_up_readings: 60,
            suspicious_sigmas: 6.0,
            calm_sigmas: 2.0,
            patience: Patience { raise: 5, clear: 40 },
        }
    }
}

/// Settings with which no alarm would mean anything.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("{0:?} need a warm-up, 0 < calm_sigmas < suspicious_sigmas, and at least one reading to raise and to clear")]
pub struct InvalidSettings(Settings);

impl Settings {
    /// Checks what the operator set.
    pub fn checked(self) -> Result<Self, InvalidSettings> {
        let Self { warm_up_readings, suspicious_sigmas, calm_sigmas, patience } = self;
        let ordered = 0.0 < calm_sigmas && calm_sigmas < suspicious_sigmas && suspicious_sigmas.is_finite();
        let patient = warm_up_readings > 1 && patience.raise > 0 && patience.clear > 0;
        if ordered && patient { Ok(self) } else { Err(InvalidSettings(self)) }
    }
}

/// What is kept per asset. Stored as JSON; a field that a later version adds has a default, and one that an earlier
/// version does not know is ignored, so that both an upgrade and a rollback read what they find.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Health<D> {
    /// Which readings were handled.
    pub ledger: Ledger,
    /// What is normal.
    pub baseline: Baseline,
    /// Smoothed velocity in mm/s RMS; none before the first reading.
    pub level: Option<f64>,
    /// The alarm.
    pub alarm: Alarm,
    /// Alarms raised so far.
    pub alarms: u64,
    /// The asset's own zone borders, from its registration.
    #[serde(default)]
    pub borders: Option<ZoneBorders>,
    /// What the detector keeps.
    #[serde(default)]
    pub detector: D,
}

/// What `assets/{asset}/health` shows: for operators, and for whoever wants to check that nothing was lost.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// The asset.
    pub asset: String,
    /// The version of the service that answers.
    pub version: &'static str,
    /// What the query asked to have repeated, to tell this answer from others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// Whether the asset is being learned, normal, or in which state of alarm.
    pub state: State,
    /// Smoothed velocity in mm/s RMS.
    pub mm_s: Option<f64>,
    /// The zone of that velocity.
    pub zone: Option<Zone>,
    /// What is normal: mean in mm/s RMS.
    pub baseline_mm_s: f64,
    /// Standard deviation of what is normal, in mm/s RMS.
    pub spread_mm_s: f64,
    /// Alarms raised so far.
    pub alarms: u64,
    /// Readings handled.
    pub handled: u64,
    /// Readings handled by each version of the service.
    pub handled_by: std::collections::BTreeMap<String, u64>,
    /// Sequence number that came first since the sensor last started.
    pub first_seq: u64,
    /// Highest sequence number.
    pub last_seq: u64,
    /// Readings lost.
    pub gaps: u64,
    /// Readings doubled.
    pub repeats: u64,
    /// Readings reordered.
    pub reordered: u64,
    /// Times the sensor began to count anew.
    pub restarts: u64,
    /// The chain over all payloads, as 16 hexadecimal digits.
    pub chain: String,
}

/// The state of an asset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Its history is too short to judge by.
    Learning,
    /// No alarm stands.
    Normal,
    /// An alarm of this severity stands.
    Alarm(Severity),
}

/// What was done to an asset when its work order was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Repaired: what was normal no longer is.
    Repaired,
    /// Nothing was found: what was normal still is, and if it goes on like this there will be another alarm.
    NoFaultFound,
}

impl<D: Detector> Health<D> {
    /// Handles one reading; `payload` is what it arrived as.
    pub fn observe(&mut self, asset: &str, reading: Reading, payload: &[u8], settings: &Settings) -> Option<Alert> {
        match self.ledger.enter(reading.seq, reading.ts, payload, D::VERSION) {
            Arrival::InOrder | Arrival::Restart => {}
            // Counted, and no part of the asset's course: a trend read backwards is none.
            Arrival::Late | Arrival::Repeat => return None,
        }
        let level = self.level.map_or(reading.mm_s, |level| level + LEVEL_WEIGHT * (reading.mm_s - level));
        self.level = Some(level);
        let zone = self.borders.unwrap_or_default().zone(level);
        let sigmas = self.sigmas(reading.mm_s, settings);
        let verdict = self.verdict(sigmas, zone, settings);
        let ordinary = verdict != Verdict::Suspicious && sigmas.is_none_or(|sigmas| sigmas.abs() <= LEARNED_SIGMAS);
        if ordinary && self.alarm.standing.is_none() {
            self.baseline.learn(reading.mm_s);
        }
        match self.alarm.judge(verdict, zone.severity(), (reading.seq, reading.ts), settings.patience)? {
            Step::Raised => {
                self.alarms += 1;
                self.anomaly(asset, reading, sigmas).map(Alert::AnomalyDetected)
            }
            Step::Escalated => self.anomaly(asset, reading, sigmas).map(Alert::AnomalyEscalated),
            Step::Cleared(standing) => {
                self.detector = D::default();
                Some(Alert::AnomalyCleared(cleared(asset, &standing, Reason::Calm, reading.ts)))
            }
        }
    }

    /// The asset was worked on: begins anew as far as the outcome asks for it.
    pub fn maintained(&mut self, asset: &str, outcome: Outcome, ts: u64) -> Option<Alert> {
        let standing = self.alarm.clear();
        self.detector = D::default();
        let reason = match outcome {
            Outcome::Repaired => {
                self.baseline = Baseline::default();
                self.level = None;
                Reason::Repaired
            }
            Outcome::NoFaultFound => Reason::NoFaultFound,
        };
        standing.map(|standing| Alert::AnomalyCleared(cleared(asset, &standing, reason, ts)))
    }

    /// What the world may know.
    pub fn summary(&self, asset: &str, request: Option<String>, settings: &Settings) -> Summary {
        let ledger = &self.ledger;
        Summary {
            asset: asset.to_owned(),
            version: D::VERSION,
            request,
            state: match &self.alarm.standing {
                Some(standing) => State::Alarm(standing.severity),
                None if self.baseline.count < settings.warm_up_readings => State::Learning,
                None => State::Normal,
            },
            mm_s: self.level.map(rounded),
            zone: self.level.map(|level| self.borders.unwrap_or_default().zone(level)),
            baseline_mm_s: rounded(self.baseline.mean),
            spread_mm_s: rounded(self.baseline.spread()),
            alarms: self.alarms,
            handled: ledger.handled,
            handled_by: ledger.handled_by.clone(),
            first_seq: ledger.first_seq,
            last_seq: ledger.last_seq,
            gaps: ledger.gaps,
            repeats: ledger.repeats,
            reordered: ledger.reordered,
            restarts: ledger.restarts,
            chain: format!("{:016x}", ledger.chain),
        }
    }

    /// How far from normal; none while the asset is being learned.
    fn sigmas(&self, mm_s: f64, settings: &Settings) -> Option<f64> {
        (self.baseline.count >= settings.warm_up_readings).then(|| self.baseline.deviation(mm_s))
    }

    fn verdict(&mut self, sigmas: Option<f64>, zone: Zone, settings: &Settings) -> Verdict {
        let suspects = sigmas.is_some_and(|sigmas| self.detector.suspects(sigmas, settings));
        // A machine that does damage is no less ill for having done so since it was first measured.
        if suspects || zone == Zone::D {
            Verdict::Suspicious
        } else if sigmas.map_or(zone <= Zone::B, |sigmas| sigmas < settings.calm_sigmas) {
            Verdict::Calm
        } else {
            Verdict::Uneasy
        }
    }

    fn anomaly(&self, asset: &str, reading: Reading, sigmas: Option<f64>) -> Option<Anomaly> {
        let standing = self.alarm.standing.as_ref()?;
        let level = self.level?;
        Some(Anomaly {
            anomaly: name(asset, standing),
            asset: asset.to_owned(),
            fault: FAULT.to_owned(),
            severity: standing.severity,
            zone: self.borders.unwrap_or_default().zone(level),
            mm_s: rounded(level),
            baseline_mm_s: rounded(self.baseline.mean),
            sigmas: sigmas.map(rounded),
            seq: reading.seq,
            ts: reading.ts,
            detector: format!("{} {}", D::NAME, D::VERSION),
        })
    }
}

fn cleared(asset: &str, standing: &Standing, reason: Reason, ts: u64) -> Cleared {
    Cleared { anomaly: name(asset, standing), asset: asset.to_owned(), fault: FAULT.to_owned(), reason, ts }
}

/// The name of an anomaly: the same whenever it is spoken of again, and no other's.
fn name(asset: &str, standing: &Standing) -> String {
    format!("{asset}:{FAULT}:{}:{}", standing.since_ts, standing.since_seq)
}

/// To a thousandth: what is beyond is noise.
fn rounded(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}
