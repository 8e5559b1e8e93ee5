//! `vespiary bench`: loads a broker and says what came of it.
//!
//! One thread holds both ends of every message, so nothing needs a second clock. Closed loop (`--window`): each
//! publisher has so many messages neither acknowledged nor delivered to all, which finds the highest throughput. Open
//! loop (`--rate`): messages are due at fixed times and latency counts from then, so a broker that stalls cannot hide
//! it by slowing the generator down. Losses, duplicates and reordering are counted for each publisher and subscriber.

mod args;

mod traffic;

mod publisher;
mod subscriber;

mod alerts;
mod inspect;

mod deploy;
mod hooks;
mod idle_plugins;
mod swap;

mod component;
mod own_broker;
mod remote;

mod socket;
mod wire;

mod pace;

mod report;

mod histogram;
mod process;

use std::process::ExitCode;

use args::Scenario;

/// Flags of `bench`.
#[derive(Debug, clap::Args)]
pub(super) struct BenchArgs {
    #[command(subcommand)]
    measurement: Measurement,
}

#[derive(Debug, clap::Subcommand)]
enum Measurement {
    #[command(flatten)]
    Traffic(Scenario),
    /// How long until a deployed component handles its first event
    Deploy(deploy::DeployArgs),
    /// How long events wait while one version of a plugin takes over from another, under load
    Swap(swap::SwapArgs),
    /// What a hook adds to publishes that it is asked about, and to others; starts brokers of its own
    Hooks(hooks::HooksArgs),
    /// What many plugins without events cost; starts a broker of its own
    IdlePlugins(idle_plugins::IdleArgs),
}

/// Runs one benchmark. Fails where messages were lost, doubled or reordered that must not be.
pub(super) async fn run(args: BenchArgs) -> anyhow::Result<ExitCode> {
    super::open_files::allow_many_connections();
    match args.measurement {
        Measurement::Traffic(scenario) => load(&scenario).await,
        Measurement::Deploy(args) => deploy::run(&args).await,
        Measurement::Swap(args) => swap::run(args).await,
        Measurement::Hooks(args) => hooks::run(&args).await,
        Measurement::IdlePlugins(args) => idle_plugins::run(&args),
    }
}

async fn load(scenario: &Scenario) -> anyhow::Result<ExitCode> {
    let results = tokio::task::LocalSet::new().run_until(traffic::run(scenario.plan()?)).await?;
    let mut output = std::io::stdout().lock();
    results.print(scenario.json(), &mut output)?;
    match results.broken_promise() {
        None => Ok(ExitCode::SUCCESS),
        Some(promise) => {
            eprintln!("vespiary bench: {promise}");
            Ok(ExitCode::FAILURE)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    use crate::config::{Config, DataDirectory};

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(subcommand)]
        scenario: Scenario,
    }

    #[tokio::test]
    async fn each_scenario_counts_what_our_own_broker_keeps() {
        let directory = tempfile::tempdir().unwrap();
        let mut config = Config { data: DataDirectory(directory.path().join("data")), ..Config::default() };
        config.mqtt.listen.set_port(0);
        config.http.listen.set_port(0);
        let broker = crate::server::start(&config).unwrap();
        for scenario in [
            "p2p --pairs 4 -q 0",
            "p2p --pairs 4 -q 1 --window 4",
            "p2p --pairs 4 -q 2 -V 5",
            "fanout --publishers 2 --subscribers 8 --payload 1024",
            "fanin --publishers 8 --subscribers 2 -V 5 --rate 5000",
            "service --assets 50 --expect-topic assets/+/vibration --expect-every 1",
        ] {
            let line = format!("bench {scenario} --count 300 --warm-up 0 --mqtt {}", broker.mqtt);
            let plan = Line::try_parse_from(line.split(' ')).unwrap().scenario.plan().unwrap();
            let results = tokio::task::LocalSet::new().run_until(traffic::run(plan)).await.unwrap();
            assert_eq!(results.broken_promise(), None, "{scenario}");
            let mut printed = Vec::new();
            results.print(true, &mut printed).unwrap();
            let printed: serde_json::Value = serde_json::from_slice(&printed).unwrap();
            assert_eq!(printed["sent"], 300, "{scenario}: {printed}");
            assert_eq!(printed["received"], printed["expected"], "{scenario}: {printed}");
            results.print(false, &mut std::io::sink()).unwrap();
        }
        tokio::task::spawn_blocking(|| broker.stop()).await.unwrap().unwrap();
    }
}
