//! What a run came to: numbers, as a table for people or as one line of JSON.

use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;
use vespiary_core::Qos;
use vespiary_core::event::Protocol;

use super::args::Content;
use super::histogram::Histogram;
use super::inspect::Inspection;
use super::traffic::{Tally, Traffic};

/// Counts and clocks at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    /// Since the start.
    pub(super) at: Duration,
    /// Counts.
    pub(super) tally: Tally,
    /// CPU time of the broker, if its process is known.
    pub(super) broker_cpu: Option<Duration>,
    /// CPU time of the service beside the broker, if its process is known.
    pub(super) service_cpu: Option<Duration>,
    /// CPU time of this process.
    pub(super) own_cpu: Option<Duration>,
}

/// The measured part of a run.
pub(super) struct Load {
    pub(super) begin: Mark,
    pub(super) end: Mark,
    /// From the end to the last delivery.
    pub(super) drain: Duration,
    /// The broker's resident memory at the end and at its highest, in bytes.
    pub(super) resident: Option<(u64, u64)>,
    /// The service's, likewise.
    pub(super) service_resident: Option<(u64, u64)>,
}

/// What a run came to. Counts are of the whole run with warm-up and end; rates, CPU and latency of the measured part.
#[derive(Debug, Serialize)]
pub(super) struct Results {
    scenario: &'static str,
    pub(super) protocol: &'static str,
    pub(super) qos: u8,
    publishers: usize,
    subscribers: usize,
    /// Of a stamped message; readings differ.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_bytes: Option<usize>,
    /// Of the closed loop.
    #[serde(skip_serializing_if = "Option::is_none")]
    window: Option<u32>,
    /// Of the open loop, messages a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<f64>,
    seconds: f64,
    pub(super) sent: u64,
    acknowledged: u64,
    refused: u64,
    received: u64,
    expected: u64,
    pub(super) lost: u64,
    duplicated: u64,
    reordered: u64,
    sent_per_s: f64,
    acknowledged_per_s: f64,
    received_per_s: f64,
    pub(super) latency: Latency,
    /// From the time a reading was due to the alert that names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    handling: Option<Latency>,
    /// The longest that a message left after it was due; large ones mean that the generator is too slow.
    pub(super) generator_late_max_us: f64,
    generator_cores: Option<f64>,
    broker_cores: Option<f64>,
    pub(super) broker_us_per_sent: Option<f64>,
    broker_us_per_received: Option<f64>,
    broker_resident_bytes: Option<u64>,
    broker_resident_peak_bytes: Option<u64>,
    /// Of a service beside the broker.
    #[serde(flatten)]
    service: Option<ServiceProcess>,
    /// The most readings that were unhandled, or their alerts undelivered, at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    unhandled_max: Option<u64>,
    /// The most alerts that were undelivered at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    undelivered_max: Option<u64>,
    /// What the service keeps at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    inspection: Option<Inspection>,
    drain_s: f64,
}

/// The process of a service beside the broker.
#[derive(Debug, Serialize)]
struct ServiceProcess {
    service_cores: f64,
    service_us_per_sent: Option<f64>,
    service_resident_bytes: Option<u64>,
    service_resident_peak_bytes: Option<u64>,
    /// Broker and service together.
    total_us_per_sent: Option<f64>,
}

/// How long something took.
#[derive(Debug, Serialize)]
pub(super) struct Latency {
    count: u64,
    pub(super) mean_us: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    p999_us: f64,
    max_us: f64,
}

impl Results {
    pub(super) fn new(traffic: &Traffic, load: &Load) -> Self {
        let (plan, total) = (&traffic.plan, traffic.tally);
        let Load { begin, end, drain, resident, service_resident } = load;
        let seconds = (end.at - begin.at).as_secs_f64();
        let per_second = |count: fn(&Tally) -> u64| (count(&end.tally) - count(&begin.tally)) as f64 / seconds;
        let cpu = |mark: fn(&Mark) -> Option<Duration>| Some((mark(end)?.checked_sub(mark(begin)?)?).as_secs_f64());
        let broker_cpu = cpu(|mark| mark.broker_cpu);
        let share = |cpu: Option<f64>, per_second: f64| {
            cpu.filter(|_| per_second > 0.0).map(|cpu| cpu * 1e6 / (per_second * seconds))
        };
        let each = |per_second: f64| share(broker_cpu, per_second);
        let sent_per_s = per_second(|tally| tally.sent);
        let received_per_s = per_second(|tally| tally.received);
        let service = cpu(|mark| mark.service_cpu).map(|cpu| ServiceProcess {
            service_cores: round(cpu / seconds),
            service_us_per_sent: share(Some(cpu), sent_per_s).map(round),
            service_resident_bytes: service_resident.map(|(now, _)| now),
            service_resident_peak_bytes: service_resident.map(|(_, peak)| peak),
            total_us_per_sent: broker_cpu.and_then(|broker| share(Some(broker + cpu), sent_per_s)).map(round),
        });
        let bounded = plan.content.readings().filter(|readings| readings.expects_alerts);
        let accounts = || traffic.ledgers.iter().flat_map(|ledger| ledger.accounts());
        let (payload_bytes, expected, came) = match &plan.content {
            Content::Stamped { payload_bytes, .. } => {
                (Some(*payload_bytes), total.sent * plan.fan, accounts().map(|account| account.unique).sum())
            }
            Content::Readings(_) => (None, traffic.alerts.expected(), traffic.alerts.came),
        };
        Self {
            scenario: plan.scenario,
            protocol: if plan.protocol == Protocol::V3 { "3.1.1" } else { "5" },
            qos: plan.qos as u8,
            publishers: plan.publishers,
            subscribers: plan.filters.len(),
            payload_bytes,
            window: plan.rate.is_none().then_some(plan.window),
            rate: plan.rate,
            seconds: round(seconds),
            sent: total.sent,
            acknowledged: total.acknowledged,
            refused: total.refused,
            received: total.received,
            expected,
            lost: expected.saturating_sub(came),
            duplicated: accounts().map(|account| account.duplicated).sum::<u64>() + traffic.alerts.unexpected,
            reordered: accounts().map(|account| account.reordered).sum(),
            sent_per_s: round(sent_per_s),
            acknowledged_per_s: round(per_second(|tally| tally.acknowledged)),
            received_per_s: round(received_per_s),
            latency: Latency::new(&traffic.latency),
            handling: (traffic.handling.count() > 0).then(|| Latency::new(&traffic.handling)),
            generator_late_max_us: total.late_max_ns as f64 / 1e3,
            generator_cores: cpu(|mark| mark.own_cpu).map(|cpu| round(cpu / seconds)),
            broker_cores: broker_cpu.map(|cpu| round(cpu / seconds)),
            broker_us_per_sent: each(sent_per_s).map(round),
            broker_us_per_received: each(received_per_s).map(round),
            broker_resident_bytes: resident.map(|(now, _)| now),
            broker_resident_peak_bytes: resident.map(|(_, peak)| peak),
            service,
            unhandled_max: bounded.map(|_| traffic.unhandled_max),
            undelivered_max: bounded.map(|_| traffic.alerts.missing_max),
            inspection: None,
            drain_s: round(drain.as_secs_f64()),
        }
    }

    /// What the service keeps at the end.
    pub(super) fn inspected(&mut self, inspection: Inspection) {
        self.inspection = Some(inspection);
    }

    /// What the broker or the service promised and did not keep, if anything.
    pub(super) fn broken_promise(&self) -> Option<String> {
        let Self { lost, duplicated, reordered, sent, acknowledged, qos, .. } = *self;
        if self.refused > 0 {
            return Some(format!("{} publishes were refused", self.refused));
        }
        if let Some(wrong) = self.inspection.as_ref().and_then(Inspection::wrong) {
            return Some(wrong);
        }
        let unacknowledged = if qos == Qos::AtMostOnce as u8 { 0 } else { sent.saturating_sub(acknowledged) };
        let lost = if qos == Qos::AtMostOnce as u8 { 0 } else { lost };
        let duplicated = if qos == Qos::AtLeastOnce as u8 { 0 } else { duplicated };
        (lost + duplicated + reordered + unacknowledged > 0).then(|| {
            format!("{lost} lost, {duplicated} doubled, {reordered} out of order, {unacknowledged} not acknowledged")
        })
    }

    pub(super) fn print(&self, json: bool, output: &mut impl Write) -> io::Result<()> {
        if json {
            serde_json::to_writer(&mut *output, self)?;
            return writeln!(output);
        }
        let Self { scenario, protocol, qos, publishers, subscribers, seconds, .. } = self;
        writeln!(output, "{scenario}: {publishers} publishers, {subscribers} subscribers, QoS {qos}, MQTT {protocol}")?;
        let mut line = |name: &str, value: String| writeln!(output, "  {name:<16} {value}");
        line("measured", format!("{seconds:.2} s, then {:.2} s until the last delivery", self.drain_s))?;
        line("sent", format!("{} ({:.0}/s), {} acknowledged", self.sent, self.sent_per_s, self.acknowledged))?;
        line("received", format!("{} of {} ({:.0}/s)", self.received, self.expected, self.received_per_s))?;
        let Self { lost, duplicated, reordered, refused, .. } = self;
        line("trouble", format!("{lost} lost, {duplicated} doubled, {reordered} out of order, {refused} refused"))?;
        line("latency", self.latency.describe())?;
        if let Some(handling) = &self.handling {
            line("reading-alert", handling.describe())?;
        }
        if let (Some(unhandled), Some(undelivered)) = (self.unhandled_max, self.undelivered_max) {
            line("at most", format!("{unhandled} readings unhandled, {undelivered} alerts undelivered"))?;
        }
        if let Some(inspection) = &self.inspection {
            line("state", inspection.describe())?;
        }
        if let Some(service) = &self.service {
            let each = service.service_us_per_sent.map_or(String::new(), |us| format!(", {us:.2} us a reading"));
            let total = service.total_us_per_sent.map_or(String::new(), |us| format!(", {us:.2} us with the broker's"));
            line("service CPU", format!("{:.2} cores{each}{total}", service.service_cores))?;
        }
        if let (Some(cores), Some(sent)) = (self.broker_cores, self.broker_us_per_sent) {
            let received = self.broker_us_per_received.map_or(String::new(), |us| format!(", {us:.2} us a delivery"));
            line("broker CPU", format!("{cores:.2} cores, {sent:.2} us a message sent{received}"))?;
        }
        if let (Some(now), Some(peak)) = (self.broker_resident_bytes, self.broker_resident_peak_bytes) {
            line("broker memory", format!("{} KiB, {} KiB at most", now / 1024, peak / 1024))?;
        }
        let cores = self.generator_cores.map_or(String::new(), |cores| format!("{cores:.2} cores, "));
        line("generator", format!("{cores}at most {:.0} us late", self.generator_late_max_us))
    }
}

impl Latency {
    pub(super) fn new(histogram: &Histogram) -> Self {
        let us = |duration: Duration| round(duration.as_nanos() as f64 / 1e3);
        Self {
            count: histogram.count(),
            mean_us: us(histogram.mean()),
            p50_us: us(histogram.quantile(0.5)),
            p99_us: us(histogram.quantile(0.99)),
            p999_us: us(histogram.quantile(0.999)),
            max_us: us(histogram.max()),
        }
    }

    pub(super) fn describe(&self) -> String {
        let Self { p50_us, p99_us, p999_us, max_us, .. } = self;
        format!("p50 {p50_us:.0} us, p99 {p99_us:.0} us, p99.9 {p999_us:.0} us, max {max_us:.0} us")
    }
}

/// To three decimals: more is noise.
pub(super) fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
