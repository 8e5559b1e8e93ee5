//! A broker that a benchmark starts and stops itself: this program as a process of its own, on free ports, with data in a
//! directory that is gone in the end. For what has to see a broker without plugins, or a start.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::process;
use super::remote::Remote;

/// How long a broker may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(300);

/// How often to look whether it has.
const STEP: Duration = Duration::from_millis(20);

/// How long a broker is left alone before its memory is read.
const REST: Duration = Duration::from_secs(1);

/// A broker of ours; killed if it is not stopped.
pub(super) struct Broker {
    child: Child,
    /// `HOST:PORT` for clients.
    pub(super) mqtt: String,
    /// Its admin API.
    pub(super) remote: Remote,
}

impl Broker {
    /// Starts it with this configuration and the data of this directory, and waits until it is ready.
    pub(super) fn start(directory: &Scratch, config: &str) -> anyhow::Result<Self> {
        let Scratch(directory) = directory;
        let file = directory.join("config.toml");
        std::fs::write(&file, config).with_context(|| format!("cannot write {}", file.display()))?;
        let mut command = Command::new(std::env::current_exe().context("where is this program?")?);
        command.args(["serve", "--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0", "--config"]).arg(file);
        command.arg("--data").arg(directory.join("data")).env("VESPIARY_LOG", "warn");
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot start a broker")?;
        let output = child.stdout.take().context("the broker's output")?;
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut broker = Self { child, mqtt: String::new(), remote: Remote::at(nowhere) };
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let address = |kind: &str| {
            let address = line.split_whitespace().find_map(|field| field.strip_prefix(kind));
            address.with_context(|| format!("the broker is not ready but says {line:?}"))
        };
        broker.mqtt = address("mqtt=")?.to_owned();
        broker.remote = Remote::at(address("http=")?.parse()?);
        Ok(broker)
    }

    /// Its process.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until so many plugins are there, and all of them run.
    pub(super) fn wait_until_running(&self, count: u32) -> anyhow::Result<()> {
        let begin = Instant::now();
        loop {
            let plugins = self.remote.list()?;
            ensure!(plugins.len() == count as usize, "{} plugins are there instead of {count}", plugins.len());
            let missing = plugins.iter().filter(|plugin| plugin.status != "running").count();
            if missing == 0 {
                return Ok(());
            }
            ensure!(begin.elapsed() < PATIENCE, "{missing} plugins do not run");
            std::thread::sleep(STEP);
        }
    }

    /// Its resident memory after a rest.
    pub(super) fn resident_at_rest(&self) -> anyhow::Result<u64> {
        std::thread::sleep(REST);
        let resident = process::resident_bytes(&self.pid().to_string());
        resident.map(|(now, _)| now).context("memory is read from /proc, which is Linux's")
    }

    /// Stops it as an operator does.
    pub(super) fn stop(mut self) -> anyhow::Result<()> {
        let pid = libc::pid_t::try_from(self.pid()).context("a process identifier")?;
        // SAFETY: a signal to a child that was not waited for, so the identifier is still its own.
        let sent = unsafe { libc::kill(pid, libc::SIGTERM) };
        ensure!(sent == 0, "the broker cannot be stopped");
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                ensure!(status.success(), "the broker ended with {status}");
                return Ok(());
            }
            ensure!(begin.elapsed() < PATIENCE, "the broker does not stop");
            std::thread::sleep(STEP);
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It has ended, as a rule.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A directory that is gone in the end.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// Makes it in this one, or in the system's directory for such things.
    pub(super) fn new(parent: Option<&Path>) -> anyhow::Result<Self> {
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_path_buf);
        let path = parent.join(format!("vespiary-bench-{:08x}", fastrand::u32(..)));
        std::fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left is in the system's directory for such things.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
