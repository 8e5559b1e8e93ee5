//! The flags of `bench`, and the [`Plan`] that they come to.

use std::time::Duration;

use anyhow::ensure;
use vespiary_core::Qos;
use vespiary_core::event::Protocol;
use vespiary_core::topic::{Topic, TopicFilter};

use super::wire::STAMP_BYTES;
use crate::cli::connection::{Version, parse_qos};

/// Unacknowledged publishes of one connection in the open loop; the broker's Receive Maximum lowers it (5.0).
const OPEN_LOOP_WINDOW: u32 = 512;

/// Flags of `bench`.
#[derive(Debug, clap::Args)]
pub(in super::super) struct BenchArgs {
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Debug, clap::Subcommand)]
enum Scenario {
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
    /// Readings of many assets through a plugin with durable state, QoS 1; counts what it publishes
    Service {
        /// Connections that publish
        #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        publishers: u32,
        /// Assets, each with its own topic and its own count of readings
        #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        assets: u32,
        /// Where readings go; `{id}` stands for the asset
        #[arg(long, value_name = "TOPIC", default_value = "assets/{id}/vibration")]
        topic: String,
        /// What the plugin publishes
        #[arg(long, value_name = "FILTER")]
        expect_topic: Option<String>,
        /// It publishes once for so many readings; with this, unhandled readings are bounded and outputs checked
        #[arg(long, value_name = "N", requires = "expect_topic", value_parser = clap::value_parser!(u64).range(1..))]
        expect_every: Option<u64>,
        /// Readings that may be unhandled, judged by the plugin's outputs
        #[arg(long, value_name = "READINGS", default_value_t = 20_000, requires = "expect_every")]
        backlog: u64,
        #[command(flatten)]
        load: Load,
    },
}

#[derive(Debug, clap::Args)]
#[command(disable_version_flag = true)] // -V is the protocol's here.
struct Load {
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
    rate: Option<f64>,
    /// Closed loop: messages of one publisher under way. The broker's Receive Maximum lowers it (5.0); a 3.1.1 broker
    /// cannot say what it takes, and Mosquitto by default drops QoS 2 publishes beyond 20
    #[arg(long, value_name = "MESSAGES", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=30_000))]
    window: u32,
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
    /// Subscribers have durable sessions, so that every message at QoS 1 and 2 is on disk before it is acknowledged
    #[arg(long)]
    durable: bool,
    /// Print one JSON object on one line
    #[arg(long)]
    json: bool,
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
}

/// What is published.
#[derive(Debug, Clone)]
pub(super) enum Content {
    /// A stamp and padding, each publisher to its own topic, or all to one.
    Stamped { topics: Vec<String>, payload_bytes: usize },
    /// JSON readings of assets.
    Readings { before_id: String, after_id: String, assets: u32, expect_every: Option<u64>, backlog: u64 },
}

/// How long to measure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Extent {
    /// For this time.
    Time(Duration),
    /// For so many messages.
    Messages(u64),
}

impl BenchArgs {
    /// Whether to print JSON.
    pub(super) fn json(&self) -> bool {
        self.load().json
    }

    fn load(&self) -> &Load {
        match &self.scenario {
            Scenario::P2p { load, .. }
            | Scenario::Fanout { load, .. }
            | Scenario::Fanin { load, .. }
            | Scenario::Service { load, .. } => load,
        }
    }

    /// What the flags come to. Topics of different runs differ, so that leftovers of one do not disturb another.
    pub(super) fn plan(&self) -> anyhow::Result<Plan> {
        let load = self.load();
        let run = format!("bench/{:08x}", fastrand::u32(..));
        let stamped = |topics| Content::Stamped { topics, payload_bytes: load.payload as usize };
        let numbered = |count: u32| (0..count).map(|number| format!("{run}/{number}")).collect::<Vec<_>>();
        let (scenario, publishers, fan, filters, content) = match &self.scenario {
            Scenario::P2p { pairs, .. } => ("p2p", *pairs, 1, numbered(*pairs), stamped(numbered(*pairs))),
            Scenario::Fanout { publishers, subscribers, .. } => {
                let filters = vec![run.clone(); *subscribers as usize];
                ("fanout", *publishers, u64::from(*subscribers), filters, stamped(vec![run.clone()]))
            }
            Scenario::Fanin { publishers, subscribers, .. } => {
                let filters = vec![format!("{run}/#"); *subscribers as usize];
                ("fanin", *publishers, u64::from(*subscribers), filters, stamped(numbered(*publishers)))
            }
            Scenario::Service { publishers, expect_topic, .. } => {
                let filters = expect_topic.iter().cloned().collect();
                ("service", *publishers, 0, filters, self.readings()?)
            }
        };
        for filter in &filters {
            ensure!(TopicFilter::parse(filter).is_ok(), "{filter:?} is not a topic filter");
        }
        Ok(Plan {
            scenario,
            address: load.mqtt.clone(),
            protocol: load.protocol_version.protocol(),
            qos: if fan == 0 { Qos::AtLeastOnce } else { load.qos },
            content,
            publishers: publishers as usize,
            filters,
            fan,
            window: if load.rate.is_some() { OPEN_LOOP_WINDOW } else { load.window },
            rate: load.rate,
            extent: load.count.map_or(Extent::Time(Duration::from_secs_f64(load.seconds)), Extent::Messages),
            durable: load.durable,
            warm_up: Duration::from_secs_f64(load.warm_up),
            broker_pid: load.broker_pid,
        })
    }

    fn readings(&self) -> anyhow::Result<Content> {
        let Scenario::Service { assets, topic, expect_every, backlog, publishers, .. } = &self.scenario else {
            unreachable!("only services take readings");
        };
        let (before_id, after_id) = topic.split_once("{id}").unwrap_or((topic, ""));
        ensure!(Topic::parse(&topic.replace("{id}", "0")).is_ok(), "{topic:?} is not a topic name");
        ensure!(publishers <= assets, "there are more publishers than assets");
        Ok(Content::Readings {
            before_id: before_id.to_owned(),
            after_id: after_id.to_owned(),
            assets: *assets,
            expect_every: *expect_every,
            backlog: *backlog,
        })
    }
}

impl Content {
    /// How many readings the plugin publishes once for, if that is known.
    pub(super) fn expect_every(&self) -> Option<u64> {
        match self {
            Self::Readings { expect_every, .. } => *expect_every,
            Self::Stamped { .. } => None,
        }
    }

    /// Readings that may be unhandled; never fewer than two outputs are made of.
    pub(super) fn backlog(&self) -> u64 {
        match self {
            Self::Readings { expect_every, backlog, .. } => (*backlog).max(expect_every.unwrap_or(1) * 2),
            Self::Stamped { .. } => u64::MAX,
        }
    }
}

fn parse_rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate| (0.001..=10_000_000.0).contains(rate));
    rate.ok_or_else(|| "messages a second, 0.001 to 10,000,000".to_owned())
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.0..=1_000_000.0).contains(seconds));
    seconds.ok_or_else(|| "a number of seconds".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: BenchArgs,
    }

    fn plan(line: &str) -> anyhow::Result<Plan> {
        Line::try_parse_from(line.split(' '))?.args.plan()
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
