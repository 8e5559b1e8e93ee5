//! The command line: one file a command, this one says which there are.
//!
//! Results go to stdout, everything else to stderr. Exit code 0: done; 1: not done, with one line that says why; 2: the
//! arguments are wrong.

mod serve;

mod demo;

mod admin;

mod new;

mod build;

mod test;

mod dev;

mod embed;

mod sign;

mod publish;

mod subscribe;

mod bench;

mod connection;

mod open_files;

#[cfg(test)]
mod guide;

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// An MQTT broker whose microservices run inside it as sandboxed WebAssembly components.
#[derive(Debug, Parser)]
#[command(name = "vespiary", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the broker
    Serve(serve::ServeArgs),
    /// Do everything that `serve` would do short of listening, and say what is wrong
    Check(serve::CheckArgs),
    /// Run the broker with the asset-management services and simulated machines, and tell the story
    Demo(demo::DemoArgs),
    /// Make a plugin crate that builds and whose test passes
    New(new::NewArgs),
    /// Build a plugin crate into one component
    Build(build::BuildArgs),
    /// Run the tests of a plugin crate, natively or in the real sandbox
    Test(test::TestArgs),
    /// Run calls into a component for `test --wasm`
    #[command(hide = true)]
    TestHost(test::TestHostArgs),
    /// Watch a plugin crate: build and swap it on each save, and follow its log
    Dev(dev::DevArgs),
    /// Put a manifest into a component, in the place of any that it has
    Embed(embed::EmbedArgs),
    /// Sign a component, or make the key for it
    Sign(sign::SignArgs),
    /// Deploy a component to a running broker, over the revision that is active
    Deploy(admin::DeployArgs),
    /// Print the last lines of a plugin's log; -f: and those to come
    Logs(admin::LogsCommand),
    /// Hand all dead letters of a plugin out again
    Replay(admin::ReplayCommand),
    /// See and manage the plugins of a running broker
    Plugin(admin::PluginArgs),
    /// Publish messages
    Pub(publish::PublishArgs),
    /// Subscribe and print messages
    Sub(subscribe::SubscribeArgs),
    /// Measure a broker
    Bench(bench::BenchArgs),
}

/// How client commands find the admin API.
#[derive(Debug, Clone, clap::Args)]
struct AdminAddress {
    /// Address of the broker's admin API
    #[arg(long, global = true, value_name = "ADDR:PORT", env = "VESPIARY_HTTP", default_value = "127.0.0.1:8080")]
    http: SocketAddr,
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    if matches!(
        cli.command,
        Command::Check(_) | Command::Deploy(_) | Command::Logs(_) | Command::Replay(_) | Command::Plugin(_)
    ) {
        end_quietly_with_the_reader();
    }
    let result = match cli.command {
        Command::Serve(args) => with_log("info", || serve::serve(&args)),
        Command::Check(args) => serve::check(&args),
        Command::Demo(args) => with_log("warn", || demo::run(&args)),
        Command::New(args) => new::run(&args),
        Command::Build(args) => build::run(&args),
        Command::Test(args) => test::run(&args),
        Command::TestHost(args) => test::run_host(&args),
        // The plugin's own log is followed; once is enough.
        Command::Dev(args) => with_log("warn,vespiary::plugins::log=off", || dev::run(&args)),
        Command::Embed(args) => embed::run(&args),
        Command::Sign(args) => sign::run(&args),
        Command::Deploy(args) => admin::deploy(&args),
        Command::Logs(args) => admin::logs(&args),
        Command::Replay(args) => admin::replay(&args),
        Command::Plugin(args) => admin::plugin(&args),
        Command::Pub(args) => with_log("warn", || block_on(publish::run(args))),
        Command::Sub(args) => with_log("warn", || block_on(subscribe::run(args))),
        Command::Bench(args) => with_log("warn", || block_on(bench::run(args))),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("vespiary: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Lets a command whose output goes into `head`, say, end when nobody reads on, as other commands do.
fn end_quietly_with_the_reader() {
    // SAFETY: sets a signal's default action, before any other thread exists.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
    }
}

/// Sends the log to stderr; `VESPIARY_LOG` says what of it, in the form of `RUST_LOG`.
fn with_log<T>(default: &str, run: impl FnOnce() -> T) -> T {
    let filter = EnvFilter::try_from_env("VESPIARY_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let stderr_is_terminal = std::io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(stderr_is_terminal)
        .init();
    run()
}

fn block_on(future: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future)
}
