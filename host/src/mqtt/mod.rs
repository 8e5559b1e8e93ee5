//! MQTT 3.1.1 and 5.0 over TCP.
//!
//! A packet comes in through [`frame`] (is it whole?), [`translate`] (what does it say, and may it?) and
//! [`connection`] (what belongs to the connection itself), and becomes an input of the [`worker`]'s next turn. An effect
//! goes out through the worker, [`encode`] and [`outgoing`]. This is the only folder that knows the codecs of
//! ntex-mqtt. What the core decides is not decided here: the connection owns framing, deadlines, topic aliases, packet
//! sizes and protocol violations, and nothing that outlives it.

mod frame;
mod translate;

mod aliases;
mod encode;
mod explain;
mod outgoing;
mod refusals;
mod slots;

pub mod authentication;

mod connection;
mod worker;

pub mod client;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{mpsc, watch};

use self::authentication::Methods;
use crate::config::Filter;
use crate::driver::Driver;
use crate::plugins::hooks::Hooks;

/// Bounds and wishes of the MQTT listener. `Default` is what `vespiary serve` uses without a configuration.
#[derive(Debug, Clone)]
pub struct MqttOptions {
    /// Largest packet that a client may send, in bytes with its header; announced to 5.0 clients. A larger one closes
    /// the connection with Packet too large (0x95).
    pub packet_bytes: usize,
    /// Largest first packet, before it is known who is there.
    pub connect_packet_bytes: usize,
    /// Milliseconds from accepting a socket to its CONNECT; then it is closed.
    pub connect_timeout_ms: u64,
    /// Sockets of one worker whose CONNECT has not come yet; one more is closed at once.
    pub connecting_sockets: usize,
    /// Longest keep-alive in seconds; a 5.0 client that asks for more, or for none, is told to use this. `None` for no
    /// bound.
    pub keep_alive_maximum_s: Option<u16>,
    /// Highest topic alias that a client may set.
    pub topic_alias_maximum: u16,
    /// Topic aliases used towards one client, at most; a client that takes fewer lowers it, one that takes none gets none.
    pub topic_aliases: u16,
    /// What nobody may subscribe to, nor to anything that one of these covers: refused with Not authorized (0x87).
    pub denied_subscriptions: Vec<Filter>,
    /// Other servers, named to 5.0 clients that are refused because the broker is full, and to all of them at a stop.
    pub server_reference: Option<Arc<str>>,
    /// Response Information for 5.0 clients that ask for it.
    pub response_information: Option<Arc<str>>,
    /// What 5.0 clients may authenticate by. A CONNECT that names another method is refused with Bad authentication method
    /// (0x8C); one that names none is not held to any.
    pub authentication_methods: Methods,
    /// What plugins decide about clients and their packets.
    pub hooks: Hooks,
    /// Whether a client may connect for which neither a method nor a hook vouches; else it is refused with Not authorized
    /// (0x87).
    pub anonymous: bool,
    /// Bytes that wait to be written to one client, acknowledgements included; beyond it the client does not read, and
    /// its connection is cut. Far above `Limits::unwritten_bytes`, at which its publishes stay in its queue.
    pub unwritten_bytes: usize,
    /// Milliseconds for which a client may take nothing of what waits to be written to it; then its connection is cut.
    pub stalled_timeout_ms: u64,
    /// Bytes that were handed to the store and are not durable yet; beyond it no socket is read until half of them are.
    pub store_backlog_bytes: usize,
    /// Milliseconds for which a connection that we close waits for its peer to read what was sent.
    pub linger_timeout_ms: u64,
    /// What is counted.
    pub counters: Arc<Counters>,
}

impl Default for MqttOptions {
    fn default() -> Self {
        Self {
            packet_bytes: 1 << 20,
            connect_packet_bytes: 64 << 10,
            connect_timeout_ms: 10_000,
            connecting_sockets: 10_000,
            keep_alive_maximum_s: None,
            topic_alias_maximum: 16,
            topic_aliases: 32,
            denied_subscriptions: Vec::new(),
            server_reference: None,
            response_information: None,
            authentication_methods: Methods::default(),
            hooks: Hooks::default(),
            anonymous: true,
            unwritten_bytes: 8 << 20,
            stalled_timeout_ms: 30_000,
            store_backlog_bytes: 64 << 20,
            linger_timeout_ms: 2_000,
            counters: Arc::default(),
        }
    }
}

/// What happened to connections since the process started.
#[derive(Debug, Default)]
pub struct Counters {
    /// Sockets accepted.
    pub accepted: Counter,
    /// Sockets closed at once because of a bound.
    pub turned_away: Counter,
    /// Connections closed because the client broke the protocol.
    pub protocol_errors: Counter,
    /// Connections closed because nothing came for 1.5 times the keep-alive, or no CONNECT in time.
    pub timeouts: Counter,
    /// Connections cut because the client did not read.
    pub slow_clients: Counter,
    /// Connections closed because what they waited for could not be made durable.
    pub storage_failures: Counter,
    /// Connections refused, or closed, because an authentication method or a hook said so, or nobody vouched for the client.
    pub failed_authentications: Counter,
    /// Publishes to topics that begin with `$`, dropped.
    pub denied_publishes: Counter,
    /// Publishes that a hook refused.
    pub denied_by_hooks: Counter,
    /// Publishes that a hook took and that go nowhere.
    pub dropped_by_hooks: Counter,
    /// Messages that a hook kept from a client.
    pub undelivered_by_hooks: Counter,
}

impl Counters {
    /// All of them, by name.
    pub fn list(&self) -> Vec<(&'static str, u64)> {
        let Self {
            accepted,
            turned_away,
            protocol_errors,
            timeouts,
            slow_clients,
            storage_failures,
            failed_authentications,
            denied_publishes,
            denied_by_hooks,
            dropped_by_hooks,
            undelivered_by_hooks,
        } = self;
        vec![
            ("accepted", accepted.value()),
            ("turned_away", turned_away.value()),
            ("protocol_errors", protocol_errors.value()),
            ("timeouts", timeouts.value()),
            ("slow_clients", slow_clients.value()),
            ("storage_failures", storage_failures.value()),
            ("failed_authentications", failed_authentications.value()),
            ("denied_publishes", denied_publishes.value()),
            ("denied_by_hooks", denied_by_hooks.value()),
            ("dropped_by_hooks", dropped_by_hooks.value()),
            ("undelivered_by_hooks", undelivered_by_hooks.value()),
        ]
    }
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// The number.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Why the listener stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A socket or a thread could not be set up.
    #[error("set up the MQTT listener: {0}")]
    SetUp(#[from] std::io::Error),
    /// The store failed: nothing more can be acknowledged.
    #[error("write to the store, so nothing more can be acknowledged: {0}")]
    StoreFailed(Arc<str>),
}

/// The number of workers that suits this machine. On two processors one is best: the store and the plugins have
/// threads of their own.
pub fn default_workers() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (processors / 2).clamp(1, 8)
}

/// Serves clients until `stop` is true or the store fails. Blocks: it starts the driver's workers, one thread each, and
/// joins them. When it stops, 5.0 clients are told Server shutting down (0x8B), or Use another server (0x9C) where there is
/// a Server Reference, and wills are published.
pub fn serve(
    driver: Arc<Driver>,
    listener: std::net::TcpListener,
    options: MqttOptions,
    stop: watch::Receiver<bool>,
) -> Result<(), ServeError> {
    listener.set_nonblocking(true)?;
    let options = Arc::new(options);
    let mut senders = Vec::new();
    let mut threads = Vec::new();
    for index in 1..driver.workers() {
        let (sender, receiver) = mpsc::channel(worker::HANDOVER_SOCKETS);
        senders.push(sender);
        let source = worker::Source::Handover(receiver);
        threads.push(start(index, &driver, &options, &stop, source)?);
    }
    threads.push(start(0, &driver, &options, &stop, worker::Source::Listener(listener, senders))?);
    let mut outcome = Ok(());
    for thread in threads {
        let ended = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        outcome = outcome.and(ended);
    }
    outcome
}

fn start(
    index: usize,
    driver: &Arc<Driver>,
    options: &Arc<MqttOptions>,
    stop: &watch::Receiver<bool>,
    source: worker::Source,
) -> Result<std::thread::JoinHandle<Result<(), ServeError>>, ServeError> {
    let (driver, options, stop) = (driver.clone(), options.clone(), stop.clone());
    let name = format!("mqtt-{index}");
    Ok(std::thread::Builder::new().name(name).spawn(move || worker::run(index, driver, options, stop, source))?)
}

#[cfg(test)]
mod tests;
