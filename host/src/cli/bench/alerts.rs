//! Alerts of a service: which are expected, which came, and how much may be under way because of them.
//!
//! Each alarming reading expects one alert that names it by its `seq`. Readings of one publisher stay in order, so an alert
//! that came also says that the readings before it were handled. That is why a bound on alerts that did not come bounds
//! both: readings that are not handled, and alerts that are not delivered.

use std::collections::HashMap;

use super::wire::Stamp;

/// The account of alerts.
#[derive(Debug)]
pub(super) struct Alerts {
    /// One of so many readings of each publisher expects an alert.
    every: u64,
    /// By `seq`, the readings whose alerts did not come.
    missing: HashMap<u64, Alarming>,
    /// How many readings of each publisher an alert shows as handled.
    handled: Vec<u64>,
    /// Of all publishers.
    handled_in_all: u64,
    /// Alerts that came, each counted once.
    pub(super) came: u64,
    /// Alerts that nothing expected: they came twice, or name no alarming reading.
    pub(super) unexpected: u64,
    /// The most alerts that were missing at once.
    pub(super) missing_max: u64,
}

/// An alarming reading.
#[derive(Debug, Clone, Copy)]
struct Alarming {
    publisher: u32,
    /// Counts the publisher's readings from 1.
    sequence: u64,
    due_ns: u64,
}

impl Alerts {
    pub(super) fn new(every: u64, publishers: usize) -> Self {
        Self {
            every,
            missing: HashMap::new(),
            handled: vec![0; publishers],
            handled_in_all: 0,
            came: 0,
            unexpected: 0,
            missing_max: 0,
        }
    }

    /// Whether this reading of a publisher is alarming. Publishers do not alarm at once.
    pub(super) fn is_alarming(&self, Stamp { publisher, sequence, .. }: Stamp) -> bool {
        let shift = u64::from(publisher) * self.every / self.handled.len() as u64;
        (u64::from(sequence) + shift).is_multiple_of(self.every)
    }

    /// An alarming reading was sent.
    pub(super) fn expect(&mut self, seq: u64, Stamp { publisher, sequence, due_ns }: Stamp) {
        self.missing.insert(seq, Alarming { publisher, sequence: u64::from(sequence), due_ns });
        self.missing_max = self.missing_max.max(self.missing.len() as u64);
    }

    /// An alert came: gives when its reading was due, if it was expected.
    pub(super) fn take(&mut self, payload: &[u8]) -> Option<u64> {
        let Some(alarming) = named_seq(payload).and_then(|seq| self.missing.remove(&seq)) else {
            self.unexpected += 1;
            return None;
        };
        self.came += 1;
        let handled = &mut self.handled[alarming.publisher as usize];
        self.handled_in_all += alarming.sequence.saturating_sub(*handled);
        *handled = alarming.sequence.max(*handled);
        Some(alarming.due_ns)
    }

    /// Alerts that did not come.
    pub(super) fn missing(&self) -> u64 {
        self.missing.len() as u64
    }

    /// Alerts that were expected.
    pub(super) fn expected(&self) -> u64 {
        self.came + self.missing()
    }

    /// Readings, of so many sent, that no alert shows as handled.
    pub(super) fn unhandled(&self, sent: u64) -> u64 {
        sent - self.handled_in_all
    }
}

/// The value of `"seq":` in an alert, by which it names the reading that caused it.
pub(super) fn named_seq(payload: &[u8]) -> Option<u64> {
    let name = br#""seq":"#;
    let at = payload.windows(name.len()).position(|window| window == name)?;
    let digits = payload[at + name.len()..].iter().skip_while(|byte| **byte == b' ');
    let mut seq = None;
    for digit in digits.take_while(|byte| byte.is_ascii_digit()) {
        seq = Some(seq.unwrap_or(0_u64).checked_mul(10)?.checked_add(u64::from(digit - b'0'))?);
    }
    seq
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_alert_counts_once_and_shows_what_was_handled() {
        let stamp = |publisher, sequence| Stamp { publisher, sequence, due_ns: u64::from(sequence) * 1_000 };
        let mut alerts = Alerts::new(16, 2);
        let alarming = |alerts: &Alerts, publisher| {
            (1..=33).filter(|sequence| alerts.is_alarming(stamp(publisher, *sequence))).collect::<Vec<_>>()
        };
        assert_eq!((alarming(&alerts, 0), alarming(&alerts, 1)), (vec![16, 32], vec![8, 24]));
        alerts.expect(5, stamp(0, 16));
        alerts.expect(6, stamp(1, 8));
        alerts.expect(7, stamp(0, 32));
        assert_eq!((alerts.missing(), alerts.expected(), alerts.unhandled(60)), (3, 3, 60));
        assert_eq!(alerts.take(br#"{"asset":"a","seq":7}"#), Some(32_000));
        assert_eq!(alerts.take(br#"{"asset":"a","seq":7}"#), None);
        assert_eq!(alerts.take(br#"{"asset":"a"}"#), None);
        assert_eq!((alerts.came, alerts.unexpected, alerts.unhandled(60)), (1, 2, 28));
        assert_eq!(alerts.take(br#"{"asset":"b","seq":6}"#), Some(8_000));
        assert_eq!((alerts.missing(), alerts.expected(), alerts.unhandled(60), alerts.missing_max), (1, 3, 20, 3));
    }

    #[test]
    fn an_alert_names_its_reading() {
        for (payload, seq) in [
            (r#"{"seq":12,"ts":5}"#, Some(12)),
            (r#"{"seq": 7}"#, Some(7)),
            (r#"{"seq":"7"}"#, None),
            (r#"{"seq":99999999999999999999}"#, None),
            (r#""seq":"#, None),
            ("", None),
        ] {
            assert_eq!(named_seq(payload.as_bytes()), seq, "{payload}");
        }
    }
}
