//! Who is compared: a broker, a service, and what the two promise together.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::args::{Args, ensure_program};
use crate::process::{Process, free_address};

/// A broker with the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Subject {
    /// The service is a plugin of Vespiary
    Vespiary,
    /// Mosquitto; rumqttc, redb, group commit
    Mosquitto,
    /// Mosquitto; a client by hand, redb, group commit
    MosquittoTuned,
    /// rumqttd; a client by hand, redb, group commit
    Rumqttd,
    /// Mosquitto; Python, paho-mqtt, SQLite, a commit for what has come
    PythonBatch,
    /// Mosquitto; Python, paho-mqtt, SQLite, a commit for each event
    PythonEach,
}

/// What runs of a subject.
pub(crate) struct Running {
    /// Where the broker listens.
    pub(crate) address: SocketAddr,
    /// The service beside the broker, if there is one. Stopped before the broker.
    pub(crate) service: Option<Process>,
    /// The broker.
    pub(crate) broker: Process,
}

impl Running {
    /// That nothing of it has ended.
    pub(crate) fn ensure_alive(&mut self) -> anyhow::Result<()> {
        self.broker.ensure_alive()?;
        self.service.as_mut().map_or(Ok(()), Process::ensure_alive)
    }
}

impl Subject {
    /// All, in the order of tables.
    pub(crate) const ALL: [Self; 6] =
        [Self::Vespiary, Self::Mosquitto, Self::MosquittoTuned, Self::Rumqttd, Self::PythonBatch, Self::PythonEach];

    /// Its name on the command line and in results.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Vespiary => "vespiary",
            Self::Mosquitto => "mosquitto",
            Self::MosquittoTuned => "mosquitto-tuned",
            Self::Rumqttd => "rumqttd",
            Self::PythonBatch => "python-batch",
            Self::PythonEach => "python-each",
        }
    }

    /// What it is made of.
    pub(crate) fn made_of(self) -> &'static str {
        match self {
            Self::Vespiary => "plugin in Vespiary",
            Self::Mosquitto => "Mosquitto + rumqttc, redb, group commit",
            Self::MosquittoTuned => "Mosquitto + client by hand, redb, group commit",
            Self::Rumqttd => "rumqttd + client by hand, redb, group commit",
            Self::PythonBatch => "Mosquitto + Python, SQLite, group commit",
            Self::PythonEach => "Mosquitto + Python, SQLite, commit per event",
        }
    }

    /// What survives what.
    pub(crate) fn promises(self) -> &'static str {
        match self {
            Self::Vespiary => {
                "PUBACK of an event means that it is on disk; state, alert and the event's end are one transaction: nothing is \
                 lost or counted twice by a crash"
            }
            Self::Mosquitto | Self::MosquittoTuned | Self::PythonBatch | Self::PythonEach => {
                "PUBACK of an event means the broker's memory: a crash of the broker loses events and alerts under way; state \
                 is on disk before the service acknowledges; a crash of the service loses nothing, and may count events and \
                 send alerts twice"
            }
            Self::Rumqttd => "the same as with Mosquitto: the broker keeps messages in memory",
        }
    }

    /// That its programs are there.
    pub(crate) fn ensure_there(self, args: &Args) -> anyhow::Result<()> {
        let build = "tests/comparator/run builds it";
        let mosquitto = || ensure_program(&args.mosquitto, "Debian's package `mosquitto` has it");
        match self {
            Self::Vespiary => {
                ensure_program(&args.vespiary(), build)?;
                ensure_program(&args.generator(), build)?;
                ensure!(args.plugin().is_file(), "{} is not there: {build}", args.plugin().display());
                Ok(())
            }
            Self::Mosquitto | Self::MosquittoTuned => {
                mosquitto()?;
                ensure_program(&args.external_service(), build)
            }
            Self::Rumqttd => {
                ensure_program(&args.rumqttd, "`cargo install rumqttd --version 0.20.0` has it")?;
                ensure_program(&args.external_service(), build)
            }
            Self::PythonBatch | Self::PythonEach => {
                mosquitto()?;
                args.prepare_python()
            }
        }
    }

    /// Starts broker and service, with their data in `directory`.
    pub(crate) fn start(self, args: &Args, directory: &Path) -> anyhow::Result<Running> {
        let (broker, address) = match self {
            Self::Vespiary => return start_vespiary(args, directory),
            Self::Mosquitto | Self::MosquittoTuned | Self::PythonBatch | Self::PythonEach => {
                start_mosquitto(args, directory)?
            }
            Self::Rumqttd => start_rumqttd(args, directory)?,
        };
        let mut service = match self {
            Self::PythonBatch | Self::PythonEach => {
                let mut command = Command::new(args.python());
                command.arg(Args::python_service()).arg("--commit");
                command.arg(if self == Self::PythonEach { "each" } else { "batch" });
                command
            }
            Self::Vespiary | Self::Mosquitto | Self::MosquittoTuned | Self::Rumqttd => {
                let mut command = Command::new(args.external_service());
                command.arg("--client").arg(if self == Self::Mosquitto { "group" } else { "tuned" });
                command
            }
        };
        service.arg("--broker").arg(address.to_string()).arg("--data").arg(directory.join("records"));
        let mut service = Process::start("service", &mut service, directory)?;
        service.wait_for_line("ready")?;
        Ok(Running { address, service: Some(service), broker })
    }
}

fn start_vespiary(args: &Args, directory: &Path) -> anyhow::Result<Running> {
    let mut command = Command::new(args.vespiary());
    command.args(["serve", "--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data"]).arg(directory.join("data"));
    let mut broker = Process::start("broker", &mut command, directory)?;
    let ready = broker.wait_for_line("vespiary ready ")?;
    let address = |name: &str| -> anyhow::Result<SocketAddr> {
        let field = ready.split(' ').find_map(|field| field.strip_prefix(name));
        field.with_context(|| format!("no {name} in {ready:?}"))?.parse().context("an address")
    };
    let deployed = Command::new(args.vespiary())
        .args(["deploy", "--http", &address("http=")?.to_string()])
        .arg(args.plugin())
        .output()
        .context("cannot deploy")?;
    ensure!(deployed.status.success(), "cannot deploy: {}", String::from_utf8_lossy(&deployed.stderr).trim());
    Ok(Running { address: address("mqtt=")?, service: None, broker })
}

/// Mosquitto with nothing in its way: no bound on messages under way, packets sent at once, nothing on disk.
fn start_mosquitto(args: &Args, directory: &Path) -> anyhow::Result<(Process, SocketAddr)> {
    let address = free_address()?;
    let file = directory.join("mosquitto.conf");
    let port = address.port();
    std::fs::write(
        &file,
        format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nlog_dest none\nset_tcp_nodelay true\n\
             max_inflight_messages 0\nmax_queued_messages 0\n"
        ),
    )?;
    let mut broker = Process::start("broker", Command::new(&args.mosquitto).arg("-c").arg(&file), directory)?;
    broker.wait_for_port(address)?;
    Ok((broker, address))
}

/// rumqttd with the largest windows that it works with.
fn start_rumqttd(args: &Args, directory: &Path) -> anyhow::Result<(Process, SocketAddr)> {
    let address = free_address()?;
    let file = directory.join("rumqttd.toml");
    std::fs::write(
        &file,
        format!(
            r#"id = 0
[router]
id = 0
max_connections = 1000
max_outgoing_packet_count = 200
max_segment_size = 104857600
max_segment_count = 10
[v4.1]
name = "v4-1"
listen = "{address}"
next_connection_delay_ms = 0
    [v4.1.connections]
    connection_timeout_ms = 60000
    max_payload_size = 1048576
    max_inflight_count = 500
    dynamic_filters = true
"#
        ),
    )?;
    let mut command = Command::new(&args.rumqttd);
    command.arg("-c").arg(&file).arg("-q").current_dir(directory);
    let mut broker = Process::start("broker", &mut command, directory)?;
    broker.wait_for_port(address)?;
    Ok((broker, address))
}
