//! The flags of `bench`, and the [`Plan`] that they come to.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::ensure;
use vespiary_core::Qos;
use vespiary_core::event::Protocol;
use vespiary_core::topic::{Topic, TopicFilter};

use super::wire::STAMP_BYTES;
use crate::cli::connection::{Version, parse_qos};

/// Unacknowledged publishes of one connection in the open loop; the broker's Receive Maximum lowers it (5.0).
pub(super) const OPEN_LOOP_WINDOW: u32 = 512;

/// Messages of one publisher under way in the closed loop, unless told.
const WINDOW: u32 = 64;

/// The same for a service: as many as may be unhandled, by eight publishers.
const SERVICE_WINDOW: u32 = 512;

/// One of so many readings is far beyond normal, unless told.
const ALARMING_EVERY: u64 = 1_000;

/// What to measure: a stream of messages.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Scenario {
    /// Each publisher has one subscriber
    P2p {
        /// Publishers, and subscribers
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        pairs: u32,
        #[command(flatten)]
        load: Load,
    },
    /// Each subscriber gets every message
    Fanout {
        /// Publishers
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        publishers: u32,
        /// Subscribers
        #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        subscribers: u32,
        #[command(flatten)]
        load: Load,
    },
    /// Many publishers, a topic each, and few subscribers to all of them
    Fanin {
        /// Publishers
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        publishers: u32,
        /// Subscribers
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        subscribers: u32,
        #[command(flatten)]
        load: Load,
    },
    /// Readings of many assets through a service with durable state, QoS 1; checks what it publishes and keeps
    Service(ServiceArgs),
}

/// Flags of `bench service`.
#[derive(Debug, clap::Args)]
pub(super) struct ServiceArgs {
    /// Connections that publish
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    publishers: u32,
    /// Assets, each with its own topic
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    assets: u32,
    /// Take the assets at random instead of in turn
    #[arg(long)]
    random: bool,
    /// Begin with a reading of each asset, so that all have a record before anything is measured
    #[arg(long)]
    fill: bool,
    /// Where readings go; `{id}` stands for the asset
    #[arg(long, value_name = "TOPIC", default_value = "assets/{id}/vibration")]
    topic: String,
    /// Where the service publishes an alert for each reading that is far beyond normal, with the reading's `seq`
    #[arg(long, value_name = "FILTER")]
    expect_topic: Option<String>,
    /// One of so many readings is far beyond normal; with this, each alert is awaited, and what is unhandled or
    /// undelivered is bounded
    #[arg(long, value_name = "N", requires = "expect_topic", value_parser = clap::value_parser!(u64).range(1..))]
    expect_every: Option<u64>,
    /// Readings that may be unhandled or their alerts undelivered, judged by the alerts that came
    #[arg(long, value_name = "READINGS", default_value_t = 4_096, requires = "expect_every")]
    backlog: u64,
    /// At the end ask here what the service keeps of each asset, and compare the number of readings with what was sent;
    /// `{id}` stands for the asset. The service must have begun without state
    #[arg(long, value_name = "TOPIC", requires = "inspect_answers")]
    inspect: Option<String>,
    /// Where it answers, with `asset` and `readings`
    #[arg(long, value_name = "FILTER", requires = "inspect")]
    inspect_answers: Option<String>,
    #[command(flatten)]
    pub(super) load: Load,
}

#[derive(Debug, clap::Args)]
#[command(disable_version_flag = true)] // -V is the protocol's here.
pub(super) struct Load {
    /// Address of the broker
    #[arg(long, value_name = "ADDR:PORT", env = "VESPIARY_MQTT", default_value = "127.0.0.1:1883")]
    mqtt: String,
    /// MQTT version
    #[arg(short = 'V', long, value_name = "VERSION", default_value = "3.1.1")]
    protocol_version: Version,
    /// Quality of service of publishes and subscriptions: 0, 1 or 2 (service: always 1)
    #[arg(short, long, value_name = "QOS", default_value = "1", value_parser = parse_qos)]
    qos: Qos,
    /// Payload in bytes, 16 at least (service: fixed by the readings)
    #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = clap::value_parser!(u32).range(STAMP_BYTES as i64..=128 * 1024))]
    payload: u32,
    /// Open loop: messages a second, from all publishers together
    #[arg(long, value_name = "PER_SECOND", conflicts_with = "window", value_parser = parse_rate)]
    pub(super) rate: Option<f64>,
    /// Closed loop: messages of one publisher under way; 64 unless told, 512 for a service. The broker's Receive Maximum lowers it (5.0); a 3.1.1 broker
    /// cannot say what it takes, and Mosquitto by default drops QoS 2 publishes beyond 20
    #[arg(long, value_name = "MESSAGES", value_parser = clap::value_parser!(u32).range(1..=30_000))]
    window: Option<u32>,
    /// How long to measure
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0, conflicts_with = "count", value_parser = parse_seconds)]
    seconds: f64,
    /// Measure so many messages instead
    #[arg(long, value_name = "MESSAGES", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Seconds of load before measuring
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = parse_seconds)]
    warm_up: f64,
    /// Process of the broker on this machine, for its CPU time and memory
    #[arg(long, value_name = "PID")]
    broker_pid: Option<u32>,
    /// Process of a service beside the broker, likewise
    #[arg(long, value_name = "PID")]
    service_pid: Option<u32>,
    /// Subscribers have durable sessions, so that every message at QoS 1 and 2 is on disk before it is acknowledged
    #[arg(long)]
    durable: bool,
    /// Print one JSON object on one line
    #[arg(long)]
    pub(super) json: bool,
}

/// What is to be done.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// Name of the scenario.
    pub(super) scenario: &'static str,
    /// `HOST:PORT` of the broker.
    pub(super) address: String,
    /// Protocol of every connection.
    pub(super) protocol: Protocol,
    /// QoS of publishes and subscriptions.
    pub(super) qos: Qos,
    /// What is published.
    pub(super) content: Content,
    /// Connections that publish.
    pub(super) publishers: usize,
    /// The filter of each connection that subscribes.
    pub(super) filters: Vec<String>,
    /// Subscribers that get each message; 0 for readings, which nobody but the plugin gets.
    pub(super) fan: u64,
    /// Messages of one publisher under way.
    pub(super) window: u32,
    /// Messages a second in the open loop.
    pub(super) rate: Option<f64>,
    /// How long to measure.
    pub(super) extent: Extent,
    /// Whether subscribers have durable sessions.
    pub(super) durable: bool,
    /// Load before measuring.
    pub(super) warm_up: Duration,
    /// The broker's process.
    pub(super) broker_pid: Option<u32>,
    /// The process of a service beside the broker.
    pub(super) service_pid: Option<u32>,
}

/// What is published.
#[derive(Debug, Clone)]
pub(super) enum Content {
    /// A stamp and padding, each publisher to its own topic, or all to one.
    Stamped { topics: Vec<String>, payload_bytes: usize },
    /// JSON readings of assets.
    Readings(Readings),
}

/// What readings are published, and what is expected of the service.
#[derive(Debug, Clone)]
pub(super) struct Readings {
    /// Where they go.
    pub(super) topic: AssetTopic,
    /// How many assets there are.
    pub(super) assets: u32,
    /// Assets come at random, not in turn.
    pub(super) random: bool,
    /// Each asset has a reading before anything is measured.
    pub(super) fill: bool,
    /// One of so many readings is far beyond normal.
    pub(super) alarming_every: u64,
    /// Alerts are expected, and bounded.
    pub(super) expects_alerts: bool,
    /// Readings that may be unhandled or their alerts undelivered.
    pub(super) backlog: u64,
    /// Where to ask for an asset's state, and where the answer comes.
    inspect: Option<(AssetTopic, String)>,
}

impl Readings {
    /// Where to ask for an asset's state, and where the answer comes.
    pub(super) fn inspection(&self) -> Option<(&AssetTopic, &str)> {
        self.inspect.as_ref().map(|(topic, answers)| (topic, answers.as_str()))
    }
}

/// A topic with a place for an asset.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct AssetTopic {
    before_id: String,
    after_id: String,
}

/// How long to measure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Extent {
    /// For this time.
    Time(Duration),
    /// For so many messages.
    Messages(u64),
}

impl Scenario {
    /// Whether to print JSON.
    pub(super) fn json(&self) -> bool {
        self.load().json
    }

    fn load(&self) -> &Load {
        match self {
            Scenario::P2p { load, .. } | Scenario::Fanout { load, .. } | Scenario::Fanin { load, .. } => load,
            Scenario::Service(service) => &service.load,
        }
    }

    /// What the flags come to. Topics of different runs differ, so that leftovers of one do not disturb another.
    pub(super) fn plan(&self) -> anyhow::Result<Plan> {
        let load = self.load();
        let run = format!("bench/{:08x}", fastrand::u32(..));
        let stamped = |topics| Content::Stamped { topics, payload_bytes: load.payload as usize };
        let numbered = |count: u32| (0..count).map(|number| format!("{run}/{number}")).collect::<Vec<_>>();
        let (scenario, publishers, fan, filters, content) = match self {
            Scenario::P2p { pairs, .. } => ("p2p", *pairs, 1, numbered(*pairs), stamped(numbered(*pairs))),
            Scenario::Fanout { publishers, subscribers, .. } => {
                let filters = vec![run.clone(); *subscribers as usize];
                ("fanout", *publishers, u64::from(*subscribers), filters, stamped(vec![run.clone()]))
            }
            Scenario::Fanin { publishers, subscribers, .. } => {
                let filters = vec![format!("{run}/#"); *subscribers as usize];
                ("fanin", *publishers, u64::from(*subscribers), filters, stamped(numbered(*publishers)))
            }
            Scenario::Service(service) => return service.plan(),
        };
        Ok(load.plan(scenario, publishers, fan, filters, content))
    }
}

impl Load {
    fn plan(&self, scenario: &'static str, publishers: u32, fan: u64, filters: Vec<String>, content: Content) -> Plan {
        let is_service = matches!(content, Content::Readings(_));
        let window = self.window.unwrap_or(if is_service { SERVICE_WINDOW } else { WINDOW });
        Plan {
            scenario,
            address: self.mqtt.clone(),
            protocol: self.protocol_version.protocol(),
            qos: if is_service { Qos::AtLeastOnce } else { self.qos },
            content,
            publishers: publishers as usize,
            filters,
            fan,
            window: if self.rate.is_some() { OPEN_LOOP_WINDOW } else { window },
            rate: self.rate,
            extent: self.count.map_or(Extent::Time(Duration::from_secs_f64(self.seconds)), Extent::Messages),
            durable: self.durable,
            warm_up: Duration::from_secs_f64(self.warm_up),
            broker_pid: self.broker_pid,
            service_pid: self.service_pid,
        }
    }
}

impl ServiceArgs {
    /// What the flags come to.
    pub(super) fn plan(&self) -> anyhow::Result<Plan> {
        ensure!(self.publishers <= self.assets, "there are more publishers than assets");
        let filters: Vec<String> = self.expect_topic.iter().cloned().collect();
        for filter in filters.iter().chain(&self.inspect_answers) {
            ensure!(TopicFilter::parse(filter).is_ok(), "{filter:?} is not a topic filter");
        }
        let inspect = self.inspect.as_deref().map(AssetTopic::parse).transpose()?;
        let alarming_every = self.expect_every.unwrap_or(ALARMING_EVERY);
        let readings = Readings {
            topic: AssetTopic::parse(&self.topic)?,
            assets: self.assets,
            random: self.random,
            fill: self.fill,
            alarming_every,
            expects_alerts: self.expect_every.is_some(),
            // No less than each publisher needs to come to its next alarming reading.
            backlog: self.backlog.max(2 * alarming_every * u64::from(self.publishers)),
            inspect: inspect.zip(self.inspect_answers.clone()),
        };
        Ok(self.load.plan("service", self.publishers, 0, filters, Content::Readings(readings)))
    }
}

impl AssetTopic {
    fn parse(text: &str) -> anyhow::Result<Self> {
        ensure!(Topic::parse(&text.replace("{id}", "0")).is_ok(), "{text:?} is not a topic name");
        let (before_id, after_id) = text.split_once("{id}").unwrap_or((text, ""));
        Ok(Self { before_id: before_id.to_owned(), after_id: after_id.to_owned() })
    }

    /// Writes the topic of an asset.
    pub(super) fn write(&self, asset: u32, topic: &mut String) {
        topic.clear();
        topic.push_str(&self.before_id);
        // Writing into memory does not fail.
        let _ = write!(topic, "press-{asset:06}");
        topic.push_str(&self.after_id);
    }
}

impl Content {
    /// The readings, if it is those.
    pub(super) fn readings(&self) -> Option<&Readings> {
        match self {
            Self::Readings(readings) => Some(readings),
            Self::Stamped { .. } => None,
        }
    }
}

pub(super) fn parse_rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate| (0.001..=10_000_000.0).contains(rate));
    rate.ok_or_else(|| "messages a second, 0.001 to 10,000,000".to_owned())
}

pub(super) fn parse_seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.0..=1_000_000.0).contains(seconds));
    seconds.ok_or_else(|| "a number of seconds".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(subcommand)]
        scenario: Scenario,
    }

    fn plan(line: &str) -> anyhow::Result<Plan> {
        Line::try_parse_from(line.split(' '))?.scenario.plan()
    }

    #[test]
    fn flags_make_a_plan() {
        let p2p = plan("bench p2p --pairs 3 -q 2 --payload 16 --window 8 --count 100 --warm-up 0").unwrap();
        assert_eq!((p2p.publishers, p2p.filters.len(), p2p.fan, p2p.window), (3, 3, 1, 8));
        assert_eq!((p2p.extent, p2p.warm_up, p2p.qos), (Extent::Messages(100), Duration::ZERO, Qos::ExactlyOnce));
        let fanout = plan("bench fanout --subscribers 7 -V 5").unwrap();
        assert_eq!((fanout.publishers, fanout.filters.len(), fanout.fan, fanout.protocol), (1, 7, 7, Protocol::V5));
        let fanin = plan("bench fanin --rate 2000 --seconds 0.5").unwrap();
        assert_eq!((fanin.publishers, fanin.fan, fanin.rate, fanin.window), (100, 1, Some(2000.0), 512));
        assert_eq!(fanin.extent, Extent::Time(Duration::from_millis(500)));
        let service = plan("bench service --expect-topic assets/+/alerts --expect-every 16 -q 0").unwrap();
        assert_eq!((service.qos, service.fan, &*service.filters[0]), (Qos::AtLeastOnce, 0, "assets/+/alerts"));
    }

    #[test]
    fn flags_that_make_no_sense_are_refused() {
        for line in [
            "bench",
            "bench p2p --payload 15",
            "bench p2p --rate 5 --window 5",
            "bench p2p --seconds 5 --count 5",
            "bench p2p --rate 0",
            "bench p2p --pairs 0",
            "bench service --expect-every 5",
            "bench service --topic a/#",
            "bench service --expect-topic a+",
            "bench service --assets 2",
        ] {
            assert!(plan(line).is_err(), "{line}");
        }
    }
}
