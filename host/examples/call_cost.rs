//! What a call into a guest costs, as the table of `docs/benchmarks.md`: `cargo run --release --example call_cost`.
//!
//! Builds the guests of `tests/guests` first. Each figure is the median of several rounds on one thread; run it on a
//! quiet machine, and compare figures of one run only.

use std::collections::{BTreeMap, HashMap};
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
/// How long one figure is measured.
const MEASURE: Duration = Duration::from_secs(1);
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
    let started = Instant::now();
    let echo = runtime.compile(&digest, &bytes)?;
    row(&format!("compile {} KiB", bytes.len() >> 10), started.elapsed());
    row("load it from the cache", median(ROUNDS, || timed(|| runtime.compile(&digest, &bytes).map(drop)))?);
    row("instantiate", median(1_000, || timed(|| runtime.instantiate(&echo, context()).map(drop)))?);

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

/// What an event costs: the median of rounds in which batches are handled for a while.
fn per_event(instance: &mut Instance, batch: u64) -> anyhow::Result<Duration> {
    let events = events(batch);
    let state = (0..TOPICS).map(|number| (topic(number), number.to_le_bytes().to_vec())).collect();
    let state = Memory(Arc::new(state));
    median(ROUNDS, || {
        let (started, mut handled) = (Instant::now(), 0);
        while started.elapsed() < MEASURE / 10 {
            for _ in 0..16 {
                handled += instance.handle(Timestamp(0), state.clone(), &events)?.len();
            }
        }
        Ok(started.elapsed().div_f64(handled as f64))
    })
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
        };
        let (qos, message) = (Qos::AtLeastOnce, Arc::new(message));
        InboxEvent { sequence: Sequence(number), message, qos, retain: false, attempt: 0 }
    };
    (1..=count).map(event).collect()
}

fn topic(number: u64) -> String {
    format!("assets/{}/vibration", number % TOPICS)
}

fn context() -> InstanceContext {
    InstanceContext {
        plugin: PluginName("cost".into()),
        publish_grants: Arc::new([TopicFilter::parse("out/#").expect("a valid filter")]),
        config: Arc::new(BTreeMap::new()),
        log: Arc::new(drop),
    }
}

fn timed<E>(work: impl FnOnce() -> Result<(), E>) -> anyhow::Result<Duration>
where
    anyhow::Error: From<E>,
{
    let started = Instant::now();
    work()?;
    Ok(started.elapsed())
}

fn median(rounds: usize, mut round: impl FnMut() -> anyhow::Result<Duration>) -> anyhow::Result<Duration> {
    let mut times = (0..rounds).map(|_| round()).collect::<Result<Vec<_>, _>>()?;
    times.sort();
    Ok(times[rounds / 2])
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
