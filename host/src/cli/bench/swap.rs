//! `vespiary bench swap`: how long a plugin's events wait while a new version takes over, under load.
//!
//! Readings come at a rate, as in `bench service`; meanwhile two versions of the component take over from each other again
//! and again. The broker tells how long it handed nothing out; that no alert is lost or late is seen from outside. One of the two
//! stays active, under the name that the component has.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use serde::Serialize;

use super::args::ServiceArgs;
use super::component::with_manifest;
use super::histogram::Histogram;
use super::remote::Remote;
use super::report::{Latency, Results};
use super::traffic;
use crate::cli::AdminAddress;

/// Readings a second, unless told.
const RATE: f64 = 20_000.0;

/// Flags of `bench swap`.
#[derive(Debug, clap::Args)]
pub(super) struct SwapArgs {
    /// The component
    #[arg(value_name = "FILE.wasm")]
    component: PathBuf,
    /// Milliseconds between one swap and the next
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 250)]
    every_ms: u64,
    #[command(flatten)]
    address: AdminAddress,
    #[command(flatten)]
    service: ServiceArgs,
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Swapped {
    /// How often a version took over, and how long nothing was handed out.
    pause: Latency,
    load: Results,
}

/// Runs the benchmark. Fails where the load's promises were broken.
pub(super) async fn run(mut args: SwapArgs) -> anyhow::Result<ExitCode> {
    args.service.load.rate.get_or_insert(RATE);
    let component = std::fs::read(&args.component)
        .with_context(|| format!("cannot read the component {}", args.component.display()))?;
    let versions = ["0.0.1-bench", "0.0.2-bench"];
    let versions = versions.map(|version| with_manifest(&component, &[("version", version)]).context("the component"));
    let [first, second] = versions;
    let versions = [first?, second?];
    let remote = Remote::at(args.address.http);
    let (client, prepared) = (remote.clone(), versions.clone());
    // Both are compiled before, the first is active.
    tokio::task::spawn_blocking(move || client.deploy(&prepared[1]).and_then(|_| client.deploy(&prepared[0])))
        .await??;
    let ended = Arc::new(AtomicBool::new(false));
    let swaps = {
        let (ended, pause) = (Arc::clone(&ended), Duration::from_millis(args.every_ms));
        std::thread::spawn(move || swap_until(&ended, pause, &remote, &versions))
    };
    let load = tokio::task::LocalSet::new().run_until(traffic::run(args.service.plan()?)).await;
    ended.store(true, Ordering::Relaxed);
    let pauses = swaps.join().map_err(|_| anyhow!("the thread that swaps panicked"))??;
    let swapped = Swapped { pause: Latency::new(&pauses), load: load? };
    if args.service.load.json {
        println!("{}", serde_json::to_string(&swapped)?);
    } else {
        println!("swap: {} swaps, dispatch pause {}", pauses.count(), swapped.pause.describe());
        swapped.load.print(false, &mut std::io::stdout().lock())?;
    }
    match swapped.load.broken_promise() {
        None => Ok(ExitCode::SUCCESS),
        Some(promise) => {
            eprintln!("vespiary bench: {promise}");
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Swaps until the load has ended; gives the pauses that the broker tells.
fn swap_until(
    ended: &AtomicBool,
    pause: Duration,
    remote: &Remote,
    versions: &[Vec<u8>; 2],
) -> anyhow::Result<Histogram> {
    let mut pauses = Histogram::new();
    for version in versions.iter().cycle().skip(1) {
        std::thread::sleep(pause);
        if ended.load(Ordering::Relaxed) {
            break;
        }
        let deployed = remote.deploy(version)?;
        pauses.record((deployed.pause_ms * 1e6) as u64);
    }
    Ok(pauses)
}
