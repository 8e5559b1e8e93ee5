//! Other people's clients and tools, fetched where they are not there: from Debian, PyPI and npm, into the target directory.
//!
//! A tool that cannot be had gives none and a visible line; the test that wanted it then passes without it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

use super::harness;

/// Debian packages that `mosquitto_pub` and `mosquitto_sub` need.
const MOSQUITTO_PACKAGES: &[&str] = &["mosquitto-clients", "libmosquitto1", "libcjson1", "libcares2"];

/// A command that runs `mosquitto_pub` or `mosquitto_sub`.
pub(crate) fn mosquitto(tool: &str) -> Option<Command> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        // It prints its help and ends with 1; that it starts is enough.
        if Command::new("mosquitto_pub").arg("--help").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok() {
            return Some(PathBuf::new());
        }
        let folder = tools().join("mosquitto");
        let fetched = || {
            std::fs::create_dir_all(&folder).ok()?;
            quietly(Command::new("apt-get").arg("download").args(MOSQUITTO_PACKAGES).current_dir(&folder))?;
            for package in std::fs::read_dir(&folder).ok()?.flatten() {
                if package.path().extension().is_some_and(|extension| extension == "deb") {
                    quietly(Command::new("dpkg").arg("-x").arg(package.path()).arg(&folder))?;
                }
            }
            Some(folder.clone())
        };
        let folder = if folder.join("usr/bin/mosquitto_pub").exists() { Some(folder.clone()) } else { fetched() };
        if folder.is_none() {
            println!("SKIPPED: mosquitto-clients is not installed and cannot be downloaded");
        }
        folder
    });
    let folder = found.as_ref()?;
    if folder.as_os_str().is_empty() {
        return Some(Command::new(tool));
    }
    let mut command = Command::new(folder.join("usr/bin").join(tool));
    let libraries = folder.join("usr/lib").join(format!("{}-linux-gnu", std::env::consts::ARCH));
    command.env("LD_LIBRARY_PATH", libraries);
    Some(command)
}

/// A Python that has paho-mqtt.
pub(crate) fn paho() -> Option<PathBuf> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    FOUND.get_or_init(|| python_with("paho.mqtt.client", "paho-mqtt==2.1.0")).clone()
}

/// A Python that has gmqtt.
pub(crate) fn gmqtt() -> Option<PathBuf> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    FOUND.get_or_init(|| python_with("gmqtt", "gmqtt==0.8.0")).clone()
}

/// A Python that has aiomqtt.
pub(crate) fn aiomqtt() -> Option<PathBuf> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    FOUND.get_or_init(|| python_with("aiomqtt", "aiomqtt==2.5.1")).clone()
}

/// The one Python environment, with this module in it.
fn python_with(module: &str, package: &str) -> Option<PathBuf> {
    // One at a time: they install into the same environment.
    static INSTALLING: Mutex<()> = Mutex::new(());
    let _installing = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tools().join("python");
    let python = folder.join("bin/python");
    let has_module = |python: &Path| runs(Command::new(python).arg("-c").arg(format!("import {module}")));
    if !has_module(&python) {
        quietly(Command::new("python3").args(["-m", "venv"]).arg(&folder));
        quietly(Command::new(&python).args(["-m", "pip", "install", "--quiet", package]));
    }
    let found = has_module(&python).then_some(python);
    if found.is_none() {
        println!("SKIPPED: {package} is not installed and cannot be downloaded");
    }
    found
}

/// A directory in which Node.js finds MQTT.js.
pub(crate) fn mqtt_js() -> Option<PathBuf> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        let folder = tools().join("node");
        std::fs::create_dir_all(&folder).ok()?;
        let has_it = || runs(Command::new("node").args(["-e", "require('mqtt')"]).current_dir(&folder));
        if !has_it() {
            let npm = ["install", "--silent", "--no-audit", "--no-fund", "--prefix", ".", "mqtt@5"];
            quietly(Command::new("npm").args(npm).current_dir(&folder));
        }
        let found = has_it().then_some(folder);
        if found.is_none() {
            println!("SKIPPED: MQTT.js is not installed and cannot be downloaded");
        }
        found
    });
    found.clone()
}

/// The command that makes a component of JavaScript.
pub(crate) fn componentize_js() -> Option<PathBuf> {
    let folder = tools().join("componentize-js");
    let command = folder.join("node_modules/.bin/componentize-js");
    let runs_already = || runs(Command::new(&command).arg("--version"));
    if !runs_already() {
        std::fs::create_dir_all(&folder).ok()?;
        let npm = ["install", "--silent", "--no-audit", "--no-fund", "--prefix", "."];
        quietly(Command::new("npm").args(npm).arg("@bytecodealliance/componentize-js@0.23.0").current_dir(&folder));
    }
    let found = runs_already().then_some(command);
    if found.is_none() {
        println!("SKIPPED: componentize-js is not installed and cannot be downloaded");
    }
    found
}

/// The command that makes a component of Python.
pub(crate) fn componentize_py() -> Option<PathBuf> {
    let python = python_with("componentize_py", "componentize-py==0.25.1")?;
    Some(python.with_file_name("componentize-py"))
}

fn tools() -> PathBuf {
    harness::target().join("tools")
}

fn runs(command: &mut Command) -> bool {
    quietly(command).is_some()
}

fn quietly(command: &mut Command) -> Option<()> {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success()).then_some(())
}
