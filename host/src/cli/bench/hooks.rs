//! `vespiary bench hooks`: what a hook adds to the publishes that it is asked about, and to those that it is not.
//!
//! The same paced load, point to point, in turns: on a broker without plugins, on one whose hook is asked about each publish, and on
//! one with the same hook and topics that it did not ask for. Each turn has a broker of its own, started from this program; rounds
//! begin with another turn each, so that a machine that becomes slower favours none. The broker does not time its hooks, so what
//! is told are differences between turns, and the broker's own count of questions says that the turns were what they claim.

mod compare;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde::Serialize;
use vespiary_core::Qos;
use vespiary_core::topic::Topic;

use super::args::{Content, Extent, OPEN_LOOP_WINDOW, Plan, parse_rate, parse_seconds};
use super::own_broker::{Broker, Scratch};
use super::remote::Questions;
use super::report::Results;
use super::traffic;
use super::wire::STAMP_BYTES;
use crate::cli::connection::{Version, parse_qos};
use compare::{Added, Figures, HEAD, Spread};

/// Flags of `bench hooks`.
#[derive(Debug, clap::Args)]
#[command(disable_version_flag = true)] // -V is the protocol's here.
pub(super) struct HooksArgs {
    /// The component; its hook keeps every publish
    #[arg(value_name = "FILE.wasm")]
    component: PathBuf,
    /// The hook is asked about topics below this
    #[arg(long, value_name = "TOPIC", default_value = "asked", value_parser = parse_topic)]
    topic: String,
    /// The hook is not asked about topics below this; best of the same length, so that packets are too
    #[arg(long, value_name = "TOPIC", default_value = "plain", value_parser = parse_topic)]
    other_topic: String,
    /// MQTT version
    #[arg(short = 'V', long, value_name = "VERSION", default_value = "3.1.1")]
    protocol_version: Version,
    /// Qualities of service, one after the other: 0, 1 or 2
    #[arg(short, long, value_name = "QOS,..", default_value = "0,1", value_delimiter = ',', value_parser = parse_qos)]
    qos: Vec<Qos>,
    /// Publishers, and subscribers
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pairs: u32,
    /// Payload in bytes, 16 at least
    #[arg(long, value_name = "BYTES", default_value_t = 125, value_parser = clap::value_parser!(u32).range(STAMP_BYTES as i64..=128 * 1024))]
    payload: u32,
    /// Messages a second, from all publishers together
    #[arg(long, value_name = "PER_SECOND", default_value = "10000", value_parser = parse_rate)]
    rate: f64,
    /// How long to measure in each turn, at each quality of service
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0, value_parser = parse_seconds)]
    seconds: f64,
    /// Seconds of load before that
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = parse_seconds)]
    warm_up: f64,
    /// How often each turn comes
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rounds: u32,
    /// Where the brokers keep their data, in a temporary directory
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// Print one JSON object on one line
    #[arg(long)]
    json: bool,
}

/// What a broker has to do with the hook in a turn.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Turn {
    /// No plugin is there.
    WithoutPlugin,
    /// The hook is asked about each publish.
    Asked,
    /// The hook is there and not asked.
    NotAsked,
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Comparison {
    component_bytes: usize,
    pairs: u32,
    payload_bytes: u32,
    rate: f64,
    rounds: u32,
    qos: Vec<OfQos>,
}

/// What came of one quality of service.
#[derive(Debug, Serialize)]
struct OfQos {
    qos: u8,
    without_plugin: OfTurn,
    asked: OfTurn,
    not_asked: OfTurn,
    /// Figures with the hook less those without plugin.
    added_where_asked: Figures<Added>,
    /// The same where the hook was not asked.
    added_where_not_asked: Figures<Added>,
}

/// What came of one turn, in all rounds.
#[derive(Debug, Serialize)]
struct OfTurn {
    /// Over rounds.
    figures: Figures<Spread>,
    /// Messages that did not come, which only QoS 0 allows.
    lost: u64,
    /// What the hook was asked, warm-up included.
    questions: Questions,
    /// The longest that a message left after it was due; large ones mean that the generator is too slow.
    generator_late_max_us: f64,
    runs: Vec<Results>,
}

/// Runs the benchmark. Fails where a promise was broken, or the hook was not asked what it should have been.
pub(super) async fn run(args: &HooksArgs) -> anyhow::Result<ExitCode> {
    args.check()?;
    let component = std::fs::read(&args.component)
        .with_context(|| format!("cannot read the component {}", args.component.display()))?;
    let mut measured: Vec<[Vec<Measured>; 3]> = args.qos.iter().map(|_| Default::default()).collect();
    for round in 0..args.rounds as usize {
        for place in 0..Turn::ALL.len() {
            // The very first is one with the hook, so that a component that will not do is noticed at once.
            let turn = Turn::ALL[(round + place + Turn::Asked as usize) % Turn::ALL.len()];
            for (of_qos, run) in measured.iter_mut().zip(args.turn(turn, &component).await?) {
                of_qos[turn as usize].push(run);
            }
        }
    }
    let qos = measured.into_iter().map(OfQos::new).collect::<anyhow::Result<_>>()?;
    let comparison = Comparison {
        component_bytes: component.len(),
        pairs: args.pairs,
        payload_bytes: args.payload,
        rate: args.rate,
        rounds: args.rounds,
        qos,
    };
    match args.json {
        true => println!("{}", serde_json::to_string(&comparison)?),
        false => print!("{}", comparison.describe()),
    }
    match comparison.broken_promise() {
        None => Ok(ExitCode::SUCCESS),
        Some(promise) => {
            eprintln!("vespiary bench: {promise}");
            Ok(ExitCode::FAILURE)
        }
    }
}

/// One run of the load, and what the hook was asked meanwhile.
struct Measured {
    results: Results,
    questions: Questions,
}

impl HooksArgs {
    fn check(&self) -> anyhow::Result<()> {
        let Self { topic, other_topic, .. } = self;
        let below = |one: &str, other: &str| {
            one.strip_prefix(other).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        ensure!(
            !below(topic, other_topic) && !below(other_topic, topic),
            "of {topic} and {other_topic} one is below the other, so the hook is asked about both or neither"
        );
        ensure!(self.seconds > 0.0, "nothing is measured in 0 seconds");
        Ok(())
    }

    /// One turn: a broker from its start to its end, with the load at each quality of service.
    async fn turn(&self, turn: Turn, component: &[u8]) -> anyhow::Result<Vec<Measured>> {
        let directory = Scratch::new(self.directory.as_deref())?;
        let broker = Broker::start(&directory, "")?;
        let plugin = match turn {
            Turn::WithoutPlugin => None,
            Turn::Asked | Turn::NotAsked => Some(broker.remote.deploy(component)?.plugin),
        };
        let questions = || plugin.as_ref().map_or(Ok(Questions::default()), |plugin| broker.remote.questions(plugin));
        let mut measured = Vec::new();
        for qos in &self.qos {
            let before = questions()?;
            let plan = self.plan(turn, *qos, &broker);
            let results = tokio::task::LocalSet::new().run_until(traffic::run(plan)).await?;
            let questions = questions()? - before;
            match turn {
                Turn::Asked => ensure!(
                    questions.answered > 0,
                    "the hook answered no question about a topic below {}: does it ask for those? (--topic)",
                    self.topic
                ),
                Turn::WithoutPlugin | Turn::NotAsked => ensure!(
                    questions.all() == 0,
                    "the plugin was asked {} questions while no topic was below {}: a hook for publishes there and for nothing \
                     else is wanted (--other-topic)",
                    questions.all(),
                    self.topic
                ),
            }
            measured.push(Measured { results, questions });
        }
        broker.stop()?;
        Ok(measured)
    }

    fn plan(&self, turn: Turn, qos: Qos, broker: &Broker) -> Plan {
        let level = match turn {
            Turn::WithoutPlugin | Turn::Asked => &self.topic,
            Turn::NotAsked => &self.other_topic,
        };
        let run = fastrand::u32(..);
        let topics: Vec<String> = (0..self.pairs).map(|number| format!("{level}/{run:08x}/{number}")).collect();
        Plan {
            scenario: "p2p",
            address: broker.mqtt.clone(),
            protocol: self.protocol_version.protocol(),
            qos,
            publishers: topics.len(),
            filters: topics.clone(),
            content: Content::Stamped { topics, payload_bytes: self.payload as usize },
            fan: 1,
            window: OPEN_LOOP_WINDOW,
            rate: Some(self.rate),
            extent: Extent::Time(Duration::from_secs_f64(self.seconds)),
            durable: false,
            warm_up: Duration::from_secs_f64(self.warm_up),
            broker_pid: Some(broker.pid()),
            service_pid: None,
        }
    }
}

impl Turn {
    /// As they come, and as they are numbered.
    const ALL: [Self; 3] = [Self::WithoutPlugin, Self::Asked, Self::NotAsked];
}

impl OfQos {
    fn new([without_plugin, asked, not_asked]: [Vec<Measured>; 3]) -> anyhow::Result<Self> {
        let [without_plugin, asked, not_asked] =
            [OfTurn::new(without_plugin)?, OfTurn::new(asked)?, OfTurn::new(not_asked)?];
        let added = |turn: &OfTurn| turn.figures.less(&without_plugin.figures);
        Ok(Self {
            qos: without_plugin.runs[0].qos,
            added_where_asked: added(&asked),
            added_where_not_asked: added(&not_asked),
            without_plugin,
            asked,
            not_asked,
        })
    }

    /// What was promised and not kept in any turn, if anything.
    fn broken_promise(&self) -> Option<String> {
        let turns = [&self.without_plugin, &self.asked, &self.not_asked];
        if let Some(promise) = turns.iter().flat_map(|turn| &turn.runs).find_map(Results::broken_promise) {
            return Some(promise);
        }
        let sent: u64 = self.asked.runs.iter().map(|run| run.sent).sum();
        let Questions { answered, .. } = self.asked.questions;
        (answered != sent).then(|| {
            format!("of {sent} publishes the hook answered {answered} questions ({})", self.asked.questions.describe())
        })
    }
}

impl OfTurn {
    fn new(measured: Vec<Measured>) -> anyhow::Result<Self> {
        let figures = measured.iter().map(|one| Figures::of(&one.results)).collect::<anyhow::Result<Vec<_>>>()?;
        let questions = measured.iter().fold(Questions::default(), |sum, one| sum + one.questions);
        let runs: Vec<Results> = measured.into_iter().map(|one| one.results).collect();
        Ok(Self {
            figures: Figures::over(&figures),
            lost: runs.iter().map(|run| run.lost).sum(),
            questions,
            generator_late_max_us: runs.iter().map(|run| run.generator_late_max_us).fold(0.0, f64::max),
            runs,
        })
    }
}

impl Comparison {
    fn broken_promise(&self) -> Option<String> {
        self.qos.iter().find_map(|of_qos| Some(format!("QoS {}: {}", of_qos.qos, of_qos.broken_promise()?)))
    }

    /// For people.
    fn describe(&self) -> String {
        let Self { pairs, payload_bytes, rate, rounds, .. } = self;
        let protocol = self.qos[0].without_plugin.runs[0].protocol;
        let mut text = format!(
            "hooks: a component of {} KiB; {rate}/s of {payload_bytes} B between {pairs} pairs, MQTT {protocol}\n\
             medians of {rounds} rounds, and their range; latency from when a message was due to its delivery; CPU of the broker\n",
            self.component_bytes.div_ceil(1024)
        );
        let mut line = |line: String| {
            // Writing into memory does not fail.
            let _ = writeln!(text, "{}", line.trim_end());
        };
        let row = |name: &str, cells: [String; 4]| {
            format!("  {name:<24}{}", cells.map(|cell| format!("{cell:<24}")).concat())
        };
        for of_qos in &self.qos {
            let OfQos { qos, without_plugin, asked, not_asked, added_where_asked, added_where_not_asked } = of_qos;
            let turns = [("no plugin", without_plugin), ("hook asked", asked), ("hook not asked", not_asked)];
            line(String::new());
            line(row(&format!("QoS {qos}"), HEAD.map(str::to_owned)));
            for (name, turn) in turns {
                line(row(name, turn.figures.cells(Spread::describe)));
            }
            line(row("asked - no plugin", added_where_asked.cells(Added::describe)));
            line(row("not asked - no plugin", added_where_not_asked.cells(Added::describe)));
            line(format!("  {:<24}{}", "questions", asked.questions.describe()));
            let of_turns =
                |value: fn(&OfTurn) -> String| turns.map(|(name, turn)| format!("{name} {}", value(turn))).join(", ");
            line(format!("  {:<24}{}", "lost", of_turns(|turn| turn.lost.to_string())));
            let late = of_turns(|turn| format!("{:.0} us", turn.generator_late_max_us));
            line(format!("  {:<24}{late}", "generator late at most"));
        }
        line(
            "\nCompared are whole runs: a difference is between the figures of two turns, with their ratio behind it. That of the means\n\
             is what the hook adds to a publish on average; that of the p99s is how far the hook moves the p99, and not the p99 of\n\
             what it adds."
                .to_owned(),
        );
        text
    }
}

/// The beginning of topics.
fn parse_topic(text: &str) -> Result<String, String> {
    Topic::parse(text).map(|_| text.to_owned()).map_err(|_| "a topic name, without wildcards".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: HooksArgs,
    }

    fn read(line: &str) -> anyhow::Result<HooksArgs> {
        let args = Line::try_parse_from(line.split(' '))?.args;
        args.check()?;
        Ok(args)
    }

    #[test]
    fn flags_make_the_load() {
        let args = read("bench a.wasm -q 2,0 --topic a/b --other-topic a/bc").unwrap();
        assert_eq!(args.qos, [Qos::ExactlyOnce, Qos::AtMostOnce]);
        assert_eq!(read("bench a.wasm").unwrap().qos, [Qos::AtMostOnce, Qos::AtLeastOnce]);
    }

    #[test]
    fn flags_that_make_no_sense_are_refused() {
        for line in [
            "bench",
            "bench a.wasm -q 3",
            "bench a.wasm --topic a/#",
            "bench a.wasm --topic plain",
            "bench a.wasm --topic a --other-topic a/b",
            "bench a.wasm --topic a/b --other-topic a",
            "bench a.wasm --seconds 0",
            "bench a.wasm --rounds 0",
            "bench a.wasm --rate 0",
            "bench a.wasm --payload 15",
        ] {
            assert!(read(line).is_err(), "{line}");
        }
    }
}
