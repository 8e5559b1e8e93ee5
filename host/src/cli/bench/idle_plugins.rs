//! `vespiary bench idle-plugins`: what plugins cost that have nothing to do, in memory and at a start.
//!
//! Starts a broker of its own from this program, since it has to be stopped and started again: empty, with many plugins
//! freshly deployed, and again with all of them from the cache. The plugins differ in their manifest's name only, so the
//! broker shares between them what it shares between equal components and nothing more.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde::Serialize;

use super::component::with_manifest;
use super::process;
use super::remote::Remote;

/// How long a broker may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(300);

/// How often to look whether it has.
const STEP: Duration = Duration::from_millis(20);

/// How long a broker is left alone before its memory is read.
const REST: Duration = Duration::from_secs(1);

/// Flags of `bench idle-plugins`.
#[derive(Debug, clap::Args)]
pub(super) struct IdleArgs {
    /// The component
    #[arg(value_name = "FILE.wasm")]
    component: PathBuf,
    /// How many copies of it
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    count: u32,
    /// Where the broker keeps its data, in a temporary directory
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// Print one JSON object on one line
    #[arg(long)]
    json: bool,
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Results {
    plugins: u32,
    component_bytes: usize,
    /// Resident memory of the broker without plugins.
    empty_bytes: u64,
    /// From the first deploy to the last.
    deploy_s: f64,
    /// Resident memory of each plugin after it was deployed, compiling included.
    deployed_bytes_each: f64,
    /// From the start of the process, with all plugins from the cache, until the broker is ready.
    ready_s: f64,
    /// Until all plugins run.
    all_running_s: f64,
    /// Resident memory of each plugin after that start.
    started_bytes_each: f64,
}

/// Runs the benchmark.
pub(super) fn run(args: &IdleArgs) -> anyhow::Result<ExitCode> {
    let component = std::fs::read(&args.component)
        .with_context(|| format!("cannot read the component {}", args.component.display()))?;
    let directory = Scratch::new(&args.directory.clone().unwrap_or_else(std::env::temp_dir))?;
    let mut config = directory.0.join("config.toml");
    std::fs::write(&config, format!("[limits]\nplugins = {}\n", args.count))?;
    config = config.canonicalize()?;
    let broker = Broker::start(&config, &directory.0)?;
    let empty_bytes = broker.resident_at_rest()?;
    let begin = Instant::now();
    for number in 0..args.count {
        let name = format!("idle-{number:05}");
        broker.remote.deploy(&with_manifest(&component, &[("name", &name)]).context("the component")?)?;
    }
    let deploy_s = begin.elapsed().as_secs_f64();
    let each = |bytes: u64| bytes.saturating_sub(empty_bytes) as f64 / f64::from(args.count);
    let deployed_bytes_each = each(broker.resident_at_rest()?);
    broker.stop()?;
    let begin = Instant::now();
    let broker = Broker::start(&config, &directory.0)?;
    let ready_s = begin.elapsed().as_secs_f64();
    broker.wait_until_running(args.count)?;
    let all_running_s = begin.elapsed().as_secs_f64();
    let started_bytes_each = each(broker.resident_at_rest()?);
    broker.stop()?;
    let results = Results {
        plugins: args.count,
        component_bytes: component.len(),
        empty_bytes,
        deploy_s,
        deployed_bytes_each,
        ready_s,
        all_running_s,
        started_bytes_each,
    };
    results.print(args.json)?;
    Ok(ExitCode::SUCCESS)
}

/// A broker of ours; killed if it is not stopped.
struct Broker {
    child: Child,
    remote: Remote,
}

impl Broker {
    /// Starts it and waits until it is ready.
    fn start(config: &Path, directory: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe().context("where is this program?")?);
        command.args(["serve", "--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0", "--config"]).arg(config);
        command.arg("--data").arg(directory.join("data")).env("VESPIARY_LOG", "warn");
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot start a broker")?;
        let output = child.stdout.take().context("the broker's output")?;
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut broker = Self { child, remote: Remote::at(nowhere) };
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let http = line.split_whitespace().find_map(|field| field.strip_prefix("http="));
        let http = http.with_context(|| format!("the broker is not ready but says {line:?}"))?;
        broker.remote = Remote::at(http.parse()?);
        Ok(broker)
    }

    fn wait_until_running(&self, count: u32) -> anyhow::Result<()> {
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

    fn resident_at_rest(&self) -> anyhow::Result<u64> {
        std::thread::sleep(REST);
        let resident = process::resident_bytes(&self.child.id().to_string());
        resident.map(|(now, _)| now).context("memory is read from /proc, which is Linux's")
    }

    /// Stops it as an operator does.
    fn stop(mut self) -> anyhow::Result<()> {
        let pid = libc::pid_t::try_from(self.child.id()).context("a process identifier")?;
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
struct Scratch(PathBuf);

impl Scratch {
    fn new(parent: &Path) -> anyhow::Result<Self> {
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

impl Results {
    fn print(&self, json: bool) -> anyhow::Result<()> {
        if json {
            println!("{}", serde_json::to_string(self)?);
            return Ok(());
        }
        let Self { plugins, deploy_s, ready_s, all_running_s, .. } = self;
        println!("idle-plugins: {plugins} of {} KiB", self.component_bytes.div_ceil(1024));
        println!("  empty broker  {} KiB resident", self.empty_bytes / 1024);
        println!("  deployed      in {deploy_s:.1} s, {:.0} KiB resident each", self.deployed_bytes_each / 1024.0);
        println!("  started       ready after {ready_s:.2} s, all running after {all_running_s:.2} s");
        println!("                {:.0} KiB resident each", self.started_bytes_each / 1024.0);
        Ok(())
    }
}
