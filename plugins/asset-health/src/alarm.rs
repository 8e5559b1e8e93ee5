//! From single suspicious readings to one alarm per failure.
//!
//! An alarm is raised by several suspicious readings in a row (debounce: a knock against the sensor is no failure), stands
//! until many calm ones in a row (hysteresis: calm is further down than suspicious), and meanwhile only ever grows more
//! severe. So one failing bearing is one alarm, however its vibration wavers.

use serde::{Deserialize, Serialize};

use crate::severity::Severity;

/// The state of one asset's alarm.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Alarm {
    /// The standing alarm.
    pub standing: Option<Standing>,
    /// Suspicious readings in a row while no alarm stands.
    pub suspicious: u32,
    /// Calm readings in a row while an alarm stands.
    pub calm: u32,
}

/// An alarm that was raised and not cleared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    /// Sequence number of the reading that raised it.
    pub since_seq: u64,
    /// When that was measured; milliseconds since the Unix epoch.
    pub since_ts: u64,
    /// The worst that it has been.
    pub severity: Severity,
}

/// What one reading says about the alarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Far from normal.
    Suspicious,
    /// Neither: keeps a standing alarm and raises none.
    Uneasy,
    /// Clearly normal.
    Calm,
}

/// What became of the alarm.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// It now stands.
    Raised,
    /// It stood, and is more severe than it was.
    Escalated,
    /// It stood, and no longer does.
    Cleared(Standing),
}

/// How many readings in a row it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Suspicious readings in a row that raise an alarm.
    pub raise: u32,
    /// Calm readings in a row that clear it.
    pub clear: u32,
}

impl Alarm {
    /// Takes the verdict on the reading `seq`, measured at `ts`, when the asset vibrates as badly as `severity` says.
    pub fn judge(
        &mut self,
        verdict: Verdict,
        severity: Severity,
        (seq, ts): (u64, u64),
        patience: Patience,
    ) -> Option<Step> {
        let Some(standing) = &mut self.standing else {
            self.suspicious = if verdict == Verdict::Suspicious { self.suspicious.saturating_add(1) } else { 0 };
            if self.suspicious < patience.raise {
                return None;
            }
            *self = Self { standing: Some(Standing { since_seq: seq, since_ts: ts, severity }), ..Self::default() };
            return Some(Step::Raised);
        };
        self.calm = if verdict == Verdict::Calm { self.calm.saturating_add(1) } else { 0 };
        if self.calm >= patience.clear {
            return self.clear().map(Step::Cleared);
        }
        if severity > standing.severity {
            standing.severity = severity;
            return Some(Step::Escalated);
        }
        None
    }

    /// Clears the alarm, and gives it if one stood.
    pub fn clear(&mut self) -> Option<Standing> {
        std::mem::take(self).standing
    }
}

#[cfg(test)]
mod tests {
    use super::Severity::{Advisory, Critical, Warning};
    use super::Verdict::{Calm, Suspicious, Uneasy};
    use super::*;

    const PATIENCE: Patience = Patience { raise: 3, clear: 4 };

    fn steps(readings: &[(Verdict, Severity)]) -> Vec<(usize, &'static str)> {
        let mut alarm = Alarm::default();
        let mut steps = Vec::new();
        for (index, (verdict, severity)) in readings.iter().enumerate() {
            match alarm.judge(*verdict, *severity, (index as u64, 0), PATIENCE) {
                Some(Step::Raised) => steps.push((index, "raised")),
                Some(Step::Escalated) => steps.push((index, "escalated")),
                Some(Step::Cleared(_)) => steps.push((index, "cleared")),
                None => {}
            }
        }
        steps
    }

    #[test]
    fn a_knock_against_the_sensor_raises_nothing() {
        let knocks = [Suspicious, Suspicious, Uneasy, Suspicious, Suspicious, Calm].map(|verdict| (verdict, Advisory));
        assert_eq!(steps(&knocks), []);
    }

    #[test]
    fn a_wavering_failure_is_one_alarm() {
        let mut readings = vec![(Suspicious, Advisory); 4];
        for _ in 0..10 {
            readings.extend([(Calm, Advisory), (Calm, Advisory), (Calm, Advisory), (Suspicious, Advisory)]);
        }
        assert_eq!(steps(&readings), [(2, "raised")]);
    }

    #[test]
    fn an_alarm_grows_and_never_shrinks() {
        let severities = [Advisory, Advisory, Advisory, Warning, Advisory, Warning, Critical, Warning];
        let readings = severities.map(|severity| (Suspicious, severity));
        assert_eq!(steps(&readings), [(2, "raised"), (3, "escalated"), (6, "escalated")]);
    }

    #[test]
    fn after_calm_the_next_failure_is_a_new_alarm() {
        let failure = [(Suspicious, Advisory); 3];
        let calm = [(Calm, Advisory); 4];
        let readings = [&failure[..], &calm, &failure].concat();
        assert_eq!(steps(&readings), [(2, "raised"), (6, "cleared"), (9, "raised")]);
    }
}
