//! The plugin platform through the shipped binary: hooks, timers, requests, dead letters, services, lanes, canaries and limits.
//!
//! Real sockets, real components, real restarts. Most tests use one of two guests, `obeys` (which does what each event says) and
//! `decides` (which decides by what it is asked), under a manifest of the test's own.

mod canary;
mod clients;
mod dead_letters;
mod hooks;
mod hooks_failing;
mod lanes;
mod limits;
mod private_authority;
mod scram;
mod services;
mod timers;

use std::ffi::OsStr;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::client::Client;
use super::harness::{Broker, PATIENCE, binary, guest};

/// A directory of a test, with a broker in it that can be killed and come back.
struct Plant {
    directory: tempfile::TempDir,
    broker: Option<Broker>,
}

impl Plant {
    /// A broker with this configuration.
    fn start(config: &str) -> Result<Self> {
        let mut plant = Self { directory: tempfile::tempdir()?, broker: None };
        plant.restart(config)?;
        Ok(plant)
    }

    /// Kills the broker, if it runs, and starts one on the same data with this configuration.
    fn restart(&mut self, config: &str) -> Result<()> {
        self.kill()?;
        let file = self.directory.path().join("vespiary.toml");
        std::fs::write(&file, config)?;
        let data = self.directory.path().join("data");
        self.broker = Some(Broker::start_with(&data, &["--config", file.to_str().context("path")?])?);
        Ok(())
    }

    /// Kills the broker, if it runs.
    fn kill(&mut self) -> Result<()> {
        self.broker.take().map_or(Ok(()), Broker::kill)
    }

    fn broker(&self) -> &Broker {
        self.broker.as_ref().expect("it runs")
    }

    /// A guest under another manifest: `fields` follow form, name and version.
    fn made(&self, guest_name: &str, name: &str, version: &str, fields: &str) -> Result<PathBuf> {
        let manifest = self.directory.path().join("manifest.json");
        let component = self.directory.path().join(format!("{name}-{version}.wasm"));
        let comma = if fields.is_empty() { "" } else { "," };
        std::fs::write(&manifest, format!(r#"{{"manifest":1,"name":"{name}","version":"{version}"{comma}{fields}}}"#))?;
        let output = Command::new(binary())
            .args([OsStr::new("embed"), OsStr::new("--manifest"), manifest.as_os_str()])
            .args([guest(guest_name).as_os_str(), OsStr::new("--output"), component.as_os_str()])
            .output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(component)
    }

    /// Deploys a guest under another manifest.
    fn deploy(&self, guest_name: &str, name: &str, fields: &str) -> Result<()> {
        self.broker().deploy(&self.made(guest_name, name, "1.0.0", fields)?)?;
        Ok(())
    }
}

/// What `obeys` listens and publishes to.
const OBEYS: &str = r#""subscribes":[{"filter":"in/#","qos":1}],"publishes":["out/#"]"#;

/// A subscriber to `out/#` at QoS 1.
fn listener(broker: &Broker, name: &str) -> Result<Client> {
    let mut client = Client::connect(broker.mqtt, name, true)?;
    client.subscribe("out/#", 1)?;
    Ok(client)
}

/// Waits for the next message, which is of this topic; gives its payload.
fn heard(client: &mut Client, topic: &str) -> Result<String> {
    let (seen, payload) = client.receive_publish(PATIENCE)?.with_context(|| format!("nothing came on {topic}"))?;
    let text = String::from_utf8_lossy(&payload).into_owned();
    ensure!(seen == topic, "instead of {topic}: {seen}: {text}");
    Ok(text)
}

/// Nothing comes for a moment.
fn silence(client: &mut Client) -> Result<()> {
    let packet = client.receive(Duration::from_millis(300))?;
    ensure!(packet.is_none(), "{packet:?}");
    Ok(())
}

/// Sends an HTTP request; gives status and body of the answer.
fn request(at: SocketAddr, method_and_path: &str, headers: &str, body: &[u8]) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(at)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = body.len();
    write!(stream, "{method_and_path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n{headers}")?;
    write!(stream, "Content-Length: {length}\r\n\r\n")?;
    stream.write_all(body)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    Ok((head.split(' ').nth(1).context("no status")?.parse()?, body.to_owned()))
}

/// The value of a series at `/metrics`, if it is there.
fn metric(broker: &Broker, series: &str) -> Result<Option<f64>> {
    let (status, page) = request(broker.http, "GET /metrics", "", b"")?;
    ensure!(status == 200, "{status}");
    let value = page.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok());
    Ok(value)
}

/// Milliseconds since the Unix epoch.
fn wall_clock_ms() -> u64 {
    std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_millis() as u64)
}

/// A publish of QoS 1 from a client of its own, acknowledged.
fn publish(broker: &Broker, topic: &str, payload: &str) -> Result<()> {
    Client::connect(broker.mqtt, &format!("to-{topic}"), true)?.publish_acknowledged(topic, payload.as_bytes())
}

/// Compares a file's path with text, for command lines.
fn text(path: &Path) -> Result<&str> {
    path.to_str().context("path")
}

/// How long something took.
fn timed<T>(what: impl FnOnce() -> Result<T>) -> Result<(T, Duration)> {
    let began = Instant::now();
    Ok((what()?, began.elapsed()))
}
