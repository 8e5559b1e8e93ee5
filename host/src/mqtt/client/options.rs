//! How a client connects, and its bounds. Plain data; what it means is done in `link`.

use std::time::Duration;

use vespiary_core::event::Protocol;

use super::Publish;

/// How to connect, and the bounds of the client.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// `HOST:PORT`.
    pub address: String,
    /// Which MQTT to speak.
    pub protocol: Protocol,
    /// Client identifier.
    pub client_id: String,
    /// Begin a new session at the first connect. In 3.1.1 this is Clean Session, so the session also ends with the
    /// connection.
    pub clean_start: bool,
    /// Seconds that the session outlives the connection; `u32::MAX` for ever (5.0).
    pub session_expiry_s: u32,
    /// Seconds of silence after which the client pings; 0 for never.
    pub keep_alive_s: u16,
    /// User name.
    pub username: Option<String>,
    /// Password.
    pub password: Option<Vec<u8>>,
    /// What the broker publishes when the connection is lost.
    pub will: Option<Will>,
    /// User properties of CONNECT (5.0).
    pub user_properties: Vec<(Box<str>, Box<str>)>,
    /// QoS 1 and 2 publishes that may be unacknowledged at one time; the broker's Receive Maximum lowers it (5.0). A
    /// 3.1.1 broker cannot say what it takes, and Mosquitto silently drops QoS 2 publishes beyond its default of 20.
    pub window: u16,
    /// QoS 1 and 2 messages that the broker may have unacknowledged towards us: our Receive Maximum (5.0).
    pub receive_maximum: u16,
    /// Largest packet taken from the broker, in bytes.
    pub maximum_packet_bytes: u32,
    /// Bytes of messages received and not yet taken with [`Client::receive`](super::Client::receive); at the bound the socket is not read.
    pub unread_bytes: u32,
    /// Messages are acknowledged by [`Publisher::acknowledge`](super::Publisher::acknowledge) instead of when they are put up for [`Client::receive`](super::Client::receive).
    pub manual_acknowledge: bool,
    /// Time for connecting, with CONNACK.
    pub connect_timeout: Duration,
    /// Connect again by itself when the connection is lost.
    pub reconnect: Option<Backoff>,
}

/// How long to wait between attempts to connect: doubles from `first` to `longest`, each time with up to a half of it
/// taken off at random, so that many clients do not come back at once.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    /// Before the second attempt; the first is made at once.
    pub first: Duration,
    /// At most.
    pub longest: Duration,
    /// Attempts in a row after which the client gives up.
    pub attempts: u32,
}

/// A will.
#[derive(Debug, Clone)]
pub struct Will {
    /// What is published.
    pub publish: Publish,
    /// Seconds between the loss of the connection and publication (5.0).
    pub delay_s: u32,
}

impl ConnectOptions {
    /// MQTT 5.0, a clean session that ends with the connection, a random identifier.
    pub fn new(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            protocol: Protocol::V5,
            client_id: format!("vespiary-{:08x}", fastrand::u32(..)),
            clean_start: true,
            session_expiry_s: 0,
            keep_alive_s: 60,
            username: None,
            password: None,
            will: None,
            user_properties: Vec::new(),
            window: 20,
            receive_maximum: 1024,
            maximum_packet_bytes: 16 << 20,
            unread_bytes: 16 << 20,
            manual_acknowledge: false,
            connect_timeout: Duration::from_secs(10),
            reconnect: None,
        }
    }

    /// With this client identifier.
    pub fn client_id(mut self, client_id: impl Into<String>) -> Self {
        self.client_id = client_id.into();
        self
    }

    /// With this protocol.
    pub fn protocol(mut self, protocol: Protocol) -> Self {
        self.protocol = protocol;
        self
    }

    /// With a session that is resumed if there is one, and outlives the connection by so many seconds (3.1.1: for as
    /// long as the broker likes).
    pub fn durable(mut self, session_expiry_s: u32) -> Self {
        self.clean_start = false;
        self.session_expiry_s = session_expiry_s;
        self
    }

    /// Whether the broker keeps the session when the connection is lost.
    pub fn is_durable(&self) -> bool {
        match self.protocol {
            Protocol::V3 => !self.clean_start,
            Protocol::V5 => self.session_expiry_s > 0,
        }
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_millis(100), longest: Duration::from_secs(5), attempts: u32::MAX }
    }
}
