//! `vespiary bench idle-plugins`: what plugins cost that have nothing to do, in memory and at a start.
//!
//! Starts a broker of its own from this program, since it has to be stopped and started again: empty, with many plugins
//! freshly deployed, and again with all of them from the cache. The plugins differ in their manifest's name only, so the
//! broker shares between them what it shares between equal components and nothing more.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context as _;
use serde::Serialize;

use super::component::with_manifest;
use super::own_broker::{Broker, Scratch};

/// Flags of `bench idle-plugins`.
#[derive(Debug, clap::Args)]
pub(super) struct IdleArgs {
    /// The component
    #[arg(value_name = "FILE.wasm")]
    component: PathBuf,
    /// How many copies of it
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    count: u32,
    /// Where the broker keeps its data, in a temporary directory
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// Print one JSON object on one line
    #[arg(long)]
    json: bool,
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Results {
    plugins: u32,
    component_bytes: usize,
    /// Resident memory of the broker without plugins.
    empty_bytes: u64,
    /// From the first deploy to the last.
    deploy_s: f64,
    /// Resident memory of each plugin after it was deployed, compiling included.
    deployed_bytes_each: f64,
    /// From the start of the process, with all plugins from the cache, until the broker is ready.
    ready_s: f64,
    /// Until all plugins run.
    all_running_s: f64,
    /// Resident memory of each plugin after that start.
    started_bytes_each: f64,
}

/// Runs the benchmark.
pub(super) fn run(args: &IdleArgs) -> anyhow::Result<ExitCode> {
    let component = std::fs::read(&args.component)
        .with_context(|| format!("cannot read the component {}", args.component.display()))?;
    let directory = Scratch::new(args.directory.as_deref())?;
    let config = format!("[limits]\nplugins = {}\n", args.count);
    let broker = Broker::start(&directory, &config)?;
    let empty_bytes = broker.resident_at_rest()?;
    let begin = Instant::now();
    for number in 0..args.count {
        let name = format!("idle-{number:05}");
        broker.remote.deploy(&with_manifest(&component, &[("name", &name)]).context("the component")?)?;
    }
    let deploy_s = begin.elapsed().as_secs_f64();
    let each = |bytes: u64| bytes.saturating_sub(empty_bytes) as f64 / f64::from(args.count);
    let deployed_bytes_each = each(broker.resident_at_rest()?);
    broker.stop()?;
    let begin = Instant::now();
    let broker = Broker::start(&directory, &config)?;
    let ready_s = begin.elapsed().as_secs_f64();
    broker.wait_until_running(args.count)?;
    let all_running_s = begin.elapsed().as_secs_f64();
    let started_bytes_each = each(broker.resident_at_rest()?);
    broker.stop()?;
    let results = Results {
        plugins: args.count,
        component_bytes: component.len(),
        empty_bytes,
        deploy_s,
        deployed_bytes_each,
        ready_s,
        all_running_s,
        started_bytes_each,
    };
    results.print(args.json)?;
    Ok(ExitCode::SUCCESS)
}

impl Results {
    fn print(&self, json: bool) -> anyhow::Result<()> {
        if json {
            println!("{}", serde_json::to_string(self)?);
            return Ok(());
        }
        let Self { plugins, deploy_s, ready_s, all_running_s, .. } = self;
        println!("idle-plugins: {plugins} of {} KiB", self.component_bytes.div_ceil(1024));
        println!("  empty broker  {} KiB resident", self.empty_bytes / 1024);
        println!("  deployed      in {deploy_s:.1} s, {:.0} KiB resident each", self.deployed_bytes_each / 1024.0);
        println!("  started       ready after {ready_s:.2} s, all running after {all_running_s:.2} s");
        println!("                {:.0} KiB resident each", self.started_bytes_each / 1024.0);
        Ok(())
    }
}
