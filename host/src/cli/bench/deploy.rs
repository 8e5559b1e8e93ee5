//! `vespiary bench deploy`: how long from handing over a component until its first event is handled.
//!
//! Each deploy goes over its predecessor. Uncached: a component that the broker has never seen, since its version is new.
//! Cached: the one before it, again. The clock runs from the request until the alert to an alarming reading, which is
//! published as soon as the broker has answered.

use std::path::PathBuf;
use std::process::ExitCode;
use std::task::Poll;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde::Serialize;
use vespiary_core::Qos;
use vespiary_core::event::Protocol;

use super::component::with_manifest;
use super::histogram::Histogram;
use super::remote::Remote;
use super::report::Latency;
use super::socket::{READ_BYTES, Socket};
use super::wire::{Received, publish_prefix, put_publish_middle};
use crate::cli::AdminAddress;

/// How long the first event may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Name that the component is deployed under, so that it takes no plugin's place.
const NAME: &str = "bench-deploy";

/// Flags of `bench deploy`.
#[derive(Debug, clap::Args)]
pub(super) struct DeployArgs {
    /// The component; it publishes an alert for a reading of 12 mm/s
    #[arg(value_name = "FILE.wasm")]
    component: PathBuf,
    /// How often, each time uncached and cached
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    count: u32,
    /// Address of the broker
    #[arg(long, value_name = "ADDR:PORT", env = "VESPIARY_MQTT", default_value = "127.0.0.1:1883")]
    mqtt: String,
    #[command(flatten)]
    address: AdminAddress,
    /// Where the first event goes
    #[arg(long, value_name = "TOPIC", default_value = "assets/bench-deploy/vibration")]
    topic: String,
    /// Where the alert comes
    #[arg(long, value_name = "FILTER", default_value = "assets/bench-deploy/alerts")]
    expect_topic: String,
    /// Print one JSON object on one line
    #[arg(long)]
    json: bool,
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Results {
    component_bytes: usize,
    uncached: Kind,
    cached: Kind,
}

/// Deploys of one kind.
#[derive(Debug, Serialize)]
struct Kind {
    /// From the request to the first event's alert.
    first_event: Latency,
    /// From the request to the broker's answer.
    answer: Latency,
    /// Of this, compiling or reading from the cache.
    compile: Latency,
    /// Without dispatch.
    pause: Latency,
}

/// The times of one kind.
struct Times {
    first_event: Histogram,
    answer: Histogram,
    compile: Histogram,
    pause: Histogram,
}

/// Runs the benchmark.
pub(super) async fn run(args: &DeployArgs) -> anyhow::Result<ExitCode> {
    let component = std::fs::read(&args.component)
        .with_context(|| format!("cannot read the component {}", args.component.display()))?;
    let remote = Remote::at(args.address.http);
    let mut socket = Socket::connect(&args.mqtt, Protocol::V3, "vespiary-bench-deploy", false).await?;
    socket.subscribe(&args.expect_topic, Qos::AtLeastOnce).await?;
    // Versions of another run may be in the cache.
    let run = fastrand::u32(..);
    let variant = |number: u32| {
        let version = format!("0.0.{number}-{run:08x}");
        with_manifest(&component, &[("name", NAME), ("version", &version)]).context("the component")
    };
    let mut bench = Bench { args, remote, socket, buffer: vec![0; READ_BYTES], seq: u64::from(run) << 20 };
    let (mut uncached, mut cached) = (Times::new(), Times::new());
    let mut predecessor = variant(0)?;
    bench.deploy(predecessor.clone(), &mut Times::new()).await?;
    for number in 1..=args.count {
        let next = variant(number)?;
        bench.deploy(next.clone(), &mut uncached).await?;
        bench.deploy(predecessor, &mut cached).await?;
        predecessor = next;
    }
    let remote = bench.remote.clone();
    tokio::task::spawn_blocking(move || remote.remove(NAME)).await??;
    let results =
        Results { component_bytes: component.len(), uncached: uncached.summarize(), cached: cached.summarize() };
    results.print(args.json)?;
    Ok(ExitCode::SUCCESS)
}

struct Bench<'a> {
    args: &'a DeployArgs,
    remote: Remote,
    socket: Socket,
    buffer: Vec<u8>,
    /// Names the last reading.
    seq: u64,
}

impl Bench<'_> {
    async fn deploy(&mut self, component: Vec<u8>, times: &mut Times) -> anyhow::Result<()> {
        let begin = Instant::now();
        let remote = self.remote.clone();
        let deployed = tokio::task::spawn_blocking(move || remote.deploy(&component)).await??;
        ensure!(deployed.plugin == NAME, "the broker deployed {} instead of {NAME}", deployed.plugin);
        times.answer.record(begin.elapsed().as_nanos() as u64);
        let handled = tokio::time::timeout(PATIENCE, self.handle_one()).await;
        handled.context("the first event is not handled")??;
        times.first_event.record(begin.elapsed().as_nanos() as u64);
        times.compile.record((deployed.compile_ms * 1e6) as u64);
        times.pause.record((deployed.pause_ms * 1e6) as u64);
        Ok(())
    }

    /// Publishes an alarming reading and waits for its alert.
    async fn handle_one(&mut self) -> anyhow::Result<()> {
        self.seq += 1;
        let payload = format!(
            r#"{{"asset":"bench-deploy","seq":{},"ts":1,"mm_s":12.5,"temperature_c":40.5,"unit":"mm/s","sensor":"drive-end"}}"#,
            self.seq
        );
        let Self { args, socket, buffer, seq, .. } = self;
        socket.output.extend(publish_prefix(Protocol::V3, &args.topic, Qos::AtLeastOnce, payload.len()));
        put_publish_middle(&mut socket.output, Protocol::V3, Qos::AtLeastOnce, (*seq % 60_000) as u16 + 1);
        socket.output.extend_from_slice(payload.as_bytes());
        let mut came = false;
        std::future::poll_fn(|cx| {
            let _ = socket.poll_write(cx)?;
            let more_to_read = socket.poll_read(cx, buffer, |packet, output| {
                let Received::Publish { qos, id, payload } = packet else { return };
                if qos > 0 {
                    output.extend_from_slice(&[0x40, 2, id[0], id[1]]);
                }
                came |= super::alerts::named_seq(payload) == Some(*seq);
            })?;
            let _ = socket.poll_write(cx)?;
            if came {
                return Poll::Ready(Ok(()));
            }
            if more_to_read.is_ready() {
                cx.waker().wake_by_ref();
            }
            Poll::Pending
        })
        .await
    }
}

impl Times {
    fn new() -> Self {
        let [first_event, answer, compile, pause] = std::array::from_fn(|_| Histogram::new());
        Self { first_event, answer, compile, pause }
    }

    fn summarize(&self) -> Kind {
        Kind {
            first_event: Latency::new(&self.first_event),
            answer: Latency::new(&self.answer),
            compile: Latency::new(&self.compile),
            pause: Latency::new(&self.pause),
        }
    }
}

impl Results {
    fn print(&self, json: bool) -> anyhow::Result<()> {
        if json {
            println!("{}", serde_json::to_string(self)?);
            return Ok(());
        }
        println!("deploy: a component of {} KiB", self.component_bytes.div_ceil(1024));
        for (name, kind) in [("uncached", &self.uncached), ("cached", &self.cached)] {
            println!("  {name:<10} to the first event  {}", kind.first_event.describe());
            println!("  {:<10} to the answer       {}", "", kind.answer.describe());
            println!("  {:<10} compile or load     {}", "", kind.compile.describe());
            println!("  {:<10} dispatch pause      {}", "", kind.pause.describe());
        }
        Ok(())
    }
}
