//! The component in the real sandbox, in place of the plugin that is linked into the test.
//!
//! `vespiary test --wasm` names a component and the program that runs it; calls go there as lines of JSON, with everything that
//! they may see, and what they did becomes the open transaction of the [`World`], which is committed or not as ever. Other
//! versions of the plugin are called natively.

mod questions;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::world::World;
use crate::event::{Event, Property, Qos, Timestamp};
use crate::http::{Incoming, Response};
use crate::log::Level;
use crate::message::Message;
use crate::migration::Entry;
use crate::plugin::{Outcome, Plugin};

pub(super) use self::questions::{
    auth_step, authenticate, authorize, intercept_deliver, intercept_publish, intercept_subscribe,
};

/// Names the component.
const COMPONENT_VARIABLE: &str = "VESPIARY_TEST_COMPONENT";

/// Names the program that runs it.
const HOST_VARIABLE: &str = "VESPIARY_TEST_HOST";

/// Names of timers that stand for requests begin with this.
const REQUEST_TIMER: &str = "$request/";

/// A running `vespiary test-host`.
struct Process {
    /// The manifest of its component.
    manifest: String,
    /// The process; ends when its input does.
    _child: Child,
    /// Where calls go.
    input: ChildStdin,
    /// Where reports come from.
    output: BufReader<ChildStdout>,
}

/// Keys and values.
type WireEntries = Vec<(String, Vec<u8>)>;

/// What a call did. Mirrors `vespiary test-host`.
#[derive(Deserialize)]
struct Report {
    /// What became of the event.
    outcome: Option<WireOutcome>,
    /// What a hook answered.
    answer: Option<questions::Answer>,
    /// What a migration gave, for each entry.
    migrated: Option<Vec<WireEntries>>,
    /// What a route answered.
    response: Option<WireResponse>,
    /// Why the call failed.
    failed: Option<String>,
    /// Messages.
    publishes: Vec<WireMessage>,
    /// Keys, values and when they are gone.
    writes: Vec<(String, Option<Vec<u8>>, Option<u64>)>,
    /// Timers by their names; none to cancel.
    timers: Vec<(String, Option<WireTimer>)>,
    /// Clients.
    disconnects: Vec<String>,
    /// How often something was refused for want of a grant.
    denied: u32,
    /// Levels and lines.
    logs: Vec<(String, String)>,
}

/// What became of an event.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum WireOutcome {
    /// Handled.
    Done,
    /// To come again: the reason, and after how many milliseconds.
    Retry(String, Option<u64>),
    /// Given up, with the reason.
    Reject(String),
}

/// A timer.
#[derive(Deserialize)]
struct WireTimer {
    /// When it falls due.
    at: u64,
    /// The payload of its event.
    payload: Vec<u8>,
    /// Its schedule.
    cron: Option<String>,
}

/// A response.
#[derive(Deserialize)]
struct WireResponse {
    /// The status.
    status: u16,
    /// Names and values.
    headers: Vec<(String, String)>,
    /// The body.
    body: Vec<u8>,
}

/// A message.
#[derive(Deserialize)]
struct WireMessage {
    /// The topic.
    topic: String,
    /// The payload.
    payload: Vec<u8>,
    /// The QoS.
    qos: u8,
    /// The RETAIN flag.
    retain: bool,
    /// Names and values, as the contract has them.
    properties: Vec<(String, String)>,
}

/// Whether calls to a plugin go to a component.
pub(super) fn stands_for(plugin: Plugin) -> bool {
    process()
        .is_some_and(|process| process.lock().unwrap_or_else(PoisonError::into_inner).manifest == plugin.manifest())
}

/// `lifecycle.init`.
pub(super) fn init(world: &World) -> Result<(), String> {
    call(world, json!("init")).map(drop)
}

/// `lifecycle.health`.
pub(super) fn health(world: &World) -> Result<(), String> {
    call(world, json!("health")).map(drop)
}

/// `handler.handle`; the error is a trap.
pub(super) fn handle(world: &World, event: &Event) -> Result<Outcome, String> {
    let qos = wire_qos(event.qos);
    let message = json!({
        "topic": event.topic, "payload": event.payload, "qos": qos, "retain": event.retained,
        "properties": pairs(&event.properties),
    });
    let report = call(
        world,
        json!({ "handle": {
            "id": event.id, "message": message, "publisher": event.publisher, "user": event.user,
            "received_at": event.received_at, "attempt": event.attempt,
        } }),
    )?;
    Ok(match report.outcome {
        Some(WireOutcome::Done) => Outcome::Done,
        Some(WireOutcome::Retry(reason, after_ms)) => {
            Outcome::Retry { reason, after: after_ms.map(Duration::from_millis) }
        }
        Some(WireOutcome::Reject(reason)) => Outcome::Reject(reason),
        None => return Err("the component gave no outcome".into()),
    })
}

/// `migration.migrate`.
pub(super) fn migrate(world: &World, from: u32, entries: Vec<Entry>) -> Result<Vec<Vec<Entry>>, String> {
    let entries: Vec<(String, Vec<u8>)> = entries.into_iter().map(|entry| (entry.key, entry.value)).collect();
    let report = call(world, json!({ "migrate": { "from": from, "entries": entries } }))?;
    let migrated = report.migrated.ok_or("the component gave no entries")?;
    let entries =
        |entries: Vec<(String, Vec<u8>)>| entries.into_iter().map(|(key, value)| Entry { key, value }).collect();
    Ok(migrated.into_iter().map(entries).collect())
}

/// `wasi:http/incoming-handler`; the error is a trap.
pub(super) fn serve(world: &World, request: &Incoming) -> Result<Response, String> {
    let mut target = request.path.clone();
    if !request.query.is_empty() {
        target = format!("{target}?{}", request.query);
    }
    let Incoming { method, headers, body, .. } = request;
    let call_serve = json!({ "serve": { "method": method, "target": target, "headers": headers, "body": body } });
    let WireResponse { status, headers, body } = call(world, call_serve)?.response.ok_or("there is no response")?;
    Ok(Response { status, headers, body })
}

/// The process, if tests are to use one; it is started once.
fn process() -> Option<&'static Mutex<Process>> {
    static PROCESS: OnceLock<Option<Mutex<Process>>> = OnceLock::new();
    PROCESS
        .get_or_init(|| {
            let component = std::env::var_os(COMPONENT_VARIABLE)?;
            let program = std::env::var_os(HOST_VARIABLE).expect("the component is named, and who runs it");
            let mut child = Command::new(&program)
                .arg("test-host")
                .arg(&component)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
            let input = child.stdin.take().expect("it is piped");
            let mut output = BufReader::new(child.stdout.take().expect("it is piped"));
            let manifest = read(&mut output);
            Some(Mutex::new(Process { manifest, _child: child, input, output }))
        })
        .as_ref()
}

fn read<T: for<'line> Deserialize<'line>>(output: &mut BufReader<ChildStdout>) -> T {
    let mut line = String::new();
    output.read_line(&mut line).expect("the test host answers");
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("the test host said `{}`: {error}", line.trim()))
}

/// Makes a call; what it did becomes the open transaction. The error is why it failed.
fn call(world: &World, call: Value) -> Result<Report, String> {
    let request = {
        let inner = world.inner.borrow();
        let state: BTreeMap<&String, &Vec<u8>> = inner
            .state
            .iter()
            .filter(|(_, stored)| inner.is_there(stored))
            .map(|(key, stored)| (key, &stored.value))
            .collect();
        let retained: Vec<Value> = inner.retained.values().map(retained).collect();
        json!({
            "now": inner.now, "config": inner.config, "secrets": inner.secrets, "retained": retained, "state": state,
            "call": call,
        })
    };
    let mut report: Report = {
        let process = process().expect("calls go to a component");
        let process = &mut *process.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(process.input, "{request}").expect("the test host listens");
        read(&mut process.output)
    };
    for (level, line) in report.logs.drain(..) {
        log(world, &level, &line);
    }
    match report.failed.take() {
        Some(reason) => Err(reason),
        None => {
            apply(world, &mut report);
            Ok(report)
        }
    }
}

/// Takes what a call did into the open transaction.
fn apply(world: &World, report: &mut Report) {
    let inner = &mut *world.inner.borrow_mut();
    for _ in 0..report.denied {
        inner.denied.push("did something (its log says what)".into());
    }
    let now = inner.now;
    for (key, value, expires_at) in report.writes.drain(..) {
        let ttl_ms = expires_at.map(|at| at.saturating_sub(now.as_millis()));
        inner.open.writes.insert(key, value.map(|value| (value, ttl_ms)));
    }
    for message in report.publishes.drain(..) {
        let Message { topic, payload, qos, retain, properties } = message.into_message();
        inner.open.publishes.push(super::Published { topic, payload, qos, retain, properties, at: now });
    }
    for (name, timer) in report.timers.drain(..) {
        let at = timer.as_ref().map(|timer| Timestamp::from_millis(timer.at));
        let request = name.strip_prefix(REQUEST_TIMER).and_then(|id| id.parse::<u64>().ok());
        match (request, at) {
            (Some(id), Some(due)) => {
                let suffix = format!("/{id}");
                let is_its = |message: &&super::Published| {
                    message
                        .properties
                        .iter()
                        .any(|property| property.name == "response-topic" && property.value.ends_with(&suffix))
                };
                if let Some(message) = inner.open.publishes.iter().find(is_its).cloned() {
                    inner.open.requests.push((id, super::PendingRequest { id, message, due }));
                }
            }
            (Some(_) | None, _) => {
                let timer = timer.map(|timer| super::world::Timer {
                    at: Timestamp::from_millis(timer.at),
                    payload: timer.payload,
                    cron: timer.cron,
                });
                inner.open.timers.insert(name, timer);
            }
        }
    }
    inner.open.disconnects.append(&mut report.disconnects);
}

fn log(world: &World, level: &str, line: &str) {
    let name = world.inner.borrow().plugin.name();
    let line = line.strip_prefix(name).and_then(|line| line.strip_prefix(": ")).unwrap_or(line);
    let level = match level {
        "Trace" => Level::Trace,
        "Debug" => Level::Debug,
        "Info" => Level::Info,
        "Warn" => Level::Warn,
        "Error" => Level::Error,
        _ => Level::Critical,
    };
    super::world::log(level, line);
}

fn retained(message: &Message) -> Value {
    json!({
        "topic": message.topic, "payload": message.payload, "qos": 1, "retain": true,
        "properties": pairs(&message.properties),
    })
}

impl WireMessage {
    fn into_message(self) -> Message {
        let Self { topic, payload, qos, retain, properties } = self;
        let properties = properties.into_iter().map(|(name, value)| Property { name, value }).collect();
        Message { topic, payload, qos: qos_of(qos), retain, properties }
    }
}

fn qos_of(level: u8) -> Qos {
    match level {
        0 => Qos::AtMostOnce,
        1 => Qos::AtLeastOnce,
        _ => Qos::ExactlyOnce,
    }
}

fn wire_qos(qos: Qos) -> u8 {
    match qos {
        Qos::AtMostOnce => 0,
        Qos::AtLeastOnce => 1,
        Qos::ExactlyOnce => 2,
    }
}

fn pairs(properties: &[Property]) -> Vec<(&str, &str)> {
    properties.iter().map(|property| (property.name.as_str(), property.value.as_str())).collect()
}
