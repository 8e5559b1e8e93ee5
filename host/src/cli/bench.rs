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

mod socket;
mod wire;

mod pace;

mod report;

mod histogram;
mod process;

use std::process::ExitCode;

pub(super) use args::BenchArgs;

/// Runs one benchmark. Fails where messages were lost, doubled or reordered that must not be.
pub(super) async fn run(args: BenchArgs) -> anyhow::Result<ExitCode> {
    let plan = args.plan()?;
    process::allow_many_connections();
    let results = tokio::task::LocalSet::new().run_until(traffic::run(plan)).await?;
    let mut output = std::io::stdout().lock();
    results.print(args.json(), &mut output)?;
    match results.broken_promise() {
        None => Ok(ExitCode::SUCCESS),
        Some(promise) => {
            eprintln!("vespiary bench: {promise}");
            Ok(ExitCode::FAILURE)
        }
    }
}
