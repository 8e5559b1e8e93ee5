//! `vespiary test-host COMPONENT`: runs calls into a component for the SDK's test host.
//!
//! The first line of the output is the component's manifest, as a JSON string. Then each line of the input is a call with
//! everything that it may see, and each line of the output what it did. An instance lives for one call, so that a test shows what
//! a plugin keeps in memory between calls. It reaches no server: a request over HTTP is denied.

mod questions;

use std::collections::BTreeMap;
use std::io::{BufRead as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use vespiary_core::event::{InboxEvent, Sequence, StateWrite, TimerWrite};
use vespiary_core::message::{Message, MessageProperties, Qos, Timestamp};
use vespiary_core::topic::Topic;

use self::questions::{Answer, Question};
use crate::plugins::manifest::Manifest;
use crate::wasm::{
    CallError, Compiled, EventResult, Instance, InstanceContext, Runtime, Secret, StateRead, StateUnavailable,
    WasmLimits,
};

/// Flags of `test-host`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct TestHostArgs {
    /// The component
    component: PathBuf,
}

/// A call, and what it may see.
#[derive(Deserialize)]
struct Request {
    /// The clock; milliseconds since the Unix epoch.
    now: u64,
    /// Configuration.
    config: BTreeMap<String, String>,
    /// Configured secrets.
    secrets: BTreeMap<String, String>,
    /// Retained messages.
    retained: Vec<WireMessage>,
    /// State.
    state: BTreeMap<String, Vec<u8>>,
    /// What is called.
    call: Call,
}

/// What is called.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Call {
    /// `lifecycle.init`, which every other call is preceded by too.
    Init,
    /// `lifecycle.health`.
    Health,
    /// `handler.handle`, with one event.
    Handle(Box<WireEvent>),
    /// One of the functions of `hooks`.
    Ask(Box<Question>),
    /// `migration.migrate`.
    Migrate {
        /// The state version of the entries.
        from: u32,
        /// Keys and values.
        entries: WireEntries,
    },
    /// `wasi:http/incoming-handler`.
    Serve {
        /// The method.
        method: String,
        /// Path and query.
        target: String,
        /// Names and values.
        headers: Vec<(String, String)>,
        /// The body.
        body: Vec<u8>,
    },
}

/// An event.
#[derive(Deserialize)]
struct WireEvent {
    /// Its identity.
    id: u64,
    /// The message.
    message: WireMessage,
    /// Client identifier of the publisher.
    publisher: String,
    /// User name of the publisher.
    user: Option<String>,
    /// When it was taken.
    received_at: u64,
    /// Times it was handed out before.
    attempt: u32,
}

/// A message.
#[derive(Serialize, Deserialize)]
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

/// Keys and values.
type WireEntries = Vec<(String, Vec<u8>)>;

/// What a call did.
#[derive(Serialize, Default)]
struct Report {
    /// What became of the event.
    outcome: Option<Outcome>,
    /// What a hook answered.
    answer: Option<Answer>,
    /// What a migration gave.
    migrated: Option<Vec<WireEntries>>,
    /// What a route answered.
    response: Option<WireResponse>,
    /// Why the call failed.
    failed: Option<String>,
    /// Messages.
    publishes: Vec<WireMessage>,
    /// Keys, values and when they are gone.
    writes: Vec<(String, Option<Vec<u8>>, Option<u64>)>,
    /// Names, and when timers fall due, their payload and their schedule.
    timers: Vec<(String, Option<WireTimer>)>,
    /// Clients.
    disconnects: Vec<String>,
    /// How often something was refused for want of a grant.
    denied: u32,
    /// Levels and lines.
    logs: Vec<(String, String)>,
}

/// What became of an event.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    /// Handled.
    Done,
    /// To come again.
    Retry(String, Option<u64>),
    /// Given up.
    Reject(String),
}

/// A timer.
#[derive(Serialize)]
struct WireTimer {
    /// When it falls due.
    at: u64,
    /// The payload of its event.
    payload: Vec<u8>,
    /// Its schedule.
    cron: Option<String>,
}

/// A response.
#[derive(Serialize)]
struct WireResponse {
    /// The status.
    status: u16,
    /// Names and values.
    headers: Vec<(String, String)>,
    /// The body.
    body: Vec<u8>,
}

/// Answers calls until the input ends.
pub(in crate::cli) fn run(args: &TestHostArgs) -> anyhow::Result<ExitCode> {
    let bytes = std::fs::read(&args.component).with_context(|| format!("cannot read {}", args.component.display()))?;
    let inspection = Runtime::inspect(&bytes)?;
    let text = inspection.manifest.unwrap_or_default();
    let manifest = Manifest::parse(&text)?;
    let runtime = Runtime::new(WasmLimits::default(), &args.component.with_extension("compiled"))?;
    let compiled = runtime.compile(&Sha256::digest(&bytes).into(), &bytes)?;
    let mut output = std::io::stdout().lock();
    writeln!(output, "{}", serde_json::to_string(&String::from_utf8_lossy(text.as_ref()))?)?;
    output.flush()?;
    for line in std::io::stdin().lock().lines() {
        let request: Request = serde_json::from_str(&line?).context("a call is not what this version understands")?;
        let report = answer(&runtime, &compiled, &manifest, request)?;
        writeln!(output, "{}", serde_json::to_string(&report)?)?;
        output.flush()?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Makes an instance, calls it once and tells what it did.
fn answer(runtime: &Runtime, compiled: &Compiled, manifest: &Manifest, request: Request) -> anyhow::Result<Report> {
    let logs = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&logs);
    let retained: BTreeMap<String, Arc<Message>> = request
        .retained
        .into_iter()
        .map(|message| Ok((message.topic.clone(), Arc::new(message.into_message(request.now)?))))
        .collect::<anyhow::Result<_>>()?;
    let secret = |name: &String| (name.clone(), request.secrets.get(name).map(|value| Secret::new(value.as_str())));
    let context = InstanceContext {
        publish_grants: manifest.publishes.clone().into(),
        subscribe_grants: manifest.subscribes.iter().map(|(filter, _)| filter.clone()).collect(),
        config: Arc::new(request.config),
        secrets: Arc::new(manifest.secrets.iter().map(secret).collect()),
        disconnects: manifest.disconnects,
        log: Arc::new(move |line| {
            let mut logs = sink.lock().unwrap_or_else(PoisonError::into_inner);
            logs.push((format!("{:?}", line.level), line.message));
        }),
        retained: Arc::new(move |topic| retained.get(topic.as_str()).cloned()),
        ..InstanceContext::without_grants(manifest.name.clone())
    };
    let mut report = Report::default();
    let called = runtime.instantiate(compiled, context).and_then(|mut instance| {
        instance.init()?;
        call(&mut instance, Timestamp(request.now), Entries(request.state), request.call, &mut report)
    });
    if let Err(error) = called {
        report.failed = Some(error.to_string());
    }
    report.logs = std::mem::take(&mut *logs.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(report)
}

fn call(
    instance: &mut Instance,
    now: Timestamp,
    state: Entries,
    call: Call,
    report: &mut Report,
) -> Result<(), CallError> {
    match call {
        Call::Init => {}
        Call::Health => instance.health()?,
        Call::Handle(event) => {
            let event = event.into_inbox_event().map_err(invalid)?;
            let handled = instance.handle(now, state, &[event])?.remove(0);
            report.outcome = Some(match handled.result {
                EventResult::Done => Outcome::Done,
                EventResult::Retry { reason, after_ms } => Outcome::Retry(reason, after_ms),
                EventResult::Reject(reason) => Outcome::Reject(reason),
                EventResult::Untouched => Outcome::Retry("the event was not touched".to_owned(), None),
            });
            report.take(handled.publishes, handled.writes, handled.timers, handled.disconnects, handled.denied);
        }
        Call::Ask(question) => report.answer = Some(questions::ask(instance, now, state, *question)?),
        Call::Migrate { from, entries } => report.migrated = Some(instance.migrate(from, &entries)?),
        Call::Serve { method, target, headers, body } => {
            let mut request = http::Request::builder().method(method.as_str()).uri(target);
            for (name, value) in headers {
                request = request.header(name, value);
            }
            let request = request.body(Bytes::from(body)).map_err(invalid)?;
            let served = instance.serve(now, state, request)?;
            let headers = served.response.headers().iter();
            let headers =
                headers.map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into()));
            report.response = Some(WireResponse {
                status: served.response.status().as_u16(),
                headers: headers.collect(),
                body: served.response.body().to_vec(),
            });
            // What fails is not committed, as in the broker.
            if !served.response.status().is_server_error() {
                report.take(served.publishes, served.writes, served.timers, served.disconnects, served.denied);
            }
        }
    }
    Ok(())
}

fn invalid(error: impl std::fmt::Display) -> CallError {
    CallError::Contract { reason: format!("the test's call is not valid: {error}") }
}

impl Report {
    fn take(
        &mut self,
        publishes: Vec<Message>,
        writes: Vec<StateWrite>,
        timers: Vec<TimerWrite>,
        disconnects: Vec<Arc<str>>,
        denied: u32,
    ) {
        self.publishes = publishes.iter().map(WireMessage::of).collect();
        let write = |write: StateWrite| {
            (write.key.to_string(), write.value.map(|value| value.to_vec()), write.expires_at.map(|at| at.0))
        };
        self.writes = writes.into_iter().map(write).collect();
        let timer = |write: TimerWrite| {
            let timer = write.timer.map(|timer| WireTimer {
                at: timer.at.0,
                payload: timer.payload.to_vec(),
                cron: timer.schedule.map(|schedule| schedule.to_string()),
            });
            (write.name.to_string(), timer)
        };
        self.timers = timers.into_iter().map(timer).collect();
        self.disconnects = disconnects.iter().map(ToString::to_string).collect();
        self.denied = denied;
    }
}

impl WireEvent {
    fn into_inbox_event(self) -> anyhow::Result<InboxEvent> {
        let qos = self.message.qos();
        let retain = self.message.retain;
        let mut message = self.message.into_message(self.received_at)?;
        message.publisher = self.publisher.into();
        message.user = self.user.map(Into::into);
        let message = Arc::new(message);
        Ok(InboxEvent { sequence: Sequence(self.id), message, qos, retain, attempt: self.attempt, replayed: false })
    }
}

impl WireMessage {
    fn qos(&self) -> Qos {
        Qos::from_u8(self.qos).unwrap_or(Qos::AtLeastOnce)
    }

    fn into_message(self, received_at: u64) -> anyhow::Result<Message> {
        let qos = self.qos();
        let mut properties = MessageProperties::default();
        for (name, value) in self.properties {
            match name.as_str() {
                "content-type" => properties.content_type = Some(value.into()),
                "payload-format" => properties.payload_is_utf8 = Some(value != "bytes"),
                "response-topic" => properties.response_topic = Some(Topic::parse(&value)?),
                "correlation-data" => properties.correlation_data = Some(STANDARD.decode(&value)?.into()),
                other => {
                    if let Some(name) = other.strip_prefix("user:") {
                        properties.user_properties.push((name.into(), value.into()));
                    }
                }
            }
        }
        Ok(Message {
            topic: Topic::parse(&self.topic)?,
            payload: self.payload.into(),
            qos,
            retain: self.retain,
            properties: Some(Box::new(properties)),
            expires_at: None,
            received_at: Timestamp(received_at),
            publisher: "".into(),
            user: None,
        })
    }

    fn of(message: &Message) -> Self {
        let mut properties = Vec::new();
        if let Some(from) = &message.properties {
            let text = |value: &str| value.to_owned();
            properties.extend(from.content_type.as_deref().map(|value| (text("content-type"), text(value))));
            let format = from.payload_is_utf8.map(|utf8| if utf8 { "utf-8" } else { "bytes" });
            properties.extend(format.map(|value| (text("payload-format"), text(value))));
            let response = from.response_topic.as_ref().map(|topic| (text("response-topic"), text(topic.as_str())));
            properties.extend(response);
            let correlation = from.correlation_data.as_deref().map(|data| STANDARD.encode(data));
            properties.extend(correlation.map(|value| (text("correlation-data"), value)));
            let pairs = from.user_properties.iter().map(|(name, value)| (format!("user:{name}"), text(value)));
            properties.extend(pairs);
        }
        Self {
            topic: message.topic.as_str().to_owned(),
            payload: message.payload.to_vec(),
            qos: message.qos as u8,
            retain: message.retain,
            properties,
        }
    }
}

/// State as a test has it.
struct Entries(BTreeMap<String, Vec<u8>>);

impl StateRead for Entries {
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StateUnavailable> {
        Ok(self.0.get(key).cloned())
    }

    fn scan(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Vec<u8>)>, StateUnavailable> {
        let entries =
            self.0.iter().filter(|(key, _)| key.starts_with(prefix) && after.is_none_or(|after| key.as_str() > after));
        Ok(entries.take(limit).map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn usage(&self) -> Result<u64, StateUnavailable> {
        Ok(self.0.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum())
    }
}
