//! What a call into a guest costs, as the table of `docs/benchmarks.md`: `cargo run --release --example call_cost`.
//!
//! Builds the guests of `tests/guests` first. Each figure is the median of several rounds on one thread, in time that the
//! thread ran: what other processes take is not in it, but they still cost caches and clock. Linux only.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use sha2::{Digest as _, Sha256};
use vespiary::wasm::{Compiled, Instance, InstanceContext, Runtime, StateRead, StateUnavailable, WasmLimits};
use vespiary_core::event::{InboxEvent, PluginName, Sequence};
use vespiary_core::message::{Message, Qos, Timestamp};
use vespiary_core::topic::{Topic, TopicFilter};

/// Topics that events come from.
const TOPICS: u64 = 1_000;
/// Bytes of an event's payload.
const PAYLOAD: usize = 125;
/// How long one round is.
const ROUND: Duration = Duration::from_millis(100);
/// Rounds of which the median is taken.
const ROUNDS: usize = 15;

/// State in memory, shared by all calls.
#[derive(Clone, Default)]
struct Memory(Arc<HashMap<String, Vec<u8>>>);

impl StateRead for Memory {
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StateUnavailable> {
        Ok(self.0.get(key).cloned())
    }

    fn scan(&self, _: &str, _: Option<&str>, _: usize) -> Result<Vec<(String, Vec<u8>)>, StateUnavailable> {
        Ok(Vec::new())
    }

    fn usage(&self) -> Result<u64, StateUnavailable> {
        Ok(0)
    }
}

fn main() -> anyhow::Result<()> {
    let guests = build_guests()?;
    let cache = std::env::temp_dir().join(format!("vespiary-call-cost-{}", std::process::id()));
    let result = measure(&guests, &cache);
    std::fs::remove_dir_all(&cache)?;
    result
}

fn measure(guests: &Path, cache: &Path) -> anyhow::Result<()> {
    let runtime = Runtime::new(WasmLimits::default(), cache)?;
    let bytes = std::fs::read(guests.join("echo.wasm"))?;
    let digest = Sha256::digest(&bytes).into();

    println!("| what | cost |\n|---|---|");
    let started = on_cpu();
    let echo = runtime.compile(&digest, &bytes)?;
    row(&format!("compile {} KiB", bytes.len() >> 10), on_cpu() - started);
    row("load it from the cache", per_round(|| runtime.compile(&digest, &bytes).map(|_| 1))?);
    row("instantiate", per_round(|| runtime.instantiate(&echo, context()).map(|_| 1))?);

    let empty = std::fs::read(guests.join("asks_for_more.wasm"))?;
    let empty = runtime.compile(&Sha256::digest(&empty).into(), &empty)?;
    for (name, compiled) in [("no work", &empty), ("one read, one write, 1/16 publish", &echo)] {
        for batch in [1, 16, 256] {
            let each = per_event(&mut warm(&runtime, compiled)?, batch)?;
            row(&format!("{name}, an event in batches of {batch}"), each);
        }
    }
    Ok(())
}

/// An instance that is known to take batches.
fn warm(runtime: &Runtime, compiled: &Compiled) -> anyhow::Result<Instance> {
    let mut instance = runtime.instantiate(compiled, context())?;
    instance.init()?;
    instance.handle(Timestamp(0), Memory::default(), &events(1))?;
    ensure!(instance.takes_batches(), "the guest does not mark its events");
    Ok(instance)
}

/// What an event costs in batches of this size.
fn per_event(instance: &mut Instance, batch: u64) -> anyhow::Result<Duration> {
    let events = events(batch);
    let state = (0..TOPICS).map(|number| (topic(number), number.to_le_bytes().to_vec())).collect();
    let state = Memory(Arc::new(state));
    per_round(|| instance.handle(Timestamp(0), state.clone(), &events).map(|handled| handled.len()))
}

fn events(count: u64) -> Vec<InboxEvent> {
    let event = |number: u64| {
        let message = Message {
            topic: Topic::parse(&topic(number)).expect("a valid topic"),
            payload: vec![b'x'; PAYLOAD].into(),
            qos: Qos::AtLeastOnce,
            retain: false,
            properties: None,
            expires_at: None,
            received_at: Timestamp(0),
            publisher: "sensor".into(),
            user: None,
        };
        let (qos, message) = (Qos::AtLeastOnce, Arc::new(message));
        InboxEvent { sequence: Sequence(number), message, qos, retain: false, attempt: 0, replayed: false }
    };
    (1..=count).map(event).collect()
}

fn topic(number: u64) -> String {
    format!("assets/{}/vibration", number % TOPICS)
}

fn context() -> InstanceContext {
    InstanceContext {
        publish_grants: Arc::new([TopicFilter::parse("out/#").expect("a valid filter")]),
        subscribe_grants: Arc::new([TopicFilter::parse("assets/+/vibration").expect("a valid filter")]),
        ..InstanceContext::without_grants(PluginName("cost".into()))
    }
}

/// How long this thread has run so far.
fn on_cpu() -> Duration {
    let statistics = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux has it");
    let nanoseconds = statistics.split(' ').next().and_then(|number| number.parse().ok());
    Duration::from_nanos(nanoseconds.expect("the first field is a number"))
}

/// What one thing costs: the median of rounds in which `work` is done for a while; it says how many things it did.
fn per_round<E>(mut work: impl FnMut() -> Result<usize, E>) -> anyhow::Result<Duration>
where
    anyhow::Error: From<E>,
{
    let mut costs = Vec::new();
    for _ in 0..ROUNDS {
        let (started, begun, mut done) = (on_cpu(), Instant::now(), 0);
        while begun.elapsed() < ROUND {
            done += work()?;
        }
        costs.push((on_cpu() - started).div_f64(done as f64));
    }
    costs.sort();
    Ok(costs[ROUNDS / 2])
}

fn row(what: &str, cost: Duration) {
    println!("| {what} | {cost:.2?} |");
}

fn build_guests() -> anyhow::Result<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the host is a member of a workspace");
    let arguments = "build --quiet --package guests --examples --target wasm32-wasip2 --profile component";
    let status = Command::new("cargo").current_dir(workspace).args(arguments.split(' ')).status()?;
    ensure!(status.success(), "the guests cannot be built");
    Ok(workspace.join("target/wasm32-wasip2/component/examples"))
}
