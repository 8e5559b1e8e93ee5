//! The flags, and where the programs are that they do not name.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;

use anyhow::{Context as _, bail, ensure};

use crate::subject::Subject;

/// Compares the service as a plugin of Vespiary with the same service beside other brokers.
#[derive(Debug, clap::Parser)]
#[command(name = "compare", max_term_width = 100)]
pub(crate) struct Args {
    /// Whom to compare with, separated by commas; without it, all whose programs are there
    #[arg(long, value_name = "SUBJECTS", value_enum, value_delimiter = ',')]
    against: Vec<Subject>,
    /// What to measure, separated by commas: `saturated`, or events a second
    #[arg(long, value_delimiter = ',', default_value = "saturated,2000,10000")]
    pub(crate) scenarios: Vec<Scenario>,
    /// How often
    #[arg(long, default_value_t = 3, value_parser = parse_repetitions)]
    pub(crate) repetitions: usize,
    /// Seconds of load that are measured, and how long until the last alert
    #[arg(long, default_value_t = 4.0)]
    pub(crate) seconds: f64,
    /// Seconds of load before
    #[arg(long, default_value_t = 1.0)]
    pub(crate) warm_up: f64,
    /// Assets, each with a record
    #[arg(long, default_value_t = 1000)]
    pub(crate) assets: u32,
    /// Take the assets at random instead of in turn
    #[arg(long)]
    pub(crate) random: bool,
    /// Write every result here
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Where brokers and services keep their data, each in a temporary directory; on a disk, not in memory
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// The Vespiary to measure; without it, the one beside this program
    #[arg(long, value_name = "FILE")]
    vespiary: Option<PathBuf>,
    /// The Vespiary whose `bench` makes the load; without it, the one that is measured
    #[arg(long, value_name = "FILE")]
    generator: Option<PathBuf>,
    /// The component of the plugin; without it, the one that cargo built in the same target directory
    #[arg(long, value_name = "FILE")]
    plugin: Option<PathBuf>,
    /// Mosquitto
    #[arg(long, value_name = "FILE", default_value = "/usr/sbin/mosquitto")]
    pub(crate) mosquitto: PathBuf,
    /// rumqttd 0.20: `cargo install rumqttd --version 0.20.0`
    #[arg(long, value_name = "FILE", env = "RUMQTTD", default_value = "rumqttd")]
    pub(crate) rumqttd: PathBuf,
    /// A Python with paho-mqtt; without it, an environment is made beside this program
    #[arg(long, value_name = "FILE")]
    python: Option<PathBuf>,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Scenario {
    /// As much as it takes.
    Saturated,
    /// So many events a second.
    Paced(u32),
}

impl FromStr for Scenario {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.parse()) {
            ("saturated", _) => Ok(Self::Saturated),
            (_, Ok(rate)) if rate > 0 => Ok(Self::Paced(rate)),
            _ => Err("`saturated`, or events a second".to_owned()),
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Saturated => write!(f, "saturated"),
            Self::Paced(rate) => write!(f, "paced at {rate}/s"),
        }
    }
}

fn parse_repetitions(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|count| (1..=1000).contains(count)).ok_or_else(|| "1 to 1000".to_owned())
}

impl Args {
    /// Whom to measure: Vespiary first. One that was asked for by name has to be there; of the others those that are not
    /// are told of and left out.
    pub(crate) fn subjects(&self) -> anyhow::Result<Vec<Subject>> {
        Subject::Vespiary.ensure_there(self)?;
        let mut subjects = vec![Subject::Vespiary];
        for subject in Subject::ALL.into_iter().filter(|subject| *subject != Subject::Vespiary) {
            let wanted = self.against.contains(&subject);
            if !wanted && !self.against.is_empty() {
                continue;
            }
            match subject.ensure_there(self) {
                Ok(()) => subjects.push(subject),
                Err(error) if wanted => return Err(error),
                Err(error) => eprintln!("LEFT OUT: {}: {error:#}", subject.name()),
            }
        }
        Ok(subjects)
    }

    /// Where data goes.
    pub(crate) fn directory(&self) -> PathBuf {
        self.directory.clone().unwrap_or_else(std::env::temp_dir)
    }

    /// The Vespiary to measure.
    pub(crate) fn vespiary(&self) -> PathBuf {
        self.vespiary.clone().unwrap_or_else(|| beside("vespiary"))
    }

    /// The Vespiary that makes the load.
    pub(crate) fn generator(&self) -> PathBuf {
        self.generator.clone().unwrap_or_else(|| self.vespiary())
    }

    /// The plugin's component.
    pub(crate) fn plugin(&self) -> PathBuf {
        let built = || beside("../wasm32-wasip2/component/examples/vibration.wasm");
        self.plugin.clone().unwrap_or_else(built)
    }

    /// The external service in Rust.
    pub(crate) fn external_service(&self) -> PathBuf {
        beside("external-service")
    }

    /// The service in Python.
    pub(crate) fn python_service() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("python/service.py")
    }

    /// The Python that runs it.
    pub(crate) fn python(&self) -> PathBuf {
        self.python.clone().unwrap_or_else(|| beside("../comparator-python/bin/python"))
    }

    /// Makes an environment for Python, unless there is one or it was named.
    pub(crate) fn prepare_python(&self) -> anyhow::Result<()> {
        let python = self.python();
        let has_paho = || runs(Command::new(&python).args(["-c", "import paho.mqtt.client"]));
        if has_paho() {
            return Ok(());
        }
        ensure!(self.python.is_none(), "{} has no paho-mqtt", python.display());
        eprintln!("making an environment for Python with paho-mqtt (once)");
        let requirements = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/requirements.txt");
        let made = runs(Command::new("python3").args(["-m", "venv"]).arg(beside("../comparator-python")))
            && runs(Command::new(&python).args(["-m", "pip", "install", "--quiet", "-r"]).arg(requirements));
        ensure!(made && has_paho(), "Python 3 with venv is not there, or paho-mqtt cannot be had from PyPI");
        Ok(())
    }
}

/// That a program is there, by path or by name.
pub(crate) fn ensure_program(program: &Path, how_to_get_it: &str) -> anyhow::Result<()> {
    if program.is_file() {
        return Ok(());
    }
    let paths = std::env::var_os("PATH").context("PATH is not set")?;
    let by_name = program.components().count() == 1;
    if by_name && std::env::split_paths(&paths).any(|folder| folder.join(program).is_file()) {
        return Ok(());
    }
    bail!("{} is not there: {how_to_get_it}", program.display());
}

/// A file beside this program.
fn beside(name: &str) -> PathBuf {
    let folder = std::env::current_exe().ok().and_then(|program| program.parent().map(Path::to_path_buf));
    folder.unwrap_or_default().join(name)
}

fn runs(command: &mut Command) -> bool {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}
