//! `vespiary dev`: a plugin crate is watched; each save builds it and swaps it into a broker, whose log of it is on screen.
//!
//! Where no broker answers, one is started, in a directory that goes with it unless one is named. A build that fails changes
//! nothing: the revision that runs goes on. What happens goes to stderr, the plugin's log to stdout.

mod watch;

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use self::watch::Watch;
use super::AdminAddress;
use super::admin::{self, AdminClient, NoBroker};
use super::build::{Build, QUICK_PROFILE};
use crate::config::{Config, DataDirectory};
use crate::plugins::Entry;
use crate::plugins::deploy::DeployReport;
use crate::plugins::manifest::Manifest;
use crate::server;
use crate::wasm::Runtime;

/// How long nothing may happen to the files before a build begins: editors save in several steps.
const QUIET: Duration = Duration::from_millis(50);
/// How long files that keep changing can put off a build.
const LONGEST_QUIET: Duration = Duration::from_secs(1);

/// Flags of `dev`.
#[derive(Debug, clap::Args)]
pub(super) struct DevArgs {
    /// Directory of the plugin crate
    #[arg(default_value = ".")]
    directory: PathBuf,
    #[command(flatten)]
    address: AdminAddress,
    /// Address for MQTT of a broker that is started because none answers; port 0 picks a free one
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:1883")]
    mqtt: SocketAddr,
    /// Data directory of that broker; without it, one that is deleted at the end
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Cargo profile; the default builds fast, `component` small
    #[arg(long, default_value = QUICK_PROFILE)]
    profile: String,
    /// Cargo features, separated by commas
    #[arg(long)]
    features: Option<String>,
}

/// What wakes the loop.
#[derive(Debug)]
enum Event {
    /// A source file was saved.
    Changed,
    /// The user wants to end.
    Stop,
}

/// A broker that was started for this command alone.
struct OwnBroker {
    running: server::Running,
    /// Its directory, where it is to be deleted.
    temporary: Option<PathBuf>,
}

/// What is deployed.
#[derive(Default)]
struct Live {
    /// The component's bytes, by which a build that changed nothing is known.
    component: Vec<u8>,
    /// Plugins whose log is followed already.
    followed: Vec<String>,
}

/// Watches, builds and deploys until the user ends it.
pub(super) fn run(args: &DevArgs) -> anyhow::Result<ExitCode> {
    ensure!(
        args.directory.join("Cargo.toml").is_file(),
        "{} holds no Cargo.toml: name the directory of a plugin crate, or make one with `vespiary new NAME`",
        args.directory.display()
    );
    let (events, happened) = mpsc::channel();
    let stop = events.clone();
    // An error means that the loop has ended, which is what is wanted.
    super::serve::stop_on_signals(move || stop.send(Event::Stop).unwrap_or(()))?;
    let (address, own) = find_broker(args)?;
    let api = AdminClient::at(address);
    let mut watch = Watch::new(&args.directory, move || events.send(Event::Changed).unwrap_or(()))?;
    let mut live = Live::default();
    let mut saved = Instant::now();
    loop {
        if let Err(error) = build_and_deploy(args, &api, address, &mut watch, &mut live, saved) {
            eprintln!("vespiary dev: {error:#}");
        }
        match next(&happened) {
            Event::Changed => saved = Instant::now(),
            Event::Stop => break,
        }
        if settle(&happened).is_break() {
            break;
        }
    }
    eprintln!("vespiary dev: ends");
    own.map_or(Ok(()), OwnBroker::end)?;
    Ok(ExitCode::SUCCESS)
}

fn next(happened: &mpsc::Receiver<Event>) -> Event {
    // The watcher and the signals have a sender each, for as long as the process lives.
    happened.recv().unwrap_or(Event::Stop)
}

/// Waits until the files are quiet.
fn settle(happened: &mpsc::Receiver<Event>) -> ControlFlow<()> {
    let began = Instant::now();
    while began.elapsed() < LONGEST_QUIET {
        match happened.recv_timeout(QUIET) {
            Ok(Event::Changed) => {}
            Ok(Event::Stop) | Err(mpsc::RecvTimeoutError::Disconnected) => return ControlFlow::Break(()),
            Err(mpsc::RecvTimeoutError::Timeout) => break,
        }
    }
    ControlFlow::Continue(())
}

/// The broker that answers, or one that is started.
fn find_broker(args: &DevArgs) -> anyhow::Result<(SocketAddr, Option<OwnBroker>)> {
    match AdminClient::at(args.address.http).get("/api/v1/health") {
        Ok(_) => {
            eprintln!("vespiary dev: deploys to the broker at {}", args.address.http);
            return Ok((args.address.http, None));
        }
        Err(error) if error.is::<NoBroker>() => {}
        Err(error) => return Err(error),
    }
    let temporary = || std::env::temp_dir().join(format!("vespiary-dev-{}", std::process::id()));
    let data = args.data.clone().unwrap_or_else(temporary);
    let mut config = Config { data: DataDirectory(data.clone()), ..Config::default() };
    config.mqtt.listen = args.mqtt;
    config.http.listen = args.address.http;
    let running = server::start(&config).map_err(|error| anyhow::Error::msg(error.to_string()))?;
    eprintln!("vespiary dev: started a broker, mqtt={} http={} data={}", running.mqtt, running.http, data.display());
    let address = running.http;
    let temporary = args.data.is_none().then_some(data);
    Ok((address, Some(OwnBroker { running, temporary })))
}

impl OwnBroker {
    fn end(self) -> anyhow::Result<()> {
        self.running.stop().map_err(|error| anyhow::Error::msg(error.to_string()))?;
        if let Some(directory) = self.temporary {
            std::fs::remove_dir_all(&directory).with_context(|| format!("cannot delete {}", directory.display()))?;
        }
        Ok(())
    }
}

fn build_and_deploy(
    args: &DevArgs,
    api: &AdminClient,
    address: SocketAddr,
    watch: &mut Watch,
    live: &mut Live,
    saved: Instant,
) -> anyhow::Result<()> {
    let build =
        Build { directory: &args.directory, package: None, profile: &args.profile, features: args.features.as_deref() };
    let path = build.run().context("nothing was deployed")?;
    let built = saved.elapsed();
    // Only now it is known which files the component is made of.
    watch.sources_of(&path)?;
    let component = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    if component == live.component {
        eprintln!("vespiary dev: the build came to the same component");
        return Ok(());
    }
    let manifest = Manifest::parse(&Runtime::inspect(&component)?.manifest.unwrap_or_default())?;
    let name = manifest.name.0.to_string();
    let seen = if live.followed.contains(&name) { None } else { Some(last_line(api, &name)) };
    let answer = api.post_component(&component, "?probation=off").context("nothing was deployed")?;
    let deployed: DeployReport = serde_json::from_str(&answer).context("the broker's answer is not understood")?;
    eprintln!(
        "vespiary dev: plugin {name} runs as revision {} ({} KiB), {:.2} s after the save (built in {:.2} s, pause {:.1} ms)",
        deployed.revision,
        component.len().div_ceil(1024),
        saved.elapsed().as_secs_f64(),
        built.as_secs_f64(),
        deployed.pause_ms
    );
    live.component = component;
    if let Some(after) = seen {
        follow(address, name.clone(), after);
        live.followed.push(name);
    }
    Ok(())
}

/// The sequence of the last line in a plugin's log; 0 where there is none.
fn last_line(api: &AdminClient, name: &str) -> u64 {
    let lines = api.get(&format!("/api/v1/plugins/{name}/logs?tail=1")).ok();
    let lines: Option<Vec<Entry>> = lines.and_then(|lines| serde_json::from_str(&lines).ok());
    lines.and_then(|lines| lines.last().map(|entry| entry.sequence)).unwrap_or(0)
}

/// Prints a plugin's log from here on, on a thread that ends with the process.
fn follow(address: SocketAddr, name: String, after: u64) {
    std::thread::spawn(move || {
        let ended = admin::follow(&AdminClient::at(address), &name, (usize::MAX, after), |_, entry| {
            admin::print_line(&admin::readable(entry))
        });
        if let Err(error) = ended {
            eprintln!("vespiary dev: the log of {name} ends: {error:#}");
        }
    });
}

/// Whether a path is one that a save changes: not what cargo and editors write beside.
fn is_source(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    !name.starts_with('.') && !name.ends_with('~') && !["target", "Cargo.lock", "4913"].contains(&&*name)
}
