//! The shipped binary under test: built once, started on free ports, killed or stopped, and asked through its own
//! command line.
//!
//! Nothing has to be installed: components are compiled here, and peers' tools that cannot be had make a test say so
//! and pass.

use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

/// How long anything may take that should take a moment; generous, since machines are shared.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A broker process.
pub(crate) struct Broker {
    child: Child,
    /// Where it listens for MQTT.
    pub mqtt: SocketAddr,
    /// Where its admin API listens.
    pub http: SocketAddr,
    /// Where services listen by themselves, if they do.
    pub services: Option<SocketAddr>,
    /// Its log, what it wrote to stderr.
    log: PathBuf,
}

impl Broker {
    /// Starts a broker on free ports with this data directory.
    pub(crate) fn start(data: &Path) -> Result<Self> {
        Self::start_with(data, &[])
    }

    /// The same with further arguments.
    pub(crate) fn start_with(data: &Path, arguments: &[&str]) -> Result<Self> {
        Self::start_as(Command::new(binary()), data, arguments)
    }

    /// The same, and a file that may not grow is an error for it instead of its end.
    pub(crate) fn start_without_file_size_signal(data: &Path) -> Result<Self> {
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""]).arg(binary());
        Self::start_as(command, data, &[])
    }

    fn start_as(mut command: Command, data: &Path, arguments: &[&str]) -> Result<Self> {
        let log = data.with_extension("log");
        let stderr = std::fs::File::options().create(true).append(true).open(&log)?;
        command.args(["serve", "--mqtt", "127.0.0.1:0"]);
        if !arguments.contains(&"--http") {
            command.args(["--http", "127.0.0.1:0"]);
        }
        let mut child = command
            .arg("--data")
            .arg(data)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no stdout")?).read_line(&mut line)?;
        let mut words = line.split_whitespace();
        let mut address = |key: &str| words.find_map(|word| word.strip_prefix(key)?.parse().ok());
        match (address("mqtt="), address("http=")) {
            (Some(mqtt), Some(http)) => Ok(Self { child, mqtt, http, services: address("services="), log }),
            _ => {
                let status = child.wait()?;
                bail!("the broker did not become ready ({status}): {}", std::fs::read_to_string(log)?)
            }
        }
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL: nothing is flushed, nothing is said.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM; gives how it ended and how long that took.
    pub(crate) fn stop(mut self) -> Result<(std::process::ExitStatus, Duration)> {
        let asked = Instant::now();
        let done = Command::new("kill").args(["-TERM", &self.pid().to_string()]).status()?;
        ensure!(done.success(), "kill failed");
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            ensure!(asked.elapsed() < PATIENCE, "the broker does not stop");
            std::thread::sleep(Duration::from_millis(5));
        };
        Ok((status, asked.elapsed()))
    }

    /// What it logged so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Runs a client command against it.
    pub(crate) fn run(&self, arguments: &[&str]) -> Result<Output> {
        Ok(Command::new(binary())
            .args(arguments)
            .env("VESPIARY_HTTP", self.http.to_string())
            .env("VESPIARY_MQTT", self.mqtt.to_string())
            .stdin(Stdio::null())
            .output()?)
    }

    /// Runs a client command that must succeed; gives its stdout.
    pub(crate) fn ok(&self, arguments: &[&str]) -> Result<String> {
        let output = self.run(arguments)?;
        ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs a client command that must fail with exit code 1; gives its one line on stderr.
    pub(crate) fn refused(&self, arguments: &[&str]) -> Result<String> {
        one_line_of_failure(&self.run(arguments)?)
    }

    /// The counters of `GET /api/v1/status`.
    pub(crate) fn status(&self) -> Result<Value> {
        let mut stream = TcpStream::connect(self.http)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET /api/v1/status HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.http)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (_, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
        Ok(serde_json::from_str(body)?)
    }

    /// Deploys a component; gives the answer.
    pub(crate) fn deploy(&self, component: &Path) -> Result<Value> {
        let path = component.to_str().context("path")?;
        Ok(serde_json::from_str(&self.ok(&["deploy", "--json", path])?)?)
    }

    /// Everything about a plugin.
    pub(crate) fn show(&self, plugin: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.ok(&["plugin", "show", "--json", plugin])?)?)
    }

    /// Waits until a plugin looks as `condition` says.
    pub(crate) fn wait_plugin(&self, plugin: &str, what: &str, condition: impl Fn(&Value) -> bool) -> Result<Value> {
        let started = Instant::now();
        loop {
            let seen = self.show(plugin)?;
            if condition(&seen) {
                return Ok(seen);
            }
            ensure!(started.elapsed() < PATIENCE, "plugin {plugin} never was {what}: {seen:#}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Already gone is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The one line that a failing command says; fails if it says more or less, or ends otherwise.
pub(crate) fn one_line_of_failure(output: &Output) -> Result<String> {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(1), "{:?}: {stderr}", output.status);
    ensure!(stderr.trim_end().lines().count() == 1, "not one line: {stderr}");
    Ok(stderr.trim_end().to_owned())
}

/// The root of the repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ has a parent")
}

/// The binary under test, built once.
pub(crate) fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let built = cargo(&["build", "--package", "vespiary", "--bin", "vespiary"]);
        assert!(built, "the binary does not build");
        target().join("debug/vespiary")
    })
}

/// The component of an example under `tests/guests/examples`.
pub(crate) fn guest(name: &str) -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| build_components(&["--package", "guests", "--examples"]));
    component(name)
}

/// The component of an example under `tests/comparator/examples`, which benchmarks are made with.
pub(crate) fn measured(name: &str) -> PathBuf {
    build_components(&["--package", "comparator", "--example", name]);
    component(name)
}

fn build_components(which: &[&str]) {
    add_target();
    let arguments = [&["build", "--target", "wasm32-wasip2", "--profile", "component"], which].concat();
    assert!(cargo(&arguments), "the components do not build: {which:?}");
}

fn component(name: &str) -> PathBuf {
    target().join("wasm32-wasip2/component/examples").join(format!("{name}.wasm"))
}

/// Waits until `condition` holds.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let started = Instant::now();
    while !condition()? {
        ensure!(started.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Runs a command with a time limit; gives its stdout. A tool that hangs fails the test instead of hanging it.
pub(crate) fn run_limited(command: &mut Command, limit: Duration) -> Result<Output> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if started.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            bail!("{command:?} did not end in {limit:?}");
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    child.stdout.take().context("stdout")?.read_to_end(&mut stdout)?;
    child.stderr.take().context("stderr")?.read_to_end(&mut stderr)?;
    Ok(Output { status, stdout, stderr })
}

/// The target directory of this build.
pub(crate) fn target() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("target/tmp has a parent")
}

fn cargo(arguments: &[&str]) -> bool {
    Command::new(env!("CARGO"))
        .args(arguments)
        .arg("--quiet")
        .env("CARGO_TARGET_DIR", target())
        .current_dir(root())
        .status()
        .is_ok_and(|status| status.success())
}

fn add_target() {
    let libraries = Command::new("rustc")
        .args(["--print", "target-libdir", "--target", "wasm32-wasip2"])
        .current_dir(root())
        .output()
        .expect("rustc runs");
    if !Path::new(String::from_utf8_lossy(&libraries.stdout).trim()).is_dir() {
        let added = Command::new("rustup").args(["target", "add", "wasm32-wasip2"]).current_dir(root()).status();
        assert!(added.is_ok_and(|status| status.success()), "run: rustup target add wasm32-wasip2");
    }
}
