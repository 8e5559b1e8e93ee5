//! Processes that are stopped when they are no longer needed, whatever happens.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

/// How long a process may take until it is ready.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often to look.
const STEP: Duration = Duration::from_millis(20);

/// A process of ours. Dropping it kills it: its data is thrown away with it.
pub(crate) struct Process {
    child: Child,
    name: &'static str,
    /// What it says on stderr, and on stdout after it is ready.
    log: PathBuf,
}

impl Process {
    /// Starts a process; what it prints goes to a file in `directory`.
    pub(crate) fn start(name: &'static str, command: &mut Command, directory: &Path) -> anyhow::Result<Self> {
        let log = directory.join(format!("{name}.log"));
        let file = File::create(&log).with_context(|| format!("cannot make {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        Ok(Self { child, name, log })
    }

    /// Its identifier.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line that begins with `beginning`, and gives the rest of it.
    pub(crate) fn wait_for_line(&mut self, beginning: &str) -> anyhow::Result<String> {
        let begin = Instant::now();
        loop {
            // A line without its end is still being written.
            let mut reader = BufReader::new(File::open(&self.log)?);
            let mut line = String::new();
            while reader.read_line(&mut line)? > 0 {
                if let Some(rest) = line.strip_suffix('\n').and_then(|line| line.strip_prefix(beginning)) {
                    return Ok(rest.to_owned());
                }
                line.clear();
            }
            self.wait_a_moment(begin)?;
        }
    }

    /// Waits until it takes connections.
    pub(crate) fn wait_for_port(&mut self, address: SocketAddr) -> anyhow::Result<()> {
        let begin = Instant::now();
        while TcpStream::connect(address).is_err() {
            self.wait_a_moment(begin)?;
        }
        Ok(())
    }

    fn wait_a_moment(&mut self, begin: Instant) -> anyhow::Result<()> {
        self.ensure_alive()?;
        ensure!(begin.elapsed() < PATIENCE, "the {} is not ready: {}", self.name, self.last_words());
        std::thread::sleep(STEP);
        Ok(())
    }

    /// That it has not ended.
    pub(crate) fn ensure_alive(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("the {} ended with {status}: {}", self.name, self.last_words());
        }
        Ok(())
    }

    fn last_words(&self) -> String {
        let said = std::fs::read_to_string(&self.log).unwrap_or_default();
        said.lines().last().unwrap_or("it said nothing").to_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended; then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address that is free now.
pub(crate) fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
