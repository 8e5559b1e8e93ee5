//! The configuration file, read and understood once at start.
//!
//! A file is TOML; every key is optional, an unknown key is an error, and each error names file and line.
//! [`Config`] is what the rest of the program sees: no other module reads a file or a flag. What the values bound is
//! said where they are used; here stand the names, the defaults and what may not be combined.

mod authorities;
mod public_key;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use vespiary_core::{Limits, SharedStrategy, Topic, TopicFilter};

pub use self::authorities::Authorities;
pub use self::public_key::PublicKey;

/// Longest Server Reference, so that it fits what nearly every client takes.
const SERVER_REFERENCE_BYTES: usize = 1024;

/// Everything `vespiary serve` can be told.
#[derive(Debug, Clone, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Directory of everything that survives a restart.
    pub data: DataDirectory,
    /// The MQTT listener.
    pub mqtt: Mqtt,
    /// The admin API.
    pub http: Http,
    /// Storage.
    pub store: Store,
    /// Bounds of the broker.
    pub limits: BrokerLimits,
    /// The sandbox and who may do what in it.
    pub plugins: Plugins,
    /// Settings of single plugins, by plugin name.
    pub plugin: BTreeMap<String, Plugin>,
}

/// A path with the default `./vespiary-data`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(transparent)]
pub struct DataDirectory(pub PathBuf);

/// `[mqtt]`
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Mqtt {
    /// Address and port; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Threads that own connections; 0 chooses by the machine: 1 on up to 2 cores.
    pub workers: usize,
    /// Largest packet taken from a client, in bytes with its header.
    pub packet_bytes: usize,
    /// Seconds a new connection may take to send its CONNECT.
    pub connect_timeout_s: u16,
    /// Longest keep-alive in seconds; a 5.0 client that asks for more, or for none, is told this one. 0: no bound.
    pub keep_alive_maximum_s: u16,
    /// Seconds after which a connection is cut whose client takes nothing of what waits for it.
    pub stalled_timeout_s: u16,
    /// Topic aliases used towards one 5.0 client that takes some, at most; 0: none.
    pub topic_aliases: u16,
    /// How the member of a shared subscription's group is chosen that gets the next message.
    pub shared_subscriptions: SharedSelection,
    /// Topic filters that no client may subscribe to, nor to anything that they cover.
    pub denied_subscriptions: Vec<Filter>,
    /// Where a 5.0 client is sent when the broker is full or stops.
    pub server_reference: Option<ServerReference>,
    /// Topic below which a 5.0 client that asks is told to make its response topics.
    pub response_information: Option<ResponseInformation>,
    /// Whether a client may connect for which no plugin vouches. Has to be said where other machines can reach the address;
    /// elsewhere it may, unless this says no.
    pub allow_anonymous: Option<bool>,
}

/// `[http]`
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// Address and port of the admin API; loopback only, since it has no authentication.
    pub listen: SocketAddr,
    /// Address and port of a second listener, which serves nothing but the plugins' own HTTP under `/services/`; it may be
    /// one that other machines can reach.
    pub services_listen: Option<SocketAddr>,
}

/// `[store]`
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Store {
    /// Bytes of the database's page cache.
    pub cache_bytes: usize,
}

/// `[limits]`: the bounds of the core under their names there; see [`Limits`].
#[derive(Debug, Clone, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct BrokerLimits {
    /// See [`Limits::connections`].
    pub connections: Option<usize>,
    /// See [`Limits::sessions`].
    pub sessions: Option<usize>,
    /// See [`Limits::subscriptions_per_session`].
    pub subscriptions_per_session: Option<usize>,
    /// See [`Limits::queued_messages`].
    pub queued_messages: Option<usize>,
    /// See [`Limits::queued_bytes`].
    pub queued_bytes: Option<usize>,
    /// See [`Limits::window_messages`].
    pub window_messages: Option<usize>,
    /// See [`Limits::window_bytes`].
    pub window_bytes: Option<usize>,
    /// See [`Limits::buffered_messages`].
    pub buffered_messages: Option<usize>,
    /// See [`Limits::buffered_bytes`].
    pub buffered_bytes: Option<usize>,
    /// See [`Limits::inflight_messages`].
    pub inflight_messages: Option<u16>,
    /// See [`Limits::receive_maximum`].
    pub receive_maximum: Option<u16>,
    /// See [`Limits::unwritten_bytes`].
    pub unwritten_bytes: Option<usize>,
    /// See [`Limits::retained_messages`].
    pub retained_messages: Option<usize>,
    /// See [`Limits::retained_bytes`].
    pub retained_bytes: Option<usize>,
    /// See [`Limits::session_expiry_s`].
    pub session_expiry_s: Option<u32>,
    /// See [`Limits::plugins`].
    pub plugins: Option<usize>,
    /// See [`Limits::inbox_events`].
    pub inbox_events: Option<usize>,
    /// See [`Limits::inbox_bytes`].
    pub inbox_bytes: Option<usize>,
    /// See [`Limits::batch_bytes`].
    pub batch_bytes: Option<usize>,
    /// See [`Limits::dead_letters`].
    pub dead_letters: Option<usize>,
}

/// `[plugins]`
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Plugins {
    /// Whether a plugin gets what its manifest requests, or what `[plugin.NAME]` lists; decided by the MQTT address
    /// where nothing is said.
    pub grants: Option<GrantPolicy>,
    /// Threads that run guest calls; 0 chooses by the machine.
    pub threads: usize,
    /// Events handed to a plugin in one call, at most.
    pub batch_events: usize,
    /// Times an event is handed out before it becomes a dead letter.
    pub attempts: u32,
    /// Failures in a row, without one success, that pause a plugin.
    pub breaker_failures: u32,
    /// Milliseconds that a swap waits for the call that is under way before it is interrupted.
    pub quiesce_ms: u64,
    /// Largest component in bytes.
    pub component_bytes: usize,
    /// Memory of one instance in bytes.
    pub memory_bytes: usize,
    /// Milliseconds of computing that one call may take.
    pub call_deadline_ms: u64,
    /// Messages that one call may publish.
    pub publishes_per_call: usize,
    /// Bytes of topics and payloads that one call may publish.
    pub publish_bytes_per_call: usize,
    /// Bytes of keys and values that one call may write.
    pub write_bytes_per_call: usize,
    /// Log lines a second; more are dropped and counted.
    pub log_lines_per_s: u32,
    /// Keys of which one must have signed a component; without any, none has to.
    pub signed_by: Vec<PublicKey>,
    /// Series of measurements that one plugin may have; further ones are dropped and counted.
    pub metric_series: usize,
    /// Milliseconds that one call may take of a plugin that is granted HTTP hosts, waiting for them included.
    pub http_call_deadline_ms: u64,
    /// Bytes of the body of an HTTP request or response, to a plugin or from it.
    pub http_body_bytes: usize,
    /// Requests to one plugin's HTTP service at the same time; more are refused.
    pub http_requests: usize,
    /// File in PEM with certificate authorities that plugins' requests trust beside the public ones; read at start.
    pub http_ca_file: Option<PathBuf>,
    /// Bytes of keys and values that a plugin's state may hold.
    pub state_bytes: u64,
    /// Events after which a new revision's probation is over; 0 for no probation.
    pub probation_events: u32,
    /// Seconds after which it is over; 0 for no probation.
    pub probation_s: u32,
    /// Failures of events during a probation that roll it back; by rule where nothing is said.
    pub probation_failures: Option<u32>,
    /// Events of each plugin that are remembered for dry runs; 0 for none.
    pub dry_run_events: usize,
    /// Bytes of these events, for each plugin.
    pub dry_run_bytes: usize,
}

/// How the member of a shared subscription's group is chosen that gets the next message.
#[derive(Debug, Clone, Copy, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum SharedSelection {
    /// See [`SharedStrategy::RoundRobin`].
    #[default]
    RoundRobin,
    /// See [`SharedStrategy::Sticky`].
    Sticky,
    /// See [`SharedStrategy::Random`].
    Random,
    /// See [`SharedStrategy::LeastInFlight`].
    LeastInFlight,
}

impl From<SharedSelection> for SharedStrategy {
    fn from(selection: SharedSelection) -> Self {
        match selection {
            SharedSelection::RoundRobin => Self::RoundRobin,
            SharedSelection::Sticky => Self::Sticky,
            SharedSelection::Random => Self::Random,
            SharedSelection::LeastInFlight => Self::LeastInFlight,
        }
    }
}

/// Who decides what a plugin may do.
#[derive(Debug, Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum GrantPolicy {
    /// The manifest: everything that it requests is granted. Only while clients come from this machine alone.
    AsRequested,
    /// The configuration: a request beyond `[plugin.NAME]` refuses the deploy.
    Explicit,
}

/// `[plugin.NAME]`
#[derive(Debug, Clone, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Plugin {
    /// Topic filters that the plugin may subscribe to, under the explicit policy.
    pub subscribes: Vec<Filter>,
    /// Topic filters that it may publish to, under the explicit policy.
    pub publishes: Vec<Filter>,
    /// Secrets that it may read, by name; under either policy.
    pub secrets: BTreeMap<String, SecretSource>,
    /// Hosts that it may call, under the explicit policy.
    pub http_hosts: Vec<String>,
    /// Whether these hosts may have addresses that are not of the public internet; under either policy.
    pub private_addresses: bool,
    /// Whether it may disconnect clients, under the explicit policy.
    pub disconnects: bool,
    /// Whether it may decide in the path of clients' packets, under the explicit policy.
    pub hooks: bool,
    /// Bytes of keys and values that its state may hold, where it is not `plugins.state_bytes`.
    pub state_bytes: Option<u64>,
    /// What the plugin reads through `wasi:config/store`.
    pub config: BTreeMap<String, String>,
}

/// Where the value of a secret is.
#[derive(Clone, Deserialize, PartialEq, Eq)]
#[serde(untagged)]
pub enum SecretSource {
    /// Here.
    Value(String),
    /// In a file, read when a revision is deployed or the broker starts; a line end at its end does not count.
    File {
        /// The file.
        file: PathBuf,
    },
}

/// A topic filter in a configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter(pub TopicFilter);

/// Other servers, as a Server Reference names them (MQTT 5.0 section 4.11): one or more, separated by a space, each a
/// name or an address, with or without `:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerReference(pub String);

/// Response Information (MQTT 5.0 section 3.2.2.3.15): a topic name to which clients append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseInformation(pub Topic);

/// Why a configuration cannot be used; one line that says what, where and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("{}:{line}:{column}: {message}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What is wrong.
        message: String,
    },
    /// The file of certificate authorities cannot be used.
    #[error("plugins.http_ca_file = \"{}\": {message}", path.display())]
    Authorities {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// Values that are each valid and may not stand together.
    #[error("{0}")]
    Contradiction(String),
}

impl Config {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_path_buf(), source })?;
        Self::parse(&text, path)
    }

    /// Understands the text of a file; `path` is for messages only.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| {
            let (line, column) = position(text, error.span().map_or(0, |span| span.start));
            let message = error.message().lines().collect::<Vec<_>>().join(" ");
            ConfigError::Invalid { path: path.to_path_buf(), line, column, message }
        })
    }

    /// Checks what single values cannot tell: that nothing is opened to other machines by accident.
    pub fn check(&self) -> Result<(), ConfigError> {
        let refuse = |message: String| Err(ConfigError::Contradiction(message));
        if !self.http.listen.ip().is_loopback() {
            return refuse(format!(
                "http.listen = \"{}\" is not a loopback address, and the admin API has no authentication: listen on \
                 127.0.0.1 or [::1] and put an authenticating proxy in front of it",
                self.http.listen
            ));
        }
        if !self.is_local() && self.mqtt.allow_anonymous.is_none() {
            return refuse(format!(
                "mqtt.listen = \"{}\" can be reached from other machines, and clients connect without credentials: \
                 listen on a loopback address, set mqtt.allow_anonymous = true, or set it to false and deploy a plugin \
                 that authenticates clients",
                self.mqtt.listen
            ));
        }
        if !self.is_local() && self.plugins.grants == Some(GrantPolicy::AsRequested) {
            return refuse(format!(
                "plugins.grants = \"as-requested\" is for loopback addresses only, and mqtt.listen is \"{}\": use \
                 \"explicit\" and list the grants under [plugin.NAME]",
                self.mqtt.listen
            ));
        }
        for (name, value) in [
            ("plugins.batch_events", self.plugins.batch_events),
            ("plugins.attempts", self.plugins.attempts as usize),
            ("plugins.breaker_failures", self.plugins.breaker_failures as usize),
            ("mqtt.connect_timeout_s", usize::from(self.mqtt.connect_timeout_s)),
            ("mqtt.stalled_timeout_s", usize::from(self.mqtt.stalled_timeout_s)),
            ("limits.receive_maximum", usize::from(self.limits.receive_maximum.unwrap_or(1))),
            ("limits.inflight_messages", usize::from(self.limits.inflight_messages.unwrap_or(1))),
        ] {
            if value == 0 {
                return refuse(format!("{name} = 0 would stop everything: use 1 or more"));
            }
        }
        Ok(())
    }

    /// Whether only this machine can reach the MQTT listener.
    pub fn is_local(&self) -> bool {
        self.mqtt.listen.ip().is_loopback()
    }

    /// The policy in force.
    pub fn grant_policy(&self) -> GrantPolicy {
        let default = if self.is_local() { GrantPolicy::AsRequested } else { GrantPolicy::Explicit };
        self.plugins.grants.unwrap_or(default)
    }
}

impl BrokerLimits {
    /// The core's limits: its defaults with what the file says.
    pub fn resolve(&self) -> Limits {
        let default = Limits::default();
        Limits {
            connections: self.connections.unwrap_or(default.connections),
            sessions: self.sessions.unwrap_or(default.sessions),
            subscriptions_per_session: self.subscriptions_per_session.unwrap_or(default.subscriptions_per_session),
            queued_messages: self.queued_messages.unwrap_or(default.queued_messages),
            queued_bytes: self.queued_bytes.unwrap_or(default.queued_bytes),
            window_messages: self.window_messages.unwrap_or(default.window_messages),
            window_bytes: self.window_bytes.unwrap_or(default.window_bytes),
            buffered_messages: self.buffered_messages.unwrap_or(default.buffered_messages),
            buffered_bytes: self.buffered_bytes.unwrap_or(default.buffered_bytes),
            inflight_messages: self.inflight_messages.unwrap_or(default.inflight_messages),
            receive_maximum: self.receive_maximum.unwrap_or(default.receive_maximum),
            unwritten_bytes: self.unwritten_bytes.unwrap_or(default.unwritten_bytes),
            retained_messages: self.retained_messages.unwrap_or(default.retained_messages),
            retained_bytes: self.retained_bytes.unwrap_or(default.retained_bytes),
            session_expiry_s: self.session_expiry_s.unwrap_or(default.session_expiry_s),
            plugins: self.plugins.unwrap_or(default.plugins),
            inbox_events: self.inbox_events.unwrap_or(default.inbox_events),
            inbox_bytes: self.inbox_bytes.unwrap_or(default.inbox_bytes),
            batch_bytes: self.batch_bytes.unwrap_or(default.batch_bytes),
            dead_letters: self.dead_letters.unwrap_or(default.dead_letters),
            ..default
        }
    }
}

impl Default for DataDirectory {
    fn default() -> Self {
        Self(PathBuf::from("vespiary-data"))
    }
}

impl Default for Mqtt {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 1883)),
            workers: 0,
            packet_bytes: 1 << 20,
            connect_timeout_s: 10,
            keep_alive_maximum_s: 0,
            stalled_timeout_s: 30,
            topic_aliases: 32,
            shared_subscriptions: SharedSelection::default(),
            denied_subscriptions: Vec::new(),
            server_reference: None,
            response_information: None,
            allow_anonymous: None,
        }
    }
}

impl Default for Http {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 8080)), services_listen: None }
    }
}

impl Default for Store {
    fn default() -> Self {
        Self { cache_bytes: 32 << 20 }
    }
}

impl Default for Plugins {
    fn default() -> Self {
        Self {
            grants: None,
            threads: 0,
            batch_events: 256,
            attempts: 5,
            breaker_failures: 10,
            quiesce_ms: 2_000,
            component_bytes: 16 << 20,
            memory_bytes: 64 << 20,
            call_deadline_ms: 1_000,
            publishes_per_call: 10_000,
            publish_bytes_per_call: 16 << 20,
            write_bytes_per_call: 16 << 20,
            log_lines_per_s: 100,
            signed_by: Vec::new(),
            metric_series: 1_000,
            http_call_deadline_ms: 30_000,
            http_body_bytes: 1 << 20,
            http_requests: 16,
            http_ca_file: None,
            state_bytes: 1 << 30,
            probation_events: 1_000,
            probation_s: 60,
            probation_failures: None,
            dry_run_events: 1_000,
            dry_run_bytes: 4 << 20,
        }
    }
}

impl SecretSource {
    /// The value.
    pub fn read(&self) -> std::io::Result<String> {
        match self {
            Self::Value(value) => Ok(value.clone()),
            Self::File { file } => {
                let text = std::fs::read_to_string(file)?;
                let line = text.strip_suffix('\n').unwrap_or(&text);
                Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
            }
        }
    }
}

impl fmt::Debug for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(_) => f.write_str("Value(..)"),
            Self::File { file } => f.debug_struct("File").field("file", file).finish(),
        }
    }
}

impl Filter {
    /// Whether every topic that `filter` matches is matched by this one too.
    pub fn covers(&self, filter: &TopicFilter) -> bool {
        // At the first level a wildcard does not reach topics that begin with `$` [MQTT-4.7.2-1].
        let reserved = filter.as_str().starts_with('$');
        let mut others = filter.levels();
        for (index, level) in self.0.levels().enumerate() {
            let hidden = index == 0 && reserved;
            match (level, others.next()) {
                ("#", _) => return !hidden,
                ("+", Some("#")) | (_, None) => return false,
                ("+", Some(_)) if !hidden => {}
                (level, Some(other)) if level == other => {}
                _ => return false,
            }
        }
        others.next().is_none()
    }
}

/// Whether a Server Reference may name a server so: a name or an address in brackets, with or without a port.
fn is_server(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let named = match host.strip_prefix('[') {
        Some(address) => address.strip_suffix(']').is_some_and(|address| address.parse::<Ipv6Addr>().is_ok()),
        None => !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)),
    };
    named && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

impl<'de> Deserialize<'de> for ServerReference {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.len() <= SERVER_REFERENCE_BYTES && text.split(' ').all(is_server) {
            return Ok(Self(text));
        }
        Err(serde::de::Error::custom(format!(
            "\"{text}\" does not name a server: write \"host:port\", several with one space between them, at most \
             {SERVER_REFERENCE_BYTES} bytes"
        )))
    }
}

impl<'de> Deserialize<'de> for ResponseInformation {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Topic::parse(&text).map(Self).map_err(|reason| {
            let text = format!("\"{text}\" is no topic name for clients to append to: {reason}");
            serde::de::Error::custom(text)
        })
    }
}

impl<'de> Deserialize<'de> for Filter {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        TopicFilter::parse(&text)
            .map(Filter)
            .map_err(|reason| serde::de::Error::custom(format!("\"{text}\" is not a topic filter: {reason}")))
    }
}

impl fmt::Display for GrantPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AsRequested => "as-requested",
            Self::Explicit => "explicit",
        })
    }
}

/// Line and column, from 1, of a byte offset.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = &text.as_bytes()[..offset.min(text.len())];
    let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
    let column = before.iter().rev().take_while(|&&byte| byte != b'\n').count() + 1;
    (line, column)
}

#[cfg(test)]
mod tests;
