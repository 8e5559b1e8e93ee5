//! `vespiary serve` and `vespiary check`.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::{Config, DataDirectory};
use crate::server;

/// Flags of `serve`; each overrides what the file says.
#[derive(Debug, clap::Args)]
pub(super) struct ServeArgs {
    /// Configuration file (TOML)
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address for MQTT; port 0 picks a free one
    #[arg(long, value_name = "ADDR:PORT")]
    mqtt: Option<SocketAddr>,
    /// Address for the admin API; port 0 picks a free one
    #[arg(long, value_name = "ADDR:PORT")]
    http: Option<SocketAddr>,
    /// Directory of everything that survives a restart
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

/// Flags of `check`.
#[derive(Debug, clap::Args)]
pub(super) struct CheckArgs {
    /// Configuration file (TOML)
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Runs the broker until SIGTERM or SIGINT.
pub(super) fn serve(args: &ServeArgs) -> anyhow::Result<ExitCode> {
    let mut config = read(args.config.as_deref())?;
    if let Some(address) = args.mqtt {
        config.mqtt.listen = address;
    }
    if let Some(address) = args.http {
        config.http.listen = address;
    }
    if let Some(directory) = &args.data {
        config.data = DataDirectory(directory.clone());
    }
    super::open_files::allow_many_connections();
    let running = server::start(&config).map_err(whole)?;
    stop_on_signals(running.stopper())?;
    let mut stdout = std::io::stdout().lock();
    let services = running.services.map_or_else(String::new, |address| format!(" services={address}"));
    writeln!(stdout, "vespiary ready mqtt={} http={}{services}", running.mqtt, running.http)
        .and_then(|()| stdout.flush())
        .context("cannot write to stdout")?;
    drop(stdout);
    running.wait().map_err(whole)?;
    Ok(ExitCode::SUCCESS)
}

/// Reports everything that would keep `serve` from starting.
pub(super) fn check(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let config = read(args.config.as_deref())?;
    config.check().map_err(whole)?;
    config.plugins.http_authorities().map_err(whole)?;
    println!(
        "the configuration is valid: mqtt={} http={} data={} grants={}",
        config.mqtt.listen,
        config.http.listen,
        config.data.0.display(),
        config.grant_policy(),
    );
    Ok(ExitCode::SUCCESS)
}

fn read(path: Option<&std::path::Path>) -> anyhow::Result<Config> {
    path.map_or_else(|| Ok(Config::default()), |path| Config::read(path).map_err(whole))
}

/// An error whose message says everything, causes included: they are not to be printed once more.
fn whole(error: impl std::error::Error) -> anyhow::Error {
    anyhow::Error::msg(error.to_string())
}

/// Calls `stop` at the first SIGTERM or SIGINT; a second one ends the process at once.
pub(super) fn stop_on_signals(stop: impl Fn() + Send + 'static) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut terminate, mut interrupt) = {
        let _guard = runtime.enter();
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
    };
    std::thread::Builder::new().name("vespiary-signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            for _ in 0..2 {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                stop();
            }
            std::process::exit(130);
        });
    })?;
    Ok(())
}
