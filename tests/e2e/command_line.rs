//! The command line as scripts and operators use it: the ready line, clean stops, and one line for every mistake.

use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::harness::{Broker, binary, one_line_of_failure, run_limited};

const LIMIT: Duration = Duration::from_secs(300);

#[test]
fn serve_stops_cleanly_and_soon_and_starts_again_on_the_same_data() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let data = directory.path().join("data");
    for _ in 0..2 {
        let broker = Broker::start(&data)?;
        let _idle = super::client::Client::connect(broker.mqtt, "idle", true)?;
        let (status, took) = broker.stop()?;
        ensure!(status.success(), "{status}");
        ensure!(took < Duration::from_secs(5), "it took {took:?}");
    }
    Ok(())
}

#[test]
fn what_keeps_the_broker_from_starting_is_said_in_one_line() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let data = directory.path().join("data");
    let _running = Broker::start(&data)?;
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let taken = taken.local_addr()?.to_string();
    // Bound and let go: nobody listens there.
    let closed = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
    let config = directory.path().join("bad.toml");
    std::fs::write(&config, "[mqtt]\nlisten = \"127.0.0.1:0\"\n\n[limits]\nsesions = 3\n")?;
    let path = |name: &str| directory.path().join(name).to_string_lossy().into_owned();
    let (other, file) = (path("other"), path("file"));
    std::fs::write(&file, "a file")?;
    let free = "127.0.0.1:0";
    for (arguments, expected) in [
        (vec!["serve", "--mqtt", free, "--http", free, "--data", &path("data")], "in use by another process"),
        (vec!["serve", "--mqtt", &taken, "--http", free, "--data", &other], "cannot listen on"),
        (vec!["serve", "--mqtt", free, "--http", &taken, "--data", &other], "cannot listen on"),
        (vec!["serve", "--mqtt", free, "--http", "0.0.0.0:0", "--data", &other], "no authentication"),
        (vec!["serve", "--mqtt", "0.0.0.0:0", "--http", free, "--data", &other], "without credentials"),
        (vec!["serve", "--mqtt", free, "--http", free, "--data", &file], &*file),
        (vec!["serve", "--config", &path("bad.toml")], "bad.toml:5:1: unknown field `sesions`"),
        (vec!["serve", "--config", &path("none.toml")], "none.toml"),
        (vec!["check", "--config", &path("bad.toml")], "bad.toml:5:1: unknown field `sesions`"),
        (vec!["plugin", "list", "--http", &closed], "no broker answers"),
        (vec!["build", &other], "holds no Cargo.toml"),
    ] {
        let output = run_limited(Command::new(binary()).args(&arguments), LIMIT)?;
        let line = one_line_of_failure(&output).with_context(|| format!("{arguments:?}"))?;
        ensure!(line.matches(expected).count() == 1, "not said once, {arguments:?}: {line}");
    }
    Ok(())
}

#[test]
fn a_new_plugin_builds_passes_its_test_and_deploys() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let new = |name: &str| {
        let mut command = Command::new(binary());
        command.args(["new", name]).current_dir(directory.path());
        run_limited(&mut command, LIMIT)
    };
    let made = new("my-sensor")?;
    ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    ensure!(one_line_of_failure(&new("my-sensor")?)?.contains("my-sensor"));
    ensure!(one_line_of_failure(&new("No Such Name")?)?.contains("plugin name"));
    let crate_directory = directory.path().join("my-sensor");
    let tested = run_limited(Command::new("cargo").arg("test").current_dir(&crate_directory), LIMIT)?;
    ensure!(tested.status.success(), "{}", String::from_utf8_lossy(&tested.stderr));
    ensure!(String::from_utf8_lossy(&tested.stdout).contains("1 passed"), "it has no test");
    let built = run_limited(Command::new(binary()).arg("build").current_dir(&crate_directory), LIMIT)?;
    ensure!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let component = String::from_utf8(built.stdout)?;
    let broker = Broker::start(&directory.path().join("data"))?;
    let deployed = broker.deploy(component.trim().as_ref())?;
    ensure!(deployed["plugin"] == "my-sensor" && deployed["revision"] == 1, "{deployed}");
    Ok(())
}
