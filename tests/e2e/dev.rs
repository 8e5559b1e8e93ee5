//! `vespiary dev`: a save is swapped in, a broken save changes nothing, and it ends when it is asked to.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::client::Client;
use super::harness::{Broker, binary, target};

/// How long the first build may take: it compiles the crate's dependencies.
const FIRST_BUILD: Duration = Duration::from_secs(600);
/// How long a later one may take here, where machines are shared; on one of its own it is a second or two.
const NEXT_BUILD: Duration = Duration::from_secs(120);

/// A running `vespiary dev`.
struct Dev {
    child: Child,
    /// What it writes.
    output: PathBuf,
}

impl Dev {
    fn start(crate_directory: &Path, output: PathBuf, arguments: &[&str]) -> Result<Self> {
        let file = File::create(&output)?;
        let child = Command::new(binary())
            .arg("dev")
            .arg(crate_directory)
            .args(arguments)
            // The dependencies of all crates that this test makes are compiled once.
            .env("CARGO_TARGET_DIR", target().join("dev-crates"))
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()?;
        Ok(Self { child, output })
    }

    fn said(&self) -> Result<String> {
        Ok(std::fs::read_to_string(&self.output)?)
    }

    /// Waits until it has said something `count` times.
    fn says(&mut self, text: &str, count: usize, limit: Duration) -> Result<()> {
        let began = Instant::now();
        while self.said()?.matches(text).count() < count {
            ensure!(self.child.try_wait()?.is_none(), "it ended: {}", self.said()?);
            ensure!(began.elapsed() < limit, "it never said {text:?}: {}", self.said()?);
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Ends it as ^C does.
    fn end(mut self) -> Result<String> {
        let asked = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status()?;
        ensure!(asked.success(), "kill failed");
        let began = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            ensure!(began.elapsed() < Duration::from_secs(60), "it does not end: {}", self.said()?);
            std::thread::sleep(Duration::from_millis(20));
        };
        ensure!(status.success(), "{status}: {}", self.said()?);
        self.said()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // Already gone is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Makes a plugin crate whose handler logs what it is. The name is its test's own: components of all tests are in one place.
fn new_crate(directory: &Path, name: &str) -> Result<PathBuf> {
    let made = Command::new(binary()).args(["new", name]).current_dir(directory).output()?;
    ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let made = directory.join(name);
    write(&made, "one", "")?;
    Ok(made)
}

/// Writes the crate's source: a handler that logs `word`, and whatever else.
fn write(made: &Path, word: &str, more: &str) -> Result<()> {
    let source = format!(
        "//! Says a word.\nuse vespiary_sdk::prelude::*;\nplugin! {{ name: \"speaker\", handlers: [asked] }}\n\
         #[on(\"ask/{{who}}\", qos = 1)]\nfn asked(cx: &mut Context, who: &str) -> Result<()> {{\n    \
         let _ = cx;\n    info!(\"{{who}} hears {word}\");\n    Ok(())\n}}\n{more}\n"
    );
    // As many editors save: written beside and renamed.
    std::fs::write(made.join("src/.lib.rs.new"), source)?;
    Ok(std::fs::rename(made.join("src/.lib.rs.new"), made.join("src/lib.rs"))?)
}

#[test]
fn a_save_is_swapped_in_and_a_broken_one_changes_nothing() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let made = new_crate(directory.path(), "speaker")?;
    let broker = Broker::start(&directory.path().join("data"))?;
    let mut dev = Dev::start(&made, directory.path().join("output"), &["--http", &broker.http.to_string()])?;
    dev.says("runs as revision 1 ", 1, FIRST_BUILD)?;
    let mut asker = Client::connect(broker.mqtt, "asker", true)?;
    asker.publish_acknowledged("ask/a", b"")?;
    dev.says("a hears one", 1, NEXT_BUILD)?;

    write(&made, "two", "")?;
    dev.says("runs as revision 2 ", 1, NEXT_BUILD)?;
    asker.publish_acknowledged("ask/b", b"")?;
    dev.says("b hears two", 1, NEXT_BUILD)?;

    write(&made, "three", "fn broken( {")?;
    dev.says("nothing was deployed", 1, NEXT_BUILD)?;
    ensure!(dev.said()?.contains("src/lib.rs:"), "the compiler's message is not there: {}", dev.said()?);
    asker.publish_acknowledged("ask/c", b"")?;
    dev.says("c hears two", 1, NEXT_BUILD)?;

    write(&made, "four", "")?;
    dev.says("runs as revision 3 ", 1, NEXT_BUILD)?;
    asker.publish_acknowledged("ask/d", b"")?;
    dev.says("d hears four", 1, NEXT_BUILD)?;
    let said = dev.end()?;
    for line in said.lines().filter(|line| line.contains("runs as revision")) {
        println!("{line}");
    }
    ensure!(broker.show("speaker")?["revision"] == 3, "the broker goes on without it");
    Ok(())
}

#[test]
fn where_no_broker_answers_one_is_started_and_ends_with_it() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let made = new_crate(directory.path(), "lone-speaker")?;
    let data = directory.path().join("data");
    let arguments = ["--http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0", "--data", data.to_str().context("path")?];
    let mut dev = Dev::start(&made, directory.path().join("output"), &arguments)?;
    dev.says("runs as revision 1 ", 1, FIRST_BUILD)?;
    let said = dev.end()?;
    ensure!(said.contains("started a broker, mqtt=127.0.0.1:"), "{said}");
    // What it kept is there for a broker of one's own.
    let broker = Broker::start(&data)?;
    ensure!(broker.show("speaker")?["status"] == "running");
    Ok(())
}

#[test]
fn a_directory_without_a_crate_is_refused() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let broker = Broker::start(&directory.path().join("data"))?;
    let refused = broker.refused(&["dev", directory.path().to_str().context("path")?])?;
    ensure!(refused.contains("holds no Cargo.toml"), "{refused}");
    Ok(())
}
