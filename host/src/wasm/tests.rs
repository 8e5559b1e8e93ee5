//! The sandbox against real components: the guests of `tests/guests`, built on first use.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};

use sha2::{Digest, Sha256};
use vespiary_core::event::{InboxEvent, PluginName, Sequence};
use vespiary_core::message::{Message, MessageProperties, Qos, Timestamp};
use vespiary_core::topic::{Topic, TopicFilter};

use super::testing::MapState;
use super::*;

mod acting;
mod calls;
mod components;
mod deciding;
mod http;
mod migrating;
mod misbehaviour;

// ---------------------------------------------------------------------------------------------- building guests

/// The target directory in which this test runs.
fn target_directory() -> PathBuf {
    let test = std::env::current_exe().expect("tests know their own path");
    test.ancestors().nth(3).expect("tests lie in target/PROFILE/deps").to_owned()
}

fn succeed(command: &mut Command) {
    let status = command.status().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "{command:?} failed");
}

/// Builds all guests once in a process.
fn guests() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the host is a member of a workspace");
        let target = ["--target", "wasm32-wasip2"];
        let mut library = Command::new("rustc");
        let library = library.current_dir(directory).args(["--print", "target-libdir"]).args(target).output();
        let library = library.expect("rustc runs").stdout;
        if !Path::new(String::from_utf8_lossy(&library).trim()).exists() {
            succeed(Command::new("rustup").current_dir(directory).args(["target", "add", "wasm32-wasip2"]));
        }
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build.current_dir(directory).args(["build", "--quiet", "--package", "guests", "--examples"]).args(target);
        succeed(build.args(["--profile", "component", "--target-dir"]).arg(target_directory()));
        target_directory().join("wasm32-wasip2/component/examples")
    })
}

/// The component of a guest.
pub(crate) fn guest(name: &str) -> Vec<u8> {
    let path = guests().join(format!("{name}.wasm"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

// ---------------------------------------------------------------------------------------------- a host for one test

/// A runtime, and what its instances log and measure.
struct Bed {
    runtime: Runtime,
    lines: Arc<Mutex<Vec<LogLine>>>,
    measured: Arc<Mutex<Vec<Measurement>>>,
    /// What instances are made for, but for their log.
    context: InstanceContext,
}

impl Bed {
    fn new() -> Self {
        Self::with(small())
    }

    /// Compiled guests are kept between runs; they are found again only by an engine with the same settings.
    fn with(limits: WasmLimits) -> Self {
        let runtime = Runtime::new(limits, &target_directory().join("guests-compiled")).unwrap();
        let filters = |filters: &[&str]| filters.iter().map(|filter| TopicFilter::parse(filter).unwrap()).collect();
        let context = InstanceContext {
            publish_grants: filters(&["out/#"]),
            subscribe_grants: filters(&["in/+/deep/#", "in/#"]),
            ..InstanceContext::without_grants(PluginName("test".into()))
        };
        Self { runtime, lines: Arc::default(), measured: Arc::default(), context }
    }

    fn compile(&self, name: &str) -> Result<Compiled, ComponentError> {
        let bytes = guest(name);
        self.runtime.compile(&Sha256::digest(&bytes).into(), &bytes)
    }

    fn context(&self) -> InstanceContext {
        let (lines, measured) = (Arc::clone(&self.lines), Arc::clone(&self.measured));
        InstanceContext {
            log: Arc::new(move |line| lines.lock().unwrap().push(line)),
            measure: Arc::new(move |measurement| measured.lock().unwrap().push(measurement)),
            ..self.context.clone()
        }
    }

    /// An instance on which `init` was called.
    fn start(&self, name: &str) -> Instance {
        let mut instance = self.runtime.instantiate(&self.compile(name).unwrap(), self.context()).unwrap();
        instance.init().unwrap();
        instance
    }

    fn messages(&self) -> Vec<String> {
        self.lines.lock().unwrap().iter().map(|line| line.message.clone()).collect()
    }
}

/// The limits of most tests: a small pool, and time enough for a busy machine.
fn small() -> WasmLimits {
    WasmLimits { instances: Some(4), call_deadline_ms: 20_000, ..WasmLimits::default() }
}

fn event(sequence: u64, topic: &str, payload: &str) -> InboxEvent {
    let message = Message {
        topic: Topic::parse(topic).unwrap(),
        payload: payload.as_bytes().into(),
        qos: Qos::AtLeastOnce,
        retain: false,
        properties: None,
        expires_at: None,
        received_at: Timestamp(1_000 + sequence),
        publisher: "sensor-1".into(),
        user: None,
    };
    let (qos, message) = (Qos::AtLeastOnce, Arc::new(message));
    InboxEvent { sequence: Sequence(sequence), message, qos, retain: false, attempt: 0, replayed: false }
}

/// Hands each script to a guest as one batch; the guest has already shown that it marks its events.
fn obey(instance: &mut Instance, state: &[(&str, &str)], scripts: &[&str]) -> Result<Vec<Handled>, CallError> {
    if !instance.takes_batches() {
        instance.handle(Timestamp(0), MapState::default(), &[event(1, "in/first", "")])?;
    }
    let events: Vec<_> = (10..).zip(scripts).map(|(sequence, script)| event(sequence, "in/a", script)).collect();
    instance.handle(Timestamp(77), MapState::of(state), &events)
}

/// What a guest published, as `TOPIC PAYLOAD`.
fn published(handled: &Handled) -> Vec<String> {
    let text = |message: &Message| format!("{} {}", message.topic, String::from_utf8_lossy(&message.payload));
    handled.publishes.iter().map(text).collect()
}

/// What a guest wrote, as `KEY=VALUE`, or `KEY` where it deleted.
fn written(handled: &Handled) -> Vec<String> {
    let show = |write: &vespiary_core::event::StateWrite| match &write.value {
        Some(value) => format!("{}={}", write.key, String::from_utf8_lossy(value)),
        None => write.key.to_string(),
    };
    handled.writes.iter().map(show).collect()
}
