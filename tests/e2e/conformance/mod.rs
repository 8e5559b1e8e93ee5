//! Conformance to MQTT 3.1.1 and 5.0 by statement: exact bytes to the shipped binary, exact packets back.
//!
//! `docs/conformance.md` says which test shows which statement; ids in comments are those of 5.0 unless `3.1.1` stands
//! before them. One broker serves all tests, so names of clients and topics are those of one test alone; a test that
//! needs a restart or a setting has a broker of its own. That nothing comes is shown by PINGRESP coming next.

pub(crate) mod packets;
mod peer;

mod authentication;
mod connect;
mod disconnect;
mod flow_control;
mod framing;
mod keep_alive;
mod properties;
mod publish;
mod qos;
mod reason_strings;
mod receive_maximum;
mod retained;
mod session;
mod shared_subscriptions;
mod subscribe;
mod topic_aliases;
mod topics;
mod unsubscribe;
mod will;

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use super::harness::Broker;

/// Both protocol levels: 3.1.1 and 5.0.
const LEVELS: [u8; 2] = [4, 5];

/// The broker that all tests share.
struct Shared {
    broker: Broker,
    /// Stops the broker when this process ends, however it ends: its standard input is then closed.
    _guard: Child,
}

/// Where the shared broker listens.
fn shared() -> SocketAddr {
    static SHARED: OnceLock<Shared> = OnceLock::new();
    SHARED.get_or_init(|| Shared::start().expect("the shared broker starts")).broker.mqtt
}

/// A client identifier that no other connection of these tests has.
fn unique(name: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{name}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

impl Shared {
    fn start() -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?.keep();
        let broker = Broker::start(&directory.join("data"))?;
        let guard = Command::new("sh")
            .args(["-c", r#"cat; kill -KILL "$1"; rm -rf "$2""#, "guard", &broker.pid().to_string()])
            .arg(&directory)
            .stdin(Stdio::piped())
            .spawn()?;
        Ok(Self { broker, _guard: guard })
    }
}
