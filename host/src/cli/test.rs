//! `vespiary test`: the tests of a plugin crate, natively or against the component in the real sandbox.
//!
//! With `--wasm`, the component is built first, and the crate's tests run as they are: the SDK's test host finds two variables
//! in the environment, starts `vespiary test-host COMPONENT` and hands each call over as a line of JSON (see `test/host.rs`).

mod host;

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::Context as _;

use super::build::Build;

pub(super) use host::{TestHostArgs, run as run_host};

/// Names the component to the SDK's test host.
const COMPONENT_VARIABLE: &str = "VESPIARY_TEST_COMPONENT";
/// Names this program to the SDK's test host.
const HOST_VARIABLE: &str = "VESPIARY_TEST_HOST";

/// Flags of `test`.
#[derive(Debug, clap::Args)]
pub(super) struct TestArgs {
    /// Directory of the plugin crate
    #[arg(default_value = ".")]
    directory: PathBuf,
    /// Build the component and run the tests against it in the real sandbox
    #[arg(long)]
    wasm: bool,
    /// Cargo features, separated by commas
    #[arg(long)]
    features: Option<String>,
    /// What `cargo test` is handed, after `--`
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// Runs the tests; the exit code is cargo's.
pub(super) fn run(args: &TestArgs) -> anyhow::Result<ExitCode> {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(&args.directory).arg("test");
    if let Some(features) = &args.features {
        cargo.args(["--features", features]);
    }
    cargo.args(&args.arguments);
    if args.wasm {
        let features = args.features.as_deref();
        let build = Build { directory: &args.directory, package: None, profile: "component", features };
        let component = build.run()?;
        let component = component.canonicalize().with_context(|| format!("cannot find {}", component.display()))?;
        eprintln!("testing {} in the sandbox", component.display());
        let program = std::env::current_exe().context("cannot tell where this program is")?;
        cargo.env(COMPONENT_VARIABLE, component).env(HOST_VARIABLE, program);
    }
    let status = cargo.status().context("cannot run cargo: is Rust installed?")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
