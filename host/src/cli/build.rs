//! `vespiary build`: a plugin crate becomes one component, with plain cargo.
//!
//! The target `wasm32-wasip2` is added with rustup where it is missing, so that nothing has to be typed before.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;

use crate::plugins::manifest::Manifest;
use crate::wasm::Runtime;

/// The target that components are compiled for.
const TARGET: &str = "wasm32-wasip2";

/// Flags of `build`.
#[derive(Debug, clap::Args)]
pub(super) struct BuildArgs {
    /// Directory of the plugin crate
    #[arg(default_value = ".")]
    directory: PathBuf,
    /// Cargo profile
    #[arg(long, default_value = "component")]
    profile: String,
    /// Cargo features, separated by commas
    #[arg(long)]
    features: Option<String>,
}

/// What to compile.
#[derive(Debug, Clone, Copy)]
pub(super) struct Build<'a> {
    /// Directory of the crate, or of a workspace with `package`.
    pub(super) directory: &'a Path,
    /// The package, where the directory holds several.
    pub(super) package: Option<&'a str>,
    /// Cargo profile.
    pub(super) profile: &'a str,
    /// Cargo features, separated by commas.
    pub(super) features: Option<&'a str>,
}

/// The profile of `vespiary dev`, which needs no line in the crate's manifest: a rebuild is to take a moment. Some
/// optimisation makes the component a third as large, which the broker's compiler saves again.
pub(super) const QUICK_PROFILE: &str = "vespiary-dev";
const QUICK_SETTINGS: [&str; 3] =
    ["profile.vespiary-dev.inherits=\"dev\"", "profile.vespiary-dev.opt-level=1", "profile.vespiary-dev.debug=false"];

/// Builds and checks one crate.
pub(super) fn run(args: &BuildArgs) -> anyhow::Result<ExitCode> {
    let build =
        Build { directory: &args.directory, package: None, profile: &args.profile, features: args.features.as_deref() };
    let component = build.run()?;
    let bytes = std::fs::read(&component).with_context(|| format!("cannot read {}", component.display()))?;
    let inspection = Runtime::inspect(&bytes)?;
    let manifest = Manifest::parse(&inspection.manifest.unwrap_or_default())?;
    eprintln!(
        "plugin {} {}, {} KiB: deploy it with `vespiary deploy {}`",
        manifest.name.0,
        manifest.version,
        bytes.len().div_ceil(1024),
        component.display()
    );
    println!("{}", component.display());
    Ok(ExitCode::SUCCESS)
}

/// A line of cargo's `--message-format=json`, as far as it is needed.
#[derive(Deserialize)]
struct CargoMessage {
    reason: String,
    #[serde(default)]
    filenames: Vec<PathBuf>,
}

impl Build<'_> {
    /// Runs cargo and gives the component's path. Cargo's progress goes to stderr.
    pub(super) fn run(&self) -> anyhow::Result<PathBuf> {
        ensure!(
            self.directory.join("Cargo.toml").is_file(),
            "{} holds no Cargo.toml: name the directory of a plugin crate, or make one with `vespiary new NAME`",
            self.directory.display()
        );
        add_target(self.directory)?;
        let mut cargo = Command::new("cargo");
        cargo.current_dir(self.directory);
        // Only as a `cdylib`: with an `rlib` beside it, cargo leaves link-time optimisation out.
        cargo.args(["rustc", "--lib", "--crate-type", "cdylib", "--target", TARGET, "--profile", self.profile]);
        cargo.arg("--message-format=json-render-diagnostics");
        if self.profile == QUICK_PROFILE {
            cargo.args(QUICK_SETTINGS.iter().flat_map(|setting| ["--config", setting]));
        }
        if let Some(package) = self.package {
            cargo.args(["--package", package]);
        }
        if let Some(features) = self.features {
            cargo.args(["--features", features]);
        }
        let output = cargo.stderr(Stdio::inherit()).output().context("cannot run cargo: is Rust installed?")?;
        ensure!(output.status.success(), "the plugin does not build: see cargo's messages above");
        let is_component = |path: &PathBuf| path.extension() == Some(OsStr::new("wasm"));
        let components: Vec<PathBuf> = String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter_map(|line| serde_json::from_str::<CargoMessage>(line).ok())
            .filter(|message| message.reason == "compiler-artifact")
            .flat_map(|message| message.filenames)
            .filter(is_component)
            .collect();
        match components.as_slice() {
            [component] => Ok(component.clone()),
            [] => bail!("the crate gave no component: is its library a plugin's?"),
            several => bail!("the crate gave {} components: a plugin crate has one library", several.len()),
        }
    }
}

/// Adds the compilation target where it is missing.
fn add_target(directory: &Path) -> anyhow::Result<()> {
    let libraries = Command::new("rustc")
        .current_dir(directory)
        .args(["--print", "target-libdir", "--target", TARGET])
        .output()
        .context("cannot run rustc: is Rust installed?")?;
    let present = libraries.status.success() && Path::new(String::from_utf8_lossy(&libraries.stdout).trim()).is_dir();
    if present {
        return Ok(());
    }
    eprintln!("adding the compilation target {TARGET} (once): rustup target add {TARGET}");
    let added = Command::new("rustup")
        .current_dir(directory)
        .args(["target", "add", TARGET])
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    ensure!(added, "the compilation target is missing and could not be added: run `rustup target add {TARGET}`");
    Ok(())
}
